"""Shared tables for tests of relational operators: made from lists, run in both kinds of session, opened, compared."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import duckdb
import pyarrow as pa

from mpc_ops.protocol.core.rows import Rows
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


# ---------------------------------------------------------------------------------------------- the plaintext engine


def signed(value, width):
    return value - (1 << width) if value >> (width - 1) else value


def random_rows(count, rng):
    """Columns of a table; what stands behind a NULL is anything."""
    return {
        "ka": ([rng.randrange(3) for _ in range(count)], 2),
        "ka_ok": ([int(rng.random() < 0.8) for _ in range(count)], 1),
        "kb": ([rng.choice([0, 5, 70]) for _ in range(count)], 7),
        "amount": ([rng.randrange(1 << 20) for _ in range(count)], None),
        "amount_ok": ([int(rng.random() < 0.7) for _ in range(count)], 1),
        "score": ([rng.choice([0, 1, 7, 8, 9, 15]) for _ in range(count)], 4),
        "size": ([rng.randrange(6) for _ in range(count)], 5),
        "size_ok": ([int(rng.random() < 0.5) for _ in range(count)], 1),
        "live": ([int(rng.random() < 0.8) for _ in range(count)], 1),
    }


def plaintext(spec, sql):
    """Rows of a query over the table `t` in which NULLs are NULLs and scores have signs."""

    def column(name):
        values = spec[name][0]
        if name == "score":
            values = [signed(value, 4) for value in values]
        marks = spec[f"{name}_ok"][0] if f"{name}_ok" in spec else [1] * len(values)
        return pa.array([value if mark else None for value, mark in zip(values, marks, strict=True)], pa.int64())

    with duckdb.connect() as connection:
        connection.register("t", pa.table({name: column(name) for name in spec if not name.endswith("_ok")}))
        return [tuple(map(int_or_none, row)) for row in connection.execute(sql).fetchall()]


def int_or_none(value):
    return None if value is None else int(value)
