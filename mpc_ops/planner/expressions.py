"""From SQL scalar expressions to the plan's expressions, and names."""

from __future__ import annotations

import re
from functools import reduce
from typing import Literal, cast

from sqlglot import exp

from mpc_ops.errors import ConfigError, PlanError
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.plan.bounds import type_of
from mpc_ops.plan.expr import Binary, Case, Column, Expr, InList, IsNull, Literal_, Logic, Not
from mpc_ops.planner.refusal import Source

__all__ = ["Expressions", "conjuncts", "name_of", "plain_column"]

_IDENT = re.compile(r"[a-z][a-z0-9_]{0,62}")
_NUMBER = re.compile(r"[0-9]{1,30}(\.[0-9]{1,12})?")
_OPERATORS: dict[type[exp.Expr], Literal["+", "-", "*", "=", "<>", "<", "<=", ">", ">="]] = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
_MAX_DEPTH = 40
_MAX_ARGS = 50


def name_of(source: Source, node: exp.Expr) -> str:
    """Return an identifier in lower case; refuse what is not one."""
    if not isinstance(node, exp.Identifier):
        raise source.refuse(node)
    name = str(node.this) if node.args.get("quoted") else str(node.this).lower()
    if not _IDENT.fullmatch(name):
        raise source.refuse(node, "names are a-z, 0-9 and _, at most 63 characters")
    return name


def plain_column(source: Source, node: exp.Expr) -> tuple[str | None, str]:
    """Return (table alias or None, column name) of a column reference; refuse anything else."""
    if not isinstance(node, exp.Column):
        raise source.refuse(node)
    source.only(node, "this", "table")
    table = node.args.get("table")
    return (name_of(source, table) if table is not None else None), name_of(source, node.this)


def conjuncts(node: exp.Expr) -> list[exp.Expr]:
    """Return the conditions joined by AND, in order."""
    if isinstance(node, exp.Paren) and isinstance(node.this, exp.And):
        return conjuncts(node.this)
    if isinstance(node, exp.And):
        return conjuncts(node.this) + conjuncts(node.expression)
    return [node]


