"""The session machine: one run at one cluster, as one of its three operators sees it (coordination.md, "Session").

The rule that keeps two results from ever existing: an operator that has ACCEPTED an attempt never starts another one by
itself. Only a peer's PREPARE for a later attempt, which proves that the peer will never accept this one, moves it on.
tests/state searches every interleaving of three machines with loss, duplication, reordering and crashes.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec.structs import replace

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.session.messages import MAX_ATTEMPT, Accept, Committed, Failed, Prepare
from mpc_ops.session.states import (
    PHASES,
    Announce,
    Ask,
    BeginAttempt,
    CheckFailed,
    DropAttempt,
    EraseSession,
    Expire,
    PeerAccept,
    PeerCommitted,
    PeerDigest,
    PeerFailed,
    PeerNonce,
    PeerPrepare,
    Proven,
    Ready,
    Refuse,
    Release,
    Retry,
    Send,
    SessionAction,
    SessionState,
    StartWork,
    Stop,
)
from mpc_ops.session.table import Machine, Rule

__all__ = ["SESSION"]

_Result: TypeAlias = tuple[SessionState, tuple[SessionAction, ...]]


def _prepare(state: SessionState, to: int, *, ask: bool = False) -> Send:
    message = Prepare(run_id=state.run_id, cluster=state.cluster, attempt=state.attempt, nonce=state.nonce, ask=ask)
    return Send(to, message)


def _accept(state: SessionState, to: int, *, ask: bool = False) -> Send:
    (digest,) = (link.received for link in state.links if link.party == to)
    message = Accept(run_id=state.run_id, cluster=state.cluster, attempt=state.attempt, link_digest=digest, ask=ask)
    return Send(to, message)


def _failed(state: SessionState, to: int, attempt: int) -> Send:
    # A failed operator accepts nothing any more, so it may say so for whatever attempt the peer is in.
    number = max(state.attempt, attempt, 1)
    message = Failed(run_id=state.run_id, cluster=state.cluster, attempt=number, code=state.code, pair=state.pair)
    return Send(to, message)


def _committed(state: SessionState, to: int) -> Send:
    return Send(to, Committed(run_id=state.run_id, cluster=state.cluster, attempt=state.attempt))


def _work(state: SessionState) -> tuple[SessionAction, ...]:
    """StartWork if the current attempt's three nonces are known."""
    nonces = {peer.party: peer.nonce for peer in state.prepares if peer.attempt == state.attempt}
    if len(nonces) < 2:
        return ()
    nonces[state.party] = state.nonce
    return (StartWork(state.attempt, (nonces[0], nonces[1], nonces[2])),)


def _enter(state: SessionState, attempt: int, nonce: str) -> _Result:
    """Go to PREPARED(attempt) with a fresh nonce."""
    if attempt > MAX_ATTEMPT:
        return _fail(state, "ATTEMPTS_EXHAUSTED", ())
    after = replace(state, phase="PREPARED", attempt=attempt, nonce=nonce, links=(), accepts=())
    sends = tuple(_prepare(after, peer) for peer in after.peers)
    return after, (BeginAttempt(attempt), *sends, *_work(after))


def _fail(state: SessionState, code: str, pair: tuple[str, ...]) -> _Result:
    after = replace(state, phase="FAILED", code=code, pair=pair, accepts=(), links=())
    sends = tuple(_failed(after, peer, after.attempt) for peer in after.peers)
    return after, (DropAttempt(), *sends, Announce("FAILED", code, pair))


def _pair(state: SessionState, peer: int) -> tuple[str, str]:
    return state.members[state.party], state.members[peer]


def _rolled_back(state: SessionState, what: str, party: int) -> LocalProtocolError:
    return LocalProtocolError(
        "STATE_ROLLED_BACK",
        f"a peer shows {what} that our stored state does not know",
        ids={**state.ids(), "peer": state.members[party]},
        hint="This operator's disk was restored; file again in a new edition or let the run give up",
    )


def _learn(state: SessionState, event: PeerPrepare) -> SessionState:
    """Record a peer's PREPARE; the same attempt with another nonce is refused, since keys would not be fresh."""
    for known in state.prepares:
        if known.party == event.party and known.attempt == event.attempt and known.nonce != event.nonce:
            raise PeerProtocolError(
                "PREPARE_CONFLICT",
                "a peer announced one attempt with two nonces",
                ids={**state.ids(), "peer": state.members[event.party]},
            )
    rest = tuple(known for known in state.prepares if known.party != event.party)
    news = (*rest, PeerNonce(event.party, event.attempt, event.nonce))
    return replace(state, prepares=tuple(sorted(news, key=lambda known: known.party)))


# ------------------------------------------------------------------------------------------------------------ rules


