"""`make bench`: three operators, real processes, real links; writes `var/bench/engine.json`.

```
python tests/benchmarks/engine_bench/run.py [--only W1,W2] [--n 10000] [--repeat 5] [--link 80ms:300mbit]
                                            [--security active] [--backend numpy] [--realtime] [--out FILE]
```
Each workload is run once to warm up, which gives `peak_mb`, and then `--repeat` times; `seconds` is the median. Every run's result is compared with
the plaintext at all three parties. `engine.json` holds one line per workload, security and backend; `engine-runs.json` every
single time, with the machine it was measured on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from mpc_ops.errors import ComityError
from mpc_ops.kernels import calls
from mpc_ops.transport.profile import parse_profile
from tests.benchmarks.engine_bench.cluster import Cluster, ClusterError, Run
from tests.benchmarks.engine_bench.workloads import WORKLOADS, lookup

ROOT = Path(__file__).resolve().parents[3]
BENCH = ROOT / "var" / "bench"
SECURITIES = ("passive", "active")


def backends() -> tuple[str, ...]:
    """What this installation can run."""
    return ("compiled", "numpy") if calls.PRESENT else ("numpy",)


def record(
    name: str, count: int, security: str, backend: str, *, first: Run, runs: list[Run], link: str | None
) -> dict[str, Any]:
    """One line of engine.json."""
    work = lookup(name)
    out: dict[str, Any] = {
        "workload": name.partition("/")[0],
        "n": count,
        "key_bits": work.key_bits,
        "security": security,
        "backend": backend,
        "seconds": round(statistics.median(run.seconds for run in runs), 4),
        "bytes_per_party": max(run.bytes_per_party for run in runs),
        "rounds": runs[0].rounds,
        "peak_mb": round(first.peak_mb, 1),
    }
    if link:
        out["link"] = link
    return out


def measure(
    names: list[str],
    securities: list[str],
    chosen: list[str],
    *,
    count: int | None,
    repeat: int,
    link: str | None,
    out: Path,
    realtime: bool = False,
) -> None:
    """Run everything; both files are written after every line, so that a run that is stopped has lost nothing."""
    lines: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    for backend, name, security in product(chosen, names, securities):
        rows = count or lookup(name).rows
        # New processes for every line: memory that an earlier one has left behind would hide what this one takes.
        with Cluster(BENCH, backend=backend, link=link, realtime=realtime) as cluster:
            first = cluster.run(name, rows, security, fresh=True)
            runs = [cluster.run(name, rows, security) for _ in range(repeat)]
            line = record(name, rows, security, cluster.backend, first=first, runs=runs, link=link)
        lines.append(line)
        details.append(
            {
                **line,
                "all_seconds": [round(run.seconds, 4) for run in runs],
                "cpu_seconds": round(statistics.median(run.cpu_seconds for run in runs), 4),
                "base_mb": round(first.base_mb, 1),
                "shares_mb": round(first.shares_mb, 1),
                "times_shares": round(first.times_shares, 2),
                "payload_bytes": max(run.payload_bytes for run in runs),
            }
        )
        print(json.dumps(line), flush=True)
        write(out, lines, {"machine": machine(), "realtime": realtime, "runs": details})


def write(out: Path, lines: list[dict[str, Any]], runs: dict[str, Any]) -> None:
    """Write engine.json and engine-runs.json, complete or as they were."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, content in ((out, lines), (out.with_name(f"{out.stem}-runs.json"), runs)):
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    models = {line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
              if line.startswith("model name")}  # fmt: skip
    return {
        "cpu": sorted(models),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
    }


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, for example W1,W2")
    parser.add_argument("--n", type=int, help="rows of every workload; usually each its own")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--link", help="simulated network, for example 80ms:300mbit")
    parser.add_argument("--security", choices=SECURITIES, help="only one; usually both")
    parser.add_argument("--backend", choices=("compiled", "numpy"), help="only one; usually all that there are")
    parser.add_argument("--realtime", action="store_true", help="go before all other processes (needs CAP_SYS_NICE)")
    parser.add_argument("--out", type=Path, default=BENCH / "engine.json")
    chosen = parser.parse_args(arguments)
    if chosen.repeat < 1 or (chosen.n is not None and chosen.n < 1):
        parser.error("--n and --repeat are at least 1")
    if chosen.link:
        parse_profile(chosen.link)
    return chosen


def selected(only: str) -> list[str]:
    """Workloads by name or by name and variant: `W4` stands for `W4/32` and `W4/64`."""
    out: list[str] = []
    for wanted in only.split(","):
        found = [name for name in WORKLOADS if wanted in (name, name.partition("/")[0])]
        out += found or [lookup(wanted).name]
    return list(dict.fromkeys(out))


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers are stopped
    try:
        chosen = options()
        measure(
            selected(chosen.only),
            [chosen.security] if chosen.security else list(SECURITIES),
            [chosen.backend] if chosen.backend else list(backends()),
            count=chosen.n, repeat=chosen.repeat, link=chosen.link, out=chosen.out, realtime=chosen.realtime,
        )  # fmt: skip
    except (ClusterError, ComityError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
