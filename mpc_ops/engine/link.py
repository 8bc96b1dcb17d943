"""What one party of an attempt does with one peer: key agreement, sealed frames, FLUSHED and its comparison."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mpc_ops.engine.frames import Arrived, FrameInlet, FrameOutlet, LinkPlace, Place, Tally
from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey
from mpc_ops.errors import Abort, LocalProtocolError, PeerProtocolError
from mpc_ops.protocol.core.terms import DEFAULT_LIMIT_BYTES, MAX_LIMIT_BYTES
from mpc_ops.randomness import Confirmation, Initiator, Offer, PairKeys, Reply, Responder, encode_context
from mpc_ops.randomness.agreement import End
from mpc_ops.ring import RingArray, to_bytes
from mpc_ops.session.messages import (
    Flushed,
    Frame,
    KexConfirm,
    KexOffer,
    KexReply,
    Message,
    Seen,
    decode_flushed,
    encode_message,
)
from mpc_ops.session.states import LinkDigests

__all__ = ["AttemptContext", "LinkTotals", "PairLink"]

_NO_FRAMES = Tally(0, 0, hashlib.sha256().hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptContext:
    """What the attempt is bound to.

    Attributes:
        run_id, cluster, attempt, kind: the session's try.
        party: own position.
        members: operator ids by position.
        keys: identity keys by position, from the federation terms (never from a message).
        federation_digest, plan_digest, period, manifest_digest: what the SID binds.
        security: `active`, or `passive` in country clusters where the plan's terms say so; bound by the SID.
        limit_bytes: logged bytes at which a batch of gates is proven; bound by the SID.
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
    security: Literal["active", "passive"] = "active"
    limit_bytes: int = DEFAULT_LIMIT_BYTES

    def __post_init__(self) -> None:
        if self.security not in {"active", "passive"} or not 1 <= self.limit_bytes <= MAX_LIMIT_BYTES:
            raise LocalProtocolError("ATTEMPT_FOREIGN", "an attempt is active or passive, and its batches are bounded")

    def ids(self) -> dict[str, object]:
        """Ids that place an error."""
        return {"run": self.run_id[:12], "cluster": self.cluster, "attempt": self.attempt}


@dataclass(frozen=True, slots=True)
class LinkTotals:
    """All frames with one peer so far, both directions: what the ledger's lines say."""

    party: int
    sent: Tally
    received: Tally

    def digests(self) -> LinkDigests:
        """Return the digests that ACCEPT compares."""
        return LinkDigests(self.party, sent=self.sent.digest, received=self.received.digest)


