"""Addition and subtraction mod 2^64, in blocks that stay in the processor's cache.

The `_into` forms write into their first argument and allocate nothing, so that a sum over many owners needs one vector.
"""

from __future__ import annotations

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.ring.types import RingArray

__all__ = ["BLOCK_LANES", "add", "add_into", "check_ring", "negate", "sub", "sub_into", "zeros"]

BLOCK_LANES = 16384
"""Lanes per block: 128 KiB per operand, so two operands fit a 512 KiB cache."""


def zeros(lanes: int) -> RingArray:
    """Return a vector of zeros."""
    return np.zeros(lanes, dtype=np.uint64)


def check_ring(values: object, lanes: int | None = None) -> RingArray:
    """Return `values` unchanged if it is a ring vector (of `lanes` lanes).

    Raises:
        LocalProtocolError: RING_TYPE for another type, dtype, shape or layout; RING_LENGTH for another length.
    """
    if not isinstance(values, np.ndarray) or values.dtype != np.uint64 or values.ndim != 1:
        got = (
            f"{values.dtype} with {values.ndim} dimensions" if isinstance(values, np.ndarray) else type(values).__name__
        )
        raise LocalProtocolError("RING_TYPE", "not a ring vector", expected="uint64 with 1 dimension", got=got)
    if not values.flags.c_contiguous:
        raise LocalProtocolError("RING_TYPE", "a ring vector must be contiguous")
    if lanes is not None and len(values) != lanes:
        raise LocalProtocolError(
            "RING_LENGTH", "ring vectors of different lengths", expected=f"{lanes} lanes", got=f"{len(values)} lanes"
        )
    return values


def add_into(total: RingArray, values: RingArray) -> None:
    """Add `values` to `total` in place, lane by lane mod 2^64; raises RING_TYPE, RING_LENGTH."""
    check_ring(total)
    check_ring(values, len(total))
    for start in range(0, len(total), BLOCK_LANES):
        block = slice(start, start + BLOCK_LANES)
        np.add(total[block], values[block], out=total[block])


def sub_into(total: RingArray, values: RingArray) -> None:
    """Subtract `values` from `total` in place, lane by lane mod 2^64; raises RING_TYPE, RING_LENGTH."""
    check_ring(total)
    check_ring(values, len(total))
    for start in range(0, len(total), BLOCK_LANES):
        block = slice(start, start + BLOCK_LANES)
        np.subtract(total[block], values[block], out=total[block])


def add(left: RingArray, right: RingArray) -> RingArray:
    """Return a new vector left + right mod 2^64."""
    total = check_ring(left).copy()
    add_into(total, right)
    return total


def sub(left: RingArray, right: RingArray) -> RingArray:
    """Return a new vector left - right mod 2^64."""
    total = check_ring(left).copy()
    sub_into(total, right)
    return total


def negate(values: RingArray) -> RingArray:
    """Return a new vector -values mod 2^64."""
    total = zeros(len(check_ring(values)))
    sub_into(total, values)
    return total
