"""The operator's durable journal: one SQLite file (WAL, synchronous=FULL, mode 0600) and the volume's lock.

Everything an event changes, what it makes this operator say, and the ledger lines about it are written in one
transaction (`unit`), and only when that is on disk is anything sent. Writes happen in the one thread of the event loop.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpc_ops.errors import ConfigError, LocalProtocolError, PeerUnavailable

__all__ = ["DiskFull", "Store", "VolumeLock"]

_VERSION = "1"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notices (
    seq INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, plan TEXT, period TEXT, edition INTEGER,
    run TEXT, about TEXT, author TEXT NOT NULL, cluster TEXT, received_at TEXT NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS notices_by_plan ON notices (kind, plan, period, edition);
CREATE INDEX IF NOT EXISTS notices_by_run ON notices (run, kind);
CREATE INDEX IF NOT EXISTS notices_by_about ON notices (about, kind);
CREATE INDEX IF NOT EXISTS notices_by_author ON notices (author);
CREATE TABLE IF NOT EXISTS editions (
    plan TEXT, period TEXT, edition INTEGER, opened_at TEXT NOT NULL, due_at TEXT NOT NULL, expires_at TEXT NOT NULL,
    key_file TEXT NOT NULL, destroyed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (plan, period, edition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS filings (
    plan TEXT, period TEXT, owner TEXT, edition INTEGER, phase TEXT NOT NULL, run TEXT NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (plan, period, owner, edition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    filing TEXT PRIMARY KEY, plan TEXT NOT NULL, period TEXT NOT NULL, owner TEXT NOT NULL, edition INTEGER NOT NULL,
    take INTEGER NOT NULL, sha256 TEXT NOT NULL, erased INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS parts_by_sha256 ON parts (sha256);
CREATE TABLE IF NOT EXISTS refusals (
    digest TEXT PRIMARY KEY, owner TEXT NOT NULL, code TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
    run TEXT, cluster TEXT, kind TEXT NOT NULL, phase TEXT NOT NULL, give_up_at TEXT NOT NULL, changed_at TEXT NOT NULL,
    state BLOB NOT NULL, PRIMARY KEY (run, cluster)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crossings_out (
    run TEXT, cluster TEXT, receiver TEXT, attempt INTEGER NOT NULL, payload_class TEXT NOT NULL, frame BLOB NOT NULL,
    acked INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run, cluster, receiver)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crossings_in (
    run TEXT, cluster TEXT, sender TEXT, attempt INTEGER NOT NULL, digest TEXT NOT NULL, frame BLOB NOT NULL,
    PRIMARY KEY (run, cluster, sender)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (
    run TEXT PRIMARY KEY, attempt INTEGER NOT NULL, commitment BLOB NOT NULL, part BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS extracts (
    run TEXT, party TEXT, ledger BLOB NOT NULL, attestation BLOB NOT NULL, PRIMARY KEY (run, party)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bundles (run TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS extracts_out (
    run TEXT, receiver TEXT, acked INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run, receiver)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY, run TEXT, ref TEXT, head TEXT NOT NULL, once TEXT UNIQUE, entry BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS ledger_by_run ON ledger (run);
CREATE INDEX IF NOT EXISTS ledger_by_ref ON ledger (ref);
CREATE TABLE IF NOT EXISTS peers (
    peer TEXT PRIMARY KEY, boot INTEGER NOT NULL, length INTEGER NOT NULL, head TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    peer TEXT, run TEXT, cluster TEXT, prepared INTEGER NOT NULL, accepted INTEGER NOT NULL, committed INTEGER NOT NULL,
    PRIMARY KEY (peer, run, cluster)) WITHOUT ROWID;
"""


class DiskFull(PeerUnavailable):
    """The state volume has no room or cannot be written: the event is as if it had not happened; retries repeat it."""


class VolumeLock:
    """Exclusive lock on the state folder: one operator process runs, a standby waits for it or is refused."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise ConfigError(
                "VOLUME_LOCKED",
                "another operator process uses this state folder",
                ids={"folder": str(state)},
                hint="Stop it first; a standby starts only when the active process has ended",
            ) from None

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)


class Store:
    """The journal. `unit` is the only way to write."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._open = False
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ConfigError("STATE_UNREADABLE", "the journal cannot be opened", ids={"file": str(path)}) from error
        known = self.meta("version")
        if known is None:
            with self.unit():
                self.set_meta("version", _VERSION)
        elif known != _VERSION:
            raise ConfigError(
                "STATE_VERSION", "the journal was written by another version", expected=_VERSION, got=known
            )

    @contextmanager
    def unit(self) -> Iterator[None]:
        """One transaction: all of it is durable when the block ends, or nothing of it happened.

        Raises:
            DiskFull: DISK_FULL where the volume refuses the write.
        """
        if self._open:
            raise RuntimeError("a unit of work is open already")
        self._open = True
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            full = isinstance(error, OSError) and error.errno in _NO_ROOM
            if full or isinstance(error, sqlite3.OperationalError):
                raise DiskFull(
                    "DISK_FULL", "the state volume cannot be written", got=str(error)[:120], hint="Free space on it"
                ) from error
            raise
        finally:
            self._open = False

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of a unit that may fail alone: an exception undoes what the block wrote and goes on."""
        self._db.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO part")
                self._db.execute("RELEASE part")
            raise
        self._db.execute("RELEASE part")

    def write(self, sql: str, *values: Any) -> int:
        """Run one changing statement; return the number of rows changed."""
        if not self._open:
            raise LocalProtocolError("WRITE_OUTSIDE_UNIT", "state may change only inside a unit of work")
        return self._db.execute(sql, values).rowcount

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self._db.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        """Return the first row of a query, or None."""
        found: tuple[Any, ...] | None = self._db.execute(sql, values).fetchone()
        return found

    def value(self, sql: str, *values: Any) -> Any:
        """Return the first column of the first row, or None."""
        found = self.row(sql, *values)
        return None if found is None else found[0]

    def meta(self, name: str) -> str | None:
        """Return a named value, None if never set."""
        found = self.value("SELECT value FROM meta WHERE name = ?", name)
        return None if found is None else str(found)

    def set_meta(self, name: str, value: str) -> None:
        """Set a named value."""
        self.write(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value
        )

    def next_boot(self) -> int:
        """Increase and return the boot counter, which fences older processes of this operator."""
        with self.unit():
            boot = int(self.meta("boot") or "0") + 1
            self.set_meta("boot", str(boot))
        return boot

    def close(self) -> None:
        """Close the file."""
        self._db.close()
