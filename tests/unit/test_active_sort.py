"""Sorts and merges: exact rounds and bytes given the public number of comparisons of each level, choices, refusals."""

import random
import tracemalloc
from typing import ClassVar

import numpy as np
import pytest

from mpc_ops.errors import Abort, LocalProtocolError
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.shares import boolean_of
from mpc_ops.protocol.order import sort as sort_module
from mpc_ops.protocol.order import sort_quick
from mpc_ops.protocol.order.merge_plan import merge_layers
from mpc_ops.protocol.order.sort import RADIX_BITS, SortKey, merge_sorted, sort
from mpc_ops.protocol.order.sort_keys import key_width
from mpc_ops.protocol.order.sort_plan import MAX_PIVOTS, MAX_ROWS, QuickPlan
from mpc_ops.protocol.order.sort_quick import block_size
from mpc_ops.protocol.order.sort_radix import radix_passes, rows_travel
from mpc_ops.protocol.proofs.proof_and import AndLog, proof_bytes, proof_rounds
from mpc_ops.ring.planes import to_planes
from tests.support.active import SMALL_LAYOUT, run_flow
from tests.support.relational import SECURITIES, refusal, run_table, sent_by, tables


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(AndLog, "layout", SMALL_LAYOUT)


BYTES_A_ROW = 48
"""Six times the shares of the inputs."""


def log2(number: int) -> int:
    return (number - 1).bit_length()


