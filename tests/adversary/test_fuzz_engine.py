"""Every message of the engine, from the head on a data link to the last opening: only a `ComityError` may come out.

As tests.adversary.test_fuzz: some hundreds of mutated inputs in a test run, longer with `make fuzz`.
"""

from __future__ import annotations

import os
import random
import socket
import zlib
from queue import SimpleQueue

import numpy as np
import pytest

from mpc_ops.engine.runner import address_of
from mpc_ops.errors import PeerUnavailable
from mpc_ops.protocol.circuits import counters
from mpc_ops.protocol.core.checkpoint import decode_checkpoint, encode_checkpoint, run_steps
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.own_input import input_of_all
from mpc_ops.protocol.core.party import Message
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.session import ActiveSession
from mpc_ops.protocol.order.row_parts import RowShape
from mpc_ops.protocol.proofs import ring_roles
from mpc_ops.protocol.proofs.proof_and import AndProof, LeftVerifier, _read_final
from mpc_ops.protocol.proofs.ring_claim import RingParams
from mpc_ops.ring import to_bytes
from mpc_ops.ring.field61 import FIELD_61
from mpc_ops.session import SessionState, from_json, new_session, to_json
from mpc_ops.transport.datalink import Arrived, DataEnds, DataLink, Label
from tests.support.active import SMALL_LAYOUT, Gates, keys_of, share_bits, share_ring, small_proofs, terms_of
from tests.support.adversary import Case, Program
from tests.support.attacked import COUNTERS, LOGIC, PRODUCTS, PROGRAMS, SHUFFLE
from tests.support.attacked_tables import DABITS
from tests.support.core import MEMBERS, RUN
from tests.support.datalink import both_keys
from tests.support.fuzz import Target, fuzz

SECONDS = float(os.environ["FUZZ_SECONDS"]) if os.environ.get("FUZZ_SECONDS") else None
SEED = os.environ.get("FUZZ_SEED", "0")
LIMIT = pytest.mark.timeout(3 * SECONDS + 120 if SECONDS else 60)
BIG_BODY = (1 << 28) + (16 << 20)
"""A head may announce a body of 2^28 bytes: room for it is reserved, and taken page by page as bytes arrive."""


# --------------------------------------------------------------------------------------------------- a data link


class ByHand(DataLink):
    """A link whose threads do nothing, so that a test reads in its own."""

    def _send_all(self) -> None:
        return

    def _receive_all(self) -> None:
        return


