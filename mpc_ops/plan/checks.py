"""The plan is checked by everybody who runs it: operators call `check_plan`, nobody re-derives it from SQL.

Everything that can be re-derived is: order and wiring of nodes, types, scales and bounds from the contract, payload
classes from the Gate, lanes from the layout. What differs is refused.
"""

from __future__ import annotations

from typing import Any, cast

from mpc_ops.envelope.canonical import parse_canonical, sha256_hex
from mpc_ops.envelope.schema import encode
from mpc_ops.errors import PlanError, PolicyViolation
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import PayloadClass
from mpc_ops.plan.bounds import aggregate_bound, columns_of, measure_bound, type_of
from mpc_ops.plan.layout import leaf_count, shared_lane_count, unit_limits
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
    Plan,
    RegionGateNode,
    RegionSumNode,
    ScanNode,
    ShareNode,
    load_plan,
)
from mpc_ops.sharing import MAX_PART_LANES

__all__ = ["check_plan", "measure_parts", "payload_classes", "read_plan", "scan_columns"]

_PATHS = {
    "owner": (
        ScanNode, FilterNode, AggregateNode, GateNode, MeasureNode, ShareNode, RegionSumNode, CrossNode, GroupSumNode,
        DeliverNode,
    ),
    "region": (
        ScanNode, FilterNode, AggregateNode, MeasureNode, ShareNode, RegionSumNode, RegionGateNode, CrossNode, GroupSumNode,
        DeliverNode,
    ),
}  # fmt: skip
_OPS = {str(kind.__struct_config__.tag) for path in _PATHS.values() for kind in path}
_STRANGERS_MIN_OWNERS = 3


def read_plan(data: bytes, federation: Federation) -> Plan:
    """Decode plan.json and check it against a federation.

    Raises:
        PlanError: UNSUPPORTED_NODE for a node of another version, and what `check_plan` raises.
        ConfigError: JSON_INVALID, SCHEMA_INVALID.
    """
    plain = parse_canonical(data)
    for node in plain.get("nodes", []) if isinstance(plain, dict) and isinstance(plain.get("nodes"), list) else []:
        op: Any = node.get("op") if isinstance(node, dict) else None
        if isinstance(op, str) and op not in _OPS:
            raise PlanError(
                "UNSUPPORTED_NODE",
                "this version does not run a node of the plan",
                expected=", ".join(sorted(_OPS)),
                got=repr(op[:40]),
            )
    plan = load_plan(data)
    check_plan(plan, federation)
    return plan


def payload_classes(k: int) -> tuple[PayloadClass, PayloadClass]:
    """Return (class behind the Gate and over the border, class of the delivery) for a Gate of `k` units."""
    if k >= 2:
        return PayloadClass.AGGREGATE_SHARE, PayloadClass.RELEASED_AGGREGATE
    return PayloadClass.RECORD_SHARE, PayloadClass.RECORD_SHARE


def measure_parts(plan: Plan) -> int:
    """Return how many translated values of one owner a cell of the report can be the sum of."""
    return 1 if plan.gate.where == "owner" else leaf_count(plan)


def check_plan(plan: Plan, federation: Federation) -> None:
    """Check everything about a plan that can be checked without SQL.

    Raises:
        PlanError: PLAN_INVALID with the reason, OVERFLOW_POSSIBLE with numbers, LITERAL_ON_PRIVATE, TYPE_MISMATCH.
        PolicyViolation: MIN_OWNERS.
    """
    if plan.federation != federation.digest:
        raise _refuse("the plan belongs to other federation terms", federation.digest[:16], plan.federation[:16])
    if plan.rule_packs != federation.terms.rule_packs:
        raise _refuse("the plan names other rule packs than the federation terms")
    _check_path(plan)
    contract = _check_scan(plan, federation)
    _check_filter(plan, contract)
    _check_aggregate(plan, contract)
    _check_columns(plan, contract)
    _check_measures(plan, contract)
    _check_classes(plan)
    _check_places(plan, federation)
    _check_terms(plan, federation)


def _refuse(why: str, expected: object = None, got: object = None) -> PlanError:
    return PlanError("PLAN_INVALID", why, expected=expected, got=got)


def _check_path(plan: Plan) -> None:
    kinds = [type(node) for node in plan.nodes]
    whole = _PATHS["region" if RegionGateNode in kinds else "owner"]
    path = [kind for kind in whole if kind is not FilterNode or FilterNode in kinds]
    if kinds != path:
        raise _refuse(
            "the nodes are not the path from owners to recipient",
            " > ".join(str(kind.__struct_config__.tag) for kind in path),
            " > ".join(str(kind.__struct_config__.tag) for kind in kinds)[:300],
        )
    ids = [node.id for node in plan.nodes]
    if len(set(ids)) != len(ids):
        raise _refuse("two nodes have one id")
    for before, node in zip(plan.nodes, plan.nodes[1:], strict=False):
        if isinstance(node, ScanNode) or node.input != before.id:
            raise _refuse(f"node {node.id} does not read the node before it", before.id)


