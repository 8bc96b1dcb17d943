"""Rounds and bytes of relational operators: what the docstrings say, relative to sort, merge, shuffle and compact."""

import math

import pytest

from mpc_ops.protocol.circuits.counts import any_unit_cost
from mpc_ops.protocol.order.merge import merge_sorted
from mpc_ops.protocol.order.select import select
from mpc_ops.protocol.order.shuffle import compact, shuffle
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.relational import ordered
from mpc_ops.protocol.relational.groups import Aggregate, group_by
from mpc_ops.protocol.relational.joins import join
from mpc_ops.protocol.relational.ordered import (
    Key,
    blank_rows,
    key_planes,
    put_back,
    spread_by_copying,
    spread_by_shuffle,
)
from mpc_ops.protocol.relational.sets import intersection, open_intersection
from mpc_ops.protocol.relational.topk import top_k
from mpc_ops.protocol.relational.windows import Window, windows
from tests.support.active import run_flow, small_proofs
from tests.support.relational import SECURITIES, tables

OWN = ("key-nulls", "group-", "blank-rows", "spread", "usable", "join-", "set-", "window-", "dot-table")
"""Steps of the operators themselves, by the beginnings of their names."""


class Cost:
    """Rounds and bytes of a run by position, and what the operators' own steps sent."""

    def __init__(self, program, *shapes, security="passive", count=5):
        counts = count if isinstance(count, tuple) else (count,) * len(shapes)
        specs = [
            {name: (list(range(rows)), width) for name, width in shape.items()}
            for shape, rows in zip(shapes, counts, strict=True)
        ]
        given = [tables(spec, security) for spec in specs]
        out = run_flow(lambda flow: program(flow, *(parts[flow.stage.party] for parts in given)), security=security)
        assert not out.errors, out.errors
        self.rounds = max(out.rounds)
        self.sent = out.sent_bytes
        self.own = [
            sum(size for place, size in out.sizes.items() if place.sender == party and place.step.startswith(OWN))
            for party in range(3)
        ]

    def minus(self, *others):
        return self.rounds - sum(one.rounds for one in others), [
            mine - sum(one.sent[party] for one in others) for party, mine in enumerate(self.sent)
        ]


