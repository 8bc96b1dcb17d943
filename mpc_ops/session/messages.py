"""Messages of one session between the three operators of its cluster, as strict structs.

Every message names (run_id, cluster, attempt). Lengths of all byte fields are exact; unknown fields, missing fields and
messages longer than `MAX_MESSAGE_BYTES` are refused with PeerProtocolError MESSAGE_INVALID. The sender is never a field:
it is the authenticated end of the link.

Durable messages (`Prepare`, `Accept`, `Failed`, `Committed`) follow from the stored state and may be repeated at will.
Work messages (`KexOffer`, `KexReply`, `KexConfirm`, `Frame`, `Seen`) belong to one attempt's memory and die with it.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from mpc_ops.errors import PeerProtocolError

__all__ = [
    "FRAME_HEADER_BYTES",
    "MAX_ATTEMPT",
    "MAX_BODY_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_MESSAGE_BYTES",
    "Accept",
    "Committed",
    "Failed",
    "Flushed",
    "Frame",
    "KexConfirm",
    "KexOffer",
    "KexReply",
    "Message",
    "Prepare",
    "Seen",
    "decode_flushed",
    "decode_message",
    "encode_message",
]

MAX_ATTEMPT = 10_000
MAX_MESSAGE_BYTES = 1 << 20
"""Longest message: links write and read it in one piece, so nothing waits long behind it."""
FRAME_HEADER_BYTES = 1 << 10
"""Room for all other members of a `Frame` (their names and bounds add up to less)."""
MAX_FRAME_BYTES = MAX_MESSAGE_BYTES - FRAME_HEADER_BYTES
"""Longest ciphertext of one frame, tag included; a longer body travels in several frames."""
MAX_BODY_BYTES = 1 << 28
"""Longest body of one protocol message."""
_MAX_FLUSHED_BYTES = 1 << 10

_Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z")]
_Attempt = Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPT)]
_Code = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]{0,62}\Z")]
_Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_MlKemPublic = Annotated[bytes, msgspec.Meta(min_length=1184, max_length=1184)]
_MlKemCiphertext = Annotated[bytes, msgspec.Meta(min_length=1088, max_length=1088)]
_Signature = Annotated[bytes, msgspec.Meta(min_length=3309, max_length=3309)]
_Pair = Annotated[tuple[_Name, ...], msgspec.Meta(max_length=2)]
_Place = Annotated[str, msgspec.Meta(min_length=1, max_length=160)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
_Counter = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Addressed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    """The address that every message carries."""

    run_id: _Hex
    cluster: _Name
    attempt: _Attempt


class Prepare(_Addressed, frozen=True, forbid_unknown_fields=True, tag="prepare", kw_only=True):
    """I am PREPARED(attempt) with this fresh nonce (hex of 32 bytes). `ask` requests the receiver's own state."""

    nonce: _Hex
    ask: bool = False


class Accept(_Addressed, frozen=True, forbid_unknown_fields=True, tag="accept", kw_only=True):
    """I am ACCEPTED(attempt); `link_digest` covers the ciphertext frames that came from the receiver, nothing else."""

    link_digest: _Hex
    ask: bool = False


class Failed(_Addressed, frozen=True, forbid_unknown_fields=True, tag="failed", kw_only=True):
    """I shall never accept this or any later attempt; `pair` holds the operators that a failed check names (0 to 2)."""

    code: _Code
    pair: _Pair = ()


class Committed(_Addressed, frozen=True, forbid_unknown_fields=True, tag="committed", kw_only=True):
    """I am COMMITTED(attempt). Counts as the sender's ACCEPT, never as somebody else's."""


class KexOffer(_Addressed, frozen=True, forbid_unknown_fields=True, tag="kex_offer", kw_only=True):
    """First key agreement message, from the lower rank: ephemeral public keys, signed."""

    mlkem_public: _MlKemPublic
    x25519_public: _Bytes32
    signature: _Signature


