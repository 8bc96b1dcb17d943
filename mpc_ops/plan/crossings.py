"""Every planned flow of a report, with its border, its size and the rules' decision."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import permutations
from typing import cast

from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import PayloadClass, Region, Role
from mpc_ops.plan.layout import lane_count, shared_lane_count, unit_limits
from mpc_ops.plan.model import CrossNode, DeliverNode, Plan, RegionSumNode, ScanNode
from mpc_ops.plan.rules import Decision, decide, decide_flow, least_records, require_flow

__all__ = ["Crossing", "check_crossings", "crossings"]

_NOTICES = "notices with party ids, periods, sizes and times"
_KEYS = "public keys and fresh nonces"
_COMMITMENTS = "digests of ciphertexts and salted commitments"
_EVIDENCE = "signed extracts of the transfer log"
_GATE = "messages of the Gate on secret shares of records"
_SUBTOTALS = "secret shares of the owner's subtotals"
_RECORDS = "secret shares of one row of bits per unit and of the owner's figures per cell, which passed no Gate"


@dataclass(frozen=True, slots=True)
class Crossing:
    """One planned flow.

    Attributes:
        sender, receiver: party ids; `owners of <region>` stands for owners that the plan doesn't name.
        from_jurisdiction, to_jurisdiction: seats of both ends.
        what: plain words.
        border: whether the two seats differ; `same_area`: whether they lie in one legal area.
        lanes: shared values in the flow, 0 where none travel.
        bytes_at_most: most bytes of share data in it per run (per owner where owners send), envelopes not counted; None
            for flows that carry no shares, whose bytes are measured only.
        decisions: one per jurisdiction of origin.
    """

    sender: str
    receiver: str
    from_jurisdiction: str
    to_jurisdiction: str
    to_role: Role
    payload_class: PayloadClass
    what: str
    border: bool
    same_area: bool
    lanes: int
    bytes_at_most: int | None
    decisions: tuple[Decision, ...]

    @property
    def allowed(self) -> bool:
        """Whether every origin's rules allow it."""
        return all(decision.allowed for decision in self.decisions)


@dataclass(frozen=True, slots=True)
class _Flow:
    sender: str
    receiver: str
    payload_class: PayloadClass
    what: str
    lanes: int = 0
    bytes_at_most: int | None = None


def crossings(
    plan: Plan, federation: Federation, *, now: datetime, owners: Collection[str] | None = None
) -> list[Crossing]:
    """List every flow of a run of `plan`, inside and across borders, with its decision.

    Args:
        plan: a plan that `check_plan` accepted.
        federation: terms and rule packs; owners are taken from `owners`, else per jurisdiction of each region.
        now: moment of the decisions.
        owners: the owners of a run.
    """
    count = None if owners is None else len(owners)
    out = []
    for flow in _flows(plan, federation):
        decisions = decide_flow(
            plan, federation, sender=flow.sender, receiver=flow.receiver, payload_class=flow.payload_class, now=now,
            owners=count,
        )  # fmt: skip
        ends = federation.jurisdiction_of(flow.sender), federation.jurisdiction_of(flow.receiver)
        out.append(_crossing(federation, flow, ends, decisions))
    return _owner_flows(plan, federation, now, owners) + out


def check_crossings(
    plan: Plan, federation: Federation, *, now: datetime, owners: Collection[str] | None = None
) -> list[Crossing]:
    """Return `crossings`, or raise PolicyViolation CROSSING_DENIED naming rule, class and pair of the first denied one.

    Flows of data are looked at before the metadata that goes with them.
    """
    found = crossings(plan, federation, now=now, owners=owners)
    for crossing in sorted(found, key=lambda crossing: crossing.bytes_at_most is None):
        require_flow(crossing.decisions, sender=crossing.sender, receiver=crossing.receiver)
    return found


def _crossing(federation: Federation, flow: _Flow, ends: tuple[str, str], decisions: list[Decision]) -> Crossing:
    return Crossing(
        sender=flow.sender,
        receiver=flow.receiver,
        from_jurisdiction=ends[0],
        to_jurisdiction=ends[1],
        to_role=Role(decisions[0].inputs["to_role"]),
        payload_class=flow.payload_class,
        what=flow.what,
        border=ends[0] != ends[1],
        same_area=federation.same_area(*ends),
        lanes=flow.lanes,
        bytes_at_most=flow.bytes_at_most,
        decisions=tuple(decisions),
    )


