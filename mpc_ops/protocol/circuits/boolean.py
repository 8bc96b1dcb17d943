"""AND, mux and random bits on Boolean shares, and circuits whose independent ANDs share one message per step.

A `Circuit` is a generator: it yields a list of the pairs of shares that it wants ANDed in this step and gets the products back;
XOR, NOT and public constants are local (mpc_ops.protocol.core.shares). The list is emptied, so that large operands live no
longer than the circuit needs them. `evaluate` runs any number of circuits side by side: all ANDs
of a step travel in one message, however many circuits there are.

z_i = x_i & (y_i ^ y_{i+1}) ^ x_{i+1} & y_i ^ F(k_i) ^ F(k_{i+1}); P_i sends z_i to P_{i-1}. Rounds: 1 per step. Bytes per party:
8 per gate word, that is ceil(n/64) x 8 for each plane of n values. Every message is masked by a stream that its receiver
lacks, which is why its proof may be postponed to the stage's barrier. Security: malicious with abort in an active stage
(recipe A, mpc_ops.protocol.proofs.proof_and), semi-honest in a passive one. Leakage: shapes.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.kernels import calls, compiled
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.shares import (
    B,
    BooleanPlanes,
    boolean_of,
    check_boolean,
    derived,
    repeat_plane,
    xor,
)
from mpc_ops.protocol.core.stage import ActiveStage, ComputeStage
from mpc_ops.protocol.proofs.and_kernels import Components
from mpc_ops.protocol.proofs.proof_and import AndLog
from mpc_ops.ring import LANE_BYTES, RingArray, as_body, from_body
from mpc_ops.ring.planes import PlaneArray, words_for

__all__ = ["Circuit", "and_many", "evaluate", "mux", "random_boolean"]

T = TypeVar("T")

Circuit: TypeAlias = Generator[list[tuple[B, B]], Sequence[B], T]
"""A circuit on shares of type B that ends with a T."""

_CHUNK_WORDS = 8192
_NOTHING: PlaneArray = np.empty((0, 0), dtype=np.uint64)
_LARGE_WORDS = 4096
"""Words of a pair from which on joining several in one vector would cost more than a call for each."""


def and_many(stage: ComputeStage, step: str, pairs: Sequence[tuple[B, B]]) -> Steps[list[B]]:
    """Return x & y for each pair, all in one message; pairs may differ in width and number of values.

    Args:
        stage: active or passive; an active one logs the gates and may prove a batch.
        step: name of the step in the messages' addresses.
        pairs: shares of equal shape within a pair.

    Rounds: 1, none if there is no gate; in an active stage also those of a batch that reached the limit.
    Bytes per party: 8 x sum of width x ceil(n/64). Security, leakage: see the module.

    Raises:
        LocalProtocolError: SHARE_FOREIGN, PLANES_INVALID, STAGE_ORDER.
        PeerProtocolError: LENGTH_INVALID.
    """
    result = yield from _and_taken(stage, step, list(pairs))
    return result


def _and_taken(stage: ComputeStage, step: str, pairs: list[tuple[B, B]]) -> Steps[list[B]]:
    """AND as `and_many`; the list is emptied."""
    stage.computing()
    for left, right in pairs:
        check_boolean(stage, left)
        check_boolean(stage, right)
        if left.first.shape != right.first.shape or left.count != right.count:
            raise LocalProtocolError("PLANES_INVALID", "shares of different shapes cannot be ANDed", ids=stage.ids())
    words = sum(left.first.size for left, _ in pairs)
    if words == 0:
        return [left for left, _ in pairs]
    shapes = [(derived(left, _NOTHING, _NOTHING), left.first.shape) for left, _ in pairs]
    operands = _operands(pairs, words)
    pairs.clear()
    del left, right
    masks = stage.streams("and", words)
    own = np.empty(words, dtype=np.uint64)
    for part, x, y in operands:
        _products(x, y, (masks[0][part], masks[1][part]), own[part])
    if not isinstance(stage, ActiveStage):
        # Nothing is proven: what only a log needs does not wait for the message.
        del operands, masks, x, y
    inbound = yield from stage.exchange(step, to_prev=as_body(own), expect_next=words * LANE_BYTES)
    z = (own, from_body(inbound.from_next, words))
    if isinstance(stage, ActiveStage):
        log = stage.log(AndLog)
        for part, x, y in operands:
            log.add(x, y, (z[0][part], z[1][part]), (masks[0][part], masks[1][part]))
        # Proofs take as much memory as operands: what is not needed any more goes first.
        del operands, masks, x, y
        yield from stage.settle()
    return _cut(shapes, z)


def _operands(
    pairs: Sequence[tuple[BooleanPlanes, BooleanPlanes]], words: int
) -> list[tuple[slice, Components, Components]]:
    """Return both operands' components in words, and where they stand in the message: large ones as they are, small ones joined."""
    if words < _LARGE_WORDS * len(pairs):
        x = (_flat([left.first for left, _ in pairs]), _flat([left.second for left, _ in pairs]))
        y = (_flat([right.first for _, right in pairs]), _flat([right.second for _, right in pairs]))
        return [(slice(0, words), x, y)]
    out, place = [], 0
    for left, right in pairs:
        size = left.first.size
        x, y = ((share.first.reshape(-1), share.second.reshape(-1)) for share in (left, right))
        out.append((slice(place, place + size), x, y))
        place += size
    return out


