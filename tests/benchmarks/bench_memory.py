"""Most memory of a party while a stage of 100 M AND gates is computed and proven; one line of JSON per way of cutting it.

Three parties as processes, their messages over socket pairs. `peak_mb` is the process's high-water mark, `before_mb` what it
held with its shares before the stage, `batches` how many proofs the stage was cut into. Exits with 1 above 2 GB.

`python tests/benchmarks/bench_memory.py [gates] [operations ...]`
"""

from __future__ import annotations

import json
import os
import queue
import resource
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mpc_ops.engine.memory import keep_memory
from mpc_ops.kernels import backend
from mpc_ops.protocol.circuits.boolean import and_many
from mpc_ops.protocol.core.party import Address, Message, Party
from mpc_ops.protocol.core.session import ActiveSession
from mpc_ops.protocol.core.shares import BooleanShare
from tests.support.active import MEMBERS, keys_of, terms_of

GATES = 100_000_000
LIMIT_MB = 2000
_MIB = 1 << 10


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB


class Peer:
    """One link: sends from a thread of its own, so that two parties never wait for each other's buffers."""

    def __init__(self, descriptor: int) -> None:
        self.link = Connection(descriptor)
        self._waiting: queue.Queue[Message | None] = queue.Queue()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def put(self, message: Message) -> None:
        self._waiting.put(message)

    def _send(self) -> None:
        while (message := self._waiting.get()) is not None:
            a = message.address
            self.link.send_bytes(
                json.dumps([a.session, a.stage, a.round, a.part, a.step, a.sender, a.receiver]).encode()
            )
            self.link.send_bytes(message.body)

    def take(self) -> Message:
        address = Address(*json.loads(self.link.recv_bytes()))
        return Message(address, self.link.recv_bytes())

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()
        self.link.close()


def work(position: int, gates: int, operations: int, descriptors: dict[int, int]) -> None:
    """Be one party."""
    keep_memory()
    words = -(-gates // operations // 64)
    generator, sid = np.random.default_rng(1), terms_of(0).sid
    x, y = ([generator.integers(0, 1 << 64, (1, words), dtype=np.uint64) for _ in range(3)] for _ in range(2))
    one, two = (BooleanShare(sid, position, 64 * words, part[position], part[(position + 1) % 3]) for part in (x, y))
    del x, y
    before = peak_mb()
    batches: list[int] = []

    def program(session):
        stage = session.stage("memory")
        product = one
        for number in range(operations):
            (product,) = yield from and_many(stage, f"step{number}", [(product, two)])
        yield from stage.barrier()
        batches.append(stage.batches)
        stage.close()

    started, cpu = time.monotonic(), time.process_time()
    session = ActiveSession(terms_of(position), keys_of(position))
    party = Party(position, sid, MEMBERS, session.run(program))
    peers = {peer: Peer(descriptor) for peer, descriptor in descriptors.items()}

    def send(messages: list[Message]) -> None:
        for message in messages:
            peers[message.address.receiver].put(message)

    send(party.start())
    by_link = {peer.link: peer for peer in peers.values()}
    while not party.done:
        for link in wait(list(by_link)):
            if not party.done:
                send(party.receive(by_link[link].take()))
    for peer in peers.values():
        peer.close()
    print(
        json.dumps(
            {
                "gates": 64 * words * operations,
                "operations": operations,
                "kernels": backend(),
                "party": position,
                "before_mb": round(before),
                "peak_mb": round(peak_mb()),
                "batches": batches[0],
                "seconds": round(time.monotonic() - started, 2),
                "cpu_seconds": round(time.process_time() - cpu, 2),
            }
        ),
        flush=True,
    )


def measure(gates: int, operations: int) -> bool:
    """Run the three parties; return whether the largest stayed below the limit."""
    ends: list[dict[int, socket.socket]] = [{}, {}, {}]
    for first in range(3):
        for second in range(first + 1, 3):
            ends[first][second], ends[second][first] = socket.socketpair()
    parties = []
    for position, links in enumerate(ends):
        named = [f"{peer}:{link.fileno()}" for peer, link in links.items()]
        command = [sys.executable, __file__, "party", str(position), str(gates), str(operations), *named]
        descriptors = [link.fileno() for link in links.values()]
        parties.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=descriptors))
    for links in ends:
        for link in links.values():
            link.close()
    said = [json.loads(party.communicate(timeout=1800)[0]) for party in parties]
    most = max(said, key=lambda one: one["peak_mb"])
    print(json.dumps(most), flush=True)
    return most["peak_mb"] < LIMIT_MB


def main() -> int:
    if sys.argv[1:2] == ["party"]:
        position, gates, operations = (int(word) for word in sys.argv[2:5])
        named = dict(tuple(int(part) for part in word.split(":")) for word in sys.argv[5:])
        work(position, gates, operations, {peer: os.dup(number) for peer, number in named.items()})
        return 0
    numbers = [int(word) for word in sys.argv[1:]]
    gates = numbers[0] if numbers else GATES
    fits = [measure(gates, operations) for operations in numbers[1:] or (1, 100)]
    return 0 if all(fits) else 1


if __name__ == "__main__":
    sys.exit(main())
