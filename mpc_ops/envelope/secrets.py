"""Secret files: created exclusively with mode 0600, read only if nobody else may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mpc_ops.errors import ConfigError

__all__ = ["read_secret", "write_secret"]


def write_secret(path: Path, data: bytes) -> None:
    """Write `data` to a new file with mode 0600 and make it durable.

    Raises:
        ConfigError: SECRET_EXISTS, so that no key is ever overwritten.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise ConfigError(
            "SECRET_EXISTS", "a key file is already there", ids={"file": path.name}, hint="Move it away first"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_secret(path: Path, *, limit_bytes: int = 1 << 16) -> bytes:
    """Return the bytes of a secret file.

    Raises:
        ConfigError: SECRET_MISSING; SECRET_PERMISSIONS if group or others may read it; KEY_INVALID if too long.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        raise ConfigError("SECRET_MISSING", "a key file cannot be read", ids={"file": str(path)}) from None
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ConfigError(
                "SECRET_PERMISSIONS",
                "a key file is readable by others",
                ids={"file": str(path)},
                hint="Run chmod 600 on it",
            )
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ConfigError(
            "KEY_INVALID", "a key file is too long", expected=f"at most {limit_bytes} bytes", ids={"file": path.name}
        )
    return data
