"""Sort shared tables by one or more columns, stable: by comparisons of shuffled rows, or by digits if keys are narrow."""

from __future__ import annotations

from collections.abc import Sequence

from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.order.merge import merge_sorted
from mpc_ops.protocol.order.sort_keys import SortKey, check_keys, key_width
from mpc_ops.protocol.order.sort_quick import quick_sort
from mpc_ops.protocol.order.sort_radix import radix_sort

__all__ = ["RADIX_BITS", "SortKey", "merge_sorted", "sort"]

RADIX_BITS = {"passive": 8, "active": 4}
"""Widest keys that are sorted by digits, twice as wide with more than one pivot, where rounds weigh more than bytes.

Measured with 100,000 rows, 1 pivot, compiled kernels (seconds of three parties in one thread; bytes a row; rounds):

| bits | passive digits | passive comparisons | active digits | active comparisons |
|---|---|---|---|---|
| 2 | 0.17 s, 74 B, 7 | 0.95 s, 137 B, 163 | 1.0 s, 227 B, 33 | 1.9 s, 230 B, 409 |
| 4 | 0.33 s, 148 B, 17 | 0.76 s, 151 B, 163 | 2.1 s, 527 B, 74 | 2.9 s, 242 B, 409 |
| 7 | 0.50 s, 249 B, 30 | 0.80 s, 177 B, 163 | 3.0 s, 877 B, 127 | 2.5 s, 268 B, 411 |
"""


def sort(flow: Flow, rows: Rows, keys: Sequence[SortKey], *, pivots: int = 1) -> Steps[Rows]:
    """Return the rows sorted by columns, the first key first; rows with equal keys keep their order.

    Run by: all three parties, in lock-step.

    Args:
        flow: openings end its present stage and others after it. Shares of the result are fresh.
        rows: n rows. Columns over Z_2^64 may be payload, not keys.
        keys: at least one; see SortKey for directions, signs and NULLs.
        pivots: comparisons a row and level, 1 to 15: more comparisons, fewer levels. 1 for fast links, 3 to 7 over borders.

    Rounds, bytes: none for fewer than two rows. With keys of w bits, validity bits included: for w of at most RADIX_BITS (twice that
        with more than one pivot) those of sort_radix.radix_sort, else of sort_quick.quick_sort.
    Security: malicious with abort in an active session: every opening stands behind a barrier; semi-honest in a passive one.
    Leaks: n, the columns' widths, and how many levels and comparisons the sort takes, which depends on the secret shuffle and
        n alone. What is opened (comparison bits, or permutations) is distributed the same for all data.

    Raises:
        LocalProtocolError: ROWS_INVALID for a key that the table does not have; SHARE_FOREIGN, STAGE_ORDER.
        Abort: what barriers and openings raise; TAG_MISMATCH, PLACES_INVALID.
    """
    check_keys(rows, keys)
    if rows.count < 2:
        return rows
    limit = RADIX_BITS[flow.security] * (2 if pivots > 1 else 1)
    if key_width(rows, keys) <= limit:
        result = yield from radix_sort(flow, rows, keys)
    else:
        result = yield from quick_sort(flow, rows, keys, pivots)
    return result
