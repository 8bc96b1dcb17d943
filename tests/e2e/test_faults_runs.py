"""What can go wrong with a run: withdrawals, editions, operators that are down or dishonest, crossings that no rule allows.

Each ends in the right result, or in a clean end that names code and parties, with nothing published.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.demo.homes import TERMS
from local_stores import closing, filing
from local_stores.errors import NotYet
from mpc_ops.errors import Abort, PolicyViolation, StateError
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.signed import run_id_of, utc_text
from mpc_ops.plan.crossings import crossings
from mpc_ops.plan.releases import open_release
from mpc_ops.planner.release import release_report
from tests.support.faults import refused, says, withdrawal
from tests.support.federation import AUTHOR, make_calendar, make_plan
from tests.support.whole import until, values_of, whole_federation

pytestmark = pytest.mark.e2e
OWNER, OTHERS = "de-nord", ("de-sued", "de-west")
REGION, GROUP = ("de-1", "de-2", "de-3"), ("nl-1", "ch-1", "sg-1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with whole_federation(tmp_path_factory.mktemp("whole"), books=("2025-07",)) as running:
        yield running


@pytest.fixture(scope="module")
def report(whole):
    """One report; each test has its own period."""
    return whole.release("runs", *(f"2025-{month:02d}" for month in range(1, 13)))


def nothing_is_published(whole, report, period):
    assert not (Path(whole.group.folder) / "published" / report.name / period).exists()


# ------------------------------------------------------------------------------------------ withdrawals and editions


def test_an_owner_that_withdraws_after_the_close_fails_the_run_and_the_others_are_closed_again(whole):
    report, period = whole.release("withdrawing", "2024-01"), "2024-01"
    filings = whole.file_all(report, period)
    until(closing.filings_ready, whole.group, report.name, period)
    whole.freeze("de-3")  # so that the region can't commit before the withdrawal
    run = whole.close(report, period)
    until(lambda: whole.query("de-1", "SELECT 1 FROM sessions WHERE run = ? AND phase = 'PREPARED'", run["run_id"]))
    whole.hand_in(withdrawal(whole, report, OWNER))
    error = whole.failure(run)
    says(error, "WITHDRAWN", "nothing was released")
    assert not error.transient
    whole.thaw("de-3")
    until(lambda: "WITHDRAWN" in {s.code for s in whole.states("de-1", run).values() if s.cluster == "de"})
    nothing_is_published(whole, report, period)
    with refused(NotYet, "CLOSE_HELD", f"{OWNER} (WITHDRAWN)", transient=True):
        closing.close(whole.group, report.name, period)
    del filings[OWNER]
    again = whole.close(report, period, without=[OWNER])
    assert again["run_id"] != run["run_id"]
    assert (whole.result(again) == values_of(filings)).all()


def test_a_withdrawal_after_the_commit_counts_from_the_next_period(whole):
    report = whole.release("leaving", "2024-02", "2024-03")
    filings = whole.file_all(report, "2024-02")
    run = whole.close(report, "2024-02")
    until(closing.result_ready, whole.group, run)
    whole.hand_in(withdrawal(whole, report, OWNER))
    assert (whole.result(run) == values_of(filings)).all()
    with refused(PolicyViolation, "APPROVAL_WITHDRAWN", OWNER):
        filing.check_release(whole.owners, OWNER, report.name, "2024-03", open_sftp=whole.opener(OWNER))


def test_a_second_edition_with_one_owner_more_names_it_and_passes_when_it_accepts(whole, report):
    period = "2025-01"
    first = whole.file_all(report, period, but=["de-west"])
    assert (whole.run(report, period, without=["de-west"]) == values_of(first)).all()
    due = utc_text(datetime.now(UTC) + timedelta(hours=1))
    until(closing.reopen, whole.group, report.name, period, reason="de-west was late", due_at=due)
    desk = whole.desk(report, period)
    for owner in whole.made.owners:
        until(lambda owner=owner: len(desk.keys(owner, period, 2)) == 3)
    second = whole.file_all(report, period, edition=2)
    assert until(closing.filings_ready, whole.group, report.name, period)["edition"] == 2
    with refused(PolicyViolation, "MANIFEST_DIFFERENCE", "none from de-west", "fewer than 2", "accept"):
        until(closing.close, whole.group, report.name, period)
    second["de-west"] = whole.file(report, period, "de-west", edition=2, take=2, accepts_difference=True)

    def closed():
        try:
            return closing.close(whole.group, report.name, period)
        except PolicyViolation:  # the newest take is not at every group operator yet
            return None

    assert (whole.result(until(closed)) == values_of(second)).all()


# ------------------------------------------------------------------------------------------------- operators down


def test_an_operator_that_is_down_at_delivery_takes_the_filings_when_it_is_back(whole, report):
    period = "2025-02"
    with whole.without("de-2"):
        filings = {owner: whole.send(report, period, owner) for owner in whole.made.owners}
        desk = whole.desk(report, period)
        assert not any(desk.receipts(sealed) for sealed in filings.values())
    for sealed in filings.values():
        whole.receipts(report, period, sealed)
    assert (whole.run(report, period) == values_of(filings)).all()


def test_operators_that_are_down_at_the_close_join_and_the_run_finishes(whole, report):
    period = "2025-03"
    filings = whole.file_all(report, period)
    until(closing.filings_ready, whole.group, report.name, period)
    with whole.without("de-1", "ch-1"):
        run = whole.close(report, period)
        assert "COMMITTED" not in whole.api("nl-1", f"/v1/runs/{run['run_id']}")["state"]
    assert (whole.result(run) == values_of(filings)).all()


def test_an_operator_that_hangs_in_a_stage_is_named_and_the_run_finishes_when_it_goes_on(whole, report):
    period = "2025-04"
    filings = whole.file_all(report, period)
    until(closing.filings_ready, whole.group, report.name, period)
    whole.freeze("sg-1")
    try:
        run = whole.close(report, period)

        def stalled():
            try:
                closing.result_ready(whole.group, run)
            except NotYet as error:
                return error if error.code == "STALLED" and "sg-1" in str(error) else None

        says(until(stalled, timeout_s=60), "STALLED", "sg-1", "PEER_", "since")
    finally:
        whole.thaw("sg-1")
    assert (whole.result(run) == values_of(filings)).all()


@pytest.mark.parametrize(("period", "name"), [("2025-05", "de-3"), ("2025-06", "nl-1")])
def test_an_operator_that_is_killed_in_a_stage_goes_on_from_its_journal(whole, report, period, name):
    filings = whole.file_all(report, period)
    run = whole.close(report, period)
    time.sleep(0.2)
    whole.restart(name)
    assert (whole.result(run) == values_of(filings)).all()
    attempts = {one["attempt"] for who, one in whole.sessions(run).items() if who.endswith("@group")}
    assert len(attempts) == 1


# ---------------------------------------------------------------------------------------------- dishonest operators


def close_after_it_is_honest_again(whole, report, run, expected):
    """What was filed is AGREED again: closing anew gives the right result."""
    period = run["period"]

    def closed():
        try:
            return (found := closing.close(whole.group, report.name, period))["run_id"] != run["run_id"] and found
        except (NotYet, StateError):
            return None

    assert (whole.result(until(closed, timeout_s=60)) == expected).all()


def test_an_operator_that_alters_a_component_is_caught_in_its_region_and_the_pair_is_named(whole, report):
    period = "2025-07"
    with whole.faulty("de-2", "component"):
        figures = whole.file_by_site(report, period, OWNER)
        filings = whole.file_all(report, period, but=[OWNER])
        run = whole.close(report, period)
        error = whole.failure(run)
        says(error, "STAGE_MISMATCH", "nothing was released", "pair=", "de-2")
        found = {
            s.code: tuple(sorted(s.pair)) for s in whole.states("ch-1", run).values() if s.code == "STAGE_MISMATCH"
        }
        assert found == {"STAGE_MISMATCH": ("de-2", "de-3")}
        for name in GROUP:
            assert not whole.query(name, "SELECT 1 FROM crossings_in WHERE run = ?", run["run_id"])
    nothing_is_published(whole, report, period)
    box = whole.opener(OWNER)
    until(filing.outcome_ready, whole.owners, OWNER, report.name, period, open_sftp=box)
    with refused(Abort, "RUN_FAILED", "STAGE_MISMATCH", "de-2 and de-3|de-3 and de-2"):
        filing.fetch_outcome(whole.owners, OWNER, report.name, period, open_sftp=box)
    close_after_it_is_honest_again(whole, report, run, figures + values_of(filings))


def test_an_operator_that_alters_a_sub_share_is_caught_beyond_the_border_and_the_pair_is_named(whole, report):
    period = "2025-08"
    with whole.faulty("de-2", "crossing"):
        filings = whole.file_all(report, period)
        run = whole.close(report, period)
        error = whole.failure(run)
        says(error, "CROSS_MISMATCH", "nothing was released", "pair=", "de-2")
        pairs = {tuple(s.pair) for s in whole.states("ch-1", run).values() if s.code == "CROSS_MISMATCH"}
        assert all("de-2" in pair and len(pair) == 2 for pair in pairs)
        assert pairs
        until(lambda: all(one.state == "FAILED" for key, one in whole.states("ch-1", run).items() if "@group" in key))
    nothing_is_published(whole, report, period)
    close_after_it_is_honest_again(whole, report, run, values_of(filings))


def test_an_operator_that_alters_its_result_part_is_caught_by_the_recipient_and_the_pair_is_named(whole, report):
    period = "2025-09"
    with whole.faulty("sg-1", "result"):
        whole.file_all(report, period)
        run = whole.close(report, period)
        until(closing.result_ready, whole.group, run, timeout_s=60)
        fetched = until(closing.fetch, whole.group, run)
        with refused(Abort, "RESULT_MISMATCH", "sg-1"):
            closing.verify(whole.group, run, fetched)
    nothing_is_published(whole, report, period)
    with refused(StateError, "RUN_EXISTS", run["run_id"][:8]):
        whole.running.post(whole.desk(report, period).manifest([], period=period))
        raise StateError("RUN_EXISTS", run["run_id"])


# ------------------------------------------------------------------------------------------------------ border rules


def test_without_a_gate_the_same_crossings_are_record_level_and_denied(whole):
    found = {}
    for k in (10, 1):
        plan = make_plan(whole.federation, k=k, min_owners=2)
        flows = [one for one in crossings(plan, whole.federation, now=datetime.now(UTC)) if one.border and one.lanes]
        found[k] = {(one.sender, one.receiver): (str(one.payload_class), one.allowed, one.same_area) for one in flows}
    assert set(found[10]) == set(found[1])
    assert {one[:2] for one in found[10].values()} == {("aggregate_share", True), ("released_aggregate", True)}
    assert {one[0] for one in found[1].values()} == {"record_share"}
    allowed = {pair for pair, (_, allowed, _) in found[1].items() if allowed}
    assert allowed == {(name, "nl-1") for name in REGION}  # inside the EEA record-level shares may go to an operator
    assert not any(allowed for _, allowed, same_area in found[1].values() if not same_area)


def test_a_report_without_a_gate_is_refused_at_planning(whole):
    terms = (TERMS / "reports" / "group_performance.toml").read_text()
    terms = terms.replace('regions = ["de", "cn", "in", "sa"]', 'regions = ["de"]').replace("unit_k = 10", "unit_k = 1")
    sql = (TERMS / "reports" / "group_performance.sql").read_text()
    with refused(PolicyViolation, "CROSSING_DENIED", "record_share", "de-1 (DE)", "(CH)"):
        release_report(
            sql, terms, make_calendar(["2024-06"]), whole.federation, author=AUTHOR, key=whole.made.keys[AUTHOR],
            now=datetime.now(UTC),
        )  # fmt: skip


def test_a_forged_release_without_a_gate_is_refused_by_approvers_recipient_and_the_sending_operators(whole):
    report, period = whole.release("ungated", "2024-06", k=1), "2024-06"
    with refused(PolicyViolation, "CROSSING_DENIED", "record_share"):
        open_release(report.release, whole.federation, now=datetime.now(UTC))
    filings = whole.file_all(report, period, gate_k=1)
    until(closing.filings_ready, whole.group, report.name, period)
    with refused(PolicyViolation, "CROSSING_DENIED", "record_share", "de-1 (DE)"):
        until(closing.close, whole.group, report.name, period)

    manifest = whole.desk(report, period).manifest(filings.values(), period=period)
    run = {"run_id": run_id_of(manifest)}
    states = whole.careless_run(manifest, run, waits_for=5)
    said = {key: (one.state, one.code) for key, one in states.items() if key.endswith("@de")}
    assert ("REFUSED", "CROSSING_DENIED") in said.values()
    assert set(said.values()) <= {("REFUSED", "CROSSING_DENIED"), ("FAILED", "CROSSING_DENIED")}  # told by a peer first
    for name in REGION:
        entries = whole.ledger(name, run["run_id"])
        denials = [entry for entry in entries if entry["event"] == "denied"]
        if said[f"{name}@de"][0] == "REFUSED":
            assert [entry["ref"] for entry in denials] == ["CROSSING_DENIED"]
            assert "record_share may not go from de-" in denials[0]["decision"]
        assert not [
            e for e in entries if e["event"] == "frame_sent" and e["payload_class"] == PayloadClass.RECORD_SHARE
        ]
        assert not whole.query(name, "SELECT 1 FROM crossings_out WHERE run = ?", run["run_id"])
    for name in GROUP:
        assert not whole.query(name, "SELECT 1 FROM crossings_in WHERE run = ?", run["run_id"])
