"""Attempts that run a program of rounds: what the links carry, exactly; loss, disorder, bounds; no wrong result ever."""

from __future__ import annotations

import dataclasses
import random

import msgspec
import numpy as np
import pytest

from mpc_ops.engine import Attempt, frames, stages
from mpc_ops.engine.frames import FrameInlet, FrameOutlet, LinkPlace, Place, frame_count
from mpc_ops.errors import LocalProtocolError, PeerProtocolError, PeerUnavailable
from mpc_ops.protocol.core.party import Message as StageMessage
from mpc_ops.protocol.core.terms import MAX_LIMIT_BYTES
from mpc_ops.session.messages import Flushed, Frame, KexConfirm, Seen, encode_message
from tests.support.active import flip, small_proofs
from tests.support.core import MEMBERS, RUN, hex32
from tests.support.rounds import NONCES, Trio, attempt_context, rounds_program

FLUSHED_BYTES = len(
    encode_message(Flushed(run_id=RUN, cluster="de", attempt=1, stage="region", link_mac=bytes(32), held_mac=bytes(32)))
)
PASSIVE_ROUNDS = 1 + 8 + 1 + 1  # product, sign of 64-bit values, opening, re-randomising
PASSIVE_BYTES = (
    8 * 3 + 8 * 241 + 8 + 8 * 3
)  # one word a plane: 241 AND gates of the comparison; three lanes of products


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_proofs(monkeypatch)


# ------------------------------------------------------------------------------------------------------- exact traffic


@pytest.mark.parametrize("security", ["active", "passive"])
def test_the_result_is_exact_and_both_ends_count_the_same_frames(security):
    trio = Trio(security=security).run()
    assert trio.result() == trio.plain() == [-1, -6, 0]
    assert trio.opened == {party: [1, 1, 0] for party in range(3)}
    links = {(party, link.party): link for party in range(3) for link in trio.attempts[party].totals()}
    for (party, peer), link in links.items():
        assert link.sent == links[peer, party].received
        assert link.sent.frames == sum((sender, to) == (party, peer) for sender, to, _ in trio.frames())
    for party, attempt in enumerate(trio.attempts):
        sent = [link.sent for link in attempt.totals()]
        count = sum(tally.frames for tally in sent)
        assert sum(tally.bytes for tally in sent) == attempt.sent_bytes + 2 * FLUSHED_BYTES + 16 * count
        assert [d.sent for d in attempt.done.links] == [tally.digest for tally in sent]
        assert party not in trio.errors


def test_rounds_and_bytes_of_a_passive_program_follow_from_its_protocols():
    trio = Trio(security="passive").run()
    assert {attempt.rounds for attempt in trio.attempts} == {PASSIVE_ROUNDS}
    assert {attempt.sent_bytes for attempt in trio.attempts} == {PASSIVE_BYTES}


def test_an_active_program_adds_flush_proof_and_accept_and_nothing_else():
    active, passive = Trio().run(), Trio(security="passive").run()
    steps = {message.step for _, _, message in active.frames()}
    plain = {message.step for _, _, message in passive.frames()}
    assert plain < steps
    assert {"flush0", "accept"} <= steps - plain
    assert len({attempt.rounds for attempt in active.attempts}) == 1
    assert active.attempts[0].rounds > PASSIVE_ROUNDS + 4


def test_a_linear_stage_sends_flushed_and_no_other_frame():
    def linear(inputs, flow, keys, attempt, opened):
        return (yield from stages.region_program(inputs, flow, keys, attempt))

    trio = Trio(program=linear).run()
    assert trio.result() == trio.plain()
    assert [(message.step, message.round) for _, _, message in trio.frames()] == [("flush", 0)] * 6
    assert {attempt.rounds for attempt in trio.attempts} == {0}


