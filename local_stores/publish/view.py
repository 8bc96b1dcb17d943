"""The page's cells: what to show of the table, in which words and which digits. Text only; the template prints it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from local_stores.publish.derive import Figures, YearToDate, figures, percent
from local_stores.publish.model import Measure, ReportTable, Row
from local_stores.publish.text import exact_text, percent_text, period_label, plain_text, scaled_text

__all__ = [
    "Comparison",
    "Group",
    "Line",
    "Number",
    "Tables",
    "comparisons",
    "line_label",
    "prior_label",
    "tables",
    "unit_of",
]

_BLANK = "\u2013"
THOUSANDS_FROM = 1_000_000
"""Reports whose largest total is below this many units of currency are printed exactly, not in thousands."""


@dataclass(frozen=True)
class Number:
    """One cell: what is printed, and the exact number behind it (empty for percentages and blanks)."""

    text: str
    exact: str = ""


@dataclass(frozen=True)
class Line:
    """One row of a printed table."""

    label: str
    level: str
    cells: tuple[Number, ...]


@dataclass(frozen=True)
class Group:
    """Rows that belong together under one outer dimension value."""

    title: str
    lines: tuple[Line, ...]


_Get = Callable[[Figures], "int | None"]


@dataclass(frozen=True)
class Comparison:
    """A column of the summary.

    Attributes:
        title: column title.
        value: the number, or the part where `whole` makes it a percentage.
        whole: what the value is a percentage of, None for numbers.
        share: name of the figure that a percentage row (margin in % of revenue) shows here; None leaves it blank.
        points: the percentage row shows month less that share, in percentage points.
    """

    title: str
    value: _Get
    whole: _Get | None = None
    share: str | None = None
    points: bool = False


@dataclass(frozen=True)
class Tables:
    """All tables of the page.

    Attributes:
        unit_label: how amounts are printed, for example `EUR thousand`.
        summary_head, summary: the grand total, one line per figure.
        detail_groups: (measure, number of columns) above the columns; detail_head: column titles; detail: rows.
        exact_head, exact: every opened number with all its digits.
    """

    unit_label: str
    summary_head: tuple[str, ...]
    summary: tuple[Line, ...]
    detail_groups: tuple[tuple[str, int], ...]
    detail_head: tuple[str, ...]
    detail: tuple[Group, ...]
    exact_head: tuple[str, ...]
    exact: tuple[Line, ...]


def prior_label(period: str) -> str:
    """Return the name of the same month one year earlier, or `Prior year` where the key is no month."""
    year, _, month = period.partition("-")
    if len(year) == 4 and year.isdigit() and month.isdigit():
        return period_label(f"{int(year) - 1:04d}-{month}")
    return "Prior year"


def unit_of(table: ReportTable) -> tuple[int, str]:
    """Return the unit amounts are printed in (1000, or 0 for exact) and its label."""
    amounts = [m for m in table.measures if m.kind == "amount"]
    largest = max((abs(table.value(row, m.name)) // 10**m.scale for row in table.rows for m in amounts), default=0)
    currency = table.currency or ""
    return (1000, f"{currency} thousand") if largest >= THOUSANDS_FROM else (0, currency)


def comparisons(table: ReportTable, year: YearToDate | None) -> tuple[Comparison, ...]:
    """Return the columns that this report can fill, in printing order."""
    month, prior = period_label(table.period), prior_label(table.period)
    has_prior = any(m.column == "prior_year" for m in table.measures)
    out = [Comparison(month, lambda f: f.month, share="month")]
    if has_prior:
        out += [
            Comparison(prior, lambda f: f.prior, share="prior"),
            Comparison("Change", lambda f: f.change, share="prior", points=True),
            Comparison("Change %", lambda f: f.change, lambda f: f.prior),
        ]
    if any(m.column == "prior_year_cc" for m in table.measures):
        out += [
            Comparison(f"{prior} at {month} rates", lambda f: f.prior_cc, share="prior_cc"),
            Comparison("Exchange-rate effect", lambda f: f.rate_effect),
            Comparison("Change % at constant rates", lambda f: f.change_cc, lambda f: f.prior_cc),
        ]
    if year is not None:
        out.append(Comparison("Year to date", lambda f: f.ytd, share="ytd"))
        if has_prior:
            out += [
                Comparison("Year to date, prior year", lambda f: f.ytd_prior, share="ytd_prior"),
                Comparison("Change % to date", lambda f: _less(f.ytd, f.ytd_prior), lambda f: f.ytd_prior),
            ]
    return tuple(out)


def _less(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left - right


def line_label(row: Row) -> str:
    """Return what a row is called under its group."""
    if row.level == "not_allocated":
        return "Not allocated" if row.labels else "Not allocated, top"
    if row.level == "total":
        return "Total"
    return f"Total {row.labels[-1]}" if row.level == "subtotal" else (row.labels[-1] if row.labels else "Total")


def tables(table: ReportTable, year: YearToDate | None) -> Tables:
    """Lay out the page's tables."""
    unit, unit_label = unit_of(table)
    columns = comparisons(table, year)
    groups, head = _detail_columns(table, year)
    return Tables(
        unit_label=unit_label,
        summary_head=tuple(column.title for column in columns),
        summary=tuple(_summary(table, year, columns, unit)),
        detail_groups=groups,
        detail_head=head,
        detail=tuple(_detail(table, year, unit)) if table.dimensions else (),
        exact_head=tuple(_exact_title(table, m) for m in table.measures),
        exact=tuple(
            Line(
                " / ".join([*row.labels, *([] if row.level == "leaf" else [_kind(row)])])
                if row.labels
                else line_label(row),
                row.level,
                _exact(table, row),
            )
            for row in table.rows
        ),
    )


