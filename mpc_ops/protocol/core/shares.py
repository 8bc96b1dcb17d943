"""Share types of the two kinds of session. A share knows its position and session; mixing any two raises.

`BooleanShare` and `RingShare` belong to an active session: only local operations and the operations that log gates accept
them, and they are opened by mpc_ops.protocol.core.opening with a barrier's token. `PassiveBooleanShare` and `PassiveRingShare`
belong to a passive session; no operation leads from one kind to the other. Protocol code that serves both kinds of session
is written over the base classes `BooleanPlanes` and `RingVector`, and `check_owner` refuses the other kind's shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.core.stage import ActiveStage, ComputeStage, PassiveStage
from mpc_ops.ring import RingArray, add, check_ring, negate, sub, zeros
from mpc_ops.ring.planes import PlaneArray, check_planes, clear_tail
from mpc_ops.sharing import held_by

__all__ = [
    "B",
    "BooleanPlanes",
    "BooleanShare",
    "CounterShare",
    "CounterVector",
    "PassiveBooleanShare",
    "PassiveCounterShare",
    "PassiveRingShare",
    "R",
    "RingShare",
    "RingVector",
    "and_public",
    "boolean_of",
    "check_boolean",
    "check_counter",
    "check_owner",
    "check_ring_share",
    "concat",
    "counter_of",
    "derived",
    "invert",
    "pack_counters",
    "public_like",
    "rebuilt",
    "repeat_plane",
    "ring_of",
    "ring_zero",
    "unpack_counters",
    "xor",
    "xor_public",
]

B = TypeVar("B", bound="BooleanPlanes")
R = TypeVar("R", bound="RingVector")


@dataclass(frozen=True, slots=True)
class BooleanPlanes:
    """What a position holds of `count` values of `width` bits, shared by XOR: components `party` and `party + 1`.

    Use one of the two subclasses. Arrays are never changed after they are in a share.

    Attributes:
        session: session id that it belongs to.
        party: position.
        count: number of values.
        first: planes of component `party`, shape (width, ceil(count / 64)).
        second: planes of component `party + 1`.
    """

    session: str
    party: int
    count: int
    first: PlaneArray
    second: PlaneArray

    def __post_init__(self) -> None:
        held_by(self.party)
        if type(self) is BooleanPlanes:
            raise LocalProtocolError("SHARE_FOREIGN", "a share is active or passive")
        check_planes(self.second, check_planes(self.first, count=self.count).shape[0], self.count)

    @property
    def width(self) -> int:
        """Bits per value."""
        return int(self.first.shape[0])

    def __getitem__(self, planes: slice) -> Self:
        """Return some planes as a share, sharing memory; the step must be 1."""
        if planes.step not in (None, 1):
            raise LocalProtocolError("PLANES_INVALID", "planes are taken one after another", got=planes.step)
        return derived(self, self.first[planes], self.second[planes])

    def plane(self, bit: int) -> Self:
        """Return one plane as a share of width 1."""
        if not 0 <= bit < self.width:
            raise LocalProtocolError("PLANES_INVALID", "a plane is out of range", got=bit)
        return self[bit : bit + 1]

    def words(self) -> tuple[RingArray, RingArray]:
        """Return both components for an opening, flat and with a zero tail."""
        return clear_tail(self.first, self.count).reshape(-1), clear_tail(self.second, self.count).reshape(-1)

    def combine(self, third: RingArray) -> RingArray:
        """Return the value's planes, flat, from the component that this position lacks."""
        first, second = self.words()
        return np.asarray(first ^ second ^ third, dtype=np.uint64)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(party={self.party}, count={self.count}, width={self.width}, <redacted>)"


@dataclass(frozen=True, slots=True, repr=False)
class BooleanShare(BooleanPlanes):
    """A Boolean share of an active session."""


@dataclass(frozen=True, slots=True, repr=False)
class PassiveBooleanShare(BooleanPlanes):
    """A Boolean share of a passive session."""


