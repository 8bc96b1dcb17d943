"""The table as a workbook: real numbers with formats, named ranges, frozen headers, comments where a reader may stumble.

The bytes depend on the content alone: no clock, no user name, fixed times inside the zip container.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from openpyxl import Workbook
from openpyxl.cell.cell import Cell
from openpyxl.comments import Comment
from openpyxl.styles import Alignment, Border, Font, Side
from openpyxl.utils import get_column_letter, quote_sheetname
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.worksheet import Worksheet

from local_stores.publish.derive import YearToDate, figures, footing, percent
from local_stores.publish.facts import SUBMISSION_HEAD, basis_rows, rate_rows, submission_rows
from local_stores.publish.model import Basis, Measure, ReportTable, Row
from local_stores.publish.notes import gate_below, gate_least, gate_text, has_gate, notes
from local_stores.publish.text import as_decimal, period_label, safe_text
from local_stores.publish.view import comparisons, prior_label

__all__ = ["xlsx_bytes"]

# The earliest moment a zip entry can carry; nothing in the file says when it was written.
_EPOCH = datetime(1980, 1, 1)  # noqa: DTZ001 - zip and openpyxl know no zones
_BOLD = Font(bold=True)
_SOFT = Font(italic=True, color="57606A")
_TITLE = Font(bold=True, size=14)
_RULE = Side(style="thin", color="57606A")
_PERCENT = "+0.0%;-0.0%;0.0%"
_SHARE = "0.0%"


def xlsx_bytes(table: ReportTable, basis: Basis, year: YearToDate | None) -> bytes:
    """Return the workbook: Summary, one sheet with every line, Completeness, Basis."""
    book = Workbook()
    book.remove(book.active)
    _summary_sheet(book.create_sheet("Summary"), table, basis, year)
    _lines_sheet(book.create_sheet(_sheet_title(table)), table, basis, year)
    _completeness_sheet(book.create_sheet("Completeness"), basis)
    _basis_sheet(book.create_sheet("Basis"), table, basis, year)
    book.properties.creator = "Comity"
    book.properties.title = safe_text(f"{table.title} {table.period}")
    book.properties.created = book.properties.modified = _EPOCH
    buffer = io.BytesIO()
    book.save(buffer)
    return _without_clock(buffer.getvalue())


def _without_clock(data: bytes) -> bytes:
    """Write the container again with fixed times; openpyxl stamps the moment of saving into it twice."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "docProps/core.xml":
                content = re.sub(rb"(<dcterms:(created|modified)[^>]*>)[^<]*", rb"\g<1>1980-01-01T00:00:00Z", content)
            entry = zipfile.ZipInfo(name, date_time=_EPOCH.timetuple()[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            target.writestr(entry, content)
    return out.getvalue()


def _sheet_title(table: ReportTable) -> str:
    # Excel allows 31 characters and none of these; the letter x stands for the multiplication sign, as people type it.
    title = re.sub(r"[\\/*?:\[\]']", " ", " x ".join([table.dimension_labels[0], *(label.lower() for label in table.dimension_labels[1:])])
                   if table.dimensions else "Figures")  # fmt: skip
    return title[:31] if title.strip().lower() not in {"summary", "completeness", "basis"} else "Lines"


def _text(cell: Cell, value: str, font: Font | None = None, *, wrap: bool = False) -> None:
    """Write text that stays text, whatever it begins with."""
    cell.value = safe_text(value)
    cell.data_type = "s"
    if font:
        cell.font = font
    if wrap:
        cell.alignment = Alignment(wrap_text=True, vertical="top")


def _number(cell: Cell, value: Decimal | int | None, number_format: str, font: Font | None = None) -> None:
    cell.value = value
    cell.number_format = number_format
    if font:
        cell.font = font


def _format(measure: Measure) -> str:
    return "#,##0" + ("." + "0" * measure.scale if measure.scale else "")


def _as_number(value: int | None, measure: Measure) -> Decimal | int | None:
    if value is None or measure.scale == 0:
        return value
    return as_decimal(value, measure.scale)


def _ratio(part: int | None, whole: int | None) -> Decimal | None:
    """Return a percentage for a cell with a percent format, rounded as on the page."""
    value = percent(part, whole)
    return None if value is None else value / 100


def _header(sheet: Worksheet, row: int, titles: Sequence[str], widths: Sequence[int]) -> None:
    for column, (title, width) in enumerate(zip(titles, widths, strict=True), start=1):
        cell = sheet.cell(row, column)
        _text(cell, title, _BOLD)
        cell.alignment = Alignment(wrap_text=True, vertical="bottom", horizontal="left" if column == 1 else "center")
        cell.border = Border(bottom=_RULE)
        sheet.column_dimensions[get_column_letter(column)].width = width


def _named(sheet: Worksheet, name: str, reference: str) -> None:
    book = sheet.parent
    book.defined_names[name] = DefinedName(name, attr_text=f"{quote_sheetname(sheet.title)}!{reference}")


def _page(sheet: Worksheet, repeat: str | None = None) -> None:
    sheet.page_setup.orientation = "landscape"
    sheet.page_setup.paperSize = sheet.PAPERSIZE_A4
    sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = 1, 0
    sheet.sheet_properties.pageSetUpPr.fitToPage = True
    if repeat:
        sheet.print_title_rows = repeat


def _summary_sheet(sheet: Worksheet, table: ReportTable, basis: Basis, year: YearToDate | None) -> None:
    label = period_label(table.period, basis.calendar.start_date, basis.calendar.end_date)
    _text(sheet["A1"], table.title, _TITLE)
    release = "first release" if table.edition == 1 else f"revised release {table.edition}"
    _text(sheet["A2"], f"{label}, {release}" + (f", amounts in {table.currency}" if table.currency else ""))
    found = footing(table)
    foots = (
        f"check passed, {found.checked} of {found.checked} sums"
        if not found.failed
        else f"NO: {found.failed} of {found.checked} sums differ"
    )
    _text(sheet["A3"], f"Entities in the figures: {basis.submitted} of {len(basis.submissions)}")
    _text(sheet["A4"], f"Totals foot: {foots if found.checked else 'no totals'}", _BOLD if found.failed else None)
    _text(sheet["A5"], f"Small-cell rule: {gate_text(basis)}")
    columns = comparisons(table, year)
    _header(sheet, 7, ["Figure", *(column.title for column in columns)], [34, *([17] * len(columns))])
    sheet.freeze_panes = "B8"
    at = 8
    total = table.total
    own = {base.name: figures(table, total, base, year) for base in table.bases} if total else {}
    for base in table.bases if total else ():
        _text(sheet.cell(at, 1), base.label)
        for column, comparison in enumerate(columns, start=2):
            value = comparison.value(own[base.name])
            if comparison.whole:
                _number(sheet.cell(at, column), _ratio(value, comparison.whole(own[base.name])), _PERCENT)
            else:
                _number(sheet.cell(at, column), _as_number(value, base), _format(base))
        _named(sheet, f"total_{base.name}", f"$B${at}")
        at += 1
        if base.percent_of:
            whole = own[base.percent_of]
            _text(
                sheet.cell(at, 1),
                f"{base.label} in % of {table.measures[table.positions[base.percent_of]].label.lower()}",
                _SOFT,
            )
            for column, comparison in enumerate(columns, start=2):
                if comparison.share and not comparison.points:
                    value_of = _ratio(getattr(own[base.name], comparison.share), getattr(whole, comparison.share))
                    _number(sheet.cell(at, column), value_of, _SHARE, _SOFT)
            at += 1
    _notes(sheet, at + 1, table, basis, year)
    _page(sheet)


def _notes(sheet: Worksheet, at: int, table: ReportTable, basis: Basis, year: YearToDate | None) -> None:
    _text(sheet.cell(at, 1), "How to read the figures", _BOLD)
    for term, text in notes(table, basis, year):
        at += 1
        _text(sheet.cell(at, 1), term, wrap=True)
        _text(sheet.cell(at, 2), text, wrap=True)
        sheet.merge_cells(start_row=at, end_row=at, start_column=2, end_column=8)
        sheet.row_dimensions[at].height = 15 * (1 + len(text) // 105)


def _line_columns(table: ReportTable, year: YearToDate | None) -> list[tuple[str, str, Measure]]:
    """Return (name of the range, title, measure) of every number column."""
    month, prior = period_label(table.period), prior_label(table.period)
    when = {"month": month, "prior_year": prior, "prior_year_cc": f"{prior} at {month} rates"}
    out = [(f"col_{m.name}", f"{m.label}, {when[m.column]}", m) for m in table.measures]
    if year is not None:
        to_date = {"month": "year to date", "prior_year": "year to date, prior year"}
        out += [
            (f"col_{m.name}_ytd", f"{m.label}, {to_date[m.column]}", m)
            for m in table.measures
            if m.foots and m.column in to_date
        ]
    return out


def _lines_sheet(sheet: Worksheet, table: ReportTable, basis: Basis, year: YearToDate | None) -> None:
    columns = _line_columns(table, year)
    first = len(table.dimensions) + 2  # dimensions, then the level
    _header(
        sheet,
        1,
        [*table.dimension_labels, "Level", *(title for _, title, _ in columns)],
        [18] * (first - 2) + [14] + [18] * len(columns),
    )
    sheet.row_dimensions[1].height = 48
    sheet.freeze_panes = f"{get_column_letter(first)}2"
    for at, row in enumerate(table.rows, start=2):
        font = {"not_allocated": _SOFT, "subtotal": _BOLD, "total": _BOLD}.get(row.level)
        for position in range(len(table.dimensions)):
            _text(sheet.cell(at, position + 1), _dimension_text(row, position), font)
        _text(sheet.cell(at, first - 1), row.level.replace("_", " "), font)
        for column, (name, _, measure) in enumerate(columns, start=first):
            values = year.values[row.key] if year and name.endswith("_ytd") and name != f"col_{measure.name}" else None
            value = values[measure.name] if values else table.value(row, measure.name)
            _number(sheet.cell(at, column), _as_number(value, measure), _format(measure), font)
        _comment(sheet, at, first, row, basis)
    last = len(table.rows) + 1
    for column, (name, _, _) in enumerate(columns, start=first):
        letter = get_column_letter(column)
        _named(sheet, name, f"${letter}$2:${letter}${last}")
    sheet.auto_filter.ref = f"A1:{get_column_letter(first - 1 + len(columns))}{last}"
    _page(sheet, "1:1")


def _dimension_text(row: Row, position: int) -> str:
    if position < len(row.labels):
        return row.labels[position]
    return "not allocated" if row.level == "not_allocated" else "total"


def _comment(sheet: Worksheet, at: int, first: int, row: Row, basis: Basis) -> None:
    text = ""
    place = "country" if basis.gate_at == "region" else "entity"
    if row.level == "not_allocated":
        text = f"Subtotals of {gate_below(basis)} within one {place}, not shown in their own lines. See Summary."
        at_column = first - 1
    elif row.level == "leaf" and row.values[0] == 0:
        text = f"No {place} has at least {gate_least(basis)} here: nothing was booked, or it stands in a not-allocated line."
        at_column = first
    if text and has_gate(basis):
        sheet.cell(at, at_column).comment = Comment(text, "Comity", height=90, width=280)


def _completeness_sheet(sheet: Worksheet, basis: Basis) -> None:
    _header(sheet, 1, SUBMISSION_HEAD, [22, 10, 26, 24, 20, 24, 10])
    sheet.freeze_panes = "B2"
    for at, texts in enumerate(submission_rows(basis), start=2):
        for column, text in enumerate(texts, start=1):
            _text(sheet.cell(at, column), text)
    _page(sheet, "1:1")


def _basis_sheet(sheet: Worksheet, table: ReportTable, basis: Basis, year: YearToDate | None) -> None:
    _header(sheet, 1, ["Fact", "Value"], [34, 100])
    sheet.freeze_panes = "A2"
    at = 1
    for name, text, _ in basis_rows(table, basis, year):
        at += 1
        _text(sheet.cell(at, 1), name, wrap=True)
        _text(sheet.cell(at, 2), text, wrap=True)
    _page(sheet, "1:1")
    periods, rates = rate_rows(basis)
    if not rates:
        return
    rates_sheet = sheet.parent.create_sheet("Rates")
    _header(rates_sheet, 1, ["Currency", *periods], [12, *([18] * len(periods))])
    rates_sheet.freeze_panes = "B2"
    for row, (currency, values) in enumerate(rates, start=2):
        _text(rates_sheet.cell(row, 1), currency)
        for column, value in enumerate(values, start=2):
            if value:
                _number(rates_sheet.cell(row, column), Decimal(value), "0.00000000")
    _page(rates_sheet)
