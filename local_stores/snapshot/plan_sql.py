"""SQL of the local plan, generated from plan nodes: never the author's text.

Every name is a contract column in double quotes, every constant a parameter, every number an integer of 128 bits with a
scale that only this module knows. What the nodes cannot say (files, URLs, variables, ATTACH, COPY, INSTALL) has no words
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from local_stores.errors import LocalProtocolError
from local_stores.snapshot.periods import SLICES, SliceName
from local_stores.stores import DateRange
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.plan.bounds import scaled, type_of
from mpc_ops.plan.expr import Binary, Case, Column, Expr, InList, IsNull, Literal_, Logic, Not
from mpc_ops.plan.layout import aggregate_node
from mpc_ops.plan.model import FilterNode, Plan, ScanNode

__all__ = ["TABLE", "LocalQuery", "local_query"]

TABLE = "snapshot"


@dataclass(frozen=True)
class LocalQuery:
    """One SELECT over the table `snapshot`.

    Attributes:
        sql: text with parameters $1, $2, ...
        parameters: their values as text; each is cast to its type inside the SQL.
        columns: the snapshot's columns that the SELECT reads; decimals are expected as integers in units of 10^-scale.
    """

    sql: str
    parameters: tuple[str, ...]
    columns: tuple[str, ...]

    def __repr__(self) -> str:
        return f"LocalQuery({len(self.sql)} characters, {len(self.parameters)} parameters)"


@dataclass
class _Writer:
    contract: DatasetContract
    allowed: frozenset[str]
    parameters: list[str] = field(default_factory=list)

    def parameter(self, value: str, kind: str) -> str:
        self.parameters.append(value)
        return f"CAST(${len(self.parameters)} AS {kind})"

    def name(self, column: str) -> str:
        # The contract's check allows identifiers only; a plan's scan node lists which of them are read.
        if column not in self.allowed or not column.isidentifier():
            raise LocalProtocolError("PLAN_INVALID", "the plan uses a column that it does not scan")
        return f'"{column}"'

    def number(self, expr: Expr, scale: int) -> str:
        """Return an expression as an integer in units of 10^-scale (at least its own scale)."""
        own = type_of(expr, self.contract).scale
        text = self._number(expr)
        return text if own == scale else f"({text} * {10 ** (scale - own)}::HUGEINT)"

    def _number(self, expr: Expr) -> str:
        if isinstance(expr, Column):
            return f"CAST({self.name(expr.name)} AS HUGEINT)"
        if isinstance(expr, Literal_):
            scale = type_of(expr, self.contract).scale
            return self.parameter(str(scaled(expr.value, scale)), "HUGEINT")
        if isinstance(expr, Binary) and expr.op == "*":
            return f"({self._number(expr.left)} * {self._number(expr.right)})"
        if isinstance(expr, Binary) and expr.op in {"+", "-"}:
            scale = type_of(expr, self.contract).scale
            return f"({self.number(expr.left, scale)} {expr.op} {self.number(expr.right, scale)})"
        if isinstance(expr, Case):
            scale = type_of(expr, self.contract).scale
            then, otherwise = self.number(expr.then, scale), self.number(expr.otherwise, scale)
            return f"(CASE WHEN {self.condition(expr.condition)} THEN {then} ELSE {otherwise} END)"
        raise LocalProtocolError("PLAN_INVALID", f"a {type(expr).__name__} is not a number")

    def condition(self, expr: Expr) -> str:
        """Return a boolean expression."""
        if isinstance(expr, Logic):
            return "(" + f" {expr.op.upper()} ".join(self.condition(arg) for arg in expr.args) + ")"
        if isinstance(expr, Not):
            return f"(NOT {self.condition(expr.arg)})"
        if isinstance(expr, IsNull):
            return f"({self.value(expr.arg)} IS NULL)"
        if isinstance(expr, InList):
            # `x IN (a, b)` is `x = a OR x = b`, with every constant aligned to the scale of the comparison.
            return "(" + " OR ".join(self.comparison("=", expr.arg, value) for value in expr.values) + ")"
        if isinstance(expr, Binary) and expr.op not in {"+", "-", "*"}:
            return self.comparison(expr.op, expr.left, expr.right)
        if isinstance(expr, Literal_) and expr.type == "boolean":
            return "TRUE" if expr.value == "true" else "FALSE"
        if isinstance(expr, Case):
            then, otherwise = self.condition(expr.then), self.condition(expr.otherwise)
            return f"(CASE WHEN {self.condition(expr.condition)} THEN {then} ELSE {otherwise} END)"
        raise LocalProtocolError("PLAN_INVALID", f"a {type(expr).__name__} is not a condition")

    def comparison(self, op: str, left: Expr, right: Expr) -> str:
        if type_of(left, self.contract).kind == "number":
            scale = max(type_of(side, self.contract).scale for side in (left, right))
            return f"({self.number(left, scale)} {op} {self.number(right, scale)})"
        return f"({self.value(left)} {op} {self.value(right)})"

    def value(self, expr: Expr) -> str:
        """Return an expression of any type."""
        kind = type_of(expr, self.contract).kind
        if kind == "number":
            return self._number(expr)
        if kind == "boolean":
            return self.condition(expr)
        if isinstance(expr, Column):
            return self.name(expr.name)
        if isinstance(expr, Literal_):
            return self.parameter(expr.value, "DATE" if kind == "date" else "VARCHAR")
        if isinstance(expr, Case):
            then, otherwise = self.value(expr.then), self.value(expr.otherwise)
            return f"(CASE WHEN {self.condition(expr.condition)} THEN {then} ELSE {otherwise} END)"
        raise LocalProtocolError("PLAN_INVALID", f"a {type(expr).__name__} is not a {kind}")


def local_query(plan: Plan, contract: DatasetContract, ranges: Mapping[SliceName, DateRange]) -> LocalQuery:
    """Return the SELECT whose result is the unit table: slice, dimensions, unit, then every aggregate but distinct counts.

    Rows: one for each (slice, dimensions, unit). Slices are 0 (period) and 1 (prior year); sums are HUGEINT in units of
    10^-scale of their aggregate, counts BIGINT.

    Args:
        plan: a checked plan.
        contract: the scanned dataset's.
        ranges: local dates of each slice.

    Raises:
        LocalProtocolError: PLAN_INVALID for what `check_plan` would have refused.
    """
    scan, node = cast("ScanNode", plan.node(ScanNode)), aggregate_node(plan)
    writer = _Writer(contract, frozenset(scan.columns))
    period = writer.name(contract.by_role("period")[0].name)
    whens = []
    for one in node.slices:
        start = writer.parameter(ranges[one.name].start.isoformat(), "DATE")
        end = writer.parameter(ranges[one.name].end.isoformat(), "DATE")
        whens.append(f"WHEN {period} >= {start} AND {period} < {end} THEN {SLICES.index(one.name)}")
    keys = [*(writer.name(name) for name in node.dimensions), writer.name(node.unit)]
    columns = [f"CASE {' '.join(whens)} END AS slice"]
    columns += [f"{key} AS {label}" for key, label in zip(keys, _key_labels(plan), strict=True)]
    results = []
    for place, aggregate in enumerate(node.aggregates):
        if aggregate.fn == "sum" and aggregate.expr is not None:
            columns.append(f"{writer.number(aggregate.expr, aggregate.scale)} AS a{place}")
            results.append(f"SUM(a{place}) AS a{place}")
        elif aggregate.fn == "count":
            results.append(f"COUNT(*) AS a{place}")
    conditions = [writer.condition(one.condition) for one in plan.nodes if isinstance(one, FilterNode)] or ["TRUE"]
    grouped = ", ".join(["slice", *_key_labels(plan)])
    sql = (
        f"SELECT {', '.join([grouped, *results])} FROM "  # noqa: S608 - built from plan nodes, see above
        f'(SELECT {", ".join(columns)} FROM "{TABLE}" WHERE {" AND ".join(conditions)}) AS kept '
        f"WHERE slice IS NOT NULL GROUP BY {grouped} ORDER BY {grouped}"
    )
    return LocalQuery(sql, tuple(writer.parameters), tuple(scan.columns))


def _key_labels(plan: Plan) -> list[str]:
    return [*(f"d{place}" for place in range(len(aggregate_node(plan).dimensions))), "unit"]
