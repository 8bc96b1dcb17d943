"""Running sums, row numbers and ranks, and the first k rows, on shares against a plaintext engine."""

import random

import pytest

from mpc_ops.protocol.order.sort import SortKey
from mpc_ops.protocol.relational import topk
from mpc_ops.protocol.relational.groups import VALID
from mpc_ops.protocol.relational.ordered import Key
from mpc_ops.protocol.relational.topk import top_k
from mpc_ops.protocol.relational.windows import Window, windows
from tests.support.active import small_proofs
from tests.support.relational import SECURITIES, plaintext, random_rows, refusal, run_table

MOD = 1 << 64
WANTED = [
    Window("total", "running_sum", "amount", "amount_ok"),
    Window("scores", "running_sum", "score", signed=True),
    Window("number", "row_number"),
    Window("rank", "rank"),
    Window("dense", "dense_rank"),
]
ORDER = [SortKey("score", descending=True, signed=True), SortKey("size", valid="size_ok")]
SQL = """
    SELECT item, coalesce(sum(amount) OVER rows_before, 0), sum(score) OVER rows_before,
           row_number() OVER (PARTITION BY {groups} ORDER BY score DESC, size NULLS LAST, item),
           rank() OVER (PARTITION BY {groups} ORDER BY score DESC, size NULLS LAST),
           dense_rank() OVER (PARTITION BY {groups} ORDER BY score DESC, size NULLS LAST)
    FROM t WHERE live = 1
    WINDOW rows_before AS (
        PARTITION BY {groups} ORDER BY score DESC, size NULLS LAST, item ROWS UNBOUNDED PRECEDING)
    ORDER BY {first} score DESC, size NULLS LAST, item
"""


def numbered_rows(count, seed):
    return {**random_rows(count, random.Random(seed)), "item": (list(range(count)), 8)}


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 65])
def test_figures_over_the_rows_before(count, grouped, security, monkeypatch):
    small_proofs(monkeypatch)
    spec = numbered_rows(count, 10 + count)
    groups, first = ("ka, kb", "ka NULLS FIRST, kb,") if grouped else ("1", "")

    def program(flow, table):
        keys = [Key("ka", "ka_ok"), Key("kb")] if grouped else []
        out = yield from windows(flow, table, WANTED, ORDER, partition_by=keys, live="live")
        return [out.columns[name] for name in ("item", *(one.name for one in WANTED), "live")]

    got, _ = run_table(program, spec, security=security)
    expected = [
        (row[0], row[1], row[2] % MOD, *row[3:], 1) for row in plaintext(spec, SQL.format(groups=groups, first=first))
    ]
    assert list(zip(*got, strict=True))[: len(expected)] == expected
    assert sum(got[-1]) == len(expected)


@pytest.mark.parametrize("security", SECURITIES)
def test_running_sums_over_the_whole_table_without_live_rows(security, monkeypatch):
    small_proofs(monkeypatch)
    spec = {"key": ([3, 1, 2, 1], 2), "value": ([10, 20, 30, 40], None)}

    def program(flow, table):
        out = yield from windows(flow, table, [Window("sum", "running_sum", "value")], [SortKey("key")])
        return list(out.columns.values())

    got, _ = run_table(program, spec, security=security)
    assert got == [[1, 1, 2, 3], [20, 40, 30, 10], [20, 60, 90, 100]]


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("share", [16, 1])
@pytest.mark.parametrize(("count", "k"), [(0, 3), (1, 1), (5, 9), (66, 1), (66, 4), (66, 66)])
def test_the_first_k_live_rows_in_order(count, k, share, security, monkeypatch):
    small_proofs(monkeypatch)
    monkeypatch.setattr(topk, "SELECT_SHARE", share)
    spec = numbered_rows(count, 20 + count)

    def program(flow, table):
        out = yield from top_k(flow, table.select(["item", "score", "size", "size_ok", "live"]), ORDER, k, live="live")
        return [out.bits("item"), out.bits(VALID)]

    got, _ = run_table(program, spec, security=security)
    sql = f"SELECT item, 1 FROM t WHERE live = 1 ORDER BY score DESC, size NULLS LAST, item LIMIT {k}"
    rows = plaintext(spec, sql)
    assert list(zip(*got, strict=True)) == rows + [(0, 0)] * (min(k, count) - len(rows))


@pytest.mark.parametrize("security", SECURITIES)
def test_the_first_rows_of_a_table_without_a_mark(security, monkeypatch):
    small_proofs(monkeypatch)
    spec = {"key": ([3, 1, 2, 1], 2), "value": ([10, 20, 30, 40], None)}

    def program(flow, table):
        return list((yield from top_k(flow, table, [SortKey("key")], 3)).columns.values())

    got, _ = run_table(program, spec, security=security)
    assert got == [[1, 1, 2], [20, 40, 30]]


@pytest.mark.parametrize(
    "wanted",
    [
        [],
        [Window("x", "row_number"), Window("x", "rank")],
        [Window("key", "rank")],
        [Window("x", "lag")],
        [Window("x", "running_sum")],
        [Window("x", "rank", "key")],
        [Window("x", "running_sum", "none")],
        [Window("x", "running_sum", "key", "key")],
    ],
)
def test_figures_that_do_not_fit_are_refused(wanted):
    spec = {"key": ([1], 2)}
    assert refusal(lambda flow, table: windows(flow, table, wanted, [SortKey("key")]), spec) == "ROWS_INVALID"


@pytest.mark.parametrize("keys", [[], [SortKey("none")]])
def test_no_order_is_refused(keys):
    spec = {"key": ([1], 2)}
    assert refusal(lambda flow, table: windows(flow, table, [Window("x", "rank")], keys), spec) == "ROWS_INVALID"
    assert refusal(lambda flow, table: top_k(flow, table, keys, 1), spec) == "ROWS_INVALID"


def test_no_row_is_no_answer():
    assert refusal(lambda flow, table: top_k(flow, table, [SortKey("key")], 0), {"key": ([1], 2)}) == "ROWS_INVALID"
