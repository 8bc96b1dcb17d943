"""Waiting without a worker: a trigger that asks a poll function until it answers, and one that only pauses.

Everything they need is in their JSON arguments, deadlines are moments and not durations, and they keep no state: a
triggerer that is killed is replaced by another one that goes on.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from local_stores.airflow_provider.steps import Json, run_poll
from mpc_ops.errors import ComityError

__all__ = ["PauseTrigger", "PollTrigger"]

_GROWTH = 1.5


class PollTrigger(BaseTrigger):
    """Asks a function of `steps.POLLS` in a thread, with growing pauses.

    Args:
        poll: name in `steps.POLLS`.
        arguments: the function's arguments, JSON.
        releases_dir: releases of the DAG run's bundle version, or None.
        first_s: first pause, in seconds; each next one is half as long again.
        max_s: longest pause, in seconds.
        deadline: ISO 8601 moment with zone after which it gives up.

    Its one event is `{"result": ...}`, `{"error": {...}}` after a terminal error, or `{"expired": deadline}`.
    Transient errors are logged by code and asked again.
    """

    def __init__(
        self,
        *,
        poll: str,
        arguments: Mapping[str, Json],
        releases_dir: str | None,
        first_s: float,
        max_s: float,
        deadline: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.poll = poll
        self.arguments = dict(arguments)
        self.releases_dir = releases_dir
        self.first_s = first_s
        self.max_s = max_s
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that rebuild this trigger in any triggerer."""
        return (
            "local_stores.airflow_provider.triggers.PollTrigger",
            {
                "poll": self.poll,
                "arguments": self.arguments,
                "releases_dir": self.releases_dir,
                "first_s": self.first_s,
                "max_s": self.max_s,
                "deadline": self.deadline,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask until there is an answer, a terminal error, or the deadline."""
        deadline = dt.datetime.fromisoformat(self.deadline)
        pause_s = self.first_s
        while True:
            payload = await asyncio.to_thread(self._ask)
            if payload is None and dt.datetime.now(dt.UTC) >= deadline:
                payload = {"expired": self.deadline}
            if payload is not None:
                yield TriggerEvent(payload)  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * _GROWTH, self.max_s)

    def _ask(self) -> dict[str, Json] | None:
        try:
            result = run_poll(self.poll, self.arguments, releases_dir=self.releases_dir)
        except ComityError as error:
            if error.transient:
                self.log.warning("%s, asking again: %s", self.poll, error)
                return None
            return {"error": {**error.as_dict(), "message": str(error)}}
        return None if result is None else {"result": result}


class PauseTrigger(BaseTrigger):
    """Lets a step that answered `NotYet` be run again after a pause.

    Args:
        pause_s: how long, in seconds.
        max_s: longest pause, in seconds.
        deadline: ISO 8601 moment with zone after which the step is not run again.

    Its one event is `{"pause_s": <the next pause>, "deadline": ...}`: the state travels in it, because a task that is
    resumed starts from nothing.
    """

    def __init__(self, *, pause_s: float, max_s: float, deadline: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pause_s = pause_s
        self.max_s = max_s
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that rebuild this trigger in any triggerer."""
        return (
            "local_stores.airflow_provider.triggers.PauseTrigger",
            {"pause_s": self.pause_s, "max_s": self.max_s, "deadline": self.deadline},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Pause once."""
        await asyncio.sleep(self.pause_s)
        pause_s = min(self.pause_s * _GROWTH, self.max_s)
        yield TriggerEvent({"pause_s": pause_s, "deadline": self.deadline})  # type: ignore[no-untyped-call]
