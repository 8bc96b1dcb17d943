"""Shares and what needs no message: addition lane by lane."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mpc_ops.errors import LocalProtocolError
from mpc_ops.ring import RingArray, add_into, check_ring, zeros
from mpc_ops.sharing import PartPayload, expand_part, held_by

__all__ = ["Share", "add", "add_many", "share_of_part", "zero_share"]


@dataclass(frozen=True, slots=True)
class Share:
    """What position `party` holds of a sharing: components `party` and `party + 1 mod 3`, expanded.

    Attributes:
        party: position in the cluster.
        first: component `party`, shape (n,).
        second: component `party + 1 mod 3`, shape (n,).
    """

    party: int
    first: RingArray
    second: RingArray

    def __post_init__(self) -> None:
        held_by(self.party)
        check_ring(self.second, len(check_ring(self.first)))

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return len(self.first)

    def __repr__(self) -> str:
        return f"Share(party={self.party}, lanes={self.lanes}, <redacted>)"


def zero_share(party: int, lanes: int) -> Share:
    """Return the share of the public vector 0 whose components are all 0."""
    return Share(party, zeros(lanes), zeros(lanes))


def share_of_part(part: PartPayload) -> Share:
    """Expand an owner's part, and take its ring values; its seeds become vectors."""
    return Share(part.party, *expand_part(part).values)


def add(left: Share, right: Share) -> Share:
    """Return the share of x + y; raises as `add_many` does."""
    return add_many([left, right], left.party, left.lanes)


def add_many(shares: Iterable[Share], party: int, lanes: int) -> Share:
    """Return the share of the sum of any number of sharings (of none: 0).

    Run by: each party alone; no message. Local: one addition per lane, component and summand, in cache-sized blocks;
    memory for one share and one summand at a time.

    Raises:
        LocalProtocolError: PARTY_INVALID if a share belongs to another position; RING_LENGTH for another lane count.
    """
    total = zero_share(party, lanes)
    for summand in shares:
        if summand.party != party:
            raise LocalProtocolError(
                "PARTY_INVALID", "shares of two positions cannot be added", expected=party, got=summand.party
            )
        add_into(total.first, summand.first)
        add_into(total.second, summand.second)
    return total