def _flat(planes: Sequence[Any]) -> RingArray:
    if not planes:
        return np.zeros(0, dtype=np.uint64)
    return planes[0].reshape(-1) if len(planes) == 1 else np.concatenate([part.reshape(-1) for part in planes])


def _products(x: Components, y: Components, masks: Components, out: RingArray) -> None:
    """Write z_i, in blocks that stay in the cache."""
    if compiled():
        calls.and_words(x, y, masks, out)
        return
    for start in range(0, len(out), _CHUNK_WORDS):
        part = slice(start, start + _CHUNK_WORDS)
        z = y[0][part] ^ y[1][part]
        z &= x[0][part]
        z ^= x[1][part] & y[0][part]
        z ^= masks[0][part]
        z ^= masks[1][part]
        out[part] = z


def _cut(shapes: Sequence[tuple[B, tuple[int, ...]]], z: tuple[RingArray, RingArray]) -> list[B]:
    out, place = [], 0
    for like, shape in shapes:
        size = math.prod(shape)
        first, second = (part[place : place + size].reshape(shape) for part in z)
        out.append(derived(like, first, second))
        place += size
    return out


def evaluate(stage: ComputeStage, step: str, circuits: Sequence[Circuit[B, T]]) -> Steps[list[T]]:
    """Run circuits side by side and return their results in order.

    Rounds: the depth of the deepest circuit; a step in which no circuit has a gate is no round. Bytes per party: 8 per gate word of
    all circuits, so 8 ceil(n/64) for each AND a value of n values. Security, leakage, errors: as `and_many`.
    """
    results: dict[int, T] = {}
    pairs: list[tuple[B, B]] = []
    waiting = [(place, _step(place, circuit, None, pairs, results)) for place, circuit in enumerate(circuits)]
    depth = 0
    while len(results) < len(circuits):
        products = yield from _and_taken(stage, f"{step}/{depth}", pairs)
        pairs, following = [], []
        start = 0
        for place, count in waiting:
            if place not in results:
                mine = products[start : start + count]
                following.append((place, _step(place, circuits[place], mine, pairs, results)))
            start += count
        waiting = following
        # Results may be large; circuits keep what they still need.
        del products, mine
        depth += 1
    return [results[place] for place in range(len(circuits))]


def _step(
    place: int,
    circuit: Circuit[B, T],
    products: Sequence[B] | None,
    pairs: list[tuple[B, B]],
    results: dict[int, T],
) -> int:
    """Advance one circuit: take over what it wants next and return how many pairs that is, or note its result."""
    try:
        wanted = next(circuit) if products is None else circuit.send(products)
    except StopIteration as stop:
        results[place] = stop.value
        return 0
    count = len(wanted)
    pairs += wanted
    wanted.clear()
    return count


def mux(bit: B, when_one: B, when_zero: B) -> Circuit[B, B]:
    """Return `when_one` where the bit is 1, else `when_zero`: z = y ^ (b & (x ^ y)).

    ANDs per value: the width; depth 1.
    """
    difference = xor(when_one, when_zero)
    (chosen,) = yield [(repeat_plane(bit, difference.width), difference)]
    return xor(chosen, when_zero)


def random_boolean(stage: ComputeStage, count: int, width: int) -> BooleanPlanes:
    """Return a share of uniformly random values that no party knows: component c is F(k_c). No message."""
    first, second = (part.reshape(width, -1) for part in stage.streams("random", width * words_for(count)))
    return boolean_of(stage, count, first, second)
