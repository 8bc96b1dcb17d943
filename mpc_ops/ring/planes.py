"""Bit-planes: n values of w bits as w planes of ceil(n/64) words; bit v of word k of plane b is bit b of value 64 k + v.

A circuit on planes works on 64 values per instruction and moves exactly the bits it needs. The bits behind the last value
(the ragged tail) may hold anything while computing; `tail_mask` clears them where they could be seen.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.kernels import calls, compiled
from mpc_ops.ring.arithmetic import check_ring
from mpc_ops.ring.types import RingArray

__all__ = [
    "MAX_WIDTH",
    "WORD_BITS",
    "PlaneArray",
    "check_planes",
    "clear_tail",
    "from_planes",
    "public_planes",
    "tail_mask",
    "to_planes",
    "transpose_bits",
    "words_for",
]

PlaneArray: TypeAlias = NDArray[np.uint64]
"""Planes: shape (width, words), dtype uint64, contiguous; plane 0 holds the lowest bits."""

WORD_BITS = 64
MAX_WIDTH = 64
_CHUNK_WORDS = 256
_SWAPS = (
    (32, 0x00000000FFFFFFFF),
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)


def words_for(count: int) -> int:
    """Return how many words hold one bit of each of `count` values."""
    if count < 0:
        raise LocalProtocolError("PLANES_INVALID", "a number of values is negative", got=count)
    return -(-count // WORD_BITS)


def check_planes(planes: object, width: int | None = None, count: int | None = None) -> PlaneArray:
    """Return `planes` unchanged if they are contiguous uint64 planes of that width and number of values.

    Raises:
        LocalProtocolError: PLANES_INVALID.
    """
    if not isinstance(planes, np.ndarray) or planes.dtype != np.uint64 or planes.ndim != 2:
        raise LocalProtocolError("PLANES_INVALID", "not bit-planes", expected="uint64 with 2 dimensions")
    if not planes.flags.c_contiguous:
        raise LocalProtocolError("PLANES_INVALID", "bit-planes must be contiguous")
    expected = (planes.shape[0] if width is None else width, planes.shape[1] if count is None else words_for(count))
    if planes.shape != expected:
        raise LocalProtocolError("PLANES_INVALID", "bit-planes of another shape", expected=expected, got=planes.shape)
    return planes


def transpose_bits(rows: NDArray[np.uint64]) -> None:
    """Transpose 64 x 64 bits in place: shape (..., 64, s); afterwards bit c of row r is what bit r of row c was.

    Every one of the s columns is a matrix of its own; six passes of masked swaps, the same for all data.
    """
    lead, columns = rows.shape[:-2], rows.shape[-1]
    for shift, mask in _SWAPS:
        pairs = rows.reshape(*lead, WORD_BITS // (2 * shift), 2, shift, columns)
        low, high = pairs[..., 0, :, :], pairs[..., 1, :, :]
        moved = low >> np.uint64(shift)
        moved ^= high
        moved &= np.uint64(mask)
        high ^= moved
        moved <<= np.uint64(shift)
        low ^= moved


def to_planes(values: RingArray, width: int) -> PlaneArray:
    """Return the `width` lowest bits of each value as planes; the tail is zero.

    Args:
        values: shape (n,).
        width: 0 to 64; higher bits are dropped.
    """
    _check_width(width)
    count = len(check_ring(values))
    words = words_for(count)
    out = np.zeros((width, words), dtype=np.uint64)
    if compiled():
        calls.to_planes(values, out)
        return out
    for start in range(0, words, _CHUNK_WORDS):
        stop = min(start + _CHUNK_WORDS, words)
        part = np.zeros((stop - start) * WORD_BITS, dtype=np.uint64)
        piece = values[start * WORD_BITS : stop * WORD_BITS]
        part[: len(piece)] = piece
        rows = np.ascontiguousarray(part.reshape(stop - start, WORD_BITS).T)
        transpose_bits(rows)
        out[:, start:stop] = rows[:width]
    return out


def from_planes(planes: PlaneArray, count: int) -> RingArray:
    """Return `count` values, shape (count,), from their planes."""
    check_planes(planes, count=count)
    width, words = planes.shape
    _check_width(width)
    if compiled():
        values = np.empty(count, dtype=np.uint64)
        calls.from_planes(planes, values)
        return values
    out = np.empty(words * WORD_BITS, dtype=np.uint64)
    for start in range(0, words, _CHUNK_WORDS):
        stop = min(start + _CHUNK_WORDS, words)
        rows = np.zeros((WORD_BITS, stop - start), dtype=np.uint64)
        rows[:width] = planes[:, start:stop]
        transpose_bits(rows)
        out[start * WORD_BITS : stop * WORD_BITS] = rows.T.reshape(-1)
    return out[:count].copy()


def public_planes(value: int, width: int, count: int) -> PlaneArray:
    """Return the planes of one public value repeated `count` times.

    Raises:
        LocalProtocolError: PLANES_INVALID if the value does not fit `width` bits.
    """
    _check_width(width)
    if not 0 <= value < 1 << width:
        raise LocalProtocolError("PLANES_INVALID", "a public value does not fit its width", expected=f"{width} bits")
    bits = [(value >> bit) & 1 for bit in range(width)]
    column = np.array([0xFFFFFFFFFFFFFFFF if bit else 0 for bit in bits], dtype=np.uint64).reshape(width, 1)
    return np.ascontiguousarray(np.broadcast_to(column, (width, words_for(count)))).copy()


def tail_mask(count: int) -> np.uint64:
    """Return the mask of the bits in use in the last word (all ones if it is full)."""
    used = count % WORD_BITS
    return np.uint64((1 << used) - 1 if used else 0xFFFFFFFFFFFFFFFF)


def clear_tail(planes: PlaneArray, count: int) -> PlaneArray:
    """Return a copy whose bits behind the last value are zero."""
    out = check_planes(planes, count=count).copy()
    if count % WORD_BITS:
        out[:, -1] &= tail_mask(count)
    return out


def _check_width(width: int) -> None:
    if not 0 <= width <= MAX_WIDTH:
        raise LocalProtocolError("PLANES_INVALID", "a width is out of range", expected="0 to 64", got=width)
