"""Flows: the same program in both kinds of session, openings in between, and no way from one kind to the other."""

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import and_many, random_boolean
from mpc_ops.protocol.circuits.convert import bits_to_ring, inject_sums, ring_to_bits, values_to_ring
from mpc_ops.protocol.circuits.products import dot, fresh, multiply, random_ring
from mpc_ops.protocol.core.flow import PassiveFlow
from mpc_ops.protocol.core.session import PassiveSession
from mpc_ops.protocol.core.shares import PassiveBooleanShare, PassiveRingShare, RingVector, ring_zero
from tests.support.active import (
    as_passive,
    keys_of,
    run_active,
    run_flow,
    run_passive,
    share_bits,
    share_ring,
    small_proofs,
    terms_of,
)

SECURITIES = ("active", "passive")
X = [3, (1 << 64) - 2, 0, 1 << 63, 77]
Y = [5, 7, 9, 3, (1 << 64) - 1]
FLAGS = [1, 0, 1, 1, 0]


def given(security, shares, party):
    return shares[party] if security == "active" else as_passive(shares[party])


@pytest.mark.parametrize("security", SECURITIES)
def test_products_conversions_and_openings_agree_with_integers(security, monkeypatch):
    small_proofs(monkeypatch)
    xs, ys, flags = share_ring(X), share_ring(Y), share_bits(FLAGS, 1)
    narrow = share_bits([1, 2, 3, 4, 31], 5)

    def program(flow):
        party = flow.stage.party
        x, y, flag = (given(security, shares, party) for shares in (xs, ys, flags))
        product = yield from multiply(flow.stage, x, y)
        first = yield from flow.open([product])
        total = yield from dot(flow.stage, x, y)
        sums, counts = yield from inject_sums(flow.stage, flag, x, np.array([2, 5], dtype=np.int64))
        bits = yield from ring_to_bits(flow.stage, x, 64)
        values = yield from values_to_ring(flow.stage, given(security, narrow, party))
        again = yield from fresh(flow.stage, x)
        second = yield from flow.open([total, sums, counts, bits, values, again])
        return first + second

    out = run_flow(program, security=security)
    assert not out.errors
    mod = 1 << 64
    expected = [
        [x * y % mod for x, y in zip(X, Y, strict=True)],
        [sum(x * y for x, y in zip(X, Y, strict=True)) % mod],
        [X[0], (X[2] + X[3]) % mod],
        [1, 2],
        X,
        [1, 2, 3, 4, 31],
        X,
    ]
    for party in range(3):
        assert [part.tolist() for part in out.results[party]] == expected


@pytest.mark.parametrize("security", SECURITIES)
def test_a_value_is_opened_to_one_position_only(security):
    xs = share_ring(X)

    def program(flow):
        return (yield from flow.open_to(1, [given(security, xs, flow.stage.party)]))

    out = run_flow(program, security=security)
    assert out.results[0] is None
    assert out.results[2] is None
    assert out.results[1][0].tolist() == X


def test_a_passive_product_costs_one_round_and_eight_bytes_and_proves_nothing():
    xs, ys = share_ring(X), share_ring(Y)

    def program(session):
        stage = session.stage("one")
        party = stage.party
        return (yield from multiply(stage, as_passive(xs[party]), as_passive(ys[party])))

    out = run_passive(program)
    assert out.rounds == [1, 1, 1]
    assert out.sent_bytes == [8 * len(X)] * 3
    assert all(type(result) is PassiveRingShare for result in out.results.values())


def test_shares_of_one_kind_are_refused_by_the_other_kinds_operations():
    xs, flags = share_ring(X), share_bits(FLAGS, 1)

    def active(session):
        stage = session.stage("one")
        for operation in (
            multiply(stage, as_passive(xs[stage.party]), as_passive(xs[stage.party])),
            bits_to_ring(stage, as_passive(flags[stage.party])),
            and_many(stage, "a", [(as_passive(flags[stage.party]),) * 2]),
        ):
            with pytest.raises(LocalProtocolError, match="another kind"):
                next(operation)
        yield from stage.barrier()
        stage.close()

    assert not run_active(active).errors
    flow = PassiveFlow(PassiveSession(terms_of(0), keys_of(0)), "flow")
    for operation in (multiply(flow.stage, xs[0], xs[0]), bits_to_ring(flow.stage, flags[0]), flow.open([xs[0]])):
        with pytest.raises(LocalProtocolError, match="another kind"):
            next(operation)
    with pytest.raises(LocalProtocolError, match="different kinds"):
        xs[0].plus(as_passive(xs[0]))


def test_made_shares_are_of_the_stages_kind_and_the_base_class_is_no_share():
    flow = PassiveFlow(PassiveSession(terms_of(0), keys_of(0)), "flow")
    assert type(random_ring(flow.stage, 3)) is PassiveRingShare
    assert type(random_boolean(flow.stage, 3, 2)) is PassiveBooleanShare
    assert type(ring_zero(flow.stage, 3)) is PassiveRingShare
    zeros = np.zeros(1, dtype=np.uint64)
    with pytest.raises(LocalProtocolError, match="active or passive"):
        RingVector("s", 0, zeros, zeros)


def test_flow_stages_have_their_own_names_and_an_unused_flow_proves_nothing():
    def program(flow):
        names = [flow.stage.name]
        yield from flow.finish()
        names.append(flow.stage.name)
        return names

    assert run_flow(program).results[0] == ["flow/0", "flow/1"]

    def nothing(flow):
        yield from flow.finish()

    out = run_flow(nothing)
    assert not out.errors
    assert out.rounds == [0, 0, 0]
