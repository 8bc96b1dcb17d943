"""Earlier published months, read back from the recipient's own folder for the year to date."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from local_stores.publish.derive import PublishedMonth, YearToDate
from local_stores.publish.model import Measure, ReportTable, Row
from local_stores.publish.write_parquet import TABLE_KEY
from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.errors import EvidenceError, LocalProtocolError

__all__ = ["EDITION_FILE", "earlier_months", "editions_of", "load_published"]

EDITION_FILE = "edition.json"


def editions_of(period_dir: Path) -> list[int]:
    """Return the numbers of all complete editions below `<period>/editions`, ascending."""
    folder = period_dir / "editions"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def load_published(path: Path) -> tuple[ReportTable, YearToDate | None]:
    """Read a published `result.parquet` back: the table and its year to date.

    Raises:
        EvidenceError: PUBLISHED_ALTERED if the file is not a published result.
    """
    try:
        stored = pq.read_table(path)
        facts = json.loads(stored.schema.metadata[TABLE_KEY])
        measures = tuple(Measure(**measure) for measure in facts["measures"])
        records = stored.to_pylist()
        table = ReportTable(
            report=facts["report"],
            title=facts["title"],
            period=facts["period"],
            edition=facts["edition"],
            currency=facts["currency"],
            dimensions=tuple(facts["dimensions"]),
            dimension_labels=tuple(facts["dimension_labels"]),
            measures=measures,
            rows=tuple(
                Row(
                    record["level"],
                    tuple(record[name] for name in facts["dimensions"] if record[name] is not None),
                    tuple(_integer(record[measure.name], measure) for measure in measures),
                )
                for record in records
            ),
        )
        return table, _stored_year(table, facts["year_to_date"], records)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, LocalProtocolError) as error:
        ids = {"file": path.name, "reason": type(error).__name__}
        raise EvidenceError("PUBLISHED_ALTERED", "the file is not a published result", ids=ids) from None


def _integer(value: Decimal | int, measure: Measure) -> int:
    return int(Decimal(value).scaleb(measure.scale))


def _stored_year(table: ReportTable, facts: Any, records: list[dict[str, Any]]) -> YearToDate | None:
    if facts is None:
        return None
    summed = [measure for measure in table.measures if f"{measure.name}_ytd" in records[0]] if records else []
    values = {
        row.key: {measure.name: _integer(record[f"{measure.name}_ytd"], measure) for measure in summed}
        for row, record in zip(table.rows, records, strict=True)
    }
    return YearToDate(
        tuple((period, edition) for period, edition in facts["included"]), tuple(facts["missing"]), values
    )


def _read_month(period_dir: Path, edition: int) -> ReportTable:
    """Load one edition's Parquet file after checking it against the digest recorded at publication."""
    folder = period_dir / "editions" / str(edition)
    path = folder / "result.parquet"
    try:
        recorded = json.loads((folder / EDITION_FILE).read_bytes())["files"]["result.parquet"]
        intact = sha256_hex(path.read_bytes()) == recorded
    except (OSError, ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        ids = {"period": period_dir.name, "edition": edition, "file": "result.parquet"}
        raise EvidenceError("PUBLISHED_ALTERED", "a published file is missing or not as it was published", ids=ids)
    return load_published(path)[0]


def earlier_months(report_dir: Path, table: ReportTable, year_periods: Sequence[str]) -> list[PublishedMonth]:
    """Return the newest edition of every published month of the year before `table.period`.

    Months whose measures or rows are others (an earlier version of the report) cannot be added up and are left out, so
    that the year to date names them as missing.

    Args:
        report_dir: `<root>/<report>`.
        table: this month.
        year_periods: the year's periods up to this one.

    Raises:
        EvidenceError: PUBLISHED_ALTERED if an earlier month's file is not the one that was published.
    """
    months = []
    for period in year_periods:
        if period == table.period:
            break
        found = editions_of(report_dir / period)
        if not found:
            continue
        month = _read_month(report_dir / period, found[-1])
        known = {(m.name, m.scale, m.currency, m.foots) for m in month.measures}
        same = all((m.name, m.scale, m.currency, m.foots) in known for m in table.measures)
        if same and all(row.key in month.by_key for row in table.rows):
            values = {row.key: {m.name: month.value(row, m.name) for m in month.measures} for row in month.rows}
            months.append(PublishedMonth(month.period, month.edition, values))
    return months
