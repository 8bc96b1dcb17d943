"""Recipe A: kernels against plain definitions, every kind of fault, blame, and false accepts in tiny fields."""

from __future__ import annotations

import math
import random
from itertools import chain

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.protocol.proofs.and_kernels import PUBLIC_LAYOUT, BlockLayout, cross_gates, fold_gates
from mpc_ops.protocol.proofs.proof_and import (
    AndProof,
    AndProver,
    FinalValues,
    proof_bytes,
    proof_rounds,
    values_fit,
)
from mpc_ops.ring.field61 import FIELD_61, P61
from tests.support.active import SMALL_LAYOUT, Gates, TinyField, Trial
from tests.support.blame import judged


def bit(words, word: int, place: int) -> int:
    return (int(words[word]) >> place) & 1


def vectors(gates: Gates, layout: BlockLayout, p: int):
    """u and v as lanes x (4 components x columns), straight from the definition."""
    left, right = gates.left(0, layout), gates.right(0, layout)
    blocks = len(left.x) // layout.block_words
    u = [[[] for _ in range(4)] for _ in range(layout.lanes)]
    v = [[[] for _ in range(4)] for _ in range(layout.lanes)]
    for lane in range(layout.lanes):
        for block in range(blocks):
            for place in range(64):
                for slot in range(layout.slots):
                    word = block * layout.block_words + lane * layout.slots + slot
                    x, y, e = (bit(part, word, place) for part in (left.x, left.y, left.e))
                    s = -1 if e else 1
                    for component, value in enumerate((1, x, y, x * y)):
                        u[lane][component].append(s * value % p)
                    x, y, e = (bit(part, word, place) for part in (right.x, right.y, right.e))
                    s = -1 if e else 1
                    for component, value in enumerate((1, -2 * y, -2 * x, 4 * x * y)):
                        v[lane][component].append(s * value % p)
    flat = [[list(chain.from_iterable(lane)) for lane in side] for side in (u, v)]
    return flat[0], flat[1]


