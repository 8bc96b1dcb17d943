"""Casting by the contract: exact, or refused and counted. No floats, no guessing, no value in any message."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from local_stores.errors import LocalDataError
from local_stores.stores.interface import Query, schema_error
from mpc_ops.federation.contract import Column, DatasetContract

__all__ = ["Casting", "arrow_type", "contract_schema"]

_ISO_DATE = "%Y-%m-%d"


def arrow_type(column: Column) -> pa.DataType:
    """Return the exact Arrow type of a contract column."""
    if column.type == "decimal":
        return pa.decimal128(38, column.scale)
    return {"string": pa.string(), "int64": pa.int64(), "date": pa.date32()}[column.type]


def contract_schema(contract: DatasetContract) -> pa.Schema:
    """Return the Arrow schema of a dataset; nullable, since the encoder counts NULLs where they are not allowed."""
    return pa.schema([pa.field(column.name, arrow_type(column)) for column in contract.columns])


class Casting:
    """Casts the batches of one reading and counts what cannot be cast.

    Args:
        query: contract and ranges.
        decimal_mark: `.` or `,` of numbers that arrive as text.
        date_format: strptime format of dates that arrive as text; None means YYYY-MM-DD.
    """

    def __init__(self, query: Query, *, decimal_mark: str = ".", date_format: str | None = None) -> None:
        self._query = query
        self._schema = contract_schema(query.contract)
        self._zone = ZoneInfo(query.contract.zone)
        self._mark = decimal_mark
        self._date_format = date_format
        self._bad: dict[str, int] = {}

    def batch(self, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
        """Cast one batch (arrays by contract column) and keep the query's rows."""
        arrays = [self._cast(column, _plain(columns[column.name])) for column in self._query.contract.columns]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        return batch.filter(self._wanted(batch.column(self._query.period_column)))

    def count_bad(self, column: str, count: int) -> None:
        """Count values of a column that a store itself could not deliver exactly."""
        if count:
            self._bad[column] = self._bad.get(column, 0) + count

    def finish(self) -> None:
        """Raise VALUE_OUTSIDE_CONTRACT naming columns and counts, if anything could not be cast."""
        if self._bad:
            named = ", ".join(
                f"{name} ({count} as {_words(self._query.contract.column(name))})" for name, count in self._bad.items()
            )
            raise LocalDataError(
                "VALUE_OUTSIDE_CONTRACT",
                f"values cannot be read exactly as the contract's type: {named}",
                ids={"dataset": self._query.contract.name},
                hint="Correct the source; nothing was filed",
            )

    def _wanted(self, dates: pa.Array) -> pa.Array:
        keep = None
        for wanted in self._query.ranges:
            inside = pc.and_(
                pc.greater_equal(dates, pa.scalar(wanted.start, pa.date32())),
                pc.less(dates, pa.scalar(wanted.end, pa.date32())),
            )
            keep = inside if keep is None else pc.or_(keep, inside)
        # A row without a date belongs to no period and to every suspicion: it is kept, so that the encoder counts it.
        return pc.or_kleene(pc.fill_null(keep, fill_value=True), pc.is_null(dates))

    def _cast(self, column: Column, array: pa.Array) -> pa.Array:
        cast = {"string": self._string, "int64": self._integer, "decimal": self._decimal, "date": self._date}
        out = cast[column.type](column, array)
        self.count_bad(column.name, out.null_count - array.null_count)
        return out

    def _string(self, column: Column, array: pa.Array) -> pa.Array:
        if pa.types.is_string(array.type) or pa.types.is_integer(array.type) or _is_large(array.type):
            return array.cast(pa.string())
        if pa.types.is_null(array.type):
            return pa.nulls(len(array), pa.string())
        raise self._type_error(column, array.type)

    def _integer(self, column: Column, array: pa.Array) -> pa.Array:
        if pa.types.is_string(array.type):
            good = pc.match_substring_regex(array, r"^-?[0-9]{1,18}$")
            return pc.if_else(good, array, pa.scalar(None, pa.string())).cast(pa.int64())
        if pa.types.is_integer(array.type) or pa.types.is_decimal(array.type) or pa.types.is_null(array.type):
            return _exactly(array, pa.int64(), int)
        raise self._type_error(column, array.type)

    def _decimal(self, column: Column, array: pa.Array) -> pa.Array:
        target = arrow_type(column)
        if pa.types.is_string(array.type):
            # Zeros beyond the scale are exact; other digits there are not.
            fraction = f"(?:{'[,]' if self._mark == ',' else '[.]'}[0-9]{{0,{column.scale}}}0*)?"
            good = pc.match_substring_regex(array, rf"^-?[0-9]{{1,{28 - column.scale}}}{fraction}$")
            text = pc.if_else(good, array, pa.scalar(None, pa.string()))
            return (pc.replace_substring(text, ",", ".") if self._mark == "," else text).cast(target)
        if pa.types.is_integer(array.type):
            array = array.cast(pa.decimal128(20, 0))
        if pa.types.is_decimal(array.type) or pa.types.is_null(array.type):
            return _exactly(array, target, lambda value: value)
        raise self._type_error(column, array.type)

    def _date(self, column: Column, array: pa.Array) -> pa.Array:
        kind = array.type
        if pa.types.is_date32(kind) or pa.types.is_date64(kind) or pa.types.is_null(kind):
            return array.cast(pa.date32())
        if pa.types.is_timestamp(kind):
            # A timestamp without zone is local time already; one with a zone becomes a date in the contract's zone.
            local = (
                array if kind.tz is None else pc.local_timestamp(array.cast(pa.timestamp(kind.unit, str(self._zone))))
            )
            return pc.floor_temporal(local, unit="day").cast(pa.date32())
        if pa.types.is_string(kind):
            coded = array.dictionary_encode()
            parsed = [self._parse_date(text) for text in coded.dictionary.to_pylist()]
            return pa.array(parsed, pa.date32()).take(coded.indices)
        raise self._type_error(column, kind)

    def _parse_date(self, text: str) -> dt.date | None:
        form = self._date_format or _ISO_DATE
        if self._date_format is None and len(text) != 10:
            return None
        try:
            return dt.datetime.strptime(text, form).date()  # noqa: DTZ007 - a date has no zone
        except ValueError:
            return None

    def _type_error(self, column: Column, kind: pa.DataType) -> LocalDataError:
        floating = pa.types.is_floating(kind)
        return schema_error(
            f"column {column.name} comes as {'a floating-point number' if floating else kind}",
            self._query.contract.name,
            expected=f"{_words(column)}, as text or an exact type",
            hint="Floating point is not exact" if floating else None,
        )


def _words(column: Column) -> str:
    return f"decimal of scale {column.scale}" if column.type == "decimal" else column.type


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _plain(array: pa.Array) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.string()) if _is_large(array.type) else array


def _exactly(array: pa.Array, target: pa.DataType, convert: Callable[[Any], Any]) -> pa.Array:
    """Cast all at once, or, where some value does not fit, one by one with NULL for those."""
    try:
        return array.cast(target)
    except pa.ArrowInvalid:
        out = []
        for value in array:
            try:
                out.append(value.cast(target).as_py())
            except pa.ArrowInvalid:
                out.append(None)
        return pa.array([None if value is None else convert(value) for value in out], target)
