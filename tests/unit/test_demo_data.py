"""The demo's books: what TPC-H gave, moved and divided, in two kinds of stores."""

import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infra.demo import data
from infra.demo.data import COLUMNS, ENTITIES, PRODUCT_LINES, SEGMENTS, prepare, read_store, write_store
from infra.demo.reference import rates
from tests.support.demo_data import find_secrets, secrets_of, small_lines, small_stores

CACHE = Path(__file__).resolve().parents[2] / "var" / "cache" / "tpch"


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return {store.entity: store for store in prepare(tmp_path_factory.mktemp("stores"), CACHE)}


@pytest.fixture(scope="module")
def books(stores):
    return {entity: read_store(store) for entity, store in stores.items()}


def test_every_nation_serves_one_entity_and_every_order_line_lies_in_one_store(books):
    nations = [nation for entity in ENTITIES for nation in entity.nations]
    assert len(nations) == len(set(nations)) == 25
    assert [(e.jurisdiction, e.currency) for e in ENTITIES].count(("SA", "SAR")) == 1
    assert sorted({e.jurisdiction for e in ENTITIES}) == ["CN", "DE", "IN", "SA"]
    assert sum(table.num_rows for table in books.values()) == 600_572


def test_known_lines_of_the_generator_arrive_exact_to_the_cent(books):
    # Order 1, line 1 of TPC-H: price 24,386.67 less 4 %, 17 pieces; 24386.67 * 0.96 = 23411.2032.
    lines = pa.concat_tables(books.values()).filter(pc.field("invoice_no") == 1).sort_by("line_no").to_pylist()
    assert (lines[0]["booked_on"].isoformat(), lines[0]["quantity"], str(lines[0]["revenue_lc"])) == (
        "2024-01-02",
        17,
        "23411.20",
    )


def test_leap_days_and_weekdays_survive_the_move_by_28_years(books):
    days = pc.unique(pa.concat_tables(books.values())["booked_on"]).to_pylist()
    assert (min(days).isoformat(), max(days).isoformat()) == ("2020-01-01", "2026-08-02")
    assert {day.isoformat() for day in days if (day.month, day.day) == (2, 29)} == {"2020-02-29", "2024-02-29"}
    assert min(days).weekday() == 2  # 1992-01-01 was a Wednesday as well


@pytest.mark.parametrize("entity", [e.name for e in ENTITIES])
def test_every_store_keeps_domains_types_and_keys(books, entity):
    table = books[entity]
    assert table.schema.equals(COLUMNS)
    assert set(pc.unique(table["segment"]).to_pylist()) == set(SEGMENTS)
    assert set(pc.unique(table["product_line"]).to_pylist()) == set(PRODUCT_LINES)
    assert table.group_by(["invoice_no", "line_no"]).aggregate([]).num_rows == table.num_rows
    assert all(column.null_count == 0 for column in table.columns)


def test_sqlite_holds_text_decimals_and_text_dates_as_a_customer_would_have_them(stores):
    with closing(sqlite3.connect(stores["cn-south"].path)) as db:
        kinds = db.execute(
            "SELECT DISTINCT typeof(booked_on), typeof(revenue_lc), typeof(cost_lc), typeof(quantity) FROM sales_line"
        ).fetchall()
        assert kinds == [("text", "text", "text", "integer")]
        assert db.execute("SELECT COUNT(*) FROM sales_line WHERE revenue_lc NOT GLOB '*.[0-9][0-9]'").fetchone() == (0,)
    assert {store.kind for store in stores.values()} == {"parquet", "sqlite"}


