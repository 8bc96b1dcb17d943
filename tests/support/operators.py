"""Operators under test: in one process with in-memory links (`Net`), and as real processes (`start_operators`).

`Desk` plays owners and recipient: it files with mpc_ops.sharing, closes, fetches and reconstructs.
"""

from __future__ import annotations

import base64
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.keys import Purpose
from mpc_ops.envelope.sealing import SealingPublicKey
from mpc_ops.notices.model import Ack, Filed, Manifest, Part, PeriodKeyNotice, ResultCommitment, SignOff
from mpc_ops.notices.signed import SignedNotice, parse_notice, run_id_of, sign_notice, utc_text
from mpc_ops.plan.layout import lane_count
from mpc_ops.plan.model import Plan
from mpc_ops.protocol.sums import ResultContext, combine_parts
from mpc_ops.server.config import OperatorConfig, create_operator_home
from mpc_ops.server.context import EventLog
from mpc_ops.server.filings import part_info
from mpc_ops.server.notices import Source
from mpc_ops.server.operator import Operator
from mpc_ops.server.routing import peers_of
from mpc_ops.server.signoffs import sign_off_message
from mpc_ops.server.stage_group import result_info
from mpc_ops.server.supervise import Supervisor, free_ports, operator_process
from mpc_ops.sharing import FilingContext, commitment, parts_of, share, sharing_commitments, unit_planes, write_part
from mpc_ops.transport.peers import PeerHello
from mpc_ops.transport.tls import client_context
from tests.support.federation import GROUP_SEATS, RECIPIENT, MadeFederation, make_approval, make_reference, make_release

PERIOD = "2026-01"


class _Quiet(EventLog):
    """Collects log lines in memory."""

    def __init__(self, operator: str) -> None:
        super().__init__(operator)
        self.lines: list[tuple[str, dict[str, str]]] = []

    def __call__(self, event: str, **ids: object) -> None:
        self.lines.append((event, {name: str(value) for name, value in ids.items() if value is not None}))


@dataclass
class _Post:
    net: Net
    me: str

    def up(self, peer: str) -> bool:
        return self.net.linked(self.me, peer)

    def post(self, peer: str, kind: int, payload: bytes) -> None:
        if self.up(peer):
            self.net.queue.append((self.me, peer, kind, payload))


class Net:
    """Operators in one process; messages are delivered in order of sending by `run`. The clock is virtual.

    `tamper` may change or drop (None) a message: (sender, receiver, kind, payload) -> payload.
    """

    def __init__(self, root: Path, made: MadeFederation, *, limits: Mapping[str, float] | None = None) -> None:
        self.made, self.root = made, root
        self.now = datetime.now(tz=UTC).replace(microsecond=0)
        self.queue: deque[tuple[str, str, int, bytes]] = deque()
        self.cut: set[frozenset[str]] = set()
        self.tamper: Callable[[str, str, int, bytes], bytes | None] | None = None
        self.operators: dict[str, Operator] = {}
        self.logs: dict[str, _Quiet] = {}
        self.sent: Counter[str] = Counter()
        self.configs: dict[str, OperatorConfig] = {}
        for name in made.federation.terms.operators:
            self.configs[name] = create_operator_home(
                made.homes[name], name, made.folder, limits={"settle_s": 5.0, **(limits or {})}
            )
            self.start(name)

    def start(self, name: str) -> Operator:
        self.logs[name] = _Quiet(name)
        operator = Operator(self.configs[name], _Post(self, name), log=self.logs[name], utc=lambda: self.now)
        operator.start()
        self.operators[name] = operator
        for peer in peers_of(self.made.federation, name):
            self.connect(name, peer)
        return operator

    def connect(self, one: str, other: str) -> None:
        """Exchange hellos as the links do, then tell both that the link is up."""
        if not self.linked(one, other):
            return
        first, second = self.operators[one], self.operators[other]
        for a, b in ((first, second), (second, first)):
            b.on_hello(a.context.id, PeerHello(a.context.id, a.context.boot, 1, a.hello(b.context.id)))
        first.link_up(other)
        second.link_up(one)

    def linked(self, one: str, other: str) -> bool:
        return one in self.operators and other in self.operators and frozenset((one, other)) not in self.cut

    def kill(self, name: str) -> None:
        """As SIGKILL: what is not in the journal is gone, and so is what is on the wire to and from it."""
        self.operators.pop(name).close()
        self.queue = deque(item for item in self.queue if name not in item[:2])

    def close(self) -> None:
        for operator in self.operators.values():
            operator.close()

    def deliver(self) -> bool:
        if not self.queue:
            return False
        sender, receiver, kind, payload = self.queue.popleft()
        data = payload if self.tamper is None else self.tamper(sender, receiver, kind, payload)
        if data is not None and self.linked(sender, receiver):
            self.sent[f"{sender}>{receiver}"] += 1
            self.operators[receiver].on_message(sender, kind, data)
        return True

    def settle(self) -> None:
        """Deliver until nothing is under way, with one look at every spool."""
        for operator in list(self.operators.values()):
            operator.scan()
        while self.deliver():
            pass

    def run(self, seconds: float = 3.0, *, step: float = 1.0) -> None:
        """Let virtual time pass: settle, move the clock, tick, settle."""
        self.settle()
        passed = 0.0
        while passed < seconds:
            self.now += timedelta(seconds=step)
            passed += step
            for operator in list(self.operators.values()):
                operator.tick()
            self.settle()

    def events(self, name: str, event: str) -> list[dict[str, str]]:
        return [ids for found, ids in self.logs[name].lines if found == event]


