"""What a party link is made of: own identity, peers, timings, and the interface of the layer above."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from mpc_ops.federation.pki import PartyId

__all__ = [
    "LinkCounters",
    "LinkIdentity",
    "LinkState",
    "LinkStatus",
    "LinkTimings",
    "LinkUser",
    "PeerEndpoint",
    "PeerHello",
]


@dataclass(frozen=True, slots=True)
class LinkIdentity:
    """Who this side is.

    Attributes:
        party: own party id; stands as URI `comity:party:<id>` in the leaf.
        certificate: PEM file of the leaf certificate.
        key: PEM file of its private key, mode 0600.
        boot: own boot counter, announced to peers; grows with every start of the operator process.
    """

    party: PartyId
    certificate: Path
    key: Path
    boot: int


@dataclass(frozen=True, slots=True)
class PeerEndpoint:
    """One row of the peer table, from the directory.

    Attributes:
        host: DNS name or IP address; used only where `dial` is true.
        port: TCP port; used only where `dial` is true.
        dial: whether this side dials. Exactly one end of a link dials (within a cluster the lower rank, and a region
            operator dials the group operators); an inbound connection of a peer that this side dials is refused.
        ca_pins: PEM certificates of the peer's own certificate authority: one, or two while it changes.
    """

    host: str
    port: int
    dial: bool
    ca_pins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinkTimings:
    """Time-outs and intervals of a link, in seconds."""

    connect_s: float = 10.0
    handshake_s: float = 10.0
    ping_s: float = 10.0
    silent_s: float = 35.0
    """A link on which nothing arrives for this long is dead (half-open), unless the layer above is the one that blocks."""
    send_s: float = 60.0
    """A send that makes no progress for this long breaks the link (also what frees two sides that both only send)."""
    backoff_first_s: float = 0.2
    backoff_cap_s: float = 5.0
    skew_s: float = 60.0
    close_s: float = 2.0


class LinkStatus(StrEnum):
    """State of the link to one peer."""

    DOWN = "down"
    UP = "up"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class LinkState:
    """State of the link to one peer, for the layer above, `doctor` and the status page.

    Attributes:
        status: DOWN (never connected, or lost; dialling goes on), UP, or REFUSED (one side refuses the other; dialling
            goes on at the slowest pace, since a clock or certificate may be put right).
        code: stable code of the last failure or refusal, None while up.
        what: one sentence on it.
        since: UTC seconds of the last change.
        by_peer: whether it was the peer that refused.
        version: wire version in use while up.
    """

    status: LinkStatus
    code: str | None = None
    what: str | None = None
    since: float = 0.0
    by_peer: bool = False
    version: int | None = None


@dataclass(slots=True)
class LinkCounters:
    """Bytes (header and payload, below TLS) and messages exchanged with one peer since this process started."""

    sent_bytes: int = 0
    received_bytes: int = 0
    sent_messages: int = 0
    received_messages: int = 0


@dataclass(frozen=True, slots=True)
class PeerHello:
    """What a peer announced on connecting, after the link's own checks (certificate, version, clock, boot).

    Attributes:
        party: the peer's id, proven by its certificate.
        boot: its boot counter.
        version: wire version agreed.
        state: opaque bytes of the layer above, at most 128 KiB.
    """

    party: PartyId
    boot: int
    version: int
    state: bytes


class LinkUser(Protocol):
    """The layer above the links. All methods run in the event loop of the manager."""

    def hello(self, peer: PartyId) -> bytes:
        """Return the opaque state to announce to `peer` (ledger head, attempt heads); at most 128 KiB."""

    def on_hello(self, peer: PartyId, hello: PeerHello) -> None:
        """Look at what `peer` announced, before the link is up.

        Raise a ComityError to refuse the link: its code and sentence go to the peer, for example
        LocalProtocolError or PeerProtocolError STATE_ROLLED_BACK.
        """

    def on_message(self, peer: PartyId, kind: int, payload: bytes) -> Awaitable[None]:
        """Take one message (kinds SESSION, NOTICE, SYNC, FRAME of `wire.Kind`), in the order it was sent.

        The next message of this peer is read only when the awaitable is done: that is the back-pressure. Do not send to
        the same peer from here without bound; journal, enqueue and return. A PeerProtocolError closes the link with its
        code; any other exception is a bug: it closes the manager and comes out of `LinkManager.wait_closed`.
        """

    def on_state(self, peer: PartyId, state: LinkState) -> None:
        """Hear that the link to `peer` changed. Every UP is a new connection: resend what is not acknowledged."""
