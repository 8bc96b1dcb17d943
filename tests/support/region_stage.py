"""The region's stage for tests: on shares in memory, and in the clear, which is what the Gate on shares must give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from local_stores.snapshot.contribution import Figures
from local_stores.snapshot.gate import NOT_ALLOCATED, gate
from mpc_ops.engine.region_gate import REGION_GATE_OPS, RegionInputs, region_shape, region_stage_of
from mpc_ops.plan.layout import aggregate_node, is_distinct, lane_count, lanes, leaf_count, shared_measures
from mpc_ops.plan.model import Plan
from mpc_ops.protocol.sums import CrossRoute, open_crossing
from mpc_ops.sharing import PartPayload, parts_of, share, unit_planes
from tests.support.active import MEMBERS, Outcome, keys_of, run_flow
from tests.support.core import RUN, filing, open_shares
from tests.support.region_gate import Slice, clear_places

__all__ = ["clear_region", "region_parts", "run_region"]


def region_parts(figures: Figures, owner: str) -> tuple[PartPayload, PartPayload, PartPayload]:
    """Return an owner's parts by position, with its tables of units."""
    planes = [unit_planes(one) for one in figures.tables]
    return parts_of(share(figures.lanes.astype(np.uint64), planes=planes), filing(owner))


def _route(plan: Plan) -> CrossRoute:
    return CrossRoute(
        run_id=RUN, source="de", target="group", crossing="cross", lanes=lane_count(plan),
        senders=MEMBERS, receivers=("nl-1", "ch-1", "sg-1"),
    )  # fmt: skip


def run_region(
    plan: Plan,
    parts: Sequence[Sequence[PartPayload | None]],
    *,
    security: str = "active",
    ops: Sequence[str] = REGION_GATE_OPS,
    **options: object,
) -> tuple[list[int] | None, Outcome]:
    """Run the region's stage at three positions; return (signed lanes that the group opens, outcome).

    Args:
        plan: the plan.
        parts: by position, each owner's part; None for an owner that reports nothing.
        options: go to `run_flow`.
    """

    def program(flow):
        party = flow.stage.party
        inputs = RegionInputs(shape=region_shape(plan, ops), party=party, parts=parts[party], route=_route(plan))
        return (yield from region_stage_of(plan, inputs, 1)(flow, keys_of(party)))

    outcome = run_flow(program, security=security, **options)
    if not outcome.done:
        return None, outcome
    outputs = [outcome.results[party] for party in range(3)]
    shares = [
        open_crossing({sender: outputs[sender].crossings[at] for sender in range(3)}, _route(plan), at)
        for at in range(3)
    ]
    assert np.array_equal(open_shares(shares), open_shares([one.share for one in outputs]))
    return open_shares(shares).astype(np.int64).tolist(), outcome


def clear_region(plan: Plan, filed: Sequence[Figures]) -> list[int]:
    """Return the region's lanes, in the order of `plan.layout.lanes`, exact integers.

    Args:
        plan: a plan whose Gate stands in the region.
        filed: what each owner of the region contributes.
    """
    node, leaves = aggregate_node(plan), leaf_count(plan)
    sizes = [len(plan.domains[name]) for name in node.dimensions]
    sums: dict[str, list[int]] = {}
    for number, measure in enumerate(shared_measures(plan)):
        own = [one.lanes[number * leaves : (number + 1) * leaves].astype(object) for one in filed]
        sums[measure.name] = list(sum(own, np.zeros(leaves, object)))
    placed = {}
    for number, one in enumerate(node.slices):
        tables = [figures.tables[number] for figures in filed if figures.tables]
        units, leaf = np.nonzero(np.concatenate([np.zeros((0, leaves), bool), *tables]))
        codes = [np.asarray(code) for code in np.unravel_index(leaf, sizes)] if sizes else []
        owners = np.repeat(np.arange(len(tables)), [len(table) for table in tables])[units]
        placed[one.name] = (units, leaf, _places(plan, codes, units, owners) if len(units) else None)
    out = []
    for lane in lanes(plan):
        units, leaf, places = placed[lane.measure.slice]
        if places is None:
            out.append(0)
            continue
        inside = _inside(plan, lane.cell, places)
        if is_distinct(plan, lane.measure):
            out.append(len(set(units[inside].tolist())))
        else:
            # A leaf's rows stay together, so its figure goes where any of them went.
            out.append(sum(sums[lane.measure.name][cell] for cell in sorted(set(leaf[inside].tolist()))))
    return out


def _places(plan: Plan, codes: Sequence[np.ndarray], units: np.ndarray, owners: np.ndarray) -> np.ndarray | None:
    domains = tuple(tuple(plan.domains[name]) for name in aggregate_node(plan).dimensions)
    if plan.gate.min_owners == 1:
        return gate(codes, units, domains, plan.gate.k)  # the very function that owners use
    at = np.stack(codes, axis=1).tolist() if codes else [()] * len(units)
    rows = [(*who, tuple(place), ()) for *who, place in zip(owners.tolist(), units.tolist(), at, strict=True)]
    places = clear_places(Slice(domains, 0, 0, rows), plan.gate.k, plan.gate.min_owners)
    return None if places is None else np.array(places, dtype=np.int64).reshape(len(rows), len(domains))


def _inside(plan: Plan, cell, places: np.ndarray) -> np.ndarray:
    names = aggregate_node(plan).dimensions
    codes = [plan.domains[name].index(label) for name, label in zip(names, cell.labels, strict=False)]
    inside = (places[:, : len(codes)] == codes).all(axis=1)
    if cell.kind == "not_allocated":
        inside &= places[:, len(codes)] == NOT_ALLOCATED
    return inside
