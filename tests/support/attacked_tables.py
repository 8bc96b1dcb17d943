"""Programs over tables for the adversary: sorts, groups, joins, sets, the Gate, division. Part of the registry `attacked`.

Cases of a program differ only in what its outputs do not tell: sorts of random shape get rows in the same relative order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mpc_ops.protocol.circuits.convert import ring_to_bits
from mpc_ops.protocol.circuits.dabits import bits_to_ring_with, make_dabits
from mpc_ops.protocol.circuits.divide import divide_public, divide_shared
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.disclosure.gate import GateInput, GateTerms, gate
from mpc_ops.protocol.disclosure.suppress import SuppressTerms, suppress
from mpc_ops.protocol.order.merge import merge_sorted
from mpc_ops.protocol.order.select import quantile, select
from mpc_ops.protocol.order.shuffle import compact
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.relational.groups import Aggregate, group_by
from mpc_ops.protocol.relational.joins import join
from mpc_ops.protocol.relational.many import join_many
from mpc_ops.protocol.relational.ordered import Key
from mpc_ops.protocol.relational.sets import intersection, open_intersection
from mpc_ops.protocol.relational.small_domain import domain_sums
from tests.support.active import share_bits, share_ring
from tests.support.adversary import Program
from tests.support.region_gate import share_members

M = 1 << 64
Spec = Mapping[str, int]
"""Column name to its width in bits, 0 for Z_2^64."""


def tables(*specs: Spec) -> Callable[[Any, object], list[Any]]:
    """Share the columns of tables: inputs are one list of values per column, tables after one another."""

    def share(inputs: Any, seed: object) -> list[Any]:
        out, columns = [], iter(inputs)
        for number, spec in enumerate(specs):
            for name, width in spec.items():
                values, rng = next(columns), random.Random(f"{seed}/{number}/{name}")
                out.append(share_bits(values, width, seed, rng) if width else share_ring(values, seed, rng))
        return out

    return share


def program(name: str, cases: Sequence[Any], specs: Sequence[Spec], steps: Callable, plain: Callable) -> Program:
    """A program whose steps get a flow and its tables: (flow, *tables)."""

    def whole(session, shares):
        flow, columns = ActiveFlow(session, name), iter(shares)
        given = [Rows({column: next(columns) for column in spec}) for spec in specs]
        result = yield from steps(flow, *given)
        yield from flow.finish()
        return result

    names = tuple(f"{number}.{column}" for number, spec in enumerate(specs) for column in spec)
    return Program(
        name,
        tuple(cases),
        tables(*specs),
        whole,
        lambda inputs, _: plain(*inputs),
        ragged=("shuffle-", "dabits"),
        names=names,
    )


def in_some_order(columns: Sequence[Any]) -> list[Any]:
    """What is public of an opening whose values stand in a uniformly random order, for inputs of which this order differs."""
    return [sorted(column) for column in columns]


def _sort(flow, rows):
    ordered = yield from sort(flow, rows, [SortKey("key")])
    return (yield from flow.open([ordered.ring("amount")]))


def _by_key(keys: Sequence[int], amounts: Sequence[int]) -> list[list[int]]:
    return [[amount for _, amount in sorted(zip(keys, amounts, strict=True), key=lambda row: row[0])]]


SORTS = [
    program(
        "sort by comparison", (([9, 30, 4], [1, 2, 3]), ([8, 29, 3], [1, 2, 3])), [{"key": 5, "amount": 0}], _sort, _by_key
    ),
    program("sort by digits", (([2, 0, 3], [1, 2, 3]), ([1, 0, 2], [1, 2, 3])), [{"key": 2, "amount": 0}], _sort, _by_key),
]  # fmt: skip


def _compact(flow, rows):
    kept = yield from compact(flow, rows, "keep", size=2)
    return (yield from flow.open([kept.ring("amount")]))


COMPACT = program(
    "compact", (([0, 1, 1], [7, 8, 9]), ([0, 1, 1], [1, 8, 9])), [{"keep": 1, "amount": 0}], _compact,
    lambda keep, amounts: [[amount for flag, amount in zip(keep, amounts, strict=True) if flag]],
)  # fmt: skip


def _merge(flow, one, other):
    merged = yield from merge_sorted(flow, [one, other], [SortKey("key")])
    return (yield from flow.open([merged.ring("amount")]))


MERGE = program(
    "merge", (([3, 9], [1, 2], [4], [3]), ([2, 8], [1, 2], [7], [3])), [{"key": 4, "amount": 0}] * 2, _merge,
    lambda keys, amounts, more, others: _by_key([*keys, *more], [*amounts, *others]),
)  # fmt: skip


def _groups(flow, rows):
    found = yield from group_by(
        flow, rows, [Key("key")], [Aggregate("n", "count"), Aggregate("total", "sum", "amount")]
    )
    return (yield from flow.open([found.rows.ring("n"), found.rows.ring("total")]))


GROUPS = program(
    "group by", (([1, 0, 1], [5, 7, 6]), ([2, 1, 2], [4, 7, 7])), [{"key": 2, "amount": 0}], _groups,
    lambda keys, amounts: [[1, 2, 0], [amounts[1], amounts[0] + amounts[2], 0]],
)  # fmt: skip


def _join(flow, primary, foreign):
    found = yield from join(flow, primary, foreign, [(Key("id"), Key("ref"))], ["rate"])
    return (yield from flow.open([found.rows.bits("rate"), found.rows.ring("amount")]))


JOIN = program(
    "join", (([1, 3], [5, 6], [3, 1], [7, 8]), ([0, 2], [5, 6], [2, 0], [7, 8])),
    [{"id": 2, "rate": 3}, {"ref": 2, "amount": 0}], _join,
    lambda ids, rates, refs, amounts: [[dict(zip(ids, rates, strict=True))[ref] for ref in refs], list(amounts)],
)  # fmt: skip


def _many(flow, left, right):
    found = yield from join_many(flow, left, right, [(Key("id"), Key("ref"))], ["amount"], bound=2)
    flag, amounts = yield from flow.open([found.exceeded, found.rows.bits("amount")])
    return [flag, sorted(amounts.tolist())]


MANY = program(
    "join many", (([1], [1, 1], [5, 6]), ([0], [0, 0], [5, 6])), [{"id": 2}, {"ref": 2, "amount": 3}], _many,
    lambda ids, refs, amounts: [[0], sorted(amounts)],
)  # fmt: skip


def _sets(flow, left, right):
    found = yield from intersection(flow, left, right, [(Key("id"), Key("id"))], ["amount"], ascending=True)
    size, sums = yield from open_intersection(flow, found)
    return [size, sums["amount"]]


SETS = program(
    "intersection", (([1, 2], [4, 5], [2, 3]), ([0, 3], [1, 5], [2, 3])), [{"id": 2, "amount": 0}, {"id": 2}], _sets,
    lambda ids, amounts, others: [
        len(set(ids) & set(others)), sum(a for i, a in zip(ids, amounts, strict=True) if i in others)
    ],
)  # fmt: skip

# ------------------------------------------------------------------------------------------------------ Gate, suppression

GATE_TERMS = GateTerms(domains=(("a", "b", "c"),), k=2, counts=True)


def _share_gate(inputs: Any, seed: object) -> list[Any]:
    """Membership as a table of 64 padded units by leaf cell, and one measure of every cell."""
    members, values = inputs
    table = np.array(members, dtype=np.uint64)
    return [
        share_members(table, seed, random.Random(f"{seed}/members")),
        share_ring(values, seed, random.Random(f"{seed}/values")),
    ]


def _gate(session, shares):
    members, measures = shares
    flow = ActiveFlow(session, "gate")
    (out,) = yield from gate(flow.stage, [GateInput(members=[members], measures=measures)], GATE_TERMS)
    return (yield from flow.open([out.values, out.counts]))


GATE = Program(
    "gate",
    (
        ([[1, 1, 1, 0], [0, 0, 0, 1], [1, 0, 1, 0]], [10, 5, 3]),
        ([[1, 1, 0, 1], [0, 0, 1, 0], [1, 1, 0, 0]], [10, 5, 3]),
    ),
    _share_gate,
    _gate,
    # Cell b has one unit: it moves to the not-allocated cell, which is as small, so the smallest other cell, c, goes as well.
    lambda _inputs, _position: [[10, 0, 0, 8], [3, 0, 0, 3]],
)


def _suppress(flow, rows, totals):
    terms = SuppressTerms(min_units=2, covers=((0, 1),))
    found = yield from suppress(flow.stage, rows.bits("units"), None, totals.ring("values"), terms)
    return (yield from flow.open([found.publish, found.values]))


SUPPRESS = program(
    "suppress", (([1, 3, 2], [4, 5, 6, 9]), ([1, 2, 3], [3, 5, 6, 9])), [{"units": 2}, {"values": 0}], _suppress,
    lambda units, values: [[0, 1, 1, 0], [0, values[1], values[2], 0]],
)  # fmt: skip

# ----------------------------------------------------------------------------------------- division, tiny domains, daBits


def _divide(flow, rows):
    quotient = yield from divide_public(flow.stage, rows.ring("x"), 3)
    nearest = yield from divide_public(flow.stage, rows.ring("x"), 3, rounding="half_even")
    ratio, known = yield from divide_shared(
        flow.stage, rows.ring("small"), rows.ring("by"), widths=(3, 2), rounding="half_even"
    )
    return (yield from flow.open([quotient, nearest, ratio, known]))


DIVIDE = program(
    "divide", (([7, M - 9], [6, 5], [3, 0]), ([6, M - 8], [4, 7], [2, 0])), [{"x": 0, "small": 0, "by": 0}], _divide,
    lambda x, small, by: [[2, M - 3], [2, M - 3], [2, 0], [1, 0]],
)  # fmt: skip


def _domain(flow, rows):
    sums = yield from domain_sums(flow.stage, rows.bits("key"), [rows.ring("amount")], count=True)
    return (yield from flow.open([*sums.sums, sums.count]))


DOMAIN = program(
    "tiny domain", (([1, 0, 1], [5, 7, 6]), ([1, 1, 0], [4, 7, 7])), [{"key": 1, "amount": 0}], _domain,
    lambda keys, amounts: [
        [sum(a for k, a in zip(keys, amounts, strict=True) if k == v) for v in (0, 1)], [keys.count(0), keys.count(1)]
    ],
)  # fmt: skip


def _dabits(session, shares):
    (bit,) = shares
    first = session.stage("supply")
    supply = yield from make_dabits(first, 3)
    yield from first.barrier()
    first.close()
    second = session.stage("use")
    ring = yield from bits_to_ring_with(second, supply, bit)
    low = yield from ring_to_bits(second, ring, 3)
    flow = ActiveFlow(session, "rest")
    yield from second.barrier()
    second.close()
    return (yield from flow.open([ring, low]))


DABITS = Program(
    "daBits", (([1, 0, 1],), ([1, 0, 1],)), tables({"bit": 1}), _dabits, lambda inputs, _: [list(inputs[0]), list(inputs[0])],
    ragged=("dabits",),
)  # fmt: skip


def _select(flow, rows):
    found = yield from select(flow, rows, [SortKey("key", descending=True, valid="ok")], (3, 0))
    return (yield from flow.open([found.ring("amount")]))


SELECT = program(
    "ranks", (([5, 1, 3, 7], [1, 1, 1, 0], [10, 20, 30, 40]), ([6, 0, 2, 7], [1, 1, 1, 0], [10, 20, 30, 40])),
    [{"key": 3, "ok": 1, "amount": 0}], _select, lambda keys, ok, amounts: [[amounts[3], amounts[0]]],
)  # fmt: skip


def _quantile(flow, rows):
    found, some = yield from quantile(flow, rows, SortKey("key", valid="ok"), ["amount", "note"], (1, 2))
    return (yield from flow.open([found.ring("amount"), found.bits("note"), some]))


QUANTILE = program(
    "quantile", (([5, 1, 3], [1, 1, 1], [10, 20, 30], [1, 2, 3]), ([4, 1, 3], [1, 1, 1], [11, 21, 30], [0, 1, 3])),
    [{"key": 3, "ok": 1, "amount": 0, "note": 2}], _quantile, lambda keys, ok, amounts, notes: [[amounts[2]], [notes[2]], [1]],
)  # fmt: skip

TABLES = [*SORTS, COMPACT, MERGE, GROUPS, JOIN, MANY, SETS, GATE, SUPPRESS, DIVIDE, DOMAIN, DABITS, SELECT, QUANTILE]
