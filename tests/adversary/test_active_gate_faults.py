"""A corrupt party at every message of the Gate on shares: an abort or silence, never a wrong lane, nothing opened before the proof."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mpc_ops.protocol.core.party import Message
from mpc_ops.protocol.disclosure.gate import GateInput, GateTerms, gate, gate_cost
from tests.support.active import Outcome, corrupt_session, flip, run_active, run_flow, small_proofs
from tests.support.region_gate import MOD, Slice, clear_lanes

DOMAINS = (("a", "b"), ("x", "y"))
TERMS = GateTerms(domains=DOMAINS, k=3, min_owners=2, counts=True, totals=True)


def scene() -> Slice:
    """A small cell that moves to its prefix, one of too few owners that moves to the top, and an absorption."""
    rows = []
    for place, units in {(0, 0): (5, 4), (0, 1): (1, 1), (1, 0): (2, 0), (1, 1): (3, 3)}.items():
        for owner, number in enumerate(units):
            rows += [(owner, unit + 10 * place[0], place, (7 * unit - 9,)) for unit in range(number)]
    return Slice(DOMAINS, 2, 1, rows)


SCENE = scene()
EXPECTED = clear_lanes(SCENE, TERMS.k, TERMS.min_owners)
TABLES, MEASURES = SCENE.shared(random.Random(1))


def program(flow):
    party = flow.stage.party
    inputs = [GateInput(members=[table[party] for table in TABLES], measures=MEASURES[party])]
    (output,) = yield from gate(flow.stage, inputs, TERMS)
    opened = yield from flow.open([output.values, output.counts])
    return tuple([int(value) for value in one] for one in opened)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_proofs(monkeypatch)


def assert_nothing_wrong(outcome: Outcome, honest: tuple[int, ...]) -> None:
    for party in honest:
        assert outcome.results.get(party, EXPECTED) == EXPECTED


def test_the_honest_run_is_right() -> None:
    outcome = run_flow(program)
    assert outcome.done
    assert_nothing_wrong(outcome, (0, 1, 2))
    assert EXPECTED[0][6] % MOD, "something is at the top"
    assert EXPECTED[1].count(0) > 2


def gate_messages() -> list[tuple[str, int]]:
    """(step, which message of that step) of every message of the Gate that a party sends."""
    cost = gate_cost([SCENE.padded_units()], [1], TERMS)
    return [(f"gate/{depth}", 0) for depth in range(cost.rounds - 3)] + [("ring-products", n) for n in range(6)]


def bending(step: str, number: int, count: list[int], rng: random.Random):
    """Flip a bit of message `number` of a step; `count` says how many there were."""

    def bend(name: str, side: str, body: bytes) -> bytes:
        if name != step:
            return body
        count[0] += 1
        return flip(bytes(body), rng) if count[0] == number + 1 else body

    return bend


@pytest.mark.parametrize("corrupt", range(3))
def test_a_party_that_lies_consistently_in_any_message_is_found_by_the_proofs(corrupt: int) -> None:
    """Its own transcript has the lie too, so FLUSHED agrees. The three positions take turns over the messages."""
    rng = random.Random(corrupt)
    messages = gate_messages()
    assert len(messages) > 40
    for step, number in messages[corrupt::3]:
        count = [0]
        outcome = run_flow(program, session_types={corrupt: corrupt_session(bending(step, number, count, rng))})
        honest = tuple(party for party in range(3) if party != corrupt)
        assert count[0] > number, step
        assert not any(party in outcome.results for party in honest), step
        assert "PROOF_REJECTED" in {outcome.errors[party].code for party in honest if party in outcome.errors}, step
        assert not {place for place in outcome.log if place.step == "open" and place.sender in honest}, step


def test_a_message_altered_on_its_way_is_found_at_flush_at_the_latest() -> None:
    log = [place for place in run_flow(program).log if place.step.startswith(("gate/", "ring-products"))]
    rng = random.Random(3)
    for address in rng.sample(log, 25):

        def mutate(message: Message, address=address) -> list[Message]:
            if message.address != address:
                return [message]
            return [Message(address, flip(bytes(message.body), rng))]

        outcome = run_flow(program, mutate=mutate)
        assert outcome.errors
        assert not outcome.results
        assert not {place for place in outcome.log if place.step == "open"}


@pytest.mark.parametrize("change", ["drop", "shorter", "longer"])
def test_a_missing_or_misshapen_message_ends_the_run(change: str) -> None:
    log = [place for place in run_flow(program).log if place.step.startswith(("gate/", "ring-products"))]
    bodies = {
        "drop": lambda message: [],
        "shorter": lambda message: [Message(message.address, bytes(message.body)[:-8])],
        "longer": lambda message: [Message(message.address, bytes(message.body) + bytes(8))],
    }
    for address in random.Random(change).sample(log, 12):
        outcome = run_flow(
            program, mutate=lambda message, at=address: bodies[change](message) if message.address == at else [message]
        )
        assert not outcome.results
        assert outcome.codes() <= {"LENGTH_INVALID", "FRAME_OUT_OF_ORDER"}


@pytest.mark.parametrize("liar", range(3))
def test_a_party_cannot_gate_with_another_share_of_the_tables_than_its_neighbours_hold(liar: int) -> None:
    """It would move a cell of its choice; each component has a second holder who verifies with its own copy."""

    def lying(flow):
        party = flow.stage.party
        tables = [table[party] for table in TABLES]
        if party == liar:
            first = tables[0].first.copy()
            first[2, 0] ^= 0b11111
            tables[0] = replace(tables[0], first=first)
        (output,) = yield from gate(flow.stage, [GateInput(members=tables, measures=MEASURES[party])], TERMS)
        return [int(value) for value in (yield from flow.open([output.values]))[0]]

    outcome = run_flow(lying)
    assert not outcome.results
    assert "PROOF_REJECTED" in outcome.codes()


def test_the_gate_refuses_shares_of_another_kind_of_session() -> None:
    outcome = run_flow(program, security="passive")
    assert outcome.codes() == {"SHARE_FOREIGN"}


def test_nothing_can_be_taken_out_of_a_gate_without_its_barrier() -> None:
    def early(session):
        stage = session.stage("one")
        party = stage.party
        inputs = [GateInput(members=[table[party] for table in TABLES], measures=MEASURES[party])]
        return (yield from gate(stage, inputs, TERMS))

    assert run_active(early).codes() == {"STAGE_ORDER"}
