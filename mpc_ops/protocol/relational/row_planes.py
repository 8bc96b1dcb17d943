"""Local steps on the rows of a table: rows shifted by a public distance, running sums and parities, public marks.

All of it is linear, so a party does it to its own components and nothing is sent. Rows are lanes of bit-planes (bit v of
word k is row 64 k + v) or elements of a vector; both count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Column
from mpc_ops.protocol.core.shares import B, BooleanPlanes, R, and_public, rebuilt, xor, xor_public
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.ring import RingArray
from mpc_ops.ring.planes import PlaneArray, clear_tail, to_planes

__all__ = [
    "first_row_then",
    "multiply_all",
    "next_rows",
    "parity_steps",
    "place_bits",
    "plus_next",
    "public_flags",
    "row_differences",
    "running",
    "running_parity",
    "running_sum",
    "shift_rows",
    "sum_steps",
    "sum_with_next",
    "width_of_places",
]

_WORD = 64
_CHUNK_WORDS = 8192
_PORTION = 1 << 22


def shift_rows(share: B, distance: int) -> B:
    """Return the share whose row j is row j - distance; rows from outside are 0. A negative distance looks ahead."""
    if distance == 0:
        return share
    parts = (share.first, share.second)
    if distance < 0:
        # What stands behind the last row must not become the value of a row.
        parts = (clear_tail(share.first, share.count), clear_tail(share.second, share.count))
    first, second = (_shift(planes, distance) for planes in parts)
    return rebuilt(share, first, second)


def _shift(planes: PlaneArray, distance: int) -> PlaneArray:
    words, bits = divmod(abs(distance), _WORD)
    out = np.zeros_like(planes)
    kept = planes.shape[1] - words
    if kept <= 0:
        return out
    low, high = np.uint64(bits), np.uint64(_WORD - bits)
    if distance > 0:
        np.left_shift(planes[:, :kept], low, out=out[:, words:])
        if bits:
            out[:, words + 1 :] |= planes[:, : kept - 1] >> high
    else:
        np.right_shift(planes[:, words:], low, out=out[:, :kept])
        if bits:
            out[:, : kept - 1] |= planes[:, words + 1 :] << high
    return out


def next_rows(share: B) -> B:
    """Return the share whose row j is row j + 1; the last row is 0."""
    return shift_rows(share, -1)


def plus_next(column: Column) -> Column:
    """Return row j plus (Boolean: XOR) row j + 1; behind the last row is 0."""
    if isinstance(column, BooleanPlanes):
        return xor(column, next_rows(column))
    return sum_with_next(column)


def sum_with_next(share: R) -> R:
    """Return the share of element j plus element j + 1; behind the last one is 0."""
    return replace(share, first=_with_next(share.first), second=_with_next(share.second))


def _with_next(values: RingArray) -> RingArray:
    out = values.copy()
    out[:-1] += values[1:]
    return out


def first_row_then(first: B, others: B) -> B:
    """Return the share whose row 0 is row 0 of `first` and whose row j is row j - 1 of `others`."""
    flags = np.zeros(first.count, dtype=np.uint64)
    flags[:1] = 1
    mask = np.repeat(to_planes(flags, 1), first.width, axis=0)
    return xor(and_public(first, mask), shift_rows(others, 1))


def running_parity(share: B) -> B:
    """Return the share whose row j is the XOR of rows 0 .. j."""
    return rebuilt(share, _parity(share.first), _parity(share.second))


def _parity(planes: PlaneArray) -> PlaneArray:
    out = planes.copy()
    for start in range(0, out.shape[1], _CHUNK_WORDS):
        part = out[:, start : start + _CHUNK_WORDS]
        for bits in (1, 2, 4, 8, 16, 32):
            part ^= part << np.uint64(bits)
    if out.shape[1] > 1:
        ends = out[:, :-1] >> np.uint64(_WORD - 1)
        out[:, 1:] ^= np.uint64(0) - np.bitwise_xor.accumulate(ends, axis=1)
    return out


def running_sum(share: R) -> R:
    """Return the share whose element j is the sum of elements 0 .. j mod 2^64."""
    first, second = (np.cumsum(part, dtype=np.uint64) for part in (share.first, share.second))
    return replace(share, first=first, second=second)


def running(column: Column) -> Column:
    """Return running sums of a vector, running parities of a Boolean column."""
    return running_parity(column) if isinstance(column, BooleanPlanes) else running_sum(column)


def row_differences(column: Column) -> Column:
    """Return row j minus (Boolean: XOR) row j - 1; the row before the first is 0."""
    return parity_steps(column) if isinstance(column, BooleanPlanes) else sum_steps(column)


def parity_steps(share: B) -> B:
    """Return the share whose row j is row j XOR row j - 1: what `running_parity` adds up."""
    return xor(share, shift_rows(share, 1))


def sum_steps(share: R) -> R:
    """Return the share whose element j is element j minus element j - 1: what `running_sum` adds up."""
    return replace(share, first=_steps(share.first), second=_steps(share.second))


def _steps(values: RingArray) -> RingArray:
    out = values.copy()
    out[1:] -= values[:-1]
    return out


def public_flags(flags: Sequence[bool] | np.ndarray) -> PlaneArray:
    """Return one plane of public bits, one per row."""
    return to_planes(np.asarray(flags, dtype=np.uint64), 1)


def width_of_places(count: int) -> int:
    """Return how many bits a row position below `count` takes; at least 1."""
    return max(1, (count - 1).bit_length())


def place_bits(like: BooleanPlanes) -> BooleanPlanes:
    """Return the share of the public row positions 0, 1, 2, ...; width as `width_of_places`."""
    planes = to_planes(np.arange(like.count, dtype=np.uint64), width_of_places(like.count))
    return xor_public(rebuilt(like, np.zeros_like(planes), np.zeros_like(planes)), planes)


def multiply_all(stage: ComputeStage, pairs: Sequence[tuple[R, R]]) -> Steps[list[R]]:
    """Return x y for each pair, all in one message.

    Rounds: 1 (none without an element), and another one for each further 2^22 elements, so that memory stays bounded; pairs are
        never cut.  Sent: 8 bytes per element.  Security, errors: as `products.multiply`.
    """
    out: list[R] = []
    for some in _portions(pairs):
        product = yield from multiply(stage, _joined([x for x, _ in some]), _joined([y for _, y in some]))
        ends = np.cumsum([0, *(x.count for x, _ in some)])
        out += [product[int(start) : int(stop)] for start, stop in pairwise(ends)]
    return out


def _portions(pairs: Sequence[tuple[R, R]]) -> list[list[tuple[R, R]]]:
    """Return the pairs in portions of at most _PORTION elements, or of one pair."""
    out: list[list[tuple[R, R]]] = []
    room = 0
    for pair in pairs:
        if not out or pair[0].count > room:
            out.append([])
            room = _PORTION
        out[-1].append(pair)
        room -= pair[0].count
    return out


def _joined(parts: Sequence[R]) -> R:
    for part in parts:
        if (type(part), part.session, part.party) != (type(parts[0]), parts[0].session, parts[0].party):
            raise LocalProtocolError("SHARE_FOREIGN", "factors of different kinds, sessions or positions")
    first, second = np.concatenate([part.first for part in parts]), np.concatenate([part.second for part in parts])
    return replace(parts[0], first=first, second=second)
