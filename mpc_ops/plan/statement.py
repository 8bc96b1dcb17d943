"""The planned-transfer statement: what a report lets each party learn and what would cross which border.

It rests on plan, federation terms and rule packs alone, so its digest, which approvals name, stays the same when a new
entity joins. What depends on the members of the day (`member_notes`) is printed beside it and not part of the digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from mpc_ops.envelope.canonical import canonical_bytes, sha256_hex
from mpc_ops.errors import PolicyViolation
from mpc_ops.federation.loaded import Federation
from mpc_ops.ids import Digest
from mpc_ops.plan.crossings import Crossing, check_crossings
from mpc_ops.plan.layout import lane_count, measures, unit_limits
from mpc_ops.plan.model import CrossNode, DeliverNode, MeasureNode, Plan, RegionGateNode, RegionSumNode, ScanNode

__all__ = ["NOT_CLAIMED", "PlannedStatement", "member_notes", "planned_statement"]

NOT_CLAIMED = (
    "This is no legal advice, and says nothing about compliance, adequacy or a regulator's view.",
    "Secret shares remain personal data; sending them abroad is counted as a border crossing like any other.",
    "A subtotal over at least k units is not claimed to be anonymous; k is a policy choice, not a statutory number.",
    "That operators are independent and do not work together is declared by people, not proven by software.",
    "Where a machine stands is taken from the federation's terms, not measured.",
    "That the data owners' inputs are true is not checked by the computation.",
    "Channels outside the software (printouts, backups, administrators' screens) are not observed.",
    "Rule packs are as current as their review date says.",
)


@dataclass(frozen=True)
class PlannedStatement:
    """A planned-transfer statement.

    Attributes:
        content: its JSON form.
    """

    content: Mapping[str, Any]

    @property
    def data(self) -> bytes:
        """Canonical bytes."""
        return canonical_bytes(self.content)

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical bytes; approvals and releases name it."""
        return sha256_hex(self.data)


def planned_statement(plan: Plan, federation: Federation, *, now: datetime) -> PlannedStatement:
    """Return the statement of a plan that `check_plan` accepted.

    Args:
        plan: the calculation plan.
        federation: terms and rule packs.
        now: moment at which the rules are asked; only an expired pack changes the answer.

    Raises:
        PolicyViolation: CROSSING_DENIED if a planned flow is not allowed.
    """
    scan = cast("ScanNode", plan.node(ScanNode))
    contract = federation.terms.datasets[scan.dataset]
    flows = check_crossings(plan, federation, now=now)
    deliver = cast("DeliverNode", plan.node(DeliverNode))
    recipient = federation.terms.recipients[deliver.recipient]
    return PlannedStatement(
        {
            "format": "comity/planned-transfer/v1",
            "plan": plan.digest,
            "report": plan.report,
            "version": plan.version,
            "title": plan.title,
            "basis": plan.terms.basis,
            "federation": federation.digest,
            "dataset": {"name": contract.name, "data_class": contract.data_class, "columns": scan.columns},
            "gate": _gate(plan, contract.unit_label),
            "values": lane_count(plan),
            "columns": [
                {"name": one.name, "label": one.label, "totals": one.totals, "translated": one.translate is not None}
                for one in measures(plan)
            ],
            "recipient": {
                "name": deliver.recipient,
                "organisation": recipient.organisation,
                "jurisdiction": recipient.jurisdiction,
            },
            "regions": _regions(plan, federation),
            "group": _operators(federation, cast("CrossNode", plan.node(CrossNode)).cluster),
            "terms": {
                "min_owners": plan.terms.min_owners,
                "max_owners": plan.terms.max_owners,
                "on_late": plan.terms.on_late,
                "sign_off": plan.terms.sign_off,
                "ttl_days": plan.terms.ttl_days,
                "references": dict(plan.terms.references),
            },
            "learns": _learns(plan, federation, contract.unit_label),
            "together": _together(plan),
            "crossings": _grouped([flow for flow in flows if flow.border]),
            "inside": _grouped([flow for flow in flows if not flow.border]),
            "packs": _packs(federation),
            "not_claimed": list(NOT_CLAIMED),
        }
    )


def _gate(plan: Plan, units: str) -> dict[str, Any]:
    """What the Gate keeps; where it stands only if in the region, so that older statements keep their digests."""
    gate, limits = plan.gate, unit_limits(plan)
    out: dict[str, Any] = {"unit": units, "k": gate.k}
    if isinstance(gate, RegionGateNode) and limits is not None:
        out |= {
            "where": gate.where,
            "security": plan.terms.security,
            "min_owners": gate.min_owners,
            "row_bits": limits.width,
            "max_rows": limits.max_rows,
            "tables": limits.tables,
        }
    return out


