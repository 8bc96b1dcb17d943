"""Exact division against Python integers: every rounding, edge divisors, negative values, no divisor, exact cost."""

from __future__ import annotations

import math
import random
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.divide import MAX_DIVISOR, divide_bits, divide_public, divide_shared, truncate
from tests.support.active import as_passive, run_flow, share_bits, share_ring, small_proofs

LIMIT = 1 << 62


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def signed(values):
    return [int(value) - (1 << 64) if value >> np.uint64(63) else int(value) for value in values]


def half_even(value, divisor):
    with localcontext() as context:
        context.prec = 60
        return int((Decimal(value) / divisor).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def run(work, security="active"):
    def program(flow):
        def given(shares):
            return shares[flow.stage.party] if security == "active" else as_passive(shares[flow.stage.party])

        results = yield from work(flow, given)
        return (yield from flow.open(results))

    out = run_flow(program, security=security)
    assert not out.errors, out.errors
    return out.results[0]


def values_for(divisor, rng, count=70):
    edges = [
        0,
        1,
        -1,
        divisor,
        -divisor,
        divisor - 1,
        1 - divisor,
        LIMIT - 1,
        1 - LIMIT,
        3 * divisor // 2,
        -3 * divisor // 2,
    ]
    kept = [value for value in edges if abs(value) < LIMIT]
    return kept + [rng.randrange(1 - LIMIT, LIMIT) for _ in range(count - len(kept))]


@pytest.mark.parametrize(
    "divisor", [1, 2, 3, 5, 7, 10, 100, 1000, 1 << 20, (1 << 31) - 1, 10**12, MAX_DIVISOR - 1, MAX_DIVISOR]
)
def test_division_by_a_public_number_equals_python(divisor):
    rng = random.Random(divisor)
    values = values_for(divisor, rng)
    shares = share_ring(values, rng=rng)

    def work(flow, given):
        floor = yield from divide_public(flow.stage, given(shares), divisor)
        nearest = yield from divide_public(flow.stage, given(shares), divisor, rounding="half_even")
        return [floor, nearest]

    security = "passive" if divisor % 2 else "active"
    floor, nearest = run(work, security)
    assert signed(floor) == [value // divisor for value in values]
    assert signed(nearest) == [half_even(value, divisor) for value in values]


def test_ties_go_to_the_even_neighbour():
    values = [value * 5 for value in range(-9, 10)]
    shares = share_ring(values)

    def work(flow, given):
        return [(yield from divide_public(flow.stage, given(shares), 10, rounding="half_even"))]

    (found,) = run(work)
    assert signed(found) == [half_even(value, 10) for value in values]


@pytest.mark.parametrize("bits", [0, 1, 16, 58])
def test_truncation_is_a_floor_for_every_sign(bits):
    rng = random.Random(bits)
    values = values_for(1 << bits, rng)
    shares = share_ring(values, rng=rng)

    def work(flow, given):
        return [(yield from truncate(flow.stage, given(shares), bits))]

    (found,) = run(work)
    assert signed(found) == [value >> bits for value in values]


@pytest.mark.parametrize(("v", "u"), [(1, 1), (4, 7), (9, 3), (12, 12)])
def test_division_of_planes_gives_quotient_and_rest(v, u):
    rng = random.Random(v * 100 + u)
    tops = [rng.getrandbits(v) for _ in range(70)]
    bottoms = [rng.choice([0, 1, (1 << u) - 1, rng.getrandbits(u)]) for _ in range(70)]
    a, b = share_bits(tops, v, rng=rng), share_bits(bottoms, u, rng=rng)

    def work(flow, given):
        return list((yield from divide_bits(flow.stage, given(a), given(b))))

    quotients, rests = run(work, "passive")
    for top, bottom, quotient, rest in zip(tops, bottoms, quotients.tolist(), rests.tolist(), strict=True):
        if bottom:
            assert (quotient, rest) == divmod(top, bottom)
        else:
            assert quotient == (1 << v) - 1


@pytest.mark.parametrize("security", ["active", "passive"])
@pytest.mark.parametrize("rounding", ["floor", "half_even"])
def test_division_by_shared_numbers_keeps_the_sign_and_says_where_there_is_no_divisor(rounding, security):
    rng = random.Random(rounding)
    v, u = 10, 6
    tops = [0, 1, -1, 1023, -1023, *(rng.randrange(-1023, 1024) for _ in range(60))]
    bottoms = [0, 2, 2, 63, 1, *(rng.choice([0, 1, 2, 4, rng.getrandbits(u)]) for _ in range(60))]
    a, b = share_ring(tops, rng=rng), share_ring(bottoms, rng=rng)

    def work(flow, given):
        return list((yield from divide_shared(flow.stage, given(a), given(b), widths=(v, u), rounding=rounding)))

    quotients, known = run(work, security)
    expected = []
    for top, bottom in zip(tops, bottoms, strict=True):
        whole = (
            half_even(abs(top), bottom) if bottom and rounding == "half_even" else abs(top) // bottom if bottom else 0
        )
        expected.append(whole if top >= 0 else -whole)
    assert signed(quotients) == expected
    assert known.tolist() == [int(bottom > 0) for bottom in bottoms]


def depth(width):
    return 2 + math.ceil(math.log2(width - 2))


@pytest.mark.parametrize(("divisor", "count"), [(10, 65), (MAX_DIVISOR, 3)])
def test_division_by_a_public_number_costs_what_its_docstring_says(divisor, count):
    shares = share_ring([1] * count)
    width = (5 * divisor).bit_length() + 1
    ands = 4 * width - 9 - math.ceil(math.log2(width - 2))
    words = -(-count // 64)
    floor = 12 + depth(width), 8 * words * (245 + 4 * ands) + 96 * count
    nearest = floor[0] + depth(width) + 3, floor[1] + 8 * words * (2 * ands + 1) + 16 * count
    for rounding, (rounds, sent) in (("floor", floor), ("half_even", nearest)):

        def program(flow, rounding=rounding):
            share = as_passive(shares[flow.stage.party])
            return (yield from divide_public(flow.stage, share, divisor, rounding=rounding))

        out = run_flow(program, security="passive")
        assert out.rounds == [rounds] * 3
        assert out.sent_bytes == [sent] * 3


def test_no_values_cost_nothing_and_wrong_divisors_are_refused():
    shares = share_ring([])

    def work(flow, given):
        return [(yield from divide_public(flow.stage, given(shares), 7))]

    assert run(work)[0].tolist() == []

    def refused(flow):
        share = share_ring([1, 2])[flow.stage.party]
        for divisor in (0, -1, MAX_DIVISOR + 1):
            with pytest.raises(LocalProtocolError, match="out of range"):
                yield from divide_public(flow.stage, share, divisor)
        with pytest.raises(LocalProtocolError, match="out of range"):
            yield from truncate(flow.stage, share, 59)
        with pytest.raises(LocalProtocolError, match="widths"):
            yield from divide_shared(flow.stage, share, share, widths=(0, 4), rounding="floor")

    assert not run_flow(refused).errors