def words(count: int) -> int:
    return -(-count // 64)


def less_words(width: int, count: int) -> int:
    return words(count) * (3 * width - 2 - log2(width))


class Watched(QuickPlan):
    """A plan that remembers how many comparisons each level has."""

    made: ClassVar[list["Watched"]] = []

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.compared = []
        Watched.made.append(self)

    def pairs(self):
        found = super().pairs()
        if found is not None:
            self.compared.append(len(found))
        return found


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize(("count", "pivots", "nulls"), [(2, 1, False), (65, 1, True), (100, 3, False), (30, 15, True)])
def test_quicksort_costs_what_its_docstring_says(security, count, pivots, nulls, monkeypatch):
    monkeypatch.setattr(sort_quick, "QuickPlan", Watched)
    monkeypatch.setattr(Watched, "made", [])
    monkeypatch.setattr(sort_module, "RADIX_BITS", {security: 0})
    rng, width = random.Random(count), 13
    spec = {
        "key": ([rng.getrandbits(width) for _ in range(count)], width),
        "valid": ([rng.getrandbits(1) for _ in range(count)], 1),
        "amount": ([rng.getrandbits(64) for _ in range(count)], None),
    }
    key = SortKey("key", valid="valid" if nulls else None)

    def program(flow, rows):
        yield from sort(flow, rows, [key], pivots=pivots)
        return []

    _, out = run_table(program, spec, security=security)
    one, *others = Watched.made
    levels = one.compared
    assert all(other.compared == levels for other in others)
    number = max(1, log2(count))
    bits, whole = width + 1 + number, width + nulls + number
    active = security == "active"
    size = 8 * bits * words(count) + (8 * count if not active else (8 + 16 + 16) * count)
    assert sent_by(out, "shuffle-1", "shuffle-2", party=1) == 2 * size + 1
    assert sent_by(out, "null-keys") == 8 * width * words(count) * nulls
    depth = 1 + log2(whole)
    assert sent_by(out, "level") == 8 * sum(less_words(whole, pairs) for pairs in levels)
    assert sent_by(out, "open") == sum(8 * words(pairs) + 32 * active for pairs in levels)
    if active:
        proofs = [less_words(whole, pairs) for pairs in levels]
        proofs[0] += width * words(count) * nulls
        padded = [SMALL_LAYOUT.padded(gates) for gates in proofs]
        assert sent_by(out, "and") == sum(proof_bytes(gates, SMALL_LAYOUT) for gates in padded)
        rounds = 3 + nulls + sum(depth + proof_rounds(gates, SMALL_LAYOUT) + 2 for gates in padded)
        # The test's own opening of nothing: FLUSH, ACCEPT, opening.
        assert out.rounds == [rounds + 3] * 3
    else:
        assert out.rounds == [2 + nulls + len(levels) * (depth + 1) + 1] * 3


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("pivots", [1, 3])
def test_levels_of_many_comparisons_are_compared_in_blocks(security, pivots, monkeypatch):
    monkeypatch.setattr(sort_quick, "QuickPlan", Watched)
    monkeypatch.setattr(Watched, "made", [])
    rng, count, width = random.Random(4), 300, 20
    keys = [rng.getrandbits(width) for _ in range(count)]
    spec = {"key": (keys, width), "row": (list(range(count)), 9)}

    def program(flow, rows):
        out = yield from sort(flow, rows, [SortKey("key")], pivots=pivots)
        return [out.bits("key"), out.bits("row")]

    values, whole = run_table(program, spec, security=security)
    levels = Watched.made[0].compared
    monkeypatch.setattr(sort_quick, "LEAST_BLOCK", 64)
    size = block_size(security, count, pivots)
    assert size == (128 if (security, pivots) == ("passive", 1) else 192)
    again, blocks = run_table(program, spec, security=security)
    order = sorted(range(count), key=lambda row: keys[row])
    assert values == again == [[keys[row] for row in order], order]
    # Blocks have the same gates and openings, and each but the first costs two rounds.
    assert sent_by(whole, "level", "open") == sent_by(blocks, "level", "open")
    more = 2 * sum(-(-pairs // size) - 1 for pairs in levels)
    assert more > 0
    assert [blocks.rounds[party] - whole.rounds[party] for party in range(3)] == [more] * 3


@pytest.mark.parametrize(
    ("security", "count", "pivots", "size"),
    [
        ("passive", 2, 1, 1 << 18),
        ("passive", 10**5, 7, 1 << 20),
        ("passive", 3 * 10**6, 1, 750_016),
        ("active", 10**6, 1, 500_032),
        ("active", 3 * 10**6, 1, 1 << 20),
        ("passive", 10**7, 1, 1 << 20),
        ("passive", 3 * 10**6, 7, 1_500_032),
        ("active", 10**7, 7, 1 << 22),
    ],
)
def test_blocks_are_large_enough_for_few_rounds_and_in_proportion_to_the_rows(security, count, pivots, size):
    assert block_size(security, count, pivots) == size


@pytest.mark.parametrize("pivots", [1, 7])
def test_a_level_says_the_same_pairs_in_blocks_of_any_size_and_moves_columns_with_the_rows(pivots):
    rank = np.random.default_rng(5).permutation(1000)
    moved = rank.astype(np.uint8)
    plan = QuickPlan(len(rank), pivots, [moved])
    while (pairs := plan.pairs()) is not None:
        left, right = pairs.block(0, len(pairs))
        assert len(left) == len(right) == len(pairs)
        for size in (1, 63, 700):
            blocks = [pairs.block(start, start + size) for start in range(0, len(pairs), size)]
            assert np.array_equal(np.concatenate([one for one, _ in blocks]), left)
            assert np.array_equal(np.concatenate([other for _, other in blocks]), right)
        plan.take(rank[plan.order[left]] < rank[plan.order[right]])
        assert np.array_equal(moved, rank[plan.order].astype(np.uint8))


def test_a_sort_holds_a_bounded_number_of_bytes_a_row(monkeypatch):
    """Three parties in one process, messages on their way included; beside its shares of the inputs, 8 bytes a row."""
    monkeypatch.setattr(sort_quick, "LEAST_BLOCK", 64)
    count, width = 1 << 16, 32
    rng = np.random.default_rng(1)
    plain = to_planes(rng.integers(0, 1 << width, count, dtype=np.uint64), width)
    parts = [rng.integers(0, 1 << 64, plain.shape, dtype=np.uint64) for _ in range(2)]
    parts.append(parts[0] ^ parts[1] ^ plain)

    def program(flow):
        stage = flow.stage
        key = boolean_of(stage, count, parts[stage.party], parts[(stage.party + 1) % 3])
        out = yield from sort(flow, Rows({"key": key}), [SortKey("key")])
        return out.count

    tracemalloc.start()
    try:
        assert run_flow(program, security="passive").done
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / 3 / count < BYTES_A_ROW


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_radix_costs_what_its_docstring_says(width):
    count = 70
    spec = {"key": ([7 % (1 << width)] * count, width)}
    passes = radix_passes(width)
    assert rows_travel(width, 7, passes) == (passes == 1 or width * (passes - 1) <= 7 * passes + 32)

    def program(flow, rows):
        yield from sort(flow, rows, [SortKey("key")])
        return []

    _, out = run_table(program, spec, security="passive")
    digits = [2] * (width // 2) + [1] * (width % 2)
    assert sent_by(out, "ring-products") == sum({1: 24, 2: 48}[digit] for digit in digits) * count
    # Rows travel: the key column, what is left of the key, and one byte of place.
    left = [width - sum(digits[: place + 1]) for place in range(len(digits))]
    size = sum(8 * (width + rest) * 2 + count for rest in left)
    assert sent_by(out, "shuffle", party=0) == size
    assert sent_by(out, "shuffle", party=1) == 2 * size + len(digits)
    assert sent_by(out, "open") == 8 * -(-count // 8) * len(digits)
    assert out.rounds == [sum({1: 6, 2: 7}[digit] for digit in digits) + 1] * 3


def test_rows_with_much_payload_move_once():
    count, width = 70, 8
    spec = {"key": ([3] * count, width)} | {f"x{place}": ([place] * count, None) for place in range(3)}

    def program(flow, rows):
        yield from sort(flow, rows, [SortKey("key")])
        return []

    _, out = run_table(program, spec, security="passive")
    number = 7
    # Three passes with number, key and place; number and place; then the rows.
    keys = [8 * 2 * (number + rest) + count for rest in (6, 4, 2)]
    size = sum(keys) + 8 * 2 * number + count + 8 * 2 * width + (3 * 8 + 1) * count
    assert sent_by(out, "shuffle", party=0) == size
    assert sent_by(out, "open") == 8 * -(-count // 8) * 4 + 8 * 2 * number
    assert out.rounds == [4 * 4 + 5 * (2 + 1) + 1] * 3


@pytest.mark.parametrize("pivots", [1, 2])
@pytest.mark.parametrize("security", SECURITIES)
def test_narrow_keys_are_sorted_by_digits_and_wide_ones_by_comparisons(security, pivots):
    limit = RADIX_BITS[security] * pivots
    for width in (limit, limit + 1):

        def program(flow, rows):
            yield from sort(flow, rows, [SortKey("key")], pivots=pivots)
            return []

        _, out = run_table(program, {"key": ([1, 0, 1], width)}, security=security)
        assert (sent_by(out, "level") > 0) == (width > limit)
        assert (sent_by(out, "ring-products") > 0) == (width <= limit)


@pytest.mark.parametrize("security", SECURITIES)
def test_fewer_than_two_rows_cost_nothing(security):
    for count in (0, 1):

        def program(flow, rows):
            out = yield from sort(flow, rows, [SortKey("key")])
            assert flow.openings == 0
            return [out.bits("key")]

        values, out = run_table(program, {"key": ([5] * count, 20)}, security=security)
        assert values == [[5] * count]
        assert sent_by(out, "shuffle", "level", "ring") == 0


# ----------------------------------------------------------------------------------------------------------------- merges


@pytest.mark.parametrize("lengths", [(8, 8), (5, 9), (1, 7, 2)])
@pytest.mark.parametrize(("ring", "stable"), [(0, True), (2, True), (0, False)])
def test_merging_costs_what_its_docstring_says(lengths, ring, stable):
    width, payload = 9, 5
    given = [
        {"key": (list(range(length)), width), "code": ([1] * length, payload)}
        | {f"x{place}": ([2] * length, None) for place in range(ring)}
        for length in lengths
    ]

    def program(flow, *given):
        yield from merge_sorted(flow, given, [SortKey("key")], stable=stable)
        return []

    _, out = run_table(program, *given, security="passive")
    layers, _ = merge_layers(lengths)
    whole = width + log2(sum(lengths)) * stable
    gates = sum(less_words(whole, len(step.low)) + (whole + payload) * words(len(step.low)) for step in layers)
    assert sent_by(out, "merge") == 8 * gates
    products = sum((16 + 8 * ring) * len(step.low) for step in layers) if ring else 0
    assert sent_by(out, "ring-products") == products
    assert out.rounds == [len(layers) * (1 + log2(whole) + (3 if ring else 1)) + 1] * 3


def test_networks_of_two_equal_runs_have_the_known_size():
    for power in range(6):
        size = 1 << power
        layers, order = merge_layers((size, size))
        assert len(layers) == 1 + power
        assert sum(len(step.low) for step in layers) == size * power + 1
        assert sorted(order.tolist()) == list(range(2 * size))
    assert merge_layers(()) == ([], pytest.approx([]))
    assert merge_layers((4,))[0] == []


def test_networks_of_any_lengths_merge():
    rng = random.Random(1)
    for _ in range(100):
        lengths = [rng.randrange(9) for _ in range(rng.randrange(1, 6))]
        slots = np.array([value for length in lengths for value in sorted(rng.choices(range(9), k=length))], dtype=int)
        layers, order = merge_layers(lengths)
        for step in layers:
            low, high = slots[step.low], slots[step.high]
            slots[step.low], slots[step.high] = np.minimum(low, high), np.maximum(low, high)
        assert slots[order].tolist() == sorted(slots.tolist())


# -------------------------------------------------------------------------------------------------------------- refusals


def test_keys_that_the_table_does_not_have_are_refused():
    spec = {"key": ([1, 2], 5), "valid": ([1, 1], 1), "amount": ([1, 2], None)}

    def with_keys(*keys):
        def program(flow, rows):
            yield from sort(flow, rows, keys)

        return program

    def merging(flow, rows):
        yield from merge_sorted(flow, [rows, rows.without("valid")], [SortKey("key")])

    def nothing(flow, rows):
        yield from merge_sorted(flow, [], [SortKey("key")])

    for program in (
        with_keys(),
        with_keys(SortKey("nobody")),
        with_keys(SortKey("amount")),
        with_keys(SortKey("key", valid="key")),
        with_keys(SortKey("key", valid="amount")),
        lambda flow, rows: with_keys(SortKey("key"))(flow, rows.plus({"(key)": rows.bits("key")})),
        lambda flow, rows: with_keys(SortKey("key"))(flow, rows.plus({"(row number)": rows.bits("key")})),
        merging,
        nothing,
    ):
        assert refusal(program, spec) == "ROWS_INVALID"


def test_a_plan_refuses_other_bits_pivots_and_too_many_rows():
    plan = QuickPlan(5, 1)
    with pytest.raises(LocalProtocolError, match="other comparison bits"):
        plan.take(np.zeros(1, dtype=np.bool_))
    pairs = plan.pairs()
    with pytest.raises(LocalProtocolError, match="other comparison bits"):
        plan.take(np.zeros(len(pairs) + 1, dtype=np.bool_))
    for count, pivots in ((5, 0), (5, MAX_PIVOTS + 1), (MAX_ROWS + 1, 1)):
        with pytest.raises(LocalProtocolError, match="too many rows"):
            QuickPlan(count, pivots)


def test_comparisons_that_fit_no_order_end_the_run():
    plan = QuickPlan(3, 1)
    left, right = plan.pairs().block(0, 3)
    assert sorted(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]
    with pytest.raises(Abort, match="fit no order") as found:
        # 0 < 1, 1 < 2, 2 < 0.
        plan.take(np.array([(one, other) != (0, 2) for one, other in zip(left, right, strict=True)]))
    assert found.value.code == "PLACES_INVALID"


def test_key_width_counts_validity_bits():
    rows = tables({"a": ([1], 5), "v": ([1], 1), "b": ([1], 9)})[0]
    assert key_width(rows, [SortKey("a", valid="v"), SortKey("b")]) == 15
