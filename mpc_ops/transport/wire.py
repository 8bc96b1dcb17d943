"""Framing on a party link: 4-byte length of the payload, 1 byte kind, payload.

Every kind has a hard limit, checked before a byte of the payload is read, so a peer can never make this side hold more
than the largest limit of one message. Kinds below 16 belong to the link itself; the others carry opaque payloads of the
layers above.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, TypeVar

import msgspec

from mpc_ops.envelope.schema import Model, decode, encode
from mpc_ops.errors import ConfigError, PeerProtocolError

__all__ = [
    "HEADER_BYTES",
    "LIMITS",
    "WIRE_VERSIONS",
    "Hello",
    "Kind",
    "Refusal",
    "check_header",
    "choose_version",
    "decode_control",
    "encode_control",
    "header",
]

WIRE_VERSIONS: tuple[int, ...] = (1,)
"""Wire versions spoken here, newest first: N and, from the second version on, N-1."""

HEADER_BYTES = 5
_HEADER = struct.Struct(">IB")
_MIB = 1 << 20
_M = TypeVar("_M", "Hello", "Refusal")


class Kind(IntEnum):
    """What a message is; the number is on the wire and never re-used."""

    HELLO = 1
    READY = 2
    REFUSE = 3
    PING = 4
    PONG = 5
    BYE = 6
    SESSION = 16
    """Messages of the session state machines."""
    NOTICE = 17
    """One notice (a DSSE envelope)."""
    SYNC = 18
    """Digests of notices held or wanted, ledger heads, receipts between holders."""
    FRAME = 19
    """One AES-256-GCM frame of a stage or of a crossing."""


LIMITS: Mapping[int, int] = {
    Kind.HELLO: 256 << 10,
    Kind.READY: 0,
    Kind.REFUSE: 4 << 10,
    Kind.PING: 8,
    Kind.PONG: 8,
    Kind.BYE: 0,
    Kind.SESSION: 4 * _MIB,
    Kind.NOTICE: 2 * _MIB,
    Kind.SYNC: 4 * _MIB,
    Kind.FRAME: 64 * _MIB,
}
"""Largest payload per kind, in bytes."""


class Hello(Model, frozen=True):
    """First message of both sides. Its form is frozen for all wire versions: new things go into `state`.

    Attributes:
        wire: versions spoken, newest first, at most two.
        party: the sender's party id; must be the one of its certificate.
        clock_ms: the sender's UTC clock, milliseconds since 1970.
        boot: the sender's boot counter: grows with every start of its operator process.
        state: base64 of opaque bytes of the layer above (ledger head, attempt heads).
    """

    wire: Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]], msgspec.Meta(min_length=1, max_length=2)]
    party: Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
    clock_ms: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    boot: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    state: Annotated[str, msgspec.Meta(max_length=176 << 10)]


class Refusal(Model, frozen=True):
    """Why a side closes the link: a stable code and one sentence without values."""

    code: Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]{2,63}\Z")]
    what: Annotated[str, msgspec.Meta(max_length=1000)]


def header(kind: int, length: int) -> bytes:
    """Return the 5 header bytes of a message; our own oversize or unknown kind is a bug (ValueError)."""
    if kind not in LIMITS:
        raise ValueError(f"unknown message kind {kind}")
    if length > LIMITS[kind]:
        raise ValueError(f"message of kind {Kind(kind).name} has {length} bytes, at most {LIMITS[kind]} are allowed")
    return _HEADER.pack(length, kind)


def check_header(data: bytes, peer: str) -> tuple[int, int]:
    """Return (kind, payload bytes) of a header received from `peer`.

    Raises:
        PeerProtocolError: MESSAGE_KIND_UNKNOWN or MESSAGE_TOO_LARGE, naming the peer.
    """
    length, kind = _HEADER.unpack(data)
    if kind not in LIMITS:
        raise PeerProtocolError(
            "MESSAGE_KIND_UNKNOWN", "a peer sent a message of an unknown kind", got=kind, ids={"party": peer}
        )
    if length > LIMITS[kind]:
        raise PeerProtocolError(
            "MESSAGE_TOO_LARGE",
            f"a peer announced a {Kind(kind).name} message beyond its limit",
            expected=f"at most {LIMITS[kind]} bytes",
            got=f"{length} bytes",
            ids={"party": peer},
        )
    return kind, length


def encode_control(message: Hello | Refusal) -> bytes:
    """Return the canonical bytes of a HELLO or REFUSE payload."""
    return encode(message)


def decode_control(payload: bytes, kind: type[_M], peer: str) -> _M:
    """Decode a HELLO or REFUSE payload; raise PeerProtocolError MESSAGE_INVALID naming the peer."""
    try:
        return decode(payload, kind, what=f"a {kind.__name__} message", limit_bytes=LIMITS[Kind.HELLO])
    except ConfigError as error:
        raise PeerProtocolError(
            "MESSAGE_INVALID", f"a peer's {kind.__name__} message is not valid", got=error.code, ids={"party": peer}
        ) from None


def choose_version(theirs: list[int], peer: str) -> int:
    """Return the newest wire version both sides speak; raise PeerProtocolError WIRE_VERSION with both lists."""
    common = set(theirs) & set(WIRE_VERSIONS)
    if not common:
        raise PeerProtocolError(
            "WIRE_VERSION",
            "no common wire version",
            expected=", ".join(map(str, WIRE_VERSIONS)),
            got=", ".join(map(str, theirs)),
            ids={"party": peer},
            hint="Update the older side: a release speaks its own version and the one before",
        )
    return max(common)
