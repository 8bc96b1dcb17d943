"""Snapshots and the local plan: exact, repeatable, and in a sandbox that reaches nothing."""

from __future__ import annotations

import dataclasses
import datetime as dt
import errno
import http.server
import json
import os
import threading
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from local_stores.config import State, StoreConfig, create_owner_home, site_for_owner
from local_stores.snapshot import plan_worker
from local_stores.snapshot.local_plan import run_local_plan, run_sandboxed
from local_stores.snapshot.periods import prior_year_key, slice_ranges
from local_stores.snapshot.plan_sql import LocalQuery, local_query
from local_stores.snapshot.taking import load_snapshot, take_snapshot
from local_stores.stores.casting import contract_schema
from mpc_ops.errors import ComityError, ConfigError, LocalDataError, LocalProtocolError
from mpc_ops.federation.assemble import read_toml
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.notices.model import CalendarRow
from mpc_ops.plan.expr import Binary, Case, Column, InList, IsNull, Literal_, Logic, Not
from mpc_ops.plan.model import FilterNode
from tests.support.federation import DEMO_FOLDER, make_calendar, make_federation, make_plan

CONTRACT = read_toml(DEMO_FOLDER / "datasets" / "sales_line.toml", DatasetContract)
ROW = make_calendar(("2026-01",))[0]
secret_variable = pa.table({"x": [1]})  # what replacement scans would find


