"""One connection between two parties: HELLO, messages in order, keep-alive, back-pressure.

```
both ends  HELLO(wire, party, clock, boot, state)
both ends  READY, or REFUSE(code, what) and close
then       messages both ways, PING every ping_s answered by PONG, BYE before a graceful close
```
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from mpc_ops.errors import ComityError, PeerProtocolError, PeerUnavailable
from mpc_ops.federation.pki import PartyId
from mpc_ops.transport.peers import LinkCounters, LinkTimings, PeerHello
from mpc_ops.transport.tls import explain
from mpc_ops.transport.wire import (
    HEADER_BYTES,
    Hello,
    Kind,
    Refusal,
    check_header,
    decode_control,
    encode_control,
    header,
)

__all__ = ["FIRST_OPAQUE_KIND", "Link", "LinkRefused"]

FIRST_OPAQUE_KIND = 16
_CHUNK = 256 << 10
_SMALL_BUFFER = 64 << 10
_NETWORK_ERRORS = (OSError, EOFError, TimeoutError)  # ssl.SSLError is an OSError


class LinkRefused(PeerProtocolError):
    """The peer refused this side during HELLO; `code` and `what` are the peer's own words, length-checked."""


class Link:
    """One live connection to a peer whose party is already proven by its certificate."""

    def __init__(
        self,
        peer: PartyId,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        timings: LinkTimings,
        counters: LinkCounters,
    ) -> None:
        self.peer = peer
        self.done = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._timings = timings
        self._counters = counters
        self._lock = asyncio.Lock()
        self._ended = False
        self._cause: ComityError | None = None
        self._handling = False
        self._heard = asyncio.get_running_loop().time()
        writer.transport.set_write_buffer_limits(high=_CHUNK)

    async def handshake(self, ours: Hello, judge: Callable[[Hello], PeerHello]) -> PeerHello:
        """Exchange HELLO and READY.

        Args:
            ours: what to announce.
            judge: checks the peer's HELLO; a ComityError from it is sent to the peer as REFUSE and raised here.

        Raises:
            LinkRefused: the peer refuses this side.
            PeerProtocolError: the peer breaks the form of the exchange, or `judge` refuses it.
            PeerUnavailable: LINK_TIMEOUT, LINK_CLOSED, LINK_FAILED.
        """
        try:
            async with asyncio.timeout(self._timings.handshake_s):
                await self.send(Kind.HELLO, encode_control(ours))
                theirs = decode_control(await self._expect(Kind.HELLO), Hello, self.peer)
                try:
                    hello = judge(theirs)
                except ComityError as error:
                    await self.refuse(error)
                    raise
                with contextlib.suppress(PeerUnavailable):  # a peer that closed has left its REFUSE to be read
                    await self.send(Kind.READY, b"")
                await self._expect(Kind.READY)
        except _NETWORK_ERRORS as error:
            raise explain(error, self.peer) from None
        return hello

    async def refuse(self, error: ComityError) -> None:
        """Tell the peer why this side closes the link (code and sentence, never values) and close it.

        Returns within `close_s`, whether or not the peer takes it.
        """
        if self._ended:
            return
        text = error.what if error.expected is None else f"{error.what}; expected {error.expected}; got {error.got}"
        await self._finish(Kind.REFUSE, encode_control(Refusal(code=error.code, what=text[:900])))

    async def send(self, kind: int, payload: bytes) -> None:
        """Send one message; returns when the buffer below has room again.

        A cancelled or failed send leaves half a message on the wire, so it ends the link.

        Raises:
            PeerUnavailable: LINK_FAILED, LINK_TIMEOUT.
        """
        head = header(kind, len(payload))
        async with self._lock:
            if self._ended:
                raise self._gone()
            complete = False
            try:
                await self._write(head, payload)
                complete = True
            except _NETWORK_ERRORS as error:
                self._cause = self._cause or explain(error, self.peer)
                raise self._gone() from None
            finally:
                if not complete:
                    self.abort()
        self._count_sent(len(payload))

    async def run(self, on_message: Callable[[PartyId, int, bytes], Awaitable[None]]) -> ComityError:
        """Hand over messages until the link ends; return why it ended.

        Exceptions of `on_message` that are no ComityError come out as they are: they are bugs of the layer above.
        """
        keeper = asyncio.create_task(self._keep_alive(), name=f"link-keeper-{self.peer}")
        try:
            while True:
                kind, payload = await self._read()
                if kind == Kind.BYE:
                    return PeerUnavailable("PEER_CLOSED", "the peer closed the link", ids={"party": self.peer})
                if kind >= FIRST_OPAQUE_KIND:
                    self._handling = True
                    await on_message(self.peer, kind, payload)
                    self._handling = False
                    self._heard = asyncio.get_running_loop().time()
                else:
                    self._control(kind, payload)
        except ComityError as error:
            if not isinstance(error, LinkRefused):  # what came from the peer is not echoed
                await self.refuse(error)
            return error
        except _NETWORK_ERRORS as error:
            return self._cause or explain(error, self.peer)
        finally:
            keeper.cancel()
            self.abort()

    async def say_bye(self) -> None:
        """End gracefully: what was sent before is flushed, then BYE, then the connection is closed."""
        if not self._ended:
            await self._finish(Kind.BYE, b"")

    def abort(self, cause: ComityError | None = None) -> None:
        """Drop the connection at once; safe to call again."""
        self._ended = True
        self._cause = self._cause or cause
        self._writer.transport.abort()

    def _gone(self) -> PeerUnavailable:
        code = self._cause.code if self._cause else "LINK_CLOSED"
        return PeerUnavailable("PEER_UNAVAILABLE", "the link to a peer is down", got=code, ids={"party": self.peer})

    async def _write(self, head: bytes, payload: bytes) -> None:
        self._writer.write(head)
        view = memoryview(payload)
        for start in range(0, len(view), _CHUNK):
            self._writer.write(view[start : start + _CHUNK])
            async with asyncio.timeout(self._timings.send_s):
                await self._writer.drain()
        if self._writer.transport.is_closing():
            raise ConnectionResetError

    async def _read(self) -> tuple[int, bytes]:
        head = await self._reader.readexactly(HEADER_BYTES)
        self._heard = asyncio.get_running_loop().time()
        kind, length = check_header(head, self.peer)
        payload = bytearray()
        while len(payload) < length:
            # Only what has arrived is held: an announced length costs nothing by itself.
            chunk = await self._reader.read(min(_CHUNK, length - len(payload)))
            if not chunk:
                raise asyncio.IncompleteReadError(bytes(0), length)
            payload += chunk
            self._heard = asyncio.get_running_loop().time()
        self._counters.received_bytes += HEADER_BYTES + length
        self._counters.received_messages += 1
        return kind, bytes(payload)

    async def _expect(self, wanted: Kind) -> bytes:
        kind, payload = await self._read()
        if kind == Kind.REFUSE:
            refusal = decode_control(payload, Refusal, self.peer)
            raise LinkRefused(refusal.code, refusal.what, ids={"party": self.peer})
        if kind != wanted:
            raise PeerProtocolError(
                "MESSAGE_UNEXPECTED",
                "a peer sent another message than the handshake asks for",
                expected=wanted.name,
                got=Kind(kind).name,
                ids={"party": self.peer},
            )
        return payload

    def _control(self, kind: int, payload: bytes) -> None:
        if kind == Kind.PING:
            self._write_small(Kind.PONG, payload)
        elif kind == Kind.REFUSE:
            refusal = decode_control(payload, Refusal, self.peer)
            raise LinkRefused(refusal.code, refusal.what, ids={"party": self.peer})
        elif kind != Kind.PONG:
            raise PeerProtocolError(
                "MESSAGE_UNEXPECTED", "a peer repeats the handshake", got=Kind(kind).name, ids={"party": self.peer}
            )

    def _write_small(self, kind: Kind, payload: bytes) -> None:
        # Skipped while a message is being written (bytes flow, so the peer knows we live) or while the peer does not read.
        if self._ended or self._lock.locked() or self._writer.transport.get_write_buffer_size() > _SMALL_BUFFER:
            return
        self._writer.write(header(kind, len(payload)) + payload)
        self._count_sent(len(payload))

    def _count_sent(self, length: int) -> None:
        self._counters.sent_bytes += HEADER_BYTES + length
        self._counters.sent_messages += 1

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._timings.ping_s)
            silent_s = asyncio.get_running_loop().time() - self._heard
            if silent_s > self._timings.silent_s and not self._handling:
                self.abort(PeerUnavailable("LINK_SILENT", "nothing was heard from a peer", ids={"party": self.peer}))
                return
            self._write_small(Kind.PING, bytes(8))

    async def _finish(self, kind: Kind, payload: bytes) -> None:
        # Closing in order lets the last message arrive: a reset could overtake it.
        try:
            async with asyncio.timeout(self._timings.close_s):
                await self.send(kind, payload)
                self._writer.close()
                await self._writer.wait_closed()
        except (*_NETWORK_ERRORS, PeerUnavailable):
            pass
        finally:
            self.abort()
