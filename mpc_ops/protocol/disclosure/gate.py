"""The Gate on shares: small cells of the union of several owners move to *not allocated*; nothing is opened.

Owners send, per slice, a membership table (one row of bits per protected unit, one bit per leaf cell) and ring shares of the
measures of every leaf cell. The result is what the Gate in the clear yields for the union of these units: a cell of 1..k-1
units, or of fewer than `min_owners` owners, moves to the not-allocated cell of its parent prefix, level by level; a failing
not-allocated cell at the top absorbs the smallest remaining cell (fewest units, then labels, a missing one counting as the
empty text); a slice that fails as a whole contributes nothing. A customer of two owners counts as two units.

**One absorption is enough.** The pass over level L tests every cell of that level when all its content is there: leaves are
tested as filed, and a not-allocated cell of level L receives rows only in the pass over level L + 1. A cell that passes keeps
its content, one that fails gives all of it away. So behind the passes every cell below the top with any unit holds at least k
units of at least `min_owners` owners. The top's cell together with one of them holds a superset of that cell's units and
owners, so it passes too, and the clear Gate's loop ends after one cell. If no cell is left, the top's cell is the whole slice.

An empty cell "fails" as well: it moves nothing. So k >= 1 needs no test for zero except at the top, where nothing must be
absorbed for the sake of an empty cell.

```
level d .. 1   count units (and owners), compare with k (and min_owners), mask the members of failing cells, OR them per parent
top            count, compare      | side by side: smallest remaining cell by comparing all pairs, totals' members, paths
place          one bit per leaf and level: "this leaf's rows are in that level's cell"; exactly one is set, or `drop`
ring           B2A of the place bits and counts, one dot product per output lane: one element of traffic each
```
All slices share every message. Every output lane is a dot product, so it is a fresh sharing that tells nothing about the
sharings it was computed from (protocols.md 13, delivery); nothing has to be re-randomised behind it.

Rounds: `gate_cost(...).rounds`, of which 3 over the ring (more for more than 32 slices); they depend on domains, padded row numbers and terms only.
Sent: 8 bytes per AND word; 16 per place bit and per bit of a count; 8 per output lane.
Security: malicious with abort in an active stage (every AND and product is logged and proven before anything is opened or
handed on), semi-honest in a passive one. Leaks: shapes (padded units of each owner, domains, numbers of measures).

What an owner says is not checked: it can file what its snapshot does not hold, in range or not, as without a Gate; a figure in
a cell without units counts as small and moves up with it. A wrong figure wraps mod 2^64 only outside of the owner's contract.

Source: the Gate of local_stores/snapshot/gate.py in the clear; popcounts by full adders (counts.py); all-pairs minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.convert import planes_to_ring, values_to_ring
from mpc_ops.protocol.circuits.counts import Bits, Cost, stacked
from mpc_ops.protocol.circuits.products import MAX_OPERATION_TERMS, dots, multiply
from mpc_ops.protocol.core.party import MAX_PARTS, Steps, together
from mpc_ops.protocol.core.rows import pick_rows, stack_columns
from mpc_ops.protocol.core.shares import RingVector, check_boolean, check_ring_share, ring_zero
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.protocol.disclosure.gate_places import GateTerms, Places, SliceGate, absorption_order, slice_cost
from mpc_ops.ring.planes import WORD_BITS

__all__ = ["GateCost", "GateInput", "GateOutput", "GateTerms", "absorption_order", "gate", "gate_cost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateInput:
    """One slice of a region's owners.

    Attributes:
        members: membership tables of the owners, one plane per leaf cell (row-major order of the domains); each owner's number
            of units is padded with zero rows to a multiple of 64 and is public. Owners without units may be left out.
        measures: sums over the owners of `measures x leaf cells` values, measure by measure; any number of measures.
    """

    members: Sequence[Bits]
    measures: RingVector


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOutput:
    """What passed the Gate in one slice.

    Attributes:
        values: `measures x cells` values: leaf cells, then not-allocated ones from the deepest prefixes to the top.
        counts: distinct units of the cells and, if asked for, of the prefixes (deepest first); None if not asked for.
    """

    values: RingVector
    counts: RingVector | None


@dataclass(frozen=True, slots=True)
class GateCost:
    """Rounds of the Gate and bytes that each party sends, besides the proofs and the barrier."""

    rounds: int
    sent: int


def gate_cost(units: Sequence[Sequence[int]], measures: Sequence[int], terms: GateTerms) -> GateCost:
    """Return what `gate` costs each party.

    Args:
        units: per slice the padded number of units of each owner that has any.
        measures: per slice the number of measures.
        terms: those of the Gate.
    """
    circuits, sent, conversions, lanes = [Cost()], 0, 0, 0
    for owners, number in zip(units, measures, strict=True):
        outputs = number * terms.cells + (terms.cells + terms.total_cells if terms.counts else 0)
        if not owners or not outputs:
            continue
        circuits.append(slice_cost(owners, terms))
        depth = terms.depth
        bits = 1 + terms.leaves * depth + (terms.candidates - terms.leaves if terms.counts and depth else 0)
        counts = (terms.cells + terms.total_cells) * sum(owners).bit_length() if terms.counts else 0
        sent += 16 * (bits + counts) + 8 * outputs
        conversions += 1 + terms.counts
        pieces = max(1, MAX_OPERATION_TERMS // (terms.leaves * (terms.depth + 1)))
        lanes += -(-number // pieces) + terms.counts
    ring = 2 * -(-conversions // MAX_PARTS) + -(-lanes // MAX_PARTS)
    boolean = circuits[0].beside(*circuits[1:]) if len(circuits) > 1 else Cost()
    return GateCost(boolean.depth + ring, 8 * boolean.words + sent)


def gate(stage: ComputeStage, slices: Sequence[GateInput], terms: GateTerms) -> Steps[list[GateOutput]]:
    """Move small cells to *not allocated*, in every slice on its own, all slices in the same rounds.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage, active or passive.
        slices: inputs of independent Gates with the same terms.
        terms: public.

    Returns:
        One output per slice; every lane is fresh.

    Rounds, sent: `gate_cost`.  Local: about 4 passes over the membership tables.
    Security, leaks: see the module. Nothing is opened.

    Raises:
        LocalProtocolError: GATE_INVALID for inputs of other shapes; SHARE_FOREIGN, STAGE_ORDER, BATCH_TOO_LARGE.
        PeerProtocolError: LENGTH_INVALID.
    """
    for one in slices:
        _check(stage, one, terms)
    outputs: list[GateOutput | None] = [None] * len(slices)
    live: list[int] = []
    for place, one in enumerate(slices):
        if any(members.count for members in one.members) and (one.measures.count or terms.counts):
            live.append(place)
        else:  # publicly nobody there: the slice contributes nothing
            counts = ring_zero(stage, terms.cells + terms.total_cells) if terms.counts else None
            lanes = one.measures.count // terms.leaves * terms.cells
            outputs[place] = GateOutput(values=ring_zero(stage, lanes), counts=counts)
    present = {place: [members for members in slices[place].members if members.count] for place in live}
    places = yield from evaluate(stage, "gate", [SliceGate(present[place], terms).decide() for place in live])
    found = yield from together(
        *(_lanes(stage, slices[place].measures, one, terms) for place, one in zip(live, places, strict=True))
    )
    for place, output in zip(live, found, strict=True):
        outputs[place] = output
    return [output for output in outputs if output is not None]


def _check(stage: ComputeStage, one: GateInput, terms: GateTerms) -> None:
    check_ring_share(stage, one.measures)
    for members in one.members:
        check_boolean(stage, members)
        if members.width != terms.leaves or members.count % WORD_BITS:
            raise LocalProtocolError(
                "GATE_INVALID", "a membership table has another shape", expected=terms.leaves, got=members.width
            )
    if one.measures.count % terms.leaves:
        raise LocalProtocolError("GATE_INVALID", "measures are given for every leaf cell", got=one.measures.count)


def _lanes(stage: ComputeStage, measures: RingVector, places: Places, terms: GateTerms) -> Steps[GateOutput]:
    """Return the output lanes: place bits and counts become ring shares, then every lane is one dot product."""
    keeps = places.stays[1:] if terms.counts else []
    bits = stacked([*places.at, places.drop, *keeps])
    wanted: list[Steps[RingVector]] = [planes_to_ring(stage, bits)]
    wanted += [values_to_ring(stage, places.counts)] if places.counts is not None else []
    flags, *counts = yield from together(*wanted)
    leaves, depth = terms.leaves, terms.depth
    at = [flags[level * leaves : (level + 1) * leaves] for level in range(depth)]
    whole = _ones_like(flags, 1).minus(flags[depth * leaves : depth * leaves + 1])
    top = _spread_lane(whole, leaves)
    for one in at:
        top = top.minus(one)
    places_of = [*at, top]
    # Measures in pieces that one operation takes; all pieces share the round.
    number = measures.count // leaves
    step = max(1, MAX_OPERATION_TERMS // (leaves * len(places_of)))
    pieces = [measures[low * leaves : (low + step) * leaves] for low in range(0, number, step)]
    lanes = [dots(stage, *_value_terms(places_of, piece, terms)) for piece in pieces]
    if counts:
        kept = [*at[:1], flags[depth * leaves + 1 :], _spread_lane(whole, counts[0].count - terms.candidates)]
        lanes.append(multiply(stage, _stack(kept), counts[0]))
    found = yield from together(*lanes)
    values = _stack(found[: len(pieces)]) if pieces else ring_zero(stage, 0)
    return GateOutput(values=values, counts=found[-1] if counts else None)


def _value_terms(
    flags: Sequence[RingVector], measures: RingVector, terms: GateTerms
) -> tuple[RingVector, RingVector, NDArray[np.int64]]:
    """Return the factors of every output lane of the measures, measure by measure and level by level, and their ends."""
    leaves = terms.leaves
    number, size = measures.count // leaves, leaves * len(flags)
    levels = [terms.prefixes(level) for level in range(terms.depth, -1, -1)]
    inner = np.concatenate(
        [
            place * leaves + np.arange(1, cells + 1, dtype=np.int64) * (leaves // cells)
            for place, cells in enumerate(levels)
        ]
    )
    lanes, whose = np.arange(size, dtype=np.int64), np.arange(number, dtype=np.int64)
    values = whose[:, None] * leaves + lanes % leaves
    ends = (whose[:, None] * size + inner).reshape(-1)
    return _take(_stack(flags), np.tile(lanes, number)), _take(measures, values.reshape(-1)), ends


def _take(x: RingVector, index: NDArray[np.int64]) -> RingVector:
    out = pick_rows(x, index)
    if not isinstance(out, RingVector):  # pragma: no cover - of ring values come ring values
        raise LocalProtocolError("RING_TYPE", "a share over Z_2^64 is wanted")
    return out


def _stack(parts: Sequence[RingVector]) -> RingVector:
    out = stack_columns(parts)
    if not isinstance(out, RingVector):  # pragma: no cover - of ring values come ring values
        raise LocalProtocolError("RING_TYPE", "a share over Z_2^64 is wanted")
    return out


def _ones_like(x: RingVector, count: int) -> RingVector:
    zero = np.zeros(count, dtype=np.uint64)
    return replace(x, first=zero, second=zero).plus_public(np.ones(count, dtype=np.uint64))


def _spread_lane(x: RingVector, count: int) -> RingVector:
    return _take(x, np.zeros(count, dtype=np.int64))
