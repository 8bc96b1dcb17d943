"""A site's configuration: `site.toml`, the owner homes and recipient home that it names, and where state lies."""

from __future__ import annotations

from local_stores.config.create import create_owner_home, create_site
from local_stores.config.site import OwnerHome, Site, StoreConfig, load_site, site_for_owner
from local_stores.config.state import State

__all__ = [
    "OwnerHome",
    "Site",
    "State",
    "StoreConfig",
    "create_owner_home",
    "create_site",
    "load_site",
    "site_for_owner",
]
