"""The mathematics of recipe B: products mod 2^g as claims mod 2^k, their rows, folds and the error bound.

For output j of prover i, with L = P_{i-1}, R = P_{i+1} and terms t of the (dot) product j:

    l_j = (sum x_i y_i + r_i - z_i) mod 2^g                          known to P_i and L
    w_j = sum (x_i y_{i+1} + y_i x_{i+1}) + l_j - r_{i+1}  mod 2^k   right exactly if 2^g divides it
    w_j = 2^g q_j  mod 2^k                                           the carry q_j counts mod 2^(k-g) only

so a dot product may have any length: w_j wraps mod 2^k and stays a multiple of 2^g. With weights c_j of k - g bits that are
drawn after the carries were committed, one claim remains, sum_j c_j (x_i y_{i+1} + y_i x_{i+1})_j = T_L + T_R, where

    T_L = sum c_j (2^g q^L_j - l_j)          T_R = sum c_j (2^g q^R_j + r_{i+1,j})

u = (c x_i | c y_i) and v = (y_{i+1} | x_{i+1}) are then cut in rows and folded with random coefficients of both verifiers.
Layout (public, fixed): a block is `lanes` rows x 8 elements; level 1 has 8 lanes, 16 columns a block (8 of x, 8 of y), later
levels 8 columns a block; zeros fill the last block.

Everything here is local, deterministic and free of data-dependent branches; proof_ring.py has the roles and the messages. The
compiled kernels (mpc_ops.kernels) do the same work where they are there, from the words as they lie, without limbs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.kernels import calls, compiled
from mpc_ops.ring import RingArray, wide
from mpc_ops.ring.wide import Wide

__all__ = [
    "LANES",
    "LAST_ROWS",
    "MAX_FOLDS",
    "MAX_LOG2_BOUND",
    "MAX_OUTPUT_TERMS",
    "RING_32",
    "RING_64",
    "FactorView",
    "GateView",
    "Level",
    "RingParams",
    "carries",
    "check_bound",
    "combine",
    "first_level",
    "fold_level",
    "folds_of",
    "inner",
    "last_level",
    "lefts",
    "level_lanes",
    "log2_bound",
    "matrix",
    "next_level",
    "trace",
    "weighted_left",
    "weighted_right",
]

LANES = (8, 16, 32, 16)
"""Rows per level before the last one; a small batch stops early."""
LAST_ROWS = 32
"""Once at most so many elements are left, they are the rows of the last level."""
MAX_FOLDS = 5
"""Folds including the last one."""
MAX_LOG2_BOUND = -49.0
MAX_OUTPUT_TERMS = 1 << 24
"""Terms of one dot product: then the last level has at most 512 rows."""
_SLOT = 8
_CHUNK = 8192
_BLOCKS = 256


@dataclass(frozen=True, slots=True)
class RingParams:
    """Gates mod 2^gate_bits, claims mod 2^claim_bits, carries shared mod 2^carry_bits (claim - gate bits unless given).

    A narrower carry makes honest proofs fail and is there for the test that shows it.
    """

    gate_bits: int = 64
    claim_bits: int = 128
    carry_bits: int = 64
    repetitions: int = 2

    def __post_init__(self) -> None:
        if not (1 <= self.gate_bits <= 64 and self.gate_bits < self.claim_bits <= 128 and 1 <= self.carry_bits <= 64):
            raise LocalProtocolError("RING_PARAMS", "a ring of another size", got=f"{self.gate_bits}/{self.claim_bits}")
        if self.repetitions < 1:
            raise LocalProtocolError("RING_PARAMS", "a proof has at least one repetition", got=self.repetitions)

    @property
    def element_bytes(self) -> int:
        """Bytes of an element of the claim ring."""
        return -(-self.claim_bits // 8)

    @property
    def carry_bytes(self) -> int:
        """Bytes of a carry."""
        return -(-self.carry_bits // 8)

    def gate(self, words: RingArray) -> RingArray:
        """Return words mod 2^gate_bits."""
        return words if self.gate_bits == 64 else words & np.uint64((1 << self.gate_bits) - 1)

    def carry(self, words: RingArray) -> RingArray:
        """Return words mod 2^carry_bits."""
        return words if self.carry_bits == 64 else words & np.uint64((1 << self.carry_bits) - 1)

    def claim(self, values: Wide) -> Wide:
        """Return elements mod 2^claim_bits."""
        return wide.reduce(values, self.claim_bits)


RING_64 = RingParams()
"""Z_2^64 products, claims over Z_2^128, two repetitions."""
RING_32 = RingParams(gate_bits=32, claim_bits=96, carry_bits=64)
"""Z_2^32 products, claims over Z_2^96, two repetitions."""


# ------------------------------------------------------------------------------------------------------- error bound


@cache
def _tail(variables: int, at_least: int) -> float:
    """P[a sum of `variables` geometric(1/2) variables (0, 1, ...) is >= `at_least`]: a negative binomial tail."""
    if at_least <= 0:
        return 1.0
    flips = at_least + variables - 1
    # The float64 quotient of these integers is rounded once.
    return sum(math.comb(flips, successes) for successes in range(variables)) / (1 << flips)


def log2_bound(params: RingParams, folds: int) -> float:
    """Return log2 of the probability that a wrong batch passes, for the best cheater.

    A weight of k - g bits takes t of the k - (g - 1) bits of slack with probability 2^-(t+1) (all of it, c = 0, with
    2^-(k-g)); each fold takes two geometric(1/2) variables of the rest; the repetitions share weights and first matrix and
    draw their own fold coefficients.
    """
    slack = params.claim_bits - (params.gate_bits - 1)
    weight_bits = params.claim_bits - params.gate_bits
    terms = [2.0**-weight_bits]
    terms += [2.0 ** -(t + 1) * _tail(2 * folds, slack - t) ** params.repetitions for t in range(weight_bits)]
    return math.log2(math.fsum(terms))


def check_bound(params: RingParams, folds: int) -> None:
    """Refuse a configuration that proves too little.

    Raises:
        LocalProtocolError: RING_PROOF_WEAK for more than MAX_FOLDS folds, carries of another width than claim - gate bits
            (honest proofs fail, or an error hides in the carry), or a bound above 2^-49.
    """
    bound = log2_bound(params, folds)
    if folds > MAX_FOLDS or params.carry_bits != params.claim_bits - params.gate_bits or bound > MAX_LOG2_BOUND:
        raise LocalProtocolError(
            "RING_PROOF_WEAK",
            "these rings, repetitions and folds prove too little",
            expected=f"at most {MAX_FOLDS} folds and 2^{MAX_LOG2_BOUND:.0f}",
            got=f"{folds} folds, 2^{bound:.1f}, {params.gate_bits}/{params.claim_bits}/{params.carry_bits} bits",
        )


@cache
def level_lanes(terms: int) -> tuple[int, ...]:
    """Return the lanes of every level, the number of rows of the last one included (without its random row)."""
    left = 2 * _SLOT * max(1, -(-terms // (LANES[0] * _SLOT)))
    out = [LANES[0]]
    for lanes in LANES[1:]:
        if left <= LAST_ROWS:
            break
        out.append(lanes)
        left = _SLOT * -(-left // (lanes * _SLOT))
    return (*out, left)


def folds_of(terms: int) -> int:
    """Return the number of folds for a batch of so many terms."""
    return len(level_lanes(terms))


# ------------------------------------------------------------------------------------------------------------- gates


class FactorView(ABC):
    """What two parties know of both factors of a batch: one component of each, in a form that a claim can be made of."""

    __slots__ = ()

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of outputs."""

    @property
    @abstractmethod
    def terms(self) -> int:
        """Terms, from which the sizes of all messages follow."""

    @property
    @abstractmethod
    def held_bytes(self) -> int:
        """Bytes that the view holds until the proof."""

    @abstractmethod
    def first_left(self, weights: RingArray) -> Level:
        """Return level 1 of u from this component and the weights of the outputs."""

    @abstractmethod
    def first_right(self) -> Level:
        """Return level 1 of v from this component."""

    @abstractmethod
    def carries(self, following: FactorView, l_part: RingArray, r_next: RingArray, params: RingParams) -> RingArray:
        """Return the carries, shape (outputs,), from this component i and the `following` one; see `carries`."""