class Expressions:
    """Translates expressions over one dataset.

    Args:
        source: the SQL, for positions.
        contract: the dataset's contract.
        alias: table alias under which its columns may be named.
    """

    def __init__(self, source: Source, contract: DatasetContract, alias: str | None = None) -> None:
        self._source, self._contract, self._alias = source, contract, alias

    def checked(self, node: exp.Expr) -> Expr:
        """Return the typed-checked plan expression of a node; type errors carry its position."""
        expr = self._expr(node, 0)
        try:
            type_of(expr, self._contract)
        except PlanError as error:
            raise self._source.located(error, node) from None
        return expr

    def condition(self, nodes: list[exp.Expr]) -> Expr:
        """Return the conjunction of conditions."""
        for node in nodes:
            if type_of(self.checked(node), self._contract).kind != "boolean":
                raise self._source.refuse(node, "WHERE takes conditions")
        return self._logic("and", [self.checked(node) for node in nodes])

    def _expr(self, node: exp.Expr, depth: int) -> Expr:
        source = self._source
        if depth > _MAX_DEPTH:
            raise source.refuse(node, "an expression is nested too deeply")
        if isinstance(node, exp.Paren):
            return self._expr(node.this, depth + 1)
        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, (exp.Literal, exp.Boolean, exp.Neg, exp.Cast)):
            return self._constant(node, depth)
        if type(node) in _OPERATORS:
            left, right = self._expr(node.this, depth + 1), self._expr(node.expression, depth + 1)
            if isinstance(node, exp.EQ):
                self._in_domain(node, left, [right])
            return Binary(op=_OPERATORS[type(node)], left=left, right=right)
        if isinstance(node, (exp.And, exp.Or)):
            parts = [self._expr(part, depth + 1) for part in _flat(node, type(node))]
            return self._logic("and" if isinstance(node, exp.And) else "or", parts)
        if isinstance(node, exp.Not):
            return Not(arg=self._expr(node.this, depth + 1))
        return self._predicate(node, depth)

    def _predicate(self, node: exp.Expr, depth: int) -> Expr:
        source = self._source
        if isinstance(node, exp.In):
            source.only(node, "this", "expressions")
            arg = self._expr(node.this, depth + 1)
            values = [self._expr(value, depth + 1) for value in node.expressions]
            if not values or not all(isinstance(value, Literal_) for value in values):
                raise source.refuse(node, "IN takes a list of constants")
            self._in_domain(node, arg, values)
            return InList(arg=arg, values=cast("list[Literal_]", values))
        if isinstance(node, exp.Between):
            source.only(node, "this", "low", "high")
            arg = self._expr(node.this, depth + 1)
            low, high = self._expr(node.args["low"], depth + 1), self._expr(node.args["high"], depth + 1)
            return Logic(op="and", args=[Binary(op=">=", left=arg, right=low), Binary(op="<=", left=arg, right=high)])
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return IsNull(arg=self._expr(node.this, depth + 1))
        if isinstance(node, exp.Case):
            return self._case(node, depth)
        raise source.refuse(node)

    def _case(self, node: exp.Case, depth: int) -> Expr:
        if node.args.get("this") is not None:
            raise self._source.refuse(node, "write CASE WHEN condition THEN value ELSE value END")
        default = node.args.get("default")
        if default is None:
            raise self._source.refuse(node, "CASE without ELSE would give NULL")
        out = self._expr(default, depth + 1)
        for branch in reversed(node.args["ifs"]):
            out = Case(
                condition=self._expr(branch.this, depth + 1),
                then=self._expr(branch.args["true"], depth + 1),
                otherwise=out,
            )
        return out

    def _column(self, node: exp.Column) -> Column:
        table, name = plain_column(self._source, node)
        if table is not None and table != self._alias:
            raise self._source.refuse(node, f"no table is called {table} here")
        try:
            self._contract.column(name)
        except ConfigError as error:
            raise self._source.refuse(node, error.what, hint=f"There are {error.expected}") from None
        return Column(name=name)

    def _constant(self, node: exp.Expr, depth: int) -> Expr:
        if isinstance(node, exp.Boolean):
            return Literal_(type="boolean", value="true" if node.this else "false")
        if isinstance(node, exp.Neg):
            inner = self._expr(node.this, depth + 1)
            if isinstance(inner, Literal_) and inner.type in {"int64", "decimal"} and not inner.value.startswith("-"):
                return Literal_(type=inner.type, value=f"-{inner.value}")
            return Binary(op="-", left=Literal_(type="int64", value="0"), right=inner)
        if isinstance(node, exp.Cast):
            if not (isinstance(node.this, exp.Literal) and node.this.is_string and node.to.is_type(exp.DType.DATE)):
                raise self._source.refuse(node)
            return Literal_(type="date", value=str(node.this.this)[:200])
        text = str(node.this)
        if isinstance(node, exp.Literal) and node.is_string:
            if len(text) > 200:
                raise self._source.refuse(node, "a text constant is longer than 200 characters")
            return Literal_(type="string", value=text)
        if not _NUMBER.fullmatch(text):
            raise self._source.refuse(
                node, "numbers are written like 12 or 0.5, with at most 12 digits after the point"
            )
        return Literal_(type="decimal" if "." in text else "int64", value=text)

    def _in_domain(self, node: exp.Expr, arg: Expr, values: list[Expr]) -> None:
        if not isinstance(arg, Column):
            return
        domain = self._contract.column(arg.name).domain
        if domain and any(isinstance(v, Literal_) and v.type == "string" and v.value not in domain for v in values):
            raise self._source.refuse(
                node, f"a constant is not in the domain of {arg.name}", hint=f"The domain is {', '.join(domain[:20])}"
            )

    def _logic(self, op: Literal["and", "or"], parts: list[Expr]) -> Expr:
        if len(parts) <= _MAX_ARGS:
            return parts[0] if len(parts) == 1 else Logic(op=op, args=parts)
        head = self._logic(op, parts[:_MAX_ARGS])
        return reduce(lambda left, right: Logic(op=op, args=[left, right]), parts[_MAX_ARGS:], head)


def _flat(node: exp.Expr, kind: type[exp.Expr]) -> list[exp.Expr]:
    """Return the operands of a chain of one connective; iterative, since chains are deep on the left."""
    out: list[exp.Expr] = []
    while isinstance(node, kind):
        out.append(node.expression)
        node = node.this
    return [node, *reversed(out)]