@pytest.mark.parametrize("piece", [40, 64, 1000])
def test_bodies_travel_in_pieces_and_come_back_whole(monkeypatch, piece):
    monkeypatch.setattr(frames, "PIECE_BYTES", piece)
    trio = Trio().run(rng=random.Random(piece))
    assert trio.result() == trio.plain()
    assert all(len(message.ciphertext) <= piece + 16 for _, _, message in trio.frames())
    assert max(message.piece for _, _, message in trio.frames()) > 1
    for attempt in trio.attempts:
        sent = [link.sent for link in attempt.totals()]
        assert (
            sum(tally.bytes for tally in sent)
            == attempt.sent_bytes + 2 * FLUSHED_BYTES + sum(tally.frames for tally in sent) * 16
        )


# ------------------------------------------------------------------------------------------------ what all must agree on


@pytest.mark.parametrize("change", [{"security": "passive"}, {"limit_bytes": 1 << 20}])
def test_operators_that_differ_in_security_or_batch_limit_share_no_key(change):
    trio = Trio(changes={"de-2": change}).run()
    assert not trio.done
    assert {error.code for error in trio.errors.values()} == {"KEX_INVALID"}
    assert not trio.frames()


def test_contexts_out_of_bounds_are_refused():
    for change in ({"limit_bytes": 0}, {"limit_bytes": MAX_LIMIT_BYTES + 1}, {"security": "none"}):
        with pytest.raises(LocalProtocolError, match="ATTEMPT_FOREIGN"):
            attempt_context(0, **change)


def test_batches_are_proven_early_at_the_limit():
    few, many = Trio().run(), Trio(limit_bytes=256).run()
    assert many.result() == many.plain()
    count = [sum(message.step.startswith("flush") for _, _, message in trio.frames()) for trio in (few, many)]
    assert count[1] > count[0]


# ---------------------------------------------------------------------------------------------- loss, disorder, bounds


@pytest.mark.parametrize("seed", range(5))
def test_loss_disorder_and_repetition_cost_nothing_but_repeats(seed):
    rng, trio = random.Random(seed), Trio()
    queue = [packet for party in rng.sample(range(3), 3) for packet in trio.start(party)]

    def travel(packet):
        return [] if rng.random() < 0.1 else [packet] * rng.choice((1, 1, 1, 2))

    for _ in range(400):
        trio.play(queue, rng=rng, travel=travel)
        if len(trio.done) == 3:
            break
        for party, attempt in enumerate(trio.attempts):
            queue += trio.call(party, attempt.repeat)
    assert not trio.errors
    assert trio.result() == trio.plain()
    for _, link in ((party, link) for party in range(3) for link in trio.attempts[party].totals()):
        peer = next(back for back in trio.attempts[link.party].totals() if back.sent == link.received)
        assert peer.sent.digest == link.received.digest


def test_a_new_connection_brings_back_at_once_what_the_old_one_swallowed():
    trio, cut = Trio(), []

    def travel(packet):
        sender, to, message = packet
        if isinstance(message, Frame) and message.round >= 4 and not cut:
            cut.append(1)
        if cut and {sender, to} == {0, 1}:
            return []
        return [packet]

    trio.run(travel=travel)
    assert cut
    assert trio.done == []
    again = trio.call(0, lambda: trio.attempts[0].repeat(lost=(1,))) + trio.call(
        1, lambda: trio.attempts[1].repeat(lost=(0,))
    )
    assert {type(message) for _, _, message in again} <= {Seen, KexConfirm}
    trio.play(again)
    assert trio.result() == trio.plain()


def test_frames_far_ahead_are_dropped_and_asked_for_again(monkeypatch):
    monkeypatch.setattr(frames, "MAX_AHEAD_FRAMES", 3)
    monkeypatch.setattr(frames, "PIECE_BYTES", 8)
    held, trio = [], Trio()

    def travel(packet):
        sender, to, message = packet
        # The first frames come last: everything before the gap is closed is ahead of its turn.
        if isinstance(message, Frame) and (sender, to) == (1, 0) and message.counter < 2 and len(held) < 2:
            held.append(packet)
            return []
        return [packet]

    trio.run(travel=travel)
    assert trio.done == []
    trio.play(held)
    assert trio.result() == trio.plain()
    assert any(isinstance(message, Seen) and message.lost for sender, to, message in trio.log if (sender, to) == (0, 1))


