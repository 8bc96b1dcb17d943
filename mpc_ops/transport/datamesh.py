"""The two data links of one operator: listening, dialling, key agreement, one inbox.

Of two operators the one with the lower position dials, twice: one connection for each direction. Each is TLS 1.3 with both
ends pinned (mpc_ops.transport.tls) and begins with a GREETING that names session, sender, direction and channel; then the
pair agrees on the attempt's keys (ML-KEM-768 + X25519, signed by both identities) before the first frame.

```
dialler   forth: GREETING, OFFER          back: GREETING
listener                                  back: REPLY
dialler   forth: CONFIRMATION
```
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import struct
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec

from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey
from mpc_ops.errors import ComityError, PeerProtocolError, PeerTimeout
from mpc_ops.federation.pki import PartyId
from mpc_ops.randomness import PairKeys
from mpc_ops.randomness.agreement import Confirmation, End, Initiator, Offer, Reply, Responder
from mpc_ops.transport.datalink import Arrived, Body, DataEnds, DataLink, DataTimings, Label
from mpc_ops.transport.peers import LinkIdentity, PeerEndpoint
from mpc_ops.transport.profile import LinkProfile
from mpc_ops.transport.tls import client_context, explain, proven_party, server_context

__all__ = ["DataListener", "DataMesh", "MeshTerms", "open_mesh"]

DEFAULT_LIMIT_BYTES = 1 << 28
_LENGTH = struct.Struct(">I")
_MAX_CONTROL = 32 << 10
_SOCKET_BUFFER = 1 << 20
_MAX_STRANGERS = 16
_HANDSHAKE_S = 5.0
"""A connection that says nothing for this long is closed, so that a stranger cannot keep the peers waiting."""
_NETWORK_ERRORS = (OSError, EOFError)
_M = TypeVar("_M")
_PartyText = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]


class Greeting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First message of a connection, from the dialler.

    Attributes:
        version: 1.
        sid: session id.
        party: the sender.
        way: whether the dialler writes (`forth`) or the listener (`back`).
        channel: random; the same on both connections of a link.
    """

    version: Literal[1]
    sid: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    party: _PartyText
    way: Literal["forth", "back"]
    channel: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshTerms:
    """What the links of an attempt are bound to.

    Attributes:
        sid: session id, 32 bytes.
        cluster, attempt: the session's try.
        position: own position.
        members: operator ids by position.
        identity_keys: identity keys by position.
    """

    sid: bytes
    cluster: str
    attempt: int
    position: int
    members: tuple[PartyId, PartyId, PartyId]
    identity_keys: tuple[IdentityPublicKey, IdentityPublicKey, IdentityPublicKey]

    def end(self, position: int) -> End:
        """Return one end of the key agreement."""
        return End(self.members[position], self.identity_keys[position])


class DataListener:
    """A listening socket for data links.

    Args:
        identity: own party, certificate and key file.
        listen: host and port; port 0 lets the system choose (see `port`).
        pins: pinned authorities (PEM) of the peers that may connect.

    Raises:
        ConfigError: SECRET_MISSING, SECRET_PERMISSIONS, CERTIFICATE_INVALID.
    """

    def __init__(self, identity: LinkIdentity, listen: tuple[str, int], pins: Mapping[PartyId, Sequence[str]]) -> None:
        self._pins = pins
        self._context = server_context(
            identity.certificate, identity.key, [pin for peer_pins in pins.values() for pin in peer_pins]
        )
        self._socket = socket.create_server(listen)

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._socket.getsockname()[1])

    def accept(self, sid: bytes, deadline: float) -> tuple[PartyId, Greeting, ssl.SSLSocket]:
        """Return the next connection of a pinned peer for this session; others are closed.

        Args:
            sid: session id, 32 bytes.
            deadline: moment of the monotonic clock at which to give up.

        Raises:
            PeerTimeout: LINK_TIMEOUT.
            PeerProtocolError: the last refusal, once more strangers came than a peer could be.
        """
        for _ in range(_MAX_STRANGERS):
            self._socket.settimeout(_left(deadline, "the peers"))
            try:
                raw, _ = self._socket.accept()
            except TimeoutError:
                raise _late("the peers") from None
            try:
                return self._greet(raw, sid, deadline)
            except (ComityError, *_NETWORK_ERRORS) as error:
                raw.close()
                refused = error
        if isinstance(refused, ComityError):
            raise refused
        raise explain(refused, "the peers")

    def _greet(self, raw: socket.socket, sid: bytes, deadline: float) -> tuple[PartyId, Greeting, ssl.SSLSocket]:
        _tune(raw, deadline)
        tls = self._context.wrap_socket(raw, server_side=True)
        try:
            peer = proven_party(tls, self._pins)
            greeting = _receive(tls, Greeting, peer)
            _check(greeting, peer, sid)
        except BaseException:
            tls.close()
            raise
        return peer, greeting, tls

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