@dataclass
class Sealed:
    """A filing as an owner has it before delivery."""

    filed: SignedNotice
    parts: dict[str, bytes]
    values: np.ndarray


@dataclass
class Desk:
    """Owners' and recipient's side, working on folders and bytes only."""

    made: MadeFederation
    plan: Plan
    spools: Mapping[str, Path]
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(tz=UTC))
    reference: SignedNotice | None = None

    @property
    def lanes(self) -> int:
        return lane_count(self.plan)

    def owners(self) -> list[str]:
        return self.made.owners

    def inbox(self, operator: str, owner: str) -> Path:
        folder = self.spools[operator] / "inbox" / owner
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def outbox(self, operator: str, owner: str, kind: str) -> list[SignedNotice]:
        folder = self.spools[operator] / "outbox" / owner / kind
        return [parse_notice(path.read_bytes()) for path in sorted(folder.glob("*.dsse"))]

    def put(self, operator: str, owner: str, name: str, data: bytes) -> None:
        draft = self.inbox(operator, owner) / f"{name}.x.part"
        draft.write_bytes(data)
        draft.rename(self.inbox(operator, owner) / name)

    def put_notice(self, owner: str, signed: SignedNotice, *, operators: Iterable[str] | None = None) -> None:
        for operator in operators or self.made.federation.operators_of(owner):
            self.put(operator, owner, f"notice.{signed.digest}", signed.envelope.to_bytes())

    def keys(self, owner: str, period: str, edition: int = 1) -> dict[str, str]:
        found = {}
        for operator in self.made.federation.operators_of(owner):
            for signed in self.outbox(operator, owner, "period_key"):
                notice = signed.expect(PeriodKeyNotice)
                if (notice.plan, notice.period, notice.edition) == (self.plan.digest, period, edition):
                    found[notice.operator] = notice.key
        return found

    def seal(
        self, owner: str, values: np.ndarray, *, period: str = PERIOD, edition: int = 1, take: int = 1,
        alter: Callable[[str, object], object] | None = None, signers: Iterable[str] | None = None,
        tables: Sequence[np.ndarray] = (), **change: object,
    ) -> Sealed:  # fmt: skip
        """Share, seal and sign. `alter(operator, part)` may change a PartPayload, `change` members of the notice.

        `tables`: rows of bits of the protected units, one table per slice, where the Gate stands in the region.
        """
        where = FilingContext(plan_digest=self.plan.digest, period=period, owner=owner, edition=edition, take=take)
        planes = [unit_planes(np.asarray(rows, dtype=bool)) for rows in tables]
        sharing = share(np.asarray(values, dtype=np.int64).astype(np.uint64), planes=planes)
        operators = self.made.federation.operators_of(owner)
        base = Filed(
            plan=self.plan.digest, period=period, owner=owner, edition=edition, take=take, kind_of="data",
            created_at=utc_text(self.clock()), reference=self.reference.digest if self.reference else None,
            parts=[], commitments=list(sharing_commitments(sharing, where)),
            contribution=commitment(bytes(32), ("contribution", owner, take), b"figures"), sign_offs=[],
            gate_k=10, tie_out="none",
        )  # fmt: skip
        base = _replace(base, **{name: value for name, value in change.items() if name != "parts"})
        keys = self.keys(owner, period, edition)
        boxes = {}
        for operator, part in zip(operators, parts_of(sharing, where), strict=True):
            body = write_part(part if alter is None else alter(operator, part))
            boxes[operator] = SealingPublicKey.from_text(keys[operator]).seal(body, part_info(base, operator))
        parts = [Part(operator=o, sha256=sha256_hex(box), size=len(box)) for o, box in boxes.items()]
        filed = self.sign(_replace(base, parts=change.get("parts", parts)), signers)
        return Sealed(filed, boxes, np.asarray(values, dtype=np.int64))

    def sign(self, filed: Filed, signers: Iterable[str] | None = None) -> SignedNotice:
        message = sign_off_message(filed)
        people = self.made.signers(filed.owner)
        offs = [
            SignOff(signer=name, signature=base64.b64encode(people[name].sign(message, Purpose.SIGN_OFF)).decode())
            for name in (list(people)[: self.plan.terms.sign_off] if signers is None else signers)
        ]
        return sign_notice(_replace(filed, sign_offs=offs), self.made.keys[filed.owner])

    def nil(self, owner: str, *, period: str = PERIOD, edition: int = 1, take: int = 1) -> Sealed:
        filed = Filed(
            plan=self.plan.digest, period=period, owner=owner, edition=edition, take=take, kind_of="nil",
            created_at=utc_text(self.clock()), reference=None, parts=[], commitments=[],
            contribution=commitment(bytes(32), ("contribution", owner, take), b"nil"), sign_offs=[], gate_k=10,
            tie_out="none",
        )  # fmt: skip
        return Sealed(self.sign(filed), {}, np.zeros(self.lanes, dtype=np.int64))

    def deliver(self, sealed: Sealed, *, operators: Iterable[str] | None = None) -> Sealed:
        owner = sealed.filed.expect(Filed).owner
        for operator in operators or self.made.federation.operators_of(owner):
            if operator in sealed.parts:
                box = sealed.parts[operator]
                (part,) = (p for p in sealed.filed.expect(Filed).parts if p.operator == operator)
                self.put(operator, owner, f"part.{part.sha256}", box)
            self.put_notice(owner, sealed.filed, operators=[operator])
        return sealed

    def receipts(self, sealed: Sealed) -> set[str]:
        owner = sealed.filed.expect(Filed).owner
        return {
            signed.notice.operator
            for operator in self.made.federation.operators_of(owner)
            for signed in self.outbox(operator, owner, "receipt")
            if signed.notice.filing == sealed.filed.digest
        }

    def rejections(self, digest: str, owner: str) -> dict[str, str]:
        """Return {operator: code} of rejections of a notice."""
        return {
            signed.notice.operator: signed.notice.code
            for operator in self.made.federation.operators_of(owner)
            for signed in self.outbox(operator, owner, "rejected")
            if signed.notice.filing == digest
        }

    def manifest(
        self, filings: Iterable[Sealed], *, period: str = PERIOD, edition: int = 1, **change: object
    ) -> SignedNotice:
        federation = self.made.federation
        now = self.clock()
        manifest = Manifest(
            plan=self.plan.digest, period=period, edition=edition, recipient=RECIPIENT,
            membership=federation.membership_digest, directory=federation.directory_digest,
            reference=self.reference.digest if self.reference else None,
            filings=sorted(sealed.filed.digest for sealed in filings),
            created_at=utc_text(now), give_up_at=utc_text(now + timedelta(hours=1)),
        )  # fmt: skip
        return sign_notice(_replace(manifest, **change), self.made.keys[RECIPIENT])

    def ack(self, manifest: SignedNotice) -> SignedNotice:
        notice = Ack(run=run_id_of(manifest), recipient=RECIPIENT, created_at=utc_text(self.clock()))
        return sign_notice(notice, self.made.keys[RECIPIENT])

    def combine(
        self, manifest: SignedNotice, parts: Mapping[str, bytes], commitments: Iterable[SignedNotice]
    ) -> np.ndarray:
        """Open the sealed parts and reconstruct, as the recipient does; values as signed integers."""
        members = tuple(self.made.federation.cluster("group").operators)
        said = {signed.notice.operator: signed.expect(ResultCommitment) for signed in commitments}
        run = run_id_of(manifest)
        context = ResultContext(
            run_id=run, cluster="group", recipient=RECIPIENT, attempt=next(iter(said.values())).attempt,
            lanes=self.lanes, members=members,
        )  # fmt: skip
        opened = {
            members.index(name): self.made.sealing[RECIPIENT].open(part, result_info(run, name, RECIPIENT))
            for name, part in parts.items()
        }
        vector = combine_parts(context, opened, {members.index(n): tuple(c.commitments) for n, c in said.items()})
        return vector.astype(np.int64)


