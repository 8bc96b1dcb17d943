"""The three roles of recipe B, free of I/O: prover, left and right verifier of one batch (proof_ring.py has the rounds).

A role takes and gives bytes in the only order that is sound and raises PROOF_ORDER for any other. `Place` is what all three
know: lengths, streams, coins' use.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mpc_ops.errors import Abort, LocalProtocolError, PeerProtocolError
from mpc_ops.protocol.core.party import Body
from mpc_ops.protocol.proofs import ring_claim as claims
from mpc_ops.protocol.proofs.ring_claim import FactorView, Level, RingParams
from mpc_ops.randomness import SEED_BYTES, ContextItem, encode_context, expand
from mpc_ops.ring import RingArray, from_bytes, to_bytes, wide
from mpc_ops.ring.wide import Wide

__all__ = [
    "CoinSource",
    "LeftVerifier",
    "Place",
    "RightVerifier",
    "RingBatch",
    "RingProver",
    "check_length",
    "read_elements",
]

CoinSource: TypeAlias = Callable[[int], bytes]
"""Seed of a step from the verifiers' common key: 0 the weights, 1 + level the coefficients of a level; one call a step."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proof stands, known to all three parties.

    Attributes:
        context: stage address and batch number; never used for two batches.
        prover: position of the prover.
        outputs: outputs of the batch.
        terms: terms of all outputs together.
        params: rings and repetitions.
        members: operator ids by position, for errors.
    """

    context: tuple[ContextItem, ...]
    prover: int
    outputs: int
    terms: int
    params: RingParams = claims.RING_64
    members: tuple[str, str, str] = ("0", "1", "2")

    @property
    def lanes(self) -> tuple[int, ...]:
        """Lanes of every level, the last one without its random row."""
        return claims.level_lanes(self.terms)

    @property
    def folds(self) -> int:
        """Number of levels, the last one included."""
        return len(self.lanes)

    def size(self, level: int) -> int:
        """Rows of a level's matrix."""
        return self.lanes[level] + (level == self.folds - 1)

    def matrices(self, level: int) -> int:
        """Matrices of a level: the repetitions share the first one, whose coefficients they then draw apart."""
        return 1 if level == 0 else self.params.repetitions

    @property
    def carry_bytes(self) -> int:
        """Bytes of the carry message."""
        return self.outputs * self.params.carry_bytes

    def matrix_bytes(self, level: int) -> int:
        """Bytes of a matrix message."""
        return self.matrices(level) * self.size(level) ** 2 * self.params.element_bytes

    @property
    def checks(self) -> int:
        """Number of trace checks."""
        return sum(self.matrices(level) for level in range(self.folds))

    @property
    def opening_bytes(self) -> int:
        """Bytes of a verifier's last message."""
        return (2 * self.params.repetitions + self.checks) * self.params.element_bytes

    @property
    def digest_bytes(self) -> int:
        """Bytes of R's message: a digest of the weights' seed and of every level's but the last."""
        return self.folds * SEED_BYTES

    def purpose(self, name: str, level: int = 0) -> tuple[ContextItem, ...]:
        """Context of a stream; names prover, level and purpose."""
        return ("ring-proof/v1", name, self.prover, level, *self.context)

    def coin_digest(self, seed: bytes, step: int) -> bytes:
        """Return what R sends so that P can check what L releases; the seed has 256 bits, so this is no test for it."""
        return hashlib.sha256(encode_context("comity/ring-coin/v1", *self.purpose("digest", step), seed)).digest()

    def weights(self, seed: bytes) -> RingArray:
        """Return c, shape (outputs,), k - g bits each."""
        return self.params.carry(expand(seed, self.outputs, "weights"))

    def coefficients(self, seed: bytes, level: int) -> list[tuple[Wide, Wide]]:
        """Return (a, b) of every repetition; the random row's coefficient 1 is appended at the last level."""
        lanes = self.lanes[level]
        words = expand(seed, 4 * lanes * self.params.repetitions, "fold").reshape(-1, 2, lanes, 2)
        pairs = []
        for part in words:
            both = [self.params.claim(Wide(side[:, 0].copy(), side[:, 1].copy())) for side in part]
            if level == self.folds - 1:
                both = [Wide(np.append(c.low, np.uint64(1)), np.append(c.high, np.uint64(0))) for c in both]
            pairs.append((both[0], both[1]))
        return pairs

    def elements(self, key: bytes, count: int, name: str, level: int = 0) -> Wide:
        """Return pseudo-random elements of the claim ring, shape (count,)."""
        words = expand(key, 2 * count, *self.purpose(name, level)).reshape(count, 2)
        return self.params.claim(Wide(words[:, 0].copy(), words[:, 1].copy()))

    def right_matrices(self, right_key: bytes, level: int) -> list[Wide]:
        """Return R's shares of a level's matrices, from the key of prover and R."""
        size, count = self.size(level), self.matrices(level)
        flat = self.elements(right_key, count * size * size, "matrix", level)
        return _split(flat, count, size)

    def right_carries(self, right_key: bytes) -> RingArray:
        """Return R's shares of the carries."""
        return self.params.carry(expand(right_key, self.outputs, *self.purpose("carry")))

    def masks(self, key: bytes, name: str) -> list[Wide]:
        """Return the random row of every repetition."""
        flat = self.elements(key, self.params.repetitions, name)
        return [flat[rep : rep + 1] for rep in range(self.params.repetitions)]

    def ids(self) -> dict[str, object]:
        """Ids that place an error."""
        return {"check": "ring-products", "prover": self.prover}


