"""A federation as loaded from a folder, every file checked.

```
federation.json        terms (canonical JSON; its SHA-256 is the federation digest)
rules/<pack>.json      rule packs, pinned by digest in the terms
membership.dsse        owners, signed by the authority (absent until the first owner joins)
directory/<party>.dsse one entry per party, signed by that party
```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mpc_ops.envelope.canonical import canonical_bytes, sha256_hex
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityPublicKey, Purpose
from mpc_ops.envelope.schema import decode, encode
from mpc_ops.errors import ConfigError
from mpc_ops.federation.contract import check_contract
from mpc_ops.federation.model import Cluster, DirectoryEntry, FederationTerms, Membership, Operator, Owner, Region
from mpc_ops.federation.pki import check_pin
from mpc_ops.federation.rulepack import RulePack, check_pack
from mpc_ops.ids import Digest, check_name

__all__ = ["DIRECTORY_TYPE", "MEMBERSHIP_TYPE", "Federation", "read_file"]

MEMBERSHIP_TYPE = "application/vnd.comity.membership+json"
DIRECTORY_TYPE = "application/vnd.comity.directory+json"
_LIMIT_BYTES = 16 << 20
_AUTHORITY = "authority"


def read_file(path: Path, *, limit_bytes: int = _LIMIT_BYTES) -> bytes:
    """Return a file's bytes; raise ConfigError FILE_MISSING or FILE_TOO_LONG."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError:
        raise ConfigError("FILE_MISSING", "a file cannot be read", ids={"file": str(path)}) from None
    if len(data) > limit_bytes:
        raise ConfigError(
            "FILE_TOO_LONG", "a file is too long", expected=f"at most {limit_bytes} bytes", ids={"file": str(path)}
        )
    return data


