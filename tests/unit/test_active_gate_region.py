"""The region's stage with the Gate on shares, in memory: from owners' parts to what the group's operators open."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from local_stores.snapshot.contribution import compute_figures
from local_stores.snapshot.local_plan import UnitTable
from mpc_ops.engine.region_gate import REGION_GATE_OPS, region_gate, region_gate_cost
from mpc_ops.plan.layout import lane_count, lanes, shared_lane_count
from mpc_ops.sharing import UnitTables, parts_of, share
from tests.support.active import corrupt_session, flip, small_proofs
from tests.support.core import filing
from tests.support.federation import make_federation, make_plan
from tests.support.region_stage import region_parts, run_region

RATES = {"period": "1", "prior_year": "1"}
"""So that amounts translate to themselves: those of leaf cells are rounded before they are added, those of moved cells after."""
SUMS = ("revenue", "margin", "lines")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_proofs(monkeypatch)


def table(rows) -> UnitTable:
    """A unit table of rows (slice, codes of the dimensions, unit, three sums)."""
    depth = len(rows[0][1]) if rows else 0
    column = [np.array([row[1][axis] for row in rows], np.int64) for axis in range(depth)]
    sums = {name: np.array([row[3][place] for row in rows], np.int64) for place, name in enumerate(SUMS)}
    return UnitTable(
        np.array([row[0] for row in rows], np.int64), tuple(column), np.array([row[2] for row in rows], np.int64), sums
    )


def random_rows(rng: random.Random, sizes, units: int, count: int):
    """One row for each (slice, cell, unit), as the local plan's result has."""
    found = {}
    for _ in range(count):
        place = tuple(min(int(rng.expovariate(0.9)), size - 1) for size in sizes)
        values = (rng.randrange(-(10**9), 10**9), rng.randrange(-(10**9), 10**9), rng.randrange(1, 9))
        found[rng.randrange(2), place, rng.randrange(units)] = values
    return [(*key, values) for key, values in found.items()]


def scene(plan, rng: random.Random, owners: int, units: int, count: int):
    """Rows of each owner, and the region's parts by position. The owner `nil` reports nothing."""
    sizes = [len(values) for values in plan.domains.values()]
    rows = [random_rows(rng, sizes, units, count) for _ in range(owners)]
    return rows, [
        [*parts, None] for parts in zip(*(parts_at(plan, n, mine) for n, mine in enumerate(rows)), strict=True)
    ]


def parts_at(plan, number: int, rows):
    return region_parts(compute_figures(plan, table(rows), RATES, owner=f"o{number}"), f"o{number}")


def in_the_clear(made, rows, k: int, dimensions) -> list[int]:
    """Lanes of one owner that has all rows, behind the Gate in the clear."""
    union = [
        (where, place, 1000 * owner + unit, sums)
        for owner, mine in enumerate(rows)
        for where, place, unit, sums in mine
    ]
    plan = make_plan(made.federation, k=k, dimensions=dimensions)
    return compute_figures(plan, table(union), RATES, owner="all").lanes.tolist()


@pytest.mark.parametrize("security", ["active", "passive"])
@pytest.mark.parametrize(("dimensions", "k"), [(("segment", "product_line"), 10), (("segment",), 4), ((), 3), ((), 99)])
def test_the_group_opens_what_one_gate_over_all_owners_lets_through(made, security, dimensions, k) -> None:
    plan = make_plan(made.federation, k=k, gate_at="region", dimensions=dimensions, security=security)
    rng = random.Random(repr((dimensions, k)))
    rows, parts = scene(plan, rng, owners=3, units=25, count=60)
    got, outcome = run_region(plan, parts, security=security)
    assert outcome.done, outcome.errors
    expected = in_the_clear(made, rows, k, dimensions)
    assert got == expected
    assert any(expected) == (k < 99)
    assert "open" not in {place.step for place in outcome.log}


def test_small_owners_pass_together_that_would_contribute_nothing_alone(made) -> None:
    plan = make_plan(made.federation, k=10, gate_at="region")
    rows = [[(0, (1, 2), unit, (100, 50, 1)) for unit in range(4)] for _ in range(3)]
    assert not any(any(in_the_clear(made, [mine], 10, ("segment", "product_line"))) for mine in rows)
    parts = [[*one] for one in zip(*(parts_at(plan, n, mine) for n, mine in enumerate(rows)), strict=True)]
    got, _ = run_region(plan, parts)
    found = {
        (lane.measure.name, lane.cell.kind, lane.cell.labels): value
        for lane, value in zip(lanes(plan), got, strict=True)
        if value
    }
    segment, line = (plan.domains[name][place] for name, place in (("segment", 1), ("product_line", 2)))
    assert found["revenue", "leaf", (segment, line)] == 1200
    assert {found["customers", "total", labels] for labels in ((), (segment,))} == {12}


