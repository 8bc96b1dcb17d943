"""Region stages with rounds over operators: exact ledgers, restarts in the middle, passive terms, threads beside a loop."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest

from mpc_ops.envelope.dsse import Envelope
from mpc_ops.errors import Abort, PeerUnavailable
from mpc_ops.evidence.bundle import read_bundle
from mpc_ops.evidence.checks import assess
from mpc_ops.evidence.material import gather
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.signed import parse_notice, run_id_of
from mpc_ops.server import computing, stage_region
from mpc_ops.server.computing import Computed, Threads
from mpc_ops.server.sessions import Sessions
from mpc_ops.server.stage_region import RegionStages
from mpc_ops.session.messages import Frame, decode_message
from mpc_ops.transport.wire import Kind
from tests.support.active import small_proofs
from tests.support.federation import SMALL, make_federation, make_plan
from tests.support.operators import make_world
from tests.support.rounds import Trio, rounds_program

REGION = ("de-1", "de-2", "de-3")


@pytest.fixture(autouse=True)
def _rounds(monkeypatch):
    small_proofs(monkeypatch)
    monkeypatch.setattr(
        stage_region,
        "region_stage_of",
        lambda plan, inputs, attempt: lambda flow, keys: rounds_program(inputs, flow, keys, attempt),
    )
    monkeypatch.setattr(RegionStages, "frame_class", lambda self, found: found.report.plan.gate.shared_class)


@pytest.fixture
def world(tmp_path):
    made = make_federation(tmp_path, SMALL)
    found = make_world(tmp_path, made, make_plan(made.federation, min_owners=2))
    yield found
    found.net.close()


def close(world, filings):
    manifest = world.desk.manifest(filings)
    world.post(manifest)
    return manifest


def stage_lines(world, name, run):
    return [entry for entry in world.net.operators[name].books.entries(run) if entry.event.startswith("frames_")]


def evidence(world, manifest):
    bundle = read_bundle(world.net.operators["ch-1"].accounts.bundle(run_id_of(manifest)))
    return gather(
        world.net.made.federation,
        manifest,
        [parse_notice(text.encode()) for text in bundle.notices],
        attestations=[Envelope.parse(text.encode()) for text in bundle.attestations],
        ledgers=[Envelope.parse(text.encode(), limit_bytes=1 << 26) for text in bundle.ledgers],
    )


def opened(found):
    """Open differences, without the result that nobody fetched yet."""
    return [
        item
        for item in found.reconciliation.differences
        if item.severity == "open" and item.payload_class != PayloadClass.RELEASED_AGGREGATE
    ]


def frame_of(kind, payload):
    message = decode_message(payload) if kind == Kind.SESSION else None
    return message if isinstance(message, Frame) else None


def test_the_ledgers_say_exactly_what_the_rounds_sent(world):
    filings = world.file_all()
    manifest = close(world, filings)
    world.net.run(6)
    run = run_id_of(manifest)
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()
    trio = Trio(values=[[0] * world.desk.lanes] * 2).run()
    names = dict(enumerate(REGION))
    for party, name in names.items():
        lines = stage_lines(world, name, run)
        assert len(lines) == 4
        assert {entry.payload_class for entry in lines} == {PayloadClass.AGGREGATE_SHARE}
        said = {(entry.event, entry.sender, entry.receiver): (entry.frames, entry.bytes) for entry in lines}
        for link in trio.attempts[party].totals():
            peer = names[link.party]
            assert said["frames_sent", name, peer] == (link.sent.frames, link.sent.bytes)
            assert said["frames_received", peer, name] == (link.received.frames, link.received.bytes)
    both = {
        (e.sender, e.receiver): e.digest for name in REGION for e in stage_lines(world, name, run) if e.sender == name
    }
    for name in REGION:
        for entry in stage_lines(world, name, run):
            assert entry.digest == both[entry.sender, entry.receiver]
    found = assess(evidence(world, manifest))
    assert not found.reconciliation.failures
    assert not opened(found)


def test_no_frame_of_a_stage_is_a_line_by_itself(world):
    manifest = close(world, world.file_all())
    world.net.run(2)
    run = run_id_of(manifest)
    trio = Trio(values=[[0] * world.desk.lanes] * 2).run()
    assert trio.attempts[0].rounds > 20
    for name in REGION:
        entries = world.net.operators[name].books.entries(run)
        alone = [e for e in entries if e.event.startswith("frame_") and {e.sender, e.receiver} <= set(REGION)]
        assert len(alone) < 16  # keys, PREPARE and ACCEPT


@pytest.mark.parametrize("name", REGION)
def test_an_operator_that_dies_among_the_rounds_costs_one_attempt(world, name):
    filings = world.file_all()
    manifest = close_slowly(world, filings, name)
    run = run_id_of(manifest)
    world.net.kill(name)
    world.net.start(name)
    world.net.run(8)
    assert set(world.states(run).values()) == {"COMMITTED"}
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()
    (state,) = world.net.operators[name].sessions.of_run(run)
    assert state.attempt == 2
    survivor = next(other for other in REGION if other != name)
    assert {entry.attempt for entry in stage_lines(world, survivor, run)} == {1, 2}
    assert {entry.attempt for entry in stage_lines(world, name, run)} == {2}
    world.net.run(6)
    found = assess(evidence(world, manifest))
    assert not found.reconciliation.failures
    lost = opened(found)
    assert lost
    assert {item.attempt for item in lost} == {1}
    assert all("given up" in item.what for item in lost)


def close_slowly(world, filings, name, frames=12):
    """Close, and stop delivering when `name` has taken some frames."""
    manifest = world.desk.manifest(filings)
    seen = []

    def tamper(sender, receiver, kind, payload):
        if receiver == name and frame_of(kind, payload) is not None:
            seen.append(1)
        return payload

    world.net.tamper = tamper
    settle = world.net.settle
    world.net.settle = lambda: None
    world.post(manifest)
    world.net.settle = settle
    while len(seen) < frames:
        assert world.net.deliver()
    world.net.tamper = None
    return manifest


def test_frames_swallowed_by_a_broken_connection_come_again(world):
    filings = world.file_all()
    manifest = close_slowly(world, filings, "de-2")
    net = world.net
    net.cut.add(frozenset(("de-1", "de-2")))
    net.queue = type(net.queue)(item for item in net.queue if {"de-1", "de-2"} != set(item[:2]))
    while net.deliver():
        pass
    net.cut.clear()
    net.connect("de-1", "de-2")
    net.run(2)
    (state,) = net.operators["de-2"].sessions.of_run(run_id_of(manifest))
    assert (state.phase, state.attempt) == ("COMMITTED", 1)
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()


def test_a_silent_peer_costs_attempts_and_blames_nobody(world):
    manifest = world.desk.manifest(world.file_all())
    world.net.tamper = lambda sender, receiver, kind, payload: (
        None if sender == "de-3" and frame_of(kind, payload) is not None else payload
    )
    world.post(manifest)
    world.net.run(150, step=30)
    states = {
        state.phase: state
        for name in REGION
        for state in world.net.operators[name].sessions.of_run(run_id_of(manifest))
    }
    assert set(states) == {"PREPARED"}
    assert states["PREPARED"].attempt > 1
    assert not any(world.net.events(name, "check_failed") for name in REGION)


def test_frames_that_nobody_keeps_start_the_next_attempt(world, monkeypatch):
    filings = world.file_all()
    manifest = close_slowly(world, filings, "de-2")

    def gone(self, seen):
        raise PeerUnavailable("FRAMES_LOST", "gone", ids={"peer": "de-1"})

    with monkeypatch.context() as patch:
        patch.setattr("mpc_ops.engine.frames.FrameOutlet.confirmed", gone)
        net = world.net
        net.connect("de-1", "de-2")
        while net.queue and not net.events("de-2", "attempt_lost") + net.events("de-1", "attempt_lost"):
            net.deliver()
    net.run(4)
    (state,) = net.operators["de-1"].sessions.of_run(run_id_of(manifest))
    assert state.phase == "COMMITTED"
    assert state.attempt > 1
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()


def test_a_bent_frame_fails_the_run_and_names_a_peer(world):
    bent = []

    def tamper(sender, receiver, kind, payload):
        message = frame_of(kind, payload)
        if (sender, receiver) == ("de-2", "de-1") and message is not None and message.round == 5 and not bent:
            bent.append(1)
            return payload[:-1] + bytes([payload[-1] ^ 1])
        return payload

    world.net.tamper = tamper
    manifest = close(world, world.file_all())
    world.net.run(2)
    states = world.states(run_id_of(manifest))
    assert {states[f"{name}@de"] for name in REGION} == {"FAILED(FRAME_INVALID)"}
    (state,) = world.net.operators["de-1"].sessions.of_run(run_id_of(manifest))
    assert state.pair == ("de-2",)


def test_no_share_or_value_is_logged(world):
    canary = 0x5EC2E7
    filings = [world.desk.deliver(world.desk.seal(owner, [canary] * world.desk.lanes)) for owner in world.desk.owners()]
    world.net.settle()
    manifest = close(world, filings)
    world.net.run(4)
    words = {str(canary), str(2 * canary), f"{canary:x}", f"{2 * canary:x}"}
    for name in REGION:
        text = repr(world.net.logs[name].lines) + repr(world.net.operators[name].books.entries(run_id_of(manifest)))
        assert not [word for word in words if word in text.lower()]


def test_a_passive_attempt_is_told_in_log_and_ledger(world, monkeypatch):
    true = Sessions._attempt_context
    monkeypatch.setattr(
        Sessions, "_attempt_context", lambda self, state: dataclasses.replace(true(self, state), security="passive")
    )
    filings = world.file_all()
    manifest = close(world, filings)
    world.net.run(2)
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()
    trio = Trio(values=[[0] * world.desk.lanes] * 2, security="passive").run()
    sent = {link.sent.bytes for link in trio.attempts[0].totals()}
    for name in REGION:
        assert "NOT noticed" in world.net.events(name, "security_passive")[0]["why"]
        entries = world.net.operators[name].books.entries(run_id_of(manifest))
        (line,) = [entry for entry in entries if entry.ref == "SECURITY_PASSIVE"]
        assert "NOT noticed" in line.decision
        assert {entry.bytes for entry in entries if entry.event == "frames_sent"} == sent


@pytest.mark.parametrize("security", ["active", "passive"])
def test_the_plan_says_which_kind_of_session_runs(tmp_path, security):
    made = make_federation(tmp_path, SMALL)
    plan = make_plan(made.federation, min_owners=2, gate_at="region", security=security)
    world = make_world(tmp_path, made, plan)
    try:
        nil = [world.desk.deliver(world.desk.nil(owner)) for owner in world.desk.owners()]
        world.net.settle()
        manifest = close(world, nil)
        world.net.run(1)
        sessions = world.net.operators["de-1"].sessions
        (state,) = sessions.of_run(run_id_of(manifest))
        assert sessions._attempt_context(state).security == security
        # The group's stage is a sum: active as it is, whatever the terms say of country clusters.
        group = world.net.operators["nl-1"].sessions
        (state,) = group.of_run(run_id_of(manifest))
        assert (state.kind, group._attempt_context(state).security) == ("group", "active")
    finally:
        world.net.close()


# ------------------------------------------------------------------------------------------------------------- threads


class FakeAttempt:
    """Looks like an attempt to a worker."""

    def __init__(self):
        self.done, self.progress, self.closed = None, 0, threading.Event()
        self.context = type("C", (), {"run_id": "r" * 64, "cluster": "de", "attempt": 1})()
        self.settled = False

    def settle(self):
        self.settled = True
        return []

    def totals(self):
        return ()

    def dispute(self):
        return "what it saw" if self.settled else None

    def close(self):
        self.closed.set()


async def until(look):
    for _ in range(2000):
        if look():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not in time")


def in_loop(scenario):
    """Run an async scenario with threads; events run at once."""

    async def main():
        threads = Threads(lambda work: work())
        try:
            return await asyncio.wait_for(scenario(threads), 20)
        finally:
            threads.close()

    return asyncio.run(main())


def test_results_come_back_in_order_from_another_thread():
    async def scenario(threads):
        attempt, taken, idents = FakeAttempt(), [], set()
        worker = threads.worker(attempt, taken.append)

        def work(number):
            idents.add(threading.get_ident())
            if number == 3:
                raise Abort("PROOF_REJECTED", "no", ids={"party": "de-1"})
            return [(number, None)]

        for number in range(6):
            worker.submit(lambda number=number: work(number))
        assert worker.busy
        await until(lambda: len(taken) == 6)
        assert not worker.busy
        return taken, idents

    taken, idents = in_loop(scenario)
    assert [item.outgoing[0][0] if item.outgoing else item.error.code for item in taken] == [
        0, 1, 2, "PROOF_REJECTED", 4, 5,
    ]  # fmt: skip
    assert isinstance(taken[0], Computed)
    assert idents == {*idents} - {threading.get_ident()}
    assert len(idents) == 1


def test_the_loop_goes_on_while_a_thread_computes_and_a_stopped_one_is_not_heard():
    async def scenario(threads):
        attempt, taken, hold = FakeAttempt(), [], threading.Event()
        worker = threads.worker(attempt, taken.append)
        worker.submit(lambda: hold.wait(10) and [])
        worker.submit(lambda: [(1, None)])
        ticks = 0
        for _ in range(20):
            await asyncio.sleep(0.001)
            ticks += 1
        worker.stop()
        assert not attempt.closed.is_set()
        worker.submit(lambda: [(2, None)])
        hold.set()
        await asyncio.to_thread(attempt.closed.wait, 10)
        await asyncio.sleep(0.05)
        return ticks, taken

    assert in_loop(scenario) == (20, [])


def test_an_attempt_in_dispute_finishes_what_is_queued_and_says_what_it_saw():
    async def scenario(threads):
        attempt, taken, hold = FakeAttempt(), [], threading.Event()
        worker = threads.worker(attempt, taken.append)
        worker.submit(lambda: hold.wait(10) and [])
        worker.submit(lambda: [(1, None)])
        worker.settle()
        hold.set()
        await until(lambda: len(taken) == 3)
        await asyncio.to_thread(attempt.closed.wait, 10)
        worker.stop()
        worker.settle()
        other = threads.worker(FakeAttempt(), taken.append)
        return [item.dispute for item in taken], threads._workers == [other]

    assert in_loop(scenario) == ([None, None, "what it saw"], True)


def test_a_link_is_read_no_further_while_too_much_of_its_peer_waits(monkeypatch):
    monkeypatch.setattr(computing, "MAX_QUEUED_BYTES", 100)

    async def scenario(threads):
        hold = threading.Event()
        worker = threads.worker(FakeAttempt(), lambda computed: None)
        worker.submit(lambda: hold.wait(10) and [], peer="de-2", size=80)
        await asyncio.wait_for(threads.room("de-2"), 1)
        worker.submit(list, peer="de-2", size=80)
        await asyncio.wait_for(threads.room("de-3"), 1)
        waits = asyncio.ensure_future(threads.room("de-2"))
        await asyncio.sleep(0.05)
        assert not waits.done()
        hold.set()
        await asyncio.wait_for(waits, 5)
        # What a stopped worker held is given back as well.
        worker.submit(list, peer="de-2", size=500)
        worker.stop()
        await asyncio.wait_for(threads.room("de-2"), 5)

    in_loop(scenario)


@pytest.mark.parametrize("where", ["thread", "take"])
def test_a_bug_ends_the_process_instead_of_hanging_it(where):
    def bug(*_):
        raise ZeroDivisionError

    async def scenario(threads):
        worker = threads.worker(FakeAttempt(), bug if where == "take" else lambda computed: None)
        worker.submit(bug if where == "thread" else list)
        with pytest.raises(ZeroDivisionError):
            await threads.watch()

    in_loop(scenario)


def test_closing_wakes_who_waits_for_room(monkeypatch):
    monkeypatch.setattr(computing, "MAX_QUEUED_BYTES", 1)

    async def scenario(threads):
        hold = threading.Event()
        threads.worker(FakeAttempt(), lambda computed: None).submit(lambda: hold.wait(10) and [], peer="p", size=9)
        waits = asyncio.ensure_future(threads.room("p"))
        await asyncio.sleep(0.01)
        threads.close()
        await asyncio.wait_for(waits, 5)
        hold.set()

    in_loop(scenario)
