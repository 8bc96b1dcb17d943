"""What every store offers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from local_stores.errors import LocalDataError
from mpc_ops.federation.contract import DatasetContract

__all__ = ["BATCH_ROWS", "DateRange", "Query", "Reading", "Store", "schema_error"]

BATCH_ROWS = 64 * 1024


@dataclass(frozen=True, slots=True, order=True)
class DateRange:
    """Local dates [start, end)."""

    start: dt.date
    end: dt.date


@dataclass(frozen=True, slots=True)
class Query:
    """All contract columns of the rows whose period column lies in one of the ranges."""

    contract: DatasetContract
    ranges: tuple[DateRange, ...]

    @property
    def period_column(self) -> str:
        """Name of the contract's period column."""
        return self.contract.by_role("period")[0].name

    def spans(self) -> list[DateRange]:
        """Return the ranges, each a day longer at both ends.

        What a store filters by: timestamps of any zone fall into them, and the exact filter follows after casting.
        """
        day = dt.timedelta(days=1)
        return [DateRange(wanted.start - day, wanted.end + day) for wanted in self.ranges]


@dataclass(frozen=True, slots=True)
class Reading:
    """One consistent reading.

    Attributes:
        identity: what identifies the source's state (file digests, transaction snapshot); local, for people.
        batches: pyarrow.RecordBatch in `casting.contract_schema(contract)`, exactly the query's rows, in no order. The
            iterator raises LocalDataError VALUE_OUTSIDE_CONTRACT at its end if values could not be cast.
    """

    identity: str
    batches: Iterator[Any]


class Store(Protocol):
    """One dataset of one owner."""

    def read(self, query: Query) -> AbstractContextManager[Reading]:
        """Open one read-only consistent transaction, run the query and close it.

        Raises:
            StoreUnavailable: STORE_UNAVAILABLE, SOURCE_CHANGED (transient).
            LocalDataError: STORE_SCHEMA (table or column missing, or of a type that is not exact).
        """
        ...


def schema_error(what: str, dataset: str, *, expected: str | None = None, hint: str | None = None) -> LocalDataError:
    """Return the error for a source that has not the form it must have."""
    return LocalDataError("STORE_SCHEMA", what, expected=expected, ids={"dataset": dataset}, hint=hint)
