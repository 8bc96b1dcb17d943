"""Make every party of the demo: keys, cards, the federation, operator homes and site homes, each in its own folder.

```
var/demo/parties/<name>/      authority, author, people (approvers, signers)
var/demo/operators/<name>/    fifteen operators: keys, operator.toml, sftp.toml, spool, own copy of the federation folder
var/demo/sites/<site>/        five sites: site.toml, owners/<owner>/ or group/, releases/, own copy of the federation folder
var/demo/books/<owner>/       the owners' stores
var/demo/federation/          the author's federation folder
```
In production every party makes its own keys at home and sends only its card; `docs/own-federation.md` shows that.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from infra.demo import data
from infra.demo.reference import PERIODS, month_bounds
from local_stores.config import create_owner_home, create_site
from local_stores.receive.home import create_recipient_home
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.federation.assemble import add_directory, assemble_federation
from mpc_ops.federation.cards import create_party, directory_entry
from mpc_ops.federation.loaded import Federation
from mpc_ops.server.config import create_operator_home
from mpc_ops.server.sftp.accounts import write_sftp_config

__all__ = ["AUTHOR", "GROUP_SITE", "RECIPIENT", "TERMS", "DemoHomes", "approvers_of", "make_homes", "signers_of"]

TERMS = Path(__file__).resolve().parents[1] / "federations" / "demo"
AUTHOR = "group-controlling"
RECIPIENT = "group-reporting"
GROUP_SITE = "group"
_GROUP_SEATS = {"nl-1": "NL", "ch-1": "CH", "sg-1": "SG"}
_ORGANISATIONS = ("Rechenzentrum", "Notary Computing", "University Computing")
# The demo should answer within a breath; production keeps the defaults.
_LIMITS = {"scan_s": 0.1, "tick_s": 0.25, "ask_s": 1.0}


@dataclass(frozen=True)
class DemoHomes:
    """Where everything of one demo is.

    Attributes:
        operators: home of each operator; those of `region_operators` also run an SFTP server.
        sites: folder of each site (`de`, `cn`, `in`, `sa`, `group`).
        site_owners: owners by site.
        stores: the owners' books.
    """

    root: Path
    federation: Path
    operators: dict[str, Path]
    region_operators: tuple[str, ...]
    sites: dict[str, Path]
    site_owners: dict[str, tuple[str, ...]]
    stores: tuple[data.Store, ...]

    def party(self, name: str) -> Path:
        """Return the folder of the authority, the author or a person."""
        return self.root / "parties" / name

    def key(self, name: str) -> IdentityKey:
        """Return the identity key of the authority, the author or a person."""
        return IdentityKey.load(self.party(name) / "keys" / "identity.pem")


def approvers_of(owner: str) -> list[str]:
    """Return the people who approve for an owner in the demo."""
    return [f"{owner}-privacy-officer"]


def signers_of(owner: str) -> list[str]:
    """Return the two people who sign an owner's figures: preparer and reviewer."""
    return [f"{owner}-accountant", f"{owner}-controller"]


