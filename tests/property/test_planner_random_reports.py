"""Random reports of the simple form either compile to a plan that checks, or are refused with a known code."""

import random
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mpc_ops.engine.region_gate import region_gate
from mpc_ops.envelope.schema import encode
from mpc_ops.errors import PlanError
from mpc_ops.plan.bounds import INT64_LIMIT, scaled, type_of
from mpc_ops.plan.checks import read_plan
from mpc_ops.plan.layout import lane_count, lanes, shared_lane_count, shared_lanes
from mpc_ops.plan.model import AggregateNode, ShareNode
from mpc_ops.plan.text import expression_text
from mpc_ops.planner import compile_report, read_terms
from tests.support.federation import DEMO_FOLDER, make_federation

CODES = {"OVERFLOW_POSSIBLE", "SCALE_TOO_LARGE"}
PUBLIC = [
    "segment = 'BUILDING'",
    "product_line IN ('TIN', 'STEEL')",
    "NOT quantity BETWEEN 2 AND 7",
    "customer_uid IS NULL",
]


class Author:
    """Writes random SQL."""

    def __init__(self, seed):
        self.dice = random.Random(seed)

    def number(self, depth=3):
        kind = self.dice.random()
        if depth == 0 or kind < 0.4:
            return self.dice.choice(
                ["quantity", "revenue_lc", "cost_lc", str(self.dice.randrange(10**6)), "0.125", "-3"]
            )
        if kind < 0.8:
            return f"({self.number(depth - 1)} {self.dice.choice('+-*')} {self.number(depth - 1)})"
        return f"CASE WHEN {self.condition(depth - 1)} THEN {self.number(depth - 1)} ELSE {self.number(depth - 1)} END"

    def condition(self, depth=2):
        kind = self.dice.random()
        if depth == 0 or kind < 0.4:
            return self.dice.choice(PUBLIC)
        if kind < 0.7:
            return f"{self.number(depth - 1)} {self.dice.choice(['=', '<>', '<', '>='])} {self.number(depth - 1)}"
        return f"({self.condition(depth - 1)} {self.dice.choice(['AND', 'OR'])} {self.condition(depth - 1)})"

    def report(self):
        dice = self.dice
        dimensions = dice.sample(["segment", "product_line"], dice.randrange(3))
        what = [f"SUM({self.number()})" for _ in range(dice.randrange(1, 4))]
        what += dice.choices(["COUNT(*)", "COUNT(DISTINCT customer_uid)"], k=dice.randrange(3))
        items = [*dimensions, *(f"{one} AS m{n}" for n, one in enumerate(what))]
        where = ["period = :period", *(self.condition() for _ in range(dice.randrange(3)))]
        sql = f"SELECT {', '.join(items)} FROM sales_line WHERE {' AND '.join(where)}"
        if dimensions:
            group = ", ".join(dimensions)
            sql += dice.choice([f" GROUP BY {group}", f" GROUP BY ROLLUP ({group})"])
        return sql


@pytest.fixture(scope="module")
def setting():
    with tempfile.TemporaryDirectory() as folder:
        terms = (DEMO_FOLDER / "reports" / "group_performance.toml").read_text().partition("[labels]")[0]
        terms = terms.replace('["de", "cn", "in", "sa"]', '["de"]')
        yield read_terms(terms), make_federation(Path(folder)).federation


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), gate_at=st.sampled_from(["owner", "region"]))
def test_random_reports(setting, seed, gate_at):
    terms, federation = setting
    terms = msgspec.structs.replace(terms, gate_at=gate_at, max_units=terms.max_units if gate_at == "region" else None)
    try:
        plan = compile_report(Author(seed).report(), terms, federation)
    except PlanError as error:
        assume(error.code not in CODES)
        raise
    assert read_plan(encode(plan), federation) == plan
    assert lane_count(plan) == len(lanes(plan))
    assert shared_lane_count(plan) == len(shared_lanes(plan)) == plan.node(ShareNode).lanes
    wanted = region_gate(plan)
    assert (wanted is None) == (gate_at == "owner")
    if wanted is not None:
        assert len(wanted.lanes) == lane_count(plan)
        assert sorted(lane for part in wanted.inputs for lane in part.tolist()) == list(range(shared_lane_count(plan)))
    contract = federation.terms.datasets["sales_line"]
    for one in plan.node(AggregateNode).aggregates:
        assert 0 <= int(one.bound) * terms.max_owners < INT64_LIMIT
        if one.expr is not None:
            assert expression_text(one.expr)
            assert one.scale == type_of(one.expr, contract).scale


@given(value=st.decimals(-(10**9), 10**9, places=4), scale=st.integers(4, 9))
def test_scaling_is_exact(value, scale):
    assert scaled(f"{value:f}", scale) == int(value.scaleb(scale))
