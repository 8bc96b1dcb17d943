"""The oracle: its Gate case by case, its figures against plain Python, and what the demo's months show."""

from collections import Counter, defaultdict
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from infra.demo.data import ENTITIES, PRODUCT_LINES, SEGMENTS, prepare
from infra.demo.oracle import MEASURES, differences, exact_match, gate_map, lines_of, published_rows, report
from infra.demo.reference import PERIODS, rates
from local_stores.publish.editions import publish
from tests.support.demo_data import small_stores
from tests.support.gate_reference import gate, level_counts
from tests.support.publish_sample import basis, oracle_table

CACHE = Path(__file__).resolve().parents[2] / "var" / "cache" / "tpch"
FLAT = {month: {code: {"avg_rate": "1.00000000"} for code in ("EUR", "CNY")} for month in ("2025-03", "2026-03")}


def lines(*rows):
    """Rows of (entity, slice, segment, product line, customer, revenue, cost)."""
    names = ("entity", "slice", "segment", "product_line", "customer", "revenue", "cost")
    return pa.table({name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)})


def cell(segment, line, customers, entity="a", at="month"):
    return [(entity, at, segment, line, f"c{number}", 100, 40) for number in customers]


APART = {"a": "a", "b": "b"}
TOGETHER = {"a": "r", "b": "r"}


def moves(rows, k=10, regions=APART, **terms):
    found = gate_map(lines(*rows), k, regions=regions, **terms)
    return {(leaf.segment, leaf.product_line): place for leaf, place in found.items()}


def test_gate_leaves_cells_of_ten_alone():
    assert moves(cell("S", "A", range(10)) + cell("S", "B", range(10))) == {
        ("S", "A"): ("S", "A"),
        ("S", "B"): ("S", "B"),
    }


def test_gate_unites_small_leaves_of_a_segment_by_distinct_customers():
    apart = cell("S", "A", range(5)) + cell("S", "B", range(5, 10)) + cell("T", "A", range(20, 40))
    assert moves(apart) == {("S", "A"): ("S", ""), ("S", "B"): ("S", ""), ("T", "A"): ("T", "A")}
    same = (
        cell("S", "A", range(9))
        + cell("S", "B", range(9))
        + cell("T", "A", range(20, 40))
        + cell("U", "A", range(40, 70))
    )
    # nine customers in all: up to the top, where the smaller of the two big cells joins them
    assert moves(same) == {("S", "A"): ("", ""), ("S", "B"): ("", ""), ("T", "A"): ("", ""), ("U", "A"): ("U", "A")}


def test_gate_absorbs_several_cells_while_they_bring_no_new_customers():
    rows = cell("S", "A", range(9)) + cell("T", "A", range(10)) + cell("T", "B", range(10)) + cell("T", "C", range(30))
    assert moves(rows) == {("S", "A"): ("", ""), ("T", "A"): ("", ""), ("T", "B"): ("T", "B"), ("T", "C"): ("T", "C")}
    with_overlap = [(*row[:4], row[4].replace("c", "d"), *row[5:]) for row in cell("S", "A", range(3))] + cell(
        "T", "A", range(10)
    )
    assert set(moves(with_overlap, k=11).values()) == {("", "")}


def test_gate_breaks_ties_by_segment_then_line_and_counts_not_allocated_cells_too():
    rows = (
        cell("S", "A", range(9))
        + cell("T", "A", range(20, 26)) + cell("T", "B", range(26, 32))  # together 12 in T's not-allocated cell
        + cell("T", "C", range(40, 52)) + cell("R", "Z", range(60, 72))  # 12 each as well
    )  # fmt: skip
    assert moves(rows)["R", "Z"] == ("", "")
    rows = [row for row in rows if row[2] != "R"]
    assert moves(rows) == {("S", "A"): ("", ""), ("T", "A"): ("", ""), ("T", "B"): ("", ""), ("T", "C"): ("T", "C")}


