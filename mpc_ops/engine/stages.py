"""The two stages of a plan, as programs: the region's and the group's.

A stage is a program over a `Flow` (active or passive): `Stage = Callable[[Flow, PartyKeys], Steps[StageOutput]]`. Sums over
public dimensions are linear: their programs have no rounds and never ask for `flow.stage`. A program with rounds makes its
shares with `input_shares`, computes with `flow.stage`, and hands its result to `finish_region`, which stands behind the last
barrier: what crosses a border is built only when all three have sent ACCEPT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mpc_ops.errors import LocalProtocolError, PeerProtocolError, PlanError
from mpc_ops.protocol.circuits.products import fresh
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.shares import RingVector, check_ring_share, ring_of
from mpc_ops.protocol.core.terms import PartyKeys
from mpc_ops.protocol.sums import (
    CrossRoute,
    ResultContext,
    Share,
    add_many,
    build_crossing,
    build_result,
    open_crossing,
    share_of_part,
)
from mpc_ops.protocol.sums.result import Commitments
from mpc_ops.sharing import MAX_PART_LANES, PartPayload

__all__ = [
    "MAX_PARTS",
    "GroupInputs",
    "GroupOutput",
    "RegionInputs",
    "RegionOutput",
    "Stage",
    "StageOutput",
    "StageShape",
    "check_parts",
    "finish_region",
    "group_program",
    "group_stage",
    "input_shares",
    "region_program",
    "region_stage",
]

MAX_PARTS = 20_000
_OPS = {"region": ("region_sum", "cross"), "group": ("group_sum", "deliver")}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShape:
    """What a stage has to do, as the plan says.

    Attributes:
        kind: `region` or `group`.
        lanes: lanes of every vector.
        ops: the plan's node ops of this stage, in order.
    """

    kind: Literal["region", "group"]
    lanes: int
    ops: tuple[str, ...]

    def check(self) -> None:
        """Refuse whatever this engine does not compute, rather than leave it out.

        Raises:
            PlanError: UNSUPPORTED_NODE naming the op; LANES_INVALID.
        """
        if not 0 < self.lanes <= MAX_PART_LANES:
            raise PlanError(
                "LANES_INVALID", "a stage has no or too many lanes", expected=f"1 to {MAX_PART_LANES}", got=self.lanes
            )
        expected = _OPS[self.kind]
        for op in self.ops:
            if op not in expected:
                raise PlanError(
                    "UNSUPPORTED_NODE",
                    f"the {self.kind} stage cannot compute this node on shares",
                    expected=", ".join(expected),
                    got=op,
                    hint="Only sums over public dimensions are supported by this version",
                )
        if self.ops != expected:
            raise PlanError(
                "UNSUPPORTED_NODE",
                f"the {self.kind} stage has another order of nodes",
                expected=", ".join(expected),
                got=", ".join(self.ops),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionInputs:
    """Inputs of a region stage.

    Attributes:
        shape: what the plan says.
        party: own position.
        parts: own parts of all included filings, in any order; nil filings as None (they count as zero).
        route: the crossing to the group cluster.
    """

    shape: StageShape
    party: int
    parts: Sequence[PartPayload | None]
    route: CrossRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionOutput:
    """The region's sum and the plaintext bodies of the frames to the three group operators, by position."""

    share: Share
    crossings: tuple[bytes, bytes, bytes]

    def __repr__(self) -> str:
        return f"RegionOutput({self.share!r}, crossings=<redacted>)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInputs:
    """Inputs of a group stage.

    Attributes:
        shape: what the plan says.
        party: own position.
        crossings: per region cluster: the route and the opened frames by the sender's position.
        result: which result; its attempt must be the running one.
    """

    shape: StageShape
    party: int
    crossings: Mapping[str, tuple[CrossRoute, Mapping[int, bytes]]]
    result: ResultContext


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOutput:
    """The result's share, the own commitments by component, and the plaintext of the own part."""

    share: Share
    commitments: Commitments
    part: bytes

    def __repr__(self) -> str:
        return f"GroupOutput({self.share!r}, part=<redacted>)"


StageOutput: TypeAlias = RegionOutput | GroupOutput

Stage: TypeAlias = Callable[[Flow, PartyKeys], Steps[StageOutput]]
"""A stage's program: called once, when both pair keys of the attempt are confirmed."""


def region_program(inputs: RegionInputs, flow: Flow, keys: PartyKeys, attempt: int) -> Steps[RegionOutput]:
    """Run the region's stage of a plan.

    Run by: each operator of a region cluster. Rounds: none for a plan of sums. Sent: nothing for a plan of sums.
    Errors: those of `region_stage`, and of the protocols that the plan's nodes need.
    """
    del flow  # a plan of sums has no rounds
    yield from ()
    return region_stage(inputs, keys, attempt)


def group_program(inputs: GroupInputs, flow: Flow, keys: PartyKeys, attempt: int) -> Steps[GroupOutput]:
    """Run the group's stage of a plan: rounds, sent and errors as for `region_program`, with `group_stage`."""
    del flow
    yield from ()
    return group_stage(inputs, keys, attempt)


