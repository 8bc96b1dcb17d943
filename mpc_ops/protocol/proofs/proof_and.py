"""Recipe A: a distributed zero-knowledge proof that logged AND gates are right, for three provers in parallel.

Prover i = P_i, left verifier L = P_{i-1} (knows component i), right verifier R = P_{i+1} (knows component i+1). With
e_L = x_i & y_i ^ z_i ^ r_i and e_R = r_{i+1}, a gate is right iff E = (x_i & y_{i+1}) ^ (y_i & x_{i+1}) ^ e_L ^ e_R is 0, and
(-1)^E is an inner product <u, v> of four terms, u known to P_i and L, v to P_i and R. Statement for m gates: the sum of all
<u, v> is m. A batch with c wrong gates gives m - 2 c, so no random weights are needed.

```
each level   P_i -> L        R_L = R - R_R, where R[d] = sum over lanes a - b = d; R_R = PRG(k_{i+1})
             L -> P_i        coin seed, only after FLUSHED from both others and the complete R_L
             R -> P_i        SHA-256 of the same seed; P_i goes on only if they match (a privacy check)
             all             u' = sum rho^a u_a, v' = sum rho^-b v_b; new claim R(rho), shares R_L(rho) + R_R(rho)
last level   P_i -> L        the same with masks p = PRG(k_i) at X^m' and q = PRG(k_{i+1}) at X^-2m'; its coin is not sent
exchange     L <-> R         P(rho), R_L(rho), b_L  |  Q(1/rho), R_R(rho), b_R, where b = claim - R[0] of every level
check        both            b_L + b_R = 0 at every level, and P(rho) Q(1/rho) = R_L(rho) + R_R(rho)
```
Levels: 64 lanes of words, then 8, then 16 lanes until at most 512 elements are left (`BlockLayout`).

Rounds: 2 (levels - 1) + 2, the first shared with FLUSH, where `levels` counts the last. Bytes per party and batch:
8 (sum of (2 lanes - 1) + 3 m' + 1) + 64 (levels - 1) + 16 (2 + levels).

Security: malicious with abort, one corrupt party. A prover with a wrong gate is accepted with probability at most
1 - prod(1 - D_l / (p - 1)) with D_l = 2 lanes - 2 and 3 m' at the end: below 2^-49 per batch at p = 2^61 - 1. The verifiers see
uniform values. Leakage: number of gates. See docs/soundness.md.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as data
from functools import partial
from typing import ClassVar, TypeAlias

import numpy as np

from mpc_ops.errors import Abort, LocalProtocolError, PeerProtocolError
from mpc_ops.protocol.core.blame import Fits, ProofAddress, ProofShape
from mpc_ops.protocol.core.party import Body, Steps
from mpc_ops.protocol.core.stage import ActiveStage, GateLog
from mpc_ops.protocol.proofs.and_kernels import (
    PUBLIC_LAYOUT,
    BlockLayout,
    Components,
    GatePile,
    Side,
)
from mpc_ops.protocol.proofs.and_vector import GateVector, cross_level
from mpc_ops.randomness import ContextItem, encode_context, expand
from mpc_ops.ring import RingArray, check_ring, from_bytes
from mpc_ops.ring.field61 import FIELD_61, FieldArray, PrimeField

__all__ = [
    "AndLog",
    "AndProof",
    "AndProver",
    "FinalValues",
    "LeftVerifier",
    "RightVerifier",
    "proof_bytes",
    "proof_rounds",
    "public_check",
    "values_fit",
]

_WORD_BYTES = 8
_LOGGED_BYTES = 64
_SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class AndProof:
    """Where one proof stands; known to all three parties.

    Attributes:
        context: session, stage, kind and batch.
        prover: position of the prover.
        words: gate words of the batch, padding included.
        layout: how they are folded.
        field: the field; only tests use another than 2^61 - 1.
    """

    context: tuple[ContextItem, ...]
    prover: int
    words: int
    layout: BlockLayout = PUBLIC_LAYOUT
    field: PrimeField = FIELD_61
    _levels: tuple[tuple[int, ...], int] = data(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_levels", self.layout.levels(self.words))

    @property
    def lanes(self) -> tuple[int, ...]:
        """Lanes of every level before the last."""
        return self._levels[0]

    @property
    def last(self) -> int:
        """Elements of the last level, without its mask."""
        return self._levels[1]

    @property
    def levels(self) -> int:
        """Number of levels, the last included."""
        return len(self.lanes) + 1

    @property
    def gates(self) -> int:
        """Number of gates, padding included: the statement's m."""
        return 64 * self.words

    def degrees(self, level: int) -> tuple[int, int]:
        """Return (lowest degree, number of coefficients) of a level's R."""
        if level == self.levels - 1:
            return -2 * self.last, 3 * self.last + 1
        return -(self.lanes[level] - 1), 2 * self.lanes[level] - 1

    def vector(self, gates: Side, *, right: bool) -> GateVector:
        """Return a side's vector at level 0."""
        return GateVector(gates, self.lanes, self.layout, self.field, right=right)

    def stream(self, key: bytes, purpose: str, level: int, count: int) -> FieldArray:
        """Return `count` field elements of a pair's stream."""
        words = expand(key, 2 * count, *self.context, "proof", self.prover, level, purpose)
        return self.field.uniform(words)

    def challenge(self, seed: bytes) -> int:
        """Return rho in [1, p) of a coin seed."""
        low, high = (int(word) for word in expand(seed, 2, "rho"))
        return 1 + (low + (high << 64)) % (self.field.p - 1)

    def check(self, level: int, seed: bytes) -> bytes:
        """Return R's digest of a coin seed; the seed has 256 random bits, so it cannot be searched."""
        body = encode_context("comity/coin-check/v1", *self.context, self.prover, level, seed)
        return hashlib.sha256(body).digest()


