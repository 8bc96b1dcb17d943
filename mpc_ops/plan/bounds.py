"""Types, scales and bounds of plan expressions: the ground of the overflow proof.

Numbers are exact: an integer in units of 10^-scale with an interval that no contract-abiding row can leave. Literals
compared with private columns are refused (LITERAL_ON_PRIVATE): the plan travels to every owner and operator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from mpc_ops.errors import PlanError
from mpc_ops.federation.contract import Column as ContractColumn
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.plan.expr import Binary, Case, Column, Expr, InList, IsNull, Literal_, Logic, Not

__all__ = ["INT64_LIMIT", "MAX_SCALE", "Typed", "aggregate_bound", "columns_of", "measure_bound", "scaled", "type_of"]

INT64_LIMIT = 2**63
MAX_SCALE = 12
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,12})?")
_MAX_NODES = 2000


@dataclass(frozen=True, slots=True)
class Typed:
    """What is known of an expression.

    Attributes:
        kind: `number`, `string`, `date` or `boolean`.
        scale: of a number: value = integer * 10^-scale; `low`, `high` are its inclusive integer bounds.
        nullable: whether it can be NULL.
        private: whether it depends on a column whose values are private (keys, units, attributes without a domain).
        literal: whether a constant stands in it.
    """

    kind: Literal["number", "string", "date", "boolean"]
    scale: int = 0
    low: int = 0
    high: int = 0
    nullable: bool = False
    private: bool = False
    literal: bool = False


def scaled(text: str, scale: int) -> int:
    """Return decimal text as an integer in units of 10^-scale; raise PlanError BOUND_INVALID if it does not fit."""
    if not _NUMBER.fullmatch(text):
        raise PlanError(
            "BOUND_INVALID", "not a decimal number", expected="for example -12.50", got=f"{len(text)} characters"
        )
    whole, _, fraction = text.lstrip("-").partition(".")
    power = scale - len(fraction)
    number = int(whole + fraction)
    if power < 0 and number % int(10**-power):
        raise PlanError(
            "BOUND_INVALID", "a number has more digits after the point than its scale", expected=f"{scale} digits"
        )
    number = number * int(10**power) if power >= 0 else number // int(10**-power)
    return -number if text.startswith("-") else number


def columns_of(expr: Expr) -> set[str]:
    """Return the names of all columns in an expression."""
    if isinstance(expr, Column):
        return {expr.name}
    return set().union(*(columns_of(child) for child in _children(expr)))


def _children(expr: Expr) -> list[Expr]:
    if isinstance(expr, Binary):
        return [expr.left, expr.right]
    if isinstance(expr, Logic):
        return list(expr.args)
    if isinstance(expr, (Not, IsNull)):
        return [expr.arg]
    if isinstance(expr, InList):
        return [expr.arg, *expr.values]
    if isinstance(expr, Case):
        return [expr.condition, expr.then, expr.otherwise]
    return []


def _count(expr: Expr) -> int:
    return 1 + sum(_count(child) for child in _children(expr))


def type_of(expr: Expr, contract: DatasetContract) -> Typed:
    """Infer type, scale, bounds and nullability of an expression over a dataset's columns.

    Raises:
        PlanError: TYPE_MISMATCH, LITERAL_ON_PRIVATE, OVERFLOW_POSSIBLE, LITERAL_INVALID, EXPRESSION_TOO_LONG.
        ConfigError: COLUMN_UNKNOWN.
    """
    if _count(expr) > _MAX_NODES:
        raise PlanError("EXPRESSION_TOO_LONG", "an expression is too long", expected=f"at most {_MAX_NODES} parts")
    return _infer(expr, contract)


def _infer(expr: Expr, contract: DatasetContract) -> Typed:
    if isinstance(expr, Column):
        return _column(contract.column(expr.name))
    if isinstance(expr, Literal_):
        return _literal(expr)
    if isinstance(expr, Binary):
        left, right = _infer(expr.left, contract), _infer(expr.right, contract)
        return _arithmetic(expr.op, left, right) if expr.op in {"+", "-", "*"} else _comparison([left, right])
    if isinstance(expr, (Logic, Not)):
        parts = [_infer(child, contract) for child in _children(expr)]
        if any(part.kind != "boolean" for part in parts):
            raise _mismatch("AND, OR and NOT take conditions", parts)
        return _merged(Typed("boolean"), parts)
    if isinstance(expr, InList):
        arg = _infer(expr.arg, contract)
        return _comparison([arg, *(_literal(value) for value in expr.values)])
    if isinstance(expr, IsNull):
        _infer(expr.arg, contract)
        return Typed("boolean")  # whether a value is there does not tell which one
    return _case(expr, contract)


def _column(column: ContractColumn) -> Typed:
    private = column.role in {"unit", "key"} or (column.role == "attribute" and not column.domain)
    if column.type in {"string", "date"}:
        kind: Literal["string", "date"] = "date" if column.type == "date" else "string"
        return Typed(kind, nullable=column.nullable, private=private)
    low, high = (scaled(bound or "0", column.scale) for bound in (column.minimum, column.maximum))
    if low > high:
        raise PlanError("BOUND_INVALID", "minimum is above maximum", ids={"column": column.name})
    return Typed("number", column.scale, low, high, nullable=column.nullable, private=private)


def _literal(literal: Literal_) -> Typed:
    if literal.type in {"int64", "decimal"}:
        if not _NUMBER.fullmatch(literal.value) or (literal.type == "int64" and "." in literal.value):
            raise PlanError("LITERAL_INVALID", f"not a {literal.type} in plain decimal notation")
        scale = len(literal.value.partition(".")[2])
        value = scaled(literal.value, scale)
        return Typed("number", scale, value, value, literal=True)
    if literal.type == "boolean":
        if literal.value not in {"true", "false"}:
            raise PlanError("LITERAL_INVALID", "a boolean is true or false")
        return Typed("boolean", literal=True)
    if literal.type == "date":
        _check_date(literal.value)
    return Typed("date" if literal.type == "date" else "string", literal=True)


def _check_date(text: str) -> None:
    try:
        known = date.fromisoformat(text).isoformat() == text
    except ValueError:
        known = False
    if not known:
        raise PlanError("LITERAL_INVALID", "not a date", expected="YYYY-MM-DD")


def _mismatch(why: str, parts: list[Typed]) -> PlanError:
    return PlanError("TYPE_MISMATCH", why, got=", ".join(part.kind for part in parts))


def _merged(base: Typed, parts: list[Typed]) -> Typed:
    return replace(
        base,
        nullable=any(part.nullable for part in parts),
        private=any(part.private for part in parts),
        literal=any(part.literal for part in parts),
    )


def _align(parts: list[Typed]) -> list[Typed]:
    scale = max(part.scale for part in parts)
    return [
        replace(
            part, scale=scale, low=part.low * 10 ** (scale - part.scale), high=part.high * 10 ** (scale - part.scale)
        )
        for part in parts
    ]


def _arithmetic(op: str, left: Typed, right: Typed) -> Typed:
    if (left.kind, right.kind) != ("number", "number"):
        raise _mismatch(f"'{op}' takes numbers", [left, right])
    if op == "*":
        corners = [one * other for one in (left.low, left.high) for other in (right.low, right.high)]
        scale, low, high = left.scale + right.scale, min(corners), max(corners)
    else:
        one, other = _align([left, right])
        scale = one.scale
        low = one.low + other.low if op == "+" else one.low - other.high
        high = one.high + other.high if op == "+" else one.high - other.low
    if scale > MAX_SCALE:
        raise PlanError(
            "SCALE_TOO_LARGE",
            "a product has too many digits after the point",
            expected=f"at most {MAX_SCALE}",
            got=scale,
        )
    return _merged(_in_range(Typed("number", scale, low, high)), [left, right])


def _in_range(number: Typed) -> Typed:
    if max(abs(number.low), abs(number.high)) >= INT64_LIMIT:
        raise PlanError(
            "OVERFLOW_POSSIBLE",
            "a value of one row can leave 64 bits",
            expected=f"below {INT64_LIMIT}",
            got=f"up to {max(abs(number.low), abs(number.high))} in units of 10^-{number.scale}",
        )
    return number


def _comparison(parts: list[Typed]) -> Typed:
    if len({part.kind for part in parts}) != 1 or parts[0].kind == "boolean":
        raise _mismatch("a comparison takes two numbers, two strings or two dates", parts)
    out = _merged(Typed("boolean"), parts)
    if out.private and out.literal:
        raise PlanError(
            "LITERAL_ON_PRIVATE",
            "a constant is compared with a private column, and the report's text travels to every data owner and operator",
            hint="Compare dimensions or measures, or let each entity mark the rows in its own store",
        )
    return replace(out, private=False, literal=False)  # only a truth value goes on


def _case(expr: Case, contract: DatasetContract) -> Typed:
    condition = _infer(expr.condition, contract)
    branches = [_infer(expr.then, contract), _infer(expr.otherwise, contract)]
    if condition.kind != "boolean":
        raise _mismatch("CASE WHEN takes a condition", [condition])
    if branches[0].kind != branches[1].kind:
        raise _mismatch("both branches of CASE must have one type", branches)
    out = branches[0]
    if out.kind == "number":
        branches = _align(branches)
        out = _in_range(Typed("number", branches[0].scale, min(b.low for b in branches), max(b.high for b in branches)))
    return replace(_merged(out, [condition, *branches]), nullable=any(branch.nullable for branch in branches))


def aggregate_bound(fn: str, expr: Expr | None, contract: DatasetContract) -> tuple[int, int]:
    """Return (bound, scale) of an aggregate at one owner: largest absolute value in units of 10^-scale.

    Raises:
        PlanError: TYPE_MISMATCH unless a sum is over numbers that cannot be NULL; OVERFLOW_POSSIBLE with numbers.
    """
    if fn != "sum":
        if expr is not None:
            raise PlanError("TYPE_MISMATCH", f"{fn} takes no expression")
        return contract.max_rows, 0
    if expr is None:
        raise PlanError("TYPE_MISMATCH", "a sum needs an expression")
    typed = type_of(expr, contract)
    if typed.kind != "number" or typed.nullable:
        raise PlanError(
            "TYPE_MISMATCH",
            "SUM takes numbers that cannot be NULL",
            got=f"{typed.kind}{', may be NULL' * typed.nullable}",
        )
    if typed.private:
        raise PlanError("SUM_OF_PRIVATE", "SUM takes measures and dimensions, not keys, units or attributes")
    bound = max(abs(typed.low), abs(typed.high)) * contract.max_rows
    return _below("the sum of one data owner", bound, f"{contract.max_rows} rows"), typed.scale


def measure_bound(source: tuple[int, int], *, scale: int, max_owners: int, max_rate: str | None, parts: int = 1) -> int:
    """Return the bound of one owner's cell in shared units, having proven that the sum over all owners fits 64 bits.

    Args:
        source: (bound, scale) of the aggregate.
        scale: digits after the point of the shared integer.
        max_owners: most owners in one run.
        max_rate: largest exchange rate as decimal text; None for a measure that is not translated.
        parts: how many translated values of an owner a cell can be the sum of: 1 with the Gate at the owner, the number of
            leaf cells with a Gate in the region, which moves what was translated leaf by leaf.

    Raises:
        PlanError: OVERFLOW_POSSIBLE with numbers; TYPE_MISMATCH if an untranslated measure changes its scale.
    """
    bound, from_scale = source
    if max_rate is None:
        if scale != from_scale:
            raise PlanError(
                "TYPE_MISMATCH", "a measure that is not translated keeps its scale", expected=from_scale, got=scale
            )
    else:
        rate = scaled(max_rate, MAX_SCALE)
        # Rounding half-even never goes beyond the next integer, so the ceiling covers it; every further part adds a half
        # at most.
        bound = -(-bound * rate * 10**scale // 10 ** (MAX_SCALE + from_scale)) + parts // 2
    _below(f"the sum over {max_owners} data owners", bound * max_owners, f"{bound} for one data owner")
    return bound


def _below(what: str, bound: int, because: str) -> int:
    if bound >= INT64_LIMIT:
        raise PlanError(
            "OVERFLOW_POSSIBLE",
            f"{what} could leave 64 bits",
            expected=f"below {INT64_LIMIT}",
            got=f"up to {bound} ({because})",
            hint="Narrow the contract's bounds or max_rows, or lower max_owners or max_rate",
        )
    return bound
