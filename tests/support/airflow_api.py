"""A small client of Airflow's REST API for tests."""

from __future__ import annotations

import time
from typing import Any

import httpx

from infra.airflow.stack import Stack

FINAL = {"success", "failed"}


class Api:
    """Calls the REST API of one stack as its user."""

    def __init__(self, stack: Stack) -> None:
        self.client = httpx.Client(base_url=stack.url, trust_env=False, timeout=30)
        token = self.client.post("/auth/token", json={"username": "comity", "password": stack.password()})
        token.raise_for_status()
        self.client.headers["Authorization"] = f"Bearer {token.json()['access_token']}"

    def get(self, path: str, **params: Any) -> dict:
        answer = self.client.get(f"/api/v2/{path}", params=params)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: dict, expect: int = 200) -> dict:
        answer = self.client.post(f"/api/v2/{path}", json=body)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def runs(self, dag_id: str) -> list[dict]:
        return self.get(f"dags/{dag_id}/dagRuns", limit=100)["dag_runs"]

    def run_of(self, dag_id: str, period: str, run_type: str = "scheduled") -> dict | None:
        runs = [run for run in self.runs(dag_id) if run["partition_key"] == period and run["run_type"] == run_type]
        return runs[0] if runs else None

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict]:
        found = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=100)["task_instances"]
        return {
            task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]": task
            for task in found
        }

    def wait_run(self, dag_id: str, period: str, *, timeout_s: float = 120, run_type: str = "scheduled") -> dict:
        """Return the run of a period when it has ended."""
        return wait_for(
            lambda: (run := self.run_of(dag_id, period, run_type)) and run["state"] in FINAL and run,
            f"{dag_id} {period}",
            timeout_s,
        )

    def wait_task(self, dag_id: str, period: str, task_id: str, state: str, *, timeout_s: float = 120) -> dict:
        """Return a task instance of a period's run when it is in a state."""

        def look():
            run = self.run_of(dag_id, period)
            task = run and self.tasks(dag_id, run["dag_run_id"]).get(task_id)
            return task if task and task["state"] == state else None

        return wait_for(look, f"{task_id} of {period} to be {state}", timeout_s)


def wait_for(look, what: str, timeout_s: float = 60):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.3)
    raise AssertionError(f"waited {timeout_s} s for {what}")
