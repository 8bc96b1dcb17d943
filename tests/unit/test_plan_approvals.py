from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.errors import PolicyViolation
from mpc_ops.notices.model import Withdrawal
from mpc_ops.notices.signed import sign_notice, utc_text
from mpc_ops.plan.approvals import approval_state
from mpc_ops.plan.difference import EditionOwners, check_difference
from tests.support.federation import make_approval, make_federation, make_plan

NOW = datetime(2026, 4, 6, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def plan(made):
    return make_plan(made.federation)


def withdrawal(made, plan, owner="de-nord", *, now=NOW, key=None):
    notice = Withdrawal(plan=plan.digest, owner=owner, created_at=utc_text(now), reason="review")
    return sign_notice(notice, key or made.approver(owner))


def ask(made, plan, approvals=(), withdrawals=(), *, now=NOW, statement=None):
    return approval_state(made.federation, plan, approvals, withdrawals, "de-nord", now=now, statement=statement)


def code_of(*args, **kwargs):
    with pytest.raises(PolicyViolation) as info:
        ask(*args, **kwargs)
    assert info.value.ids["owner"] == "de-nord"
    return info.value.code


def test_a_valid_approval_holds(made, plan):
    approval = make_approval(made, plan, "de-nord", now=NOW)
    found = ask(made, plan, [make_approval(made, plan, "de-sued", now=NOW), approval])
    assert (found.approval, found.signers) == (approval.digest, {"de-nord-approver"})


def test_missing(made, plan):
    assert code_of(made, plan) == "APPROVAL_MISSING"
    assert code_of(made, plan, [make_approval(made, plan, "de-sued", now=NOW)]) == "APPROVAL_MISSING"


def test_a_changed_release_needs_a_new_approval(made, plan):
    with pytest.raises(PolicyViolation, match=r"APPROVAL_MISSING.*only another release.*new approval"):
        ask(made, make_plan(made.federation, k=20), [make_approval(made, plan, "de-nord", now=NOW)])


def test_expired_and_not_yet_valid(made, plan):
    approval = make_approval(made, plan, "de-nord", now=NOW, days=10)
    assert code_of(made, plan, [approval], now=NOW + timedelta(days=10)) == "APPROVAL_EXPIRED"
    assert code_of(made, plan, [approval], now=NOW - 2 * HOUR) == "APPROVAL_EXPIRED"
    assert ask(made, plan, [approval], now=NOW + timedelta(days=10, seconds=-1))


def test_withdrawn_until_approved_again(made, plan):
    first, withdrawn = make_approval(made, plan, "de-nord", now=NOW), withdrawal(made, plan, now=NOW + HOUR)
    assert code_of(made, plan, [first], [withdrawn], now=NOW + 2 * HOUR) == "APPROVAL_WITHDRAWN"
    second = make_approval(made, plan, "de-nord", now=NOW + 2 * HOUR)
    assert ask(made, plan, [first, second], [withdrawn], now=NOW + 3 * HOUR).approval == second.digest


def test_withdrawals_of_strangers_other_owners_and_other_plans_have_no_effect(made, plan):
    approval = make_approval(made, plan, "de-nord", now=NOW)
    others = [
        withdrawal(made, plan, key=IdentityKey.generate(), now=NOW + HOUR),
        withdrawal(made, plan, key=made.approver("de-sued"), now=NOW + HOUR),
        withdrawal(made, plan, "de-sued", now=NOW + HOUR),
        withdrawal(made, make_plan(made.federation, k=20), now=NOW + HOUR),
    ]
    assert ask(made, plan, [approval], others, now=NOW + 2 * HOUR)


def test_foreign_signature_recipient_statement_and_terms(made, plan):
    good = make_approval(made, plan, "de-nord", now=NOW)
    for key in (IdentityKey.generate(), made.approver("de-sued"), made.keys["de-nord"]):
        assert code_of(made, plan, [sign_notice(good.notice, key)]) == "APPROVAL_FOREIGN"
    for change in ({"recipients": ["somebody-else"]}, {"min_owners": 3}):
        forged = sign_notice(msgspec.structs.replace(good.notice, **change), made.approver("de-nord"))
        assert code_of(made, plan, [forged]) == "APPROVAL_FOREIGN"
    assert code_of(made, plan, [good], statement="0" * 64) == "APPROVAL_FOREIGN"
    assert ask(made, plan, [good], statement=good.notice.statement)


def test_one_bad_approval_does_not_hide_a_good_one(made, plan):
    good = make_approval(made, plan, "de-nord", now=NOW)
    forged = sign_notice(msgspec.structs.replace(good.notice, created_at=utc_text(NOW + HOUR)), IdentityKey.generate())
    assert ask(made, plan, [forged, good]).approval == good.digest


def edition(number, owners, accepts=""):
    return EditionOwners(number, frozenset(owners.split()), frozenset(accepts.split()))


@pytest.mark.parametrize(
    ("new", "released", "min_owners", "missing"),
    [
        ("a b c d", "a b c", 2, "d"),
        ("a b", "a b c", 2, "c"),
        ("a b d", "a b c", 3, "c, d"),
        ("a b c", "a b c", 5, None),
        ("a b c d e", "a b c", 2, None),
        ("a b c d", "a b c", 1, None),
    ],
)
def test_the_difference_rule(new, released, min_owners, missing):
    if missing is None:
        check_difference(edition(2, new), [edition(1, released)], min_owners=min_owners)
        return
    with pytest.raises(PolicyViolation, match=f"MANIFEST_DIFFERENCE.*got none from {missing} "):
        check_difference(edition(2, new), [edition(1, released)], min_owners=min_owners)


def test_owners_in_the_difference_can_accept_it():
    check_difference(edition(2, "a b d", "d"), [edition(1, "a b c", "c")], min_owners=3)
    with pytest.raises(PolicyViolation, match="none from c "):
        check_difference(edition(2, "a b d", "d"), [edition(1, "a b c")], min_owners=3)


def test_every_released_edition_counts():
    released = [edition(1, "a b c"), edition(2, "a b c d e f")]
    with pytest.raises(PolicyViolation, match="edition 3 and released edition 2"):
        check_difference(edition(3, "a b c d e"), released, min_owners=2)
