"""One corrupt party per cluster: each alteration is caught, the pair is named, and nothing is published."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from mpc_ops.protocol.sums import Share
from mpc_ops.ring import to_bytes, zeros
from mpc_ops.sharing import Component, read_part, share
from tests.support.sim import Notice, Owner, Simulation, small_federation

OWNERS = [Owner("de-a", "de", [5, -6]), Owner("cn-a", "cn", [7, 8])]
HEADER, CHECK = 48, 32


def add_one(component: Component, lanes: int = 2) -> Component:
    values = component.expand(lanes).copy()
    values[0] += 1
    return Component(explicit=values)


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def play(tamper, owners=OWNERS) -> Simulation:
    sim = Simulation(list(owners), tamper=tamper)
    sim.run(rounds=12)
    assert sim.result is None
    assert not sim.results
    return sim


@pytest.mark.parametrize("party", [0, 1, 2])
@pytest.mark.parametrize("which", ["first", "second"])
def test_operator_that_alters_a_component_is_caught_before_anything_leaves_the_region(party, which):
    name = f"de-{party + 1}"
    other = f"de-{(party - 1 if which == 'first' else party + 1) % 3 + 1}"
    sim = play({(name, "part"): lambda part: dataclasses.replace(part, **{which: add_one(getattr(part, which))})})
    assert sim.states[other][:2] == ("FAILED", "STAGE_MISMATCH")
    assert set(sim.states[other][2]) == {name, other}
    # China's region crossed; of Germany nothing did, and the group stopped.
    assert not any(key.startswith("cross/de") for node in sim.nodes.values() for key in node.disk)
    assert {sim.phases()[node] for node in sim.clusters["group"]} == {"FAILED"}


def alter_frame(receiver: int, place: int):
    return lambda frames: tuple(
        flip(frame, place) if index == receiver else frame for index, frame in enumerate(frames)
    )


@pytest.mark.parametrize("receiver", [0, 1, 2])
@pytest.mark.parametrize("party", [0, 1, 2])
def test_operator_that_alters_a_reshared_sub_share_is_caught_by_the_receiver(party, receiver):
    name, checker = f"de-{party + 1}", f"de-{(party - 1) % 3 + 1}"
    sim = play({(name, "crossings"): alter_frame(receiver, HEADER)})
    group = sim.clusters["group"]
    assert sim.states[group[receiver]] == ("FAILED", "CROSS_MISMATCH", (name, checker))
    assert {sim.phases()[node] for node in group} == {"FAILED"}
    assert not sim.parts


@pytest.mark.parametrize("receiver", [0, 1, 2])
def test_operator_that_alters_a_check_hash_is_caught_and_the_same_pair_named(receiver):
    sim = play({("de-1", "crossings"): alter_frame(receiver, -CHECK)})
    # de-1 checks what de-2 owes for component 1.
    assert sim.states[sim.clusters["group"][receiver]] == ("FAILED", "CROSS_MISMATCH", ("de-2", "de-1"))


def test_operator_that_sends_different_sub_shares_to_two_receivers_is_caught():
    # B_0 gets (s0, s1) and B_1 (s1, x2): another s1 at B_1 alone would make component 1 differ between its holders.
    sim = play({("de-1", "crossings"): alter_frame(1, HEADER)})
    assert sim.states["ch-1"] == ("FAILED", "CROSS_MISMATCH", ("de-1", "de-3"))


def test_operator_that_sends_a_short_frame_is_named_alone():
    sim = play({("de-3", "crossings"): lambda frames: (frames[0][:-1], *frames[1:])})
    assert sim.states["nl-1"] == ("FAILED", "CROSS_INVALID", ("de-3",))


def test_operator_that_replays_a_frame_of_another_receiver_is_named():
    sim = play({("de-3", "crossings"): lambda frames: (frames[0], frames[2], frames[1])})
    assert sim.states["ch-1"] == ("FAILED", "CROSS_INVALID", ("de-3",))


@pytest.mark.parametrize("party", [0, 1, 2])
@pytest.mark.parametrize("place", ["first copy", "second copy", "salt"])
def test_operator_that_alters_a_result_part_is_caught_by_the_recipient(party, place):
    members = ("nl-1", "ch-1", "sg-1")
    offset = {"salt": 44, "first copy": 108, "second copy": 108 + 16}[place]
    sim = play({(members[party], "result part"): lambda part: flip(part, offset)})
    index = (party + 1) % 3 if place == "second copy" else party
    assert sim.recipient_error is not None
    assert sim.recipient_error.code == "RESULT_MISMATCH"
    assert sim.recipient_error.ids["pair"] == f"{members[index]},{members[(index - 1) % 3]}"


def test_operator_that_commits_to_another_result_is_caught_even_if_only_two_parts_arrive():
    def lie(commitments):
        return tuple(None if item is None else "0" * 64 for item in commitments)

    sim = play({("ch-1", "result commitment"): lie})
    assert sim.recipient_error.code == "RESULT_MISMATCH"
    sim.recipient_error = None
    sim.fetch(using=(0, 2))
    assert sim.recipient_error.code == "RESULT_MISMATCH"
    assert sim.result is None


def test_two_parts_and_three_commitments_suffice_and_keep_their_integrity():
    for missing in range(3):
        using = tuple(party for party in range(3) if party != missing)
        sim = Simulation(list(OWNERS))
        sim.run()
        sim.result = None
        sim.fetch(using=using)
        assert sim.result.tolist() == [12, 2]
        # The component that only one of the two holds is checked against the commitment that its absent holder signed.
        name = ("nl-1", "ch-1", "sg-1")[using[0]]
        for offset in (108, 108 + 16):
            bad = Simulation(
                list(OWNERS), tamper={(name, "result part"): lambda part, offset=offset: flip(part, offset)}
            )
            bad.run()
            bad.result, bad.recipient_error = None, None
            bad.fetch(using=using)
            assert bad.result is None
            assert bad.recipient_error.code == "RESULT_MISMATCH"


@pytest.mark.parametrize("party", [0, 1, 2])
def test_owner_with_inconsistent_components_is_rejected_and_named(party):
    name = f"de-{party + 1}"
    if party == 1:
        change = {"second": add_one}
    else:
        change = {"first": lambda part: Component(seed=bytes(32)) if part.kind == "seed" else add_one(part)}

    def alter(part):
        return dataclasses.replace(part, **{key: make(getattr(part, key)) for key, make in change.items()})

    sim = play({("de-a", f"part for {name}"): alter})
    filing = sim.nodes[name].filing("de-a")
    assert (filing.phase, filing.code, filing.blamed) == ("REJECTED", "COMMITMENT_MISMATCH", ("de-a",))
    assert not sim.closable()
    assert not any(node.session() for node in sim.nodes.values())


def test_owner_that_tells_two_holders_different_things_is_disputed_and_named():
    sim = Simulation(list(OWNERS))
    first, _ = sim.filings["de-a"]
    second, other = sim.file(Owner("de-a", "de", [500, -6]))
    assert (first.take, first.digest != second.digest) == (1, True)
    node = sim.nodes["de-3"]
    node.on_part("de-a", (second, other["de-3"]))
    sim.run(rounds=8)
    assert sim.result is None
    for name in sim.clusters["de"]:
        filing = sim.nodes[name].filing("de-a")
        assert (filing.phase, filing.code, filing.blamed) == ("DISPUTED", "FILING_CONFLICT", ("de-a",))


def test_part_of_another_take_owner_or_operator_does_not_open_as_this_one():
    sim = Simulation(list(OWNERS))
    notice, sealed = sim.filings["de-a"]
    node = sim.nodes["de-1"]
    replayed = Notice("de-a", 2, notice.digest, notice.commitments, nil=False)
    node.on_part("de-a", (replayed, sealed["de-1"]))
    node.on_part("de-a", (dataclasses.replace(notice, take=3), sealed["de-2"]))
    assert [code for _, code in sim.notes] == ["PART_INVALID", "SEAL_BROKEN"]
    assert node.filing("de-a").phase == "REJECTED"


def test_a_foreign_signature_on_a_crossing_frame_is_dropped():
    sim = Simulation(list(OWNERS))
    sim.run()
    frame = sim.nodes["de-1"].disk["out/1/0"]
    sim.nodes["nl-1"].disk.clear()
    sim.nodes["nl-1"].on_cross("de-2", frame)
    assert sim.notes[-1] == ("nl-1", "SIGNATURE_INVALID")
    assert not sim.nodes["nl-1"].disk


def test_no_digest_that_others_see_can_be_recomputed_from_the_true_value():
    """A third party that holds two components and guesses the value right can reproduce no digest that it is shown."""
    owners = [Owner("de-a", "de", [41, 42])]
    sim = Simulation(owners)
    notice, _ = sim.filings["de-a"]
    sim.run()
    node = sim.nodes["de-1"]
    mine = read_part(node.disk["part/de-a/1"], sim.context_of("de-a", 1), 0, 2)
    guess = np.array([41, 42], dtype=np.uint64) - mine.first.expand(2) - mine.second.expand(2)
    shown = {*notice.commitments, notice.digest, *(link.received for link in node.session().links)}
    shown |= {digest for said in sim.commitments.values() for digest in said if digest}
    bodies = [to_bytes(guess), to_bytes(np.array([41, 42], dtype=np.uint64)), b"41,42"]
    guesses = {hashlib.sha256(prefix + body).hexdigest() for body in bodies for prefix in (b"", b"comity/commit/v1")}
    guesses |= {hashlib.sha256(b"comity/commit/v1" + salt + body).hexdigest() for body in bodies for salt in mine.salts}
    assert not shown & guesses


def test_each_view_is_uniform_whatever_the_values():
    """The explicit component looks alike for two very different vectors (byte histogram)."""
    lanes = 4096
    for value in (0, 2**40):
        sim = Simulation([Owner("de-a", "de", [value] * lanes)])
        sim.run()
        part = read_part(sim.nodes["de-2"].disk["part/de-a/1"], sim.context_of("de-a", 1), 1, lanes)
        counts = np.bincount(np.frombuffer(to_bytes(part.second.expand(lanes)), dtype=np.uint8), minlength=256)
        expected = lanes * 8 / 256
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert chi_square < 400  # 255 degrees of freedom: far beyond the 1 - 10^-7 quantile of 389


def test_messages_have_the_same_lengths_and_number_for_different_values():
    def transcript(values):
        sim = Simulation([Owner("de-a", "de", values)], seed=3)
        log = []
        original = sim.send

        def send(sender, receiver, kind, body):
            log.append((sender, receiver, kind, len(body)))
            original(sender, receiver, kind, body)

        sim.send = send
        sim.run()
        return sorted(log)

    assert transcript([0, 0, 0]) == transcript([2**61, -(2**61), 1])


def test_no_printed_form_shows_a_secret():
    sim = Simulation(small_federation())
    sim.run()
    sharing = share(zeros(2))
    texts = [repr(sharing), *(repr(part) for part in sharing.components), repr(Share(0, zeros(2), zeros(2)))]
    texts += [repr(node.attempt) for node in sim.nodes.values()]
    assert "0, 0" not in "".join(texts)
    seed = sharing.components[0].body()
    assert all(seed.hex() not in text and repr(seed) not in text for text in texts)
