"""Tables of bits that go with an owner's values before a region's Gate: one row per protected unit, one plane per cell.

A table has `rows` rows of `width` bits, as planes (mpc_ops.ring.planes): plane c holds bit c of every row. Rows are
padded with zero rows up to a size class, so that the size of a table tells the number of units only roughly; the padded
number is known to the operators who hold the shares, and follows from the sizes of their messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpc_ops.errors import LocalProtocolError
from mpc_ops.ring.planes import WORD_BITS, PlaneArray, check_planes, words_for

__all__ = ["NO_UNITS", "UnitLimits", "UnitTables", "padded_rows", "tables_of", "unit_planes"]

_EXACT_WORDS = 8


def padded_rows(units: int) -> int:
    """Return the size class of a number of units: a multiple of 64, at least 64, at most an eighth above what is needed.

    Up to 512 rows every multiple of 64 is a class; above, classes are the numbers of 64-row words with four leading bits.
    """
    words = max(1, words_for(units))
    step = 1 << max(0, words.bit_length() - 4) if words > _EXACT_WORDS else 1
    return WORD_BITS * (-(-words // step) * step)


@dataclass(frozen=True, slots=True)
class UnitTables:
    """Shape of the tables of one filing.

    Attributes:
        width: bits of a row, one for each leaf cell; 0 where no tables go with the values.
        rows: padded rows of each table, in the order of the plan's slices.
    """

    width: int
    rows: tuple[int, ...]

    @property
    def words(self) -> int:
        """Words of 64 bits over all tables."""
        return self.width * sum(words_for(rows) for rows in self.rows)

    def split(self, vector: npt.NDArray[np.uint64]) -> list[PlaneArray]:
        """Return the planes of each table from their flat words; shapes (width, rows / 64), sharing memory."""
        if len(vector) != self.words:
            raise LocalProtocolError("PLANES_INVALID", "tables of another size", expected=self.words, got=len(vector))
        out, start = [], 0
        for rows in self.rows:
            stop = start + self.width * words_for(rows)
            out.append(vector[start:stop].reshape(self.width, words_for(rows)))
            start = stop
        return out


NO_UNITS = UnitTables(0, ())


@dataclass(frozen=True, slots=True)
class UnitLimits:
    """What a plan allows: tables of `width` bits, one for each slice, of at most `max_rows` padded rows each."""

    width: int
    tables: int
    max_rows: int

    @property
    def words(self) -> int:
        """Most words of 64 bits over all tables."""
        return self.width * self.tables * words_for(self.max_rows)

    def allow(self, found: UnitTables) -> bool:
        """Return whether a filing's tables have this form, sizes that are classes, and no more rows than allowed."""
        return (found.width, len(found.rows)) == (self.width, self.tables) and all(
            0 < rows <= self.max_rows and padded_rows(rows) == rows for rows in found.rows
        )


def unit_planes(rows: npt.NDArray[np.bool_]) -> PlaneArray:
    """Return the planes of a table, padded with zero rows to its size class.

    Args:
        rows: one row per unit, shape (units, width).
    """
    units, width = rows.shape
    padded = np.zeros((width, padded_rows(units)), dtype=np.uint8)
    padded[:, :units] = rows.T
    packed = np.packbits(padded, axis=1, bitorder="little")
    return check_planes(np.ascontiguousarray(packed).view("<u8").astype(np.uint64, copy=False), width)


def tables_of(planes: Sequence[PlaneArray]) -> UnitTables:
    """Return the shape of tables; raise LocalProtocolError PLANES_INVALID if their widths differ."""
    widths = {check_planes(table).shape[0] for table in planes}
    if len(widths) > 1:
        raise LocalProtocolError("PLANES_INVALID", "tables of different widths", got=len(widths))
    return UnitTables(widths.pop(), tuple(WORD_BITS * table.shape[1] for table in planes)) if planes else NO_UNITS
