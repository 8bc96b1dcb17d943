"""The filing machine: one owner's filing for one edition, as one region operator sees it (coordination.md, "Filing").

Only events that the driver has authenticated reach it: `Filed` and `FilingRejected` come from a notice whose signature
is the owner's; `HolderClaim` and `HolderDisputes` from a peer of the cluster over its link.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from mpc_ops.errors import DeliveryError, StateError
from mpc_ops.session.table import Machine, Rule

__all__ = [
    "FILING",
    "FILING_PHASES",
    "AnnounceFiling",
    "AskFiling",
    "Claim",
    "EraseParts",
    "ExpireFiling",
    "Filed",
    "FilingAction",
    "FilingEvent",
    "FilingRejected",
    "FilingState",
    "HolderClaim",
    "HolderDisputes",
    "ManifestNames",
    "ManifestOmits",
    "RunEnded",
    "SendClaim",
    "SendReceipt",
    "Withdrawn",
    "new_filing",
]

_Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Take = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
FilingPhase: TypeAlias = Literal[
    "EXPECTED", "RECEIVED", "AGREED", "REJECTED", "DISPUTED", "WITHDRAWN", "INCLUDED", "LATE", "ERASED", "EXPIRED"
]
FILING_PHASES: tuple[FilingPhase, ...] = (
    "EXPECTED", "RECEIVED", "AGREED", "REJECTED", "DISPUTED", "WITHDRAWN", "INCLUDED", "LATE", "ERASED", "EXPIRED",
)  # fmt: skip


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A peer holds a checked part of take `take`, filed by the notice with this payload digest."""

    party: Annotated[int, msgspec.Meta(ge=0, le=2)]
    take: _Take
    notice: _Hex


class FilingState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Durable state of (plan, period, owner, edition) at one operator.

    Attributes:
        plan, period, owner, edition: the filing, without its take.
        party: own position in the region cluster.
        phase: row of the table.
        take: current r; 0 while nothing came.
        notice: payload digest of the current `filed` notice; empty while nothing came.
        nil: the owner has nothing to report.
        claims: the latest claim of each peer.
        code, blamed: why it is REJECTED or DISPUTED, and the parties named (two holders, or the owner alone).
        run_id: the run that includes it or left it out.
        withdrawn: a withdrawal came while INCLUDED; it takes effect if the run fails.
    """

    plan: _Hex
    period: str
    owner: str
    edition: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]
    party: Annotated[int, msgspec.Meta(ge=0, le=2)]
    phase: FilingPhase = "EXPECTED"
    take: _Take = 0
    notice: str = ""
    nil: bool = False
    claims: tuple[Claim, ...] = ()
    code: str = ""
    blamed: tuple[str, ...] = ()
    run_id: str = ""
    withdrawn: bool = False

    def ids(self) -> dict[str, str]:
        """Ids that place an error."""
        return {
            "plan": self.plan[:12],
            "period": self.period,
            "owner": self.owner,
            "edition": str(self.edition),
            "take": str(self.take),
            "state": self.phase,
        }


def new_filing(plan: str, period: str, owner: str, edition: int, party: int) -> FilingState:
    """Return a filing in state EXPECTED."""
    return FilingState(plan=plan, period=period, owner=owner, edition=edition, party=party)


@dataclass(frozen=True, slots=True)
class Filed:
    """An authentic `filed` notice; unless nil, the own part has been opened and fits notice, plan and commitments."""

    take: int
    notice: str
    nil: bool = False


@dataclass(frozen=True, slots=True)
class FilingRejected:
    """What came is not acceptable: SIGNATURE_INVALID, PLAN_UNKNOWN, PERIOD_WRONG, KEY_FOREIGN, PART_INVALID, ..."""

    take: int
    code: str


@dataclass(frozen=True, slots=True)
class HolderClaim:
    """A peer says which notice its checked part belongs to; `ask` requests our claim in return."""

    party: int
    take: int
    notice: str
    ask: bool = False


@dataclass(frozen=True, slots=True)
class AskFiling:
    """A link of the cluster came up, or a timer fired."""


@dataclass(frozen=True, slots=True)
class HolderDisputes:
    """A holder's component does not fit the notice that another holder accepted; `blamed`: the pair, or the owner."""

    take: int
    code: str
    blamed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The owner withdrew its approval."""


@dataclass(frozen=True, slots=True)
class ManifestNames:
    """A valid manifest includes this filing."""

    run_id: str
    take: int
    notice: str


@dataclass(frozen=True, slots=True)
class ManifestOmits:
    """A valid manifest of this edition leaves the owner out."""

    run_id: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run of the manifest ended here: `committed` (acknowledged or ttl), or FAILED, CANCELLED, REFUSED."""

    run_id: str
    committed: bool


