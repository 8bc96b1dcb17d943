"""Blocks of a kernel in several threads: the same values, errors that are not lost, one pool."""

from __future__ import annotations

import os
import threading
from itertools import pairwise

import numpy as np
import pytest

from mpc_ops.errors import ConfigError
from mpc_ops.kernels import calls, pool
from mpc_ops.protocol.circuits.boolean import and_many
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.proofs import ring_claim as claims
from mpc_ops.protocol.proofs.and_kernels import PUBLIC_LAYOUT, Side, cross_gates, fold_gates
from mpc_ops.ring.field61 import FIELD_61, P61
from mpc_ops.ring.planes import from_planes, to_planes
from mpc_ops.ring.wide import Wide
from tests.support.active import run_active, share_bits, share_ring
from tests.support.kernels import both, needs_compiled, words


@pytest.fixture
def several(monkeypatch):
    """Three threads, even for short vectors."""
    monkeypatch.setattr(calls, "_LEAST", 64)
    with pool.using_threads(3):
        yield


@pytest.fixture
def undecided(monkeypatch):
    monkeypatch.setattr(pool, "_count", None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)


@pytest.mark.parametrize(("text", "count"), [("", 1), ("1", 1), ("3", 3), ("200", 4)])
def test_the_variable_says_how_many_up_to_the_processors(undecided, monkeypatch, text: str, count: int) -> None:
    monkeypatch.setenv("COMITY_THREADS", text)
    assert pool.threads() == count


@pytest.mark.parametrize("text", ["0", "-1", "two", "257", "1.5", "٣"])
def test_anything_else_is_refused(undecided, monkeypatch, text: str) -> None:
    monkeypatch.setenv("COMITY_THREADS", text)
    with pytest.raises(ConfigError, match="THREADS_INVALID"):
        pool.threads()


@pytest.mark.parametrize("size", [0, 1, 64, 127, 128, 640, 1000, 5000])
def test_pieces_cover_a_vector_at_whole_blocks(size: int) -> None:
    with pool.using_threads(3):
        parts = pool.pieces(size, 64, 100)
    assert parts[0][0] == 0
    assert parts[-1][1] == size
    assert all(one[1] == two[0] and two[0] % 64 == 0 for one, two in pairwise(parts))
    assert len(parts) <= 3
    with pool.using_threads(1):
        assert pool.pieces(size, 64, 1) == [(0, size)]


def test_tasks_run_in_long_lived_threads_and_their_errors_are_raised() -> None:
    def fail() -> None:
        raise ValueError("a task failed")

    names: list[set[str]] = []
    with pool.using_threads(3):
        for _ in range(2):
            meeting, seen = threading.Barrier(3, timeout=20), set()

            def task(meeting=meeting, seen=seen) -> None:
                seen.add(threading.current_thread().name)
                meeting.wait()

            pool.run([task, task, task])
            names.append(seen)
        with pytest.raises(ValueError, match="a task failed"):
            pool.run([lambda: None, fail, lambda: None])
    assert len(names[0]) == 3
    assert names[0] == names[1]


def test_a_forked_child_makes_threads_of_its_own() -> None:
    with pool.using_threads(2):
        pool.run([lambda: None, lambda: None])
        child = os.fork()
        if child == 0:
            done: list[int] = []
            pool.run([lambda: done.append(1), lambda: done.append(2)])
            os._exit(0 if sorted(done) == [1, 2] else 1)
        assert os.waitpid(child, 0)[1] == 0


@needs_compiled
@pytest.mark.parametrize("count", [1, 511, 1537, 5000])
def test_and_kernels_give_the_same(several, count: int) -> None:
    generator = np.random.default_rng(count)
    size = PUBLIC_LAYOUT.padded(count)
    left, right = (Side(*(words(generator, size, "random") for _ in range(3))) for _ in range(2))
    weights = generator.integers(0, P61, 64, dtype=np.uint64)
    expected, got = both(lambda: cross_gates(left, right, PUBLIC_LAYOUT), 2)
    assert got == expected
    expected, got = both(lambda: fold_gates(left, weights, PUBLIC_LAYOUT, FIELD_61, right=True), 2)
    assert np.array_equal(got, expected)
    u, v = (generator.integers(0, P61, count, dtype=np.uint64) for _ in range(2))
    for lanes in (8, 16):
        expected, got = both(lambda n=lanes: FIELD_61.cross_blocks(u, v, n, 8), 2)
        assert got == expected
        expected, got = both(lambda n=lanes: FIELD_61.combine_blocks(u, weights[:n], 8), 2)
        assert np.array_equal(got, expected)
    values = words(generator, count, "random")
    expected, got = both(lambda: to_planes(values, 37), 2)
    assert np.array_equal(got, expected)
    expected, got = both(lambda: from_planes(expected, count), 2)
    assert np.array_equal(got, expected)


@needs_compiled
@pytest.mark.parametrize("count", [1, 65, 1000, 4097])
def test_ring_kernels_give_the_same(several, count: int) -> None:
    generator = np.random.default_rng(count)
    ends = np.append(np.sort(generator.integers(0, count + 1, count)), count).astype(np.int64)
    own, following = (claims.GateView(*(words(generator, count, "random") for _ in range(2)), ends) for _ in range(2))
    left, right, c = (words(generator, len(ends), "random") for _ in range(3))
    expected, got = both(lambda: claims.carries(own, following, left, right, claims.RING_64), 0)
    assert np.array_equal(got, expected)
    u = claims.first_level(own.x, own.y, c, ends)
    v = claims.first_level(following.y, following.x, None, ends)
    later = [claims.next_level(Wide(*(words(generator, count, "ones") for _ in range(2))), 16) for _ in range(2)]
    for one, two in ((u, v), later):
        coefficients = Wide(*(words(generator, one.lanes, "random") for _ in range(2)))
        for work in (
            lambda a=one, b=two: claims.matrix(a, b),
            lambda a=one, w=coefficients: claims.fold_level(a, w),
            lambda b=two, w=coefficients: claims.fold_level(b, w),
        ):
            expected, got = both(work, 0)
            assert np.array_equal(expected.low, got.low)
            assert np.array_equal(expected.high, got.high)


@needs_compiled
def test_a_session_in_threads_sends_what_it_sends_in_one(monkeypatch) -> None:
    monkeypatch.setattr(calls, "_LEAST", 64)
    bits, ring = share_bits(range(5000), 13), share_ring(range(3000))

    def program(session):
        stage = session.stage("both")
        (product,) = yield from and_many(stage, "and", [(bits[stage.party], bits[stage.party])])
        squares = yield from multiply(stage, ring[stage.party], ring[stage.party])
        yield from stage.barrier()
        stage.close()
        return product.first.tolist(), squares.first.tolist()

    runs = []
    for count in (1, 3):
        with pool.using_threads(count):
            sent: list[bytes] = []
            out = run_active(
                program, mutate=lambda message, sent=sent: (sent.append(bytes(message.body)), [message])[1]
            )
            assert not out.errors
            runs.append((out.results, sent))
    assert runs[0] == runs[1]
