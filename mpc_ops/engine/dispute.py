"""What one party can still state of an attempt whose proofs failed: the attempt's keys, shares and logs are gone.

```
holds a rejected proof, or hears a peer's claim about one it verified     ─→ `claim`: said, heard, coin
both verifiers' claims are in and name one coin, and it is the own proof   ─→ `account`: what both should have said
```
The rules are those of mpc_ops.protocol.core.blame; the verdict follows from the signed statements (mpc_ops.evidence.disputes).
Only in memory: what a restart loses is not stated, and a missing statement names nobody. The last folded values of
the own proofs stay here until `wipe`, so the driver keeps a dispute for minutes only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mpc_ops.engine.link import AttemptContext
from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.core.blame import Account, Claim, DisputeBook, ProofAddress

__all__ = ["MAX_DISPUTED", "Dispute"]

T = TypeVar("T")
MAX_DISPUTED = 6
"""Proofs of one attempt that a party states anything about: more than two honest parties ever reject at once."""


class Dispute:
    """The statements of one party about one attempt; bounded, each given once.

    Attributes:
        context: of the attempt: run, cluster, attempt, members, own position.
    """

    def __init__(self, context: AttemptContext, book: DisputeBook) -> None:
        self.context = context
        self._book = book
        book.settle()
        self._claimed: set[ProofAddress] = set()
        self._accounted: set[ProofAddress] = set()
        self._heard: dict[ProofAddress, dict[int, Claim]] = {}

    @property
    def rejected(self) -> tuple[ProofAddress, ...]:
        """Proofs that failed here, at most MAX_DISPUTED."""
        return self._book.rejected[:MAX_DISPUTED]

    def claim(self, address: ProofAddress) -> Claim | None:
        """Return the own statement as a verifier, once; None if there is none, or one was given."""
        return self._once(self._claimed, address, lambda: self._book.claim(address))

    def hear(self, claim: Claim) -> None:
        """Take a verifier's claim about an own proof; the first of each verifier counts."""
        address = claim.address
        own = address.prover == self.context.party != claim.verifier
        if own and (address in self._heard or len(self._heard) < MAX_DISPUTED):
            self._heard.setdefault(address, {}).setdefault(claim.verifier, claim)

    def account(self, address: ProofAddress) -> Account | None:
        """Return the own statement as the prover, once; None as long as blame's rules allow none."""
        claims = self._heard.get(address, {})
        return self._once(self._accounted, address, lambda: self._book.account(address, claims))

    def wipe(self) -> None:
        """Forget everything; nothing is stated afterwards."""
        self._book.wipe()
        self._heard.clear()

    def _once(self, given: set[ProofAddress], address: ProofAddress, state: Callable[[], T]) -> T | None:
        if address in given or len(given) >= MAX_DISPUTED:
            return None
        try:
            found = state()
        except LocalProtocolError:
            return None
        given.add(address)
        return found

    def __repr__(self) -> str:
        where = self.context
        return f"Dispute({where.run_id[:12]}@{where.cluster}#{where.attempt}, {len(self.rejected)} rejected)"