def _ready(state: SessionState, event: Ready) -> _Result:
    return _enter(state, max([1, *(peer.attempt for peer in state.prepares)]), event.nonce)


def _refuse(state: SessionState, event: Refuse) -> _Result:
    after = replace(state, phase="REFUSED", code=event.code)
    sends = tuple(_failed(after, peer, 1) for peer in after.peers)
    return after, (*sends, Announce("REFUSED", event.code))


def _idle_prepare(state: SessionState, event: PeerPrepare) -> _Result:
    newest = max([0, *(peer.attempt for peer in state.prepares if peer.party == event.party)])
    return (state if event.attempt < newest else _learn(state, event)), ()


def _retry(state: SessionState, event: Retry) -> _Result:
    return _enter(state, state.attempt + 1, event.nonce)


def _ask_prepared(state: SessionState, _event: object) -> _Result:
    return state, tuple(_prepare(state, peer, ask=True) for peer in state.peers)


def _ask_accepted(state: SessionState, _event: object) -> _Result:
    heard = {peer.party for peer in state.accepts}
    return state, tuple(_accept(state, peer, ask=True) for peer in state.peers if peer not in heard)


def _ask_committed(state: SessionState, _event: object) -> _Result:
    return state, (Release(state.attempt), Announce("COMMITTED"))


def _ask_ended(state: SessionState, _event: object) -> _Result:
    sends = tuple(_failed(state, peer, state.attempt) for peer in state.peers)
    return state, (*sends, Announce(state.phase, state.code, state.pair))


def _erase_again(state: SessionState, _event: object) -> _Result:
    return state, (EraseSession(),)


def _later_prepare(state: SessionState, event: PeerPrepare) -> _Result:
    learned = _learn(state, event)
    if state.noted:
        return _fail(learned, state.noted[0], ())
    return _enter(learned, event.attempt, event.fresh)


def _same_prepare(state: SessionState, event: PeerPrepare) -> _Result:
    after = _learn(state, event)
    answer = (_prepare(after, event.party),) if event.ask else ()
    # A repeated PREPARE must not start the work twice: the attempt object would draw new ephemeral keys.
    return after, (*answer, *(_work(after) if after != state else ()))


def _same_prepare_accepted(state: SessionState, event: PeerPrepare) -> _Result:
    after = _learn(state, event)
    return after, ((_accept(after, event.party),) if event.ask else ())


def _answer_prepare(state: SessionState, event: PeerPrepare | PeerAccept | PeerFailed) -> _Result:
    """A peer that lags behind learns our attempt; if it has failed, `ask` makes it say so for this attempt."""
    return state, (_prepare(state, event.party, ask=isinstance(event, PeerFailed)),)


def _answer_accept(state: SessionState, event: PeerPrepare | PeerAccept | PeerFailed) -> _Result:
    return state, (_accept(state, event.party, ask=isinstance(event, PeerFailed)),)


def _answer_failed(state: SessionState, event: PeerPrepare | PeerAccept) -> _Result:
    return state, (_failed(state, event.party, event.attempt),)


def _answer_committed(state: SessionState, event: PeerPrepare | PeerAccept | PeerFailed) -> _Result:
    return state, (_committed(state, event.party),)


def _nothing(state: SessionState, _event: object) -> _Result:
    return state, ()


def _link_conflict(state: SessionState, party: int) -> bool:
    sent = {link.party: link.sent for link in state.links}
    return any(peer.party == party and sent[party] != peer.digest for peer in state.accepts)


def _proven(state: SessionState, event: Proven) -> _Result:
    if {link.party for link in event.links} != set(state.peers):
        raise LocalProtocolError("LINKS_INCOMPLETE", "an attempt is proven only with both links", ids=state.ids())
    after = replace(state, phase="ACCEPTED", links=event.links)
    for peer in after.peers:
        if _link_conflict(after, peer):
            return _fail(after, "LINK_MISMATCH", _pair(state, peer))
    sends = tuple(_accept(after, peer) for peer in after.peers)
    if len(after.accepts) == 2:
        done, more = _commit(after)
        return done, (*sends, *more)
    return after, sends


def _commit(state: SessionState) -> _Result:
    after = replace(state, phase="COMMITTED")
    return after, (Release(after.attempt), Announce("COMMITTED"))


def _early_accept(state: SessionState, event: PeerAccept) -> _Result:
    rest = tuple(peer for peer in state.accepts if peer.party != event.party)
    return replace(state, accepts=(*rest, PeerDigest(event.party, event.digest))), ()


def _peer_accept(state: SessionState, event: PeerAccept) -> _Result:
    after, _ = _early_accept(state, event)
    if _link_conflict(after, event.party):
        raise PeerProtocolError(
            "LINK_MISMATCH",
            "a peer accepted other frames than we sent to it",
            ids={**state.ids(), "peer": state.members[event.party]},
        )
    return _counted(after, event.party, ask=event.ask)


