"""FLUSH alone finds what was altered between two honest ends: what no proof, tag or digest looks at, in every direction.

The third party, or whoever carries the messages, is the adversary here: all three parties are honest and follow their checks.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mpc_ops.protocol.circuits.boolean import and_many
from mpc_ops.protocol.core.opening import open_to_all
from mpc_ops.protocol.core.party import Address, Message
from tests.support.active import Mutate, Outcome, run_active, share_bits, small_proofs
from tests.support.adversary import Case, Program
from tests.support.attacked import COUNTERS, LOGIC, PRODUCTS, SHUFFLE

BITS = [1, 0, 1, 1]
LINKS = [(sender, (sender + turn) % 3) for sender in range(3) for turn in (1, -1)]


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    small_proofs(monkeypatch)


def other(message: Message) -> Message:
    """The same message with another last byte."""
    return replace(message, body=message.body[:-1] + bytes([message.body[-1] ^ 0x80]))


def altering(address_is: Callable[[Address], bool]) -> tuple[Mutate, list[Address]]:
    """Return (mutate, altered): one message is replaced on its way, and noted."""
    altered: list[Address] = []

    def mutate(message: Message) -> list[Message]:
        if not address_is(message.address):
            return [message]
        altered.append(message.address)
        return [other(message)]

    return mutate, altered


def two_batches(session):
    """Two batches of gates in one stage; before each a message on every link that nothing else ever reads."""
    stage = session.stage("one")
    bits = share_bits(BITS, 1, rng=random.Random(1))[stage.party]
    for number in range(2):
        text = [f"{way}{number}{stage.party}".encode() for way in "pn"]
        yield from stage.exchange(f"unread{number}", to_prev=text[0], to_next=text[1], expect_prev=3, expect_next=3)
        (bits,) = yield from and_many(stage, f"c{number}", [(bits, bits)])
        assert stage.batches == number + 1, "the batch of these gates is proven by now"
    return (yield from open_to_all(stage, (yield from stage.barrier()), [bits]))


def run_two_batches(mutate=None) -> Outcome:
    return run_active(two_batches, limit_bytes=64, mutate=mutate)


def steps_of(out: Outcome, sender: int) -> list[str]:
    return [address.step for address in out.log if address.sender == sender]


def test_nothing_else_reads_these_messages(monkeypatch) -> None:
    """Without the comparison the run ends well whichever of them is altered: so it is FLUSH that the tests below see."""
    assert run_two_batches().done
    monkeypatch.setattr("mpc_ops.protocol.core.stage.hmac.compare_digest", lambda *_: True)
    mutate, altered = altering(lambda address: address.step.startswith("unread"))
    out = run_two_batches(mutate)
    assert len(altered) == 2 * len(LINKS)
    assert all(np.array_equal(out.results[party][0], BITS) for party in range(3))


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize(("sender", "receiver"), LINKS)
def test_an_unread_message_that_was_altered_stops_its_sender(sender: int, receiver: int, batch: int) -> None:
    place = (f"unread{batch}", sender, receiver)
    mutate, altered = altering(lambda a: (a.step, a.sender, a.receiver) == place)
    out = run_two_batches(mutate)
    assert len(altered) == 1
    assert {party: error.code for party, error in out.errors.items()} == {sender: "LINK_MISMATCH"}
    assert not out.results
    said = steps_of(out, sender)
    assert f"flush{batch}" in said, "the batches before it were compared and proven"
    assert f"flush{batch + 1}" not in said
    assert f"and{batch}/coin0" not in said, "no coin of a batch is released whose link differs"
    assert not {"accept", "open"} & {address.step for address in out.log}


def test_the_ends_compare_the_order_and_the_step_too() -> None:
    """Two messages of one link that changed places, with nothing new in them."""

    def program(session):
        stage = session.stage("one")
        bits = share_bits(BITS, 1, rng=random.Random(1))[stage.party]
        for step, text in (("first", b"one"), ("second", b"two")):
            yield from stage.exchange(step, to_prev=text, to_next=text, expect_prev=3, expect_next=3)
        return (yield from open_to_all(stage, (yield from stage.barrier()), [bits]))

    swapped = {"first": b"two", "second": b"one"}

    def mutate(message: Message) -> list[Message]:
        address = message.address
        if (address.sender, address.receiver) == (0, 1) and address.step in swapped:
            return [replace(message, body=swapped[address.step])]
        return [message]

    assert run_active(program).done
    out = run_active(program, mutate=mutate)
    assert {party: error.code for party, error in out.errors.items()} == {0: "LINK_MISMATCH"}


# ------------------------------------------------------------------------------------------ messages of real protocols


def computed(case: Case) -> list[Address]:
    """Messages of gates and shuffles: what is sent before the first FLUSH of its stage."""
    first: dict[str, int] = {}
    for address in case.addresses:
        if address.step.startswith("flush"):
            first[address.stage] = min(first.get(address.stage, address.round), address.round)
    return [address for address in case.addresses if address.round < first[address.stage]]


@pytest.mark.parametrize("program", [LOGIC, PRODUCTS, COUNTERS, SHUFFLE], ids=lambda program: program.name)
def test_every_altered_message_of_a_protocol_is_a_mismatch_of_its_link(program: Program) -> None:
    """Proofs and tags would find many of these, but later: FLUSH comes before the first coin and before a tag key."""
    case = Case(program)
    places = computed(case)
    assert len(places) >= 6
    for place in places:
        mutate, altered = altering(lambda address, place=place: address == place)
        played = case.play(mutate=mutate)
        assert altered == [place]
        codes = {party: error.code for party, error in played.outcome.errors.items()}
        assert codes == {place.sender: "LINK_MISMATCH"}, (place, codes)
        coins = {m.address.step for m in played.sent if m.address.sender == place.sender and "coin" in m.address.step}
        assert not coins, place
