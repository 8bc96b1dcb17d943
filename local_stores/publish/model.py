"""What is published: a table of exact integers, the facts it rests on and who submitted. All frozen, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from mpc_ops.errors import LocalProtocolError

__all__ = [
    "Basis",
    "CalendarFacts",
    "Column",
    "Level",
    "Measure",
    "RateFact",
    "ReportTable",
    "Row",
    "Submission",
]

Level = Literal["leaf", "not_allocated", "subtotal", "total"]
Column = Literal["month", "prior_year", "prior_year_cc"]


@dataclass(frozen=True)
class Measure:
    """One column of opened numbers.

    Attributes:
        name: column name in the files: a-z, 0-9 and `_`.
        label: what people call the figure, the same for all columns of one base, for example `Revenue`.
        kind: `amount` of money or `count`.
        scale: the integer counts units of 10^-scale; 0 for counts.
        currency: ISO 4217 code of an amount, None for a count.
        foots: totals are sums of cells; False where units are counted anew at every level.
        note: one sentence printed under the table, or empty.
        base: name of the month's measure that this column belongs to; its own name for the month itself.
        column: the month, the same month of the prior year, or that month at this month's rates.
        percent_of: name of the month's measure that this one is shown as a percentage of, for example margin of revenue.
    """

    name: str
    label: str
    kind: Literal["amount", "count"]
    scale: int
    currency: str | None
    foots: bool
    note: str = ""
    base: str = ""
    column: Column = "month"
    percent_of: str | None = None

    def __post_init__(self) -> None:
        if not self.base:
            object.__setattr__(self, "base", self.name)


@dataclass(frozen=True)
class Row:
    """A row: leading dimension values and one integer per measure.

    Attributes:
        level: `leaf`; `not_allocated` under the prefix `labels`; `subtotal` of the prefix; `total` of everything.
        labels: values of the leading dimensions; all of them for a leaf, fewer otherwise, none for the total.
        values: integers in the order of the table's measures, in units of 10^-scale.
    """

    level: Level
    labels: tuple[str, ...]
    values: tuple[int, ...]

    @property
    def key(self) -> tuple[Level, tuple[str, ...]]:
        """Place of the row, the same in every month's table."""
        return self.level, self.labels


