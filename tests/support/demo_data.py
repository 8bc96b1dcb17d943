"""Small versions of the demo's stores, with canaries: values that must never be seen outside their owner.

`small_stores` writes a few thousand synthetic lines in the demo's shape in well under a second. With canaries, every
owner's books hold a customer and amounts that occur nowhere else; `secrets_of` lists every text and number of the books
that must not leave (customers, line amounts, subtotals in local and group currency), and `find_secrets` searches bytes
or whole folders for them in the encodings a leak would take.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.demo.data import COLUMNS, ENTITIES, PRODUCT_LINES, SEGMENTS, Entity, Store, read_store, write_store
from infra.demo.reference import month_bounds, prior_year
from local_stores.snapshot.local_plan import UnitTable
from mpc_ops.plan.model import Plan

__all__ = ["Canary", "Secrets", "SmallDemo", "find_secrets", "secrets_of", "small_lines", "small_stores", "unit_table"]


@dataclass(frozen=True)
class Canary:
    """A customer and the amounts of one line that exist in one owner's books only."""

    entity: str
    customer: str
    revenue: Decimal
    cost: Decimal


@dataclass(frozen=True)
class SmallDemo:
    stores: list[Store]
    canaries: tuple[Canary, ...]
    periods: tuple[str, ...]


@dataclass(frozen=True)
class Secrets:
    """What must not be found: texts, and integers in minor units (large ones only, so that chance finds nothing)."""

    texts: frozenset[str]
    integers: frozenset[int]
    patterns: frozenset[bytes] = field(repr=False)


def small_lines(
    entity: str, months: Iterable[str], *, seed: int = 7, customers: int = 24, thin: bool = True
) -> pa.Table:
    """Make lines of one entity: `customers` per segment, each buying in most product lines once in every month.

    Args:
        entity: its name seeds the generator, so that entities differ and every call gives the same rows.
        months: month keys.
        seed: changes all figures.
        customers: customers per segment; a leaf then has about three quarters of them.
        thin: let the last segment's last product line have three customers, so that the Gate moves it.
    """
    rng = random.Random(f"{entity}/{seed}")
    rows = []
    invoice = 0
    for month in months:
        first, end = (date.fromisoformat(day) for day in month_bounds(month))
        for segment in SEGMENTS:
            for number in range(customers):
                invoice += 1
                booked = first + timedelta(days=rng.randrange((end - first).days))
                for line_no, product in enumerate(PRODUCT_LINES, start=1):
                    rare = thin and segment == SEGMENTS[-1] and product == PRODUCT_LINES[-1]
                    if number >= 3 if rare else rng.random() < 0.25:
                        continue
                    revenue = Decimal(rng.randrange(1_000_00, 90_000_00)) / 100
                    cost = (revenue * rng.randrange(40, 95) / 100).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
                    customer = f"Customer#{entity}-{segment[:2]}{number:04d}"
                    rows.append(
                        (invoice, line_no, booked, customer, segment, product, rng.randrange(1, 51), revenue, cost)
                    )
    return _table(rows)


def small_stores(
    folder: Path,
    periods: Sequence[str] = ("2026-03",),
    *,
    entities: Sequence[Entity] = ENTITIES,
    seed: int = 7,
    customers: int = 24,
    canaries: bool = True,
) -> SmallDemo:
    """Write one small store per entity below `folder`, covering `periods` and the same months of the prior year."""
    months = sorted({*periods, *map(prior_year, periods)})
    stores, planted = [], []
    for index, entity in enumerate(entities):
        table = small_lines(entity.name, months, seed=seed, customers=customers)
        if canaries:
            canary = Canary(
                entity.name,
                f"Canary#{entity.name}-7f3a9c51e2",
                Decimal(f"736{index}592.47"),
                Decimal(f"528{index}614.89"),
            )
            rows = [
                (
                    900_000 + number,
                    1,
                    date.fromisoformat(month_bounds(month)[0]),
                    canary.customer,
                    SEGMENTS[1],
                    PRODUCT_LINES[2],
                    17,
                    canary.revenue,
                    canary.cost,
                )
                for number, month in enumerate(months)
            ]
            table = pa.concat_tables([table, _table(rows)])
            planted.append(canary)
        stores.append(write_store(entity.name, entity.store, table, folder))
    return SmallDemo(stores, tuple(planted), tuple(periods))


