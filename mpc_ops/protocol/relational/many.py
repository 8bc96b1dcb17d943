"""Join of two tables whose keys may both repeat, into a public number of rows (many-to-many, with a bound on the output).

Both tables are stacked and sorted by key. In a group of a left and b right rows every left row has b partners: running sums give
each left row the first output slot that is its own, and the number of its first partner among all right rows. Then

    left rows and slots 0 .. m - 1 are sorted by slot, and what a left row holds is spread over the slots behind it;
    a slot t of the left row that begins at s is partner t - s of that row: right row  first + t - s;
    right rows and slots are sorted by that number, right rows spread over the slots behind them, and slots put back.

Slots behind the true number of pairs hold nothing and are not valid. Whether there were more pairs than slots is a secret bit.
Source: oblivious expansion after Krastnikov et al. VLDB'20 and Badrinarayanan et al. CCS'22, with the spreading of ordered.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpc_ops.errors import Abort, LocalProtocolError
from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.compare import greater_public
from mpc_ops.protocol.circuits.convert import planes_to_ring, ring_to_bits
from mpc_ops.protocol.circuits.counts import on_every_row
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Column, Rows, stack, stack_columns, zero_bits, zeros_like
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, concat, invert, public_like
from mpc_ops.protocol.order.shuffle import compact
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.relational.groups import VALID
from mpc_ops.protocol.relational.ordered import Key, ends_of, heads_of, put_back, same_as_next, spread
from mpc_ops.protocol.relational.row_planes import multiply_all, public_flags, running_sum
from mpc_ops.protocol.relational.two_tables import KEY, OWN, TwoTables
from mpc_ops.ring.planes import public_planes, to_planes

__all__ = ["MAX_SLOTS", "JoinedMany", "join_many", "require_bound"]

MAX_SLOTS = 1 << 26
_START, _OFFSET, _SLOT, _AT, _PLACE = "(start)", "(offset)", "(slot)", "(at)", "(slot place)"


@dataclass(frozen=True, slots=True)
class JoinedMany:
    """A many-to-many join's result.

    Attributes:
        rows: `bound` rows: columns of the left table, payload of the right table, and VALID. Rows that are not valid hold
            anything; they are blanked (`ordered.blank_rows`) or counted out (`live=VALID`) before anything is opened.
        exceeded: one bit: there are more pairs than rows, so some are missing.
    """

    rows: Rows
    exceeded: BooleanPlanes


def require_bound(flow: Flow, joined: JoinedMany) -> Steps[None]:
    """Open whether there were more pairs than rows, to all.

    Rounds, bytes, security: one opening of one bit.  Leaks: that bit.

    Raises:
        Abort: JOIN_BOUND_EXCEEDED if there were.
    """
    (flag,) = yield from flow.open([joined.exceeded])
    if bool(flag[0]):
        raise Abort(
            "JOIN_BOUND_EXCEEDED",
            "a join has more pairs than its public bound",
            expected=f"at most {joined.rows.count} pairs",
            ids=flow.stage.ids(),
            hint="Raise the bound in the report; nothing that was joined is used",
        )


def join_many(
    flow: Flow,
    left: Rows,
    right: Rows,
    keys: Sequence[tuple[Key, Key]],
    payload: Sequence[str],
    *,
    bound: int,
    left_live: str | None = None,
    right_live: str | None = None,
    pivots: int = 1,
) -> Steps[JoinedMany]:
    """Return every pair of rows whose keys are equal. NULL keys match nothing.

    Run by: all three parties, in lock-step.

    Args:
        flow: a flow of either kind of session.
        left: p rows; all of its columns are in the result.
        right: f rows.
        keys: pairs of (key of the left table, key of the right), each pair of one width.
        payload: columns of the right table that the result takes; their names are not names of the left table.
        bound: public number of rows of the result, 1 to MAX_SLOTS.
        left_live: a validity bit of the left table's rows; rows without match nothing.
        right_live: the same of the right table.
        pivots: as in `sort`.

    Rounds, one after another, for n = p + f rows, v validity bits and m slots; L and R are the bits and ring columns of the left
        table and of the payload, K the keys' bits, s = bit_length(max(p f, m)), t = bit_length(f + m), u = ceil(log2(f + m)):
        ceil(log2 v); the sort of n rows of K + [v > 0] + 1 bits, L and R, by K + [v > 0] bits; ceil(log2(K + [v > 0])); 2; 1; two
        `spread`s of a ring column; 1; `compact` of n rows of L, R, 1 bit and 2 ring columns;
        `ring_to_bits` of p values of s bits; the sort of p + m rows of L, s + 1 bits and a ring column, by s bits; `spread` of L and
        a ring column; `compact` of L, 1 bit and a ring column;
        `ring_to_bits` of m values of t bits; with a payload the sort of f + m rows of R, t + 1 + u bits, by t bits; `spread` of R;
        `put_back` of R with places of u bits;
        `ring_to_bits` of one value of s bits; ceil(log2 s). None if p or f is 0.
    Sent: theirs; and 8 ceil(n/64) bytes per party for each of v - 1 and K + [v > 0] - 1 ANDs, 48 n for B2A and two products a row,
        and 8 (ceil(m/64) + 1) for each of 2 s - 2 - ceil(log2 s) ANDs.
    Security: malicious with abort in an active session, semi-honest in a passive one.
    Leaks: p, f, m and the widths; what is opened are shuffled places and comparison bits of shuffled unique keys.

    Raises:
        LocalProtocolError: ROWS_INVALID.
    """
    plan = _Plan(TwoTables((left, right), tuple(keys), (left_live, right_live)), tuple(payload), bound, pivots)
    plan.check()
    if not left.count or not right.count:
        return plan.nothing()
    lefts, rights, total = yield from plan.matched(flow)
    slots = yield from plan.expanded(flow, lefts)
    number = yield from plan.partners(flow, slots)
    rows = yield from plan.fetched(flow, slots.without(_OFFSET), number, rights)
    width = plan.slot_width
    bits = yield from ring_to_bits(flow.stage, total, width)
    limits = to_planes(np.arange(bound, dtype=np.uint64), width)
    circuits = [greater_public(on_every_row(bits, bound), limits), greater_public(bits, bound)]
    valid, exceeded = yield from evaluate(flow.stage, "pairs", circuits)
    return JoinedMany(rows.plus({VALID: valid}), exceeded)


@dataclass(frozen=True, slots=True)
class _Plan:
    both: TwoTables
    payload: tuple[str, ...]
    bound: int
    pivots: int

    @property
    def slot_width(self) -> int:
        """Bits that hold every start and the number of all pairs, and the bound."""
        left, right = self.both.tables
        return max(left.count * right.count, self.bound).bit_length()

    def check(self) -> None:
        """Raise LocalProtocolError ROWS_INVALID for what does not fit."""
        self.both.check()
        left, right = self.both.tables
        names = [*self.payload, *left.names]
        if len(set(names)) != len(names) or VALID in names or any(name[:1] == "(" for name in names):
            raise LocalProtocolError("ROWS_INVALID", "a payload has names of its own")
        if not set(self.payload) <= set(right.names):
            raise LocalProtocolError("ROWS_INVALID", "a payload is a column of the right table")
        if not 1 <= self.bound <= MAX_SLOTS:
            raise LocalProtocolError("ROWS_INVALID", "a bound is out of range", expected=f"1 to {MAX_SLOTS}")

    def nothing(self) -> JoinedMany:
        """Return the result where one table has no rows."""
        left, right = self.both.tables
        columns: dict[str, Column] = {name: zeros_like(left.columns[name], self.bound) for name in left.names}
        columns |= {name: zeros_like(right.columns[name], self.bound) for name in self.payload}
        none = left.bits(self.both.keys[0][0].name)[:1]
        return JoinedMany(Rows({**columns, VALID: zero_bits(none, self.bound)}), zero_bits(none, 1))

    def matched(self, flow: Flow) -> Steps[tuple[Rows, Rows, RingVector]]:
        """Return left rows with their first slot and offset, right rows' payload, both in order of keys, and the number of pairs."""
        left = self.both.tables[0]
        usable = yield from self.both.usable(flow.stage)
        names = [*left.names, *self.payload]
        table = self.both.stacked(usable, names)
        table = yield from sort(flow, table, [SortKey(KEY)], pivots=self.pivots)
        key, own = table.bits(KEY), table.bits(OWN)
        unusable = zero_bits(own, own.count) if usable is None else key.plane(key.width - 1)
        (same,) = yield from evaluate(flow.stage, "same", [same_as_next(key)])
        # A row that is not usable stands behind all others, so counting it out of both sides is counting usable rows only.
        flags = yield from planes_to_ring(flow.stage, concat([own, unusable]))
        mine, off = flags[: key.count], flags[key.count :]
        live = off.negated().plus_public(np.ones(key.count, dtype=np.uint64))
        mine, live_right = yield from self._sides(flow, mine, live)
        before = running_sum(live_right)
        first = before.minus(live_right)
        heads, ends = heads_of(same), ends_of(same)
        begin = yield from spread(flow, heads, Rows({_START: first}))
        back = np.arange(key.count, dtype=np.int64)[::-1].copy()
        behind = Rows({"(end)": ends, _START: before}).pick(back)
        end = yield from spread(flow, behind.bits("(end)"), behind.select([_START]))
        partners = end.pick(back).ring(_START).minus(begin.ring(_START))
        (pairs,) = yield from multiply_all(flow.stage, [(mine, partners)])
        upto = running_sum(pairs)
        start = upto.minus(pairs)
        offset = begin.ring(_START).minus(start)
        table = table.select(names).plus({OWN: own, _START: start, _OFFSET: offset})
        parted = yield from compact(flow, table, OWN)
        lefts = parted.select([*left.names, _START, _OFFSET]).cut(0, left.count)
        # Compacting kept the order of both: right rows stand behind the left ones.
        rights = parted.select([*self.payload] or [OWN]).cut(left.count, key.count)
        return lefts, rights, upto[key.count - 1 :]

    @staticmethod
    def _sides(flow: Flow, mine: RingVector, live: RingVector) -> Steps[tuple[RingVector, RingVector]]:
        """Return (usable left rows, usable right rows) as 0 or 1."""
        (both,) = yield from multiply_all(flow.stage, [(mine, live)])
        return both, live.minus(both)

    def expanded(self, flow: Flow, lefts: Rows) -> Steps[Rows]:
        """Return one row for each slot: the columns and the offset of the left row that it belongs to."""
        stage, width = flow.stage, self.slot_width
        starts = yield from ring_to_bits(stage, lefts.ring(_START), width)
        slots = public_like(zero_bits(starts, self.bound), to_planes(np.arange(self.bound, dtype=np.uint64), width))
        count = lefts.count
        held = lefts.without(_START)
        blank = Rows({name: zeros_like(column, self.bound) for name, column in held.columns.items()})
        marks = np.arange(count + self.bound) >= count
        table = stack([held, blank])
        at = stack_columns([starts, slots])
        table = table.plus({_AT: at, _SLOT: public_like(_one(at), public_flags(marks))})
        table = yield from sort(flow, table, [SortKey(_AT)], pivots=self.pivots)
        is_slot = table.bits(_SLOT)
        filled = yield from spread(flow, invert(is_slot), table.select(held.names))
        parted = yield from compact(flow, filled.plus({_SLOT: is_slot}), _SLOT)
        return parted.without(_SLOT).cut(0, self.bound)

    def partners(self, flow: Flow, slots: Rows) -> Steps[BooleanPlanes]:
        """Return the number of the right row that each slot takes."""
        number = slots.ring(_OFFSET).plus_public(np.arange(self.bound, dtype=np.uint64))
        result = yield from ring_to_bits(flow.stage, number, self._number_width)
        return result

    @property
    def _number_width(self) -> int:
        # Slots behind the last pair count on from the last partner.
        return (self.both.tables[1].count + self.bound).bit_length()

    def fetched(self, flow: Flow, slots: Rows, number: BooleanPlanes, rights: Rows) -> Steps[Rows]:
        """Return the slots with the payload of the right rows that they name."""
        if not self.payload:
            return slots
        count, width = rights.count, self._number_width
        numbers = public_like(zero_bits(number, count), to_planes(np.arange(count, dtype=np.uint64), width))
        at = stack_columns([numbers, number])
        marks = np.arange(count + self.bound) >= count
        # Slots come back in their first order, right rows behind them.
        places = np.concatenate([np.arange(count) + self.bound, np.arange(self.bound)])
        placed = to_planes(places.astype(np.uint64), max(1, (count + self.bound - 1).bit_length()))
        blank = Rows({name: zeros_like(column, self.bound) for name, column in rights.columns.items()})
        table = stack([rights, blank]).plus(
            {
                _AT: at,
                _SLOT: public_like(_one(at), public_flags(marks)),
                _PLACE: public_like(_wide(at, len(placed)), placed),
            }
        )
        table = yield from sort(flow, table, [SortKey(_AT)], pivots=self.pivots)
        filled = yield from spread(flow, invert(table.bits(_SLOT)), table.select(self.payload))
        back, _ = yield from put_back(flow, filled.plus({_PLACE: table.bits(_PLACE)}), _PLACE)
        return slots.plus(back.cut(0, self.bound).columns)


def _one(column: Column) -> BooleanPlanes:
    return _wide(column, 1)


def _wide(column: Column, width: int) -> BooleanPlanes:
    """Return public zeros of a width, one for every row of a Boolean column."""
    if not isinstance(column, BooleanPlanes):  # pragma: no cover - only places and numbers come here
        raise LocalProtocolError("ROWS_INVALID", "a Boolean column is wanted")
    zeros = public_planes(0, width, column.count)
    return replace(column, first=zeros, second=zeros.copy())
