"""`make bench-peers`: the engine beside SPU and MPyC, interleaved in one run, and beside MP-SPDZ's figures.

```
python tests/benchmarks/engine_peers/run.py [--only W1,W2] [--repeat 5] [--n 10000] [--realtime] [--out FILE]
```
The peers are installed from the package index into an environment of their own, `var/bench/peers`. Every workload runs in turn
on the engine (passive, compiled kernels if there are any) and on each peer that has it, `--repeat` times after a warm-up;
results are compared with the plaintext in every run, so they agree with one another. Ratios are of medians of this run. The
engine's links are encrypted (TLS 1.3 and AES-256-GCM inside), the peers' are not. MP-SPDZ is not run: its figures are in
figures.py, and ratios to its seconds are indicative.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np

from tests.benchmarks.engine_bench.cluster import SEED, Cluster, ClusterError
from tests.benchmarks.engine_bench.run import BENCH, machine, selected
from tests.benchmarks.engine_bench.worker import digest
from tests.benchmarks.engine_bench.workloads import WORKLOADS, lookup
from tests.benchmarks.engine_peers.environment import MPYC, SPU, PeersMissing, prepare
from tests.benchmarks.engine_peers.figures import MP_SPDZ, Figure
from tests.benchmarks.engine_peers.peers import Mpyc, PeerFailed, Spu


def inputs(name: str, count: int, folder: Path) -> tuple[dict[str, Path], str]:
    """Write a workload's plaintext columns for the peers; return (files, digest of the answer)."""
    columns = lookup(name).columns(count, np.random.default_rng((SEED, 0)))
    files = {}
    for column, content in columns.items():
        files[column] = folder / f"{name.replace('/', '-')}-{count}-{column}.npy"
        np.save(files[column], content.values)
    return files, digest(lookup(name).answer({column: content.values for column, content in columns.items()}))


def beside(cluster: Cluster, peer: Any, name: str, count: int, *, repeat: int, folder: Path) -> dict[str, Any]:
    """Run a workload on the engine and on a peer in turn."""
    files, expected = inputs(name, count, folder)
    ours, theirs = [], []
    for _ in range(repeat + 1):
        ours.append(cluster.run(name, count, "passive").seconds)
        theirs.append(peer.run(name, files, expected))
    own, other = statistics.median(ours[1:]), statistics.median(theirs[1:])
    return {
        "workload": name.partition("/")[0], "n": count, "key_bits": lookup(name).key_bits, "backend": cluster.backend,
        "seconds": round(own, 4), "peer": peer.name, "peer_seconds": round(other, 4), "ratio": round(own / other, 3),
        "agrees": True,
    }  # fmt: skip


def against(cluster: Cluster, name: str, *, repeat: int) -> list[dict[str, Any]]:
    """Run a workload at MP-SPDZ's size, passively and actively, and divide by its figures."""
    rows, passive, active, target = MP_SPDZ[name]
    out = []
    cases: list[tuple[str, Figure | None, tuple[float, float]]] = [
        ("passive", passive, target.passive), ("active", active, target.active)
    ]  # fmt: skip
    for security, figure, limits in cases:
        runs = [cluster.run(name, rows, security) for _ in range(repeat + 1)][1:]
        seconds, megabytes = statistics.median(run.seconds for run in runs), runs[0].bytes_per_party / 1e6
        line = {
            "workload": name.partition("/")[0], "n": rows, "key_bits": lookup(name).key_bits, "security": security,
            "seconds": round(seconds, 4), "megabytes": round(megabytes, 3), "rounds": runs[0].rounds,
        }  # fmt: skip
        if figure is not None:
            line |= {
                "mp_spdz": figure.mode, "mp_spdz_seconds": figure.seconds, "mp_spdz_megabytes": figure.megabytes,
                "indicative_time_ratio": round(seconds / figure.seconds, 3), "time_target": limits[0],
                "byte_ratio": round(megabytes / figure.megabytes, 2), "byte_target": limits[1],
            }  # fmt: skip
        out.append(line)
    return out


def measure(chosen: argparse.Namespace, python: Path, missing: dict[str, str]) -> dict[str, Any]:
    """Run everything and return what is written."""
    names = selected(chosen.only)
    kinds = [kind for kind, requirement in ((Spu, SPU), (Mpyc, MPYC)) if requirement not in missing]
    peers, found, figures = [kind(python, realtime=chosen.realtime) for kind in kinds], [], []
    try:
        with Cluster(BENCH, realtime=chosen.realtime) as cluster, tempfile.TemporaryDirectory(dir=BENCH) as scratch:
            for name in names:
                for peer in peers:
                    if name in peer.rows:
                        rows = chosen.n or peer.rows[name] or lookup(name).rows
                        found.append(beside(cluster, peer, name, rows, repeat=chosen.repeat, folder=Path(scratch)))
                        print(json.dumps(found[-1]), flush=True)
                if not chosen.n:
                    figures += against(cluster, name, repeat=chosen.repeat)
                    print("\n".join(map(json.dumps, figures[-2:])), flush=True)
    finally:
        for peer in peers:
            peer.close()
    return {"machine": machine(), "realtime": chosen.realtime, "missing": missing, "peers": found, "mp_spdz": figures}


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all parties are stopped
    parser = argparse.ArgumentParser(prog="make bench-peers")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, for example W1,W2")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--n", type=int, help="rows of every workload; then MP-SPDZ's figures are left out")
    parser.add_argument("--realtime", action="store_true", help="go before all other processes (needs CAP_SYS_NICE)")
    parser.add_argument("--out", type=Path, default=BENCH / "peers.json")
    chosen = parser.parse_args()
    BENCH.mkdir(parents=True, exist_ok=True)
    try:
        python, missing = prepare(BENCH / "peers")
        result = measure(chosen, python, missing)
    except (PeersMissing, PeerFailed, ClusterError) as error:
        print(error, file=sys.stderr)
        return 1
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
