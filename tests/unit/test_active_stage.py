"""The stage discipline and the lock-step party: what must not be possible, then what is."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.protocol.core.opening import open_passive, open_to, open_to_all
from mpc_ops.protocol.core.party import MAX_EARLY_ROUNDS, MAX_WAITING_MESSAGES, Address, Message, Party, Round, together
from mpc_ops.protocol.core.session import ActiveSession, PassiveSession
from mpc_ops.protocol.core.shares import BooleanPlanes, PassiveBooleanShare
from mpc_ops.protocol.core.stage import BarrierToken
from tests.support.active import MEMBERS, keys_of, run_active, share_bits, share_ring, terms_of

VALUES = [5, 0, 255, 17]


def code_of(action) -> str:
    with pytest.raises(LocalProtocolError) as caught:
        action()
    return caught.value.code


def opening(shares):
    def program(session):
        stage = session.stage("one")
        token = yield from stage.barrier()
        return (yield from open_to_all(stage, token, [shares[stage.party]]))

    return program


def test_an_opening_costs_its_values_and_one_digest_and_the_barrier_two_rounds() -> None:
    out = run_active(opening(share_bits(VALUES, 8)))
    assert out.done
    assert all(list(out.results[party][0]) == VALUES for party in range(3))
    assert out.rounds == [3, 3, 3]
    assert out.sent_bytes == [64 + 64 + 8 * 8 + 32] * 3


def test_a_ring_share_opens_to_one_party_only() -> None:
    shares = share_ring([1, -1])

    def program(session):
        stage = session.stage("one")
        token = yield from stage.barrier()
        return (yield from open_to(stage, token, 1, [shares[stage.party]]))

    out = run_active(program)
    assert [out.results[0], out.results[2]] == [None, None]
    assert list(out.results[1][0]) == [1, 2**64 - 1]
    assert out.sent_bytes == [128 + 16, 128, 128 + 32]


def test_no_opening_without_the_token() -> None:
    shares = share_bits(VALUES, 8)
    for forged in (None, object(), True):

        def program(session, forged=forged):
            stage = session.stage("one")
            yield from stage.barrier()
            return (yield from open_to_all(stage, forged, [shares[stage.party]]))

        out = run_active(program)
        assert out.codes() == {"BARRIER_MISSING"}
        assert not out.results
    assert code_of(lambda: BarrierToken(None, object())) == "BARRIER_MISSING"


def test_a_token_is_spent_once_and_serves_its_own_stage_only() -> None:
    shares = share_bits(VALUES, 8)

    def twice(session):
        stage = session.stage("one")
        token = yield from stage.barrier()
        yield from open_to_all(stage, token, [shares[stage.party]])
        yield from open_to_all(stage, token, [shares[stage.party]])

    def other_stage(session):
        stage = session.stage("one")
        token = yield from stage.barrier()
        stage.close()
        yield from open_to_all(session.stage("two"), token, [shares[stage.party]])

    for program in (twice, other_stage):
        assert run_active(program).codes() == {"BARRIER_MISSING"}


def test_no_gate_after_the_barrier_and_no_stage_left_open() -> None:
    def late(session):
        stage = session.stage("one")
        yield from stage.barrier()
        stage.streams("and", 1)

    def open_ended(session):
        session.stage("one").streams("and", 1)
        return 1
        yield

    def overlapping(session):
        session.stage("one")
        session.stage("two")
        yield

    def same_name(session):
        stage = session.stage("one")
        yield from stage.barrier()
        stage.close()
        session.stage("one")

    for program in (late, open_ended, overlapping, same_name):
        assert run_active(program).codes() == {"STAGE_ORDER"}


def test_after_an_error_keys_are_gone_and_the_session_is_over() -> None:
    session = ActiveSession(terms_of(0), keys_of(0))
    seen = []

    def program(own):
        seen.append(own.stage("one"))
        raise LocalProtocolError("STAGE_ORDER", "planned")
        yield

    party = Party(0, session.terms.sid, MEMBERS, session.run(program))
    assert code_of(party.start) == "STAGE_ORDER"
    assert code_of(lambda: session.stage("two")) == "STAGE_ORDER"
    assert code_of(lambda: seen[0].streams("x", 1)) == "STAGE_ORDER"
    assert code_of(lambda: party.receive(None)) == "PARTY_OVER"


@pytest.mark.parametrize("limit", [0, -1, (1 << 26) + 1])
def test_a_batch_has_a_limit(limit: int) -> None:
    assert code_of(lambda: terms_of(0, limit_bytes=limit)) == "BATCH_TOO_LARGE"


def test_passive_and_active_have_no_way_into_each_other() -> None:
    passive = PassiveSession(terms_of(0), keys_of(0)).stage("one")
    active = ActiveSession(terms_of(0), keys_of(0)).stage("one")
    mine = share_bits(VALUES, 8)[0]
    theirs = PassiveBooleanShare(mine.session, 0, mine.count, mine.first, mine.second)
    assert code_of(lambda: next(open_passive(passive, [mine]))) == "SHARE_FOREIGN"
    assert code_of(lambda: next(open_to_all(active, None, [theirs]))) == "SHARE_FOREIGN"
    assert code_of(lambda: BooleanPlanes(mine.session, 0, mine.count, mine.first, mine.second)) == "SHARE_FOREIGN"
    assert not isinstance(passive, type(active))
    assert not hasattr(passive, "barrier")


def test_streams_differ_by_call_stage_attempt_and_session() -> None:
    seen = set()
    for attempt in (1, 2):
        session = ActiveSession(terms_of(0, attempt=attempt), keys_of(0))
        for name in ("a", "b"):
            stage = session.stage(name)
            for _ in range(2):
                first, second = stage.streams("and", 2)
                seen |= {first.tobytes(), second.tobytes()}
            stage._phase = "closed"
    assert len(seen) == 16


def test_neighbours_have_the_same_stream_of_their_common_component() -> None:
    stages = [ActiveSession(terms_of(party), keys_of(party)).stage("a") for party in range(3)]
    drawn = [stage.streams("and", 4) for stage in stages]
    for party in range(3):
        assert np.array_equal(drawn[party][1], drawn[(party + 1) % 3][0])


def test_coins_need_flushed_and_are_fresh_and_unknown_to_the_prover() -> None:
    stage = ActiveSession(terms_of(0), keys_of(0)).stage("one")
    assert code_of(lambda: stage.coin(0, "and", 1, "1")) == "COIN_ORDER"
    stage._flushed = range(1)
    assert len(stage.coin(0, "and", 1, "1")) == 32
    assert code_of(lambda: stage.coin(0, "and", 1, "1")) == "COIN_ORDER"
    assert code_of(lambda: stage.coin(0, "and", 0, "1")) == "COIN_ORDER"
    assert code_of(lambda: stage.coin(1, "and", 1, "1")) == "COIN_ORDER"
    stages = [ActiveSession(terms_of(party), keys_of(party)).stage("one") for party in range(3)]
    for item in stages:
        item._flushed = range(1)
    for prover in range(3):
        left, right = stages[(prover - 1) % 3], stages[(prover + 1) % 3]
        assert left.coin(0, "and", prover, "1") == right.coin(0, "and", prover, "1")


# ---------------------------------------------------------------------------------------------------- the party


def ring_party() -> Party:
    def program():
        for number in range(3):
            yield (Round("s", f"step{number}", to_prev=b"ab", expect_next=2),)
        return "done"

    return Party(0, "sid", MEMBERS, program())


def message(number: int, body: bytes = b"xy", **other) -> Message:
    place = {
        "session": "sid",
        "stage": "s",
        "round": number,
        "part": 0,
        "step": f"step{number - 1}",
        "sender": 1,
        "receiver": 0,
    }
    return Message(Address(**{**place, **other}), body)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (message(1, session="other"), "MESSAGE_FOREIGN"),
        (message(1, receiver=2), "MESSAGE_FOREIGN"),
        (message(1, sender=0), "MESSAGE_FOREIGN"),
        (message(1, sender=7), "MESSAGE_FOREIGN"),
        (message(1, sender=2), "MESSAGE_FOREIGN"),
        (message(1, stage="t"), "MESSAGE_FOREIGN"),
        (message(1, step="step1"), "MESSAGE_FOREIGN"),
        (message(1, part=1), "MESSAGE_FOREIGN"),
        (message(1, part=-1), "FRAME_OUT_OF_ORDER"),
        (message(2 + MAX_EARLY_ROUNDS), "FRAME_OUT_OF_ORDER"),
        (message(0), "FRAME_OUT_OF_ORDER"),
        (message(1, b""), "FRAME_OUT_OF_ORDER"),
        (message(1, b"x"), "LENGTH_INVALID"),
        (message(1, b"xyz"), "LENGTH_INVALID"),
    ],
)
def test_a_message_that_does_not_belong_there_ends_the_run(bad: Message, code: str) -> None:
    party = ring_party()
    party.start()
    with pytest.raises(PeerProtocolError) as caught:
        party.receive(bad)
    assert caught.value.code == code
    assert code_of(lambda: party.receive(message(1))) == "PARTY_OVER"
    assert code_of(lambda: party.result) == "PARTY_NOT_DONE"


def test_the_first_message_at_an_address_is_final_and_early_ones_wait() -> None:
    party = ring_party()
    assert party.receive(message(2)) == []
    assert [sent.address.round for sent in party.start()] == [1]
    assert [sent.address.round for sent in party.receive(message(1))] == [2, 3]
    assert party.receive(message(1)) == []
    with pytest.raises(PeerProtocolError, match="MESSAGE_CHANGED"):
        party.receive(message(2, b"zz"))


def test_what_waits_is_bounded(monkeypatch) -> None:
    party = ring_party()
    party.start()
    for number in range(MAX_WAITING_MESSAGES):
        party.receive(message(3, step=f"made up {number}"))
    with pytest.raises(PeerProtocolError, match="FRAME_OUT_OF_ORDER"):
        party.receive(message(3, step="one more"))
    monkeypatch.setattr("mpc_ops.protocol.core.party.MAX_WAITING_BYTES", 3)
    party = ring_party()
    party.start()
    party.receive(message(2))
    with pytest.raises(PeerProtocolError, match="FRAME_OUT_OF_ORDER"):
        party.receive(message(3))


def test_a_party_ends_and_counts() -> None:
    party = ring_party()
    party.start()
    for number in (1, 2, 3):
        party.receive(message(number))
    assert (party.done, party.result, party.rounds, party.sent_bytes) == (True, "done", 3, 6)
    assert party.receive(message(3)) == []


def test_together_shares_rounds_and_keeps_results_in_order() -> None:
    def protocol(name, length):
        got = []
        for number in range(length):
            inbound = yield (Round("s", f"{name}{number}", to_prev=b"1"),)
            got.append(len(inbound))
        return name, got

    def nothing():
        return 0
        yield

    joint = together(protocol("a", 2), nothing(), protocol("b", 1))
    rounds = next(joint)
    assert [item.step for item in rounds] == ["a0", "b0"]
    rounds = joint.send(("x", "y"))
    assert [item.step for item in rounds] == ["a1"]
    with pytest.raises(StopIteration) as stop:
        joint.send(("z",))
    assert stop.value.value == [("a", [1, 1]), 0, ("b", [1])]


def test_any_order_of_delivery_gives_the_same_result() -> None:
    for seed in range(10):
        out = run_active(opening(share_bits(VALUES, 8)), rng=random.Random(seed))
        assert all(list(out.results[party][0]) == VALUES for party in range(3))


def test_no_printed_form_shows_a_secret() -> None:
    share = share_bits([1, 2, 3], 8)[0]
    ring = share_ring([12345])[0]
    texts = [repr(share), repr(ring), repr(keys_of(0)), repr(ActiveSession(terms_of(0), keys_of(0)))]
    texts.append(repr(Message(Address("s", "s", 1, 0, "x", 0, 1), b"secret")))
    assert all("secret" not in text and "array" not in text and "12345" not in text for text in texts)
