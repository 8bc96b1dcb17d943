"""Compiles report SQL and terms into a calculation plan, and proves the plan before returning it."""

from __future__ import annotations

from math import prod
from typing import cast

from sqlglot import exp

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.schema import encode
from mpc_ops.errors import PlanError
from mpc_ops.federation.loaded import Federation
from mpc_ops.plan.bounds import aggregate_bound, measure_bound
from mpc_ops.plan.checks import check_plan, payload_classes, scan_columns
from mpc_ops.plan.layout import shared_lane_count
from mpc_ops.plan.model import (
    Aggregate,
    AggregateNode,
    CrossNode,
    DeliverNode,
    FilterNode,
    GateNode,
    GroupSumNode,
    Measure,
    MeasureNode,
    Node,
    Plan,
    RegionGateNode,
    RegionSumNode,
    ScanNode,
    ShareNode,
    Slice,
    Terms,
)
from mpc_ops.planner.group_form import read_group_report
from mpc_ops.planner.query import AggregateSql, MeasureSql, Query, parse_select, read_subtotals
from mpc_ops.planner.refusal import Source
from mpc_ops.planner.terms import ReportTerms, check_terms

__all__ = ["compile_report"]

_CENTS = 2


def compile_report(sql: str, terms: ReportTerms, federation: Federation) -> Plan:
    """Compile a report.

    Args:
        sql: one SELECT in the subset of docs/sql.md, DuckDB dialect.
        terms: contents of report.toml.
        federation: datasets, regions, clusters and recipients that the plan may name.

    Returns:
        A plan that `check_plan` accepts; equal input gives equal bytes.

    Raises:
        PlanError: UNSUPPORTED_SQL or SQL_INVALID with line:column and reason; UNSUPPORTED_TERM; OVERFLOW_POSSIBLE with
            numbers; LITERAL_ON_PRIVATE; PLAN_INVALID for terms that name what the federation does not have.
    """
    check_terms(terms)
    source = Source(sql)
    select = parse_select(source)
    query = (
        read_group_report(source, select, federation)
        if select.args.get("with_")
        else _simple(source, select, federation)
    )
    _unknown_labels(terms, query)
    plan = _plan(query, terms, federation, source)
    check_plan(plan, federation)
    return plan


def _simple(source: Source, select: exp.Select, federation: Federation) -> Query:
    query, _ = read_subtotals(source, select, federation, per_entity=False)
    query.measures = [MeasureSql(one.name, one.name, "period", None, one.node) for one in query.aggregates]
    return query


def _unknown_labels(terms: ReportTerms, query: Query) -> None:
    unknown = set(terms.labels) - {one.name for one in query.measures}
    if unknown:
        raise PlanError(
            "LABEL_UNKNOWN", "terms label a column that the report does not have", got=", ".join(sorted(unknown))[:200]
        )


def _plan(query: Query, terms: ReportTerms, federation: Federation, source: Source) -> Plan:
    behind, delivered = payload_classes(terms.unit_k)
    contract = query.contract
    unit = contract.by_role("unit")[0].name
    middle: list[Node] = []
    if query.condition is not None:
        middle.append(FilterNode(id="filter", input="scan", condition=query.condition))
    aggregates = {one.name: _aggregate(query, one, source) for one in query.aggregates}
    region = terms.gate_at == "region"
    before: list[Node] = [
        ScanNode(id="scan", dataset=contract.name, contract=sha256_hex(encode(contract)), columns=[unit]),
        *middle,
        AggregateNode(
            id="aggregate",
            input=middle[0].id if middle else "scan",
            slices=[Slice(name=name, months=0 if name == "period" else -12) for name in query.slices],
            dimensions=query.dimensions,
            unit=unit,
            aggregates=list(aggregates.values()),
        ),
    ]
    if not region:
        before.append(GateNode(id="gate", input="aggregate", unit=unit, k=terms.unit_k, payload_class=behind))
    leaves = prod(len(contract.column(name).domain) for name in query.dimensions)
    nodes: list[Node] = [
        *before,
        MeasureNode(
            id="measure",
            input=before[-1].id,
            measures=[
                _measure(query, one, aggregates[one.source], terms, source, parts=leaves if region else 1)
                for one in query.measures
            ],
        ),
        ShareNode(id="share", input="measure", lanes=1),
        RegionSumNode(id="region_sum", input="share", regions=terms.regions),
        *(
            [
                RegionGateNode(
                    id="gate",
                    input="region_sum",
                    unit=unit,
                    k=terms.unit_k,
                    payload_class=behind,
                    min_owners=terms.gate_min_owners,
                    max_units=terms.max_units or contract.max_rows,
                )
            ]
            if region
            else []
        ),
        CrossNode(
            id="cross", input="gate" if region else "region_sum", cluster=terms.group_cluster, payload_class=behind
        ),
        GroupSumNode(id="group_sum", input="cross", cluster=terms.group_cluster),
        DeliverNode(id="deliver", input="group_sum", recipient=terms.recipient, payload_class=delivered),
    ]
    return _complete(query, terms, federation, nodes)


