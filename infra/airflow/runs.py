"""Run a site's DAGs in this process by `dag.test()`: real tasks, triggers, XCom and database, no scheduler.

A site's runs go one after another. Waiting tasks run their trigger here, which sleeps between its questions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from infra.airflow.home import BUNDLE, SiteError, site_environment

__all__ = ["RunResult", "connect_site", "load_dags", "run_dag_tests"]

_POOL_SLOTS = 2

TaskEvent = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class RunResult:
    """How one DAG run ended. Seconds are wall clock and CPU of this process; tasks are by id, with map index."""

    dag_id: str
    period: str
    state: str
    tasks: dict[str, str]
    seconds: float
    cpu_seconds: float


def run_dag_tests(
    home: Path,
    site_toml: Path,
    runs: Iterable[tuple[str, str]],
    *,
    on_task: Callable[[TaskEvent], None] | None = None,
) -> Iterator[RunResult]:
    """Run DAGs one after another in this process, and yield each run's result when it ends.

    Args:
        home: made by `prepare_home`. Its environment is set here: Airflow must not have been imported before.
        site_toml: the site's configuration file.
        runs: pairs of DAG id and period.
        on_task: called after each task with `dag_id, task_id, map_index, period, state, seconds, at`; `seconds` since
            the task began, waiting included, `at` in seconds since the epoch.

    Raises:
        SiteError: an unknown DAG, or DAGs that can't be imported.
    """
    os.environ.update(site_environment(home, site_toml))
    connect_site()
    dags = load_dags()
    for dag_id, period in runs:
        if dag_id not in dags:
            raise SiteError(f"no DAG {dag_id}; there are: {', '.join(sorted(dags))}")
        yield _run_one(dags[dag_id], period, on_task)


def load_dags() -> dict[str, Any]:
    """Return the DAGs of the site's bundle by id."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager  # noqa: PLC0415
    from airflow.dag_processing.dagbag import BundleDagBag  # noqa: PLC0415

    bundle = DagBundlesManager().get_bundle(BUNDLE)
    bundle.initialize()
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    if bag.import_errors:
        raise SiteError("\n".join(bag.import_errors.values()))
    return dict(bag.dags)


def _run_one(dag: Any, period: str, on_task: Callable[[TaskEvent], None] | None) -> RunResult:
    started, cpu = time.monotonic(), time.process_time()
    with _one_dag(dag.dag_id), _task_events(period, on_task):
        run = dag.test(run_conf={"period": period})
    tasks = {
        task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]": _word(task.state)
        for task in run.get_task_instances()
    }
    return RunResult(
        dag_id=dag.dag_id,
        period=period,
        state=_word(run.state),
        tasks=tasks,
        seconds=time.monotonic() - started,
        cpu_seconds=time.process_time() - cpu,
    )


@contextlib.contextmanager
def _one_dag(dag_id: str) -> Iterator[None]:
    # `dag.test()` reads the DAG file again: this tells the factory, as a worker does, which DAG is wanted. Airflow's
    # own context manager leaves the variable behind.
    from airflow.sdk.definitions.context import _AIRFLOW_PARSING_CONTEXT_DAG_ID as VARIABLE  # noqa: PLC0415

    os.environ[VARIABLE] = dag_id
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def _word(state: object) -> str:
    return str(getattr(state, "value", state))


class _Listener:
    """Tells the caller of each task that ends; Airflow finds the methods by their names and marks."""

    def __init__(self, period: str, tell: Callable[[TaskEvent], None]) -> None:
        from airflow.listeners import hookimpl  # noqa: PLC0415

        began: dict[tuple[str, int], float] = {}

        def running(previous_state: object, task_instance: Any) -> None:  # noqa: ARG001
            began.setdefault((task_instance.task_id, task_instance.map_index), time.time())

        def ended(task_instance: Any) -> None:
            now = time.time()
            index = -1 if task_instance.map_index is None else task_instance.map_index
            tell(
                {
                    "dag_id": task_instance.dag_id,
                    "task_id": task_instance.task_id,
                    "map_index": index,
                    "period": period,
                    "state": _word(task_instance.state),
                    "seconds": now - began.get((task_instance.task_id, task_instance.map_index), now),
                    "at": now,
                }
            )

        def succeeded(previous_state: object, task_instance: Any) -> None:  # noqa: ARG001
            ended(task_instance)

        def failed(previous_state: object, task_instance: Any, error: object) -> None:  # noqa: ARG001
            ended(task_instance)

        self.on_task_instance_running = hookimpl(running)
        self.on_task_instance_success = hookimpl(succeeded)
        self.on_task_instance_failed = hookimpl(failed)
        self.on_task_instance_skipped = hookimpl(succeeded)


@contextlib.contextmanager
def _task_events(period: str, on_task: Callable[[TaskEvent], None] | None) -> Iterator[None]:
    if on_task is None:
        yield
        return
    from airflow.sdk.listener import get_listener_manager  # noqa: PLC0415

    listener = _Listener(period, on_task)
    manager = get_listener_manager()
    manager.pm.register(listener)
    try:
        yield
    finally:
        manager.pm.unregister(listener)


def connect_site() -> None:
    """Write the site's pools and operator connections into its metadata database; the same again changes nothing."""
    from airflow.models.connection import Connection  # noqa: PLC0415
    from airflow.models.pool import Pool  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415
    from sqlalchemy import select  # noqa: PLC0415

    from local_stores.airflow_provider.connections import CONNECTION_TYPE, connections, pools  # noqa: PLC0415
    from local_stores.airflow_provider.steps import current_site  # noqa: PLC0415

    site = current_site()
    for name in pools(site):
        Pool.create_or_update_pool(name, _POOL_SLOTS, "Tasks of one party of this site", include_deferred=False)
    with create_session() as session:
        for wanted in connections(site):
            row = session.scalar(select(Connection).where(Connection.conn_id == wanted.conn_id))
            if row is None:
                row = Connection(conn_id=wanted.conn_id)
                session.add(row)
            row.conn_type, row.host, row.port, row.login = CONNECTION_TYPE, wanted.host, wanted.port, wanted.login
            row.set_extra(wanted.extra())
