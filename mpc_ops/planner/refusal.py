"""Refusals with line and column, and strict looking at sqlglot's nodes: what is not named is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from mpc_ops.errors import PlanError

__all__ = ["Source", "reason"]

_COMPARE = "comparisons on shares, which this version does not have"
_READS_FILES = "functions and files cannot stand in FROM; name a dataset of the federation"
_REASONS: tuple[tuple[tuple[type[Any], ...], str], ...] = (
    ((exp.Avg,), "AVG: write SUM and COUNT and divide after the release"),
    (
        (exp.Median, exp.Quantile, exp.PercentileCont, exp.PercentileDisc, exp.WithinGroup),
        f"a median or quantile needs {_COMPARE}",
    ),
    ((exp.Min, exp.Max, exp.ArgMin, exp.ArgMax, exp.Least, exp.Greatest), f"MIN and MAX need {_COMPARE}"),
    ((exp.Window,), "window functions are not part of report SQL"),
    (
        (exp.Subquery, exp.Exists, exp.Union, exp.Intersect, exp.Except),
        "sub-queries and set operations are not part of report SQL",
    ),
    ((exp.Star,), "SELECT *: name every column"),
    ((exp.Div, exp.IntDiv, exp.Mod), "a quotient is not exact: release both parts and divide after the release"),
    ((exp.Having,), f"HAVING needs {_COMPARE}; small cells are handled by the Gate"),
    ((exp.Order, exp.Ordered), "ORDER BY: rows come in the order of the contract's domains"),
    ((exp.Limit, exp.Offset, exp.Fetch), "LIMIT: every cell of the report is released"),
    ((exp.Qualify,), "QUALIFY is not part of report SQL"),
    ((exp.Filter,), "FILTER: write SUM(CASE WHEN condition THEN value ELSE 0 END)"),
    ((exp.Cast, exp.TryCast), "a cast: the contract fixes every type (DATE 'YYYY-MM-DD' is allowed)"),
    ((exp.ReadCSV, exp.ReadParquet), _READS_FILES),
    ((exp.Cube, exp.GroupingSets), "CUBE and GROUPING SETS: use ROLLUP"),
    ((exp.Null,), "NULL can only be tested with IS NULL"),
    ((exp.Placeholder, exp.Parameter), "only the parameters :period and :prior_year exist, and only against period"),
    ((exp.Join,), "only entity and fx can be joined, in the form that docs/sql.md shows"),
    ((exp.TableSample,), "samples are not part of report SQL"),
)


def reason(node: exp.Expr) -> str:
    """Return why a construct is not part of report SQL."""
    for kinds, why in _REASONS:
        if isinstance(node, kinds):
            return why
    if isinstance(node, exp.Anonymous):
        return f"the function {str(node.this)[:40]} is not part of report SQL"
    if isinstance(node, exp.Func):
        return f"the function {node.sql_name()[:40]} is not part of report SQL"
    return f"{type(node).__name__.upper()} is not part of report SQL"


@dataclass(frozen=True, slots=True)
class Source:
    """The SQL text, to turn nodes into places."""

    text: str

    def place(self, node: exp.Expr) -> tuple[int, int]:
        """Return (line, column), both from 1, of the first token known to belong to a node; of its parent if none is."""
        # A SELECT begins with its first column, not with the WITH clause that stands before it.
        here: exp.Expr | None = node.expressions[0] if isinstance(node, exp.Select) and node.expressions else node
        while here is not None:
            starts = [int(part.meta["start"]) for part in here.walk() if "start" in part.meta]
            if starts:
                before = self.text[: min(starts)]
                return before.count("\n") + 1, len(before) - before.rfind("\n")
            here = here.parent
        return 1, 1

    def refuse(self, node: exp.Expr, why: str | None = None, *, hint: str | None = None) -> PlanError:
        """Return UNSUPPORTED_SQL with the node's position and the reason."""
        line, column = self.place(node)
        return PlanError("UNSUPPORTED_SQL", f"{line}:{column}: {why or reason(node)}", hint=hint)

    def located(self, error: PlanError, node: exp.Expr) -> PlanError:
        """Return the error with the position of a node added."""
        line, column = self.place(node)
        return type(error)(
            error.code,
            f"{line}:{column}: {error.what}",
            expected=error.expected,
            got=error.got,
            ids=error.ids,
            hint=error.hint,
        )

    def only(self, node: exp.Expr, *allowed: str) -> None:
        """Refuse a node that has any part besides those named."""
        for name, value in node.args.items():
            if name in allowed or value is None or value is False or value == []:
                continue
            part = value[0] if isinstance(value, list) and value else value
            if isinstance(part, exp.Expr) and any(isinstance(part, kinds) for kinds, _ in _REASONS):
                raise self.refuse(part)
            if name == "distinct":
                raise self.refuse(node, "DISTINCT is only allowed as COUNT(DISTINCT unit)")
            raise self.refuse(
                node, f"{type(node).__name__.upper()} with {name.strip('_').upper()} is not part of report SQL"
            )
