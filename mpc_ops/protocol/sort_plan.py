"""Which rows a quicksort compares, level by level: public bookkeeping from opened comparison bits alone, with no loop over rows.

The rows have unique keys and stand in a uniformly random secret order, so every opened bit is a function of a uniformly random
ranking: whatever is chosen from bits opened before, nothing depends on the data.

A segment is a run of places whose rows are known to belong there; each begins with `known` rows whose order among themselves is
known. A level compares, in every segment,

* with known rows: `pivots` of them, evenly spaced, with all the others: an even split;
* without: all pairs of a sample of about sqrt(SAMPLE * size) rows, and the first `pivots` of the sample with all the others;
* of at most SMALL rows: all pairs, which ends the segment.

Splits are nearly even for the price of about SAMPLE / 2 comparisons a row and sample. Segments much larger than the level's goal,
which are few, take more pivots, so that the last levels do not wait for them. For 100,000 rows:

| pivots | comparisons a row | levels | plain quicksort: comparisons | levels |
|---|---|---|---|---|
| 1 | 18.7 | 23 | 20.0 | 38 |
| 3 | 27.3 | 13 | 27.4 | 16 |
| 7 | 40 | 9 or 10 | 40.3 | 10 or 11 |

Everything is linear in the number of rows and pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError

__all__ = ["MAX_PIVOTS", "MAX_ROWS", "QuickPlan"]

Index = NDArray[np.int64]

MAX_ROWS = 1 << 27
MAX_PIVOTS = 15
SMALL = 6
SAMPLE = 0.5
PACE = 0.75
SLACK = 2
_BUCKET_BITS = 6


@dataclass(frozen=True, slots=True)
class _Level:
    """A level in progress; arrays over live places (segment after segment) or over segments."""

    segment: Index
    offset: Index
    first: Index
    sample: Index
    pivots: Index
    left: Index
    right: Index
    inner: int


class QuickPlan:
    """Quicksort of `count` rows in random order.

    Attributes:
        order: row at each place; final when `pairs` returns nothing.
        levels: levels so far.
        comparisons: comparisons so far.
    """

    def __init__(self, count: int, pivots: int) -> None:
        if not 1 <= pivots <= MAX_PIVOTS or count > MAX_ROWS:
            raise LocalProtocolError(
                "ROWS_INVALID", "too many rows, or another number of pivots than 1 to 15", got=count
            )
        self._pivots = pivots
        self.order: Index = np.arange(count, dtype=np.int64)
        self._goal = float(count)
        self.levels = self.comparisons = 0
        live = [0] if count > 1 else []
        self._start: Index = np.array(live, dtype=np.int64)
        self._size: Index = np.array([count] * len(live), dtype=np.int64)
        self._known: Index = np.zeros(len(live), dtype=np.int64)
        self._level: _Level | None = None

    def pairs(self) -> tuple[Index, Index] | None:
        """Return the rows (left, right) that the next level compares, or None at the end. The bits go to `take`."""
        if len(self._start) == 0:
            return None
        size, known = self._size, self._known
        self._goal /= (1 + self._pivots) ** PACE
        wanted = np.clip(np.ceil(size / max(self._goal, 1) - SLACK).astype(np.int64), self._pivots, MAX_PIVOTS)
        drawn = np.where(size <= SMALL, size, np.ceil(np.sqrt(SAMPLE * size)).astype(np.int64))
        # A sample smaller than the pivots would leave some of them out.
        drawn = np.minimum(np.maximum(drawn, wanted), size)
        sample = np.where(known > 0, known, drawn)
        pivots = np.minimum(wanted, sample)
        first = np.cumsum(size) - size
        offset = _ranges(np.zeros_like(size), size)
        segment = np.repeat(np.arange(len(size)), size)
        left, right, inner = self._compared(first, sample, pivots)
        self._level = _Level(segment, offset, first, sample, pivots, left, right, inner)
        self.levels += 1
        self.comparisons += len(left)
        place = self._start[segment] + offset
        rows = self.order[place]
        return rows[left], rows[right]

    def _compared(self, first: Index, sample: Index, pivots: Index) -> tuple[Index, Index, int]:
        """Return live places to compare: pairs within new samples, then pivots with the rest; and the number of the former."""
        fresh = np.where(self._known > 0, 0, sample)
        member = _ranges(first, fresh)
        after = np.repeat(first + fresh, fresh) - member - 1
        lefts, rights = [np.repeat(member, after)], [_ranges(member + 1, after)]
        rest = self._size - sample
        for number in range(int(pivots.max())):
            length = np.where(pivots > number, rest, 0)
            lefts.append(np.repeat(first + self._pivot_offset(number, sample, pivots), length))
            rights.append(_ranges(first + sample, length))
        return np.concatenate(lefts), np.concatenate(rights), len(lefts[0])

    def _pivot_offset(self, number: int, sample: Index, pivots: Index) -> Index:
        """Return where in its segment a pivot stands: evenly spaced among known rows, else first in the new sample."""
        return np.where(self._known > 0, (number + 1) * sample // (pivots + 1), number)

    def take(self, less: NDArray[np.bool_]) -> None:
        """Take the bits "left row's key < right row's key" of the pairs, and split the segments.

        Raises:
            LocalProtocolError: ROWS_INVALID for another number of bits, or without a level.
        """
        level = self._level
        if level is None or less.shape != level.left.shape:
            raise LocalProtocolError("ROWS_INVALID", "other comparison bits than the level's", got=less.shape)
        self._level = None
        live = len(level.segment)
        below = np.bincount(level.right[less], minlength=live)
        inner = ~less[: level.inner]
        below += np.bincount(level.left[: level.inner][inner], minlength=live)
        member = level.offset < level.sample[level.segment]
        # Ranks of known rows are their offsets.
        rank = np.where(self._known[level.segment] > 0, level.offset, below)
        bucket, pivot = self._buckets(level, member, rank, below)
        self._arrange(level, 2 * bucket + pivot, rank, member)

    def _buckets(self, level: _Level, member: NDArray[np.bool_], rank: Index, below: Index) -> tuple[Index, Index]:
        """Return for each live place the number of pivots below it, and whether it is a pivot."""
        pivot = np.zeros(len(rank), dtype=np.int64)
        for number in range(int(level.pivots.max())):
            has = level.pivots > number
            pivot[(level.first + self._pivot_offset(number, level.sample, level.pivots))[has]] = 1
        # Among sample members pivots are counted in the order of ranks.
        slot = (np.cumsum(level.sample) - level.sample)[level.segment[member]] + rank[member]
        flags = np.zeros(int(level.sample.sum()), dtype=np.int64)
        flags[slot] = pivot[member]
        before = np.cumsum(flags) - flags
        base = before[np.cumsum(level.sample) - level.sample]
        bucket = below.astype(np.int64)
        bucket[member] = before[slot] - base[level.segment[member]]
        return bucket, pivot

    def _arrange(self, level: _Level, bucket: Index, rank: Index, member: NDArray[np.bool_]) -> None:
        """Put each segment's rows in the order of (bucket, known rows first) and note the new segments."""
        inside = np.where(member, rank, level.offset + level.sample[level.segment])
        bits = int(inside.max()).bit_length()
        group = self._start[level.segment] << _BUCKET_BITS | bucket
        # One sort of words: the lowest bits say where a row came from, as `inside` is unique within a segment.
        keys = np.sort((group << bits | inside).astype(np.uint64)).astype(np.int64)
        group = keys >> bits
        inside = keys & ((1 << bits) - 1)
        places = self._start[level.segment] + level.offset
        self.order[places] = self.order[places][self._origin(level, inside, rank, member)]
        begins = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
        size = np.diff(np.concatenate([begins, [len(group)]]))
        is_member = inside < level.sample[level.segment]
        known = np.add.reduceat(is_member.astype(np.int64), begins)
        open_segments = (known < size) & (group[begins] & 1 == 0)
        self._start = places[begins][open_segments]
        self._size, self._known = size[open_segments], known[open_segments]

    def _origin(self, level: _Level, inside: Index, rank: Index, member: NDArray[np.bool_]) -> Index:
        """Return the live place that each row came from, by its segment and `inside`."""
        base = (np.cumsum(level.sample) - level.sample)[level.segment]
        came = np.empty(int(level.sample.sum()), dtype=np.int64)
        came[base[member] + rank[member]] = np.flatnonzero(member)
        is_member = inside < level.sample[level.segment]
        origin = level.first[level.segment] + inside - level.sample[level.segment]
        origin[is_member] = came[(base + inside)[is_member]]
        return origin


def _ranges(starts: Index, lengths: Index) -> Index:
    """Return the ranges starts[j] .. starts[j] + lengths[j] - 1 one after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    out: Index = np.repeat(starts - (ends - lengths), lengths)
    out += np.arange(total, dtype=np.int64)
    return out