def rows(count=40):
    return [
        {
            "invoice_no": n + 1, "line_no": 1, "booked_on": dt.date(2026 - n % 2, 1, 1 + n % 28),
            "customer_uid": f"c{n % 7}", "segment": CONTRACT.column("segment").domain[n % 3],
            "product_line": CONTRACT.column("product_line").domain[n % 2], "quantity": 1 + n % 5,
            "revenue_lc": Decimal(n * 17).scaleb(-2), "cost_lc": Decimal(n * 5).scaleb(-2),
        }
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def home(tmp_path):
    (tmp_path / "books").mkdir()
    pq.write_table(pa.Table.from_pylist(rows(), contract_schema(CONTRACT)), tmp_path / "books" / "a.parquet")
    store = {"dataset": "sales_line", "kind": "parquet", "location": str(tmp_path / "books")}
    create_owner_home(tmp_path / "home", "de-nord", stores=[store], federation="../federation")
    return site_for_owner(tmp_path / "home").owner("de-nord")


@pytest.fixture
def state(tmp_path):
    return State(str(tmp_path / "state"))


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return make_plan(make_federation(tmp_path_factory.mktemp("federation")).federation)


def test_snapshot_periods():
    assert prior_year_key("2026-03") == "2025-03"
    assert prior_year_key("FY26-P07") == "FY25-P07"
    assert prior_year_key("FY10-P07") == "FY09-P07"
    for key in ("MARCH", "1-3", "Q1-123"):
        with pytest.raises(ConfigError, match="PERIOD_INVALID"):
            prior_year_key(key)
    ranges = slice_ranges(ROW)
    assert (ranges["prior_year"].start, ranges["prior_year"].end) == (dt.date(2025, 1, 1), dt.date(2025, 2, 1))
    moments = {"opens_at": ROW.opens_at, "cut_at": ROW.cut_at, "due_at": ROW.due_at}
    leap = CalendarRow(key="FY24-P03", start_date="2024-02-29", end_date="2024-03-28", **moments)
    assert slice_ranges(leap)["prior_year"].start == dt.date(2023, 3, 1)
    with pytest.raises(ConfigError, match="PERIOD_INVALID"):
        slice_ranges(CalendarRow(key="2024", start_date="2024-01-01", end_date="2025-06-01", **moments))


def test_snapshot_is_found_again_while_the_source_stays(tmp_path, home, state):
    first = take_snapshot(state, home, CONTRACT, ROW)
    assert take_snapshot(state, home, CONTRACT, ROW) == first
    # Other files, other row order, same rows: same snapshot.
    table = pa.Table.from_pylist(rows()[::-1], contract_schema(CONTRACT))
    (tmp_path / "books" / "a.parquet").unlink()
    pq.write_table(table, tmp_path / "books" / "z.parquet")
    assert take_snapshot(state, home, CONTRACT, ROW) == first
    pq.write_table(table.slice(0, 39), tmp_path / "books" / "z.parquet")
    second = take_snapshot(state, home, CONTRACT, ROW)
    assert second != first
    assert load_snapshot(state, CONTRACT, first).num_rows == load_snapshot(state, CONTRACT, second).num_rows + 1
    assert set(first) == {"owner", "dataset", "period", "cut", "snapshot"}


def test_snapshot_reference_is_no_digest_of_rows(state, home):
    reference = take_snapshot(state, home, CONTRACT, ROW)
    folder = "snapshots/{owner}/{dataset}/{period}/{cut}".format(**reference)
    meta = json.loads(state.require(f"{folder}/{reference['snapshot']}.json"))
    assert meta["cut_at"] == ROW.cut_at
    assert reference["snapshot"] not in meta["sha256"]


def test_snapshot_altered_or_of_another_contract(state, home):
    reference = take_snapshot(state, home, CONTRACT, ROW)
    path = "snapshots/{owner}/{dataset}/{period}/{cut}/{snapshot}.parquet".format(**reference)
    data = state.require(path)
    state.write(path, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(LocalDataError, match="SNAPSHOT_ALTERED"):
        load_snapshot(state, CONTRACT, reference)
    state.write(path, data)
    with pytest.raises(ConfigError, match="CONTRACT_CHANGED"):
        load_snapshot(state, replace(CONTRACT, version=2), reference)


def test_snapshot_too_many_rows_stops_the_reading(state, home):
    with pytest.raises(LocalDataError, match="TOO_MANY_ROWS"):
        take_snapshot(state, home, replace(CONTRACT, max_rows=3), ROW)


def test_snapshot_disk_full(tmp_path, state, home, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalDataError, match="DISK_FULL: no space is left for state") as caught:
        take_snapshot(state, home, CONTRACT, ROW)
    assert not caught.value.transient
    monkeypatch.undo()
    assert not list((tmp_path / "state").rglob("*.*"))
    take_snapshot(state, home, CONTRACT, ROW)


def test_snapshot_empty_store(tmp_path, state, home):
    pq.write_table(contract_schema(CONTRACT).empty_table(), tmp_path / "books" / "a.parquet")
    assert load_snapshot(state, CONTRACT, take_snapshot(state, home, CONTRACT, ROW)).num_rows == 0


def unit_rows(plan, home, table, row=ROW):
    units = run_local_plan(home, plan, CONTRACT, table, slice_ranges(row))
    out = {}
    for n in range(units.rows):
        key = (int(units.slices[n]), *(int(codes[n]) for codes in units.dimensions), int(units.units[n]))
        out[key] = tuple(int(units.aggregates[name][n]) for name in ("revenue", "margin", "lines"))
    return out


def test_snapshot_local_plan_is_exact(plan, home):
    table = pa.Table.from_pylist(rows(), contract_schema(CONTRACT))
    expected = {}
    for row in rows():
        key = (
            0 if row["booked_on"].year == 2026 else 1, CONTRACT.column("segment").domain.index(row["segment"]),
            CONTRACT.column("product_line").domain.index(row["product_line"]), row["customer_uid"],
        )  # fmt: skip
        revenue, cost = int(row["revenue_lc"] * 100), int(row["cost_lc"] * 100)
        old = expected.get(key, (0, 0, 0))
        expected[key] = (old[0] + revenue, old[1] + revenue - cost, old[2] + 1)
    got = unit_rows(plan, home, table)
    assert sorted(got.values()) == sorted(expected.values())
    assert {key[:3] for key in got} == {key[:3] for key in expected}


def test_snapshot_local_plan_of_no_rows(plan, home):
    assert unit_rows(plan, home, contract_schema(CONTRACT).empty_table()) == {}


def test_snapshot_local_plan_large_amounts_are_not_rounded(plan, home):
    amounts = [Decimal("9999999.99"), Decimal("9999999.98"), Decimal("0.01")]
    table = [
        {**rows()[0], "line_no": n + 1, "booked_on": dt.date(2026, 1, 1), "revenue_lc": amount, "cost_lc": Decimal(0)}
        for n, amount in enumerate(amounts)
    ]
    got = unit_rows(plan, home, pa.Table.from_pylist(table, contract_schema(CONTRACT)))
    assert list(got.values()) == [(1999999998, 1999999998, 3)]


def with_filter(plan, condition):
    nodes = list(plan.nodes)
    nodes.insert(1, FilterNode(id="filter", input="scan", condition=condition))
    return replace(plan, nodes=nodes)


def literal(value, kind="string"):
    return Literal_(type=kind, value=value)


SEGMENT = Column(name="segment")
REVENUE = Column(name="revenue_lc")


@pytest.mark.parametrize(
    ("condition", "keep"),
    [
        (Binary(op="=", left=SEGMENT, right=literal("BUILDING")), lambda r: r["segment"] == "BUILDING"),
        (Binary(op=">", left=REVENUE, right=literal("1.5", "decimal")), lambda r: r["revenue_lc"] > Decimal("1.5")),
        (Binary(op="<=", left=REVENUE, right=literal("0.505", "decimal")), lambda r: r["revenue_lc"] <= Decimal("0.505")),
        (InList(arg=SEGMENT, values=[literal("BUILDING"), literal("FURNITURE")]), lambda r: r["segment"] in {"BUILDING", "FURNITURE"}),
        (Not(arg=IsNull(arg=Column(name="customer_uid"))), lambda r: True),
        (Binary(op=">=", left=Column(name="booked_on"), right=literal("2026-01-10", "date")), lambda r: r["booked_on"] >= dt.date(2026, 1, 10)),
        (
            Logic(op="or", args=[Binary(op="<", left=Binary(op="*", left=REVENUE, right=literal("2", "int64")), right=Column(name="cost_lc")), Binary(op="=", left=SEGMENT, right=literal("BUILDING"))]),
            lambda r: r["revenue_lc"] * 2 < r["cost_lc"] or r["segment"] == "BUILDING",
        ),
        (
            Binary(op=">", left=Case(condition=Binary(op="=", left=SEGMENT, right=literal("BUILDING")), then=REVENUE, otherwise=literal("0", "int64")), right=literal("1", "int64")),
            lambda r: r["segment"] == "BUILDING" and r["revenue_lc"] > 1,
        ),
    ],
)  # fmt: skip
def test_snapshot_local_plan_filters(plan, home, condition, keep):
    table = pa.Table.from_pylist(rows(), contract_schema(CONTRACT))
    got = unit_rows(with_filter(plan, condition), home, table)
    kept = [row for row in rows() if keep(row)]
    assert sum(numbers[2] for numbers in got.values()) == len(kept)
    assert sum(numbers[0] for numbers in got.values()) == sum(int(row["revenue_lc"] * 100) for row in kept)


def test_snapshot_text_in_a_plan_never_becomes_sql(plan):
    evil = "x' OR 1=1; ATTACH 'a.db'; COPY snapshot TO '/tmp/x'; INSTALL httpfs; --"
    query = local_query(
        with_filter(plan, Binary(op="=", left=SEGMENT, right=literal(evil))), CONTRACT, slice_ranges(ROW)
    )
    assert evil in query.parameters
    for word in ("ATTACH", "COPY", "INSTALL", "1=1", "'"):
        assert word not in query.sql
    with pytest.raises(ComityError):  # no such column in the contract
        local_query(with_filter(plan, IsNull(arg=Column(name="read_csv('/etc/passwd')"))), CONTRACT, slice_ranges(ROW))
    with pytest.raises(LocalProtocolError, match="PLAN_INVALID: the plan uses a column that it does not scan"):
        local_query(with_filter(plan, IsNull(arg=Column(name="quantity"))), CONTRACT, slice_ranges(ROW))


def direct(sql, **more):
    options = {"memory_mb": 256, "threads": 1, "timeout_s": 30, **more}
    return run_sandboxed(LocalQuery(sql, (), ("x",)), pa.table({"x": [1, 2, 3]}), owner="de-nord", **options)


def test_snapshot_sandbox_runs_a_select():
    assert direct('SELECT SUM(x) AS s FROM "snapshot"').to_pylist() == [{"s": Decimal(6)}]


@pytest.fixture
def canary_file(tmp_path):
    path = tmp_path / "canary.csv"
    path.write_text("secret\nCANARY-FILE\n")
    return path


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{file}'",
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM read_blob('/proc/self/environ')",
        "SELECT * FROM 'http://127.0.0.1:{port}/a.parquet'",
        "SELECT * FROM read_parquet('http://127.0.0.1:{port}/a.parquet')",
        "SELECT * FROM secret_variable",
        "SELECT * FROM table",
        "ATTACH '{folder}/other.db'",
        "ATTACH ':memory:' AS other",
        "COPY snapshot TO '{folder}/out.csv'",
        "COPY (SELECT 1) TO '/dev/stdout'",
        "EXPORT DATABASE '{folder}/out'",
        "INSTALL httpfs",
        "INSTALL httpfs FROM community",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "PRAGMA enable_profiling",
        "CREATE TABLE t AS SELECT 1",
        "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
        "CALL pragma_version()",
        "SELECT 1; SELECT 2",
        "SELECT getenv('HOME')",
        "",
    ],
)
def test_snapshot_sandbox_refuses(sql, canary_file, tmp_path):
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    table = secret_variable  # a Python variable of the very caller: what replacement scans would find
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        text = sql.format(file=canary_file, folder=tmp_path, port=server.server_address[1])
        header = {"sql": text, "parameters": [], "table": "snapshot", "memory_mb": 256, "threads": 1}
        with pytest.raises(duckdb.Error):
            plan_worker.run(header, table, pa.BufferOutputStream())
        server.shutdown()
    assert not asked
    assert {path.name for path in tmp_path.iterdir()} == {"canary.csv"}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{file}'",
        "COPY snapshot TO '{folder}/out.csv'",
        "ATTACH '{folder}/other.db'",
        "INSTALL httpfs",
    ],
)
def test_snapshot_sandbox_process_tells_the_class_of_error_only(sql, canary_file, tmp_path, caplog, capfd):
    with pytest.raises(
        LocalDataError, match="LOCAL_PLAN_FAILED: the local plan stopped; got PermissionException "
    ) as caught:
        direct(sql.format(file=canary_file, folder=tmp_path))
    assert "CANARY" not in str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert {path.name for path in tmp_path.iterdir()} == {"canary.csv"}


