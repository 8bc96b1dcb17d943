"""DAG runs by `dag.test()`: the whole path, waiting, retries, terminal errors, closed periods, what XCom holds."""

from __future__ import annotations

import json
import threading

import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from infra.airflow.home import SiteError
from infra.airflow.runs import connect_site, load_dags, run_dag_tests
from tests.support import fake_steps

FILE = "file_group_performance__de-nord"
PERIOD = "2026-07"


@pytest.fixture
def run(steps, airflow_home, site_toml):
    """Run one DAG for a period; returns the result and the tasks' events."""

    def go(dag_id, period=PERIOD):
        events = []
        (result,) = run_dag_tests(airflow_home, site_toml, [(dag_id, period)], on_task=events.append)
        return result, events

    return go


def steps_of(folder):
    return [call["step"] for call in fake_steps.calls(folder)]


def test_a_filing_from_check_to_receipts(run, steps):
    result, events = run(FILE)
    assert result.state == "success"
    assert set(result.tasks.values()) == {"success"}
    assert {"deliver[0]", "deliver[1]", "deliver[2]"} < set(result.tasks)
    assert steps_of(steps) == [
        "check_release",
        "take_snapshot",
        "take_snapshot",
        "validate",
        "local_plan",
        "sign_off_ready",
        "share_and_seal",
        "deliver",
        "deliver",
        "deliver",
        "receipts_ready",
    ]
    assert {call["operator"] for call in fake_steps.calls(steps, "deliver")} == {"de-1", "de-2", "de-3"}
    assert all(call["sftp"] for call in fake_steps.calls(steps, "deliver"))
    assert {event["state"] for event in events} == {"success"}
    assert next(event["task_id"] for event in events) == "check_release"


def test_the_run_uses_the_releases_of_its_bundle_version(run, steps):
    run(FILE)
    (call,) = fake_steps.calls(steps, "check_release")
    assert "/bundles/comity/versions/" in call["releases_dir"]


def test_a_close_from_filings_to_acknowledgement(run, steps):
    result, _ = run("group_group_performance")
    assert result.state == "success"
    assert steps_of(steps) == [
        "filings_ready",
        "close",
        "result_ready",
        "fetch",
        "verify",
        "publish",
        "acknowledge",
        "collect_closing",
    ]


def test_a_close_waits_for_the_deletions(run, steps):
    fake_steps.tell(steps, "collect_closing", PERIOD, "notyet 2")
    result, _ = run("group_group_performance")
    assert result.state == "success"
    assert len(fake_steps.calls(steps, "collect_closing")) == 3
    assert len(fake_steps.calls(steps, "acknowledge")) == 1


def test_outcome_and_snapshot(run, steps):
    assert run("outcome_group_performance__de-sued")[0].state == "success"
    assert run("snapshot_rates__de-sued")[0].state == "success"
    assert steps_of(steps) == ["outcome_ready", "fetch_outcome", "check_release", "take_snapshot"]


def test_waiting_is_a_trigger_that_sleeps(run, steps):
    fake_steps.tell(steps, "sign_off_ready", PERIOD, "wait")

    def answer_later() -> None:
        while not fake_steps.calls(steps, "sign_off_ready"):
            threading.Event().wait(0.05)
        threading.Event().wait(1.2)
        fake_steps.ready(steps, "sign_off_ready", PERIOD)

    threading.Thread(target=answer_later, daemon=True).start()
    result, _ = run(FILE)
    assert result.state == "success"
    asked = fake_steps.calls(steps, "sign_off_ready")
    assert 2 <= len(asked) <= 12, "asks with pauses, not in a busy loop"


def test_not_yet_pauses_and_costs_no_retry(run, steps):
    """Period keys that are not published yet: the first task waits, deferred, and is not retried."""
    fake_steps.tell(steps, "check_release", PERIOD, "notyet 5")
    result, events = run(FILE)
    assert result.state == "success"
    assert len(fake_steps.calls(steps, "check_release")) == 6, "more often than there are retries"
    assert [event["state"] for event in events if event["task_id"] == "check_release"] == ["success"]


def test_a_transient_error_is_retried(run, steps):
    fake_steps.tell(steps, "local_plan", PERIOD, "transient 1")
    result, events = run(FILE)
    assert result.state == "success"
    assert len(fake_steps.calls(steps, "local_plan")) == 2
    assert [event["state"] for event in events if event["task_id"] == "local_plan"] == ["up_for_retry", "success"]


def test_a_transient_error_while_waiting_is_asked_again(run, steps):
    fake_steps.tell(steps, "receipts_ready", PERIOD, "transient 2")
    result, _ = run(FILE)
    assert result.state == "success"


def test_a_terminal_error_fails_at_once_and_stops_the_rest(run, steps):
    fake_steps.tell(steps, "deliver", PERIOD, "terminal")
    result, _ = run(FILE)
    assert result.state == "failed"
    assert {result.tasks[f"deliver[{index}]"] for index in range(3)} == {"failed"}
    assert result.tasks["await_receipts"] == "upstream_failed"
    assert len(fake_steps.calls(steps, "deliver")) == 3, "one try each"


def test_a_rejection_while_waiting_fails_the_task(run, steps):
    fake_steps.tell(steps, "receipts_ready", PERIOD, "terminal")
    result, _ = run(FILE)
    assert result.tasks["await_receipts"] == "failed"


def test_a_closed_period_ends_as_skipped(run, steps):
    fake_steps.tell(steps, "check_release", PERIOD, "closed")
    result, _ = run(FILE)
    assert set(result.tasks.values()) == {"skipped"}
    assert steps_of(steps) == ["check_release"]


def test_a_period_that_closes_later_is_terminal(run, steps):
    fake_steps.tell(steps, "share_and_seal", PERIOD, "closed")
    result, _ = run(FILE)
    assert result.state == "failed"
    assert result.tasks["share_and_seal"] == "failed"


def test_a_run_without_a_period_says_what_to_do(steps, caplog):
    connect_site()
    dag = load_dags()[FILE]
    run = dag.test(run_conf={})
    assert str(run.state) == "failed"
    assert fake_steps.calls(steps) == []


def test_an_unknown_dag_names_the_known_ones(run):
    with pytest.raises(SiteError, match="no DAG nothing; there are: file_group_performance__de-nord"):
        run("nothing")


def test_xcom_holds_references_only(run):
    """Sizes and members: nothing that a step returned beyond its reference, none longer than a few hundred bytes."""
    run(FILE)
    with create_session() as session:
        values = session.scalars(select(XComModel.value)).all()
    assert values
    assert max(len(json.dumps(value)) for value in values) < 1000
