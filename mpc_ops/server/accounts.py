"""What this operator states about a run, and the run's evidence as it is gathered for recipient and owners.

When everything it had to send is confirmed, an operator signs its ledger extract, its `statement` notice and the in-toto
attestation of it, and gives a copy to the group operators. They hand the whole to the recipient and, through the region
operators' outboxes, to every owner.
"""

from __future__ import annotations

import msgspec

import mpc_ops
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.schema import built
from mpc_ops.errors import ComityError, PeerProtocolError
from mpc_ops.evidence.bundle import make_bundle, read_bundle
from mpc_ops.evidence.ledger import MAX_EXTRACT_BYTES, LedgerExtract, verify_extract
from mpc_ops.evidence.material import belongs
from mpc_ops.evidence.statement import attest, make_statement, operators_of_run, verify_attestation
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices import model
from mpc_ops.notices.signed import SignedNotice
from mpc_ops.server.admission import Admission
from mpc_ops.server.outbox import Outbox
from mpc_ops.server.sessions import Sessions
from mpc_ops.server.stage_region import RegionStages
from mpc_ops.server.sync import BundleCopy, BundleWant, ExtractCopy, ExtractHeld, encode_sync
from mpc_ops.session import SessionState
from mpc_ops.transport.wire import Kind

__all__ = ["BUNDLE_NAME", "Accounts"]

BUNDLE_NAME = "bundle.json"
_RETRY_S = 2.0
_ENVELOPE_LIMIT = 2 * MAX_EXTRACT_BYTES


