"""The first k rows of a table in some order: found without sorting the others (mpc_ops.protocol.order.select), or by a sort for large k."""

from __future__ import annotations

from collections.abc import Sequence

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.shares import invert
from mpc_ops.protocol.order.select import select
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.relational.groups import VALID
from mpc_ops.protocol.relational.ordered import blank_rows, one_bit

__all__ = ["SELECT_SHARE", "top_k"]

SELECT_SHARE = 16
"""A table is sorted if more than one row of so many is wanted."""
_DEAD = "(not live)"


def top_k(
    flow: Flow, rows: Rows, keys: Sequence[SortKey], k: int, *, live: str | None = None, pivots: int = 1
) -> Steps[Rows]:
    """Return the first min(k, n) rows in the order of keys, in that order.

    Run by: all three parties, in lock-step.

    Args:
        flow: the flow.
        rows: n rows.
        keys: as in `sort`; equal rows keep their order.
        k: public, at least 1.
        live: a validity bit of rows; rows without are left out.
        pivots: as in `sort`, if it sorts.

    Returns:
        All columns but `live`, and VALID if `live` is given: rows behind the last live one are 0.

    Rounds, bytes: those of `select` of the ranks 0 .. min(k, n) - 1 if 16 min(k, n) <= n, else of `sort`; with `live` one key bit more
        (the column stays one of the table's), and then those of `blank_rows` for min(k, n) rows.
    Security, errors: theirs; ROWS_INVALID for k below 1.
    Leaks: n, k, widths, and what they open (comparison bits of rows in random order). The rows stay shared.
    """
    if k < 1 or (VALID in rows.names and live != VALID):
        raise LocalProtocolError("ROWS_INVALID", "at least one row is wanted, and no column has a result's name", got=k)
    order = list(keys)
    if live is not None:
        rows = rows.without(live).plus({_DEAD: invert(one_bit(rows, live))})
        order.insert(0, SortKey(_DEAD))
    wanted = min(k, rows.count)
    if SELECT_SHARE * wanted <= rows.count:
        first = yield from select(flow, rows, order, range(wanted))
    else:
        first = (yield from sort(flow, rows, order, pivots=pivots)).cut(0, wanted)
    if live is None:
        return first
    valid = invert(first.bits(_DEAD))
    blank = yield from blank_rows(flow.stage, valid, first.without(_DEAD))
    return blank.plus({VALID: valid})
