"""Identity keys: ML-DSA-65 (FIPS 204), one per party or person.

Every signature purpose has its own context string, so that a signature made for one purpose can never be shown as
another (protocols.md section 13). The context strings in use are the constants of `Purpose`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from mpc_ops.envelope.secrets import read_secret, write_secret
from mpc_ops.errors import ConfigError

__all__ = ["SIGNATURE_BYTES", "IdentityKey", "IdentityPublicKey", "Purpose"]

SIGNATURE_BYTES = 3309
_PUBLIC_BYTES = 1952
_KEY_FILE_LIMIT = 8192


class Purpose(StrEnum):
    """Context strings of ML-DSA signatures, one per purpose."""

    NOTICE = "comity/notice/v1"
    FEDERATION = "comity/federation/v1"
    DIRECTORY = "comity/directory/v1"
    KEX = "comity/kex/v1"
    SIGN_OFF = "comity/sign-off/v1"
    LEDGER = "comity/ledger/v1"
    RESULT = "comity/result/v1"
    CROSS = "comity/cross/v1"
    ATTESTATION = "comity/attestation/v1"
    EVIDENCE = "comity/evidence/v1"


class IdentityPublicKey:
    """A party's public identity key."""

    def __init__(self, key: MLDSA65PublicKey) -> None:
        self._key = key
        self.raw: bytes = key.public_bytes_raw()

    @classmethod
    def from_text(cls, text: str) -> IdentityPublicKey:
        """Read the base64 form that stands in federation files; raise ConfigError KEY_INVALID otherwise."""
        try:
            raw = base64.b64decode(text, validate=True)
            if len(raw) != _PUBLIC_BYTES:
                raise ConfigError(
                    "KEY_INVALID",
                    "not an ML-DSA-65 public key",
                    expected=f"{_PUBLIC_BYTES} bytes",
                    got=f"{len(raw)} bytes",
                )
            return cls(MLDSA65PublicKey.from_public_bytes(raw))
        except (binascii.Error, ValueError):
            raise ConfigError("KEY_INVALID", "not a base64 ML-DSA-65 public key") from None

    @property
    def text(self) -> str:
        """Base64 of the raw public key."""
        return base64.b64encode(self.raw).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """First 32 hex digits of SHA-256 of the raw key: for people and as a hint, never a basis of trust."""
        return hashlib.sha256(self.raw).hexdigest()[:32]

    def verify(self, signature: bytes, message: bytes, purpose: Purpose) -> bool:
        """Return whether `signature` is this key's over `message` for `purpose`."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            self._key.verify(signature, message, context=purpose.value.encode("ascii"))
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityPublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"IdentityPublicKey({self.fingerprint})"


class IdentityKey:
    """A party's private identity key; never printed, stored only in 0600 files."""

    def __init__(self, key: MLDSA65PrivateKey) -> None:
        self._key = key
        self.public = IdentityPublicKey(key.public_key())

    @classmethod
    def generate(cls) -> IdentityKey:
        """Make a new key from the operating system's randomness."""
        return cls(MLDSA65PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> IdentityKey:
        """Read a key file (PKCS#8 PEM, mode 0600).

        Raises:
            ConfigError: SECRET_MISSING, SECRET_PERMISSIONS or KEY_INVALID.
        """
        data = read_secret(path, limit_bytes=_KEY_FILE_LIMIT)
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError):
            raise ConfigError("KEY_INVALID", "file is not a PEM private key", ids={"file": path.name}) from None
        if not isinstance(key, MLDSA65PrivateKey):
            raise ConfigError(
                "KEY_INVALID", "file holds another kind of key", expected="ML-DSA-65", ids={"file": path.name}
            )
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key to a new 0600 file."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_secret(path, pem)

    def sign(self, message: bytes, purpose: Purpose) -> bytes:
        """Sign `message` for `purpose` (hedged, so two signatures over the same bytes differ)."""
        return self._key.sign(message, context=purpose.value.encode("ascii"))

    def __repr__(self) -> str:
        return f"IdentityKey(public={self.public.fingerprint}, private=<redacted>)"
