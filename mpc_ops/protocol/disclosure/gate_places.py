"""Where the rows of every cell end up behind the Gate: the Boolean part of mpc_ops.protocol.disclosure.gate, one circuit per slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import Circuit
from mpc_ops.protocol.circuits.compare import less_public
from mpc_ops.protocol.circuits.counts import (
    Bits,
    Cost,
    any_cost,
    any_in_groups,
    any_unit,
    any_unit_cost,
    count_planes,
    count_planes_cost,
    lane_parity,
    less_public_cost,
    popcount,
    popcount_cost,
    side_by_side,
    spread,
    stacked,
    take,
    widened,
)
from mpc_ops.protocol.circuits.smallest import first_smallest, first_smallest_cost
from mpc_ops.protocol.core.shares import concat, invert, xor
from mpc_ops.ring.planes import WORD_BITS, words_for

__all__ = ["GateTerms", "Places", "SliceGate", "absorption_order", "slice_cost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateTerms:
    """What the Gate has to do; public, from the plan.

    Attributes:
        domains: values of each dimension, outermost first; none is empty.
        k: fewest distinct units of a cell, at least 1.
        min_owners: fewest owners with a unit in a cell; 1 asks for nothing beyond `k`.
        counts: whether distinct units are counted in every cell.
        totals: whether they are also counted in every prefix (`each_level`).
    """

    domains: tuple[tuple[str, ...], ...]
    k: int
    min_owners: int = 1
    counts: bool = False
    totals: bool = False

    def __post_init__(self) -> None:
        if self.k < 1 or self.min_owners < 1 or not all(self.domains) or (self.totals and not self.counts):
            raise LocalProtocolError(
                "GATE_INVALID", "terms of a Gate make no sense", hint="k and min_owners are at least 1"
            )

    @property
    def depth(self) -> int:
        """Number of dimensions."""
        return len(self.domains)

    def prefixes(self, level: int) -> int:
        """Return how many prefixes of `level` values there are; of `depth` values: leaf cells."""
        return prod(len(domain) for domain in self.domains[:level])

    @property
    def leaves(self) -> int:
        """Number of leaf cells."""
        return self.prefixes(self.depth)

    @property
    def cells(self) -> int:
        """Leaf cells and the not-allocated cells of every shorter prefix."""
        return sum(self.prefixes(level) for level in range(self.depth + 1))

    @property
    def total_cells(self) -> int:
        """Prefixes whose units are counted anew."""
        return self.cells - self.leaves if self.totals else 0

    @property
    def candidates(self) -> int:
        """Cells below the top's not-allocated one."""
        return self.cells - 1 if self.depth else 0


