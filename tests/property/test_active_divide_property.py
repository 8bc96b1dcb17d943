"""Division by shared numbers against Python integers: all widths up to the limits, both roundings, no rows, one row, no divisor."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ops.protocol.circuits.divide import divide_bits, divide_shared
from tests.support.active import small_proofs
from tests.support.relational import SECURITIES, run_table

M = 1 << 64
EDGES = (1, 2, 3, 7, 8, 31, 32, 33, 61, 62)


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def near_powers(width: int, *, signed: bool = False) -> st.SearchStrategy[int]:
    """Numbers of at most so many bits: any, and those beside powers of two and beside the limits."""
    top = (1 << width) - 1
    edges = sorted({min(top, max(0, (1 << bit) + step)) for bit in range(width + 1) for step in (-1, 0, 1)})
    magnitudes = st.integers(0, top) | st.sampled_from(edges)
    return st.builds(lambda value, sign: value * sign, magnitudes, st.sampled_from((-1, 1))) if signed else magnitudes


def divided(top: int, bottom: int, rounding: str) -> int:
    """What `divide_shared` promises: the magnitude rounded down or to the nearest even, with the sign; 0 without a divisor."""
    if bottom == 0:
        return 0
    exact = Fraction(abs(top), bottom)
    whole = int(exact) if rounding == "floor" else round(exact)  # round() takes ties to the even neighbour
    return whole if top >= 0 else -whole


def check_shared(pairs, widths, rounding, security):
    def program(flow, rows):
        found, known = yield from divide_shared(
            flow.stage, rows.ring("top"), rows.ring("bottom"), widths=widths, rounding=rounding
        )
        return [found, known]

    spec = {"top": ([a for a, _ in pairs], None), "bottom": ([b for _, b in pairs], None)}
    (found, known), _ = run_table(program, spec, security=security)
    assert found == [divided(a, b, rounding) % M for a, b in pairs]
    assert known == [int(b > 0) for _, b in pairs]


@st.composite
def shared_divisions(draw):
    v, u = draw(st.sampled_from(EDGES) | st.integers(1, 62)), draw(st.sampled_from(EDGES) | st.integers(1, 62))
    rows = draw(st.lists(st.tuples(near_powers(v, signed=True), near_powers(u)), max_size=70))
    return rows, (v, u), draw(st.sampled_from(("floor", "half_even")))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shared_divisions())
def test_division_of_any_widths_is_exact(division):
    rows, widths, rounding = division
    check_shared(rows, widths, rounding, "passive")


@pytest.mark.parametrize("rounding", ["floor", "half_even"])
@pytest.mark.parametrize("widths", [(62, 62), (62, 1), (1, 62), (1, 1)])
def test_division_at_the_limits_of_the_widths(widths, rounding):
    tops = {0, 1, (1 << widths[0]) - 1, 1 << (widths[0] - 1)}
    bottoms = {0, 1, 2 % (1 << widths[1]), (1 << widths[1]) - 1, 1 << (widths[1] - 1)}
    check_shared(
        [(sign * a, b) for a in sorted(tops) for b in sorted(bottoms) for sign in (1, -1)], widths, rounding, "passive"
    )


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("rounding", ["floor", "half_even"])
@pytest.mark.parametrize("count", [0, 1, 65])
def test_division_of_no_row_and_one_row_in_both_kinds_of_session(count, rounding, security):
    rng = random.Random(f"{count}{rounding}")
    check_shared([(rng.randrange(-511, 512), rng.randrange(8)) for _ in range(count)], (9, 3), rounding, security)


@st.composite
def plane_divisions(draw):
    v, u = draw(st.sampled_from((*EDGES, 63, 64))), draw(st.sampled_from((*EDGES, 63, 64)))
    return draw(st.lists(st.tuples(near_powers(v), near_powers(u)), max_size=70)), v, u


def check_planes(rows, v, u, security):
    def program(flow, table):
        return list((yield from divide_bits(flow.stage, table.bits("top"), table.bits("bottom"))))

    spec = {"top": ([a for a, _ in rows], v), "bottom": ([b for _, b in rows], u)}
    (quotients, rests), _ = run_table(program, spec, security=security)
    # Without a divisor the quotient is all ones, and the rest is what was shifted in, as far as it fits.
    assert list(zip(quotients, rests, strict=True)) == [
        divmod(a, b) if b else ((1 << v) - 1, a % (1 << u)) for a, b in rows
    ]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(plane_divisions())
def test_quotient_and_rest_of_any_widths(division):
    check_planes(*division, "passive")


@pytest.mark.parametrize("count", [0, 1, 66])
def test_quotient_and_rest_are_proven(count):
    rng = random.Random(count)
    check_planes([(rng.randrange(64), rng.randrange(16)) for _ in range(count)], 6, 4, "active")
