"""What one operator computes in a session: a stage on shares, inside one attempt with fresh pair keys.

`Attempt` runs the work messages of one attempt (key agreement, flush, comparison) and calls a stage once. `region_stage`
adds the owners' parts and prepares the crossing frames; `group_stage` checks and adds the regions' crossings and prepares
result commitment and part. All inputs are in memory and bounded by the plan's lane count; there is no I/O here.
"""

from mpc_ops.engine.attempt import Attempt, AttemptContext, AttemptDone, Outgoing
from mpc_ops.engine.stages import (
    GroupInputs,
    GroupOutput,
    RegionInputs,
    RegionOutput,
    StageKeys,
    StageOutput,
    StageShape,
    group_stage,
    region_stage,
)

__all__ = [
    "Attempt",
    "AttemptContext",
    "AttemptDone",
    "GroupInputs",
    "GroupOutput",
    "Outgoing",
    "RegionInputs",
    "RegionOutput",
    "StageKeys",
    "StageOutput",
    "StageShape",
    "group_stage",
    "region_stage",
]
