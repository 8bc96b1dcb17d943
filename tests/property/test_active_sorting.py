"""Sorts and merges against Python's sorted: widths, directions, signs, NULLs, several keys, duplicates, payloads, few rows."""

from __future__ import annotations

import random
from functools import cmp_to_key

import numpy as np
import pytest

from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.shares import concat
from mpc_ops.protocol.order import sort as sort_module
from mpc_ops.protocol.order.sort import SortKey, merge_sorted, sort
from mpc_ops.protocol.order.sort_plan import QuickPlan
from mpc_ops.protocol.proofs.proof_and import AndLog
from tests.support.active import SMALL_LAYOUT
from tests.support.relational import run_table

WIDTHS = (1, 4, 7, 8, 9, 12, 13, 32, 63, 64)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(AndLog, "layout", SMALL_LAYOUT)


def values(rng: random.Random, width: int, count: int) -> list[int]:
    """Random values with duplicates and edges."""
    top = (1 << width) - 1
    edges = [0, top, top >> 1, (top >> 1) + 1, rng.getrandbits(width)]
    return [rng.choice(edges) if rng.random() < 0.5 else rng.getrandbits(width) for _ in range(count)]


def signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value


def compared(keys, spec):
    """A comparison of row numbers by the definition of SortKey."""

    def of(key, row):
        value, width = spec[key.name][0][row], spec[key.name][1]
        return signed(value, width) if key.signed else value

    def compare(one: int, other: int) -> int:
        for key in keys:
            if key.valid is not None:
                here, there = (spec[key.valid][0][row] for row in (one, other))
                if here != there:
                    return (1 if here else -1) if key.nulls_first else (-1 if here else 1)
                if not here:
                    continue
            a, b = of(key, one), of(key, other)
            if a != b:
                return (1 if a > b else -1) * (-1 if key.descending else 1)
        return 0

    return cmp_to_key(compare)


def check(spec, keys, security, **options) -> None:
    count = len(next(iter(spec.values()))[0])

    def program(flow, rows):
        out = yield from sort(flow, rows, keys, **options)
        assert out.names == rows.names
        return [out.columns[name] for name in out.names]

    found, _ = run_table(program, spec, security=security)
    order = sorted(range(count), key=compared(keys, spec))
    for (column, _), got in zip(spec.values(), found, strict=True):
        assert got == [column[row] for row in order]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 70])
def test_one_key_of_any_width_with_duplicates_and_payload(width, count, descending):
    rng = random.Random(width + count)
    spec = {"row": (list(range(count)), None), "key": (values(rng, width, count), width)}
    check(spec, [SortKey("key", descending=descending)], "passive")


@pytest.mark.parametrize("width", [1, 3, 4, 5, 20, 64])
@pytest.mark.parametrize("count", [2, 9])
def test_active_sorts_give_the_same(width, count):
    rng = random.Random(width)
    spec = {"key": (values(rng, width, count), width), "row": (list(range(count)), 5), "x": (list(range(count)), None)}
    check(spec, [SortKey("key", descending=width % 2 == 0, signed=width > 3)], "active")


def test_random_keys_directions_signs_and_nulls():
    rng = random.Random(5)
    for number in range(24):
        count = rng.choice([2, 3, 17, 64, 65, 150])
        spec, keys = {}, []
        for place in range(rng.randrange(1, 4)):
            width, name = rng.choice([1, 2, 5, 8, 33, 64]), f"k{place}"
            spec[name] = values(rng, width, count), width
            valid = None
            if rng.random() < 0.5:
                valid = f"v{place}"
                spec[valid] = [rng.getrandbits(1) for _ in range(count)], 1
            flags = {word: rng.random() < 0.5 for word in ("descending", "signed", "nulls_first")}
            keys.append(SortKey(name, valid=valid, **flags))
        spec["row"] = list(range(count)), None if number % 2 else 8
        check(spec, keys, "passive", pivots=rng.choice([1, 2, 3, 7, 15]))


@pytest.mark.parametrize("security", ["active", "passive"])
def test_nulls_are_alike_whatever_lies_under_them(security):
    spec = {
        "key": ([9, 1, 5, 3, 7, 2], 10),
        "valid": ([0, 1, 0, 1, 0, 1], 1),
        "second": ([3, 0, 1, 0, 2, 0], 2),
    }
    keys = [SortKey("key", valid="valid", descending=True), SortKey("second")]

    def program(flow, rows):
        out = yield from sort(flow, rows, keys)
        return [out.bits("key"), out.bits("valid")]

    found, _ = run_table(program, spec, security=security)
    assert found[0] == [3, 2, 1, 5, 7, 9]
    assert found[1] == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("limit", [0, 200])
