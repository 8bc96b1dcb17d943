"""Gates, products, conversions, divisions, openings and barriers cost exactly what their docstrings say."""

import numpy as np
import pytest

from mpc_ops.protocol.circuits import convert, products
from mpc_ops.protocol.circuits.boolean import and_many, evaluate
from mpc_ops.protocol.circuits.compare import equal, less
from mpc_ops.protocol.circuits.counters import bits_to_counters, multiply_counters
from mpc_ops.protocol.circuits.dabits import bits_to_ring_with, make_dabits
from mpc_ops.protocol.circuits.divide import divide_bits, divide_public, divide_shared, truncate
from mpc_ops.protocol.core.checkpoint import run_steps
from mpc_ops.protocol.core.own_input import input_of_all
from mpc_ops.protocol.core.party import together
from mpc_ops.protocol.disclosure.gate import GateInput, GateTerms, gate, gate_cost
from mpc_ops.protocol.disclosure.suppress import SuppressTerms, suppress, suppress_cost
from mpc_ops.protocol.order.shuffle import shuffle
from mpc_ops.protocol.proofs.proof_and import proof_bytes, proof_rounds
from mpc_ops.protocol.relational import dot_table as dot_table_module
from mpc_ops.protocol.relational import row_planes
from mpc_ops.protocol.relational.dot_table import dot_table
from mpc_ops.protocol.relational.row_planes import multiply_all
from tests.support import costs
from tests.support.active import SMALL_LAYOUT, run_flow, share_bits, small_proofs
from tests.support.costs import (
    NOTHING,
    Cost,
    Part,
    Price,
    ands,
    barrier,
    check,
    counter_products,
    gates,
    log2,
    message,
    opening,
    table,
    words,
)

COUNTS = [0, 1, 64, 65]


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def ring(outputs, terms=None):
    return costs.products(outputs, terms)


def b2a(bits):
    """Two products a bit, one after the other."""
    return ring(bits) + ring(bits)


# ------------------------------------------------------------------------------------------------------ gates and products


@pytest.mark.parametrize("count", COUNTS)
def test_gates_of_several_widths_share_a_message(count):
    def program(flow, rows):
        yield from and_many(flow.stage, "and", [(rows.bits(name), rows.bits(name)) for name in "ab"])

    check(program, ands(12 * words(count)), {"a": 5, "b": 7}, count=count)


@pytest.mark.parametrize("count", COUNTS)
def test_circuits_of_several_depths_share_their_rounds(count):
    def program(flow, rows):
        one, other = rows.bits("a"), rows.bits("b")
        yield from evaluate(flow.stage, "both", [less(one, other), equal(one, other)])

    cost = gates(*costs.less(9), count).beside(gates(*costs.equal(9), count))
    check(program, cost, {"a": 9, "b": 9}, count=count)


@pytest.mark.parametrize("count", COUNTS)
def test_products_of_vectors(count):
    def of(one):
        def program(flow, rows):
            yield from one(flow.stage, rows.ring("x"))

        return program

    check(of(lambda stage, x: products.multiply(stage, x, x)), ring(count), {"x": None}, count=count)
    check(of(products.square), ring(count), {"x": None}, count=count)
    check(of(products.fresh), ring(count), {"x": None}, count=count)
    check(of(lambda stage, x: products.dot(stage, x, x)), ring(1, count), {"x": None}, count=max(count, 1))


@pytest.mark.parametrize("ends", [[], [0, 0], [1], [0, 1, 1, 70], [64, 130], list(range(1, 40))])
def test_dot_products_over_segments_send_one_element_each(ends):
    count = ends[-1] if ends else 0

    def program(flow, rows):
        x = rows.ring("x")
        yield from products.dots(flow.stage, x, x, np.array(ends, dtype=np.int64))

    check(program, ring(len(ends), count), {"x": None}, count=count)


