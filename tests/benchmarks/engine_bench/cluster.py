"""Three operators as processes of their own on loopback: started, connected, told what to run, stopped."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.federation import pki
from tests.benchmarks.engine_bench.realtime import first_in_line
from tests.benchmarks.engine_bench.worker import digest
from tests.benchmarks.engine_bench.workloads import lookup

__all__ = ["Cluster", "ClusterError", "Run"]

MEMBERS = ("bench-1", "bench-2", "bench-3")
SEED = 20
_WORKER = Path(__file__).with_name("worker.py")


class ClusterError(Exception):
    """A worker failed, ended, or computed something else than the plaintext."""


@dataclass(frozen=True)
class Run:
    """One run of a workload.

    Attributes:
        seconds: from the first party's start to the last one's end.
        cpu_seconds: most processor time of a party, all its threads; hardly moved by what else the machine does.
        bytes_per_party: most bytes that a party sent on its links: heads, ciphertexts, tags; below them only TLS and TCP.
        payload_bytes: most bytes of message bodies that a party sent.
        rounds: rounds of the protocol.
        peak_mb: most resident memory of a party while it ran, in MiB; means something in a `fresh` run.
        base_mb: what was resident before it began: the interpreter, the inputs in the clear and their shares.
        shares_mb: a party's shares of the inputs, in MiB.
    """

    seconds: float
    cpu_seconds: float
    bytes_per_party: int
    payload_bytes: int
    rounds: int
    peak_mb: float
    base_mb: float
    shares_mb: float

    @property
    def times_shares(self) -> float:
        """Memory that the run took beside what was there before, as a multiple of the shares; of a `fresh` run."""
        return (self.peak_mb - self.base_mb) / self.shares_mb


class Cluster:
    """Three long-lived worker processes with one backend and one link profile.

    Args:
        folder: where a folder for keys is made; it is removed at the end.
        backend: `compiled`, `numpy`, or None for what the installation has.
        link: link profile, None for plain loopback.
        realtime: let the workers go before all other processes of the machine.
    """

    def __init__(
        self, folder: Path, *, backend: str | None = None, link: str | None = None, realtime: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="parties-", dir=folder))
        self._attempt = 0
        self._answers: dict[tuple[str, int], str] = {}
        self._workers: list[subprocess.Popen[str]] = []
        try:
            self._make_parties()
            environment = {**os.environ, **({"COMITY_KERNELS": backend} if backend else {})}
            for position in range(3):
                self._workers.append(
                    subprocess.Popen(
                        [sys.executable, str(_WORKER), str(self._folder), str(position)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        env=environment,
                    )
                )
            if realtime:
                for worker in self._workers:
                    first_in_line(worker.pid)
            said = [self._hear(position) for position in range(3)]
            self.backend = str(said[0]["backend"])
            message = {"ports": [one["port"] for one in said], "sid": secrets.token_hex(32), "link": link}
            self._tell(message)
            self._all("connected")
        except BaseException:
            self.close()
            raise

    def _make_parties(self) -> None:
        identities, authorities = [], []
        for name in MEMBERS:
            home = self._folder / name
            home.mkdir(mode=0o700)
            authority = pki.create_ca(name)
            pki.issue_leaf(authority, name, ["127.0.0.1"]).save(home)
            key = IdentityKey.generate()
            key.save(home / "identity.key")
            identities.append(key.public.text)
            authorities.append(authority.certificate)
        about = {"members": MEMBERS, "identities": identities, "authorities": authorities}
        (self._folder / "cluster.json").write_text(json.dumps(about), encoding="utf-8")

    def run(self, workload: str, count: int, security: str, *, fresh: bool = False) -> Run:
        """Run a workload once and compare what each party opened with the plaintext.

        Args:
            workload: key of WORKLOADS.
            count: rows.
            security: `passive` or `active`.
            fresh: give free memory back to the system before, so that `peak_mb` is that of this run; it takes longer.

        Raises:
            ClusterError: naming the party and what it said.
        """
        self._attempt += 1
        work = {
            "workload": workload,
            "n": count,
            "security": security,
            "seed": SEED,
            "attempt": self._attempt,
            "fresh": fresh,
        }
        self._tell({"run": work})
        self._all("ready")
        self._tell({"go": True})
        said = self._all("digest")
        expected = self._expected(workload, count)
        for name, one in zip(MEMBERS, said, strict=True):
            if one["digest"] != expected:
                raise ClusterError(
                    f"{name} opened something else than the plaintext in {workload} ({security}, n={count})"
                )
        if len({one["rounds"] for one in said}) != 1:
            raise ClusterError(f"the parties counted different rounds in {workload}")
        return Run(
            max(one["ended"] for one in said) - min(one["began"] for one in said),
            max(one["cpu"] for one in said),
            max(one["bytes"] for one in said),
            max(one["payload"] for one in said),
            said[0]["rounds"],
            max(one["peak_kb"] for one in said) / 1024,
            max(one["base_kb"] for one in said) / 1024,
            said[0]["shares"] / 2**20,
        )

    def _expected(self, workload: str, count: int) -> str:
        key = (workload, count)
        if key not in self._answers:
            work = lookup(workload)
            columns = work.columns(count, np.random.default_rng((SEED, 0)))
            self._answers[key] = digest(work.answer({name: column.values for name, column in columns.items()}))
        return self._answers[key]

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.pid for worker in self._workers]

    def _tell(self, message: dict[str, Any]) -> None:
        for name, worker in zip(MEMBERS, self._workers, strict=True):
            try:
                worker.stdin.write(json.dumps(message) + "\n")
                worker.stdin.flush()
            except OSError:
                raise ClusterError(f"{name} has ended") from None

    def _all(self, key: str) -> list[dict[str, Any]]:
        said = [self._hear(position) for position in range(3)]
        if any(key not in one for one in said):
            raise ClusterError("a worker said something unexpected")
        return said

    def _hear(self, position: int) -> dict[str, Any]:
        line = self._workers[position].stdout.readline()
        if not line:
            raise ClusterError(f"{MEMBERS[position]} has ended")
        message = json.loads(line)
        if "error" in message:
            raise ClusterError(f"{MEMBERS[position]}: {message['error']}\n{message['trace']}")
        return message

    def close(self) -> None:
        """Stop the workers and remove their keys."""
        for worker in self._workers:
            try:
                worker.stdin.write('{"quit": true}\n')
                worker.stdin.close()
            except OSError:
                pass
        for worker in self._workers:
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            worker.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
