"""Deciding the localisation rules again, for every flow that was measured and every origin of the data in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from mpc_ops.evidence.material import RunEvidence
from mpc_ops.evidence.reconcile import Reconciliation
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import PayloadClass
from mpc_ops.plan.rules import Decision, decide_flow

__all__ = ["RuleLine", "decide_flows"]


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One decision: what the packs of `data_origin` say about a class on its way from `origin` to `target`.

    Attributes:
        origin, target: seats of sender and receiver.
        packs: `id v version` of the packs that were evaluated; `rule`: ids of the rules that decided.
        text: the deciding rules' own notes; `refs`: the packs' legal references.
    """

    origin: str
    target: str
    payload_class: str
    data_origin: str
    packs: str
    rule: str
    effect: str
    allowed: bool
    reason: str
    text: str
    refs: tuple[str, ...]
    obligations: tuple[str, ...]


def decide_flows(evidence: RunEvidence, reconciliation: Reconciliation) -> list[RuleLine]:
    """Decide every measured flow at the moment of the submission close, domestic ones included.

    Returns:
        One line per (from, to, class, data origin), denied ones first within a flow, sorted.
    """
    federation = evidence.federation
    now = datetime.strptime(evidence.close.created_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    lines: dict[tuple[str, str, str, str], RuleLine] = {}
    for sender, receiver, kind in reconciliation.by_party:
        decisions = decide_flow(
            evidence.plan,
            federation,
            sender=sender,
            receiver=receiver,
            payload_class=PayloadClass(kind),
            now=now,
            owners=len(evidence.filings),
        )
        for decision in decisions:
            line = _line(federation, sender, receiver, decision)
            key = (line.origin, line.target, line.payload_class, line.data_origin)
            if key not in lines or (lines[key].allowed and not line.allowed):
                lines[key] = line
    return [lines[key] for key in sorted(lines)]


def _line(federation: Federation, sender: str, receiver: str, decision: Decision) -> RuleLine:
    names = federation.terms.jurisdictions[decision.origin].rule_packs
    packs = [federation.rule_packs[name] for name in names]
    deciding = [rule for pack in packs for rule in pack.rules if rule.id in decision.rules]
    return RuleLine(
        origin=federation.jurisdiction_of(sender),
        target=federation.jurisdiction_of(receiver),
        payload_class=str(decision.payload_class),
        data_origin=decision.origin,
        packs=", ".join(f"{pack.id} v{pack.version}" for pack in packs) or "no rule pack",
        rule=decision.rule,
        effect=decision.effect,
        allowed=decision.allowed,
        reason=decision.reason,
        text=" ".join(rule.note for rule in deciding if rule.note) or ("" if decision.allowed else decision.reason),
        refs=tuple(ref for pack in packs for ref in pack.legal_refs),
        obligations=decision.obligations,
    )
