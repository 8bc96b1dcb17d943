"""Lanes: their order and number are public, and every party derives the same ones from the plan alone."""

from __future__ import annotations

from itertools import product
from math import prod

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ops.envelope.canonical import canonical_bytes
from mpc_ops.envelope.schema import encode, to_plain
from mpc_ops.errors import ConfigError
from mpc_ops.plan.layout import Cell, Lane, cells, lane_count, lanes, measures, total_cells
from mpc_ops.plan.model import AggregateNode, GateNode, Measure, MeasureNode, Plan, load_plan
from tests.support.federation import make_federation, make_plan

NAMES = ("a", "b", "c")
replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def demo_plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(make_federation(tmp_path_factory.mktemp("federation")).federation)


def measure(number: int, totals: str) -> Measure:
    return Measure(
        name=f"m{number}", label="", kind="count", source="lines", slice="period", scale=0, totals=totals, bound="1"  # type: ignore[arg-type]
    )  # fmt: skip


def shaped(plan: Plan, sizes: list[int], kinds: list[str], *, rollup: bool) -> Plan:
    """Return the plan with dimensions of these sizes and one measure per kind of totals."""
    names = list(NAMES[: len(sizes)])
    nodes = [
        replace(node, dimensions=names)
        if isinstance(node, AggregateNode)
        else replace(node, measures=[measure(i, kind) for i, kind in enumerate(kinds)])
        if isinstance(node, MeasureNode)
        else node
        for node in plan.nodes
    ]
    domains = {name: [f"{name}{i}" for i in range(size)] for name, size in zip(names, sizes, strict=True)}
    return replace(plan, domains=domains, nodes=nodes, rollup=rollup)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), max_size=3),
    kinds=st.lists(st.sampled_from(["foots", "each_level", "none"]), min_size=1, max_size=4),
    rollup=st.booleans(),
)
def test_the_count_is_the_formula_and_no_lane_stands_twice(
    demo_plan: Plan, sizes: list[int], kinds: list[str], rollup: bool
) -> None:
    plan = shaped(demo_plan, sizes, kinds, rollup=rollup)
    shorter = sum(prod(sizes[:length]) for length in range(len(sizes)))
    base = prod(sizes) + shorter
    expected = sum(base + (shorter if kind == "each_level" and rollup else 0) for kind in kinds)
    found = lanes(plan)
    assert lane_count(plan) == len(found) == expected
    assert len({(lane.measure.name, lane.cell) for lane in found}) == len(found)
    # Measure by measure, every one over the same cells in the same order.
    assert [lane.measure.name for lane in found] == sorted(lane.measure.name for lane in found)
    for one in measures(plan):
        mine = [lane.cell for lane in found if lane.measure == one]
        assert mine == cells(plan) + (total_cells(plan) if one.totals == "each_level" else [])


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_every_prefix_has_one_not_allocated_cell_deepest_first(demo_plan: Plan, sizes: list[int]) -> None:
    plan = shaped(demo_plan, sizes, ["foots"], rollup=True)
    found = cells(plan)
    leaves = [cell for cell in found if cell.kind == "leaf"]
    assert found[: len(leaves)] == leaves
    assert [cell.labels for cell in leaves] == list(product(*(plan.domains[name] for name in NAMES[: len(sizes)])))
    rest = found[len(leaves) :]
    assert {cell.kind for cell in rest} == {"not_allocated"}
    assert [len(cell.labels) for cell in rest] == sorted((len(cell.labels) for cell in rest), reverse=True)
    assert {cell.labels for cell in rest} == {cell.labels[:n] for cell in leaves for n in range(len(sizes))}
    assert rest[-1] == Cell((), "not_allocated")
    assert [cell.labels for cell in total_cells(plan)] == [cell.labels for cell in rest]


