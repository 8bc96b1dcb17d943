"""The Gate by brute force on plain sets, to check both the product's Gate (arrays) and the oracle's (SQL) against."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Place", "gate", "level_counts"]

Place = tuple[str, str]  # (segment, product line); an empty name means "not allocated"
TOP: Place = ("", "")


def gate(lines: Iterable[tuple[str, str, str]], k: int) -> dict[Place, Place]:
    """Return where every leaf of one owner and slice ends up; empty if the owner is dropped.

    Args:
        lines: (segment, product line, customer), repetitions allowed.
        k: fewest distinct customers of a cell.
    """
    leaves: dict[Place, set[str]] = {}
    for segment, line, customer in lines:
        leaves.setdefault((segment, line), set()).add(customer)
    if len(set().union(*leaves.values())) < k:
        return {}
    to = {leaf: leaf for leaf in leaves}

    def cells() -> dict[Place, set[str]]:
        out: dict[Place, set[str]] = {}
        for leaf, place in to.items():
            out.setdefault(place, set()).update(leaves[leaf])
        return out

    def move(source: Place, target: Place) -> None:
        for leaf, place in to.items():
            if place == source:
                to[leaf] = target

    for leaf, customers in leaves.items():
        if len(customers) < k:
            move(leaf, (leaf[0], ""))
    for place, customers in cells().items():
        if place[1] == "" and len(customers) < k:
            move(place, TOP)
    while TOP in cells() and len(cells()[TOP]) < k:
        smallest = min((len(customers), place) for place, customers in cells().items() if place != TOP)[1]
        move(smallest, TOP)
    return to


def level_counts(lines: Iterable[tuple[str, str, str]], k: int) -> dict[tuple[str | None, str | None], int]:
    """Return distinct customers per cell after the Gate, per segment total `(segment, None)` and in all `(None, None)`."""
    kept = list(lines)
    to = gate(kept, k)
    members: dict[tuple[str | None, str | None], set[str]] = {}
    for segment, line, customer in kept if to else []:
        place = to[segment, line]
        for at in {place, (place[0], None), (None, None)} - {("", None)}:
            members.setdefault(at, set()).add(customer)
    return {place: len(customers) for place, customers in members.items()}
