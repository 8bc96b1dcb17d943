"""Test vectors of the protocols: keys and shares of all three positions, every message, and the results.

One program with one primitive each, in the public block layout. A party of any implementation that is given a position's keys
and shares, and the messages sent to it, must send exactly the messages of that position and end with its result. Bad cases
change one byte of one message; the parties that must notice it, and their codes, are listed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from mpc_ops.protocol.circuits import compare as cmp
from mpc_ops.protocol.circuits.boolean import and_many, evaluate, mux
from mpc_ops.protocol.circuits.convert import bits_to_ring, ring_to_bits
from mpc_ops.protocol.circuits.products import dot, fresh, multiply
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.opening import open_to, open_to_all
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.shares import BooleanPlanes
from mpc_ops.protocol.order.shuffle import shuffle
from mpc_ops.ring import to_bytes
from tests.support.active import keys_of, share_bits, share_ring, terms_of
from tests.support.adversary import Attack, Case, Place, Program, plain_of, traitor

SEED = "vectors"
M = 1 << 64


def _shares(values: dict[str, tuple[Sequence[int], int]], seed: object) -> list[Any]:
    """Share columns by name: (values, bits), where 0 bits mean Z_2^64."""
    made = []
    for name, (column, width) in values.items():
        rng = random.Random(f"{seed}/{name}")
        made.append(share_bits(column, width, seed, rng) if width else share_ring(column, seed, rng))
    return made


def _program(name: str, columns: dict[str, tuple[Sequence[int], int]], steps: Callable, plain: Callable) -> Program:
    return Program(name, (columns,), _shares, steps, lambda _, position: plain(position))


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


def cases() -> dict[str, Case]:
    """Return the honest run of every program."""
    made: dict[str, Case] = {name: Case(program, seed=SEED) for name, program in PROGRAMS.items()}
    made["shuffle"] = _Shuffled(SHUFFLE, seed=SEED)
    return made


def _component(share: Any, side: str) -> str:
    return to_bytes(getattr(share, side).reshape(-1)).hex()


def _input(name: str, shares: Sequence[Any], values: Sequence[int]) -> dict[str, Any]:
    boolean = isinstance(shares[0], BooleanPlanes)
    return {
        "name": name,
        "kind": f"bits {shares[0].width}" if boolean else "ring 64",
        "values": [str(value) for value in values],
        "components": [_component(share, "first") for share in shares],
    }


def _bad(case: Case) -> list[dict[str, Any]]:
    """One changed byte in one message of every form, by its sender with its own transcript following."""
    out, seen = [], set()
    for number, address in enumerate(case.addresses):
        if address.step in seen or address.sender != number % 3:
            continue
        seen.add(address.step)
        place: Place = case.places[address]
        body = bytearray(case.bodies[address])
        at = len(body) // 2
        body[at] ^= 1
        played = case.play(corrupt=address.sender, session_type=traitor({place: bytes(body)}))
        verdict = case.judge(played, Attack(address.sender, "flip", "own", address))
        assert not verdict.violations, (case.program.name, address, verdict)
        codes = {str(p): e.code for p, e in sorted(played.outcome.errors.items()) if p != address.sender}
        if codes:
            out.append({**_place(address), "byte": at, "codes": codes})
    return out


def _place(address: Any) -> dict[str, Any]:
    return {
        "stage": address.stage, "round": address.round, "part": address.part, "step": address.step,
        "sender": address.sender, "receiver": address.receiver,
    }  # fmt: skip


def vector(case: Case) -> dict[str, Any]:
    """Return the published form of one program."""
    terms = terms_of(0, SEED, case.program.limit_bytes)
    inputs = case.program.share(case.program.cases[0], SEED)
    columns = case.program.cases[0]
    keys = [keys_of(component, SEED).first for component in range(3)]
    return {
        "session": {
            "sid": terms.sid, "cluster": terms.cluster, "attempt": terms.attempt, "members": list(terms.members),
            "limit_bytes": terms.limit_bytes,
        },
        "keys": [{name: getattr(key, name).hex() for name in ("prg", "coin", "mac")} for key in keys],
        "inputs": [
            _input(name, shares, values) for (name, (values, _)), shares in zip(columns.items(), inputs, strict=True)
        ],
        "messages": [
            {**_place(address), "body": bytes(body).hex()}
            for address, body in sorted(case.bodies.items(), key=lambda item: (item[0].round, item[0].part, item[0].sender, item[0].receiver))
        ],
        "results": [_texts(plain_of(case.honest.outcome.results[position])) for position in range(3)],
        "bad": _bad(case),
    }  # fmt: skip


def _texts(values: Any) -> Any:
    """Return numbers as text, since they have up to 64 bits."""
    return (
        [_texts(value) for value in values] if isinstance(values, list) else values if values is None else str(values)
    )


def engine() -> dict[str, Any]:
    """Return the vectors of every program by name."""
    return {f"engine_{name.replace('-', '_')}": vector(case) for name, case in cases().items()}
