"""From signed `dispute` notices to the verdict that anyone can repeat, without a share, a key or a running operator.

The rules stand in mpc_ops.protocol.core.blame; the check is the proofs' own, rebuilt from the size that both verifiers state. A
verdict rests on three notices of one proof: both verifiers' claims and the prover's account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mpc_ops.errors import EvidenceError, LocalProtocolError, PeerProtocolError
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.model import DisputeNotice
from mpc_ops.notices.signed import SignedNotice, verify_notice
from mpc_ops.protocol.core.blame import Account, Claim, Fits, ProofAddress, ProofShape, Verdict, equivocal, verdict
from mpc_ops.protocol.proofs import proof_and, proof_ring

__all__ = ["Proof", "Settled", "account_of", "address_of", "claim_of", "proof_of", "settle", "statement_of"]


@dataclass(frozen=True, slots=True)
class Proof:
    """One proof of a run: session, attempt and address in it."""

    run: str
    cluster: str
    attempt: int
    address: ProofAddress


@dataclass(frozen=True, slots=True)
class Settled:
    """What the statements about one proof show.

    Attributes:
        proof: which.
        parties: one operator that deviated, or two of which one did; empty if it cannot be said.
        reason: in words.
    """

    proof: Proof
    parties: tuple[str, ...]
    reason: str


def proof_of(notice: DisputeNotice) -> Proof:
    """Return the proof that a notice is about."""
    return Proof(notice.run, notice.cluster, notice.attempt, address_of(notice))


def address_of(notice: DisputeNotice) -> ProofAddress:
    """Return the address of the proof within its attempt."""
    return ProofAddress(notice.stage, notice.batch, notice.gates, notice.group, notice.prover)


def claim_of(notice: DisputeNotice, verifier: int) -> Claim:
    """Return a verifier's notice as its claim; `verifier` is its author's position."""
    shape = ProofShape(notice.words or 0, notice.outputs or 0, notice.terms or 0)
    said, heard, coin = (bytes.fromhex(text or "") for text in (notice.said, notice.heard, notice.coin))
    return Claim(address_of(notice), verifier, said, heard, coin, bool(notice.rejects), shape)


def account_of(notice: DisputeNotice) -> Account:
    """Return the prover's notice as its account."""
    return Account(address_of(notice), bytes.fromhex(notice.left or ""), bytes.fromhex(notice.right or ""))


_GATES: Mapping[str, Literal["and", "ring", "ring32"]] = {"and": "and", "ring": "ring", "ring32": "ring32"}


def statement_of(stated: Claim | Account, place: Proof, operator: str, created_at: str) -> DisputeNotice:
    """Return a claim or an account as the notice that its author signs."""
    claim = stated if isinstance(stated, Claim) else None
    account = stated if isinstance(stated, Account) else None
    where, shape = stated.address, claim.shape if claim else ProofShape()
    return DisputeNotice(
        run=place.run, cluster=place.cluster, operator=operator, attempt=place.attempt, stage=where.stage,
        batch=where.batch, gates=_GATES[where.kind], group=where.group, prover=where.prover,
        role="verifier" if claim else "prover",
        said=claim.said.hex() if claim else None, heard=claim.heard.hex() if claim else None,
        coin=claim.coin.hex() if claim else None, rejects=claim.rejects if claim else None,
        words=shape.words or None, outputs=shape.outputs or None, terms=shape.terms or None,
        left=account.left.hex() if account else None, right=account.right.hex() if account else None,
        created_at=created_at,
    )  # fmt: skip


def settle(notices: Iterable[SignedNotice], federation: Federation) -> Settled:
    """Verify the statements about one proof and return the verdict.

    Raises:
        ConfigError, EvidenceError: a notice that is no `dispute`, or not its author's; PROOF_FOREIGN for notices about
            different proofs, or none.
    """
    found = [verify_notice(signed, federation).expect(DisputeNotice) for signed in notices]
    proofs = {proof_of(notice) for notice in found}
    if len(proofs) != 1:
        raise EvidenceError("PROOF_FOREIGN", "a verdict is about one proof", expected="1 proof", got=f"{len(proofs)}")
    proof = proofs.pop()
    members = federation.cluster(proof.cluster).operators
    stated: dict[int, Claim | Account] = {}
    twice: list[int] = []
    for notice in found:
        at = members.index(notice.operator)
        one = claim_of(notice, at) if notice.role == "verifier" else account_of(notice)
        if stated.setdefault(at, one) != one:
            twice.append(at)
    said = equivocal(min(twice)) if twice else _verdict(proof.address, stated)
    return Settled(proof, tuple(members[at] for at in said.parties), said.reason)


def _verdict(address: ProofAddress, stated: dict[int, Claim | Account]) -> Verdict:
    claims = {at: one for at, one in stated.items() if isinstance(one, Claim)}
    account = next((one for one in stated.values() if isinstance(one, Account)), None)
    shapes = {claim.shape for claim in claims.values()}
    return verdict(address, claims, account, _check(address.kind, shapes.pop() if len(shapes) == 1 else ProofShape()))


def _check(kind: str, shape: ProofShape) -> Fits:
    """Return the proof's check, which nothing malformed passes. The verdict asks it only where all three agree."""

    def fits(left: bytes, right: bytes) -> bool:
        try:
            check = proof_and.public_check(shape) if kind == "and" else proof_ring.public_check(kind, shape)
            return check(left, right)
        except (PeerProtocolError, LocalProtocolError):
            return False

    return fits
