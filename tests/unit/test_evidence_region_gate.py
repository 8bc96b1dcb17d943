"""Evidence of a run whose Gate stands in the region: what it says, and what would make it fail."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mpc_ops.evidence.checks import assess, record_crossings
from mpc_ops.evidence.derive import derive_facts
from mpc_ops.evidence.facts import FactBook
from mpc_ops.evidence.page import render_page
from mpc_ops.evidence.reconcile import FlowTotal
from mpc_ops.evidence.sections import results
from mpc_ops.federation.model import PayloadClass
from mpc_ops.plan.model import RegionSumNode
from tests.support.evidence import make_run
from tests.support.federation import DEMO, make_federation, make_plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("federation"), DEMO)


@pytest.fixture(scope="module")
def found(made, tmp_path_factory):
    plan = make_plan(made.federation, gate_at="region")
    return assess(make_run(tmp_path_factory.mktemp("run"), made=made, plan=plan).evidence())


@pytest.fixture(scope="module")
def facts(found):
    return derive_facts(found)


def text_of(facts, key):
    (fact,) = [fact for fact in facts.facts if fact.key == key]
    return fact


def test_every_check_passes_and_record_shares_stay_at_home(found):
    assert found.problems("failed") == []
    records = [line for line in found.rules if line.payload_class == PayloadClass.RECORD_SHARE]
    assert {(line.origin, line.target) for line in records} == {(code, code) for code in ("DE", "CN", "IN", "SA")}
    assert all(line.allowed for line in records)
    assert found.reconciliation.record_messages == 0
    assert {flow.payload_class for flow in found.reconciliation.domestic} >= {PayloadClass.RECORD_SHARE}


def test_the_facts_say_which_gate_where_and_how(facts):
    gate = text_of(facts, "gate")
    assert (gate.state, gate.outcome) == ("measured", "passed")
    assert "cells of fewer than 10 customers over all data owners of a country together" in gate.text
    assert "decided on secret shares with active security" in gate.text
    assert gate.stable == "customers, minimum 10 customers, in the country cluster, active"
    assert "every multiplication is proven" in text_of(facts, "security").text


def test_the_facts_say_what_country_clusters_hold_and_what_sizes_tell(facts):
    holds = text_of(facts, "learn-region-holds").text
    assert "holds secret shares of records: for each of the customers one row of 25 bits" in holds
    assert "nor which cells are small or moved" in holds
    assert "rounded up to a size class" in text_of(facts, "learn-region-sizes").text
    assert "every row of bits and the figures of small cells" in text_of(facts, "learn-pair").text
    assert "small owners passed together" in text_of(facts, "learn-owners").text


def test_the_page_shows_it(facts):
    page = render_page(facts).decode()
    assert "holds secret shares of records" in page
    assert "in the country cluster" in page or "inside the country cluster" in page


def test_a_gate_at_the_owner_is_told_as_before(made, tmp_path):
    facts = derive_facts(assess(make_run(tmp_path, made=made).evidence()))
    gate = text_of(facts, "gate")
    assert (gate.state, gate.stable) == ("declared", "customers, minimum 10")
    assert not [fact for fact in facts.facts if fact.key.startswith("learn-region")]


def test_a_record_share_that_leaves_the_country_fails_the_evidence(made, tmp_path):
    def leak(books, run):
        books.frame("cn-1", "ch-1", PayloadClass.RECORD_SHARE, 900, run=run, cluster="cn", attempt=1)

    plan = make_plan(made.federation, gate_at="region")
    found = assess(make_run(tmp_path, made=made, plan=plan, alter=leak).evidence())
    assert any("messages of record-level classes crossed a border" in text for text in found.problems("failed"))


def test_without_a_threshold_the_gate_fails(made, found):
    # Such a plan is refused long before; evidence that carries one must not look well.
    plan = make_plan(made.federation, k=1, gate_at="region")

    class Changed:
        def __init__(self, evidence):
            self._evidence = evidence

        def __getattr__(self, name):
            return plan if name == "plan" else getattr(self._evidence, name)

    book = FactBook(date="2026-01-01T00:00:00Z", system="test")
    results(SimpleNamespace(evidence=Changed(found.evidence), checks=found.checks), book)
    assert [fact.outcome for fact in book.entries if fact.key == "gate"] == ["failed"]


def test_inside_one_region_of_several_countries_records_may_cross_a_border_and_beyond_it_not():
    def flow(origin, target, kind=PayloadClass.RECORD_SHARE):
        return FlowTotal(origin=origin, target=target, payload_class=kind, messages=1, bytes=9, same_area=False)

    region = SimpleNamespace(jurisdictions=["DE", "FR", "NL"])
    node = RegionSumNode(id="region_sum", input="share", regions=["eu"])
    evidence = SimpleNamespace(
        federation=SimpleNamespace(terms=SimpleNamespace(regions={"eu": region})),
        plan=SimpleNamespace(node=lambda kind: node),
    )
    flows = [flow("DE", "FR"), flow("DE", "US"), flow("DE", "US", PayloadClass.AGGREGATE_SHARE)]
    found = SimpleNamespace(evidence=evidence, reconciliation=SimpleNamespace(crossings=flows))
    assert record_crossings(found) == ([flows[0]], [flows[1]])
