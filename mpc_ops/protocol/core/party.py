"""Three parties in lock-step, without I/O: protocol code asks for rounds, a `Party` turns them into addressed messages.

Protocol code is a generator (`Steps`): it yields the rounds it wants (one tuple of `Round`, sent at the same time) and gets
back what its neighbours sent. `together` lets independent protocols share their rounds. `Party` drives one such generator:
messages in, messages out. It advances as soon as the expected messages of a round are there, keeps early ones (bounded)
and holds the first message at an address as final.

Every message has an address (session, stage, round, part, step, sender, receiver). Both ends derive it from the plan, so a
message of another session, stage or step never reaches protocol code.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.randomness.local_tag import LocalTags

__all__ = [
    "MAX_EARLY_ROUNDS",
    "MAX_PARTS",
    "MAX_WAITING_BYTES",
    "MAX_WAITING_MESSAGES",
    "Address",
    "Body",
    "Inbound",
    "Message",
    "Party",
    "Round",
    "Steps",
    "together",
]

T = TypeVar("T")

Body: TypeAlias = bytes | memoryview
"""Content of a message. What a memoryview shows must never change: it is read until the last of it has been sent.

Messages of at most 64 KiB arrive as bytes, so coins, digests and field elements are bytes.
"""

MAX_EARLY_ROUNDS = 4
"""An honest party is at most two rounds ahead of another, since each of its rounds waits for a neighbour's message."""
MAX_WAITING_BYTES = 1 << 28
"""Most bytes of one peer that wait for their round."""
MAX_WAITING_MESSAGES = 256
"""Most messages of one peer that wait for their round."""
_REMEMBERED_ROUNDS = 64
MAX_PARTS = 64
"""Most messages to a peer in one round; what a protocol wants beyond goes in rounds of its own."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one protocol sends and expects in one round.

    Attributes:
        stage: the stage's name.
        step: what is sent; unique in its round together with its place.
        to_prev: bytes for position `party - 1`; empty means no message.
        to_next: bytes for position `party + 1`; empty means no message.
        expect_prev: exact length of the message from `party - 1`; 0 means none.
        expect_next: exact length of the message from `party + 1`; 0 means none.
    """

    stage: str
    step: str
    to_prev: Body = b""
    to_next: Body = b""
    expect_prev: int = 0
    expect_next: int = 0

    def __repr__(self) -> str:
        return f"Round({self.stage}/{self.step}, {len(self.to_prev)} and {len(self.to_next)} bytes)"


@dataclass(frozen=True, slots=True)
class Inbound:
    """What the two neighbours sent in one round; lengths are the expected ones."""

    from_prev: Body
    from_next: Body

    def __repr__(self) -> str:
        return f"Inbound({len(self.from_prev)} and {len(self.from_next)} bytes)"


Steps: TypeAlias = Generator[tuple[Round, ...], tuple[Inbound, ...], T]
"""Protocol code of one party that ends with a T."""


