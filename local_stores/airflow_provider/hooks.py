"""SFTP to an owner's operators: one connection each, with a pinned host key.

The connection `comity_<owner>_<operator>` (type `comity_sftp`) has host, port and login, and in its extra `key_file`
and `host_key` (`ssh-ed25519 AAAA...`). A connection without a pinned key, or one that switches checking off, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paramiko
from airflow.providers.sftp.hooks.sftp import SFTPHook

from mpc_ops.errors import ConfigError, PeerProtocolError, PeerUnavailable

__all__ = ["InboxHook", "connection_id", "open_inbox"]


def connection_id(owner: str, operator: str) -> str:
    """Return the id of the connection from an owner to one of its operators."""
    return f"comity_{owner}_{operator}"


class InboxHook(SFTPHook):
    """`SFTPHook` that only talks to the host whose key the connection pins.

    Args:
        conn_id: an Airflow connection of type `comity_sftp`.
    """

    conn_name_attr = "ssh_conn_id"
    default_conn_name = "comity_default"
    conn_type = "comity_sftp"
    hook_name = "Comity operator (SFTP)"

    def __init__(self, conn_id: str) -> None:
        # One attempt: Airflow's retries and the trigger's pauses do the waiting, and free the worker meanwhile.
        super().__init__(ssh_conn_id=conn_id, conn_timeout=20, conn_retry_attempts=1)
        if self.host_key is None or self.no_host_key_check or self.allow_host_key_change:
            raise ConfigError(
                "HOST_KEY_NOT_PINNED",
                "the connection does not pin the operator's host key",
                ids={"connection": conn_id},
                hint="Put the `host_key` from the operator's directory entry into the connection's extra",
            )

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the connection form: nothing but host, port, login and extra is used."""
        return {"hidden_fields": ["schema", "password"], "relabeling": {"login": "User name"}, "placeholders": {}}


@contextmanager
def open_inbox(owner: str, operator: str) -> Iterator[paramiko.SFTPClient]:
    """Open the owner's drop-box at one operator and close it afterwards.

    Raises:
        ConfigError: HOST_KEY_NOT_PINNED, SFTP_REFUSED (the operator does not accept the owner's key).
        PeerProtocolError: HOST_KEY_MISMATCH: another host answers.
        PeerUnavailable: SFTP_UNAVAILABLE (transient).
    """
    ids = {"owner": owner, "operator": operator}
    hook = InboxHook(connection_id(owner, operator))
    try:
        connection = hook.get_conn()
    except paramiko.BadHostKeyException as error:
        raise PeerProtocolError("HOST_KEY_MISMATCH", "another host key than the pinned one", ids=ids) from error
    except paramiko.AuthenticationException as error:
        raise ConfigError("SFTP_REFUSED", "the operator does not accept the owner's key", ids=ids) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        if "not found in known_hosts" in str(error):
            raise PeerProtocolError("HOST_KEY_MISMATCH", "a host key of another kind", ids=ids) from error
        raise PeerUnavailable("SFTP_UNAVAILABLE", "the operator's drop-box cannot be reached", ids=ids) from error
    try:
        yield connection
    finally:
        hook.close_conn()
        if hook.client is not None:
            hook.client.close()