def test_a_report_without_dimensions_is_one_cell(demo_plan: Plan) -> None:
    for rollup in (True, False):
        plan = shaped(demo_plan, [], ["foots", "each_level"], rollup=rollup)
        assert cells(plan) == [Cell((), "leaf")]
        assert total_cells(plan) == []
        assert lane_count(plan) == 2


def test_without_rollup_there_are_no_total_lanes(demo_plan: Plan) -> None:
    plan = shaped(demo_plan, [2, 3], ["each_level"], rollup=False)
    assert total_cells(plan) == []
    assert lane_count(plan) == 2 * 3 + 2 + 1


def test_the_order_of_two_dimensions_spelled_out(demo_plan: Plan) -> None:
    plan = shaped(demo_plan, [2, 2], ["foots", "each_level"], rollup=True)
    leaf, moved, total = "leaf", "not_allocated", "total"
    base = [
        Cell(("a0", "b0"), leaf), Cell(("a0", "b1"), leaf), Cell(("a1", "b0"), leaf), Cell(("a1", "b1"), leaf),
        Cell(("a0",), moved), Cell(("a1",), moved), Cell((), moved),
    ]  # fmt: skip
    more = [Cell(("a0",), total), Cell(("a1",), total), Cell((), total)]
    first, second = measures(plan)
    assert lanes(plan) == [Lane(first, cell) for cell in base] + [Lane(second, cell) for cell in base + more]


def test_the_demo_report_has_the_lanes_of_its_share_node(demo_plan: Plan) -> None:
    (share,) = [node for node in demo_plan.nodes if type(node).__name__ == "ShareNode"]
    assert share.lanes == lane_count(demo_plan) == len(lanes(demo_plan)) == 8 * 31 + 2 * 37


# --- plan.json ---


def test_a_plan_survives_its_bytes_and_its_digest_is_theirs(demo_plan: Plan) -> None:
    assert load_plan(encode(demo_plan)) == demo_plan
    assert load_plan(encode(demo_plan)).digest == demo_plan.digest
    assert replace(demo_plan, version=2).digest != demo_plan.digest


def test_a_node_is_found_by_its_kind(demo_plan: Plan) -> None:
    assert isinstance(demo_plan.node(GateNode), GateNode)
    with pytest.raises(ValueError, match="not enough values"):
        replace(demo_plan, nodes=demo_plan.nodes[:1]).node(GateNode)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"format": "comity/plan/v2"}, "$.format"),
        ({"federation": "demo"}, "$.federation"),
        ({"report": "Group Report"}, "$.report"),
        ({"version": 1.0}, ""),
        ({"nodes": []}, "$.nodes"),
        ({"nodes": [{"op": "join", "id": "j"}]}, "$.nodes"),
        ({"domains": {"segment": []}}, "$.domains"),
        ({"owners": ["de-nord"]}, "owners"),
    ],
)
def test_plans_of_another_form_are_refused_at_the_member(
    demo_plan: Plan, changes: dict[str, object], place: str
) -> None:
    plain = to_plain(demo_plan) | changes
    if "version" in changes:
        data = canonical_bytes(to_plain(demo_plan)).replace(b'"version":1}', b'"version":1.0}')
        with pytest.raises(ConfigError, match=r"JSON_INVALID.*only integers"):
            load_plan(data)
        return
    with pytest.raises(ConfigError) as info:
        load_plan(canonical_bytes(plain))
    assert info.value.code == "SCHEMA_INVALID"
    assert place in (info.value.got or "")


@pytest.mark.parametrize(
    "changes", [{"min_owners": 0}, {"sign_off": 3}, {"security": "none"}, {"on_late": "estimate"}, {"ttl_days": 0}]
)
def test_terms_that_this_version_does_not_keep_are_refused(demo_plan: Plan, changes: dict[str, object]) -> None:
    plain = to_plain(demo_plan)
    with pytest.raises(ConfigError, match=r"SCHEMA_INVALID.*\$\.terms"):
        load_plan(canonical_bytes(plain | {"terms": plain["terms"] | changes}))
