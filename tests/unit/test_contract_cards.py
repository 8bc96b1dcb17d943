import pytest

from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.schema import encode
from mpc_ops.errors import ConfigError
from mpc_ops.federation.assemble import add_directory, assemble_federation
from mpc_ops.federation.cards import create_party, directory_entry, load_card
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.pki import load_certificate
from mpc_ops.notices.signed import verify_notice
from mpc_ops.plan.layout import lane_count
from mpc_ops.plan.model import load_plan
from tests.support.federation import (
    DEMO,
    DEMO_FOLDER,
    make_approval,
    make_federation,
    make_plan,
    make_reference,
    make_release,
)  # fmt: skip


def test_demo_size_federation_is_complete(tmp_path):
    made = make_federation(tmp_path, DEMO)
    federation = Federation.load(made.folder)
    assert federation.digest == made.federation.digest
    assert sorted(federation.owners) == sorted(name for owners in DEMO.values() for name in owners)
    entry = federation.entry("de-1")
    assert entry.tls_cas[0].startswith("-----BEGIN CERTIFICATE-----")
    assert entry.ssh_host_keys[0].startswith("ssh-ed25519 ")
    assert entry.sealing_key == made.sealing["de-1"].public.text
    assert federation.entry("de-nord").ssh_keys
    assert federation.entry("de-nord").sealing_key is None
    plan = make_plan(federation)
    assert load_plan(encode(plan)) == plan
    assert lane_count(plan) == 8 * 31 + 2 * 37
    verify_notice(make_release(made, plan), federation)
    verify_notice(make_approval(made, plan, "sa-gulf"), federation)
    verify_notice(make_reference(made), federation)


def test_keys_of_an_operator_are_private_and_never_overwritten(tmp_path):
    card = create_party("operator", "de-1", tmp_path, jurisdiction="DE")
    assert load_card(tmp_path / "public.json") == card
    secrets = ["identity.pem", "sealing.key", "tls/ca.key", "tls/leaf.key", "ssh_host_ed25519"]
    for name in secrets:
        assert (tmp_path / "keys" / name).stat().st_mode & 0o777 == 0o600
    load_certificate(tmp_path / "keys" / "tls" / "leaf.pem")
    with pytest.raises(ConfigError, match="SECRET_EXISTS"):
        create_party("operator", "de-1", tmp_path, jurisdiction="DE")


@pytest.mark.parametrize(
    ("kind", "more", "why"),
    [
        ("operator", {}, "needs a jurisdiction"),
        ("owner", {"jurisdiction": "DE"}, "needs a region and a currency"),
        ("owner", {"jurisdiction": "DE", "region": "de", "currency": "EUR"}, "needs approvers"),
        ("author", {"region": "de"}, "only an owner"),
    ],
)
def test_incomplete_cards_are_refused_before_any_key_is_written(tmp_path, kind, more, why):
    with pytest.raises(ConfigError, match=f"CARD_INVALID.*{why}"):
        create_party(kind, "p-1", tmp_path, **more)
    assert not list(tmp_path.rglob("*.pem"))


def test_card_with_unknown_member_is_refused(tmp_path):
    create_party("author", "a-1", tmp_path)
    data = (tmp_path / "public.json").read_bytes()
    (tmp_path / "public.json").write_bytes(data.replace(b'{"', b'{"aa":1,"', 1))
    with pytest.raises(ConfigError, match="SCHEMA_INVALID"):
        load_card(tmp_path / "public.json")


def test_assembly_names_missing_and_unexpected_cards(tmp_path):
    key = IdentityKey.generate()
    with pytest.raises(ConfigError, match=r"CARD_MISSING.*de-1 \(operator\)"):
        assemble_federation(DEMO_FOLDER / "federation.toml", [], tmp_path / "out", key)
    create_party("operator", "xx-9", tmp_path / "x", jurisdiction="DE")
    with pytest.raises(ConfigError, match=r"CARD_UNEXPECTED.*xx-9"):
        assemble_federation(DEMO_FOLDER / "federation.toml", [tmp_path / "x" / "public.json"], tmp_path / "out", key)


def test_a_toml_error_names_the_file_and_an_unknown_member_is_refused(tmp_path):
    path = tmp_path / "federation.toml"
    path.write_text("name = ")
    with pytest.raises(ConfigError, match=r"TOML_INVALID.*federation\.toml"):
        assemble_federation(path, [], tmp_path / "out", IdentityKey.generate())
    path.write_text((DEMO_FOLDER / "federation.toml").read_text() + "\n[surprise]\n")
    with pytest.raises(ConfigError, match="SCHEMA_INVALID"):
        assemble_federation(path, [], tmp_path / "out", IdentityKey.generate())


def test_directory_entries_replace_older_ones_only(tmp_path):
    made = make_federation(tmp_path)
    newer = directory_entry(made.federation, made.homes["de-1"], "de-1", 2, link="127.0.0.1:4711")
    assert add_directory(made.folder, [newer]).entry("de-1").link == "127.0.0.1:4711"
    add_directory(made.folder, [newer])
    older = directory_entry(made.federation, made.homes["de-1"], "de-1", 1, link="127.0.0.1:1")
    with pytest.raises(ConfigError, match="DIRECTORY_OLDER"):
        add_directory(made.folder, [older])
    with pytest.raises(ConfigError, match="KEY_FOREIGN"):
        directory_entry(made.federation, made.homes["de-2"], "de-1", 3)
