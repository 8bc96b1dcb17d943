"""What a site's Airflow tells over its REST API, as its own user: DAGs, runs and the tasks that ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx

from infra.airflow.home import USER
from infra.airflow.stack import Stack

__all__ = ["ENDED", "Rest", "TaskWatch"]

ENDED = frozenset({"success", "failed", "skipped", "upstream_failed"})
_PAGE = 100
_TIMEOUT_S = 60.0
_OVERLAP = timedelta(seconds=60)


class Rest:
    """Reads the REST API of one stack; logs in when it has to."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        # Loopback is never asked of a configured proxy.
        self._client = httpx.Client(base_url=stack.url, trust_env=False, timeout=_TIMEOUT_S)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Return the JSON answer of `/api/v2/<path>`.

        Raises:
            httpx.HTTPError: no answer, or a refusal.
        """
        answer = self._client.get(f"/api/v2/{path}", params=params)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._log_in()
            answer = self._client.get(f"/api/v2/{path}", params=params)
        answer.raise_for_status()
        return dict(answer.json())

    def all(self, path: str, member: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield every row of a paged list."""
        offset = 0
        while True:
            answer = self.get(path, limit=_PAGE, offset=offset, **params)
            yield from answer[member]
            offset += _PAGE
            if offset >= int(answer["total_entries"]):
                return

    def dag_ids(self) -> set[str]:
        """Return the ids of the site's DAGs."""
        return {str(dag["dag_id"]) for dag in self.all("dags", "dags")}

    def import_errors(self) -> list[str]:
        """Return the last line of every error that a DAG file met."""
        errors = self.all("importErrors", "import_errors")
        return [str(error["stack_trace"]).strip().splitlines()[-1] for error in errors]

    def runs(self) -> list[dict[str, Any]]:
        """Return all DAG runs."""
        return list(self.all("dags/~/dagRuns", "dag_runs", order_by="id"))

    def _log_in(self) -> None:
        token = self._client.post("/auth/token", json={"username": USER, "password": self._stack.password()})
        token.raise_for_status()
        self._client.headers["Authorization"] = f"Bearer {token.json()['access_token']}"


class TaskWatch:
    """Follows one site: which runs there are, and each task once when it has ended.

    Attributes:
        states: state of each (DAG id, period); a second run of a period counts by the newer one.
    """

    def __init__(self, site: str, rest: Rest) -> None:
        self.site, self.rest = site, rest
        self.states: dict[tuple[str, str], str] = {}
        self._periods: dict[str, str] = {}
        self._told: set[tuple[str, int]] = set()
        self._since: datetime | None = None

    def look(self) -> list[dict[str, Any]]:
        """Return an event for each task that has ended since the last call, in order; the form is that of `dag.test()`."""
        for run in self.rest.runs():
            period = str(run["partition_key"] or run["conf"].get("period", ""))
            self._periods[run["dag_run_id"]] = period
            self.states[run["dag_id"], period] = str(run["state"])
        since = {} if self._since is None else {"end_date_gte": (self._since - _OVERLAP).isoformat()}
        tasks = self.rest.all(
            "dags/~/dagRuns/~/taskInstances", "task_instances", state=sorted(ENDED), order_by="id", **since
        )
        fresh = [task for task in tasks if (task["id"], task["try_number"]) not in self._told and task["end_date"]]
        events = []
        for task in sorted(fresh, key=lambda task: str(task["end_date"])):
            self._told.add((task["id"], task["try_number"]))
            events.append(self._event(task))
        return events

    def _event(self, task: dict[str, Any]) -> dict[str, Any]:
        ended = datetime.fromisoformat(task["end_date"])
        began = datetime.fromisoformat(task["start_date"] or task["end_date"])
        self._since = ended if self._since is None else max(self._since, ended)
        return {
            "site": self.site,
            "dag_id": task["dag_id"],
            "task_id": task["task_id"],
            "map_index": task["map_index"],
            "period": self._periods.get(task["dag_run_id"], ""),
            "state": task["state"],
            "seconds": (ended - began).total_seconds(),
            "at": ended.timestamp(),
        }
