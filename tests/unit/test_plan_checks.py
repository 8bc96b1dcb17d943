import msgspec
import pytest

from mpc_ops.envelope.canonical import canonical_bytes
from mpc_ops.envelope.schema import encode, to_plain
from mpc_ops.errors import ConfigError, PlanError, PolicyViolation
from mpc_ops.federation.contract import Column as ContractColumn
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.plan.bounds import INT64_LIMIT, aggregate_bound, measure_bound, scaled, type_of
from mpc_ops.plan.checks import check_plan, read_plan
from mpc_ops.plan.expr import Binary, Case, Column, InList, IsNull, Literal_, Logic, Not
from mpc_ops.plan.model import FilterNode
from tests.support.federation import DEMO, make_federation, make_plan


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("demo"), DEMO).federation


def col(name):
    return Column(name=name)


def lit(value, kind="int64"):
    return Literal_(type=kind, value=value)


def binary(op, left, right):
    return Binary(op=op, left=left, right=right)


@pytest.mark.parametrize("dimensions", [("segment", "product_line"), ("segment",), ()])
def test_a_good_plan_passes(federation, dimensions):
    plan = make_plan(federation, dimensions=dimensions)
    assert read_plan(encode(plan), federation) == plan


def edited(plan, path, value):
    """Return the plan's plain form with one member replaced: path like `nodes.2.k`."""
    plain = to_plain(plan)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = plain
    for step in way:
        place = place[step]
    place[last] = value
    return canonical_bytes(plain)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("federation", "0" * 64, "other federation terms"),
        ("rule_packs", {}, "other rule packs"),
        ("nodes.0.contract", "0" * 64, "another contract"),
        ("nodes.0.dataset", "payments", "no dataset payments"),
        ("nodes.0.columns", ["booked_on", "customer_uid"], "other columns than it needs"),
        ("nodes.1.input", "gate", "does not read the node before it"),
        ("nodes.1.id", "scan", "two nodes have one id"),
        ("nodes.1.unit", "invoice_no", "protected unit"),
        ("nodes.1.dimensions", ["segment", "segment"], "public dimensions"),
        ("nodes.1.dimensions", ["segment", "customer_uid"], "public dimensions"),
        ("nodes.1.slices", [{"name": "prior_year", "months": -12}], "slices"),
        ("nodes.1.aggregates.0.bound", "5", "bound of aggregate revenue"),
        ("nodes.1.aggregates.0.scale", 3, "bound of aggregate revenue"),
        ("domains.segment", ["AUTOMOBILE"], "domains"),
        ("nodes.2.unit", "invoice_no", "another unit"),
        ("nodes.2.k", 1, "payload class of node gate"),
        ("nodes.6.payload_class", "control_metadata", "payload class of node cross"),
        ("nodes.8.payload_class", "evidence", "payload class of node deliver"),
        ("nodes.3.measures.0.bound", "7", "bound of measure revenue"),
        ("nodes.3.measures.0.source", "nothing", "unknown aggregate"),
        ("nodes.3.measures.0.kind", "count", "wrong kind"),
        ("nodes.3.measures.3.totals", "foots", "totals of measure customers"),
        ("nodes.3.measures.2.translate", "period", "cannot be translated"),
        ("nodes.3.measures.1.name", "revenue", "one name"),
        ("nodes.4.lanes", 3, "number of lanes"),
        ("nodes.5.regions", ["de", "fr"], "unknown regions"),
        ("nodes.6.cluster", "de", "group cluster"),
        ("nodes.8.recipient", "de-nord", "delivers to nobody"),
        ("terms.min_owners", 21, "min_owners is above"),
        ("terms.currency", None, "currency and max_rate"),
        ("terms.security", "passive", "secure with abort as it is"),
    ],
)
def test_a_changed_plan_is_refused_with_the_reason(federation, path, value, why):
    with pytest.raises(PlanError, match=f"PLAN_INVALID: .*{why}"):
        read_plan(edited(make_plan(federation), path, value), federation)


def test_an_unknown_node_is_refused_by_name(federation):
    with pytest.raises(PlanError, match=r"UNSUPPORTED_NODE.*'multiply'"):
        read_plan(edited(make_plan(federation), "nodes.7.op", "multiply"), federation)


