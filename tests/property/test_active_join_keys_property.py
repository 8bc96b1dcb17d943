"""Many-to-many joins on several keys against Python: any widths, keys with and without NULLs, dead rows, every bound."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ops.protocol.relational.groups import VALID
from mpc_ops.protocol.relational.many import join_many
from mpc_ops.protocol.relational.ordered import Key
from tests.support.active import small_proofs
from tests.support.relational import SECURITIES, run_table

M = 1 << 64


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def side(rng, letter, count, widths, marked, *, live):
    """One table: keys that often agree and differ in one bit only, validity bits where asked, liveness, a number of each row."""
    spec, keys = {}, []
    for number, width in enumerate(widths):
        top = (1 << width) - 1
        few = sorted({0, 1, top, top ^ (1 << (width - 1))})
        spec[f"{letter}k{number}"] = ([rng.choice(few) for _ in range(count)], width)
        mark = f"{letter}v{number}" if marked[number] else None
        if mark is not None:
            spec[mark] = ([int(rng.random() < 0.8) for _ in range(count)], 1)
        keys.append(Key(f"{letter}k{number}", mark))
    if live:
        spec[f"{letter}live"] = ([int(rng.random() < 0.8) for _ in range(count)], 1)
    spec[f"{letter}row"] = (list(range(count)), 7)
    spec[f"{letter}amount"] = ([rng.getrandbits(64) for _ in range(count)], None)
    return spec, keys


def usable(spec, keys, letter, row):
    """A row's key, or None if it matches nothing."""
    marks = [key.valid for key in keys if key.valid] + ([f"{letter}live"] if f"{letter}live" in spec else [])
    if not all(spec[mark][0][row] for mark in marks):
        return None
    return tuple(spec[key.name][0][row] for key in keys)


def pairs_of(left, right):
    (lefts, left_keys), (rights, right_keys) = left, right
    return Counter(
        (one, lefts["lamount"][0][one], other, rights["ramount"][0][other])
        for one in lefts["lrow"][0]
        for other in rights["rrow"][0]
        if (key := usable(lefts, left_keys, "l", one)) is not None and key == usable(rights, right_keys, "r", other)
    )


def check(left, right, bound, security):
    wanted = pairs_of(left, right)
    (lefts, left_keys), (rights, right_keys) = left, right

    def program(flow, one, other):
        joined = yield from join_many(
            flow, one, other, list(zip(left_keys, right_keys, strict=True)), ["rrow", "ramount"], bound=bound,
            left_live="llive" if "llive" in lefts else None, right_live="rlive" if "rlive" in rights else None,
        )  # fmt: skip
        assert joined.rows.count == bound
        return [*(joined.rows.columns[name] for name in ("lrow", "lamount", "rrow", "ramount", VALID)), joined.exceeded]

    (*columns, valid, exceeded), _ = run_table(program, lefts, rights, security=security)
    found = Counter(row for *row, ok in zip(*columns, valid, strict=True) if ok for row in [tuple(row)])
    assert exceeded == [int(wanted.total() > bound)]
    assert found.total() == min(bound, wanted.total())
    assert not found - wanted


@st.composite
def joins(draw):
    rng = random.Random(draw(st.integers(0, 1 << 30)))
    widths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    flags = st.lists(st.booleans(), min_size=len(widths), max_size=len(widths))
    tables = [
        side(rng, letter, draw(st.integers(0, 12)), widths, draw(flags), live=draw(st.booleans())) for letter in "lr"
    ]
    total = pairs_of(*tables).total()
    return *tables, max(1, total + draw(st.sampled_from((-1, 0, 1, 5))))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(joins())
def test_every_pair_on_several_keys_is_there_once(case):
    check(*case, "passive")


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 0), (0, 1), (1, 1), (4, 3)])
def test_tables_of_hardly_any_rows_on_two_keys(left, right, security):
    rng = random.Random(7 * left + right)
    one = side(rng, "l", left, (3, 2), (True, False), live=False)
    other = side(rng, "r", right, (3, 2), (False, True), live=True)
    check(one, other, max(1, pairs_of(one, other).total()), security)


@pytest.mark.parametrize("security", SECURITIES)
def test_keys_that_agree_only_side_by_side_do_not_match(security):
    """(1, 2) is not (2, 1), and bits of one key are not bits of the next."""
    lefts = {"lk0": ([1, 2, 3], 2), "lk1": ([2, 1, 0], 3), "lrow": ([0, 1, 2], 7), "lamount": ([5, 6, 7], None)}
    rights = {
        "rk0": ([2, 1, 0, 3], 2),
        "rk1": ([1, 2, 3, 4], 3),
        "rrow": ([0, 1, 2, 3], 7),
        "ramount": ([1, 2, 3, M - 1], None),
    }
    keys = [[Key(f"{letter}k0"), Key(f"{letter}k1")] for letter in "lr"]
    check((lefts, keys[0]), (rights, keys[1]), 3, security)