def _operators(federation: Federation, cluster: str) -> list[dict[str, str]]:
    found = []
    for name in federation.cluster(cluster).operators:
        operator = federation.terms.operators[name]
        found.append({"name": name, "organisation": operator.organisation, "jurisdiction": operator.jurisdiction})
    return found


def _regions(plan: Plan, federation: Federation) -> list[dict[str, Any]]:
    out = []
    for name in cast("RegionSumNode", plan.node(RegionSumNode)).regions:
        region = federation.terms.regions[name]
        operators = _operators(federation, region.cluster)
        out.append({"name": name, "jurisdictions": list(region.jurisdictions), "operators": operators})
    return out


def _packs(federation: Federation) -> list[dict[str, Any]]:
    return [
        {
            "id": pack.id,
            "version": pack.version,
            "origin": pack.origin,
            "sha256": federation.terms.rule_packs[name],
            "basis": pack.basis,
            "reviewed_by": pack.reviewed_by,
            "reviewed_on": pack.reviewed_on,
            "expires_on": pack.expires_on,
            "uncertainty": pack.uncertainty,
        }
        for name, pack in sorted(federation.rule_packs.items())
    ]


def _learns(plan: Plan, federation: Federation, units: str) -> list[dict[str, Any]]:
    deliver = cast("DeliverNode", plan.node(DeliverNode))
    gate, region = plan.gate, plan.gate.where == "region"
    group = cast("CrossNode", plan.node(CrossNode)).cluster
    seats = ", ".join(one["name"] for one in _operators(federation, group))
    return [
        {
            "party": "each data owner (entity)",
            "learns": ["its own figures", "who has submitted and what became of the run"],
            "not": [
                "any figure of another data owner",
                "the result, unless the result recipient passes it on",
                *(["which of its cells were moved to not allocated"] if region else []),
            ],
        },
        {"party": "each computing operator of a country cluster", **_region_operators(plan, units)},
        {
            "party": f"each computing operator of the cluster {group} ({seats})",
            "learns": ["which country clusters took part, when, and the sizes of messages"],
            "not": ["any figure", f"which cells {'a country' if region else 'an entity'} moved to not allocated"],
        },
        {
            "party": f"the result recipient {deliver.recipient}",
            "learns": [
                f"the released table: sums over all data owners of {len(measures(plan))} columns",
                "who submitted, who was late or excluded",
            ],
            "not": [
                (
                    f"a cell that rests on fewer than {gate.k} {units} of "
                    f"{'a country, over all its data owners together' if region else 'a data owner'}: such cells were moved to "
                    "not allocated"
                ),
                "the figures of a single data owner, except as said under 'together'",
            ],
        },
        {"party": "the author of the report", "learns": ["nothing beyond this statement"], "not": ["any figure"]},
    ]


def _region_operators(plan: Plan, units: str) -> dict[str, list[str]]:
    learns = ["which data owners submitted, when, and the sizes of messages"]
    if plan.gate.where == "owner":
        return {
            "learns": learns,
            "not": [
                "any figure: it holds two of three components of every secret share, which say nothing about a value"
            ],
        }
    return {
        "learns": [
            *learns,
            (
                f"the number of {units} of each data owner in each period, rounded up to a size class (64, 128, 192, ... rows); it "
                "follows from sizes, so whoever sees submissions, transfer logs or evidence of the run can tell it, too"
            ),
        ],
        "not": [
            (
                f"what it holds, although that is about records: secret shares of one row of bits for each of the {units} (in which "
                "cells there is a row of it) and of the data owner's figures of every cell, small ones included; two of three "
                "components say nothing about a value"
            ),
            f"who a row is about: rows carry no key, stand in random order, and one of the {units} of two data owners counts as two",
            "which cells are small, how small, and which were moved: that is decided on secret shares, and nothing about it is opened",
        ],
    }


def _together(plan: Plan) -> list[str]:
    cluster = cast("CrossNode", plan.node(CrossNode)).cluster
    m, region = plan.terms.min_owners, plan.gate.where == "region"
    out = [
        "Two operators of one country cluster together learn "
        + (
            "every row of bits and every data owner's figures per cell, small cells included: what passed no Gate."
            if region
            else "the subtotals of every data owner of that country."
        ),
        f"Two operators of the cluster {cluster} together learn the subtotals of every country and the result.",
        "All data owners but one, together with the result recipient, learn the figures of the last one; "
        + (
            f"a run has at least {m} data owners."
            if m > 1
            else "a run may have a single data owner, whose figures are then the result."
        ),
        f"Two editions of one period differ in no or at least {m} data owners, unless those in the difference have accepted it."
        if m > 1
        else "Two editions of one period may differ in a single data owner, whose figures are then their difference.",
    ]
    if region:
        out.append(
            f"Small data owners pass together: a cell of a country with {plan.gate.k} or more units may hold fewer of a single "
            "data owner. Who can work out one data owner's figures in a way named here works out such cells, too."
        )
    if plan.terms.security == "passive":
        out.insert(
            0,
            "PASSIVE SECURITY: the computation in country clusters is secret only as long as every operator follows the "
            "protocol. A single dishonest operator is not noticed: it could alter figures and learn about records.",
        )
    for source, slices in _rate_vectors(plan).items():
        if slices > 1:
            out.append(
                f"{source} is published at {slices} sets of exchange rates (constant currency): these are {slices} linear "
                "equations in the amounts per currency, so with as many currencies as sets each currency's amount can be solved for."
            )
    return out


