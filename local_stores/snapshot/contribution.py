"""The figures that an owner contributes: measures per cell, in the order of the plan's lanes.

With the Gate at the owner these are cells behind it. With the Gate in the region they are leaf cells, and with them goes
one row of bits for each protected unit (in which leaf cells it has a row), from which the region counts.

Amounts are added exactly and translated once per cell, on the entity's subtotal: `gc(amount, rate)`, half-even to the
measure's scale. Nothing here is shared yet, and nothing here leaves the owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from local_stores.errors import ConfigError, LocalDataError
from local_stores.snapshot.gate import NOT_ALLOCATED, distinct_units, gate
from local_stores.snapshot.local_plan import UnitTable
from local_stores.snapshot.periods import SLICES, SliceName
from local_stores.snapshot.unit_rows import Bools, unit_rows
from mpc_ops.notices.model import Reference
from mpc_ops.plan.bounds import scaled
from mpc_ops.plan.layout import (
    Cell,
    aggregate_node,
    cells,
    lanes,
    leaf_count,
    measures,
    shared_measures,
    total_cells,
)
from mpc_ops.plan.model import Measure, Plan, RegionGateNode

__all__ = ["Figures", "compute_figures", "gc", "owner_rates"]

Int64 = npt.NDArray[np.int64]
_LIMIT = 2**63


@dataclass(frozen=True)
class Figures:
    """An owner's contribution.

    Attributes:
        lanes: int64, shape (lanes,), in the order of `plan.layout.shared_lanes`.
        local: untranslated amounts in units of 10^-scale of their aggregate, by measure name, cell by cell in the order
            of `plan.layout.cells`; for the owner's page only.
        moved: slices in which the Gate moved rows, and slices below k as a whole.
        empty: there was no row in any slice.
        tables: rows of bits of each slice, shape (units, leaf cells), sorted; none with the Gate at the owner.
    """

    lanes: Int64
    local: Mapping[str, list[int]]
    moved: tuple[str, ...]
    below: tuple[str, ...]
    empty: bool
    tables: tuple[Bools, ...] = ()

    def __repr__(self) -> str:
        return f"Figures({len(self.lanes)} lanes, <redacted>)"


@dataclass(frozen=True)
class _Gated:
    """One slice after the Gate: its rows' places, and sums by cell number."""

    places: Int64
    units: Int64
    rows: Int64  # positions in the unit table


def owner_rates(
    plan: Plan, reference: Reference | None, currency: str, keys: Mapping[SliceName, str]
) -> dict[SliceName, str]:
    """Return the exchange rate of each slice that the plan translates by, as decimal text.

    Args:
        plan: the plan.
        reference: rates of the period, or None where there are none.
        currency: what the owner books in.
        keys: period key of each slice.

    Raises:
        ConfigError: RATE_MISSING naming currency and period; RATE_OUTSIDE_TERMS; REFERENCE_FOREIGN for another group
            currency.
    """
    wanted = {measure.translate for measure in measures(plan) if measure.translate is not None}
    out: dict[SliceName, str] = {}
    for name in sorted(wanted):
        if reference is not None and reference.currency != plan.terms.currency:
            raise ConfigError(
                "REFERENCE_FOREIGN",
                "reference data is in another currency than the report",
                expected=plan.terms.currency,
                got=reference.currency,
            )
        rates = {(rate.period, rate.currency): rate.avg_rate for rate in reference.rates} if reference else {}
        text = rates.get((keys[name], currency), "1" if currency == plan.terms.currency else None)
        if text is None:
            raise ConfigError(
                "RATE_MISSING",
                f"no rate for {currency} in {keys[name]}",
                ids={"currency": currency, "period": keys[name]},
                hint="The report's author must publish a new version of the period's reference data",
            )
        if plan.terms.max_rate is None or scaled(text, 12) > scaled(plan.terms.max_rate, 12):
            raise ConfigError(
                "RATE_OUTSIDE_TERMS",
                "a rate is above the report's max_rate, so that sums could overflow",
                expected=f"at most {plan.terms.max_rate}",
                got=text,
                ids={"currency": currency, "period": keys[name]},
            )
        out[name] = text
    return out


