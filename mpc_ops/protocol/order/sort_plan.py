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

Everything is linear in the number of rows and pairs, but one sort of words a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import Abort, LocalProtocolError

__all__ = ["MAX_PIVOTS", "MAX_ROWS", "Places", "QuickPlan"]

Index = NDArray[np.int64]
Places = NDArray[np.int32]
"""Row numbers: half as long as indices, because there are several for each row."""
Bits = NDArray[np.bool_]

MAX_ROWS = 1 << 30
MAX_PIVOTS = 15
SMALL = 6
SAMPLE = 0.5
SLACK = 2
_UNIT = 1 << 16
"""Goals are counted in 65,536ths of a row; they shrink by (1 + pivots)^(3/4) a level."""


@dataclass(frozen=True, slots=True)
class _Level:
    """A level in progress. A segment has `sample` members, the first rows of it, and `rest` other rows.

    Attributes:
        sample, rest, pivots: by segment.
        pivot_slots: for each number of a pivot: which segments have it, and its slot among all members.
        inner: pairs of slots that are compared.
        member_rows, rest_rows: rows, segment after segment.
        pairs: number of all comparisons.
    """

    sample: Index
    rest: Index
    pivots: Index
    pivot_slots: list[tuple[Bits, Index]]
    inner: tuple[Index, Index]
    member_rows: Places
    rest_rows: Places
    pairs: int


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
        self.order: Places = np.arange(count, dtype=np.int32)
        self._goal = count * _UNIT
        self._pace = isqrt(isqrt((1 + pivots) ** 3 * _UNIT**4))
        self.levels = self.comparisons = 0
        live = 1 if count > 1 else 0
        self._start: Index = np.zeros(live, dtype=np.int64)
        self._size: Index = np.full(live, count, dtype=np.int64)
        self._known: Index = np.zeros(live, dtype=np.int64)
        self._level: _Level | None = None

    def pairs(self) -> tuple[Places, Places] | None:
        """Return the rows (left, right) that the next level compares, or None at the end. The bits go to `take`."""
        if len(self._start) == 0:
            return None
        size, known = self._size, self._known
        # Integers only: all three parties must come to the same choice on any processor.
        self._goal = max(_UNIT, self._goal * _UNIT // self._pace)
        wanted = np.clip(-(-size * _UNIT // self._goal) - SLACK, self._pivots, MAX_PIVOTS)
        drawn = np.where(size <= SMALL, size, np.ceil(np.sqrt(SAMPLE * size)).astype(np.int64))
        # A sample smaller than the pivots would leave some of them out.
        drawn = np.minimum(np.maximum(drawn, wanted), size)
        sample = np.where(known > 0, known, drawn)
        pivots = np.minimum(wanted, sample)
        rest = size - sample
        member_rows = self.order[_ranges(self._start, sample)]
        rest_rows = self.order[_ranges(self._start + sample, rest)]
        base = np.cumsum(sample) - sample
        inner = self._inner_pairs(base, np.where(known > 0, 0, sample))
        lefts, rights, slots = [member_rows[inner[0]]], [member_rows[inner[1]]], []
        for number in range(int(pivots.max())):
            has = pivots > number
            # Evenly spaced among known rows, else the first of the new sample.
            slot = base + np.where(known > 0, (number + 1) * sample // (pivots + 1), number)
            slots.append((has, slot[has]))
            lefts.append(np.repeat(member_rows[slot[has]], rest[has]))
            rights.append(rest_rows if bool(has.all()) else rest_rows[np.repeat(has, rest)])
        left, right = np.concatenate(lefts), np.concatenate(rights)
        self._level = _Level(sample, rest, pivots, slots, inner, member_rows, rest_rows, len(left))
        self.levels += 1
        self.comparisons += len(left)
        return left, right

    @staticmethod
    def _inner_pairs(base: Index, fresh: Index) -> tuple[Index, Index]:
        """Return all pairs of slots within each new sample."""
        member = _ranges(base, fresh)
        after = np.repeat(base + fresh, fresh) - member - 1
        return np.repeat(member, after), _ranges(member + 1, after)

    def take(self, less: Bits) -> None:
        """Take the bits "left row's key < right row's key" of the pairs, and split the segments.

        Raises:
            LocalProtocolError: ROWS_INVALID for another number of bits, or without a level.
            Abort: PLACES_INVALID for bits that fit no order, which an active session cannot open.
        """
        level = self._level
        if level is None or less.shape != (level.pairs,):
            raise LocalProtocolError("ROWS_INVALID", "other comparison bits than the level's", got=less.shape)
        self._level = None
        inner = len(level.inner[0])
        ranked, pivot = self._ranked(level, less[:inner])
        self._arrange(level, ranked, pivot, self._buckets(level, less[inner:]))

    def _ranked(self, level: _Level, less: Bits) -> tuple[Index, Bits]:
        """Return the members' slots in the order of their keys, segment after segment, and which of these are pivots."""
        members = len(level.member_rows)
        base = np.cumsum(level.sample) - level.sample
        rank = np.bincount(level.inner[1][less], minlength=members)
        rank += np.bincount(level.inner[0][~less], minlength=members)
        own = np.repeat(base, level.sample)
        slots = np.arange(members, dtype=np.int64)
        known = np.repeat(self._known > 0, level.sample)
        ranked = np.full(members, -1, dtype=np.int64)
        # Known rows stand in their order.
        ranked[np.where(known, slots, own + rank)] = slots
        if int(ranked.min()) < 0:
            raise Abort(
                "PLACES_INVALID",
                "the opened comparisons of rows fit no order",
                hint="Keys were equal, or one party of a passive session went wrong",
            )
        pivot = np.zeros(members, dtype=np.bool_)
        for _, slot in level.pivot_slots:
            pivot[slot] = True
        return ranked, pivot[ranked]

    @staticmethod
    def _buckets(level: _Level, less: Bits) -> Index:
        """Return for each other row the number of its segment's pivots below it."""
        below = np.zeros(len(level.rest_rows), dtype=np.int64)
        place = 0
        for has, _ in level.pivot_slots:
            if bool(has.all()):
                below += less[place : place + len(below)]
                place += len(below)
            else:
                mask = np.repeat(has, level.rest)
                count = int(np.count_nonzero(mask))
                below[mask] += less[place : place + count]
                place += count
        return below

    def _arrange(self, level: _Level, ranked: Index, pivot: Bits, bucket: Index) -> None:
        """Put each segment's rows in the order bucket, pivot, bucket, ..., known rows first in a bucket; note the new segments.

        Groups are the buckets of all segments one after another: one more than pivots for each segment.
        """
        groups = level.pivots + 1
        base = np.cumsum(groups) - groups
        count = int(groups.sum())
        before: Index = np.cumsum(pivot, dtype=np.int64) - pivot
        starts = np.cumsum(level.sample) - level.sample
        member_group = before - np.repeat(before[starts] - base, level.sample)
        known = np.bincount(member_group[~pivot], minlength=count)
        bucket += np.repeat(base, level.rest)
        others = np.bincount(bucket, minlength=count)
        last = np.zeros(count, dtype=np.int64)
        last[base + level.pivots] = 1
        total = known + others + 1 - last
        place = np.cumsum(total) - total
        place += np.repeat(self._start - place[base], groups)
        rows = level.member_rows[ranked]
        self.order[_ranges(place, known)] = rows[~pivot]
        self.order[(place + known + others)[last == 0]] = rows[pivot]
        bits = len(bucket).bit_length()
        # One sort of words keeps the order within a group: the lowest bits say where a row came from.
        keys = np.sort(bucket.astype(np.uint64) << np.uint64(bits) | np.arange(len(bucket), dtype=np.uint64))
        origin = (keys & np.uint64((1 << bits) - 1)).astype(np.int64)
        self.order[_ranges(place + known, others)] = level.rest_rows[origin]
        unsorted = (others > 0) & (known + others > 1)
        self._start, self._size, self._known = place[unsorted], (known + others)[unsorted], known[unsorted]


def _ranges(starts: Index, lengths: Index) -> Index:
    """Return the ranges starts[j] .. starts[j] + lengths[j] - 1 one after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    out: Index = np.repeat(starts - (ends - lengths), lengths)
    out += np.arange(total, dtype=np.int64)
    return out
