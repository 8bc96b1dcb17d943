"""A result table and its basis in the demo's shape, with figures made by a seeded generator."""

from __future__ import annotations

import random
from dataclasses import replace

from infra.demo.data import ENTITIES, PRODUCT_LINES, SEGMENTS
from infra.demo.oracle import MEASURES, OracleRow
from infra.demo.reference import month_bounds, rates
from local_stores.publish.model import Basis, CalendarFacts, Level, Measure, RateFact, ReportTable, Row, Submission

__all__ = ["DEMO_MEASURES", "basis", "oracle_table", "sample_table", "submissions", "with_value"]


def _measure(name: str) -> Measure:
    base = name.removesuffix("_cc").removesuffix("_py")
    money = base in {"revenue", "margin"}
    return Measure(
        name=name,
        label={"revenue": "Net revenue", "margin": "Gross margin", "lines": "Order lines", "customers": "Customers"}[
            base
        ],
        kind="amount" if money else "count",
        scale=2 if money else 0,
        currency="EUR" if money else None,
        foots=base != "customers",
        base=base,
        column="prior_year_cc" if name.endswith("_cc") else "prior_year" if name.endswith("_py") else "month",
        percent_of="revenue" if name == "margin" else None,
    )


DEMO_MEASURES = tuple(_measure(name) for name in MEASURES)


def oracle_table(rows: list[OracleRow], period: str, edition: int = 1) -> ReportTable:
    """Turn the oracle's rows into the table that the recipient would publish."""
    out = []
    for row in rows:
        level: Level = "leaf"
        if row.product_line is None:
            level = "total" if row.segment is None else "subtotal"
        elif not row.product_line:
            level = "not_allocated"
        labels = tuple(label for label in (row.segment, row.product_line) if label)
        out.append(Row(level, labels, tuple(row.values[name] for name in MEASURES)))
    return ReportTable(
        report="group_performance",
        title="Group performance",
        period=period,
        edition=edition,
        currency="EUR",
        dimensions=("segment", "product_line"),
        dimension_labels=("Segment", "Product line"),
        measures=DEMO_MEASURES,
        rows=tuple(out),
    )


def sample_table(period: str = "2026-03", edition: int = 1, seed: int = 3) -> ReportTable:
    """Make a table that foots; customers of a total are fewer than those of its lines."""
    rng = random.Random(f"{period}/{seed}")
    cells: dict[tuple[str, str], list[int]] = {}
    for segment in SEGMENTS:
        for line in PRODUCT_LINES:
            revenue = rng.randrange(400_000_00, 700_000_000)
            prior = rng.randrange(400_000_00, 700_000_000)
            constant = prior * 97 // 100
            cells[segment, line] = [
                revenue, revenue * 62 // 100, rng.randrange(200, 350), rng.randrange(150, 220),
                prior, prior * 61 // 100, rng.randrange(200, 350), rng.randrange(150, 220), constant, constant * 61 // 100,
            ]  # fmt: skip
        cells[segment, ""] = [0] * 10
    cells["", ""] = [296_756_24, 174_430_30, 121, 70, 86_651_38, 58_633_60, 47, 26, 79_773_81, 54_049_68]
    rows: list[OracleRow] = []

    def total(keys: list[tuple[str, str]], segment: str | None) -> OracleRow:
        sums = [sum(cells[key][position] for key in keys) for position in range(10)]
        sums[3], sums[7] = sums[3] * 2 // 5, sums[7] * 2 // 5
        return OracleRow(segment, None, dict(zip(MEASURES, sums, strict=True)))

    for segment in SEGMENTS:
        keys = [key for key in cells if key[0] == segment]
        rows += [OracleRow(*key, dict(zip(MEASURES, cells[key], strict=True))) for key in keys]
        rows.append(total(keys, segment))
    rows += [OracleRow("", "", dict(zip(MEASURES, cells["", ""], strict=True))), total(list(cells), None)]
    return oracle_table(rows, period, edition)


def with_value(table: ReportTable, place: int, position: int, value: int) -> ReportTable:
    """Return the table with one number changed."""
    row = table.rows[place]
    values = (*row.values[:position], value, *row.values[position + 1 :])
    return replace(table, rows=(*table.rows[:place], replace(row, values=values), *table.rows[place + 1 :]))


def submissions() -> tuple[Submission, ...]:
    return tuple(
        Submission(e.name, e.jurisdiction, "submitted", f"2026-04-03T08:{minute:02d}:10Z", 2, "passed", 1)
        for minute, e in enumerate(ENTITIES)
    )


def basis(period: str = "2026-03", **changes: object) -> Basis:
    """Return plausible facts; any of them can be replaced by name."""
    start, end = month_bounds(period)
    year = int(period[:4])
    facts = Basis(
        run_id="3f9c" * 16,
        plan_digest="ab12" * 16,
        plan_version=1,
        recipient="group-reporting",
        closed_at="2026-04-06T16:00:00Z",
        submissions=submissions(),
        calendar=CalendarFacts(
            start, end, "Europe/Amsterdam", "2026-04-01T06:00:00Z", "2026-04-03T16:00:00Z", "2026-04-06T16:00:00Z"
        ),
        gate_units="customers",
        gate_k=10,
        rate_digest="cd34" * 16,
        rates=tuple(
            RateFact(month, code, row["avg_rate"])
            for month, table in rates([f"{year - 1}{period[4:]}", period]).items()
            for code, row in table.items()
        ),
        rate_source="HMRC monthly rates, EUR by cross rate",
        year_periods=tuple(f"{year}-{month:02d}" for month in range(1, int(period[5:]) + 1)),
    )
    return replace(facts, **changes)
