"""The DAGs of a site: which there are, that reading them is cheap and offline, and the rules every task keeps."""

from __future__ import annotations

import ast
import datetime as dt
import importlib.metadata
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers_manager import ProvidersManager
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
from airflow.serialization.serialized_objects import DagSerialization

from local_stores.airflow_provider.bundle import installed_dag_file
from local_stores.airflow_provider.get_provider_info import get_provider_info
from local_stores.airflow_provider.plugin import ComityPlugin
from local_stores.airflow_provider.steps import POLLS, STEPS
from local_stores.airflow_provider.tasks import PollTask, StepTask
from local_stores.airflow_provider.timetable import CalendarTimetable
from tests.support import fake_steps

PER_OWNER = ("file_group_performance", "outcome_group_performance", "snapshot_orders", "snapshot_rates")
EXPECTED = {f"{name}__{owner}" for name in PER_OWNER for owner in ("de-nord", "de-sued")} | {"group_group_performance"}
PARSE_BUDGET_CPU_S = 3.0


@pytest.fixture
def bag(steps):
    bag = DagBag(dag_folder=str(installed_dag_file()))
    assert bag.import_errors == {}
    return bag


def shape(dag):
    return {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}


def test_exactly_these_dags(bag):
    assert set(bag.dags) == EXPECTED


def test_every_file_in_the_dags_folder_is_known():
    folder = installed_dag_file().parent
    assert [path.name for path in folder.rglob("*.py")] == ["comity_dags.py"]


def test_a_filing_is_these_steps(bag):
    assert shape(bag.dags["file_group_performance__de-nord"]) == {
        "check_release": ["snapshot"],
        "snapshot": ["local_plan", "validate"],
        "validate": ["local_plan"],
        "local_plan": ["share_and_seal", "sign_off"],
        "sign_off": ["share_and_seal"],
        "share_and_seal": ["await_receipts", "deliver"],
        "deliver": ["await_receipts"],
        "await_receipts": [],
    }


def test_a_close_is_these_steps(bag):
    assert shape(bag.dags["group_group_performance"]) == {
        "await_filings": ["close"],
        "close": ["acknowledge", "await_deletions", "await_result", "fetch", "publish", "verify"],
        "await_result": ["fetch"],
        "fetch": ["verify"],
        "verify": ["publish"],
        "publish": ["acknowledge"],
        "acknowledge": ["await_deletions"],
        "await_deletions": [],
    }


def test_a_snapshot_checks_its_purpose_before_it_reads(bag):
    dag = bag.dags["snapshot_orders__de-nord"]
    assert shape(dag) == {"check_purpose": ["take_snapshot"], "take_snapshot": []}
    (asset,) = dag.get_task("take_snapshot").outlets
    assert (asset.name, asset.uri) == ("de-nord.orders", "comity://de-nord/orders")


def test_every_task_keeps_the_rules(bag):
    for dag in bag.dags.values():
        pool = "comity_group" if dag.dag_id.startswith("group_") else f"comity_{dag.dag_id.rpartition('__')[2]}"
        assert isinstance(dag.timetable, CalendarTimetable)
        assert dag.catchup is True
        assert 1 <= dag.max_active_runs <= 12
        assert "### " in dag.doc_md
        assert "comity" in dag.tags
        for task in dag.tasks:
            unmapped = task.partial_kwargs if hasattr(task, "partial_kwargs") else vars(task)
            assert task.pool == pool, task
            assert task.retries >= 3, task
            assert task.retry_delay > dt.timedelta(0)
            assert task.retry_exponential_backoff == 2.0
            step = unmapped.get("step")
            assert step in STEPS or unmapped.get("poll") in POLLS, task


def test_runbooks_name_every_task(bag):
    for dag in bag.dags.values():
        if dag.dag_id.startswith(("file_", "group_")):
            missing = [task.task_id for task in dag.tasks if f"`{task.task_id}`" not in dag.doc_md]
            assert missing == []


def test_the_group_closes_one_period_at_a_time(bag):
    assert bag.dags["group_group_performance"].max_active_runs == 1


def test_the_period_parameter_offers_the_calendar(bag):
    params = ParamsDict(bag.dags["file_group_performance__de-nord"].params)
    assert params.dump() == {"period": None}
    params["period"] = "2026-08"
    with pytest.raises(Exception, match="2031-01"):
        params["period"] = "2031-01"


def test_dags_survive_serialisation(bag):
    for dag in bag.dags.values():
        plain = json.loads(json.dumps(DagSerialization.serialize_dag(dag)))
        again = DagSerialization.deserialize_dag(plain)
        assert {task.task_id for task in again.tasks} == {task.task_id for task in dag.tasks}
        assert again.timetable.partitioned


