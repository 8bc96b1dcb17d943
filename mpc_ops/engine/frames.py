"""Bodies of protocol messages as sealed frames of one link, and back: split, counted, kept for repeating, bounded.

```
FrameOutlet.send(place, body) -> frames     pieces of PIECE_BYTES, counters 0, 1, 2, ... of lane 0
FrameInlet.take(frame), .bodies()           opened in the order of counters, joined, each body once
```
A frame that a broken connection swallowed is sent again as the stored ciphertext, never sealed anew. The receiver says what
it has (`Seen`): at every question of the session, on a new connection (then with `lost`, and everything after it is sent
again), and by itself for every CONFIRM_BYTES that arrived. What it has is forgotten here. More than REPEAT_BYTES are never
kept: if a peer then lacks what was forgotten, the attempt cannot go on, which is the transient error FRAMES_LOST, and the
session starts the next attempt with fresh keys.

Bounds of one link: MAX_AHEAD_FRAMES and MAX_AHEAD_BYTES of frames that came before their turn (further ones are dropped
and asked for again), one body of at most MAX_BODY_BYTES under way, REPEAT_BYTES of own frames.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from mpc_ops.errors import PeerProtocolError, PeerUnavailable
from mpc_ops.randomness import FRAME_OVERHEAD_BYTES, FrameAddress, FrameOpener, FrameSealer
from mpc_ops.session.messages import MAX_BODY_BYTES, MAX_FRAME_BYTES, Frame, Seen

__all__ = [
    "CONFIRM_BYTES",
    "MAX_AHEAD_BYTES",
    "MAX_AHEAD_FRAMES",
    "PIECE_BYTES",
    "REPEAT_BYTES",
    "Arrived",
    "FrameInlet",
    "FrameOutlet",
    "LinkPlace",
    "Place",
    "Tally",
    "frame_count",
]

PIECE_BYTES = MAX_FRAME_BYTES - FRAME_OVERHEAD_BYTES
REPEAT_BYTES = 1 << 29
"""Two rounds of the longest messages: an honest party is never further ahead of what its peer has opened."""
CONFIRM_BYTES = 1 << 24
"""How much comes in between two confirmations that nobody asked for."""
MAX_AHEAD_FRAMES = 256
MAX_AHEAD_BYTES = 1 << 26


def frame_count(length: int) -> int:
    """Return in how many frames a body of that length travels."""
    return -(-length // PIECE_BYTES)


@dataclass(frozen=True, slots=True)
class LinkPlace:
    """What every frame of one direction of a link in an attempt has in common; `sender` and `receiver` are operator ids."""

    run_id: str
    cluster: str
    attempt: int
    sender: str
    receiver: str

    def ids(self) -> dict[str, object]:
        """Ids that place an error; the other end is named by the caller."""
        return {"run": self.run_id[:12], "cluster": self.cluster, "attempt": self.attempt}


@dataclass(frozen=True, slots=True)
class Place:
    """Address of a protocol message within a link: stage, step, round, and which of the protocols that share the round."""

    stage: str
    step: str
    round: int = 0
    part: int = 0


@dataclass(frozen=True, slots=True)
class Arrived:
    """One whole message body that came in; its printed form shows no content."""

    place: Place
    data: bytes

    def __repr__(self) -> str:
        return f"Arrived({self.place}, {len(self.data)} bytes)"


@dataclass(frozen=True, slots=True)
class Tally:
    """Frames of one direction so far.

    Attributes:
        frames: their number.
        bytes: length of their ciphertexts, tags included.
        digest: SHA-256 (hex) over the SHA-256 digests of the ciphertexts in the order of counters.
    """

    frames: int
    bytes: int
    digest: str


class _Running:
    """A tally that grows."""

    def __init__(self) -> None:
        self.frames = self.bytes = 0
        self._digest = hashlib.sha256()

    def add(self, ciphertext: bytes) -> None:
        self.frames += 1
        self.bytes += len(ciphertext)
        self._digest.update(hashlib.sha256(ciphertext).digest())

    def now(self) -> Tally:
        return Tally(self.frames, self.bytes, self._digest.hexdigest())


def _address(link: LinkPlace, place: Place, piece: int, total: int) -> FrameAddress:
    return FrameAddress(
        run_id=link.run_id, cluster=link.cluster, attempt=link.attempt, stage=place.stage, step=place.step,
        sender=link.sender, receiver=link.receiver, round=place.round, place=place.part, lane=0, part=piece,
        total_bytes=total,
    )  # fmt: skip


class FrameOutlet:
    """Sealing end of one direction."""

    def __init__(self, link: LinkPlace, key: bytes, *, repeat_bytes: int = REPEAT_BYTES) -> None:
        self._link = link
        self._sealer = FrameSealer(key)
        self._sent = _Running()
        self._kept: deque[Frame] = deque()
        self._kept_bytes = 0
        self._first_kept = 0
        self._confirmed = 0
        self._limit = repeat_bytes

    def send(self, place: Place, body: bytes | memoryview) -> list[Frame]:
        """Return the frames of a body of 1 to MAX_BODY_BYTES bytes (ValueError beyond: a bug of the caller)."""
        if not 0 < len(body) <= MAX_BODY_BYTES:
            raise ValueError(f"a message body has {len(body)} bytes, 1 to {MAX_BODY_BYTES} are allowed")
        out = []
        for piece, start in enumerate(range(0, len(body), PIECE_BYTES)):
            address = _address(self._link, place, piece, len(body))
            counter, ciphertext = self._sealer.seal(address, body[start : start + PIECE_BYTES])
            out.append(
                Frame(
                    run_id=self._link.run_id, cluster=self._link.cluster, attempt=self._link.attempt, lane=0,
                    counter=counter, stage=place.stage, step=place.step, round=place.round, part=place.part,
                    piece=piece, total=len(body), ciphertext=ciphertext,
                )
            )  # fmt: skip
            self._keep(out[-1])
        return out

    def _keep(self, frame: Frame) -> None:
        self._sent.add(frame.ciphertext)
        self._kept.append(frame)
        self._kept_bytes += len(frame.ciphertext)
        while self._kept_bytes > self._limit:
            self._forget_first()

    def _forget_first(self) -> None:
        self._kept_bytes -= len(self._kept.popleft().ciphertext)
        self._first_kept += 1

    def confirmed(self, seen: Seen) -> list[Frame]:
        """Forget what the peer has; return what it lacks, if it lost something or has not moved since it last said so.

        Raises:
            PeerProtocolError: FRAME_OUT_OF_ORDER if it claims frames that were never sent.
            PeerUnavailable: FRAMES_LOST if it lacks a frame that is no longer kept; transient.
        """
        if seen.frames > self._sent.frames:
            raise PeerProtocolError(
                "FRAME_OUT_OF_ORDER", "a peer confirms frames that were not sent",
                expected=f"at most {self._sent.frames}", got=seen.frames,
                ids={**self._link.ids(), "peer": self._link.receiver},
            )  # fmt: skip
        if seen.frames < self._confirmed:
            return []  # overtaken by a later one
        waits = seen.lost or seen.frames == self._confirmed
        self._confirmed = seen.frames
        while self._kept and self._first_kept < seen.frames:
            self._forget_first()
        if not waits or seen.frames == self._sent.frames:
            return []
        if self._first_kept > seen.frames:
            raise PeerUnavailable(
                "FRAMES_LOST", "a peer lacks frames that are no longer kept",
                ids={**self._link.ids(), "peer": self._link.receiver}, hint="The session starts a new attempt",
            )  # fmt: skip
        return list(self._kept)

    def tally(self) -> Tally:
        """Return what was sealed so far."""
        return self._sent.now()

    def close(self) -> None:
        """Forget the frames."""
        self._kept.clear()

    def __repr__(self) -> str:
        return f"FrameOutlet({self._link.sender} to {self._link.receiver}, {self._sent.frames} frames)"


class FrameInlet:
    """Opening end of one direction. Frames may come before the key is confirmed; they are opened when `key` is set."""

    def __init__(self, link: LinkPlace) -> None:
        self._link = link
        self._opener: FrameOpener | None = None
        self._received = _Running()
        self._waiting: dict[int, Frame] = {}
        self._waiting_bytes = 0
        self._dropped = False
        self._body = bytearray()
        self._place: tuple[Place, int] | None = None
        self._pieces = 0
        self._said_bytes = 0

    def unlock(self, key: bytes) -> None:
        """Set the confirmed key of this direction."""
        self._opener = FrameOpener(key)

    def take(self, frame: Frame) -> None:
        """Hold a frame until its turn; repeated ones, and those too far ahead, are dropped.

        Raises:
            PeerProtocolError: FRAME_INVALID for a lane that is not there.
        """
        if frame.lane != 0:
            raise self._wrong("FRAME_INVALID", "a frame on a lane that a stage does not have")
        turn = frame.counter == self._received.frames
        if frame.counter < self._received.frames or frame.counter in self._waiting:
            return
        size = len(frame.ciphertext)
        if not turn and (
            len(self._waiting) >= MAX_AHEAD_FRAMES or self._waiting_bytes + size > MAX_AHEAD_BYTES
        ):  # the turn comes from what is before it, so the next frame always has room
            self._dropped = True
            return
        self._waiting[frame.counter] = frame
        self._waiting_bytes += size

    def bodies(self) -> Iterator[Arrived]:
        """Open what is next and yield each body as it is whole.

        Raises:
            PeerProtocolError: FRAME_INVALID if a frame was altered, cut or moved; FRAME_OUT_OF_ORDER for a piece that does
                not follow; LENGTH_INVALID for a piece of another length.
        """
        while self._opener is not None and self._received.frames in self._waiting:
            frame = self._waiting.pop(self._received.frames)
            self._waiting_bytes -= len(frame.ciphertext)
            self._join(frame, self._opener)
            if self._place is not None and len(self._body) == self._place[1]:
                body = Arrived(self._place[0], bytes(self._body))
                self._body, self._place, self._pieces = bytearray(), None, 0
                yield body

    def _join(self, frame: Frame, opener: FrameOpener) -> None:
        place, total = Place(frame.stage, frame.step, frame.round, frame.part), frame.total
        if (self._place is not None and (place, total) != self._place) or frame.piece != self._pieces:
            raise self._wrong("FRAME_OUT_OF_ORDER", "a frame is not the next piece of its message")
        expected = min(PIECE_BYTES, total - len(self._body))
        if len(frame.ciphertext) != expected + FRAME_OVERHEAD_BYTES:
            raise self._wrong("LENGTH_INVALID", "a frame has another length than its message says")
        data = opener.open(_address(self._link, place, frame.piece, total), frame.counter, frame.ciphertext)
        self._received.add(frame.ciphertext)
        self._place, self._pieces = (place, total), self._pieces + 1
        self._body += data

    def say(self, *, lost: bool = False) -> Seen:
        """Return what this end has."""
        self._said_bytes, self._dropped = self._received.bytes, False
        link = self._link
        return Seen(
            run_id=link.run_id, cluster=link.cluster, attempt=link.attempt, frames=self._received.frames, lost=lost
        )

    def due(self) -> list[Seen]:
        """Return what the peer has to know now: that frames were dropped here, or that it may forget what came."""
        if self._opener is None:
            return []
        if self._dropped and not self._waiting:
            return [self.say(lost=True)]
        return [self.say()] if self._received.bytes - self._said_bytes >= CONFIRM_BYTES else []

    def tally(self) -> Tally:
        """Return what was opened so far."""
        return self._received.now()

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._body, self._place = bytearray(), None

    def _wrong(self, code: str, what: str) -> PeerProtocolError:
        return PeerProtocolError(code, what, ids={**self._link.ids(), "peer": self._link.sender})

    def __repr__(self) -> str:
        return f"FrameInlet({self._link.sender} to {self._link.receiver}, {self._received.frames} frames)"
