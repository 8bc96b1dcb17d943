"""Sort by shuffling and then comparing: row numbers are appended, rows shuffled, and comparison bits opened level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpc_ops.protocol.circuits.boolean import Circuit, evaluate
from mpc_ops.protocol.circuits.compare import less
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.opening import BitWords
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import AnyIndex, Rows, put_picked
from mpc_ops.protocol.core.shares import BooleanPlanes, boolean_of, public_like
from mpc_ops.protocol.order.shuffle import shuffle
from mpc_ops.protocol.order.sort_keys import NUMBER, SortKey, numbered, plain_columns, sort_planes
from mpc_ops.protocol.order.sort_plan import Places, QuickPlan
from mpc_ops.ring.planes import MAX_WIDTH, WORD_BITS, PlaneArray, from_planes, words_for

__all__ = ["LEAST_BLOCK", "NUMBER", "KeyWords", "block_size", "compared", "opened_bits", "quick_order", "quick_sort"]

LEAST_BLOCK = 1 << 18
"""Comparisons of a block, at least, times (1 + pivots) / 2: who takes more pivots wants fewer rounds, and gives memory for them."""
_BLOCKS = 4
"""With one pivot in a passive session a block has this part of the rows, so that a level has few blocks.

Twice as much with more pivots, and in an active session, where the proofs of a block cost more rounds than itself.
"""
_MOST_BLOCK = 1 << 20
"""Comparisons of a block, at most, times (1 + pivots) / 2: then its bytes weigh more than its rounds, and memory need not grow."""
_LATE = 2
"""Rounds between blocks. The first two steps hold most of a block's planes: so no two blocks are in them at the same time."""


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
    parts = [shuffled.bits(NUMBER), (yield from sort_planes(flow.stage, shuffled, keys))]
    # Keys without NULLs are in the sort key already, and come back from it: their planes are not kept twice.
    spared = {NUMBER, *(one.name for one in keys if one.valid is None)}
    rest = {name: column for name, column in shuffled.columns.items() if name not in spared}
    del shuffled
    words = KeyWords(parts)
    order = yield from quick_order(flow, words, pivots)
    columns = dict(Rows(rest).pick(order.astype(np.int64)).columns) if rest else {}
    del rest, order
    number = max(1, (rows.count - 1).bit_length())
    columns |= plain_columns(words.all_planes(flow)[number:], rows, keys)
    return Rows({name: columns[name] for name in rows.names})


def quick_order(flow: Flow, words: KeyWords, pivots: int) -> Steps[Places]:
    """Put keys that are all different and stand in a secret random order in order, and return the public order of their rows.

    Rounds: for each level those of `compared` with blocks of `block_size`, and those of one opening.
    Sent: for each level those of `compared`, and the opening of one bit for each comparison.
    Memory: beside `words` about 5 bytes a row and 5/8 w bytes for each of the comparisons of a block.
    Security: as `less` and `flow.open`.
    Leaks: the order of the rows that it is given, which says nothing if they were shuffled and no two keys are equal.
    """
    plan = QuickPlan(words.count, pivots, words.columns)
    while (pairs := plan.pairs()) is not None:
        size = block_size(flow.security, words.count, pivots)
        bits = yield from compared(flow, f"level{plan.levels}", words, pairs, size)
        del pairs
        opened = yield from opened_bits(flow, bits)
        plan.take(opened)
    return plan.order


