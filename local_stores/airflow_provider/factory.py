"""From a site's imported releases to its DAGs.

| DAG | one for each | schedule |
|---|---|---|
| `snapshot_<dataset>__<owner>` | owner of this site and dataset that a release uses | the releases' calendar |
| `file_<report>__<owner>` | owner and report | the release's calendar |
| `outcome_<report>__<owner>` | owner and report | the release's calendar |
| `group_<report>` | report, where this site is the recipient | the release's calendar |

Reading a DAG file reads `site.toml` and the release files, and nothing else.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, Param, get_parsing_context

from local_stores.airflow_provider import runbooks
from local_stores.airflow_provider.bundle import RELEASES_FOLDER
from local_stores.airflow_provider.settings import ProviderSettings
from local_stores.airflow_provider.steps import current_site
from local_stores.airflow_provider.tasks import PERIOD, PollTask, StepTask
from local_stores.airflow_provider.timetable import CalendarTimetable, PeriodRow
from local_stores.filing import list_releases

__all__ = ["build_dags", "group_pool", "owner_pool"]

_FILINGS_AT_ONCE = 4
_OUTCOMES_AT_ONCE = 12


def owner_pool(owner: str) -> str:
    """Return the pool of an owner's tasks: one owner's backlog never holds up another's."""
    return f"comity_{owner}"


def group_pool() -> str:
    """Return the pool of group reporting."""
    return "comity_group"


@dataclass(slots=True)
class _Report:
    """What all imported releases of one report say together."""

    name: str
    datasets: set[str] = field(default_factory=set)
    rows: dict[str, PeriodRow] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Build:
    """What every DAG of one parse shares."""

    settings: ProviderSettings
    releases_dir: str | None
    only: str | None  # a worker that runs one task needs one DAG of the file

    def wants(self, dag_id: str) -> bool:
        return self.only is None or self.only == dag_id

    def step(self, task_id: str, arguments: Mapping[str, Any], *, step: str | None = None, **more: Any) -> StepTask:
        return StepTask(
            task_id=task_id, step=step or task_id, arguments=arguments, releases_dir=self.releases_dir, **more
        )

    def poll(self, task_id: str, poll: str, arguments: Mapping[str, Any]) -> PollTask:
        return PollTask(task_id=task_id, poll=poll, arguments=arguments, releases_dir=self.releases_dir)


def build_dags(dag_file: str) -> dict[str, DAG]:
    """Build the DAGs of the site that COMITY_SITE names.

    Args:
        dag_file: path of the calling DAG file. In a `ReleaseBundle` a copy of the releases lies beside its folder,
            and the DAGs are made from it; elsewhere from the site's own releases folder.

    Returns:
        DAGs by id.

    Raises:
        ConfigError: the site's file or a release is not as it must be; Airflow shows it as an import error.
    """
    pinned = Path(dag_file).resolve().parents[1] / RELEASES_FOLDER
    releases_dir = str(pinned) if pinned.is_dir() else None
    site = current_site(releases_dir)
    build = _Build(ProviderSettings.from_airflow(), releases_dir, get_parsing_context().dag_id)
    reports = _merge(list_releases(site))
    dags: list[DAG] = []
    for owner in site.owners:
        dags += _owner_dags(build, owner, reports)
    if site.is_recipient:
        dags += [_group(build, report) for report in reports if build.wants(f"group_{report.name}")]
    return {dag.dag_id: dag for dag in dags}


def _merge(releases: Iterable[Any]) -> list[_Report]:
    # Releases come oldest first, so that a newer calendar wins; an older one still knows the periods before it.
    reports: dict[str, _Report] = {}
    for release in releases:
        report = reports.setdefault(release.report, _Report(release.report))
        report.datasets |= set(release.datasets)
        for row in release.calendar:
            report.rows[row.key] = PeriodRow.parse(row.key, row.start_date, row.end_date, row.opens_at)
    return [reports[name] for name in sorted(reports)]


def _owner_dags(build: _Build, owner: str, reports: list[_Report]) -> Iterable[DAG]:
    for report in reports:
        if build.wants(f"file_{report.name}__{owner}"):
            yield _file(build, owner, report)
        if build.wants(f"outcome_{report.name}__{owner}"):
            yield _outcome(build, owner, report)
    for dataset in sorted({dataset for report in reports for dataset in report.datasets}):
        if build.wants(f"snapshot_{dataset}__{owner}"):
            yield _snapshot(build, owner, dataset, [report for report in reports if dataset in report.datasets])


