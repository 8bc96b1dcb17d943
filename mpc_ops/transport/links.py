"""Party links: one listening port, one connection per peer, reconnection.

```
manager = LinkManager(identity, ("127.0.0.1", 0), {"cn-2": PeerEndpoint(...)}, user)
await manager.start()          # listens and begins to dial
await manager.send("cn-2", Kind.SESSION, payload)   # PeerUnavailable if there is no link now
await manager.close()
```

A link never promises delivery: `send` returns when the layer below took the bytes. The layers above journal before
sending, resend on every UP, and treat a repeated message as a no-op.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import logging
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping

from mpc_ops.errors import ComityError, ConfigError, LocalProtocolError, PeerProtocolError, PeerUnavailable
from mpc_ops.federation.pki import PartyId
from mpc_ops.transport.link import FIRST_OPAQUE_KIND, Link, LinkRefused
from mpc_ops.transport.peers import (
    LinkCounters,
    LinkIdentity,
    LinkState,
    LinkStatus,
    LinkTimings,
    LinkUser,
    PeerEndpoint,
    PeerHello,
)
from mpc_ops.transport.tls import client_context, explain, proven_party, server_context
from mpc_ops.transport.wire import WIRE_VERSIONS, Hello, choose_version

__all__ = ["STATE_LIMIT_BYTES", "LinkManager"]

STATE_LIMIT_BYTES = 128 << 10
_UNPROVEN_LIMIT = 64
_GREETING_LIMIT = 4
_READ_BUFFER = 512 << 10
_NETWORK_ERRORS = (OSError, EOFError, TimeoutError)
_log = logging.getLogger(__name__)
_jitter = secrets.SystemRandom()


class LinkManager:
    """All links of one party; runs in one event loop.

    Args:
        identity: own party, certificate, key file and boot counter.
        listen: host and port to listen on; port 0 lets the system choose (see `port`).
        peers: the peer table. A party that is not in it is refused.
        user: the layer above.
        timings: time-outs and intervals.
        clock: UTC seconds; replaced in tests.

    Raises:
        ConfigError: SECRET_MISSING, SECRET_PERMISSIONS, CERTIFICATE_INVALID.
    """

    def __init__(
        self,
        identity: LinkIdentity,
        listen: tuple[str, int],
        peers: Mapping[PartyId, PeerEndpoint],
        user: LinkUser,
        *,
        timings: LinkTimings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._listen = listen
        self._peers = dict(peers)
        self._user = user
        self._timings = timings or LinkTimings()
        self._clock = clock
        self._pins = {party: peer.ca_pins for party, peer in self._peers.items()}
        all_pins = [pin for pins in self._pins.values() for pin in pins]
        self._server_tls = server_context(identity.certificate, identity.key, all_pins)
        self._client_tls = {
            party: client_context(identity.certificate, identity.key, peer.ca_pins)
            for party, peer in self._peers.items()
            if peer.dial
        }
        self._links: dict[PartyId, Link] = {}
        self._states = {party: LinkState(LinkStatus.DOWN, since=clock()) for party in self._peers}
        self._counters = {party: LinkCounters() for party in self._peers}
        self._boots: dict[PartyId, int] = {}
        self._installing = {party: asyncio.Lock() for party in self._peers}
        self._greeting = dict.fromkeys(self._peers, 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptor: asyncio.Task[None] | None = None
        self._unproven = 0
        self._socket: socket.socket | None = None
        self._port: int | None = None
        self._closing = False
        self._closed = asyncio.Event()
        self._bug: BaseException | None = None
        self.refusals: deque[tuple[float, str]] = deque(maxlen=100)
        """UTC seconds and code of connections refused before their party was proven (newest last)."""

    @property
    def port(self) -> int:
        """Port in use; valid after `start`."""
        if self._port is None:
            raise RuntimeError("the link manager is not started")
        return self._port

    async def start(self) -> None:
        """Bind, listen and begin to dial.

        Raises:
            ConfigError: PORT_UNAVAILABLE.
        """
        host, port = self._listen
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise ConfigError(
                "PORT_UNAVAILABLE", "the port for party links cannot be used", got=f"{host}:{port}, errno {error.errno}"
            ) from None
        self._socket.setblocking(False)
        self._port = int(self._socket.getsockname()[1])
        self._acceptor = self._spawn(self._accept_loop(self._socket), "links-accept")
        for party, peer in self._peers.items():
            if peer.dial:
                self._spawn(self._dial_loop(party, peer), f"links-dial-{party}")

    async def send(self, peer: PartyId, kind: int, payload: bytes) -> None:
        """Send one message to `peer` over the present link.

        Args:
            peer: a party of the peer table.
            kind: SESSION, NOTICE, SYNC or FRAME of `wire.Kind`.
            payload: at most `wire.LIMITS[kind]` bytes (ValueError beyond: a bug of the caller).

        Raises:
            PeerUnavailable: PEER_UNAVAILABLE, with the code of the last failure as `got`; transient.
        """
        if kind < FIRST_OPAQUE_KIND:
            raise ValueError(f"kind {kind} belongs to the link itself")
        link = self._links.get(peer)
        if link is None:
            raise PeerUnavailable(
                "PEER_UNAVAILABLE", "there is no link to a peer now", got=self.state(peer).code, ids={"party": peer}
            )
        await link.send(kind, payload)

    def state(self, peer: PartyId) -> LinkState:
        """Return the state of the link to `peer`; ConfigError PEER_UNKNOWN if it is not in the peer table."""
        if peer not in self._states:
            raise ConfigError("PEER_UNKNOWN", "not in the peer table", got=peer)
        return self._states[peer]

    def states(self) -> dict[PartyId, LinkState]:
        """Return the state of every link."""
        return dict(self._states)

    def counters(self, peer: PartyId) -> LinkCounters:
        """Return a copy of the counters of `peer`: they cover all connections since this process started."""
        self.state(peer)
        now = self._counters[peer]
        return LinkCounters(now.sent_bytes, now.received_bytes, now.sent_messages, now.received_messages)

    async def close(self) -> None:
        """Say BYE to every peer, close all sockets and end all tasks."""
        if not self._closing:
            self._closing = True
            await self._stop_listening()
            await asyncio.gather(*(self._end(link) for link in list(self._links.values())))
            tasks = [task for task in self._tasks if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._closed.set()
        await self._closed.wait()

    async def wait_closed(self) -> None:
        """Wait until the manager is closed; raises what a callback of the layer above raised, if that closed it."""
        await self._closed.wait()
        if self._bug is not None:
            raise self._bug

    async def _stop_listening(self) -> None:
        if self._acceptor is not None:
            self._acceptor.cancel()
            await asyncio.gather(self._acceptor, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def _end(self, link: Link) -> None:
        await link.say_bye()
        try:
            async with asyncio.timeout(self._timings.close_s):
                await link.done.wait()  # the layer above finishes the message it has in hand
        except TimeoutError:
            _log.warning("a message of %s was not finished before closing", link.peer)

    def _spawn(self, work: asyncio._CoroutineLike[None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        if self._bug is None:
            self._bug = task.exception()
            _log.critical("links stop after an unexpected %s", type(self._bug).__name__)
        if not self._closing:
            self._spawn(self.close(), "links-close")

    async def _accept_loop(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:  # out of file descriptors, or reset before it was accepted
                await asyncio.sleep(0.1)
                continue
            if self._unproven >= _UNPROVEN_LIMIT:
                connection.close()
                continue
            self._unproven += 1
            self._spawn(self._admit(connection), "links-admit")

    async def _admit(self, connection: socket.socket) -> None:
        """Take one inbound connection from TLS to its end."""
        proven: PartyId | None = None
        try:
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader(limit=_READ_BUFFER)
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self._server_tls, ssl_handshake_timeout=self._timings.handshake_s
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                party = proven_party(writer.get_extra_info("ssl_object"), self._pins)
                if self._peers[party].dial:
                    raise PeerProtocolError("LINK_DIRECTION", "this side dials that peer", ids={"party": party})
            except ComityError as error:
                await self._turn_away(reader, writer, error)
                raise
            proven = party
            self._unproven -= 1
            self._failed(party, await self._serve(party, reader, writer))
        except (ComityError, *_NETWORK_ERRORS) as error:
            self._note_inbound(proven, explain(error, proven or "unproven"))
        finally:
            if proven is None:
                self._unproven -= 1

    async def _turn_away(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, error: ComityError) -> None:
        link = Link("unproven", reader, writer, self._timings, LinkCounters())
        await link.refuse(error)

    def _note_inbound(self, party: PartyId | None, error: ComityError) -> None:
        if party is None:
            # Nothing is blamed on a party that the connection only claims to be.
            self.refusals.append((self._clock(), error.code))
            _log.warning("inbound connection refused: %s", error.code)
        else:
            self._failed(party, error)

    async def _dial_loop(self, party: PartyId, peer: PeerEndpoint) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            cause = await self._dial(party, peer)
            self._failed(party, cause)
            lasted_s = time.monotonic() - started
            if not cause.transient:
                failures = max(failures + 1, 5)  # a refusal is rarely cured within seconds
            else:
                failures = 0 if lasted_s > self._timings.backoff_cap_s else failures + 1
            pause_s = min(self._timings.backoff_cap_s, self._timings.backoff_first_s * 2.0 ** min(failures, 30))
            await asyncio.sleep(pause_s * _jitter.uniform(0.5, 1.0))

    async def _dial(self, party: PartyId, peer: PeerEndpoint) -> ComityError:
        """Connect and serve until the connection ends; return why it did not come about or ended."""
        writer = None
        try:
            async with asyncio.timeout(self._timings.connect_s):
                reader, writer = await asyncio.open_connection(
                    peer.host,
                    peer.port,
                    ssl=self._client_tls[party],
                    ssl_handshake_timeout=self._timings.handshake_s,
                    limit=_READ_BUFFER,
                )
            proven_party(writer.get_extra_info("ssl_object"), {party: self._pins[party]})
            return await self._serve(party, reader, writer)
        except (ComityError, *_NETWORK_ERRORS) as error:
            return explain(error, party)
        finally:
            if writer is not None:
                writer.transport.abort()

    async def _serve(self, party: PartyId, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> ComityError:
        """Run one connection whose party is proven, from HELLO to its end; return why it ended."""
        link = Link(party, reader, writer, self._timings, self._counters[party])
        try:
            hello = await self._greet(link)
            await self._install(link, hello)
            return await link.run(self._user.on_message)
        finally:
            link.abort()
            if self._links.get(party) is link:
                del self._links[party]
            link.done.set()

    async def _greet(self, link: Link) -> PeerHello:
        party = link.peer
        if self._greeting[party] >= _GREETING_LIMIT:
            raise PeerProtocolError("LINK_CROWD", "a peer opens many connections at once", ids={"party": party})
        self._greeting[party] += 1
        try:
            return await link.handshake(self._own_hello(party), lambda theirs: self._judge(party, theirs))
        finally:
            self._greeting[party] -= 1

    async def _install(self, link: Link, hello: PeerHello) -> None:
        """Make `link` the link of its peer: the newest wins, and the older one has fallen silent before UP is told."""
        async with self._installing[link.peer]:
            older = self._links.pop(link.peer, None)
            if older is not None:
                older.abort(PeerUnavailable("LINK_REPLACED", "a newer connection", ids={"party": link.peer}))
                await older.done.wait()
            self._boots[link.peer] = hello.boot
            self._links[link.peer] = link
            self._set_state(link.peer, LinkState(LinkStatus.UP, since=self._clock(), version=hello.version))

    def _own_hello(self, peer: PartyId) -> Hello:
        state = self._user.hello(peer)
        if len(state) > STATE_LIMIT_BYTES:
            raise LocalProtocolError("STATE_TOO_LARGE", "own state for HELLO is too long", got=f"{len(state)} bytes")
        return Hello(
            wire=list(WIRE_VERSIONS),
            party=self._identity.party,
            clock_ms=int(self._clock() * 1000),
            boot=self._identity.boot,
            state=base64.b64encode(state).decode("ascii"),
        )

    def _judge(self, party: PartyId, theirs: Hello) -> PeerHello:
        """Check a peer's HELLO: version, party, clock, boot, then the layer above."""
        version = choose_version(theirs.wire, party)
        if theirs.party != party:
            raise PeerProtocolError(
                "CERTIFICATE_UNKNOWN", "a peer announces another party than its certificate names", ids={"party": party}
            )
        self._check_clock(party, theirs.clock_ms)
        known = self._boots.get(party, 0)
        if theirs.boot < known:
            raise PeerProtocolError(
                "BOOT_STALE",
                "an older process of a peer is still running",
                expected=f"boot {known} or later",
                got=f"boot {theirs.boot}",
                ids={"party": party},
            )
        try:
            state = base64.b64decode(theirs.state, validate=True)
        except (binascii.Error, ValueError):
            raise PeerProtocolError(
                "MESSAGE_INVALID", "a peer's Hello message is not valid", ids={"party": party}
            ) from None
        hello = PeerHello(party=party, boot=theirs.boot, version=version, state=state)
        self._user.on_hello(party, hello)
        return hello

    def _check_clock(self, party: PartyId, theirs_ms: int) -> None:
        ours_ms = int(self._clock() * 1000)
        if abs(theirs_ms - ours_ms) > self._timings.skew_s * 1000:
            raise PeerProtocolError(
                "CLOCK_SKEW",
                f"the clocks of {self._identity.party} and {party} differ by more than {self._timings.skew_s:.0f} s",
                expected=f"{_utc(ours_ms)} ({self._identity.party})",
                got=f"{_utc(theirs_ms)} ({party})",
                ids={"party": party},
                hint="Synchronise both clocks (NTP)",
            )

    def _failed(self, party: PartyId, cause: ComityError) -> None:
        if party in self._links:
            return  # a failed second connection does not end the one that is up
        status = LinkStatus.DOWN if cause.transient else LinkStatus.REFUSED
        what = cause.what if cause.expected is None else f"{cause.what}; expected {cause.expected}; got {cause.got}"
        state = LinkState(
            status, code=cause.code, what=what, since=self._clock(), by_peer=isinstance(cause, LinkRefused)
        )
        before = self._states[party]
        if (before.status, before.code) != (state.status, state.code):
            self._set_state(party, state)

    def _set_state(self, party: PartyId, state: LinkState) -> None:
        self._states[party] = state
        if state.status is LinkStatus.UP:
            _log.info("link to %s is up", party)
        else:
            _log.warning("link to %s is %s: %s", party, state.status, state.code)
        self._user.on_state(party, state)


def _utc(milliseconds: int) -> str:
    try:
        moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms since 1970"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