class DataMesh:
    """Both links of one operator, with one inbox.

    Attributes:
        links: by peer.
    """

    def __init__(self, links: Mapping[PartyId, DataLink], inbox: SimpleQueue[Any]) -> None:
        self.links, self._inbox = dict(links), inbox
        self._ended: dict[PartyId, ComityError] = {}

    def send(self, peer: PartyId, label: Label, body: Body) -> None:
        """Hand over one message; errors as `DataLink.send`."""
        self.links[peer].send(label, body)

    def receive(self, timeout_s: float, awaited: Collection[PartyId]) -> Arrived:
        """Return the next message of any peer.

        Args:
            timeout_s: most seconds until it comes.
            awaited: peers that still have to say something. One that closed its link in good order is missed only if it is
                among them: it may have ended its run before this side does.

        Raises:
            PeerTimeout: LINK_TIMEOUT if nothing comes for that long.
            ComityError: what ended a link, once its messages are taken.
        """
        while True:
            for peer, error in self._ended.items():
                if error.code != "PEER_CLOSED" or peer in awaited:
                    raise error
            try:
                item = self._inbox.get(timeout=timeout_s)
            except Empty:
                raise _late(", ".join(sorted(awaited))) from None
            if isinstance(item, Arrived):
                self.links[item.peer].taken(len(item.body))
                return item
            self._ended[item[0]] = item[1]

    def close(self) -> None:
        """Close both links gracefully; safe to repeat."""
        for link in self.links.values():
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_mesh(
    identity: LinkIdentity,
    signer: IdentityKey,
    terms: MeshTerms,
    listener: DataListener,
    peers: Mapping[PartyId, PeerEndpoint],
    *,
    timings: DataTimings | None = None,
    profile: LinkProfile | None = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> tuple[DataMesh, dict[int, PairKeys]]:
    """Connect to both peers, agree on keys, and return (mesh, pair keys by the peer's position).

    Rounds: 3 and the TLS handshakes.  Sent: see mpc_ops.randomness.agreement.

    Args:
        identity: own party, certificate and key file.
        signer: own identity key.
        terms: what the links are bound to.
        listener: takes the connections of lower positions.
        peers: endpoints of the peers; host and port are used for higher positions.
        timings: time-outs; everything here is done within `connect_s`.
        profile: network to simulate on both links, each way.
        limit_bytes: most bytes of waiting messages per link and direction.

    Raises:
        PeerUnavailable: LINK_FAILED, LINK_CLOSED, LINK_TIMEOUT; PeerTimeout: LINK_TIMEOUT.
        PeerProtocolError: CERTIFICATE_UNKNOWN, CERTIFICATE_EXPIRED, MESSAGE_INVALID, MESSAGE_FOREIGN, KEX_INVALID.
        ConfigError: CERTIFICATE_REFUSED.
    """
    timings = timings or DataTimings()
    deadline = time.monotonic() + timings.connect_s
    inbox: SimpleQueue[Any] = SimpleQueue()
    links: dict[PartyId, DataLink] = {}
    keys: dict[int, PairKeys] = {}
    with contextlib.ExitStack() as opened:
        pairs = _dial_all(identity, terms, peers, deadline, opened)
        pairs |= _accept_all(terms, listener, deadline, opened)
        for position, (forth, back) in sorted(pairs.items()):
            peer, dialled = terms.members[position], terms.position < position
            try:
                keys[position] = _agree(signer, terms, position, forth, back)
            except _NETWORK_ERRORS as error:
                raise explain(error, peer) from None
            outbound, inbound = (forth, back) if dialled else (back, forth)
            ends = DataEnds(terms.cluster, terms.attempt, terms.members[terms.position], peer)
            links[peer] = DataLink(
                ends,
                outbound,
                inbound,
                keys[position],
                inbox,
                limit_bytes=limit_bytes,
                timings=timings,
                profile=profile,
            )
            opened.callback(links[peer].close)
        opened.pop_all()
    return DataMesh(links, inbox), keys


_Pairs = dict[int, tuple[ssl.SSLSocket, ssl.SSLSocket]]


def _dial_all(
    identity: LinkIdentity,
    terms: MeshTerms,
    peers: Mapping[PartyId, PeerEndpoint],
    deadline: float,
    opened: contextlib.ExitStack,
) -> _Pairs:
    out: _Pairs = {}
    for position in range(terms.position + 1, 3):
        peer, channel = terms.members[position], secrets.token_bytes(16)
        pair = []
        for way in ("forth", "back"):
            tls = _dial(identity, peer, peers[peer], deadline)
            opened.callback(tls.close)
            _send(tls, Greeting(1, terms.sid, identity.party, way, channel))
            pair.append(tls)
        out[position] = (pair[0], pair[1])
    return out


def _dial(identity: LinkIdentity, peer: PartyId, endpoint: PeerEndpoint, deadline: float) -> ssl.SSLSocket:
    """Connect to a peer that may not listen yet."""
    context = client_context(identity.certificate, identity.key, endpoint.ca_pins)
    try:
        while True:
            try:
                raw = socket.create_connection((endpoint.host, endpoint.port), _left(deadline, peer))
                break
            except ConnectionRefusedError:
                time.sleep(min(0.05, _left(deadline, peer)))
        try:
            _tune(raw, deadline)
            tls = context.wrap_socket(raw)
            proven_party(tls, {peer: endpoint.ca_pins})
        except BaseException:
            raw.close()
            raise
    except _NETWORK_ERRORS as error:
        raise explain(error, peer) from None
    return tls


def _accept_all(terms: MeshTerms, listener: DataListener, deadline: float, opened: contextlib.ExitStack) -> _Pairs:
    waiting: dict[tuple[PartyId, bytes], dict[str, ssl.SSLSocket]] = {}
    out: _Pairs = {}
    while len(out) < terms.position:
        peer, greeting, tls = listener.accept(terms.sid, deadline)
        opened.callback(tls.close)
        place = terms.members.index(peer) if peer in terms.members else -1
        if not 0 <= place < terms.position or place in out or len(waiting) > _MAX_STRANGERS:
            tls.close()
            continue
        ways = waiting.setdefault((peer, greeting.channel), {})
        ways[greeting.way] = tls
        if len(ways) == 2:
            out[place] = (ways["forth"], ways["back"])
            del waiting[(peer, greeting.channel)]
    for ways in waiting.values():
        for tls in ways.values():
            tls.close()
    return out


def _agree(signer: IdentityKey, terms: MeshTerms, position: int, forth: ssl.SSLSocket, back: ssl.SSLSocket) -> PairKeys:
    own, peer = terms.end(terms.position), terms.end(position)
    if terms.position < position:
        initiator = Initiator(terms.sid, signer, own, peer)
        _send(forth, initiator.offer)
        keys, confirmation = initiator.finish(_receive(back, Reply, peer.name))
        _send(forth, confirmation)
        return keys
    responder = Responder(terms.sid, signer, own, peer, _receive(forth, Offer, peer.name))
    _send(back, responder.reply)
    return responder.finish(_receive(forth, Confirmation, peer.name))


def _send(tls: ssl.SSLSocket, message: object) -> None:
    body = msgspec.msgpack.encode(message)
    tls.sendall(_LENGTH.pack(len(body)) + body)


def _receive(tls: ssl.SSLSocket, kind: type[_M], peer: PartyId) -> _M:
    (length,) = _LENGTH.unpack(_exactly(tls, _LENGTH.size))
    if length > _MAX_CONTROL:
        raise PeerProtocolError(
            "MESSAGE_INVALID", "a peer's greeting is too long", expected=f"at most {_MAX_CONTROL} bytes",
            ids={"party": peer},
        )  # fmt: skip
    try:
        return msgspec.msgpack.decode(_exactly(tls, length), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise PeerProtocolError(
            "MESSAGE_INVALID", f"a peer's {kind.__name__} message is not valid", ids={"party": peer}
        ) from None


def _exactly(tls: ssl.SSLSocket, count: int) -> bytes:
    out = bytearray()
    while len(out) < count:
        data = tls.recv(count - len(out))
        if not data:
            raise EOFError
        out += data
    return bytes(out)


def _check(greeting: Greeting, peer: PartyId, sid: bytes) -> None:
    if greeting.party != peer or greeting.sid != sid:
        raise PeerProtocolError("MESSAGE_FOREIGN", "a connection of another party or session", ids={"party": peer})


def _tune(raw: socket.socket, deadline: float) -> None:
    raw.settimeout(min(_HANDSHAKE_S, _left(deadline, "the peers")))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        raw.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)


def _left(deadline: float, peer: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _late(peer)
    return left


def _late(peer: str) -> PeerTimeout:
    return PeerTimeout("LINK_TIMEOUT", "the other end does not answer", ids={"party": peer})
