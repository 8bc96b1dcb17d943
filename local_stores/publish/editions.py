"""Publishing once: an edition appears whole or not at all, and never changes afterwards.

```
<root>/<report>/<period>/result.parquet, result.csv, result.xlsx, report.html    the newest edition (copies)
<root>/<report>/<period>/editions/<e>/                                            every edition, with edition.json
<root>/<report>/<period>/editions/<e>.tmp/                                        being written, or left by a crash
```
`edition.json` records the SHA-256 of the edition's files and of its content, and which published months the year to date
holds. It stays with the recipient: these are digests of figures and belong in no notice, log or evidence.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from local_stores.publish.derive import PublishedMonth, footing, year_to_date
from local_stores.publish.history import EDITION_FILE, earlier_months, editions_of
from local_stores.publish.model import Basis, ReportTable
from local_stores.publish.write_html import html_bytes
from local_stores.publish.write_parquet import csv_bytes, parquet_bytes
from local_stores.publish.write_xlsx import xlsx_bytes
from mpc_ops.errors import EvidenceError, StateError
from mpc_ops.ids import check_name, check_period

__all__ = ["FILES", "Published", "publish", "render"]

FILES = ("result.parquet", "result.csv", "result.xlsx", "report.html")


@dataclass(frozen=True)
class Published:
    """Where an edition stands.

    Attributes:
        folder: `<root>/<report>/<period>`, the newest edition's files.
        edition_folder: this edition's own folder.
        new: False if the same edition had been published before.
    """

    folder: Path
    edition_folder: Path
    new: bool


def render(table: ReportTable, basis: Basis, earlier: list[PublishedMonth]) -> dict[str, bytes]:
    """Return the bytes of all files. They depend on the arguments alone, not on the clock.

    Args:
        table: the month.
        basis: what the figures rest on.
        earlier: published months of the year before this one.
    """
    year = year_to_date(table, earlier, basis.year_periods)
    return {
        "result.parquet": parquet_bytes(table, basis, year),
        "result.csv": csv_bytes(table, year),
        "result.xlsx": xlsx_bytes(table, basis, year),
        "report.html": html_bytes(table, basis, year),
    }


def publish(table: ReportTable, basis: Basis, root: Path) -> Published:
    """Publish one edition of one period below `root`; publishing the same content again changes nothing.

    The year to date adds the newest edition of every earlier month that is published below `root` now; a later edition
    of an earlier month does not change what is published already.

    Raises:
        StateError: PUBLISHED_DIFFERS if other content, or altered files, stand under this edition.
        EvidenceError: TOTALS_DIFFER if a total is not the sum of its cells; PUBLISHED_ALTERED if an earlier month's file
            is not as it was published.
    """
    folder = root / check_name(table.report, "report") / check_period(table.period)
    ids = {"report": table.report, "period": table.period, "edition": table.edition}
    if footing(table).failed:
        raise EvidenceError("TOTALS_DIFFER", "a total is not the sum of its cells; nothing is published", ids=ids)
    (folder / "editions").mkdir(parents=True, exist_ok=True)
    target = folder / "editions" / str(table.edition)
    content = _content_digest(table, basis)
    with _locked(folder):
        new = not target.exists()
        if new:
            _write_edition(table, basis, target, content)
        else:
            _check_same(target, content, ids)
        if table.edition == editions_of(folder)[-1]:
            _show(target, folder)
    return Published(folder, target, new)


def _content_digest(table: ReportTable, basis: Basis) -> str:
    return hashlib.sha256(json.dumps([asdict(table), asdict(basis)], sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time publish a period; the lock goes with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_edition(table: ReportTable, basis: Basis, target: Path, content: str) -> None:
    earlier = earlier_months(target.parents[2], table, basis.year_periods)
    files = render(table, basis, earlier)
    record = {
        "edition": table.edition,
        "run_id": basis.run_id,
        "content": content,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "year_to_date": [[month.period, month.edition] for month in earlier],
    }
    scratch = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for name, data in {**files, EDITION_FILE: json.dumps(record, indent=1, sort_keys=True).encode() + b"\n"}.items():
        _write_durably(scratch / name, data)
    _sync_folder(scratch)
    scratch.rename(target)
    _sync_folder(target.parent)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_same(target: Path, content: str, ids: dict[str, object]) -> None:
    """Compare with what stands under the edition: its content, and its files with their recorded digests."""
    try:
        record = json.loads((target / EDITION_FILE).read_bytes())
        recorded = {name: str(record["files"][name]) for name in FILES}
        same = record["content"] == content
    except (OSError, ValueError, KeyError, TypeError):
        recorded, same = dict.fromkeys(FILES, ""), False
    if not same:
        hint = "Figures that change need a new edition, opened by a signed reopen"
        raise StateError("PUBLISHED_DIFFERS", "other content was published under this edition", ids=ids, hint=hint)
    for name, digest in recorded.items():
        path = target / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            hint = "Restore the file from a backup; the edition itself is unchanged"
            raise StateError(
                "PUBLISHED_DIFFERS", "a published file was altered or removed", ids={**ids, "file": name}, hint=hint
            )


def _show(target: Path, folder: Path) -> None:
    """Make the period's own files those of `target`, one after another; a repeated call completes an interrupted one."""
    for name in FILES:
        shown = folder / name
        if shown.is_file() and shown.read_bytes() == (target / name).read_bytes():
            continue
        scratch = folder / f"{name}.tmp"
        shutil.copyfile(target / name, scratch)
        scratch.replace(shown)
    _sync_folder(folder)