def _replace(model, **changes):
    return type(model)(**({name: getattr(model, name) for name in model.__struct_fields__} | changes))


@dataclass
class World:
    """An in-memory federation with a released, approved report and open periods."""

    net: Net
    desk: Desk
    release: SignedNotice

    def post(self, signed: SignedNotice) -> None:
        """Put a recipient's notice to the group operators, without the API's own checks."""
        for name in self.net.made.federation.cluster("group").operators:
            if name in self.net.operators:
                operator = self.net.operators[name]
                with operator.context.unit():
                    operator.book.accept(signed.envelope.to_bytes(), Source("api", RECIPIENT))
        self.net.settle()

    def file_all(self, seed: int = 1, **more) -> list[Sealed]:
        random = np.random.default_rng(seed)
        out = []
        for owner in self.desk.owners():
            values = random.integers(-(10**9), 10**9, self.desk.lanes)
            out.append(self.desk.deliver(self.desk.seal(owner, values, **more)))
        self.net.settle()
        return out

    def states(self, run: str) -> dict[str, str]:
        out = {}
        for name, operator in self.net.operators.items():
            for state in operator.sessions.of_run(run):
                out[f"{name}@{state.cluster}"] = state.phase if not state.code else f"{state.phase}({state.code})"
        return out

    def result(self, manifest: SignedNotice) -> np.ndarray:
        run = run_id_of(manifest)
        names = self.net.made.federation.cluster("group").operators
        parts = {name: self.net.operators[name].groups.part(run) for name in names}
        commitments = self.net.operators[names[0]].book.find("result", run=run)
        return self.desk.combine(manifest, parts, commitments)


