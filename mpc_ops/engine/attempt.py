"""One attempt of one session at one operator: key agreement, the stage's program, flush and comparison. In memory only.

```
start(nonces, stage) ─┬─ lower position: KexOffer ─→ KexReply ─→ KexConfirm     (with each peer)
                      └─ both pair keys confirmed: the stage's program begins
Frame(...) to each peer: messages of the program's rounds, sealed under the attempt's key of that direction
program ended: Frame(FLUSHED) to each peer: link MAC and held MAC
both FLUSHED in and equal ─→ `done`
```
A stage is a program (`Steps`): linear stages have no rounds, others as many as they like, with openings behind barriers.
The session is active unless the plan's terms say `passive`; both have the same frames. The SID binds which it is.

Latencies: 3 for the keys (2 for the lower position), the program's rounds, 1 for the flush. Sent per operator: at most
2 x 7,866 bytes of keys, 16 bytes more than the program's bodies per frame, and 2 frames below 400 bytes.

The *link MAC* shows that what one end sent is what the other received. The *held MAC* is over the component of the output
that exactly these two hold: if one of them computed on altered parts, they differ, and the attempt fails before anything
crosses a border. Both are keyed with the pair's key, so they tell a third party nothing.

Messages may be lost, repeated and early: early ones wait (bounded), repeated ones change nothing, and `repeat()` returns
what to send again (engine/frames.py has the rule for frames). The driver feeds only messages of its own run, cluster and
attempt, from one thread at a time; `start` and `receive` may compute for long.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from mpc_ops.engine.dispute import Dispute
from mpc_ops.engine.frames import Arrived, Place
from mpc_ops.engine.link import AttemptContext, LinkTotals, PairLink
from mpc_ops.engine.stages import Stage, StageOutput
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.errors import ComityError, LocalProtocolError, PeerProtocolError, ProofRejected
from mpc_ops.protocol.core.flow import ActiveFlow, PassiveFlow
from mpc_ops.protocol.core.party import Address, Party, Steps
from mpc_ops.protocol.core.party import Message as StageMessage
from mpc_ops.protocol.core.session import ActiveSession, PassiveSession
from mpc_ops.protocol.core.terms import VERSION, PartyKeys, SessionTerms
from mpc_ops.randomness import SessionContext, session_digest
from mpc_ops.session.messages import Frame, KexConfirm, KexOffer, KexReply, Message, Seen
from mpc_ops.session.states import LinkDigests

__all__ = ["Attempt", "AttemptContext", "AttemptDone", "LinkTotals", "Outgoing"]

Outgoing: TypeAlias = list[tuple[int, Message]]
"""Messages to send: (position of the receiver, message)."""

_MAX_EARLY = 8


@dataclass(frozen=True, slots=True)
class AttemptDone:
    """All checks are good: digests of both links for `Proven`, and the stage's output."""

    links: tuple[LinkDigests, LinkDigests]
    output: StageOutput


def _passive(context: AttemptContext, terms: SessionTerms, keys: PartyKeys, stage: Stage) -> Steps[StageOutput]:
    return stage(PassiveFlow(PassiveSession(terms, keys), context.kind), keys)


def _active(context: AttemptContext, session: ActiveSession, keys: PartyKeys, stage: Stage) -> Steps[StageOutput]:
    return session.run(lambda own: stage(ActiveFlow(own, context.kind), keys))


