"""Counting circuits, the smallest lane, and what the Gate refuses: results, depth and AND words."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits import counts as c
from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.smallest import first_smallest, first_smallest_cost
from mpc_ops.protocol.disclosure.gate import GateInput, GateTerms, absorption_order, gate, gate_cost
from mpc_ops.ring.planes import from_planes
from tests.support.active import as_passive, run_passive, share_bits, share_ring
from tests.support.region_gate import Slice, clear_lanes, random_slice, run_gate, share_members


def run(circuit, shared):
    """Evaluate `circuit(share)` in a passive session; return (planes of the result as one array of values, outcome)."""

    def program(session):
        stage = session.stage("one")
        (result,) = yield from evaluate(stage, "c", [circuit(as_passive(shared[stage.party]))])
        return result

    outcome = run_passive(program)
    assert outcome.done, outcome.errors
    parts = [outcome.results[party] for party in range(3)]
    planes = parts[0].first ^ parts[1].first ^ parts[2].first
    return from_planes(planes, parts[0].count).tolist(), outcome


def refusal(circuit) -> set[str]:
    def program(session):
        stage = session.stage("one")
        return (yield from evaluate(stage, "c", [circuit(stage)]))

    return run_passive(program).codes()


def assert_cost(outcome, cost: c.Cost) -> None:
    assert set(outcome.rounds) == {cost.depth}
    assert set(outcome.sent_bytes) == {8 * cost.words}


def table(cells: int, words: int) -> np.ndarray:
    bits = np.random.default_rng(words).integers(0, 2, (cells, 64 * words))
    bits[0] = 1
    bits[cells // 2 : cells // 2 + 1] = 0 if cells > 1 else 1
    return bits


@pytest.mark.parametrize("cells", [1, 3, 64, 65])
@pytest.mark.parametrize("words", [1, 2, 3, 7, 8, 21])
def test_popcount_and_any_unit(cells: int, words: int) -> None:
    bits = table(cells, words)
    shared = share_members(bits)
    got, outcome = run(c.popcount, shared)
    assert got == bits.sum(axis=1).tolist()
    assert_cost(outcome, c.popcount_cost(cells, 64 * words))
    assert outcome.rounds[0] == (64 * words).bit_length() - 1
    got, outcome = run(c.any_unit, shared)
    assert got == bits.any(axis=1).tolist()
    assert_cost(outcome, c.any_unit_cost(cells, 64 * words))


@pytest.mark.parametrize("planes", [1, 2, 3, 6, 13])
def test_few_planes_are_counted_in_each_lane(planes: int) -> None:
    values = [random.Random(lane).getrandbits(planes) for lane in range(70)]
    got, outcome = run(c.count_planes, share_bits(values, planes))
    assert got == [value.bit_count() for value in values]
    assert_cost(outcome, c.count_planes_cost(70, planes))


@pytest.mark.parametrize(("groups", "size"), [(1, 1), (1, 5), (3, 4), (2, 7)])
def test_or_of_groups_of_planes(groups: int, size: int) -> None:
    values = [
        random.Random(lane).getrandbits(groups * size) & random.Random(-lane).getrandbits(40) for lane in range(9)
    ]
    got, outcome = run(lambda share: c.any_in_groups(share, groups), share_bits(values, groups * size))
    mask = (1 << size) - 1
    assert got == [sum(bool(v >> (g * size) & mask) << g for g in range(groups)) for v in values]
    assert_cost(outcome, c.any_cost(groups, size, 1))


@pytest.mark.parametrize("count", [1, 2, 5, 64, 65, 200, 4100])
def test_the_first_of_the_smallest(count: int) -> None:
    rng = random.Random(count)
    keys = [rng.choice([7, 9, 12, 31]) for _ in range(count)] if count != 5 else [3, 1, 2, 1, 1]
    got, outcome = run(first_smallest, share_bits(keys, 5))
    assert got.index(1) == keys.index(min(keys))
    assert sum(got) == 1
    assert_cost(outcome, first_smallest_cost(count, 5))


def test_the_smallest_at_every_place() -> None:
    for place in range(9):
        keys = [5] * 9
        keys[place] = 4
        assert run(first_smallest, share_bits(keys, 3))[0].index(1) == place


def test_tables_with_a_tail_or_without_units_are_refused() -> None:
    for shared in (share_bits([1, 0, 1], 2), share_bits([], 2)):
        for circuit in (c.popcount, c.any_unit):
            assert refusal(lambda stage, of=shared, what=circuit: what(as_passive(of[stage.party]))) == {
                "PLANES_INVALID"
            }


def test_cells_are_absorbed_in_the_order_of_their_labels_a_missing_one_first() -> None:
    domains = (("b", "a"), ("x", "w"))
    # leaves bx bw ax aw, then not allocated of b and of a
    assert absorption_order(domains).tolist() == [5, 3, 2, 4, 1, 0]
    assert absorption_order(()).tolist() == []


def one_cell(units_at: dict[tuple[int, ...], int], domains=(("a", "b", "c"),)) -> Slice:
    """Cells with that many units each, one owner, value 1 a row."""
    rows, unit = [], 0
    for place, number in units_at.items():
        for _ in range(number):
            rows.append((0, unit, place, (1,)))
            unit += 1
    return Slice(domains, 1, 1, rows)


@pytest.mark.parametrize(
    ("units", "values"),
    [
        ([9, 9, 2], [0, 9, 0, 11]),  # a tie: the earlier label is absorbed
        ([9, 8, 2], [9, 0, 0, 10]),
        ([5, 5, 5], [5, 5, 5, 0]),
        ([4, 4, 4], [0, 0, 0, 12]),
        ([1, 1, 2], [0, 0, 0, 0]),
        ([4, 0, 0], [0, 0, 0, 0]),
        ([0, 6, 0], [0, 6, 0, 0]),
        ([0, 0, 0], [0, 0, 0, 0]),
    ],
)
def test_by_hand_with_k_5(units: list[int], values: list[int]) -> None:
    one = one_cell({(place,): number for place, number in enumerate(units)})
    terms = GateTerms(domains=one.domains, k=5, counts=True, totals=True)
    ((got, counts),), _ = run_gate([one], terms, random.Random(1), security="passive")
    assert got == values
    assert counts == [*values, sum(values)]
    assert (got, counts) == clear_lanes(one, 5)


def test_more_cells_than_one_group_of_pairs() -> None:
    domains = (tuple(f"s{i:02}" for i in range(12)), tuple(f"l{i}" for i in range(7)))
    one = random_slice(random.Random(4), domains, 3, 40, 500, measures=1)
    terms = GateTerms(domains=domains, k=4, counts=True, totals=True)
    ((values, counts),), outcome = run_gate([one], terms, random.Random(1), security="passive")
    assert (values, counts) == clear_lanes(one, 4)
    cost = gate_cost([one.padded_units()], [1], terms)
    assert (outcome.rounds[0], outcome.sent_bytes[0]) == (cost.rounds, cost.sent)


def test_more_products_than_one_operation_takes_are_cut_into_pieces_of_one_round(monkeypatch) -> None:
    one = random_slice(random.Random(4), (("a", "b"), ("x", "y")), 2, 40, 80, measures=5)
    terms = GateTerms(domains=one.domains, k=4, counts=True)
    monkeypatch.setattr("mpc_ops.protocol.disclosure.gate.MAX_OPERATION_TERMS", 2 * 3 * 4 + 1)
    ((values, counts),), outcome = run_gate([one], terms, random.Random(1), security="passive")
    assert (values, counts) == clear_lanes(one, 4, totals=False)
    cost = gate_cost([one.padded_units()], [5], terms)
    assert (outcome.rounds[0], outcome.sent_bytes[0]) == (cost.rounds, cost.sent)


def test_a_slice_in_which_publicly_nobody_is_costs_nothing_and_holds_zeros() -> None:
    one = Slice((("a", "b"),), 2, 2, [])
    terms = GateTerms(domains=one.domains, k=3, counts=True, totals=True)
    ((values, counts),), outcome = run_gate([one], terms, random.Random(1), security="passive")
    assert (values, counts) == ([0] * 6, [0] * 4)
    assert outcome.rounds == [0, 0, 0]
    assert gate_cost([[]], [2], terms).rounds == 0


def test_rounds_and_sizes_are_the_same_for_other_data_of_the_same_shape() -> None:
    domains = (("a", "b"), ("x", "y"))
    logs = []
    for seed in (1, 2, 3):
        rng = random.Random(seed)
        one = random_slice(rng, domains, 2, 60, 80 if seed != 3 else 2, measures=1)
        one.rows += [(0, 63, (0, 0), (1,)), (1, 63, (1, 1), (1,))]
        _, outcome = run_gate([one], GateTerms(domains=domains, k=4, counts=True), rng, security="active")
        logs.append(sorted((place.round, place.step, place.sender, size) for place, size in outcome.sizes.items()))
    assert logs[0] == logs[1] == logs[2]


def test_every_output_lane_is_freshly_shared() -> None:
    """The same input shares in two attempts: no component of any lane is the same, so none tells about the inputs' shares."""
    one = random_slice(random.Random(2), (("a", "b"),), 2, 40, 60, measures=2)
    terms = GateTerms(domains=one.domains, k=3, counts=True, totals=True)
    tables, measures = one.shared(random.Random(3))
    parts = []
    for attempt in (1, 2):

        def program(session):
            stage = session.stage("one")
            party = stage.party

            def own(share):
                passive = as_passive(share)
                return type(passive)(session.terms.sid, *[getattr(passive, name) for name in fields(passive)])

            inputs = [GateInput(members=[own(table[party]) for table in tables], measures=own(measures[party]))]
            return (yield from gate(stage, inputs, terms))

        (output,) = run_passive(program, attempt=attempt).results[0]
        parts.append(np.concatenate([output.values.first, output.counts.first]))
    assert not np.any(parts[0] == parts[1])


def fields(share) -> list[str]:
    return ["party", "count", "first", "second"] if hasattr(share, "width") else ["party", "first", "second"]


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in ({"k": 0}, {"min_owners": 0}, {"domains": ((),)}, {"totals": True}):
        with pytest.raises(LocalProtocolError, match="GATE_INVALID"):
            GateTerms(**{"domains": (("a",),), "k": 2, **wrong})
    terms = GateTerms(domains=(("a", "b"),), k=2)
    for cells, values in ((3, 2), (2, 3)):
        table_of, ring = share_members(np.ones((cells, 5))), share_ring([0] * values)

        def program(session, table_of=table_of, ring=ring):
            stage = session.stage("one")
            inputs = [GateInput(members=[as_passive(table_of[stage.party])], measures=as_passive(ring[stage.party]))]
            return (yield from gate(stage, inputs, terms))

        assert run_passive(program).codes() == {"GATE_INVALID"}
