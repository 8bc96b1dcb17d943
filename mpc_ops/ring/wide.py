"""Arithmetic in Z_2^128 as pairs of uint64 arrays, vectorised: what proofs about products mod 2^64 are stated in.

numpy has no 128-bit integer. A `Wide` holds the low and the high word in two arrays of one shape; sums carry by comparison,
products of words split into 32-bit halves, and matrix products run on 16-bit limbs in float64, which is exact while
columns * 2^32 < 2^53. Rings 2^k with k < 128 (tests with visible error rates, 32-bit gates) use the same arithmetic: 2^k
divides 2^128, so a value is reduced only where it is compared or sent (`reduce`).

Nothing here depends on a value: no branch, no index and no early end looks at an element.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError, PeerProtocolError

__all__ = [
    "WIDE_BYTES",
    "Wide",
    "add",
    "cross",
    "dot_words",
    "equal",
    "fold",
    "from_bytes",
    "from_ints",
    "from_words",
    "mul",
    "mul_words",
    "negate",
    "outer",
    "reduce",
    "segment_sums",
    "segment_sums_words",
    "shift_left",
    "shift_right",
    "sub",
    "to_bytes",
    "to_ints",
    "total",
    "zeros",
]

WIDE_BYTES = 16
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_LIMBS = 8
_LIMB_BITS = 16
_COLUMN_CHUNK = 2048
"""Columns per matrix product: limbs of 8 lanes are 1 MiB of float64."""
_TILE = 64
_BLAS_WORK = _TILE**3
"""OpenBLAS starts threads above so many multiplications; they would fight the other parties' and the operator's own ones."""
_FLUSH_COLUMNS = 1 << 20
"""Partial sums of 32-bit products stay below 2^52."""

Words = NDArray[np.uint64]
"""uint64 words of any shape."""


@dataclass(frozen=True, slots=True)
class Wide:
    """Elements of Z_2^128: `low` + 2^64 * `high`; both arrays of one shape and dtype uint64."""

    low: Words
    high: Words

    def __post_init__(self) -> None:
        if self.low.dtype != np.uint64 or self.high.dtype != np.uint64 or self.low.shape != self.high.shape:
            raise LocalProtocolError("RING_TYPE", "a wide vector is two uint64 arrays of one shape")

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, index: int | slice | tuple[int | slice, ...]) -> Wide:
        return Wide(np.asarray(self.low[index]), np.asarray(self.high[index]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of both arrays."""
        return self.low.shape

    def reshape(self, *shape: int) -> Wide:
        """Return the same elements in another shape."""
        return Wide(self.low.reshape(shape), self.high.reshape(shape))

    def __repr__(self) -> str:
        return f"Wide(shape={self.low.shape}, <redacted>)"


def zeros(*shape: int) -> Wide:
    """Return zeros of a shape."""
    return Wide(np.zeros(shape, dtype=np.uint64), np.zeros(shape, dtype=np.uint64))


def from_words(words: Words) -> Wide:
    """Return words below 2^64 as wide elements; the low array is `words` itself."""
    return Wide(words, np.zeros_like(words))


def from_ints(values: list[int]) -> Wide:
    """Return Python integers mod 2^128 as a vector."""
    mask = (1 << 64) - 1
    low = np.array([value & mask for value in values], dtype=np.uint64)
    return Wide(low, np.array([(value >> 64) & mask for value in values], dtype=np.uint64))


def to_ints(values: Wide) -> list[int]:
    """Return the elements, flattened, as Python integers in [0, 2^128)."""
    pairs = zip(values.low.ravel().tolist(), values.high.ravel().tolist(), strict=True)
    return [low | high << 64 for low, high in pairs]


def to_bytes(values: Wide, element_bytes: int = WIDE_BYTES) -> bytes:
    """Return little-endian elements, flattened; the caller has reduced them to fit `element_bytes`."""
    out = np.empty((values.low.size, 2), dtype="<u8")
    out[:, 0], out[:, 1] = values.low.ravel(), values.high.ravel()
    return out.view(np.uint8).reshape(-1, WIDE_BYTES)[:, :element_bytes].tobytes()


