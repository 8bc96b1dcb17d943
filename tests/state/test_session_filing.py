"""The filing table: every pair, the agreement of the holders, and what a run's end does."""

from __future__ import annotations

import itertools

import pytest

from mpc_ops.errors import ComityError, DeliveryError, StateError
from mpc_ops.session import (
    FILING,
    FILING_PHASES,
    AnnounceFiling,
    AskFiling,
    EraseParts,
    ExpireFiling,
    Filed,
    FilingRejected,
    FilingState,
    HolderClaim,
    HolderDisputes,
    ManifestNames,
    ManifestOmits,
    RunEnded,
    SendClaim,
    SendReceipt,
    Withdrawn,
    from_json,
    new_filing,
    to_json,
)
from tests.support.core import PLAN, RUN, hex32

ONE, TWO = hex32("take 1"), hex32("take 2")
OTHER_RUN = hex32("another run")


def steps(*events, state=None):
    state = state or new_filing(PLAN, "2026-10", "de1", 1, 0)
    actions = ()
    for event in events:
        state, actions = FILING.step(state, event)
    return state, actions


AGREE = (Filed(1, ONE), HolderClaim(1, 1, ONE), HolderClaim(2, 1, ONE))
STATES = {
    "EXPECTED": (),
    "RECEIVED": AGREE[:1],
    "AGREED": AGREE,
    "REJECTED": (FilingRejected(1, "PART_INVALID"),),
    "DISPUTED": (Filed(1, ONE), HolderDisputes(1, "COMMITMENT_MISMATCH", ("de-1", "de-2"))),
    "WITHDRAWN": (Withdrawn(),),
    "INCLUDED": (*AGREE, ManifestNames(RUN, 1, ONE)),
    "LATE": (*AGREE, ManifestOmits(RUN)),
    "ERASED": (*AGREE, ManifestNames(RUN, 1, ONE), RunEnded(RUN, committed=True)),
    "EXPIRED": (*AGREE, ExpireFiling()),
}
OPEN = {"EXPECTED", "RECEIVED", "AGREED", "REJECTED", "DISPUTED"}
GONE = {"WITHDRAWN", "ERASED", "EXPIRED"}

# (event, {phase: next phase or error code}); a phase that is not named stays.
TABLE = [
    (Filed(2, TWO), {**dict.fromkeys(OPEN, "RECEIVED"), **dict.fromkeys(GONE | {"INCLUDED", "LATE"}, "PERIOD_CLOSED")}),
    (Filed(2, TWO, nil=True), {**dict.fromkeys(OPEN, "AGREED"), **dict.fromkeys(GONE | {"INCLUDED", "LATE"}, "PERIOD_CLOSED")}),
    (Filed(1, ONE), {"EXPECTED": "RECEIVED", "REJECTED": "RECEIVED", **dict.fromkeys(GONE | {"LATE"}, "PERIOD_CLOSED")}),
    (
        Filed(1, TWO),
        {
            "EXPECTED": "RECEIVED", "REJECTED": "RECEIVED",
            **dict.fromkeys(("RECEIVED", "AGREED", "DISPUTED", "INCLUDED"), "FILING_CONFLICT"),
            **dict.fromkeys(GONE | {"LATE"}, "PERIOD_CLOSED"),
        },
    ),
    (FilingRejected(1, "PART_INVALID"), dict.fromkeys(("EXPECTED", "RECEIVED", "REJECTED"), "REJECTED")),
    (FilingRejected(2, "PART_INVALID"), dict.fromkeys(OPEN, "REJECTED")),
    (HolderClaim(1, 1, ONE), {}),
    (HolderClaim(1, 1, TWO), {"RECEIVED": "DISPUTED"}),
    (HolderClaim(1, 2, TWO), {}),
    (HolderDisputes(1, "COMMITMENT_MISMATCH", ("de-1", "de-2")), dict.fromkeys(("RECEIVED", "AGREED"), "DISPUTED")),
    (HolderDisputes(2, "COMMITMENT_MISMATCH", ("de-1", "de-2")), {}),
    (Withdrawn(), dict.fromkeys(OPEN | {"LATE"}, "WITHDRAWN")),
    (
        ManifestNames(RUN, 1, ONE),
        {"AGREED": "INCLUDED", **dict.fromkeys(("EXPECTED", "RECEIVED", "REJECTED", "DISPUTED", "LATE", *GONE), "FILING_NOT_AGREED")},
    ),
    (
        ManifestNames(OTHER_RUN, 2, TWO),
        {
            "EXPECTED": "FILING_NOT_AGREED", "INCLUDED": "RUN_EXISTS",
            **dict.fromkeys(("RECEIVED", "AGREED", "REJECTED", "DISPUTED"), "FILING_CHANGED"),
            **dict.fromkeys(GONE | {"LATE"}, "FILING_NOT_AGREED"),
        },
    ),
    (ManifestOmits(OTHER_RUN), {**dict.fromkeys(OPEN, "LATE"), "INCLUDED": "RUN_EXISTS"}),
    (RunEnded(RUN, committed=False), {"INCLUDED": "AGREED", "LATE": "EXPECTED"}),
    (RunEnded(RUN, committed=True), {"INCLUDED": "ERASED"}),
    (RunEnded(OTHER_RUN, committed=True), {}),
    (AskFiling(), {}),
    (ExpireFiling(), {**dict.fromkeys(OPEN | {"LATE"}, "EXPIRED"), "INCLUDED": "ERASED"}),
]  # fmt: skip


