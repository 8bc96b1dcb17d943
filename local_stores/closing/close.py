"""The submission close: who has submitted, who is missing, and the signed manifest that starts the run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from local_stores.closing.desk import Desk, Report, open_desk
from local_stores.config.site import Site
from local_stores.errors import ComityError, NotYet, PolicyViolation, UsageError
from local_stores.receive.client import GroupClients
from local_stores.receive.periods import merged_period, run_answers
from local_stores.receive.runs import live_manifest, refuse_manifest, save_manifest
from mpc_ops.evidence.status import PeriodStatus
from mpc_ops.ids import check_period
from mpc_ops.notices.model import Manifest
from mpc_ops.notices.signed import SignedNotice, run_id_of, sign_notice, utc_text
from mpc_ops.plan.layout import measures

__all__ = ["close", "filings_ready", "period_status"]

_ENDED = frozenset({"FAILED", "CANCELLED"})
_MAJORITY = 2


@dataclass(frozen=True)
class _Count:
    """Owners of a period by what can be done with them."""

    ready: dict[str, str]
    missing: dict[str, str]
    disputed: dict[str, str]

    @classmethod
    def of(cls, owners: Collection[str], status: PeriodStatus) -> _Count:
        ready, missing, disputed = {}, {}, {}
        for name in owners:
            owner = status.owners.get(name)
            if owner is not None and owner.state == "AGREED" and owner.filing is not None:
                ready[name] = owner.filing
            elif owner is not None and owner.state == "DISPUTED":
                disputed[name] = owner.code or "DISPUTED"
            else:
                missing[name] = "EXPECTED" if owner is None else owner.code or owner.state
        return cls(ready, missing, disputed)

    def words(self) -> str:
        """Who is missing and why."""
        return ", ".join(f"{name} ({why})" for name, why in sorted({**self.missing, **self.disputed}.items()))


def period_status(site: Site, report: str, period: str) -> dict[str, Any]:
    """Return what the operators together know about a period: JSON for people and the command line."""
    desk = open_desk(site)
    found = desk.report(report, check_period(period))
    with desk.clients(found.group) as clients:
        status = merged_period(clients, found.plan.digest, period)
    owners = {
        name: {"state": "EXPECTED"}
        if name not in status.owners
        else {
            "state": status.owners[name].state,
            "nil": status.owners[name].nil,
            "take": status.owners[name].take,
            "code": status.owners[name].code,
            "blamed": list(status.owners[name].pair),
        }
        for name in desk.owners(found)
    }
    return {
        "report": report,
        "period": period,
        "edition": status.edition,
        "state": status.state,
        "opens_at": status.opens_at,
        "due_at": status.due_at,
        "run_id": status.run,
        "owners": owners,
    }


def filings_ready(site: Site, report: str, period: str) -> dict[str, Any] | None:
    """Return the submissions of a period once it can be closed, None before.

    It can be closed when every owner has submitted (or said that it has nothing), or when it was closed already; and,
    where the terms say `on_late = release_without`, when it is due and enough owners have submitted.

    Raises:
        NotYet: CLOSE_HELD after due_at while the terms hold the close: it says who is missing; a person may decide with
            `comity group close --without OWNER`. Disputed submissions hold every close.
    """
    desk = open_desk(site)
    found = desk.report(report, check_period(period))
    with desk.clients(found.group) as clients:
        status = merged_period(clients, found.plan.digest, period)
        manifest = live_manifest(site.state, found.plan.digest, period, status.edition)
        closed = manifest is not None and not _has_ended(clients, run_id_of(manifest))
    answer: dict[str, Any] = {"report": report, "period": period, "edition": status.edition}
    if closed and manifest is not None:
        notice = manifest.expect(Manifest)
        return {**answer, "submitted": len(notice.filings), "late": list(notice.late), "closed": True}
    count = _Count.of(desk.owners(found), status)
    if not count.missing and not count.disputed:
        return {**answer, "submitted": len(count.ready), "late": [], "closed": False}
    if not status.overdue:
        return None
    enough = len(count.ready) >= found.plan.terms.min_owners
    if found.plan.terms.on_late == "release_without" and enough and not count.disputed:
        return {**answer, "submitted": len(count.ready), "late": sorted(count.missing), "closed": False}
    raise NotYet(
        "CLOSE_HELD",
        f"the submission close waits for {count.words()}",
        got=f"{len(count.ready)} of {len(desk.owners(found))} submitted, due at {status.due_at}",
        ids={"report": report, "period": period, "edition": status.edition},
        hint="They submit, or a person decides: comity group close --without OWNER (late) or --exclude OWNER (disputed)",
    )


def _has_ended(clients: GroupClients, run: str) -> bool:
    """Whether a run ended without a result: two operators say so, since one alone may be wrong or dishonest."""
    answers, _ = run_answers(clients, run)
    return sum(answer.phase in _ENDED for answer in answers.values()) >= _MAJORITY


def close(
    site: Site, report: str, period: str, *, without: Collection[str] = (), exclude: Collection[str] = ()
) -> dict[str, Any]:
    """Sign the manifest of a period and hand it to the operators: the run starts with it.

    Repeating it posts the live manifest again, unchanged. After a run that failed, was refused or cancelled, and where no
    operator took the manifest, a new one is signed over what is submitted now.

    Args:
        site: the recipient's site.
        report: name of the report.
        period: period key.
        without: owners to leave out as late; a decision of a person where the terms hold the close.
        exclude: owners whose disputed submission is left out.

    Raises:
        NotYet: CLOSE_HELD: submissions are missing. StateError: RUN_EXISTS and other codes of an operator's 409.
        PolicyViolation: MIN_OWNERS, and an operator's 422 such as MANIFEST_DIFFERENCE.
        UsageError: OWNER_UNKNOWN for names that are no owners of the report or have submitted.
    """
    desk = open_desk(site)
    found = desk.report(report, check_period(period))
    with desk.clients(found.group) as clients:
        status = merged_period(clients, found.plan.digest, period)
        manifest = live_manifest(site.state, found.plan.digest, period, status.edition)
        if manifest is not None and _has_ended(clients, run_id_of(manifest)):
            manifest = None
    if manifest is None:
        notice = _manifest(desk, found, status, without=set(without), exclude=set(exclude))
        manifest = save_manifest(site.state, sign_notice(notice, desk.home.identity()), site.federation_dir)
    run = run_id_of(manifest)
    desk.log.state(run, "CLOSED")
    try:
        desk.hand_over(manifest, found.group, run=run)
    except ComityError as error:
        if not error.transient and _nobody_has(desk, found, run):
            refuse_manifest(site.state, manifest, error.code)
        raise
    return _closed(report, manifest, run)


def _nobody_has(desk: Desk, found: Report, run: str) -> bool:
    """Whether every operator says that it has no manifest of a run."""
    with desk.clients(found.group) as clients:
        answers, errors = run_answers(clients, run)
    return not answers and all(error.code == "RUN_UNKNOWN" for error in errors.values())


def _closed(report: str, manifest: SignedNotice, run: str) -> dict[str, Any]:
    notice = manifest.expect(Manifest)
    return {
        "run_id": run,
        "report": report,
        "period": notice.period,
        "edition": notice.edition,
        "manifest": manifest.digest,
        "submitted": len(notice.filings),
        "late": list(notice.late),
        "excluded": list(notice.excluded),
    }


def _manifest(desk: Desk, found: Report, status: PeriodStatus, *, without: set[str], exclude: set[str]) -> Manifest:
    terms, ids = found.plan.terms, {"report": found.plan.report, "period": status.period}
    count = _Count.of(desk.owners(found), status)
    unknown = sorted(without - set(count.missing)) + sorted(exclude - set(count.disputed))
    if unknown:
        raise UsageError(
            "OWNER_UNKNOWN",
            f"{', '.join(unknown)}: not an owner that is late (--without) or disputed (--exclude)",
            expected=count.words() or "nobody is missing",
            ids=ids,
        )
    released = found.plan.terms.on_late == "release_without" and status.overdue
    late = without | (set(count.missing) if released else set())
    held = _Count({}, {n: w for n, w in count.missing.items() if n not in late},
                  {n: w for n, w in count.disputed.items() if n not in exclude})  # fmt: skip
    if held.missing or held.disputed:
        raise NotYet("CLOSE_HELD", f"the submission close waits for {held.words()}", ids=ids)
    if len(count.ready) < terms.min_owners:
        raise PolicyViolation(
            "MIN_OWNERS", "too few data owners have submitted", expected=f"at least {terms.min_owners}",
            got=len(count.ready), ids=ids,
        )  # fmt: skip
    translated = any(measure.translate for measure in measures(found.plan))
    federation = desk.federation
    return Manifest(
        plan=found.plan.digest,
        period=status.period,
        edition=status.edition,
        recipient=desk.home.id,
        membership=_digest(federation.membership_digest),
        directory=federation.directory_digest,
        reference=status.reference if translated else None,
        filings=sorted(count.ready.values()),
        late=sorted(late),
        excluded=sorted(exclude),
        created_at=utc_text(desk.now),
        give_up_at=utc_text(desk.now + timedelta(hours=terms.give_up_hours)),
    )


def _digest(value: str | None) -> str:
    if value is None:
        raise PolicyViolation("MEMBERSHIP_MISSING", "the federation has no membership list")
    return value
