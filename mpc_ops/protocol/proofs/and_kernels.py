"""Local work of the proof of AND gates at level 1, in numpy: the specification, test oracle and fallback of compiled kernels.

Words are lanes: a block is `lanes` lanes of `slots` words, lane a holding words slots*a .. slots*(a+1)-1 of the block; a column
is one bit of one slot. The layout is public and fixed (64 lanes, 8 slots), so that operators with different kernels
understand each other. Padding words are zero and count as right gates.

The numpy fold reads tables at indices that depend on shares: on a host shared with others it leaks a little through the cache.
The compiled one (mpc_ops.kernels), which does the work of the public layout wherever it is there, has no such tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.kernels import calls, compiled
from mpc_ops.ring import RingArray, check_ring
from mpc_ops.ring.field61 import FIELD_61, FieldArray, PrimeField
from mpc_ops.ring.planes import WORD_BITS, transpose_bits

__all__ = ["PUBLIC_LAYOUT", "BlockLayout", "Components", "GatePile", "Side", "cross_gates", "fold_gates", "pad_words"]

_CHUNK_WORDS = 1 << 15
_PILE_WORDS = 8192
_SMALL_COLUMNS = 1 << 14
"""A fold of fewer columns looks up bytes: building tables of 2^16 entries would cost more than the fold."""


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """How gates are arranged and folded; the same at all three parties.

    Attributes:
        lanes: lanes of level 1, a power of two up to 64.
        slots: words per lane and block.
        inner: lanes of the second level, and of all later ones.
        inner_slots: elements per lane and block after level 1.
        last: most elements of the last level.
    """

    lanes: int = 64
    slots: int = 8
    inner: tuple[int, int] = (8, 16)
    inner_slots: int = 8
    last: int = 512

    @property
    def block_words(self) -> int:
        """Words per block."""
        return self.lanes * self.slots

    def padded(self, words: int) -> int:
        """Return the number of words with padding."""
        return -(-words // self.block_words) * self.block_words

    @property
    def fast(self) -> bool:
        """Whether compiled kernels do the work of this layout."""
        return (self.lanes, self.slots) == (calls.LANES, calls.SLOTS) and compiled()

    def levels(self, words: int) -> tuple[tuple[int, ...], int]:
        """Return (lanes of each level before the last, elements of the last level) for that many words."""
        size = 4 * self.padded(words) // self.lanes * WORD_BITS
        lanes = [self.lanes]
        while size > self.last:
            step = self.inner[0] if len(lanes) == 1 else self.inner[1]
            block = step * self.inner_slots
            lanes.append(step)
            size = -(-size // block) * self.inner_slots
        return tuple(lanes), size


PUBLIC_LAYOUT = BlockLayout()


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a batch of gates, padded to blocks: what prover and one verifier know.

    Attributes:
        x, y: the two inputs' component, in words.
        e: the side's part of the gate's error: x & y ^ z ^ r on the left, r on the right.
    """

    x: RingArray
    y: RingArray
    e: RingArray

    def __repr__(self) -> str:
        return f"Side(words={len(self.x)}, <redacted>)"


Components: TypeAlias = tuple[RingArray, RingArray]
"""The two components of a vector that a position holds."""


class GatePile:
    """Gate words of one batch, as its proof reads them: x, y, e = x & y ^ z ^ r and r of both components, zero-padded."""

    def __init__(self, layout: BlockLayout, most: int, *, room: int = 0) -> None:
        """Begin an empty pile for at most `most` words, with room for some."""
        self._layout, self._most = layout, most
        self._rows: NDArray[np.uint64] = np.empty((8, layout.padded(room)), dtype=np.uint64)
        self.words = 0

    def add(self, x: Components, y: Components, z: Components, r: Components, part: slice) -> None:
        """Copy a part of some gate words; it fits what is left of `most`."""
        size = part.stop - part.start
        self._grow(self.words + size)
        for start in range(0, size, _PILE_WORDS):
            stop = min(start + _PILE_WORDS, size)
            taken, place = slice(part.start + start, part.start + stop), slice(self.words + start, self.words + stop)
            for component in (0, 1):
                to_x, to_y, error, mask = (row[place] for row in self._rows[4 * component : 4 * component + 4])
                to_x[:], to_y[:], mask[:] = x[component][taken], y[component][taken], r[component][taken]
                np.bitwise_and(to_x, to_y, out=error)
                error ^= z[component][taken]
                error ^= mask
        self.words += size

    def _grow(self, words: int) -> None:
        room = self._rows.shape[1]
        if words <= room:
            return
        wider = np.empty((8, self._layout.padded(max(words, min(4 * room, self._most)))), dtype=np.uint64)
        wider[:, : self.words] = self._rows[:, : self.words]
        self._rows = wider

    def sides(self) -> tuple[Side, Side, Side, Side]:
        """Return (x, y, e) and (x, y, r) of the first component, then of the second, with zeros up to a whole block."""
        end = self._layout.padded(self.words)
        self._rows[:, self.words : end] = 0
        x0, y0, e0, r0, x1, y1, e1, r1 = (row[:end] for row in self._rows)
        return Side(x0, y0, e0), Side(x0, y0, r0), Side(x1, y1, e1), Side(x1, y1, r1)

    def __repr__(self) -> str:
        return f"GatePile(words={self.words}, <redacted>)"


def pad_words(parts: Sequence[RingArray], layout: BlockLayout) -> RingArray:
    """Return the parts as one vector, with zeros up to a whole block."""
    words = sum(len(part) for part in parts)
    out = np.zeros(layout.padded(words), dtype=np.uint64)
    place = 0
    for part in parts:
        out[place : place + len(part)] = check_ring(part)
        place += len(part)
    return out


