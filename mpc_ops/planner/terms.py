"""`report.toml`: the terms of a report as its author writes them."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mpc_ops.envelope.schema import Model, from_plain
from mpc_ops.errors import ConfigError, PlanError
from mpc_ops.federation.contract import Short, Text
from mpc_ops.federation.model import Name

__all__ = ["ReportTerms", "check_terms", "read_terms"]

_REGION_ONLY = "belongs to gate_at = region: with the Gate at the data owner, sums are secure with abort as they are"


class ReportTerms(Model, frozen=True, kw_only=True):
    """Terms of a report; unknown members are refused.

    Attributes:
        regions: regions whose owners take part.
        unit_k: k of the Gate: fewest protected units of a cell.
        gate_at: where small cells are found and moved: at each `owner` in the clear, or in the `region` on shares, so that
            small owners pass together; the region's operators then hold shares of records.
        gate_min_owners: in the region: fewest owners with a unit in a cell that is not moved.
        max_units: in the region: most protected units of one owner in one period; the data contract's max_rows if not given.
        security: `active`, or explicitly `passive` with the Gate in the region: a dishonest operator is then not noticed.
        min_owners, max_owners: fewest and most owners in one run.
        on_late: what the close does with a missing owner.
        sign_off: how many people sign an owner's figures.
        ttl_days: how long after due_at shares are kept at most.
        give_up_hours: how long after the close a run is retried.
        currency, max_rate: group currency and the largest rate that may occur; needed by gc().
        validity_days: how long a release is valid.
        labels: label of each output column.
        references: assessments and agreements that rules ask for, by name.
        basis: purpose, in the owners' words.
        reading_text: what a reader of the result has to know.
    """

    name: Name
    title: Short
    version: Annotated[int, Meta(ge=1)]
    recipient: Name
    regions: Annotated[list[Name], Meta(min_length=1, max_length=100)]
    group_cluster: Name
    unit_k: Annotated[int, Meta(ge=1, le=10**6)]
    gate_at: Literal["owner", "region"] = "owner"
    gate_min_owners: Annotated[int, Meta(ge=1, le=20000)] = 1
    max_units: Annotated[int, Meta(ge=1, le=10**9)] | None = None
    security: Literal["active", "passive"] = "active"
    min_owners: Annotated[int, Meta(ge=1, le=20000)]
    max_owners: Annotated[int, Meta(ge=1, le=20000)]
    on_late: Literal["hold", "release_without", "estimate"] = "hold"
    sign_off: Annotated[int, Meta(ge=0, le=2)] = 2
    ttl_days: Annotated[int, Meta(ge=1, le=400)] = 30
    give_up_hours: Annotated[int, Meta(ge=1, le=24 * 60)] = 24
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")] | None = None
    max_rate: Annotated[str, Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?\Z")] | None = None
    validity_days: Annotated[int, Meta(ge=1, le=3660)] = 365
    labels: Annotated[dict[Short, Short], Meta(max_length=300)] = msgspec.field(default_factory=dict)
    references: Annotated[dict[Short, Text], Meta(max_length=100)] = msgspec.field(default_factory=dict)
    basis: Text
    reading_text: Annotated[str, Meta(max_length=20000)] = ""


def read_terms(text: str) -> ReportTerms:
    """Parse the text of report.toml; raise ConfigError TOML_INVALID or SCHEMA_INVALID, PlanError UNSUPPORTED_TERM."""
    try:
        plain: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("TOML_INVALID", "report terms are not TOML", got=str(error)[:200]) from None
    terms = from_plain(plain, ReportTerms, what="report terms")
    check_terms(terms)
    return terms


def check_terms(terms: ReportTerms) -> None:
    """Refuse terms that this version cannot keep, rather than ignore them; raise PlanError UNSUPPORTED_TERM."""
    owner = terms.gate_at == "owner"
    for unsupported, name, why in (
        (terms.on_late == "estimate", "on_late = estimate", "needs signed estimates, which this version does not have"),
        (owner and terms.security == "passive", "security = passive", _REGION_ONLY),
        (owner and terms.gate_min_owners > 1, "gate_min_owners", _REGION_ONLY),
        (owner and terms.max_units is not None, "max_units", _REGION_ONLY),
    ):
        if unsupported:
            raise PlanError("UNSUPPORTED_TERM", f"the term {name} {why}", ids={"report": terms.name})
