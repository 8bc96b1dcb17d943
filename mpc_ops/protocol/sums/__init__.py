"""Plans of sums, as pure functions: linear operations, crossing between clusters, result commitments and parts."""

from mpc_ops.protocol.sums.cross import (
    CrossRoute,
    build_crossing,
    crossing_frame_bytes,
    open_crossing,
)
from mpc_ops.protocol.sums.linear import Share, add, add_many, share_of_part, zero_share
from mpc_ops.protocol.sums.result import (
    ResultContext,
    build_result,
    combine_parts,
    result_part_bytes,
)

__all__ = [
    "CrossRoute",
    "ResultContext",
    "Share",
    "add",
    "add_many",
    "build_crossing",
    "build_result",
    "combine_parts",
    "crossing_frame_bytes",
    "open_crossing",
    "result_part_bytes",
    "share_of_part",
    "zero_share",
]
