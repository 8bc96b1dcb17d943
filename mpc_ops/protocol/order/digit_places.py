"""Places of rows after a stable sort by a digit of one or two shared bits: a counting sort on shares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.convert import planes_to_ring
from mpc_ops.protocol.circuits.products import dots, multiply
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.ring import RingArray

__all__ = ["MAX_DIGIT_BITS", "digit_places"]

MAX_DIGIT_BITS = 2


def digit_places(stage: ComputeStage, digit: BooleanPlanes) -> Steps[RingVector]:
    """Return the share of each row's place, 0 .. n - 1, in the stable order of a digit.

    With one-hot shares c_v of the digit, rows of value v begin behind all smaller ones, and row j of value v is at
    base_v[j] = (number of smaller digits) + (number of v before row j), which is linear. So place = base_0 + sum over v > 0 of
    c_v (base_v - base_0): one product, or one dot product of three terms.

    Run by: all three parties, in lock-step.

    Args:
        stage: computing.
        digit: n values of 1 or 2 bits.

    Rounds: 3 for one bit, 4 for two; none for no row.  Sent: 24 n, or 48 n bytes per party.
    Security, errors: as `planes_to_ring`, `multiply`; PLANES_INVALID for other widths.  Leaks: n.
    """
    count = digit.count
    if not 1 <= digit.width <= MAX_DIGIT_BITS:
        raise LocalProtocolError("PLANES_INVALID", "a digit has one or two bits", got=digit.width)
    flat = yield from planes_to_ring(stage, digit)
    low = flat[:count]
    if digit.width == 1:
        first, second = _bases([_rest([low]), low])
        product = yield from multiply(stage, low, second.minus(first))
        return first.plus(product)
    high = flat[count:]
    both = yield from multiply(stage, low, high)
    hot = [low.minus(both), high.minus(both), both]
    first, *others = _bases([_rest(hot), *hot])
    moved = yield from dots(
        stage,
        _interleaved(hot),
        _interleaved([base.minus(first) for base in others]),
        np.arange(3, 3 * count + 1, 3, dtype=np.int64),
    )
    return first.plus(moved)


def _rest(hot: list[RingVector]) -> RingVector:
    """Return 1 - the sum of the given one-hot vectors."""
    total = hot[0]
    for more in hot[1:]:
        total = total.plus(more)
    return total.negated().plus_public(np.ones(total.count, dtype=np.uint64))


def _bases(hot: list[RingVector]) -> list[RingVector]:
    """Return for each value where each row would be if it had that value."""
    firsts, seconds = _component_bases([x.first for x in hot]), _component_bases([x.second for x in hot])
    return [replace(x, first=one, second=other) for x, one, other in zip(hot, firsts, seconds, strict=True)]


def _component_bases(hot: list[RingArray]) -> list[RingArray]:
    out, behind = [], np.zeros(1, dtype=np.uint64)
    for words in hot:
        running = np.cumsum(words, dtype=np.uint64)
        out.append(running - words + behind)
        behind = behind + running[-1:]
    return out


def _interleaved(columns: list[RingVector]) -> RingVector:
    """Return lane after lane the values of all columns."""
    first = np.stack([x.first for x in columns], axis=1).reshape(-1)
    second = np.stack([x.second for x in columns], axis=1).reshape(-1)
    return replace(columns[0], first=first, second=second)