class Feed:
    """A connection on which just these bytes come in, and which then ends."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def recv_into(self, into: memoryview) -> int:
        piece, self.data = self.data[: len(into)], self.data[len(into) :]
        into[: len(piece)] = piece
        return len(piece)


class Recording:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.data = b""

    def sendall(self, data: memoryview) -> None:
        self.data += bytes(data)


def stream_of(*messages: tuple[Label, bytes]) -> bytes:
    """What an honest peer writes: messages, then the end."""
    forth, _ = both_keys()
    one, other = socket.socketpair()
    with one, other:
        link = ByHand(DataEnds("de", 1, "a", "b"), one, other, forth, SimpleQueue(), limit_bytes=1 << 26)
        link._out = line = Recording()
        for label, body in messages:
            link._write(label, body, 0.0)
        return line.data + b"CD\x02" + bytes(11)


def data_link(data: bytes) -> None:
    _, back = both_keys()
    one, other = socket.socketpair()
    with one, other:
        link = ByHand(DataEnds("de", 1, "b", "a"), one, other, back, SimpleQueue(), limit_bytes=1 << 26)
        link._in = Feed(data)
        try:
            while link._receive_one():
                pass
        except (OSError, EOFError):
            raise PeerUnavailable("LINK_CLOSED", "as the link says") from None


def place_of_message(data: bytes) -> None:
    session, stage, step = (*data.decode("utf-8", "replace").split("|", 2), "", "")[:3]
    address_of(Arrived("de-2", Label(session, stage, step), b"x"), MEMBERS, 0)


def links() -> list[Target]:
    """Heads, labels and frames of a link, and where a message says that it belongs."""
    label = Label("sid", "stage", "1/0/step")
    samples = [stream_of((label, b"body" * 5)), stream_of((label, bytes(300_000)), (Label("s", "é", "2/1/x"), b"b"))]
    return [
        Target("data link", data_link, samples, memory=BIG_BODY),
        Target("place of a message", place_of_message, [b"sid|stage|1/0/step", b"s|t|12/3/a/b", "s|é|1/0/".encode()]),
    ]


# ------------------------------------------------------------------------------------------------ single messages


def proofs() -> list[Target]:
    """What a prover and the other verifier say, for both recipes."""
    gates = Gates.random(4, np.random.default_rng(1))
    proof = AndProof(("fuzz",), 0, SMALL_LAYOUT.padded(4), SMALL_LAYOUT, FIELD_61)
    count = proof.degrees(0)[1]
    rng = np.random.default_rng(2)

    def share_of_proof(data: bytes) -> None:
        LeftVerifier(proof, gates.left(0, SMALL_LAYOUT), bytes(32)).take(data)

    def words(count: int) -> bytes:
        return to_bytes(rng.integers(0, FIELD_61.p, count, dtype=np.uint64))

    narrow, odd = (ring_roles.Place(("fuzz",), 0, 5, 5, RingParams(32, bits, 40, 2)) for bits in (64, 72))
    whole = ring_roles.Place(("fuzz",), 0, 5, 5)
    carry = ring_roles.Place(("fuzz",), 0, 5, 5, RingParams(8, 9, 1, 1))
    elements = [bytes(place.params.element_bytes * 3) for place in (whole, narrow, odd)]

    def ring_elements(data: bytes) -> None:
        places = [place for place in (odd, narrow, whole) if len(data) % place.params.element_bytes == 0] or [odd]
        ring_roles.read_elements(data, places[zlib.crc32(data) % len(places)])

    def carries(data: bytes) -> None:
        ring_roles._read_carries(data, carry if len(data) == carry.carry_bytes else whole)

    return [
        Target("AND proof, a level", share_of_proof, [words(count), bytes(8 * count)]),
        Target("AND proof, the end", lambda data: _read_final(data, proof, {}), [words(2 + proof.levels)]),
        Target("ring proof, elements", ring_elements, elements),
        Target("ring proof, carries", carries, [bytes(whole.carry_bytes), bytes(carry.carry_bytes)]),
    ]


def rows_and_counters() -> list[Target]:
    """Rows of a shuffle in every shape, and elements of Z_2^32."""
    shapes = [
        RowShape(count, width, tags, skips, wide)
        for count in (1, 70) for width in (0, 3) for tags in (0, 1) for skips in ((), (0, 7)) for wide in (False, True)
    ]  # fmt: skip

    def rows(data: bytes) -> None:
        fitting = [shape for shape in shapes if shape.size == len(data)] or shapes
        fitting[zlib.crc32(data) % len(fitting)].read(data)

    samples = [bytes(shape.size) for shape in shapes if shape.size]
    return [
        Target("rows of a shuffle", rows, samples),
        Target("elements of Z_2^32", lambda data: counters._read(data, 5), [bytes(range(20))]),
    ]


def checkpoints() -> list[Target]:
    """A checkpoint and a session's state, as the own disk gives them back."""
    bits, ring = share_bits([3, 5, 9], 4, rng=random.Random(1))[0], share_ring([1, 2, 3], rng=random.Random(2))[0]
    rows = Rows({"key": bits, "amount": ring})
    stage = ActiveSession(terms_of(0), keys_of(0)).stage("one")
    data = encode_checkpoint(rows, plan="p", number=1, party=0, security="active")
    return [
        Target("checkpoint", lambda data: decode_checkpoint(data, stage, plan="p", number=1), [data]),
        Target(
            "stored state",
            lambda data: from_json(SessionState, data),
            [to_json(new_session(RUN, "de", "region", MEMBERS, 0))],
        ),
    ]


