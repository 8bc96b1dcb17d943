"""The demo's books: TPC-H order lines as the sales ledgers of eight legal entities in four jurisdictions.

Nobody here wrote the data: `tpchgen-cli` generates TPC-H at scale 0.1 (600,572 order lines). Three things are changed:

* every order date moves by +28 years. Dates 1992-01-01 .. 1998-08-02 become 2020-01-01 .. 2026-08-02. The Gregorian
  calendar repeats after 28 years inside 1901..2099, so weekdays stay and leap days fall on leap days (1992, 1996 ->
  2020, 2024): 29 February never needs to be clamped;
* an order line belongs to the entity that serves the *customer's* nation (`ENTITIES` below gives all 25 nations away);
* its amounts are taken as amounts in that entity's own currency.

Every entity has one table, `sales_line` (`COLUMNS`), in a Parquet folder or in SQLite. SQLite has no decimal type and
no date type, so amounts stand there as decimal text and dates as ISO text, as in a real customer's file.

Run `python infra/demo/data.py FOLDER` to write the eight stores below FOLDER. The generated tables are cached under
`var/cache/tpch/<key>`; the key is a digest of everything that decides the content.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

__all__ = [
    "COLUMNS",
    "ENTITIES",
    "PRODUCT_LINES",
    "SCALE_FACTOR",
    "SEGMENTS",
    "SQLITE_TABLE",
    "Canary",
    "Entity",
    "Store",
    "StoreKind",
    "canaries_of",
    "plant_canaries",
    "prepare",
    "read_store",
    "write_store",
]

StoreKind = Literal["parquet", "sqlite"]

SCALE_FACTOR = "0.1"
SEGMENTS = ("AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY")
PRODUCT_LINES = ("BRASS", "COPPER", "NICKEL", "STEEL", "TIN")

COLUMNS = pa.schema(
    [
        pa.field("invoice_no", pa.int64(), nullable=False),
        pa.field("line_no", pa.int32(), nullable=False),
        pa.field("booked_on", pa.date32(), nullable=False),
        pa.field("customer_uid", pa.string(), nullable=False),
        pa.field("segment", pa.string(), nullable=False),
        pa.field("product_line", pa.string(), nullable=False),
        pa.field("quantity", pa.int32(), nullable=False),
        pa.field("revenue_lc", pa.decimal128(18, 2), nullable=False),
        pa.field("cost_lc", pa.decimal128(18, 2), nullable=False),
    ]
)

SQLITE_TABLE = """
CREATE TABLE sales_line (
  invoice_no INTEGER NOT NULL, line_no INTEGER NOT NULL, booked_on TEXT NOT NULL, customer_uid TEXT NOT NULL,
  segment TEXT NOT NULL, product_line TEXT NOT NULL, quantity INTEGER NOT NULL, revenue_lc TEXT NOT NULL, cost_lc TEXT NOT NULL,
  PRIMARY KEY (invoice_no, line_no)
) WITHOUT ROWID;
CREATE INDEX sales_line_booked_on ON sales_line (booked_on);
"""


@dataclass(frozen=True)
class Entity:
    """A legal entity of the demo group and the nations whose customers it serves."""

    name: str
    label: str
    jurisdiction: str
    currency: str
    store: StoreKind
    nations: tuple[str, ...]


# The two entities in India serve one nation each: alone, hardly a cell of theirs would hold ten customers; together most do,
# and the small-cell rule is seen at work on the rest. Saudi Arabia has a single entity on purpose (its country cluster
# separates nobody from anybody).
ENTITIES = (
    Entity("de-nord", "Nord GmbH", "DE", "EUR", "parquet", ("GERMANY", "RUSSIA", "UNITED KINGDOM")),
    Entity("de-sued", "Sued GmbH", "DE", "EUR", "sqlite", ("ALGERIA", "FRANCE", "MOROCCO", "ROMANIA")),
    Entity(
        "de-west",
        "West AG",
        "DE",
        "EUR",
        "parquet",
        ("ARGENTINA", "BRAZIL", "CANADA", "MOZAMBIQUE", "PERU", "UNITED STATES"),
    ),
    Entity("cn-east", "Huadong Co. Ltd.", "CN", "CNY", "parquet", ("CHINA", "JAPAN")),
    Entity("cn-south", "Huanan Co. Ltd.", "CN", "CNY", "sqlite", ("INDONESIA", "VIETNAM")),
    Entity("in-north", "North Pvt. Ltd.", "IN", "INR", "parquet", ("INDIA",)),
    Entity("in-south", "South Pvt. Ltd.", "IN", "INR", "sqlite", ("KENYA",)),
    Entity(
        "sa-gulf", "Gulf LLC", "SA", "SAR", "parquet", ("EGYPT", "ETHIOPIA", "IRAN", "IRAQ", "JORDAN", "SAUDI ARABIA")
    ),
)

# price * (1 - discount) has four decimals; it is rounded half-even to cents on integers, never through a float.
_LINES_SQL = """
WITH line AS (
  SELECT m.entity, l_orderkey, l_linenumber, CAST(o_orderdate + INTERVAL 28 YEAR AS DATE) AS booked_on, c_name, c_mktsegment,
         split_part(p_type, ' ', 3) AS product_line, CAST(l_quantity AS INTEGER) AS quantity,
         CAST(l_extendedprice * 100 AS BIGINT) * CAST(100 - l_discount * 100 AS BIGINT) AS revenue_e4,
         CAST(l_quantity * ps_supplycost AS DECIMAL(18, 2)) AS cost_lc
  FROM lineitem JOIN orders ON o_orderkey = l_orderkey JOIN customer ON c_custkey = o_custkey JOIN nation ON n_nationkey = c_nationkey
  JOIN mapping m ON m.nation = n_name JOIN part ON p_partkey = l_partkey JOIN partsupp ON ps_partkey = l_partkey AND ps_suppkey = l_suppkey
)
SELECT entity, CAST(l_orderkey AS BIGINT) AS invoice_no, CAST(l_linenumber AS INTEGER) AS line_no, booked_on, c_name AS customer_uid,
       c_mktsegment AS segment, product_line, quantity,
       CAST(CAST(revenue_e4 // 100 + CASE WHEN revenue_e4 % 100 > 50 OR (revenue_e4 % 100 = 50 AND (revenue_e4 // 100) % 2 = 1)
                                           THEN 1 ELSE 0 END AS DECIMAL(18, 0)) * 0.01 AS DECIMAL(18, 2)) AS revenue_lc, cost_lc
