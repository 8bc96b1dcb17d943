"""The plan in words: what `comity report show` prints, what approvers read, what fixtures and differences compare."""

from __future__ import annotations

import difflib
from functools import singledispatch

from mpc_ops.plan.expr import Binary, Case, Column, Expr, InList, IsNull, Literal_, Logic, Not
from mpc_ops.plan.layout import aggregate_node, unit_limits
from mpc_ops.plan.model import (
    AggregateNode,
    CrossNode,
    DeliverNode,
    FilterNode,
    GateNode,
    GroupSumNode,
    Measure,
    MeasureNode,
    Plan,
    RegionGateNode,
    RegionSumNode,
    ScanNode,
    ShareNode,
)

__all__ = ["amount_text", "expression_text", "plan_difference", "plan_text"]


def amount_text(units: int, scale: int) -> str:
    """Return an integer in units of 10^-scale as decimal text with thousands separators."""
    sign, digits = "-" if units < 0 else "", str(abs(units)).rjust(scale + 1, "0")
    whole, fraction = (digits[:-scale], digits[-scale:]) if scale else (digits, "")
    return f"{sign}{int(whole):,}" + (f".{fraction}" if fraction else "")


def expression_text(expr: Expr) -> str:
    """Return an expression as SQL-like text with every operation in parentheses."""
    if isinstance(expr, Column):
        return expr.name
    if isinstance(expr, Literal_):
        quoted = "'" + expr.value.replace("'", "''") + "'"
        return {"string": quoted, "date": f"DATE {quoted}"}.get(expr.type, expr.value)
    if isinstance(expr, Binary):
        return f"({expression_text(expr.left)} {expr.op} {expression_text(expr.right)})"
    if isinstance(expr, Logic):
        return "(" + f" {expr.op.upper()} ".join(expression_text(arg) for arg in expr.args) + ")"
    if isinstance(expr, Not):
        return f"(NOT {expression_text(expr.arg)})"
    if isinstance(expr, InList):
        return f"({expression_text(expr.arg)} IN ({', '.join(expression_text(value) for value in expr.values)}))"
    if isinstance(expr, IsNull):
        return f"({expression_text(expr.arg)} IS NULL)"
    return _case_text(expr)


def _case_text(expr: Case) -> str:
    parts = (expression_text(part) for part in (expr.condition, expr.then, expr.otherwise))
    return "(CASE WHEN {} THEN {} ELSE {} END)".format(*parts)


def plan_text(plan: Plan) -> str:
    """Return the whole plan, one node after the other."""
    terms = plan.terms
    lines = [
        f"calculation {plan.report} version {plan.version}: {plan.title}",
        f"data owners in a run: {terms.min_owners} to {terms.max_owners}; late: {terms.on_late}; sign-off by {terms.sign_off}",
        f"shares kept at most {terms.ttl_days} days after the due date; a run is retried for {terms.give_up_hours} hours",
    ]
    if terms.security == "passive":
        lines.append("PASSIVE SECURITY: a dishonest operator is not noticed and could learn and alter figures")
    if terms.currency:
        lines.append(f"translated to {terms.currency} at rates of at most {terms.max_rate}")
    lines += [f"domain of {name}: {', '.join(values)}" for name, values in plan.domains.items()]
    for node in plan.nodes:
        lines += _node(node, plan)
    return "\n".join(lines) + "\n"


def plan_difference(one: Plan, other: Plan, names: tuple[str, str]) -> str:
    """Return a unified diff of two plans' texts; empty if they read the same."""
    one_text, other_text = (plan_text(plan).splitlines(keepends=True) for plan in (one, other))
    return "".join(difflib.unified_diff(one_text, other_text, *names, n=1))


@singledispatch
def _node(node: object, _plan: Plan) -> list[str]:
    return [f"{type(node).__name__}"]


@_node.register
def _scan(node: ScanNode, _plan: Plan) -> list[str]:
    return [f"scan {node.dataset} (data contract {node.contract[:12]}): {', '.join(node.columns)}"]


@_node.register
def _filter(node: FilterNode, _plan: Plan) -> list[str]:
    return [f"filter {expression_text(node.condition)}"]


@_node.register
def _aggregate(node: AggregateNode, _plan: Plan) -> list[str]:
    by = ", ".join(["entity", "period", *node.dimensions])
    lines = [f"aggregate by {by}; periods: {', '.join(one.name for one in node.slices)}; unit: {node.unit}"]
    for one in node.aggregates:
        what = {"sum": "SUM({})", "count": "COUNT(*)", "count_distinct": "COUNT(DISTINCT {})"}[one.fn]
        what = what.format(expression_text(one.expr) if one.expr is not None else node.unit)
        lines.append(f"  {one.name} = {what}, at most {amount_text(int(one.bound), one.scale)}")
    return lines


@_node.register
def _gate(node: GateNode, _plan: Plan) -> list[str]:
    return [
        f"gate: at least {node.k} of {node.unit} per cell, smaller cells to not allocated; then {node.payload_class}"
    ]


@_node.register
def _region_gate(node: RegionGateNode, plan: Plan) -> list[str]:
    owners = f" of at least {node.min_owners} data owners" if node.min_owners > 1 else ""
    return [
        (
            f"gate in each country cluster, on secret shares ({plan.terms.security} security): at least {node.k} of {node.unit}"
            f"{owners} per cell over all its data owners together, smaller cells to not allocated; then {node.payload_class}"
        )
    ]


@_node.register
def _measures(node: MeasureNode, _plan: Plan) -> list[str]:
    return ["measures", *(f"  {_measure(one)}" for one in node.measures)]


def _measure(one: Measure) -> str:
    value = f"{one.source} of {one.slice}"
    if one.translate:
        value = f"gc({value}, rate of {one.translate})"
    totals = {"foots": "totals foot", "each_level": "counted at each level", "none": "no totals"}[one.totals]
    return (
        f"{one.name} ({one.label}) = {value}; {totals}; one data owner at most {amount_text(int(one.bound), one.scale)}"
    )


@_node.register
def _share(node: ShareNode, plan: Plan) -> list[str]:
    limits = unit_limits(plan)
    if limits is None:
        return [f"share {node.lanes} values"]
    return [
        (
            f"share {node.lanes} values of cells, and one row of {limits.width} bits for each {aggregate_node(plan).unit}, at most "
            f"{limits.max_rows} rows for each of {limits.tables} periods; as {plan.gate.shared_class}"
        )
    ]


@_node.register
def _region_sum(node: RegionSumNode, _plan: Plan) -> list[str]:
    return [f"add secret shares in the country clusters of {', '.join(node.regions)}"]


@_node.register
def _cross(node: CrossNode, _plan: Plan) -> list[str]:
    return [f"cross into cluster {node.cluster} as {node.payload_class}"]


@_node.register
def _group_sum(node: GroupSumNode, _plan: Plan) -> list[str]:
    return [f"add secret shares in cluster {node.cluster}"]


@_node.register
def _deliver(node: DeliverNode, _plan: Plan) -> list[str]:
    return [f"deliver to {node.recipient} as {node.payload_class}"]
