"""Rows at ranks, medians and quantiles against Python: duplicates, NULLs, edges; how much is compared; nothing depends on the data."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.order.select import _Plan, median_ranks, quantile, select
from mpc_ops.protocol.order.sort import SortKey
from tests.support.active import as_passive, run_flow, share_bits, share_ring, small_proofs


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def shared(columns, rng, security):
    """Tables by position: {name: (values, width or None for Z_2^64)}."""
    made = {
        name: share_ring(values, rng=rng) if width is None else share_bits(values, width, rng=rng)
        for name, (values, width) in columns.items()
    }

    def at(party):
        return Rows({name: s[party] if security == "active" else as_passive(s[party]) for name, s in made.items()})

    return [at(party) for party in range(3)]


@pytest.mark.parametrize(
    ("count", "security"), [(1, "active"), (2, "passive"), (47, "active"), (130, "active"), (700, "passive")]
)
def test_rows_at_ranks_are_those_of_the_sorted_order(count, security):
    rng = random.Random(count)
    values = [rng.randrange(max(2, count // 3)) for _ in range(count)]
    tables = shared({"key": (values, 10), "amount": ([7 * row for row in range(count)], None)}, rng, security)
    ranks = sorted({0, count - 1, *median_ranks(count), rng.randrange(count)}, reverse=True)

    def program(flow):
        found = yield from select(flow, tables[flow.stage.party], [SortKey("key")], ranks)
        return (yield from flow.open([found.bits("key"), found.ring("amount")]))

    out = run_flow(program, security=security)
    assert not out.errors
    order = sorted(range(count), key=lambda row: (values[row], row))
    assert out.results[0][0].tolist() == [values[order[rank]] for rank in ranks]
    assert out.results[2][1].tolist() == [7 * order[rank] for rank in ranks]


def test_ranks_outside_are_refused_and_no_ranks_give_no_rows():
    tables = shared({"key": ([3, 1], 4)}, random.Random(1), "passive")

    def program(flow):
        for ranks in ([2], [-1]):
            with pytest.raises(LocalProtocolError, match="outside"):
                yield from select(flow, tables[flow.stage.party], [SortKey("key")], ranks)
        nothing = yield from select(flow, tables[flow.stage.party], [SortKey("key")], [])
        assert nothing.count == 0

    assert not run_flow(program, security="passive").errors
    with pytest.raises(LocalProtocolError, match="no median"):
        median_ranks(0)


@pytest.mark.parametrize("count", [100, 5000, 100_000])
def test_the_plan_finds_every_rank_with_few_comparisons(count):
    generator = np.random.default_rng(count)
    for ranks in ([count // 2], [0], [count - 1], [count // 4, count // 2, 3 * count // 4], list(range(5))):
        ranking = generator.permutation(count)
        plan, compared, levels = _Plan(count, ranks), 0, 0
        while (pairs := plan.pairs()) is not None:
            plan.take(ranking[pairs.left] < ranking[pairs.right])
            compared, levels = compared + len(pairs), levels + 1
        assert {rank: int(ranking[place]) for rank, place in plan.found.items()} == {rank: rank for rank in ranks}
        assert compared < (4 + 2 * len(ranks)) * count + 3000
        assert levels < 30


def test_a_median_of_many_rows_costs_about_two_comparisons_a_row():
    totals = []
    for seed in range(8):
        ranking = np.random.default_rng(seed).permutation(100_000)
        plan, compared = _Plan(100_000, [50_000]), 0
        while (pairs := plan.pairs()) is not None:
            plan.take(ranking[pairs.left] < ranking[pairs.right])
            compared += len(pairs)
        totals.append(compared)
    assert sorted(totals)[4] < 260_000


@pytest.mark.parametrize("security", ["active", "passive"])
@pytest.mark.parametrize("valid_rows", [0, 1, 5, 16])
def test_a_quantile_counts_valid_rows_only(valid_rows, security):
    rng = random.Random(valid_rows)
    count = 16
    values = [rng.randrange(64) for _ in range(count)]
    valid = [1] * valid_rows + [0] * (count - valid_rows)
    rng.shuffle(valid)
    columns = {"key": (values, 6), "ok": (valid, 1), "amount": ([-3 * value for value in values], None)}
    tables = shared(columns, rng, security)
    kept = sorted(value for value, ok in zip(values, valid, strict=True) if ok)
    for part in ((1, 2), (0, 1), (1, 1), (9, 10)):

        def program(flow, part=part):
            key = SortKey("key", valid="ok")
            row, known = yield from quantile(flow, tables[flow.stage.party], key, ["amount", "key"], part)
            return (yield from flow.open([row.bits("key"), row.ring("amount"), known]))

        out = run_flow(program, security=security)
        assert not out.errors
        found = [part.tolist() for part in out.results[1]]
        if valid_rows:
            wanted = kept[part[0] * (valid_rows - 1) // part[1]]
            assert found == [[wanted], [-3 * wanted % (1 << 64)], [1]]
        else:
            assert found == [[0], [0], [0]]


def test_a_quantile_without_validity_or_with_an_odd_part_is_refused():
    tables = shared({"key": ([3, 1], 4), "ok": ([1, 1], 1)}, random.Random(1), "passive")

    def program(flow):
        rows = tables[flow.stage.party]
        for key, part in (
            (SortKey("key"), (1, 2)),
            (SortKey("key", valid="ok", nulls_first=True), (1, 2)),
            (SortKey("key", valid="ok"), (3, 2)),
            (SortKey("key", valid="ok"), (0, 0)),
        ):
            with pytest.raises(LocalProtocolError, match="quantile"):
                yield from quantile(flow, rows, key, ["key"], part)

    assert not run_flow(program, security="passive").errors
