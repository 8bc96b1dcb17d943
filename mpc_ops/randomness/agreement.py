"""Pairwise key agreement of one attempt: ephemeral ML-KEM-768 + X25519, both ends signed, both ends confirmed.

```
initiator (lower position)                                responder
Offer: ML-KEM public key, X25519 public key, signature  →
                             ← Reply: ciphertext, X25519 public key, signature over the transcript, HMAC
Confirmation: signature over the transcript, HMAC        →
```
The transcript holds the SID (which binds version, federation, cluster, plan, period, manifest, attempt, the three
identity keys and three fresh nonces), both roles, identities and identity keys, all ephemeral public keys and the
ciphertext. root = HKDF(salt = SHA-256(transcript), ML-KEM secret || X25519 secret). Neither side hands out keys before
the other side's HMAC has been checked: ML-KEM decapsulation rejects silently, so only the HMAC shows that both hold the
same root. Latencies: 3. Sent: 4,525 + 3,341 bytes by the initiator, 4,461 by the responder (3,309 of each are the
ML-DSA-65 signature).

Security: confidential if either ML-KEM-768 or X25519 holds (payload confidentiality is thereby post-quantum); mutual
authentication by ML-DSA-65 with context string "comity/kex/v1". A restored disk cannot repeat a root: the nonces and
ephemeral keys of three parties are in it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey, Purpose
from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.randomness.context import encode_context
from mpc_ops.randomness.streams import derive

__all__ = [
    "NONCE_BYTES",
    "SID_VERSION",
    "Confirmation",
    "End",
    "Initiator",
    "Offer",
    "PairKeys",
    "Reply",
    "Responder",
    "SessionContext",
    "session_digest",
]

SID_VERSION = "comity/sid/v2"
NONCE_BYTES = 32
_Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Signature = Annotated[bytes, msgspec.Meta(min_length=3309, max_length=3309)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionContext:
    """What a SID binds. Digests are hex; `operator_keys` and `nonces` are in the order of positions.

    `protocol` (version of the stage protocol), `security` and `limit_bytes` (of a batch of gates) decide where batches end
    and whether anything is proven: operators that differ in one of them share no key.
    """

    federation_digest: str
    cluster: str
    plan_digest: str
    period: str
    manifest_digest: str
    attempt: int
    protocol: str
    security: str
    limit_bytes: int
    operator_keys: tuple[bytes, bytes, bytes]
    nonces: tuple[bytes, bytes, bytes]


def session_digest(context: SessionContext) -> bytes:
    """Return the SID, 32 bytes; raises LocalProtocolError NONCE_LENGTH unless every nonce has 32 bytes."""
    if any(len(nonce) != NONCE_BYTES for nonce in context.nonces):
        raise LocalProtocolError("NONCE_LENGTH", "a session nonce has another length", expected=f"{NONCE_BYTES} bytes")
    return hashlib.sha256(
        encode_context(
            SID_VERSION,
            context.federation_digest,
            context.cluster,
            context.plan_digest,
            context.period,
            context.manifest_digest,
            context.attempt,
            context.protocol,
            context.security,
            context.limit_bytes,
            *context.operator_keys,
            *context.nonces,
        )
    ).digest()


@dataclass(frozen=True, slots=True)
class End:
    """One end of a pair: operator id and identity key."""

    name: str
    key: IdentityPublicKey


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First message."""

    mlkem_public: Annotated[bytes, msgspec.Meta(min_length=1184, max_length=1184)]
    x25519_public: _Bytes32
    signature: _Signature


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Second message."""

    mlkem_ciphertext: Annotated[bytes, msgspec.Meta(min_length=1088, max_length=1088)]
    x25519_public: _Bytes32
    signature: _Signature
    confirm: _Bytes32


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Third message."""

    signature: _Signature
    confirm: _Bytes32


@dataclass(frozen=True, slots=True)
class PairKeys:
    """Keys that exactly two parties hold, for one attempt, confirmed by both.

    Attributes:
        prg: seed of common randomness (k_i of the protocols).
        coin: seed of verifiers' challenges.
        commit: key of commitment salts.
        mac: key of comparisons between these two (link and component MACs).
        send, receive: AES-256-GCM frame keys of the two directions, as this side uses them.
    """

    prg: bytes
    coin: bytes
    commit: bytes
    mac: bytes
    send: bytes
    receive: bytes

    def __repr__(self) -> str:
        return "PairKeys(<redacted>)"


def _pair_keys(root: bytes, *, initiator: bool) -> PairKeys:
    forth, back = derive(root, "frame", "initiator to responder"), derive(root, "frame", "responder to initiator")
    return PairKeys(
        prg=derive(root, "prg"),
        coin=derive(root, "coin"),
        commit=derive(root, "commit"),
        mac=derive(root, "mac"),
        send=forth if initiator else back,
        receive=back if initiator else forth,
    )


def _invalid(what: str, peer: End) -> PeerProtocolError:
    return PeerProtocolError("KEX_INVALID", what, ids={"peer": peer.name}, hint="Nothing was computed with this key")


