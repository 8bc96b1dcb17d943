"""Helpers for SFTP tests: the embedded server as a real process, with accounts and keys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from local_stores.delivery.sftp import SftpEndpoint, connect
from mpc_ops.federation import pki


@dataclass
class SftpSite:
    """A spool, a host key, and accounts with their private keys on disk."""

    home: Path
    host_key: pki.SshKey
    keys: dict[str, Path] = field(default_factory=dict)
    port: int = 0

    @classmethod
    def make(cls, home: Path, accounts: tuple[str, ...] = ("de-a", "de-b")) -> SftpSite:
        host_key = pki.create_ssh_key()
        host_key.save(home / "ssh_host")
        site = cls(home, host_key)
        for account in accounts:
            key = pki.create_ssh_key()
            key.save(home / "owners" / account)
            site.keys[account] = home / "owners" / account
        return site

    @property
    def spool(self) -> Path:
        return self.home / "spool"

    def inbox(self, account: str) -> Path:
        return self.spool / "inbox" / account

    def outbox(self, account: str) -> Path:
        return self.spool / "outbox" / account

    def config(self, **limits: float) -> Path:
        lines = ['host_key = "ssh_host"', 'spool = "spool"', "listen_port = 0"]
        if limits:
            lines += ["[limits]", *(f"{name} = {value}" for name, value in limits.items())]
        for account, path in self.keys.items():
            public = path.with_name(path.name + ".pub").read_text().strip()
            lines += ["[[accounts]]", f'name = "{account}"', f'keys = ["{public}"]']
        file = self.home / "sftp.toml"
        file.write_text("\n".join(lines) + "\n")
        return file

    @contextmanager
    def running(self, **limits: float) -> Iterator[subprocess.Popen[str]]:
        """Run the embedded server in its own process."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen(
            [sys.executable, "-m", "mpc_ops.server.sftp", "--config", str(self.config(**limits))],
            stdout=subprocess.PIPE,
            stderr=(self.home / "sftp.log").open("ab"),
            text=True,
            env=environment,
        )
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready["host_key"] == self.host_key.public
            self.port = ready["port"]
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            finally:
                process.kill()
                process.stdout.close()

    @property
    def log(self) -> str:
        return (self.home / "sftp.log").read_text()

    def endpoint(self) -> SftpEndpoint:
        return SftpEndpoint("de-1", "127.0.0.1", self.port)

    def connect(self, account: str = "de-a", **changes: object) -> AbstractContextManager[paramiko.SFTPClient]:
        arguments = {"key_file": self.keys.get(account), "host_key": self.host_key.public} | changes
        return connect(self.endpoint(), account, **arguments)
