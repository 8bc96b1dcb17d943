"""What one account may do to the spool: create in its inbox, read in its outbox. No SSH in here.

Every access goes from an opened folder to one name, without following symbolic links, so nothing planted in the spool and
nothing in a path leads out of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from mpc_ops.errors import ComityError, ConfigError, DeliveryError, PolicyViolation, StateError, TransportError
from mpc_ops.server.sftp.config import SftpLimits

__all__ = ["AccountSpool", "DropBox", "Entry", "IncomingFile"]

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,219}")  # ASCII only; a leading dot is never allowed
_FINAL_NAME_LIMIT = 200  # leaves room for .<random>.part
_PATH_LIMIT = 1000
_DEPTH_LIMIT = 4
_LIST_LIMIT = 20_000
_PART = ".part"
_FREE_CHECK_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder as the owner sees it: name, size in bytes, modification time in seconds."""

    name: str
    size: int
    mtime: int
    is_folder: bool


class AccountSpool:
    """One account's folders and the space it uses; shared by all connections of the account."""

    def __init__(self, spool: Path, account: str, limits: SftpLimits) -> None:
        self.account = account
        self.limits = limits
        self._lock = threading.Lock()
        self._used_bytes = 0
        self._reserved: dict[str, int] = {}
        try:
            self.inbox = self._make(spool / "inbox", account)
            self.outbox = self._make(spool / "outbox", account)
            self.remove_parts()
        except OSError as error:
            raise ConfigError(
                "SPOOL_INVALID",
                "the spool folders of an account cannot be used",
                got=f"errno {error.errno}",
                ids={"account": account},
            ) from None

    @staticmethod
    def _make(area: Path, account: str) -> Path:
        area.mkdir(parents=True, exist_ok=True)
        folder = area / account
        if not folder.is_symlink() and not folder.exists():
            folder.mkdir()
            folder.chmod(0o2770)
        return folder

    def remove_parts(self) -> None:
        """Remove what earlier processes left unfinished."""
        folder = os.open(self.inbox, _FOLDER)
        try:
            for name in _names(folder):
                if name.endswith(_PART):
                    os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)

    def admit(self, folder: int) -> None:
        """Count the inbox anew before a file is created; the operator removes files behind our back.

        Raises:
            DeliveryError: INBOX_FULL.
            TransportError: DISK_FULL.
        """
        with self._lock:
            used = files = 0
            with os.scandir(folder) as entries:
                for entry in entries:
                    # Another connection renames its part, or the operator takes a file, while we count.
                    with contextlib.suppress(FileNotFoundError):
                        used += entry.stat(follow_symlinks=False).st_size
                        files += 1
            self._used_bytes = used
        if files >= self.limits.max_account_files:
            raise DeliveryError("INBOX_FULL", "the inbox holds too many files", got=f"{files} files")
        self._check_bytes(used)
        self.check_free(folder)

    def take(self, count: int) -> None:
        """Add `count` bytes to the account's use; DeliveryError INBOX_FULL beyond its limit."""
        with self._lock:
            self._used_bytes += count
            used = self._used_bytes
        self._check_bytes(used)

    def check_free(self, descriptor: int) -> None:
        """Raise TransportError DISK_FULL if the disk is nearly full."""
        disk = os.fstatvfs(descriptor)
        if disk.f_bavail * disk.f_frsize < self.limits.min_free_bytes:
            raise TransportError("DISK_FULL", "the operator's disk is full")

    def _check_bytes(self, used: int) -> None:
        if used > self.limits.max_account_bytes:
            raise DeliveryError(
                "INBOX_FULL", "the inbox is full", expected=f"at most {self.limits.max_account_bytes} bytes"
            )


