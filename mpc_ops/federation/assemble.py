"""From an author's `federation.toml` and the parties' cards to a federation folder.

```toml
name = "demo"
version = 1
one_parent = true
authors = ["group-controlling"]
recipients = ["group-reporting"]
owners = ["de-nord", "de-sued"]
datasets = ["datasets/sales_line.toml"]
rule_packs = ["rules/de-demo.toml"]

[jurisdictions.DE]
name = "Germany"
area = "EEA"
rule_packs = ["de-demo"]

[clusters.de]
kind = "region"
operators = ["de-1", "de-2", "de-3"]

[regions.de]
jurisdictions = ["DE"]
cluster = "de"
```
Keys, organisations and seats come from the cards, everything else from here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey, Purpose
from mpc_ops.envelope.schema import Model, built, encode, from_plain
from mpc_ops.errors import ConfigError
from mpc_ops.federation.cards import Kind, PublicCard, load_card
from mpc_ops.federation.contract import DatasetContract, Short
from mpc_ops.federation.loaded import DIRECTORY_TYPE, MEMBERSHIP_TYPE, Federation, check_terms, read_file
from mpc_ops.federation.model import (
    Cluster,
    CountryCode,
    DirectoryEntry,
    FederationTerms,
    Jurisdiction,
    Membership,
    Name,
    Operator,
    Owner,
    Recipient,
    Region,
)
from mpc_ops.federation.pki import write_public
from mpc_ops.federation.rulepack import RulePack, check_pack

__all__ = ["FederationSpec", "add_directory", "assemble", "assemble_federation", "membership", "read_toml"]

M = TypeVar("M")
_LIMIT_BYTES = 4 << 20


class FederationSpec(Model, frozen=True, kw_only=True):
    """Contents of `federation.toml`; see the module's text."""

    name: Short
    version: Annotated[int, Meta(ge=1)] = 1
    one_parent: bool
    authors: Annotated[list[Name], Meta(min_length=1, max_length=50)]
    recipients: Annotated[list[Name], Meta(min_length=1, max_length=50)]
    owners: Annotated[list[Name], Meta(max_length=20000)] = msgspec.field(default_factory=list)
    datasets: Annotated[list[Short], Meta(min_length=1, max_length=100)]
    rule_packs: Annotated[list[Short], Meta(min_length=1, max_length=200)]
    jurisdictions: Annotated[dict[CountryCode, Jurisdiction], Meta(min_length=1, max_length=100)]
    clusters: Annotated[dict[Name, Cluster], Meta(min_length=1, max_length=100)]
    regions: Annotated[dict[Name, Region], Meta(min_length=1, max_length=100)]


