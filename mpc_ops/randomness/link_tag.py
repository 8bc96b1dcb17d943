"""Running tag of what one end of a link sent: both ends hold the key, nobody else does.

GMAC (NIST SP 800-38D): AES-256-GCM's authenticator over additional data, ten times as fast as SHA-256. Each piece between two
readings has a nonce of its own and begins with the tag before it, so a tag vouches for everything since the beginning.
Who lacks the key finds two transcripts of up to 2^36 bytes with one tag with a chance below 2^-95 (blocks / 2^128); an end of
the link knows the key and can find them, as it could lie about what it received.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext, Cipher, algorithms, modes

from mpc_ops.randomness.context import encode_context

__all__ = ["TAG_BYTES", "LinkTag"]

TAG_BYTES = 16
_NONCE_BYTES = 12


class LinkTag:
    """What went one way over one link. Both ends add the same messages in the same order."""

    def __init__(self, key: bytes) -> None:
        """Begin with a key that serves this direction of this link only, 32 bytes."""
        self._key = algorithms.AES(key)
        self._pieces = 0
        self._running = self._begin(b"")

    def _begin(self, tag: bytes) -> AEADEncryptionContext:
        running = Cipher(self._key, modes.GCM(self._pieces.to_bytes(_NONCE_BYTES, "big"))).encryptor()
        running.authenticate_additional_data(encode_context("comity/link-tag/v1", self._pieces, tag))
        self._pieces += 1
        return running

    def add(self, label: str, body: bytes | memoryview) -> None:
        """Add a message: its label, length and bytes."""
        self._running.authenticate_additional_data(encode_context(label, len(body)))
        self._running.authenticate_additional_data(body)

    def read(self) -> bytes:
        """Return the tag, 16 bytes, of everything so far, and go on."""
        self._running.finalize()
        tag = self._running.tag
        self._running = self._begin(tag)
        return tag

    def __repr__(self) -> str:
        return "LinkTag(<redacted>)"
