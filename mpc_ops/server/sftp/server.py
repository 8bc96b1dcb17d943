"""Sockets, threads and limits of the embedded SFTP server."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from collections import Counter

import paramiko

from mpc_ops.envelope.secrets import read_secret
from mpc_ops.errors import ConfigError
from mpc_ops.server.sftp.config import SftpConfig
from mpc_ops.server.sftp.dropbox import AccountSpool
from mpc_ops.server.sftp.session import AccountServer

__all__ = ["SftpServer", "load_host_key"]

_WINDOW_BYTES = 4 << 20  # 16 MB/s at a round trip of 250 ms, and the most a client can make this side hold
_PACKET_BYTES = 64 << 10
_ENTER_S = 2.0
_TIDY_S = 5.0
_DISABLED = {
    # GCM alone: authenticated, and the fastest of them here.
    "ciphers": [
        "aes128-ctr", "aes192-ctr", "aes256-ctr", "aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc",
    ],
    "macs": ["hmac-sha2-256", "hmac-sha2-512", "hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96"],
    "kex": [
        "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
        "diffie-hellman-group16-sha512", "diffie-hellman-group-exchange-sha256", "diffie-hellman-group14-sha256",
    ],
    "pubkeys": [
        "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256",
    ],
}  # fmt: skip
_log = logging.getLogger(__name__)


def load_host_key(data: bytes) -> paramiko.Ed25519Key:
    """Read an OpenSSH Ed25519 private key; raise ConfigError KEY_INVALID."""
    try:
        return paramiko.Ed25519Key.from_private_key(io.StringIO(data.decode("ascii")))
    except (paramiko.SSHException, ValueError):
        raise ConfigError("KEY_INVALID", "the host key is not an OpenSSH Ed25519 private key") from None


class SftpServer:
    """One listening socket; every connection has its own threads, so one that stalls holds up nobody.

    Raises:
        ConfigError: SECRET_MISSING, SECRET_PERMISSIONS, KEY_INVALID, SPOOL_INVALID; PORT_UNAVAILABLE from `start`.
    """

    def __init__(self, config: SftpConfig) -> None:
        self._config = config
        self._host_key = load_host_key(read_secret(config.host_key))
        self._spools = {
            account: AccountSpool(config.spool, account, config.limits) for account in sorted(config.accounts)
        }
        self._lock = threading.Condition()
        self._connections: set[paramiko.Transport | None] = set()
        self._threads: set[threading.Thread] = set()
        self._by_account: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._socket: socket.socket | None = None

    @property
    def host_key(self) -> str:
        """Public line of the host key."""
        return f"{self._host_key.get_name()} {self._host_key.get_base64()}"

    def start(self) -> int:
        """Bind and accept in the background; returns the port."""
        host = self._config.listen_host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, self._config.listen_port), family=family, backlog=64)
        except OSError as error:
            raise ConfigError(
                "PORT_UNAVAILABLE",
                "the SFTP port cannot be used",
                got=f"{host}:{self._config.listen_port}, errno {error.errno}",
            ) from None
        threading.Thread(target=self._accept, args=(self._socket,), name="sftp-accept", daemon=True).start()
        return int(self._socket.getsockname()[1])

    def stop(self, grace_s: float = 5.0) -> None:
        """Stop listening, end all connections (what has no final name is removed), and wait for their threads."""
        self._stopping.set()
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        with self._lock:
            connections, threads = list(self._connections), list(self._threads)
        for connection in connections:
            if connection is not None:
                connection.close()
        deadline = time.monotonic() + grace_s
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:  # closed by stop, reset before it was accepted, or out of descriptors
                self._stopping.wait(0.1)
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="sftp-connection", daemon=True)
            with self._lock:
                if len(self._threads) >= self._config.limits.max_connections:
                    connection.close()
                    _log.warning("connection refused: too many")
                    continue
                self._threads.add(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        transport: paramiko.Transport | None = None
        server = AccountServer(self._config.accounts, self._spools, self._enter, self._config.limits.idle_s)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = paramiko.Transport(
                connection,
                default_window_size=_WINDOW_BYTES,
                default_max_packet_size=_PACKET_BYTES,
                disabled_algorithms=_DISABLED,
            )
            transport.add_server_key(self._host_key)
            with self._lock:
                self._connections.add(transport)
            self._run(transport, server)
        except (paramiko.SSHException, OSError, EOFError) as error:
            _log.info("connection ended: %s", type(error).__name__)
        finally:
            if transport is not None:
                transport.close()
            connection.close()
            server.join(_TIDY_S)
            self._leave(transport, server.account)

    def _run(self, transport: paramiko.Transport, server: AccountServer) -> None:
        limits = self._config.limits
        deadline = time.monotonic() + limits.auth_s
        negotiated = threading.Event()
        transport.start_server(event=negotiated, server=server)
        negotiated.wait(limits.auth_s)
        while transport.is_active() and not transport.is_authenticated():
            if time.monotonic() > deadline:
                _log.warning("connection refused: not authenticated in time")
                return
            self._stopping.wait(0.05)
        idle_since = time.monotonic()
        while transport.is_active() and not self._stopping.is_set():
            if not server.idle:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > limits.idle_s:
                return
            transport.join(1.0)

    def _enter(self, account: str) -> bool:
        limit = self._config.limits.max_account_connections
        with self._lock:
            # A client that comes back at once may be here before its last connection has been seen to end.
            if not self._lock.wait_for(lambda: self._by_account[account] < limit, timeout=_ENTER_S):
                return False
            self._by_account[account] += 1
            return True

    def _leave(self, transport: paramiko.Transport | None, account: str | None) -> None:
        with self._lock:
            self._connections.discard(transport)
            self._threads.discard(threading.current_thread())
            if account is not None:
                self._by_account[account] -= 1
                self._lock.notify_all()
