"""The benchmark harness at small sizes: results are right, bytes and rounds are exactly those of the protocols' formulas."""

import json
import subprocess
import sys
from math import ceil

import pytest

from mpc_ops.protocol.circuits.counts import popcount_cost
from mpc_ops.protocol.proofs.proof_and import proof_bytes, proof_rounds
from mpc_ops.ring.planes import words_for
from mpc_ops.transport.datalink import Label, message_bytes
from tests.benchmarks.engine_bench.cluster import Cluster, ClusterError
from tests.benchmarks.engine_bench.run import ROOT, options, selected
from tests.benchmarks.engine_bench.workloads import WORKLOADS

pytestmark = pytest.mark.e2e
SID = "0" * 64
N = 1000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("bench")) as cluster:
        yield cluster


def line(*messages: tuple[str, str, int]) -> int:
    """Bytes on the line of messages (stage, step, length)."""
    return sum(message_bytes(Label(SID, stage, step), length) for stage, step, length in messages)


def count_cost(n):
    return popcount_cost(1, 64 * words_for(n))


def test_w1_passive_sends_one_element_a_pair(cluster):
    run = cluster.run("W1", N, "passive")
    assert (run.payload_bytes, run.rounds) == (8 * N + 8, 2)
    assert run.bytes_per_party == line(("bench/0", "1/0/ring-products", 8 * N), ("bench/0", "2/0/open", 8))


@pytest.mark.parametrize(("name", "ands", "depth"), [("W2", 241, 8), ("W3", 188, 8)])
def test_comparisons_passive(cluster, name, ands, depth):
    run, counting = cluster.run(name, N, "passive"), count_cost(N)
    width = (64 * words_for(N)).bit_length()
    assert run.payload_bytes == 8 * (ands * words_for(N) + counting.words) + 8 * width
    assert run.rounds == depth + counting.depth + 1


@pytest.mark.parametrize(("name", "ands", "depth"), [("W2", 241, 8), ("W3", 188, 8)])
def test_comparisons_active_add_one_proof_the_barrier_and_digests(cluster, name, ands, depth):
    run, counting = cluster.run(name, N, "active"), count_cost(N)
    words = ands * words_for(N) + counting.words
    padded = 512 * ceil(words / 512)
    width = (64 * words_for(N)).bit_length()
    assert run.payload_bytes == 8 * words + 8 * width + 32 + proof_bytes(padded) + 2 * 64
    assert run.rounds == depth + counting.depth + proof_rounds(padded) + 1 + 1


def test_w7_sends_one_element_a_value_once(cluster):
    largest = ceil(N / 3)
    run = cluster.run("W7", N, "passive")
    assert (run.payload_bytes, run.rounds) == (8 * largest + 8, 2)
    run = cluster.run("W7", N, "active")
    assert (run.payload_bytes, run.rounds) == (8 * largest + 8 + 32 + 2 * 64, 4)


@pytest.mark.parametrize("security", ["passive", "active"])
@pytest.mark.parametrize("name", sorted(WORKLOADS))
@pytest.mark.parametrize("count", [1, 65])
def test_every_workload_is_right_at_ragged_sizes(cluster, name, security, count):
    assert cluster.run(name, count, security).rounds >= 1


def test_a_wrong_result_is_noticed(cluster):
    cluster._answers[("W1", 3)] = "0" * 64
    with pytest.raises(ClusterError, match="opened something else"):
        cluster.run("W1", 3, "passive")


def test_a_worker_that_ends_is_noticed_and_nothing_is_left(tmp_path):
    with Cluster(tmp_path) as cluster:
        workers = list(cluster._workers)
        workers[1].kill()
        workers[1].wait()
        with pytest.raises(ClusterError, match="bench-2 has ended"):
            cluster.run("W1", 3, "passive")
    assert all(worker.poll() is not None for worker in workers)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_one_line_per_workload_and_kind(tmp_path):
    out = tmp_path / "engine.json"
    done = subprocess.run(
        [sys.executable, ROOT / "tests/benchmarks/engine_bench/run.py", "--only", "W1", "--n", "64", "--repeat", "1",
         "--backend", "numpy", "--link", "2ms:1gbit", "--out", out],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())
    assert [(one["workload"], one["security"], one["backend"], one["n"], one["link"]) for one in lines] == [
        ("W1", "passive", "numpy", 64, "2ms:1gbit"),
        ("W1", "active", "numpy", 64, "2ms:1gbit"),
    ]
    assert set(lines[0]) == {
        "workload", "n", "key_bits", "security", "backend", "seconds", "bytes_per_party", "rounds", "peak_mb", "link"
    }  # fmt: skip
    # Two rounds of half a round trip each: never less.
    assert lines[0]["seconds"] >= 0.002


@pytest.mark.parametrize("arguments", [["--only", "W9"], ["--n", "0"], ["--repeat", "0"], ["--security", "none"]])
def test_wrong_options_are_refused(arguments):
    with pytest.raises(SystemExit):
        selected(options(arguments).only)
