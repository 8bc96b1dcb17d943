"""Form A of report SQL: subtotals per entity and period, translated and added over entities.

```sql
WITH t AS (SELECT entity, period, segment, SUM(revenue_lc) AS revenue, COUNT(DISTINCT customer_uid) AS customers
           FROM sales_line WHERE period IN (:period, :prior_year) GROUP BY entity, period, segment)
SELECT t.segment,
       SUM(CASE WHEN t.period = :period THEN gc(t.revenue, f.avg_rate) ELSE 0 END) AS revenue,
       SUM(CASE WHEN t.period = :period THEN each_level(t.customers) ELSE 0 END) AS customers
FROM t JOIN entity e ON e.entity = t.entity JOIN fx f ON f.currency = e.currency AND f.period = t.period
GROUP BY ROLLUP (t.segment)
```
`entity` and `fx` are reference data: what an entity books in, and a rate per currency and period.
"""

from __future__ import annotations

from typing import Literal

from sqlglot import exp

from mpc_ops.federation.loaded import Federation
from mpc_ops.planner.expressions import conjuncts, name_of, plain_column
from mpc_ops.planner.query import AggregateSql, MeasureSql, Query, SliceName, read_subtotals, table_of
from mpc_ops.planner.refusal import Source

__all__ = ["read_group_report"]

_SLICES = ("period", "prior_year")


def read_group_report(source: Source, select: exp.Select, federation: Federation) -> Query:
    """Read form A; raises PlanError UNSUPPORTED_SQL with position and reason."""
    source.only(select, "expressions", "from_", "group", "with_", "joins")
    name, inner = _with(source, select)
    query, _groups = read_subtotals(source, inner, federation, per_entity=True)
    table, alias = table_of(source, select.args.get("from_"), select)
    if table != name:
        raise source.refuse(select.args["from_"], f"the outer SELECT must read the sub-total {name}")
    reader = _Outer(source, query, alias)
    reader.joins(select)
    reader.group(select)
    reader.items(select)
    return query


def _with(source: Source, select: exp.Select) -> tuple[str, exp.Select]:
    clause = select.args["with_"]
    source.only(clause, "expressions")
    if len(clause.expressions) != 1:
        raise source.refuse(clause, "WITH has exactly one sub-total")
    (part,) = clause.expressions
    source.only(part, "this", "alias")
    source.only(part.args["alias"], "this")
    if not isinstance(part.this, exp.Select):
        raise source.refuse(part.this)
    return name_of(source, part.args["alias"].this), part.this


