"""The oracle's Gate in SQL equals the brute-force Gate on random owners, customers shared between cells included."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.demo.oracle import gate_map
from local_stores.snapshot.gate import gate as product_gate
from tests.support.gate_reference import gate, level_counts

LINE = st.tuples(st.sampled_from("RST"), st.sampled_from("ABC"), st.integers(0, 14).map(str))
OWNERS = st.lists(st.lists(LINE, min_size=1, max_size=40), min_size=1, max_size=12)


@settings(max_examples=120, deadline=None)
@given(owners=OWNERS, k=st.integers(1, 9), size=st.integers(1, 4), min_owners=st.integers(1, 3))
def test_sql_gate_equals_brute_force(owners, k, size, min_owners):
    rows = [(f"o{n:02}", "month", *line, 1, 1) for n, owner in enumerate(owners) for line in owner]
    names = ("entity", "slice", "segment", "product_line", "customer", "revenue", "cost")
    regions = {f"o{n:02}": f"r{n // size}" for n in range(len(owners))}
    table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    found = defaultdict(dict)
    for leaf, place in gate_map(table, k, regions=regions, min_owners=min_owners).items():
        found[leaf.region][leaf.segment, leaf.product_line] = place
    for n in range(0, len(owners), size):
        union = [(*line[:2], (which, line[2])) for which, owner in enumerate(owners[n : n + size]) for line in owner]
        assert found[f"r{n // size}"] == gate(union, k, min_owners)


@settings(max_examples=200, deadline=None)
@given(owners=OWNERS, k=st.integers(1, 9), min_owners=st.integers(2, 4))
def test_no_cell_behind_the_gate_stands_for_fewer_owners(owners, k, min_owners):
    union = [(*line[:2], (which, line[2])) for which, owner in enumerate(owners) for line in owner]
    to, behind = gate(union, k, min_owners), defaultdict(set)
    for line in union:
        behind[to.get(line[:2])].add(line[2])
    if len(owners) < min_owners:
        assert set(behind) == {None}
    for place in behind.keys() - {None}:
        assert len(behind[place]) >= k
        assert len({owner for owner, _ in behind[place]}) >= min_owners


@settings(max_examples=200, deadline=None)
@given(owner=st.lists(LINE, max_size=40), k=st.integers(1, 9))
def test_no_published_cell_stands_for_fewer_than_k_customers(owner, k):
    to = gate(owner, k)
    counts = level_counts(owner, k)
    assert all(count >= k for count in counts.values())
    total = len({customer for _, _, customer in owner})
    assert bool(to) == (total >= k and total > 0)
    if to:
        assert counts[None, None] == total


@settings(max_examples=200, deadline=None)
@given(owner=st.lists(LINE, min_size=1, max_size=40), k=st.integers(1, 9))
def test_the_products_gate_on_arrays_equals_brute_force(owner, k):
    domains = (["R", "S", "T"], ["A", "B", "C"])
    dimensions = [np.array([domain.index(line[axis]) for line in owner]) for axis, domain in enumerate(domains)]
    places = product_gate(dimensions, np.array([int(line[2]) for line in owner]), domains, k)
    expected = gate(owner, k)
    if places is None:
        assert expected == {}
        return
    names = [["", *domain] for domain in domains]
    for (segment, line, _), place in zip(owner, places.tolist(), strict=True):
        assert tuple(names[axis][code + 1] for axis, code in enumerate(place)) == expected[segment, line]
