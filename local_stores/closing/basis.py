"""What the published figures rest on, from the run's signed material."""

from __future__ import annotations

from local_stores.publish.model import Basis, CalendarFacts, RateFact, Submission
from mpc_ops.evidence.material import RunEvidence
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.notices.model import CalendarRow, Filed, Reference, Reopen
from mpc_ops.plan.model import RegionGateNode, ScanNode

__all__ = ["basis_of"]


def basis_of(evidence: RunEvidence) -> tuple[DatasetContract, Basis]:
    """Return the data contract and the basis of a run: the same for the same run, without a clock."""
    close, plan, federation = evidence.close, evidence.plan, evidence.federation
    scan = plan.node(ScanNode)
    dataset = scan.dataset if isinstance(scan, ScanNode) else ""
    contract = federation.terms.datasets[dataset]
    row = next(row for row in evidence.reading.calendar if row.key == close.period)
    references = evidence.of(Reference)
    reference = references[0] if references else None
    reasons = [item.reason for item in evidence.of(Reopen)]
    recipient = federation.terms.recipients[close.recipient]
    return contract, Basis(
        run_id=evidence.run,
        plan_digest=plan.digest,
        plan_version=plan.version,
        recipient=recipient.organisation,
        closed_at=close.created_at,
        submissions=_submissions(evidence),
        calendar=CalendarFacts(row.start_date, row.end_date, row.zone, row.opens_at, row.cut_at, row.due_at),
        gate_units=contract.unit_label,
        gate_k=plan.gate.k,
        manifest=evidence.manifest.digest,
        rate_digest=close.reference,
        rates=()
        if reference is None
        else tuple(RateFact(rate.period, rate.currency, rate.avg_rate) for rate in reference.rates),
        rate_source="" if reference is None else reference.source,
        year_periods=_year(evidence.reading.calendar, row),
        edition_reason=reasons[0] if reasons else "",
        gate_at=plan.gate.where,
        gate_owners=plan.gate.min_owners if isinstance(plan.gate, RegionGateNode) else 1,
    )


def _year(calendar: list[CalendarRow], row: CalendarRow) -> tuple[str, ...]:
    """Periods of the same year up to `row`: keys are `2026-03` or `FY26-P07`, so the year stands before the dash."""
    year = row.key.partition("-")[0]
    upto = [item for item in calendar if item.key.partition("-")[0] == year and item.start_date <= row.start_date]
    return tuple(item.key for item in sorted(upto, key=lambda item: item.start_date))


def _submissions(evidence: RunEvidence) -> tuple[Submission, ...]:
    owners = evidence.federation.owners
    # The evidence speaks of ids, the controller of legal entities: here stand both.
    named = {name: owner.name if owner.name == name else f"{owner.name} ({name})" for name, owner in owners.items()}
    out = [_submission(named[name], owners[name].jurisdiction, filed) for name, filed in evidence.filings.items()]
    out += [Submission(named[name], owners[name].jurisdiction, "late") for name in evidence.close.late]
    out += [Submission(named[name], owners[name].jurisdiction, "excluded") for name in evidence.close.excluded]
    return tuple(out)


def _submission(owner: str, jurisdiction: str, filed: Filed) -> Submission:
    data = filed.kind_of == "data"
    return Submission(
        owner=owner,
        jurisdiction=jurisdiction,
        state="submitted" if data else "empty",
        submitted_at=filed.created_at,
        sign_offs=len({item.signer for item in filed.sign_offs}),
        tie_out=filed.tie_out if data else None,
        take=filed.take,
    )
