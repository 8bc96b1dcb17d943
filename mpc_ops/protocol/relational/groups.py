"""Group-by on one or more secret keys, and distinct rows. The number of groups stays secret unless its bound is public.

After a sort by key everything takes a constant number of rounds: running sums are local, a group's total is the difference of
two of them, and the rows where groups end are moved together by one partition. Smallest and largest values stand at a group's
ends once the value is the sort's last key. Source: protocols such as Asharov et al. CCS'23 for the shape (sort, boundaries,
compaction); the running parities that carry a value out of a group are the same differences over bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import and_many, evaluate
from mpc_ops.protocol.circuits.compare import flip_sign
from mpc_ops.protocol.circuits.convert import bits_to_ring, values_to_ring
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps, together
from mpc_ops.protocol.core.rows import Column, Rows, zero_bits
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, concat, invert, repeat_plane, ring_of, xor
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.protocol.order.shuffle import compact
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.relational.domain_groups import domain_groups, domain_is_cheaper
from mpc_ops.protocol.relational.ordered import (
    VALID,
    Key,
    KeyPlanes,
    blank_rows,
    ends_of,
    key_planes,
    one_bit,
    same_as_next,
)
from mpc_ops.protocol.relational.row_planes import (
    first_row_then,
    multiply_all,
    next_rows,
    parity_steps,
    running_parity,
    running_sum,
    sum_steps,
)

__all__ = ["VALID", "Aggregate", "Groups", "Summand", "distinct", "group_by", "summands"]

Kind: TypeAlias = Literal["count", "sum", "average", "variance", "min", "max", "distinct_count"]
_SUMS = frozenset({"sum", "average", "variance"})
_ORDERED = frozenset({"min", "max", "distinct_count"})


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One figure per group.

    | kind | columns of the result | NULLs |
    |---|---|---|
    | count | NAME: rows, or rows with a value if there is a column | not counted |
    | sum | NAME | left out; 0 if there is no value |
    | average | NAME_sum, NAME_count: numerator and denominator | left out |
    | variance | NAME_sum, NAME_squares, NAME_count | left out |
    | min, max | NAME (Boolean, as wide as the column), and NAME_valid if the column has NULLs | left out |
    | distinct_count | NAME | left out |

    Sums are modulo 2^64: the plan's bounds see to it that they do not wrap. Count, sum and distinct_count are over Z_2^64.

    Attributes:
        name: name of the result.
        kind: what is computed.
        column: what it is computed from: for sums a column over Z_2^64 or a Boolean one, for min, max and distinct_count a
            Boolean one. A count has none unless `valid` is given.
        valid: validity bit of that column; None if it has no NULLs.
        signed: a Boolean column holds two's complement values.
    """

    name: str
    kind: Kind
    column: str | None = None
    valid: str | None = None
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Groups:
    """A table of groups in ascending order of keys, NULLs first.

    Attributes:
        rows: key columns, the aggregates' columns and VALID; min(n, bound) rows, or fewer if there cannot be more groups. The groups
            come first, then rows of zeros.
        overflow: one bit: there are more groups than the bound. 0 without a bound.
    """

    rows: Rows
    overflow: BooleanPlanes


def group_by(
    flow: Flow,
    rows: Rows,
    keys: Sequence[Key],
    aggregates: Sequence[Aggregate],
    *,
    live: str | None = None,
    bound: int | None = None,
    pivots: int = 1,
) -> Steps[Groups]:
    """Group rows by keys; NULL keys are one group.

    Run by: all three parties, in lock-step.

    Args:
        flow: the flow.
        rows: n rows.
        keys: Boolean columns, the first one most significant; K bits in all, validity bits included.
        aggregates: figures per group; names and key names differ.
        live: a validity bit of rows; a row without counts nowhere.
        bound: public bound on the number of groups; further groups are cut and `overflow` is 1.
        pivots: as in `sort`.

    Keys of few bits in a table of at least 2^K rows, with counts, sums, averages and variances only, take no sort if that is cheaper
    (`domain_is_cheaper`): preparation, and then rounds and bytes are those of `domain_groups`. Otherwise:

    Rounds: preparation 0 to 4 (1 for NULLs of keys, beside `summands`); then for the pass with the sums, and one more pass for each
        further column of O bits that min, max or distinct_count needs: NULLs of that column 1 (with `live` 2), the sort, ceil(log2 W)
        for the boundaries (W = K, 1 more with `live`; with a distinct count ceil(log2 V), V = K + O, 1 more with `live` or 2 more
        with NULLs), 2 for max of a column with NULLs, a distinct count or both, `compact`, `blank_rows`.
    Sent: preparation 8 ceil(n/64) per bit of a key with NULLs, and `summands`. Per pass: the sort of K + [live] bits, O for the
        column and 1 for its NULLs, and the sums; 8 ceil(n/64) per AND: O for NULLs (with `live` 1 more), W - 1 for the boundaries
        and V - 1 for those of a distinct count, 1 + O for max with NULLs; 16 n for a distinct count; compact of K + 1 bits, O each
        for min and max, 1 for NULLs, and the sums; blank_rows of the same without the 1 for min(n, bound) rows.
    Security: malicious with abort in an active session, semi-honest in a passive one.
    Leaks: n, widths, the bound; what the sort and compact open (random orders).

    Raises:
        LocalProtocolError: ROWS_INVALID for keys or aggregates that do not fit the table.
    """
    plan = _plan(rows, keys, aggregates, bound)
    key, sums = yield from together(key_planes(flow.stage, rows, keys), summands(flow.stage, rows, plan.sums))
    alive = None if live is None else one_bit(rows, live)
    summed = [None if one == Summand() else sums[one] for one in plan.sums]
    given = len([one for one in summed if one is not None])
    if plan.orders == (None,) and domain_is_cheaper(rows.count, key.planes.width, given, marked=live is not None):
        found = yield from domain_groups(flow, key.planes, alive, summed, bound)
        return _assembled([Groups(*found)], key, plan, aggregates)
    tables: list[Groups] = []
    for place, order in enumerate(plan.orders):
        one = _Pass(key, alive, order, tuple(sums.items()) if place == 0 else (), bound)
        tables.append((yield from one.run(flow, rows, pivots)))
    return _assembled(tables, key, plan, aggregates)