def _peer_committed(state: SessionState, event: PeerCommitted) -> _Result:
    (sent,) = (link.sent for link in state.links if link.party == event.party)
    after, _ = _early_accept(state, PeerAccept(event.party, event.attempt, sent))
    return _counted(after, event.party, ask=False)


def _counted(state: SessionState, party: int, *, ask: bool) -> _Result:
    answer = (_accept(state, party),) if ask else ()
    if len(state.accepts) < 2:
        return state, answer
    after, actions = _commit(state)
    return after, (*answer, *actions)


def _unknown_accept(state: SessionState, event: PeerAccept | PeerCommitted) -> _Result:
    raise _rolled_back(state, f"attempt {event.attempt}", event.party)


def _conflict(state: SessionState, event: PeerAccept | PeerCommitted | PeerFailed) -> _Result:
    raise PeerProtocolError(
        "SESSION_CONFLICT",
        f"a peer says {type(event).__name__.removeprefix('Peer').upper()}({event.attempt}), which cannot be beside our state",
        ids={**state.ids(), "peer": state.members[event.party]},
    )


def _peer_failed(state: SessionState, event: PeerFailed) -> _Result:
    return _fail(state, event.code, event.pair)


def _stop(state: SessionState, event: Stop) -> _Result:
    return _fail(state, event.code, event.pair)


def _note(state: SessionState, event: Stop) -> _Result:
    return (state if event.code in state.noted else replace(state, noted=(*state.noted, event.code))), ()


def _check_failed(state: SessionState, event: CheckFailed) -> _Result:
    return _fail(state, event.code, event.pair)


def _expire(state: SessionState, _event: object) -> _Result:
    after = replace(state, phase="ERASED", ended=state.phase)
    return after, (DropAttempt(), EraseSession(), Announce("ERASED"))


def _later(state: SessionState, event: Any) -> bool:
    return bool(event.attempt > state.attempt)


def _same(state: SessionState, event: Any) -> bool:
    return bool(event.attempt == state.attempt)


def _earlier(state: SessionState, event: Any) -> bool:
    return bool(event.attempt < state.attempt)


def _ended_in(*phases: str) -> Any:
    return lambda state, _event: state.ended in phases


_IN_DOUBT = _ended_in("ACCEPTED")
_WAS_COMMITTED = _ended_in("COMMITTED")
_WAS_FAILED = _ended_in("FAILED", "REFUSED")
_LIVE = ("PREPARED", "ACCEPTED")
_OVER = ("FAILED", "REFUSED")

