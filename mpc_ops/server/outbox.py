"""What owners may read: notices that concern them, as files `outbox/<owner>/<kind>/<digest>.dsse`.

Files are made again from the journal at every start, so losing one in a crash loses nothing.
"""

from __future__ import annotations

import re
from functools import partial

from mpc_ops.errors import ComityError
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.model import (
    Approval,
    Filed,
    Manifest,
    Outcome,
    PeriodKeyNotice,
    Receipt,
    Reference,
    Rejected,
    Release,
    Reopen,
    ResultCommitment,
    Withdrawal,
)
from mpc_ops.notices.signed import SignedNotice
from mpc_ops.server.books import Books
from mpc_ops.server.context import Context
from mpc_ops.server.durable import publish_file
from mpc_ops.server.notices import NoticeBook, Source
from mpc_ops.server.reports import Reports
from mpc_ops.server.routing import class_of, run_named_by

__all__ = ["Outbox"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class Outbox:
    """Writes notices, and files of a run's evidence, for the owners of this operator's regions."""

    def __init__(self, context: Context, books: Books, book: NoticeBook, reports: Reports) -> None:
        self._context = context
        self._books = books
        self._book = book
        self._reports = reports
        self._folder = context.config.spool / "outbox"
        book.subscribe(self._on_notice)

    @property
    def _federation(self) -> Federation:
        return self._context.federation

    def _on_notice(self, signed: SignedNotice, _source: Source) -> None:
        self._give(signed)
        # Gossip keeps no order: what came before the notice that tells whom it concerns is given out now.
        if isinstance(signed.notice, Filed):
            for kind in ("receipt", "rejected"):
                for other in self._book.find(kind, about=signed.digest):
                    self._give(other)
        elif isinstance(signed.notice, Release):
            for kind in ("period_key", "manifest", "reopen"):
                for other in self._book.find(kind, plan=str(self._plan_of(signed))):
                    self._give(other)

    def _give(self, signed: SignedNotice) -> None:
        owners = self._readers(signed)
        data = signed.envelope.to_bytes()
        for owner in owners:
            self._books.notice_sent(
                signed.digest, len(data), owner, run=run_named_by(signed.notice), kind=class_of(signed.notice)
            )
        if owners:
            self._context.afterwards(lambda: self._write(signed, data, owners))

    def _plan_of(self, signed: SignedNotice) -> str | None:
        found = self._context.store.value("SELECT plan FROM notices WHERE digest = ?", signed.digest)
        return None if found is None else str(found)

    def _write(self, signed: SignedNotice, data: bytes, owners: list[str]) -> None:
        for owner in owners:
            publish_file(self._folder / owner / signed.kind / f"{signed.digest}.dsse", data)

    def evidence(self, owner: str, run: str, name: str, data: bytes) -> None:
        """Put a file of a run's evidence pack into an owner's outbox."""
        if _NAME.fullmatch(name):
            publish_file(self._folder / owner / "evidence" / run / name, data)

    def restore(self) -> None:
        """Write every file that is missing, from the journal."""
        for kind, digest in self._context.store.rows("SELECT kind, digest FROM notices ORDER BY seq"):
            signed = self._book.get(str(digest))
            owners = [] if signed is None else self._readers(signed)
            missing = [o for o in owners if not (self._folder / o / str(kind) / f"{digest}.dsse").exists()]
            if signed is not None and missing:
                self._context.write_files(partial(self._write, signed, signed.envelope.to_bytes(), missing))

    def _readers(self, signed: SignedNotice) -> list[str]:
        """Return the own owners that a notice concerns."""
        try:
            return self._find_readers(signed)
        except ComityError:  # its plan, run or filing is not known here yet
            return []

    def _find_readers(self, signed: SignedNotice) -> list[str]:
        notice = signed.notice
        if isinstance(notice, (ResultCommitment, Approval, Withdrawal)):
            return []
        if isinstance(notice, Reference):
            return sorted(
                {owner for cluster in self._context.region_clusters() for owner in self._context.owners_of(cluster)}
            )
        if isinstance(notice, (Receipt, Rejected)):
            return self._owner_of(notice.filing)
        if isinstance(notice, Filed):
            return self._owner_of(signed.digest)
        plan = self._plan_of(signed)
        if not isinstance(notice, (Release, PeriodKeyNotice, Manifest, Reopen)):
            plan = self._reports.manifest_of(notice.run)[1].plan
        if isinstance(notice, Outcome) and notice.party in self._federation.owners:
            return [notice.party] if notice.party in self._reports.own_owners(self._reports.report(plan or "")) else []
        return self._reports.own_owners(self._reports.report(plan or ""))

    def _owner_of(self, filing: str) -> list[str]:
        signed = self._book.get(filing)
        owner = (
            signed.notice.owner
            if signed is not None and isinstance(signed.notice, Filed)
            else self._context.store.value("SELECT owner FROM refusals WHERE digest = ?", filing)
        )
        own = {name for cluster in self._context.region_clusters() for name in self._context.owners_of(cluster)}
        return [owner] if owner in own else []
