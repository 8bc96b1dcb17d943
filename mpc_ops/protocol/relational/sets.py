"""Intersections of two sets of keys: their size, sums over what both have, and the common rows for one position.

Both sets are stacked and sorted; a key that both have stands in two neighbouring rows. Owners may give their rows in ascending
order: then two runs are merged without opening anything, and every owner's order is checked on shares (which also shows that no
key repeats). Source: sort-compare intersection (Huang, Evans, Katz, NDSS'12), with a merge for sorted runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import and_many, evaluate
from mpc_ops.protocol.circuits.compare import less
from mpc_ops.protocol.circuits.convert import bits_to_ring
from mpc_ops.protocol.circuits.products import segment_sums
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps, together
from mpc_ops.protocol.core.rows import Column, Rows, zero_bits
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, and_public, invert, xor
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.protocol.order.merge import merge_sorted
from mpc_ops.protocol.order.shuffle import compact
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.relational.dot_table import dot_table
from mpc_ops.protocol.relational.groups import VALID
from mpc_ops.protocol.relational.joins import refuse_repeated
from mpc_ops.protocol.relational.ordered import Key, blank_rows, same_as_next
from mpc_ops.protocol.relational.row_planes import multiply_all, next_rows, plus_next, public_flags, sum_with_next
from mpc_ops.protocol.relational.two_tables import KEY, OWN, TwoTables, any_row
from mpc_ops.ring import RingArray

__all__ = ["Intersection", "SetRows", "intersection", "intersection_rows", "intersection_size", "open_intersection"]


@dataclass(frozen=True, slots=True)
class Intersection:
    """What two sets have in common, as shares.

    Attributes:
        size: number of common keys, shape (1,).
        sums: by column, over the common keys, shape (1,) each.
        invalid: one bit: a usable key repeats in one set, or a set that should ascend does not; then the figures are wrong.
    """

    size: RingVector
    sums: Mapping[str, RingVector]
    invalid: BooleanPlanes


@dataclass(frozen=True, slots=True)
class SetRows:
    """Common rows in the clear, ascending by key.

    Attributes:
        columns: by name, only the common rows.
        overflow: there were more than the bound.
    """

    columns: Mapping[str, RingArray]
    overflow: bool


@dataclass(frozen=True, slots=True)
class _Matched:
    """Sorted rows; `match` says that a row and the next one are the two rows of a common key."""

    rows: Rows
    match: BooleanPlanes
    invalid: BooleanPlanes | None
    again: BooleanPlanes | None = None

    def checked(self, stage: ComputeStage) -> Steps[BooleanPlanes]:
        """Return whether a set is not valid, as one lane."""
        if self.again is None:
            assert self.invalid is not None  # noqa: S101 - a match that was merged is checked already
            return self.invalid
        (invalid,) = yield from evaluate(stage, "set-unique", [any_row(self.again)])
        return invalid


def intersection_size(flow: Flow, left: Rows, right: Rows, key: str, *, ascending: bool = False) -> Steps[Intersection]:
    """Return the size of the intersection of two sets of keys in columns of one name.

    Rounds, bytes, security, leaks, errors: as `intersection` without sums.
    """
    result = yield from intersection(flow, left, right, [(Key(key), Key(key))], ascending=ascending)
    return result


def intersection(
    flow: Flow,
    left: Rows,
    right: Rows,
    keys: Sequence[tuple[Key, Key]],
    sums: Sequence[str] = (),
    *,
    left_live: str | None = None,
    right_live: str | None = None,
    ascending: bool = False,
    pivots: int = 1,
) -> Steps[Intersection]:
    """Return size and sums of the intersection of two sets. NULL keys are in no set.

    Run by: all three parties, in lock-step.

    Args:
        flow: the flow.
        left: l rows whose usable keys differ.
        right: r rows whose usable keys differ.
        keys: pairs of (left key, right key) of one width, K bits in all without validity bits.
        sums: s columns over Z_2^64 of either table; of both, if both have one of that name.
        left_live: a validity bit of the left table's rows.
        right_live: the same of the right table.
        ascending: both tables' usable rows ascend by key, the first key most significant, and rows that are not usable stand
            behind them. Checked on shares.
        pivots: as in `sort`, without `ascending`.

    Rounds, n = l + r, v validity bits, W = K + [v > 0]: ceil(log2 v); the sort, ceil(log2 W), 1, and ceil(log2 ceil(n/64)) + 6 for the
        check. With `ascending`: the larger of the merge and of the check, 1 + ceil(log2 W), 1 more if v > 0, ceil(log2 ceil(m/64)) +
        6 for the larger table's m rows, and 1; then ceil(log2 W), and 2, or 3 with sums, which without `ascending` stand beside the
        check.
    Sent: 8 ceil(n/64) per AND: v - 1 and W - 1; 16 n for the matches as numbers, and 8 s (s > 0) for each block of rows (dot_table).
        The sort of W + 1 bits and s ring columns, 8 ceil(n/64), and `two_tables.any_row` of n rows; or the merge of W bits and s ring
        columns without row numbers, for each table of m rows 8 ceil(m/64) (3 W - 2 - ceil(log2 W) + [v > 0]) and `any_row`, and 8.
    Security: malicious with abort in an active session, semi-honest in a passive one.
    Leaks: l, r, widths; with `ascending` nothing is opened, else what the sort opens (random orders).

    Raises:
        LocalProtocolError: ROWS_INVALID for columns that do not fit.
    """
    both = TwoTables((left, right), tuple(keys), (left_live, right_live))
    both.check()
    if any(
        not isinstance(rows.columns[name], RingVector)
        for name in sums
        for rows in (left, right)
        if name in rows.columns
    ):
        raise LocalProtocolError("ROWS_INVALID", "what is summed is over Z_2^64")
    found = yield from _match(flow, both, sums, ascending=ascending, pivots=pivots)
    invalid, (size, totals) = yield from together(found.checked(flow.stage), _totals(flow.stage, found, sums))
    return Intersection(size, totals, invalid)


def _totals(
    stage: ComputeStage, found: _Matched, sums: Sequence[str]
) -> Steps[tuple[RingVector, dict[str, RingVector]]]:
    """Return the number of common keys, and sums of columns over them."""
    flag = yield from bits_to_ring(stage, found.match)
    totals: dict[str, RingVector] = {}
    if sums:
        pairs = [sum_with_next(found.rows.ring(name)) for name in sums]
        table = yield from dot_table(stage, [flag], pairs)
        totals = {name: table[place : place + 1] for place, name in enumerate(sums)}
    return segment_sums(flag, np.array([flag.count], dtype=np.int64)), totals


def open_intersection(flow: Flow, found: Intersection) -> Steps[tuple[int, dict[str, int]]]:
    """Open size and sums of an intersection to all; if the sets were invalid, that is all that anybody learns.

    Rounds: 3 and one opening.  Sent: 16 + 8 (1 + s) bytes and the opening of 2 + s elements.
    Leaks: size, sums (or that the sets are invalid).

    Raises:
        Abort: JOIN_NOT_UNIQUE.
    """
    sound = yield from bits_to_ring(flow.stage, invert(found.invalid))
    figures = yield from multiply_all(flow.stage, [(sound, one) for one in (found.size, *found.sums.values())])
    flag, size, *sums = yield from flow.open([found.invalid, *figures])
    refuse_repeated(flow, repeated=bool(flag[0]))
    return int(size[0]), {name: int(one[0]) for name, one in zip(found.sums, sums, strict=True)}


def intersection_rows(
    flow: Flow,
    left: Rows,
    right: Rows,
    keys: Sequence[tuple[Key, Key]],
    columns: Sequence[str] = (),
    *,
    position: int,
    left_live: str | None = None,
    right_live: str | None = None,
    ascending: bool = False,
    bound: int | None = None,
    pivots: int = 1,
) -> Steps[SetRows | None]:
    """Give the common rows of two sets to one position; the others get None. Everything else as `intersection`.

    Args:
        flow: the flow.
        left: as there.
        right: as there.
        keys: as there; the keys have the left names in the result.
        columns: further columns of either table, but not of both.
        position: who receives.
        left_live: as there.
        right_live: as there.
        ascending: as there.
        bound: public bound on the common rows; further ones are left out, and the receiver is told.
        pivots: as there.

    Rounds: those of `intersection` without the last 2 or 3, one opening of one bit, `compact`, `blank_rows`, and the opening to
        `position`.
    Sent: as `intersection` without numbers and sums, where the columns travel through sort (or merge); the opening of one bit;
        `compact` of the keys (K bits), the columns and 1 bit; `blank_rows` of min(n, bound) rows without the 1 bit; and the opening
        of these rows with it and of 1 more bit to `position`.
    Leaks: to `position` the common rows, and with a bound whether there are more; to all whether the sets are invalid.

    Raises:
        LocalProtocolError: ROWS_INVALID. Abort: JOIN_NOT_UNIQUE, before anything else is opened.
    """
    both = TwoTables((left, right), tuple(keys), (left_live, right_live))
    both.check()
    names = [key.name for key, _ in keys]
    if len({*names, *columns, VALID}) != len(names) + len(columns) + 1 or (bound is not None and bound < 1):
        raise LocalProtocolError("ROWS_INVALID", "columns have names of their own, and a bound is at least 1")
    if any((name in left.columns) == (name in right.columns) for name in columns):
        raise LocalProtocolError("ROWS_INVALID", "a column is one table's")
    found = yield from _match(flow, both, columns, ascending=ascending, pivots=pivots)
    invalid = yield from found.checked(flow.stage)
    (flag,) = yield from flow.open([invalid])
    refuse_repeated(flow, repeated=bool(flag[0]))
    wanted: dict[str, Column] = {}
    low = 0
    for ours, _ in reversed(keys):
        width = left.bits(ours.name).width
        wanted[ours.name] = found.rows.bits(KEY)[low : low + width]
        low += width
    wanted.update({name: plus_next(found.rows.columns[name]) for name in columns})
    table = yield from compact(flow, Rows({**wanted, VALID: found.match}), VALID)
    size = table.count if bound is None else min(bound, table.count)
    over = zero_bits(table.bits(VALID), 1) if size == table.count else table.cut(size, size + 1).bits(VALID)
    table = table.cut(0, size)
    blank = yield from blank_rows(flow.stage, table.bits(VALID), table.without(VALID))
    opened = yield from flow.open_to(position, [*blank.columns.values(), table.bits(VALID), over])
    if opened is None:
        return None
    *values, valid, more = opened
    kept = np.flatnonzero(valid)
    plain = {name: column.take(kept) for name, column in zip(blank.names, values, strict=True)}
    return SetRows({name: plain[name] for name in (*names, *columns)}, bool(more[0]))


def _match(flow: Flow, both: TwoTables, columns: Sequence[str], *, ascending: bool, pivots: int) -> Steps[_Matched]:
    usable = yield from both.usable(flow.stage)
    table = both.stacked(usable, columns)
    if not ascending:
        table = yield from sort(flow, table, [SortKey(KEY)], pivots=pivots)
        same = yield from _same(flow.stage, table, both, marked=usable is not None)
        own = table.bits(OWN)
        (again,) = yield from and_many(flow.stage, "set-again", [(same, invert(xor(own, next_rows(own))))])
        return _Matched(table, xor(same, again), None, again)
    split = both.tables[0].count
    runs = [table.without(OWN).cut(0, split), table.without(OWN).cut(split, table.count)]
    # Nothing is opened, so the check of the orders takes no rounds of its own.
    merged, invalid = yield from together(
        merge_sorted(flow, runs, [SortKey(KEY)], stable=False),
        _out_of_order(flow.stage, [run.bits(KEY) for run in runs], marked=usable is not None),
    )
    same = yield from _same(flow.stage, merged, both, marked=usable is not None)
    return _Matched(merged, same, invalid)


def _same(stage: ComputeStage, table: Rows, both: TwoTables, *, marked: bool) -> Steps[BooleanPlanes]:
    """Return whether a row and the next one have the same key; rows that are not usable never do."""
    planes, width = table.bits(KEY), both.key_width
    live = invert(planes.plane(width)) if marked else None
    (same,) = yield from evaluate(stage, "set-same", [same_as_next(planes[:width], live)])
    return same


def _out_of_order(stage: ComputeStage, keys: Sequence[BooleanPlanes], *, marked: bool) -> Steps[BooleanPlanes]:
    """Return, as one lane, whether some row's key is not above the key of the row before; unusable rows may be last."""
    rising = yield from evaluate(stage, "set-order", [less(key, next_rows(key)) for key in keys])
    wrong = [and_public(invert(bit), public_flags(np.arange(bit.count) < bit.count - 1)) for bit in rising]
    if marked:
        tops = [invert(next_rows(key.plane(key.width - 1))) for key in keys]
        wrong = yield from and_many(stage, "set-order-live", list(zip(wrong, tops, strict=True)))
    left, right = yield from evaluate(stage, "set-order-any", [any_row(bit) for bit in wrong])
    (both,) = yield from and_many(stage, "set-order-both", [(left, right)])
    return xor(xor(left, right), both)
