"""One proof of recipe B without a network: views of the three parties, a driver of the roles, a best possible cheater."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpc_ops.protocol.proofs import ring_claim as claims
from mpc_ops.protocol.proofs.proof_ring import passes
from mpc_ops.protocol.proofs.ring_claim import RING_64, GateView, RingParams
from mpc_ops.protocol.proofs.ring_roles import LeftVerifier, Place, RightVerifier, RingBatch, RingProver
from mpc_ops.ring import wide
from mpc_ops.ring.wide import Wide

Tamper = Mapping[str, Callable[[bytes], bytes]]


def key(*items: object) -> bytes:
    return hashlib.sha256(repr(items).encode()).digest()


def views(
    generator: np.random.Generator,
    lengths: Sequence[int],
    params: RingParams = RING_64,
    *,
    bad: int | None = None,
    error: int = 0,
    edge: int | None = None,
) -> list[RingBatch]:
    """Views of the three parties of random dot products of those lengths; prover 0 may have sent a wrong z_0[bad].

    `edge` gives all components that value.
    """
    ends = np.cumsum(np.array(lengths, dtype=np.int64), dtype=np.int64)
    terms, outputs = int(ends[-1]) if len(ends) else 0, len(ends)

    def words(count: int) -> list[np.ndarray]:
        out = [params.gate(generator.integers(0, 1 << 64, count, dtype=np.uint64)) for _ in range(3)]
        return [np.full(count, edge, dtype=np.uint64) for _ in out] if edge is not None else out

    x, y, r = words(terms), words(terms), words(outputs)
    z = []
    for i in range(3):
        j = (i + 1) % 3
        sums = wide.segment_sums_words(x[i] * y[i] + x[i] * y[j] + x[j] * y[i], ends)
        z.append(params.gate(sums + r[i] - r[j]))
    if bad is not None:
        z[0] = z[0].copy()
        z[0][bad : bad + 1] += np.uint64(error)
        z[0] = params.gate(z[0])
    sides = [GateView(x[i], y[i], ends) for i in range(3)]
    lefts = [claims.lefts(sides[i], r[i], z[i], params) for i in range(3)]
    return [
        RingBatch(sides[i], sides[(i + 1) % 3], lefts[i], lefts[(i + 1) % 3], r[i], r[(i + 1) % 3]) for i in range(3)
    ]


class Cheater(RingProver):
    """Puts its whole error in one element of every matrix (rank one), which survives folding most often."""

    def take_weights(self, seed: bytes) -> None:
        super().take_weights(seed)
        place = self._place
        c = place.weights(seed)
        totals = wide.add(
            claims.weighted_left(c, self._q_left, self._l_part, place.params),
            claims.weighted_right(c, place.right_carries(self._keys[1]), self._r_next, place.params),
        )
        honest = super()._matrices(0)[0]
        error = wide.sub(totals, claims.trace(honest, place.lanes[0]))
        self.errors = [error] * place.params.repetitions

    def _matrices(self, level: int) -> list[Wide]:
        out = []
        for square, error in zip(super()._matrices(level), self.errors, strict=False):
            low, high = square.low.copy(), square.high.copy()
            corner = wide.add(square[0, :1], error)
            low[0, 0], high[0, 0] = corner.low[0], corner.high[0]
            out.append(Wide(low, high))
        return out

    def take_coin(self, level: int, seed: bytes) -> None:
        pairs = self._place.coefficients(seed, level)
        self.errors = [
            wide.mul(wide.mul(a[:1], b[:1]), error) for (a, b), error in zip(pairs, self.errors, strict=True)
        ]
        super().take_coin(level, seed)


@dataclass
class Run:
    """One proof by prover 0: whether it passed, and what a blame needs."""

    place: Place
    prover: RingProver
    left: bytes
    right: bytes
    last_seed: bytes

    @property
    def passed(self) -> bool:
        return passes(self.place, self.left, self.right)

    @property
    def statement(self) -> tuple[bytes, bytes]:
        return self.prover.statement(self.last_seed)


def prove(
    batches: Sequence[RingBatch],
    params: RingParams = RING_64,
    *,
    prover_type: type[RingProver] = RingProver,
    tamper: Tamper | None = None,
    number: object = 0,
) -> Run:
    """Run the proof of prover 0 with L = 2 and R = 1. `tamper` changes messages by name (carries, matrix0, left, ...)."""
    view = batches[0]
    place = Place(("test", repr(number)), 0, view.own.outputs, view.own.terms, params)
    shared = [key("prg", number, i) for i in range(3)]

    def coins(step: int) -> bytes:
        return key("coin", number, step)

    def sent(name: str, body: bytes) -> bytes:
        return (tamper or {}).get(name, lambda data: data)(body)

    prover = prover_type(place, view, (shared[0], shared[1]))
    left = LeftVerifier(place, batches[2], shared[0], coins)
    right = RightVerifier(place, batches[1], shared[1], coins)
    left.take_carries(sent("carries", prover.carry_message()))
    prover.take_digests(sent("digests", right.digests()))
    prover.take_weights(sent("weights", left.release(0)))
    for level in range(place.folds):
        left.take_matrix(level, sent(f"matrix{level}", prover.matrix_message(level)))
        if level < place.folds - 1:
            prover.take_coin(level, sent(f"coin{level}", left.release(level + 1)))
    return Run(place, prover, sent("left", left.opening()), sent("right", right.opening()), left.last_seed())


def plus(place_bytes: int, index: int, amount: int, bits: int = 128) -> Callable[[bytes], bytes]:
    """Return a change: add `amount` to element `index` of elements of `place_bytes` bytes."""

    def change(body: bytes) -> bytes:
        at = index * place_bytes
        value = (int.from_bytes(body[at : at + place_bytes], "little") + amount) % (1 << bits)
        return body[:at] + value.to_bytes(place_bytes, "little") + body[at + place_bytes :]

    return change
