"""Statements about one failed proof and the verdict that follows from them; parties that lie consistently."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mpc_ops.protocol.circuits.products import RingGateLog
from mpc_ops.protocol.core.blame import Account, Claim, Fits, ProofAddress, Verdict, verdict
from mpc_ops.protocol.core.session import ActiveSession
from mpc_ops.protocol.core.stage import ActiveStage
from mpc_ops.protocol.proofs.proof_and import AndLog

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


def one_more(body: bytes) -> bytes:
    """The first word of a message plus one: for AND gates bit 0 of the first word flips, as the lie below expects an even one."""
    return ((int.from_bytes(body[:8], "little") ^ 1).to_bytes(8, "little")) + body[8:]


class LyingAndLog(AndLog):
    """Logs the wrong product that was sent, so that the prover's whole account is consistent with its lie."""

    def add(self, x, y, z, r):
        own = z[0].copy()
        own[0] ^= np.uint64(1)
        super().add(x, y, (own, z[1]), r)


class LyingRingLog(RingGateLog):
    def append(self, gates):
        l_own = gates.l_own.copy()
        # z_0 ^ 1 is z_0 + 1 or z_0 - 1; the message tells which.
        l_own[:1] -= np.uint64(1) if self.stage.even else np.uint64((1 << 64) - 1)
        super().append(replace(gates, l_own=l_own))


class LyingStage(ActiveStage):
    even = True

    def log(self, kind):
        return super().log({AndLog: LyingAndLog, RingGateLog: LyingRingLog}[kind])

    def exchange(self, step, *, to_prev=b"", to_next=b"", expect_prev=0, expect_next=0):
        if step in {"gates", "ring-products"}:
            self.even = bytes(to_prev)[0] % 2 == 0
            to_prev = one_more(bytes(to_prev))
        return (
            yield from super().exchange(
                step, to_prev=to_prev, to_next=to_next, expect_prev=expect_prev, expect_next=expect_next
            )
        )


class LyingSession(ActiveSession):
    stage_type = LyingStage
