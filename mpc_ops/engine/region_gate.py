"""The region's stage with the Gate in the region: owners' parts in, gated lanes out, re-shared over the border.

```
region_sum    figures of leaf cells added over owners; tables of units put side by side, owners sorted by id    no message
region_gate   the Gate on shares, both slices in the same rounds (mpc_ops.protocol.disclosure.gate)
cross         proofs and ACCEPT, then re-sharing of the fresh lanes (stages.finish_region)
```
Owners' inputs need no check of their own here. That both holders of a component hold the same one is shown by the commitments of the
owner's signed notice before the close, and again by the proofs: a party that computes with another component than its second
holder is rejected. Rows of bits are bits by their type. Rows beyond an owner's units, figures out of range, or figures in cells
without units are that owner's own statement, as they are without a Gate; figures within the contract cannot wrap, by the plan's bounds.

Leakage to the region's operators: which owners filed, and each table's padded number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpc_ops.engine.stages import (
    RegionInputs,
    RegionOutput,
    Stage,
    StageShape,
    check_parts,
    finish_region,
    region_program,
)
from mpc_ops.errors import LocalProtocolError, PlanError
from mpc_ops.plan.layout import (
    aggregate_node,
    cells,
    is_distinct,
    lane_count,
    measures,
    shared_lane_count,
    shared_measures,
    total_cells,
    unit_limits,
)
from mpc_ops.plan.model import Measure, Plan, RegionGateNode
from mpc_ops.protocol.circuits.counts import Bits
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import pick_rows, stack_columns
from mpc_ops.protocol.core.shares import RingVector, boolean_of, ring_of, ring_zero
from mpc_ops.protocol.core.terms import PartyKeys
from mpc_ops.protocol.disclosure.gate import GateCost, GateInput, GateTerms, gate, gate_cost
from mpc_ops.ring.planes import WORD_BITS
from mpc_ops.sharing import PartPayload, UnitLimits, expand_part

__all__ = [
    "REGION_GATE_OPS",
    "RegionGate",
    "gated_region_program",
    "region_gate",
    "region_gate_cost",
    "region_shape",
    "region_stage_of",
]

SliceName: TypeAlias = Literal["period", "prior_year"]
REGION_GATE_OPS = ("region_sum", "region_gate", "cross")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionGate:
    """What a plan asks of the Gate in the region; public.

    Attributes:
        terms: of the Gate, the same in every slice.
        limits: form of the owners' tables of units.
        tables: for each gated slice, the number of its table in a part. Slices that no measure reads are left out.
        inputs: for each gated slice, the lanes of the owners' vector that it takes: its measures' leaf cells.
        lanes: for each lane that leaves the region, its place among the slices' outputs (values, then counts, slice by slice).
    """

    terms: GateTerms
    limits: UnitLimits
    tables: tuple[int, ...]
    inputs: tuple[NDArray[np.int64], ...]
    lanes: NDArray[np.int64]


def region_gate(plan: Plan) -> RegionGate | None:
    """Return what the plan asks of the Gate in the region; None if its Gate is at the owners."""
    node, limits = plan.gate, unit_limits(plan)
    if not isinstance(node, RegionGateNode) or limits is None:
        return None
    source, found = aggregate_node(plan), measures(plan)
    distinct = [is_distinct(plan, one) for one in found]
    terms = GateTerms(
        domains=tuple(tuple(plan.domains[name]) for name in source.dimensions),
        k=node.k,
        min_owners=node.min_owners,
        counts=any(distinct),
        totals=any(one.totals == "each_level" for one in found),
    )
    shared, leaves = shared_measures(plan), np.arange(limits.width, dtype=np.int64)
    tables, inputs, place = [], [], 0
    starts: dict[SliceName, tuple[int, int]] = {}
    for number, one in enumerate(source.slices):
        if any(measure.slice == one.name for measure in found):
            mine = [lane for lane, measure in enumerate(shared) if measure.slice == one.name]
            tables.append(number)
            inputs.append((np.array(mine, dtype=np.int64)[:, None] * limits.width + leaves).reshape(-1))
            starts[one.name] = (place, place + len(mine) * terms.cells)
            place = starts[one.name][1] + (terms.cells + terms.total_cells if terms.counts else 0)
    lanes = _lanes(plan, terms, starts)
    return RegionGate(terms=terms, limits=limits, tables=tuple(tables), inputs=tuple(inputs), lanes=lanes)


def _lanes(plan: Plan, terms: GateTerms, starts: Mapping[SliceName, tuple[int, int]]) -> NDArray[np.int64]:
    """Return where each lane of the layout is among the outputs; `starts` says where a slice's values and counts begin."""
    base, totals = len(cells(plan)), len(total_cells(plan))
    shared = shared_measures(plan)
    parts: list[NDArray[np.int64]] = []

    def row(measure: Measure) -> int:
        return [one.name for one in shared if one.slice == measure.slice].index(measure.name)

    for measure in measures(plan):
        values, counts = starts[measure.slice]
        if is_distinct(plan, measure):
            parts.append(counts + np.arange(base + (totals if measure.totals == "each_level" else 0), dtype=np.int64))
        else:
            parts.append(values + row(measure) * terms.cells + np.arange(base, dtype=np.int64))
    return np.concatenate(parts)


