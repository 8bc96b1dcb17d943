"""Two shared tables and the pairs of key columns that they are matched by: one above the other, as a sort needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import Circuit, evaluate
from mpc_ops.protocol.circuits.compare import equal_public
from mpc_ops.protocol.circuits.counts import any_unit, stacked
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Rows, stack_columns, zero_bits, zeros_like
from mpc_ops.protocol.core.shares import BooleanPlanes, concat, invert, public_like
from mpc_ops.protocol.core.stage import ComputeStage
from mpc_ops.protocol.relational.ordered import Key, one_bit
from mpc_ops.protocol.relational.row_planes import public_flags
from mpc_ops.ring.planes import WORD_BITS, clear_tail, public_planes

__all__ = ["KEY", "OWN", "TwoTables", "any_row"]

KEY = "(pair key)"
OWN = "(first table)"


def any_row(bits: BooleanPlanes) -> Circuit[BooleanPlanes, BooleanPlanes]:
    """Return whether any row of a plane is set, as one lane.

    AND words for n rows: ceil(n/64) + 62; depth ceil(log2 ceil(n/64)) + 6. None for no row.
    """
    if bits.count == 0:
        return zero_bits(bits, 1)
    first, second = (clear_tail(part, bits.count) for part in (bits.first, bits.second))
    whole = replace(bits, count=WORD_BITS * first.shape[1], first=first, second=second)
    result = yield from any_unit(whole)
    return result


@dataclass(frozen=True, slots=True)
class TwoTables:
    """Two tables to be matched.

    Attributes:
        tables: the first and the second table.
        keys: pairs of (key of the first table, key of the second), each pair of one width.
        live: validity bits of both tables' rows, if they have any.
    """

    tables: tuple[Rows, Rows]
    keys: tuple[tuple[Key, Key], ...]
    live: tuple[str | None, str | None]

    @property
    def key_width(self) -> int:
        """Bits of all keys together, without validity bits."""
        return sum(self.tables[0].bits(key.name).width for key, _ in self.keys)

    def check(self) -> None:
        """Raise LocalProtocolError ROWS_INVALID for keys or validity bits that do not fit."""
        if not self.keys:
            raise LocalProtocolError("ROWS_INVALID", "tables are matched by at least one pair of keys")
        for ours, theirs in self.keys:
            if self.tables[0].bits(ours.name).width != self.tables[1].bits(theirs.name).width:
                raise LocalProtocolError("ROWS_INVALID", "keys of different widths are never equal", got=ours.name)
        for side, rows in enumerate(self.tables):
            for mark in self._marks(side):
                if mark is not None:
                    one_bit(rows, mark)

    def _marks(self, side: int) -> list[str | None]:
        """Return the validity columns of one table: of each key, then of its rows."""
        return [pair[side].valid for pair in self.keys] + [self.live[side]]

    def ones(self, side: int) -> BooleanPlanes:
        """Return a public 1 for every row of a table."""
        key = self.tables[side].bits(self.keys[0][side].name)
        return public_like(key, public_planes(1, 1, key.count))

    def bits_or_ones(self, side: int, name: str | None) -> BooleanPlanes:
        """Return a table's validity bit, which is 1 everywhere if there is no such column."""
        return self.ones(side) if name is None else self.tables[side].bits(name)

    def usable(self, stage: ComputeStage) -> Steps[BooleanPlanes | None]:
        """Return whether a row may match: it is live and has all keys; None if all rows may.

        Rounds: ceil(log2 v) for v validity bits (that of a pair of keys, and of live rows, counts once).  Sent: 8 (v - 1)
        ceil(n/64) bytes per party.
        """
        columns = [
            stacked([self.bits_or_ones(0, ours), self.bits_or_ones(1, theirs)])
            for ours, theirs in zip(self._marks(0), self._marks(1), strict=True)
            if ours is not None or theirs is not None
        ]
        if not columns:
            return None
        (result,) = yield from evaluate(stage, "usable", [equal_public(concat(columns), (1 << len(columns)) - 1)])
        return result

    def stacked(self, usable: BooleanPlanes | None, names: Sequence[str] = ()) -> Rows:
        """Return the rows of both tables, the first table's first.

        Args:
            usable: what `usable` gave.
            names: columns to take along; rows of the table that does not have one get 0.

        Returns:
            KEY (the first key most significant; if there is one, the top bit says that a row is not usable), OWN (a public 1 for
            the first table's rows), and the columns asked for.
        """
        sides = [
            concat([rows.bits(pair[side].name) for pair in reversed(self.keys)])
            for side, rows in enumerate(self.tables)
        ]
        key = stacked(sides)
        own = public_like(key, public_flags(np.arange(key.count) < self.tables[0].count))
        out = Rows({KEY: key if usable is None else concat([key, invert(usable)]), OWN: own})
        for name in names:
            parts = [rows.columns.get(name) for rows in self.tables]
            found = next((part for part in parts if part is not None), None)
            if found is None:
                raise LocalProtocolError("ROWS_INVALID", "neither table has such a column", got=name)
            filled = [
                zeros_like(found, rows.count) if part is None else part
                for part, rows in zip(parts, self.tables, strict=True)
            ]
            out = out.plus({name: stack_columns(filled)})
        return out
