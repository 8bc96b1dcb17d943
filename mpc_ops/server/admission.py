"""Whether a manifest may run, decided by every operator for itself: no signature, no computation.

Everything that a manifest rests on is compared with what lies here: release, membership, directory, reference data,
filings, number of owners, the difference rule, every included owner's approval now, and the localisation rules for every
flow of the run. What may still be on its way (`NotYet`) is waited for; anything else refuses the run with a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from mpc_ops.errors import ComityError, NotYet, PolicyViolation, StateError
from mpc_ops.notices.model import Filed, Manifest, Reference, Reopen, State
from mpc_ops.notices.signed import SignedNotice, utc_text
from mpc_ops.plan.approvals import approval_state
from mpc_ops.plan.checks import check_plan
from mpc_ops.plan.crossings import check_crossings
from mpc_ops.plan.difference import EditionOwners, check_difference
from mpc_ops.plan.model import ScanNode
from mpc_ops.plan.rules import Decision, decide_flow
from mpc_ops.server.books import Books
from mpc_ops.server.context import Context, moment
from mpc_ops.server.notices import NoticeBook
from mpc_ops.server.reports import Report, Reports

__all__ = ["Admission", "Admissions"]


@dataclass(frozen=True)
class Admission:
    """A manifest that may run now.

    Attributes:
        filings: the `filed` notices by owner.
        clusters: region clusters that take part, with their owners.
        approvals: digests of the approvals that hold now.
    """

    run: str
    signed: SignedNotice
    manifest: Manifest
    report: Report
    filings: dict[str, SignedNotice]
    clusters: dict[str, list[str]]
    approvals: list[str]


class Admissions:
    """The checks; nothing here writes except `note`."""

    def __init__(self, context: Context, books: Books, book: NoticeBook, reports: Reports) -> None:
        self._context = context
        self._books = books
        self._book = book
        self._reports = reports

    def look(self, run: str, signed: SignedNotice | None = None) -> Admission:
        """Return what a manifest names, without asking whether it may run.

        Args:
            run: run id.
            signed: the manifest, where it is not stored yet.

        Raises:
            NotYet: PLAN_UNKNOWN, FILING_UNKNOWN while notices are on their way.
        """
        signed = signed or self._reports.manifest_of(run)[0]
        manifest = signed.expect(Manifest)
        if not self._reports.known(manifest.plan):
            raise NotYet("PLAN_UNKNOWN", "no release of the manifest's plan is here", ids={"run": run[:16]})
        report = self._reports.report(manifest.plan)
        filings = self._reports.filings(manifest)
        missing = [digest for digest in manifest.filings if self._book.get(digest) is None]
        if missing:
            raise NotYet(
                "FILING_UNKNOWN", "filings of the manifest are not known here",
                got=f"{len(missing)} of {len(manifest.filings)}", ids={"run": run[:16]},
            )  # fmt: skip
        clusters: dict[str, list[str]] = {}
        for owner in sorted(filings):
            if owner in self._context.federation.owners:
                clusters.setdefault(self._context.federation.region_of(owner)[1].cluster, []).append(owner)
        return Admission(run, signed, manifest, report, filings, clusters, [])

    def check(self, run: str, signed: SignedNotice | None = None) -> Admission:
        """Return the admission of a run, or say why it may not run; arguments as in `look`.

        Raises:
            NotYet: something that the manifest names may still arrive. ComityError: the run is refused with its code.
        """
        found = self.look(run, signed)
        check_plan(found.report.plan, self._context.federation)
        self._check_place(found)
        self._check_filings(found)
        self._check_owners(found)
        self._check_difference(found)
        approvals = self._approvals(found)
        check_crossings(
            found.report.plan, self._context.federation, now=self._context.utc(), owners=sorted(found.filings)
        )
        return Admission(run, found.signed, found.manifest, found.report, found.filings, found.clusters, approvals)

    def _check_place(self, found: Admission) -> None:
        manifest, report, federation = found.manifest, found.report, self._context.federation
        now = self._context.now
        ids = {"run": found.run[:16], "period": manifest.period}
        row = report.row(manifest.period)
        self._expect(
            manifest.recipient == report.recipient, "RECIPIENT_FOREIGN", "another recipient than the plan's", ids
        )
        self._expect(
            manifest.membership == federation.membership_digest, "MEMBERSHIP_CHANGED", "another membership list", ids
        )
        self._expect(manifest.directory == federation.directory_digest, "DIRECTORY_CHANGED", "another directory", ids)
        release = report.release
        self._expect(
            release.valid_from <= now < release.valid_to, "RELEASE_EXPIRED", "the release is not valid now", ids
        )
        self._expect(row.opens_at <= now, "PERIOD_NOT_OPEN", "the period is not open yet", ids)
        self._expect(now < manifest.give_up_at, "GIVEN_UP", "the moment to give up has passed", ids)
        latest = utc_text(moment(manifest.created_at) + timedelta(hours=report.plan.terms.give_up_hours, minutes=1))
        self._expect(
            manifest.give_up_at <= latest, "GIVE_UP_TOO_LATE", "the run would be tried longer than agreed", ids
        )
        if manifest.edition > 1:
            reopened = self._book.find("reopen", plan=manifest.plan, period=manifest.period, edition=manifest.edition)
            if not any(signed.expect(Reopen).recipient == manifest.recipient for signed in reopened):
                raise NotYet("EDITION_NOT_OPEN", "no signed reopening of this edition is here", ids=ids)

    @staticmethod
    def _expect(holds: object, code: str, what: str, ids: dict[str, str]) -> None:
        if not holds:
            raise StateError(code, f"the manifest is not acceptable: {what}", ids=ids)

    def _check_filings(self, found: Admission) -> None:
        manifest = found.manifest
        ids = {"run": found.run[:16], "period": manifest.period}
        owners = self._reports.owners(found.report)
        self._expect(
            len(found.filings) == len(set(manifest.filings)) == len(manifest.filings),
            "MANIFEST_INVALID", "it names one owner or filing twice, or something else than filings", ids,
        )  # fmt: skip
        for owner, signed in found.filings.items():
            filed = signed.expect(Filed)
            self._expect(
                (filed.plan, filed.period, filed.edition) == (manifest.plan, manifest.period, manifest.edition)
                and owner in owners,
                "FILING_FOREIGN", "it names a filing of another plan, period, edition or region", ids,
            )  # fmt: skip
            self._expect(
                filed.kind_of == "nil" or filed.reference == manifest.reference,
                "REFERENCE_CHANGED", f"{owner} filed with other reference data", ids,
            )  # fmt: skip
        if manifest.reference is not None:
            signed_reference = self._book.get(manifest.reference)
            if signed_reference is None:
                raise NotYet("REFERENCE_UNKNOWN", "the manifest's reference data is not here", ids=ids)
            self._expect(
                signed_reference.expect(Reference).period == manifest.period,
                "REFERENCE_FOREIGN", "it names reference data of another period", ids,
            )  # fmt: skip

    def _check_owners(self, found: Admission) -> None:
        manifest, terms = found.manifest, found.report.plan.terms
        ids = {"run": found.run[:16], "period": manifest.period}
        named = [*found.filings, *manifest.late, *manifest.excluded]
        self._expect(
            sorted(named) == self._reports.owners(found.report),
            "OWNERS_UNACCOUNTED", "every owner of the report must be in exactly one of filings, late and excluded", ids,
        )  # fmt: skip
        # Whoever is left out stands in the signed manifest: with `on_late = hold` that signature is the decision.
        # an owner with nothing to report hides nobody
        count = sum(signed.expect(Filed).kind_of == "data" for signed in found.filings.values())
        self._expect(
            count >= terms.min_owners,
            "TOO_FEW_OWNERS",
            f"{count} owners with figures, the terms ask for {terms.min_owners}",
            ids,
        )
        self._expect(
            count <= terms.max_owners, "TOO_MANY_OWNERS", f"{count} owners, proven for {terms.max_owners}", ids
        )

    def _check_difference(self, found: Admission) -> None:
        check_difference(
            self._edition(found.report, found.manifest),
            self._released(found),
            min_owners=found.report.plan.terms.min_owners,
        )

    def _edition(self, report: Report, manifest: Manifest) -> EditionOwners:
        filed = [signed.expect(Filed) for signed in self._reports.filings(manifest).values()]
        return EditionOwners(
            edition=manifest.edition,
            owners=frozenset(item.owner for item in filed if item.kind_of == "data"),
            accepts=frozenset(item.owner for item in filed if item.accepts_difference),
            report=report.plan.report,
        )

    def _released(self, found: Admission) -> list[EditionOwners]:
        """Editions of this period, of any report on the same dataset, whose result is out."""
        dataset = _dataset(found.report)
        out = []
        for signed in self._book.find("manifest", period=found.manifest.period):
            other = signed.expect(Manifest)
            run = self._context.store.value("SELECT run FROM notices WHERE digest = ?", signed.digest)
            if run == found.run or not self._reports.known(other.plan) or not self.committed(str(run), other.plan):
                continue
            report = self._reports.report(other.plan)
            if _dataset(report) == dataset:
                out.append(self._edition(report, other))
        return out

    def states(self, run: str, cluster: str) -> dict[str, State]:
        """Return the signed state of each operator of a cluster in a run."""
        members = self._context.federation.cluster(cluster).operators
        found = [signed.expect(State) for signed in self._book.find("state", run=run, cluster=cluster)]
        return {state.operator: state for state in found if state.operator in members}

    def committed(self, run: str, plan: str) -> bool:
        """Return whether two of the three group operators say that a run is COMMITTED."""
        states = self.states(run, self._reports.report(plan).group).values()
        return sum(state.state == "COMMITTED" for state in states) >= 2

    def ended(self, run: str, cluster: str) -> State | None:
        """Return a failure on which two of a cluster's three operators agree, so that one alone can't end a run."""
        bad = [state for state in self.states(run, cluster).values() if state.state != "COMMITTED"]
        # the reason that names a pair says most
        return max(bad, key=lambda state: (len(state.pair), state.operator)) if len(bad) >= 2 else None

    def manifest(self, run: str) -> Manifest:
        """Return the manifest of a run; raise ConfigError RUN_UNKNOWN."""
        return self._reports.manifest_of(run)[1]

    def expires_at(self, run: str) -> str:
        """Return when shares of a run are erased at the latest: give_up_at + ttl."""
        _, manifest = self._reports.manifest_of(run)
        days = self._reports.report(manifest.plan).plan.terms.ttl_days if self._reports.known(manifest.plan) else 0
        return utc_text(moment(manifest.give_up_at) + timedelta(days=days))

    def _approvals(self, found: Admission) -> list[str]:
        approvals = self._book.find("approval", plan=found.manifest.plan)
        withdrawals = self._book.find("withdrawal", plan=found.manifest.plan)
        digests = []
        for owner in sorted(found.filings):
            try:
                approved = approval_state(
                    self._context.federation,
                    found.report.plan,
                    approvals,
                    withdrawals,
                    owner,
                    now=self._context.utc(),
                    statement=found.report.release.statement,
                )
            except PolicyViolation as error:
                if error.code == "APPROVAL_MISSING":
                    raise NotYet(error.code, error.what, ids=error.ids, hint=error.hint) from None
                raise
            digests.append(str(approved.approval))
        return digests

    def decide(self, found: Admission, receiver: str) -> list[Decision]:
        """Decide the own data flow of a run to `receiver` now: the crossing of a region, the delivery of the group."""
        cross = found.report.cross
        delivery = receiver == found.report.recipient
        return decide_flow(
            found.report.plan,
            self._context.federation,
            sender=self._context.id,
            receiver=receiver,
            payload_class=found.report.deliver.payload_class if delivery else cross.payload_class,
            now=self._context.utc(),
            owners=len(found.filings),
        )

    def decide_gate(self, found: Admission, peer: str) -> list[Decision]:
        """Decide the frames of a Gate on shares to another operator of the own region cluster now."""
        return decide_flow(
            found.report.plan,
            self._context.federation,
            sender=self._context.id,
            receiver=peer,
            payload_class=found.report.gate.shared_class,
            now=self._context.utc(),
            owners=len(found.filings),
        )

    def note(self, found: Admission, decisions: list[Decision], receiver: str) -> None:
        """Put decisions into the ledger; inside a unit."""
        for decision in decisions:
            self._books.note(
                "rule_decision",
                once=f"rule/{found.run}/{receiver}/{decision.payload_class}/{decision.origin}/{decision.rule}/{decision.effect}",
                run=found.run,
                sender=self._context.id,
                receiver=receiver,
                payload_class=decision.payload_class,
                ref=f"{decision.origin}: {decision.rule}"[:300],
                decision=decision.effect,
            )

    def note_approvals(self, found: Admission) -> None:
        """Put the evaluated approvals into the ledger; inside a unit."""
        for digest in found.approvals:
            self._books.note(
                "approval_checked", once=f"approval/{found.run}/{digest}", run=found.run, ref=digest, decision="valid"
            )

    def note_denial(self, run: str, error: ComityError, receiver: str | None = None) -> None:
        """Put a refusal into the ledger; inside a unit."""
        self._books.note(
            "denied", once=f"denied/{run}/{error.code}/{receiver}", run=run,
            sender=self._context.id, receiver=receiver, ref=error.code, decision=error.what[:300],
        )  # fmt: skip


def _dataset(report: Report) -> str:
    return str(cast("ScanNode", report.plan.node(ScanNode)).dataset)
