"""The product's own path in the clear (translation, Gate, lanes, table, file) gives what the oracle says, on the demo's data.

No sharing happens here: the region's stage is its plaintext stand-in, which the tests of the stage on shares are held against,
and what the group's operators do is addition. So these tests together say that the demo is exact. The oracle shares no code
with what it is compared with.
"""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from infra.demo.data import ENTITIES, prepare
from infra.demo.oracle import differences, lines_of, published_rows, report
from infra.demo.reference import PERIODS, prior_year, rates
from local_stores.publish.build import table_from_lanes
from local_stores.publish.editions import publish
from local_stores.snapshot.contribution import compute_figures
from tests.support.demo_data import unit_table
from tests.support.federation import make_federation, make_plan
from tests.support.publish_sample import basis
from tests.support.region_stage import clear_region

CACHE = Path(__file__).resolve().parents[2] / "var" / "cache" / "tpch"


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("federation")).federation


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("stores"), CACHE)


@pytest.mark.parametrize(
    "gate", [(2, 1), (10, 1), (25, 1), (10, 2), (14, 3)], ids=lambda gate: f"k{gate[0]}-owners{gate[1]}"
)
@pytest.mark.parametrize("period", PERIODS)
def test_the_product_computes_what_the_oracle_computes(federation, stores, tmp_path, period, gate):
    k, min_owners = gate
    plan = make_plan(federation, k=k, gate_at="region", gate_min_owners=min_owners)
    table, lines = rates(), lines_of(stores, period)
    total = 0
    for region in dict.fromkeys(entity.jurisdiction for entity in ENTITIES):
        filed = []
        for entity in (one for one in ENTITIES if one.jurisdiction == region):
            own = lines.filter(pc.equal(lines["entity"], entity.name))
            at = {
                "period": table[period][entity.currency]["avg_rate"],
                "prior_year": table[prior_year(period)][entity.currency]["avg_rate"],
            }
            filed.append(compute_figures(plan, unit_table(own, plan), at, owner=entity.name))
        total = total + np.array(clear_region(plan, filed), object)
    result = table_from_lanes(plan, total.tolist(), period=period, edition=1)
    published = publish(result, basis(period), tmp_path)
    expected = report(lines, period, table, k=k, min_owners=min_owners)
    assert differences(expected, published_rows(published.folder / "result.parquet")) == []
