"""The five sites' Airflow of the demo: each site's DAG files run in its own process, or by its own real scheduler."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.airflow.home import prepare_home
from infra.demo.agreement import REPORT
from infra.demo.homes import GROUP_SITE, DemoHomes

__all__ = ["SiteProcess", "SiteProcesses", "dag_runs", "prepare_site_homes"]

_SCRIPT = Path(__file__).resolve().parents[1] / "airflow" / "site_env.py"


def dag_runs(homes: DemoHomes, site: str, periods: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the DAG runs of a site in the order of the months: file, then the outcome, owner by owner."""
    if site == GROUP_SITE:
        return [(f"group_{REPORT}", period) for period in periods]
    owners = homes.site_owners[site]
    kinds = ("file", "outcome")
    return [(f"{kind}_{REPORT}__{owner}", period) for period in periods for kind in kinds for owner in owners]


def prepare_site_homes(homes: DemoHomes, cache: Path) -> dict[str, Path]:
    """Make the AIRFLOW_HOME of every site and return them by site."""
    out = {site: homes.root / "airflow" / site for site in homes.sites}
    for site, home in out.items():
        prepare_home(home, homes.sites[site] / "site.toml", cache=cache)
    return out


@dataclass
class SiteProcess:
    """One site's process with its events file."""

    site: str
    process: subprocess.Popen[bytes]
    events: Path
    offset: int = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the task events since the last call."""
        if not self.events.exists():
            return []
        with self.events.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [{"site": self.site, **json.loads(line)} for line in whole.splitlines()]


@dataclass
class SiteProcesses:
    """All sites at once. `failed` holds the tasks that ended in failure."""

    homes: DemoHomes
    periods: tuple[str, ...]
    failed: list[dict[str, Any]] = field(default_factory=list)
    _running: list[SiteProcess] = field(default_factory=list)

    def start(self) -> None:
        """Start one process for each site."""
        logs = self.homes.root / "logs"
        for site, folder in self.homes.sites.items():
            home, events = self.homes.root / "airflow" / site, logs / f"site-{site}.events"
            events.unlink(missing_ok=True)
            runs = [f"{dag}:{period}" for dag, period in dag_runs(self.homes, site, self.periods)]
            command = [sys.executable, str(_SCRIPT), "test", "--home", str(home), "--site", str(folder / "site.toml")]
            with (logs / f"site-{site}.log").open("ab") as log:
                process = subprocess.Popen(
                    [*command, "--events", str(events), *runs],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            self._running.append(SiteProcess(site, process, events))

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the task events that have come since the last call."""
        for one in self._running:
            for event in one.read():
                if event["state"] in {"failed", "upstream_failed"}:
                    self.failed.append(event)
                yield event

    def running(self) -> list[str]:
        """Return the sites whose process is there."""
        return [one.site for one in self._running if one.process.poll() is None]

    def ended_badly(self) -> list[str]:
        """Return the sites whose process ended with an error."""
        return [one.site for one in self._running if one.process.poll() not in (None, 0)]

    def stop(self) -> None:
        """End what is still running."""
        for one in self._running:
            if one.process.poll() is None:
                one.process.terminate()
        for one in self._running:
            try:
                one.process.wait(10)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
