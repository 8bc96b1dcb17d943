"""A whole federation in one process: real machines, keys, sealing and engine over an in-memory network and in-memory disks.

The network loses, repeats and reorders; a process can be killed at any of its transactions, before it is stored, after it
is stored and before anything is sent, or after sending. Everything is driven by one seeded generator, so a failing run
can be repeated. `Simulation.run()` plays a period from filing to the recipient's result.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from mpc_ops.engine import (
    Attempt,
    AttemptContext,
    GroupInputs,
    RegionInputs,
    StageShape,
    group_program,
    region_program,
)
from mpc_ops.envelope.keys import Purpose
from mpc_ops.envelope.sealing import SealingKey
from mpc_ops.errors import Abort, ComityError, DeliveryError, NotYet, PeerProtocolError, StateError
from mpc_ops.protocol.sums import CrossRoute, ResultContext, combine_parts
from mpc_ops.randomness import encode_context
from mpc_ops.ring import decode_signed, encode_signed
from mpc_ops.session import (
    FILING,
    SESSION,
    Announce,
    Ask,
    AskFiling,
    BeginAttempt,
    CheckFailed,
    DropAttempt,
    EraseParts,
    EraseSession,
    Filed,
    FilingRejected,
    FilingState,
    Frame,
    HolderClaim,
    ManifestNames,
    Proven,
    Ready,
    Refuse,
    Release,
    Retry,
    RunEnded,
    Send,
    SendClaim,
    SendReceipt,
    SessionState,
    StartWork,
    Stop,
    decode_message,
    encode_message,
    event_of,
    from_json,
    new_filing,
    new_session,
    to_json,
)
from mpc_ops.sharing import FilingContext, check_part, parts_of, read_part, share, sharing_commitments, write_part
from tests.support.core import PLAN, hex32, identity

PERIOD, EDITION, RECIPIENT, CROSSING = "2026-10", 1, "group-reporting", "cross"
POINTS = ("before store", "after store", "after send")
FRAME = "at a frame"


class Killed(Exception):
    """The process dies here."""


@dataclass
class Kill:
    """Kill `node` at its n-th transaction, or (point FRAME) when its n-th frame of a stage comes in."""

    node: str
    number: int
    point: str


@dataclass(frozen=True)
class Notice:
    """An owner's signed filing, as far as the core is concerned."""

    owner: str
    take: int
    digest: str
    commitments: tuple[str, ...]
    nil: bool


@dataclass
class Owner:
    name: str
    region: str
    values: list[int] | None  # None: nothing to report
    low: int = -(2**62)
    high: int = 2**62


@dataclass
class Packet:
    sender: str
    receiver: str
    kind: str
    body: Any


