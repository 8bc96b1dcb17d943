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

Everything is linear in the number of rows and pairs. What is longer than a few bytes a row is made in pieces (place_runs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import Abort, LocalProtocolError
from mpc_ops.protocol.order.place_runs import Index, PlaceRuns, Places, picked, ranges

__all__ = ["MAX_PIVOTS", "MAX_ROWS", "Pairs", "Places", "QuickPlan"]

Bits = NDArray[np.bool_]

MAX_ROWS = 1 << 30
MAX_PIVOTS = 15
SMALL = 6
SAMPLE = 0.5
SLACK = 2
_UNIT = 1 << 16
"""Goals are counted in 65,536ths of a row; they shrink by (1 + pivots)^(3/4) a level."""
_SEGMENTS = 1 << 13
"""Segments that are split at a time."""


@dataclass(frozen=True, slots=True)
class _Level:
    """A level in progress, by segment; a segment has `sample` members, the first rows of it, and `rest` other rows.

    Its comparisons are sections one after another: all pairs of new samples, then for each number of a pivot the other rows of all
    segments that have one of this number, each with that pivot.

    Attributes:
        start: place of its first row.
        known: how many of its first rows stand in their order; 0 before a sample is compared.
        sample, rest, pivots: numbers of members, of other rows, and of pivots.
    """

    start: Index
    known: Index
    sample: Index
    rest: Index
    pivots: Index

    def part(self, which: slice) -> _Level:
        """Return some of the segments."""
        return _Level(self.start[which], self.known[which], self.sample[which], self.rest[which], self.pivots[which])

    def slots(self, number: int) -> Index:
        """Return which member is the pivot of a number: evenly spaced among known rows, else the first of the new sample."""
        return np.where(self.known > 0, (number + 1) * self.sample // (self.pivots + 1), number)

    def fresh(self) -> Index:
        """Return the sizes of new samples."""
        return np.where(self.known > 0, 0, self.sample)

    def counts(self, pivots: int) -> list[int]:
        """Return the comparisons of each section, for so many numbers of pivots."""
        fresh = self.fresh()
        inner = int((fresh * (fresh - 1) // 2).sum())
        return [inner, *(int(self.rest[self.pivots > number].sum()) for number in range(pivots))]

    def inner(self, origin: Index) -> tuple[Index, PlaceRuns]:
        """Return each new sample's members, counted from `origin`, and those behind each that it is compared with."""
        fresh = self.fresh()
        member = ranges(origin, fresh)
        after = np.repeat(origin + fresh, fresh) - member - 1
        return member, PlaceRuns(member + 1, after)

    def against(self, number: int) -> tuple[Index, PlaceRuns]:
        """Return the places of all pivots of a number, and of the rows that each is compared with."""
        has = self.pivots > number
        return (self.start + self.slots(number))[has], PlaceRuns((self.start + self.sample)[has], self.rest[has])


class Pairs:
    """The places whose rows a level compares, made piece by piece: the comparisons are more than the rows.

    Attributes:
        count: number of comparisons.
    """

    def __init__(self, level: _Level, counts: Sequence[int]) -> None:
        self._level = level
        self._bounds = list(accumulate(counts, initial=0))
        self.count = self._bounds[-1]
        self._made: tuple[int, tuple[Index, PlaceRuns]] | None = None

    def __len__(self) -> int:
        return self.count

    def block(self, start: int, stop: int) -> tuple[Places, Places]:
        """Return the places (left, right) of comparisons start .. stop - 1; they hold until the level's bits are taken."""
        stop = min(stop, self.count)
        left, right = np.empty(stop - start, dtype=np.int32), np.empty(stop - start, dtype=np.int32)
        for number, (low, high) in enumerate(pairwise(self._bounds)):
            if max(start, low) < min(stop, high):
                one, runs = self._section(number)
                for part, which, lengths, places in runs.pieces(max(start, low) - low, min(stop, high) - low):
                    here = slice(part.start + low - start, part.stop + low - start)
                    left[here] = np.repeat(one[which], lengths)
                    right[here] = np.arange(places.start, places.stop) if isinstance(places, slice) else places
        return left, right

    def _section(self, number: int) -> tuple[Index, PlaceRuns]:
        if self._made is None or self._made[0] != number:
            made = self._level.inner(self._level.start) if number == 0 else self._level.against(number - 1)
            self._made = number, made
        return self._made[1]


class QuickPlan:
    """Quicksort of `count` rows in random order.

    Rows are moved to their places level by level, so that those which are compared with each other stand near each other.

    Attributes:
        order: row at each place; final when `pairs` returns nothing.
        levels: levels so far.
        comparisons: comparisons so far.
    """

    def __init__(self, count: int, pivots: int, columns: Sequence[NDArray[Any]] = ()) -> None:
        """Begin; `columns` hold a value for each row, shape (count,), and are moved in place as the rows are."""
        if not 1 <= pivots <= MAX_PIVOTS or count > MAX_ROWS:
            raise LocalProtocolError(
                "ROWS_INVALID", "too many rows, or another number of pivots than 1 to 15", got=count
            )
        self._pivots = pivots
        self.order: Places = np.arange(count, dtype=np.int32)
        self._columns = [self.order, *columns]
        self._goal = count * _UNIT
        self._pace = isqrt(isqrt((1 + pivots) ** 3 * _UNIT**4))
        self.levels = self.comparisons = 0
        live = 1 if count > 1 else 0
        self._start: Index = np.zeros(live, dtype=np.int64)
        self._size: Index = np.full(live, count, dtype=np.int64)
        self._known: Index = np.zeros(live, dtype=np.int64)
        self._level: tuple[_Level, list[int]] | None = None

    def pairs(self) -> Pairs | None:
        """Return what the next level compares, or None at the end. The bits go to `take`."""
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
        level = _Level(self._start, known, sample, size - sample, pivots)
        counts = level.counts(int(pivots.max()))
        self._level = level, counts
        self.levels += 1
        self.comparisons += sum(counts)
        return Pairs(level, counts)

    def take(self, less: Bits) -> None:
        """Take the bits "left row's key < right row's key" of the pairs, and split the segments.

        Raises:
            LocalProtocolError: ROWS_INVALID for another number of bits, or without a level.
            Abort: PLACES_INVALID for bits that fit no order, which an active session cannot open.
        """
        if self._level is None or less.shape != (sum(self._level[1]),):
            raise LocalProtocolError("ROWS_INVALID", "other comparison bits than the level's", got=less.shape)
        level, counts = self._level
        self._level = None
        # For each place, where its next row stands now.
        source: Places = np.arange(len(self.order), dtype=np.int32)
        reached = list(accumulate(counts, initial=0))[:-1]
        found: list[tuple[Index, Index, Index]] = []
        for low in range(0, len(level.start), _SEGMENTS):
            part = level.part(slice(low, low + _SEGMENTS))
            bits = []
            for section, count in enumerate(part.counts(len(counts) - 1)):
                bits.append(less[reached[section] : reached[section] + count])
                reached[section] += count
            ranked, pivot = self._ranked(part, bits.pop(0))
            found.append(self._arrange(part, ranked, pivot, self._buckets(part, bits), source))
        self._start, self._size, self._known = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        for column in self._columns:
            column[:] = picked(column, source)

    @staticmethod
    def _ranked(level: _Level, less: Bits) -> tuple[Index, Bits]:
        """Return the members' slots in the order of their keys, segment after segment, and which of these are pivots."""
        base = np.cumsum(level.sample) - level.sample
        members = int(level.sample.sum())
        rank = np.zeros(members, dtype=np.int64)
        slots = np.arange(members, dtype=np.int64)
        left, runs = level.inner(base)
        for part, which, lengths, right in runs.pieces():
            bits = less[part]
            rank += np.bincount(np.compress(bits, slots[right]), minlength=members)
            rank += np.bincount(np.compress(~bits, np.repeat(left[which], lengths)), minlength=members)
        known = np.repeat(level.known > 0, level.sample)
        ranked = np.full(members, -1, dtype=np.int64)
        # Known rows stand in their order.
        ranked[np.where(known, slots, np.repeat(base, level.sample) + rank)] = slots
        if int(ranked.min()) < 0:
            raise Abort(
                "PLACES_INVALID",
                "the opened comparisons of rows fit no order",
                hint="Keys were equal, or one party of a passive session went wrong",
            )
        pivot = np.zeros(members, dtype=np.bool_)
        for number in range(int(level.pivots.max())):
            pivot[(base + level.slots(number))[level.pivots > number]] = True
        return ranked, pivot[ranked]

    @staticmethod
    def _buckets(level: _Level, against: Sequence[Bits]) -> NDArray[np.uint8]:
        """Return for each other row the number of its segment's pivots below it."""
        below = np.zeros(int(level.rest.sum()), dtype=np.uint8)
        for number, less in enumerate(against):
            has = level.pivots > number
            if bool(has.all()):
                below += less.view(np.uint8)
            elif bool(has.any()):
                below[np.repeat(has, level.rest)] += less.view(np.uint8)
        return below

    @staticmethod
    def _arrange(
        level: _Level, ranked: Index, pivot: Bits, bucket: NDArray[np.uint8], source: Places
    ) -> tuple[Index, Index, Index]:
        """Put each segment's rows in the order bucket, pivot, bucket, ..., known rows first in a bucket; return the new segments.

        Groups are the buckets of all segments one after another: one more than pivots for each segment.
        """
        groups = level.pivots + 1
        base = np.cumsum(groups) - groups
        count = int(groups.sum())
        before: Index = np.cumsum(pivot, dtype=np.int64) - pivot
        starts = np.cumsum(level.sample) - level.sample
        member_group = before - np.repeat(before[starts] - base, level.sample)
        known = np.bincount(member_group[~pivot], minlength=count)
        others = _group_sizes(level, base, bucket)
        last = np.zeros(count, dtype=np.int64)
        last[base + level.pivots] = 1
        total = known + others + 1 - last
        place = np.cumsum(total) - total
        place += np.repeat(level.start - place[base], groups)
        members = ranges(level.start, level.sample)[ranked]
        rest = PlaceRuns(level.start + level.sample, level.rest).written()
        source[ranges(place, known)] = members[~pivot]
        source[(place + known + others)[last == 0]] = members[pivot]
        for value in range(int(level.pivots.max()) + 1):
            # A bucket's rows keep their order, segment after segment.
            group = (base + value)[level.pivots >= value]
            PlaceRuns((place + known)[group], others[group]).put(source, np.compress(bucket == value, rest))
        unsorted = (others > 0) & (known + others > 1)
        return place[unsorted], (known + others)[unsorted], known[unsorted]


def _group_sizes(level: _Level, base: Index, bucket: NDArray[np.uint8]) -> Index:
    """Return how many other rows each group has; the first group of segment j is base[j]."""
    count = int((level.pivots + 1).sum())
    sizes = np.zeros(count, dtype=np.int64)
    for part, which, lengths, _ in PlaceRuns(level.start, level.rest).pieces():
        sizes += np.bincount(np.repeat(base[which], lengths) + bucket[part], minlength=count)
    return sizes
