"""Which lane holds which number: public, fixed by the plan, the same at owners, operators and recipient.

Cells in report order: for `d` dimensions every leaf (product of the domains), then the
*not allocated* cell of each prefix of `d-1` values, ... up to the top one. Measures that are counted anew at each level
(`each_level`) have extra lanes for the total of every shorter prefix. Lanes run measure by measure, cell by cell.

These are the lanes that leave a region. With the Gate at the owner, owners share them too. With the Gate in the region,
an owner shares its figures of leaf cells (`shared_lanes`: measure by measure, leaf by leaf, without distinct counts,
which the region takes from the tables) and, for each slice, a table with one row of bits per protected unit, one bit for
each leaf cell in the same order (`unit_limits`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Literal, cast

from mpc_ops.plan.model import AggregateNode, Measure, MeasureNode, Plan, RegionGateNode
from mpc_ops.sharing import UnitLimits, padded_rows

__all__ = [
    "Cell", "Lane", "aggregate_node", "cells", "is_distinct", "lane_count", "lanes", "leaf_count", "measures",
    "shared_lane_count", "shared_lanes", "shared_measures", "total_cells", "unit_limits",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the report.

    Attributes:
        labels: values of the leading dimensions; all of them for a leaf, fewer for the other kinds.
        kind: `leaf`; `not_allocated` under the prefix `labels`; `total` of the prefix `labels` (`()` is the grand total).
    """

    labels: tuple[str, ...]
    kind: Literal["leaf", "not_allocated", "total"]


@dataclass(frozen=True, slots=True)
class Lane:
    """One shared value: a measure of a cell."""

    measure: Measure
    cell: Cell


def aggregate_node(plan: Plan) -> AggregateNode:
    """Return the plan's aggregate node."""
    return cast("AggregateNode", plan.node(AggregateNode))


def measures(plan: Plan) -> list[Measure]:
    """Return the plan's measures in order."""
    return cast("MeasureNode", plan.node(MeasureNode)).measures


def _prefixes(plan: Plan, length: int) -> Iterator[tuple[str, ...]]:
    names = aggregate_node(plan).dimensions[:length]
    return product(*(plan.domains[name] for name in names))


def cells(plan: Plan) -> list[Cell]:
    """Return leaves, then not-allocated cells from the deepest prefixes to the top one.

    Without dimensions there is one leaf and no not-allocated cell: an owner below k contributes nothing.
    """
    depth = len(aggregate_node(plan).dimensions)
    out = [Cell(labels, "leaf") for labels in _prefixes(plan, depth)]
    for length in range(depth - 1, -1, -1):
        out.extend(Cell(labels, "not_allocated") for labels in _prefixes(plan, length))
    return out


def total_cells(plan: Plan) -> list[Cell]:
    """Return the total cells of every shorter prefix, deepest first; empty without ROLLUP or dimensions."""
    if not plan.rollup:
        return []
    depth = len(aggregate_node(plan).dimensions)
    return [Cell(labels, "total") for length in range(depth - 1, -1, -1) for labels in _prefixes(plan, length)]


def lanes(plan: Plan) -> list[Lane]:
    """Return all lanes in order: lane j of every share vector holds the number of element j."""
    base, totals = cells(plan), total_cells(plan)
    return [
        Lane(measure, cell)
        for measure in measures(plan)
        for cell in (base + totals if measure.totals == "each_level" else base)
    ]


def lane_count(plan: Plan) -> int:
    """Return the number of lanes without building them one by one."""
    base, totals = len(cells(plan)), len(total_cells(plan))
    return sum(base + (totals if measure.totals == "each_level" else 0) for measure in measures(plan))


def leaf_count(plan: Plan) -> int:
    """Return the number of leaf cells: the product of the domains' sizes."""
    return prod(len(plan.domains[name]) for name in aggregate_node(plan).dimensions)


def is_distinct(plan: Plan, measure: Measure) -> bool:
    """Return whether a measure counts distinct units."""
    (source,) = (one for one in aggregate_node(plan).aggregates if one.name == measure.source)
    return source.fn == "count_distinct"


def shared_measures(plan: Plan) -> list[Measure]:
    """Return the measures that an owner shares as ring values; before a region's Gate, no distinct counts."""
    found = measures(plan)
    return found if plan.gate.where == "owner" else [one for one in found if not is_distinct(plan, one)]


def shared_lanes(plan: Plan) -> list[Lane]:
    """Return what lane j of an owner's share vector holds."""
    if plan.gate.where == "owner":
        return lanes(plan)
    leaves = [cell for cell in cells(plan) if cell.kind == "leaf"]
    return [Lane(measure, cell) for measure in shared_measures(plan) for cell in leaves]


def shared_lane_count(plan: Plan) -> int:
    """Return the number of ring values in an owner's part without building them one by one."""
    return lane_count(plan) if plan.gate.where == "owner" else len(shared_measures(plan)) * leaf_count(plan)


def unit_limits(plan: Plan) -> UnitLimits | None:
    """Return the limits of the units' tables in an owner's part; None with the Gate at the owner."""
    if not isinstance(plan.gate, RegionGateNode):
        return None
    return UnitLimits(leaf_count(plan), len(aggregate_node(plan).slices), padded_rows(plan.gate.max_units))