@dataclass(frozen=True, slots=True)
class _Components:
    """What vectors over both rings have in common: session, position, and components `party` and `party + 1`, shape (n,)."""

    session: str
    party: int
    first: RingArray
    second: RingArray

    def __post_init__(self) -> None:
        held_by(self.party)
        if type(self) in {_Components, RingVector, CounterVector}:
            raise LocalProtocolError("SHARE_FOREIGN", "a share is active or passive")
        check_ring(self.second, len(check_ring(self.first)))

    @property
    def count(self) -> int:
        """Number of values."""
        return len(self.first)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(party={self.party}, count={self.count}, <redacted>)"


@dataclass(frozen=True, slots=True, repr=False)
class RingVector(_Components):
    """What a position holds of a vector over Z_2^64: components `party` and `party + 1`. Use one of the two subclasses.

    Attributes:
        session: session id that it belongs to.
        party: position.
        first: component `party`, shape (n,).
        second: component `party + 1`, shape (n,).
    """

    def words(self) -> tuple[RingArray, RingArray]:
        """Return both components for an opening."""
        return self.first, self.second

    def combine(self, third: RingArray) -> RingArray:
        """Return the value from the component that this position lacks."""
        return add(add(self.first, self.second), third)

    def __getitem__(self, lanes: slice) -> Self:
        """Return some lanes as a share, sharing memory."""
        return replace(self, first=self.first[lanes], second=self.second[lanes])

    def plus(self, other: Self) -> Self:
        """Return the share of x + y; no message."""
        _same(self, other)
        return replace(self, first=add(self.first, other.first), second=add(self.second, other.second))

    def minus(self, other: Self) -> Self:
        """Return the share of x - y; no message."""
        _same(self, other)
        return replace(self, first=sub(self.first, other.first), second=sub(self.second, other.second))

    def negated(self) -> Self:
        """Return the share of -x; no message."""
        return replace(self, first=negate(self.first), second=negate(self.second))

    def plus_public(self, values: RingArray) -> Self:
        """Return the share of x + c for a public vector c; no message (component 0 takes it)."""
        check_ring(values, self.count)
        first = add(self.first, values) if self.party == 0 else self.first
        second = add(self.second, values) if self.party == 2 else self.second
        return replace(self, first=first, second=second)


@dataclass(frozen=True, slots=True, repr=False)
class RingShare(RingVector):
    """A share over Z_2^64 of an active session."""


@dataclass(frozen=True, slots=True, repr=False)
class PassiveRingShare(RingVector):
    """A share over Z_2^64 of a passive session."""


_COUNTER_MASK = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True, repr=False)
class CounterVector(_Components):
    """What a position holds of a vector over Z_2^32: components `party` and `party + 1`. Use one of the two subclasses.

    Half the traffic of `RingVector`, for numbers that are known to be below 2^32: counts of rows.

    Attributes:
        session: session id that it belongs to.
        party: position.
        first: component `party`, shape (n,), uint64 words below 2^32.
        second: component `party + 1`.
    """

    def __post_init__(self) -> None:
        _Components.__post_init__(self)
        if bool(np.any((self.first | self.second) > _COUNTER_MASK)):
            raise LocalProtocolError("RING_TYPE", "a component of a counter is below 2^32")

    def words(self) -> tuple[RingArray, RingArray]:
        """Return both components for an opening, two values a word."""
        return pack_counters(self.first), pack_counters(self.second)

    def combine(self, third: RingArray) -> RingArray:
        """Return the value from the component that this position lacks, packed as in `words`."""
        return np.asarray((self.first + self.second + unpack_counters(third, self.count)) & _COUNTER_MASK)

    def of(self, first: RingArray, second: RingArray) -> Self:
        """Return a share of the same kind of other components mod 2^32."""
        return replace(self, first=first & _COUNTER_MASK, second=second & _COUNTER_MASK)

    def plus(self, other: Self) -> Self:
        """Return the share of x + y; no message."""
        _same(self, other)
        return self.of(self.first + other.first, self.second + other.second)

    def minus(self, other: Self) -> Self:
        """Return the share of x - y; no message."""
        _same(self, other)
        return self.of(self.first - other.first, self.second - other.second)

    def total(self) -> Self:
        """Return the share of the sum of all values, shape (1,); no message."""
        sums = (part.sum(dtype=np.uint64, keepdims=True) for part in (self.first, self.second))
        return self.of(*sums)


