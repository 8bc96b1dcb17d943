"""Components of a sharing, and the owner's side of splitting."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.randomness import SEED_BYTES, expand
from mpc_ops.ring import RingArray, add_into, check_ring, from_bytes, sub_into, to_bytes, zeros
from mpc_ops.ring.planes import PlaneArray
from mpc_ops.sharing.units import NO_UNITS, UnitTables, tables_of

__all__ = ["Component", "OwnerSharing", "held_by", "reconstruct", "share"]


class Component:
    """One component: a 32-byte seed or an explicit vector. Immutable; its printed form shows neither."""

    __slots__ = ("_explicit", "_seed")

    def __init__(self, *, seed: bytes | None = None, explicit: RingArray | None = None) -> None:
        if (seed is None) == (explicit is None):
            raise LocalProtocolError("COMPONENT_INVALID", "a component is a seed or an explicit vector, not both")
        if seed is not None and len(seed) != SEED_BYTES:
            raise LocalProtocolError(
                "COMPONENT_INVALID",
                "a seed has another length",
                expected=f"{SEED_BYTES} bytes",
                got=f"{len(seed)} bytes",
            )
        self._seed = seed
        self._explicit = None if explicit is None else check_ring(explicit).copy()
        if self._explicit is not None:
            self._explicit.flags.writeable = False

    @property
    def kind(self) -> str:
        """`seed` or `explicit`."""
        return "explicit" if self._seed is None else "seed"

    def body(self) -> bytes:
        """Return the bytes that travel and are committed to: the seed, or 8 little-endian bytes per lane."""
        if self._seed is not None:
            return self._seed
        assert self._explicit is not None  # noqa: S101 - one of the two is set by __init__
        return to_bytes(self._explicit)

    def expand(self, lanes: int) -> RingArray:
        """Return the component's vector; raises LocalProtocolError RING_LENGTH if it is explicit and of another length.

        The vector of an explicit component is read-only.
        """
        if self._seed is not None:
            return expand(self._seed, lanes, "component")
        return check_ring(self._explicit, lanes)

    @classmethod
    def from_body(cls, kind: str, body: bytes, lanes: int) -> Component:
        """Rebuild a component from its bytes; raises PeerProtocolError LENGTH_INVALID, LocalProtocolError COMPONENT_INVALID."""
        return cls(seed=body) if kind == "seed" else cls(explicit=from_bytes(body, lanes))

    def __repr__(self) -> str:
        return f"Component({self.kind}, <redacted>)"


@dataclass(frozen=True, slots=True)
class OwnerSharing:
    """All three components and their commitment salts. Exists only at the owner, in memory.

    A component covers the `lanes` ring values first, then the words of the units' tables, if any.
    """

    lanes: int
    components: tuple[Component, Component, Component]
    salts: tuple[bytes, bytes, bytes]
    units: UnitTables = NO_UNITS

    def __repr__(self) -> str:
        return f"OwnerSharing(lanes={self.lanes}, <redacted>)"


def held_by(party: int) -> tuple[int, int]:
    """Return the indices of the components that position `party` holds: (i, i+1 mod 3)."""
    if party not in (0, 1, 2):
        raise LocalProtocolError("PARTY_INVALID", "a position is 0, 1 or 2", got=party)
    return party, (party + 1) % 3


def share(
    values: RingArray, random_bytes: Callable[[int], bytes] = os.urandom, *, planes: Sequence[PlaneArray] = ()
) -> OwnerSharing:
    """Split a vector, and tables of bits that go with it, with fresh seeds and salts.

    Args:
        values: shape (n,), encoded values; split by addition.
        random_bytes: source of secret randomness; only test vectors pass another one.
        planes: one table for each slice, shape (width, words); split by XOR. The same seeds stretch over both.

    Two sharings of one vector have nothing in common: reusing seeds for a correction would reveal the difference.
    """
    lanes, units = len(check_ring(values)), tables_of(planes)
    seeds = (random_bytes(SEED_BYTES), random_bytes(SEED_BYTES))
    salts = (random_bytes(32), random_bytes(32), random_bytes(32))
    first, second = Component(seed=seeds[0]), Component(seed=seeds[1])
    rest = np.concatenate([values, *(table.reshape(-1) for table in planes)])
    for component in (first, second):
        stream = component.expand(len(rest))
        sub_into(rest[:lanes], stream[:lanes])
        rest[lanes:] ^= stream[lanes:]
    return OwnerSharing(lanes, (first, second, Component(explicit=rest)), salts, units)


def reconstruct(components: Sequence[Component], lanes: int) -> RingArray:
    """Add the three components. For the recipient and for tests; no operator ever holds all three."""
    if len(components) != 3:
        raise LocalProtocolError("COMPONENT_INVALID", "a sharing has three components", got=len(components))
    total = zeros(lanes)
    for component in components:
        add_into(total, component.expand(lanes))
    return total
