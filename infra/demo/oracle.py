"""The plaintext oracle of the demo: one DuckDB query over the union of all owners' books.

It is what nobody in the federation can do, and exists in the demo and the tests alone: it reads every owner's store,
applies the same Gate, translation and totals in SQL, and `exact_match` compares the published table with it to the cent.
It shares no code with the product: the product's Gate works on shares, or on arrays, this one on sets of rows.

An entity's subtotal of a leaf (segment x product line) is translated once, half-even to the cent, before the Gate: of its
revenue, and of its margin (revenue less cost). Totals of amounts and lines are sums of cells; customers are counted distinct
per entity at every level, so a customer of two entities counts as two.

The Gate (unit customer, minimum k customers of m entities), per region, over all its entities together, and slice (the
month; the same month of the prior year). A cell is small if it holds any customer, and fewer than k or those of fewer than m
entities; with m = 1, as in the demo, entities do not matter:

1. a small leaf moves to its segment's *not allocated* cell;
2. a segment's not-allocated cell that is then small moves up to the top's;
3. if the top's is then small, it absorbs the smallest remaining cells (fewest customers, then segment, then product line; a
   segment's not-allocated cell is one of them, with an empty product line) until it is not;
4. a region with fewer than k customers, or customers of fewer than m entities, in the slice contributes nothing to it.

Step 3 needs no loop: cells are ranked, a customer and an entity count at the first rank that brings them in (the top's own at
rank 0), and the running sums over the ranks are the sizes of the union so far; absorption stops at the first rank that reaches
both k and m.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from infra.demo.data import ENTITIES, PRODUCT_LINES, SEGMENTS, Store, read_store
from infra.demo.reference import month_bounds, prior_year

__all__ = [
    "MEASURES",
    "GatedLeaf",
    "OracleRow",
    "differences",
    "exact_match",
    "gate_map",
    "lines_of",
    "published_rows",
    "report",
]

MEASURES = (
    "revenue", "margin", "lines", "customers",
    "revenue_py", "margin_py", "lines_py", "customers_py",
    "revenue_py_cc", "margin_py_cc",
)  # fmt: skip

# In places, the empty name stands for "not allocated" and NULL for a total. No text from data enters any query below.
_GATE_SQL = """
WITH line AS (
  SELECT h.region, l.entity, l.slice, l.segment, l.product_line, l.entity || '/' || l.customer AS unit, l.revenue, l.cost
  FROM lines l JOIN home h USING (entity)
), counted AS (
  SELECT region, slice, segment, product_line, COUNT(DISTINCT unit) AS n, COUNT(DISTINCT entity) AS m FROM line GROUP BY ALL
), first_move AS (
  SELECT l.*, c.n AS leaf_n, CASE WHEN c.n < $k OR c.m < $m THEN '' ELSE l.product_line END AS line_1
  FROM line l JOIN counted c USING (region, slice, segment, product_line)
), in_segment AS (
  SELECT region, slice, segment, COUNT(DISTINCT unit) AS n, COUNT(DISTINCT entity) AS m
  FROM first_move WHERE line_1 = '' GROUP BY ALL
), second_move AS (
  SELECT f.*, CASE WHEN f.line_1 = '' AND (s.n < $k OR s.m < $m) THEN '' ELSE f.segment END AS segment_2
  FROM first_move f LEFT JOIN in_segment s USING (region, slice, segment)
), cell AS (
  SELECT region, slice, segment_2, line_1, COUNT(DISTINCT unit) AS n FROM second_move GROUP BY ALL
), ranked AS (
  SELECT *, CASE WHEN segment_2 = '' THEN 0
            ELSE ROW_NUMBER() OVER (PARTITION BY region, slice, segment_2 = '' ORDER BY n, segment_2, line_1) END AS rank
  FROM cell
), arrives AS (
  SELECT region, slice, entity, unit, MIN(rank) AS rank
  FROM second_move JOIN ranked USING (region, slice, segment_2, line_1) GROUP BY ALL
), at_rank AS (
  SELECT region, slice, rank, 1 AS n, 0 AS m FROM arrives
  UNION ALL SELECT region, slice, MIN(rank), 0, 1 FROM arrives GROUP BY region, slice, entity
), united AS (
  SELECT region, slice, rank, SUM(SUM(n)) OVER (PARTITION BY region, slice ORDER BY rank) AS n,
         SUM(SUM(m)) OVER (PARTITION BY region, slice ORDER BY rank) AS m
  FROM at_rank GROUP BY region, slice, rank
), absorbed AS (
  SELECT region, slice, MIN(rank) AS up_to FROM united
  WHERE n >= $k AND m >= $m AND (region, slice) IN (SELECT (region, slice) FROM cell WHERE segment_2 = '') GROUP BY ALL
), whole AS (
  SELECT region, slice, COUNT(DISTINCT unit) AS n, COUNT(DISTINCT entity) AS m FROM line GROUP BY ALL
), gated AS (
  SELECT m.region, m.entity, m.slice, m.unit, m.revenue, m.cost, m.segment, m.product_line, m.leaf_n,
         CASE WHEN r.rank <= COALESCE(a.up_to, -1) THEN '' ELSE m.segment_2 END AS to_segment,
         CASE WHEN r.rank <= COALESCE(a.up_to, -1) THEN '' ELSE m.line_1 END AS to_line
  FROM second_move m JOIN ranked r USING (region, slice, segment_2, line_1) LEFT JOIN absorbed a USING (region, slice)
  JOIN whole w USING (region, slice) WHERE w.n >= $k AND w.m >= $m
)
"""

_REPORT_SQL = """
, subtotal AS (
  SELECT entity, slice, segment, product_line, to_segment, to_line, COUNT(*) AS n, SUM(revenue) AS revenue, SUM(cost) AS cost
  FROM gated GROUP BY ALL
), translated AS (
  SELECT s.*, gc(s.revenue, own.rate) AS rev, gc(s.revenue - s.cost, own.rate) AS margin,
         gc(s.revenue, cur.rate) AS rev_cc, gc(s.revenue - s.cost, cur.rate) AS margin_cc
  FROM subtotal s JOIN fx own USING (entity, slice) JOIN fx cur ON cur.entity = s.entity AND cur.slice = 'month'
), amount AS (
  SELECT to_segment, to_line, {amounts} FROM translated GROUP BY ROLLUP (to_segment, to_line)
), people AS (
  SELECT to_segment, to_line, {people} FROM (
    SELECT slice, to_segment, to_line, COUNT(DISTINCT unit) AS n FROM gated GROUP BY slice, ROLLUP (to_segment, to_line)
  ) GROUP BY to_segment, to_line
)
SELECT f.segment, f.product_line, {columns}
FROM frame f LEFT JOIN amount a ON a.to_segment IS NOT DISTINCT FROM f.segment AND a.to_line IS NOT DISTINCT FROM f.product_line
LEFT JOIN people p ON p.to_segment IS NOT DISTINCT FROM f.segment AND p.to_line IS NOT DISTINCT FROM f.product_line
ORDER BY f.position
"""

_MOVES_SQL = "SELECT DISTINCT region, slice, segment, product_line, leaf_n, to_segment, to_line FROM gated ORDER BY ALL"

_AMOUNTS = {
    "revenue": ("rev", "month"), "margin": ("margin", "month"), "lines": ("n", "month"),
    "revenue_py": ("rev", "prior"), "margin_py": ("margin", "prior"), "lines_py": ("n", "prior"),
    "revenue_py_cc": ("rev_cc", "prior"), "margin_py_cc": ("margin_cc", "prior"),
}  # fmt: skip
_PEOPLE = {"customers": ("n", "month"), "customers_py": ("n", "prior")}

# amount in minor units x rate in 1e-8, half-even to the minor unit; % follows the dividend's sign, hence the second one.
_GC_MACRO = """
CREATE MACRO gc(amount, rate) AS (
  SELECT q + CASE WHEN 2 * m > 100000000 OR (2 * m = 100000000 AND q % 2 <> 0) THEN 1 ELSE 0 END
  FROM (SELECT (n - m) // 100000000 AS q, m FROM (
    SELECT n, (n % 100000000 + 100000000) % 100000000 AS m FROM (SELECT CAST(amount AS HUGEINT) * CAST(rate AS HUGEINT) AS n)))
)
"""


@dataclass(frozen=True)
class OracleRow:
    """A row of the report: names as printed on the axis, `""` for not allocated, None for a total.

    Attributes:
        segment, product_line: the row's place.
        values: one integer per name of `MEASURES`; amounts in cents of the group currency.
    """

    segment: str | None
    product_line: str | None
    values: Mapping[str, int]


class GatedLeaf(NamedTuple):
    """A leaf of one region and slice (`month` or `prior`) with its number of distinct customers."""

    region: str
    slice: str
    segment: str
    product_line: str
    customers: int


def _frame() -> list[tuple[int, str | None, str | None]]:
    """Every row of the report in printing order, whether or not anything falls into it."""
    rows: list[tuple[str | None, str | None]] = []
    for segment in SEGMENTS:
        rows += [*((segment, line) for line in PRODUCT_LINES), (segment, ""), (segment, None)]
    rows += [("", ""), (None, None)]
    return [(position, *row) for position, row in enumerate(rows)]


def lines_of(stores: Sequence[Store], period: str) -> pa.Table:
    """Return the union of all owners' lines of `period` and its prior year: entity, slice, place, customer, cents."""
    parts = []
    with closing(duckdb.connect()) as db:
        for store in stores:
            for name, month in (("month", period), ("prior", prior_year(period))):
                table = read_store(store, *month_bounds(month))
                db.register("own", table)
                parts.append(
                    db.sql(
                        "SELECT $entity AS entity, $slice AS slice, segment, product_line, customer_uid AS customer, "
                        "CAST(revenue_lc * 100 AS BIGINT) AS revenue, CAST(cost_lc * 100 AS BIGINT) AS cost FROM own",
                        params={"entity": store.entity, "slice": name},
                    ).to_arrow_table()
                )
                db.unregister("own")
    return pa.concat_tables(parts)


