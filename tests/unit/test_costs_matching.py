"""Joins and intersections cost exactly what their docstrings say, in both kinds of session."""

import pytest

from mpc_ops.protocol.order.merge_plan import merge_layers
from mpc_ops.protocol.relational.joins import join, require_unique
from mpc_ops.protocol.relational.many import join_many, require_bound
from mpc_ops.protocol.relational.ordered import Key
from mpc_ops.protocol.relational.sets import intersection, intersection_rows, intersection_size, open_intersection
from mpc_ops.protocol.relational.two_tables import TwoTables
from tests.support import costs
from tests.support.active import small_proofs
from tests.support.costs import NOTHING, Cost, Price, ands, check, gates, log2, opening, products, table, words


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def b2a(bits):
    return products(bits) + products(bits)


@pytest.mark.parametrize("counts", [(0, 1), (2, 3), (30, 35)])
@pytest.mark.parametrize(
    ("marks", "number"), [((None, None, None), 0), (("ok", None, None), 1), (("ok", "ok", "live"), 2)]
)
def test_rows_that_may_match(marks, number, counts):
    key, other, live = marks

    def program(flow, one, two):
        both = TwoTables((one, two), ((Key("a", key), Key("a", other)),), (live, None))
        yield from both.usable(flow.stage)

    shape = {"a": 5, "ok": 1, "live": 1}
    check(program, gates(number - 1, log2(number), sum(counts)) if number else NOTHING, shape, shape, count=counts)


# ------------------------------------------------------------------------------------------------------------------- joins


def join_cost(price, counts, kind, payload, marks):
    count = sum(counts)
    places, bits = max(1, log2(count)), 9 + (marks > 0)
    out = gates(marks - 1, log2(marks), count) if marks else NOTHING
    out += price.sort(count, bits + payload + 1 + places, 0, bits) + gates(*costs.equal(bits), count)
    has = kind in {"inner", "left", "full"}
    spread = price.spread(count, payload + 1, clean=has)
    if has:
        out += ands(words(count))
        copied = (payload + 1) * log2(count) <= 400
        spread = spread.beside(costs.any_row(count)) if copied else costs.any_row(count) + spread
    out += spread
    return out + price.put_back(count, payload + 1 + (kind == "full") + places, 0, places, int(has))


@pytest.mark.parametrize(
    ("counts", "kind", "marks"),
    [
        *[((1, 1), kind, 0) for kind in ("inner", "full", "anti")],
        *[((2, 3), kind, 2) for kind in ("inner", "left", "full", "semi", "anti")],
        ((30, 35), "full", 2),
        ((35, 30), "semi", 0),
    ],
)
def test_joins(kind, counts, marks):
    payload = ["a"] if kind in {"inner", "left", "full"} else []
    key = (Key("k", "ok"), Key("k", "ok")) if marks else (Key("k"), Key("k"))

    def program(flow, one, two):
        yield from join(flow, one, two, [key], payload, kind=kind, primary_live="live" if marks else None)

    def cost(price: Price) -> Cost:
        return join_cost(price, counts, kind, 4 * len(payload), marks)

    check(program, cost, {"k": 9, "ok": 1, "a": 4, "live": 1}, {"k": 9, "ok": 1, "b": 7}, count=counts)


@pytest.mark.parametrize("counts", [(2, 3), (2, 2)])
def test_a_join_with_a_wide_payload_spreads_by_a_shuffle(counts):
    wide = {"a": 64, "b": 64, "c": 20}

    def program(flow, one, two):
        yield from join(flow, one, two, [(Key("k"), Key("k"))], list(wide), kind="left")

    def cost(price: Price) -> Cost:
        return join_cost(price, counts, "left", 148, 0)

    check(program, cost, {"k": 9, **wide}, {"k": 9}, count=counts)


def test_a_join_that_keeps_a_secret_whether_keys_repeat_opens_it_later():
    def program(flow, one, two):
        joined = yield from join(flow, one, two, [(Key("k"), Key("k"))], ["a"], unique="secret")
        yield from require_unique(flow, joined)

    def cost(price: Price) -> Cost:
        whole = join_cost(price, (2, 3), "inner", 4, 0)
        last = price.put_back(5, 5 + 3, 0, 3)
        kept = Cost(whole.parts, (*whole.openings[:-1], last.openings[-1]))
        return kept + opening(1)

    check(program, cost, {"k": 9, "a": 4}, {"k": 9, "b": 7}, count=(2, 3))


@pytest.mark.parametrize(
    ("counts", "bound", "payload", "marks"),
    [
        ((1, 1), 1, [], 0),
        ((1, 1), 1, ["b"], 2),
        ((2, 3), 4, [], 2),
        ((2, 3), 4, ["b"], 0),
        ((2, 3), 4, ["b", "y"], 2),
        ((30, 40), 35, ["b", "y"], 0),
    ],
)
def test_many_to_many_joins(counts, bound, payload, marks):
    key = (Key("k", "ok"), Key("k", "ok")) if marks else (Key("k"), Key("k"))

    def program(flow, one, two):
        joined = yield from join_many(flow, one, two, [key], payload, bound=bound, left_live="live" if marks else None)
        yield from require_bound(flow, joined)

    def cost(price: Price) -> Cost:
        return many_cost(price, counts, bound, payload, marks=marks) + opening(1)

    left = {"k": 9, "ok": 1, "a": 4, "live": 1, "x": None}
    check(program, cost, left, {"k": 9, "ok": 1, "b": 7, "y": None}, count=counts)


