"""The page that an entity's signers read: its own figures per cell, the prior year beside them. It stays at the owner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from local_stores.snapshot.record import Contribution, ContributionId
from local_stores.snapshot.unit_rows import Bools, level_counts
from mpc_ops.federation.model import Owner
from mpc_ops.plan.layout import (
    Cell,
    aggregate_node,
    cells,
    is_distinct,
    leaf_count,
    measures,
    shared_lanes,
    total_cells,
)
from mpc_ops.plan.model import Measure, Plan

__all__ = ["contribution_page", "contribution_rows"]


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    level: int
    kind: str
    numbers: list[str]


def contribution_page(plan: Plan, owner: Owner, of: ContributionId, record: Contribution) -> bytes:
    """Return a readable HTML page of an owner's contribution (UTF-8, no script, nothing loaded from elsewhere)."""
    import jinja2  # noqa: PLC0415 - only the steps that write pages need it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("local_stores.snapshot"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    values = _values(plan, record)
    ordered = _paired(measures(plan))
    local = {
        (name, cell): int(text)
        for name, numbers in record.local.items()
        for cell, text in zip(cells(plan), numbers, strict=True)
    }
    amounts = [measure for measure in ordered if measure.translate is not None and measure.translate == measure.slice]
    page = environment.get_template("contribution.html").render(
        plan=plan,
        owner=owner,
        of=of,
        record=record,
        k=plan.gate.k,
        region=plan.gate.where == "region",
        units={
            one.name: len(rows) for one, rows in zip(aggregate_node(plan).slices, _tables(plan, record), strict=False)
        },
        measures=ordered,
        rows=[
            _Row(label, level, cell.kind, [_number(_value(plan, values, m, cell), m.scale) for m in ordered])
            for label, level, cell in _rows(plan)
        ],
        local_measures=amounts,
        local_rows=[
            _Row(label, level, cell.kind, [_number(_value(plan, local, m, cell), _scale(plan, m)) for m in amounts])
            for label, level, cell in _rows(plan)
        ],
    )
    return page.encode("utf-8")


def contribution_rows(plan: Plan, record: Contribution) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the headings and the rows (label, numbers) of what is shared, for a terminal."""
    values, ordered = _values(plan, record), _paired(measures(plan))
    rows = [
        (label, [_number(_value(plan, values, m, cell), m.scale) for m in ordered]) for label, _, cell in _rows(plan)
    ]
    return [measure.label or measure.name for measure in ordered], rows


def _values(plan: Plan, record: Contribution) -> dict[tuple[str, Cell], int]:
    values = {
        (lane.measure.name, lane.cell): int(text) for lane, text in zip(shared_lanes(plan), record.lanes, strict=True)
    }
    return values | _counts(plan, record)


def _tables(plan: Plan, record: Contribution) -> list[Bools]:
    return record.rows(leaf_count(plan)) if plan.gate.where == "region" else []


def _counts(plan: Plan, record: Contribution) -> dict[tuple[str, Cell], int]:
    """Return distinct units by cell and total, which before a region's Gate are not among the shared numbers."""
    node = aggregate_node(plan)
    sizes = [len(plan.domains[name]) for name in node.dimensions]
    leaves = [cell for cell in cells(plan) if cell.kind == "leaf"]
    out: dict[tuple[str, Cell], int] = {}
    for one, rows in zip(node.slices, _tables(plan, record), strict=False):
        numbers = np.concatenate(level_counts(rows, sizes)).tolist()
        for measure in measures(plan):
            if measure.slice == one.name and is_distinct(plan, measure):
                out |= {
                    (measure.name, cell): n for cell, n in zip([*leaves, *total_cells(plan)], numbers, strict=False)
                }
    return out


def _paired(found: list[Measure]) -> list[Measure]:
    """Return measures with the prior year's beside the month's."""
    out: list[Measure] = []
    for measure in found:
        if measure.slice == "period":
            out += [measure, *(m for m in found if m.slice == "prior_year" and m.source == measure.source)]
    return out + [measure for measure in found if measure not in out]


def _rows(plan: Plan) -> Iterator[tuple[str, int, Cell]]:
    """Yield (label, level, cell) in reading order: leaves, not allocated and total of each prefix, then the top."""
    names = aggregate_node(plan).dimensions
    domains = [plan.domains[name] for name in names]

    def below(prefix: tuple[str, ...]) -> Iterator[tuple[str, int, Cell]]:
        level = len(prefix)
        if level == len(domains):
            yield " / ".join(prefix) or "All", level, Cell(prefix, "leaf")
            return
        for label in domains[level]:
            yield from below((*prefix, label))
        if plan.gate.where == "owner":
            yield " / ".join((*prefix, "not allocated")), level, Cell(prefix, "not_allocated")
        if plan.rollup:
            yield " / ".join((*prefix, "total")) if prefix else "Total", level, Cell(prefix, "total")

    yield from below(())


def _value(plan: Plan, values: Mapping[tuple[str, Cell], int], measure: Measure, cell: Cell) -> int | None:
    if cell.kind != "total" or (measure.name, cell) in values:
        return values.get((measure.name, cell), 0)
    if measure.totals != "foots":
        return None
    depth, names = len(cell.labels), aggregate_node(plan).dimensions
    total = 0
    for length in range(depth, len(names) + 1):
        for labels in product(*(plan.domains[name] for name in names[depth:length])):
            part = Cell((*cell.labels, *labels), "leaf" if length == len(names) else "not_allocated")
            total += values.get((measure.name, part), 0)
    return total


def _scale(plan: Plan, measure: Measure) -> int:
    return next(one.scale for one in aggregate_node(plan).aggregates if one.name == measure.source)


def _number(value: int | None, scale: int) -> str:
    if value is None:
        return ""
    whole, rest = divmod(abs(value), 10**scale)
    text = f"{whole:,}" + (f".{rest:0{scale}d}" if scale else "")
    return f"\N{MINUS SIGN}{text}" if value < 0 else text
