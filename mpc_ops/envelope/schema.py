"""Strict decoding of JSON from other parties into frozen msgspec structs.

`decode` insists on canonical bytes, known members and declared types and bounds; `encode` gives the canonical bytes back.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

from mpc_ops.envelope.canonical import canonical_bytes, parse_canonical
from mpc_ops.errors import ConfigError

__all__ = ["Model", "built", "decode", "encode", "from_plain", "to_plain"]


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every file and message that travels: immutable, no unknown members."""


M = TypeVar("M")
_LONGEST = 300
_building = threading.Lock()
_built: set[type] = set()


def built(kind: type[M]) -> type[M]:
    """Return `kind` once its decoding tables are complete; call it wherever a struct type is given to msgspec.

    msgspec makes them when a type is first used and publishes them half-made: a second thread that decodes the same type
    at that moment reads a null pointer, which ends the process (seen in a triggerer with several waiting tasks).
    """
    if kind not in _built:
        with _building:
            msgspec.json.Decoder(kind)
            _built.add(kind)
    return kind


def to_plain(value: msgspec.Struct) -> dict[str, Any]:
    """Return the JSON-able form of a struct (a new dict)."""
    plain: dict[str, Any] = msgspec.to_builtins(value, str_keys=True)
    return plain


def from_plain(value: Any, kind: type[M], *, what: str) -> M:
    """Convert a parsed JSON value into `kind`; raise ConfigError SCHEMA_INVALID naming the member, never its value."""
    try:
        return msgspec.convert(value, type=built(kind), strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(
            "SCHEMA_INVALID", f"{what} does not have the form it must have", got=_without_value(error)
        ) from None


def decode(data: bytes, kind: type[M], *, what: str, limit_bytes: int = 1 << 20) -> M:
    """Decode canonical JSON bytes into `kind`; raises ConfigError JSON_INVALID or SCHEMA_INVALID."""
    return from_plain(parse_canonical(data, limit_bytes=limit_bytes), kind, what=what)


def encode(value: msgspec.Struct) -> bytes:
    """Return the canonical bytes of a struct."""
    return canonical_bytes(to_plain(value))


def _without_value(error: msgspec.ValidationError) -> str:
    # msgspec quotes the offending value only for enums, literals and tags ("Invalid enum value 'x' - at `$.y`"),
    # and it names an unknown member, which may be as long as the message.
    text = str(error)
    if text.startswith(("Invalid enum value", "Invalid value")):
        _, _, place = text.rpartition(" - at ")
        text = f"a word that is not in the closed list at {place}"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