@pytest.mark.parametrize("place", range(0, 90, 9))
def test_a_withheld_frame_stops_everybody_and_blames_nobody(place):
    trio, seen = Trio(), []

    def travel(packet):
        if isinstance(packet[2], Frame):
            seen.append(packet[2])
            if len(seen) - 1 == place or (seen[place : place + 1] and packet[2] == seen[place]):
                return []
        return [packet]

    trio.run(travel=travel)
    assert not trio.errors
    assert len(trio.done) < 3


# ------------------------------------------------------------------------------------------------------------ tampering


def test_every_bent_frame_is_refused_and_names_the_link():
    honest = Trio().run()
    for index in range(len(honest.frames())):
        rng, count = random.Random(index), iter(range(1000))

        def travel(packet, index=index, rng=rng, count=count):
            sender, to, message = packet
            if isinstance(message, Frame) and next(count) == index:
                message = msgspec.structs.replace(message, ciphertext=flip(message.ciphertext, rng))
            return [(sender, to, message)]

        trio = Trio().run(travel=travel)
        assert {error.code for error in trio.errors.values()} == {"FRAME_INVALID"}, index
        ((party, error),) = trio.errors.items()
        assert trio.attempts[party].blamed(error)[0] in MEMBERS
        assert len(trio.done) < 3


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"round": 2}, "FRAME_INVALID"),
        ({"part": 1}, "FRAME_INVALID"),
        ({"step": "other"}, "FRAME_INVALID"),
        ({"stage": "region/9"}, "FRAME_INVALID"),
        ({"lane": 1}, "FRAME_INVALID"),
        ({"piece": 1}, "FRAME_OUT_OF_ORDER"),
        ({"total": 25}, "LENGTH_INVALID"),
        ({"total": 23}, "LENGTH_INVALID"),
        ({"ciphertext": bytes(39)}, "LENGTH_INVALID"),
        ({"ciphertext": bytes(40)}, "FRAME_INVALID"),
    ],
)
def test_a_frame_with_another_address_or_length_is_refused(change, code):
    def travel(packet):
        sender, to, message = packet
        if isinstance(message, Frame) and message.counter == 0 and (message.step, sender) == ("ring-products", 1):
            message = msgspec.structs.replace(message, **change)
        return [(sender, to, message)]

    trio = Trio(security="passive").run(travel=travel)
    assert trio.errors[0].code == code
    assert 0 not in trio.done


def bent(change):
    """An attempt of a party that lies in its own sealed messages: `change(message, number)` before they are sealed."""

    class Bent(Attempt):
        count = 0

        def _seal(self, messages):
            out = []
            for message in messages:
                out += super()._seal(change(message, self.count))
                self.count += 1
            return out

    return Bent


@pytest.mark.parametrize("party", [0, 1, 2])
def test_a_party_that_bends_any_of_its_messages_gets_no_wrong_result(party):
    total = sum(sender == party and message.round > 0 for sender, _, message in Trio().run().frames())
    for index in range(party, total, 5):
        rng = random.Random(index)

        def change(message, number, index=index, rng=rng):
            body = flip(bytes(message.body), rng) if number == index else message.body
            return [dataclasses.replace(message, body=body)]

        trio = Trio(types={party: bent(change)}).run()
        honest = sorted({0, 1, 2} - {party})
        assert all(trio.opened.get(one, [1, 1, 0]) == [1, 1, 0] for one in honest), (party, index)
        assert trio.combined(honest) in (None, trio.plain()), (party, index)
        assert len(trio.done) < 3, (party, index)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda body: body[:-1], "LENGTH_INVALID"),
        (lambda body: body + b"\0", "LENGTH_INVALID"),
    ],
)
def test_a_sealed_body_of_another_length_is_refused(change, code):
    def alter(message, number):
        return [dataclasses.replace(message, body=change(bytes(message.body)) if number == 2 else message.body)]

    trio = Trio(types={1: bent(alter)}).run()
    assert trio.errors[0].code == code
    assert trio.attempts[0].blamed(trio.errors[0]) == ("de-2",)


