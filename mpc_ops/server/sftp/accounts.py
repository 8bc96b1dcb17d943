"""`sftp.toml` of a region operator, written from the federation: who may deliver, and with which pinned keys."""

from __future__ import annotations

import json
from pathlib import Path

from mpc_ops.errors import ConfigError
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.pki import write_public
from mpc_ops.server.config import parse_address

__all__ = ["accounts_of", "write_sftp_config"]


def accounts_of(federation: Federation, operator: str) -> dict[str, list[str]]:
    """Return the SSH keys of every owner that delivers to an operator, by owner.

    Raises:
        ConfigError: PARTY_FOREIGN if it serves no region; DIRECTORY_MISSING, DIRECTORY_EXPIRED, DIRECTORY_INCOMPLETE for an
            owner without a valid entry and key.
    """
    owners = [name for name in federation.owners if operator in federation.operators_of(name)]
    if not owners:
        raise ConfigError(
            "PARTY_FOREIGN", "no owner delivers to this operator", ids={"operator": operator},
            hint="Only operators of a region cluster have a drop box",
        )  # fmt: skip
    found = {name: list(federation.entry(name).ssh_keys) for name in owners}
    for name, keys in found.items():
        if not keys:
            raise ConfigError("DIRECTORY_INCOMPLETE", "the directory entry has no SSH key", ids={"owner": name})
    return found


def write_sftp_config(home: Path, operator: str, federation: Federation, listen: str | None = None) -> Path:
    """Write `sftp.toml` into an operator's home and return its path; an older one is replaced.

    Args:
        home: the operator's home.
        operator: its id.
        federation: membership and directory with the owners' keys.
        listen: `host:port`; by default the address in the operator's own directory entry.

    Raises:
        ConfigError: see `accounts_of`; CONFIG_INVALID for what is no address.
    """
    address = listen or federation.entry(operator).sftp
    if address is None:
        raise ConfigError(
            "DIRECTORY_INCOMPLETE", "the own directory entry names no SFTP address", ids={"operator": operator}
        )
    host, port = parse_address(address, "listen")
    lines = [
        f"listen_host = {json.dumps(host)}",
        f"listen_port = {port}",
        'host_key = "keys/ssh_host_ed25519"',
        'spool = "spool"',
    ]
    for owner, keys in accounts_of(federation, operator).items():
        lines += ["", "[[accounts]]", f"name = {json.dumps(owner)}", f"keys = {json.dumps(keys)}"]
    path = home / "sftp.toml"
    write_public(path, ("\n".join(lines) + "\n").encode("utf-8"))
    return path
