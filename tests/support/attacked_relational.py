"""Programs of relational operators for the adversary: orders within groups, running sums, first rows, rows for one position.

Part of the registry `attacked`. Cases have rows in the same relative order, as in `attacked_tables`.
"""

from __future__ import annotations

from dataclasses import replace

from mpc_ops.protocol.order.sort import SortKey
from mpc_ops.protocol.relational.groups import VALID, Aggregate, group_by
from mpc_ops.protocol.relational.joins import join
from mpc_ops.protocol.relational.ordered import Key
from mpc_ops.protocol.relational.sets import intersection_rows
from mpc_ops.protocol.relational.topk import top_k
from mpc_ops.protocol.relational.windows import Window, windows
from tests.support.attacked_tables import program


def _extremes(flow, rows):
    wanted = [Aggregate(kind, kind, "size", "ok") for kind in ("min", "max", "distinct_count")]
    found = yield from group_by(flow, rows, [Key("key")], wanted, bound=2)
    return (yield from flow.open([found.rows.columns[name] for name in ("min", "max", "max_valid", "distinct_count")]))


EXTREMES = program(
    "group by with NULLs", (([1, 0, 1], [2, 3, 1], [1, 0, 1]), ([2, 1, 2], [2, 0, 1], [1, 0, 1])),
    [{"key": 2, "size": 2, "ok": 1}], _extremes, lambda keys, sizes, ok: [[0, 1], [0, 2], [0, 1], [0, 2]],
)  # fmt: skip


def _running(flow, rows):
    wanted = [Window("sum", "running_sum", "amount"), Window("rank", "rank")]
    out = yield from windows(flow, rows, wanted, [SortKey("day")], partition_by=[Key("key")])
    return (yield from flow.open([out.ring("sum"), out.ring("rank")]))


RUNNING = program(
    "running sums", (([1, 0, 1], [2, 0, 1], [5, 7, 6]), ([2, 1, 2], [3, 0, 2], [5, 7, 6])),
    [{"key": 2, "day": 2, "amount": 0}], _running, lambda keys, days, amounts: [[7, 6, 11], [1, 1, 2]],
)  # fmt: skip


def _semi(flow, primary, foreign):
    found = yield from join(flow, primary, foreign, [(Key("id"), Key("ref", "ok"))], kind="semi")
    return (yield from flow.open([found.rows.bits(VALID)]))


SEMI = program(
    "semi join", (([1, 1], [1, 1], [1, 0]), ([0, 0], [0, 0], [1, 0])), [{"id": 1}, {"ref": 1, "ok": 1}], _semi,
    lambda ids, refs, ok: [list(ok)],
)  # fmt: skip


def _first(flow, rows):
    out = yield from top_k(flow, rows, [SortKey("key", descending=True)], 1, live="live")
    return (yield from flow.open([out.ring("amount"), out.bits(VALID)]))


FIRST = program(
    "first rows", (([1, 3, 2], [1, 0, 1], [5, 6, 7]), ([0, 3, 2], [1, 0, 1], [4, 6, 7])),
    [{"key": 2, "live": 1, "amount": 0}], _first, lambda keys, live, amounts: [[7], [1]],
)  # fmt: skip


def _common(flow, left, right):
    found = yield from intersection_rows(flow, left, right, [(Key("id"), Key("id"))], ["amount"], position=1, bound=1)
    return None if found is None else [found.columns["id"], found.columns["amount"], found.overflow]


COMMON = replace(
    program(
        "common rows", (([2, 1], [4, 5], [2]), ([2, 0], [4, 6], [2])), [{"id": 2, "amount": 0}, {"id": 2}], _common, lambda *_: None
    ),
    plain=lambda _, position: [[2], [4], False] if position == 1 else None,
)  # fmt: skip

RELATIONAL = [EXTREMES, RUNNING, SEMI, FIRST, COMMON]