class Node:
    """One operator process: `disk` survives a crash, everything else does not."""

    def __init__(self, sim: Simulation, name: str, cluster: str, kind: str, party: int) -> None:
        self.sim, self.name, self.cluster, self.kind, self.party = sim, name, cluster, kind, party
        self.disk: dict[str, bytes] = {}
        self.identity = identity(name)
        self.sealing = sim.sealing(name)
        self.transactions = self.frames = 0
        self.seen: tuple[Attempt | None, int] = (None, 0)
        self.attempt: Attempt | None = None
        self.alive = True

    @property
    def members(self) -> tuple[str, str, str]:
        return self.sim.clusters[self.cluster]

    # -- durable state and the one rule

    def session(self) -> SessionState | None:
        data = self.disk.get("session")
        return None if data is None else from_json(SessionState, data)

    def filing(self, owner: str) -> FilingState:
        data = self.disk.get(f"filing/{owner}")
        return new_filing(PLAN, PERIOD, owner, EDITION, self.party) if data is None else from_json(FilingState, data)

    def transact(self, writes: dict[str, bytes], actions: list[Callable[[], None]]) -> None:
        self.transactions += 1
        self.sim.die_if(self, "before store")
        self.disk.update(writes)
        self.sim.die_if(self, "after store")
        for action in actions:
            action()
        self.sim.die_if(self, "after send")

    def step_session(self, event: object, writes: dict[str, bytes] | None = None) -> None:
        before = self.session()
        assert before is not None
        try:
            after, actions = SESSION.step(before, event)
        except (PeerProtocolError, StateError) as error:
            self.sim.note(self.name, error.code)
            return
        if after == before and not actions:
            return
        self.transact(
            {"session": to_json(after), **(writes or {})},
            [lambda action=action: self.act(action) for action in actions],
        )

    def step_filing(self, owner: str, event: object, writes: dict[str, bytes] | None = None) -> None:
        before = self.filing(owner)
        try:
            after, actions = FILING.step(before, event)
        except DeliveryError as error:
            self.sim.note(self.name, error.code)
            return
        if after == before and not actions:
            return
        self.transact(
            {f"filing/{owner}": to_json(after), **(writes or {})},
            [lambda action=action: self.act_filing(owner, action) for action in actions],
        )

    # -- actions

    def act(self, action: object) -> None:
        if isinstance(action, Send):
            self.sim.send(self.name, self.members[action.to], "session", encode_message(action.message))
        elif isinstance(action, BeginAttempt):
            self.drop_attempt()
            self.attempt = Attempt(self.sim.attempt_context(self, action.attempt), self.identity)
        elif isinstance(action, StartWork):
            self.start_work(action)
        elif isinstance(action, DropAttempt):
            self.drop_attempt()
        elif isinstance(action, Release):
            self.release(action.attempt)
        elif isinstance(action, Announce):
            self.announce(action)
        elif isinstance(action, EraseSession):
            for key in [key for key in self.disk if key.split("/")[0] in ("out", "cross", "part")]:
                del self.disk[key]
        else:
            raise TypeError(action)

    def act_filing(self, owner: str, action: object) -> None:
        if isinstance(action, SendClaim):
            claim = msgspec.msgpack.encode((owner, action.take, action.notice, action.ask))
            for peer in self.members:
                if peer != self.name:
                    self.sim.send(self.name, peer, "claim", claim)
        elif isinstance(action, SendReceipt):
            self.sim.receipts.add((self.name, owner, action.take))
        elif isinstance(action, EraseParts):
            for key in [key for key in self.disk if key.startswith(f"part/{owner}/")]:
                if int(key.rsplit("/", 1)[1]) <= action.take and self.filing(owner).phase != "AGREED":
                    del self.disk[key]

    def drop_attempt(self) -> None:
        self.attempt = None
        state = self.session()
        if state is not None and state.phase != "COMMITTED":
            for key in [key for key in self.disk if key.startswith("out/")]:
                del self.disk[key]

    def announce(self, action: Announce) -> None:
        self.sim.states[self.name] = (action.phase, action.code, action.pair)
        if action.phase in ("FAILED", "REFUSED"):
            for owner in self.sim.owners_of(self.cluster):
                run_id = self.filing(owner.name).run_id
                if run_id:
                    self.disk[f"filing/{owner.name}"] = to_json(
                        FILING.step(self.filing(owner.name), RunEnded(run_id, committed=False))[0]
                    )

    # -- work of an attempt

    def moved(self) -> bool:
        """Whether the attempt has got further since this was last asked."""
        before, self.seen = self.seen, (self.attempt, self.attempt.progress if self.attempt else 0)
        return self.attempt is not None and before[0] is self.attempt and self.seen[1] > before[1]

    def start_work(self, action: StartWork) -> None:
        attempt = self.attempt
        assert attempt is not None
        self.guarded(attempt, lambda: attempt.start(action.nonces, self.stage(action.attempt)))

    def guarded(self, attempt: Attempt, work: Callable[[], list[tuple[int, Any]]]) -> None:
        number = attempt.context.attempt
        try:
            for to, message in work():
                self.sim.send(self.name, self.members[to], "session", encode_message(message))
        except (Abort, PeerProtocolError) as error:
            self.step_session(CheckFailed(number, error.code, attempt.blamed(error)))
            return
        state = self.session()
        assert state is not None
        if attempt.done is not None and (state.phase, state.attempt) == ("PREPARED", number):
            self.step_session(Proven(number, attempt.done.links), self.outputs(attempt))

    def stage(self, attempt: int) -> Any:
        sim = self.sim
        if self.kind == "region":
            parts = []
            for owner in sim.owners_of(self.cluster):
                filing = self.filing(owner.name)
                if filing.phase != "INCLUDED" or filing.nil:
                    parts.append(None)
                    continue
                context = sim.context_of(owner.name, filing.take)
                part = read_part(self.disk[f"part/{owner.name}/{filing.take}"], context, self.party, sim.lanes)
                parts.append(sim.tampered(self.name, "part", part))
            shape = StageShape(kind="region", lanes=sim.lanes, ops=("region_sum", "cross"))
            inputs = RegionInputs(shape=shape, party=self.party, parts=parts, route=sim.route(self.cluster))
            return lambda flow, keys: sim.region_program(inputs, flow, keys, attempt)
        crossings = {}
        for region in sim.regions:
            route, frames = sim.route(region), {}
            for sender in range(3):
                sealed, _signature, number = msgspec.msgpack.decode(
                    self.disk[f"cross/{region}/{sender}"], type=tuple[bytes, bytes, int]
                )
                frames[sender] = self.sealing.open(sealed, sim.cross_info(route, number, sender, self.party))
            crossings[region] = (route, frames)
        shape = StageShape(kind="group", lanes=sim.lanes, ops=("group_sum", "deliver"))
        inputs = GroupInputs(shape=shape, party=self.party, crossings=crossings, result=sim.result_context(attempt))
        return lambda flow, keys: group_program(inputs, flow, keys, attempt)

    def outputs(self, attempt: Attempt) -> dict[str, bytes]:
        """Seal and sign what the attempt made; stored together with ACCEPTED, sent only on Release."""
        assert attempt.done is not None
        number, output, sim = attempt.context.attempt, attempt.done.output, self.sim
        if self.kind == "region":
            route, writes = sim.route(self.cluster), {}
            for receiver, body in enumerate(sim.tampered(self.name, "crossings", output.crossings)):
                info = sim.cross_info(route, number, self.party, receiver)
                sealed = sim.sealing(route.receivers[receiver]).public.seal(body, info)
                signature = self.identity.sign(info + sealed, Purpose.CROSS)
                writes[f"out/{number}/{receiver}"] = msgspec.msgpack.encode((sealed, signature, number))
            return writes
        part = sim.tampered(self.name, "result part", output.part)
        sealed = sim.sealing(RECIPIENT).public.seal(part, b"result")
        commitments = sim.tampered(self.name, "result commitment", output.commitments)
        return {f"out/{number}/result": msgspec.msgpack.encode((commitments, sealed))}

    def release(self, attempt: int) -> None:
        if self.kind == "region":
            for receiver in range(3):
                frame = self.disk[f"out/{attempt}/{receiver}"]
                self.sim.send(self.name, self.sim.clusters[self.sim.group][receiver], "cross", frame)
        else:
            commitments, sealed = msgspec.msgpack.decode(
                self.disk[f"out/{attempt}/result"], type=tuple[tuple[str | None, ...], bytes]
            )
            self.sim.published(self.party, attempt, commitments, sealed)

    # -- inputs

    def boot(self) -> None:
        self.attempt, self.alive = None, True
        if self.session() is not None:
            self.step_session(Retry(os.urandom(32).hex()))
        for owner in self.sim.owners_of(self.cluster):
            self.step_filing(owner.name, AskFiling())

    def on_packet(self, packet: Packet) -> None:
        getattr(self, f"on_{packet.kind}")(packet.sender, packet.body)

    def on_session(self, sender: str, body: bytes) -> None:
        state = self.session()
        if state is None:
            return
        message, position = decode_message(body), self.members.index(sender)
        event = event_of(message, position, os.urandom(32).hex())
        if event is not None:
            self.step_session(event)
            return
        if isinstance(message, Frame):
            self.frames += 1
            self.sim.die_if(self, FRAME)
        attempt = self.attempt
        if attempt is not None and message.attempt == state.attempt and state.phase in ("PREPARED", "ACCEPTED"):
            self.guarded(attempt, lambda: attempt.receive(position, message))

    def on_claim(self, sender: str, body: bytes) -> None:
        owner, take, notice, ask = msgspec.msgpack.decode(body, type=tuple[str, int, str, bool])
        self.step_filing(owner, HolderClaim(self.members.index(sender), take, notice, ask))

    def on_part(self, sender: str, body: tuple[Notice, bytes | None]) -> None:
        notice, sealed = body
        context = self.sim.context_of(notice.owner, notice.take)
        if self.filing(notice.owner).take >= notice.take and self.filing(notice.owner).phase != "REJECTED":
            self.step_filing(notice.owner, Filed(notice.take, notice.digest, notice.nil))
            return
        if sealed is None:
            self.step_filing(notice.owner, Filed(notice.take, notice.digest, nil=True))
            return
        try:
            data = self.sealing.open(sealed, b"part")
            check_part(read_part(data, context, self.party, self.sim.lanes), notice.commitments)
        except PeerProtocolError as error:
            self.sim.note(self.name, error.code)
            self.step_filing(notice.owner, FilingRejected(notice.take, error.code))
            return
        self.step_filing(notice.owner, Filed(notice.take, notice.digest), {f"part/{notice.owner}/{notice.take}": data})

    def on_manifest(self, _sender: str, manifest: dict[str, Notice]) -> None:
        if self.session() is None:
            self.transact(
                {"session": to_json(new_session(self.sim.run_id, self.cluster, self.kind, self.members, self.party))},
                [],
            )
        state = self.session()
        assert state is not None
        if state.phase != "IDLE":
            return
        if self.kind == "group":
            self.ready_if_complete()
            return
        try:
            for owner in self.sim.owners_of(self.cluster):
                notice = manifest[owner.name]
                self.step_filing(owner.name, ManifestNames(self.sim.run_id, notice.take, notice.digest))
        except StateError as error:
            self.step_session(Refuse(error.code))
            return
        self.step_session(Ready(os.urandom(32).hex()))

    def on_cross(self, sender: str, body: bytes) -> None:
        region = next(name for name in self.sim.regions if sender in self.sim.clusters[name])
        party = self.sim.clusters[region].index(sender)
        key = f"cross/{region}/{party}"
        sealed, signature, number = msgspec.msgpack.decode(body, type=tuple[bytes, bytes, int])
        info = self.sim.cross_info(self.sim.route(region), number, party, self.party)
        if not identity(sender).public.verify(signature, info + sealed, Purpose.CROSS):
            self.sim.note(self.name, "SIGNATURE_INVALID")
            return
        if key not in self.disk:
            self.transact({key: body}, [])
        assert self.disk[key] == body, "a crossing frame is the same bytes each time"
        self.ready_if_complete()

    def ready_if_complete(self) -> None:
        state = self.session()
        here = all(f"cross/{region}/{sender}" in self.disk for region in self.sim.regions for sender in range(3))
        if state is not None and state.phase == "IDLE" and here:
            self.step_session(Ready(os.urandom(32).hex()))

    def on_stop(self, _sender: str, code: str) -> None:
        if self.session() is not None:
            self.step_session(Stop(code))

    def ask(self) -> None:
        for owner in self.sim.owners_of(self.cluster):
            self.step_filing(owner.name, AskFiling())
        state = self.session()
        if state is None:
            return
        self.step_session(Ask())
        if self.attempt is not None and state.phase in ("PREPARED", "ACCEPTED"):
            for to, message in self.attempt.repeat():
                self.sim.send(self.name, self.members[to], "session", encode_message(message))


