"""What the others see of products and their proofs: uniform values, shapes that depend on nothing, no coin before FLUSHED."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from mpc_ops.protocol.circuits.products import dots, multiply
from mpc_ops.protocol.core.opening import open_to_all
from mpc_ops.protocol.core.party import Message
from mpc_ops.protocol.core.shares import ring_zero
from mpc_ops.protocol.proofs.ring_claim import RingParams
from tests.support.active import run_active, share_ring
from tests.support.products import prove, views

TRIALS = 320
CHI_SQUARE_15 = 44.3
"""15 degrees of freedom, 99.99 % point."""


def chi_square(nibbles: list[int]) -> float:
    counts = Counter(nibbles)
    expected = len(nibbles) / 16
    return sum((counts[value] - expected) ** 2 / expected for value in range(16))


@pytest.mark.parametrize("edge", [0, 255])
def test_the_opened_values_of_both_verifiers_are_uniform_whatever_the_inputs(edge: int) -> None:
    """All components 0 would open as 0 without the random row."""
    params = RingParams(8, 16, 8, 1)
    seen: dict[str, list[int]] = {"L low": [], "L high": [], "R low": [], "R high": []}
    for number in range(TRIALS):
        run = prove(views(np.random.default_rng(1), [1, 1], params, edge=edge), params, number=(edge, number))
        assert run.passed
        for name, message in (("L", run.left), ("R", run.right)):
            seen[f"{name} low"].append(message[0] & 15)
            seen[f"{name} high"].append(message[1] >> 4)
    for name, nibbles in seen.items():
        assert chi_square(nibbles) < CHI_SQUARE_15, name


def test_what_a_receiver_of_a_product_sees_is_uniform_even_if_all_components_are_zero() -> None:
    bodies: list[bytes] = []

    def watch(message: Message) -> list[Message]:
        if message.address.step == "ring-products":
            bodies.append(message.body)
        return [message]

    def program(session):
        stage = session.stage("s")
        zero = ring_zero(stage, 64)
        z = yield from multiply(stage, zero, zero)
        return (yield from open_to_all(stage, (yield from stage.barrier()), [z]))

    for number in range(2):
        outcome = run_active(program, seed=number, mutate=watch)
        assert [[int(v) for v in result[0]] for result in outcome.results.values()] == [[0] * 64] * 3
    nibbles = [byte & 15 for body in bodies for byte in body]
    assert len(nibbles) == 2 * 3 * 64 * 8
    assert chi_square(nibbles) < CHI_SQUARE_15


def test_two_inputs_of_one_shape_have_the_same_transcript_shape() -> None:
    shapes = []
    for values in ([0] * 70, [(1 << 64) - 1] * 70):

        def program(session, values=values):
            stage, x = session.stage("s"), share_ring(values, rng=random.Random(1))[session.terms.party]
            z = yield from multiply(stage, x, x)
            z = yield from dots(stage, z, x, np.array([1, 1, 70], dtype=np.int64))
            return (yield from open_to_all(stage, (yield from stage.barrier()), [z]))

        outcome = run_active(program)
        assert outcome.done
        shapes.append((sorted(outcome.sizes.items()), outcome.rounds, outcome.sent_bytes))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("sender", range(3))
@pytest.mark.parametrize("offset", [1, 2])
def test_no_coin_leaves_a_verifier_that_has_not_heard_flushed_from_both(sender: int, offset: int) -> None:
    """Withholding FLUSHED, or the carries, from one party: it releases neither weights nor digests."""
    receiver = (sender + offset) % 3

    def program(session):
        stage, x = session.stage("s"), share_ring([1, 2, 3], rng=random.Random(1))[session.terms.party]
        z = yield from multiply(stage, x, x)
        return (yield from open_to_all(stage, (yield from stage.barrier()), [z]))

    for step in ("flush0", "ring-0-carries"):

        def withhold(message: Message, step=step) -> list[Message]:
            place = message.address
            return [] if (place.step, place.sender, place.receiver) == (step, sender, receiver) else [message]

        outcome = run_active(program, mutate=withhold)
        if step == "ring-0-carries" and receiver != (sender - 1) % 3:
            assert outcome.done  # carries go to the previous party only
            continue
        assert not outcome.results
        assert not [place for place in outcome.log if place.step == "ring-0-weights" and place.sender == receiver]


@pytest.mark.parametrize("prover", range(3))
def test_a_withheld_matrix_gets_no_coin_and_a_withheld_coin_no_matrix(prover: int) -> None:
    def program(session):
        stage, x = session.stage("s"), share_ring([1, 2, 3], rng=random.Random(1))[session.terms.party]
        z = yield from multiply(stage, x, x)
        return (yield from open_to_all(stage, (yield from stage.barrier()), [z]))

    left, right = (prover - 1) % 3, (prover + 1) % 3
    for step, sender, receiver, stopped in (
        ("ring-0-matrix0", prover, left, ("ring-0-coin0", left)),
        ("ring-0-coin0", left, prover, ("ring-0-matrix1", prover)),
        ("ring-0-weights", left, prover, ("ring-0-matrix0", prover)),
        ("ring-0-weights", right, prover, ("ring-0-matrix0", prover)),
    ):

        def withhold(message: Message, what=(step, sender, receiver)) -> list[Message]:
            place = message.address
            return [] if (place.step, place.sender, place.receiver) == what else [message]

        outcome = run_active(program, mutate=withhold)
        assert not outcome.results
        assert not [place for place in outcome.log if (place.step, place.sender) == stopped]
