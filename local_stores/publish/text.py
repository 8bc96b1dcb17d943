"""Numbers and names as people read them, and texts that a spreadsheet cannot take for a formula."""

from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal

__all__ = [
    "as_decimal",
    "count_text",
    "exact_text",
    "moment_text",
    "percent_text",
    "period_label",
    "plain_text",
    "safe_text",
    "scaled_text",
]

_MINUS = "\u2212"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def as_decimal(value: int, scale: int) -> Decimal:
    """Return the exact number that an integer in units of 10^-scale stands for."""
    return Decimal(value).scaleb(-scale)


def plain_text(value: int, scale: int) -> str:
    """Return machine-readable text: dot, no grouping, all digits of the scale, for example `-1234.50`."""
    return f"{as_decimal(value, scale):.{scale}f}"


def exact_text(value: int, scale: int) -> str:
    """Return `1,234.50` with a true minus sign."""
    return f"{as_decimal(value, scale):,.{scale}f}".replace("-", _MINUS)


def scaled_text(value: int, scale: int, unit: int) -> str:
    """Return the value in whole `unit`s (1000 for thousands), half-even; `unit` 0 prints it exactly."""
    if unit == 0:
        return exact_text(value, scale)
    return count_text(int((as_decimal(value, scale) / unit).quantize(Decimal(1), ROUND_HALF_EVEN)))


def count_text(value: int) -> str:
    """Return `1,234`."""
    return f"{value:,}".replace("-", _MINUS)


def percent_text(value: Decimal | None, *, sign: bool = False) -> str:
    """Return `12.3 %`, with a sign if wanted, or `n/a` where there is no meaningful percentage."""
    if value is None:
        return "n/a"
    text = f"{value:+,.1f}" if sign and value else f"{value:,.1f}"
    return f"{text.replace('-', _MINUS)}\u00a0%"


def period_label(period: str, start_date: str = "", end_date: str = "") -> str:
    """Return `March 2026` for `2026-03`; other keys stand as they are, with their dates if known."""
    year, _, month = period.partition("-")
    if len(year) == 4 and year.isdigit() and month.isdigit() and 1 <= int(month) <= 12:
        return f"{_MONTHS[int(month) - 1]} {year}"
    if start_date and end_date:
        last = date.fromordinal(date.fromisoformat(end_date).toordinal() - 1)
        return f"{period} ({start_date} to {last.isoformat()})"
    return period


def moment_text(moment: str) -> str:
    """Return `2026-04-06 16:00:00 UTC` for `2026-04-06T16:00:00Z`; other texts stand as they are."""
    return moment.replace("T", " ").replace("Z", " UTC") if moment.endswith("Z") and moment[10:11] == "T" else moment


def safe_text(text: str) -> str:
    """Return text that is no formula in a spreadsheet and holds no control characters.

    A leading `=`, `+`, `-`, `@` or the like gets an apostrophe before it, the spreadsheets' own mark for text.
    """
    clean = "".join(char if char >= " " and not "\x7f" <= char <= "\x9f" else "\ufffd" for char in text)
    return f"'{clean}" if text.startswith(_FORMULA_STARTS) or clean.lstrip().startswith(("=", "+", "-", "@")) else clean
