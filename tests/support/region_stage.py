"""The region's stage in the clear, for tests: what the Gate on shares must give for the filings of a region's owners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from local_stores.snapshot.contribution import Figures
from local_stores.snapshot.gate import NOT_ALLOCATED, gate
from mpc_ops.plan.layout import aggregate_node, is_distinct, lanes, leaf_count, shared_measures
from mpc_ops.plan.model import Plan

__all__ = ["clear_region"]


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
        bits = np.concatenate(
            [np.zeros((0, leaves), bool), *(figures.tables[number] for figures in filed if figures.tables)]
        )
        units, leaf = np.nonzero(bits)
        codes = np.unravel_index(leaf, sizes) if sizes else ()
        domains = [plan.domains[name] for name in node.dimensions]
        places = gate([np.asarray(code) for code in codes], units, domains, plan.gate.k) if len(units) else None
        placed[one.name] = (units, leaf, places)
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


def _inside(plan: Plan, cell, places: np.ndarray) -> np.ndarray:
    names = aggregate_node(plan).dimensions
    codes = [plan.domains[name].index(label) for name, label in zip(names, cell.labels, strict=False)]
    inside = (places[:, : len(codes)] == codes).all(axis=1)
    if cell.kind == "not_allocated":
        inside &= places[:, len(codes)] == NOT_ALLOCATED
    return inside
