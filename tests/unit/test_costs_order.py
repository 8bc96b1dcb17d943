"""Shuffles, moves by secret places, sorts, merges and selections cost exactly what their docstrings say, in both kinds of session."""

import math

import numpy as np
import pytest

from mpc_ops.protocol.core.shares import public_like, ring_zero
from mpc_ops.protocol.order import shuffle as moves
from mpc_ops.protocol.order.digit_places import digit_places
from mpc_ops.protocol.order.merge import merge_sorted
from mpc_ops.protocol.order.merge_plan import merge_layers
from mpc_ops.protocol.order.select import quantile, select, select_places
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.order.sort_keys import numbered, sort_planes
from mpc_ops.protocol.order.sort_quick import KeyWords, compared, opened_bits, quick_order, quick_sort
from mpc_ops.protocol.order.sort_radix import radix_sort
from tests.support import costs
from tests.support.active import small_proofs
from tests.support.costs import NOTHING, Cost, Price, ands, check, gates, log2, opening, products, words

COUNTS = [0, 1, 2, 64, 65]
SHAPES = [{"bit": 1}, {"bit": 1, "a": 70 - 8}, {"bit": 1, "x": None}, {"bit": 1, "a": 5, "x": None, "y": None}]


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def bits_of(shape):
    return sum(width for width in shape.values() if width is not None)


def ring_of(shape):
    return sum(width is None for width in shape.values())


# ------------------------------------------------------------------------------------------------------ shuffles and moves


@pytest.mark.parametrize("shape", [*SHAPES, {"x": None}])
@pytest.mark.parametrize("count", COUNTS)
def test_shuffles(shape, count):
    def cost(price: Price) -> Cost:
        return price.shuffle(count, bits_of(shape), ring_of(shape))

    check(moves.shuffle, cost, shape, count=count)
    check(lambda flow, rows: moves.shuffle_in_stage(flow.stage, rows), cost, shape, count=count)


def places(flow, count):
    """The public places 0, 1, 2, ... as a share."""
    return ring_zero(flow.stage, count).plus_public(np.arange(count, dtype=np.uint64))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [0, 1, 65, 300])
def test_moves_to_secret_places(shape, count):
    bits, ring = bits_of(shape), ring_of(shape)

    def straight(flow, rows):
        yield from moves.move_to(flow, rows, places(flow, count))

    def numbers(flow, rows):
        number = public_like(rows.bits("bit"), numbered(rows))
        yield from moves.move_numbered(flow, rows, number, places(flow, count))

    check(straight, lambda price: price.move_to(count, bits, ring), shape, count=count)
    check(numbers, lambda price: price.move_numbered(count, bits, ring), shape, count=count)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", COUNTS)
