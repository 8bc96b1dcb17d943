"""Ranks and quantiles against Python: several keys, signs, directions, NULLs, repeated ranks, any widths, no row and one row."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ops.protocol.order.select import quantile, select
from mpc_ops.protocol.order.sort import SortKey
from tests.support.active import small_proofs
from tests.support.relational import SECURITIES, refusal, run_table, signed

M = 1 << 64


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def values(width: int, count: int) -> st.SearchStrategy[list[int]]:
    """Values of so many bits, most of them from a few, so that they repeat."""
    top = (1 << width) - 1
    few = sorted({0, top, top // 2, min(top, top // 2 + 1)})
    return st.lists(st.sampled_from(few) | st.integers(0, top), min_size=count, max_size=count)


@st.composite
def keyed_tables(draw):
    """Columns, sort keys over them, and each row's key as Python would sort it."""
    count = draw(st.integers(0, 70))
    spec, keys = {}, []
    for number in range(draw(st.integers(1, 3))):
        width = draw(st.integers(1, 64))
        name, mark = f"k{number}", f"v{number}" if draw(st.booleans()) else None
        spec[name] = (draw(values(width, count)), width)
        if mark is not None:
            spec[mark] = (draw(values(1, count)), 1)
        keys.append(
            SortKey(name, draw(st.booleans()), draw(st.booleans()), mark, mark is not None and draw(st.booleans()))
        )
    return count, spec, keys


def order_of(count, spec, keys) -> list[int]:
    """Rows in stable order, as Python sorts lists."""

    def part(row, key):
        column, width = spec[key.name]
        if key.valid is not None and not spec[key.valid][0][row]:
            return (0 if key.nulls_first else 2, 0)
        value = signed(column[row], width) if key.signed else column[row]
        return (1, -value if key.descending else value)

    return sorted(range(count), key=lambda row: [part(row, key) for key in keys])


def check_select(table, ranks, security):
    count, spec, keys = table
    columns = {**spec, "row": ([7 * row for row in range(count)], None)}

    def program(flow, rows):
        found = yield from select(flow, rows, keys, ranks)
        assert found.names == tuple(columns)
        return list(found.columns.values())

    found, _ = run_table(program, columns, security=security)
    order = order_of(count, spec, keys)
    wanted = [order[rank] for rank in ranks]
    assert found == [[column[row] for row in wanted] for column, _ in columns.values()]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(keyed_tables(), st.data())
def test_rows_at_any_ranks_of_any_keys(table, data):
    count = table[0]
    ranks = data.draw(st.lists(st.integers(0, count - 1), max_size=6)) if count else []
    check_select(table, ranks, "passive")


@pytest.mark.parametrize("count", [1, 2, 48, 49, 130])
def test_rows_at_any_ranks_are_proven(count):
    rng = random.Random(count)
    spec = {
        "k0": ([rng.choice([0, 3, 7]) for _ in range(count)], 3),
        "v0": ([int(rng.random() < 0.7) for _ in range(count)], 1),
        "k1": ([rng.randrange(16) for _ in range(count)], 4),
    }
    keys = [SortKey("k0", descending=True, signed=True, valid="v0", nulls_first=bool(count % 2)), SortKey("k1")]
    check_select((count, spec, keys), [count - 1, 0, count // 2, 0], "active")


def check_quantile(table, part, security):
    count, spec, (key,) = table
    columns = {**spec, "amount": ([-3 * row % M for row in range(count)], None), "row": (list(range(count)), 7)}

    def program(flow, rows):
        found, some = yield from quantile(flow, rows, key, ["row", "amount", key.name], part)
        return [*(found.columns[name] for name in ("row", "amount", key.name)), some]

    found, _ = run_table(program, columns, security=security)
    valid = sum(spec[key.valid][0])
    if valid:
        row = order_of(count, spec, [key])[part[0] * (valid - 1) // part[1]]
        assert found == [[row], [-3 * row % M], [spec[key.name][0][row]], [1]]
    else:
        assert found == [[0], [0], [0], [0]]


@st.composite
def quantiles(draw):
    width, count = draw(st.integers(1, 64)), draw(st.integers(0, 70))
    spec = {"k": (draw(values(width, count)), width), "v": (draw(values(1, count)), 1)}
    below = draw(st.sampled_from((1, 2, 4, 100, 10**6, (1 << 58) // 71)) | st.integers(1, 1000))
    above = draw(st.sampled_from((0, below, below // 2)) | st.integers(0, below))
    key = SortKey("k", descending=draw(st.booleans()), signed=draw(st.booleans()), valid="v")
    return (count, spec, [key]), (above, below)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(quantiles())
def test_quantiles_of_any_part_and_width(case):
    check_quantile(*case, "passive")


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("valid", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_quantiles_of_hardly_any_rows(count, valid, security):
    marks = [valid] * count
    spec = {"k": ([5, 2, 7][:count], 3), "v": (marks, 1)}
    for part in ((0, 1), (1, 2), (1 << 60, 1 << 60)):
        check_quantile((count, spec, [SortKey("k", valid="v")]), part, security)


@pytest.mark.parametrize("part", [((1 << 58) - 1, 1 << 58), (1, (1 << 58) + 1), (2, 1), (-1, 2), (0, 0)])
def test_a_part_that_is_none_or_too_fine_for_the_rows_is_refused(part):
    spec = {"k": ([1] * 40, 3), "v": ([1] * 40, 1)}

    def program(flow, rows):
        yield from quantile(flow, rows, SortKey("k", valid="v"), ["k"], part)

    assert refusal(program, spec, security="passive") == "RANK_INVALID"
