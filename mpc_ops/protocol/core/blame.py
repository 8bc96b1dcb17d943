"""Who deviated, after a failed proof: statements of the three parties, and the verdict anyone can draw from them.

A proof that fails at a verifier does not show that its prover cheated: a verifier can lie too. So both verifiers state what
they said to each other, what they heard, and the last coin; the prover states what both should have said. All of these
values are masked as they are between the verifiers, so no input is disclosed (Boyle et al. CCS'19; protocols.md 7 of the
design). The statements are signed by the layer above; the verdict follows from them alone:

    the verifiers gave different coins or sizes, or one heard other than the other said   the pair of verifiers
    the prover's account differs from what L said                                         the pair of prover and L
    the prover's account differs from what R said                                         the pair of prover and R
    all agree and the check fails                                                         the prover
    all agree and the check holds                                                         who claimed that it failed
    a statement is missing                                                                nobody: withholding is not proof
    a party signed two statements that differ                                             that party: it states once

A pair means that one of the two lies and that it cannot be told which. Comparing fewer values would let a lying verifier
frame an honest prover.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mpc_ops.errors import LocalProtocolError, ProofRejected
from mpc_ops.protocol.core.party import Body

__all__ = ["Account", "Claim", "DisputeBook", "ProofAddress", "ProofShape", "Verdict", "equivocal", "verdict"]

Fits: TypeAlias = Callable[[bytes, bytes], bool]
"""Whether L's and R's values pass the proof's checks."""


@dataclass(frozen=True, slots=True, order=True)
class ProofAddress:
    """Which proof of a session: the stage, its batch, the kind of gates, the part of the batch, and the prover."""

    stage: str
    batch: int
    kind: str
    group: int
    prover: int


@dataclass(frozen=True, slots=True)
class ProofShape:
    """What the plan's order fixes of a proof: all that repeating its check needs beside what the verifiers said.

    Attributes:
        words: gate words of an AND batch, padding included; 0 for ring products.
        outputs: outputs of a batch of ring products, 0 for AND gates.
        terms: terms of all its outputs together.
    """

    words: int = 0
    outputs: int = 0
    terms: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A verifier's statement.

    Attributes:
        address: which proof.
        verifier: own position; L is `prover - 1`, R is `prover + 1`.
        said: what it said to the other verifier.
        heard: what it heard from the other verifier.
        coin: seed of the last level's coin.
        rejects: whether the check failed here.
        shape: of the proof.
    """

    address: ProofAddress
    verifier: int
    said: bytes
    heard: bytes
    coin: bytes
    rejects: bool
    shape: ProofShape = ProofShape()

    def __repr__(self) -> str:
        return f"Claim({self.address}, verifier={self.verifier}, rejects={self.rejects}, <redacted>)"


@dataclass(frozen=True, slots=True)
class Account:
    """The prover's statement: what L and R should have said."""

    address: ProofAddress
    left: bytes
    right: bytes

    def __repr__(self) -> str:
        return f"Account({self.address}, <redacted>)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Positions that a dispute points at: one is proven to have deviated; of two, one has; none if it cannot be said."""

    parties: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class _Seen:
    claim: Claim
    fits: Fits


