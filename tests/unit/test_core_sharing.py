"""Sharing and parts: the reader refuses everything but the one part it expects."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from mpc_ops.errors import ComityError, LocalProtocolError, PeerProtocolError
from mpc_ops.ring import encode_signed
from mpc_ops.sharing import (
    Component,
    check_part,
    commitment,
    held_by,
    part_limit_bytes,
    parts_of,
    read_part,
    reconstruct,
    share,
    sharing_commitments,
    write_part,
)
from tests.support.core import filing

LANES = 5
VALUES = encode_signed([1, -2, 2**62, -(2**62), 0], -(2**62), 2**62)


@pytest.fixture(scope="module")
def sharing():
    return share(VALUES)


@pytest.fixture(scope="module")
def parts(sharing):
    return parts_of(sharing, filing())


def test_components_add_up_and_two_sharings_have_nothing_in_common(sharing):
    assert np.array_equal(reconstruct(sharing.components, LANES), VALUES)
    other = share(VALUES)
    assert not {part.body() for part in sharing.components} & {part.body() for part in other.components}
    assert not set(sharing.salts) & set(other.salts)


def test_party_i_holds_components_i_and_i_plus_1(parts, sharing):
    for part in parts:
        first, second = held_by(part.party)
        assert part.first is sharing.components[first]
        assert part.second is sharing.components[second]
    assert [(part.first.kind, part.second.kind) for part in parts] == [
        ("seed", "seed"), ("seed", "explicit"), ("explicit", "seed"),
    ]  # fmt: skip
    with pytest.raises(LocalProtocolError, match="PARTY_INVALID"):
        held_by(3)


@pytest.mark.parametrize("bad", [{}, {"seed": bytes(32), "explicit": VALUES}, {"seed": bytes(31)}])
def test_a_component_is_exactly_one_thing(bad):
    with pytest.raises(LocalProtocolError, match="COMPONENT_INVALID"):
        Component(**bad)


def test_components_do_not_change_and_do_not_print_themselves(sharing):
    explicit = sharing.components[2]
    with pytest.raises(ValueError, match="read-only"):
        explicit.expand(LANES)[0] = 1
    with pytest.raises(LocalProtocolError, match="RING_LENGTH"):
        explicit.expand(LANES + 1)
    assert repr(explicit) == "Component(explicit, <redacted>)"
    assert repr(sharing) == "OwnerSharing(lanes=5, <redacted>)"
    assert Component.from_body("explicit", explicit.body(), LANES).body() == explicit.body()
    with pytest.raises(LocalProtocolError, match="COMPONENT_INVALID"):
        reconstruct(sharing.components[:2], LANES)


def test_parts_survive_the_way_and_fit_their_commitments(parts, sharing):
    commitments = sharing_commitments(sharing, filing())
    assert len(set(commitments)) == 3
    for part in parts:
        data = write_part(part)
        assert len(data) <= part_limit_bytes(LANES)
        back = read_part(data, filing(), part.party, LANES)
        assert (back.first.body(), back.second.body(), back.salts) == (
            part.first.body(),
            part.second.body(),
            part.salts,
        )
        check_part(back, commitments)
        assert "redacted" in repr(back)


def test_upload_is_sixteen_bytes_per_value_in_total():
    big = share(np.zeros(100_000, dtype=np.uint64))
    sizes = [len(write_part(part)) for part in parts_of(big, filing())]
    assert sizes[0] < 4096
    assert sum(sizes) < 16 * 100_000 + 3 * 4096


def test_the_first_filing_is_not_this_one(parts):
    data = write_part(parts[1])
    for other in (filing(owner="de2"), filing(take=2), filing(edition=2), filing(period="2026-11")):
        with pytest.raises(PeerProtocolError) as caught:
            read_part(data, other, 1, LANES)
        assert caught.value.code == "PART_INVALID"
    for party, lanes in ((0, LANES), (2, LANES), (1, LANES + 1), (1, LANES - 1)):
        with pytest.raises(PeerProtocolError, match="PART_INVALID"):
            read_part(data, filing(), party, lanes)


@pytest.mark.parametrize("party", [0, 1, 2])
def test_cut_extended_and_flipped_parts_never_pass(parts, sharing, party):
    data = write_part(parts[party])
    commitments = sharing_commitments(sharing, filing())
    bad = [data[:size] for size in range(0, len(data), 37)] + [data + b"\0", data + data, b"", bytes(len(data))]
    bad += [bytes(part_limit_bytes(LANES) + 1)]
    for item in bad:
        with pytest.raises(PeerProtocolError, match="PART_INVALID"):
            read_part(item, filing(), party, LANES)
    meaningful = (parts[party].first.body(), parts[party].second.body(), parts[party].salts)
    codes = set()
    for place in range(len(data)):
        flipped = data[:place] + bytes([data[place] ^ 0x11]) + data[place + 1 :]
        try:
            back = read_part(flipped, filing(), party, LANES)
            check_part(back, commitments)
        except ComityError as error:
            codes.add(error.code)
        else:
            # Padding and unread Arrow fields: whatever is accepted means the same.
            assert (back.first.body(), back.second.body(), back.salts) == meaningful
    assert codes == {"PART_INVALID", "COMMITMENT_MISMATCH"}


def stream(schema, *batches):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def test_more_rows_fewer_rows_and_nulls_are_refused(parts):
    data = write_part(parts[0])
    with pa.ipc.open_stream(data) as reader:
        schema, batch = reader.schema, next(iter(reader))
    nulls = pa.record_batch([pa.array([None], type=field.type) for field in schema], schema=schema)
    for bad in (stream(schema), stream(schema, batch, batch), stream(schema, batch.slice(0, 0)), stream(schema, nulls)):
        with pytest.raises(PeerProtocolError, match="PART_INVALID"):
            read_part(bad, filing(), 0, LANES)


def test_another_schema_is_refused_even_with_the_same_numbers(parts):
    data = write_part(parts[0])
    with pa.ipc.open_stream(data) as reader:
        schema, batch = reader.schema, next(iter(reader))
    renamed = batch.rename_columns(["first", "second", "first_salt", "salt"])
    plain = schema.remove_metadata()
    for bad in (stream(renamed.schema, renamed), stream(plain, pa.record_batch(batch.columns, schema=plain))):
        with pytest.raises(PeerProtocolError, match="PART_INVALID"):
            read_part(bad, filing(), 0, LANES)


def test_a_part_with_other_contents_does_not_fit_its_commitments(parts, sharing):
    commitments = sharing_commitments(sharing, filing())
    other = parts_of(share(VALUES), filing())[1]
    for bad in (
        dataclasses.replace(parts[1], first=other.first),
        dataclasses.replace(parts[1], second=other.second),
        dataclasses.replace(parts[1], salts=(parts[1].salts[0], other.salts[1])),
        dataclasses.replace(parts[1], filing=filing(take=2)),
    ):
        with pytest.raises(PeerProtocolError) as caught:
            check_part(bad, commitments)
        assert caught.value.code == "COMMITMENT_MISMATCH"
        assert caught.value.ids["owner"] == "de1"
    with pytest.raises(PeerProtocolError, match="COMMITMENT_MISMATCH"):
        check_part(parts[1], commitments[:2])


def test_commitments_bind_salt_context_and_body_separately():
    salt = bytes(32)
    base = commitment(salt, ("a", 1), b"body")
    assert (
        len(
            {
                base,
                commitment(b"\1" * 32, ("a", 1), b"body"),
                commitment(salt, ("a", 2), b"body"),
                commitment(salt, ("a", 1), b"bodz"),
            }
        )
        == 4
    )
    with pytest.raises(LocalProtocolError, match="SALT_LENGTH"):
        commitment(b"short", ("a",), b"")


@pytest.mark.parametrize("lanes", [0, (1 << 24) + 1])
def test_parts_have_lanes(parts, lanes):
    with pytest.raises(LocalProtocolError, match="LANES_INVALID"):
        write_part(dataclasses.replace(parts[0], lanes=lanes))
