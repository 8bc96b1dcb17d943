"""Radix sort for narrow keys: stable passes over digits of two bits, lowest first; each pass opens a random permutation.

Rows either travel in every pass, or only keys and row numbers do: then the last pass's places are brought back to the original order
by one more shuffle (row numbers are opened, a random permutation), and the whole rows move once. What moves fewer bits is chosen, from
public widths alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.shares import BooleanPlanes, public_like
from mpc_ops.protocol.order.digit_places import MAX_DIGIT_BITS, digit_places
from mpc_ops.protocol.order.shuffle import move_numbered, move_to
from mpc_ops.protocol.order.sort_keys import KEY, NUMBER, SortKey, numbered, sort_planes

__all__ = ["radix_passes", "radix_sort", "rows_travel"]

_PLACE_BITS = 32


def radix_passes(width: int) -> int:
    """Return the number of passes for keys of so many bits."""
    return -(-width // MAX_DIGIT_BITS)


def rows_travel(row_bits: int, number_bits: int, passes: int) -> bool:
    """Return whether whole rows travel in every pass instead of their numbers."""
    return row_bits * (passes - 1) <= number_bits * passes + _PLACE_BITS


def radix_sort(flow: Flow, rows: Rows, keys: Sequence[SortKey]) -> Steps[Rows]:
    """Return the rows in stable order; see sort.sort. Keys have been checked and there are at least two rows.

    Rounds: 1 if a key has NULLs; for each pass those of `digit_places` and of `move_to`; if rows do not travel, the last move is
        `move_numbered`.
    Sent: likewise, and 8 ceil(n/64) bytes per party for each bit of a key with NULLs. With rows, or row numbers of ceil(log2 n) bits
        (at least 1), the bits of the key travel that later passes take; whole rows in `move_numbered` are without them.
    Security: malicious with abort in an active session; each opened permutation stands behind a barrier and is uniformly random.
    Leaks: n and widths.
    """
    key = yield from sort_planes(flow.stage, rows, keys)
    passes = radix_passes(key.width)
    row_bits = sum(column.width if isinstance(column, BooleanPlanes) else 64 for column in rows.columns.values())
    if rows_travel(row_bits, max(1, (rows.count - 1).bit_length()), passes):
        result, _ = yield from _sorted_by(flow, rows, key, key.width)
        return result
    numbers = Rows({NUMBER: public_like(key, numbered(rows))})
    last = MAX_DIGIT_BITS * (passes - 1)
    moved, rest = yield from _sorted_by(flow, numbers, key, last)
    places = yield from digit_places(flow.stage, rest)
    result = yield from move_numbered(flow, rows, moved.bits(NUMBER), places)
    return result


def _sorted_by(flow: Flow, rows: Rows, key: BooleanPlanes, stop: int) -> Steps[tuple[Rows, BooleanPlanes]]:
    """Sort rows by the lowest `stop` bits of a key, and return them and the rest of the key."""
    low = 0
    while low < stop:
        width = min(MAX_DIGIT_BITS, stop - low)
        places = yield from digit_places(flow.stage, key[:width])
        rows, key, low = rows.plus({KEY: key[width:]}), key[width:], low + width
        if key.width:
            rows = yield from move_to(flow, rows, places)
            rows, key = rows.without(KEY), rows.bits(KEY)
        else:
            rows = yield from move_to(flow, rows.without(KEY), places)
    return rows, key