@dataclass(frozen=True, slots=True)
class GateView(FactorView):
    """Factors term by term.

    Attributes:
        x, y: shape (terms,); the same component of both factors.
        ends: shape (outputs,), int64; output j is the sum of terms [ends[j-1], ends[j]).
    """

    x: RingArray
    y: RingArray
    ends: NDArray[np.int64]

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return len(self.ends)

    @property
    def terms(self) -> int:
        """Number of terms."""
        return len(self.x)

    @property
    def held_bytes(self) -> int:
        """Bytes of the factors: 16 a term."""
        return self.x.nbytes + self.y.nbytes

    def first_left(self, weights: RingArray) -> Level:
        """Return level 1 of (c x | c y)."""
        return first_level(self.x, self.y, weights, self.ends)

    def first_right(self) -> Level:
        """Return level 1 of (y | x)."""
        return first_level(self.y, self.x, None, self.ends)

    def carries(self, following: FactorView, l_part: RingArray, r_next: RingArray, params: RingParams) -> RingArray:
        """Return the carries; see the function `carries`."""
        assert isinstance(following, GateView)  # noqa: S101 - both components of a batch are views of one kind
        return carries(self, following, l_part, r_next, params)

    @property
    def plain(self) -> bool:
        """Whether every output is one product."""
        if len(self.x) != len(self.ends):
            return False
        counting = np.arange(1, min(len(self.ends), _CHUNK) + 1, dtype=np.int64)
        return all(
            np.array_equal(self.ends[start : start + _CHUNK] - start, counting[: len(self.ends) - start])
            for start in range(0, len(self.ends), _CHUNK)
        )

    def __repr__(self) -> str:
        return f"GateView(terms={len(self.x)}, outputs={self.outputs}, <redacted>)"


