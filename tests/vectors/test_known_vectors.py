"""Published answers of the primitives that everything stands on, from NIST, the RFCs and the KAT files of FIPS 203 and 204.

The engine takes these from `cryptography`. The vectors show that the installed library is the standard's primitive, and that
the independent re-implementations with which other tests check the engine's own streams are right too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.vectors.test_core_vectors import ctr, hkdf

KNOWN = json.loads((Path(__file__).parent / "known.json").read_text(encoding="utf-8"))["data"]


def cases(name: str):
    made = [
        {key: value if key in ("source", "length") else bytes.fromhex(value) for key, value in c.items()}
        for c in KNOWN[name]
    ]
    return pytest.mark.parametrize("case", made, ids=lambda case: case["source"])


@cases("aes_256_ctr")
def test_aes_256_ctr(case) -> None:
    cipher = Cipher(algorithms.AES(case["key"]), modes.CTR(case["counter"])).encryptor()
    assert cipher.update(case["plaintext"]) + cipher.finalize() == case["ciphertext"]
    start = int.from_bytes(case["counter"], "big")
    stream = ctr(case["key"], len(case["plaintext"]), start)
    assert bytes(a ^ b for a, b in zip(case["plaintext"], stream, strict=True)) == case["ciphertext"]


@cases("hkdf_sha_256")
def test_hkdf_sha_256(case) -> None:
    made = HKDF(algorithm=hashes.SHA256(), length=case["length"], salt=case["salt"], info=case["info"])
    assert made.derive(case["ikm"]) == case["okm"]
    if not case["salt"]:
        assert hkdf(case["ikm"], case["info"])[: case["length"]] == case["okm"][:32]


@cases("sha_256")
def test_sha_256(case) -> None:
    assert hashlib.sha256(case["message"]).digest() == case["digest"]


@cases("ml_kem_768")
def test_ml_kem_768(case) -> None:
    key = MLKEM768PrivateKey.from_seed_bytes(case["d"] + case["z"])
    assert key.public_key().public_bytes_raw() == case["public_key"]
    assert key.decapsulate(case["ciphertext"]) == case["shared_secret"]
    # A changed ciphertext gives another secret instead of an error: that is why the key agreement confirms its keys.
    assert key.decapsulate(case["rejected_ciphertext"]) == case["rejected_secret"]


@cases("ml_dsa_65")
def test_ml_dsa_65(case) -> None:
    assert MLDSA65PrivateKey.from_seed_bytes(case["xi"]).public_key().public_bytes_raw() == case["public_key"]
    key = MLDSA65PublicKey.from_public_bytes(case["public_key"])
    key.verify(case["signature"], case["message"], context=case["context"])
    for change in ({"message": case["message"] + b"."}, {"context": b"another"}, {"signature": bytes(3309)}):
        bent = {**case, **change}
        with pytest.raises(InvalidSignature):
            key.verify(bent["signature"], bent["message"], context=bent["context"])
