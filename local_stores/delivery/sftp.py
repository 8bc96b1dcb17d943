"""Deliver once, fetch what is new: the owner's side of an operator's inbox and outbox.

A file is written under `NAME.<random>.part` and renamed to NAME when it is whole; a name that is there counts as
delivered. So every call can be repeated after any failure, also from another machine, and nothing is delivered twice.
"""

from __future__ import annotations

import errno
import io
import re
import secrets
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import paramiko

from mpc_ops.envelope.secrets import read_secret
from mpc_ops.errors import ConfigError, DeliveryError, PeerProtocolError, PeerTimeout, PeerUnavailable
from mpc_ops.federation.pki import ssh_fingerprint

__all__ = ["Delivered", "OutboxFile", "SftpEndpoint", "connect", "fetch_new", "list_outbox", "put_once"]

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_CODE = re.compile(r"([A-Z][A-Z0-9_]{2,40}): (.{0,300})", re.DOTALL)
_CHUNK = 32 << 10  # what OpenSSH and paramiko take in one request
_WINDOW_BYTES = 4 << 20
_STALL_S = 60.0
_OTHER_HOST_KEYS = [
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-rsa",
]


@dataclass(frozen=True, slots=True)
class SftpEndpoint:
    """Where an operator's SFTP server is, from the directory."""

    party: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """A file that lies in the operator's inbox under its final name.

    Attributes:
        was_there: it lay there before this call, which sent nothing.
    """

    name: str
    size_bytes: int
    was_there: bool


@dataclass(frozen=True, slots=True)
class OutboxFile:
    """A file in an operator's outbox."""

    name: str
    size_bytes: int


@contextmanager
def connect(
    endpoint: SftpEndpoint, account: str, key_file: Path, host_key: str | Sequence[str], *, timeout_s: float = 15.0
) -> Iterator[paramiko.SFTPClient]:
    """Open an SFTP session with a pinned host key; use as a context manager.

    Args:
        endpoint: the operator's server.
        account: the owner's id.
        key_file: OpenSSH Ed25519 private key, mode 0600.
        host_key: public line `ssh-ed25519 AAAA...`, or two of them while the operator changes its key.
        timeout_s: limit for connecting and for each step of the login.

    Raises:
        ConfigError: HOST_KEY_MISMATCH (before anything is sent), AUTH_REFUSED, SECRET_MISSING, SECRET_PERMISSIONS,
            KEY_INVALID.
        PeerUnavailable, PeerTimeout: transient.
    """
    pinned = {ssh_fingerprint(key) for key in ([host_key] if isinstance(host_key, str) else host_key)}
    own_key = _private_key(key_file)
    with _translated(endpoint.party):
        connection = socket.create_connection((endpoint.host, endpoint.port), timeout=timeout_s)
    transport: paramiko.Transport | None = None
    try:
        with _translated(endpoint.party):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = paramiko.Transport(
                connection, default_window_size=_WINDOW_BYTES, disabled_algorithms={"keys": _OTHER_HOST_KEYS}
            )
            transport.banner_timeout = transport.auth_timeout = timeout_s
            transport.start_client(timeout=timeout_s)
            _check_host_key(transport.get_remote_server_key(), pinned, endpoint.party)
            transport.auth_publickey(account, own_key)
            session = paramiko.SFTPClient.from_transport(transport)
            if session is None:
                raise PeerUnavailable("SFTP_UNAVAILABLE", "no SFTP session", ids={"party": endpoint.party})
        yield session
    finally:
        if transport is not None:
            transport.close()
        connection.close()


