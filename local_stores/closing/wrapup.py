"""Completing a run's evidence: deletions, closing attestation, countersignatures, and the pack for reviewers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_stores.closing.desk import Desk, open_desk
from local_stores.config.site import Site
from local_stores.errors import ComityError, EvidenceError
from local_stores.receive.client import ApiClient
from mpc_ops.envelope.schema import decode
from mpc_ops.evidence.bundle import MAX_BUNDLE_BYTES, read_bundle
from mpc_ops.evidence.checks import assess, countersigned
from mpc_ops.evidence.facts import Facts
from mpc_ops.evidence.material import RunEvidence
from mpc_ops.evidence.pack import MAX_FILE_BYTES, build_pack, write_pack
from mpc_ops.evidence.statement import closing_digest, closing_payload, sign_closing
from mpc_ops.evidence.verify import verify_pack
from mpc_ops.notices.model import Erased, Manifest, Outcome
from mpc_ops.notices.signed import parse_notice, sign_notice, utc_text

__all__ = ["collect", "collect_closing", "own_evidence", "write_evidence"]

_PAUSE_S = 1.0


def own_evidence(desk: Desk, run_id: str) -> RunEvidence:
    """Put together a run's evidence with the recipient's own log as it stands now."""
    files = desk.run(run_id)
    filings = files.manifest().expect(Manifest).filings
    log = desk.log.extract(run_id, desk.home.identity(), refs=filings)
    return files.evidence(files.federation(), log)


def collect_closing(
    site: Site, run: Mapping[str, Any], *, wait_s: float = 0, for_owners: bool = True
) -> dict[str, Any]:
    """Fetch what has come since the acknowledgement, sign the closing attestation when it can be, write the pack anew.

    Args:
        site: the recipient's site.
        run: what `close` returned.
        wait_s: how long to wait for deletions and countersignatures that are still missing.
        for_owners: whether to wait for the owners' countersignatures too, or for the deletions only.

    Returns:
        Which operators attest the deletion, who countersigned, what is open, where the pack is and whether it verifies.
    """
    desk = open_desk(site)
    deadline = time.monotonic() + wait_s
    while True:
        answer = collect(desk, str(run["run_id"]), write=False)
        done = not answer["open"] or (not for_owners and len(answer["erased"]) == answer["operators"])
        if done or time.monotonic() >= deadline:
            return collect(desk, str(run["run_id"]), ask=False)
        time.sleep(_PAUSE_S)


def collect(desk: Desk, run_id: str, *, ask: bool = True, write: bool = True) -> dict[str, Any]:
    """Do one round of `collect_closing`; operators that cannot be reached are asked in the next one."""
    files = desk.run(run_id)
    group = desk.report_of(files.manifest()).group
    if ask:
        _refresh(desk, run_id, group)
    evidence = own_evidence(desk, run_id)
    if evidence.closing is None:
        evidence = _sign(desk, evidence, group)
    folder = write_evidence(desk, run_id) if write else desk.home.evidence
    found = assess(evidence)
    closing = next(check for check in found.checks if check.name == "closing")
    return {
        "run_id": run_id,
        "evidence": str(folder),
        "erased": sorted({item.operator for item in evidence.of(Erased)}),
        "operators": len(evidence.operators),
        "countersigned": countersigned(evidence),
        "open": list(closing.problems),
        "verified": verify_pack(folder).ok if write else None,
    }


def _refresh(desk: Desk, run_id: str, group: str) -> None:
    files = desk.run(run_id)

    def one(client: ApiClient) -> None:
        data = client.evidence(run_id, limit=MAX_BUNDLE_BYTES)
        if read_bundle(data).run == run_id:
            files.save_bundle(client.operator, data)

    with desk.clients(group) as clients:
        clients.each(one)


def _sign(desk: Desk, evidence: RunEvidence, group: str) -> RunEvidence:
    """Sign closing attestation and countersignature once every operator has attested the deletion."""
    acks = evidence.notices.get("ack", ())
    payload = closing_payload(
        evidence.manifest,
        evidence.notices.get("statement", ()),
        acks[0] if acks else None,
        evidence.notices.get("erased", ()),
        evidence.operators,
    )
    if payload is None:
        return evidence
    files, key = desk.run(evidence.run), desk.home.identity()
    closing = files.save_own("closing", sign_closing(payload, key))
    outcome = Outcome(
        run=evidence.run,
        party=desk.home.id,
        closing=closing_digest(closing.payload),
        created_at=utc_text(desk.now),
    )
    signed = parse_notice(files.save_own("outcome", sign_notice(outcome, key).envelope).to_bytes())
    try:
        desk.hand_over(signed, group, run=evidence.run)
    except ComityError as error:
        if not error.transient:
            raise
    return own_evidence(desk, evidence.run)


def write_evidence(desk: Desk, run_id: str) -> Path:
    """Write the run's pack and return its folder: `<evidence>/<report>/<period>`, later releases `<period>-r<n>`.

    Runs that ended without a result have theirs under `<evidence>/<report>/ended/<period>-<run>`.

    Raises:
        EvidenceError: PACK_UNWRITABLE; PACK_OTHER_RUN if another committed run's pack stands there.
    """
    evidence = own_evidence(desk, run_id)
    close, report = evidence.close, evidence.plan.report
    root = desk.home.evidence / report
    name = close.period if close.edition == 1 else f"{close.period}-r{close.edition}"
    folder = root / name
    if evidence.outcome in {"REFUSED", "FAILED", "CANCELLED"}:
        folder = root / "ended" / f"{close.period}-{run_id[:12]}"
    before = _facts(folder)
    if before is not None and before.run != run_id:
        raise EvidenceError(
            "PACK_OTHER_RUN", "the evidence of another run stands in this folder", ids={"folder": str(folder)}
        )
    files = build_pack(
        evidence, desk.run(run_id).federation_files(), desk.home.identity(), previous=_previous(root, evidence)
    )
    write_pack(folder, files)
    return folder


def _previous(root: Path, evidence: RunEvidence) -> Facts | None:
    """Return the facts of the newest earlier period that has a pack; without its own comparison."""
    row = next(row for row in evidence.reading.calendar if row.key == evidence.close.period)
    earlier = [item for item in evidence.reading.calendar if item.start_date < row.start_date]
    for item in sorted(earlier, key=lambda item: item.start_date, reverse=True):
        facts = _facts(root / item.key)
        if facts is not None:
            return facts
    return None


def _facts(folder: Path) -> Facts | None:
    try:
        data = (folder / "facts.json").read_bytes()
        return decode(data, Facts, what="facts.json", limit_bytes=MAX_FILE_BYTES)
    except (OSError, ComityError):
        return None
