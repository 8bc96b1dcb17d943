"""Localisation rules: one decision for every flow, at planning and again before a byte is sent.

`decide` evaluates the packs of one jurisdiction of origin. Order: every matching `deny` wins unless a matching
`hold_for_approval` has all its references; then every matching `allow` must hold with its conditions (most restrictive
wins); what no rule speaks about is denied. A flow is decided for every origin of the data it depends on and for the
sender's own seat, so `decide_flow` returns one decision per origin. Pure: the present moment is an argument.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast

from mpc_ops.errors import PolicyViolation
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import PayloadClass, Role
from mpc_ops.federation.rulepack import Rule
from mpc_ops.notices.signed import utc_text
from mpc_ops.plan.model import Plan, RegionSumNode, ScanNode

__all__ = [
    "RECORD_LEVEL",
    "Decision",
    "decide",
    "decide_flow",
    "least_records",
    "origins_of",
    "require_flow",
    "role_of",
]

RECORD_LEVEL = frozenset(
    {
        PayloadClass.RECORD_PLAIN, PayloadClass.RECORD_PSEUDONYMISED, PayloadClass.RECORD_CIPHERTEXT,
        PayloadClass.RECORD_SHARE, PayloadClass.RECORD_DERIVED_OPENING,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """What the packs of one origin say about one flow.

    Attributes:
        effect: `allow`, `allow_with_obligations` or `deny`.
        origin: jurisdiction whose packs were evaluated.
        payload_class: class of the flow.
        rules: ids of the rules that decided; empty if none speaks about the flow.
        packs: `id@version` and SHA-256 of every pack that was evaluated.
        inputs: what the decision rests on (JSON values).
        obligations: what follows from an allowed flow.
        reason: one sentence.
    """

    effect: Literal["allow", "allow_with_obligations", "deny"]
    origin: str
    payload_class: PayloadClass
    rules: tuple[str, ...]
    packs: Mapping[str, str]
    inputs: Mapping[str, Any]
    obligations: tuple[str, ...] = ()
    reason: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the flow may take place."""
        return self.effect != "deny"

    @property
    def rule(self) -> str:
        """Ids of the deciding rules as one text; `unmatched` if no rule speaks about the flow."""
        return ", ".join(self.rules) or "unmatched"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form for statements and the transfer log."""
        return {
            "effect": self.effect,
            "origin": self.origin,
            "payload_class": str(self.payload_class),
            "rules": list(self.rules),
            "packs": dict(self.packs),
            "inputs": dict(self.inputs),
            "obligations": list(self.obligations),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class _Facts:
    """The facts that conditions of a rule are compared with."""

    min_records: int
    owners: int
    references: Collection[str]
    security: str = "active"

    def failures(self, rule: Rule) -> list[str]:
        """Return the conditions of `rule` that do not hold, in words."""
        out = []
        if self.min_records < rule.min_records:
            out.append(
                f"rule {rule.id} asks for at least {rule.min_records} units per cell, the Gate keeps {self.min_records}"
            )
        if self.owners < rule.min_owners:
            out.append(f"rule {rule.id} asks for at least {rule.min_owners} data owners, there are {self.owners}")
        if rule.adversary == "malicious" and self.security != "active":
            out.append(f"rule {rule.id} asks for security against a dishonest operator")
        missing = [name for name in self.needed(rule) if name not in self.references]
        if missing:
            out.append(f"rule {rule.id} needs the reference {', '.join(missing)}")
        return out

    @staticmethod
    def needed(rule: Rule) -> list[str]:
        """References that a rule needs; a hold without any needs one under its own id."""
        return list(rule.needs) or ([f"approval of {rule.id}"] if rule.effect == "hold_for_approval" else [])


@dataclass(slots=True)
class _Verdict:
    effect: Literal["allow", "allow_with_obligations", "deny"]
    rules: list[Rule]
    reason: str
    obligations: list[str] = field(default_factory=list)


def decide(
    federation: Federation,
    *,
    origin: str,
    sender: str,
    receiver: str,
    to_role: Role,
    payload_class: PayloadClass,
    data_class: str,
    min_records: int,
    owners: int,
    references: Collection[str],
    now: datetime,
    security: str = "active",
) -> Decision:
    """Evaluate the rule packs of one origin for one flow.

    Args:
        federation: terms with rule packs.
        origin: jurisdiction of origin of the data.
        sender: jurisdiction the flow leaves.
        receiver: jurisdiction it enters.
        to_role: what the receiver is.
        payload_class: class of what flows.
        data_class: data class of the dataset's contract.
        min_records: k of the Gate that the payload passed (1: none).
        owners: number of data owners (at planning: the least that the terms allow).
        references: names of references that the report states.
        now: the moment of the decision; packs expire.
        security: `active` or `passive`, as the plan's terms say.
    """
    packs = [federation.rule_packs[name] for name in federation.terms.jurisdictions[origin].rule_packs]
    facts = _Facts(min_records, owners, references, security)
    expired = [pack for pack in packs if not pack.reviewed_on <= utc_text(now) < pack.expires_on]
    if not packs:
        verdict = _Verdict("deny", [], f"jurisdiction {origin} has no rule pack")
    elif expired:
        verdict = _Verdict(
            "deny", [], f"rule pack {expired[0].id} is not valid now, it expires on {expired[0].expires_on}"
        )
    else:
        verdict = _evaluate(
            [
                rule
                for pack in packs
                for rule in pack.rules
                if _matches(federation, rule, origin, receiver)
                and payload_class in rule.payload
                and (not rule.to_roles or to_role in rule.to_roles)
                and (not rule.data_classes or data_class in rule.data_classes)
                and data_class not in rule.data_classes_not
            ],
            facts,
        )
    return Decision(
        effect=verdict.effect,
        origin=origin,
        payload_class=payload_class,
        rules=tuple(rule.id for rule in verdict.rules),
        packs={f"{pack.id}@{pack.version}": federation.terms.rule_packs[pack.id] for pack in packs},
        inputs={
            "from": sender,
            "to": receiver,
            "to_role": str(to_role),
            "data_class": data_class,
            "min_records": min_records,
            "owners": owners,
            "references": sorted(references),
            "security": facts.security,
        },
        obligations=tuple(verdict.obligations),
        reason=verdict.reason,
    )


def _matches(federation: Federation, rule: Rule, origin: str, receiver: str) -> bool:
    if rule.to == "any":
        return True
    if rule.to == "inside_origin":
        return receiver == origin
    if rule.to == "outside_origin":
        return receiver != origin
    if rule.to == "list":
        return receiver in rule.to_jurisdictions
    return federation.same_area(origin, receiver) == (rule.to == "same_area")


def _evaluate(matching: list[Rule], facts: _Facts) -> _Verdict:
    by_effect: dict[str, list[Rule]] = {}
    for rule in matching:
        by_effect.setdefault(rule.effect, []).append(rule)
    denials, holds = by_effect.get("deny", []), by_effect.get("hold_for_approval", [])
    unmet = [(rule, facts.failures(rule)) for rule in holds]
    lifting = [rule for rule, failures in unmet if not failures]
    if denials and not lifting:
        words = [f"rule {rule.id} denies it" for rule in denials] + [why for _, failures in unmet for why in failures]
        return _Verdict("deny", [*denials, *holds], "; ".join(words))
    allows = by_effect.get("allow", []) + by_effect.get("allow_with_obligations", [])
    failing = [(rule, why) for rule in (*allows, *holds) if rule not in lifting for why in facts.failures(rule)]
    if failing:
        return _Verdict("deny", _unique(rule for rule, _ in failing), "; ".join(why for _, why in failing))
    granting = [*allows, *lifting]
    if not granting:
        return _Verdict("deny", [], "no rule speaks about it, and what no rule allows is denied")
    obligations = list(dict.fromkeys(item for rule in granting for item in rule.obligations))
    effect: Literal["allow", "allow_with_obligations"] = "allow_with_obligations" if obligations else "allow"
    return _Verdict(effect, granting, "allowed by " + ", ".join(rule.id for rule in granting), obligations)


def _unique(rules: Iterable[Rule]) -> list[Rule]:
    return list({rule.id: rule for rule in rules}.values())


def role_of(federation: Federation, party: str) -> Role:
    """Return what a party is to the rules: compute_node, recipient or owner; raise ConfigError PARTY_UNKNOWN."""
    if party in federation.terms.operators:
        return Role.COMPUTE_NODE
    if party in federation.terms.recipients:
        return Role.RECIPIENT
    federation.owner(party)
    return Role.OWNER


def least_records(plan: Plan, payload_class: PayloadClass) -> int:
    """Return how many units a value of this class rests on at least: the Gate's k, and 1 for what has passed no Gate."""
    return 1 if payload_class in RECORD_LEVEL else plan.gate.k