def block_size(security: str, count: int, pivots: int) -> int:
    """Return how many comparisons are made at a time: whole words, enough that a block's bytes weigh more than its rounds."""
    part = _BLOCKS if (security, pivots) == ("passive", 1) else _BLOCKS // 2
    least, most = (limit * (1 + pivots) // 2 for limit in (LEAST_BLOCK, _MOST_BLOCK))
    return -(-min(max(least, count // part), most) // WORD_BITS) * WORD_BITS


def opened_bits(flow: Flow, blocks: Sequence[BooleanPlanes]) -> Steps[NDArray[np.bool_]]:
    """Open shares of one bit each and return all bits in order; rounds, bytes, errors: as `flow.open`."""
    counts = [block.count for block in blocks]
    opened = yield from flow.open([BitWords(block) for block in blocks])
    out = np.empty(sum(counts), dtype=np.bool_)
    place = 0
    for words, count in zip(opened, counts, strict=True):
        octets = words.astype("<u8", copy=False).view(np.uint8)
        out[place : place + count] = np.unpackbits(octets, count=count, bitorder="little").view(np.bool_)
        place += count
    return out


class Comparisons(Protocol):
    """Pairs of rows to compare."""

    def __len__(self) -> int:
        """Number of comparisons, at least 1."""

    def block(self, start: int, stop: int) -> tuple[AnyIndex, AnyIndex]:
        """Return the rows (left, right) of comparisons start .. stop - 1."""


def compared(flow: Flow, step: str, words: KeyWords, pairs: Comparisons, size: int) -> Steps[list[BooleanPlanes]]:
    """Return "left row's key < right row's key" in blocks of `size`, each of which begins two rounds after the one before.

    So a block costs two rounds instead of its depth, and of all blocks but one most planes do not exist yet, or any more. All blocks
    of a round are in one message.

    Rounds: 2 b - 1 + ceil(log2 w) for b blocks.  Sent: 8 ceil(m/64) (3 w - 2 - ceil(log2 w)) bytes per party for a block of m comparisons.
    Security, errors: as `less`.  Leaks: the number of comparisons.
    """
    starts = range(0, len(pairs), size)
    circuits = [
        _block(flow, words, pairs, slice(start, min(start + size, len(pairs))), _LATE * number)
        for number, start in enumerate(starts)
    ]
    found: list[BooleanPlanes] = yield from evaluate(flow.stage, step, circuits)
    return found


def _block(
    flow: Flow, words: KeyWords, pairs: Comparisons, part: slice, late: int
) -> Circuit[BooleanPlanes, BooleanPlanes]:
    """Return the comparisons of a block, whose planes are made when the steps have gone by that it is late."""
    for _ in range(late):
        yield []
    comparing = less(*(words.planes(flow, side) for side in pairs.block(part.start, part.stop)))
    bits = yield from comparing
    return bits


class KeyWords:
    """Both components of all keys row by row, so that any rows' planes are one gather and one transposition.

    Attributes:
        width: bits of a key.
        count: number of rows.
        columns: 64 bits of the first component of each row's key, the next 64, ..., and then of the second component; the last
            columns of both are as narrow as they can be.
    """

    def __init__(self, parts: list[BooleanPlanes]) -> None:
        """Begin with the planes of several shares, the first part lowest; the list is emptied, so that they are let go."""
        self.width, self.count = sum(part.width for part in parts), parts[0].count
        sides = [[part.first for part in parts], [part.second for part in parts]]
        parts.clear()
        self.columns: list[NDArray[np.unsignedinteger]] = []
        while sides:
            planes = np.concatenate(sides.pop(0))
            for low in range(0, self.width, MAX_WIDTH):
                part = planes[low : low + MAX_WIDTH]
                narrow = np.min_scalar_type((1 << len(part)) - 1)
                self.columns.append(from_planes(part, self.count).astype(narrow, copy=False))
            del planes

    def planes(self, flow: Flow, index: AnyIndex) -> BooleanPlanes:
        """Return the keys of some rows; rows may repeat."""
        half = len(self.columns) // 2
        first, second = (self._taken(side, index) for side in (self.columns[:half], self.columns[half:]))
        return boolean_of(flow.stage, len(index), first, second)

    def all_planes(self, flow: Flow) -> BooleanPlanes:
        """Return the keys of all rows."""
        return self.planes(flow, np.arange(self.count, dtype=np.int32))

    def _taken(self, words: list[NDArray[np.unsignedinteger]], index: AnyIndex) -> PlaneArray:
        out = np.empty((self.width, words_for(len(index))), dtype=np.uint64)
        for place, column in enumerate(words):
            put_picked(out[place * MAX_WIDTH : (place + 1) * MAX_WIDTH], column, index)
        return out