def _split(flat: Wide, count: int, size: int) -> list[Wide]:
    cut = size * size
    return [flat[which * cut : (which + 1) * cut].reshape(size, size) for which in range(count)]


class _Side:
    """One vector (u or v) of all repetitions on its way through the levels; the last level is a column with the mask."""

    def __init__(self, place: Place, first: Level, masks: list[Wide]) -> None:
        self._place = place
        self._masks = masks
        self.levels: list[Level] = [first] * place.params.repetitions
        self.columns: list[Wide] = []

    def fold(self, level: int, coefficients: list[Wide]) -> None:
        """Go from `level` to the next one."""
        values = [claims.fold_level(part, c) for part, c in zip(self.levels, coefficients, strict=True)]
        if level + 1 == self._place.folds - 1:
            self.columns = [claims.last_level(v, mask) for v, mask in zip(values, self._masks, strict=True)]
            self.levels = []
        else:
            self.levels = [claims.next_level(v, self._place.lanes[level + 1]) for v in values]

    def opened(self, coefficients: list[Wide]) -> list[Wide]:
        """Return the masked combination of the last level, shape (1,) each."""
        return [claims.inner(c, column) for c, column in zip(coefficients, self.columns, strict=True)]


class _Shares:
    """One verifier's share of the claim: T per repetition and b per trace check."""

    def __init__(self, place: Place, claim: Wide) -> None:
        self._place = place
        self.totals = [claim] * place.params.repetitions
        self.checks: list[Wide] = []

    def take(self, level: int, matrices: list[Wide], coefficients: list[tuple[Wide, Wide]]) -> None:
        """Record b = T - trace(M) and go on with a^T M b."""
        rows, repetitions = self._place.lanes[level], self._place.params.repetitions
        totals = self.totals[: len(matrices)]
        self.checks += [wide.sub(t, claims.trace(m, rows)) for t, m in zip(totals, matrices, strict=True)]
        spread = matrices if len(matrices) == repetitions else matrices * repetitions
        self.totals = [claims.combine(a, m, b) for (a, b), m in zip(coefficients, spread, strict=True)]

    def message(self, opened: list[Wide]) -> bytes:
        """Return the last message: opened values, T', all b."""
        params = self._place.params
        return b"".join(
            wide.to_bytes(params.claim(value), params.element_bytes) for value in (*opened, *self.totals, *self.checks)
        )


@dataclass(frozen=True, slots=True)
class RingBatch:
    """What position i holds of a batch: enough for its proof, for verifying P_{i+1} as L and P_{i-1} as R.

    Attributes:
        own: component i of both factors.
        following: component i + 1.
        l_own: l_j of P_i's own proof, from the z_i it sent; shape (outputs,).
        l_next: l_j of P_{i+1}'s proof, from the z_{i+1} it received.
        r_own: zero-sharing words F(k_i).
        r_next: zero-sharing words F(k_{i+1}).
    """

    own: FactorView
    following: FactorView
    l_own: RingArray
    l_next: RingArray
    r_own: RingArray
    r_next: RingArray

    def __repr__(self) -> str:
        return f"RingBatch(outputs={self.own.outputs}, <redacted>)"


