"""The driver of the session machine: one run at each cluster that this operator sits in.

Follows mpc_ops.session's driver protocol. The stored state is the truth; what is kept in memory (the attempt of each live
session, timers) may be lost at any moment. What a kind of cluster computes and hands on stands in `stages`.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, cast

from mpc_ops.engine import Attempt, AttemptContext, AttemptDone, Outgoing, Stage, StageOutput
from mpc_ops.errors import ComityError, LocalProtocolError, PeerProtocolError, StateError
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices import model
from mpc_ops.notices.signed import SignedNotice
from mpc_ops.server.admission import Admission, Admissions
from mpc_ops.server.books import Books
from mpc_ops.server.context import Context
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
_EARLY_SESSIONS = 1000
_EARLY_MESSAGES = 8
_CLASS: dict[type, PayloadClass] = {
    Prepare: PayloadClass.KEY_MATERIAL,
    KexOffer: PayloadClass.KEY_MATERIAL,
    KexReply: PayloadClass.KEY_MATERIAL,
    KexConfirm: PayloadClass.KEY_MATERIAL,
    Accept: PayloadClass.MAC_OR_COMMITMENT,
    Frame: PayloadClass.MAC_OR_COMMITMENT,
}
_Key: TypeAlias = tuple[str, str]
_Work: TypeAlias = Callable[[], Outgoing]


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
        """Read the inputs of the present attempt and return its program."""

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


class Sessions:
    """All sessions of this operator; every public method that changes something is called inside a unit."""

    def __init__(self, context: Context, books: Books, book: NoticeBook, admissions: Admissions) -> None:
        self.context = self._context = context
        self.books = self._books = books
        self.book = self._book = book
        self.admissions = admissions
        self._store = context.store
        self.stages: dict[str, Stages] = {}
        self.hooks: list[RunHooks] = []
        self._attempts: dict[_Key, Attempt] = {}
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
        """The manifest may be a moment behind a peer's first message."""
        waiting = self._early.setdefault((message.run_id, message.cluster), [])
        if len(waiting) < _EARLY_MESSAGES * 2:
            waiting.append((peer, message))
        while len(self._early) > _EARLY_SESSIONS:
            self._early.popitem(last=False)

    def _receive(self, run: str, cluster: str, peer: str, message: Message) -> None:
        state = self.state(run, cluster)
        if state is None or (run, cluster) in self._blocked:
            return
        data = encode_message(message)
        kind = _CLASS.get(type(message), PayloadClass.CONTROL_METADATA)
        self._books.frame_received(data, peer, kind, run=run, cluster=cluster, attempt=message.attempt)
        party = state.members.index(peer)
        event = event_of(message, party, fresh_nonce())
        if event is not None:
            self._mark(peer, message)
            self.try_step(state, event)
            return
        attempt = self._attempts.get((run, cluster))
        if attempt is None or state.phase not in {"PREPARED", "ACCEPTED"} or message.attempt != state.attempt:
            return
        if attempt.context.attempt == state.attempt:
            self._work(state, lambda: attempt.receive(party, message))

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

    def _work(self, state: SessionState, work: _Work) -> None:
        """Let the attempt work, send what it says, and step the machine when it is done or a check failed."""
        key = (state.run_id, state.cluster)
        attempt = self._attempts[key]
        try:
            self._send_all(state, work())
        except ComityError as error:
            self._context.log("check_failed", code=error.code, why=error.what, **state.ids())
            self.try_step(state, CheckFailed(attempt.context.attempt, error.code, self._named(state, attempt, error)))
            return
        # Peers repeat themselves while they wait: only a new phase or attempt counts as progress (see `tick`).
        if attempt.done is not None and state.phase == "PREPARED":
            self._prove(state, attempt.done)

    def _named(self, state: SessionState, attempt: Attempt, error: ComityError) -> tuple[str, ...]:
        operators = self._context.federation.terms.operators
        pair = tuple(name for name in attempt.blamed(error) if name in operators)
        return pair or ((self._context.id,) if isinstance(error, LocalProtocolError) else state.pair)

    def _prove(self, state: SessionState, done: AttemptDone) -> None:
        try:
            found = self.admissions.look(state.run_id)
            with self._context.part():
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
            self._attempts[key] = Attempt(self._attempt_context(state), self._context.identity)
        elif isinstance(action, StartWork):
            self._start(state, action)
        elif isinstance(action, DropAttempt):
            self._attempts.pop(key, None)
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
            for hook in self.hooks:
                hook.committed(state)
        elif state.phase in {"FAILED", "REFUSED"}:
            for hook in self.hooks:
                hook.ended(state)
        elif state.phase == "ERASED":
            for hook in self.hooks:
                hook.erased(state)
        if state.phase in {"FAILED", "REFUSED", "ERASED"} and before != state.phase:
            self._attempts.pop(key, None)
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
        )

    def _start(self, state: SessionState, action: StartWork) -> None:
        attempt = self._attempts.get((state.run_id, state.cluster))
        if attempt is None or attempt.context.attempt != action.attempt:
            return  # lost with an earlier process: the timer starts the next attempt
        found = self.admissions.look(state.run_id)
        self._work(state, lambda: attempt.start(action.nonces, self.stages[state.kind].stage(found, state)))

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
                self._ask(state)

    def _ask(self, state: SessionState) -> None:
        self.try_step(state, Ask())
        attempt = self._attempts.get((state.run_id, state.cluster))
        if attempt is not None and state.phase in {"PREPARED", "ACCEPTED"}:
            self._send_all(state, attempt.repeat())

    def tick(self) -> None:
        """Ask again where a session waits; start a new attempt where one got nowhere."""
        limits, now = self._context.config.limits, self._now()
        for state in self.live():
            key = (state.run_id, state.cluster)
            if key not in self._timers:
                self._touch(key)
            timer = self._timers[key]
            if state.phase == "PREPARED" and now - timer.moved > limits.stage_timeout_s:
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
