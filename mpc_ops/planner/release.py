"""The author's release of a report, and the comparison that `comity report import` makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.schema import encode
from mpc_ops.errors import ComityError, ConfigError
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.model import CalendarRow, Release
from mpc_ops.notices.signed import SignedNotice, sign_notice, utc_text, verify_notice
from mpc_ops.plan.releases import OpenRelease
from mpc_ops.plan.statement import member_notes, planned_statement
from mpc_ops.plan.text import plan_difference
from mpc_ops.planner.compile import compile_report
from mpc_ops.planner.terms import read_terms

__all__ = ["Recompiled", "check_calendar", "recompile", "release_report"]


def release_report(
    sql: str,
    terms_text: str,
    calendar: Sequence[CalendarRow],
    federation: Federation,
    *,
    author: str,
    key: IdentityKey,
    now: datetime,
) -> SignedNotice:
    """Compile a report and sign its release.

    Args:
        sql: report SQL.
        terms_text: text of report.toml; travels in the release, so that others compile the same.
        calendar: periods, oldest first.
        federation: terms, rule packs, membership.
        author: name of the author in the federation.
        key: the author's identity key.
        now: start of validity.

    Raises:
        PlanError, PolicyViolation: what compiling, checking and the rules refuse.
        ConfigError: CALENDAR_INVALID, PARTY_UNKNOWN. EvidenceError: SIGNATURE_INVALID for another's key.
    """
    check_calendar(calendar)
    terms = read_terms(terms_text)
    plan = compile_report(sql, terms, federation)
    member_notes(plan, federation)
    statement = planned_statement(plan, federation, now=now)
    release = Release(
        federation=federation.digest,
        author=author,
        created_at=utc_text(now),
        valid_from=utc_text(now),
        valid_to=utc_text(now + timedelta(days=terms.validity_days)),
        plan=encode(plan).decode("utf-8"),
        sql=sql,
        report_terms=terms_text,
        calendar=list(calendar),
        reading_text=terms.reading_text,
        statement=statement.digest,
    )
    return verify_notice(sign_notice(release, key), federation)


def check_calendar(calendar: Sequence[CalendarRow]) -> None:
    """Check rows that the types cannot: order, overlap, moments; raise ConfigError CALENDAR_INVALID."""

    def refuse(row: CalendarRow, why: str) -> ConfigError:
        return ConfigError("CALENDAR_INVALID", why, ids={"period": row.key})

    keys = [row.key for row in calendar]
    if not calendar or len(set(keys)) != len(keys):
        raise ConfigError("CALENDAR_INVALID", "a calendar has at least one period, and each once")
    for row in calendar:
        try:
            start, end = date.fromisoformat(row.start_date), date.fromisoformat(row.end_date)
        except ValueError:
            raise refuse(row, "a date does not exist") from None
        if start >= end:
            raise refuse(row, "end_date must be after start_date: a period is [start_date, end_date)")
        if row.opens_at >= row.due_at:
            raise refuse(row, "due_at must be after opens_at")
    for before, after in pairwise(calendar):
        if before.end_date > after.start_date:
            raise refuse(after, "periods overlap or are not in order")


@dataclass(frozen=True, slots=True)
class Recompiled:
    """What compiling a release's SQL here gave.

    Attributes:
        same: whether the bytes are those of the released plan.
        difference: unified diff of the plans' texts; empty if they read the same.
        problem: why the SQL does not compile here, if so.
    """

    same: bool
    difference: str = ""
    problem: str | None = None


def recompile(opened: OpenRelease, federation: Federation) -> Recompiled:
    """Compile a release's SQL and terms with this version and compare; the released plan is what runs in any case."""
    try:
        plan = compile_report(opened.release.sql, read_terms(opened.release.report_terms), federation)
    except ComityError as error:
        return Recompiled(same=False, problem=str(error))
    if plan.digest == opened.plan.digest:
        return Recompiled(same=True)
    return Recompiled(same=False, difference=plan_difference(opened.plan, plan, ("released plan", "compiled here")))