class RingProver:
    """The prover's part. Call in order: carry_message, take_weights, then per level matrix_message, take_coin."""

    def __init__(
        self,
        place: Place,
        batch: RingBatch,
        keys: tuple[bytes, bytes],
    ) -> None:
        """Take the prover's view of a batch.

        Args:
            place: where.
            batch: the prover's own view.
            keys: the prg pair keys k_i and k_{i+1}.
        """
        self._place, self._own, self._following = place, batch.own, batch.following
        self._l_part, self._r_next = batch.l_own, batch.r_next
        self._keys = keys
        self._q_left: RingArray | None = None
        self._digests: list[bytes] = []
        self._seeds: list[bytes] = []
        self._u: _Side | None = None
        self._v: _Side | None = None
        self._left_matrices: list[list[Wide]] = []
        self._ends: tuple[Wide, Wide, list[list[Wide]]] | None = None

    def carry_message(self) -> bytes:
        """Return L's shares of the carries."""
        params = self._place.params
        q = self._own.carries(self._following, self._l_part, self._r_next, params)
        self._q_left = params.carry(q - self._place.right_carries(self._keys[1]))
        if params.carry_bits == 64:
            return to_bytes(self._q_left)
        return wide.to_bytes(wide.from_words(self._q_left), params.carry_bytes)

    def take_digests(self, data: Body) -> None:
        """Keep R's digests of the coins; raises PeerProtocolError LENGTH_INVALID."""
        check_length(data, self._place.digest_bytes, self._place)
        self._digests = [bytes(data[at : at + SEED_BYTES]) for at in range(0, len(data), SEED_BYTES)]

    def _check_seed(self, seed: bytes) -> None:
        """Compare L's seed with R's digest, before anything depends on it."""
        check_length(seed, SEED_BYTES, self._place)
        step = len(self._seeds)
        if step >= len(self._digests):
            raise LocalProtocolError("PROOF_ORDER", "a coin came before the digests", ids=self._place.ids())
        if not hmac.compare_digest(self._place.coin_digest(seed, step), self._digests[step]):
            prover, members = self._place.prover, self._place.members
            raise Abort(
                "COIN_MISMATCH",
                "the two verifiers of a proof gave different coins",
                ids={**self._place.ids(), "pair": f"{members[(prover - 1) % 3]},{members[(prover + 1) % 3]}"},
            )
        self._seeds.append(seed)

    def take_weights(self, seed: bytes) -> None:
        """Check and use the weights' seed; raises Abort COIN_MISMATCH, PeerProtocolError LENGTH_INVALID."""
        if self._q_left is None:
            raise LocalProtocolError("PROOF_ORDER", "weights before the carries", ids=self._place.ids())
        self._check_seed(seed)
        c = self._place.weights(seed)
        u, v = self._own.first_left(c), self._following.first_right()
        self._u = _Side(self._place, u, self._place.masks(self._keys[0], "mask-u"))
        self._v = _Side(self._place, v, self._place.masks(self._keys[1], "mask-v"))

    def _matrices(self, level: int) -> list[Wide]:
        assert self._u is not None and self._v is not None  # noqa: S101, PT018 - callers checked the order
        if level == self._place.folds - 1:
            return [wide.outer(u, v) for u, v in zip(self._u.columns, self._v.columns, strict=True)]
        count = self._place.matrices(level)
        pairs = zip(self._u.levels[:count], self._v.levels[:count], strict=True)
        return [claims.matrix(u, v) for u, v in pairs]

    def matrix_message(self, level: int) -> bytes:
        """Return L's shares of a level's matrices."""
        if self._u is None or len(self._left_matrices) != level or len(self._seeds) != level + 1:
            raise LocalProtocolError("PROOF_ORDER", "a level out of turn", ids=self._place.ids())
        params = self._place.params
        right = self._place.right_matrices(self._keys[1], level)
        left = [params.claim(wide.sub(m, r)) for m, r in zip(self._matrices(level), right, strict=True)]
        self._left_matrices.append(left)
        return b"".join(wide.to_bytes(m, params.element_bytes) for m in left)

    def take_coin(self, level: int, seed: bytes) -> None:
        """Check the coin of a level other than the last and fold; raises Abort COIN_MISMATCH, LENGTH_INVALID."""
        if (
            self._u is None
            or self._v is None
            or len(self._left_matrices) != level + 1
            or level >= self._place.folds - 1
        ):
            raise LocalProtocolError("PROOF_ORDER", "a coin out of turn", ids=self._place.ids())
        self._check_seed(seed)
        pairs = self._place.coefficients(seed, level)
        self._u.fold(level, [a for a, _ in pairs])
        self._v.fold(level, [b for _, b in pairs])

    def settle(self) -> None:
        """The proof is in dispute: keep what `statement` needs, forget shares and keys."""
        if self._ends is not None or self._q_left is None or len(self._left_matrices) != self._place.folds:
            return
        place, params, key = self._place, self._place.params, self._keys[1]
        c = place.weights(self._seeds[0])
        left = claims.weighted_left(c, self._q_left, self._l_part, params)
        right = claims.weighted_right(c, place.right_carries(key), self._r_next, params)
        self._ends = left, right, [place.right_matrices(key, level) for level in range(place.folds)]
        self._q_left, self._keys = None, (b"", b"")
        del self._own, self._following, self._l_part, self._r_next

    def statement(self, last_seed: bytes) -> tuple[bytes, bytes]:
        """Return what L and R should have said, after a failed proof, to find who deviated (blame.verdict).

        All values are masked as they are between L and R, so stating them discloses nothing more.

        Args:
            last_seed: the last level's coin, released for blame only; both verifiers state it.
        """
        self.settle()
        if self._ends is None or not self._u or not self._v:
            raise LocalProtocolError("PROOF_ORDER", "a statement before the last level", ids=self._place.ids())
        place, (left_claim, right_claim, right_matrices) = self._place, self._ends
        left, right = _Shares(place, left_claim), _Shares(place, right_claim)
        seeds = [*self._seeds[1:], last_seed]
        pairs = []
        for level, seed in enumerate(seeds):
            pairs = place.coefficients(seed, level)
            left.take(level, self._left_matrices[level], pairs)
            right.take(level, right_matrices[level], pairs)
        return left.message(self._u.opened([a for a, _ in pairs])), right.message(self._v.opened([b for _, b in pairs]))


