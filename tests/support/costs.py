"""What a primitive costs, as a formula: rounds and bytes of every position, in both kinds of session, exactly.

A `Cost` is written from a docstring: gates, shuffles and openings one after another (`+`) or in the same rounds (`beside`). It says
what a passive session sends, and what an active one adds: proofs of what was logged since the last opening, FLUSH, ACCEPT, digests.
`check` runs a program in both kinds of session and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.order import select as select_module
from mpc_ops.protocol.order import sort_quick
from mpc_ops.protocol.proofs.proof_and import proof_bytes, proof_rounds
from mpc_ops.protocol.proofs.proof_ring import proof_bytes as ring_bytes
from mpc_ops.protocol.proofs.ring_claim import RING_32, RING_64, RingParams
from mpc_ops.protocol.proofs.ring_roles import Place
from tests.support.active import SMALL_LAYOUT, Outcome, run_flow
from tests.support.relational import SECURITIES, tables

Sent = tuple[int, int, int]
Shape = Mapping[str, int | None]
"""By column name: the width in bits, or None for Z_2^64."""


def words(count: int) -> int:
    return -(-count // 64)


def log2(number: int) -> int:
    """ceil(log2 number), 0 for 1."""
    return (number - 1).bit_length()


# ------------------------------------------------------------------------------------------------------------ the algebra


@dataclass(frozen=True)
class Part:
    """What is done between two openings: rounds and bytes of this kind of session, and what an active one has to prove.

    Attributes:
        gates: AND words.
        ring: (outputs, terms, whether it is a table, which is proven on its own), in the order of logging.
        keys: words of tag keys.
    """

    rounds: int = 0
    sent: Sent = (0, 0, 0)
    gates: int = 0
    ring: tuple[tuple[int, int, bool], ...] = ()
    counters: tuple[tuple[int, int, bool], ...] = ()
    keys: int = 0

    def with_(self, other: Part, rounds: int) -> Part:
        sent = (self.sent[0] + other.sent[0], self.sent[1] + other.sent[1], self.sent[2] + other.sent[2])
        ring, counters = self.ring + other.ring, self.counters + other.counters
        return Part(rounds, sent, self.gates + other.gates, ring, counters, self.keys + other.keys)

    def barrier(self) -> tuple[int, int]:
        """Rounds and bytes of FLUSH, PROVE and ACCEPT."""
        proofs = [(1, 0)]
        if self.gates:
            proofs.append((proof_rounds(self.gates, SMALL_LAYOUT), proof_bytes(self.gates, SMALL_LAYOUT)))
        for pieces, params in ((self.ring, RING_64), (self.counters, RING_32)):
            proofs += [_ring_proof(batch, params) for batch in _batches(pieces)]
        if self.keys:
            proofs.append((3, 8 * self.keys + 32 + 64))
        return max(rounds for rounds, _ in proofs) + 1, sum(sent for _, sent in proofs) + 64 + 64


def _batches(pieces: Sequence[tuple[int, int, bool]]) -> list[list[tuple[int, int, bool]]]:
    """Products in a row are one batch, a table is one."""
    out: list[list[tuple[int, int, bool]]] = []
    for piece in pieces:
        if piece[2] or not out or out[-1][-1][2]:
            out.append([])
        out[-1].append(piece)
    return out


def _ring_proof(batch: Sequence[tuple[int, int, bool]], params: RingParams) -> tuple[int, int]:
    place = Place((), 0, sum(outputs for outputs, _, _ in batch), sum(terms for _, terms, _ in batch), params)
    return 2 * place.folds + 2, ring_bytes(place)


@dataclass(frozen=True)
class Opening:
    words: int
    to: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Cost:
    """Parts with openings between them; None is a barrier without an opening."""

    parts: tuple[Part, ...] = (Part(),)
    openings: tuple[Opening | None, ...] = ()

    def __add__(self, other: Cost) -> Cost:
        last, first = self.parts[-1], other.parts[0]
        middle = last.with_(first, last.rounds + first.rounds)
        return Cost((*self.parts[:-1], middle, *other.parts[1:]), self.openings + other.openings)

    def beside(self, *others: Cost) -> Cost:
        """In the same rounds; without openings."""
        out = self
        for other in others:
            (one,), (two,) = out.parts, other.parts
            out = Cost((one.with_(two, max(one.rounds, two.rounds)),))
        return out

    def total(self, *, active: bool) -> tuple[int, list[int]]:
        """Rounds, and bytes by position; an active session ends with a barrier."""
        openings = [one for one in self.openings if one is not None]
        rounds, sent = len(openings), [0, 0, 0]
        for part in self.parts:
            more, proofs = part.barrier() if active else (0, 0)
            rounds += part.rounds + more
            sent = [one + mine + proofs for one, mine in zip(sent, part.sent, strict=True)]
        for opening in openings:
            for party in range(3):
                sent[party] += 8 * opening.words * ((party + 1) % 3 in opening.to)
                sent[party] += 32 * (active and opening.words > 0 and (party - 1) % 3 in opening.to)
        return rounds, sent


NOTHING = Cost()


def ands(gate_words: int, depth: int = 1) -> Cost:
    """AND words in so many steps; a step without a gate is no round."""
    return Cost((Part(depth, (8 * gate_words,) * 3, gate_words),)) if gate_words else NOTHING


def gates(per_value: int, depth: int, count: int) -> Cost:
    """A circuit of so many ANDs a value."""
    return ands(per_value * words(count), depth)


def products(outputs: int, terms: int | None = None) -> Cost:
    """One message of products, or of dot products of `terms` terms in all."""
    logged = ((outputs, outputs if terms is None else terms, False),)
    return Cost((Part(1, (8 * outputs,) * 3, ring=logged),)) if outputs else NOTHING


def counter_products(count: int) -> Cost:
    return Cost((Part(1, (4 * count,) * 3, counters=((count, count, False),)),)) if count else NOTHING


def table(left: int, right: int, rows: int, block: int = 1 << 62) -> Cost:
    """Dot products of all left with all right columns: a block of r rows is proven as (A + B) r / 2 products, filled up."""
    if not left * right * rows:
        return NOTHING
    blocks = [min(block, rows - start) for start in range(0, rows, block)]
    pieces = tuple((left * right, 64 * -(-8 * -(-size // 8) * (left + right) // 128), True) for size in blocks)
    return Cost((Part(1, (8 * left * right * len(blocks),) * 3, ring=pieces),))


def message(*sent: int, rounds: int = 1) -> Cost:
    """Bytes by position that nothing is proven about."""
    return Cost((Part(rounds, (sent * 3)[:3] if len(sent) == 1 else (sent[0], sent[1], sent[2])),))


def opening(*sizes: int, to: tuple[int, ...] = (0, 1, 2)) -> Cost:
    """An opening of shares of so many words."""
    return Cost((Part(), Part()), (Opening(sum(sizes), to),))


def barrier() -> Cost:
    """The end of a stage without an opening."""
    return Cost((Part(), Part()), (None,))


# --------------------------------------------------------------------------------------- circuits: ANDs per value and depth

Circuit = tuple[int, int]


def less(width: int) -> Circuit:
    return 3 * width - 2 - log2(width), 1 + log2(width)


def less_public(width: int) -> Circuit:
    return 2 * width - 2 - log2(width), log2(width)


def equal(width: int) -> Circuit:
    return width - 1, log2(width)


def prefix(width: int) -> Circuit:
    """All carries: with s = 1, 2, 4, ... every plane whose number has the bit s takes one AND, and one more from 2 s on."""
    steps = [1 << step for step in range(log2(width))]
    return sum((bit & step > 0) * (1 + (bit >= 2 * step)) for step in steps for bit in range(width)), log2(width)


def difference(width: int) -> Circuit:
    return width + prefix(width)[0], 1 + log2(width)


def top_bit(width: int) -> Circuit:
    return (4 * width - 9 - log2(width - 2), 2 + log2(width - 2)) if width > 2 else (width - 1, width - 1)


def low_bits(width: int) -> Circuit:
    """A2B."""
    if width < 3:
        return width - 1, width - 1
    return 2 * width - 3 + prefix(width - 2)[0], 2 + log2(width - 2)


def is_zero(width: int) -> Circuit:
    if width == 1:
        return 0, 0
    return (3 * width - 4, 2 + log2(width)) if width > 2 else (2, 2)


def quotient(top: int, bottom: int) -> Circuit:
    return top * (difference(bottom + 1)[0] + bottom), top * (2 + log2(bottom + 1))


def any_row(count: int) -> Cost:
    """OR of the whole words, then of the 64 bits of the last."""
    if count == 0:
        return NOTHING
    return ands(words(count) - 1, log2(words(count))) + ands(63, 6)


# ------------------------------------------------------------------------------- protocols whose cost others are made of


@dataclass
class Price:
    """Formulas of the protocols that others are made of, for one kind of session.

    Attributes:
        active: which.
        sorts: by sort (or selection), in order: the comparisons of each level, which follow from the shuffle.
    """

    active: bool
    sorts: Iterator[Sequence[int]]

    def planes_to_ring(self, count: int) -> Cost:
        """B2A of so many bits."""
        return products(count) + products(count)

    def blank(self, count: int, bits: int, ring: int = 0) -> Cost:
        ring_part = self.planes_to_ring(count) + products(count * ring) if ring else NOTHING
        return ands(bits * words(count)).beside(ring_part)

    def shuffle(self, count: int, bits: int, ring: int = 0, *, spared: int = 0) -> Cost:
        """A shuffle; `spared`: bytes a row that are not sent of values whose lowest bytes are 0."""
        if count == 0 or bits + ring == 0:
            return NOTHING
        size = 8 * bits * words(count) + (8 * ring - spared) * count
        if not self.active:
            return message(size, 2 * size + 1, size, rounds=2)
        tag = 8 * count * (bits > 0) + 16 * count * (ring > 0)
        size += 8 * count * ring + tag
        whole = message(size + tag, 2 * size + 1 + tag, size + tag, rounds=3)
        return Cost((replace(whole.parts[0], keys=bits + ring),))

    def _place_bytes(self, count: int) -> int:
        return max(1, -(-log2(count) // 8))

    def move_to(self, count: int, bits: int, ring: int = 0) -> Cost:
        if count == 0:
            return NOTHING
        octets = self._place_bytes(count)
        return self.shuffle(count, bits, ring + 1, spared=8 - octets) + opening(-(-octets * count // 8))

    def move_numbered(self, count: int, bits: int, ring: int = 0) -> Cost:
        if count == 0:
            return NOTHING
        number = max(1, log2(count))
        first = self.shuffle(count, number, 1, spared=8 - self._place_bytes(count))
        return first + opening(number * words(count)) + self.move_to(count, bits, ring)

    def digit_places(self, count: int, width: int) -> Cost:
        if width == 1:
            return self.planes_to_ring(count) + products(count)
        return self.planes_to_ring(2 * count) + products(count) + products(count, 3 * count)

    def compact(self, count: int, bits: int, ring: int = 0) -> Cost:
        """Also `partition`; `bits` with the bit that decides."""
        return self.digit_places(count, 1) + self.move_to(count, bits, ring) if count else NOTHING

    def put_back(self, count: int, bits: int, ring: int, places: int, also: int = 0) -> Cost:
        """`bits` with those of the places."""
        return self.shuffle(count, bits, ring) + opening(places * words(count), also)

    def levels(self, width: int) -> Cost:
        """Comparisons of keys of so many bits and their openings, level by level."""
        out = NOTHING
        for comparisons in next(self.sorts):
            out += gates(*less(width), comparisons) + opening(words(comparisons))
        return out

    def quick_sort(self, count: int, bits: int, ring: int, key: int, nulls: int = 0) -> Cost:
        number = max(1, log2(count))
        out = self.shuffle(count, bits + number, ring) + ands(nulls * words(count))
        return out + self.levels(key + number)

    def radix_sort(self, count: int, bits: int, ring: int, key: int, nulls: int = 0) -> Cost:
        passes, number = -(-key // 2), max(1, log2(count))
        out = ands(nulls * words(count))
        travel = (bits + 64 * ring) * (passes - 1) <= number * passes + 32
        moved, columns = (bits, ring) if travel else (number, 0)
        for one in range(passes):
            rest = max(0, key - 2 * (one + 1))
            out += self.digit_places(count, min(2, key - 2 * one))
            if travel or one < passes - 1:
                out += self.move_to(count, moved + rest, columns)
            else:
                out += self.move_numbered(count, bits, ring)
        return out

    def sort(self, count: int, bits: int, ring: int, key: int, *, nulls: int = 0, pivots: int = 1) -> Cost:
        """`key` with validity bits, `nulls` the bits of keys that have one, `bits` of all columns."""
        if count < 2:
            return NOTHING
        narrow = (4 if self.active else 8) * (1 + (pivots > 1))
        how = self.radix_sort if key <= narrow else self.quick_sort
        return how(count, bits, ring, key, nulls)

    def spread(self, count: int, bits: int, ring: int = 0, *, clean: bool = False) -> Cost:
        if ring or bits * log2(count) > 400:
            return self.spread_by_shuffle(count, bits, ring, clean=clean)
        return self.spread_by_copying(count, bits, clean=clean)

    def spread_by_copying(self, count: int, bits: int, *, clean: bool = False) -> Cost:
        doublings = log2(count)
        heads = NOTHING if clean else ands(bits * words(count))
        return heads + ands(words(count) * (doublings * (bits + 1) - 1) if doublings else 0, doublings)

    def spread_by_shuffle(self, count: int, bits: int, ring: int, *, clean: bool = False) -> Cost:
        if count == 0:
            return NOTHING
        places = log2(count + 1)
        heads = NOTHING if clean else self.blank(count, bits, ring)
        moved = self.compact(count + 1, bits + places + 1, ring)
        return heads + moved + self.put_back(count + 1, bits + places, ring, places)


# ------------------------------------------------------------------------------------------------------------- the check


def _watched(kind: type[Any], made: list[list[int]]) -> type[Any]:
    class Watched(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.compared: list[int] = []
            made.append(self.compared)

        def pairs(self) -> Any:
            found = super().pairs()
            if found is not None:
                self.compared.append(len(found))
            return found

    return Watched


def run(program: Callable[..., Any], shapes: Sequence[Shape], counts: Sequence[int], security: str, values: Any = None):
    """Run a program on tables of such shapes; return the outcome, and the comparisons of every sort by level."""
    columns = [
        {name: ((values or {}).get(name, list(range(rows))), width) for name, width in shape.items()}
        for shape, rows in zip(shapes, counts, strict=True)
    ]
    given = [tables(spec, security, seed) for seed, spec in enumerate(columns)]
    made: list[list[int]] = []

    def whole(flow):
        party = flow.stage.party
        yield from program(flow, *(parts[party] for parts in given))
        _ = flow.stage  # so that a last barrier is there whatever the program ends with

    with (
        patch.object(sort_quick, "QuickPlan", _watched(sort_quick.QuickPlan, made)),
        patch.object(select_module, "_Plan", _watched(select_module._Plan, made)),
    ):
        out = run_flow(whole, security=security)
    assert not out.errors, out.errors
    assert out.done
    assert made[0::3] == made[1::3] == made[2::3]
    return out, made[0::3]


def assert_cost(out: Outcome, cost: Cost, *, active: bool) -> None:
    rounds, sent = cost.total(active=active)
    assert (out.rounds, out.sent_bytes) == ([rounds] * 3, sent)


def check(
    program: Callable[..., Any],
    formula: Callable[[Price], Cost] | Cost,
    *shapes: Shape,
    count: int | Sequence[int] = 5,
    securities: Sequence[str] = SECURITIES,
    values: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Insist that a program costs what its formula says, in rounds and in bytes of every position, in both kinds of session."""
    counts = [count] * len(shapes) if isinstance(count, int) else list(count)
    for security in securities:
        out, sorts = run(program, shapes, counts, security, values)
        active, unused = security == "active", iter(sorts)
        cost = formula if isinstance(formula, Cost) else formula(Price(active, unused))
        assert next(unused, None) is None
        assert_cost(out, cost, active=active)


def check_circuit(make: Callable[..., Any], circuit: Circuit, *shapes: Shape, count: int = 5) -> None:
    """Insist that a circuit has so many ANDs a value in so many steps."""

    def program(flow, *given):
        yield from evaluate(flow.stage, "circuit", [make(*given)])

    check(program, gates(*circuit, count), *shapes, count=count)
