"""Arithmetic in Z_2^64: vectors of uint64, signed encoding with declared bounds, little-endian bytes.

A *lane* is an index of such a vector. All vectors are one-dimensional, contiguous and of dtype uint64; anything else is a
bug of the caller and raises LocalProtocolError RING_TYPE instead of being converted silently.
"""

from mpc_ops.ring.arithmetic import BLOCK_LANES, add, add_into, check_ring, negate, sub, sub_into, zeros
from mpc_ops.ring.coding import SIGNED_LIMIT, as_body, decode_signed, encode_signed, from_body, from_bytes, to_bytes
from mpc_ops.ring.types import LANE_BYTES, RingArray, SignedArray

__all__ = [
    "BLOCK_LANES",
    "LANE_BYTES",
    "SIGNED_LIMIT",
    "RingArray",
    "SignedArray",
    "add",
    "add_into",
    "as_body",
    "check_ring",
    "decode_signed",
    "encode_signed",
    "from_body",
    "from_bytes",
    "negate",
    "sub",
    "sub_into",
    "to_bytes",
    "zeros",
]
