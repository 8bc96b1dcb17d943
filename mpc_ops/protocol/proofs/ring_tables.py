"""Recipe B for all dot products between two families of columns: the claim as one of A + B columns instead of 2 A B.

Output (a, b) is sum over rows of x_a y_b. With the weights c_ab of its outputs a batch's claim (ring_claim.py) is

    sum over a, b, rows of c_ab (x_a,i y_b,i+1 + y_b,i x_a,i+1)
      = sum over b, rows of (sum_a c_ab x_a,i) y_b,i+1 + sum over a, rows of (sum_b c_ab y_b,i) x_a,i+1

so u = (sum_a c_ab x_a | sum_b c_ab y_b) and v = (y_b | x_a) have A + B elements a row. Prover and left verifier compute u from their
common component once the weights are drawn, prover and right verifier v; carries, weights, levels and bound are those of any batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc_ops.kernels import calls, compiled
from mpc_ops.protocol.proofs.ring_claim import LANES, FactorView, Level, RingParams, next_level
from mpc_ops.ring import RingArray, wide
from mpc_ops.ring.wide import Wide

__all__ = ["TableView", "terms_of"]

_SLOT = 8
"""Rows are filled up with zeros to whole slots of a block (ring_claim.py)."""
_BLOCK = 128
"""Elements are filled up to whole blocks of level 1, as 64 products have them."""


def terms_of(rows: int, columns: int) -> int:
    """Return the terms of ordinary products whose proof has the size of this one: columns = A + B."""
    return _BLOCK // 2 * -(-_filled(rows) * columns // _BLOCK)


def _filled(rows: int) -> int:
    return _SLOT * -(-rows // _SLOT)


@dataclass(frozen=True, slots=True)
class TableView(FactorView):
    """One component of both families.

    Attributes:
        x: shape (A, rows).
        y: shape (B, rows).
    """

    x: NDArray[np.uint64]
    y: NDArray[np.uint64]

    @property
    def outputs(self) -> int:
        """Number of outputs; output a B + b belongs to x_a and y_b."""
        return len(self.x) * len(self.y)

    @property
    def terms(self) -> int:
        """Size of the proof, see `terms_of`."""
        return terms_of(self.x.shape[1], len(self.x) + len(self.y))

    @property
    def held_bytes(self) -> int:
        """Bytes that the view holds."""
        return self.x.nbytes + self.y.nbytes

    def first_left(self, weights: RingArray) -> Level:
        """Return level 1 of u: sum_a c_ab x_a for every b, then sum_b c_ab y_b for every a."""
        c = weights.reshape(len(self.x), len(self.y))
        size = _filled(self.x.shape[1])
        low, high = np.zeros((2, 2 * self.terms), dtype=np.uint64)
        place = 0
        for columns, rows_of_weights in ((self.x, c.T), (self.y, c)):
            words = wide.from_words(_blocks(columns))
            for each in rows_of_weights:
                part = slice(place, place + size)
                low[part], high[part] = _folded(np.ascontiguousarray(each), words)
                place += size
        return next_level(Wide(low, high), LANES[0])

    def first_right(self) -> Level:
        """Return level 1 of v: every y_b, then every x_a."""
        columns, rows = len(self.x) + len(self.y), self.x.shape[1]
        words, size = np.zeros(2 * self.terms, dtype=np.uint64), _filled(rows)
        table = words[: columns * size].reshape(columns, size)
        table[: len(self.y), :rows], table[len(self.y) :, :rows] = self.y, self.x
        return next_level(wide.from_words(words), LANES[0])

    def carries(self, following: FactorView, l_part: RingArray, r_next: RingArray, params: RingParams) -> RingArray:
        """Return q_ab mod 2^carry_bits; as ring_claim.carries."""
        assert isinstance(following, TableView)  # noqa: S101 - both components of a batch are views of one kind
        w = wide.add(_crossed(self.x, following.y), _transposed(_crossed(self.y, following.x)))
        w = wide.sub(wide.add(w.reshape(-1), wide.from_words(l_part)), wide.from_words(r_next))
        return params.carry(wide.shift_right(params.claim(w), params.gate_bits).low)

    def __repr__(self) -> str:
        return f"TableView({len(self.x)} x {len(self.y)}, rows={self.x.shape[1]}, <redacted>)"


def _blocks(columns: NDArray[np.uint64], lanes: int = 0) -> RingArray:
    """Return columns as blocks of lanes x 8 rows, flat: as many lanes as columns, or more that are 0."""
    count, rows = columns.shape
    out = np.zeros((_filled(rows) // _SLOT, max(lanes, count), _SLOT), dtype=np.uint64)
    whole = rows // _SLOT
    out[:whole, :count] = columns[:, : whole * _SLOT].reshape(count, whole, _SLOT).transpose(1, 0, 2)
    if whole * _SLOT < rows:
        out[whole, :count, : rows - whole * _SLOT] = columns[:, whole * _SLOT :]
    return out.reshape(-1)


def _folded(weights: RingArray, blocks: Wide) -> tuple[RingArray, RingArray]:
    """Return the low and the high words of the sum of weights[a] * column a mod 2^128, one per row; columns are words."""
    lanes, zeros = len(weights), np.zeros_like(weights)
    if compiled() and lanes <= calls.LANES:
        return calls.ring_fold((blocks.low, blocks.high), (weights, zeros))
    columns = np.ascontiguousarray(blocks.low.reshape(-1, lanes, _SLOT).transpose(1, 0, 2)).reshape(lanes, -1)
    out = wide.fold(Wide(weights, zeros), wide.from_words(columns), words=True)
    return out.low, out.high


def _crossed(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> Wide:
    """Return left @ right^T mod 2^128."""
    lanes = max(len(left), len(right))
    if not compiled() or lanes > calls.LANES:
        return wide.cross(wide.from_words(left), wide.from_words(right), right_words=True)
    one, two = (_blocks(side, lanes) for side in (left, right))
    zeros = np.zeros_like(one)
    square = Wide(*calls.ring_matrix((one, zeros), (two, zeros), lanes))
    return square[: len(left), : len(right)]


def _transposed(values: Wide) -> Wide:
    return Wide(np.ascontiguousarray(values.low.T), np.ascontiguousarray(values.high.T))
