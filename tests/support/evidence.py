"""A whole run's signed evidence without processes: notices, transfer logs and attestations that fit each other.

`make_run(root)` gives a `MadeRun`; `made.evidence()` the material, `made.write(folder)` a pack. `alter` gets the books
before they are signed, so that a test can drop, add or change entries.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mpc_ops.envelope.canonical import canonical_bytes, sha256_hex
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import Purpose
from mpc_ops.evidence.facts import Facts
from mpc_ops.evidence.ledger import LedgerEntry, build_extract, chain, genesis, new_entry, sign_extract
from mpc_ops.evidence.material import RunEvidence, gather
from mpc_ops.evidence.pack import build_pack, federation_files, write_pack
from mpc_ops.evidence.statement import attest, closing_digest, closing_payload, make_statement, sign_closing
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import (
    Ack,
    Erased,
    Filed,
    Manifest,
    Outcome,
    Part,
    Receipt,
    ResultCommitment,
    SignOff,
    State,
)  # fmt: skip
from mpc_ops.notices.signed import SignedNotice, run_id_of, sign_notice, utc_text
from mpc_ops.plan.layout import lane_count
from mpc_ops.plan.model import Plan
from mpc_ops.plan.statement import planned_statement
from tests.support.federation import (
    DEMO,
    RECIPIENT,
    MadeFederation,
    make_approval,
    make_federation,
    make_plan,
    make_reference,
    make_release,
)  # fmt: skip

NOW = datetime(2026, 4, 7, 2, 14, tzinfo=UTC)
PERIOD = "2026-03"


class Books:
    """The transfer logs of all parties, written frame by frame."""

    def __init__(self) -> None:
        self.logs: dict[str, list[LedgerEntry]] = {}
        self._frames = 0

    def add(self, party: str, event: str, **fields) -> None:
        log = self.logs.setdefault(party, [])
        log.append(new_entry(seq=len(log), at=utc_text(NOW), event=event, **fields))

    def frame(
        self, sender: str, receiver: str, kind: PayloadClass, size: int, *, receipt: bool = True, **place
    ) -> None:
        self._frames += 1
        digest = sha256_hex(f"frame {self._frames}".encode())
        both = {"sender": sender, "receiver": receiver, "payload_class": kind, "bytes": size, "digest": digest, **place}
        self.add(sender, "frame_sent", **both)
        if receipt:
            self.add(receiver, "frame_received", **both)

    def stage(
        self, sender: str, receiver: str, kind: PayloadClass, count: int, size: int, *,
        alter: Mapping[str, object] | None = None, sent: bool = True, receipt: bool = True, **place,
    ) -> None:  # fmt: skip
        """The frames of an attempt's stage on one link; `alter` changes what the receiver says."""
        self._frames += 1
        both = {
            "sender": sender, "receiver": receiver, "payload_class": kind, "bytes": size, "frames": count,
            "digest": sha256_hex(f"frames {self._frames}".encode()), **place,
        }  # fmt: skip
        if sent:
            self.add(sender, "frames_sent", **both)
        if receipt:
            self.add(receiver, "frames_received", **(both | dict(alter or {})))

    def notice(self, sender: str, receiver: str, digest: str, size: int, run: str | None) -> None:
        both = {"sender": sender, "receiver": receiver, "ref": digest, "bytes": size, "run": run}
        for party, event in ((sender, "notice_sent"), (receiver, "notice_received")):
            self.add(party, event, payload_class=PayloadClass.CONTROL_METADATA, **both)

    def renumber(self, party: str) -> None:
        """Make positions consecutive again after a test took entries away."""
        entries = [{f: getattr(e, f) for f in e.__struct_fields__} for e in self.logs[party]]
        self.logs[party] = [LedgerEntry(**(e | {"seq": place})) for place, e in enumerate(entries)]

    def drop(self, party: str, wanted: Callable[[LedgerEntry], bool]) -> None:
        """Take the first entry that `wanted` likes out of a log."""
        place = next(i for i, entry in enumerate(self.logs[party]) if wanted(entry))
        del self.logs[party][place]
        self.renumber(party)


