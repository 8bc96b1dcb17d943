"""Imported releases of a site: `<releases>/<digest>.dsse`, each verified again whenever it is read."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from local_stores.config import Site
from local_stores.errors import ComityError, ConfigError, PolicyViolation, StateError
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.federation.loaded import Federation, read_file
from mpc_ops.ids import check_name, check_period
from mpc_ops.notices.model import CalendarRow, Release
from mpc_ops.notices.signed import SignedNotice, parse_notice, utc_text, verify_notice
from mpc_ops.plan.checks import read_plan
from mpc_ops.plan.model import Plan, ScanNode

__all__ = ["ReleaseInfo", "find_release", "find_row", "list_releases"]

_LIMIT_BYTES = 2 << 20


@dataclass(frozen=True)
class ReleaseInfo:
    """An imported, verified release.

    Attributes:
        report: the report's name.
        digest: digest of the release notice; the file's name.
        plan: the checked plan; its digest is `plan_digest`.
        datasets: datasets that the plan scans.
        calendar: the signed periods.
        notice: the signed notice.
    """

    report: str
    digest: str
    plan: Plan
    plan_digest: str
    datasets: tuple[str, ...]
    calendar: tuple[CalendarRow, ...]
    notice: SignedNotice

    @property
    def release(self) -> Release:
        """The notice's content."""
        return self.notice.expect(Release)

    @property
    def title(self) -> str:
        """Title for people."""
        return self.plan.title

    def row(self, period: str) -> CalendarRow | None:
        """Return the calendar row of a period, or None."""
        return next((row for row in self.calendar if row.key == period), None)


def list_releases(site: Site) -> list[ReleaseInfo]:
    """Return the site's releases, oldest first; other notices in the folder are passed over.

    Raises:
        PolicyViolation: RELEASE_INVALID naming the file: altered, not signed by an author of this federation, or with a
            plan that this version does not accept.
    """
    if not site.releases_dir.is_dir():
        return []
    federation = site.federation()
    found = []
    for path in sorted(site.releases_dir.glob("*.dsse")):
        status = path.stat()
        info = _read(path, (status.st_mtime_ns, status.st_size), _FederationKey(federation))
        if info is not None:
            found.append(info)
    return sorted(found, key=lambda info: (info.release.created_at, info.digest))


def find_release(site: Site, report: str, period: str, *, now: dt.datetime | None) -> tuple[ReleaseInfo, CalendarRow]:
    """Return the newest release of a report whose calendar has the period, and the period's row.

    Raises:
        ConfigError: RELEASE_UNKNOWN; NAME_INVALID, PERIOD_INVALID. StateError: PERIOD_UNKNOWN listing what there is.
        PolicyViolation: RELEASE_INVALID; RELEASE_EXPIRED if it is not valid at `now`, where given.
    """
    check_name(report, "report")
    check_period(period)
    releases = [info for info in list_releases(site) if info.report == report]
    if not releases:
        raise ConfigError(
            "RELEASE_UNKNOWN",
            f"no release of {report} is imported here",
            expected=", ".join(sorted({info.report for info in list_releases(site)})) or "comity report import",
            ids={"site": site.id},
        )
    for info in reversed(releases):
        row = info.row(period)
        if row is not None:
            if now is not None:
                _require_valid(info, now)
            return info, row
    keys = [row.key for row in releases[-1].calendar]
    raise StateError(
        "PERIOD_UNKNOWN",
        f"no release of {report} has the period {period} in its calendar",
        expected=", ".join([*keys[:3], "…", keys[-1]] if len(keys) > 4 else keys),
        ids={"report": report},
    )


def find_row(site: Site, dataset: str, period: str) -> tuple[DatasetContract, CalendarRow, list[ReleaseInfo]]:
    """Return a dataset's contract, the row of a period, and the releases that use the dataset in it, newest first.

    Raises:
        ConfigError: NO_PURPOSE if no release uses the dataset in the period; PERIOD_INVALID.
    """
    check_period(period)
    releases = [info for info in reversed(list_releases(site)) if dataset in info.datasets and info.row(period)]
    row = releases[0].row(period) if releases else None
    if row is None:
        raise ConfigError(
            "NO_PURPOSE",
            f"no imported release uses dataset {dataset[:63]} in {period}",
            ids={"site": site.id},
            hint="Data is read for an approved report only",
        )
    return site.federation().terms.datasets[dataset], row, releases


def _require_valid(info: ReleaseInfo, now: dt.datetime) -> None:
    release, moment = info.release, utc_text(now)
    if not release.valid_from <= moment < release.valid_to:
        raise PolicyViolation(
            "RELEASE_EXPIRED",
            "the release is not valid now",
            expected=f"{release.valid_from} to {release.valid_to}",
            got=moment,
            ids={"report": info.report, "release": info.digest[:16]},
            hint="Ask the report's author for a new release",
        )


class _FederationKey:
    """A federation as a cache key: its terms' digest."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _FederationKey) and other.federation.digest == self.federation.digest

    def __hash__(self) -> int:
        return hash(self.federation.digest)


@lru_cache(maxsize=256)
def _read(path: Path, stamp: tuple[int, int], key: _FederationKey) -> ReleaseInfo | None:  # noqa: ARG001 - cache key
    federation = key.federation
    try:
        signed = parse_notice(read_file(path, limit_bytes=_LIMIT_BYTES))
        if not isinstance(signed.notice, Release):
            return None
        if path.stem != signed.digest:
            raise _invalid(path, "the file's name is not the digest of its content")
        signed = verify_notice(signed, federation)
        release = signed.expect(Release)
        plan = read_plan(release.plan.encode("utf-8"), federation)
    except PolicyViolation:
        raise
    except ComityError as error:
        raise _invalid(path, f"{error.code}: {error.what}") from None
    scan = cast("ScanNode", plan.node(ScanNode))
    return ReleaseInfo(
        report=plan.report,
        digest=signed.digest,
        plan=plan,
        plan_digest=plan.digest,
        datasets=(scan.dataset,),
        calendar=tuple(release.calendar),
        notice=signed,
    )


def _invalid(path: Path, why: str) -> PolicyViolation:
    return PolicyViolation(
        "RELEASE_INVALID", f"an imported release is not valid ({why})", ids={"file": path.name},
        hint="Import it again with `comity report import`",
    )  # fmt: skip
