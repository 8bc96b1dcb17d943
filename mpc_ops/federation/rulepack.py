"""Localisation rule packs: the closed vocabulary of evidence.md section D in machine form.

A pack belongs to one jurisdiction of origin. Rules are data; `mpc_ops.plan.rules` evaluates them: `require` failures and
`deny` first, `hold_for_approval` lifts a deny only with a recorded reference, unmatched means deny.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mpc_ops.envelope.schema import Model
from mpc_ops.federation.contract import Short, Text
from mpc_ops.federation.model import CountryCode, Name, PayloadClass, Role, UtcText

__all__ = ["Rule", "RulePack"]


class Rule(Model, frozen=True, kw_only=True):
    """One rule.

    Attributes:
        payload: payload classes it speaks about.
        to: `inside_origin`, `same_area`, `outside_origin` (any other jurisdiction), `any`, or `list` with `to_jurisdictions`.
        to_roles: empty means every role.
        min_records: smallest `k` of the Gate in units; `min_owners`: smallest number of owners in the run.
        adversary: security the session must have.
        needs: references (assessments, contracts) that must stand in the report's `references`, by name.
    """

    id: Short
    effect: Literal["deny", "allow", "allow_with_obligations", "hold_for_approval"]
    payload: Annotated[list[PayloadClass], Meta(min_length=1)]
    to: Literal["inside_origin", "same_area", "outside_origin", "any", "list"]
    to_jurisdictions: list[CountryCode] = msgspec.field(default_factory=list)
    to_roles: list[Role] = msgspec.field(default_factory=list)
    data_classes: list[Short] = msgspec.field(default_factory=list)
    data_classes_not: list[Short] = msgspec.field(default_factory=list)
    min_records: Annotated[int, Meta(ge=0, le=10**6)] = 0
    min_owners: Annotated[int, Meta(ge=0, le=10**6)] = 0
    adversary: Literal["malicious", "any"] = "any"
    needs: list[Short] = msgspec.field(default_factory=list)
    obligations: list[Short] = msgspec.field(default_factory=list)
    note: Text = ""


class RulePack(Model, frozen=True, kw_only=True):
    """Rules of one jurisdiction of origin, as reviewed by named people at a date."""

    format: Literal["comity/rule-pack/v1"] = "comity/rule-pack/v1"
    id: Name
    version: Annotated[int, Meta(ge=1)]
    origin: CountryCode
    legal_refs: list[Text]
    basis: Literal["statute", "regulator_guidance", "contract", "company_policy"]
    reviewed_by: Short
    reviewed_on: UtcText
    expires_on: UtcText
    uncertainty: Literal["low", "medium", "high"]
    rules: Annotated[list[Rule], Meta(min_length=1, max_length=500)]
