"""Owners' books to shares, through the region's stage, to the recipient's table: what the oracle says, whatever `gate_min_owners` is.

The oracle is SQL over the union of all books and shares no code with the product; the stage runs on shares at three positions.
"""

from __future__ import annotations

import random
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from infra.demo.data import PRODUCT_LINES, SEGMENTS
from infra.demo.oracle import gate_map, report
from local_stores.publish.build import table_from_lanes
from local_stores.snapshot.contribution import compute_figures
from tests.support.active import small_proofs
from tests.support.demo_data import unit_table
from tests.support.federation import make_federation, make_plan
from tests.support.publish_sample import oracle_table
from tests.support.region_stage import clear_region, region_parts, run_region

PERIOD = "2026-03"
RATES = {
    "2026-03": {"EUR": {"avg_rate": "1.23456789"}, "CNY": {"avg_rate": "0.12840000"}},
    "2025-03": {"EUR": {"avg_rate": "0.50000000"}, "CNY": {"avg_rate": "0.13000001"}},
}
CURRENCIES = ("EUR", "CNY", "EUR", "CNY")
NAMES = ("entity", "slice", "segment", "product_line", "customer", "revenue", "cost")
KINDS = (pa.string(),) * 5 + (pa.int64(),) * 2
S, T, U = SEGMENTS[:3]
A, B, C = PRODUCT_LINES[:3]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("federation")).federation


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_proofs(monkeypatch)


