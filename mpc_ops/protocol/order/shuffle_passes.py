"""The two passes of a shuffle, by position: who permutes, masks and sends what. See shuffle.py for the protocol.

Every function returns the fresh components that its position holds afterwards, and its sides of the sums that tags are compared over.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TypeAlias

from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.stage import ActiveStage, ComputeStage
from mpc_ops.protocol.order.row_parts import RowParts, RowShape, random_order
from mpc_ops.protocol.order.shuffle_tags import TagCheck
from mpc_ops.sharing import held_by

__all__ = ["two_passes"]

Held: TypeAlias = Generator[RowParts, None, None]
Passed: TypeAlias = tuple[tuple[RowParts, RowParts], Sequence[TagCheck]]

_READY = b"\x01"


def two_passes(stage: ComputeStage, shape: RowShape, held: Held) -> Steps[Passed]:
    """Return both components of the rows in a secret random order, and what is to be compared: nothing in a passive session.

    `held` makes both components before, the second one first. Whatever is not compared later is let go as soon as it has been used.

    Rounds: 2.  Sent: `shape.size` bytes by positions 0 and 2, twice that and 1 by position 1.
    Raises: PeerProtocolError LENGTH_INVALID.
    """
    seeds = dict(zip(held_by(stage.party), stage.seeds("shuffle"), strict=True))
    position = (_position_0, _position_1, _position_2)[stage.party]
    result = yield from position(stage, shape, held, seeds)
    return result


def _position_0(stage: ComputeStage, shape: RowShape, held: Held, seeds: Mapping[int, bytes]) -> Steps[Passed]:
    before = shape.mask(seeds[1], "z")
    for part in held:
        before.add(part)
        del part
    order = random_order(seeds[1], shape.count)
    both = order.take(random_order(seeds[0], shape.count))
    checks = []
    if isinstance(stage, ActiveStage):
        checks.append(TagCheck(2, (before,), order))
        before = before.permuted(both)
    else:
        before.moved(both)
    del order, both
    onward = before.add(shape.mask(seeds[0], "z")).body()
    del before
    yield from stage.exchange("shuffle-1", to_next=onward)
    del onward
    # Position 1 says when it is there, so that no party runs far ahead of another.
    yield from stage.exchange("shuffle-2", expect_next=len(_READY))
    out = shape.mask(seeds[0], "out"), shape.mask(seeds[1], "out")
    return out, [*checks, TagCheck(1, out), TagCheck(2, out)]


def _position_1(stage: ComputeStage, shape: RowShape, held: Held, seeds: Mapping[int, bytes]) -> Steps[Passed]:
    masked = next(held).minus(shape.mask(seeds[1], "z"))
    held.close()
    ahead = masked.moved(random_order(seeds[1], shape.count)).body()
    del masked
    inbound = yield from stage.exchange("shuffle-1", to_next=ahead, expect_prev=shape.size)
    del ahead
    half = shape.read(inbound.from_prev)
    part = half.permuted(random_order(seeds[2], shape.count))
    checks = [TagCheck(2, (half,))] if isinstance(stage, ActiveStage) else []
    del half, inbound
    own = shape.mask(seeds[1], "out")
    part.subtract(own)
    inbound = yield from stage.exchange("shuffle-2", to_prev=_READY, to_next=part.body(), expect_next=shape.size)
    common = part.add(shape.read(inbound.from_next))
    return (own, common), [*checks, TagCheck(0, (common,), negative=True)]


def _position_2(stage: ComputeStage, shape: RowShape, held: Held, seeds: Mapping[int, bytes]) -> Steps[Passed]:
    held.close()
    inbound = yield from stage.exchange("shuffle-1", expect_prev=shape.size)
    received = shape.read(inbound.from_prev)
    half = received.permuted(random_order(seeds[0], shape.count))
    active = isinstance(stage, ActiveStage)
    checks = [TagCheck(0, (received,), negative=True)] if active else []
    del received, inbound
    half.subtract(shape.mask(seeds[0], "z"))
    order = random_order(seeds[2], shape.count)
    part = half.permuted(order) if active else half.moved(order)
    checks += [TagCheck(1, (half,), negative=True)] if active else []
    del half, order
    own = shape.mask(seeds[0], "out")
    part.subtract(own)
    inbound = yield from stage.exchange("shuffle-2", to_prev=part.body(), expect_prev=shape.size)
    common = part.add(shape.read(inbound.from_prev))
    return (common, own), [*checks, TagCheck(0, (common,), negative=True)]