@dataclass(frozen=True, slots=True)
class FinalValues:
    """What a verifier says in the exchange: its side at rho, its share of the claim at rho, its b of every level."""

    side: int
    claim: int
    differences: tuple[int, ...]

    def elements(self) -> list[int]:
        """Return them in the order in which they travel."""
        return [self.side, self.claim, *self.differences]

    def __repr__(self) -> str:
        return f"FinalValues({len(self.differences)} levels, <redacted>)"


class _Claim:
    """One share of the claim: t, and b = t - R[0] of every level."""

    def __init__(self, proof: AndProof, start: int) -> None:
        self.proof, self.value = proof, start % proof.field.p
        self.differences: list[int] = []
        self._share: FieldArray = np.zeros(0, dtype=np.uint64)

    def take(self, level: int, share: FieldArray) -> None:
        """Take a level's share of R."""
        lowest, _ = self.proof.degrees(level)
        self._share = share
        self.differences.append((self.value - int(share[-lowest])) % self.proof.field.p)

    def move(self, level: int, rho: int) -> None:
        """Replace the claim by the share of R(rho)."""
        self.value = self.proof.field.evaluate(self._share, self.proof.degrees(level)[0], rho)


class AndProver:
    """The prover's part. Order: `message()`, then per level `fold(seed)` and `message()`; the last level has no coin."""

    def __init__(self, proof: AndProof, left: Side, right: Side, keys: tuple[bytes, bytes]) -> None:
        """Begin; `keys` are the PRG keys of components i (shared with L) and i + 1 (shared with R)."""
        self.proof, self.level = proof, 0
        self._keys = keys
        self._u, self._v = proof.vector(left, right=False), proof.vector(right, right=True)
        self._claims = _Claim(proof, proof.gates), _Claim(proof, 0)
        self._masks = (0, 0)

    def coefficients(self) -> list[int]:
        """Return this level's R in the clear."""
        return self._last() if self.level == self.proof.levels - 1 else cross_level(self._u, self._v)

    def _last(self) -> list[int]:
        """Return the product of P(X) and Q(1/X) with their masks: degrees -2 m' to m'."""
        proof = self.proof
        left_mask = proof.stream(self._keys[0], "mask", self.level, 1)
        right_mask = proof.stream(self._keys[1], "mask", self.level, 1)
        self._masks = int(left_mask[0]), int(right_mask[0])
        forward = np.concatenate([self._u.elements, left_mask])
        # The mask of Q stands at degree -2 m', apart from the others: its products come before all theirs.
        low = proof.field.mul(forward, right_mask)
        high = proof.field.convolve(forward, np.ascontiguousarray(self._v.elements[::-1]))
        whole: list[int] = np.concatenate([low, high]).tolist()
        return whole

    def message(self) -> bytes:
        """Return R_L for L: 8 bytes per coefficient."""
        proof, field = self.proof, self.proof.field
        whole = np.array(self.coefficients(), dtype=np.uint64)
        right = proof.stream(self._keys[1], "share", self.level, len(whole))
        left = field.sub(whole, right)
        self._claims[0].take(self.level, left)
        self._claims[1].take(self.level, right)
        return _encode(left)

    def fold(self, seed: bytes) -> None:
        """Take the coin of this level, which both verifiers vouch for."""
        rho = self.proof.challenge(seed)
        for claim in self._claims:
            claim.move(self.level, rho)
        self._u.fold(rho)
        self._v.fold(rho)
        self.level += 1

    def settle(self) -> None:
        """The proof is in dispute: keep what `statement` needs, forget the keys; the gates were folded away."""
        self._keys = (b"", b"")

    def statement(self, seed: bytes) -> tuple[FinalValues, FinalValues]:
        """Return what L and R should have said in the exchange, for blame after a failed check (all values are masked)."""
        rho = self.proof.challenge(seed)
        out = []
        for vector, claim, mask in zip((self._u, self._v), self._claims, self._masks, strict=True):
            claim.move(self.level, rho)
            out.append(FinalValues(vector.at(rho, mask), claim.value, tuple(claim.differences)))
        return out[0], out[1]


