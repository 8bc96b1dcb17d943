"""SFTP to an owner's operators: one Airflow connection each, with a pinned host key.

The connection `comity_<owner>_<operator>` (type `comity_sftp`) has host, port and login, and in its extra `key_file`,
`host_key` (`ssh-ed25519 AAAA...`) and, while the operator changes its key, `other_host_key`. A connection that pins no
key, or switches checking off, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
from airflow.providers.sftp.hooks.sftp import SFTPHook

from local_stores.airflow_provider.connections import connection_id
from local_stores.delivery.sftp import SftpEndpoint, connect
from mpc_ops.errors import ConfigError

__all__ = ["InboxHook", "open_inbox"]

SSH_PORT = 22


class InboxHook(SFTPHook):
    """`SFTPHook` that talks to no host but the one whose key the connection pins.

    Airflow's own hook lets an entry of the worker's `~/.ssh/known_hosts` stand in for the pinned key, and logs in
    before a caller can look. This one connects as `comity file` does: the key is compared before anything is sent.

    Args:
        conn_id: an Airflow connection of type `comity_sftp`.
        operator: the operator's party id, for messages.
    """

    conn_name_attr = "ssh_conn_id"
    default_conn_name = "comity_default"
    conn_type = "comity_sftp"
    hook_name = "Comity operator (SFTP)"

    def __init__(self, conn_id: str, operator: str = "operator") -> None:
        super().__init__(ssh_conn_id=conn_id)
        self.operator = operator
        self.pinned = self._pinned_keys(conn_id)

    def _pinned_keys(self, conn_id: str) -> list[str]:
        if self.host_key is None or self.no_host_key_check or self.allow_host_key_change or not self.key_file:
            raise ConfigError(
                "HOST_KEY_NOT_PINNED",
                "the connection does not pin the operator's host key, or names no key file",
                ids={"connection": conn_id},
                hint="Put `host_key` from the operator's directory entry and `key_file` into the connection's extra",
            )
        extra = self.get_connection(conn_id).extra_dejson
        return [key for key in (extra["host_key"], extra.get("other_host_key")) if key]

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the connection form: nothing but host, port, login and extra is used."""
        return {"hidden_fields": ["schema", "password"], "relabeling": {"login": "User name"}, "placeholders": {}}

    @contextmanager
    def get_managed_conn(self) -> Iterator[paramiko.SFTPClient]:
        """Open the drop-box, and close it afterwards.

        Raises:
            ConfigError: HOST_KEY_MISMATCH, AUTH_REFUSED, SECRET_MISSING, SECRET_PERMISSIONS, KEY_INVALID.
            TransportError: the operator can't be reached now.
        """
        endpoint = SftpEndpoint(self.operator, self.remote_host, self.port or SSH_PORT)
        with connect(endpoint, self.username or "", Path(self.key_file or ""), self.pinned) as session:
            yield session


@contextmanager
def open_inbox(owner: str, operator: str) -> Iterator[paramiko.SFTPClient]:
    """Open the owner's drop-box at one operator through its Airflow connection."""
    with InboxHook(connection_id(owner, operator), operator).get_managed_conn() as session:
        yield session
