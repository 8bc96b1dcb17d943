"""From opened lanes to the table: places, totals that foot, comparatives recognised from the plan."""

import random

import pytest

from local_stores.publish.build import table_from_lanes
from local_stores.publish.derive import figures, footing, percent, year_to_date
from local_stores.publish.model import Measure, ReportTable, Row
from mpc_ops.errors import LocalProtocolError
from mpc_ops.plan.layout import lanes
from tests.support.federation import make_federation, make_plan


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("federation")).federation


def numbers(plan):
    rng = random.Random(11)
    return [rng.randrange(-(10**9), 10**9) for _ in lanes(plan)]


def test_a_result_of_another_length_is_refused(federation):
    plan = make_plan(federation)
    with pytest.raises(LocalProtocolError, match="TABLE_INVALID"):
        table_from_lanes(plan, [0] * (len(lanes(plan)) - 1), period="2026-03", edition=1)


def test_lanes_land_in_their_places_and_totals_are_sums(federation):
    plan = make_plan(federation)
    values = numbers(plan)
    table = table_from_lanes(plan, values, period="2026-03", edition=1)
    for lane, value in zip(lanes(plan), values, strict=True):
        level = lane.cell.kind if lane.cell.kind != "total" else "subtotal" if lane.cell.labels else "total"
        assert table.value(table.by_key[level, lane.cell.labels], lane.measure.name) == value
    assert footing(table).failed == 0
    assert footing(table).checked == 6 * 8
    inside = [row for row in table.rows if row.labels[:1] == ("BUILDING",) and row.level != "subtotal"]
    assert sum(table.value(row, "revenue") for row in inside) == table.value(
        table.by_key["subtotal", ("BUILDING",)], "revenue"
    )
    cells = [row for row in table.rows if row.level in {"leaf", "not_allocated"}]
    assert sum(table.value(row, "lines") for row in cells) == table.value(table.total, "lines")


def test_rows_stand_in_printing_order(federation):
    plan = make_plan(federation)
    table = table_from_lanes(plan, numbers(plan), period="2026-03", edition=1)
    assert [(row.level, row.labels) for row in table.rows[:8]] == [
        *(("leaf", ("AUTOMOBILE", line)) for line in ("BRASS", "COPPER", "NICKEL", "STEEL", "TIN")),
        ("not_allocated", ("AUTOMOBILE",)),
        ("subtotal", ("AUTOMOBILE",)),
        ("leaf", ("BUILDING", "BRASS")),
    ]
    assert [row.key for row in table.rows[-2:]] == [("not_allocated", ()), ("total", ())]
    assert len(table.rows) == 37


def test_comparatives_and_the_margin_in_per_cent_come_from_the_plan(federation):
    plan = make_plan(federation)
    table = table_from_lanes(
        plan, numbers(plan), period="2026-03", edition=1, dimension_labels={"segment": "Market segment"}
    )
    known = {m.name: (m.label, m.base, m.column, m.foots, m.percent_of) for m in table.measures}
    assert known["revenue_py_cc"] == ("Revenue", "revenue", "prior_year_cc", True, None)
    assert known["margin"] == ("Margin", "margin", "month", True, "revenue")
    assert known["customers_py"] == ("Customers", "customers", "prior_year", False, None)
    assert table.dimension_labels == ("Market segment", "Product line")


@pytest.mark.parametrize("dimensions", [(), ("segment",)])
def test_reports_with_fewer_dimensions(federation, dimensions):
    plan = make_plan(federation, dimensions=dimensions)
    table = table_from_lanes(plan, numbers(plan), period="2026-03", edition=1)
    assert table.total is not None
    assert [row.level for row in table.rows] == (["leaf"] * 5 + ["not_allocated", "total"] if dimensions else ["leaf"])
    assert footing(table).checked == (8 if dimensions else 0)
    assert not next(m for m in table.measures if m.name == "customers").foots


def table_of(*rows, dimensions=("a", "b"), measures=("x",)):
    return ReportTable(
        report="r", title="R", period="2026-03", edition=1, currency=None, dimensions=dimensions, dimension_labels=dimensions,
        measures=tuple(Measure(name, name, "count", 0, None, foots=True) for name in measures), rows=tuple(rows),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: table_of(Row("leaf", ("1",), (1,))), "does not fit"),
        (lambda: table_of(Row("total", ("1",), (1,))), "does not fit"),
        (lambda: table_of(Row("subtotal", (), (1,))), "does not fit"),
        (lambda: table_of(Row("leaf", ("1", "2"), (1, 2))), "does not fit"),
        (lambda: table_of(Row("total", (), (1,)), Row("total", (), (1,))), "stands twice"),
        (lambda: table_of(measures=("x", "x")), "one name"),
        (lambda: table_of(measures=("a",)), "one name"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(make, reason):
    with pytest.raises(LocalProtocolError, match=f"TABLE_INVALID.*{reason}"):
        make()


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (1, 3, "33.3"),
        (5, 10_000, "0.0"),
        (15, 10_000, "0.2"),
        (-1, 3, "-33.3"),
        (1, 0, None),
        (1, -5, None),
        (None, 5, None),
        (1, None, None),
    ],
)
def test_percentages_are_half_even_to_one_decimal_or_absent(part, whole, expected):
    value = percent(part, whole)
    assert (None if value is None else str(value)) == expected


def test_the_exchange_rate_effect_is_the_prior_year_at_both_rates(federation):
    plan = make_plan(federation)
    table = table_from_lanes(plan, numbers(plan), period="2026-03", edition=1)
    own = figures(table, table.total, table.measures[0], year_to_date(table, [], ("2026-03",)))
    assert own.rate_effect == own.prior_cc - own.prior
    assert own.change == own.month - own.prior == own.change_cc + own.rate_effect
    assert own.ytd == own.month
    customers = next(m for m in table.measures if m.name == "customers")
    assert figures(table, table.total, customers, year_to_date(table, [], ("2026-03",))).ytd is None