def test_half_cents_of_discounted_prices_are_rounded_to_even():
    with closing(duckdb.connect()) as db:
        for name, columns in {
            "lineitem": "1 l_orderkey, 1 l_linenumber, 1 l_partkey, 1 l_suppkey, 2.00::DECIMAL(15,2) l_quantity, 0.05::DECIMAL(15,2) l_discount",
            "orders": "1 o_orderkey, 1 o_custkey, DATE '1992-02-29' o_orderdate",
            "customer": "1 c_custkey, 1 c_nationkey, 'Customer#1' c_name, 'BUILDING' c_mktsegment",
            "nation": "1 n_nationkey, 'KENYA' n_name",
            "mapping": "'KENYA' nation, 'in-south' entity",
            "part": "1 p_partkey, 'LARGE POLISHED TIN' p_type",
            "partsupp": "1 ps_partkey, 1 ps_suppkey, 0.33::DECIMAL(15,2) ps_supplycost",
        }.items():
            prices = ", unnest([0.10, 0.30, 0.11]::DECIMAL(15,2)[]) l_extendedprice" if name == "lineitem" else ""
            db.execute(f"CREATE TABLE {name} AS SELECT {columns}{prices}")
        rows = db.execute(data._LINES_SQL).fetchall()
    # 0.0950, 0.2850 and 0.1045
    assert [str(row[8]) for row in rows] == ["0.10", "0.28", "0.10"]
    assert {(str(row[9]), row[3].isoformat(), row[6]) for row in rows} == {("0.66", "2020-02-29", "TIN")}


@pytest.mark.parametrize("kind", ["parquet", "sqlite"])
def test_a_store_gives_back_what_was_written_and_only_the_days_asked_for(tmp_path, kind):
    table = small_lines("cn-east", ["2025-12", "2026-01"])
    store = write_store("cn-east", kind, table, tmp_path)
    january = read_store(store, "2026-01-01", "2026-02-01")
    assert 0 < january.num_rows < table.num_rows
    assert pc.min(january["booked_on"]).as_py().isoformat() >= "2026-01-01"
    order = [("booked_on", "ascending"), ("invoice_no", "ascending"), ("line_no", "ascending")]
    assert read_store(store).sort_by(order).equals(table.sort_by(order))
    assert read_store(store, "2030-01-01", "2030-02-01").num_rows == 0


@pytest.mark.parametrize("kind", ["parquet", "sqlite"])
def test_an_empty_store_can_be_written_and_read(tmp_path, kind):
    assert read_store(write_store("cn-east", kind, COLUMNS.empty_table(), tmp_path)).equals(COLUMNS.empty_table())


def test_stores_are_written_anew_and_the_cache_stays_untouched(tmp_path):
    first = prepare(tmp_path, CACHE)
    sqlite_store = next(store for store in first if store.kind == "sqlite")
    original = sqlite_store.path.read_bytes()
    with closing(sqlite3.connect(sqlite_store.path)) as db, db:
        db.execute("DELETE FROM sales_line")
    prepare(tmp_path, CACHE)
    assert sqlite_store.path.read_bytes() == original


def test_small_stores_are_the_same_every_time_and_differ_by_entity(tmp_path):
    first, second = small_stores(tmp_path / "a"), small_stores(tmp_path / "b")
    assert [read_store(s).equals(read_store(t)) for s, t in zip(first.stores, second.stores, strict=True)] == [True] * 8
    assert not read_store(first.stores[0]).equals(read_store(first.stores[2]))
    assert len({canary.revenue for canary in first.canaries}) == 8


def test_the_search_finds_planted_values_in_each_encoding(tmp_path):
    demo = small_stores(tmp_path, entities=ENTITIES[:2])
    secrets = secrets_of(demo.stores, "2026-03", rates())
    canary = demo.canaries[1]
    minor = int(canary.revenue * 100)
    for leak in (
        b"x" * 3 + canary.customer.encode() + b"y",
        f"revenue {canary.revenue} EUR".encode(),
        f'{{"v":"{minor}"}}'.encode(),
        f"{canary.cost:,}".encode(),
        b"\x01" * 5 + minor.to_bytes(8, "little"),
        b"\x01" * 5 + minor.to_bytes(8, "big") + b"\x02",
    ):
        assert find_secrets(leak, secrets), leak
    for harmless in (b"", b"short", f"ab{minor}cd".encode(), b"Customer#", bytes(1000)):
        assert find_secrets(harmless, secrets) == []
    (tmp_path / "log.txt").write_text(f"customer {canary.customer}\n")
    assert [find.split(": ")[0] for find in find_secrets(tmp_path / "log.txt", secrets)] == [str(tmp_path / "log.txt")]


def test_parquet_stores_are_split_by_year(stores):
    names = sorted(path.name for path in stores["cn-east"].path.iterdir())
    assert names == [f"{year}.parquet" for year in range(2020, 2027)]
    assert pq.read_schema(stores["cn-east"].path / "2026.parquet").equals(COLUMNS)
