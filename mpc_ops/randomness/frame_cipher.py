"""AES-256-GCM frames under one key per direction: nonce = lane (32 bits) || counter (64 bits), never reset under a key.

The associated data is the full address, so a frame opens only where it was meant to arrive. A resend sends the stored
ciphertext; sealing again would draw the next counter. Only the digest of a ciphertext may enter a ledger.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.randomness.context import encode_context

__all__ = ["FRAME_OVERHEAD_BYTES", "MAX_BLOCKS", "FrameAddress", "FrameOpener", "FrameSealer", "frame_digest"]

FRAME_OVERHEAD_BYTES = 16
MAX_BLOCKS = 1 << 32
_KEY_BYTES = 32
_MAX_LANE, _MAX_COUNTER = 1 << 32, 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAddress:
    """Where a frame belongs: session, attempt, place in the protocol, direction, and its part of a longer message.

    Attributes:
        run_id, cluster, attempt: the session's try.
        stage, step: place in the protocol, for example ("region", "flush").
        sender, receiver: operator ids.
        round, place: round of the protocol, and which of the protocols that share the round.
        lane: stream of frames within the direction.
        part: index of this frame in its message.
        total_bytes: plaintext length of the whole message.
    """

    run_id: str
    cluster: str
    attempt: int
    stage: str
    step: str
    sender: str
    receiver: str
    round: int = 0
    place: int = 0
    lane: int = 0
    part: int = 0
    total_bytes: int

    def aad(self, counter: int) -> bytes:
        """Return the associated data of the frame with this counter."""
        return encode_context(
            "comity/frame/v1", self.run_id, self.cluster, self.attempt, self.stage, self.step,
            self.round, self.place, self.sender, self.receiver, self.lane, counter, self.part, self.total_bytes,
        )  # fmt: skip


def frame_digest(ciphertext: bytes) -> str:
    """Return the SHA-256 (hex) of a frame's ciphertext: the only digest of a frame that ledgers may hold."""
    return hashlib.sha256(ciphertext).hexdigest()


def _cipher(key: bytes) -> AESGCM:
    if len(key) != _KEY_BYTES:
        raise LocalProtocolError(
            "KEY_LENGTH", "a frame key has another length", expected="32 bytes", got=f"{len(key)} bytes"
        )
    return AESGCM(key)


def _place(address: FrameAddress) -> dict[str, object]:
    return {"sender": address.sender, "step": address.step, "lane": address.lane}


def _invalid(address: FrameAddress) -> PeerProtocolError:
    return PeerProtocolError(
        "FRAME_INVALID", "a frame does not open: altered, cut, or meant for another place", ids=_place(address)
    )


def _nonce(lane: int, counter: int) -> bytes:
    return lane.to_bytes(4, "big") + counter.to_bytes(8, "big")


class FrameSealer:
    """Sealing end of one direction. Make exactly one per key, and let it die with the key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = _cipher(key)
        self._next: dict[int, int] = {}
        self._blocks = 0

    def seal(self, address: FrameAddress, plaintext: bytes | memoryview) -> tuple[int, bytes]:
        """Return (counter, ciphertext with tag); the counter of a lane grows by one with every frame.

        Raises:
            LocalProtocolError: FRAME_KEY_EXHAUSTED after 2^32 blocks under one key.
        """
        counter = self._take(address.lane, len(plaintext))
        return counter, self._cipher.encrypt(_nonce(address.lane, counter), plaintext, address.aad(counter))

    def seal_into(self, address: FrameAddress, plaintext: bytes | memoryview, out: memoryview) -> int:
        """Write ciphertext and tag (16 bytes more than the plaintext) to `out`, exactly that long; return the counter.

        Raises:
            LocalProtocolError: FRAME_KEY_EXHAUSTED.
        """
        counter = self._take(address.lane, len(plaintext))
        self._cipher.encrypt_into(_nonce(address.lane, counter), plaintext, address.aad(counter), out)
        return counter

    def _take(self, lane: int, length: int) -> int:
        """Return the next counter of a lane, which no other frame under this key gets."""
        counter = self._next.get(lane, 0)
        self._blocks += length // 16 + 2
        if self._blocks > MAX_BLOCKS or counter >= _MAX_COUNTER or not 0 <= lane < _MAX_LANE:
            raise LocalProtocolError("FRAME_KEY_EXHAUSTED", "a frame key has reached its limit", ids={"lane": lane})
        self._next[lane] = counter + 1
        return counter

    def __repr__(self) -> str:
        return "FrameSealer(<redacted>)"


class FrameOpener:
    """Opening end of one direction: frames of a lane are accepted in order, each once."""

    def __init__(self, key: bytes) -> None:
        self._cipher = _cipher(key)
        self._next: dict[int, int] = {}

    def open(self, address: FrameAddress, counter: int, ciphertext: bytes) -> bytes:
        """Return the plaintext of the next frame of its lane.

        Raises:
            PeerProtocolError: FRAME_OUT_OF_ORDER for a repeated or early counter; FRAME_INVALID if it was altered, cut,
                or addressed elsewhere. Neither advances the counter.
        """
        expected = self._next.get(address.lane, 0)
        if counter != expected:
            raise PeerProtocolError(
                "FRAME_OUT_OF_ORDER",
                "a frame is not the next one of its lane",
                expected=expected,
                got=counter,
                ids=_place(address),
            )
        try:
            plaintext = self._cipher.decrypt(_nonce(address.lane, counter), ciphertext, address.aad(counter))
        except (InvalidTag, ValueError):
            raise _invalid(address) from None
        self._next[address.lane] = expected + 1
        return plaintext

    def open_into(self, address: FrameAddress, ciphertext: memoryview, out: memoryview) -> None:
        """Write the plaintext of the next frame of its lane to `out`, exactly 16 bytes shorter than the ciphertext.

        Raises:
            PeerProtocolError: FRAME_INVALID, as `open`; what `out` holds then is not the peer's and must not be used.
        """
        counter = self._next.get(address.lane, 0)
        try:
            self._cipher.decrypt_into(_nonce(address.lane, counter), ciphertext, address.aad(counter), out)
        except (InvalidTag, ValueError):
            raise _invalid(address) from None
        self._next[address.lane] = counter + 1

    def __repr__(self) -> str:
        return "FrameOpener(<redacted>)"