class KexReply(_Addressed, frozen=True, forbid_unknown_fields=True, tag="kex_reply", kw_only=True):
    """Second message: ciphertext, own ephemeral key, signature over the whole transcript, key confirmation."""

    mlkem_ciphertext: _MlKemCiphertext
    x25519_public: _Bytes32
    signature: _Signature
    confirm: _Bytes32


class KexConfirm(_Addressed, frozen=True, forbid_unknown_fields=True, tag="kex_confirm", kw_only=True):
    """Third message: the initiator's signature over the whole transcript and its key confirmation."""

    signature: _Signature
    confirm: _Bytes32


class Frame(_Addressed, frozen=True, forbid_unknown_fields=True, tag="frame", kw_only=True):
    """One AES-256-GCM frame under the attempt's key of this direction; nonce = lane || counter.

    The members before `ciphertext` are the frame's address. They are authenticated with it (mpc_ops.randomness.FrameAddress)
    and follow from the plan, so they tell nothing that is not public.

    Attributes:
        stage, step, round, part: address of the protocol message; round 0 is FLUSHED alone.
        piece: index of this frame in its message.
        total: length of the message's body.
    """

    lane: _Count
    counter: _Counter
    stage: _Place
    step: _Place
    round: _Count
    part: _Count
    piece: _Count
    total: Annotated[int, msgspec.Meta(ge=1, le=MAX_BODY_BYTES)]
    ciphertext: Annotated[bytes, msgspec.Meta(min_length=17, max_length=MAX_FRAME_BYTES)]


class Seen(_Addressed, frozen=True, forbid_unknown_fields=True, tag="seen", kw_only=True):
    """I have opened the receiver's frames 0 to `frames - 1` of this attempt; `lost` asks for all that follow at once."""

    frames: _Counter
    lost: bool = False


class Flushed(_Addressed, frozen=True, forbid_unknown_fields=True, tag="flushed", kw_only=True):
    """The stage is computed and all that was due on this link has arrived. Travels inside a `Frame` only.

    `link_mac` is keyed with the pair's key and covers all frames that came from the receiver before its FLUSHED;
    `held_mac` is keyed likewise and covers the component that exactly these two parties hold.
    """

    stage: Literal["region", "group"]
    link_mac: _Bytes32
    held_mac: _Bytes32


Message: TypeAlias = Prepare | Accept | Failed | Committed | KexOffer | KexReply | KexConfirm | Frame | Seen

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message, strict=True)
_flushed_decoder = msgspec.msgpack.Decoder(Flushed, strict=True)


def encode_message(message: Message | Flushed) -> bytes:
    """Return the bytes of a message (MessagePack with a `type` field)."""
    return _encoder.encode(message)


def decode_message(data: bytes) -> Message:
    """Parse a message from a peer.

    Raises:
        PeerProtocolError: MESSAGE_INVALID if it is too long, not a known message, or any field has a wrong type,
            length or form.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise PeerProtocolError(
            "MESSAGE_INVALID",
            "message is too long",
            expected=f"at most {MAX_MESSAGE_BYTES} bytes",
            got=f"{len(data)} bytes",
        )
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # msgspec's text can quote field contents, so it is not repeated.
        raise PeerProtocolError(
            "MESSAGE_INVALID", "bytes are not a session message", got=f"{len(data)} bytes"
        ) from None


def decode_flushed(data: bytes) -> Flushed:
    """Parse the plaintext of a FLUSHED frame; raises PeerProtocolError MESSAGE_INVALID as `decode_message` does."""
    if len(data) > _MAX_FLUSHED_BYTES:
        raise PeerProtocolError("MESSAGE_INVALID", "frame body is too long", got=f"{len(data)} bytes")
    try:
        return _flushed_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise PeerProtocolError("MESSAGE_INVALID", "frame body is not FLUSHED", got=f"{len(data)} bytes") from None
