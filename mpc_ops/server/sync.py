"""Messages between operators beside the session's own: notices held and wanted, claims of holders, confirmations.

MessagePack structs with a `type` field on links of kind SYNC; crossing frames, ledger extracts and evidence travel on kind FRAME. Everything is
length-checked and schema-checked; the sender is the authenticated end of the link.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from mpc_ops.errors import PeerProtocolError

__all__ = [
    "MAX_ANNOUNCED",
    "BulkMessage",
    "BundleCopy",
    "BundleWant",
    "CrossFrame",
    "Crossed",
    "ExtractCopy",
    "ExtractHeld",
    "FilingClaim",
    "Have",
    "Holdings",
    "LedgerHead",
    "SyncMessage",
    "Want",
    "decode_bulk",
    "decode_sync",
    "encode_sync",
]

MAX_ANNOUNCED = 50_000
_MAX_SYNC_BYTES = 4 << 20
_MAX_BULK_BYTES = 63 << 20

_Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z")]
_Period = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9][A-Z0-9-]{2,15}\Z")]
_Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class _Sync(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    """Base of the messages."""


class Have(_Sync, frozen=True, forbid_unknown_fields=True, tag="have", kw_only=True):
    """I hold these notices (raw SHA-256 digests)."""

    digests: Annotated[tuple[_Digest, ...], msgspec.Meta(min_length=1, max_length=MAX_ANNOUNCED)]


class Want(_Sync, frozen=True, forbid_unknown_fields=True, tag="want", kw_only=True):
    """Send me these notices."""

    digests: Annotated[tuple[_Digest, ...], msgspec.Meta(min_length=1, max_length=MAX_ANNOUNCED)]


class Holdings(_Sync, frozen=True, forbid_unknown_fields=True, tag="holdings", kw_only=True):
    """How many notices I hold that concern us both, and the XOR of their digests: equal sets need no list."""

    count: _Count
    fingerprint: _Digest


class FilingClaim(_Sync, frozen=True, forbid_unknown_fields=True, tag="claim", kw_only=True):
    """My part of this take is here, opens, and fits the commitments of the notice named; `ask` requests yours."""

    plan: _Hex
    period: _Period
    owner: _Name
    edition: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    take: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    notice: _Hex
    ask: bool = False


class Crossed(_Sync, frozen=True, forbid_unknown_fields=True, tag="crossed", kw_only=True):
    """Your crossing frame of this run lies on my disk; `digest` is that of the sealed frame."""

    run_id: _Hex
    cluster: _Name
    digest: _Hex


class LedgerHead(_Sync, frozen=True, forbid_unknown_fields=True, tag="head", kw_only=True):
    """My ledger has `length` lines and this head at this stage: remember it, so that a restored disk is noticed."""

    run_id: _Hex
    cluster: _Name
    length: _Count
    head: _Hex


class ExtractCopy(_Sync, frozen=True, forbid_unknown_fields=True, tag="extract", kw_only=True):
    """My signed ledger extract and attestation of a run (none where it ended without a result), for its evidence."""

    run_id: _Hex
    ledger: Annotated[bytes, msgspec.Meta(min_length=1, max_length=48 << 20)]
    attestation: Annotated[bytes, msgspec.Meta(max_length=2 << 20)]


class ExtractHeld(_Sync, frozen=True, forbid_unknown_fields=True, tag="extract_held", kw_only=True):
    """Your ledger extract of this run lies on my disk."""

    run_id: _Hex


class BundleWant(_Sync, frozen=True, forbid_unknown_fields=True, tag="bundle_want", kw_only=True):
    """Send me the evidence of this run for its owners, when it is complete."""

    run_id: _Hex


class BundleCopy(_Sync, frozen=True, forbid_unknown_fields=True, tag="bundle", kw_only=True):
    """The evidence of a run (mpc_ops.evidence.bundle), as the recipient gets it."""

    run_id: _Hex
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=_MAX_BULK_BYTES)]


SyncMessage: TypeAlias = Have | Want | Holdings | FilingClaim | Crossed | LedgerHead | ExtractHeld | BundleWant


class CrossFrame(_Sync, frozen=True, forbid_unknown_fields=True, tag="cross", kw_only=True):
    """One crossing: sub-shares sealed to the receiving group operator, signed by the sender (purpose CROSS).

    The signature covers `signed_part`; `sealed` opens only under the context that names run, sender, receiver, attempt.
    """

    run_id: _Hex
    cluster: _Name
    attempt: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    payload_class: Annotated[str, msgspec.Meta(max_length=40)]
    sealed: Annotated[bytes, msgspec.Meta(min_length=1, max_length=_MAX_BULK_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(min_length=3309, max_length=3309)]


BulkMessage: TypeAlias = CrossFrame | ExtractCopy | BundleCopy

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[SyncMessage] = msgspec.msgpack.Decoder(SyncMessage, strict=True)
_bulk_decoder: msgspec.msgpack.Decoder[BulkMessage] = msgspec.msgpack.Decoder(BulkMessage, strict=True)


def encode_sync(message: SyncMessage | BulkMessage) -> bytes:
    """Return the bytes of a message."""
    return _encoder.encode(message)


def decode_sync(data: bytes, peer: str) -> SyncMessage:
    """Parse a SYNC message; raises PeerProtocolError MESSAGE_INVALID naming the peer."""
    try:
        if len(data) <= _MAX_SYNC_BYTES:
            return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    raise _invalid(data, peer)


def decode_bulk(data: bytes, peer: str) -> BulkMessage:
    """Parse a message of kind FRAME; raises PeerProtocolError MESSAGE_INVALID naming the peer."""
    try:
        if len(data) <= _MAX_BULK_BYTES:
            return _bulk_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    raise _invalid(data, peer)


def _invalid(data: bytes, peer: str) -> PeerProtocolError:
    # msgspec's text can quote field contents, so it is not repeated.
    return PeerProtocolError(
        "MESSAGE_INVALID", "bytes are not a message", got=f"{len(data)} bytes", ids={"party": peer}
    )
