"""Strict reading of TOML files: unknown members, wrong types and long files are refused with the member's name."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from local_stores.errors import ConfigError
from mpc_ops.envelope.schema import Model, from_plain
from mpc_ops.federation.loaded import read_file

__all__ = ["read_toml", "toml_text"]

M = TypeVar("M", bound=Model)
_LIMIT_BYTES = 1 << 20


def read_toml(path: Path, kind: type[M]) -> M:
    """Read a TOML file as `kind`.

    Raises:
        ConfigError: FILE_MISSING, FILE_TOO_LONG, TOML_INVALID (with line and column), SCHEMA_INVALID (with the member).
    """
    data = read_file(path, limit_bytes=_LIMIT_BYTES)
    try:
        plain = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError("TOML_INVALID", "a file is not UTF-8 text", ids={"file": str(path)}) from None
    except tomllib.TOMLDecodeError as error:
        # The parser's message quotes characters of the file, which may belong to a password: keep the position only.
        _, _, place = str(error).rpartition(" (")
        raise ConfigError("TOML_INVALID", f"not TOML ({place or 'somewhere)'}", ids={"file": str(path)}) from None
    try:
        return from_plain(plain, kind, what=path.name)
    except ConfigError as error:
        raise ConfigError(error.code, error.what, got=error.got, ids={"file": str(path)}) from None


def toml_text(value: str) -> str:
    """Return `value` as a TOML basic string."""
    out = "".join(
        f"\\u{ord(char):04x}" if ord(char) < 32 or ord(char) == 127 else {"\\": "\\\\", '"': '\\"'}.get(char, char)
        for char in value
    )
    return f'"{out}"'
