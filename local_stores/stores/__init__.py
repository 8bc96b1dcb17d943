"""Where owners keep their data.

A store runs one SELECT with typed parameters in one read-only, consistent transaction, streams Arrow batches of the
contract's exact types, and tells what identifies the snapshot.

| kind | library | consistent because | trap |
|---|---|---|---|
| parquet | pyarrow.dataset | files are compared before and after | |
| sqlite | sqlite3 | one read transaction | amounts as REAL are refused |
| postgres | psycopg | REPEATABLE READ READ ONLY | NUMERIC travels as text |
| csv | pyarrow.csv | file is compared before and after | every column is text and cast by the contract |
| excel | python-calamine | the file is read once | numbers are binary: more than 15 digits are refused |
"""

from __future__ import annotations

from local_stores.stores.interface import DateRange, Query, Reading, Store
from local_stores.stores.opening import open_store

__all__ = ["DateRange", "Query", "Reading", "Store", "open_store"]
