"""SSH and SFTP of one connection, on paramiko: only public keys, only the `sftp` subsystem, only the drop box."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import stat
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko import common
from paramiko.message import Message
from paramiko.sftp import (
    CMD_NAMES,
    CMD_OPENDIR,
    CMD_VERSION,
    SFTP_BAD_MESSAGE,
    SFTP_FAILURE,
    SFTP_NO_SUCH_FILE,
    SFTP_OK,
    SFTP_OP_UNSUPPORTED,
    SFTP_PERMISSION_DENIED,
)

from mpc_ops.errors import ComityError, PolicyViolation
from mpc_ops.server.sftp.dropbox import AccountSpool, DropBox, Entry, IncomingFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["AccountServer", "fingerprint"]

_PACKET_LIMIT = 320 << 10  # a write of 256 KiB and its header
_READ_LIMIT = 256 << 10
_OFFSET_LIMIT = 1 << 62
_HANDLES_LIMIT = 64
_CHANNELS_LIMIT = 1000  # in the life of a connection
_SESSIONS_LIMIT = 4  # at once
_AUTH_TRIES = 6
_CODES = {
    "SFTP_DENIED": SFTP_PERMISSION_DENIED,
    "NO_SUCH_FILE": SFTP_NO_SUCH_FILE,
}
_log = logging.getLogger(__name__)


def fingerprint(key: paramiko.PKey) -> str:
    """Return OpenSSH's `SHA256:...` fingerprint of a key."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode("ascii").rstrip("=")


class AccountServer(paramiko.ServerInterface):
    """Answers what one connection asks before SFTP begins: everything but a pinned key and `sftp` is refused.

    Args:
        keys: fingerprints of the pinned keys by account.
        spools: spool folders by account.
        enter: called with the account before its session begins; returns whether it has a connection free.
        idle_s: seconds without progress after which a session ends.
    """

    def __init__(
        self,
        keys: dict[str, frozenset[str]],
        spools: dict[str, AccountSpool],
        enter: Callable[[str], bool],
        idle_s: float,
    ) -> None:
        self._keys = keys
        self._spools = spools
        self._enter = enter
        self._idle_s = idle_s
        self._tries = 0
        self._channels = 0
        self._sessions: list[_BoundedSFTPServer] = []
        self.account: str | None = None

    def get_allowed_auths(self, username: str) -> str:
        """Public keys only."""
        del username
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        """Accept a pinned Ed25519 key of a known account; paramiko then checks the signature."""
        self._tries += 1
        known = self._keys.get(username, frozenset())
        if self._tries > _AUTH_TRIES or key.get_name() != "ssh-ed25519" or fingerprint(key) not in known:
            _log.warning("login refused: %s", username if username in self._keys else "unknown account")
            return common.AUTH_FAILED
        return common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        """Allow session channels."""
        del chanid
        self._channels += 1
        if kind != "session" or self._channels > _CHANNELS_LIMIT:
            return common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        return common.OPEN_SUCCEEDED

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        """Start SFTP for the account that has authenticated."""
        transport = channel.get_transport()
        account = transport.get_username()
        if name != "sftp" or not transport.is_authenticated() or account not in self._spools:
            return False
        self._sessions = [session for session in self._sessions if session.is_alive()]
        if len(self._sessions) >= _SESSIONS_LIMIT:
            return False
        if self.account is None:
            if not self._enter(account):
                _log.warning("too many connections: %s", account)
                return False
            self.account = account
        channel.settimeout(self._idle_s)
        session = _BoundedSFTPServer(channel, name, self, _Session, DropBox(self._spools[account]), account)
        session.start()
        self._sessions.append(session)
        return True

    @property
    def idle(self) -> bool:
        """Whether no SFTP session is open."""
        return not any(session.is_alive() for session in self._sessions)

    def join(self, timeout_s: float) -> None:
        """Wait until the sessions have tidied up."""
        deadline = time.monotonic() + timeout_s
        for session in self._sessions:
            session.join(max(0.0, deadline - time.monotonic()))