class Attempt:
    """The work of one attempt. Create it on BeginAttempt, `start` it on StartWork, `close` it on DropAttempt.

    Attributes:
        context: what it is bound to.
        done: set once all checks are good.
        progress: grows whenever something new came in; a peer that only repeats itself does not move it.
    """

    def __init__(self, context: AttemptContext, identity: IdentityKey) -> None:
        if identity.public != context.keys[context.party]:
            raise LocalProtocolError(
                "KEY_FOREIGN", "the own identity key is not the one of the federation terms", ids=context.ids()
            )
        self.context = context
        self.done: AttemptDone | None = None
        self._links = {peer: PairLink(context, identity, peer) for peer in range(3) if peer != context.party}
        self._early: dict[int, list[Message]] = {peer: [] for peer in self._links}
        self._stage: Stage | None = None
        self._sid = b""
        self._session: ActiveSession | None = None
        self._settled = False
        self._program: Party[StageOutput] | None = None
        self._output: StageOutput | None = None
        self._error: ComityError | None = None
        self._closed = False

    @property
    def progress(self) -> int:
        """Keys confirmed and frames opened so far."""
        return sum((link.keys is not None) + link.totals().received.frames for link in self._links.values())

    @property
    def rounds(self) -> int:
        """Rounds that the program has begun."""
        return 0 if self._program is None else self._program.rounds

    @property
    def sent_bytes(self) -> int:
        """Bytes of the program's message bodies so far."""
        return 0 if self._program is None else self._program.sent_bytes

    def totals(self) -> tuple[LinkTotals, LinkTotals]:
        """Return the frames of both links so far, by position: the ledger's lines of this attempt."""
        first, second = (self._links[peer].totals() for peer in sorted(self._links))
        return first, second

    def start(self, nonces: tuple[str, str, str], stage: Stage) -> Outgoing:
        """Begin with the three nonces (hex, by position). `stage` is called once, when both pair keys are confirmed.

        Raises:
            LocalProtocolError: ATTEMPT_STARTED if called twice.
            ComityError: what an early message or the stage raises; see `receive`.
        """
        if self._stage is not None:
            raise LocalProtocolError("ATTEMPT_STARTED", "an attempt starts once", ids=self.context.ids())
        self._stage = stage
        raw = tuple(bytes.fromhex(nonce) for nonce in nonces)
        context, keys = self.context, self.context.keys
        self._sid = session_digest(
            SessionContext(
                federation_digest=context.federation_digest,
                cluster=context.cluster,
                plan_digest=context.plan_digest,
                period=context.period,
                manifest_digest=context.manifest_digest,
                attempt=context.attempt,
                protocol=VERSION,
                security=context.security,
                limit_bytes=context.limit_bytes,
                operator_keys=(keys[0].raw, keys[1].raw, keys[2].raw),
                nonces=(raw[0], raw[1], raw[2]),
            )
        )
        out: Outgoing = [(peer, message) for peer, link in self._links.items() for message in link.start(self._sid)]
        return out + self._guard(self._drain)

    def receive(self, sender: int, message: Message) -> Outgoing:
        """Take a work message from position `sender` and return what to send.

        Raises:
            PeerProtocolError: the sender broke the protocol (KEX_INVALID, FRAME_INVALID, FRAME_OUT_OF_ORDER,
                MESSAGE_INVALID, LENGTH_INVALID, MESSAGE_FOREIGN, ACCEPT_INVALID).
            Abort: STAGE_MISMATCH or LINK_MISMATCH naming the pair; or what the stage raises (CROSS_MISMATCH,
                PROOF_REJECTED, OPENING_MISMATCH).
            PeerUnavailable: FRAMES_LOST: transient, the session starts the next attempt.
            After any of these the attempt is over and raises the same again: step the session with
            CheckFailed(attempt, code, blamed(error)), or with Retry if the error is transient.
        """
        address = (message.run_id, message.cluster, message.attempt)
        if sender not in self._links or address != (self.context.run_id, self.context.cluster, self.context.attempt):
            raise LocalProtocolError(
                "ATTEMPT_FOREIGN", "a message of another attempt reached this one", ids=self.context.ids()
            )
        return self._guard(lambda: self._take(sender, message))

    def _guard(self, work: Callable[[], Outgoing]) -> Outgoing:
        if self._closed:
            return []
        if self._error is not None:
            raise self._error
        try:
            return work()
        except ComityError as error:
            self._error = error
            raise

    def _take(self, sender: int, message: Message) -> Outgoing:
        waiting = self._early[sender]
        if isinstance(message, Frame):
            self._links[sender].take(message)
        elif message not in waiting:
            if len(waiting) >= _MAX_EARLY:
                raise PeerProtocolError(
                    "FRAME_OUT_OF_ORDER",
                    "too many early messages",
                    ids={**self.context.ids(), "peer": self.context.members[sender]},
                )
            waiting.append(message)
        return self._drain() if self._stage is not None else []

    def repeat(self, *, lost: Collection[int] = ()) -> Outgoing:
        """Return what the peers may have lost; send it with every Ask while PREPARED or ACCEPTED.

        `lost` are the positions whose connection is new: what was under way on the old one is gone.
        """
        if self._stage is None or self._closed:
            return []
        return [(peer, message) for peer, link in self._links.items() for message in link.repeat(lost=peer in lost)]

    def blamed(self, error: ComityError) -> tuple[str, ...]:
        """Return the operators that an error of this attempt names, for CheckFailed and the signed state."""
        if "pair" in error.ids:
            return tuple(error.ids["pair"].split(","))[:2]
        for name in ("party", "peer", "sender"):
            if name in error.ids:
                return (error.ids[name],)
        return ()

    def settle(self) -> Outgoing:
        """A peer says that a proof failed: the attempt is over, and `dispute` gives what this party saw of it."""
        self._settled = True
        return []

    def dispute(self) -> Dispute | None:
        """Return what can be stated about failed proofs, once: after PROOF_REJECTED here, or `settle`; else None."""
        session = self._session
        if session is None or not (self._settled or isinstance(self._error, ProofRejected)):
            return None
        self._session, book = None, session.disputes
        return None if book is None else Dispute(self.context, book)

    def close(self) -> None:
        """Forget keys, shares and frames; what comes later changes nothing."""
        self._closed, self._session = True, None
        self._stage = self._output = self.done = None
        if self._program is not None:
            self._program.close()
        for link in self._links.values():
            link.close()

    # -- work

    def _drain(self) -> Outgoing:
        """Handle what waits, key agreement first, until nothing changes."""
        out: Outgoing = []
        for peer, link in self._links.items():
            waiting, self._early[peer] = self._early[peer], []
            for message in waiting:
                out += [(peer, answer) for answer in self._handle(link, message)]
        out += self._begin()
        for peer, link in self._links.items():
            if self._program is not None:
                for body in link.bodies():
                    out += self._seal(self._program.receive(self._addressed(peer, body)))
        out += self._advance()
        for peer, link in self._links.items():
            out += [(peer, seen) for seen in link.due()]
        return out

    def _handle(self, link: PairLink, message: Message) -> list[Message]:
        if isinstance(message, KexOffer):
            return link.on_offer(message)
        if isinstance(message, KexReply):
            return link.on_reply(message)
        if isinstance(message, KexConfirm):
            return link.on_confirm(message)
        if isinstance(message, Seen):
            return [*link.on_seen(message)]
        raise LocalProtocolError("ATTEMPT_FOREIGN", "a durable message was given to an attempt", ids=self.context.ids())

    def _neighbours(self) -> tuple[PairLink, PairLink]:
        return self._links[(self.context.party - 1) % 3], self._links[(self.context.party + 1) % 3]

    def _begin(self) -> Outgoing:
        """Both keys are confirmed: start the program."""
        before, after = self._neighbours()
        if self._program is not None or self._stage is None or before.keys is None or after.keys is None:
            return []
        context = self.context
        terms = SessionTerms(
            sid=self._sid.hex(), cluster=context.cluster, attempt=context.attempt, party=context.party,
            members=context.members, limit_bytes=context.limit_bytes,
        )  # fmt: skip
        keys = PartyKeys(before.keys, after.keys)
        if context.security == "passive":
            steps = _passive(context, terms, keys, self._stage)
        else:
            self._session = ActiveSession(terms, keys)
            steps = _active(context, self._session, keys, self._stage)
        self._program = Party(context.party, terms.sid, context.members, steps)
        return self._seal(self._program.start())

    def _addressed(self, peer: int, body: Arrived) -> StageMessage:
        """Return a body as the program's message; its address is the one that the frame was authenticated with."""
        if self._program is not None and self._program.done:
            raise PeerProtocolError(
                "FRAME_OUT_OF_ORDER",
                "a message came after the last round",
                ids={**self.context.ids(), "peer": self.context.members[peer]},
            )
        place = body.place
        address = Address(
            self._sid.hex(), place.stage, place.round, place.part, place.step, peer, self.context.party
        )  # fmt: skip
        return StageMessage(address, body.data)

    def _seal(self, messages: list[StageMessage]) -> Outgoing:
        out: Outgoing = []
        for message in messages:
            at = message.address
            frames = self._links[at.receiver].send(Place(at.stage, at.step, at.round, at.part), message.body)
            out += [(at.receiver, frame) for frame in frames]
        return out

    def _advance(self) -> Outgoing:
        """The program has ended: flush; both FLUSHED are in: compare."""
        out: Outgoing = []
        party = self.context.party
        before, after = self._neighbours()
        if self._output is None and self._program is not None and self._program.done:
            self._output = self._program.result
            share = self._output.share
            for link, index, component in ((before, party, share.first), (after, (party + 1) % 3, share.second)):
                out += [(link.peer, frame) for frame in link.flush(index, component)]
        if self._output is not None and self.done is None and before.flushed is not None and after.flushed is not None:
            before.check(party)
            after.check((party + 1) % 3)
            first, second = self.totals()
            self.done = AttemptDone((first.digests(), second.digests()), self._output)
        return out

    def __repr__(self) -> str:
        return f"Attempt({self.context.run_id[:12]}@{self.context.cluster}#{self.context.attempt}, done={self.done is not None})"
