"""An operator process with a fault, for tests only: `python -m tests.support.faulty_operator --home DIR FAULT...`.

Faults are put into this process from outside; the product has no switch for them.

```
component        adds one to a value of a component that it opened from a part
crossing         flips a bit in the re-shared sub-shares for the second group operator
result           flips a bit in its result part
careless         runs whatever manifest it is given: no approvals, no rules, no owners are checked
clock=SECONDS    its clock is wrong by so much
rounds=SECONDS   no fault: its region stage is tests.support.rounds, with a pause before each round; the log says `rounds`
```
"""

# ruff: noqa: PLC0415 - the clock must be wrong before anything binds it
from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any


def _clock(seconds: float) -> None:
    """Must come before anything else of Comity is imported: defaults bind the clock."""
    true = time.time
    time.time = lambda: true() + seconds


def _component() -> None:
    from mpc_ops.server.filings import Filings
    from mpc_ops.sharing import Component

    true = Filings.payload

    def payload(self: Filings, signed: Any) -> Any:
        opener = true(self, signed)

        def opened() -> Any:
            part = opener()
            if part is None:
                return None
            vector = part.second.expand(part.lanes).copy()
            vector[3] += 1
            return replace(part, second=Component(explicit=vector))

        return opened

    Filings.payload = payload


def _crossing() -> None:
    from mpc_ops.server.stage_region import RegionStages

    true = RegionStages.keep

    def keep(self: RegionStages, found: Any, state: Any, output: Any) -> None:
        bodies = [bytearray(body) for body in output.crossings]
        bodies[1][60] ^= 1
        true(self, found, state, replace(output, crossings=tuple(bytes(body) for body in bodies)))

    RegionStages.keep = keep


def _result() -> None:
    from mpc_ops.server.stage_group import GroupStages

    true = GroupStages.keep

    def keep(self: GroupStages, found: Any, state: Any, output: Any) -> None:
        part = bytearray(output.part)
        part[-1] ^= 1
        true(self, found, state, replace(output, part=bytes(part)))

    GroupStages.keep = keep


def _careless() -> None:
    from mpc_ops.server.admission import Admissions

    def check(self: Admissions, run: str, signed: Any = None) -> Any:
        return self.look(run, signed)

    Admissions.check = check


def _rounds(pause_s: float) -> None:
    import mpc_ops.server.stage_region as module
    from tests.support.rounds import paced, rounds_program

    def begun(number: int) -> None:
        if number == 4:
            sys.stderr.write('{"event": "rounds"}\n')
            sys.stderr.flush()

    module.region_stage_of = lambda plan, inputs, attempt: (
        lambda flow, keys: paced(rounds_program(inputs, flow, keys, attempt), pause_s, begun)
    )
    module.RegionStages.frame_class = lambda self, found: found.report.plan.gate.shared_class


_FAULTS = {"component": _component, "crossing": _crossing, "result": _result, "careless": _careless}


def main() -> int:
    home, faults = Path(sys.argv[2]), sys.argv[3:]
    for fault in faults:
        name, _, value = fault.partition("=")
        if name == "clock":
            _clock(float(value))
    for fault in faults:
        if fault in _FAULTS:
            _FAULTS[fault]()
        elif fault.startswith("rounds="):
            _rounds(float(fault.partition("=")[2]))
    from mpc_ops.server.app import run_operator

    return run_operator(home)


if __name__ == "__main__":
    sys.exit(main())
