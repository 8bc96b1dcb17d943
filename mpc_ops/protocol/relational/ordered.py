"""Tables sorted by a key: which neighbours are equal, where groups begin and end, and a group's first row copied to all its rows.

All rows of a group stand together, so a group is known by its first row (head) or last row (end), both secret bits. What holds for
a whole group is carried from its head to its other rows without looking at anything: either by a shuffle (constant rounds) or by
copying over doubling distances (logarithmic rounds, no opening). Source: telescoping differences are standard; see protocols such as
Asharov et al. CCS'23 for group-by after a sort. Both are written out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from mpc_ops.errors import Abort, LocalProtocolError
from mpc_ops.protocol.circuits.boolean import Circuit, and_many
from mpc_ops.protocol.circuits.compare import equal
from mpc_ops.protocol.circuits.convert import bits_to_ring
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps, together
from mpc_ops.protocol.core.rows import Column, Rows, stack, zero_bits, zeros_like
from mpc_ops.protocol.core.shares import (
    BooleanPlanes,
    RingVector,
    and_public,
    concat,
    invert,
    public_like,
    repeat_plane,
    xor,
)
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.protocol.order.shuffle import compact, shuffle
from mpc_ops.protocol.relational.row_planes import (
    multiply_all,
    next_rows,
    place_bits,
    public_flags,
    row_differences,
    running,
    shift_rows,
)
from mpc_ops.ring import RingArray
from mpc_ops.ring.planes import public_planes

__all__ = [
    "COPY_LIMIT",
    "VALID",
    "Key",
    "KeyPlanes",
    "blank_rows",
    "by_copying",
    "ends_of",
    "heads_of",
    "key_planes",
    "one_bit",
    "put_back",
    "same_as_next",
    "spread",
    "spread_by_copying",
    "spread_by_shuffle",
]

VALID = "valid"
"""The column of a result that says whether a row is one."""
COPY_LIMIT = 400
"""Bits times doublings up to which copying sends less than two shuffles of the rows."""
_ROW, _HEAD = "(spread row)", "(head)"


@dataclass(frozen=True, slots=True)
class Key:
    """A key column.

    Attributes:
        name: a Boolean column of w bits.
        valid: the column of its validity bit; None if it has no NULLs.
    """

    name: str
    valid: str | None = None


@dataclass(frozen=True, slots=True)
class KeyPlanes:
    """Several key columns as one number: the first key is the most significant, a key's validity bit stands above its value.

    Attributes:
        planes: n values; NULLs have the value 0, so that they equal one another and come before other values.
        parts: by column name, validity columns included, in order of the keys: its slice of the planes.
    """

    planes: BooleanPlanes
    parts: Mapping[str, slice]

    def columns(self, planes: BooleanPlanes) -> dict[str, BooleanPlanes]:
        """Return the key columns, in order of the keys, from planes that are laid out as these."""
        return {name: planes[part] for name, part in self.parts.items()}


def one_bit(rows: Rows, name: str) -> BooleanPlanes:
    """Return a column of one bit; raises LocalProtocolError ROWS_INVALID for another width."""
    bit = rows.bits(name)
    if bit.width != 1:
        raise LocalProtocolError("ROWS_INVALID", "a mark or validity has one bit", expected=1, got=bit.width)
    return bit


def key_planes(stage: ComputeStage, rows: Rows, keys: Sequence[Key]) -> Steps[KeyPlanes]:
    """Put key columns together, NULLs as 0.

    Rounds: 1, none if no key has NULLs.  Sent: 8 ceil(n/64) bytes per bit of the keys with NULLs.

    Raises:
        LocalProtocolError: ROWS_INVALID without a key, for a name that occurs twice, or a column that does not fit.
    """
    names = [name for key in keys for name in (key.name, key.valid) if name is not None]
    if not keys or len(set(names)) != len(names):
        raise LocalProtocolError("ROWS_INVALID", "keys are columns that differ, at least one")
    found = {key.name: rows.bits(key.name) for key in keys}
    flags = {key.name: one_bit(rows, key.valid) for key in keys if key.valid is not None}
    pairs = [(found[name], repeat_plane(flag, found[name].width)) for name, flag in flags.items()]
    if pairs:
        masked = yield from and_many(stage, "key-nulls", pairs)
        found.update(zip(flags, masked, strict=True))
    planes: list[BooleanPlanes] = []
    parts: dict[str, slice] = {}
    low = 0
    for key in reversed(keys):
        for name, column in ((key.name, found[key.name]), (key.valid, flags.get(key.name))):
            if name is not None and column is not None:
                planes.append(column)
                parts[name] = slice(low, low + column.width)
                low += column.width
    return KeyPlanes(concat(planes), MappingProxyType({name: parts[name] for name in names}))


# ------------------------------------------------------------------------------------------------- neighbours and groups


def same_as_next(key: BooleanPlanes, live: BooleanPlanes | None = None) -> Circuit[BooleanPlanes, BooleanPlanes]:
    """Return whether row j has the key of row j + 1, and row j + 1 is live; 0 in the last row.

    ANDs: w - 1 per row for w bits (w with `live`); depth ceil(log2 w) (of w + 1 with `live`).
    """
    here, there = key, next_rows(key)
    if live is not None:
        here = concat([here, public_like(live, public_planes(1, 1, live.count))])
        there = concat([there, next_rows(live)])
    same = yield from equal(here, there)
    flags = np.ones(key.count, dtype=np.uint64)
    flags[-1:] = 0
    return and_public(same, public_flags(flags))


def heads_of(same: BooleanPlanes) -> BooleanPlanes:
    """Return whether a row is the first of its group: the row before is another's. With `live`, a row that is not is alone."""
    return invert(shift_rows(same, 1))