def report(
    lines: pa.Table,
    period: str,
    rates: Mapping[str, Mapping[str, Mapping[str, str]]],
    *,
    currencies: Mapping[str, str] | None = None,
    regions: Mapping[str, str] | None = None,
    k: int = 10,
    min_owners: int = 1,
) -> list[OracleRow]:
    """Compute the whole report table of `period` from plaintext.

    Args:
        lines: as `lines_of` returns.
        period: the month, for example `2026-03`.
        rates: `reference.rates()`; needs the month and the same month of the prior year.
        currencies: currency of each entity; the demo's by default.
        regions: region of each entity; by default its jurisdiction.
        k: fewest distinct customers that a cell of a region may stand for.
        min_owners: fewest entities that these customers belong to.

    Returns:
        25 leaves, a not-allocated row and a total per segment, the top's not-allocated row and the grand total.
    """
    own = currencies or {e.name: e.currency for e in ENTITIES}
    months = {"month": period, "prior": prior_year(period)}
    fx = [
        (entity, slot, int(Decimal(rates[month][code]["avg_rate"]).scaleb(8)))
        for entity, code in own.items()
        for slot, month in months.items()
    ]
    pick = "CAST(COALESCE(SUM({0}) FILTER (slice = '{1}'), 0) AS BIGINT) AS {2}"
    query = _GATE_SQL + _REPORT_SQL.format(
        amounts=", ".join(pick.format(*source, name) for name, source in _AMOUNTS.items()),
        people=", ".join(pick.format(*source, name) for name, source in _PEOPLE.items()),
        columns=", ".join(f"COALESCE({name}, 0)" for name in MEASURES),
    )
    with closing(duckdb.connect()) as db:
        db.execute(_GC_MACRO)
        db.execute("CREATE TABLE fx (entity VARCHAR, slice VARCHAR, rate BIGINT)")
        db.executemany("INSERT INTO fx VALUES (?, ?, ?)", fx)
        db.execute("CREATE TABLE frame (position INTEGER, segment VARCHAR, product_line VARCHAR)")
        db.executemany("INSERT INTO frame VALUES (?, ?, ?)", _frame())
        _load(db, lines, regions)
        rows = db.execute(query, {"k": k, "m": min_owners}).fetchall()
    return [OracleRow(row[0], row[1], dict(zip(MEASURES, row[2:], strict=True))) for row in rows]


