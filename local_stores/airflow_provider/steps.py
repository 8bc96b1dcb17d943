"""The closed list of plain functions that tasks and triggers may call, and how they are called.

A DAG names a step, never a Python path: what a serialised DAG, a trigger row or a REST call can start is this table.
Modules are imported when a step runs, so that reading a DAG file loads neither DuckDB nor paramiko nor GX.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from local_stores.config import load_site
from mpc_ops.errors import ComityError, ConfigError, LocalProtocolError, UsageError

if TYPE_CHECKING:
    from local_stores.config import Site

__all__ = ["POLLS", "STEPS", "Json", "current_site", "run_poll", "run_step"]

Json = Any
"""A value of JSON: what travels through XCom, trigger rows and this module's seams."""

LIMIT_RESULT_BYTES = 64 * 1024
_PERIOD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class _Function:
    """One allowed function: where it lives and whether it talks to operators over SFTP."""

    module: str
    name: str
    sftp: bool = False

    def call(self, site: Site, arguments: Mapping[str, Json]) -> Json:
        function = getattr(importlib.import_module(self.module), self.name)
        if self.sftp:
            from local_stores.airflow_provider.hooks import open_inbox  # noqa: PLC0415  paramiko, only where used

            return function(site, **arguments, open_sftp=functools.partial(open_inbox, arguments["owner"]))
        return function(site, **arguments)


def _filing(name: str, *, sftp: bool = False) -> _Function:
    return _Function("local_stores.filing", name, sftp)


def _closing(name: str) -> _Function:
    return _Function("local_stores.closing", name)


def _here(name: str, *, sftp: bool = False) -> _Function:
    return _Function(__name__, name, sftp)


STEPS: Mapping[str, _Function] = {
    "check_release": _filing("check_release", sftp=True),
    "check_purpose": _here("check_purpose", sftp=True),
    "take_snapshot": _filing("take_snapshot"),
    "take_snapshots": _here("take_snapshots"),
    "validate": _filing("validate"),
    "local_plan": _filing("local_plan"),
    "share_and_seal": _here("share_and_seal"),
    "deliver": _filing("deliver", sftp=True),
    "fetch_outcome": _filing("fetch_outcome", sftp=True),
    "close": _closing("close"),
    "fetch": _closing("fetch"),
    "verify": _closing("verify"),
    "publish": _closing("publish"),
    "acknowledge": _closing("acknowledge"),
}
"""What a task may run."""

POLLS: Mapping[str, _Function] = {
    "sign_off_ready": _filing("sign_off_ready"),
    "receipts_ready": _here("receipts_ready", sftp=True),
    "outcome_ready": _filing("outcome_ready", sftp=True),
    "filings_ready": _closing("filings_ready"),
    "result_ready": _closing("result_ready"),
    "deletions_ready": _here("deletions_ready"),
}
"""What a waiting task and its trigger may ask: None means "not yet"."""


def check_purpose(site: Site, owner: str, period: str, reports: list[str], open_sftp: object) -> Json:
    """Check that at least one approved report may use the dataset in this period, before it is read.

    Raises:
        ComityError: the last report's refusal, where every report is refused.
    """
    refused: ComityError | None = None
    for report in reports:
        try:
            release = importlib.import_module("local_stores.filing").check_release(
                site, owner, report, period, open_sftp=open_sftp
            )
        except ComityError as error:
            if error.transient:
                raise
            refused = error
        else:
            return {"report": report, "plan_digest": release["plan_digest"]}
    if refused is None:
        raise ConfigError("NO_PURPOSE", "no imported release uses the dataset", ids={"owner": owner, "period": period})
    raise refused


def take_snapshots(site: Site, owner: str, period: str, release: Mapping[str, Json]) -> dict[str, Json]:
    """Take, or find again, the snapshot of every dataset of a release; one for each (dataset, period, cut)."""
    take = STEPS["take_snapshot"]
    return {
        dataset: take.call(site, {"owner": owner, "dataset": dataset, "period": period})
        for dataset in release["datasets"]
    }


def share_and_seal(site: Site, **arguments: Json) -> list[dict[str, Json]]:
    """Share and seal once, and return one parcel for each operator: what the delivery is mapped over."""
    filing = _filing("share_and_seal").call(site, arguments)
    return [{"filing": filing, "operator": operator} for operator in filing["operators"]]


def receipts_ready(site: Site, owner: str, parcels: list[Mapping[str, Json]], open_sftp: object) -> Json:
    """Ask for the receipts of the filing that the parcels belong to."""
    filing = importlib.import_module("local_stores.filing")
    return filing.receipts_ready(site, owner, parcels[0]["filing"], open_sftp=open_sftp)


def deletions_ready(site: Site, run: Mapping[str, Json]) -> Json:
    """Complete a run's evidence once every operator attests the deletion: that lets the owners countersign.

    Countersignatures may take the owners days and hold up no period: `comity group evidence` adds them.
    """
    answer = importlib.import_module("local_stores.closing").collect_closing(site, run, for_owners=False)
    return answer if len(answer["erased"]) == answer["operators"] else None


def current_site(releases_dir: str | None = None) -> Site:
    """Load the site that COMITY_SITE names.

    Args:
        releases_dir: the releases of the DAG run's bundle version; they stand in for the site's, so that a run stays
            on the release it began with. A folder that is not on this host (a triggerer elsewhere) is passed over.

    Raises:
        ConfigError: SITE_NOT_SET, or what the file's check finds.
    """
    path = os.environ.get("COMITY_SITE")
    if not path:
        raise ConfigError("SITE_NOT_SET", "the environment variable COMITY_SITE names no site.toml")
    site = load_site(Path(path))
    if releases_dir is not None and Path(releases_dir).is_dir():
        site = dataclasses.replace(site, releases_dir=Path(releases_dir))
    return site


def run_step(name: str, arguments: Mapping[str, Json], *, releases_dir: str | None = None) -> Json:
    """Run one step of STEPS and return its reference.

    Raises:
        ComityError: the step's own; PERIOD_MISSING; RESULT_TOO_LARGE.
    """
    return _run(STEPS, name, arguments, releases_dir)


def run_poll(name: str, arguments: Mapping[str, Json], *, releases_dir: str | None = None) -> Json:
    """Ask once whether something is there, by a function of POLLS; None means "not yet"."""
    return _run(POLLS, name, arguments, releases_dir)


def _run(table: Mapping[str, _Function], name: str, arguments: Mapping[str, Json], releases_dir: str | None) -> Json:
    if name not in table:
        raise LocalProtocolError("STEP_UNKNOWN", "a DAG names a step that does not exist", got=name[:64])
    if "period" in arguments and not _PERIOD.fullmatch(str(arguments["period"])):
        raise UsageError(
            "PERIOD_MISSING",
            "the DAG run has neither a partition key nor a valid parameter `period`",
            hint='Trigger it with a partition key, or with {"period": "<key of the calendar>"}',
        )
    return _checked(name, table[name].call(current_site(releases_dir), arguments))


def _checked(name: str, result: object) -> Json:
    # XCom and trigger rows hold references and commitments. What is larger is data, and a bug.
    try:
        size = len(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError):
        raise LocalProtocolError("RESULT_NOT_JSON", "a step returned other than JSON", ids={"step": name}) from None
    if size > LIMIT_RESULT_BYTES:
        raise LocalProtocolError(
            "RESULT_TOO_LARGE",
            "a step returned more than a reference",
            expected=f"at most {LIMIT_RESULT_BYTES} bytes",
            got=f"{size} bytes",
            ids={"step": name},
        )
    return cast("Json", result)
