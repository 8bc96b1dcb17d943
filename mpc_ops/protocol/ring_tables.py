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

from mpc_ops.protocol.ring_claim import LANES, FactorView, Level, RingParams, next_level
from mpc_ops.ring import RingArray, wide
from mpc_ops.ring.wide import Wide

__all__ = ["TableView", "terms_of"]

_BLOCK = 128
"""Elements are filled up to whole blocks of level 1, as 64 products have them."""


def terms_of(rows: int, columns: int) -> int:
    """Return the terms of ordinary products whose proof has the size of this one: columns = A + B."""
    return _BLOCK // 2 * -(-rows * columns // _BLOCK)


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
        parts = [_folded(c[:, place], self.x) for place in range(len(self.y))]
        parts += [_folded(c[place], self.y) for place in range(len(self.x))]
        return self._level(np.concatenate([part.low for part in parts]), np.concatenate([part.high for part in parts]))

    def first_right(self) -> Level:
        """Return level 1 of v: every y_b, then every x_a."""
        words = np.concatenate([self.y.reshape(-1), self.x.reshape(-1)])
        return self._level(words, np.zeros_like(words))

    def _level(self, low: RingArray, high: RingArray) -> Level:
        room = 2 * self.terms - len(low)
        return next_level(Wide(np.pad(low, (0, room)), np.pad(high, (0, room))), LANES[0])

    def carries(self, following: FactorView, l_part: RingArray, r_next: RingArray, params: RingParams) -> RingArray:
        """Return q_ab mod 2^carry_bits; as ring_claim.carries."""
        assert isinstance(following, TableView)  # noqa: S101 - both components of a batch are views of one kind
        w = wide.add(_crossed(self.x, following.y), _transposed(_crossed(self.y, following.x)))
        w = wide.sub(wide.add(w.reshape(-1), wide.from_words(l_part)), wide.from_words(r_next))
        return params.carry(wide.shift_right(params.claim(w), params.gate_bits).low)

    def __repr__(self) -> str:
        return f"TableView({len(self.x)} x {len(self.y)}, rows={self.x.shape[1]}, <redacted>)"


def _folded(weights: RingArray, columns: NDArray[np.uint64]) -> Wide:
    """Return the sum of weights[a] * columns[a] mod 2^128, shape (rows,)."""
    return wide.fold(wide.from_words(np.ascontiguousarray(weights)), wide.from_words(columns), words=True)


def _crossed(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> Wide:
    """Return left @ right^T mod 2^128."""
    return wide.cross(wide.from_words(left), wide.from_words(right), right_words=True)


def _transposed(values: Wide) -> Wide:
    return Wide(np.ascontiguousarray(values.low.T), np.ascontiguousarray(values.high.T))
