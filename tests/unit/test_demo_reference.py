"""The demo's reference data: exact cross rates, the entity tree, the calendar of past months."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import pytest
from hmrc_rates import HmrcRatesError, Rates

from infra.demo.reference import PERIODS, calendar, entity_tree, month_bounds, prior_year, rate_periods, rates
from mpc_ops.envelope.canonical import canonical_bytes

NOW = datetime(2026, 11, 25, 12, 0, 30, 999, tzinfo=UTC)


def test_cross_rates_are_within_half_a_unit_of_the_last_decimal():
    for period, table in rates().items():
        for currency, row in table.items():
            exact = Fraction(Rates().monthly_rate("EUR", period).units_per_gbp) / Fraction(
                Rates().monthly_rate(currency, period).units_per_gbp
            )
            assert abs(Fraction(row["avg_rate"]) - exact) <= Fraction(1, 2 * 10**8)
            assert len(row["avg_rate"].split(".")[1]) == 8


def test_rates_cover_the_months_and_the_same_months_of_the_prior_year_in_the_four_currencies():
    assert list(rates()) == rate_periods() == ["2025-01", "2025-02", "2025-03", "2026-01", "2026-02", "2026-03"]
    assert all(list(table) == ["CNY", "EUR", "INR", "SAR"] for table in rates().values())
    assert {table["EUR"]["avg_rate"] for table in rates().values()} == {"1.00000000"}
    assert rates(["2026-03"])["2026-03"]["CNY"]["avg_rate"] == "0.12229947"


def test_a_month_outside_the_bundled_history_is_an_error_not_an_older_rate():
    with pytest.raises(HmrcRatesError):
        rates(["2031-01"])


def test_calendar_rows_are_past_months_open_around_now():
    rows = calendar(NOW)
    assert [(row["key"], row["start_date"], row["end_date"]) for row in rows] == [
        ("2026-01", "2026-01-01", "2026-02-01"),
        ("2026-02", "2026-02-01", "2026-03-01"),
        ("2026-03", "2026-03-01", "2026-04-01"),
    ]
    assert {(row["opens_at"], row["cut_at"], row["due_at"]) for row in rows} == {
        ("2026-11-25T11:59:30Z", "2026-11-25T11:59:30Z", "2026-11-25T13:00:30Z")
    }


def test_the_calendar_does_not_depend_on_the_zone_of_the_clock():
    elsewhere = NOW.astimezone(timezone(timedelta(hours=8)))
    assert calendar(elsewhere) == calendar(NOW)


def test_month_arithmetic_crosses_the_year():
    assert month_bounds("2025-12") == ("2025-12-01", "2026-01-01")
    assert month_bounds("2024-02") == ("2024-02-01", "2024-03-01")
    assert prior_year("2026-03") == "2025-03"


def test_reference_data_has_a_canonical_form():
    for value in (rates(), calendar(NOW), entity_tree(), list(PERIODS)):
        assert canonical_bytes(value)
    assert all(Decimal(rate["avg_rate"]) > 0 for table in rates().values() for rate in table.values())
    assert sum(row["ownership_bp"] == 10_000 for row in entity_tree()) == 8
