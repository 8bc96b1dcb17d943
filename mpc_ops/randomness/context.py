"""Contexts as length-prefixed tuples, so that two different tuples never give the same bytes.

Joining by a separator would make ("a/b", "c") and ("a", "b/c") one context, and then one stream would mask two values.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

__all__ = ["ContextItem", "encode_context"]

ContextItem: TypeAlias = str | bytes | int
_MAX_ITEM_BYTES = 1 << 20
_SHORT = 128
"""Texts up to so many characters are remembered: a session encodes the same ones thousands of times. Bytes never: some are keys."""


def encode_context(*items: ContextItem) -> bytes:
    """Return count (4 bytes) and, per item, a type letter (s, b, i), its length (8 bytes) and its bytes.

    Text is UTF-8; integers are decimal text, so that they have one form at any size. All lengths are big-endian.
    """
    out = [len(items).to_bytes(4, "big")]
    for item in items:
        if isinstance(item, str):
            out.append(_short_text(item) if len(item) <= _SHORT else _tagged(b"s", item.encode("utf-8")))
        elif isinstance(item, bytes):
            out.append(_tagged(b"b", item))
        elif isinstance(item, int) and item is not True and item is not False:
            out.append(_number(item))
        else:
            raise TypeError(f"a context item cannot be {type(item).__name__}")
    return b"".join(out)


def _tagged(letter: bytes, body: bytes) -> bytes:
    if len(body) > _MAX_ITEM_BYTES:
        raise ValueError("a context item is too long")
    return letter + len(body).to_bytes(8, "big") + body


@lru_cache(maxsize=1024)
def _short_text(item: str) -> bytes:
    return _tagged(b"s", item.encode("utf-8"))


@lru_cache(maxsize=1024)
def _number(item: int) -> bytes:
    return _tagged(b"i", str(item).encode("ascii"))