def origins_of(plan: Plan, federation: Federation, sender: str) -> list[str]:
    """Return the jurisdictions whose rules bind what `sender` sends in a run of `plan`, sorted.

    An owner: its own. A region operator: those of the regions it computes for. Anybody beyond the border: those of all
    regions of the plan. Always the sender's own seat, too.
    """
    seat = federation.jurisdiction_of(sender)
    if sender in federation.owners:
        return [seat]
    names = cast("RegionSumNode", plan.node(RegionSumNode)).regions
    regions = [federation.terms.regions[name] for name in names]
    own = [region for region in regions if sender in federation.cluster(region.cluster).operators]
    beyond = not own or any(
        sender in cluster.operators for cluster in federation.terms.clusters.values() if cluster.kind == "group"
    )
    return sorted({seat, *(code for region in (regions if beyond else own) for code in region.jurisdictions)})


def decide_flow(
    plan: Plan,
    federation: Federation,
    *,
    sender: str,
    receiver: str,
    payload_class: PayloadClass,
    now: datetime,
    owners: int | None = None,
    origins: Collection[str] | None = None,
) -> list[Decision]:
    """Decide a flow between two parties of a run, for every origin that binds it.

    Args:
        plan: gives k, data class, references and regions.
        federation: terms, rule packs and membership.
        sender: party id.
        receiver: party id.
        payload_class: class of what flows; one class per frame.
        now: the moment of the decision.
        owners: number of owners of the run; the least that the terms allow if not given.
        origins: jurisdictions of origin; by default `origins_of` the sender.
    """
    scan = cast("ScanNode", plan.node(ScanNode))
    return [
        decide(
            federation,
            origin=origin,
            sender=federation.jurisdiction_of(sender),
            receiver=federation.jurisdiction_of(receiver),
            to_role=role_of(federation, receiver),
            payload_class=payload_class,
            data_class=federation.terms.datasets[scan.dataset].data_class,
            min_records=least_records(plan, payload_class),
            owners=plan.terms.min_owners if owners is None else owners,
            references=plan.terms.references,
            now=now,
            security=plan.terms.security,
        )
        for origin in (sorted(origins) if origins is not None else origins_of(plan, federation, sender))
    ]


def require_flow(decisions: Iterable[Decision], *, sender: str, receiver: str) -> None:
    """Raise PolicyViolation CROSSING_DENIED for the first decision that denies, naming rule, class and pair."""
    for decision in decisions:
        if not decision.allowed:
            raise PolicyViolation(
                "CROSSING_DENIED",
                f"{decision.payload_class} may not go from {sender} ({decision.inputs['from']}) to {receiver} "
                f"({decision.inputs['to']}): {decision.reason}",
                ids={
                    "rule": decision.rule,
                    "origin": decision.origin,
                    "pack": ", ".join(decision.packs) or "none",
                    "payload_class": decision.payload_class,
                },
            )
