"""Which pools and connections a site's Airflow needs; `infra/airflow` writes them, an administrator may by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_stores.airflow_provider.factory import group_pool, owner_pool
from mpc_ops.errors import ConfigError

if TYPE_CHECKING:
    from local_stores.config import Site

__all__ = ["CONNECTION_TYPE", "OperatorConnection", "connection_id", "connections", "pools"]

CONNECTION_TYPE = "comity_sftp"


def connection_id(owner: str, operator: str) -> str:
    """Return the id of the connection from an owner to one of its operators."""
    return f"comity_{owner}_{operator}"


@dataclass(frozen=True, slots=True)
class OperatorConnection:
    """One row of Airflow's connections: where an operator's drop-box is and which host keys it may show.

    It names the file of the owner's key and holds no secret.
    """

    conn_id: str
    host: str
    port: int
    login: str
    key_file: str
    host_keys: tuple[str, ...]

    def extra(self) -> str:
        """Return the connection's extra as JSON."""
        extra = {"key_file": self.key_file, "host_key": self.host_keys[0]}
        if len(self.host_keys) > 1:
            extra["other_host_key"] = self.host_keys[1]
        return json.dumps(extra)


def pools(site: Site) -> list[str]:
    """Return the names of the site's pools: one for each owner, one for group reporting."""
    return [*map(owner_pool, site.owners), *([group_pool()] if site.is_recipient else [])]


def connections(site: Site) -> list[OperatorConnection]:
    """Return the connection of every owner to each of its three operators, from the signed directory.

    Raises:
        ConfigError: SFTP_NOT_LISTED where an operator's directory entry has no drop-box or no host key.
    """
    if not site.owners:
        return []
    federation = site.federation()
    found = []
    for owner, home in site.owners.items():
        for operator in federation.operators_of(owner):
            entry = federation.entry(operator)
            if not entry.sftp or not entry.ssh_host_keys:
                raise ConfigError(
                    "SFTP_NOT_LISTED",
                    "the directory lists no drop-box or no host key of the operator",
                    ids={"owner": owner, "operator": operator},
                )
            host, _, port = entry.sftp.rpartition(":")
            found.append(
                OperatorConnection(
                    conn_id=connection_id(owner, operator),
                    host=host.strip("[]"),
                    port=int(port),
                    login=owner,
                    key_file=str(home.ssh_key_path),
                    host_keys=tuple(entry.ssh_host_keys),
                )
            )
    return found
