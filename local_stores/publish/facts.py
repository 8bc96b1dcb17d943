"""The rows of the completeness, basis and rate tables, as text: the same for the page and the workbook."""

from __future__ import annotations

from local_stores.publish.derive import YearToDate
from local_stores.publish.model import Basis, ReportTable, Submission
from local_stores.publish.notes import gate_text, year_text
from local_stores.publish.text import moment_text, period_label

__all__ = ["SUBMISSION_HEAD", "basis_rows", "rate_rows", "submission_rows"]

SUBMISSION_HEAD = (
    "Entity",
    "Country",
    "Submission",
    "Submitted at",
    "Figures signed by",
    "Tie-out to the ledger",
    "Attempt",
)

_STATES = {
    "submitted": "submitted",
    "empty": "empty submission",
    "late": "late, not in the figures",
    "excluded": "left out",
}
_TIE_OUTS = {"passed": "check passed", "none": "none in the data contract", None: "not reported"}


def submission_rows(basis: Basis) -> list[tuple[str, ...]]:
    """Return one row of text per entity, those in the figures first, in the order given."""
    ordered = sorted(basis.submissions, key=lambda entry: entry.state in {"late", "excluded"})
    return [_submission(entry) for entry in ordered]


def _submission(entry: Submission) -> tuple[str, ...]:
    missing = entry.state in {"late", "excluded"}
    people = "" if missing else ("not reported" if entry.sign_offs is None else _people(entry.sign_offs))
    return (
        entry.owner,
        entry.jurisdiction,
        _STATES[entry.state],
        moment_text(entry.submitted_at or ""),
        people,
        "" if missing else _TIE_OUTS[entry.tie_out],
        str(entry.take or ""),
    )


def _people(number: int) -> str:
    return {0: "nobody (not required)", 1: "1 person"}.get(number, f"{number} people")


def basis_rows(table: ReportTable, basis: Basis, year: YearToDate | None) -> list[tuple[str, str, bool]]:
    """Return (name, text, whether the text is an identifier)."""
    calendar = basis.calendar
    opened, cut, due = map(moment_text, (calendar.opens_at, calendar.cut_at, calendar.due_at))
    rows = [
        ("Report", f"{table.report}, version {basis.plan_version}", False),
        (
            "Period",
            f"{table.period}: local dates from {calendar.start_date} up to, not including, {calendar.end_date} ({calendar.zone})",
            False,
        ),
        ("Calendar", f"opened {opened}, cut-off {cut}, due {due}", False),
        ("Submission close", moment_text(basis.closed_at), False),
        (
            "Release",
            f"{table.edition}" + (f" (revised release: {basis.edition_reason})" if basis.edition_reason else ""),
            False,
        ),
        ("Result recipient", basis.recipient, False),
        ("Small-cell rule", gate_text(basis), False),
        (
            "Rounding",
            "half-even to the cent, once, on every entity's subtotal after translation; sums are exact",
            False,
        ),
        ("Run", basis.run_id, True),
        ("Calculation plan (SHA-256)", basis.plan_digest, True),
    ]
    if year is not None:
        rows.insert(5, ("Year to date", year_text(year), False))
    if basis.manifest:
        rows.append(("Submission close (SHA-256)", basis.manifest, True))
    if basis.rate_digest:
        rows.append(("Reference data (SHA-256)", basis.rate_digest, True))
    if basis.entity_tree:
        rows.append(("Entity tree", basis.entity_tree, True))
    rows += [(name, text, False) for name, text in basis.extra]
    return rows


def rate_rows(basis: Basis) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the periods (labels) and one row of rates per currency."""
    periods = sorted({rate.period for rate in basis.rates})
    known = {(rate.currency, rate.period): rate.rate for rate in basis.rates}
    currencies = sorted({rate.currency for rate in basis.rates})
    return [period_label(p) for p in periods], [(c, [known.get((c, p), "") for p in periods]) for c in currencies]
