"""Every (state, event) pair of the session table, and what each rule sends."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mpc_ops.errors import ComityError, LocalProtocolError, PeerProtocolError, StateError
from mpc_ops.session import (
    PHASES,
    SESSION,
    Accept,
    Announce,
    Ask,
    BeginAttempt,
    CheckFailed,
    Committed,
    DropAttempt,
    EraseSession,
    Expire,
    Failed,
    LinkDigests,
    PeerAccept,
    PeerCommitted,
    PeerFailed,
    PeerPrepare,
    Prepare,
    Proven,
    Ready,
    Refuse,
    Release,
    Retry,
    Send,
    SessionState,
    StartWork,
    Stop,
    event_of,
    from_json,
    new_session,
    to_json,
)
from tests.support.core import MEMBERS, RUN, hex32

N = {name: hex32(name) for name in ("own", "fresh", "peer1", "peer2")}
LINKS = tuple(LinkDigests(peer, hex32("sent", peer), hex32("received", peer)) for peer in (1, 2))


def idle():
    return new_session(RUN, "de", "region", MEMBERS, 0)


def prepared(attempt=1, *peers):
    state, _ = SESSION.step(idle(), Ready(N["own"]))
    while state.attempt < attempt:
        state, _ = SESSION.step(state, Retry(hex32("own", state.attempt + 1)))
    for peer in peers:
        state, _ = SESSION.step(state, PeerPrepare(peer, attempt, N[f"peer{peer}"], N["fresh"]))
    return state


def accepted(attempt=1):
    return SESSION.step(prepared(attempt, 1, 2), Proven(attempt, LINKS))[0]


def committed(attempt=1):
    state = accepted(attempt)
    for peer in (1, 2):
        state, _ = SESSION.step(state, PeerAccept(peer, attempt, hex32("sent", peer)))
    return state


def failed():
    return SESSION.step(prepared(), Stop("WITHDRAWN"))[0]


STATES = {
    "IDLE": idle,
    "PREPARED": lambda: prepared(2, 1, 2),
    "ACCEPTED": lambda: accepted(2),
    "COMMITTED": lambda: committed(2),
    "FAILED": failed,
    "REFUSED": lambda: SESSION.step(idle(), Refuse("APPROVAL_MISSING"))[0],
    "ERASED": lambda: SESSION.step(committed(2), Expire())[0],
}
EVENTS = [
    Ready(N["fresh"]), Refuse("APPROVAL_MISSING"), Retry(N["fresh"]), Ask(), Stop("CANCELLED"), Expire(),
    *(PeerPrepare(1, attempt, N["peer1"], N["fresh"], ask=True) for attempt in (1, 2, 3)),
    *(PeerAccept(1, attempt, hex32("sent", 1), ask=True) for attempt in (1, 2, 3)),
    *(PeerFailed(1, attempt, "CANCELLED") for attempt in (1, 2, 3)),
    *(PeerCommitted(1, attempt) for attempt in (1, 2, 3)),
    *(Proven(attempt, LINKS) for attempt in (1, 2, 3)),
    *(CheckFailed(attempt, "STAGE_MISMATCH", ("de-1", "de-2")) for attempt in (1, 2, 3)),
]  # fmt: skip
RAISES = {
    # (phase, event class, attempt or None): code
    ("PREPARED", Ready, None): "ILLEGAL_TRANSITION", ("ACCEPTED", Ready, None): "ILLEGAL_TRANSITION",
    ("COMMITTED", Ready, None): "ILLEGAL_TRANSITION", ("FAILED", Ready, None): "ILLEGAL_TRANSITION",
    ("REFUSED", Ready, None): "ILLEGAL_TRANSITION", ("ERASED", Ready, None): "ILLEGAL_TRANSITION",
    ("PREPARED", Refuse, None): "ILLEGAL_TRANSITION", ("ACCEPTED", Refuse, None): "ILLEGAL_TRANSITION",
    ("COMMITTED", Refuse, None): "ILLEGAL_TRANSITION", ("FAILED", Refuse, None): "ILLEGAL_TRANSITION",
    ("REFUSED", Refuse, None): "ILLEGAL_TRANSITION", ("ERASED", Refuse, None): "ILLEGAL_TRANSITION",
    ("IDLE", Expire, None): "ILLEGAL_TRANSITION", ("PREPARED", Expire, None): "ILLEGAL_TRANSITION",
    ("IDLE", PeerAccept, 1): "STATE_ROLLED_BACK", ("IDLE", PeerAccept, 2): "STATE_ROLLED_BACK",
    ("IDLE", PeerAccept, 3): "STATE_ROLLED_BACK", ("PREPARED", PeerAccept, 3): "STATE_ROLLED_BACK",
    ("ACCEPTED", PeerAccept, 3): "STATE_ROLLED_BACK",
    ("IDLE", PeerCommitted, 1): "STATE_ROLLED_BACK", ("IDLE", PeerCommitted, 2): "STATE_ROLLED_BACK",
    ("IDLE", PeerCommitted, 3): "STATE_ROLLED_BACK", ("PREPARED", PeerCommitted, 1): "STATE_ROLLED_BACK",
    ("PREPARED", PeerCommitted, 2): "STATE_ROLLED_BACK", ("PREPARED", PeerCommitted, 3): "STATE_ROLLED_BACK",
    ("ACCEPTED", PeerCommitted, 1): "STATE_ROLLED_BACK", ("ACCEPTED", PeerCommitted, 3): "STATE_ROLLED_BACK",
    ("COMMITTED", PeerCommitted, 1): "SESSION_CONFLICT", ("COMMITTED", PeerCommitted, 3): "SESSION_CONFLICT",
    ("FAILED", PeerCommitted, 1): "SESSION_CONFLICT", ("FAILED", PeerCommitted, 2): "SESSION_CONFLICT",
    ("FAILED", PeerCommitted, 3): "SESSION_CONFLICT", ("REFUSED", PeerCommitted, 1): "SESSION_CONFLICT",
    ("REFUSED", PeerCommitted, 2): "SESSION_CONFLICT", ("REFUSED", PeerCommitted, 3): "SESSION_CONFLICT",
}  # fmt: skip
MOVES = {
    ("IDLE", Ready, None): "PREPARED", ("IDLE", Refuse, None): "REFUSED", ("IDLE", Stop, None): "FAILED",
    ("IDLE", PeerFailed, 1): "FAILED", ("IDLE", PeerFailed, 2): "FAILED", ("IDLE", PeerFailed, 3): "FAILED",
    ("PREPARED", Stop, None): "FAILED", ("PREPARED", Proven, 2): "ACCEPTED", ("PREPARED", CheckFailed, 2): "FAILED",
    ("PREPARED", PeerFailed, 2): "FAILED", ("PREPARED", PeerFailed, 3): "FAILED",
    ("ACCEPTED", PeerPrepare, 3): "PREPARED", ("ACCEPTED", PeerFailed, 2): "FAILED",
    ("ACCEPTED", PeerFailed, 3): "FAILED", ("ACCEPTED", Expire, None): "ERASED",
    ("COMMITTED", Expire, None): "ERASED", ("FAILED", Expire, None): "ERASED", ("REFUSED", Expire, None): "ERASED",
}  # fmt: skip


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{type(event).__name__}-{getattr(event, 'attempt', '')}")
@pytest.mark.parametrize("phase", PHASES)
def test_every_pair_does_what_the_table_says(phase, event):
    state = STATES[phase]()
    stored = to_json(state)
    key = (phase, type(event), getattr(event, "attempt", None))
    if key in RAISES:
        with pytest.raises(ComityError) as caught:
            SESSION.step(state, event)
        assert caught.value.code == RAISES[key]
        assert to_json(state) == stored
        return
    after, _ = SESSION.step(state, event)
    assert after.phase == MOVES.get(key, phase)
    assert to_json(state) == stored, "a step never changes the state that it was given"
    assert from_json(SessionState, to_json(after)) == after
    if phase == "ERASED":
        assert after == state


def sends(actions, kind):
    return [
        (action.to, action.message)
        for action in actions
        if isinstance(action, Send) and isinstance(action.message, kind)
    ]


def test_ready_prepares_attempt_one_and_tells_both_peers():
    _, actions = SESSION.step(idle(), Ready(N["own"]))
    assert actions[0] == BeginAttempt(1)
    assert [to for to, _ in sends(actions, Prepare)] == [1, 2]
    assert {message.nonce for _, message in sends(actions, Prepare)} == {N["own"]}
    assert not any(isinstance(action, StartWork) for action in actions)


def test_a_late_party_joins_the_attempt_its_peers_are_in():
    state = idle()
    state, _ = SESSION.step(state, PeerPrepare(1, 1, hex32("old"), N["fresh"]))
    state, _ = SESSION.step(state, PeerPrepare(1, 3, N["peer1"], N["fresh"]))
    state, _ = SESSION.step(state, PeerPrepare(1, 1, hex32("old"), N["fresh"]))
    state, actions = SESSION.step(state, Ready(N["own"]))
    assert state.attempt == 3
    state, actions = SESSION.step(state, PeerPrepare(2, 3, N["peer2"], N["fresh"]))
    assert actions == (StartWork(3, (N["own"], N["peer1"], N["peer2"])),)


def test_work_starts_once_however_often_prepare_comes():
    state = prepared(1, 1)
    state, first = SESSION.step(state, PeerPrepare(2, 1, N["peer2"], N["fresh"]))
    state, second = SESSION.step(state, PeerPrepare(2, 1, N["peer2"], N["fresh"]))
    assert [type(action) for action in first] == [StartWork]
    assert second == ()


def test_a_peer_with_two_nonces_for_one_attempt_is_refused():
    with pytest.raises(PeerProtocolError) as caught:
        SESSION.step(prepared(1, 1), PeerPrepare(1, 1, N["fresh"], N["own"]))
    assert caught.value.code == "PREPARE_CONFLICT"
    assert caught.value.ids["peer"] == "de-2"


def test_a_later_prepare_moves_an_accepted_party_with_a_fresh_nonce():
    after, actions = SESSION.step(accepted(1), PeerPrepare(1, 2, N["peer1"], N["fresh"]))
    assert (after.phase, after.attempt, after.nonce, after.links, after.accepts) == ("PREPARED", 2, N["fresh"], (), ())
    assert actions[0] == BeginAttempt(2)


def test_accepted_only_asks_when_it_times_out():
    state = accepted(1)
    for event in (Retry(N["fresh"]), Ask()):
        after, actions = SESSION.step(state, event)
        assert after == state
        assert [(to, message.ask, message.link_digest) for to, message in sends(actions, Accept)] == [
            (1, True, hex32("received", 1)),
            (2, True, hex32("received", 2)),
        ]


def test_accept_tells_each_peer_only_what_came_from_it():
    _, actions = SESSION.step(prepared(1, 1, 2), Proven(1, LINKS))
    assert [(to, message.link_digest) for to, message in sends(actions, Accept)] == [
        (1, hex32("received", 1)),
        (2, hex32("received", 2)),
    ]


def test_commit_needs_both_accepts_and_then_releases():
    state = accepted(1)
    state, actions = SESSION.step(state, PeerAccept(1, 1, hex32("sent", 1)))
    assert (state.phase, actions) == ("ACCEPTED", ())
    state, actions = SESSION.step(state, PeerAccept(1, 1, hex32("sent", 1)))
    assert state.phase == "ACCEPTED", "the same peer twice is not two peers"
    state, actions = SESSION.step(state, PeerCommitted(2, 1))
    assert state.phase == "COMMITTED"
    assert actions == (Release(1), Announce("COMMITTED"))


def test_one_committed_peer_does_not_speak_for_the_third():
    state, _ = SESSION.step(accepted(1), PeerCommitted(1, 1))
    assert state.phase == "ACCEPTED"


def test_early_accepts_count_at_the_proof():
    state = prepared(1, 1, 2)
    for peer in (1, 2):
        state, _ = SESSION.step(state, PeerAccept(peer, 1, hex32("sent", peer)))
    state, actions = SESSION.step(state, Proven(1, LINKS))
    assert state.phase == "COMMITTED"
    assert len(sends(actions, Accept)) == 2
    assert Release(1) in actions


def test_a_peer_that_accepted_other_frames_is_named_before_and_after_acceptance():
    state, _ = SESSION.step(prepared(1, 1, 2), PeerAccept(1, 1, hex32("other")))
    state, _ = SESSION.step(state, Proven(1, LINKS))
    assert (state.phase, state.code, state.pair) == ("FAILED", "LINK_MISMATCH", ("de-1", "de-2"))
    before = accepted(1)
    with pytest.raises(PeerProtocolError) as caught:
        SESSION.step(before, PeerAccept(1, 1, hex32("other")))
    assert caught.value.code == "LINK_MISMATCH"


def test_a_failed_check_is_terminal_and_names_the_pair():
    state, actions = SESSION.step(prepared(1, 1, 2), CheckFailed(1, "STAGE_MISMATCH", ("de-1", "de-2")))
    assert (state.phase, state.code, state.pair) == ("FAILED", "STAGE_MISMATCH", ("de-1", "de-2"))
    assert actions[0] == DropAttempt()
    assert [(message.code, message.pair) for _, message in sends(actions, Failed)] == [
        ("STAGE_MISMATCH", ("de-1", "de-2"))
    ] * 2
    for event in (Retry(N["fresh"]), PeerPrepare(1, 5, N["peer1"], N["fresh"]), Ask()):
        assert SESSION.step(state, event)[0] == state


def test_a_stop_noted_while_accepted_takes_effect_if_the_attempt_falls():
    state, _ = SESSION.step(accepted(1), Stop("WITHDRAWN"))
    state, _ = SESSION.step(state, Stop("WITHDRAWN"))
    assert (state.phase, state.noted) == ("ACCEPTED", ("WITHDRAWN",))
    fallen, _ = SESSION.step(state, PeerPrepare(1, 2, N["peer1"], N["fresh"]))
    assert (fallen.phase, fallen.code) == ("FAILED", "WITHDRAWN")
    for peer in (1, 2):
        state, _ = SESSION.step(state, PeerAccept(peer, 1, hex32("sent", peer)))
    assert state.phase == "COMMITTED"


def test_committed_answers_everything_with_committed():
    state = committed(1)
    for event in (
        PeerPrepare(1, 1, N["peer1"], N["fresh"]),
        PeerPrepare(1, 7, N["peer1"], N["fresh"]),
        PeerAccept(1, 1, hex32("sent", 1)),
        PeerFailed(1, 3, "CANCELLED"),
    ):
        after, actions = SESSION.step(state, event)
        assert after == state
        assert [(to, message.attempt) for to, message in sends(actions, Committed)] == [(1, 1)]
    erased, _ = SESSION.step(state, Expire())
    _, actions = SESSION.step(erased, PeerAccept(2, 1, hex32("sent", 2)))
    assert [to for to, _ in sends(actions, Committed)] == [2]


def test_failed_answers_any_attempt_with_failed_for_that_attempt():
    _, actions = SESSION.step(failed(), PeerPrepare(2, 9, N["peer2"], N["fresh"]))
    assert [(to, message.attempt, message.code) for to, message in sends(actions, Failed)] == [(2, 9, "WITHDRAWN")]
    erased, _ = SESSION.step(failed(), Expire())
    _, actions = SESSION.step(erased, PeerPrepare(2, 9, N["peer2"], N["fresh"]))
    assert [message.code for _, message in sends(actions, Failed)] == ["WITHDRAWN"]


def test_in_doubt_stays_silent_after_erasure():
    state, actions = SESSION.step(accepted(1), Expire())
    assert EraseSession() in actions
    assert SESSION.step(state, PeerPrepare(1, 2, N["peer1"], N["fresh"]))[1] == ()
    assert SESSION.step(state, PeerAccept(1, 1, hex32("sent", 1)))[1] == ()


def test_a_failed_peer_of_an_earlier_attempt_is_asked_about_this_one():
    _, actions = SESSION.step(prepared(2, 1), PeerFailed(1, 1, "CANCELLED"))
    assert [(to, message.attempt, message.ask) for to, message in sends(actions, Prepare)] == [(1, 2, True)]


def test_start_up_repeats_what_each_state_owes():
    assert SESSION.step(prepared(1, 1, 2), Retry(N["fresh"]))[0].attempt == 2
    assert SESSION.step(committed(1), Retry(N["fresh"]))[1] == (Release(1), Announce("COMMITTED"))
    assert len(sends(SESSION.step(failed(), Retry(N["fresh"]))[1], Failed)) == 2
    erased, _ = SESSION.step(committed(1), Expire())
    assert SESSION.step(erased, Retry(N["fresh"]))[1] == (EraseSession(),)


def test_attempts_run_out_instead_of_overflowing():
    state = replace(prepared(1), attempt=10_000)
    after, _ = SESSION.step(state, Retry(N["fresh"]))
    assert (after.phase, after.code) == ("FAILED", "ATTEMPTS_EXHAUSTED")


def test_proven_needs_both_links():
    with pytest.raises(LocalProtocolError) as caught:
        SESSION.step(prepared(1, 1, 2), Proven(1, LINKS[:1]))
    assert caught.value.code == "LINKS_INCOMPLETE"


def test_unknown_event_is_illegal():
    with pytest.raises(StateError) as caught:
        SESSION.step(idle(), object())
    assert caught.value.code == "ILLEGAL_TRANSITION"


def test_stored_state_is_read_strictly():
    data = to_json(accepted(1))
    for bad in (
        data[:-1],
        data.replace(b'"phase":"ACCEPTED"', b'"phase":"ACCEPTEE"'),
        data.replace(b'"attempt"', b'"attempd"'),
    ):
        with pytest.raises(LocalProtocolError) as caught:
            from_json(SessionState, bad)
        assert caught.value.code == "STATE_INVALID"


def test_event_of_maps_durable_messages_only():
    where = {"run_id": RUN, "cluster": "de", "attempt": 2}
    assert event_of(Prepare(**where, nonce=N["peer1"], ask=True), 1, N["fresh"]) == PeerPrepare(
        1, 2, N["peer1"], N["fresh"], ask=True
    )
    assert event_of(Accept(**where, link_digest=N["own"]), 1, "") == PeerAccept(1, 2, N["own"])
    assert event_of(Failed(**where, code="X", pair=("de-1",)), 2, "") == PeerFailed(2, 2, "X", ("de-1",))
    assert event_of(Committed(**where), 2, "") == PeerCommitted(2, 2)


def test_table_is_its_own_documentation():
    text = SESSION.as_markdown()
    assert text.startswith("| state | event | when | next | does |\n|---|---|---|---|---|\n")
    assert "| ACCEPTED | Retry | never starts a+1 itself | stays | ACCEPT(a) again, asking |" in text
    assert text.count("\n") == len(SESSION.rules) + 2
    diagram = SESSION.as_diagram()
    assert diagram.startswith("stateDiagram-v2\n")
    assert "    ACCEPTED --> COMMITTED: PeerAccept\n" in diagram
    assert all(phase in diagram for phase in PHASES)