class _Session(paramiko.SFTPServerInterface):
    """Translates SFTP requests to the drop box and its errors to status codes with a text."""

    def __init__(self, server: paramiko.ServerInterface, box: DropBox, account: str) -> None:
        super().__init__(server)
        self._box = box
        self._account = account
        self._open = 0
        self.text: str | None = None

    def answer(self, action: Callable[[], Any]) -> Any:
        """Run `action`; on failure return a status code and keep the text for it."""
        try:
            return action()
        except ComityError as error:
            self.text = str(error)
            if error.code not in _CODES:
                _log.warning("%s: %s", self._account, error)
            return _CODES.get(error.code, SFTP_FAILURE)
        except OSError as error:
            self.text = "SPOOL_FAILED: the operator's spool failed"
            _log.error("%s: spool failed, errno %s", self._account, error.errno)
            return SFTP_FAILURE

    def session_ended(self) -> None:
        self._box.close()

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> Any:
        del attr  # nobody but the operator decides about modes and times
        if self._open >= _HANDLES_LIMIT:
            self.text = "HANDLES_FULL: too many open files"
            return SFTP_FAILURE
        handle = self.answer(lambda: self._open_handle(path, flags))
        self._open += isinstance(handle, _Handle)
        return handle

    def _open_handle(self, path: str, flags: int) -> _Handle:
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
            return _Outgoing(self, self._box.open_outbox(path))
        if flags & (os.O_RDWR | os.O_APPEND) or not flags & os.O_CREAT:
            raise PolicyViolation("SFTP_DENIED", "a file is created and written once, never read back or appended to")
        return _Incoming(self, self._box.create(path))

    def released(self) -> None:
        """Count one handle less."""
        self._open -= 1

    def list_folder(self, path: str) -> Any:
        return self.answer(lambda: [_attributes(entry) for entry in self._box.entries(path)])

    def stat(self, path: str) -> Any:
        return self.answer(lambda: _attributes(self._box.stat(path)))

    def lstat(self, path: str) -> Any:
        return self.stat(path)

    def rename(self, oldpath: str, newpath: str) -> Any:
        def act() -> int:
            size = self._box.rename(oldpath, newpath)
            _log.info("%s delivered %s, %d bytes", self._account, newpath.rsplit("/", 1)[-1], size)
            return SFTP_OK

        return self.answer(act)

    def posix_rename(self, oldpath: str, newpath: str) -> Any:
        # This form may replace a file; ours never does, so it is the same.
        return self.rename(oldpath, newpath)

    def refuse(self, *_: object) -> int:
        """Answer whatever this server does not offer."""
        self.text = "SFTP_DENIED: inbox/ is create only, outbox/ is read only"
        return SFTP_PERMISSION_DENIED

    def remove(self, path: str) -> int:
        return self.refuse(path)

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        return self.refuse(path, attr)

    def rmdir(self, path: str) -> int:
        return self.refuse(path)

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        return self.refuse(path, attr)

    def readlink(self, path: str) -> int:
        return self.refuse(path)

    def symlink(self, target_path: str, path: str) -> int:
        return self.refuse(target_path, path)

    def canonicalize(self, path: str) -> str:
        names: list[str] = []
        for name in path[:1000].split("/"):
            if name == "..":
                names = names[:-1]
            elif name not in {"", "."}:
                names.append(name)
        return "/" + "/".join(names)


class _Handle(paramiko.SFTPHandle):
    def __init__(self, session: _Session) -> None:
        super().__init__()
        self._session = session
        self._closed = False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._session.released()
            self._release()

    def _release(self) -> None:
        raise NotImplementedError

    def chattr(self, attr: paramiko.SFTPAttributes) -> int:
        return self._session.refuse(attr)


class _Incoming(_Handle):
    def __init__(self, session: _Session, file: IncomingFile) -> None:
        super().__init__(session)
        self._file = file

    def _release(self) -> None:
        self._file.close()

    def write(self, offset: int, data: ReadableBuffer) -> Any:
        def act() -> int:
            self._file.write(offset, bytes(data))
            return SFTP_OK

        return self._session.answer(act)

    def read(self, offset: int, length: int) -> int:
        return self._session.refuse(offset, length)

    def stat(self) -> paramiko.SFTPAttributes:
        return _attributes(Entry(self._file.name, self._file.size, 0, is_folder=False))