def scan_columns(plan: Plan, contract: DatasetContract) -> list[str]:
    """Return the columns a plan needs, in the contract's order."""
    aggregate = cast("AggregateNode", plan.node(AggregateNode))
    needed = {contract.by_role("period")[0].name, aggregate.unit, *aggregate.dimensions}
    for one in aggregate.aggregates:
        needed |= columns_of(one.expr) if one.expr is not None else set()
    for node in plan.nodes:
        needed |= columns_of(node.condition) if isinstance(node, FilterNode) else set()
    return [column.name for column in contract.columns if column.name in needed]


def _check_scan(plan: Plan, federation: Federation) -> DatasetContract:
    scan = cast("ScanNode", plan.node(ScanNode))
    contract = federation.terms.datasets.get(scan.dataset)
    if contract is None:
        raise _refuse(f"the federation has no dataset {scan.dataset}")
    if scan.contract != sha256_hex(encode(contract)):
        raise _refuse(f"the plan was compiled for another contract of {scan.dataset}")
    return contract


def _check_columns(plan: Plan, contract: DatasetContract) -> None:
    scan = cast("ScanNode", plan.node(ScanNode))
    # Purpose limitation: no column is read that the report does not need.
    if sorted(scan.columns) != sorted(scan_columns(plan, contract)):
        raise _refuse(
            "the plan reads other columns than it needs",
            ", ".join(scan_columns(plan, contract)),
            ", ".join(scan.columns)[:300],
        )


def _check_filter(plan: Plan, contract: DatasetContract) -> None:
    for node in plan.nodes:
        if isinstance(node, FilterNode) and type_of(node.condition, contract).kind != "boolean":
            raise _refuse("the filter is not a condition")


def _check_aggregate(plan: Plan, contract: DatasetContract) -> None:
    node = cast("AggregateNode", plan.node(AggregateNode))
    if [one.name for one in contract.by_role("unit")] != [node.unit]:
        raise _refuse("the Gate must count the contract's protected unit", contract.by_role("unit")[0].name, node.unit)
    public = {column.name: column.domain for column in contract.by_role("dimension")}
    if len(set(node.dimensions)) != len(node.dimensions) or not set(node.dimensions) <= set(public):
        raise _refuse("the grouping is not by public dimensions", ", ".join(public), ", ".join(node.dimensions))
    if plan.domains != {name: public[name] for name in node.dimensions}:
        raise _refuse("the plan's domains are not the contract's")
    if plan.rollup and not node.dimensions:
        raise _refuse("ROLLUP needs a dimension")
    slices = [(one.name, one.months) for one in node.slices]
    if slices not in ([("period", 0)], [("period", 0), ("prior_year", -12)]):
        raise _refuse("the slices are not the period, with or without the prior year")
    names = [one.name for one in node.aggregates]
    if len(set(names)) != len(names):
        raise _refuse("two aggregates have one name")
    for one in node.aggregates:
        bound, scale = aggregate_bound(one.fn, one.expr, contract)
        if (one.bound, one.scale) != (str(bound), scale):
            raise _refuse(
                f"bound of aggregate {one.name} is not the proven one",
                f"{bound} at scale {scale}",
                f"{one.bound} at scale {one.scale}",
            )


