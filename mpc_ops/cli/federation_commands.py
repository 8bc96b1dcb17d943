"""`comity federation`: keys and cards, terms, membership, directory, checks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey
from mpc_ops.errors import ConfigError, UsageError
from mpc_ops.federation.assemble import add_directory, assemble_federation, membership
from mpc_ops.federation.cards import KINDS, Kind, PublicCard, create_party, directory_entry, load_card, renew_leaf
from mpc_ops.federation.loaded import Federation, read_file
from mpc_ops.federation.model import Owner
from mpc_ops.federation.pki import write_public
from mpc_ops.notices.signed import utc_text

__all__ = ["register"]

_SOON = timedelta(days=30)
Folder = Annotated[Path, typer.Argument(help="Federation folder.")]
Home = Annotated[Path, typer.Option("--home", help="Folder of the party's own keys.")]
Hosts = Annotated[list[str] | None, typer.Option("--host", help="Host name or address an operator listens at.")]
Authority = Annotated[Path, typer.Option("--authority", help="Home of the authority (its keys/identity.pem).")]


def register(app: typer.Typer) -> None:
    """Add the command group `federation`."""
    group = typer.Typer(help="Set up a federation: keys, terms, membership, directory.", no_args_is_help=True)
    for function in (keys, renew_tls, init, join, directory, add, check, show):
        group.command(function.__name__.replace("_", "-"))(function)
    app.add_typer(group, name="federation")


def keys(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="Id of the party in the federation, e.g. de-1.")],
    *,
    home: Home,
    organisation: Annotated[str | None, typer.Option(help="Legal name.")] = None,
    jurisdiction: Annotated[str | None, typer.Option(help="ISO 3166 code of the party's seat, e.g. DE.")] = None,
    region: Annotated[str | None, typer.Option(help="Region of an owner.")] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217 code an owner books in.")] = None,
    approver: Annotated[list[Path] | None, typer.Option(help="Card of a person who approves for an owner.")] = None,
    approvals_required: Annotated[int, typer.Option(help="How many approvers must sign.")] = 1,
    signer: Annotated[list[Path] | None, typer.Option(help="Card of a person who signs an owner's figures.")] = None,
    host: Hosts = None,
) -> None:
    """Make a party's keys in its own home, and the public card that goes to the federation's author."""
    card = create_party(
        _kind(kind),
        name,
        home,
        organisation=organisation,
        jurisdiction=jurisdiction,
        region=region,
        currency=currency,
        approvers=_people(approver, "approver"),
        approvals_required=approvals_required,
        signers=_people(signer, "signer"),
        hosts=_hosts(host),
    )
    fingerprint = IdentityPublicKey.from_text(card.identity).fingerprint
    typer.echo(f"keys of {kind} {name} are in {home / 'keys'} (never give them away)")
    typer.echo(f"card for the federation's author: {home / 'public.json'}; fingerprint {fingerprint}")


def _hosts(host: list[str] | None) -> tuple[str, ...]:
    return tuple(host or ("127.0.0.1", "localhost"))


def renew_tls(home: Home, host: Hosts = None) -> None:
    """Replace an operator's or recipient's TLS certificate; its own authority, which the directory pins, stays."""
    renew_leaf(home, _hosts(host))
    typer.echo(f"new TLS certificate in {home / 'keys' / 'tls'}")


def _kind(text: str) -> Kind:
    for kind in KINDS:
        if kind == text:
            return kind
    raise UsageError("USAGE", "unknown kind of party", expected=", ".join(KINDS), got=repr(text[:40]))


def _people(paths: list[Path] | None, kind: str) -> dict[str, str]:
    cards = [load_card(path) for path in paths or []]
    for card in cards:
        if card.kind != kind:
            raise ConfigError(
                "CARD_UNEXPECTED", f"a card of an {card.kind} was given as {kind}", ids={"party": card.name}
            )
    return {card.name: card.identity for card in cards}


def init(
    toml: Annotated[Path, typer.Argument(help="federation.toml of the author.")],
    cards: Annotated[list[Path], typer.Argument(help="Cards (public.json), or folders that are searched for them.")],
    out: Annotated[Path, typer.Option("--out", help="New federation folder.")],
    authority: Authority,
) -> None:
    """Make the federation folder: terms, rule packs and the signed membership list."""
    federation = assemble_federation(toml, list(_cards(cards)), out, _key(authority))
    typer.echo(f"federation {federation.terms.name} version {federation.terms.version} in {out}")
    typer.echo(f"digest {federation.digest}")


def _cards(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.rglob("public.json"))
        else:
            yield path


def _key(home: Path) -> IdentityKey:
    return IdentityKey.load(home / "keys" / "identity.pem")


def join(
    folder: Folder,
    cards: Annotated[list[Path], typer.Argument(help="Cards of new owners, or new cards of known ones.")],
    authority: Authority,
) -> None:
    """Sign a new version of the membership list with more owners; nobody else has to sign anything again."""
    federation = Federation.load(folder)
    known = {name: _card_of(name, owner) for name, owner in federation.owners.items()}
    for card in (load_card(path) for path in _cards(cards)):
        if card.kind != "owner":
            raise ConfigError("CARD_UNEXPECTED", "only owners join the membership list", ids={"party": card.name})
        known[card.name] = card
    last = 0 if federation.membership is None else federation.membership.version
    envelope = membership(federation, known.values(), last + 1, _key(authority))
    federation.with_membership(envelope)
    write_public(folder / "membership.dsse", envelope.to_bytes())
    typer.echo(f"membership version {last + 1}: {', '.join(known)}")


def _card_of(name: str, owner: Owner) -> PublicCard:
    return PublicCard(
        kind="owner",
        name=name,
        organisation=owner.name,
        jurisdiction=owner.jurisdiction,
        identity=owner.identity,
        region=owner.region,
        currency=owner.currency,
        approvers=owner.approvers,
        approvals_required=owner.approvals_required,
        signers=owner.signers,
    )


def directory(
    folder: Folder,
    party: Annotated[str, typer.Argument(help="Id of the party.")],
    *,
    home: Home,
    link: Annotated[str | None, typer.Option(help="host:port of an operator's links.")] = None,
    sftp: Annotated[str | None, typer.Option(help="host:port of a region operator's SFTP server.")] = None,
    api: Annotated[str | None, typer.Option(help="https URL of a group operator's API.")] = None,
    days: Annotated[int, typer.Option(min=1, max=400, help="How long the entry is valid.")] = 90,
    contact: Annotated[str, typer.Option(help="Whom to call.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="Write the entry here instead of into the folder.")] = None,
) -> None:
    """Sign a party's directory entry: endpoints, TLS, SSH and sealing keys."""
    federation = Federation.load(folder)
    last = federation.directory[party].version if party in federation.directory else 0
    envelope = directory_entry(
        federation, home, party, last + 1, link=link, sftp=sftp, api=api, valid_days=days, contact=contact
    )
    if out is None:
        add_directory(folder, [envelope])
    else:
        write_public(out, envelope.to_bytes())
    typer.echo(f"directory entry of {party}, version {last + 1}, valid for {days} days: {out or folder / 'directory'}")


