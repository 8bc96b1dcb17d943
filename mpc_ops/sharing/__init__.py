"""Replicated sharing of an owner's values among the three operators of its region.

x = x_0 + x_1 + x_2 mod 2^64; position i holds (x_i, x_{i+1}), indices mod 3. An owner draws two seeds and computes one
explicit component, so 16 bytes per value leave it in total:

| position | first component | second component |
|---|---|---|
| 0 | seed s_0 | seed s_1 |
| 1 | seed s_1 | explicit x_2 = x - F(s_0) - F(s_1) |
| 2 | explicit x_2 | seed s_0 |
"""

from mpc_ops.sharing.components import Component, OwnerSharing, held_by, reconstruct, share
from mpc_ops.sharing.part import (
    MAX_PART_LANES,
    FilingContext,
    PartPayload,
    check_part,
    commitment,
    part_limit_bytes,
    parts_of,
    read_part,
    sharing_commitments,
    write_part,
)

__all__ = [
    "MAX_PART_LANES",
    "Component",
    "FilingContext",
    "OwnerSharing",
    "PartPayload",
    "check_part",
    "commitment",
    "held_by",
    "part_limit_bytes",
    "parts_of",
    "read_part",
    "reconstruct",
    "share",
    "sharing_commitments",
    "write_part",
]