@dataclass(frozen=True, slots=True)
class ExpireFiling:
    """due_at + ttl has passed (shifted where the period key was published late)."""


FilingEvent: TypeAlias = (
    Filed
    | FilingRejected
    | AskFiling
    | HolderClaim
    | HolderDisputes
    | Withdrawn
    | ManifestNames
    | ManifestOmits
    | RunEnded
    | ExpireFiling
)


@dataclass(frozen=True, slots=True)
class SendClaim:
    """Tell both peers which notice our checked part belongs to; with `ask` they answer with theirs. Idempotent."""

    take: int
    notice: str
    ask: bool = False


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """Sign a `receipt` for the owner. Idempotent."""

    take: int
    notice: str


@dataclass(frozen=True, slots=True)
class AnnounceFiling:
    """Sign a `rejected` or `state` notice with code and parties for owner and recipient. Idempotent."""

    phase: str
    code: str = ""
    blamed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EraseParts:
    """Delete the parts of all takes up to and including this one. Idempotent."""

    take: int


FilingAction: TypeAlias = SendClaim | SendReceipt | AnnounceFiling | EraseParts
_Result: TypeAlias = tuple[FilingState, tuple[FilingAction, ...]]


def _compare(state: FilingState) -> _Result:
    """RECEIVED: look at the peers' claims for this take."""
    claims = [claim for claim in state.claims if claim.take == state.take]
    if any(claim.notice != state.notice for claim in claims):
        # Both notices bear the owner's signature for one take, so the owner is the one who said two things.
        return _dispute(state, HolderDisputes(state.take, "FILING_CONFLICT", (state.owner,)))
    if len(claims) < 2:
        return state, ()
    return replace(state, phase="AGREED"), (SendReceipt(state.take, state.notice), AnnounceFiling("AGREED"))


def _filed(state: FilingState, event: Filed) -> _Result:
    if event.take < state.take:
        raise StateError(
            "FILING_SUPERSEDED", "a newer take was filed already", expected=f"take {state.take}", got=f"take {event.take}", ids=state.ids()
        )  # fmt: skip
    erase: tuple[FilingAction, ...] = (EraseParts(state.take),) if 0 < state.take < event.take else ()
    after = replace(
        state, phase="RECEIVED", take=event.take, notice=event.notice, nil=event.nil, code="", blamed=(), run_id=""
    )
    if event.nil:
        agreed = replace(after, phase="AGREED")
        return agreed, (*erase, SendReceipt(event.take, event.notice), AnnounceFiling("AGREED"))
    compared, actions = _compare(after)
    return compared, (*erase, SendClaim(event.take, event.notice), *actions)


def _filed_again(state: FilingState, event: Filed) -> _Result:
    if event.notice != state.notice:
        raise DeliveryError("FILING_CONFLICT", "the owner filed one take with two notices", ids=state.ids())
    if state.phase == "RECEIVED":
        return state, (SendClaim(state.take, state.notice),)
    if state.phase == "DISPUTED":
        return state, (AnnounceFiling("DISPUTED", state.code, state.blamed),)
    return state, (SendReceipt(state.take, state.notice),)


def _closed(state: FilingState, _event: object) -> _Result:
    raise StateError(
        "PERIOD_CLOSED",
        "the period is closed for this edition",
        ids=state.ids(),
        hint="Ask group reporting for a signed reopen and file for the next edition",
    )


def _rejected(state: FilingState, event: FilingRejected) -> _Result:
    erase = max(state.take, event.take)
    after = replace(state, phase="REJECTED", take=erase, notice="", nil=False, code=event.code, blamed=(state.owner,))
    return after, (EraseParts(erase), AnnounceFiling("REJECTED", event.code, (state.owner,)))


def _claim(state: FilingState, event: HolderClaim) -> _Result:
    rest = tuple(claim for claim in state.claims if claim.party != event.party)
    after = replace(state, claims=(*rest, Claim(event.party, event.take, event.notice)))
    if state.phase != "RECEIVED":
        return after, ()
    answer = (SendClaim(state.take, state.notice),) if event.ask else ()
    compared, actions = _compare(after)
    return compared, (*answer, *actions)