@pytest.mark.parametrize(
    ("step", "code"),
    [("below/9", "MESSAGE_FOREIGN"), ("below/0", "MESSAGE_CHANGED"), ("ring-products", "MESSAGE_FOREIGN")],
)
def test_a_message_too_many_is_refused(step, code):
    def alter(message, number):
        if number != 2:
            return [message]
        part = 0 if code == "MESSAGE_CHANGED" else 1
        place = dataclasses.replace(message.address, step=step if part else message.address.step, part=part)
        return [message, StageMessage(place, b"\1" * len(message.body))]

    trio = Trio(types={1: bent(alter)}).run()
    assert trio.errors[0].code in {code, "FRAME_OUT_OF_ORDER"}


def test_nothing_may_come_after_the_last_round():
    class Chatty(Attempt):
        def _advance(self):
            if self._program is not None and self._program.done and self._output is None:
                extra = self._links[0].send(Place("region/1", "more", self._program.rounds, 0), b"12345678")
                return [(0, frame) for frame in extra] + super()._advance()
            return super()._advance()

    trio = Trio(types={1: Chatty}).run()
    assert trio.errors[0].code == "FRAME_OUT_OF_ORDER"
    assert 0 not in trio.done


def test_an_error_is_final_for_its_attempt():
    trio = Trio().run(travel=lambda packet: [packet])
    first = Trio()
    first.start(0)
    offer = next(message for sender, to, message in trio.log if (sender, to) == (1, 2))
    for _ in range(2):
        with pytest.raises(PeerProtocolError) as caught:
            first.attempts[0].receive(1, offer)
        assert caught.value.code == "KEX_INVALID"
    assert first.attempts[0].repeat() != []


# ---------------------------------------------------------------------------------------------------- stage discipline


def test_nothing_that_crosses_is_built_before_accept_of_both_others(monkeypatch):
    built = []
    true = stages.build_crossing
    monkeypatch.setattr(stages, "build_crossing", lambda *args: built.append(1) or true(*args))

    def travel(packet):
        message = packet[2]
        last = isinstance(message, Frame) and (message.stage, message.step) == ("region/1", "accept")
        return [] if last and packet[0] == 2 else [packet]

    trio = Trio().run(travel=travel)
    assert trio.opened[0] == [1, 1, 0]
    assert len(built) == 1  # the one whose ACCEPT was lost has both others'
    assert not trio.done


def test_a_program_that_ends_without_its_barrier_gives_nothing():
    def hasty(inputs, flow, keys, attempt, opened):
        one, *_ = stages.input_shares(inputs, flow)
        yield from ()
        return stages.region_stage(inputs, keys, attempt) if one is not None else None

    trio = Trio(program=hasty).run()
    assert {error.code for error in trio.errors.values()} == {"STAGE_ORDER"}
    assert not trio.frames()


def test_what_crosses_is_fresh():
    trio = Trio().run()
    again = Trio(values=trio.values).run()
    for party in range(3):
        one, other = (t.attempts[party].done.output.share for t in (trio, again))
        assert not np.array_equal(one.first, other.first)


def test_closing_forgets_keys_and_shares_and_ignores_what_comes():
    trio = Trio()
    queue = [packet for party in range(3) for packet in trio.start(party)]
    for _ in range(30):
        sender, to, message = queue.pop(0)
        queue += trio.call(to, lambda to=to, s=sender, m=message: trio.attempts[to].receive(s, m))
    trio.attempts[0].close()
    assert trio.attempts[0].repeat() == []
    assert all(link.keys is None for link in trio.attempts[0]._links.values())
    sender, to, message = next(packet for packet in queue if packet[1] == 0)
    assert trio.attempts[0].receive(sender, message) == []
    trio.attempts[0].close()


# --------------------------------------------------------------------------------------------------------- one direction

LINK = LinkPlace(RUN, "de", 1, "de-1", "de-2")
KEY = bytes(range(32))


def seen(frames, *, lost=False):
    return Seen(run_id=RUN, cluster="de", attempt=1, frames=frames, lost=lost)