def _dag(
    build: _Build,
    dag_id: str,
    rows: Mapping[str, PeriodRow],
    *,
    party: str,
    pool: str,
    doc_md: str,
    tags: list[str],
    max_active_runs: int,
) -> DAG:
    settings = build.settings
    keys = [row.key for row in sorted(rows.values(), key=lambda row: row.start_date)]
    first_day = min(row.opens_at for row in rows.values()) - dt.timedelta(days=1) if rows else None
    return DAG(
        dag_id=dag_id,
        schedule=CalendarTimetable(rows.values()),
        start_date=first_day,
        catchup=True,
        max_active_runs=max_active_runs,
        params={"period": Param(None, type=["null", "string"], enum=[None, *keys], title="Period")},
        doc_md=doc_md,
        tags=["comity", *tags],
        default_args={
            "owner": party,
            "pool": pool,
            "retries": settings.retries,
            "retry_delay": dt.timedelta(seconds=settings.retry_delay_s),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": dt.timedelta(seconds=settings.max_retry_delay_s),
        },
    )


def _file(build: _Build, owner: str, report: _Report) -> DAG:
    who = {"owner": owner, "period": PERIOD}
    what = {**who, "report": report.name}
    with _dag(
        build,
        f"file_{report.name}__{owner}",
        report.rows,
        party=owner,
        pool=owner_pool(owner),
        doc_md=runbooks.FILE,
        tags=[owner, report.name, "file"],
        max_active_runs=_FILINGS_AT_ONCE,
    ) as dag:
        check = build.step("check_release", what, closed_is_skip=True)
        snapshot = build.step("snapshot", {**who, "release": check.output}, step="take_snapshots")
        data = {**what, "snapshots": snapshot.output}
        validate = build.step("validate", data)
        plan = build.step("local_plan", data)
        figures = {**what, "contribution": plan.output}
        sign_off = build.poll("sign_off", "sign_off_ready", figures)
        share = build.step("share_and_seal", {**figures, "sign_off": sign_off.output})
        deliver = StepTask.partial(
            task_id="deliver",
            step="deliver",
            arguments={"owner": owner},
            releases_dir=build.releases_dir,
            map_index_template="{{ task.parcel['operator'] }}",
        ).expand(parcel=share.output)
        receipts = build.poll("await_receipts", "receipts_ready", {"owner": owner, "parcels": share.output})
        validate >> plan
        deliver >> receipts
    return dag


def _outcome(build: _Build, owner: str, report: _Report) -> DAG:
    what = {"owner": owner, "report": report.name, "period": PERIOD}
    with _dag(
        build,
        f"outcome_{report.name}__{owner}",
        report.rows,
        party=owner,
        pool=owner_pool(owner),
        doc_md=runbooks.OUTCOME,
        tags=[owner, report.name, "outcome"],
        max_active_runs=_OUTCOMES_AT_ONCE,
    ) as dag:
        wait = build.poll("await_outcome", "outcome_ready", what)
        wait >> build.step("fetch_evidence", what, step="fetch_outcome")
    return dag


def _snapshot(build: _Build, owner: str, dataset: str, reports: list[_Report]) -> DAG:
    who = {"owner": owner, "period": PERIOD}
    with _dag(
        build,
        f"snapshot_{dataset}__{owner}",
        {key: row for report in reports for key, row in report.rows.items()},
        party=owner,
        pool=owner_pool(owner),
        doc_md=runbooks.SNAPSHOT,
        tags=[owner, dataset, "snapshot"],
        max_active_runs=1,
    ) as dag:
        purpose = build.step(
            "check_purpose", {**who, "reports": [report.name for report in reports]}, closed_is_skip=True
        )
        asset = Asset(name=f"{owner}.{dataset}", uri=f"comity://{owner}/{dataset}")
        purpose >> build.step("take_snapshot", {**who, "dataset": dataset}, outlets=[asset])
    return dag


def _group(build: _Build, report: _Report) -> DAG:
    what = {"report": report.name, "period": PERIOD}
    with _dag(
        build,
        f"group_{report.name}",
        report.rows,
        party="group",
        pool=group_pool(),
        doc_md=runbooks.GROUP,
        tags=[report.name, "group"],
        max_active_runs=1,  # oldest first: the year to date adds published months
    ) as dag:
        filings = build.poll("await_filings", "filings_ready", what)
        close = build.step("close", what)
        run = {"run": close.output}
        result = build.poll("await_result", "result_ready", run)
        fetch = build.step("fetch", run)
        verify = build.step("verify", {**run, "fetched": fetch.output})
        publish = build.step("publish", {**run, "verified": verify.output})
        acknowledge = build.step("acknowledge", {**run, "published": publish.output})
        deletions = build.poll("await_deletions", "deletions_ready", run)
        filings >> close
        result >> fetch
        acknowledge >> deletions
    return dag