@pytest.mark.parametrize(
    ("words", "layout"),
    [
        (8, BlockLayout(lanes=4, slots=2)),
        (3, SMALL_LAYOUT),
        (16, BlockLayout(lanes=16, slots=1)),
        (70, BlockLayout(lanes=64, slots=1)),
    ],
)
def test_level_one_kernels_equal_their_definition(words: int, layout: BlockLayout) -> None:
    gates = Gates.random(words, np.random.default_rng(words))
    gates.z[0] ^= np.random.default_rng(1).integers(0, 2, words, dtype=np.uint64)
    left, right = gates.left(0, layout), gates.right(0, layout)
    u, v = (np.array(side, dtype=object) for side in vectors(gates, layout, P61))
    expected = [0] * (2 * layout.lanes - 1)
    for a in range(layout.lanes):
        for b in range(layout.lanes):
            expected[a - b + layout.lanes - 1] += int((u[a] * v[b]).sum())
    assert [value % P61 for value in cross_gates(left, right, layout)] == [value % P61 for value in expected]
    for field in (FIELD_61, TinyField(1031)):
        weights = field.array([random.Random(lane).randrange(field.p) for lane in range(layout.lanes)])
        for side, vector, is_right in ((left, u, False), (right, v, True)):
            folded = fold_gates(side, weights, layout, field, right=is_right)
            lifted = np.where(vector > P61 // 2, vector - P61, vector)
            plain = (weights.astype(object)[:, None] * lifted).sum(axis=0)
            assert folded.tolist() == [int(value) % field.p for value in plain]


def test_kernels_over_several_chunks_and_the_public_layout() -> None:
    words = (1 << 15) + 512
    gates = Gates.random(words, np.random.default_rng(5))
    left, right = gates.left(0, PUBLIC_LAYOUT), gates.right(0, PUBLIC_LAYOUT)
    totals = cross_gates(left, right, PUBLIC_LAYOUT)
    assert totals[63] == 64 * words
    half = 1 << 14
    parts = [cross_gates(*(type(s)(s.x[c], s.y[c], s.e[c]) for s in (left, right)), PUBLIC_LAYOUT)
             for c in (slice(0, half), slice(half, None))]  # fmt: skip
    assert totals == [a + b for a, b in zip(*parts, strict=True)]
    weights = FIELD_61.powers(99, 64)
    u = fold_gates(left, weights, PUBLIC_LAYOUT, FIELD_61, right=False)
    v = fold_gates(right, FIELD_61.powers(FIELD_61.inverse(99), 64), PUBLIC_LAYOUT, FIELD_61, right=True)
    assert FIELD_61.dot(u, v) == FIELD_61.evaluate(FIELD_61.array(totals), -63, 99)


def test_a_batch_of_broken_blocks_is_refused() -> None:
    side = Gates.random(3, np.random.default_rng(1)).left(0, SMALL_LAYOUT)
    with pytest.raises(LocalProtocolError, match="GATES_INVALID"):
        cross_gates(side, side, PUBLIC_LAYOUT)


def test_the_public_layout_has_the_levels_of_the_design() -> None:
    assert PUBLIC_LAYOUT.levels(1) == ((64, 8), 256)
    assert PUBLIC_LAYOUT.levels(512 * 8)[0] == (64, 8, 16)
    assert PUBLIC_LAYOUT.levels(1 << 18) == ((64, 8, 16, 16), 512)
    assert PUBLIC_LAYOUT.levels(1 << 19) == ((64, 8, 16, 16, 16), 64)
    assert proof_rounds(1 << 18) == 10
    # levels: 4 before the last with 127, 15, 31, 31 coefficients; the last one has 3 * 512 + 1.
    assert proof_bytes(1 << 18) == 8 * (127 + 15 + 31 + 31 + 1537) + 4 * 64 + 16 * 7
    for words in (1, 511, 513, 4096, 100_000):
        lanes, last = PUBLIC_LAYOUT.levels(words)
        assert last <= 512
        assert sum(2 * step - 2 for step in lanes) + 3 * last < 2**12  # error below 2^-49 at p = 2^61 - 1


NAMES = {"nobody": (), "prover": (0,), "left": (0, 2), "right": (0, 1)}


def body(values: FinalValues) -> bytes:
    return np.array(values.elements(), dtype="<u8").tobytes()


def named(stated, left, right) -> tuple[int, ...]:
    def fits(one: bytes, other: bytes) -> bool:
        sides = [np.frombuffer(data, dtype="<u8").tolist() for data in (one, other)]
        return values_fit(*(FinalValues(side, claim, tuple(rest)) for side, claim, *rest in sides), FIELD_61)

    return judged(body(left), body(right), (body(stated[0]), body(stated[1])), fits).parties


def test_honest_proofs_are_accepted() -> None:
    for words, layout in (
        (1, PUBLIC_LAYOUT),
        (1, SMALL_LAYOUT),
        (4, SMALL_LAYOUT),
        (37, SMALL_LAYOUT),
        (5000, PUBLIC_LAYOUT),
    ):
        trial = Trial(Gates.random(words, np.random.default_rng(words)), layout, FIELD_61, random.Random(words))
        assert trial.run()
        assert trial.stated == (trial.left, trial.right)
        assert named(trial.stated, trial.left, trial.right) == NAMES["nobody"]


def test_any_wrong_gate_is_rejected_and_proves_the_prover() -> None:
    rng = random.Random(1)
    for wrong in [1] * 10 + [2, 3, 17, 256]:
        gates = Gates.random(4, np.random.default_rng(wrong))
        for place in rng.sample(range(256), wrong):
            gates.z[0][place // 64] ^= np.uint64(1 << (place % 64))
        trial = Trial(gates, SMALL_LAYOUT, FIELD_61, rng)
        assert not trial.run()
        assert named(trial.stated, trial.left, trial.right) == NAMES["prover"]


def test_every_altered_share_of_r_is_rejected() -> None:
    rng = random.Random(2)
    gates = Gates.random(4, np.random.default_rng(1))
    proof = AndProof(("test",), 0, 4, SMALL_LAYOUT)
    for level in range(proof.levels):
        for place in range(proof.degrees(level)[1]):

            def alter(at, values, level=level, place=place):
                if at == level:
                    values[place] = (values[place] + 1) % P61
                return values

            trial = Trial(gates, SMALL_LAYOUT, FIELD_61, rng, on_message=alter)
            assert not trial.run()
            assert named(trial.stated, trial.left, trial.right) == NAMES["left"]


def changed(values: FinalValues, place: int) -> FinalValues:
    side, claim, *rest = (value + (at == place) for at, value in enumerate(values.elements()))
    return FinalValues(side % P61, claim % P61, tuple(value % P61 for value in rest))


def test_every_lie_in_the_exchange_is_rejected_and_never_frames_the_prover() -> None:
    trial = Trial(Gates.random(4, np.random.default_rng(3)), SMALL_LAYOUT, FIELD_61, random.Random(3))
    assert trial.run()
    for place in range(len(trial.left.elements())):
        left, right = changed(trial.left, place), changed(trial.right, place)
        assert not values_fit(left, trial.right, FIELD_61)
        assert not values_fit(trial.left, right, FIELD_61)
        assert named(trial.stated, left, trial.right) == NAMES["left"]
        assert named(trial.stated, trial.left, right) == NAMES["right"]
    shorter = FinalValues(trial.right.side, trial.right.claim, trial.right.differences[:-1])
    assert not values_fit(trial.left, shorter, FIELD_61)


def test_field_elements_have_one_form() -> None:
    def shift(level, values):
        return [P61, *values[1:]]

    trial = Trial(Gates.random(1, np.random.default_rng(3)), SMALL_LAYOUT, FIELD_61, random.Random(3), on_message=shift)
    with pytest.raises(PeerProtocolError, match="FIELD_RANGE"):
        trial.run()


class BestCheater(AndProver):
    """Has a wrong gate and hides it as well as can be: at each level an error polynomial with as many roots as possible."""

    off = 0
    rng = random.Random(0)

    def coefficients(self):
        whole = super().coefficients()
        p = self.proof.field.p
        lowest, count = self.proof.degrees(self.level)
        self.lie = [0] * count
        wanted = self._claims[0].value + self._claims[1].value - whole[-lowest]
        if wanted % p:
            self.lie = self.best_lie(wanted % p, lowest, count, p)
        return [(value + lie) % p for value, lie in zip(whole, self.lie, strict=True)]

    def best_lie(self, wanted: int, lowest: int, count: int, p: int) -> list[int]:
        """Laurent polynomial with value `wanted` at degree 0 and count - 1 different nonzero roots."""
        while True:
            poly = [1]
            for root in self.rng.sample(range(1, p), min(count - 1, p - 1)):
                poly = [
                    ((poly[k - 1] if k else 0) - root * (poly[k] if k < len(poly) else 0)) % p
                    for k in range(len(poly) + 1)
                ]
            poly += [0] * (count - len(poly))
            if poly[-lowest]:
                factor = wanted * pow(poly[-lowest], p - 2, p)
                return [value * factor % p for value in poly]


@pytest.mark.parametrize(
    ("p", "layout", "runs"),
    [
        (31, BlockLayout(lanes=4, slots=1, inner=(4, 4), inner_slots=1, last=4), 1200),
        (127, BlockLayout(lanes=4, slots=1, inner=(16, 8), inner_slots=1, last=8), 1200),
        (257, BlockLayout(lanes=8, slots=1, inner=(16, 8), inner_slots=1, last=16), 1200),
        (1031, BlockLayout(lanes=8, slots=1, inner=(16, 8), inner_slots=1, last=16), 1200),
    ],
)
def test_false_accepts_of_the_best_cheater_meet_the_exact_bound(p: int, layout: BlockLayout, runs: int) -> None:
    field, rng = TinyField(p), random.Random(p)
    gates = Gates.random(layout.block_words, np.random.default_rng(p))
    gates.z[0][1] ^= np.uint64(1 << 9)
    proof = AndProof(("test",), 0, layout.block_words, layout, field)
    miss = math.prod(1 - min(proof.degrees(level)[1] - 1, p - 1) / (p - 1) for level in range(proof.levels))
    accepted = sum(Trial(gates, layout, field, rng, BestCheater).run() for _ in range(runs))
    sigma = math.sqrt(runs * miss * (1 - miss))
    assert abs(accepted - runs * (1 - miss)) <= 5 * sigma + 1e-9


def test_honest_proofs_are_accepted_in_tiny_fields_and_p_wrong_gates_are_invisible_there() -> None:
    layout = BlockLayout(lanes=4, slots=1, inner=(16, 8), inner_slots=1, last=8)
    field, rng = TinyField(127), random.Random(4)
    gates = Gates.random(4, np.random.default_rng(4))
    assert all(Trial(gates, layout, field, rng).run() for _ in range(50))
    for place in range(127):
        gates.z[0][place // 64] ^= np.uint64(1 << (place % 64))
    assert Trial(gates, layout, field, rng).run()  # why a batch must have fewer than p gates