def test_snapshot_sandbox_messages_hold_no_value():
    with pytest.raises(LocalDataError) as caught:
        direct("SELECT CAST(concat('CANARY', x) AS INTEGER) FROM snapshot")
    assert "CANARY" not in str(caught.value)
    assert "got ConversionException" in str(caught.value)


def test_snapshot_sandbox_time_and_memory():
    with pytest.raises(LocalDataError, match="LOCAL_PLAN_TIMEOUT"):
        direct("SELECT COUNT(*) FROM range(100000000000) a", timeout_s=1)
    with pytest.raises(LocalDataError, match="LOCAL_PLAN_MEMORY"):
        direct("SELECT range % 50000000 AS r, list(range) FROM range(100000000) GROUP BY r", memory_mb=64)


def test_snapshot_sums_beyond_64_bits(plan, home):
    table = pa.Table.from_pylist(rows(2), contract_schema(CONTRACT))
    units = run_local_plan(home, plan, CONTRACT, table, slice_ranges(ROW))
    assert units.rows == 2
    with pytest.raises(LocalDataError, match="LOCAL_PLAN_OVERFLOW: a sum leaves 128 bits"):
        direct("SELECT SUM(170141183460469231731687303715884105727::HUGEINT) FROM snapshot")


def test_snapshot_home_of_another_store_kind_is_unknown(home, state):
    bare = dataclasses.replace(home, stores={})
    with pytest.raises(ConfigError, match="STORE_UNKNOWN"):
        take_snapshot(state, bare, CONTRACT, ROW)
    assert StoreConfig(dataset="a", kind="csv", location="b").source_name("x") == "x"