@dataclass(frozen=True)
class ReportTable:
    """The opened result of one run, rows in printing order.

    Attributes:
        report: the report's name (folder name); title: the report's title.
        period: period key; edition: release number within the period, from 1.
        currency: group currency, None if no measure is an amount.
        dimensions: column names of the dimensions, outermost first.
        dimension_labels: what people call them, in the same order.

    Raises:
        LocalProtocolError: TABLE_INVALID if names repeat, rows repeat or have other lengths.
    """

    report: str
    title: str
    period: str
    edition: int
    currency: str | None
    dimensions: tuple[str, ...]
    dimension_labels: tuple[str, ...]
    measures: tuple[Measure, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        names = [measure.name for measure in self.measures]
        problem = None
        if len({*names, *self.dimensions, "level"}) != len(names) + len(self.dimensions) + 1:
            problem = "two columns have one name"
        elif any(measure.base not in names for measure in self.measures):
            problem = "a measure's base is not in the table"
        elif len(self.dimensions) != len(self.dimension_labels):
            problem = "dimensions and their labels differ in number"
        elif len({row.key for row in self.rows}) != len(self.rows):
            problem = "a row stands twice"
        elif any(len(row.values) != len(names) or not self._fits(row) for row in self.rows):
            problem = "a row does not fit the columns"
        if problem:
            raise LocalProtocolError("TABLE_INVALID", problem, ids={"report": self.report, "period": self.period})

    def _fits(self, row: Row) -> bool:
        depth, length = len(self.dimensions), len(row.labels)
        return {"leaf": length == depth, "total": length == 0, "subtotal": 0 < length < depth}.get(
            row.level, length < depth
        )

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Position of each measure in `Row.values`."""
        return {measure.name: position for position, measure in enumerate(self.measures)}

    @cached_property
    def by_key(self) -> Mapping[tuple[Level, tuple[str, ...]], Row]:
        """Rows by their place."""
        return {row.key: row for row in self.rows}

    def value(self, row: Row, name: str) -> int:
        """Return the integer of measure `name` in `row`."""
        return row.values[self.positions[name]]

    def column(self, base: str, column: Column) -> Measure | None:
        """Return the measure that holds `column` of `base`, if the report has it."""
        return next((measure for measure in self.measures if (measure.base, measure.column) == (base, column)), None)

    @property
    def bases(self) -> tuple[Measure, ...]:
        """The month's measures in order."""
        return tuple(measure for measure in self.measures if measure.column == "month")

    @property
    def total(self) -> Row | None:
        """The grand total, or the only row of a report without dimensions."""
        if not self.dimensions and self.rows:
            return self.rows[0]
        return self.by_key.get(("total", ()))


@dataclass(frozen=True)
class RateFact:
    """Units of group currency per unit of `currency` in `period`, exact decimal text."""

    period: str
    currency: str
    rate: str


@dataclass(frozen=True)
class CalendarFacts:
    """The signed calendar's row: local dates [start_date, end_date) in `zone`, moments in UTC, all as ISO text."""

    start_date: str
    end_date: str
    zone: str
    opens_at: str
    cut_at: str
    due_at: str


@dataclass(frozen=True)
class Submission:
    """What one entity submitted, as far as the recipient knows it.

    Attributes:
        owner: the entity's name; jurisdiction: country code.
        state: `submitted`, `empty` (nothing to report), `late` or `excluded` (both not part of the figures).
        submitted_at: UTC text or None.
        sign_offs: people who signed the figures, None if not reported.
        tie_out: whether control totals tied to the ledger: `passed`, `none` (the data contract names none), or None.
        take: how often the entity submitted before the close counted.
    """

    owner: str
    jurisdiction: str
    state: Literal["submitted", "empty", "late", "excluded"]
    submitted_at: str | None = None
    sign_offs: int | None = None
    tie_out: Literal["passed", "none"] | None = None
    take: int | None = None


@dataclass(frozen=True)
class Basis:
    """What the figures rest on. Digests here are of public or ciphertext-side files, never of figures.

    Attributes:
        run_id: the run; manifest: digest of the submission close, if not the same.
        plan_digest: digest of the calculation plan; plan_version: the report's version.
        recipient: name of the result recipient; closed_at: UTC text of the submission close.
        submissions: every entity of the run, and those left out.
        calendar: the period's row of the signed calendar.
        gate_units: the protected units as the data contract calls them, for example `customers`; gate_k: their minimum per
            cell of an entity, or of a country where `gate_at` is `region`; gate_owners: fewest entities that they are of there.
        rate_digest: digest of the signed reference data; rates: the rates used; rate_source: where they come from.
        entity_tree: version or digest of the entity tree, or empty.
        year_periods: keys of the year's periods up to this one, from the calendar; empty if there is no year to date.
        edition_reason: why a revised release was made; empty for the first.
        extra: further lines (name, text) for the basis table.
    """

    run_id: str
    plan_digest: str
    plan_version: int
    recipient: str
    closed_at: str
    submissions: tuple[Submission, ...]
    calendar: CalendarFacts
    gate_units: str
    gate_k: int
    manifest: str = ""
    rate_digest: str | None = None
    rates: tuple[RateFact, ...] = ()
    rate_source: str = ""
    entity_tree: str = ""
    year_periods: tuple[str, ...] = ()
    edition_reason: str = ""
    gate_at: Literal["owner", "region"] = "owner"
    gate_owners: int = 1
    extra: tuple[tuple[str, str], ...] = field(default=())

    @property
    def submitted(self) -> int:
        """How many entities are part of the figures (empty submissions included)."""
        return sum(entry.state in {"submitted", "empty"} for entry in self.submissions)
