"""Bodies of the recipient's API: `GET /v1/periods/{plan}/{period}` and `GET /v1/runs/{run_id}`.

What stands in them is the answering operator's word. A recipient asks all three and takes nothing irreversible from it:
an ended run is believed from signed `state` notices, a filing from the signatures in the run's evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mpc_ops.envelope.schema import Model
from mpc_ops.federation.model import DigestText, Name, UtcText
from mpc_ops.notices.model import Code, PeriodText, State

__all__ = ["OwnerStatus", "PeriodStatus", "RunStatus", "SessionStatus", "Stall", "first_cause"]

_CONSEQUENCES = frozenset({"REGION_FAILED", "GROUP_FAILED"})

Word = Annotated[str, Meta(pattern="^[A-Z]{3,20}$")]
Line = Annotated[str, Meta(max_length=200)]
Names = Annotated[list[Name], Meta(max_length=300)]


class OwnerStatus(Model, frozen=True, kw_only=True):
    """One owner of the plan's regions in one edition, as the operator knows it from notices.

    Attributes:
        state: `EXPECTED` nothing came; `RECEIVED` receipts are missing; `AGREED` all three receipts; `REJECTED` or
            `DISPUTED` with `code`, and the `pair` that a dispute names; `WITHDRAWN`: what came
            is erased, no run includes it.
        filing: digest of the newest `filed` notice; None if nothing came.
    """

    state: Literal["EXPECTED", "RECEIVED", "AGREED", "REJECTED", "DISPUTED", "WITHDRAWN"]
    filing: DigestText | None
    take: Annotated[int, Meta(ge=0)]
    nil: bool
    receipts: Names
    code: Code | None
    pair: Names


class PeriodStatus(Model, frozen=True, kw_only=True):
    """A period of a plan.

    Attributes:
        edition: newest edition.
        state: `OPEN`, or the state of its run as users see it.
        run: the live run, else the last one.
        reference: newest reference data of the period.
    """

    plan: DigestText
    period: PeriodText
    edition: Annotated[int, Meta(ge=1)]
    opens_at: UtcText
    due_at: UtcText
    overdue: bool
    state: Line
    run: DigestText | None
    reference: DigestText | None
    owners: dict[Name, OwnerStatus]


class SessionStatus(Model, frozen=True, kw_only=True):
    """One operator's state of one session, from its signed notice or the answering operator's own."""

    state: Word
    attempt: Annotated[int, Meta(ge=0)]
    code: Code | None
    pair: Names


class Stall(Model, frozen=True, kw_only=True):
    """Who is waited for, why, and since when (milliseconds)."""

    party: Name
    code: Code
    since_ms: Annotated[int, Meta(ge=0)]


class RunStatus(Model, frozen=True, kw_only=True):
    """A run as users see it, and its sessions by cluster and operator.

    Attributes:
        state: for people, for example `REGION 2/4`; `phase`: its first word.
        code, pair: why it failed.
        regions, done: region clusters of the run, and those that have committed.
        statements: operators whose statement is here.
    """

    run: DigestText
    plan: DigestText
    period: PeriodText
    edition: Annotated[int, Meta(ge=1)]
    state: Line
    phase: Word
    code: Code | None
    pair: Names
    regions: Names
    done: Names
    stall: Stall | None
    sessions: dict[Name, dict[Name, SessionStatus]]
    statements: Names = msgspec.field(default_factory=list)


def first_cause(states: Iterable[State]) -> State | None:
    """Return the signed state that says best why a run ended, None if none says that it did.

    A cause comes before its consequence in another cluster, one that names a pair before one that does not.
    """
    ended = [state for state in states if state.state != "COMMITTED"]
    return min(ended, key=lambda s: (s.code in _CONSEQUENCES, not s.pair, s.created_at, s.operator), default=None)