def _kind(row: Row) -> str:
    return "not allocated" if row.level == "not_allocated" else "total"


def _exact_title(table: ReportTable, measure: Measure) -> str:
    prior = prior_label(table.period)
    return {
        "month": measure.label,
        "prior_year": f"{measure.label}, {prior}",
        "prior_year_cc": f"{measure.label}, {prior} at {period_label(table.period)} rates",
    }[measure.column]


def _exact(table: ReportTable, row: Row) -> tuple[Number, ...]:
    return tuple(
        Number(exact_text(v, m.scale), plain_text(v, m.scale)) for m, v in zip(table.measures, row.values, strict=True)
    )


def _number(value: int | None, measure: Measure, unit: int) -> Number:
    if value is None:
        return Number(_BLANK)
    if measure.kind == "count":
        return Number(exact_text(value, measure.scale), plain_text(value, measure.scale))
    return Number(scaled_text(value, measure.scale, unit), plain_text(value, measure.scale))


def _summary(table: ReportTable, year: YearToDate | None, columns: Sequence[Comparison], unit: int) -> list[Line]:
    row = table.total
    if row is None:
        return []
    found = {base.name: figures(table, row, base, year) for base in table.bases}
    lines = []
    for base in table.bases:
        own = found[base.name]
        lines.append(Line(base.label, "figure", tuple(_summary_cell(c, own, base, unit) for c in columns)))
        if base.percent_of:
            cells = tuple(_share_cell(c, own, found[base.percent_of]) for c in columns)
            lines.append(Line(f"{base.label} in % of {_label_of(table, base.percent_of)}", "share", cells))
    return lines


def _label_of(table: ReportTable, name: str) -> str:
    return table.measures[table.positions[name]].label.lower()


def _summary_cell(column: Comparison, own: Figures, base: Measure, unit: int) -> Number:
    value = column.value(own)
    whole = column.whole(own) if column.whole else None
    if value is None or (column.whole and whole is None):
        return Number(_BLANK)
    return Number(percent_text(percent(value, whole), sign=True)) if column.whole else _number(value, base, unit)


def _share_cell(column: Comparison, part: Figures, whole: Figures) -> Number:
    if column.share is None:
        return Number("")
    share = percent(getattr(part, column.share), getattr(whole, column.share))
    if not column.points:
        return Number(percent_text(share))
    now = percent(part.month, whole.month)
    text = percent_text(None if now is None or share is None else now - share, sign=True)
    return Number(text.replace("%", "pp"))


def _detail_columns(table: ReportTable, year: YearToDate | None) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
    groups, head = [], []
    for base in table.bases:
        titles = [title for title, _ in _detail_cells(table, None, base, year, 0)]
        groups.append((base.label, len(titles)))
        head += titles
    return tuple(groups), tuple(head)


def _detail_cells(
    table: ReportTable, row: Row | None, base: Measure, year: YearToDate | None, unit: int
) -> list[tuple[str, Number]]:
    """Cells of one measure in one row with their titles; without a row the titles alone count."""
    own = figures(table, row, base, year) if row else Figures(0, 0, 0, 0, 0)
    month, prior = period_label(table.period), prior_label(table.period)
    cells = [(month, _number(own.month, base, unit))]
    if table.column(base.name, "prior_year"):
        cells.append((prior, _number(own.prior, base, unit)))
        if base.kind == "amount":
            cells.append(("Change %", _change(own.change, own.prior)))
    if table.column(base.name, "prior_year_cc"):
        cells.append(("Change % at constant rates", _change(own.change_cc, own.prior_cc)))
    if base.percent_of:
        whole = table.value(row, base.percent_of) if row else 0
        title = f"% of {_label_of(table, base.percent_of)}"
        cells.append((title, Number(percent_text(percent(own.month, whole)) if own.month or whole else _BLANK)))
    if year is not None and base.foots and base.kind == "amount":
        cells.append(("Year to date", _number(own.ytd, base, unit)))
    return cells


def _change(change: int | None, whole: int | None) -> Number:
    """A change in per cent; a dash where there was nothing then and nothing now."""
    return Number(percent_text(percent(change, whole), sign=True) if change or whole else _BLANK)


def _detail(table: ReportTable, year: YearToDate | None, unit: int) -> list[Group]:
    groups: list[tuple[str, list[Line]]] = []
    for row in table.rows:
        inner = row.labels[:-1] if row.level == "leaf" else row.labels
        # with one dimension there is nothing to group by; the top's own rows close the table without a heading
        title = " / ".join(inner)
        cells = tuple(cell for base in table.bases for _, cell in _detail_cells(table, row, base, year, unit))
        if not groups or groups[-1][0] != title:
            groups.append((title, []))
        groups[-1][1].append(Line(line_label(row), row.level, cells))
    return [Group(title, tuple(lines)) for title, lines in groups]
