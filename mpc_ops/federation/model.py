"""Federation terms, membership and directory entries as they stand in files."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mpc_ops.envelope.schema import Model
from mpc_ops.federation.contract import DatasetContract, Short, Text

__all__ = [
    "Cluster", "DirectoryEntry", "FederationTerms", "Jurisdiction", "Membership", "Operator", "Owner", "PayloadClass",
    "Recipient", "Region", "Role",
]  # fmt: skip

DigestText = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
KeyText = Annotated[str, Meta(min_length=100, max_length=4000)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\Z")]
CountryCode = Annotated[str, Meta(pattern=r"^[A-Z]{2}\Z")]
UtcText = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z\Z")]


class PayloadClass(StrEnum):
    """Classes of what crosses, ordered by sensitivity (evidence.md section D); a message has the highest of its parts."""

    RECORD_PLAIN = "record_plain"
    RECORD_PSEUDONYMISED = "record_pseudonymised"
    RECORD_CIPHERTEXT = "record_ciphertext"
    RECORD_SHARE = "record_share"
    RECORD_DERIVED_OPENING = "record_derived_opening"
    PARTIAL_AGGREGATE_PLAIN = "partial_aggregate_plain"
    AGGREGATE_SHARE = "aggregate_share"
    AGGREGATE_OPENING = "aggregate_opening"
    PREPROCESSING = "preprocessing"
    MAC_OR_COMMITMENT = "mac_or_commitment"
    CONTROL_METADATA = "control_metadata"
    KEY_MATERIAL = "key_material"
    RELEASED_AGGREGATE = "released_aggregate"
    EVIDENCE = "evidence"


class Role(StrEnum):
    """What the receiver of a flow is (`to_role` of the rule vocabulary)."""

    COMPUTE_NODE = "compute_node"
    RECIPIENT = "recipient"
    AUDITOR = "auditor"
    OWNER = "owner"


class Jurisdiction(Model, frozen=True, kw_only=True):
    """A country with its localisation rules; `area` is the legal area in which no third-country transfer takes place."""

    name: Short
    area: Short | None = None
    rule_packs: Annotated[list[Name], Meta(max_length=20)] = msgspec.field(default_factory=list)


class Operator(Model, frozen=True, kw_only=True):
    """An organisation that runs one computing node."""

    organisation: Short
    jurisdiction: CountryCode
    identity: KeyText


class Cluster(Model, frozen=True, kw_only=True):
    """Three operators that compute together; their order is their party index (0, 1, 2)."""

    kind: Literal["region", "group"]
    operators: Annotated[list[Name], Meta(min_length=3, max_length=3)]


class Region(Model, frozen=True, kw_only=True):
    """Jurisdictions among which every dataset's rules allow `record_share`, with their cluster."""

    jurisdictions: Annotated[list[CountryCode], Meta(min_length=1, max_length=60)]
    cluster: Name


class Recipient(Model, frozen=True, kw_only=True):
    """Who learns results; signs manifests, acknowledgements, cancellations and reopenings."""

    organisation: Short
    jurisdiction: CountryCode
    identity: KeyText


class FederationTerms(Model, frozen=True, kw_only=True):
    """What is in every plan's digest: operators, clusters, jurisdictions, regions, recipients, contracts, rule packs.

    Attributes:
        authority: key that signs the membership list.
        authors: keys that sign releases and reference data, by name.
        one_parent: whether all owners stand under one parent (reporting.md 3); else `min_owners` guards entities.
        rule_packs: digest of each rule pack file by id; every jurisdiction names at least one.
    """

    format: Literal["comity/federation/v1"] = "comity/federation/v1"
    name: Short
    version: Annotated[int, Meta(ge=1)]
    authority: KeyText
    authors: Annotated[dict[Name, KeyText], Meta(min_length=1, max_length=50)]
    one_parent: bool
    jurisdictions: Annotated[dict[CountryCode, Jurisdiction], Meta(min_length=1, max_length=100)]
    operators: Annotated[dict[Name, Operator], Meta(min_length=3, max_length=300)]
    clusters: Annotated[dict[Name, Cluster], Meta(min_length=1, max_length=100)]
    regions: Annotated[dict[Name, Region], Meta(min_length=1, max_length=100)]
    recipients: Annotated[dict[Name, Recipient], Meta(min_length=1, max_length=50)]
    datasets: Annotated[dict[Name, DatasetContract], Meta(min_length=1, max_length=100)]
    rule_packs: Annotated[dict[Name, DigestText], Meta(min_length=1, max_length=200)]


class Owner(Model, frozen=True, kw_only=True):
    """A legal entity with a local store.

    Attributes:
        currency: ISO 4217 code the entity books in.
        approvers: people whose signature the owner requires before its data may be used; `approvals_required` of them.
        signers: people who sign the entity's figures; a report's term says how many must.
    """

    name: Text
    jurisdiction: CountryCode
    region: Name
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
    identity: KeyText
    approvers: Annotated[dict[Name, KeyText], Meta(min_length=1, max_length=20)]
    approvals_required: Annotated[int, Meta(ge=1, le=20)] = 1
    signers: Annotated[dict[Name, KeyText], Meta(max_length=20)] = msgspec.field(default_factory=dict)


class Membership(Model, frozen=True, kw_only=True):
    """The signed list of owners; its digest is in the manifest. A new subsidiary needs only a new version of it."""

    format: Literal["comity/membership/v1"] = "comity/membership/v1"
    federation: DigestText
    version: Annotated[int, Meta(ge=1)]
    issued_at: UtcText
    owners: Annotated[dict[Name, Owner], Meta(min_length=1, max_length=20000)]


class DirectoryEntry(Model, frozen=True, kw_only=True):
    """How to reach a party and which of its keys are in use, signed by its identity key (purpose DIRECTORY).

    Attributes:
        link: host:port of an operator's party links; dialled by lower ranks of its cluster and by region operators.
        sftp: host:port of a region operator's SFTP server.
        api: https URL of a group operator's recipient API.
        tls_cas: PEM of the party's own CA certificates, at most two valid at once (rotation).
        ssh_host_keys: OpenSSH public keys of the SFTP server; `ssh_keys` an owner's client keys.
        sealing_key: HPKE public key: a group operator's for crossings, a recipient's for result parts.
    """

    format: Literal["comity/directory/v1"] = "comity/directory/v1"
    federation: DigestText
    party: Name
    version: Annotated[int, Meta(ge=1)]
    valid_from: UtcText
    valid_to: UtcText
    link: Short | None = None
    sftp: Short | None = None
    api: Short | None = None
    tls_cas: Annotated[list[Annotated[str, Meta(max_length=4000)]], Meta(max_length=2)] = msgspec.field(
        default_factory=list
    )
    ssh_host_keys: Annotated[list[Short], Meta(max_length=2)] = msgspec.field(default_factory=list)
    ssh_keys: Annotated[list[Short], Meta(max_length=2)] = msgspec.field(default_factory=list)
    sealing_key: KeyText | None = None
    contact: Text = ""
