"""The smallest of shared values as a one-hot row: all pairs compared at once, for up to a few thousand lanes.

Among n <= 64 lanes of w bits: n (n - 1) / 2 comparisons in one go and n - 1 ANDs a lane, 1 + ceil(log2 w) + ceil(log2 n) steps.
More lanes fall into groups of 64 whose winners are compared in turn, at most 32 comparisons a lane in all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc_ops.protocol.circuits.boolean import Circuit
from mpc_ops.protocol.circuits.compare import equal_public, less_equal
from mpc_ops.protocol.circuits.counts import Bits, Cost, lane_parity, log2_up, seated, stacked, take
from mpc_ops.protocol.core.shares import concat, invert, public_like
from mpc_ops.ring.planes import public_planes, words_for

__all__ = ["first_smallest", "first_smallest_cost"]

_GROUP = 64
"""Lanes whose pairs are all compared at once."""


def first_smallest(keys: Bits) -> Circuit[Bits, Bits]:
    """Return which lane holds the smallest key, the first of equal ones: exactly one lane is set.

    All pairs within groups of 64 lanes are compared, then the groups' winners. Groups are consecutive, so the earlier of two
    equal winners is the earlier lane.

    AND words for n lanes of w bits, g = min(n, 64) lanes a group and q pairs within groups: (3 w - 2 - ceil(log2 w)) ceil(q/64) +
    (g - 1) ceil(n/64); depth 1 + ceil(log2 w) + ceil(log2 g). For n > 64 further (w + 1) ceil(n/64), depth 2, and those of
    ceil(n/64) lanes. One lane costs nothing. `first_smallest_cost`.
    """
    count = keys.count
    if count == 1:
        return public_like(keys, public_planes(1, 1, 1))
    pairs, seats = _pairs(count)
    no_later = yield from less_equal(take(keys, pairs[0]), take(keys, pairs[1]))
    ones = public_like(take(no_later, np.zeros(1, dtype=np.int64)), public_planes(1, 1, 1))
    column = stacked([no_later, invert(no_later), ones])
    beats = seated(column, seats)
    winner = yield from equal_public(beats, np.full(beats.first.shape, 0xFFFFFFFFFFFFFFFF, dtype=np.uint64))
    if count <= _GROUP:
        return winner
    (held,) = yield [(_planes(winner, keys.width), keys)]
    best = yield from first_smallest(lane_parity(held, _GROUP))
    (result,) = yield [(winner, take(best, np.arange(count, dtype=np.int64) // _GROUP))]
    return result


def _planes(bit: Bits, width: int) -> Bits:
    return concat([bit] * width)


def _pairs(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (first and second lane of every pair of a group, for each opponent and lane which result says that it wins).

    Results: pair p's "first <= second" is p, its inverse is pairs + p, and 2 * pairs is the constant 1.
    """
    lanes = np.arange(count, dtype=np.int64)
    size = min(_GROUP, count)
    opponents = (lanes // size * size)[None, :] + np.arange(size, dtype=np.int64)[:, None]
    real = (opponents < count) & (opponents > lanes[None, :])
    # Pair numbers run opponent by opponent over lanes that precede it.
    low = np.broadcast_to(lanes, real.shape)[real]
    high = opponents[real]
    total = len(low)
    number = np.full((size, count), -1, dtype=np.int64)
    number[real] = np.arange(total)
    seats = np.full((size, count), 2 * total, dtype=np.int64)
    seats[real] = number[real]
    seats[low % size, high] = total + number[real]
    return np.stack([low, high]), seats


def first_smallest_cost(count: int, width: int) -> Cost:
    """Return the cost of `first_smallest`."""
    if count == 1:
        return Cost()
    size = min(_GROUP, count)
    full, rest = divmod(count, size)
    pairs = (full * size * (size - 1) + rest * (rest - 1)) // 2
    compare = Cost(1 + log2_up(width), (3 * width - 2 - log2_up(width)) * words_for(pairs))
    cost = compare.then(Cost(log2_up(size), (size - 1) * words_for(count)))
    if count <= _GROUP:
        return cost
    return cost.then(
        Cost(1, width * words_for(count)), first_smallest_cost(-(-count // _GROUP), width), Cost(1, words_for(count))
    )
