"""Running the local plan in a process of its own, on Arrow tables registered by name."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from local_stores.config import OwnerHome
from local_stores.errors import LocalDataError
from local_stores.snapshot.encoder import enforce_contract
from local_stores.snapshot.periods import SliceName
from local_stores.snapshot.plan_sql import TABLE, LocalQuery, local_query
from local_stores.stores import DateRange
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.plan.layout import aggregate_node
from mpc_ops.plan.model import Plan

__all__ = ["UnitTable", "run_local_plan", "run_sandboxed"]

Int64 = npt.NDArray[np.int64]
_WORKER = Path(__file__).with_name("plan_worker.py")
_CODES = {
    "OutOfRangeException": ("LOCAL_PLAN_OVERFLOW", "a sum leaves 128 bits"),
    "OutOfMemoryException": ("LOCAL_PLAN_MEMORY", "the local plan needs more memory than owner.toml allows"),
}


@dataclass(frozen=True)
class UnitTable:
    """The local plan's result: one row for each (slice, dimensions, unit).

    Attributes:
        slices: 0 for the period, 1 for the prior year; shape (n,).
        dimensions: position in the domain, one array of shape (n,) for each dimension.
        units: number of the protected unit, shape (n,); the number means nothing outside this table.
        aggregates: int64 sums and row counts by aggregate name, each of shape (n,).
    """

    slices: Int64
    dimensions: tuple[Int64, ...]
    units: Int64
    aggregates: Mapping[str, Int64]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.slices)

    def __repr__(self) -> str:
        return f"UnitTable({len(self.dimensions)} dimensions, {len(self.aggregates)} aggregates)"


def run_local_plan(
    home: OwnerHome,
    plan: Plan,
    contract: DatasetContract,
    table: pa.Table,
    ranges: Mapping[SliceName, DateRange],
) -> UnitTable:
    """Enforce the contract on a snapshot's table and compute the unit table from it.

    Args:
        home: names the owner and the process's limits.
        plan: a checked plan.
        contract: the scanned dataset's.
        table: the snapshot.
        ranges: local dates of each slice.

    Raises:
        LocalDataError: what `enforce_contract` raises; LOCAL_PLAN_TIMEOUT, LOCAL_PLAN_MEMORY, LOCAL_PLAN_OVERFLOW,
            LOCAL_PLAN_FAILED.
    """
    enforce_contract(table, contract, owner=home.id)
    query = local_query(plan, contract, ranges)
    result = run_sandboxed(
        query, _integers(table.select(query.columns), contract), memory_mb=home.memory_mb, threads=home.threads,
        timeout_s=home.timeout_s, owner=home.id,
    )  # fmt: skip
    return _unit_table(plan, result, home.id)


def run_sandboxed(
    query: LocalQuery, table: pa.Table, *, memory_mb: int, threads: int, timeout_s: float, owner: str
) -> pa.Table:
    """Run one SELECT on `table` in a sandboxed DuckDB of its own process and return the result.

    Raises:
        LocalDataError: LOCAL_PLAN_TIMEOUT, LOCAL_PLAN_MEMORY, LOCAL_PLAN_OVERFLOW, LOCAL_PLAN_FAILED.
    """
    header = json.dumps(
        {
            "sql": query.sql,
            "parameters": list(query.parameters),
            "table": TABLE,
            "memory_mb": memory_mb,
            "threads": threads,
        }
    ).encode()
    sink = io.BytesIO()
    sink.write(len(header).to_bytes(4, "big") + header)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    ids = {"owner": owner}
    try:
        # Isolated mode and an empty environment: nothing of this process but the table is there.
        done = subprocess.run(
            [sys.executable, "-I", str(_WORKER)], input=sink.getbuffer(), capture_output=True, check=False,
            timeout=timeout_s, env={"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}, cwd="/",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LocalDataError(
            "LOCAL_PLAN_TIMEOUT",
            f"the local plan did not end in {timeout_s:g} seconds",
            ids=ids,
            hint="Raise timeout_s",
        ) from None
    if done.returncode != 0:
        name = done.stderr[-80:].decode("ascii", "replace").strip().rsplit("\n", 1)[-1]
        code, what = _CODES.get(name, ("LOCAL_PLAN_FAILED", "the local plan stopped"))
        raise LocalDataError(code, what, got=name if name.isidentifier() else f"exit {done.returncode}", ids=ids)
    with pa.ipc.open_stream(done.stdout) as reader:
        return reader.read_all()


def _integers(table: pa.Table, contract: DatasetContract) -> pa.Table:
    """Return the table with decimals as int64 in units of 10^-scale."""
    for place, name in enumerate(table.column_names):
        if contract.column(name).type == "decimal":
            table = table.set_column(place, name, _unscaled(table[name], name))
    return table


def _unscaled(values: pa.ChunkedArray, name: str) -> pa.Array:
    """Return the integers inside decimal128 values: two little-endian 64-bit words each, the low one first."""
    array = values.combine_chunks()
    array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
    words = np.frombuffer(array.buffers()[1], "<i8")[2 * array.offset : 2 * (array.offset + len(array))].reshape(-1, 2)
    null = array.is_null().to_numpy(zero_copy_only=False)
    low, high = np.where(null, 0, words[:, 0]), np.where(null, 0, words[:, 1])
    if not np.array_equal(high, low >> 63):
        raise LocalDataError("VALUE_OUTSIDE_CONTRACT", f"values of {name} leave 64 bits")
    return pa.array(low, pa.int64(), mask=null)


def _unit_table(plan: Plan, result: pa.Table, owner: str) -> UnitTable:
    node = aggregate_node(plan)
    aggregates = {}
    for place, aggregate in enumerate(node.aggregates):
        if aggregate.fn == "count_distinct":
            continue
        try:
            aggregates[aggregate.name] = _int64(result[f"a{place}"].cast(pa.int64()))
        except pa.ArrowInvalid:
            raise LocalDataError(
                "LOCAL_PLAN_OVERFLOW", f"sums of {aggregate.name} leave 64 bits", ids={"owner": owner}
            ) from None
    dimensions = []
    for place, name in enumerate(node.dimensions):
        codes = pc.index_in(result[f"d{place}"], value_set=pa.array(plan.domains[name], pa.string()))
        if codes.null_count:
            raise LocalDataError(
                "DOMAIN_UNKNOWN", f"values of {name} are not in the plan's domain", ids={"owner": owner}
            )
        dimensions.append(_int64(codes))
    units = result["unit"].combine_chunks().dictionary_encode()
    if isinstance(units, pa.ChunkedArray):
        units = units.combine_chunks()
    return UnitTable(_int64(result["slice"]), tuple(dimensions), _int64(units.indices), aggregates)


def _int64(values: pa.Array | pa.ChunkedArray) -> Int64:
    return cast("Int64", values.to_numpy().astype(np.int64))
