"""The demo's reference data: entity tree, monthly rates and the calendar, as plain values ready to be signed.

Reference data is public to the corporate group, versioned per period and joinable in the clear at every data owner.
Nothing here reads a clock: `calendar` takes the present moment as an argument.

Rates come from the history bundled in `hmrc-rates` (units of a currency per GBP, one table a month, made for customs
purposes; it stands in for the group's own average rates). Units of EUR per one unit of local currency is a cross rate,
`per_gbp(EUR) / per_gbp(currency)`, rounded half-even to 8 decimals once and exact from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import TypedDict

from hmrc_rates import Rates

from infra.demo.data import ENTITIES

__all__ = [
    "GROUP_CURRENCY",
    "PERIODS",
    "RATE_DECIMALS",
    "ZONE",
    "CalendarRow",
    "EntityRow",
    "calendar",
    "entity_tree",
    "month_bounds",
    "prior_year",
    "rate_periods",
    "rates",
]

# January to March: the year to date is complete in every month, the prior year exists, and every month has cells below ten
# customers in some country (tests/unit/test_demo_oracle.py names them).
PERIODS = ("2026-01", "2026-02", "2026-03")
GROUP_CURRENCY = "EUR"
RATE_DECIMALS = 8
ZONE = "Europe/Amsterdam"


class EntityRow(TypedDict):
    """One legal entity of the corporate group."""

    entity: str
    label: str
    parent: str
    jurisdiction: str
    currency: str
    method: str
    ownership_bp: int
    valid_from: str


class CalendarRow(TypedDict):
    """One period: local dates [start_date, end_date) in `zone`; moments in UTC."""

    key: str
    start_date: str
    end_date: str
    opens_at: str
    due_at: str
    cut_at: str
    zone: str


def entity_tree() -> list[EntityRow]:
    """Return the group's entities: all fully consolidated and wholly owned by the holding in the Netherlands."""
    return [
        EntityRow(
            entity=e.name,
            label=e.label,
            parent="nl-holding",
            jurisdiction=e.jurisdiction,
            currency=e.currency,
            method="full",
            ownership_bp=10_000,
            valid_from="2020-01-01",
        )
        for e in ENTITIES
    ]


def prior_year(period: str) -> str:
    """Return the same month one year earlier: `2026-03` -> `2025-03`."""
    return f"{int(period[:4]) - 1:04d}-{period[5:]}"


def month_bounds(period: str) -> tuple[str, str]:
    """Return the ISO dates [first day, first day of the next month) of a period such as `2026-03`."""
    year, month = int(period[:4]), int(period[5:])
    return date(year, month, 1).isoformat(), date(year + month // 12, month % 12 + 1, 1).isoformat()


def rate_periods(periods: Sequence[str] = PERIODS) -> list[str]:
    """Return every month whose rates a run of `periods` needs: the months and the same months of the prior year."""
    return sorted({*periods, *map(prior_year, periods)})


def rates(periods: Sequence[str] | None = None) -> dict[str, dict[str, dict[str, str]]]:
    """Return `{period: {currency: {"avg_rate": "0.12345678"}}}`, units of EUR per one unit of the currency.

    Args:
        periods: months; by default all that the demo needs (`rate_periods`).

    Raises:
        hmrc_rates.HmrcRatesError: the bundled history lacks a month or a currency.
    """
    book = Rates()
    currencies = sorted({e.currency for e in ENTITIES} | {GROUP_CURRENCY})
    step = Decimal(1).scaleb(-RATE_DECIMALS)
    table: dict[str, dict[str, dict[str, str]]] = {}
    for period in rate_periods() if periods is None else periods:
        per_gbp = {code: book.monthly_rate(code, period).units_per_gbp for code in currencies}
        with localcontext() as context:
            context.prec = 50  # the quotient is rounded once, to the published decimals
            cross = {
                code: (per_gbp[GROUP_CURRENCY] / units).quantize(step, ROUND_HALF_EVEN)
                for code, units in per_gbp.items()
            }
        table[period] = {code: {"avg_rate": f"{rate:f}"} for code, rate in cross.items()}
    return table


def calendar(
    now: datetime,
    periods: Sequence[str] = PERIODS,
    *,
    opened_for: timedelta = timedelta(minutes=1),
    open_for: timedelta = timedelta(hours=1),
) -> list[CalendarRow]:
    """Return the calendar rows of past months whose submissions are open around `now`.

    The months are real, the opening and due times are the demo's: it runs when somebody starts it, not on the fourth
    working day. Everything booked until the cut, which is the opening here, counts.

    Args:
        now: an aware moment; seconds are kept, fractions dropped.
        periods: month keys.
        opened_for: how long before `now` the submissions opened.
        open_for: how long after `now` they are due.
    """
    moment = now.astimezone(UTC).replace(microsecond=0)
    opens, due = (f"{(moment + shift).isoformat()[:-6]}Z" for shift in (-opened_for, open_for))
    rows = []
    for period in periods:
        start, end = month_bounds(period)
        rows.append(
            CalendarRow(key=period, start_date=start, end_date=end, opens_at=opens, due_at=due, cut_at=opens, zone=ZONE)
        )
    return rows
