"""What an owner can do wrong or have done to it, over real operator processes: refused at once, with code and names."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from local_stores import closing, filing
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.errors import ConfigError, DeliveryError, NotYet, PolicyViolation, StateError
from mpc_ops.notices.model import Filed
from mpc_ops.notices.signed import run_id_of, sign_notice
from mpc_ops.sharing import Component
from tests.support.closing import save_notice
from tests.support.faults import changed, refused, says, with_part, withdrawal
from tests.support.federation import make_approval, make_plan, make_release
from tests.support.whole import until, values_of, whole_federation

pytestmark = pytest.mark.e2e
PERIOD = "2026-03"
OWNER = "de-nord"
OTHERS = ("de-sued", "de-west")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with whole_federation(tmp_path_factory.mktemp("whole")) as running:
        yield running


def check(whole, report, owner=OWNER, period=PERIOD):
    return filing.check_release(whole.owners, owner, report.name, period, open_sftp=whole.opener(owner))


# -------------------------------------------------------------------------------------------------------- approvals


def test_without_an_approval_nothing_is_read_and_nothing_runs_until_it_is_given(whole):
    report = whole.release("unapproved", PERIOD, approve=OTHERS)
    with refused(PolicyViolation, "APPROVAL_MISSING", OWNER):
        check(whole, report)
    with refused(PolicyViolation, "APPROVAL_MISSING", OWNER):
        filing.take_snapshot(whole.owners, OWNER, "sales_line", PERIOD)
    filings = whole.file_all(report, PERIOD)  # its DAG would not, but somebody with its key might
    until(closing.filings_ready, whole.group, report.name, PERIOD)
    with refused(NotYet, "APPROVAL_MISSING", OWNER, transient=True):
        closing.close(whole.group, report.name, PERIOD)
    whole.approve(report, OWNER)
    assert (whole.run(report, PERIOD) == values_of(filings)).all()


def test_an_expired_approval_stops_owner_and_close_at_once(whole):
    report = whole.release("expired", PERIOD, approve=OTHERS)
    whole.approve(report, OWNER, now=datetime.now(UTC) - timedelta(days=9), days=3)
    with refused(PolicyViolation, "APPROVAL_EXPIRED", OWNER):
        check(whole, report)
    whole.file_all(report, PERIOD)
    until(closing.filings_ready, whole.group, report.name, PERIOD)
    with refused(PolicyViolation, "APPROVAL_EXPIRED", OWNER):
        until(closing.close, whole.group, report.name, PERIOD)


def test_an_approval_that_others_signed_counts_nowhere(whole):
    report = whole.release("foreign", PERIOD, approve=OTHERS)
    right = make_approval(whole.made, report.plan, OWNER, statement=report.statement)
    forged = whole.hand_in(sign_notice(right.notice, IdentityKey.generate()))
    with refused(PolicyViolation, "APPROVAL_FOREIGN", OWNER):
        check(whole, report)
    said = whole.refusal(report, PERIOD, forged.digest, OWNER, "de-2")
    assert said.code == "SIGNATURE_INVALID"


def test_a_withdrawn_approval_stops_the_owner_erases_its_parts_and_the_others_go_on(whole):
    period = "2024-01"  # its own: the released editions of one period must not isolate an owner
    report = whole.release("withdrawn", period)
    filings = whole.file_all(report, period)
    whole.hand_in(withdrawal(whole, report, OWNER))
    with refused(PolicyViolation, "APPROVAL_WITHDRAWN", OWNER):
        check(whole, report, period=period)
    part = whole.running.spools["de-1"] / "inbox" / OWNER / f"part.{filings[OWNER].filed.expect(Filed).parts[0].sha256}"
    until(lambda: not part.exists())
    with refused(NotYet, "CLOSE_HELD", f"{OWNER} (WITHDRAWN)", transient=True):
        until(lambda: closing.period_status(whole.group, report.name, period)["owners"][OWNER]["state"] == "WITHDRAWN")
        closing.close(whole.group, report.name, period)
    del filings[OWNER]
    assert (whole.run(report, period, without=[OWNER]) == values_of(filings)).all()


def test_a_release_that_was_changed_after_the_approval_needs_a_new_one(whole):
    report = whole.release("changed", PERIOD)
    assert check(whole, report)["edition"] == 1
    plan = make_plan(whole.federation, report="changed", k=11, min_owners=2, dimensions=("segment",))
    release = make_release(whole.made, plan, now=datetime.now(UTC) + timedelta(seconds=3))
    path = save_notice(whole.owners.releases_dir, release)
    with refused(PolicyViolation, "APPROVAL_MISSING", OWNER, "only another release of it", "needs a new approval"):
        check(whole, report)
    altered = path.with_name("0" * 64 + ".dsse")
    path.rename(altered)
    with refused(PolicyViolation, "RELEASE_INVALID", altered.name):
        check(whole, report)
    altered.unlink()
    assert check(whole, report)["edition"] == 1


# ---------------------------------------------------------------------------------------------------------- periods


def test_a_period_that_the_calendar_lacks_and_a_closed_one_are_refused_by_owner_and_operators(whole):
    report = whole.release("periods", PERIOD, "2026-04")
    with refused(StateError, "PERIOD_UNKNOWN", "2031-01", "2026-03, 2026-04"):
        check(whole, report, period="2031-01")
    with refused(ConfigError, "PERIOD_UNKNOWN", "2031-01"):
        closing.close(whole.group, report.name, "2031-01")
    strange = whole.desk(report, PERIOD).seal(OWNER, np.arange(whole.desk(report, PERIOD).lanes), period=PERIOD)
    strange = whole.desk(report, PERIOD).sign(changed(strange.filed.notice, period="2031-01"))
    whole.desk(report, PERIOD).put_notice(OWNER, strange)
    said = whole.refusal(report, PERIOD, strange.digest, OWNER, "de-1")
    assert (said.code, "calendar" in said.reason) == ("PERIOD_UNKNOWN", True)

    filings = whole.file_all(report, "2026-04")
    run = whole.close(report, "2026-04")
    with refused(StateError, "PERIOD_CLOSED", OWNER, "2026-04", "run reopen"):
        until(lambda: not check(whole, report, period="2026-04"))
    late = whole.send(report, "2026-04", OWNER, take=2)
    for operator in whole.federation.operators_of(OWNER):
        assert whole.refusal(report, "2026-04", late.filed.digest, OWNER, operator).code == "PERIOD_CLOSED"
    assert (whole.result(run) == values_of(filings)).all()


# ------------------------------------------------------------------------------------------------- parts and filings


@pytest.fixture(scope="module")
def report(whole):
    """One report for what goes wrong with single filings; each test has its own period."""
    return whole.release("parts", *(f"2025-{month:02d}" for month in range(1, 13)))


def sealed(whole, report, period, owner=OWNER, **more):
    desk = whole.desk(report, period)
    return desk.seal(owner, np.random.default_rng().integers(-(10**9), 10**9, desk.lanes), period=period, **more)


def expect_code(whole, report, bad, operator, code):
    filed = bad.filed.expect(Filed)
    said = whole.refusal(report, filed.period, bad.filed.digest, filed.owner, operator)
    assert said.code == code, said
    assert not whole.desk(report, filed.period).receipts(bad)
    return said


def closes_with_a_new_take(whole, report, period, take=2):
    """Whatever was wrong, the owner shares again, and the period ends in the right result."""
    filings = {OWNER: whole.file(report, period, OWNER, take=take), **whole.file_all(report, period, but=[OWNER])}
    assert (whole.run(report, period) == values_of(filings)).all()


def test_the_same_filing_again_is_a_no_op_and_another_under_its_number_a_duplicate(whole, report):
    first = whole.file(report, "2025-01", OWNER)
    desk = whole.desk(report, "2025-01")
    desk.deliver(first)
    other = whole.send(report, "2025-01", OWNER)
    for operator in whole.federation.operators_of(OWNER):
        expect_code(whole, report, other, operator, "FILING_DUPLICATE")
    assert len(desk.receipts(first)) == 3
    filings = {OWNER: first, **whole.file_all(report, "2025-01", but=[OWNER])}
    assert (whole.run(report, "2025-01") == values_of(filings)).all()


@pytest.mark.parametrize(
    ("period", "cut", "code"),
    [
        ("2025-02", lambda box: box[:-40], "PART_TRUNCATED"),
        ("2025-03", lambda box: box[:-1] + bytes([box[-1] ^ 1]), "PART_ALTERED"),
    ],
)
def test_a_part_damaged_in_the_drop_box_is_refused_where_it_lies_and_the_owner_hears_of_it(
    whole, report, period, cut, code
):
    bad = sealed(whole, report, period)
    bad.parts["de-2"] = cut(bad.parts["de-2"])
    whole.desk(report, period).deliver(bad)
    said = expect_code(whole, report, bad, "de-2", code)
    assert not said.pair
    for other in ("de-1", "de-3"):
        assert whole.refusal(report, period, bad.filed.digest, OWNER, other).pair == ["de-2", OWNER]
    status = until(
        lambda: (
            (s := closing.period_status(whole.group, report.name, period)["owners"][OWNER])["state"] == "DISPUTED" and s
        )
    )
    assert status["code"] == code
    closes_with_a_new_take(whole, report, period)


def test_a_replayed_and_a_foreign_part_are_refused_by_name(whole, report):
    period = "2025-04"
    first = whole.file(report, period, OWNER)
    again = with_part(whole.desk(report, period), sealed(whole, report, period, take=2), "de-1", first.parts["de-1"])
    whole.desk(report, period).deliver(again)
    expect_code(whole, report, again, "de-1", "PART_REPLAYED")
    theirs = whole.file(report, period, "de-sued")
    foreign = with_part(whole.desk(report, period), sealed(whole, report, period, take=3), "de-3", theirs.parts["de-3"])
    whole.desk(report, period).deliver(foreign)
    expect_code(whole, report, foreign, "de-3", "PART_FOREIGN")
    filings = {
        OWNER: whole.file(report, period, OWNER, take=4),
        "de-sued": theirs,
        "de-west": whole.file(report, period, "de-west"),
    }
    assert (whole.run(report, period) == values_of(filings)).all()


def test_a_part_sealed_for_another_operator_can_not_be_opened(whole, report):
    period = "2025-05"
    good = sealed(whole, report, period)
    bad = with_part(whole.desk(report, period), good, "de-1", good.parts["de-2"])
    whole.desk(report, period).deliver(bad)
    expect_code(whole, report, bad, "de-1", "SEAL_BROKEN")


def inconsistent(operator, part):
    """One holder gets a component that is not the one the other holder has."""
    if operator != "de-3":
        return part
    vector = part.first.expand(part.lanes).copy()
    vector[0] += 1
    return replace(part, first=Component(explicit=vector))


def test_an_owner_with_inconsistent_components_is_disputed_and_only_a_signed_manifest_leaves_it_out(whole, report):
    period = "2025-06"
    bad = sealed(whole, report, period, alter=inconsistent)
    whole.desk(report, period).deliver(bad)
    said = expect_code(whole, report, bad, "de-3", "COMMITMENT_MISMATCH")
    assert said.pair == ["de-3", OWNER]
    parcel = {"filing": bad.filed.digest}
    filings = whole.file_all(report, period, but=[OWNER])
    status = until(
        lambda: (
            (s := closing.period_status(whole.group, report.name, period)["owners"][OWNER])["state"] == "DISPUTED" and s
        )
    )
    assert (status["code"], status["blamed"]) == ("COMMITMENT_MISMATCH", ["de-3", OWNER])
    with refused(NotYet, "CLOSE_HELD", f"{OWNER} (COMMITMENT_MISMATCH)", transient=True):
        closing.close(whole.group, report.name, period)
    whole.owners.state.write(f"out/{parcel['filing']}/filed.dsse", bad.filed.envelope.to_bytes())
    with refused(DeliveryError, "FILING_DISPUTED", "de-3", OWNER):
        until(filing.receipts_ready, whole.owners, OWNER, parcel, open_sftp=whole.opener(OWNER))
    run = whole.close(report, period, exclude=[OWNER])
    assert (whole.result(run) == values_of(filings)).all()
    (manifest,) = [s.notice for s in whole.notices("de-1", "manifest", run=run["run_id"])]
    assert list(manifest.excluded) == [OWNER]


def test_a_disputed_filing_in_a_manifest_is_refused_by_the_operators_that_hold_it(whole, report):
    """Somebody at group reporting may sign a manifest over a disputed filing; nothing is computed with it."""
    period = "2025-07"
    bad = sealed(whole, report, period, alter=inconsistent)
    whole.desk(report, period).deliver(bad)
    expect_code(whole, report, bad, "de-3", "COMMITMENT_MISMATCH")
    whole.refusal(report, period, bad.filed.digest, OWNER, "de-2")
    filings = [bad, *whole.file_all(report, period, but=[OWNER]).values()]
    manifest = whole.desk(report, period).manifest(filings, period=period)
    until(lambda: 201 in whole.running.post(manifest))
    run = {"run_id": run_id_of(manifest)}
    found = until(
        lambda: len(s := {k: v for k, v in whole.states("nl-1", run).items() if k.endswith("@de")}) >= 2 and s
    )
    assert {state.code for state in found.values()} == {"FILING_NOT_AGREED"}
    # Whoever hears of a peer's refusal before it has looked itself ends as FAILED with the same code.
    ended = {state.state for state in found.values()}
    assert "REFUSED" in ended
    assert ended <= {"REFUSED", "FAILED"}


# ------------------------------------------------------------------------------------------------ sign-off and Gate


def test_figures_that_nobody_signed_are_neither_sealed_nor_accepted(whole):
    report = whole.release("unsigned", PERIOD)
    contribution = whole.contribute(report, PERIOD, OWNER)
    whole.sign(report, PERIOD, OWNER, people=1)
    assert filing.sign_off_ready(whole.owners, OWNER, report.name, PERIOD, contribution) is None
    with refused(PolicyViolation, "SIGN_OFF_MISSING", OWNER):
        whole.seal(report, PERIOD, OWNER, contribution)
    bad = whole.send(report, PERIOD, OWNER, signers=["de-nord-signer-1"])
    said = expect_code(whole, report, bad, "de-1", "SIGN_OFF_MISSING")
    assert OWNER in said.reason or "sign" in said.reason


def test_signatures_over_other_figures_or_of_strangers_do_not_count(whole):
    report = whole.release("othersigned", PERIOD)
    contribution = whole.contribute(report, PERIOD, OWNER)
    whole.sign(report, PERIOD, OWNER)
    ready = dict(filing.sign_off_ready(whole.owners, OWNER, report.name, PERIOD, contribution))
    with refused(PolicyViolation, "SIGN_OFF_FOREIGN", OWNER):
        filing.share_and_seal(
            whole.owners, OWNER, report.name, PERIOD, contribution, {**ready, "commitment": "0" * 64},
            open_sftp=whole.opener(OWNER),
        )  # fmt: skip
    with refused(PolicyViolation, "SIGN_OFF_FOREIGN", "de-sued-signer-1"):
        filing.sign_off(
            whole.owners, OWNER, report.name, PERIOD, signer="de-sued-signer-1",
            key=whole.made.people["de-sued-signer-1"],
        )  # fmt: skip
    desk = whole.desk(report, PERIOD)
    good = sealed(whole, report, PERIOD).filed.expect(Filed)
    signed = sign_notice(changed(good, contribution="ab" * 32), whole.made.keys[OWNER])
    desk.put_notice(OWNER, signed)
    assert whole.refusal(report, PERIOD, signed.digest, OWNER, "de-2").code == "SIGN_OFF_FOREIGN"


def test_a_gate_with_k_below_the_terms_is_refused_by_every_operator(whole, report):
    period = "2025-08"
    bad = whole.send(report, period, OWNER, gate_k=9)
    for operator in whole.federation.operators_of(OWNER):
        said = expect_code(whole, report, bad, operator, "GATE_TOO_LOW")
        assert "smaller k than the terms demand" in said.reason
    parcel = {"filing": bad.filed.digest}
    whole.owners.state.write(f"out/{parcel['filing']}/filed.dsse", bad.filed.envelope.to_bytes())
    with pytest.raises(DeliveryError) as caught:
        until(filing.receipts_ready, whole.owners, OWNER, parcel, open_sftp=whole.opener(OWNER))
    says(caught.value, "FILING_REJECTED", "GATE_TOO_LOW", OWNER)
    closes_with_a_new_take(whole, report, period)
