"""Compiled kernels of products mod 2^64 against numpy: sizes, ragged and empty batches, edge values."""

from __future__ import annotations

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.kernels import calls
from mpc_ops.protocol.proofs import ring_claim as claims
from mpc_ops.protocol.proofs.ring_claim import RING_64, GateView, RingParams
from mpc_ops.ring.wide import Wide
from tests.support.kernels import both, needs_compiled, words

pytestmark = needs_compiled

KINDS = ["random", "edges", "ones"]


def same(pair: tuple[Wide, Wide]) -> bool:
    expected, got = pair
    return np.array_equal(expected.low, got.low) and np.array_equal(expected.high, got.high)


def wide_of(generator: np.random.Generator, count: int, kind: str) -> Wide:
    return Wide(words(generator, count, kind), words(generator, count, kind))


def segments(generator: np.random.Generator, terms: int, form: str) -> np.ndarray:
    if form == "plain":
        return np.arange(1, terms + 1, dtype=np.int64)
    if form == "one":
        return np.array([terms], dtype=np.int64)
    cuts = np.sort(generator.integers(0, terms + 1, terms // 3 + 2))  # many segments are empty
    return np.append(cuts, terms).astype(np.int64)


@pytest.mark.parametrize("form", ["plain", "one", "several"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("terms", [0, 1, 7, 63, 64, 65, 129, 9000])
def test_carries_sums_and_level_one(terms: int, kind: str, form: str) -> None:
    generator = np.random.default_rng(terms)
    ends = segments(generator, terms, form)
    own, following = (GateView(words(generator, terms, kind), words(generator, terms, kind), ends) for _ in range(2))
    left, right, c = (words(generator, len(ends), kind) for _ in range(3))
    for params in (RING_64, RingParams(32, 96, 64), RingParams(64, 128, 40)):
        expected, got = both(lambda p=params: claims.carries(own, following, left, right, p), 0)
        assert np.array_equal(expected, got)
        assert same(both(lambda p=params: claims.weighted_left(c, left, right, p), 0))
        assert same(both(lambda p=params: claims.weighted_right(c, left, right, p), 0))
    u = claims.first_level(own.x, own.y, c, ends)
    v = claims.first_level(following.y, following.x, None, ends)
    assert same(both(lambda: claims.matrix(u, v), 0))
    coefficients = wide_of(generator, 8, kind)
    for level in (u, v):
        assert same(both(lambda side=level: claims.fold_level(side, coefficients), 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lanes", [1, 5, 16, 32, 64])
@pytest.mark.parametrize("size", [1, 8, 16, 127, 128, 1000, 20_000])
def test_later_levels(size: int, lanes: int, kind: str) -> None:
    generator = np.random.default_rng(size)
    u, v = (claims.next_level(wide_of(generator, size, kind), lanes) for _ in range(2))
    assert same(both(lambda: claims.matrix(u, v), 0))
    coefficients = wide_of(generator, lanes, kind)
    assert same(both(lambda: claims.fold_level(u, coefficients), 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 33, 512])
def test_the_last_level(rows: int, kind: str) -> None:
    generator = np.random.default_rng(rows)
    a, b = wide_of(generator, rows, kind), wide_of(generator, rows, kind)
    square = wide_of(generator, rows * rows, kind).reshape(rows, rows)
    assert same(both(lambda: claims.combine(a, square, b), 0))
    assert same(both(lambda: claims.inner(a, b), 0))


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_products_and_their_messages(size: int) -> None:
    generator = np.random.default_rng(size)
    x0, x1, y0, y1, r0, r1 = (words(generator, size, "random") for _ in range(6))
    z, left = calls.ring_products((x0, x1), (y0, y1), (r0, r1))
    assert np.array_equal(z, x0 * y0 + x0 * y1 + x1 * y0 + r0 - r1)
    assert np.array_equal(left, x0 * y0 + r0 - z)
    assert np.array_equal(calls.ring_lefts(x1, y1, r1, z), x1 * y1 + r1 - z)


W = np.zeros(64, dtype=np.uint64)
ENDS = np.arange(1, 65, dtype=np.int64)
BAD_CALLS = {
    "segments beyond": lambda: calls.ring_carries((W, W), (W, W), ENDS + 1, W, W),
    "segments descend": lambda: calls.ring_carries((W, W), (W, W), ENDS[::-1].copy(), W, W),
    "negative segment": lambda: calls.ring_carries((W, W), (W, W), ENDS - 2, W, W),
    "segments of another type": lambda: calls.ring_carries((W, W), (W, W), W, W, W),
    "factors differ": lambda: calls.ring_carries((W, W), (W, W[:63].copy()), ENDS, W, W),
    "weights differ": lambda: calls.ring_matrix_first((W, W), W[:63].copy(), (W, W)),
    "few coefficients": lambda: calls.ring_fold_first((W, W), None, (W[:7], W[:7])),
    "too many lanes": lambda: calls.ring_matrix((W, W), (W, W), 65),
    "sides differ": lambda: calls.ring_matrix((W, W), (W, W[:8].copy()), 8),
    "many coefficients": lambda: calls.ring_fold((W, W), (np.zeros(65, np.uint64), np.zeros(65, np.uint64))),
    "matrix of another shape": lambda: calls.ring_bilinear((W, W), (W.reshape(8, 8), W.reshape(8, 8)), (W, W)),
    "masks differ": lambda: calls.ring_products((W, W), (W, W), (W, W[:1].copy())),
    "lefts differ": lambda: calls.ring_lefts(W, W, W, W[:1].copy()),
    "claims differ": lambda: calls.ring_weighted(W, W, W[:1].copy(), minus=True),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_arguments_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="KERNEL_ARGUMENT"):
        BAD_CALLS[name]()