class _Outer:
    """Reads the outer SELECT against the subtotal's columns."""

    def __init__(self, source: Source, query: Query, alias: str) -> None:
        self._source, self._query, self._alias = source, query, alias
        self._aggregates: dict[str, AggregateSql] = {one.name: one for one in query.aggregates}
        self._entity: str | None = None
        self._rates: dict[str, Literal["own"] | SliceName] = {}

    def joins(self, select: exp.Select) -> None:
        """Read `JOIN entity e ON ...` and `JOIN fx f ON ...`."""
        aliases = {self._alias}
        for join in select.args.get("joins") or []:
            self._source.only(join, "this", "on")
            table, alias = table_of(self._source, join.this, join)
            if alias in aliases:
                raise self._source.refuse(join, f"two tables are called {alias}")
            aliases.add(alias)
            if join.args.get("on") is None or table not in {"entity", "fx"}:
                raise self._source.refuse(join)
            pairs = [self._pair(node) for node in conjuncts(join.args["on"])]
            if table == "entity":
                self._join_entity(join, alias, pairs)
            else:
                self._join_rates(join, alias, pairs)

    def _pair(self, node: exp.Expr) -> frozenset[str]:
        if not isinstance(node, exp.EQ):
            raise self._source.refuse(node, "a join condition is an equality")
        return frozenset(self._side(side) for side in (node.this, node.expression))

    def _side(self, node: exp.Expr) -> str:
        if isinstance(node, exp.Placeholder) and node.this in _SLICES:
            return f":{node.this}"
        table, name = plain_column(self._source, node)
        if table is None:
            raise self._source.refuse(node, "write the table's alias before the column")
        return f"{table}.{name}"

    def _join_entity(self, join: exp.Expr, alias: str, pairs: list[frozenset[str]]) -> None:
        if self._entity is not None or pairs != [frozenset({f"{alias}.entity", f"{self._alias}.entity"})]:
            raise self._source.refuse(join, f"join entity once, ON {alias}.entity = {self._alias}.entity")
        self._entity = alias

    def _join_rates(self, join: exp.Expr, alias: str, pairs: list[frozenset[str]]) -> None:
        currency = frozenset({f"{alias}.currency", f"{self._entity}.currency"})
        moments: dict[frozenset[str], Literal["own"] | SliceName] = {
            frozenset({f"{alias}.period", f"{self._alias}.period"}): "own",
            frozenset({f"{alias}.period", ":period"}): "period",
            frozenset({f"{alias}.period", ":prior_year"}): "prior_year",
        }
        left = [pair for pair in pairs if pair != currency]
        if self._entity is None or len(pairs) != 2 or len(left) != 1 or left[0] not in moments:
            raise self._source.refuse(
                join,
                f"join fx after entity, ON {alias}.currency = e.currency AND {alias}.period = {self._alias}.period or :period",
            )
        self._rates[alias] = moments[left[0]]

    def group(self, select: exp.Select) -> None:
        """Read GROUP BY; it decides the order of dimensions."""
        group = select.args.get("group")
        items: list[exp.Expr] = []
        if group is not None:
            self._source.only(group, "expressions")
            items = list(group.expressions)
            if len(items) == 1 and isinstance(items[0], exp.Rollup):
                self._query.rollup = True
                items = list(items[0].expressions)
        names = [self._dimension(item) for item in items]
        if sorted(names) != sorted(self._query.dimensions):
            raise self._source.refuse(
                group or select, "the outer GROUP BY must name the sub-total's dimensions, each once"
            )
        self._query.dimensions = names

    def _dimension(self, node: exp.Expr) -> str:
        if isinstance(node, exp.Rollup):
            raise self._source.refuse(node, "ROLLUP stands alone, in the outermost GROUP BY")
        table, name = plain_column(self._source, node)
        if table not in {None, self._alias} or name not in self._query.dimensions:
            raise self._source.refuse(node, f"{name} is not a dimension of the sub-total")
        return name

    def items(self, select: exp.Select) -> None:
        """Read the selected dimensions and measures."""
        names = []
        for item in select.expressions:
            if isinstance(item, exp.Column):
                names.append(self._dimension(item))
                continue
            measure = self._measure(item)
            self._query.measures.append(measure)
            names.append(measure.name)
        if len(set(names)) != len(names):
            raise self._source.refuse(select, "two selected columns have one name")
        missing = set(self._query.dimensions) - set(names)
        if missing:
            raise self._source.refuse(select, f"the grouping column {min(missing)} is not selected")
        for one in self._query.aggregates:
            if one.name not in {measure.source for measure in self._query.measures}:
                raise self._source.refuse(one.node, f"the sub-total {one.name} is not used")
        used = {measure.slice for measure in self._query.measures}
        if used != set(self._query.slices):
            raise self._source.refuse(select, "a period of the WITH clause is not used")

    def _measure(self, item: exp.Expr) -> MeasureSql:
        if not isinstance(item, exp.Alias):
            if isinstance(item, exp.Sum):
                raise self._source.refuse(item, "every aggregate needs a name: write AS name")
            raise self._source.refuse(item)
        name, node = name_of(self._source, item.args["alias"]), item.this
        if not isinstance(node, exp.Sum):
            if isinstance(node, exp.Mul) and any(isinstance(part, exp.AggFunc) for part in node.walk()):
                raise self._source.refuse(
                    node, "a product of aggregates is a product of shared values, which this version does not have"
                )
            if isinstance(node, exp.Count):
                raise self._source.refuse(node, "over entities only SUM is known; count in the WITH clause")
            raise self._source.refuse(node)
        slice_, value = self._case(node.this)
        return self._value(name, slice_, value, item)

    def _case(self, node: exp.Expr) -> tuple[SliceName, exp.Expr]:
        """Return (slice, value) of `CASE WHEN t.period = :slice THEN value ELSE 0 END`, or of a bare value."""
        source = self._source
        if not isinstance(node, exp.Case):
            if self._query.slices != ["period"]:
                raise source.refuse(
                    node, "with two periods write SUM(CASE WHEN period = :period THEN value ELSE 0 END)"
                )
            return "period", node
        default, branches = node.args.get("default"), node.args["ifs"]
        zero = isinstance(default, exp.Literal) and not default.is_string and default.this == "0"
        if node.args.get("this") is not None or len(branches) != 1 or not zero:
            raise source.refuse(node, "write CASE WHEN period = :period THEN value ELSE 0 END")
        test = branches[0].this
        if isinstance(test, exp.Paren):
            test = test.this
        sides = self._pair(test) if isinstance(test, exp.EQ) else frozenset()
        for name in self._query.slices:
            if sides == {f"{self._alias}.period", f":{name}"}:
                return name, branches[0].args["true"]
        raise source.refuse(test, f"compare {self._alias}.period with a period of the WITH clause")

    def _value(self, name: str, slice_: SliceName, node: exp.Expr, item: exp.Expr) -> MeasureSql:
        function = str(node.this).lower() if isinstance(node, exp.Anonymous) else None
        if function == "gc":
            if len(node.expressions) != 2:
                raise self._source.refuse(node, "gc takes an amount and a rate")
            one = self._source_of(node.expressions[0])
            if one.fn != "sum":
                raise self._source.refuse(node, "gc translates amounts, not counts")
            return MeasureSql(name, one.name, slice_, self._rate(node.expressions[1], slice_), item)
        if function == "each_level":
            if len(node.expressions) != 1:
                raise self._source.refuse(node, "each_level takes one distinct count")
            one = self._source_of(node.expressions[0])
            if one.fn != "count_distinct":
                raise self._source.refuse(node, "each_level stands around distinct counts only; sums and COUNT(*) foot")
            return MeasureSql(name, one.name, slice_, None, item)
        one = self._source_of(node)
        if one.fn == "count_distinct" and self._query.rollup:
            raise self._source.refuse(
                node,
                f"a plain SUM under ROLLUP would count a unit once per cell: write each_level({self._alias}.{one.name})",
                hint="Distinct counts are taken anew at every level and do not foot",
            )
        return MeasureSql(name, one.name, slice_, None, item)

    def _source_of(self, node: exp.Expr) -> AggregateSql:
        if isinstance(node, exp.Mul):
            raise self._source.refuse(
                node,
                "only gc(amount, rate) multiplies sub-totals: it rounds to the cent; other products belong into the WITH clause",
            )
        if isinstance(node, exp.Binary):
            raise self._source.refuse(node, "arithmetic on columns belongs into the WITH clause")
        table, name = plain_column(self._source, node)
        if table not in {None, self._alias} or name not in self._aggregates:
            raise self._source.refuse(node, f"{name} is not a sub-total of the WITH clause")
        return self._aggregates[name]

    def _rate(self, node: exp.Expr, slice_: SliceName) -> SliceName:
        table, name = plain_column(self._source, node)
        if table not in self._rates or name != "avg_rate":
            raise self._source.refuse(node, "the rate is avg_rate of a joined fx")
        moment = self._rates[table]
        found = slice_ if moment == "own" else moment
        if found not in self._query.slices:
            raise self._source.refuse(node, "the rate's period is not a period of the WITH clause")
        return found