def _claim_agreed(state: FilingState, event: HolderClaim) -> _Result:
    return state, ((SendClaim(state.take, state.notice),) if event.ask and not state.nil else ())


def _ask(state: FilingState, _event: object) -> _Result:
    return state, (SendClaim(state.take, state.notice, ask=True),)


def _dispute(state: FilingState, event: HolderDisputes) -> _Result:
    after = replace(state, phase="DISPUTED", code=event.code, blamed=event.blamed)
    return after, (AnnounceFiling("DISPUTED", event.code, event.blamed),)


def _withdraw(state: FilingState, _event: object) -> _Result:
    after = replace(state, phase="WITHDRAWN", code="WITHDRAWN", claims=())
    return after, (EraseParts(state.take), AnnounceFiling("WITHDRAWN"))


def _withdraw_included(state: FilingState, _event: object) -> _Result:
    return replace(state, withdrawn=True), ()


def _include(state: FilingState, event: ManifestNames) -> _Result:
    return replace(state, phase="INCLUDED", run_id=event.run_id), (AnnounceFiling("INCLUDED"),)


def _changed(state: FilingState, event: ManifestNames) -> _Result:
    raise StateError(
        "FILING_CHANGED",
        "the manifest names another take than the one that lies here",
        expected=f"take {state.take}",
        got=f"take {event.take}",
        ids=state.ids(),
        hint="Close again: the manifest must be signed anew over the present filings",
    )


def _not_agreed(state: FilingState, event: ManifestNames) -> _Result:
    raise StateError(
        "FILING_NOT_AGREED",
        "the manifest names a filing that is not agreed here",
        got=f"take {event.take}",
        ids=state.ids(),
    )


def _run_exists(state: FilingState, _event: object) -> _Result:
    raise StateError(
        "RUN_EXISTS", "another run already includes this filing", ids={**state.ids(), "run": state.run_id[:12]}
    )


def _omit(state: FilingState, event: ManifestOmits) -> _Result:
    return replace(state, phase="LATE", run_id=event.run_id), (AnnounceFiling("LATE"),)


def _run_failed(state: FilingState, _event: object) -> _Result:
    if state.withdrawn:
        return _withdraw(state, None)
    return replace(state, phase="AGREED", run_id=""), (AnnounceFiling("AGREED"),)


def _late_run_failed(state: FilingState, _event: object) -> _Result:
    # The edition is open again. The parts are gone, so the owner needs a new take (new seeds).
    after = replace(state, phase="EXPECTED", notice="", nil=False, claims=(), code="", blamed=(), run_id="")
    return after, (EraseParts(state.take), AnnounceFiling("EXPECTED"))


def _late_run_ended(state: FilingState, _event: object) -> _Result:
    return replace(state, claims=()), (EraseParts(state.take),)


def _erase(state: FilingState, _event: object) -> _Result:
    return replace(state, phase="ERASED", claims=()), (EraseParts(state.take), AnnounceFiling("ERASED"))


def _expire(state: FilingState, _event: object) -> _Result:
    return replace(state, phase="EXPIRED", claims=()), (EraseParts(state.take), AnnounceFiling("EXPIRED"))


def _nothing(state: FilingState, _event: object) -> _Result:
    return state, ()


def _newer(state: FilingState, event: Any) -> bool:
    return bool(event.take > state.take)


def _known(state: FilingState, event: Any) -> bool:
    return bool(event.take == state.take)


def _named(state: FilingState, event: ManifestNames) -> bool:
    return (state.take, state.notice) == (event.take, event.notice)


def _own_run(state: FilingState, event: Any) -> bool:
    return bool(state.run_id == event.run_id)


def _own_failed(state: FilingState, event: RunEnded) -> bool:
    return state.run_id == event.run_id and not event.committed


_OPEN = ("EXPECTED", "RECEIVED", "AGREED", "REJECTED", "DISPUTED")
_GONE = ("WITHDRAWN", "ERASED", "EXPIRED")
_SHUT = ("INCLUDED", "LATE", *_GONE)

