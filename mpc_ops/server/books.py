"""This operator's ledger in the journal: every frame and notice once at each end, decisions, denials, erasures.

Frames of a stage are counted in memory (mpc_ops.engine) and noted as one line per link and direction when the attempt ends.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mpc_ops.engine import LinkTotals
from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.schema import built, encode
from mpc_ops.errors import EvidenceError
from mpc_ops.evidence.ledger import (
    MAX_EXTRACT_BYTES,
    LedgerEntry,
    build_extract,
    chain,
    flows_of,
    genesis,
    new_entry,
    sign_extract,
)
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import Flow
from mpc_ops.server.context import Context

__all__ = ["MAX_LOGGED_ATTEMPT", "Books"]

MAX_LOGGED_ATTEMPT = 10_000


class Books:
    """Append-only ledger; every method that writes must be called inside a unit."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def head(self) -> tuple[int, str]:
        """Return (number of entries, chain head)."""
        found = self._store.row("SELECT seq, head FROM ledger ORDER BY seq DESC LIMIT 1")
        return (0, genesis(self._context.id)) if found is None else (int(found[0]) + 1, str(found[1]))

    def head_at(self, length: int) -> str | None:
        """Return the head after `length` entries, None if there are fewer."""
        if length == 0:
            return genesis(self._context.id)
        found = self._store.value("SELECT head FROM ledger WHERE seq = ?", length - 1)
        return None if found is None else str(found)

    def note(self, event: str, *, once: str | None = None, **fields: Any) -> None:
        """Append an entry; with `once`, only if no entry with that mark exists."""
        if once is not None and self._store.row("SELECT 1 FROM ledger WHERE once = ?", once):
            return
        length, head = self.head()
        fields["attempt"] = min(int(fields.get("attempt", 0)), MAX_LOGGED_ATTEMPT)
        entry = new_entry(seq=length, at=self._context.now, event=event, **fields)
        self._store.write(
            "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)",
            length,
            entry.run,
            entry.ref,
            chain(head, entry),
            once,
            encode(entry),
        )

    def frame_sent(self, data: bytes, receiver: str, payload_class: PayloadClass, **place: Any) -> None:
        """Note a frame when it is first handed to the link; `place`: run, cluster, attempt, ref."""
        self._frame("frame_sent", data, (self._context.id, receiver), payload_class, place)

    def frame_received(self, data: bytes, sender: str, payload_class: PayloadClass, **place: Any) -> None:
        """Note a frame when it is first accepted; `place`: run, cluster, attempt, ref."""
        self._frame("frame_received", data, (sender, self._context.id), payload_class, place)

    def stage_frames(
        self, totals: LinkTotals, peer: str, payload_class: PayloadClass, *, run: str, cluster: str, attempt: int
    ) -> None:
        """Note all frames of an attempt's stage with one peer, one line per direction that had any; once per attempt."""
        me = self._context.id
        for event, sender, receiver, tally in (
            ("frames_sent", me, peer, totals.sent),
            ("frames_received", peer, me, totals.received),
        ):
            if tally.frames:
                self.note(
                    event, once=f"{event}/{run}/{cluster}/{attempt}/{sender}/{receiver}", run=run, cluster=cluster,
                    attempt=attempt, sender=sender, receiver=receiver, payload_class=payload_class, bytes=tally.bytes,
                    frames=tally.frames, digest=tally.digest,
                )  # fmt: skip

    def notice_sent(self, digest: str, size: int, receiver: str, *, run: str | None, kind: PayloadClass) -> None:
        """Note a notice that goes to a peer or to the recipient."""
        self._notice("notice_sent", digest, size, (self._context.id, receiver), run=run, kind=kind)

    def notice_received(self, digest: str, size: int, sender: str, *, run: str | None, kind: PayloadClass) -> None:
        """Note a notice that came from a peer, an owner or the recipient."""
        self._notice("notice_received", digest, size, (sender, self._context.id), run=run, kind=kind)

    def _notice(
        self, event: str, digest: str, size: int, ends: tuple[str, str], *, run: str | None, kind: PayloadClass
    ) -> None:
        sender, receiver = ends
        self.note(
            event,
            once=f"{event}/{sender}/{receiver}/{digest}",
            run=run,
            sender=sender,
            receiver=receiver,
            payload_class=kind,
            bytes=size,
            ref=digest,
        )

    def _frame(
        self, event: str, data: bytes, ends: tuple[str, str], payload_class: PayloadClass, place: dict[str, Any]
    ) -> None:
        sender, receiver = ends
        digest = sha256_hex(data)
        self.note(
            event,
            once=f"{event}/{sender}/{receiver}/{digest}",
            sender=sender,
            receiver=receiver,
            payload_class=payload_class,
            bytes=len(data),
            digest=digest,
            **place,
        )

    def entries(self, run: str) -> list[LedgerEntry]:
        """Return the entries of a run in order."""
        rows = self._store.rows("SELECT entry FROM ledger WHERE run = ? ORDER BY seq", run)
        return [msgspec.json.decode(data, type=built(LedgerEntry)) for (data,) in rows]

    def flows(self, run: str) -> list[Flow]:
        """Return what travelled in a run, by peer and class."""
        return flows_of(self.entries(run))

    def extract(self, run: str, refs: list[str], created_at: str) -> Envelope:
        """Return the signed extract of a run up to the present head.

        Raises:
            EvidenceError: LEDGER_INVALID if nothing of the run is there, EXTRACT_TOO_LONG.
        """
        first = self._store.value("SELECT min(seq) FROM ledger WHERE run = ?", run)
        if first is None:
            raise EvidenceError("LEDGER_INVALID", "the ledger holds nothing of the run", ids={"run": run[:12]})
        start = int(first)
        for ref in refs:
            earlier = self._store.value("SELECT min(seq) FROM ledger WHERE ref = ? AND run IS NULL", ref)
            start = start if earlier is None else min(start, int(earlier))
        rows = self._store.rows("SELECT entry FROM ledger WHERE seq >= ? ORDER BY seq", start)
        entries = [msgspec.json.decode(data, type=built(LedgerEntry)) for (data,) in rows]
        extract = build_extract(
            self._context.id, run, entries, self.head_at(start) or "", refs=refs, created_at=created_at
        )
        envelope = sign_extract(extract, self._context.identity)
        if len(envelope.payload) > MAX_EXTRACT_BYTES:
            raise EvidenceError("EXTRACT_TOO_LONG", "the ledger extract is too long", ids={"run": run[:12]})
        return envelope
