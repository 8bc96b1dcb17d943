"""From a `[[stores]]` entry to its store."""

from __future__ import annotations

from local_stores.config import StoreConfig
from local_stores.stores.databases import PostgresStore, SqliteStore
from local_stores.stores.files import CsvStore, ExcelStore, ParquetStore
from local_stores.stores.interface import Store

__all__ = ["open_store"]


def open_store(config: StoreConfig) -> Store:
    """Return the store of an entry of `owner.toml`; nothing is read yet."""
    kinds: dict[str, type[ParquetStore | SqliteStore | PostgresStore | CsvStore | ExcelStore]] = {
        "parquet": ParquetStore,
        "sqlite": SqliteStore,
        "postgres": PostgresStore,
        "csv": CsvStore,
        "excel": ExcelStore,
    }
    return kinds[config.kind](config)
