"""Snapshots: an immutable Parquet file of one dataset for one period and cut, at the owner.

```
snapshots/<owner>/<dataset>/<period>/<cut>/<id>.parquet    rows of the period and of its prior year, sorted by key
                                           <id>.json       what it is; its SHA-256 stays here
```
A snapshot is taken again in every run, so that corrections in the source are always included; where the source has not
changed, the bytes are equal and the earlier id stands. The id is drawn at random: a digest of rows is a test for guesses
and goes into no log, task result or notice. Snapshots are kept as long as the owner's audit retention says.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from local_stores.config import OwnerHome, State
from local_stores.errors import ConfigError, LocalDataError
from local_stores.snapshot.periods import slice_ranges
from local_stores.stores import Query, open_store
from local_stores.stores.casting import contract_schema
from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.schema import encode
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.notices.model import CalendarRow
from mpc_ops.notices.signed import utc_text

__all__ = ["load_snapshot", "take_snapshot"]


def take_snapshot(state: State, home: OwnerHome, contract: DatasetContract, row: CalendarRow) -> dict[str, str]:
    """Read the dataset's rows of the period and its prior year, as the store has them now, and keep them.

    Args:
        state: where the file goes.
        home: the owner and its stores.
        contract: the dataset.
        row: the period; its `cut_at` is recorded and part of the file's place, so that two reports of a period tie.

    Returns:
        A reference without any figure: owner, dataset, period, cut, snapshot (id).

    Raises:
        StoreUnavailable: STORE_UNAVAILABLE, SOURCE_CHANGED.
        LocalDataError: STORE_SCHEMA, VALUE_OUTSIDE_CONTRACT, TOO_MANY_ROWS, DISK_FULL.
        ConfigError: STORE_UNKNOWN, PERIOD_INVALID.
    """
    ranges = slice_ranges(row)
    query = Query(contract, tuple(sorted(ranges.values())))
    with open_store(home.store(contract.name)).read(query) as reading:
        table = _collect(reading.batches, contract, home.id)
        identity = reading.identity
    data = _parquet(table, contract)
    digest = sha256_hex(data)
    folder = f"snapshots/{home.id}/{contract.name}/{row.key}/{_cut_name(row)}"
    reference = {"owner": home.id, "dataset": contract.name, "period": row.key, "cut": _cut_name(row)}
    for name in state.names(folder):
        if name.endswith(".json") and _meta(state, f"{folder}/{name}").get("sha256") == digest:
            return {**reference, "snapshot": name.removesuffix(".json")}
    number = secrets.token_hex(8)
    state.write(f"{folder}/{number}.parquet", data)
    meta = {
        "dataset": contract.name,
        "contract": sha256_hex(encode(contract)),
        "cut_at": row.cut_at,
        "ranges": {name: [span.start.isoformat(), span.end.isoformat()] for name, span in ranges.items()},
        "rows": table.num_rows,
        "sha256": digest,
        "source": identity,
        "taken_at": utc_text(dt.datetime.now(tz=dt.UTC)),
    }
    # The description comes second: a snapshot without one was never finished.
    state.write(f"{folder}/{number}.json", json.dumps(meta, sort_keys=True, indent=1).encode())
    return {**reference, "snapshot": number}


def load_snapshot(state: State, contract: DatasetContract, reference: Mapping[str, str]) -> pa.Table:
    """Return a snapshot's table, having compared its SHA-256.

    Raises:
        ConfigError: STATE_MISSING, CONTRACT_CHANGED. LocalDataError: SNAPSHOT_ALTERED.
    """
    path = "snapshots/{owner}/{dataset}/{period}/{cut}/{snapshot}".format(**reference)
    meta = _meta(state, f"{path}.json")
    data = state.require(f"{path}.parquet", limit_bytes=1 << 36)
    ids = {"dataset": contract.name, "snapshot": reference["snapshot"]}
    if sha256_hex(data) != meta.get("sha256"):
        raise LocalDataError("SNAPSHOT_ALTERED", "a snapshot differs from what was written", ids=ids)
    if meta.get("contract") != sha256_hex(encode(contract)):
        raise ConfigError(
            "CONTRACT_CHANGED", "a snapshot was taken under another contract", ids=ids, hint="Take the snapshot again"
        )
    return pq.read_table(pa.BufferReader(data), schema=contract_schema(contract), use_threads=False)


def _meta(state: State, name: str) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(state.require(name, limit_bytes=1 << 20))
    return meta


def _collect(batches: Any, contract: DatasetContract, owner: str) -> pa.Table:
    kept, rows = [], 0
    for batch in batches:
        rows += batch.num_rows
        if rows > contract.max_rows:  # stop reading; the encoder says the same of a whole table
            raise LocalDataError(
                "TOO_MANY_ROWS",
                "the store has more rows than the contract allows",
                expected=f"at most {contract.max_rows}",
                ids={"dataset": contract.name, "owner": owner},
            )
        kept.append(batch)
    return pa.Table.from_batches(kept, contract_schema(contract))


def _parquet(table: pa.Table, contract: DatasetContract) -> bytes:
    # Sorted by every column, key first, so that one set of rows has one file whatever order the store gives.
    names = [*contract.primary_key, *(c.name for c in contract.columns if c.name not in contract.primary_key)]
    table = table.sort_by([(name, "ascending") for name in names])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _cut_name(row: CalendarRow) -> str:
    return row.cut_at.replace("-", "").replace(":", "")