@dataclass(frozen=True, slots=True, repr=False)
class CounterShare(CounterVector):
    """A share over Z_2^32 of an active session."""


@dataclass(frozen=True, slots=True, repr=False)
class PassiveCounterShare(CounterVector):
    """A share over Z_2^32 of a passive session."""


def pack_counters(values: RingArray) -> RingArray:
    """Return words below 2^32 as two a word, the last word padded with zeros."""
    out = np.zeros(len(values) + len(values) % 2, dtype="<u4")
    out[: len(values)] = values
    return out.view("<u8").astype(np.uint64, copy=False)


def unpack_counters(words: RingArray, count: int) -> RingArray:
    """Return `count` values of packed words."""
    return words.astype("<u8", copy=False).view("<u4")[:count].astype(np.uint64)


def _same(left: BooleanPlanes | RingVector | CounterVector, right: BooleanPlanes | RingVector | CounterVector) -> None:
    if type(left) is not type(right) or (left.session, left.party) != (right.session, right.party):
        raise LocalProtocolError("SHARE_FOREIGN", "shares of different kinds, sessions or positions were mixed")
    if left.count != right.count:
        raise LocalProtocolError("PLANES_INVALID", "shares of different lengths", expected=left.count, got=right.count)


def check_owner(stage: ComputeStage, share: object) -> None:
    """Refuse a share that does not belong to this kind of stage, session and position.

    Raises:
        LocalProtocolError: SHARE_FOREIGN.
    """
    wanted: tuple[type, ...] = ()
    if isinstance(stage, ActiveStage):
        wanted = (BooleanShare, RingShare, CounterShare)
    elif isinstance(stage, PassiveStage):
        wanted = (PassiveBooleanShare, PassiveRingShare, PassiveCounterShare)
    if (
        type(share) not in wanted
        or not isinstance(share, BooleanPlanes | RingVector | CounterVector)
        or (share.session, share.party) != (stage.terms.sid, stage.party)
    ):
        raise LocalProtocolError("SHARE_FOREIGN", "a share of another kind, session or position", ids=stage.ids())


def check_boolean(stage: ComputeStage, share: object) -> None:
    """Refuse what is not a Boolean share of this kind of stage, session and position; raises as `check_owner` does."""
    if not isinstance(share, BooleanPlanes):
        raise LocalProtocolError("SHARE_FOREIGN", "a Boolean operation takes Boolean shares", ids=stage.ids())
    check_owner(stage, share)


def check_ring_share(stage: ComputeStage, share: object) -> None:
    """Refuse what is not a share over Z_2^64 of this kind of stage, session and position; raises as `check_owner` does."""
    if not isinstance(share, RingVector):
        raise LocalProtocolError("SHARE_FOREIGN", "a share over Z_2^64 is wanted", ids=stage.ids())
    check_owner(stage, share)


def check_counter(stage: ComputeStage, share: object) -> None:
    """Refuse what is not a share over Z_2^32 of this kind of stage, session and position; raises as `check_owner` does."""
    if not isinstance(share, CounterVector):
        raise LocalProtocolError("SHARE_FOREIGN", "a share over Z_2^32 is wanted", ids=stage.ids())
    check_owner(stage, share)


def counter_of(stage: ComputeStage, first: RingArray, second: RingArray) -> CounterVector:
    """Return a share over Z_2^32 of the stage's kind; words are taken mod 2^32."""
    session, party, active = _kind(stage)
    kind = CounterShare if active else PassiveCounterShare
    return kind(session, party, first & _COUNTER_MASK, second & _COUNTER_MASK)


