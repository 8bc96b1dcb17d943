"""The recipient's side of a group operator: which notices fit the present state, and what it may look at.

Answers hold ids, states and codes; never a value, and no row count.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from mpc_ops.errors import ComityError, ConfigError, StateError
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices import model
from mpc_ops.notices.signed import SignedNotice, parse_notice, run_id_of, utc_text
from mpc_ops.server.context import moment
from mpc_ops.server.notices import Source
from mpc_ops.server.operator import Operator
from mpc_ops.server.reports import Report
from mpc_ops.session import (
    RUN,
    EverythingErased,
    GroupCommitted,
    ManifestClosed,
    RegionCommitted,
    ResultPublished,
    RunCancelled,
    RunFailed,
    RunView,
    SessionState,
    Stall,
    Stalled,
)

__all__ = ["Submissions"]

_DEAD = ("FAILED", "REFUSED")


class Submissions:
    """What the recipient's API does, without HTTP."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._book = operator.book
        self._store = operator.store

    # ---------------------------------------------------------------------------------------------------- posting

    def put(self, digest: str, data: bytes, recipient: str) -> bool:
        """Take a notice; return whether it is new.

        Raises:
            ComityError: StateError says that it does not fit the present state, NotYet that something it rests on is
                still to arrive here; every other class that the notice is not acceptable at all.
        """
        signed = parse_notice(data)
        if signed.digest != digest:
            raise ConfigError("NOTICE_ALTERED", "the notice has another digest than the request names")
        if self._book.get(digest) is not None:
            return False
        context = self._operator.context
        with context.unit():
            self._check(signed)
            _, new = self._book.accept(data, Source("api", recipient))
        context.log("notice_posted", kind=signed.kind, notice=digest[:16], by=recipient)
        return new

    def _check(self, signed: SignedNotice) -> None:
        notice = signed.notice
        if isinstance(notice, model.Manifest):
            self._check_manifest(signed, notice)
        elif isinstance(notice, model.Reference):
            for other in self._book.find("reference", period=notice.period):
                if other.expect(model.Reference).version >= notice.version:
                    raise StateError(
                        "REFERENCE_OLDER", "this or a newer version of the reference data is here already",
                        ids={"period": notice.period},
                    )  # fmt: skip
        elif isinstance(notice, model.Reopen):
            self._check_reopen(notice)
        elif isinstance(notice, (model.Cancel, model.Ack, model.Outcome)):
            self._check_run(notice)

    def _check_manifest(self, signed: SignedNotice, manifest: model.Manifest) -> None:
        for other in self._book.find("manifest", plan=manifest.plan, period=manifest.period, edition=manifest.edition):
            run = run_id_of(other)
            if self.is_live(run):
                raise StateError(
                    "RUN_EXISTS", "a run of this period and edition is live or has a result", ids={"run": run},
                    hint="Fetch that run's result, or ask for a signed reopening to make another edition",
                )  # fmt: skip
        self._operator.admissions.check(run_id_of(signed), signed)

    def is_live(self, run: str) -> bool:
        """Return whether a run is on its way or has a result."""
        states = [state for state in self._operator.sessions.of_run(run) if state.kind == "group"]
        dead = any(state.phase in _DEAD or state.ended in _DEAD for state in states)
        return not dead and self.view(run).phase not in {"FAILED", "CANCELLED"}

    def _check_reopen(self, notice: model.Reopen) -> None:
        report = self._operator.reports.report(notice.plan)
        report.row(notice.period)
        edition = self.edition(notice.plan, notice.period)
        if notice.edition != edition + 1 or notice.recipient != report.recipient:
            raise StateError(
                "EDITION_WRONG", "not the next edition of this period",
                expected=f"edition {edition + 1}", got=f"edition {notice.edition}",
            )  # fmt: skip

    def _check_run(self, notice: model.Cancel | model.Ack | model.Outcome) -> None:
        ids = {"run": notice.run[:16]}
        if not self._book.find("manifest", run=notice.run):
            raise StateError("RUN_UNKNOWN", "no manifest of this run is here", ids=ids)
        view = self.view(notice.run)
        committed = view.phase in {"COMMITTED", "PUBLISHED", "ERASED", "SEALED"}
        if isinstance(notice, model.Cancel) and committed:
            raise StateError("RUN_COMMITTED", "a committed run can't be cancelled", ids=ids)
        if isinstance(notice, model.Ack) and not committed:
            raise StateError("RUN_NOT_COMMITTED", "there is no result to acknowledge", got=view.text, ids=ids)

    # ---------------------------------------------------------------------------------------------------- looking

    def require_recipient(self, recipient: str, *, run: str | None = None, plan: str | None = None) -> None:
        """Insist that a run or plan is this recipient's.

        Raises:
            ConfigError: RUN_UNKNOWN, PLAN_UNKNOWN, also for what belongs to another recipient: it learns nothing of it.
        """
        if run is not None and self._operator.admissions.manifest(run).recipient != recipient:
            raise ConfigError("RUN_UNKNOWN", "no manifest of this run has arrived here", ids={"run": run[:16]})
        if plan is not None and self._operator.reports.report(plan).recipient != recipient:
            raise ConfigError("PLAN_UNKNOWN", "no release of this plan has arrived here", ids={"plan": plan[:16]})

    def edition(self, plan: str, period: str) -> int:
        """Return the newest edition of a period."""
        reopened = [
            signed.expect(model.Reopen).edition for signed in self._book.find("reopen", plan=plan, period=period)
        ]
        return max([1, *reopened])

    def period(self, plan: str, period: str) -> dict[str, Any]:
        """Return who has filed, late, nil; state; edition.

        Raises:
            ConfigError: PLAN_UNKNOWN, PERIOD_UNKNOWN.
        """
        report = self._operator.reports.report(plan)
        row = report.row(period)
        edition = self.edition(plan, period)
        due_at = self._due_at(report, period, edition)
        run = self._run_of(plan, period, edition)
        reference = self._operator.reports.reference(period)
        return {
            "plan": plan,
            "period": period,
            "edition": edition,
            "opens_at": row.opens_at,
            "due_at": due_at,
            "overdue": self._operator.context.now > due_at,
            "state": "OPEN" if run is None else self.view(run).text,
            "run": run,
            "reference": None if reference is None else reference.digest,
            "owners": {owner: self._owner(report, period, edition, owner) for owner in self._operator.reports.owners(report)},
        }  # fmt: skip

    def _due_at(self, report: Report, period: str, edition: int) -> str:
        """A release that came after its period opened moves what is due by that delay, here as at the regions."""
        for signed in self._book.find("reopen", plan=report.digest, period=period, edition=edition):
            return signed.expect(model.Reopen).due_at
        row = report.row(period)
        first = self._store.value(
            "SELECT min(received_at) FROM notices WHERE kind = 'release' AND plan = ?", report.digest
        )
        delay = moment(str(first)) - moment(row.opens_at)
        return utc_text(moment(row.due_at) + (delay if delay > timedelta(minutes=1) else timedelta()))

    def _owner(self, report: Report, period: str, edition: int, owner: str) -> dict[str, Any]:
        filed = self._book.find("filed", plan=report.digest, period=period, edition=edition, about=owner)
        if not filed:
            return {
                "state": "EXPECTED",
                "filing": None,
                "take": 0,
                "nil": False,
                "receipts": [],
                "code": None,
                "pair": [],
            }
        newest = max(filed, key=lambda signed: signed.expect(model.Filed).take)
        content = newest.expect(model.Filed)
        operators = self._operator.context.federation.operators_of(owner)
        receipts = {r.expect(model.Receipt).operator for r in self._book.find("receipt", about=newest.digest)}
        refused = [r.expect(model.Rejected) for r in self._book.find("rejected", about=newest.digest)]
        refused = [item for item in refused if item.operator in operators and item.operator not in receipts]
        agreed = set(operators) <= receipts
        disputed = next((item for item in refused if item.pair), None)
        code = (disputed or refused[0]).code if refused and not agreed else None
        state = "AGREED" if agreed else "DISPUTED" if disputed else "REJECTED" if refused else "RECEIVED"
        if self._withdrew(report.digest, owner, content.created_at):
            state, code, disputed = "WITHDRAWN", None, None
        return {
            "state": state,
            "filing": newest.digest,
            "take": content.take,
            "nil": content.kind_of == "nil",
            "receipts": sorted(receipts & set(operators)),
            "code": code,
            "pair": list(disputed.pair) if disputed and not agreed else [],
        }

    def _withdrew(self, plan: str, owner: str, filed_at: str) -> bool:
        """Whether an owner took its approval back after it filed, or before and gave no new one."""
        found = self._book.find("withdrawal", plan=plan, about=owner)
        withdrawn = max((signed.expect(model.Withdrawal).created_at for signed in found), default="")
        found = self._book.find("approval", plan=plan, about=owner) if withdrawn else []
        approved = max((signed.expect(model.Approval).created_at for signed in found), default="")
        return bool(withdrawn) and (withdrawn >= filed_at or withdrawn >= approved)

    def _run_of(self, plan: str, period: str, edition: int) -> str | None:
        runs = [run_id_of(signed) for signed in self._book.find("manifest", plan=plan, period=period, edition=edition)]
        live = [run for run in runs if self.is_live(run)]
        return live[-1] if live else runs[-1] if runs else None

    def run(self, run: str) -> dict[str, Any]:
        """Return session states, attempt, last code, blamed pair; raise ConfigError RUN_UNKNOWN."""
        manifest = self._operator.admissions.manifest(run)
        view = self.view(run)
        sessions: dict[str, dict[str, Any]] = {}
        for signed in self._book.find("state", run=run):
            state = signed.expect(model.State)
            sessions.setdefault(state.cluster, {})[state.operator] = {
                "state": state.state, "attempt": state.attempt, "code": state.code, "pair": state.pair,
            }  # fmt: skip
        for own in self._operator.sessions.of_run(run):
            sessions.setdefault(own.cluster, {})[self._operator.context.id] = {
                "state": own.phase, "attempt": own.attempt, "code": own.code or None, "pair": list(own.pair),
            }  # fmt: skip
        return {
            "run": run,
            "plan": manifest.plan,
            "period": manifest.period,
            "edition": manifest.edition,
            "state": view.text,
            "phase": view.phase,
            "code": view.code or None,
            "pair": list(view.pair),
            "regions": list(view.regions),
            "done": list(view.done),
            "stall": None if view.stall is None else {"party": view.stall.party, "code": view.stall.code, "since_ms": view.stall.since_ms},
            "sessions": sessions,
            "statements": sorted({s.expect(model.Statement).operator for s in self._book.find("statement", run=run)}),
        }  # fmt: skip

    def view(self, run: str) -> RunView:
        """Derive what users see of a run from the notices that are here."""
        admissions = self._operator.admissions
        view = RunView()
        try:
            found = admissions.look(run)
        except ComityError:
            view, _ = RUN.step(view, ManifestClosed(run, ()))
            return view
        view, _ = RUN.step(view, ManifestClosed(run, tuple(found.clusters)))
        for cluster in (*found.clusters, found.report.group):
            ended = admissions.ended(run, cluster)
            own = [s for s in self._operator.sessions.of_run(run) if s.cluster == cluster and s.phase in _DEAD]
            if ended is not None or own:
                code = (own[0].code if own else ended.code if ended else None) or "FAILED"
                pair = own[0].pair if own else tuple(ended.pair) if ended else ()
                return RUN.step(view, RunCancelled() if code == "CANCELLED" else RunFailed(code, tuple(pair)))[0]
        for cluster in found.clusters:
            states = admissions.states(run, cluster).values()
            if sum(state.state == "COMMITTED" for state in states) >= 2:
                view, _ = RUN.step(view, RegionCommitted(cluster))
        return self._after(view, run, found.report)

    def _after(self, view: RunView, run: str, report: Report) -> RunView:
        if self._operator.admissions.committed(run, report.digest):
            view, _ = RUN.step(view, GroupCommitted())
            if self._book.find("ack", run=run):
                view, _ = RUN.step(view, ResultPublished())
                erased = {signed.expect(model.Erased).operator for signed in self._book.find("erased", run=run)}
                clusters = (*view.regions, report.group)
                federation = self._operator.context.federation
                if {name for cluster in clusters for name in federation.cluster(cluster).operators} <= erased:
                    view, _ = RUN.step(view, EverythingErased())
            return view
        return self._stall(view, run)

    def _stall(self, view: RunView, run: str) -> RunView:
        """Name the party that the own session waits for."""
        for state in self._operator.sessions.of_run(run):
            waited = self._operator.sessions.stalled(state)
            if waited is None:
                continue
            party, code = self._waits_for(state)
            since = int((self._operator.context.utc().timestamp() - waited) * 1000)
            view, _ = RUN.step(view, Stalled(Stall(party, code, since)))
        return view

    def _waits_for(self, state: SessionState) -> tuple[str, str]:
        if state.phase == "IDLE":
            missing = self._operator.groups.missing(state.run_id)
            return (missing[0] if missing else self._operator.context.id), "CROSS_MISSING"
        prepared = {prepare.party for prepare in state.prepares if prepare.attempt >= state.attempt}
        heard = {accept.party for accept in state.accepts} if state.phase == "ACCEPTED" else prepared
        down = [peer for peer in state.peers if not self._operator.context.post.up(state.members[peer])]
        silent = down or [peer for peer in state.peers if peer not in heard] or list(state.peers)
        return state.members[silent[0]], "PEER_UNAVAILABLE" if down else "PEER_TIMEOUT"

    def result(self, run: str) -> bytes:
        """Return the sealed result part; raises what `GroupStages.part` raises."""
        return self._operator.groups.part(run)

    def evidence(self, run: str, recipient: str) -> bytes:
        """Return notices, attestations and ledger extracts of a run as far as they are here."""
        self._operator.admissions.manifest(run)
        data = self._operator.accounts.bundle(run)
        with self._operator.context.unit():
            self._operator.books.frame_sent(data, recipient, PayloadClass.EVIDENCE, run=run)
        return data
