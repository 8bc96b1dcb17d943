"""Stand-ins for the modules that do a site's work, so that Airflow's side can be tested alone.

`install()` puts them into `sys.modules`; product code imports them by name and sees no difference. A folder steers them
and holds what they did, so that they work across the processes of a real Airflow:

```
<folder>/calls.jsonl            one line for each call: step, period, pid, arguments' names
<folder>/<step>.<period>        an instruction: "transient N" | "notyet N" | "terminal" | "closed" | "hang" | "wait"
<folder>/<poll>.<period>.ready  what a poll waits for, where polls were told to "wait"
```
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import sys
import time
import tomllib
import types
from pathlib import Path

import local_stores
from mpc_ops.errors import DeliveryError, NotYet, PeerUnavailable, StateError

FOLDER_ENV = "COMITY_FAKE_FOLDER"


@dataclasses.dataclass(frozen=True)
class CalendarRow:
    key: str
    start_date: str
    end_date: str
    opens_at: str
    due_at: str
    cut_at: str


@dataclasses.dataclass(frozen=True)
class ReleaseInfo:
    report: str
    version: str
    datasets: tuple[str, ...]
    calendar: tuple[CalendarRow, ...]


def month_rows(months: list[str], opens_at: str | None = None, zone: str = "+01:00") -> list[dict]:
    """Return calendar rows of whole months, opening on the 5th after the end unless told."""
    rows = []
    for key in months:
        start = dt.date.fromisoformat(f"{key}-01")
        end = (start + dt.timedelta(days=32)).replace(day=1)
        opens = opens_at or f"{end.isoformat()[:8]}05T08:00:00{zone}"
        rows.append(
            {
                "key": key,
                "start_date": start.isoformat(),
                "end_date": end.isoformat(),
                "opens_at": opens,
                "due_at": f"{end.isoformat()[:8]}12T18:00:00{zone}",
                "cut_at": f"{end.isoformat()[:8]}04T00:00:00{zone}",
            }
        )
    return rows


def write_release(releases: Path, report: str, rows: list[dict], version: str = "1", datasets=("orders",)) -> Path:
    releases.mkdir(parents=True, exist_ok=True)
    path = releases / f"{report}-{version}.json"
    path.write_text(json.dumps({"report": report, "version": version, "datasets": list(datasets), "calendar": rows}))
    return path


def list_releases(site) -> list[ReleaseInfo]:
    releases = []
    for path in sorted(Path(site.releases_dir).glob("*.json")):
        raw = json.loads(path.read_text())
        rows = tuple(CalendarRow(**row) for row in raw["calendar"])
        releases.append(ReleaseInfo(raw["report"], raw["version"], tuple(raw["datasets"]), rows))
    return releases


def _folder() -> Path:
    return Path(os.environ[FOLDER_ENV])


def tell(folder: Path, step: str, period: str, instruction: str) -> None:
    (folder / f"{step}.{period}").write_text(instruction)


def ready(folder: Path, poll: str, period: str) -> None:
    (folder / f"{poll}.{period}.ready").touch()


def calls(folder: Path, step: str | None = None, period: str | None = None) -> list[dict]:
    path = folder / "calls.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    return [call for call in found if step in (None, call["step"]) and period in (None, call["period"])]


def _record(step: str, period: str, **more: object) -> None:
    line = json.dumps({"step": step, "period": period, "pid": os.getpid(), "at": time.time(), **more}) + "\n"
    descriptor = os.open(_folder() / "calls.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _obey(step: str, period: str, **more: object) -> None:
    _record(step, period, **more)
    path = _folder() / f"{step}.{period}"
    instruction = path.read_text().split() if path.exists() else []
    if not instruction:
        return
    if instruction[0] == "transient":
        left = int(instruction[1])
        if left:
            path.write_text(f"transient {left - 1}")
            raise PeerUnavailable("PEER_UNAVAILABLE", "no answer", ids={"party": "de-1"})
    if instruction[0] == "notyet":
        left = int(instruction[1])
        if left:
            path.write_text(f"notyet {left - 1}")
            raise NotYet("KEYS_MISSING", "the operators have not published the period's keys")
    if instruction[0] == "terminal":
        raise DeliveryError("REJECTED", "the operator rejected the filing", ids={"party": "de-2"})
    if instruction[0] == "closed":
        raise StateError("PERIOD_CLOSED", "the period is closed", hint="Ask for a reopen")
    if instruction[0] == "hang":
        path.unlink()  # the next try goes through
        time.sleep(600)


def _answer(poll: str, period: str, value):
    _obey(poll, period)
    told = _folder() / f"{poll}.{period}"
    if told.exists() and told.read_text() == "wait" and not (_folder() / f"{poll}.{period}.ready").exists():
        return None
    return value


def check_release(site, owner, report, period, open_sftp=None):
    _obey("check_release", period, owner=owner, releases_dir=str(site.releases_dir))
    release = [item for item in list_releases(site) if item.report == report][-1]
    return {"plan_digest": release.version, "edition": 1, "datasets": list(release.datasets)}


def take_snapshot(site, owner, dataset, period):
    _obey("take_snapshot", period, owner=owner, dataset=dataset)
    return {"snapshot": f"{owner}/{dataset}/{period}"}


def validate(site, owner, report, period, snapshots):
    _obey("validate", period, datasets=sorted(snapshots))
    return {"page": f"validation/{period}.html"}


def local_plan(site, owner, report, period, snapshots):
    _obey("local_plan", period)
    return {"commitment": "c" * 64, "period": period}


def sign_off_ready(site, owner, report, period, contribution):
    return _answer("sign_off_ready", period, {"signatures": 2, "commitment": contribution["commitment"]})


def share_and_seal(site, owner, report, period, contribution, sign_off=None):  # noqa: PLR0917
    _obey("share_and_seal", period)
    return {"filing": f"{owner}-{period}", "period": period, "operators": ["de-1", "de-2", "de-3"]}


def deliver(site, owner, filing, operator, open_sftp=None):
    _obey("deliver", filing["period"], operator=operator, sftp=open_sftp is not None)
    return {"delivered": operator}


def receipts_ready(site, owner, filing, open_sftp=None):
    return _answer("receipts_ready", filing["period"], {"receipts": 3})


def outcome_ready(site, owner, report, period, open_sftp=None):
    return _answer("outcome_ready", period, {"state": "PUBLISHED"})


def fetch_outcome(site, owner, report, period, open_sftp=None):
    _obey("fetch_outcome", period)
    return {"evidence": f"evidence/{period}"}


def filings_ready(site, report, period):
    return _answer("filings_ready", period, {"complete": True})


def close(site, report, period):
    _obey("close", period)
    return {"run_id": f"run-{period}", "period": period}


def result_ready(site, run):
    return _answer("result_ready", run["period"], {"state": "COMMITTED"})


def fetch(site, run):
    _obey("fetch", run["period"])
    return {"folder": "fetched"}


def verify(site, run, fetched):
    _obey("verify", run["period"])
    return {"verified": True}


def publish(site, run, verified):
    _obey("publish", run["period"])
    return {"published": run["period"]}


def acknowledge(site, run, published):
    _obey("acknowledge", run["period"])
    return {"acknowledged": True}


class FakeHome:
    ssh_key_path = Path("/nowhere/key")


def collect_closing(site, run, *, wait_s=0, for_owners=True):
    erased = _answer("collect_closing", run["period"], ["nl-1", "ch-1", "sg-1"])
    return {"run_id": run["run_id"], "erased": erased or [], "operators": 3, "open": []}


@dataclasses.dataclass(frozen=True)
class FakeEntry:
    sftp: str = "127.0.0.1:2222"
    ssh_host_keys: tuple[str, ...] = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB" + "A" * 42,)


class FakeFederation:
    def operators_of(self, owner):
        return ["de-1", "de-2", "de-3"]

    def entry(self, operator):
        return FakeEntry()


@dataclasses.dataclass(frozen=True)
class Site:
    owners: dict[str, FakeHome]
    releases_dir: Path
    is_recipient: bool = False

    def federation(self) -> FakeFederation:
        return FakeFederation()


def load_site(path) -> Site:
    raw = tomllib.loads(Path(path).read_text())
    return Site(
        {owner: FakeHome() for owner in raw["owners"]}, Path(raw["releases_dir"]), raw.get("is_recipient", False)
    )


def write_site(path: Path, *, owners=("DE-1",), releases: Path, is_recipient: bool = False) -> Path:
    path.write_text(
        f"owners = {json.dumps(list(owners))}\nreleases_dir = {json.dumps(str(releases))}\n"
        f"is_recipient = {str(is_recipient).lower()}\n"
    )
    return path


_MODULES = {
    "local_stores.config": ("Site", "load_site"),
    "local_stores.filing": (
        "check_release",
        "deliver",
        "fetch_outcome",
        "list_releases",
        "local_plan",
        "outcome_ready",
        "receipts_ready",
        "share_and_seal",
        "sign_off_ready",
        "take_snapshot",
        "validate",
    ),
    "local_stores.closing": (
        "acknowledge",
        "close",
        "collect_closing",
        "fetch",
        "filings_ready",
        "publish",
        "result_ready",
        "verify",
    ),
}


def patch(monkeypatch) -> None:
    """Replace the functions that the provider calls, for one test of this process."""
    from local_stores import closing, config, filing  # noqa: PLC0415
    from local_stores.airflow_provider import bundle, factory, steps  # noqa: PLC0415

    for module, name in (
        (config, "load_site"),
        (steps, "load_site"),
        (bundle, "load_site"),
        (factory, "list_releases"),
    ):
        monkeypatch.setattr(module, name, globals()[name])
    for module in (filing, closing):
        for name in _MODULES[module.__name__]:
            monkeypatch.setattr(module, name, globals()[name])


def install() -> None:
    """Put the stand-ins in the place of the modules, in a process of its own."""
    for name, functions in _MODULES.items():
        module = types.ModuleType(name)
        for function in functions:
            setattr(module, function, globals()[function])
        sys.modules[name] = module
        setattr(local_stores, name.rpartition(".")[2], module)