def test_confirmed_frames_are_forgotten_and_lost_ones_come_again_as_they_were():
    outlet = FrameOutlet(LINK, KEY)
    sent = [frame for n in range(5) for frame in outlet.send(Place("s", "x", 1, n), bytes(100))]
    assert outlet.confirmed(seen(2)) == []  # it moved: what follows is under way
    assert outlet.confirmed(seen(2)) == sent[2:]  # it did not
    assert outlet.confirmed(seen(1)) == []  # overtaken
    assert outlet.confirmed(seen(4, lost=True)) == sent[4:]
    assert outlet.confirmed(seen(5, lost=True)) == []
    with pytest.raises(PeerProtocolError, match="FRAME_OUT_OF_ORDER"):
        outlet.confirmed(seen(6))


def test_frames_that_are_no_longer_kept_are_a_transient_loss():
    outlet = FrameOutlet(LINK, KEY, repeat_bytes=400)
    for number in range(8):
        outlet.send(Place("s", "x", 1, number), bytes(100))
    assert outlet.confirmed(seen(4)) == []
    with pytest.raises(PeerUnavailable) as caught:
        outlet.confirmed(seen(4, lost=True))
    assert caught.value.code == "FRAMES_LOST"
    assert caught.value.transient
    assert len(outlet.confirmed(seen(5, lost=True))) == 3


def test_what_waits_is_bounded_in_frames_and_bytes(monkeypatch):
    outlet = FrameOutlet(LINK, KEY)
    sent = [frame for n in range(12) for frame in outlet.send(Place("s", "x", 1, n), bytes(100))]
    for name, bound, room in (("MAX_AHEAD_FRAMES", 4, 4), ("MAX_AHEAD_BYTES", 350, 3)):
        with monkeypatch.context() as patch:
            patch.setattr(frames, name, bound)
            inlet = FrameInlet(LINK)
            inlet.unlock(KEY)
            for frame in sent[1:]:
                inlet.take(frame)
            assert list(inlet.bodies()) == []
            assert inlet.due() == []
            inlet.take(sent[0])
            assert len(list(inlet.bodies())) == 1 + room
            assert inlet.due() == [seen(1 + room, lost=True)]
            assert inlet.due() == []


def test_a_peer_hears_by_itself_that_it_may_forget(monkeypatch):
    monkeypatch.setattr(frames, "CONFIRM_BYTES", 300)
    outlet, inlet = FrameOutlet(LINK, KEY), FrameInlet(LINK)
    inlet.unlock(KEY)
    said = []
    for number in range(9):
        for frame in outlet.send(Place("s", "x", 1, number), bytes(84)):
            inlet.take(frame)
        assert len(list(inlet.bodies())) == 1
        said += inlet.due()
    assert said == [seen(3), seen(6), seen(9)]


def test_bodies_have_one_to_max_body_bytes():
    outlet = FrameOutlet(LINK, KEY)
    for body in (b"", bytes(frames.MAX_BODY_BYTES + 1)):
        with pytest.raises(ValueError, match="bytes"):
            outlet.send(Place("s", "x"), body)
    assert frame_count(frames.PIECE_BYTES) == 1
    assert frame_count(frames.PIECE_BYTES + 1) == 2
    assert frames.PIECE_BYTES < 1 << 20
    body = random.Random(1).randbytes(2 * frames.PIECE_BYTES + 5)
    sent, inlet = outlet.send(Place("s", "big"), memoryview(body)), FrameInlet(LINK)
    inlet.unlock(KEY)
    assert len(sent) == 3
    for frame in sent:
        assert len(encode_message(frame)) <= 1 << 20
        inlet.take(frame)
    assert [arrived.data for arrived in inlet.bodies()] == [body]


def test_printed_forms_show_no_content():
    trio = Trio(values=[[0x5EC2E7, 1, 2]], program=rounds_program).run()
    texts = [
        repr(item) for attempt in trio.attempts for item in (attempt, attempt.done.output, *attempt._links.values())
    ]
    texts += [repr(link._inlet) + repr(link._outlet) for link in trio.attempts[0]._links.values()]
    assert all("5ec2e7" not in text.lower() and str(0x5EC2E7) not in text for text in texts)
    assert NONCES[0] == hex32("n0")