def _complete(query: Query, terms: ReportTerms, federation: Federation, nodes: list[Node]) -> Plan:
    def plan_of(steps: list[Node]) -> Plan:
        return Plan(
            report=terms.name,
            title=terms.title,
            version=terms.version,
            federation=federation.digest,
            rule_packs=dict(federation.terms.rule_packs),
            terms=_terms(terms),
            rollup=query.rollup,
            domains={name: query.contract.column(name).domain for name in query.dimensions},
            nodes=steps,
        )

    # Columns to read and the number of lanes follow from the other nodes.
    draft = plan_of(nodes)
    scan = cast("ScanNode", nodes[0])
    done: dict[str, Node] = {
        "scan": ScanNode(
            id="scan", dataset=scan.dataset, contract=scan.contract, columns=scan_columns(draft, query.contract)
        ),
        "share": ShareNode(id="share", input="measure", lanes=shared_lane_count(draft)),
    }
    return plan_of([done.get(node.id, node) for node in nodes])


def _terms(terms: ReportTerms) -> Terms:
    if terms.on_late == "estimate":
        raise PlanError("UNSUPPORTED_TERM", "the term on_late = estimate is not part of this version")
    return Terms(
        security=terms.security,
        max_owners=terms.max_owners,
        min_owners=terms.min_owners,
        sign_off=terms.sign_off,
        on_late=terms.on_late,
        ttl_days=terms.ttl_days,
        give_up_hours=terms.give_up_hours,
        currency=terms.currency,
        max_rate=terms.max_rate,
        references=dict(terms.references),
        basis=terms.basis,
    )


def _aggregate(query: Query, one: AggregateSql, source: Source) -> Aggregate:
    try:
        bound, scale = aggregate_bound(one.fn, one.expr, query.contract)
    except PlanError as error:
        raise source.located(error, one.node) from None
    return Aggregate(name=one.name, fn=one.fn, expr=one.expr, scale=scale, bound=str(bound))


def _measure(
    query: Query, one: MeasureSql, aggregate: Aggregate, terms: ReportTerms, source: Source, *, parts: int
) -> Measure:
    if one.translate is not None and (terms.currency is None or terms.max_rate is None):
        raise source.refuse(one.node, "gc() needs the terms currency and max_rate")
    scale = aggregate.scale if one.translate is None else _CENTS
    try:
        bound = measure_bound(
            (int(aggregate.bound), aggregate.scale),
            scale=scale,
            max_owners=terms.max_owners,
            max_rate=terms.max_rate if one.translate else None,
            parts=parts,
        )
    except PlanError as error:
        raise source.located(error, one.node) from None
    totals = "each_level" if aggregate.fn == "count_distinct" else "foots"
    return Measure(
        name=one.name,
        label=terms.labels.get(one.name, one.name),
        kind="amount" if aggregate.fn == "sum" else "count",
        source=one.source,
        slice=one.slice,
        translate=one.translate,
        scale=scale,
        totals=totals if query.rollup else "none",  # type: ignore[arg-type]
        bound=str(bound),
    )
