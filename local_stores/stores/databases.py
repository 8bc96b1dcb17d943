"""Stores that are databases: SQLite and PostgreSQL. One SELECT, typed parameters, one read-only transaction."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from local_stores.config import StoreConfig
from local_stores.errors import ConfigError, LocalDataError, StoreUnavailable
from local_stores.stores.casting import Casting
from local_stores.stores.interface import BATCH_ROWS, Query, Reading, schema_error
from mpc_ops.federation.contract import Column

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresStore", "SqliteStore", "select_text"]

_CONNECT_TIMEOUT_S = 20
_FLOAT_OIDS = {700, 701}  # float4, float8


def select_text(config: StoreConfig, query: Query, *, mark: str, as_text: AbstractSet[str] = frozenset()) -> str:
    """Return the one SELECT of a database store.

    Args:
        config: table or query, and source names; every name is quoted.
        query: columns and the period column; two parameters for each of its ranges.
        mark: parameter mark, `?` or `%s`.
        as_text: contract columns that travel as text (PostgreSQL's NUMERIC).
    """

    def item(column: Column) -> str:
        source = _quoted(config.source_name(column.name))
        return f"CAST({source} AS TEXT) AS {_quoted(column.name)}" if column.name in as_text else source

    def literal(text: str) -> str:
        return text.replace("%", "%%") if mark == "%s" else text  # psycopg reads % as the start of a mark

    period = _quoted(config.source_name(query.period_column))
    source = (
        f"({config.query.rstrip().rstrip(';')}) AS source"
        if config.query is not None
        else ".".join(_quoted(part) for part in (config.table or query.contract.name).split("."))
    )
    columns = ", ".join(item(column) for column in query.contract.columns)
    # Names are quoted identifiers from the owner's own file and the contract; values travel as parameters.
    head = literal(f"SELECT {columns} FROM {source} WHERE")  # noqa: S608
    within = f"({literal(period)} >= {mark} AND {literal(period)} < {mark})"
    return f"{head} {' OR '.join([within] * len(query.ranges))} OR {literal(period)} IS NULL"


class SqliteStore:
    """One SQLite file, opened read-only."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config

    @contextmanager
    def read(self, query: Query) -> Iterator[Reading]:
        """Read in one transaction; amounts and dates stand as text or integers."""
        path = Path(self._config.location)
        if not path.is_file():
            raise StoreUnavailable(
                "STORE_UNAVAILABLE", "the SQLite file is not there", ids={"dataset": query.contract.name}
            )
        uri = f"{path.as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_CONNECT_TIMEOUT_S)) as db:
                db.execute("PRAGMA query_only = ON")
                db.execute("BEGIN")
                days = [day.isoformat() for day in _days(query)]
                cursor = db.execute(select_text(self._config, query, mark="?"), days)
                yield Reading(_sqlite_identity(path), _batches(cursor, query, Casting(query)))
        except sqlite3.Error as error:
            raise _sqlite_error(error, query) from None


class PostgresStore:
    """One table or query of a PostgreSQL database, in one REPEATABLE READ READ ONLY transaction."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config

    @contextmanager
    def read(self, query: Query) -> Iterator[Reading]:
        """Read through a server-side cursor; numbers travel as text, timestamps with their zone."""
        try:
            import psycopg  # noqa: PLC0415 - an extra: only sites with PostgreSQL have it
        except ImportError:
            raise ConfigError(
                "DRIVER_MISSING", "the PostgreSQL driver is not installed", hint="pip install 'comity[postgres]'"
            ) from None
        try:
            with psycopg.connect(
                self._config.location, password=self._config.password(), connect_timeout=_CONNECT_TIMEOUT_S
            ) as db:
                db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                db.read_only = True
                yield self._reading(db, query)
        except psycopg.Error as error:
            raise _postgres_error(error, query) from None

    def _reading(self, db: psycopg.Connection[Any], query: Query) -> Reading:
        db.execute("SET TIME ZONE 'UTC'")
        row = db.execute("SELECT current_database(), pg_current_snapshot()::text").fetchone()
        numbers = {column.name for column in query.contract.columns if column.type in {"decimal", "int64"}}
        self._check_types(db, query)
        cursor = db.cursor(name="comity")
        cursor.itersize = BATCH_ROWS
        cursor.execute(select_text(self._config, query, mark="%s", as_text=numbers), _days(query))
        return Reading(f"postgres:{row}", _batches(cursor, query, Casting(query)))

    def _check_types(self, db: psycopg.Connection[Any], query: Query) -> None:
        text = select_text(self._config, query, mark="%s")
        nothing = f"SELECT * FROM ({text}) AS described LIMIT 0"  # noqa: S608 - wraps the generated SELECT
        described = db.execute(nothing, _days(query)).description
        for column, found in zip(query.contract.columns, described or (), strict=True):
            if column.type in {"decimal", "int64"} and found.type_code in _FLOAT_OIDS:
                raise schema_error(
                    f"column {column.name} comes as a floating-point number",
                    query.contract.name,
                    expected="NUMERIC or an integer type",
                    hint="Floating point is not exact",
                )


def _days(query: Query) -> list[dt.date]:
    return [day for span in query.spans() for day in (span.start, span.end)]


def _batches(cursor: Any, query: Query, casting: Casting) -> Iterator[pa.RecordBatch]:
    while rows := cursor.fetchmany(BATCH_ROWS):
        columns = {}
        for column, values in zip(query.contract.columns, zip(*rows, strict=True), strict=True):
            columns[column.name] = _array(column, values, casting)
        yield casting.batch(columns)
    casting.finish()


def _array(column: Column, values: tuple[Any, ...], casting: Casting) -> pa.Array:
    """Return database values as an Arrow array that the casting understands: text, or timestamps with a zone."""
    if column.type == "date" and any(isinstance(value, dt.date) for value in values):
        aware = any(isinstance(value, dt.datetime) and value.tzinfo is not None for value in values)
        moments = any(isinstance(value, dt.datetime) for value in values)
        kind = pa.timestamp("us", "UTC" if aware else None) if moments else pa.date32()
        return pa.array(values, kind)
    texts: list[str | None] = []
    bad = 0
    for value in values:
        if value is None or isinstance(value, str):
            texts.append(value)
        elif isinstance(value, int) and column.type != "date":
            texts.append(str(value))
        else:
            # REAL, BLOB, or a number where a date should stand: any text of it would be a guess.
            bad += 1
            texts.append(None)
    casting.count_bad(column.name, bad)
    return pa.array(texts, pa.string())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sqlite_identity(path: Path) -> str:
    status = path.stat()
    return f"sqlite:{status.st_size}/{status.st_mtime_ns}"


def _sqlite_error(error: sqlite3.Error, query: Query) -> LocalDataError:
    ids = {"dataset": query.contract.name}
    if isinstance(error, sqlite3.OperationalError) and str(error).startswith(("no such", "near ")):
        return schema_error("the SQLite file lacks a table or column of the store's SELECT", query.contract.name)
    return StoreUnavailable("STORE_UNAVAILABLE", f"SQLite does not answer ({type(error).__name__})", ids=ids)


def _postgres_error(error: psycopg.Error, query: Query) -> LocalDataError:
    # The server's text may quote values: only its five-character state is repeated.
    state = error.sqlstate or "no state"
    if state[:2] in {"42", "3F"}:
        return schema_error(f"PostgreSQL refuses the store's SELECT (SQLSTATE {state})", query.contract.name)
    ids = {"dataset": query.contract.name}
    return StoreUnavailable("STORE_UNAVAILABLE", f"PostgreSQL does not answer (SQLSTATE {state})", ids=ids)
