"""One party of SecretFlow SPU (ABY3, passive, no TLS), in the peers' own environment. Commands come as JSON lines.

```
> {"parties": ["127.0.0.1:..", ..]}                              connect
> {"run": {"workload": "W1", "columns": {"x": "file.npy", ..}}}  inputs shared, program compiled: not timed
< {"ready": true}
> {"go": true}
< {"began": .., "ended": .., "digest": ".."}                     run, outputs revealed
```
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import spu
from spu.libspu import (
    CompilerOptions,
    FieldType,
    ProtocolKind,
    RuntimeConfig,
    Share,
    Visibility,
    link,
)
from spu.utils import frontend

jax.config.update("jax_enable_x64", True)

GROUPS = 100


def multiply_and_sum(x: Any, y: Any) -> Any:
    return jnp.sum(x * y)


def less_and_count(x: Any, y: Any) -> Any:
    return jnp.sum(x < y)


def equal_and_count(x: Any, y: Any) -> Any:
    return jnp.sum(x == y)


def sort_keys(key: Any) -> Any:
    return jnp.sort(key)


def middle(key: Any) -> Any:
    count = len(key)
    largest, _ = jax.lax.top_k(key, count - (count - 1) // 2)
    return jnp.min(largest)


def count_common(a: Any, b: Any) -> Any:
    both = jnp.sort(jnp.concatenate([a, b]))
    return jnp.sum(both[1:] == both[:-1])


def sum_by_key(key: Any, value: Any) -> Any:
    ordered, values = jax.lax.sort((key, value), num_keys=1)
    running = jax.lax.associative_scan(jnp.add, values)  # a cumsum becomes a window over all rows
    end = jnp.concatenate([ordered[1:] != ordered[:-1], jnp.array([True])])
    _, keys, sums = jax.lax.sort((jnp.logical_not(end).astype(jnp.int64), ordered, running), num_keys=1, is_stable=True)
    total = sums[:GROUPS]
    return keys[:GROUPS], total - jnp.concatenate([jnp.zeros(1, dtype=jnp.int64), total[:-1]])


def share_and_sum(owner0: Any, owner1: Any, owner2: Any) -> Any:
    return jnp.sum(owner0) + jnp.sum(owner1) + jnp.sum(owner2)


PROGRAMS: dict[str, Callable[..., Any]] = {
    "W1": multiply_and_sum,
    "W2": less_and_count,
    "W3": equal_and_count,
    "W4/32": sort_keys,
    "W4/64": sort_keys,
    "W4b": middle,
    "W5/32": count_common,
    "W5/64": count_common,
    "W6/32": sum_by_key,
    "W7": share_and_sum,
}


class Party:
    """One rank: runtime, link, and the sharing of inputs (rank 0 makes the shares and hands them out)."""

    def __init__(self, rank: int, parties: list[str]) -> None:
        desc = link.Desc()
        for place, address in enumerate(parties):
            desc.add_party(f"spu-{place}", address)
        desc.recv_timeout_ms = 1_800_000
        self.rank, self.link = rank, link.create_brpc(desc, rank)
        config = RuntimeConfig(protocol=ProtocolKind.ABY3, field=FieldType.FM64)
        self.io, self.runtime = spu.Io(3, config), spu.Runtime(self.link, config)

    def share(self, name: str, values: np.ndarray) -> None:
        if self.rank == 0:
            own, *others = self.io.make_shares(values, Visibility.VIS_SECRET)
            for place, share in enumerate(others, 1):
                self.send(place, share)
        else:
            own = self.receive(0)
        self.runtime.set_var(name, own)

    def send(self, rank: int, share: Share) -> None:
        self.link.send(rank, share.meta)
        (chunk,) = share.share_chunks
        self.link.send(rank, chunk)

    def receive(self, rank: int) -> Share:
        share = Share()
        share.meta = self.link.recv(rank)
        share.share_chunks = [self.link.recv(rank)]
        return share

    def reveal(self, name: str) -> np.ndarray:
        own = self.runtime.get_var(name)
        others = [rank for rank in range(3) if rank != self.rank]
        for rank in others:
            self.send(rank, own)
        shares = {rank: self.receive(rank) for rank in others} | {self.rank: own}
        return np.atleast_1d(self.io.reconstruct([shares[rank] for rank in range(3)]))

    def run(self, workload: str, files: dict[str, str]) -> dict[str, Any]:
        columns = {name: np.load(file, allow_pickle=False).view(np.int64) for name, file in files.items()}
        names = [f"in-{name}" for name in columns]
        program = PROGRAMS[workload]
        executable, _ = frontend.compile(
            frontend.Kind.JAX,
            program, list(columns.values()), {}, names, [Visibility.VIS_SECRET] * len(names),
            lambda found: [f"out-{place}" for place in range(len(found))], (), None, CompilerOptions(),
        )  # fmt: skip
        for name, values in zip(names, columns.values(), strict=True):
            self.share(name, values)
        say({"ready": True})
        hear()
        self.link.barrier()
        began = time.monotonic()
        self.runtime.run(executable)
        values = [self.reveal(name) for name in executable.output_names]
        ended = time.monotonic()
        for name in (*names, *executable.output_names):
            self.runtime.del_var(name)
        return {"began": began, "ended": ended, "digest": digest(values)}


def digest(values: list[np.ndarray]) -> str:
    """The same text as in the engine's worker."""
    state = hashlib.sha256()
    for value in values:
        whole = np.asarray(value).astype(np.int64).view("<u8")
        state.update(f"{len(whole)}:".encode() + whole.tobytes())
    return state.hexdigest()


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def hear() -> dict[str, Any]:
    line = sys.stdin.readline()
    return json.loads(line) if line else {"quit": True}


def main() -> None:
    party = None
    while "quit" not in (message := hear()):
        if "parties" in message:
            party = Party(int(sys.argv[1]), message["parties"])
            say({"connected": True})
        elif party is not None:
            say(party.run(message["run"]["workload"], message["run"]["columns"]))


if __name__ == "__main__":
    main()
