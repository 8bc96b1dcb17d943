"""A real api-server, scheduler, dag-processor and triggerer run one owner's DAGs; the steps are stand-ins.

One stack serves all cases. Each case has its own period, told what to do before the scheduler sees it, so that they run
side by side; the tests then only look. Later tests of this file act on what earlier ones left (a clear, a backfill).
"""

from __future__ import annotations

import os
import signal

import pytest

from infra.airflow.home import prepare_home
from infra.airflow.stack import processes_of, start_component, start_stack, stop_stack
from tests.support import airflow_env, fake_steps
from tests.support.airflow_api import Api, wait_for

pytestmark = [
    pytest.mark.scheduler,
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

PLAIN, WAITING, TRANSIENT, TERMINAL, KILLED, CLOSED = MONTHS = [f"2025-0{month}" for month in range(1, 7)]
OWNER = "de-nord"
FILE = f"file_monthly__{OWNER}"
OUTCOME = f"outcome_monthly__{OWNER}"
SNAPSHOT = f"snapshot_orders__{OWNER}"

# As in production, but impatient: a dead triggerer is noticed after seconds.
IMPATIENT = {
    "core": {"max_active_runs_per_dag": 16},
    "scheduler": {"job_heartbeat_sec": 1, "scheduler_heartbeat_sec": 1, "orphaned_tasks_check_interval": 10},
    "triggerer": {"job_heartbeat_sec": 1, "triggerer_health_check_threshold": 4},
    "dag_processor": {"refresh_interval": 2, "bundle_refresh_check_interval": 1, "min_file_process_interval": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fake")
    fake_steps.tell(folder, "sign_off_ready", WAITING, "wait")
    fake_steps.tell(folder, "local_plan", TRANSIENT, "transient 1")
    fake_steps.tell(folder, "deliver", TERMINAL, "terminal")
    fake_steps.tell(folder, "validate", KILLED, "hang")
    fake_steps.tell(folder, "check_release", CLOSED, "closed")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    fake_steps.write_release(folder / "releases", "monthly", fake_steps.month_rows(MONTHS))
    return fake_steps.write_site(folder / "site.toml", owners=(OWNER,), releases=folder / "releases")


@pytest.fixture(scope="module")
def stack(tmp_path_factory, folder, site):
    home = tmp_path_factory.mktemp("airflow")
    prepare_home(home, site, comity=airflow_env.QUICK, airflow=IMPATIENT)
    started = start_stack(home, site, env=airflow_env.fake_environment(folder))
    yield started
    stop_stack(home)
    assert processes_of(home) == []


@pytest.fixture(scope="module")
def api(stack):
    return Api(stack)


def states(tasks):
    return {name: task["state"] for name, task in tasks.items()}


def test_a_killed_worker_is_run_again(api, folder):
    """SIGKILL of the process that runs `validate`: the supervisor sees it, and the retry goes through."""
    call = wait_for(lambda: fake_steps.calls(folder, "validate", KILLED), "validate to hang", 120)[0]
    os.kill(call["pid"], signal.SIGKILL)
    run = api.wait_run(FILE, KILLED)
    assert run["state"] == "success"
    assert api.tasks(FILE, run["dag_run_id"])["validate"]["try_number"] == 2
    assert len(fake_steps.calls(folder, "validate", KILLED)) == 2


def test_a_killed_triggerer_is_replaced_and_the_wait_goes_on(api, stack, folder):
    """The wait is deferred: no worker holds it. Its trigger moves to the next triggerer."""
    api.wait_task(FILE, WAITING, "sign_off", "deferred")
    wait_for(lambda: len(fake_steps.calls(folder, "sign_off_ready", WAITING)) > 2, "the trigger to ask")
    asking = fake_steps.calls(folder, "sign_off_ready", WAITING)[-1]["pid"]
    for pid in {stack.pids["triggerer"], asking}:
        os.kill(pid, signal.SIGKILL)
    start_component(stack, "triggerer", env=airflow_env.fake_environment(folder))
    wait_for(lambda: fake_steps.calls(folder, "sign_off_ready", WAITING)[-1]["pid"] != asking, "another one to ask")
    assert api.wait_task(FILE, WAITING, "sign_off", "deferred")["try_number"] == 1
    fake_steps.ready(folder, "sign_off_ready", WAITING)
    run = api.wait_run(FILE, WAITING)
    assert run["state"] == "success"
    assert len(fake_steps.calls(folder, "share_and_seal", WAITING)) == 1


def test_a_period_is_a_partition(api, folder):
    run = api.wait_run(FILE, PLAIN)
    assert run["state"] == "success"
    assert run["logical_date"] is None
    assert run["dag_run_id"].startswith(f"scheduled__{PLAIN}__")
    assert run["run_after"] == "2025-02-05T07:00:00Z"
    tasks = api.tasks(FILE, run["dag_run_id"])
    assert set(states(tasks).values()) == {"success"}
    assert {"deliver[0]", "deliver[1]", "deliver[2]"} < set(tasks)
    assert {task["pool"] for task in tasks.values()} == {f"comity_{OWNER}"}
    assert [run["partition_key"] for run in api.runs(FILE)].count(PLAIN) == 1


def test_a_transient_error_is_retried(api):
    run = api.wait_run(FILE, TRANSIENT)
    assert run["state"] == "success"
    assert api.tasks(FILE, run["dag_run_id"])["local_plan"]["try_number"] == 2


def test_a_terminal_error_fails_at_once(api, folder):
    run = api.wait_run(FILE, TERMINAL)
    assert run["state"] == "failed"
    tasks = api.tasks(FILE, run["dag_run_id"])
    assert {tasks[f"deliver[{index}]"]["state"] for index in range(3)} == {"failed"}
    assert {tasks[f"deliver[{index}]"]["try_number"] for index in range(3)} == {1}
    assert tasks["await_receipts"]["state"] == "upstream_failed"
    log = api.get(f"dags/{FILE}/dagRuns/{run['dag_run_id']}/taskInstances/deliver/logs/1", map_index=0)
    assert "REJECTED: the operator rejected the filing [party=de-2]" in str(log)


def test_a_closed_period_ends_as_skipped(api):
    run = api.wait_run(FILE, CLOSED)
    assert set(states(api.tasks(FILE, run["dag_run_id"])).values()) == {"skipped"}


def test_snapshots_emit_an_asset_with_the_period_as_partition(api):
    api.wait_run(SNAPSHOT, PLAIN)
    events = api.get("assets/events", limit=100)["asset_events"]
    mine = [event for event in events if event["source_dag_id"] == SNAPSHOT and event["partition_key"] == PLAIN]
    assert len(mine) == 1


def test_a_clear_stays_on_its_release(api, site, folder):
    """A release is imported after the run: the cleared run repeats with the releases it began with."""
    run = api.wait_run(FILE, PLAIN)
    before = api.get("dags/" + FILE)["bundle_version"]
    fake_steps.write_release(site.parent / "releases", "monthly", fake_steps.month_rows(MONTHS), version="2")
    wait_for(lambda: api.get("dags/" + FILE)["bundle_version"] != before, "the new release to be parsed")
    api.post(
        f"dags/{FILE}/clearTaskInstances",
        {"dry_run": False, "only_failed": False, "dag_run_id": run["dag_run_id"], "task_ids": ["check_release"]},
    )
    wait_for(lambda: len(fake_steps.calls(folder, "check_release", PLAIN)) > 2, "the cleared task")
    again = api.wait_run(FILE, PLAIN)
    assert again["state"] == "success"
    assert again["bundle_version"] == run["bundle_version"] == before
    first, *_, last = (call for call in fake_steps.calls(folder, "check_release", PLAIN) if "releases_dir" in call)
    assert before in first["releases_dir"]
    assert first["releases_dir"] == last["releases_dir"]


def test_a_backfill_takes_periods_by_date(api):
    for period in (PLAIN, WAITING):
        api.wait_run(OUTCOME, period)
    backfill = api.post(
        "backfills",
        {
            "dag_id": OUTCOME,
            "from_date": f"{PLAIN}-01T00:00:00Z",
            "to_date": f"{WAITING}-01T00:00:00Z",
            "reprocess_behavior": "completed",
        },
    )
    wait_for(lambda: api.get(f"backfills/{backfill['id']}")["completed_at"], "the backfill", 90)
    runs = [run for run in api.runs(OUTCOME) if run["run_type"] == "backfill"]
    assert sorted(run["partition_key"] for run in runs) == [PLAIN, WAITING]
    assert {run["state"] for run in runs} == {"success"}


def test_a_run_by_hand_names_its_period(api):
    body = {"logical_date": None, "partition_key": PLAIN}
    run = api.post(f"dags/{OUTCOME}/dagRuns", body)
    assert run["partition_key"] == PLAIN
    assert wait_for(
        lambda: api.get(f"dags/{OUTCOME}/dagRuns/{run['dag_run_id']}")["state"] == "success", "the manual run"
    )
    refused = api.post(f"dags/{OUTCOME}/dagRuns", {**body, "partition_key": "2031-01"}, expect=400)
    assert "the calendar has no period of that key; it goes from 2025-01 to 2025-06" in str(refused)


def test_nobody_gets_in_without_the_password(api, stack):
    assert api.client.get("/api/v2/dags", headers={"Authorization": ""}).status_code == 401
