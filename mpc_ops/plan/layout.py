"""Which lane holds which number: public, fixed by the plan, the same at owners, operators and recipient.

Cells in report order: for `d` dimensions every leaf (product of the domains), then the
*not allocated* cell of each prefix of `d-1` values, ... up to the top one. Measures that are counted anew at each level
(`each_level`) have extra lanes for the total of every shorter prefix. Lanes run measure by measure, cell by cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, cast

from mpc_ops.plan.model import AggregateNode, Measure, MeasureNode, Plan

__all__ = ["Cell", "Lane", "aggregate_node", "cells", "lane_count", "lanes", "measures", "total_cells"]


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
