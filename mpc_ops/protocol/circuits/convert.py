"""Conversions between Boolean shares and shares over Z_2^64: B2A, A2B, bit injection.

A shared bit is b = b_0 ^ b_1 ^ b_2. Each b_c is known to both holders of component c, so its arithmetic sharing (b_0, 0, 0),
(0, b_1, 0), (0, 0, b_2) costs nothing and neither holder can falsify it alone: each uses its own copy. The rest is two
products, since b ^ c = b + c - 2 b c.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.compare import arithmetic_bits
from mpc_ops.protocol.circuits.products import dots, multiply, segment_sums, times_public
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import aligned_blocks, cut_block
from mpc_ops.protocol.core.shares import BooleanPlanes, R, RingVector, check_boolean, check_ring_share, ring_of
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.ring import RingArray
from mpc_ops.ring.planes import PlaneArray, from_planes

__all__ = ["bits_to_ring", "inject", "inject_sums", "planes_to_ring", "ring_to_bits", "values_to_ring"]


_BLOCK_BITS = 1 << 22


def _flat_bits(planes: PlaneArray, count: int) -> RingArray:
    """Return all bits as 0 or 1, plane after plane."""
    if len(planes) == 0:
        return np.zeros(0, dtype=np.uint64)
    return np.concatenate([from_planes(planes[bit : bit + 1], count) for bit in range(len(planes))])


def _component(stage: ComputeStage, bits: tuple[RingArray, RingArray], component: int) -> RingVector:
    """Return the share whose component `component` is b_component and whose others are 0."""
    first, second = bits
    empty = np.zeros(len(first), dtype=np.uint64)
    following = (stage.party + 1) % 3
    return ring_of(
        stage,
        first if stage.party == component else empty,
        second if following == component else empty.copy(),
    )


def _xor(x: R, y: R, product: R) -> R:
    return x.plus(y).minus(product.plus(product))


def planes_to_ring(stage: ComputeStage, bits: BooleanPlanes) -> Steps[RingVector]:
    """Return the share over Z_2^64 of every bit, 0 or 1.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage, active or passive.
        bits: n values of w bits.

    Returns:
        Shape (w * n,), plane after plane: bit 0 of all values first.

    Rounds: 2.  Sent: 16 w n bytes per party.
    Security: as `multiply` (malicious with abort in an active stage); two logged products a bit, no other message.
    Leaks: n and w.

    Raises:
        LocalProtocolError: SHARE_FOREIGN, STAGE_ORDER, BATCH_TOO_LARGE.
    """
    check_boolean(stage, bits)
    flat = _flat_bits(bits.first, bits.count), _flat_bits(bits.second, bits.count)
    parts = [_component(stage, flat, component) for component in range(3)]
    product = yield from multiply(stage, parts[0], parts[1])
    two = _xor(parts[0], parts[1], product)
    product = yield from multiply(stage, two, parts[2])
    return _xor(two, parts[2], product)


def bits_to_ring(stage: ComputeStage, bit: BooleanPlanes) -> Steps[RingVector]:
    """Return the share over Z_2^64 of one bit per value, shape (n,). B2A of bits.

    Rounds: 2.  Sent: 16 n bytes per party.  Security, errors: as `planes_to_ring`.  Leaks: n.

    Raises:
        LocalProtocolError: PLANES_INVALID for a share of another width.
    """
    _one_bit(bit)
    result = yield from planes_to_ring(stage, bit)
    return result


def values_to_ring(stage: ComputeStage, values: BooleanPlanes, *, signed: bool = False) -> Steps[RingVector]:
    """Return the share over Z_2^64 of w-bit values, shape (n,). B2A.

    Args:
        stage: a computing stage.
        values: n values of 1 to 64 bits.
        signed: the highest bit counts -2^(w-1) instead of 2^(w-1) (two's complement).

    Rounds: 2 for each block of about 2^22 / w rows, so that memory stays bounded.  Sent: 16 w n bytes per party.
    Security, errors: as `planes_to_ring`.  Leaks: n and w.
    """
    check_boolean(stage, values)
    parts: list[RingVector] = []
    for rows in aligned_blocks(values.count, _BLOCK_BITS // max(1, values.width)):
        part = yield from _block_to_ring(stage, cut_block(values, rows), signed=signed)
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    first, second = (np.concatenate([getattr(part, side) for part in parts]) for side in ("first", "second"))
    return replace(parts[0], first=first, second=second)


def _block_to_ring(stage: ComputeStage, values: BooleanPlanes, *, signed: bool) -> Steps[RingVector]:
    width, count = values.width, values.count
    flat = yield from planes_to_ring(stage, values)
    total = replace(flat, first=np.zeros(count, dtype=np.uint64), second=np.zeros(count, dtype=np.uint64))
    for bit in range(width):
        plane = slice(bit * count, (bit + 1) * count)
        part = times_public(flat[plane], np.full(count, 1 << bit, dtype=np.uint64))
        total = total.minus(part) if signed and bit == width - 1 else total.plus(part)
    return total


def ring_to_bits(stage: ComputeStage, x: RingVector, width: int = 64) -> Steps[BooleanPlanes]:
    """Return the Boolean share of the lowest `width` bits of every element. A2B.

    The components' bits are Boolean sharings that cost nothing; a carry-save step and a prefix adder add them
    (compare.arithmetic_bits). Several conversions and comparisons share their rounds through boolean.evaluate.

    Rounds: the depth of `compare.arithmetic_bits`, 2 + ceil(log2(width - 2)) from 3 bits on: 8 for 64 bits.  Sent: 8 ceil(n/64)
        bytes per party for each of its ANDs: 426, 53.25 bytes an element, for 64 bits.
    Security: as AND: in an active stage its gates are logged and proven by recipe A.  Leaks: n and width.

    Raises:
        LocalProtocolError: SHARE_FOREIGN, STAGE_ORDER, PLANES_INVALID for a width outside 1 to 64.
    """
    check_ring_share(stage, x)
    (bits,) = yield from evaluate(stage, "ring-to-bits", [arithmetic_bits(x, width)])
    return bits


def inject(stage: ComputeStage, bit: BooleanPlanes, x: RingVector) -> Steps[RingVector]:
    """Return the share of b*x lane by lane: x where the bit is 1, else 0.

    Rounds: 3 (none if n = 0).  Sent: 24 n bytes per party.  Security, errors: as `bits_to_ring`, `multiply`.  Leaks: n.
    """
    _same_count(bit, x)
    flag = yield from bits_to_ring(stage, bit)
    result = yield from multiply(stage, flag, x)
    return result


def inject_sums(
    stage: ComputeStage, bit: BooleanPlanes, x: RingVector, ends: NDArray[np.int64]
) -> Steps[tuple[RingVector, RingVector]]:
    """Return the shares of SUM(b*x) and of COUNT(b) over consecutive segments (`ends` as in products.dots).

    Rounds: 3 (2 less if n = 0, 1 less if m = 0).  Sent: 16 n + 8 m bytes per party for n lanes and m segments; the count costs nothing
        more.
    Security, errors: as `bits_to_ring`, `dots`.  Leaks: n and the segments.
    """
    _same_count(bit, x)
    flag = yield from bits_to_ring(stage, bit)
    sums = yield from dots(stage, flag, x, ends)
    return sums, segment_sums(flag, ends)


def _one_bit(bit: BooleanPlanes) -> None:
    if bit.width != 1:
        raise LocalProtocolError("PLANES_INVALID", "one bit per value is wanted", expected=1, got=bit.width)


def _same_count(bit: BooleanPlanes, x: RingVector) -> None:
    _one_bit(bit)
    if bit.count != x.count:
        raise LocalProtocolError("RING_LENGTH", "a bit per lane is wanted", expected=x.count, got=bit.count)