@pytest.mark.parametrize(("left", "right", "count"), [(1, 1, 1), (2, 3, 65), (4, 1, 64), (2, 2, 0)])
def test_tables_of_dot_products(left, right, count, monkeypatch):
    shape = {f"l{at}": None for at in range(left)} | {f"r{at}": None for at in range(right)}

    def program(flow, rows):
        sides = [[rows.ring(name) for name in shape if name[0] == side] for side in "lr"]
        yield from dot_table(flow.stage, *sides)

    check(program, table(left, right, count), shape, count=count)
    monkeypatch.setattr(dot_table_module, "BLOCK_ELEMENTS", 30 * (left + right))
    check(program, table(left, right, count, block=30), shape, count=count)


@pytest.mark.parametrize("count", COUNTS)
def test_products_of_many_pairs_share_a_message_and_go_in_portions(count, monkeypatch):
    def program(flow, rows):
        x = rows.ring("x")
        yield from multiply_all(flow.stage, [(x, x), (x[:3], x[:3]), (x, x)])

    short = min(count, 3)
    check(program, ring(2 * count + short), {"x": None}, count=count)
    monkeypatch.setattr(row_planes, "_PORTION", count + short)
    check(program, ring(count + short) + ring(count), {"x": None}, count=count)


# -------------------------------------------------------------------------------------------------------------- conversions


@pytest.mark.parametrize(("width", "count"), [(1, 1), (3, 65), (5, 64), (2, 0)])
def test_bits_to_the_ring(width, count):
    def of(one, name):
        def program(flow, rows):
            yield from one(flow.stage, rows.bits(name))

        return program

    check(of(convert.planes_to_ring, "a"), b2a(width * count), {"a": width}, count=count)
    check(of(convert.bits_to_ring, "bit"), b2a(count), {"bit": 1}, count=count)
    check(of(convert.values_to_ring, "a"), b2a(width * count), {"a": width}, count=count)


def test_values_go_to_the_ring_in_blocks_of_rows(monkeypatch):
    monkeypatch.setattr(convert, "_BLOCK_BITS", 64 * 3)

    def program(flow, rows):
        yield from convert.values_to_ring(flow.stage, rows.bits("a"), signed=True)

    check(program, b2a(3 * 64) + b2a(3 * 64) + b2a(3 * 2), {"a": 3}, count=130)


@pytest.mark.parametrize(("width", "count"), [(1, 1), (2, 65), (3, 64), (17, 5), (64, 70), (64, 0)])
def test_the_ring_to_bits(width, count):
    def program(flow, rows):
        yield from convert.ring_to_bits(flow.stage, rows.ring("x"), width)

    check(program, gates(*costs.low_bits(width), count), {"x": None}, count=count)


@pytest.mark.parametrize("ends", [[], [1], [0, 3, 64], [65]])
def test_injection_of_bits(ends):
    count = ends[-1] if ends else 0
    shape = {"bit": 1, "x": None}

    def alone(flow, rows):
        yield from convert.inject(flow.stage, rows.bits("bit"), rows.ring("x"))

    def summed(flow, rows):
        segments = np.array(ends, dtype=np.int64)
        yield from convert.inject_sums(flow.stage, rows.bits("bit"), rows.ring("x"), segments)

    check(alone, b2a(count) + ring(count), shape, count=count)
    check(summed, b2a(count) + ring(len(ends), count), shape, count=count)


@pytest.mark.parametrize("count", COUNTS)
def test_counters_send_half_and_are_proven_over_their_ring(count):
    def bits(flow, rows):
        return (yield from bits_to_counters(flow.stage, rows.bits("bit")))

    def both(flow, rows):
        made = yield from bits(flow, rows)
        yield from multiply_counters(flow.stage, made, made)

    cost = counter_products(count) + counter_products(count)
    check(bits, cost, {"bit": 1}, count=count)
    check(both, cost + counter_products(count), {"bit": 1}, count=count)


@pytest.mark.parametrize("count", COUNTS)
def test_dabits_are_made_in_two_rounds_and_spent_in_one(count):
    def make(flow, rows):
        return (yield from make_dabits(flow.stage, count))

    def spend(flow, rows):
        supply = yield from make(flow, rows)
        yield from flow.finish()
        yield from bits_to_ring_with(flow.stage, supply, rows.bits("bit"))

    def cost(price: Price) -> Cost:
        opened = message(8 * words(count) + 32 * price.active) if count else NOTHING
        return b2a(count) + barrier() + opened

    check(make, b2a(count), {"bit": 1}, count=count)
    check(spend, cost, {"bit": 1}, count=count)


