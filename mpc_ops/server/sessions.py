"""The driver of the session machine: one run at each cluster that this operator sits in.

Follows mpc_ops.session's driver protocol. The stored state is the truth; what is kept in memory (the attempt of each live
session, timers) may be lost at any moment. What a kind of cluster computes and hands on stands in `stages`; where it is
computed, in `computing`: by default at once, in the operator's process in threads. A result is looked at with the state that
is stored when it comes back; that of an attempt which was dropped meanwhile is ignored.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, cast

from mpc_ops.engine import Attempt, AttemptContext, AttemptDone, LinkTotals, Outgoing, Stage, StageOutput
from mpc_ops.errors import ComityError, LocalProtocolError, PeerProtocolError, StateError, TransportError
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices import model
from mpc_ops.notices.signed import SignedNotice
from mpc_ops.server.admission import Admission, Admissions
from mpc_ops.server.books import Books
from mpc_ops.server.computing import Computed, Computing, Inline, Worker
from mpc_ops.server.context import Context
from mpc_ops.server.disputes import Disputes
from mpc_ops.server.notices import NoticeBook
from mpc_ops.server.sync import LedgerHead, encode_sync
from mpc_ops.session import (
    MAX_MESSAGE_BYTES,
    SESSION,
    Accept,
    Announce,
    Ask,
    BeginAttempt,
    CheckFailed,
    Committed,
    DropAttempt,
    EraseSession,
    Frame,
    KexConfirm,
    KexOffer,
    KexReply,
    Message,
    Prepare,
    Proven,
    Release,
    Retry,
    Seen,
    Send,
    SessionAction,
    SessionEvent,
    SessionState,
    StartWork,
    decode_message,
    encode_message,
    event_of,
    from_json,
    new_session,
    to_json,
)
from mpc_ops.transport.wire import Kind

__all__ = ["RunHooks", "Sessions", "Stages", "fresh_nonce"]

_LIVE = ("IDLE", "PREPARED", "ACCEPTED", "COMMITTED")
_WORKING = ("PREPARED", "ACCEPTED")
_EARLY_SESSIONS = 1000
_EARLY_MESSAGES = 8
_CLASS: dict[type, PayloadClass] = {
    Prepare: PayloadClass.KEY_MATERIAL,
    KexOffer: PayloadClass.KEY_MATERIAL,
    KexReply: PayloadClass.KEY_MATERIAL,
    KexConfirm: PayloadClass.KEY_MATERIAL,
    Accept: PayloadClass.MAC_OR_COMMITMENT,
}
_COUNTED = (Frame, Seen)
"""Frames are counted by the attempt and noted when it ends; confirmations belong to the link, as its keep-alives do."""
_PASSIVE = "the report's terms say security = passive: a dishonest operator of this cluster is NOT noticed"
_Key: TypeAlias = tuple[str, str]


def fresh_nonce() -> str:
    """Return 32 fresh random bytes in hex."""
    return secrets.token_hex(32)


class Stages(Protocol):
    """What one kind of cluster (region or group) computes and hands on. Called inside a unit."""

    def include(self, found: Admission, cluster: str) -> None:
        """Bind the inputs to the run.

        Raises:
            NotYet: an input is still to come. ComityError: the run is refused with its code.
        """

    def stage(self, found: Admission, state: SessionState) -> Stage:
        """Read the inputs of the present attempt and return its program, which a thread will run.

        The program must use nothing of this process but its inputs.
        """

    def frame_class(self, found: Admission) -> PayloadClass:
        """Return the payload class of the stage's frames between the operators of the cluster."""

    def keep(self, found: Admission, state: SessionState, output: StageOutput) -> None:
        """Make outputs durable, sealed and unsent, before ACCEPTED."""

    def release(self, state: SessionState) -> None:
        """COMMITTED: hand out what `keep` stored and is not confirmed yet; idempotent."""

    def drop(self, state: SessionState) -> None:
        """Delete stored outputs that were not released."""

    def erase(self, state: SessionState) -> None:
        """Delete inputs and outputs of the session; idempotent."""


class RunHooks(Protocol):
    """Who wants to know what happened to a session (filings, evidence). Called inside a unit."""

    def committed(self, state: SessionState) -> None:
        """The session is COMMITTED here."""

    def ended(self, state: SessionState) -> None:
        """The session FAILED or was REFUSED here."""

    def erased(self, state: SessionState) -> None:
        """The session's shares are erased here."""


@dataclass
class _Timer:
    """In-memory pace of one session: when it last moved, when it asks next, since when it is in its phase."""

    moved: float
    ask: float
    pause: float
    since: float


