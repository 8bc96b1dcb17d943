"""The Gate by brute force on plain sets, to check both the product's Gate (arrays) and the oracle's (SQL) against."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Place", "gate", "level_counts"]

Place = tuple[str, str]  # (segment, product line); an empty name means "not allocated"
Customer = str | tuple[object, str]
TOP: Place = ("", "")


def gate(lines: Iterable[tuple[str, str, Customer]], k: int, min_owners: int = 1) -> dict[Place, Place]:
    """Return where every leaf of one region (or owner) and slice ends up; empty if it is dropped.

    Args:
        lines: (segment, product line, customer), repetitions allowed.
        k: fewest distinct customers of a cell.
        min_owners: fewest owners of a cell's customers; above 1, a customer is (owner, name).
    """
    leaves: dict[Place, set[Customer]] = {}
    for segment, line, customer in lines:
        leaves.setdefault((segment, line), set()).add(customer)

    def small(customers: set[Customer]) -> bool:
        return len(customers) < k or (min_owners > 1 and len({owner for owner, _ in customers}) < min_owners)

    if small(set().union(*leaves.values())):
        return {}
    to = {leaf: leaf for leaf in leaves}

    def cells() -> dict[Place, set[Customer]]:
        out: dict[Place, set[Customer]] = {}
        for leaf, place in to.items():
            out.setdefault(place, set()).update(leaves[leaf])
        return out

    def move(source: Place, target: Place) -> None:
        for leaf, place in to.items():
            if place == source:
                to[leaf] = target

    for leaf, customers in leaves.items():
        if small(customers):
            move(leaf, (leaf[0], ""))
    for place, customers in cells().items():
        if place[1] == "" and small(customers):
            move(place, TOP)
    while TOP in cells() and small(cells()[TOP]):
        smallest = min((len(customers), place) for place, customers in cells().items() if place != TOP)[1]
        move(smallest, TOP)
    return to


def level_counts(
    lines: Iterable[tuple[str, str, Customer]], k: int, min_owners: int = 1
) -> dict[tuple[str | None, str | None], int]:
    """Return distinct customers per cell after the Gate, per segment total `(segment, None)` and in all `(None, None)`."""
    kept = list(lines)
    to = gate(kept, k, min_owners)
    members: dict[tuple[str | None, str | None], set[Customer]] = {}
    for segment, line, customer in kept if to else []:
        place = to[segment, line]
        for at in {place, (place[0], None), (None, None)} - {("", None)}:
            members.setdefault(at, set()).add(customer)
    return {place: len(customers) for place, customers in members.items()}
