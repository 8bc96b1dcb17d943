"""Signed integers to ring elements and back, and ring vectors to bytes and back."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from mpc_ops.errors import Abort, LocalDataError, PeerProtocolError
from mpc_ops.ring.arithmetic import check_ring
from mpc_ops.ring.types import LANE_BYTES, RingArray, SignedArray

__all__ = ["SIGNED_LIMIT", "as_body", "decode_signed", "encode_signed", "from_body", "from_bytes", "to_bytes"]

SIGNED_LIMIT = 1 << 63
SMALL_BODY = 64 << 10
_LITTLE = np.dtype("<u8")
_NATIVE = sys.byteorder == "little"


def encode_signed(values: SignedArray | Sequence[int], low: int, high: int) -> RingArray:
    """Encode signed integers as elements of Z_2^64 (two's complement).

    Args:
        values: shape (n,); int64 array or Python integers of any size.
        low: declared lower bound, inclusive.
        high: declared upper bound, inclusive; both within [-2^63, 2^63).

    Raises:
        LocalDataError: VALUE_OUT_OF_RANGE with the first lane that is outside; the value itself is never named.
    """
    _check_bounds(low, high)
    if isinstance(values, np.ndarray):
        if values.dtype != np.int64 or values.ndim != 1:
            raise LocalDataError(
                "VALUE_TYPE", "values must be one vector of int64", got=f"{values.dtype} with {values.ndim} dimensions"
            )
        outside = np.flatnonzero((values < low) | (values > high))
        first = int(outside[0]) if len(outside) else None
        array = values
    else:
        first = next((lane for lane, value in enumerate(values) if not low <= value <= high), None)
        array = np.array([] if first is not None else list(values), dtype=np.int64)
    if first is not None:
        raise LocalDataError(
            "VALUE_OUT_OF_RANGE",
            "a value is outside its declared bounds",
            expected=f"{low} to {high}",
            ids={"lane": first},
        )
    return np.ascontiguousarray(array).view(np.uint64).copy()


def decode_signed(values: RingArray, low: int, high: int) -> SignedArray:
    """Decode elements of Z_2^64 as signed integers and insist on the declared bounds (inclusive).

    Raises:
        Abort: VALUE_OUT_OF_RANGE with the first lane outside: some owner left its contract, or a sum wrapped.
    """
    _check_bounds(low, high)
    signed = check_ring(values).view(np.int64)
    outside = np.flatnonzero((signed < low) | (signed > high))
    if len(outside):
        raise Abort(
            "VALUE_OUT_OF_RANGE",
            "a result lies outside the bounds that the plan proves",
            expected=f"{low} to {high}",
            ids={"lane": int(outside[0]), "lanes_outside": len(outside)},
        )
    return signed.copy()


def _check_bounds(low: int, high: int) -> None:
    if not -SIGNED_LIMIT <= low <= high < SIGNED_LIMIT:
        raise LocalDataError("BOUNDS_INVALID", "bounds must be ordered and fit 64 bits", got=f"{low} to {high}")


def to_bytes(values: RingArray) -> bytes:
    """Return 8 little-endian bytes per lane."""
    return check_ring(values).astype(_LITTLE, copy=False).tobytes()


def from_bytes(data: bytes | bytearray | memoryview, lanes: int) -> RingArray:
    """Read exactly `lanes` lanes; the result is a fresh, writable vector.

    Raises:
        PeerProtocolError: LENGTH_INVALID for any other number of bytes.
    """
    if len(data) != lanes * LANE_BYTES:
        raise PeerProtocolError(
            "LENGTH_INVALID", "wrong number of bytes", expected=f"{lanes * LANE_BYTES} bytes", got=f"{len(data)} bytes"
        )
    return np.frombuffer(data, dtype=_LITTLE).astype(np.uint64)


def as_body(values: RingArray) -> bytes | memoryview:
    """Return what `to_bytes` returns, long vectors without copying them: the vector must never change afterwards."""
    if check_ring(values).nbytes <= SMALL_BODY or not _NATIVE:
        return to_bytes(values)
    return values.data.cast("B").toreadonly()


def from_body(data: bytes | bytearray | memoryview, lanes: int) -> RingArray:
    """Return what `from_bytes` returns, a long memory view without copying it: the vector must not be written to.

    Raises:
        PeerProtocolError: LENGTH_INVALID for any other number of bytes.
    """
    if isinstance(data, memoryview) and _NATIVE and len(data) == lanes * LANE_BYTES:
        values = np.frombuffer(data, dtype=np.uint64)
        if values.flags.aligned:
            values.flags.writeable = False
            return values
    return from_bytes(data, lanes)