def test_partitions(shape, count):
    def cost(price: Price) -> Cost:
        return price.compact(count, bits_of(shape), ring_of(shape))

    check(lambda flow, rows: moves.partition(flow, rows, "bit"), cost, shape, count=count)
    check(lambda flow, rows: moves.compact(flow, rows, "bit"), cost, shape, count=count)
    check(lambda flow, rows: moves.compact(flow, rows, "bit", size=count // 2), cost, shape, count=count)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("count", COUNTS)
def test_places_by_a_digit(width, count):
    def program(flow, rows):
        yield from digit_places(flow.stage, rows.bits("a"))

    check(program, lambda price: price.digit_places(count, width), {"a": width}, count=count)


# ----------------------------------------------------------------------------------------------------------------- sorting

KEYS = [SortKey("a"), SortKey("b", descending=True, valid="ok")]


@pytest.mark.parametrize("count", COUNTS)
def test_null_keys_are_cleared_in_one_round(count):
    shape = {"a": 5, "b": 3, "ok": 1}

    def program(flow, rows, keys):
        yield from sort_planes(flow.stage, rows, keys)

    check(lambda flow, rows: program(flow, rows, KEYS), ands(3 * words(count)), shape, count=count)
    check(lambda flow, rows: program(flow, rows, KEYS[:1]), NOTHING, shape, count=count)


@pytest.mark.parametrize(("width", "count"), [(1, 2), (2, 65), (3, 64), (5, 300), (7, 2), (8, 65)])
@pytest.mark.parametrize("extra", [{}, {"x": None}])
def test_radix_sort(width, count, extra):
    shape = {"a": width, **extra}

    def program(flow, rows):
        yield from radix_sort(flow, rows, [SortKey("a")])

    check(program, lambda price: price.radix_sort(count, width, len(extra), width), shape, count=count)


def test_radix_sort_with_nulls():
    shape = {"a": 2, "b": 3, "ok": 1}

    def program(flow, rows):
        yield from radix_sort(flow, rows, KEYS)

    check(program, lambda price: price.radix_sort(65, 6, 0, 6, nulls=3), shape, count=65)


@pytest.mark.parametrize(("count", "pivots"), [(2, 1), (3, 2), (64, 1), (65, 3), (200, 15)])
@pytest.mark.parametrize("nulls", [False, True])
def test_quick_sort(count, pivots, nulls):
    shape = {"a": 9, "b": 4, "ok": 1, "x": None}

    def program(flow, rows):
        yield from quick_sort(flow, rows, KEYS if nulls else KEYS[:1], pivots)

    def cost(price: Price) -> Cost:
        return price.quick_sort(count, 14, 1, 14 if nulls else 9, 4 * nulls)

    check(program, cost, shape, count=count)


@pytest.mark.parametrize("pivots", [1, 3])
@pytest.mark.parametrize(("width", "count"), [(1, 0), (4, 1), (4, 64), (5, 65), (8, 2), (9, 65), (17, 70)])
def test_sort_takes_digits_for_narrow_keys_and_comparisons_for_others(width, count, pivots):
    def program(flow, rows):
        yield from sort(flow, rows, [SortKey("a")], pivots=pivots)

    def cost(price: Price) -> Cost:
        return price.sort(count, width, 1, width, pivots=pivots)

    check(program, cost, {"a": width, "x": None}, count=count)


@pytest.mark.parametrize("count", [2, 65, 130])
def test_order_of_shuffled_keys(count):
    def program(flow, rows):
        yield from quick_order(flow, KeyWords([rows.bits("a")]), 1)

    check(program, lambda price: price.levels(9), {"a": 9}, count=count)


class Pairs:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def block(self, start, stop):
        left = np.arange(start, stop, dtype=np.int64) % 7
        return left, left + 1


@pytest.mark.parametrize(("count", "size"), [(1, 64), (64, 64), (200, 64), (130, 128)])
def test_comparisons_in_blocks(count, size):
    def program(flow, rows):
        blocks = yield from compared(flow, "level", KeyWords([rows.bits("a")]), Pairs(count), size)
        yield from opened_bits(flow, blocks)

    blocks = [min(size, count - start) for start in range(0, count, size)]
    ands_of, depth = costs.less(9)
    gate_words = sum(ands_of * words(block) for block in blocks)
    cost = ands(gate_words, 2 * len(blocks) - 1 + log2(9)) + opening(*map(words, blocks))
    assert depth == 1 + log2(9)
    check(program, cost, {"a": 9}, count=9)


@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("counts", [(0, 0), (1, 1), (3, 5), (64, 65), (2, 0, 7)])
@pytest.mark.parametrize("extra", [{}, {"x": None, "y": None}])
def test_merge(counts, stable, extra):
    shape = {"a": 9, "b": 3, "ok": 1, "c": 2, **extra}
    keys = [SortKey("a"), SortKey("b", valid="ok")]

    def program(flow, *tables):
        yield from merge_sorted(flow, tables, keys, stable=stable)

    count, ring = sum(counts), len(extra)
    layers, _ = merge_layers(counts)
    whole = 13 + (max(1, log2(count)) if stable else 0)
    cost = NOTHING
    if layers:
        cost = ands(3 * words(count))
    for layer in layers:
        size = len(layer.low)
        # The key without NULLs is not moved on its own: b, its validity and c are.
        swapped = ands((whole + 6) * words(size))
        if ring:
            swapped = swapped.beside(products(size) + products(size) + products(ring * size))
        cost += gates(*costs.less(whole), size) + swapped
    check(program, cost, *[shape] * len(counts), count=counts)


# --------------------------------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(("count", "ranks"), [(1, [0]), (5, [0, 4]), (47, []), (65, [3]), (300, [149, 150, 7])])
@pytest.mark.parametrize("nulls", [False, True])
def test_select(count, ranks, nulls):
    shape = {"a": 9, "b": 4, "ok": 1, "x": None}
    number = max(1, log2(count))

    def program(flow, rows):
        yield from select(flow, rows, KEYS if nulls else KEYS[:1], ranks)

    def cost(price: Price) -> Cost:
        if not ranks:
            return NOTHING
        moved = price.shuffle(count, 14 + number, 1) + ands(4 * words(count) * nulls)
        return moved + price.levels((14 if nulls else 9) + number)

    check(program, cost, shape, count=count)


@pytest.mark.parametrize(("count", "ranks"), [(1, [0]), (30, [3, 29]), (200, [100])])
def test_select_places(count, ranks):
    def program(flow, rows):
        yield from select_places(flow, KeyWords([rows.bits("a")]), ranks)

    check(program, lambda price: price.levels(9), {"a": 9}, count=count)


@pytest.mark.parametrize(("count", "part"), [(0, (1, 2)), (1, (1, 2)), (5, (3, 4)), (65, (5, 5)), (64, (2, 14))])
@pytest.mark.parametrize("shape", [{"c": 3}, {"c": 3, "x": None, "y": None}])
def test_quantile(count, part, shape):
    names, ring = ["a", *shape], ring_of(shape)

    def program(flow, rows):
        yield from quantile(flow, rows, SortKey("a", valid="ok"), names, part)

    def b2a(bits):
        return products(bits) + products(bits)

    def cost(price: Price) -> Cost:
        if count == 0:
            return NOTHING
        width, divisor = max(1, log2(count)), part[1] // math.gcd(*part)
        out = price.sort(count, 9 + 1 + 3, ring, 10, nulls=9) + b2a(count)
        if divisor > 1:
            # A division of one number, as of `divide_public`.
            reached, depth = costs.top_bit((5 * divisor).bit_length() + 1)
            out += ands(245, 8) + b2a(2) + ands(4 * reached, depth) + b2a(4)
        out += gates(*costs.low_bits(width), 1)
        out += gates(*costs.equal(width + 1), count)
        summed = b2a(count) + products(ring, ring * count) if ring else NOTHING
        return out + ands((9 + 3) * words(count)).beside(summed)

    # A column that nobody asked for is not sorted.
    check(program, cost, {"a": 9, "z": 7, "ok": 1, **shape}, count=count)
