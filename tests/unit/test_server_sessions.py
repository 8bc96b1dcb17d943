"""Runs over in-memory operators: close, refuse, withdraw, cancel, give up, late owners, reopening, erasure, evidence."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.schema import from_plain
from mpc_ops.errors import ComityError
from mpc_ops.evidence.bundle import read_bundle
from mpc_ops.evidence.checks import assess
from mpc_ops.evidence.material import gather
from mpc_ops.evidence.status import PeriodStatus, RunStatus
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import Cancel, Erased, Filed, Reopen, State, Statement, Withdrawal
from mpc_ops.notices.signed import parse_notice, run_id_of, sign_notice, utc_text
from mpc_ops.server.submissions import Submissions
from tests.support.federation import RECIPIENT, SMALL, make_approval, make_federation, make_plan
from tests.support.operators import PERIOD, World, _replace, make_world

THREE = {"DE": ["de-nord", "de-sued", "de-west"]}
REGION, GROUP = ("de-1", "de-2", "de-3"), ("nl-1", "ch-1", "sg-1")


@pytest.fixture
def world(tmp_path):
    made = make_federation(tmp_path, SMALL)
    found = make_world(tmp_path, made, make_plan(made.federation, min_owners=2))
    yield found
    found.net.close()


@pytest.fixture
def three(tmp_path):
    made = make_federation(tmp_path, THREE)
    plan = make_plan(made.federation, min_owners=2)
    found = make_world(tmp_path, made, plan)
    yield found
    found.net.close()


def close(world: World, filings, **change):
    manifest = world.desk.manifest(filings, **change)
    world.post(manifest)
    world.net.run(2)
    return manifest


def phases(world: World, manifest) -> set[str]:
    return set(world.states(run_id_of(manifest)).values())


def submissions(world: World, name: str = "nl-1") -> Submissions:
    return Submissions(world.net.operators[name])


def put(world: World, signed, name: str = "nl-1") -> bool:
    return submissions(world, name).put(signed.digest, signed.envelope.to_bytes(), RECIPIENT)


def refused(world: World, signed) -> str:
    with pytest.raises(ComityError) as caught:
        put(world, signed)
    return caught.value.code


def withdraw(world: World, owner: str):
    notice = Withdrawal(
        plan=world.desk.plan.digest, owner=owner, created_at=utc_text(world.net.now), reason="no longer"
    )
    signed = sign_notice(notice, world.net.made.approver(owner))
    world.desk.put_notice(owner, signed)
    return signed


def test_two_owners_filings_become_an_exact_result_and_everything_is_erased_after_the_ack(world):
    filings = world.file_all()
    manifest = close(world, filings)
    run = run_id_of(manifest)
    assert phases(world, manifest) == {"COMMITTED"}
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()
    assert submissions(world).run(run)["state"] == "COMMITTED"
    world.post(world.desk.ack(manifest))
    world.net.run(1)
    assert phases(world, manifest) == {"ERASED"}
    view = submissions(world).run(run)
    assert view["state"] == "ERASED"
    erased = {s.expect(Erased).operator for s in world.net.operators["nl-1"].book.find("erased", run=run)}
    assert erased == {*REGION, *GROUP}
    for name in REGION:
        assert not list((world.net.configs[name].spool / "inbox").rglob("part.*"))
        assert len(list((world.net.configs[name].state / "periods").iterdir())) == 2  # the other two months
    for table in ("crossings_in", "crossings_out", "results"):
        assert all(not op.store.rows(f"SELECT 1 FROM {table}") for op in world.net.operators.values())


def test_an_empty_month_of_one_owner_counts_as_zero(three):
    nil = three.desk.deliver(three.desk.nil("de-west"))
    filed = [
        three.desk.deliver(three.desk.seal(owner, np.arange(three.desk.lanes))) for owner in ("de-nord", "de-sued")
    ]
    three.net.settle()
    manifest = close(three, [*filed, nil])
    assert (three.result(manifest) == 2 * np.arange(three.desk.lanes)).all()


def test_evidence_of_all_operators_agrees_frame_by_frame(world):
    manifest = close(world, world.file_all())
    world.net.run(6)
    run = run_id_of(manifest)
    data = world.net.operators["ch-1"].accounts.bundle(run)
    bundle = read_bundle(data)
    evidence = gather(
        world.net.made.federation,
        manifest,
        [parse_notice(text.encode()) for text in bundle.notices],
        attestations=[Envelope.parse(text.encode()) for text in bundle.attestations],
        ledgers=[Envelope.parse(text.encode(), limit_bytes=1 << 26) for text in bundle.ledgers],
    )
    found = assess(evidence)
    failed = {check.name: check.problems for check in found.checks if check.status == "failed"}
    assert failed == {"logs": (f"no transfer log of {RECIPIENT}",)}  # the recipient adds its own
    assert found.reconciliation.record_messages == 0
    data_frames = [d for d in found.reconciliation.differences if d.payload_class == str(PayloadClass.AGGREGATE_SHARE)]
    assert not data_frames
    crossed = {(flow.origin, flow.payload_class) for flow in found.reconciliation.crossings}
    assert ("DE", "aggregate_share") in crossed
    for owner in world.net.made.owners:
        path = world.net.configs["de-1"].spool / "outbox" / owner / "evidence" / run / "bundle.json"
        assert read_bundle(path.read_bytes()).run == run


def test_every_operator_states_what_it_sent_and_received(world):
    manifest = close(world, world.file_all())
    statements = world.net.operators["sg-1"].book.find("statement", run=run_id_of(manifest))
    assert {s.expect(Statement).operator for s in statements} == {*REGION, *GROUP}
    for signed in statements:
        statement = signed.expect(Statement)
        classes = {flow.payload_class for flow in statement.flows}
        assert ("aggregate_share" if statement.operator in REGION else "released_aggregate") in classes
        assert statement.denials == 0
        assert statement.rules
        assert len(statement.approvals) == 2


def test_the_result_part_is_handed_out_only_after_all_three_commitments(world):
    filings = world.file_all()
    world.net.tamper = lambda _s, receiver, kind, data: (
        None if receiver == "nl-1" and kind == 17 and _is_result(data) else data
    )
    manifest = close(world, filings)
    with pytest.raises(ComityError, match="RESULT_NOT_READY"):
        world.net.operators["nl-1"].groups.part(run_id_of(manifest))
    world.net.tamper = None
    world.net.run(12)
    assert world.net.operators["nl-1"].groups.part(run_id_of(manifest))


def _is_result(data: bytes) -> bool:
    return parse_notice(data).kind == "result"


# ------------------------------------------------------------------------------------------------- refusals at close


def test_a_missing_approval_refuses_the_run(tmp_path):
    made = make_federation(tmp_path, SMALL)
    world = make_world(tmp_path, made, make_plan(made.federation, min_owners=2), approve=False)
    world.desk.put_notice("de-nord", make_approval(made, world.desk.plan, "de-nord", now=world.net.now))
    filings = world.file_all()
    manifest = world.desk.manifest(filings)
    assert refused(world, manifest) == "APPROVAL_MISSING"
    world.post(manifest)
    world.net.run(8)
    assert phases(world, manifest) <= {"REFUSED(APPROVAL_MISSING)", "FAILED(APPROVAL_MISSING)"}
    assert world.net.operators["de-1"].filings.of_run(run_id_of(manifest)) == []
    states = world.net.operators["nl-1"].book.find("state", run=run_id_of(manifest))
    assert {s.expect(State).code for s in states} == {"APPROVAL_MISSING"}
    world.net.close()


def test_an_expired_approval_refuses_the_run(world):
    filings = world.file_all()
    for owner in world.net.made.owners:
        short = make_approval(world.net.made, world.desk.plan, owner, now=world.net.now + timedelta(seconds=1), days=0)
        world.desk.put_notice(owner, short)
    world.net.settle()
    # the older approvals still hold, so the run is allowed; with only the expired ones it is not
    for operator in world.net.operators.values():
        with operator.context.unit():
            operator.store.write(
                "DELETE FROM notices WHERE kind = 'approval' AND seq <= (SELECT min(seq) + 1 FROM notices WHERE kind = 'approval')"
            )
    world.net.now += timedelta(seconds=5)
    assert refused(world, world.desk.manifest(filings)) == "APPROVAL_EXPIRED"


def test_an_approval_of_another_release_is_foreign(tmp_path):
    made = make_federation(tmp_path, SMALL)
    world = make_world(tmp_path, made, make_plan(made.federation, min_owners=2), approve=False)
    for owner in made.owners:
        world.desk.put_notice(owner, make_approval(made, world.desk.plan, owner, statement="9" * 64, now=world.net.now))
    filings = world.file_all()
    assert refused(world, world.desk.manifest(filings)) == "APPROVAL_FOREIGN"
    world.net.close()


def test_a_withdrawn_approval_refuses_the_run(world):
    filings = world.file_all()
    withdraw(world, "de-nord")
    world.net.settle()
    assert refused(world, world.desk.manifest(filings)) == "APPROVAL_WITHDRAWN"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"membership": "1" * 64}, "MEMBERSHIP_CHANGED"),
        ({"directory": "1" * 64}, "DIRECTORY_CHANGED"),
        ({"reference": None}, "REFERENCE_CHANGED"),
        ({"period": "2026-02"}, "FILING_FOREIGN"),
        ({"late": ["de-nord"]}, "OWNERS_UNACCOUNTED"),
        ({"edition": 2}, "EDITION_NOT_OPEN"),
        ({"plan": "2" * 64}, "PLAN_UNKNOWN"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(world, change, code):
    manifest = world.desk.manifest(world.file_all(), **change)
    assert refused(world, manifest) == code
    world.post(manifest)
    world.net.run(8)
    assert {state.partition("(")[2].rstrip(")") for state in phases(world, manifest)} == {code}


def test_a_give_up_moment_in_the_past_or_too_far_is_refused(world):
    filings = world.file_all()
    past = world.desk.manifest(filings, give_up_at=utc_text(world.net.now - timedelta(seconds=1)))
    assert refused(world, past) == "GIVEN_UP"
    far = world.desk.manifest(filings, give_up_at=utc_text(world.net.now + timedelta(days=3)))
    assert refused(world, far) == "GIVE_UP_TOO_LATE"


def test_fewer_owners_than_the_terms_ask_for_are_refused(three):
    filings = three.file_all()
    nord = [sealed for sealed in filings if sealed.filed.expect(Filed).owner == "de-nord"]
    manifest = three.desk.manifest(nord, excluded=["de-sued", "de-west"])
    assert refused(three, manifest) == "TOO_FEW_OWNERS"


def test_an_owner_that_the_manifest_leaves_out_is_late_and_files_for_the_next_edition(three):
    filed = [
        three.desk.deliver(three.desk.seal(owner, np.arange(three.desk.lanes))) for owner in ("de-nord", "de-sued")
    ]
    three.net.settle()
    assert refused(three, three.desk.manifest(filed)) == "OWNERS_UNACCOUNTED"
    manifest = close(three, filed, late=["de-west"])
    assert phases(three, manifest) == {"COMMITTED"}
    late = three.net.operators["de-1"].filings.state(three.desk.plan.digest, PERIOD, "de-west", 1)
    assert late.phase == "LATE"
    three.desk.deliver(sealed := three.desk.seal("de-west", np.arange(three.desk.lanes)))
    three.net.settle()
    assert set(three.desk.rejections(sealed.filed.digest, "de-west").values()) == {"PERIOD_CLOSED"}


def test_a_disputed_filing_stops_the_close(world):
    filings = world.file_all()
    again = world.desk.seal("de-nord", np.arange(world.desk.lanes), take=2)
    again.parts["de-3"] = again.parts["de-3"][:-1]
    world.desk.deliver(again)
    world.net.settle()
    named = [again, *(s for s in filings if s.filed.expect(Filed).owner != "de-nord")]
    period = submissions(world).period(world.desk.plan.digest, PERIOD)
    assert period["owners"]["de-nord"]["state"] in {"DISPUTED", "REJECTED"}
    assert period["owners"]["de-sued"]["state"] == "AGREED"
    manifest = close(world, named)
    world.net.run(8)
    assert all("FILING_NOT_AGREED" in state or "REGION_FAILED" in state for state in phases(world, manifest))


def test_a_filing_replaced_while_the_manifest_was_on_its_way_refuses_the_run_and_it_can_be_closed_anew(world):
    filings = world.file_all()
    newer = world.desk.seal("de-nord", np.arange(world.desk.lanes), take=2)
    world.desk.deliver(newer)
    world.net.settle()
    manifest = close(world, filings)
    assert all("FILING_CHANGED" in state or "REGION_FAILED" in state for state in phases(world, manifest))
    (sued,) = (s for s in filings if s.filed.expect(Filed).owner == "de-sued")
    again = close(world, [newer, sued])
    assert phases(world, again) == {"COMMITTED"}
    assert (world.result(again) == newer.values + sued.values).all()


def test_a_filing_after_the_close_is_refused(world):
    close(world, world.file_all())
    late = world.desk.deliver(world.desk.seal("de-nord", np.arange(world.desk.lanes), take=2))
    world.net.settle()
    assert set(world.desk.rejections(late.filed.digest, "de-nord").values()) == {"PERIOD_CLOSED"}


def test_a_second_manifest_of_a_live_or_committed_run_is_refused_with_the_run(world):
    filings = world.file_all()
    manifest = close(world, filings)
    assert put(world, manifest) is False  # unchanged: known
    other = world.desk.manifest(filings, created_at=utc_text(world.net.now + timedelta(seconds=1)))
    assert refused(world, other) == "RUN_EXISTS"
    world.post(other)
    world.net.run(8)
    assert all("RUN_EXISTS" in state or "FAILED" in state for state in phases(world, other))
    assert phases(world, manifest) == {"COMMITTED"}


def test_crossings_of_record_level_are_refused_at_the_sending_operator_before_a_byte(tmp_path):
    made = make_federation(tmp_path, SMALL)
    world = make_world(tmp_path, made, make_plan(made.federation, k=1, min_owners=2))
    filings = world.file_all()
    manifest = world.desk.manifest(filings)
    assert refused(world, manifest) == "CROSSING_DENIED"
    world.post(manifest)
    world.net.run(3)
    assert {state.partition("(")[2].rstrip(")") for state in phases(world, manifest)} <= {"CROSSING_DENIED"}
    for name in REGION:
        entries = world.net.operators[name].books.entries(run_id_of(manifest))
        assert [e.ref for e in entries if e.event == "denied"] == ["CROSSING_DENIED"]
        assert not [e for e in entries if e.payload_class == PayloadClass.RECORD_SHARE and e.event == "frame_sent"]
        assert not world.net.operators[name].store.rows("SELECT 1 FROM crossings_out")
    world.net.close()


# -------------------------------------------------------------------------------------------------- stopping a run


def hold_region(world: World) -> None:
    """Keep the region from finishing: one operator hears nothing."""
    for peer in ("de-1", "de-2", *GROUP):
        world.net.cut.add(frozenset(("de-3", peer)))


def release_region(world: World) -> None:
    world.net.cut.clear()
    for peer in ("de-1", "de-2", *GROUP):
        world.net.connect("de-3", peer)


def test_an_owner_that_withdraws_before_the_commit_fails_the_run_and_the_others_are_closed_anew(three):
    filings = three.file_all()
    hold_region(three)
    manifest = close(three, filings)
    withdraw(three, "de-nord")
    three.net.run(1)
    release_region(three)
    three.net.run(6)
    assert {state.partition("(")[2].rstrip(")") for state in phases(three, manifest)} <= {
        "WITHDRAWN",
        "REGION_FAILED",
        "APPROVAL_WITHDRAWN",
    }
    rest = [s for s in filings if s.filed.expect(Filed).owner != "de-nord"]
    again = close(three, rest, excluded=["de-nord"])
    assert phases(three, again) == {"COMMITTED"}


def test_a_cancelled_run_ends_before_the_commit_and_not_after(world):
    filings = world.file_all()
    hold_region(world)
    manifest = close(world, filings)
    cancel = Cancel(run=run_id_of(manifest), recipient=RECIPIENT, created_at=utc_text(world.net.now), reason="wrong")
    put(world, sign_notice(cancel, world.net.made.keys[RECIPIENT]))
    world.net.run(1)
    release_region(world)
    world.net.run(6)
    assert phases(world, manifest) == {"FAILED(CANCELLED)"}
    assert submissions(world).run(run_id_of(manifest))["state"] == "CANCELLED"
    again = close(world, filings, created_at=utc_text(world.net.now + timedelta(seconds=1)))
    assert phases(world, again) == {"COMMITTED"}
    late = Cancel(run=run_id_of(again), recipient=RECIPIENT, created_at=utc_text(world.net.now), reason="late")
    assert refused(world, sign_notice(late, world.net.made.keys[RECIPIENT])) == "RUN_COMMITTED"


def test_a_run_that_can_not_go_on_is_shown_as_stalled_and_given_up(world):
    filings = world.file_all()
    world.net.kill("sg-1")
    manifest = close(world, filings)
    world.net.run(70, step=5)
    view = submissions(world).run(run_id_of(manifest))
    assert view["state"] == "STALLED(sg-1, PEER_UNAVAILABLE)"
    world.net.now += timedelta(hours=1)
    world.net.run(2)
    assert submissions(world).run(run_id_of(manifest))["state"] == "FAILED(GIVEN_UP)"


def test_an_operator_that_was_down_at_the_close_joins_and_the_run_finishes(world):
    filings = world.file_all()
    world.net.kill("de-2")
    world.net.kill("sg-1")
    manifest = close(world, filings)
    assert "COMMITTED" not in phases(world, manifest)
    world.net.start("de-2")
    world.net.start("sg-1")
    world.net.run(8)
    assert phases(world, manifest) == {"COMMITTED"}
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()


# ------------------------------------------------------------------------------------------------------- editions


def reopen(world: World, edition: int = 2):
    notice = Reopen(
        plan=world.desk.plan.digest, period=PERIOD, edition=edition, recipient=RECIPIENT,
        due_at=utc_text(world.net.now + timedelta(hours=1)), created_at=utc_text(world.net.now), reason="a late owner",
    )  # fmt: skip
    return sign_notice(notice, world.net.made.keys[RECIPIENT])


def second_edition(three: World, **last):
    first = [
        three.desk.deliver(three.desk.seal(owner, np.arange(three.desk.lanes))) for owner in ("de-nord", "de-sued")
    ]
    three.net.settle()
    manifest = close(three, first, excluded=["de-west"])
    three.post(three.desk.ack(manifest))
    put(three, reopen(three))
    three.net.run(2)
    return [
        three.desk.deliver(
            three.desk.seal(owner, np.arange(three.desk.lanes), edition=2, **(last if owner == "de-west" else {}))
        )
        for owner in three.net.made.owners
    ]


def test_only_the_next_edition_can_be_opened(world):
    assert refused(world, reopen(world, 3)) == "EDITION_WRONG"


def test_a_second_edition_with_one_owner_more_needs_that_owners_acceptance(three):
    filings = second_edition(three)
    three.net.settle()
    manifest = three.desk.manifest(filings, edition=2)
    assert refused(three, manifest) == "MANIFEST_DIFFERENCE"
    three.post(manifest)
    three.net.run(8)
    assert {state.partition("(")[2].rstrip(")") for state in phases(three, manifest)} == {"MANIFEST_DIFFERENCE"}


def test_a_second_edition_that_the_owner_accepts_is_released(three):
    filings = second_edition(three, accepts_difference=True)
    three.net.settle()
    manifest = close(three, filings, edition=2)
    assert phases(three, manifest) == {"COMMITTED"}
    assert (three.result(manifest) == 3 * np.arange(three.desk.lanes)).all()


def test_what_the_recipient_sees_of_a_period(world):
    found = submissions(world).period(world.desk.plan.digest, PERIOD)
    assert (found["state"], found["edition"], found["run"]) == ("OPEN", 1, None)
    assert from_plain(found, PeriodStatus, what="period").owners.keys() == set(world.net.made.owners)
    assert {owner["state"] for owner in found["owners"].values()} == {"EXPECTED"}
    filings = world.file_all()
    found = submissions(world).period(world.desk.plan.digest, PERIOD)
    assert {owner["state"] for owner in found["owners"].values()} == {"AGREED"}
    assert {owner["filing"] for owner in found["owners"].values()} == {sealed.filed.digest for sealed in filings}
    manifest = close(world, filings)
    found = submissions(world).period(world.desk.plan.digest, PERIOD)
    assert (found["state"], found["run"]) == ("COMMITTED", run_id_of(manifest))
    run = from_plain(submissions(world).run(run_id_of(manifest)), RunStatus, what="run")
    assert (run.phase, run.done, len(run.statements)) == ("COMMITTED", ["de"], 6)


def test_another_recipient_learns_nothing_of_a_run_or_plan(world):
    manifest = close(world, world.file_all())
    asked = submissions(world)
    asked.require_recipient(RECIPIENT, run=run_id_of(manifest), plan=world.desk.plan.digest)
    with pytest.raises(ComityError, match="RUN_UNKNOWN"):
        asked.require_recipient("somebody-else", run=run_id_of(manifest))
    with pytest.raises(ComityError, match="PLAN_UNKNOWN"):
        asked.require_recipient("somebody-else", plan=world.desk.plan.digest)


def test_an_acknowledgement_without_a_result_is_refused(world):
    hold_region(world)
    manifest = world.desk.manifest(world.file_all(), created_at=utc_text(world.net.now))
    world.post(manifest)
    assert refused(world, world.desk.ack(manifest)) == "RUN_NOT_COMMITTED"
    unknown = world.desk.ack(sign_notice(_replace(manifest.notice, late=["x"]), world.net.made.keys[RECIPIENT]))
    assert refused(world, unknown) == "RUN_UNKNOWN"


def test_a_whole_region_that_is_left_out_is_late_and_its_owner_is_told(tmp_path):
    made = make_federation(tmp_path, {"DE": ["de-nord", "de-sued"], "SA": ["sa-gulf"]})
    world = make_world(tmp_path, made, make_plan(made.federation, min_owners=2))
    filed = [
        world.desk.deliver(world.desk.seal(owner, np.arange(world.desk.lanes))) for owner in ("de-nord", "de-sued")
    ]
    world.net.settle()
    manifest = close(world, filed, late=["sa-gulf"])
    assert set(world.states(run_id_of(manifest))) == {
        *(f"{name}@de" for name in REGION),
        *(f"{name}@group" for name in GROUP),
    }
    assert phases(world, manifest) == {"COMMITTED"}
    late = world.net.operators["sa-1"].filings.state(world.desk.plan.digest, PERIOD, "sa-gulf", 1)
    assert late.phase == "LATE"
    sealed = world.desk.deliver(world.desk.seal("sa-gulf", np.arange(world.desk.lanes)))
    world.net.settle()
    assert set(world.desk.rejections(sealed.filed.digest, "sa-gulf").values()) == {"PERIOD_CLOSED"}
    world.net.close()


def test_two_regions_cross_into_one_exact_result(tmp_path):
    made = make_federation(tmp_path, {"DE": ["de-nord", "de-sued"], "CN": ["cn-east"], "SA": ["sa-gulf"]})
    world = make_world(tmp_path, made, make_plan(made.federation, min_owners=2))
    filings = world.file_all()
    manifest = close(world, filings)
    assert (world.result(manifest) == sum(sealed.values for sealed in filings)).all()
    view = submissions(world).run(run_id_of(manifest))
    assert view["done"] == ["cn", "de", "sa"]
    world.net.close()


def test_an_acknowledgement_that_overtakes_a_confirmation_still_leaves_every_statement(world):
    world.net.tamper = lambda _s, receiver, kind, data: (
        None if receiver == "de-1" and kind == 18 and b"crossed" in data else data
    )
    filings = world.file_all()
    manifest = close(world, filings)
    run = run_id_of(manifest)
    assert "de-1" not in {
        s.expect(Statement).operator for s in world.net.operators["nl-1"].book.find("statement", run=run)
    }
    world.post(world.desk.ack(manifest))
    world.net.run(2)
    assert phases(world, manifest) == {"ERASED"}
    stated = {s.expect(Statement).operator for s in world.net.operators["nl-1"].book.find("statement", run=run)}
    assert stated == {*REGION, *GROUP}
