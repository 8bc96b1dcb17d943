"""Sort keys: several columns, directions, signs and NULL order as one unsigned Boolean key, lowest planes last key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import and_many
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.shares import BooleanPlanes, concat, invert, repeat_plane, xor_public
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.ring.planes import PlaneArray, to_planes

__all__ = ["KEY", "NUMBER", "SortKey", "check_keys", "key_width", "numbered", "plain_columns", "sort_planes"]

KEY, NUMBER = "(key)", "(row number)"
"""Columns that sorts and merges add while they run; a table may not have them."""


@dataclass(frozen=True, slots=True)
class SortKey:
    """One column that rows are sorted by.

    Attributes:
        name: a Boolean column of any width.
        descending: largest first. NULLs are not affected.
        signed: two's complement.
        valid: name of the column's validity bit (1: there is a value), if it has NULLs. All NULLs are equal.
        nulls_first: NULLs before all values instead of behind them.
    """

    name: str
    descending: bool = False
    signed: bool = False
    valid: str | None = None
    nulls_first: bool = False


def check_keys(rows: Rows, keys: Sequence[SortKey]) -> None:
    """Refuse keys that the table does not have, and columns with the names KEY and NUMBER.

    Raises:
        LocalProtocolError: ROWS_INVALID.
    """
    if not keys or any(rows.bits(key.name).width == 0 for key in keys):
        raise LocalProtocolError("ROWS_INVALID", "a sort has at least one key, and each has at least one bit")
    if KEY in rows.columns or NUMBER in rows.columns:
        raise LocalProtocolError("ROWS_INVALID", "a column has a name that is reserved", got=f"{KEY} or {NUMBER}")
    if any(key.valid is not None and rows.bits(key.valid).width != 1 for key in keys):
        raise LocalProtocolError("ROWS_INVALID", "a validity column has one bit")


def key_width(rows: Rows, keys: Sequence[SortKey]) -> int:
    """Return the bits of all keys together, validity bits included."""
    return sum(rows.bits(key.name).width + (key.valid is not None) for key in keys)


def numbered(rows: Rows) -> PlaneArray:
    """Return planes of the row numbers 0 .. n - 1, as narrow as they fit."""
    width = max(1, (rows.count - 1).bit_length())
    return to_planes(np.arange(rows.count, dtype=np.uint64), width)


def sort_planes(stage: ComputeStage, rows: Rows, keys: Sequence[SortKey]) -> Steps[BooleanPlanes]:
    """Return one key of `key_width` bits whose unsigned order is the wanted one.

    Rounds: 1 if a key has NULLs (their values are cleared), else none.  Sent: 8 w ceil(n/64) bytes per party for keys with NULLs.
    Security, errors: as `and_many`.  Leaks: nothing.
    """
    nullable = [key for key in keys if key.valid is not None]
    pairs = [
        (rows.bits(key.name), repeat_plane(rows.bits(key.valid), rows.bits(key.name).width))
        for key in nullable
        if key.valid
    ]
    cleared = dict(zip(nullable, (yield from and_many(stage, "null-keys", pairs)), strict=True)) if pairs else {}
    parts: list[BooleanPlanes] = []
    for key in reversed(keys):
        value = _directed(cleared.get(key, rows.bits(key.name)), key)
        parts.append(value)
        if key.valid is not None:
            # NULLs are alike: their bits are those of 0, and the bit above puts them on one side.
            valid = rows.bits(key.valid)
            parts.append(valid if key.nulls_first else invert(valid))
    return parts[0] if len(parts) == 1 else concat(parts)


def _directed(value: BooleanPlanes, key: SortKey) -> BooleanPlanes:
    if not key.descending and not key.signed:
        return value
    flips = np.zeros_like(value.first)
    if key.descending:
        flips = ~flips
    if key.signed:
        flips[-1] = ~flips[-1]
    return xor_public(value, flips)


def plain_columns(key: BooleanPlanes, rows: Rows, keys: Sequence[SortKey]) -> dict[str, BooleanPlanes]:
    """Return the columns of keys without NULLs from a sort key; no message. `rows` gives the widths."""
    out: dict[str, BooleanPlanes] = {}
    low = 0
    for one in reversed(keys):
        width = rows.bits(one.name).width
        if one.valid is None:
            out[one.name] = _directed(key[low : low + width], one)
        low += width + (one.valid is not None)
    return out
