"""Sort shared tables by one or more keys, stable."""

from __future__ import annotations

from collections.abc import Sequence

from mpc_ops.protocol.flow import Flow
from mpc_ops.protocol.party import Steps
from mpc_ops.protocol.rows import Rows
from mpc_ops.protocol.sort_keys import SortKey, check_keys, key_width
from mpc_ops.protocol.sort_quick import quick_sort
from mpc_ops.protocol.sort_radix import radix_sort

__all__ = ["RADIX_BITS", "SortKey", "sort"]

RADIX_BITS = 8


def sort(flow: Flow, rows: Rows, keys: Sequence[SortKey], *, pivots: int = 1) -> Steps[Rows]:
    """Return the rows sorted by keys, the first key first; equal rows keep their order.

    Leaks: n, the columns' widths, and the number of levels, which depends on the shuffle alone.
    """
    check_keys(rows, keys)
    if rows.count < 2:
        return rows
    if key_width(rows, keys) <= RADIX_BITS:
        result = yield from radix_sort(flow, rows, keys)
    else:
        result = yield from quick_sort(flow, rows, keys, pivots)
    return result
