"""`site.toml` and `owner.toml`.

```toml
# site.toml                                    # owner.toml
[site]                                         [owner]
id = "de"                                      id = "de-nord"
state = "state"            # folder or URL     site = "../../site.toml"   # where it is not beside this file
federation = "federation"                      expectations = "expectations.json"
releases = "releases"                          [[stores]]
owners = ["owners/de-nord"]                    dataset = "sales_line"
group = "group"            # recipients only   kind = "parquet"
                                               location = "books/sales_line"
                                               [control_totals]
                                               file = "ledger.csv"
```
Relative paths start at the file's own folder. Passwords never stand in a file that others read: `password_file` names
a 0600 file, `password_env` an environment variable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from local_stores.config.files import read_toml
from local_stores.config.state import State
from local_stores.errors import ConfigError
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.schema import Model
from mpc_ops.envelope.secrets import read_secret
from mpc_ops.federation.loaded import Federation
from mpc_ops.ids import check_name

__all__ = ["OwnerHome", "Site", "StoreConfig", "load_site", "site_for_owner"]

Text = Annotated[str, Meta(min_length=1, max_length=2000)]
Word = Annotated[str, Meta(min_length=1, max_length=200)]


class StoreConfig(Model, frozen=True, kw_only=True):
    """One `[[stores]]` entry: where an owner keeps one dataset.

    Attributes:
        kind: which store class reads it.
        location: folder or file; for PostgreSQL a connection string without password.
        table: table of a database (`schema.table`), or sheet of an Excel file; the dataset's name by default.
        query: a SELECT instead of `table`; it must give the columns under the contract's names (or `columns`').
        columns: source name by contract column, where they differ.
        delimiter, encoding, decimal_mark, date_format: how a CSV file is written; nothing is guessed.
        password_file, password_env: where PostgreSQL's password is.
    """

    dataset: Word
    kind: Literal["parquet", "sqlite", "postgres", "csv", "excel"]
    location: Text
    table: Word | None = None
    query: Annotated[str, Meta(min_length=1, max_length=20_000)] | None = None
    columns: dict[Word, Word] = msgspec.field(default_factory=dict)
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "latin-1", "cp1252"] = "utf-8"
    decimal_mark: Literal[".", ","] = "."
    date_format: Word | None = None
    password_file: Text | None = None
    password_env: Word | None = None

    def source_name(self, column: str) -> str:
        """Return the source's name of a contract column."""
        return self.columns.get(column, column)

    def password(self) -> str | None:
        """Return the password from its 0600 file or the environment; None if there is none.

        Raises:
            ConfigError: SECRET_MISSING, SECRET_PERMISSIONS.
        """
        if self.password_file is not None:
            return read_secret(Path(self.password_file)).decode("utf-8").strip()
        if self.password_env is None:
            return None
        value = os.environ.get(self.password_env)
        if value is None:
            raise ConfigError("SECRET_MISSING", "an environment variable is not set", ids={"name": self.password_env})
        return value

    def __repr__(self) -> str:
        return f"StoreConfig({self.dataset}, {self.kind})"


class _ControlTotals(Model, frozen=True, kw_only=True):
    file: Text


class _Owner(Model, frozen=True, kw_only=True):
    id: Word
    site: Text | None = None
    expectations: Text | None = None
    memory_mb: Annotated[int, Meta(ge=64, le=1 << 20)] = 1024
    threads: Annotated[int, Meta(ge=1, le=256)] = 2
    timeout_s: Annotated[int, Meta(ge=1, le=7 * 24 * 3600)] = 3600
    accepts_difference: bool = False


class _OwnerFile(Model, frozen=True, kw_only=True):
    owner: _Owner
    stores: Annotated[list[StoreConfig], Meta(max_length=100)] = msgspec.field(default_factory=list)
    control_totals: _ControlTotals | None = None


class _SiteSection(Model, frozen=True, kw_only=True):
    id: Word
    state: Text = "state"
    federation: Text = "federation"
    releases: Text = "releases"
    owners: Annotated[list[Text], Meta(max_length=1000)] = msgspec.field(default_factory=list)
    group: Text | None = None


class _SiteFile(Model, frozen=True, kw_only=True):
    site: _SiteSection


@dataclass(frozen=True)
class OwnerHome:
    """An owner's folder: keys, `owner.toml`, ledger figures, own expectations.

    Attributes:
        stores: where each dataset is, by dataset; locations are absolute.
        control_totals, expectations: files, or None.
        memory_mb, threads, timeout_s: limits of the process that runs the local plan.
        accepts_difference: the owner accepts that an edition may differ from the last by fewer owners than
            `min_owners` (difference rule); it stands in every filing.
    """

    id: str
    folder: Path
    stores: Mapping[str, StoreConfig]
    control_totals: Path | None
    expectations: Path | None
    memory_mb: int
    threads: int
    timeout_s: int
    accepts_difference: bool

    def store(self, dataset: str) -> StoreConfig:
        """Return where a dataset is kept; raise ConfigError STORE_UNKNOWN."""
        if dataset not in self.stores:
            raise ConfigError(
                "STORE_UNKNOWN",
                f"owner.toml has no store for dataset {dataset[:80]}",
                expected=", ".join(sorted(self.stores)) or "a [[stores]] entry",
                ids={"owner": self.id},
            )
        return self.stores[dataset]

    @property
    def identity_path(self) -> Path:
        """Private identity key (ML-DSA-65, 0600)."""
        return self.folder / "keys" / "identity.pem"

    @property
    def ssh_key_path(self) -> Path:
        """Private SSH client key (0600) for the region operators' drop-boxes."""
        return self.folder / "keys" / "ssh_client_ed25519"

    def identity(self) -> IdentityKey:
        """Load the identity key; raises ConfigError SECRET_MISSING, SECRET_PERMISSIONS, KEY_INVALID."""
        return IdentityKey.load(self.identity_path)