@dataclass
class MadeRun:
    """A run's material; change what you want before `evidence()` or `write()`."""

    made: MadeFederation
    plan: Plan
    manifest: SignedNotice
    notices: list[SignedNotice]
    books: Books
    attestations: dict[str, Envelope] = field(default_factory=dict)
    ledgers: dict[str, Envelope] = field(default_factory=dict)
    closing: Envelope | None = None

    @property
    def run(self) -> str:
        return run_id_of(self.manifest)

    @property
    def statement(self) -> str:
        """Digest of the planned-transfer statement."""
        return next(n for n in self.notices if n.kind == "release").notice.statement

    def evidence(self) -> RunEvidence:
        return gather(
            self.made.federation,
            self.manifest,
            self.notices,
            attestations=self.attestations.values(),
            ledgers=self.ledgers.values(),
            closing=self.closing,
        )

    def sign_books(self) -> None:
        """Sign every party's log and every operator's statement and attestation."""
        filings = self.manifest.expect(Manifest).filings
        self.notices = [n for n in self.notices if n.kind != "statement"]
        approvals = [n.digest for n in self.notices if n.kind == "approval"]
        for party, entries in self.books.logs.items():
            extract = build_extract(
                party, self.run, entries, genesis(party), refs=filings, created_at=utc_text(NOW + timedelta(minutes=2))
            )
            self.ledgers[party] = sign_extract(extract, self.made.keys[party])
            if party not in self.made.federation.terms.operators:
                continue
            (cluster,) = self.made.federation.clusters_of(party)
            statement = make_statement(
                extract, cluster=cluster, attempt=1, software="comity-mpc 0.1.0", approvals=approvals, rules=[],
                created_at=utc_text(NOW + timedelta(minutes=2)),
            )  # fmt: skip
            self.notices.append(sign_notice(statement, self.made.keys[party]))
            self.attestations[party] = attest(statement, self.manifest, self.made.keys[party])

    def close(self, *, erased: Sequence[str] | None = None, countersign: Sequence[str] | None = None) -> None:
        """Add acknowledgement, deletions, closing attestation and countersignatures."""
        operators = [p for p in self.books.logs if p in self.made.federation.terms.operators]
        at = utc_text(NOW + timedelta(minutes=5))
        ack = sign_notice(Ack(run=self.run, recipient=RECIPIENT, created_at=at), self.made.keys[RECIPIENT])
        gone = [
            sign_notice(
                Erased(run=self.run, operator=name, what=["shares", "period key"], created_at=at), self.made.keys[name]
            )
            for name in (operators if erased is None else erased)
        ]
        self.notices += [ack, *gone]
        statements = [n for n in self.notices if n.kind == "statement"]
        payload = closing_payload(self.manifest, statements, ack, gone, operators)
        if payload is None:
            return
        self.closing = sign_closing(payload, self.made.keys[RECIPIENT])
        digest = closing_digest(payload)
        for party in (RECIPIENT, *self.made.owners) if countersign is None else countersign:
            outcome = Outcome(run=self.run, party=party, closing=digest, created_at=at)
            self.notices.append(sign_notice(outcome, self.made.keys[party]))


def make_filing(
    made: MadeFederation, plan: Plan, owner: str, reference: SignedNotice, *, people: int = 2
) -> SignedNotice:
    """Return an owner's filing with three parts (their bytes are made up) and signed off."""
    context = {"plan": plan.digest, "period": PERIOD, "owner": owner, "edition": 1}
    contribution = sha256_hex(f"contribution of {owner}".encode())
    message = canonical_bytes({**context, "contribution": contribution})
    signers = list(made.signers(owner).items())[:people]
    filed = Filed(
        plan=plan.digest, period=PERIOD, owner=owner, edition=1, take=1, kind_of="data",
        created_at=utc_text(NOW - timedelta(hours=2)),
        reference=reference.digest,
        parts=[
            Part(operator=op, sha256=sha256_hex(f"part {owner} {op}".encode()), size=3000 + place)
            for place, op in enumerate(made.federation.operators_of(owner))
        ],
        commitments=[sha256_hex(f"commitment {owner} {i}".encode()) for i in range(3)],
        contribution=contribution,
        sign_offs=[
            SignOff(signer=name, signature=base64.b64encode(key.sign(message, Purpose.SIGN_OFF)).decode())
            for name, key in signers
        ],
        gate_k=plan.gate.k if plan.gate.where == "owner" else 1,
        tie_out="passed",
    )  # fmt: skip
    return sign_notice(filed, made.keys[owner])


