"""Bulk traffic between two operators: messages of any size as AES-256-GCM frames inside TLS 1.3, on blocking sockets.

A link has one connection for each direction, so that each TLS object is used by one thread only: a sender thread writes, a
receiver thread reads, and both overlap with the protocol's computing. A message is a head and frames:

```
head    magic (2 bytes), kind (1), lengths of session, stage and step (1 each), length of the body (8), then the three texts
frames  of at most FRAME_BYTES of the body each, ciphertext and tag; a message has at least one byte
```
Every frame's associated data is its full address: session, cluster, attempt, stage, step, both parties, part and total length.
A head that was altered, or a frame that was moved, cut or repeated, does not open. Bytes on the line per message:
`message_bytes`, to which TLS adds its own.

Memory: what a receiver holds is bounded by `limit_bytes` of messages that nobody has taken yet, and a sender's queue by the
same; one buffer of a frame is reused in each direction. Received bodies are decrypted where they stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np

from mpc_ops.errors import ComityError, LocalProtocolError, PeerProtocolError, PeerUnavailable
from mpc_ops.federation.pki import PartyId
from mpc_ops.randomness import PairKeys
from mpc_ops.randomness.frame_cipher import FRAME_OVERHEAD_BYTES, FrameAddress, FrameOpener, FrameSealer
from mpc_ops.transport.profile import LinkProfile, Pacer
from mpc_ops.transport.tls import explain

__all__ = [
    "FRAME_BYTES",
    "MAX_BODY_BYTES",
    "Arrived",
    "Body",
    "DataCounters",
    "DataEnds",
    "DataLink",
    "DataTimings",
    "Label",
    "message_bytes",
]

Body: TypeAlias = bytes | memoryview
"""Content of a message. A memoryview handed to `send` must not change until the round is over."""

FRAME_BYTES = 256 << 10
"""Plaintext of a frame: small enough to stay in the cache from the cipher to the socket, and one write."""
MAX_BODY_BYTES = 1 << 28
_MAGIC = b"CD"
_HEAD = struct.Struct(">2sBBBBQ")
_MESSAGE, _BYE = 1, 2
_MAX_TEXT = 255
_SMALL = 64 << 10
"""Bodies up to this length are delivered as bytes; longer ones stay where they were decrypted."""
_DIRECT = 16 << 10
_MAX_QUEUED = 256
_NETWORK_ERRORS = (OSError, EOFError)  # ssl.SSLError and TimeoutError are OSErrors


@dataclass(frozen=True, slots=True)
class DataTimings:
    """Time-outs of a data link, in seconds."""

    connect_s: float = 10.0
    send_s: float = 60.0
    """A write, or a place in the queue, that makes no progress for this long breaks the link."""
    close_s: float = 5.0


@dataclass(frozen=True, slots=True)
class DataEnds:
    """What the frames of a link are bound to besides their message.

    Attributes:
        cluster, attempt: the session's try.
        own, peer: party ids.
    """

    cluster: str
    attempt: int
    own: PartyId
    peer: PartyId


@dataclass(frozen=True, slots=True)
class Label:
    """Where a message belongs, as both ends derive it from the plan: session, stage, step; 1 to 255 bytes of UTF-8 each."""

    session: str
    stage: str
    step: str

    def encoded(self) -> tuple[bytes, bytes, bytes]:
        """Return the three texts as bytes; raises LocalProtocolError LABEL_INVALID if one is empty or too long."""
        texts = (self.session.encode(), self.stage.encode(), self.step.encode())
        if not all(1 <= len(text) <= _MAX_TEXT for text in texts):
            raise LocalProtocolError(
                "LABEL_INVALID", "a message's place is empty or too long", ids={"stage": self.stage}
            )
        return texts


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message; its printed form shows no content."""

    peer: PartyId
    label: Label
    body: Body

    def __repr__(self) -> str:
        return f"Arrived({self.peer}, {self.label}, {len(self.body)} bytes)"


