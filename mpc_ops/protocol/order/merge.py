"""Merge sorted tables without opening anything: a Boolean merge network over keys, rows exchanged under the comparison bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import and_many, evaluate
from mpc_ops.protocol.circuits.compare import less
from mpc_ops.protocol.circuits.convert import bits_to_ring
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps, together
from mpc_ops.protocol.core.rows import Column, RowIndex, Rows, stack, stack_columns
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, concat, public_like, repeat_plane, xor
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.protocol.order.merge_plan import MergeLayer, merge_layers
from mpc_ops.protocol.order.sort_keys import KEY, SortKey, check_keys, numbered, plain_columns, sort_planes

__all__ = ["merge_sorted"]


def merge_sorted(flow: Flow, tables: Sequence[Rows], keys: Sequence[SortKey], *, stable: bool = True) -> Steps[Rows]:
    """Return the rows of sorted tables in one sorted table; equal rows keep the order of tables and rows.

    Run by: all three parties, in lock-step.

    Args:
        flow: its present stage is used; nothing is opened.
        tables: of the same columns, each sorted by `keys` (NULL order included). A table that is not sorted gives a result that is not.
        keys: as in sort.sort.
        stable: without it rows with equal keys come in any order, and no row number is compared.

    Rounds: 1 if a key has NULLs; for each layer (merge_plan.merge_layers) 1 + ceil(log2 W) and 1, or 3 if there are ring columns;
        W is the keys' width and, if stable, the bits of a row number.
    Sent: for each layer of c comparators 8 ceil(c/64) (3 W - 2 - ceil(log2 W) + W + b) bytes per party, b the bits of all columns
        that are not keys without NULLs; 16 c + 8 m c more with m > 0 ring columns.
    Security: AND gates and products, all proven; malicious with abort in an active session.
    Leaks: the tables' lengths and widths; nothing is opened.

    Raises:
        LocalProtocolError: ROWS_INVALID, SHARE_FOREIGN, STAGE_ORDER.
        PeerProtocolError: LENGTH_INVALID.
    """
    for table in tables:
        check_keys(table, keys)
    rows = stack(tables)
    layers, order = merge_layers([table.count for table in tables])
    if not layers:
        return rows.pick(order)
    key = yield from sort_planes(flow.stage, rows, keys)
    number = public_like(key, numbered(rows)) if stable else key[:0]
    # Keys without NULLs are in the sort key already, and come back from it.
    spared = [one.name for one in keys if one.valid is None]
    moving = rows.plus({KEY: concat([number, key])}).without(*spared)
    slots = np.arange(rows.count, dtype=np.int64)
    for depth, layer in enumerate(layers):
        moving, slots = yield from _exchange(flow.stage, depth, moving, slots, layer)
    merged = moving.pick(slots[order])
    plain = plain_columns(merged.bits(KEY)[number.width :], rows, keys)
    return Rows({name: plain[name] if name in plain else merged.columns[name] for name in rows.names})


def _exchange(
    stage: ComputeStage, depth: int, rows: Rows, slots: RowIndex, layer: MergeLayer
) -> Steps[tuple[Rows, RowIndex]]:
    """Do the comparators of a layer; `slots` says where in `rows` each slot's row is, before and after."""
    touched = np.zeros(rows.count, dtype=np.bool_)
    touched[layer.low] = touched[layer.high] = True
    others = np.flatnonzero(~touched)
    low, high = rows.pick(slots[layer.low]), rows.pick(slots[layer.high])
    rest = rows.pick(slots[others])
    (swap,) = yield from evaluate(stage, f"merge{depth}", [less(high.bits(KEY), low.bits(KEY))])
    (bits, words) = yield from together(
        _swapped_bits(stage, f"merge{depth}/swap", swap, low, high), _swapped_ring(stage, swap, low, high)
    )
    columns = {**bits, **words}
    low, high = (Rows({name: columns[name][side] for name in rows.names}) for side in (0, 1))
    following = np.empty(rows.count, dtype=np.int64)
    following[np.concatenate([layer.low, layer.high, others])] = np.arange(rows.count, dtype=np.int64)
    return stack([low, high, rest]), following


Sides = dict[str, tuple[Column, Column]]


def _swapped_bits(stage: ComputeStage, step: str, swap: BooleanPlanes, low: Rows, high: Rows) -> Steps[Sides]:
    """Return the Boolean columns of both sides after the exchange: x ^ (swap & (x ^ y))."""
    names = [name for name, column in low.columns.items() if isinstance(column, BooleanPlanes)]
    one, other = (concat([rows.bits(name) for name in names]) for rows in (low, high))
    (moved,) = yield from and_many(stage, step, [(repeat_plane(swap, one.width), xor(one, other))])
    one, other = xor(one, moved), xor(other, moved)
    out: Sides = {}
    place = 0
    for name in names:
        width = low.bits(name).width
        out[name] = one[place : place + width], other[place : place + width]
        place += width
    return out


def _swapped_ring(stage: ComputeStage, swap: BooleanPlanes, low: Rows, high: Rows) -> Steps[Sides]:
    """Return the columns over Z_2^64 of both sides after the exchange: x + swap (y - x)."""
    names = [name for name, column in low.columns.items() if isinstance(column, RingVector)]
    if not names:
        return {}
    flag = yield from bits_to_ring(stage, swap)
    one, other = (_long([rows.ring(name) for name in names]) for rows in (low, high))
    moved = yield from multiply(stage, _long([flag] * len(names)), other.minus(one))
    one, other = one.plus(moved), other.minus(moved)
    count = low.count
    return {
        name: (one[place * count : (place + 1) * count], other[place * count : (place + 1) * count])
        for place, name in enumerate(names)
    }


def _long(columns: Sequence[RingVector]) -> RingVector:
    joined = stack_columns(columns)
    if not isinstance(joined, RingVector):  # pragma: no cover - columns over Z_2^64 stack to one
        raise LocalProtocolError("ROWS_INVALID", "not a column over Z_2^64")
    return joined
