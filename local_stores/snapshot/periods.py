"""Slices of a period: the local dates of the month and of the same month a year before, and their period keys."""

from __future__ import annotations

import datetime as dt
import re
from typing import Literal

from local_stores.errors import ConfigError
from local_stores.stores import DateRange
from mpc_ops.notices.model import CalendarRow

__all__ = ["SLICES", "SliceName", "prior_year_key", "slice_keys", "slice_ranges"]

SliceName = Literal["period", "prior_year"]
SLICES: tuple[SliceName, SliceName] = ("period", "prior_year")


def prior_year_key(key: str) -> str:
    """Return the key of the same period a year before: `2026-03` gives `2025-03`, `FY26-P07` gives `FY25-P07`.

    Raises:
        ConfigError: PERIOD_INVALID for a key whose year cannot be told.
    """
    found = re.search(r"[0-9]+", key)
    if found is None or len(found[0]) not in {2, 4} or int(found[0]) == 0:
        raise ConfigError("PERIOD_INVALID", "a period key must begin with its year", got=repr(key[:40]))
    year = f"{int(found[0]) - 1:0{len(found[0])}d}"
    return key[: found.start()] + year + key[found.end() :]


def slice_keys(row: CalendarRow) -> dict[SliceName, str]:
    """Return the period key of each slice: what rates are listed under."""
    return {"period": row.key, "prior_year": prior_year_key(row.key)}


def slice_ranges(row: CalendarRow) -> dict[SliceName, DateRange]:
    """Return the local dates [start, end) of each slice; the prior year's are twelve months earlier.

    Raises:
        ConfigError: PERIOD_INVALID if the row ends before it starts or its slices overlap.
    """
    start, end = dt.date.fromisoformat(row.start_date), dt.date.fromisoformat(row.end_date)
    before = DateRange(_year_before(start), _year_before(end))
    if not start < end or before.end > start:
        raise ConfigError("PERIOD_INVALID", "a calendar row must span less than a year", ids={"period": row.key})
    return {"period": DateRange(start, end), "prior_year": before}


def _year_before(day: dt.date) -> dt.date:
    try:
        return day.replace(year=day.year - 1)
    except (
        ValueError
    ):  # 29 February: the half-open range then begins with 1 March, which the month before does not have
        return dt.date(day.year - 1, 3, 1)
