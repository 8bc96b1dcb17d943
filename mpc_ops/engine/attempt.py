"""One attempt of one session at one operator: key agreement, the stage, flush and comparison. In memory only.

```
start(nonces, stage) ─┬─ lower position: KexOffer ─→ KexReply ─→ KexConfirm     (with each peer)
                      └─ both pair keys confirmed: stage runs once
Frame(Flushed) to each peer: link MAC and held MAC, sealed under the attempt's key of that direction
both Flushed in and equal ─→ `done`
```
Latencies: 3 for the keys (2 for the lower position), 1 for the flush. Sent per operator: at most 2 x 7,866 bytes of keys
and 2 frames below 400 bytes.

The *link MAC* shows that what one end sent is what the other received. The *held MAC* is over the component that exactly
these two hold: if one of them computed on altered parts, they differ, and the attempt fails before anything crosses a
border. Both are keyed with the pair's key, so they tell a third party nothing.
Messages may be lost, repeated and early: early ones wait (bounded), repeated ones get the same answer, and `repeat()`
returns what to send again. The driver feeds only messages of its own run, cluster and attempt.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mpc_ops.engine.stages import StageKeys, StageOutput
from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey
from mpc_ops.errors import Abort, ComityError, LocalProtocolError, PeerProtocolError
from mpc_ops.randomness import (
    Confirmation,
    FrameAddress,
    FrameOpener,
    FrameSealer,
    Initiator,
    Offer,
    PairKeys,
    Reply,
    Responder,
    SessionContext,
    encode_context,
    frame_digest,
    session_digest,
)
from mpc_ops.randomness.agreement import End
from mpc_ops.ring import RingArray, to_bytes
from mpc_ops.session.messages import (
    Flushed,
    Frame,
    KexConfirm,
    KexOffer,
    KexReply,
    Message,
    decode_flushed,
    encode_message,
)
from mpc_ops.session.states import LinkDigests

__all__ = ["Attempt", "AttemptContext", "AttemptDone", "Outgoing", "Stage"]

Outgoing: TypeAlias = list[tuple[int, Message]]
"""Messages to send: (position of the receiver, message)."""

Stage: TypeAlias = Callable[[StageKeys], StageOutput]
_MAX_EARLY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptContext:
    """What the attempt is bound to.

    Attributes:
        run_id, cluster, attempt, kind: the session's try.
        party: own position.
        members: operator ids by position.
        keys: identity keys by position, from the federation terms (never from a message).
        federation_digest, plan_digest, period, manifest_digest: what the SID binds.
    """

    run_id: str
    cluster: str
    attempt: int
    kind: Literal["region", "group"]
    party: int
    members: tuple[str, str, str]
    keys: tuple[IdentityPublicKey, IdentityPublicKey, IdentityPublicKey]
    federation_digest: str
    plan_digest: str
    period: str
    manifest_digest: str

    def ids(self) -> dict[str, object]:
        """Ids that place an error."""
        return {"run": self.run_id[:12], "cluster": self.cluster, "attempt": self.attempt}


@dataclass(frozen=True, slots=True)
class AttemptDone:
    """All checks are good: digests of both links for `Proven`, and the stage's output."""

    links: tuple[LinkDigests, LinkDigests]
    output: StageOutput


