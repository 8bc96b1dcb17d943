"""Sort by shuffling and then comparing: row numbers are appended, rows shuffled, and comparison bits opened level by level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.compare import less
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import RowIndex, Rows
from mpc_ops.protocol.core.shares import BooleanPlanes, boolean_of, concat, public_like
from mpc_ops.protocol.order.shuffle import shuffle
from mpc_ops.protocol.order.sort_keys import NUMBER, SortKey, numbered, sort_planes
from mpc_ops.protocol.order.sort_plan import Places, QuickPlan
from mpc_ops.ring import RingArray
from mpc_ops.ring.planes import MAX_WIDTH, WORD_BITS, PlaneArray, from_planes, to_planes, words_for

__all__ = ["LEVEL_BITS", "NUMBER", "KeyWords", "quick_order", "quick_sort"]

LEVEL_BITS = 1 << 27
"""Most bits of keys on one side of the comparisons of a block: messages of at most 16 MiB."""
_TAKEN_ROWS = 1 << 16


def quick_sort(flow: Flow, rows: Rows, keys: Sequence[SortKey], pivots: int) -> Steps[Rows]:
    """Return the rows in stable order; see sort.sort. Keys have been checked and there are at least two rows.

    Row numbers of l = ceil(log2 n) bits (at least 1) go below keys of w bits before the shuffle: so all keys differ, equal rows keep
    their order, and what is opened is the ranking of rows in random order, whatever the data.

    Rounds: those of `shuffle`, 1 if a key has NULLs, and those of `quick_order` for keys of w + l bits.
    Sent: `shuffle` of all columns and l bits; 8 ceil(n/64) bytes per party for each bit of a key with NULLs; `quick_order`.
    Security: malicious with abort in an active session.  Leaks: n, widths, and the number of comparisons of each level.
    Source: Hamada et al. ICISC'12 (quicksort after a shuffle, unique keys).
    """
    like = rows.bits(keys[0].name)
    shuffled = yield from shuffle(flow, rows.plus({NUMBER: public_like(like, numbered(rows))}))
    # The key goes to `quick_order` alone, which forgets its planes early.
    order = yield from quick_order(
        flow, concat([shuffled.bits(NUMBER), (yield from sort_planes(flow.stage, shuffled, keys))]), pivots
    )
    return shuffled.without(NUMBER).pick(order)


def quick_order(flow: Flow, key: BooleanPlanes, pivots: int) -> Steps[RowIndex]:
    """Return the public order of rows by keys that are all different and stand in a secret random order.

    Rounds: for each level 1 + ceil(log2 w) and those of one opening; levels of more than LEVEL_BITS / w comparisons are compared in
        several blocks of so many, one after another, so that memory and messages stay bounded.
    Sent: for each level of m comparisons 8 ceil(m/64) (3 w - 2 - ceil(log2 w)) bytes per party, and one opening of one bit each; for
        several blocks m is each block's.
    Security: as `less` and `flow.open`.
    Leaks: the order of the rows that it is given, which says nothing if they were shuffled and no two keys are equal.
    """
    plan = QuickPlan(key.count, pivots)
    words = KeyWords(key)
    # Planes are kept no longer than needed: a level's are several times as large as the rows.
    del key
    while (pairs := plan.pairs()) is not None:
        bits = yield from _compared(flow, f"level{plan.levels}", words, *pairs)
        del pairs
        opened = yield from flow.open(bits)
        plan.take(np.concatenate(opened).astype(np.bool_))
    return plan.order.astype(np.int64)


def _compared(flow: Flow, step: str, words: KeyWords, left: Places, right: Places) -> Steps[list[BooleanPlanes]]:
    """Return "left row's key < right row's key" in blocks of whole words."""
    size = max(WORD_BITS, LEVEL_BITS // words.width // WORD_BITS * WORD_BITS)
    blocks = [(start, left[start : start + size], right[start : start + size]) for start in range(0, len(left), size)]
    del left, right
    bits: list[BooleanPlanes] = []
    while blocks:
        # A comparison's positions and planes are let go as soon as the next step does not need them.
        start, *sides = blocks.pop(0)
        circuits = [less(*(words.planes(flow, sides.pop(0)) for _ in range(2)))]
        bits += yield from evaluate(flow.stage, step if not start else f"{step}/{start}", circuits)
    return bits


class KeyWords:
    """Both components of all keys row by row, so that any rows' planes are one gather and one transposition."""

    def __init__(self, key: BooleanPlanes) -> None:
        self.width = key.width
        self._sides = [self._words(planes, key.count) for planes in (key.first, key.second)]

    @staticmethod
    def _words(planes: PlaneArray, count: int) -> list[RingArray]:
        return [from_planes(planes[low : low + MAX_WIDTH], count) for low in range(0, len(planes), MAX_WIDTH)]

    def planes(self, flow: Flow, index: RowIndex | Places) -> BooleanPlanes:
        """Return the keys of some rows; rows may repeat."""
        first, second = (self._taken(side, index) for side in self._sides)
        return boolean_of(flow.stage, len(index), first, second)

    def _taken(self, words: list[RingArray], index: RowIndex | Places) -> PlaneArray:
        out = np.empty((self.width, words_for(len(index))), dtype=np.uint64)
        for low, column in zip(range(0, self.width, MAX_WIDTH), words, strict=True):
            width = min(MAX_WIDTH, self.width - low)
            for start in range(0, len(index), _TAKEN_ROWS):
                taken = np.take(column, index[start : start + _TAKEN_ROWS], mode="clip")
                place = slice(start // WORD_BITS, start // WORD_BITS + words_for(len(taken)))
                out[low : low + width, place] = to_planes(taken, width)
        return out
