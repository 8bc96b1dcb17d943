"""One side's vector in the proof of AND gates, level by level.

The first fold turns 3 bits of a gate's side into half a byte, so a batch folded at once holds twice what it logged. For large
batches it is put off: level 2 folds a chunk of gates at a time, once for its coefficients and once more for the second fold,
which leaves an eighth. A prover then folds twice, in the cache; verifiers, who have no coefficients, fold once. The values, and
so the messages, are the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mpc_ops.kernels import pool
from mpc_ops.protocol.proofs.and_kernels import BlockLayout, Side, cross_gates, fold_gates
from mpc_ops.ring.field61 import FIELD_61, FieldArray, PrimeField
from mpc_ops.ring.planes import WORD_BITS

__all__ = ["GateVector", "cross_level"]

PUT_OFF_WORDS = 1 << 16
"""Words (4 million gates) from which on the first fold is put off: 8 MiB for a party's four vectors if it is not."""
_CHUNK_WORDS = 1 << 13
"""Words a thread folds at a time: 256 KiB of elements for each side."""
_SLOW_CHUNK_WORDS = 1 << 18
"""In numpy, where each chunk makes tables of its own."""


class GateVector:
    """What one verifier knows of the gates, and the prover too: the gates first, then elements."""

    def __init__(
        self, gates: Side, lanes: tuple[int, ...], layout: BlockLayout, field: PrimeField, *, right: bool
    ) -> None:
        """Begin; `lanes` are those of every level before the last."""
        self.level, self.lanes, self.layout, self.field, self.right = 0, lanes, layout, field, right
        self.elements: FieldArray = np.zeros(0, dtype=np.uint64)
        self.gates: Side | None = gates
        self._weights: FieldArray = np.zeros(0, dtype=np.uint64)

    def fold(self, rho: int) -> None:
        """Go to the next level."""
        weights = self.field.powers(self.field.inverse(rho) if self.right else rho, self.lanes[self.level])
        if self.level == 0:
            self._weights = weights
            if not self._waits():
                self.elements, self.gates = self._joined(list(self.chunks())), None
        elif self.gates is not None:
            combine, slots = self.field.combine_blocks, self.layout.inner_slots
            parts = [combine(chunk.reshape(-1), weights, slots).reshape(4, -1) for chunk in self.chunks()]
            self.elements, self.gates = self._joined(parts), None
        else:
            self.elements = self.field.combine_blocks(self.elements, weights, self.layout.inner_slots)
        self.level += 1

    def at(self, rho: int, mask: int) -> int:
        """Return the masked last vector at rho (left) or 1 / rho (right)."""
        field, size = self.field, len(self.elements)
        base = field.inverse(rho) if self.right else rho
        exponent = 2 * size if self.right else size
        return (field.evaluate(self.elements, 0, base) + mask * pow(base, exponent, field.p)) % field.p

    def _waits(self) -> bool:
        """Whether the first fold is put off; blocks of the second one must lie inside what a block of gates becomes."""
        columns, words = self.layout.slots * WORD_BITS, 0 if self.gates is None else len(self.gates.x)
        whole = len(self.lanes) > 1 and columns % (self.lanes[1] * self.layout.inner_slots) == 0
        return whole and words >= PUT_OFF_WORDS

    def chunks(self) -> Iterator[FieldArray]:
        """Yield the vector at level 1 in chunks of whole blocks of gates, each folded as it is asked for: shape (4, columns)."""
        gates = self.gates
        if gates is None:
            return
        fast = self.layout.fast and self.field is FIELD_61
        step = self.layout.padded(pool.threads() * _CHUNK_WORDS if fast else _SLOW_CHUNK_WORDS)
        for start in range(0, len(gates.x), step):
            part = slice(start, start + step)
            side = Side(gates.x[part], gates.y[part], gates.e[part])
            yield fold_gates(side, self._weights, self.layout, self.field, right=self.right).reshape(4, -1)

    @staticmethod
    def _joined(parts: list[FieldArray]) -> FieldArray:
        """Return component after component, each of all parts."""
        return np.concatenate(parts, axis=1).reshape(-1)

    def __repr__(self) -> str:
        return f"GateVector(level={self.level}, <redacted>)"


def cross_level(u: GateVector, v: GateVector) -> list[int]:
    """Return the coefficients R of a level before the last: R[d + lanes - 1] = sum over lanes a - b = d of <u_a, v_b>."""
    field, lanes, slots = u.field, u.lanes[u.level], u.layout.inner_slots
    if u.level == 0 and u.gates is not None and v.gates is not None:
        return [value % field.p for value in cross_gates(u.gates, v.gates, u.layout)]
    if u.gates is None:
        return field.cross_blocks(u.elements, v.elements, lanes, slots)
    totals = [0] * (2 * lanes - 1)
    for one, other in zip(u.chunks(), v.chunks(), strict=True):
        part = field.cross_blocks(one.reshape(-1), other.reshape(-1), lanes, slots)
        totals = [(total + value) % field.p for total, value in zip(totals, part, strict=True)]
    return totals