def absorption_order(domains: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Return the candidates for absorption by their labels, a missing one counting as the empty text.

    Position p of the result is a cell's number among leaf cells and then not-allocated cells of prefixes of depth-1 .. 1.
    """
    depth = len(domains)
    labels = [
        (*prefix, *([""] * (depth - level))) for level in range(depth, 0, -1) for prefix in product(*domains[:level])
    ]
    return np.array(sorted(range(len(labels)), key=labels.__getitem__), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Level:
    """The cells of one level behind its pass: members, counts, whether they failed, the members of those that did."""

    members: Bits
    counts: Bits
    moved: Bits
    gone: Bits


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is.

    Attributes:
        stays: per level depth .. 1: whether the cell keeps its content.
        at: per level depth .. 1: whether a leaf's rows are in that level's cell, one lane per leaf.
        drop: whether the slice contributes nothing, one lane.
        counts: counts of cells and totals before `stays` and `drop` are applied; None if not asked for.
    """

    stays: list[Bits]
    at: list[Bits]
    drop: Bits
    counts: Bits | None


class SliceGate:
    """The circuit of one slice."""

    def __init__(self, members: Sequence[Bits], terms: GateTerms) -> None:
        self.terms = terms
        ends = np.cumsum([0, *(one.first.shape[1] for one in members)])
        self.owners = [slice(int(low), int(high)) for low, high in pairwise(ends)]
        self.members = stacked(members)
        self.words = self.members.first.shape[1]

    # -- tests

    def _below_units(self, members: Bits) -> Circuit[Bits, tuple[Bits, Bits]]:
        counts = yield from popcount(members)
        below = yield from _below(counts, self.terms.k)
        return counts, below

    def _below_owners(self, members: Bits) -> Circuit[Bits, Bits]:
        """Return whether fewer than `min_owners` owners have a unit in a cell."""

        def part(place: slice) -> Bits:
            first, second = (np.ascontiguousarray(one[:, place]) for one in (members.first, members.second))
            return replace(members, count=WORD_BITS * first.shape[1], first=first, second=second)

        present = yield from side_by_side([any_unit(part(place)) for place in self.owners])
        counts = yield from count_planes(concat(present))
        below = yield from _below(counts, self.terms.min_owners)
        return below

    def tested(self, members: Bits) -> Circuit[Bits, tuple[Bits, Bits]]:
        """Return (units of each cell, whether it fails); an empty cell fails.

        AND words for c cells: those of `popcount`, and (2 b - 2 - ceil(log2 b)) ceil(c/64), with b the bits of the number of units or
        of k, whichever are more; depth that of `popcount` and ceil(log2 b). With `min_owners` beside them those of `any_unit` for
        each owner, of `count_planes` of the owners, and of such a comparison; then ceil(c/64), depth 1.
        """
        if self.terms.min_owners == 1:
            result = yield from self._below_units(members)
            return result
        (counts, few_units), few_owners = yield from side_by_side(
            [self._below_units(members), self._below_owners(members)]
        )
        (both,) = yield [(few_units, few_owners)]
        return counts, xor(xor(few_units, few_owners), both)

    # -- passes over the levels

    def passes(self) -> Circuit[Bits, tuple[list[_Level], Bits]]:
        """Return the levels depth .. 1 behind their passes, and the members of the top's not-allocated cell.

        AND words, level by level, for c cells of w words under p prefixes: those of `tested`, c w, and those of `any_in_groups` of p
        groups; depth the sum of theirs and 1 a level.
        """
        levels, members = [], self.members
        for level in range(self.terms.depth, 0, -1):
            counts, moved = yield from self.tested(members)
            (gone,) = yield [(spread(moved, self.words), members)]
            levels.append(_Level(members, counts, moved, gone))
            members = yield from any_in_groups(gone, self.terms.prefixes(level - 1))
        return levels, members

    def top(self, members: Bits) -> Circuit[Bits, tuple[Bits, Bits, Bits]]:
        """Return (units of the top's cell, whether it fails, whether it has any).

        AND words, depth: those of `tested` of one cell beside `any_unit`.
        """
        (counts, fails), some = yield from side_by_side([self.tested(members), any_unit(members)])
        return counts, fails, some

    def smallest(self, levels: Sequence[_Level]) -> Circuit[Bits, Bits]:
        """Return which cell is the smallest one that remains, one lane per candidate; none if none remains.

        AND words: those of `first_smallest` of the candidates' counts with one bit more, and one a word of candidates; depth its and 1.
        """
        moved = stacked([level.moved for level in levels])
        keys = concat([stacked([level.counts for level in levels]), moved])
        order = absorption_order(self.terms.domains)
        first = yield from first_smallest(take(keys, order))
        (remaining,) = yield [(take(first, np.argsort(order)), invert(moved))]
        return remaining

    def paths(self, levels: Sequence[_Level]) -> Circuit[Bits, list[Bits]]:
        """Return for each level depth-1 .. 1 whether a leaf's rows arrive in that level's cell, one lane per leaf.

        ANDs per leaf: depth - 2, in as many steps; none for fewer than three levels.
        """
        arrive: list[Bits] = []
        here = levels[0].moved if levels else None
        for level in levels[1:]:
            if here is None:  # pragma: no cover - there is a first level
                break
            arrive.append(here)
            if level is not levels[-1]:
                (here,) = yield [(here, self._per_leaf(level.moved))]
        return arrive

    def _per_leaf(self, cells: Bits) -> Bits:
        """Return the bit of each leaf's cell."""
        leaves = self.terms.leaves
        return take(cells, np.arange(leaves, dtype=np.int64) // (leaves // cells.count))

    # -- places

    def decide(self) -> Circuit[Bits, Places]:
        """Return where everything is.

        AND words, depth: `slice_cost`; its parts are those of the methods above.
        """
        terms = self.terms
        if not terms.depth:
            counts, fails = yield from self.tested(self.members)
            return Places([], [], fails, counts if terms.counts else None)
        levels, members = yield from self.passes()
        beside: list[Circuit[Bits, Any]] = [self.top(members), self.smallest(levels), self.paths(levels)]
        beside += [any_in_groups(self.members, 1)] if terms.totals else []
        (_, fails, some), smallest, arrive, *everyone = yield from side_by_side(beside)
        hit, unless = yield [(fails, some), (fails, lane_parity(smallest, smallest.count))]
        candidates = smallest.count
        (chosen,) = yield [(_repeat(hit, candidates), smallest)]
        cut = np.cumsum([0, *(level.moved.count for level in levels)])
        absorbed = [take(chosen, np.arange(low, high, dtype=np.int64)) for low, high in pairwise(cut)]
        stays = [invert(xor(level.moved, one)) for level, one in zip(levels, absorbed, strict=True)]
        at, counted = yield from side_by_side(
            [self._at(stays, arrive), self._counts(levels, members, absorbed, everyone)]
        )
        return Places(stays, [stays[0], *at], xor(fails, unless), counted)

    def _at(self, stays: Sequence[Bits], arrive: Sequence[Bits]) -> Circuit[Bits, list[Bits]]:
        if not arrive:
            return []
        found = yield [(here, self._per_leaf(keeps)) for here, keeps in zip(arrive, stays[1:], strict=True)]
        return list(found)

    # -- counts

    def _counts(
        self, levels: Sequence[_Level], top: Bits, absorbed: Sequence[Bits], everyone: Sequence[Bits]
    ) -> Circuit[Bits, Bits | None]:
        """Return the counts of all cells, then of the totals: only the top's and the totals' are counted anew."""
        if not self.terms.counts:
            return None
        taken = yield [(spread(one, self.words), level.members) for one, level in zip(absorbed, levels, strict=True)]
        # At most one cell is absorbed, so XOR is OR.
        into_top = _xor_planes(concat(list(taken)))
        top_of, totals = yield from side_by_side(
            [_or(top, into_top), self._total_members(levels, list(taken)) if everyone else _nothing()]
        )
        anew = yield from popcount(concat([top_of, *totals, *everyone]))
        cells = [level.counts for level in levels]
        return stacked([*cells, anew])

    def _total_members(self, levels: Sequence[_Level], taken: Sequence[Bits]) -> Circuit[Bits, list[Bits]]:
        """Return the members of the prefixes of depth-1 .. 1 values: what is still in a cell below, any cell."""
        rest = [xor(xor(level.members, level.gone), one) for level, one in zip(levels, taken, strict=True)]
        out: list[Bits] = []
        below = rest[0]
        for place, own in enumerate(rest[1:]):
            level = self.terms.depth - 1 - place
            below = yield from any_in_groups(_interleave(below, own), self.terms.prefixes(level))
            out.append(below)
        return out


def _below(counts: Bits, bound: int) -> Circuit[Bits, Bits]:
    """Return whether a count is below a public bound, however wide the bound is."""
    result = yield from less_public(widened(counts, bound.bit_length()), bound)
    return result


def _repeat(bit: Bits, lanes: int) -> Bits:
    return take(bit, np.zeros(lanes, dtype=np.int64))


def _xor_planes(planes: Bits) -> Bits:
    first, second = (np.bitwise_xor.reduce(part, axis=0, keepdims=True) for part in (planes.first, planes.second))
    return replace(planes, first=first, second=second)


def _or(x: Bits, y: Bits) -> Circuit[Bits, Bits]:
    (both,) = yield [(x, y)]
    return xor(xor(x, y), both)


def _nothing() -> Circuit[Bits, list[Bits]]:
    yield from ()
    return []


def _interleave(children: Bits, own: Bits) -> Bits:
    """Return per prefix its children's planes and then its own one."""
    groups, words = own.first.shape

    def rows(below: NDArray[np.uint64], here: NDArray[np.uint64]) -> NDArray[np.uint64]:
        both = np.concatenate([below.reshape(groups, -1, words), here.reshape(groups, 1, words)], axis=1)
        return np.ascontiguousarray(both.reshape(-1, words))

    return replace(own, first=rows(children.first, own.first), second=rows(children.second, own.second))


def _tested_cost(cells: int, units: Sequence[int], terms: GateTerms) -> Cost:
    total = sum(units)
    width = max(total.bit_length(), terms.k.bit_length())
    cost = popcount_cost(cells, total).then(less_public_cost(width, cells))
    if terms.min_owners == 1:
        return cost
    present = Cost().beside(*(any_unit_cost(cells, one) for one in units))
    width = max(len(units).bit_length(), terms.min_owners.bit_length())
    owners = present.then(count_planes_cost(cells, len(units)), less_public_cost(width, cells))
    return cost.beside(owners).then(Cost(1, words_for(cells)))


def slice_cost(units: Sequence[int], terms: GateTerms) -> Cost:
    """Return the cost of `SliceGate.decide`."""
    depth, words = terms.depth, sum(units) // WORD_BITS
    sizes = [terms.prefixes(level) for level in range(depth, -1, -1)]
    if not depth:
        return _tested_cost(1, units, terms)
    cost = Cost()
    for cells, parents in pairwise(sizes):
        masked = Cost(1, cells * words)
        cost = cost.then(_tested_cost(cells, units, terms), masked, any_cost(parents, cells // parents, words))
    width, leaf_words, candidates = sum(units).bit_length(), words_for(terms.leaves), terms.candidates
    top = _tested_cost(1, units, terms).beside(any_unit_cost(1, sum(units)))
    smallest = first_smallest_cost(candidates, width + 1).then(Cost(1, words_for(candidates)))
    paths = Cost(max(depth - 2, 0), max(depth - 2, 0) * leaf_words)
    everyone = any_cost(1, terms.leaves, words) if terms.totals else Cost()
    chosen = Cost(1, 2).then(Cost(1, words_for(candidates)))
    at = Cost(min(depth - 1, 1), (depth - 1) * leaf_words)
    return cost.then(top.beside(smallest, paths, everyone), chosen, at.beside(_counts_cost(sizes, sum(units), terms)))


def _counts_cost(sizes: Sequence[int], units: int, terms: GateTerms) -> Cost:
    if not terms.counts:
        return Cost()
    words, totals = units // WORD_BITS, Cost()
    if terms.totals:
        inner = pairwise(sizes[:-1])
        totals = Cost().then(*(any_cost(parents, cells // parents + 1, words) for cells, parents in inner))
    anew = popcount_cost(1 + terms.total_cells, units)
    return Cost(1, terms.candidates * words).then(totals.beside(Cost(1, words)), anew)
