"""Ring vectors: types are never converted silently, bounds are declared, bytes have exact lengths."""

from __future__ import annotations

import numpy as np
import pytest

from mpc_ops.errors import Abort, LocalDataError, LocalProtocolError, PeerProtocolError
from mpc_ops.ring import (
    BLOCK_LANES,
    add,
    add_into,
    check_ring,
    decode_signed,
    encode_signed,
    from_bytes,
    negate,
    sub,
    to_bytes,
    zeros,
)


@pytest.mark.parametrize(
    "bad",
    [
        [1, 2],
        np.array([1, 2], dtype=np.int64),
        np.array([1.0]),
        np.zeros((2, 2), dtype=np.uint64),
        np.zeros(8, dtype=np.uint64)[::2],
        np.zeros(2, dtype=np.uint32),
    ],
    ids=["list", "signed", "float", "matrix", "strided", "narrow"],
)
def test_what_is_not_a_ring_vector_is_refused_not_converted(bad):
    with pytest.raises(LocalProtocolError) as caught:
        check_ring(bad)
    assert caught.value.code == "RING_TYPE"


def test_lengths_must_match():
    with pytest.raises(LocalProtocolError) as caught:
        add(zeros(2), zeros(3))
    assert caught.value.code == "RING_LENGTH"


def test_arithmetic_wraps_in_every_block():
    lanes = 2 * BLOCK_LANES + 5
    ones = np.full(lanes, 2**64 - 1, dtype=np.uint64)
    assert not add(ones, np.ones(lanes, dtype=np.uint64)).any()
    assert np.array_equal(sub(zeros(lanes), np.ones(lanes, dtype=np.uint64)), ones)
    assert np.array_equal(negate(ones), np.ones(lanes, dtype=np.uint64))


def test_add_into_works_in_place_and_add_leaves_its_operands():
    left, right = np.array([1, 2], dtype=np.uint64), np.array([3, 4], dtype=np.uint64)
    assert add(left, right).tolist() == [4, 6]
    assert left.tolist() == [1, 2]
    view = left[:]
    add_into(left, right)
    assert view.tolist() == [4, 6]


@pytest.mark.parametrize("value", [-(2**63), -(2**62), -1, 0, 1, 2**62, 2**63 - 1])
def test_encoding_at_the_edges(value):
    encoded = encode_signed([value], -(2**63), 2**63 - 1)
    assert encoded.tolist() == [value % 2**64]
    assert decode_signed(encoded, -(2**63), 2**63 - 1).tolist() == [value]
    array = np.array([value], dtype=np.int64)
    assert np.array_equal(encode_signed(array, value, value), encoded)


@pytest.mark.parametrize("values", [[0, 11], [0, -11], [0, 2**63], [0, 2**200]])
def test_value_out_of_range_names_the_lane_and_never_the_value(values):
    with pytest.raises(LocalDataError) as caught:
        encode_signed(values, -10, 10)
    assert caught.value.code == "VALUE_OUT_OF_RANGE"
    assert caught.value.ids == {"lane": "1"}
    assert str(values[1]) not in str(caught.value).replace("-10 to 10", "")


def test_array_out_of_range_and_wrong_dtype():
    with pytest.raises(LocalDataError, match="VALUE_OUT_OF_RANGE"):
        encode_signed(np.array([5, 12], dtype=np.int64), -10, 10)
    with pytest.raises(LocalDataError, match="VALUE_TYPE"):
        encode_signed(np.array([5.0]), -10, 10)


def test_decoding_outside_the_proven_bounds_aborts():
    with pytest.raises(Abort) as caught:
        decode_signed(encode_signed([0, 7, -7], -10, 10), -5, 5)
    assert (caught.value.code, caught.value.ids) == ("VALUE_OUT_OF_RANGE", {"lane": "1", "lanes_outside": "2"})


@pytest.mark.parametrize(("low", "high"), [(1, 0), (-(2**63) - 1, 0), (0, 2**63)])
def test_bounds_must_be_ordered_and_fit(low, high):
    with pytest.raises(LocalDataError, match="BOUNDS_INVALID"):
        encode_signed([0], low, high)


def test_bytes_are_little_endian_exact_and_give_a_writable_copy():
    values = np.array([1, 2**63], dtype=np.uint64)
    data = to_bytes(values)
    assert data == b"\1" + bytes(7) + bytes(7) + b"\x80"
    back = from_bytes(data, 2)
    back[0] = 9
    assert to_bytes(values) == data
    for bad in (data[:-1], data + b"\0", b""):
        with pytest.raises(PeerProtocolError) as caught:
            from_bytes(bad, 2)
        assert caught.value.code == "LENGTH_INVALID"