# ------------------------------------------------------------------------------- any message of a running protocol


class Disk(dict):
    """Checkpoints of one party, in memory."""

    def numbers(self) -> list[int]:
        return sorted(self)

    def save(self, number: int, data: bytes) -> None:
        self[number] = data

    def read(self, number: int) -> bytes:
        return self[number]

    def drop(self, number: int) -> None:
        del self[number]


def _same(flow, rows):
    return rows
    yield


def _resumed(session, shares):
    (amount,) = shares
    flow, disk = ActiveFlow(session, "resumed"), Disk()
    rows = Rows({"amount": amount})
    disk[1] = encode_checkpoint(rows, plan="p", number=1, party=flow.stage.party, security="active")
    found = yield from run_steps(flow, disk, "p", rows, [_same, _same])
    opened = yield from flow.open([found.ring("amount")])
    yield from flow.finish()
    return opened


RESUMED = Program(
    "checkpoints", (([1, 2],), ([1, 2],)), lambda v, seed: [share_ring(v[0], seed, random.Random(1))],
    _resumed, lambda values, _: [list(values[0])],
)  # fmt: skip


def _given(session, shares):
    flow = ActiveFlow(session, "given")
    values = np.arange(2, dtype=np.uint64)
    ours = yield from input_of_all(flow.stage, values, (2, 2, 2))
    opened = yield from flow.open(ours)
    yield from flow.finish()
    return opened


GIVEN = Program("own inputs", ((), ()), lambda *_: [], _given, lambda *_: [[0, 1]] * 3)


def protocol(program: Program) -> Target:
    """A whole run in which one message is these bytes: of the same length, if there is one."""
    case = Case(program)
    by_length: dict[int, list] = {}
    for address, body in case.bodies.items():
        by_length.setdefault(len(body), []).append(address)

    def run(data: bytes) -> None:
        fitting = by_length.get(len(data), case.addresses)
        address = fitting[zlib.crc32(data) % len(fitting)]

        def instead(message: Message) -> list[Message]:
            return [Message(address, data)] if message.address == address else [message]

        for error in case.play(mutate=instead).outcome.errors.values():
            raise error

    first = case.addresses[0]
    same = next(body for body in (case.bodies[first], *case.bodies.values()) if run_alone(case, body, by_length))
    return Target(program.name, run, [same, *(bytes(body) for body in case.bodies.values())], slow=True)


def run_alone(case: Case, body: bytes, by_length: dict[int, list]) -> bool:
    """Whether a sample stands for itself, so that the run with it ends well."""
    fitting = by_length[len(body)]
    return case.bodies[fitting[zlib.crc32(body) % len(fitting)]] == body


SMALL = {
    "data link", "place of a message", "AND proof, a level", "AND proof, the end", "ring proof, elements",
    "ring proof, carries", "rows of a shuffle", "elements of Z_2^32", "checkpoint", "stored state",
}  # fmt: skip
TABLES = (PROGRAMS["tiny domain"], PROGRAMS["sort by comparison"])
RUNS = {one.name: one for one in (LOGIC, PRODUCTS, COUNTERS, SHUFFLE, DABITS, RESUMED, GIVEN, *TABLES)}


@pytest.fixture(scope="module")
def made() -> dict[str, Target]:
    makers = (links, proofs, rows_and_counters, checkpoints)
    return {target.name: target for make in makers for target in make()}


@LIMIT
@pytest.mark.parametrize("name", sorted(SMALL))
def test_messages_of_the_engine(name: str, made: dict[str, Target]) -> None:
    assert set(made) == SMALL
    fuzz(made[name], runs=300, seconds=SECONDS, seed=SEED)


@LIMIT
@pytest.mark.parametrize("name", sorted(RUNS))
def test_any_message_of_a_running_protocol(name: str, monkeypatch) -> None:
    small_proofs(monkeypatch)
    fuzz(protocol(RUNS[name]), runs=150, seconds=SECONDS, seed=SEED)
