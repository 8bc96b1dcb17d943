"""A federation folder is refused as a whole when one file in it is altered, foreign or contradicts the terms."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from mpc_ops.envelope.canonical import canonical_bytes
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey, Purpose
from mpc_ops.envelope.schema import encode, to_plain
from mpc_ops.errors import ConfigError, EvidenceError
from mpc_ops.federation import pki
from mpc_ops.federation.cards import directory_entry
from mpc_ops.federation.loaded import DIRECTORY_TYPE, MEMBERSHIP_TYPE, Federation, check_terms, read_file
from mpc_ops.federation.model import Cluster, DirectoryEntry, FederationTerms, Membership, Operator, Region
from tests.support.federation import AUTHOR, DEMO, RECIPIENT, MadeFederation, make_federation

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeFederation:
    return make_federation(tmp_path_factory.mktemp("federation"), {code: DEMO[code][:2] for code in ("DE", "CN")})


@pytest.fixture
def folder(made: MadeFederation, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "federation"))


# --- the folder ---


def test_a_folder_without_terms_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"FILE_MISSING.*federation\.json"):
        Federation.load(tmp_path)


def test_every_altered_byte_of_the_terms_changes_the_digest_or_is_refused(made: MadeFederation, folder: Path) -> None:
    path = folder / "federation.json"
    data = path.read_bytes()
    for place in range(0, len(data), len(data) // 40):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((ConfigError, EvidenceError)) as info:
            Federation.load(folder)
        # Terms that still are terms have another digest, so the membership list is of other terms.
        assert info.value.code in {"JSON_INVALID", "SCHEMA_INVALID", "FEDERATION_INVALID", "KEY_INVALID"} | {
            "NAME_INVALID", "CONTRACT_INVALID", "COLUMN_UNKNOWN", "RULE_PACK_DIGEST", "FILE_MISSING",
            "SIGNATURE_INVALID", "MEMBERSHIP_FOREIGN",
        }  # fmt: skip


def test_terms_that_are_not_canonical_are_refused(folder: Path) -> None:
    path = folder / "federation.json"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ConfigError, match=r"JSON_INVALID.*canonical"):
        Federation.load(folder)


def test_a_changed_rule_pack_is_refused_with_its_file(folder: Path) -> None:
    path = folder / "rules" / "de-demo.json"
    path.write_bytes(path.read_bytes().replace(b'"min_records":10', b'"min_records":1'))
    with pytest.raises(ConfigError, match=r"RULE_PACK_DIGEST.*file=de-demo\.json"):
        Federation.load(folder)
    path.unlink()
    with pytest.raises(ConfigError, match=r"FILE_MISSING.*de-demo\.json"):
        Federation.load(folder)


def test_a_pack_of_another_origin_does_not_count_for_a_jurisdiction(made: MadeFederation, folder: Path) -> None:
    terms = made.federation.terms
    swapped = {**terms.jurisdictions, "CN": replace(terms.jurisdictions["CN"], rule_packs=["de-demo"])}
    (folder / "federation.json").write_bytes(encode(replace(terms, jurisdictions=swapped)))
    with pytest.raises(ConfigError, match=r"FEDERATION_INVALID.*CN names rule pack de-demo.*another origin"):
        Federation.load(folder)


def test_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(ConfigError, match=r"FILE_TOO_LONG.*at most 10 bytes"):
        read_file(tmp_path / "long", limit_bytes=10)
    with pytest.raises(ConfigError, match="FILE_MISSING"):
        read_file(tmp_path, limit_bytes=10)


# --- the terms ---


def with_operator(terms: FederationTerms, name: str, **changes: str) -> FederationTerms:
    return replace(terms, operators={**terms.operators, name: replace(terms.operators[name], **changes)})


def with_cluster(terms: FederationTerms, name: str, *operators: str, kind: str = "region") -> FederationTerms:
    return replace(terms, clusters={**terms.clusters, name: Cluster(kind=kind, operators=list(operators))})  # type: ignore[arg-type]


def refusal(terms: FederationTerms) -> str:
    with pytest.raises(ConfigError) as info:
        check_terms(terms)
    assert info.value.code == "FEDERATION_INVALID"
    return info.value.what


def test_a_group_cluster_sits_in_three_jurisdictions(made: MadeFederation) -> None:
    assert "must sit in three jurisdictions" in refusal(with_operator(made.federation.terms, "ch-1", jurisdiction="NL"))


def test_one_organisation_does_not_run_two_operators_of_a_cluster(made: MadeFederation) -> None:
    terms = with_operator(made.federation.terms, "de-2", organisation="Operator de-1")
    assert "cluster de has two operators of one organisation" in refusal(terms)
    check_terms(with_operator(made.federation.terms, "de-2", organisation="Operator cn-1"))


def test_two_operators_do_not_share_an_identity_key(made: MadeFederation) -> None:
    terms = made.federation.terms
    assert "one identity key" in refusal(with_operator(terms, "de-2", identity=terms.operators["de-1"].identity))
    assert "one identity key" in refusal(with_operator(terms, "de-2", identity=terms.recipients[RECIPIENT].identity))
    with pytest.raises(ConfigError, match="KEY_INVALID"):
        check_terms(with_operator(terms, "de-2", identity="A" * 200))


def test_a_cluster_is_three_different_known_operators(made: MadeFederation) -> None:
    terms = made.federation.terms
    for operators in (("de-1", "de-1", "de-2"), ("de-1", "de-2", "de-9")):
        assert "three different known operators" in refusal(with_cluster(terms, "de", *operators))
    with pytest.raises(ConfigError, match="SCHEMA_INVALID"):
        check_terms(with_cluster(terms, "de", "de-1", "de-2"))


def test_a_region_has_its_own_region_cluster_inside_itself(made: MadeFederation) -> None:
    terms = made.federation.terms

    def region(name: str, *codes: str, cluster: str) -> FederationTerms:
        return replace(terms, regions={**terms.regions, name: Region(jurisdictions=list(codes), cluster=cluster)})

    assert "region de has no region cluster" in refusal(region("de", "DE", cluster="group"))
    assert "region de has no region cluster" in refusal(region("de", "DE", cluster="nowhere"))
    assert "region de names an unknown jurisdiction" in refusal(region("de", "DE", "FR", cluster="de"))
    assert "sits outside it" in refusal(region("de", "NL", cluster="de"))
    assert "sits outside it" in refusal(with_cluster(terms, "de", "de-1", "de-2", "cn-1"))
    assert "one cluster serves two regions" in refusal(region("other", "DE", "NL", cluster="de"))


def test_one_name_is_one_party(made: MadeFederation) -> None:
    terms = made.federation.terms
    for clash in (
        replace(terms, authors={**terms.authors, "de-1": terms.authors[AUTHOR]}),
        replace(terms, recipients={**terms.recipients, "de-1": terms.recipients[RECIPIENT]}),
        replace(terms, authors={**terms.authors, "authority": terms.authors[AUTHOR]}),
    ):
        assert "one name stands for two parties" in refusal(clash)


def test_unknown_jurisdictions_packs_and_other_contract_names_are_refused(made: MadeFederation) -> None:
    terms = made.federation.terms
    assert "operator de-1 sits in an unknown jurisdiction" in refusal(with_operator(terms, "de-1", jurisdiction="FR"))
    recipient = replace(terms.recipients[RECIPIENT], jurisdiction="FR")
    assert "sits in an unknown jurisdiction" in refusal(replace(terms, recipients={RECIPIENT: recipient}))
    lost = {**terms.jurisdictions, "DE": replace(terms.jurisdictions["DE"], rule_packs=["fr-demo"])}
    assert "DE names a rule pack that is not in the terms" in refusal(replace(terms, jurisdictions=lost))
    contract = terms.datasets["sales_line"]
    assert "has a contract with another name" in refusal(replace(terms, datasets={"sales": contract}))
    with pytest.raises(ConfigError, match="CONTRACT_INVALID"):
        check_terms(replace(terms, datasets={"sales_line": replace(contract, columns=contract.columns[:1])}))


def test_names_that_would_not_survive_as_file_names_are_refused(made: MadeFederation) -> None:
    terms = made.federation.terms
    operator = Operator(organisation="X", jurisdiction="DE", identity=IdentityKey.generate().public.text)
    with pytest.raises(ConfigError, match="NAME_INVALID"):
        check_terms(replace(terms, operators={**terms.operators, "de__4": operator}))
    with pytest.raises(ConfigError, match="SCHEMA_INVALID"):
        check_terms(replace(terms, operators={**terms.operators, "../x": operator}))


# --- membership ---


def membership(made: MadeFederation, *, key: IdentityKey | None = None, **changes: object) -> Envelope:
    listed = replace(made.federation.membership, **changes)
    return Envelope.sign(MEMBERSHIP_TYPE, encode(listed), key or made.keys["authority"], Purpose.FEDERATION)


def test_a_membership_of_other_terms_is_refused(made: MadeFederation, folder: Path) -> None:
    (folder / "membership.dsse").write_bytes(membership(made, federation="0" * 64).to_bytes())
    with pytest.raises(ConfigError, match="MEMBERSHIP_FOREIGN"):
        Federation.load(folder)


@pytest.mark.parametrize("who", ["group-reporting", "de-1", "stranger"])
def test_only_the_authority_admits_owners(made: MadeFederation, folder: Path, who: str) -> None:
    key = made.keys.get(who) or IdentityKey.generate()
    (folder / "membership.dsse").write_bytes(membership(made, key=key, version=2).to_bytes())
    with pytest.raises(EvidenceError, match=r"SIGNATURE_INVALID.*no valid signature by authority"):
        Federation.load(folder)


def test_a_signature_of_the_authority_for_another_purpose_does_not_count(made: MadeFederation) -> None:
    payload = encode(made.federation.membership)
    envelope = Envelope.sign(MEMBERSHIP_TYPE, payload, made.keys["authority"], Purpose.NOTICE)
    with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
        made.federation.with_membership(envelope)


def test_owners_that_contradict_the_terms_are_refused(made: MadeFederation) -> None:
    owners = dict(made.federation.owners)
    nord = owners["de-nord"]
    key = next(iter(nord.approvers.values()))

    def refused(*, name: str = "de-nord", **changes: object) -> str:
        others = {other: owner for other, owner in owners.items() if other != "de-nord"}
        with pytest.raises(ConfigError) as info:
            made.federation.with_membership(membership(made, owners={**others, name: replace(nord, **changes)}))
        assert info.value.code == "FEDERATION_INVALID"
        assert info.value.ids["owner"] == name
        return info.value.what

    assert "not in a jurisdiction of its region" in refused(jurisdiction="CN")
    assert "not in a jurisdiction of its region" in refused(region="nowhere")
    for name in ("de-1", "nl-1", RECIPIENT, AUTHOR, "authority"):
        assert "has the name of another party" in refused(name=name)
    assert "more approvals than it has approvers" in refused(approvals_required=2)
    assert "one key for two approvers" in refused(approvers={"one": key, "two": key}, approvals_required=2)
    assert "one key for two signers" in refused(signers={"one": key, "two": key})


def test_an_owner_name_that_would_clash_with_dag_ids_is_refused(made: MadeFederation) -> None:
    owners = {"de__nord": made.federation.owners["de-nord"]}
    with pytest.raises(ConfigError, match="NAME_INVALID"):
        made.federation.with_membership(membership(made, owners=owners))


def test_a_membership_with_unknown_members_is_refused(made: MadeFederation) -> None:
    plain = to_plain(made.federation.membership) | {"note": ""}  # type: ignore[arg-type]
    envelope = Envelope.sign(MEMBERSHIP_TYPE, canonical_bytes(plain), made.keys["authority"], Purpose.FEDERATION)
    with pytest.raises(ConfigError, match=r"SCHEMA_INVALID.*unknown field `note`"):
        made.federation.with_membership(envelope)


def test_a_federation_without_owners_loads(made: MadeFederation, folder: Path) -> None:
    (folder / "membership.dsse").unlink()
    shutil.rmtree(folder / "directory")
    empty = Federation.load(folder)
    assert (dict(empty.owners), empty.membership_digest, dict(empty.directory)) == ({}, None, {})
    with pytest.raises(ConfigError, match=r"PARTY_UNKNOWN.*owner=de-nord"):
        empty.owner("de-nord")


# --- directory ---


def entry(made: MadeFederation, of: str = "de-1", /, *, key: IdentityKey | None = None, **changes: object) -> Envelope:
    changed = replace(made.federation.directory[of], **changes)
    return Envelope.sign(DIRECTORY_TYPE, encode(changed), key or made.keys[of], Purpose.DIRECTORY)


def put(folder: Path, envelope: Envelope, name: str = "de-1") -> Path:
    path = folder / "directory" / f"{name}.dsse"
    path.write_bytes(envelope.to_bytes())
    return path


@pytest.mark.parametrize(
    "pins", [[""], ["no certificate"], ["-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]]
)
def test_an_entry_whose_authority_is_no_certificate_is_refused_before_it_is_used(made, folder, pins) -> None:
    put(folder, entry(made, tls_cas=pins, version=2))
    with pytest.raises(ConfigError, match=r"CERTIFICATE_INVALID.*party=de-1"):
        Federation.load(folder)


def test_a_pin_is_one_certificate_and_no_more(made, folder) -> None:
    pem = pki.create_ca("de-1").certificate
    put(folder, entry(made, tls_cas=[pem + pem], version=2))
    with pytest.raises(ConfigError, match=r"CERTIFICATE_INVALID.*got 2"):
        Federation.load(folder)
    put(folder, entry(made, tls_cas=[pem], version=2))
    assert Federation.load(folder).entry("de-1").tls_cas == [pem]


def test_an_entry_for_other_terms_is_refused(made: MadeFederation, folder: Path) -> None:
    put(folder, entry(made, federation="0" * 64, version=2))
    with pytest.raises(ConfigError, match=r"DIRECTORY_FOREIGN.*party=de-1"):
        Federation.load(folder)


def test_an_entry_is_signed_by_its_own_party(made: MadeFederation, folder: Path) -> None:
    put(folder, entry(made, key=made.keys["de-2"], version=2))
    with pytest.raises(EvidenceError, match=r"SIGNATURE_INVALID.*no valid signature by de-1"):
        Federation.load(folder)
    put(folder, Envelope.sign(DIRECTORY_TYPE, entry(made).payload, made.keys["de-1"], Purpose.NOTICE))
    with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
        Federation.load(folder)


def test_an_entry_without_signature_or_with_an_altered_payload_is_refused(made: MadeFederation, folder: Path) -> None:
    good = entry(made, version=2, link="127.0.0.1:4001")
    bare = canonical_bytes({"payload": "e30=", "payloadType": DIRECTORY_TYPE, "signatures": []})
    (folder / "directory" / "de-1.dsse").write_bytes(bare)
    with pytest.raises(ConfigError, match=r"ENVELOPE_INVALID.*number of signatures"):
        Federation.load(folder)
    put(folder, Envelope(DIRECTORY_TYPE, good.payload.replace(b"4001", b"4002"), good.signatures))
    with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
        Federation.load(folder)


def test_an_entry_of_nobody_is_refused(made: MadeFederation, folder: Path) -> None:
    put(folder, entry(made, "de-1", party="de-9", key=made.keys["de-1"]), "de-9")
    with pytest.raises(ConfigError, match=r"PARTY_UNKNOWN.*party=de-9"):
        Federation.load(folder)


def test_an_old_entry_never_replaces_a_newer_one(made: MadeFederation) -> None:
    newer, older = entry(made, version=5, link="127.0.0.1:5"), entry(made, version=4, link="127.0.0.1:4")
    for order in ([newer, older], [older, newer]):
        found = made.federation.with_directory(order)
        assert found.entry("de-1").link == "127.0.0.1:5"
        assert found.envelopes["de-1"].digest == newer.digest
    again = entry(made, version=5, link="127.0.0.1:6")
    assert made.federation.with_directory([newer, again]).entry("de-1").link == "127.0.0.1:5"


def test_the_directory_digest_names_exactly_the_entries_in_use(made: MadeFederation) -> None:
    before = made.federation
    assert before.with_directory([entry(made)]).directory_digest == before.directory_digest
    assert before.with_directory([entry(made, version=2)]).directory_digest != before.directory_digest


def test_an_expired_entry_is_kept_but_not_used(made: MadeFederation) -> None:
    past = datetime.now(tz=UTC) - timedelta(days=200)
    old = directory_entry(made.federation, made.homes["de-1"], "de-1", 2, now=past)
    found = made.federation.with_directory([old])
    with pytest.raises(ConfigError, match=r"DIRECTORY_EXPIRED.*party=de-1.*Ask the party"):
        found.entry("de-1")
    early = directory_entry(made.federation, made.homes["de-1"], "de-1", 3, now=past + timedelta(days=300))
    with pytest.raises(ConfigError, match="DIRECTORY_EXPIRED"):
        found.with_directory([early]).entry("de-1")


def test_a_missing_entry_names_the_party(made: MadeFederation) -> None:
    bare = replace_directory(made.federation)
    with pytest.raises(ConfigError, match=r"DIRECTORY_MISSING.*party=nl-1"):
        bare.entry("nl-1")


def replace_directory(federation: Federation) -> Federation:
    return Federation(
        federation.terms, federation.digest, federation.rule_packs, federation.membership, federation.membership_digest
    )


# --- questions ---


def test_questions_about_strangers_are_refused(made: MadeFederation) -> None:
    federation = made.federation
    for ask in (federation.identity, federation.owner, federation.cluster, federation.jurisdiction_of):
        with pytest.raises(ConfigError, match="PARTY_UNKNOWN"):
            ask("stranger" * 100)


def test_what_the_folder_says_is_what_was_made(made: MadeFederation) -> None:
    federation = Federation.load(made.folder)
    for party in ("de-1", "nl-1", "de-nord", RECIPIENT, AUTHOR, "authority"):
        assert federation.identity(party) == made.keys[party].public
    assert federation.operators_of("cn-east") == ["cn-1", "cn-2", "cn-3"]
    assert federation.clusters_of("de-2") == {"de": 1}
    assert federation.clusters_of("sg-1") == {"group": 2}
    assert federation.region_of("de-nord")[0] == "de"
    assert [federation.jurisdiction_of(party) for party in ("de-1", "cn-east", RECIPIENT)] == ["DE", "CN", "NL"]
    assert federation.same_area("DE", "NL")
    assert federation.same_area("CN", "CN")
    assert not federation.same_area("CN", "SG")
    assert not federation.same_area("DE", "CH")
    assert isinstance(federation.membership, Membership)
    assert isinstance(federation.directory["de-1"], DirectoryEntry)
