"""Identifiers that travel between parties. All digests are lower-case hex SHA-256 (64 characters).

A run is one computation of one plan for one period and edition; a session is that run at one cluster; an attempt is
one try of a session with fresh keys (docs/coordination in the architecture notes of the project).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from mpc_ops.errors import ConfigError

__all__ = [
    "ClusterId",
    "Digest",
    "JurisdictionId",
    "NoticeDigest",
    "OperatorId",
    "OwnerId",
    "PartyIndex",
    "PeriodKey",
    "PlanDigest",
    "RunId",
    "SessionId",
    "check_digest",
    "check_name",
    "check_period",
]

Digest = NewType("Digest", str)
PlanDigest = NewType("PlanDigest", str)
NoticeDigest = NewType("NoticeDigest", str)
RunId = NewType("RunId", str)
OwnerId = NewType("OwnerId", str)
OperatorId = NewType("OperatorId", str)
ClusterId = NewType("ClusterId", str)
JurisdictionId = NewType("JurisdictionId", str)
PeriodKey = NewType("PeriodKey", str)
PartyIndex = NewType("PartyIndex", int)

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_PERIOD = re.compile(r"[A-Z0-9][A-Z0-9-]{2,15}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, order=True, slots=True)
class SessionId:
    """A run at one cluster."""

    run_id: RunId
    cluster: ClusterId

    def __str__(self) -> str:
        return f"{self.run_id[:12]}@{self.cluster}"


def check_name(value: str, what: str) -> str:
    """Return `value` if it is a party, cluster, dataset or report name (a-z, 0-9, `_`, `-`; at most 63 characters).

    Such names become file and DAG names, so anything else is refused with NAME_INVALID.
    """
    if not _NAME.fullmatch(value) or "__" in value:
        raise ConfigError(
            "NAME_INVALID", f"{what} is not a name", expected="a-z, 0-9, '-' and single '_'", got=repr(value[:80])
        )
    return value


def check_period(value: str) -> PeriodKey:
    """Return `value` as a period key such as `2026-10` or `FY26-P07`, else raise PERIOD_INVALID."""
    if not _PERIOD.fullmatch(value):
        raise ConfigError(
            "PERIOD_INVALID", "not a period key", expected="for example 2026-10 or FY26-P07", got=repr(value[:40])
        )
    return PeriodKey(value)


def check_digest(value: str, what: str = "digest") -> Digest:
    """Return `value` if it is a lower-case hex SHA-256 digest, else raise DIGEST_INVALID."""
    if not _DIGEST.fullmatch(value):
        raise ConfigError(
            "DIGEST_INVALID", f"{what} is not a SHA-256 digest in lower-case hex", got=f"{len(value)} characters"
        )
    return Digest(value)
