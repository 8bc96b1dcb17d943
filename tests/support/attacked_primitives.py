"""Programs of single primitives for the adversary: comparisons with zero and public values, squares, injection, exact division,
operators' own inputs, what an operator on tables offers besides, a Gate that counts owners and totals. Part of the registry
`attacked`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.compare import greater_equal_public, is_zero, less_equal_public
from mpc_ops.protocol.circuits.convert import inject
from mpc_ops.protocol.circuits.counts import count_planes
from mpc_ops.protocol.circuits.divide import divide_bits, truncate
from mpc_ops.protocol.circuits.products import multiply, square
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.own_input import input_of_all
from mpc_ops.protocol.core.party import together
from mpc_ops.protocol.disclosure.gate import GateInput, GateTerms, gate
from mpc_ops.protocol.order.shuffle import partition
from mpc_ops.protocol.relational.groups import VALID, distinct
from mpc_ops.protocol.relational.joins import join, require_unique
from mpc_ops.protocol.relational.many import join_many, require_bound
from mpc_ops.protocol.relational.ordered import Key
from mpc_ops.protocol.relational.sets import intersection_size, open_intersection
from tests.support.active import share_ring
from tests.support.adversary import Program
from tests.support.attacked_tables import in_some_order, program
from tests.support.region_gate import Slice, clear_lanes, share_members

M = 1 << 64


def _compared(flow, rows):
    x = rows.bits("x")
    circuits = [less_equal_public(x, 4), greater_equal_public(x, 4), is_zero(rows.ring("y"), 3), count_planes(x)]
    found = yield from evaluate(flow.stage, "c", circuits)
    return (yield from flow.open(found))


COMPARED = program(
    "public comparisons", (([1, 4, 6], [8, 1, 0]), ([2, 4, 5], [16, 3, 0])), [{"x": 3, "y": 0}], _compared,
    lambda x, y: [
        [int(v <= 4) for v in x], [int(v >= 4) for v in x], [int(v % 8 == 0) for v in y], [v.bit_count() for v in x]
    ],
)  # fmt: skip


def _injected(flow, rows):
    squares, kept = yield from together(
        square(flow.stage, rows.ring("x")), inject(flow.stage, rows.bits("flag"), rows.ring("x"))
    )
    return (yield from flow.open([squares, kept]))


INJECTED = program(
    "squares and injection", (([3, 5], [0, 1]), ([M - 3, 5], [0, 1])), [{"x": 0, "flag": 1}], _injected,
    lambda x, flags: [[v * v % M for v in x], [f * v for f, v in zip(flags, x, strict=True)]],
)  # fmt: skip


def _exact(flow, rows):
    low, (whole, rest) = yield from together(
        truncate(flow.stage, rows.ring("x"), 2), divide_bits(flow.stage, rows.bits("a"), rows.bits("b"))
    )
    return (yield from flow.open([low, whole, rest]))


EXACT = program(
    "exact division", (([M - 5, 7], [3, 4], [2, 2]), ([M - 6, 5], [4, 6], [3, 3])), [{"x": 0, "a": 3, "b": 2}], _exact,
    lambda x, a, b: [
        [M - 2, 1], [v // by for v, by in zip(a, b, strict=True)], [v % by for v, by in zip(a, b, strict=True)]
    ],
)  # fmt: skip

# ------------------------------------------------------------------------------------------- values of the operators


@dataclass(frozen=True)
class OwnValues:
    """What one operator puts in itself: no share, so whatever else it puts in is its right."""

    session: str
    values: tuple[int, ...]


def _own(session, shares):
    (mine,) = shares
    flow = ActiveFlow(session, "own")
    given = yield from input_of_all(flow.stage, np.array(mine.values, dtype=np.uint64), (1, 2, 1))
    # Every value goes through a gate. Opened as it is, another message of its owner would be another input, which is its right:
    # one peer would open that one, and the other would stop, because the owner opened the first.
    ends = yield from multiply(flow.stage, given[0], given[2])
    middle = yield from square(flow.stage, given[1])
    return (yield from flow.open([ends, middle]))


OWN = Program(
    "own inputs",
    (((3,), (5, M - 7), (4,)), ((4,), (M - 5, 7), (3,))),
    lambda inputs, seed: [[OwnValues("", values) for values in inputs]],
    _own,
    lambda inputs, _: [[inputs[0][0] * inputs[2][0]], [value**2 % M for value in inputs[1]]],
)

# ---------------------------------------------------------------------------------------- single operators on tables


def _partition(flow, rows):
    parted = yield from partition(flow, rows, "bit")
    return (yield from flow.open([parted.ring("amount")]))


PARTITION = replace(
    program(
        "partition", (([1, 0, 1], [7, 8, 9]), ([0, 1, 1], [8, 7, 9])), [{"bit": 1, "amount": 0}], _partition,
        lambda bits, amounts: [[a for want in (0, 1) for bit, a in zip(bits, amounts, strict=True) if bit == want]],
    ),
    public=in_some_order,
)  # fmt: skip


def _distinct(flow, rows):
    found = yield from distinct(flow, rows, [Key("key")], live="live", bound=2)
    return (yield from flow.open([found.rows.bits("key"), found.rows.bits(VALID), found.overflow]))


DISTINCT = program(
    "distinct", (([1, 0, 1, 0], [1, 0, 1, 1]), ([0, 1, 1, 1], [1, 1, 0, 1])), [{"key": 1, "live": 1}], _distinct,
    lambda *_: [[0, 1], [1, 1], [0]],
)  # fmt: skip


def _size(flow, left, right):
    found = yield from intersection_size(flow, left, right, "id")
    return (yield from open_intersection(flow, found))


SIZE = program("intersection size", (([2, 1], [2]), ([3, 0], [3])), [{"id": 2}] * 2, _size, lambda *_: [1, {}])


def _unique(flow, primary, foreign):
    found = yield from join(flow, primary, foreign, [(Key("id"), Key("ref"))], ["rate"], unique="secret")
    yield from require_unique(flow, found)
    return (yield from flow.open([found.rows.bits("rate"), found.rows.bits(VALID)]))


UNIQUE = program(
    "join with unique keys", (([1, 3], [2, 1], [3]), ([0, 2], [2, 1], [2])), [{"id": 2, "rate": 2}, {"ref": 2}], _unique,
    lambda *_: [[1], [1]],
)  # fmt: skip


def _one_pair(flow, left, right):
    found = yield from join_many(flow, left, right, [(Key("id"), Key("ref"))], [], bound=1)
    yield from require_bound(flow, found)
    return (yield from flow.open([found.rows.ring("amount"), found.rows.bits(VALID)]))


# Without a payload: what fetches it is a sort, a spread and a move as there are before.
ONE_PAIR = program(
    "join many, one pair", (([1], [5], [1]), ([0], [5], [0])), [{"id": 1, "amount": 0}, {"ref": 1}], _one_pair,
    lambda _ids, amounts, _refs: [list(amounts), [1]],
)  # fmt: skip

# ------------------------------------------------------------------------- a Gate that counts owners, and units of totals

OWNERS_TERMS = GateTerms(domains=(("a",), ("x", "y", "z")), k=2, min_owners=2, counts=True, totals=True)
Unit = tuple[int, int, int, int]
"""Owner, unit, second dimension's value, measure."""


