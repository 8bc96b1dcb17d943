"""What an owner files before a region's Gate: leaf figures, one row of bits per unit, a page of its own figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_stores import filing
from local_stores.snapshot.contribution import compute_figures, gc
from local_stores.snapshot.local_plan import UnitTable
from local_stores.snapshot.page import contribution_rows
from local_stores.snapshot.record import ContributionId, keep_contribution, read_contribution
from local_stores.snapshot.unit_rows import level_counts, pack_rows, shuffled_planes, unit_rows, unpack_rows
from mpc_ops.errors import LocalDataError, PolicyViolation
from mpc_ops.plan.layout import leaf_count, shared_lanes
from tests.support.federation import make_federation, make_plan
from tests.support.sites import make_owner_site, write_books
from tests.unit.test_filing_steps import deliver_all, figures, sealed, sign_all

PERIOD = "2026-03"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture(scope="module")
def plan(made):
    return make_plan(made.federation, gate_at="region")


@pytest.fixture
def one(tmp_path, made, plan):
    return make_owner_site(tmp_path, made, plan)


def unit_table(rows):
    """A unit table of (slice, segment, product line, unit, revenue, margin, lines)."""
    columns = (
        [np.array(column, np.int64) for column in zip(*rows, strict=True)] if rows else [np.zeros(0, np.int64)] * 7
    )
    return UnitTable(
        columns[0], tuple(columns[1:3]), columns[3], dict(zip(("revenue", "margin", "lines"), columns[4:], strict=True))
    )


line = st.tuples(
    st.integers(0, 1), st.integers(0, 4), st.integers(0, 4), st.integers(0, 6),
    st.integers(-(10**14), 10**14), st.integers(-(10**14), 10**14), st.integers(1, 50),
)  # fmt: skip
RATES = {"period": "1.23456789", "prior_year": "0.5"}


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(line, max_size=60, unique_by=lambda row: row[:4]))
def test_leaf_figures_and_rows_are_what_brute_force_finds(plan, rows):
    found = compute_figures(plan, unit_table(rows), RATES, owner="de-nord")
    names = [plan.domains["segment"], plan.domains["product_line"]]
    slices = ("period", "prior_year")
    column = {"revenue": 4, "margin": 5, "lines": 6}
    for lane, value in zip(shared_lanes(plan), found.lanes.tolist(), strict=True):
        mine = [
            row for row in rows
            if slices[row[0]] == lane.measure.slice and (names[0][row[1]], names[1][row[2]]) == lane.cell.labels
        ]  # fmt: skip
        total = sum(row[column[lane.measure.source]] for row in mine)
        rate = RATES[lane.measure.translate] if lane.measure.translate else "1"
        assert value == gc(total, lane.measure.scale, rate, lane.measure.scale)
    for number, bits in enumerate(found.tables):
        by_unit: dict[int, set[int]] = {}
        for row in rows:
            if row[0] == number:
                by_unit.setdefault(row[3], set()).add(5 * row[1] + row[2])
        assert sorted(map(tuple, (np.flatnonzero(line).tolist() for line in bits))) == sorted(
            tuple(sorted(cells)) for cells in by_unit.values()
        )
    assert found.empty == (not rows)
    assert (found.moved, found.below) == ((), ())


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(line, max_size=40, unique_by=lambda row: row[:4]), order=st.randoms())
def test_names_and_order_of_units_change_nothing(plan, rows, order):
    other = [(*row[:3], 99 - row[3], *row[4:]) for row in rows]
    order.shuffle(other)
    one, two = (compute_figures(plan, unit_table(some), RATES, owner="de-nord") for some in (rows, other))
    assert [pack_rows(bits) for bits in one.tables] == [pack_rows(bits) for bits in two.tables]
    assert np.array_equal(one.lanes, two.lanes)


def test_level_counts_count_a_unit_once_per_level():
    bits = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]], bool)
    assert [level.tolist() for level in level_counts(bits, [2, 2])] == [[2, 1, 0, 1], [2, 1], [2]]
    assert [level.tolist() for level in level_counts(bits[:0], [2, 2])] == [[0, 0, 0, 0], [0, 0], [0]]
    assert [level.tolist() for level in level_counts(bits[:, :1], [])] == [[2]]


def test_packed_rows_come_back_and_shuffled_ones_are_the_same_rows():
    bits = unit_rows(np.array([7, 7, 3]), np.array([0, 8, 8]), 9)
    assert np.array_equal(unpack_rows(pack_rows(bits), 9), bits)
    planes = [shuffled_planes(bits, bytes([seed]) * 32) for seed in (1, 1, 2)]
    rows = [np.unpackbits(one.view(np.uint8), axis=1, bitorder="little").T for one in planes]
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    for one in rows:
        assert len(one) == 64
        assert sorted(map(tuple, one[one.any(axis=1)].tolist())) == sorted(map(tuple, bits.astype(int).tolist()))
    with pytest.raises(ValueError, match="32 bytes"):
        shuffled_planes(bits, b"short")


def test_more_units_than_the_gate_allows_are_refused(made):
    plan = make_plan(made.federation, gate_at="region", max_units=1)
    rows = [(0, 0, 0, unit, 1, 1, 1) for unit in range(2)]
    with pytest.raises(LocalDataError, match=r"UNITS_TOO_MANY.*slice period.*at most 1"):
        compute_figures(plan, unit_table(rows), RATES, owner="de-nord")


def test_a_value_beyond_its_bound_is_refused(plan):
    rows = [(0, 0, 0, 0, 2 * 10**16 + 13, 1, 1)]
    with pytest.raises(LocalDataError, match="BOUND_EXCEEDED"):
        compute_figures(plan, unit_table(rows), {"period": "1.000001", "prior_year": "1"}, owner="de-nord")


def test_the_region_receives_the_leaf_figures_and_the_rows_in_another_order(one, plan):
    parcel = sealed(one)
    assert [done["already"] for done in deliver_all(one, parcel)] == [False] * 3
    books = pq.read_table(one.books).to_pylist()
    months = {"period": "2026-03", "prior_year": "2025-03"}
    column = {"revenue": "revenue_lc", "lines": None}
    got = dict(
        zip(
            [(lane.measure.name, lane.cell.labels) for lane in shared_lanes(plan)],
            one.region.receive(plan).tolist(),
            strict=True,
        )
    )
    for name, slice_, source in (("revenue", "period", "revenue"), ("lines_py", "prior_year", "lines")):
        for lane in (lane for lane in shared_lanes(plan) if lane.measure.name == name):
            mine = [
                row for row in books
                if str(row["booked_on"]).startswith(months[slice_]) and (row["segment"], row["product_line"]) == lane.cell.labels
            ]  # fmt: skip
            expected = sum(int(row[column[source]] * 100) for row in mine) if column[source] else len(mine)
            assert got[name, lane.cell.labels] == expected
    tables = one.region.receive_tables(plan)
    for month, rows in zip(months.values(), tables, strict=True):
        units = {row["customer_uid"] for row in books if str(row["booked_on"]).startswith(month)}
        assert int(rows.any(axis=1).sum()) == len(units)
        assert len(rows) % 64 == 0
    (filed,) = [signed.notice for signed in one.region.filed("de-1")]
    assert (filed.gate_k, filed.kind_of) == (1, "data")


def test_a_repeated_step_resends_the_same_bytes(one):
    parcel = sealed(one)
    deliver_all(one, parcel)
    again = sealed(one)
    assert again["filing"] == parcel["filing"]
    assert [done["already"] for done in deliver_all(one, again)] == [True] * 3


def test_the_sign_off_covers_the_rows(one, plan):
    contribution = figures(one)
    sign_all(one)
    of = ContributionId(plan.digest, PERIOD, one.owner, 1)
    record = read_contribution(one.site.state, of, contribution["commitment"])
    rows = record.rows(leaf_count(plan))
    assert len(rows) == 2
    # The same amounts with another row of bits are other figures, and ask for other signatures.
    changed = rows[0].copy()
    changed[0] = ~changed[0]
    table = compute_figures(plan, unit_table([]), RATES, owner=one.owner)
    kept = keep_contribution(
        one.site.state, of,
        replace(table, lanes=record.values(), empty=False, tables=(changed, rows[1]), local={}),
        tie_out=record.tie_out, reference=record.reference, rates=record.rates,
    )  # fmt: skip
    assert kept.commitment != record.commitment
    same = keep_contribution(
        one.site.state, of, replace(table, lanes=record.values(), empty=False, tables=tuple(rows), local={}),
        tie_out=record.tie_out, reference=record.reference, rates=record.rates,
    )  # fmt: skip
    assert same.commitment == record.commitment
    with pytest.raises(PolicyViolation, match="SIGN_OFF_MISSING"):
        filing.share_and_seal(*one.call, PERIOD, {"commitment": kept.commitment}, None, open_sftp=one.region.open)


def test_the_page_shows_own_figures_and_says_what_goes_with_them(one, plan):
    contribution = figures(one)
    page = (one.site.state.require(_page_name(one, plan, contribution), limit_bytes=1 << 22)).decode()
    assert "are shared as they are" in page
    assert "one row of bits for each unit" in page
    assert "happened nowhere" not in page
    record = read_contribution(
        one.site.state, ContributionId(plan.digest, PERIOD, one.owner, 1), contribution["commitment"]
    )
    heads, rows = contribution_rows(plan, record)
    labels = [label for label, _ in rows]
    assert not any("not allocated" in label for label in labels)
    total = dict(zip(heads, dict(rows)["Total"], strict=True))
    books = pq.read_table(one.books).to_pylist()
    month = [row for row in books if str(row["booked_on"]).startswith("2026-03")]
    assert total["customers"] == f"{len({row['customer_uid'] for row in month}):,}"
    assert total["lines"] == f"{len(month):,}"


def _page_name(one, plan, contribution):
    return f"{ContributionId(plan.digest, PERIOD, one.owner, 1).folder}/{contribution['commitment']}.html"


def test_an_owner_without_rows_files_nothing(one, made):
    table = pq.read_table(one.books)
    write_books(one.books, [], table.schema)
    parcel = sealed(one)
    assert (parcel["kind"], parcel["take"]) == ("nil", 1)
