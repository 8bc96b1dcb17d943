"""The first fold of a large batch is put off: the same coefficients and values, in less memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mpc_ops.kernels import calls, using
from mpc_ops.protocol.proofs import and_vector
from mpc_ops.protocol.proofs.and_kernels import PUBLIC_LAYOUT, BlockLayout
from mpc_ops.protocol.proofs.and_vector import GateVector, cross_level
from mpc_ops.ring.field61 import FIELD_61
from tests.support.active import Gates, TinyField

MANY = 1 << 30
COINS = (12345, 678, 2**60 + 7, 99, 5, 31, 2, 8)


def sides(words: int, layout: BlockLayout):
    gates = Gates.random(words, np.random.default_rng(words))
    return gates.left(0, layout), gates.right(0, layout)


def told(layout: BlockLayout, field, left, right):
    """Coefficients of every level, what is left at the last one, and its values."""
    lanes = layout.levels(len(left.x))[0]
    u, v = (GateVector(side, lanes, layout, field, right=place == 1) for place, side in enumerate((left, right)))
    out, waited = [], []
    for level in range(len(lanes)):
        out.append(cross_level(u, v))
        rho = COINS[level % len(COINS)] % (field.p - 1) + 1
        u.fold(rho)
        v.fold(rho)
        waited.append(u.gates is not None)
    return [out, u.elements.tolist(), v.elements.tolist(), u.at(17, 3), v.at(17, 3)], waited


@pytest.mark.parametrize("backend", ["numpy", "compiled"] if calls.PRESENT else ["numpy"])
@pytest.mark.parametrize("words", [512, 512 * 3, 512 * 16, 512 * 33])
@pytest.mark.parametrize("chunk", [1, 1024, MANY])
def test_a_fold_that_was_put_off_gives_the_same_messages(monkeypatch, backend, words, chunk):
    left, right = sides(words, PUBLIC_LAYOUT)
    monkeypatch.setattr(and_vector, "_CHUNK_WORDS", chunk)
    monkeypatch.setattr(and_vector, "_SLOW_CHUNK_WORDS", chunk)
    with using(backend):
        monkeypatch.setattr(and_vector, "PUT_OFF_WORDS", MANY)
        expected, waited = told(PUBLIC_LAYOUT, FIELD_61, left, right)
        assert not any(waited)
        monkeypatch.setattr(and_vector, "PUT_OFF_WORDS", 0)
        got, waited = told(PUBLIC_LAYOUT, FIELD_61, left, right)
        assert waited == [len(waited) > 1] + [False] * (len(waited) - 1)
    assert got == expected


@pytest.mark.parametrize(
    ("layout", "words", "waits"),
    [
        (BlockLayout(lanes=4, slots=2, inner=(2, 2), inner_slots=2, last=8), 40, True),
        (BlockLayout(lanes=16, slots=1, inner=(8, 4), inner_slots=8, last=16), 64, True),
        # 64 columns a block, 3 lanes of 8: a block of the second fold would hold two components.
        (BlockLayout(lanes=16, slots=1, inner=(3, 4), inner_slots=8, last=16), 64, False),
        (BlockLayout(lanes=64, slots=8, last=1 << 20), 512, False),
    ],
)
@pytest.mark.parametrize("field", [FIELD_61, TinyField(1031)])
def test_other_layouts_and_fields_as_well(monkeypatch, layout, words, waits, field):
    left, right = sides(words, layout)
    monkeypatch.setattr(and_vector, "_SLOW_CHUNK_WORDS", layout.block_words)
    monkeypatch.setattr(and_vector, "PUT_OFF_WORDS", MANY)
    expected, _ = told(layout, field, left, right)
    monkeypatch.setattr(and_vector, "PUT_OFF_WORDS", 0)
    got, waited = told(layout, field, left, right)
    assert (got, waited[0]) == (expected, waits)


@pytest.mark.skipif(not calls.PRESENT, reason="the tables of numpy's folds are larger than the vector")
def test_a_large_batch_never_holds_its_first_fold():
    words = and_vector.PUT_OFF_WORDS
    left, right = sides(words, PUBLIC_LAYOUT)
    with using("compiled"):
        tracemalloc.start()
        try:
            told(PUBLIC_LAYOUT, FIELD_61, left, right)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    once_folded = 2 * 4 * 8 * words
    assert peak < once_folded / 2
