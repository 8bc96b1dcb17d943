"""A third party that knows every true value and tries to reproduce digests that it sees.

`encodings` gives the byte forms in which a vector and its values could have been hashed, `guesses` their digests under the
usual 256-bit hash functions, plain, twice, and behind every public prefix. `digests_in` finds what there is to reproduce.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

import msgspec
import numpy as np
import pyarrow as pa

from mpc_ops.envelope.canonical import canonical_bytes

__all__ = ["digests_in", "encodings", "guesses", "readable"]

_HEX = re.compile(rb"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")
_HASHES = (
    hashlib.sha256,
    hashlib.sha3_256,
    hashlib.blake2s,
    lambda data: hashlib.blake2b(data, digest_size=32),
    lambda data: hashlib.sha256(hashlib.sha256(data).digest()),
)


def readable(data: bytes, depth: int = 4) -> Iterator[bytes]:
    """Yield bytes and everything that lies in them as Base64: envelopes in bundles in packs."""
    yield data
    if depth == 0:
        return
    for match in _BASE64.finditer(data):
        try:
            inner = base64.b64decode(match.group(), validate=True)
        except binascii.Error:
            continue
        if inner[:1] in {b"{", b"["}:
            yield from readable(inner, depth - 1)


def digests_in(data: bytes) -> set[str]:
    """Return every 64-digit hexadecimal number in bytes and in what they hold as Base64."""
    return {match.group().decode().lower() for text in readable(data) for match in _HEX.finditer(text)}


def encodings(values: Sequence[int]) -> Iterator[bytes]:
    """Yield the forms of a whole vector and of each value in it."""
    vector = np.asarray(values, dtype=np.int64)
    plain = [int(value) for value in vector]
    yield from (vector.astype(form).tobytes() for form in ("<i8", ">i8", "<f8"))
    texts = [str(value) for value in plain]
    money = [f"{Decimal(value) / 100:.2f}" for value in plain]
    for form in (texts, money, plain):
        yield from _structures(form)
    for form in (texts, money):
        yield from (mark.join(form).encode() for mark in ("", ",", ", ", "\n", ";", " ", "\t"))
    yield from _arrow(vector)
    for value, text, amount in zip(plain, texts, money, strict=True):
        yield from (value.to_bytes(8, order, signed=True) for order in ("little", "big"))
        yield from (form.encode() for form in (text, amount, f'"{text}"', f'"{amount}"', f"{text}\n"))
        yield from (value.to_bytes(16, order, signed=True) for order in ("little", "big"))


def _structures(form: list[str] | list[int]) -> Iterator[bytes]:
    yield json.dumps(form).encode()
    yield json.dumps(form, separators=(",", ":")).encode()
    yield msgspec.msgpack.encode(form)
    if all(isinstance(item, str) for item in form):
        yield canonical_bytes({"lanes": form})
        for tie_out in ("none", "passed"):
            yield canonical_bytes({"lanes": form, "kind": "data", "tie_out": tie_out})


def _arrow(vector: np.ndarray) -> Iterator[bytes]:
    for name in ("lanes", "value", "values", "components"):
        table = pa.table({name: pa.array(vector)})
        for make in (pa.ipc.new_stream, pa.ipc.new_file):
            sink = io.BytesIO()
            with make(sink, table.schema) as writer:
                writer.write_table(table)
            yield sink.getvalue()
    sink = io.BytesIO()
    np.save(sink, vector)
    yield sink.getvalue()


def guesses(bodies: Iterable[bytes], prefixes: Iterable[bytes]) -> set[str]:
    """Return the digests of every body, plain and behind every prefix, and as HMAC under it."""
    before = [b"", *dict.fromkeys(prefixes)]
    found = set()
    for body in bodies:
        found |= {hash_of(body).hexdigest() for hash_of in _HASHES}
        for prefix in before[1:]:
            found.add(hashlib.sha256(prefix + body).hexdigest())
            found.add(hmac.digest(prefix, body, "sha256").hex())
    return found
