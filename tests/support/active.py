"""Three parties of an active session in one process: a network with any schedule and an adversary, and fresh sharings."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mpc_ops.errors import ComityError
from mpc_ops.protocol.party import Address, Message, Party
from mpc_ops.protocol.shares import BooleanShare, RingShare
from mpc_ops.protocol.stage import ActiveSession, PartyKeys, SessionTerms
from mpc_ops.ring.planes import to_planes
from tests.support.core import pair_keys

MEMBERS = ("de-1", "de-2", "de-3")
Mutate = Callable[[Message], list[Message]]


def terms_of(party: int, seed: object = "s", limit_bytes: int = 1 << 25, attempt: int = 1) -> SessionTerms:
    sid = hashlib.sha256(repr(("sid", seed, attempt)).encode()).hexdigest()
    return SessionTerms(sid=sid, cluster="de", attempt=attempt, party=party, members=MEMBERS, limit_bytes=limit_bytes)


def keys_of(party: int, seed: object = "s") -> PartyKeys:
    return PartyKeys(pair_keys(seed, party), pair_keys(seed, (party + 1) % 3))


@dataclass
class Outcome:
    """How a run ended at each party: a result, an error, or neither (it waits for ever)."""

    results: dict[int, object] = field(default_factory=dict)
    errors: dict[int, ComityError] = field(default_factory=dict)
    rounds: list[int] = field(default_factory=list)
    sent_bytes: list[int] = field(default_factory=list)
    log: list[Address] = field(default_factory=list)
    sizes: dict[Address, int] = field(default_factory=dict)

    def codes(self) -> set[str]:
        return {error.code for error in self.errors.values()}

    @property
    def done(self) -> bool:
        return len(self.results) == 3


class Network:
    """Delivers messages in order of sending, at random, or with one party rushing.

    Args:
        parties: the three parties.
        mutate: called for each message as it is sent; returns what travels instead.
        rushing: a position whose outbound messages are held back until nothing else can be delivered.
        rng: if given, messages are delivered in random order.
    """

    def __init__(
        self,
        parties: Sequence[Party],
        *,
        mutate: Mutate | None = None,
        rushing: int | None = None,
        rng: random.Random | None = None,
    ):
        self.parties, self.mutate, self.rushing, self.rng = parties, mutate, rushing, rng
        self.queue: list[Message] = []
        self.outcome = Outcome()

    def _send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.outcome.log.append(message.address)
            self.outcome.sizes[message.address] = len(message.body)
            self.queue += self.mutate(message) if self.mutate else [message]

    def _call(self, party: int, action: Callable[[], list[Message]]) -> None:
        if party in self.outcome.errors:
            return
        try:
            self._send(action())
        except ComityError as error:
            self.outcome.errors[party] = error

    def _pick(self) -> Message:
        if self.rng is not None:
            return self.queue.pop(self.rng.randrange(len(self.queue)))
        if self.rushing is not None:
            for place, message in enumerate(self.queue):
                if message.address.sender != self.rushing:
                    return self.queue.pop(place)
        return self.queue.pop(0)

    def run(self) -> Outcome:
        for party in self.parties:
            self._call(party.party, party.start)
        while self.queue:
            message = self._pick()
            receiver = self.parties[message.address.receiver]
            self._call(receiver.party, lambda to=receiver, what=message: to.receive(what))
        out = self.outcome
        out.results = {party.party: party.result for party in self.parties if party.done}
        out.rounds = [party.rounds for party in self.parties]
        out.sent_bytes = [party.sent_bytes for party in self.parties]
        return out


def run_active(
    program: Callable,
    *,
    seed: object = "s",
    session_types: dict[int, type[ActiveSession]] | None = None,
    limit_bytes: int = 1 << 25,
    attempt: int = 1,
    **network,
) -> Outcome:
    """Run `program(session)` at three parties; `session_types` replaces the session class of corrupt ones."""
    parties = []
    for party in range(3):
        terms = terms_of(party, seed, limit_bytes, attempt)
        session = (session_types or {}).get(party, ActiveSession)(terms, keys_of(party, seed))
        parties.append(Party(party, terms.sid, MEMBERS, session.run(program)))
    return Network(parties, **network).run()


def share_bits(
    values: Sequence[int], width: int, seed: object = "s", rng: random.Random | None = None
) -> list[BooleanShare]:
    """A fresh Boolean sharing by position, for a session of that seed."""
    generator = np.random.default_rng((rng or random).getrandbits(63))
    planes = to_planes(np.array(list(values), dtype=np.uint64), width)
    parts = [generator.integers(0, 1 << 64, planes.shape, dtype=np.uint64) for _ in range(2)]
    parts.append(planes ^ parts[0] ^ parts[1])
    sid = terms_of(0, seed).sid
    return [BooleanShare(sid, party, len(values), parts[party], parts[(party + 1) % 3]) for party in range(3)]


def share_ring(values: Sequence[int], seed: object = "s", rng: random.Random | None = None) -> list[RingShare]:
    """A fresh arithmetic sharing by position, for a session of that seed."""
    generator = np.random.default_rng((rng or random).getrandbits(63))
    plain = np.array([value % (1 << 64) for value in values], dtype=np.uint64)
    parts = [generator.integers(0, 1 << 64, plain.shape, dtype=np.uint64) for _ in range(2)]
    parts.append(plain - parts[0] - parts[1])
    sid = terms_of(0, seed).sid
    return [RingShare(sid, party, parts[party], parts[(party + 1) % 3]) for party in range(3)]