class Accounts:
    """`RunHooks` of evidence; methods that write are called inside a unit."""

    def __init__(self, sessions: Sessions, regions: RegionStages | None, outbox: Outbox) -> None:
        self._context = sessions.context
        self._books = sessions.books
        self._book = sessions.book
        self._admissions = sessions.admissions
        self._sessions = sessions
        self._regions = regions
        self._outbox = outbox
        self._store = sessions.context.store
        self._next = 0.0
        self._turn = 0

    # ------------------------------------------------------------------------------------------------------ hooks

    def committed(self, state: SessionState) -> None:
        """Settle as soon as everything is confirmed; a group operator has nothing to wait for."""
        self.settle(state.run_id)

    def ended(self, state: SessionState) -> None:
        """A failed run has no attestation, but its log is evidence of what was refused."""
        self._extract(state, None)

    def erased(self, state: SessionState) -> None:
        """Attest that shares, frames and keys of a run are gone."""
        states = self._sessions.of_run(state.run_id)
        if any(other.phase != "ERASED" for other in states):
            return
        if self._book.find("erased", run=state.run_id, author=self._context.id):
            return
        what = sorted({item for other in states for item in _erased(other)})
        self._book.issue(
            model.Erased(run=state.run_id, operator=self._context.id, what=what, created_at=self._context.now)
        )

    def settle(self, run: str) -> None:
        """Sign extract, statement and attestation of a run once, when all own sessions are done and confirmed."""
        states = self._sessions.of_run(run)
        done = all(
            state.phase == "COMMITTED"
            and (state.kind == "group" or self._regions is None or self._regions.all_confirmed(run, state.cluster))
            for state in states
        )
        if done and states and not self._book.find("statement", run=run, author=self._context.id):
            self._extract(states[-1], self._admissions.look(run))

    def settle_acknowledged(self, run: str) -> None:
        """The recipient has the result, so every crossing arrived, even where a confirmation was lost."""
        if self._regions is not None:
            for state in self._sessions.of_run(run):
                if state.kind == "region" and state.phase == "COMMITTED":
                    self._regions.confirm_all(run, state.cluster)
        self.settle(run)

    def _extract(self, state: SessionState, found: Admission | None) -> None:
        run = state.run_id
        if self._store.row("SELECT 1 FROM extracts WHERE run = ? AND party = ?", run, self._context.id):
            return
        try:
            manifest = found.manifest if found else self._admissions.manifest(run)
            envelope = self._books.extract(run, list(manifest.filings), self._context.now)
        except ComityError as error:
            self._context.log("no_extract", code=error.code, run=run[:16])
            return
        attestation = b"" if found is None else self._statement(found, state, envelope).to_bytes()
        self._store.write(
            "INSERT INTO extracts VALUES (?, ?, ?, ?)", run, self._context.id, envelope.to_bytes(), attestation
        )
        for receiver in self._group_operators(run):
            if receiver != self._context.id:
                self._store.write("INSERT OR IGNORE INTO extracts_out VALUES (?, ?, 0)", run, receiver)
        self.send_copies()

    def _statement(self, found: Admission, state: SessionState, envelope: Envelope) -> Envelope:
        extract = msgspec.json.decode(envelope.payload, type=built(LedgerExtract))
        group = self._group_operators(found.run)
        receivers = [found.report.recipient] if state.kind == "group" else [r for r in group if r != self._context.id]
        rules = [decision.as_dict() for one in receivers for decision in self._admissions.decide(found, one)]
        checked = {entry.ref for entry in extract.entries if entry.event == "approval_checked" and entry.ref}
        statement = make_statement(
            extract,
            cluster=state.cluster,
            attempt=state.attempt,
            software=f"comity-mpc {mpc_ops.__version__}",
            approvals=checked,
            rules=rules,
            created_at=self._context.now,
        )
        self._book.issue(statement)
        return attest(statement, found.signed, self._context.identity)

    def _group_operators(self, run: str) -> list[str]:
        """Group operators of a run; those of every group cluster where its plan is not known here."""
        terms = self._context.federation.terms
        try:
            return list(self._context.federation.cluster(self._admissions.look(run).report.group).operators)
        except ComityError:
            clusters = (cluster for cluster in terms.clusters.values() if cluster.kind == "group")
            return sorted({name for cluster in clusters for name in cluster.operators})

    # ------------------------------------------------------------------------------------------------------ copies

    def send_copies(self) -> None:
        """Give copies to the group operators that have not confirmed theirs."""
        for run, receiver in self._store.rows("SELECT run, receiver FROM extracts_out WHERE acked = 0"):
            if not self._context.post.up(receiver):
                continue
            row = self._store.row(
                "SELECT ledger, attestation FROM extracts WHERE run = ? AND party = ?", run, self._context.id
            )
            if row is not None:
                data = encode_sync(ExtractCopy(run_id=run, ledger=row[0], attestation=row[1]))
                self._books.frame_sent(data, receiver, PayloadClass.EVIDENCE, run=run)
                self._context.send(receiver, Kind.FRAME, data)

    def take_copy(self, peer: str, message: ExtractCopy, data: bytes) -> None:
        """Take a peer's extract and attestation of a run, if it verifies."""
        try:
            found = self._admissions.look(message.run_id)
        except ComityError:
            return  # repeated by the sender
        ledger = Envelope.parse(message.ledger, limit_bytes=_ENVELOPE_LIMIT)
        extract = verify_extract(ledger, self._context.federation)
        if (extract.party, extract.run) != (peer, message.run_id):
            raise PeerProtocolError("EXTRACT_FOREIGN", "a ledger extract of another party or run", ids={"party": peer})
        if message.attestation:
            envelope = Envelope.parse(message.attestation)
            if verify_attestation(envelope, found.signed, self._context.federation).operator != peer:
                raise PeerProtocolError("EXTRACT_FOREIGN", "an attestation of another party", ids={"party": peer})
        self._books.frame_received(data, peer, PayloadClass.EVIDENCE, run=message.run_id)
        self._store.write(
            "INSERT OR IGNORE INTO extracts VALUES (?, ?, ?, ?)",
            message.run_id, peer, message.ledger, message.attestation,
        )  # fmt: skip
        self._context.send(peer, Kind.SYNC, encode_sync(ExtractHeld(run_id=message.run_id)))

    def copy_held(self, peer: str, message: ExtractHeld) -> None:
        """A group operator holds our copy."""
        self._store.write("UPDATE extracts_out SET acked = 1 WHERE run = ? AND receiver = ?", message.run_id, peer)

    # ------------------------------------------------------------------------------------------------------ bundle

    def is_complete(self, run: str) -> bool:
        """Return whether every operator of a run has handed in extract and attestation."""
        found = self._admissions.look(run)
        operators = set(operators_of_run(found.report.plan, found.filings, self._context.federation))
        rows = self._store.rows("SELECT party FROM extracts WHERE run = ? AND length(attestation) > 0", run)
        return operators <= {str(party) for (party,) in rows}

    def bundle(self, run: str) -> bytes:
        """Return the evidence of a run as it stands here; raise ConfigError RUN_UNKNOWN."""
        (manifest,) = self._book.find("manifest", run=run)[:1]
        rows = self._store.rows("SELECT ledger, attestation FROM extracts WHERE run = ?", run)
        ledgers = [Envelope.parse(row[0], limit_bytes=_ENVELOPE_LIMIT) for row in rows]
        attestations = [Envelope.parse(row[1]) for row in rows if row[1]]
        return make_bundle(run, (item.envelope for item in self._notices(manifest)), attestations, ledgers)

    def _notices(self, manifest: SignedNotice) -> list[SignedNotice]:
        run = str(self._store.value("SELECT run FROM notices WHERE digest = ?", manifest.digest))
        close = manifest.expect(model.Manifest)
        digests = {str(digest) for (digest,) in self._store.rows("SELECT digest FROM notices WHERE run = ?", run)}
        digests |= {*close.filings, *([close.reference] if close.reference else [])}
        for filing in close.filings:
            digests |= {str(d) for (d,) in self._store.rows("SELECT digest FROM notices WHERE about = ?", filing)}
        for kind in ("release", "approval", "withdrawal", "reopen"):
            digests |= {signed.digest for signed in self._book.find(kind, plan=close.plan)}
        found = [self._book.get(digest) for digest in sorted(digests)]
        return [signed for signed in found if signed is not None and belongs(signed, manifest)]

    def tick(self) -> None:
        """Repeat unconfirmed copies; ask for the evidence of committed runs whose owners have none yet."""
        now = self._context.utc().timestamp()
        if now < self._next:
            return
        self._next = now + _RETRY_S
        self.send_copies()
        if self._regions is None:
            return
        rows = self._store.rows(
            "SELECT DISTINCT run FROM sessions WHERE kind = 'region' AND phase IN ('COMMITTED', 'ERASED')"
            " AND run NOT IN (SELECT run FROM bundles) AND run IN (SELECT run FROM notices WHERE kind = 'statement')"
        )
        self._turn += 1
        for (run,) in rows:
            group = [name for name in self._group_operators(run) if self._context.post.up(name)]
            if group and self._admissions.committed(run, self._admissions.manifest(run).plan):
                peer = group[self._turn % len(group)]
                self._context.send(peer, Kind.SYNC, encode_sync(BundleWant(run_id=run)))

    def give_bundle(self, peer: str, message: BundleWant) -> None:
        """Send the evidence of a run to a region operator that took part, when it is complete."""
        try:
            found = self._admissions.look(message.run_id)
            members = {n for cluster in found.clusters for n in self._context.federation.cluster(cluster).operators}
            if peer not in members or not self.is_complete(message.run_id):
                return
        except ComityError:
            return
        data = encode_sync(BundleCopy(run_id=message.run_id, data=self.bundle(message.run_id)))
        self._books.frame_sent(data, peer, PayloadClass.EVIDENCE, run=message.run_id)
        self._context.send(peer, Kind.FRAME, data)

    def take_bundle(self, peer: str, message: BundleCopy, data: bytes) -> None:
        """Put the evidence of a run into the outbox of its owners; they verify it by themselves."""
        if self._store.row("SELECT 1 FROM bundles WHERE run = ?", message.run_id):
            return
        if read_bundle(message.data).run != message.run_id or not self._sessions.of_run(message.run_id):
            raise PeerProtocolError("BUNDLE_FOREIGN", "evidence of another run", ids={"party": peer})
        self._books.frame_received(data, peer, PayloadClass.EVIDENCE, run=message.run_id)
        self._store.write("INSERT INTO bundles VALUES (?, ?)", message.run_id, message.data)
        self._context.afterwards(lambda: self._publish(message.run_id, message.data))

    def _publish(self, run: str, data: bytes) -> None:
        found = self._admissions.look(run)
        for cluster, owners in found.clusters.items():
            for owner in owners if cluster in self._context.clusters else []:
                self._outbox.evidence(owner, run, BUNDLE_NAME, data)

    def restore(self) -> None:
        """Write evidence files that a crash may have lost."""
        for run, data in self._store.rows("SELECT run, data FROM bundles"):
            self._publish(str(run), bytes(data))


def _erased(state: SessionState) -> list[str]:
    if state.kind == "region":
        return ["owners' parts", "period key", "crossing frames"]
    return ["crossing frames", "result part"]