def make_homes(root: Path, cache: Path, *, canaries: Sequence[str] = ()) -> DemoHomes:
    """Make the demo anew below `root` (whatever was there is removed); generated books are kept in `cache`.

    Args:
        root: the demo's folder.
        cache: folder of generated books.
        canaries: months in which every owner's books get a line that must never be seen elsewhere; for tests.
    """
    for name in ("parties", "operators", "sites", "books", "federation", "published", "evidence", "logs", "airflow"):
        shutil.rmtree(root / name, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    stores = tuple(data.prepare(root / "books", cache))
    if canaries:
        data.plant_canaries(stores, canaries)
    sites = {GROUP_SITE: root / "sites" / GROUP_SITE}
    owners_of: dict[str, list[str]] = {}
    for entity in data.ENTITIES:
        site = entity.jurisdiction.lower()
        sites[site] = root / "sites" / site
        owners_of.setdefault(site, []).append(entity.name)
    seats = {f"{site}-{n}": site.upper() for site in owners_of for n in (1, 2, 3)} | _GROUP_SEATS
    homes = DemoHomes(
        root=root,
        federation=root / "federation",
        operators={name: root / "operators" / name for name in seats},
        region_operators=tuple(name for name in seats if name not in _GROUP_SEATS),
        sites=sites,
        site_owners={site: tuple(owners) for site, owners in owners_of.items()},
        stores=stores,
    )
    cards = _make_keys(homes, seats)
    federation = assemble_federation(TERMS / "federation.toml", cards, homes.federation, homes.key("authority"))
    federation = _publish_directory(homes, federation)
    _make_operator_homes(homes, federation)
    _make_site_homes(homes)
    return homes


def _make_keys(homes: DemoHomes, seats: dict[str, str]) -> list[Path]:
    """Make every party's keys and return the card files."""
    create_party("authority", "authority", homes.party("authority"))
    create_party("author", AUTHOR, homes.party(AUTHOR), organisation="Group Controlling")
    folders = [homes.party(AUTHOR)]
    for name, code in seats.items():
        number = int(name.rsplit("-", 1)[1]) if name in homes.region_operators else list(_GROUP_SEATS).index(name) + 1
        organisation = f"{_ORGANISATIONS[number - 1]} {code}"
        create_party("operator", name, homes.operators[name], organisation=organisation, jurisdiction=code)
        folders.append(homes.operators[name])
    recipient = homes.sites[GROUP_SITE] / "group"
    create_party("recipient", RECIPIENT, recipient, organisation="Group Reporting", jurisdiction="NL")
    folders.append(recipient)
    for entity in data.ENTITIES:
        people = {
            role: {person: _person(homes, person, kind) for person in names}
            for role, kind, names in (
                ("approvers", "approver", approvers_of(entity.name)),
                ("signers", "signer", signers_of(entity.name)),
            )
        }
        folder = homes.sites[entity.jurisdiction.lower()] / "owners" / entity.name
        create_party(
            "owner",
            entity.name,
            folder,
            organisation=entity.label,
            jurisdiction=entity.jurisdiction,
            region=entity.jurisdiction.lower(),
            currency=entity.currency,
            approvers=people["approvers"],
            signers=people["signers"],
        )
        folders.append(folder)
    return [folder / "public.json" for folder in folders]


def _person(homes: DemoHomes, name: str, kind: str) -> str:
    if kind == "approver":
        return create_party("approver", name, homes.party(name)).identity
    return create_party("signer", name, homes.party(name)).identity


def _free_ports(count: int) -> list[int]:
    # All are bound at once, so that the system gives different ones.
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def _publish_directory(homes: DemoHomes, federation: Federation) -> Federation:
    ports = iter(_free_ports(2 * len(homes.operators)))
    envelopes = []
    for name, home in homes.operators.items():
        link, second = (f"127.0.0.1:{next(ports)}" for _ in range(2))
        region = name in homes.region_operators
        envelopes.append(
            directory_entry(
                federation,
                home,
                name,
                1,
                link=link,
                sftp=second if region else None,
                api=None if region else f"https://{second}",
            )
        )
    envelopes.append(directory_entry(federation, homes.sites[GROUP_SITE] / "group", RECIPIENT, 1))
    for site, owners in homes.site_owners.items():
        envelopes += [directory_entry(federation, homes.sites[site] / "owners" / owner, owner, 1) for owner in owners]
    return add_directory(homes.federation, envelopes)


def _make_operator_homes(homes: DemoHomes, federation: Federation) -> None:
    for name, home in homes.operators.items():
        shutil.copytree(homes.federation, home / "federation")
        entry = federation.entry(name)
        api = entry.api.removeprefix("https://") if entry.api else "127.0.0.1:0"
        create_operator_home(home, name, home / "federation", link=str(entry.link), api=api, limits=_LIMITS)
        if entry.sftp:
            write_sftp_config(home, name, federation)


def _make_site_homes(homes: DemoHomes) -> None:
    books = {store.entity: store for store in homes.stores}
    for site, owners in homes.site_owners.items():
        folder = homes.sites[site]
        shutil.copytree(homes.federation, folder / "federation")
        (folder / "releases").mkdir()
        for owner in owners:
            store = books[owner]
            entry = {"dataset": "sales_line", "kind": store.kind, "location": str(store.path.resolve())}
            home = folder / "owners" / owner
            create_owner_home(home, owner, stores=[entry], control_totals="ledger.csv", site="../../site.toml")
            (home / "ledger.csv").write_text(_ledger(store), encoding="utf-8")
        create_site(folder, site, owners=[f"owners/{owner}" for owner in owners])
    group = homes.sites[GROUP_SITE]
    shutil.copytree(homes.federation, group / "federation")
    (group / "releases").mkdir()
    published, evidence = (str((homes.root / name).resolve()) for name in ("published", "evidence"))
    create_recipient_home(group / "group", RECIPIENT, published=published, evidence=evidence)
    create_site(group, GROUP_SITE, group="group")


def _ledger(store: data.Store) -> str:
    """Return the entity's general ledger figures, which a customer exports from the ledger; here they are the books' sums."""
    lines = ["period,source,amount"]
    for period in PERIODS:
        revenue = data.read_store(store, *month_bounds(period))["revenue_lc"].to_pylist()
        lines.append(f"{period},accounts 4000-4999 net revenue,{sum(revenue, Decimal())}")
    return "\n".join(lines) + "\n"