def _rate_vectors(plan: Plan) -> dict[str, int]:
    """Return, per amount and slice, how many different rate sets it is published under."""
    found: dict[str, set[str]] = {}
    for one in cast("MeasureNode", plan.node(MeasureNode)).measures:
        if one.kind == "amount":
            found.setdefault(f"{one.source} of {one.slice}", set()).add(one.translate or "none")
    return {name: len(slices) for name, slices in found.items()}


def _grouped(flows: list[Crossing]) -> list[dict[str, Any]]:
    """Merge flows between two jurisdictions with equal class, role, words and decisions, keeping their order."""
    groups: dict[bytes, dict[str, Any]] = {}
    for flow in flows:
        head: dict[str, Any] = {
            "from": flow.from_jurisdiction,
            "to": flow.to_jurisdiction,
            "same_area": flow.same_area,
            "payload_class": str(flow.payload_class),
            "to_role": str(flow.to_role),
            "what": flow.what,
            "per": "data owner" if flow.sender.startswith("owners of ") else "run",
            "decisions": [
                {
                    "origin": decision.origin,
                    "effect": decision.effect,
                    "rules": list(decision.rules),
                    "obligations": list(decision.obligations),
                }
                for decision in flow.decisions
            ],
        }
        entry = groups.setdefault(
            canonical_bytes(head), {**head, "senders": [], "receivers": [], "values": 0, "bytes_at_most": None}
        )
        for side, name in (("senders", flow.sender), ("receivers", flow.receiver)):
            if name not in entry[side]:
                entry[side].append(name)
        entry["values"] = max(entry["values"], flow.lanes)
        if flow.bytes_at_most is not None:
            entry["bytes_at_most"] = (entry["bytes_at_most"] or 0) + flow.bytes_at_most
    return list(groups.values())


def member_notes(plan: Plan, federation: Federation) -> list[str]:
    """Return what the present members add: owners alone in a region, coalitions in numbers, currencies.

    Raises:
        PolicyViolation: CURRENCIES_SOLVABLE if, without a common parent, the published rate sets give the amount of each
            currency.
    """
    regions = cast("RegionSumNode", plan.node(RegionSumNode)).regions
    owners = {name: owner for name, owner in federation.owners.items() if owner.region in regions}
    out = []
    for region in regions:
        inside = [name for name, owner in owners.items() if owner.region == region]
        if len(inside) == 1:
            out.append(
                f"{region}: one data owner ({inside[0]}). The country cluster adds no separation between data owners; "
                "its subtotals are that entity's"
                + ("." if plan.gate.where == "owner" else ", and its Gate counts its units alone.")
            )
    if len(owners) > 1:
        out.append(
            f"{len(owners) - 1} of {len(owners)} data owners together with the result recipient learn the figures of the last."
        )
    currencies = sorted({owner.currency for owner in owners.values()})
    vectors = max(_rate_vectors(plan).values(), default=0)
    if vectors > 1 and len(currencies) > 1:
        solvable = vectors >= len(currencies)
        note = f"{len(currencies)} currencies ({', '.join(currencies)}) and {vectors} sets of exchange rates: " + (
            "the amount of each currency can be solved for"
            if solvable
            else "the amounts of single currencies cannot be solved for"
        )
        if solvable and not federation.terms.one_parent:
            raise PolicyViolation(
                "CURRENCIES_SOLVABLE",
                note,
                ids={"report": plan.report},
                hint="Leave out a constant-currency column, or have more currencies in the report",
            )
        out.append(note + ".")
        single = [code for code in currencies if [o.currency for o in owners.values()].count(code) == 1]
        if solvable and single:
            out.append(f"One entity alone books in {', '.join(single)}: its amounts are among them.")
    if federation.terms.one_parent:
        out.append(
            "All data owners stand under one parent. Assumed known to it: the entities' totals. Protected: persons and "
            "customers inside an entity, not the entity."
        )
    return out