class DisputeBook:
    """What one party can state about the proofs of its session; kept until the session is over or a dispute is settled."""

    def __init__(self, party: int, together: int = 1) -> None:
        """Begin; `together` is how many batches a stage proves side by side at most."""
        self._party, self._together = party, together
        self._answers: dict[ProofAddress, tuple[Callable[[bytes], tuple[bytes, bytes]], Callable[[], None]]] = {}
        self._seen: dict[ProofAddress, _Seen] = {}
        self._stated: dict[ProofAddress, bytes] = {}

    def prove(
        self, address: ProofAddress, answer: Callable[[bytes], tuple[bytes, bytes]], settle: Callable[[], None]
    ) -> None:
        """Note how the own proof answers, given the last coin.

        A peer is at most one group of batches behind. So those of the group before keep what answering needs and no more,
        and older ones are forgotten.

        Args:
            address: which proof.
            answer: what L and R should have said.
            settle: lets the proof forget all that answering does not need.
        """
        kept: dict[ProofAddress, tuple[Callable[[bytes], tuple[bytes, bytes]], Callable[[], None]]] = {}
        for known, how in self._answers.items():
            if known.batch > address.batch - 2 * self._together:
                kept[known] = how
            if known.batch <= address.batch - self._together:
                how[1]()
        self._answers = {**kept, address: (answer, settle)}

    def settle(self) -> None:
        """A proof failed and the session is over: keep only what the own proofs need to answer, no share and no key."""
        for _, settle in self._answers.values():
            settle()

    def verify(
        self,
        address: ProofAddress,
        exchange: tuple[Body, Body],
        coin: bytes,
        fits: Fits,
        ids: dict[str, object],
        *,
        shape: ProofShape,
    ) -> None:
        """Note what was said and heard about a neighbour's proof, and judge it.

        Args:
            address: which proof.
            exchange: (said, heard).
            coin: seed of the last level's coin.
            fits: the check, given L's values and R's.
            ids: ids that place an error.
            shape: what the plan fixes of the proof.

        Raises:
            ProofRejected: it does not hold.
        """
        own, other = map(bytes, exchange)
        left = self._party == (address.prover - 1) % 3
        holds = fits(own, other) if left else fits(other, own)
        claim = Claim(address, self._party, own, other, coin, not holds, shape)
        self._seen[address] = _Seen(claim, fits)
        if not holds:
            error = ProofRejected(
                "PROOF_REJECTED",
                f"a proof of {address.kind} gates does not hold",
                ids=ids,
                hint="The prover or one of its verifiers deviated; nothing was opened",
            )
            error.address = address
            raise error

    def claim(self, address: ProofAddress) -> Claim:
        """Return the own statement as a verifier; raises LocalProtocolError PROOF_ORDER if there is none yet."""
        return self._one(address).claim

    @property
    def rejected(self) -> tuple[ProofAddress, ...]:
        """Return the proofs that failed here."""
        return tuple(address for address, seen in self._seen.items() if seen.claim.rejects)

    def account(self, address: ProofAddress, claims: Mapping[int, Claim]) -> Account:
        """Return the own statement as the prover, for the coin that both verifiers state.

        A second coin for the same proof would give a verifier a linear function of the secrets, so nothing is stated unless
        both claims name one coin, nor ever for another one.

        Raises:
            LocalProtocolError: PROOF_ORDER if that proof is not the own one, has not reached its end, is older than the last
                batch, or the claims are not two of one coin of which one rejects.
        """
        answer = self._answers.get(address)
        both = [claims.get((address.prover + step) % 3) for step in (-1, 1)]
        known = [claim for claim in both if claim is not None and claim.address == address]
        if answer is None or address.prover != self._party or len(known) != 2 or not any(one.rejects for one in known):
            raise _unknown(address)
        coin = known[0].coin
        if not _same(coin, known[1].coin) or not _same(coin, self._stated.setdefault(address, coin)):
            raise _unknown(address)
        left, right = answer[0](coin)
        return Account(address, left, right)

    def judge(self, address: ProofAddress, claims: Mapping[int, Claim], account: Account | None) -> Verdict:
        """Return the verdict of a dispute about a proof that this party verified."""
        return verdict(address, claims, account, self._one(address).fits)

    def wipe(self) -> None:
        """Forget everything."""
        self._answers.clear()
        self._seen.clear()
        self._stated.clear()

    def _one(self, address: ProofAddress) -> _Seen:
        found = self._seen.get(address)
        if found is None:
            raise _unknown(address)
        return found

    def __repr__(self) -> str:
        return f"DisputeBook({len(self._answers)} own proofs, {len(self._seen)} verified)"


def _unknown(address: ProofAddress) -> LocalProtocolError:
    return LocalProtocolError(
        "PROOF_ORDER", "a statement about a proof that this party has not seen", ids={"stage": address.stage}
    )


def verdict(address: ProofAddress, claims: Mapping[int, Claim], account: Account | None, fits: Fits) -> Verdict:
    """Return whom the statements point at; see the module for the rules.

    Args:
        address: the proof in dispute.
        claims: the verifiers' statements by position.
        account: the prover's.
        fits: the proof's public check.
    """
    prover, left, right = address.prover, (address.prover - 1) % 3, (address.prover + 1) % 3
    one, other = claims.get(left), claims.get(right)
    statements = [statement for statement in (one, other, account) if statement is not None]
    if one is None or other is None or account is None or any(item.address != address for item in statements):
        return Verdict((), "a statement is missing")
    if (one.verifier, other.verifier) != (left, right):
        return Verdict((), "a statement is missing")
    if not _same(one.coin, other.coin):
        return Verdict((left, right), "the verifiers gave different coins")
    if one.shape != other.shape:
        return Verdict((left, right), "the verifiers gave different sizes of the proof")
    if not _same(one.said, other.heard) or not _same(other.said, one.heard):
        return Verdict((left, right), "one verifier heard another thing than the other said")
    if not _same(account.left, one.said):
        return Verdict((prover, left), "the prover's account differs from what its left verifier said")
    if not _same(account.right, other.said):
        return Verdict((prover, right), "the prover's account differs from what its right verifier said")
    if not fits(one.said, other.said):
        return Verdict((prover,), "all statements agree and the proof does not hold")
    accusers = tuple(claim.verifier for claim in (one, other) if claim.rejects)
    return Verdict(accusers, "the proof holds, and its rejection was claimed")


def equivocal(party: int) -> Verdict:
    """Return the verdict where a party signed two different statements of the same kind about one proof."""
    return Verdict((party,), "it signed two statements that differ")


def _same(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)