def _chunks(ends: NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Yield (outputs, terms) in pieces of about _CHUNK terms; an output is never cut."""
    first, start = 0, 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, start + _CHUNK, side="right")))
        last = min(last, first + _CHUNK)
        stop = int(ends[last - 1])
        yield slice(first, last), slice(start, stop)
        first, start = last, stop


def _sums(values: Wide, ends: NDArray[np.int64], plain: bool) -> Wide:  # noqa: FBT001
    return values if plain else wide.segment_sums(values, ends)


def lefts(view: GateView, r: RingArray, z: RingArray, params: RingParams) -> RingArray:
    """Return l_j = (sum x y + r - z) mod 2^g from the component that prover and left verifier hold; shape (outputs,)."""
    products = view.x * view.y
    sums = products if view.plain else wide.segment_sums_words(products, view.ends)
    return params.gate(sums + r - z)


def carries(own: GateView, following: GateView, l_part: RingArray, r_next: RingArray, params: RingParams) -> RingArray:
    """Return q_j mod 2^carry_bits: w_j mod 2^k without its g low bits, which are 0 for an honest prover.

    Args:
        own: component i of the factors.
        following: component i + 1.
        l_part: what `lefts` gives.
        r_next: the zero-sharing word r_{i+1}.
        params: the rings.
    """
    if compiled() and (params.gate_bits, params.claim_bits) == (64, 128):
        factors = (own.x, own.y), (following.x, following.y)
        return params.carry(calls.ring_carries(*factors, own.ends, l_part, r_next))
    out = np.empty(own.outputs, dtype=np.uint64)
    plain = own.plain
    before = 0
    for outputs, terms in _chunks(own.ends):
        products = wide.add(
            wide.mul_words(own.x[terms], following.y[terms]), wide.mul_words(own.y[terms], following.x[terms])
        )
        w = _sums(products, own.ends[outputs] - before, plain)
        w = wide.sub(wide.add(w, wide.from_words(l_part[outputs])), wide.from_words(r_next[outputs]))
        out[outputs] = wide.shift_right(params.claim(w), params.gate_bits).low
        before = terms.stop
    return params.carry(out)


def weighted_left(c: RingArray, q_left: RingArray, l_part: RingArray, params: RingParams) -> Wide:
    """Return T_L = sum c (2^g q^L - l), shape (1,)."""
    if compiled() and params.gate_bits == 64:
        return Wide(*calls.ring_weighted(c, q_left, l_part, minus=True))
    return wide.sub(wide.shift_left(wide.dot_words(c, q_left), params.gate_bits), wide.dot_words(c, l_part))


def weighted_right(c: RingArray, q_right: RingArray, r_next: RingArray, params: RingParams) -> Wide:
    """Return T_R = sum c (2^g q^R + r_{i+1}), shape (1,)."""
    if compiled() and params.gate_bits == 64:
        return Wide(*calls.ring_weighted(c, q_right, r_next, minus=False))
    return wide.add(wide.shift_left(wide.dot_words(c, q_right), params.gate_bits), wide.dot_words(c, r_next))


# ---------------------------------------------------------------------------------------------------- rows and folds


@dataclass(frozen=True, slots=True)
class Level:
    """One side's vector of a level: `rows(start, stop)` gives blocks [start, stop) as a (lanes, columns) matrix.

    Level 1 keeps 64-bit words and weights and multiplies them as they are read; later levels hold wide elements. The last block
    may be ragged: it is filled with zeros as it is read.
    """

    lanes: int
    blocks: int
    values: Wide | None = None
    x: RingArray | None = None
    y: RingArray | None = None
    weights: RingArray | None = None

    @property
    def words(self) -> bool:
        """Whether the elements are words without weights."""
        return self.values is None and self.weights is None

    def rows(self, start: int, stop: int) -> Wide:
        """Return the matrix of some blocks: column = block * width + position in the block."""
        if self.values is not None:
            size = self.lanes * _SLOT
            cut = (stop - start, self.lanes, _SLOT)
            low, high = (
                _padded(part[start * size : stop * size], size * (stop - start)).reshape(cut)
                for part in (self.values.low, self.values.high)
            )
            return Wide(_matrix_of(low, self.lanes), _matrix_of(high, self.lanes))
        assert self.x is not None and self.y is not None  # noqa: S101, PT018 - level 1 has words instead of values
        size = LANES[0] * _SLOT
        terms = slice(start * size, stop * size)
        shape = (stop - start, LANES[0], 1, _SLOT)
        count = size * (stop - start)
        words = np.concatenate([_padded(part[terms], count).reshape(shape) for part in (self.x, self.y)], axis=2)
        if self.weights is None:
            return wide.from_words(_matrix_of(words, LANES[0]))
        product = wide.mul_words(words, _padded(self.weights[terms], count).reshape(shape))
        return Wide(_matrix_of(product.low, LANES[0]), _matrix_of(product.high, LANES[0]))

    def __repr__(self) -> str:
        return f"Level(lanes={self.lanes}, blocks={self.blocks}, <redacted>)"


def _matrix_of(words: NDArray[np.uint64], lanes: int) -> NDArray[np.uint64]:
    return np.ascontiguousarray(np.moveaxis(words, 1, 0)).reshape(lanes, -1)


def _padded(words: RingArray, size: int) -> RingArray:
    if len(words) == size:
        return words
    out = np.zeros(size, dtype=np.uint64)
    out[: len(words)] = words
    return out


def first_level(x: RingArray, y: RingArray, weights: RingArray | None, ends: NDArray[np.int64]) -> Level:
    """Return level 1 of (c x | c y), or of (x | y) without weights.

    Args:
        x: shape (terms,); x_i, or y_{i+1} for v.
        y: shape (terms,); y_i, or x_{i+1} for v.
        weights: c, shape (outputs,); the weight of an output stands before each of its terms.
        ends: as in GateView.
    """
    blocks = max(1, -(-len(x) // (LANES[0] * _SLOT)))
    if weights is not None and not GateView(x, y, ends).plain:
        weights = np.repeat(weights, np.diff(ends, prepend=0))
    return Level(LANES[0], blocks, x=x, y=y, weights=weights)


def next_level(values: Wide, lanes: int) -> Level:
    """Return an inner level of folded elements."""
    return Level(lanes, -(-len(values) // (lanes * _SLOT)), values=values)


def last_level(values: Wide, mask: Wide) -> Wide:
    """Return the last level, one element a row: those left, then the random row `mask` of shape (1,)."""
    return Wide(np.concatenate([values.low, mask.low]), np.concatenate([values.high, mask.high]))


def matrix(u: Level, v: Level) -> Wide:
    """Return U V^T, shape (lanes, lanes)."""
    if compiled():
        return _compiled_matrix(u, v)
    out = wide.zeros(u.lanes, u.lanes)
    for start in range(0, u.blocks, _BLOCKS):
        stop = min(start + _BLOCKS, u.blocks)
        out = wide.add(out, wide.cross(u.rows(start, stop), v.rows(start, stop), right_words=v.words))
    return out


def _compiled_matrix(u: Level, v: Level) -> Wide:
    if u.values is not None and v.values is not None:
        return Wide(*calls.ring_matrix((u.values.low, u.values.high), (v.values.low, v.values.high), u.lanes))
    assert u.x is not None and u.y is not None and u.weights is not None  # noqa: S101, PT018 - level 1 has words
    assert v.x is not None and v.y is not None  # noqa: S101, PT018 - as above
    return Wide(*calls.ring_matrix_first((u.x, u.y), u.weights, (v.x, v.y)))


def _compiled_fold(level: Level, coefficients: tuple[RingArray, RingArray]) -> Wide:
    if level.values is not None:
        return Wide(*calls.ring_fold((level.values.low, level.values.high), coefficients))
    assert level.x is not None and level.y is not None  # noqa: S101, PT018 - level 1 has words instead of values
    return Wide(*calls.ring_fold_first((level.x, level.y), level.weights, coefficients))


def fold_level(level: Level, coefficients: Wide) -> Wide:
    """Return sum_a coefficients[a] * row a of every block: the next level's elements, in order of blocks."""
    if compiled():
        return _compiled_fold(level, (coefficients.low, coefficients.high))
    parts = [
        wide.fold(coefficients, level.rows(start, min(start + _BLOCKS, level.blocks)), words=level.words)
        for start in range(0, level.blocks, _BLOCKS)
    ]
    return Wide(np.concatenate([part.low for part in parts]), np.concatenate([part.high for part in parts]))


def trace(square: Wide, rows: int) -> Wide:
    """Return the sum of the first `rows` diagonal elements, shape (1,); the random row is no part of the claim."""
    index = np.arange(rows)
    return wide.total(Wide(square.low[index, index], square.high[index, index]))


def inner(left: Wide, right: Wide) -> Wide:
    """Return the inner product of two vectors, shape (1,)."""
    if compiled():
        one = np.ones(1, dtype=np.uint64), np.zeros(1, dtype=np.uint64)
        row = left.low[np.newaxis], left.high[np.newaxis]
        return Wide(*calls.ring_bilinear(one, row, (right.low, right.high)))
    return wide.total(wide.mul(left, right))


def combine(a: Wide, square: Wide, b: Wide) -> Wide:
    """Return a^T M b, shape (1,)."""
    if compiled():
        return Wide(*calls.ring_bilinear((a.low, a.high), (square.low, square.high), (b.low, b.high)))
    return wide.total(wide.mul(wide.fold(a, square), b))
