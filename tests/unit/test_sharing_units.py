"""Tables of units in parts: split by XOR, bound by the commitments, read back only within the plan's limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mpc_ops.errors import ComityError, LocalProtocolError, PeerProtocolError
from mpc_ops.ring import add, encode_signed
from mpc_ops.sharing import (
    NO_UNITS,
    Component,
    UnitLimits,
    UnitTables,
    check_part,
    expand_part,
    padded_rows,
    part_limit_bytes,
    parts_of,
    read_part,
    share,
    sharing_commitments,
    tables_of,
    unit_planes,
    write_part,
)
from tests.support.core import filing

VALUES = encode_signed([1, -2, 2**62, -(2**62), 0], -(2**62), 2**62)
LIMITS = UnitLimits(width=3, tables=2, max_rows=256)


def table(units, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (units, 3)).astype(bool)


PLANES = [unit_planes(table(70)), unit_planes(table(1, 1))]


@pytest.fixture(scope="module")
def sharing():
    return share(VALUES, planes=PLANES)


@pytest.fixture(scope="module")
def parts(sharing):
    return parts_of(sharing, filing())


@pytest.mark.parametrize("units", [0, 1, 63, 64, 65, 511, 512, 513, 1000, 1025, 10**5, 10**7])
def test_a_size_class_holds_the_units_and_is_at_most_an_eighth_larger(units):
    rows = padded_rows(units)
    assert rows % 64 == 0
    assert max(64, units) <= rows
    assert rows <= max(-(-units // 64), 1) * 64 * 9 // 8
    assert padded_rows(rows) == rows


def test_size_classes_are_few():
    assert len({padded_rows(units) for units in range(0, 10**6, 64)}) < 100


def test_a_plane_holds_one_bit_of_every_row_and_zeros_behind_them():
    rows = table(70)
    planes = unit_planes(rows)
    assert planes.shape == (3, 2)
    bits = np.unpackbits(planes.view(np.uint8), axis=1, bitorder="little").T.astype(bool)
    assert np.array_equal(bits[:70], rows)
    assert not bits[70:].any()
    assert not unit_planes(np.zeros((0, 3), bool)).any()


def test_values_add_up_and_tables_xor_to_what_was_split(parts):
    opened = [expand_part(part) for part in parts]
    firsts = [one.values[0] for one in opened]
    assert np.array_equal(add(add(firsts[0], firsts[1]), firsts[2]), VALUES)
    for number, planes in enumerate(PLANES):
        firsts = [one.tables[number][0] for one in opened]
        assert np.array_equal(firsts[0] ^ firsts[1] ^ firsts[2], planes)
        for party in range(3):
            assert np.array_equal(opened[party].tables[number][1], opened[(party + 1) % 3].tables[number][0])
            assert not np.array_equal(firsts[party], planes)
    assert "redacted" in repr(opened[0])


def test_parts_survive_the_way_and_fit_their_commitments(parts, sharing):
    commitments = sharing_commitments(sharing, filing())
    for part in parts:
        data = write_part(part)
        assert len(data) <= part_limit_bytes(len(VALUES), LIMITS)
        back = read_part(data, filing(), part.party, len(VALUES), LIMITS)
        assert back.units == UnitTables(3, (128, 64)) == tables_of(PLANES)
        assert (back.first.body(), back.second.body()) == (part.first.body(), part.second.body())
        check_part(back, commitments)


def test_a_filing_of_tables_alone_is_a_filing():
    only = share(VALUES[:0], planes=PLANES)
    part = parts_of(only, filing())[1]
    assert read_part(write_part(part), filing(), 1, 0, LIMITS).words == 3 * 3
    with pytest.raises(LocalProtocolError, match="LANES_INVALID"):
        write_part(parts_of(share(VALUES[:0]), filing())[1])


@pytest.mark.parametrize(
    "limits",
    [None, UnitLimits(4, 2, 256), UnitLimits(3, 1, 256), UnitLimits(3, 3, 256), UnitLimits(3, 2, 64)],
    ids=["none expected", "other width", "fewer slices", "more slices", "too many rows"],
)
@pytest.mark.parametrize("party", [0, 1])
def test_tables_that_the_plan_does_not_allow_are_refused(parts, party, limits):
    with pytest.raises(PeerProtocolError, match="PART_INVALID"):
        read_part(write_part(parts[party]), filing(), party, len(VALUES), limits)


@pytest.mark.parametrize("rows", [(128, 63), (128, 0), (64 * 17, 64), (128,), (128, 64, 64), (2**70, 64), ()])
def test_numbers_of_rows_that_are_no_size_class_are_refused(parts, rows):
    # Position 0 holds two seeds, which stretch over any number of rows.
    part = dataclasses.replace(parts[0], units=UnitTables(3, rows))
    with pytest.raises(ComityError) as caught:
        read_part(write_part(part), filing(), 0, len(VALUES), LIMITS)
    assert caught.value.code in {"PART_INVALID", "LANES_INVALID"}


def test_holders_who_are_told_different_numbers_of_rows_do_not_both_fit_the_commitments(parts, sharing):
    commitments = sharing_commitments(sharing, filing())
    other = dataclasses.replace(parts[0], units=UnitTables(3, (192, 64)))
    back = read_part(write_part(other), filing(), 0, len(VALUES), LIMITS)
    with pytest.raises(PeerProtocolError, match="COMMITMENT_MISMATCH"):
        check_part(back, commitments)


def test_cut_extended_and_flipped_parts_never_pass(parts, sharing):
    data = write_part(parts[1])
    commitments = sharing_commitments(sharing, filing())
    meaning = (parts[1].first.body(), parts[1].second.body(), parts[1].salts, parts[1].units)
    for bad in [data[:size] for size in range(0, len(data), 61)] + [data + b"\0", data + data]:
        with pytest.raises(PeerProtocolError, match="PART_INVALID"):
            read_part(bad, filing(), 1, len(VALUES), LIMITS)
    codes = set()
    for place in range(len(data)):
        flipped = data[:place] + bytes([data[place] ^ 0x11]) + data[place + 1 :]
        try:
            back = read_part(flipped, filing(), 1, len(VALUES), LIMITS)
            check_part(back, commitments)
        except ComityError as error:
            codes.add(error.code)
        else:
            assert (back.first.body(), back.second.body(), back.salts, back.units) == meaning
    assert codes <= {"PART_INVALID", "COMMITMENT_MISMATCH"}


def test_an_explicit_component_has_as_many_words_as_lanes_and_tables(parts):
    short = Component(explicit=parts[1].second.expand(parts[1].words)[:-1])
    with pytest.raises(LocalProtocolError, match="RING_LENGTH"):
        write_part(dataclasses.replace(parts[1], second=short))
    with pytest.raises(LocalProtocolError, match="PLANES_INVALID"):
        tables_of([PLANES[0], PLANES[0][:2]])
    with pytest.raises(LocalProtocolError, match="PLANES_INVALID"):
        UnitTables(3, (64,)).split(np.zeros(4, np.uint64))
    assert tables_of([]) == NO_UNITS


def test_parts_without_tables_are_as_they_were(sharing):
    plain = parts_of(share(VALUES), filing())[1]
    data = write_part(plain)
    assert b"rows" not in data
    assert read_part(data, filing(), 1, len(VALUES)).units == NO_UNITS
    with pytest.raises(PeerProtocolError, match="PART_INVALID"):
        read_part(data, filing(), 1, len(VALUES), LIMITS)
