"""Gate and figures: known cases first, then everything against brute force on plain sets."""

from __future__ import annotations

import itertools
import random
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_stores.snapshot.contribution import compute_figures, gc, owner_rates
from local_stores.snapshot.gate import NOT_ALLOCATED, gate
from local_stores.snapshot.local_plan import UnitTable
from mpc_ops.errors import ConfigError, LocalDataError
from mpc_ops.notices.model import Rate, Reference
from mpc_ops.plan.layout import cells, lanes, total_cells
from tests.support import gate_reference
from tests.support.federation import make_federation, make_plan

DOMAINS = (("A", "B", "C"), ("x", "y", "z"), ("0", "1"))


def run_gate(lines, k, depth=2):
    """Return {leaf labels: labels of the place after the Gate} from (labels..., unit) tuples; None if dropped."""
    domains = DOMAINS[:depth]
    names = sorted({line[-1] for line in lines})
    codes = [np.array([d.index(line[i]) for line in lines], np.int64) for i, d in enumerate(domains)]
    units = np.array([names.index(line[-1]) for line in lines], np.int64)
    places = gate(codes, units, domains, k)
    if places is None:
        return None
    out = {}
    for line, place in zip(lines, places.tolist(), strict=True):
        labels = tuple("" if c == NOT_ALLOCATED else d[c] for c, d in zip(place, domains, strict=True))
        assert out.setdefault(line[:-1], labels) == labels  # the lines of a leaf stay together
    return out


def brute_gate(lines, k, depth):
    """The Gate's definition on plain sets, for any number of dimensions."""
    if len({line[-1] for line in lines}) < k:
        return None
    place = {line[:-1]: line[:-1] for line in lines}

    def members():
        out = {}
        for line in lines:
            out.setdefault(place[line[:-1]], set()).add(line[-1])
        return out

    for level in range(depth, 0, -1):
        for cell, units in members().items():
            length = sum(label != "" for label in cell)
            if length == level and len(units) < k:
                up = (*cell[: level - 1], *[""] * (depth - level + 1))
                place = {leaf: up if at == cell else at for leaf, at in place.items()}
    top = ("",) * depth
    while depth and top in members() and len(members()[top]) < k:
        smallest = min((len(units), cell) for cell, units in members().items() if cell != top)[1]
        place = {leaf: top if at == smallest else at for leaf, at in place.items()}
    return place


def cell(labels, first, count):
    return [(*labels, f"u{number}") for number in range(first, first + count)]


def test_gate_small_leaf_moves_to_its_segment():
    lines = cell(("A", "x"), 0, 3) + cell(("A", "y"), 0, 10) + cell(("A", "z"), 20, 8)
    # 3 + 8 distinct units meet in A's not-allocated cell: 11 >= 10, so they stay there.
    assert run_gate(lines, 10) == {("A", "x"): ("A", ""), ("A", "y"): ("A", "y"), ("A", "z"): ("A", "")}


def test_gate_small_not_allocated_moves_to_the_top_and_absorbs():
    lines = cell(("A", "x"), 0, 3) + cell(("A", "y"), 0, 12) + cell(("B", "x"), 30, 11) + cell(("B", "y"), 0, 11)
    # The top holds 3 units and absorbs the smallest cell; of two with 11 the first by label, (B, x).
    assert run_gate(lines, 10) == {
        ("A", "x"): ("", ""), ("A", "y"): ("A", "y"), ("B", "x"): ("", ""), ("B", "y"): ("B", "y"),
    }  # fmt: skip


def test_gate_absorbs_until_k_distinct_units_are_together():
    # Absorbing (A, y) brings no new unit: u0..u9 hold u0..u2 already, 10 >= 10 ends it there.
    lines = cell(("A", "x"), 0, 3) + cell(("A", "y"), 0, 10) + cell(("B", "z"), 50, 12)
    assert run_gate(lines, 10)["A", "y"] == ("", "")
    assert run_gate(lines, 10)["B", "z"] == ("B", "z")
    assert run_gate(lines, 11)["B", "z"] == ("", "")


