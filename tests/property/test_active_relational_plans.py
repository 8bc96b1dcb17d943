"""Random plans on shares against the plaintext engine: filter by a join, group, first groups; join, running sums, intersection."""

import random

import duckdb
import pyarrow as pa
import pytest

from mpc_ops.protocol.order.sort import SortKey
from mpc_ops.protocol.relational.groups import VALID, Aggregate, group_by
from mpc_ops.protocol.relational.joins import HAS_PRIMARY, join
from mpc_ops.protocol.relational.ordered import Key
from mpc_ops.protocol.relational.sets import intersection, open_intersection
from mpc_ops.protocol.relational.topk import top_k
from mpc_ops.protocol.relational.windows import Window, windows
from tests.support.active import run_flow, small_proofs
from tests.support.relational import SECURITIES, run_table, tables

MOD = 1 << 64


def nullable(values, marks):
    return pa.array([value if mark else None for value, mark in zip(values, marks, strict=True)], pa.int64())


class Shop:
    """Products with unique ids, and sales of them by several shops, some without product or amount."""

    def __init__(self, seed):
        rng = self.rng = random.Random(seed)
        self.bits = rng.choice([4, 9, 33])
        products, sales = rng.choice([(0, 5), (1, 1), (6, 40), (12, 70), (20, 7)])
        ids = sorted(rng.sample(range(1 << self.bits), min(products, 1 << self.bits)))
        self.products = {
            "id": (rng.sample(ids, len(ids)), self.bits),
            "category": ([rng.randrange(4) for _ in ids], 2),
            "price": ([rng.randrange(1, 1 << 16) for _ in ids], None),
        }
        known = [*ids, *(rng.getrandbits(self.bits) for _ in range(3))]
        self.sales = {
            "ref": ([rng.choice(known) for _ in range(sales)], self.bits),
            "ref_ok": ([int(rng.random() < 0.9) for _ in range(sales)], 1),
            "shop": ([rng.randrange(3) for _ in range(sales)], 2),
            "units": ([rng.randrange(100) for _ in range(sales)], 7),
            "units_ok": ([int(rng.random() < 0.8) for _ in range(sales)], 1),
        }

    def query(self, sql):
        products = pa.table({name: pa.array(values, pa.int64()) for name, (values, _) in self.products.items()})
        sales = pa.table({
            "ref": nullable(self.sales["ref"][0], self.sales["ref_ok"][0]),
            "shop": pa.array(self.sales["shop"][0], pa.int64()),
            "units": nullable(self.sales["units"][0], self.sales["units_ok"][0]),
            "line": pa.array(range(len(self.sales["shop"][0])), pa.int64()),
        })  # fmt: skip
        with duckdb.connect() as connection:
            connection.register("products", products)
            connection.register("sales", sales)
            return [tuple(int(value) for value in row) for row in connection.execute(sql).fetchall()]


