"""Dataset contracts: what a column may hold. The overflow proof and the encoder rest on them."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mpc_ops.envelope.schema import Model
from mpc_ops.errors import ConfigError
from mpc_ops.ids import check_name

__all__ = ["Column", "ControlTotal", "DatasetContract", "check_contract"]

_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,9})?")
Text = Annotated[str, Meta(max_length=2000)]
Short = Annotated[str, Meta(min_length=1, max_length=200)]


class Column(Model, frozen=True, kw_only=True):
    """One column of a dataset.

    Attributes:
        name: column name in the store's SELECT and in report SQL.
        type: `string`, `int64`, `decimal` (exact, with `scale` digits after the point), `date` (days, no zone).
        scale: digits after the point of a `decimal`; amounts travel as integers in units of 10^-scale.
        minimum, maximum: inclusive bounds as decimal strings, required for `int64` and `decimal`; the encoder refuses
            what lies outside and the planner proves from them that no sum can overflow.
        nullable: whether NULL is allowed. Summed columns and group dimensions may not be nullable.
        domain: the closed list of values of a public dimension, in report order; empty for other columns.
        role: `dimension` (public categories), `measure`, `unit` (the protected person or customer), `period` (the date
            that places a row in a period), `key`, `attribute`.
    """

    name: Short
    type: Literal["string", "int64", "decimal", "date"]
    role: Literal["dimension", "measure", "unit", "period", "key", "attribute"]
    scale: Annotated[int, Meta(ge=0, le=9)] = 0
    minimum: Short | None = None
    maximum: Short | None = None
    nullable: bool = False
    domain: Annotated[list[Short], Meta(max_length=500)] = msgspec.field(default_factory=list)
    label: Text = ""


class ControlTotal(Model, frozen=True, kw_only=True):
    """A sum that must tie to the owner's ledger, checked at the owner; only pass or fail leaves it.

    Attributes:
        column: the summed column.
        source: name of the figure in the owner's control-total file.
        tolerance: largest allowed difference as a decimal string in the column's unit.
    """

    column: Short
    source: Short
    tolerance: Short = "0"


class DatasetContract(Model, frozen=True, kw_only=True):
    """What every owner's store must deliver for a dataset.

    Attributes:
        unit_label: plural word for the protected unit in texts (`customers`).
        zone: IANA zone in which a timestamp becomes a date.
        primary_key: columns that identify a row; duplicates are refused.
        max_rows: most rows of one owner and snapshot; part of the overflow proof.
        data_class: data class of the rule vocabulary (evidence.md section D).
    """

    name: Short
    version: Annotated[int, Meta(ge=1)]
    description: Text
    data_class: Literal[
        "personal",
        "sensitive_personal",
        "payment",
        "bank_customer_secret",
        "important_or_core",
        "employee",
        "legal_person_confidential",
        "non_regulated",
    ]
    unit_label: Short
    zone: Short
    primary_key: Annotated[list[Short], Meta(min_length=1, max_length=8)]
    max_rows: Annotated[int, Meta(ge=1, le=10**10)]
    columns: Annotated[list[Column], Meta(min_length=1, max_length=300)]
    control_totals: Annotated[list[ControlTotal], Meta(max_length=50)] = msgspec.field(default_factory=list)

    def column(self, name: str) -> Column:
        """Return the column called `name`; raise ConfigError COLUMN_UNKNOWN listing what there is."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ConfigError(
            "COLUMN_UNKNOWN",
            f"dataset {self.name} has no column {name[:80]}",
            expected=", ".join(column.name for column in self.columns),
            ids={"dataset": self.name},
        )

    def by_role(self, role: str) -> list[Column]:
        """Return the columns of a role, in order."""
        return [column for column in self.columns if column.role == role]


def check_contract(contract: DatasetContract) -> None:
    """Check what the types cannot say; raise ConfigError CONTRACT_INVALID with the reason."""

    def refuse(why: str) -> ConfigError:
        return ConfigError("CONTRACT_INVALID", why, ids={"dataset": contract.name})

    check_name(contract.name, "dataset")
    names = [column.name for column in contract.columns]
    if len(set(names)) != len(names):
        raise refuse("two columns have one name")
    for column in contract.columns:
        _check_column(column, refuse)
    for role in ("period", "unit"):
        if len(contract.by_role(role)) != 1:
            raise refuse(f"exactly one column must have the role {role!r}")
    if contract.by_role("period")[0].type != "date":
        raise refuse("the period column must be a date")
    for name in contract.primary_key:
        contract.column(name)
    for total in contract.control_totals:
        if contract.column(total.column).role != "measure":
            raise refuse(f"control total over {total.column}, which is not a measure")
        if not _NUMBER.fullmatch(total.tolerance) or total.tolerance.startswith("-"):
            raise refuse(f"tolerance of the control total over {total.column} is not a decimal number")


def _check_column(column: Column, refuse: Callable[[str], ConfigError]) -> None:
    if not column.name.isidentifier() or column.name != column.name.lower():
        raise refuse(f"column {column.name[:80]!r} is not a lower-case identifier")
    if column.scale and column.type != "decimal":
        raise refuse(f"column {column.name} has a scale but is not a decimal")
    if column.type in {"int64", "decimal"}:
        _check_bounds(column, refuse)
    if column.role == "dimension" and (not column.domain or column.type != "string" or column.nullable):
        raise refuse(f"dimension {column.name} must be a string, not nullable, with a domain")
    if column.role == "measure" and (column.nullable or column.type not in {"int64", "decimal"}):
        raise refuse(f"measure {column.name} must be a number and not nullable")
    if len(set(column.domain)) != len(column.domain):
        raise refuse(f"domain of {column.name} repeats a value")


def _check_bounds(column: Column, refuse: Callable[[str], ConfigError]) -> None:
    if column.minimum is None or column.maximum is None:
        raise refuse(f"numeric column {column.name} has no minimum and maximum")
    digits = column.scale if column.type == "decimal" else 0
    for text in (column.minimum, column.maximum):
        if not _NUMBER.fullmatch(text) or len(text.partition(".")[2]) > digits:
            raise refuse(f"minimum or maximum of {column.name} is not a decimal number of its scale")
    if Decimal(column.minimum) > Decimal(column.maximum):
        raise refuse(f"minimum of {column.name} is above its maximum")
    # An int64 is what the encoder shares; a wider column would wrap before the bounds are looked at.
    if max(abs(Decimal(column.minimum)), abs(Decimal(column.maximum))).scaleb(column.scale) >= 2**63:
        raise refuse(f"bounds of {column.name} do not fit 64 bits")