def add(
    folder: Folder,
    entries: Annotated[list[Path], typer.Argument(help="Signed directory entries (.dsse) of other parties.")],
) -> None:
    """Put other parties' signed directory entries into the folder."""
    federation = add_directory(folder, [Envelope.parse(read_file(path)) for path in entries])
    typer.echo(f"{len(federation.directory)} directory entries")


def check(folder: Folder) -> None:
    """Verify every file of a federation folder, and say what is missing or ends soon."""
    federation = Federation.load(folder)
    problems = list(_problems(federation))
    for problem in problems:
        typer.echo(f"- {problem}")
    if any(problem.startswith("MISSING") for problem in problems):
        raise ConfigError("FEDERATION_INCOMPLETE", "the folder lacks what a run needs", ids={"folder": str(folder)})
    typer.echo(f"federation {federation.terms.name}: all files valid, digest {federation.digest}")


def _problems(federation: Federation) -> Iterator[str]:
    now = datetime.now(tz=UTC)
    soon = utc_text(now + _SOON)
    for pack in federation.rule_packs.values():
        if pack.expires_on < soon:
            yield f"rule pack {pack.id} {'expired' if pack.expires_on < utc_text(now) else 'expires'} on {pack.expires_on}"
    for code, jurisdiction in federation.terms.jurisdictions.items():
        if not jurisdiction.rule_packs:
            yield f"jurisdiction {code} has no rule pack: everything from there is denied"
    if federation.membership is None:
        yield "MISSING membership list: no owner has joined"
    clusters = federation.terms.clusters.values()
    region = {name for cluster in clusters if cluster.kind == "region" for name in cluster.operators}
    group = {name for cluster in clusters if cluster.kind == "group" for name in cluster.operators}
    for party in (*federation.terms.operators, *federation.terms.recipients, *federation.owners):
        entry = federation.directory.get(party)
        if entry is None:
            yield f"MISSING directory entry of {party}"
            continue
        if entry.valid_to < soon:
            yield f"directory entry of {party} {'expired' if entry.valid_to < utc_text(now) else 'ends'} on {entry.valid_to}"
        wanted = {"link": party in region | group, "sftp": party in region, "api": party in group}
        for name, needed in wanted.items():
            if needed and getattr(entry, name) is None:
                yield f"MISSING {name} in the directory entry of {party}"


def show(folder: Folder) -> None:
    """Print who is who: parties, seats, clusters, owners, rule packs, fingerprints."""
    federation = Federation.load(folder)
    terms = federation.terms
    typer.echo(f"federation {terms.name} version {terms.version}, digest {federation.digest}")
    typer.echo(f"authority {IdentityPublicKey.from_text(terms.authority).fingerprint}; one parent: {terms.one_parent}")
    for code, jurisdiction in terms.jurisdictions.items():
        area = f", {jurisdiction.area}" if jurisdiction.area else ""
        typer.echo(f"  {code} {jurisdiction.name}{area}: rule packs {', '.join(jurisdiction.rule_packs) or 'none'}")
    for name, cluster in terms.clusters.items():
        typer.echo(f"cluster {name} ({cluster.kind})")
        for operator in cluster.operators:
            one = terms.operators[operator]
            typer.echo(f"  {operator:<20} {one.jurisdiction} {_print(one.identity)}  {one.organisation}")
    for name, region in terms.regions.items():
        typer.echo(f"region {name}: {', '.join(region.jurisdictions)}, cluster {region.cluster}")
        for owner, entity in federation.owners.items():
            if entity.region == name:
                typer.echo(
                    f"  {owner:<20} {entity.jurisdiction} {_print(entity.identity)}  {entity.name}, {entity.currency}"
                )
                typer.echo(f"    approvers ({entity.approvals_required} must sign): {', '.join(entity.approvers)}")
    for name, recipient in terms.recipients.items():
        typer.echo(f"recipient {name}: {recipient.jurisdiction} {_print(recipient.identity)}  {recipient.organisation}")
    for name, key in terms.authors.items():
        typer.echo(f"author {name}: {_print(key)}")
    for name, contract in terms.datasets.items():
        typer.echo(f"dataset {name} version {contract.version}: {contract.data_class}, unit {contract.unit_label}")


def _print(key: str) -> str:
    return IdentityPublicKey.from_text(key).fingerprint
