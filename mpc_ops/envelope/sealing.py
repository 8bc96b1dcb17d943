"""Sealed boxes to a party: HPKE base mode (RFC 9180) with ML-KEM-768 + X25519, HKDF-SHA-256, AES-256-GCM.

Base mode does not authenticate the sender: whoever uses a box also signs the digest of its ciphertext.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mpc_ops.envelope.secrets import read_secret, write_secret
from mpc_ops.errors import ConfigError, PeerProtocolError

__all__ = ["OVERHEAD_BYTES", "SealingKey", "SealingPublicKey"]

_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
OVERHEAD_BYTES = 1136
"""Bytes that a sealed box is longer than its content: encapsulated key 1,120 and tag 16."""
_MLKEM_SEED_BYTES, _MLKEM_PUBLIC_BYTES, _X25519_BYTES = 64, 1184, 32


class SealingPublicKey:
    """Public half: whoever has it can seal to its owner."""

    def __init__(self, mlkem: MLKEM768PublicKey, x25519: X25519PublicKey) -> None:
        self._key = hpke.MLKEM768X25519PublicKey(mlkem, x25519)
        self.raw: bytes = mlkem.public_bytes_raw() + x25519.public_bytes_raw()

    @classmethod
    def from_text(cls, text: str) -> SealingPublicKey:
        """Read base64 of ML-KEM-768 key || X25519 key; raise ConfigError KEY_INVALID otherwise."""
        try:
            raw = base64.b64decode(text, validate=True)
            if len(raw) != _MLKEM_PUBLIC_BYTES + _X25519_BYTES:
                raise ConfigError("KEY_INVALID", "not a sealing key", expected="1216 bytes", got=f"{len(raw)} bytes")
            return cls(
                MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES]),
                X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_BYTES:]),
            )
        except (binascii.Error, ValueError):
            raise ConfigError("KEY_INVALID", "not a base64 sealing key") from None

    @property
    def text(self) -> str:
        """Base64 form for notices and directory entries."""
        return base64.b64encode(self.raw).decode("ascii")

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        """Seal `plaintext`; `info` binds the box to its context and must be given again to open it."""
        return _SUITE.encrypt(plaintext, self._key, info=info)

    def __repr__(self) -> str:
        return f"SealingPublicKey({self.text[:12]}…)"


class SealingKey:
    """Private half; destroying it makes every box sealed to it unreadable."""

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self._mlkem, self._x25519 = mlkem, x25519
        self._key = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = SealingPublicKey(mlkem.public_key(), x25519.public_key())

    @classmethod
    def generate(cls) -> SealingKey:
        """Make a new key pair."""
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SealingKey:
        """Read a 0600 key file written by `save`; raises ConfigError KEY_INVALID, SECRET_MISSING, SECRET_PERMISSIONS."""
        return cls.from_bytes(read_secret(path, limit_bytes=256))

    @classmethod
    def from_bytes(cls, raw: bytes) -> SealingKey:
        """Rebuild a key from `to_bytes` (96 bytes: ML-KEM seed || X25519 private key)."""
        if len(raw) != _MLKEM_SEED_BYTES + _X25519_BYTES:
            raise ConfigError("KEY_INVALID", "not a sealing key file", expected="96 bytes", got=f"{len(raw)} bytes")
        return cls(
            MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED_BYTES]),
            X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED_BYTES:]),
        )

    def to_bytes(self) -> bytes:
        """Return the 96 secret bytes; the caller keeps them in a 0600 file."""
        return self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()

    def save(self, path: Path) -> None:
        """Write the key to a new 0600 file."""
        write_secret(path, self.to_bytes())

    def open(self, box: bytes, info: bytes) -> bytes:
        """Open a box; raise PeerProtocolError SEAL_BROKEN if it was altered, meant for another key or another context."""
        try:
            return _SUITE.decrypt(box, self._key, info=info)
        except (InvalidTag, ValueError):
            raise PeerProtocolError(
                "SEAL_BROKEN", "a sealed part does not open: altered, truncated, or sealed to another key or context"
            ) from None

    def __repr__(self) -> str:
        return "SealingKey(<redacted>)"
