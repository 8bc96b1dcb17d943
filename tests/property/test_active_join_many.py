"""Many-to-many joins against Python: repeated keys on both sides, NULLs, dead rows, no rows, and more pairs than the bound."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mpc_ops.errors import Abort, LocalProtocolError
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.relational.groups import VALID
from mpc_ops.protocol.relational.many import join_many, require_bound
from mpc_ops.protocol.relational.ordered import Key
from tests.support.active import as_passive, run_flow, share_bits, share_ring, small_proofs


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def tables(rows, names, rng, security):
    """Shared tables by position of rows (key, key is there, live, amount, note)."""
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], [], []]
    key, there, live, amount, note = columns
    shares = [
        share_bits(key, 5, rng=rng),
        share_bits(there, 1, rng=rng),
        share_bits(live, 1, rng=rng),
        share_ring(amount, rng=rng),
        share_bits(note, 9, rng=rng),
    ]
    kept = [column if security == "active" else [as_passive(share) for share in column] for column in shares]
    return [Rows({name: column[party] for name, column in zip(names, kept, strict=True)}) for party in range(3)]


LEFT = ("lk", "lv", "ll", "la", "ln")
RIGHT = ("rk", "rv", "rl", "ra", "rn")


def rows_of(count, rng, keys=6):
    return [
        (
            rng.randrange(keys),
            int(rng.random() < 0.85),
            int(rng.random() < 0.85),
            rng.randrange(1 << 40),
            rng.randrange(512),
        )
        for _ in range(count)
    ]


def joined(lefts, rights, bound, security, rng):
    one, other = tables(lefts, LEFT, rng, security), tables(rights, RIGHT, rng, security)

    def program(flow):
        party = flow.stage.party
        result = yield from join_many(
            flow,
            one[party],
            other[party],
            [(Key("lk", "lv"), Key("rk", "rv"))],
            ["ra", "rn"],
            bound=bound,
            left_live="ll",
            right_live="rl",
        )
        rows = result.rows
        wanted = [rows.columns[name] for name in ("la", "ln", "ra", "rn", VALID)]
        return (yield from flow.open([*wanted, result.exceeded]))

    out = run_flow(program, security=security)
    assert not out.errors, out.errors
    la, ln, ra, rn, valid, exceeded = (part.tolist() for part in out.results[1])
    pairs = Counter(
        pair for *pair, ok in map(list, zip(la, ln, ra, rn, valid, strict=True)) for pair in [tuple(pair)] if ok
    )
    return pairs, bool(exceeded[0]), len(valid)


def expected(lefts, rights):
    return Counter(
        (left[3], left[4], right[3], right[4])
        for left in lefts
        for right in rights
        if left[0] == right[0] and left[1] and right[1] and left[2] and right[2]
    )


@pytest.mark.parametrize("security", ["active", "passive"])
@pytest.mark.parametrize(
    ("left", "right", "seed"), [(1, 1, 0), (5, 9, 1), (20, 13, 2), (7, 0, 3), (0, 4, 4), (30, 30, 5)]
)
def test_every_pair_of_equal_keys_is_there_once(left, right, seed, security):
    rng = random.Random(seed)
    lefts, rights = rows_of(left, rng), rows_of(right, rng)
    wanted = expected(lefts, rights)
    pairs, exceeded, count = joined(lefts, rights, wanted.total() + 3, security, rng)
    assert pairs == wanted
    assert not exceeded
    assert count == wanted.total() + 3


def test_a_bound_that_is_met_exactly_is_not_exceeded_and_one_less_is():
    rng = random.Random(9)
    lefts = [(1, 1, 1, row, row) for row in range(4)]
    rights = [(1, 1, 1, 10 * row, row) for row in range(3)]
    pairs, exceeded, _ = joined(lefts, rights, 12, "passive", rng)
    assert (pairs, exceeded) == (expected(lefts, rights), False)
    pairs, exceeded, _ = joined(lefts, rights, 11, "passive", rng)
    assert exceeded
    assert pairs.total() == 11
    assert not pairs - expected(lefts, rights)


@pytest.mark.parametrize("bound", [3, 4])
def test_more_pairs_than_the_bound_end_the_run(bound):
    rng = random.Random(10)
    one = tables([(1, 1, 1, 5, 6)] * 2, LEFT, rng, "active")
    other = tables([(1, 1, 1, 7, 8)] * 2, RIGHT, rng, "active")

    def program(flow):
        party = flow.stage.party
        result = yield from join_many(flow, one[party], other[party], [(Key("lk"), Key("rk"))], [], bound=bound)
        yield from require_bound(flow, result)

    out = run_flow(program)
    if bound < 4:
        assert {error.code for error in out.errors.values()} == {"JOIN_BOUND_EXCEEDED"}
        assert isinstance(out.errors[0], Abort)
    else:
        assert not out.errors


def test_what_does_not_fit_is_refused():
    rng = random.Random(1)
    one, other = tables(rows_of(2, rng), LEFT, rng, "active"), tables(rows_of(2, rng), RIGHT, rng, "active")
    keys = [(Key("lk"), Key("rk"))]

    def program(flow):
        party = flow.stage.party
        for pairs, payload, bound in (
            (keys, ["la"], 4),
            (keys, ["none"], 4),
            (keys, ["ra"], 0),
            (keys, ["ra"], 1 << 27),
            ([(Key("lk"), Key("rn"))], ["ra"], 4),
            ([], ["ra"], 4),
        ):
            with pytest.raises(LocalProtocolError) as caught:
                yield from join_many(flow, one[party], other[party], pairs, payload, bound=bound)
            assert caught.value.code == "ROWS_INVALID"

    assert not run_flow(program).errors


def test_two_inputs_of_one_shape_look_alike():
    sizes = []
    for seed in (1, 2):
        rng = random.Random(seed)
        one, other = tables(rows_of(9, rng), LEFT, rng, "passive"), tables(rows_of(9, rng, 2), RIGHT, rng, "passive")

        def program(flow, one=one, other=other):
            party = flow.stage.party
            yield from join_many(flow, one[party], other[party], [(Key("lk", "lv"), Key("rk", "rv"))], ["ra"], bound=10)

        out = run_flow(program, security="passive")
        assert not out.errors
        # How often a quicksort compares depends on the shuffle's order among keys; everything else is the same.
        sizes.append(
            [out.sizes[address] for address in out.log if "level" not in address.step and "open" not in address.step]
        )
    assert len(sizes[0]) == len(sizes[1])
    assert sizes[0] == sizes[1]
