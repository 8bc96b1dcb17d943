"""Group-by and distinct on shares against a plaintext engine: duplicates, NULLs, signs, empty and one-row tables, bounds."""

import random

import pytest

from mpc_ops.protocol.relational import domain_groups
from mpc_ops.protocol.relational.groups import VALID, Aggregate, distinct, group_by
from mpc_ops.protocol.relational.ordered import Key
from tests.support.active import small_proofs
from tests.support.relational import SECURITIES, plaintext, random_rows, refusal, run_table, sent_by

MOD = 1 << 64
COUNTS = (0, 1, 2, 64, 65)
ALL = [
    Aggregate("rows", "count"),
    Aggregate("given", "count", valid="amount_ok"),
    Aggregate("total", "sum", "amount", "amount_ok"),
    Aggregate("spread", "variance", "amount", "amount_ok"),
    Aggregate("mean", "average", "score", signed=True),
    Aggregate("low", "min", "score", signed=True),
    Aggregate("high", "max", "score", signed=True),
    Aggregate("first", "min", "size", "size_ok"),
    Aggregate("last", "max", "size", "size_ok"),
    Aggregate("sizes", "distinct_count", "size", "size_ok"),
    Aggregate("scores", "distinct_count", "score", signed=True),
]
SQL = """
    SELECT ka, kb, count(*), count(amount), coalesce(sum(amount), 0), coalesce(sum(amount), 0),
           coalesce(sum(amount * amount), 0), count(amount), sum(score), count(score), min(score), max(score),
           coalesce(min(size), 0), count(size) > 0, coalesce(max(size), 0), count(size) > 0,
           count(DISTINCT size), count(DISTINCT score)
    FROM t WHERE live = 1 GROUP BY ka, kb ORDER BY ka NULLS FIRST, kb
"""


def padded(rows, count, width):
    return [*rows, *[(0,) * width] * (count - len(rows))]


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("count", COUNTS)
def test_every_aggregate_equals_the_plaintext_engine(count, security, monkeypatch):
    small_proofs(monkeypatch)
    spec = random_rows(count, random.Random(count))
    names = []

    def program(flow, table):
        groups = yield from group_by(flow, table, [Key("ka", "ka_ok"), Key("kb")], ALL, live="live")
        names[:] = groups.rows.names
        return [*groups.rows.columns.values(), groups.overflow]

    got, _ = run_table(program, spec, security=security)
    assert names[:4] == ["ka", "ka_ok", "kb", "rows"]
    assert names[-1] == VALID
    assert got.pop() == [0]
    expected = [
        (
            row[0] or 0,
            int(row[0] is not None),
            *(value % (16 if at in {10, 11} else MOD) for at, value in enumerate(row) if at),
            1,
        )
        for row in plaintext(spec, SQL)
    ]
    assert list(zip(*got, strict=True)) == padded(expected, count, len(names))


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("width", [1, 2, 33, 64])
def test_keys_of_every_width_with_edge_values(width, security, monkeypatch):
    small_proofs(monkeypatch)
    rng = random.Random(width)
    edges = [0, (1 << width) - 1, 1 << (width - 1), rng.getrandbits(width)]
    keys = [rng.choice(edges) for _ in range(70)]
    spec = {"key": (keys, width), "value": ([1 << 63] * 70, None)}

    def program(flow, table):
        groups = yield from group_by(flow, table, [Key("key")], [Aggregate("sum", "sum", "value")])
        return list(groups.rows.columns.values())

    got, _ = run_table(program, spec, security=security)
    expected = [(key, keys.count(key) * (1 << 63) % MOD, 1) for key in sorted(set(keys))]
    assert list(zip(*got, strict=True)) == padded(expected, min(70, 1 << width), 3)


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize(("bound", "over"), [(2, 1), (3, 0), (4, 0), (10, 0)])
def test_a_public_bound_cuts_the_result_and_says_whether_groups_are_missing(bound, over, security, monkeypatch):
    small_proofs(monkeypatch)
    keys = [5, 1, 5, 9, 1, 1, 5]

    def program(flow, table):
        groups = yield from distinct(flow, table, [Key("key")], bound=bound)
        return [*groups.rows.columns.values(), groups.overflow]

    got, _ = run_table(program, {"key": (keys, 4)}, security=security)
    assert got.pop() == [over]
    assert list(zip(*got, strict=True)) == padded([(1, 1), (5, 1), (9, 1)], 7, 2)[:bound]


