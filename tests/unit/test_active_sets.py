"""Intersections of key sets on shares: sizes, sums, rows for one position; unordered sets and owners' ascending ones."""

import random

import pytest

from mpc_ops.errors import Abort
from mpc_ops.protocol.relational.ordered import Key
from mpc_ops.protocol.relational.sets import intersection, intersection_rows, intersection_size, open_intersection
from tests.support.active import run_flow, small_proofs
from tests.support.relational import SECURITIES, refusal, run_table, tables

SIZES = ((0, 0), (0, 4), (1, 1), (5, 70), (64, 64), (40, 33))
BOTH = pytest.mark.parametrize("ascending", [False, True])


def sets(left, right, rng, width=8):
    """Two ascending sets with payload; about half of the smaller one is in both."""
    pool = rng.sample(range(1 << width), left + right)
    common = min(left, right) // 2
    keys = [sorted(pool[:left]), sorted(pool[left - common : left - common + right])]
    return [
        {"key": (one, width), "pay": ([rng.randrange(1000) for _ in one], None), name: ([key % 16 for key in one], 4)}
        for name, one in zip(("a", "b"), keys, strict=True)
    ]


def mixed(spec, rng):
    order = rng.sample(range(len(spec["key"][0])), len(spec["key"][0]))
    return {name: ([values[at] for at in order], width) for name, (values, width) in spec.items()}


def opened(program, *specs, security):
    given = [tables(spec, security, at) for at, spec in enumerate(specs)]
    out = run_flow(lambda flow: program(flow, *(parts[flow.stage.party] for parts in given)), security=security)
    assert not out.errors, out.errors
    return out.results


@BOTH
@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("sizes", SIZES)
def test_size_and_sums_over_common_keys(sizes, ascending, security, monkeypatch):
    small_proofs(monkeypatch)
    rng = random.Random(sum(sizes))
    left, right = sets(*sizes, rng)
    if not ascending:
        left, right = mixed(left, rng), mixed(right, rng)
    extra = dict(left, only=left["pay"])

    def program(flow, one, other):
        found = yield from intersection(
            flow, one, other, [(Key("key"), Key("key"))], ["pay", "only"], ascending=ascending
        )
        return (yield from open_intersection(flow, found))

    results = opened(program, extra, right, security=security)
    ours = dict(zip(left["key"][0], left["pay"][0], strict=True))
    theirs = dict(zip(right["key"][0], right["pay"][0], strict=True))
    common = ours.keys() & theirs.keys()
    only = sum(ours[key] for key in common)
    expected = len(common), {"pay": only + sum(theirs[key] for key in common), "only": only}
    assert results == dict.fromkeys(range(3), expected)


@BOTH
@pytest.mark.parametrize("security", SECURITIES)
def test_nulls_and_rows_that_are_not_live_are_in_no_set(ascending, security, monkeypatch):
    small_proofs(monkeypatch)
    left = {"key": ([1, 4, 6, 9, 4, 4], 4), "ok": ([1, 1, 1, 1, 0, 0], 1)}
    right = {"key": ([4, 6, 7, 9, 9, 1], 4), "live": ([1, 1, 1, 0, 0, 0], 1)}

    def program(flow, one, other):
        keys = [(Key("key", "ok"), Key("key"))]
        found = yield from intersection(flow, one, other, keys, right_live="live", ascending=ascending)
        return (yield from open_intersection(flow, found))

    assert opened(program, left, right, security=security)[0] == (2, {})


@BOTH
@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("width", [1, 2, 33, 64])
def test_keys_of_every_width(width, ascending, security, monkeypatch):
    small_proofs(monkeypatch)
    rng = random.Random(width)
    left = sorted({0, (1 << width) - 1, rng.getrandbits(width)})
    right = sorted({0, (1 << width) - 1, rng.getrandbits(width), rng.getrandbits(width)})

    def program(flow, one, other):
        found = yield from intersection_size(flow, one, other, "key", ascending=ascending)
        return [found.size, found.invalid]

    (size, invalid), _ = run_table(program, {"key": (left, width)}, {"key": (right, width)}, security=security)
    assert size == [len(set(left) & set(right))]
    assert invalid == [0]