class _Verifier:
    def __init__(self, proof: AndProof, gates: Side, key: bytes, *, right: bool) -> None:
        self.proof, self.level, self._key = proof, 0, key
        self._vector = proof.vector(gates, right=right)
        self._claim = _Claim(proof, 0 if right else proof.gates)

    def fold(self, seed: bytes) -> None:
        """Fold the own side and the own share of the claim with this level's coin."""
        rho = self.proof.challenge(seed)
        self._claim.move(self.level, rho)
        self._vector.fold(rho)
        self.level += 1

    def final(self, seed: bytes) -> FinalValues:
        """Return what this verifier says in the exchange, from the last level's coin."""
        rho = self.proof.challenge(seed)
        mask = self.proof.stream(self._key, "mask", self.level, 1)
        self._claim.move(self.level, rho)
        return FinalValues(self._vector.at(rho, int(mask[0])), self._claim.value, tuple(self._claim.differences))


class LeftVerifier(_Verifier):
    """L = P_{i-1}. Order: per level `take(R_L)`, release the coin, `fold`; at the last level `take`, `final`."""

    def __init__(self, proof: AndProof, gates: Side, key: bytes) -> None:
        """Begin; `key` is the PRG key of component i."""
        super().__init__(proof, gates, key, right=False)

    def take(self, message: Body, ids: dict[str, object] | None = None) -> None:
        """Take the prover's R_L; raises PeerProtocolError LENGTH_INVALID, FIELD_RANGE."""
        count = self.proof.degrees(self.level)[1]
        self._claim.take(self.level, _decode(message, count, self.proof.field, ids or {}))


class RightVerifier(_Verifier):
    """R = P_{i+1}. Order: per level `take()`, send the coin's digest, `fold`; at the last level `take`, `final`."""

    def __init__(self, proof: AndProof, gates: Side, key: bytes) -> None:
        """Begin; `key` is the PRG key of component i + 1."""
        super().__init__(proof, gates, key, right=True)

    def take(self) -> None:
        """Draw the own share R_R of this level."""
        count = self.proof.degrees(self.level)[1]
        self._claim.take(self.level, self.proof.stream(self._key, "share", self.level, count))


def values_fit(left: FinalValues, right: FinalValues, field: PrimeField) -> bool:
    """Return whether the two verifiers' values pass both checks."""
    fits = len(left.differences) == len(right.differences)
    fits &= all((one + other) % field.p == 0 for one, other in zip(left.differences, right.differences, strict=False))
    return fits and (left.side * right.side - left.claim - right.claim) % field.p == 0


def proof_rounds(words: int, layout: BlockLayout = PUBLIC_LAYOUT) -> int:
    """Return the rounds of a batch of that many gate words, FLUSH included and ACCEPT not."""
    return 2 * len(layout.levels(words)[0]) + 2


def proof_bytes(words: int, layout: BlockLayout = PUBLIC_LAYOUT) -> int:
    """Return the bytes that each party sends for the proofs of a batch, without FLUSH and ACCEPT."""
    lanes, last = layout.levels(words)
    coefficients = sum(2 * step - 1 for step in lanes) + 3 * last + 1
    return _WORD_BYTES * coefficients + 2 * _SEED_BYTES * len(lanes) + 2 * _WORD_BYTES * (3 + len(lanes))


def _encode(values: FieldArray | Sequence[int]) -> bytes:
    return np.asarray(values, dtype="<u8").tobytes()


