"""Recipe B: a distributed zero-knowledge proof that products mod 2^64 are right (protocols.md 2.4), one prover's part.

Every party proves its own messages; L = P_{i-1} and R = P_{i+1} verify prover P_i. The roles (ring_roles.py) take
and give bytes in the only order that is sound; `prove_batch` runs the three proofs of a batch side by side.

```
P_i -> L   carries q_j - PRG(k_{i+1}) mod 2^64, one per output             before the weights: a later carry absorbs an error
R -> P_i   SHA-256(context, seed) of every coin                            after R's FLUSH
L -> P_i   seed of the weights                                             after all FLUSHED and the carries
per level:
P_i -> L   M - PRG(k_{i+1}): shares of U V^T                               R has its share from the stream
L -> P_i   seed of the fold coefficients (not of the last level)           after this level's complete share of M
last level: one more row, PRG(k_i) in u and PRG(k_{i+1}) in v, with coefficient 1 and outside of the trace
L <-> R    a^T u, T'_L, all b_L   |   b^T v, T'_R, all b_R                 b = T - trace(M) of every level
```
Both verifiers check b_L + b_R = 0 at every level and (a^T u)(b^T v) = T'_L + T'_R; the random row makes the opened values
uniform. The prover computes nothing of a level before it holds the seed from L and the matching digest from R: a lying L
would otherwise get a linear function of the secrets from two coins (a privacy check, not a soundness check).

Assumption: at most one of the three parties deviates; PRG streams are AES-256-CTR under HKDF-SHA-256.
Bound: ring_claim.log2_bound, 2^-52 per batch and prover with two repetitions and five folds; see docs/soundness.md.
Leaks: number of terms and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.core.blame import Fits, ProofAddress, ProofShape
from mpc_ops.protocol.core.party import Body, Steps
from mpc_ops.protocol.core.stage import ActiveStage
from mpc_ops.protocol.proofs.ring_claim import RING_32, RING_64, RingParams, check_bound
from mpc_ops.protocol.proofs.ring_roles import (
    CoinSource,
    LeftVerifier,
    Place,
    RightVerifier,
    RingBatch,
    RingProver,
    check_length,
    read_elements,
)
from mpc_ops.randomness import SEED_BYTES
from mpc_ops.ring import wide
from mpc_ops.ring.wide import Wide

__all__ = ["RINGS", "kind_of", "passes", "proof_bytes", "prove_batch", "public_check"]


def passes(place: Place, left: Body, right: Body) -> bool:
    """Say whether the two openings prove the batch: all b_L + b_R = 0 and every product equals its claim.

    Args:
        place: where.
        left: L's opening.
        right: R's opening.

    Raises:
        PeerProtocolError: LENGTH_INVALID, ELEMENT_INVALID.
    """
    for data in (left, right):
        check_length(data, place.opening_bytes, place)
    one, two = read_elements(left, place), read_elements(right, place)
    params, repetitions = place.params, place.params.repetitions
    sums = wide.add(one, two)
    product = wide.mul(one[:repetitions], two[:repetitions])
    differences = wide.sub(product, sums[repetitions : 2 * repetitions])
    zero = wide.zeros(repetitions + place.checks)
    rest = sums[2 * repetitions :]
    found = Wide(np.concatenate([differences.low, rest.low]), np.concatenate([differences.high, rest.high]))
    return wide.equal(params.claim(found), zero)


RINGS: Mapping[str, RingParams] = {"ring": RING_64, "ring32": RING_32}
"""Rings of the kinds of gates, as they stand in contexts, addresses and statements about a proof."""


def public_check(kind: str, shape: ProofShape) -> Fits:
    """Return the check of a proof from its shape alone, for whoever repeats it after a dispute (blame.verdict).

    Raises:
        LocalProtocolError: RING_LENGTH if there is no batch of such a shape. The check: what `passes` raises.
    """
    if shape.outputs < 1 or shape.terms < 1 or shape.words:
        raise LocalProtocolError("RING_LENGTH", "no batch of products has this shape", got=repr(shape))
    return partial(passes, Place((), 0, shape.outputs, shape.terms, RINGS[kind]))


def kind_of(params: RingParams) -> str:
    """Return the kind of gates as it stands in contexts and addresses."""
    for kind, known in RINGS.items():
        if known == params:
            return kind
    raise LocalProtocolError("RING_PARAMS", "no kind of gates has these rings", got=repr(params))


def prove_batch(
    stage: ActiveStage, batch: int, group: int, view: RingBatch, *, params: RingParams = RING_64
) -> Steps[None]:
    """Prove own products of a batch and verify those of both others, all three proofs in the same rounds.

    Run by: all three parties, in lock-step, with the stage's FLUSH in the first round.

    Args:
        stage: a stage that is proving.
        batch: the stage's batch number.
        group: which part of that batch; parts run side by side.
        view: own view; not empty.
        params: the rings; each kind of gates has contexts, coins and addresses of its own.

    Rounds: 2 f + 2 with f = folds_of(terms).  Sent per party: 8 bytes per output, the matrices (16 bytes an element), 32 f
        bytes of seeds, 32 f of digests and two openings; see `proof_bytes`.
    Security: a wrong product of the prover passes with probability at most 2^log2_bound; the verifiers' messages to the
        prover carry coins only, those between them are uniform.
    Leaks: lengths.

    Raises:
        Abort: PROOF_REJECTED, COIN_MISMATCH.
        PeerProtocolError: LENGTH_INVALID, ELEMENT_INVALID.
        LocalProtocolError: RING_PROOF_WEAK.
    """
    party, keys, kind = stage.party, stage.keys, kind_of(params)
    places = {prover: _place_of(stage, batch, group, prover, view=view, params=params) for prover in range(3)}
    own, after, before = places[party], places[(party + 1) % 3], places[(party - 1) % 3]
    check_bound(own.params, own.folds)

    def coins(prover: int) -> CoinSource:
        return lambda step: stage.coin(batch, f"{kind}-{group}", prover, str(step))

    prover = RingProver(own, view, (keys.first.prg, keys.second.prg))
    left = LeftVerifier(after, view, keys.second.prg, coins(after.prover))
    right = RightVerifier(before, view, keys.first.prg, coins(before.prover))
    step = f"{kind}-{group}"

    def address(prover_at: int) -> ProofAddress:
        return ProofAddress(stage.name, batch, kind, group, prover_at)

    inbound = yield from stage.exchange(
        f"{step}-carries", to_prev=prover.carry_message(), expect_next=after.carry_bytes
    )
    left.take_carries(inbound.from_next)
    inbound = yield from stage.exchange(
        f"{step}-weights",
        to_prev=right.digests(),
        to_next=left.release(0),
        expect_prev=SEED_BYTES,
        expect_next=own.digest_bytes,
    )
    prover.take_digests(inbound.from_next)
    prover.take_weights(bytes(inbound.from_prev))
    for level in range(own.folds):
        inbound = yield from stage.exchange(
            f"{step}-matrix{level}", to_prev=prover.matrix_message(level), expect_next=after.matrix_bytes(level)
        )
        left.take_matrix(level, inbound.from_next)
        if level < own.folds - 1:
            inbound = yield from stage.exchange(
                f"{step}-coin{level}", to_next=left.release(level + 1), expect_prev=SEED_BYTES
            )
            prover.take_coin(level, bytes(inbound.from_prev))
    stage.disputes.prove(address(party), prover.statement, prover.settle)
    yield from _open_and_check(stage, (address(after.prover), address(before.prover)), (left, right), (after, before))


def _open_and_check(
    stage: ActiveStage,
    addresses: tuple[ProofAddress, ProofAddress],
    verifiers: tuple[LeftVerifier, RightVerifier],
    places: tuple[Place, Place],
) -> Steps[None]:
    (left, right), (after, before) = verifiers, places
    as_left, as_right = left.opening(), right.opening()
    # L of P_{p+1} speaks to its R, which is p - 1; R of P_{p-1} speaks to its L, which is p + 1.
    inbound = yield from stage.exchange(
        f"{addresses[0].kind}-{addresses[0].group}-opening",
        to_prev=as_left,
        to_next=as_right,
        expect_prev=after.opening_bytes,
        expect_next=before.opening_bytes,
    )
    said, heard = (as_left, as_right), (inbound.from_prev, inbound.from_next)
    for turn, (place, last_seed) in enumerate(((after, left.last_seed()), (before, right.last_seed()))):
        stage.disputes.verify(
            addresses[turn],
            (said[turn], heard[turn]),
            last_seed,
            partial(passes, place),
            {**stage.ids(), **place.ids(), "prover": stage.terms.members[place.prover]},
            shape=ProofShape(outputs=place.outputs, terms=place.terms),
        )


def _place_of(stage: ActiveStage, batch: int, group: int, prover: int, *, view: RingBatch, params: RingParams) -> Place:
    context = (*stage.terms.context(stage.name), batch, group)
    if params != RING_64:
        context = (*context, kind_of(params))
    return Place(context, prover, view.own.outputs, view.own.terms, params, members=stage.terms.members)


def proof_bytes(place: Place) -> int:
    """Return the bytes that each party sends for a batch: as prover, as L and as R."""
    as_prover = place.carry_bytes + sum(place.matrix_bytes(level) for level in range(place.folds))
    return as_prover + SEED_BYTES * place.folds + place.digest_bytes + 2 * place.opening_bytes