def _check_measures(plan: Plan, contract: DatasetContract) -> None:
    node, aggregate = cast("MeasureNode", plan.node(MeasureNode)), cast("AggregateNode", plan.node(AggregateNode))
    sources = {one.name: one for one in aggregate.aggregates}
    slices = {one.name for one in aggregate.slices}
    names = [one.name for one in node.measures]
    if len({*names, *aggregate.dimensions}) != len(names) + len(aggregate.dimensions):
        raise _refuse("two columns of the report have one name")
    unused = set(sources) - {one.source for one in node.measures}
    if unused or slices != {one.slice for one in node.measures}:
        raise _refuse("an aggregate or slice is computed and not used", got=", ".join(sorted(unused)))
    for measure in node.measures:
        source = sources.get(measure.source)
        if source is None or measure.slice not in slices:
            raise _refuse(f"measure {measure.name} reads an unknown aggregate or slice")
        _check_measure(plan, measure, source)
        bound = measure_bound(
            aggregate_bound(source.fn, source.expr, contract),
            scale=measure.scale,
            max_owners=plan.terms.max_owners,
            max_rate=plan.terms.max_rate if measure.translate else None,
            parts=measure_parts(plan),
        )
        if measure.bound != str(bound):
            raise _refuse(f"bound of measure {measure.name} is not the proven one", bound, measure.bound)
    share = cast("ShareNode", plan.node(ShareNode))
    if share.lanes != shared_lane_count(plan):
        raise _refuse("the number of lanes is not that of the layout", shared_lane_count(plan), share.lanes)
    limits = unit_limits(plan)
    if limits is not None and share.lanes + limits.words > MAX_PART_LANES:
        raise PlanError(
            "UNITS_TOO_MANY",
            "the rows of bits of one data owner are too many for the Gate in the region",
            expected=f"at most {MAX_PART_LANES} words",
            got=f"{share.lanes + limits.words} words for {limits.max_rows} units in {limits.width} cells",
            hint="Lower max_units, or group by fewer dimensions",
        )


def _check_measure(plan: Plan, measure: Measure, source: Aggregate) -> None:
    if measure.kind != ("amount" if source.fn == "sum" else "count"):
        raise _refuse(f"measure {measure.name} has the wrong kind", got=measure.kind)
    totals = ("each_level" if source.fn == "count_distinct" else "foots") if plan.rollup else "none"
    if measure.totals != totals:
        # A sum over cells would count a unit once per cell.
        raise _refuse(f"totals of measure {measure.name}", totals, measure.totals)
    if measure.translate is not None:
        if source.fn != "sum":
            raise _refuse(f"measure {measure.name} is a count and cannot be translated")
        if plan.terms.currency is None or plan.terms.max_rate is None:
            raise _refuse(f"measure {measure.name} is translated, so the terms need currency and max_rate")


def _check_classes(plan: Plan) -> None:
    gate = cast("GateNode", plan.node(GateNode))
    unit = cast("AggregateNode", plan.node(AggregateNode)).unit
    if gate.unit != unit:
        raise _refuse("the Gate counts another unit than the aggregate keeps", unit, gate.unit)
    behind, delivered = payload_classes(gate.k)
    cross, deliver = cast("CrossNode", plan.node(CrossNode)), cast("DeliverNode", plan.node(DeliverNode))
    for node, klass in ((gate, behind), (cross, behind), (deliver, delivered)):
        if node.payload_class != klass:
            raise _refuse(f"payload class of node {node.id} for a Gate of {gate.k}", klass, node.payload_class)


def _check_places(plan: Plan, federation: Federation) -> None:
    terms = federation.terms
    regions = cast("RegionSumNode", plan.node(RegionSumNode)).regions
    if len(set(regions)) != len(regions) or not set(regions) <= set(terms.regions):
        raise _refuse(
            "the plan names unknown regions, or one twice", ", ".join(terms.regions), ", ".join(regions)[:300]
        )
    cross, group = cast("CrossNode", plan.node(CrossNode)), cast("GroupSumNode", plan.node(GroupSumNode))
    cluster = terms.clusters.get(cross.cluster)
    if cluster is None or cluster.kind != "group" or group.cluster != cross.cluster:
        raise _refuse("the plan does not cross into one group cluster of the federation", got=cross.cluster)
    recipient = cast("DeliverNode", plan.node(DeliverNode)).recipient
    if recipient not in terms.recipients:
        raise _refuse("the plan delivers to nobody of this federation", ", ".join(terms.recipients), recipient)


def _check_terms(plan: Plan, federation: Federation) -> None:
    terms = plan.terms
    if terms.min_owners > terms.max_owners:
        raise _refuse("min_owners is above max_owners", terms.max_owners, terms.min_owners)
    if not federation.terms.one_parent and terms.min_owners < _STRANGERS_MIN_OWNERS:
        raise PolicyViolation(
            "MIN_OWNERS",
            "data owners of different parents need company: with fewer, one owner and the result recipient learn another's total",
            expected=f"min_owners of at least {_STRANGERS_MIN_OWNERS}",
            got=terms.min_owners,
        )
    if isinstance(plan.gate, RegionGateNode) and plan.gate.min_owners > terms.max_owners:
        raise _refuse(
            "the Gate asks for more owners in a cell than a run may have", terms.max_owners, plan.gate.min_owners
        )
    if terms.security == "passive" and plan.gate.where == "owner":
        raise _refuse("a plan of sums is secure with abort as it is, so it is not passive", "active", terms.security)
    if (terms.currency is None) != (terms.max_rate is None):
        raise _refuse("currency and max_rate stand together or not at all")
