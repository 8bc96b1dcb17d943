"""Time shuffles, partitions, sorts and merges of shared tables, one line of JSON per step.

Three parties run in one thread, so `seconds` (median of three) is the local work of all of them together; `plain_seconds` is
numpy's sort of the same keys in the same run. Bytes are those of the party that sends most. Arguments are numbers of rows:
`python tests/benchmarks/bench_sort.py 1000 100000`.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mpc_ops.kernels import compiled
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.order.shuffle import partition, shuffle
from mpc_ops.protocol.order.sort import SortKey, merge_sorted, sort
from tests.support.active import as_passive, run_flow, share_bits, share_ring

REPEATS = 3
SECURITIES = ("passive", "active")
Program = Callable[..., object]


def shared(columns: dict[str, tuple[list[int], int | None]], security: str) -> list[Rows]:
    """A table by position."""
    rng = random.Random(1)
    parts = {
        name: share_ring(values, rng=rng) if width is None else share_bits(values, width, rng=rng)
        for name, (values, width) in columns.items()
    }
    return [
        Rows({name: part[party] if security == "active" else as_passive(part[party]) for name, part in parts.items()})
        for party in range(3)
    ]


def measure(step: str, security: str, program: Program, tables: list[list[Rows]], *, plain: float) -> None:
    """Run a program on tables three times and print what it took."""
    seconds, out = [], None
    for _ in range(REPEATS):
        started = time.perf_counter()
        out = run_flow(lambda flow: program(flow, *(table[flow.stage.party] for table in tables)), security=security)
        seconds.append(time.perf_counter() - started)
        if out.errors:
            raise SystemExit(f"{step} failed: {out.codes()}")
    print(
        json.dumps(
            {
                "step": step,
                "security": security,
                "backend": "compiled" if compiled() else "numpy",
                "rows": sum(table[0].count for table in tables),
                "seconds": round(statistics.median(seconds), 4),
                "plain_seconds": round(plain, 4),
                "bytes_per_party": max(out.sent_bytes),
                "rounds": max(out.rounds),
            }
        ),
        flush=True,
    )


def bench(rows: int) -> None:
    rng = np.random.default_rng(7)
    keys = {width: rng.integers(0, 1 << width, rows, dtype=np.uint64).tolist() for width in (1, 7, 32, 63)}
    amounts = rng.integers(0, 1 << 63, rows, dtype=np.uint64).tolist()
    started = time.perf_counter()
    np.argsort(np.array(keys[32]), kind="stable")
    plain = time.perf_counter() - started
    for security in SECURITIES:
        table = shared({"key": (keys[32], 32), "amount": (amounts, None)}, security)
        measure("shuffle 32 + 64 bits", security, shuffle, [table], plain=plain)
        table = shared({"bit": (keys[1], 1), "amount": (amounts, None)}, security)
        measure("partition 1 + 64 bits", security, lambda flow, t: partition(flow, t, "bit"), [table], plain=plain)
        for width, pivots in ((7, 1), (32, 1), (32, 7), (63, 1)):
            table = shared({"key": (keys[width], width)}, security)
            measure(
                f"sort {width} bits, {pivots} pivots",
                security,
                lambda flow, t, pivots=pivots: sort(flow, t, [SortKey("key")], pivots=pivots),
                [table],
                plain=plain,
            )
        half = rows // 2
        runs = [shared({"key": (sorted(part), 32)}, security) for part in (keys[32][:half], keys[32][half:])]
        measure(
            "merge two runs of 32 bits", security, lambda f, *t: merge_sorted(f, t, [SortKey("key")]), runs, plain=plain
        )


def main() -> None:
    for rows in [int(text) for text in sys.argv[1:]] or [1_000, 100_000]:
        bench(rows)


if __name__ == "__main__":
    main()
