"""Writing new `owner.toml` and `site.toml` files: never over an existing one, and read back before they count."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from local_stores.config.files import toml_text
from local_stores.config.site import OwnerHome, Site, load_site, site_for_owner
from local_stores.errors import ConfigError
from mpc_ops.ids import check_name

__all__ = ["create_owner_home", "create_site"]

StoreValues = Mapping[str, str | Mapping[str, str]]


def create_owner_home(
    folder: Path,
    owner: str,
    *,
    stores: Sequence[StoreValues] = (),
    control_totals: str | None = None,
    expectations: str | None = None,
    site: str | None = None,
    federation: str | None = None,
    releases: str = "releases",
) -> OwnerHome | None:
    """Write `owner.toml`, and for an owner that is a site of its own also `site.toml`.

    Args:
        folder: the owner's home; keys are made by `mpc_ops.federation.cards.create_party`.
        owner: the owner's id in the federation.
        stores: members of each `[[stores]]` entry (`dataset`, `kind`, `location`, ... as `StoreConfig` has them).
        control_totals: path of the ledger figures, relative to the home.
        expectations: path of the owner's own expectations, relative to the home.
        site: path of an existing site.toml that names this home, relative to it.
        federation: federation folder, relative to the home; given, a `site.toml` is written beside `owner.toml`.
        releases: folder of imported releases, relative to the home.

    Returns:
        The home as read back, or None if no site names it yet.

    Raises:
        ConfigError: FILE_EXISTS, NAME_INVALID, SCHEMA_INVALID.
    """
    check_name(owner, "owner id")
    lines = ["[owner]", f"id = {toml_text(owner)}"]
    if site is not None:
        lines.append(f"site = {toml_text(site)}")
    if expectations is not None:
        lines.append(f"expectations = {toml_text(expectations)}")
    for store in stores:
        lines += ["", "[[stores]]", *(_pair(name, value) for name, value in store.items())]
    if control_totals is not None:
        lines += ["", "[control_totals]", f"file = {toml_text(control_totals)}"]
    _write_new(folder / "owner.toml", lines)
    if federation is not None:
        (folder / releases).mkdir(parents=True, exist_ok=True)
        create_site(folder, owner, federation=federation, releases=releases, owners=["."])
    return site_for_owner(folder).owner(owner) if federation is not None else None


def create_site(
    folder: Path,
    site: str,
    *,
    federation: str = "federation",
    releases: str = "releases",
    state: str = "state",
    owners: Sequence[str] = (),
    group: str | None = None,
) -> Site:
    """Write `site.toml` and return the site as read back.

    Args:
        folder: the site's folder.
        site: the site's id.
        federation: folder of the federation's files; like all paths here relative to `folder`, or absolute.
        releases: folder of imported releases.
        state: folder, or an fsspec URL.
        owners: folders of owner homes, which must exist.
        group: folder of the recipient's home, for group reporting.

    Raises:
        ConfigError: FILE_EXISTS, NAME_INVALID, SITE_INVALID.
    """
    check_name(site, "site id")
    lines = [
        "[site]",
        *(
            f"{name} = {toml_text(value)}"
            for name, value in (("id", site), ("state", state), ("federation", federation), ("releases", releases))
        ),
        f"owners = [{', '.join(toml_text(owner) for owner in owners)}]",
    ]
    if group is not None:
        lines.append(f"group = {toml_text(group)}")
    _write_new(folder / "site.toml", lines)
    return load_site(folder / "site.toml")


def _pair(name: str, value: str | Mapping[str, str]) -> str:
    if isinstance(value, str):
        return f"{name} = {toml_text(value)}"
    inner = ", ".join(f"{toml_text(key)} = {toml_text(text)}" for key, text in value.items())
    return f"{name} = {{ {inner} }}"


def _write_new(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError("FILE_EXISTS", "a configuration file is already there", ids={"file": str(path)}) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