# ----------------------------------------------------------------------------------------------------------------- division


def public_cost(divisor, count, rounding):
    if divisor == 1 or count == 0:
        return NOTHING
    ands_of, depth = costs.top_bit((5 * divisor).bit_length() + 1)
    floor = gates(245, 8, count) + b2a(2 * count) + gates(4 * ands_of, depth, count) + b2a(4 * count)
    return floor if rounding == "floor" else floor + gates(2 * ands_of + 1, depth + 1, count) + b2a(count)


@pytest.mark.parametrize("rounding", ["floor", "half_even"])
@pytest.mark.parametrize(("divisor", "count"), [(1, 5), (2, 1), (10, 65), (1 << 58, 3), (7, 0)])
def test_division_by_a_public_number(divisor, count, rounding):
    def program(flow, rows):
        yield from divide_public(flow.stage, rows.ring("x"), divisor, rounding=rounding)

    check(program, public_cost(divisor, count, rounding), {"x": None}, count=count)


@pytest.mark.parametrize(("bits", "count"), [(0, 5), (1, 64), (20, 65), (58, 1)])
def test_truncation_is_a_division_by_a_power_of_two(bits, count):
    def program(flow, rows):
        yield from truncate(flow.stage, rows.ring("x"), bits)

    check(program, public_cost(1 << bits, count, "floor"), {"x": None}, count=count)


@pytest.mark.parametrize(("top", "bottom", "count"), [(1, 1, 1), (4, 7, 65), (9, 2, 64), (3, 3, 0)])
def test_division_of_bits(top, bottom, count):
    def program(flow, rows):
        yield from divide_bits(flow.stage, rows.bits("a"), rows.bits("b"))

    check(program, gates(*costs.quotient(top, bottom), count), {"a": top, "b": bottom}, count=count)


@pytest.mark.parametrize("rounding", ["floor", "half_even"])
@pytest.mark.parametrize(("v", "u", "count"), [(1, 1, 1), (4, 7, 65), (20, 2, 64), (5, 62, 3), (3, 3, 0)])
def test_division_by_shared_values(v, u, count, rounding):
    def program(flow, rows):
        yield from divide_shared(flow.stage, rows.ring("x"), rows.ring("y"), widths=(v, u), rounding=rounding)

    near = rounding == "half_even"
    (top, deep), (bottom, _), (dividing, steps) = costs.low_bits(v), costs.low_bits(u), costs.quotient(v, u)
    rounds = 15 + deep + v * (2 + log2(u + 1)) + near * (1 + log2(u + 1))
    gate_words = (241 + bottom + top + dividing + u - 1 + v + near * (3 * u + 2 - log2(u + 1))) * words(count)
    logged = [count, count, count, v * count, v * count, *([count, count] if near else []), count]
    sent = 8 * gate_words + (32 + 16 * v + 16 * near) * count
    assert steps + near * (1 + log2(u + 1)) + 15 + deep == rounds
    part = Part(rounds, (sent,) * 3, gate_words, tuple((one, one, False) for one in logged))
    check(program, Cost((part,)) if count else NOTHING, {"x": None, "y": None}, count=count)


# -------------------------------------------------------------------------------------------- messages, openings, barriers


def test_messages_cost_their_bytes_and_protocols_together_the_rounds_of_the_longest():
    def said(stage, step, rounds):
        for number in range(rounds):
            yield from stage.exchange(f"{step}{number}", to_prev=b"abc", to_next=b"de", expect_prev=2, expect_next=3)

    def program(flow):
        yield from together(said(flow.stage, "a", 3), said(flow.stage, "b", 1))

    check(program, message(4 * 5, rounds=3))