def boolean_of(stage: ComputeStage | RingVector, count: int, first: PlaneArray, second: PlaneArray) -> BooleanPlanes:
    """Return a Boolean share of the kind that the stage, or another share of the session, belongs to."""
    session, party, active = _kind(stage)
    return (BooleanShare if active else PassiveBooleanShare)(session, party, count, first, second)


def ring_of(stage: ComputeStage | BooleanPlanes, first: RingArray, second: RingArray) -> RingVector:
    """Return a share over Z_2^64 of the kind that the stage, or another share of the session, belongs to."""
    session, party, active = _kind(stage)
    return (RingShare if active else PassiveRingShare)(session, party, first, second)


def _kind(source: ComputeStage | BooleanPlanes | RingVector) -> tuple[str, int, bool]:
    """Return session, position and whether the kind is active; every other type counts as passive and is refused later."""
    if isinstance(source, BooleanPlanes | RingVector):
        return source.session, source.party, isinstance(source, BooleanShare | RingShare)
    return source.terms.sid, source.party, isinstance(source, ActiveStage)


def xor(left: B, right: B) -> B:
    """Return the share of x ^ y (same width); no message."""
    _same(left, right)
    if left.width != right.width:
        raise LocalProtocolError("PLANES_INVALID", "shares of different widths", expected=left.width, got=right.width)
    return derived(left, left.first ^ right.first, left.second ^ right.second)


def xor_public(share: B, planes: PlaneArray) -> B:
    """Return the share of x ^ c for public planes c; no message (component 0 takes it)."""
    check_planes(planes, share.width, share.count)
    first = share.first ^ planes if share.party == 0 else share.first
    second = share.second ^ planes if share.party == 2 else share.second
    return derived(share, first, second)


def and_public(share: B, planes: PlaneArray) -> B:
    """Return the share of x & c for public planes c; no message (linear: every component is masked)."""
    check_planes(planes, share.width, share.count)
    return derived(share, share.first & planes, share.second & planes)


def derived(share: B, first: PlaneArray, second: PlaneArray) -> B:
    """Return a share of the same kind, session, position and number of values with planes that were made from its own.

    Circuits make thousands of them; nothing is checked again, so callers pass what keeps rows contiguous and words in number:
    whole planes and what numpy computes from them.
    """
    out = object.__new__(type(share))
    for name, value in (
        ("session", share.session),
        ("party", share.party),
        ("count", share.count),
        ("first", first),
        ("second", second),
    ):
        object.__setattr__(out, name, value)
    return out


def rebuilt(share: B, first: PlaneArray, second: PlaneArray) -> B:
    """Return a share of the same kind, session, position and number of values with other planes."""
    return replace(share, first=first, second=second)


def repeat_plane(bit: B, width: int) -> B:
    """Return a share whose `width` planes are all the one plane of `bit`; no message."""
    if bit.width != 1:
        raise LocalProtocolError("PLANES_INVALID", "a condition has one bit", expected=1, got=bit.width)
    return derived(bit, np.repeat(bit.first, width, axis=0), np.repeat(bit.second, width, axis=0))


def invert(share: B) -> B:
    """Return the share of NOT x; no message."""
    first = ~share.first if share.party == 0 else share.first
    second = ~share.second if share.party == 2 else share.second
    return derived(share, first, second)


def public_like(share: B, planes: PlaneArray) -> B:
    """Return a share of public planes for as many values as `share` has; no message."""
    empty = np.zeros(check_planes(planes, count=share.count).shape, dtype=np.uint64)
    return xor_public(replace(share, first=empty, second=empty), planes)


def concat(parts: Sequence[B]) -> B:
    """Return all planes of several shares as one share, the first part lowest; no message."""
    if not parts:
        raise LocalProtocolError("PLANES_INVALID", "nothing to put together")
    for part in parts[1:]:
        _same(parts[0], part)
    return replace(
        parts[0],
        first=np.concatenate([part.first for part in parts]),
        second=np.concatenate([part.second for part in parts]),
    )


def ring_zero(stage: ComputeStage, count: int) -> RingVector:
    """Return the share of the public vector 0, of the stage's kind."""
    return ring_of(stage, zeros(count), zeros(count))
