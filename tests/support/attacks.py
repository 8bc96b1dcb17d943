"""Ways in which a party deviates at one message, or in all that it computes; and the kinds that every message must see."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpc_ops.protocol.core.party import Address
from tests.support.active import flip

if TYPE_CHECKING:
    from tests.support.adversary import Case


@dataclass(frozen=True)
class Attack:
    """One deviation of one party.

    Attributes:
        corrupt: its position.
        change: name of the change (`CONTENT`, `DELIVERY`), or `stream`, `input`.
        lie: `wire`, `own` or `deep`.
        address: which message; None for a deep lie.
        deep: for `stream` (number of the call, side), for `input` (number of the input, side).
    """

    corrupt: int
    change: str
    lie: str
    address: Address | None = None
    deep: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        where = self.address and f"{self.address.stage}:{self.address.step}->{self.address.receiver}"
        return f"P{self.corrupt} {self.lie} {self.change} {where or self.deep}"


def _word(body: bytes, rng: random.Random, amount: int) -> bytes:
    """Add to one little-endian word of 8 bytes."""
    at = 8 * rng.randrange(max(1, len(body) // 8))
    word = (int.from_bytes(body[at : at + 8], "little") + amount) % (1 << 64)
    return body[:at] + word.to_bytes(8, "little")[: len(body) - at] + body[at + 8 :]


def partner(case: Case, address: Address, rng: random.Random) -> Address | None:
    """Another message of the same sender with another content: of the same stage and length, or else of any."""
    body = case.bodies[address]
    others = [
        (other, content)
        for other, content in case.bodies.items()
        if other.sender == address.sender and other != address and content != body
    ]
    alike = [other for other, content in others if other.stage == address.stage and len(content) == len(body)]
    found = alike or [other for other, _ in others]
    return rng.choice(found) if found else None


def _echo(case: Case, address: Address, rng: random.Random) -> bytes | None:
    """What somebody sent before, at another address: replayed from another round, or reflected to its sender."""
    body = case.bodies[address]
    found = [
        content
        for other, content in case.bodies.items()
        if other.round <= address.round and other != address and len(content) == len(body) and content != body
    ]
    return rng.choice(found) if found else None


CONTENT: dict[str, Callable[[Case, Address, random.Random], bytes | None]] = {
    "flip": lambda case, at, rng: flip(case.bodies[at], rng),
    "plus 1": lambda case, at, rng: _word(case.bodies[at], rng, 1),
    "plus 2^63": lambda case, at, rng: _word(case.bodies[at], rng, 1 << 63),
    "zeros": lambda case, at, rng: bytes(len(case.bodies[at])),
    "replay of a session": lambda case, at, rng: case.elsewhere[at],
    "replay of an address": _echo,
    "truncate": lambda case, at, rng: case.bodies[at][:-1],
    "cut to half": lambda case, at, rng: case.bodies[at][: len(case.bodies[at]) // 2],
    "extend": lambda case, at, rng: case.bodies[at] + b"\0",
}
"""Changes of one message's content; None where there is nothing to take."""

SAME_LENGTH = ("flip", "plus 1", "plus 2^63", "zeros", "replay of a session", "replay of an address", "swap")
DELIVERY = (
    "drop", "silence", "late", "slow", "twice", "changed again", "changed again late", "foreign session",
    "foreign receiver", "swap",
)  # fmt: skip
"""Changes of how, when and how often messages are delivered. `silence` and `slow`: this message and all later ones of the
sender are dropped, or each is held back until nothing else can happen. `swap` exchanges the contents of two messages."""
HARMLESS = ("late", "slow", "twice")
"""Changes that honest parties must live with."""
EXTRA = ("changed again", "changed again late", "foreign session", "foreign receiver")
"""The honest message arrives, and another one as well: what was verified stays verified, but the receiver may stop."""

KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    "changed": tuple((change, "wire") for change in ("flip", "plus 1", "plus 2^63", "zeros", "extend")),
    "dropped": (("drop", "wire"), ("silence", "wire")),
    "delayed": (("late", "wire"), ("slow", "wire")),
    "truncated": (("truncate", "wire"), ("cut to half", "wire")),
    "duplicated": tuple((change, "wire") for change in ("twice", "changed again", "changed again late")),
    "swapped": (("swap", "wire"),),
    "replayed": tuple(
        (change, "wire")
        for change in ("replay of a session", "replay of an address", "foreign session", "foreign receiver")
    ),
    "lied": tuple((change, "own") for change in SAME_LENGTH),
}
"""Kinds of deviation at one message, each with its variants (change, kind of lie). A message that is replayed comes from another
session or address, or is sent to another session or party. `lied`: the sender's own transcript has the lie as well."""
KIND_OF = {variant: kind for kind, variants in KINDS.items() for variant in variants}
