"""The parts under the DAGs: error mapping, the closed list of steps, the trigger, the connections."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import inspect
import json
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from local_stores.airflow_provider import steps as steps_module
from local_stores.airflow_provider.connections import connection_id, connections, pools
from local_stores.airflow_provider.errors import airflow_errors
from local_stores.airflow_provider.hooks import InboxHook
from local_stores.airflow_provider.steps import POLLS, STEPS, current_site, run_poll, run_step
from local_stores.airflow_provider.tasks import PollTask, StepTask
from local_stores.airflow_provider.triggers import PauseTrigger, PollTrigger
from mpc_ops import errors
from tests.support import fake_steps

PERIOD = "2026-07"
FUTURE = "2999-01-01T00:00:00+00:00"


def every_error():
    found, todo = [], [errors.ComityError]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if cls.__module__ == "mpc_ops.errors":
            found.append(cls)
    return found


@pytest.mark.parametrize("cls", every_error())
def test_every_error_ends_a_task_as_its_class_says(cls):
    error = cls("A_CODE", "something happened", ids={"party": "cn-2"})
    with pytest.raises(Exception) as caught, airflow_errors():
        raise error
    if cls.transient:
        assert caught.value is error
    else:
        assert type(caught.value) is AirflowFailException
        assert "A_CODE: something happened [party=cn-2]" in str(caught.value)


def test_a_closed_period_is_skipped_only_where_asked():
    closed = errors.StateError("PERIOD_CLOSED", "the period is closed")
    with pytest.raises(AirflowSkipException, match="PERIOD_CLOSED"), airflow_errors(closed_is_skip=True):
        raise closed
    with pytest.raises(AirflowFailException, match="PERIOD_CLOSED"), airflow_errors():
        raise closed
    with pytest.raises(AirflowFailException, match="RUN_EXISTS"), airflow_errors(closed_is_skip=True):
        raise errors.StateError("RUN_EXISTS", "a run is live")


def test_an_unknown_exception_is_not_hidden():
    with pytest.raises(ZeroDivisionError), airflow_errors():
        _ = 1 / 0


def test_no_step_outside_the_list(steps):
    for run in (run_step, run_poll):
        with pytest.raises(errors.LocalProtocolError, match="STEP_UNKNOWN"):
            run("os.system", {})
    assert set(STEPS) & set(POLLS) == set()


@pytest.mark.parametrize("period", ["", "a/b", "x" * 65, "..", "2026-07\n"])
def test_a_period_that_is_no_key_is_refused_before_anything_runs(steps, period):
    with pytest.raises(errors.UsageError, match="PERIOD_MISSING"):
        run_step("check_release", {"owner": "de-nord", "report": "group_performance", "period": period})
    assert fake_steps.calls(steps) == []


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"rows": "x" * 70_000}, "RESULT_TOO_LARGE"),
        ({"figures": object()}, "RESULT_NOT_JSON"),
        ({"ratio": float("nan")}, "RESULT_NOT_JSON"),
    ],
)
def test_results_are_small_references(steps, monkeypatch, result, code):
    monkeypatch.setattr("local_stores.closing.fetch", lambda site, run: result)
    with pytest.raises(errors.LocalProtocolError, match=code) as caught:
        run_step("fetch", {"run": {}})
    assert "xxx" not in str(caught.value)


def test_every_step_exists_with_the_arguments_that_the_dags_pass():
    """Against the real modules: names and parameters, so that the stand-ins of these tests can't drift.

    The real ones may take more, with a default: decisions that people make on the command line.
    """
    for table in (STEPS, POLLS):
        for name, function in table.items():
            module = importlib.import_module(function.module)
            real = getattr(module, function.name)
            if module is steps_module:
                continue
            stand_in = list(inspect.signature(getattr(fake_steps, function.name)).parameters)
            parameters = inspect.signature(real).parameters
            assert set(stand_in) <= set(parameters), name
            needed = [key for key, value in parameters.items() if value.default is value.empty]
            assert set(needed) <= set(stand_in), name
            assert function.sftp == ("open_sftp" in parameters), name


def test_purpose_needs_one_release_that_passes(steps, monkeypatch):
    def check(site, owner, report, period, open_sftp):
        if report == "refused":
            raise errors.PolicyViolation("APPROVAL_MISSING", "no approval")
        return {"plan_digest": "d" * 64}

    monkeypatch.setattr("local_stores.filing.check_release", check)
    ask = {"owner": "de-nord", "period": PERIOD}
    assert run_step("check_purpose", {**ask, "reports": ["refused", "fine"]})["report"] == "fine"
    with pytest.raises(errors.PolicyViolation, match="APPROVAL_MISSING"):
        run_step("check_purpose", {**ask, "reports": ["refused"]})
    with pytest.raises(errors.ConfigError, match="NO_PURPOSE"):
        run_step("check_purpose", {**ask, "reports": []})


def test_releases_of_the_bundle_stand_in_for_the_sites(steps, tmp_path):
    assert current_site(str(tmp_path)).releases_dir == tmp_path
    assert current_site(str(tmp_path / "elsewhere")).releases_dir != tmp_path / "elsewhere"


# ------------------------------------------------------------------------------------------------------------ trigger


def test_a_step_that_waits_too_long_fails_and_says_for_what(steps, monkeypatch):
    fake_steps.tell(steps, "check_release", PERIOD, "notyet 9")
    arguments = {"owner": "de-nord", "report": "group_performance", "period": PERIOD}
    task = StepTask(task_id="t", step="check_release", arguments=arguments)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({})
    assert deferred.value.method_name == "again"
    event = first_event(deferred.value.trigger)
    assert event["pause_s"] > deferred.value.trigger.pause_s
    with pytest.raises(TaskDeferred):
        task.again({}, event)
    with pytest.raises(AirflowFailException, match=r"WAIT_EXPIRED: .*KEYS_MISSING"):
        task.again({}, {**event, "deadline": "2020-01-01T00:00:00+00:00"})


def test_pause_survives_being_rebuilt_from_json():
    path, kwargs = PauseTrigger(pause_s=1.0, max_s=2.0, deadline=FUTURE).serialize()
    assert path == "local_stores.airflow_provider.triggers.PauseTrigger"
    assert PauseTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)


def trigger(**changed):
    arguments = {
        "owner": "de-nord",
        "report": "group_performance",
        "period": PERIOD,
        "contribution": {"commitment": ""},
    }
    return PollTrigger(
        **{
            "poll": "sign_off_ready",
            "arguments": arguments,
            "releases_dir": None,
            "first_s": 0.01,
            "max_s": 0.02,
            "deadline": FUTURE,
            **changed,
        }
    )


def first_event(trigger):
    async def go():
        return await asyncio.wait_for(anext(trigger.run()), timeout=10)

    return asyncio.run(go()).payload


def test_trigger_survives_being_rebuilt_from_json(steps):
    path, kwargs = trigger(first_s=3.0).serialize()
    assert path == "local_stores.airflow_provider.triggers.PollTrigger"
    again = PollTrigger(**json.loads(json.dumps(kwargs)))
    assert again.serialize() == (path, kwargs)


def test_trigger_answers(steps):
    assert first_event(trigger())["result"]["signatures"] == 2


def test_trigger_asks_again_until_there_is_an_answer(steps):
    fake_steps.tell(steps, "sign_off_ready", PERIOD, "transient 3")
    assert "result" in first_event(trigger())
    assert len(fake_steps.calls(steps, "sign_off_ready")) == 4


def test_trigger_reports_a_terminal_error(steps):
    fake_steps.tell(steps, "sign_off_ready", PERIOD, "terminal")
    event = first_event(trigger())
    assert event["error"]["code"] == "REJECTED"
    assert event["error"]["ids"] == {"party": "de-2"}
    with pytest.raises(AirflowFailException, match=r"REJECTED.*de-2"):
        PollTask(task_id="t", poll="sign_off_ready", arguments={}).resume({}, event)


def test_trigger_gives_up_at_its_deadline(steps):
    fake_steps.tell(steps, "sign_off_ready", PERIOD, "wait")
    event = first_event(trigger(deadline=dt.datetime.now(dt.UTC).isoformat()))
    assert set(event) == {"expired"}
    with pytest.raises(AirflowFailException, match=r"WAIT_EXPIRED: .*step=sign_off_ready"):
        PollTask(task_id="t", poll="sign_off_ready", arguments={}).resume({}, event)


def test_trigger_lets_a_bug_through(steps, monkeypatch):
    monkeypatch.setattr("local_stores.filing.sign_off_ready", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        first_event(trigger())


def test_waiting_asks_once_before_it_defers(steps):
    fake_steps.tell(steps, "sign_off_ready", PERIOD, "wait")
    task = PollTask(task_id="t", poll="sign_off_ready", arguments=trigger().arguments)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({})
    assert deferred.value.method_name == "resume"
    assert dt.datetime.fromisoformat(deferred.value.trigger.deadline) > dt.datetime.now(dt.UTC)
    fake_steps.ready(steps, "sign_off_ready", PERIOD)
    assert task.execute({})["signatures"] == 2


# -------------------------------------------------------------------------------------------------------- connections


def test_pools_and_connections_of_a_site(steps):
    site = current_site()
    assert pools(site) == ["comity_de-nord", "comity_de-sued", "comity_group"]
    found = connections(site)
    assert len(found) == 6
    assert found[0].conn_id == connection_id("de-nord", "de-1") == "comity_de-nord_de-1"
    assert (found[0].host, found[0].port, found[0].login) == ("127.0.0.1", 2222, "de-nord")
    assert set(json.loads(found[0].extra())) == {"key_file", "host_key"}


def test_an_operator_without_a_host_key_is_refused(steps, monkeypatch):
    monkeypatch.setattr(fake_steps.FakeFederation, "entry", lambda self, operator: fake_steps.FakeEntry("h:1", ()))
    with pytest.raises(errors.ConfigError, match=r"SFTP_NOT_LISTED.*operator=de-1"):
        connections(current_site())


HOST_KEY = fake_steps.FakeEntry().ssh_host_keys[0]


@pytest.mark.parametrize(
    "extra",
    [
        {"key_file": "/k"},
        {"host_key": HOST_KEY},
        {"host_key": HOST_KEY, "key_file": "/k", "allow_host_key_change": True},
    ],
)
def test_a_connection_that_pins_nothing_is_refused(monkeypatch, extra):
    connection = {"conn_type": "comity_sftp", "host": "127.0.0.1", "login": "de-nord", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_COMITY_DE-NORD_DE-1", json.dumps(connection))
    with pytest.raises(errors.ConfigError, match="HOST_KEY_NOT_PINNED"):
        InboxHook("comity_de-nord_de-1")


def test_a_whole_connection_pins_both_keys_of_a_rotation(monkeypatch):
    extra = {"host_key": HOST_KEY, "other_host_key": HOST_KEY[:-1] + "B", "key_file": "/k"}
    connection = {"conn_type": "comity_sftp", "host": "127.0.0.1", "port": 2222, "login": "de-nord", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_COMITY_DE-NORD_DE-1", json.dumps(connection))
    hook = InboxHook("comity_de-nord_de-1", "de-1")
    assert hook.pinned == [extra["host_key"], extra["other_host_key"]]
    assert (hook.remote_host, hook.port, hook.username, Path(hook.key_file)) == (
        "127.0.0.1",
        2222,
        "de-nord",
        Path("/k"),
    )
