"""Random bits shared both ways (daBits), made and proven in one stage and spent in a later one: B2A in one latency.

A daBit is a uniformly random bit r that no party knows, as a Boolean share and as a share over Z_2^64. To convert a bit b,
b ^ r is opened and b = c + r - 2 c r is local with the public c. The opened bit is uniform whatever b is, even where b
comes from a wrong gate; so it needs no barrier, only the comparison of value and digest in the same round. r itself must
have been proven before: daBits of a stage can be spent only when that stage is closed, each of them once.

Source: Rotaru and Wood 2019/207; made here with two products a bit, as `convert.planes_to_ring`.
"""

from __future__ import annotations

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import random_boolean
from mpc_ops.protocol.circuits.convert import bits_to_ring
from mpc_ops.protocol.circuits.products import times_public
from mpc_ops.protocol.core.opening import exchange_vouched
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import pick_rows
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, check_boolean, xor
from mpc_ops.protocol.core.stage import ActiveStage, ComputeStage
from mpc_ops.ring import LANE_BYTES, from_bytes, to_bytes
from mpc_ops.ring.planes import from_planes

__all__ = ["DaBits", "bits_to_ring_with", "make_dabits"]


class DaBits:
    """A supply of daBits of one session. Made by `make_dabits` only.

    Attributes:
        left: how many are not spent.
    """

    def __init__(self, stage: ComputeStage, bits: BooleanPlanes, ring: RingVector) -> None:
        self._stage, self._bits, self._ring = stage, bits, ring
        self._spent = 0

    @property
    def left(self) -> int:
        """How many are not spent."""
        return self._bits.count - self._spent

    def take(self, stage: ComputeStage, count: int) -> tuple[BooleanPlanes, RingVector]:
        """Spend `count` of them in a later stage.

        Raises:
            LocalProtocolError: DABITS_ORDER while the stage that made them is not accepted and closed, or in that stage;
                DABITS_SPENT if there are too few.
        """
        made = self._stage
        if made is stage or (isinstance(made, ActiveStage) and made.phase != "closed"):
            raise LocalProtocolError("DABITS_ORDER", "daBits are proven before they hide anything", ids=stage.ids())
        if count > self.left:
            raise LocalProtocolError("DABITS_SPENT", "too few daBits are left", expected=count, got=self.left)
        place = np.arange(self._spent, self._spent + count, dtype=np.int64)
        self._spent += count
        bits, ring = pick_rows(self._bits, place), self._ring[slice(int(self._spent) - count, self._spent)]
        assert isinstance(bits, BooleanPlanes)  # noqa: S101 - a column keeps its kind
        return bits, ring

    def __repr__(self) -> str:
        return f"DaBits(left={self.left}, <redacted>)"


def make_dabits(stage: ComputeStage, count: int) -> Steps[DaBits]:
    """Make random bits shared both ways.

    Rounds: 2 (none if n = 0).  Sent: 16 n bytes per party.  Security: as `multiply`: proven at the stage's barrier in an active session.
    Leaks: n.
    """
    bits = random_boolean(stage, count, 1)
    ring = yield from bits_to_ring(stage, bits)
    return DaBits(stage, bits, ring)


def bits_to_ring_with(stage: ComputeStage, supply: DaBits, bit: BooleanPlanes) -> Steps[RingVector]:
    """Return the share over Z_2^64 of one bit per value, with daBits made before: B2A in one round.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage after the one that made the daBits.
        supply: at least n daBits; n are spent.
        bit: n values of one bit.

    Rounds: 1 (none if n = 0).  Sent: 8 ceil(n/64) bytes per party, and 32 in an active stage.
    Security: the opened bits are uniform; in an active stage each component comes from one holder and its digest from the
        other, in the same round.  Leaks: n.

    Raises:
        LocalProtocolError: SHARE_FOREIGN, PLANES_INVALID, STAGE_ORDER, DABITS_ORDER, DABITS_SPENT.
        Abort: OPENING_MISMATCH, naming the pair that holds the component.
        PeerProtocolError: LENGTH_INVALID.
    """
    check_boolean(stage, bit)
    stage.computing()
    if bit.width != 1:
        raise LocalProtocolError("PLANES_INVALID", "one bit per value is wanted", expected=1, got=bit.width)
    mask, ring = supply.take(stage, bit.count)
    if bit.count == 0:
        return ring
    opened = yield from _open_masked(stage, xor(bit, mask))
    twice = times_public(ring, opened + opened)
    return ring.minus(twice).plus_public(opened)


def _open_masked(stage: ComputeStage, share: BooleanPlanes) -> Steps[np.ndarray[tuple[int], np.dtype[np.uint64]]]:
    """Open one plane that a proven, uniformly random bit hides."""
    first, second = share.words()
    if isinstance(stage, ActiveStage):
        third = yield from exchange_vouched(stage, "dabits", to_bytes(first), to_bytes(second))
    else:
        inbound = yield from stage.exchange("dabits", to_next=to_bytes(first), expect_prev=LANE_BYTES * len(first))
        third = inbound.from_prev
    return from_planes(share.combine(from_bytes(third or b"", len(first))).reshape(1, -1), share.count)
