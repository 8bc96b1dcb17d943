"""Shuffle: rows of a shared table in a random order that nobody knows.

Two passes (Araki et al. CCS'21, section 5.2). Rows x = A + B + C; positions 0, 1, 2 hold (A, B), (B, C), (C, A). Each pair of parties
shares a permutation and masks: pi_12, Z_12, B~ (positions 0 and 1), pi_31, Z_31, A~ (2 and 0), pi_23 (1 and 2).

    position 0: X1 = pi_12(A + B + Z_12);  X2 = pi_31(X1) + Z_31  -> position 1
    position 1: Y1 = pi_12(C - Z_12)  -> position 2
    position 2: Y2 = pi_31(Y1) - Z_31;  C2 = pi_23(Y2) - A~  -> position 1
    position 1: C1 = pi_23(X2) - B~  -> position 2;             C~ = C1 + C2

Each message is masked by a stream that its receiver lacks: X2 by Z_31, Y1 by Z_12, C1 by B~, C2 by A~. So an altered message tells
nothing and its check may wait for the stage's PROVE (shuffle_tags.py). Nobody knows all three permutations.

Rows with secret places move there by a shuffle of rows and places together: the places then are opened, a uniformly random permutation,
and rows are put in order locally. `partition` and `compact` use it, and each pass of a radix sort.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from mpc_ops.errors import Abort, LocalProtocolError
from mpc_ops.protocol.circuits.products import times_public
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.opening import TopBytes
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Column, RowIndex, Rows
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, check_owner, invert, rebuilt
from mpc_ops.protocol.core.stage import ActiveStage, ComputeStage
from mpc_ops.protocol.order.digit_places import digit_places
from mpc_ops.protocol.order.row_parts import RowParts, RowShape
from mpc_ops.protocol.order.shuffle_passes import two_passes
from mpc_ops.protocol.order.shuffle_tags import TagLog, add_tags
from mpc_ops.ring import LANE_BYTES, RingArray
from mpc_ops.ring.planes import words_for

__all__ = ["compact", "move_numbered", "move_to", "partition", "shuffle", "shuffle_in_stage"]

_PLACE = "(place)"
_NUMBER = "(row number)"
_NONE: Mapping[str, int] = MappingProxyType({})


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
    moving = shuffle_in_stage(flow.stage, rows)
    del rows
    result = yield from moving
    return result


def shuffle_in_stage(stage: ComputeStage, rows: Rows, skips: Mapping[str, int] = _NONE) -> Steps[Rows]:
    """Shuffle within a stage; as `shuffle`.

    Rounds: as there.  Sent: as there, where a value whose s lowest bytes are left out takes 8 - s bytes, or 16 - s active.

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
    kinds = {name: _kind(column) for name, column in rows.columns.items()}
    # Rows are let go as soon as the components that this position needs have been made from them.
    if not isinstance(stage, ActiveStage):
        passing = two_passes(stage, shape, _components(shape, rows))
        del rows
        out, _ = yield from passing
        return _rows(kinds, out)
    parts = [_component(shape, rows, side) for side in ("first", "second")]
    del rows
    key, tagged, *parts = yield from add_tags(stage, shape, *parts)
    out, checks = yield from two_passes(stage, tagged, _popped(parts))
    stage.log(TagLog).append(key, checks)
    yield from stage.settle()
    return _rows(kinds, out)


def _kind(column: Column) -> tuple[Column, int]:
    """Return a column of the same kind, session and position without its values, and its width."""
    if isinstance(column, BooleanPlanes):
        planes = np.zeros((0, words_for(column.count)), dtype=np.uint64)
        return replace(column, first=planes, second=planes), column.width
    words = np.zeros(0, dtype=np.uint64)
    return replace(column, first=words, second=words), 0


def _components(shape: RowShape, rows: Rows) -> Generator[RowParts, None, None]:
    yield _component(shape, rows, "second")
    yield _component(shape, rows, "first")


def _popped(parts: list[RowParts]) -> Generator[RowParts, None, None]:
    while parts:
        yield parts.pop()


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


def _rows(kinds: Mapping[str, tuple[Column, int]], out: tuple[RowParts, RowParts]) -> Rows:
    """Return the columns from both components, in the order, and of the kinds and widths, that are given."""
    columns: dict[str, Column] = {}
    plane = word = 0
    for name, (column, width) in kinds.items():
        if isinstance(column, BooleanPlanes):
            part = slice(plane, plane + width)
            columns[name] = rebuilt(column, out[0].planes[part], out[1].planes[part])
            plane += width
        else:
            columns[name] = replace(column, first=out[0].low[word], second=out[1].low[word])
            word += 1
    return Rows(columns)


def move_to(flow: Flow, rows: Rows, places: RingVector) -> Steps[Rows]:
    """Return the rows in a secret order: row j goes to place places[j].

    Run by: all three parties, in lock-step.

    Args:
        flow: the opening ends its present stage.
        rows: n rows.
        places: share of a permutation of 0 .. n - 1.

    Rounds: those of `shuffle` (with one more ring column) and of one opening; none for no row.
    Sent: as `shuffle`, where the places take b = ceil(log2(n) / 8) bytes, at least 1, instead of 8 (b + 8 instead of 16 active);
        and the opening of n values of b bytes, 8 ceil(b n / 8) and 32 active.
    Security: malicious with abort in an active session: the places are opened behind the barrier.
    Leaks: nothing but n: what is opened is a uniformly random permutation, whatever `places` is.

    Raises:
        LocalProtocolError: ROWS_INVALID for another number of places, or a column named "(place)"; SHARE_FOREIGN.
        Abort: PLACES_INVALID if what was opened is no permutation; what the opening raises.
    """
    if places.count != rows.count:
        raise LocalProtocolError("ROWS_INVALID", "a place per row is wanted", expected=rows.count, got=places.count)
    if rows.count == 0:
        return rows
    result = yield from _move_scaled(flow, rows, _scaled(places))
    return result


