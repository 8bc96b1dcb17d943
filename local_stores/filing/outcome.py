"""What became of a filing: the run that it went into, its state, and the evidence, all from the owner's own outboxes.

The closing attestation is derived here from notices that were verified here, and countersigned with an `outcome` notice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local_stores.config import Site
from local_stores.delivery.mirror import MIRRORED, OpenSftp, sync
from local_stores.delivery.sealing import Take, latest_take
from local_stores.errors import Abort, ComityError, ConfigError, NotYet, StateError, TransportError
from local_stores.filing.readiness import Who, closing_manifest, recipient_of, utc_now, who
from local_stores.filing.steps import send_to_operators
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.evidence.bundle import MAX_BUNDLE_BYTES, EvidenceBundle, read_bundle
from mpc_ops.evidence.ledger import MAX_EXTRACT_BYTES
from mpc_ops.evidence.material import RunEvidence, gather
from mpc_ops.evidence.statement import closing_digest, closing_payload
from mpc_ops.evidence.status import first_cause
from mpc_ops.notices.model import Manifest, Outcome, State
from mpc_ops.notices.signed import SignedNotice, parse_notice, run_id_of, sign_notice, utc_text

__all__ = ["fetch_outcome", "outcome_ready"]

Json = dict[str, Any]
_BUNDLE = "bundle.json"


@dataclass(frozen=True)
class _Run:
    """The run that a filing is in.

    Attributes:
        failed: the state notice that ended it, if one did.
    """

    manifest: SignedNotice
    id: str
    failed: State | None


def outcome_ready(site: Site, owner: str, report: str, period: str, open_sftp: OpenSftp | None = None) -> Json | None:
    """Tell how the period ended for the owner, None while it has not.

    Returns:
        `{"state": "COMMITTED", "run", "closing"}` once the result is acknowledged, all operators have attested the
        deletion and the evidence is here; `{"state": "FAILED" | "REFUSED" | "CANCELLED", "run", "code", "operator",
        "pair"}`; or `{"state": "LATE", "run"}` where the submission close left the filing out.

    Raises:
        TransportError: no operator answers. EvidenceError: the evidence does not hold together.
    """
    one = who(site, owner, report, period, open_sftp=open_sftp, valid_now=False)
    answer = _outcome(one)
    if answer is None:
        sync(one.mirror, one.operators, one.open_sftp, kinds=MIRRORED, enough=lambda: _outcome(one) is not None)
        _fetch_bundle(one)
        answer = _outcome(one)
    return answer


def fetch_outcome(site: Site, owner: str, report: str, period: str, open_sftp: OpenSftp | None = None) -> Json:
    """Fetch and check the evidence of the owner's run, countersign its closing attestation and deliver that.

    Raises:
        NotYet: OUTCOME_OPEN. Abort: RUN_FAILED naming the pair; StateError: RUN_FAILED with the code, FILING_LATE.
        EvidenceError: what `gather` raises. TransportError: no operator answers.
    """
    answer = outcome_ready(site, owner, report, period, open_sftp)
    ids: dict[str, object] = {"owner": owner, "report": report, "period": period}
    if answer is None:
        raise NotYet("OUTCOME_OPEN", "the run has not ended yet", ids=ids)
    ids["run"] = str(answer["run"])[:12]
    if answer["state"] == "LATE":
        raise StateError(
            "FILING_LATE", "the submission close left this filing out", ids=ids, hint="File again for the next edition"
        )
    if answer["state"] != "COMMITTED":
        pair = " and ".join(answer["pair"])
        failure = Abort if pair else StateError
        raise failure(
            "RUN_FAILED",
            f"the run ended as {answer['state']} with {answer['code']}" + (f", between {pair}" if pair else ""),
            ids={**ids, "operator": answer["operator"]},
            hint="Nothing was released; group reporting closes the period again",
        )
    notice = _countersign(site, owner, str(answer["run"]), str(answer["closing"]))
    sent = send_to_operators(site, owner, notice, open_sftp)
    return {
        **answer,
        "outcome": notice.digest,
        "delivered": sent,
        "evidence": site.state.path_text(f"{_folder(owner, str(answer['run']))}/{_BUNDLE}"),
    }


def _outcome(one: Who) -> Json | None:
    take = latest_take(one.site.state, one.of)
    if take is None:
        return None
    run = _run_of(one, take)
    if run is None:
        left_out = closing_manifest(one)
        return None if left_out is None else {"state": "LATE", "run": run_id_of(left_out)}
    if run.failed is not None:
        return {
            "state": run.failed.state,
            "run": run.id,
            "code": run.failed.code or run.failed.state,
            "operator": run.failed.operator,
            "pair": list(run.failed.pair),
        }
    closing = _closing(one, run)
    return None if closing is None else {"state": "COMMITTED", "run": run.id, "closing": closing}


def _run_of(one: Who, take: Take) -> _Run | None:
    """Return the newest run that names the filing."""
    found = []
    for signed in one.mirror.notices("manifest"):
        close = signed.expect(Manifest)
        if take.filing in close.filings and close.recipient == recipient_of(one.info):
            found.append((close.created_at, signed.digest, signed))
    if not found:
        return None
    manifest = max(found, key=lambda item: item[:2])[2]
    run = run_id_of(manifest)
    states = [state for _, state in one.mirror.of(State) if state.run == run]
    return _Run(manifest, run, first_cause(states))


def _closing(one: Who, run: _Run) -> str | None:
    """Return the digest of the closing attestation once everything that it needs is here and verified."""
    data = one.site.state.read(f"{_folder(one.home.id, run.id)}/{_BUNDLE}", limit_bytes=MAX_BUNDLE_BYTES)
    if data is None:
        return None
    evidence = _evidence(one, run, read_bundle(data))
    notices = evidence.notices
    acks = notices.get("ack", ())
    payload = closing_payload(
        run.manifest,
        notices.get("statement", ()),
        acks[0] if acks else None,
        notices.get("erased", ()),
        evidence.operators,
    )
    return None if payload is None else closing_digest(payload)


def _evidence(one: Who, run: _Run, bundle: EvidenceBundle) -> RunEvidence:
    relayed = [parse_notice(text.encode("utf-8")) for text in bundle.notices]
    own = [signed for kind in MIRRORED for signed in one.mirror.notices(kind)]
    return gather(
        one.federation,
        run.manifest,
        [*relayed, *own, one.info.notice],
        attestations=_envelopes(bundle.attestations),
        ledgers=_envelopes(bundle.ledgers),
    )


def _envelopes(texts: Sequence[str]) -> list[Envelope]:
    return [Envelope.parse(text.encode("utf-8"), limit_bytes=2 * MAX_EXTRACT_BYTES) for text in texts]


def _fetch_bundle(one: Who) -> None:
    """Fetch the run's evidence from the first operator whose copy holds together."""
    from local_stores.delivery.sftp import fetch_new  # noqa: PLC0415 - paramiko, only where used

    take = latest_take(one.site.state, one.of)
    run = None if take is None else _run_of(one, take)
    if run is None or run.failed is not None:
        return
    name = f"{_folder(one.home.id, run.id)}/{_BUNDLE}"
    if one.site.state.read(name, limit_bytes=MAX_BUNDLE_BYTES) is not None:
        return
    failure: ComityError | None = None
    for operator in one.operators:
        try:
            with one.open_sftp(operator) as session:
                files = dict(fetch_new(session, f"evidence/{run.id}", set(), MAX_BUNDLE_BYTES, party=operator))
            if _BUNDLE in files:
                _evidence(one, run, read_bundle(files[_BUNDLE]))
                one.site.state.write(name, files[_BUNDLE])
                return
        except TransportError:
            continue
        except ComityError as error:
            failure = error  # this relay's copy is bad; the next one may be good
    if failure is not None:
        raise failure


def _countersign(site: Site, owner: str, run: str, closing: str) -> SignedNotice:
    """Return the owner's `outcome` notice over a closing attestation, the same one at every call."""
    home = site.owner(owner)
    key: IdentityKey = home.identity()
    fresh = sign_notice(Outcome(run=run, party=owner, closing=closing, created_at=utc_text(utc_now())), key)
    kept = parse_notice(site.state.write_once(f"{_folder(owner, run)}/outcome.dsse", fresh.envelope.to_bytes()))
    if kept.expect(Outcome).closing != closing:
        raise ConfigError(
            "OUTCOME_DIFFERS", "another closing attestation of this run was countersigned before", ids={"run": run[:12]}
        )
    return kept


def _folder(owner: str, run: str) -> str:
    return f"evidence/{owner}/{run}"


def words(answer: Mapping[str, Any]) -> str:
    """Return an outcome in words, for the command line."""
    if answer["state"] == "COMMITTED":
        return "the result was released, acknowledged, and every operator attested the deletion of its shares"
    if answer["state"] == "LATE":
        return "the submission close left this filing out"
    return f"the run ended as {answer['state']} ({answer['code']})"
