"""Helpers for tests of party links: parties with their own authorities, a recording layer above, raw TLS peers."""

from __future__ import annotations

import asyncio
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mpc_ops.federation import pki
from mpc_ops.transport.links import LinkManager
from mpc_ops.transport.peers import LinkIdentity, LinkState, LinkStatus, LinkTimings, PeerEndpoint, PeerHello
from mpc_ops.transport.tls import client_context
from mpc_ops.transport.wire import Hello, Kind, encode_control

FAST = LinkTimings(
    connect_s=5,
    handshake_s=5,
    ping_s=0.1,
    silent_s=5,
    send_s=5,
    backoff_first_s=0.02,
    backoff_cap_s=0.1,
    close_s=1,
)


@dataclass
class Recorder:
    """A layer above the links that writes down what it hears."""

    state: bytes = b""
    messages: list[tuple[str, int, bytes]] = field(default_factory=list)
    states: list[tuple[str, LinkState]] = field(default_factory=list)
    hellos: list[PeerHello] = field(default_factory=list)
    refuse: Callable[[PeerHello], Exception | None] = lambda _: None
    gate: asyncio.Event | None = None
    fail: Exception | None = None

    def hello(self, peer: str) -> bytes:
        return self.state

    def on_hello(self, peer: str, hello: PeerHello) -> None:
        error = self.refuse(hello)
        if error is not None:
            raise error
        self.hellos.append(hello)

    async def on_message(self, peer: str, kind: int, payload: bytes) -> None:
        if self.fail is not None:
            raise self.fail
        if self.gate is not None:
            await self.gate.wait()
        self.messages.append((peer, kind, payload))

    def on_state(self, peer: str, state: LinkState) -> None:
        self.states.append((peer, state))


@dataclass
class Party:
    """A party with an authority and a leaf on disk."""

    name: str
    ca: pki.CertificateAuthority
    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, name: str, **leaf: object) -> Party:
        return cls.with_ca(folder, name, pki.create_ca(name), **leaf)

    @classmethod
    def with_ca(cls, folder: Path, name: str, ca: pki.CertificateAuthority, **leaf: object) -> Party:
        certificate, key = pki.issue_leaf(ca, name, ["127.0.0.1"], **leaf).save(
            folder / f"{name}-{time.monotonic_ns()}"
        )
        return cls(name, ca, certificate, key)

    def identity(self, boot: int = 1) -> LinkIdentity:
        return LinkIdentity(self.name, self.certificate, self.key, boot)

    def endpoint(self, *, port: int = 0, dial: bool = False) -> PeerEndpoint:
        return PeerEndpoint("127.0.0.1", port, dial, (self.ca.certificate,))

    def manager(
        self, peers: dict[str, PeerEndpoint], user: Recorder, *, boot: int = 1, port: int = 0, **options
    ) -> LinkManager:
        options.setdefault("timings", FAST)
        return LinkManager(self.identity(boot), ("127.0.0.1", port), peers, user, **options)

    async def raw(self, port: int, server: Party) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect with this party's certificate, without a link manager."""
        tls: ssl.SSLContext = client_context(self.certificate, self.key, [server.ca.certificate])
        return await asyncio.open_connection("127.0.0.1", port, ssl=tls)

    def hello(self, **changes: object) -> bytes:
        fields: dict = {"wire": [1], "party": self.name, "clock_ms": int(time.time() * 1000), "boot": 1, "state": ""}
        return encode_control(Hello(**{**fields, **changes}))


def message(kind: int, payload: bytes, length: int | None = None) -> bytes:
    return struct.pack(">IB", len(payload) if length is None else length, kind) + payload


async def read_message(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    length, kind = struct.unpack(">IB", await reader.readexactly(5))
    return kind, await reader.readexactly(length)


async def raw_handshake(party: Party, server: Party, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Do the HELLO exchange by hand; the link is up afterwards."""
    reader, writer = await party.raw(port, server)
    writer.write(message(Kind.HELLO, party.hello()) + message(Kind.READY, b""))
    assert (await read_message(reader))[0] == Kind.HELLO
    assert (await read_message(reader))[0] == Kind.READY
    return reader, writer


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait until `condition()` is true; the limit only keeps a failing test from hanging."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the conditions have no event
            await asyncio.sleep(0.005)


async def until_up(manager: LinkManager, *peers: str) -> None:
    await until(lambda: all(manager.state(peer).status is LinkStatus.UP for peer in peers))


async def read_to_end(reader: asyncio.StreamReader) -> list[tuple[int, bytes]]:
    """Return the messages up to the end of the connection, however it ends."""
    messages = []
    try:
        while True:
            messages.append(await read_message(reader))
    except (EOFError, OSError):
        return messages
