"""Bits to the ring and bit injection: results, rounds and bytes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mpc_ops.errors import ComityError
from mpc_ops.protocol.circuits.convert import (
    bits_to_ring,
    inject,
    inject_sums,
    planes_to_ring,
    ring_to_bits,
    values_to_ring,
)
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.opening import open_to_all
from tests.support.active import run_active, share_bits, share_ring

MOD = 1 << 64


def run(compute, *shared, **options):
    """Run `compute(stage, *shares)`, accept and open the list of shares that it returns."""
    spent = []

    def program(session):
        stage = session.stage("s")
        out = yield from compute(stage, *(parts[session.terms.party] for parts in shared))
        token = yield from stage.barrier()
        spent.append(1)
        return (yield from open_to_all(stage, token, list(out) if isinstance(out, tuple) else [out]))

    outcome = run_active(program, **options)
    assert outcome.done, outcome.errors
    lists = [[[int(v) for v in values] for values in result] for result in outcome.results.values()]
    assert lists[0] == lists[1] == lists[2]
    return lists[0], outcome


def product_bytes(outcome, party: int = 0) -> list[int]:
    return [size for place, size in outcome.sizes.items() if place.step == "ring-products" and place.sender == party]


def rounds_of_products(outcome) -> set[int]:
    return {place.round for place in outcome.log if place.step == "ring-products"}


@pytest.mark.parametrize("count", [1, 63, 64, 65, 300])
def test_bits_become_zeros_and_ones_in_two_rounds_and_16_bytes(count: int) -> None:
    bits = [random.Random(count).getrandbits(1) for _ in range(count)]
    (got,), outcome = run(bits_to_ring, share_bits(bits, 1))
    assert got == bits
    assert product_bytes(outcome) == [8 * count] * 2
    assert rounds_of_products(outcome) == {1, 2}


@pytest.mark.parametrize("width", [1, 7, 33, 64])
def test_values_of_any_width(width: int) -> None:
    rnd = random.Random(width)
    values = [0, (1 << width) - 1, 1 << (width - 1), *(rnd.getrandbits(width) for _ in range(6))]
    (got,), outcome = run(values_to_ring, share_bits(values, width))
    assert got == values
    assert product_bytes(outcome) == [8 * width * len(values)] * 2
    (got,), _ = run(lambda stage, bits: values_to_ring(stage, bits, signed=True), share_bits(values, width))
    assert got == [(v - (1 << width) if v >> (width - 1) else v) % MOD for v in values]


def test_planes_come_one_after_the_other() -> None:
    (got,), _ = run(planes_to_ring, share_bits([1, 2, 3], 2))
    assert got == [1, 0, 1, 0, 1, 1]


def test_injection_keeps_or_drops_in_three_rounds_and_24_bytes() -> None:
    values = [5, MOD - 1, 1 << 63, 7, 0]
    bits = [1, 1, 1, 0, 1]
    (got,), outcome = run(inject, share_bits(bits, 1), share_ring(values))
    assert got == [v if b else 0 for b, v in zip(bits, values, strict=True)]
    assert product_bytes(outcome) == [40, 40, 40]
    assert rounds_of_products(outcome) == {1, 2, 3}


def test_flagged_sums_and_counts_cost_one_element_per_segment_after_the_bits() -> None:
    rnd = random.Random(3)
    bits, values = [rnd.getrandbits(1) for _ in range(100)], [rnd.getrandbits(60) for _ in range(100)]
    ends = [10, 10, 100]
    (sums, counts), outcome = run(
        lambda stage, bit, x: inject_sums(stage, bit, x, np.array(ends, dtype=np.int64)),
        share_bits(bits, 1),
        share_ring(values),
    )
    parts = [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
    assert sums == [sum(b * v for b, v in zip(bits[p], values[p], strict=True)) % MOD for p in parts]
    assert counts == [sum(bits[p]) for p in parts]
    assert product_bytes(outcome) == [800, 800, 24]


@pytest.mark.parametrize("width", [1, 2, 3, 8, 33, 64])
def test_elements_become_bits(width: int) -> None:
    rnd = random.Random(width)
    values = [0, 1, MOD - 1, 1 << 63, (1 << 63) - 1, *(rnd.getrandbits(64) for _ in range(66))]
    (got,), _ = run(lambda stage, x: ring_to_bits(stage, x, width), share_ring(values))
    assert got == [value % (1 << width) for value in values]


def test_64_bits_take_8_rounds_and_426_ands() -> None:
    _, outcome = run(ring_to_bits, share_ring([5] * 64))
    steps = [
        size for place, size in outcome.sizes.items() if place.step.startswith("ring-to-bits") and place.sender == 0
    ]
    assert len(steps) == 8
    assert sum(steps) == 8 * 426


def test_there_and_back_in_one_stage_with_both_proofs_in_one_batch() -> None:
    def there_and_back(stage, x):
        bits = yield from ring_to_bits(stage, x)
        return (yield from values_to_ring(stage, bits))

    values = [0, 1, MOD - 1, 1 << 63, 123456789]
    (got,), outcome = run(there_and_back, share_ring(values))
    assert got == values
    assert {place.step for place in outcome.log if place.step.startswith("flush")} == {"flush0"}


def test_no_values_send_nothing() -> None:
    (got,), outcome = run(values_to_ring, share_bits([], 8))
    assert got == []
    assert product_bytes(outcome) == []


def test_wrong_widths_lengths_and_sessions_are_refused() -> None:
    codes = []

    def program(session):
        stage, party = session.stage("s"), session.terms.party
        for steps in (
            bits_to_ring(stage, share_bits([1], 2)[party]),
            inject(stage, share_bits([1, 0], 1)[party], share_ring([1])[party]),
            bits_to_ring(stage, share_bits([1], 1, seed="another")[party]),
            planes_to_ring(stage, share_ring([1])[party]),
            multiply(stage, share_bits([1], 1)[party], share_ring([1])[party]),
        ):
            with pytest.raises(ComityError) as caught:
                next(steps)
            codes.append(caught.value.code)
        yield from stage.barrier()
        stage.close()

    assert not run_active(program).errors
    assert codes == ["PLANES_INVALID", "RING_LENGTH", *["SHARE_FOREIGN"] * 3] * 3