def test_owner_sites_have_no_group_dags(steps, tmp_path, monkeypatch, releases_dir):
    path = fake_steps.write_site(tmp_path / "site.toml", owners=("in-1",), releases=releases_dir)
    monkeypatch.setenv("COMITY_SITE", str(path))
    bag = DagBag(dag_folder=str(installed_dag_file()))
    assert set(bag.dags) == {f"{name}__in-1" for name in PER_OWNER}


def test_a_worker_reads_the_one_dag_it_runs(steps, monkeypatch):
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "snapshot_rates__de-sued")
    bag = DagBag(dag_folder=str(installed_dag_file()))
    assert set(bag.dags) == {"snapshot_rates__de-sued"}


def test_a_newer_release_extends_the_calendar(steps, tmp_path, monkeypatch):
    releases = tmp_path / "releases"
    fake_steps.write_release(releases, "r", fake_steps.month_rows(["2026-01", "2026-02"]), "1", datasets=("a",))
    fake_steps.write_release(releases, "r", fake_steps.month_rows(["2026-02", "2026-03"]), "2", datasets=("b",))
    monkeypatch.setenv("COMITY_SITE", str(fake_steps.write_site(tmp_path / "s.toml", releases=releases)))
    bag = DagBag(dag_folder=str(installed_dag_file()))
    assert [row.key for row in bag.dags["file_r__DE-1"].timetable.rows] == ["2026-01", "2026-02", "2026-03"]
    assert {"snapshot_a__DE-1", "snapshot_b__DE-1"} <= set(bag.dags)


def test_no_releases_no_dags(steps, tmp_path, monkeypatch):
    (tmp_path / "releases").mkdir()
    monkeypatch.setenv("COMITY_SITE", str(fake_steps.write_site(tmp_path / "s.toml", releases=tmp_path / "releases")))
    bag = DagBag(dag_folder=str(installed_dag_file()))
    assert bag.dags == {}
    assert bag.import_errors == {}


def test_a_missing_site_is_an_import_error_that_says_so(steps, monkeypatch):
    monkeypatch.delenv("COMITY_SITE")
    bag = DagBag(dag_folder=str(installed_dag_file()))
    assert "SITE_NOT_SET" in next(iter(bag.import_errors.values()))


def test_reading_opens_no_socket(steps, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a DAG file opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    bag = DagBag(dag_folder=str(installed_dag_file()))
    assert set(bag.dags) == EXPECTED


def test_reading_stays_within_its_budget_and_loads_nothing_heavy(site_toml, steps):
    """In a process of its own: seconds of CPU after Airflow is there, and which libraries came with it."""
    code = (
        "import sys, time, json; import airflow.sdk, airflow.timetables.base, airflow.triggers.base;"
        "import airflow.dag_processing.bundles.base;"
        "start = time.process_time();"
        f"import runpy; names = runpy.run_path({str(installed_dag_file())!r});"
        "heavy = [m for m in ('great_expectations', 'pandas', 'duckdb', 'paramiko', 'asyncssh') if m in sys.modules];"
        "print(json.dumps([time.process_time() - start, heavy, sum(n.startswith('file_') for n in names)]))"
    )
    env = {"PATH": "/usr/bin:/bin", "COMITY_SITE": str(site_toml), "COMITY_FAKE_FOLDER": str(steps)}
    env["PYTHONPATH"] = f"{Path('tests/support/fake_site').resolve()}:{Path.cwd()}"
    env["AIRFLOW_HOME"] = str(steps)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cpu_s, heavy, filings = json.loads(done.stdout.splitlines()[-1])
    assert filings == 2
    assert heavy == []
    assert cpu_s < PARSE_BUDGET_CPU_S


def test_airflow_stays_in_the_provider_and_gx_in_the_validation():
    for path in Path("local_stores/airflow_provider").glob("*.py"):
        tree = ast.parse(path.read_text())
        names = {
            name
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not [name for name in names if name.startswith(("great_expectations", "duckdb", "pandas"))], path


def test_provider_is_what_airflow_finds(steps):
    info = get_provider_info()
    assert info["package-name"] == importlib.metadata.metadata("comity")["Name"]
    manager = ProvidersManager()
    assert "comity" in manager.providers
    assert ProvidersManagerTaskRuntime().hooks["comity_sftp"].hook_name == "Comity operator (SFTP)"
    assert manager.provider_configs is not None


def test_plugin_brings_the_timetable_and_no_web_application():
    assert ComityPlugin.timetables == [CalendarTimetable]
    assert ComityPlugin.fastapi_apps == []
    assert ComityPlugin.external_views == []
    assert ComityPlugin.fastapi_root_middlewares == []


def test_no_class_is_called_operator():
    source = "".join(path.read_text() for path in Path("local_stores/airflow_provider").glob("*.py"))
    assert re.findall(r"class \w*Operator\(", source) == []


def test_tasks_store_nothing_but_templates():
    assert StepTask.template_fields == ("arguments", "parcel")
    assert PollTask.template_fields == ("arguments",)
