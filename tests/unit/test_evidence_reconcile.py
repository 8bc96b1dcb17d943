"""Double entry and the checks over a run: what each kind of contradiction looks like to a reviewer."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from mpc_ops.errors import EvidenceError
from mpc_ops.evidence.checks import assess
from mpc_ops.evidence.derive import derive_facts
from mpc_ops.evidence.ledger import LedgerEntry
from mpc_ops.evidence.material import gather
from mpc_ops.evidence.page import render_page
from mpc_ops.evidence.verify import verify_pack
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import Approval, Erased, ResultCommitment, State, Withdrawal
from mpc_ops.notices.signed import sign_notice, utc_text
from tests.support.evidence import NOW, Books, MadeRun, make_pack, make_run
from tests.support.federation import SMALL, make_approval, make_federation

CROSS = PayloadClass.AGGREGATE_SHARE


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("federation"), SMALL)


def run_with(made, alter=None, **more) -> MadeRun:
    return make_run(made.folder, made=made, alter=alter, **more)


def status(run: MadeRun) -> dict[str, str]:
    return {check.name: check.status for check in assess(run.evidence()).checks}


def problems(run: MadeRun, name: str) -> str:
    return "; ".join(next(check for check in assess(run.evidence()).checks if check.name == name).problems)


def crossing(entry: LedgerEntry) -> bool:
    return entry.payload_class == CROSS and entry.event == "frame_sent" and entry.receiver == "ch-1"


def arriving(entry: LedgerEntry) -> bool:
    return entry.payload_class == CROSS and entry.event == "frame_received" and entry.sender == "de-1"


def replace(books: Books, party: str, wanted, **changes) -> None:
    log = books.logs[party]
    place = next(i for i, entry in enumerate(log) if wanted(entry))
    log[place] = msgspec.structs.replace(log[place], **changes)


def test_a_whole_run_passes_every_check(made):
    run = run_with(made)
    assert set(status(run).values()) == {"passed"}
    both = assess(run.evidence()).reconciliation
    assert both.agreed == both.frames > 0
    flows = [flow.as_dict() for flow in both.crossings]
    assert {"from", "to", "payload_class", "bytes", "messages"} == set(flows[0])
    assert not [flow for flow in flows if flow["payload_class"].startswith("record")]
    assert {(flow["from"], flow["to"]) for flow in flows if flow["payload_class"] == CROSS} == {
        ("DE", "CH"), ("DE", "NL"), ("DE", "SG"),
    }  # fmt: skip
    assert next(flow for flow in both.crossings if (flow.origin, flow.target) == ("DE", "NL")).same_area


@pytest.mark.parametrize(
    ("party", "wanted", "who", "words"),
    [
        ("ch-1", arriving, "de-1", "sent, not logged as received"),
        ("de-1", crossing, "ch-1", "received, not logged as sent"),
    ],
)
def test_a_dropped_data_frame_fails_and_both_are_named(made, party, wanted, who, words):
    run = run_with(made, lambda books, _: books.drop(party, wanted))
    assert status(run)["reconciliation"] == "failed"
    assert words in problems(run, "reconciliation")
    assert "de-1 to ch-1" in problems(run, "reconciliation")
    assert who in problems(run, "reconciliation")
    with pytest.raises(EvidenceError, match="EVIDENCE_CONTRADICTS"):
        assess(run.evidence()).require()


@pytest.mark.parametrize("change", [{"bytes": 1}, {"payload_class": PayloadClass.CONTROL_METADATA}, {"attempt": 2}])
def test_two_ends_that_say_different_things_fail(made, change):
    run = run_with(made, lambda books, _: replace(books, "ch-1", arriving, **change))
    assert status(run)["reconciliation"] == "failed"
    assert "the two ends name another" in problems(run, "reconciliation")


def test_a_frame_logged_twice_fails(made):
    def twice(books, _):
        entry = next(entry for entry in books.logs["ch-1"] if arriving(entry))
        books.logs["ch-1"].append(entry)
        books.renumber("ch-1")

    assert "logged twice" in problems(run_with(made, twice), "reconciliation")


def test_a_lost_frame_of_a_given_up_attempt_is_open_and_a_control_frame_is_under_way(made):
    def lost(books, run):
        place = {"run": run, "cluster": "de", "attempt": 0}
        books.frame("de-1", "nl-1", CROSS, 50, receipt=False, **place)
        books.frame(
            "nl-1", "ch-1", PayloadClass.CONTROL_METADATA, 70, receipt=False, run=run, cluster="group", attempt=1
        )

    run = run_with(made, lost)
    assert status(run)["reconciliation"] == "open"
    assert "1 control frames were under way" in assess(run.evidence()).checks[5].done


def stage_run(made, attempt=1, kind=PayloadClass.RECORD_SHARE, **more):
    """A run whose region operators also exchanged 40 frames of a stage; attempt 1 is the committed one."""

    def add(books, run):
        books.stage("de-1", "de-2", kind, 40, 9000, run=run, cluster="de", attempt=attempt, **more)

    return run_with(made, add)


def test_frames_of_a_stage_agree_and_are_counted_one_by_one(made):
    plain, run = (assess(item.evidence()).reconciliation for item in (run_with(made), stage_run(made)))
    assert set(status(stage_run(made)).values()) == {"passed"}
    assert (run.frames, run.agreed) == (plain.frames + 40, plain.agreed + 40)
    assert run.by_party["de-1", "de-2", "record_share"] == (40, 9000)
    assert run.record_messages == 0  # both sit in one country


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        ({"digest": "0" * 64}, "name another digest"),
        ({"frames": 39}, "name another frames"),
        ({"frames": 41}, "received more than was sent"),
        ({"bytes": 8999}, "name another bytes"),
        ({"payload_class": PayloadClass.MAC_OR_COMMITMENT}, "name another class"),
    ],
)
@pytest.mark.parametrize("kind", [PayloadClass.RECORD_SHARE, PayloadClass.MAC_OR_COMMITMENT])
def test_two_ends_of_a_committed_stage_that_differ_fail_whatever_the_class(made, alter, words, kind):
    if alter.get("payload_class") == kind:
        alter = {"payload_class": PayloadClass.CONTROL_METADATA}
    run = stage_run(made, kind=kind, alter=alter)
    assert status(run)["reconciliation"] == "failed"
    assert words in problems(run, "reconciliation")
    assert "de-1 to de-2" in problems(run, "reconciliation")


@pytest.mark.parametrize("end", [{"sent": False}, {"receipt": False}])
def test_a_committed_stage_that_one_end_logged_fails(made, end):
    run = stage_run(made, **end)
    assert "logged by one end only (de-" in problems(run, "reconciliation")
    assert status(run)["reconciliation"] == "failed"


@pytest.mark.parametrize(
    "more", [{"sent": False}, {"receipt": False}, {"alter": {"frames": 12, "bytes": 300, "digest": "0" * 64}}]
)
def test_what_was_under_way_when_an_attempt_was_given_up_is_open_for_data_and_in_flight_for_check_sums(made, more):
    data = stage_run(made, attempt=2, **more)
    assert status(data)["reconciliation"] == "open"
    assert "in an attempt that was given up" in problems(data, "reconciliation")
    sums = stage_run(made, attempt=2, kind=PayloadClass.MAC_OR_COMMITMENT, **more)
    assert status(sums)["reconciliation"] == "passed"


def test_more_received_than_sent_fails_even_in_an_attempt_that_was_given_up(made):
    run = stage_run(made, attempt=2, alter={"frames": 41})
    assert status(run)["reconciliation"] == "failed"


def test_a_part_that_the_owner_never_filed_or_of_another_length_fails(made):
    def wanted(entry):
        return entry.event == "frame_received" and entry.sender == "de-nord"

    run = run_with(made, lambda books, _: replace(books, "de-1", wanted, bytes=7))
    assert "another length than its filing says" in problems(run, "reconciliation")
    run = run_with(made, lambda books, _: replace(books, "de-1", wanted, digest="f" * 64))
    assert "signed no log or filing of it" in problems(run, "reconciliation")


def test_record_level_classes_across_a_border_fail_at_classes_and_at_rules(made, tmp_path):
    def leak(books, run):
        books.frame("de-1", "ch-1", PayloadClass.RECORD_SHARE, 800, run=run, cluster="de", attempt=1)

    run = run_with(made, leak)
    assert (status(run)["records"], status(run)["rules"]) == ("failed", "failed")
    assert "1 messages of record-level classes crossed a border (800 bytes)" in problems(run, "records")
    assert "record_share DE to CH" in problems(run, "rules")
    pack = make_pack(run, tmp_path / "pack")
    verdict = verify_pack(pack)
    assert not verdict.ok
    page = (pack / "page.html").read_text()
    assert "RECORD LEVEL, secret shares" in page
    assert "CHECKS FAILED" in page


def test_an_operator_that_attests_other_flows_than_it_logged(made):
    run = run_with(made)
    run.books.frame("de-1", "nl-1", CROSS, 77, run=run.run, cluster="de", attempt=1)
    first = dict(run.attestations), [n for n in run.notices if n.kind == "statement"]
    run.sign_books()
    _with_first_statements(run, first)
    assert "de-1 attests" not in problems(run, "attestations")  # a longer log is fine: the statement covers its part
    run.books.drop("de-1", crossing)
    run.sign_books()
    _with_first_statements(run, first)
    assert "de-1 attests a log head that is not in its log" in problems(run, "attestations")


def _with_first_statements(run: MadeRun, first) -> None:
    run.attestations, statements = dict(first[0]), first[1]
    run.notices = [n for n in run.notices if n.kind not in {"statement", "ack", "erased", "outcome"}] + statements


def test_a_missing_log_and_a_missing_attestation_name_the_operator(made):
    run = run_with(made)
    del run.ledgers["sg-1"], run.attestations["sg-1"]
    assert "no transfer log of sg-1" in problems(run, "logs")
    assert "no run attestation by sg-1" in problems(run, "attestations")


def test_result_commitments_that_differ_name_the_pair(made):
    run = run_with(made)
    for place, signed in enumerate(run.notices):
        if isinstance(signed.notice, ResultCommitment) and signed.notice.operator == "ch-1":
            said = [None if c is None else "9" * 64 for c in signed.notice.commitments]
            run.notices[place] = sign_notice(
                msgspec.structs.replace(signed.notice, commitments=said), made.keys["ch-1"]
            )
    assert status(run)["result"] == "failed"
    assert "ch-1 and nl-1 committed to different components" in problems(run, "result")


def test_approvals_missing_expired_and_withdrawn_before_the_close(made):
    run = run_with(made)
    mine = [n for n in run.notices if not isinstance(n.notice, Approval) or n.notice.owner != "de-sued"]
    run.notices = mine
    assert "no valid approval by de-sued" in problems(run, "approvals")
    run.notices = [*mine, make_approval(made, run.plan, "de-sued", now=NOW, days=-1, statement=run.statement)]
    assert "no valid approval by de-sued" in problems(run, "approvals")
    run = run_with(made)
    stop = Withdrawal(
        plan=run.plan.digest, owner="de-sued", created_at=utc_text(NOW - timedelta(seconds=1)), reason="stop"
    )
    run.notices.append(sign_notice(stop, made.approver("de-sued")))
    assert "no valid approval by de-sued" in problems(run, "approvals")
    same_second = msgspec.structs.replace(stop, created_at=utc_text(NOW))
    run.notices[-1] = sign_notice(same_second, made.approver("de-sued"))
    assert status(run)["approvals"] == "passed"  # the operators held it before the close, or computed without it
    late = msgspec.structs.replace(stop, created_at="2026-05-01T00:00:00Z")
    run.notices[-1] = sign_notice(late, made.approver("de-sued"))
    assert status(run)["approvals"] == "passed"  # a later withdrawal stops the next run, not this one


def test_an_approval_of_another_planned_transfer_statement_does_not_count(made):
    run = run_with(made)
    run.notices = [n for n in run.notices if not isinstance(n.notice, Approval) or n.notice.owner != "de-sued"]
    run.notices.append(make_approval(made, run.plan, "de-sued", now=NOW, statement="5" * 64))
    assert "no valid approval by de-sued" in problems(run, "approvals")


def test_what_is_not_there_yet_is_open_and_not_failed(made):
    run = run_with(made, closed=False)
    assert status(run)["closing"] == "open"
    assert "share deletion not yet attested by 6 of 6" in problems(run, "closing")
    run.close(erased=["de-1", "de-2"])
    assert "share deletion not yet attested by 4 of 6" in problems(run, "closing")
    assert run.closing is None
    run = run_with(made, closed=False)
    run.close(countersign=["group-reporting", "de-nord"])
    assert problems(run, "closing") == "closing attestation not countersigned by de-sued"


def test_a_party_that_signs_two_versions_is_refused(made):
    run = run_with(made)
    twice = Erased(run=run.run, operator="de-1", what=["something else"], created_at=utc_text(NOW))
    run.notices.append(sign_notice(twice, made.keys["de-1"]))
    with pytest.raises(EvidenceError, match="EVIDENCE_TWICE"):
        run.evidence()


def test_material_of_another_run_is_refused_or_left_out(made):
    one, other = run_with(made), make_run(made.folder, made=made)
    other.manifest = one.manifest
    assert other.run == one.run
    foreign = msgspec.structs.replace(one.manifest.notice, give_up_at="2026-04-08T00:00:00Z")
    foreign = sign_notice(foreign, made.keys["group-reporting"])
    with pytest.raises(EvidenceError, match="STATEMENT_FOREIGN"):
        gather(made.federation, foreign, one.notices, attestations=one.attestations.values())
    with pytest.raises(EvidenceError, match="LEDGER_INVALID"):
        gather(made.federation, foreign, one.notices, ledgers=one.ledgers.values())


def refused_run(made) -> MadeRun:
    run = run_with(made, closed=False)
    run.notices = [
        n
        for n in run.notices
        if n.kind in {"release", "reference", "filed", "receipt", "manifest"}
        or (n.kind == "approval" and n.expect(Approval).owner != "de-sued")
    ]
    run.attestations, run.ledgers = {}, {}
    for op in ("de-1", "de-2", "de-3"):
        state = State(
            run=run.run, cluster="de", operator=op, attempt=0, state="REFUSED", code="APPROVAL_MISSING",
            created_at=utc_text(NOW),
        )  # fmt: skip
        run.notices.append(sign_notice(state, made.keys[op]))
    return run


def test_a_refused_run_has_a_page_too_and_its_evidence_holds(made, tmp_path):
    run = refused_run(made)
    facts = derive_facts(assess(run.evidence()))
    assert facts.outcome == "REFUSED"
    assert facts.verdict.startswith("RUN REFUSED, NOTHING WAS COMPUTED OR RELEASED")
    page = render_page(facts).decode()
    assert "REFUSED APPROVAL_MISSING at de-1, de-2, de-3" in page
    assert "no valid approval by de-sued" in page
    verdict = verify_pack(make_pack(run, tmp_path / "pack"))
    assert verdict.ok, [check.problems for check in verdict.refused]
    assert verdict.outcome == "REFUSED"
