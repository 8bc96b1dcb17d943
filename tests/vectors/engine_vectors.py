"""Test vectors of the protocols: keys and shares of all three positions, every message, and the results.

Small programs, in the public block layout: single operations with every byte, and those of `table_vectors`. A party of any
implementation that is given a position's keys and shares, and the messages sent to it, must send exactly the messages of that
position and end with its result. Bad cases change one byte of one message; the parties that must notice it, and their codes,
are listed.

A message is one line, `stage|round|part|step|sender|receiver|body`: its address and its bytes in hex, or where they are many
`sha256:digest:length`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from mpc_ops.protocol.circuits import compare as cmp
from mpc_ops.protocol.circuits.boolean import and_many, evaluate, mux
from mpc_ops.protocol.circuits.convert import bits_to_ring, ring_to_bits
from mpc_ops.protocol.circuits.products import dot, fresh, multiply
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.opening import open_to, open_to_all
from mpc_ops.protocol.core.party import Address
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.shares import BooleanPlanes
from mpc_ops.protocol.order.shuffle import shuffle
from mpc_ops.ring import to_bytes
from mpc_ops.ring.planes import from_planes
from tests.support.active import keys_of, share_bits, share_ring, terms_of
from tests.support.adversary import Attack, Case, Place, Program, plain_of, step_kind, traitor
from tests.vectors.table_vectors import OWN_VALUES, TABLE_PROGRAMS, slug

SEED = "vectors"
FREE = ("own-input",)
"""Steps in which whoever says something else has another input of its own, which nobody can tell from a lie."""
LONGEST = 128
"""Bytes of a body that is published as it is, in programs of many messages."""
M = 1 << 64


def _shares(values: dict[str, tuple[Sequence[int], int]], seed: object) -> list[Any]:
    """Share columns by name: (values, bits), where 0 bits mean Z_2^64."""
    made = []
    for name, (column, width) in values.items():
        rng = random.Random(f"{seed}/{name}")
        made.append(share_bits(column, width, seed, rng) if width else share_ring(column, seed, rng))
    return made


def _program(name: str, columns: dict[str, tuple[Sequence[int], int]], steps: Callable, plain: Callable) -> Program:
    return Program(name, (columns,), _shares, steps, lambda _, position: plain(position), names=tuple(columns))


def _stage(operation: Callable, receivers: int | None = None) -> Callable:
    """A program of one stage: an operation on the shares, the barrier, an opening of what it returns."""

    def steps(session, shares):
        stage = session.stage("one")
        results = yield from operation(stage, *shares)
        token = yield from stage.barrier()
        if receivers is None:
            return (yield from open_to_all(stage, token, results))
        return (yield from open_to(stage, token, receivers, results))

    return steps


def _and(stage, x, y):
    return (yield from and_many(stage, "and", [(x, y)]))


def _compare(stage, x, y):
    return (yield from evaluate(stage, "compare", [cmp.less(x, y), cmp.equal(x, y), cmp.less_public(x, 9)]))


def _mux(stage, bit, x, y):
    return (yield from evaluate(stage, "mux", [mux(bit, x, y)]))


def _product(stage, x, y):
    product = yield from multiply(stage, x, y)
    return [(yield from fresh(stage, product))]


def _dot(stage, x, y):
    return [(yield from dot(stage, x, y))]


def _b2a(stage, bit):
    return [(yield from bits_to_ring(stage, bit))]


def _a2b(stage, x):
    return [(yield from ring_to_bits(stage, x, 8))]


def _open(stage, x, bits):
    return [x, bits]
    yield


def _shuffle(session, shares):
    key, amount = shares
    flow = ActiveFlow(session, "one")
    rows = yield from shuffle(flow, Rows({"key": key, "amount": amount}))
    return (yield from flow.open([rows.bits("key"), rows.ring("amount")]))


X, Y = [3, 0, 15, 9, 8], [5, 1, 15, 8, 9]
A, B = [1, M - 1, 1 << 63, 7], [2, M - 1, 3, 0]
RING_X = {"x": (A, 0), "y": (B, 0)}

PROGRAMS: dict[str, Program] = {
    program.name: program
    for program in (
        _program("and", {"x": (X, 4), "y": (Y, 4)}, _stage(_and), lambda _: [[a & b for a, b in zip(X, Y, strict=True)]]),
        _program(
            "compare", {"x": (X, 4), "y": (Y, 4)}, _stage(_compare),
            lambda _: [
                [int(a < b) for a, b in zip(X, Y, strict=True)], [int(a == b) for a, b in zip(X, Y, strict=True)],
                [int(a < 9) for a in X],
            ],
        ),
        _program(
            "mux", {"bit": ([1, 0, 1, 0, 0], 1), "x": (X, 4), "y": (Y, 4)}, _stage(_mux),
            lambda _: [[X[0], Y[1], X[2], Y[3], Y[4]]],
        ),
        _program("product", RING_X, _stage(_product), lambda _: [[a * b % M for a, b in zip(A, B, strict=True)]]),
        _program("dot", RING_X, _stage(_dot), lambda _: [[sum(a * b for a, b in zip(A, B, strict=True)) % M]]),
        _program("bits-to-ring", {"bit": ([1, 0, 1], 1)}, _stage(_b2a), lambda _: [[1, 0, 1]]),
        _program("ring-to-bits", {"x": (A, 0)}, _stage(_a2b), lambda _: [[a % 256 for a in A]]),
        _program("open-to-all", {"x": (A, 0), "bits": (X, 4)}, _stage(_open), lambda _: [A, X]),
        _program("open-to-one", {"x": (A, 0), "bits": (X, 4)}, _stage(_open, 2), lambda p: [A, X] if p == 2 else None),
    )
}  # fmt: skip


class _Shuffled(Case):
    """A shuffle's result is an order that nobody chose: it is published, and only its rows are known beforehand."""

    @property
    def expected(self) -> list[Any]:
        return [plain_of(self.honest.outcome.results[position]) for position in range(3)]

    def _check_result(self, position: int) -> None:
        key, amount = (values for values, _ in self.program.cases[0].values())
        got = plain_of(self.honest.outcome.results[position])
        assert sorted(zip(*got, strict=True)) == sorted(zip(key, amount, strict=True))


