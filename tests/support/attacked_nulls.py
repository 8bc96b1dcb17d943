"""Programs over tables with NULLs and dead rows, and groups of a tiny domain, for the adversary. Part of the registry `attacked`.

Cases of a program differ in what stands behind NULLs and in dead rows; those keep the relative order of all rows.
"""

from __future__ import annotations

from dataclasses import replace

from mpc_ops.protocol.relational.domain_groups import domain_groups
from mpc_ops.protocol.relational.groups import VALID, Aggregate, group_by
from mpc_ops.protocol.relational.joins import HAS_FOREIGN, HAS_PRIMARY, join
from mpc_ops.protocol.relational.ordered import Key
from mpc_ops.protocol.relational.sets import intersection, open_intersection
from tests.support.attacked_tables import in_some_order, program

__all__ = ["NULLS"]


def _groups(flow, rows):
    wanted = [Aggregate("most", "max", "size", "has")]
    found = yield from group_by(flow, rows, [Key("key", "ok")], wanted, live="live", bound=3)
    return (yield from flow.open([found.rows.columns[name] for name in ("ok", "most", "most_valid", VALID)]))


# The group of NULL keys first, then that of key 1, whose second row has no size.
NULL_KEYS = program(
    "group by NULL keys",
    (
        ([1, 3, 1, 2], [1, 0, 1, 1], [2, 3, 1, 3], [1, 1, 0, 1], [1, 1, 1, 0]),
        ([1, 0, 1, 3], [1, 0, 1, 1], [2, 3, 0, 0], [1, 1, 0, 1], [1, 1, 1, 0]),
    ),
    [{"key": 2, "ok": 1, "size": 2, "has": 1, "live": 1}],
    _groups,
    lambda *_: [[0, 1, 0], [3, 2, 0], [1, 1, 0], [1, 1, 0]],
)


def _domain(flow, rows):
    found, over = yield from domain_groups(flow, rows.bits("key"), rows.bits("live"), [None, rows.ring("amount")], 1)
    return (yield from flow.open([*(found.columns[name] for name in ("key", "sum0", "sum1", VALID)), over]))


# Two groups, of which the bound lets the first pass.
DOMAIN_GROUPS = program(
    "group by tiny domain",
    (([1, 0, 1], [1, 1, 0], [5, 7, 6]), ([1, 0, 0], [1, 1, 0], [4, 7, 9])),
    [{"key": 1, "live": 1, "amount": 0}],
    _domain,
    lambda *_: [[0], [1], [7], [1], [1]],
)


def _full(flow, primary, foreign):
    keys = [(Key("id", "iv"), Key("ref", "rv"))]
    found = yield from join(flow, primary, foreign, keys, ["rate"], kind="full", foreign_live="live")
    return (yield from flow.open([found.rows.bits(name) for name in (VALID, HAS_PRIMARY, HAS_FOREIGN, "rate")]))


# Three primary rows, of which the second has a partner, then the foreign ones.
FULL = replace(
    program(
        "full join",
        (
            ([1, 2, 3], [1, 1, 0], [5, 6, 7], [2, 1], [1, 0], [1, 1]),
            ([0, 2, 2], [1, 1, 0], [5, 6, 7], [2, 0], [1, 0], [1, 1]),
        ),
        [{"id": 2, "iv": 1, "rate": 3}, {"ref": 2, "rv": 1, "live": 1}],
        _full,
        lambda *_: [[1, 0, 1, 1, 1], [1, 1, 1, 1, 0], [0, 0, 0, 1, 1], [5, 6, 7, 6, 0]],
    ),
    public=in_some_order,
)


def _sets(flow, left, right):
    keys = [(Key("id", "ok"), Key("id"))]
    found = yield from intersection(flow, left, right, keys, ["amount"], ascending=True)
    size, sums = yield from open_intersection(flow, found)
    return [size, sums["amount"]]


SETS_WITH_NULLS = program(
    "intersection with NULLs",
    (([1, 2, 3], [1, 1, 0], [4, 5, 6], [2, 3]), ([0, 2, 0], [1, 1, 0], [1, 5, 9], [2, 3])),
    [{"id": 2, "ok": 1, "amount": 0}, {"id": 2}],
    _sets,
    lambda *_: [1, 5],
)

NULLS = [NULL_KEYS, DOMAIN_GROUPS, FULL, SETS_WITH_NULLS]