def _table(rows: list[tuple[object, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    return pa.Table.from_arrays(
        [pa.array(values, kind.type) for values, kind in zip(columns, COLUMNS, strict=True)], schema=COLUMNS
    )


def unit_table(lines: pa.Table, plan: Plan) -> UnitTable:
    """Return an owner's oracle lines as its local plan gives them: a row per slice, segment, product line and customer."""
    keys = ["slice", "segment", "product_line", "customer"]
    lines = lines.append_column("margin", pc.subtract(lines["revenue"], lines["cost"]))
    sums = lines.group_by(keys).aggregate([("revenue", "sum"), ("margin", "sum"), ("cost", "count")])
    dimensions = tuple(
        np.array(pc.index_in(sums[name], pa.array(plan.domains[name])), np.int64)
        for name in ("segment", "product_line")
    )
    units = sums["customer"].combine_chunks().dictionary_encode().indices
    return UnitTable(
        slices=np.array(pc.index_in(sums["slice"], pa.array(["month", "prior"])), np.int64),
        dimensions=dimensions,
        units=np.array(units, np.int64),
        aggregates={
            "revenue": np.array(sums["revenue_sum"], np.int64),
            "margin": np.array(sums["margin_sum"], np.int64),
            "lines": np.array(sums["cost_count"], np.int64),
        },
    )


def secrets_of(
    stores: Sequence[Store],
    period: str,
    rates: Mapping[str, Mapping[str, Mapping[str, str]]],
    currencies: Mapping[str, str] | None = None,
    *,
    lowest: int = 10_000_000,
) -> Secrets:
    """Collect customers, line amounts and every entity's subtotals (leaf, segment, all) of a month and its prior year.

    Args:
        stores: the owners' books.
        period: month.
        rates: as `infra.demo.reference.rates` returns; subtotals are listed in local and in group currency.
        currencies: currency of each entity, the demo's by default.
        lowest: integers below this (in minor units) are left out: they occur by chance. At least 10^7, since every
            pattern needs eight bytes.
    """
    own = currencies or {e.name: e.currency for e in ENTITIES}
    texts: set[str] = set()
    integers: set[int] = set()
    for store in stores:
        for month in (period, prior_year(period)):
            sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
            for row in read_store(store, *month_bounds(month)).to_pylist():
                texts.add(row["customer_uid"])
                for place in {(row["segment"], row["product_line"]), (row["segment"], ""), ("", "")}:
                    for position, name in enumerate(("revenue_lc", "cost_lc")):
                        sums[place][position] += int(row[name] * 100)
                integers.update((int(row["revenue_lc"] * 100), int(row["cost_lc"] * 100)))
            for revenue, cost in sums.values():
                integers.update((revenue, cost, revenue - cost))
                for at in (month, period):
                    rate = Decimal(rates[at][own[store.entity]]["avg_rate"])
                    amounts = (revenue, cost, revenue - cost)
                    integers.update(int((amount * rate).quantize(Decimal(1), ROUND_HALF_EVEN)) for amount in amounts)
    large = frozenset(value for value in integers if abs(value) >= lowest)
    return Secrets(frozenset(texts), large, frozenset(_patterns(texts, large)))


def _patterns(texts: Iterable[str], integers: Iterable[int]) -> set[bytes]:
    found = {text.encode() for text in texts}
    for value in integers:
        exact = f"{Decimal(value) / 100:.2f}"
        found |= {str(value).encode(), exact.encode(), f"{Decimal(exact):,.2f}".encode()}
        found |= {value.to_bytes(8, order, signed=True) for order in ("little", "big")}
    return found


def find_secrets(where: bytes | Path | Iterable[Path], secrets: Secrets) -> list[str]:
    """Search bytes, a file or all files below folders for secrets. Compressed files must be opened first.

    Returns:
        One line per find (`file: pattern`), sorted; empty if nothing leaked.
    """
    if isinstance(where, bytes):
        return sorted({repr(pattern) for pattern in _hits(where, secrets)})
    roots = [where] if isinstance(where, Path) else list(where)
    files = [
        path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob("*"))) if path.is_file()
    ]
    return sorted({f"{path}: {pattern!r}" for path in files for pattern in _hits(path.read_bytes(), secrets)})


def _keys(data: bytes, offset: int) -> np.ndarray:
    """Read consecutive eight-byte windows of `data` from `offset` on."""
    count = (len(data) - offset) // 8
    return np.frombuffer(data, dtype="<u8", count=max(count, 0), offset=offset if count > 0 else 0)


def _slot(keys: np.ndarray) -> np.ndarray:
    return ((keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(42)).astype(np.int64)


def _hits(data: bytes, secrets: Secrets) -> set[bytes]:
    """Find patterns by the window of their last eight bytes: one table look-up per byte, then an exact comparison."""
    by_tail: dict[bytes, list[bytes]] = defaultdict(list)
    for pattern in secrets.patterns:
        by_tail[pattern[-8:]].append(pattern)
    table = np.zeros(1 << 22, dtype=bool)
    table[_slot(_keys(b"".join(by_tail), 0))] = True
    found = set()
    for offset in range(8):
        for window in np.flatnonzero(table[_slot(_keys(data, offset))]):
            end = offset + 8 * (int(window) + 1)
            for pattern in by_tail.get(data[end - 8 : end], ()):
                start = end - len(pattern)
                if start >= 0 and data[start:end] == pattern and not _inside_a_number(data, start, end):
                    found.add(pattern)
    return found


def _inside_a_number(data: bytes, start: int, end: int) -> bool:
    """Tell whether decimal digits are part of something longer, such as a digest in hex."""
    text = data[start:end]
    if not text.strip(b"-,.0123456789"):
        return data[max(start - 1, 0) : start].isalnum() or data[end : end + 1].isalnum()
    return False