def test_gate_drops_a_region_below_k_and_runs_per_region_and_slice():
    rows = cell("S", "A", range(9), "a") + cell("S", "A", range(10), "b") + cell("S", "A", range(30), "a", "prior")
    found = gate_map(lines(*rows), regions=APART)
    assert {(leaf.region, leaf.slice) for leaf in found} == {("b", "month"), ("a", "prior")}
    table = report(lines(*rows), "2026-03", FLAT, currencies={"a": "EUR", "b": "EUR"}, regions=APART)
    total = table[-1].values
    assert (total["customers"], total["revenue"], total["customers_py"]) == (10, 1000, 30)


def test_small_owners_pass_together_and_a_customer_of_both_counts_as_two():
    rows = cell("S", "A", range(5), "a") + cell("S", "A", range(5), "b") + cell("S", "B", range(9), "a")
    assert moves(rows, regions=TOGETHER) == {("S", "A"): ("", ""), ("S", "B"): ("", "")}
    rows += cell("T", "A", range(20, 40), "b")
    assert moves(rows, regions=TOGETHER) == {("S", "A"): ("", ""), ("S", "B"): ("", ""), ("T", "A"): ("T", "A")}
    assert moves(rows, k=9, regions=TOGETHER)["S", "A"] == ("S", "A")
    table = report(lines(*rows), "2026-03", FLAT, currencies={"a": "EUR", "b": "EUR"}, regions=TOGETHER, k=9)
    assert table[-1].values["customers"] == 9 + 5 + 20


def test_a_cell_of_one_big_owner_moves_where_two_owners_are_asked_for():
    both = cell("T", "A", range(20, 26), "a") + cell("T", "A", range(20, 26), "b")
    rows = both + cell("S", "A", range(500), "a") + cell("S", "B", range(1), "b")
    # S/A holds 500 customers of one owner; with the other's one in S/B its segment's not-allocated cell passes
    assert moves(rows, regions=TOGETHER, min_owners=2) == {
        ("S", "A"): ("S", ""), ("S", "B"): ("S", ""), ("T", "A"): ("T", "A"),
    }  # fmt: skip
    assert moves(rows, regions=TOGETHER)["S", "A"] == ("S", "A")
    alone = both + cell("S", "A", range(500), "a")
    assert set(moves(alone, regions=TOGETHER, min_owners=2).values()) == {("", "")}
    table = report(lines(*rows), "2026-03", FLAT, currencies={"a": "EUR", "b": "EUR"}, regions=TOGETHER, min_owners=2)
    assert table[-1].values["customers"] == 500 + 6 + 1


def test_a_top_of_one_owner_absorbs_the_smallest_cell_which_brings_the_other_owner():
    rows = cell("S", "A", range(30), "a")
    rows += cell("T", "A", range(40, 51), "a") + cell("T", "A", range(40, 51), "b") + cell("U", "A", range(60, 90), "b")
    rows += cell("U", "A", range(60, 90), "a")
    assert moves(rows, regions=TOGETHER, min_owners=2) == {
        ("S", "A"): ("", ""), ("T", "A"): ("", ""), ("U", "A"): ("U", "A"),
    }  # fmt: skip


def test_a_region_of_too_few_owners_contributes_nothing():
    rows = cell("S", "A", range(500), "a") + cell("T", "B", range(500), "a")
    assert moves(rows, regions=TOGETHER, min_owners=2) == {}
    rows += cell("S", "A", [1], "b", "prior")  # in the other slice only
    assert moves(rows, regions=TOGETHER, min_owners=2) == {}
    table = report(lines(*rows), "2026-03", FLAT, currencies={"a": "EUR", "b": "EUR"}, regions=TOGETHER, min_owners=2)
    assert {value for row in table for value in row.values.values()} == {0}


