"""Comparisons, conversions and mux against Python integers: all widths, edge values, ragged and empty batches, exact cost."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from mpc_ops.protocol.circuits import compare as cmp
from mpc_ops.protocol.circuits.boolean import and_many, evaluate, mux, random_boolean
from mpc_ops.protocol.core.opening import open_to_all
from mpc_ops.protocol.core.party import together
from mpc_ops.protocol.core.shares import and_public, invert, public_like, xor, xor_public
from mpc_ops.protocol.core.stage import PROVEN_TOGETHER
from mpc_ops.protocol.proofs.proof_and import proof_bytes, proof_rounds
from mpc_ops.ring.planes import public_planes, to_planes, words_for
from tests.support.active import (
    SMALL_LAYOUT,
    corrupt_session,
    run_active,
    run_circuits,
    share_bits,
    share_ring,
    small_proofs,
)

pytestmark = pytest.mark.usefixtures("small_layout")


@pytest.fixture
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def log2(number: int) -> int:
    return math.ceil(math.log2(number)) if number > 1 else 0


def edges(width: int, rng: random.Random, count: int) -> list[int]:
    top = (1 << width) - 1
    values = [0, top, 1 & top, top - (top > 0), 1 << (width - 1), (1 << (width - 1)) - 1]
    return [rng.choice(values) if rng.random() < 0.6 else rng.getrandbits(width) for _ in range(count)]


def bits(flags) -> list[int]:
    return [int(flag) for flag in flags]


@pytest.mark.parametrize("width", range(1, 65))
def test_all_comparisons_equal_python(width: int) -> None:
    rng = random.Random(width)
    count = rng.choice([1, 5, 63, 64, 65, 70])
    x, y = edges(width, rng, count), edges(width, rng, count)
    y = [a if rng.random() < 0.3 else b for a, b in zip(x, y, strict=True)]
    c = rng.choice([0, (1 << width) - 1, rng.choice(x), rng.getrandbits(width)])
    a, b = share_bits(x, width, rng=rng), share_bits(y, width, rng=rng)
    many = to_planes(np.array(y, dtype=np.uint64), width)
    out = run_circuits(
        lambda p: [
            cmp.less(a[p], b[p]),
            cmp.less_equal(a[p], b[p]),
            cmp.equal(a[p], b[p]),
            cmp.less_public(a[p], c),
            cmp.less_equal_public(a[p], c),
            cmp.greater_public(a[p], c),
            cmp.greater_equal_public(a[p], c),
            cmp.equal_public(a[p], c),
            cmp.less_public(a[p], many),
            cmp.equal_public(a[p], many),
            cmp.greater_public(a[p], many),
        ]
    )
    pairs = list(zip(x, y, strict=True))
    expected = [
        [u < v for u, v in pairs], [u <= v for u, v in pairs], [u == v for u, v in pairs],
        [u < c for u in x], [u <= c for u in x], [u > c for u in x], [u >= c for u in x], [u == c for u in x],
        [u < v for u, v in pairs], [u == v for u, v in pairs], [u > v for u, v in pairs],
    ]  # fmt: skip
    assert [list(values) for values in out] == [bits(flags) for flags in expected]


@pytest.mark.parametrize("width", range(1, 65))
def test_bits_of_arithmetic_shares_equal_python(width: int) -> None:
    rng = random.Random(100 + width)
    values = [0, -1, 1, 2**63, 2**63 - 1, 1 << (width - 1), (1 << width) - 1, *(rng.getrandbits(64) for _ in range(7))]
    x = share_ring(values, rng=rng)
    top, low = run_circuits(lambda p: [cmp.most_significant_bit(x[p], width), cmp.arithmetic_bits(x[p], width)])
    assert list(top) == [(value >> (width - 1)) & 1 for value in values]
    assert list(low) == [value % (1 << width) for value in values]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 31, 33, 63])
def test_and_counts_bytes_and_rounds_are_exact(width: int) -> None:
    count = 70
    x, y, z = share_bits([1] * count, width), share_bits([0] * count, width), share_ring([3] * count)
    k, narrow = log2(width), log2(max(width - 2, 1))
    msb = 4 * width - 9 - narrow if width > 2 else width - 1
    cases = [
        (lambda p: cmp.less(x[p], y[p]), 3 * width - 2 - k, 1 + k),
        (lambda p: cmp.less_equal(x[p], y[p]), 3 * width - 2 - k, 1 + k),
        (lambda p: cmp.less_public(x[p], 1), 2 * width - 2 - k, k),
        (lambda p: cmp.greater_public(x[p], 1), 2 * width - 2 - k, k),
        (lambda p: cmp.equal(x[p], y[p]), width - 1, k),
        (lambda p: cmp.equal_public(x[p], 1), width - 1, k),
        (lambda p: cmp.most_significant_bit(z[p], width), msb, 2 + narrow if width > 2 else width - 1),
    ]
    for circuit, ands, depth in cases:
        assert cost(circuit) == (ands * words_for(count), depth)


def cost(circuit) -> tuple[int, int]:
    """Gate words and depth of a circuit, measured as bytes and rounds of a whole stage and checked against the proof's."""

    def program(session):
        stage = session.stage("one")
        yield from evaluate(stage, "c", [circuit(stage.party)])
        yield from stage.barrier()
        stage.close()

    out = run_active(program)
    assert out.done
    steps = {
        address.step: size
        for address, size in out.sizes.items()
        if address.step.startswith("c/") and address.sender == 0
    }
    words, depth = sum(steps.values()) // 8, len(steps)
    padded = SMALL_LAYOUT.padded(words)
    proof = (proof_rounds(padded, SMALL_LAYOUT), proof_bytes(padded, SMALL_LAYOUT)) if words else (1, 0)
    assert out.rounds == [depth + proof[0] + 1] * 3
    assert out.sent_bytes == [8 * words + proof[1] + 64 + 64] * 3
    return words, depth