SESSION: Machine[SessionState] = Machine(
    "session",
    PHASES,
    (
        Rule(("IDLE",), Ready, "", ("PREPARED", "FAILED"), "PREPARE(a, nonce), a = 1 or the peers' latest", _ready),
        Rule(("IDLE",), Refuse, "", ("REFUSED",), "FAILED(code) to the peers, signed state", _refuse),
        Rule(("IDLE",), PeerPrepare, "", (), "remembered", _idle_prepare),
        Rule(("IDLE",), Retry, "", (), "", _nothing),
        Rule(("IDLE",), Ask, "", (), "", _nothing),
        Rule(("PREPARED",), Retry, "", ("PREPARED", "FAILED"), "PREPARE(a+1, new nonce)", _retry),
        Rule(("ACCEPTED",), Retry, "never starts a+1 itself", (), "ACCEPT(a) again, asking", _ask_accepted),
        Rule(("PREPARED",), Ask, "", (), "PREPARE(a) again, asking", _ask_prepared),
        Rule(("ACCEPTED",), Ask, "", (), "ACCEPT(a) again, asking", _ask_accepted),
        Rule(("COMMITTED",), Retry, "", (), "release again", _ask_committed),
        Rule(("COMMITTED",), Ask, "", (), "release again", _ask_committed),
        Rule(_OVER, Retry, "", (), "FAILED(code) again", _ask_ended),
        Rule(_OVER, Ask, "", (), "FAILED(code) again", _ask_ended),
        Rule(("ERASED",), Retry, "", (), "erase again", _erase_again),
        Rule(("ERASED",), Ask, "", (), "", _nothing),
        Rule(_LIVE, PeerPrepare, "b > a", ("PREPARED", "FAILED"), "PREPARE(b, new nonce); FAILED if a stop was noted", _later_prepare, _later),
        Rule(("PREPARED",), PeerPrepare, "b = a", (), "work starts when both are in", _same_prepare, _same),
        Rule(("ACCEPTED",), PeerPrepare, "b = a", (), "answers ACCEPT(a) if asked", _same_prepare_accepted, _same),
        Rule(("PREPARED",), PeerPrepare, "b < a", (), "answers PREPARE(a)", _answer_prepare, _earlier),
        Rule(("ACCEPTED",), PeerPrepare, "b < a", (), "answers ACCEPT(a)", _answer_accept, _earlier),
        Rule(("PREPARED",), Proven, "of this attempt", ("ACCEPTED", "COMMITTED", "FAILED"), "ACCEPT(a) to each peer", _proven, _same),
        Rule(PHASES, Proven, "of an attempt that is over", (), "ignored", _nothing),
        Rule(("PREPARED",), CheckFailed, "of this attempt", ("FAILED",), "FAILED(code, pair), never retried", _check_failed, _same),
        Rule(PHASES, CheckFailed, "of an attempt that is over", (), "ignored", _nothing),
        Rule(("PREPARED",), PeerAccept, "b = a", (), "remembered", _early_accept, _same),
        Rule(("ACCEPTED",), PeerAccept, "b = a", ("ACCEPTED", "COMMITTED"), "with both: release", _peer_accept, _same),
        Rule(("PREPARED",), PeerAccept, "b < a", (), "answers PREPARE(a)", _answer_prepare, _earlier),
        Rule(("ACCEPTED",), PeerAccept, "b < a", (), "answers ACCEPT(a)", _answer_accept, _earlier),
        Rule(("IDLE", *_LIVE), PeerAccept, "b > a", (), "raises STATE_ROLLED_BACK", _unknown_accept, _later),
        Rule(("ACCEPTED",), PeerCommitted, "b = a", ("ACCEPTED", "COMMITTED"), "counts as that peer's ACCEPT", _peer_committed, _same),
        Rule(("IDLE", *_LIVE), PeerCommitted, "otherwise", (), "raises STATE_ROLLED_BACK", _unknown_accept),
        Rule(("IDLE", *_LIVE), PeerFailed, "b ≥ a", ("FAILED",), "FAILED(code) to the peers", _peer_failed, lambda s, e: e.attempt >= s.attempt),
        Rule(("PREPARED",), PeerFailed, "b < a", (), "answers PREPARE(a), asking", _answer_prepare),
        Rule(("ACCEPTED",), PeerFailed, "b < a", (), "answers ACCEPT(a), asking", _answer_accept),
        Rule(("IDLE", "PREPARED"), Stop, "", ("FAILED",), "FAILED(code) to the peers", _stop),
        Rule(("ACCEPTED",), Stop, "", (), "noted; what the peers hold decides", _note),
        Rule(("COMMITTED", *_OVER, "ERASED"), Stop, "too late", (), "", _nothing),
        Rule(("COMMITTED",), PeerPrepare, "any", (), "answers COMMITTED", _answer_committed),
        Rule(("COMMITTED",), PeerAccept, "any", (), "answers COMMITTED", _answer_committed),
        Rule(("COMMITTED",), PeerCommitted, "b = a", (), "", _nothing, _same),
        Rule(("COMMITTED",), PeerCommitted, "b ≠ a", (), "raises SESSION_CONFLICT", _conflict),
        Rule(("COMMITTED",), PeerFailed, "any", (), "answers COMMITTED", _answer_committed),
        Rule(_OVER, PeerPrepare, "any", (), "answers FAILED(b)", _answer_failed),
        Rule(_OVER, PeerAccept, "any", (), "answers FAILED(b)", _answer_failed),
        Rule(_OVER, PeerCommitted, "any", (), "raises SESSION_CONFLICT", _conflict),
        Rule(_OVER, PeerFailed, "any", (), "", _nothing),
        Rule(("ERASED",), PeerPrepare, "was COMMITTED", (), "answers COMMITTED", _answer_committed, _WAS_COMMITTED),
        Rule(("ERASED",), PeerAccept, "was COMMITTED", (), "answers COMMITTED", _answer_committed, _WAS_COMMITTED),
        Rule(("ERASED",), PeerPrepare, "was FAILED or REFUSED", (), "answers FAILED(b)", _answer_failed, _WAS_FAILED),
        Rule(("ERASED",), PeerAccept, "was FAILED or REFUSED", (), "answers FAILED(b)", _answer_failed, _WAS_FAILED),
        Rule(("ERASED",), PeerPrepare, "was ACCEPTED", (), "silent: in doubt", _nothing, _IN_DOUBT),
        Rule(("ERASED",), PeerAccept, "was ACCEPTED", (), "silent: in doubt", _nothing, _IN_DOUBT),
        Rule(("ERASED",), PeerCommitted, "any", (), "", _nothing),
        Rule(("ERASED",), PeerFailed, "any", (), "", _nothing),
        Rule(("ACCEPTED", "COMMITTED", *_OVER), Expire, "", ("ERASED",), "erases shares, outputs, keys", _expire),
        Rule(("ERASED",), Expire, "", (), "erase again", _erase_again),
    ),
)  # fmt: skip
