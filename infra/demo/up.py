"""`make up` and `make down`: the demo's parties in the background, and the web pages of two sites to work with by hand.

```
up.py up      fifteen operators, twelve SFTP servers, a release whose months are open for hours, approvals of all
              entities, and the real Airflows of two sites: Germany's and group reporting's. Commands tell how to sign.
up.py down    stops all of it, and sees that it is gone
```
The other three sites submit in the background by `dag.test()`, their people sign by themselves. What `up` finds below its
folder is used again while the months are open; otherwise, or with `--fresh` (`FRESH=1 make up`), everything is made anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

if __package__ in (None, ""):  # started as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from infra.airflow.home import USER, SiteError, prepare_home
from infra.airflow.stack import Stack, ended_components, processes_of, start_stack, stop_stack
from infra.demo import reference
from infra.demo.agreement import REPORT, People, import_and_approve, publish_reference, release, utc_now
from infra.demo.background import MARK, Background, LeftBehindError
from infra.demo.homes import GROUP_SITE, DemoHomes, make_homes, signers_of
from infra.demo.schedulers import SCHEDULER_SETTINGS, scheduler_waiting
from local_stores.config import load_site
from mpc_ops.errors import ComityError
from mpc_ops.federation.loaded import Federation
from mpc_ops.server.supervise import operator_process, sftp_process

__all__ = ["SITES", "main", "open_homes"]

ROOT = Path(__file__).resolve().parents[2]
SITES = ("de", GROUP_SITE)
"""Sites whose Airflow runs; the first one's owners wait for signatures by hand."""

_TITLES = {"de": "Germany, three entities", GROUP_SITE: "Group reporting"}
_READY_S = 180.0
_STACK_S = 600.0
_USABLE = timedelta(hours=1)  # months that close sooner are no use


def open_homes(root: Path) -> DemoHomes:
    """Return the parties that `make_homes` made below a folder, from what lies there."""
    operators = {path.name: path for path in sorted((root / "operators").iterdir())}
    sites = {path.name: path for path in sorted((root / "sites").iterdir())}
    owners = {name: tuple(load_site(folder / "site.toml").owners) for name, folder in sites.items()}
    return DemoHomes(
        root=root,
        federation=root / "federation",
        operators=operators,
        region_operators=tuple(name for name, home in operators.items() if (home / "sftp.toml").exists()),
        sites=sites,
        site_owners={site: names for site, names in owners.items() if names},
        stores=(),
    )


def _others(homes: DemoHomes) -> DemoHomes:
    """Return the parties of the sites that have no web page here."""
    sites = {name: folder for name, folder in homes.sites.items() if name not in SITES}
    return dataclasses.replace(homes, sites=sites, site_owners={name: homes.site_owners[name] for name in sites})


@dataclasses.dataclass(frozen=True)
class _Agreed:
    """What was released: the months and until when they are open. Written when everybody has approved."""

    periods: tuple[str, ...]
    due_at: str

    @classmethod
    def load(cls, root: Path) -> _Agreed | None:
        with suppress(OSError, ValueError, KeyError):
            found = json.loads((root / "up.json").read_text(encoding="utf-8"))
            return cls(tuple(found["periods"]), str(found["due_at"]))
        return None

    def save(self, root: Path) -> None:
        temporary = root / ".up.json.tmp"
        temporary.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
        temporary.replace(root / "up.json")

    @property
    def due(self) -> datetime:
        return datetime.fromisoformat(self.due_at)


