"""Real operator processes whose region stage has rounds: SIGKILL of one among them, then the one exact result."""

from __future__ import annotations

import time

import pytest

from mpc_ops.envelope.dsse import Envelope
from mpc_ops.evidence.bundle import read_bundle
from mpc_ops.evidence.ledger import verify_extract
from mpc_ops.notices.signed import run_id_of
from mpc_ops.server.supervise import ManagedProcess, Supervisor, operator_process
from tests.e2e.test_operators_run import Walk
from tests.support.federation import SMALL, make_federation
from tests.support.operators import RealOperators, operator_endpoints, operator_homes, wait_for

pytestmark = pytest.mark.e2e

REGION = ("de-1", "de-2", "de-3")
PAUSE_S = 0.1


def rounds_process(config, name, logs):
    """An operator whose region stage is tests.support.rounds."""
    plain = operator_process(config.home, name, logs)
    if name not in REGION:
        return plain
    command = [plain.command[0], "-m", "tests.support.faulty_operator", "--home", str(config.home), f"rounds={PAUSE_S}"]
    return ManagedProcess(name, command, logs, plain._env)


@pytest.fixture
def walk(tmp_path):
    made = make_federation(tmp_path, SMALL, endpoints=operator_endpoints(SMALL))
    configs = operator_homes(made)
    logs = tmp_path / "logs"
    with Supervisor([rounds_process(config, name, logs) for name, config in configs.items()]) as running:
        yield Walk(RealOperators(made, running, configs))


def stage_lines(walk, run, name):
    """(event, attempt, frames, bytes) of an operator's own ledger extract."""
    bundle = read_bundle(walk.running.api("nl-1").get(f"/v1/runs/{run}/evidence").content)
    for text in bundle.ledgers:
        extract = verify_extract(Envelope.parse(text.encode(), limit_bytes=1 << 26), walk.made.federation)
        if extract.party == name:
            return [
                (e.event, e.attempt, e.sender, e.receiver, e.frames, e.bytes, e.digest)
                for e in extract.entries
                if e.event.startswith("frames_")
            ]
    return []


def test_sigkill_among_the_rounds_ends_in_the_one_exact_result(walk):
    walk.open()
    filings = walk.file()
    walk.wait_filed()
    manifest = walk.desk.manifest(filings)
    walk.running.post(manifest)
    run = run_id_of(manifest)
    wait_for(lambda: '"rounds"' in walk.running.logs("de-2"))
    # While threads compute, the recipient's API answers and nobody has a result.
    assert walk.running.api("nl-1").get(f"/v1/runs/{run}").status_code == 200
    victim = walk.running.supervisor["de-2"]
    victim.kill()
    time.sleep(0.3)
    victim.start()
    victim.wait_ready()
    walk.wait_state(run, "COMMITTED")
    assert (walk.result(manifest) == sum(sealed.values for sealed in filings)).all()
    sessions = walk.running.api("nl-1").get(f"/v1/runs/{run}").json()["sessions"]
    assert {session["state"] for session in sessions["group"].values()} == {"COMMITTED"}
    wait_for(lambda: all(stage_lines(walk, run, name) for name in REGION))
    lines = {name: stage_lines(walk, run, name) for name in REGION}
    last = max(attempt for found in lines.values() for _, attempt, *_ in found)
    assert last > 1
    sent = {line[2:] for found in lines.values() for line in found if line[:2] == ("frames_sent", last)}
    received = {line[2:] for found in lines.values() for line in found if line[:2] == ("frames_received", last)}
    assert len(sent) == 6
    assert sent == received
