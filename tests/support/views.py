"""What a position of a session sees: shapes for inputs of one shape, uniform messages, masks that are never used twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import numpy as np

from mpc_ops.protocol.core import stage as stages
from tests.support.adversary import Case, Program, plain_of, step_kind

NIBBLES_999999 = 55.0
"""Chi-square of 15 degrees of freedom: exceeded with probability 2 * 10^-6."""


def view_of(case: Case, position: int) -> dict[str, object]:
    """Everything public in a position's view: lengths, places and number of messages, and what was opened to it."""
    out = case.honest.outcome
    received = sorted(
        (address, len(case.bodies[address])) for address in case.addresses if address.receiver == position
    )
    return {
        "messages": received,
        "rounds": out.rounds[position],
        "sent": out.sent_bytes[position],
        "result": plain_of(out.results[position]),
    }


def view_differences(program: Program, seed: object = "views") -> list[str]:
    """Compare the public part of every position's view for all inputs of a program: all must be alike."""
    cases = [Case(program, seed=seed, number=number) for number in range(len(program.cases))]
    found = []
    for position in range(3):
        first = view_of(cases[0], position)
        for number, case in enumerate(cases[1:], start=1):
            other = view_of(case, position)
            found += [f"position {position}, inputs {number}: {name}" for name in first if first[name] != other[name]]
    return found


def _in_field(kind: str) -> bool:
    """Elements below 2^61 - 1 in 8 bytes."""
    return kind.startswith("and#/") and ("share" in kind or "exchange" in kind)


def nibbles(program: Program, number: int, seeds: Iterable[object]) -> dict[str, np.ndarray]:
    """Count the low half-bytes of all messages by their form; of field elements all bytes but the highest."""
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(16))
    for seed in seeds:
        case = Case(program, seed=seed, number=number)
        for address, body in case.bodies.items():
            kind = step_kind(address.step)
            data = np.frombuffer(bytes(body), dtype=np.uint8)
            if _in_field(kind):
                data = data.reshape(-1, 8)[:, :7].reshape(-1)
            counts[f"{kind} {'next' if (address.receiver - address.sender) % 3 == 1 else 'prev'}"] += np.bincount(
                data & 15, minlength=16
            )
    return dict(counts)


def chi_square(counts: np.ndarray) -> float:
    """Against the uniform distribution."""
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def not_uniform(program: Program, number: int, seeds: Iterable[object], least: int = 320) -> list[str]:
    """Name the forms of message that are not uniform for these inputs; what ends in zero bits is left out."""
    return [
        f"{kind}: {chi_square(counts):.0f}"
        for kind, counts in nibbles(program, number, seeds).items()
        if counts.sum() >= least
        and chi_square(counts) > NIBBLES_999999
        and not program.opening(kind.split()[0])
        and not kind.startswith(program.ragged)
    ]


def tell_apart(program: Program, seeds: Sequence[object], least: int = 320) -> list[str]:
    """Name the forms of message whose half-bytes are distributed otherwise for the first inputs than for the second."""
    found = []
    one, other = (nibbles(program, number, [(number, seed) for seed in seeds]) for number in range(2))
    for kind, counts in one.items():
        both = counts + other[kind]
        if counts.sum() < least or not both.all():
            continue
        expected = both / 2
        statistic = float((((counts - expected) ** 2 + (other[kind] - expected) ** 2) / expected).sum())
        if statistic > NIBBLES_999999:
            found.append(f"{kind}: {statistic:.0f}")
    return found


def repeated_bodies(one: Case, other: Case) -> list[str]:
    """Name messages with the same content in two sessions: a mask, coin or MAC key was used in both."""
    mine = {body for body in map(bytes, one.bodies.values()) if len(body) >= 8}
    return [address.step for address, body in other.bodies.items() if bytes(body) in mine]


@contextmanager
def derived_contexts() -> Iterator[Counter[tuple[bytes, tuple[object, ...]]]]:
    """Count every (key, context) from which a stage derives a stream or a coin. Two parties hold each key: count 2."""
    seen: Counter[tuple[bytes, tuple[object, ...]]] = Counter()
    derive = stages.derive

    def note(key: bytes, *context: object) -> bytes:
        seen[key, context] += 1
        return derive(key, *context)

    with mock.patch.object(stages, "derive", note):
        yield seen


def used_twice(program: Program, seeds: Iterable[object]) -> list[str]:
    """Name contexts that one party used twice, over several sessions with the same pair keys."""
    with derived_contexts() as seen:
        for seed in seeds:
            Case(program, seed=seed)
    return [repr(context[4:]) for (_, context), count in seen.items() if count > 2]
