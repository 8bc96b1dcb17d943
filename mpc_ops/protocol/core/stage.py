"""The stage discipline: compute -> FLUSH -> PROVE -> ACCEPT -> open; nothing is opened without the barrier's token.

An `ActiveSession` (one attempt of three parties) gives out one `ActiveStage` at a time. Operations on shares log their
gates in the stage; `ActiveStage.barrier` proves the whole log, exchanges ACCEPT and returns a `BarrierToken`, which one
opening (mpc_ops.protocol.core.opening) spends. Any failed check ends the session: keys and logs are forgotten.

```
compute     any rounds; nothing opened; logs are proven early whenever they reach `limit_bytes`
FLUSH       to each peer: HMAC (the pair's key) of everything that this peer sent in the stage; rides with the first proof round
PROVE       every gate log proves its batch, several batches side by side behind one FLUSH; coins are released only after FLUSHED
            from both others
ACCEPT      only after success of all own checks; both others' ACCEPTs are needed
open        only with the token; no gate can be added in between
```
Cost besides the proofs, per party: FLUSH 64 bytes for up to PROVEN_TOGETHER batches in a shared round, ACCEPT 64 bytes in one round.

Security: malicious with abort, one corrupt party of three. Each link's transcript has running tags under keys of that pair (GMAC,
mpc_ops.randomness.link_tag) and covers only what that peer sent, so its HMAC tells nothing about the third party. Leakage: shapes, batch numbers, stage of an abort.

A passive session has its own type and its own shares; neither is accepted here.
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar, final

from mpc_ops.errors import Abort, LocalProtocolError, PeerProtocolError
from mpc_ops.protocol.core.blame import DisputeBook
from mpc_ops.protocol.core.party import Body, Inbound, Round, Steps, together
from mpc_ops.protocol.core.terms import PartyKeys, SessionTerms
from mpc_ops.randomness import ContextItem, derive, encode_context, expand
from mpc_ops.randomness.link_tag import LinkTag
from mpc_ops.ring import RingArray
from mpc_ops.sharing import held_by

__all__ = [
    "PROVEN_TOGETHER",
    "ActiveStage",
    "BarrierToken",
    "ComputeStage",
    "GateLog",
    "PassiveStage",
]

T = TypeVar("T")
L = TypeVar("L", bound="GateLog")

PROVEN_TOGETHER = 4
"""Most batches that are proven in the same rounds: each takes about 1.3 times `limit_bytes` of memory while it is proven."""
_PROVEN_PARTS = 32
"""Messages a round above which no further batch joins: a round has a bounded number of them."""
_MAC_BYTES = 32
_MINT = object()


@final
class BarrierToken:
    """Shows that a stage was flushed, proven and accepted by all three. Made by `ActiveStage.barrier` only; spent once."""

    __slots__ = ("_stage",)

    def __init__(self, stage: ActiveStage, mint: object) -> None:
        if mint is not _MINT:
            raise LocalProtocolError("BARRIER_MISSING", "only the barrier makes its token")
        self._stage = stage

    def __repr__(self) -> str:
        return "BarrierToken(<redacted>)"


class GateLog(ABC):
    """Gates of one kind that a stage has still to prove, with the three roles of the proof (prover, left, right).

    `prove` runs with the FLUSH of its batch in its first round; it must release coins through `ActiveStage.coin` only.
    """

    kind: ClassVar[str]

    def __init__(self, stage: ActiveStage) -> None:
        self.stage = stage

    @property
    @abstractmethod
    def pending_bytes(self) -> int:
        """Bytes that the unproven gates hold."""

    @abstractmethod
    def prove(self, batch: int) -> Steps[None]:
        """Prove and verify pending gates and forget them; raises Abort PROOF_REJECTED or COIN_MISMATCH.

        One call takes at most about `limit_bytes`, in the order of logging, so that batches end at gates that the plan
        fixes; the stage calls again while something is pending.
        """

    def keep(self) -> None:
        """Copy what has been logged and is not proven yet, if it is held in the operands, so that they can be let go."""
        return

    @abstractmethod
    def wipe(self) -> None:
        """Forget all gates."""


class ComputeStage(ABC):
    """What operations on shares need of a stage, active or passive: rounds, fresh streams, a place for gates."""

    def __init__(self, terms: SessionTerms, keys: PartyKeys, name: str) -> None:
        self.terms, self.name = terms, name
        self.party = terms.party
        self._keys: PartyKeys | None = keys
        self._streams = 0

    @property
    def keys(self) -> PartyKeys:
        """Return the pair keys; raises LocalProtocolError STAGE_ORDER once the session is over."""
        if self._keys is None:
            raise self._order("the session is over and its keys are gone")
        return self._keys

    @abstractmethod
    def computing(self) -> None:
        """Raise LocalProtocolError STAGE_ORDER unless gates may be added now."""

    @abstractmethod
    def exchange(
        self, step: str, *, to_prev: Body = b"", to_next: Body = b"", expect_prev: int = 0, expect_next: int = 0
    ) -> Steps[Inbound]:
        """Send to the neighbours and return what they sent; lengths are exact. Rounds: 1.  Sent: what is given."""

    def streams(self, purpose: str, lanes: int) -> tuple[RingArray, RingArray]:
        """Return fresh streams (F(k_i), F(k_{i+1})) of `lanes` words each.

        Each call has its own number in the context, and session, attempt and stage are in it too, so no stream is ever
        used twice. All three parties call in the same order.
        """
        one, other = self.seeds(purpose)
        first, second = held_by(self.party)
        return expand(one, lanes, "stream", first), expand(other, lanes, "stream", second)

    def seeds(self, purpose: str) -> tuple[bytes, bytes]:
        """Return fresh 32-byte seeds of the two components' holders, numbered together with `streams`.

        For protocols whose parties need different streams of one component: each expansion has its own context.
        """
        self.computing()
        number, self._streams = self._streams, self._streams + 1
        keys, context = self.keys, (*self.terms.context(self.name), purpose, number)
        return derive(keys.first.prg, *context), derive(keys.second.prg, *context)

    def ids(self) -> dict[str, object]:
        """Ids that place an error."""
        return {"session": self.terms.sid[:12], "cluster": self.terms.cluster, "stage": self.name}

    def pair(self, one: int, other: int) -> str:
        """Return two positions as the pair that an error names."""
        members = self.terms.members
        return f"{members[one % 3]},{members[other % 3]}"

    def _order(self, what: str) -> LocalProtocolError:
        return LocalProtocolError("STAGE_ORDER", what, ids=self.ids())

    def _plain_exchange(self, item: Round) -> Steps[Inbound]:
        (inbound,) = yield (item,)
        before, after = len(inbound.from_prev), len(inbound.from_next)
        if (before, after) != (item.expect_prev, item.expect_next):
            raise PeerProtocolError(
                "LENGTH_INVALID",
                "a message has another length",
                expected=f"{item.expect_prev} and {item.expect_next} bytes",
                got=f"{before} and {after} bytes",
                ids=self.ids(),
            )
        return inbound


@dataclass(frozen=True, slots=True)
class _Transcript:
    """Running tags of one link in a stage: what was sent to and received from one peer."""

    sent: LinkTag
    received: LinkTag

    def add(self, step: str, sent: Body, received: Body) -> None:
        for tag, body in ((self.sent, sent), (self.received, received)):
            if body:
                tag.add(step, body)


class ActiveStage(ComputeStage):
    """One stage of an active session: computing, then accepted by the barrier, then closed by an opening or `close`."""

    def __init__(self, terms: SessionTerms, keys: PartyKeys, name: str) -> None:
        super().__init__(terms, keys, name)
        self._phase: Literal["computing", "accepted", "closed"] = "computing"
        self._token: BarrierToken | None = None
        self._logs: dict[type[GateLog], GateLog] = {}
        self._links = {peer: self._transcript(peer) for peer in range(3) if peer != terms.party}
        self._batch = 0
        self._flushed = range(0)
        self._proving = False
        self._coins: set[tuple[ContextItem, ...]] = set()
        self.disputes = DisputeBook(terms.party, PROVEN_TOGETHER)
        """What this party can state if a proof fails; outlives the keys, and is forgotten when all three accepted."""

    # -- computing

    @property
    def phase(self) -> str:
        """`computing`, `accepted` or `closed`."""
        return self._phase

    @property
    def batches(self) -> int:
        """Number of batches flushed and proven so far."""
        return self._batch

    def computing(self) -> None:
        """Raise LocalProtocolError STAGE_ORDER unless gates may be added now."""
        if self._phase != "computing":
            raise self._order("a gate after the barrier would be opened unproven")

    def log(self, kind: type[L]) -> L:
        """Return this stage's log of one kind of gates; made at the first call."""
        self.computing()
        found = self._logs.get(kind)
        if found is None:
            found = self._logs[kind] = kind(self)
        if not isinstance(found, kind):  # pragma: no cover - keyed by its own type
            raise self._order("a gate log of another kind")
        return found

    def settle(self) -> Steps[None]:
        """Prove what is pending if it reached the limit; every operation calls it after it logged its gates and let them go.

        Of protocols that share rounds one proves and the others go on; what they log meanwhile is in a later batch.
        """
        while self._pending_bytes() >= self.terms.limit_bytes and not self._proving:
            yield from self._prove_pending(self.terms.limit_bytes)
        self._keep()

    def _keep(self) -> None:
        for log in self._logs.values():
            log.keep()

    def _pending_bytes(self) -> int:
        return sum(log.pending_bytes for log in self._logs.values())

    def exchange(
        self, step: str, *, to_prev: Body = b"", to_next: Body = b"", expect_prev: int = 0, expect_next: int = 0
    ) -> Steps[Inbound]:
        """Send to the neighbours and return what they sent, and add both to the links' transcripts.

        Rounds: 1.  Sent: what is given, nothing else.

        Raises:
            PeerProtocolError: LENGTH_INVALID.
        """
        item = Round(self.name, step, to_prev, to_next, expect_prev, expect_next)
        inbound = yield from self._plain_exchange(item)
        if self._phase == "computing":  # what comes later has no FLUSH: an opening has digests of its own
            # Both directions are noted when the round is over: so protocols that share rounds see the same order at both ends.
            self._links[(self.party - 1) % 3].add(step, to_prev, inbound.from_prev)
            self._links[(self.party + 1) % 3].add(step, to_next, inbound.from_next)
        return inbound

    # -- FLUSH, PROVE, ACCEPT

    def _pair_key(self, peer: int) -> bytes:
        """Return the key for MACs that is shared with a peer."""
        return self.keys.first.mac if peer == (self.party - 1) % 3 else self.keys.second.mac

    def _transcript(self, peer: int) -> _Transcript:
        key, context = self._pair_key(peer), (*self.terms.context(self.name), "transcript")
        ways = ((self.party, peer), (peer, self.party))
        return _Transcript(*(LinkTag(derive(key, *context, sender, receiver)) for sender, receiver in ways))

    def mac(self, peer: int, purpose: str, *items: ContextItem) -> bytes:
        """Return the HMAC, under that pair's key, of items in the context of this stage and purpose."""
        context = encode_context(*self.terms.context(self.name), purpose, *items)
        return hmac.digest(self._pair_key(peer), context, "sha256")

    def _flush(self, batches: range) -> Steps[None]:
        """Compare both links: each end sends the HMAC of what the other end sent it. 32 bytes a link, one round."""
        batch = batches.start
        before, after = (self.party - 1) % 3, (self.party + 1) % 3
        links = self._links
        sent = {peer: links[peer].sent.read() for peer in links}
        own = {peer: self.mac(peer, "flushed", batch, peer, self.party, links[peer].received.read()) for peer in links}
        inbound = yield from self.exchange(
            f"flush{batch}", to_prev=own[before], to_next=own[after], expect_prev=_MAC_BYTES, expect_next=_MAC_BYTES
        )
        for peer, said in ((before, inbound.from_prev), (after, inbound.from_next)):
            if not hmac.compare_digest(said, self.mac(peer, "flushed", batch, self.party, peer, sent[peer])):
                raise Abort(
                    "LINK_MISMATCH",
                    "one end of a link received other frames than the other sent",
                    ids={**self.ids(), "pair": self.pair(self.party, peer)},
                )
        self._flushed = batches

    def _prove_pending(self, least: int) -> Steps[None]:
        """FLUSH and prove a batch of every log, and further ones while at least `least` bytes are pending, all in shared rounds.

        All gates of these batches were computed before the FLUSH that comes first, and every batch has coins of its own.
        """
        if self._proving:
            raise self._order("a batch was begun while another is being proven")
        self._proving = True
        begun: list[tuple[Steps[None], tuple[Round, ...]]] = []
        batch = self._batch
        while batch == self._batch or (
            batch < self._batch + PROVEN_TOGETHER
            and self._pending_bytes() >= least
            and sum(len(rounds) for _, rounds in begun) < _PROVEN_PARTS
        ):
            # Each proof takes its gates as it begins; nothing is sent before FLUSH, which leads the round.
            proofs = [log.prove(batch) for log in self._logs.values() if log.pending_bytes]
            begun += [(proof, next(proof)) for proof in proofs]
            batch += 1
        self._keep()  # before the proofs' rounds, through which operands would wait
        batches = range(self._batch, batch)
        yield from together(self._flush(batches), *(_go_on(*proof) for proof in begun))
        self._batch, self._flushed, self._proving = batch, range(0), False

    def behind_flush(self, batch: int) -> None:
        """Insist that both others have said FLUSHED of this batch, which is being proven.

        Raises:
            LocalProtocolError: TAG_KEY_ORDER.
        """
        if batch not in self._flushed:
            raise LocalProtocolError(
                "TAG_KEY_ORDER", "a tag key before FLUSHED would let a party forge tags", ids=self.ids()
            )

    def coin(self, batch: int, kind: str, prover: int, level: str) -> bytes:
        """Return the 32-byte seed against `prover` that its two verifiers share; the prover lacks the key.

        Raises:
            LocalProtocolError: COIN_ORDER before FLUSHED from both others, for a coin asked for twice, or for the own proof.
        """
        if batch not in self._flushed:
            raise LocalProtocolError("COIN_ORDER", "a coin before FLUSHED would let a prover choose", ids=self.ids())
        context = (*self.terms.context(self.name), "coin", batch, kind, prover, level)
        if context in self._coins or prover == self.party:
            raise LocalProtocolError(
                "COIN_ORDER", "a coin is fresh for each level and unknown to its prover", ids=self.ids()
            )
        self._coins.add(context)
        # The verifiers are prover - 1 (component prover - 1 is its first) and prover + 1 (prover + 2 is its second).
        pair = self.keys.first if self.party == (prover - 1) % 3 else self.keys.second
        return derive(pair.coin, *context)

    def barrier(self) -> Steps[BarrierToken]:
        """FLUSH, PROVE and ACCEPT; return the token for one opening.

        Rounds: those of the longest proof (1 if nothing is pending), for each PROVEN_TOGETHER batches, and 1. Bytes per party: the
            proofs, 64 for as many batches, and 64.

        Raises:
            Abort: LINK_MISMATCH, PROOF_REJECTED, COIN_MISMATCH.
            PeerProtocolError: ACCEPT_INVALID, or what a proof raises for malformed messages.
            LocalProtocolError: STAGE_ORDER if the stage is not computing.
        """
        self.computing()
        yield from self._prove_pending(1)
        while self._pending_bytes():
            yield from self._prove_pending(1)
        yield from self._accept()
        self._logs.clear()
        self._phase = "accepted"
        self._token = BarrierToken(self, _MINT)
        return self._token

    def _accept(self) -> Steps[None]:
        """Three-way ACCEPT: reached only when all own checks of all batches succeeded."""
        before, after = (self.party - 1) % 3, (self.party + 1) % 3
        own = {peer: self.mac(peer, "accept", self._batch, self.party) for peer in (before, after)}
        inbound = yield from self.exchange(
            "accept", to_prev=own[before], to_next=own[after], expect_prev=_MAC_BYTES, expect_next=_MAC_BYTES
        )
        for peer, said in ((before, inbound.from_prev), (after, inbound.from_next)):
            if not hmac.compare_digest(said, self.mac(peer, "accept", self._batch, peer)):
                raise PeerProtocolError(
                    "ACCEPT_INVALID",
                    "an ACCEPT is not the one of this stage",
                    ids={**self.ids(), "peer": self.terms.members[peer]},
                )

    def spend(self, token: object) -> None:
        """Take the barrier's token for one opening and close the stage.

        Raises:
            LocalProtocolError: BARRIER_MISSING for anything but this stage's unspent token.
        """
        if type(token) is not BarrierToken or token is not self._token or self._phase != "accepted":
            raise LocalProtocolError(
                "BARRIER_MISSING", "an opening needs the token of its stage's barrier", ids=self.ids()
            )
        self.close()

    def close(self) -> None:
        """End an accepted stage and forget its keys; its shares may be used in the session's next stage."""
        if self._phase != "accepted":
            raise self._order("a stage ends only behind its barrier")
        self._phase, self._token, self._keys = "closed", None, None
        self._coins.clear()
        self._links.clear()
        self.disputes.wipe()

    def wipe(self) -> None:
        """Forget keys, logs and token."""
        for log in self._logs.values():
            log.wipe()
        self._logs.clear()
        self._links.clear()
        self._keys, self._token, self._phase = None, None, "closed"

    def __repr__(self) -> str:
        return f"ActiveStage({self.name}, {self._phase}, batches={self._batch})"


def _go_on(proof: Steps[None], rounds: tuple[Round, ...]) -> Steps[None]:
    """Go on with a proof that has said what it sends first."""
    try:
        while True:
            inbound = yield rounds
            rounds = proof.send(inbound)
    except StopIteration:
        return


class PassiveStage(ComputeStage):
    """A stage without proofs, for plans whose terms say `passive`. Its shares have their own types."""

    def computing(self) -> None:
        """Allow gates at any time: nothing is proven."""

    def exchange(
        self, step: str, *, to_prev: Body = b"", to_next: Body = b"", expect_prev: int = 0, expect_next: int = 0
    ) -> Steps[Inbound]:
        """Send to the neighbours and return what they sent; raises PeerProtocolError LENGTH_INVALID. Rounds: 1.  Sent: what is given."""
        inbound = yield from self._plain_exchange(Round(self.name, step, to_prev, to_next, expect_prev, expect_next))
        return inbound

    def __repr__(self) -> str:
        return f"PassiveStage({self.name})"