def test_amounts_are_translated_leaf_by_leaf_and_entity_by_entity_before_they_move():
    # Half a cent twice: rounded half-even each to 0 before the Gate; together they would be 1.
    rows = [("a", "month", "BUILDING", line, f"c{line}", 1, 0) for line in ("TIN", "STEEL")]
    rows += [("b", "month", "MACHINERY", "TIN", f"d{number}", 100, 0) for number in range(3)]
    fx = FLAT | {"2026-03": {"EUR": {"avg_rate": "0.50000000"}}}
    table = report(lines(*rows), "2026-03", fx, currencies={"a": "EUR", "b": "EUR"}, regions=TOGETHER, k=2)
    values = {(row.segment, row.product_line): row.values for row in table}
    assert (values["BUILDING", ""]["lines"], values["BUILDING", ""]["revenue"]) == (2, 0)


def test_k_of_one_moves_nothing():
    assert moves(cell("S", "A", [1]) + cell("T", "B", [2]), k=1) == {("S", "A"): ("S", "A"), ("T", "B"): ("T", "B")}


@pytest.mark.parametrize(
    ("amount", "rate", "expected"),
    [(1, "0.50000000", 0), (3, "0.50000000", 2), (5, "0.50000000", 2), (-1, "0.50000000", 0), (-3, "0.50000000", -2),
     (1, "0.50000001", 1), (-1, "0.50000001", -1), (10**15 + 1, "1234.56789012", 1234567890120001235), (-7, "1.00000000", -7)],
)  # fmt: skip
def test_translation_is_half_even_on_integers_for_both_signs(amount, rate, expected):
    assert int((Decimal(amount) * Decimal(rate)).quantize(Decimal(1), ROUND_HALF_EVEN)) == expected
    table = report(
        lines(("a", "month", "BUILDING", "TIN", "c", amount, 0)),
        "2026-03",
        FLAT | {"2026-03": {"EUR": {"avg_rate": rate}}},
        currencies={"a": "EUR"},
        regions=APART,
        k=1,
    )
    assert table[-1].values["revenue"] == expected


def by_hand(stores, period, rate_table, k, min_owners=1):
    """The report in plain Python: sets, Decimal and the brute-force Gate over the entities of a jurisdiction."""
    currency = {e.name: e.currency for e in ENTITIES}
    place_of = {e.name: e.jurisdiction for e in ENTITIES}
    out = defaultdict(Counter)
    by_slice = defaultdict(list)
    for row in lines_of(stores, period).to_pylist():
        by_slice[place_of[row["entity"]], row["slice"]].append(row)
    for (_, at), rows in by_slice.items():
        keys = [(row["segment"], row["product_line"], (row["entity"], row["customer"])) for row in rows]
        to, tail = gate(keys, k, min_owners), "" if at == "month" else "_py"
        sums = defaultdict(Counter)
        for row in rows if to else []:
            leaf = row["entity"], row["segment"], row["product_line"]
            sums[leaf].update(revenue=row["revenue"], cost=row["cost"], lines=1)
        month = period if at == "month" else f"{int(period[:4]) - 1}{period[4:]}"
        for (entity, *leaf), cell_sums in sums.items():
            place = to[tuple(leaf)]
            figures = {f"lines{tail}": cell_sums["lines"]}
            for suffix, rate_month in {(tail, month)} | ({("_py_cc", period)} if at == "prior" else set()):
                rate = Decimal(rate_table[rate_month][currency[entity]]["avg_rate"])
                both = (cell_sums["revenue"], cell_sums["revenue"] - cell_sums["cost"])
                revenue, margin = (int((amount * rate).quantize(Decimal(1), ROUND_HALF_EVEN)) for amount in both)
                figures |= {f"revenue{suffix}": revenue, f"margin{suffix}": margin}
            for target in {place, (place[0], None), (None, None)} - {("", None)}:
                out[target].update(figures)
        for place, count in level_counts(keys, k, min_owners).items():
            out[place][f"customers{tail}"] += count
    return out


