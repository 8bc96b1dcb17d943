"""What two operators tell each other about the past when a link comes up, so that a restored disk is noticed.

Each side sends, about the *other* side, the highest boot counter, ledger head and session attempts that it has ever
seen from it. A side that is shown more than its own disk knows was restored from an old copy: it must not take part,
because it could accept an attempt twice or repeat a message with other contents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from mpc_ops.envelope.schema import built
from mpc_ops.errors import LocalProtocolError, PeerProtocolError

__all__ = [
    "MAX_SESSIONS",
    "OwnPast",
    "SeenOfPeer",
    "SessionMark",
    "check_not_rolled_back",
    "decode_seen",
    "encode_seen",
]

MAX_SESSIONS = 1000
_MAX_BYTES = 128 << 10
_Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class SessionMark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The latest attempt of one live session that was announced (PREPARE) or accepted (ACCEPT); 0 if none."""

    run_id: _Hex
    cluster: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z")]
    prepared: _Count = 0
    accepted: _Count = 0
    committed: bool = False


class SeenOfPeer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that the sender has seen of the receiver.

    Attributes:
        boot: highest boot counter of the receiver.
        ledger_length, ledger_head: the receiver's longest ledger head that the sender countersigned ("" if none).
        sessions: the receiver's live sessions with the sender, newest first, at most `MAX_SESSIONS`.
    """

    boot: _Count = 0
    ledger_length: _Count = 0
    ledger_head: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    sessions: Annotated[tuple[SessionMark, ...], msgspec.Meta(max_length=MAX_SESSIONS)] = ()


class OwnPast(msgspec.Struct, frozen=True, kw_only=True):
    """What this operator's own disk knows.

    Attributes:
        boot: own boot counter, already increased for this start.
        ledger_head_at: returns the own ledger's head after n lines, or None if it has fewer.
        session: returns the own mark of (run_id, cluster), or None if it was never known here.
    """

    boot: int
    ledger_head_at: Callable[[int], str | None]
    session: Callable[[str, str], SessionMark | None]


def encode_seen(seen: SeenOfPeer) -> bytes:
    """Return the bytes that go into the link's hello."""
    return msgspec.msgpack.encode(seen)


def decode_seen(data: bytes) -> SeenOfPeer:
    """Parse a peer's hello part; raises PeerProtocolError MESSAGE_INVALID."""
    try:
        if len(data) <= _MAX_BYTES:
            return msgspec.msgpack.decode(data, type=built(SeenOfPeer), strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    raise PeerProtocolError("MESSAGE_INVALID", "bytes are not a handshake record", got=f"{len(data)} bytes")


def check_not_rolled_back(own: OwnPast, seen: SeenOfPeer, peer: str) -> None:
    """Refuse to go on if `peer` has seen more of us than we know ourselves.

    Raises:
        LocalProtocolError: STATE_ROLLED_BACK, naming what is missing.
    """
    if seen.boot > own.boot:
        raise _rolled_back("boot counter", seen.boot, own.boot, peer)
    if seen.ledger_length and own.ledger_head_at(seen.ledger_length) != seen.ledger_head:
        raise _rolled_back("ledger head", f"line {seen.ledger_length}", "another or none", peer)
    for mark in seen.sessions:
        known = own.session(mark.run_id, mark.cluster) or SessionMark(run_id=mark.run_id, cluster=mark.cluster)
        place = f"{mark.run_id[:12]}@{mark.cluster}"
        if mark.prepared > known.prepared or mark.accepted > known.accepted:
            expected = f"attempt {max(mark.prepared, mark.accepted)}"
            raise _rolled_back(f"session {place}", expected, f"attempt {known.prepared}", peer)
        if mark.committed and not known.committed:
            raise _rolled_back(f"session {place}", "COMMITTED", "not committed", peer)


def _rolled_back(what: str, expected: object, got: object, peer: str) -> LocalProtocolError:
    return LocalProtocolError(
        "STATE_ROLLED_BACK",
        f"a peer has seen a later {what} of this operator than its disk holds",
        expected=expected,
        got=got,
        ids={"peer": peer},
        hint="The disk was restored from an old copy: start this operator anew as docs/operators.md says",
    )