def gc(amount: int, from_scale: int, rate: str, to_scale: int) -> int:
    """Translate an amount at a rate, rounding half-even once.

    Args:
        amount: in units of 10^-from_scale of the local currency.
        from_scale: digits after the point of the amount.
        rate: units of group currency per unit of local currency, decimal text.
        to_scale: digits after the point of the result.
    """
    decimals = len(rate.partition(".")[2])
    product = amount * scaled(rate, decimals)
    shift = from_scale + decimals - to_scale
    if shift <= 0:
        return int(product * 10**-shift)
    base = int(10**shift)
    quotient, rest = divmod(product, base)
    half = 2 * rest - base
    return quotient + (1 if half > 0 or (half == 0 and quotient % 2 == 1) else 0)


def compute_figures(plan: Plan, table: UnitTable, rates: Mapping[SliceName, str], *, owner: str) -> Figures:
    """Compute every lane, behind the owner's Gate or before the region's.

    Args:
        plan: a checked plan.
        table: the local plan's result.
        rates: from `owner_rates`.
        owner: named in messages.

    Raises:
        LocalDataError: BOUND_EXCEEDED if a value leaves its proven bound (a bug, or a contract that was not enforced);
            UNITS_TOO_MANY if the region's Gate allows fewer units.
    """
    gate_node = plan.gate
    if isinstance(gate_node, RegionGateNode):
        return _leaf_figures(plan, gate_node, table, rates, owner)
    return _gated_figures(plan, table, rates, owner)


def _leaf_figures(
    plan: Plan, gate_node: RegionGateNode, table: UnitTable, rates: Mapping[SliceName, str], owner: str
) -> Figures:
    """Return the figures of leaf cells, translated before any Gate, and the units' rows."""
    node, leaves = aggregate_node(plan), leaf_count(plan)
    shape = [len(plan.domains[name]) for name in node.dimensions]
    leaf = np.zeros(table.rows, np.int64)
    for size, codes in zip(shape, table.dimensions, strict=True):
        leaf = leaf * size + codes
    rows = {name: np.flatnonzero(table.slices == number) for number, name in enumerate(SLICES)}
    tables = tuple(unit_rows(table.units[rows[one.name]], leaf[rows[one.name]], leaves) for one in node.slices)
    for one, found in zip(node.slices, tables, strict=True):
        if len(found) > gate_node.max_units:
            raise LocalDataError(
                "UNITS_TOO_MANY",
                f"more protected units in the slice {one.name} than the report's Gate allows",
                expected=f"at most {gate_node.max_units}",
                ids={"owner": owner},
                hint="The report's author must release it with a larger max_units",
            )
    empty_cells = [0] * (len(cells(plan)) - leaves)
    local, numbers = {}, []
    leaf_cells = cells(plan)[:leaves]
    for measure in shared_measures(plan):
        mine = rows[measure.slice]
        sums = _exact_sums(leaf[mine], table.aggregates[measure.source][mine], leaves)
        local[measure.name] = [*sums, *empty_cells]
        values = _shared(plan, measure, dict(zip(leaf_cells, sums, strict=True)), rates, owner)
        numbers += [values[cell] for cell in leaf_cells]
    return Figures(np.array(numbers, np.int64), local, (), (), table.rows == 0, tables)


def _exact_sums(cell: Int64, values: Int64, count: int) -> list[int]:
    """Return the exact sums of `values` by cell number below `count`."""
    # Two halves that cannot overflow below 2^31 rows, joined as Python integers.
    high, low = (np.zeros(count, np.int64) for _ in range(2))
    np.add.at(high, cell, values >> 32)
    np.add.at(low, cell, values & 0xFFFFFFFF)
    return [(int(h) << 32) + int(n) for h, n in zip(high, low, strict=True)]


