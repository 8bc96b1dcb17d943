"""Signed envelopes: DSSE (secure-systems-lab/dsse protocol 1.0.2) with ML-DSA-65.

DSSE signs the bytes PAE(payloadType, payload), so no canonicalisation is needed to verify. KEYID is a hint only: trust
comes from the public keys that the caller passes. An envelope may carry several signatures over the same payload. A
notice is named by the SHA-256 of its payload, since ML-DSA signatures are randomised.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import msgspec

from mpc_ops.envelope.canonical import canonical_bytes, sha256_hex
from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey, Purpose
from mpc_ops.envelope.schema import built
from mpc_ops.errors import ConfigError, EvidenceError
from mpc_ops.ids import Digest

__all__ = ["MAX_ENVELOPE_BYTES", "Envelope", "pae"]

MAX_ENVELOPE_BYTES = 1 << 20
_MAX_SIGNATURES = 64


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: str


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: str
    payloadType: str  # noqa: N815 - the name is DSSE's
    signatures: list[_Signature]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of type and payload."""
    kind = payload_type.encode("utf-8")
    return b" ".join((b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload))


def _unb64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("ENVELOPE_INVALID", f"{what} is not base64") from None


class Envelope:
    """An immutable DSSE envelope.

    Attributes:
        payload_type: media type of the payload.
        payload: the signed bytes.
        signatures: raw signatures with their key hints, in order of signing.
    """

    __slots__ = ("payload", "payload_type", "signatures")

    def __init__(self, payload_type: str, payload: bytes, signatures: tuple[tuple[str, bytes], ...] = ()) -> None:
        self.payload_type = payload_type
        self.payload = payload
        self.signatures = signatures

    @classmethod
    def sign(cls, payload_type: str, payload: bytes, key: IdentityKey, purpose: Purpose) -> Envelope:
        """Return a new envelope with one signature."""
        return cls(payload_type, payload).add_signature(key, purpose)

    @classmethod
    def parse(cls, data: bytes, *, limit_bytes: int = MAX_ENVELOPE_BYTES) -> Envelope:
        """Read an envelope from bytes of another party.

        Raises:
            ConfigError: ENVELOPE_INVALID if too long, malformed, or with unknown members.
        """
        if len(data) > limit_bytes:
            raise ConfigError(
                "ENVELOPE_INVALID",
                "envelope is too long",
                expected=f"at most {limit_bytes} bytes",
                got=f"{len(data)} bytes",
            )
        try:
            wire = msgspec.json.decode(data, type=built(_Wire), strict=True)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ConfigError("ENVELOPE_INVALID", "bytes are not a DSSE envelope") from None
        if not 0 < len(wire.signatures) <= _MAX_SIGNATURES:
            raise ConfigError("ENVELOPE_INVALID", "wrong number of signatures", expected=f"1 to {_MAX_SIGNATURES}")
        pairs = tuple((item.keyid[:64], _unb64(item.sig, "signature")) for item in wire.signatures)
        envelope = cls(wire.payloadType, _unb64(wire.payload, "payload"), pairs)
        if envelope.to_bytes() != data:
            raise ConfigError("ENVELOPE_INVALID", "envelope is not in canonical form")
        return envelope

    @property
    def digest(self) -> Digest:
        """SHA-256 of the payload: the name of the notice."""
        return sha256_hex(self.payload)

    def add_signature(self, key: IdentityKey, purpose: Purpose) -> Envelope:
        """Return a copy with one more signature over the same payload."""
        signature = key.sign(pae(self.payload_type, self.payload), purpose)
        return Envelope(self.payload_type, self.payload, (*self.signatures, (key.public.fingerprint, signature)))

    def merge(self, other: Envelope) -> Envelope:
        """Return the union of signatures of two envelopes over the same payload."""
        if (other.payload_type, other.payload) != (self.payload_type, self.payload):
            raise ConfigError("ENVELOPE_INVALID", "envelopes carry different payloads")
        return Envelope(
            self.payload_type,
            self.payload,
            (*self.signatures, *(s for s in other.signatures if s not in self.signatures)),
        )

    def signers(self, keys: Mapping[str, IdentityPublicKey], purpose: Purpose) -> frozenset[str]:
        """Return the names out of `keys` whose valid signature the envelope carries."""
        message = pae(self.payload_type, self.payload)
        return frozenset(
            name for name, key in keys.items() if any(key.verify(sig, message, purpose) for _, sig in self.signatures)
        )

    def require(
        self, keys: Mapping[str, IdentityPublicKey], purpose: Purpose, *, at_least: int | None = None
    ) -> frozenset[str]:
        """Return the signers, insisting on all of `keys` (or `at_least` of them).

        Raises:
            EvidenceError: SIGNATURE_INVALID naming whose signature is missing.
        """
        found = self.signers(keys, purpose)
        if len(found) < (len(keys) if at_least is None else at_least) or not keys:
            missing = ", ".join(sorted(set(keys) - found)) or "anybody known"
            raise EvidenceError(
                "SIGNATURE_INVALID",
                f"no valid signature by {missing}",
                ids={"payload": self.digest[:16], "type": self.payload_type},
            )
        return found

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of the envelope."""
        return canonical_bytes(
            {
                "payload": base64.b64encode(self.payload).decode("ascii"),
                "payloadType": self.payload_type,
                "signatures": [
                    {"keyid": kid, "sig": base64.b64encode(sig).decode("ascii")} for kid, sig in self.signatures
                ],
            }
        )

    def __repr__(self) -> str:
        return f"Envelope({self.payload_type}, {self.digest[:12]}, {len(self.signatures)} signatures)"