@pytest.mark.parametrize("phase", FILING_PHASES)
@pytest.mark.parametrize(
    ("event", "wanted"), TABLE, ids=[str(number) + type(row[0]).__name__ for number, row in enumerate(TABLE)]
)
def test_every_pair_does_what_the_table_says(phase, event, wanted):
    state, _ = steps(*STATES[phase])
    assert state.phase == phase
    expected = wanted.get(phase, phase)
    stored = to_json(state)
    if expected in FILING_PHASES:
        after, _ = FILING.step(state, event)
        assert after.phase == expected
        assert from_json(FilingState, to_json(after)) == after
    else:
        with pytest.raises(ComityError) as caught:
            FILING.step(state, event)
        assert caught.value.code == expected
    assert to_json(state) == stored


@pytest.mark.parametrize("order", list(itertools.permutations(AGREE)))
def test_agreement_comes_in_any_order_with_one_receipt(order):
    state, actions = steps(*order)
    assert state.phase == "AGREED"
    assert [action for action in actions if isinstance(action, SendReceipt)] == [SendReceipt(1, ONE)]


def test_no_receipt_before_all_three_agree():
    state, actions = steps(*AGREE[:2])
    assert state.phase == "RECEIVED"
    assert not actions
    state, actions = steps(HolderClaim(1, 1, ONE), state=state)
    assert state.phase == "RECEIVED", "one peer twice is not two peers"


def test_a_resend_repeats_claim_or_receipt_and_asks_are_answered_once():
    received, _ = steps(Filed(1, ONE))
    assert FILING.step(received, Filed(1, ONE))[1] == (SendClaim(1, ONE),)
    assert FILING.step(received, AskFiling())[1] == (SendClaim(1, ONE, ask=True),)
    assert FILING.step(received, HolderClaim(1, 1, ONE, ask=True))[1][0] == SendClaim(1, ONE)
    agreed, _ = steps(*AGREE)
    assert FILING.step(agreed, Filed(1, ONE))[1] == (SendReceipt(1, ONE),)
    assert FILING.step(agreed, HolderClaim(1, 1, ONE, ask=True))[1] == (SendClaim(1, ONE),)
    assert FILING.step(agreed, HolderClaim(1, 1, ONE))[1] == ()


def test_a_disputed_filing_never_gets_a_receipt_by_resending():
    state, actions = steps(*STATES["DISPUTED"], Filed(1, ONE))
    assert state.phase == "DISPUTED"
    assert actions == (AnnounceFiling("DISPUTED", "COMMITMENT_MISMATCH", ("de-1", "de-2")),)