def test_gate_whole_slice_below_k_contributes_nothing():
    assert run_gate(cell(("A", "x"), 0, 9), 10) is None
    assert run_gate(cell((), 0, 9), 10, depth=0) is None
    assert run_gate(cell((), 0, 10), 10, depth=0) == {(): ()}


@st.composite
def books(draw, depth=None):
    depth = draw(st.integers(0, 3)) if depth is None else depth
    k = draw(st.integers(1, 6))
    rng = random.Random(draw(st.integers(0, 2**32)))
    leaves = list(itertools.product(*DOMAINS[:depth]))
    lines = set()
    for leaf in leaves:
        for _ in range(rng.choice([0, 0, 1, 2, 4, 8])):
            lines.add((*leaf, f"u{rng.randrange(12)}"))
    return sorted(lines), k, depth


@settings(max_examples=150, deadline=None)
@given(books())
def test_gate_equals_its_definition(case):
    lines, k, depth = case
    if lines:
        assert run_gate(lines, k, depth) == brute_gate(lines, k, depth)


@settings(max_examples=60, deadline=None)
@given(books(depth=2))
def test_gate_equals_the_shared_reference(case):
    lines, k, _ = case
    if lines:
        assert (run_gate(lines, k) or {}) == gate_reference.gate(lines, k)


@settings(max_examples=60, deadline=None)
@given(books())
def test_gate_leaves_no_small_cell(case):
    lines, k, depth = case
    places = run_gate(lines, k, depth) if lines else None
    members = {}
    for line in lines if places else ():
        members.setdefault(places[line[:-1]], set()).add(line[-1])
    assert all(len(units) >= k for units in members.values())


@pytest.mark.parametrize(
    ("amount", "rate", "cents"),
    [(100, "0.125", 12), (300, "0.125", 38), (-100, "0.125", -12), (-300, "0.125", -38), (1, "1", 1), (0, "0.5", 0)],
)
def test_figures_translation_rounds_half_even(amount, rate, cents):
    assert gc(amount, 2, rate, 2) == cents


@given(st.integers(-(10**17), 10**17), st.decimals(0, 2, places=8, allow_nan=False))
def test_figures_translation_equals_decimal_arithmetic(amount, rate):
    exact = (Decimal(amount).scaleb(-2) * rate).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    assert gc(amount, 2, f"{rate:f}", 2) == int(exact.scaleb(2))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("federation"))


def unit_table(plan, rows):
    """rows: (slice, segment, product line, unit, revenue, margin, lines)."""
    names = sorted({row[3] for row in rows})
    column = lambda place: np.array([row[place] for row in rows], np.int64)  # noqa: E731
    domains = list(plan.domains.values())
    return UnitTable(
        column(0),
        tuple(np.array([domain.index(row[1 + i]) for row in rows], np.int64) for i, domain in enumerate(domains)),
        np.array([names.index(row[3]) for row in rows], np.int64),
        {"revenue": column(4), "margin": column(5), "lines": column(6)},
    )


def test_figures_against_brute_force(made):
    plan = make_plan(made.federation, k=3)
    rng = random.Random(4)
    domains = list(plan.domains.values())
    rows = {}
    for _ in range(150):
        key = (rng.randrange(2), rng.choice(domains[0]), rng.choice(domains[1]), f"c{rng.randrange(20)}")
        rows[key] = (rng.randrange(-(10**9), 10**12), rng.randrange(-(10**9), 10**9), rng.randrange(1, 5))
    table = [(*key, *numbers) for key, numbers in rows.items()]
    rates = {"period": "0.12840000", "prior_year": "0.13010001"}
    figures = compute_figures(plan, unit_table(plan, table), rates, owner="de-nord")
    expected = []
    for lane in lanes(plan):
        measure = lane.measure
        own = [row for row in table if row[0] == (measure.slice == "prior_year")]
        to = gate_reference.gate([row[1:4] for row in own], 3)
        if measure.source == "customers":
            place = (*lane.cell.labels, *[None if lane.cell.kind == "total" else ""] * (2 - len(lane.cell.labels)))
            expected.append(gate_reference.level_counts([row[1:4] for row in own], 3).get(place, 0))
            continue
        place = (*lane.cell.labels, *[""] * (2 - len(lane.cell.labels)))
        column = {"revenue": 4, "margin": 5, "lines": 6}[measure.source]
        total = sum(row[column] for row in own if to and to[row[1:3]] == place)
        expected.append(gc(total, 2, rates[measure.translate], 2) if measure.translate else total)
    assert figures.lanes.tolist() == expected
    assert figures.lanes.dtype == np.int64
    assert len(expected) == 10 * 31 + 2 * 6
    assert not figures.empty
    assert "redacted" in repr(figures)


