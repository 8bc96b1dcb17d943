"""Replicated sharing of an owner's values among the three operators of its region.

x = x_0 + x_1 + x_2 mod 2^64; position i holds (x_i, x_{i+1}), indices mod 3. An owner draws two seeds and computes one
explicit component, so 16 bytes per value leave it in total:

| position | first component | second component |
|---|---|---|
| 0 | seed s_0 | seed s_1 |
| 1 | seed s_1 | explicit x_2 = x - F(s_0) - F(s_1) |
| 2 | explicit x_2 | seed s_0 |

Tables of bits that go with the values (before a region's Gate) are split the same way by XOR: x = x_0 ^ x_1 ^ x_2.
"""

from mpc_ops.sharing.components import Component, OwnerSharing, held_by, reconstruct, share
from mpc_ops.sharing.part import (
    MAX_PART_LANES,
    ExpandedPart,
    FilingContext,
    PartPayload,
    check_part,
    commitment,
    expand_part,
    part_limit_bytes,
    parts_of,
    read_part,
    sharing_commitments,
    write_part,
)
from mpc_ops.sharing.units import NO_UNITS, UnitLimits, UnitTables, padded_rows, tables_of, unit_planes

__all__ = [
    "MAX_PART_LANES",
    "NO_UNITS",
    "Component",
    "ExpandedPart",
    "FilingContext",
    "OwnerSharing",
    "PartPayload",
    "UnitLimits",
    "UnitTables",
    "check_part",
    "commitment",
    "expand_part",
    "held_by",
    "padded_rows",
    "part_limit_bytes",
    "parts_of",
    "read_part",
    "reconstruct",
    "share",
    "sharing_commitments",
    "tables_of",
    "unit_planes",
    "write_part",
]
