"""The recipient's own transfer log: what it sent to and received from the group operators, hash-chained (0600)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from local_stores.errors import ConfigError, LocalDataError
from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.schema import built, encode
from mpc_ops.evidence.ledger import LedgerEntry, build_extract, chain, genesis, new_entry, sign_extract
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.signed import utc_text

__all__ = ["RecipientLog"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, run TEXT, ref TEXT, head TEXT NOT NULL,
                                once TEXT UNIQUE, entry BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS log_run ON log (run);
"""


class RecipientLog:
    """Append-only; every frame and notice once, however often it is repeated.

    Args:
        path: SQLite file in the recipient's home.
        party: the recipient's id.
    """

    def __init__(self, path: Path, party: str) -> None:
        self._path = path
        self._party = party

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            path = self._path
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as database:
                database.execute("PRAGMA synchronous=FULL")
                database.executescript(_SCHEMA)
                yield database
        except (sqlite3.Error, OSError) as error:
            kind = ConfigError if isinstance(error, sqlite3.DatabaseError) else LocalDataError
            raise kind(
                "LOG_UNUSABLE", f"the transfer log cannot be used ({type(error).__name__})", ids={"file": path.name}
            ) from None

    def notice_sent(self, digest: str, size: int, receiver: str, run: str | None) -> None:
        """Note a notice that an operator took."""
        self._note(
            f"notice_sent/{receiver}/{digest}", event="notice_sent", run=run, sender=self._party, receiver=receiver,
            payload_class=PayloadClass.CONTROL_METADATA, bytes=size, ref=digest,
        )  # fmt: skip

    def frame_received(
        self, data: bytes, sender: str, payload_class: PayloadClass, *, run: str, cluster: str, attempt: int
    ) -> None:
        """Note a sealed result part."""
        digest = sha256_hex(data)
        self._note(
            f"frame_received/{sender}/{digest}", event="frame_received", run=run, cluster=cluster, attempt=attempt,
            sender=sender, receiver=self._party, payload_class=payload_class, bytes=len(data), digest=digest,
        )  # fmt: skip

    def state(self, run: str, word: str) -> None:
        """Note how far a run has come here (CLOSED, VERIFIED, PUBLISHED, ...)."""
        self._note(f"state/{run}/{word}", event="state", run=run, ref=word)

    def _note(self, once: str, **entry_fields: Any) -> None:
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            if database.execute("SELECT 1 FROM log WHERE once = ?", (once,)).fetchone() is None:
                last = database.execute("SELECT seq, head FROM log ORDER BY seq DESC LIMIT 1").fetchone()
                seq, head = (0, genesis(self._party)) if last is None else (last[0] + 1, last[1])
                entry = new_entry(seq=seq, at=utc_text(datetime.now(tz=UTC)), **entry_fields)
                database.execute(
                    "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)",
                    (seq, entry.run, entry.ref, chain(head, entry), once, encode(entry)),
                )
            database.execute("COMMIT")

    def extract(self, run: str, key: IdentityKey, *, refs: Collection[str] = ()) -> Envelope:
        """Return the signed extract of a run; raises EvidenceError LEDGER_INVALID if nothing of it is here."""
        with self._open() as database:
            wanted = [run, *refs]
            marks = ",".join("?" * len(wanted))
            first = database.execute(
                f"SELECT min(seq) FROM log WHERE run = ? OR (run IS NULL AND ref IN ({marks}))",  # noqa: S608 - marks only
                (run, *wanted),
            ).fetchone()[0]
            start = 0 if first is None else int(first)
            rows = database.execute("SELECT entry, head FROM log WHERE seq >= ? ORDER BY seq", (start,)).fetchall()
            before = database.execute("SELECT head FROM log WHERE seq = ?", (start - 1,)).fetchone()
        entries = [msgspec.json.decode(data, type=built(LedgerEntry)) for data, _ in rows]
        head = genesis(self._party) if before is None else str(before[0])
        now = utc_text(datetime.now(tz=UTC))
        return sign_extract(build_extract(self._party, run, entries, head, refs=refs, created_at=now), key)
