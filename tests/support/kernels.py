"""Compiled kernels beside numpy: the same work on both, and sessions whose parties use different ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import pytest

from mpc_ops.kernels import calls, using
from tests.support import active

T = TypeVar("T")

needs_compiled = pytest.mark.skipif(not calls.PRESENT, reason="no compiled kernels: no C compiler when this was set up")

_Network = active.Network  # tests put another one in its place

WORD_EDGES = np.array([0, 1, (1 << 64) - 1, 1 << 63, (1 << 63) - 1, 0xAAAAAAAAAAAAAAAA, 1 << 32], dtype=np.uint64)


def levels() -> range:
    """Instruction sets that this processor has, the plainest first."""
    return range(calls.level() + 1) if calls.PRESENT else range(1)


@contextmanager
def at_level(level: int) -> Iterator[None]:
    """Let the compiled kernels use at most one instruction set."""
    calls.limit_level(level)
    try:
        yield
    finally:
        calls.limit_level(2)


def both(work: Callable[[], T], level: int) -> tuple[T, T]:
    """What numpy and what the compiled kernels make of the same work."""
    with using("numpy"):
        expected = work()
    with using("compiled"), at_level(level):
        return expected, work()


def words(generator: np.random.Generator, count: int, kind: str) -> np.ndarray:
    """Words of one kind: random, edges, zeros or ones."""
    if kind == "random":
        return generator.integers(0, 1 << 64, count, dtype=np.uint64)
    if kind == "edges":
        return generator.choice(WORD_EDGES, count)
    return np.full(count, (1 << 64) - 1 if kind == "ones" else 0, dtype=np.uint64)


def mixed_network(backends: tuple[str, str, str], sent: list[tuple[object, bytes]]) -> type[active.Network]:
    """A network whose parties work with the kernels named, by position; notes every message."""

    class Mixed(_Network):
        def _call(self, party, action):
            with using(backends[party]):
                super()._call(party, action)

        def _send(self, messages):
            sent.extend((message.address, bytes(message.body)) for message in messages)
            super()._send(messages)

    return Mixed