@pytest.mark.parametrize(("number", "rounds"), [(1, 1), (64, 1), (65, 2), (200, 4)])
def test_more_protocols_together_than_a_round_has_messages_take_several_rounds(number, rounds):
    heard = []

    def said(stage, place):
        own = bytes([place, stage.party])
        inbound = yield from stage.exchange("say", to_prev=own, expect_next=2)
        heard.append(inbound.from_next == bytes([place, (stage.party + 1) % 3]))

    def program(flow):
        yield from together(*(said(flow.stage, place) for place in range(number)))

    check(program, message(2 * number, rounds=rounds))
    assert len(heard) == 6 * number
    assert all(heard)


@pytest.mark.parametrize("counts", [(0, 0, 0), (5, 0, 1), (2, 70, 3)])
def test_inputs_of_the_operators(counts):
    def program(flow):
        own = np.zeros(counts[flow.stage.party], dtype=np.uint64)
        yield from input_of_all(flow.stage, own, counts)

    check(program, message(*(8 * count for count in counts), rounds=int(any(counts))))


@pytest.mark.parametrize("count", COUNTS)
def test_openings_to_all_and_to_one(count):
    def to_all(flow, rows):
        yield from flow.open([rows.bits("a"), rows.ring("x")])

    sizes = 5 * words(count), count
    check(to_all, opening(*sizes), {"a": 5, "x": None}, count=count)
    for receiver in range(3):

        def to_one(flow, rows, receiver=receiver):
            yield from flow.open_to(receiver, [rows.bits("a"), rows.ring("x")])

        check(to_one, opening(*sizes, to=(receiver,)), {"a": 5, "x": None}, count=count)


def test_a_stage_that_ends_without_an_opening_costs_a_barrier_in_an_active_session_only():
    def program(flow, rows):
        yield from and_many(flow.stage, "and", [(rows.bits("a"), rows.bits("a"))])
        yield from flow.finish()

    check(program, ands(5 * 2) + barrier(), {"a": 5}, count=70)
    out, _ = costs.run(program, [{"a": 5}], [70], "active")
    # FLUSH rides with the first round of the proof; ACCEPT is one; the second stage has nothing to prove.
    assert out.rounds == [1 + proof_rounds(10, SMALL_LAYOUT) + 1 + 2] * 3
    assert out.sent_bytes == [80 + 64 + proof_bytes(10, SMALL_LAYOUT) + 64 + 128] * 3


def test_gates_of_every_kind_are_proven_side_by_side_behind_one_flush():
    def program(flow, rows):
        stage = flow.stage
        x, bit = rows.ring("x"), rows.bits("bit")
        yield from and_many(stage, "and", [(bit, bit)])
        yield from products.multiply(stage, x, x)
        yield from dot_table(stage, [x], [x, x])
        yield from bits_to_counters(stage, bit)
        yield from shuffle(flow, rows)

    def cost(price: Price) -> Cost:
        counted = counter_products(300) + counter_products(300)
        return ands(words(300)) + ring(300) + table(1, 2, 300) + counted + price.shuffle(300, 1, 1)

    check(program, cost, {"x": None, "bit": 1}, count=300)


def test_a_batch_that_reaches_the_limit_is_proven_at_once():
    shares = share_bits([1] * 64, 8)

    def program(flow):
        share = shares[flow.stage.party]
        yield from and_many(flow.stage, "and", [(share, share)])
        yield from flow.stage.settle()

    out = run_flow(program, limit_bytes=64 * 8)
    assert out.rounds == [1 + proof_rounds(8, SMALL_LAYOUT) + 2] * 3
    assert out.sent_bytes == [64 + 64 + proof_bytes(8, SMALL_LAYOUT) + 128] * 3


class Kept:
    """A keeper in memory."""

    def __init__(self):
        self.held = {}

    def numbers(self):
        return list(self.held)

    def save(self, number, data):
        self.held[number] = data

    def read(self, number):
        return self.held[number]

    def drop(self, number):
        del self.held[number]