def from_bytes(data: bytes | memoryview, elements: int, element_bytes: int = WIDE_BYTES) -> Wide:
    """Read exactly `elements` little-endian elements of `element_bytes` bytes.

    Raises:
        PeerProtocolError: LENGTH_INVALID for any other number of bytes.
    """
    if len(data) != elements * element_bytes:
        raise PeerProtocolError(
            "LENGTH_INVALID",
            "wrong number of bytes",
            expected=f"{elements * element_bytes} bytes",
            got=f"{len(data)} bytes",
        )
    raw = np.zeros((elements, WIDE_BYTES), dtype=np.uint8)
    raw[:, :element_bytes] = np.frombuffer(data, dtype=np.uint8).reshape(elements, element_bytes)
    words = raw.view("<u8").astype(np.uint64)
    return Wide(np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1]))


def reduce(values: Wide, bits: int) -> Wide:
    """Return the elements mod 2^bits, 1 <= bits <= 128."""
    if bits == 128:
        return values
    if bits <= 64:
        return Wide(values.low & np.uint64((1 << bits) - 1), np.zeros_like(values.high))
    return Wide(values.low, values.high & np.uint64((1 << (bits - 64)) - 1))


def equal(left: Wide, right: Wide) -> bool:
    """Say whether all elements are equal; every element is looked at. Broadcasts nothing."""
    if left.shape != right.shape:
        return False
    return not bool(np.bitwise_or.reduce((left.low ^ right.low) | (left.high ^ right.high), axis=None))


def add(left: Wide, right: Wide) -> Wide:
    """Return left + right mod 2^128."""
    low = np.asarray(left.low + right.low)
    return Wide(low, np.asarray(left.high + right.high + (low < right.low)))


def sub(left: Wide, right: Wide) -> Wide:
    """Return left - right mod 2^128."""
    low = np.asarray(left.low - right.low)
    return Wide(low, np.asarray(left.high - right.high - (left.low < right.low)))


def negate(values: Wide) -> Wide:
    """Return -values mod 2^128."""
    return sub(zeros(*values.shape), values)


def mul_words(left: Words, right: Words) -> Wide:
    """Return the exact 128-bit products of 64-bit words."""
    a, b = left & _LOW, left >> _HALF
    c, d = right & _LOW, right >> _HALF
    middle = a * d + (a * c >> _HALF)
    cross_low = b * c + (middle & _LOW)
    return Wide(np.asarray(left * right), np.asarray(b * d + (middle >> _HALF) + (cross_low >> _HALF)))


def mul(left: Wide, right: Wide) -> Wide:
    """Return left * right mod 2^128."""
    product = mul_words(left.low, right.low)
    return Wide(product.low, np.asarray(product.high + left.low * right.high + left.high * right.low))


def shift_left(values: Wide, bits: int) -> Wide:
    """Return values * 2^bits mod 2^128, 0 <= bits < 128."""
    if bits == 0:
        return values
    if bits >= 64:
        return Wide(np.zeros_like(values.low), np.asarray(values.low << np.uint64(bits - 64)))
    carried = values.low >> np.uint64(64 - bits)
    return Wide(np.asarray(values.low << np.uint64(bits)), np.asarray(values.high << np.uint64(bits) | carried))


def shift_right(values: Wide, bits: int) -> Wide:
    """Return floor(values / 2^bits) of the representatives in [0, 2^128), 0 <= bits < 128."""
    if bits == 0:
        return values
    if bits >= 64:
        return Wide(np.asarray(values.high >> np.uint64(bits - 64)), np.zeros_like(values.high))
    carried = values.high << np.uint64(64 - bits)
    return Wide(np.asarray(values.low >> np.uint64(bits) | carried), np.asarray(values.high >> np.uint64(bits)))


