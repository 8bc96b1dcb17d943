"""`SCHEDULERS=1 make demo`: the months by real Airflows: api-server, scheduler, dag-processor and triggerer at five sites.

Nobody starts a DAG run here: each site's scheduler makes them from the signed calendar (`CalendarTimetable`, catch-up).
Two people of every owner sign, as in the other mode; everything else is looked at over the sites' own REST APIs.
Twenty server processes and 360 tasks: 5 GB of memory and 900 CPU-seconds, so some ten minutes on two quiet cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from infra.airflow.home import DEMO_WAITING, SiteError, prepare_home
from infra.airflow.rest import ENDED, Rest, TaskWatch
from infra.airflow.stack import (
    Stack,
    ended_components,
    processes_of,
    start_component,
    start_stack,
    stop_stack,
)
from infra.demo.agreement import People
from infra.demo.homes import DemoHomes
from infra.demo.sites import dag_runs

__all__ = ["SCHEDULER_SETTINGS", "run_schedulers", "scheduler_waiting"]

Event = dict[str, Any]

SCHEDULER_SETTINGS: Mapping[str, Mapping[str, object]] = {
    "core": {"parallelism": 2, "dagbag_import_timeout": 180},
    # Five Airflows share a machine: a component that waits for the processor is not taken for dead.
    "scheduler": {"scheduler_health_check_threshold": 180, "task_instance_heartbeat_timeout": 900},
    "triggerer": {"triggerer_health_check_threshold": 180, "runner_health_check_threshold": 180},
    "dag_processor": {
        "parsing_processes": 1,
        "min_file_process_interval": 60,
        "stale_dag_threshold": 600,
        "dag_file_processor_timeout": 240,
        "health_check_threshold": 180,
    },
    "workers": {"execution_api_timeout": 60.0},
}
"""airflow.cfg for a site that shares two cores with four others."""

_START_S = 600.0
_STARTS_AT_ONCE = 2
_PAUSE_S = 2.0
_STALL_S = 900.0
_GRACE_S = 600.0
_REVIVALS = 5


def scheduler_waiting(wait_days: float = 0.25) -> dict[str, float]:
    """Return the `[comity]` settings of a site with a scheduler: it asks less often than `dag.test()` does.

    Args:
        wait_days: how long a task waits for people and other parties.
    """
    return {**DEMO_WAITING, "poll_first_s": 1.0, "poll_max_s": 5.0, "wait_days": wait_days}


def run_schedulers(
    homes: DemoHomes,
    periods: tuple[str, ...],
    on_event: Callable[[Event], None],
    on_month: Callable[[str], None],
    say: Callable[[str], None] = print,
) -> None:
    """Run the months by real schedulers at all sites, and stop them again, whatever happens.

    Args:
        homes: parties whose operators and SFTP servers run, with imported and approved releases.
        periods: months that people sign, in order.
        on_event: called for each task that ended, as `SiteProcesses.events` yields them.
        on_month: called for each month in order, once all runs of the month have ended at every site.
        say: prints a line of progress.

    Raises:
        RuntimeError: a run failed, a site's components ended time and again, or nothing happened for 15 minutes; with the place of the logs.
        SiteError: an Airflow did not start, or did not stop.
    """
    people = People(homes, periods)
    try:
        stacks = _start(homes, say)
        people.start()
        _Months(homes, stacks, periods, on_event, say).follow(people, on_month)
    finally:
        people.stop()
        _stop(homes, say)


def _start(homes: DemoHomes, say: Callable[[str], None]) -> dict[str, Stack]:
    def start(site: str) -> Stack:
        home, site_toml = homes.root / "airflow" / site, homes.sites[site] / "site.toml"
        if processes_of(home):  # of a demo that was killed
            stop_stack(home)
        prepare_home(home, site_toml, comity=scheduler_waiting(), airflow=SCHEDULER_SETTINGS)
        stack = start_stack(home, site_toml, timeout_s=_START_S)
        say(f"  ✓ Airflow of site {site}: {stack.url}")
        return stack

    say(f"  · starting {len(homes.sites)} Airflows, two at a time; three months take some ten minutes on two cores ...")
    with ThreadPoolExecutor(_STARTS_AT_ONCE) as pool:
        return dict(zip(homes.sites, pool.map(start, homes.sites), strict=True))


def _stop(homes: DemoHomes, say: Callable[[str], None]) -> None:
    homes_of = [homes.root / "airflow" / site for site in homes.sites]
    with ThreadPoolExecutor(len(homes_of)) as pool:
        list(pool.map(stop_stack, homes_of))
    left = [pid for home in homes_of for pid in processes_of(home)]
    if left:
        raise SiteError(f"processes of the sites' Airflows are left: {left}")
    say("  ✓ all Airflows stopped, no process left")


class _Months:
    """The months at all sites, seen over REST."""

    def __init__(
        self,
        homes: DemoHomes,
        stacks: Mapping[str, Stack],
        periods: tuple[str, ...],
        on_event: Callable[[Event], None],
        say: Callable[[str], None],
    ) -> None:
        self._homes, self._stacks, self._periods, self._on_event, self._say = homes, stacks, periods, on_event, say
        self._revived = dict.fromkeys(stacks, 0)
        self._watches = {site: TaskWatch(site, Rest(stack)) for site, stack in stacks.items()}
        self._silent_since = dict.fromkeys(stacks, time.monotonic())
        self._moved = time.monotonic()

    def follow(self, people: People, on_month: Callable[[str], None]) -> None:
        """Look until every run of every month has ended; report months in order."""
        open_months = list(self._periods)
        try:
            while open_months:
                self._look()
                self._check(people)
                if self._is_over(open_months[0]):
                    on_month(open_months.pop(0))
                    self._moved = time.monotonic()
                else:
                    time.sleep(_PAUSE_S)
        finally:
            for watch in self._watches.values():
                watch.rest.close()

    def _look(self) -> None:
        for site, watch in self._watches.items():
            try:
                events = watch.look()
            except httpx.HTTPError:  # busy: asked again; one that stays silent is an error in `_check`
                continue
            self._silent_since[site] = time.monotonic()
            for event in events:
                self._moved = time.monotonic()
                if event["period"] in self._periods:
                    self._on_event(event)
                    self._refuse(event)

    def _refuse(self, event: Event) -> None:
        lost = event["state"] == "skipped" and event["dag_id"].startswith("file_")
        if event["state"] == "failed" or lost:
            place = self._homes.root / "airflow" / event["site"] / "logs"
            raise RuntimeError(
                f"{event['dag_id']}.{event['task_id']} ({event['period']}) ended as {event['state']}; see {place}"
            )

    def _check(self, people: People) -> None:
        if people.failures:
            raise RuntimeError("; ".join(people.failures))
        for site, stack in self._stacks.items():
            self._revive(site, stack)
            if time.monotonic() - self._silent_since[site] > _GRACE_S:
                raise RuntimeError(f"the REST API of site {site} has been silent; see {stack.log_of('api-server')}")
        if time.monotonic() - self._moved > _STALL_S:
            waiting = [f"{dag} {period}" for period in self._periods for dag, period in self._open(period)]
            raise RuntimeError(
                f"nothing has happened for {_STALL_S / 60:.0f} minutes; open: {', '.join(waiting[:10])}; "
                f"see {self._homes.root / 'airflow'}"
            )

    def _revive(self, site: str, stack: Stack) -> None:
        # As a service manager does: what an ended component left unfinished goes on when it is there again.
        for component in ended_components(stack):
            self._revived[site] += 1
            if self._revived[site] > _REVIVALS:
                raise RuntimeError(f"{component} of site {site} ended again; see {stack.log_of(component)}")
            self._say(f"  · {component} of site {site} ended and is started again; see {stack.log_of(component)}")
            stack.pids[component] = start_component(stack, component)

    def _open(self, period: str) -> list[tuple[str, str]]:
        """Return the runs of a month that are expected or there, and have not ended."""
        found = []
        for site, watch in self._watches.items():
            wanted = {run for run in dag_runs(self._homes, site, self._periods) if run[1] == period}
            there = {run for run in watch.states if run[1] == period}
            found += [run for run in sorted(wanted | there) if watch.states.get(run) not in ENDED]
        return found

    def _is_over(self, period: str) -> bool:
        return not self._open(period)
