"""Expectations: generated from the dataset contract, and the owner's own from a JSON file with a closed list of types.

```json
[{"type": "expect_column_values_to_be_between", "kwargs": {"column": "quantity", "min_value": 1}, "note": "no returns"}]
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from local_stores.errors import ConfigError
from mpc_ops.envelope.schema import Model, built
from mpc_ops.federation.contract import Column, DatasetContract
from mpc_ops.federation.loaded import read_file

__all__ = ["ALLOWED", "Expectation", "contract_expectations", "own_expectations"]

_MAX_OWN = 500
ALLOWED: dict[str, frozenset[str]] = {
    name: frozenset(arguments.split())
    for name, arguments in {
        "expect_table_row_count_to_be_between": "min_value max_value",
        "expect_table_columns_to_match_set": "column_set exact_match",
        "expect_column_values_to_not_be_null": "column mostly",
        "expect_column_values_to_be_in_set": "column value_set mostly",
        "expect_column_values_to_not_be_in_set": "column value_set mostly",
        "expect_column_values_to_be_between": "column min_value max_value strict_min strict_max mostly",
        "expect_column_values_to_be_unique": "column mostly",
        "expect_column_values_to_match_regex": "column regex mostly",
        "expect_column_value_lengths_to_be_between": "column min_value max_value mostly",
        "expect_column_sum_to_be_between": "column min_value max_value",
        "expect_column_mean_to_be_between": "column min_value max_value",
        "expect_column_max_to_be_between": "column min_value max_value",
        "expect_column_min_to_be_between": "column min_value max_value",
        "expect_column_unique_value_count_to_be_between": "column min_value max_value",
        "expect_column_pair_values_a_to_be_greater_than_b": "column_A column_B or_equal",
        "expect_compound_columns_to_be_unique": "column_list",
    }.items()
}
"""Types of Great Expectations that may be used, with their arguments."""


class Expectation(Model, frozen=True, kw_only=True):
    """One expectation.

    Attributes:
        type: name in `ALLOWED`.
        kwargs: its arguments.
        note: the owner's words for the page.
    """

    type: Annotated[str, Meta(max_length=100)]
    kwargs: dict[Annotated[str, Meta(max_length=40)], Any]
    note: Annotated[str, Meta(max_length=500)] = ""

    @property
    def columns(self) -> list[str]:
        """The columns it looks at."""
        single = [self.kwargs[name] for name in ("column", "column_A", "column_B") if name in self.kwargs]
        return [str(name) for name in (*single, *self.kwargs.get("column_list", ()))]

    @property
    def title(self) -> str:
        """Name and columns, without any bound or value."""
        words = self.type.removeprefix("expect_").replace("_", " ")
        return f"{words} ({', '.join(self.columns)})" if self.columns else words


def contract_expectations(contract: DatasetContract) -> list[Expectation]:
    """Return what the dataset contract promises, as expectations."""
    out = [
        _one("expect_table_columns_to_match_set", column_set=[column.name for column in contract.columns]),
        _one("expect_table_row_count_to_be_between", min_value=0, max_value=contract.max_rows),
    ]
    for column in contract.columns:
        out += _column(column)
    key = contract.primary_key
    if len(key) == 1:
        out.append(_one("expect_column_values_to_be_unique", column=key[0]))
    else:
        out.append(_one("expect_compound_columns_to_be_unique", column_list=list(key)))
    return out


def _column(column: Column) -> list[Expectation]:
    out = []
    if not column.nullable or column.role in {"unit", "period"}:
        out.append(_one("expect_column_values_to_not_be_null", column=column.name))
    if column.domain:
        out.append(_one("expect_column_values_to_be_in_set", column=column.name, value_set=list(column.domain)))
    if column.type in {"int64", "decimal"}:
        # Validation is for people and works on floating point; the encoder compares exactly.
        bounds = {"min_value": float(column.minimum or 0), "max_value": float(column.maximum or 0)}
        out.append(_one("expect_column_values_to_be_between", column=column.name, **bounds))
    return out


def _one(kind: str, **kwargs: Any) -> Expectation:
    return Expectation(type=kind, kwargs=kwargs)


def own_expectations(file: Path | None, contract: DatasetContract) -> list[Expectation]:
    """Return the owner's own expectations.

    Raises:
        ConfigError: EXPECTATIONS_INVALID with the position, for other types, arguments or columns.
    """
    if file is None:
        return []
    try:
        built(Expectation)
        found = msgspec.json.decode(read_file(file, limit_bytes=1 << 20), type=list[Expectation], strict=True)
    except msgspec.MsgspecError as error:
        place = str(error).partition(" - at ")[2] if isinstance(error, msgspec.ValidationError) else ""
        raise _invalid(f"the file is not a list of expectations {place}".strip(), file) from None
    if len(found) > _MAX_OWN:
        raise _invalid(f"more than {_MAX_OWN} expectations", file)
    known = {column.name for column in contract.columns}
    for number, expectation in enumerate(found, start=1):
        allowed = ALLOWED.get(expectation.type)
        if allowed is None:
            raise _invalid(
                f"expectation {number} has a type that is not in the closed list", file, got=expectation.type
            )
        foreign = sorted(set(expectation.kwargs) - allowed)
        if foreign:
            raise _invalid(f"expectation {number} has arguments that its type has not", file, got=", ".join(foreign))
        unknown = sorted(set(expectation.columns) - known)
        if unknown:
            raise _invalid(
                f"expectation {number} names a column that the contract has not", file, got=", ".join(unknown)
            )
    return found


def _invalid(why: str, file: Path, *, got: str | None = None) -> ConfigError:
    return ConfigError("EXPECTATIONS_INVALID", why, got=got, ids={"file": str(file)})
