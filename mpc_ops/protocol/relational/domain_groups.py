"""Group-by over keys of few bits: totals of every possible key (small_domain.py), then those that occur, brought together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.compare import arithmetic_bits, equal_public
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Column, Rows, zero_bits
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, invert, public_like
from mpc_ops.protocol.order.shuffle import compact
from mpc_ops.protocol.relational.ordered import VALID, blank_rows
from mpc_ops.protocol.relational.small_domain import MAX_DOMAIN_BITS, domain_bytes, domain_sums
from mpc_ops.ring.planes import to_planes

__all__ = ["ROW_BYTES", "domain_groups", "domain_is_cheaper"]

ROW_BYTES = 480
"""Bytes a row and party that sorting by a narrow key and bringing groups together takes at least."""


def domain_is_cheaper(rows: int, width: int, columns: int, *, marked: bool) -> bool:
    """Say whether totals of all 2^width keys cost less than a sort: from public sizes alone."""
    if not 1 <= width <= MAX_DOMAIN_BITS or rows < 1 << width:
        return False
    return domain_bytes(rows, width, columns, count=True, marked=marked) <= ROW_BYTES * rows


def domain_groups(
    flow: Flow,
    key: BooleanPlanes,
    live: BooleanPlanes | None,
    sums: Sequence[RingVector | None],
    bound: int | None,
) -> Steps[tuple[Rows, BooleanPlanes]]:
    """Return groups of a tiny domain, and whether there are more than the bound.

    Run by: all three parties, in lock-step.

    Args:
        flow: the flow.
        key: n values of w bits, n at least 2^w.
        live: one bit per row; rows without count nowhere.
        sums: what is summed; None: the rows themselves.
        bound: public, at least 1.

    Returns:
        (min(n, bound, 2^w) rows of "key", "sum0", "sum1", ... and VALID: the groups ascending by key, then zeros; one bit).

    Rounds: those of `domain_sums` with the count, 2 + ceil(log2(b - 2)) and ceil(log2 b) for b = bit_length(n) bits of the count (no
        sum of 2 if b < 3), `compact` of 2^w rows, `blank_rows`.
    Sent: the sum of theirs; for the count 8 ceil(2^w/64) bytes per AND of `compare.arithmetic_bits` of b bits, and b - 1 more.
    Security: malicious with abort in an active session, semi-honest in a passive one.
    Leaks: n, w, the bound; what `compact` opens (a random order of 2^w rows).
    """
    columns = [one for one in sums if one is not None]
    totals = yield from domain_sums(flow.stage, key, columns, count=True, marks=live)
    count = totals.count
    assert count is not None  # noqa: S101 - it was asked for
    rows = key.count
    (bits,) = yield from evaluate(flow.stage, "group-count", [arithmetic_bits(count, rows.bit_length())])
    (absent,) = yield from evaluate(flow.stage, "group-absent", [equal_public(bits, 0)])
    values = to_planes(np.arange(1 << key.width, dtype=np.uint64), key.width)
    given = iter(totals.sums)
    table: dict[str, Column] = {"key": public_like(absent, values), VALID: invert(absent)}
    table.update({f"sum{place}": count if one is None else next(given) for place, one in enumerate(sums)})
    found = yield from compact(flow, Rows(table), VALID)
    size = min(found.count, found.count if bound is None else bound)
    overflow = zero_bits(absent, 1) if size == found.count else found.cut(size, size + 1).bits(VALID)
    found = found.cut(0, size)
    blank = yield from blank_rows(flow.stage, found.bits(VALID), found.select(["key"]))
    return found.plus(blank.columns), overflow
