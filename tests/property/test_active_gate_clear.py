"""The Gate on shares places everything where the Gate in the clear does, for random slices, in exactly the rounds and bytes."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from local_stores.snapshot.gate import NOT_ALLOCATED
from mpc_ops.protocol.disclosure.gate import GateTerms, gate_cost
from tests.support.region_gate import Slice, clear_lanes, clear_places, random_slice, run_gate

DOMAINS = [("b", "a", "c"), ("x", "y", "w", "v"), ("q", "p")]


def kinds(one: Slice, k: int) -> set[str]:
    """What happens in a slice, so that a test can insist on having seen it."""
    places = clear_places(one, k)
    if places is None:
        return {"dropped"} if one.rows else {"empty"}
    depth, found = len(one.domains), set()
    top = (NOT_ALLOCATED,) * depth
    sources = {row[2]: place for row, place in zip(one.rows, places, strict=True)}
    if all(source == place for source, place in sources.items()):
        found.add("nothing moves")
    if depth and top in sources.values():
        found.add("all in the top" if set(sources.values()) == {top} else "some in the top")
        units = {source: len({row[:2] for row in one.rows if row[2] == source}) for source in sources}
        if any(place == top and units[source] >= k for source, place in sources.items()):
            found.add("absorbed")
    return found


def scene(seed: int) -> tuple[list[Slice], GateTerms]:
    rng = random.Random(seed)
    domains = tuple(DOMAINS[axis][: rng.randint(1, len(DOMAINS[axis]))] for axis in range(rng.randrange(4)))
    slices = [
        random_slice(
            rng,
            domains,
            owners=rng.choice([1, 1, 2, 3, 5]),
            units=rng.choice([3, 10, 70, 200]),
            rows=rng.choice([0, 1, 5, 30, 120]),
            measures=rng.choice([0, 1, 2]),
        )
        for _ in range(2)
    ]
    counts = rng.random() < 0.8
    return slices, GateTerms(
        domains=domains,
        k=rng.choice([1, 2, 3, 5, 9, 40, 1000]),
        min_owners=rng.choice([1, 1, 1, 2, 3]),
        counts=counts,
        totals=counts and rng.random() < 0.8,
    )


def check(slices: list[Slice], terms: GateTerms, seed: int, security: str) -> None:
    results, outcome = run_gate(slices, terms, random.Random(seed), security=security)
    assert results is not None, outcome.errors
    for one, (values, counts) in zip(slices, results, strict=True):
        expected = clear_lanes(one, terms.k, terms.min_owners, totals=terms.totals)
        assert values == expected[0], (seed, terms)
        assert counts == (expected[1] if terms.counts else None), (seed, terms)
    cost = gate_cost([one.padded_units() for one in slices], [one.measures for one in slices], terms)
    gate_steps = [place for place in outcome.log if place.step.startswith(("gate/", "ring-products"))]
    for party in range(3):
        assert sum(outcome.sizes[place] for place in gate_steps if place.sender == party) == cost.sent
    assert len({place.round for place in gate_steps}) == cost.rounds
    assert not any("open" in place.step and "ring" not in place.step for place in outcome.log), "nothing is opened"


@pytest.mark.parametrize("seed", range(90))
def test_passive_gate_is_the_clear_one(seed: int) -> None:
    check(*scene(seed), seed, "passive")


@pytest.mark.parametrize("seed", range(1000, 1008))
def test_active_gate_is_the_clear_one(seed: int) -> None:
    check(*scene(seed), seed, "active")


def test_the_scenes_show_everything_that_a_gate_does() -> None:
    seen: Counter[str] = Counter()
    for seed in range(90):
        slices, terms = scene(seed)
        if terms.min_owners == 1:
            for one in slices:
                seen.update(kinds(one, terms.k))
    wanted = {"dropped", "empty", "nothing moves", "all in the top", "some in the top", "absorbed"}
    assert all(seen[kind] >= 2 for kind in wanted), seen


@pytest.mark.parametrize("seed", range(40))
def test_behind_the_passes_every_cell_below_the_top_passes_both_tests(seed: int) -> None:
    """So one absorption is enough: the module's argument, on the clear Gate with owners."""
    rng = random.Random(seed)
    one = random_slice(rng, DOMAINS[: rng.randint(1, 3)], 4, 20, rng.choice([20, 60]), measures=0)
    k, min_owners = rng.choice([2, 5, 9]), rng.choice([1, 2, 3])
    places = clear_places(one, k, min_owners) or []
    cells: dict[tuple[int, ...], set[tuple[int, int]]] = {}
    for row, place in zip(one.rows, places, strict=False):
        cells.setdefault(place, set()).add(row[:2])
    for units in cells.values():
        assert len(units) >= k
        assert len({owner for owner, _ in units}) >= min_owners
