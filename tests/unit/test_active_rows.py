"""Shared tables: rows are picked, cut and stacked locally; what does not fit is refused."""

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.core.rows import Rows, pick_rows, stack, stack_columns
from mpc_ops.protocol.core.shares import BooleanShare, concat
from mpc_ops.ring.planes import from_planes
from tests.support.active import share_bits, share_ring

COUNTS = (0, 1, 63, 64, 65, 130)


def table(values, amounts, width=9):
    bits, ring = share_bits(values, width), share_ring(amounts)
    return [Rows({"key": bits[party], "amount": ring[party]}) for party in range(3)]


def plain(columns):
    head = columns[0]
    if isinstance(head, BooleanShare):
        planes = columns[0].first ^ columns[1].first ^ columns[2].first
        return from_planes(planes, head.count).tolist()
    return (columns[0].first + columns[1].first + columns[2].first).tolist()


@pytest.mark.parametrize("count", COUNTS)
def test_rows_are_picked_cut_and_stacked_as_in_the_clear(count):
    values = [(7 * row) % 512 for row in range(count)]
    amounts = [row * row for row in range(count)]
    parts = table(values, amounts)
    index = np.arange(count, dtype=np.int64)[::-1].repeat(2) if count else np.zeros(0, dtype=np.int64)
    picked = [part.pick(index) for part in parts]
    assert plain([part.bits("key") for part in picked]) == [values[place] for place in index]
    assert plain([part.ring("amount") for part in picked]) == [amounts[place] for place in index]
    both = [stack([part, part.cut(0, count // 2), part]) for part in parts]
    assert plain([part.bits("key") for part in both]) == values + values[: count // 2] + values
    assert plain([part.ring("amount") for part in both]) == amounts + amounts[: count // 2] + amounts


def test_columns_wider_than_a_word_keep_their_rows():
    low, high = share_bits(range(70), 64), share_bits(range(100, 170), 7)
    wide = [concat([low[party], high[party]]) for party in range(3)]
    index = np.array([69, 0, 5], dtype=np.int64)
    picked = [pick_rows(column, index) for column in wide]
    stacked = [stack_columns([column, column]) for column in picked]
    assert plain([column[:64] for column in stacked]) == [69, 0, 5, 69, 0, 5]
    assert plain([column[64:] for column in stacked]) == [169 % 128, 100, 105] * 2


def test_columns_are_added_left_out_and_put_in_order():
    part = table([1, 2], [3, 4])[0]
    more = part.plus({"flag": share_bits([0, 1], 1)[0]})
    assert more.names == ("key", "amount", "flag")
    assert more.select(["flag", "key"]).names == ("flag", "key")
    assert more.without("amount").shape() == (("key", 9), ("flag", 1))
    assert "redacted" in repr(more)


def test_what_does_not_fit_is_refused():
    part = table([1, 2], [3, 4])[0]
    other = table([1, 2], [3, 4], width=8)[0]
    foreign = table([1, 2], [3, 4])[1]
    wrong = [
        lambda: Rows({}),
        lambda: Rows({"a": part.bits("key"), "b": share_ring([1])[0]}),
        lambda: Rows({"a": part.bits("key"), "b": foreign.ring("amount")}),
        lambda: part.bits("amount"),
        lambda: part.ring("key"),
        lambda: part.select(["none"]),
        lambda: part.cut(1, 3),
        lambda: part.pick(np.array([2], dtype=np.int64)),
        lambda: part.pick(np.array([-1], dtype=np.int64)),
        lambda: stack([part, other]),
        lambda: stack([]),
        lambda: stack_columns([part.bits("key"), part.ring("amount")]),
        lambda: stack_columns([part.bits("key"), other.bits("key")]),
    ]
    for action in wrong:
        with pytest.raises(LocalProtocolError) as caught:
            action()
        assert caught.value.code == "ROWS_INVALID"