def total(values: Wide) -> Wide:
    """Return the sum of all elements, shape (1,); up to 2^32 of them."""
    low = (values.low & _LOW).sum(dtype=np.uint64, keepdims=True).reshape(1)
    upper = (values.low >> _HALF).sum(dtype=np.uint64, keepdims=True).reshape(1)
    high = values.high.sum(dtype=np.uint64, keepdims=True).reshape(1)
    return add(Wide(low, high), shift_left(from_words(upper), 32))


def segment_sums_words(values: Words, ends: NDArray[np.int64]) -> Words:
    """Return sums mod 2^64 of consecutive segments; `ends` are their ends, ascending; a segment may be empty."""
    running = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum(values, dtype=np.uint64, out=running[1:])
    at_ends = running[ends]
    # Differences of wrapping running sums are the segments' sums mod 2^64, whatever wrapped in between.
    return np.diff(at_ends, prepend=np.uint64(0))


def segment_sums(values: Wide, ends: NDArray[np.int64]) -> Wide:
    """Return sums mod 2^128 of consecutive segments of fewer than 2^32 elements each; a segment may be empty."""
    low = from_words(segment_sums_words(values.low & _LOW, ends))
    upper = from_words(segment_sums_words(values.low >> _HALF, ends))
    high = segment_sums_words(values.high, ends)
    return add(Wide(low.low, high), shift_left(upper, 32))


def dot_words(left: Words, right: Words) -> Wide:
    """Return the sum of left[j] * right[j] mod 2^128, shape (1,), in blocks that stay in the cache."""
    out = zeros(1)
    for start in range(0, len(left), 8192):
        out = add(out, total(mul_words(left[start : start + 8192], right[start : start + 8192])))
    return out


