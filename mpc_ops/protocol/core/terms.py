"""What a session is bound to: its terms, and the pair keys of one position."""

from __future__ import annotations

from dataclasses import dataclass

from mpc_ops.errors import LocalProtocolError
from mpc_ops.randomness import ContextItem, PairKeys
from mpc_ops.sharing import held_by

__all__ = ["DEFAULT_LIMIT_BYTES", "MAX_LIMIT_BYTES", "VERSION", "PartyKeys", "SessionTerms"]

VERSION = "comity/active/v1"
DEFAULT_LIMIT_BYTES = 1 << 24
"""Bytes of logged gates at which a batch is proven: 2^24 AND gates, at one byte each. A batch costs about ten rounds whatever its size,
so it should be large; but a party holds log and work space of up to four batches, about 1.3 times their logs, for every session that
it runs at once. All three must cut batches at the same gates: operators bind the limit in the SID."""
MAX_LIMIT_BYTES = 1 << 26
"""At most 2^26 AND gates a batch: far below p, so that wrong gates cannot add up to a multiple of it."""


@dataclass(frozen=True, slots=True)
class PartyKeys:
    """Pair keys of the two components that a position holds.

    Attributes:
        first: keys shared with position `party - 1`, the other holder of component `party`.
        second: keys shared with position `party + 1`, the other holder of component `party + 1`.
    """

    first: PairKeys
    second: PairKeys

    def __repr__(self) -> str:
        return "PartyKeys(<redacted>)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTerms:
    """What a session is bound to.

    Attributes:
        sid: session id (hex); binds plan, manifest, operators and fresh nonces of all three.
        cluster: the cluster.
        attempt: number of the attempt.
        party: own position.
        members: operator ids by position.
        limit_bytes: logged bytes at which a batch is proven; all three must have the same.
    """

    sid: str
    cluster: str
    attempt: int
    party: int
    members: tuple[str, str, str]
    limit_bytes: int = DEFAULT_LIMIT_BYTES

    def __post_init__(self) -> None:
        held_by(self.party)
        if not 1 <= self.limit_bytes <= MAX_LIMIT_BYTES:
            raise LocalProtocolError(
                "BATCH_TOO_LARGE",
                "a batch would hold more gates than one proof may have",
                expected=f"1 to {MAX_LIMIT_BYTES} bytes",
                got=self.limit_bytes,
            )

    def context(self, stage: str) -> tuple[ContextItem, ...]:
        """Return the context items that every key, coin and MAC of a stage begins with."""
        return (VERSION, self.cluster, self.sid, self.attempt, stage)