def distinct(
    flow: Flow,
    rows: Rows,
    keys: Sequence[Key],
    *,
    live: str | None = None,
    bound: int | None = None,
    pivots: int = 1,
) -> Steps[Groups]:
    """Return every combination of keys once.

    Rounds, bytes, security, leaks, errors: as `group_by` without aggregates.
    """
    result = yield from group_by(flow, rows, keys, [], live=live, bound=bound, pivots=pivots)
    return result


# --------------------------------------------------------------------------------------------------- what is to be computed


@dataclass(frozen=True, slots=True, order=True)
class Summand:
    """Something that is summed per group: values, their squares, the number of values; without a column the rows."""

    column: str = ""
    valid: str = ""
    power: int = 0
    signed: bool = False


@dataclass(frozen=True, slots=True)
class _Order:
    """The sort's last key of one pass, and what is wanted of it."""

    column: str
    valid: str | None
    signed: bool
    kinds: frozenset[str] = field(compare=False, default=frozenset())


@dataclass(frozen=True, slots=True)
class _Plan:
    sums: tuple[Summand, ...]
    orders: tuple[_Order | None, ...]


def _plan(rows: Rows, keys: Sequence[Key], aggregates: Sequence[Aggregate], bound: int | None) -> _Plan:
    sums: dict[Summand, None] = {}
    orders: dict[_Order, set[str]] = {}
    for one in aggregates:
        _check_aggregate(rows, one)
        for _, summand in _summands_of(one):
            sums[summand] = None
        if one.kind in _ORDERED:
            orders.setdefault(_order_of(one), set()).add(one.kind)
    names = [name for key in keys for name in (key.name, key.valid) if name is not None]
    names += [name for one in aggregates for name in _result_names(one)]
    if len({*names, VALID}) != len(names) + 1 or (bound is not None and bound < 1):
        raise LocalProtocolError("ROWS_INVALID", "results have names of their own, and a bound is at least 1")
    passes = [_Order(one.column, one.valid, one.signed, frozenset(kinds)) for one, kinds in orders.items()]
    return _Plan(tuple(sums), tuple(passes) or (None,))


def _check_aggregate(rows: Rows, one: Aggregate) -> None:
    if one.kind not in _SUMS | _ORDERED | {"count"} or (one.column is None) != (one.kind == "count"):
        raise LocalProtocolError("ROWS_INVALID", "a count has no column, other figures have one", got=one.kind)
    if one.valid is not None:
        one_bit(rows, one.valid)
    if one.column is not None and (one.kind in _ORDERED or one.column not in rows.columns):
        rows.bits(one.column)


def _order_of(one: Aggregate) -> _Order:
    return _Order(one.column or "", one.valid, one.signed)


def _summands_of(one: Aggregate) -> list[tuple[str, Summand]]:
    """Return (column of the result, what is summed for it)."""
    column, valid = one.column or "", one.valid or ""
    values, squares = (Summand(column, valid, power, one.signed) for power in (1, 2))
    counted = Summand(valid=valid)
    if one.kind == "count":
        return [(one.name, counted)]
    if one.kind == "sum":
        return [(one.name, values)]
    if one.kind == "average":
        return [(f"{one.name}_sum", values), (f"{one.name}_count", counted)]
    if one.kind == "variance":
        return [(f"{one.name}_sum", values), (f"{one.name}_squares", squares), (f"{one.name}_count", counted)]
    return []


