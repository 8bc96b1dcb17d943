"""Localisation rule packs: the closed vocabulary of evidence.md section D in machine form.

A pack belongs to one jurisdiction of origin. Rules are data; `mpc_ops.plan.rules` evaluates them: `require` failures and
`deny` first, `hold_for_approval` lifts a deny only with a recorded reference, unmatched means deny.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mpc_ops.envelope.schema import Model
from mpc_ops.errors import ConfigError
from mpc_ops.federation.contract import Short, Text
from mpc_ops.federation.model import CountryCode, Name, PayloadClass, Role, UtcText

__all__ = ["Rule", "RulePack", "check_pack"]

DATA_CLASSES = (
    "personal", "sensitive_personal", "payment", "bank_customer_secret", "important_or_core", "employee",
    "legal_person_confidential", "non_regulated",
)  # fmt: skip


class Rule(Model, frozen=True, kw_only=True):
    """One rule.

    Attributes:
        payload: payload classes it speaks about.
        to: `inside_origin`, `same_area` (the legal area of the origin, itself included), `outside_origin` (any other
            jurisdiction), `outside_area`, `any`, or `list` with `to_jurisdictions`.
        to_roles: empty means every role.
        min_records: smallest `k` of the Gate in units; `min_owners`: smallest number of owners in the run.
        adversary: security the session must have.
        needs: references (assessments, contracts) that must stand in the report's `references`, by name.
    """

    id: Short
    effect: Literal["deny", "allow", "allow_with_obligations", "hold_for_approval"]
    payload: Annotated[list[PayloadClass], Meta(min_length=1)]
    to: Literal["inside_origin", "same_area", "outside_origin", "outside_area", "any", "list"]
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


_PLACES = {
    "inside_origin": {"inside_origin", "same_area", "any"},
    "same_area": {"same_area", "outside_origin", "any"},
    "outside_area": {"outside_origin", "outside_area", "any"},
}


def check_pack(pack: RulePack) -> None:
    """Check that a pack speaks about every payload class, destination, role and data class.

    Conditions (`min_records`, `needs` ...) are not looked at: the pack must have said something, not allowed it.

    Raises:
        ConfigError: RULE_PACK_INCOMPLETE naming the first gap; RULE_PACK_INVALID for repeated or contradictory rules.
    """
    ids = [rule.id for rule in pack.rules]
    if len(set(ids)) != len(ids):
        raise ConfigError("RULE_PACK_INVALID", "two rules have one id", ids={"pack": pack.id})
    for rule in pack.rules:
        if (rule.to == "list") != bool(rule.to_jurisdictions):
            raise ConfigError(
                "RULE_PACK_INVALID",
                "to_jurisdictions stands with `to = list` and only there",
                ids={"pack": pack.id, "rule": rule.id},
            )
        unknown = {*rule.data_classes, *rule.data_classes_not} - set(DATA_CLASSES)
        if unknown:
            raise ConfigError(
                "RULE_PACK_INVALID", "unknown data class", ids={"pack": pack.id, "rule": rule.id}, got=min(unknown)
            )
    said = {case for rule in pack.rules for case in _cases(rule)}
    for payload, place, role, data in product(PayloadClass, _PLACES, Role, DATA_CLASSES):
        if (payload, place, role, data) not in said:
            raise ConfigError(
                "RULE_PACK_INCOMPLETE",
                f"no rule speaks about {payload} ({data}) to a {role} {place.replace('_', ' ')}",
                ids={"pack": pack.id},
                hint="A pack states every payload class; deny what it does not want",
            )


def _cases(rule: Rule) -> Iterator[tuple[PayloadClass, str, Role, str]]:
    places = [place for place, words in _PLACES.items() if rule.to in words]
    data = [name for name in rule.data_classes or DATA_CLASSES if name not in rule.data_classes_not]
    return product(rule.payload, places, rule.to_roles or list(Role), data)
