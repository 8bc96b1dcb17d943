"""Contract enforcement on the very Arrow table that is computed on: the planner's overflow proof rests on it.

Great Expectations runs before, for people; this runs always. Messages name columns and counts, never values.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from local_stores.errors import LocalDataError
from local_stores.stores.casting import contract_schema
from mpc_ops.federation.contract import Column, DatasetContract

__all__ = ["enforce_contract"]


def enforce_contract(table: pa.Table, contract: DatasetContract, *, owner: str) -> None:
    """Check types, scales, row bound, NULLs, domains, bounds and the primary key.

    Args:
        table: a snapshot in the contract's schema.
        contract: what it must meet.
        owner: named in messages.

    Raises:
        LocalDataError: TYPE_MISMATCH, TOO_MANY_ROWS, NULL_NOT_ALLOWED, DOMAIN_UNKNOWN, VALUE_OUTSIDE_CONTRACT or
            DUPLICATE_KEY, naming columns and counts.
    """
    ids = {"dataset": contract.name, "owner": owner}
    if not table.schema.equals(contract_schema(contract), check_metadata=False):
        raise LocalDataError("TYPE_MISMATCH", "the snapshot has other columns or types than the contract", ids=ids)
    if table.num_rows > contract.max_rows:
        raise LocalDataError(
            "TOO_MANY_ROWS",
            "the snapshot has more rows than the contract allows",
            expected=f"at most {contract.max_rows}",
            got=table.num_rows,
            ids=ids,
        )
    checks = (
        ("NULL_NOT_ALLOWED", "NULL where the contract allows none", _nulls),
        ("DOMAIN_UNKNOWN", "values that are not in the column's closed list", _outside_domain),
        ("VALUE_OUTSIDE_CONTRACT", "values outside the contract's bounds", _outside_bounds),
    )
    for code, what, check in checks:
        counts = {column.name: count for column in contract.columns if (count := check(column, table[column.name]))}
        if counts:
            named = ", ".join(f"{name} ({count})" for name, count in counts.items())
            raise LocalDataError(code, f"{what}: {named}", ids=ids, hint="Correct the source; nothing was filed")
    _check_key(table, contract, ids)


def _nulls(column: Column, values: pa.ChunkedArray) -> int:
    # A row without a protected unit would pass the Gate unseen, one without a date belongs to no period.
    allowed = column.nullable and column.role not in {"unit", "period"}
    return 0 if allowed else int(values.null_count)


def _outside_domain(column: Column, values: pa.ChunkedArray) -> int:
    if not column.domain:
        return 0
    known = pc.is_in(values, value_set=pa.array(column.domain, pa.string()))
    return _count_false(pc.or_(known, pc.is_null(values)))


def _outside_bounds(column: Column, values: pa.ChunkedArray) -> int:
    outside = 0
    for bound, compare in _bounds(column):
        outside += _count_false(pc.fill_null(compare(values, pa.scalar(bound, values.type)), fill_value=True))
    return outside


def _bounds(column: Column) -> Iterator[tuple[Any, Any]]:
    for text, compare in ((column.minimum, pc.greater_equal), (column.maximum, pc.less_equal)):
        if text is None or column.type == "string":
            continue
        if column.type == "date":
            yield dt.date.fromisoformat(text), compare
        elif column.type == "int64":
            yield int(text), compare
        else:
            yield Decimal(text).quantize(Decimal(1).scaleb(-column.scale)), compare


def _count_false(condition: pa.ChunkedArray) -> int:
    return int(pc.sum(pc.invert(condition)).as_py() or 0)


def _check_key(table: pa.Table, contract: DatasetContract, ids: dict[str, str]) -> None:
    distinct = table.select(contract.primary_key).group_by(contract.primary_key).aggregate([]).num_rows
    if distinct < table.num_rows:
        raise LocalDataError(
            "DUPLICATE_KEY",
            f"{table.num_rows - distinct} rows repeat the primary key ({', '.join(contract.primary_key)})",
            ids=ids,
            hint="Correct the source; nothing was filed",
        )
