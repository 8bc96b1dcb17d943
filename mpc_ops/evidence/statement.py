"""Attestations: in-toto Statements v1 in DSSE envelopes, with one subject: the run, its manifest and its plan.

*Run attestation.* Every operator that took part signs its own, over the same subject, with the facts of its `statement`
notice as predicate. The verifier asks for one from every operator of the clusters that the manifest's filings and the
plan name, and reconciles them with the transfer logs; so no party can be left out and none signs for another.

*Closing attestation.* A pure function of public notices (manifest, statements, acknowledgement, erasures), so that the
recipient and every owner derive the same bytes by themselves and countersign their digest with an `outcome` notice. It
exists only when every operator has attested the deletion of its shares. A missing countersignature is an open item.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from mpc_ops.envelope.canonical import canonical_bytes, parse_canonical, sha256_hex
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey, Purpose
from mpc_ops.envelope.schema import from_plain, to_plain
from mpc_ops.errors import EvidenceError
from mpc_ops.evidence.ledger import LedgerExtract, flows_of
from mpc_ops.federation.loaded import Federation
from mpc_ops.ids import Digest
from mpc_ops.notices.model import Ack, Erased, Manifest, Statement
from mpc_ops.notices.signed import SignedNotice, run_id_of
from mpc_ops.plan.model import CrossNode, Plan

__all__ = [
    "CLOSING_TYPE",
    "IN_TOTO_TYPE",
    "RUN_TYPE",
    "attest",
    "closing_digest",
    "closing_payload",
    "clusters_of_run",
    "make_statement",
    "operators_of_run",
    "sign_closing",
    "verify_attestation",
    "verify_closing",
]  # fmt: skip

IN_TOTO_TYPE = "application/vnd.in-toto+json"
RUN_TYPE = "urn:comity:run-attestation:v1"
CLOSING_TYPE = "urn:comity:closing-attestation:v1"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


def _subject(manifest: SignedNotice) -> list[dict[str, Any]]:
    notice = manifest.expect(Manifest)
    names = (("run", run_id_of(manifest)), ("manifest", manifest.digest), ("plan.json", notice.plan))
    return [{"name": name, "digest": {"sha256": digest}} for name, digest in names]


def _payload(manifest: SignedNotice, kind: str, predicate: dict[str, Any]) -> bytes:
    return canonical_bytes(
        {"_type": _STATEMENT_TYPE, "subject": _subject(manifest), "predicateType": kind, "predicate": predicate}
    )


def make_statement(
    extract: LedgerExtract,
    *,
    cluster: str,
    attempt: int,
    software: str,
    approvals: Collection[str],
    rules: Sequence[dict[str, Any]],
    created_at: str,
) -> Statement:
    """Return an operator's `statement` notice for a run from its own log.

    Args:
        extract: the log up to now; the statement's head, flows and denials are computed from it.
        cluster: cluster of the session that the operator committed (its region's, or the group's).
        attempt: attempt that was committed.
        software: name and version of what ran.
        approvals: digests of approvals and withdrawals that were evaluated.
        rules: decisions as the rule engine returned them, JSON-able.
        created_at: moment of signing.
    """
    entries = extract.entries
    return Statement(
        run=extract.run,
        cluster=cluster,
        operator=extract.party,
        attempt=attempt,
        software=software,
        ledger_head=extract.head,
        ledger_entries=len(entries),
        flows=flows_of(entries),
        approvals=sorted(approvals),
        rules=list(rules),
        denials=sum(entry.event == "denied" for entry in entries),
        created_at=created_at,
    )


def attest(statement: Statement, manifest: SignedNotice, key: IdentityKey) -> Envelope:
    """Sign an operator's run attestation: the in-toto form of its `statement` notice (purpose ATTESTATION)."""
    if statement.run != run_id_of(manifest):
        raise EvidenceError("STATEMENT_FOREIGN", "a statement is about another run", ids={"run": statement.run[:12]})
    return Envelope.sign(IN_TOTO_TYPE, _payload(manifest, RUN_TYPE, to_plain(statement)), key, Purpose.ATTESTATION)


