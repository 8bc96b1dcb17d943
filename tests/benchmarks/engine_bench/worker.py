"""One operator of the benchmark: a process of its own with its own keys, certificate and links. Commands come as JSON lines.

```
> {"ports": {...}, "link": "80ms:300mbit" | null, "sid": "..."}    connect, agree on keys
< {"connected": true}
> {"run": {"workload": "W1", "n": 1000000, "security": "active", "seed": 7, "attempt": 3, "fresh": true}}
< {"ready": true}                       inputs shared, session made; if `fresh`, free memory given back and peak forgotten
> {"go": true}
< {"began": ..., "ended": ..., "cpu": ..., "bytes": ..., "payload": ..., "rounds": ..., "base_kb": ..., "peak_kb": ..., "shares": ...,
   "digest": "..."}
> {"quit": true}
```
Setting up (keys, certificates, TLS, key agreement, sharing of the inputs) is not timed; the processes live through all runs.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import sys
import time
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np

from mpc_ops.engine.memory import keep_memory
from mpc_ops.engine.runner import drive
from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey
from mpc_ops.kernels import backend
from mpc_ops.protocol.core.flow import ActiveFlow, Flow, PassiveFlow
from mpc_ops.protocol.core.party import Party
from mpc_ops.protocol.core.session import ActiveSession, PassiveSession
from mpc_ops.protocol.core.terms import DEFAULT_LIMIT_BYTES, MAX_LIMIT_BYTES, PartyKeys, SessionTerms
from mpc_ops.transport.datalink import DataTimings
from mpc_ops.transport.datamesh import DataListener, DataMesh, MeshTerms, open_mesh
from mpc_ops.transport.peers import LinkIdentity, PeerEndpoint
from mpc_ops.transport.profile import parse_profile
from tests.benchmarks.engine_bench.workloads import FEWER_ROUNDS, Pivots, components, lookup, share_of

CLUSTER = "bench"
RUN_S = 1800.0
SLOW_RTT_S = 0.01


@lru_cache(maxsize=1)
def inputs(workload: str, count: int, seed: int, position: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plaintext columns and own components; all three draw the same numbers, which stands for owners that shared before."""
    columns = lookup(workload).columns(count, np.random.default_rng((seed, 0)))
    rng = np.random.default_rng((seed, 1))
    return columns, {name: components(column, rng, position) for name, column in columns.items()}


def digest(values: list[Any]) -> str:
    """One text for opened values, the same in the coordinator."""
    state = hashlib.sha256()
    for value in values:
        state.update(f"{len(value)}:".encode() + np.asarray(value, dtype="<u8").tobytes())
    return state.hexdigest()


