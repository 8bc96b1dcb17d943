"""Canonical bytes of JSON values: RFC 8785 restricted to strings, integers, booleans, null, lists and objects.

Floats are refused (amounts travel as integers with a public scale), and so are integers beyond ±(2^53-1), which other
JSON readers would round: such numbers travel as decimal strings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mpc_ops.errors import ConfigError
from mpc_ops.ids import Digest

__all__ = ["MAX_SAFE_INTEGER", "canonical_bytes", "parse_canonical", "sha256_hex"]

MAX_SAFE_INTEGER = 2**53 - 1
_MAX_DEPTH = 64


def _plain(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ConfigError("JSON_INVALID", "value is nested too deeply", expected=f"at most {_MAX_DEPTH} levels")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise ConfigError("JSON_INVALID", "integer beyond ±(2^53-1) must travel as a decimal string")
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise ConfigError("JSON_INVALID", "object names must be strings")
        # RFC 8785 section 3.2.3 sorts by UTF-16 code units, which differs from code points beyond the BMP.
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return {name: _plain(value[name], depth + 1) for name in names}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(item, depth + 1) for item in value]
    raise ConfigError(
        "JSON_INVALID", f"a {type(value).__name__} has no canonical form", expected="str, int, bool, null, list, object"
    )


def canonical_bytes(value: Any) -> bytes:
    """Return the RFC 8785 bytes of `value`.

    Raises:
        ConfigError: JSON_INVALID for floats, large integers, unpaired surrogates or other types.
    """
    try:
        return json.dumps(_plain(value, 0), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("JSON_INVALID", "text with an unpaired surrogate has no canonical form") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ConfigError("JSON_INVALID", "an object names the same member twice")
    return out


def _refuse(text: str) -> Any:
    raise ConfigError("JSON_INVALID", "only integers are allowed as numbers", got=text[:20])


def parse_canonical(data: bytes, *, limit_bytes: int = 1 << 20) -> Any:
    """Parse bytes and insist that they are the canonical form, so that one value has one digest.

    Raises:
        ConfigError: JSON_INVALID if too long, not JSON, or not canonical.
    """
    if len(data) > limit_bytes:
        raise ConfigError(
            "JSON_INVALID", "file is too long", expected=f"at most {limit_bytes} bytes", got=f"{len(data)} bytes"
        )
    try:
        value = json.loads(data, object_pairs_hook=_no_duplicates, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ConfigError("JSON_INVALID", "bytes are not JSON") from None
    if canonical_bytes(value) != data:
        raise ConfigError("JSON_INVALID", "bytes are not in canonical form (RFC 8785)")
    return value


def sha256_hex(data: bytes) -> Digest:
    """Return the SHA-256 of `data` in lower-case hex."""
    return Digest(hashlib.sha256(data).hexdigest())
