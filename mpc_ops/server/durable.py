"""Files that others read: complete under their name or not there at all, and durable."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["publish_file", "remove_file"]


def publish_file(path: Path, data: bytes, *, mode: int = 0o640) -> None:
    """Write `data` under a hidden draft name, make it durable and rename it; an existing equal file is left alone.

    The draft begins with a dot: such names are invisible to owners.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o770)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def remove_file(path: Path) -> bool:
    """Remove a file if it is there; return whether it was."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
