"""Time the linear core, one line of JSON per step: seconds (median of five), bytes per party, rounds, and the same in numpy.

`plain_seconds` is the same arithmetic on plaintext in the same run, because machines differ and are noisy: compare ratios.
Run `python tests/benchmarks/bench_core.py`, with lane counts if others are wanted: `... bench_core.py 1000 1000000`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mpc_ops.protocol.sums import CrossRoute, Share, add_many, build_crossing, open_crossing
from mpc_ops.protocol.sums.cross import crossing_frame_bytes
from mpc_ops.protocol.sums.result import ResultContext, build_result, combine_parts, result_part_bytes
from mpc_ops.ring import RingArray
from mpc_ops.sharing import share

OWNERS = 8
REPEATS = 5
A, B = ("a-1", "a-2", "a-3"), ("b-1", "b-2", "b-3")
KEYS = [bytes([n]) * 32 for n in range(3)]


def measure(work: Callable[[], object]) -> float:
    """Return the median seconds of five runs after a warm-up."""
    seconds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def say(step: str, lanes: int, seconds: float, plain: float, *, sent: int, rounds: int) -> None:
    print(
        json.dumps(
            {
                "step": step,
                "lanes": lanes,
                "seconds": round(seconds, 6),
                "plain_seconds": round(plain, 6),
                "bytes_per_party": sent,
                "rounds": rounds,
            }
        ),
        flush=True,
    )


def shares_of(values: RingArray) -> list[Share]:
    lanes = len(values)
    components = [component.expand(lanes) for component in share(values).components]
    return [Share(party, components[party], components[(party + 1) % 3]) for party in range(3)]


def bench(lanes: int) -> None:
    rng = np.random.default_rng(7)
    values = rng.integers(0, 1 << 63, lanes, dtype=np.uint64)
    plain = measure(lambda: values + values)
    say("share (owner)", lanes, measure(lambda: share(values)), plain, sent=128 + 16 * lanes, rounds=1)

    owners = [shares_of(values)[0] for _ in range(OWNERS)]
    plain_sum = measure(lambda: sum([values] * OWNERS))
    say(
        f"sum of {OWNERS} owners (operator)",
        lanes,
        measure(lambda: add_many(owners, 0, lanes)),
        plain_sum,
        sent=0,
        rounds=0,
    )

    route = CrossRoute(run_id="0" * 64, source="a", target="b", crossing="cross", lanes=lanes, senders=A, receivers=B)
    shared = shares_of(values)

    def build() -> list[tuple[bytes, bytes, bytes]]:
        return [build_crossing(one, (KEYS[one.party], KEYS[(one.party + 1) % 3]), route, 1) for one in shared]

    frames = build()
    sent = sum(crossing_frame_bytes(lanes, receiver) for receiver in range(3))
    say("crossing, send (operator)", lanes, measure(build) / 3, plain, sent=sent, rounds=1)
    inbound = [{sender: frames[sender][receiver] for sender in range(3)} for receiver in range(3)]
    say(
        "crossing, check and add (operator)",
        lanes,
        measure(lambda: open_crossing(inbound[1], route, 1)),
        plain,
        sent=0,
        rounds=0,
    )

    group = [open_crossing(inbound[receiver], route, receiver) for receiver in range(3)]
    context = ResultContext(run_id="0" * 64, cluster="b", recipient="r", attempt=1, lanes=lanes, members=B)
    results = [build_result(one, (KEYS[one.party], KEYS[(one.party + 1) % 3]), context) for one in group]
    parts = {party: part for party, (_, part) in enumerate(results)}
    commitments = {party: said for party, (said, _) in enumerate(results)}
    seconds = measure(lambda: combine_parts(context, parts, commitments))
    if not np.array_equal(combine_parts(context, parts, commitments), values):
        raise SystemExit("the result is wrong")
    say("result, check and combine (recipient)", lanes, seconds, plain, sent=result_part_bytes(lanes), rounds=1)


def main() -> None:
    for lanes in [int(text) for text in sys.argv[1:]] or [1_000, 1_000_000]:
        bench(lanes)


if __name__ == "__main__":
    main()
