"""Median and quantiles: the rows at public ranks of the sorted order, found without sorting (quickselect), and at secret ranks.

Rows get numbers that make their keys unique and are shuffled; then comparison bits are opened, as in a sort, but only for the
rows between which a wanted rank can still lie (after Hoare's FIND; pivots from a sample as in Floyd and Rivest 1975). The opened
bits are functions of a uniformly random ranking and of the ranks, which are public.

For one rank of 100,000 rows about 2.2 comparisons a row are opened in about 9 levels; a sort opens 19 in 23.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import and_many, evaluate
from mpc_ops.protocol.circuits.compare import equal_public
from mpc_ops.protocol.circuits.convert import bits_to_ring, ring_to_bits
from mpc_ops.protocol.circuits.counts import lane_parity, on_every_row
from mpc_ops.protocol.circuits.divide import MAX_DIVISOR, divide_public
from mpc_ops.protocol.circuits.products import dot, segment_sums, times_public
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps, together
from mpc_ops.protocol.core.rows import Column, RowIndex, Rows, zero_bits, zeros_like
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, concat, public_like, repeat_plane
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.protocol.order.shuffle import shuffle
from mpc_ops.protocol.order.sort import sort
from mpc_ops.protocol.order.sort_keys import SortKey, check_keys, numbered, sort_planes
from mpc_ops.protocol.order.sort_quick import NUMBER, KeyWords, block_size, compared, opened_bits
from mpc_ops.ring.planes import public_planes

__all__ = ["median_ranks", "quantile", "select", "select_places"]

_SMALL = 48
"""Segments of so few rows are compared in all pairs, which ends them."""
_STEP = 0.25
"""A pivot that is expected to cut off less than this part is replaced by one beside the rank."""
_MOST = 1 << 62
"""What `divide_public` divides exactly is below this."""


def median_ranks(count: int) -> tuple[int, ...]:
    """Return the rank of the median, or the two ranks between which it lies; they may be averaged by the recipient."""
    if count < 1:
        raise LocalProtocolError("RANK_INVALID", "no rows have no median", got=count)
    return (count // 2,) if count % 2 else (count // 2 - 1, count // 2)


def select(flow: Flow, rows: Rows, keys: Sequence[SortKey], ranks: Sequence[int]) -> Steps[Rows]:
    """Return the rows that stand at public ranks of the sorted order, in the order of `ranks`.

    Run by: all three parties, in lock-step.

    Args:
        flow: a flow of either kind of session.
        rows: shape n; rows that are equal in all keys keep their order.
        keys: as in `sort`.
        ranks: public, 0 is the first row; each below n.

    Returns:
        The rows, still shared. A median or quantile of values is a single record's value: whether it may be opened is
        for the report's terms to say.

    Rounds: those of `shuffle`, 1 if a key has NULLs, and those of `select_places` for keys of w + l bits; none without ranks. Row
        numbers have l = ceil(log2 n) bits, at least 1, keys w with validity bits.
    Sent: `shuffle` of all columns and l bits; 8 ceil(n/64) bytes per party for each bit of a key with NULLs; `select_places`.
    Security: as `less` and `flow.open`.
    Leaks: n, the widths, the ranks; the opened bits say nothing more.

    Raises:
        LocalProtocolError: RANK_INVALID; as `sort`.
    """
    check_keys(rows, keys)
    if any(not 0 <= rank < rows.count for rank in ranks):
        raise LocalProtocolError("RANK_INVALID", "a rank is outside of the table", expected=f"below {rows.count}")
    if not ranks:
        return rows.pick(np.zeros(0, dtype=np.int64))
    like = rows.bits(keys[0].name)
    shuffled = yield from shuffle(flow, rows.plus({NUMBER: public_like(like, numbered(rows))}))
    words = KeyWords([shuffled.bits(NUMBER), (yield from sort_planes(flow.stage, shuffled, keys))])
    places = yield from select_places(flow, words, ranks)
    return shuffled.without(NUMBER).pick(places)


def select_places(flow: Flow, words: KeyWords, ranks: Sequence[int]) -> Steps[RowIndex]:
    """Return the public places of the rows at some ranks; keys are all different and stand in a secret random order.

    Rounds, sent: for each level those of sort_quick.compared with blocks of `block_size`, and of the opening of one bit for each of its
        comparisons.
    Security: as `less` and `flow.open`.  Leaks: those places, and bits about other rows, which say nothing if rows were shuffled.
    """
    plan = _Plan(words.count, ranks)
    size = block_size(flow.security, words.count, 1)
    level = 0
    while (pairs := plan.pairs()) is not None:
        bits = yield from compared(flow, f"select{level}", words, pairs, size)
        opened = yield from opened_bits(flow, bits)
        plan.take(opened)
        level += 1
    return np.array([plan.found[rank] for rank in ranks], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Rows that are compared."""

    left: RowIndex
    right: RowIndex

    def __len__(self) -> int:
        return len(self.left)

    def block(self, start: int, stop: int) -> tuple[RowIndex, RowIndex]:
        return self.left[start:stop], self.right[start:stop]