def _gated_figures(plan: Plan, table: UnitTable, rates: Mapping[SliceName, str], owner: str) -> Figures:
    node, k = aggregate_node(plan), plan.gate.k
    domains = [plan.domains[name] for name in node.dimensions]
    gated: dict[str, _Gated] = {}
    moved, below = [], []
    for number, name in enumerate(SLICES):
        rows = np.flatnonzero(table.slices == number)
        if not len(rows):
            continue
        units = table.units[rows]
        places = gate([codes[rows] for codes in table.dimensions], units, domains, k)
        if places is None:
            below.append(name)
            continue
        if (places == NOT_ALLOCATED).any():
            moved.append(name)
        gated[name] = _Gated(places, units, rows)
    values: dict[str, dict[Cell, int]] = {}
    local: dict[str, list[int]] = {}
    for measure in measures(plan):
        source = _by_cell(plan, measure, gated.get(measure.slice), table)
        local[measure.name] = [source.get(cell, 0) for cell in cells(plan)]
        values[measure.name] = _shared(plan, measure, source, rates, owner)
    numbers = [values[lane.measure.name].get(lane.cell, 0) for lane in lanes(plan)]
    return Figures(np.array(numbers, np.int64), local, tuple(moved), tuple(below), table.rows == 0)


def _by_cell(plan: Plan, measure: Measure, one: _Gated | None, table: UnitTable) -> dict[Cell, int]:
    """Return the measure's source aggregate by cell, and for `each_level` by total, where it is not zero."""
    if one is None:
        return {}
    node = aggregate_node(plan)
    depth = len(node.dimensions)
    domains = [plan.domains[name] for name in node.dimensions]
    (aggregate,) = (item for item in node.aggregates if item.name == measure.source)
    values = None if aggregate.fn == "count_distinct" else table.aggregates[aggregate.name][one.rows]
    out = {}
    for place, number in _grouped(one.places, one.units, values).items():
        labels = tuple(domain[code] for domain, code in zip(domains, place, strict=True) if code != NOT_ALLOCATED)
        out[Cell(labels, "leaf" if len(labels) == depth else "not_allocated")] = number
    if measure.totals == "each_level" and total_cells(plan):
        for level in range(depth):
            stayed = (one.places[:, :level] != NOT_ALLOCATED).all(axis=1)
            part = None if values is None else values[stayed]
            for place, number in _grouped(one.places[stayed, :level], one.units[stayed], part).items():
                labels = tuple(domain[code] for domain, code in zip(domains, place, strict=False))
                out[Cell(labels, "total")] = number
    return out


def _grouped(places: Int64, units: Int64, values: Int64 | None) -> dict[tuple[int, ...], int]:
    """Return by place the exact sum of `values`, or the number of distinct units."""
    if not len(places):
        return {}
    counts, cell = distinct_units(places, units)
    first = np.unique(cell, return_index=True)[1]
    numbers = [int(counts[row]) for row in first] if values is None else _exact_sums(cell, values, len(first))
    return {tuple(places[row].tolist()): number for row, number in zip(first, numbers, strict=True)}


def _shared(
    plan: Plan, measure: Measure, source: Mapping[Cell, int], rates: Mapping[SliceName, str], owner: str
) -> dict[Cell, int]:
    scale = next(item.scale for item in aggregate_node(plan).aggregates if item.name == measure.source)
    rate = "1" if measure.translate is None else rates[measure.translate]
    bound = min(int(measure.bound), _LIMIT - 1)
    out = {}
    for cell, number in source.items():
        value = gc(number, scale, rate, measure.scale)
        if abs(value) > bound:
            raise LocalDataError(
                "BOUND_EXCEEDED",
                f"a value of measure {measure.name} leaves its proven bound",
                ids={"owner": owner, "measure": measure.name},
            )
        out[cell] = value
    return out
