"""The two passes of a shuffle, by position: who permutes, masks and sends what. See shuffle.py for the protocol.

Every function returns the fresh components that its position holds afterwards, and its sides of the sums that tags are compared over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.protocol.order.row_parts import RowParts, RowShape, random_order
from mpc_ops.protocol.order.shuffle_tags import TagCheck
from mpc_ops.sharing import held_by

__all__ = ["two_passes"]

_READY = b"\x01"


def two_passes(
    stage: ComputeStage, shape: RowShape, held: list[RowParts]
) -> Steps[tuple[tuple[RowParts, RowParts], Sequence[TagCheck]]]:
    """Return both components of the rows in a secret random order, and what is to be compared.

    `held` has both components before; it is emptied, so that they are let go as soon as they have been used.

    Rounds: 2.  Sent: `shape.size` bytes by positions 0 and 2, twice that and 1 by position 1.
    Raises: PeerProtocolError LENGTH_INVALID.
    """
    seeds = dict(zip(held_by(stage.party), stage.seeds("shuffle"), strict=True))
    if stage.party == 0:
        result = yield from _position_0(stage, shape, held, seeds)
    elif stage.party == 1:
        result = yield from _position_1(stage, shape, held, seeds)
    else:
        held.clear()
        result = yield from _position_2(stage, shape, seeds)
    return result


def _position_0(
    stage: ComputeStage, shape: RowShape, held: list[RowParts], seeds: Mapping[int, bytes]
) -> Steps[tuple[tuple[RowParts, RowParts], Sequence[TagCheck]]]:
    before = shape.mask(seeds[1], "z")
    while held:
        before.add(held.pop())
    order = random_order(seeds[1], shape.count)
    onward = before.permuted(order.take(random_order(seeds[0], shape.count))).add(shape.mask(seeds[0], "z")).body()
    yield from stage.exchange("shuffle-1", to_next=onward)
    del onward
    # Position 1 says when it is there, so that no party runs far ahead of another.
    yield from stage.exchange("shuffle-2", expect_next=len(_READY))
    out = shape.mask(seeds[0], "out"), shape.mask(seeds[1], "out")
    return out, [TagCheck(2, (before,), order), TagCheck(1, out), TagCheck(2, out)]


def _position_1(
    stage: ComputeStage, shape: RowShape, held: list[RowParts], seeds: Mapping[int, bytes]
) -> Steps[tuple[tuple[RowParts, RowParts], Sequence[TagCheck]]]:
    masked = held.pop().minus(shape.mask(seeds[1], "z"))
    held.clear()
    ahead = masked.permuted(random_order(seeds[1], shape.count)).body()
    del masked
    inbound = yield from stage.exchange("shuffle-1", to_next=ahead, expect_prev=shape.size)
    del ahead
    half = shape.read(inbound.from_prev)
    own = shape.mask(seeds[1], "out")
    part = half.permuted(random_order(seeds[2], shape.count)).subtract(own)
    inbound = yield from stage.exchange("shuffle-2", to_prev=_READY, to_next=part.body(), expect_next=shape.size)
    common = part.add(shape.read(inbound.from_next))
    return (own, common), [TagCheck(2, (half,)), TagCheck(0, (common,), negative=True)]


def _position_2(
    stage: ComputeStage, shape: RowShape, seeds: Mapping[int, bytes]
) -> Steps[tuple[tuple[RowParts, RowParts], Sequence[TagCheck]]]:
    inbound = yield from stage.exchange("shuffle-1", expect_prev=shape.size)
    received = shape.read(inbound.from_prev)
    half = received.permuted(random_order(seeds[0], shape.count)).subtract(shape.mask(seeds[0], "z"))
    own = shape.mask(seeds[0], "out")
    part = half.permuted(random_order(seeds[2], shape.count)).subtract(own)
    inbound = yield from stage.exchange("shuffle-2", to_prev=part.body(), expect_prev=shape.size)
    common = part.add(shape.read(inbound.from_prev))
    checks = [
        TagCheck(0, (received,), negative=True),
        TagCheck(1, (half,), negative=True),
        TagCheck(0, (common,), negative=True),
    ]
    return (common, own), checks
