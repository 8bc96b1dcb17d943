"""Stages and attempts: what is refused, what is named, and how an attempt bears loss, repetition and disorder."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from mpc_ops.engine import (
    Attempt,
    AttemptContext,
    GroupInputs,
    RegionInputs,
    StageShape,
    group_stage,
    region_program,
    region_stage,
)
from mpc_ops.errors import Abort, LocalProtocolError, PeerProtocolError, PlanError
from mpc_ops.protocol.core.terms import PartyKeys
from mpc_ops.protocol.sums import CrossRoute, ResultContext
from mpc_ops.ring import encode_signed
from mpc_ops.session.messages import Committed, Frame, KexConfirm, KexOffer, KexReply, Seen, encode_message
from mpc_ops.sharing import parts_of, share
from tests.support.core import MEMBERS, PLAN, RUN, filing, hex32, identity, pair_keys

LANES = 2
ROUTE = CrossRoute(
    run_id=RUN, source="de", target="group", crossing="cross", lanes=LANES,
    senders=MEMBERS, receivers=("nl-1", "ch-1", "sg-1"),
)  # fmt: skip
SHAPE = StageShape(kind="region", lanes=LANES, ops=("region_sum", "cross"))
NONCES = (hex32("n0"), hex32("n1"), hex32("n2"))


def test_any_other_node_is_refused_by_name():
    for ops in (("region_sum", "multiply", "cross"), ("compare",), ("group_sum", "deliver")):
        with pytest.raises(PlanError) as caught:
            StageShape(kind="region", lanes=1, ops=ops).check()
        assert caught.value.code == "UNSUPPORTED_NODE"
        assert caught.value.got in ops
    for ops in ((), ("cross", "region_sum"), ("region_sum",), ("region_sum", "region_sum", "cross")):
        with pytest.raises(PlanError, match="UNSUPPORTED_NODE"):
            StageShape(kind="region", lanes=1, ops=ops).check()
    for lanes in (0, -1, (1 << 24) + 1):
        with pytest.raises(PlanError, match="LANES_INVALID"):
            StageShape(kind="region", lanes=lanes, ops=("region_sum", "cross")).check()


def region_inputs(party, owners=("de1",), **changes):
    parts = [parts_of(share(encode_signed([1, -2], -9, 9)), filing(owner))[party] for owner in owners]
    return RegionInputs(**{"shape": SHAPE, "party": party, "parts": parts, "route": ROUTE, **changes})


def keys(party):
    return PartyKeys(pair_keys("k", party), pair_keys("k", (party + 1) % 3))


def test_region_stage_refuses_what_does_not_belong_together():
    with pytest.raises(LocalProtocolError, match="PARTS_INVALID"):
        region_stage(region_inputs(0, owners=()), keys(0), 1)
    with pytest.raises(LocalProtocolError, match="twice"):
        region_stage(region_inputs(0, owners=("de1", "de1")), keys(0), 1)
    with pytest.raises(LocalProtocolError, match="PART_MIXED"):
        region_stage(dataclasses.replace(region_inputs(1), party=0), keys(0), 1)
    with pytest.raises(LocalProtocolError, match="PARTS_INVALID"):
        region_stage(
            region_inputs(0, shape=StageShape(kind="group", lanes=LANES, ops=("group_sum", "deliver"))), keys(0), 1
        )
    assert "redacted" in repr(region_stage(region_inputs(0), keys(0), 1))


def test_group_stage_needs_crossings_of_its_lanes_and_the_running_attempt():
    shape = StageShape(kind="group", lanes=LANES, ops=("group_sum", "deliver"))
    result = ResultContext(run_id=RUN, cluster="group", recipient="r", attempt=1, lanes=LANES, members=ROUTE.receivers)
    with pytest.raises(LocalProtocolError, match="PARTS_INVALID"):
        group_stage(GroupInputs(shape=shape, party=0, crossings={}, result=result), keys(0), 1)
    other = {"de": (dataclasses.replace(ROUTE, lanes=3), {})}
    with pytest.raises(PeerProtocolError, match="CROSS_INVALID"):
        group_stage(GroupInputs(shape=shape, party=0, crossings=other, result=result), keys(0), 1)
    with pytest.raises(LocalProtocolError, match="PARTS_INVALID"):
        group_stage(GroupInputs(shape=shape, party=0, crossings=other, result=result), keys(0), 2)


# ------------------------------------------------------------------------------------------------------------- attempt


def context(party, **changes):
    fields = {
        "run_id": RUN, "cluster": "de", "attempt": 1, "kind": "region", "party": party, "members": MEMBERS,
        "keys": tuple(identity(name).public for name in MEMBERS), "federation_digest": hex32("f"), "plan_digest": PLAN,
        "period": "2026-10", "manifest_digest": hex32("m"),
    }  # fmt: skip
    return AttemptContext(**{**fields, **changes})


class Trio:
    """Three attempts and the messages between them."""

    def __init__(self, **changes):
        parts = parts_of(share(encode_signed([1, -2], -9, 9)), filing())
        self.attempts = [
            Attempt(context(party, **changes.get(MEMBERS[party], {})), identity(MEMBERS[party])) for party in range(3)
        ]
        self.stages = [
            lambda flow, keys, party=party: region_program(
                RegionInputs(shape=SHAPE, party=party, parts=[parts[party]], route=ROUTE), flow, keys, 1
            )
            for party in range(3)
        ]
        self.log = []

    def start(self, party):
        return self.sent(party, self.attempts[party].start(NONCES, self.stages[party]))

    def sent(self, party, outgoing):
        self.log += [(party, to, message) for to, message in outgoing]
        return [(party, to, message) for to, message in outgoing]

    def play(self, queue, pick=lambda queue: 0, drop=lambda: False):
        while queue:
            sender, to, message = queue.pop(pick(queue))
            if not drop():
                queue += self.sent(to, self.attempts[to].receive(sender, message))

    def run(self, **options):
        self.play([packet for party in range(3) for packet in self.start(party)], **options)
        return self


def test_an_attempt_ends_with_equal_link_digests_and_output():
    trio = Trio().run()
    done = [attempt.done for attempt in trio.attempts]
    assert all(done)
    by_link = {(party, link.party): link for party in range(3) for link in done[party].links}
    for (party, peer), link in by_link.items():
        assert link.sent == by_link[peer, party].received
    assert len({len(item.output.crossings[0]) for item in done}) == 1


def test_messages_of_an_attempt_and_their_sizes():
    trio = Trio().run()
    kinds = [(type(message), party, to) for party, to, message in trio.log]
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert sorted((p, t) for kind, p, t in kinds if kind is KexOffer) == pairs
    assert sorted((t, p) for kind, p, t in kinds if kind is KexReply) == pairs
    assert sorted((p, t) for kind, p, t in kinds if kind is KexConfirm) == pairs
    frames = [len(encode_message(message)) for _, _, message in trio.log if isinstance(message, Frame)]
    assert len(frames) == 6
    assert max(frames) < 600
    assert len(trio.log) == 15


@pytest.mark.parametrize("seed", range(6))
def test_disorder_repetition_and_loss_with_repeats(seed):
    rng = random.Random(seed)
    trio = Trio()
    queue = [packet for party in rng.sample(range(3), 3) for packet in trio.start(party)]
    for _ in range(60):
        trio.play(queue, pick=lambda queue: rng.randrange(len(queue)), drop=lambda: rng.random() < 0.4)
        if all(attempt.done for attempt in trio.attempts):
            break
        for party, attempt in enumerate(trio.attempts):
            queue += [(party, to, message) for to, message in attempt.repeat()] * 2
    assert all(attempt.done for attempt in trio.attempts)


def test_early_messages_wait_until_start_and_are_bounded():
    trio = Trio()
    queue = trio.start(0)
    for sender, to, message in queue:
        assert trio.attempts[to].receive(sender, message) == []
        assert trio.attempts[to].receive(sender, message) == []
    assert [type(message) for _, message in trio.attempts[1].start(NONCES, trio.stages[1])] == [KexOffer, KexReply]
    fresh = Trio().attempts[2]
    seen = [Seen(run_id=RUN, cluster="de", attempt=1, frames=n) for n in range(9)]
    for message in seen[:8]:
        assert fresh.receive(0, message) == []
    with pytest.raises(PeerProtocolError) as caught:
        fresh.receive(0, seen[8])
    assert caught.value.code == "FRAME_OUT_OF_ORDER"


def test_the_stage_runs_once_and_only_with_both_keys():
    calls = []
    trio = Trio()
    original = trio.stages[0]
    trio.stages[0] = lambda flow, keys: calls.append(1) or original(flow, keys)
    trio.run()
    assert calls == [1]
    with pytest.raises(LocalProtocolError, match="ATTEMPT_STARTED"):
        trio.start(0)


@pytest.mark.parametrize("party", [0, 1, 2])
@pytest.mark.parametrize("which", ["first", "second"])
def test_two_holders_that_computed_different_components_name_each_other(party, which):
    trio = Trio()
    original = trio.stages[party]

    def corrupt(flow, keys):
        output = yield from original(flow, keys)
        values = getattr(output.share, which).copy()
        values[1] ^= np.uint64(1 << 63)
        return dataclasses.replace(output, share=dataclasses.replace(output.share, **{which: values}))

    trio.stages[party] = corrupt
    other = (party - 1 if which == "first" else party + 1) % 3
    queue = [packet for number in range(3) for packet in trio.start(number)]
    blamed = {}
    while queue:
        sender, to, message = queue.pop(0)
        if to in blamed:
            continue
        try:
            queue += trio.sent(to, trio.attempts[to].receive(sender, message))
        except Abort as error:
            blamed[to] = (error.code, set(trio.attempts[to].blamed(error)))
    pair = {MEMBERS[party], MEMBERS[other]}
    assert blamed == {party: ("STAGE_MISMATCH", pair), other: ("STAGE_MISMATCH", pair)}
    assert trio.attempts[3 - party - other].done is not None


def test_operators_that_were_shown_different_manifests_agree_on_no_key():
    trio = Trio(**{"de-2": {"manifest_digest": hex32("another")}})
    with pytest.raises(PeerProtocolError) as caught:
        trio.run()
    assert caught.value.code == "KEX_INVALID"


@pytest.mark.parametrize("change", [{"attempt": 2}, {"run_id": hex32("x")}, {"cluster": "cn"}])
def test_messages_of_another_session_or_attempt_are_a_driver_bug(change):
    trio = Trio(**{"de-1": change})
    (_, to, message), *_ = trio.start(0)
    with pytest.raises(LocalProtocolError, match="ATTEMPT_FOREIGN"):
        trio.attempts[to].receive(0, message)
    with pytest.raises(LocalProtocolError, match="ATTEMPT_FOREIGN"):
        trio.attempts[1].receive(1, message)


def test_durable_messages_and_foreign_keys_are_refused():
    trio = Trio()
    trio.start(0)
    with pytest.raises(LocalProtocolError, match="ATTEMPT_FOREIGN"):
        trio.attempts[0].receive(1, Committed(run_id=RUN, cluster="de", attempt=1))
    with pytest.raises(LocalProtocolError, match="KEY_FOREIGN"):
        Attempt(context(0), identity("de-2"))


@pytest.mark.parametrize(
    ("kind", "said", "taken", "what"),
    [
        (KexOffer, (0, 1), (0, 1), "came from the higher position"),
        (KexReply, (1, 0), (1, 0), "without an offer"),
        (KexOffer, (1, 2), (2, 0), "two different key offers"),
        (KexReply, (2, 0), (0, 1), "two different key replies"),
    ],
)
def test_kex_messages_out_of_role_are_refused(kind, said, taken, what):
    trio = Trio().run()
    (message,) = (m for party, to, m in trio.log if isinstance(m, kind) and (party, to) == said)
    for _ in range(2):
        with pytest.raises(PeerProtocolError, match=what):
            trio.attempts[taken[0]].receive(taken[1], message)


def test_a_repeated_frame_changes_nothing():
    trio = Trio().run()
    before = trio.attempts[0].totals()
    frame = next(message for party, to, message in trio.log if isinstance(message, Frame) and (party, to) == (1, 0))
    assert trio.attempts[0].receive(1, frame) == []
    assert trio.attempts[0].totals() == before


def test_blamed_reads_what_an_error_names():
    attempt = Trio().attempts[0]
    assert attempt.blamed(Abort("X", "x", ids={"pair": "de-1,de-2"})) == ("de-1", "de-2")
    assert attempt.blamed(PeerProtocolError("X", "x", ids={"party": "cn-1"})) == ("cn-1",)
    assert attempt.blamed(PeerProtocolError("X", "x", ids={"peer": "de-3"})) == ("de-3",)
    assert attempt.blamed(PeerProtocolError("X", "x")) == ()