def _result_names(one: Aggregate) -> list[str]:
    if one.kind in {"min", "max"}:
        return [one.name, *([f"{one.name}_valid"] if one.valid else [])]
    return [name for name, _ in _summands_of(one)] or [one.name]


def summands(stage: ComputeStage, rows: Rows, wanted: Sequence[Summand]) -> Steps[dict[Summand, RingVector]]:
    """Return one vector per summand, NULLs as 0.

    Rounds: 2 for every 64 validity bits and Boolean amounts, 1 more for amounts with NULLs, 1 more for squares.
    Sent: 16 n bytes per party for each validity bit and each bit of a Boolean amount, 8 n for each amount with NULLs and each square.
    Security, errors: as `values_to_ring`, `multiply_all`.  Leaks: n and widths.
    """
    flags = sorted({one.valid for one in wanted if one.valid})
    boolean = sorted(
        {
            (one.column, one.signed)
            for one in wanted
            if one.column and isinstance(rows.columns[one.column], BooleanPlanes)
        }
    )
    converted = yield from together(
        *(bits_to_ring(stage, one_bit(rows, name)) for name in flags),
        *(values_to_ring(stage, rows.bits(name), signed=signed) for name, signed in boolean),
    )
    flag = dict(zip(flags, converted, strict=False))
    value = dict(zip(boolean, converted[len(flags) :], strict=True))
    ones = np.ones(rows.count, dtype=np.uint64)
    zero = np.zeros(rows.count, dtype=np.uint64)
    found = {Summand(): ring_of(stage, zero, zero.copy()).plus_public(ones)}
    found.update({Summand(valid=name): flag[name] for name in flags})
    firsts = sorted({Summand(one.column, one.valid, 1, one.signed) for one in wanted if one.power})
    for one in firsts:
        plain = value.get((one.column, one.signed))
        found[one] = rows.ring(one.column) if plain is None else plain
    nullable = [one for one in firsts if one.valid]
    masked = yield from multiply_all(stage, [(flag[one.valid], found[one]) for one in nullable])
    found.update(zip(nullable, masked, strict=True))
    squares = [one for one in wanted if one.power == 2]
    bases = [found[Summand(one.column, one.valid, 1, one.signed)] for one in squares]
    products = yield from multiply_all(stage, [(base, base) for base in bases])
    found.update(zip(squares, products, strict=True))
    return {one: found[one] for one in wanted}