FILING: Machine[FilingState] = Machine(
    "filing",
    FILING_PHASES,
    (
        Rule(("RECEIVED", "AGREED", "DISPUTED", "INCLUDED"), Filed, "same r", (), "claim, receipt or dispute again; raises FILING_CONFLICT if another notice", _filed_again, _known),
        Rule(_SHUT, Filed, "", (), "raises PERIOD_CLOSED", _closed),
        Rule(_OPEN, Filed, "", ("RECEIVED", "AGREED", "DISPUTED"), "nil: receipt; else claim to the peers; an older r is superseded and erased (FILING_SUPERSEDED if r is the older)", _filed),
        Rule(_OPEN, FilingRejected, "newer r, or nothing good of this r", ("REJECTED",), "rejection with code", _rejected, lambda s, e: e.take > s.take or (e.take == s.take and s.phase in ("EXPECTED", "RECEIVED", "REJECTED"))),
        Rule(FILING_PHASES, FilingRejected, "otherwise", (), "ignored", _nothing),
        Rule(("EXPECTED", "RECEIVED", "REJECTED"), HolderClaim, "", ("EXPECTED", "RECEIVED", "REJECTED", "AGREED", "DISPUTED"), "with both, equal: receipt; unequal: DISPUTED(owner)", _claim),
        Rule(("AGREED", "DISPUTED"), HolderClaim, "newer r", (), "kept until that r is filed here too", _claim, _newer),
        Rule(("AGREED",), HolderClaim, "", (), "claim again if asked", _claim_agreed),
        Rule(("DISPUTED", *_SHUT), HolderClaim, "", (), "ignored", _nothing),
        Rule(("RECEIVED",), AskFiling, "", (), "claim again, asking", _ask),
        Rule(FILING_PHASES, AskFiling, "otherwise", (), "", _nothing),
        Rule(("RECEIVED", "AGREED"), HolderDisputes, "same r", ("DISPUTED",), "stops the close", _dispute, _known),
        Rule(FILING_PHASES, HolderDisputes, "otherwise", (), "ignored", _nothing),
        Rule((*_OPEN, "LATE"), Withdrawn, "", ("WITHDRAWN",), "parts erased", _withdraw),
        Rule(("INCLUDED",), Withdrawn, "", (), "noted; the session decides", _withdraw_included),
        Rule(_GONE, Withdrawn, "", (), "", _nothing),
        Rule(("AGREED",), ManifestNames, "same r and notice", ("INCLUDED",), "", _include, _named),
        Rule(_OPEN, ManifestNames, "another r", (), "raises FILING_CHANGED: the run is REFUSED", _changed, lambda s, e: s.take > 0 and e.take != s.take),
        Rule(("INCLUDED",), ManifestNames, "same run", (), "", _nothing, _own_run),
        Rule(("INCLUDED",), ManifestNames, "another run", (), "raises RUN_EXISTS", _run_exists),
        Rule(FILING_PHASES, ManifestNames, "otherwise", (), "raises FILING_NOT_AGREED: the run is REFUSED", _not_agreed),
        Rule(_OPEN, ManifestOmits, "", ("LATE",), "parts erased when the run ends", _omit),
        Rule(("INCLUDED",), ManifestOmits, "another run", (), "raises RUN_EXISTS", _run_exists),
        Rule(("LATE", *_GONE), ManifestOmits, "", (), "", _nothing),
        Rule(("INCLUDED",), RunEnded, "its run failed", ("AGREED", "WITHDRAWN"), "can be closed anew, unless withdrawn", _run_failed, _own_failed),
        Rule(("INCLUDED",), RunEnded, "its run was acknowledged, or ttl", ("ERASED",), "parts erased", _erase, _own_run),
        Rule(("LATE",), RunEnded, "that run failed", ("EXPECTED",), "parts erased; the edition is open again for r+1", _late_run_failed, _own_failed),
        Rule(("LATE",), RunEnded, "that run was acknowledged, or ttl", (), "parts erased", _late_run_ended, _own_run),
        Rule(FILING_PHASES, RunEnded, "otherwise", (), "ignored", _nothing),
        Rule(("INCLUDED",), ExpireFiling, "", ("ERASED",), "parts erased", _erase),
        Rule((*_OPEN, "LATE"), ExpireFiling, "", ("EXPIRED",), "parts erased", _expire),
        Rule(_GONE, ExpireFiling, "", (), "", _nothing),
    ),
)  # fmt: skip
