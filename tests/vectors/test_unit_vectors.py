"""Parts with tables of units against their published vectors; components, commitments and streams by independent code too."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc_ops.errors import PeerProtocolError
from mpc_ops.randomness import encode_context
from mpc_ops.sharing import (
    FilingContext,
    UnitLimits,
    check_part,
    expand_part,
    padded_rows,
    read_part,
    share,
    sharing_commitments,
    unit_planes,
    write_part,
)


def load():
    loaded = json.loads((Path(__file__).parent / "core_units.json").read_text(encoding="utf-8"))
    assert (loaded["schema"], loaded["version"]) == ("comity/vectors/units", 1)
    return loaded["data"]


DATA = load()
LANES, WIDTH = len(DATA["values"]), DATA["limits"]["width"]
WORDS = LANES + WIDTH * sum(rows // 64 for rows in DATA["rows"])
HELD = ((0, 1), (1, 2), (2, 0))


def context_of(filing):
    return FilingContext(
        plan_digest=filing["plan"], period=filing["period"], owner=filing["owner"], edition=filing["edition"],
        take=filing["take"],
    )  # fmt: skip


def received(party, data, expects=None):
    """Read a part as its operator does, and hold it against what the owner signed."""
    known = {name: DATA[name] for name in ("filing", "limits", "commitments")} | {"lanes": LANES} | (expects or {})
    limits = None if known["limits"] is None else UnitLimits(**known["limits"])
    part = read_part(data, context_of(known["filing"]), party, known["lanes"], limits)
    check_part(part, known["commitments"])
    return part


def stream(seed):
    """The words of a seed: HKDF-SHA-256, then AES-256 in counter mode."""
    info = encode_context("comity/derive/v1", "expand", "component")
    key = hmac.digest(hmac.digest(bytes(32), seed, "sha256"), info + b"\1", "sha256")
    blocks = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the building block of CTR
    text = b"".join(blocks.update(number.to_bytes(16, "big")) for number in range(WORDS // 2 + 1))
    return np.frombuffer(text[: 8 * WORDS], "<u8")


def components():
    explicit = np.frombuffer(bytes.fromhex(DATA["explicit"]), "<u8")
    return [*(stream(bytes.fromhex(seed)) for seed in DATA["seeds"]), explicit]


def words(text):
    return np.frombuffer(bytes.fromhex(text), "<u8")


def test_components_add_and_xor_to_what_the_owner_has():
    one, two, three = components()
    assert len(three) == WORDS
    assert (one[:LANES] + two[:LANES] + three[:LANES]).astype(np.int64).tolist() == [int(v) for v in DATA["values"]]
    bits, start = (one ^ two ^ three)[LANES:], 0
    for rows, padded in zip(DATA["tables"], DATA["rows"], strict=True):
        planes = bits[start : start + WIDTH * padded // 64].reshape(WIDTH, -1)
        start += planes.size
        found = np.unpackbits(planes.view(np.uint8), axis=1, bitorder="little").T
        assert ["".join(map(str, row)) for row in found[: len(rows)].tolist()] == rows
        assert not found[len(rows) :].any()
    assert start == len(bits)


def test_what_each_operator_reads_is_what_it_should_hold():
    whole = components()
    for party, expected in enumerate(DATA["read"]):
        part = received(party, bytes.fromhex(DATA["parts"][party]))
        assert (part.party, list(part.units.rows), part.units.width) == (party, DATA["rows"], WIDTH)
        assert (
            [salt.hex() for salt in part.salts] == [DATA["salts"][index] for index in HELD[party]] == expected["salts"]
        )
        full = expand_part(part)
        for side, index in enumerate(HELD[party]):
            assert np.array_equal(full.values[side], words(expected["values"][side]))
            assert np.array_equal(full.values[side], whole[index][:LANES])
            mine = [words(table[side]) for table in expected["tables"]]
            assert [np.array_equal(a[side].reshape(-1), b) for a, b in zip(full.tables, mine, strict=True)] == [
                True
            ] * 2
            assert np.array_equal(np.concatenate(mine), whole[index][LANES:])


def test_streams_hold_one_row_of_bodies_and_salts_and_say_whose_they_are():
    bodies = [bytes.fromhex(body) for body in (*DATA["seeds"], DATA["explicit"])]
    for party, data in enumerate(DATA["parts"]):
        with pa.ipc.open_stream(pa.BufferReader(bytes.fromhex(data))) as reader:
            (batch,) = list(reader)
        (row,) = batch.to_pylist()
        for name, index in zip(("first", "second"), HELD[party], strict=True):
            body = row[name] if index < 2 else np.array(row[name], "<u8").tobytes()
            assert body == bodies[index]
            assert row[f"{name}_salt"].hex() == DATA["salts"][index]
        said = {key.decode(): value.decode() for key, value in batch.schema.metadata.items()}
        filing = {name: str(value) for name, value in DATA["filing"].items()}
        rows = ",".join(map(str, DATA["rows"]))
        shape = {"party": str(party), "lanes": str(LANES), "width": str(WIDTH), "rows": rows}
        assert said == {"format": "comity/part/v1", **filing, **shape}


def test_commitments_bind_salt_filing_place_and_shape():
    filing = DATA["filing"]
    bodies = (*DATA["seeds"], DATA["explicit"])
    for index, (kind, body) in enumerate(zip(("seed", "seed", "explicit"), bodies, strict=True)):
        context = encode_context(
            "filing", filing["plan"], filing["period"], filing["owner"], filing["edition"], filing["take"],
            "component", index, kind, "units", WIDTH, *DATA["rows"],
        )  # fmt: skip
        salt = bytes.fromhex(DATA["salts"][index])
        text = b"comity/commit/v1" + salt + len(context).to_bytes(8, "big") + context + bytes.fromhex(body)
        assert hashlib.sha256(text).hexdigest() == DATA["commitments"][index]


def test_a_writer_given_the_seeds_makes_these_parts():
    texts = iter([*DATA["seeds"], *DATA["salts"]])
    planes = [unit_planes(np.array([[bit == "1" for bit in row] for row in rows])) for rows in DATA["tables"]]
    values = np.array([int(value) for value in DATA["values"]], np.int64).view(np.uint64)
    made = share(values, lambda size: bytes.fromhex(next(texts))[:size], planes=planes)
    assert list(sharing_commitments(made, context_of(DATA["filing"]))) == DATA["commitments"]
    for party, data in enumerate(DATA["parts"]):
        again = write_part(received(party, bytes.fromhex(data)))
        assert again.hex() == data


@pytest.mark.parametrize("case", DATA["classes"], ids=lambda case: str(case["units"]))
def test_size_classes(case):
    assert padded_rows(case["units"]) == case["rows"]


@pytest.mark.parametrize("case", DATA["bad"], ids=lambda case: case["what"])
def test_bad_parts(case):
    with pytest.raises(PeerProtocolError) as caught:
        received(case["party"], bytes.fromhex(case["part"]), case["expects"])
    assert caught.value.code == case["code"]
    assert caught.value.ids.get("component") == case.get("component")
    assert caught.value.ids["owner"] == (case["expects"].get("filing") or DATA["filing"])["owner"]


def test_bad_cases_show_every_way_of_being_bad():
    names = [case["what"] for case in DATA["bad"]]
    assert len(set(names)) == len(names)
    assert {(case["party"], case["code"]) for case in DATA["bad"]} == {
        (party, code) for party in range(3) for code in ("PART_INVALID", "COMMITMENT_MISMATCH")
    }
