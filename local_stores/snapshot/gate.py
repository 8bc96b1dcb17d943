"""The Gate at the owner: cells of too few protected units move to *not allocated* before anything is shared.

For one owner and slice, with k the fewest distinct units a cell may stand for:

1. level by level from the leaves up, a cell of 1..k-1 units moves to the not-allocated cell of its parent prefix, and so
   does a not-allocated cell that then holds 1..k-1 units;
2. if the top's not-allocated cell holds 1..k-1 units, it absorbs the smallest remaining cells (fewest units, then
   dimension values by text, where a missing value counts as the empty text) one after another until it holds k;
3. an owner with fewer than k units in the whole slice contributes nothing to it.

Totals foot, and which cells moved is known to this owner alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["NOT_ALLOCATED", "distinct_units", "gate"]

Int64 = npt.NDArray[np.int64]
NOT_ALLOCATED = -1


def gate(dimensions: Sequence[Int64], units: Int64, domains: Sequence[Sequence[str]], k: int) -> Int64 | None:
    """Return the place of every row after the Gate.

    Args:
        dimensions: position in the domain, one array of shape (n,) for each of the d dimensions, outermost first.
        units: number of the protected unit of each row, shape (n,).
        domains: the values of each dimension.
        k: fewest distinct units of a cell, at least 1.

    Returns:
        Array of shape (n, d): positions in the domains, `NOT_ALLOCATED` from the level on where a row is not allocated;
        None if the owner contributes nothing to this slice.
    """
    depth = len(dimensions)
    if len(np.unique(units)) < k:
        return None
    places = np.stack(dimensions, axis=1).astype(np.int64) if depth else np.empty((len(units), 0), np.int64)
    for level in range(depth, 0, -1):
        at_level = places[:, level - 1] != NOT_ALLOCATED
        if level < depth:
            at_level &= places[:, level] == NOT_ALLOCATED
        small = at_level & (distinct_units(places, units)[0] < k)
        places[small, level - 1] = NOT_ALLOCATED
    return _absorb(places, units, domains, k) if depth else places


def distinct_units(places: Int64, units: Int64) -> tuple[Int64, Int64]:
    """Return (distinct units of the row's cell for every row, number of the row's cell), both of shape (n,)."""
    if places.shape[1]:
        _, cells = np.unique(places, axis=0, return_inverse=True)
        cells = cells.reshape(-1).astype(np.int64)
    else:
        cells = np.zeros(len(places), np.int64)
    pairs = np.unique(np.stack([cells, units], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=int(cells.max(initial=-1)) + 1).astype(np.int64)
    return counts[cells], cells


def _absorb(places: Int64, units: Int64, domains: Sequence[Sequence[str]], k: int) -> Int64:
    top = places[:, 0] == NOT_ALLOCATED
    held = set(units[top].tolist())
    if not 0 < len(held) < k:
        return places
    counts, cells = distinct_units(places, units)
    first = {int(cell): row for row, cell in reversed(list(enumerate(cells.tolist()))) if not top[row]}

    def order(cell: int) -> tuple[int, tuple[str, ...]]:
        place = places[first[cell]].tolist()
        labels = ["" if code == NOT_ALLOCATED else domain[code] for code, domain in zip(place, domains, strict=True)]
        return int(counts[first[cell]]), tuple(labels)

    for cell in sorted(first, key=order):
        places[cells == cell] = NOT_ALLOCATED
        held |= set(units[cells == cell].tolist())
        if len(held) >= k:
            break
    return places
