"""Stores: exact types, only the asked rows, refusals that name column and count and never a value."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
from contextlib import closing
from decimal import Decimal

import fsspec
import openpyxl
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from local_stores.config import StoreConfig
from local_stores.stores import DateRange, Query, open_store
from local_stores.stores.casting import contract_schema
from mpc_ops.errors import ConfigError, LocalDataError, StoreUnavailable
from mpc_ops.federation.contract import Column, DatasetContract
from tests.support.postgres import SKIP_REASON, postgres_server, server_programs

CANARY = "CANARY-77"
CONTRACT = DatasetContract(
    name="sales_line",
    version=1,
    description="",
    data_class="personal",
    unit_label="customers",
    zone="Asia/Shanghai",
    primary_key=["invoice_no"],
    max_rows=1000,
    columns=[
        Column(name="invoice_no", type="int64", role="key", minimum="1", maximum="999"),
        Column(name="booked_on", type="date", role="period"),
        Column(name="customer_uid", type="string", role="unit"),
        Column(name="revenue_lc", type="decimal", scale=2, role="measure", minimum="-100", maximum="1000000"),
    ],
)
JANUARY = Query(
    CONTRACT, (DateRange(dt.date(2026, 1, 1), dt.date(2026, 2, 1)), DateRange(dt.date(2025, 1, 1), dt.date(2025, 2, 1)))
)
NAMES = [column.name for column in CONTRACT.columns]
ROWS = [
    (1, "2026-01-01", "c1", "10.50"),
    (2, "2026-01-31", "c2", "-3.00"),
    (3, "2026-02-01", "c3", "7.00"),
    (4, "2025-01-15", "c1", "999999.99"),
    (5, "2025-12-31", "c4", "1.00"),
]
WANTED = {1: "10.50", 2: "-3.00", 4: "999999.99"}


def read(config: StoreConfig, query: Query = JANUARY) -> pa.Table:
    with open_store(config).read(query) as reading:
        assert reading.identity
        return pa.Table.from_batches(list(reading.batches), contract_schema(query.contract))


def check(table: pa.Table) -> None:
    assert table.schema == contract_schema(CONTRACT)
    rows = {row["invoice_no"]: row for row in table.to_pylist()}
    assert {number: row["revenue_lc"] for number, row in rows.items()} == {n: Decimal(t) for n, t in WANTED.items()}
    assert rows[4]["booked_on"] == dt.date(2025, 1, 15)


def parquet(folder, rows=ROWS, **types):
    table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(NAMES)})
    for name, kind in types.items():
        table = table.set_column(NAMES.index(name), name, table[name].cast(kind))
    folder.mkdir(exist_ok=True)
    pq.write_table(table.slice(0, 2), folder / "a.parquet")
    pq.write_table(table.slice(2), folder / "b.parquet")
    return StoreConfig(dataset="sales_line", kind="parquet", location=str(folder))


def sqlite(path, rows=ROWS, kinds="INTEGER, TEXT, TEXT, TEXT"):
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(NAMES, kinds.split(", "), strict=True))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"CREATE TABLE sales_line ({columns})")
        db.executemany("INSERT INTO sales_line VALUES (?, ?, ?, ?)", rows)
    return StoreConfig(dataset="sales_line", kind="sqlite", location=str(path))


def csv_file(path, rows=ROWS, *, head=NAMES, mark=",", encoding="utf-8", **more):
    lines = [mark.join(head), *(mark.join(map(str, row)) for row in rows)]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return StoreConfig(dataset="sales_line", kind="csv", location=str(path), delimiter=mark, **more)


def excel(path, rows, sheet="sales_line"):
    book = openpyxl.Workbook()
    book.active.title = sheet
    for row in [NAMES, *rows]:
        book.active.append(list(row))
    book.save(path)
    return StoreConfig(dataset="sales_line", kind="excel", location=str(path))


def test_store_parquet(tmp_path):
    check(read(parquet(tmp_path / "text")))
    exact = {"booked_on": pa.date32(), "revenue_lc": pa.decimal128(18, 2), "invoice_no": pa.int32()}
    check(read(parquet(tmp_path / "exact", **exact)))
    check(read(parquet(tmp_path / "codes", customer_uid=pa.dictionary(pa.int32(), pa.string()))))


def test_store_sqlite(tmp_path):
    check(read(sqlite(tmp_path / "books.sqlite")))
    numbers = [(n, day, who, int(Decimal(text))) for n, day, who, text in ROWS[:2]]
    assert read(sqlite(tmp_path / "whole.sqlite", numbers, "INTEGER, TEXT, TEXT, INTEGER")).num_rows == 2


def test_store_sqlite_query_and_names(tmp_path):
    config = sqlite(tmp_path / "books.sqlite")
    renamed = StoreConfig(
        dataset="sales_line", kind="sqlite", location=config.location, columns={"revenue_lc": 'Net "rev" %'},
        query="""SELECT invoice_no, booked_on, customer_uid, revenue_lc AS "Net ""rev"" %" FROM sales_line;""",
    )  # fmt: skip
    check(read(renamed))


def test_store_csv(tmp_path):
    check(read(csv_file(tmp_path / "a.csv")))
    check(read(csv_file(tmp_path / "bom.csv", encoding="utf-8-sig")))
    german = [(n, f"{day[8:]}.{day[5:7]}.{day[:4]}", who, text.replace(".", ",")) for n, day, who, text in ROWS]
    config = csv_file(
        tmp_path / "de.csv", german, head=["Nr", "Datum", "Kunde", "Erlös"], mark=";", encoding="cp1252",
    )  # fmt: skip
    config = StoreConfig(
        dataset="sales_line", kind="csv", location=config.location, delimiter=";", encoding="cp1252", decimal_mark=",",
        date_format="%d.%m.%Y", columns=dict(zip(NAMES, ["Nr", "Datum", "Kunde", "Erlös"], strict=True)),
    )  # fmt: skip
    check(read(config))


def test_store_csv_locale_is_never_guessed(tmp_path):
    rows = [(1, "2026-01-01", "c1", '"10,50"'), (2, "01/02/2026", "c1", "1.00"), (3, "2026-02-30", "c1", "1e3")]
    with pytest.raises(LocalDataError) as caught:
        read(csv_file(tmp_path / "a.csv", rows))
    assert caught.value.code == "VALUE_OUTSIDE_CONTRACT"
    assert "booked_on (2 as date), revenue_lc (2 as decimal of scale 2)" in str(caught.value)
    assert "10,50" not in str(caught.value)


def test_store_excel(tmp_path):
    rows = [(n, dt.date.fromisoformat(day), who, float(text)) for n, day, who, text in ROWS]
    check(read(excel(tmp_path / "a.xlsx", rows)))
    check(read(excel(tmp_path / "b.xlsx", ROWS, sheet="Tabelle1")))
    with pytest.raises(LocalDataError, match="STORE_SCHEMA: the workbook has no sheet other"):
        read(StoreConfig(dataset="sales_line", kind="excel", location=str(tmp_path / "a.xlsx"), table="other"))


def test_store_excel_numbers_that_would_be_guesses(tmp_path):
    rows = [
        (1, dt.date(2026, 1, 1), "c1", 123456789012.3456),  # more digits than a workbook keeps exactly
        (2, 46023.0, "c2", 1.25),  # a number is not a date
        (3, dt.date(2026, 1, 2), "c3", 1.255),  # more digits than the scale
        (4, dt.date(2026, 1, 2), "c3", True),
    ]
    with pytest.raises(LocalDataError, match=r"booked_on \(1 as date\).*revenue_lc \(3 as decimal") as caught:
        read(excel(tmp_path / "a.xlsx", rows))
    assert "46023" not in str(caught.value)


def test_store_timestamps_become_dates_in_the_contract_zone(tmp_path):
    moments = [dt.datetime(2025, 12, 31, 16, 0, tzinfo=dt.UTC), dt.datetime(2026, 1, 31, 16, 0, tzinfo=dt.UTC)]
    rows = [(n + 1, moment, "c", "1.00") for n, moment in enumerate(moments)]
    table = read(parquet(tmp_path / "zone", rows))
    assert table["booked_on"].to_pylist() == [dt.date(2026, 1, 1)]  # the second is 1 February in Shanghai


def test_store_rows_without_a_date_are_kept_for_the_encoder(tmp_path):
    rows = [*ROWS, (6, None, "c9", "1.00")]
    assert None in read(sqlite(tmp_path / "a.sqlite", rows))["booked_on"].to_pylist()
    assert None in read(parquet(tmp_path / "p", rows, booked_on=pa.date32()))["booked_on"].to_pylist()


@pytest.mark.parametrize("kind", ["parquet", "sqlite"])
def test_store_floats_are_refused(tmp_path, kind):
    rows = [(n, day, CANARY, float(text)) for n, day, _, text in ROWS]
    if kind == "parquet":
        with pytest.raises(
            LocalDataError, match="STORE_SCHEMA: column revenue_lc comes as a floating-point number"
        ) as caught:
            read(parquet(tmp_path / "f", rows))
    else:
        with pytest.raises(
            LocalDataError, match=r"VALUE_OUTSIDE_CONTRACT.*revenue_lc \(5 as decimal of scale 2\)"
        ) as caught:
            read(sqlite(tmp_path / "f.sqlite", rows, "INTEGER, TEXT, TEXT, REAL"))
    assert CANARY not in str(caught.value)


def test_store_digits_beyond_the_scale(tmp_path):
    rows = [(1, "2026-01-01", "c", "1.2300"), (2, "2026-01-01", "c", "1.234"), (3, "2026-01-01", "c", "9" * 40)]
    with pytest.raises(LocalDataError, match=r"revenue_lc \(2 as decimal of scale 2\)"):
        read(sqlite(tmp_path / "a.sqlite", rows))
    exact = pa.decimal128(38, 3)
    with pytest.raises(LocalDataError, match=r"revenue_lc \(1 as decimal of scale 2\)"):
        read(parquet(tmp_path / "p", rows[:2], revenue_lc=exact))


def test_store_not_there(tmp_path):
    for kind in ("parquet", "sqlite", "csv", "excel"):
        config = StoreConfig(dataset="sales_line", kind=kind, location=str(tmp_path / "nothing"))
        with pytest.raises(StoreUnavailable, match="STORE_UNAVAILABLE") as caught:
            read(config)
        assert caught.value.transient


def test_store_columns_missing_or_twice(tmp_path):
    with pytest.raises(LocalDataError, match="STORE_SCHEMA: the source has no column revenue_lc"):
        read(csv_file(tmp_path / "a.csv", head=[*NAMES[:3], "net"]))
    with pytest.raises(LocalDataError, match="the source has two columns customer_uid"):
        read(csv_file(tmp_path / "b.csv", [(*row, "x") for row in ROWS], head=[*NAMES, "customer_uid"]))
    config = sqlite(tmp_path / "books.sqlite")
    other = StoreConfig(dataset="sales_line", kind="sqlite", location=config.location, table="ledger")
    with pytest.raises(LocalDataError, match="STORE_SCHEMA: the SQLite file lacks a table or column"):
        read(other)


def test_store_csv_ragged_line_is_not_quoted(tmp_path):
    with pytest.raises(LocalDataError, match="STORE_SCHEMA: 1 lines of the CSV file have another number") as caught:
        read(csv_file(tmp_path / "a.csv", [*ROWS, (CANARY,)]))
    assert CANARY not in str(caught.value)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LocalDataError, match="STORE_SCHEMA: the CSV file is not utf-8 text"):
        read(StoreConfig(dataset="sales_line", kind="csv", location=str(tmp_path / "b.csv")))
    (tmp_path / "c.xlsx").write_bytes(b"not a workbook")
    with pytest.raises(LocalDataError, match="STORE_SCHEMA: the file is not an Excel workbook"):
        read(StoreConfig(dataset="sales_line", kind="excel", location=str(tmp_path / "c.xlsx")))


def consume(reading, path):
    os.utime(path, (1, 1))
    list(reading.batches)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_store_source_that_changes_while_it_is_read(tmp_path, kind):
    config = parquet(tmp_path / "p") if kind == "parquet" else csv_file(tmp_path / "a.csv")
    path = tmp_path / "p" / "b.parquet" if kind == "parquet" else tmp_path / "a.csv"
    with pytest.raises(StoreUnavailable, match="SOURCE_CHANGED"), open_store(config).read(JANUARY) as reading:
        consume(reading, path)


def test_store_sqlite_reads_one_consistent_state_and_writes_nothing(tmp_path):
    path = tmp_path / "books.sqlite"
    config = sqlite(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        with open_store(config).read(JANUARY) as reading:
            with db:
                db.execute("DELETE FROM sales_line")
            assert sum(batch.num_rows for batch in reading.batches) == 3
    evil = StoreConfig(
        dataset="sales_line", kind="sqlite", location=str(path),
        query="DELETE FROM sales_line RETURNING *",
    )  # fmt: skip
    with pytest.raises(LocalDataError):
        read(evil)


def test_store_parquet_at_a_url():
    files = fsspec.filesystem("memory")
    with files.open("/comity-books/a.parquet", "wb") as file:
        pq.write_table(pa.table({name: [row[place] for row in ROWS] for place, name in enumerate(NAMES)}), file)
    check(read(StoreConfig(dataset="sales_line", kind="parquet", location="memory://comity-books")))


@pytest.fixture(scope="module")
def server():
    programs = server_programs()
    if programs is None:
        pytest.skip(SKIP_REASON)
    with postgres_server(programs) as location:
        yield location


def test_store_postgres(server):
    with psycopg.connect(server) as db:
        db.execute(
            "CREATE TABLE sales_line (invoice_no bigint, booked_on date, customer_uid text, revenue_lc numeric, "
            "booked_at timestamptz, rough float8)"
        )
        for row in ROWS:
            db.execute("INSERT INTO sales_line VALUES (%s, %s, %s, %s, %s, 1.5)", (*row, row[1] + " 12:00+00"))
    config = StoreConfig(dataset="sales_line", kind="postgres", location=server)
    check(read(config))
    check(read(StoreConfig(dataset="sales_line", kind="postgres", location=server, columns={"booked_on": "booked_at"})))
    query = "SELECT *, revenue_lc * 1.0 AS net FROM public.sales_line WHERE customer_uid LIKE 'c%'"
    check(
        read(
            StoreConfig(
                dataset="sales_line", kind="postgres", location=server, query=query, columns={"revenue_lc": "net"}
            )
        )
    )
    with pytest.raises(LocalDataError, match="STORE_SCHEMA: column revenue_lc comes as a floating-point number"):
        read(StoreConfig(dataset="sales_line", kind="postgres", location=server, columns={"revenue_lc": "rough"}))
    with pytest.raises(LocalDataError, match=r"STORE_SCHEMA: PostgreSQL refuses the store's SELECT \(SQLSTATE 42P01\)"):
        read(StoreConfig(dataset="sales_line", kind="postgres", location=server, table="other"))
    evil = "DELETE FROM sales_line RETURNING *"
    with pytest.raises(LocalDataError):
        read(StoreConfig(dataset="sales_line", kind="postgres", location=server, query=evil))


def test_store_postgres_one_transaction(server):
    with psycopg.connect(server, autocommit=True) as db:
        db.execute("CREATE TABLE ledger (invoice_no bigint, booked_on date, customer_uid text, revenue_lc numeric)")
        db.execute("INSERT INTO ledger VALUES (1, '2026-01-05', 'c1', 1.00)")
        with open_store(StoreConfig(dataset="sales_line", kind="postgres", location=server, table="ledger")).read(
            JANUARY
        ) as reading:
            db.execute("INSERT INTO ledger VALUES (2, '2026-01-05', 'c1', 1.00)")
            assert sum(batch.num_rows for batch in reading.batches) == 1


def test_store_postgres_not_there(tmp_path):
    config = StoreConfig(dataset="sales_line", kind="postgres", location=f"host={tmp_path} dbname=x user=y")
    with pytest.raises(StoreUnavailable, match="STORE_UNAVAILABLE: PostgreSQL does not answer"):
        read(config)
    wrong = StoreConfig(dataset="sales_line", kind="postgres", location=f"host={tmp_path}", password_env="NOT_SET_HERE")
    with pytest.raises(ConfigError, match="SECRET_MISSING"):
        read(wrong)
