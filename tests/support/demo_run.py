"""One run of the demo with canaries in every owner's books, and a search that opens whatever could hide them.

`run_demo` runs `infra/demo/run.py` as `make demo` does and copies what the operators hold while the shares are there.
`Pieces` reads folders the way an intruder would: SQLite value by value (write-ahead log included), zip and Parquet
unpacked, base64 decoded, so that a search of its bytes can be trusted to find what is there.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from infra.demo.data import ENTITIES, Canary, Store, canaries_of, read_store
from infra.demo.reference import PERIODS, month_bounds, rate_periods, rates
from tests.support.demo_data import Secrets, _patterns, find_secrets

__all__ = [
    "REPORT",
    "ROOT",
    "DemoRun",
    "Pieces",
    "canary_secrets",
    "digest_secrets",
    "run_demo",
    "run_demo_once",
    "subtotal_secrets",
]

ROOT = Path(__file__).resolve().parents[2]
REPORT = "group_performance"
_MOMENTS = ("submissions closed", "group stage committed")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}|[A-Za-z0-9_-]{24,}={0,2}")
_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----([A-Za-z0-9+/=\s]+)-----END")
_HEX = re.compile(rb"[0-9a-f]+")
_DEPTH = 3
_BETWEEN = b"\n\0\n\0\n\0\n"
_BATCH_BYTES = 48 << 20
_LARGE_BYTES = 1 << 20


@dataclass(frozen=True)
class DemoRun:
    """A finished demo.

    Attributes:
        root: the demo's folder.
        held: copies of what the operators held when submissions had been closed, and when the run was committed.
        temporary: the folder that the demo and its processes had for temporary files.
        code, output: exit code, and everything printed.
    """

    root: Path
    held: tuple[Path, ...]
    temporary: Path
    code: int
    output: str

    @cached_property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.root / "summary.json").read_text(encoding="utf-8"))

    @property
    def periods(self) -> tuple[str, ...]:
        return PERIODS

    def published(self, period: str) -> Path:
        return self.root / "published" / REPORT / period

    def evidence(self, period: str) -> Path:
        return self.root / "evidence" / REPORT / period

    def owner_folders(self, owner: str) -> list[Path]:
        """Where an owner's own data is allowed to be: its books; at its site its snapshots, own figures and ledger."""
        entity = next(e for e in ENTITIES if e.name == owner)
        site = self.root / "sites" / entity.jurisdiction.lower()
        state = [site / "state" / name / owner for name in ("snapshots", "contributions")]
        return [self.root / "books" / owner, *state, site / "owners" / owner / "ledger.csv"]

    @cached_property
    def stores(self) -> list[Store]:
        books = self.root / "books"
        return [
            Store(e.name, e.store, books / e.name / ("sales_line" if e.store == "parquet" else "books.sqlite"))
            for e in ENTITIES
        ]