def test_the_order_of_filings_does_not_matter_and_may_differ_between_operators(made) -> None:
    plan = make_plan(made.federation, k=4, gate_at="region", dimensions=("segment",))
    rows, parts = scene(plan, random.Random(5), owners=3, units=12, count=30)
    parts[1] = parts[1][::-1]
    got, outcome = run_region(plan, parts)
    assert outcome.done, outcome.errors
    assert got == in_the_clear(made, rows, 4, ("segment",))


def test_a_region_in_which_nobody_reports_hands_on_zeros(made) -> None:
    plan = make_plan(made.federation, k=4, gate_at="region")
    got, _ = run_region(plan, [[None, None]] * 3)
    assert got == [0] * lane_count(plan)


def test_rounds_and_bytes_of_the_gate_are_those_of_the_formula(made) -> None:
    plan = make_plan(made.federation, k=4, gate_at="region")
    _, parts = scene(plan, random.Random(6), owners=2, units=100, count=200)
    _, outcome = run_region(plan, parts)
    wanted = region_gate(plan)
    cost = region_gate_cost(wanted, [part.units.rows for part in parts[0] if part is not None])
    mine = [place for place in outcome.log if place.step.startswith(("gate/", "ring-products")) and place.sender == 0]
    # One more product a lane: the re-randomising one of `finish_region`.
    assert sum(outcome.sizes[place] for place in mine) == cost.sent + 8 * lane_count(plan)
    assert len({place.round for place in mine}) == cost.rounds + 1


def test_a_plan_with_the_gate_at_the_owner_keeps_its_linear_stage(made) -> None:
    plan = make_plan(made.federation, k=2)
    assert region_gate(plan) is None
    parts = parts_of(share(np.arange(lane_count(plan), dtype=np.uint64)), filing("o1"))
    got, outcome = run_region(plan, [[part] for part in parts], ops=("region_sum", "cross"), security="passive")
    assert got == list(range(lane_count(plan)))
    assert outcome.rounds == [0, 0, 0]


def test_what_does_not_belong_to_the_stage_is_refused(made) -> None:
    plan = make_plan(made.federation, k=4, gate_at="region", dimensions=("segment",))
    _, parts = scene(plan, random.Random(7), owners=2, units=12, count=30)
    for ops in (("region_sum", "cross"), ("region_gate", "region_sum", "cross"), (*REGION_GATE_OPS, "open")):
        assert run_region(plan, parts, ops=ops)[1].codes() == {"UNSUPPORTED_NODE"}
    bare = share(np.zeros(shared_lane_count(plan), dtype=np.uint64))
    without = [[part] for part in parts_of(bare, filing("o0"))]
    assert run_region(plan, without)[1].codes() == {"PART_MIXED"}
    narrow = UnitTables(parts[0][0].units.width - 1, parts[0][0].units.rows)
    odd = [[replace(parts[party][0], units=narrow)] for party in range(3)]
    assert run_region(plan, odd)[1].codes() == {"PART_MIXED"}
    twice = [[one[0], one[0]] for one in parts]
    assert run_region(plan, twice)[1].codes() == {"PARTS_INVALID"}


def test_a_holder_that_computes_with_another_part_is_stopped_before_anything_crosses(made) -> None:
    """Its own copy of a component differs from its second holder's: proofs see it, and no crossing is built."""
    plan = make_plan(made.federation, k=4, gate_at="region", dimensions=("segment",))
    _, parts = scene(plan, random.Random(8), owners=2, units=12, count=30)
    for liar in range(3):
        other = parts_at(plan, 0, [(0, (0,), 1, (1, 1, 1))] * 1)[liar]
        other = replace(other, units=parts[liar][0].units) if other.units != parts[liar][0].units else other
        bent = [[other, *one[1:]] if party == liar else one for party, one in enumerate(parts)]
        got, outcome = run_region(plan, bent)
        assert got is None
        assert not outcome.results
        assert "PROOF_REJECTED" in outcome.codes()


def test_a_bent_message_of_the_last_round_builds_no_crossing(made) -> None:
    plan = make_plan(made.federation, k=4, gate_at="region", dimensions=("segment",))
    _, parts = scene(plan, random.Random(9), owners=1, units=12, count=30)
    rng = random.Random(1)
    for number in (0, 5, 6):
        seen = [0]

        def bend(name, side, body, number=number, seen=seen):
            seen[0] += name == "ring-products"
            return flip(bytes(body), rng) if name == "ring-products" and seen[0] == number + 1 else body

        _, outcome = run_region(plan, parts, session_types={1: corrupt_session(bend)})
        assert seen[0] > number
        assert not {0, 2} & set(outcome.results)
