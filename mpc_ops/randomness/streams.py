"""Derivation (HKDF-SHA-256, RFC 5869) and expansion (AES-256-CTR, SP 800-38A) of 32-byte secrets."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mpc_ops.errors import LocalProtocolError
from mpc_ops.randomness.context import ContextItem, encode_context
from mpc_ops.ring import RingArray

__all__ = ["MAX_LANES", "SEED_BYTES", "derive", "expand"]

SEED_BYTES = 32
MAX_LANES = 1 << 33
"""2^32 AES blocks of 16 bytes per key, which is the most that one context may use."""
_CHUNK_BYTES = 256 << 10
_ZEROS = memoryview(bytes(_CHUNK_BYTES))


def derive(key: bytes, *context: ContextItem) -> bytes:
    """Return 32 bytes: HKDF-SHA-256 of `key` with an empty salt and the encoded context as info.

    Args:
        key: at least 32 secret bytes.
        context: what the result is for; different tuples give independent results.
    """
    if len(key) < SEED_BYTES:
        raise LocalProtocolError(
            "KEY_LENGTH", "a key is too short", expected="at least 32 bytes", got=f"{len(key)} bytes"
        )
    kdf = HKDF(
        algorithm=hashes.SHA256(), length=SEED_BYTES, salt=None, info=encode_context("comity/derive/v1", *context)
    )
    return kdf.derive(key)


def expand(seed: bytes, lanes: int, *context: ContextItem) -> RingArray:
    """Return `lanes` pseudo-random ring elements F(seed, context): a fresh, writable vector.

    The AES-256 key is derive(seed, "expand", context); the stream starts at counter 0, so a longer vector of the same
    seed and context begins with the shorter one. 16 bytes of AES output give two lanes, little-endian.

    Raises:
        LocalProtocolError: KEY_LENGTH unless the seed has 32 bytes; STREAM_TOO_LONG beyond 2^32 AES blocks.
    """
    if len(seed) != SEED_BYTES:
        raise LocalProtocolError(
            "KEY_LENGTH", "a seed has another length", expected="32 bytes", got=f"{len(seed)} bytes"
        )
    if not 0 <= lanes <= MAX_LANES:
        raise LocalProtocolError(
            "STREAM_TOO_LONG", "too many lanes for one stream", expected=f"at most {MAX_LANES}", got=lanes
        )
    cipher = Cipher(algorithms.AES(derive(seed, "expand", *context)), modes.CTR(bytes(16))).encryptor()
    size = lanes * 8
    # update_into may ask for one block of room beyond the data; the vector keeps it.
    room = np.empty(lanes + 2, dtype="<u8")
    view = room.data.cast("B")
    for start in range(0, size, _CHUNK_BYTES):
        length = min(_CHUNK_BYTES, size - start)
        cipher.update_into(_ZEROS[:length], view[start : start + length + 15])
    return room[:lanes].astype(np.uint64, copy=False)
