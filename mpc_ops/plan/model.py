"""`plan.json`: what runs. Canonical bytes; the plan digest is their SHA-256 and is never re-derived at run time.

A plan of this version is a path of typed nodes from the owners to the recipient:

```
scan → filter → aggregate → gate → measure → share   at each owner
region_sum                                           in each region cluster, on shares
cross                                                the border: re-sharing into the group cluster
group_sum                                            in the group cluster, on shares
deliver                                              sealed result parts to the recipient
```

Sums and counts over public dimensions decompose into the owners' subtotals, so this path holds no product and no
comparison on shares. With the Gate in the region, small owners pass together, and the path is

```
scan → filter → aggregate → measure → share          at each owner: figures of leaf cells, and presence of every unit
region_sum → region_gate → cross                     in each region cluster, on shares
group_sum → deliver
```

The format has room for more nodes; this version refuses every other one by name.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

import msgspec
from msgspec import Meta

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.schema import Model, decode, encode
from mpc_ops.federation.model import DigestText, Name, PayloadClass
from mpc_ops.ids import PlanDigest
from mpc_ops.plan.expr import Expr

__all__ = [
    "Aggregate", "AggregateNode", "CrossNode", "DeliverNode", "FilterNode", "GateNode", "GroupSumNode", "Measure",
    "MeasureNode", "Node", "Plan", "RegionGateNode", "RegionSumNode", "ScanNode", "ShareNode", "Slice", "Terms", "load_plan",
]  # fmt: skip

Ident = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}\Z")]
Text = Annotated[str, Meta(max_length=4000)]
Short = Annotated[str, Meta(min_length=1, max_length=200)]
DecimalText = Annotated[str, Meta(pattern=r"^-?[0-9]{1,30}(\.[0-9]{1,12})?\Z")]


class ScanNode(Model, frozen=True, kw_only=True, tag="scan", tag_field="op"):
    """Read columns of an owner's snapshot of a dataset. `contract` is the SHA-256 of the contract's canonical bytes."""

    id: Ident
    dataset: Name
    contract: DigestText
    columns: Annotated[list[Ident], Meta(min_length=1, max_length=300)]


class FilterNode(Model, frozen=True, kw_only=True, tag="filter", tag_field="op"):
    """Keep rows for which the condition is true (not NULL)."""

    id: Ident
    input: Ident
    condition: Expr


class Slice(Model, frozen=True, kw_only=True):
    """A period of the calendar, relative to the report's: rows belong to it by the contract's period column.

    Attributes:
        name: `period` or `prior_year`.
        months: offset of the slice in months (0 or -12).
    """

    name: Literal["period", "prior_year"]
    months: Literal[0, -12]


class Aggregate(Model, frozen=True, kw_only=True):
    """One aggregate per (slice, dimensions): `sum` of an expression with a scale, `count` of rows, `count_distinct` of units.

    Attributes:
        bound: proven largest absolute value at one owner, in units of 10^-scale, as a decimal string of an integer.
    """

    name: Ident
    fn: Literal["sum", "count", "count_distinct"]
    expr: Expr | None = None
    scale: Annotated[int, Meta(ge=0, le=12)] = 0
    bound: DecimalText


class AggregateNode(Model, frozen=True, kw_only=True, tag="aggregate", tag_field="op"):
    """Group the owner's rows by slice, public dimensions and protected unit, so that the Gate can count units."""

    id: Ident
    input: Ident
    slices: Annotated[list[Slice], Meta(min_length=1, max_length=2)]
    dimensions: Annotated[list[Ident], Meta(max_length=3)]
    unit: Ident
    aggregates: Annotated[list[Aggregate], Meta(min_length=1, max_length=100)]


class GateNode(Model, frozen=True, kw_only=True, tag="gate", tag_field="op"):
    """The only node that lowers a payload class: cells of fewer than `k` units move to *not allocated*.

    This one stands at each owner and works in the clear. `payload_class` is what leaves it: `aggregate_share` for k >= 2,
    else `record_share`.
    """

    id: Ident
    input: Ident
    unit: Ident
    k: Annotated[int, Meta(ge=1, le=10**6)]
    payload_class: PayloadClass

    @property
    def where(self) -> Literal["owner", "region"]:
        """Where small cells are found and moved."""
        return "owner"

    @property
    def shared_class(self) -> PayloadClass:
        """Class of what owners send to their region's operators."""
        return self.payload_class


class RegionGateNode(GateNode, frozen=True, kw_only=True, tag="region_gate", tag_field="op"):
    """The same Gate over the union of a region's owners, decided on shares: small owners pass together.

    What owners send before it has passed no Gate, so it is `record_share`: one row of bits per protected unit, one bit per
    leaf cell, and the owner's figures per leaf cell. A customer of two owners counts as two: rows carry no identity.

    Attributes:
        min_owners: fewest owners with a unit in a cell that is not moved; 1 asks for nothing beyond `k`.
        max_units: most protected units of one owner in one slice; bounds parts and the region's work.
    """

    min_owners: Annotated[int, Meta(ge=1, le=20000)] = 1
    max_units: Annotated[int, Meta(ge=1, le=10**9)]

    @property
    def where(self) -> Literal["owner", "region"]:
        """Where small cells are found and moved."""
        return "region"

    @property
    def shared_class(self) -> PayloadClass:
        """Class of what owners send to their region's operators."""
        return PayloadClass.RECORD_SHARE


