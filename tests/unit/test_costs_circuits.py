"""Circuits have exactly the ANDs and the depth that their docstrings say: in bytes and rounds, passive and active."""

import numpy as np
import pytest

from mpc_ops.protocol.circuits import compare
from mpc_ops.protocol.circuits.boolean import evaluate, mux
from mpc_ops.protocol.circuits.counts import any_in_groups, any_unit, count_planes, popcount, side_by_side
from mpc_ops.protocol.circuits.divide import quotient
from mpc_ops.protocol.circuits.smallest import first_smallest
from mpc_ops.protocol.core.shares import concat
from mpc_ops.protocol.disclosure.gate_places import GateTerms, SliceGate
from mpc_ops.protocol.relational.ordered import same_as_next
from mpc_ops.protocol.relational.two_tables import any_row
from mpc_ops.ring.planes import to_planes
from tests.support import costs
from tests.support.active import small_proofs
from tests.support.costs import NOTHING, ands, check, check_circuit, gates, log2, words

WIDTHS = [1, 2, 3, 8, 13, 33, 64]


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def count_of(width):
    """A number of values for each width, so that single, ragged, full and several words occur."""
    return {1: 1, 2: 64, 3: 65, 8: 130, 13: 2, 33: 63, 64: 5}[width]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("name", "cost"),
    [("less", costs.less), ("less_equal", costs.less), ("equal", costs.equal), ("difference", costs.difference)],
)
def test_comparisons_of_two_shares(name, cost, width):
    circuit = getattr(compare, name)
    shapes = {"a": width}, {"a": width}
    check_circuit(lambda x, y: circuit(x.bits("a"), y.bits("a")), cost(width), *shapes, count=count_of(width))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [
    "less_public", "less_equal_public", "greater_public", "greater_equal_public", "equal_public"
])  # fmt: skip
def test_comparisons_with_public_values(name, width):
    circuit, count = getattr(compare, name), count_of(width)
    cost = (costs.equal if name == "equal_public" else costs.less_public)(width)
    many = to_planes(np.arange(count, dtype=np.uint64), width)
    for value in (1, many):
        check_circuit(lambda x, value=value: circuit(x.bits("a"), value), cost, {"a": width}, count=count)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("carry_out", lambda w: (2 * (w - 1) - log2(w), log2(w))),
        ("carries_out", costs.prefix),
    ],
)
def test_carries(name, cost, width):
    circuit = getattr(compare, name)
    shapes = {"a": width}, {"a": width}
    check_circuit(lambda x, y: circuit(x.bits("a"), y.bits("a")), cost(width), *shapes, count=count_of(width))


@pytest.mark.parametrize("width", [*WIDTHS, 4, 62])
@pytest.mark.parametrize(
    ("name", "cost"),
    [("most_significant_bit", costs.top_bit), ("is_zero", costs.is_zero), ("arithmetic_bits", costs.low_bits)],
)
def test_bits_of_arithmetic_shares(name, cost, width):
    circuit = getattr(compare, name)
    check_circuit(lambda x: circuit(x.ring("x"), width), cost(width), {"x": None}, count=70)


@pytest.mark.parametrize("count", [1, 64, 65])
def test_signs_and_wraps(count):
    check_circuit(lambda x: compare.negative(x.ring("x")), (241, 8), {"x": None}, count=count)
    check_circuit(lambda x: compare.wraps(x.ring("x")), (245, 8), {"x": None}, count=count)


def test_the_numbers_that_the_module_names():
    for circuit, ands_of in (
        (costs.less, [42, 89, 136, 184]),
        (costs.less_public, [26, 57, 88, 120]),
        (costs.equal, [15, 31, 47, 63]),
        (costs.top_bit, [51, 114, 177, 241]),
        (costs.is_zero, [44, 92, 140, 188]),
        (costs.prefix, [49, 129, 209, 321]),
        (costs.low_bits, [66, 174, 286, 426]),
    ):
        assert [circuit(width)[0] for width in (16, 32, 48, 64)] == ands_of


@pytest.mark.parametrize("width", WIDTHS)
def test_mux(width):
    shape = {"bit": 1, "a": width, "b": width}
    check_circuit(
        lambda rows: mux(rows.bits("bit"), rows.bits("a"), rows.bits("b")), (width, 1), shape, count=count_of(width)
    )


