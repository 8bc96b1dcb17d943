"""mux, the smallest lane, injection, sums of injected values, daBits and counters against Python integers, at random."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ops.protocol.circuits.boolean import evaluate, mux
from mpc_ops.protocol.circuits.convert import inject, inject_sums, values_to_ring
from mpc_ops.protocol.circuits.counters import bits_to_counters, multiply_counters
from mpc_ops.protocol.circuits.dabits import bits_to_ring_with, make_dabits
from mpc_ops.protocol.circuits.smallest import first_smallest
from tests.support.active import as_passive, run_flow, share_bits, share_counters, small_proofs
from tests.support.relational import SECURITIES, run_table, signed

M = 1 << 64
COUNTS = st.sampled_from((0, 1, 2, 63, 64, 65, 130))


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def values(width: int, count: int) -> st.SearchStrategy[list[int]]:
    """Values of so many bits, edges among them."""
    top = (1 << width) - 1
    few = sorted({0, min(1, top), top, top >> 1, top ^ (top >> 1)})
    return st.lists(st.sampled_from(few) | st.integers(0, top), min_size=count, max_size=count)


@st.composite
def vectors(draw, *widths):
    """One list of values of each width (None: any width, which comes first), all of one length."""
    width, count = draw(st.integers(1, 64)), draw(COUNTS)
    return width, *(draw(values(width if one is None else one, count)) for one in widths)


# ------------------------------------------------------------------------------------------------------------------- mux


def check_mux(width, flags, x, y, security):
    def program(flow, rows):
        circuits = [
            mux(rows.bits("flag"), rows.bits("x"), rows.bits("y")),
            mux(rows.bits("flag"), rows.bits("y"), rows.bits("x")),
        ]
        return (yield from evaluate(flow.stage, "mux", circuits))

    (one, other), _ = run_table(program, {"flag": (flags, 1), "x": (x, width), "y": (y, width)}, security=security)
    assert one == [a if flag else b for flag, a, b in zip(flags, x, y, strict=True)]
    assert other == [b if flag else a for flag, a, b in zip(flags, x, y, strict=True)]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(vectors(1, None, None))
def test_mux_of_any_width(case):
    check_mux(*case, "passive")


@pytest.mark.parametrize("width", range(1, 65))
def test_mux_of_every_width_in_both_kinds_of_session(width):
    rng, security = random.Random(width), SECURITIES[width % 2]
    x, y = ([0, (1 << width) - 1, *(rng.getrandbits(width) for _ in range(5))] for _ in range(2))
    check_mux(width, [rng.getrandbits(1) for _ in x], x, y[::-1], security)


# ------------------------------------------------------------------------------------------------------ the smallest lane


def check_smallest(keys, width, security):
    def program(flow, rows):
        return (yield from evaluate(flow.stage, "smallest", [first_smallest(rows.bits("key"))]))

    (found,), _ = run_table(program, {"key": (keys, width)}, security=security)
    assert found == [int(place == keys.index(min(keys))) for place in range(len(keys))]


@st.composite
def lanes(draw, counts):
    width, count = draw(st.integers(1, 64)), draw(counts)
    few = draw(st.lists(st.integers(0, (1 << width) - 1), min_size=1, max_size=3))
    return draw(st.lists(st.sampled_from(few), min_size=count, max_size=count) | values(width, count)), width


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lanes(st.integers(1, 20) | st.sampled_from((63, 64, 65, 128, 129, 200))))
def test_the_first_of_the_smallest_of_any_width(case):
    check_smallest(*case, "passive")


@settings(max_examples=8, deadline=None, derandomize=True)
@given(lanes(st.integers(1, 70)))
def test_the_first_of_the_smallest_is_proven(case):
    check_smallest(*case, "active")


# -------------------------------------------------------------------------------------------------------------- injection


def check_injection(flags, x, ends, security):
    def program(flow, rows):
        bit, ring = rows.bits("flag"), rows.ring("x")
        kept = yield from inject(flow.stage, bit, ring)
        sums, counts = yield from inject_sums(flow.stage, bit, ring, np.array(ends, dtype=np.int64))
        return [kept, sums, counts]

    (kept, sums, counts), _ = run_table(program, {"flag": (flags, 1), "x": (x, None)}, security=security)
    wanted = [flag * value for flag, value in zip(flags, x, strict=True)]
    starts = [0, *ends[:-1]]
    assert kept == wanted
    assert sums == [sum(wanted[start:end]) % M for start, end in zip(starts, ends, strict=True)]
    assert counts == [sum(flags[start:end]) for start, end in zip(starts, ends, strict=True)]


@st.composite
def injections(draw):
    count = draw(COUNTS)
    cuts = draw(st.lists(st.integers(0, count), max_size=6))
    return draw(values(1, count)), draw(values(64, count)), [*sorted(cuts), count]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(injections())
def test_injected_values_and_their_sums_over_any_segments(case):
    check_injection(*case, "passive")


@settings(max_examples=6, deadline=None, derandomize=True)
@given(injections())
def test_injected_values_are_proven(case):
    check_injection(*case, "active")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(vectors(None))
def test_values_of_any_width_become_numbers_with_and_without_signs(case):
    width, x = case

    def program(flow, rows):
        plain = yield from values_to_ring(flow.stage, rows.bits("x"))
        return [plain, (yield from values_to_ring(flow.stage, rows.bits("x"), signed=True))]

    (plain, with_sign), _ = run_table(program, {"x": (x, width)}, security="passive")
    assert plain == x
    assert with_sign == [signed(value, width) % M for value in x]


# ------------------------------------------------------------------------------------------------------ daBits and counters


def check_dabits(portions, spare, security):
    """Spend one supply in several portions; what is left is counted."""

    def program(flow, *tables):
        supply = yield from make_dabits(flow.stage, sum(map(len, portions)) + spare)
        yield from flow.finish()
        out = []
        for rows in tables:
            out += [(yield from bits_to_ring_with(flow.stage, supply, rows.bits("bit")))]
        assert supply.left == spare
        return out

    found, _ = run_table(program, *({"bit": (bits, 1)} for bits in portions), security=security)
    assert found == portions


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(COUNTS.flatmap(lambda count: values(1, count)), min_size=1, max_size=4), st.integers(0, 3))
def test_bits_of_any_number_are_converted_with_dabits(portions, spare):
    check_dabits(portions, spare, "passive")


@pytest.mark.parametrize("bits", [[], [0], [1], [0] * 64, [1] * 65])
def test_dabits_of_few_and_of_equal_bits_are_proven(bits):
    check_dabits([bits, bits], 0, "active")


def check_counters(flags, x, y, security):
    """Products, differences, sums and bits mod 2^32."""
    xs, ys = share_counters(x), share_counters(y)
    bits = share_bits(flags, 1)

    def program(flow):
        own = [parts[flow.stage.party] for parts in (xs, ys, bits)]
        a, b, bit = own if security == "active" else map(as_passive, own)
        product = yield from multiply_counters(flow.stage, a, b)
        ones = yield from bits_to_counters(flow.stage, bit)
        both = yield from multiply_counters(flow.stage, product, ones)
        return (yield from flow.open([product, ones, both, a.minus(b), a.plus(b), both.total()]))

    out = run_flow(program, security=security)
    assert not out.errors, out.errors
    rows, m = list(zip(flags, x, y, strict=True)), 1 << 32
    wanted = [
        [a * b % m for _, a, b in rows], flags, [bit * a * b % m for bit, a, b in rows], [(a - b) % m for _, a, b in rows],
        [(a + b) % m for _, a, b in rows], [sum(bit * a * b for bit, a, b in rows) % m],
    ]  # fmt: skip
    assert all([part.tolist() for part in out.results[position]] == wanted for position in range(3))


@st.composite
def counted(draw):
    count = draw(COUNTS)
    return [draw(values(width, count)) for width in (1, 32, 32)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(counted())
def test_counters_wrap_as_integers_mod_two_to_the_32(case):
    check_counters(*case, "passive")


@pytest.mark.parametrize("count", [0, 1, 65])
def test_counters_are_proven(count):
    rng = random.Random(count)
    top = (1 << 32) - 1
    check_counters(
        *([rng.choice([0, 1, most, rng.randrange(most + 1)]) for _ in range(count)] for most in (1, top, top)), "active"
    )
