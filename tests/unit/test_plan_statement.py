from datetime import UTC, datetime

import pytest

from mpc_ops.envelope.canonical import parse_canonical
from mpc_ops.errors import PolicyViolation
from mpc_ops.plan.statement import member_notes, planned_statement
from mpc_ops.plan.statement_text import statement_text
from tests.support.federation import DEMO, make_federation, make_plan

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("demo"), DEMO)


def test_the_statement_is_canonical_and_does_not_depend_on_time_or_members(demo):
    plan = make_plan(demo.federation)
    statement = planned_statement(plan, demo.federation, now=NOW)
    assert parse_canonical(statement.data) == statement.content
    assert planned_statement(plan, demo.federation, now=datetime(2027, 1, 1, tzinfo=UTC)).digest == statement.digest
    assert "de-nord" not in statement.data.decode()
    assert planned_statement(make_plan(demo.federation, k=20), demo.federation, now=NOW).digest != statement.digest


def test_what_crosses_is_listed_with_class_bytes_and_decision(demo):
    content = planned_statement(make_plan(demo.federation), demo.federation, now=NOW).content
    data = {(row["from"], row["to"]): row for row in content["crossings"] if row["bytes_at_most"] is not None}
    regions, group = ("CN", "DE", "IN", "SA"), ("NL", "CH", "SG")
    assert set(data) == {(one, other) for one in regions for other in group} | {("CH", "NL"), ("SG", "NL")}
    row = data["SA", "CH"]
    assert (row["payload_class"], row["values"], row["bytes_at_most"]) == ("aggregate_share", 322, 3 * 8 * 322)
    assert row["decisions"][0]["rules"] == ["SA-5-abroad"]
    assert data["SG", "NL"]["payload_class"] == "released_aggregate"
    assert {"record_share", "record_plain"}.isdisjoint(row["payload_class"] for row in content["crossings"])


def test_the_text_says_what_reviewers_need(demo):
    plan = make_plan(demo.federation, min_owners=3)
    statement = planned_statement(plan, demo.federation, now=NOW)
    text = statement_text(statement, member_notes(plan, demo.federation))
    for words in (
        statement.digest,
        "a cell with 1 to 9 customers moves to 'not allocated'",
        "SA -> CH: aggregate_share to compute_node",
        "DE -> NL (one legal area): aggregate_share",
        "CN -> CH, NL, SG: control_metadata, evidence, key_material, mac_or_commitment (no shares); allowed by CN-12",
        "sa: one data owner (sa-gulf). The country cluster adds no separation between data owners",
        "7 of 8 data owners together with the result recipient learn the figures of the last",
        "4 currencies (CNY, EUR, INR, SAR) and 2 sets of exchange rates",
        "revenue of prior_year is published at 2 sets of exchange rates",
        "nobody: example, counsel must adopt",
        "Not claimed",
    ):
        assert words in text
    for misread in ("shareholder", "restatement", " corrupt", "GDPR-proof"):
        assert misread not in text
    assert max(map(len, text.splitlines())) < 400


def test_a_denied_flow_makes_no_statement(demo):
    with pytest.raises(PolicyViolation, match="CROSSING_DENIED"):
        planned_statement(make_plan(demo.federation, k=1), demo.federation, now=NOW)


def test_currencies_that_can_be_solved_for_are_refused_among_strangers(tmp_path):
    regions = {"DE": ["de-nord", "de-sued"], "CN": ["cn-east"]}
    made = make_federation(tmp_path / "one", regions)
    notes = member_notes(make_plan(made.federation), made.federation)
    assert any("the amount of each currency can be solved for" in note for note in notes)
    assert "One entity alone books in CNY: its amounts are among them." in notes
    strangers = make_federation(tmp_path / "two", regions, one_parent=False).federation
    with pytest.raises(PolicyViolation, match="CURRENCIES_SOLVABLE: 2 currencies"):
        member_notes(make_plan(strangers, min_owners=3), strangers)