def _talk(one: str, other: str, *kinds: PayloadClass) -> Iterator[_Flow]:
    words = {
        PayloadClass.CONTROL_METADATA: _NOTICES,
        PayloadClass.KEY_MATERIAL: _KEYS,
        PayloadClass.MAC_OR_COMMITMENT: _COMMITMENTS,
        PayloadClass.EVIDENCE: _EVIDENCE,
    }
    for kind in kinds:
        yield _Flow(one, other, kind, words[kind])


_OPERATORS_TALK = (
    PayloadClass.CONTROL_METADATA, PayloadClass.KEY_MATERIAL, PayloadClass.MAC_OR_COMMITMENT, PayloadClass.EVIDENCE,
)  # fmt: skip


def _flows(plan: Plan, federation: Federation) -> Iterator[_Flow]:
    cross, deliver = cast("CrossNode", plan.node(CrossNode)), cast("DeliverNode", plan.node(DeliverNode))
    lanes = lane_count(plan)
    group = federation.cluster(cross.cluster).operators
    for region in _regions(plan, federation).values():
        cluster = federation.cluster(region.cluster).operators
        for one, other in permutations(cluster, 2):
            if plan.gate.where == "region":
                yield _Flow(one, other, plan.gate.shared_class, _GATE)
            yield from _talk(one, other, *_OPERATORS_TALK)
        for one in cluster:
            for other in group:
                # Re-sharing: of a component's three sub-shares two are seeds, the third is explicit: 8 bytes a lane.
                yield _Flow(one, other, cross.payload_class, "secret shares of a region's sums", lanes, 8 * lanes)
                yield from _talk(one, other, *_OPERATORS_TALK)
                yield from _talk(other, one, *_OPERATORS_TALK)
    for one, other in permutations(group, 2):
        yield from _talk(one, other, *_OPERATORS_TALK)
    for one in group:
        yield _Flow(one, deliver.recipient, deliver.payload_class, "result part, two components", lanes, 16 * lanes)
        yield from _talk(one, deliver.recipient, *_OPERATORS_TALK)
        yield from _talk(deliver.recipient, one, PayloadClass.CONTROL_METADATA, PayloadClass.KEY_MATERIAL)


def _regions(plan: Plan, federation: Federation) -> dict[str, Region]:
    names = cast("RegionSumNode", plan.node(RegionSumNode)).regions
    return {name: federation.terms.regions[name] for name in names}


def _owner_flows(plan: Plan, federation: Federation, now: datetime, owners: Collection[str] | None) -> list[Crossing]:
    scan, limits = cast("ScanNode", plan.node(ScanNode)), unit_limits(plan)
    lanes = shared_lane_count(plan) + (0 if limits is None else limits.words)
    what = _SUBTOTALS if limits is None else _RECORDS
    out = []
    for name, region in _regions(plan, federation).items():
        if owners is None:
            senders = {f"owners of {name} in {code}": code for code in region.jurisdictions}
        else:
            senders = {
                owner: federation.jurisdiction_of(owner) for owner in owners if federation.owner(owner).region == name
            }
        for sender, code in senders.items():
            for operator in federation.cluster(region.cluster).operators:
                seat = federation.jurisdiction_of(operator)
                down = (PayloadClass.CONTROL_METADATA, PayloadClass.KEY_MATERIAL, PayloadClass.EVIDENCE)
                for flow, ends, role in (
                    (_Flow(sender, operator, plan.gate.shared_class, what, lanes, 8 * lanes),
                     (code, seat), Role.COMPUTE_NODE),
                    *((flow, (code, seat), Role.COMPUTE_NODE) for flow in _talk(sender, operator, *_UP)),
                    *((flow, (seat, code), Role.OWNER) for flow in _talk(operator, sender, *down)),
                ):  # fmt: skip
                    decisions = [
                        decide(
                            federation, origin=origin, sender=ends[0], receiver=ends[1], to_role=role,
                            payload_class=flow.payload_class,
                            data_class=federation.terms.datasets[scan.dataset].data_class, min_records=least_records(plan, flow.payload_class),
                            owners=plan.terms.min_owners if owners is None else len(owners),
                            references=plan.terms.references, now=now, security=plan.terms.security,
                        )
                        for origin in sorted({code, ends[0]})
                    ]  # fmt: skip
                    out.append(_crossing(federation, flow, ends, decisions))
    return out


_UP = (PayloadClass.CONTROL_METADATA, PayloadClass.MAC_OR_COMMITMENT)
