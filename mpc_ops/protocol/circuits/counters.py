"""Products and conversions over Z_2^32: counts of rows at half the traffic of Z_2^64, proven like those.

Gates are mod 2^32, claims mod 2^96 and carries mod 2^64 (recipe B with the rings of protocols.md 2.4: the slack is 65 bits, as
for Z_2^64 gates and claims mod 2^128). A number that reaches 2^32 wraps; use it where a public bound says that it cannot.

A count of bits alone is cheaper still as a Boolean sum (counts.popcount: about one AND a bit); counters are for counts that are
weighted, multiplied or added up over groups afterwards.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.protocol.circuits.products import MAX_OPERATION_TERMS, RingGateLog
from mpc_ops.protocol.core.party import Body, Steps
from mpc_ops.protocol.core.shares import BooleanPlanes, CounterVector, check_boolean, check_counter, counter_of
from mpc_ops.protocol.core.stage import ActiveStage, ComputeStage
from mpc_ops.protocol.proofs.ring_claim import RING_32, GateView, RingParams
from mpc_ops.protocol.proofs.ring_roles import RingBatch
from mpc_ops.ring import RingArray
from mpc_ops.ring.planes import from_planes

__all__ = ["CounterLog", "bits_to_counters", "multiply_counters"]

_BYTES = 4
_MASK = np.uint64(0xFFFFFFFF)


class CounterLog(RingGateLog):
    """Products over Z_2^32 of a stage that are still to be proven."""

    kind: ClassVar[str] = "ring32"
    params: ClassVar[RingParams] = RING_32


def multiply_counters(stage: ComputeStage, x: CounterVector, y: CounterVector) -> Steps[CounterVector]:
    """Multiply two vectors of counters lane by lane.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage, active or passive.
        x: shape (n,).
        y: shape (n,).

    Returns:
        Share of x*y mod 2^32, shape (n,); fresh.

    Rounds: 1 (none if n = 0).  Sent: 4 n bytes per party, to party i-1.
    Security, errors: as `products.multiply`.  Leaks: n.
    """
    check_counter(stage, x)
    check_counter(stage, y)
    stage.computing()
    if x.count != y.count:
        raise LocalProtocolError("RING_LENGTH", "factors of different lengths", expected=x.count, got=y.count)
    if x.count > MAX_OPERATION_TERMS:
        raise LocalProtocolError(
            "BATCH_TOO_LARGE", "too many products in one operation", expected=f"at most {MAX_OPERATION_TERMS}"
        )
    if x.count == 0:
        return x
    r_own, r_next = (mask & _MASK for mask in stage.streams("counter-products", x.count))
    squares = x.first * y.first
    z_own = (squares + x.first * y.second + x.second * y.first + r_own - r_next) & _MASK
    inbound = yield from stage.exchange(
        "counter-products", to_prev=z_own.astype("<u4").tobytes(), expect_next=_BYTES * x.count
    )
    z_next = _read(inbound.from_next, x.count)
    if isinstance(stage, ActiveStage):
        l_own = (squares + r_own - z_own) & _MASK
        l_next = (x.second * y.second + r_next - z_next) & _MASK
        ends = np.arange(1, x.count + 1, dtype=np.int64)
        views = GateView(x.first, y.first, ends), GateView(x.second, y.second, ends)
        stage.log(CounterLog).append(RingBatch(*views, l_own, l_next, r_own, r_next))
        yield from stage.settle()
    return counter_of(stage, z_own, z_next)


def _read(body: Body, count: int) -> RingArray:
    if len(body) != _BYTES * count:
        raise PeerProtocolError(
            "LENGTH_INVALID", "wrong number of bytes", expected=f"{_BYTES * count} bytes", got=f"{len(body)} bytes"
        )
    return np.frombuffer(body, dtype="<u4").astype(np.uint64)


def bits_to_counters(stage: ComputeStage, bit: BooleanPlanes) -> Steps[CounterVector]:
    """Return the share over Z_2^32 of one bit per value, 0 or 1, shape (n,): as `convert.bits_to_ring`, at half the bytes.

    Rounds: 2 (none if n = 0).  Sent: 8 n bytes per party.  Security, errors: as `multiply_counters`.  Leaks: n.

    Raises:
        LocalProtocolError: PLANES_INVALID for a share of another width.
    """
    check_boolean(stage, bit)
    if bit.width != 1:
        raise LocalProtocolError("PLANES_INVALID", "one bit per value is wanted", expected=1, got=bit.width)
    held = from_planes(bit.first, bit.count), from_planes(bit.second, bit.count)
    total = _component(stage, held, 0)
    for component in (1, 2):
        part = _component(stage, held, component)
        product = yield from multiply_counters(stage, total, part)
        total = total.plus(part).minus(product.plus(product))
    return total


def _component(stage: ComputeStage, held: tuple[RingArray, RingArray], component: int) -> CounterVector:
    """Return the share whose component `component` is the bit's and whose others are 0."""
    first, second = held
    empty = np.zeros(len(first), dtype=np.uint64)
    return counter_of(
        stage,
        first if stage.party == component else empty,
        second if (stage.party + 1) % 3 == component else empty,
    )
