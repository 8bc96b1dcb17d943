"""Suppression against an oracle on plain integers: random tables, widths, bounds, totals and columns."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ops.protocol.disclosure.suppress import SuppressTerms, suppress, suppress_cost
from tests.support.active import small_proofs
from tests.support.relational import SECURITIES, rounds_of, run_table, sent_by

M = 1 << 64


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def counts(width: int, bound: int, cells: int) -> st.SearchStrategy[list[int]]:
    """Counts of so many bits: often empty, at the bound, or beside it."""
    top = (1 << width) - 1
    beside = sorted({min(top, max(0, value)) for value in (0, 1, bound - 1, bound, bound + 1, top)})
    return st.lists(st.sampled_from(beside) | st.integers(0, top), min_size=cells, max_size=cells)


@st.composite
def tables(draw, most_cells=70):
    cells = draw(st.integers(1, most_cells))
    widths = draw(st.integers(1, 33)), draw(st.integers(1, 9))
    bounds = tuple(draw(st.integers(1, 2 << width) | st.sampled_from((1, 2, 10))) for width in widths)
    asks_owners = draw(st.booleans())
    owner_bound = max(2, bounds[1]) if asks_owners else 1
    cover = st.lists(st.integers(0, cells - 1), min_size=1, max_size=cells, unique=True).map(tuple)
    terms = SuppressTerms(
        min_units=bounds[0],
        min_owners=owner_bound,
        covers=tuple(draw(st.lists(cover, max_size=5))),
        publish_empty=draw(st.booleans()),
    )
    units = draw(counts(widths[0], bounds[0], cells))
    owners = draw(counts(widths[1], owner_bound, cells)) if asks_owners else None
    return units, owners, widths, terms, draw(st.integers(0, 3)), draw(st.integers(0, 1 << 30))


def published(units, owners, terms) -> list[bool]:
    """Which rows an independent reader of the terms would print."""
    shown = set()
    for cell, number in enumerate(units):
        enough = number >= terms.min_units and (owners is None or owners[cell] >= terms.min_owners)
        if enough or (number == 0 and terms.publish_empty):
            shown.add(cell)
    return [cell in shown for cell in range(len(units))] + [shown.issuperset(cover) for cover in terms.covers]


def check(table, security):
    units, owners, widths, terms, columns, seed = table
    rows, rng = len(units) + len(terms.covers), random.Random(seed)
    values = [rng.choice([0, M - 1, 1 << 63, rng.getrandbits(64)]) for _ in range(columns * rows)]
    cells = {"units": (units, widths[0])} | ({} if owners is None else {"owners": (owners, widths[1])})

    def program(flow, given_counts, given_values):
        of_owners = None if owners is None else given_counts.bits("owners")
        ring = given_values.ring("values")
        found = yield from suppress(flow.stage, given_counts.bits("units"), of_owners, ring, terms)
        return [found.publish, found.values]

    (publish, masked), out = run_table(program, cells, {"values": (values, None)}, security=security)
    shown = published(units, owners, terms)
    assert publish == [int(bit) for bit in shown]
    assert masked == [value if shown[place % rows] else 0 for place, value in enumerate(values)]
    rounds, sent = suppress_cost(len(units), widths[0], widths[1], columns, terms)
    assert rounds_of(out, "suppress/", "ring-products") == rounds
    assert sent_by(out, "suppress/", "ring-products") == sent


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tables())
def test_every_table_is_suppressed_as_the_oracle_does(table):
    check(table, "passive")


@settings(max_examples=8, deadline=None, derandomize=True)
@given(tables(most_cells=6))
def test_small_tables_are_suppressed_in_active_sessions(table):
    check(table, "active")


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("publish_empty", [False, True])
@pytest.mark.parametrize("units", [0, 1, 2])
def test_one_cell_alone(units, publish_empty, security):
    terms = SuppressTerms(min_units=2, covers=((0,), (0,)), publish_empty=publish_empty)
    check(([units], None, (2, 1), terms, 1, units), security)