def verify_attestation(envelope: Envelope, manifest: SignedNotice, federation: Federation) -> Statement:
    """Return the operator's facts from its run attestation.

    Raises:
        ConfigError: JSON_INVALID, SCHEMA_INVALID, PARTY_UNKNOWN.
        EvidenceError: STATEMENT_FOREIGN (another run, manifest or plan), SIGNATURE_INVALID.
    """
    predicate = _predicate(envelope, manifest, RUN_TYPE)
    statement = from_plain(predicate, Statement, what="run attestation")
    envelope.require({statement.operator: federation.identity(statement.operator)}, Purpose.ATTESTATION)
    if statement.run != run_id_of(manifest):
        raise EvidenceError("STATEMENT_FOREIGN", "an attestation is about another run", ids={"run": statement.run[:12]})
    return statement


def _predicate(envelope: Envelope, manifest: SignedNotice, kind: str) -> Any:
    value = parse_canonical(envelope.payload)
    if (
        envelope.payload_type != IN_TOTO_TYPE
        or not isinstance(value, dict)
        or set(value) != {"_type", "subject", "predicateType", "predicate"}
        or (value["_type"], value["predicateType"]) != (_STATEMENT_TYPE, kind)
        or value["subject"] != _subject(manifest)
    ):
        raise EvidenceError(
            "STATEMENT_FOREIGN", "not an attestation of this run", expected=kind, ids={"payload": envelope.digest[:16]}
        )
    return value["predicate"]


def clusters_of_run(plan: Plan, owners: Iterable[str], federation: Federation) -> dict[str, list[str]]:
    """Return {cluster: operators} of a run: the region clusters of its owners, and the plan's group cluster."""
    names = {federation.region_of(owner)[1].cluster for owner in owners}
    cross = plan.node(CrossNode)
    if isinstance(cross, CrossNode):
        names.add(cross.cluster)
    return {name: list(federation.cluster(name).operators) for name in sorted(names)}


def operators_of_run(plan: Plan, owners: Iterable[str], federation: Federation) -> list[str]:
    """Return the operators that take part in a run, sorted."""
    return sorted({name for names in clusters_of_run(plan, owners, federation).values() for name in names})


def closing_payload(
    manifest: SignedNotice,
    statements: Iterable[SignedNotice],
    ack: SignedNotice | None,
    erased: Iterable[SignedNotice],
    operators: Collection[str],
) -> bytes | None:
    """Return the closing attestation's bytes, or None while something that it needs is missing.

    Args:
        manifest: the run's manifest.
        statements: all `statement` notices of the run that are at hand.
        ack: the recipient's acknowledgement.
        erased: all `erased` notices of the run that are at hand.
        operators: `operators_of_run`: every one must have stated and erased.
    """
    run = run_id_of(manifest)
    stated = {(s.expect(Statement).operator, s.expect(Statement).cluster): s.digest for s in statements
              if s.expect(Statement).run == run}  # fmt: skip
    gone = {e.expect(Erased).operator: e.digest for e in erased if e.expect(Erased).run == run}
    if ack is None or ack.expect(Ack).run != run or set(gone) != set(operators):
        return None
    if {operator for operator, _ in stated} != set(operators):
        return None
    predicate = {
        "acknowledgement": ack.digest,
        "erased": gone,
        "statements": sorted(stated.values()),
        "note": "deletion is attested by each operator, not proven",
    }
    return _payload(manifest, CLOSING_TYPE, predicate)


def closing_digest(payload: bytes) -> Digest:
    """Return the digest that `outcome` notices countersign."""
    return sha256_hex(payload)


def sign_closing(payload: bytes, key: IdentityKey) -> Envelope:
    """Sign the closing attestation as the recipient (purpose ATTESTATION)."""
    return Envelope.sign(IN_TOTO_TYPE, payload, key, Purpose.ATTESTATION)


def verify_closing(envelope: Envelope, expected: bytes | None, manifest: SignedNotice, federation: Federation) -> None:
    """Check the recipient's closing attestation against the bytes derived from the notices.

    Raises:
        EvidenceError: STATEMENT_FOREIGN, CLOSING_DIFFERS, SIGNATURE_INVALID.
    """
    _predicate(envelope, manifest, CLOSING_TYPE)
    recipient = manifest.expect(Manifest).recipient
    envelope.require({recipient: federation.identity(recipient)}, Purpose.ATTESTATION)
    if envelope.payload != expected:
        raise EvidenceError(
            "CLOSING_DIFFERS",
            "the closing attestation does not follow from the notices beside it",
            ids={"run": run_id_of(manifest)[:12]},
        )
