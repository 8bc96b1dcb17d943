"""Products of shared vectors over Z_2^64: products, squares, dot products of any length, sums. Their gates are logged.

x = x_0 + x_1 + x_2 mod 2^64, position i holds (x_i, x_{i+1}). For a product P_i computes

    z_i = x_i (y_i + y_{i+1}) + x_{i+1} y_i + F(k_i) - F(k_{i+1})

and sends it to P_{i-1}; the three z_i add up to x y, and the streams make each of them uniform for its receiver. A dot product
adds its terms first: one element of traffic, however many terms.

The stage's log keeps what recipe B (proof_ring.py) needs: both components of both factors (32 bytes a term) and 32 bytes an
output. It is proven in batches of at most MAX_BATCH_TERMS terms, cut at places that follow from the order of operations alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.kernels import calls, compiled
from mpc_ops.protocol.core.party import Steps, together
from mpc_ops.protocol.core.shares import R, RingVector, check_ring_share, ring_of
from mpc_ops.protocol.core.stage import ActiveStage, ComputeStage, GateLog
from mpc_ops.protocol.proofs.proof_ring import prove_batch
from mpc_ops.protocol.proofs.ring_claim import MAX_OUTPUT_TERMS, RING_64, FactorView, GateView, RingParams
from mpc_ops.protocol.proofs.ring_roles import RingBatch
from mpc_ops.ring import LANE_BYTES, RingArray, as_body, from_body
from mpc_ops.ring.wide import segment_sums_words

__all__ = [
    "MAX_BATCH_TERMS",
    "MAX_OPERATION_TERMS",
    "RingGateLog",
    "dot",
    "dots",
    "fresh",
    "multiply",
    "random_ring",
    "segment_sums",
    "square",
    "times_public",
]

MAX_BATCH_TERMS = 1 << 20
"""Terms of one proof; a longer dot product is a batch of its own."""
MAX_OPERATION_TERMS = 1 << 24
"""Terms of one operation; more is split by the caller."""
_OUTPUT_BYTES = 32
_CHUNK = 16384


class RingGateLog(GateLog):
    """Products of a stage that are still to be proven."""

    kind: ClassVar[str] = "ring"
    params: ClassVar[RingParams] = RING_64

    def __init__(self, stage: ActiveStage) -> None:
        super().__init__(stage)
        self._pieces: list[RingBatch] = []

    @property
    def pending_bytes(self) -> int:
        """Bytes that the unproven gates hold: 32 a term and 32 an output."""
        return sum(map(_bytes, self._pieces))

    def append(self, gates: RingBatch) -> None:
        """Log the gates of one operation, cut at outputs into pieces of at most MAX_BATCH_TERMS terms; a table stays whole."""
        if not isinstance(gates.own, GateView):
            self._pieces.append(gates)
            return
        ends = gates.own.ends
        first, start = 0, 0
        while first < len(ends):
            last = max(first + 1, int(np.searchsorted(ends, start + MAX_BATCH_TERMS, side="right")))
            last = min(last, first + MAX_BATCH_TERMS)
            stop = int(ends[last - 1])
            self._pieces.append(_piece(gates, slice(first, last), slice(start, stop)))
            first, start = last, stop

    def take(self) -> list[RingBatch]:
        """Remove the oldest gates, about `limit_bytes` of them, and return them as batches of one proof each."""
        out: list[list[RingBatch]] = []
        terms = outputs = held = 0
        kind: type[FactorView] | None = None
        while self._pieces:
            piece = self._pieces[0]
            size, count = piece.own.terms, piece.own.outputs
            if out and held + _bytes(piece) > self.stage.terms.limit_bytes:
                break
            alone = kind is not GateView or type(piece.own) is not GateView
            if alone or terms + size > MAX_BATCH_TERMS or outputs + count > MAX_BATCH_TERMS:
                out.append([])
                terms = outputs = 0
            out[-1].append(self._pieces.pop(0))
            terms, outputs, held, kind = terms + size, outputs + count, held + _bytes(piece), type(piece.own)
        return [_joined(pieces) for pieces in out]

    def prove(self, batch: int) -> Steps[None]:
        """Prove the oldest pending gates, groups side by side in the same rounds, and forget them.

        Raises:
            Abort: PROOF_REJECTED, COIN_MISMATCH.
            PeerProtocolError: LENGTH_INVALID, ELEMENT_INVALID.
        """
        groups = self.take()
        proofs = (
            prove_batch(self.stage, batch, number, view, params=self.params) for number, view in enumerate(groups)
        )
        yield from together(*proofs)

    def wipe(self) -> None:
        """Forget all gates."""
        self._pieces.clear()


def _bytes(piece: RingBatch) -> int:
    return piece.own.held_bytes + piece.following.held_bytes + piece.own.outputs * _OUTPUT_BYTES


def _gates(view: FactorView) -> GateView:
    if not isinstance(view, GateView):  # pragma: no cover - a table is a piece and a batch of its own
        raise LocalProtocolError("PROOF_ORDER", "a table of products is proven whole")
    return view


def _piece(gates: RingBatch, outputs: slice, terms: slice) -> RingBatch:
    own, following = _gates(gates.own), _gates(gates.following)
    ends = own.ends[outputs] - terms.start
    return RingBatch(
        GateView(own.x[terms], own.y[terms], ends),
        GateView(following.x[terms], following.y[terms], ends),
        gates.l_own[outputs],
        gates.l_next[outputs],
        gates.r_own[outputs],
        gates.r_next[outputs],
    )


def _joined(pieces: Sequence[RingBatch]) -> RingBatch:
    if len(pieces) == 1:
        return pieces[0]
    own, following = (
        [_gates(side) for side in sides] for sides in zip(*((p.own, p.following) for p in pieces), strict=True)
    )
    offsets = np.cumsum([0, *(len(view.x) for view in own[:-1])])
    ends = np.concatenate([view.ends + offset for view, offset in zip(own, offsets, strict=True)])

    def joined(sides: list[GateView]) -> GateView:
        return GateView(np.concatenate([s.x for s in sides]), np.concatenate([s.y for s in sides]), ends)

    return RingBatch(
        joined(own),
        joined(following),
        np.concatenate([piece.l_own for piece in pieces]),
        np.concatenate([piece.l_next for piece in pieces]),
        np.concatenate([piece.r_own for piece in pieces]),
        np.concatenate([piece.r_next for piece in pieces]),
    )


def multiply(stage: ComputeStage, x: R, y: R) -> Steps[R]:
    """Multiply two shared vectors lane by lane.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage, active or passive.
        x: shape (n,), elements of Z_2^64.
        y: shape (n,).

    Returns:
        Share of x*y mod 2^64, shape (n,); fresh.

    Rounds: 1 (none if n = 0).  Sent: 8 n bytes per party, to party i-1.  Local: 3 products, 2 streams of 8 n bytes.
    Security: in an active stage malicious with abort: the gates are in the stage's log and are proven before anything is
        opened; until then a cheating party can add an error that it chooses, and learns nothing. In a passive one semi-honest.
    Leaks: n.

    Raises:
        LocalProtocolError: SHARE_FOREIGN, STAGE_ORDER, RING_LENGTH, BATCH_TOO_LARGE.
        PeerProtocolError: LENGTH_INVALID.
    """
    _check_factors(x, y, x.count)
    result = yield from _dots(stage, x, y, None)
    return result


def square(stage: ComputeStage, x: R) -> Steps[R]:
    """Return the share of x*x, lane by lane; rounds, bytes, security and errors as `multiply`."""
    result = yield from multiply(stage, x, x)
    return result


def dot(stage: ComputeStage, x: R, y: R) -> Steps[R]:
    """Return the share of the sum over all lanes of x*y, shape (1,).

    Rounds: 1.  Sent: 8 bytes per party, however many lanes.  Security, errors: as `multiply`.  Leaks: n.
    """
    result = yield from dots(stage, x, y, np.array([x.count], dtype=np.int64))
    return result


def dots(stage: ComputeStage, x: R, y: R, ends: NDArray[np.int64]) -> Steps[R]:
    """Return the share of several dot products over consecutive segments.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage, active or passive.
        x: shape (n,).
        y: shape (n,).
        ends: public, shape (m,), int64, ascending, last one n: output j covers lanes [ends[j-1], ends[j]). An empty segment
            gives 0.

    Returns:
        Share of the m sums mod 2^64; fresh.

    Rounds: 1 (none if m = 0).  Sent: 8 m bytes per party, to party i-1.  Security, errors: as `multiply`.
    Leaks: n and the segments.
    """
    _check_segments(x, y, ends)
    # Logged until the proof: a caller's later change of its array must not change what is proven.
    result = yield from _dots(stage, x, y, ends.copy())
    return result


def _dots(stage: ComputeStage, x: R, y: R, ends: NDArray[np.int64] | None) -> Steps[R]:
    """See `dots`; None stands for one term an output, which needs no sums. Segments have been checked."""
    check_ring_share(stage, x)
    check_ring_share(stage, y)
    stage.computing()
    outputs = x.count if ends is None else len(ends)
    if outputs == 0:
        return replace(x, first=x.first[:0].copy(), second=x.second[:0].copy())
    r_own, r_next = stage.streams("ring-products", outputs)
    z_own, l_own = _messages(x, y, (r_own, r_next), ends)
    inbound = yield from stage.exchange("ring-products", to_prev=as_body(z_own), expect_next=outputs * LANE_BYTES)
    z_next = from_body(inbound.from_next, outputs)
    if isinstance(stage, ActiveStage):
        l_next = _lefts(x.second, y.second, r_next, z_next, ends)
        ends = np.arange(1, outputs + 1, dtype=np.int64) if ends is None else ends
        stage.log(RingGateLog).append(
            RingBatch(
                GateView(x.first, y.first, ends), GateView(x.second, y.second, ends), l_own, l_next, r_own, r_next
            )
        )
        yield from stage.settle()
    return replace(x, first=z_own, second=z_next)


def _messages(
    x: RingVector, y: RingVector, masks: tuple[RingArray, RingArray], ends: NDArray[np.int64] | None
) -> tuple[RingArray, RingArray]:
    """Return z_i, and l of it as the own proof needs it."""
    if ends is None and compiled():
        return calls.ring_products((x.first, x.second), (y.first, y.second), masks)
    rest = masks[1] - _cross_products(x, y, ends)
    z = _products(x.first, y.first, ends)
    z += masks[0]
    z -= rest
    return z, rest


def _lefts(x: RingArray, y: RingArray, r: RingArray, z: RingArray, ends: NDArray[np.int64] | None) -> RingArray:
    """Return l = x y + r - z of each output."""
    if ends is None and compiled():
        return calls.ring_lefts(x, y, r, z)
    return _products(x, y, ends) + r - z


def _check_factors(x: RingVector, y: RingVector, outputs: int) -> None:
    if not isinstance(x, RingVector) or not isinstance(y, RingVector):
        raise LocalProtocolError("SHARE_FOREIGN", "products take shares over Z_2^64")
    if x.count != y.count:
        raise LocalProtocolError("RING_LENGTH", "factors of different lengths", expected=x.count, got=y.count)
    if max(x.count, outputs) > MAX_OPERATION_TERMS:
        raise LocalProtocolError(
            "BATCH_TOO_LARGE", "too many products in one operation", expected=f"at most {MAX_OPERATION_TERMS}"
        )


def _check_segments(x: RingVector, y: RingVector, ends: NDArray[np.int64]) -> None:
    _check_factors(x, y, len(ends))
    if ends.dtype != np.int64 or ends.ndim != 1:
        raise LocalProtocolError("RING_TYPE", "segments end at int64 positions", got=str(ends.dtype))
    lengths = np.diff(ends, prepend=0)
    if (len(ends) == 0 and x.count) or (len(ends) and int(ends[-1]) != x.count) or bool(np.any(lengths < 0)):
        raise LocalProtocolError("RING_LENGTH", "segments do not cover the lanes in order", expected=x.count)
    if len(ends) and int(lengths.max()) > MAX_OUTPUT_TERMS:
        raise LocalProtocolError(
            "BATCH_TOO_LARGE", "too many terms in one dot product", expected=f"at most {MAX_OUTPUT_TERMS}"
        )


def _products(left: RingArray, right: RingArray, ends: NDArray[np.int64] | None) -> RingArray:
    """Return sums of left * right mod 2^64 over the segments."""
    return left * right if ends is None else segment_sums_words(left * right, ends)


def _cross_products(x: RingVector, y: RingVector, ends: NDArray[np.int64] | None) -> RingArray:
    """Return sums of x_i y_{i+1} + x_{i+1} y_i, in blocks that stay in the cache."""
    out = np.empty(x.count, dtype=np.uint64)
    for start in range(0, x.count, _CHUNK):
        block = slice(start, start + _CHUNK)
        np.multiply(x.first[block], y.second[block], out=out[block])
        out[block] += x.second[block] * y.first[block]
    return out if ends is None else segment_sums_words(out, ends)


def fresh(stage: ComputeStage, x: R) -> Steps[R]:
    """Return another sharing of x: its product with the public 1, whose components are (1, 0, 0).

    For results: what leaves a stage then tells nothing about the sharings that it was computed from, and the product is part of
    the stage's last proof. Rounds, bytes, security and errors as `multiply`.
    """
    zero = np.zeros(x.count, dtype=np.uint64)
    one = replace(x, first=zero, second=zero.copy()).plus_public(np.ones(x.count, dtype=np.uint64))
    result = yield from multiply(stage, x, one)
    return result


def random_ring(stage: ComputeStage, count: int) -> RingVector:
    """Return a share of uniformly random elements that no party knows: component c is F(k_c). No message."""
    first, second = stage.streams("ring-random", count)
    return ring_of(stage, first, second)


def segment_sums(x: R, ends: NDArray[np.int64]) -> R:
    """Return the share of sums over consecutive segments (`ends` as in `dots`); no message."""
    _check_segments(x, x, ends)
    return replace(x, first=segment_sums_words(x.first, ends), second=segment_sums_words(x.second, ends))


def times_public(x: R, factors: RingArray) -> R:
    """Return the share of c*x for a public vector c, lane by lane; no message.

    Raises:
        LocalProtocolError: RING_LENGTH.
    """
    if len(factors) != x.count:
        raise LocalProtocolError("RING_LENGTH", "a factor per lane", expected=x.count, got=len(factors))
    return replace(x, first=x.first * factors, second=x.second * factors)