def run_demo_once(folder: Path) -> DemoRun:
    """Run the demo below `folder`, or wait for the process that does so, and return the same run."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "run.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            run = run_demo(folder)
            kept.write_text(json.dumps({"code": run.code, "output": run.output}), encoding="utf-8")
        return DemoRun(
            folder / "demo", tuple(sorted(folder.glob("held-*"))), folder / "tmp", **json.loads(kept.read_bytes())
        )


def run_demo(folder: Path, *, timeout_s: float = 900) -> DemoRun:
    """Run all months with canaries below `folder`; never raises for what the demo does."""
    root, temporary = folder / "demo", folder / "tmp"
    temporary.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
    environment |= {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, str(ROOT / "infra" / "demo" / "run.py"), "--canaries", "--root", str(root)]
    held: list[Path] = []
    printed: list[str] = []
    ends_at = time.monotonic() + timeout_s
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            printed.append(line)
            if PERIODS[0] in line and any(moment in line for moment in _MOMENTS):
                held.append(_copy(root / "operators", folder / f"held-{len(held)}"))
            if time.monotonic() > ends_at:
                process.terminate()
        code = process.wait(30)
    return DemoRun(root, tuple(held), temporary, code, "".join(printed))


def _copy(operators: Path, target: Path) -> Path:
    """Copy states and inboxes of running operators; files that vanish meanwhile are left out."""
    for source in (*operators.glob("*/state"), *operators.glob("*/spool/inbox")):
        for path in source.rglob("*"):
            if not path.is_file() or path.name.endswith(("-wal", "-shm")):
                continue
            to = target / path.relative_to(operators)
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".sqlite":
                # The backup holds what the write-ahead log says, and is consistent while the operator writes.
                with (
                    closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as live,
                    closing(sqlite3.connect(to)) as copy,
                ):
                    live.backup(copy)
            else:
                with suppress(FileNotFoundError):
                    shutil.copyfile(path, to)
    return target


class Pieces:
    """All bytes below some folders or files, opened; every piece once.

    Args:
        paths: files and folders.
        but: folders that are left out.
    """

    def __init__(self, *paths: Path, but: Iterable[Path] = ()) -> None:
        self._left_out = tuple(but)
        self._seen: set[bytes] = set()
        self.files = 0
        self._found: list[bytes | Path] = []
        for path in paths:
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                if file.is_file() and not any(file.is_relative_to(folder) for folder in self._left_out):
                    self.files += 1
                    self._add_file(file)

    def find(self, secrets: Secrets) -> list[str]:
        """Return the patterns that are in here."""
        return sorted({pattern for batch in self._batches() for pattern in find_secrets(batch, secrets)})

    def holds(self, text: bytes) -> bool:
        """Tell whether a text is in here."""
        return any(text in batch for batch in self._batches())

    def _batches(self) -> Iterator[bytes]:
        """Yield everything, with separators that are no part of any pattern, a few dozen megabytes at a time."""
        batch: list[bytes] = []
        size = 0
        for piece in self._found:
            data = piece.read_bytes() if isinstance(piece, Path) else piece
            batch.append(data)
            size += len(data)
            if size > _BATCH_BYTES:
                yield _BETWEEN.join(batch)
                batch, size = [], 0
        yield _BETWEEN.join(batch)

    def _add_file(self, path: Path) -> None:
        data = path.read_bytes()
        if len(data) > _LARGE_BYTES:
            self._found.append(path)
            self._add_inner(data, 0)
        else:
            self._add(data)
        if data.startswith(b"SQLite format 3\0"):
            for value in _sqlite_values(path):
                self._add(value)

    def _add(self, data: bytes, depth: int = 0) -> None:
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if not data or digest in self._seen:
            return
        self._seen.add(digest)
        self._found.append(data)
        self._add_inner(data, depth)

    def _add_inner(self, data: bytes, depth: int) -> None:
        if depth < _DEPTH:
            for inner in _inner(data):
                self._add(inner, depth + 1)


def _inner(data: bytes) -> Iterator[bytes]:
    """Yield what is packed into `data`."""
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    elif data.startswith(b"PAR1"):
        out = io.BytesIO()
        pacsv.write_csv(_as_text(pq.read_table(io.BytesIO(data))), out)
        yield out.getvalue()
    elif data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data)
    elif not data.startswith(b"SQLite format 3\0"):
        for lines in _PEM.findall(data):
            with suppress(ValueError):
                yield base64.b64decode(lines)
        for run in _BASE64.findall(data):
            if not _HEX.fullmatch(run):
                try:
                    yield base64.b64decode(
                        run + b"=" * (-len(run) % 4), altchars=b"-_" if set(run) & set(b"-_") else None
                    )
                except (binascii.Error, ValueError):
                    continue


def _as_text(table: pa.Table) -> pa.Table:
    return pa.table({name: table[name].cast(pa.string()) for name in table.column_names})


def _sqlite_values(path: Path) -> Iterator[bytes]:
    """Yield every value of a database, with what its write-ahead log says; small values come joined."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.text_factory = bytes
        tables = [name.decode() for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            small = []
            for row in db.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    piece = value if isinstance(value, bytes) else str(value).encode()
                    if len(piece) > 200:
                        yield piece
                    else:
                        small.append(piece)
            yield b"\n".join(small)


def _minor(amount: Decimal) -> int:
    return int(amount * 100)


def _secrets(texts: Iterable[str], integers: Iterable[int]) -> Secrets:
    words, numbers = frozenset(texts), frozenset(integers)
    return Secrets(words, numbers, frozenset(_patterns(words, numbers)))


def _translated(amounts: Sequence[int], entity: str, months: Iterable[str]) -> set[int]:
    currency = next(e.currency for e in ENTITIES if e.name == entity)
    table = rates()
    return {
        int((amount * Decimal(table[month][currency]["avg_rate"])).quantize(Decimal(1), ROUND_HALF_EVEN))
        for amount in amounts
        for month in months
    }


def canary_secrets(canaries: Iterable[Canary] | None = None) -> Secrets:
    """Every planted customer and amount (revenue, cost, margin; local and group currency), in every encoding."""
    months = rate_periods()
    planted = [c for e in ENTITIES for c in canaries_of(e.name, months)] if canaries is None else list(canaries)
    integers: set[int] = set()
    for canary in planted:
        amounts = [_minor(canary.revenue), _minor(canary.cost), _minor(canary.revenue - canary.cost)]
        integers |= {*amounts, *_translated(amounts, canary.entity, months)}
    # Small amounts (of rupees in euro) could be anywhere by chance.
    return _secrets({c.customer for c in planted}, {n for n in integers if n >= 10_000_000})


def subtotal_secrets(stores: Sequence[Store], *, lowest: int = 100_000_000) -> Secrets:
    """Every customer of the months, and every entity's subtotals by cell, segment and in all, as text.

    As text only: eight bytes that are mostly zero occur by chance where there are thousands of numbers to look for.
    """
    texts: set[str] = set()
    numbers: set[int] = set()
    for store in stores:
        for month in rate_periods():
            table = read_store(store, *month_bounds(month))
            texts.update(table["customer_uid"].to_pylist())
            for keys in (["segment", "product_line"], ["segment"], []):
                sums = table.group_by(keys).aggregate([("revenue_lc", "sum"), ("cost_lc", "sum")])
                pairs = zip(sums["revenue_lc_sum"].to_pylist(), sums["cost_lc_sum"].to_pylist(), strict=True)
                for revenue, cost in pairs:
                    own = [_minor(revenue), _minor(cost), _minor(revenue - cost)]
                    numbers |= {*own, *_translated(own, store.entity, rate_periods())}
    large = {n for n in numbers if n >= lowest}
    words = {text for n in large for text in (str(n), f"{n // 100}.{n % 100:02d}", f"{n // 100:,}.{n % 100:02d}")}
    return Secrets(frozenset(texts | words), frozenset(large), frozenset(t.encode() for t in texts | words))


def digest_secrets(digests: Iterable[bytes]) -> Secrets:
    """Digests to search for: as raw bytes and as hex (base64 is decoded by `Pieces`)."""
    raw = frozenset(digests)
    return Secrets(frozenset(d.hex() for d in raw), frozenset(), raw | {d.hex().encode() for d in raw})