def _lane_major(words: RingArray, layout: BlockLayout) -> RingArray:
    """Return whole blocks with each lane's words of all blocks side by side, flat."""
    blocks = words.reshape(-1, layout.lanes, layout.slots)
    return np.ascontiguousarray(blocks.transpose(1, 0, 2)).reshape(-1)


def cross_gates(left: Side, right: Side, layout: BlockLayout) -> list[int]:
    """Return R as integers: R[d + lanes - 1] = sum over lanes a - b = d and columns of (-1)^E.

    E = x_a & y'_b ^ y_a & x'_b ^ e_a ^ e'_b. Five logic operations and a population count per word and pair of lanes.

    Raises:
        LocalProtocolError: GATES_INVALID if a side is not made of whole blocks.
    """
    words = len(left.x)
    if words % layout.block_words or any(len(side) != words for side in (left.y, left.e, right.x, right.y, right.e)):
        raise LocalProtocolError("GATES_INVALID", "a batch of gates is not made of whole blocks", got=words)
    if layout.fast:
        found: list[int] = calls.and_cross((left.x, left.y, left.e), (right.x, right.y, right.e)).tolist()
        return found
    totals = [0] * (2 * layout.lanes - 1)
    chunk = max(1, _CHUNK_WORDS // layout.block_words) * layout.block_words
    first, second = np.empty(chunk, dtype=np.uint64), np.empty(chunk, dtype=np.uint64)
    counts = np.empty(chunk, dtype=np.uint8)
    for start in range(0, words, chunk):
        part = slice(start, start + chunk)
        x, y, e = (_lane_major(side[part], layout) for side in (left.x, left.y, left.e))
        other_x, other_y, other_e = (_lane_major(side[part], layout) for side in (right.x, right.y, right.e))
        lane = len(x) // layout.lanes
        for degree in range(-(layout.lanes - 1), layout.lanes):
            size = (layout.lanes - abs(degree)) * lane
            a, b = slice(max(degree, 0) * lane, None), slice(max(-degree, 0) * lane, None)
            error, term, count = first[:size], second[:size], counts[:size]
            np.bitwise_and(x[a][:size], other_y[b][:size], out=error)
            np.bitwise_and(y[a][:size], other_x[b][:size], out=term)
            error ^= term
            error ^= e[a][:size]
            error ^= other_e[b][:size]
            np.bitwise_count(error, out=count)
            totals[degree + layout.lanes - 1] += WORD_BITS * size - 2 * int(count.sum(dtype=np.uint64))
    return totals


def _tables(coefficients: Sequence[int], field: PrimeField, bits: int) -> list[FieldArray]:
    """Return a table per `bits` lanes: table q at v = sum of the coefficients of the bits of v, from lane bits q on."""
    out = []
    for start in range(0, len(coefficients), bits):
        table = np.zeros(1, dtype=np.uint64)
        for coefficient in coefficients[start : start + bits]:
            table = np.concatenate([table, field.reduce(table + np.uint64(coefficient))])
        out.append(table)
    return out


def _columns(words: RingArray, layout: BlockLayout) -> RingArray:
    """Return one word per column (bit major, slot minor in each block); bit a of it is lane a."""
    blocks = words.reshape(-1, layout.lanes, layout.slots)
    rows = np.zeros((len(blocks), WORD_BITS, layout.slots), dtype=np.uint64)
    rows[:, : layout.lanes] = blocks
    transpose_bits(rows)
    return rows.reshape(-1)


def _look_up(tables: Sequence[FieldArray], words: NDArray[np.uint64], bits: int, field: PrimeField) -> FieldArray:
    mask = np.uint64((1 << bits) - 1)
    total = np.take(tables[0], words & mask)
    for place, table in enumerate(tables[1:], start=1):  # at most 8 elements of 61 bits
        total += np.take(table, (words >> np.uint64(bits * place)) & mask)
    return field.reduce(total)


def fold_gates(
    side: Side, coefficients: FieldArray, layout: BlockLayout, field: PrimeField, *, right: bool
) -> FieldArray:
    """Return the folded vector of a side: four components, one after the other, of one element per column.

    Left: sum_a c_a s_a (1, x_a, y_a, x_a y_a); right: sum_b c_b s_b (1, -2 y_b, -2 x_b, 4 x_b y_b), with s = (-1)^e.
    Lengths: 4 * words * 64 / lanes.
    """
    words = len(side.x)
    out = np.empty((4, words // layout.lanes * WORD_BITS), dtype=np.uint64)
    if layout.fast and field is FIELD_61:
        calls.and_fold((side.x, side.y, side.e), coefficients, out, right=right)
        return out.reshape(-1)
    weights = [int(value) for value in coefficients]
    bits = 8 if out.shape[1] < _SMALL_COLUMNS else 16
    tables, everything = _tables(weights, field, bits), sum(weights) % field.p
    twice = np.uint64(2 * field.p)
    chunk = max(1, (_CHUNK_WORDS >> 3) // layout.block_words) * layout.block_words
    for start in range(0, words, chunk):
        part = slice(start, start + chunk)
        x, y, e = (_columns(vector[part], layout) for vector in (side.x, side.y, side.e))
        place = slice(start // layout.lanes * WORD_BITS, start // layout.lanes * WORD_BITS + len(x))
        for component, word in enumerate((None, x, y, x & y)):
            plain = np.uint64(everything) if word is None else _look_up(tables, word, bits, field)
            signed = _look_up(tables, e if word is None else word & e, bits, field)
            out[component, place] = field.reduce(plain + (twice - (signed << np.uint64(1))))
    if not right:
        return out.reshape(-1)
    doubled = [field.reduce(twice - (out[component] << np.uint64(1))) for component in (2, 1)]
    return np.concatenate([out[0], *doubled, field.reduce(out[3] << np.uint64(2))])