def test_keys_of_more_than_64_bits_by_both_ways(limit, monkeypatch):
    monkeypatch.setattr(sort_module, "RADIX_BITS", {"passive": limit, "active": limit})
    rng = random.Random(9)
    count = 70
    high, low = values(rng, 3, count), values(rng, 64, count)

    def program(flow, rows):
        wide = Rows({"wide": concat([rows.bits("low"), rows.bits("high")]), "row": rows.ring("row")})
        out = yield from sort(flow, wide, [SortKey("wide", signed=True)])
        return [out.ring("row"), out.bits("wide")[64:]]

    found, _ = run_table(
        program, {"low": (low, 64), "high": (high, 3), "row": (list(range(count)), None)}, security="passive"
    )
    order = sorted(range(count), key=lambda row: (signed(high[row], 3), low[row]))
    assert found == [order, [high[row] for row in order]]


@pytest.mark.parametrize("security", ["active", "passive"])
@pytest.mark.parametrize("payload", [0, 3])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 6])
def test_radix_with_and_without_travelling_rows(width, payload, security, monkeypatch):
    monkeypatch.setattr(sort_module, "RADIX_BITS", {"passive": 64, "active": 64})
    rng, count = random.Random(width), 20 if security == "active" else 90
    spec = {"key": (values(rng, width, count), width), "row": (list(range(count)), 7)}
    spec |= {f"more{place}": (values(rng, 64, count), 64) for place in range(payload)}
    check(spec, [SortKey("key")], security)


# ----------------------------------------------------------------------------------------------------------------- merges


@pytest.mark.parametrize("security", ["active", "passive"])
@pytest.mark.parametrize("lengths", [(1, 1), (0, 0), (4, 0), (3, 5), (1, 2, 3), (8, 8, 8, 8, 1)])
def test_merging_gives_the_sorted_whole(security, lengths):
    rng = random.Random(sum(lengths))
    keys = [SortKey("key", descending=True, valid="valid"), SortKey("sign", signed=True)]
    tables, start = [], 0
    for length in lengths:
        raw = {
            "key": (values(rng, 2, length), 2),
            "valid": ([rng.getrandbits(1) for _ in range(length)], 1),
            "sign": (values(rng, 3, length), 3),
            "row": (list(range(start, start + length)), None),
            "code": (values(rng, 70 % 64, length), 6),
        }
        order = sorted(range(length), key=compared(keys, raw))
        tables.append({name: ([column[row] for row in order], width) for name, (column, width) in raw.items()})
        start += length

    def program(flow, *given):
        out = yield from merge_sorted(flow, given, keys)
        assert out.names == given[0].names
        assert flow.openings == 0
        return [out.columns[name] for name in out.names]

    found, _ = run_table(program, *tables, security=security)
    whole = {name: ([value for table in tables for value in table[name][0]], tables[0][name][1]) for name in tables[0]}
    order = sorted(range(start), key=compared(keys, whole))
    for (column, _), got in zip(whole.values(), found, strict=True):
        assert got == [column[row] for row in order]


@pytest.mark.parametrize("security", ["active", "passive"])
def test_merging_key_columns_alone(security):
    given = [{"key": (list(range(0, 20, 2)), 5)}, {"key": (list(range(1, 20, 2)), 5)}]

    def program(flow, *tables):
        return [(yield from merge_sorted(flow, tables, [SortKey("key")])).bits("key")]

    assert run_table(program, *given, security=security)[0] == [list(range(20))]


# ------------------------------------------------------------------------------------------------------------ bookkeeping


@pytest.mark.parametrize("pivots", [1, 2, 3, 7, 15])
def test_the_plan_orders_every_ranking(pivots):
    for count in (*range(12), 33, 64, 100, 1000):
        for seed in range(6):
            rank = np.random.default_rng(seed).permutation(count)
            plan = QuickPlan(count, pivots)
            while (pairs := plan.pairs()) is not None:
                left, right = pairs.block(0, len(pairs))
                plan.take(rank[plan.order[left]] < rank[plan.order[right]])
            assert np.array_equal(rank[plan.order], np.arange(count))
            assert plan.levels <= max(1, 2 * count.bit_length() + 2)


def test_levels_and_comparisons_are_about_those_of_the_table():
    for pivots, comparisons, levels in ((1, 18.7, 23), (3, 27.3, 13), (7, 40, 10)):
        rank = np.random.default_rng(1).permutation(100_000)
        plan = QuickPlan(len(rank), pivots)
        while (pairs := plan.pairs()) is not None:
            left, right = pairs.block(0, len(pairs))
            plan.take(rank[plan.order[left]] < rank[plan.order[right]])
        assert abs(plan.comparisons / len(rank) / comparisons - 1) < 0.05
        assert abs(plan.levels - levels) <= 1


@pytest.mark.parametrize(("pivots", "expected"), [(1, (10_596, 13)), (3, (16_159, 8)), (7, (23_214, 5))])
def test_the_plan_is_part_of_the_protocol(pivots, expected):
    """All three parties choose what is compared by themselves: another choice on another processor or version would stop them."""
    rank = np.random.default_rng(1).permutation(1000)
    plan = QuickPlan(len(rank), pivots)
    while (pairs := plan.pairs()) is not None:
        left, right = pairs.block(0, len(pairs))
        plan.take(rank[plan.order[left]] < rank[plan.order[right]])
    assert (plan.comparisons, plan.levels) == expected