class _Link:
    """The work messages with one peer."""

    def __init__(self, context: AttemptContext, identity: IdentityKey, peer: int) -> None:
        self.context, self.peer = context, peer
        self._identity = identity
        self._own = End(context.members[context.party], context.keys[context.party])
        self._other = End(context.members[peer], context.keys[peer])
        self._sid = b""
        self._initiator: Initiator | None = None
        self._responder: Responder | None = None
        self._offer: Offer | None = None
        self._reply: Reply | None = None
        self._confirmation: Confirmation | None = None
        self._sealer: FrameSealer | None = None
        self._opener: FrameOpener | None = None
        self._held = b""
        self.keys: PairKeys | None = None
        self.sent: Frame | None = None
        self.received: Frame | None = None
        self.flushed: Flushed | None = None

    # -- key agreement

    def start(self, sid: bytes) -> list[Message]:
        self._sid = sid
        if self.context.party > self.peer:
            return []
        self._initiator = Initiator(sid, self._identity, self._own, self._other)
        return self.repeat()

    def repeat(self) -> list[Message]:
        """Return what the peer may have lost, in order. The responder repeats its reply only when asked by an offer."""
        out: list[Message] = []
        if self._initiator is not None and self._confirmation is None:
            out.append(self._kex_offer(self._initiator.offer))
        if self._confirmation is not None:
            out.append(self._kex_confirm(self._confirmation))
        if self.sent is not None:
            out.append(self.sent)
        return out

    def _kex_offer(self, offer: Offer) -> KexOffer:
        return KexOffer(
            run_id=self.context.run_id, cluster=self.context.cluster, attempt=self.context.attempt,
            mlkem_public=offer.mlkem_public, x25519_public=offer.x25519_public, signature=offer.signature,
        )  # fmt: skip

    def _kex_reply(self, reply: Reply) -> KexReply:
        return KexReply(
            run_id=self.context.run_id, cluster=self.context.cluster, attempt=self.context.attempt,
            mlkem_ciphertext=reply.mlkem_ciphertext, x25519_public=reply.x25519_public,
            signature=reply.signature, confirm=reply.confirm,
        )  # fmt: skip

    def _kex_confirm(self, confirmation: Confirmation) -> KexConfirm:
        return KexConfirm(
            run_id=self.context.run_id, cluster=self.context.cluster, attempt=self.context.attempt,
            signature=confirmation.signature, confirm=confirmation.confirm,
        )  # fmt: skip

    def on_offer(self, message: KexOffer) -> list[Message]:
        offer = Offer(message.mlkem_public, message.x25519_public, message.signature)
        if self.context.party < self.peer:
            raise self._wrong("a key offer came from the higher position")
        if self._responder is None:
            self._responder = Responder(self._sid, self._identity, self._own, self._other, offer)
            self._offer = offer
        elif offer != self._offer:
            raise self._wrong("two different key offers came for one attempt")
        return [self._kex_reply(self._responder.reply)]

    def on_reply(self, message: KexReply) -> list[Message]:
        reply = Reply(message.mlkem_ciphertext, message.x25519_public, message.signature, message.confirm)
        if self._initiator is None:
            raise self._wrong("a key reply came without an offer")
        if self._confirmation is None:
            keys, self._confirmation = self._initiator.finish(reply)
            self._reply = reply
            self._have(keys)
        elif reply != self._reply:
            raise self._wrong("two different key replies came for one attempt")
        return [self._kex_confirm(self._confirmation)]

    def on_confirm(self, message: KexConfirm) -> list[Message]:
        if self._responder is None:
            # Its offer was lost: the initiator repeats both.
            return []
        if self.keys is None:
            self._have(self._responder.finish(Confirmation(message.signature, message.confirm)))
        return []

    def _have(self, keys: PairKeys) -> None:
        self.keys = keys
        self._sealer = FrameSealer(keys.send)
        self._opener = FrameOpener(keys.receive)

    def _wrong(self, what: str) -> PeerProtocolError:
        return PeerProtocolError("KEX_INVALID", what, ids={**self.context.ids(), "peer": self._other.name})

    # -- flush

    def _frame_address(self, sender: End, receiver: End, size: int) -> FrameAddress:
        return FrameAddress(
            run_id=self.context.run_id, cluster=self.context.cluster, attempt=self.context.attempt,
            stage=self.context.kind, step="flush", sender=sender.name, receiver=receiver.name, total_bytes=size,
        )  # fmt: skip

    def _mac(self, purpose: str, *items: bytes | str | int) -> bytes:
        assert self.keys is not None  # noqa: S101 - called only once the keys are confirmed
        context = self.context
        data = encode_context(purpose, context.run_id, context.cluster, context.attempt, context.kind, *items)
        return hmac.digest(self.keys.mac, data, "sha256")

    def _link_mac(self, sender: str, frames: tuple[str, ...]) -> bytes:
        return self._mac("link", sender, *frames)

    def flush(self, index: int, component: RingArray) -> Message:
        """Seal FLUSHED. A linear stage sends no frame before it, so the link MAC is over an empty list."""
        digest = hashlib.sha256(to_bytes(component)).digest()
        self._held = self._mac("held", index, digest)
        body = encode_message(
            Flushed(
                run_id=self.context.run_id, cluster=self.context.cluster, attempt=self.context.attempt,
                stage=self.context.kind, link_mac=self._link_mac(self._other.name, ()), held_mac=self._held,
            )
        )  # fmt: skip
        assert self._sealer is not None  # noqa: S101 - called only once the keys are confirmed
        counter, ciphertext = self._sealer.seal(self._frame_address(self._own, self._other, len(body)), body)
        self.sent = Frame(
            run_id=self.context.run_id, cluster=self.context.cluster, attempt=self.context.attempt,
            lane=0, counter=counter, ciphertext=ciphertext,
        )  # fmt: skip
        return self.sent

    def on_frame(self, message: Frame) -> None:
        if self.received is not None:
            if message != self.received:
                raise PeerProtocolError(
                    "FRAME_OUT_OF_ORDER",
                    "a frame came after FLUSHED",
                    ids={**self.context.ids(), "peer": self._other.name},
                )
            return
        assert self._opener is not None  # noqa: S101 - the caller holds frames back until the keys are confirmed
        address = self._frame_address(self._other, self._own, len(message.ciphertext) - 16)
        if message.lane != 0:
            raise PeerProtocolError(
                "FRAME_INVALID", "a frame on a lane that this stage does not have", ids=self.context.ids()
            )
        body = self._opener.open(address, message.counter, message.ciphertext)
        flushed = decode_flushed(body)
        session = (flushed.run_id, flushed.cluster, flushed.attempt, flushed.stage)
        if session != (self.context.run_id, self.context.cluster, self.context.attempt, self.context.kind):
            raise PeerProtocolError("FRAME_INVALID", "FLUSHED names another session", ids=self.context.ids())
        self.received, self.flushed = message, flushed

    def check(self, index: int) -> None:
        """Compare the peer's FLUSHED with ours."""
        assert self.flushed is not None  # noqa: S101 - called only when it is in
        pair = f"{self._own.name},{self._other.name}"
        ids = {**self.context.ids(), "pair": pair}
        if not hmac.compare_digest(self.flushed.link_mac, self._link_mac(self._own.name, ())):
            raise Abort("LINK_MISMATCH", "one end of a link received other frames than the other sent", ids=ids)
        if not hmac.compare_digest(self.flushed.held_mac, self._held):
            raise Abort(
                "STAGE_MISMATCH",
                "the two holders of a component computed different ones",
                ids={**ids, "component": index},
                hint="One of the two altered it; nothing has left the cluster",
            )

    def digests(self) -> LinkDigests:
        assert self.sent is not None  # noqa: S101 - called only when done
        assert self.received is not None  # noqa: S101 - called only when done
        return LinkDigests(
            self.peer, sent=frame_digest(self.sent.ciphertext), received=frame_digest(self.received.ciphertext)
        )


