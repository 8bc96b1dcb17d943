"""Programs whose vectors are published beside those of single operations: the adversary's registry, and operators' own inputs.

Their proofs are long, so a long body is published as its length and SHA-256. Who checks one position takes such bodies from
the other two, which the same file determines.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.own_input import input_of_all
from tests.support.adversary import Program
from tests.support.attacked import ATTACKED

__all__ = ["ELSEWHERE", "OWN_VALUES", "TABLE_PROGRAMS", "slug"]

_NAMES = {
    "counters": ("flags", "weights"),
    "conversions": ("flags", "narrow", "x"),
    "flow": ("x", "y", "amounts"),
    "batches": ("x", "y", "a"),
    "daBits": ("bit",),
    "gate": ("members", "measures"),
    "gate of owners": ("members of 0", "members of 1", "measures"),
}
"""Names of the inputs of programs that are no tables."""

# --------------------------------------------------------------------------------------- what the operators know themselves

OWN_VALUES = ((5, (1 << 64) - 1), (7,), ())
"""Values of the three positions: inputs that no owner shared."""


def _own(session, _shares):
    flow = ActiveFlow(session, "own")
    values = np.array(OWN_VALUES[session.terms.party], dtype=np.uint64)
    made = yield from input_of_all(flow.stage, values, [len(own) for own in OWN_VALUES])
    return (yield from flow.open(made))


OWN = Program(
    "own input", ((),), lambda _inputs, _seed: [], _own, lambda _inputs, _position: [list(own) for own in OWN_VALUES]
)

ELSEWHERE = ("logic", "products", "shuffle", "own inputs")
"""Programs whose operations have vectors of their own: `engine_vectors.PROGRAMS`, and `OWN` without gates."""
TABLE_PROGRAMS: dict[str, Program] = {
    program.name: replace(program, names=program.names or _NAMES.get(program.name, ()))
    for program in (*ATTACKED.values(), OWN)
    if program.name not in ELSEWHERE
}
"""By name."""


def slug(name: str) -> str:
    """Return the name of a program's file."""
    return "engine_" + re.sub(r"[^a-z0-9]+", "_", name.lower())
