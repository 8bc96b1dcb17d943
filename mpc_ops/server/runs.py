"""From a manifest to sessions, and what ends a run from outside: refusals, stops, acknowledgement, expiry.

What a manifest names may still be on its way when it arrives; it is waited for (`settle_s`), then the run is refused with
the code of what is missing.
"""

from __future__ import annotations

from collections.abc import Callable

from mpc_ops.errors import ComityError, NotYet
from mpc_ops.notices import model
from mpc_ops.notices.signed import SignedNotice
from mpc_ops.plan.rules import require_flow
from mpc_ops.server.admission import Admission
from mpc_ops.server.notices import Source
from mpc_ops.server.sessions import Sessions, fresh_nonce
from mpc_ops.server.stage_region import RegionStages
from mpc_ops.session import Expire, Ready, Refuse, SessionState, Stop, from_json

__all__ = ["Runs"]

_STOPPABLE = ("IDLE", "PREPARED", "ACCEPTED")


class Runs:
    """All runs that this operator has a manifest of; methods that write are called inside a unit."""

    def __init__(self, sessions: Sessions, regions: RegionStages) -> None:
        self._context = sessions.context
        self._book = sessions.book
        self._store = sessions.context.store
        self._admissions = sessions.admissions
        self._sessions = sessions
        self._regions = regions
        self._pending: dict[str, float] = {}
        self._short: set[str] = set()
        self.before_erasure: Callable[[str], None] = lambda _run: None
        """Called before what is acknowledged is erased."""
        sessions.book.subscribe(self._on_notice)

    def _now(self) -> float:
        return self._context.utc().timestamp()

    def _on_notice(self, signed: SignedNotice, _source: Source) -> None:
        notice = signed.notice
        if isinstance(notice, model.Manifest):
            run = str(self._store.value("SELECT run FROM notices WHERE digest = ?", signed.digest))
            self._pending[run] = self._now()
            self.consider(run)
        elif isinstance(notice, (model.Filed, model.Release, model.Approval, model.Receipt, model.Reference)):
            self._consider_pending()
        elif isinstance(notice, model.Cancel):
            self._stop_run(notice.run, "CANCELLED")
        elif isinstance(notice, model.Withdrawal):
            self._withdrawn(notice)
        elif isinstance(notice, model.State) and notice.state != "COMMITTED":
            self._cluster_ended(notice)
        elif isinstance(notice, model.Ack):
            self.acknowledged(notice.run)

    # --------------------------------------------------------------------------------------------------- starting

    def _consider_pending(self) -> None:
        for run in list(self._pending):
            if run not in self._short:
                self.consider(run)

    def consider(self, run: str) -> None:
        """Start the own sessions of a run if everything holds; wait, or refuse, if not."""
        if run not in self._pending:
            return
        try:
            found = self._admissions.look(run)
            clusters = sorted({*found.clusters, found.report.group} & set(self._context.clusters))
            for cluster in clusters:
                self._sessions.open(run, cluster, found.manifest.give_up_at)
            if run in self._short and not any(self._include(found, cluster) for cluster in clusters):
                return
            found = self._admissions.check(run)
            self._admissions.note_approvals(found)
            self._regions.omit(found)
            for cluster in clusters:
                if self._include(found, cluster):
                    self._ready(found, cluster)
            if not self._is_short(run):
                self._pending.pop(run, None)
        except NotYet as error:
            if self._now() - self._pending[run] > self._context.config.limits.settle_s:
                self._refuse(run, error)
        except ComityError as error:
            self._refuse(run, error)

    def inputs_changed(self, run: str) -> None:
        """An input of a group session arrived."""
        self.consider(run)

    def _is_short(self, run: str) -> bool:
        """Remember whether a group session still waits for crossings: only their arrival is worth another look."""
        short = any(state.phase == "IDLE" for state in self._sessions.of_run(run))
        (self._short.add if short else self._short.discard)(run)
        return short

    def _include(self, found: Admission, cluster: str) -> bool:
        """Bind the inputs of an IDLE session; return whether it can begin."""
        state = self._sessions.state(found.run, cluster)
        if state is None or state.phase != "IDLE":
            return False
        try:
            with self._context.part():
                self._sessions.stages[state.kind].include(found, cluster)
        except NotYet as error:
            if error.code != "CROSS_MISSING":
                raise
            return False
        return True

    def _ready(self, found: Admission, cluster: str) -> None:
        state = self._sessions.state(found.run, cluster)
        if state is None:
            return
        group = self._context.federation.cluster(found.report.group).operators
        receivers = {found.report.recipient} if state.kind == "group" else set(group) - {self._context.id}
        for receiver in sorted(receivers):
            self._admissions.note(found, self._admissions.decide(found, receiver), receiver)
        if state.kind == "region" and found.report.gate.where == "region":
            for peer in sorted(set(state.members) - {self._context.id}):
                decisions = self._admissions.decide_gate(found, peer)
                self._admissions.note(found, decisions, peer)
                require_flow(decisions, sender=self._context.id, receiver=peer)
        self._sessions.step(state, Ready(fresh_nonce()))

    def _refuse(self, run: str, error: ComityError) -> None:
        self._pending.pop(run, None)
        self._admissions.note_denial(run, error)
        self._context.log("run_refused", run=run[:16], code=error.code, why=error.what)
        if not self._sessions.of_run(run):
            # Where the filings are not known, nobody knows which regions take part: every own cluster speaks.
            for cluster in self._context.clusters:
                self._sessions.open(run, cluster, self._admissions.manifest(run).give_up_at)
        for state in self._sessions.of_run(run):
            if state.phase == "IDLE":
                self._sessions.step(state, Refuse(error.code))

    # --------------------------------------------------------------------------------------------------- stopping

    def _stop_run(self, run: str, code: str, pair: tuple[str, ...] = ()) -> None:
        self._pending.pop(run, None)
        for state in self._sessions.of_run(run):
            if state.phase in _STOPPABLE:
                self._sessions.try_step(state, Stop(code, pair))

    def _withdrawn(self, notice: model.Withdrawal) -> None:
        for run in {state.run_id for state in self._sessions.live()}:
            try:
                found = self._admissions.look(run)
            except ComityError:
                continue  # it is looked at again before it starts
            if found.manifest.plan == notice.plan and notice.owner in found.filings:
                self._stop_run(run, "WITHDRAWN")

    def _cluster_ended(self, notice: model.State) -> None:
        """Two operators of another cluster of the run say that it ended: this cluster can't finish."""
        ended = self._admissions.ended(notice.run, notice.cluster)
        if ended is None:
            return
        kind = self._context.federation.cluster(notice.cluster).kind
        code = "CANCELLED" if ended.code == "CANCELLED" else f"{kind.upper()}_FAILED"
        self._pending.pop(notice.run, None)
        for state in self._sessions.of_run(notice.run):
            if state.cluster == notice.cluster:
                continue
            if state.phase in _STOPPABLE:
                self._sessions.try_step(state, Stop(code, tuple(ended.pair[:2])))
            elif state.phase == "COMMITTED" and kind == "group":
                # The region is done, the run is not: its crossings are worthless.
                self._sessions.stages[state.kind].drop(state)
                for hook in self._sessions.hooks:
                    hook.ended(state)
        if kind == "group":
            self._regions.end_filings(notice.run, committed=False)

    # ----------------------------------------------------------------------------------------------------- ending

    def acknowledged(self, run: str) -> None:
        """The recipient has published: erase what is COMMITTED."""
        if not self._book.find("ack", run=run):
            return
        self.before_erasure(run)
        for state in self._sessions.of_run(run):
            if state.phase == "COMMITTED":
                self._sessions.try_step(state, Expire())
        if not self._sessions.of_run(run):
            self._regions.end_filings(run, committed=True)

    def committed(self, state: SessionState) -> None:
        """`RunHooks`: an acknowledgement may have come before the last ACCEPT."""
        self.acknowledged(state.run_id)

    def ended(self, state: SessionState) -> None:
        """`RunHooks`."""

    def erased(self, state: SessionState) -> None:
        """`RunHooks`."""

    def tick(self) -> None:
        """Look again at what waits; give up and expire what is over."""
        self._consider_pending()
        now = self._context.now
        for (data,) in self._store.rows(
            "SELECT state FROM sessions WHERE phase IN ('IDLE', 'PREPARED', 'ACCEPTED') AND give_up_at <= ?", now
        ):
            state = from_json(SessionState, data)
            if "GIVEN_UP" not in state.noted:
                self._pending.pop(state.run_id, None)
                self._sessions.try_step(state, Stop("GIVEN_UP"))
        for (data,) in self._store.rows(
            "SELECT state FROM sessions WHERE phase IN ('COMMITTED', 'ACCEPTED', 'FAILED', 'REFUSED') AND give_up_at < ?",
            now,
        ):
            state = from_json(SessionState, data)
            if self._admissions.expires_at(state.run_id) <= now:
                self._sessions.try_step(state, Expire())

    def restore(self) -> None:
        """At start-up: look again at manifests whose sessions have not begun, and at what was acknowledged meanwhile."""
        now = self._context.now
        for signed in self._book.find("manifest"):
            run = str(self._store.value("SELECT run FROM notices WHERE digest = ?", signed.digest))
            states = self._sessions.of_run(run)
            live = signed.expect(model.Manifest).give_up_at > now
            if live and (not states or any(state.phase == "IDLE" for state in states)):
                self._pending[run] = self._now()
                self.consider(run)
            if any(state.phase == "COMMITTED" for state in states):
                self.acknowledged(run)
