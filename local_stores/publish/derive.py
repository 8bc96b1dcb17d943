"""What the recipient computes from the opened numbers alone: comparisons, year to date, footing. Exact until printed.

Nothing here is sent by anybody: the year to date is the sum of the recipient's own published months.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from local_stores.publish.model import Level, Measure, ReportTable, Row

__all__ = ["Figures", "Footing", "PublishedMonth", "YearToDate", "figures", "footing", "percent", "year_to_date"]

_Key = tuple[Level, tuple[str, ...]]


@dataclass(frozen=True)
class Footing:
    """Whether the sums of cells equal the printed totals, for all measures that foot: sums checked, sums that differ."""

    checked: int
    failed: int


@dataclass(frozen=True)
class PublishedMonth:
    """An earlier month as it was published: `values[key][measure name]`, integers in the measure's unit."""

    period: str
    edition: int
    values: Mapping[_Key, Mapping[str, int]]


@dataclass(frozen=True)
class YearToDate:
    """Sums over published months of the year, this one included.

    Attributes:
        included: (period, edition) of every month in the sums, oldest first.
        missing: periods of the year, up to this one, that this recipient has not published.
        values: `values[key][measure name]`; only measures that foot, of the month and of the prior year.
    """

    included: tuple[tuple[str, int], ...]
    missing: tuple[str, ...]
    values: Mapping[_Key, Mapping[str, int]]


@dataclass(frozen=True)
class Figures:
    """One measure in one row, integers in the measure's unit; None where the report has no such column.

    Attributes:
        month, prior, prior_cc: the opened numbers.
        ytd, ytd_prior: year to date and the prior year's same months.
    """

    month: int
    prior: int | None
    prior_cc: int | None
    ytd: int | None
    ytd_prior: int | None

    @property
    def change(self) -> int | None:
        """Month less prior year."""
        return None if self.prior is None else self.month - self.prior

    @property
    def change_cc(self) -> int | None:
        """Month less prior year at this month's rates."""
        return None if self.prior_cc is None else self.month - self.prior_cc

    @property
    def rate_effect(self) -> int | None:
        """Prior year at this month's rates less prior year at its own: the effect of exchange rates."""
        return None if self.prior is None or self.prior_cc is None else self.prior_cc - self.prior


def figures(table: ReportTable, row: Row, base: Measure, year: YearToDate | None) -> Figures:
    """Return everything known about one of the month's measures in one row."""

    def opened(measure: Measure | None) -> int | None:
        return None if measure is None else table.value(row, measure.name)

    prior = table.column(base.name, "prior_year")
    sums = year.values.get(row.key, {}) if year else {}
    return Figures(
        month=table.value(row, base.name),
        prior=opened(prior),
        prior_cc=opened(table.column(base.name, "prior_year_cc")),
        ytd=sums.get(base.name),
        ytd_prior=None if prior is None else sums.get(prior.name),
    )


def percent(part: int | None, whole: int | None) -> Decimal | None:
    """Return part / whole in per cent to one decimal, half-even; None where the base is missing, zero or negative."""
    if part is None or whole is None or whole <= 0:
        return None
    return (Decimal(100 * part) / Decimal(whole)).quantize(Decimal("0.1"), ROUND_HALF_EVEN)


def footing(table: ReportTable) -> Footing:
    """Add the cells up again and compare with every printed total, on exact integers."""
    checked = failed = 0
    for total in (row for row in table.rows if row.level in {"subtotal", "total"}):
        prefix = total.labels
        parts = [
            row for row in table.rows if row.level in {"leaf", "not_allocated"} and row.labels[: len(prefix)] == prefix
        ]
        for position, measure in enumerate(table.measures):
            if measure.foots and len(table.dimensions) > 0:
                checked += 1
                failed += sum(row.values[position] for row in parts) != total.values[position]
    return Footing(checked, failed)


def year_to_date(
    table: ReportTable, earlier: Sequence[PublishedMonth], year_periods: Sequence[str]
) -> YearToDate | None:
    """Add this month to the recipient's published months of the year.

    Args:
        table: this month.
        earlier: published months of the year before this one.
        year_periods: the year's periods up to this one, from the calendar; empty means no year to date.
    """
    if not year_periods:
        return None
    names = [m.name for m in table.measures if m.foots and m.column != "prior_year_cc"]
    months = {month.period: month for month in earlier}
    wanted = [months[period] for period in year_periods if period in months and period != table.period]
    values = {
        row.key: {name: table.value(row, name) + sum(m.values[row.key][name] for m in wanted) for name in names}
        for row in table.rows
    }
    return YearToDate(
        included=(*((m.period, m.edition) for m in wanted), (table.period, table.edition)),
        missing=tuple(period for period in year_periods if period not in months and period != table.period),
        values=values,
    )