class Attempt:
    """The work of one attempt. Create it on BeginAttempt, `start` it on StartWork, forget it on DropAttempt.

    Attributes:
        context: what it is bound to.
        done: set once all checks are good.
    """

    def __init__(self, context: AttemptContext, identity: IdentityKey) -> None:
        if identity.public != context.keys[context.party]:
            raise LocalProtocolError(
                "KEY_FOREIGN", "the own identity key is not the one of the federation terms", ids=context.ids()
            )
        self.context = context
        self.done: AttemptDone | None = None
        self._links = {peer: _Link(context, identity, peer) for peer in range(3) if peer != context.party}
        self._early: dict[int, list[Message]] = {peer: [] for peer in self._links}
        self._stage: Stage | None = None
        self._output: StageOutput | None = None

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
        sid = session_digest(
            SessionContext(
                federation_digest=self.context.federation_digest,
                cluster=self.context.cluster,
                plan_digest=self.context.plan_digest,
                period=self.context.period,
                manifest_digest=self.context.manifest_digest,
                attempt=self.context.attempt,
                operator_keys=(self.context.keys[0].raw, self.context.keys[1].raw, self.context.keys[2].raw),
                nonces=(raw[0], raw[1], raw[2]),
            )
        )
        out = [(peer, message) for peer, link in self._links.items() for message in link.start(sid)]
        return out + self._drain()

    def receive(self, sender: int, message: Message) -> Outgoing:
        """Take a work message from position `sender` and return what to send.

        Raises:
            PeerProtocolError: the sender broke the protocol (KEX_INVALID, FRAME_INVALID, FRAME_OUT_OF_ORDER,
                MESSAGE_INVALID).
            Abort: STAGE_MISMATCH or LINK_MISMATCH naming the pair; or what the stage raises (CROSS_MISMATCH).
            After any of these the attempt is over: step the session with CheckFailed(attempt, code, blamed(error)).
        """
        address = (message.run_id, message.cluster, message.attempt)
        if sender not in self._links or address != (self.context.run_id, self.context.cluster, self.context.attempt):
            raise LocalProtocolError(
                "ATTEMPT_FOREIGN", "a message of another attempt reached this one", ids=self.context.ids()
            )
        waiting = self._early[sender]
        if message not in waiting:
            if len(waiting) >= _MAX_EARLY:
                raise PeerProtocolError(
                    "FRAME_OUT_OF_ORDER",
                    "too many early messages",
                    ids={**self.context.ids(), "peer": self.context.members[sender]},
                )
            waiting.append(message)
        return self._drain() if self._stage is not None else []

    def repeat(self) -> Outgoing:
        """Return what the peers may have lost; send it with every Ask while PREPARED or ACCEPTED."""
        if self._stage is None:
            return []
        return [(peer, message) for peer, link in self._links.items() for message in link.repeat()]

    def blamed(self, error: ComityError) -> tuple[str, ...]:
        """Return the operators that an error of this attempt names, for CheckFailed and the signed state."""
        if "pair" in error.ids:
            return tuple(error.ids["pair"].split(","))[:2]
        for name in ("party", "peer", "sender"):
            if name in error.ids:
                return (error.ids[name],)
        return ()

    def _drain(self) -> Outgoing:
        """Handle waiting messages until nothing changes: a frame waits for its keys."""
        out: Outgoing = []
        for peer, link in self._links.items():
            waiting, self._early[peer] = self._early[peer], []
            for message in waiting:
                if isinstance(message, Frame) and link.keys is None:
                    self._early[peer].append(message)
                else:
                    out += [(peer, answer) for answer in self._handle(link, message)]
        out += self._advance()
        # The own flush or keys may have made room for a frame that waited.
        return out + self._drain() if self._ready_frames() else out

    def _ready_frames(self) -> bool:
        return any(self._early[peer] and link.keys is not None for peer, link in self._links.items())

    def _handle(self, link: _Link, message: Message) -> list[Message]:
        if isinstance(message, KexOffer):
            return link.on_offer(message)
        if isinstance(message, KexReply):
            return link.on_reply(message)
        if isinstance(message, KexConfirm):
            return link.on_confirm(message)
        if isinstance(message, Frame):
            link.on_frame(message)
            return []
        raise LocalProtocolError("ATTEMPT_FOREIGN", "a durable message was given to an attempt", ids=self.context.ids())

    def _index(self, peer: int) -> int:
        """Index of the component that this position and `peer` hold."""
        party = self.context.party
        return party if peer == (party - 1) % 3 else (party + 1) % 3

    def _advance(self) -> Outgoing:
        out: Outgoing = []
        party = self.context.party
        before, after = self._links[(party - 1) % 3], self._links[(party + 1) % 3]
        if self._output is None and self._stage is not None and before.keys is not None and after.keys is not None:
            self._output = self._stage(StageKeys(before.keys, after.keys))
            share = self._output.share
            for link, component in ((before, share.first), (after, share.second)):
                out.append((link.peer, link.flush(self._index(link.peer), component)))
        if self._output is not None and self.done is None and before.flushed is not None and after.flushed is not None:
            for link in (before, after):
                link.check(self._index(link.peer))
            first, second = sorted((before, after), key=lambda link: link.peer)
            self.done = AttemptDone((first.digests(), second.digests()), self._output)
        return out

    def __repr__(self) -> str:
        return f"Attempt({self.context.run_id[:12]}@{self.context.cluster}#{self.context.attempt}, done={self.done is not None})"
