"""Result: salted commitments first, then one part per operator, combined and checked by the recipient alone.

Component c of the result is held by the operators at positions c and c-1, who both know its salt
HKDF(k_c, "result", ...) with their pair's commit key. Each operator signs the commitments to its two components before any
part is handed out. The recipient compares both copies of every component and all commitments, then adds. Two parts and
the three operators' commitments suffice: a component with one copy is checked against what both holders committed to.

Part of position p: header (magic 4, lanes 8, context digest 32 = 44 bytes), two salts (64), components p and p+1 in 8
bytes per lane each: 108 + 16 n bytes. Latencies: 1 after the commitments. An unsalted digest would let one operator test
guesses of the result; the salts reach only the recipient, inside the sealed parts.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpc_ops.errors import Abort, NotYet, PeerProtocolError
from mpc_ops.protocol.sums.linear import Share
from mpc_ops.randomness import ContextItem, derive, encode_context
from mpc_ops.ring import LANE_BYTES, RingArray, add_into, from_bytes, to_bytes, zeros
from mpc_ops.sharing import commitment, held_by

__all__ = ["Commitments", "ResultContext", "build_result", "combine_parts", "result_part_bytes"]

_MAGIC = b"CMR1"
_HEADER = struct.Struct(">4sQ32s")
_SALT_BYTES = 32

Commitments = tuple[str | None, str | None, str | None]
"""One operator's commitments by component; None for the component that it does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultContext:
    """One result of one run.

    Attributes:
        run_id: the run.
        cluster: the group cluster.
        recipient: who may open it.
        attempt: the committed attempt.
        lanes: lanes of the vector.
        members: operator ids of the cluster by position.
    """

    run_id: str
    cluster: str
    recipient: str
    attempt: int
    lanes: int
    members: tuple[str, str, str]

    def items(self) -> tuple[ContextItem, ...]:
        """Return the context tuple of salts and commitments."""
        return ("result", self.run_id, self.cluster, self.recipient, self.attempt, self.lanes)

    def digest(self, party: int) -> bytes:
        """Return the digest that binds a part to its place."""
        return hashlib.sha256(encode_context("comity/result/v1", *self.items(), *self.members, party)).digest()

    def ids(self) -> dict[str, object]:
        """Ids that place an error."""
        return {"run": self.run_id[:12], "cluster": self.cluster, "attempt": self.attempt}


def result_part_bytes(lanes: int) -> int:
    """Return the exact length of a result part before sealing."""
    return _HEADER.size + 2 * _SALT_BYTES + 2 * lanes * LANE_BYTES


def build_result(share: Share, keys: tuple[bytes, bytes], context: ResultContext) -> tuple[Commitments, bytes]:
    """Return (own commitments by component, own part before sealing).

    Args:
        share: own share of the result.
        keys: the `commit` pair keys of components `party` and `party + 1`.
        context: which result.

    After COMMITTED: publish the commitments, signed, and only then hand out the part, sealed to the recipient.
    """
    salts, bodies = [], []
    commitments: list[str | None] = [None, None, None]
    for index, key, values in zip(held_by(share.party), keys, (share.first, share.second), strict=True):
        salts.append(derive(key, *context.items(), index))
        bodies.append(to_bytes(values))
        commitments[index] = commitment(salts[-1], (*context.items(), index), bodies[-1])
    part = b"".join((_HEADER.pack(_MAGIC, context.lanes, context.digest(share.party)), *salts, *bodies))
    return (commitments[0], commitments[1], commitments[2]), part


@dataclass(frozen=True, slots=True)
class _Copy:
    """One operator's copy of one component."""

    party: int
    salt: bytes
    body: bytes


def combine_parts(
    context: ResultContext, parts: Mapping[int, bytes], commitments: Mapping[int, Sequence[str | None]]
) -> RingArray:
    """Check everything and return the result vector. Run by the recipient only.

    Args:
        context: which result, by the recipient's own copy of plan and manifest.
        parts: opened parts by the sender's position; at least two.
        commitments: the signed commitments by position; all three.

    Raises:
        NotYet: RESULT_INCOMPLETE while there are fewer than two parts or three commitments.
        PeerProtocolError: RESULT_INVALID, naming an operator whose part or commitment has another form or place.
        Abort: RESULT_MISMATCH, naming the pair that holds the component concerned. Nothing was combined.
    """
    if len(parts) < 2 or len(commitments) < 3:
        raise NotYet(
            "RESULT_INCOMPLETE",
            "too few operators have answered",
            expected="3 commitments and at least 2 parts",
            got=f"{len(commitments)} commitments and {len(parts)} parts",
            ids=context.ids(),
        )
    agreed = [_agreed(context, commitments, index) for index in range(3)]
    copies = [copy for party in sorted(parts) for copy in _copies(context, parts[party], party)]
    total = zeros(context.lanes)
    for index in range(3):
        held = [copy for component, copy in copies if component == index]
        add_into(total, from_bytes(_checked(context, held, agreed[index], index), context.lanes))
    return total


def _mismatch(context: ResultContext, index: int, what: str) -> Abort:
    pair = f"{context.members[index]},{context.members[(index - 1) % 3]}"
    return Abort(
        "RESULT_MISMATCH",
        what,
        ids={**context.ids(), "component": index, "pair": pair},
        hint="One of the two altered it; nothing is published",
    )


def _agreed(context: ResultContext, commitments: Mapping[int, Sequence[str | None]], index: int) -> str:
    """Return the commitment to a component on which its two holders agree."""
    for party in range(3):
        said = commitments[party]
        if len(said) != 3 or any((said[component] is None) == (component in held_by(party)) for component in range(3)):
            raise PeerProtocolError(
                "RESULT_INVALID",
                "an operator committed to other components than it holds",
                ids={**context.ids(), "party": context.members[party]},
            )
    first, second = commitments[index][index], commitments[(index - 1) % 3][index]
    if first is None or second is None or not hmac.compare_digest(first, second):
        raise _mismatch(context, index, "the two holders of a component committed to different ones")
    return first


def _copies(context: ResultContext, part: bytes, party: int) -> list[tuple[int, _Copy]]:
    ids = {**context.ids(), "party": context.members[party]}
    expected = result_part_bytes(context.lanes)
    if len(part) != expected:
        raise PeerProtocolError(
            "RESULT_INVALID",
            "a result part has another length",
            expected=f"{expected} bytes",
            got=f"{len(part)} bytes",
            ids=ids,
        )
    magic, lanes, digest = _HEADER.unpack_from(part)
    if magic != _MAGIC or lanes != context.lanes or digest != context.digest(party):
        raise PeerProtocolError("RESULT_INVALID", "a result part was made for another result", ids=ids)
    salts_end = _HEADER.size + 2 * _SALT_BYTES
    size = lanes * LANE_BYTES
    return [
        (
            index,
            _Copy(
                party,
                part[_HEADER.size + place * _SALT_BYTES :][:_SALT_BYTES],
                part[salts_end + place * size :][:size],
            ),
        )
        for place, index in enumerate(held_by(party))
    ]


def _checked(context: ResultContext, copies: list[_Copy], agreed: str, index: int) -> bytes:
    """Return the component's bytes if every copy fits the commitment and the other copy."""
    for copy in copies:
        if not hmac.compare_digest(commitment(copy.salt, (*context.items(), index), copy.body), agreed):
            raise _mismatch(context, index, "a copy of a component does not fit its commitment")
    if any(copy.body != copies[0].body for copy in copies):
        raise _mismatch(context, index, "the two copies of a component differ")
    return copies[0].body
