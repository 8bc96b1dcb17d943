"""The peers' environment says in one sentence why a peer is missing; figures and targets fit the workloads."""

import stat
import sys
from pathlib import Path

import pytest

from tests.benchmarks.engine_bench.cluster import Run
from tests.benchmarks.engine_bench.run import record
from tests.benchmarks.engine_bench.workloads import WORKLOADS
from tests.benchmarks.engine_peers.environment import MPYC, SPU, PeersMissing, prepare
from tests.benchmarks.engine_peers.figures import MP_SPDZ
from tests.benchmarks.engine_peers.figures import SPU as SPU_TARGETS
from tests.benchmarks.engine_peers.peers import Mpyc, Spu
from tests.benchmarks.engine_peers.table import rows

FAKE = """#!{python}
import sys
if "-c" in sys.argv:
    name = "spu" if "'spu'" in sys.argv[2] else "mpyc"
    print({present!r}.get(name, ""))
    sys.exit(0 if name in {present!r} else 1)
for requirement, said in {says!r}.items():
    if requirement in sys.argv:
        sys.stderr.write(said + "\\n")
        sys.exit(1)
"""


def fake(folder: Path, present: dict[str, str], says: dict[str, str]) -> Path:
    """An environment whose Python answers as told."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(FAKE.format(python=sys.executable, present=present, says=says))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return folder


def test_nothing_is_installed_twice(tmp_path):
    folder = fake(tmp_path, {"spu": "0.9.5", "mpyc": "0.11"}, {SPU: "asked for", MPYC: "asked for"})
    assert prepare(folder) == (folder / "bin" / "python", {})


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("ERROR: No matching distribution found for spu==0.9.5",
         "the package index has no build of it for this platform and version of Python"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError(...)'\nERROR: No matching distribution found",
         "the package index cannot be reached"),
        ("ERROR: disk quota exceeded", "it cannot be installed: ERROR: disk quota exceeded"),
    ],
)  # fmt: skip
def test_a_missing_peer_is_said_and_the_other_is_used(tmp_path, capsys, said, why):
    folder = fake(tmp_path, {"mpyc": "0.11"}, {SPU: said})
    assert prepare(folder)[1] == {SPU: why}
    assert why in capsys.readouterr().err


def test_without_any_peer_the_reason_is_given(tmp_path):
    folder = fake(tmp_path, {}, {SPU: "NewConnectionError", MPYC: "NewConnectionError"})
    with pytest.raises(
        PeersMissing, match=r"spu==0\.9\.5: the package index cannot be reached; mpyc==0\.11: the package"
    ):
        prepare(folder)


def test_an_older_version_is_replaced(tmp_path):
    folder = fake(tmp_path, {"spu": "0.9.4", "mpyc": "0.11"}, {SPU: "No matching distribution"})
    assert SPU in prepare(folder)[1]


def test_every_workload_has_figures_at_its_own_size_and_peers_know_no_other():
    assert set(MP_SPDZ) == set(WORKLOADS)
    assert {name: WORKLOADS[name].rows for name in WORKLOADS} == {name: rows for name, (rows, *_) in MP_SPDZ.items()}
    assert set(SPU_TARGETS) | set(Spu.rows) | set(Mpyc.rows) <= set(WORKLOADS)


def test_a_line_is_the_median_of_the_repeats_and_the_peak_of_the_first():
    first = Run(9.0, 9.0, 100, 90, 3, 50.0, 40.0, 2.0)
    runs = [Run(seconds, 1.0, 100, 90, 3, 70.0, 60.0, 2.0) for seconds in (5.0, 1.0, 3.0)]
    assert first.times_shares == 5.0
    line = record("W4/32", 10, "active", "numpy", first=first, runs=runs, link=None)
    assert line == {
        "workload": "W4", "n": 10, "key_bits": 32, "security": "active", "backend": "numpy", "seconds": 3.0,
        "bytes_per_party": 100, "rounds": 3, "peak_mb": 50.0,
    }  # fmt: skip


def test_the_table_has_ratios_where_there_is_a_figure_of_that_size():
    line = {"workload": "W4", "key_bits": 32, "n": 100_000, "backend": "compiled", "rounds": 7, "peak_mb": 99.6,
            "seconds": 0.459, "bytes_per_party": 33_500_000, "security": "passive"}  # fmt: skip
    lines = [
        line,
        {**line, "security": "active", "seconds": 2.5},
        {**line, "key_bits": 64, "security": "active"},
        {**line, "workload": "W1", "key_bits": 64},
        {**line, "backend": "numpy"},
        {**line, "link": "80ms:300mbit"},
    ]
    assert rows(lines[:1] + lines[1:5], "compiled") == [
        "| W4, 32-bit | passive | 0.459 | 0.10 (≤ 0.2) | 33.50 | 0.10 (≤ 0.25) | 7 | 100 |",
        "| W4, 32-bit | active | 2.500 | 0.10 (≤ 0.1) | 33.50 | 0.03 (≤ 0.1) | 7 | 100 |",
        "| W4, 64-bit | active | 0.459 | – | 33.50 | – | 7 | 100 |",
    ]
    assert rows(lines[5:], "compiled") == []
