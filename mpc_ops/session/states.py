"""What a session is made of: its durable state, the events that reach it and the actions it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import msgspec

from mpc_ops.session.messages import MAX_ATTEMPT, Accept, Committed, Failed, Message, Prepare

__all__ = [
    "PHASES",
    "Announce",
    "Ask",
    "BeginAttempt",
    "CheckFailed",
    "DropAttempt",
    "EraseSession",
    "Expire",
    "LinkDigests",
    "PeerAccept",
    "PeerCommitted",
    "PeerDigest",
    "PeerFailed",
    "PeerNonce",
    "PeerPrepare",
    "Proven",
    "Ready",
    "Refuse",
    "Release",
    "Retry",
    "Send",
    "SessionAction",
    "SessionEvent",
    "SessionState",
    "StartWork",
    "Stop",
    "event_of",
    "new_session",
]

_Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Party = Annotated[int, msgspec.Meta(ge=0, le=2)]
Phase: TypeAlias = Literal["IDLE", "PREPARED", "ACCEPTED", "COMMITTED", "FAILED", "REFUSED", "ERASED"]
PHASES: tuple[Phase, ...] = ("IDLE", "PREPARED", "ACCEPTED", "COMMITTED", "FAILED", "REFUSED", "ERASED")


class PeerNonce(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A peer is PREPARED(attempt) with this nonce."""

    party: _Party
    attempt: Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPT)]
    nonce: _Hex


class PeerDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A peer has ACCEPTED the current attempt and says what arrived from us."""

    party: _Party
    digest: _Hex


class LinkDigests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Digests over the ciphertext frames of one link in this attempt, both directions."""

    party: _Party
    sent: _Hex
    received: _Hex


class SessionState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything durable about a session at one operator. Store `to_json(state)` before carrying out actions.

    Attributes:
        run_id, cluster: the session.
        kind: `region` or `group`.
        members: operator ids of the cluster by position.
        party: own position in the cluster (0, 1, 2).
        phase: row of the table.
        attempt: current attempt; 0 while IDLE.
        nonce: own nonce of the current attempt, hex; empty while IDLE.
        prepares: what the peers have announced: their latest attempt and nonce.
        links: per peer, once the attempt is proven.
        accepts: peers that have accepted the current attempt.
        noted: codes of withdrawals, cancels and give-ups that came while ACCEPTED.
        code, pair: why it is FAILED or REFUSED, and whom a failed check names (operator ids).
        ended: phase in which it was erased.
    """

    run_id: _Hex
    cluster: str
    kind: Literal["region", "group"]
    members: tuple[str, str, str]
    party: _Party
    phase: Phase = "IDLE"
    attempt: Annotated[int, msgspec.Meta(ge=0, le=MAX_ATTEMPT)] = 0
    nonce: str = ""
    prepares: tuple[PeerNonce, ...] = ()
    links: tuple[LinkDigests, ...] = ()
    accepts: tuple[PeerDigest, ...] = ()
    noted: tuple[str, ...] = ()
    code: str = ""
    pair: tuple[str, ...] = ()
    ended: str = ""

    def ids(self) -> dict[str, str]:
        """Ids that place an error."""
        return {
            "run": self.run_id[:12],
            "cluster": self.cluster,
            "party": self.members[self.party],
            "attempt": str(self.attempt),
            "state": self.phase,
        }

    @property
    def peers(self) -> tuple[int, int]:
        """Positions of the other two operators, lower first."""
        first, second = (other for other in range(3) if other != self.party)
        return first, second


def new_session(
    run_id: str, cluster: str, kind: Literal["region", "group"], members: tuple[str, str, str], party: int
) -> SessionState:
    """Return a session in state IDLE; `members` are the operator ids of the cluster by position."""
    return SessionState(run_id=run_id, cluster=cluster, kind=kind, members=members, party=party)


# ---------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Ready:
    """Manifest, approvals and rules are valid now and all inputs are here. `nonce`: 32 fresh random bytes, hex."""

    nonce: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """One of these is false; `code` says which (for example APPROVAL_MISSING, FILING_CHANGED)."""

    code: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Own crash (always at start-up), time-out or transient error. `nonce`: fresh."""

    nonce: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A link came up or a timer fired: say again where we stand and ask where the peers stand."""


@dataclass(frozen=True, slots=True)
class PeerPrepare:
    """PREPARE from a peer. `fresh`: a nonce drawn now, used only if this message moves us to a new attempt."""

    party: int
    attempt: int
    nonce: str
    fresh: str
    ask: bool = False


@dataclass(frozen=True, slots=True)
class Proven:
    """The attempt's work ended with every check good, and its outputs are durable (see the package docstring)."""

    attempt: int
    links: tuple[LinkDigests, ...]


@dataclass(frozen=True, slots=True)
class CheckFailed:
    """A proof, opening or comparison of the attempt failed; `pair` holds the operators that it names."""

    attempt: int
    code: str
    pair: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerAccept:
    """ACCEPT from a peer."""

    party: int
    attempt: int
    digest: str
    ask: bool = False


@dataclass(frozen=True, slots=True)
class PeerFailed:
    """FAILED from a peer."""

    party: int
    attempt: int
    code: str
    pair: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerCommitted:
    """COMMITTED from a peer."""

    party: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Stop:
    """A withdrawal, cancel, give_up_at, or another cluster's failure: WITHDRAWN, CANCELLED, GIVEN_UP, REGION_FAILED."""

    code: str
    pair: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expire:
    """COMMITTED: acknowledged, or ttl passed. ACCEPTED, FAILED, REFUSED: give_up_at + ttl passed."""


SessionEvent: TypeAlias = (
    Ready
    | Refuse
    | Retry
    | Ask
    | PeerPrepare
    | Proven
    | CheckFailed
    | PeerAccept
    | PeerFailed
    | PeerCommitted
    | Stop
    | Expire
)


# --------------------------------------------------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to one peer (by position)."""

    to: int
    message: Message


@dataclass(frozen=True, slots=True)
class BeginAttempt:
    """Drop any earlier attempt's memory and unsent outputs, and make the attempt object (it may receive early messages)."""

    attempt: int


@dataclass(frozen=True, slots=True)
class StartWork:
    """All three nonces are known (by position): agree keys, compute, flush, prove."""

    attempt: int
    nonces: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class DropAttempt:
    """Destroy the attempt's keys and whatever it left unsent."""


@dataclass(frozen=True, slots=True)
class Release:
    """Send what this attempt made: crossings (region), or the result commitment and then the parts (group). Idempotent."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell everybody concerned by a signed `state` notice. Idempotent."""

    phase: str
    code: str = ""
    pair: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EraseSession:
    """Delete shares, outputs and keys of the session. Idempotent."""


SessionAction: TypeAlias = Send | BeginAttempt | StartWork | DropAttempt | Release | Announce | EraseSession


def event_of(message: Message, party: int, fresh: str) -> SessionEvent | None:
    """Return the event of a durable message from position `party`, or None for a work message (kex, frame, seen).

    `fresh` is a nonce drawn for this call; it is used at most once.
    """
    if isinstance(message, Prepare):
        return PeerPrepare(party, message.attempt, message.nonce, fresh, message.ask)
    if isinstance(message, Accept):
        return PeerAccept(party, message.attempt, message.link_digest, message.ask)
    if isinstance(message, Failed):
        return PeerFailed(party, message.attempt, message.code, message.pair)
    if isinstance(message, Committed):
        return PeerCommitted(party, message.attempt)
    return None
