"""What dishonest, crashed, restored and full operators can do over a whole run: nothing but stop it, by name."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mpc_ops.errors import Abort, ComityError, ConfigError, PeerProtocolError
from mpc_ops.notices.model import State
from mpc_ops.notices.signed import run_id_of
from mpc_ops.server.operator import Operator
from mpc_ops.server.submissions import Submissions
from mpc_ops.session import Frame, decode_message
from mpc_ops.sharing import Component
from mpc_ops.transport.wire import Kind
from tests.support.federation import SMALL, make_federation, make_plan
from tests.support.operators import World, make_world

REGION, GROUP = ("de-1", "de-2", "de-3"), ("nl-1", "ch-1", "sg-1")


@pytest.fixture
def world(tmp_path):
    made = make_federation(tmp_path, SMALL)
    found = make_world(tmp_path, made, make_plan(made.federation, min_owners=2))
    yield found
    found.net.close()


def close(world: World, seconds: float = 3.0):
    filings = world.file_all()
    manifest = world.desk.manifest(filings)
    world.post(manifest)
    world.net.run(seconds)
    return filings, manifest


def reasons(world: World, manifest) -> dict[str, tuple[str | None, tuple[str, ...]]]:
    states = [s.expect(State) for s in world.net.operators["ch-1"].book.find("state", run=run_id_of(manifest))]
    return {state.operator: (state.code, tuple(state.pair)) for state in states}


def test_an_operator_that_alters_a_component_is_caught_before_anything_crosses(world, monkeypatch):
    filings = world.net.operators["de-2"].filings
    true = filings.payload

    def altered(signed):
        opener = true(signed)

        def opened():
            part = opener()
            vector = part.second.expand(part.lanes).copy()
            vector[3] += 1
            return replace(part, second=Component(explicit=vector))

        return opened

    monkeypatch.setattr(filings, "payload", altered)
    _, manifest = close(world)
    found = reasons(world, manifest)
    assert ("STAGE_MISMATCH", ("de-2", "de-3")) in [(code, tuple(sorted(pair))) for code, pair in found.values()]
    assert not [state for state in world.states(run_id_of(manifest)).values() if "COMMITTED" in state]
    assert all(not world.net.operators[name].store.rows("SELECT 1 FROM crossings_in") for name in GROUP)
    view = Submissions(world.net.operators["nl-1"]).run(run_id_of(manifest))
    assert (view["phase"], view["code"]) == ("FAILED", "STAGE_MISMATCH") or view["code"] == "REGION_FAILED"


def test_an_operator_that_alters_a_sub_share_is_caught_at_the_group_and_the_pair_is_named(world, monkeypatch):
    regions = world.net.operators["de-2"].regions
    true = regions.keep

    def altered(found, state, output):
        bodies = [bytearray(body) for body in output.crossings]
        bodies[1][60] ^= 1
        true(found, state, replace(output, crossings=tuple(bytes(body) for body in bodies)))

    monkeypatch.setattr(regions, "keep", altered)
    _, manifest = close(world)
    named = {(code, tuple(sorted(pair))) for code, pair in reasons(world, manifest).values()}
    assert any(code == "CROSS_MISMATCH" and "de-2" in pair and len(pair) == 2 for code, pair in named)
    states = world.states(run_id_of(manifest))
    assert all("FAILED" in states[f"{name}@group"] for name in GROUP)


def test_an_operator_that_alters_its_result_part_is_caught_by_the_recipient_and_the_pair_is_named(world, monkeypatch):
    groups = world.net.operators["sg-1"].groups
    true = groups.keep

    def altered(found, state, output):
        part = bytearray(output.part)
        part[-1] ^= 1
        true(found, state, replace(output, part=bytes(part)))

    monkeypatch.setattr(groups, "keep", altered)
    _, manifest = close(world)
    with pytest.raises(Abort) as caught:
        world.result(manifest)
    assert caught.value.code == "RESULT_MISMATCH"
    assert "sg-1" in caught.value.ids["pair"]


def test_a_crossing_altered_on_the_way_is_dropped_and_the_true_one_is_taken(world):
    seen = []

    def tamper(sender, receiver, kind, data):
        if kind == Kind.FRAME and sender == "de-1" and receiver == "nl-1" and not seen:
            seen.append(data)
            return data[:-2000] + bytes([data[-2000] ^ 1]) + data[-1999:]
        return data

    world.net.tamper = tamper
    filings, manifest = close(world, 20)
    assert seen
    assert {e["code"] for e in world.net.events("nl-1", "message_refused")} & {"SIGNATURE_INVALID", "CROSS_CONFLICT"}
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()


@pytest.mark.parametrize("kind", [Kind.SESSION, Kind.SYNC, Kind.FRAME])
def test_bytes_that_are_no_message_close_the_link(world, kind):
    with pytest.raises(PeerProtocolError, match="MESSAGE_INVALID"):
        world.net.operators["nl-1"].on_message("de-1", kind, b"\x81\xa4type\xa3foo")


def test_a_peer_of_another_cluster_can_not_speak_in_a_session(world):
    captured = []
    world.net.tamper = lambda s, r, kind, data: captured.append((s, kind, data)) or data
    close(world)
    message = next(data for sender, kind, data in captured if kind == Kind.SESSION and sender == "de-1")
    world.net.operators["nl-1"].on_message("de-1", Kind.SESSION, message)
    assert {"SESSION_FOREIGN"} == {e["code"] for e in world.net.events("nl-1", "message_refused")}


def test_lost_repeated_and_late_messages_change_nothing(world):
    random = np.random.default_rng(5)
    held = []

    def tamper(sender, receiver, kind, data):
        draw = random.random()
        if draw < 0.15:
            return None
        if draw < 0.3:
            held.append((sender, receiver, kind, data))
        if draw > 0.9 and held:
            world.net.queue.append(held.pop())
        return data

    filings = world.file_all()
    world.net.tamper = tamper
    manifest = world.desk.manifest(filings)
    world.post(manifest)
    world.net.run(120, step=4)
    world.net.tamper = None
    world.net.run(40, step=4)
    assert set(world.states(run_id_of(manifest)).values()) == {"COMMITTED"}
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()


def test_an_attempt_whose_frames_stay_away_is_followed_by_the_next_one(world):
    def tamper(sender, receiver, kind, data):
        if kind == Kind.SESSION and (sender, receiver) == ("sg-1", "nl-1"):
            message = decode_message(data)
            return None if isinstance(message, Frame) and message.attempt == 1 else data
        return data

    world.net.tamper = tamper
    filings, manifest = close(world)
    assert world.states(run_id_of(manifest))["nl-1@group"] == "PREPARED"
    world.net.run(80, step=4)
    states = [world.net.operators[name].sessions.state(run_id_of(manifest), "group") for name in GROUP]
    assert {(state.phase, state.attempt) for state in states} == {("COMMITTED", 2)}
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()


def test_an_operator_that_died_after_accepting_does_not_hold_up_the_others(world):
    """It has lost what its peers still lack, and must not start anew by itself; they do."""

    def tamper(sender, receiver, kind, data):
        if kind == Kind.SESSION and sender == "sg-1" and isinstance(decode_message(data), Frame):
            return None
        return data

    world.net.tamper = tamper
    filings, manifest = close(world)
    assert world.states(run_id_of(manifest))["sg-1@group"] == "ACCEPTED"
    world.net.kill("sg-1")
    world.net.tamper = None
    world.net.start("sg-1")
    world.net.run(3)
    states = [world.net.operators[name].sessions.state(run_id_of(manifest), "group") for name in GROUP]
    assert {(state.phase, state.attempt) for state in states} == {("COMMITTED", 2)}
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()


def test_a_restored_old_disk_is_refused_at_the_handshake(world, tmp_path):
    state = world.net.configs["de-2"].state
    world.net.kill("de-2")
    shutil.copytree(state, tmp_path / "backup")
    world.net.start("de-2")
    filings, manifest = close(world)
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()
    world.net.kill("de-2")
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "backup", state)
    with pytest.raises(ComityError) as caught:
        world.net.start("de-2")
    assert caught.value.code == "STATE_ROLLED_BACK"
    assert not world.net.operators["de-2"].store.rows("SELECT 1 FROM peers WHERE length > 0")


def test_a_second_process_on_the_same_volume_is_refused(world):
    with pytest.raises(ConfigError, match="VOLUME_LOCKED"):
        Operator(world.net.configs["de-1"], world.net.operators["de-1"].context.post)


def test_a_full_disk_delays_a_run_and_breaks_nothing(world):
    filings = world.file_all()
    store = world.net.operators["de-1"].store
    (pages,) = store.row("PRAGMA page_count")
    store.rows(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        with store.unit():
            for number in range(100_000):
                store.set_meta(f"filler-{number}", "x" * 200)

    with pytest.raises(ComityError, match="DISK_FULL"):
        fill()
    manifest = world.desk.manifest(filings)
    world.post(manifest)
    world.net.run(5)
    assert {e["code"] for e in world.net.events("de-1", "disk_full")} == {"DISK_FULL"}
    assert "COMMITTED" not in set(world.states(run_id_of(manifest)).values())
    store.rows("PRAGMA max_page_count = 1000000")
    world.net.run(30, step=2)
    assert set(world.states(run_id_of(manifest)).values()) == {"COMMITTED"}
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()


@pytest.mark.parametrize("seed", range(8))
def test_kills_at_any_moment_give_the_right_result_or_a_clean_end_and_never_two(world, seed):
    random = np.random.default_rng(seed)
    filings = world.file_all()
    kills = sorted(int(at) for at in random.integers(1, 450, 4))
    manifest = world.desk.manifest(filings)
    delivered = 0
    true = world.net.deliver

    def deliver() -> bool:
        nonlocal delivered
        delivered += 1
        if kills and delivered >= kills[0]:
            kills.pop(0)
            victim = str(random.choice([*REGION, *GROUP]))
            world.net.kill(victim)
            world.net.start(victim)
        return true()

    world.net.deliver = deliver
    world.post(manifest)
    world.net.run(120, step=5)
    states = set(world.states(run_id_of(manifest)).values())
    assert states == {"COMMITTED"}
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()
    for name in GROUP:
        assert len(world.net.operators[name].book.find("result", run=run_id_of(manifest))) == 3


def test_no_digest_in_ledgers_and_notices_can_be_reproduced_by_who_knows_the_figures(world):
    filings, manifest = close(world, 6)
    figures = [sealed.values.astype(np.uint64) for sealed in filings]
    figures.append(sum(sealed.values for sealed in filings).astype(np.uint64))
    guesses = set()
    for vector in figures:
        for body in (vector.tobytes(), vector.astype(">u8").tobytes(), str(vector.tolist()).encode()):
            guesses.add(hashlib.sha256(body).hexdigest())
    for operator in world.net.operators.values():
        texts = [bytes(row[0]).decode() for row in operator.store.rows("SELECT entry FROM ledger")]
        texts += [
            str(s.notice)
            for kind in ("filed", "manifest", "receipt", "result", "statement")
            for s in operator.book.find(kind)
        ]
        for text in texts:
            assert not any(guess in text for guess in guesses)
    assert manifest