@BOTH
@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize(
    ("left", "right"), [([2, 2, 5], [1, 9]), ([1, 9], [2, 5, 5]), ([3, 7], [3, 3, 7]), ([5, 5], [])]
)
def test_a_set_with_a_repeated_key_is_refused_and_opens_nothing_else(left, right, ascending, security, monkeypatch):
    small_proofs(monkeypatch)

    def program(flow, one, other):
        found = yield from intersection_size(flow, one, other, "key", ascending=ascending)
        yield from open_intersection(flow, found)

    assert refusal(program, {"key": (left, 4)}, {"key": (right, 4)}, security=security) == "JOIN_NOT_UNIQUE"


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("left", [[3, 2], [1, 3, 2], [2, 3, 1]])
def test_a_set_that_does_not_ascend_is_refused(left, security, monkeypatch):
    small_proofs(monkeypatch)
    figures = []

    def program(flow, one, other):
        found = yield from intersection_size(flow, one, other, "key", ascending=True)
        try:
            yield from open_intersection(flow, found)
        except Abort as error:
            figures.append(error.code)
            raise

    assert refusal(program, {"key": (left, 3)}, {"key": ([1, 2, 3], 3)}, security=security) == "JOIN_NOT_UNIQUE"
    assert figures == ["JOIN_NOT_UNIQUE"] * 3


@BOTH
@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("sizes", [(0, 4), (1, 1), (40, 33)])
@pytest.mark.parametrize("bound", [None, 3])
def test_common_rows_reach_one_position_only(sizes, bound, ascending, security, monkeypatch):
    small_proofs(monkeypatch)
    rng = random.Random(1 + sum(sizes))
    left, right = sets(*sizes, rng)
    right.pop("pay")
    if not ascending:
        left, right = mixed(left, rng), mixed(right, rng)

    def program(flow, one, other):
        return (
            yield from intersection_rows(
                flow,
                one,
                other,
                [(Key("key"), Key("key"))],
                ["a", "b", "pay"],
                position=1,
                ascending=ascending,
                bound=bound,
            )
        )

    results = opened(program, left, right, security=security)
    assert results[0] is results[2] is None
    pays = dict(zip(left["key"][0], left["pay"][0], strict=True))
    common = sorted(set(left["key"][0]) & set(right["key"][0]))
    assert results[1].overflow == (bound is not None and len(common) > bound)
    rows = [column.tolist() for column in results[1].columns.values()]
    expected = [(key, key % 16, key % 16, pays[key]) for key in common[:bound]]
    assert list(results[1].columns) == ["key", "a", "b", "pay"]
    assert list(zip(*rows, strict=True)) == expected


def test_rows_of_invalid_sets_are_not_opened(monkeypatch):
    small_proofs(monkeypatch)

    def program(flow, one, other):
        yield from intersection_rows(flow, one, other, [(Key("key"), Key("key"))], position=0)

    assert refusal(program, {"key": ([1, 1], 4)}, {"key": ([1], 4)}) == "JOIN_NOT_UNIQUE"


@pytest.mark.parametrize(
    ("keys", "columns", "options"),
    [
        ([], [], {}),
        ([(Key("key"), Key("wide"))], [], {}),
        ([(Key("key"), Key("key"))], ["none"], {}),
        ([(Key("key"), Key("key"))], ["wide"], {}),
        ([(Key("key"), Key("key"))], ["key"], {}),
        ([(Key("key"), Key("key"))], ["valid"], {}),
        ([(Key("key"), Key("key"))], [], {"bound": 0}),
        ([(Key("key"), Key("key"))], [], {"left_live": "wide"}),
    ],
)
def test_what_does_not_fit_is_refused(keys, columns, options):
    spec = {"key": ([1], 2), "wide": ([1], 3)}
    wanted = dict(spec, valid=([1], 1))
    assert (
        refusal(lambda flow, a, b: intersection_rows(flow, a, b, keys, columns, position=0, **options), wanted, spec)
        == "ROWS_INVALID"
    )


def test_only_elements_are_summed():
    spec = {"key": ([1], 2)}
    program = lambda flow, a, b: intersection(flow, a, b, [(Key("key"), Key("key"))], ["key"])  # noqa: E731
    assert refusal(program, spec, spec) == "ROWS_INVALID"
