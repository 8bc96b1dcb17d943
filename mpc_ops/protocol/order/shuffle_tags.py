"""Tags that catch any change of a row during a shuffle, and the one opening without ACCEPT: that of a tag key.

Boolean columns (w bits together): the key is a secret 64 x w bit matrix K, the tag of a row is K row over GF(2). Ring columns: each
component is lifted unchanged to Z_2^128 (the value becomes x plus some multiple of 2^64, which is dropped afterwards), the key of
column j is the sum of three 64-bit numbers, and the tag is the sum of key_j x_j mod 2^128. Keys are random and shared: component c is
F(k_c). Computing the tags is one product; an error in it makes tags wrong and can only end the session, so it is not proven.

A shuffle keeps rows and tags together. T(row) = K row - tag is linear, so the rows' shares before and after each message have T that
adds up to 0. The parties that hold the two sides of such a sum compare it once the key is known:

    positions 0 and 2: X1 with Y1; positions 1 and 2: X2 with Y2; position 0 with 1 and with 2: A~ + B~ with C~

The comparison is part of the stage's PROVE: FLUSH first, so every message of the shuffle has arrived, then the key (value and keyed
digest in one round), then the HMACs of T under the pairs' keys. One key serves one shuffle.

Rounds of a batch: 3, FLUSH included, shared with the proofs'. Sent per party: 8 (w + m) a shuffle (w bits, m ring columns), and 32 + 64.
Security: a changed row passes with probability at most 2^-64 (docs/soundness.md). Leaks: nothing; the key is independent of all data.
Source: Araki et al. CCS'21 (tags and pairs); matrix keys and the lift are rearrangements made here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mpc_ops.errors import Abort, LocalProtocolError
from mpc_ops.kernels import calls, compiled
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.stage import ActiveStage, GateLog
from mpc_ops.protocol.order.row_parts import RowOrder, RowParts, RowShape
from mpc_ops.randomness import encode_context
from mpc_ops.ring import LANE_BYTES, RingArray, from_bytes, to_bytes, wide
from mpc_ops.ring.planes import MAX_WIDTH, WORD_BITS, PlaneArray, from_planes, words_for
from mpc_ops.ring.wide import WIDE_BYTES, Wide

__all__ = ["TagCheck", "TagKey", "TagLog", "add_tags", "matrix_tags", "open_tag_keys"]

_MAC_BYTES = 32
_CHUNK = 1 << 15


class TagKey:
    """A shared random key of one shuffle: `width` columns of the bit matrix and `ring` numbers of 64 bits."""

    __slots__ = ("first", "ring", "second", "spent", "stage", "width")

    def __init__(self, stage: ActiveStage, width: int, ring: int) -> None:
        self.stage, self.width, self.ring = stage, width, ring
        self.first, self.second = stage.streams("tag-key", width + ring)
        self.spent = False

    def __repr__(self) -> str:
        return "TagKey(<redacted>)"


@dataclass(frozen=True, slots=True)
class OpenKey:
    """An opened key: columns of the bit matrix, and the numbers of the ring columns mod 2^128."""

    matrix: RingArray
    numbers: Wide


@dataclass(frozen=True, slots=True)
class TagCheck:
    """One side of a sum that must be 0.

    Attributes:
        peer: position of the party that has the other side.
        parts: components that are added up first.
        order: permutation of the result, if any.
        negative: whether this side is negated.
    """

    peer: int
    parts: tuple[RowParts, ...]
    order: RowOrder | None = None
    negative: bool = False


def matrix_tags(planes: PlaneArray, count: int, key: RingArray) -> RingArray:
    """Return K row over GF(2) for each of `count` rows, shape (n,).

    Tag plane t is the XOR of the planes whose column of K has bit t. Shares and the key choose masks only, never places in memory.

    Args:
        planes: shape (w, ceil(n/64)).
        count: number of rows.
        key: shape (w,); word b is column b of K.
    """
    out = np.zeros(count, dtype=np.uint64)
    if compiled():
        for low in range(0, len(planes), MAX_WIDTH):
            part = np.ascontiguousarray(planes[low : low + MAX_WIDTH])
            calls.row_tags(part, np.ascontiguousarray(key[low : low + MAX_WIDTH]), out)
        return out
    chosen = [np.uint64(0) - (key >> np.uint64(bit) & np.uint64(1)) for bit in range(WORD_BITS)]
    for start in range(0, count, _CHUNK):
        rows = min(_CHUNK, count - start)
        part = planes[:, start // WORD_BITS : words_for(start + rows)]
        tags = np.stack([np.bitwise_xor.reduce(part & mask[:, np.newaxis], axis=0) for mask in chosen])
        out[start : start + rows] = from_planes(tags, rows)
    return out


def add_tags(
    stage: ActiveStage, shape: RowShape, first: RowParts, second: RowParts
) -> Steps[tuple[TagKey, RowShape, RowParts, RowParts]]:
    """Return a fresh key and both components of the rows with their tags, over Z_2^128 where they are ring columns.

    Args:
        stage: computing.
        shape: of the rows without tags.
        first: component `party`, without tags.
        second: component `party + 1`.

    Rounds: 1.  Sent: 8 n bytes per party if there are Boolean columns, and 16 n if there are ring columns.
    Security: see the module.  Leaks: nothing.
    """
    ring = len(shape.skips)
    key = TagKey(stage, shape.width, ring)
    tagged = RowShape(shape.count, shape.width, int(shape.width > 0), (*shape.skips, *[0] * bool(ring)), wide=ring > 0)
    bits, numbers = _bit_tags(stage, key, first, second), _ring_tags(stage, key, first, second)
    size = LANE_BYTES * len(bits) + WIDE_BYTES * len(numbers)
    inbound = yield from stage.exchange(
        "shuffle-tags", to_prev=to_bytes(bits) + wide.to_bytes(numbers), expect_next=size
    )
    split = LANE_BYTES * len(bits)
    others = from_bytes(inbound.from_next[:split], len(bits))
    more = wide.from_bytes(bytes(inbound.from_next[split:]), len(numbers))
    return key, tagged, _with_tags(tagged, first, bits, numbers), _with_tags(tagged, second, others, more)


def _bit_tags(stage: ActiveStage, key: TagKey, first: RowParts, second: RowParts) -> RingArray:
    """Return the own part of K row over GF(2), masked."""
    count = first.shape.count if key.width else 0
    masks = stage.streams("tags", count)
    if not count:
        return masks[0]
    own, following = key.first[: key.width], key.second[: key.width]
    out = matrix_tags(first.planes, count, own ^ following)
    out ^= matrix_tags(second.planes, count, own)
    out ^= masks[0]
    out ^= masks[1]
    return out


def _ring_tags(stage: ActiveStage, key: TagKey, first: RowParts, second: RowParts) -> Wide:
    """Return the own part of the sum of key_j x_j mod 2^128, masked."""
    count = first.shape.count if key.ring else 0
    masks = [Wide(words[:count], words[count:]) for words in stage.streams("ring-tags", 2 * count)]
    out = wide.sub(*masks)
    for column in range(key.ring):
        own, following = (words[key.width + column] for words in (key.first, key.second))
        for x, factor in ((first, own), (second, own), (first, following)):
            out = wide.add(out, wide.mul_words(x.low[column], factor))
    return out


def _with_tags(shape: RowShape, parts: RowParts, bits: RingArray, numbers: Wide) -> RowParts:
    ring = bool(shape.skips)
    low = np.concatenate([parts.low, numbers.low[np.newaxis]]) if ring else parts.low
    high = np.concatenate([np.zeros_like(parts.low), numbers.high[np.newaxis]]) if ring else parts.high
    return RowParts(shape, parts.planes, bits.reshape(shape.tags, shape.count), low, high)


def open_tag_keys(stage: ActiveStage, batch: int, keys: Sequence[TagKey]) -> Steps[list[OpenKey]]:
    """Open tag keys: the only opening that needs FLUSHED and not ACCEPT, because a key is random, of one use, and of no value.

    Rounds: 1.  Sent: 8 (w + m) a key and 32.  Security: every component comes from one holder and its keyed digest from the other.

    Raises:
        LocalProtocolError: TAG_KEY_ORDER before FLUSHED from both others, for a key of another stage or one that was opened.
        Abort: TAG_KEY_MISMATCH, naming the pair that holds the component.
    """
    stage.behind_flush(batch)
    for key in keys:
        if type(key) is not TagKey or key.stage is not stage or key.spent:
            raise LocalProtocolError("TAG_KEY_ORDER", "a tag key serves one shuffle of its stage", ids=stage.ids())
        key.spent = True
    party, before, after = stage.party, (stage.party - 1) % 3, (stage.party + 1) % 3
    first = to_bytes(np.concatenate([key.first for key in keys]))
    second = to_bytes(np.concatenate([key.second for key in keys]))
    inbound = yield from stage.exchange(
        f"tag-key{batch}",
        to_next=first,
        to_prev=stage.mac(before, "tag-key", batch, party, hashlib.sha256(second).digest()),
        expect_prev=len(first),
        expect_next=_MAC_BYTES,
    )
    vouched = stage.mac(after, "tag-key", batch, after, hashlib.sha256(inbound.from_prev).digest())
    if not hmac.compare_digest(vouched, inbound.from_next):
        raise Abort(
            "TAG_KEY_MISMATCH",
            "the two holders of a tag key's component opened different ones",
            ids={**stage.ids(), "component": (party + 2) % 3, "pair": stage.pair(before, after)},
            hint="One of the two altered it; nothing that depends on the shuffle was opened",
        )
    third = from_bytes(inbound.from_prev, len(first) // LANE_BYTES)
    out, place = [], 0
    for key in keys:
        out.append(_combined(key, third[place : place + len(key.first)]))
        place += len(key.first)
    return out


def _combined(key: TagKey, third: RingArray) -> OpenKey:
    bits = slice(0, key.width)
    numbers = [wide.from_words(words[key.width :]) for words in (key.first, key.second, third)]
    return OpenKey(
        key.first[bits] ^ key.second[bits] ^ third[bits], wide.add(wide.add(numbers[0], numbers[1]), numbers[2])
    )


class TagLog(GateLog):
    """Shuffles of a stage whose tags are still to be compared."""

    kind: ClassVar[str] = "tags"

    def __init__(self, stage: ActiveStage) -> None:
        super().__init__(stage)
        self._pieces: list[tuple[TagKey, Sequence[TagCheck]]] = []
        self._bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of the rows that are kept for the comparison."""
        return self._bytes

    def append(self, key: TagKey, checks: Sequence[TagCheck]) -> None:
        """Log one shuffle: the same key and corresponding checks at all three parties."""
        self.stage.computing()
        self._pieces.append((key, checks))
        # The same number at all three parties, so that batches end at the same place: at most three components are kept.
        self._bytes += 3 * LANE_BYTES * max(1, checks[0].parts[0].shape.words)

    def prove(self, batch: int) -> Steps[None]:
        """Open the keys of all pending shuffles and compare tags with both others; see the module.

        Raises:
            Abort: TAG_KEY_MISMATCH; TAG_MISMATCH naming who compared (`compared`), which blames nobody.
        """
        pieces, self._pieces, self._bytes = self._pieces, [], 0
        # The first round is FLUSH's.
        yield ()
        keys = yield from open_tag_keys(self.stage, batch, [key for key, _ in pieces])
        stage, before, after = self.stage, (self.stage.party - 1) % 3, (self.stage.party + 1) % 3
        sums = {peer: self._sums(peer, pieces, keys) for peer in (before, after)}
        own = {peer: stage.mac(peer, "tags", batch, stage.party, sums[peer]) for peer in sums}
        inbound = yield from stage.exchange(
            f"tag-sums{batch}", to_prev=own[before], to_next=own[after], expect_prev=_MAC_BYTES, expect_next=_MAC_BYTES
        )
        for peer, said in ((before, inbound.from_prev), (after, inbound.from_next)):
            if not hmac.compare_digest(said, stage.mac(peer, "tags", batch, peer, sums[peer])):
                raise Abort(
                    "TAG_MISMATCH",
                    "rows were altered while they were shuffled",
                    ids={**stage.ids(), "batch": batch, "compared": stage.pair(stage.party, peer)},
                    hint="One of the three operators altered a message; nothing that depends on the shuffle was opened",
                )

    def _sums(self, peer: int, pieces: Sequence[tuple[TagKey, Sequence[TagCheck]]], keys: Sequence[OpenKey]) -> bytes:
        """Return the digest of T of everything that is compared with one peer."""
        digest = hashlib.sha256(encode_context("tags", len(pieces)))
        for (_, checks), key in zip(pieces, keys, strict=True):
            for check in checks:
                if check.peer == peer:
                    _digest_check(digest, check, key)
        return digest.digest()

    def wipe(self) -> None:
        """Forget all shuffles."""
        self._pieces.clear()
        self._bytes = 0


def _digest_check(digest: hashlib._Hash, check: TagCheck, key: OpenKey) -> None:
    parts = check.parts[0]
    for more in check.parts[1:]:
        parts = parts.plus(more)
    shape = parts.shape
    columns = []
    if shape.tags:
        columns.append(matrix_tags(parts.planes, shape.count, key.matrix) ^ parts.tags[0])
    if shape.skips:
        total = wide.negate(Wide(parts.low[-1], parts.high[-1]))
        for column in range(len(shape.skips) - 1):
            total = wide.add(
                total, wide.mul(Wide(parts.low[column], parts.high[column]), key.numbers[column : column + 1])
            )
        if check.negative:
            total = wide.negate(total)
        columns += [total.low, total.high]
    digest.update(encode_context(shape.count, len(columns)))
    for words in columns:
        digest.update(to_bytes(words if check.order is None else words.take(check.order)))