class IncomingFile:
    """A file being written, strictly from its beginning to its end."""

    def __init__(self, spool: AccountSpool, folder: int, name: str) -> None:
        self.name = name
        self.size = 0
        self.whole = False
        self._spool = spool
        self._checked = 0
        self._failed = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor: int | None = os.open(name, flags, 0o640, dir_fd=folder)

    def write(self, offset: int, data: bytes) -> None:
        """Append `data`, which must begin where the file ends.

        Raises:
            StateError: WRITE_ORDER. DeliveryError: FILE_TOO_LARGE, INBOX_FULL. TransportError: DISK_FULL.
        """
        try:
            self._append(offset, data)
        except ComityError:
            self._failed = True
            raise
        except OSError as error:
            self._failed = True
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise TransportError("DISK_FULL", "the operator's disk is full") from None
            raise

    def _append(self, offset: int, data: bytes) -> None:
        if self._descriptor is None or self._failed or offset != self.size:
            raise StateError("WRITE_ORDER", "a file is written once, from its beginning to its end")
        if self.size + len(data) > self._spool.limits.max_file_bytes:
            raise DeliveryError(
                "FILE_TOO_LARGE", "the file is too large", expected=f"at most {self._spool.limits.max_file_bytes} bytes"
            )
        self._spool.take(len(data))
        if self.size - self._checked >= _FREE_CHECK_BYTES:
            self._spool.check_free(self._descriptor)
            self._checked = self.size
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self.size += written
            view = view[written:]

    def close(self) -> None:
        """Make the bytes durable; only then may the file get its name."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            if not self._failed:
                os.fsync(descriptor)
                self.whole = True
        finally:
            os.close(descriptor)


class DropBox:
    """The view of one connection of an account."""

    def __init__(self, spool: AccountSpool) -> None:
        self._spool = spool
        self._parts: dict[str, IncomingFile] = {}
        self._inbox = os.open(spool.inbox, _FOLDER)
        self._outbox = os.open(spool.outbox, _FOLDER)

    def create(self, path: str) -> IncomingFile:
        """Create `inbox/NAME.part` or `inbox/NAME.<random>.part` for writing.

        Raises:
            PolicyViolation: SFTP_DENIED. StateError: FILE_EXISTS. DeliveryError: INBOX_FULL. TransportError: DISK_FULL.
        """
        area, names = split(path)
        if area != "inbox" or len(names) != 1 or not names[0].endswith(_PART) or names[0] == _PART:
            raise _denied("files are created in inbox/ under a name that ends in .part")
        self._spool.admit(self._inbox)
        try:
            file = IncomingFile(self._spool, self._inbox, names[0])
        except FileExistsError:
            raise _exists() from None
        self._parts[names[0]] = file
        return file

    def rename(self, old: str, new: str) -> int:
        """Give a file that this connection has written its final name; never replaces anything. Returns its bytes.

        Raises:
            PolicyViolation: SFTP_DENIED. StateError: FILE_EXISTS, FILE_UNFINISHED.
        """
        (old_area, old_names), (new_area, new_names) = split(old), split(new)
        if old_area != "inbox" or new_area != "inbox" or len(old_names) != 1 or len(new_names) != 1:
            raise _denied("only a file of inbox/ is renamed, within it")
        part, final = old_names[0], new_names[0]
        if (
            len(final) > _FINAL_NAME_LIMIT
            or final.endswith(_PART)
            or not part.startswith(final + ".")
            or part not in self._parts
        ):
            raise _denied("NAME.<random>.part, written in this connection, is renamed to NAME")
        if not self._parts[part].whole:
            raise StateError("FILE_UNFINISHED", "the file is not closed, or writing it failed")
        try:
            # link, unlike rename, never replaces a name that is there, also when two connections race
            os.link(part, final, src_dir_fd=self._inbox, dst_dir_fd=self._inbox, follow_symlinks=False)
        except FileExistsError:
            raise _exists() from None
        size = self._parts.pop(part).size
        os.unlink(part, dir_fd=self._inbox)
        os.fsync(self._inbox)
        return size

    def stat(self, path: str) -> Entry:
        """Return what stands at `path`: a delivered file of the own inbox, an outbox entry, or one of the folders.

        Raises:
            PolicyViolation: SFTP_DENIED. StateError: NO_SUCH_FILE.
        """
        area, names = split(path)
        if not names:
            return Entry(area or "/", 0, 0, is_folder=True)
        if area == "inbox":
            if len(names) != 1 or (names[0].endswith(_PART) and names[0] not in self._parts):
                raise _missing()
            return _entry(names[0], self._inbox, folders=False)
        folder = self._descend(names[:-1])
        try:
            return _entry(names[-1], folder, folders=True)
        finally:
            os.close(folder)

    def entries(self, path: str) -> list[Entry]:
        """List the root or a folder of the outbox; the inbox is never listed.

        Raises:
            PolicyViolation: SFTP_DENIED. StateError: NO_SUCH_FILE, FOLDER_TOO_LARGE.
        """
        area, names = split(path)
        if not area:
            return [Entry(name, 0, 0, is_folder=True) for name in ("inbox", "outbox")]
        if area == "inbox":
            raise _denied("inbox/ cannot be listed")
        folder = self._descend(names)
        try:
            found = sorted(name for name in _names(folder) if _NAME.fullmatch(name))
            if len(found) > _LIST_LIMIT:
                raise StateError("FOLDER_TOO_LARGE", "the folder holds too many files to be listed")
            return [entry for name in found if (entry := _entry_if_there(name, folder)) is not None]
        finally:
            os.close(folder)

    def open_outbox(self, path: str) -> int:
        """Open a file of the outbox for reading and return its descriptor.

        Raises:
            PolicyViolation: SFTP_DENIED. StateError: NO_SUCH_FILE.
        """
        area, names = split(path)
        if area != "outbox" or not names:
            raise _denied("files are read in outbox/ only")
        folder = self._descend(names[:-1])
        try:
            # O_NONBLOCK: opening a planted pipe must not hang
            descriptor = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            raise _missing() from None
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _missing()
        return descriptor

    def close(self) -> None:
        """Forget the connection: what did not get its final name is removed."""
        for name, file in self._parts.items():
            file.close()
            try:
                os.unlink(name, dir_fd=self._inbox)
            except FileNotFoundError:
                continue
        self._parts.clear()
        for descriptor in (self._inbox, self._outbox):
            os.close(descriptor)

    def _descend(self, names: list[str]) -> int:
        folder = os.dup(self._outbox)
        for name in names:
            try:
                deeper = os.open(name, _FOLDER, dir_fd=folder)
            except OSError:
                raise _missing() from None
            finally:
                os.close(folder)
            folder = deeper
        return folder


def split(path: str) -> tuple[str, list[str]]:
    """Split a path of the owner into ("", "inbox" or "outbox", names below); raise PolicyViolation SFTP_DENIED."""
    if len(path) > _PATH_LIMIT:
        raise _denied("the path is too long")
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if not parts:
        return "", []
    area, names = parts[0], parts[1:]
    if area not in {"inbox", "outbox"} or len(names) > _DEPTH_LIMIT or not all(map(_NAME.fullmatch, names)):
        raise _denied("there are inbox/ and outbox/, and names of letters, digits, '.', '_' and '-'")
    return area, names


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _entry(name: str, folder: int, *, folders: bool) -> Entry:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        raise _missing() from None
    is_folder = stat.S_ISDIR(found.st_mode)
    if not stat.S_ISREG(found.st_mode) and not (folders and is_folder):
        raise _missing()
    return Entry(name, 0 if is_folder else found.st_size, int(found.st_mtime), is_folder)


def _entry_if_there(name: str, folder: int) -> Entry | None:
    try:
        return _entry(name, folder, folders=True)
    except StateError:
        return None  # a link or a pipe, or removed since the folder was read


def _denied(why: str) -> PolicyViolation:
    return PolicyViolation("SFTP_DENIED", why)


def _missing() -> StateError:
    return StateError("NO_SUCH_FILE", "no such file")


def _exists() -> StateError:
    return StateError("FILE_EXISTS", "a file of this name is already there")
