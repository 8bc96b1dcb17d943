"""Whether an owner's approval of a plan holds now. Owners ask before any data is read, operators before every run.

An approval covers plan digest, planned-transfer statement, recipient and `min_owners` between two moments. Nobody takes
another's word for it: whoever runs the plan verifies signatures against the membership list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from mpc_ops.errors import ComityError, PolicyViolation
from mpc_ops.federation.loaded import Federation
from mpc_ops.ids import Digest, NoticeDigest
from mpc_ops.notices.model import Approval, Withdrawal
from mpc_ops.notices.signed import SignedNotice, utc_text, verify_notice
from mpc_ops.plan.model import DeliverNode, Plan

__all__ = ["Approved", "approval_state"]


@dataclass(frozen=True, slots=True)
class Approved:
    """A valid approval.

    Attributes:
        owner: whose it is.
        approval: digest of the notice.
        signers: the approvers that signed.
        valid_to: when it ends (UTC text).
    """

    owner: str
    approval: NoticeDigest
    signers: frozenset[str]
    valid_to: str


def approval_state(
    federation: Federation,
    plan: Plan,
    approvals: Iterable[SignedNotice],
    withdrawals: Iterable[SignedNotice],
    owner: str,
    *,
    now: datetime,
    statement: Digest | str | None = None,
) -> Approved:
    """Return the owner's approval that holds at `now`.

    Args:
        federation: membership with the owner's approvers.
        plan: the plan that is to run.
        approvals: approval notices, of any owner and plan.
        withdrawals: withdrawal notices, of any owner and plan; those that are not validly signed have no effect.
        owner: owner id.
        now: moment of the question.
        statement: digest of the planned-transfer statement of the release; compared if given.

    Raises:
        PolicyViolation: APPROVAL_MISSING; APPROVAL_EXPIRED if it is not valid at `now`; APPROVAL_WITHDRAWN;
            APPROVAL_FOREIGN if it is not signed by enough of the owner's approvers or covers other terms.
    """
    mine = [signed for signed in approvals if isinstance(signed.notice, Approval) and signed.notice.owner == owner]
    named = [signed for signed in mine if signed.expect(Approval).plan == plan.digest]
    if not named:
        raise _violation(
            "APPROVAL_MISSING",
            "the data owner has not approved this calculation" + (", only another release of it" if mine else ""),
            plan,
            owner,
            hint="Its approvers run `comity report approve`" if not mine else "A changed release needs a new approval",
        )
    withdrawn_at = _withdrawn_at(federation, plan, withdrawals, owner)
    failures = []
    for signed in sorted(named, key=lambda signed: signed.expect(Approval).created_at, reverse=True):
        try:
            return _valid(federation, plan, signed, now=now, statement=statement, withdrawn_at=withdrawn_at)
        except PolicyViolation as failure:
            failures.append(failure)
    raise failures[0]


def _violation(
    code: str, what: str, plan: Plan, owner: str, *, hint: str | None = None, **more: object
) -> PolicyViolation:
    return PolicyViolation(code, what, ids={"owner": owner, "plan": plan.digest[:16], **more}, hint=hint)


def _withdrawn_at(federation: Federation, plan: Plan, withdrawals: Iterable[SignedNotice], owner: str) -> str | None:
    moments = []
    for signed in withdrawals:
        notice = signed.notice
        if isinstance(notice, Withdrawal) and (notice.owner, notice.plan) == (owner, plan.digest):
            try:
                verify_notice(signed, federation)
            except ComityError:
                continue  # a stranger cannot stop an owner's run
            moments.append(notice.created_at)
    return max(moments, default=None)


def _valid(
    federation: Federation,
    plan: Plan,
    signed: SignedNotice,
    *,
    now: datetime,
    statement: str | None,
    withdrawn_at: str | None,
) -> Approved:
    approval = signed.expect(Approval)
    more = {"approval": signed.digest[:16]}
    try:
        signers = verify_notice(signed, federation).signers
    except ComityError as error:
        raise _violation(
            "APPROVAL_FOREIGN",
            f"the approval is not signed by enough of the data owner's approvers ({error.code})",
            plan,
            approval.owner,
            **more,
        ) from None
    recipient = cast("DeliverNode", plan.node(DeliverNode)).recipient
    for differs, what in (
        (recipient not in approval.recipients, "another result recipient"),
        (approval.min_owners > plan.terms.min_owners, "more data owners in a run than the terms demand"),
        (statement is not None and approval.statement != statement, "another planned-transfer statement"),
    ):
        if differs:
            raise _violation("APPROVAL_FOREIGN", f"the approval was given for {what}", plan, approval.owner, **more)
    if withdrawn_at is not None and withdrawn_at >= approval.created_at:
        raise _violation(
            "APPROVAL_WITHDRAWN",
            f"the data owner withdrew its approval at {withdrawn_at}",
            plan,
            approval.owner,
            hint="A new approval is needed",
            **more,
        )
    moment = utc_text(now)
    if not approval.valid_from <= moment < approval.valid_to:
        raise _violation(
            "APPROVAL_EXPIRED",
            f"the approval holds from {approval.valid_from} to {approval.valid_to}, not at {moment}",
            plan,
            approval.owner,
            hint="Its approvers run `comity report approve` again",
            **more,
        )
    return Approved(approval.owner, signed.digest, signers, approval.valid_to)