@pytest.mark.parametrize(("top", "bottom", "count"), [(1, 1, 1), (3, 5, 65), (8, 2, 64), (2, 13, 130)])
def test_quotient(top, bottom, count):
    check_circuit(
        lambda rows: quotient(rows.bits("a"), rows.bits("b")),
        costs.quotient(top, bottom),
        {"a": top, "b": bottom},
        count=count,
    )


@pytest.mark.parametrize("count", [1, 65])
def test_circuits_side_by_side_share_their_steps(count):
    def both(rows):
        return side_by_side(
            [compare.less(rows.bits("a"), rows.bits("b")), compare.equal(rows.bits("c"), rows.bits("c"))]
        )

    (one, deep), (other, _) = costs.less(9), costs.equal(3)
    check_circuit(both, (one + other, deep), {"a": 9, "b": 9, "c": 3}, count=count)


# --------------------------------------------------------------------------------------------------------- tables of bits


def popcount_cost(cells, units):
    """The table of the module: c (w - ones(w)) words, and ceil(c/64) for each pair of bits of one weight."""
    whole = words(units)
    bits = pairs = 0
    for weight in range(units.bit_length() - 1):
        bits = bits // 2 + 64 * (whole >= 1 << weight)
        pairs += bits // 2
    return ands(cells * (whole - whole.bit_count()) + words(cells) * pairs, units.bit_length() - 1)


def any_unit_cost(cells, units):
    return ands(cells * (words(units) - 1), log2(words(units))) + ands(63 * words(cells), 6)


def alone(make):
    def program(flow, *given):
        yield from evaluate(flow.stage, "circuit", [make(*given)])

    return program