def test_the_table_of_the_module_is_true() -> None:
    count = 64
    for width, less, public, equal, top, low in (
        (16, 42, 26, 15, 51, 66), (32, 89, 57, 31, 114, 174), (48, 136, 88, 47, 177, 286), (64, 184, 120, 63, 241, 426),
    ):  # fmt: skip
        x, z = share_bits([1] * count, width), share_ring([3] * count)
        assert cost(lambda p, x=x: cmp.less(x[p], x[p]))[0] == less
        assert cost(lambda p, x=x: cmp.less_public(x[p], 1))[0] == public
        assert cost(lambda p, x=x: cmp.equal(x[p], x[p]))[0] == equal
        assert cost(lambda p, z=z, width=width: cmp.most_significant_bit(z[p], width))[0] == top
        assert cost(lambda p, z=z, width=width: cmp.arithmetic_bits(z[p], width))[0] == low
        for figure in (less, public, equal, top, low):
            assert str(figure) in cmp.__doc__


def test_signed_comparison_and_sign() -> None:
    values, width = [-8, -1, 0, 1, 7], 4
    pairs = [(a, b) for a in values for b in values]
    x, y = share_bits([a % 16 for a, _ in pairs], width), share_bits([b % 16 for _, b in pairs], width)
    z = share_ring([a - b for a, b in pairs])
    below, sign = run_circuits(lambda p: [cmp.less(cmp.flip_sign(x[p]), cmp.flip_sign(y[p])), cmp.negative(z[p])])
    assert list(below) == list(sign) == bits(a < b for a, b in pairs)


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_mux_and_local_operations_on_ragged_and_empty_batches(count: int) -> None:
    rng = random.Random(count)
    flags, x, y = ([rng.getrandbits(w) for _ in range(count)] for w in (1, 13, 13))
    f, a, b = share_bits(flags, 1, rng=rng), share_bits(x, 13, rng=rng), share_bits(y, 13, rng=rng)
    c = public_planes(4660, 13, count)

    def circuits(p):
        return [mux(f[p], a[p], b[p]), local(invert(a[p])), local(xor(a[p], b[p])), local(xor_public(a[p], c)),
                local(and_public(a[p], c)), local(public_like(a[p], c))]  # fmt: skip

    def local(share):
        return share
        yield

    out = [list(values) for values in run_circuits(circuits)]
    assert out == [
        [u if flag else v for flag, u, v in zip(flags, x, y, strict=True)], [u ^ 8191 for u in x],
        [u ^ v for u, v in zip(x, y, strict=True)], [u ^ 4660 for u in x], [u & 4660 for u in x], [4660] * count,
    ]  # fmt: skip


