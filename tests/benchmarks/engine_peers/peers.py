"""SPU and MPyC as processes of their own, told what to run by the coordinator."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from tests.benchmarks.engine_bench.realtime import first_in_line

__all__ = ["Mpyc", "PeerFailed", "Spu"]

_HERE = Path(__file__).parent
_PARTIES = 3
_TIMEOUT_S = 1800


class PeerFailed(Exception):
    """A peer's process ended or said something unexpected."""


def _addresses() -> list[str]:
    """Three free ports of the moment."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(_PARTIES)]
    out = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return out


def _seconds(said: list[dict[str, Any]], expected: str, what: str) -> float:
    if any(one["digest"] != expected for one in said):
        raise PeerFailed(f"{what} gives another result than the plaintext")
    return max(one["ended"] for one in said) - min(one["began"] for one in said)


class Spu:
    """Three long-lived SPU parties (ABY3)."""

    name = "SPU 0.9.5 (ABY3, passive, no TLS)"
    rows: ClassVar[dict[str, int | None]] = dict.fromkeys(
        ("W1", "W2", "W3", "W4/32", "W4/64", "W4b", "W5/32", "W5/64", "W6/32", "W7")
    )

    def __init__(self, python: Path, *, realtime: bool) -> None:
        self._parties = [
            subprocess.Popen(
                [python, _HERE / "spu_worker.py", str(rank)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for rank in range(_PARTIES)
        ]
        if realtime:
            for party in self._parties:
                first_in_line(party.pid)
        self._tell({"parties": _addresses()})
        self._hear("connected")

    def run(self, workload: str, columns: dict[str, Path], expected: str) -> float:
        """Run once and return the seconds."""
        self._tell({"run": {"workload": workload, "columns": {name: str(file) for name, file in columns.items()}}})
        self._hear("ready")
        self._tell({"go": True})
        return _seconds(self._hear("digest"), expected, f"{workload} of SPU")

    def _tell(self, message: dict[str, Any]) -> None:
        for party in self._parties:
            party.stdin.write(json.dumps(message) + "\n")
            party.stdin.flush()

    def _hear(self, key: str) -> list[dict[str, Any]]:
        out = []
        for party in self._parties:
            line = "start"
            while line and not line.startswith("{"):  # its libraries write to the same stream
                line = party.stdout.readline()
            if not line or key not in (message := json.loads(line)):
                raise PeerFailed("a process of SPU has ended")
            out.append(message)
        return out

    def close(self) -> None:
        """Stop the parties."""
        for party in self._parties:
            party.stdin.close()
        for party in self._parties:
            try:
                party.wait(5)
            except subprocess.TimeoutExpired:
                party.kill()
                party.wait()
            party.stdout.close()


class Mpyc:
    """MPyC: three new processes for each run; only the run itself is timed."""

    name = "MPyC 0.11 (Shamir, passive, no TLS)"
    rows: ClassVar[dict[str, int | None]] = {"W1": 100_000, "W2": 1_000, "W3": 1_000}

    def __init__(self, python: Path, *, realtime: bool) -> None:
        self._python, self._realtime = python, realtime

    def run(self, workload: str, columns: dict[str, Path], expected: str) -> float:
        """Run once and return the seconds."""
        addresses = [part for address in _addresses() for part in ("-P", address)]
        parties = [
            subprocess.Popen(
                [self._python, _HERE / "mpyc_worker.py", workload, *columns.values(), *addresses, "-I", str(rank)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for rank in range(_PARTIES)
        ]
        if self._realtime:
            for party in parties:
                first_in_line(party.pid)
        said = []
        try:
            for party in parties:
                out, _ = party.communicate(timeout=_TIMEOUT_S)
                lines = [line for line in out.splitlines() if line.startswith('{"began"')]
                if party.returncode != 0 or len(lines) != 1:
                    raise PeerFailed("a process of MPyC has ended")
                said.append(json.loads(lines[0]))
        finally:
            for party in parties:
                if party.poll() is None:
                    party.kill()
                party.wait()
        return _seconds(said, expected, f"{workload} of MPyC")

    def close(self) -> None:
        """Nothing is left."""
