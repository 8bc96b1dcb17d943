"""Public cards and party homes: every party makes its own keys and gives only its card to the federation's author.

```
HOME/public.json                 the card, which may be sent to anybody
HOME/keys/identity.pem           ML-DSA-65 identity (every kind of party, and people)
HOME/keys/sealing.key            operators and recipients: HPKE key for crossings and result parts
HOME/keys/tls/{ca,leaf}.{pem,key}  operators and recipients
HOME/keys/ssh_host_ed25519       operators: host key of the SFTP server
HOME/keys/ssh_client_ed25519     owners: key of the SFTP account
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey, Purpose
from mpc_ops.envelope.schema import Model, decode, encode
from mpc_ops.envelope.sealing import SealingKey
from mpc_ops.errors import ConfigError
from mpc_ops.federation.contract import Short
from mpc_ops.federation.loaded import DIRECTORY_TYPE, Federation, read_file
from mpc_ops.federation.model import CountryCode, DirectoryEntry, KeyText, Name
from mpc_ops.federation.pki import CertificateAuthority, create_ca, create_ssh_key, issue_leaf, write_public
from mpc_ops.ids import check_name

__all__ = ["KINDS", "Kind", "PublicCard", "create_party", "directory_entry", "load_card", "renew_leaf"]

Kind = Literal["operator", "owner", "recipient", "author", "authority", "approver", "signer"]
KINDS: tuple[Kind, ...] = ("operator", "owner", "recipient", "author", "authority", "approver", "signer")
_SEATED = frozenset({"operator", "owner", "recipient"})
_LOOPBACK = ("127.0.0.1", "localhost")
_UTC = "%Y-%m-%dT%H:%M:%SZ"


class PublicCard(Model, frozen=True, kw_only=True):
    """What a party (or a person) gives to the federation's author. Holds public keys only.

    Attributes:
        kind: what the party is.
        organisation: legal name of the organisation; for people the person's name or function.
        jurisdiction: where the party sits; None for authors, the authority and people.
        identity: base64 ML-DSA-65 public key.
        region, currency: of an owner.
        approvers, signers: the owner's people and their keys; `approvals_required` of the approvers must sign.
    """

    format: Literal["comity/card/v1"] = "comity/card/v1"
    kind: Kind
    name: Name
    organisation: Short
    jurisdiction: CountryCode | None = None
    identity: KeyText
    region: Name | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")] | None = None
    approvers: Annotated[dict[Name, KeyText], Meta(max_length=20)] = msgspec.field(default_factory=dict)
    approvals_required: Annotated[int, Meta(ge=1, le=20)] = 1
    signers: Annotated[dict[Name, KeyText], Meta(max_length=20)] = msgspec.field(default_factory=dict)


def load_card(path: Path) -> PublicCard:
    """Read a card file; raise ConfigError FILE_MISSING, SCHEMA_INVALID or CARD_INVALID."""
    return _check(decode(read_file(path, limit_bytes=1 << 20), PublicCard, what=f"card {path.name}"))


def create_party(
    kind: Kind,
    name: str,
    home: Path,
    *,
    organisation: str | None = None,
    jurisdiction: str | None = None,
    region: str | None = None,
    currency: str | None = None,
    approvers: Mapping[str, str] | None = None,
    approvals_required: int = 1,
    signers: Mapping[str, str] | None = None,
    hosts: Sequence[str] = _LOOPBACK,
) -> PublicCard:
    """Make all keys that a party of this kind needs under `home`, and its card `home/public.json`.

    Args:
        kind: operator, owner, recipient, author, authority, approver or signer.
        name: the party's id in the federation.
        home: folder of the party; existing keys are never overwritten.
        organisation: legal name; the id by default.
        jurisdiction: ISO 3166 code where the party sits; operators, owners and recipients need one.
        region: id of an owner's region.
        currency: ISO 4217 code an owner books in.
        approvers: name to public key of the people who approve for an owner.
        approvals_required: how many of them must sign.
        signers: name to public key of the people who sign an owner's figures.
        hosts: DNS names and addresses under which an operator listens, for its TLS certificate.

    Raises:
        ConfigError: NAME_INVALID, CARD_INVALID, SECRET_EXISTS.
    """
    check_name(name, kind)
    if (home / "keys" / "identity.pem").exists():
        raise ConfigError(
            "SECRET_EXISTS", "this home already has keys", ids={"home": str(home)}, hint="Choose an empty folder"
        )
    identity = IdentityKey.generate()
    card = _check(
        PublicCard(
            kind=kind,
            name=name,
            organisation=organisation or name,
            jurisdiction=jurisdiction,
            identity=identity.public.text,
            region=region,
            currency=currency,
            approvers=dict(approvers or {}),
            approvals_required=approvals_required,
            signers=dict(signers or {}),
        )
    )
    decode(encode(card), PublicCard, what="card")
    keys = home / "keys"
    identity.save(keys / "identity.pem")
    if kind in {"operator", "recipient"}:
        SealingKey.generate().save(keys / "sealing.key")
        authority = create_ca(name)
        authority.save(keys / "tls")
        issue_leaf(authority, name, hosts).save(keys / "tls", "leaf")
    if kind == "operator":
        create_ssh_key().save(keys / "ssh_host_ed25519")
    if kind == "owner":
        create_ssh_key().save(keys / "ssh_client_ed25519")
    write_public(home / "public.json", encode(card))
    return card


def renew_leaf(home: Path, hosts: Sequence[str] = _LOOPBACK) -> None:
    """Replace the TLS leaf of an operator or recipient by one for other hosts or a new 90 days; the authority stays."""
    authority = CertificateAuthority.load(home / "keys" / "tls")
    for name in ("leaf.key", "leaf.pem"):
        (home / "keys" / "tls" / name).unlink(missing_ok=True)
    issue_leaf(authority, authority.party, hosts).save(home / "keys" / "tls", "leaf")


def directory_entry(
    federation: Federation,
    home: Path,
    party: str,
    version: int,
    *,
    link: str | None = None,
    sftp: str | None = None,
    api: str | None = None,
    valid_days: int = 90,
    contact: str = "",
    now: datetime | None = None,
) -> Envelope:
    """Return the party's directory entry, signed with the identity key in its home.

    Args:
        federation: the terms the entry belongs to.
        home: the party's home.
        party: id in the federation; its identity key must be the one in `home`.
        version: higher than the party's last entry.
        link: `host:port` of an operator's party links.
        sftp: `host:port` of a region operator's SFTP server.
        api: https URL of a group operator's API.
        valid_days: how long the entry is valid.
        contact: whom to call.
        now: start of validity; the present by default.

    Raises:
        ConfigError: PARTY_UNKNOWN, KEY_FOREIGN if the home's key is not the party's.
    """
    key = IdentityKey.load(home / "keys" / "identity.pem")
    if federation.identity(party) != key.public:
        raise ConfigError("KEY_FOREIGN", "the identity key in this home is not the party's", ids={"party": party})
    start = (now or datetime.now(tz=UTC)).astimezone(UTC) - timedelta(minutes=5)
    keys = home / "keys"
    sealing = keys / "sealing.key"
    entry = DirectoryEntry(
        federation=federation.digest,
        party=party,
        version=version,
        valid_from=start.strftime(_UTC),
        valid_to=(start + timedelta(days=valid_days)).strftime(_UTC),
        link=link,
        sftp=sftp,
        api=api,
        tls_cas=_lines(keys / "tls" / "ca.pem"),
        ssh_host_keys=_lines(keys / "ssh_host_ed25519.pub", strip=True),
        ssh_keys=_lines(keys / "ssh_client_ed25519.pub", strip=True),
        sealing_key=SealingKey.load(sealing).public.text if sealing.exists() else None,
        contact=contact,
    )
    return Envelope.sign(DIRECTORY_TYPE, encode(entry), key, Purpose.DIRECTORY)


def _lines(path: Path, *, strip: bool = False) -> list[str]:
    if not path.exists():
        return []
    text = read_file(path, limit_bytes=4000).decode("ascii")
    return [text.strip() if strip else text]


def _check(card: PublicCard) -> PublicCard:
    def refuse(why: str) -> ConfigError:
        return ConfigError("CARD_INVALID", why, ids={"party": card.name, "kind": card.kind})

    if card.kind in _SEATED and card.jurisdiction is None:
        raise refuse("an operator, owner or recipient needs a jurisdiction")
    if card.kind == "owner":
        if card.region is None or card.currency is None:
            raise refuse("an owner needs a region and a currency")
        if not card.approvers or card.approvals_required > len(card.approvers):
            raise refuse("an owner needs approvers, at least as many as approvals are required")
    elif card.region or card.currency or card.approvers or card.signers:
        raise refuse("only an owner has a region, a currency, approvers and signers")
    return card
