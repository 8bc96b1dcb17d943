"""`make demo`: the first monthly group report, three months of it, on real servers, from nothing.

Eight entities in four jurisdictions, fifteen computing operators, twelve SFTP servers, five Airflow sites. Everything is
real but the people (their keys sign by command) and the distances (all on loopback).
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from infra.demo import reference
from infra.demo.agreement import REPORT, People, import_and_approve, publish_reference, release, utc_now
from infra.demo.console import DemoConsole
from infra.demo.homes import DemoHomes, make_homes
from infra.demo.results import Month, look_at_month, write_summary
from infra.demo.sites import SiteProcesses, prepare_site_homes
from local_stores.publish.history import load_published
from mpc_ops.errors import ComityError
from mpc_ops.plan.model import Plan
from mpc_ops.server.supervise import Supervisor, operator_process, sftp_process

__all__ = ["Demo", "main"]

ROOT = Path(__file__).resolve().parents[2]
_COMITY = Path(sys.executable).with_name("comity")
_PAUSE_S = 0.2
_STEP_WORDS = {
    "check_release": "release, approval, keys and rates checked; no data was read before",
    "check_purpose": "approved report found that uses the data set",
    "snapshot": "snapshot of the books taken",
    "take_snapshot": "snapshot of the period announced as an asset",
    "validate": "snapshot validated against the data contract",
    "local_plan": "figures of cells and rows of customers computed in the sandbox",
    "sign_off": "figures signed by two people",
    "share_and_seal": "figures and rows split into secret shares, sealed to three operators",
    "deliver": "sealed parts delivered over SFTP",
    "await_receipts": "receipts of all three operators are there",
    "await_outcome": "outcome of the run seen",
    "fetch_evidence": "evidence fetched and countersigned",
    "await_filings": "every submission is there",
    "close": "submissions closed: the signed manifest starts the run",
    "await_result": "country stages and group stage committed",
    "fetch": "sealed result parts fetched",
    "verify": "parts, commitments, attestations and transfer logs checked",
    "publish": "Parquet, CSV, XLSX and page published",
    "acknowledge": "acknowledged: operators delete shares and keys",
    "await_deletions": "every operator attests that shares are deleted; closing attestation signed",
}


class Demo:
    """One run of the demo below `root`."""

    def __init__(self, root: Path, periods: tuple[str, ...], console: DemoConsole, *, canaries: bool = False) -> None:
        self.root, self.periods, self.console = root, periods, console
        self.canaries = tuple(reference.rate_periods(periods)) if canaries else ()
        self.cache = ROOT / "var" / "cache"
        self.months: list[Month] = []

    def run(self, *, schedulers: bool = False) -> bool:
        """Run everything; return whether every month is exact and its evidence verified."""
        console = self.console
        console.heading("Setting up")
        with console.step("homes", "books of 8 entities, keys and homes of 15 operators and 5 sites"):
            homes = make_homes(self.root, self.cache / "tpch", canaries=self.canaries)
            prepare_site_homes(homes, self.cache / "airflow")
        with Supervisor(self._processes(homes)) as operators:
            plan = self._agree(homes)
            if schedulers:
                from infra.demo.schedulers import run_schedulers  # noqa: PLC0415 - only where asked for

                self.console.heading("The months: real schedulers, triggerers and web servers at all five sites")
                on_month = functools.partial(self._month, homes, plan)
                run_schedulers(homes, self.periods, self._on_event(homes), on_month, self.console.say)
            else:
                self._run_months(homes, plan)
            cpu = operators.cpu_seconds()
        self._end(homes, cpu, "schedulers" if schedulers else "dag.test")
        return bool(self.months) and all(month.exact and month.verdict.ok for month in self.months)

    def _processes(self, homes: DemoHomes) -> list[Any]:
        logs = homes.root / "logs"
        operators = [operator_process(home, name, logs) for name, home in homes.operators.items()]
        drops = [
            sftp_process(homes.operators[name] / "sftp.toml", f"{name}-sftp", logs) for name in homes.region_operators
        ]
        self.console.say(f"  · starting {len(operators)} computing operators and {len(drops)} SFTP servers ...")
        return operators + drops

    def _agree(self, homes: DemoHomes) -> Plan:
        console, now = self.console, utc_now()
        with console.step("release", f"release of {REPORT}: compiled, checked against the border rules, signed"):
            _, plan = release(homes, reference.PERIODS, now)
        with console.step("approve", "every entity fetches it, compiles it again, and its privacy officer approves"):
            with ThreadPoolExecutor(len(homes.site_owners)) as pool:
                done = sum(pool.map(lambda site: import_and_approve(homes, site, now), homes.site_owners))
            if done != sum(map(len, homes.site_owners.values())):
                raise RuntimeError("not every entity has approved")
        with console.step("reference", f"monthly rates signed by group controlling: {', '.join(self.periods)}"):
            for period in self.periods:
                publish_reference(homes, period, utc_now())
        return plan

    def _run_months(self, homes: DemoHomes, plan: Plan) -> None:
        self.console.heading("The months: every site's DAGs by dag.test(), in its own process, all sites at once")
        sites, people = SiteProcesses(homes, self.periods), People(homes, self.periods)
        on_event, waiting = self._on_event(homes), list(self.periods)
        people.start()
        sites.start()
        try:
            while sites.running() or waiting:
                for event in sites.events():
                    on_event(event)
                    if event["dag_id"] == f"group_{REPORT}" and event["task_id"] == "await_deletions":
                        waiting.remove(event["period"])
                if sites.failed or sites.ended_badly() or people.failures:
                    raise RuntimeError(_why(sites, people))
                if not sites.running() and waiting:
                    raise RuntimeError(f"no result for {', '.join(waiting)}; see {homes.root / 'logs'}")
                time.sleep(_PAUSE_S)
        finally:
            people.stop()
            sites.stop()
        for period in self.periods:
            self._month(homes, plan, period)

    def _on_event(self, homes: DemoHomes) -> Callable[[dict[str, Any]], None]:
        owners = [owner for names in homes.site_owners.values() for owner in names]

        def on_event(event: dict[str, Any]) -> None:
            task = event["task_id"]
            owner = event["dag_id"].partition("__")[2]
            key = f"{event['period']} {task}"
            self.console.seconds[key] = round(max(self.console.seconds.get(key, 0.0), event["seconds"]), 2)
            if event["state"] == "success":
                who, expected = (owner, owners) if owner else ("group reporting", ["group reporting"])
                self.console.progress(event["period"], task, _STEP_WORDS.get(task, task), who, expected)

        return on_event

    def _month(self, homes: DemoHomes, plan: Plan, period: str) -> None:
        console = self.console
        with console.step(
            f"{period} evidence", f"{period}: deletions attested, countersigned, evidence checked offline"
        ):
            month = look_at_month(homes, plan, period)
        self.months.append(month)
        console.heading(f"{REPORT} {period}")
        console.report(
            *load_published(homes.root / "published" / REPORT / period / "result.parquet"),
            leaves=period == self.periods[-1],
        )
        if period == self.periods[-1]:
            console.heading(f"What crossed each border in {period}")
            console.flows(month.flows)
            console.heading("Who could learn what")
            console.pairs([(fact.cells["who"], fact.cells["what"]) for fact in month.facts.section("learn")])
        console.verdict(month.exact, f"equals one query over everybody's plaintext, {month.rows} rows, to the cent")
        console.verdict(month.verdict.ok, f"evidence: {month.verdict.words.lower()}; {month.facts.verdict}")

    def _end(self, homes: DemoHomes, operators_cpu: float, mode: str) -> None:
        # Children that have ended count in RUSAGE_CHILDREN; the operators have just been stopped and waited for.
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
        summary = write_summary(homes.root / "summary.json", self.months, self.console.seconds, cpu, mode)
        newest = self.periods[-1]
        self.console.heading("Files")
        self.console.files(
            [
                homes.root / "published" / REPORT / newest / "report.html",
                homes.root / "published" / REPORT / newest / "result.xlsx",
                homes.root / "evidence" / REPORT / newest / "page.html",
                homes.root / "summary.json",
                homes.root / "logs",
            ],
            ROOT,
        )
        self.console.say(
            f"CPU {summary['cpu_seconds']} s, of which {operators_cpu:.0f} s by the operators. Check the evidence yourself:"
        )
        self.console.say(f"  {_typed(_COMITY)} evidence verify {_typed(homes.root / 'evidence' / REPORT / newest)}")


def _typed(path: Path) -> str:
    """Return a path as one would type it in the repository's folder."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _why(sites: SiteProcesses, people: People) -> str:
    tasks = [f"{event['dag_id']}.{event['task_id']} ({event['period']})" for event in sites.failed]
    return "; ".join([*tasks, *sites.ended_badly(), *people.failures]) + "; see var/demo/logs"


def main() -> int:
    """Run the demo; 0 if every month is exact and its evidence verified."""
    parser = argparse.ArgumentParser(description="The first monthly group report, on real servers.")
    parser.add_argument(
        "--schedulers", action="store_true", help="real Airflow schedulers and triggerers at every site"
    )
    parser.add_argument(
        "--months", type=int, default=len(reference.PERIODS), choices=range(1, len(reference.PERIODS) + 1)
    )
    parser.add_argument("--root", type=Path, default=ROOT / "var" / "demo")
    parser.add_argument(
        "--canaries", action="store_true", help="plant lines in all books that must be seen nowhere else (for tests)"
    )
    args = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Ended from outside, the demo still stops its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("comity: the demo was ended"))
    console, started = DemoConsole(), time.monotonic()
    try:
        demo = Demo(args.root, reference.PERIODS[: args.months], console, canaries=args.canaries)
        good = demo.run(schedulers=args.schedulers)
    except (ComityError, RuntimeError) as error:
        console.verdict(False, str(error))
        return 1
    console.say(f"{time.monotonic() - started:.0f} s in all")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
