"""Ranges of places one after another, read and written in pieces that stay in the cache: places are never all written out.

A level of a quicksort names several times as many places as there are rows, which as indices would be longer than the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Index", "PlaceRuns", "Places", "picked", "ranges"]

Index = NDArray[np.int64]
Places = NDArray[np.int32]
"""Row numbers: half as long as indices, because they are kept for every row."""

_PIECE = 1 << 15


class PlaceRuns:
    """Places starts[j] .. starts[j] + lengths[j] - 1 of every run j, one run after another.

    Attributes:
        count: number of places.
    """

    __slots__ = ("_ends", "_shift", "count")

    def __init__(self, starts: Index, lengths: Index) -> None:
        self._ends = np.cumsum(lengths)
        self._shift = starts - (self._ends - lengths)
        self.count = int(self._ends[-1]) if len(lengths) else 0

    def pieces(self, low: int = 0, high: int | None = None) -> Iterator[tuple[slice, slice, Index, Index | slice]]:
        """Cut places low .. high - 1 into pieces.

        Yields:
            Which places of all; which runs they are in; how many are in each of these runs; the places, as a slice within one run.
        """
        high = self.count if high is None else high
        for start in range(low, high, _PIECE):
            stop = min(start + _PIECE, high)
            first, last = np.searchsorted(self._ends, [start, stop - 1], side="right").tolist()
            runs = slice(first, last + 1)
            lengths = np.diff(np.minimum(self._ends[runs], stop), prepend=start)
            if first == last:
                shift = int(self._shift[first])
                yield slice(start, stop), runs, lengths, slice(start + shift, stop + shift)
                continue
            places: Index = np.repeat(self._shift[runs], lengths)
            places += np.arange(start, stop, dtype=np.int64)
            yield slice(start, stop), runs, lengths, places

    def written(self) -> Places:
        """Return all places, shape (count,)."""
        out = np.empty(self.count, dtype=np.int32)
        for part, _, _, places in self.pieces():
            out[part] = np.arange(places.start, places.stop) if isinstance(places, slice) else places
        return out

    def put(self, column: Places, values: Places) -> None:
        """Write values, shape (count,), to all places of a column."""
        for part, _, _, places in self.pieces():
            column[places] = values[part]


def ranges(starts: Index, lengths: Index) -> Index:
    """Return the places of all runs as one array; for few of them."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    out: Index = np.repeat(starts - (ends - lengths), lengths)
    out += np.arange(total, dtype=np.int64)
    return out


def picked(column: NDArray[Any], places: Places) -> NDArray[Any]:
    """Return the values at places of a column, which the caller has made, in pieces: numpy takes by 64-bit indices."""
    out = np.empty(len(places), dtype=column.dtype)
    for start in range(0, len(places), _PIECE):
        part = slice(start, start + _PIECE)
        # Mode `clip` spares numpy a second copy of what it takes.
        np.take(column, places[part].astype(np.int64), out=out[part], mode="clip")
    return out