def padded(rows, count, width):
    return [*rows, *[(0,) * width] * (count - len(rows))]


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("seed", range(4))
def test_join_then_group_then_the_first_groups(seed, security, monkeypatch):
    small_proofs(monkeypatch)
    shop = Shop(seed)
    bound = shop.rng.choice([None, 12])
    names = ("category", "shop", "lines", "price_sum", "most", "distinct")

    def program(flow, products, sales):
        both = yield from join(flow, products, sales, [(Key("id"), Key("ref", "ref_ok"))], ["category", "price"])
        wanted = [
            Aggregate("lines", "count"),
            Aggregate("price", "average", "price"),
            Aggregate("most", "max", "units", "units_ok"),
            Aggregate("distinct", "distinct_count", "units", "units_ok"),
        ]
        groups = yield from group_by(flow, both.rows, [Key("category"), Key("shop")], wanted, live=VALID, bound=bound)
        first = yield from top_k(
            flow, groups.rows, [SortKey("most", descending=True), SortKey("category"), SortKey("shop")], 3, live=VALID
        )
        return [first.columns[name] for name in (*names, VALID)]

    got, _ = run_table(program, shop.products, shop.sales, security=security)
    expected = shop.query("""
        SELECT category, shop, count(*), sum(price), coalesce(max(units), 0) AS most, count(DISTINCT units), 1
        FROM sales JOIN products ON ref = id GROUP BY category, shop ORDER BY most DESC, category, shop LIMIT 3
    """)
    rows = min(3, len(shop.sales["ref"][0]), bound or 3)
    assert list(zip(*got, strict=True)) == padded(expected, rows, 7)


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("seed", range(3))
def test_left_join_then_running_sums_within_shops(seed, security, monkeypatch):
    small_proofs(monkeypatch)
    shop = Shop(100 + seed)
    count = len(shop.sales["ref"][0])
    sales = {**shop.sales, "line": (list(range(count)), 7)}

    def program(flow, products, sales):
        keys = [(Key("id"), Key("ref", "ref_ok"))]
        both = yield from join(flow, products, sales, keys, ["category", "price"], kind="left")
        wanted = [Window("total", "running_sum", "price"), Window("number", "row_number")]
        out = yield from windows(
            flow, both.rows, wanted, [SortKey("units", valid="units_ok")], partition_by=[Key("shop")]
        )
        return [out.columns[name] for name in ("line", "shop", "total", "number", HAS_PRIMARY)]

    got, _ = run_table(program, shop.products, sales, security=security)
    assert list(zip(*got, strict=True)) == shop.query("""
        SELECT line, shop, coalesce(sum(price) OVER w, 0), row_number() OVER w, CASE WHEN id IS NULL THEN 0 ELSE 1 END
        FROM sales LEFT JOIN products ON ref = id
        WINDOW w AS (PARTITION BY shop ORDER BY units NULLS LAST, line ROWS UNBOUNDED PRECEDING)
        ORDER BY shop, units NULLS LAST, line
    """)


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("seed", range(3))
def test_distinct_keys_then_intersection(seed, security, monkeypatch):
    """Groups are ascending and those that are not live stand behind them: what a merge takes."""
    small_proofs(monkeypatch)
    shop = Shop(200 + seed)
    given = [tables(spec, security, at) for at, spec in enumerate((shop.products, shop.sales))]

    def program(flow):
        products, sales = (parts[flow.stage.party] for parts in given)
        sold = yield from group_by(
            flow, sales, [Key("ref", "ref_ok")], [Aggregate("units", "sum", "units", "units_ok")]
        )
        keys = [(Key("id"), Key("ref", "ref_ok"))]
        found = yield from intersection(flow, products, sold.rows, keys, ["price", "units"], right_live=VALID)
        size, sums = yield from open_intersection(flow, found)
        return size, sums["price"], sums["units"]

    out = run_flow(program, security=security)
    assert not out.errors
    assert set(out.results.values()) == set(shop.query("""
        SELECT count(*), coalesce(sum(price), 0), coalesce(sum(units), 0)
        FROM products JOIN (SELECT ref, sum(units) AS units FROM sales GROUP BY ref) ON ref = id
    """))  # fmt: skip


@pytest.mark.parametrize("security", SECURITIES)
def test_a_join_of_a_join(security, monkeypatch):
    small_proofs(monkeypatch)
    shop = Shop(300)
    categories = {"code": ([0, 1, 3], 2), "weight": ([5, 6, 7], 3)}

    def program(flow, products, sales, codes):
        keys = [(Key("id"), Key("ref", "ref_ok"))]
        one = yield from join(flow, products, sales, keys, ["category", "price"])
        table = one.rows.without(HAS_PRIMARY)
        two = yield from join(flow, codes, table, [(Key("code"), Key("category"))], ["weight"], foreign_live=VALID)
        wanted = [Aggregate("price", "sum", "price")]
        groups = yield from group_by(flow, two.rows, [Key("weight")], wanted, live=VALID, bound=3)
        return [groups.rows.columns[name] for name in ("weight", "price")]

    got, _ = run_table(program, shop.products, shop.sales, categories, security=security)
    expected = shop.query("""
        SELECT weight, sum(price) FROM sales JOIN products ON ref = id
        JOIN (VALUES (0, 5), (1, 6), (3, 7)) AS c (code, weight) ON code = category GROUP BY weight ORDER BY weight
    """)
    assert list(zip(*got, strict=True)) == padded(expected, 3, 2)
