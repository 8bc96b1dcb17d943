"""Products, squares and dot products of an active session: results, rounds, bytes, limits; honest proofs always pass."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from mpc_ops.errors import ComityError
from mpc_ops.protocol.circuits import products
from mpc_ops.protocol.circuits.products import (
    RingGateLog,
    dot,
    dots,
    fresh,
    multiply,
    random_ring,
    segment_sums,
    square,
    times_public,
)
from mpc_ops.protocol.core.opening import open_to_all
from mpc_ops.protocol.core.party import together
from mpc_ops.protocol.proofs.proof_ring import proof_bytes
from mpc_ops.protocol.proofs.ring_claim import RING_64, RingParams, check_bound, folds_of, level_lanes, log2_bound
from mpc_ops.protocol.proofs.ring_roles import Place
from tests.support.active import run_active, share_ring
from tests.support.products import prove, views

MOD = 1 << 64
EDGES = [0, 1, (1 << 63) - 1, 1 << 63, MOD - 1]


def run(compute, inputs, **options):
    """Share inputs, run `compute(stage, *shares)`, accept, open; return the outcome."""
    shared = [share_ring(values) for values in inputs]

    def program(session):
        stage = session.stage("s")
        out = yield from compute(stage, *(parts[session.terms.party] for parts in shared))
        token = yield from stage.barrier()
        return (yield from open_to_all(stage, token, [out]))

    return run_active(program, **options)


def opened(outcome):
    assert outcome.done, outcome.errors
    lists = [[int(v) for v in result[0]] for result in outcome.results.values()]
    assert lists[0] == lists[1] == lists[2]
    return lists[0]


def test_all_pairs_of_edge_values_multiply_and_square() -> None:
    pairs = [(x, y) for x in EDGES for y in EDGES]
    xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
    assert opened(run(multiply, [xs, ys])) == [x * y % MOD for x, y in pairs]
    assert opened(run(square, [EDGES])) == [x * x % MOD for x in EDGES]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
def test_products_of_random_values(count: int) -> None:
    rnd = random.Random(count)
    xs, ys = ([rnd.getrandbits(64) for _ in range(count)] for _ in range(2))
    assert opened(run(multiply, [xs, ys])) == [x * y % MOD for x, y in zip(xs, ys, strict=True)]


@pytest.mark.parametrize("length", [1, 2, 1000, 100_000])
def test_a_dot_product_of_any_length_sends_one_element(length: int) -> None:
    rnd = np.random.default_rng(length)
    xs, ys = ([int(v) for v in rnd.integers(0, MOD, length, dtype=np.uint64)] for _ in range(2))
    outcome = run(dot, [xs, ys])
    assert opened(outcome) == [sum(x * y for x, y in zip(xs, ys, strict=True)) % MOD]
    assert [size for place, size in outcome.sizes.items() if place.step == "ring-products"] == [8, 8, 8]


def test_ragged_dot_products_with_empty_segments() -> None:
    rnd = random.Random(5)
    xs, ys = ([rnd.getrandbits(64) for _ in range(40)] for _ in range(2))
    ends = [0, 3, 3, 30, 40, 40]
    want = [
        sum(x * y for x, y in zip(xs[s:e], ys[s:e], strict=True)) % MOD for s, e in zip([0, *ends], ends, strict=False)
    ]
    outcome = run(lambda stage, x, y: dots(stage, x, y, np.array(ends, dtype=np.int64)), [xs, ys])
    assert opened(outcome) == want


def test_empty_vectors_send_nothing_and_have_nothing_to_prove() -> None:
    outcome = run(multiply, [[], []])
    assert opened(outcome) == []
    assert {place.step for place in outcome.log} == {"flush0", "accept"}


def test_local_operations_send_nothing() -> None:
    def compute(stage, x):
        return times_public(
            segment_sums(x, np.array([2, 2, 5], dtype=np.int64)), np.array([3, 4, MOD - 1], dtype=np.uint64)
        )
        yield

    assert opened(run(compute, [[1, 2, 3, 4, 5]])) == [9, 0, -12 % MOD]


def test_independent_operations_share_a_round_and_a_proof() -> None:
    def compute(stage, x, y):
        one, two = yield from together(multiply(stage, x, y), dot(stage, x, x))
        return one.plus(two)

    outcome = run(compute, [[3], [7]])
    assert opened(outcome) == [30]
    assert {place.round for place in outcome.log if place.step == "ring-products"} == {1}
    assert {place.part for place in outcome.log if place.step == "ring-products"} == {0, 1}


def test_a_fresh_sharing_has_the_same_value_and_other_components() -> None:
    components = []

    def compute(stage, x):
        z = yield from fresh(stage, x)
        components.append((x.first.tolist(), z.first.tolist()))
        return z

    outcome = run(compute, [EDGES])
    assert opened(outcome) == EDGES
    assert len(components) == 3
    assert all(a != b for old, new in components for a, b in zip(old, new, strict=True))
    assert [size for place, size in outcome.sizes.items() if place.step == "ring-products"] == [40] * 3


def test_random_elements_are_unknown_to_each_party_and_never_repeat() -> None:
    def compute(stage, x):
        one, two = random_ring(stage, 4), random_ring(stage, 4)
        return replace(one, first=np.append(one.first, two.first), second=np.append(one.second, two.second))
        yield

    outcome = run(compute, [[1]])
    assert len(set(opened(outcome))) == 8
    assert {place.step for place in outcome.log} == {"flush0", "accept", "open"}


def test_rounds_and_bytes_are_those_of_the_docstrings() -> None:
    count = 1000
    outcome = run(multiply, [[1] * count, [2] * count])
    place = Place((), 0, count, count)
    assert folds_of(count) == 3
    # product, FLUSH with the carries, the rest of the proof, ACCEPT, opening
    assert outcome.rounds == [1 + (2 * 3 + 2) + 1 + 1] * 3
    assert outcome.sent_bytes == [8 * count + 64 + proof_bytes(place) + 64 + 8 * count + 32] * 3
    carries = [size for where, size in outcome.sizes.items() if where.step.endswith("carries")]
    assert carries == [8 * count] * 3


def test_several_operations_are_proven_in_one_batch() -> None:
    def compute(stage, x, y):
        z = yield from multiply(stage, x, y)
        w = yield from square(stage, z)
        return (yield from dot(stage, w, z))

    outcome = run(compute, [[3, 5], [7, 11]])
    assert opened(outcome) == [(21**3 + 55**3) % MOD]
    assert len({place.step for place in outcome.log if place.step.endswith("-carries")}) == 1


def test_a_log_that_reaches_its_limit_is_proven_early() -> None:
    batches = []

    def compute(stage, x, y):
        z = yield from multiply(stage, x, y)
        batches.append((stage.batches, stage.log(RingGateLog).pending_bytes))
        return (yield from multiply(stage, z, y))

    outcome = run(compute, [[3] * 100, [7] * 100], limit_bytes=6400)
    assert opened(outcome) == [147] * 100
    assert batches == [(1, 0)] * 3
    assert {"flush0", "flush1", "flush2"} <= {place.step for place in outcome.log}


def test_large_logs_are_cut_into_groups_that_share_their_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "MAX_BATCH_TERMS", 64)

    def compute(stage, x, y):
        z = yield from multiply(stage, x, y)
        return (yield from dots(stage, z, y, np.array([100, 120, 150], dtype=np.int64)))

    outcome = run(compute, [[3] * 150, [7] * 150])
    assert opened(outcome) == [147 * 100, 147 * 20, 147 * 30]
    groups = {place.step for place in outcome.log if place.step.endswith("-carries")}
    # 64 + 64 + 22 products; 100 terms of one output; 20 + 30 terms
    assert len(groups) == 5
    assert outcome.rounds == [2 + (2 * 2 + 2) + 1 + 1] * 3


def test_gates_and_coins_out_of_order_and_foreign_shares_are_refused() -> None:
    foreign = share_ring([1], seed="another")
    codes = []

    def program(session):
        stage, caught = session.stage("s"), []
        codes.append(caught)
        own = share_ring([1], rng=random.Random(1))[session.terms.party]
        for x, y in ((own, foreign[session.terms.party]), (own, share_ring([1, 2])[session.terms.party])):
            with pytest.raises(ComityError) as error:
                next(multiply(stage, x, y))
            caught.append(error.value.code)
        for ends in ([2], [1, 0], [0], []):
            with pytest.raises(ComityError) as error:
                next(dots(stage, own, own, np.array(ends, dtype=np.int64)))
            caught.append(error.value.code)
        with pytest.raises(ComityError) as error:
            stage.coin(0, "ring-0", (session.terms.party + 1) % 3, "0")
        caught.append(error.value.code)
        token = yield from stage.barrier()
        with pytest.raises(ComityError) as error:
            next(multiply(stage, own, own))
        caught.append(error.value.code)
        return (yield from open_to_all(stage, token, [own]))

    assert run_active(program).done
    assert codes == [["SHARE_FOREIGN", "RING_LENGTH", *["RING_LENGTH"] * 4, "COIN_ORDER", "STAGE_ORDER"]] * 3


def test_the_bound_is_the_one_of_the_soundness_note() -> None:
    assert [round(log2_bound(RING_64, folds), 1) for folds in (2, 3, 4, 5, 6)] == [-60.7, -57.9, -55.0, -52.1, -49.1]
    one = RingParams(repetitions=1)
    assert [round(log2_bound(one, folds), 1) for folds in (4, 5)] == [-39.2, -35.2]
    assert round(log2_bound(RingParams(32, 96, 64), 5), 1) == -52.1


@pytest.mark.parametrize(
    ("params", "folds"),
    [
        (RingParams(repetitions=1), 3),  # one repetition
        (RING_64, 6),  # above 2^-49.1, but more than five folds
        (RingParams(8, 16, 8), 2),  # a small ring
        (RingParams(32, 128, 64), 2),  # 64-bit carries for 32-bit gates
        (RingParams(64, 96, 32), 2),  # 32 bits of slack
    ],
)
def test_configurations_that_prove_too_little_are_refused(params: RingParams, folds: int) -> None:
    with pytest.raises(ComityError) as caught:
        check_bound(params, folds)
    assert caught.value.code == "RING_PROOF_WEAK"


def test_every_batch_size_has_at_most_five_folds_and_a_small_last_level() -> None:
    for terms in (1, 64, 65, 1000, 10**5, 1 << 20, 1 << 24):
        assert level_lanes(terms)[0] == 8
        assert folds_of(terms) <= 5
        assert level_lanes(terms)[-1] <= (32 if terms <= 1 << 20 else 512)
        check_bound(RING_64, folds_of(terms))


@pytest.mark.parametrize("lengths", [[1], [1] * 63, [1] * 65, [3, 0, 1, 700, 2], [0], [0, 0, 1], [5000]])
def test_honest_proofs_pass_for_plain_ragged_and_empty_outputs(lengths: list[int]) -> None:
    run_of = prove(views(np.random.default_rng(len(lengths)), lengths))
    assert run_of.passed
    assert run_of.statement == (run_of.left, run_of.right)


@pytest.mark.parametrize("edge", [0, 1, 1 << 63, MOD - 1])
def test_honest_proofs_pass_for_components_at_the_edges(edge: int) -> None:
    assert prove(views(np.random.default_rng(1), [1, 2, 300], edge=edge)).passed


@pytest.mark.parametrize(
    "params", [RingParams(32, 96, 64), RingParams(8, 16, 8), RingParams(16, 32, 16), RingParams(8, 24, 16)]
)
def test_honest_proofs_pass_in_other_rings(params: RingParams) -> None:
    generator = np.random.default_rng(2)
    assert all(prove(views(generator, lengths, params), params).passed for lengths in ([1] * 6, [50, 3]))


def test_nothing_secret_is_printed() -> None:
    view = views(np.random.default_rng(3), [1, 1])[0]
    assert "redacted" in repr(view)
    assert repr(view.own) == "GateView(terms=2, outputs=2, <redacted>)"