class Measure(Model, frozen=True, kw_only=True):
    """One output column, defined per cell and owner, then added over owners.

    Attributes:
        source: name of an aggregate.
        slice: which slice it is read from.
        translate: None, or the slice whose rate translates it: `gc(amount, rate)`, half-even to `scale` digits.
        scale: digits after the point of the shared integer.
        totals: `foots` (totals are sums of cells), `each_level` (counted anew at every level, does not foot), `none`
            (the report has no ROLLUP).
        bound: proven largest absolute value of one owner's cell in shared units; the planner proves that the sum over
            `Terms.max_owners` stays below 2^63.
    """

    name: Ident
    label: Text
    kind: Literal["amount", "count"]
    source: Ident
    slice: Literal["period", "prior_year"]
    translate: Literal["period", "prior_year"] | None = None
    scale: Annotated[int, Meta(ge=0, le=12)]
    totals: Literal["foots", "each_level", "none"]
    bound: DecimalText


class MeasureNode(Model, frozen=True, kw_only=True, tag="measure", tag_field="op"):
    """Compute the measures of every cell from the aggregates: gated ones, or those of leaf cells before a region's Gate."""

    id: Ident
    input: Ident
    measures: Annotated[list[Measure], Meta(min_length=1, max_length=200)]


class ShareNode(Model, frozen=True, kw_only=True, tag="share", tag_field="op"):
    """Secret-share the owner's `lanes` values (Z_2^64, replicated among three) to its region cluster.

    Before a region's Gate these are the values of leaf cells, and the units' rows of bits go with them (`plan.layout`).
    """

    id: Ident
    input: Ident
    lanes: Annotated[int, Meta(ge=1, le=1 << 24)]


class RegionSumNode(Model, frozen=True, kw_only=True, tag="region_sum", tag_field="op"):
    """Add the shares of the owners of each region."""

    id: Ident
    input: Ident
    regions: Annotated[list[Name], Meta(min_length=1, max_length=100)]


class CrossNode(Model, frozen=True, kw_only=True, tag="cross", tag_field="op"):
    """Re-share every region's sums into the group cluster: the only place where a border is crossed before delivery."""

    id: Ident
    input: Ident
    cluster: Name
    payload_class: PayloadClass


class GroupSumNode(Model, frozen=True, kw_only=True, tag="group_sum", tag_field="op"):
    """Add the regions' shares in the group cluster."""

    id: Ident
    input: Ident
    cluster: Name


class DeliverNode(Model, frozen=True, kw_only=True, tag="deliver", tag_field="op"):
    """Seal result parts to the recipient, who alone reconstructs."""

    id: Ident
    input: Ident
    recipient: Name
    payload_class: PayloadClass


Node = Union[  # noqa: UP007 - read by msgspec as a tagged union
    ScanNode, FilterNode, AggregateNode, GateNode, MeasureNode, ShareNode, RegionSumNode, RegionGateNode, CrossNode,
    GroupSumNode, DeliverNode,
]  # fmt: skip


class Terms(Model, frozen=True, kw_only=True):
    """Conditions under which the plan may run.

    Attributes:
        security: `active` (a dishonest operator is noticed, nothing comes out) or `passive` (all operators follow the
            protocol), which only a plan with a Gate in the region may choose: plans of sums are active as they are.
        max_owners: most owners in one run, part of the overflow proof.
        min_owners: fewest owners in a run, and the least difference between two editions (difference rule).
        sign_off: how many people sign an owner's figures (0 to 2).
        on_late: what the close does with a missing owner.
        ttl_days: how long after due_at shares are kept at most.
        give_up_hours: how long after the close a run is retried.
        max_rate: largest exchange rate that the bounds allow for, as decimal text; None without translation.
        references: names and references of assessments and agreements that rules ask for.
        basis: purpose of the report in the owners' words.
    """

    security: Literal["active", "passive"] = "active"
    max_owners: Annotated[int, Meta(ge=1, le=20000)]
    min_owners: Annotated[int, Meta(ge=1, le=20000)]
    sign_off: Annotated[int, Meta(ge=0, le=2)]
    on_late: Literal["hold", "release_without"]
    ttl_days: Annotated[int, Meta(ge=1, le=400)]
    give_up_hours: Annotated[int, Meta(ge=1, le=24 * 60)]
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")] | None = None
    max_rate: DecimalText | None = None
    references: dict[Short, Text] = msgspec.field(default_factory=dict)
    basis: Text


class Plan(Model, frozen=True, kw_only=True):
    """The compiled report. Names datasets, regions, clusters and recipients, never owners or endpoints."""

    format: Literal["comity/plan/v1"] = "comity/plan/v1"
    report: Name
    title: Text
    version: Annotated[int, Meta(ge=1)]
    federation: DigestText
    rule_packs: dict[Name, DigestText]
    terms: Terms
    rollup: bool
    domains: dict[Ident, Annotated[list[Short], Meta(min_length=1, max_length=500)]]
    nodes: Annotated[list[Node], Meta(min_length=1, max_length=100)]

    @property
    def digest(self) -> PlanDigest:
        """SHA-256 of the canonical bytes."""
        return PlanDigest(sha256_hex(encode(self)))

    @property
    def gate(self) -> GateNode:
        """The plan's one Gate, wherever it stands."""
        (found,) = (node for node in self.nodes if isinstance(node, GateNode))
        return found

    def node(self, kind: type[msgspec.Struct]) -> msgspec.Struct:
        """Return the single node of a kind; `mpc_ops.plan.checks` guarantees that there is exactly one of each."""
        (found,) = (node for node in self.nodes if isinstance(node, kind))
        return found


def load_plan(data: bytes) -> Plan:
    """Decode plan.json (at most 1 MiB, canonical); raises ConfigError JSON_INVALID, SCHEMA_INVALID."""
    return decode(data, Plan, what="plan.json")
