"""The signed material of one run, sorted and with every signature verified: what facts and checks are derived from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from mpc_ops.envelope.dsse import Envelope
from mpc_ops.errors import EvidenceError
from mpc_ops.evidence.ledger import LedgerExtract, verify_extract
from mpc_ops.evidence.statement import clusters_of_run, verify_attestation
from mpc_ops.federation.loaded import Federation
from mpc_ops.ids import RunId
from mpc_ops.notices.model import (
    Ack,
    Approval,
    Cancel,
    DisputeNotice,
    Erased,
    Filed,
    Manifest,
    Outcome,
    Receipt,
    Reference,
    Rejected,
    Release,
    Reopen,
    ResultCommitment,
    State,
    Statement,
    Withdrawal,
)  # fmt: skip
from mpc_ops.notices.signed import SignedNotice, run_id_of, verify_notice
from mpc_ops.plan.model import Plan, load_plan

__all__ = ["RunEvidence", "belongs", "gather"]

T = TypeVar("T")


@dataclass(frozen=True)
class RunEvidence:
    """Everything signed about one run. Build it with `gather`, which verifies each signature.

    Attributes:
        notices: verified notices of the run by kind, each list in order of their digests.
        statements: operators' run attestations, verified, by operator; with the `attestations` that carry them.
        ledgers: verified log extracts by party; with the `ledger_envelopes` that carry them.
        closing: the recipient's closing attestation, if there is one already.
    """

    federation: Federation
    manifest: SignedNotice
    release: SignedNotice
    plan: Plan
    notices: Mapping[str, tuple[SignedNotice, ...]]
    attestations: Mapping[str, Envelope] = field(default_factory=dict)
    statements: Mapping[str, Statement] = field(default_factory=dict)
    ledger_envelopes: Mapping[str, Envelope] = field(default_factory=dict)
    ledgers: Mapping[str, LedgerExtract] = field(default_factory=dict)
    closing: Envelope | None = None

    @property
    def run(self) -> RunId:
        """The run id."""
        return run_id_of(self.manifest)

    @property
    def close(self) -> Manifest:
        """The manifest's content."""
        return self.manifest.expect(Manifest)

    @property
    def reading(self) -> Release:
        """The release's content."""
        return self.release.expect(Release)

    def of(self, kind: type[T]) -> list[T]:
        """Return the contents of all notices of a kind."""
        tag = str(kind.__struct_config__.tag)  # type: ignore[attr-defined]
        return [signed.expect(kind) for signed in self.notices.get(tag, ())]

    @property
    def filings(self) -> dict[str, Filed]:
        """The filings that the manifest names, by owner."""
        return {filed.owner: filed for filed in sorted(self.of(Filed), key=lambda filed: filed.owner)}

    @property
    def clusters(self) -> dict[str, list[str]]:
        """Clusters of the run and their operators."""
        return clusters_of_run(self.plan, self.filings, self.federation)

    @property
    def operators(self) -> list[str]:
        """Operators of the run, sorted."""
        return sorted({name for names in self.clusters.values() for name in names})

    @property
    def outcome(self) -> str:
        """COMMITTED if every group operator says so, else the word of the first operator that ended it, or OPEN."""
        states = self.of(State)
        ended = sorted((s.created_at, s.state) for s in states if s.state != "COMMITTED")
        if ended:
            return ended[0][1]
        group = {name for c, names in self.clusters.items() for name in names
                 if self.federation.cluster(c).kind == "group"}  # fmt: skip
        done = {s.operator for s in states if self.federation.cluster(s.cluster).kind == "group"}
        return "COMMITTED" if group and group <= done else "OPEN"

    def with_closing(self, closing: Envelope) -> RunEvidence:
        """Return a copy with the closing attestation."""
        return replace(self, closing=closing)


def belongs(signed: SignedNotice, manifest: SignedNotice) -> bool:
    """Return whether a notice is evidence of the manifest's run."""
    close, notice, run = manifest.expect(Manifest), signed.notice, run_id_of(manifest)
    if isinstance(notice, (State, DisputeNotice, ResultCommitment, Statement, Ack, Erased, Outcome, Cancel)):
        return notice.run == run
    if isinstance(notice, (Receipt, Rejected)):
        return notice.filing in close.filings
    if isinstance(notice, Filed):
        return signed.digest in close.filings
    if isinstance(notice, (Approval, Withdrawal)):
        return notice.plan == close.plan
    if isinstance(notice, Release):
        return load_plan(notice.plan.encode("utf-8")).digest == close.plan
    if isinstance(notice, Reference):
        return signed.digest == close.reference
    if isinstance(notice, Reopen):
        return (notice.plan, notice.period, notice.edition) == (close.plan, close.period, close.edition)
    return signed.digest == manifest.digest