@dataclass(frozen=True)
class Site:
    """One site as `site.toml` describes it.

    Attributes:
        owners: owner homes by id; iterating gives the ids.
        group_home: the recipient's home, where this site is a recipient's.
    """

    id: str
    folder: Path
    state_url: str
    federation_dir: Path
    releases_dir: Path
    owners: Mapping[str, OwnerHome] = field(default_factory=dict)
    group_home: Path | None = None

    @property
    def is_recipient(self) -> bool:
        """Whether this site closes periods and receives results."""
        return self.group_home is not None

    @cached_property
    def state(self) -> State:
        """The site's state."""
        return State(self.state_url)

    def owner(self, name: str) -> OwnerHome:
        """Return an owner's home; raise ConfigError OWNER_UNKNOWN."""
        if name not in self.owners:
            raise ConfigError(
                "OWNER_UNKNOWN",
                f"site.toml names no owner {name[:80]}",
                expected=", ".join(sorted(self.owners)) or "none",
                ids={"site": self.id},
            )
        return self.owners[name]

    def federation(self) -> Federation:
        """Return the verified federation; read once per process and again when a file changes."""
        return _federation(self.federation_dir, _fingerprint(self.federation_dir))


def load_site(path: Path) -> Site:
    """Read `site.toml` and the `owner.toml` of every owner that it names.

    Raises:
        ConfigError: FILE_MISSING, TOML_INVALID, SCHEMA_INVALID, NAME_INVALID, SITE_INVALID, each naming the file.
    """
    path = path.expanduser().resolve()
    section = read_toml(path, _SiteFile).site
    folder = path.parent
    check_name(section.id, "site id")
    owners: dict[str, OwnerHome] = {}
    for text in section.owners:
        home = _owner_home(folder / text)
        if home.id in owners:
            raise ConfigError("SITE_INVALID", f"two owner homes have the id {home.id}", ids={"file": str(path)})
        owners[home.id] = home
    group_home = None if section.group is None else (folder / section.group).resolve()
    if group_home is not None and not group_home.is_dir():
        raise ConfigError("SITE_INVALID", "the recipient's home is not a folder", ids={"file": str(path)})
    return Site(
        id=section.id,
        folder=folder,
        state_url=_resolved(folder, section.state),
        federation_dir=(folder / section.federation).resolve(),
        releases_dir=(folder / section.releases).resolve(),
        owners=owners,
        group_home=group_home,
    )


def site_for_owner(owner_home: Path) -> Site:
    """Return the site of an owner home: the file its `owner.toml` names, or `site.toml` beside it.

    Raises:
        ConfigError: as `load_site`; SITE_INVALID if the site does not name this home.
    """
    home = owner_home.expanduser().resolve()
    named = read_toml(home / "owner.toml", _OwnerFile).owner
    path = home / (named.site or "site.toml")
    site = load_site(path)
    if named.id not in site.owners or site.owners[named.id].folder != home:
        raise ConfigError(
            "SITE_INVALID", f"site.toml does not name the home of {named.id[:80]}", ids={"file": str(path)}
        )
    return site


def _owner_home(folder: Path) -> OwnerHome:
    folder = folder.resolve()
    path = folder / "owner.toml"
    file = read_toml(path, _OwnerFile)
    stores: dict[str, StoreConfig] = {}
    for store in file.stores:
        if store.dataset in stores:
            raise ConfigError("SITE_INVALID", f"two stores for dataset {store.dataset}", ids={"file": str(path)})
        stores[store.dataset] = _checked_store(store, folder, path)
    own = file.owner
    return OwnerHome(
        id=check_name(own.id, "owner id"),
        folder=folder,
        stores=stores,
        control_totals=None if file.control_totals is None else folder / file.control_totals.file,
        expectations=None if own.expectations is None else folder / own.expectations,
        memory_mb=own.memory_mb,
        threads=own.threads,
        timeout_s=own.timeout_s,
        accepts_difference=own.accepts_difference,
    )


def _checked_store(store: StoreConfig, folder: Path, path: Path) -> StoreConfig:
    check_name(store.dataset, "dataset")
    if store.kind == "postgres":
        if "password" in store.location.lower() or ("://" in store.location and "@" in store.location):
            raise ConfigError(
                "SECRET_IN_CONFIG",
                "a connection string may not hold a password or user part of a URL",
                ids={"file": str(path), "dataset": store.dataset},
                hint="Use key=value form with password_file or password_env",
            )
        location = store.location
    else:
        location = _resolved(folder, store.location)
    if store.query is not None and store.kind not in {"sqlite", "postgres"}:
        raise ConfigError("SITE_INVALID", f"a {store.kind} store has no query", ids={"file": str(path)})
    secret = None if store.password_file is None else str(folder / store.password_file)
    return msgspec.structs.replace(store, location=location, password_file=secret)


def _resolved(folder: Path, text: str) -> str:
    return text if "://" in text else str((folder / text).resolve())


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    paths = [folder / "federation.json", folder / "membership.dsse", *sorted((folder / "directory").glob("*.dsse"))]
    paths += sorted((folder / "rules").glob("*.json"))
    out = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        out.append((str(path), status.st_mtime_ns, status.st_size))
    return tuple(out)


@lru_cache(maxsize=8)
def _federation(folder: Path, fingerprint: tuple[tuple[str, int, int], ...]) -> Federation:  # noqa: ARG001 - cache key
    return Federation.load(folder)
