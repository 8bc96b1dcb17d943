"""Every kind of fault in products and their proofs is rejected, nobody opens a wrong value, and blame names no honest prover."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from mpc_ops.errors import ComityError
from mpc_ops.protocol.circuits.convert import bits_to_ring
from mpc_ops.protocol.circuits.products import dots, multiply
from mpc_ops.protocol.core.opening import open_to_all
from mpc_ops.protocol.core.party import Message
from mpc_ops.protocol.core.session import ActiveSession
from mpc_ops.protocol.core.stage import ActiveStage
from mpc_ops.protocol.proofs.proof_ring import passes
from mpc_ops.protocol.proofs.ring_claim import RingParams
from tests.support.active import run_active, share_bits, share_ring
from tests.support.blame import judged
from tests.support.products import Cheater, plus, prove, views

LENGTHS = [1, 1, 30]
LAST = 1
"""Level of the last matrix of so small a batch."""


def named(run) -> tuple[int, ...]:
    return judged(run.left, run.right, run.statement, partial(passes, run.place)).parties


# ------------------------------------------------------------------------------------- one proof: what is caught, who is named


@pytest.mark.parametrize("error", [1, 1 << 63, (1 << 64) - 1, 1 << 20])
@pytest.mark.parametrize("prover_type", [None, Cheater])
def test_a_wrong_product_is_rejected_and_its_prover_named(error: int, prover_type) -> None:
    wrong = views(np.random.default_rng(1), LENGTHS, bad=2, error=error)
    run = prove(wrong, **({} if prover_type is None else {"prover_type": prover_type}))
    assert not run.passed
    assert named(run) == (0,)


# Carries and matrices are witnesses: for a right product, an error near the top of the ring (2^127 off the trace) may vanish in
# the weights or folds and pass, which harms nobody. The faults here and the flipped bits below are the ones that cannot.
TAMPERED = {
    "a wrong carry": ("carries", plus(8, 1, 1, 64)),
    "a carry that is off by 2^31": ("carries", plus(8, 0, 1 << 31, 64)),
    "a wrong element of the trace": ("matrix0", plus(16, 0, 1)),
    "a wrong element off the trace": ("matrix0", plus(16, 1, 1 << 63)),
    "a wrong element of the last matrix": (f"matrix{LAST}", plus(16, 3, 1)),
    "a wrong trace of the last matrix": (f"matrix{LAST}", plus(16, 0, 1)),
    "the random row's element": (f"matrix{LAST}", plus(16, 17 * 17 - 1, 1)),
    "the second repetition only": (f"matrix{LAST}", plus(16, 17 * 17 + 5, 1)),
    "L's opened value": ("left", plus(16, 0, 1)),
    "L's claim": ("left", plus(16, 2, 1)),
    "L's trace check": ("left", plus(16, 4, 1 << 64)),
}


@pytest.mark.parametrize("fault", TAMPERED)
def test_faults_between_prover_and_left_are_rejected_and_name_the_two(fault: str) -> None:
    name, change = TAMPERED[fault]
    run = prove(views(np.random.default_rng(2), LENGTHS), tamper={name: change})
    assert not run.passed
    # Nobody can tell who altered it, so the prover is never blamed alone for what L says.
    assert named(run) == (0, 2)


@pytest.mark.parametrize("index", range(7))
def test_a_lying_right_verifier_is_rejected_and_cannot_frame_the_prover(index: int) -> None:
    run = prove(views(np.random.default_rng(3), LENGTHS), tamper={"right": plus(16, index, 1)})
    assert not run.passed
    assert named(run) == (0, 1)


def test_an_honest_proof_blames_nobody() -> None:
    run = prove(views(np.random.default_rng(4), LENGTHS))
    assert named(run) == ()


@pytest.mark.parametrize("name", ["weights", "coin0", "digests"])
def test_a_coin_that_differs_from_its_digest_stops_the_prover_before_it_answers(name: str) -> None:
    with pytest.raises(ComityError) as caught:
        prove(views(np.random.default_rng(5), LENGTHS), tamper={name: lambda body: bytes([body[0] ^ 1]) + body[1:]})
    assert caught.value.code == "COIN_MISMATCH"
    assert caught.value.ids["pair"] == "2,1"


@pytest.mark.parametrize("name", ["carries", "digests", "weights", "matrix0", "matrix1", "coin0", "left", "right"])
@pytest.mark.parametrize("change", [lambda body: body[:-1], lambda body: body + b"\0", lambda _: b""])
def test_another_length_is_refused(name: str, change) -> None:
    with pytest.raises(ComityError) as caught:
        assert prove(views(np.random.default_rng(6), LENGTHS), tamper={name: change}).passed
    assert caught.value.code == "LENGTH_INVALID"


def test_elements_outside_of_a_small_ring_are_refused() -> None:
    params = RingParams(8, 20, 12)
    for name, size in (("carries", 2), ("matrix0", 3)):
        with pytest.raises(ComityError) as caught:
            prove(
                views(np.random.default_rng(7), LENGTHS, params),
                params,
                tamper={name: lambda body, size=size: b"\xff" * size + body[size:]},
            )
        assert caught.value.code == "ELEMENT_INVALID"


def test_carries_of_64_bits_for_32_bit_gates_make_honest_proofs_fail() -> None:
    params = RingParams(32, 128, 64)
    assert not any(prove(views(np.random.default_rng(n), [1, 2], params), params, number=n).passed for n in range(5))


# -------------------------------------------------------------------------------------------- three parties over the network

XS, YS = [3, 1 << 63, (1 << 64) - 1], [5, 3, (1 << 64) - 1]
RIGHT = [x * y % (1 << 64) for x, y in zip(XS, YS, strict=True)]
RIGHT_DOT = [sum(RIGHT) % (1 << 64)]


def program(session):
    rng = random.Random(11)
    x, y = (share_ring(values, rng=rng)[session.terms.party] for values in (XS, YS))
    stage = session.stage("s")
    z = yield from multiply(stage, x, y)
    total = yield from dots(stage, x, y, np.array([3], dtype=np.int64))
    token = yield from stage.barrier()
    return (yield from open_to_all(stage, token, [z, total]))


def assert_no_wrong_output(outcome, honest=(0, 1, 2)) -> None:
    for party in honest:
        if party in outcome.results:
            z, total = outcome.results[party]
            assert ([int(v) for v in z], [int(v) for v in total]) == (RIGHT, RIGHT_DOT)


def corrupt(step: str, *, to_prev=None, to_next=None) -> type[ActiveSession]:
    """A session whose stage alters one outbound message before it enters its own transcript: FLUSH sees nothing wrong."""

    class CorruptStage(ActiveStage):
        def exchange(self, name, **message):
            if name == step:
                for side, change in (("to_prev", to_prev), ("to_next", to_next)):
                    if change is not None:
                        message[side] = change(message[side])
            return super().exchange(name, **message)

    class CorruptSession(ActiveSession):
        stage_type = CorruptStage

    return CorruptSession


CORRUPT = {
    "z + 1": ({"step": "ring-products", "to_prev": plus(8, 0, 1, 64)}, "PROOF_REJECTED"),
    "z + 2^63": ({"step": "ring-products", "to_prev": plus(8, 0, 1 << 63, 64)}, "PROOF_REJECTED"),
    "carry": ({"step": "ring-0-carries", "to_prev": plus(8, 1, 1, 64)}, "PROOF_REJECTED"),
    "digest": ({"step": "ring-0-weights", "to_prev": plus(1, 40, 1, 8)}, "COIN_MISMATCH"),
    "weights": ({"step": "ring-0-weights", "to_next": plus(1, 0, 1, 8)}, "COIN_MISMATCH"),
    "matrix": ({"step": "ring-0-matrix0", "to_prev": plus(16, 7, 1)}, "PROOF_REJECTED"),
    "trace": ({"step": "ring-0-matrix0", "to_prev": plus(16, 9, 1)}, "PROOF_REJECTED"),
    "coin": ({"step": "ring-0-coin0", "to_next": plus(1, 0, 1, 8)}, "COIN_MISMATCH"),
    "last matrix": ({"step": "ring-0-matrix1", "to_prev": plus(16, 2, 1)}, "PROOF_REJECTED"),
    "opening to R": ({"step": "ring-0-opening", "to_prev": plus(16, 0, 1)}, "PROOF_REJECTED"),
    "opening to L": ({"step": "ring-0-opening", "to_next": plus(16, 5, 1)}, "PROOF_REJECTED"),
}


@pytest.mark.parametrize("party", range(3))
@pytest.mark.parametrize("fault", CORRUPT)
def test_a_corrupt_party_is_stopped_before_anything_is_opened(fault: str, party: int) -> None:
    options, code = CORRUPT[fault]
    step = options["step"]
    session = corrupt(step, **{name: change for name, change in options.items() if name != "step"})
    outcome = run_active(program, session_types={party: session})
    honest = [other for other in range(3) if other != party]
    assert code in {outcome.errors[other].code for other in honest if other in outcome.errors}
    assert not any(other in outcome.results for other in honest)
    assert "open" not in {place.step for place in outcome.log if place.sender in honest}


@pytest.mark.parametrize("side", ["first", "second"])
@pytest.mark.parametrize("liar", range(3))
def test_a_party_that_computes_with_another_component_than_its_neighbour_holds_is_stopped(liar: int, side: str) -> None:
    """Its messages fit what it computes, but each component has a second holder, who verifies with its own copy."""

    def lying(session):
        rng = random.Random(11)
        x, y = (share_ring(values, rng=rng)[session.terms.party] for values in (XS, YS))
        if session.terms.party == liar:
            x = replace(x, **{side: getattr(x, side) + np.array([0, 1, 0], dtype=np.uint64)})
        stage = session.stage("s")
        z = yield from multiply(stage, x, y)
        return (yield from open_to_all(stage, (yield from stage.barrier()), [z]))

    outcome = run_active(lying)
    honest = [party for party in range(3) if party != liar]
    assert not outcome.results
    assert "PROOF_REJECTED" in {outcome.errors[party].code for party in honest if party in outcome.errors}


@pytest.mark.parametrize("liar", range(3))
def test_a_bit_cannot_be_falsified_on_its_way_to_the_ring(liar: int) -> None:
    def lying(session):
        bits = share_bits([1, 0, 1], 1, rng=random.Random(5))[session.terms.party]
        if session.terms.party == liar:
            bits = replace(bits, first=bits.first ^ np.uint64(2))
        stage = session.stage("s")
        ring = yield from bits_to_ring(stage, bits)
        return (yield from open_to_all(stage, (yield from stage.barrier()), [ring]))

    outcome = run_active(lying)
    assert not outcome.results
    assert "PROOF_REJECTED" in outcome.codes()


def test_every_message_with_one_flipped_bit_never_gives_a_wrong_output() -> None:
    honest = run_active(program)
    assert honest.done
    assert_no_wrong_output(honest)
    rnd = random.Random(12)
    for place, size in honest.sizes.items():
        position = rnd.randrange(8 * size)
        if place.step.endswith("-carries"):
            position = position // 64 * 64 + position % 32
        elif "-matrix" in place.step:
            position = position // 128 * 128 + position % 64

        def flip(message: Message, place=place, position=position) -> list[Message]:
            if message.address != place:
                return [message]
            body = bytearray(message.body)
            body[position // 8] ^= 1 << position % 8
            return [Message(message.address, bytes(body))]

        outcome = run_active(program, mutate=flip)
        assert outcome.errors, place
        assert outcome.codes() <= {
            "LINK_MISMATCH", "PROOF_REJECTED", "COIN_MISMATCH", "ACCEPT_INVALID", "OPENING_MISMATCH",
        }  # fmt: skip
        assert_no_wrong_output(outcome)


@pytest.mark.parametrize("kind", ["drop", "truncate", "twice"])
def test_dropped_truncated_and_repeated_messages(kind: str) -> None:
    honest = run_active(program)
    for place in [place for place in honest.log if place.sender == 1]:

        def change(message: Message, place=place) -> list[Message]:
            if message.address != place:
                return [message]
            return {"drop": [], "twice": [message] * 2, "truncate": [Message(place, message.body[:-1])]}[kind]

        outcome = run_active(program, mutate=change)
        assert_no_wrong_output(outcome)
        assert outcome.done == (kind == "twice")


@pytest.mark.parametrize("rushing", range(3))
def test_a_rushing_party_and_any_order_of_delivery_change_nothing(rushing: int) -> None:
    outcome = run_active(program, rushing=rushing)
    assert outcome.done
    assert_no_wrong_output(outcome)
    outcome = run_active(program, rng=random.Random(rushing))
    assert outcome.done
    assert_no_wrong_output(outcome)
