"""Group-by, top-k, windows and what they are made of cost exactly what their docstrings say, in both kinds of session."""

import pytest

from mpc_ops.protocol.order.sort import SortKey
from mpc_ops.protocol.relational import ordered, small_domain
from mpc_ops.protocol.relational.domain_groups import domain_groups
from mpc_ops.protocol.relational.groups import Aggregate, Summand, distinct, group_by, summands
from mpc_ops.protocol.relational.ordered import Key
from mpc_ops.protocol.relational.small_domain import domain_sums
from mpc_ops.protocol.relational.topk import top_k
from mpc_ops.protocol.relational.windows import Window, windows
from tests.support import costs
from tests.support.active import small_proofs
from tests.support.costs import NOTHING, Cost, Price, ands, check, gates, log2, products, table, words


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def b2a(bits):
    return products(bits) + products(bits)


# ------------------------------------------------------------------------------------------------- steps of sorted tables


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_keys_put_together(count):
    shape = {"a": 5, "ok": 1, "b": 9}

    def of(*keys):
        def program(flow, rows):
            yield from ordered.key_planes(flow.stage, rows, keys)

        return program

    check(of(Key("a", "ok"), Key("b")), ands(5 * words(count)), shape, count=count)
    check(of(Key("a"), Key("b")), NOTHING, shape, count=count)


@pytest.mark.parametrize("shape", [{"a": 5, "b": 2}, {"a": 5, "x": None, "y": None}, {"x": None}])
@pytest.mark.parametrize("count", [0, 1, 65])
def test_rows_put_to_zero(shape, count):
    def program(flow, rows):
        yield from ordered.blank_rows(flow.stage, rows.bits("keep"), rows.without("keep"))

    bits, ring = sum(width or 0 for width in shape.values()), sum(width is None for width in shape.values())
    check(program, lambda price: price.blank(count, bits, ring), {"keep": 1, **shape}, count=count)


@pytest.mark.parametrize("count", [1, 5, 64, 65])
@pytest.mark.parametrize("also", [0, 1])
def test_rows_put_back_in_their_places(count, also):
    places = max(1, log2(count))

    def program(flow, rows):
        asked = [rows.bits("a").plane(0)] if also else []
        yield from ordered.put_back(flow, rows, "place", also=asked)

    def cost(price: Price) -> Cost:
        return price.put_back(count, 4 + places, 1, places, also * words(count))

    check(program, cost, {"a": 4, "x": None, "place": places}, count=count)


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5, 64, 65])
def test_spreading(count, clean):
    def of(how, staged):
        def program(flow, rows):
            given = flow.stage if staged else flow
            yield from how(given, rows.bits("head"), rows.without("head"), clean=clean)

        return program

    boolean, mixed = {"head": 1, "a": 4, "b": 3}, {"head": 1, "a": 4, "x": None}
    check(
        of(ordered.spread_by_copying, True), lambda p: p.spread_by_copying(count, 7, clean=clean), boolean, count=count
    )
    check(
        of(ordered.spread_by_shuffle, False),
        lambda p: p.spread_by_shuffle(count, 7, 0, clean=clean),
        boolean,
        count=count,
    )
    check(
        of(ordered.spread_by_shuffle, False),
        lambda p: p.spread_by_shuffle(count, 4, 1, clean=clean),
        mixed,
        count=count,
    )
    check(of(ordered.spread, False), lambda p: p.spread(count, 7, clean=clean), boolean, count=count)
    check(of(ordered.spread, False), lambda p: p.spread(count, 4, 1, clean=clean), mixed, count=count)


def test_spreading_of_wide_rows_is_by_a_shuffle_and_of_no_rows_nothing():
    def program(flow, rows):
        yield from ordered.spread(flow, rows.bits("head"), rows.without("head"))

    for bits in (57, 58):  # times 7 doublings: just up to 400, and above
        check(program, lambda p, bits=bits: p.spread(65, bits), {"head": 1, "a": bits}, count=65)
    check(program, NOTHING, {"head": 1, "x": None}, count=0)


# ---------------------------------------------------------------------------------------------------------- tiny domains


