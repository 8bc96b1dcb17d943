"""Plans whose Gate stands in the region: what is checked, what is shared, which class it has, what the statement says."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from mpc_ops.envelope.canonical import canonical_bytes
from mpc_ops.envelope.schema import encode, to_plain
from mpc_ops.errors import PlanError, PolicyViolation
from mpc_ops.federation.assemble import read_toml
from mpc_ops.federation.model import PayloadClass
from mpc_ops.federation.rulepack import RulePack
from mpc_ops.plan.bounds import measure_bound
from mpc_ops.plan.checks import check_plan, read_plan
from mpc_ops.plan.crossings import check_crossings
from mpc_ops.plan.layout import lane_count, lanes, shared_lane_count, shared_lanes, unit_limits
from mpc_ops.plan.model import RegionGateNode
from mpc_ops.plan.rules import decide_flow
from mpc_ops.plan.statement import member_notes, planned_statement
from mpc_ops.plan.statement_text import statement_text
from mpc_ops.plan.text import plan_text
from mpc_ops.planner import compile_report, read_terms
from mpc_ops.sharing import UnitLimits
from tests.support.federation import DEMO, DEMO_FOLDER, make_federation, make_plan

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RECORD = PayloadClass.RECORD_SHARE
replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("demo"), DEMO).federation


@pytest.fixture
def plan(federation):
    return make_plan(federation, gate_at="region")


def edited(plan, path, value):
    plain = to_plain(plan)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = plain
    for step in way:
        place = place[step]
    place[last] = value
    return canonical_bytes(plain)


@pytest.mark.parametrize("dimensions", [("segment", "product_line"), ("segment",), ()])
def test_a_plan_with_its_gate_in_the_region_passes(federation, dimensions):
    plan = make_plan(federation, dimensions=dimensions, gate_at="region")
    assert read_plan(encode(plan), federation) == plan
    assert [type(node).__name__ for node in plan.nodes][3:7] == [
        "ShareNode", "RegionSumNode", "RegionGateNode", "CrossNode",
    ]  # fmt: skip


def test_a_plan_with_its_gate_at_the_owner_keeps_its_bytes(federation):
    plain = to_plain(make_plan(federation))
    assert sorted(plain["nodes"][2]) == ["id", "input", "k", "op", "payload_class", "unit"]
    assert sorted(plain["terms"]) == sorted(
        ["basis", "currency", "give_up_hours", "max_owners", "max_rate", "min_owners", "on_late", "references", "security",
         "sign_off", "ttl_days"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("nodes.5.unit", "invoice_no", "PLAN_INVALID: .*another unit"),
        ("nodes.5.k", 1, "PLAN_INVALID: .*payload class of node gate"),
        ("nodes.5.payload_class", "record_share", "PLAN_INVALID: .*payload class of node gate"),
        ("nodes.5.min_owners", 21, "PLAN_INVALID: .*more owners in a cell"),
        ("nodes.5.max_units", 10**8, "UNITS_TOO_MANY: .*too many"),
        ("nodes.5.input", "share", "PLAN_INVALID: .*does not read the node before it"),
        ("nodes.6.payload_class", "record_share", "PLAN_INVALID: .*payload class of node cross"),
        ("nodes.3.lanes", 322, "PLAN_INVALID: .*number of lanes"),
        ("nodes.2.measures.0.bound", str(2 * 10**16), "PLAN_INVALID: .*bound of measure revenue"),
    ],
)
def test_a_changed_plan_is_refused_with_the_reason(federation, plan, path, value, why):
    with pytest.raises(PlanError, match=why):
        read_plan(edited(plan, path, value), federation)


def test_a_gate_at_both_places_in_another_order_or_nowhere_is_refused(federation, plan):
    nodes = plan.nodes
    both = [*nodes[:2], make_plan(federation).nodes[2], *nodes[2:]]
    for changed in (both, [*nodes[:5], nodes[6], nodes[5], *nodes[7:]], [*nodes[:5], *nodes[6:]]):
        with pytest.raises(PlanError, match="PLAN_INVALID: the nodes are not the path"):
            check_plan(replace(plan, nodes=changed), federation)


def test_owners_share_leaf_figures_and_one_row_of_bits_per_unit(plan):
    assert shared_lane_count(plan) == len(shared_lanes(plan)) == 8 * 25
    assert {lane.cell.kind for lane in shared_lanes(plan)} == {"leaf"}
    assert not {lane.measure.name for lane in shared_lanes(plan)} & {"customers", "customers_py"}
    assert [lane.cell.labels[1] for lane in shared_lanes(plan)[:5]] == ["BRASS", "COPPER", "NICKEL", "STEEL", "TIN"]
    assert unit_limits(plan) == UnitLimits(width=25, tables=2, max_rows=1024)


def test_what_leaves_the_region_is_as_with_the_gate_at_the_owner(federation, plan):
    mine, other = lanes(plan), lanes(make_plan(federation))
    assert [(a.measure.name, a.cell) for a in mine] == [(b.measure.name, b.cell) for b in other]
    assert lane_count(plan) == 322
    assert shared_lanes(make_plan(federation)) == other
    assert unit_limits(make_plan(federation)) is None


def test_translating_before_the_gate_widens_the_bound_by_half_a_cent_a_cell():
    wide = measure_bound((100, 2), scale=2, max_owners=1, max_rate="1", parts=25)
    assert (wide, measure_bound((100, 2), scale=2, max_owners=1, max_rate="1")) == (112, 100)
    assert measure_bound((100, 0), scale=0, max_owners=1, max_rate=None, parts=25) == 100


def test_owners_and_region_operators_exchange_record_shares_inside_the_country_only(federation, plan):
    found = check_crossings(plan, federation, now=NOW)
    records = [flow for flow in found if flow.payload_class == RECORD]
    assert records
    assert not any(flow.border for flow in records)
    senders = {flow.sender for flow in records}
    assert {"owners of cn in CN", "cn-1", "cn-2", "cn-3"} <= senders
    assert not senders & {"nl-1", "ch-1", "sg-1"}
    from_owner = next(flow for flow in records if flow.sender == "owners of cn in CN")
    assert from_owner.lanes == 8 * 25 + 2 * 25 * 16
    assert from_owner.decisions[0].inputs["min_records"] == 1
    crossing = [flow for flow in found if flow.payload_class == PayloadClass.AGGREGATE_SHARE]
    assert {flow.decisions[0].inputs["min_records"] for flow in crossing} == {10}
    assert all(flow.border for flow in crossing)


def test_a_rule_pack_that_denies_record_shares_inside_refuses_the_plan(tmp_path):
    pack = read_toml(DEMO_FOLDER / "rules" / "cn-demo.toml", RulePack)
    rules = [replace(rule, effect="deny") if rule.id == "CN-3" else rule for rule in pack.rules]
    others = [
        read_toml(path, RulePack) for path in sorted((DEMO_FOLDER / "rules").glob("*.toml")) if "cn" not in path.name
    ]
    federation = make_federation(tmp_path, DEMO, packs=[*others, replace(pack, rules=rules)]).federation
    with pytest.raises(PolicyViolation, match=r"CROSSING_DENIED: record_share may not go from owners of cn in CN"):
        check_crossings(make_plan(federation, gate_at="region"), federation, now=NOW)
    assert check_crossings(make_plan(federation), federation, now=NOW)


def test_without_a_threshold_the_crossing_is_record_share_and_refused(federation):
    plan = make_plan(federation, k=1, gate_at="region")
    check_plan(plan, federation)
    with pytest.raises(PolicyViolation, match="CROSSING_DENIED: record_share may not go"):
        check_crossings(plan, federation, now=NOW)


def test_passive_security_is_refused_where_a_rule_asks_for_active(federation):
    plan = make_plan(federation, gate_at="region", security="passive")
    check_plan(plan, federation)
    with pytest.raises(PolicyViolation, match=r"CROSSING_DENIED.*asks for security against a dishonest operator"):
        check_crossings(plan, federation, now=NOW)
    (decision,) = decide_flow(
        plan, federation, sender="cn-1", receiver="ch-1", payload_class=PayloadClass.AGGREGATE_SHARE, now=NOW
    )
    assert decision.inputs["security"] == "passive"
    assert "PASSIVE SECURITY" in plan_text(plan)


def test_the_plan_text_says_where_the_gate_stands_and_what_is_shared(plan):
    text = plan_text(plan)
    assert (
        "gate in each country cluster, on secret shares (active security): at least 10 of customer_uid per cell over all its "
        "data owners together, smaller cells to not allocated; then aggregate_share"
    ) in text
    assert "share 200 values of cells, and one row of 25 bits for each customer_uid, at most 1024 rows" in text
    assert "as record_share" in text
    assert "PASSIVE" not in text


def test_the_statement_says_what_region_operators_hold_and_what_stays_unknown(federation, plan):
    statement = planned_statement(plan, federation, now=NOW)
    text = statement_text(statement, member_notes(plan, federation))
    for words in (
        "over all data owners of a country together moves to 'not allocated' in its country cluster, on secret shares (k = 10)",
        "small data owners pass together",
        "secret shares of one row of 25 bits for each of the customers (at most 1,024 rows per data owner and period)",
        "Security in the country cluster: active",
        "the number of customers of each data owner in each period, rounded up to a size class",
        "which cells are small, how small, and which were moved",
        "who a row is about: rows carry no key",
        "Two operators of one country cluster together learn every row of bits",
        "may hold fewer of a single data owner",
        "CN -> CN: record_share to compute_node: messages of the Gate on secret shares of records",
        "and its Gate counts its units alone",
    ):
        assert words in text, words
    assert max(map(len, text.splitlines())) < 400
    assert statement.digest != planned_statement(make_plan(federation), federation, now=NOW).digest


SQL = "SELECT segment, SUM(revenue_lc) AS revenue, COUNT(DISTINCT customer_uid) AS customers FROM sales_line WHERE period = :period GROUP BY segment"


def terms(*lines):
    text = (DEMO_FOLDER / "reports" / "group_performance.toml").read_text().partition("[labels]")[0]
    kept = [line for line in text.splitlines() if not line.startswith(("gate_at", "max_units", "gate_min_owners"))]
    return read_terms("\n".join([*lines, *kept]))


def test_terms_say_where_the_gate_stands(federation):
    made = compile_report(SQL, terms('gate_at = "region"', "max_units = 500", "gate_min_owners = 2"), federation)
    assert isinstance(made.gate, RegionGateNode)
    assert (made.gate.k, made.gate.min_owners, made.gate.max_units, made.terms.security) == (10, 2, 500, "active")
    assert read_plan(encode(made), federation) == made
    assert "of at least 2 data owners" in plan_text(made)
    assert compile_report(SQL, terms(), federation).gate.where == "owner"


def test_without_a_number_of_units_the_contracts_rows_bound_them(federation):
    made = compile_report(SQL, terms('gate_at = "region"'), federation)
    assert made.gate.max_units == 10**7


@pytest.mark.parametrize("line", ['security = "passive"', "max_units = 5", "gate_min_owners = 2"])
def test_terms_of_the_region_are_refused_with_the_gate_at_the_owner(line):
    with pytest.raises(PlanError, match="UNSUPPORTED_TERM"):
        terms(line)


def test_passive_is_an_explicit_term(federation):
    made = compile_report(SQL, terms('gate_at = "region"', 'security = "passive"'), federation)
    assert made.terms.security == "passive"
