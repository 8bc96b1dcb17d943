"""The core against its published vectors, and derivation and expansion against independent re-implementations."""

from __future__ import annotations

import hmac
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc_ops.errors import ComityError
from mpc_ops.protocol.sums import combine_parts, open_crossing
from mpc_ops.randomness import derive, encode_context, expand
from mpc_ops.ring import encode_signed, from_bytes, to_bytes
from mpc_ops.sharing import Component, commitment, reconstruct
from tests.vectors.make_vectors import HERE, RESULT, ROUTE


def load(name):
    loaded = json.loads((Path(HERE) / f"core_{name}.json").read_text(encoding="utf-8"))
    assert (loaded["schema"], loaded["version"]) == (f"comity/vectors/{name}", 1)
    return loaded["data"]


def test_vectors_are_current():
    done = subprocess.run([sys.executable, HERE / "make_vectors.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_contexts():
    read = {"str": str, "int": int, "bytes": bytes.fromhex}
    for case in load("contexts"):
        items = [read[kind](value) for item in case["items"] for kind, value in item.items()]
        assert encode_context(*items).hex() == case["encoded"]


def hkdf(key, info):
    """RFC 5869 with an empty salt and one block of output."""
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\1", "sha256")


def ctr(key, size, start=0):
    """SP 800-38A CTR from a counter, block by block."""
    blocks = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the building block of CTR
    numbers = range(start, start + size // 16 + 1)
    return b"".join(blocks.update((number % (1 << 128)).to_bytes(16, "big")) for number in numbers)[:size]


def test_derivation_is_hkdf_sha_256():
    for case in load("streams")["derive"]:
        key = bytes.fromhex(case["key"])
        info = encode_context("comity/derive/v1", *case["context"])
        assert derive(key, *case["context"]).hex() == case["output"] == hkdf(key, info).hex()


def test_expansion_is_aes_256_ctr():
    for case in load("streams")["expand"]:
        seed = bytes.fromhex(case["seed"])
        stream = expand(seed, case["lanes"], *case["context"])
        key = derive(seed, "expand", *case["context"])
        assert to_bytes(stream).hex() == case["output"] == ctr(key, 8 * case["lanes"]).hex()


def test_sharing_and_commitments():
    data = load("sharing")
    values = encode_signed([int(value) for value in data["values"]], -(2**62), 2**62)
    bodies = [*map(bytes.fromhex, data["seeds"]), bytes.fromhex(data["explicit"])]
    kinds = ("seed", "seed", "explicit")
    components = [Component.from_body(kind, body, len(values)) for kind, body in zip(kinds, bodies, strict=True)]
    assert np.array_equal(reconstruct(components, len(values)), values)
    filing = data["filing"]
    for index, (kind, body) in enumerate(zip(kinds, bodies, strict=True)):
        context = (
            "filing",
            filing["plan"],
            filing["period"],
            filing["owner"],
            filing["edition"],
            filing["take"],
            "component",
            index,
            kind,
        )
        assert commitment(bytes.fromhex(data["salts"][index]), context, body) == data["commitments"][index]


def flip(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def frames_to(data, receiver):
    return {sender: bytes.fromhex(data["frames"][sender][receiver]) for sender in range(3)}


def test_crossing():
    data = load("crossing")
    values = [int(value) for value in load("sharing")["values"]]
    total = np.zeros(len(values), dtype=np.uint64)
    for receiver in range(3):
        share = open_crossing(frames_to(data, receiver), ROUTE, receiver)
        assert to_bytes(share.first).hex() == data["components"][receiver]
        total += share.first
    assert np.array_equal(total, encode_signed(values, -(2**62), 2**62))


@pytest.mark.parametrize("case", load("crossing")["bad_frames"], ids=lambda case: case["what"])
def test_bad_crossing(case):
    frames = frames_to(load("crossing"), case["receiver"])
    frames[case["sender"]] = flip(frames[case["sender"]], case["byte"])
    with pytest.raises(ComityError) as caught:
        open_crossing(frames, ROUTE, case["receiver"])
    assert caught.value.code == case["code"]
    assert caught.value.ids.get("pair") == case.get("pair")


def test_result():
    data = load("result")
    parts = {party: bytes.fromhex(part) for party, part in enumerate(data["parts"])}
    vector = combine_parts(RESULT, parts, dict(enumerate(data["commitments"])))
    values = [int(value) for value in load("sharing")["values"]]
    assert np.array_equal(vector, encode_signed(values, -(2**62), 2**62))
    assert to_bytes(from_bytes(to_bytes(vector), len(values))) == to_bytes(vector)


@pytest.mark.parametrize("case", load("result")["bad_parts"], ids=lambda case: case["what"])
def test_bad_result(case):
    data = load("result")
    parts = {party: bytes.fromhex(part) for party, part in enumerate(data["parts"])}
    parts[case["party"]] = flip(parts[case["party"]], case["byte"])
    with pytest.raises(ComityError) as caught:
        combine_parts(RESULT, parts, dict(enumerate(data["commitments"])))
    assert caught.value.code == case["code"]
    assert caught.value.ids.get("pair") == case.get("pair")