def region_shape(plan: Plan, ops: Sequence[str]) -> StageShape:
    """Return the shape of the region's stage: its `lanes` are those of the owners' parts; the crossing's are its own."""
    return StageShape(kind="region", lanes=shared_lane_count(plan), ops=tuple(ops))


def region_stage_of(plan: Plan, inputs: RegionInputs, attempt: int) -> Stage:
    """Return the program of the region's stage, wherever the plan's Gate is.

    Raises:
        LocalProtocolError: PART_MIXED if the crossing has other lanes than the plan.
    """
    wanted = region_gate(plan)
    if inputs.route.lanes != lane_count(plan):
        raise LocalProtocolError("PART_MIXED", "a crossing of another lane count", ids=inputs.route.ids())
    if wanted is None:
        return lambda flow, keys: region_program(inputs, flow, keys, attempt)
    return lambda flow, keys: gated_region_program(inputs, wanted, flow, keys, attempt)


def gated_region_program(
    inputs: RegionInputs, wanted: RegionGate, flow: Flow, keys: PartyKeys, attempt: int
) -> Steps[RegionOutput]:
    """Add the owners' figures, pass the Gate on shares, prove, and prepare the crossing.

    Run by: each operator of a region cluster, in lock-step.  Rounds, sent: `region_gate_cost`, and those of `finish_region`
    (one product a lane, proofs, ACCEPT).  Security: malicious with abort in an active session; nothing is opened, and what
    crosses is built behind ACCEPT.  Leaks: see the module.

    Raises:
        PlanError: UNSUPPORTED_NODE for other nodes than `REGION_GATE_OPS`.
        LocalProtocolError: PARTS_INVALID, PART_MIXED, and those of the Gate.
        Abort, PeerProtocolError: those of the proofs and the barrier.
    """
    if inputs.shape.ops != REGION_GATE_OPS:
        raise PlanError(
            "UNSUPPORTED_NODE",
            "the region stage has other nodes, or another order",
            expected=", ".join(REGION_GATE_OPS),
            got=", ".join(inputs.shape.ops),
        )
    parts = sorted(check_parts(inputs), key=lambda part: part.filing.owner)
    for part in parts:
        if not wanted.limits.allow(part.units):
            raise LocalProtocolError("PART_MIXED", "tables of units of another form", ids=part.filing.ids())
    figures, tables = _owners(parts, inputs.shape.lanes, flow)
    slices = [
        GateInput(members=[owner[number] for owner in tables], measures=_picked(figures, lanes))
        for number, lanes in zip(wanted.tables, wanted.inputs, strict=True)
    ]
    outputs = yield from gate(flow.stage, slices, wanted.terms)
    vectors: list[RingVector] = []
    for one in outputs:
        vectors += [one.values] if one.counts is None else [one.values, one.counts]
    total = _picked(_stacked(vectors), wanted.lanes)
    result = yield from finish_region(inputs, flow, keys, attempt, total)
    return result


def _owners(parts: Sequence[PartPayload], lanes: int, flow: Flow) -> tuple[RingVector, list[list[Bits]]]:
    """Return the sum of the owners' figures, and each owner's tables as shares; one part is expanded at a time."""
    stage = flow.stage
    total, tables = ring_zero(stage, lanes), []
    for part in parts:
        full = expand_part(part)
        total = total.plus(ring_of(stage, *full.values))
        tables.append([boolean_of(stage, WORD_BITS * first.shape[1], first, second) for first, second in full.tables])
    return total, tables


def _picked(x: RingVector, lanes: NDArray[np.int64]) -> RingVector:
    out = pick_rows(x, lanes)
    assert isinstance(out, RingVector)  # noqa: S101 - of ring values come ring values
    return out


def _stacked(parts: Sequence[RingVector]) -> RingVector:
    out = stack_columns(parts)
    assert isinstance(out, RingVector)  # noqa: S101 - of ring values come ring values
    return out


def region_gate_cost(wanted: RegionGate, rows: Sequence[Sequence[int]]) -> GateCost:
    """Return rounds and bytes of the Gate for owners whose parts have tables of these padded rows (one list per owner)."""
    units = [[owner[number] for owner in rows] for number in wanted.tables]
    return gate_cost(units, [len(lanes) // wanted.limits.width for lanes in wanted.inputs], wanted.terms)
