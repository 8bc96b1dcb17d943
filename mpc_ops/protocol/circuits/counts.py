"""Counting on Boolean shares: how many units a cell holds, whether any, and tables of cells x units as planes.

A *membership* table has one plane per cell and one bit per unit: bit u of plane c says that unit u is in cell c; the number
of units is a multiple of 64, so that no tail is counted. A count is one lane per cell.

XOR is free, so a column of n bits of one weight becomes its sum bit without a message and n // 2 carries at AND-depth 1: full
adders chained along the column, each with the running parity as one input. All bits of all words of a table are one column
first; the 64 bits of a word are added once its words have been, in the same steps.

| circuit | AND words (8 bytes each) | depth |
|---|---|---|
| `popcount` of c cells, u = 64 w units | c (w - ones(w)) + ceil(c / 64) t(w) | floor(log2 u) |
| `any_in_groups` of g groups of s planes of w words | g (s - 1) w | ceil(log2 s) |
| `any_unit` of c cells, 64 w units | c (w - 1) + 63 ceil(c / 64) | ceil(log2 w) + 6 |

ones(w) is the number of ones in w; t(w) = sum of n_j // 2 for j < floor(log2 u), where n_j = n_{j-1} // 2 + 64 [w >= 2^j] is the
number of bits of weight 2^j. A `Cost` says both; costs of circuits add up the way the circuits are put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import Circuit
from mpc_ops.protocol.core.rows import pick_rows, stack_columns
from mpc_ops.protocol.core.shares import BooleanPlanes, concat, public_like, xor
from mpc_ops.ring.planes import MAX_WIDTH, WORD_BITS, PlaneArray, from_planes, public_planes, to_planes, words_for

__all__ = [
    "Bits",
    "Cost",
    "any_cost",
    "any_in_groups",
    "any_unit",
    "any_unit_cost",
    "count_planes",
    "count_planes_cost",
    "lane_parity",
    "less_public_cost",
    "log2_up",
    "on_every_row",
    "popcount",
    "popcount_cost",
    "seated",
    "side_by_side",
    "spread",
    "stacked",
    "take",
    "widened",
]

Bits = BooleanPlanes
_ONES = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class Cost:
    """What a circuit costs each party.

    Attributes:
        depth: steps, each a round.
        words: AND words of 64 gates; 8 bytes each.
    """

    depth: int = 0
    words: int = 0

    def then(self, *others: Cost) -> Cost:
        """Return the cost of circuits one after another."""
        return Cost(self.depth + sum(one.depth for one in others), self.words + sum(one.words for one in others))

    def beside(self, *others: Cost) -> Cost:
        """Return the cost of circuits side by side."""
        return Cost(max(self.depth, *(one.depth for one in others)), self.words + sum(one.words for one in others))


def log2_up(number: int) -> int:
    """Return ceil(log2 number) for a number of at least 1."""
    return (number - 1).bit_length()


# --------------------------------------------------------------------------------------------------------- local helpers


def take(share: Bits, index: NDArray[np.int64]) -> Bits:
    """Return the values at public positions (`rows.pick_rows`); no message."""
    out = pick_rows(share, index)
    if not isinstance(out, BooleanPlanes):  # pragma: no cover - of planes come planes
        raise LocalProtocolError("PLANES_INVALID", "planes are wanted")
    return out


def stacked(shares: Sequence[Bits]) -> Bits:
    """Return the values of shares of one width one after another (`rows.stack_columns`); no message."""
    out = stack_columns(shares)
    if not isinstance(out, BooleanPlanes):  # pragma: no cover - of planes come planes
        raise LocalProtocolError("PLANES_INVALID", "planes are wanted")
    return out


def widened(share: Bits, width: int) -> Bits:
    """Return the same values with public zeros as higher planes, at least `width` wide; no message."""
    missing = width - share.width
    return share if missing <= 0 else concat([share, public_like(share, public_planes(0, missing, share.count))])


def spread(bit: Bits, words: int) -> Bits:
    """Return one plane of `words` words per lane of `bit`, all of whose bits are that lane's bit; no message."""

    def full(planes: PlaneArray) -> PlaneArray:
        lanes = np.negative(from_planes(planes, bit.count)).reshape(-1, 1)
        return np.ascontiguousarray(np.broadcast_to(lanes, (bit.count, words)))

    return replace(bit, count=WORD_BITS * words, first=full(bit.first), second=full(bit.second))


def on_every_row(value: Bits, count: int) -> Bits:
    """Return the one value of `value` as a value of each of `count` rows; no message."""

    def rows(planes: PlaneArray) -> PlaneArray:
        full = np.negative(planes[:, :1] & np.uint64(1))
        return np.ascontiguousarray(np.repeat(full, words_for(count), axis=1))

    return replace(value, count=count, first=rows(value.first), second=rows(value.second))


