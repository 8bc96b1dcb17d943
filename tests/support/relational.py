"""Shared tables for tests of relational operators: made from lists, run in both kinds of session, opened, compared."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from mpc_ops.protocol.rows import Rows
from tests.support.active import Outcome, as_passive, run_flow, share_bits, share_ring

SECURITIES = ("active", "passive")
Spec = Mapping[str, tuple[Sequence[int], int | None]]
"""By column name: values and the width in bits, or None for Z_2^64."""


def tables(spec: Spec, security: str = "active", seed: int = 0) -> list[Rows]:
    """A shared table by position."""
    rng = random.Random(seed)
    shares = {
        name: share_ring(values, rng=rng) if width is None else share_bits(values, width, rng=rng)
        for name, (values, width) in spec.items()
    }
    return [
        Rows(
            {name: parts[party] if security == "active" else as_passive(parts[party]) for name, parts in shares.items()}
        )
        for party in range(3)
    ]


def run_table(program: Callable, *specs: Spec, security: str = "active", **options) -> tuple[list, Outcome]:
    """Run `program(flow, *tables)`, open the list of columns that it returns, insist that the parties agree."""
    given = [tables(spec, security, place) for place, spec in enumerate(specs)]

    def whole(flow):
        results = yield from program(flow, *(parts[flow.stage.party] for parts in given))
        values = yield from flow.open(results)
        return [part.tolist() for part in values]

    out = run_flow(whole, security=security, **options)
    assert not out.errors, out.errors
    assert out.done
    assert out.results[0] == out.results[1] == out.results[2]
    return out.results[0], out


def sent_by(out: Outcome, *steps: str, party: int = 0) -> int:
    """Bytes of all messages of a position whose step's name begins with one of `steps`."""
    return sum(size for place, size in out.sizes.items() if place.sender == party and place.step.startswith(steps))


def rounds_of(out: Outcome, *steps: str) -> int:
    """Number of rounds in which such a message was sent."""
    return len({place.round for place in out.log if place.step.startswith(steps)})


def refusal(program: Callable, *specs: Spec, security: str = "active") -> str:
    """The code of the error with which a program ends at every position."""
    given = [tables(spec, security, place) for place, spec in enumerate(specs)]
    out = run_flow(lambda flow: program(flow, *(parts[flow.stage.party] for parts in given)), security=security)
    (code,) = {error.code for error in out.errors.values()}
    assert len(out.errors) == 3
    return code
