"""Every kind of notice: only its own party's signature counts, and only its own form is read."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from mpc_ops.envelope.canonical import canonical_bytes
from mpc_ops.envelope.dsse import MAX_ENVELOPE_BYTES, Envelope
from mpc_ops.envelope.keys import IdentityKey, Purpose
from mpc_ops.envelope.schema import encode, to_plain
from mpc_ops.errors import ConfigError, EvidenceError
from mpc_ops.federation.assemble import membership
from mpc_ops.federation.cards import load_card
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.model import NOTICE_KINDS, Approval, Manifest, Notice, Reference, Release
from mpc_ops.notices.signed import SignedNotice, parse_notice, run_id_of, sign_notice, verify_notice
from tests.support.federation import RECIPIENT, MadeFederation, make_federation
from tests.support.notices import sample_notices

KINDS = sorted(NOTICE_KINDS)
replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeFederation:
    return make_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture(scope="module")
def samples(made: MadeFederation) -> dict[str, tuple[Notice, IdentityKey]]:
    return sample_notices(made)


def forged(kind: str, payload: bytes, key: IdentityKey, *, purpose: Purpose = Purpose.NOTICE) -> bytes:
    return Envelope.sign(f"application/vnd.comity.{kind}+json", payload, key, purpose).to_bytes()


def code_of(data: bytes) -> str:
    with pytest.raises(ConfigError) as info:
        parse_notice(data)
    return info.value.code


def test_there_is_a_sample_of_every_kind(samples: dict[str, tuple[Notice, IdentityKey]]) -> None:
    assert sorted(samples) == KINDS
    assert len(KINDS) == 18


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_it_survives_its_bytes_and_verifies(self, kind: str, made: MadeFederation, samples: dict) -> None:
        notice, key = samples[kind]
        signed = sign_notice(notice, key)
        parsed = parse_notice(signed.envelope.to_bytes())
        assert parsed.notice == notice
        assert (parsed.kind, parsed.digest) == (kind, signed.digest)
        assert parsed.signers == frozenset()
        found = verify_notice(parsed, made.federation)
        assert len(found.signers) == 1
        assert found.digest == hashlib.sha256(encode(notice)).hexdigest()

    def test_nobody_else_can_sign_it(self, kind: str, made: MadeFederation, samples: dict) -> None:
        notice, right = samples[kind]
        # Other parties of every sort, the authority, other people of the owner, and a stranger.
        others = {**made.keys, **made.people, "stranger": IdentityKey.generate()}
        wrong = [key for key in others.values() if key.public != right.public]
        assert len(wrong) == len(others) - 1
        one = sign_notice(notice, wrong[0], *wrong[1:])
        with pytest.raises(EvidenceError, match=f"SIGNATURE_INVALID: {kind} notice: no valid signature by") as info:
            verify_notice(parse_notice(one.envelope.to_bytes()), made.federation)
        assert info.value.ids["notice"] == one.digest[:16]

    def test_a_signature_for_another_purpose_is_none(self, kind: str, made: MadeFederation, samples: dict) -> None:
        notice, key = samples[kind]
        for purpose in Purpose:
            if purpose is not Purpose.NOTICE:
                signed = parse_notice(forged(kind, encode(notice), key, purpose=purpose))
                with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
                    verify_notice(signed, made.federation)

    def test_it_cannot_be_shown_as_another_kind(self, kind: str, samples: dict) -> None:
        notice, key = samples[kind]
        for other in KINDS:
            if other != kind:
                assert code_of(forged(other, encode(notice), key)) == "SCHEMA_INVALID"

    def test_unknown_missing_and_untagged_members_are_refused(self, kind: str, samples: dict) -> None:
        notice, key = samples[kind]
        plain = to_plain(notice)
        assert plain["kind"] == kind
        assert code_of(forged(kind, canonical_bytes(plain | {"note": "x"}), key)) == "SCHEMA_INVALID"
        for name in plain:
            if name not in {"late", "excluded", "pair", "code", "accepts_difference", "kind"}:
                lacking = {member: value for member, value in plain.items() if member != name}
                assert code_of(forged(kind, canonical_bytes(lacking), key)) == "SCHEMA_INVALID", name

    def test_a_party_of_another_federation_is_refused(self, kind: str, made: MadeFederation, samples: dict) -> None:
        notice, key = samples[kind]
        strangers = {
            name: "stranger"
            for name in ("author", "owner", "operator", "recipient", "party")
            if name in notice.__struct_fields__
        }
        assert strangers
        # A notice that names two parties is signed by one of them; the other is checked where it matters.
        for name in [name for name in strangers if (kind, name) != ("result", "recipient")]:
            signed = sign_notice(replace(notice, **{name: "stranger"}), key)
            with pytest.raises(ConfigError, match="PARTY_UNKNOWN"):
                verify_notice(signed, made.federation)

    def test_altered_bytes_never_verify(self, kind: str, made: MadeFederation, samples: dict) -> None:
        notice, key = samples[kind]
        envelope = sign_notice(notice, key).envelope
        payload = bytearray(envelope.payload)
        for place in range(0, len(payload), max(1, len(payload) // 9)):
            altered = bytearray(payload)
            altered[place] ^= 1
            data = Envelope(envelope.payload_type, bytes(altered), envelope.signatures).to_bytes()
            with pytest.raises((ConfigError, EvidenceError)):
                verify_notice(parse_notice(data), made.federation)


def test_an_unknown_kind_is_refused(made: MadeFederation) -> None:
    for kind in ("gossip", "RELEASE", "release ", ""):
        assert code_of(forged(kind, b"{}", made.keys["de-1"])) == "NOTICE_KIND"
    data = Envelope.sign("text/plain", b"{}", made.keys["de-1"], Purpose.NOTICE).to_bytes()
    assert code_of(data) == "NOTICE_KIND"


def test_a_payload_that_is_not_canonical_is_refused(made: MadeFederation, samples: dict) -> None:
    notice, key = samples["ack"]
    assert code_of(forged("ack", b" " + encode(notice), key)) == "JSON_INVALID"
    assert code_of(forged("ack", b"\xff", key)) == "JSON_INVALID"
    assert code_of(forged("ack", b"[]", key)) == "SCHEMA_INVALID"


def test_a_notice_is_at_most_one_mebibyte(made: MadeFederation, samples: dict) -> None:
    release, key = samples["release"]
    plan = release.plan + " " * (700_000 - len(release.plan))
    with pytest.raises(ConfigError, match=r"NOTICE_TOO_LONG.*kind=release"):
        sign_notice(replace(release, plan=plan, sql="x" * 100_000), key)
    assert code_of(b" " * (MAX_ENVELOPE_BYTES + 1)) == "ENVELOPE_INVALID"


def test_values_out_of_their_bounds_are_refused(samples: dict) -> None:
    for kind, changes in (
        ("filed", {"edition": 0}),
        ("filed", {"take": 10**6}),
        ("filed", {"gate_k": 0}),
        ("filed", {"kind_of": "all"}),
        ("filed", {"tie_out": "failed"}),
        ("filed", {"parts": [{"operator": "de-1", "sha256": "0" * 64, "size": 0}]}),
        ("filed", {"commitments": ["0" * 64] * 4}),
        ("filed", {"period": "2026/01"}),
        ("filed", {"owner": "../../etc"}),
        ("manifest", {"filings": []}),
        ("manifest", {"filings": ["x" * 64]}),
        ("manifest", {"give_up_at": "tomorrow"}),
        ("reopen", {"edition": 1}),
        ("rejected", {"code": "too late"}),
        ("state", {"state": "ACCEPTED"}),
        ("state", {"attempt": True}),
        ("result", {"commitments": [None, None]}),
        ("reference", {"rates": [{"period": "2026-01", "currency": "EUR", "avg_rate": "-1"}]}),
        ("reference", {"rates": [{"period": "2026-01", "currency": "EUR", "avg_rate": 1}]}),
        ("erased", {"what": []}),
        ("ack", {"created_at": "2026-02-01 00:00:00"}),
    ):
        notice, key = samples[kind]
        payload = canonical_bytes(to_plain(notice) | changes)
        assert code_of(forged(kind, payload, key)) == "SCHEMA_INVALID", (kind, changes)


def test_releases_and_reference_data_of_other_terms_are_foreign(made: MadeFederation, samples: dict) -> None:
    for kind in ("release", "reference"):
        notice, key = samples[kind]
        with pytest.raises(ConfigError, match="FEDERATION_FOREIGN"):
            verify_notice(sign_notice(replace(notice, federation="0" * 64), key), made.federation)


def test_the_group_operators_only_speak_for_themselves(made: MadeFederation, samples: dict) -> None:
    notice, _ = samples["result"]
    with pytest.raises(EvidenceError, match=r"result notice: no valid signature by nl-1"):
        verify_notice(sign_notice(notice, made.keys["ch-1"]), made.federation)


def two_approvers(made: MadeFederation, required: int) -> tuple[Federation, list[IdentityKey]]:
    keys = [made.approver("de-nord"), IdentityKey.generate()]
    cards = [load_card(made.homes[name] / "public.json") for name in made.owners]
    texts = {f"approver-{number}": key.public.text for number, key in enumerate(keys)}
    cards = [
        replace(card, approvers=texts, approvals_required=required) if card.name == "de-nord" else card
        for card in cards
    ]
    return made.federation.with_membership(membership(made.federation, cards, 2, made.keys["authority"])), keys


def test_as_many_approvers_sign_as_the_owner_requires(made: MadeFederation, samples: dict) -> None:
    approval: Approval = samples["approval"][0]
    federation, (one, two) = two_approvers(made, required=2)
    with pytest.raises(EvidenceError, match=r"SIGNATURE_INVALID: approval notice: no valid signature by approver-1"):
        verify_notice(sign_notice(approval, one), federation)
    # The same person twice is one person.
    with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
        verify_notice(sign_notice(approval, one, one), federation)
    assert verify_notice(sign_notice(approval, one, two), federation).signers == {"approver-0", "approver-1"}
    merged = sign_notice(approval, one).envelope.merge(sign_notice(approval, two).envelope)
    assert verify_notice(parse_notice(merged.to_bytes()), federation).signers == {"approver-0", "approver-1"}


def test_one_of_two_approvers_is_enough_where_the_owner_says_so(made: MadeFederation, samples: dict) -> None:
    federation, keys = two_approvers(made, required=1)
    for number, key in enumerate(keys):
        assert verify_notice(sign_notice(samples["approval"][0], key), federation).signers == {f"approver-{number}"}


def test_any_one_approver_withdraws(made: MadeFederation, samples: dict) -> None:
    federation, (_, two) = two_approvers(made, required=2)
    assert verify_notice(sign_notice(samples["withdrawal"][0], two), federation).signers == {"approver-1"}


def test_the_approver_of_one_owner_does_not_approve_for_another(made: MadeFederation, samples: dict) -> None:
    with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
        verify_notice(sign_notice(samples["approval"][0], made.approver("de-sued")), made.federation)


def test_the_run_id_is_of_the_manifests_payload_alone(made: MadeFederation, samples: dict) -> None:
    manifest, key = samples["manifest"]
    one, two = sign_notice(manifest, key), sign_notice(manifest, key)
    assert one.envelope.to_bytes() != two.envelope.to_bytes()
    assert run_id_of(one) == run_id_of(two) == run_id_of(parse_notice(two.envelope.to_bytes()))
    assert run_id_of(one) == hashlib.sha256(b"comity/run/v1" + encode(manifest)).hexdigest()
    assert run_id_of(one) != one.digest
    for changes in ({"edition": 2}, {"give_up_at": "2028-01-01T00:00:00Z"}, {"late": ["de-sued"]}):
        assert run_id_of(sign_notice(replace(manifest, **changes), key)) != run_id_of(one)


def test_only_a_manifest_has_a_run_id(samples: dict) -> None:
    for kind in KINDS:
        if kind != "manifest":
            with pytest.raises(ConfigError, match=f"NOTICE_KIND.*expected Manifest; got {kind}"):
                run_id_of(sign_notice(*samples[kind]))


def test_asking_for_another_kind_is_refused(samples: dict) -> None:
    signed = sign_notice(*samples["release"])
    assert signed.expect(Release) is signed.notice
    with pytest.raises(ConfigError, match=r"NOTICE_KIND.*expected Reference; got release"):
        signed.expect(Reference)
    assert isinstance(sign_notice(*samples["manifest"]).expect(Manifest), Manifest)
    assert isinstance(signed, SignedNotice)


def test_a_recipient_named_in_a_result_does_not_matter_to_its_signature(made: MadeFederation, samples: dict) -> None:
    notice, key = samples["result"]
    assert verify_notice(sign_notice(notice, key), made.federation).signers == {"nl-1"}
    assert notice.recipient == RECIPIENT