@dataclass
class Simulation:
    """A federation, a period and a schedule of faults.

    Attributes:
        owners: who files what; the owners' regions are the federation's regions.
        seed: of the scheduler (order, loss, duplication).
        loss, duplicate: probabilities per packet.
        kills: crashes to carry out.
        region_program: the region's stage.
        patience: every how many questions a session without progress times out.
        tamper: (node, place) -> function that alters what a corrupt operator handles there.
    """

    owners: list[Owner]
    seed: int = 0
    loss: float = 0.0
    duplicate: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    tamper: dict[tuple[str, str], Callable[[Any], Any]] = field(default_factory=dict)
    group: str = "group"
    region_program: Callable[..., Any] = region_program
    patience: int = 3

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.regions = sorted({owner.region for owner in self.owners})
        self.clusters: dict[str, tuple[str, str, str]] = {
            name: (f"{name}-1", f"{name}-2", f"{name}-3") for name in self.regions
        }
        self.clusters[self.group] = ("nl-1", "ch-1", "sg-1")
        self.lanes = max(len(owner.values) for owner in self.owners if owner.values is not None)
        self.run_id = hex32("run", self.seed)
        self._sealing: dict[str, SealingKey] = {}
        self.queue: list[Packet] = []
        self.receipts: set[tuple[str, str, int]] = set()
        self.states: dict[str, tuple[str, str, tuple[str, ...]]] = {}
        self.notes: list[tuple[str, str]] = []
        self.bytes: dict[str, int] = {}
        self.parts: dict[tuple[int, int], bytes] = {}
        self.commitments: dict[tuple[int, int], tuple[str | None, ...]] = {}
        self.results: set[bytes] = set()
        self.result: np.ndarray | None = None
        self.recipient_error: ComityError | None = None
        self.nodes: dict[str, Node] = {}
        for cluster, members in self.clusters.items():
            for party, name in enumerate(members):
                kind = "group" if cluster == self.group else "region"
                self.nodes[name] = Node(self, name, cluster, kind, party)
        self.filings = {owner.name: self.file(owner) for owner in self.owners}

    # -- the federation's agreements

    def sealing(self, name: str) -> SealingKey:
        return _sealing_key(name)

    def owners_of(self, cluster: str) -> list[Owner]:
        return [owner for owner in self.owners if owner.region == cluster]

    def context_of(self, owner: str, take: int) -> FilingContext:
        return FilingContext(plan_digest=PLAN, period=PERIOD, owner=owner, edition=EDITION, take=take)

    def route(self, region: str) -> CrossRoute:
        return CrossRoute(
            run_id=self.run_id, source=region, target=self.group, crossing=CROSSING, lanes=self.lanes,
            senders=self.clusters[region], receivers=self.clusters[self.group],
        )  # fmt: skip

    def cross_info(self, route: CrossRoute, attempt: int, sender: int, receiver: int) -> bytes:
        return encode_context("cross", route.digest(attempt, sender, receiver))

    def result_context(self, attempt: int) -> ResultContext:
        return ResultContext(
            run_id=self.run_id, cluster=self.group, recipient=RECIPIENT, attempt=attempt, lanes=self.lanes,
            members=self.clusters[self.group],
        )  # fmt: skip

    def attempt_context(self, node: Node, attempt: int) -> AttemptContext:
        first, second, third = (identity(name).public for name in node.members)
        return AttemptContext(
            run_id=self.run_id, cluster=node.cluster, attempt=attempt, kind=node.kind, party=node.party,
            members=node.members, keys=(first, second, third), federation_digest=hex32("federation"), plan_digest=PLAN,
            period=PERIOD, manifest_digest=hex32("manifest", self.run_id),
        )  # fmt: skip

    # -- owners and recipient

    def file(self, owner: Owner, take: int = 1) -> tuple[Notice, dict[str, bytes | None]]:
        """Share and seal once per take; a resend is the same bytes."""
        members, context = self.clusters[owner.region], self.context_of(owner.name, take)
        if owner.values is None:
            notice = Notice(owner.name, take, hex32("nil", owner.name, take, self.seed), (), nil=True)
            return notice, dict.fromkeys(members)
        sharing = share(encode_signed(owner.values, owner.low, owner.high))
        commitments = sharing_commitments(sharing, context)
        notice = Notice(
            owner.name, take, hashlib.sha256("".join(commitments).encode()).hexdigest(), commitments, nil=False
        )
        sealed: dict[str, bytes | None] = {}
        for name, part in zip(members, parts_of(sharing, context), strict=True):
            part = self.tampered(owner.name, f"part for {name}", part)  # noqa: PLW2901
            sealed[name] = self.sealing(name).public.seal(write_part(part), b"part")
        return notice, sealed

    def published(self, party: int, attempt: int, commitments: tuple[str | None, ...], sealed: bytes) -> None:
        """The recipient's side of Release; it must see one attempt and the same bytes each time."""
        assert self.commitments.setdefault((attempt, party), commitments) == commitments
        assert self.parts.setdefault((attempt, party), sealed) == sealed
        self.bytes["result"] = self.bytes.get("result", 0) + len(sealed)

    def fetch(self, using: tuple[int, ...] = (0, 1, 2)) -> None:
        for attempt in {attempt for attempt, _ in self.parts}:
            parts = {
                party: self.sealing(RECIPIENT).open(sealed, b"result")
                for (number, party), sealed in self.parts.items()
                if number == attempt and party in using
            }
            commitments = {party: said for (number, party), said in self.commitments.items() if number == attempt}
            try:
                vector = combine_parts(self.result_context(attempt), parts, commitments)
            except NotYet:
                continue
            except ComityError as error:
                self.recipient_error = error
                continue
            self.result = decode_signed(vector, -(2**63), 2**63 - 1)
            self.results.add(self.result.tobytes())

    # -- network and faults

    def tampered(self, node: str, place: str, value: Any) -> Any:
        return self.tamper.get((node, place), lambda same: same)(value)

    def note(self, node: str, code: str) -> None:
        self.notes.append((node, code))

    def send(self, sender: str, receiver: str, kind: str, body: Any) -> None:
        if kind == "cross":
            self.bytes["cross"] = self.bytes.get("cross", 0) + len(body)
        copies = 2 if self.rng.random() < self.duplicate else 1
        for _ in range(copies):
            if self.rng.random() >= self.loss:
                self.queue.append(Packet(sender, receiver, kind, body))

    def die_if(self, node: Node, point: str) -> None:
        for kill in self.kills:
            number = node.frames if point == FRAME else node.transactions
            if (kill.node, kill.number, kill.point) == (node.name, number, point):
                self.kills.remove(kill)
                raise Killed

    def call(self, node: Node, work: Callable[[], None]) -> None:
        try:
            work()
        except Killed:
            # Memory is gone; the start-up may be killed as well.
            node.attempt = None
            self.call(node, node.boot)

    # -- the play

    def deliver_all(self) -> int:
        count = 0
        while self.queue:
            packet = self.queue.pop(self.rng.randrange(len(self.queue)))
            node = self.nodes[packet.receiver]
            self.call(node, lambda packet=packet, node=node: node.on_packet(packet))
            count += 1
            assert count < 50_000, "the machines talk for ever"
        return count

    def externals(self) -> None:
        """Owners deliver until they hold three receipts, group reporting posts its manifest until every operator has it."""
        for owner in self.owners:
            notice, sealed = self.filings[owner.name]
            for name in self.clusters[owner.region]:
                if (name, owner.name, notice.take) not in self.receipts:
                    self.queue.append(Packet(owner.name, name, "part", (notice, sealed[name])))
        if self.closable():
            manifest = {owner: notice for owner, (notice, _) in self.filings.items()}
            for name, node in self.nodes.items():
                state = node.session()
                if state is None or state.phase == "IDLE":
                    self.queue.append(Packet(RECIPIENT, name, "manifest", manifest))

    def closable(self) -> bool:
        return all(
            (name, owner.name, self.filings[owner.name][0].take) in self.receipts
            for owner in self.owners
            for name in self.clusters[owner.region]
        )

    def phases(self) -> dict[str, str]:
        return {name: state.phase for name, node in self.nodes.items() if (state := node.session()) is not None}

    def ended(self) -> bool:
        phases = self.phases()
        over = {"COMMITTED", "FAILED", "REFUSED"}
        return len(phases) == len(self.nodes) and all(phase in over for phase in phases.values())

    def failed(self) -> bool:
        return any(phase in ("FAILED", "REFUSED") for phase in self.phases().values())

    def run(self, rounds: int = 40) -> None:
        """Play until every session has ended, or the owners' filings are rejected for good, or rounds are used up."""
        for number in range(rounds):
            self.externals()
            progress = self.deliver_all()
            if self.failed():
                self.tell_failure()
                self.deliver_all()
            if self.ended():
                break
            for node in list(self.nodes.values()):
                self.call(node, node.ask)
            progress += self.deliver_all()
            if number % self.patience == self.patience - 1 or not progress:
                self.time_out()
                self.deliver_all()
        self.fetch()

    def tell_failure(self) -> None:
        """A failed region's signed state stops the group's session and, through it, the run."""
        group = self.clusters[self.group]
        for name in group:
            if self.nodes[name].session() is not None:
                self.queue.append(Packet(RECIPIENT, name, "stop", "REGION_FAILED"))

    def time_out(self) -> None:
        for node in list(self.nodes.values()):
            state = node.session()
            if state is not None and state.phase in ("PREPARED", "ACCEPTED") and not node.moved():
                self.call(node, lambda node=node: node.step_session(Retry(os.urandom(32).hex())))


_KEYS: dict[str, SealingKey] = {}


def _sealing_key(name: str) -> SealingKey:
    if name not in _KEYS:
        _KEYS[name] = SealingKey.generate()
    return _KEYS[name]


def small_federation(regions: int = 1, owners: int = 2, lanes: int = 3, seed: int = 0) -> list[Owner]:
    """Owners with random values within +-2^40."""
    rng = random.Random(seed)
    names = ["de", "cn", "in", "sa"][:regions]
    return [
        Owner(
            f"{names[number % regions]}-owner{number}",
            names[number % regions],
            [rng.randrange(-(2**40), 2**40) for _ in range(lanes)],
        )
        for number in range(max(owners, regions))
    ]


def plain_sum(owners: list[Owner], lanes: int) -> np.ndarray:
    """What the report must say."""
    total = [sum(owner.values[lane] for owner in owners if owner.values is not None) for lane in range(lanes)]
    return np.array(total, dtype=np.int64)
