"""Compiled kernels against numpy: every size class, ragged and empty batches, edge values, every instruction set here."""

from __future__ import annotations

import numpy as np
import pytest

from mpc_ops.kernels import calls
from mpc_ops.protocol.order.shuffle_tags import matrix_tags
from mpc_ops.protocol.proofs.and_kernels import PUBLIC_LAYOUT, Side, cross_gates, fold_gates, pad_words
from mpc_ops.ring.field61 import FIELD_61, P61
from mpc_ops.ring.planes import from_planes, to_planes
from tests.support.kernels import at_level, both, levels, needs_compiled, words

pytestmark = needs_compiled

KINDS = ["random", "edges", "zeros", "ones"]
WORD_COUNTS = [0, 1, 7, 8, 63, 511, 512, 513, 1536, 5000]


def elements(generator: np.random.Generator, count: int, kind: str) -> np.ndarray:
    edges = np.array([0, 1, 2, P61 - 1, P61 - 2, 1 << 60, (1 << 32) - 1], dtype=np.uint64)
    if kind == "edges":
        return generator.choice(edges, count)
    if kind == "ones":
        return np.full(count, P61 - 1, dtype=np.uint64)
    return generator.integers(0, P61 if kind == "random" else 1, count, dtype=np.uint64)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", WORD_COUNTS)
def test_level_one_of_and_proofs(level: int, kind: str, count: int) -> None:
    generator = np.random.default_rng(count)
    left, right = (tuple(words(generator, count, kind) for _ in range(3)) for _ in range(2))
    whole = [Side(*(pad_words([part], PUBLIC_LAYOUT) for part in side)) for side in (left, right)]
    expected, got = both(lambda: cross_gates(*whole, PUBLIC_LAYOUT), level)
    assert got == expected
    with at_level(level):
        assert calls.and_cross(left, right).tolist() == expected  # a ragged block is one that is filled with zeros
    weights = elements(generator, 64, kind)
    for side, padded, is_right in ((left, whole[0], False), (right, whole[1], True)):
        expected, got = both(
            lambda s=padded, r=is_right: fold_gates(s, weights, PUBLIC_LAYOUT, FIELD_61, right=r), level
        )
        assert np.array_equal(got, expected)
        out = np.empty((4, len(padded.x)), dtype=np.uint64)
        with at_level(level):
            calls.and_fold(side, weights, out, right=is_right)
        assert np.array_equal(out.reshape(-1), expected)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("kind", ["random", "edges", "ones"])
@pytest.mark.parametrize("lanes", [1, 3, 8, 16, 33, 64])
@pytest.mark.parametrize("count", [0, 1, 8, 127, 128, 129, 1030])
def test_later_levels_of_and_proofs(level: int, kind: str, lanes: int, count: int) -> None:
    generator = np.random.default_rng(count)
    u, v, weights = (elements(generator, size, kind) for size in (count, count, lanes))
    expected, got = both(lambda: FIELD_61.cross_blocks(u, v, lanes, 8), level)
    assert got == expected
    expected, got = both(lambda: FIELD_61.combine_blocks(u, weights, 8), level)
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("kind", ["random", "edges", "ones"])
@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 513])
def test_polynomials(level: int, kind: str, count: int) -> None:
    generator = np.random.default_rng(count)
    left, right = elements(generator, count, kind), elements(generator, max(1, count - 1), kind)
    for point in (0, 1, P61 - 1, 123456789):
        expected, got = both(lambda p=point: FIELD_61.powers(p, count).tolist(), level)
        assert got == expected == [pow(point, k, P61) for k in range(count)]
        expected, got = both(lambda p=point: FIELD_61.evaluate(left, -3 if p else 0, p), level)
        assert got == expected
    expected, got = both(lambda: FIELD_61.convolve(left, right).tolist(), level)
    assert got == expected
    expected, got = both(lambda: FIELD_61.convolve(right, left).tolist(), level)
    assert got == expected
    expected, got = both(lambda: FIELD_61.dot(left, left[::-1].copy()), level)
    assert got == expected
    drawn = words(generator, 2 * count, kind)
    expected, got = both(lambda: FIELD_61.uniform(drawn).tolist(), level)
    pairs = drawn.reshape(-1, 2).tolist()
    assert got == expected == [(low + (high << 64)) % P61 for low, high in pairs]


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("count", [0, 1, 8, 1000])
def test_words_of_and_messages(level: int, count: int) -> None:
    generator = np.random.default_rng(count)
    x0, x1, y0, y1, r0, r1 = (words(generator, count, "random") for _ in range(6))
    out = np.empty(count, dtype=np.uint64)
    with at_level(level):
        calls.and_words((x0, x1), (y0, y1), (r0, r1), out)
    assert np.array_equal(out, (x0 & (y0 ^ y1)) ^ (x1 & y0) ^ r0 ^ r1)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 511, 512, 513, 1025, 40_000])
def test_bit_planes(level: int, kind: str, count: int) -> None:
    values = words(np.random.default_rng(count), count, kind)
    for width in (0, 1, 33, 64):
        expected, got = both(lambda w=width: to_planes(values, w), level)
        assert np.array_equal(got, expected)
        planes = expected
        if count % 64 and width:
            planes = expected.copy()
            planes[:, -1] |= np.uint64(1 << 63)  # what stands behind the last value does not matter
        expected, got = both(lambda p=planes: from_planes(p, count), level)
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 63, 64, 65, 511, 512, 513, 40_000])
def test_tags_of_rows(level: int, kind: str, count: int) -> None:
    generator = np.random.default_rng(count)
    for width in (0, 1, 33, 64, 70):
        planes = words(generator, width * -(-count // 64), kind).reshape(width, -(-count // 64))
        key = words(generator, width, "edges" if kind == "edges" else "random")
        expected, got = both(lambda p=planes, k=key: matrix_tags(p, count, k), level)
        assert np.array_equal(got, expected)
