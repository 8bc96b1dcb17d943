"""Opening a signed release, and making approvals and withdrawals of it. No SQL is parsed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.errors import PolicyViolation
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.model import Approval, Release, Withdrawal
from mpc_ops.notices.signed import SignedNotice, sign_notice, utc_text, verify_notice
from mpc_ops.plan.checks import read_plan
from mpc_ops.plan.model import DeliverNode, Plan
from mpc_ops.plan.statement import PlannedStatement, planned_statement

__all__ = ["OpenRelease", "approve", "check_period_of_release", "open_release", "withdraw"]


@dataclass(frozen=True)
class OpenRelease:
    """A release whose signature, plan, rules and statement are checked.

    Attributes:
        signed: the notice with its envelope; `signed.digest` names the release.
        release: its contents.
        plan: the calculation plan.
        statement: the planned-transfer statement, derived anew.
    """

    signed: SignedNotice
    release: Release
    plan: Plan
    statement: PlannedStatement


def open_release(signed: SignedNotice, federation: Federation, *, now: datetime) -> OpenRelease:
    """Verify a release completely.

    Raises:
        EvidenceError: SIGNATURE_INVALID. ConfigError: FEDERATION_FOREIGN, NOTICE_KIND, SCHEMA_INVALID.
        PlanError: what `check_plan` raises.
        PolicyViolation: CROSSING_DENIED; STATEMENT_DIFFERS if the release names another statement than the plan gives.
    """
    release = signed.expect(Release)
    verified = verify_notice(signed, federation)
    plan = read_plan(release.plan.encode("utf-8"), federation)
    statement = planned_statement(plan, federation, now=now)
    if statement.digest != release.statement:
        raise PolicyViolation(
            "STATEMENT_DIFFERS",
            "the release names another planned-transfer statement than its plan gives",
            expected=statement.digest[:16],
            got=release.statement[:16],
            ids={"release": signed.digest[:16]},
        )
    return OpenRelease(verified, release, plan, statement)


def check_period_of_release(release: Release, *, now: datetime) -> None:
    """Raise PolicyViolation RELEASE_EXPIRED unless the release is valid at `now`."""
    if not release.valid_from <= utc_text(now) < release.valid_to:
        raise PolicyViolation(
            "RELEASE_EXPIRED",
            f"the release is valid from {release.valid_from} to {release.valid_to}, not at {utc_text(now)}",
            hint="The author releases it anew, and the data owners approve again",
        )


def approve(
    opened: OpenRelease,
    owner: str,
    keys: Sequence[IdentityKey],
    federation: Federation,
    *,
    days: int,
    now: datetime,
) -> SignedNotice:
    """Return an owner's approval of a release, signed by its approvers and verified against the membership.

    Args:
        opened: the release.
        owner: the data owner.
        keys: keys of as many approvers as the owner requires.
        federation: membership with the owner's approvers.
        days: how long the approval holds; never longer than the release.
        now: start of validity.

    Raises:
        EvidenceError: SIGNATURE_INVALID if the keys are not enough of the owner's approvers'.
        PolicyViolation: RELEASE_EXPIRED.
    """
    check_period_of_release(opened.release, now=now)
    approval = Approval(
        plan=opened.plan.digest,
        statement=opened.statement.digest,
        owner=owner,
        recipients=[cast("DeliverNode", opened.plan.node(DeliverNode)).recipient],
        min_owners=opened.plan.terms.min_owners,
        valid_from=utc_text(now),
        valid_to=min(utc_text(now + timedelta(days=days)), opened.release.valid_to),
        created_at=utc_text(now),
    )
    return verify_notice(sign_notice(approval, *keys), federation)


def withdraw(
    plan: str, owner: str, key: IdentityKey, federation: Federation, *, reason: str, now: datetime
) -> SignedNotice:
    """Return an owner's withdrawal of a plan (by digest), signed by one of its approvers."""
    notice = Withdrawal(plan=plan, owner=owner, created_at=utc_text(now), reason=reason)
    return verify_notice(sign_notice(notice, key), federation)