def test_nodes_out_of_order_missing_or_twice_are_refused(federation):
    plan = make_plan(federation)
    for nodes in (plan.nodes[1:], plan.nodes + plan.nodes[-1:], [plan.nodes[1], plan.nodes[0], *plan.nodes[2:]]):
        with pytest.raises(PlanError, match="PLAN_INVALID: the nodes are not the path"):
            check_plan(msgspec.structs.replace(plan, nodes=nodes), federation)


def test_unknown_members_and_other_formats_are_refused(federation):
    with pytest.raises(ConfigError, match="SCHEMA_INVALID"):
        read_plan(edited(make_plan(federation), "surprise", 1), federation)
    with pytest.raises(ConfigError, match="SCHEMA_INVALID"):
        read_plan(edited(make_plan(federation), "terms.security", "none"), federation)
    with pytest.raises(ConfigError, match="JSON_INVALID"):
        read_plan(encode(make_plan(federation)) + b" ", federation)


def test_owners_of_several_parents_need_company(tmp_path):
    federation = make_federation(tmp_path, one_parent=False).federation
    with pytest.raises(PolicyViolation, match=r"MIN_OWNERS.*at least 3; got 1"):
        check_plan(make_plan(federation), federation)
    check_plan(make_plan(federation, min_owners=3), federation)


def with_filter(federation, condition):
    plan = make_plan(federation)
    aggregate = msgspec.structs.replace(plan.nodes[1], input="filter")
    node = FilterNode(id="filter", input="scan", condition=condition)
    return msgspec.structs.replace(plan, nodes=[plan.nodes[0], node, aggregate, *plan.nodes[2:]])


def test_a_filter_on_public_values_passes(federation):
    check_plan(with_filter(federation, binary("=", col("segment"), lit("BUILDING", "string"))), federation)
    check_plan(with_filter(federation, binary(">", col("revenue_lc"), lit("100.50", "decimal"))), federation)
    with pytest.raises(PlanError, match="the filter is not a condition"):
        check_plan(with_filter(federation, binary("+", col("revenue_lc"), lit("1"))), federation)


@pytest.mark.parametrize(
    "condition",
    [
        binary("=", col("customer_uid"), lit("Customer#000000001", "string")),
        binary("<", lit("100"), col("invoice_no")),
        binary("=", binary("-", col("invoice_no"), lit("17")), col("line_no")),
        InList(arg=col("customer_uid"), values=[lit("A", "string")]),
        Not(arg=binary("=", col("customer_uid"), lit("A", "string"))),
    ],
)
def test_constants_against_private_columns_are_refused(federation, condition):
    with pytest.raises(PlanError, match="LITERAL_ON_PRIVATE") as info:
        type_of(condition, federation.terms.datasets["sales_line"])
    assert "Customer#" not in str(info.value)


def contract(**bounds):
    columns = [
        ContractColumn(name="day", type="date", role="period"),
        ContractColumn(name="who", type="string", role="unit"),
        ContractColumn(name="number", type="int64", role="key", minimum="1", maximum="10"),
        ContractColumn(name="kind", type="string", role="dimension", domain=["A", "B"]),
        ContractColumn(name="note", type="string", role="attribute", nullable=True),
        ContractColumn(
            name="amount", type="decimal", scale=2, role="measure", minimum=bounds.get("low", "-5.25"), maximum=bounds.get("high", "10")
        ),
        ContractColumn(name="pieces", type="int64", role="measure", minimum="0", maximum="50"),
        ContractColumn(name="maybe", type="int64", role="attribute", minimum="0", maximum="9", nullable=True, domain=["0"]),
    ]  # fmt: skip
    return DatasetContract(
        name="d", version=1, description="", data_class="personal", unit_label="people", zone="UTC", primary_key=["number"],
        max_rows=bounds.get("rows", 1000), columns=columns,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("expr", "scale", "low", "high"),
    [
        (col("amount"), 2, -525, 1000),
        (binary("+", col("amount"), col("pieces")), 2, -525, 6000),
        (binary("-", col("pieces"), col("amount")), 2, -1000, 5525),
        (binary("*", col("amount"), col("pieces")), 2, -26250, 50000),
        (binary("*", col("amount"), lit("-0.5", "decimal")), 3, -5000, 2625),
        (binary("*", col("amount"), col("amount")), 4, -525000, 1000000),
        (Case(condition=binary(">", col("pieces"), lit("3")), then=col("amount"), otherwise=lit("0")), 2, -525, 1000),
    ],
)
def test_scales_and_bounds_are_exact(expr, scale, low, high):
    typed = type_of(expr, contract())
    assert (typed.scale, typed.low, typed.high, typed.nullable) == (scale, low, high, False)


