"""Shared tables: named columns of one length, Boolean or over Z_2^64, and row operations that need no message.

Column names, widths and the number of rows are public. NULLs are a column of their own: a validity bit. Everything here
is local: rows are picked, cut and stacked by public positions only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.core.shares import B, BooleanPlanes, RingVector
from mpc_ops.ring.planes import MAX_WIDTH, WORD_BITS, PlaneArray, from_planes, to_planes, words_for

__all__ = [
    "Column",
    "Rows",
    "aligned_blocks",
    "cut_block",
    "pick_planes",
    "pick_rows",
    "stack",
    "stack_columns",
    "zero_bits",
    "zeros_like",
]

Column: TypeAlias = BooleanPlanes | RingVector
RowIndex: TypeAlias = NDArray[np.int64]
AnyIndex: TypeAlias = NDArray[np.int64] | NDArray[np.int32]

_PICKED_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Rows:
    """A shared table.

    Attributes:
        columns: by name; all of one kind of session, one position and one number of rows. Their order is public and the
            same at all three positions.
    """

    columns: Mapping[str, Column]

    def __post_init__(self) -> None:
        if not self.columns:
            raise LocalProtocolError("ROWS_INVALID", "a table has at least one column")
        shapes = {(column.session, column.party, column.count) for column in self.columns.values()}
        if len(shapes) != 1:
            raise LocalProtocolError("ROWS_INVALID", "columns of different sessions, positions or numbers of rows")
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))

    @property
    def count(self) -> int:
        """Number of rows."""
        return next(iter(self.columns.values())).count

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(self.columns)

    def bits(self, name: str) -> BooleanPlanes:
        """Return a Boolean column; raises LocalProtocolError ROWS_INVALID if there is none of that name."""
        found = self.columns.get(name)
        if not isinstance(found, BooleanPlanes):
            raise LocalProtocolError("ROWS_INVALID", "no such Boolean column", got=name)
        return found

    def ring(self, name: str) -> RingVector:
        """Return a column over Z_2^64; raises LocalProtocolError ROWS_INVALID if there is none of that name."""
        found = self.columns.get(name)
        if not isinstance(found, RingVector):
            raise LocalProtocolError("ROWS_INVALID", "no such column over Z_2^64", got=name)
        return found

    def select(self, names: Iterable[str]) -> Rows:
        """Return some columns, in the given order."""
        wanted = list(names)
        missing = [name for name in wanted if name not in self.columns]
        if missing:
            raise LocalProtocolError("ROWS_INVALID", "no such column", got=", ".join(missing))
        return Rows({name: self.columns[name] for name in wanted})

    def without(self, *names: str) -> Rows:
        """Return all columns but some."""
        return Rows({name: column for name, column in self.columns.items() if name not in names})

    def plus(self, columns: Mapping[str, Column]) -> Rows:
        """Return the table with columns added at the end, or replaced in their place."""
        return Rows({**self.columns, **columns})

    def pick(self, index: RowIndex) -> Rows:
        """Return rows by public positions: row j of the result is row index[j]; rows may repeat or be left out."""
        return Rows({name: pick_rows(column, index) for name, column in self.columns.items()})

    def cut(self, start: int, stop: int) -> Rows:
        """Return rows start .. stop - 1."""
        if not 0 <= start <= stop <= self.count:
            raise LocalProtocolError("ROWS_INVALID", "a range of rows is outside of the table", got=f"{start}..{stop}")
        return self.pick(np.arange(start, stop, dtype=np.int64))

    def shape(self) -> tuple[tuple[str, int | None], ...]:
        """Return (name, width in bits, or None for Z_2^64) of every column: what is public besides the number of rows."""
        return tuple(
            (name, column.width if isinstance(column, BooleanPlanes) else None) for name, column in self.columns.items()
        )

    def __repr__(self) -> str:
        return f"Rows({self.count} rows, {', '.join(self.names)}, <redacted>)"


def zero_bits(like: B, count: int) -> B:
    """Return the share of `count` public zeros of the same kind and width."""
    shape = (like.width, words_for(count))
    return replace(like, count=count, first=np.zeros(shape, np.uint64), second=np.zeros(shape, np.uint64))


def zeros_like(column: Column, count: int) -> Column:
    """Return the share of `count` public zeros of the same kind, and width if it is Boolean."""
    if isinstance(column, BooleanPlanes):
        return zero_bits(column, count)
    return replace(column, first=np.zeros(count, np.uint64), second=np.zeros(count, np.uint64))


def aligned_blocks(count: int, rows: int) -> list[slice]:
    """Return blocks of about `rows` rows that begin at a multiple of 64, so that planes are cut between words; at least one."""
    size = max(WORD_BITS, rows // WORD_BITS * WORD_BITS)
    return [slice(start, min(start + size, count)) for start in range(0, max(count, 1), size)]


def cut_block(column: B, rows: slice) -> B:
    """Return the values of one of `aligned_blocks`; no message."""
    words = slice(rows.start // WORD_BITS, words_for(rows.stop))
    first, second = (np.ascontiguousarray(part[:, words]) for part in (column.first, column.second))
    return replace(column, count=rows.stop - rows.start, first=first, second=second)


def pick_rows(column: Column, index: RowIndex) -> Column:
    """Return the values at public positions, shape (m,); no message.

    Raises:
        LocalProtocolError: ROWS_INVALID for a position outside of the column.
    """
    if (
        index.dtype != np.int64
        or index.ndim != 1
        or (len(index) and not 0 <= index.min() <= index.max() < column.count)
    ):
        raise LocalProtocolError("ROWS_INVALID", "row positions are int64 within the table", expected=column.count)
    if isinstance(column, RingVector):
        return replace(column, first=column.first.take(index), second=column.second.take(index))
    first, second = (pick_planes(planes, column.count, index) for planes in (column.first, column.second))
    return replace(column, count=len(index), first=first, second=second)


def pick_planes(planes: PlaneArray, count: int, index: AnyIndex) -> PlaneArray:
    """Return planes of the values at positions that the caller has checked: value j is value index[j] of `count`."""
    out = np.empty((len(planes), words_for(len(index))), dtype=np.uint64)
    for low in range(0, len(planes), MAX_WIDTH):
        part = np.ascontiguousarray(planes[low : low + MAX_WIDTH])
        put_picked(out[low : low + MAX_WIDTH], from_planes(part, count), index)
    return out


def put_picked(out: PlaneArray, values: NDArray[np.unsignedinteger], index: AnyIndex) -> None:
    """Write to planes the values at positions that the caller has checked, piece by piece.

    Args:
        out: shape (w, ceil(m/64)), w at most 64.
        values: any unsigned words.
        index: shape (m,).
    """
    for start in range(0, len(index), _PICKED_ROWS):
        # Numpy takes by 64-bit indices. Mode `clip` spares it a second copy; the positions are within the column.
        part = index[start : start + _PICKED_ROWS].astype(np.int64, copy=False)
        taken = np.take(values, part, mode="clip").astype(np.uint64, copy=False)
        out[:, start // WORD_BITS : start // WORD_BITS + words_for(len(taken))] = to_planes(taken, len(out))


def stack_columns(columns: Sequence[Column]) -> Column:
    """Return the values of several columns one after another; no message.

    Raises:
        LocalProtocolError: ROWS_INVALID for columns of different kinds, sessions, positions or widths.
    """
    head = columns[0] if columns else None
    if head is None or any(
        type(one) is not type(head) or (one.session, one.party) != (head.session, head.party) for one in columns
    ):
        raise LocalProtocolError("ROWS_INVALID", "columns of different kinds, or none, cannot be stacked")
    if isinstance(head, RingVector):
        return replace(
            head,
            first=np.concatenate([one.first for one in columns]),
            second=np.concatenate([one.second for one in columns]),
        )
    widths = {one.width for one in columns if isinstance(one, BooleanPlanes)}
    if len(widths) != 1:
        raise LocalProtocolError("ROWS_INVALID", "columns of different widths cannot be stacked")
    counts = [one.count for one in columns]
    first = _stack_planes([one.first for one in columns], counts)
    second = _stack_planes([one.second for one in columns], counts)
    return replace(head, count=sum(counts), first=first, second=second)


def _stack_planes(planes: Sequence[PlaneArray], counts: Sequence[int]) -> PlaneArray:
    width = len(planes[0])
    if all(count % 64 == 0 for count in counts[:-1]):
        return np.concatenate(planes, axis=1)
    parts = []
    for low in range(0, width, MAX_WIDTH):
        high = min(low + MAX_WIDTH, width)
        pieces = zip(planes, counts, strict=True)
        values = [from_planes(np.ascontiguousarray(piece[low:high]), count) for piece, count in pieces]
        parts.append(to_planes(np.concatenate(values), high - low))
    return np.concatenate(parts) if parts else np.zeros((0, -(-sum(counts) // 64)), dtype=np.uint64)


def stack(tables: Sequence[Rows]) -> Rows:
    """Return the rows of several tables of the same columns one after another; no message.

    Raises:
        LocalProtocolError: ROWS_INVALID for other names, orders, kinds or widths.
    """
    if not tables or any(table.shape() != tables[0].shape() for table in tables):
        raise LocalProtocolError("ROWS_INVALID", "tables of different columns, or none, cannot be stacked")
    return Rows({name: stack_columns([table.columns[name] for table in tables]) for name in tables[0].names})
