"""Earlier published months, read back from the recipient's own folder for the year to date."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from local_stores.publish.derive import PublishedMonth
from local_stores.publish.model import Level, ReportTable
from local_stores.publish.write_parquet import TABLE_KEY
from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.errors import EvidenceError

__all__ = ["EDITION_FILE", "earlier_months", "editions_of", "read_month"]

EDITION_FILE = "edition.json"


def editions_of(period_dir: Path) -> list[int]:
    """Return the numbers of all complete editions below `<period>/editions`, ascending."""
    folder = period_dir / "editions"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def read_month(period_dir: Path, edition: int) -> tuple[PublishedMonth, list[dict[str, object]]]:
    """Read one edition's Parquet file after checking it against the digest recorded at publication.

    Returns:
        The month and the description of its measures.

    Raises:
        EvidenceError: PUBLISHED_ALTERED if the file is not the one that was published.
    """
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
    stored = pq.read_table(path)
    facts = json.loads(stored.schema.metadata[TABLE_KEY])
    names = [measure["name"] for measure in facts["measures"]]
    scales = {measure["name"]: measure["scale"] for measure in facts["measures"]}
    values: dict[tuple[Level, tuple[str, ...]], dict[str, int]] = {}
    for record in stored.to_pylist():
        labels = tuple(record[name] for name in facts["dimensions"] if record[name] is not None)
        values[record["level"], labels] = {
            name: int(record[name].scaleb(scales[name]) if scales[name] else record[name]) for name in names
        }
    return PublishedMonth(period_dir.name, edition, values), facts["measures"]


def earlier_months(
    report_dir: Path, table: ReportTable, year_periods: Sequence[str], only: Sequence[tuple[str, int]] | None = None
) -> list[PublishedMonth]:
    """Return the newest edition of every published month of the year before `table.period`.

    Months whose measures or rows are others (an earlier version of the report) cannot be added up and are left out, so
    that the year to date names them as missing.

    Args:
        report_dir: `<root>/<report>`.
        table: this month.
        year_periods: the year's periods up to this one.
        only: take exactly these (period, edition) pairs instead of the newest.
    """
    chosen = dict(only) if only is not None else {}
    months = []
    for period in year_periods:
        if period == table.period:
            break
        found = editions_of(report_dir / period)
        edition = chosen.get(period) if only is not None else (found[-1] if found else None)
        if edition is None:
            continue
        month, measures = read_month(report_dir / period, edition)
        known = {(m["name"], m["scale"], m["currency"], m["foots"]) for m in measures}
        same = all((m.name, m.scale, m.currency, m.foots) in known for m in table.measures)
        if same and all(row.key in month.values for row in table.rows):
            months.append(month)
    return months