def resident_kb(name: str) -> int:
    """Resident memory now (`VmRSS`), or the high-water mark since `forget_peak` (`VmHWM`)."""
    with Path("/proc/self/status").open(encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    """Give memory that is free back and set the high-water mark to what is in use."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


class Worker:
    """The state of one position between runs."""

    def __init__(self, folder: Path, position: int) -> None:
        self.folder, self.position = folder, position
        about = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
        self.members: tuple[str, str, str] = tuple(about["members"])
        name = self.members[position]
        self.identity = LinkIdentity(name, folder / name / "tls.pem", folder / name / "tls.key", 1)
        self.signer = IdentityKey.load(folder / name / "identity.key")
        self.keys = tuple(IdentityPublicKey.from_text(text) for text in about["identities"])
        self.pins = {member: (pin,) for member, pin in zip(self.members, about["authorities"], strict=True)}
        peers = {member: pin for member, pin in self.pins.items() if member != name}
        self.listener = DataListener(self.identity, ("127.0.0.1", 0), peers)
        self.limit_bytes = DEFAULT_LIMIT_BYTES
        self.mesh: DataMesh | None = None
        self.party_keys: PartyKeys | None = None

    def connect(self, ports: list[int], sid: str, link: str | None) -> None:
        profile = parse_profile(link) if link else None
        if profile and profile.rtt_s >= SLOW_RTT_S:
            # Fewer rounds for more comparisons and memory.
            Pivots.number, self.limit_bytes = FEWER_ROUNDS, MAX_LIMIT_BYTES
        endpoints = {
            member: PeerEndpoint("127.0.0.1", ports[place], self.position < place, self.pins[member])
            for place, member in enumerate(self.members)
            if place != self.position
        }
        terms = MeshTerms(
            sid=bytes.fromhex(sid), cluster=CLUSTER, attempt=1, position=self.position, members=self.members,
            identity_keys=self.keys,
        )  # fmt: skip
        self.mesh, keys = open_mesh(
            self.identity, self.signer, terms, self.listener, endpoints,
            timings=DataTimings(connect_s=30), profile=profile,
        )  # fmt: skip
        self.party_keys = PartyKeys(keys[(self.position - 1) % 3], keys[(self.position + 1) % 3])

    def party(self, work: dict[str, Any]) -> Party[Any]:
        """A session of its own for this run: the pair keys are those of the links, every context holds the session's id."""
        sid = hashlib.sha256(f"bench/{work['workload']}/{work['attempt']}".encode()).hexdigest()
        terms = SessionTerms(
            sid=sid, cluster=CLUSTER, attempt=work["attempt"], party=self.position, members=self.members,
            limit_bytes=self.limit_bytes,
        )  # fmt: skip
        workload = lookup(work["workload"])
        columns, parts = inputs(work["workload"], work["n"], work["seed"], self.position)

        def program(flow: Flow) -> Any:
            result = yield from workload.program(flow, share_of(columns, flow, parts))
            yield from flow.finish()
            return result

        if work["security"] == "active":
            steps = ActiveSession(terms, self.party_keys).run(lambda session: program(ActiveFlow(session, "bench")))
        else:
            steps = program(PassiveFlow(PassiveSession(terms, self.party_keys), "bench"))
        return Party(self.position, sid, self.members, steps)

    def share_bytes(self, work: dict[str, Any]) -> int:
        """Two components of every input; of what owners know in the clear they are made in the run."""
        columns, parts = inputs(work["workload"], work["n"], work["seed"], self.position)
        return sum(2 * parts[name][0].nbytes for name in columns)

    def sent(self) -> int:
        return sum(link.sent.bytes for link in self.mesh.links.values())

    def run(self, work: dict[str, Any]) -> dict[str, Any]:
        party = self.party(work)
        before = self.sent()
        if work["fresh"]:
            forget_peak()
        base = resident_kb("VmRSS")
        say({"ready": True})
        hear()
        began, cpu = time.monotonic(), time.process_time()
        result = drive(party, self.members, self.mesh, timeout_s=RUN_S, silent_s=RUN_S)
        ended, cpu = time.monotonic(), time.process_time() - cpu
        return {
            "began": began, "ended": ended, "cpu": cpu, "payload": party.sent_bytes, "bytes": self.sent() - before, "rounds": party.rounds,
            "base_kb": base, "peak_kb": resident_kb("VmHWM"), "shares": self.share_bytes(work), "digest": digest(result),
        }  # fmt: skip


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def hear() -> dict[str, Any]:
    line = sys.stdin.readline()
    return json.loads(line) if line else {"quit": True}


def main() -> None:
    keep_memory()
    worker = Worker(Path(sys.argv[1]), int(sys.argv[2]))
    say({"port": worker.listener.port, "backend": backend(), "pid": os.getpid()})
    while "quit" not in (message := hear()):
        try:
            if "ports" in message:
                worker.connect(message["ports"], message["sid"], message["link"])
                say({"connected": True})
            else:
                say(worker.run(message["run"]))
        except Exception as error:  # noqa: BLE001 - the coordinator ends the run with it
            say({"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()})
            break
    if worker.mesh is not None:
        worker.mesh.close()
    worker.listener.close()


if __name__ == "__main__":
    main()
