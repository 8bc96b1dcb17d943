"""Addition, crossing and result parts as pure functions: lengths, refusals, names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mpc_ops.errors import Abort, LocalProtocolError, NotYet, PeerProtocolError
from mpc_ops.protocol.sums import (
    CrossRoute,
    ResultContext,
    Share,
    add,
    add_many,
    build_crossing,
    build_result,
    combine_parts,
    crossing_frame_bytes,
    open_crossing,
    result_part_bytes,
    zero_share,
)
from mpc_ops.ring import encode_signed, zeros
from tests.support.core import RUN, open_shares, pair_keys, shares_of

LANES = 7
VALUES = encode_signed([0, 1, -1, 2**62, -(2**62), 12345, -54321], -(2**62), 2**62)
ROUTE = CrossRoute(
    run_id=RUN, source="de", target="group", crossing="cross", lanes=LANES,
    senders=("de-1", "de-2", "de-3"), receivers=("nl-1", "ch-1", "sg-1"),
)  # fmt: skip
RESULT = ResultContext(
    run_id=RUN, cluster="group", recipient="group-reporting", attempt=1, lanes=LANES, members=("nl-1", "ch-1", "sg-1")
)


def keys_of(party, name, seed="a"):
    return tuple(getattr(pair_keys(seed, component), name) for component in (party, (party + 1) % 3))


def frames_of(values=VALUES, *, route=ROUTE, attempt=1, seed="a"):
    return [build_crossing(share, keys_of(share.party, "prg", seed), route, attempt) for share in shares_of(values)]


def to_receiver(frames, receiver):
    return {sender: frames[sender][receiver] for sender in range(3)}


def test_addition_is_local_and_exact():
    other = encode_signed([5, 6, 7, 8, 9, 10, 11], 0, 20)
    sums = [add(one, two) for one, two in zip(shares_of(VALUES), shares_of(other), strict=True)]
    assert np.array_equal(open_shares(sums), VALUES + other)
    assert not open_shares([add_many([], party, LANES) for party in range(3)]).any()


def test_shares_of_other_positions_and_lengths_do_not_mix():
    one, two, _ = shares_of(VALUES)
    with pytest.raises(LocalProtocolError, match="PARTY_INVALID"):
        add(one, two)
    with pytest.raises(LocalProtocolError, match="RING_LENGTH"):
        add(one, zero_share(0, LANES + 1))
    with pytest.raises(LocalProtocolError, match="RING_LENGTH"):
        Share(0, zeros(1), zeros(2))
    with pytest.raises(LocalProtocolError, match="PARTY_INVALID"):
        Share(3, zeros(1), zeros(1))


def test_crossing_gives_a_fresh_sharing_of_the_same_vector():
    frames = frames_of()
    shares = [open_crossing(to_receiver(frames, receiver), ROUTE, receiver) for receiver in range(3)]
    assert np.array_equal(open_shares(shares), VALUES)
    again = [open_crossing(to_receiver(frames_of(seed="b"), receiver), ROUTE, receiver) for receiver in range(3)]
    assert not np.array_equal(shares[0].first, again[0].first)


@pytest.mark.parametrize("lanes", [1, 7, 1000])
def test_crossing_frames_have_the_documented_lengths(lanes):
    route = dataclasses.replace(ROUTE, lanes=lanes)
    frames = frames_of(np.zeros(lanes, dtype=np.uint64), route=route)
    for sent in frames:
        assert [len(frame) for frame in sent] == [144, 112 + 8 * lanes, 112 + 8 * lanes]
        assert [len(frame) for frame in sent] == [crossing_frame_bytes(lanes, receiver) for receiver in range(3)]
        assert sum(map(len, sent)) == 368 + 16 * lanes


def test_seeds_of_two_attempts_differ():
    shares = shares_of(VALUES)
    first, second = (build_crossing(shares[0], keys_of(0, "prg"), ROUTE, attempt) for attempt in (1, 2))
    assert first[0][48:80] != second[0][48:80]


@pytest.mark.parametrize("sender", [0, 1, 2])
@pytest.mark.parametrize("receiver", [0, 1, 2])
def test_every_altered_byte_of_a_frame_is_caught(sender, receiver):
    frames = to_receiver(frames_of(), receiver)
    good = frames[sender]
    for place in range(len(good)):
        frames[sender] = good[:place] + bytes([good[place] ^ 0x80]) + good[place + 1 :]
        with pytest.raises((Abort, PeerProtocolError)) as caught:
            open_crossing(frames, ROUTE, receiver)
        before, after = (ROUTE.senders[(sender + step) % 3] for step in (-1, 1))
        if place < 48:
            assert caught.value.code == "CROSS_INVALID"
            assert caught.value.ids["party"] == ROUTE.senders[sender]
        elif place < len(good) - 32:
            assert (caught.value.code, caught.value.ids["pair"]) == (
                "CROSS_MISMATCH",
                f"{ROUTE.senders[sender]},{before}",
            )
        else:
            assert (caught.value.code, caught.value.ids["pair"]) == (
                "CROSS_MISMATCH",
                f"{after},{ROUTE.senders[sender]}",
            )


def test_frames_of_another_length_place_or_attempt_name_the_sender():
    frames = frames_of()
    cases = {
        "short": frames[1][0][:-1],
        "long": frames[1][0] + b"\0",
        "another receiver's": frames[1][1],
        "another sender's": frames[2][0],
        "another run's": frames_of(route=dataclasses.replace(ROUTE, run_id="0" * 64))[1][0],
        "another attempt's": frames_of(attempt=2)[1][0],
    }
    for name, bad in cases.items():
        with pytest.raises(PeerProtocolError) as caught:
            open_crossing({**to_receiver(frames, 0), 1: bad}, ROUTE, 0)
        assert (name, caught.value.code, caught.value.ids["party"]) == (name, "CROSS_INVALID", "de-2")


def test_a_crossing_needs_all_three_senders_and_the_right_lanes():
    frames = to_receiver(frames_of(), 0)
    del frames[2]
    with pytest.raises(LocalProtocolError, match="CROSS_INCOMPLETE"):
        open_crossing(frames, ROUTE, 0)
    with pytest.raises(LocalProtocolError, match="RING_LENGTH"):
        build_crossing(zero_share(0, LANES + 1), keys_of(0, "prg"), ROUTE, 1)


# -------------------------------------------------------------------------------------------------------------- result


def results(values=VALUES):
    made = [build_result(share, keys_of(share.party, "commit"), RESULT) for share in shares_of(values)]
    commitments = {party: said for party, (said, _) in enumerate(made)}
    return {party: part for party, (_, part) in enumerate(made)}, commitments


def test_result_parts_combine_and_have_the_documented_length():
    parts, commitments = results()
    assert np.array_equal(combine_parts(RESULT, parts, commitments), VALUES)
    assert {len(part) for part in parts.values()} == {108 + 16 * LANES} == {result_part_bytes(LANES)}


def test_both_holders_commit_to_the_same_and_nobody_to_what_it_does_not_hold():
    _, commitments = results()
    for index in range(3):
        assert commitments[index][index] == commitments[(index - 1) % 3][index]
        assert commitments[(index + 1) % 3][index] is None


def test_waiting_for_two_parts_and_three_commitments():
    parts, commitments = results()
    with pytest.raises(NotYet) as caught:
        combine_parts(RESULT, {0: parts[0]}, commitments)
    assert (caught.value.code, caught.value.got) == ("RESULT_INCOMPLETE", "3 commitments and 1 parts")
    with pytest.raises(NotYet, match="RESULT_INCOMPLETE"):
        combine_parts(RESULT, parts, {0: commitments[0], 1: commitments[1]})


@pytest.mark.parametrize("party", [0, 1, 2])
@pytest.mark.parametrize("missing", [None, 0, 1, 2])
def test_every_altered_byte_of_a_part_is_caught_with_two_parts_and_with_three(party, missing):
    if party == missing:
        return
    parts, commitments = results()
    good = parts.pop(party)
    parts = {number: part for number, part in parts.items() if number != missing}
    for place in range(len(good)):
        bad = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        with pytest.raises((Abort, PeerProtocolError)) as caught:
            combine_parts(RESULT, {**parts, party: bad}, commitments)
        name = RESULT.members[party]
        if place < 44:
            assert (caught.value.code, caught.value.ids["party"]) == ("RESULT_INVALID", name)
        else:
            assert caught.value.code == "RESULT_MISMATCH"
            assert name in caught.value.ids["pair"].split(",")


def test_parts_and_commitments_of_another_form_name_the_operator():
    parts, commitments = results()
    for bad in (parts[1][:-1], parts[1] + b"\0", parts[2]):
        with pytest.raises(PeerProtocolError) as caught:
            combine_parts(RESULT, {**parts, 1: bad}, commitments)
        assert (caught.value.code, caught.value.ids["party"]) == ("RESULT_INVALID", "ch-1")
    for said in ((None, None, None), commitments[2], ("0" * 64,) * 3, commitments[1][:2]):
        with pytest.raises(PeerProtocolError) as caught:
            combine_parts(RESULT, parts, {**commitments, 1: said})
        assert (caught.value.code, caught.value.ids["party"]) == ("RESULT_INVALID", "ch-1")


def test_a_part_of_another_attempt_or_recipient_is_refused():
    shares = shares_of(VALUES)
    parts, commitments = results()
    for other in (dataclasses.replace(RESULT, attempt=2), dataclasses.replace(RESULT, recipient="somebody")):
        _, part = build_result(shares[1], keys_of(1, "commit"), other)
        with pytest.raises(PeerProtocolError, match="RESULT_INVALID"):
            combine_parts(RESULT, {**parts, 1: part}, commitments)
