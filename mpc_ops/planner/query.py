"""Reads report SQL into a `Query`: which aggregates of which dataset, and which measures of them.

Two forms are accepted (docs/sql.md):

(A) the group report: a subtotal per entity and period in a WITH clause, translated with `gc(amount, rate)` and added over
    entities outside;
(B) the simple form: dimensions, SUM and COUNT straight from the dataset, for one period and without translation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeVar

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from mpc_ops.errors import ConfigError, PlanError
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.federation.loaded import Federation
from mpc_ops.plan.expr import Expr
from mpc_ops.planner.expressions import Expressions, conjuncts, name_of, plain_column
from mpc_ops.planner.refusal import Source

__all__ = ["AggregateSql", "MeasureSql", "Query", "SliceName", "parse_select", "read_subtotals", "table_of"]

SliceName = Literal["period", "prior_year"]
E = TypeVar("E", bound=exp.Expr)
_SQL_LIMIT = 100_000
_PSEUDO = ("entity", "period")


@dataclass(frozen=True, slots=True)
class AggregateSql:
    """One aggregate over an owner's rows; `node` is where it stands."""

    name: str
    fn: Literal["sum", "count", "count_distinct"]
    expr: Expr | None
    node: exp.Expr


@dataclass(frozen=True, slots=True)
class MeasureSql:
    """One output column; `node` is where it stands."""

    name: str
    source: str
    slice: SliceName
    translate: SliceName | None
    node: exp.Expr


@dataclass(slots=True)
class Query:
    """What a report asks for."""

    contract: DatasetContract
    dimensions: list[str]
    rollup: bool = False
    slices: list[SliceName] = field(default_factory=list)
    condition: Expr | None = None
    aggregates: list[AggregateSql] = field(default_factory=list)
    measures: list[MeasureSql] = field(default_factory=list)


def parse_select(source: Source) -> exp.Select:
    """Parse the SQL into one SELECT; raise PlanError SQL_INVALID with the position, or UNSUPPORTED_SQL."""
    if len(source.text) > _SQL_LIMIT:
        raise PlanError("SQL_INVALID", "the report's SQL is too long", expected=f"at most {_SQL_LIMIT} characters")
    try:
        statements = [node for node in sqlglot.parse(source.text, dialect="duckdb") if node is not None]
    except SqlglotError as error:
        known = getattr(error, "errors", None) or [{}]
        place = f"{known[0].get('line', 1)}:{known[0].get('col', 1)}: "
        why = str(known[0].get("description") or "this is not SQL")
        raise PlanError("SQL_INVALID", place + why.partition("\n")[0][:200]) from None
    except RecursionError:
        raise PlanError("SQL_INVALID", "1:1: the report's SQL is nested too deeply") from None
    if len(statements) != 1:
        raise PlanError("UNSUPPORTED_SQL", "1:1: a report is one SELECT", got=f"{len(statements)} statements")
    (statement,) = statements
    if not isinstance(statement, exp.Select):
        raise source.refuse(statement, f"a report is a SELECT, not {type(statement).__name__.upper()}")
    return statement


def table_of(source: Source, node: exp.Expr | None, parent: exp.Expr) -> tuple[str, str]:
    """Return (table name, alias) of FROM or JOIN; functions, files, schemas and catalogs are refused."""
    if node is None:
        raise source.refuse(parent, "FROM is missing")
    table = node.this if isinstance(node, exp.From) else node
    if not isinstance(table, exp.Table):
        raise source.refuse(table)
    source.only(table, "this", "alias")
    if not isinstance(table.this, exp.Identifier) or table.this.args.get("quoted"):
        raise source.refuse(table, "functions and files cannot stand in FROM; name a dataset of the federation")
    name = name_of(source, table.this)
    alias = table.args.get("alias")
    if alias is None:
        return name, name
    source.only(alias, "this")
    return name, name_of(source, alias.this)


def read_subtotals(
    source: Source, select: exp.Select, federation: Federation, *, per_entity: bool
) -> tuple[Query, list[exp.Expr]]:
    """Read `SELECT ... FROM dataset WHERE ... GROUP BY ...`: form B, or the WITH clause of form A.

    Args:
        source: the SQL.
        select: the SELECT over a dataset.
        federation: its datasets.
        per_entity: whether `entity, period` must be selected and grouped by.

    Returns:
        the query without measures, and the GROUP BY's expressions.
    """
    source.only(select, "expressions", "from_", "where", "group")
    dataset, alias = table_of(source, select.args.get("from_"), select)
    contract = federation.terms.datasets.get(dataset)
    if contract is None:
        raise source.refuse(
            select.args["from_"],
            f"the federation has no dataset {dataset}",
            hint=f"It has {', '.join(federation.terms.datasets)}",
        )
    if {column.name for column in contract.columns} & set(_PSEUDO):
        raise source.refuse(
            select.args["from_"], "a contract with a column called entity or period cannot be used in SQL"
        )
    query = Query(contract, [])
    expressions = Expressions(source, contract, alias)
    selected = []
    for item in select.expressions:
        if isinstance(item, exp.Column):
            selected.append(_key(source, item, contract, alias, per_entity=per_entity))
        else:
            query.aggregates.append(_aggregate(source, item, expressions, contract))
    _unique(source, select, [*selected, *(one.name for one in query.aggregates)])
    _where(source, select, query, expressions, per_entity=per_entity)
    groups = _groups(source, select, query, rollup=not per_entity)
    grouped = [_key(source, item, contract, alias, per_entity=per_entity) for item in groups]
    if sorted(grouped) != sorted(selected) or len(set(grouped)) != len(grouped):
        raise source.refuse(
            select.args.get("group") or select, "GROUP BY must name exactly the selected columns without aggregate"
        )
    if per_entity and not set(_PSEUDO) <= set(grouped):
        raise source.refuse(select, "the subtotal must be selected and grouped by entity and period")
    query.dimensions = [name for name in grouped if name not in _PSEUDO]
    if not query.aggregates:
        raise source.refuse(select, "the report has no aggregate: write SUM(...), COUNT(*) or COUNT(DISTINCT unit)")
    return query, groups