def ends_of(same: BooleanPlanes, live: BooleanPlanes | None = None) -> BooleanPlanes:
    """Return whether a row is the last of its group; with `live` (live rows come first in a group) the last live one."""
    return invert(same) if live is None else xor(live, same)


# ----------------------------------------------------------------------------------------------------- rows put to zero


def blank_rows(stage: ComputeStage, keep: BooleanPlanes, rows: Rows) -> Steps[Rows]:
    """Return the rows with zeros wherever `keep` is 0.

    Run by: all three parties, in lock-step.

    Rounds: 1 for Boolean columns, 3 if there are columns over Z_2^64; none for no row.
    Sent: 8 w ceil(n/64) bytes for w Boolean bits, and 16 n + 8 m n for m > 0 columns over Z_2^64.
    Security, errors: as `and_many`, `multiply`.  Leaks: n and widths.
    """
    bits = [(name, column) for name, column in rows.columns.items() if isinstance(column, BooleanPlanes)]
    ring = [(name, column) for name, column in rows.columns.items() if isinstance(column, RingVector)]
    out = yield from together(
        and_many(stage, "blank-rows", [(repeat_plane(keep, column.width), column) for _, column in bits]),
        _blank_ring(stage, keep, [column for _, column in ring]),
    )
    found: dict[str, Column] = {name: column for (name, _), column in zip(bits, out[0], strict=True)}
    found.update({name: column for (name, _), column in zip(ring, out[1], strict=True)})
    return Rows({name: found[name] for name in rows.names})


def _blank_ring(stage: ComputeStage, keep: BooleanPlanes, columns: Sequence[RingVector]) -> Steps[list[RingVector]]:
    if not columns:
        return []
    flag = yield from bits_to_ring(stage, keep)
    result = yield from multiply_all(stage, [(flag, column) for column in columns])
    return result


# ------------------------------------------------------------------------------------------ a group's head to all its rows


def put_back(
    flow: Flow, rows: Rows, places: str, also: Sequence[BooleanPlanes] = ()
) -> Steps[tuple[Rows, list[RingArray]]]:
    """Return rows at the public positions that a secret column names: row j of the result is the row whose place is j.

    Run by: all three parties, in lock-step.

    Args:
        flow: the flow; one opening.
        rows: n rows.
        places: a Boolean column that holds every position 0 .. n - 1 once.
        also: what else is opened to all in the same opening.

    Returns:
        All other columns, and the values of `also`.

    Rounds: those of a shuffle and of an opening.  Sent: those of a shuffle of the rows and 8 ceil(n/64) bytes per bit of `places`
        in the opening.
    Leaks: n. The opened positions are in a uniformly random order, whatever the data.

    Raises:
        Abort: PLACES_INVALID if the places are no permutation.
    """
    mixed = yield from shuffle(flow, rows)
    opened, *values = yield from flow.open([mixed.bits(places), *also])
    order = np.argsort(opened, kind="stable").astype(np.int64)
    if not np.array_equal(opened.take(order), np.arange(rows.count, dtype=np.uint64)):
        raise Abort("PLACES_INVALID", "the opened places of rows are no permutation", ids=flow.stage.ids())
    return mixed.without(places).pick(order), values