class _Up:
    """One set of parties in the background below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.background = Background(self.root)
        self.stacks = {site: self.root / "airflow" / site for site in SITES}

    def up(self, periods: tuple[str, ...], hours: float, *, fresh: bool, others: bool) -> None:
        """Start what is not there; leave nothing behind where that fails."""
        if self.is_up():
            print("It is up already.")
            return self.tell()
        if self.down():
            print("Parts of an earlier one were running; they were stopped.")
        try:
            self._start(periods, hours, fresh=fresh, others=others)
        except BaseException:
            self.down()
            raise
        return self.tell()

    def is_up(self) -> bool:
        """Whether every operator, SFTP server and Airflow component is there."""
        agreed = _Agreed.load(self.root)
        if agreed is None:
            return False
        alive, homes = self.background.alive(), open_homes(self.root)
        wanted = {*homes.operators, *(f"{name}-sftp" for name in homes.region_operators)}
        return wanted <= alive.keys() and all(self._stack(site) is not None for site in SITES)

    def down(self) -> int:
        """Stop everything and return how many processes there were.

        Raises:
            SiteError, LeftBehindError: some are still there.
        """
        count = sum(len(processes_of(home)) for home in self.stacks.values())
        with ThreadPoolExecutor(len(self.stacks)) as pool:
            list(pool.map(stop_stack, self.stacks.values()))
        return count + self.background.stop()

    def _start(self, periods: tuple[str, ...], hours: float, *, fresh: bool, others: bool) -> None:
        os.environ[MARK] = str(self.root)  # of every process that is started from here on
        agreed = None if fresh else self._usable()
        homes = open_homes(self.root) if agreed else self._make(hours)
        print(f"starting {len(homes.operators)} operators and {len(homes.region_operators)} SFTP servers ...")
        self._start_servers(homes)
        if agreed is None:
            agreed = self._agree(homes, periods, hours)
        if others:
            self._start_others(_others(homes), agreed.periods)
        self._start_stacks()

    def _usable(self) -> _Agreed | None:
        """Return what was agreed before, where it is still of use: months open, ports free."""
        agreed = _Agreed.load(self.root)
        if agreed is None or agreed.due - utc_now() < _USABLE:
            return None
        print(f"using the parties below {_shown(self.root)} again (FRESH=1 make up: all anew)")
        federation = Federation.load(self.root / "federation")
        for name in open_homes(self.root).operators:
            entry = federation.entry(name)
            if not all(map(_is_free, (entry.link, entry.sftp, entry.api))):
                print("a port of theirs is taken by now: making them anew")
                return None
        return agreed

    def _make(self, hours: float) -> DemoHomes:
        print(f"making keys, books and homes below {_shown(self.root)} ...")
        (self.root / "up.json").unlink(missing_ok=True)
        homes = make_homes(self.root, ROOT / "var" / "cache" / "tpch")
        waiting = scheduler_waiting(hours / 24)
        settings = {**SCHEDULER_SETTINGS, "core": {"parallelism": 3}}
        for site, folder in homes.sites.items():
            prepare_home(
                self.root / "airflow" / site,
                folder / "site.toml",
                comity=waiting,
                airflow=settings,
                cache=ROOT / "var" / "cache" / "airflow",
            )
        return homes

    def _start_servers(self, homes: DemoHomes) -> None:
        logs = self.root / "logs"
        operators = [operator_process(home, name, logs) for name, home in homes.operators.items()]
        drops = [
            sftp_process(homes.operators[name] / "sftp.toml", f"{name}-sftp", logs) for name in homes.region_operators
        ]
        servers = operators + drops
        for server in servers:
            server.start()
            if server.pid is not None:
                self.background.record(server.name, server.pid)
        for server in servers:
            server.wait_ready(_READY_S)

    def _agree(self, homes: DemoHomes, periods: tuple[str, ...], hours: float) -> _Agreed:
        now = utc_now()
        print(f"releasing {REPORT} for {', '.join(periods)}; every entity imports and approves ...")
        release(homes, periods, now, open_for=timedelta(hours=hours))
        with ThreadPoolExecutor(len(homes.site_owners)) as pool:
            list(pool.map(lambda site: import_and_approve(homes, site, now), homes.site_owners))
        for period in periods:
            publish_reference(homes, period, utc_now())
        agreed = _Agreed(periods, (now + timedelta(hours=hours)).isoformat(timespec="seconds"))
        agreed.save(self.root)
        return agreed

    def _start_others(self, others: DemoHomes, periods: tuple[str, ...]) -> None:
        print(f"the sites {', '.join(others.sites)} submit in the background ...")
        for site, owners in others.site_owners.items():
            # All submissions first: an outcome waits for what is signed by hand.
            runs = [f"{kind}_{REPORT}__{o}:{p}" for kind in ("file", "outcome") for p in periods for o in owners]
            home, site_toml = self.root / "airflow" / site, others.sites[site] / "site.toml"
            script = str(ROOT / "infra" / "airflow" / "site_env.py")
            self._spawn(f"site-{site}", [script, "test", "--home", str(home), "--site", str(site_toml), *runs])
        self._spawn("people", [__file__, "people", "--root", str(self.root)])

    def _start_stacks(self) -> None:
        # Each by a helper in a session of its own, so that the components are no children of this terminal.
        print("starting two Airflows ...")
        helpers = {
            site: self._spawn(f"up-{site}", [__file__, "stack", site, "--root", str(self.root)]) for site in SITES
        }
        for site, helper in helpers.items():
            if helper.wait() != 0:
                raise SiteError(
                    f"the Airflow of site {site} did not start; see {self.root / 'logs' / f'up-{site}.log'}"
                )

    def _spawn(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with (self.root / "logs" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.background.record(name, process.pid)
        return process

    def _stack(self, site: str) -> Stack | None:
        """Return a site's running Airflow, None where a component is missing."""
        with suppress(OSError, ValueError, TypeError):
            stack = Stack(**json.loads((self.stacks[site] / "stack.json").read_text(encoding="utf-8")))
            return None if ended_components(stack) else stack
        return None

    def tell(self) -> None:
        """Print where the pages are and what to do."""
        agreed, homes = _Agreed.load(self.root), open_homes(self.root)
        stacks: Mapping[str, Stack | None] = {site: self._stack(site) for site in SITES}
        if agreed is None or None in stacks.values():
            raise SiteError("an Airflow ended again; see the logs below " + _shown(self.root / "airflow"))
        print()
        for site, stack in stacks.items():
            url = stack.url if stack else ""
            print(
                f"{_TITLES[site]:<24} {url:<24} user {USER}, password in {_shown(self.stacks[site] / 'passwords.json')}"
            )
        print(*_instructions(homes, agreed), sep="\n")


