"""The recipient's home: `recipient.toml` and the keys beside it.

```toml
[recipient]
id = "group-reporting"
published = "../published"      # folders, relative to this file
evidence = "../evidence"
third_part_wait_s = 20          # how long to wait for the third result part; two and three commitments suffice
timeout_s = 30                  # of one request
```
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from local_stores.config.files import read_toml, toml_text
from local_stores.config.site import Site
from local_stores.errors import ConfigError
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.schema import Model
from mpc_ops.envelope.sealing import SealingKey
from mpc_ops.ids import check_name

__all__ = ["RecipientHome", "create_recipient_home", "load_recipient"]

Text = Annotated[str, Meta(min_length=1, max_length=2000)]


class _Section(Model, frozen=True, kw_only=True):
    id: Annotated[str, Meta(min_length=1, max_length=63)]
    published: Text = "published"
    evidence: Text = "evidence"
    third_part_wait_s: Annotated[int, Meta(ge=0, le=7 * 24 * 3600)] = 20
    timeout_s: Annotated[int, Meta(ge=1, le=3600)] = 30


class _File(Model, frozen=True, kw_only=True):
    recipient: _Section


@dataclass(frozen=True)
class RecipientHome:
    """What `recipient.toml` says, with absolute paths.

    Attributes:
        published, evidence: folders of the published files and of the evidence packs.
        third_part_wait_s: seconds to wait for the third result part.
        timeout_s: seconds that one request may take.
    """

    id: str
    folder: Path
    published: Path
    evidence: Path
    third_part_wait_s: int
    timeout_s: int

    def identity(self) -> IdentityKey:
        """Load the identity key; raises ConfigError SECRET_MISSING, SECRET_PERMISSIONS, KEY_INVALID."""
        return IdentityKey.load(self.folder / "keys" / "identity.pem")

    def sealing(self) -> SealingKey:
        """Load the sealing key, to which result parts are sealed; same errors."""
        return SealingKey.load(self.folder / "keys" / "sealing.key")

    @property
    def certificate(self) -> tuple[Path, Path]:
        """TLS leaf and its private key."""
        tls = self.folder / "keys" / "tls"
        return tls / "leaf.pem", tls / "leaf.key"


def load_recipient(site: Site) -> RecipientHome:
    """Read the recipient's home of a site.

    Raises:
        ConfigError: NOT_RECIPIENT if the site has none; FILE_MISSING, TOML_INVALID, SCHEMA_INVALID.
    """
    if site.group_home is None:
        raise ConfigError(
            "NOT_RECIPIENT",
            "this site receives no results",
            ids={"site": site.id},
            hint='A recipient\'s site.toml names its home: group = "..."',
        )
    return _home(site.group_home)


def _home(folder: Path) -> RecipientHome:
    section = read_toml(folder / "recipient.toml", _File).recipient
    return RecipientHome(
        id=check_name(section.id, "recipient id"),
        folder=folder,
        published=(folder / section.published).resolve(),
        evidence=(folder / section.evidence).resolve(),
        third_part_wait_s=section.third_part_wait_s,
        timeout_s=section.timeout_s,
    )


def create_recipient_home(
    folder: Path,
    recipient: str,
    *,
    published: str = "published",
    evidence: str = "evidence",
    third_part_wait_s: int = 20,
) -> RecipientHome:
    """Write `recipient.toml`; the keys are made by `mpc_ops.federation.cards.create_party`.

    Args:
        folder: the recipient's home.
        recipient: its id in the federation.
        published: folder of published files, relative to the home or absolute.
        evidence: folder of evidence packs, the same way.
        third_part_wait_s: seconds to wait for the third result part.

    Raises:
        ConfigError: FILE_EXISTS, NAME_INVALID.
    """
    check_name(recipient, "recipient id")
    lines = [
        "[recipient]",
        f"id = {toml_text(recipient)}",
        f"published = {toml_text(published)}",
        f"evidence = {toml_text(evidence)}",
        f"third_part_wait_s = {third_part_wait_s}",
    ]
    path = folder / "recipient.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError("FILE_EXISTS", "a configuration file is already there", ids={"file": str(path)}) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return _home(folder.resolve())