class _Exchange:
    """What both ends compute from the transcript."""

    def __init__(self, sid: bytes, initiator: End, responder: End, offer: Offer) -> None:
        self.offered = encode_context(
            "offer", sid, initiator.name, responder.name, initiator.key.raw, responder.key.raw,
            offer.mlkem_public, offer.x25519_public,
        )  # fmt: skip
        self.transcript = b""

    def complete(self, ciphertext: bytes, x25519_public: bytes) -> None:
        self.transcript = encode_context("transcript", self.offered, ciphertext, x25519_public)

    def signed(self, role: str) -> bytes:
        return encode_context(role, self.transcript)

    def root(self, mlkem_secret: bytes, x25519_secret: bytes) -> bytes:
        salt = hashlib.sha256(self.transcript).digest()
        kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=encode_context("comity/kex/v1", "root"))
        return kdf.derive(mlkem_secret + x25519_secret)

    def confirm(self, root: bytes, role: str) -> bytes:
        return hmac.digest(derive(root, "confirm", role), self.transcript, "sha256")


def _offered(sid: bytes, initiator: End, responder: End, mlkem_public: bytes, x25519_public: bytes) -> bytes:
    return _Exchange(sid, initiator, responder, Offer(mlkem_public, x25519_public, b"")).offered


class Initiator:
    """The end with the lower position. Use: send `offer`; on the reply call `finish`, send its confirmation, use its keys."""

    def __init__(self, sid: bytes, identity: IdentityKey, own: End, peer: End) -> None:
        self._sid, self._identity, self._own, self._peer = sid, identity, own, peer
        self._mlkem = MLKEM768PrivateKey.generate()
        self._x25519 = X25519PrivateKey.generate()
        mlkem_public = self._mlkem.public_key().public_bytes_raw()
        x25519_public = self._x25519.public_key().public_bytes_raw()
        offered = _offered(sid, own, peer, mlkem_public, x25519_public)
        self.offer = Offer(mlkem_public, x25519_public, identity.sign(offered, Purpose.KEX))

    def finish(self, reply: Reply) -> tuple[PairKeys, Confirmation]:
        """Check the reply and return (keys, confirmation to send).

        Raises:
            PeerProtocolError: KEX_INVALID, naming the peer.
        """
        exchange = _Exchange(self._sid, self._own, self._peer, self.offer)
        exchange.complete(reply.mlkem_ciphertext, reply.x25519_public)
        if not self._peer.key.verify(reply.signature, exchange.signed("responder"), Purpose.KEX):
            raise _invalid("the signature of a key reply is not the peer's", self._peer)
        try:
            shared = self._x25519.exchange(X25519PublicKey.from_public_bytes(reply.x25519_public))
            root = exchange.root(self._mlkem.decapsulate(reply.mlkem_ciphertext), shared)
        except ValueError:
            raise _invalid("a key reply holds an unusable public key", self._peer) from None
        if not hmac.compare_digest(reply.confirm, exchange.confirm(root, "responder")):
            raise _invalid("a key reply does not confirm the same key", self._peer)
        signature = self._identity.sign(exchange.signed("initiator"), Purpose.KEX)
        return _pair_keys(root, initiator=True), Confirmation(signature, exchange.confirm(root, "initiator"))

    def __repr__(self) -> str:
        return "Initiator(<redacted>)"


class Responder:
    """The end with the higher position. Use: on the offer send `reply`; on the confirmation `finish` gives the keys."""

    def __init__(self, sid: bytes, identity: IdentityKey, own: End, peer: End, offer: Offer) -> None:
        """Answer an offer.

        Raises:
            PeerProtocolError: KEX_INVALID, naming the peer.
        """
        self._peer = peer
        self._exchange = _Exchange(sid, peer, own, offer)
        if not peer.key.verify(offer.signature, self._exchange.offered, Purpose.KEX):
            raise _invalid("the signature of a key offer is not the peer's, or it was made for another session", peer)
        ephemeral = X25519PrivateKey.generate()
        x25519_public = ephemeral.public_key().public_bytes_raw()
        try:
            secret, ciphertext = MLKEM768PublicKey.from_public_bytes(offer.mlkem_public).encapsulate()
            shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(offer.x25519_public))
        except ValueError:
            raise _invalid("a key offer holds an unusable public key", peer) from None
        self._exchange.complete(ciphertext, x25519_public)
        self._root = self._exchange.root(secret, shared)
        self.reply = Reply(
            ciphertext,
            x25519_public,
            identity.sign(self._exchange.signed("responder"), Purpose.KEX),
            self._exchange.confirm(self._root, "responder"),
        )

    def finish(self, confirmation: Confirmation) -> PairKeys:
        """Check the confirmation and return the keys; raises PeerProtocolError KEX_INVALID, naming the peer."""
        if not self._peer.key.verify(confirmation.signature, self._exchange.signed("initiator"), Purpose.KEX):
            raise _invalid("the signature of a key confirmation is not the peer's", self._peer)
        if not hmac.compare_digest(confirmation.confirm, self._exchange.confirm(self._root, "initiator")):
            raise _invalid("a key confirmation does not confirm the same key", self._peer)
        return _pair_keys(self._root, initiator=False)

    def __repr__(self) -> str:
        return "Responder(<redacted>)"
