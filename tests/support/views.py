"""What a position of a session sees: shapes for inputs of one shape, uniform messages, masks that are never used twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import numpy as np

from mpc_ops.protocol.core import opening
from mpc_ops.randomness import streams
from tests.support.adversary import Acting, Case, Program, plain_of, step_kind
from tests.support.streams import replaced

NIBBLES_999999 = 55.0
"""Chi-square of 15 degrees of freedom: exceeded with probability 2 * 10^-6."""


@contextmanager
def openings() -> Iterator[list[list[object]]]:
    """Collect by position what every opening behind a barrier tells it, in order: results and all that is opened in between."""
    seen: list[list[object]] = [[], [], []]
    values = opening._values

    def note(*args: object) -> list[np.ndarray]:
        told = values(*args)
        if Acting.party is not None:
            seen[Acting.party].append(plain_of(told))
        return told

    with mock.patch.object(opening, "_values", note):
        yield seen


def view_of(program: Program, number: int, seed: object) -> list[dict[str, object]]:
    """Everything public in the view of each position: lengths, places and number of messages, and what was opened to it.

    Pair keys come from the seed, so for two inputs the parties draw the same permutations and masks, and whatever is opened in
    between (comparison bits and places of shuffled rows) must be the same to the last bit.
    """
    with openings() as opened:
        case = Case(program, seed=seed, number=number)
    out = case.honest.outcome
    return [
        {
            "messages": sorted((at, len(case.bodies[at])) for at in case.addresses if at.receiver == position),
            "rounds": out.rounds[position],
            "sent": out.sent_bytes[position],
            "opened": [program.public(columns) for columns in opened[position]],
            "result": plain_of(out.results[position]),
        }
        for position in range(3)
    ]


def view_differences(program: Program, seed: object = "views") -> list[str]:
    """Compare the public part of every position's view for all inputs of a program: all must be alike."""
    first, *others = (view_of(program, number, seed) for number in range(len(program.cases)))
    return [
        f"position {position}, inputs {number}: {name}"
        for number, other in enumerate(others, start=1)
        for position in range(3)
        for name in first[position]
        if first[position][name] != other[position][name]
    ]


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


Use = tuple[str, bytes, tuple[object, ...]]
"""`derive` or `expand`, its key or seed, and the context."""


@contextmanager
def uses() -> Iterator[dict[Use, Counter[int | None]]]:
    """Count by party every key and context from which anything in the protocol derives a key, stream or coin.

    Watched are stages and all that expand seeds themselves: both kinds of proof, tags, permutations and masks of shuffles. The
    length of a stream is no part of its context, so a stream of which a part is used again is found as well.
    """
    seen: dict[Use, Counter[int | None]] = defaultdict(Counter)

    def derived(key: bytes, *context: object) -> bytes:
        seen["derive", key, context][Acting.party] += 1
        return streams.derive(key, *context)

    def expanded(seed: bytes, lanes: int, *context: object) -> np.ndarray:
        seen["expand", seed, context][Acting.party] += 1
        return streams.expand(seed, lanes, *context)

    with replaced(derived, expanded):
        yield seen


def used_twice(program: Program, seeds: Iterable[object]) -> list[str]:
    """Name contexts that one party used twice, over several sessions with the same pair keys, or that all three used.

    A coin's seed is known to all three once its prover has it, and each of them may expand it.
    """
    with uses() as seen:
        for seed in seeds:
            Case(program, seed=seed)
    again = [use for use, parties in seen.items() if max(parties.values()) > 1]
    again += [use for use, parties in seen.items() if len(parties) > 2 and use[0] == "derive"]
    return [f"{what} {context!r}" for what, _, context in again]