def put_once(
    sftp: paramiko.SFTPClient, name: str, data: bytes | Path, *, party: str = "operator", inbox: str = "inbox"
) -> Delivered:
    """Deliver one file under `inbox/name`, or find it delivered.

    Args:
        sftp: an open session of the owner's account.
        name: final name, `[A-Za-z0-9._-]`, at most 200 characters, no leading dot; it should contain the SHA-256 of
            the bytes, since a name that is there with the same size counts as delivered.
        data: the bytes, or the file that holds them.
        party: the operator, for messages.
        inbox: folder on the server.

    Raises:
        DeliveryError: NAME_TAKEN (a file of another size has this name), FILE_TOO_LARGE, INBOX_FULL, SFTP_DENIED.
        PeerUnavailable: DISK_FULL, SFTP_FAILED, SFTP_UNAVAILABLE; PeerTimeout: transient. Call again.
        ConfigError: NAME_INVALID.
    """
    if not _NAME.fullmatch(name) or name.endswith(".part"):
        raise ConfigError("NAME_INVALID", "not a file name for an inbox", got=repr(name[:80]))
    size = data.stat().st_size if isinstance(data, Path) else len(data)
    final = f"{inbox}/{name}"
    with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as source, _translated(party, sftp):
        if _is_delivered(sftp, final, size, party):
            return Delivered(name, size, was_there=True)
        # A fresh name each time: what a broken connection left behind is never continued, and the server clears it.
        part = f"{final}.{secrets.token_hex(8)}.part"
        _write(sftp, part, source, size)
        sent = sftp.stat(part).st_size
        if sent != size:
            raise PeerUnavailable(
                "SFTP_FAILED", "the file arrived in part", expected=f"{size} bytes", got=f"{sent}", ids={"party": party}
            )
        try:
            sftp.rename(part, final)
        except OSError:
            # Another call may have been faster, or this one's answer got lost.
            if not _is_delivered(sftp, final, size, party):
                raise
            return Delivered(name, size, was_there=True)
    return Delivered(name, size, was_there=False)


def list_outbox(
    sftp: paramiko.SFTPClient,
    folder: str,
    *,
    party: str = "operator",
    limit_files: int = 20_000,
    outbox: str = "outbox",
) -> list[OutboxFile]:
    """List the files of one folder of the outbox, sorted by name; a folder that is not there is empty.

    Raises:
        PeerProtocolError: OUTBOX_INVALID if the operator shows too many files or a name that is none.
        PeerUnavailable, PeerTimeout: transient.
    """
    files = []
    with _translated(party, sftp):
        try:
            for count, entry in enumerate(sftp.listdir_iter(f"{outbox}/{folder}")):
                if count >= limit_files:
                    raise _outbox_invalid("too many files", party)
                if stat.S_ISDIR(entry.st_mode or 0):
                    continue
                if not _NAME.fullmatch(entry.filename) or entry.st_size is None:
                    raise _outbox_invalid("a name or size that is none", party)
                files.append(OutboxFile(entry.filename, entry.st_size))
        except FileNotFoundError:
            return []
    return sorted(files, key=lambda file: file.name)


def fetch_new(
    sftp: paramiko.SFTPClient,
    folder: str,
    known: set[str],
    limit_bytes: int,
    *,
    party: str = "operator",
    limit_files: int = 1000,
    outbox: str = "outbox",
) -> list[tuple[str, bytes]]:
    """Fetch the files of one folder of the outbox whose names are not yet known, in the order of their names.

    Args:
        sftp: an open session of the owner's account.
        folder: `keys`, `notices`, `releases`, `receipts`, `evidence`, or one below.
        known: names that the caller has.
        limit_bytes: most bytes to return; what does not fit comes with the next call.
        party: the operator, for messages.
        limit_files: most files to return; the rest comes with the next call.
        outbox: folder on the server.

    Raises:
        PeerProtocolError: OUTBOX_INVALID; FILE_TOO_LARGE if a single file is beyond `limit_bytes`.
        PeerUnavailable, PeerTimeout: transient.
    """
    fetched: list[tuple[str, bytes]] = []
    room = limit_bytes
    for file in list_outbox(sftp, folder, party=party, outbox=outbox):
        if file.name in known:
            continue
        if file.size_bytes > limit_bytes:
            raise PeerProtocolError(
                "FILE_TOO_LARGE",
                "a file of the outbox is too large",
                expected=f"at most {limit_bytes} bytes",
                got=f"{file.size_bytes} bytes",
                ids={"party": party, "file": file.name},
            )
        if file.size_bytes > room or len(fetched) >= limit_files:
            break
        with _translated(party, sftp):
            try:
                fetched.append((file.name, _read(sftp, f"{outbox}/{folder}/{file.name}", file.size_bytes, party)))
            except FileNotFoundError:
                continue  # withdrawn since it was listed
        room -= file.size_bytes
    return fetched


def _write(sftp: paramiko.SFTPClient, part: str, source: BinaryIO, size: int) -> None:
    with sftp.open(part, "wx") as target:
        target.set_pipelined(pipelined=True)
        left = size
        while left > 0:
            chunk = source.read(min(_CHUNK, left))
            if not chunk:
                break
            left -= len(chunk)
            if left == 0:
                # The last write waits for the answers to all; closing would drop what went wrong, and why.
                target.set_pipelined(pipelined=False)
            target.write(chunk)


