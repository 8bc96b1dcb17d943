"""Shuffle: rows of a shared table in a random order that nobody knows.

Two passes (Araki et al. CCS'21, section 5.2). Rows x = A + B + C; positions 0, 1, 2 hold (A, B), (B, C), (C, A). Each pair of parties
shares a permutation and masks: pi_12, Z_12, B~ (positions 0 and 1), pi_31, Z_31, A~ (2 and 0), pi_23 (1 and 2).

    position 0: X1 = pi_12(A + B + Z_12);  X2 = pi_31(X1) + Z_31  -> position 1
    position 1: Y1 = pi_12(C - Z_12)  -> position 2
    position 2: Y2 = pi_31(Y1) - Z_31;  C2 = pi_23(Y2) - A~  -> position 1
    position 1: C1 = pi_23(X2) - B~  -> position 2;             C~ = C1 + C2

Each message is masked by a stream that its receiver lacks: X2 by Z_31, Y1 by Z_12, C1 by B~, C2 by A~. So an altered message tells
nothing and its check may wait for the stage's PROVE (shuffle_tags.py). Nobody knows all three permutations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from mpc_ops.protocol.flow import Flow
from mpc_ops.protocol.party import Steps
from mpc_ops.protocol.row_parts import RowParts, RowShape, random_order
from mpc_ops.protocol.rows import Column, Rows
from mpc_ops.protocol.shares import BooleanPlanes, RingVector, check_owner, rebuilt
from mpc_ops.protocol.shuffle_tags import TagCheck, TagLog, add_tags
from mpc_ops.protocol.stage import ActiveStage, ComputeStage
from mpc_ops.sharing import held_by

__all__ = ["shuffle", "shuffle_in_stage"]

_NONE: Mapping[str, int] = MappingProxyType({})
_READY = b"\x01"


def shuffle(flow: Flow, rows: Rows) -> Steps[Rows]:
    """Return the rows in a uniformly random secret order, all columns of a row together, as fresh shares.

    Run by: all three parties, in lock-step.

    Args:
        flow: the flow; its present stage is used.
        rows: n rows with w Boolean bits and m columns over Z_2^64.

    Rounds: 2 passive, 3 active (tags first); none for no row.
    Sent: with S = 8 w ceil(n/64) + 8 m n bytes passive: S by positions 0 and 2, 2 S + 1 by position 1. Active: a row has 8 bytes of
        tag more if w > 0, a ring column has 16 bytes instead of 8, and 16 bytes of tag are added if m > 0; and every party sends
        the tags once, 8 n (if w > 0) + 16 n (if m > 0). The comparison is part of the barrier (shuffle_tags.py).
    Security: malicious with abort in an active session: every row that was altered is found in the stage's PROVE, except with
        probability 2^-64; semi-honest in a passive one.
    Leaks: n and the columns' widths.

    Raises:
        LocalProtocolError: SHARE_FOREIGN, STAGE_ORDER.
        PeerProtocolError: LENGTH_INVALID.
    """
    result = yield from shuffle_in_stage(flow.stage, rows)
    return result


def shuffle_in_stage(stage: ComputeStage, rows: Rows, skips: Mapping[str, int] = _NONE) -> Steps[Rows]:
    """Shuffle within a stage; as `shuffle`.

    Args:
        stage: computing.
        rows: the rows.
        skips: for ring columns that hold multiples of 2^(8 s) in every component: how many bytes s are left out of messages.
    """
    stage.computing()
    for column in rows.columns.values():
        check_owner(stage, column)
    ring = [name for name, column in rows.columns.items() if isinstance(column, RingVector)]
    bits = [column for column in rows.columns.values() if isinstance(column, BooleanPlanes)]
    width = sum(column.width for column in bits)
    shape = RowShape(rows.count, width, 0, tuple(skips.get(name, 0) for name in ring), wide=False)
    if shape.size == 0:
        return rows
    first, second = (_component(shape, rows, side) for side in ("first", "second"))
    if not isinstance(stage, ActiveStage):
        out, _ = yield from _passes(stage, shape, first, second)
        return _rows(rows, out)
    key, tagged, first, second = yield from add_tags(stage, shape, first, second)
    out, checks = yield from _passes(stage, tagged, first, second)
    stage.log(TagLog).append(key, checks)
    yield from stage.settle()
    return _rows(rows, out)


def _component(shape: RowShape, rows: Rows, side: str) -> RowParts:
    """Return one component of all columns."""
    planes = [getattr(column, side) for column in rows.columns.values() if isinstance(column, BooleanPlanes)]
    words = [getattr(column, side) for column in rows.columns.values() if isinstance(column, RingVector)]
    none = np.zeros((0, shape.count), dtype=np.uint64)
    return RowParts(
        shape,
        np.concatenate(planes) if planes else np.zeros((0, -(-shape.count // 64)), dtype=np.uint64),
        none,
        np.stack(words) if words else none,
        none,
    )


def _rows(rows: Rows, out: tuple[RowParts, RowParts]) -> Rows:
    """Return the columns from both components, in the order and of the kinds of `rows`."""
    columns: dict[str, Column] = {}
    plane = word = 0
    for name, column in rows.columns.items():
        if isinstance(column, BooleanPlanes):
            part = slice(plane, plane + column.width)
            columns[name] = rebuilt(column, out[0].planes[part], out[1].planes[part])
            plane += column.width
        else:
            columns[name] = replace(column, first=out[0].low[word], second=out[1].low[word])
            word += 1
    return Rows(columns)


def _passes(
    stage: ComputeStage, shape: RowShape, first: RowParts, second: RowParts
) -> Steps[tuple[tuple[RowParts, RowParts], Sequence[TagCheck]]]:
    seeds = dict(zip(held_by(stage.party), stage.seeds("shuffle"), strict=True))
    if stage.party == 0:
        result = yield from _position_0(stage, first.plus(second), seeds)
    elif stage.party == 1:
        result = yield from _position_1(stage, second, seeds)
    else:
        result = yield from _position_2(stage, shape, seeds)
    return result


def _position_0(
    stage: ComputeStage, held: RowParts, seeds: Mapping[int, bytes]
) -> Steps[tuple[tuple[RowParts, RowParts], Sequence[TagCheck]]]:
    shape = held.shape
    order = random_order(seeds[1], shape.count)
    before = held.plus(shape.mask(seeds[1], "z"))
    onward = before.permuted(order.take(random_order(seeds[0], shape.count))).plus(shape.mask(seeds[0], "z"))
    yield from stage.exchange("shuffle-1", to_next=onward.body())
    # Position 1 says when it is there, so that no party runs far ahead of another.
    yield from stage.exchange("shuffle-2", expect_next=len(_READY))
    out = shape.mask(seeds[0], "out"), shape.mask(seeds[1], "out")
    return out, [TagCheck(2, (before,), order), TagCheck(1, out), TagCheck(2, out)]


def _position_1(
    stage: ComputeStage, held: RowParts, seeds: Mapping[int, bytes]
) -> Steps[tuple[tuple[RowParts, RowParts], Sequence[TagCheck]]]:
    shape = held.shape
    ahead = held.minus(shape.mask(seeds[1], "z")).permuted(random_order(seeds[1], shape.count))
    inbound = yield from stage.exchange("shuffle-1", to_next=ahead.body(), expect_prev=shape.size)
    half = shape.read(inbound.from_prev)
    own = shape.mask(seeds[1], "out")
    part = half.permuted(random_order(seeds[2], shape.count)).minus(own)
    inbound = yield from stage.exchange("shuffle-2", to_prev=_READY, to_next=part.body(), expect_next=shape.size)
    common = part.plus(shape.read(inbound.from_next))
    return (own, common), [TagCheck(2, (half,)), TagCheck(0, (common,), negative=True)]


def _position_2(
    stage: ComputeStage, shape: RowShape, seeds: Mapping[int, bytes]
) -> Steps[tuple[tuple[RowParts, RowParts], Sequence[TagCheck]]]:
    inbound = yield from stage.exchange("shuffle-1", expect_prev=shape.size)
    received = shape.read(inbound.from_prev)
    half = received.permuted(random_order(seeds[0], shape.count)).minus(shape.mask(seeds[0], "z"))
    own = shape.mask(seeds[0], "out")
    part = half.permuted(random_order(seeds[2], shape.count)).minus(own)
    inbound = yield from stage.exchange("shuffle-2", to_prev=part.body(), expect_prev=shape.size)
    common = part.plus(shape.read(inbound.from_prev))
    checks = [
        TagCheck(0, (received,), negative=True),
        TagCheck(1, (half,), negative=True),
        TagCheck(0, (common,), negative=True),
    ]
    return (common, own), checks