@pytest.mark.parametrize(
    ("expr", "why"),
    [
        (binary("+", col("amount"), col("kind")), "takes numbers"),
        (binary("=", col("amount"), col("kind")), "two numbers, two strings or two dates"),
        (Logic(op="and", args=[col("kind"), col("kind")]), "take conditions"),
        (Not(arg=col("pieces")), "take conditions"),
        (Case(condition=col("kind"), then=lit("1"), otherwise=lit("0")), "takes a condition"),
        (Case(condition=IsNull(arg=col("note")), then=lit("1"), otherwise=lit("x", "string")), "one type"),
        (binary("=", col("day"), lit("2026-01-01", "string")), "two dates"),
    ],
)
def test_types_that_do_not_fit_are_refused(expr, why):
    with pytest.raises(PlanError, match=f"TYPE_MISMATCH.*{why}"):
        type_of(expr, contract())


@pytest.mark.parametrize(
    "bad", [lit("1.5"), lit("1e5"), lit("2026-13-01", "date"), lit("20260101", "date"), lit("yes", "boolean")]
)
def test_malformed_constants_are_refused(bad):
    with pytest.raises(PlanError, match="LITERAL_INVALID"):
        type_of(bad, contract())


@pytest.mark.parametrize(
    ("expr", "code"),
    [
        (col("maybe"), "TYPE_MISMATCH.*may be NULL"),
        (Case(condition=IsNull(arg=col("maybe")), then=lit("0"), otherwise=col("maybe")), "TYPE_MISMATCH.*may be NULL"),
        (col("number"), "SUM_OF_PRIVATE"),
        (IsNull(arg=col("note")), "TYPE_MISMATCH.*boolean"),
        (None, "a sum needs an expression"),
    ],
)
def test_sums_that_are_not_allowed(expr, code):
    with pytest.raises(PlanError, match=code):
        aggregate_bound("sum", expr, contract())


def test_overflow_edges_are_exact():
    edge = INT64_LIMIT - 1
    assert aggregate_bound("sum", col("amount"), contract(high=str(edge // 700), rows=7)) == (edge // 700 * 700, 2)
    with pytest.raises(
        PlanError,
        match=rf"OVERFLOW_POSSIBLE.*below {INT64_LIMIT}; got up to 922337203685477600000 \(1000 rows\)",
    ):
        aggregate_bound("sum", col("amount"), contract(low=str(-INT64_LIMIT // 1000), high="0"))
    assert measure_bound((edge // 7, 0), scale=0, max_owners=7, max_rate=None) == edge // 7
    with pytest.raises(PlanError, match=r"OVERFLOW_POSSIBLE.*8 data owners"):
        measure_bound((edge // 7, 0), scale=0, max_owners=8, max_rate=None)
    with pytest.raises(PlanError, match="OVERFLOW_POSSIBLE: a value of one row"):
        type_of(binary("*", col("amount"), lit("99999999999999999999")), contract())


def test_translation_rounds_the_bound_up():
    assert measure_bound((10, 2), scale=2, max_owners=1, max_rate="0.13") == 2
    assert measure_bound((1000, 4), scale=2, max_owners=1, max_rate="1.5") == 15
    assert measure_bound((1001, 4), scale=2, max_owners=1, max_rate="1") == 11
    with pytest.raises(PlanError, match=r"TYPE_MISMATCH.*keeps its scale"):
        measure_bound((1, 2), scale=0, max_owners=1, max_rate=None)


def test_decimal_text_is_read_exactly():
    assert scaled("-12.50", 2) == -1250
    assert scaled("12.500", 2) == 1250
    for bad in ("12.501", "1e3", "", "0x1", "1_000", "١"):
        with pytest.raises(PlanError, match="BOUND_INVALID"):
            scaled(bad, 2)
