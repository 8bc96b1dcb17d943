"""Statements about one failed proof, and the verdict that follows from them."""

from __future__ import annotations

from mpc_ops.protocol.blame import Account, Claim, Fits, ProofAddress, Verdict, verdict

ADDRESS = ProofAddress("test", 0, "and", 0, 0)
COIN = bytes(32)


def judged(left: bytes, right: bytes, stated: tuple[bytes, bytes], fits: Fits) -> Verdict:
    """Verdict on prover 0 where L = 2 and R = 1 said `left` and `right`, and the prover states `stated`."""
    rejects = not fits(left, right)
    claims = {
        2: Claim(ADDRESS, 2, left, right, COIN, rejects),
        1: Claim(ADDRESS, 1, right, left, COIN, rejects),
    }
    return verdict(ADDRESS, claims, Account(ADDRESS, *stated), fits)