@dataclass
class _Segment:
    """Rows that stand at ranks start .. start + len(rows) - 1, among them wanted ones.

    Attributes:
        rows: places.
        start: first rank.
        ranks: wanted ranks.
        known: places of rows whose order among themselves is known, in that order.
        pivot: place that all others are compared with in this level; -1 for all pairs of `known`.
    """

    rows: RowIndex
    start: int
    ranks: tuple[int, ...]
    known: RowIndex = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pivot: int = -1

    def comparisons(self) -> tuple[RowIndex, RowIndex]:
        """Choose what this level compares."""
        size = len(self.rows)
        if size <= _SMALL:
            self.known, self.pivot = self.rows, -1
        elif len(self.known):
            self.pivot = int(self.known[self._choice()])
            others = self.rows[self.rows != self.pivot]
            return others, np.full(len(others), self.pivot, dtype=np.int64)
        else:
            # Places are in random order, so the first ones are a sample; its pairs are about a quarter of the rows.
            self.known, self.pivot = self.rows[: int(np.sqrt(size / 2))], -1
        one, other = np.triu_indices(len(self.known), 1)
        return self.known[one], self.known[other]

    def _choice(self) -> int:
        """Return which known row is the pivot: beyond the rank as seen from the nearer end, so that the larger part goes."""
        size, sample = len(self.rows), len(self.known)
        rank = self.ranks[len(self.ranks) // 2] - self.start
        share = (rank + 0.5) / size
        place = share * (sample + 1) - 1
        margin = 2 * float(np.sqrt(sample * share * (1 - share))) + 1
        beyond = place + margin if 2 * rank < size else place - margin
        cut = 1 - (beyond + 1) / (sample + 1) if 2 * rank < size else (beyond + 1) / (sample + 1)
        return min(max(round(beyond if cut >= _STEP else place), 0), sample - 1)

    def split(self, bits: np.ndarray[tuple[int], np.dtype[np.bool_]], found: dict[int, int]) -> list[_Segment]:
        """Take the level's bits (left below right), note what is found, and return what is left."""
        if self.pivot >= 0:
            others = self.rows[self.rows != self.pivot]
            return list(self._parts(others[bits], others[~bits], found))
        one, other = np.triu_indices(len(self.known), 1)
        below = np.bincount(np.where(bits, other, one), minlength=len(self.known))
        order = np.empty(len(self.known), dtype=np.int64)
        order[below] = self.known
        if len(order) == len(self.rows):
            found.update({rank: int(order[rank - self.start]) for rank in self.ranks})
            return []
        return [_Segment(self.rows, self.start, self.ranks, order)]

    def _parts(self, low: RowIndex, high: RowIndex, found: dict[int, int]) -> Iterable[_Segment]:
        middle = self.start + len(low)
        place = int(np.flatnonzero(self.known == self.pivot)[0])
        if middle in self.ranks:
            found[middle] = self.pivot
        lower = tuple(rank for rank in self.ranks if rank < middle)
        upper = tuple(rank for rank in self.ranks if rank > middle)
        if lower:
            yield _Segment(low, self.start, lower, self.known[:place])
        if upper:
            yield _Segment(high, middle + 1, upper, self.known[place + 1 :])


class _Plan:
    """Which rows are compared, level by level: from opened bits alone."""

    def __init__(self, count: int, ranks: Sequence[int]) -> None:
        self.found: dict[int, int] = {}
        self._live = [_Segment(np.arange(count, dtype=np.int64), 0, tuple(sorted(set(ranks))))]
        self._sizes: list[int] = []

    def pairs(self) -> _Pairs | None:
        """Return the places that this level compares, or None at the end."""
        while self._live and all(len(segment.rows) == 1 for segment in self._live):
            for segment in self._live:
                self.found[segment.start] = int(segment.rows[0])
            self._live = []
        if not self._live:
            return None
        chosen = [segment.comparisons() for segment in self._live]
        self._sizes = [len(left) for left, _ in chosen]
        return _Pairs(*(np.concatenate(side) for side in zip(*chosen, strict=True)))

    def take(self, bits: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        """Take the opened bits of this level."""
        cuts = np.cumsum(self._sizes)[:-1]
        parts = np.split(bits, cuts)
        self._live = [
            part for segment, mine in zip(self._live, parts, strict=True) for part in segment.split(mine, self.found)
        ]


def quantile(
    flow: Flow, rows: Rows, key: SortKey, columns: Sequence[str], part: tuple[int, int]
) -> Steps[tuple[Rows, BooleanPlanes]]:
    """Return the row at a quantile of the valid rows, whose number is secret: for filtered rows and values with NULLs.

    Run by: all three parties, in lock-step.

    Args:
        flow: a flow of either kind of session.
        rows: shape n.
        key: what is ordered; its validity column says which rows count.
        columns: columns of the result.
        part: (a, b) with 0 <= a <= b: the row of rank floor(a (v - 1) / b) among v valid rows; (1, 2) is the lower median. In
            lowest terms b is at most MAX_DIVISOR and a (n - 1) below 2^62.

    Returns:
        (a table of one row, a bit that says whether there was a valid row); all zeros if there was none, or no row at all.

    Rounds, one after another, with w = ceil(log2 n), at least 1: the sort of the key, its validity and `columns`; 2 for the number of
        valid rows; `divide_public` of one value by b in lowest terms; `ring_to_bits` of it, w bits; ceil(log2(w + 1)) for the row;
        1, or 3 with ring columns (1 more for every further 64 of them). None for no row.
    Sent: theirs; 16 n bytes per party for the number, 8 ceil(n/64) for each of w ANDs, and for each selected bit; with m > 0 ring
        columns 16 n + 8 m.
    Security: as `sort`, `divide_public`, `and_many` and `multiply`.
    Leaks: n, the widths, a and b; what a sort leaks.

    Raises:
        LocalProtocolError: RANK_INVALID, ROWS_INVALID.
    """
    check_keys(rows, [key])
    above, below = _lowest(part, rows.count)
    if key.valid is None or key.nulls_first:
        raise LocalProtocolError("RANK_INVALID", "a quantile is a part of valid rows, which stand before the others")
    if not rows.count:
        nothing = {name: zeros_like(column, 1) for name, column in rows.select(columns).columns.items()}
        return Rows(nothing), zero_bits(rows.bits(key.valid), 1)
    ordered = yield from sort(flow, rows.select(dict.fromkeys([key.name, key.valid, *columns])), [key])
    stage, count = flow.stage, rows.count
    flags = yield from bits_to_ring(stage, ordered.bits(key.valid))
    number = segment_sums(flags, np.array([count], dtype=np.int64))
    top = times_public(
        number.plus_public(np.array([-1 % (1 << 64)], dtype=np.uint64)), np.array([above], dtype=np.uint64)
    )
    rank = yield from divide_public(stage, top, below)
    width = max(1, (count - 1).bit_length())
    some = ordered.bits(key.valid)
    wanted = yield from ring_to_bits(stage, rank, width)
    # Without valid rows the rank is -1 and meets the last number if n is a power of two; no row of it is valid.
    numbers = np.concatenate([numbered(ordered), public_planes(1, 1, count)])
    here = equal_public(concat([on_every_row(wanted, count), some]), numbers)
    (chosen,) = yield from evaluate(stage, "rank", [here])
    found = yield from _chosen(stage, ordered.select(columns), chosen)
    return found, lane_parity(chosen, count)


def _lowest(part: tuple[int, int], count: int) -> tuple[int, int]:
    """Return a part in lowest terms; raises LocalProtocolError RANK_INVALID if it is none, or too fine to be exact."""
    above, below = part
    if not 0 <= above <= below or below < 1:
        raise LocalProtocolError(
            "RANK_INVALID", "a quantile is a part of the valid rows", expected="0 <= a <= b, b >= 1"
        )
    common = math.gcd(above, below)
    above, below = above // common, below // common
    if below > MAX_DIVISOR or above * max(1, count - 1) >= _MOST:
        raise LocalProtocolError(
            "RANK_INVALID", "a part is too fine for so many rows", expected=f"a (n - 1) below {_MOST}"
        )
    return above, below


def _chosen(stage: ComputeStage, rows: Rows, chosen: BooleanPlanes) -> Steps[Rows]:
    """Return the one row whose bit is 1 as a table of one row; zeros if there is none."""
    bits = {name: column for name, column in rows.columns.items() if isinstance(column, BooleanPlanes)}
    ring = {name: column for name, column in rows.columns.items() if isinstance(column, RingVector)}
    masked, summed = yield from together(
        and_many(stage, "chosen", [(column, repeat_plane(chosen, column.width)) for column in bits.values()]),
        _chosen_ring(stage, list(ring.values()), chosen),
    )
    picked: dict[str, Column] = {
        name: lane_parity(column, rows.count) for name, column in zip(bits, masked, strict=True)
    }
    picked.update(zip(ring, summed, strict=True))
    return Rows({name: picked[name] for name in rows.names})


def _chosen_ring(stage: ComputeStage, columns: Sequence[RingVector], chosen: BooleanPlanes) -> Steps[list[RingVector]]:
    if not columns:
        return []
    flag = yield from bits_to_ring(stage, chosen)
    result = yield from together(*(dot(stage, flag, column) for column in columns))
    return result