def check_parts(inputs: RegionInputs) -> list[PartPayload]:
    """Return the parts that hold figures, in the given order.

    Raises:
        LocalProtocolError: PART_MIXED if a part is of another position or lane count; PARTS_INVALID for none, too many, or
            an owner's twice.
    """
    shape = inputs.shape
    if shape.kind != "region" or not 0 < len(inputs.parts) <= MAX_PARTS:
        raise LocalProtocolError(
            "PARTS_INVALID", "a region stage needs the filings of its manifest", got=len(inputs.parts)
        )
    parts = [part for part in inputs.parts if part is not None]
    owners = [part.filing.owner for part in parts]
    if len(set(owners)) != len(owners):
        raise LocalProtocolError("PARTS_INVALID", "an owner's filing is there twice")
    for part in parts:
        if (part.party, part.lanes) != (inputs.party, shape.lanes):
            raise LocalProtocolError("PART_MIXED", "a part of another position or lane count", ids=part.filing.ids())
    return parts


def input_shares(inputs: RegionInputs, flow: Flow) -> list[RingVector]:
    """Return the owners' parts as shares of the flow's session, sorted by owner: all three operators have one order.

    No message. Errors: those of `check_parts`.
    """
    parts = sorted(check_parts(inputs), key=lambda part: part.filing.owner)
    return [ring_of(flow.stage, part.first.expand(part.lanes), part.second.expand(part.lanes)) for part in parts]


def finish_region(
    inputs: RegionInputs, flow: Flow, keys: PartyKeys, attempt: int, total: RingVector
) -> Steps[RegionOutput]:
    """End a region stage that had products: re-randomise, prove, exchange ACCEPT, and only then build the crossing.

    Rounds: 1, and those of `Flow.finish`. Sent: 8 n bytes, and those of `Flow.finish`.
    Security: the components that cross are fresh, so they depend on nothing that the stage opened or a party chose.

    Raises:
        LocalProtocolError: PART_MIXED if the result has another lane count than the crossing; SHARE_FOREIGN.
        Abort, PeerProtocolError: those of the barrier.
    """
    check_ring_share(flow.stage, total)
    if total.count != inputs.route.lanes:
        raise LocalProtocolError("PART_MIXED", "a stage's result has another lane count", ids=inputs.route.ids())
    total = yield from fresh(flow.stage, total)
    yield from flow.finish()
    share = Share(inputs.party, total.first, total.second)
    return RegionOutput(
        share=share, crossings=build_crossing(share, (keys.first.prg, keys.second.prg), inputs.route, attempt)
    )


def region_stage(inputs: RegionInputs, keys: PartyKeys, attempt: int) -> RegionOutput:
    """Add the owners' parts and prepare the crossing.

    Run by: each operator of a region cluster, alone. Local: two streams or vectors of 8 n bytes per owner, one sum.
    Output is not to be sent before the session has COMMITTED `attempt`.

    Raises:
        PlanError: UNSUPPORTED_NODE, LANES_INVALID.
        LocalProtocolError: PART_MIXED if a part is of another position or lane count; PARTS_INVALID for none or too many.
    """
    shape = inputs.shape
    shape.check()
    parts = check_parts(inputs)
    share = add_many((share_of_part(part) for part in parts), party=inputs.party, lanes=shape.lanes)
    crossings = build_crossing(share, (keys.first.prg, keys.second.prg), inputs.route, attempt)
    return RegionOutput(share=share, crossings=crossings)


def group_stage(inputs: GroupInputs, keys: PartyKeys, attempt: int) -> GroupOutput:
    """Check and add the regions' crossings and prepare commitments and part.

    Run by: each operator of the group cluster, alone. Output is not to be handed out before COMMITTED, commitments first.

    Raises:
        PlanError: UNSUPPORTED_NODE, LANES_INVALID.
        Abort: CROSS_MISMATCH, naming the pair of region operators.
        PeerProtocolError: CROSS_INVALID, naming the sender.
        LocalProtocolError: PARTS_INVALID if there is no crossing, or the result context is of another attempt.
    """
    shape = inputs.shape
    shape.check()
    if shape.kind != "group" or not inputs.crossings or inputs.result.attempt != attempt:
        raise LocalProtocolError("PARTS_INVALID", "a group stage needs crossings and the running attempt's context")
    for route, _frames in inputs.crossings.values():
        if route.lanes != shape.lanes:
            raise PeerProtocolError("CROSS_INVALID", "a crossing of another lane count", ids=route.ids())
    share = add_many(
        (open_crossing(frames, route, inputs.party) for route, frames in inputs.crossings.values()),
        party=inputs.party,
        lanes=shape.lanes,
    )
    commitments, part = build_result(share, (keys.first.commit, keys.second.commit), inputs.result)
    return GroupOutput(share=share, commitments=commitments, part=part)