def _limbs(values: Wide, limbs: int = _LIMBS) -> NDArray[np.float64]:
    """Return the lowest 16-bit limbs of a (rows, columns) matrix as (limbs * rows, columns), row-major by (row, limb)."""
    rows, columns = values.shape
    out = np.empty((rows, limbs, columns), dtype=np.float64)
    for base, words in ((0, values.low), (4, values.high))[: limbs // 4]:
        parts = np.ascontiguousarray(words, dtype="<u8").view("<u2").reshape(rows, columns, 4)
        out[:, base : base + 4] = parts.transpose(0, 2, 1)
    return out.reshape(rows * limbs, columns)


def cross(left: Wide, right: Wide, *, right_words: bool = False) -> Wide:
    """Return left @ right^T mod 2^128, exactly.

    Args:
        left: shape (p, n).
        right: shape (q, n); n of any size: partial sums are collected before float64 would round.
        right_words: the high words of `right` are zeros by construction and are not looked at.

    Returns:
        Shape (p, q).
    """
    rows, columns = left.shape
    across = right.shape[0]
    limbs = 4 if right_words else _LIMBS
    out = zeros(rows, across)
    sums = np.zeros((rows * _LIMBS, across * limbs))
    pending = 0
    for start in range(0, columns, _COLUMN_CHUNK):
        stop = min(start + _COLUMN_CHUNK, columns)
        if pending + stop - start > _FLUSH_COLUMNS:
            out, sums, pending = add(out, _recombine(sums, rows, across)), np.zeros_like(sums), 0
        sums += _gram(_limbs(left[:, start:stop]), _limbs(right[:, start:stop], limbs))
        pending += stop - start
    return add(out, _recombine(sums, rows, across))


def _times(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return left @ right as a stack of small products."""
    rows, inner = left.shape
    columns = right.shape[1]
    block = max(1, _BLAS_WORK // (rows * inner))
    whole = columns // block * block
    out = np.empty((rows, columns))
    if whole:
        stack = right[:, :whole].reshape(inner, -1, block).transpose(1, 0, 2)
        np.matmul(left, stack, out=out[:, :whole].reshape(rows, -1, block).transpose(1, 0, 2))
    if whole < columns:
        np.matmul(left, right[:, whole:], out=out[:, whole:])
    return out


def _gram(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return left @ right^T as sums of small products of at most 64 x 64 x 64."""
    rows, across = len(left), len(right)
    one, two = _tiles(left), _tiles(right)
    products: NDArray[np.float64] = np.matmul(one[:, np.newaxis], two[np.newaxis].transpose(0, 1, 2, 4, 3))
    stacked: NDArray[np.float64] = products.sum(axis=2)
    height, width = stacked.shape[2:]
    whole: NDArray[np.float64] = stacked.transpose(0, 2, 1, 3).reshape(len(one) * height, len(two) * width)
    return whole[:rows, :across]


def _tiles(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a matrix as (row tiles, column tiles, at most 64, 64), padded with zeros."""
    height = min(_TILE, len(matrix))
    rows, columns = -(-len(matrix) // height), -(-matrix.shape[1] // _TILE)
    if matrix.shape != (rows * height, columns * _TILE):
        padded = np.zeros((rows * height, columns * _TILE))
        padded[: matrix.shape[0], : matrix.shape[1]] = matrix
        matrix = padded
    return matrix.reshape(rows, height, columns, _TILE).transpose(0, 2, 1, 3)


def outer(left: Wide, right: Wide) -> Wide:
    """Return left[i] * right[j] mod 2^128, shape (p, q), of two vectors."""
    one = Wide(left.low[:, np.newaxis], left.high[:, np.newaxis])
    return mul(one, Wide(right.low[np.newaxis], right.high[np.newaxis]))


def _recombine(sums: NDArray[np.float64], rows: int, across: int) -> Wide:
    parts = sums.astype(np.uint64).reshape(rows, _LIMBS, across, -1)
    limbs = parts.shape[3]
    diagonals = np.zeros((_LIMBS, rows, across), dtype=np.uint64)
    for weight in range(_LIMBS):
        for limb in range(max(0, weight - limbs + 1), weight + 1):
            diagonals[weight] += parts[:, limb, :, weight - limb]
    return _carried(diagonals)


def _carried(sums: Words) -> Wide:
    """Return the sum of sums[w] * 2^(16 w) mod 2^128 over the first axis of 8."""
    low, high = sums[0].copy(), np.zeros(sums.shape[1:], dtype=np.uint64)
    for weight in range(1, 4):
        part = sums[weight] << np.uint64(_LIMB_BITS * weight)
        low += part
        high += low < part
        high += sums[weight] >> np.uint64(64 - _LIMB_BITS * weight)
    for weight in range(4, _LIMBS):
        high += sums[weight] << np.uint64(_LIMB_BITS * weight - 64)
    return Wide(low, high)


def fold(coefficients: Wide, values: Wide, *, words: bool = False) -> Wide:
    """Return coefficients^T @ values mod 2^128, exactly.

    Args:
        coefficients: shape (p,), p <= 2^16.
        values: shape (p, n).
        words: the high words of `values` are zeros by construction and are not looked at.

    Returns:
        Shape (n,).
    """
    columns = values.shape[1]
    limbs = 4 if words else _LIMBS
    weights = _fold_weights(coefficients, limbs)
    low, high = np.empty(columns, dtype=np.uint64), np.empty(columns, dtype=np.uint64)
    for start in range(0, columns, _COLUMN_CHUNK):
        stop = min(start + _COLUMN_CHUNK, columns)
        out = _carried(_times(weights, _limbs(values[:, start:stop], limbs)).astype(np.uint64))
        low[start:stop], high[start:stop] = out.low, out.high
    return Wide(low, high)


def _fold_weights(coefficients: Wide, limbs: int) -> NDArray[np.float64]:
    """Return the matrix (8, limbs * p) that collects all limb products of one weight in one row."""
    rows = len(coefficients)
    own = _limbs(coefficients.reshape(rows, 1)).reshape(rows, _LIMBS)
    out = np.zeros((_LIMBS, rows, limbs))
    for weight in range(_LIMBS):
        for limb in range(min(weight + 1, limbs)):
            out[weight, :, limb] = own[:, weight - limb]
    return out.reshape(_LIMBS, rows * limbs)
