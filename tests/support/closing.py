"""A recipient's site for tests: site.toml, recipient.toml, releases folder, over a federation that `make_federation` made."""

from __future__ import annotations

import shutil
from pathlib import Path

from local_stores.config import Site, create_site
from local_stores.receive.home import create_recipient_home
from mpc_ops.notices.signed import SignedNotice
from tests.support.federation import RECIPIENT, MadeFederation


def make_recipient_site(made: MadeFederation, folder: Path, release: SignedNotice, *, wait_s: int = 5) -> Site:
    """Write the site of group reporting, with a copy of the recipient's keys, and import a release into it."""
    home = folder / "recipient"
    shutil.copytree(made.homes[RECIPIENT], home)
    create_recipient_home(
        home,
        RECIPIENT,
        published=str(folder / "published"),
        evidence=str(folder / "evidence"),
        third_part_wait_s=wait_s,
    )
    site = create_site(folder, "group", federation=str(made.folder), group=str(home))
    save_notice(site.releases_dir, release)
    return site


def save_notice(folder: Path, signed: SignedNotice) -> Path:
    """Write a notice as a file named by its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{signed.digest}.dsse"
    path.write_bytes(signed.envelope.to_bytes())
    return path