class _Outgoing(_Handle):
    def __init__(self, session: _Session, descriptor: int) -> None:
        super().__init__(session)
        self._descriptor = descriptor

    def _release(self) -> None:
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> Any:
        if offset > _OFFSET_LIMIT:
            return b""  # behind the end, and more than the system can be asked for
        return self._session.answer(lambda: os.pread(self._descriptor, min(length, _READ_LIMIT), offset))

    def write(self, offset: int, data: ReadableBuffer) -> int:
        return self._session.refuse(offset, data)

    def stat(self) -> paramiko.SFTPAttributes:
        found = os.fstat(self._descriptor)
        return _attributes(Entry("", found.st_size, int(found.st_mtime), is_folder=False))


class _ShortPacketError(Exception):
    pass


class _Packet(Message):
    """A packet that ends where it ends.

    paramiko reads zero bytes for ever behind it, so that a count of 2^32 attributes in a short packet keeps a core busy for hours.
    """

    def get_bytes(self, n: int) -> bytes:
        found = self.packet.read(n)
        if len(found) < n:
            raise _ShortPacketError
        return found


class _BoundedSFTPServer(paramiko.SFTPServer):
    """paramiko's server with bounds on packets and handles, texts in statuses, and without its extensions."""

    server: _Session
    sock: Any

    def _read_packet(self) -> tuple[int, bytes]:
        size = struct.unpack(">I", self._read_all(4))[0]
        if not 0 < size <= _PACKET_LIMIT:
            raise EOFError("packet beyond the limit")
        data = self._read_all(size)
        return data[0], data[1:]

    def _read_all(self, n: int) -> bytes:
        out = bytearray()
        while len(out) < n:
            chunk = self.sock.recv(n - len(out))
            if not chunk:
                raise EOFError
            out += chunk
        return bytes(out)

    def _send_server_version(self) -> int:
        _, data = self._read_packet()
        if len(data) < 4:
            raise EOFError("no version")
        answer = Message()
        answer.add_int(3)
        self._send_packet(CMD_VERSION, answer)  # type: ignore[attr-defined]  # absent from the stubs, as the next two
        return int(struct.unpack(">I", data[:4])[0])

    def _send_status(self, request_number: int, code: int, desc: str | None = None) -> None:
        text, self.server.text = self.server.text, None
        super()._send_status(request_number, code, desc if code == SFTP_OK else (text or desc))  # type: ignore[misc]

    def _check_file(self, request_number: int, msg: Message) -> None:
        # A hash of a file being written would be a way to read it.
        del msg
        self._send_status(request_number, SFTP_OP_UNSUPPORTED)

    def _process(self, t: int, request_number: int, msg: Message) -> None:
        if t not in CMD_NAMES:
            self._send_status(request_number, SFTP_OP_UNSUPPORTED)
            return
        if t == CMD_OPENDIR and len(self.folder_table) >= _HANDLES_LIMIT:
            self._send_status(request_number, SFTP_FAILURE, "HANDLES_FULL: too many open folders")
            return
        try:
            super()._process(t, request_number, _Packet(msg.get_remainder()))  # type: ignore[misc]
        except _ShortPacketError:
            self._send_status(request_number, SFTP_BAD_MESSAGE, "the packet ends before its fields")

    def finish_subsystem(self) -> None:
        # Handles first: closing them makes complete files durable before the drop box forgets what has no name.
        for handle in self.file_table.values():
            handle.close()
        super().finish_subsystem()


def _attributes(entry: Entry) -> paramiko.SFTPAttributes:
    attributes = paramiko.SFTPAttributes()
    attributes.filename = entry.name
    attributes.st_size = entry.size
    attributes.st_mode = stat.S_IFDIR | 0o550 if entry.is_folder else stat.S_IFREG | 0o440
    attributes.st_mtime = attributes.st_atime = entry.mtime
    return attributes