def _read(sftp: paramiko.SFTPClient, path: str, size: int, party: str) -> bytes:
    with sftp.open(path, "rb") as source:
        if size > _CHUNK:
            source.prefetch(size)
        data = source.read(size)
    if len(data) != size:
        raise PeerUnavailable("SFTP_FAILED", "a file of the outbox came in part", ids={"party": party})
    return data


def _is_delivered(sftp: paramiko.SFTPClient, final: str, size: int, party: str) -> bool:
    try:
        there = sftp.stat(final).st_size
    except FileNotFoundError:
        return False
    if there != size:
        raise DeliveryError(
            "NAME_TAKEN",
            "another file has this name in the inbox",
            expected=f"{size} bytes",
            got=f"{there} bytes",
            ids={"party": party, "file": final.rsplit("/", 1)[-1]},
        )
    return True


def _private_key(path: Path) -> paramiko.Ed25519Key:
    data = read_secret(path)
    try:
        return paramiko.Ed25519Key.from_private_key(io.StringIO(data.decode("ascii")))
    except (paramiko.SSHException, ValueError):
        raise ConfigError(
            "KEY_INVALID", "not an OpenSSH Ed25519 private key without passphrase", ids={"file": str(path)}
        ) from None


def _check_host_key(key: paramiko.PKey, pinned: set[str], party: str) -> None:
    shown = ssh_fingerprint(f"{key.get_name()} {key.get_base64()}")
    if shown not in pinned:
        raise ConfigError(
            "HOST_KEY_MISMATCH",
            "the SFTP server shows another host key than the directory pins",
            expected=" or ".join(sorted(pinned)),
            got=shown,
            ids={"party": party},
            hint="Ask the operator; until then something between you and it may be listening",
        )


@contextmanager
def _translated(party: str, sftp: paramiko.SFTPClient | None = None) -> Iterator[None]:
    """Turn what paramiko and sockets raise into errors that say whether a retry can help."""
    channel = sftp.get_channel() if sftp is not None else None
    if channel is not None and channel.gettimeout() is None:
        channel.settimeout(_STALL_S)  # paramiko waits for ever otherwise
    ids = {"party": party}
    try:
        yield
    except paramiko.AuthenticationException:
        raise ConfigError(
            "AUTH_REFUSED",
            "the SFTP server refuses the account or its key",
            ids=ids,
            hint="The operator must have the owner's present SSH key from the directory",
        ) from None
    except paramiko.ssh_exception.IncompatiblePeer:
        raise ConfigError(
            "SSH_INCOMPATIBLE", "the SFTP server offers no Ed25519 host key or no modern cipher", ids=ids
        ) from None
    except TimeoutError:
        raise PeerTimeout("SFTP_TIMEOUT", "the SFTP server does not answer", ids=ids) from None
    except (paramiko.SSHException, EOFError) as error:
        raise PeerUnavailable(
            "SFTP_UNAVAILABLE", "the SFTP connection failed", got=type(error).__name__, ids=ids
        ) from None
    except OSError as error:
        raise _from_status(error, party) from None


def _from_status(error: OSError, party: str) -> Exception:
    """Map an SFTP status; Comity's server puts a code first, OpenSSH says `Failure` or `Permission denied`."""
    ids = {"party": party}
    match = _CODE.match(str(error.args[-1]) if error.args else "")
    code, what = match.groups() if match else ("", "")
    if code in {"FILE_TOO_LARGE", "INBOX_FULL", "FILE_EXISTS"}:
        return DeliveryError(code, what, ids=ids)
    if code == "DISK_FULL":
        return PeerUnavailable(code, what, ids=ids, hint="The operator must free space; the delivery is tried again")
    if code == "SFTP_DENIED" or error.errno == errno.EACCES:
        return DeliveryError("SFTP_DENIED", what or "the SFTP server does not allow it", ids=ids)
    if error.errno in {None, errno.ENOENT} or code:
        return PeerUnavailable("SFTP_FAILED", "the SFTP server reports a failure", got=code or None, ids=ids)
    return PeerUnavailable("SFTP_UNAVAILABLE", "no connection to the SFTP server", got=f"errno {error.errno}", ids=ids)


def _outbox_invalid(why: str, party: str) -> PeerProtocolError:
    return PeerProtocolError("OUTBOX_INVALID", f"the operator's outbox shows {why}", ids={"party": party})