SHUFFLE = _program("shuffle", {"key": (X, 4), "amount": ([10, 20, 30, 40, 50], 0)}, _shuffle, lambda _: None)


@cache
def operations() -> dict[str, Case]:
    """Return the honest run of every single operation."""
    made: dict[str, Case] = {name: Case(program, seed=SEED) for name, program in PROGRAMS.items()}
    made["shuffle"] = _Shuffled(SHUFFLE, seed=SEED)
    return made


def _component(share: Any, side: str) -> str:
    return to_bytes(getattr(share, side).reshape(-1)).hex()


def _input(name: str, shares: Sequence[Any]) -> dict[str, Any]:
    first, second, third = (share.first for share in shares)
    if isinstance(shares[0], BooleanPlanes):
        kind, values = f"bits {shares[0].width}", from_planes(first ^ second ^ third, shares[0].count)
    else:
        kind, values = "ring 64", first + second + third
    return {
        "name": name,
        "kind": kind,
        "values": [str(value) for value in values.tolist()],
        "components": [_component(share, "first") for share in shares],
    }


def _bad(case: Case, form: Callable[[str], str], seen: set[str], at_least: int = 0) -> list[dict[str, Any]]:
    """One changed byte in one message of every form not seen before, by its sender with its own transcript following."""
    out: list[dict[str, Any]] = []
    here: set[str] = set()
    numbered = list(enumerate(case.addresses))
    # Senders take turns; in programs of many forms one whose turn never came is not left out.
    turns = [one for one in numbered if one[1].sender == one[0] % 3]
    for _, address in turns if form is str else turns + numbered:
        known = form(address.step)
        if known in FREE or known in here or (known in seen and len(out) >= at_least):
            continue
        place: Place = case.places[address]
        body = bytearray(case.bodies[address])
        at = len(body) // 2 if form is str else 0  # rows of small tables stand in the first bits
        body[at] ^= 1
        played = case.play(corrupt=address.sender, session_type=traitor({place: bytes(body)}))
        verdict = case.judge(played, Attack(address.sender, "flip", "own", address))
        assert not verdict.violations, (case.program.name, address, verdict)
        codes = {str(p): e.code for p, e in sorted(played.outcome.errors.items()) if p != address.sender}
        if codes or form is str:
            here.add(known)
        if codes:
            out.append({**_place(address), "byte": at, "codes": codes})
    seen |= here
    return out


def _place(address: Any) -> dict[str, Any]:
    return {
        "stage": address.stage, "round": address.round, "part": address.part, "step": address.step,
        "sender": address.sender, "receiver": address.receiver,
    }  # fmt: skip


def _line(address: Address, body: bytes, longest: int | None) -> str:
    said = body.hex()
    if longest is not None and len(body) > longest:
        said = f"sha256:{hashlib.sha256(body).hexdigest()}:{len(body)}"
    return "|".join([*map(str, _place(address).values()), said])


def vector(case: Case, *, longest: int | None = None, bad: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the published form of one program; bodies of more than `longest` bytes are digests."""
    terms = terms_of(0, SEED, case.program.limit_bytes)
    inputs = case.program.share(case.program.cases[0], SEED)
    keys = [keys_of(component, SEED).first for component in range(3)]
    return {
        "session": {
            "sid": terms.sid, "cluster": terms.cluster, "attempt": terms.attempt, "members": list(terms.members),
            "limit_bytes": terms.limit_bytes,
        },
        "keys": [{name: getattr(key, name).hex() for name in ("prg", "coin", "mac")} for key in keys],
        "inputs": [_input(name, shares) for name, shares in zip(case.program.names, inputs, strict=True)],
        "messages": [
            _line(address, bytes(body), longest)
            for address, body in sorted(case.bodies.items(), key=lambda item: (item[0].round, item[0].part, item[0].sender, item[0].receiver))
        ],
        "results": [_texts(plain_of(case.honest.outcome.results[position])) for position in range(3)],
        "bad": bad,
    }  # fmt: skip


def _texts(values: Any) -> Any:
    """Return numbers as text, since they have up to 64 bits; flags and nothing as they are."""
    if isinstance(values, list):
        return [_texts(value) for value in values]
    if isinstance(values, dict):
        return {name: _texts(value) for name, value in values.items()}
    return values if values is None or isinstance(values, bool) else str(values)


def engine() -> dict[str, Any]:
    """Return the vectors of every program by name of the file."""
    seen: set[str] = set()
    out = {slug(name): vector(case, bad=_bad(case, str, set())) for name, case in operations().items()}
    for name, program in TABLE_PROGRAMS.items():
        case = Case(program, seed=SEED)
        out[slug(name)] = vector(case, longest=LONGEST, bad=_bad(case, step_kind, seen, at_least=3))
    out[slug("own input")]["own"] = [[str(value) for value in own] for own in OWN_VALUES]
    return out
