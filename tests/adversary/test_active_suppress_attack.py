"""Attacks on suppressed tables: by arithmetic on what is published, and by a corrupt party on the protocol's messages."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mpc_ops.protocol.disclosure.suppress import SuppressTerms, suppress, suppress_cost
from tests.support.active import corrupt_session, flip, run_flow, share_bits, share_ring, small_proofs
from tests.unit.test_active_suppress import run


def recovered(matrix: np.ndarray, published: list[int], cells: int) -> set[int]:
    """Suppressed cells that are a linear combination of published rows: what anybody can compute from the table."""
    rows = matrix[np.flatnonzero(published)]
    rank = np.linalg.matrix_rank(rows) if len(rows) else 0
    unit = np.eye(cells)
    return {
        cell
        for cell in range(cells)
        if not published[cell] and len(rows) and np.linalg.matrix_rank(np.vstack([rows, unit[cell]])) == rank
    }


def two_margins(rows: int, columns: int) -> tuple[tuple[int, ...], ...]:
    grid = np.arange(rows * columns).reshape(rows, columns)
    return (*map(tuple, grid.tolist()), *map(tuple, grid.T.tolist()), tuple(range(rows * columns)))


def hierarchy() -> tuple[tuple[int, ...], ...]:
    """Lines in segments in areas in all."""
    lines = [tuple(range(3 * segment, 3 * segment + 3)) for segment in range(6)]
    areas = [lines[0] + lines[1] + lines[2], lines[3] + lines[4] + lines[5]]
    return (*lines, *areas, tuple(range(18)))


def matrix_of(cells: int, covers: tuple[tuple[int, ...], ...]) -> np.ndarray:
    out = np.zeros((cells + len(covers), cells))
    out[:cells] = np.eye(cells)
    for place, cover in enumerate(covers):
        out[cells + place, list(cover)] = 1
    return out


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", ["one margin", "two margins", "hierarchy"])
def test_nothing_suppressed_comes_back_from_what_is_published(shape: str, seed: int) -> None:
    covers = {
        "one margin": two_margins(5, 4)[:5],
        "two margins": two_margins(12, 8) if seed < 3 else two_margins(4, 3),
        "hierarchy": hierarchy(),
    }[shape]
    cells = max(cell for cover in covers for cell in cover) + 1
    rng = random.Random(seed)
    units = [rng.choice([3, 9]) if rng.random() < 0.08 else rng.randrange(10, 200) for _ in range(cells)]
    if min(units) >= 10:
        units[rng.randrange(cells)] = 4
    matrix = matrix_of(cells, covers)
    figures = np.array([rng.randrange(1, 10**6) for _ in range(cells)])
    values = (matrix @ figures).astype(np.int64).tolist()
    publish, masked, _ = run(units, None, values, SuppressTerms(min_units=10, covers=covers), widths=(8, 1))
    assert 0 in publish[:cells]
    # The attack works where totals are published regardless, so it would be seen here.
    assert recovered(matrix, publish[:cells] + [1] * len(covers), cells)
    assert not recovered(matrix, publish, cells)
    # Stronger: published rows do not touch a suppressed cell, so they are the same whatever stands in it.
    hidden = np.flatnonzero(np.array(publish[:cells]) == 0)
    assert not matrix[np.flatnonzero(publish)][:, hidden].any()
    assert [v for v, bit in zip(masked, publish, strict=True) if not bit] == [0] * publish.count(0)


UNITS, OWNERS, VALUES = [12, 3, 40, 10], [3, 3, 1, 2], [5, 6, 7, 8, 18, 15]
TERMS = SuppressTerms(min_units=10, min_owners=2, covers=((0, 1, 2), (0, 3)))
EXPECTED = ([1, 0, 0, 1, 0, 1], [5, 0, 0, 8, 0, 15])


def test_a_corrupt_party_cannot_lift_a_suppression(monkeypatch) -> None:
    """Any message bent by its sender, at any position: the proofs find it before anything is opened."""
    small_proofs(monkeypatch)
    rng = random.Random(2)
    parts = [share_bits(UNITS, 6, rng=rng), share_bits(OWNERS, 2, rng=rng), share_ring(VALUES, rng=rng)]

    def program(flow):
        units, owners, values = (part[flow.stage.party] for part in parts)
        out = yield from suppress(flow.stage, units, owners, values, TERMS)
        opened = yield from flow.open([out.publish, out.values])
        return tuple([int(v) for v in one] for one in opened)

    honest = run_flow(program)
    assert set(map(repr, honest.results.values())) == {repr(EXPECTED)}
    depth = suppress_cost(4, 6, 2, 1, TERMS)[0] - 3
    steps = [(f"suppress/{step}", 0) for step in range(depth)] + [("ring-products", number) for number in range(3)]
    for corrupt in range(3):
        for step, number in steps:
            seen = [0]

            def bend(name, side, body, at=(step, number), seen=seen):
                if name != at[0]:
                    return body
                seen[0] += 1
                return flip(bytes(body), rng) if seen[0] == at[1] + 1 else body

            outcome = run_flow(program, session_types={corrupt: corrupt_session(bend)})
            others = [party for party in range(3) if party != corrupt]
            assert seen[0] > number
            assert not any(party in outcome.results for party in others), step
            assert not {place for place in outcome.log if place.step == "open" and place.sender in others}, step