def gather(
    federation: Federation,
    manifest: SignedNotice,
    notices: Iterable[SignedNotice],
    *,
    attestations: Iterable[Envelope] = (),
    ledgers: Iterable[Envelope] = (),
    closing: Envelope | None = None,
) -> RunEvidence:
    """Verify and sort what is known about a run; notices of other runs are left out.

    Raises:
        ConfigError: PARTY_UNKNOWN, SCHEMA_INVALID and so on, for what does not have its form.
        EvidenceError: SIGNATURE_INVALID, RELEASE_MISSING, FILING_MISSING, STATEMENT_FOREIGN, LEDGER_CHAIN,
            EVIDENCE_TWICE (one party signed two different things in one place).
    """
    manifest = verify_notice(manifest, federation)
    kept: dict[str, dict[str, SignedNotice]] = {"manifest": {manifest.digest: manifest}}
    for signed in notices:
        if belongs(signed, manifest):
            verified = verify_notice(signed, federation)
            known = kept.setdefault(signed.kind, {}).get(signed.digest)
            if known is not None:
                verified = replace(verified, envelope=known.envelope.merge(verified.envelope))
            kept[signed.kind][signed.digest] = verified
    if len(kept.get("release", {})) == 0:
        raise EvidenceError(
            "RELEASE_MISSING", "the release of a run is not there", ids={"run": run_id_of(manifest)[:12]}
        )
    release = min(kept["release"].values(), key=lambda signed: signed.digest)
    evidence = RunEvidence(
        federation=federation,
        manifest=manifest,
        release=release,
        plan=load_plan(release.expect(Release).plan.encode("utf-8")),
        notices={kind: tuple(found[digest] for digest in sorted(found)) for kind, found in sorted(kept.items())},
        closing=closing,
    )
    _check_filings(evidence)
    stated: dict[str, tuple[Envelope, Statement]] = {}
    for envelope in attestations:
        statement = verify_attestation(envelope, manifest, federation)
        _once(stated, statement.operator, (envelope, statement), "run attestation")
    logs: dict[str, tuple[Envelope, LedgerExtract]] = {}
    for envelope in ledgers:
        extract = verify_extract(envelope, federation)
        if extract.run != evidence.run:
            raise EvidenceError("LEDGER_INVALID", "a transfer log is about another run", ids={"party": extract.party})
        _once(logs, extract.party, (envelope, extract), "transfer log")
    return replace(
        evidence,
        attestations={party: stated[party][0] for party in sorted(stated)},
        statements={party: stated[party][1] for party in sorted(stated)},
        ledger_envelopes={party: logs[party][0] for party in sorted(logs)},
        ledgers={party: logs[party][1] for party in sorted(logs)},
    )


def _once(found: dict[str, tuple[Envelope, T]], party: str, item: tuple[Envelope, T], what: str) -> None:
    if party in found and found[party][0].payload != item[0].payload:
        raise EvidenceError(
            "EVIDENCE_TWICE", f"a party signed two different versions of its {what}", ids={"party": party}
        )
    found[party] = item


def _check_filings(evidence: RunEvidence) -> None:
    close, ids = evidence.close, {"run": evidence.run[:12]}
    found = evidence.notices.get("filed", ())
    missing = sorted(set(close.filings) - {signed.digest for signed in found})
    if missing:
        raise EvidenceError(
            "FILING_MISSING", "a filing that the manifest names is not there", got=missing[0][:16], ids=ids
        )
    owners = [filed.owner for filed in evidence.of(Filed)]
    if len(set(owners)) != len(owners):
        raise EvidenceError("EVIDENCE_TWICE", "the manifest names two filings of one owner", ids=ids)
    for kind, where in ((Statement, "statement"), (Erased, "erased"), (ResultCommitment, "result"), (Ack, "ack")):
        who = [getattr(item, "operator", "recipient") for item in evidence.of(kind)]
        if len(set(who)) != len(who):
            raise EvidenceError("EVIDENCE_TWICE", f"a party signed two different `{where}` notices of one run", ids=ids)