def move_numbered(flow: Flow, rows: Rows, numbers: BooleanPlanes, places: RingVector) -> Steps[Rows]:
    """Return the rows in a secret order that is known by numbers: row numbers[j] goes to place places[j].

    Run by: all three parties, in lock-step.

    Args:
        flow: the openings end its present stage and the next one.
        rows: n rows in their original order.
        numbers: share of a permutation of 0 .. n - 1.
        places: share of a permutation of 0 .. n - 1, in the same order as `numbers`.

    Rounds, bytes: those of `shuffle` of numbers and places (these in b bytes, as in `move_to`), of the opening of the numbers, and of
        `move_to`.  Security, errors: as `move_to`.
    Leaks: nothing but n: both openings are uniformly random permutations.
    """
    if not places.count == numbers.count == rows.count:
        raise LocalProtocolError("ROWS_INVALID", "a number and a place per row", expected=rows.count, got=places.count)
    if rows.count == 0:
        return rows
    pairs = Rows({_NUMBER: numbers, _PLACE: _scaled(places)})
    pairs = yield from shuffle_in_stage(flow.stage, pairs, {_PLACE: _skip(rows.count)})
    (opened,) = yield from flow.open([pairs.bits(_NUMBER)])
    home = pairs.select([_PLACE]).pick(_inverse(opened, rows.count))
    result = yield from _move_scaled(flow, rows, home.ring(_PLACE))
    return result


def _skip(count: int) -> int:
    """Return how many bytes of a place among `count` rows are not needed."""
    return LANE_BYTES - max(1, -(-(count - 1).bit_length() // 8))


def _scaled(places: RingVector) -> RingVector:
    """Return multiples of 2^(8 skip): the low bytes of all components are 0 and need not travel."""
    return times_public(places, np.full(places.count, 1 << 8 * _skip(places.count), dtype=np.uint64))


def _move_scaled(flow: Flow, rows: Rows, scaled: RingVector) -> Steps[Rows]:
    if _PLACE in rows.columns:
        raise LocalProtocolError("ROWS_INVALID", "a column has a name that is reserved", got=_PLACE)
    skip = _skip(rows.count)
    shuffled = yield from shuffle_in_stage(flow.stage, rows.plus({_PLACE: scaled}), {_PLACE: skip})
    (opened,) = yield from flow.open([TopBytes(shuffled.ring(_PLACE), skip)])
    return shuffled.without(_PLACE).pick(_inverse(opened >> np.uint64(8 * skip), rows.count))


def _inverse(places: RingArray, count: int) -> RowIndex:
    order = np.full(count, -1, dtype=np.int64)
    if int(places.max()) < count:
        order[places.astype(np.int64)] = np.arange(count, dtype=np.int64)
    if int(order.min()) < 0:
        raise Abort(
            "PLACES_INVALID",
            "the opened places of rows are no permutation",
            hint="The rows' shares do not come from the steps before, or one party of a passive session went wrong",
        )
    return order


def _one_bit(rows: Rows, name: str) -> BooleanPlanes:
    bit = rows.bits(name)
    if bit.width != 1:
        raise LocalProtocolError("ROWS_INVALID", "a column of one bit is wanted", expected=1, got=bit.width)
    return bit


def partition(flow: Flow, rows: Rows, bit: str) -> Steps[Rows]:
    """Return the rows whose bit is 0 first, then those whose bit is 1, each in their order (stable).

    Args:
        flow: the opening ends its present stage.
        rows: n rows.
        bit: name of a Boolean column of width 1.

    Rounds: 3 and those of `move_to`.  Sent: 24 n bytes per party and those of `move_to`.
    Security, errors: as `move_to`, `bits_to_ring`, `multiply`.  Leaks: n only, not how many rows have the bit.
    """
    digit = _one_bit(rows, bit)
    if rows.count == 0:
        return rows
    places = yield from digit_places(flow.stage, digit)
    result = yield from move_to(flow, rows, places)
    return result


def compact(flow: Flow, rows: Rows, keep: str, *, size: int | None = None) -> Steps[Rows]:
    """Return the rows with keep = 1 first, then the others, each in their order; cut to `size` rows if given.

    Args:
        flow: the opening ends its present stage.
        rows: n rows.
        keep: name of a Boolean column of width 1; the result has it too.
        size: public, at most n.

    Rounds, bytes, security, errors, leaks: as `partition`; ROWS_INVALID for a size outside 0 to n.
    """
    if size is not None and not 0 <= size <= rows.count:
        raise LocalProtocolError("ROWS_INVALID", "a size is outside of the table", expected=rows.count, got=size)
    left_out = invert(_one_bit(rows, keep))
    if rows.count:
        places = yield from digit_places(flow.stage, left_out)
        rows = yield from move_to(flow, rows, places)
    return rows if size is None else rows.cut(0, size)
