"""Six real operator processes: real TLS links, real spools, the recipient's API; filings to an exact result."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx
import numpy as np
import pytest

from mpc_ops.errors import ConfigError
from mpc_ops.evidence.bundle import read_bundle
from mpc_ops.notices.signed import parse_notice, run_id_of
from mpc_ops.server.supervise import operator_process
from tests.support.federation import SMALL, make_approval, make_federation, make_plan, make_reference, make_release
from tests.support.operators import PERIOD, Desk, RealOperators, Sealed, operator_endpoints, start_operators, wait_for

pytestmark = pytest.mark.e2e


class Walk:
    """One federation, one report; each step as owners and recipient do it."""

    def __init__(self, running: RealOperators) -> None:
        self.running, self.made = running, running.made
        self.plan = make_plan(self.made.federation, min_owners=2)
        self.reference = make_reference(self.made, PERIOD)
        self.desk = Desk(self.made, self.plan, running.spools, reference=self.reference)

    def open(self) -> None:
        release = make_release(self.made, self.plan)
        self.running.post(release)
        self.running.post(self.reference)
        for owner in self.made.owners:
            wait_for(lambda owner=owner: len(self.desk.keys(owner, PERIOD)) == 3)
            self.desk.put_notice(owner, make_approval(self.made, self.plan, owner))

    def file(self, *, period: str = PERIOD, take: int = 1) -> list[Sealed]:
        random = np.random.default_rng(take)
        filings = [
            self.desk.deliver(
                self.desk.seal(owner, random.integers(-(10**12), 10**12, self.desk.lanes), period=period, take=take)
            )
            for owner in self.made.owners
        ]
        for sealed in filings:
            wait_for(lambda sealed=sealed: len(self.desk.receipts(sealed)) == 3)
        return filings

    def wait_filed(self) -> None:
        """Until every group operator knows that all owners' filings are agreed."""
        for name in self.running.group():
            api = self.running.api(name)

            def agreed(api=api):
                found = api.get(f"/v1/periods/{self.plan.digest}/{PERIOD}").json()
                return all(owner["state"] == "AGREED" for owner in found["owners"].values())

            wait_for(agreed)

    def wait_state(self, run: str, *texts: str) -> None:
        for name in self.running.group():
            api = self.running.api(name)
            wait_for(lambda api=api: api.get(f"/v1/runs/{run}").json().get("state") in texts)

    def result(self, manifest) -> np.ndarray:
        run = run_id_of(manifest)
        parts, commitments = {}, []
        for name in self.running.group():
            api = self.running.api(name)
            answer = wait_for(lambda api=api: (a := api.get(f"/v1/runs/{run}/result")).status_code == 200 and a)
            assert answer.content == api.get(f"/v1/runs/{run}/result").content
            parts[name] = answer.content
        bundle = read_bundle(self.running.api(self.running.group()[0]).get(f"/v1/runs/{run}/evidence").content)
        notices = [parse_notice(text.encode()) for text in bundle.notices]
        commitments = [signed for signed in notices if signed.kind == "result"]
        return self.desk.combine(manifest, parts, commitments)


@pytest.fixture
def walk(tmp_path):
    made = make_federation(tmp_path, SMALL, endpoints=operator_endpoints(SMALL))
    with start_operators(made) as running:
        yield Walk(running)


def test_filings_in_the_spool_become_an_exact_result_at_the_recipient(walk):
    walk.open()
    filings = walk.file()
    walk.wait_filed()
    manifest = walk.desk.manifest(filings)
    assert set(walk.running.post(manifest)) <= {200, 201}
    run = run_id_of(manifest)
    walk.wait_state(run, "COMMITTED")
    assert (walk.result(manifest) == sum(sealed.values for sealed in filings)).all()
    walk.running.post(walk.desk.ack(manifest))
    walk.wait_state(run, "ERASED")
    gone = walk.running.api(walk.running.group()[0]).get(f"/v1/runs/{run}/result")
    assert (gone.status_code, gone.json()["code"]) == (409, "RESULT_ERASED")
    assert not list(walk.running.spools["de-1"].glob("inbox/*/part.*"))
    assert not list((walk.made.homes["de-1"] / "state" / "periods").glob(f"*{PERIOD}*"))