def test_random_shares_are_consistent_and_differ() -> None:
    def program(session):
        stage = session.stage("one")
        one, two = random_boolean(stage, 100, 60), random_boolean(stage, 100, 60)
        token = yield from stage.barrier()
        return (yield from open_to_all(stage, token, [one, two]))

    out = run_active(program)
    assert all(np.array_equal(out.results[0][k], out.results[p][k]) for p in (1, 2) for k in (0, 1))
    assert len({int(value) for values in out.results[0] for value in values}) == 200


def test_batches_are_proven_early_at_the_same_places_and_memory_is_bounded() -> None:
    width, count = 8, 200
    x, y = share_bits(range(200), width), share_bits([7] * count, width)
    limit = 64 * 4

    def program(session):
        stage = session.stage("one")
        results = yield from evaluate(stage, "c", [cmp.less(x[stage.party], y[stage.party])])
        assert stage._pending_bytes() < limit
        early = stage.batches
        token = yield from stage.barrier()
        return early, stage.batches, (yield from open_to_all(stage, token, results))

    out = run_active(program, limit_bytes=limit)
    assert out.done
    words = 19 * 4
    for party in range(3):
        early, batches, (flags,) = out.results[party]
        assert list(flags) == bits(value < 7 for value in range(200))
        assert early >= words // 4 - 1
        assert batches >= words // 4


def _products_in_five_batches(**options):
    x, y = share_bits(range(64), 20), share_bits([(1 << 20) - 1] * 64, 20)

    def program(session):
        stage = session.stage("one")
        products = yield from and_many(stage, "and", [(x[stage.party], y[stage.party])])
        token = yield from stage.barrier()
        return (yield from open_to_all(stage, token, products))

    return run_active(program, limit_bytes=64 * 4, **options)


def test_batches_are_proven_side_by_side_behind_one_flush() -> None:
    out = _products_in_five_batches()
    assert all(list(out.results[party][0]) == list(range(64)) for party in range(3))
    rounds = {place.step: place.round for place in out.log}
    # Twenty words in batches of four: four batches together, then the fifth; the barrier has nothing left to prove.
    assert {step for step in rounds if step.startswith("flush")} == {"flush0", "flush4", "flush5"}
    assert {rounds[f"and{batch}/share0"] for batch in range(PROVEN_TOGETHER)} == {rounds["flush0"]}
    assert len({rounds[f"and{batch}/exchange"] for batch in range(PROVEN_TOGETHER)}) == 1
    assert rounds["and4/share0"] == rounds["flush4"] > rounds["and3/exchange"]


@pytest.mark.parametrize("word", range(20))
def test_a_wrong_gate_in_any_of_the_batches_ends_the_session(word: int) -> None:
    def bend(step: str, way: str, body):
        changed = bytearray(body)
        if step == "and":
            changed[8 * word] ^= 1
        return bytes(changed)

    out = _products_in_five_batches(session_types={1: corrupt_session(bend)})
    assert out.errors[0].code == out.errors[2].code == "PROOF_REJECTED"
    assert out.errors[0].ids["batch"] == str(word // 4)
    assert not out.results


def test_circuits_that_share_rounds_without_sharing_messages_may_prove_early() -> None:
    """While one of two protocols proves a batch the other goes on; both links' transcripts stay in the same order."""
    x, y = share_bits(range(200), 8), share_bits([7] * 200, 8)

    def program(session):
        stage = session.stage("one")
        a, b = x[stage.party], y[stage.party]
        (first,), (second,) = yield from together(
            evaluate(stage, "a", [cmp.less(a, b)]), evaluate(stage, "b", [cmp.equal_public(a, 9)])
        )
        early = stage.batches
        token = yield from stage.barrier()
        return early, (yield from open_to_all(stage, token, [first, second]))

    out = run_active(program, limit_bytes=64 * 8)
    assert not out.errors
    for party in range(3):
        early, (less, same) = out.results[party]
        assert early > 1
        assert list(less) == bits(value < 7 for value in range(200))
        assert list(same) == bits(value == 9 for value in range(200))