def _unique(source: Source, select: exp.Select, names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise source.refuse(select, "two selected columns have one name")


def _key(source: Source, node: exp.Expr, contract: DatasetContract, alias: str, *, per_entity: bool) -> str:
    table, name = plain_column(source, node)
    if table is not None and table != alias:
        raise source.refuse(node, f"no table is called {table} here")
    if per_entity and name in _PSEUDO:
        return name
    if name in _PSEUDO:
        raise source.refuse(node, f"{name} is not selected in the simple form; put the subtotal into WITH")
    try:
        column = contract.column(name)
    except ConfigError as error:
        raise source.refuse(node, error.what, hint=f"There are {error.expected}") from None
    if column.role != "dimension":
        raise source.refuse(
            node, f"{name} is not a public dimension of the contract, so it can only stand inside an aggregate"
        )
    return name


def _aggregate(source: Source, item: exp.Expr, expressions: Expressions, contract: DatasetContract) -> AggregateSql:
    if not isinstance(item, exp.Alias):
        if isinstance(item, (exp.Sum, exp.Count)):
            raise source.refuse(item, "every aggregate needs a name: write AS name")
        raise source.refuse(item)
    name, node = name_of(source, item.args["alias"]), item.this
    if isinstance(node, exp.Sum):
        if isinstance(node.this, exp.Distinct):
            raise source.refuse(node, "DISTINCT is only allowed as COUNT(DISTINCT unit)")
        return AggregateSql(name, "sum", expressions.checked(node.this), item)
    if isinstance(node, exp.Count):
        source.only(node, "this", "big_int")
        if isinstance(node.this, exp.Star):
            source.only(node.this)
            return AggregateSql(name, "count", None, item)
        if isinstance(node.this, exp.Distinct) and len(node.this.expressions) == 1:
            source.only(node.this, "expressions")
            unit = contract.by_role("unit")[0].name
            if plain_column(source, node.this.expressions[0])[1] != unit:
                raise source.refuse(node, f"only the contract's protected unit can be counted distinct: {unit}")
            return AggregateSql(name, "count_distinct", None, item)
        raise source.refuse(node, "write COUNT(*) or COUNT(DISTINCT unit)")
    if isinstance(node, exp.Column):
        raise source.refuse(item, "dimensions keep their names")
    if isinstance(node, exp.Mul) and any(isinstance(part, exp.AggFunc) for part in node.walk()):
        raise source.refuse(
            node, "a product of aggregates is a product of shared values, which this version does not have"
        )
    raise source.refuse(node)


def _where(source: Source, select: exp.Select, query: Query, expressions: Expressions, *, per_entity: bool) -> None:
    where = select.args.get("where")
    rest = []
    for node in conjuncts(where.this) if where is not None else []:
        found = _slices(source, node)
        if found is None:
            rest.append(node)
        elif query.slices:
            raise source.refuse(node, "period is restricted twice")
        else:
            query.slices = found
    if not query.slices:
        forms = "period = :period" + (" or period IN (:period, :prior_year)" if per_entity else "")
        raise source.refuse(where or select, f"WHERE must say {forms}, not nested in another condition")
    if not per_entity and query.slices != ["period"]:
        raise source.refuse(select.args["where"], "the simple form has one period; put the subtotal into WITH for two")
    query.condition = expressions.condition(rest) if rest else None


def _slices(source: Source, node: exp.Expr) -> list[SliceName] | None:
    """Return the slices of `period = :period` or `period IN (...)`, None for any other condition."""
    if not isinstance(node, (exp.EQ, exp.In)) or not isinstance(node.this, exp.Column):
        return None
    if plain_column(source, node.this)[1] != "period":
        return None
    values = [node.expression] if isinstance(node, exp.EQ) else node.expressions
    names = [str(value.this) for value in values if isinstance(value, exp.Placeholder)]
    if len(names) != len(values) or sorted(names) not in (["period"], ["period", "prior_year"]):
        raise source.refuse(node, "period is compared with :period, or with :period and :prior_year")
    return ["period", "prior_year"] if len(names) == 2 else ["period"]


def _groups(source: Source, select: exp.Select, query: Query, *, rollup: bool) -> list[exp.Expr]:
    """Return the grouped expressions; sets `query.rollup`."""
    group = select.args.get("group")
    if group is None:
        return []
    source.only(group, "expressions")
    items: list[exp.Expr] = list(group.expressions)
    if len(items) == 1 and isinstance(items[0], exp.Rollup) and rollup:
        query.rollup = True
        return list(items[0].expressions)
    for item in items:
        if isinstance(item, exp.Rollup):
            raise source.refuse(item, "ROLLUP stands alone, in the outermost GROUP BY")
        if not isinstance(item, exp.Column):
            raise source.refuse(item)
    return items
