"""Where attempts compute: each in a thread of its own, so that the event loop answers peers and the recipient meanwhile.

```
event loop   Sessions ── submit(work) ──→ queue ──→ one thread per attempt: start, receive, repeat, in order
             Sessions ←── take(Computed) ── call_soon_threadsafe ──┘            results come back in the same order
```
Only the thread touches the attempt; only the loop touches the journal. A result is an event of its own: a unit of work that
looks at the stored state again, since the session may have moved on while the thread computed. `stop` ends an attempt:
what is queued is skipped, what is being computed comes back and is ignored, then keys and shares are forgotten.

What waits for threads is bounded per peer: `room` holds the link's reader back, which is the link's back-pressure.
Without a loop (tests, tools) `Inline` computes at once in the caller's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol, TypeAlias

from mpc_ops.engine import Attempt, AttemptDone, Dispute, LinkTotals, Outgoing
from mpc_ops.errors import ComityError

__all__ = ["MAX_QUEUED_BYTES", "Computed", "Computing", "Inline", "Threads", "Worker"]

MAX_QUEUED_BYTES = 64 << 20
"""Bytes of one peer's frames that may wait for threads before its link is read no further."""

Work: TypeAlias = Callable[[], Outgoing]


@dataclass(frozen=True, slots=True)
class Computed:
    """What came of one piece of work.

    Attributes:
        outgoing: what to send.
        error: why the attempt is over, if it is.
        done: set once the attempt's checks are all good.
        progress: see `Attempt.progress`.
        totals: frames of both links so far.
        dispute: what can be stated about a failed proof, once.
    """

    outgoing: Outgoing
    error: ComityError | None
    done: AttemptDone | None
    progress: int
    totals: tuple[LinkTotals, LinkTotals]
    dispute: Dispute | None = None


class Worker(Protocol):
    """Computes for one attempt."""

    @property
    def busy(self) -> bool:
        """Whether something waits or is being computed."""

    def submit(self, work: Work, *, peer: str = "", size: int = 0) -> None:
        """Compute; the result goes to `take`. `size` bytes of `peer` are held until then."""

    def stop(self) -> None:
        """End: nothing more is taken; the attempt is closed when it is at rest."""

    def settle(self) -> None:
        """End as `stop` does, but only behind what is queued: `take` is given the attempt's dispute, if there is one."""


class Computing(Protocol):
    """Makes workers."""

    def worker(self, attempt: Attempt, take: Callable[[Computed], None]) -> Worker:
        """Return a worker for an attempt; `take` is called inside a unit of work, in the order of `submit`."""


def _compute(attempt: Attempt, work: Work) -> Computed:
    try:
        outgoing, error = work(), None
    except ComityError as raised:
        outgoing, error = [], raised
    return Computed(outgoing, error, attempt.done, attempt.progress, attempt.totals(), attempt.dispute())


class _InlineWorker:
    """Computes at once."""

    busy = False

    def __init__(self, attempt: Attempt, take: Callable[[Computed], None]) -> None:
        self._attempt, self._take = attempt, take

    def submit(self, work: Work, *, peer: str = "", size: int = 0) -> None:
        del peer, size
        self._take(_compute(self._attempt, work))

    def stop(self) -> None:
        self._attempt.close()

    def settle(self) -> None:
        self.submit(self._attempt.settle)
        self.stop()


class Inline:
    """Computing in the caller's thread, inside the caller's unit of work."""

    def worker(self, attempt: Attempt, take: Callable[[Computed], None]) -> Worker:
        """See `Computing.worker`."""
        return _InlineWorker(attempt, take)


class _ThreadWorker:
    """One thread for one attempt."""

    def __init__(self, owner: Threads, attempt: Attempt, take: Callable[[Computed], None]) -> None:
        self._owner, self._attempt, self._take = owner, attempt, take
        self._queue: SimpleQueue[tuple[Work, str, int] | None] = SimpleQueue()
        self._open = 0
        self._stopped, self._ended = threading.Event(), threading.Event()
        context = attempt.context
        name = f"attempt-{context.run_id[:8]}-{context.cluster}-{context.attempt}"
        # A daemon: at the end of the process nobody waits for a computation whose result would be ignored.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def busy(self) -> bool:
        return self._open > 0

    def submit(self, work: Work, *, peer: str = "", size: int = 0) -> None:
        if self._stopped.is_set():
            return
        self._open += 1
        self._owner.hold(peer, size)
        self._queue.put((work, peer, size))

    def stop(self) -> None:
        if not self._stopped.is_set():
            self._stopped.set()
            self._queue.put(None)

    def settle(self) -> None:
        if not self._stopped.is_set():
            self.submit(self._attempt.settle)
            self._queue.put(None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, peer, size = item
            computed: Computed | BaseException | None = None
            try:
                if not self._stopped.is_set():
                    computed = _compute(self._attempt, work)
            except Exception as bug:  # noqa: BLE001 - handed to the loop, which ends the process with it
                computed = bug
            self._owner.post(self._back, computed, peer, size)
        self._attempt.close()
        self._ended.set()

    def _back(self, computed: Computed | BaseException | None, peer: str, size: int) -> None:
        """In the loop: let the peer send more, and take the result."""
        self._open -= 1
        self._owner.release(peer, size)
        if self._stopped.is_set() or computed is None:
            return
        if isinstance(computed, BaseException):
            raise computed
        self._owner.event(lambda: self._take(computed))


class Threads:
    """Computing in threads, beside an event loop. Create it inside the loop.

    Args:
        event: runs a piece of work as one event of the operator (a unit of its own).
    """

    def __init__(self, event: Callable[[Callable[[], object]], None]) -> None:
        self.event = event
        self._loop = asyncio.get_running_loop()
        self._held: Counter[str] = Counter()
        self._moved = asyncio.Event()
        self._bug: asyncio.Future[None] = self._loop.create_future()
        self._workers: list[_ThreadWorker] = []
        self._closed = False

    def worker(self, attempt: Attempt, take: Callable[[Computed], None]) -> Worker:
        """See `Computing.worker`."""
        gone = [worker for worker in self._workers if worker._stopped.is_set() or worker._ended.is_set()]  # noqa: SLF001
        self._workers = [worker for worker in self._workers if worker not in gone]
        self._workers.append(_ThreadWorker(self, attempt, take))
        return self._workers[-1]

    def hold(self, peer: str, size: int) -> None:
        """Count what waits of a peer."""
        self._held[peer] += size

    def release(self, peer: str, size: int) -> None:
        """Count what waits no longer."""
        self._held[peer] -= size
        self._moved.set()

    async def room(self, peer: str) -> None:
        """Return when little enough of a peer waits; its link is read no further meanwhile."""
        while self._held[peer] > MAX_QUEUED_BYTES and not self._closed:
            self._moved.clear()
            await self._moved.wait()

    def post(self, back: Callable[..., None], *arguments: object) -> None:
        """Called by threads: run `back` in the loop, after everything that was posted before."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._guarded, back, arguments)

    def _guarded(self, back: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if self._closed:
            return
        try:
            back(*arguments)
        except Exception as bug:  # noqa: BLE001 - ends the process through `watch`
            if not self._bug.done():
                self._bug.set_exception(bug)

    async def watch(self) -> None:
        """Raise the bug of a thread, or of what took its result: the process ends, the journal is the truth."""
        await self._bug

    def close(self) -> None:
        """End all workers without waiting; results that still come are ignored."""
        self._closed = True
        self._moved.set()
        self._bug.cancel()
        for worker in self._workers:
            worker.stop()