def seated(column: Bits, seats: NDArray[np.int64]) -> Bits:
    """Return plane t of lane i as lane `seats[t, i]` of the one plane of `column`; no message."""

    def planes(source: PlaneArray) -> PlaneArray:
        lanes = from_planes(source, column.count)
        parts = []
        for low in range(0, len(seats), MAX_WIDTH):
            some = seats[low : low + MAX_WIDTH]
            shifts = np.arange(len(some), dtype=np.uint64)[:, None]
            parts.append(to_planes(np.bitwise_or.reduce(lanes[some] << shifts, axis=0), len(some)))
        return np.concatenate(parts)

    return replace(column, count=seats.shape[1], first=planes(column.first), second=planes(column.second))


def lane_parity(share: Bits, size: int) -> Bits:
    """Return the XOR of every `size` consecutive lanes (the last group may be shorter); no message."""
    groups = -(-share.count // size)

    def parity(planes: PlaneArray) -> PlaneArray:
        values = np.zeros(groups * size, dtype=np.uint64)
        values[: share.count] = from_planes(planes, share.count)
        return to_planes(np.bitwise_xor.reduce(values.reshape(groups, size), axis=1), share.width)

    return replace(share, count=groups, first=parity(share.first), second=parity(share.second))


def _lanes_of_words(column: Bits, cells: int) -> Bits:
    """Return the one plane of 64 bits per cell as 64 planes of one lane per cell; no message."""
    first, second = (to_planes(planes.reshape(-1), WORD_BITS) for planes in (column.first, column.second))
    return replace(column, count=cells, first=first, second=second)


# --------------------------------------------------------------------------------------------------------------- circuits


def side_by_side(circuits: Sequence[Circuit[Bits, Any]]) -> Circuit[Bits, list[Any]]:
    """Run circuits in the same steps, as one circuit; results in order. ANDs: those of all; depth: that of the deepest."""
    results: list[Any] = [None] * len(circuits)
    wanted: dict[int, Sequence[tuple[Bits, Bits]]] = {}

    def step(place: int, products: Sequence[Bits] | None, into: dict[int, Sequence[tuple[Bits, Bits]]]) -> None:
        circuit = circuits[place]
        try:
            into[place] = next(circuit) if products is None else circuit.send(products)
        except StopIteration as stop:
            results[place] = stop.value

    for place in range(len(circuits)):
        step(place, None, wanted)
    while wanted:
        products = yield [pair for pairs in wanted.values() for pair in pairs]
        following: dict[int, Sequence[tuple[Bits, Bits]]] = {}
        start = 0
        for place, pairs in wanted.items():
            step(place, products[start : start + len(pairs)], following)
            start += len(pairs)
        wanted = following
    return results


def _adders(column: Bits) -> tuple[Bits, tuple[Bits, Bits], Bits]:
    """Return (sum bit, factors of the carries' AND, what the products are XORed with) of a column of one weight.

    Full adder k takes the parity s of the planes before it and two planes a, b: carry = (s ^ a)(s ^ b) ^ s. An even column
    ends with a half adder, which is a full one with b = 0.
    """

    def parts(planes: PlaneArray) -> tuple[PlaneArray, PlaneArray, PlaneArray, PlaneArray]:
        bits = len(planes)
        running = np.bitwise_xor.accumulate(planes, axis=0)
        s = np.ascontiguousarray(running[0 : bits - 1 : 2])
        left, right = s ^ planes[1::2], s.copy()
        right[: (bits - 1) // 2] ^= planes[2::2]
        return running[-1:].copy(), left, right, s

    first, second = parts(column.first), parts(column.second)
    total, left, right, s = (replace(column, first=one, second=other) for one, other in zip(first, second, strict=True))
    return total, (left, right), s


def popcount(members: Bits) -> Circuit[Bits, Bits]:
    """Return how many bits of each plane are set, as one lane per plane.

    Args:
        members: c planes of u bits, u a multiple of 64 and not 0.

    Returns:
        c values of bit_length(u) bits.

    AND words: c (w - ones(w)) + ceil(c/64) t(w) for u = 64 w, see the module; depth floor(log2 u). `popcount_cost`.

    Raises:
        LocalProtocolError: PLANES_INVALID for no planes, no bits, or a tail that would be counted.
    """
    cells, words = members.first.shape
    if not cells or not words or members.count % WORD_BITS:
        raise LocalProtocolError("PLANES_INVALID", "a membership table has whole words", got=members.count)
    columns = [np.ascontiguousarray(planes.T) for planes in (members.first, members.second)]
    fine: Bits | None = replace(members, count=WORD_BITS * cells, first=columns[0], second=columns[1])
    carries: Bits | None = None
    out: list[Bits] = []
    width = members.count.bit_length()
    for weight in range(width):
        wanted: list[tuple[Bits, Bits]] = []
        finer: Bits | None = None
        coarse = [carries] if carries is not None else []
        if fine is not None:
            total, pair, finer = _adders(fine)
            coarse.append(_lanes_of_words(total, cells))
            wanted += [pair] if finer.width else []
        total, pair, rest = _adders(concat(coarse))
        out.append(total)
        if weight == width - 1:  # the count is at most u: whatever this column would carry is 0
            break
        products = yield [*wanted, pair]
        fine = xor(products[0], finer) if finer is not None and finer.width else None
        carries = xor(products[-1], rest)
    return concat(out)


def popcount_cost(cells: int, units: int) -> Cost:
    """Return the cost of `popcount`."""
    words, bits, coarse = units // WORD_BITS, 0, 0
    for weight in range(units.bit_length() - 1):
        bits = bits // 2 + (WORD_BITS if words >> weight else 0)
        coarse += bits // 2
    return Cost(units.bit_length() - 1, cells * (words - words.bit_count()) + words_for(cells) * coarse)


def count_planes(planes: Bits) -> Circuit[Bits, Bits]:
    """Return how many planes are set in each lane: values of bit_length(w) bits.

    ANDs per lane: w - ones(w) for w planes; depth floor(log2 w). `count_planes_cost`.
    """
    column, out = planes, []
    width = planes.width.bit_length()
    for weight in range(width):
        total, pair, rest = _adders(column)
        out.append(total)
        if weight < width - 1:
            (product,) = yield [pair]
            column = xor(product, rest)
    return concat(out)


def count_planes_cost(lanes: int, planes: int) -> Cost:
    """Return the cost of `count_planes`: planes - ones(planes) ANDs a lane."""
    return Cost(planes.bit_length() - 1, (planes - planes.bit_count()) * words_for(lanes))


def any_in_groups(planes: Bits, groups: int) -> Circuit[Bits, Bits]:
    """Return the OR of every s = `width / groups` consecutive planes, one plane per group.

    ANDs per lane: groups (s - 1); depth ceil(log2 s). `any_cost`.
    """
    if groups < 1 or planes.width % groups or not planes.width:
        raise LocalProtocolError("PLANES_INVALID", "planes do not split into groups", expected=groups, got=planes.width)
    words = planes.first.shape[1]
    while planes.width > groups:
        half = planes.width // groups // 2
        cut = [part.reshape(groups, -1, words) for part in (planes.first, planes.second)]

        def rows(low: int, high: int | None, parts: list[PlaneArray] = cut, share: Bits = planes) -> Bits:
            first, second = (np.ascontiguousarray(part[:, low:high].reshape(-1, words)) for part in parts)
            return replace(share, first=first, second=second)

        left, right, rest = rows(0, half), rows(half, 2 * half), rows(2 * half, None)
        (product,) = yield [(left, right)]
        either = xor(xor(left, right), product)
        joined = [
            np.concatenate([one.reshape(groups, -1, words), other.reshape(groups, -1, words)], axis=1)
            for one, other in ((either.first, rest.first), (either.second, rest.second))
        ]
        first, second = (np.ascontiguousarray(part.reshape(-1, words)) for part in joined)
        planes = replace(planes, first=first, second=second)
    return planes


def any_cost(groups: int, size: int, words: int) -> Cost:
    """Return the cost of `any_in_groups` for groups of `size` planes of `words` words."""
    return Cost(log2_up(size), groups * (size - 1) * words)


def any_unit(members: Bits) -> Circuit[Bits, Bits]:
    """Return whether a plane has any bit set, as one lane per plane (u a multiple of 64, not 0).

    AND words: c (w - 1) + 63 ceil(c/64) for c planes and u = 64 w; depth ceil(log2 w) + 6. `any_unit_cost`.
    """
    cells, words = members.first.shape
    if not cells or not words or members.count % WORD_BITS:
        raise LocalProtocolError("PLANES_INVALID", "a membership table has whole words", got=members.count)
    first, second = members.first.reshape(-1, 1), members.second.reshape(-1, 1)
    narrow = yield from any_in_groups(replace(members, count=WORD_BITS, first=first, second=second), cells)
    result = yield from any_in_groups(_lanes_of_words(narrow, cells), 1)
    return result


def any_unit_cost(cells: int, units: int) -> Cost:
    """Return the cost of `any_unit`."""
    return any_cost(cells, units // WORD_BITS, 1).then(any_cost(1, WORD_BITS, words_for(cells)))


def less_public_cost(width: int, lanes: int) -> Cost:
    """Return the cost of a comparison of `lanes` values with a public one (mpc_ops.protocol.circuits.compare)."""
    return Cost(log2_up(width), (2 * width - 2 - log2_up(width)) * words_for(lanes))
