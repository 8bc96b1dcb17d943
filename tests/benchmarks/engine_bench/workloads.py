"""The workloads: plaintext columns, their sharing, the protocol, the plaintext answer.

Every workload is a small function over a `Flow`, so the same code runs passively and actively. Inputs are already shared when
the clock starts, except in W7, which measures the sharing too; outputs are opened to all three before it stops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc_ops.protocol.circuits.boolean import Circuit, evaluate
from mpc_ops.protocol.circuits.compare import is_zero, negative
from mpc_ops.protocol.circuits.counts import popcount
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.own_input import input_of_all
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Rows, stack_columns
from mpc_ops.protocol.core.shares import BooleanPlanes, RingVector, and_public, boolean_of, ring_of
from mpc_ops.protocol.order.select import select
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.relational.groups import Aggregate, group_by
from mpc_ops.protocol.relational.ordered import Key, same_as_next
from mpc_ops.protocol.relational.small_domain import domain_sums
from mpc_ops.ring import RingArray
from mpc_ops.ring.planes import tail_mask, to_planes

__all__ = ["FEWER_ROUNDS", "WORKLOADS", "Column", "Pivots", "Workload", "components", "lookup", "share_of"]

Plain = Mapping[str, RingArray]
Shares = Mapping[str, Any]
Answer = list[RingArray]


@dataclass(frozen=True)
class Column:
    """A plaintext column and how it is shared.

    Attributes:
        values: shape (n,), uint64.
        width: 0 for shares over Z_2^64, else Boolean shares of that many bits.
        secret: False for columns that each owner (position) knows in the clear: nothing is shared beforehand.
    """

    values: RingArray
    width: int = 0
    secret: bool = True


@dataclass(frozen=True)
class Workload:
    """One workload.

    Attributes:
        name: as in the tables, for example `W1`.
        title: what it does.
        rows: usual size.
        key_bits: width of the keys or values.
        columns: plaintext columns for n rows, from a seeded generator.
        program: the protocol; returns opened values.
        answer: the same from the plaintext.
    """

    name: str
    title: str
    rows: int
    key_bits: int
    columns: Callable[[int, np.random.Generator], dict[str, Column]]
    program: Callable[[Flow, Shares], Steps[Answer]]
    answer: Callable[[Plain], Answer]


def share_of(columns: Mapping[str, Column], flow: Flow, parts: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return this position's shares, of the flow's kind, from its two components of every column."""
    out: dict[str, Any] = {}
    for name, column in columns.items():
        first, second = parts[name]
        if not column.secret:
            out[name] = first
        elif column.width:
            out[name] = boolean_of(flow.stage, len(column.values), first, second)
        else:
            out[name] = ring_of(flow.stage, first, second)
    return out


def _uniform(rng: np.random.Generator, count: int, bits: int) -> RingArray:
    return rng.integers(0, 1 << bits, count, dtype=np.uint64)


def _total(share: RingVector) -> RingVector:
    """The share of the sum of all lanes, shape (1,)."""
    return ring_of(share, share.first.sum(keepdims=True), share.second.sum(keepdims=True))


