"""Random slices of several owners for the Gate on shares, what the Gate in the clear makes of them, and runs of both."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from local_stores.snapshot.gate import NOT_ALLOCATED, gate
from mpc_ops.protocol.core.shares import BooleanShare
from mpc_ops.protocol.disclosure.gate import GateInput, GateTerms
from mpc_ops.protocol.disclosure.gate import gate as shared_gate
from mpc_ops.ring.planes import to_planes
from tests.support.active import as_passive, run_flow, share_ring, terms_of

MOD = 1 << 64


def padded(units: int) -> int:
    return -(-units // 64) * 64


def share_members(table: np.ndarray, seed: object = "s", rng: random.Random | None = None) -> list[BooleanShare]:
    """A fresh sharing by position of a membership table of shape (cells, units), padded to whole words."""
    generator = np.random.default_rng((rng or random).getrandbits(63))
    count = padded(table.shape[1])
    full = np.zeros((len(table), count), dtype=np.uint64)
    full[:, : table.shape[1]] = table
    planes = np.concatenate([to_planes(row, 1) for row in full])
    parts = [generator.integers(0, 1 << 64, planes.shape, dtype=np.uint64) for _ in range(2)]
    parts.append(planes ^ parts[0] ^ parts[1])
    sid = terms_of(0, seed).sid
    return [BooleanShare(sid, party, count, parts[party], parts[(party + 1) % 3]) for party in range(3)]


@dataclass
class Slice:
    """Rows of a slice: (owner, unit of that owner, position in each domain, value of each measure)."""

    domains: tuple[tuple[str, ...], ...]
    owners: int
    measures: int
    rows: list[tuple[int, int, tuple[int, ...], tuple[int, ...]]]

    @property
    def leaves(self) -> list[tuple[int, ...]]:
        return list(product(*(range(len(domain)) for domain in self.domains)))

    def table(self, owner: int) -> np.ndarray:
        units = max((unit for who, unit, _, _ in self.rows if who == owner), default=-1) + 1
        out = np.zeros((len(self.leaves), units), dtype=np.uint64)
        for who, unit, place, _ in self.rows:
            if who == owner:
                out[self.leaves.index(place), unit] = 1
        return out

    def values(self) -> list[int]:
        out = [0] * (self.measures * len(self.leaves))
        for _, _, place, values in self.rows:
            for number, value in enumerate(values):
                out[number * len(self.leaves) + self.leaves.index(place)] += value
        return out

    def shared(self, rng: random.Random | None = None) -> tuple[list[list[BooleanShare]], list]:
        """Membership tables by owner and position, and the measures by position."""
        tables = [share_members(self.table(owner), rng=rng) for owner in range(self.owners)]
        return tables, share_ring([value % MOD for value in self.values()], rng=rng)

    def padded_units(self) -> list[int]:
        return [size for size in (padded(self.table(owner).shape[1]) for owner in range(self.owners)) if size]


def random_slice(
    rng: random.Random, domains: Sequence[Sequence[str]], owners: int, units: int, rows: int, *, measures: int = 2
) -> Slice:
    """Skewed rows, so that some cells are crowded, some small and some empty."""
    domains = tuple(tuple(domain) for domain in domains)
    out = []
    for _ in range(rows if owners and units else 0):
        place = tuple(min(int(rng.expovariate(1.1)), len(domain) - 1) for domain in domains)
        if rng.random() < 0.3:
            place = tuple(rng.randrange(len(domain)) for domain in domains)
        values = tuple(rng.randrange(-(1 << 40), 1 << 40) for _ in range(measures))
        out.append((rng.randrange(owners), rng.randrange(units), place, values))
    return Slice(domains, owners, measures, out)


def clear_places(one: Slice, k: int, min_owners: int = 1) -> list[tuple[int, ...]] | None:
    """Where every row is behind the Gate in the clear, over the union of owners; None if nothing is contributed.

    With `min_owners` 1 this is the very function that owners use.
    """
    if not one.rows:
        return None
    if min_owners > 1:
        return _by_owners(one, k, min_owners)
    numbers: dict[tuple[int, int], int] = {}
    units = [numbers.setdefault((who, unit), len(numbers)) for who, unit, _, _ in one.rows]
    columns = [np.array([place[axis] for _, _, place, _ in one.rows]) for axis in range(len(one.domains))]
    places = gate(columns, np.array(units), one.domains, k)
    return None if places is None else [tuple(row) for row in places.tolist()]


def _by_owners(one: Slice, k: int, min_owners: int) -> list[tuple[int, ...]] | None:
    places = [place for _, _, place, _ in one.rows]

    def fails(chosen: list[int]) -> bool:
        units = {one.rows[row][:2] for row in chosen}
        return len(units) < k or len({who for who, _ in units}) < min_owners

    def cells() -> dict[tuple[int, ...], list[int]]:
        out: dict[tuple[int, ...], list[int]] = {}
        for row, place in enumerate(places):
            out.setdefault(place, []).append(row)
        return out

    if fails(list(range(len(places)))):
        return None
    depth = len(one.domains)
    for level in range(depth, 0, -1):
        for place, rows in cells().items():
            known = sum(code != NOT_ALLOCATED for code in place)
            if known == level and fails(rows):
                for row in rows:
                    places[row] = place[: level - 1] + (NOT_ALLOCATED,) * (depth - level + 1)
    top = (NOT_ALLOCATED,) * depth
    while depth and top in cells() and fails(cells()[top]):

        def order(item: tuple[tuple[int, ...], list[int]]) -> tuple:
            labels = ["" if code < 0 else domain[code] for code, domain in zip(item[0], one.domains, strict=True)]
            return len({one.rows[row][:2] for row in item[1]}), labels

        smallest = min((item for item in cells().items() if item[0] != top), key=order)
        for row in smallest[1]:
            places[row] = top
    return places


def clear_lanes(one: Slice, k: int, min_owners: int = 1, *, totals: bool = True) -> tuple[list[int], list[int]]:
    """Values of `measures x cells` and counts of the cells and (with `totals`) of the prefixes, as the layout orders them."""
    depth = len(one.domains)
    cells = list(one.leaves)
    prefixes: list[tuple[int, ...]] = []
    for level in range(depth - 1, -1, -1):
        prefixes += product(*(range(len(domain)) for domain in one.domains[:level]))
    cells += [prefix + (NOT_ALLOCATED,) * (depth - len(prefix)) for prefix in prefixes]
    places = clear_places(one, k, min_owners)
    placed = list(zip(one.rows, places, strict=True)) if places is not None else []
    values = [
        sum(row[3][number] for row, place in placed if place == cell) % MOD
        for number in range(one.measures)
        for cell in cells
    ]
    counts = [len({row[:2] for row, place in placed if place == cell}) for cell in cells]
    if totals:
        counts += [len({row[:2] for row, place in placed if place[: len(at)] == at}) for at in prefixes]
    return values, counts


def run_gate(slices: Sequence[Slice], terms: GateTerms, rng: random.Random, *, security: str = "active", **options):
    """Run the Gate on fresh shares; return (values and counts per slice, outcome).

    Nothing is opened by the program: the three shares are put together here, from what each party holds at the end.
    """
    shared = [one.shared(rng) for one in slices]
    kind = as_passive if security == "passive" else (lambda share: share)

    def program(flow):
        party = flow.stage.party
        inputs = [
            GateInput(members=[kind(table[party]) for table in tables], measures=kind(measures[party]))
            for tables, measures in shared
        ]
        return (yield from shared_gate(flow.stage, inputs, terms))

    outcome = run_flow(program, security=security, **options)
    if not outcome.done:
        return None, outcome
    outputs = [[outcome.results[party][number] for party in range(3)] for number in range(len(slices))]
    return [(put_together([o.values for o in one]), put_together([o.counts for o in one])) for one in outputs], outcome


def put_together(shares: Sequence) -> list[int] | None:
    """The values of a sharing, from the first component of each position; every second one must be the next one's first."""
    if shares[0] is None:
        return None
    for party in range(3):
        assert np.array_equal(shares[party].second, shares[(party + 1) % 3].first)
    return [int(value) for value in shares[0].first + shares[1].first + shares[2].first]
