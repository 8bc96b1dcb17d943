"""Group-by over a tiny public key domain without a sort: sums per key value from products of key bits.

The sum over rows of v b_S, where b_S is the product of the key's bits in S, is the total of all groups whose key has the bits
of S. Those 2^w totals are dot products between v times the monomials of some bits and the monomials of the other bits: one
element of traffic each, however many rows. The groups' own sums follow from them without a message (Moebius inversion over
subsets: for each bit, what has the bit is taken from what has it or not).

Nothing is opened, nothing is sorted, and which keys occur stays secret. Source: one-hot by bit products is folklore; the
split that leaves the last product to dot products is derived here from their constant traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.convert import planes_to_ring
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import aligned_blocks, cut_block
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, concat, ring_of
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.protocol.relational.dot_table import blocks_of, dot_table
from mpc_ops.protocol.relational.row_planes import multiply_all
from mpc_ops.ring import LANE_BYTES, RingArray

__all__ = ["BLOCK_ROWS", "MAX_DOMAIN_BITS", "DomainSums", "domain_bytes", "domain_sums"]

MAX_DOMAIN_BITS = 8
"""Above, a sort is cheaper: terms double with every bit."""

BLOCK_ROWS = 1 << 16
"""Rows that are treated at a time, so that memory stays bounded: a multiple of 64."""

_Monomials: TypeAlias = dict[int, RingVector]


@dataclass(frozen=True, slots=True)
class DomainSums:
    """Totals by key value.

    Attributes:
        sums: per column, shape (2^w,): entry g is the sum over the rows whose key is g.
        count: number of rows with that key, shape (2^w,); None unless asked for.
    """

    sums: tuple[RingVector, ...]
    count: RingVector | None


def _split(width: int, columns: int, *, count: bool) -> int:
    """Return how many low bits multiply the columns: the cheapest, and of those the one with the fewest steps."""
    return min(range(width + 1), key=lambda low: (_products(width, low, columns, count=count), low))


def _products(width: int, low: int, columns: int, *, count: bool) -> int:
    """Return the products per row besides the dot products."""
    high = width - low
    total = columns * ((1 << low) - 1) + (1 << high) - high - 1
    return total + ((1 << low) - low - 1 if count else 0)


def domain_bytes(rows: int, width: int, columns: int, *, count: bool = False, marked: bool = False) -> int:
    """Return the bytes per party that `domain_sums` sends; see there."""
    if rows == 0:
        return 0
    low = _split(width, columns + count * marked, count=count and not marked)
    products = _products(width, low, columns + count * marked, count=count and not marked)
    lefts = (columns + count * marked) * (1 << low) + (count and not marked) * ((1 << low) - 1)
    rights = (1 << (width - low)) - 1
    outputs = lefts * rights
    blocks = sum(blocks_of(part.stop - part.start, lefts + rights) for part in aligned_blocks(rows, BLOCK_ROWS))
    table = outputs * blocks if outputs else 0
    return LANE_BYTES * (rows * (2 * width + marked * (2 + columns) + products) + table)


def domain_sums(
    stage: ComputeStage,
    key: BooleanPlanes,
    columns: Sequence[RingVector],
    *,
    count: bool = False,
    marks: BooleanPlanes | None = None,
) -> Steps[DomainSums]:
    """Sum columns over the rows of every key value of a tiny domain.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage, active or passive.
        key: n values of w bits, w at most 8; several keys are put together by `shares.concat`.
        columns: c columns of n elements.
        count: also count the rows per key value.
        marks: one bit per row; a row whose bit is 0 counts nowhere.

    Returns:
        For every column, and for the count, 2^w elements; entry g belongs to key value g.

    Rounds, for each block of BLOCK_ROWS rows: 2 for the key's bits, 1 more with marks and c > 0, l for the low bits' monomials (at
        least ceil(log2 h) for the h = w - l high ones; l - 1 without columns, whose bits are there), 1 for the dot products (none if
        h = 0).
    Sent: 8 n (2 w + p) bytes per party, p = c (2^l - 1) + 2^h - h - 1 (with a count 2^l - l - 1 more), and 8 bytes per dot
        product, c 2^l (2^h - 1) of them (with a count (2^l - 1)(2^h - 1) more), for each block of rows (dot_table). l minimises
        p. Marks: 8 n (2 + c) more, and a count is then one column more. For w = 7 and one column 256 bytes a row.
    Security: malicious with abort in an active stage, semi-honest in a passive one: products and dot products only.
    Leaks: n, w, c. Nothing is opened; which key values occur is secret.

    Raises:
        LocalProtocolError: PLANES_INVALID for a wider key or other numbers of rows; SHARE_FOREIGN, STAGE_ORDER,
            BATCH_TOO_LARGE.
    """
    width, rows = key.width, key.count
    lengths = {key.count, *(one.count for one in columns), *([marks.count] if marks else [])}
    if not 1 <= width <= MAX_DOMAIN_BITS or len(lengths) != 1 or (marks is not None and marks.width != 1):
        raise LocalProtocolError(
            "PLANES_INVALID", "a tiny domain has few bits, and a value and a mark per key", expected=MAX_DOMAIN_BITS
        )
    total: DomainSums | None = None
    for part in aligned_blocks(rows, BLOCK_ROWS):
        found = yield from _block_sums(
            stage,
            cut_block(key, part),
            [column[part] for column in columns],
            count=count,
            marks=None if marks is None else cut_block(marks, part),
        )
        total = found if total is None else _added(total, found)
    assert total is not None  # noqa: S101 - there is always a block
    return total


def _added(one: DomainSums, other: DomainSums) -> DomainSums:
    count = None if one.count is None or other.count is None else one.count.plus(other.count)
    return DomainSums(tuple(a.plus(b) for a, b in zip(one.sums, other.sums, strict=True)), count)


def _block_sums(
    stage: ComputeStage,
    key: BooleanPlanes,
    columns: Sequence[RingVector],
    *,
    count: bool,
    marks: BooleanPlanes | None,
) -> Steps[DomainSums]:
    """Sum over one block of rows; see `domain_sums`."""
    width, rows = key.width, key.count
    flat = yield from planes_to_ring(stage, concat([key, marks]) if marks is not None else key)
    bits = [flat[place * rows : (place + 1) * rows] for place in range(width + (marks is not None))]
    values = list(columns)
    if marks is not None:
        values = yield from multiply_all(stage, [(bits[width], one) for one in columns])
        values += [bits[width]] if count else []
    plain_count = count and marks is None
    low = _split(width, len(values), count=plain_count)
    lefts: list[_Monomials] = [{0: value} for value in values]
    if plain_count:
        # What is counted is the public 1: its monomial of one bit is the bit, and the empty one is known to everybody.
        lefts.append({1 << place: bits[place] for place in range(low)})
    rights = yield from _monomials(stage, bits[:width], low, lefts)
    tables = yield from _tables(stage, lefts, rights)
    sums = [
        _totals(stage, left, rights, table, low=low, width=width, rows=rows)
        for left, table in zip(lefts, tables, strict=True)
    ]
    return DomainSums(tuple(sums[: len(columns)]), sums[-1] if count else None)


def _monomials(stage: ComputeStage, bits: Sequence[RingVector], low: int, lefts: list[_Monomials]) -> Steps[_Monomials]:
    """Complete every value's products with all monomials of the low bits; return the monomials of the high bits."""
    rights: _Monomials = {1 << place: bit for place, bit in enumerate(bits[low:])}
    while True:
        left_jobs = [(place, mask) for place in range(len(lefts)) for mask in _ready_left(lefts[place], low)]
        right_jobs = _ready_right(rights, len(bits) - low)
        if not left_jobs and not right_jobs:
            return rights
        pairs = [(lefts[place][mask & (mask - 1)], bits[(mask & -mask).bit_length() - 1]) for place, mask in left_jobs]
        pairs += [(rights[one], rights[other]) for one, other in right_jobs]
        products = yield from multiply_all(stage, pairs)
        for (place, mask), product in zip(left_jobs, products, strict=False):
            lefts[place][mask] = product
        for (one, other), product in zip(right_jobs, products[len(left_jobs) :], strict=True):
            rights[one | other] = product


