"""Processes of operators on one machine, for demo and tests: start, wait until ready, stop, kill, start again.

Every process gets its own log files and is stopped by its own id only. In production systemd does this
(infra/systemd); nothing here is needed there.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mpc_ops.errors import ConfigError, PeerTimeout

__all__ = ["ManagedProcess", "Supervisor", "free_ports", "operator_process", "sftp_process"]

_POLL_S = 0.02


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return ports that the system says are free now; all are held until all are found, so they differ."""
    sockets: list[socket.socket] = []
    try:
        sockets.extend(socket.create_server((host, 0)) for _ in range(count))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


class ManagedProcess:
    """One child process whose first line on standard output is a JSON object with the member `ready`.

    Args:
        name: for messages and file names.
        command: program and arguments.
        logs: folder of `<name>.out` and `<name>.log` (standard error); both are appended to.
        env: environment; this process's by default.
    """

    def __init__(self, name: str, command: Sequence[str], logs: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.command = list(command)
        self.out, self.log = logs / f"{name}.out", logs / f"{name}.log"
        self.ready: dict[str, Any] = {}
        self._env = dict(env) if env is not None else None
        self._child: subprocess.Popen[bytes] | None = None
        self._offset = 0

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._child.pid if self.running and self._child is not None else None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the process; `wait_ready` waits until it says so."""
        if self.running:
            raise RuntimeError(f"{self.name} is running")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.ready = {}
        with self.out.open("ab") as out, self.log.open("ab") as log:
            self._offset = out.tell()
            self._child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=self._env, start_new_session=True
            )

    def wait_ready(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return what the process announced.

        Raises:
            ConfigError: PROCESS_ENDED with the last line of its log. PeerTimeout: PROCESS_NOT_READY.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with self.out.open("rb") as file:
                file.seek(self._offset)
                line = file.readline()
            if line.endswith(b"\n"):
                self.ready = json.loads(line)
                return self.ready
            if not self.running:
                raise ConfigError(
                    "PROCESS_ENDED",
                    f"{self.name} ended before it was ready",
                    got=self.last_line(),
                    ids={"log": self.log},
                )
            time.sleep(_POLL_S)
        raise PeerTimeout("PROCESS_NOT_READY", f"{self.name} is not ready in time", ids={"log": self.log})

    def last_line(self) -> str:
        """Return the last line of the log, at most 500 characters."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:500] if lines else "nothing"

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM); `wait` waits for it."""
        if self._child is not None and self.running:
            self._child.terminate()

    def wait(self, timeout_s: float = 15.0) -> int | None:
        """Wait for the end, with SIGKILL after `timeout_s`; return the exit code."""
        if self._child is None:
            return None
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._child.wait()

    def kill(self) -> None:
        """SIGKILL, as a power cut would do."""
        if self._child is not None and self.running:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()

    def cpu_seconds(self) -> float:
        """Return CPU seconds of the running process so far (user and system); 0 when it is not there."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _python_env() -> dict[str, str]:
    # One BLAS thread each: fifteen operators share a machine in the demo.
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def operator_process(home: Path, name: str, logs: Path) -> ManagedProcess:
    """Return the process of an operator's home, not started."""
    command = [sys.executable, "-m", "mpc_ops.server", "--home", str(home)]
    return ManagedProcess(name, command, logs, _python_env())


def sftp_process(config: Path, name: str, logs: Path) -> ManagedProcess:
    """Return the embedded SFTP server of an operator, not started."""
    command = [sys.executable, "-m", "mpc_ops.server.sftp", "--config", str(config)]
    return ManagedProcess(name, command, logs, _python_env())


class Supervisor:
    """A set of processes that start together and are all stopped at the end, whatever happens."""

    def __init__(self, processes: Iterable[ManagedProcess]) -> None:
        self.processes = {process.name: process for process in processes}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __getitem__(self, name: str) -> ManagedProcess:
        return self.processes[name]

    def start(self, timeout_s: float = 120.0) -> None:
        """Start every process and wait until all are ready; if one is not, stop all."""
        try:
            for process in self.processes.values():
                process.start()
            for process in self.processes.values():
                process.wait_ready(timeout_s)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """SIGTERM to all, then wait for each."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait()

    def cpu_seconds(self) -> float:
        """Return CPU seconds of all running processes so far."""
        return sum(process.cpu_seconds() for process in self.processes.values())
