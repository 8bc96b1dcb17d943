"""Contexts as length-prefixed tuples, so that two different tuples never give the same bytes.

Joining by a separator would make ("a/b", "c") and ("a", "b/c") one context, and then one stream would mask two values.
"""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["ContextItem", "encode_context"]

ContextItem: TypeAlias = str | bytes | int
_MAX_ITEM_BYTES = 1 << 20


def encode_context(*items: ContextItem) -> bytes:
    """Return count (4 bytes) and, per item, a type letter (s, b, i), its length (8 bytes) and its bytes.

    Text is UTF-8; integers are decimal text, so that they have one form at any size. All lengths are big-endian.
    """
    out = [len(items).to_bytes(4, "big")]
    for item in items:
        if isinstance(item, str):
            letter, body = b"s", item.encode("utf-8")
        elif isinstance(item, bytes):
            letter, body = b"b", item
        elif isinstance(item, int) and item is not True and item is not False:
            letter, body = b"i", str(item).encode("ascii")
        else:
            raise TypeError(f"a context item cannot be {type(item).__name__}")
        if len(body) > _MAX_ITEM_BYTES:
            raise ValueError("a context item is too long")
        out += (letter, len(body).to_bytes(8, "big"), body)
    return b"".join(out)
