"""Processes that outlive the command that started them: a pid file each, and never another process stopped by mistake.

A pid may belong to somebody else by the time it is read, so a pid file also holds the process's start time and the
machine's boot id, and a signal is sent only where all three still agree. Every process carries a mark in the environment
that it was started with, as do its children: what is left behind is found by that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MARK", "Background", "LeftBehindError"]

MARK = "COMITY_UP"
"""Environment variable with the folder of the whole set; set it before processes are started."""

_STOP_S = 20.0
_PAUSE_S = 0.1
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD = 19  # start time of /proc/PID/stat, counted after the name; in clock ticks since boot


class LeftBehindError(RuntimeError):
    """Processes that could not be stopped."""


class Background:
    """The background processes of one folder.

    Args:
        root: folder that the processes belong to; MARK has its path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.folder = self.root / "run"

    def record(self, name: str, pid: int) -> None:
        """Write the pid file of a process that was just started as leader of a session of its own."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = {"pid": pid, "started": _started(pid), "boot": _boot()}
        temporary = self.folder / f".{name}.tmp"
        temporary.write_text(json.dumps(record), encoding="ascii")
        temporary.replace(self.folder / f"{name}.pid")

    def alive(self) -> dict[str, int]:
        """Return the recorded processes that are there, by name."""
        found = {}
        for path in sorted(self.folder.glob("*.pid")):
            record = json.loads(path.read_text(encoding="ascii"))
            pid = int(record["pid"])
            if record["boot"] == _boot() and record["started"] is not None and _started(pid) == record["started"]:
                found[path.stem] = pid
        return found

    def marked(self) -> list[int]:
        """Return all processes that carry this folder's mark, recorded ones and their children."""
        wanted = f"{MARK}={self.root}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0") and _started(int(entry.name)) is not None:
                    found.append(int(entry.name))
        return sorted(found)

    def stop(self) -> int:
        """Stop every process and return how many there were. Nothing there is fine.

        Raises:
            LeftBehindError: some did not even stop when killed.
        """
        there = set(self.alive().values()) | set(self.marked())
        for number in (signal.SIGTERM, signal.SIGKILL):
            _signal(set(self.alive().values()) | set(self.marked()), number)
            if self._gone():
                for path in self.folder.glob("*.pid"):
                    path.unlink()
                return len(there)
        raise LeftBehindError(f"processes did not stop: {sorted(set(self.alive().values()) | set(self.marked()))}")

    def _gone(self) -> bool:
        end = time.monotonic() + _STOP_S
        while time.monotonic() < end:
            if not self.alive() and not self.marked():
                return True
            time.sleep(_PAUSE_S)
        return False


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _boot() -> str:
    return _BOOT.read_text(encoding="ascii").strip()


def _started(pid: int) -> int | None:
    """Return a process's start time, None where it is gone (or a zombie, which holds nothing but its pid)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[_START_FIELD])
