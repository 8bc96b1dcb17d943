"""The table as one plain HTML page: no script, no external resource, readable by screen readers and on paper."""

from __future__ import annotations

from functools import cache
from itertools import accumulate

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from local_stores.publish.derive import YearToDate, footing
from local_stores.publish.facts import SUBMISSION_HEAD, basis_rows, rate_rows, submission_rows
from local_stores.publish.model import Basis, ReportTable
from local_stores.publish.notes import gate_text, notes
from local_stores.publish.text import moment_text, period_label
from local_stores.publish.view import tables

__all__ = ["html_bytes"]


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("local_stores.publish"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def html_bytes(table: ReportTable, basis: Basis, year: YearToDate | None) -> bytes:
    """Return the page; every text in it is escaped, amounts carry their exact value."""
    laid_out = tables(table, year)
    rate_periods, rates = rate_rows(basis)
    widths = [width for _, width in laid_out.detail_groups]
    page = _template().render(
        table=table,
        basis=basis,
        year=year,
        due=moment_text(basis.calendar.due_at),
        closed=moment_text(basis.closed_at),
        period=period_label(table.period, basis.calendar.start_date, basis.calendar.end_date),
        tables=laid_out,
        edges=set(accumulate([0, *widths[:-1]])),
        footing=footing(table),
        gate=gate_text(basis),
        notes=notes(table, basis, year),
        submission_head=SUBMISSION_HEAD,
        submissions=submission_rows(basis),
        facts=basis_rows(table, basis, year),
        rate_periods=rate_periods,
        rates=rates,
    )
    return page.encode()
