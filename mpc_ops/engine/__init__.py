"""What one operator computes in a session: a stage on shares, inside one attempt with fresh pair keys.

`Attempt` runs the work messages of one attempt: key agreement, the stage's program with all its rounds, flush and
comparison. `region_program` adds the owners' parts, computes what the plan asks for and prepares the crossing frames;
`group_program` checks and adds the regions' crossings and prepares result commitment and part. All inputs are in memory and
bounded by the plan's lane count; there is no I/O here.
"""

from mpc_ops.engine.attempt import Attempt, AttemptDone, Outgoing
from mpc_ops.engine.dispute import Dispute
from mpc_ops.engine.frames import Tally
from mpc_ops.engine.link import AttemptContext, LinkTotals
from mpc_ops.engine.region_gate import region_shape, region_stage_of
from mpc_ops.engine.stages import (
    GroupInputs,
    GroupOutput,
    RegionInputs,
    RegionOutput,
    Stage,
    StageOutput,
    StageShape,
    finish_region,
    group_program,
    group_stage,
    input_shares,
    region_program,
    region_stage,
)

__all__ = [
    "Attempt",
    "AttemptContext",
    "AttemptDone",
    "Dispute",
    "GroupInputs",
    "GroupOutput",
    "LinkTotals",
    "Outgoing",
    "RegionInputs",
    "RegionOutput",
    "Stage",
    "StageOutput",
    "StageShape",
    "Tally",
    "finish_region",
    "group_program",
    "group_stage",
    "input_shares",
    "region_program",
    "region_shape",
    "region_stage",
    "region_stage_of",
]
