"""The table as Parquet and as CSV: flat, typed, for machines (the consolidation system, a notebook, DuckDB)."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from local_stores.publish.derive import YearToDate
from local_stores.publish.model import Basis, Measure, ReportTable, Row
from local_stores.publish.text import as_decimal, plain_text, safe_text

__all__ = ["TABLE_KEY", "csv_bytes", "parquet_bytes"]

TABLE_KEY = b"comity.table"
"""Schema metadata: report, period, edition, dimensions, measures, run and plan, as JSON."""


def _year_columns(table: ReportTable, year: YearToDate | None) -> list[tuple[str, Measure, list[int]]]:
    """Year-to-date columns `<measure>_ytd` with their values: of what foots, for the month and for the prior year."""
    if year is None:
        return []
    return [
        (f"{m.name}_ytd", m, [year.values[row.key][m.name] for row in table.rows])
        for m in table.measures
        if m.foots and m.column != "prior_year_cc"
    ]


def _label(row: Row, position: int) -> str | None:
    return row.labels[position] if position < len(row.labels) else None


def parquet_bytes(table: ReportTable, basis: Basis, year: YearToDate | None) -> bytes:
    """Return a Parquet file: `level`, one string column per dimension (NULL where summed over), one column per measure.

    Amounts are decimal128(38, scale), counts int64; year-to-date columns end in `_ytd`. The schema's metadata name
    report, period, edition, run, plan and measures.
    """
    columns: dict[str, pa.Array] = {"level": pa.array([row.level for row in table.rows], pa.string())}
    for position, name in enumerate(table.dimensions):
        columns[name] = pa.array([_label(row, position) for row in table.rows], pa.string())
    for measure in table.measures:
        columns[measure.name] = _numbers(measure, [table.value(row, measure.name) for row in table.rows])
    for name, measure, values in _year_columns(table, year):
        columns[name] = _numbers(measure, values)
    out = pa.table(columns).replace_schema_metadata(
        {TABLE_KEY: json.dumps(_facts(table, basis, year), sort_keys=True).encode()}
    )
    buffer = io.BytesIO()
    pq.write_table(out, buffer, compression="zstd")
    return buffer.getvalue()


def _numbers(measure: Measure, values: list[int]) -> pa.Array:
    if measure.kind == "count" and measure.scale == 0:
        return pa.array(values, pa.int64())
    return pa.array([as_decimal(value, measure.scale) for value in values], pa.decimal128(38, measure.scale))


def _facts(table: ReportTable, basis: Basis, year: YearToDate | None) -> dict[str, Any]:
    return {
        "report": table.report,
        "title": table.title,
        "period": table.period,
        "edition": table.edition,
        "currency": table.currency,
        "run_id": basis.run_id,
        "plan_digest": basis.plan_digest,
        "dimensions": list(table.dimensions),
        "dimension_labels": list(table.dimension_labels),
        "measures": [asdict(measure) for measure in table.measures],
        "year_to_date": None
        if year is None
        else {"included": [list(month) for month in year.included], "missing": list(year.missing)},
    }


def csv_bytes(table: ReportTable, year: YearToDate | None) -> bytes:
    """Return UTF-8 CSV: one header line, dots for decimals, no grouping, empty fields for dimensions summed over."""
    extra = _year_columns(table, year)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    names = [*table.dimensions, *(m.name for m in table.measures), *(name for name, _, _ in extra)]
    writer.writerow(["period", "edition", "level", *names])
    for number, row in enumerate(table.rows):
        labels = [safe_text(_label(row, position) or "") for position in range(len(table.dimensions))]
        numbers = [plain_text(value, m.scale) for m, value in zip(table.measures, row.values, strict=True)]
        sums = [plain_text(values[number], m.scale) for _, m, values in extra]
        writer.writerow([table.period, table.edition, row.level, *labels, *numbers, *sums])
    return out.getvalue().encode()