def split_of(width, columns, *, counted):
    """The number of low bits that multiply the columns: the fewest products a row, then the fewest low bits."""

    def each(low):
        high = width - low
        return columns * (2**low - 1) + 2**high - high - 1 + (2**low - low - 1) * counted

    return min(range(width + 1), key=lambda low: (each(low), low))


def domain_cost(count, width, columns, *, counted, marked):
    if count == 0:
        return NOTHING
    cost = b2a((width + marked) * count)
    if marked:
        cost += products(columns * count)
        columns += counted
    plain = counted and not marked
    low = split_of(width, columns, counted=plain)
    high = width - low
    cost += monomials(count, columns, low, high, plain=plain)
    lefts = columns * 2**low + (2**low - 1) * plain
    return cost + table(lefts, 2**high - 1, count)


def monomials(count, columns, low, high, *, plain):
    """One low bit more a round; high ones are made meanwhile, of monomials of at most twice as many bits."""

    def of_bits(bits, size):
        return sum(mask.bit_count() == size for mask in range(2**bits))

    cost, made = NOTHING, 0
    for number in range(1, max(low, log2(high) if high else 0) + 1):
        # What is counted is the public 1: its monomials of one bit are there.
        each = columns * of_bits(low, number) + plain * of_bits(low, number + 1)
        each += sum(of_bits(high, bits) for bits in range(2 ** (number - 1) + 1, min(2**number, high) + 1))
        made += each
        cost += products(each * count)
    assert made == columns * (2**low - 1) + 2**high - high - 1 + (2**low - low - 1) * plain
    return cost


@pytest.mark.parametrize(
    ("width", "columns", "count"), [(1, 1, 1), (2, 2, 65), (4, 1, 64), (7, 1, 5), (3, 0, 10), (7, 0, 3), (2, 1, 0)]
)
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("marked", [False, True])
def test_sums_over_a_tiny_domain(width, columns, count, counted, marked):
    shape = {"key": width, "mark": 1} | {f"x{at}": None for at in range(columns)}

    def program(flow, rows):
        summed = [rows.ring(f"x{at}") for at in range(columns)]
        marks = rows.bits("mark") if marked else None
        yield from domain_sums(flow.stage, rows.bits("key"), summed, count=counted, marks=marks)

    check(program, domain_cost(count, width, columns, counted=counted, marked=marked), shape, count=count)


def test_sums_over_a_tiny_domain_go_in_blocks_of_rows(monkeypatch):
    monkeypatch.setattr(small_domain, "BLOCK_ROWS", 64)

    def program(flow, rows):
        yield from domain_sums(flow.stage, rows.bits("key"), [rows.ring("x")])

    cost = NOTHING
    for rows in (64, 64, 2):
        cost += domain_cost(rows, 3, 1, counted=False, marked=False)
    check(program, cost, {"key": 3, "x": None}, count=130)


def domain_groups_cost(price, count, width, columns, bound, *, marked):
    size, bits = 2**width, count.bit_length()
    cost = domain_cost(count, width, columns, counted=True, marked=marked)
    cost += gates(*costs.low_bits(bits), size) + gates(*costs.equal(bits), size)
    cost += price.compact(size, width + 1, columns + 1)
    return cost + price.blank(min(size, bound), width)


@pytest.mark.parametrize(("width", "count"), [(1, 2), (1, 3), (2, 65), (3, 64)])
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("bound", [1, 3, 100])
def test_groups_of_a_tiny_domain(width, count, marked, bound):
    def program(flow, rows):
        live = rows.bits("live") if marked else None
        yield from domain_groups(flow, rows.bits("key"), live, [None, rows.ring("x")], bound)

    def cost(price: Price) -> Cost:
        return domain_groups_cost(price, count, width, 1, bound, marked=marked)

    check(program, cost, {"key": width, "live": 1, "x": None}, count=count)