def _decode(message: Body, count: int, field: PrimeField, ids: dict[str, object]) -> FieldArray:
    """Return field elements; anything not in its one canonical form is refused."""
    values = from_bytes(message, count)
    if bool(np.any(values >= np.uint64(field.p))):
        raise PeerProtocolError("FIELD_RANGE", "a field element is not in canonical form", ids=ids)
    return values


def _read_final(message: Body, proof: AndProof, ids: dict[str, object]) -> FinalValues:
    side, claim, *differences = _decode(message, 2 + proof.levels, proof.field, ids).tolist()
    return FinalValues(side, claim, tuple(differences))


def _pass(proof: AndProof, left: bytes, right: bytes) -> bool:
    return values_fit(_read_final(left, proof, {}), _read_final(right, proof, {}), proof.field)


def public_check(shape: ProofShape) -> Fits:
    """Return the check of a proof from its shape alone, for whoever repeats it after a dispute (blame.verdict).

    Raises:
        LocalProtocolError: RING_LENGTH if there is no batch of such a shape. The check: PeerProtocolError as a verifier's.
    """
    if shape.words < 1 or AndLog.layout.padded(shape.words) != shape.words or shape.outputs or shape.terms:
        raise LocalProtocolError("RING_LENGTH", "no batch of AND gates has this shape", got=repr(shape))
    return partial(_pass, AndProof((), 0, shape.words, AndLog.layout))


def _answer(prover: AndProver, coin: bytes) -> tuple[bytes, bytes]:
    left, right = prover.statement(coin)
    return _encode(left.elements()), _encode(right.elements())


_Part: TypeAlias = tuple[Components, Components, Components, Components, slice]
"""Inputs, output and masks of gates, and which of their words."""


