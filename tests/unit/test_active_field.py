"""The field of 2^61 - 1 and bit-planes against Python integers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.ring.field61 import FIELD_61, P61
from mpc_ops.ring.planes import clear_tail, from_planes, public_planes, tail_mask, to_planes, transpose_bits, words_for
from tests.support.active import TinyField

EDGES = [0, 1, 2, P61 - 1, P61 - 2, 1 << 60, (1 << 32) - 1, 1 << 32, (1 << 29) - 1, (1 << 61) - 2]
RNG = random.Random(3)
SAMPLE = EDGES + [RNG.randrange(P61) for _ in range(54)]


def arr(values):
    return np.array(values, dtype=np.uint64)


def test_reduce_covers_every_word() -> None:
    words = [0, P61 - 1, P61, P61 + 1, 2 * P61 - 1, 2 * P61, 2**64 - 1, 7 * P61, 8 * P61, 8 * P61 - 1]
    assert FIELD_61.reduce(arr(words)).tolist() == [word % P61 for word in words]


def test_mul_and_dot_are_exact_for_all_pairs_of_edges() -> None:
    left, right = np.repeat(arr(SAMPLE), len(SAMPLE)), np.tile(arr(SAMPLE), len(SAMPLE))
    expected = [a * b % P61 for a in SAMPLE for b in SAMPLE]
    assert FIELD_61.mul(left, right).tolist() == expected
    assert FIELD_61.dot(left, right) == sum(expected) % P61
    assert FIELD_61.dot(arr([]), arr([])) == 0


@pytest.mark.parametrize("field", [FIELD_61, TinyField(1031)], ids=["2^61-1", "1031"])
@pytest.mark.parametrize(("lanes", "columns"), [(1, 1), (4, 7), (8, 64), (16, 33), (8, 4097)])
def test_cross_and_combine_are_exact(field, lanes: int, columns: int) -> None:
    values = [value % field.p for value in SAMPLE] + [field.p - 1] * 8
    left = arr([RNG.choice(values) for _ in range(lanes * columns)]).reshape(lanes, columns)
    right = arr([RNG.choice(values) for _ in range(lanes * columns)]).reshape(lanes, columns)
    weights = [RNG.choice(values) for _ in range(lanes)]
    a, b = left.astype(object), right.astype(object)
    expected = [0] * (2 * lanes - 1)
    for i in range(lanes):
        for j in range(lanes):
            expected[i - j + lanes - 1] += int((a[i] * b[j]).sum())
    assert field.cross(left, right) == [value % field.p for value in expected]
    combined = [int(value) % field.p for value in (np.array(weights, dtype=object)[:, None] * a).sum(axis=0)]
    assert field.combine(left, weights).tolist() == combined


def test_worst_case_limbs_stay_exact() -> None:
    top = np.full((8, 5000), P61 - 1, dtype=np.uint64)
    expected = [(8 - abs(d)) * 5000 * (P61 - 1) ** 2 % P61 for d in range(-7, 8)]
    assert FIELD_61.cross(top, top) == expected


def test_polynomials() -> None:
    left, right = SAMPLE[:20], SAMPLE[5:37]
    product = [0] * (len(left) + len(right) - 1)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            product[i + j] += a * b
    assert FIELD_61.convolve(arr(left), arr(right)).tolist() == [value % P61 for value in product]
    point = 1234567
    for lowest in (-5, 0, 3):
        expected = sum(c * pow(point, lowest + k, P61) for k, c in enumerate(left)) % P61
        assert FIELD_61.evaluate(arr(left), lowest, point) == expected
    assert FIELD_61.powers(point, 4).tolist() == [pow(point, k, P61) for k in range(4)]
    assert FIELD_61.inverse(point) * point % P61 == 1
    assert FIELD_61.uniform(arr([5, 1, P61, 0])).tolist() == [(5 + (1 << 64)) % P61, 0]


def test_transposition_swaps_rows_and_bits() -> None:
    rows = np.random.default_rng(1).integers(0, 1 << 64, (2, 64, 3), dtype=np.uint64)
    turned = rows.copy()
    transpose_bits(turned)
    for block, row, column in ((0, 0, 1), (1, 63, 2), (1, 5, 0)):
        for bit in (0, 7, 63):
            assert (int(turned[block, row, column]) >> bit) & 1 == (int(rows[block, bit, column]) >> row) & 1
    transpose_bits(turned)
    assert np.array_equal(turned, rows)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 129, 64 * 300 + 1])
@pytest.mark.parametrize("width", [0, 1, 17, 64])
def test_planes_round_trip(count: int, width: int) -> None:
    values = np.random.default_rng(2).integers(0, 1 << 64, count, dtype=np.uint64)
    kept = values & np.uint64((1 << width) - 1)
    planes = to_planes(values, width)
    assert planes.shape == (width, words_for(count))
    assert np.array_equal(from_planes(planes, count), kept)
    if count and width:
        assert (int(planes[0, 0]) & 1) == int(values[0]) & 1
    assert np.array_equal(clear_tail(planes, count), planes)


def test_tails_and_public_planes() -> None:
    assert int(tail_mask(64)) == int(tail_mask(0)) == 2**64 - 1
    assert int(tail_mask(3)) == 7
    full = np.full((2, 2), 2**64 - 1, dtype=np.uint64)
    assert clear_tail(full, 65)[0].tolist() == [2**64 - 1, 1]
    assert from_planes(public_planes(5, 3, 70), 70).tolist() == [5] * 70
    for bad in (lambda: public_planes(8, 3, 1), lambda: public_planes(-1, 3, 1), lambda: words_for(-1),
                lambda: to_planes(arr([1]), 65), lambda: from_planes(full, 64), lambda: from_planes(arr([1]), 1)):  # fmt: skip
        with pytest.raises(LocalProtocolError, match="PLANES_INVALID"):
            bad()
