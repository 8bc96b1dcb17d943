"""Bodies of the recipient's API: `GET /v1/periods/{plan}/{period}` and `GET /v1/runs/{run_id}`, canonical JSON.

What stands in them is the answering operator's word. A recipient asks all three and takes nothing irreversible from it:
an ended run is believed from signed `state` notices, a filing from its receipts' signatures in the run's evidence.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mpc_ops.envelope.schema import Model
from mpc_ops.federation.model import DigestText, Name, UtcText
from mpc_ops.notices.model import Code, PeriodText

__all__ = ["OwnerStatus", "PeriodStatus", "RunStatus", "SessionStatus"]


class OwnerStatus(Model, frozen=True, kw_only=True):
    """One owner of the plan's regions in one edition, as the operator knows it from notices.

    Attributes:
        state: `EXPECTED` nothing came; `RECEIVED` filed, receipts missing; `AGREED` filed with all three receipts (or
            nil); `REJECTED`, `DISPUTED` with `code` (and `blamed` parties); `LATE` left out by a manifest; `WITHDRAWN`
            approval withdrawn; `INCLUDED` in a live or committed run.
        filing: digest of the current `filed` notice (highest take); None if nothing came.
    """

    state: Literal["EXPECTED", "RECEIVED", "AGREED", "REJECTED", "DISPUTED", "LATE", "WITHDRAWN", "INCLUDED"]
    filing: DigestText | None = None
    nil: bool = False
    take: Annotated[int, Meta(ge=0)] = 0
    filed_at: UtcText | None = None
    code: Code | None = None
    blamed: list[Name] = msgspec.field(default_factory=list)


class PeriodStatus(Model, frozen=True, kw_only=True):
    """A period of a plan.

    Attributes:
        edition: newest edition that is open or was closed (1, or the highest signed reopening).
        state: `OPEN`; `CLOSED` by a live run (`run`); `COMMITTED` by it.
        reference: newest reference data of the period.
    """

    plan: DigestText
    period: PeriodText
    edition: Annotated[int, Meta(ge=1)]
    state: Literal["OPEN", "CLOSED", "COMMITTED"]
    opens_at: UtcText
    due_at: UtcText
    owners: dict[Name, OwnerStatus]
    reference: DigestText | None = None
    run: DigestText | None = None


class SessionStatus(Model, frozen=True, kw_only=True):
    """One session as its cluster's operators told it: own state, or what a signed `state` notice says.

    Attributes:
        phase: IDLE, PREPARED, ACCEPTED, COMMITTED, FAILED, REFUSED, CANCELLED, ERASED.
        said_by: operator whose word it is.
    """

    cluster: Name
    said_by: Name
    phase: Annotated[str, Meta(pattern="^[A-Z]{3,20}$")]
    attempt: Annotated[int, Meta(ge=0)] = 0
    code: Code | None = None
    blamed: list[Name] = msgspec.field(default_factory=list)


class RunStatus(Model, frozen=True, kw_only=True):
    """A run: its state as users see it (coordination, "Run, as users see it") and its sessions.

    Attributes:
        state: OPEN, CLOSED, REGION, GROUP, COMMITTED, PUBLISHED, ERASED, FAILED, REFUSED, CANCELLED.
        regions_done, regions: how many region clusters have committed, of how many.
        stalled: party, code and since when, while retrying without progress.
        result_ready: whether `GET .../result` hands out this operator's part.
        evidence_complete: whether every operator's attestation and log extract is here.
    """

    run: DigestText
    state: Literal[
        "OPEN", "CLOSED", "REGION", "GROUP", "COMMITTED", "PUBLISHED", "ERASED", "FAILED", "REFUSED", "CANCELLED"
    ]
    regions_done: Annotated[int, Meta(ge=0)]
    regions: Annotated[int, Meta(ge=0)]
    sessions: list[SessionStatus]
    stalled_party: Name | None = None
    stalled_code: Code | None = None
    stalled_since: UtcText | None = None
    result_ready: bool = False
    evidence_complete: bool = False
