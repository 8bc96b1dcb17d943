"""Identity keys, signed envelopes and sealed boxes: every altered byte is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpc_ops.envelope.dsse import Envelope, pae
from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey, Purpose
from mpc_ops.envelope.sealing import OVERHEAD_BYTES, SealingKey, SealingPublicKey
from mpc_ops.envelope.secrets import read_secret, write_secret
from mpc_ops.errors import ConfigError, EvidenceError, PeerProtocolError

KEY = IdentityKey.generate()
OTHER = IdentityKey.generate()


def test_pae_is_the_one_of_the_dsse_specification() -> None:
    assert (
        pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_an_envelope_survives_its_bytes_and_names_its_signers() -> None:
    envelope = Envelope.sign("text/plain", b"hello", KEY, Purpose.NOTICE).add_signature(OTHER, Purpose.NOTICE)
    parsed = Envelope.parse(envelope.to_bytes())
    assert parsed.require({"a": KEY.public, "b": OTHER.public}, Purpose.NOTICE) == {"a", "b"}
    assert parsed.digest == envelope.digest


def test_two_signatures_over_one_payload_keep_its_name() -> None:
    one = Envelope.sign("text/plain", b"hello", KEY, Purpose.NOTICE)
    two = Envelope.sign("text/plain", b"hello", KEY, Purpose.NOTICE)
    assert one.to_bytes() != two.to_bytes()
    assert one.digest == two.digest


def test_a_signature_for_another_purpose_does_not_count() -> None:
    envelope = Envelope.sign("text/plain", b"hello", KEY, Purpose.SIGN_OFF)
    with pytest.raises(EvidenceError, match=r"SIGNATURE_INVALID.*no valid signature by a"):
        envelope.require({"a": KEY.public}, Purpose.NOTICE)


def test_a_payload_type_cannot_be_swapped() -> None:
    envelope = Envelope.sign("text/plain", b"hello", KEY, Purpose.NOTICE)
    swapped = Envelope("text/html", envelope.payload, envelope.signatures)
    assert swapped.signers({"a": KEY.public}, Purpose.NOTICE) == frozenset()


def test_no_key_at_all_is_never_enough() -> None:
    with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
        Envelope.sign("text/plain", b"hello", KEY, Purpose.NOTICE).require({}, Purpose.NOTICE)


def test_every_flipped_byte_of_an_envelope_is_noticed() -> None:
    data = Envelope.sign("text/plain", b"hello", KEY, Purpose.NOTICE).to_bytes()
    accepted = 0
    for place in range(0, len(data), 7):
        altered = bytearray(data)
        altered[place] ^= 1
        try:
            envelope = Envelope.parse(bytes(altered))
            envelope.require({"a": KEY.public}, Purpose.NOTICE)
        except (ConfigError, EvidenceError):
            continue
        # Only the key hint may differ: it is not signed and never trusted.
        assert envelope.signatures[0][0] != KEY.public.fingerprint
        accepted += 1
    assert accepted <= 32


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b"x",
        b'{"payload":"","payloadType":"t","signatures":[]}',
        b'{"payload":"*","payloadType":"t","signatures":[{"keyid":"","sig":""}]}',
    ],
)
def test_malformed_envelopes_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="ENVELOPE_INVALID"):
        Envelope.parse(data)


def test_keys_are_kept_in_private_files_and_never_printed(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "identity.pem"
    KEY.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert IdentityKey.load(path).public == KEY.public
    assert "redacted" in repr(KEY)
    with pytest.raises(ConfigError, match="SECRET_EXISTS"):
        OTHER.save(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"SECRET_PERMISSIONS.*chmod 600"):
        IdentityKey.load(path)


def test_secret_files_are_not_followed_through_links(tmp_path: Path) -> None:
    write_secret(tmp_path / "real", b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="SECRET_MISSING"):
        read_secret(tmp_path / "link")


@pytest.mark.parametrize("text", ["", "AAAA", "*" * 200, "A" * 2604])
def test_texts_that_are_not_public_keys_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="KEY_INVALID"):
        IdentityPublicKey.from_text(text)


def test_a_sealed_box_opens_only_with_its_key_and_context(tmp_path: Path) -> None:
    key = SealingKey.generate()
    key.save(tmp_path / "sealing.key")
    box = SealingPublicKey.from_text(key.public.text).seal(b"share", b"context")
    assert len(box) == len(b"share") + OVERHEAD_BYTES
    assert SealingKey.load(tmp_path / "sealing.key").open(box, b"context") == b"share"
    for wrong_key, wrong_box, info in (
        (SealingKey.generate(), box, b"context"),
        (key, box, b"other"),
        (key, box[:-1], b"context"),
        (key, b"", b"context"),
        (key, box[:-1] + bytes([box[-1] ^ 1]), b"context"),
        (key, bytes([box[0] ^ 1]) + box[1:], b"context"),
    ):
        with pytest.raises(PeerProtocolError, match="SEAL_BROKEN"):
            wrong_key.open(wrong_box, info)
    assert "redacted" in repr(key)