def test_two_notices_for_one_take_name_the_owner():
    state, actions = steps(Filed(1, ONE), HolderClaim(1, 1, TWO))
    assert (state.phase, state.code, state.blamed) == ("DISPUTED", "FILING_CONFLICT", ("de1",))
    assert AnnounceFiling("DISPUTED", "FILING_CONFLICT", ("de1",)) in actions
    with pytest.raises(DeliveryError):
        steps(*AGREE, Filed(1, TWO))


def test_a_newer_take_supersedes_and_erases_and_needs_its_own_claims():
    state, actions = steps(*AGREE, Filed(2, TWO))
    assert (state.phase, state.take) == ("RECEIVED", 2)
    assert actions[0] == EraseParts(1)
    state, _ = steps(HolderClaim(1, 2, TWO), HolderClaim(2, 2, TWO), state=state)
    assert state.phase == "AGREED"
    with pytest.raises(StateError) as caught:
        steps(Filed(1, ONE), state=state)
    assert caught.value.code == "FILING_SUPERSEDED"


def test_a_new_take_ends_a_dispute_and_a_rejection():
    for phase in ("DISPUTED", "REJECTED"):
        state, _ = steps(*STATES[phase], Filed(2, TWO), HolderClaim(1, 2, TWO), HolderClaim(2, 2, TWO))
        assert (state.phase, state.code, state.blamed) == ("AGREED", "", ())


def test_a_rejection_names_owner_and_code_and_erases():
    state, actions = steps(*AGREE, FilingRejected(2, "PART_INVALID"))
    assert (state.phase, state.take, state.code) == ("REJECTED", 2, "PART_INVALID")
    assert actions == (EraseParts(2), AnnounceFiling("REJECTED", "PART_INVALID", ("de1",)))


def test_withdrawal_while_included_takes_effect_if_the_run_fails():
    state, actions = steps(*STATES["INCLUDED"], Withdrawn())
    assert (state.phase, state.withdrawn, actions) == ("INCLUDED", True, ())
    failed, actions = steps(RunEnded(RUN, committed=False), state=state)
    assert failed.phase == "WITHDRAWN"
    assert EraseParts(1) in actions
    done, _ = steps(RunEnded(RUN, committed=True), state=state)
    assert done.phase == "ERASED"


def test_a_failed_run_can_be_closed_again_under_another_run_id():
    state, _ = steps(*STATES["INCLUDED"], RunEnded(RUN, committed=False), ManifestNames(OTHER_RUN, 1, ONE))
    assert (state.phase, state.run_id) == ("INCLUDED", OTHER_RUN)


def test_a_late_owner_of_a_failed_run_may_file_again_with_a_new_take():
    state, actions = steps(*STATES["LATE"], RunEnded(RUN, committed=False))
    assert state.phase == "EXPECTED"
    assert EraseParts(1) in actions
    state, _ = steps(Filed(2, TWO), HolderClaim(1, 2, TWO), HolderClaim(2, 2, TWO), state=state)
    assert state.phase == "AGREED"


def test_refusals_say_what_to_do_next():
    with pytest.raises(StateError) as caught:
        steps(*STATES["INCLUDED"], Filed(2, TWO))
    assert "reopen" in caught.value.hint
    with pytest.raises(StateError) as caught:
        steps(*AGREE, Filed(2, TWO), ManifestNames(RUN, 1, ONE))
    assert (caught.value.code, caught.value.expected, caught.value.got) == ("FILING_CHANGED", "take 2", "take 1")


def test_table_is_its_own_documentation():
    text = FILING.as_markdown()
    assert "| INCLUDED | RunEnded | its run failed | AGREED, WITHDRAWN | can be closed anew, unless withdrawn |" in text
    assert "    AGREED --> INCLUDED: ManifestNames\n" in FILING.as_diagram()


@pytest.mark.parametrize("phase", ["AGREED", "DISPUTED", "REJECTED"])
def test_a_peers_claim_that_is_faster_than_the_owners_new_take_is_kept_for_it(phase):
    state, actions = steps(*STATES[phase], HolderClaim(1, 2, TWO), HolderClaim(2, 2, TWO))
    assert (state.phase, actions) == (phase, ())
    state, actions = steps(Filed(2, TWO), state=state)
    assert state.phase == "AGREED"
    assert SendReceipt(2, TWO) in actions