@pytest.mark.parametrize("security", SECURITIES)
def test_a_table_without_a_live_row_has_no_groups(security, monkeypatch):
    small_proofs(monkeypatch)
    spec = {"key": ([3, 3, 1], 2), "value": ([7, 8, 9], 4), "live": ([0, 0, 0], 1)}
    wanted = [Aggregate(kind, kind, "value") for kind in ("sum", "min", "max", "distinct_count")]

    def program(flow, table):
        groups = yield from group_by(flow, table, [Key("key")], wanted, live="live")
        return list(groups.rows.columns.values())

    got, _ = run_table(program, spec, security=security)
    assert got == [[0, 0, 0]] * 6


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ([], []),
        ([Key("key"), Key("key")], []),
        ([Key("amount")], []),
        ([Key("key", "wide")], []),
        ([Key("none")], []),
        ([Key("key")], [Aggregate("x", "count", "amount")]),
        ([Key("key")], [Aggregate("x", "sum")]),
        ([Key("key")], [Aggregate("x", "median", "wide")]),
        ([Key("key")], [Aggregate("x", "min", "amount")]),
        ([Key("key")], [Aggregate("x", "sum", "none")]),
        ([Key("key")], [Aggregate("x", "sum", "amount", "wide")]),
        ([Key("key")], [Aggregate("key", "count")]),
        ([Key("key")], [Aggregate(VALID, "count")]),
        ([Key("key")], [Aggregate("x", "count"), Aggregate("x", "count")]),
    ],
)
def test_keys_and_figures_that_do_not_fit_are_refused(keys, wanted):
    spec = {"key": ([1], 2), "amount": ([1], None), "wide": ([1], 3)}
    assert refusal(lambda flow, table: group_by(flow, table, keys, wanted), spec) == "ROWS_INVALID"


def test_a_bound_below_one_is_refused():
    assert (
        refusal(lambda flow, table: distinct(flow, table, [Key("key")], bound=0), {"key": ([1], 2)}) == "ROWS_INVALID"
    )


SUMS = [one for one in ALL if one.kind in {"count", "sum", "variance", "average"}]
SUMS_SQL = """
    SELECT ka, kc, count(*), count(amount), coalesce(sum(amount), 0), coalesce(sum(amount), 0),
           coalesce(sum(amount * amount), 0), count(amount), sum(score), count(score)
    FROM t {live} GROUP BY ka, kc ORDER BY ka NULLS FIRST, kc
"""


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("live", [None, "live"])
@pytest.mark.parametrize(("count", "bound"), [(16, None), (70, None), (70, 3), (130, 16), (130, 99)])
def test_tiny_keys_are_grouped_without_a_sort(count, bound, live, security, monkeypatch):
    small_proofs(monkeypatch)
    monkeypatch.setattr(domain_groups, "ROW_BYTES", 1000)
    rng = random.Random(count)
    spec = {**random_rows(count, rng), "kc": ([rng.randrange(2) for _ in range(count)], 1)}

    def program(flow, table):
        keys = [Key("ka", "ka_ok"), Key("kc")]
        groups = yield from group_by(flow, table, keys, SUMS, live=live, bound=bound)
        return [*groups.rows.columns.values(), groups.overflow]

    got, out = run_table(program, spec, security=security)
    assert sent_by(out, "dot-table") > 0
    assert sent_by(out, "level", "merge") == 0
    (overflow,) = got.pop()
    plain = plaintext(spec, SUMS_SQL.format(live="WHERE live = 1" if live else ""))
    rows = min(bound or 16, 16)
    assert overflow == (len(plain) > rows)
    expected = [(row[0] or 0, int(row[0] is not None), *(value % MOD for value in row[1:]), 1) for row in plain]
    assert list(zip(*got, strict=True)) == padded(expected[:rows], rows, 12)


@pytest.mark.parametrize(
    ("rows", "width", "cheaper"), [(1 << 6, 7, False), (1 << 7, 7, True), (1 << 20, 7, True), (1 << 20, 9, False)]
)
def test_a_sort_is_spared_for_few_bits_and_many_rows(rows, width, cheaper):
    assert domain_groups.domain_is_cheaper(rows, width, 1, marked=False) == cheaper