def together(*protocols: Steps[Any]) -> Steps[list[Any]]:
    """Run independent protocols in the same rounds and return their results in order.

    Rounds: those of the longest; of more than 64 protocols that send in one round every 64 take one.  Sent: what all send.

    In each round all protocols say first what they send, in the given order; then each gets its inbound messages, in the
    same order. So an earlier protocol's check of a round is done before a later one looks at that round.
    """
    results: list[Any] = [None] * len(protocols)
    wanted: dict[int, tuple[Round, ...]] = {}
    for place, protocol in enumerate(protocols):
        try:
            wanted[place] = next(protocol)
        except StopIteration as stop:
            results[place] = stop.value
    while wanted:
        inbound = list((yield tuple(item for rounds in wanted.values() for item in rounds)))
        following: dict[int, tuple[Round, ...]] = {}
        for place, rounds in wanted.items():
            mine, inbound = tuple(inbound[: len(rounds)]), inbound[len(rounds) :]
            try:
                following[place] = protocols[place].send(mine)
            except StopIteration as stop:
                results[place] = stop.value
        wanted = following
    return results


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a message belongs."""

    session: str
    stage: str
    round: int
    part: int
    step: str
    sender: int
    receiver: int


_NOTHING: Mapping[Address, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Message:
    """One addressed message; its printed form shows no content."""

    address: Address
    body: Body

    def __repr__(self) -> str:
        return f"Message({self.address}, {len(self.body)} bytes)"


class Party(Generic[T]):
    """One position's run of a protocol.

    Attributes:
        party: own position.
        rounds: rounds begun so far.
        sent_bytes: bytes of all messages sent so far (bodies).
        done: whether `result` is there.
    """

    def __init__(self, party: int, session: str, members: tuple[str, str, str], program: Steps[T]) -> None:
        self.party, self._session, self._members, self._program = party, session, members, program
        self.rounds = 0
        self.sent_bytes = 0
        self.done = False
        self._result: list[T] = []
        self._wanted: tuple[Round, ...] = ()
        self._later: tuple[Round, ...] = ()
        self._arrived: tuple[Inbound, ...] = ()
        self._waiting: dict[Address, Body] = {}
        self._tags = LocalTags()
        self._seen: dict[int, dict[Address, bytes]] = {}
        self._over = False
        self._started = False

    @property
    def result(self) -> T:
        """Return the protocol's result; raises LocalProtocolError PARTY_NOT_DONE before the end."""
        if not self._result:
            raise LocalProtocolError("PARTY_NOT_DONE", "the protocol has not ended", ids=self._ids())
        return self._result[0]

    @property
    def awaited(self) -> frozenset[int]:
        """Return the positions of which a message of the present round is still missing."""
        return frozenset(address.sender for address in self._expected() if address not in self._waiting)

    def start(self) -> list[Message]:
        """Begin; return the first messages."""
        if self._started:
            raise LocalProtocolError("PARTY_OVER", "a party starts once", ids=self._ids())
        self._started = True
        return self._guard(lambda: self._go_on(None) + self._advance())

    def receive(self, message: Message) -> list[Message]:
        """Take one message and return what to send.

        The link that delivers it has authenticated its sender. The first message at an address is final: the same one
        again is ignored, another one ends the run.

        Raises:
            PeerProtocolError: MESSAGE_FOREIGN for another session, receiver or step; MESSAGE_CHANGED for a different
                duplicate; FRAME_OUT_OF_ORDER if it is too early; LENGTH_INVALID. After any error the run is over.
            ComityError: what the protocol raises.
        """
        if self._over:
            raise LocalProtocolError("PARTY_OVER", "the run of this party has ended with an error", ids=self._ids())
        if self.done:
            return []
        return self._guard(lambda: self._take(message))

    def close(self) -> None:
        """End the run early; the program's own clean-up forgets keys and logs."""
        self._over = True
        self._program.close()
        self._waiting.clear()

    def _guard(self, action: Callable[[], list[Message]]) -> list[Message]:
        try:
            return action()
        except BaseException:
            self._over = True
            self._program.close()
            self._waiting.clear()
            raise

    def _take(self, message: Message) -> list[Message]:
        address, body = message.address, message.body
        if address.session != self._session or address.receiver != self.party or address.sender not in self._peers():
            raise self._wrong("MESSAGE_FOREIGN", "a message of another session or party", address)
        tag = self._tags.tag(body)
        known = self._seen.get(address.round, _NOTHING).get(address)
        if known is not None:
            if not hmac.compare_digest(known, tag):
                raise self._wrong("MESSAGE_CHANGED", "a second, different message came for one address", address)
            return []
        if not self.rounds <= address.round <= self.rounds + MAX_EARLY_ROUNDS or not 0 <= address.part < MAX_PARTS:
            raise self._wrong("FRAME_OUT_OF_ORDER", "a message came far outside its round", address)
        waiting = [len(held) for place, held in self._waiting.items() if place.sender == address.sender]
        if not body or len(waiting) >= MAX_WAITING_MESSAGES or sum(waiting) + len(body) > MAX_WAITING_BYTES:
            raise self._wrong("FRAME_OUT_OF_ORDER", "an empty message, or too much waits for its round", address)
        self._seen.setdefault(address.round, {})[address] = tag
        self._waiting[address] = body
        return self._advance()

    def _peers(self) -> tuple[int, int]:
        return (self.party - 1) % 3, (self.party + 1) % 3

    def _expected(self) -> dict[Address, int]:
        """Return the addresses and lengths of the present round's inbound messages."""
        before, after = self._peers()
        out: dict[Address, int] = {}
        for part, item in enumerate(self._wanted):
            for sender, length in ((before, item.expect_prev), (after, item.expect_next)):
                if length:
                    place = Address(self._session, item.stage, self.rounds, part, item.step, sender, self.party)
                    out[place] = length
        return out

    def _advance(self) -> list[Message]:
        out: list[Message] = []
        while self._started and not self.done:
            expected = self._expected()
            for address in [place for place in self._waiting if place.round == self.rounds]:
                if address not in expected:
                    raise self._wrong("MESSAGE_FOREIGN", "a message that this round does not have", address)
                if len(self._waiting[address]) != expected[address]:
                    raise self._wrong("LENGTH_INVALID", "a message has another length", address)
            if any(address not in self._waiting for address in expected):
                break
            self._arrived += self._collect(expected)
            if self._later:
                out += self._begin(self._later)
            else:
                arrived, self._arrived = self._arrived, ()
                out += self._go_on(arrived)
        return out

    def _collect(self, expected: dict[Address, int]) -> tuple[Inbound, ...]:
        before, after = self._peers()
        bodies = {(place.part, place.sender): self._waiting.pop(place) for place in expected}
        return tuple(
            Inbound(bodies.get((part, before), b""), bodies.get((part, after), b""))
            for part in range(len(self._wanted))
        )

    def _go_on(self, inbound: tuple[Inbound, ...] | None) -> list[Message]:
        """Give the protocol its inbound messages and return the messages of its next round."""
        self._wanted = ()  # what was sent need not wait in memory for the next round
        try:
            wanted = next(self._program) if inbound is None else self._program.send(inbound)
        except StopIteration as stop:
            self._result.append(stop.value)
            self.done = True
            return []
        return self._begin(wanted)

    def _begin(self, wanted: tuple[Round, ...]) -> list[Message]:
        """Begin a round with as many messages as one may have; the others follow in rounds of their own."""
        self._wanted, self._later = wanted[:MAX_PARTS], wanted[MAX_PARTS:]
        self.rounds += 1
        self._seen.pop(self.rounds - _REMEMBERED_ROUNDS, None)
        return self._outgoing(self._wanted)

    def _outgoing(self, rounds: Sequence[Round]) -> list[Message]:
        before, after = self._peers()
        out = []
        for part, item in enumerate(rounds):
            for receiver, body in ((before, item.to_prev), (after, item.to_next)):
                if body:
                    place = Address(self._session, item.stage, self.rounds, part, item.step, self.party, receiver)
                    out.append(Message(place, body))
                    self.sent_bytes += len(body)
        return out

    def _ids(self) -> dict[str, object]:
        return {"session": self._session[:12], "party": self._members[self.party], "round": self.rounds}

    def _wrong(self, code: str, what: str, address: Address) -> PeerProtocolError:
        sender = self._members[address.sender] if address.sender in range(3) else "unknown"
        place = {"session": self._session[:12], "round": self.rounds, "peer": sender}
        return PeerProtocolError(code, what, ids=place, hint="Nothing was opened with it")

    def __repr__(self) -> str:
        return f"Party({self.party}, round {self.rounds}, done={self.done})"
