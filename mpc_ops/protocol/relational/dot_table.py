"""All dot products between two families of shared columns: one element of traffic each, and factors that are not repeated.

Output (a, b) is the sum over rows of left_a[j] right_b[j]. It is what `products.dots` gives for the repeated columns; here a
party multiplies two matrices, and the proof of an active stage takes A + B elements a row (ring_tables.py), not 2 A B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.products import RingGateLog
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.shares import R, check_ring_share
from mpc_ops.protocol.core.stage import ActiveStage, ComputeStage
from mpc_ops.protocol.proofs.ring_roles import RingBatch
from mpc_ops.protocol.proofs.ring_tables import TableView
from mpc_ops.ring import LANE_BYTES, RingArray, as_body, from_body

__all__ = ["BLOCK_ELEMENTS", "MAX_TABLE", "blocks_of", "dot_table"]

MAX_TABLE = 1 << 20
"""Outputs of one table."""
BLOCK_ELEMENTS = 1 << 21
"""Elements of one block of rows, all columns together: as many as the proof of 2^20 products has."""
_CHUNK_ROWS = 4096


def _block_rows(columns: int) -> int:
    return max(1, BLOCK_ELEMENTS // columns)


def blocks_of(rows: int, columns: int) -> int:
    """Return into how many blocks of rows a table with so many left and right columns together is cut."""
    return -(-rows // _block_rows(columns))


def dot_table(stage: ComputeStage, left: Sequence[R], right: Sequence[R]) -> Steps[R]:
    """Return the shares of all dot products of a left with a right column.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage, active or passive.
        left: A columns of n elements each.
        right: B columns of n elements each; A B is at most 2^20.

    Returns:
        Shape (A * B,): output a * B + b is the sum of left_a[j] * right_b[j] mod 2^64; fresh.

    Rounds: 1 (none if n, A or B is 0).  Sent: 8 A B bytes per party and block of floor(2^21 / (A + B)) rows.
    Security: as `products.multiply`; the proof of a block of r rows is as large as that of (A + B) r / 2 products.
    Leaks: n, A, B.

    Raises:
        LocalProtocolError: SHARE_FOREIGN, STAGE_ORDER, RING_LENGTH, BATCH_TOO_LARGE.
        PeerProtocolError: LENGTH_INVALID.
    """
    stage.computing()
    _check(stage, [*left, *right])
    if not left or not right:
        raise LocalProtocolError("RING_LENGTH", "a table of products needs columns on both sides", ids=stage.ids())
    outputs, rows = len(left) * len(right), left[0].count
    if outputs > MAX_TABLE:
        raise LocalProtocolError("BATCH_TOO_LARGE", "too many dot products in one table", expected=MAX_TABLE)
    like = left[0]
    if rows == 0:
        return replace(like, first=np.zeros(outputs, np.uint64), second=np.zeros(outputs, np.uint64))
    sides = _Sides(
        np.stack([one.first for one in left]),
        np.stack([one.first for one in right]),
        np.stack([one.second for one in left]),
        np.stack([one.second for one in right]),
    )
    columns = len(left) + len(right)
    count, size = blocks_of(rows, columns), _block_rows(columns)
    parts = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    r_own, r_next = stage.streams("dot-table", count * outputs)
    z_own = np.concatenate([sides.own(part) for part in parts]) + r_own - r_next
    inbound = yield from stage.exchange("dot-table", to_prev=as_body(z_own), expect_next=len(z_own) * LANE_BYTES)
    z_next = from_body(inbound.from_next, len(z_own))
    if isinstance(stage, ActiveStage):
        for place, part in enumerate(parts):
            lanes = slice(place * outputs, (place + 1) * outputs)
            stage.log(RingGateLog).append(
                sides.batch(part, (z_own[lanes], z_next[lanes]), (r_own[lanes], r_next[lanes]))
            )
            yield from stage.settle()
    own, following = (words.reshape(count, outputs).sum(axis=0, dtype=np.uint64) for words in (z_own, z_next))
    return replace(like, first=own, second=following)


def _check(stage: ComputeStage, columns: Sequence[R]) -> None:
    for column in columns:
        check_ring_share(stage, column)
        if column.count != columns[0].count:
            raise LocalProtocolError(
                "RING_LENGTH", "columns of different lengths", expected=columns[0].count, got=column.count
            )


@dataclass(frozen=True, slots=True)
class _Sides:
    """Components of both families, one row each: component i and i + 1 of the left (x) and the right (y) columns."""

    x: NDArray[np.uint64]
    y: NDArray[np.uint64]
    x_next: NDArray[np.uint64]
    y_next: NDArray[np.uint64]

    def own(self, rows: slice) -> RingArray:
        """Return sums of x_i (y_i + y_{i+1}) + x_{i+1} y_i over some rows, flat."""
        total = _table(self.x[:, rows], self.y[:, rows] + self.y_next[:, rows])
        total += _table(self.x_next[:, rows], self.y[:, rows])
        return total.reshape(-1)

    def batch(self, rows: slice, z: tuple[RingArray, RingArray], r: tuple[RingArray, RingArray]) -> RingBatch:
        """Return what the proof needs of some rows' products."""
        own, following = (self.x[:, rows], self.y[:, rows]), (self.x_next[:, rows], self.y_next[:, rows])
        l_own = _table(*own).reshape(-1) + r[0] - z[0]
        l_next = _table(*following).reshape(-1) + r[1] - z[1]
        return RingBatch(TableView(*own), TableView(*following), l_own, l_next, r[0], r[1])


def _table(x: NDArray[np.uint64], y: NDArray[np.uint64]) -> NDArray[np.uint64]:
    total = np.zeros((len(x), len(y)), dtype=np.uint64)
    for start in range(0, x.shape[1], _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        total += np.einsum("an,bn->ab", x[:, part], y[:, part])
    return total
