"""The page that an entity's signers read: its own figures per cell, the prior year beside them. It stays at the owner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import cast

from local_stores.snapshot.record import Contribution, ContributionId
from mpc_ops.federation.model import Owner
from mpc_ops.plan.layout import Cell, aggregate_node, cells, lanes, measures
from mpc_ops.plan.model import GateNode, Measure, Plan

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
        k=cast("GateNode", plan.node(GateNode)).k,
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
    return {(lane.measure.name, lane.cell): int(text) for lane, text in zip(lanes(plan), record.lanes, strict=True)}


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