def _slice(units: tuple[Unit, ...]) -> Slice:
    return Slice(
        OWNERS_TERMS.domains, 2, 1, [(owner, unit, (0, place), (value,)) for owner, unit, place, value in units]
    )


def _share_owners(units: tuple[Unit, ...], seed: object) -> list[Any]:
    one = _slice(units)
    members = [share_members(one.table(owner), seed, random.Random(f"{seed}/{owner}")) for owner in range(2)]
    return [*members, share_ring(one.values(), seed, random.Random(f"{seed}/values"))]


def _owners_gate(session, shares):
    *members, measures = shares
    flow = ActiveFlow(session, "owners")
    (out,) = yield from gate(flow.stage, [GateInput(members=members, measures=measures)], OWNERS_TERMS)
    return (yield from flow.open([out.values, out.counts]))


OWNERS = Program(
    "gate of owners",
    # Cell x has units of both owners; y has two of one owner and z one of the other, so both move to the cell above.
    (
        ((0, 0, 0, 5), (1, 0, 0, 6), (0, 1, 1, 7), (0, 2, 1, 8), (1, 1, 2, 9)),
        ((1, 2, 0, 5), (0, 2, 0, 6), (1, 1, 2, 8), (1, 0, 2, 7), (0, 1, 1, 9)),
    ),
    _share_owners,
    _owners_gate,
    lambda units, _: list(clear_lanes(_slice(units), k=2, min_owners=2)),
)


PRIMITIVES = [COMPARED, INJECTED, EXACT, OWN, PARTITION, DISTINCT, SIZE, UNIQUE, ONE_PAIR, OWNERS]
