"""Crossing: a sharing of cluster A becomes a fresh sharing of cluster B, in one message per pair (protocols.md 1.4, 13).

Handing a component over whole would let A_1 and B_2 hold all three together. So every component x_i is shared again:

* its two holders A_i and A_{i-1} derive the same seeds s_{i,0}, s_{i,1} from their pair key k_i;
* sub-shares are F(s_{i,0}), F(s_{i,1}) and x_{i,2} = x_i - F(s_{i,0}) - F(s_{i,1});
* A_i sends to B_j the sub-shares j and j+1 of x_i; A_{i-1} sends to B_j the SHA-256 of exactly these bytes, inside its own
  sealed frame; B_j compares before it adds. Its component j of the result is the sum over i of sub-share j.

Frame of A_p to B_j: header (magic 4, attempt 4, lanes 8, context digest 32 = 48 bytes), sub-share j of x_p, sub-share
j+1 of x_p, check of what A_{p+1} owes B_j for x_{p+1} (32). A seed has 32 bytes, x_{p,2} has 8 per lane:

| receiver | frame bytes |
|---|---|
| B_0 (seed, seed) | 144 |
| B_1 (seed, explicit), B_2 (explicit, seed) | 112 + 8 n |

Latencies: 1. Sent: 368 + 16 n bytes per A party, before sealing.
Security: B's sharing is right unless A_i and A_{i-1} collude; a mismatch aborts and names the two. One corrupt operator in A
together with one in B learn nothing: they miss one component of x and one sub-share of each other component.
Leaks: lane count. The check goes to a party that holds the checked bytes, so it is no test for guesses.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from mpc_ops.errors import Abort, LocalProtocolError, PeerProtocolError
from mpc_ops.protocol.sums.linear import Share
from mpc_ops.randomness import SEED_BYTES, derive, encode_context, expand
from mpc_ops.ring import LANE_BYTES, RingArray, add_into, check_ring, from_bytes, sub_into, to_bytes, zeros
from mpc_ops.sharing import held_by

__all__ = ["CrossRoute", "build_crossing", "crossing_frame_bytes", "open_crossing"]

_MAGIC = b"CMX1"
_HEADER = struct.Struct(">4sIQ32s")
_CHECK_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossRoute:
    """One crossing of one run.

    Attributes:
        run_id: the run.
        source: id of cluster A.
        target: id of cluster B.
        crossing: name of the plan's node.
        lanes: lanes of the vector.
        senders: operator ids of A by position.
        receivers: operator ids of B by position.
    """

    run_id: str
    source: str
    target: str
    crossing: str
    lanes: int
    senders: tuple[str, str, str]
    receivers: tuple[str, str, str]

    def digest(self, attempt: int, sender: int, receiver: int) -> bytes:
        """Return the digest that binds a frame to its place."""
        return hashlib.sha256(
            encode_context(
                "comity/cross/v1", self.run_id, self.source, self.target, self.crossing, attempt, self.lanes,
                self.senders[sender], self.receivers[receiver], sender, receiver,
            )
        ).digest()  # fmt: skip

    def ids(self) -> dict[str, object]:
        """Ids that place an error."""
        return {"run": self.run_id[:12], "from": self.source, "to": self.target, "crossing": self.crossing}


def crossing_frame_bytes(lanes: int, receiver: int) -> int:
    """Return the exact length of each frame to position `receiver` of the target cluster."""
    return _HEADER.size + sum(_sub_bytes(lanes, index) for index in held_by(receiver)) + _CHECK_BYTES


def _sub_bytes(lanes: int, index: int) -> int:
    return lanes * LANE_BYTES if index == 2 else SEED_BYTES


def _sub_shares(
    value: RingArray, key: bytes, route: CrossRoute, attempt: int, index: int
) -> tuple[bytes, bytes, bytes]:
    """Return the bodies of the three sub-shares of component `index`; both holders compute the same ones."""
    seeds = [
        derive(key, "cross", route.run_id, route.source, route.target, route.crossing, attempt, index, which)
        for which in (0, 1)
    ]
    rest = value.copy()
    for seed in seeds:
        sub_into(rest, expand(seed, route.lanes, "sub-share"))
    return seeds[0], seeds[1], to_bytes(rest)


def _payload(subs: tuple[bytes, bytes, bytes], receiver: int) -> bytes:
    first, second = held_by(receiver)
    return subs[first] + subs[second]


def build_crossing(
    share: Share, keys: tuple[bytes, bytes], route: CrossRoute, attempt: int
) -> tuple[bytes, bytes, bytes]:
    """Return the frame bodies to B_0, B_1 and B_2. Send them only after the session has COMMITTED `attempt`.

    Args:
        share: own share of the vector to hand over.
        keys: the `prg` pair keys of components `party` and `party + 1` (with the operators before and after).
        route: where it goes.
        attempt: the attempt whose keys these are; part of every seed, since a repeated seed would reveal differences.

    Sent, leaks, security: see the module's docstring. The bodies are plaintext; the driver seals each to its receiver.
    """
    if share.lanes != route.lanes:
        raise LocalProtocolError("RING_LENGTH", "a share of another length", expected=route.lanes, got=share.lanes)
    own, following = held_by(share.party)
    owed = _sub_shares(share.first, keys[0], route, attempt, own)
    checked = _sub_shares(share.second, keys[1], route, attempt, following)
    frames = [
        _HEADER.pack(_MAGIC, attempt, route.lanes, route.digest(attempt, share.party, receiver))
        + _payload(owed, receiver)
        + hashlib.sha256(_payload(checked, receiver)).digest()
        for receiver in range(3)
    ]
    return frames[0], frames[1], frames[2]


def open_crossing(frames: Mapping[int, bytes], route: CrossRoute, receiver: int) -> Share:
    """Check the frames of the three senders and return the receiver's share of the vector.

    Args:
        frames: opened frame bodies by the sender's position; all three.
        route: where they come from, as the receiver's own copy of plan and manifest says.
        receiver: own position in the target cluster.

    Raises:
        PeerProtocolError: CROSS_INVALID, naming a sender whose frame has another length, place or attempt.
        Abort: CROSS_MISMATCH, naming the pair (A_i, A_{i-1}) whose payload and check differ. Nothing was added.
    """
    if set(frames) != {0, 1, 2}:
        raise LocalProtocolError(
            "CROSS_INCOMPLETE", "a crossing needs the frames of all three senders", ids=route.ids()
        )
    attempts = {sender: _check_header(frame, route, sender, receiver) for sender, frame in frames.items()}
    _one_attempt(attempts, route)
    payloads = {sender: frame[_HEADER.size : -_CHECK_BYTES] for sender, frame in frames.items()}
    for index in range(3):
        holder = (index - 1) % 3
        if not hmac.compare_digest(hashlib.sha256(payloads[index]).digest(), frames[holder][-_CHECK_BYTES:]):
            raise Abort(
                "CROSS_MISMATCH",
                "the two holders of a component sent different sub-shares",
                ids={**route.ids(), "component": index, "pair": f"{route.senders[index]},{route.senders[holder]}"},
                hint="One of the two altered it; the run ends without output",
            )
    return _add_payloads(payloads, route.lanes, receiver)


def _one_attempt(attempts: Mapping[int, int], route: CrossRoute) -> None:
    """Refuse frames of several attempts: a cluster commits exactly one, so the odd sender out did not."""
    numbers = list(attempts.values())
    usual = max(set(numbers), key=lambda number: (numbers.count(number), number))
    for sender, attempt in attempts.items():
        if attempt != usual:
            raise PeerProtocolError(
                "CROSS_INVALID",
                "senders of one cluster sent frames of different attempts",
                expected=usual,
                got=attempt,
                ids={**route.ids(), "party": route.senders[sender]},
            )


def _add_payloads(payloads: Mapping[int, bytes], lanes: int, receiver: int) -> Share:
    first_index, second_index = held_by(receiver)
    cut = _sub_bytes(lanes, first_index)
    first, second = zeros(lanes), zeros(lanes)
    for payload in payloads.values():
        add_into(first, _vector(payload[:cut], lanes, first_index))
        add_into(second, _vector(payload[cut:], lanes, second_index))
    return Share(receiver, first, second)


def _vector(body: bytes, lanes: int, index: int) -> RingArray:
    return check_ring(from_bytes(body, lanes) if index == 2 else expand(body, lanes, "sub-share"), lanes)


def _check_header(frame: bytes, route: CrossRoute, sender: int, receiver: int) -> int:
    """Return the frame's attempt."""
    ids = {**route.ids(), "party": route.senders[sender]}
    expected = crossing_frame_bytes(route.lanes, receiver)
    if len(frame) != expected:
        raise PeerProtocolError(
            "CROSS_INVALID",
            "a crossing frame has another length",
            expected=f"{expected} bytes",
            got=f"{len(frame)} bytes",
            ids=ids,
        )
    magic, attempt, lanes, digest = _HEADER.unpack_from(frame)
    if magic != _MAGIC or lanes != route.lanes or digest != route.digest(attempt, sender, receiver):
        raise PeerProtocolError("CROSS_INVALID", "a crossing frame was made for another place", ids=ids)
    return int(attempt)