class AndLog(GateLog):
    """AND gates of a stage, 64 a word, and their proofs."""

    kind: ClassVar[str] = "and"
    layout: ClassVar[BlockLayout] = PUBLIC_LAYOUT

    def __init__(self, stage: ActiveStage) -> None:
        super().__init__(stage)
        self._piles: list[GatePile | list[_Part]] = []
        self._sizes: list[int] = []
        self._words = 0

    @property
    def pending_bytes(self) -> int:
        """64 bytes per gate word: one byte per gate."""
        return self._words * _LOGGED_BYTES

    def add(self, x: tuple[RingArray, RingArray], y: tuple[RingArray, RingArray], z: tuple[RingArray, RingArray],
            r: tuple[RingArray, RingArray]) -> None:  # fmt: skip
        """Log gate words: both components of the inputs, of the output and of the masks; none of them is changed afterwards.

        A pile is a batch: parts of at most the limit, as many as fit it, so that batches end where the plan's order says. They are
        copied when they are proven, or by `keep`.

        Raises:
            LocalProtocolError: STAGE_ORDER behind the barrier; RING_LENGTH.
        """
        self.stage.computing()
        words = len(check_ring(x[0]))
        for vector in (*x, *y, *z, *r):
            check_ring(vector, words)
        most = self._most
        for at in range(0, words, most):
            part = slice(at, min(at + most, words))
            size = part.stop - at
            if not self._piles or self._sizes[-1] + size > most:
                self._piles.append([])
                self._sizes.append(0)
            last = self._piles[-1]
            if isinstance(last, GatePile):
                last.add(x, y, z, r, part)
            else:
                last.append((x, y, z, r, part))
            self._sizes[-1] += size
        self._words += words

    @property
    def _most(self) -> int:
        return max(1, self.stage.terms.limit_bytes // _LOGGED_BYTES)

    def keep(self) -> None:
        """Copy what has been logged and is not proven yet, so that operands can be let go."""
        for place, found in enumerate(self._piles):
            if isinstance(found, list):
                self._piles[place] = self._pile(found, self._sizes[place])

    def _pile(self, parts: Sequence[_Part], words: int) -> GatePile:
        pile = GatePile(self.layout, self._most, room=words)
        for part in parts:
            pile.add(*part)
        return pile

    def _roles(self, batch: int) -> tuple[AndProver, LeftVerifier, RightVerifier]:
        """Take the oldest pile and return the own three parts in its proofs."""
        oldest, size = self._piles.pop(0), self._sizes.pop(0)
        pile = oldest if isinstance(oldest, GatePile) else self._pile(oldest, size)
        del oldest
        self._words -= pile.words
        stage, keys = self.stage, self.stage.keys
        context = (*stage.terms.context(stage.name), self.kind, batch)
        words = self.layout.padded(pile.words)
        proofs = [AndProof(context, (stage.party + turn) % 3, words, self.layout) for turn in range(3)]
        left_of_own, as_right, as_left, right_of_own = pile.sides()
        return (
            self.make_prover(proofs[0], left_of_own, right_of_own),
            LeftVerifier(proofs[1], as_left, keys.second.prg),
            RightVerifier(proofs[2], as_right, keys.first.prg),
        )

    def prove(self, batch: int) -> Steps[None]:
        """Prove the next batch and verify both neighbours; see the module for rounds, bytes and security.

        Raises:
            Abort: PROOF_REJECTED naming the prover's position; COIN_MISMATCH naming the pair of verifiers.
            PeerProtocolError: FIELD_RANGE, LENGTH_INVALID.
        """
        prover, left, right = self._roles(batch)
        stage, levels = self.stage, prover.proof.levels
        for level in range(levels):
            if level:
                yield from self._coins(batch, level - 1, prover, left, right)
            yield from self._shares(batch, level, prover, left)
            right.take()
        stage.disputes.prove(self._address(batch, stage.party), partial(_answer, prover), prover.settle)
        yield from self._exchange(batch, left, right)

    def make_prover(self, proof: AndProof, left: Side, right: Side) -> AndProver:
        """Return the own prover."""
        keys = self.stage.keys
        return AndProver(proof, left, right, (keys.first.prg, keys.second.prg))

    def _shares(self, batch: int, level: int, prover: AndProver, left: LeftVerifier) -> Steps[None]:
        """Send the own R_L to L and take that of the next party."""
        step, count = f"and{batch}/share{level}", prover.proof.degrees(level)[1]
        inbound = yield from self.stage.exchange(step, to_prev=prover.message(), expect_next=_WORD_BYTES * count)
        left.take(inbound.from_next, self._peer(self.stage.party + 1))

    def _coins(
        self, batch: int, level: int, prover: AndProver, left: LeftVerifier, right: RightVerifier
    ) -> Steps[None]:
        """Release the coin to the next party, its digest to the previous one; go on only if the own two match."""
        stage = self.stage
        released = stage.coin(batch, self.kind, left.proof.prover, str(level))
        vouched = stage.coin(batch, self.kind, right.proof.prover, str(level))
        inbound = yield from stage.exchange(
            f"and{batch}/coin{level}",
            to_next=released,
            to_prev=right.proof.check(level, vouched),
            expect_prev=_SEED_BYTES,
            expect_next=_SEED_BYTES,
        )
        coin = bytes(inbound.from_prev)
        if not hmac.compare_digest(prover.proof.check(level, coin), inbound.from_next):
            raise Abort(
                "COIN_MISMATCH",
                "the two verifiers gave different coins",
                ids={
                    **stage.ids(),
                    "batch": batch,
                    "level": level,
                    "pair": stage.pair(stage.party - 1, stage.party + 1),
                },
                hint="One of the two altered it; the prover has said nothing about the next level",
            )
        prover.fold(coin)
        left.fold(released)
        right.fold(vouched)

    def _exchange(self, batch: int, left: LeftVerifier, right: RightVerifier) -> Steps[None]:
        """Compare with the other verifier of each neighbour's proof: that of the next party's is the previous party."""
        stage, last = self.stage, left.proof.levels - 1
        coins = [stage.coin(batch, self.kind, verifier.proof.prover, str(last)) for verifier in (left, right)]
        said = [_encode(verifier.final(coin).elements()) for verifier, coin in zip((left, right), coins, strict=True)]
        size = _WORD_BYTES * (3 + last)
        inbound = yield from stage.exchange(
            f"and{batch}/exchange", to_prev=said[0], to_next=said[1], expect_prev=size, expect_next=size
        )
        heard = inbound.from_prev, inbound.from_next
        for turn, proof in enumerate((left.proof, right.proof)):
            _read_final(heard[turn], proof, self._peer(stage.party + 2 * turn - 1))
            stage.disputes.verify(
                self._address(batch, proof.prover),
                (said[turn], heard[turn]),
                coins[turn],
                partial(_pass, proof),
                {**stage.ids(), "batch": batch, "prover": stage.terms.members[proof.prover]},
                shape=ProofShape(words=proof.words),
            )

    def _address(self, batch: int, prover: int) -> ProofAddress:
        return ProofAddress(self.stage.name, batch, self.kind, 0, prover)

    def _peer(self, party: int) -> dict[str, object]:
        return {**self.stage.ids(), "peer": self.stage.terms.members[party % 3]}

    def wipe(self) -> None:
        """Forget all gates."""
        self._piles.clear()
        self._sizes.clear()
        self._words = 0