@pytest.mark.parametrize("security", costs.SECURITIES)
def test_steps_with_checkpoints_between_them(security):
    keepers = [Kept(), Kept(), Kept()]

    def step(flow, rows):
        yield from and_many(flow.stage, "and", [(rows.bits("a"), rows.bits("a"))])
        return rows

    def program(flow, rows):
        yield from run_steps(flow, keepers[flow.stage.party], "plan", rows, [step, step, step])

    active, gate_words = security == "active", ands(5 * words(65))
    begin = message(16) + (message(80) if active else NOTHING)
    cost = begin + gate_words + barrier() + gate_words + barrier() + gate_words
    check(program, cost, {"a": 5}, count=65, securities=[security])
    # All three have the last checkpoint: one step is left.
    check(program, begin + gate_words, {"a": 5}, count=65, securities=[security])


# --------------------------------------------------------------------------------------------------------------- disclosure


@pytest.mark.parametrize("covers", [(), ((0, 1), (2,), (0, 1, 2, 3, 4))])
@pytest.mark.parametrize(("owners", "empty"), [(1, False), (3, True)])
def test_suppression(covers, owners, empty):
    terms = SuppressTerms(min_units=10, min_owners=owners, covers=covers, publish_empty=empty)
    rows = 5 + len(covers)

    def program(flow, counts, values):
        few = counts.bits("owners") if owners > 1 else None
        yield from suppress(flow.stage, counts.bits("units"), few, values.ring("x"), terms)

    tests = gates(*costs.less_public(9), 5)
    if empty:
        tests = tests.beside(gates(*costs.equal(9), 5))
    if owners > 1:
        tests = tests.beside(gates(*costs.less_public(4), 5)) + ands(1)
    size = max(map(len, covers), default=0)
    cost = tests + (gates(size - 1, log2(size), len(covers)) if covers else NOTHING) + b2a(rows) + ring(3 * rows)
    check(program, cost, {"units": 9, "owners": 4}, {"x": None}, count=(5, 2 * rows))
    assert cost.total(active=False) == (suppress_cost(5, 9, 4, 2, terms)[0], [suppress_cost(5, 9, 4, 2, terms)[1]] * 3)


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("domains", [(), (("a", "b", "c"),), (("a", "b"), ("x", "y"))])
def test_the_gate(domains, counts):
    terms = GateTerms(domains=domains, k=3, counts=counts, totals=False)
    leaves = terms.leaves

    def program(flow, members, measures):
        given = GateInput(members=[members.bits("a")], measures=measures.ring("x"))
        yield from gate(flow.stage, [given, given], terms)

    plain = gate_cost([[64], [64]], [2, 2], terms)
    depth = terms.depth
    # One slice: bits of places (and of cells that stay), counts of 7 bits, then all lanes in one round.
    bits = 1 + leaves * depth + (terms.candidates - leaves if counts and depth else 0)
    outputs = 2 * terms.cells
    lanes = ring(outputs, 2 * leaves * (depth + 1)).beside(ring(terms.cells) if counts else NOTHING)
    one = b2a(bits).beside(b2a(7 * terms.cells) if counts else NOTHING) + lanes
    boolean = ands((plain.sent - 2 * one.total(active=False)[1][0]) // 8, plain.rounds - 3)
    check(program, boolean + one.beside(one), {"a": leaves}, {"x": None}, count=(64, 2 * leaves))


@pytest.mark.parametrize(("slices", "rounds"), [(32, 3), (33, 6), (64, 6), (65, 9)])
def test_a_gate_of_more_slices_than_a_round_has_messages_takes_more_rounds(slices, rounds):
    terms = GateTerms(domains=(), k=3, counts=True)

    def program(flow, members, measures):
        given = GateInput(members=[members.bits("a")], measures=measures.ring("x"))
        yield from gate(flow.stage, [given] * slices, terms)

    cost = gate_cost([[64]] * slices, [1] * slices, terms)
    out, _ = costs.run(program, [{"a": 1}, {"x": None}], [64, 1], "passive")
    assert (out.rounds, out.sent_bytes) == ([cost.rounds] * 3, [cost.sent] * 3)
    assert cost.rounds == gate_cost([[64]], [1], terms).rounds - 3 + rounds
