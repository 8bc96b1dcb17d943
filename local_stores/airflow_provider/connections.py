"""Which pools and connections a site's Airflow needs; `infra/airflow` writes them, an administrator may by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_stores.airflow_provider.factory import group_pool, owner_pool

if TYPE_CHECKING:
    from local_stores.config import Site

__all__ = ["OperatorConnection", "connections", "pools"]


@dataclass(frozen=True, slots=True)
class OperatorConnection:
    """One row of Airflow's connections: where an operator's drop-box is and which host key it has."""

    conn_id: str
    host: str
    port: int
    login: str
    key_file: str
    host_key: str


def pools(site: Site) -> list[str]:
    """Return the names of the site's pools: one for each owner, one for group reporting."""
    return [*map(owner_pool, site.owners), *([group_pool()] if site.is_recipient else [])]


def connections(site: Site) -> list[OperatorConnection]:
    """Return the connection of every owner to each of its three operators."""
    return []
