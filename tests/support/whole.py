"""A whole federation on one machine: real operator processes, owners' and recipient's sites, and a period walked step by step.

`whole_federation` starts the processes. `Whole.release` gives a report of its own to one test, so that a module can share
the processes; owners file with their site's steps (`file_by_site`: books, Gate, sign-off) or quickly with figures of the
test's choice (`file`); the recipient closes, fetches and verifies with its site's steps. Steps that have to wait are
repeated by `until`, as Airflow would; a terminal error comes out at once.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from infra.demo.data import ENTITIES
from local_stores import closing, filing
from local_stores.closing.desk import open_desk
from local_stores.config import Site, create_owner_home, create_site
from local_stores.snapshot.contribution import Figures
from local_stores.snapshot.record import ContributionId, read_contribution
from mpc_ops.errors import ComityError
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.rulepack import RulePack
from mpc_ops.notices.model import Rejected, State
from mpc_ops.notices.signed import SignedNotice, parse_notice
from mpc_ops.plan.layout import leaf_count
from mpc_ops.plan.model import Plan, RegionSumNode
from mpc_ops.plan.releases import open_release
from mpc_ops.plan.statement import planned_statement
from mpc_ops.planner.release import release_report
from mpc_ops.server.supervise import ManagedProcess, Supervisor, free_ports, operator_process, sftp_process
from tests.support.closing import make_recipient_site, save_notice
from tests.support.demo_data import SmallDemo, small_stores
from tests.support.federation import (
    AUTHOR,
    MadeFederation,
    make_approval,
    make_calendar,
    make_federation,
    make_plan,
    make_reference,
    make_release,
)
from tests.support.operators import Desk, RealOperators, Sealed, operator_endpoints, operator_homes
from tests.support.sites import FolderSftp

__all__ = ["LIMITS", "THREE", "Report", "Whole", "until", "values_of", "whole_federation"]

ROOT = Path(__file__).resolve().parents[2]
THREE = {"DE": ["de-nord", "de-sued", "de-west"]}
LIMITS: dict[str, float] = {
    "scan_s": 0.1, "tick_s": 0.1, "ask_s": 0.3, "ask_cap_s": 1.0, "stage_timeout_s": 8.0, "stall_s": 1.0, "settle_s": 4.0,
}  # fmt: skip


def until(step: Callable[..., Any], *arguments: Any, timeout_s: float = 60.0, **named: Any) -> Any:
    """Repeat a step until it returns something true; transient errors are waited out, others come out at once."""
    end = time.monotonic() + timeout_s
    last: object = "it said nothing"
    while time.monotonic() < end:
        try:
            found = step(*arguments, **named)
        except ComityError as error:
            if not error.transient:
                raise
            last = error
        else:
            if found:
                return found
        time.sleep(0.05)
    raise AssertionError(f"not in time, last: {last}")


@dataclass(frozen=True)
class Report:
    """A report that was released to the federation."""

    plan: Plan
    release: SignedNotice
    statement: str

    @property
    def name(self) -> str:
        return self.plan.report


@dataclass
class Whole:
    """A running federation with its owners' site and its recipient's site.

    Attributes:
        group: the recipient's site.
        owners: the owners' site.
        books: the owners' stores, with canaries.
    """

    root: Path
    made: MadeFederation
    running: RealOperators
    group: Site
    owners: Site
    books: SmallDemo
    sftp: bool
    references: dict[str, SignedNotice] = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------------- the agreement

    @property
    def federation(self) -> Federation:
        return self.made.federation

    def release(
        self, name: str, *periods: str, approve: Iterable[str] | None = None, open_hours: int = 1, **terms: Any
    ) -> Report:
        """Release a report for `periods`, publish their rates, wait for period keys, approve it for its owners.

        `terms` go to `make_plan`. A plan that the border rules deny is released all the same, as its author could.
        """
        terms = {"min_owners": 2, "dimensions": ("segment",), **terms}
        plan = make_plan(self.federation, report=name, **terms)
        try:
            statement = planned_statement(plan, self.federation, now=datetime.now(UTC)).digest
        except ComityError:
            statement = plan.digest
        calendar = make_calendar(periods, open_hours=open_hours)
        signed = make_release(self.made, plan, calendar=calendar, statement=statement)
        return self._publish(Report(plan, signed, statement), periods, approve)

    def release_text(self, sql: str, terms: str, *periods: str) -> Report:
        """Compile a report from its SQL and terms, release it as its author does, and approve it for its owners."""
        now = datetime.now(UTC)
        signed = release_report(
            sql, terms, make_calendar(periods), self.federation, author=AUTHOR, key=self.made.keys[AUTHOR], now=now
        )
        opened = open_release(signed, self.federation, now=now)
        return self._publish(Report(opened.plan, signed, opened.statement.digest), periods, None)

    def owners_of(self, report: Report) -> list[str]:
        """Return the owners of the regions that a report asks."""
        regions = report.plan.node(RegionSumNode).regions
        return [owner for owner in self.made.owners if self.federation.owner(owner).region in regions]

    def _publish(self, report: Report, periods: Sequence[str], approve: Iterable[str] | None) -> Report:
        for site in (self.group, self.owners):
            path = save_notice(site.releases_dir, report.release)
        until(closing.publish_release, self.group, path)
        for period in periods:
            self.publish_rates(period)
        for owner in self.owners_of(report):
            for period in periods:
                until(lambda owner=owner, period=period: len(self.desk(report, period).keys(owner, period)) == 3)
        for owner in self.owners_of(report) if approve is None else approve:
            self.approve(report, owner)
        return report

    def publish_rates(self, period: str) -> SignedNotice:
        if period not in self.references:
            self.references[period] = make_reference(self.made, period)
            path = save_notice(self.root / "reference", self.references[period])
            until(closing.publish_reference, self.group, path)
        return self.references[period]

    def approve(self, report: Report, owner: str, **changes: Any) -> SignedNotice:
        """Approve as the owner's approver; site and operators get it."""
        return self.hand_in(make_approval(self.made, report.plan, owner, **{"statement": report.statement, **changes}))

    def hand_in(self, signed: SignedNotice) -> SignedNotice:
        """Keep an approval or withdrawal at the owner's site and send it to its operators."""
        owner = signed.notice.owner
        save_notice(self.owners.owner(owner).folder / "approvals", signed)
        filing.send_to_operators(self.owners, owner, signed, self.opener(owner))
        return signed

    # --------------------------------------------------------------------------------------------------- owners

    def opener(self, owner: str) -> Callable[[str], AbstractContextManager[Any]] | None:
        """How the owner's site reaches its drop-boxes: over SFTP, or straight in the operators' spools."""
        if self.sftp:
            return None

        @contextmanager
        def opened(operator: str) -> Iterator[FolderSftp]:
            folder = self.root / "boxes" / owner / operator
            if not folder.exists():
                folder.mkdir(parents=True)
                for box in ("inbox", "outbox"):
                    (self.running.spools[operator] / box / owner).mkdir(parents=True, exist_ok=True)
                    (folder / box).symlink_to(self.running.spools[operator] / box / owner)
            yield FolderSftp(folder)

        return opened

    def desk(self, report: Report, period: str) -> Desk:
        """Return owners' and recipient's hands for one period of a report."""
        return Desk(self.made, report.plan, self.running.spools, reference=self.references.get(period))

    def file(
        self, report: Report, period: str, owner: str, values: Sequence[int] | np.ndarray | None = None, **change: Any
    ) -> Sealed:
        """File figures of the test's choice (random ones by default) and wait for the three receipts."""
        sealed = self.send(report, period, owner, values, **change)
        self.receipts(report, period, sealed)
        return sealed

    def send(
        self, report: Report, period: str, owner: str, values: Sequence[int] | np.ndarray | None = None, **change: Any
    ) -> Sealed:
        desk = self.desk(report, period)
        if values is None:
            values = np.random.default_rng().integers(-(10**12), 10**12, desk.lanes)
        return desk.deliver(desk.seal(owner, np.asarray(values), period=period, **change))

    def receipts(self, report: Report, period: str, sealed: Sealed) -> None:
        until(lambda: len(self.desk(report, period).receipts(sealed)) == 3)

    def file_all(self, report: Report, period: str, *, but: Iterable[str] = (), **change: Any) -> dict[str, Sealed]:
        sent = {
            owner: self.send(report, period, owner, **change) for owner in self.made.owners if owner not in set(but)
        }
        for sealed in sent.values():
            self.receipts(report, period, sealed)
        return sent

    def contribute(self, report: Report, period: str, owner: str) -> dict[str, Any]:
        """The owner's steps from the release to the figures: check, snapshot, local plan and Gate."""
        until(filing.check_release, self.owners, owner, report.name, period, open_sftp=self.opener(owner))
        snapshots = {"sales_line": filing.take_snapshot(self.owners, owner, "sales_line", period)}
        return dict(filing.local_plan(self.owners, owner, report.name, period, snapshots))

    def figures(self, report: Report, period: str, contribution: Mapping[str, Any]) -> np.ndarray:
        """Return what an owner's site keeps of its contribution."""
        return self.contributed(report, period, contribution).lanes

    def contributed(self, report: Report, period: str, contribution: Mapping[str, Any]) -> Figures:
        """Return what an owner shares: its figures and, before a Gate in the region, its customers' rows of bits."""
        owner = str(contribution["owner"])
        of = ContributionId(report.plan.digest, period, owner, int(contribution["edition"]))
        record = read_contribution(self.owners.state, of, str(contribution["commitment"]))
        rows = tuple(record.rows(leaf_count(report.plan)))
        return Figures(record.values(), {}, (), (), record.kind == "nil", rows)

    def sign(self, report: Report, period: str, owner: str, *, people: int = 2) -> None:
        for name, key in list(self.made.signers(owner).items())[:people]:
            filing.sign_off(self.owners, owner, report.name, period, signer=name, key=key)

    def seal(self, report: Report, period: str, owner: str, contribution: Mapping[str, Any]) -> dict[str, Any]:
        ready = filing.sign_off_ready(self.owners, owner, report.name, period, contribution)
        return dict(
            filing.share_and_seal(
                self.owners, owner, report.name, period, contribution, ready, open_sftp=self.opener(owner)
            )
        )

    def deliver(self, owner: str, parcel: Mapping[str, Any]) -> None:
        for operator in parcel["operators"]:
            until(filing.deliver, self.owners, owner, parcel, operator, open_sftp=self.opener(owner))

    def file_by_site(self, report: Report, period: str, owner: str) -> np.ndarray:
        """The owner's whole way, from its books to three receipts; returns its figures."""
        contribution = self.contribute(report, period, owner)
        self.sign(report, period, owner)
        parcel = self.seal(report, period, owner, contribution)
        self.deliver(owner, parcel)
        until(filing.receipts_ready, self.owners, owner, parcel, open_sftp=self.opener(owner))
        return self.figures(report, period, contribution)

    # ------------------------------------------------------------------------------------------------- recipient

    def close(self, report: Report, period: str, **left_out: Iterable[str]) -> dict[str, Any]:
        """Close the submissions as soon as it can be done; `without` and `exclude` name who is left out."""
        return dict(until(closing.close, self.group, report.name, period, **left_out))

    def result(self, run: Mapping[str, Any], *, timeout_s: float = 60.0) -> np.ndarray:
        """Wait for the result, fetch and verify it; return the values."""
        until(closing.result_ready, self.group, run, timeout_s=timeout_s)
        fetched = until(closing.fetch, self.group, run)
        until(closing.verify, self.group, run, fetched)
        return np.array(open_desk(self.group).run(str(run["run_id"])).lanes(), dtype=np.int64)

    def run(self, report: Report, period: str, **left_out: Iterable[str]) -> np.ndarray:
        return self.result(self.close(report, period, **left_out))

    def failure(self, run: Mapping[str, Any], *, timeout_s: float = 60.0) -> ComityError:
        """Wait until the recipient's step says that the run ended without a result, and return what it says."""
        try:
            found = until(closing.result_ready, self.group, run, timeout_s=timeout_s)
        except ComityError as error:
            return error
        raise AssertionError(f"the run has a result: {found}")

    def api(self, operator: str, path: str) -> dict[str, Any]:
        return dict(self.running.api(operator).get(path).json())

    def sessions(self, run: Mapping[str, Any], operator: str = "nl-1") -> dict[str, dict[str, Any]]:
        """Return {operator@cluster: state, attempt, code, pair} as a group operator knows them."""
        found = self.api(operator, f"/v1/runs/{run['run_id']}")["sessions"]
        return {f"{name}@{cluster}": one for cluster, ones in found.items() for name, one in ones.items()}

    # ------------------------------------------------------------------------------------------------- operators

    @property
    def members(self) -> list[str]:
        return list(self.federation.terms.operators)

    def process(self, name: str) -> ManagedProcess:
        return self.running.supervisor[name]

    def freeze(self, name: str) -> None:
        os.kill(self.process(name).pid or 0, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self.process(name).pid or 0, signal.SIGCONT)

    def restart(self, name: str) -> None:
        self.process(name).kill()
        self.process(name).start()
        self.process(name).wait_ready()

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """Kill operators; start them again afterwards."""
        for name in names:
            self.process(name).kill()
        try:
            yield
        finally:
            for name in names:
                self.process(name).start()
            for name in names:
                self.process(name).wait_ready()

    @contextmanager
    def faulty(self, name: str, *faults: str, home: Path | None = None) -> Iterator[ManagedProcess]:
        """Let an operator run with faults of `tests/support/faulty_operator.py` for a while, then honestly again."""
        command = [sys.executable, "-m", "tests.support.faulty_operator", "--home", str(home or self.made.homes[name])]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        fake = ManagedProcess(f"{name}-faulty", [*command, *faults], self.process(name).log.parent, env)
        with self.without(name):
            fake.start()
            try:
                fake.wait_ready()
                yield fake
            finally:
                fake.kill()

    def events(self, name: str, event: str, *, faulty: bool = False) -> list[dict[str, str]]:
        """Return what an operator logged under an event's name."""
        log = self.process(name).log
        lines = (log.with_name(f"{name}-faulty.log") if faulty else log).read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [one for one in found if one["event"] == event]

    def ledger(self, name: str, run: str | None = None) -> list[dict[str, Any]]:
        """Return an operator's ledger entries, read beside the running process."""
        where, values = ("WHERE run = ?", (run,)) if run else ("", ())
        return [json.loads(entry) for (entry,) in self.query(name, f"SELECT entry FROM ledger {where}", *values)]

    def query(self, name: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
        db = sqlite3.connect(
            f"file:{self.made.homes[name] / 'state' / 'operator.sqlite'}?mode=ro", uri=True, timeout=10
        )
        try:
            return db.execute(sql, values).fetchall()
        finally:
            db.close()

    def notices(self, name: str, kind: str, **where: str) -> list[SignedNotice]:
        clauses = "".join(f" AND {column} = ?" for column in where)
        rows = self.query(name, f"SELECT data FROM notices WHERE kind = ?{clauses}", kind, *where.values())
        return [parse_notice(data) for (data,) in rows]

    def states(self, name: str, run: Mapping[str, Any]) -> dict[str, State]:
        """Return the signed states of a run that an operator holds, by `operator@cluster`."""
        found = [signed.expect(State) for signed in self.notices(name, "state", run=str(run["run_id"]))]
        return {f"{one.operator}@{one.cluster}": one for one in found}

    def careless_run(self, manifest: bytes, run: Mapping[str, Any], *, waits_for: int) -> dict[str, State]:
        """Let nl-1 pass on what the others would not have taken; return at least so many of their signed states."""
        with self.faulty("nl-1", "careless"):
            until(lambda: self.running.api("nl-1").put(manifest).status_code in {200, 201})

            def others() -> dict[str, State] | None:
                found = {key: one for key, one in self.states("ch-1", run).items() if "nl-1" not in key}
                return found if len(found) >= waits_for else None

            return until(others)

    def refusal(self, report: Report, period: str, digest: str, owner: str, operator: str) -> Rejected:
        """Wait for an operator's rejection of an owner's notice."""

        def look() -> Rejected | None:
            found = [s.expect(Rejected) for s in self.desk(report, period).outbox(operator, owner, "rejected")]
            return next((one for one in found if (one.filing, one.operator) == (digest, operator)), None)

        return until(look)


@contextmanager
def whole_federation(
    root: Path,
    regions: Mapping[str, Sequence[str]] = THREE,
    *,
    sftp: bool = False,
    books: Sequence[str] = ("2026-03",),
    limits: Mapping[str, float] | None = None,
    packs: Sequence[RulePack] | None = None,
) -> Iterator[Whole]:
    """Make a federation below `root`, start every operator (and SFTP server) and stop all at the end."""
    endpoints = operator_endpoints(regions)
    drops = [name for name in endpoints if "api" not in endpoints[name]] if sftp else []
    for name, port in zip(drops, free_ports(len(drops)), strict=True):
        endpoints[name]["sftp"] = f"127.0.0.1:{port}"
    made = make_federation(root / "federation", regions, endpoints=endpoints, packs=packs)
    configs = operator_homes(made, limits={**LIMITS, **(limits or {})})
    names = [owner for owners in regions.values() for owner in owners]
    stores = small_stores(root / "books", books, entities=[one for one in ENTITIES if one.name in names])
    owners = _owners_site(root / "owners", made, stores)
    group = make_recipient_site(made, root / "group", make_reference(made, "2000-01"))
    with (root / "group" / "recipient" / "recipient.toml").open("a") as file:
        file.write("timeout_s = 5\n")  # a hanging operator should not hold up a test for half a minute
    logs = root / "logs"
    processes = [operator_process(config.home, name, logs) for name, config in configs.items()]
    processes += [sftp_process(_sftp_config(made, name), f"{name}-sftp", logs) for name in drops]
    with ExitStack() as stack:
        supervisor = stack.enter_context(Supervisor(processes))
        yield Whole(root, made, RealOperators(made, supervisor, configs), group, owners, stores, sftp)


def _owners_site(folder: Path, made: MadeFederation, books: SmallDemo) -> Site:
    for store in books.stores:
        home = folder / store.entity
        entry = {"dataset": "sales_line", "kind": store.kind, "location": str(store.path)}
        create_owner_home(home, store.entity, stores=[entry], site="../site.toml")
        (home / "keys").symlink_to(made.homes[store.entity] / "keys")
    (folder / "releases").mkdir()
    return create_site(folder, "owners", federation=str(made.folder), owners=[one.entity for one in books.stores])


def _sftp_config(made: MadeFederation, operator: str) -> Path:
    home, federation = made.homes[operator], made.federation
    host, _, port = str(federation.entry(operator).sftp).rpartition(":")
    lines = [
        f'listen_host = "{host}"',
        f"listen_port = {port}",
        'host_key = "keys/ssh_host_ed25519"',
        'spool = "spool"',
    ]
    for owner in federation.owners:
        if operator in federation.operators_of(owner):
            lines += ["[[accounts]]", f'name = "{owner}"', f"keys = {json.dumps(federation.entry(owner).ssh_keys)}"]
    path = home / "sftp.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def values_of(filings: Mapping[str, Sealed]) -> np.ndarray:
    """Return the sum of what was filed."""
    return np.asarray(sum(sealed.values for sealed in filings.values()))
