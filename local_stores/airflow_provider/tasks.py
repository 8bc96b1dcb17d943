"""The two kinds of task: one that runs a step, one that waits for an answer.

Arguments are JSON: constants of the DAG, results of earlier tasks and the period. Results are references and
commitments, so that Airflow's database holds nothing that a store holds.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from local_stores.airflow_provider.errors import airflow_errors
from local_stores.airflow_provider.settings import ProviderSettings
from local_stores.airflow_provider.steps import Json, run_poll, run_step
from local_stores.airflow_provider.triggers import PauseTrigger, PollTrigger
from mpc_ops.errors import NotYet, StateError

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

__all__ = ["PERIOD", "PollTask", "StepTask"]

PERIOD = "{{ dag_run.partition_key or params.period or '' }}"
"""The period of a run: its partition key, or the parameter where a run has none (`dag.test()`, the form)."""


def _deadline(settings: ProviderSettings) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(days=settings.wait_days)).isoformat(timespec="seconds")


def _expired(step: str, deadline: str, wait: NotYet | None = None) -> StateError:
    return StateError(
        "WAIT_EXPIRED",
        "nothing came in the time that a task waits" + (f" ({wait.code}: {wait.what})" if wait else ""),
        ids={"step": step, "until": deadline},
        hint="Clear the task when what it waits for is there; [comity] wait_days says how long it waits",
    )


class StepTask(BaseOperator):
    """Runs one step.

    Args:
        step: name in `steps.STEPS`.
        arguments: the step's arguments; may hold results of other tasks.
        parcel: further arguments, one mapping for each mapped task.
        releases_dir: releases of the DAG run's bundle version, or None.
        closed_is_skip: end as skipped where the period is closed.
        kwargs: Airflow's own.
    """

    template_fields = ("arguments", "parcel")
    ui_color = "#e8eef7"

    def __init__(
        self,
        *,
        step: str,
        arguments: Mapping[str, Any],
        parcel: Mapping[str, Any] | None = None,
        releases_dir: str | None = None,
        closed_is_skip: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.arguments = arguments
        self.parcel = parcel
        self.releases_dir = releases_dir
        self.closed_is_skip = closed_is_skip

    def execute(self, context: Context) -> Json:
        """Run the step and return its reference; pause, deferred, where somebody else has to act first."""
        settings = ProviderSettings.from_airflow()
        return self._run(context, settings.poll_first_s, _deadline(settings))

    def again(self, context: Context, event: Mapping[str, Json]) -> Json:
        """Run the step after a pause."""
        return self._run(context, float(event["pause_s"]), str(event["deadline"]))

    def _run(self, context: Context, pause_s: float, deadline: str) -> Json:
        arguments = {**self.arguments, **(self.parcel or {})}
        try:
            with airflow_errors(closed_is_skip=self.closed_is_skip):
                result = run_step(self.step, arguments, releases_dir=self.releases_dir)
        except NotYet as wait:
            if dt.datetime.now(dt.UTC) >= dt.datetime.fromisoformat(deadline):
                raise AirflowFailException(str(_expired(self.step, deadline, wait))) from wait
            self.log.info("looking again in %.0f s: %s", pause_s, wait)
            max_s = ProviderSettings.from_airflow().poll_max_s
            trigger = PauseTrigger(pause_s=pause_s, max_s=max_s, deadline=deadline)
            return self.defer(trigger=trigger, method_name="again")
        self._emit(context)
        return result

    def _emit(self, context: Context) -> None:
        # Runs with a partition key emit it by themselves; `dag.test()` and the form only have the parameter.
        asset: Asset
        for asset in self.outlets:
            if not context["dag_run"].partition_key:
                context["outlet_events"][asset].add_partitions(str(self.arguments["period"]))


class PollTask(BaseOperator):
    """Waits, deferred, until a poll function answers, and returns the answer.

    Args:
        poll: name in `steps.POLLS`.
        arguments: the function's arguments; may hold results of other tasks.
        releases_dir: releases of the DAG run's bundle version, or None.
        kwargs: Airflow's own.
    """

    template_fields = ("arguments",)
    ui_color = "#f3ecdf"

    def __init__(
        self, *, poll: str, arguments: Mapping[str, Any], releases_dir: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.poll = poll
        self.arguments = arguments
        self.releases_dir = releases_dir

    def execute(self, context: Context) -> Json:  # noqa: ARG002  Airflow's interface
        """Ask once; defer to the trigger where there is no answer yet."""
        with airflow_errors():
            try:
                answer = run_poll(self.poll, self.arguments, releases_dir=self.releases_dir)
            except NotYet:
                answer = None
        if answer is not None:
            return answer
        settings = ProviderSettings.from_airflow()
        trigger = PollTrigger(
            poll=self.poll,
            arguments=self.arguments,
            releases_dir=self.releases_dir,
            first_s=settings.poll_first_s,
            max_s=settings.poll_max_s,
            deadline=_deadline(settings),
        )
        return self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Context, event: Mapping[str, Json]) -> Json:  # noqa: ARG002  Airflow's interface
        """Return the trigger's answer, or fail with what it was told."""
        if "error" in event:
            raise AirflowFailException(event["error"]["message"])
        if "expired" in event:
            raise AirflowFailException(str(_expired(self.poll, str(event["expired"]))))
        return event["result"]