def make_world(root: Path, made: MadeFederation, plan: Plan, *, approve: bool = True, **limits: float) -> World:
    """Start all operators in memory, release the plan, approve it for every owner, publish rates."""
    net = Net(root, made, limits=limits)
    release = make_release(made, plan, now=net.now)
    reference = make_reference(made, PERIOD)
    desk = Desk(made, plan, {name: config.spool for name, config in net.configs.items()}, lambda: net.now, reference)
    world = World(net, desk, release)
    world.post(release)
    world.post(reference)
    net.run(1)
    if approve:
        for owner in made.owners:
            desk.put_notice(owner, make_approval(made, plan, owner, now=net.now))
    net.settle()
    return world


class Api:
    """The recipient's HTTPS client of one group operator, with its own certificate."""

    def __init__(self, made: MadeFederation, operator: str, url: str, *, as_party: str = RECIPIENT) -> None:
        tls = made.homes[as_party] / "keys" / "tls"
        pin = made.federation.entry(operator).tls_cas
        self.client = httpx.Client(
            base_url=url, verify=client_context(tls / "leaf.pem", tls / "leaf.key", pin), timeout=20, trust_env=False
        )

    def put(self, signed: SignedNotice):
        return self.client.put(f"/v1/notices/{signed.digest}", content=signed.envelope.to_bytes())

    def get(self, path: str):
        return self.client.get(path)