def _load(db: duckdb.DuckDBPyConnection, lines: pa.Table, regions: Mapping[str, str] | None) -> None:
    homes = regions or {e.name: e.jurisdiction for e in ENTITIES}
    db.execute("CREATE TABLE home (entity VARCHAR, region VARCHAR)")
    db.executemany("INSERT INTO home VALUES (?, ?)", list(homes.items()))
    db.register("lines", lines)


def gate_map(
    lines: pa.Table, k: int = 10, *, regions: Mapping[str, str] | None = None, min_owners: int = 1
) -> dict[GatedLeaf, tuple[str, str]]:
    """Tell where each leaf's lines went: itself, `(segment, "")` or `("", "")`; leaves of dropped regions are absent.

    For the people who test the demo: nobody in the federation learns which cell moved.
    """
    query = _GATE_SQL + _MOVES_SQL
    with closing(duckdb.connect()) as db:
        _load(db, lines, regions)
        rows = db.execute(query, {"k": k, "m": min_owners}).fetchall()
    return {GatedLeaf(*row[:5]): (row[5], row[6]) for row in rows}


def published_rows(path: Path) -> dict[tuple[str | None, str | None], dict[str, int]]:
    """Read a published `result.parquet` as `{(segment, product_line): {measure: integer}}`, places as in `OracleRow`."""
    rows = {}
    for record in pq.read_table(path).to_pylist():
        segment, line, level = record["segment"], record["product_line"], record["level"]
        if level == "not_allocated":
            segment, line = segment or "", ""
        rows[segment, line] = {name: _minor(record[name]) for name in MEASURES if name in record}
    return rows


def _minor(value: int | Decimal) -> int:
    return int(value * 100) if isinstance(value, Decimal) else value


def differences(
    rows: Sequence[OracleRow], published: Mapping[tuple[str | None, str | None], Mapping[str, int]]
) -> list[str]:
    """Compare a published table with the oracle's.

    Args:
        rows: the oracle's rows.
        published: `{(segment, product_line): {measure: integer}}`, places named as in `OracleRow`.

    Returns:
        One line per difference, naming row and measure but no figure; empty if the two agree exactly.
    """
    found = []
    expected = {(row.segment, row.product_line): row.values for row in rows}
    for place in sorted(expected.keys() | published.keys(), key=repr):
        here, there = expected.get(place), published.get(place)
        if here is None or there is None:
            found.append(
                f"{json.dumps(place)}: row is missing {'in the oracle' if here is None else 'in the published table'}"
            )
            continue
        found += [f"{json.dumps(place)}: {name} differs" for name in MEASURES if here[name] != there.get(name)]
    return found


def exact_match(
    rows: Sequence[OracleRow], published: Mapping[tuple[str | None, str | None], Mapping[str, int]]
) -> bool:
    """Return whether the published table equals the oracle's in every row and measure, to the cent."""
    return not differences(rows, published)
