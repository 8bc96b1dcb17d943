"""Print the table of docs/performance.md from `engine.json`: what was reached, as ratios to MP-SPDZ's figures, and the targets.

```
python tests/benchmarks/engine_peers/table.py [var/bench/engine.json] [--backend compiled]
```
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.engine_bench.run import BENCH
from tests.benchmarks.engine_peers.figures import MP_SPDZ, Figure

HEAD = (
    "| workload | security | seconds | ratio (target) | MB per party | ratio (target) | rounds | peak MB |",
    "|---|---|---|---|---|---|---|---|",
)


def rows(lines: list[dict[str, Any]], backend: str) -> list[str]:
    """One row per workload and kind of security that was measured at MP-SPDZ's size."""
    found = {
        (line["workload"], line["key_bits"], line["security"]): line for line in lines if line["backend"] == backend
    }
    out = []
    for name, (size, passive, active, target) in MP_SPDZ.items():
        workload, _, bits = name.partition("/")
        for security, figure, limits in (("passive", passive, target.passive), ("active", active, target.active)):
            line = found.get((workload, int(bits or 64), security))
            if line is not None and line["n"] == size and "link" not in line:
                out.append(row(name, line, figure, limits))
    return out


def row(name: str, line: dict[str, Any], figure: Figure | None, limits: tuple[float, float]) -> str:
    megabytes = line["bytes_per_party"] / 1e6
    time = size = "–"
    if figure is not None:
        time = f"{line['seconds'] / figure.seconds:.2f} (≤ {limits[0]})"
        size = f"{megabytes / figure.megabytes:.2f} (≤ {limits[1]})"
    bits = "" if "/" not in name else f", {line['key_bits']}-bit"
    return (
        f"| {line['workload']}{bits} | {line['security']} | {line['seconds']:.3f} | {time} | {megabytes:.2f} | {size} "
        f"| {line['rounds']} | {line['peak_mb']:.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?", type=Path, default=BENCH / "engine.json")
    parser.add_argument("--backend", default="compiled")
    chosen = parser.parse_args()
    lines = json.loads(chosen.file.read_text(encoding="utf-8"))
    print("\n".join((*HEAD, *rows(lines, chosen.backend))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