class PairLink:
    """The work messages with one peer: key agreement first, then frames both ways, FLUSHED last."""

    def __init__(self, context: AttemptContext, identity: IdentityKey, peer: int) -> None:
        self.context, self.peer = context, peer
        own, other = context.members[context.party], context.members[peer]
        self._out_place = LinkPlace(context.run_id, context.cluster, context.attempt, own, other)
        self._in_place = LinkPlace(context.run_id, context.cluster, context.attempt, other, own)
        self._identity = identity
        self._own = End(context.members[context.party], context.keys[context.party])
        self._other = End(context.members[peer], context.keys[peer])
        self._sid = b""
        self._initiator: Initiator | None = None
        self._responder: Responder | None = None
        self._offer: Offer | None = None
        self._reply: Reply | None = None
        self._confirmation: Confirmation | None = None
        self._outlet: FrameOutlet | None = None
        self._inlet = FrameInlet(self._in_place)
        self._held = b""
        self._stage_sent = self._stage_received = _NO_FRAMES
        self.keys: PairKeys | None = None
        self.flushed: Flushed | None = None

    # -- key agreement

    def start(self, sid: bytes) -> list[Message]:
        """Begin the key agreement; only the lower position speaks first."""
        self._sid = sid
        if self.context.party > self.peer:
            return []
        self._initiator = Initiator(sid, self._identity, self._own, self._other)
        return [self._kex_offer(self._initiator.offer)]

    def repeat(self, *, lost: bool = False) -> list[Message]:
        """Return what the peer may have lost, and what this end has. The responder repeats its reply only for an offer."""
        out: list[Message] = []
        if self._initiator is not None and self._confirmation is None:
            out.append(self._kex_offer(self._initiator.offer))
        if self._confirmation is not None and not self._inlet.tally().frames:
            out.append(self._kex_confirm(self._confirmation))
        if self.keys is not None:
            out.append(self._inlet.say(lost=lost))
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
        """Answer the lower position's offer; raises PeerProtocolError KEX_INVALID."""
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
        """Check the higher position's reply and confirm; raises PeerProtocolError KEX_INVALID."""
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
        """Check the lower position's confirmation; raises PeerProtocolError KEX_INVALID."""
        if self._responder is None:
            # Its offer was lost: the initiator repeats both.
            return []
        if self.keys is None:
            self._have(self._responder.finish(Confirmation(message.signature, message.confirm)))
        return []

    def _have(self, keys: PairKeys) -> None:
        self.keys = keys
        self._outlet = FrameOutlet(self._out_place, keys.send)
        self._inlet.unlock(keys.receive)

    def _wrong(self, what: str) -> PeerProtocolError:
        return PeerProtocolError("KEX_INVALID", what, ids={**self.context.ids(), "peer": self._other.name})

    # -- frames

    def send(self, place: Place, body: bytes | memoryview) -> list[Frame]:
        """Seal a body for the peer."""
        assert self._outlet is not None  # noqa: S101 - called only once the keys are confirmed
        return self._outlet.send(place, body)

    def take(self, frame: Frame) -> None:
        """Hold a frame until its turn; see `FrameInlet.take`."""
        self._inlet.take(frame)

    def bodies(self) -> Iterator[Arrived]:
        """Yield the protocol's bodies as they are whole; FLUSHED is kept apart and must be the last.

        Raises:
            PeerProtocolError: as `FrameInlet.bodies`; FRAME_OUT_OF_ORDER for a frame after FLUSHED; MESSAGE_INVALID.
        """
        for body in self._inlet.bodies():
            if self.flushed is not None:
                raise PeerProtocolError(
                    "FRAME_OUT_OF_ORDER",
                    "a frame came after FLUSHED",
                    ids={**self.context.ids(), "peer": self._other.name},
                )
            if body.place == self._flush_place:
                self._on_flushed(body.data)
            else:
                yield body
                self._stage_received = self._inlet.tally()

    def on_seen(self, message: Seen) -> list[Frame]:
        """Return what the peer lacks; see `FrameOutlet.confirmed`."""
        return [] if self._outlet is None else self._outlet.confirmed(message)

    def due(self) -> list[Seen]:
        """Return what the peer has to know now; see `FrameInlet.due`."""
        return self._inlet.due()

    def totals(self) -> LinkTotals:
        """Return all frames so far."""
        return LinkTotals(self.peer, self._outlet.tally() if self._outlet else _NO_FRAMES, self._inlet.tally())

    def close(self) -> None:
        """Forget frames and keys."""
        if self._outlet is not None:
            self._outlet.close()
        self._inlet.close()
        self.keys = self._initiator = self._responder = self._outlet = None

    # -- flush

    @property
    def _flush_place(self) -> Place:
        return Place(self.context.kind, "flush")

    def _mac(self, purpose: str, *items: bytes | str | int) -> bytes:
        assert self.keys is not None  # noqa: S101 - called only once the keys are confirmed
        context = self.context
        data = encode_context(purpose, context.run_id, context.cluster, context.attempt, context.kind, *items)
        return hmac.digest(self.keys.mac, data, "sha256")

    def _link_mac(self, sender: str, frames: Tally) -> bytes:
        return self._mac("link", sender, frames.frames, frames.bytes, frames.digest)

    def flush(self, index: int, component: RingArray) -> list[Frame]:
        """Seal FLUSHED: the own program has ended, so every frame that the peer owed it is in."""
        assert self._outlet is not None  # noqa: S101 - called only once the keys are confirmed
        self._stage_sent = self._outlet.tally()
        digest = hashlib.sha256(to_bytes(component)).digest()
        self._held = self._mac("held", index, digest)
        body = encode_message(
            Flushed(
                run_id=self.context.run_id, cluster=self.context.cluster, attempt=self.context.attempt,
                stage=self.context.kind, link_mac=self._link_mac(self._other.name, self._stage_received),
                held_mac=self._held,
            )
        )  # fmt: skip
        return self.send(self._flush_place, body)

    def _on_flushed(self, body: bytes) -> None:
        flushed = decode_flushed(body)
        session = (flushed.run_id, flushed.cluster, flushed.attempt, flushed.stage)
        if session != (self.context.run_id, self.context.cluster, self.context.attempt, self.context.kind):
            raise PeerProtocolError("FRAME_INVALID", "FLUSHED names another session", ids=self.context.ids())
        self.flushed = flushed

    def check(self, index: int) -> None:
        """Compare the peer's FLUSHED with ours."""
        assert self.flushed is not None  # noqa: S101 - called only when it is in
        pair = f"{self._own.name},{self._other.name}"
        ids = {**self.context.ids(), "pair": pair}
        if not hmac.compare_digest(self.flushed.link_mac, self._link_mac(self._own.name, self._stage_sent)):
            raise Abort("LINK_MISMATCH", "one end of a link received other frames than the other sent", ids=ids)
        if not hmac.compare_digest(self.flushed.held_mac, self._held):
            raise Abort(
                "STAGE_MISMATCH",
                "the two holders of a component computed different ones",
                ids={**ids, "component": index},
                hint="One of the two altered it; nothing has left the cluster",
            )

    def __repr__(self) -> str:
        return f"PairLink({self._own.name} and {self._other.name})"