@pytest.mark.parametrize(("cells", "units"), [(1, 64), (3, 192), (70, 128), (2, 448)])
def test_counts_of_units(cells, units):
    shape = {"a": cells - cells // 2, "b": cells // 2}

    def members(rows):
        return concat([rows.bits("a"), rows.bits("b")])

    check(alone(lambda rows: popcount(members(rows))), popcount_cost(cells, units), shape, count=units)
    check(alone(lambda rows: any_unit(members(rows))), any_unit_cost(cells, units), shape, count=units)


@pytest.mark.parametrize(("width", "count"), [(1, 1), (2, 65), (7, 64), (13, 130)])
def test_counts_of_planes(width, count):
    circuit = (width - width.bit_count(), width.bit_length() - 1)
    check_circuit(lambda rows: count_planes(rows.bits("a")), circuit, {"a": width}, count=count)


@pytest.mark.parametrize(("groups", "size", "count"), [(1, 1, 1), (2, 3, 65), (4, 8, 64), (1, 13, 130)])
def test_any_in_groups(groups, size, count):
    circuit = (groups * (size - 1), log2(size))
    check_circuit(lambda rows: any_in_groups(rows.bits("a"), groups), circuit, {"a": groups * size}, count=count)


@pytest.mark.parametrize("count", [0, 1, 64, 65, 200])
def test_any_row(count):
    check(alone(lambda rows: any_row(rows.bits("a"))), costs.any_row(count), {"a": 1}, count=count)


@pytest.mark.parametrize(("width", "count"), [(1, 1), (5, 64), (9, 65)])
def test_rows_like_the_next(width, count):
    check_circuit(lambda rows: same_as_next(rows.bits("a")), costs.equal(width), {"a": width}, count=count)
    shape = {"a": width, "ok": 1}
    check_circuit(
        lambda rows: same_as_next(rows.bits("a"), rows.bits("ok")), costs.equal(width + 1), shape, count=count
    )


def first_smallest_cost(count, width):
    """As the docstring says: pairs of a group of 64, then one AND of every lane with each other opponent, then the groups' winners."""
    if count == 1:
        return NOTHING
    pairs = sum(size * (size - 1) // 2 for size in [64] * (count // 64) + [count % 64])
    size = min(64, count)
    cost = gates(*costs.less(width), pairs) + gates(size - 1, log2(size), count)
    if count <= 64:
        return cost
    return cost + gates(width, 1, count) + first_smallest_cost(-(-count // 64), width) + gates(1, 1, count)


@pytest.mark.parametrize(("count", "width"), [(1, 5), (2, 1), (12, 7), (64, 3), (65, 4), (130, 2)])
def test_first_smallest(count, width):
    check(
        alone(lambda rows: first_smallest(rows.bits("a"))), first_smallest_cost(count, width), {"a": width}, count=count
    )


# ------------------------------------------------------------------------------------------------------ a slice of the Gate

DOMAINS = (("a", "b", "c"), ("x", "y"))
UNITS = (64, 128)


def cost_of_test(cells, terms, units):
    """Popcounts and a comparison; owners that have any unit, their number, a comparison, and one AND for both."""
    total = sum(units)
    cost = popcount_cost(cells, total) + gates(*costs.less_public(max(total.bit_length(), terms.k.bit_length())), cells)
    if terms.min_owners == 1:
        return cost
    present = NOTHING.beside(*(any_unit_cost(cells, one) for one in units))
    owners = len(units)
    width = max(owners.bit_length(), terms.min_owners.bit_length())
    few = present + gates(owners - owners.bit_count(), owners.bit_length() - 1, cells)
    return cost.beside(few + gates(*costs.less_public(width), cells)) + ands(words(cells))


def passes_cost(terms):
    total = words(sum(UNITS))
    cost = NOTHING
    for cells, parents in ((6, 3), (3, 1)):
        each = cells // parents
        cost += cost_of_test(cells, terms, UNITS) + ands(cells * total) + ands(parents * (each - 1) * total, log2(each))
    return cost


def top_cost(terms):
    return cost_of_test(1, terms, UNITS).beside(any_unit_cost(1, sum(UNITS)))


def smallest_cost():
    return first_smallest_cost(9, sum(UNITS).bit_length() + 1) + ands(1)


def decide_cost(terms):
    total, beside = words(sum(UNITS)), []
    if terms.totals:
        beside = [ands(5 * total, log2(6))]
    cost = passes_cost(terms) + top_cost(terms).beside(smallest_cost(), *beside) + ands(2) + ands(1)
    counted = NOTHING
    if terms.counts:
        # What is absorbed, cell by cell; the top's cell with it; the totals' members of the one level between.
        inner = ands(3 * 2 * total, log2(3)) if terms.totals else NOTHING
        counted = ands(9 * total) + ands(total).beside(inner) + popcount_cost(1 + 4 * terms.totals, sum(UNITS))
    return cost + ands(1).beside(counted)


@pytest.mark.parametrize("owners", [1, 2])
@pytest.mark.parametrize(("counts", "totals"), [(False, False), (True, False), (True, True)])
def test_circuits_of_a_slice(owners, counts, totals):
    terms = GateTerms(domains=DOMAINS, k=3, min_owners=owners, counts=counts, totals=totals)

    def gate(one, other):
        return SliceGate([one.bits("a"), other.bits("a")], terms)

    def with_levels(which):
        def program(flow, one, other):
            (found,) = yield from evaluate(flow.stage, "circuit", [gate(one, other).passes()])
            levels, members = found
            slice_gate = gate(one, other)
            later = {
                "top": lambda: slice_gate.top(members),
                "smallest": lambda: slice_gate.smallest(levels),
                "paths": lambda: slice_gate.paths(levels),
            }[which]
            yield from evaluate(flow.stage, "later", [later()])

        return program

    shapes = {"a": 6}, {"a": 6}

    def checked(program, cost):
        check(program, cost, *shapes, count=UNITS)

    checked(alone(lambda one, other: gate(one, other).tested(gate(one, other).members)), cost_of_test(6, terms, UNITS))
    checked(alone(lambda one, other: gate(one, other).passes()), passes_cost(terms))
    checked(with_levels("top"), passes_cost(terms) + top_cost(terms))
    checked(with_levels("smallest"), passes_cost(terms) + smallest_cost())
    checked(with_levels("paths"), passes_cost(terms))
    checked(alone(lambda one, other: gate(one, other).decide()), decide_cost(terms))


def test_paths_through_three_levels_take_an_and_a_leaf_for_each_level_between():
    terms = GateTerms(domains=(("a", "b"), ("x", "y"), ("1", "2", "3")), k=2)

    def program(flow, rows):
        gate = SliceGate([rows.bits("a")], terms)
        levels, _ = (yield from evaluate(flow.stage, "circuit", [gate.passes()]))[0]
        yield from evaluate(flow.stage, "later", [gate.paths(levels)])

    cost = NOTHING
    for cells, parents in ((12, 4), (4, 2), (2, 1)):
        each = cells // parents
        cost += cost_of_test(cells, terms, (64,)) + ands(cells) + ands(parents * (each - 1), log2(each))
    check(program, cost + ands(1), {"a": 12}, count=64)