# ------------------------------------------------------------------------------------------------------ one sort's groups


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The sorted table, taken apart again."""

    key: BooleanPlanes
    alive: BooleanPlanes | None
    order: BooleanPlanes | None
    has: BooleanPlanes | None
    """Whether the order column has a value in a live row; None if that is so in every live row."""
    rest: Rows


@dataclass(frozen=True, slots=True)
class _Pass:
    """One sort and the figures that follow from it."""

    key: KeyPlanes
    alive: BooleanPlanes | None
    order: _Order | None
    sums: tuple[tuple[Summand, RingVector], ...]
    bound: int | None

    def run(self, flow: Flow, rows: Rows, pivots: int) -> Steps[Groups]:
        table = yield from self._table(flow.stage, rows)
        table = yield from sort(flow, table, [SortKey("key")], pivots=pivots)
        apart = self._apart(table)
        carried = yield from self._carried(flow.stage, apart)
        ended = yield from compact(flow, carried, VALID)
        groups = self._groups(ended, apart)
        overflow = zero_bits(groups.bits(VALID), 1)
        if self.bound is not None and self.bound < groups.count:
            overflow = groups.cut(self.bound, self.bound + 1).bits(VALID)
            groups = groups.cut(0, self.bound)
        blank = yield from blank_rows(flow.stage, groups.bits(VALID), groups.without(VALID))
        return Groups(blank.plus({VALID: groups.bits(VALID)}), overflow)

    def _table(self, stage: ComputeStage, rows: Rows) -> Steps[Rows]:
        """Return the table to sort. Planes from the lowest: order value, no order value; keys; not live."""
        planes: list[BooleanPlanes] = []
        if self.order is not None:
            value = rows.bits(self.order.column)
            if self.order.valid is not None:
                has = one_bit(rows, self.order.valid)
                if self.alive is not None:
                    (has,) = yield from and_many(stage, "group-order", [(has, self.alive)])
                (value,) = yield from and_many(stage, "group-nulls", [(repeat_plane(has, value.width), value)])
                planes = [invert(has)]
            planes.insert(0, flip_sign(value) if self.order.signed else value)
        planes.append(self.key.planes)
        if self.alive is not None:
            planes.append(invert(self.alive))
        columns: dict[str, Column] = {"key": concat(planes)}
        columns.update({f"sum{place}": vector for place, (_, vector) in enumerate(self.sums)})
        return Rows(columns)

    def _apart(self, table: Rows) -> _Sorted:
        planes = table.bits("key")
        top = planes.width - (self.alive is not None)
        low = top - self.key.planes.width
        alive = None if self.alive is None else invert(planes.plane(top))
        key, rest = planes[low:top], table
        if self.order is None:
            return _Sorted(key, alive, None, None, rest)
        nullable = self.order.valid is not None
        return _Sorted(key, alive, planes[: low - nullable], invert(planes.plane(low - 1)) if nullable else None, rest)

    def _carried(self, stage: ComputeStage, apart: _Sorted) -> Steps[Rows]:
        """Return what the last row of each group has to bring along, and whether a row is one."""
        kinds = frozenset[str]() if self.order is None else self.order.kinds
        circuits = [same_as_next(apart.key, apart.alive)]
        if "distinct_count" in kinds:
            parts = [part for part in (apart.order, apart.has, apart.key) if part is not None]
            circuits.append(same_as_next(concat(parts), apart.alive if apart.has is None else apart.has))
        same = yield from evaluate(stage, "group-ends", circuits)
        columns: dict[str, Column] = {"key": apart.key, VALID: ends_of(same[0], apart.alive)}
        for place in range(len(self.sums)):
            columns[f"sum{place}"] = running_sum(apart.rest.ring(f"sum{place}"))
        wanted: dict[str, Steps[Any]] = {}
        if "distinct_count" in kinds:
            new = ends_of(same[1], apart.alive if apart.has is None else apart.has)
            wanted["distinct_count"] = bits_to_ring(stage, new)
        if apart.order is not None and "max" in kinds:
            wanted["max"] = _last_values(stage, apart.order, apart.has, same[0])
        found = dict(zip(wanted, (yield from together(*wanted.values())), strict=True))
        if "distinct_count" in found:
            columns["distinct_count"] = running_sum(found["distinct_count"])
        if apart.order is not None and "min" in kinds:
            columns["min"] = next_rows(apart.order)
        if apart.has is not None and kinds & {"min", "max"}:
            columns["has"] = next_rows(apart.has)
        if "max" in found:
            columns["max"] = found["max"]
        return Rows(columns)

    def _groups(self, ended: Rows, apart: _Sorted) -> Rows:
        """Return the groups' figures from what their last rows brought along; rows behind the groups hold anything."""
        columns: dict[str, Column] = {"key": ended.bits("key"), VALID: ended.bits(VALID)}
        columns.update(
            {name: sum_steps(column) for name, column in ended.columns.items() if isinstance(column, RingVector)}
        )
        if self.order is None or apart.order is None:
            return Rows(columns)
        if "min" in ended.columns:
            columns["min"] = self._plain(first_row_then(apart.order, ended.bits("min")))
        if "has" in ended.columns and apart.has is not None:
            columns["has"] = first_row_then(apart.has, ended.bits("has"))
        if "max" in ended.columns:
            last = ended.bits("max")
            columns["max"] = self._plain(last if apart.has is None else parity_steps(last))
        return Rows(columns)

    def _plain(self, value: BooleanPlanes) -> BooleanPlanes:
        return flip_sign(value) if self.order is not None and self.order.signed else value


def _last_values(
    stage: ComputeStage, order: BooleanPlanes, has: BooleanPlanes | None, same: BooleanPlanes
) -> Steps[BooleanPlanes]:
    """Return planes from which each group's last row yields its largest value: the value itself, or a running parity.

    With NULLs the largest value stands somewhere inside the group. It is the only value that the running parity takes up there,
    so the parity of a group's last row and of the group before differ by it.
    """
    if has is None:
        return order
    (followed,) = yield from and_many(stage, "group-last", [(same, next_rows(has))])
    last = xor(has, followed)
    (only,) = yield from and_many(stage, "group-max", [(repeat_plane(last, order.width), order)])
    return running_parity(only)


def _assembled(tables: Sequence[Groups], key: KeyPlanes, plan: _Plan, wanted: Sequence[Aggregate]) -> Groups:
    """Return one table: all passes have the same groups in the same order."""
    head = tables[0].rows
    by_order = dict(zip(plan.orders, tables, strict=True))
    columns: dict[str, Column] = {**key.columns(head.bits("key"))}
    for one in wanted:
        for name, summand in _summands_of(one):
            columns[name] = head.ring(f"sum{plan.sums.index(summand)}")
        if one.kind in _ORDERED:
            table = by_order[_order_of(one)].rows
            columns[one.name] = table.columns[one.kind]
            if one.valid is not None and one.kind != "distinct_count":
                columns[f"{one.name}_valid"] = table.bits("has")
    return Groups(Rows({**columns, VALID: head.bits(VALID)}), tables[0].overflow)