@pytest.mark.parametrize(("k", "min_owners"), [(1, 1), (10, 1), (19, 1), (10, 2), (1, 3)])
def test_the_whole_table_equals_plain_python(tmp_path, k, min_owners):
    stores = small_stores(tmp_path, canaries=False).stores
    rows = report(lines_of(stores, "2026-03"), "2026-03", rates(), k=k, min_owners=min_owners)
    expected = by_hand(stores, "2026-03", rates(), k, min_owners)
    for row in rows:
        assert {name: expected[row.segment, row.product_line][name] for name in MEASURES} == row.values, (
            row.segment,
            row.product_line,
        )
    assert expected.keys() <= {(row.segment, row.product_line) for row in rows}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    stores = prepare(tmp_path_factory.mktemp("stores"), CACHE)
    return {period: lines_of(stores, period) for period in PERIODS}


def test_the_demo_report_has_every_row_and_foots(demo):
    for period, table in demo.items():
        rows = {(row.segment, row.product_line): row.values for row in report(table, period, rates())}
        assert len(rows) == 5 * 7 + 2
        for name in MEASURES:
            if name.startswith("customers"):
                continue
            for segment in SEGMENTS:
                assert sum(rows[segment, line][name] for line in (*PRODUCT_LINES, "")) == rows[segment, None][name]
            assert (
                sum(rows[segment, None][name] for segment in (*SEGMENTS,)) + rows["", ""][name]
                == rows[None, None][name]
            )
        total = rows[None, None]
        assert total["lines"] + total["lines_py"] == table.num_rows  # nobody is dropped in the demo
        assert total["customers"] < sum(rows[place]["customers"] for place in rows if None not in place)


def test_the_gate_shows_every_one_of_its_steps_in_the_demo(demo):
    fired, alone = {}, 0
    for period, table in demo.items():
        for leaf, place in gate_map(table).items():
            if place != (leaf.segment, leaf.product_line):
                fired[period, *leaf] = place
        owners = gate_map(table, regions={e.name: e.name for e in ENTITIES})
        alone += sum(place != (leaf.segment, leaf.product_line) for leaf, place in owners.items())
    assert (len(fired), alone) == (16, 244)  # infra/demo/README.md says so: small owners pass together
    assert sum(key[-1] < 10 for key in fired) == 15
    assert {key[1] for key in fired} == {"IN"}
    assert fired["2026-02", "IN", "month", "MACHINERY", "STEEL", 8] == ("MACHINERY", "")  # with two others
    assert fired["2026-01", "IN", "month", "HOUSEHOLD", "BRASS", 9] == ("", "")  # alone in its segment
    assert fired["2026-01", "IN", "month", "FURNITURE", "COPPER", 11] == ("", "")  # absorbed, though not small
    assert {key[0] for key in fired} == set(PERIODS)
    assert min(leaf.customers for table in demo.values() for leaf in gate_map(table)) == 5


def test_differences_name_row_and_measure_but_no_figure(demo):
    rows = report(demo["2026-03"], "2026-03", rates())
    published = {(row.segment, row.product_line): dict(row.values) for row in rows}
    assert exact_match(rows, published)
    published["BUILDING", "TIN"]["revenue"] += 1
    del published["", ""]
    published["BUILDING", "ZINC"] = dict(published["BUILDING", "TIN"])
    assert not exact_match(rows, published)
    assert differences(rows, published) == [
        '["", ""]: row is missing in the published table',
        '["BUILDING", "TIN"]: revenue differs',
        '["BUILDING", "ZINC"]: row is missing in the oracle',
    ]


def test_what_is_published_can_be_compared_with_the_oracle(demo, tmp_path):
    rows = report(demo["2026-03"], "2026-03", rates())
    published = publish(oracle_table(rows, "2026-03"), basis(), tmp_path)
    assert exact_match(rows, published_rows(published.folder / "result.parquet"))
    other = report(demo["2026-02"], "2026-03", rates())
    assert differences(other, published_rows(published.folder / "result.parquet"))
