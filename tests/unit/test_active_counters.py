"""Counters over Z_2^32: products and sums of bits, exact cost, proven; no other ring's shares get in."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.counters import bits_to_counters, multiply_counters
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.shares import CounterShare, CounterVector
from mpc_ops.protocol.proofs.ring_claim import RING_32, check_bound, log2_bound
from tests.support.active import (
    as_passive,
    corrupt_session,
    flip,
    run_active,
    run_flow,
    share_bits,
    share_counters,
    share_ring,
)

TOP = (1 << 32) - 1
X = [0, 1, 7, TOP, 1 << 31, 123_456_789]
Y = [5, TOP, 9, TOP, 3, 987_654_321]


def counters(values, security="active"):
    shares = share_counters(values)
    return shares if security == "active" else [as_passive(share) for share in shares]


@pytest.mark.parametrize("security", ["active", "passive"])
def test_products_sums_and_bits_agree_with_integers(security):
    xs, ys = counters(X, security), counters(Y, security)
    bits = share_bits([1, 0, 1, 1, 0, 1, 1] * 30, 1)

    def program(flow):
        party = flow.stage.party
        product = yield from multiply_counters(flow.stage, xs[party], ys[party])
        bit = bits[party] if security == "active" else as_passive(bits[party])
        flags = yield from bits_to_counters(flow.stage, bit)
        return (yield from flow.open([product, flags, flags.total(), xs[party].minus(ys[party])]))

    out = run_flow(program, security=security)
    assert not out.errors, out.errors
    product, flags, total, difference = (part.tolist() for part in out.results[2])
    assert product == [x * y % (1 << 32) for x, y in zip(X, Y, strict=True)]
    assert flags == [1, 0, 1, 1, 0, 1, 1] * 30
    assert total == [5 * 30]
    assert difference == [(x - y) % (1 << 32) for x, y in zip(X, Y, strict=True)]


def test_a_product_sends_four_bytes_and_a_bit_eight():
    xs, ys = counters(X, "passive"), counters(Y, "passive")
    bits = share_bits([1] * 70, 1)

    def product(flow):
        return (yield from multiply_counters(flow.stage, xs[flow.stage.party], ys[flow.stage.party]))

    def bit(flow):
        return (yield from bits_to_counters(flow.stage, as_passive(bits[flow.stage.party])))

    for program, rounds, sent in ((product, 1, 4 * len(X)), (bit, 2, 8 * 70)):
        out = run_flow(program, security="passive")
        assert out.rounds == [rounds] * 3
        assert out.sent_bytes == [sent] * 3

    def opening(flow):
        return (yield from flow.open([xs[flow.stage.party]]))

    assert run_flow(opening, security="passive").sent_bytes == [4 * len(X)] * 3


@pytest.mark.parametrize("corrupt", range(3))
def test_a_wrong_counter_is_rejected_before_anything_is_opened(corrupt):
    xs, ys = counters(X), counters(Y)
    rng = random.Random(corrupt)

    def program(session):
        stage = session.stage("one")
        product = yield from multiply_counters(stage, xs[stage.party], ys[stage.party])
        yield from multiply(stage, *(share_ring([3, 4], rng=random.Random(1))[stage.party],) * 2)
        yield from stage.barrier()
        stage.close()
        opened.append(product)

    opened = []

    def bend(step, direction, body):
        return flip(bytes(body), rng) if step == "counter-products" else body

    assert not run_active(program).errors
    opened.clear()
    out = run_active(program, session_types={corrupt: corrupt_session(bend)})
    assert "PROOF_REJECTED" in out.codes()
    assert not opened or all(share.party == corrupt for share in opened)


def test_the_proof_is_as_strong_as_that_of_wide_products():
    check_bound(RING_32, 5)
    assert log2_bound(RING_32, 5) < -51


def test_shares_of_other_rings_and_kinds_are_refused():
    xs, wide = counters(X)[0], share_ring(X)[0]

    def program(flow):
        if flow.stage.party == 0:
            for one, other in ((xs, wide), (wide, xs), (xs, counters(X, "passive")[0])):
                with pytest.raises(LocalProtocolError, match=r"Z_2|kind"):
                    next(multiply_counters(flow.stage, one, other))
            with pytest.raises(LocalProtocolError, match="Z_2"):
                next(multiply(flow.stage, xs, xs))
            with pytest.raises(LocalProtocolError, match="different lengths"):
                next(multiply_counters(flow.stage, xs, counters([1])[0]))
        yield from ()

    assert not run_flow(program).errors
    zeros = np.zeros(1, dtype=np.uint64)
    with pytest.raises(LocalProtocolError, match="below 2"):
        CounterShare("s", 0, zeros, np.array([1 << 32], dtype=np.uint64))
    with pytest.raises(LocalProtocolError, match="active or passive"):
        CounterVector("s", 0, zeros, zeros)
    with pytest.raises(LocalProtocolError, match="different kinds"):
        xs.plus(counters(X, "passive")[0])
