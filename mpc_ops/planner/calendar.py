"""Calendars of months: rows for an author to adjust, and reading `calendar.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Meta

from mpc_ops.envelope.schema import Model, from_plain
from mpc_ops.errors import ConfigError, UsageError
from mpc_ops.notices.model import CalendarRow
from mpc_ops.notices.signed import utc_text

__all__ = ["calendar_toml", "months", "read_calendar"]


class _File(Model, frozen=True, kw_only=True):
    period: Annotated[list[CalendarRow], Meta(min_length=1, max_length=400)]


def read_calendar(text: str) -> list[CalendarRow]:
    """Parse calendar.toml (`[[period]]` tables); raise ConfigError TOML_INVALID or SCHEMA_INVALID."""
    try:
        plain: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("TOML_INVALID", "calendar is not TOML", got=str(error)[:200]) from None
    return from_plain(plain, _File, what="calendar").period


def calendar_toml(rows: Sequence[CalendarRow]) -> str:
    """Return calendar.toml for rows."""
    lines = []
    for row in rows:
        lines.append("[[period]]")
        lines += [f'{name} = "{getattr(row, name)}"' for name in CalendarRow.__struct_fields__]
        lines.append("")
    return "\n".join(lines)


def months(
    first: str,
    last: str,
    *,
    zone: str,
    opens_after_days: int,
    due_after_days: int,
    open_from: datetime | None = None,
    open_hours: int = 24,
) -> list[CalendarRow]:
    """Return one row per month.

    Args:
        first: first month, `2026-01`.
        last: last month, included.
        zone: IANA zone of the rows; moments are at nine o'clock there.
        opens_after_days: days after the month's last day until the submission opens (and books are cut).
        due_after_days: days after the month's last day until it is due.
        open_from: open every month from this moment for `open_hours` instead (for months of the past).
        open_hours: see `open_from`.

    Raises:
        UsageError: USAGE for what is not a month, a zone or a sensible order.
    """
    start, end = _month(first), _month(last)
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise UsageError(
            "USAGE", "unknown time zone", expected="for example Europe/Amsterdam", got=repr(zone[:60])
        ) from None
    if start > end or opens_after_days >= due_after_days or (end - start).days > 366 * 10:
        raise UsageError(
            "USAGE", "the months or days are not in order", expected="first <= last, opens before due, at most 10 years"
        )
    rows = []
    while start <= end:
        following = _month(f"{start.year + start.month // 12}-{start.month % 12 + 1:02d}")
        opens, due = (
            datetime.combine(following + timedelta(days=days - 1), time(9), place).astimezone(UTC)
            for days in (opens_after_days, due_after_days)
        )
        if open_from is not None:
            opens, due = open_from, open_from + timedelta(hours=open_hours)
        rows.append(
            CalendarRow(
                key=f"{start:%Y-%m}", start_date=start.isoformat(), end_date=following.isoformat(), opens_at=utc_text(opens),
                cut_at=utc_text(opens), due_at=utc_text(due), zone=zone,
            )
        )  # fmt: skip
        start = following
    return rows


def _month(text: str) -> date:
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise UsageError("USAGE", "not a month", expected="for example 2026-01", got=repr(text[:40])) from None
