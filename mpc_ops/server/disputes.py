"""After a proof that failed: this operator's statements about it as signed notices, and the verdict that all of them give.

```
PROOF_REJECTED here      ─→ publish the own claim
a peer's claim comes     ─→ publish the own claim about the same proof, or, as its prover with both claims, the own account
three statements         ─→ log and ledger: who deviated, one operator or a pair
```
Everything that can be stated is in memory, for KEPT_S and at most MAX_HELD attempts: a restart loses it, and then nobody is
named. A verdict is drawn at every operator that holds the three notices, also after a restart.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from mpc_ops.engine import Dispute
from mpc_ops.evidence.disputes import Proof, address_of, claim_of, proof_of, settle, statement_of
from mpc_ops.notices.model import DisputeNotice
from mpc_ops.notices.signed import SignedNotice
from mpc_ops.protocol.core.blame import Account, Claim, ProofAddress
from mpc_ops.server.books import Books
from mpc_ops.server.context import Context
from mpc_ops.server.notices import NoticeBook, Source
from mpc_ops.session import SessionState

__all__ = ["KEPT_S", "MAX_HELD", "Disputes"]

KEPT_S = 900.0
MAX_HELD = 16
_CODE = "PROOF_REJECTED"
_Key: TypeAlias = tuple[str, str]


class Disputes:
    """The disputes of this operator; `RunHooks` of its sessions. Methods are called inside a unit."""

    def __init__(self, context: Context, books: Books, book: NoticeBook) -> None:
        self._context, self._books, self._book = context, books, book
        self._held: OrderedDict[_Key, tuple[float, Dispute]] = OrderedDict()
        book.subscribe(self._on_notice)

    def hold(self, state: SessionState, dispute: Dispute) -> None:
        """Keep what can be stated about a session's failed attempt, and state it as far as it is due."""
        key = (state.run_id, state.cluster)
        if (state.phase, state.code, state.attempt) != ("FAILED", _CODE, dispute.context.attempt) or key in self._held:
            dispute.wipe()
            return
        self._held[key] = (self._context.utc().timestamp(), dispute)
        while len(self._held) > MAX_HELD:
            self._drop(next(iter(self._held)))
        for address in dispute.rejected:
            self._claim(dispute, address)
        for signed in self._book.find("dispute", run=state.run_id, cluster=state.cluster):
            self._answer(dispute, signed.expect(DisputeNotice))

    def tick(self) -> None:
        """Forget what was kept long enough."""
        before = self._context.utc().timestamp() - KEPT_S
        for key in [key for key, (since, _) in self._held.items() if since < before]:
            self._drop(key)

    def committed(self, state: SessionState) -> None:
        """`RunHooks`: nothing is left to state."""

    def ended(self, state: SessionState) -> None:
        """`RunHooks`: what failed may be in dispute."""

    def erased(self, state: SessionState) -> None:
        """`RunHooks`: the session's values are forgotten."""
        self._drop((state.run_id, state.cluster))

    def _drop(self, key: _Key) -> None:
        found = self._held.pop(key, None)
        if found is not None:
            found[1].wipe()

    # ----------------------------------------------------------------------------------------------- statements

    def _on_notice(self, signed: SignedNotice, source: Source) -> None:
        notice = signed.notice
        if not isinstance(notice, DisputeNotice):
            return
        _, dispute = self._held.get((notice.run, notice.cluster), (0.0, None))
        if dispute is not None and source.channel != "own":
            self._answer(dispute, notice)
        self._judge(notice)

    def _answer(self, dispute: Dispute, notice: DisputeNotice) -> None:
        where = dispute.context
        if notice.attempt != where.attempt or notice.role != "verifier":
            return
        address = address_of(notice)
        if address.prover != where.party:
            self._claim(dispute, address)
            return
        dispute.hear(claim_of(notice, where.members.index(notice.operator)))
        self._issue(dispute, dispute.account(address))

    def _claim(self, dispute: Dispute, address: ProofAddress) -> None:
        self._issue(dispute, dispute.claim(address))

    def _issue(self, dispute: Dispute, stated: Claim | Account | None) -> None:
        if stated is not None:
            where = dispute.context
            place = Proof(where.run_id, where.cluster, where.attempt, stated.address)
            self._book.issue(statement_of(stated, place, self._context.id, self._context.now))

    # -------------------------------------------------------------------------------------------------- verdict

    def _judge(self, notice: DisputeNotice) -> None:
        """Log the verdict once all three statements about the notice's proof are here; it is the same at everybody."""
        proof = proof_of(notice)
        members = self._context.federation.cluster(notice.cluster).operators
        found = [
            signed
            for signed in self._book.find("dispute", run=notice.run, cluster=notice.cluster)
            if proof_of(signed.expect(DisputeNotice)) == proof
        ]
        if len({signed.expect(DisputeNotice).operator for signed in found}) < len(members):
            return
        settled = settle(found, self._context.federation)
        named = ", ".join(settled.parties) or "nobody"
        once = f"verdict/{named}/{proof}"
        if self._context.store.row("SELECT 1 FROM ledger WHERE once = ?", once) is not None:
            return
        self._context.log(
            "verdict", named=named, why=settled.reason, run=proof.run[:12], cluster=proof.cluster,
            attempt=proof.attempt, stage=proof.address.stage, batch=proof.address.batch, gates=proof.address.kind,
        )  # fmt: skip
        self._books.note(
            "state", once=once, run=proof.run, cluster=proof.cluster, attempt=proof.attempt, ref="PROOF_VERDICT",
            decision=f"{named}: {settled.reason}",
        )  # fmt: skip
