"""Three parties of an active session in one process: a network with any schedule and an adversary, and fresh sharings."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mpc_ops.errors import ComityError
from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.core.flow import ActiveFlow, PassiveFlow
from mpc_ops.protocol.core.opening import open_to_all
from mpc_ops.protocol.core.party import Address, Message, Party
from mpc_ops.protocol.core.session import ActiveSession, PassiveSession
from mpc_ops.protocol.core.shares import (
    BooleanShare,
    CounterShare,
    PassiveBooleanShare,
    PassiveCounterShare,
    PassiveRingShare,
    RingShare,
)
from mpc_ops.protocol.core.stage import ActiveStage
from mpc_ops.protocol.core.terms import DEFAULT_LIMIT_BYTES, PartyKeys, SessionTerms
from mpc_ops.protocol.proofs.and_kernels import BlockLayout, Side, pad_words
from mpc_ops.protocol.proofs.proof_and import (
    AndLog,
    AndProof,
    AndProver,
    FinalValues,
    LeftVerifier,
    RightVerifier,
    values_fit,
)
from mpc_ops.ring.field61 import PrimeField
from mpc_ops.ring.planes import to_planes
from tests.support.core import pair_keys

MEMBERS = ("de-1", "de-2", "de-3")
Mutate = Callable[[Message], list[Message]]


def terms_of(party: int, seed: object = "s", limit_bytes: int = DEFAULT_LIMIT_BYTES, attempt: int = 1) -> SessionTerms:
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
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
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


def run_passive(program: Callable, *, seed: object = "s", attempt: int = 1, **network) -> Outcome:
    """Run `program(session)` at three parties of a passive session."""
    parties = []
    for party in range(3):
        terms = terms_of(party, seed, attempt=attempt)
        parties.append(Party(party, terms.sid, MEMBERS, program(PassiveSession(terms, keys_of(party, seed)))))
    return Network(parties, **network).run()


def run_flow(program: Callable, *, security: str = "active", **options) -> Outcome:
    """Run `program(flow)` at three parties and finish the flow; `security` says which kind of session."""
    kind, run = (ActiveFlow, run_active) if security == "active" else (PassiveFlow, run_passive)

    def whole(session):
        flow = kind(session, "flow")
        result = yield from program(flow)
        yield from flow.finish()
        return result

    return run(whole, **options)


def as_passive(
    share: BooleanShare | RingShare | CounterShare,
) -> PassiveBooleanShare | PassiveRingShare | PassiveCounterShare:
    """The same components as a share of a passive session."""
    if isinstance(share, RingShare):
        return PassiveRingShare(share.session, share.party, share.first, share.second)
    if isinstance(share, CounterShare):
        return PassiveCounterShare(share.session, share.party, share.first, share.second)
    return PassiveBooleanShare(share.session, share.party, share.count, share.first, share.second)


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


def share_counters(values: Sequence[int], seed: object = "s", rng: random.Random | None = None) -> list[CounterShare]:
    """A fresh sharing over Z_2^32 by position, for a session of that seed."""
    generator = np.random.default_rng((rng or random).getrandbits(63))
    plain, mask = np.array([value % (1 << 32) for value in values], dtype=np.uint64), np.uint64((1 << 32) - 1)
    parts = [generator.integers(0, 1 << 32, plain.shape, dtype=np.uint64) for _ in range(2)]
    parts.append((plain - parts[0] - parts[1]) & mask)
    sid = terms_of(0, seed).sid
    return [CounterShare(sid, party, parts[party], parts[(party + 1) % 3]) for party in range(3)]


class TinyField(PrimeField):
    """A prime field in which false accepts can be seen."""

    def __init__(self, p: int) -> None:
        self.p = p

    def reduce(self, words):
        return words % np.uint64(self.p)

    def mul(self, left, right):
        return left * right % np.uint64(self.p)

    def combine(self, rows, coefficients):
        return (self.array(coefficients)[:, None] * rows % np.uint64(self.p)).sum(axis=0) % np.uint64(self.p)

    def cross(self, left, right):
        lanes = len(left)
        product = left @ right.T % np.uint64(self.p)
        return [int(product.diagonal(-degree).sum()) % self.p for degree in range(-(lanes - 1), lanes)]


SMALL_LAYOUT = BlockLayout(lanes=4, slots=1, inner=(4, 8), inner_slots=1, last=8)
"""64 gates a word, 4 words a block: a proof of 4 words has levels 4, 4, 8, last (8 elements)."""


@dataclass
class Gates:
    """Gate words of all three parties: component c of the inputs, the output and the masks."""

    x: list[np.ndarray]
    y: list[np.ndarray]
    z: list[np.ndarray]
    r: list[np.ndarray]

    @classmethod
    def random(cls, words: int, rng: np.random.Generator) -> Gates:
        draw = [[rng.integers(0, 1 << 64, words, dtype=np.uint64) for _ in range(3)] for _ in range(3)]
        x, y, r = draw
        z = []
        for i in range(3):
            j = (i + 1) % 3
            z.append((x[i] & (y[i] ^ y[j])) ^ (x[j] & y[i]) ^ r[i] ^ r[j])
        return cls(x, y, z, r)

    def left(self, i: int, layout: BlockLayout) -> Side:
        e = (self.x[i] & self.y[i]) ^ self.z[i] ^ self.r[i]
        return Side(*(pad_words([part], layout) for part in (self.x[i], self.y[i], e)))

    def right(self, i: int, layout: BlockLayout) -> Side:
        j = (i + 1) % 3
        return Side(*(pad_words([part], layout) for part in (self.x[j], self.y[j], self.r[j])))


@dataclass
class Trial:
    """One proof of prover 0 with its two verifiers, without a network; hooks bend single steps."""

    gates: Gates
    layout: BlockLayout
    prime_field: PrimeField
    rng: random.Random
    prover_type: type[AndProver] = AndProver
    on_message: Callable[[int, list[int]], list[int]] | None = None
    seed_of: Callable[[int], bytes] | None = None
    left: FinalValues | None = None
    right: FinalValues | None = None
    stated: tuple[FinalValues, FinalValues] | None = None

    def run(self) -> bool:
        keys = (self.rng.randbytes(32), self.rng.randbytes(32))
        words = self.layout.padded(len(self.gates.x[0]))
        proof = AndProof(("test",), 0, words, self.layout, self.prime_field)
        sides = self.gates.left(0, self.layout), self.gates.right(0, self.layout)
        self.prover = prover = self.prover_type(proof, *sides, keys)
        left, right = LeftVerifier(proof, sides[0], keys[0]), RightVerifier(proof, sides[1], keys[1])
        for level in range(proof.levels):
            message = prover.message()
            if self.on_message:
                values = self.on_message(level, np.frombuffer(message, dtype="<u8").tolist())
                message = np.array(values, dtype="<u8").tobytes()
            left.take(message)
            right.take()
            seed = self.seed_of(level) if self.seed_of else self.rng.randbytes(32)
            if level < proof.levels - 1:
                for role in (prover, left, right):
                    role.fold(seed)
        self.left, self.right = left.final(seed), right.final(seed)
        self.stated = prover.statement(seed)
        return values_fit(self.left, self.right, self.prime_field)


def small_proofs(monkeypatch) -> None:
    """Let the sessions of a test prove in small blocks, so that a proof takes milliseconds."""
    monkeypatch.setattr(AndLog, "layout", SMALL_LAYOUT)


def run_circuits(circuits: Callable, **options) -> list[np.ndarray]:
    """Evaluate `circuits(party)` in one stage, open all results and insist that the parties agree."""

    def program(session):
        stage = session.stage("one")
        results = yield from evaluate(stage, "c", circuits(stage.party))
        token = yield from stage.barrier()
        return (yield from open_to_all(stage, token, results))

    out = run_active(program, **options)
    assert not out.errors, out.errors
    first = out.results[0]
    for party in (1, 2):
        assert all(np.array_equal(one, other) for one, other in zip(first, out.results[party], strict=True))
    return first


Bend = Callable[[str, str, bytes], bytes]
"""(step, "prev" or "next", honest body) -> what a corrupt party sends, and notes in its own transcript."""


def corrupt_session(bend: Bend) -> type[ActiveSession]:
    """A session type whose outbound messages are bent before the party's own transcript sees them.

    So FLUSHED agrees on both ends, as with a party that lies consistently; only proofs and checks can find it.
    """

    class CorruptStage(ActiveStage):
        def exchange(self, step, *, to_prev=b"", to_next=b"", expect_prev=0, expect_next=0):
            to_prev = bend(step, "prev", to_prev) if to_prev else to_prev
            to_next = bend(step, "next", to_next) if to_next else to_next
            return (
                yield from super().exchange(
                    step, to_prev=to_prev, to_next=to_next, expect_prev=expect_prev, expect_next=expect_next
                )
            )

    class CorruptSession(ActiveSession):
        stage_type = CorruptStage

    return CorruptSession


def flip(body: bytes, rng: random.Random) -> bytes:
    """Flip one bit."""
    place = rng.randrange(8 * len(body))
    out = bytearray(body)
    out[place // 8] ^= 1 << (place % 8)
    return bytes(out)
