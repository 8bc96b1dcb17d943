"""Figures of a row that depend on the rows before it: running sums, row numbers, ranks; over the whole table or within groups.

Running sums over a sorted table are local. Within groups, what had been added up before a group's first row is spread over the
group and taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.convert import bits_to_ring
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps, together
from mpc_ops.protocol.core.rows import Column, Rows
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, concat, invert, ring_zero
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.order.sort_keys import check_keys, sort_planes
from mpc_ops.protocol.relational.groups import Summand, summands
from mpc_ops.protocol.relational.ordered import Key, heads_of, key_planes, one_bit, same_as_next, spread
from mpc_ops.protocol.relational.row_planes import running_sum

__all__ = ["Window", "windows"]

WindowKind: TypeAlias = Literal["running_sum", "row_number", "rank", "dense_rank"]
_KINDS = frozenset({"running_sum", "row_number", "rank", "dense_rank"})
_KEY, _SUM = "(window key)", "(window sum)"


@dataclass(frozen=True, slots=True)
class Window:
    """One figure per row, over the rows up to it in its group.

    Attributes:
        name: of the result, a column over Z_2^64.
        kind: running_sum of a column, row by row; row_number from 1; rank, which equal rows share and after which numbers are left
            out; dense_rank, which leaves none out.
        column: of a running sum: over Z_2^64 or Boolean.
        valid: validity bit of that column; NULLs add nothing.
        signed: a Boolean column holds two's complement values.
    """

    name: str
    kind: WindowKind
    column: str | None = None
    valid: str | None = None
    signed: bool = False


def windows(
    flow: Flow,
    rows: Rows,
    wanted: Sequence[Window],
    order_by: Sequence[SortKey],
    *,
    partition_by: Sequence[Key] = (),
    live: str | None = None,
    pivots: int = 1,
) -> Steps[Rows]:
    """Sort a table by groups and within them, and add figures that depend on the rows before.

    Run by: all three parties, in lock-step.

    Args:
        flow: the flow.
        rows: n rows.
        wanted: figures.
        order_by: order within a group, as in `sort`; equal rows keep the table's order. O bits in all.
        partition_by: keys of the groups, K bits in all with validity bits; none: the table is one group.
        live: a validity bit of rows; those without stand at the end, and their figures say nothing.
        pivots: as in `sort`.

    Returns:
        The table in its new order, with the figures.

    Rounds: the larger of 1 (for NULLs in keys) and `summands` of the running sums; the sort; ceil(log2 W), W = K + O with a rank or
        dense rank, else K for groups, 1 more with `live`; 2 for a dense rank; for groups, and for a rank, one `spread` each.
    Sent: 8 ceil(n/64) per bit of a key with NULLs; `summands`; the sort of K + O + [live] bits, all columns and one ring column per
        running sum; 8 (W - 1) ceil(n/64) for groups (W = K + [live]) and for ties (W = K + O + [live]); 16 n for a dense rank; for
        groups the spread of one ring column per running sum, one for dense ranks, and one for row numbers and ranks together; for
        ranks the spread of one ring column.
    Security: malicious with abort in an active session, semi-honest in a passive one.
    Leaks: n, widths; what sort and spread open (random orders).

    Raises:
        LocalProtocolError: ROWS_INVALID for columns or names that do not fit.
    """
    _check(rows, wanted, order_by)
    added = [_summand(one) for one in wanted if one.kind == "running_sum"]
    keys = [key_planes(flow.stage, rows, partition_by)] if partition_by else []
    sums, order, *groups = yield from together(
        summands(flow.stage, rows, added), sort_planes(flow.stage, rows, order_by), *keys
    )
    planes: list[BooleanPlanes] = [order, *(group.planes for group in groups)]
    if live is not None:
        planes.append(invert(one_bit(rows, live)))
    table = rows.plus({_KEY: concat(planes), **{f"{_SUM}{at}": sums[one] for at, one in enumerate(added)}})
    table = yield from sort(flow, table, [SortKey(_KEY)], pivots=pivots)
    figures = yield from _Sorted(table, planes[0].width, bool(partition_by), live is not None).figures(flow, wanted)
    extra = [_KEY, *(f"{_SUM}{at}" for at in range(len(added)))]
    return table.without(*extra).plus(figures)


def _check(rows: Rows, wanted: Sequence[Window], order_by: Sequence[SortKey]) -> None:
    names = {one.name for one in wanted}
    if not wanted or len(names) != len(wanted) or names & set(rows.names):
        raise LocalProtocolError("ROWS_INVALID", "figures have names of their own, at least one")
    for one in wanted:
        if one.kind not in _KINDS or (one.column is None) != (one.kind != "running_sum"):
            raise LocalProtocolError(
                "ROWS_INVALID", "a running sum has a column, other figures have none", got=one.kind
            )
        if one.column is not None and one.column not in rows.names:
            raise LocalProtocolError("ROWS_INVALID", "no such column", got=one.column)
        if one.valid is not None:
            one_bit(rows, one.valid)
    check_keys(rows, order_by)


def _summand(one: Window) -> Summand:
    return Summand(one.column or "", one.valid or "", 1, one.signed)


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The sorted table: order planes lowest, then the groups' keys, then whether a row is not live."""

    table: Rows
    order_width: int
    grouped: bool
    marked: bool

    def figures(self, flow: Flow, wanted: Sequence[Window]) -> Steps[dict[str, Column]]:
        """Return the figures by name."""
        key = self.table.bits(_KEY)
        top = key.width - self.marked
        live = invert(key.plane(top)) if self.marked else None
        kinds = {one.kind for one in wanted}
        tied = bool(kinds & {"rank", "dense_rank"})
        circuits = [same_as_next(key[self.order_width : top], live)] if self.grouped else []
        circuits += [same_as_next(key[:top], live)] if tied else []
        same = yield from evaluate(flow.stage, "window-same", circuits)
        before = yield from self._before(flow, wanted, heads_of(same[-1]) if tied else None)
        after = {name: one.plus(step) for name, (one, step) in before.items()}
        base: Rows | None = None
        if self.grouped:
            base = yield from spread(flow, heads_of(same[0]), Rows({name: one for name, (one, _) in before.items()}))
        if "rank" in kinds:
            ties = yield from spread(flow, heads_of(same[-1]), Rows({"at": self._places(flow)}))
            after["rank"] = ties.ring("at").plus_public(np.ones(self.table.count, dtype=np.uint64))
        number = 0
        out: dict[str, Column] = {}
        for one in wanted:
            name: str = one.kind
            if one.kind == "running_sum":
                name, number = f"{_SUM}{number}", number + 1
            figure = after[name]
            start = "row_number" if name == "rank" else name
            out[one.name] = figure if base is None else figure.minus(base.ring(start))
        return out

    def _before(
        self, flow: Flow, wanted: Sequence[Window], tie_heads: BooleanPlanes | None
    ) -> Steps[dict[str, tuple[RingVector, RingVector]]]:
        """Return for each kind of figure (what the rows before a row add up to, what the row adds)."""
        kinds = [one.kind for one in wanted]
        ones = np.ones(self.table.count, dtype=np.uint64)
        steps = {f"{_SUM}{at}": self.table.ring(f"{_SUM}{at}") for at in range(kinds.count("running_sum"))}
        if "dense_rank" in kinds and tie_heads is not None:
            steps["dense_rank"] = yield from bits_to_ring(flow.stage, tie_heads)
        out = {name: (running_sum(step).minus(step), step) for name, step in steps.items()}
        if {"row_number", "rank"} & set(kinds):
            out["row_number"] = self._places(flow), ring_zero(flow.stage, self.table.count).plus_public(ones)
        return out

    def _places(self, flow: Flow) -> RingVector:
        """Return the public positions 0, 1, 2, ..."""
        return ring_zero(flow.stage, self.table.count).plus_public(np.arange(self.table.count, dtype=np.uint64))
