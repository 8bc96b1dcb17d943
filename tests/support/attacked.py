"""The registry of programs that the adversary attacks. A new protocol joins with one entry in `PROGRAMS`.

All cases of a program have one shape and the same outputs, so that their transcripts must look alike.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from mpc_ops.protocol.circuits import compare as cmp
from mpc_ops.protocol.circuits.boolean import evaluate, mux
from mpc_ops.protocol.circuits.convert import inject_sums, ring_to_bits, values_to_ring
from mpc_ops.protocol.circuits.counters import bits_to_counters, multiply_counters
from mpc_ops.protocol.circuits.products import dots, fresh, multiply
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.opening import open_to, open_to_all
from mpc_ops.protocol.core.party import together
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.order.shuffle import shuffle
from tests.support.active import share_bits, share_ring
from tests.support.adversary import Program
from tests.support.attacked_nulls import NULLS
from tests.support.attacked_primitives import PRIMITIVES
from tests.support.attacked_relational import RELATIONAL
from tests.support.attacked_resumed import CHECKPOINT
from tests.support.attacked_tables import TABLES

M = 1 << 64


def _bits(values: Sequence[int], width: int, seed: object, name: str):
    return share_bits(values, width, seed, random.Random(f"{seed}/{name}"))


def _ring(values: Sequence[int], seed: object, name: str):
    return share_ring(values, seed, random.Random(f"{seed}/{name}"))


# -------------------------------------------------------------------------------- AND, comparison, mux; two small batches


def _logic(session, shares):
    x, y = shares
    stage = session.stage("logic")

    def circuit():
        bit = yield from cmp.less(x, y)
        return bit, (yield from mux(bit, x, y))

    ((bit, low),) = yield from evaluate(stage, "c", [circuit()])
    (same,) = yield from evaluate(stage, "e", [cmp.equal(low, y)])
    token = yield from stage.barrier()
    return (yield from open_to_all(stage, token, [bit, same]))


LOGIC = Program(
    "logic",
    (([0, 1, 5, 7, 3], [1, 1, 2, 7, 4]), ([6, 4, 3, 0, 1], [7, 4, 1, 0, 3])),
    lambda values, seed: [_bits(values[0], 3, seed, "x"), _bits(values[1], 3, seed, "y")],
    _logic,
    lambda values, _: [
        [int(a < b) for a, b in zip(*values, strict=True)],
        [int(min(a, b) == b) for a, b in zip(*values, strict=True)],
    ],
    limit_bytes=4 * 64,
)

# ----------------------------------------------------------------------------------------------- products, dot products


def _products(session, shares):
    x, y = shares
    stage = session.stage("products")
    z = yield from multiply(stage, x, y)
    total = yield from dots(stage, x, y, np.array([3], dtype=np.int64))
    z = yield from fresh(stage, z)
    token = yield from stage.barrier()
    return (yield from open_to_all(stage, token, [z, total]))


PRODUCTS = Program(
    "products",
    (([3, 1 << 63, M - 1], [5, 3, M - 1]), ([15, 3, 1], [1, 1 << 63, 1])),
    lambda values, seed: [_ring(values[0], seed, "x"), _ring(values[1], seed, "y")],
    _products,
    lambda values, _: [
        [a * b % M for a, b in zip(*values, strict=True)],
        [sum(a * b for a, b in zip(*values, strict=True)) % M],
    ],
)

# ------------------------------------------------------------------------------------------------ counters over Z_2^32


def _counted(session, shares):
    flags, weights = shares
    stage = session.stage("counters")
    ones = yield from bits_to_counters(stage, flags)
    twos = yield from bits_to_counters(stage, weights)
    both = yield from multiply_counters(stage, ones.plus(ones), twos)
    token = yield from stage.barrier()
    return (yield from open_to_all(stage, token, [both, both.total()]))


COUNTERS = Program(
    "counters",
    (([1, 0, 1, 1, 0], [1, 1, 0, 1, 0]), ([1, 1, 0, 1, 0], [1, 0, 1, 1, 0])),
    lambda values, seed: [_bits(values[0], 1, seed, "f"), _bits(values[1], 1, seed, "w")],
    _counted,
    lambda values, _: [
        [2 * a * b for a, b in zip(*values, strict=True)],
        [sum(2 * a * b for a, b in zip(*values, strict=True))],
    ],
)

# ------------------------------------------------------------------------------------- conversions, opened to one position


def _conversions(session, shares):
    flags, narrow, x = shares
    stage = session.stage("conversions")
    bits = yield from ring_to_bits(stage, x, 4)
    wide = yield from values_to_ring(stage, narrow)
    sums, counts = yield from inject_sums(stage, flags, x, np.array([2, 4], dtype=np.int64))
    token = yield from stage.barrier()
    return (yield from open_to(stage, token, 1, [bits, wide, sums, counts]))


def _conversions_plain(values, position):
    flags, narrow, x = values
    if position != 1:
        return None
    sums = [sum(f * v for f, v in zip(flags[s], x[s], strict=True)) % M for s in (slice(0, 2), slice(2, 4))]
    return [[v % 16 for v in x], list(narrow), sums, [sum(flags[:2]), sum(flags[2:])]]


CONVERSIONS = Program(
    "conversions",
    (([1, 0, 1, 1], [2, 0, 3, 1], [5, 8 + 16, 3, M - 3]), ([1, 0, 1, 1], [2, 0, 3, 1], [5, 8 + 64, 3 + 32, M - 3 - 32])),
    lambda values, seed: [
        _bits(values[0], 1, seed, "f"), _bits(values[1], 2, seed, "n"), _ring(values[2], seed, "x")
    ],
    _conversions,
    _conversions_plain,
)  # fmt: skip

# ------------------------------------------------------- a flow of stages: what was opened decides what the next one does


def _flow(session, shares):
    x, y, amounts = shares
    flow = ActiveFlow(session, "flow")
    (bit,) = yield from evaluate(flow.stage, "c", [cmp.less(x, y)])
    (which,) = yield from flow.open([bit])
    kept = np.flatnonzero(which)
    picked = type(amounts)(amounts.session, amounts.party, amounts.first[kept], amounts.second[kept])
    squares = yield from multiply(flow.stage, picked, picked)
    (opened,) = yield from flow.open([squares])
    (last,) = yield from evaluate(flow.stage, "d", [cmp.equal(x, y)])
    mine = yield from flow.open_to(2, [last])
    _ = yield from multiply(flow.stage, picked, picked)
    yield from flow.finish()
    return [which, opened, mine]


def _flow_plain(values, position):
    x, y, amounts = values
    which = [int(a < b) for a, b in zip(x, y, strict=True)]
    squares = [v * v % M for v, bit in zip(amounts, which, strict=True) if bit]
    last = [[int(a == b) for a, b in zip(x, y, strict=True)]] if position == 2 else None
    return [which, squares, last]


FLOW = Program(
    "flow",
    (([1, 2, 3], [2, 2, 1], [7, 8, 9]), ([0, 1, 2], [3, 1, 0], [7, 3, 4])),
    lambda values, seed: [
        _bits(values[0], 2, seed, "x"), _bits(values[1], 2, seed, "y"), _ring(values[2], seed, "a")
    ],
    _flow,
    _flow_plain,
)  # fmt: skip

# ----------------------------------------- mixed logs in one stage: several batches, proven early, in rounds that are shared


def _batches(session, shares):
    x, y, a = shares
    stage = session.stage("batches")
    (bits,), product, square = yield from together(
        evaluate(stage, "c", [cmp.less(x, y)]), multiply(stage, a, a), dots(stage, a, a, np.array([2], dtype=np.int64))
    )
    early = stage.batches
    ring = yield from values_to_ring(stage, bits)
    token = yield from stage.barrier()
    return [min(early, 1), *(yield from open_to_all(stage, token, [bits, product, square, ring]))]


BATCHES = Program(
    "batches",
    (([1, 6], [5, 2], [3, M - 5]), ([0, 5], [7, 0], [M - 3, 5])),
    lambda values, seed: [
        _bits(values[0], 3, seed, "x"), _bits(values[1], 3, seed, "y"), _ring(values[2], seed, "a")
    ],
    _batches,
    lambda values, _: [
        1,
        [int(u < v) for u, v in zip(*values[:2], strict=True)],
        [v * v % M for v in values[2]],
        [sum(v * v for v in values[2]) % M],
        [int(u < v) for u, v in zip(*values[:2], strict=True)],
    ],
    limit_bytes=4 * 64,
)  # fmt: skip

# ------------------------------------------------------------------------------ shuffle of Boolean and ring columns, opened


def _rows(values, seed):
    return [_bits([key for key, _ in values], 3, seed, "key"), _ring([amount for _, amount in values], seed, "amount")]


def _shuffle(session, shares):
    key, amount = shares
    flow = ActiveFlow(session, "shuffle")
    rows = yield from shuffle(flow, Rows({"key": key, "amount": amount}))
    opened = yield from flow.open([rows.bits("key"), rows.ring("amount")])
    return sorted(zip(*(column.tolist() for column in opened), strict=True))


SHUFFLE = Program(
    "shuffle",
    (tuple((row % 8, row) for row in range(64)), tuple((row % 8, row) for row in reversed(range(64)))),
    _rows,
    _shuffle,
    lambda values, _: sorted(values),
    public=lambda columns: sorted(zip(*columns, strict=True)),  # all rows, in an order that says nothing
)

CORE: dict[str, Program] = {one.name: one for one in (LOGIC, PRODUCTS, COUNTERS, CONVERSIONS, FLOW, BATCHES, SHUFFLE)}
"""Programs that a test run attacks in every way."""
PROGRAMS: dict[str, Program] = {**CORE, **{one.name: one for one in (*TABLES, *RELATIONAL, *NULLS, CHECKPOINT)}}
"""Programs of the core, of tables and of checkpoints."""
ATTACKED: dict[str, Program] = {**PROGRAMS, **{one.name: one for one in PRIMITIVES}}
"""All programs: `make adversary`; all of them have published vectors (`tests/vectors/table_vectors.py`)."""
LARGE = ("join many", "join many, one pair", "quantile")
"""Programs whose runs take long: left out of a test run."""
SMALLER = {"join many": "join many, one pair"}
"""Programs that another one stands for, which has messages of the same forms on fewer rows, unless all changes are played."""
