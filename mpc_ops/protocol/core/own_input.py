"""Values that the three operators know themselves, as shares over Z_2^64: one element of traffic each.

Operator o's value x becomes c_o + c_{o+1} + c_{o+2} with c_{o+1} = F(k_{o+1}), which o and o + 1 both draw, c_{o+2} = 0 and
c_o = x - c_{o+1}, which o sends to its other holder o - 1. Owners that are no operators use mpc_ops.sharing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.shares import RingVector, ring_of, ring_zero
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.ring import LANE_BYTES, RingArray, as_body, check_ring, from_body

__all__ = ["input_of_all"]


def input_of_all(stage: ComputeStage, values: RingArray, counts: Sequence[int]) -> Steps[list[RingVector]]:
    """Share the three operators' own vectors.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage, active or passive.
        values: own vector, shape (counts[party],), elements of Z_2^64.
        counts: public number of values of each position.

    Returns:
        Shares of the vectors of positions 0, 1 and 2.

    Rounds: 1 (none if there is no value at all).  Sent: 8 counts[party] bytes, to party i-1.
    Security: malicious with abort in an active stage: every component that is sent has one receiver, the other holder, so
        whatever an operator sends is a sharing of some value; it cannot depend on the others' values, which are masked.
        Semi-honest in a passive one.  Leaks: counts.

    Raises:
        LocalProtocolError: RING_TYPE, RING_LENGTH, STAGE_ORDER.
        PeerProtocolError: LENGTH_INVALID.
    """
    party, after = stage.party, (stage.party + 1) % 3
    if len(counts) != 3 or min(counts) < 0:
        raise LocalProtocolError("RING_LENGTH", "a number of values for each of three positions", got=len(counts))
    check_ring(values, counts[party])
    if not any(counts):
        return [ring_zero(stage, 0) for _ in range(3)]
    first, second = stage.streams("own-input", max(counts))
    own = values - second[: counts[party]]
    inbound = yield from stage.exchange("own-input", to_prev=as_body(own), expect_next=LANE_BYTES * counts[after])
    out = {
        party: ring_of(stage, own, second[: counts[party]]),
        # Of the next operator's value this party holds components `party` = 0 and `party + 1`, which came.
        after: ring_of(stage, np.zeros(counts[after], dtype=np.uint64), from_body(inbound.from_next, counts[after])),
    }
    before = counts[party - 1]
    # Of the previous operator's value it holds component `party`, drawn with it, and `party + 1` = 0.
    out[(party - 1) % 3] = ring_of(stage, first[:before], np.zeros(before, dtype=np.uint64))
    return [out[position] for position in range(3)]