@dataclass
class RealOperators:
    """Running operator processes of a federation."""

    made: MadeFederation
    supervisor: Supervisor
    configs: dict[str, OperatorConfig]

    @property
    def spools(self) -> dict[str, Path]:
        return {name: config.spool for name, config in self.configs.items()}

    def group(self) -> list[str]:
        return list(self.made.federation.cluster("group").operators)

    def api(self, operator: str, **more) -> Api:
        return Api(self.made, operator, self.supervisor[operator].ready["api"], **more)

    def post(self, signed: SignedNotice, *, wait: bool = True) -> list[int]:
        """PUT to every group operator; with `wait`, repeat what is transiently refused."""

        def put(name: str) -> int:
            answer = self.api(name).put(signed)
            if answer.status_code in {404, 425, 503} and wait:
                raise Waiting(answer.text)
            return answer.status_code

        return [wait_for(lambda name=name: put(name)) for name in self.group()]

    def logs(self, name: str) -> str:
        return self.supervisor[name].log.read_text()


class Waiting(Exception):
    """Not yet."""


def wait_for(look: Callable[[], object], timeout_s: float = 60.0):
    """Call `look` until it returns something true; what it raised last is shown when time is over."""
    end = time.monotonic() + timeout_s
    last: BaseException | None = None
    while time.monotonic() < end:
        try:
            found = look()
            if found:
                return found
        except (Waiting, OSError, httpx.TransportError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"not in time: {last!r}")


def operator_endpoints(regions: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """Return link and API addresses on free ports for `make_federation(endpoints=...)`."""
    names = [f"{code.lower()}-{n}" for code in regions for n in (1, 2, 3)] + list(GROUP_SEATS)
    ports = iter(free_ports(len(names) + len(GROUP_SEATS)))
    out = {name: {"link": f"127.0.0.1:{next(ports)}"} for name in names}
    for name in GROUP_SEATS:
        out[name]["api"] = f"https://127.0.0.1:{next(ports)}"
    return out


def operator_homes(made: MadeFederation, *, limits: Mapping[str, float] | None = None) -> dict[str, OperatorConfig]:
    """Write operator.toml of every operator of a federation whose directory has addresses."""
    configs = {}
    for name in made.federation.terms.operators:
        entry = made.federation.entry(name)
        configs[name] = create_operator_home(
            made.homes[name], name, made.folder, link=entry.link or "127.0.0.1:0",
            api=(entry.api or "https://127.0.0.1:0").removeprefix("https://"), limits=dict(limits or {}),
        )  # fmt: skip
    return configs


@contextmanager
def start_operators(
    made: MadeFederation, *, limits: Mapping[str, float] | None = None, logs: Path | None = None
) -> Iterator[RealOperators]:
    """Start every operator of a federation as a real process and stop them all at the end.

    `made` needs addresses: `make_federation(root, regions, endpoints=operator_endpoints(regions))`.
    """
    configs = operator_homes(made, limits=limits)
    folder = logs or made.folder.parent / "logs"
    with Supervisor([operator_process(config.home, name, folder) for name, config in configs.items()]) as running:
        yield RealOperators(made, running, configs)