# ----------------------------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_what_is_summed(count):
    wanted = [
        Summand(),
        Summand(valid="ok"),
        Summand("x", "ok", 1),
        Summand("x", "ok", 2),
        Summand("y", "", 1),
        Summand("a", "", 1),
        Summand("a", "", 2),
    ]
    shape = {"x": None, "y": None, "a": 5, "ok": 1}

    def of(some):
        def program(flow, rows):
            yield from summands(flow.stage, rows, some)

        return program

    # The flag and five bits go to the ring, x is multiplied by its flag, then two squares.
    cost = b2a(count).beside(b2a(5 * count)) + products(count) + products(2 * count)
    check(of(wanted), cost, shape, count=count)
    check(of(wanted[:1] + wanted[4:5]), NOTHING, shape, count=count)
    check(of([Summand("x", "", 2)]), products(count), shape, count=count)


def test_more_amounts_than_a_round_has_messages_go_in_several_rounds():
    shape = {f"a{at}": 2 for at in range(70)}

    def program(flow, rows):
        yield from summands(flow.stage, rows, [Summand(name, "", 1) for name in shape])

    cost = NOTHING
    for columns in (64, 6, 64, 6):
        cost += products(columns * 2 * 5)
    check(program, cost, shape, count=5)


def group_cost(price, count, key, live, sums, *, order=0, nulls=False, kinds=(), bound=None):
    """One pass: the sort, boundaries, what the ends of groups bring along, and the groups in front."""
    cost = NOTHING
    if order and nulls:
        cost += (ands(words(count)) if live else NOTHING) + ands(order * words(count))
    whole = key + live + order + (nulls and order > 0)
    cost += price.sort(count, whole, sums, whole)
    same = gates(*costs.equal(key + live), count)
    if "distinct_count" in kinds:
        more = order + key + nulls + (live or nulls)
        same = same.beside(gates(*costs.equal(more), count))
    cost += same
    counted, largest = b2a(count) if "distinct_count" in kinds else NOTHING, NOTHING
    moved, ring = key, sums + ("distinct_count" in kinds)
    if "min" in kinds:
        moved += order
    if nulls and {"min", "max"} & set(kinds):
        moved += 1
    if "max" in kinds:
        moved += order
        if nulls:
            largest = ands(words(count)) + ands(order * words(count))
    cost += counted.beside(largest)
    cost += price.compact(count, moved + 1, ring)
    return cost + price.blank(min(count, bound or count), moved, ring)


@pytest.mark.parametrize(("count", "live", "bound"), [(1, False, None), (5, True, 3), (65, False, 70)])
def test_group_by_sums(count, live, bound):
    wanted = [Aggregate("n", "count"), Aggregate("v", "variance", "x", "ok")]

    def program(flow, rows):
        keys = [Key("a", "a_ok"), Key("b")]
        yield from group_by(flow, rows, keys, wanted, live="live" if live else None, bound=bound)

    def cost(price: Price) -> Cost:
        prepared = ands(9 * words(count)).beside(b2a(count) + products(count) + products(count))
        return prepared + group_cost(price, count, 14, live, 4, bound=bound)

    check(program, cost, {"a": 9, "a_ok": 1, "b": 4, "x": None, "ok": 1, "live": 1}, count=count)


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize(
    ("kinds", "count", "live"),
    [
        *[(kinds, *size) for kinds in (["min"], ["max"], ["distinct_count"]) for size in ((2, False), (5, True))],
        (["min", "max", "distinct_count"], 65, True),
        (["min", "max", "distinct_count"], 3, False),
    ],
)
def test_group_by_values(kinds, nulls, count, live):
    wanted = [Aggregate(kind, kind, "size", "ok" if nulls else None) for kind in kinds]

    def program(flow, rows):
        yield from group_by(flow, rows, [Key("a")], wanted, live="live" if live else None)

    def cost(price: Price) -> Cost:
        return group_cost(price, count, 9, live, 0, order=5, nulls=nulls, kinds=kinds)

    check(program, cost, {"a": 9, "size": 5, "ok": 1, "live": 1}, count=count)