def test_figures_of_an_owner_below_k_are_zero_but_not_empty(made):
    plan = make_plan(made.federation)
    rows = [(0, "BUILDING", "TIN", f"c{n}", 100, 50, 1) for n in range(9)]
    figures = compute_figures(plan, unit_table(plan, rows), {"period": "1", "prior_year": "1"}, owner="de-nord")
    assert not figures.lanes.any()
    assert (figures.below, figures.empty) == (("period",), False)


def test_figures_of_an_empty_month(made):
    plan = make_plan(made.federation)
    figures = compute_figures(plan, unit_table(plan, []), {"period": "1", "prior_year": "1"}, owner="de-nord")
    assert not figures.lanes.any()
    assert len(figures.lanes) == len(lanes(plan))
    assert figures.empty


def test_figures_beyond_their_proven_bound_are_refused(made):
    plan = make_plan(made.federation)
    rows = [(0, "BUILDING", "TIN", f"c{n}", 10**17, 0, 1) for n in range(10)]
    with pytest.raises(
        LocalDataError, match="BOUND_EXCEEDED: a value of measure revenue leaves its proven bound"
    ) as caught:
        compute_figures(plan, unit_table(plan, rows), {"period": "1", "prior_year": "1"}, owner="de-nord")
    assert "1000" not in str(caught.value)


@pytest.mark.parametrize("dimensions", [(), ("segment",), ("segment", "product_line")])
def test_figures_for_any_number_of_dimensions(made, dimensions):
    plan = make_plan(made.federation, dimensions=dimensions)
    rows = [(0, "BUILDING", "TIN", f"c{n}", 100, 50, 2) for n in range(12)]
    table = unit_table(make_plan(made.federation), rows)
    table = UnitTable(table.slices, table.dimensions[: len(dimensions)], table.units, table.aggregates)
    figures = compute_figures(plan, table, {"period": "1", "prior_year": "1"}, owner="de-nord")
    per_measure = len(cells(plan))
    assert int(figures.lanes[:per_measure].sum()) == 1200
    assert len(figures.lanes) == per_measure * 10 + 2 * len(total_cells(plan))


KEYS = {"period": "2026-03", "prior_year": "2025-03"}


def reference(made, rates, currency="EUR"):
    return Reference(
        federation=made.federation.digest, author="a", created_at="2026-04-01T00:00:00Z", period="2026-03", version=1,
        currency=currency, source="test",
        rates=[Rate(period=period, currency=code, avg_rate=rate) for (period, code), rate in rates.items()],
    )  # fmt: skip


def test_figures_rate_missing_names_currency_and_period(made):
    plan = make_plan(made.federation)
    with pytest.raises(ConfigError, match="RATE_MISSING: no rate for CNY in 2025-03"):
        owner_rates(plan, reference(made, {("2026-03", "CNY"): "0.1284"}), "CNY", KEYS)
    with pytest.raises(ConfigError, match="RATE_MISSING"):
        owner_rates(plan, None, "CNY", KEYS)
    assert owner_rates(plan, reference(made, {}), "EUR", KEYS) == {"period": "1", "prior_year": "1"}


def test_figures_rates_outside_the_terms(made):
    plan = make_plan(made.federation)
    both = {("2026-03", "CNY"): "2.00000001", ("2025-03", "CNY"): "0.1"}
    with pytest.raises(ConfigError, match="RATE_OUTSIDE_TERMS"):
        owner_rates(plan, reference(made, both), "CNY", KEYS)
    with pytest.raises(ConfigError, match="REFERENCE_FOREIGN"):
        owner_rates(plan, reference(made, both, currency="USD"), "CNY", KEYS)