def _count(bit: BooleanPlanes) -> Circuit[BooleanPlanes, BooleanPlanes]:
    """The number of set bits of one plane."""
    words = bit.first.shape[1]
    mask = np.full((1, words), 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    mask[0, -1] = tail_mask(bit.count)
    used = and_public(bit, mask)
    whole = boolean_of_like(used, 64 * words)
    result = yield from popcount(whole)
    return result


def boolean_of_like(share: BooleanPlanes, count: int) -> BooleanPlanes:
    """The same planes as a share of more values (the tail is zero)."""
    return type(share)(share.session, share.party, count, share.first, share.second)


# -------------------------------------------------------------------------------------------------- W1: products


def _pairs(bits: int) -> Callable[[int, np.random.Generator], dict[str, Column]]:
    def columns(count: int, rng: np.random.Generator) -> dict[str, Column]:
        return {"x": Column(_uniform(rng, count, bits)), "y": Column(_uniform(rng, count, bits))}

    return columns


def multiply_and_sum(flow: Flow, shares: Shares) -> Steps[Answer]:
    product = yield from multiply(flow.stage, shares["x"], shares["y"])
    result = yield from flow.open([_total(product)])
    return result


# ------------------------------------------------------------------------- W2, W3: comparisons of shares over Z_2^64


def _close_pairs(count: int, rng: np.random.Generator) -> dict[str, Column]:
    """Pairs of which a third are equal."""
    x, y = _uniform(rng, count, 63), _uniform(rng, count, 63)
    same = rng.random(count) < 1 / 3
    return {"x": Column(x), "y": Column(np.where(same, x, y))}


def less_and_count(flow: Flow, shares: Shares) -> Steps[Answer]:
    def circuit() -> Circuit[BooleanPlanes, BooleanPlanes]:
        bit = yield from negative(shares["x"].minus(shares["y"]))
        result = yield from _count(bit)
        return result

    counts = yield from evaluate(flow.stage, "less", [circuit()])
    result = yield from flow.open(counts)
    return result


def equal_and_count(flow: Flow, shares: Shares) -> Steps[Answer]:
    def circuit() -> Circuit[BooleanPlanes, BooleanPlanes]:
        bit = yield from is_zero(shares["x"].minus(shares["y"]))
        result = yield from _count(bit)
        return result

    counts = yield from evaluate(flow.stage, "equal", [circuit()])
    result = yield from flow.open(counts)
    return result


# ------------------------------------------------------------------------------- W4 to W6: the relational operations

FEWER_ROUNDS = 7
"""Pivots of sorts over a slow link: more comparisons, half the rounds. All three parties use the same number."""
_GROUPS = 100
_SIGNED_BITS = 62
"""Keys of 64-bit columns stay below 2^62, because peers compare signed values by the sign of a difference."""


def _keys(bits: int) -> Callable[[int, np.random.Generator], dict[str, Column]]:
    def columns(count: int, rng: np.random.Generator) -> dict[str, Column]:
        return {"key": Column(_uniform(rng, count, min(bits, _SIGNED_BITS)), bits)}

    return columns


class Pivots:
    """Pivots that sorts of this process take."""

    number = 1


def sort_keys(flow: Flow, shares: Shares) -> Steps[Answer]:
    ordered = yield from sort(flow, Rows({"key": shares["key"]}), [SortKey("key")], pivots=Pivots.number)
    result = yield from flow.open([ordered.bits("key")])
    return result


def _median(count: int) -> int:
    """The rank of the median; of an even number the lower one."""
    return (count - 1) // 2


def middle(flow: Flow, shares: Shares) -> Steps[Answer]:
    rows = Rows({"key": shares["key"]})
    found = yield from select(flow, rows, [SortKey("key")], [_median(rows.count)])
    result = yield from flow.open([found.bits("key")])
    return result


def _unique_sets(bits: int) -> Callable[[int, np.random.Generator], dict[str, Column]]:
    def columns(count: int, rng: np.random.Generator) -> dict[str, Column]:
        """Two sets of n keys each, about a third of them in both."""
        drawn = np.unique(_uniform(rng, 3 * count, min(bits, _SIGNED_BITS)))
        drawn = rng.permutation(drawn)[: 2 * count - count // 3]
        return {"a": Column(drawn[:count].copy(), bits), "b": Column(rng.permutation(drawn[-count:]), bits)}

    return columns


def count_common(flow: Flow, shares: Shares) -> Steps[Answer]:
    both = Rows({"key": stack_columns([shares["a"], shares["b"]])})
    ordered = yield from sort(flow, both, [SortKey("key")], pivots=Pivots.number)

    def circuit() -> Circuit[BooleanPlanes, BooleanPlanes]:
        same = yield from same_as_next(ordered.bits("key"))
        result = yield from _count(same)
        return result

    counts = yield from evaluate(flow.stage, "common", [circuit()])
    result = yield from flow.open(counts)
    return result


def _grouped(bits: int) -> Callable[[int, np.random.Generator], dict[str, Column]]:
    def columns(count: int, rng: np.random.Generator) -> dict[str, Column]:
        keys = rng.choice(1 << bits, _GROUPS, replace=False).astype(np.uint64)
        return {"key": Column(rng.choice(keys, count), bits), "value": Column(_uniform(rng, count, 40))}

    return columns


def sum_by_tiny_key(flow: Flow, shares: Shares) -> Steps[Answer]:
    totals = yield from domain_sums(flow.stage, shares["key"], [shares["value"]])
    result = yield from flow.open(list(totals.sums))
    return result


def sum_by_key(flow: Flow, shares: Shares) -> Steps[Answer]:
    groups = yield from group_by(
        flow, Rows(shares), [Key("key")], [Aggregate("total", "sum", "value")], bound=_GROUPS, pivots=Pivots.number
    )
    result = yield from flow.open([groups.rows.bits("key"), groups.rows.ring("total")])
    return result


def _tiny_totals(plain: Plain) -> Answer:
    totals = np.zeros(1 << 7, dtype=np.uint64)
    np.add.at(totals, plain["key"].astype(np.int64), plain["value"])
    return [totals]


def _totals(plain: Plain) -> Answer:
    keys, group = np.unique(plain["key"], return_inverse=True)
    sums = np.zeros(len(keys), dtype=np.uint64)
    np.add.at(sums, group, plain["value"])
    room = min(_GROUPS, len(plain["key"])) - len(keys)
    return [np.pad(keys, (0, room)), np.pad(sums, (0, room))]


# ---------------------------------------------------------------------------------------- W7: inputs of three owners


def _owned(count: int, rng: np.random.Generator) -> dict[str, Column]:
    return {f"owner{place}": Column(_uniform(rng, len(part), 64), secret=False)
            for place, part in enumerate(np.array_split(np.empty(count, dtype=np.bool_), 3))}  # fmt: skip


def share_and_sum(flow: Flow, shares: Shares) -> Steps[Answer]:
    counts = [len(shares[f"owner{place}"]) for place in range(3)]
    given = yield from input_of_all(flow.stage, shares[f"owner{flow.stage.party}"], counts)
    total = _total(given[0]).plus(_total(given[1])).plus(_total(given[2]))
    result = yield from flow.open([total])
    return result


def _sum(*names: str) -> Callable[[Plain], Answer]:
    return lambda plain: [np.array([sum(int(plain[name].sum()) for name in names) % (1 << 64)], dtype=np.uint64)]


WORKLOADS: dict[str, Workload] = {
    work.name: work
    for work in (
        Workload(
            "W1", "multiply pairs, open the sum", 1_000_000, 64, _pairs(64), multiply_and_sum,
            lambda plain: [(plain["x"] * plain["y"]).sum(keepdims=True)],
        ),
        Workload(
            "W2", "less-than of pairs, open the count", 1_000_000, 64, _pairs(63), less_and_count,
            lambda plain: [np.array([(plain["x"] < plain["y"]).sum()], dtype=np.uint64)],
        ),
        Workload(
            "W3", "equality of pairs, open the count", 1_000_000, 64, _close_pairs, equal_and_count,
            lambda plain: [np.array([(plain["x"] == plain["y"]).sum()], dtype=np.uint64)],
        ),
        *(
            Workload(
                f"W4/{bits}", f"sort {bits}-bit keys", 100_000, bits, _keys(bits), sort_keys,
                lambda plain: [np.sort(plain["key"])],
            )
            for bits in (32, 64)
        ),
        Workload(
            "W4b", "median of 64-bit keys", 100_000, 64, _keys(64), middle,
            lambda plain: [np.sort(plain["key"])[[_median(len(plain["key"]))]]],
        ),
        *(
            Workload(
                f"W5/{bits}", f"intersection size of two sets of {bits}-bit keys", rows, bits, _unique_sets(bits),
                count_common, lambda plain: [np.array([len(np.intersect1d(plain["a"], plain["b"]))], dtype=np.uint64)],
            )
            for bits, rows in ((32, 10_000), (64, 50_000))
        ),
        Workload(
            "W6/7", "group by a 7-bit key, sum", 100_000, 7, _grouped(7), sum_by_tiny_key, _tiny_totals,
        ),
        Workload(
            "W6/32", "group by a 32-bit key, sum", 100_000, 32, _grouped(32), sum_by_key, _totals,
        ),
        Workload(
            "W7", "share, sum and open values of three owners", 10_000_000, 64, _owned, share_and_sum,
            _sum("owner0", "owner1", "owner2"),
        ),
    )
}  # fmt: skip


def lookup(name: str) -> Workload:
    """Return a workload by its key in WORKLOADS."""
    if name not in WORKLOADS:
        raise SystemExit(f"there is no workload {name}; there are {', '.join(WORKLOADS)}")
    return WORKLOADS[name]


def components(column: Column, rng: np.random.Generator, position: int) -> tuple[Any, Any]:
    """Return the two components of a position, from a generator that all three seed alike."""
    if not column.secret:
        return column.values, None
    plain = to_planes(column.values, column.width) if column.width else column.values
    parts = [rng.integers(0, 1 << 64, plain.shape, dtype=np.uint64) for _ in range(2)]
    parts.append(plain ^ parts[0] ^ parts[1] if column.width else plain - parts[0] - parts[1])
    return parts[position], parts[(position + 1) % 3]