@dataclass
class _Active:
    """A live attempt in memory: what computes it, and what is known of it so far."""

    attempt: Attempt
    worker: Worker
    frame_class: PayloadClass = PayloadClass.MAC_OR_COMMITMENT
    progress: int = 0
    totals: tuple[LinkTotals, ...] = field(default=())


class Sessions:
    """All sessions of this operator; every public method that changes something is called inside a unit."""

    def __init__(self, context: Context, books: Books, book: NoticeBook, admissions: Admissions) -> None:
        self.context = self._context = context
        self.books = self._books = books
        self.book = self._book = book
        self.admissions = admissions
        self._store = context.store
        self.disputes = Disputes(context, books, book)
        self.stages: dict[str, Stages] = {}
        self.hooks: list[RunHooks] = []
        self.computing: Computing = Inline()
        self._active: dict[_Key, _Active] = {}
        self._timers: dict[_Key, _Timer] = {}
        self._early: OrderedDict[_Key, list[tuple[str, Message]]] = OrderedDict()
        self._blocked: set[_Key] = set()

    def _now(self) -> float:
        return self._context.utc().timestamp()

    def open(self, run: str, cluster: str, give_up_at: str) -> None:
        """Create the IDLE session of a run at an own cluster, if there is none, and take what came early for it."""
        if self.state(run, cluster) is not None:
            return
        terms = self._context.federation.cluster(cluster)
        members = (terms.operators[0], terms.operators[1], terms.operators[2])
        self._save(new_session(run, cluster, terms.kind, members, self._context.clusters[cluster]), give_up_at)
        for peer, message in self._early.pop((run, cluster), []):
            self._receive(run, cluster, peer, message)

    def _manifest(self, run: str) -> tuple[SignedNotice, model.Manifest]:
        (signed,) = self._book.find("manifest", run=run)[:1]
        return signed, signed.expect(model.Manifest)

    # --------------------------------------------------------------------------------------------------- messages

    def on_message(self, peer: str, data: bytes) -> None:
        """Take a session message from a peer."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise PeerProtocolError("MESSAGE_INVALID", "a session message is too long", ids={"party": peer})
        message = decode_message(data)
        cluster = self._context.federation.terms.clusters.get(message.cluster)
        if cluster is None or peer not in cluster.operators or message.cluster not in self._context.clusters:
            raise PeerProtocolError("SESSION_FOREIGN", "a message of another cluster", ids={"party": peer})
        if self.state(message.run_id, message.cluster) is None:
            self._hold(peer, message)
            return
        self._receive(message.run_id, message.cluster, peer, message)

    def _hold(self, peer: str, message: Message) -> None:
        """The manifest may be a moment behind a peer's first message; frames cannot come before our own keys."""
        if isinstance(message, _COUNTED):
            return
        waiting = self._early.setdefault((message.run_id, message.cluster), [])
        if len(waiting) < _EARLY_MESSAGES * 2:
            waiting.append((peer, message))
        while len(self._early) > _EARLY_SESSIONS:
            self._early.popitem(last=False)

    def _receive(self, run: str, cluster: str, peer: str, message: Message) -> None:
        state = self.state(run, cluster)
        if state is None or (run, cluster) in self._blocked:
            return
        size = 0
        if isinstance(message, Frame):
            size = len(message.ciphertext)
        elif not isinstance(message, Seen):
            kind = _CLASS.get(type(message), PayloadClass.CONTROL_METADATA)
            self._books.frame_received(
                encode_message(message), peer, kind, run=run, cluster=cluster, attempt=message.attempt
            )
        party = state.members.index(peer)
        event = event_of(message, party, fresh_nonce())
        if event is not None:
            self._mark(peer, message)
            self.try_step(state, event)
            return
        active = self._active.get((run, cluster))
        if active is None or state.phase not in _WORKING or message.attempt != state.attempt:
            return
        attempt = active.attempt
        if attempt.context.attempt == state.attempt:
            active.worker.submit(lambda: attempt.receive(party, message), peer=peer, size=size)

    def _mark(self, peer: str, message: Message) -> None:
        """Remember how far a peer has come, so that a restored disk of it is noticed."""
        if not isinstance(message, (Prepare, Accept, Committed)):
            return
        prepared = message.attempt
        accepted = message.attempt if isinstance(message, (Accept, Committed)) else 0
        self._store.write(
            "INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " prepared = max(prepared, excluded.prepared), accepted = max(accepted, excluded.accepted),"
            " committed = max(committed, excluded.committed)",
            peer, message.run_id, message.cluster, prepared, accepted, int(isinstance(message, Committed)),
        )  # fmt: skip

    def _begin(self, state: SessionState) -> None:
        key = (state.run_id, state.cluster)
        self._forget(key)
        attempt = Attempt(self._attempt_context(state), self._context.identity)
        worker = self.computing.worker(attempt, lambda computed: self._computed(key, attempt, computed))
        self._active[key] = _Active(attempt, worker)
        if attempt.context.security == "passive":
            self._context.log("security_passive", why=_PASSIVE, **state.ids())
            self._books.note(
                "state", once=f"passive/{state.run_id}/{state.cluster}", run=state.run_id, cluster=state.cluster,
                attempt=state.attempt, ref="SECURITY_PASSIVE", decision=_PASSIVE,
            )  # fmt: skip

    def _computed(self, key: _Key, attempt: Attempt, computed: Computed) -> None:
        """Take what an attempt computed: send it, and step the machine when it is done or a check failed."""
        self._take(key, attempt, computed)
        state = self.state(*key)
        if computed.dispute is not None and state is not None:
            self.disputes.hold(state, computed.dispute)

    def _take(self, key: _Key, attempt: Attempt, computed: Computed) -> None:
        active, state = self._active.get(key), self.state(*key)
        if active is None or active.attempt is not attempt or state is None:
            return
        if state.phase not in _WORKING or state.attempt != attempt.context.attempt:
            return
        active.totals = computed.totals
        if computed.progress > active.progress:
            # Peers repeat themselves while they wait: only what is new counts as progress (see `tick`).
            active.progress = computed.progress
            self._touch(key)
        self._send_all(state, computed.outgoing)
        if computed.error is not None:
            self._failed(state, attempt, computed.error)
        elif computed.done is not None and state.phase == "PREPARED":
            self._prove(state, active, computed.done)

    def _failed(self, state: SessionState, attempt: Attempt, error: ComityError) -> None:
        if isinstance(error, TransportError):
            self._context.log("attempt_lost", code=error.code, why=error.what, **state.ids())
            self.try_step(state, Retry(fresh_nonce()))
            return
        self._context.log("check_failed", code=error.code, why=error.what, **state.ids())
        self.try_step(state, CheckFailed(attempt.context.attempt, error.code, self._named(state, attempt, error)))

    def _forget(self, key: _Key, code: str = "") -> None:
        """The attempt in memory is over: note its frames, let its keys and shares go; `code` says why it failed."""
        active = self._active.pop(key, None)
        if active is not None:
            self._note_frames(active)
            if code == "PROOF_REJECTED":
                active.worker.settle()
            else:
                active.worker.stop()

    def _note_frames(self, active: _Active) -> None:
        context = active.attempt.context
        for totals in active.totals:
            self._books.stage_frames(
                totals, context.members[totals.party], active.frame_class, run=context.run_id,
                cluster=context.cluster, attempt=context.attempt,
            )  # fmt: skip

    def _named(self, state: SessionState, attempt: Attempt, error: ComityError) -> tuple[str, ...]:
        operators = self._context.federation.terms.operators
        pair = tuple(name for name in attempt.blamed(error) if name in operators)
        return pair or ((self._context.id,) if isinstance(error, LocalProtocolError) else state.pair)

    def _prove(self, state: SessionState, active: _Active, done: AttemptDone) -> None:
        try:
            found = self.admissions.look(state.run_id)
            with self._context.part():
                self._note_frames(active)
                self.stages[state.kind].keep(found, state, done.output)
                self.step(state, Proven(state.attempt, done.links))
        except ComityError as error:
            self.admissions.note_denial(state.run_id, error)
            self._context.log("check_failed", code=error.code, why=error.what, **state.ids())
            self.try_step(state, CheckFailed(state.attempt, error.code, ()))

    def _send_all(self, state: SessionState, outgoing: Outgoing) -> None:
        for to, message in outgoing:
            self._send(state, to, message)

    def _send(self, state: SessionState, to: int, message: Message) -> None:
        peer = state.members[to]
        if not self._context.post.up(peer):
            return  # `Ask` repeats it when the link is up
        data = encode_message(message)
        if not isinstance(message, _COUNTED):
            kind = _CLASS.get(type(message), PayloadClass.CONTROL_METADATA)
            self._books.frame_sent(
                data, peer, kind, run=state.run_id, cluster=state.cluster, attempt=message.attempt
            )  # fmt: skip
        self._context.send(peer, Kind.SESSION, data)

    # ---------------------------------------------------------------------------------------------------- machine

    def state(self, run: str, cluster: str) -> SessionState | None:
        """Return a session's stored state, None if there is none."""
        data = self._store.value("SELECT state FROM sessions WHERE run = ? AND cluster = ?", run, cluster)
        return None if data is None else from_json(SessionState, data)

    def of_run(self, run: str) -> list[SessionState]:
        """Return the own sessions of a run."""
        rows = self._store.rows("SELECT state FROM sessions WHERE run = ?", run)
        return [from_json(SessionState, data) for (data,) in rows]

    def live(self) -> list[SessionState]:
        """Return sessions that are not over."""
        rows = self._store.rows(f"SELECT state FROM sessions WHERE phase IN ({','.join('?' * len(_LIVE))})", *_LIVE)  # noqa: S608 - question marks
        return [from_json(SessionState, data) for (data,) in rows]

    def _save(self, state: SessionState, give_up_at: str | None = None) -> None:
        now = self._context.now
        self._store.write(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " phase = excluded.phase, changed_at = excluded.changed_at, state = excluded.state",
            state.run_id, state.cluster, state.kind, state.phase, give_up_at or now, now, to_json(state),
        )  # fmt: skip

    def step(self, state: SessionState, event: SessionEvent) -> SessionState:
        """Step a session, store it and carry out the actions; raises what the table raises."""
        after, actions = SESSION.step(state, event)
        if after != state:
            self._save(after)
        if after.phase != state.phase or after.attempt != state.attempt:
            if after.phase != state.phase:
                self._timers.pop((state.run_id, state.cluster), None)
            self._touch((state.run_id, state.cluster))
            self._context.log("session", code=after.code or None, **after.ids())
        for action in actions:
            self._act(after, action)
        if after.phase != state.phase:
            self._entered(after, state.phase)
        return after

    def try_step(self, state: SessionState, event: SessionEvent) -> None:
        """Step a session with something that came from outside: a refusal is logged, and changes nothing."""
        try:
            with self._context.part():
                self.step(state, event)
        except (PeerProtocolError, LocalProtocolError) as error:
            if isinstance(error, LocalProtocolError):
                self._blocked.add((state.run_id, state.cluster))
            self.admissions.note_denial(state.run_id, error)
            self._context.log("session_event_refused", code=error.code, why=error.what, **error.ids)
        except StateError as error:
            self._context.log("session_event_refused", code=error.code, **state.ids())

    def _act(self, state: SessionState, action: SessionAction) -> None:
        key = (state.run_id, state.cluster)
        if isinstance(action, Send):
            self._send(state, action.to, action.message)
        elif isinstance(action, BeginAttempt):
            self.stages[state.kind].drop(state)
            self._begin(state)
        elif isinstance(action, StartWork):
            self._start(state, action)
        elif isinstance(action, DropAttempt):
            self._forget(key, state.code)
            self.stages[state.kind].drop(state)
        elif isinstance(action, Release):
            self.stages[state.kind].release(state)
        elif isinstance(action, Announce):
            self._announce(state, action)
        elif isinstance(action, EraseSession):
            self.stages[state.kind].erase(state)

    def _entered(self, state: SessionState, before: str) -> None:
        key = (state.run_id, state.cluster)
        self._books.note(
            "state", run=state.run_id, cluster=state.cluster, attempt=state.attempt,
            ref=state.code or state.phase,
        )  # fmt: skip
        if state.phase in {"ACCEPTED", "COMMITTED"}:
            self._countersign(state)
        if state.phase == "COMMITTED":
            self._forget(key)  # all three have accepted: nobody needs anything repeated
            for hook in self.hooks:
                hook.committed(state)
        elif state.phase in {"FAILED", "REFUSED"}:
            for hook in self.hooks:
                hook.ended(state)
        elif state.phase == "ERASED":
            for hook in self.hooks:
                hook.erased(state)
        if state.phase in {"FAILED", "REFUSED", "ERASED"} and before != state.phase:
            self._forget(key)
            self._timers.pop(key, None)

    def _countersign(self, state: SessionState) -> None:
        """Give both peers the own ledger head: they would notice if this disk were rolled back."""
        length, head = self._books.head()
        message = encode_sync(LedgerHead(length=length, head=head, run_id=state.run_id, cluster=state.cluster))
        for party in state.peers:
            self._context.send(state.members[party], Kind.SYNC, message)

    def _attempt_context(self, state: SessionState) -> AttemptContext:
        signed, manifest = self._manifest(state.run_id)
        federation = self._context.federation
        first, second, third = (federation.identity(name) for name in state.members)
        terms = self.admissions.look(state.run_id).report.plan.terms
        return AttemptContext(
            run_id=state.run_id,
            cluster=state.cluster,
            attempt=state.attempt,
            kind=state.kind,
            party=state.party,
            members=state.members,
            keys=(first, second, third),
            federation_digest=federation.digest,
            plan_digest=manifest.plan,
            period=manifest.period,
            manifest_digest=signed.digest,
            # Passive is a term of the country clusters' Gate; the group's stage is a sum, which is active as it is.
            security=terms.security if state.kind == "region" else "active",
        )

    def _start(self, state: SessionState, action: StartWork) -> None:
        active = self._active.get((state.run_id, state.cluster))
        if active is None or active.attempt.context.attempt != action.attempt:
            return  # lost with an earlier process: the timer starts the next attempt
        attempt, stages = active.attempt, self.stages[state.kind]
        found = self.admissions.look(state.run_id)
        active.frame_class = stages.frame_class(found)
        try:
            stage = stages.stage(found, state)
        except ComityError as error:
            self._failed(state, attempt, error)
            return
        active.worker.submit(lambda: attempt.start(action.nonces, stage))

    def _announce(self, state: SessionState, action: Announce) -> None:
        if action.phase not in {"COMMITTED", "FAILED", "REFUSED"}:
            return
        if self._book.find("state", run=state.run_id, cluster=state.cluster, author=self._context.id):
            return
        word = "CANCELLED" if action.phase == "FAILED" and action.code == "CANCELLED" else action.phase
        self._book.issue(
            model.State(
                run=state.run_id,
                cluster=state.cluster,
                operator=self._context.id,
                attempt=min(state.attempt, 10_000),
                state=cast("Literal['COMMITTED', 'FAILED', 'REFUSED', 'CANCELLED']", word),
                code=action.code or None,
                pair=list(action.pair),
                created_at=self._context.now,
            )
        )

    # ----------------------------------------------------------------------------------------------------- timers

    def _touch(self, key: _Key) -> None:
        pause_s, now, known = self._context.config.limits.ask_s, self._now(), self._timers.get(key)
        self._timers[key] = _Timer(now, now + pause_s, pause_s, now if known is None else known.since)

    def restore(self) -> None:
        """At start-up: the old attempts died with the process; say where every session stands."""
        rows = self._store.rows("SELECT state FROM sessions WHERE phase != 'ERASED'")
        for (data,) in rows:
            state = from_json(SessionState, data)
            self._touch((state.run_id, state.cluster))
            self.try_step(state, Retry(fresh_nonce()))

    def link_up(self, peer: str, *, restarted: bool = False) -> None:
        """A link came up: say again where every session shared with that peer stands.

        A peer that was restarted has lost its part of every attempt. If it had accepted, it can't repeat what this side
        still lacks, and must not start anew by itself: so this side, if not done, does.
        """
        for state in self.live():
            if state.phase == "COMMITTED":
                self.stages[state.kind].release(state)
            elif peer in state.members and state.phase == "PREPARED" and restarted:
                self.try_step(state, Retry(fresh_nonce()))
            elif peer in state.members:
                self._ask(state, lost=(state.members.index(peer),))

    def _ask(self, state: SessionState, *, lost: tuple[int, ...] = ()) -> None:
        """Say again where the session stands; to positions in `lost` the connection is new, and what was on it is gone."""
        self.try_step(state, Ask())
        active = self._active.get((state.run_id, state.cluster))
        if active is not None and state.phase in _WORKING:
            attempt = active.attempt
            active.worker.submit(lambda: attempt.repeat(lost=lost))

    def tick(self) -> None:
        """Ask again where a session waits; start a new attempt where one got nowhere."""
        self.disputes.tick()
        limits, now = self._context.config.limits, self._now()
        for state in self.live():
            key = (state.run_id, state.cluster)
            if key not in self._timers:
                self._touch(key)
            timer = self._timers[key]
            active = self._active.get(key)
            busy = active is not None and active.worker.busy  # our own computing is not the peers' silence
            if state.phase == "PREPARED" and now - timer.moved > limits.stage_timeout_s and not busy:
                self.try_step(state, Retry(fresh_nonce()))
            elif now >= timer.ask and state.phase in {"PREPARED", "ACCEPTED", "COMMITTED"}:
                timer.pause = min(timer.pause * 2, limits.ask_cap_s)
                timer.ask = now + timer.pause
                self._ask(state)

    # ---------------------------------------------------------------------------------------------------- looking

    def stalled(self, state: SessionState) -> float | None:
        """Return for how many seconds a session waits in its phase, None if that is not long."""
        timer = self._timers.get((state.run_id, state.cluster))
        if timer is None or state.phase not in {"IDLE", "PREPARED", "ACCEPTED"}:
            return None
        waited = self._now() - timer.since
        return waited if waited > self._context.config.limits.stall_s else None
