"""Openings of an active session: only with a barrier's token, value and digest in the same round.

The component that position i lacks is held by i - 1 (its first) and i + 1 (its second). One sends it, the other sends its
SHA-256 in the same round, so neither can wait for the other and no later check is needed. The digest tells the receiver
nothing that the value does not.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mpc_ops.errors import Abort, LocalProtocolError
from mpc_ops.protocol.core.party import Body, Steps
from mpc_ops.protocol.core.shares import BooleanPlanes, CounterVector, RingVector, check_owner
from mpc_ops.protocol.core.stage import ActiveStage, BarrierToken, ComputeStage, PassiveStage
from mpc_ops.randomness import encode_context
from mpc_ops.ring import LANE_BYTES, RingArray, as_body, from_body, to_bytes
from mpc_ops.ring.planes import from_planes

__all__ = ["BitWords", "Openable", "TopBytes", "open_passive", "open_to", "open_to_all"]


@dataclass(frozen=True, slots=True)
class TopBytes:
    """Ring values whose lowest bytes are 0 in every component, so that only the others travel.

    Attributes:
        share: the values.
        skip: how many of their lowest bytes are 0, 0 to 7.
    """

    share: RingVector
    skip: int

    @property
    def party(self) -> int:
        """Position that holds it."""
        return self.share.party

    def words(self) -> tuple[RingArray, RingArray]:
        """Return both components' upper bytes, value after value, filled up to words with zeros."""
        return self._packed(self.share.first), self._packed(self.share.second)

    def combine(self, third: RingArray) -> RingArray:
        """Return the values from the upper bytes of the component that this position lacks."""
        kept, count = LANE_BYTES - self.skip, self.share.count
        octets = np.zeros((count, LANE_BYTES), dtype=np.uint8)
        packed = third.astype("<u8", copy=False).view(np.uint8)[: count * kept]
        octets[:, self.skip :] = packed.reshape(count, kept)
        return self.share.combine(octets.view("<u8").astype(np.uint64, copy=False).reshape(-1))

    def _packed(self, values: RingArray) -> RingArray:
        octets = np.ascontiguousarray(values, dtype="<u8").view(np.uint8).reshape(-1, LANE_BYTES)[:, self.skip :]
        out = np.zeros(-(-octets.size // LANE_BYTES), dtype=np.uint64)
        out.view(np.uint8)[: octets.size] = octets.reshape(-1)
        return out.view("<u8").astype(np.uint64, copy=False)


@dataclass(frozen=True, slots=True)
class BitWords:
    """Boolean values that come back as their planes' words, 64 bits a word, as they travel: 64 times as short as values.

    Attributes:
        share: the values.
    """

    share: BooleanPlanes

    @property
    def party(self) -> int:
        """Position that holds it."""
        return self.share.party

    def words(self) -> tuple[RingArray, RingArray]:
        """Return both components, flat."""
        return self.share.words()

    def combine(self, third: RingArray) -> RingArray:
        """Return the value's planes, flat, from the component that this position lacks."""
        return self.share.combine(third)


Openable: TypeAlias = BooleanPlanes | RingVector | CounterVector | TopBytes | BitWords
"""Anything shared; the stage refuses the other kind of session's."""

_DIGEST_BYTES = 32


def open_to_all(stage: ActiveStage, token: BarrierToken, shares: Sequence[Openable]) -> Steps[list[RingArray]]:
    """Open shares to all three parties and close the stage.

    Rounds: 1. Bytes per party: 8 x words + 32, where a Boolean share has width x ceil(n/64) words, a ring share n, and one of which
        only the b upper bytes travel ceil(b n / 8).

    Args:
        stage: the stage whose barrier gave the token.
        token: spent by this call.
        shares: what is opened; Boolean values come back as values of `width` bits, shape (n,).

    Security: malicious with abort; every component comes from one holder and its digest from the other.
    Leakage: the opened values, to all.

    Raises:
        LocalProtocolError: BARRIER_MISSING, SHARE_FOREIGN.
        Abort: OPENING_MISMATCH, naming the pair that holds the component.
        PeerProtocolError: LENGTH_INVALID.
    """
    result = yield from _open(stage, token, shares, receivers=(0, 1, 2))
    if result is None:  # pragma: no cover - every position is a receiver
        raise LocalProtocolError("BARRIER_MISSING", "nothing was opened", ids=stage.ids())
    return result


def open_to(
    stage: ActiveStage, token: BarrierToken, party: int, shares: Sequence[Openable]
) -> Steps[list[RingArray] | None]:
    """Open shares to one position; the others get None. Closes the stage.

    Rounds: 1. Bytes: 8 x words by position `party - 1`, 32 by `party + 1`, none by `party`.
    Security, errors: as `open_to_all`. Leakage: the opened values, to `party` only.
    """
    result = yield from _open(stage, token, shares, receivers=(party,))
    return result


def _digest(stage: ComputeStage, label: str, body: Body) -> bytes:
    digest = hashlib.sha256(encode_context(*stage.terms.context(stage.name), label, len(body)))
    digest.update(body)
    return digest.digest()


def exchange_vouched(
    stage: ComputeStage, label: str, first: Body, second: Body, receivers: tuple[int, ...] = (0, 1, 2)
) -> Steps[Body | None]:
    """Send what a peer lacks, one holder the component and the other its digest in the same round; the base of every opening.

    Rounds: 1.  Sent: the length of `first` to the next party and 32 bytes to the previous one, as far as they are receivers.
    It opens whatever it is given: callers are `open_to_all` and `open_to`, which spend a barrier's token, and daBits.

    Args:
        stage: the stage.
        label: step and purpose, a part of the digest's context.
        first: own component `party`, which the next party lacks.
        second: own component `party + 1`, which the previous party lacks; as long as `first`.
        receivers: positions that learn the value.

    Returns:
        The component that this position lacks; None if it is no receiver.

    Raises:
        Abort: OPENING_MISMATCH, naming the pair that holds the component.
        PeerProtocolError: LENGTH_INVALID.
    """
    party, before, after = stage.party, (stage.party - 1) % 3, (stage.party + 1) % 3
    size = len(first)
    mine = party in receivers and size > 0
    inbound = yield from stage.exchange(
        label,
        to_next=first if after in receivers else b"",
        to_prev=_digest(stage, label, second) if before in receivers and size else b"",
        expect_prev=size if mine else 0,
        expect_next=_DIGEST_BYTES if mine else 0,
    )
    if mine and not hmac.compare_digest(_digest(stage, label, inbound.from_prev), inbound.from_next):
        raise Abort(
            "OPENING_MISMATCH",
            "the two holders of a component opened different ones",
            ids={**stage.ids(), "component": (party + 2) % 3, "pair": stage.pair(before, after)},
            hint="One of the two altered it; the value is not used",
        )
    return inbound.from_prev if party in receivers else None


def _joined(vectors: Sequence[RingArray]) -> Body:
    return as_body(vectors[0]) if len(vectors) == 1 else b"".join(map(to_bytes, vectors))


def _open(
    stage: ActiveStage, token: BarrierToken, shares: Sequence[Openable], receivers: tuple[int, ...]
) -> Steps[list[RingArray] | None]:
    for share in shares:
        check_owner(stage, share.share if isinstance(share, TopBytes | BitWords) else share)
    _check_receivers(stage, receivers)
    stage.spend(token)
    held = [share.words() for share in shares]
    sides = [_joined([words[side] for words in held]) for side in range(2)]
    third = yield from exchange_vouched(stage, "open", sides[0], sides[1], receivers)
    return None if third is None else _values(shares, [len(words[0]) for words in held], third)


def _values(shares: Sequence[Openable], lengths: Sequence[int], third: Body) -> list[RingArray]:
    out, place = [], 0
    for share, words in zip(shares, lengths, strict=True):
        values = share.combine(from_body(third[place : place + words * LANE_BYTES], words))
        place += words * LANE_BYTES
        out.append(_plain(share, values) if isinstance(share, BooleanPlanes) else values)
    return out


def _plain(share: BooleanPlanes, words: RingArray) -> RingArray:
    return from_planes(words.reshape(share.width, -1), share.count)


def open_passive(
    stage: PassiveStage, shares: Sequence[Openable], receivers: tuple[int, ...] = (0, 1, 2)
) -> Steps[list[RingArray] | None]:
    """Open shares of a passive session to all, or to some positions; nothing is checked. The others get None.

    Rounds: 1. Bytes per party: 8 x words. Security: semi-honest only. Leakage: the opened values, to the receivers.

    Raises:
        LocalProtocolError: SHARE_FOREIGN, for instance for a share of an active session; PARTY_INVALID.
    """
    for share in shares:
        check_owner(stage, share.share if isinstance(share, TopBytes | BitWords) else share)
    _check_receivers(stage, receivers)
    held = [share.words() for share in shares]
    first = _joined([words[0] for words in held])
    mine = stage.party in receivers
    inbound = yield from stage.exchange(
        "open", to_next=first if (stage.party + 1) % 3 in receivers else b"", expect_prev=len(first) if mine else 0
    )
    return _values(shares, [len(words[0]) for words in held], inbound.from_prev) if mine else None


def _check_receivers(stage: ComputeStage, receivers: tuple[int, ...]) -> None:
    if any(receiver not in (0, 1, 2) for receiver in receivers):
        raise LocalProtocolError("PARTY_INVALID", "a position is 0, 1 or 2", ids=stage.ids())