def _instructions(homes: DemoHomes, agreed: _Agreed) -> Iterator[str]:
    site, period, owners = SITES[0], agreed.periods[0], homes.site_owners[SITES[0]]
    comity = _shown(Path(sys.executable).with_name("comity"))
    at = f"{REPORT} {period} --site {_shown(homes.sites[site] / 'site.toml')}"
    due = agreed.due.astimezone()
    yield f"\nMonths {', '.join(agreed.periods)} are open until {due:%Y-%m-%d %H:%M %Z}."
    yield f"Each entity's DAG file_{REPORT}__<entity> waits at `sign_off` for two people. Look at the figures, then sign:\n"
    owner = owners[0]
    yield f"  {comity} owner show-contribution {at} --owner {owner}"
    for person in signers_of(owner):
        yield f"  {comity} sign-off {at} --owner {owner} --as {person} --key {_shown(homes.party(person))}"
    roles = " ".join(person.removeprefix(f"{owner}-") for person in signers_of(owner))
    yield f"\nor for all entities of {site.upper()}:\n"
    yield f"  for o in {' '.join(owners)}; do for p in {roles}; do \\"
    yield f"    {comity} sign-off {at} --owner $o --as $o-$p --key {_shown(homes.root / 'parties')}/$o-$p; done; done\n"
    result = homes.root / "published" / REPORT / period / "report.html"
    yield f"Then the DAG group_{REPORT} of group reporting closes the month and publishes {_shown(result)}."
    yield f"Logs: {_shown(homes.root / 'logs')}. Stop everything: make down"


def _is_free(address: str | None) -> bool:
    if not address:
        return True
    host, _, port = address.removeprefix("https://").rpartition(":")
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last time may linger
        probe.bind((host, int(port)))
        return True
    return False


def _shown(path: Path) -> str:
    """Return a path as one would type it from here."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one `up` or `down` of a folder run at a time."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run_stack(root: Path, site: str) -> int:
    start_stack(root / "airflow" / site, root / "sites" / site / "site.toml", timeout_s=_STACK_S)
    return 0


def _run_people(root: Path) -> int:
    agreed = _Agreed.load(root)
    people = People(_others(open_homes(root)), agreed.periods if agreed else ())
    people.start()
    people.join()
    print(f"{people.signed} signatures", *people.failures, sep="\n")
    return int(bool(people.failures))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The demo's parties in the background, web pages of two sites.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="up|down")
    for name in ("up", "down", "stack", "people"):  # the last two run in the background, started by the first
        command = commands.add_parser(name)
        command.add_argument("--root", type=Path, default=ROOT / "var" / "up", help="folder; var/up by default")
        if name == "up":
            months = range(1, len(reference.PERIODS) + 1)
            command.add_argument("--months", type=int, default=len(reference.PERIODS), choices=months)
            command.add_argument(
                "--hours", type=float, default=12.0, help="how long the months are open; 12 by default"
            )
            command.add_argument("--fresh", action="store_true", help="make everything anew")
            command.add_argument("--without-others", action="store_true", help="the other three sites do nothing")
        if name == "stack":
            command.add_argument("site", choices=SITES)
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
    root = args.root.resolve()
    if args.command == "stack":
        return _run_stack(root, args.site)
    if args.command == "people":
        return _run_people(root)
    with _alone(root):
        if args.command == "up":
            periods = reference.PERIODS[: args.months]
            _Up(root).up(periods, args.hours, fresh=args.fresh, others=not args.without_others)
        else:
            count = _Up(root).down()
            print(f"{count} processes stopped, none is left" if count else "nothing was running")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 done, 1 something would not start or stop, 2 wrong usage, 130 interrupted."""
    args = _parse(argv)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("comity: ended"))
    try:
        return _run(args)
    except (ComityError, SiteError, LeftBehindError) as error:
        print(f"comity: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("comity: interrupted; what was started is stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