def cell(segment, product, customers, owner=0, at="month", *, amount=100):
    return [(f"o{owner}", at, segment, product, f"c{number}", amount, amount // 3) for number in customers]


def random_books(rng, owners):
    """Skewed lines, so that cells are crowded, small or empty, and some belong to one owner."""
    out = []
    for owner in range(owners):
        size = rng.choice([0, 1, 4, 20, 60])
        for _ in range(size):
            place = min(int(rng.expovariate(0.8)), 2), min(int(rng.expovariate(0.8)), 2)
            line = SEGMENTS[place[0]], PRODUCT_LINES[(place[1] + rng.choice([0, 0, 0, owner])) % 5]
            amounts = rng.randrange(-(10**9), 10**9), rng.randrange(10**9)
            out.append((f"o{owner}", rng.choice(["month", "month", "prior"]), *line, f"c{rng.randrange(25)}", *amounts))
    return out


def lines_of(rows):
    return pa.table(
        [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(KINDS)], names=list(NAMES)
    )


def filed_by(plan, lines, owners):
    """Each owner's figures and rows, as its site computes them; an owner without lines reports nothing."""
    out = []
    for owner in range(owners):
        own = lines.filter(pc.equal(lines["entity"], f"o{owner}"))
        at = {
            "period": RATES["2026-03"][CURRENCIES[owner]]["avg_rate"],
            "prior_year": RATES["2025-03"][CURRENCIES[owner]]["avg_rate"],
        }
        out.append(compute_figures(plan, unit_table(own, plan), at, owner=f"o{owner}"))
    return out


def check(federation, rows, owners, *, k, min_owners=2, security="passive", nil=True):
    """Compare the table of the region's stage on shares with the oracle's; return what moved.

    Args:
        nil: owners without lines file an empty submission; else they file zeros, and tables of padding alone.
    """
    plan = make_plan(federation, k=k, gate_at="region", gate_min_owners=min_owners, security=security)
    lines = lines_of(rows)
    filed = filed_by(plan, lines, owners)
    parts = [(None,) * 3 if one.empty and nil else region_parts(one, f"o{n}") for n, one in enumerate(filed)]
    lanes, outcome = run_region(plan, [list(at) for at in zip(*parts, strict=True)], security=security)
    assert lanes is not None, outcome.errors
    assert lanes == clear_region(plan, filed)
    terms = {"k": k, "regions": {f"o{n}": "r" for n in range(owners)}, "min_owners": min_owners}
    currencies = {f"o{n}": CURRENCIES[n] for n in range(owners)}
    expected = oracle_table(report(lines, PERIOD, RATES, currencies=currencies, **terms), PERIOD)
    found = table_from_lanes(plan, lanes, period=PERIOD, edition=1)
    assert [measure.name for measure in found.measures] == [measure.name for measure in expected.measures]
    assert {row.key: row.values for row in found.rows} == {row.key: row.values for row in expected.rows}
    places = gate_map(lines, **terms)
    return {(leaf.segment, leaf.product_line): place for leaf, place in places.items() if leaf.slice == "month"}


def random_case(seed):
    rng = random.Random(f"oracle/{seed}")
    owners = rng.choice([1, 2, 2, 3, 4])
    terms = {"k": rng.choice([2, 3, 5, 12]), "min_owners": rng.choice([2, 2, 2, 3, 1]), "nil": rng.random() < 0.5}
    return random_books(rng, owners), owners, terms


@pytest.mark.parametrize("seed", range(40))
def test_random_books_passive(federation, seed):
    rows, owners, terms = random_case(seed)
    check(federation, rows, owners, **terms)


@pytest.mark.parametrize("seed", range(100, 104))
def test_random_books_active(federation, seed):
    rows, owners, terms = random_case(seed)
    check(federation, rows, owners, security="active", **terms)


def test_random_books_show_everything_that_owners_change(federation):
    seen = Counter()
    for seed in range(40):
        rows, owners, terms = random_case(seed)
        if terms["min_owners"] == 1:
            continue
        regions, lines = {f"o{n}": "r" for n in range(owners)}, lines_of(rows)
        here = gate_map(lines, terms["k"], regions=regions, min_owners=terms["min_owners"])
        there = gate_map(lines, terms["k"], regions=regions)
        seen["dropped for its owners"] += bool(there) and not here
        moved = [leaf for leaf, place in here.items() if place != there[leaf]]
        seen["moved for its owners"] += bool(moved)
        seen["to the segment"] += any(here[leaf][0] for leaf in moved)
        seen["to the top"] += any(not here[leaf][0] for leaf in moved)
        seen["stays"] += any(place == (leaf.segment, leaf.product_line) for leaf, place in here.items())
    kinds = {"dropped for its owners", "moved for its owners", "to the segment", "to the top", "stays"}
    assert all(seen[kind] >= 2 for kind in kinds), seen


# ----------------------------------------------------------------------------------------------------------- edge cases

EVERYWHERE = cell(T, A, range(6), 0) + cell(T, A, range(6), 1)
"""A cell that passes on its own: 12 customers of two owners."""


@pytest.mark.parametrize("security", ["passive", "active"])
def test_a_cell_of_one_big_owner_alone_moves(federation, security):
    rows = EVERYWHERE + cell(S, A, range(80), 0) + cell(S, B, range(1), 1)
    moved = check(federation, rows, 2, k=5, security=security)
    assert moved == {(S, A): (S, ""), (S, B): (S, ""), (T, A): (T, A)}


def test_the_same_cell_stays_where_owners_do_not_matter(federation):
    rows = EVERYWHERE + cell(S, A, range(80), 0) + cell(S, B, range(1), 1)
    assert check(federation, rows, 2, k=5, min_owners=1)[S, A] == (S, A)


def test_a_segment_of_one_big_owner_moves_to_the_top_and_takes_a_cell_of_both_with_it(federation):
    rows = EVERYWHERE + cell(S, A, range(80), 0) + cell(S, B, range(70), 0)
    assert check(federation, rows, 2, k=5) == {(S, A): ("", ""), (S, B): ("", ""), (T, A): ("", "")}


def test_two_big_owners_in_cells_of_their_own_meet_in_the_segment_or_at_the_top(federation):
    rows = cell(S, A, range(80), 0) + cell(S, B, range(70), 1)
    assert set(check(federation, rows, 2, k=5).values()) == {(S, "")}
    rows = cell(S, A, range(80), 0) + cell(T, B, range(70), 1)
    assert set(check(federation, rows, 2, k=5).values()) == {("", "")}


@pytest.mark.parametrize("security", ["passive", "active"])
def test_a_region_with_one_owner_that_has_customers_contributes_nothing(federation, security):
    rows = cell(S, A, range(80), 0) + cell(T, B, range(80), 0)
    for nil in (True, False):
        assert check(federation, rows, 3, k=5, nil=nil, security=security) == {}


@pytest.mark.parametrize("nil", [True, False])
@pytest.mark.parametrize("security", ["passive", "active"])
def test_all_owners_zero(federation, nil, security):
    """No owner has a line: empty submissions, or submissions of zeros with tables of padding rows alone."""
    assert check(federation, [], 2, k=5, nil=nil, security=security) == {}


def test_customers_without_amounts_count_and_amounts_may_cancel(federation):
    zero = cell(S, A, range(6), 0, amount=0) + cell(S, A, range(6), 1, amount=0)
    assert check(federation, zero, 2, k=5) == {(S, A): (S, A)}
    against = cell(T, A, range(6), 0, amount=900) + cell(T, A, range(6), 2, amount=-900)
    assert check(federation, zero + against, 3, k=5) == {(S, A): (S, A), (T, A): (T, A)}


def test_an_owner_counts_in_the_slice_where_it_has_customers(federation):
    rows = cell(S, A, range(9), 0) + cell(S, A, range(9), 1, "prior") + cell(S, A, range(9), 0, "prior")
    assert check(federation, rows, 2, k=5) == {}  # this month has one owner; the prior year has two


def test_cells_that_nobody_has_are_zero_and_are_never_absorbed(federation):
    rows = cell(S, A, range(80), 0) + cell(U, C, range(30), 1) + cell(U, C, range(3), 0)
    assert check(federation, rows, 2, k=5) == {(S, A): ("", ""), (U, C): ("", "")}


def test_more_owners_asked_for_than_there_are(federation):
    rows = EVERYWHERE + cell(S, A, range(80), 2)
    assert check(federation, rows, 3, k=5, min_owners=4) == {}
    assert set(check(federation, rows, 3, k=5, min_owners=3).values()) == {("", "")}