FROM line
"""


@dataclass(frozen=True)
class Store:
    """Where an entity keeps its books: a folder of Parquet files or one SQLite file, with a table `sales_line`."""

    entity: str
    kind: StoreKind
    path: Path


def write_store(entity: str, kind: StoreKind, table: pa.Table, folder: Path) -> Store:
    """Write one entity's `sales_line` below `folder/<entity>` and return the store.

    Args:
        entity: the entity's name.
        kind: `parquet` writes `sales_line/<year>.parquet`, `sqlite` writes `books.sqlite`.
        table: rows in the schema `COLUMNS`; any order.
        folder: parent folder; an earlier store of the entity is replaced.
    """
    home = folder / entity
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    table = table.sort_by([("booked_on", "ascending"), ("invoice_no", "ascending"), ("line_no", "ascending")]).cast(
        COLUMNS
    )
    path = home / ("sales_line" if kind == "parquet" else "books.sqlite")
    if kind == "parquet":
        _write_parquet(table, path)
    else:
        _write_sqlite(table, path)
    return Store(entity, kind, path)


def _write_parquet(table: pa.Table, path: Path) -> None:
    path.mkdir()
    years = pc.year(table["booked_on"])
    for year in sorted(set(years.to_pylist())) or [0]:
        part = table.filter(pc.equal(years, year)) if year else table
        pq.write_table(part, path / f"{year:04d}.parquet", compression="zstd")


def _write_sqlite(table: pa.Table, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SQLITE_TABLE)
    _insert(table, path)


def _insert(table: pa.Table, path: Path) -> None:
    as_text = [pc.cast(table[name], pa.string()) for name in ("booked_on", "revenue_lc", "cost_lc")]
    for name, column in zip(("booked_on", "revenue_lc", "cost_lc"), as_text, strict=True):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    marks = ", ".join("?" * len(COLUMNS))
    with closing(sqlite3.connect(path)) as db, db:
        columns = [column.to_pylist() for column in table.columns]
        db.executemany(f"INSERT INTO sales_line VALUES ({marks})", zip(*columns, strict=True))  # noqa: S608 - marks only


def read_store(store: Store, start: str = "0001-01-01", end: str = "9999-12-31") -> pa.Table:
    """Read the lines booked in [start, end) straight from the store, in the schema `COLUMNS`.

    This is the oracle's and the tests' own reader; the product reads stores through `local_stores.stores`.
    """
    if store.kind == "parquet":
        first, last = (pa.scalar(day, pa.string()).cast(pa.date32()) for day in (start, end))
        table = pq.read_table(store.path, filters=[("booked_on", ">=", first), ("booked_on", "<", last)])
        return table.cast(COLUMNS)
    names = ", ".join(COLUMNS.names)
    query = (
        f"SELECT {names} FROM sales_line WHERE booked_on >= ? AND booked_on < ? ORDER BY booked_on, invoice_no, line_no"  # noqa: S608
    )
    with closing(sqlite3.connect(f"file:{store.path}?mode=ro", uri=True)) as db:
        rows = db.execute(query, (start, end)).fetchall()
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    arrays = []
    for field, values in zip(COLUMNS, columns, strict=True):
        text = field.name in {"booked_on", "revenue_lc", "cost_lc"}
        arrays.append(pa.array(values, pa.string()).cast(field.type) if text else pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=COLUMNS)


def prepare(folder: Path, cache: Path) -> list[Store]:
    """Write the demo's eight stores below `folder`, generating the data once per content.

    Args:
        folder: receives one sub-folder per entity; existing stores of the entities are replaced.
        cache: generated stores are kept in `cache/<key>`.
    """
    key = _content_key()
    ready = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        # Tests run in several processes: one of them generates, the others wait for it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (ready / "complete").exists():
            _generate(ready)
    stores = []
    for entity in ENTITIES:
        home = folder / entity.name
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(ready / entity.name, home)
        name = "sales_line" if entity.store == "parquet" else "books.sqlite"
        stores.append(Store(entity.name, entity.store, home / name))
    return stores


@dataclass(frozen=True)
class Canary:
    """One planted line: a customer of one owner and amounts that exist nowhere else.

    Attributes:
        booked_on: first day of the month it was planted in.
        customer: the same in all months of an owner.
        revenue, cost: other figures for every owner and month, in local currency.
    """

    entity: str
    booked_on: str
    customer: str
    revenue: Decimal
    cost: Decimal


def canaries_of(entity: str, months: Sequence[str]) -> list[Canary]:
    """Return an entity's canaries, one for each month (`2026-03`): always the same, inside the data contract's bounds."""
    place = [e.name for e in ENTITIES].index(entity)
    return [
        Canary(
            entity,
            f"{month}-01",
            f"Canary#{entity}-7f3a9c51e2",
            Decimal(f"73{place}{number}592.47"),
            Decimal(f"52{place}{number}614.89"),
        )
        for number, month in enumerate(sorted(months))
    ]


def plant_canaries(stores: Sequence[Store], months: Sequence[str]) -> list[Canary]:
    """Add every owner's canaries to its books: a test searches for them wherever they must not be (`--canaries`)."""
    planted = []
    for store in stores:
        own = canaries_of(store.entity, months)
        rows = [
            (
                9_000_000 + n,
                1,
                date.fromisoformat(c.booked_on),
                c.customer,
                SEGMENTS[1],
                PRODUCT_LINES[2],
                17,
                c.revenue,
                c.cost,
            )
            for n, c in enumerate(own)
        ]
        columns = zip(*rows, strict=True)
        arrays = [pa.array(values, kind.type) for values, kind in zip(columns, COLUMNS, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=COLUMNS)
        if store.kind == "parquet":
            pq.write_table(table, store.path / "canaries.parquet", compression="zstd")
        else:
            _insert(table, store.path)
        planted += own
    return planted


def _content_key() -> str:
    facts = {
        "format": 1,
        "generator": version("tpchgen-cli"),
        "scale_factor": SCALE_FACTOR,
        "entities": [[e.name, e.store, *e.nations] for e in ENTITIES],
        "sql": [_LINES_SQL, SQLITE_TABLE],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _generate(ready: Path) -> None:
    ready.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ready.parent, prefix="tpch-") as scratch, _tpch(Path(scratch)) as db:
        made = Path(scratch) / "stores"
        lines = db.sql(_LINES_SQL).to_arrow_table()
        for entity in ENTITIES:
            own = lines.filter(pc.equal(lines["entity"], entity.name)).drop_columns(["entity"])
            write_store(entity.name, entity.store, own, made)
        (made / "complete").touch()
        shutil.rmtree(ready, ignore_errors=True)
        made.rename(ready)


@contextmanager
def _tpch(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Generate the six tables needed and open them in DuckDB, with `mapping(nation, entity)` beside them."""
    tables = ("customer", "lineitem", "nation", "orders", "part", "partsupp")
    generator = shutil.which("tpchgen-cli", path=str(Path(sys.executable).parent)) or "tpchgen-cli"
    subprocess.run(
        [
            generator,
            "parquet",
            "-q",
            "-s",
            SCALE_FACTOR,
            f"--tables={','.join(tables)}",
            "--compression=UNCOMPRESSED",
            "-o",
            str(scratch),
        ],
        check=True,
    )
    with closing(duckdb.connect()) as db:
        for table in tables:
            db.read_parquet(str(scratch / f"{table}.parquet")).create_view(table)
        db.execute("CREATE TABLE mapping (nation VARCHAR PRIMARY KEY, entity VARCHAR NOT NULL)")
        db.executemany(
            "INSERT INTO mapping VALUES (?, ?)",
            [(nation, entity.name) for entity in ENTITIES for nation in entity.nations],
        )
        yield db


if __name__ == "__main__":
    for written in prepare(Path(sys.argv[1]), Path(__file__).resolve().parents[2] / "var" / "cache" / "tpch"):
        print(f"{written.entity:9} {written.kind:8} {written.path}")
