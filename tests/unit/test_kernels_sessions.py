"""Parties with and without compiled kernels in one session: every message is the same, byte for byte."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mpc_ops.protocol.circuits.boolean import and_many, evaluate
from mpc_ops.protocol.circuits.products import dots, multiply
from mpc_ops.protocol.core.opening import open_to_all
from tests.support import active
from tests.support.active import run_active, share_bits, share_ring
from tests.support.kernels import mixed_network, needs_compiled

pytestmark = needs_compiled

MIXES = [("compiled",) * 3, ("numpy", "compiled", "compiled"), ("compiled", "compiled", "numpy")]


def run(backends: tuple[str, str, str], program, monkeypatch, **options) -> tuple[list, dict]:
    sent: list[tuple[object, bytes]] = []
    monkeypatch.setattr(active, "Network", mixed_network(backends, sent))
    out = run_active(program, **options)
    assert not out.errors, out.errors
    return sent, out.results


def ands(count: int, width: int, limit: bool):
    shares = [share_bits([(7 * k + 3) % (1 << width) for k in range(count)], width, rng=random.Random(seed))
              for seed in (1, 2)]  # fmt: skip

    def program(session):
        stage = session.stage("ands")
        x, y = (share[stage.party] for share in shares)
        for step in range(3 if limit else 1):
            (x,) = yield from and_many(stage, f"step{step}", [(x, y)])
        token = yield from stage.barrier()
        (opened,) = yield from open_to_all(stage, token, [x])
        return opened.tolist()

    return program


def products(count: int):
    x, y = (share_ring([(1 << 63) - 5 * k for k in range(count)], rng=random.Random(seed)) for seed in (3, 4))
    ends = np.array([0, count // 3, count // 3, count], dtype=np.int64)

    def program(session):
        stage = session.stage("products")
        mine, other = x[stage.party], y[stage.party]
        several = yield from dots(stage, mine, other, ends)
        each = yield from multiply(stage, mine, other)
        token = yield from stage.barrier()
        opened = yield from open_to_all(stage, token, [several, each])
        return [part.tolist() for part in opened]

    return program


PROGRAMS = {
    "one gate": (lambda: ands(1, 1, limit=False), {}),
    "a ragged block": (lambda: ands(1000, 17, limit=False), {}),
    "several levels": (lambda: ands(40_000, 8, limit=False), {}),
    "several batches": (lambda: ands(3000, 33, limit=True), {"limit_bytes": 60_000}),
    "one product": (lambda: products(1), {}),
    "ragged products": (lambda: products(700), {}),
    "several folds of products": (lambda: products(20_000), {}),
    "several batches of products": (lambda: products(3000), {"limit_bytes": 60_000}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_message_is_the_same(name: str, monkeypatch) -> None:
    program, options = PROGRAMS[name]
    expected, results = run(("numpy",) * 3, program(), monkeypatch, **options)
    for mix in MIXES:
        assert run(mix, program(), monkeypatch, **options) == (expected, results), mix


def test_a_wrong_gate_is_found_by_either_kind_of_verifier(monkeypatch) -> None:
    def bend(step: str, side: str, body: bytes) -> bytes:
        return active.flip(body, random.Random(1)) if step.startswith("c/0") and side == "prev" else body

    def circuit(one, other):
        (product,) = yield [(one, other)]
        return product

    def program(session):
        stage = session.stage("one")
        x = share_bits(range(100), 7, rng=random.Random(5))[stage.party]
        result = yield from evaluate(stage, "c", [circuit(x, x)])
        token = yield from stage.barrier()
        return (yield from open_to_all(stage, token, result))

    for mix in (("numpy",) * 3, *MIXES):
        monkeypatch.setattr(active, "Network", mixed_network(mix, []))
        out = run_active(program, session_types={0: active.corrupt_session(bend)})
        assert not out.done
        assert out.codes() == {"PROOF_REJECTED"}