@pytest.mark.slow
def test_twenty_kills_over_real_processes_end_in_one_exact_result(walk):
    random = np.random.default_rng(20)
    names = list(walk.running.supervisor.processes)

    def kill(count: int) -> None:
        for _ in range(count):
            time.sleep(float(random.uniform(0.0, 0.4)))
            process = walk.running.supervisor[str(random.choice(names))]
            process.kill()
            process.start()

    walk.open()
    kill(4)
    filings = [
        walk.desk.deliver(walk.desk.seal(owner, random.integers(-(10**9), 10**9, walk.desk.lanes)))
        for owner in walk.made.owners
    ]
    kill(4)
    for process in walk.running.supervisor.processes.values():
        process.wait_ready()
    for sealed in filings:
        wait_for(lambda sealed=sealed: len(walk.desk.receipts(sealed)) == 3)
    walk.wait_filed()
    manifest = walk.desk.manifest(filings)
    walk.running.post(manifest)
    run = run_id_of(manifest)
    kill(12)
    for process in walk.running.supervisor.processes.values():
        process.wait_ready()
    walk.wait_state(run, "COMMITTED")
    assert (walk.result(manifest) == sum(sealed.values for sealed in filings)).all()
    for name in walk.running.group():
        sessions = walk.running.api(name).get(f"/v1/runs/{run}").json()["sessions"]["group"]
        assert {session["state"] for session in sessions.values()} == {"COMMITTED"}
        assert len({session["attempt"] for session in sessions.values()}) == 1


def test_a_part_altered_in_the_spool_is_rejected_by_name_and_strangers_get_no_connection(walk):
    walk.open()
    owner = walk.made.owners[0]
    sealed = walk.desk.seal(owner, np.arange(walk.desk.lanes))
    sealed.parts["de-2"] = sealed.parts["de-2"][:-1] + bytes([sealed.parts["de-2"][-1] ^ 1])
    walk.desk.deliver(sealed)
    wait_for(lambda: walk.desk.rejections(sealed.filed.digest, owner).get("de-2") == "PART_ALTERED")
    wait_for(lambda: len(walk.desk.rejections(sealed.filed.digest, owner)) == 3)  # the others name the dispute
    assert not walk.desk.receipts(sealed)
    stranger = walk.running.api("nl-1", as_party="ch-1")
    with pytest.raises(httpx.TransportError):
        stranger.get("/v1/runs/" + "0" * 64)


def test_the_api_answers_with_codes_and_shows_no_documentation(walk):
    api = walk.running.api("ch-1")
    for path in ("/docs", "/openapi.json", "/redoc", "/v1/notices/" + "0" * 64):
        assert api.get(path).status_code in {404, 405}
    assert api.get("/v1/runs/" + "0" * 64).status_code == 404
    assert api.get("/v1/runs/nonsense").json()["code"] == "DIGEST_INVALID"
    assert api.get(f"/v1/periods/{'0' * 64}/2026-01").json()["code"] == "PLAN_UNKNOWN"
    long = api.client.put("/v1/notices/" + "0" * 64, content=bytes((1 << 20) + 1))
    assert (long.status_code, long.json()["code"]) == (413, "BODY_TOO_LONG")
    release = make_release(walk.made, walk.plan)
    wrong = api.client.put("/v1/notices/" + "1" * 64, content=release.envelope.to_bytes())
    assert (wrong.status_code, wrong.json()["code"]) == (422, "NOTICE_ALTERED")
    assert api.put(release).status_code == 201
    assert api.put(release).status_code == 200
    approval = make_approval(walk.made, walk.plan, walk.made.owners[0])
    assert (api.put(approval).status_code, api.put(approval).json()["code"]) == (422, "NOTICE_UNWANTED")


def test_an_operator_ends_cleanly_on_sigterm_and_refuses_a_second_process(walk):
    process = walk.running.supervisor["sg-1"]
    twin = operator_process(walk.running.configs["sg-1"].home, "twin", process.log.parent)
    twin.start()
    with pytest.raises(ConfigError, match="VOLUME_LOCKED"):
        twin.wait_ready()
    process.terminate()
    assert process.wait() == 0
    assert '"stopped"' in process.log.read_text()
    status = subprocess.run(
        [
            sys.executable,
            "-c",
            "from mpc_ops.cli import main; main()",
            "operator",
            "status",
            "--home",
            walk.running.configs["sg-1"].home,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert status.returncode == 0, status.stderr
    assert "operator sg-1 (SG)" in status.stdout


def test_idle_operators_use_hardly_any_processor_time(walk):
    walk.open()
    time.sleep(1)
    before = walk.running.supervisor.cpu_seconds()
    time.sleep(4)
    assert walk.running.supervisor.cpu_seconds() - before < 0.25 * 4