@dataclass(frozen=True)
class Federation:
    """Terms, rule packs, membership and directory, verified on loading.

    Attributes:
        digest: SHA-256 of the terms' canonical bytes.
        membership_digest: digest of the signed membership payload, None while there are no owners.
        envelopes: the signed directory entries by party, for passing on.
    """

    terms: FederationTerms
    digest: Digest
    rule_packs: Mapping[str, RulePack]
    membership: Membership | None = None
    membership_digest: Digest | None = None
    directory: Mapping[str, DirectoryEntry] = field(default_factory=dict)
    envelopes: Mapping[str, Envelope] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Federation:
        """Read and verify a federation folder.

        Raises:
            ConfigError: FILE_MISSING, SCHEMA_INVALID, FEDERATION_INVALID, RULE_PACK_DIGEST and so on, naming the file.
            EvidenceError: SIGNATURE_INVALID.
        """
        data = read_file(folder / "federation.json")
        terms = decode(data, FederationTerms, what="federation.json", limit_bytes=_LIMIT_BYTES)
        check_terms(terms)
        packs = {name: _load_pack(folder, name, digest) for name, digest in terms.rule_packs.items()}
        _check_origins(terms, packs)
        federation = cls(terms=terms, digest=sha256_hex(data), rule_packs=packs)
        if (folder / "membership.dsse").exists():
            federation = federation.with_membership(
                Envelope.parse(read_file(folder / "membership.dsse"), limit_bytes=_LIMIT_BYTES)
            )
        paths = sorted((folder / "directory").glob("*.dsse"))
        return federation.with_directory([Envelope.parse(read_file(path)) for path in paths])

    def with_membership(self, envelope: Envelope) -> Federation:
        """Return a copy with a verified membership list."""
        envelope.require({_AUTHORITY: IdentityPublicKey.from_text(self.terms.authority)}, Purpose.FEDERATION)
        membership = decode(envelope.payload, Membership, what="membership", limit_bytes=_LIMIT_BYTES)
        if membership.federation != self.digest:
            raise ConfigError(
                "MEMBERSHIP_FOREIGN", "membership list belongs to other federation terms", expected=self.digest[:16]
            )
        for name, owner in membership.owners.items():
            _check_owner(self.terms, name, owner)
        return Federation(
            self.terms, self.digest, self.rule_packs, membership, envelope.digest, self.directory, self.envelopes
        )

    def with_directory(self, envelopes: Iterable[Envelope]) -> Federation:
        """Return a copy with verified directory entries; for one party the highest version wins.

        Raises:
            ConfigError: DIRECTORY_FOREIGN, CERTIFICATE_INVALID, or what decoding and signatures raise.
        """
        entries, kept = dict(self.directory), dict(self.envelopes)
        for envelope in envelopes:
            entry = decode(envelope.payload, DirectoryEntry, what="directory entry")
            if entry.federation != self.digest:
                raise ConfigError(
                    "DIRECTORY_FOREIGN", "directory entry belongs to other federation terms", ids={"party": entry.party}
                )
            envelope.require({entry.party: self.identity(entry.party)}, Purpose.DIRECTORY)
            for pin in (
                entry.tls_cas
            ):  # here, before the entry is stored: later it would keep this operator's server from starting
                check_pin(pin, entry.party)
            if entry.party not in entries or entries[entry.party].version < entry.version:
                entries[entry.party], kept[entry.party] = entry, envelope
        return Federation(
            self.terms, self.digest, self.rule_packs, self.membership, self.membership_digest, entries, kept
        )

    @property
    def directory_digest(self) -> Digest:
        """Digest over all directory entries (party and payload digest), as named in a manifest."""
        return sha256_hex(canonical_bytes({party: envelope.digest for party, envelope in self.envelopes.items()}))

    @property
    def owners(self) -> Mapping[str, Owner]:
        """Owners by id; empty while there is no membership list."""
        return {} if self.membership is None else self.membership.owners

    def identity(self, party: str) -> IdentityPublicKey:
        """Return the identity key of an operator, recipient, owner, author or `authority`.

        Raises:
            ConfigError: PARTY_UNKNOWN.
        """
        terms = self.terms
        found: Operator | Owner | None = terms.operators.get(party) or self.owners.get(party)
        if found is not None:
            return IdentityPublicKey.from_text(found.identity)
        if party in terms.recipients:
            return IdentityPublicKey.from_text(terms.recipients[party].identity)
        if party in terms.authors:
            return IdentityPublicKey.from_text(terms.authors[party])
        if party == _AUTHORITY:
            return IdentityPublicKey.from_text(terms.authority)
        raise ConfigError("PARTY_UNKNOWN", "no such party in this federation", ids={"party": party[:80]})

    def entry(self, party: str) -> DirectoryEntry:
        """Return the directory entry of a party; raise ConfigError DIRECTORY_MISSING or DIRECTORY_EXPIRED."""
        if party not in self.directory:
            raise ConfigError("DIRECTORY_MISSING", "no directory entry for a party", ids={"party": party})
        entry = self.directory[party]
        now = datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if not entry.valid_from <= now < entry.valid_to:
            raise ConfigError(
                "DIRECTORY_EXPIRED",
                "directory entry is not valid now",
                expected=f"{entry.valid_from} to {entry.valid_to}",
                got=now,
                ids={"party": party},
                hint="Ask the party for its current entry",
            )
        return entry

    def owner(self, name: str) -> Owner:
        """Return an owner; raise ConfigError PARTY_UNKNOWN."""
        if name not in self.owners:
            raise ConfigError("PARTY_UNKNOWN", "no such owner in the membership list", ids={"owner": name[:80]})
        return self.owners[name]

    def region_of(self, owner: str) -> tuple[str, Region]:
        """Return (region id, region) of an owner."""
        name = self.owner(owner).region
        return name, self.terms.regions[name]

    def cluster(self, name: str) -> Cluster:
        """Return a cluster; raise ConfigError PARTY_UNKNOWN."""
        if name not in self.terms.clusters:
            raise ConfigError("PARTY_UNKNOWN", "no such cluster", ids={"cluster": name[:80]})
        return self.terms.clusters[name]

    def operators_of(self, owner: str) -> list[str]:
        """Return the three operators of an owner's region, by party index."""
        return list(self.cluster(self.region_of(owner)[1].cluster).operators)

    def clusters_of(self, operator: str) -> dict[str, int]:
        """Return {cluster id: party index} for an operator."""
        return {
            name: cluster.operators.index(operator)
            for name, cluster in self.terms.clusters.items()
            if operator in cluster.operators
        }

    def jurisdiction_of(self, party: str) -> str:
        """Return the jurisdiction code of an operator, owner or recipient."""
        for group in (self.terms.operators, self.terms.recipients, self.owners):
            if party in group:
                return str(group[party].jurisdiction)
        raise ConfigError("PARTY_UNKNOWN", "no such party in this federation", ids={"party": party[:80]})

    def same_area(self, one: str, other: str) -> bool:
        """Return whether two jurisdictions lie in one legal area (or are the same)."""
        if one == other:
            return True
        area = self.terms.jurisdictions[one].area
        return area is not None and area == self.terms.jurisdictions[other].area


def _load_pack(folder: Path, name: str, digest: str) -> RulePack:
    path = folder / "rules" / f"{name}.json"
    data = read_file(path)
    if sha256_hex(data) != digest:
        raise ConfigError(
            "RULE_PACK_DIGEST",
            "rule pack differs from the one in the terms",
            ids={"file": path.name},
            expected=digest[:16],
        )
    pack = decode(data, RulePack, what=f"rules/{name}.json")
    if pack.id != name:
        raise ConfigError(
            "FEDERATION_INVALID", "rule pack has another id than its file", ids={"file": path.name}, got=pack.id
        )
    check_pack(pack)
    return pack


