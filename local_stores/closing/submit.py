"""What the recipient hands to the group operators outside a run: releases, reference data, reopening, cancelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from local_stores.closing.desk import Desk, open_desk
from local_stores.config.site import Site
from local_stores.errors import ConfigError, UsageError
from local_stores.receive.periods import merged_period
from mpc_ops.federation.loaded import read_file
from mpc_ops.ids import check_period
from mpc_ops.notices.model import Cancel, Manifest, Reference, Release, Reopen
from mpc_ops.notices.signed import SignedNotice, parse_notice, sign_notice, utc_text, verify_notice
from mpc_ops.plan.checks import read_plan
from mpc_ops.plan.model import CrossNode

__all__ = ["cancel", "publish_reference", "publish_release", "reopen"]


def _read(desk: Desk, path: Path) -> SignedNotice:
    return verify_notice(parse_notice(read_file(path, limit_bytes=1 << 20)), desk.federation)


def publish_release(site: Site, release_file: Path) -> dict[str, Any]:
    """Hand a signed release to the report's group operators, who pass it to every owner. Repeating it does nothing.

    Raises:
        ConfigError: NOTICE_KIND for another file. EvidenceError: SIGNATURE_INVALID. PolicyViolation: an operator's refusal.
    """
    desk = open_desk(site)
    signed = _read(desk, release_file)
    plan = read_plan(signed.expect(Release).plan.encode("utf-8"), desk.federation)
    cross = plan.node(CrossNode)
    group = cross.cluster if isinstance(cross, CrossNode) else ""
    answers = desk.hand_over(signed, group)
    return {
        "report": plan.report,
        "release": signed.digest,
        "plan": plan.digest,
        "operators": sorted(answers),
        "new": any(answers.values()),
    }


def publish_reference(site: Site, reference_file: Path) -> dict[str, Any]:
    """Hand an author's signed reference data of a period to all group operators. Repeating it does nothing.

    Raises:
        ConfigError: NOTICE_KIND. EvidenceError: SIGNATURE_INVALID. PolicyViolation: an operator's refusal.
    """
    desk = open_desk(site)
    signed = _read(desk, reference_file)
    reference = signed.expect(Reference)
    operators: set[str] = set()
    for name, cluster in desk.federation.terms.clusters.items():
        if cluster.kind == "group":
            operators |= set(desk.hand_over(signed, name))
    return {
        "period": reference.period,
        "version": reference.version,
        "reference": signed.digest,
        "operators": sorted(operators),
    }


def reopen(site: Site, report: str, period: str, *, reason: str, due_at: str) -> dict[str, Any]:
    """Open the next edition of a period; operators publish new keys, every owner that takes part submits again.

    Args:
        site: the recipient's site.
        report: name of the report.
        period: period key.
        reason: why the released figures are to be revised; it stands on the page.
        due_at: moment `YYYY-MM-DDTHH:MM:SSZ` by which submissions are due.

    Raises:
        StateError: an operator's 409. UsageError: REASON_MISSING.
    """
    if not reason.strip():
        raise UsageError("REASON_MISSING", "reopening a period needs a reason")
    desk = open_desk(site)
    found = desk.report(report, check_period(period))
    with desk.clients(found.group) as clients:
        status = merged_period(clients, found.plan.digest, period)
    notice = Reopen(
        plan=found.plan.digest,
        period=period,
        edition=status.edition + 1,
        recipient=desk.home.id,
        due_at=due_at,
        created_at=utc_text(desk.now),
        reason=reason.strip()[:300],
    )
    signed = sign_notice(notice, desk.home.identity())
    parse_notice(signed.envelope.to_bytes())  # the same check that the operators make
    desk.hand_over(signed, found.group)
    return {"report": report, "period": period, "edition": notice.edition, "reopen": signed.digest}


def cancel(site: Site, run: str, *, reason: str) -> dict[str, Any]:
    """Stop a run; has effect before it is committed only.

    Raises:
        ConfigError: RUN_UNKNOWN. StateError: an operator's 409 (committed already).
    """
    desk = open_desk(site)
    manifest = desk.run(run).manifest()
    if manifest.expect(Manifest).recipient != desk.home.id:
        raise ConfigError("RUN_FOREIGN", "the run was closed by another recipient", ids={"run": run[:12]})
    notice = Cancel(run=run, recipient=desk.home.id, created_at=utc_text(desk.now), reason=reason.strip()[:300])
    signed = sign_notice(notice, desk.home.identity())
    desk.hand_over(signed, desk.report_of(manifest).group, run=run)
    return {"run_id": run, "cancel": signed.digest}
