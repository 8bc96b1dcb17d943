"""A party's own authority: leaves name their party, pins decide, keys stay private."""

import datetime as dt
from dataclasses import replace

import pytest
from cryptography import x509

from mpc_ops.envelope.secrets import read_secret
from mpc_ops.errors import ConfigError
from mpc_ops.federation import pki


def parsed(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def test_an_authority_refuses_to_issue_for_another_party():
    ca = pki.create_ca("de-1")
    with pytest.raises(ConfigError) as caught:
        pki.issue_leaf(ca, "cn-1", ["127.0.0.1"])
    assert caught.value.code == "CERTIFICATE_FOREIGN"
    assert "expected de-1; got cn-1" in str(caught.value)


def test_a_leaf_forged_by_another_authority_is_not_issued_by_the_partys_pins():
    ours, theirs = pki.create_ca("de-1"), pki.create_ca("cn-1")
    forged = parsed(pki.issue_leaf(replace(theirs, party="de-1"), "de-1", []).certificate)
    assert pki.party_of(forged) == "de-1"
    assert not pki.issued_by(forged, [ours.certificate])
    assert pki.issued_by(forged, [theirs.certificate])


def test_two_pins_are_valid_at_once_while_an_authority_changes():
    old, new = pki.create_ca("de-1"), pki.create_ca("de-1")
    pins = [old.certificate, new.certificate]
    for ca in (old, new):
        assert pki.issued_by(parsed(pki.issue_leaf(ca, "de-1", []).certificate), pins)
    assert not pki.issued_by(parsed(pki.issue_leaf(pki.create_ca("de-1"), "de-1", []).certificate), pins)


def test_a_leaf_lives_ninety_days_and_never_longer_than_its_authority():
    start = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    ca = pki.create_ca("de-1", valid_days=30, now=start)
    leaf = parsed(pki.issue_leaf(ca, "de-1", ["de-1.example", "10.0.0.1"], now=start).certificate)
    assert leaf.not_valid_after_utc == start + dt.timedelta(days=30)
    ca = pki.create_ca("de-1", now=start)
    leaf = parsed(pki.issue_leaf(ca, "de-1", ["de-1.example", "10.0.0.1"], now=start).certificate)
    assert leaf.not_valid_after_utc == start + dt.timedelta(days=90)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["de-1.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["comity:party:de-1"]


@pytest.mark.parametrize("host", ["", "a b", "http://x", "*.example", "x" * 254, "é.example"])
def test_a_host_that_is_no_host_is_refused(host):
    with pytest.raises(ConfigError) as caught:
        pki.issue_leaf(pki.create_ca("de-1"), "de-1", [host])
    assert caught.value.code == "HOST_INVALID"


def test_a_name_that_is_no_party_is_refused():
    with pytest.raises(ConfigError) as caught:
        pki.create_ca("../de")
    assert caught.value.code == "NAME_INVALID"


def test_files_are_private_and_load_again(tmp_path):
    ca = pki.create_ca("de-1")
    ca.save(tmp_path)
    again = pki.CertificateAuthority.load(tmp_path)
    assert (again.party, again.certificate) == ("de-1", ca.certificate)
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    certificate, key = pki.issue_leaf(again, "de-1", ["127.0.0.1"]).save(tmp_path)
    assert pki.party_of(pki.load_certificate(certificate)) == "de-1"
    assert read_secret(key).startswith(b"-----BEGIN PRIVATE KEY")
    with pytest.raises(ConfigError) as caught:
        ca.save(tmp_path)
    assert caught.value.code == "SECRET_EXISTS"
    (tmp_path / "ca.key").chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        pki.CertificateAuthority.load(tmp_path)
    assert caught.value.code == "SECRET_PERMISSIONS"


def test_a_key_of_another_certificate_and_a_broken_certificate_are_named(tmp_path):
    pki.create_ca("de-1").save(tmp_path)
    pki.write_public(tmp_path / "ca.pem", pki.create_ca("de-1").certificate.encode())
    with pytest.raises(ConfigError) as caught:
        pki.CertificateAuthority.load(tmp_path)
    assert caught.value.code == "KEY_INVALID"
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(ConfigError) as caught:
        pki.CertificateAuthority.load(tmp_path)
    assert caught.value.code == "CERTIFICATE_INVALID"


def test_private_keys_are_in_no_repr():
    ca = pki.create_ca("de-1")
    leaf = pki.issue_leaf(ca, "de-1", [])
    ssh = pki.create_ssh_key()
    for text in (repr(ca), repr(leaf), repr(ssh)):
        assert "PRIVATE" not in text
        assert "key=" not in text


def test_ssh_keys_are_ed25519_in_openssh_form(tmp_path):
    key = pki.create_ssh_key()
    key.save(tmp_path / "host_key")
    assert (tmp_path / "host_key").read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY")
    assert (tmp_path / "host_key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "host_key.pub").read_text() == key.public + "\n"
    assert pki.ssh_fingerprint(key.public).startswith("SHA256:")


@pytest.mark.parametrize("line", ["", "ssh-ed25519", "ssh-rsa AAAA", "ssh-ed25519 !!!", "ssh-ed25519 AAAA"])
def test_a_line_that_is_no_ed25519_key_is_refused(line):
    with pytest.raises(ConfigError) as caught:
        pki.ssh_fingerprint(line)
    assert caught.value.code == "KEY_INVALID"
