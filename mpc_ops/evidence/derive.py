"""From a run's assessed evidence to its facts."""

from __future__ import annotations

from mpc_ops.evidence.checks import Assessment, valid_approvals
from mpc_ops.evidence.detail import checklist, flows, metadata, reach
from mpc_ops.evidence.facts import SOFTWARE, FactBook, Facts, compare
from mpc_ops.evidence.sections import crossed, holds_until, learns, not_claimed, people, protection, results, signatures
from mpc_ops.evidence.words import count
from mpc_ops.notices.model import State

__all__ = ["derive_facts"]


def derive_facts(found: Assessment, previous: Facts | None = None) -> Facts:
    """Return the facts of a run; `previous` are those of the report's last pack, to compare with."""
    evidence = found.evidence
    close, plan = evidence.close, evidence.plan
    ended = max([close.created_at, *(state.created_at for state in evidence.of(State))])
    book = FactBook(date=ended, system=f"signed logs of {count(len(evidence.ledgers), 'party', 'parties')}")
    _head(found, book)
    for section in (
        people, crossed, learns, results, protection, holds_until, not_claimed, signatures, flows, metadata, reach, checklist,
    ):  # fmt: skip
        section(found, book)
    facts = book.numbered()
    return Facts(
        software=SOFTWARE,
        report=plan.report,
        title=plan.title,
        purpose=plan.terms.basis,
        period=close.period,
        edition=close.edition,
        run=evidence.run,
        outcome=evidence.outcome,  # type: ignore[arg-type]
        started_at=close.created_at,
        ended_at=ended,
        facts=facts,
        previous=None if previous is None else previous.period,
        changes=[] if previous is None else compare(facts, previous.facts),
    )


def _head(found: Assessment, book: FactBook) -> None:
    evidence = found.evidence
    close, plan = evidence.close, evidence.plan
    book.add(
        "head",
        "run",
        f"{plan.title} ({plan.report}), period {close.period}, release {close.edition}, run {evidence.run[:12]}",
        source=f"submission close {evidence.manifest.digest[:12]}",
        by=f"result recipient {close.recipient}",
        date=close.created_at,
    )
    book.add(
        "head",
        "purpose",
        plan.terms.basis,
        state="declared",
        source=f"calculation plan {plan.digest[:12]}",
        by=f"author {evidence.reading.author}",
        date=evidence.reading.created_at,
        stable=plan.terms.basis,
    )
    valid = valid_approvals(evidence)
    owners = list(evidence.filings)
    approved = [owner for owner in owners if owner in valid]
    until = min((valid[owner].valid_to for owner in approved), default=None)
    book.add(
        "head",
        "approvals",
        f"calculation approved by {len(approved)} of {count(len(owners), 'data owner (entity)', 'data owners (entities)')}",
        source="data-owner approvals of this calculation",
        by=f"approvers of {', '.join(approved) or 'nobody'}",
        date=close.created_at,
        expires=until,
        stable=f"approved by {', '.join(approved)}; plan {plan.digest[:12]}",
    )