def words(count):
    return 8 * -(-count // 64)


def log2(number):
    return (number - 1).bit_length()


def same(program, *shapes, monkeypatch, count=5):
    """Both kinds of session send the same in the operators' own steps."""
    small_proofs(monkeypatch)
    own = [Cost(program, *shapes, security=security, count=count).own for security in SECURITIES]
    assert own[0] == own[1]
    assert own[0][0] == own[0][1] == own[0][2]


@pytest.fixture
def _(monkeypatch):
    small_proofs(monkeypatch)


@pytest.mark.parametrize("count", [1, 64, 65])
def test_null_keys_are_cleared_in_one_round(count, monkeypatch):
    def program(flow, rows):
        yield from key_planes(flow.stage, rows, [Key("a", "ok"), Key("b")])

    cost = Cost(program, {"a": 5, "ok": 1, "b": 9}, count=count)
    assert cost.minus() == (1, [5 * words(count)] * 3)
    same(program, {"a": 5, "ok": 1, "b": 9}, monkeypatch=monkeypatch, count=count)


@pytest.mark.parametrize(
    ("shape", "rounds", "ring"), [({"a": 5, "b": 2}, 1, 0), ({"a": 5, "b": 2, "x": None, "y": None}, 3, 2)]
)
@pytest.mark.parametrize("count", [1, 64, 65])
def test_blank_rows(shape, rounds, ring, count, monkeypatch):
    def program(flow, rows):
        yield from blank_rows(flow.stage, rows.bits("keep"), rows.without("keep"))

    shape = {"keep": 1, **shape}
    assert Cost(program, shape, count=count).minus() == (
        rounds, [7 * words(count) + (16 + 8 * ring) * count * (ring > 0)] * 3
    )  # fmt: skip
    same(program, shape, monkeypatch=monkeypatch, count=count)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("count", [1, 2, 64, 65, 130])
def test_spread_by_copying(count, clean, monkeypatch):
    def program(flow, rows):
        yield from spread_by_copying(flow.stage, rows.bits("head"), rows.without("head"), clean=clean)

    k, shape = log2(count), {"head": 1, "a": 4, "b": 3}
    sent = words(count) * ((k * 8 - 1 if k else 0) + 7 * (not clean))
    assert Cost(program, shape, count=count).minus() == (k + (not clean), [sent] * 3)
    same(program, shape, monkeypatch=monkeypatch, count=count)


def test_put_back_is_a_shuffle_and_an_opening():
    shape = {"a": 4, "x": None, "place": 3}
    shuffled = Cost(shuffle, shape)
    assert Cost(lambda flow, rows: put_back(flow, rows, "place"), shape).minus(shuffled) == (1, [3 * 8] * 3)


@pytest.mark.parametrize("clean", [True, False])
def test_spread_by_shuffle_compacts_and_puts_back_one_row_more(clean):
    def program(flow, rows):
        yield from spread_by_shuffle(flow, rows.bits("head"), rows.without("head"), clean=clean)

    columns = {"a": 4, "x": None, "place": 3}
    parts = [
        Cost(lambda flow, rows: compact(flow, rows, "head"), {**columns, "head": 1}, count=6),
        Cost(lambda flow, rows: put_back(flow, rows, "place"), columns, count=6),
    ]
    blank = (0, [0] * 3) if clean else (3, [4 * 8 + 24 * 5] * 3)
    assert Cost(program, {"head": 1, "a": 4, "x": None}).minus(*parts) == blank


@pytest.mark.parametrize("live", [None, "live"])
def test_group_by_sums(live, monkeypatch):
    wanted = [Aggregate("n", "count"), Aggregate("v", "variance", "x", "ok")]
    keys = [Key("a", "a_ok"), Key("b")]

    def program(flow, rows):
        yield from group_by(flow, rows, keys, wanted, live=live, bound=3)

    shape, bits = {"a": 9, "a_ok": 1, "b": 4, "x": None, "ok": 1, "live": 1}, 14
    ring = {f"sum{at}": None for at in range(4)}
    parts = [
        Cost(lambda flow, rows: sort(flow, rows, [SortKey("key")]), {"key": bits + (live is not None), **ring}),
        Cost(lambda flow, rows: compact(flow, rows, "keep"), {"key": bits, "keep": 1, **ring}),
    ]
    cost = Cost(program, shape).minus(*parts)
    equal = bits - 1 + (live is not None)
    sent = 8 * (9 + equal) + (16 + 8 + 8) * 5 + 8 * bits + (16 + 8 * 4) * 3
    assert cost == (2 + 1 + 1 + log2(equal + 1) + 3, [sent] * 3)
    same(program, shape, monkeypatch=monkeypatch)


@pytest.mark.parametrize(("kinds", "extra", "moved", "ring"), [
    (["min"], (0, 0), 6, 0),
    (["max"], (2, 1 + 5), 6, 0),
    (["min", "max"], (2, 1 + 5), 11, 0),
    (["distinct_count"], (2, 15), 0, 1),
])  # fmt: skip
def test_group_by_values_with_nulls(kinds, extra, moved, ring, monkeypatch):
    rounds, gates = extra
    wanted = [Aggregate(kind, kind, "size", "ok") for kind in kinds]

    def program(flow, rows):
        yield from group_by(flow, rows, [Key("a")], wanted)

    ends = {f"c{at}": 1 for at in range(moved)} | ({"x": None} if ring else {})
    parts = [
        Cost(lambda flow, rows: sort(flow, rows, [SortKey("key")]), {"key": 9 + 6}),
        Cost(lambda flow, rows: compact(flow, rows, "keep"), {"key": 9, "keep": 1, **ends}),
    ]
    cost = Cost(program, {"a": 9, "size": 5, "ok": 1}).minus(*parts)
    sent = 8 * (5 + 8 + gates + 9 + moved) + (16 * 5 + (16 + 8) * 5) * ring
    # Clearing NULLs, boundaries (with a distinct count those of pairs), what the kinds add, blank rows.
    depth = max(log2(9), log2(15 + 1) if ring else 0)
    assert cost == (1 + depth + rounds + (3 if ring else 1), [sent] * 3)
    same(program, {"a": 9, "size": 5, "ok": 1}, monkeypatch=monkeypatch)


@pytest.mark.parametrize(("kind", "by"), [("left", "copying"), ("full", "shuffle"), ("semi", "copying")])
def test_joins(kind, by, monkeypatch):
    monkeypatch.setattr(ordered, "COPY_LIMIT", 1 << 20 if by == "copying" else 0)
    payload = [] if kind == "semi" else ["a"]

    def program(flow, p, f):
        yield from join(flow, p, f, [(Key("k", "ok"), Key("k", "ok"))], payload, kind=kind, primary_live="live")

    def spreading(flow, rows):
        how = spread_by_copying if by == "copying" else spread_by_shuffle
        given = flow.stage if by == "copying" else flow
        yield from how(given, rows.bits("head"), rows.without("head"), clean=kind != "semi")

    n, shapes = 5, ({"k": 9, "ok": 1, "a": 4, "live": 1}, {"k": 9, "ok": 1, "b": 7})
    wide = {"a": 4} if payload else {}
    parts = [
        Cost(lambda flow, rows: sort(flow, rows, [SortKey("key")]), {"key": 10, **wide, "own": 1, "place": log2(n)}),
        Cost(spreading, {"head": 1, **wide, "own": 1}),
        Cost(
            lambda flow, rows: put_back(flow, rows, "place"),
            {**wide, "own": 1, "place": log2(n), **({"used": 1} if kind == "full" else {})},
        ),
    ]
    unique = any_unit_cost(1, 64)
    flag = 0 if kind == "semi" else 1
    # The check of the keys stands beside copying, which takes fewer rounds here, and before a shuffle.
    checking = flag * (max(0, unique.depth - parts[1].rounds) if by == "copying" else unique.depth)
    rounds = 1 + log2(10) + flag + checking
    sent = 8 * (1 + 9 + flag * (1 + unique.words)) + 8 * flag
    assert Cost(program, *shapes, count=(2, 3)).minus(*parts) == (rounds, [sent] * 3)
    same(program, *shapes, monkeypatch=monkeypatch, count=(2, 3))


@pytest.mark.parametrize("sums", [[], ["x"]])
def test_intersection_of_ascending_sets(sums, monkeypatch):
    def program(flow, a, b):
        found = yield from intersection(flow, a, b, [(Key("k"), Key("k"))], sums, ascending=True)
        yield from open_intersection(flow, found)

    extra = {"x": None} if sums else {}
    shapes = ({"k": 12, **extra}, {"k": 12})
    merged = Cost(
        lambda flow, a, b: merge_sorted(flow, [a, b], [SortKey("k")], stable=False),
        *[{"k": 12, **extra}] * 2,
        count=(2, 3),
    )
    order, unique = 3 * 12 - 2 - log2(12), any_unit_cost(1, 64)
    # The orders are checked beside the merge, which takes more rounds here.
    assert merged.rounds >= 1 + log2(12) + unique.depth + 1
    rounds = log2(12) + 2 + len(sums) + 3 + 1
    sent = (
        8 * (2 * (order + unique.words) + 1 + 11)
        + 16 * 5
        + 8 * len(sums)
        + 16
        + 8 * (1 + len(sums))
        + 8 * (2 + len(sums))
    )
    assert Cost(program, *shapes, count=(2, 3)).minus(merged) == (rounds, [sent] * 3)
    same(program, *shapes, monkeypatch=monkeypatch, count=(2, 3))


def test_intersection_of_sets_in_any_order(monkeypatch):
    def program(flow, a, b):
        yield from intersection(flow, a, b, [(Key("k"), Key("k"))])

    ordering = Cost(lambda flow, rows: sort(flow, rows, [SortKey("k")]), {"k": 12, "own": 1})
    unique = any_unit_cost(1, 64)
    rounds, sent = log2(12) + 1 + max(unique.depth, 2), 8 * (11 + 1 + unique.words) + 16 * 5
    assert Cost(program, {"k": 12}, {"k": 12}, count=(2, 3)).minus(ordering) == (rounds, [sent] * 3)
    same(program, {"k": 12}, {"k": 12}, monkeypatch=monkeypatch, count=(2, 3))


def test_windows_within_groups(monkeypatch):
    wanted = [
        Window("s", "running_sum", "x"),
        Window("n", "row_number"),
        Window("r", "rank"),
        Window("d", "dense_rank"),
    ]

    def program(flow, rows):
        yield from windows(flow, rows, wanted, [SortKey("o")], partition_by=[Key("k")])

    def spreading(flow, rows):
        yield from spread_by_shuffle(flow, rows.bits("head"), rows.without("head"))

    shape = {"k": 5, "o": 6, "x": None}
    parts = [
        Cost(lambda flow, rows: sort(flow, rows, [SortKey("key")]), {**shape, "key": 11, "sum": None}),
        Cost(spreading, {"head": 1, "a": None, "b": None, "c": None}),
        Cost(spreading, {"head": 1, "a": None}),
    ]
    assert Cost(program, shape).minus(*parts) == (log2(11) + 2, [8 * (4 + 10) + 16 * 5] * 3)
    same(program, shape, monkeypatch=monkeypatch)


def test_top_k_is_a_selection_of_the_first_ranks():
    shape = {"key": 7, "x": None}
    chosen = Cost(lambda flow, rows: select(flow, rows, [SortKey("key")], [0, 1]), shape, count=40)
    assert Cost(lambda flow, rows: top_k(flow, rows, [SortKey("key")], 2), shape, count=40).minus(chosen) == (
        0,
        [0] * 3,
    )
    assert math.ceil(40 / 16) == 3