def read_toml(path: Path, kind: type[M]) -> M:
    """Read a TOML file into a strict model; raise ConfigError TOML_INVALID or SCHEMA_INVALID naming the file."""
    try:
        plain: dict[str, Any] = tomllib.loads(read_file(path, limit_bytes=_LIMIT_BYTES).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8"
        raise ConfigError("TOML_INVALID", "file is not TOML", got=reason[:200], ids={"file": str(path)}) from None
    return from_plain(plain, kind, what=path.name)


def assemble_federation(
    toml_path: Path, cards: Sequence[Path], out: Path, authority_key: IdentityKey, *, now: datetime | None = None
) -> Federation:
    """Write the federation folder `out` from a TOML file and the parties' card files, and return it as loaded.

    Raises:
        ConfigError: CARD_MISSING, CARD_UNEXPECTED, CARD_DUPLICATE, FEDERATION_INVALID, RULE_PACK_INCOMPLETE,
            CONTRACT_INVALID, FOLDER_NOT_EMPTY and what reading files raises.
    """
    spec = read_toml(toml_path, FederationSpec)
    folder = toml_path.parent
    contracts = [read_toml(folder / name, DatasetContract) for name in spec.datasets]
    packs = [read_toml(folder / name, RulePack) for name in spec.rule_packs]
    return assemble(
        spec, contracts, packs, [load_card(path) for path in cards], out=out, authority_key=authority_key, now=now
    )


def assemble(
    spec: FederationSpec,
    contracts: Sequence[DatasetContract],
    packs: Sequence[RulePack],
    cards: Sequence[PublicCard],
    *,
    out: Path,
    authority_key: IdentityKey,
    now: datetime | None = None,
) -> Federation:
    """Do the work of `assemble_federation` on values that are already read."""
    if (out / "federation.json").exists():
        raise ConfigError("FOLDER_NOT_EMPTY", "there is a federation in this folder", ids={"folder": str(out)})
    for pack in packs:
        check_pack(pack)
    for contract in contracts:
        _check_zone(contract)
    by_name = _by_name(spec, cards)
    terms = _terms(spec, contracts, packs, by_name, authority_key.public.text)
    check_terms(terms)
    data = encode(terms)
    for pack in packs:
        write_public(out / "rules" / f"{pack.id}.json", encode(pack))
    federation = Federation(terms=terms, digest=sha256_hex(data), rule_packs={pack.id: pack for pack in packs})
    if spec.owners:
        envelope = membership(federation, [by_name[name] for name in spec.owners], 1, authority_key, now=now)
        federation.with_membership(envelope)
        write_public(out / "membership.dsse", envelope.to_bytes())
    (out / "directory").mkdir(parents=True, exist_ok=True)
    write_public(out / "federation.json", data)
    return Federation.load(out)


def membership(
    federation: Federation,
    owners: Iterable[PublicCard],
    version: int,
    authority_key: IdentityKey,
    *,
    now: datetime | None = None,
) -> Envelope:
    """Return the membership list of `owners`, signed by the authority. A new subsidiary is a new version of it."""
    listed = Membership(
        federation=federation.digest,
        version=version,
        issued_at=(now or datetime.now(tz=UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        owners={card.name: _owner(card) for card in owners},
    )
    return Envelope.sign(MEMBERSHIP_TYPE, encode(listed), authority_key, Purpose.FEDERATION)


def add_directory(folder: Path, envelopes: Iterable[Envelope]) -> Federation:
    """Verify directory entries and put them into a federation folder, one file per party; return it as loaded anew.

    Raises:
        ConfigError: DIRECTORY_FOREIGN, DIRECTORY_OLDER if the folder has the same or a higher version.
        EvidenceError: SIGNATURE_INVALID.
    """
    federation = Federation.load(folder)
    for envelope in envelopes:
        federation.with_directory([envelope])
        entry = msgspec.json.decode(envelope.payload, type=built(DirectoryEntry))
        known = federation.directory.get(entry.party)
        if known is not None and known.version >= entry.version:
            if federation.envelopes[entry.party].payload == envelope.payload:
                continue
            raise ConfigError(
                "DIRECTORY_OLDER",
                "the folder already has this or a newer version of the entry",
                expected=f"version {known.version + 1} or higher",
                got=entry.version,
                ids={"party": entry.party},
            )
        if envelope.payload_type != DIRECTORY_TYPE:
            raise ConfigError("DIRECTORY_FOREIGN", "not a directory entry", got=envelope.payload_type[:80])
        write_public(folder / "directory" / f"{entry.party}.dsse", envelope.to_bytes())
    return Federation.load(folder)


def _check_zone(contract: DatasetContract) -> None:
    # Only the author asks for the zone itself: operators need no time zone data.
    try:
        ZoneInfo(contract.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            "CONTRACT_INVALID",
            "the time zone is not known on this machine",
            got=repr(contract.zone[:80]),
            ids={"dataset": contract.name},
            hint="Write an IANA name such as Europe/Berlin; the package tzdata holds them all",
        ) from None


def _by_name(spec: FederationSpec, cards: Sequence[PublicCard]) -> dict[str, PublicCard]:
    wanted: dict[str, Kind] = {
        **dict.fromkeys((name for cluster in spec.clusters.values() for name in cluster.operators), "operator"),
        **dict.fromkeys(spec.authors, "author"),
        **dict.fromkeys(spec.recipients, "recipient"),
        **dict.fromkeys(spec.owners, "owner"),
    }
    found: dict[str, PublicCard] = {}
    for card in cards:
        if card.kind in {"approver", "signer", "authority"}:
            continue  # they stand in their owner's card, the authority's key is given by itself
        if wanted.get(card.name) != card.kind:
            raise ConfigError(
                "CARD_UNEXPECTED",
                "a card's party does not stand in federation.toml as what it is",
                ids={"party": card.name, "kind": card.kind},
            )
        if card.name in found:
            raise ConfigError("CARD_DUPLICATE", "two cards name one party", ids={"party": card.name})
        found[card.name] = card
    missing = [f"{name} ({kind})" for name, kind in wanted.items() if name not in found]
    if missing:
        raise ConfigError(
            "CARD_MISSING",
            "parties of federation.toml have sent no card",
            got=", ".join(missing[:20]),
            hint="Each party runs `comity federation keys` and sends its public.json",
        )
    return found


def _terms(
    spec: FederationSpec,
    contracts: Sequence[DatasetContract],
    packs: Sequence[RulePack],
    cards: Mapping[str, PublicCard],
    authority: str,
) -> FederationTerms:
    operators, recipients = {}, {}
    for name, card in cards.items():
        seat = {"organisation": card.organisation, "jurisdiction": card.jurisdiction or "", "identity": card.identity}
        if card.kind == "operator":
            operators[name] = Operator(**seat)
        elif card.kind == "recipient":
            recipients[name] = Recipient(**seat)
    return FederationTerms(
        name=spec.name,
        version=spec.version,
        authority=authority,
        authors={name: cards[name].identity for name in spec.authors},
        one_parent=spec.one_parent,
        jurisdictions=dict(spec.jurisdictions),
        operators=operators,
        clusters=dict(spec.clusters),
        regions=dict(spec.regions),
        recipients=recipients,
        datasets={contract.name: contract for contract in contracts},
        rule_packs={pack.id: sha256_hex(encode(pack)) for pack in packs},
    )


def _owner(card: PublicCard) -> Owner:
    return Owner(
        name=card.organisation,
        jurisdiction=card.jurisdiction or "",
        region=card.region or "",
        currency=card.currency or "",
        identity=card.identity,
        approvers=card.approvers,
        approvals_required=card.approvals_required,
        signers=card.signers,
    )
