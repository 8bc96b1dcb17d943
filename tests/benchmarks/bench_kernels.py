"""CPU time of proofs per gate, compiled kernels beside numpy in the same run; one line of JSON per figure.

Three parties work in turn in one process, so a figure is the process's CPU time divided by three. `gate_ns` is what a passive
stage takes per gate: masks, products, message. `proof_ns` is what an active stage takes more: its log, FLUSH, all three roles
of one party in the proof, their messages. Medians of repeats that take turns between kernels; a busy machine makes them
larger, never smaller: `best_ns` is the smallest `proof_ns` that was seen. Memory stays in the process, as in an operator's.

`python tests/benchmarks/bench_kernels.py [and|ring] [gates ...]`
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mpc_ops.engine.memory import keep_memory
from mpc_ops.kernels import calls, using
from mpc_ops.protocol.circuits.boolean import and_many
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.shares import BooleanShare, PassiveBooleanShare, PassiveRingShare, RingShare
from tests.support.active import run_active, run_passive, terms_of

SIZES = {"and": [1 << 10, 1 << 20, 1 << 24], "ring": [1 << 10, 1 << 16, 1 << 20]}
REPEATS = {"compiled": 7, "numpy": 3}


def shares(kind: str, gates: int, passive: bool):
    """Random components of x and y by position; nothing is opened, so they need no values."""
    generator, sid = np.random.default_rng(1), terms_of(0).sid
    words = gates if kind == "ring" else -(-gates // 64)
    parts = [[generator.integers(0, 1 << 64, words, dtype=np.uint64) for _ in range(3)] for _ in range(2)]

    def share(part: list[np.ndarray], party: int):
        first, second = part[party], part[(party + 1) % 3]
        if kind == "ring":
            return (PassiveRingShare if passive else RingShare)(sid, party, first, second)
        shape = (1, words)
        maker = PassiveBooleanShare if passive else BooleanShare
        return maker(sid, party, gates, first.reshape(shape), second.reshape(shape))

    return [tuple(share(part, party) for part in parts) for party in range(3)]


def run(kind: str, gates: int, passive: bool) -> float:
    """Return the CPU seconds of one party for the gates, with their proof unless passive."""
    held = shares(kind, gates, passive)

    def program(session):
        stage = session.stage("bench")
        x, y = held[stage.party]
        if kind == "and":
            yield from and_many(stage, "gates", [(x, y)])
        else:
            yield from multiply(stage, x, y)
        if not passive:
            yield from stage.barrier()
            stage.close()

    started = time.process_time()
    out = (run_passive if passive else run_active)(program)
    if out.errors:
        raise SystemExit(str(out.errors))
    return (time.process_time() - started) / 3


def figures(kind: str, gates: int) -> None:
    seconds: dict[tuple[str, bool], list[float]] = {}
    kernels = ["compiled", "numpy"] if calls.PRESENT else ["numpy"]
    for turn in range(1 + max(REPEATS.values())):
        for name in kernels:
            if turn <= REPEATS[name]:
                for passive in (True, False):
                    with using(name):
                        seconds.setdefault((name, passive), []).append(run(kind, gates, passive))
    for name in kernels:
        gate = statistics.median(seconds[name, True][1:])
        proof = [whole - gate for whole in seconds[name, False][1:]]
        print(
            json.dumps(
                {
                    "what": kind,
                    "gates": gates,
                    "kernels": name,
                    "instructions": calls.level() if name == "compiled" else None,
                    "proof_ns": round(statistics.median(proof) / gates * 1e9, 3),
                    "best_ns": round(min(proof) / gates * 1e9, 3),
                    "gate_ns": round(gate / gates * 1e9, 3),
                    "proof_ms": round(statistics.median(proof) * 1e3, 3),
                    "repeats": len(proof),
                }
            ),
            flush=True,
        )


def main() -> None:
    keep_memory()
    kinds = [word for word in sys.argv[1:] if word in SIZES] or list(SIZES)
    counts = [int(word) for word in sys.argv[1:] if word.isdigit()]
    for kind in kinds:
        for gates in counts or SIZES[kind]:
            figures(kind, gates)


if __name__ == "__main__":
    main()