class LeftVerifier:
    """L = P_{i-1}: receives the prover's shares and releases the coins.

    Call in order: take_carries, release(0), then per level take_matrix and release(level + 1), at the end opening.
    """

    def __init__(self, place: Place, batch: RingBatch, shared_key: bytes, coins: CoinSource) -> None:
        """Take L's view of a batch.

        Args:
            place: where; its prover is the position after L.
            batch: L's own view, whose second components are the prover's first ones.
            shared_key: the prg pair key k_i of prover and L.
            coins: from the coin pair key k_{i+2} of L and R.
        """
        self._place, self._own, self._l_part = place, batch.following, batch.l_next
        self._shared_key, self._coins = shared_key, coins
        self._seeds: list[bytes] = []
        self._opened: list[Wide] = []
        self._side: _Side | None = None
        self._shares: _Shares | None = None
        self._taken = 0

    def _next_seed(self) -> bytes:
        self._seeds.append(self._coins(len(self._seeds)))
        return self._seeds[-1]

    def take_carries(self, data: Body) -> None:
        """Take the carry commitment; final. Raises PeerProtocolError LENGTH_INVALID, CARRY_INVALID."""
        place = self._place
        if self._shares is not None:
            raise LocalProtocolError("PROOF_ORDER", "carries twice", ids=place.ids())
        check_length(data, place.carry_bytes, place)
        q_left = _read_carries(data, place)
        c = place.weights(self._next_seed())
        self._shares = _Shares(place, claims.weighted_left(c, q_left, self._l_part, place.params))
        first = self._own.first_left(c)
        self._side = _Side(place, first, place.masks(self._shared_key, "mask-u"))

    def release(self, step: int) -> bytes:
        """Return the seed of a step to send to the prover: only once FLUSHED of all and the step's message are here.

        The order of messages is checked here, the FLUSHED of all three by ActiveStage.coin.
        """
        if self._shares is None or self._taken != step or step >= self._place.folds:
            raise LocalProtocolError("PROOF_ORDER", "a coin may not be released yet", ids=self._place.ids())
        return self._seeds[step]

    def take_matrix(self, level: int, data: Body) -> None:
        """Take L's share of a level's matrices; raises PeerProtocolError LENGTH_INVALID, ELEMENT_INVALID."""
        place = self._place
        if self._shares is None or self._side is None or self._taken != level:
            raise LocalProtocolError("PROOF_ORDER", "a level out of turn", ids=place.ids())
        check_length(data, place.matrix_bytes(level), place)
        flat = read_elements(data, place)
        self._taken += 1
        pairs = place.coefficients(self._next_seed(), level)
        self._shares.take(level, _split(flat, place.matrices(level), place.size(level)), pairs)
        if level < place.folds - 1:
            self._side.fold(level, [a for a, _ in pairs])
        else:
            self._opened = self._side.opened([a for a, _ in pairs])

    def opening(self) -> bytes:
        """Return the message to R: a^T u, T'_L, all b_L."""
        if self._taken != self._place.folds or self._shares is None:
            raise LocalProtocolError("PROOF_ORDER", "an opening before the last level", ids=self._place.ids())
        return self._shares.message(self._opened)

    def last_seed(self) -> bytes:
        """Return the last level's coin: released to the prover only after the proof has failed, to find who deviated."""
        if self._taken != self._place.folds:
            raise LocalProtocolError("PROOF_ORDER", "the last coin before the last level", ids=self._place.ids())
        return self._seeds[-1]


