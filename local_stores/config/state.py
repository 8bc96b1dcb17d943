"""Where a site keeps state between tasks: a folder, or an object store through fsspec. Tasks share no other disk.

Everything is written whole: to a temporary name, made durable, then renamed (a folder) or put as one object (a store).
A reader sees a file completely or not at all. Names are relative, `/`-separated, and checked.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from local_stores.errors import ConfigError, LocalDataError, StoreUnavailable

__all__ = ["State"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,199}){0,9}")
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class State:
    """Files under one `state_url`.

    Args:
        url: a folder, or an fsspec URL such as `s3://bucket/comity`; credentials come from the environment.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder = None if "://" in url and not url.startswith("file://") else Path(url.removeprefix("file://"))
        self._remote: Any = None

    @property
    def folder(self) -> Path | None:
        """The folder, if state lies in one."""
        return self._folder

    def read(self, name: str, *, limit_bytes: int = 1 << 30) -> bytes | None:
        """Return a file's bytes, or None if there is no such file.

        Raises:
            StoreUnavailable: STATE_UNAVAILABLE. ConfigError: FILE_TOO_LONG.
        """
        name = _checked(name)
        data: bytes | None
        try:
            if self._folder is not None:
                path = self._folder / name
                data = path.read_bytes() if path.stat().st_size <= limit_bytes else None
            else:
                at = self._at(name)
                data = self._fs().cat_file(at) if self._fs().size(at) <= limit_bytes else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unavailable(error, name) from None
        if data is None:
            raise ConfigError("FILE_TOO_LONG", "a state file is too long", ids={"file": name})
        return data

    def require(self, name: str, *, limit_bytes: int = 1 << 30) -> bytes:
        """Return a file's bytes; raise ConfigError STATE_MISSING if there is no such file."""
        data = self.read(name, limit_bytes=limit_bytes)
        if data is None:
            raise ConfigError(
                "STATE_MISSING",
                "a file that an earlier step wrote is not there",
                ids={"file": name},
                hint="Check that every worker of the site uses the same state folder, or start the filing again",
            )
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole, replacing an earlier one; readable by this user only.

        Raises:
            LocalDataError: DISK_FULL. StoreUnavailable: STATE_UNAVAILABLE.
        """
        name = _checked(name)
        try:
            if self._folder is not None:
                _write_file(self._folder / name, data)
            else:
                self._fs().pipe_file(self._at(name), data)
        except OSError as error:
            raise _unavailable(error, name) from None

    def write_once(self, name: str, data: bytes) -> bytes:
        """Write a file unless it is there, and return what is there now (the first writer's bytes)."""
        present = self.read(name)
        if present is not None:
            return present
        if self._folder is None:
            self.write(name, data)
            return data
        target = self._folder / _checked(name)
        try:
            temporary = _write_temporary(target, data)
            try:
                os.link(temporary, target)  # fails where another task was faster
            except FileExistsError:
                return self.require(name)
            finally:
                temporary.unlink()
            _sync_folder(target.parent)
        except OSError as error:
            raise _unavailable(error, name) from None
        return data

    def names(self, folder: str) -> list[str]:
        """Return the sorted names directly under a state folder (files and folders); empty if there is none."""
        folder = _checked(folder)
        try:
            if self._folder is not None:
                found = [entry.name for entry in os.scandir(self._folder / folder)]
            else:
                at = self._at(folder)
                found = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in self._fs().ls(at, detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unavailable(error, folder) from None
        return sorted(name for name in found if _NAME.fullmatch(name) and not name.endswith(".tmp"))

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        name = _checked(name)
        with suppress(FileNotFoundError):
            if self._folder is not None:
                (self._folder / name).unlink()
            else:
                self._fs().rm_file(self._at(name))

    def path_text(self, name: str) -> str:
        """Return where a state file lies, for people and messages."""
        return str(self._folder / _checked(name)) if self._folder is not None else self._at(_checked(name))

    def _at(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"

    def _fs(self) -> Any:
        if self._remote is None:
            try:
                import fsspec  # noqa: PLC0415 - only sites with an object store need it

                self._remote, _ = fsspec.core.url_to_fs(self.url)
            except (ImportError, ValueError) as error:
                raise ConfigError(
                    "STATE_URL",
                    f"the state_url cannot be opened ({type(error).__name__})",
                    ids={"scheme": self._scheme},
                ) from None
        return self._remote

    @property
    def _scheme(self) -> str:
        return self.url.partition("://")[0]

    def __repr__(self) -> str:
        where = self._folder if self._folder is not None else f"{self._scheme}://…"
        return f"State({where})"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError("NAME_INVALID", "not a name of a state file", got=repr(name[:80]))
    return name


def _unavailable(error: OSError, name: str) -> LocalDataError:
    if error.errno in _DISK_FULL:
        return LocalDataError(
            "DISK_FULL", "no space is left for state", ids={"file": name}, hint="Free space, then run the step again"
        )
    return StoreUnavailable("STATE_UNAVAILABLE", f"state cannot be used ({type(error).__name__})", ids={"file": name})


def _write_file(path: Path, data: bytes) -> None:
    temporary = _write_temporary(path, data)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _write_temporary(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