def make_run(
    root: Path,
    regions: Mapping[str, Sequence[str]] = DEMO,
    *,
    made: MadeFederation | None = None,
    alter: Callable[[Books, str], None] | None = None,
    closed: bool = True,
    plan: Plan | None = None,
) -> MadeRun:
    """Make a committed run with all its evidence.

    Args:
        root: empty folder for the federation; not used if `made` is given.
        regions: as `make_federation`.
        made: an existing federation.
        alter: called with the books and the run id before anything in them is signed.
        closed: whether deletions, closing attestation and countersignatures are there.
        plan: the plan; by default the demo's report with its Gate at the owners. Needs `made`.
    """
    made = made or make_federation(root, regions)
    plan = plan or make_plan(made.federation)
    reference = make_reference(made, PERIOD)
    before = NOW - timedelta(days=1)
    statement = planned_statement(plan, made.federation, now=before).digest
    release = make_release(made, plan, now=before, statement=statement)
    approvals = [make_approval(made, plan, name, now=before, days=268, statement=statement) for name in made.owners]
    filings = [make_filing(made, plan, owner, reference) for owner in made.owners]
    receipts = [
        sign_notice(
            Receipt(filing=filing.digest, operator=op, received_at=utc_text(NOW - timedelta(hours=1))), made.keys[op]
        )
        for filing in filings
        for op in made.federation.operators_of(filing.expect(Filed).owner)
    ]
    manifest = sign_notice(
        Manifest(
            plan=plan.digest, period=PERIOD, edition=1, recipient=RECIPIENT,
            membership=made.federation.membership_digest, directory=made.federation.directory_digest,
            reference=reference.digest, filings=sorted(filing.digest for filing in filings),
            created_at=utc_text(NOW), give_up_at=utc_text(NOW + timedelta(hours=2)),
        ),
        made.keys[RECIPIENT],
    )  # fmt: skip
    run = MadeRun(made, plan, manifest, [release, reference, *approvals, *filings, *receipts, manifest], Books())
    _states(run)
    _traffic(run, filings)
    if alter is not None:
        alter(run.books, run.run)
    run.sign_books()
    if closed:
        run.close()
    return run


def _states(run: MadeRun) -> None:
    lanes = lane_count(run.plan)
    common = [sha256_hex(f"result component {i}".encode()) for i in range(3)]
    for name, cluster in run.made.federation.terms.clusters.items():
        for index, op in enumerate(cluster.operators):
            state = State(
                run=run.run, cluster=name, operator=op, attempt=1, state="COMMITTED",
                created_at=utc_text(NOW + timedelta(minutes=1)),
            )  # fmt: skip
            run.notices.append(sign_notice(state, run.made.keys[op]))
            if cluster.kind == "group":
                held = [common[i] if i in {index, (index + 1) % 3} else None for i in range(3)]
                result = ResultCommitment(
                    run=run.run, cluster=name, operator=op, attempt=1, recipient=RECIPIENT, lanes=lanes,
                    commitments=held, created_at=utc_text(NOW + timedelta(minutes=1)),
                )  # fmt: skip
                run.notices.append(sign_notice(result, run.made.keys[op]))


def _traffic(run: MadeRun, filings: Sequence[SignedNotice]) -> None:
    books, terms, plan = run.books, run.made.federation.terms, run.plan
    lanes = lane_count(plan)
    group = terms.clusters["group"].operators
    for op in terms.operators:
        books.add(op, "boot")
    for filing in filings:
        filed = filing.expect(Filed)
        for part in filed.parts:
            books.add(
                part.operator, "frame_received", sender=filed.owner, receiver=part.operator, digest=part.sha256,
                payload_class=plan.gate.shared_class, bytes=part.size, ref=filing.digest,
            )  # fmt: skip
    for op in group:
        books.notice(RECIPIENT, op, run.manifest.digest, 6100, run.run)
    for name, cluster in terms.clusters.items():
        place = {"run": run.run, "cluster": name, "attempt": 1}
        for op in cluster.operators:
            books.add(op, "approval_checked", decision="valid", **place)
        for one in cluster.operators:
            for other in cluster.operators:
                if one != other:
                    books.frame(one, other, PayloadClass.CONTROL_METADATA, 260, **place)
                    books.frame(one, other, PayloadClass.KEY_MATERIAL, 3600, **place)
                    books.frame(one, other, PayloadClass.MAC_OR_COMMITMENT, 180, **place)
                    if cluster.kind == "region" and plan.gate.where == "region":
                        books.frame(one, other, plan.gate.shared_class, 5000, **place)
        for op in cluster.operators:
            books.add(op, "state", ref="COMMITTED", **place)
        if cluster.kind == "region":
            for op in cluster.operators:
                for place_of, other in enumerate(group):
                    books.notice(other, op, run.manifest.digest, 6100, run.run)
                    size = 1300 + (8 * lanes if place_of != 2 else 0)
                    books.frame(op, other, PayloadClass.AGGREGATE_SHARE, size, **place)
    for op in group:
        place = {"run": run.run, "cluster": "group", "attempt": 1}
        books.frame(op, RECIPIENT, PayloadClass.RELEASED_AGGREGATE, 1244 + 16 * lanes, **place)


def chain_of(party: str, entries: Sequence[LedgerEntry]) -> str:
    """Return the head of a log."""
    head = genesis(party)
    for entry in entries:
        head = chain(head, entry)
    return head


def make_pack(run: MadeRun, folder: Path, *, previous: Facts | None = None) -> Path:
    """Write the run's evidence pack, signed by the recipient."""
    files = build_pack(run.evidence(), federation_files(run.made.folder), run.made.keys[RECIPIENT], previous=previous)
    write_pack(folder, files)
    return folder
