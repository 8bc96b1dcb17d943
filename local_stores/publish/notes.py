"""Sentences for what a reader could take for an error: cells not allocated, customers that do not add up, missing months."""

from __future__ import annotations

from local_stores.publish.derive import YearToDate
from local_stores.publish.model import Basis, ReportTable
from local_stores.publish.text import count_text, period_label
from local_stores.publish.view import unit_of

__all__ = ["gate_below", "gate_least", "gate_text", "has_gate", "notes", "year_text"]


def has_gate(basis: Basis) -> bool:
    """Return whether small cells are moved at all."""
    return basis.gate_k > 1 or basis.gate_owners > 1


def gate_least(basis: Basis) -> str:
    """Return what a cell holds at least: `10 customers`, or `10 customers of 2 entities`."""
    owners = f" of {basis.gate_owners} entities" if basis.gate_owners > 1 else ""
    return f"{basis.gate_k} {basis.gate_units}{owners}"


def gate_below(basis: Basis) -> str:
    """Return what makes a cell small: `fewer than 10 customers`, or also those of too few entities."""
    owners = f", or {basis.gate_units} of fewer than {basis.gate_owners} entities" if basis.gate_owners > 1 else ""
    return f"fewer than {basis.gate_k} {basis.gate_units}{owners}"


def gate_text(basis: Basis) -> str:
    """Return the small-cell rule in one sentence."""
    if not has_gate(basis):
        return "none"
    place = "a country, over all its entities" if basis.gate_at == "region" else "an entity"
    return f"at least {gate_least(basis)} in every subtotal that leaves {place}, else not allocated"


def notes(table: ReportTable, basis: Basis, year: YearToDate | None) -> list[tuple[str, str]]:
    """Return (term, explanation) pairs in the order of the table."""
    out = [*_small_cells(table, basis), *_measures(table)]
    if year is not None:
        out.append(("Year to date", year_text(year)))
    if any(m.kind == "amount" for m in table.measures) and basis.rates:
        text = "Every entity translates its own subtotal at the month's rate and rounds it half-even to the cent before it is added up."
        if basis.gate_at == "region":
            text = text.replace("its own subtotal", "its own subtotal of every line")
        if any(m.column == "prior_year_cc" for m in table.measures):
            text += f" \u201cAt {period_label(table.period)} rates\u201d translates the prior year's subtotals at this month's rates instead."
        out.append(("Translation", text))
    if unit_of(table)[0]:
        text = "Rounded one by one for reading, so they may seem not to add up; the exact figures below add up to the cent."
        out.append(("Thousands", text))
    return out


def _small_cells(table: ReportTable, basis: Basis) -> list[tuple[str, str]]:
    units, k = basis.gate_units, basis.gate_k
    if not table.dimensions or not has_gate(basis):
        return []
    if basis.gate_at == "region":
        return _small_cells_of_countries(basis)
    moved = (
        f"A subtotal of fewer than {k} {units} within one entity is not shown in its own line. The entity adds it to the not-allocated "
        f"line of its group and, if that is still below {k} {units}, to the one at the foot of the table, which takes the smallest "
        f"other lines with it until it holds {k}. Nothing is lost: totals hold every amount. Which entity moved which line is known to "
        f"that entity alone. An entity with fewer than {k} {units} in all adds nothing to that month."
    )
    zero = f"No entity has at least {k} {units} there: nothing was booked, or it stands in a not-allocated line."
    return [("Not allocated", moved), ("A line of 0", zero)]


def _small_cells_of_countries(basis: Basis) -> list[tuple[str, str]]:
    below, least = gate_below(basis), gate_least(basis)
    enough = str(basis.gate_k) if basis.gate_owners == 1 else f"{least} or more"
    moved = (
        f"A subtotal of {below} within one country, over all its entities together, is not shown in its own line. The "
        f"country's computing operators add it, on secret shares, to the not-allocated line of its group and, if that is still below "
        f"{least}, to the one at the foot of the table, which takes the smallest other line with it until it holds {enough}. Nothing is "
        f"lost: totals hold every amount. Nobody learns which country moved which line. A country with {below} in all "
        "adds nothing to that month."
    )
    zero = f"No country has at least {least} there: nothing was booked, or it stands in a not-allocated line."
    return [("Not allocated", moved), ("A line of 0", zero)]


def _measures(table: ReportTable) -> list[tuple[str, str]]:
    out = []
    for base in table.bases:
        if base.note:
            out.append((base.label, base.note))
        elif not base.foots:
            text = (
                "Counted anew at every level within each entity, then added over the entities. Lines therefore do not add up to totals "
                "and months not to a year: whoever is in two lines counts once in their total, whoever is known to two entities counts twice."
            )
            out.append((base.label, text))
    return out


def year_text(year: YearToDate) -> str:
    """Return which months the year-to-date columns hold and which they lack."""
    months = [
        period_label(period) + (f" (release {edition})" if edition > 1 else "") for period, edition in year.included
    ]
    text = f"The sum of {count_text(len(months))} published {'month' if len(months) == 1 else 'months'}: {', '.join(months)}."
    if year.missing:
        text += (
            f" Not included, because not published here: {', '.join(period_label(period) for period in year.missing)}."
        )
    return text + " The result recipient adds it up; nobody sends it. What was not allocated in a month stays so."