def test_group_by_with_sums_and_two_ordered_columns_takes_two_passes():
    wanted = [Aggregate("s", "sum", "x"), Aggregate("lo", "min", "size"), Aggregate("hi", "max", "other", "ok")]

    def program(flow, rows):
        yield from group_by(flow, rows, [Key("a")], wanted)

    def cost(price: Price) -> Cost:
        first = group_cost(price, 6, 9, False, 1, order=5, kinds=["min"])
        return first + group_cost(price, 6, 9, False, 0, order=3, nulls=True, kinds=["max"])

    check(program, cost, {"a": 9, "x": None, "size": 5, "other": 3, "ok": 1}, count=6)


@pytest.mark.parametrize("live", [False, True])
def test_group_by_a_narrow_key_takes_no_sort(live):
    wanted = [Aggregate("n", "count"), Aggregate("s", "sum", "x")]

    def program(flow, rows):
        yield from group_by(flow, rows, [Key("a")], wanted, live="live" if live else None, bound=3)

    def cost(price: Price) -> Cost:
        return domain_groups_cost(price, 65, 2, 1, 3, marked=live)

    check(program, cost, {"a": 2, "x": None, "live": 1}, count=65)


@pytest.mark.parametrize(("count", "live", "bound"), [(1, False, None), (5, True, None), (65, False, 7)])
def test_distinct_rows_are_groups_without_figures(count, live, bound):
    def program(flow, rows):
        yield from distinct(flow, rows, [Key("a", "ok"), Key("b")], live="live" if live else None, bound=bound)

    def cost(price: Price) -> Cost:
        return ands(9 * words(count)) + group_cost(price, count, 14, live, 0, bound=bound)

    check(program, cost, {"a": 9, "ok": 1, "b": 4, "live": 1}, count=count)


# ------------------------------------------------------------------------------------------------------- top-k and windows


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(("count", "k"), [(1, 1), (5, 2), (40, 2), (65, 4), (65, 5), (3, 100)])
def test_top_k(count, k, live):
    def program(flow, rows):
        yield from top_k(flow, rows, [SortKey("a")], k, live="live" if live else None)

    def cost(price: Price) -> Cost:
        bits, number, few = 9 + live, max(1, log2(count)), min(k, count)
        columns = 9 + 3 + 1
        if 16 * few <= count:
            out = price.shuffle(count, columns + number, 1) + price.levels(bits + number)
        else:
            out = price.sort(count, columns, 1, bits)
        return out + (price.blank(few, 9 + 3, 1) if live else NOTHING)

    check(program, cost, {"a": 9, "c": 3, "x": None, "live": 1}, count=count)


@pytest.mark.parametrize(
    ("count", "grouped", "live"), [(2, True, True), (5, False, True), (5, True, False), (65, True, True)]
)
def test_windows(count, grouped, live):
    wanted = [
        Window("s", "running_sum", "x", "ok"),
        Window("n", "row_number"),
        Window("r", "rank"),
        Window("d", "dense_rank"),
    ]

    def program(flow, rows):
        keys = [Key("k", "ok")] if grouped else []
        yield from windows(
            flow, rows, wanted, [SortKey("o", valid="ok")], partition_by=keys, live="live" if live else None
        )

    def cost(price: Price) -> Cost:
        key, order, nulls = 6 * grouped, 7, ands(6 * words(count))
        out = (b2a(count) + products(count)).beside(nulls, ands(5 * words(count)) if grouped else NOTHING)
        out += price.sort(count, 5 + 6 + 1 + 1 + key + order + live, 2, key + order + live)
        same = gates(*costs.equal(key + live), count) if grouped else NOTHING
        out += same.beside(gates(*costs.equal(key + order + live), count)) + b2a(count)
        return out + (price.spread(count, 0, 3) if grouped else NOTHING) + price.spread(count, 0, 1)

    check(program, cost, {"k": 5, "o": 6, "x": None, "ok": 1, "live": 1}, count=count)


@pytest.mark.parametrize("count", [0, 1, 65])
def test_row_numbers_alone_cost_the_sort(count):
    def program(flow, rows):
        yield from windows(flow, rows, [Window("n", "row_number")], [SortKey("o")])

    # The key is moved beside the column that it is made of.
    check(program, lambda price: price.sort(count, 12, 1, 6), {"o": 6, "x": None}, count=count)
