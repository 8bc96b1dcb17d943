"""From opened numbers to the table: lanes as the plan lays them out, totals that foot added up, rows in printing order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from local_stores.publish.model import Column, Level, Measure, ReportTable, Row
from mpc_ops.errors import LocalProtocolError
from mpc_ops.plan import layout
from mpc_ops.plan.model import Measure as PlanMeasure
from mpc_ops.plan.model import Plan

__all__ = ["DEFAULT_RATIOS", "table_from_lanes"]

DEFAULT_RATIOS: Mapping[str, str] = {"margin": "revenue", "gross_margin": "revenue"}

_Key = tuple[Level, tuple[str, ...]]


def table_from_lanes(
    plan: Plan,
    values: Sequence[int],
    *,
    period: str,
    edition: int,
    ratios: Mapping[str, str] = DEFAULT_RATIOS,
    dimension_labels: Mapping[str, str] | None = None,
) -> ReportTable:
    """Build the table of one run from the numbers that the recipient reconstructed.

    Args:
        plan: the calculation plan; its layout says which lane holds which number.
        values: signed integers, one per lane, in lane order.
        period: period key.
        edition: release number within the period.
        ratios: measures to be shown as a percentage of another one, by name; names that the plan lacks are passed over.
        dimension_labels: what the data contract calls the dimensions; their names in words otherwise.

    Raises:
        LocalProtocolError: TABLE_INVALID if the number of values is not the plan's.
    """
    lanes = layout.lanes(plan)
    if len(values) != len(lanes):
        ids = {"report": plan.report, "period": period}
        raise LocalProtocolError("TABLE_INVALID", "result has another number of lanes than its plan", ids=ids)
    found = layout.measures(plan)
    numbers: dict[str, dict[_Key, int]] = {measure.name: {} for measure in found}
    for lane, value in zip(lanes, values, strict=True):
        numbers[lane.measure.name][_key(lane.cell)] = int(value)
    if plan.rollup:
        for measure in found:
            if measure.totals == "foots":
                numbers[measure.name].update(_sums(numbers[measure.name]))
    dimensions = tuple(layout.aggregate_node(plan).dimensions)
    places = _printing_order([tuple(plan.domains[name]) for name in dimensions], (), rollup=plan.rollup)
    return ReportTable(
        report=plan.report,
        title=plan.title,
        period=period,
        edition=edition,
        currency=plan.terms.currency,
        dimensions=dimensions,
        dimension_labels=tuple((dimension_labels or {}).get(name) or _words(name) for name in dimensions),
        measures=tuple(_measure(measure, found, plan, ratios) for measure in found),
        rows=tuple(Row(*place, tuple(numbers[m.name][place] for m in found)) for place in places),
    )


def _key(cell: layout.Cell) -> _Key:
    if cell.kind == "total":
        return ("subtotal" if cell.labels else "total"), cell.labels
    return cell.kind, cell.labels


def _sums(cells: Mapping[_Key, int]) -> dict[_Key, int]:
    """Add leaves and not-allocated cells into the total of every prefix that they stand under."""
    sums: dict[_Key, int] = {}
    for (level, labels), value in cells.items():
        # a not-allocated cell belongs to its own prefix as well, a leaf only to shorter ones
        for length in range(len(labels) + (level == "not_allocated")):
            key: _Key = ("subtotal" if length else "total", labels[:length])
            sums[key] = sums.get(key, 0) + value
    return sums


def _printing_order(domains: Sequence[Sequence[str]], prefix: tuple[str, ...], *, rollup: bool) -> list[_Key]:
    """Leaves, then the prefix's not-allocated cell, then its total, nested; without dimensions one leaf alone."""
    if len(prefix) == len(domains):
        return [("leaf", prefix)]
    places = [
        place for value in domains[len(prefix)] for place in _printing_order(domains, (*prefix, value), rollup=rollup)
    ]
    places.append(("not_allocated", prefix))
    if rollup:
        places.append(("subtotal" if prefix else "total", prefix))
    return places


def _measure(measure: PlanMeasure, found: Sequence[PlanMeasure], plan: Plan, ratios: Mapping[str, str]) -> Measure:
    # Columns of one figure read the same aggregate: of this period, of the prior year, and of the prior year at this
    # period's rates.
    month = next((m for m in found if m.source == measure.source and m.slice == "period"), measure)
    column: Column = "month"
    if measure is not month and measure.slice == "prior_year":
        column = "prior_year_cc" if measure.translate == "period" else "prior_year"
    base = month.name if column != "month" else measure.name
    target = ratios.get(measure.name)
    distinct = any(
        a.name == measure.source and a.fn == "count_distinct" for a in layout.aggregate_node(plan).aggregates
    )
    return Measure(
        name=measure.name,
        label=_words(month.label if column != "month" else measure.label),
        kind=measure.kind,
        scale=measure.scale,
        currency=plan.terms.currency if measure.kind == "amount" else None,
        foots=not distinct,
        base=base,
        column=column,
        percent_of=target if any(m.name == target for m in found) else None,
    )


def _words(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]