def many_cost(price, counts, bound, payload, *, marks):
    (left, right), count, bits = counts, sum(counts), 9 + (marks > 0)
    more, more_ring = 7 * ("b" in payload), int("y" in payload)
    own, own_ring = 9 + 1 + 4 + 1, 1
    out = gates(marks - 1, log2(marks), count) if marks else NOTHING
    out += price.sort(count, bits + 1 + own + more, own_ring + more_ring, bits)
    out += gates(*costs.equal(bits), count) + b2a(2 * count) + products(count)
    out += price.spread(count, 0, 1) + price.spread(count, 0, 1) + products(count)
    out += price.compact(count, own + more + 1, own_ring + more_ring + 2)
    width = max(left * right, bound).bit_length()
    out += gates(*costs.low_bits(width), left)
    out += price.sort(left + bound, own + width + 1, own_ring + 1, width)
    out += price.spread(left + bound, own, own_ring + 1)
    out += price.compact(left + bound, own + 1, own_ring + 1)
    number = (right + bound).bit_length()
    out += gates(*costs.low_bits(number), bound)
    if payload:
        size = right + bound
        places = max(1, log2(size))
        out += price.sort(size, more + number + 1 + places, more_ring, number)
        out += price.spread(size, more, more_ring) + price.put_back(size, more + places, more_ring, places)
    out += gates(*costs.low_bits(width), 1)
    return out + gates(*costs.less_public(width), bound).beside(gates(*costs.less_public(width), 1))


def test_a_many_to_many_join_with_a_table_without_rows_costs_nothing():
    def program(flow, one, two):
        yield from join_many(flow, one, two, [(Key("k"), Key("k"))], ["b"], bound=3)

    check(program, NOTHING, {"k": 9}, {"k": 9, "b": 7}, count=(0, 5))


# -------------------------------------------------------------------------------------------------------------------- sets


def merge_cost(counts, key, bits, ring):
    """Without row numbers: layers of comparisons of the key, then an exchange of all columns."""
    out = NOTHING
    for layer in merge_layers(counts)[0]:
        size = len(layer.low)
        swapped = ands((key + bits) * words(size))
        if ring:
            swapped = swapped.beside(b2a(size) + products(ring * size))
        out += gates(*costs.less(key), size) + swapped
    return out


def match_cost(price, counts, marks, bits, ring, *, ascending):
    """The sets one above the other in order, which neighbours are equal, and whether a set is no set."""
    count, key = sum(counts), 9 + (marks > 0)
    out = gates(marks - 1, log2(marks), count) if marks else NOTHING
    same = gates(*costs.equal(key), count)
    if not ascending:
        return out + price.sort(count, key + 1 + bits, ring, key) + same + ands(words(count))
    rows = [words(one) for one in counts]
    rising = ands(costs.less(key)[0] * sum(rows), costs.less(key)[1])
    if marks:
        rising += ands(sum(rows))
    rising += costs.any_row(counts[0]).beside(costs.any_row(counts[1])) + ands(1)
    return out + merge_cost(counts, key, bits, ring).beside(rising) + same


def set_cost(price, counts, marks, sums, *, ascending):
    count = sum(counts)
    check_of = NOTHING if ascending else costs.any_row(count)
    totals = b2a(count) + table(1, sums, count)
    return match_cost(price, counts, marks, 0, sums, ascending=ascending) + check_of.beside(totals)


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize(
    ("counts", "marks", "sums"),
    [((1, 1), 0, ["x"]), ((2, 3), 0, []), ((2, 3), 2, ["x"]), ((1, 2), 2, []), ((30, 70), 2, ["x", "y"])],
)
def test_intersections(counts, marks, sums, ascending):
    key = (Key("k", "ok"), Key("k")) if marks else (Key("k"), Key("k"))

    def program(flow, one, two):
        found = yield from intersection(
            flow, one, two, [key], sums, left_live="live" if marks else None, ascending=ascending
        )
        return found

    def opened(flow, one, two):
        found = yield from program(flow, one, two)
        yield from open_intersection(flow, found)

    def cost(price: Price) -> Cost:
        return set_cost(price, counts, marks, len(sums), ascending=ascending)

    def with_opening(price: Price) -> Cost:
        return cost(price) + b2a(1) + products(1 + len(sums)) + opening(1, 1 + len(sums))

    shapes = {"k": 9, "ok": 1, "live": 1, "x": None}, {"k": 9, "y": None}
    values = {"ok": [1] * max(counts), "live": [1] * max(counts)}
    if sum(counts) < 64:
        check(program, cost, *shapes, count=counts)
    check(opened, with_opening, *shapes, count=counts, values={name: values[name][: counts[0]] for name in values})


@pytest.mark.parametrize("ascending", [False, True])
def test_the_size_alone(ascending):
    def program(flow, one, two):
        yield from intersection_size(flow, one, two, "k", ascending=ascending)

    def cost(price: Price) -> Cost:
        return set_cost(price, (4, 2), 0, 0, ascending=ascending)

    check(program, cost, {"k": 9}, {"k": 9}, count=(4, 2))


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize(("counts", "bound"), [((1, 1), None), ((2, 3), 1), ((30, 35), 20), ((3, 3), 100)])
def test_common_rows_for_one_position(counts, bound, ascending):
    count = sum(counts)

    def program(flow, one, two):
        yield from intersection_rows(
            flow, one, two, [(Key("k"), Key("k"))], ["a", "x"], position=1, ascending=ascending, bound=bound
        )

    def cost(price: Price) -> Cost:
        few = min(count, bound or count)
        out = match_cost(price, counts, 0, 4, 1, ascending=ascending)
        out += (NOTHING if ascending else costs.any_row(count)) + opening(1)
        out += price.compact(count, 9 + 4 + 1, 1) + price.blank(few, 9 + 4, 1)
        return out + opening((9 + 4 + 1) * words(few), few, 1, to=(1,))

    check(program, cost, {"k": 9, "a": 4}, {"k": 9, "x": None}, count=counts)