class RightVerifier:
    """R = P_{i+1}: needs no message of the prover; its shares come from the key it has in common with the prover."""

    def __init__(self, place: Place, batch: RingBatch, shared_key: bytes, coins: CoinSource) -> None:
        """Take R's view of a batch.

        Args:
            place: where; its prover is the position before R.
            batch: R's own view, whose first components are the prover's second ones.
            shared_key: the prg pair key k_{i+1} of prover and R.
            coins: from the coin pair key k_{i+2} of L and R.
        """
        self._place, self._following, self._r_next = place, batch.own, batch.r_own
        self._shared_key, self._coins = shared_key, coins
        self._seeds: list[bytes] = []

    def digests(self) -> bytes:
        """Return the digests of all coins that the prover will see, for the prover; only after R's own FLUSH."""
        place = self._place
        self._seeds = [self._coins(step) for step in range(place.folds)]
        return b"".join(place.coin_digest(seed, step) for step, seed in enumerate(self._seeds))

    def opening(self) -> bytes:
        """Return the message to L: b^T v, T'_R, all b_R. Runs all levels at once; keeps nothing."""
        place = self._place
        if len(self._seeds) != place.folds:
            raise LocalProtocolError("PROOF_ORDER", "an opening before the digests", ids=place.ids())
        self._seeds.append(self._coins(place.folds))
        c = place.weights(self._seeds[0])
        q_right = place.right_carries(self._shared_key)
        shares = _Shares(place, claims.weighted_right(c, q_right, self._r_next, place.params))
        first = self._following.first_right()
        side = _Side(place, first, place.masks(self._shared_key, "mask-v"))
        opened: list[Wide] = []
        for level in range(place.folds):
            pairs = place.coefficients(self._seeds[level + 1], level)
            shares.take(level, place.right_matrices(self._shared_key, level), pairs)
            if level < place.folds - 1:
                side.fold(level, [b for _, b in pairs])
            else:
                opened = side.opened([b for _, b in pairs])
        return shares.message(opened)

    def last_seed(self) -> bytes:
        """Return the last level's coin, which it has in common with L; for the search after a failed proof."""
        if len(self._seeds) != self._place.folds + 1:
            raise LocalProtocolError("PROOF_ORDER", "the last coin before the opening", ids=self._place.ids())
        return self._seeds[-1]


def check_length(data: Body, expected: int, place: Place) -> None:
    """Raise PeerProtocolError LENGTH_INVALID unless a message has its length."""
    if len(data) != expected:
        raise PeerProtocolError(
            "LENGTH_INVALID",
            "wrong number of bytes in a proof",
            expected=f"{expected} bytes",
            got=f"{len(data)} bytes",
            ids=place.ids(),
        )


def read_elements(data: Body, place: Place) -> Wide:
    """Read elements of the claim ring; raises PeerProtocolError ELEMENT_INVALID for one outside of it."""
    size = place.params.element_bytes
    values = wide.from_bytes(data, len(data) // size, size)
    if not wide.equal(values, place.params.claim(values)):
        raise PeerProtocolError("ELEMENT_INVALID", "an element outside its ring", ids=place.ids())
    return values


def _read_carries(data: Body, place: Place) -> RingArray:
    if place.params.carry_bits == 64:
        return from_bytes(data, place.outputs)
    values = wide.from_bytes(data, place.outputs, place.params.carry_bytes).low
    if not np.array_equal(values, place.params.carry(values)):
        raise PeerProtocolError("ELEMENT_INVALID", "an element outside its ring", ids=place.ids())
    return values
