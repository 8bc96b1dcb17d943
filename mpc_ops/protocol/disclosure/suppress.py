"""Suppression on shares: cells that stand for too few units or owners are replaced by 0 before anything is opened.

A row (cell or total) is published or not as a whole: all its columns are multiplied by its publish bit, and the bit goes
beside them, for the recipient only. Nothing is opened here.

* A cell is published if it holds at least `min_units` units of at least `min_owners` owners. An empty cell is suppressed too,
  unless `publish_empty` says that "nobody here" may be known.
* A total is published if every cell that it adds up is. This is stronger than the rule "not over a lone suppressed cell", and on
  purpose: the sum of several suppressed cells may still stand for fewer than `min_units` units (one unit may be in all of
  them), and margins that cross each other give back single cells even where no total has just one hole. With this rule no
  published row touches a suppressed cell, so no combination of published rows tells anything about one, whatever the shape of
  the totals (one margin, two, hierarchies). Its price is that one suppressed cell takes all totals over it with it: that is why
  the Gate's *not allocated* cells come first, and leave nothing to suppress in most tables.

A suppressed row looks the same whichever test failed. `owners` counts owners outside of the recipient's own group where owners are
strangers (protocols.md 13): which owners count is the caller's.

Rounds: `suppress_cost(...).rounds`, of which 3 over the ring.  Sent: 8 bytes per AND word, 16 per row, 8 per row and column and
8 per row.  Every output lane is the output of a product, so it is fresh and may be delivered as it is.
Security: malicious with abort in an active stage, semi-honest in a passive one.  Leaks: numbers of cells, totals and columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import Circuit, evaluate
from mpc_ops.protocol.circuits.compare import equal_public, less_public
from mpc_ops.protocol.circuits.convert import bits_to_ring
from mpc_ops.protocol.circuits.counts import (
    Bits,
    Cost,
    less_public_cost,
    log2_up,
    seated,
    side_by_side,
    stacked,
    take,
    widened,
)
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.shares import RingVector, check_boolean, check_ring_share, invert, public_like, xor
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.ring.planes import public_planes, words_for

__all__ = ["SuppressTerms", "Suppressed", "suppress", "suppress_cost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressTerms:
    """Rules of a table; public.

    Attributes:
        min_units: fewest units of a published cell, at least 1.
        min_owners: fewest owners; 1 asks for nothing beyond `min_units`.
        covers: for every total, which cells it adds up (their numbers); none is empty.
        publish_empty: whether cells without any unit are published, as 0.
    """

    min_units: int
    min_owners: int = 1
    covers: tuple[tuple[int, ...], ...] = ()
    publish_empty: bool = False

    def __post_init__(self) -> None:
        if self.min_units < 1 or self.min_owners < 1 or not all(self.covers):
            raise LocalProtocolError("GATE_INVALID", "terms of a suppression make no sense", hint="Both are at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed:
    """What the recipient may see.

    Attributes:
        publish: 1 for a published row, else 0; cells first, then totals.
        values: `columns x rows` values, 0 in suppressed rows.
    """

    publish: RingVector
    values: RingVector


def suppress(
    stage: ComputeStage, units: Bits, owners: Bits | None, values: RingVector, terms: SuppressTerms
) -> Steps[Suppressed]:
    """Replace the rows that must not be published by 0.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage, active or passive.
        units: units of each cell, n values of any width (`convert.ring_to_bits` makes them of ring shares).
        owners: owners of each cell; None if `min_owners` is 1.
        values: `columns x (cells + totals)` values, column by column. Totals are given, since those of distinct counts are no sums.
        terms: public.

    Rounds, sent: `suppress_cost`.  Security, leaks: see the module. Nothing is opened.

    Raises:
        LocalProtocolError: GATE_INVALID for inputs of other shapes; SHARE_FOREIGN, STAGE_ORDER, BATCH_TOO_LARGE.
        PeerProtocolError: LENGTH_INVALID.
    """
    _check(stage, units, owners, values, terms)
    (publish,) = yield from evaluate(stage, "suppress", [_publish(units, owners, terms)])
    flags = yield from bits_to_ring(stage, publish)
    rows, columns = publish.count, values.count // publish.count
    ones = _ones_like(flags)
    # The bits themselves are multiplied by 1: an output of B2A is no fresh sharing.
    x, y = _joined([flags] * (columns + 1)), _joined([values, ones])
    lanes = yield from multiply(stage, x, y)
    return Suppressed(publish=lanes[columns * rows :], values=lanes[: columns * rows])


def suppress_cost(cells: int, unit_bits: int, owner_bits: int, columns: int, terms: SuppressTerms) -> tuple[int, int]:
    """Return (rounds, bytes that each party sends) of `suppress`, for counts of so many bits."""
    width = max(unit_bits, terms.min_units.bit_length())
    cost = less_public_cost(width, cells)
    if terms.publish_empty:
        cost = cost.beside(Cost(log2_up(unit_bits), (unit_bits - 1) * words_for(cells)))
    if terms.min_owners > 1:
        cost = cost.beside(less_public_cost(max(owner_bits, terms.min_owners.bit_length()), cells))
        cost = cost.then(Cost(1, words_for(cells)))
    if terms.covers:
        size = max(map(len, terms.covers))
        cost = cost.then(Cost(log2_up(size), (size - 1) * words_for(len(terms.covers))))
    rows = cells + len(terms.covers)
    return cost.depth + 3, 8 * cost.words + 16 * rows + 8 * rows * (columns + 1)


def _check(stage: ComputeStage, units: Bits, owners: Bits | None, values: RingVector, terms: SuppressTerms) -> None:
    check_boolean(stage, units)
    check_ring_share(stage, values)
    if owners is not None:
        check_boolean(stage, owners)
    cells = units.count
    wrong = any(not 0 <= cell < cells for cover in terms.covers for cell in cover)
    if (
        not cells
        or wrong
        or values.count % (cells + len(terms.covers))
        or (owners is None) != (terms.min_owners == 1)
        or (owners is not None and owners.count != cells)
    ):
        raise LocalProtocolError(
            "GATE_INVALID", "counts, values and terms of a suppression do not fit", ids=stage.ids()
        )


def _publish(units: Bits, owners: Bits | None, terms: SuppressTerms) -> Circuit[Bits, Bits]:
    """Return the publish bit of every cell, then of every total."""
    tests = [less_public(widened(units, terms.min_units.bit_length()), terms.min_units)]
    if owners is not None:
        tests.append(less_public(widened(owners, terms.min_owners.bit_length()), terms.min_owners))
    if terms.publish_empty:
        tests.append(equal_public(units, 0))
    results = yield from side_by_side(tests)
    cells: Bits = invert(results[0])
    if owners is not None:
        (cells,) = yield [(cells, invert(results[1]))]
    if terms.publish_empty:  # an empty cell fails the first test, so at most one of the two holds
        cells = xor(cells, results[-1])
    if not terms.covers:
        return cells
    one = public_like(take(cells, np.zeros(1, dtype=np.int64)), public_planes(1, 1, 1))
    every = seated(stacked([cells, one]), _seats(terms.covers, cells.count))
    totals = yield from equal_public(every, np.full(every.first.shape, 0xFFFFFFFFFFFFFFFF, dtype=np.uint64))
    return stacked([cells, totals])


def _seats(covers: tuple[tuple[int, ...], ...], cells: int) -> NDArray[np.int64]:
    """Return for each place and total the cell that stands there; the lane behind the cells is the constant 1."""
    seats = np.full((max(map(len, covers)), len(covers)), cells, dtype=np.int64)
    for place, cover in enumerate(covers):
        seats[: len(cover), place] = cover
    return seats


def _joined(parts: list[RingVector]) -> RingVector:
    first, second = (np.concatenate(one) for one in ([p.first for p in parts], [p.second for p in parts]))
    return replace(parts[0], first=first, second=second)


def _ones_like(x: RingVector) -> RingVector:
    zero = np.zeros(x.count, dtype=np.uint64)
    return replace(x, first=zero, second=zero).plus_public(np.ones(x.count, dtype=np.uint64))
