"""Stores that are files: a Parquet folder (or object store), CSV, Excel."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from local_stores.config import StoreConfig
from local_stores.errors import ConfigError, LocalDataError, StoreUnavailable
from local_stores.stores.casting import Casting
from local_stores.stores.interface import BATCH_ROWS, Query, Reading, schema_error

if TYPE_CHECKING:
    import pyarrow.dataset as pads

__all__ = ["CsvStore", "ExcelStore", "ParquetStore"]

_MAX_EXACT_DIGITS = 15  # a binary float gives every decimal of at most 15 significant digits back


class ParquetStore:
    """A folder (or one file) of Parquet files, local or at an fsspec URL."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config

    @contextmanager
    def read(self, query: Query) -> Iterator[Reading]:
        """Read the files once; a file that changes meanwhile makes the reading fail (SOURCE_CHANGED, transient)."""
        import pyarrow.dataset as pads  # noqa: PLC0415 - only this store needs it

        before = self._files(query)
        try:
            paths = [path for path, _ in before]
            dataset = pads.dataset(paths, format="parquet", filesystem=self._filesystem())
            present = dataset.schema.names
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise _unavailable(error, query) from None
        _require_columns(self._config, query, present)
        yield Reading(_digest([(path, mark) for path, mark in before]), self._batches(query, dataset, before))

    def _batches(self, query: Query, dataset: pads.Dataset, before: list[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
        casting = Casting(query)
        names = {column.name: self._config.source_name(column.name) for column in query.contract.columns}
        try:
            scan = dataset.to_batches(
                columns=list(names.values()), filter=self._filter(query, dataset), batch_size=BATCH_ROWS
            )
            for batch in scan:
                yield casting.batch({name: batch.column(source) for name, source in names.items()})
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise _unavailable(error, query) from None
        if self._files(query) != before:
            raise _changed(query)
        casting.finish()

    def _filter(self, query: Query, dataset: pads.Dataset) -> Any:
        import pyarrow.dataset as pads  # noqa: PLC0415

        source = self._config.source_name(query.period_column)
        field, kind = pads.field(source), dataset.schema.field(source).type
        if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
            return None
        wanted = field.is_null()
        for span in query.spans():
            first, last = (pa.scalar(day, pa.date32()).cast(kind) for day in (span.start, span.end))
            wanted |= (field >= first) & (field < last)
        return wanted

    def _filesystem(self) -> Any:
        if "://" not in self._config.location:
            return None
        return _remote(self._config)[0]

    def _files(self, query: Query) -> list[tuple[str, str]]:
        try:
            if "://" in self._config.location:
                filesystem, path = _remote(self._config)
                found = filesystem.find(path, detail=True)
                marks = [
                    (name, repr(sorted((str(k), str(v)) for k, v in info.items()))) for name, info in found.items()
                ]
            else:
                base = Path(self._config.location)
                paths = [base] if base.is_file() else sorted(base.rglob("*.parquet"))
                marks = [(str(path), f"{path.stat().st_size}/{path.stat().st_mtime_ns}") for path in paths]
        except OSError as error:
            raise _unavailable(error, query) from None
        marks = sorted((name, mark) for name, mark in marks if name.endswith(".parquet"))
        if not marks:
            raise StoreUnavailable(
                "STORE_UNAVAILABLE", "no Parquet file is there", ids={"dataset": query.contract.name}
            )
        return marks


class CsvStore:
    """One CSV file with a header line. Every column is read as text and cast by the contract."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config

    @contextmanager
    def read(self, query: Query) -> Iterator[Reading]:
        """Read the file once; a change meanwhile makes the reading fail (SOURCE_CHANGED, transient)."""
        before = _stat(self._config, query)
        yield Reading(f"sha256:{_file_digest(self._config, query)}", self._batches(query, before))

    def _batches(self, query: Query, before: tuple[int, int]) -> Iterator[pa.RecordBatch]:
        import pyarrow.csv as pacsv  # noqa: PLC0415 - only this store needs it

        casting = Casting(query, decimal_mark=self._config.decimal_mark, date_format=self._config.date_format)
        names = {column.name: self._config.source_name(column.name) for column in query.contract.columns}
        wrong_rows = 0

        def skip(_row: object) -> str:
            nonlocal wrong_rows
            wrong_rows += 1
            return "skip"

        _require_columns(self._config, query, self._header(query))
        try:
            reader = pacsv.open_csv(
                self._config.location,
                read_options=pacsv.ReadOptions(encoding=self._config.encoding, use_threads=False),
                parse_options=pacsv.ParseOptions(
                    delimiter=self._config.delimiter, newlines_in_values=True, invalid_row_handler=skip
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names.values(), pa.string()),
                    include_columns=list(names.values()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            for batch in reader:
                yield casting.batch({name: batch.column(source) for name, source in names.items()})
        except pa.ArrowInvalid:
            # The parser's message quotes the line: not repeated.
            raise schema_error("the CSV file cannot be parsed", query.contract.name) from None
        if wrong_rows:
            raise schema_error(
                f"{wrong_rows} lines of the CSV file have another number of fields than the header", query.contract.name
            )
        if _stat(self._config, query) != before:
            raise _changed(query)
        casting.finish()

    def _header(self, query: Query) -> list[str]:
        import csv  # noqa: PLC0415

        encoding = "utf-8-sig" if self._config.encoding == "utf-8" else self._config.encoding
        try:
            with Path(self._config.location).open(encoding=encoding, newline="") as file:
                return next(csv.reader(file, delimiter=self._config.delimiter), [])
        except (UnicodeDecodeError, csv.Error):
            raise schema_error(f"the CSV file is not {self._config.encoding} text", query.contract.name) from None
        except OSError as error:
            raise _unavailable(error, query) from None


class ExcelStore:
    """One sheet of an Excel or OpenDocument file, with a header row."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config

    @contextmanager
    def read(self, query: Query) -> Iterator[Reading]:
        """Read the file's bytes once and the sheet from them."""
        try:
            data = Path(self._config.location).read_bytes()
        except OSError as error:
            raise _unavailable(error, query) from None
        yield Reading(f"sha256:{hashlib.sha256(data).hexdigest()}", self._batches(query, data))

    def _batches(self, query: Query, data: bytes) -> Iterator[pa.RecordBatch]:
        rows = self._rows(query, data)
        header = [str(cell).strip() for cell in rows[0]] if rows else []
        _require_columns(self._config, query, header)
        casting = Casting(query, date_format=self._config.date_format)
        rows = [row for row in rows[1:] if any(cell != "" for cell in row)]
        for start in range(0, len(rows), BATCH_ROWS):
            part = rows[start : start + BATCH_ROWS]
            columns = {}
            for column in query.contract.columns:
                place = header.index(self._config.source_name(column.name))
                cells = [_cell(row[place], column.type) for row in part]
                bad = sum(cell is _BAD for cell in cells)
                casting.count_bad(column.name, bad)
                columns[column.name] = pa.array([None if cell is _BAD else cell for cell in cells], pa.string())
            yield casting.batch(columns)
        casting.finish()

    def _rows(self, query: Query, data: bytes) -> list[list[Any]]:
        import python_calamine  # noqa: PLC0415 - only this store needs it

        name = self._config.table or query.contract.name
        try:
            book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        except (python_calamine.CalamineError, OSError):
            raise schema_error("the file is not an Excel workbook", query.contract.name) from None
        if name not in book.sheet_names:
            if len(book.sheet_names) > 1 or self._config.table is not None:
                raise schema_error(
                    f"the workbook has no sheet {name[:80]}", query.contract.name, hint="Name the sheet as `table`"
                )
            if not book.sheet_names:
                raise schema_error("the workbook has no sheet", query.contract.name)
            name = book.sheet_names[0]
        try:
            rows: list[list[Any]] = book.get_sheet_by_name(name).to_python(skip_empty_area=True)
        except (python_calamine.CalamineError, OSError):
            raise schema_error("the sheet cannot be read", query.contract.name) from None
        return rows


_BAD = object()


def _cell(value: Any, kind: str) -> Any:
    """Return a cell as text, None for an empty one, or `_BAD` where text would be a guess."""
    if value == "" or value is None:
        return None
    if isinstance(value, bool):
        return _BAD
    if isinstance(value, str):
        return value.strip()
    if kind == "date":
        # Excel keeps dates as numbers with a format; a number without the format is not called a date here.
        return value.isoformat()[:10] if hasattr(value, "isoformat") and hasattr(value, "year") else _BAD
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        text = format(value, f".{_MAX_EXACT_DIGITS}g")
        if float(text) != value or "e" in text:
            return str(int(value)) if value.is_integer() and abs(value) < 2**53 else _BAD
        return text
    return _BAD


def _require_columns(config: StoreConfig, query: Query, present: list[str]) -> None:
    wanted = [config.source_name(column.name) for column in query.contract.columns]
    missing = [name for name in wanted if name not in present]
    if missing:
        raise schema_error(
            f"the source has no column {', '.join(missing)}",
            query.contract.name,
            expected=", ".join(wanted),
            hint="Map other names with `columns` in owner.toml",
        )
    twice = [name for name in wanted if present.count(name) > 1]
    if twice:
        raise schema_error(f"the source has two columns {', '.join(twice)}", query.contract.name)


def _remote(config: StoreConfig) -> tuple[Any, str]:
    try:
        import fsspec  # noqa: PLC0415 - only remote stores need it

        filesystem, path = fsspec.core.url_to_fs(config.location)
    except (ImportError, ValueError) as error:
        raise ConfigError("STORE_URL", f"the location cannot be opened ({type(error).__name__})") from None
    return filesystem, str(path)


def _stat(config: StoreConfig, query: Query) -> tuple[int, int]:
    try:
        status = Path(config.location).stat()
    except OSError as error:
        raise _unavailable(error, query) from None
    return status.st_size, status.st_mtime_ns


def _file_digest(config: StoreConfig, query: Query) -> str:
    try:
        with Path(config.location).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unavailable(error, query) from None


def _digest(marks: list[tuple[str, str]]) -> str:
    return "files:" + hashlib.sha256(repr(marks).encode()).hexdigest()


def _unavailable(error: Exception, query: Query) -> LocalDataError:
    return StoreUnavailable(
        "STORE_UNAVAILABLE",
        f"the source cannot be read ({type(error).__name__})",
        ids={"dataset": query.contract.name},
    )


def _changed(query: Query) -> StoreUnavailable:
    return StoreUnavailable(
        "SOURCE_CHANGED", "the source changed while it was read", ids={"dataset": query.contract.name}
    )
