"""A few long-lived threads for the blocks of one kernel; kernels release the interpreter's lock, so threads really run.

`COMITY_THREADS` says how many work at once, at most as many as there are processors; unset means 1, because three operators
of a test share one machine. An operator on its own machine sets it to its number of cores.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from mpc_ops.errors import ConfigError

__all__ = ["THREADS_VARIABLE", "pieces", "run", "threads", "using_threads"]

THREADS_VARIABLE = "COMITY_THREADS"
MOST_THREADS = 256
_lock = threading.Lock()
_count: int | None = None
_pool: ThreadPoolExecutor | None = None


def threads() -> int:
    """Return how many threads work at once; decided at the first call.

    Raises:
        ConfigError: THREADS_INVALID.
    """
    global _count  # noqa: PLW0603 - decided once in a process
    if _count is None:
        _count = _chosen()
    return _count


def _chosen() -> int:
    text = os.environ.get(THREADS_VARIABLE, "") or "1"
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_THREADS):
        raise ConfigError(
            "THREADS_INVALID", f"{THREADS_VARIABLE} is no number of threads", expected=f"1 to {MOST_THREADS}"
        )
    return min(int(text), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _exchange(count: int | None, pool: ThreadPoolExecutor | None) -> tuple[int | None, ThreadPoolExecutor | None]:
    global _count, _pool
    before = _count, _pool
    _count, _pool = count, pool
    return before


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Use another number of threads for a while, in the whole process: for tests and benchmarks."""
    before = _exchange(count, None)
    try:
        yield
    finally:
        _, made = _exchange(*before)
        if made is not None:
            made.shutdown()


def pieces(size: int, block: int, least: int) -> list[tuple[int, int]]:
    """Cut [0, size) at whole blocks into a piece per thread, of at least `least` each; one piece if it is not worth it."""
    count = max(1, min(threads(), size // max(least, block)))
    step = -(-size // (count * block)) * block
    return [(start, min(start + step, size)) for start in range(0, size, step)] if count > 1 else [(0, size)]


def run(tasks: list[Callable[[], None]]) -> None:
    """Run tasks and wait for all of them: the first one here, the others in the pool. Tasks start no tasks."""
    if len(tasks) == 1:
        tasks[0]()
        return
    waiting = [_executor().submit(task) for task in tasks[1:]]
    try:
        tasks[0]()
    finally:
        for future in waiting:
            future.result()


def _executor() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603 - one pool in a process
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, threads() - 1), thread_name_prefix="kernels")
        return _pool


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=lambda: _exchange(_count, None))
