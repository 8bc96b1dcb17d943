"""Arithmetic in Z_2^128 against Python integers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mpc_ops.errors import ComityError
from mpc_ops.ring import wide

MOD = 1 << 128
EDGES = [0, 1, 2, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, (1 << 127), MOD - 1]


def values(seed: int, count: int, bits: int = 128) -> list[int]:
    rnd = random.Random(seed)
    out = [edge % (1 << bits) for edge in EDGES] + [rnd.getrandbits(rnd.randrange(1, bits + 1)) for _ in range(count)]
    rnd.shuffle(out)
    return out[:count]


@pytest.mark.parametrize("count", [0, 1, 257])
def test_sums_products_and_negation_are_those_of_integers(count: int) -> None:
    a, b = values(1, count), values(2, count)
    wa, wb = wide.from_ints(a), wide.from_ints(b)
    assert wide.to_ints(wide.add(wa, wb)) == [(x + y) % MOD for x, y in zip(a, b, strict=True)]
    assert wide.to_ints(wide.sub(wa, wb)) == [(x - y) % MOD for x, y in zip(a, b, strict=True)]
    assert wide.to_ints(wide.mul(wa, wb)) == [x * y % MOD for x, y in zip(a, b, strict=True)]
    assert wide.to_ints(wide.negate(wa)) == [-x % MOD for x in a]
    assert wide.to_ints(wide.total(wa)) == [sum(a) % MOD]


def test_every_pair_of_edge_words_multiplies_exactly() -> None:
    pairs = [(x, y) for x in EDGES for y in EDGES if x < 1 << 64 and y < 1 << 64]
    left = np.array([x for x, _ in pairs], dtype=np.uint64)
    right = np.array([y for _, y in pairs], dtype=np.uint64)
    assert wide.to_ints(wide.mul_words(left, right)) == [x * y for x, y in pairs]
    assert wide.to_ints(wide.dot_words(left, right)) == [sum(x * y for x, y in pairs) % MOD]


@pytest.mark.parametrize("bits", [0, 1, 15, 16, 32, 63, 64, 65, 96, 127])
def test_shifts(bits: int) -> None:
    a = values(3, 60)
    assert wide.to_ints(wide.shift_left(wide.from_ints(a), bits)) == [x << bits & MOD - 1 for x in a]
    assert wide.to_ints(wide.shift_right(wide.from_ints(a), bits)) == [x >> bits for x in a]


@pytest.mark.parametrize("bits", [1, 8, 16, 24, 32, 64, 65, 96, 128])
def test_reduction_and_bytes_of_smaller_rings(bits: int) -> None:
    a = values(4, 60)
    reduced = wide.reduce(wide.from_ints(a), bits)
    assert wide.to_ints(reduced) == [x % (1 << bits) for x in a]
    size = -(-bits // 8)
    data = wide.to_bytes(reduced, size)
    assert len(data) == 60 * size
    assert wide.equal(wide.from_bytes(data, 60, size), reduced)
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(ComityError) as caught:
            wide.from_bytes(wrong, 60, size)
        assert caught.value.code == "LENGTH_INVALID"


def test_equal_sees_one_bit_of_either_word_and_another_shape() -> None:
    a = wide.from_ints(values(5, 20))
    for bit in (0, 63, 64, 127):
        other = wide.from_ints([x ^ (1 << bit if j == 7 else 0) for j, x in enumerate(wide.to_ints(a))])
        assert not wide.equal(a, other)
    assert not wide.equal(a, a.reshape(4, 5))
    assert wide.equal(a, wide.from_ints(wide.to_ints(a)))


@pytest.mark.parametrize(("p", "q", "n"), [(1, 1, 1), (8, 8, 16), (3, 5, 0), (2, 3, 2049), (33, 33, 1), (32, 9, 130)])
def test_matrix_products_are_exact(p: int, q: int, n: int) -> None:
    a, b = values(6, p * n), values(7, q * n)
    got = wide.cross(wide.from_ints(a).reshape(p, n), wide.from_ints(b).reshape(q, n))
    want = [sum(a[i * n + t] * b[j * n + t] for t in range(n)) % MOD for i in range(p) for j in range(q)]
    assert wide.to_ints(got) == want
    words = wide.from_words(wide.from_ints(b).low).reshape(q, n)
    got = wide.cross(wide.from_ints(a).reshape(p, n), words, right_words=True)
    assert wide.equal(got, wide.cross(wide.from_ints(a).reshape(p, n), words))
    if n == 1:
        assert wide.to_ints(wide.outer(wide.from_ints(a), wide.from_ints(b))) == want
    coefficients = values(8, p)
    narrow = wide.from_words(wide.from_ints(a).low).reshape(p, n)
    got = wide.fold(wide.from_ints(coefficients), narrow, words=True)
    assert wide.equal(got, wide.fold(wide.from_ints(coefficients), narrow))
    folded = wide.fold(wide.from_ints(coefficients), wide.from_ints(a).reshape(p, n))
    assert wide.to_ints(folded) == [sum(coefficients[i] * a[i * n + t] for i in range(p)) % MOD for t in range(n)]


def test_the_largest_values_stay_exact_across_a_flush_of_partial_sums() -> None:
    columns = (1 << 20) + 4096
    full = np.full((1, columns), (1 << 64) - 1, dtype=np.uint64)
    most = wide.Wide(full, full)
    assert wide.to_ints(wide.cross(most, most)) == [columns % MOD]


def test_segments_may_be_ragged_and_empty() -> None:
    a = values(9, 100)
    ends = [0, 1, 1, 40, 40, 99, 100]
    want = [sum(a[s:e]) for s, e in zip([0, *ends], ends, strict=False)]
    got = wide.segment_sums(wide.from_ints(a), np.array(ends, dtype=np.int64))
    assert wide.to_ints(got) == [x % MOD for x in want]
    words = np.array([x % (1 << 64) for x in a], dtype=np.uint64)
    assert wide.segment_sums_words(words, np.array(ends, dtype=np.int64)).tolist() == [x % (1 << 64) for x in want]
    empty = np.array([], dtype=np.int64)
    assert len(wide.segment_sums(wide.zeros(0), empty)) == 0


def test_other_dtypes_and_unequal_shapes_are_refused_and_nothing_is_printed() -> None:
    good = np.zeros(3, dtype=np.uint64)
    for low, high in ((good, good[:2]), (good.astype(np.int64), good)):
        with pytest.raises(ComityError) as caught:
            wide.Wide(low, high)
        assert caught.value.code == "RING_TYPE"
    assert repr(wide.Wide(good, good)) == "Wide(shape=(3,), <redacted>)"
