"""Opening and closing of editions: this operator's HPKE key for each (plan, period, edition).

A key is made when the edition opens, published as a `period_key` notice, and destroyed at erasure: from then on no copy
of a part can be read. Where a key is published later than the calendar says, due and expiry move by that delay.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mpc_ops.envelope.sealing import SealingKey
from mpc_ops.errors import ComityError, LocalProtocolError, StateError
from mpc_ops.notices.model import PeriodKeyNotice, Release, Reopen
from mpc_ops.notices.signed import SignedNotice, utc_text
from mpc_ops.server.context import Context, moment
from mpc_ops.server.durable import remove_file
from mpc_ops.server.notices import NoticeBook, Source
from mpc_ops.server.reports import Report, Reports

__all__ = ["EditionRow", "Periods"]

_LATE_S = 60.0


@dataclass(frozen=True)
class EditionRow:
    """An edition that this operator has opened; moments as `YYYY-MM-DDTHH:MM:SSZ`."""

    plan: str
    period: str
    edition: int
    opened_at: str
    due_at: str
    expires_at: str
    key_file: str
    destroyed: bool


class Periods:
    """Editions of the reports whose owners file here."""

    def __init__(self, context: Context, book: NoticeBook, reports: Reports) -> None:
        self._context = context
        self._book = book
        self._reports = reports
        self._folder = context.config.state / "periods"
        self._next: str | None = ""
        """Next moment at which something opens; empty: look now; None: nothing is planned."""
        book.subscribe(self._on_notice)

    def _on_notice(self, signed: SignedNotice, _source: Source) -> None:
        if isinstance(signed.notice, (Release, Reopen)):
            self._next = ""

    def tick(self) -> None:
        """Open what is due to open; cheap while nothing is."""
        now = self._context.now
        if self._next is None or now < self._next:
            return
        upcoming: list[str] = []
        for report in self._reports.all():
            if not self._reports.own_region_clusters(report):
                continue
            if not report.release.valid_from <= now < report.release.valid_to:
                upcoming += [report.release.valid_from] if now < report.release.valid_from else []
                continue
            for row in report.release.calendar:
                if row.opens_at > now:
                    upcoming.append(row.opens_at)
                elif self.find(report.digest, row.key, 1) is None:
                    self._open(report, row.key, 1, *self._shifted(report, row.opens_at, row.due_at))
            self._reopen(report)
        self._next = min(upcoming) if upcoming else None

    def _shifted(self, report: Report, opens_at: str, due_at: str) -> tuple[str, str]:
        now = self._context.utc()
        delay = now - moment(opens_at)
        due = moment(due_at) + (delay if delay > timedelta(seconds=_LATE_S) else timedelta())
        return utc_text(due), self._expiry(report, due)

    def _expiry(self, report: Report, due: datetime) -> str:
        return utc_text(due + timedelta(days=report.plan.terms.ttl_days))

    def _reopen(self, report: Report) -> None:
        for signed in self._book.find("reopen", plan=report.digest):
            notice = signed.expect(Reopen)
            known = self.find(notice.plan, notice.period, notice.edition)
            earlier = self.find(notice.plan, notice.period, notice.edition - 1)
            if known is None and earlier is not None and notice.recipient == report.recipient:
                due = moment(notice.due_at)
                self._open(report, notice.period, notice.edition, notice.due_at, self._expiry(report, due))

    def _open(self, report: Report, period: str, edition: int, due_at: str, expires_at: str) -> None:
        # A fresh name each time: after a crash before the commit the orphaned key is simply never used.
        name = f"{report.digest[:16]}-{period}-{edition}-{secrets.token_hex(4)}.key"
        key = SealingKey.generate()
        key.save(self._folder / name)
        now = self._context.now
        self._context.store.write(
            "INSERT INTO editions VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            report.digest, period, edition, now, due_at, expires_at, name,
        )  # fmt: skip
        self._book.issue(
            PeriodKeyNotice(
                plan=report.digest,
                period=period,
                edition=edition,
                operator=self._context.id,
                key=key.public.text,
                created_at=now,
            )
        )
        self._context.log("edition_opened", plan=report.digest[:16], period=period, edition=edition, due_at=due_at)

    def find(self, plan: str, period: str, edition: int) -> EditionRow | None:
        """Return an edition, None if it was never opened here."""
        row = self._context.store.row(
            "SELECT * FROM editions WHERE plan = ? AND period = ? AND edition = ?", plan, period, edition
        )
        return None if row is None else _edition(row)

    def require_open(self, plan: str, period: str, edition: int) -> EditionRow:
        """Return an edition that can be filed for.

        Raises:
            StateError: PERIOD_NOT_OPEN, EDITION_CLOSED if a later edition is open, PERIOD_CLOSED if its key is destroyed.
        """
        ids = {"plan": plan[:16], "period": period, "edition": edition}
        row = self.find(plan, period, edition)
        if row is None:
            raise StateError("PERIOD_NOT_OPEN", "this edition of the period is not open", ids=ids)
        if self.find(plan, period, edition + 1) is not None:
            raise StateError("EDITION_CLOSED", "a later edition is open", ids=ids, hint="File for the newest edition")
        if row.destroyed:
            raise StateError("PERIOD_CLOSED", "the period's key is destroyed", ids=ids, hint="Ask for a signed reopen")
        return row

    def key(self, row: EditionRow) -> SealingKey:
        """Return the private key of an edition; raise LocalProtocolError PERIOD_KEY_LOST if the file is gone."""
        try:
            return SealingKey.load(self._path(row))
        except ComityError:
            raise LocalProtocolError(
                "PERIOD_KEY_LOST",
                "the key of an open edition is not on disk",
                ids={"period": row.period, "edition": row.edition},
                hint="A new edition must be opened and filed again",
            ) from None

    def destroy(self, plan: str, period: str, edition: int) -> bool:
        """Forget the key when the unit is durable; return whether there was one to destroy."""
        row = self.find(plan, period, edition)
        if row is None:
            return False
        changed = self._context.store.write(
            "UPDATE editions SET destroyed = 1 WHERE plan = ? AND period = ? AND edition = ? AND destroyed = 0",
            plan, period, edition,
        )  # fmt: skip
        self._context.afterwards(lambda: _shred(self._path(row)))
        return bool(changed)

    def restore(self) -> None:
        """Finish destructions that a crash interrupted."""
        for (name,) in self._context.store.rows("SELECT key_file FROM editions WHERE destroyed = 1"):
            _shred(self._folder / str(name))

    def all(self) -> list[EditionRow]:
        """Return every edition opened here."""
        rows = self._context.store.rows("SELECT * FROM editions ORDER BY plan, period, edition")
        return [_edition(row) for row in rows]

    def _path(self, row: EditionRow) -> Path:
        return self._folder / row.key_file


def _edition(row: tuple[Any, ...]) -> EditionRow:
    plan, period, edition, opened_at, due_at, expires_at, key_file, destroyed = row
    return EditionRow(plan, period, edition, opened_at, due_at, expires_at, key_file, bool(destroyed))


def _shred(path: Path) -> None:
    """Overwrite and remove a key file; what the medium keeps below the file system is beyond Python's reach."""
    try:
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    remove_file(path)
