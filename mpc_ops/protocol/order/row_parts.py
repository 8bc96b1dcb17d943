"""One component of all rows of a table, as a shuffle moves it: masks, sums, permutations, messages. No message is sent here.

Boolean columns are planes, so that a message has exactly the rows' bits; values over Z_2^64 are words, and in an active session
words of Z_2^128, so that their tags have 64 bits of strength. Rows are moved in words, one gather for 64 planes or a column.

A permutation `order` puts row order[j] in place j. It comes from a seed that two parties hold: the order of n uniform 64-bit keys,
drawn again if two are equal. Given that all are different, every order is equally likely, so there is no bias at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.protocol.core.party import Body
from mpc_ops.protocol.core.rows import pick_planes, put_picked
from mpc_ops.protocol.order.place_runs import Places
from mpc_ops.randomness import expand
from mpc_ops.ring import LANE_BYTES, RingArray
from mpc_ops.ring.planes import MAX_WIDTH, PlaneArray, from_planes, words_for

__all__ = ["RowOrder", "RowParts", "RowShape", "random_order"]

RowOrder: TypeAlias = Places
Matrix: TypeAlias = NDArray[np.uint64]

_MAX_DRAWS = 64
_CHUNK = 1 << 16
_SORTED_KEYS = 1 << 18
_PART_BITS = 3


def random_order(seed: bytes, count: int) -> RowOrder:
    """Return a uniformly random permutation of `count` rows, at most 2^31, that follows from a seed.

    Raises:
        LocalProtocolError: STREAM_TOO_LONG if every draw has equal keys, which does not happen below 2^30 rows.
    """
    for draw in range(_MAX_DRAWS):
        keys = expand(seed, count, "permutation", draw)
        order = _sorted_order(keys)
        if not any(_repeats(keys[order[start : start + _CHUNK + 1]]) for start in range(0, count, _CHUNK)):
            return order
    raise LocalProtocolError("STREAM_TOO_LONG", "no permutation without equal keys was drawn")  # pragma: no cover


def _sorted_order(keys: RingArray) -> RowOrder:
    """Return the positions of keys in ascending order; many keys by parts of equal top bits, because the sort takes 16 bytes a key."""
    if len(keys) <= _SORTED_KEYS:
        return np.argsort(keys).astype(np.int32)
    out = np.empty(len(keys), dtype=np.int32)
    tops = np.empty(len(keys), dtype=np.uint8)
    for start in range(0, len(keys), _CHUNK):
        tops[start : start + _CHUNK] = keys[start : start + _CHUNK] >> np.uint64(64 - _PART_BITS)
    place = 0
    for top in range(1 << _PART_BITS):
        part = np.flatnonzero(tops == top).astype(np.int32)
        out[place : place + len(part)] = part[np.argsort(keys[part])]
        place += len(part)
    return out


def _repeats(ordered: RingArray) -> bool:
    return bool(np.any(ordered[1:] == ordered[:-1]))


@dataclass(frozen=True, slots=True)
class RowShape:
    """What is public of rows: sizes of messages and masks follow from it.

    Attributes:
        count: number of rows.
        width: bits of all Boolean columns together.
        tags: 64-bit words of GF(2) tags a row, 0 or 1.
        skips: for each ring column, how many of its lowest bytes are 0 in every component and are not sent.
        wide: ring columns are over Z_2^128.
    """

    count: int
    width: int
    tags: int
    skips: tuple[int, ...]
    wide: bool

    @property
    def words(self) -> int:
        """Words of one component."""
        ring = len(self.skips) * (2 if self.wide else 1)
        return self.width * words_for(self.count) + (self.tags + ring) * self.count

    @property
    def size(self) -> int:
        """Bytes of one component in a message."""
        ring = sum(LANE_BYTES - skip + (LANE_BYTES if self.wide else 0) for skip in self.skips)
        return LANE_BYTES * self.width * words_for(self.count) + (LANE_BYTES * self.tags + ring) * self.count

    def mask(self, seed: bytes, purpose: str) -> RowParts:
        """Return a uniformly random component of this shape from a seed."""
        flat = expand(seed, self.words, "mask", purpose)
        sizes = (self.width * words_for(self.count), self.tags * self.count, len(self.skips) * self.count)
        ends = np.cumsum(sizes)
        high = flat[ends[2] :] if self.wide else flat[:0]
        return self._parts(flat[: ends[0]], flat[ends[0] : ends[1]], flat[ends[1] : ends[2]], high)

    def read(self, body: Body) -> RowParts:
        """Return the component that a message holds; it may share the message's memory and is not to be changed.

        Raises:
            PeerProtocolError: LENGTH_INVALID.
        """
        if len(body) != self.size:
            raise PeerProtocolError(
                "LENGTH_INVALID", "wrong number of bytes", expected=f"{self.size} bytes", got=f"{len(body)} bytes"
            )
        raw = np.frombuffer(body, dtype=np.uint8)
        planes, place = _words(raw, 0, self.width * words_for(self.count))
        tags, place = _words(raw, place, self.tags * self.count)
        low = np.zeros((len(self.skips), self.count, LANE_BYTES), dtype=np.uint8)
        for column, skip in enumerate(self.skips):
            size = (LANE_BYTES - skip) * self.count
            low[column, :, skip:] = raw[place : place + size].reshape(self.count, LANE_BYTES - skip)
            place += size
        high, _ = _words(raw, place, len(self.skips) * self.count if self.wide else 0)
        return self._parts(planes, tags, low.view("<u8").astype(np.uint64, copy=False).reshape(-1), high)

    def _parts(self, planes: RingArray, tags: RingArray, low: RingArray, high: RingArray) -> RowParts:
        columns = len(self.skips)
        parts = RowParts(
            self,
            planes.reshape(self.width, words_for(self.count)),
            tags.reshape(self.tags, self.count),
            low.reshape(columns, self.count),
            high.reshape(columns if self.wide else 0, self.count),
        )
        for column, skip in enumerate(self.skips):
            if skip:
                parts.low[column] &= np.uint64((1 << 64) - (1 << 8 * skip))
        return parts


def _words(raw: NDArray[np.uint8], place: int, count: int) -> tuple[RingArray, int]:
    stop = place + LANE_BYTES * count
    words = raw[place:stop].view("<u8").astype(np.uint64, copy=False)
    return words if words.flags.aligned else words.copy(), stop


@dataclass(frozen=True, slots=True)
class RowParts:
    """One component of all rows; its printed form shows no content.

    Attributes:
        shape: the public shape.
        planes: (width, ceil(n/64)).
        tags: (tags, n).
        low, high: (ring columns, n): low + 2^64 high; `high` has no rows unless the shape is wide.
    """

    shape: RowShape
    planes: PlaneArray
    tags: Matrix
    low: Matrix
    high: Matrix

    def plus(self, other: RowParts) -> Self:
        """Return the sum: XOR of planes and tags, + of ring columns."""
        low = np.asarray(self.low + other.low)
        high = self.high
        if self.shape.wide:
            high = np.asarray(self.high + other.high)
            high += low < self.low
        return type(self)(self.shape, self.planes ^ other.planes, self.tags ^ other.tags, low, high)

    def add(self, other: RowParts) -> Self:
        """Add another component to this one, whose arrays are the caller's own, and return it."""
        self._mix(other)
        np.add(self.low, other.low, out=self.low)
        if self.shape.wide:
            np.add(self.high, other.high, out=self.high)
            np.add(self.high, self.low < other.low, out=self.high)
        return self

    def subtract(self, other: RowParts) -> Self:
        """Subtract another component from this one, whose arrays are the caller's own, and return it."""
        self._mix(other)
        if self.shape.wide:
            np.subtract(self.high, other.high, out=self.high)
            np.subtract(self.high, self.low < other.low, out=self.high)
        np.subtract(self.low, other.low, out=self.low)
        return self

    def _mix(self, other: RowParts) -> None:
        np.bitwise_xor(self.planes, other.planes, out=self.planes)
        np.bitwise_xor(self.tags, other.tags, out=self.tags)

    def minus(self, other: RowParts) -> Self:
        """Return the difference: XOR of planes and tags, - of ring columns."""
        high = self.high
        if self.shape.wide:
            high = np.asarray(self.high - other.high)
            high -= self.low < other.low
        low = np.asarray(self.low - other.low)
        return type(self)(self.shape, self.planes ^ other.planes, self.tags ^ other.tags, low, high)

    def permuted(self, order: RowOrder) -> Self:
        """Return the rows in another order."""
        return type(self)(
            self.shape,
            pick_planes(self.planes, self.shape.count, order),
            *(_gather(words, order) for words in (self.tags, self.low, self.high)),
        )

    def moved(self, order: RowOrder) -> Self:
        """Put the rows, whose arrays are the caller's own, in another order, and return them."""
        for low in range(0, self.shape.width, MAX_WIDTH):
            part = self.planes[low : low + MAX_WIDTH]
            put_picked(part, from_planes(part, self.shape.count), order)
        for words in (*self.tags, *self.low, *self.high):
            words[:] = np.take(words, order, mode="clip")
        return self

    def body(self) -> bytes:
        """Return the message of `shape.size` bytes."""
        out = [_bytes(self.planes), _bytes(self.tags)]
        for column, skip in enumerate(self.shape.skips):
            words = np.ascontiguousarray(self.low[column], dtype="<u8")
            out.append(words.view(np.uint8).reshape(-1, LANE_BYTES)[:, skip:].tobytes() if skip else words.tobytes())
        return b"".join([*out, _bytes(self.high)])

    def __repr__(self) -> str:
        return f"RowParts({self.shape.count} rows, <redacted>)"


def _bytes(words: NDArray[np.uint64]) -> bytes:
    return words.astype("<u8", copy=False).tobytes()


def _gather(words: Matrix, order: RowOrder) -> Matrix:
    out = np.empty_like(words)
    for row, column in zip(out, words, strict=True):
        # Mode `clip` spares numpy a second copy of what it takes; the positions are a permutation.
        np.take(column, order, out=row, mode="clip")
    return out