def spread(flow: Flow, heads: BooleanPlanes, rows: Rows, *, clean: bool = False) -> Steps[Rows]:
    """Return rows in which every row has the values of its group's head.

    Args:
        flow: the flow.
        heads: n bits; row 0 is a head.
        rows: the columns to copy down.
        clean: the caller knows that all columns are 0 in rows that are no head.

    Rounds, bytes: those of `spread_by_copying` if all columns are Boolean and bits times ceil(log2 n) are at most COPY_LIMIT,
    else of `spread_by_shuffle`. Both depend on public sizes only.
    """
    if by_copying(rows):
        result = yield from spread_by_copying(flow.stage, heads, rows, clean=clean)
    else:
        result = yield from spread_by_shuffle(flow, heads, rows, clean=clean)
    return result


def by_copying(rows: Rows) -> bool:
    """Say whether `spread` copies such rows, so that nothing is opened: from public sizes alone."""
    columns = list(rows.columns.values())
    width = sum(column.width for column in columns if isinstance(column, BooleanPlanes))
    doublings = (rows.count - 1).bit_length()
    return all(isinstance(column, BooleanPlanes) for column in columns) and width * doublings <= COPY_LIMIT


def spread_by_copying(stage: ComputeStage, heads: BooleanPlanes, rows: Rows, *, clean: bool = False) -> Steps[Rows]:
    """As `spread`, for Boolean columns of w bits: each step copies over twice the distance of the last.

    Rounds: k = ceil(log2 n), and 1 unless clean.  Sent: 8 ceil(n/64) (k (w + 1) - 1) bytes for k > 0, and 8 w ceil(n/64) unless clean.
    Security: ANDs only.  Leaks: n and w; nothing is opened.
    """
    planes = concat([rows.bits(name) for name in rows.names])
    if not clean:
        (planes,) = yield from and_many(stage, "spread-heads", [(repeat_plane(heads, planes.width), planes)])
    waiting = invert(heads)
    distance = 1
    while distance < rows.count:
        pairs = [(repeat_plane(waiting, planes.width), shift_rows(planes, distance))]
        if 2 * distance < rows.count:
            pairs.append((waiting, shift_rows(waiting, distance)))
        products = yield from and_many(stage, f"spread/{distance}", pairs)
        # A row that still waits is 0, so adding is choosing.
        planes, waiting = xor(planes, products[0]), products[-1]
        distance *= 2
    out: dict[str, Column] = {}
    low = 0
    for name in rows.names:
        out[name] = planes[low : low + rows.bits(name).width]
        low += rows.bits(name).width
    return Rows(out)


def spread_by_shuffle(flow: Flow, heads: BooleanPlanes, rows: Rows, *, clean: bool = False) -> Steps[Rows]:
    """As `spread`, for any columns.

    Heads are partitioned off, each keeps what it has more than the head before, rows are put back, and running sums give every
    row its head's values.

    Run by: all three parties, in lock-step.

    Rounds: those of `blank_rows` unless clean, of `compact` and of `put_back`, for n + 1 rows with their places (ceil(log2(n + 1))
        bits). Sent: the sum of theirs.  Openings: the compaction's and one; both are random permutations.
    Security: theirs.  Leaks: n and widths.
    """
    if rows.count == 0:
        return rows
    if not clean:
        rows = yield from blank_rows(flow.stage, heads, rows)
    # One more head of zeros at the end: the first row behind the heads then differs by nothing.
    last = Rows({name: zeros_like(column, 1) for name, column in rows.columns.items()})
    all_heads = stack([Rows({"h": heads}), Rows({"h": invert(zero_bits(heads, 1))})]).bits("h")
    table = stack([rows, last])
    table = table.plus({_ROW: place_bits(all_heads), _HEAD: all_heads})
    parted = (yield from compact(flow, table, _HEAD)).without(_HEAD)
    steps = {name: row_differences(column) for name, column in parted.without(_ROW).columns.items()}
    back, _ = yield from put_back(flow, Rows({**steps, _ROW: parted.bits(_ROW)}), _ROW)
    return Rows({name: running(column) for name, column in back.columns.items()}).cut(0, rows.count)