def _ready_left(known: _Monomials, low: int) -> list[int]:
    """Return the masks whose monomial is one product away: all but their lowest bit are there."""
    return [mask for mask in range(1, 1 << low) if mask not in known and mask & (mask - 1) in known]


def _ready_right(known: _Monomials, high: int) -> list[tuple[int, int]]:
    """Return pairs of known monomials that make a new one, each new one once."""
    out: dict[int, tuple[int, int]] = {}
    for mask in range(1, 1 << high):
        if mask in known:
            continue
        for one in known:
            if one & mask == one and (mask ^ one) in known:
                out[mask] = (one, mask ^ one)
                break
    return list(out.values())


def _tables(stage: ComputeStage, lefts: Sequence[_Monomials], rights: _Monomials) -> Steps[list[_Monomials]]:
    """Return for every left family its dot products with the right one, by (left mask, right mask), each of shape (1,)."""
    columns = [column for left in lefts for column in left.values()]
    if not columns or not rights:
        return [{} for _ in lefts]
    flat = yield from dot_table(stage, columns, list(rights.values()))
    out: list[_Monomials] = []
    place = 0
    for left in lefts:
        found: _Monomials = {}
        for mask in left:
            for other in rights:
                found[mask << MAX_DOMAIN_BITS | other] = flat[place : place + 1]
                place += 1
        out.append(found)
    return out


def _totals(
    stage: ComputeStage, left: _Monomials, rights: _Monomials, table: _Monomials, *, low: int, width: int, rows: int
) -> RingVector:
    """Return the sums per key value, shape (2^w,), from the sums of all monomials."""
    first, second = np.zeros((2, 1 << width), dtype=np.uint64)
    public = np.zeros(1 << width, dtype=np.uint64)
    for mask in range(1 << width):
        here, there = mask & ((1 << low) - 1), mask >> low
        if here in left and there:
            one = table[here << MAX_DOMAIN_BITS | there]
        elif here in left:
            one = left[here]
        elif there:
            one = rights[there]
        else:
            public[mask] = rows
            continue
        first[mask], second[mask] = one.first.sum(dtype=np.uint64), one.second.sum(dtype=np.uint64)
    return ring_of(stage, _inverted(first, width), _inverted(second, width)).plus_public(_inverted(public, width))


def _inverted(sums: RingArray, width: int) -> RingArray:
    """Return the sums over keys that equal a mask from the sums over keys that contain it."""
    out = sums.copy()
    for bit in range(width):
        view = out.reshape(-1, 2, 1 << bit)
        view[:, 0] -= view[:, 1]
    return out
