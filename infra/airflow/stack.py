"""Start and stop one site's real Airflow on loopback: api-server, scheduler, dag-processor, triggerer.

`airflow standalone` leaves its components behind when it is stopped, and a stale API server answers health checks. So
the four are started here as one process group, on a port of their own, without log servers (those bind every
interface), and stopping ends only when no process of this home is left.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.airflow.home import LOOPBACK, USER, SiteError, clean_environment, site_environment

__all__ = ["COMPONENTS", "Stack", "ended_components", "processes_of", "start_component", "start_stack", "stop_stack"]

COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
# Tasks report to the API server: one that a scheduler starts before that answers is lost and tried again.
_FIRST = ("api-server", "dag-processor")
_SECOND = ("scheduler", "triggerer")
_HEALTH = ("api-server", "scheduler", "triggerer", "dag-processor")
_STATE = "stack.json"
_HEALTH_PAUSE_S = 0.5
_STOP_S = 10.0
_MARK = "COMITY_STACK"
_CHILDREN: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Stack:
    """A running Airflow. `pids` by component; `group` is their process group."""

    home: str
    site_toml: str
    port: int
    group: int
    pids: dict[str, int]

    @property
    def url(self) -> str:
        """Return where the web page and the REST API are."""
        return f"http://{LOOPBACK}:{self.port}"

    def password(self) -> str:
        """Return the password of the user `comity`."""
        return str(json.loads((Path(self.home) / "passwords.json").read_text())[USER])

    def log_of(self, component: str) -> Path:
        """Return a component's log file."""
        return Path(self.home) / "logs" / f"{component}.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def start_stack(
    home: Path,
    site_toml: Path,
    *,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 180,
) -> Stack:
    """Start the four components of a home made by `prepare_home`, and wait until each one is healthy.

    Args:
        home: the site's AIRFLOW_HOME.
        site_toml: the site's configuration file.
        port: of the web page; by default a free one.
        env: more environment for the components.
        timeout_s: how long they may take.

    Raises:
        SiteError: something of this home already runs, or a component ended or did not get healthy; nothing is left.
    """
    home = home.resolve()
    if processes_of(home):
        raise SiteError(f"an Airflow of {home} is running; stop it first")
    connect = [sys.executable, str(Path(__file__).with_name("site_env.py")), "connect"]
    full = _environment(home, site_toml, port or _free_port(), env or {})
    subprocess.run([*connect, "--home", str(home), "--site", str(site_toml)], env=full, check=True)
    (home / "logs").mkdir(exist_ok=True)
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        stack = _spawn_all(home, site_toml, full, started, _FIRST)
        _wait(stack, started, ("api-server",), timeout_s)
        stack = _spawn_all(home, site_toml, full, started, _SECOND)
        _wait(stack, started, _HEALTH, timeout_s)
    except BaseException:
        stop_stack(home)
        raise
    return stack


def _spawn_all(
    home: Path,
    site_toml: Path,
    env: Mapping[str, str],
    started: dict[str, subprocess.Popen[bytes]],
    components: Iterable[str],
) -> Stack:
    for component in components:
        group = next((process.pid for process in started.values()), 0)
        started[component] = _spawn(home, component, env, group)
    pids = {component: process.pid for component, process in started.items()}
    port, group = int(env["AIRFLOW__API__PORT"]), next(iter(pids.values()))
    stack = Stack(str(home), str(site_toml.resolve()), port, group, pids)
    (home / _STATE).write_text(json.dumps(asdict(stack)))
    return stack


def start_component(stack: Stack, component: str, *, env: Mapping[str, str] | None = None) -> int:
    """Start one component again, for example a triggerer that was killed, and return its pid."""
    full = _environment(Path(stack.home), Path(stack.site_toml), stack.port, env or {})
    return _spawn(Path(stack.home), component, full, stack.group).pid


def _environment(home: Path, site_toml: Path, port: int, extra: Mapping[str, str]) -> dict[str, str]:
    return {
        **clean_environment(),
        **site_environment(home, site_toml),
        _MARK: str(home.resolve()),
        "SPT_NOENV": "1",  # process titles would overwrite the mark in /proc/PID/environ
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://{LOOPBACK}:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{LOOPBACK}:{port}/execution/",
        **extra,
    }


def _spawn(home: Path, component: str, env: Mapping[str, str], group: int) -> subprocess.Popen[bytes]:
    with (home / "logs" / f"{component}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", *COMPONENTS[component]],
            env=dict(env),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=group,
        )
    _CHILDREN.append(process)
    return process


def _wait(
    stack: Stack, started: Mapping[str, subprocess.Popen[bytes]], components: Iterable[str], timeout_s: float
) -> None:
    """Wait until these components are healthy; `started` are those that must not end."""
    end = time.monotonic() + timeout_s
    waiting = set(components)
    while time.monotonic() < end:
        for component, process in started.items():
            if process.poll() is not None:
                raise SiteError(f"{component} ended with {process.returncode}; see {stack.log_of(component)}")
        waiting = _unhealthy(stack) & set(components)
        if not waiting:
            return
        time.sleep(_HEALTH_PAUSE_S)
    raise SiteError(f"not healthy after {timeout_s:.0f} s: {', '.join(sorted(waiting))}; see {stack.home}/logs")


def _unhealthy(stack: Stack) -> set[str]:
    # http.client, because urllib would ask a configured proxy for a loopback address.
    connection = http.client.HTTPConnection(LOOPBACK, stack.port, timeout=5)
    try:
        connection.request("GET", "/api/v2/monitor/health")
        health: dict[str, Any] = json.load(connection.getresponse())
    except (http.client.HTTPException, OSError, ValueError):
        return set(_HEALTH)
    finally:
        connection.close()
    return {name for name in _HEALTH[1:] if health[name.replace("-", "_")].get("status") != "healthy"}


def processes_of(home: Path) -> list[int]:
    """Return the processes that belong to this home's stack, by a mark in the environment they were started with.

    A task runs in a process group of its own, so the components' group alone would miss it.
    """
    wanted = f"{_MARK}={home.resolve()}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0") and not _is_zombie(entry):
                found.append(int(entry.name))
    return sorted(found)


def ended_components(stack: Stack) -> list[str]:
    """Return the components whose process is not there any more."""
    present = set(processes_of(Path(stack.home)))
    return [component for component, pid in stack.pids.items() if pid not in present]


def _is_zombie(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def stop_stack(home: Path) -> None:
    """Stop every process of this home and return when they are gone.

    The scheduler goes first, while the API server still answers the tasks that it waits for; then the others are asked;
    what is left after that is killed. Tasks are idempotent, so a killed one is run again by the next `up`.

    Raises:
        SiteError: one of them could not be stopped.
    """
    state = home / _STATE
    pids: dict[str, int] = json.loads(state.read_text())["pids"] if state.exists() else {}
    first = {pid for component, pid in pids.items() if component != "api-server"}
    if first & set(processes_of(home)):
        _signal(first & set(processes_of(home)), signal.SIGTERM)
        _wait_gone(home, first)
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(processes_of(home), number)
        if _wait_gone(home):
            state.unlink(missing_ok=True)
            return
    raise SiteError(f"processes of {home} did not stop: {processes_of(home)}")


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_gone(home: Path, pids: set[int] | None = None) -> bool:
    end = time.monotonic() + _STOP_S
    while time.monotonic() < end:
        for child in _CHILDREN:
            child.poll()  # no zombies of our own
        left = set(processes_of(home))
        if not (left if pids is None else left & pids):
            return True
        time.sleep(0.1)
    return False
