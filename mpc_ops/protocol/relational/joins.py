"""Joins of a table with unique keys (primary) and one whose keys may repeat (foreign): inner, left, full, semi, anti.

Both tables are stacked, primary first, and sorted by key; the sort is stable, so a key's primary row comes before its foreign
ones. What the primary row holds is spread over its group (ordered.py) and all rows are put back into their first order. So the
result stands beside the foreign table, whose own columns were never moved. Source: sort-merge joins on shares as in ORQ
(SOSP'25) and Badrinarayanan et al. CCS'22; putting back instead of compacting is what the public position of foreign rows allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from mpc_ops.errors import Abort, LocalProtocolError
from mpc_ops.protocol.circuits.boolean import and_many, evaluate
from mpc_ops.protocol.circuits.counts import take
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps, together
from mpc_ops.protocol.core.rows import Column, Rows, stack, zeros_like
from mpc_ops.protocol.core.shares import BooleanPlanes, invert, xor
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.relational.groups import VALID
from mpc_ops.protocol.relational.ordered import (
    Key,
    by_copying,
    heads_of,
    put_back,
    same_as_next,
    spread,
    spread_by_copying,
)
from mpc_ops.protocol.relational.row_planes import next_rows, place_bits
from mpc_ops.protocol.relational.two_tables import KEY, OWN, TwoTables, any_row

__all__ = ["HAS_FOREIGN", "HAS_PRIMARY", "JoinKind", "Joined", "join", "refuse_repeated", "require_unique"]

JoinKind: TypeAlias = Literal["inner", "left", "full", "semi", "anti"]
HAS_PRIMARY = "has_primary"
"""The column of a result that says whether a row has a partner in the primary table: validity of its columns."""
HAS_FOREIGN = "has_foreign"
"""The same for the foreign table; only in a full join."""
_ROW, _USED = "(join row)", "(used)"


@dataclass(frozen=True, slots=True)
class Joined:
    """A join's result.

    Attributes:
        rows: one row per foreign row, in the foreign table's order; in a full join the primary rows come before them, in their
            own order. Columns: those of the foreign table, the payload, HAS_PRIMARY, in a full join HAS_FOREIGN, and VALID.
            Payload is 0 where there is none; the foreign table's own columns are left as they are, so rows without VALID are
            blanked (`ordered.blank_rows`) or counted out (`live=VALID`) before anything is opened. The foreign table of a next join
            may have VALID as its `foreign_live`; HAS_PRIMARY is renamed or left out before.
        duplicates: one bit: two usable primary rows have the same key, so payloads may be wrong. None for semi and anti.
    """

    rows: Rows
    duplicates: BooleanPlanes | None


def require_unique(flow: Flow, joined: Joined) -> Steps[None]:
    """Open whether a join's primary keys repeat, to all; for joins that kept it secret.

    Rounds, bytes, security: one opening of one bit, none for a join that has no such bit.  Leaks: that bit.

    Raises:
        Abort: JOIN_NOT_UNIQUE if they do.
    """
    if joined.duplicates is not None:
        (flag,) = yield from flow.open([joined.duplicates])
        refuse_repeated(flow, repeated=bool(flag[0]))


def refuse_repeated(flow: Flow, *, repeated: bool) -> None:
    """Raise Abort JOIN_NOT_UNIQUE if an opened bit says that keys repeat which must differ."""
    if repeated:
        raise Abort(
            "JOIN_NOT_UNIQUE",
            "keys repeat, or do not ascend, in a table in which they must",
            ids=flow.stage.ids(),
            hint="The owner of that table corrects it; nothing that was matched is used",
        )


def join(
    flow: Flow,
    primary: Rows,
    foreign: Rows,
    keys: Sequence[tuple[Key, Key]],
    payload: Sequence[str] = (),
    *,
    kind: JoinKind = "inner",
    primary_live: str | None = None,
    foreign_live: str | None = None,
    unique: Literal["open", "secret"] = "open",
    pivots: int = 1,
) -> Steps[Joined]:
    """Join two tables on one or more keys. NULL keys match nothing.

    Run by: all three parties, in lock-step.

    Args:
        flow: the flow.
        primary: p rows whose usable keys differ; for semi and anti joins they may repeat.
        foreign: f rows.
        keys: pairs of (primary key, foreign key), each pair of one width; K bits in all, without validity bits.
        payload: columns of the primary table that the result takes; none for semi and anti joins. Their names are not names of
            the foreign table.
        kind: inner: VALID where there is a partner. left: all live foreign rows, HAS_PRIMARY where there is a partner. full:
            also the primary rows without a partner. semi and anti: VALID where there is, or is not, a partner.
        primary_live: a validity bit of the primary table's rows; rows without match nothing.
        foreign_live: the same of the foreign table.
        unique: whether the repetition of primary keys is opened here (with an opening that is needed anyway), or stays a secret
            bit of the result.
        pivots: as in `sort`.

    Rounds, with n = p + f, v validity bits and W = K + [v > 0]: ceil(log2 v); the sort; ceil(log2 W) for equal neighbours; `spread`;
        `put_back`; with a payload kind (inner, left, full) 1, and for the repetition ceil(log2 ceil(n/64)) + 6, which stand beside
        the spread if that is by copying.
    Sent: 8 ceil(n/64) bytes per AND: v - 1, W - 1, with a payload kind 1; then also `two_tables.any_row`; the sort of W + 1 bits, the
        payload and the places (ceil(log2 n) bits, at least 1); the spread of the payload and 1 bit, clean with a payload kind;
        put_back of both (in a full join 1 bit more), whose opening has 1 bit more with a payload kind and `unique="open"`.
    Security: malicious with abort in an active session, semi-honest in a passive one.
    Leaks: p, f, widths, what sort, spread and put_back open (random orders), and with `unique="open"` whether keys repeat.

    Raises:
        LocalProtocolError: ROWS_INVALID for columns, names or kinds that do not fit together.
        Abort: JOIN_NOT_UNIQUE.
    """
    both = TwoTables((primary, foreign), tuple(keys), (primary_live, foreign_live))
    plan = _JoinPlan(both, tuple(payload), kind)
    plan.check()
    usable = yield from both.usable(flow.stage)
    table = both.stacked(usable, payload)
    table = yield from sort(flow, table.plus({_ROW: place_bits(table.bits(KEY))}), [SortKey(KEY)], pivots=pivots)
    planes, width = table.bits(KEY), both.key_width
    live = None if usable is None else invert(planes.plane(width))
    (same,) = yield from evaluate(flow.stage, "join-same", [same_as_next(planes[:width], live)])
    placed: dict[str, Column] = {_ROW: table.bits(_ROW)}
    held = table.select([*payload, OWN])
    repeated: BooleanPlanes | None = None
    if plan.has_payload:
        (again,) = yield from and_many(flow.stage, "join-again", [(same, next_rows(table.bits(OWN)))])
        checking = evaluate(flow.stage, "join-unique", [any_row(again)])
        if kind == "full":
            placed[_USED] = xor(same, again)
        if by_copying(held):
            # Nothing is opened before both are done. With unique keys only a head is a primary row, so all else is 0 already.
            copied, (repeated,) = yield from together(
                spread_by_copying(flow.stage, heads_of(same), held, clean=True), checking
            )
        else:
            (repeated,) = yield from checking
            copied = yield from spread(flow, heads_of(same), held, clean=True)
    else:
        copied = yield from spread(flow, heads_of(same), held)
    asked = [repeated] if repeated is not None and unique == "open" else []
    back, opened = yield from put_back(flow, copied.plus(placed), _ROW, also=asked)
    if asked:
        refuse_repeated(flow, repeated=bool(opened[0][0]))
    return Joined(plan.result(back), repeated)


@dataclass(frozen=True, slots=True)
class _JoinPlan:
    """What is joined, and the local steps before the sort and after everything is back in its place."""

    both: TwoTables
    payload: tuple[str, ...]
    kind: JoinKind

    @property
    def primary(self) -> Rows:
        """The table whose keys differ."""
        return self.both.tables[0]

    @property
    def foreign(self) -> Rows:
        """The table whose rows the result has."""
        return self.both.tables[1]

    @property
    def has_payload(self) -> bool:
        """Whether a foreign row takes something from its partner, which then must be the only one."""
        return self.kind in {"inner", "left", "full"}

    def check(self) -> None:
        """Raise LocalProtocolError ROWS_INVALID for what does not fit."""
        taken = {*self.foreign.names, VALID, HAS_PRIMARY, HAS_FOREIGN}
        names = [*self.payload, *self.foreign.names]
        if self.kind not in {"inner", "left", "full", "semi", "anti"}:
            raise LocalProtocolError("ROWS_INVALID", "there is no such join", got=self.kind)
        self.both.check()
        if len(set(self.payload)) != len(self.payload) or taken & set(self.payload) or any(n[:1] == "(" for n in names):
            raise LocalProtocolError("ROWS_INVALID", "a payload has names of its own")
        added = {HAS_PRIMARY, HAS_FOREIGN} | ({VALID} if self.both.live[1] != VALID else set())
        if added & set(self.foreign.names) or (self.payload and not self.has_payload):
            raise LocalProtocolError("ROWS_INVALID", "this join gives no payload, or a column has a result's name")
        if self.kind == "full" and any(ours.valid and not theirs.valid for ours, theirs in self.both.keys):
            raise LocalProtocolError("ROWS_INVALID", "a full join keeps NULL keys, which need a validity column")
        if not set(self.payload) <= set(self.primary.names):
            raise LocalProtocolError("ROWS_INVALID", "a payload is a column of the primary table")

    def result(self, back: Rows) -> Rows:
        """Return the result from the spread columns in their first order."""
        below = back.cut(self.primary.count, back.count)
        matched = below.bits(OWN)
        live = self.both.bits_or_ones(1, self.both.live[1])
        # A row that has a partner is live, so taking it away is XOR.
        valid = {"inner": matched, "semi": matched, "anti": xor(live, matched)}.get(self.kind, live)
        columns = (
            {**self.foreign.columns, **below.select(self.payload).columns} if self.payload else self.foreign.columns
        )
        rows = Rows({**columns, HAS_PRIMARY: matched})
        if self.kind == "full":
            rows = rows.plus({HAS_FOREIGN: self.both.ones(1)})
        rows = rows.plus({VALID: valid})
        return stack([self._lonely(back.bits(_USED), rows), rows]) if self.kind == "full" else rows

    def _lonely(self, used: BooleanPlanes, like: Rows) -> Rows:
        """Return the primary rows as rows of a full join: keys and payload their own, VALID where no foreign row has the key."""
        count = self.primary.count
        live = self.both.bits_or_ones(0, self.both.live[0])
        columns: dict[str, Column] = {name: zeros_like(column, count) for name, column in like.columns.items()}
        for ours, theirs in self.both.keys:
            columns[theirs.name] = self.primary.bits(ours.name)
            if theirs.valid is not None:
                columns[theirs.valid] = self.both.bits_or_ones(0, ours.valid)
        columns.update({name: self.primary.columns[name] for name in self.payload})
        columns[HAS_PRIMARY] = self.both.ones(0)
        columns[VALID] = xor(live, take(used, np.arange(count, dtype=np.int64)))
        return Rows(columns)