@dataclass
class DataCounters:
    """What went over one direction since the link began: equal at both ends once everything has arrived.

    Attributes:
        messages, frames: their numbers.
        bytes: heads and ciphertexts, below them only TLS.
    """

    messages: int = 0
    frames: int = 0
    bytes: int = 0
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256, repr=False)

    def add(self, data: memoryview) -> None:
        """Count bytes of the direction's stream."""
        self.bytes += len(data)
        self._digest.update(data)

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of all heads and ciphertexts so far, for the ledger: it tells nothing about any content."""
        return self._digest.copy().hexdigest()


def message_bytes(label: Label, length: int) -> int:
    """Return the bytes of a message on the line: head, body, 16 for each frame; without TLS."""
    frames = -(-length // FRAME_BYTES)
    return _HEAD.size + sum(map(len, label.encoded())) + length + FRAME_OVERHEAD_BYTES * frames


class DataLink:
    """Both directions of traffic with one peer whose certificate and keys are already proven.

    Attributes:
        ends: what it is bound to.
        sent, received: counters.
    """

    def __init__(
        self,
        ends: DataEnds,
        outbound: socket.socket,
        inbound: socket.socket,
        keys: PairKeys,
        inbox: SimpleQueue[Arrived | tuple[PartyId, ComityError]],
        *,
        limit_bytes: int,
        timings: DataTimings | None = None,
        profile: LinkProfile | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to receive.

        Args:
            ends: see there.
            outbound: connection that only this side writes.
            inbound: connection that only the peer writes.
            keys: pair keys; of these only the two frame keys are used, which no other link may ever use.
            inbox: where messages go, and the error that ended the link.
            limit_bytes: most bytes of messages that wait, in each direction; one longer message may pass alone.
            timings: time-outs.
            profile: network to simulate.
            clock: monotonic seconds.
        """
        self.ends = ends
        self.sent, self.received = DataCounters(), DataCounters()
        self._out, self._in, self._inbox = outbound, inbound, inbox
        self._limit, self._timings, self._clock = limit_bytes, timings or DataTimings(), clock
        self._sealer, self._opener = FrameSealer(keys.send), FrameOpener(keys.receive)
        self._pacer = Pacer(profile) if profile else None
        self._state = threading.Condition()
        self._queue: SimpleQueue[tuple[Label, Body, float] | None] = SimpleQueue()
        self._queued = self._queued_bytes = self._held = 0
        self._writing = threading.Lock()
        self._error: ComityError | None = None
        self._closing = False
        self._out_buffer = memoryview(bytearray(_HEAD.size + 3 * _MAX_TEXT + FRAME_BYTES + FRAME_OVERHEAD_BYTES))
        self._in_buffer = memoryview(bytearray(FRAME_BYTES + FRAME_OVERHEAD_BYTES))
        outbound.settimeout(self._timings.send_s)
        inbound.settimeout(None)
        self._threads = [
            threading.Thread(target=work, name=f"data-{way}-{ends.peer}", daemon=True)
            for way, work in (("send", self._send_all), ("receive", self._receive_all))
        ]
        for thread in self._threads:
            thread.start()

    # -- sending

    def send(self, label: Label, body: Body) -> None:
        """Hand over one message; returns when the queue has taken it.

        Raises:
            LocalProtocolError: LABEL_INVALID, BODY_INVALID for an empty body or one beyond MAX_BODY_BYTES.
            PeerUnavailable: LINK_TIMEOUT if the queue has no room for `send_s`.
            ComityError: what ended the link.
        """
        label.encoded()
        size = len(body)
        if not 0 < size <= MAX_BODY_BYTES:
            raise LocalProtocolError(
                "BODY_INVALID", "a message is empty or too long", expected=f"1 to {MAX_BODY_BYTES}", got=size
            )
        with self._state:
            if not self._state.wait_for(lambda: self._has_room(size), self._timings.send_s):
                raise explain(TimeoutError(), self.ends.peer)
            self._check()
            direct = self._queued == 0 and size <= _DIRECT and self._pacer is None
            self._queued += 1
            self._queued_bytes += size
        if not direct:
            self._queue.put((label, body, self._clock()))
            return
        # A small message with nothing before it: spare the thread switch, which over many rounds costs more than the message.
        try:
            self._write_counted(label, body, 0.0)
        except ComityError as error:
            self._fail(error)
            raise

    def _has_room(self, size: int) -> bool:
        if self._error is not None or self._closing or self._queued == 0:
            return True
        return self._queued < _MAX_QUEUED and self._queued_bytes + size <= self._limit

    def _send_all(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write_counted(*item)
            except ComityError as error:
                self._fail(error)
                return
            del item  # its body may be large, and the next one far off

    def _write_counted(self, label: Label, body: Body, since: float) -> None:
        try:
            with self._writing:
                self._write(label, body, since)
        except _NETWORK_ERRORS as error:
            raise self._explain(error) from None
        finally:
            with self._state:
                self._queued -= 1
                self._queued_bytes -= len(body)
                self._state.notify_all()

    def _write(self, label: Label, body: Body, since: float) -> None:
        texts = label.encoded()
        head = b"".join((_HEAD.pack(_MAGIC, _MESSAGE, *map(len, texts), len(body)), *texts))
        buffer, filled = self._out_buffer, len(head)
        buffer[:filled] = head
        whole = memoryview(body)
        self.sent.messages += 1  # counted before the peer can have it, so that the two ends agree when it has
        for part, start in enumerate(range(0, len(body), FRAME_BYTES)):
            piece = whole[start : start + FRAME_BYTES]
            end = filled + len(piece) + FRAME_OVERHEAD_BYTES
            self._sealer.seal_into(self._address(label, part, len(body), outbound=True), piece, buffer[filled:end])
            self.sent.frames += 1
            self._transmit(buffer[:end], since)
            filled = 0

    def _transmit(self, data: memoryview, since: float) -> None:
        self.sent.add(data)
        if self._pacer is not None:
            wait = self._pacer.due(since, len(data)) - self._clock()
            if wait > 0:
                time.sleep(wait)
        self._out.sendall(data)

    def _address(self, label: Label, part: int, total: int, *, outbound: bool) -> FrameAddress:
        own, peer = self.ends.own, self.ends.peer
        return FrameAddress(
            run_id=label.session,
            cluster=self.ends.cluster,
            attempt=self.ends.attempt,
            stage=label.stage,
            step=label.step,
            sender=own if outbound else peer,
            receiver=peer if outbound else own,
            part=part,
            total_bytes=total,
        )

    # -- receiving

    def taken(self, size: int) -> None:
        """Say that a message of that many bytes left the inbox, so that more may be read."""
        with self._state:
            self._held -= size
            self._state.notify_all()

    def _receive_all(self) -> None:
        try:
            while self._receive_one():
                pass
            self._fail(PeerUnavailable("PEER_CLOSED", "the peer closed the link", ids=self._ids()))
        except _NETWORK_ERRORS as error:
            self._fail(self._explain(error))
        except ComityError as error:
            self._fail(error)

    def _receive_one(self) -> bool:
        """Receive one message into the inbox; return whether more may follow."""
        head = self._read(self._in_buffer[: _HEAD.size])
        kind, lengths, total = self._judge(head)
        if kind == _BYE:
            return False
        self.received.add(head)
        texts = self._read(self._in_buffer[: sum(lengths)])
        self.received.add(texts)
        label = self._label(texts, lengths)
        with self._state:
            self._state.wait_for(
                lambda: self._held == 0 or self._held + total <= self._limit or self._error is not None or self._closing
            )
            if self._error is not None or self._closing:
                return False
            self._held += total
        body = np.empty(total, dtype=np.uint8).data
        for part, start in enumerate(range(0, total, FRAME_BYTES)):
            piece = body[start : start + FRAME_BYTES]
            sealed = self._read(self._in_buffer[: len(piece) + FRAME_OVERHEAD_BYTES])
            self.received.add(sealed)
            self._opener.open_into(self._address(label, part, total, outbound=False), sealed, piece)
            self.received.frames += 1
        self.received.messages += 1
        self._inbox.put(Arrived(self.ends.peer, label, bytes(body) if total <= _SMALL else body.toreadonly()))
        return True

    def _read(self, into: memoryview) -> memoryview:
        filled = 0
        while filled < len(into):
            count = self._in.recv_into(into[filled:])
            if count == 0:
                raise EOFError
            filled += count
        return into

    def _judge(self, head: memoryview) -> tuple[int, tuple[int, int, int], int]:
        magic, kind, session, stage, step, total = _HEAD.unpack(head)
        lengths = (session, stage, step)
        fits = all(lengths) and 0 < total <= MAX_BODY_BYTES if kind == _MESSAGE else not any(lengths) and total == 0
        if magic != _MAGIC or kind not in (_MESSAGE, _BYE) or not fits:
            raise PeerProtocolError(
                "MESSAGE_INVALID", "a peer's message has no valid head", expected=f"1 to {MAX_BODY_BYTES} bytes",
                ids=self._ids(),
            )  # fmt: skip
        return kind, lengths, total

    def _label(self, texts: memoryview, lengths: tuple[int, int, int]) -> Label:
        session, stage, _ = lengths
        try:
            return Label(
                str(texts[:session], "utf-8"),
                str(texts[session : session + stage], "utf-8"),
                str(texts[session + stage :], "utf-8"),
            )
        except UnicodeDecodeError:
            raise PeerProtocolError("MESSAGE_INVALID", "a peer's message has no valid head", ids=self._ids()) from None

    # -- ending

    @property
    def error(self) -> ComityError | None:
        """What ended the link, None while it lives."""
        return self._error

    def close(self) -> None:
        """Send what is queued, say BYE and close; at most `close_s`, whether or not the peer takes it. Safe to repeat."""
        with self._state:
            first, self._closing = not self._closing, True
            self._state.notify_all()
        if first:
            self._queue.put(None)
            self._threads[0].join(self._timings.close_s)
            if self._error is None and not self._threads[0].is_alive():
                with contextlib.suppress(*_NETWORK_ERRORS), self._writing:
                    self._out.sendall(_HEAD.pack(_MAGIC, _BYE, 0, 0, 0, 0))
        self._drop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(self._timings.close_s)

    def _drop(self) -> None:
        for connection in (self._out, self._in):
            with contextlib.suppress(OSError):
                # The socket below: shutdown of the TLS object would take it from under the thread that uses it.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _fail(self, error: ComityError) -> None:
        """Note the first error, wake everybody and drop the connections."""
        with self._state:
            if self._error is not None or self._closing:
                return
            self._error = error
            self._state.notify_all()
        self._drop()
        self._queue.put(None)
        self._inbox.put((self.ends.peer, error))

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closing:
            raise PeerUnavailable("LINK_CLOSED", "this side closed the link", ids=self._ids())

    def _explain(self, error: Exception) -> ComityError:
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            error = EOFError()
        return explain(error, self.ends.peer)

    def _ids(self) -> dict[str, object]:
        return {"party": self.ends.peer, "cluster": self.ends.cluster, "attempt": self.ends.attempt}

    def __repr__(self) -> str:
        return f"DataLink({self.ends.own} to {self.ends.peer}, error={self._error.code if self._error else None})"