def _check_origins(terms: FederationTerms, packs: Mapping[str, RulePack]) -> None:
    for code, jurisdiction in terms.jurisdictions.items():
        foreign = [name for name in jurisdiction.rule_packs if packs[name].origin != code]
        if foreign:
            raise _refuse(terms, f"jurisdiction {code} names rule pack {foreign[0]}, which is for another origin")


def _check_owner(terms: FederationTerms, name: str, owner: Owner) -> None:
    def refuse(why: str) -> ConfigError:
        return ConfigError("FEDERATION_INVALID", f"owner {name} {why}", ids={"owner": name})

    check_name(name, "owner")
    region = terms.regions.get(owner.region)
    if region is None or owner.jurisdiction not in region.jurisdictions:
        raise refuse("is not in a jurisdiction of its region")
    if name == _AUTHORITY or name in {*terms.operators, *terms.recipients, *terms.authors}:
        raise refuse("has the name of another party")
    if owner.approvals_required > len(owner.approvers):
        raise refuse("requires more approvals than it has approvers")
    # One person under two names would count as two.
    if len(set(owner.approvers.values())) != len(owner.approvers):
        raise refuse("lists one key for two approvers")
    if len(set(owner.signers.values())) != len(owner.signers):
        raise refuse("lists one key for two signers")


def check_terms(terms: FederationTerms) -> None:
    """Check references and counts inside terms; raise ConfigError FEDERATION_INVALID with the reason."""
    if decode(encode(terms), FederationTerms, what="federation terms", limit_bytes=_LIMIT_BYTES) != terms:
        raise _refuse(terms, "terms do not survive their own canonical form")
    names = [*terms.operators, *terms.recipients, *terms.authors]
    if len(set(names)) != len(names) or _AUTHORITY in names:
        raise _refuse(terms, "one name stands for two parties")
    identities = [IdentityPublicKey.from_text(party.identity).raw for party in terms.operators.values()]
    identities += [IdentityPublicKey.from_text(party.identity).raw for party in terms.recipients.values()]
    if len(set(identities)) != len(identities):
        raise _refuse(terms, "one identity key stands for two parties")
    for name in (*names, *terms.clusters, *terms.regions, *terms.datasets):
        check_name(name, "name in federation terms")
    _check_jurisdictions(terms)
    for name, cluster in terms.clusters.items():
        _check_cluster(terms, name, cluster)
    for name, region in terms.regions.items():
        _check_region(terms, name, region)
    if len({region.cluster for region in terms.regions.values()}) != len(terms.regions):
        raise _refuse(terms, "one cluster serves two regions")
    for name, contract in terms.datasets.items():
        if contract.name != name:
            raise _refuse(terms, f"dataset {name} has a contract with another name")
        check_contract(contract)


def _refuse(terms: FederationTerms, why: str) -> ConfigError:
    return ConfigError("FEDERATION_INVALID", why, ids={"federation": terms.name})


def _check_jurisdictions(terms: FederationTerms) -> None:
    for code, jurisdiction in terms.jurisdictions.items():
        if not set(jurisdiction.rule_packs) <= set(terms.rule_packs):
            raise _refuse(terms, f"jurisdiction {code} names a rule pack that is not in the terms")
    for kind, parties in (("operator", terms.operators), ("recipient", terms.recipients)):
        for name, party in parties.items():
            if party.jurisdiction not in terms.jurisdictions:
                raise _refuse(terms, f"{kind} {name} sits in an unknown jurisdiction")


def _check_cluster(terms: FederationTerms, name: str, cluster: Cluster) -> None:
    operators = set(cluster.operators)
    if len(operators) != len(cluster.operators) or not operators <= set(terms.operators):
        raise _refuse(terms, f"cluster {name} does not name three different known operators")
    if len({terms.operators[operator].organisation for operator in operators}) != len(operators):
        raise _refuse(terms, f"cluster {name} has two operators of one organisation")
    seats = {terms.operators[operator].jurisdiction for operator in operators}
    if cluster.kind == "group" and len(seats) != len(operators):
        raise _refuse(terms, f"group cluster {name} must sit in three jurisdictions")


def _check_region(terms: FederationTerms, name: str, region: Region) -> None:
    cluster = terms.clusters.get(region.cluster)
    if cluster is None or cluster.kind != "region":
        raise _refuse(terms, f"region {name} has no region cluster")
    if not set(region.jurisdictions) <= set(terms.jurisdictions):
        raise _refuse(terms, f"region {name} names an unknown jurisdiction")
    if not {terms.operators[operator].jurisdiction for operator in cluster.operators} <= set(region.jurisdictions):
        raise _refuse(terms, f"an operator of region {name} sits outside it")
