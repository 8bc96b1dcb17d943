"""Comparisons as circuits: carry-only trees on the narrowest width, most significant bit and bits of an arithmetic share.

A carry out of w bits is a tree over (generate, propagate) pairs; the pair that holds the lowest bit needs no propagate, so a
tree over w bits takes 2 (w - 1) - ceil(log2 w) ANDs and ceil(log2 w) steps, and only the top carry is computed.

| circuit | ANDs per value | depth | w = 16 | 32 | 48 | 64 |
|---|---|---|---|---|---|---|
| x < y, x <= y | 3 w - 2 - ceil(log2 w) | 1 + ceil(log2 w) | 42 | 89 | 136 | 184 |
| x < c, x <= c, x > c, x >= c (c public) | 2 w - 2 - ceil(log2 w) | ceil(log2 w) | 26 | 57 | 88 | 120 |
| x = y, x = c | w - 1 | ceil(log2 w) | 15 | 31 | 47 | 63 |
| bit w - 1 of an arithmetic share (w >= 3) | 4 w - 9 - ceil(log2 (w - 2)) | 2 + ceil(log2 (w - 2)) | 51 | 114 | 177 | 241 |
| arithmetic share = 0 (w >= 3) | 3 w - 4 | 2 + ceil(log2 w) | 44 | 92 | 140 | 188 |
| all carries out of w bits | p(w) | ceil(log2 w) | 49 | 129 | 209 | 321 |
| lowest w bits of an arithmetic share (w >= 3) | 2 w - 3 + p(w - 2) | 2 + ceil(log2 (w - 2)) | 66 | 174 | 286 | 426 |

p(w), the nodes of a prefix tree: for s = 1, 2, 4, ... below w, the number of planes whose number has the bit s, and of those from 2 s on
again.

Each AND costs 1 bit per party (8 bytes per 64 values). Rounds: the depth. Security and leakage: those of AND.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import Circuit
from mpc_ops.protocol.core.shares import (
    B,
    BooleanPlanes,
    RingVector,
    and_public,
    boolean_of,
    concat,
    invert,
    xor,
    xor_public,
)
from mpc_ops.ring.planes import PlaneArray, check_planes, public_planes, to_planes

__all__ = [
    "arithmetic_bits",
    "carries_out",
    "carry_out",
    "component_bits",
    "difference",
    "equal",
    "equal_public",
    "flip_sign",
    "greater_equal_public",
    "greater_public",
    "is_zero",
    "less",
    "less_equal",
    "less_equal_public",
    "less_public",
    "most_significant_bit",
    "negative",
    "wraps",
]


def _check_pair(x: B, y: B) -> None:
    if x.width != y.width or x.count != y.count or x.width < 1:
        raise LocalProtocolError("PLANES_INVALID", "only shares of one shape, at least one bit wide, can be compared")


def carry_out(generate: B, propagate: B) -> Circuit[B, B]:
    """Return the carry out of all planes (width 1): a tree that pairs neighbours, lowest planes first.

    A plane generates a carry or hands one on, never both. ANDs per value: 2 (w - 1) - ceil(log2 w); depth ceil(log2 w).
    """
    nodes = _nodes(generate, propagate)
    del generate, propagate
    result = yield from _tree(nodes)
    return result


Node: TypeAlias = tuple[B, B | None]
"""Generate and propagate of some planes; the lowest node has no propagate."""


def _nodes(generate: B, propagate: B) -> list[Node[B]]:
    return [(generate.plane(bit), propagate.plane(bit) if bit else None) for bit in range(generate.width)]


def _tree(nodes: list[Node[B]]) -> Circuit[B, B]:
    """Return the carry of nodes; the list is emptied as they are used, so that the planes of a level go with it."""
    while len(nodes) > 1:
        pairs = [(nodes[place], nodes[place + 1]) for place in range(0, len(nodes) - 1, 2)]
        rest = nodes[2 * len(pairs) :]
        nodes.clear()
        wanted = [(_present(high[1]), low[0]) for low, high in pairs]
        wanted += [(_present(high[1]), _present(low[1])) for low, high in pairs[1:]]
        generates = [high[0] for _, high in pairs]
        del pairs
        products = yield wanted
        for place, generate in enumerate(generates):
            span = products[len(generates) + place - 1] if place else None
            nodes.append((xor(generate, products[place]), span))
        nodes += rest
        del products, rest, generates, generate, span
    return nodes[0][0]


def _present(share: B | None) -> B:
    if share is None:  # pragma: no cover - only the lowest node has no propagate, and it is never a high one
        raise LocalProtocolError("PLANES_INVALID", "a propagate is missing")
    return share


def less(x: B, y: B) -> Circuit[B, B]:
    """Return x < y as a share of width 1, unsigned: the borrow of x - y.

    ANDs per value: 3 w - 2 - ceil(log2 w); depth 1 + ceil(log2 w).
    """
    _check_pair(x, y)
    adding = _sum_carry(invert(x), y)
    # Sorts compare millions of values at a time: what the next step does not need goes before it, here and below.
    del x, y
    result = yield from adding
    return result


def less_equal(x: B, y: B) -> Circuit[B, B]:
    """Return x <= y as a share of width 1, unsigned: NOT (y < x). ANDs and depth: as `less`."""
    greater = yield from less(y, x)
    return invert(greater)


def _planes_of(x: B, value: int | PlaneArray) -> PlaneArray:
    """Return the planes of a public value, or the given public planes after a check."""
    if x.width < 1:
        raise LocalProtocolError("PLANES_INVALID", "only values of at least one bit can be compared")
    if isinstance(value, np.ndarray):
        return check_planes(value, x.width, x.count)
    return public_planes(value, x.width, x.count)


def less_public(x: B, value: int | PlaneArray) -> Circuit[B, B]:
    """Return x < c, unsigned; c is one public value of x's width, or public planes (one value per lane).

    ANDs per value: 2 w - 2 - ceil(log2 w); depth ceil(log2 w).
    """
    planes = _planes_of(x, value)
    result = yield from carry_out(and_public(invert(x), planes), invert(xor_public(x, planes)))
    return result


def greater_public(x: B, value: int | PlaneArray) -> Circuit[B, B]:
    """Return x > c, unsigned: the borrow of c - x. ANDs and depth: as `less_public`."""
    planes = _planes_of(x, value)
    result = yield from carry_out(and_public(x, ~planes), invert(xor_public(x, planes)))
    return result


def less_equal_public(x: B, value: int | PlaneArray) -> Circuit[B, B]:
    """Return x <= c, unsigned: NOT (x > c). ANDs and depth: as `less_public`."""
    above = yield from greater_public(x, value)
    return invert(above)


def greater_equal_public(x: B, value: int | PlaneArray) -> Circuit[B, B]:
    """Return x >= c, unsigned: NOT (x < c). ANDs and depth: as `less_public`."""
    below = yield from less_public(x, value)
    return invert(below)


def _all_ones(x: B) -> Circuit[B, B]:
    """Return the AND of all planes: width - 1 ANDs in ceil(log2 width) steps."""
    while x.width > 1:
        half = x.width // 2
        (products,) = yield [(x[:half], x[half : 2 * half])]
        x = concat([products, x[2 * half :]]) if x.width % 2 else products
    return x


def equal(x: B, y: B) -> Circuit[B, B]:
    """Return x = y as a share of width 1. ANDs per value: w - 1; depth ceil(log2 w)."""
    _check_pair(x, y)
    result = yield from _all_ones(invert(xor(x, y)))
    return result


def equal_public(x: B, value: int | PlaneArray) -> Circuit[B, B]:
    """Return x = c as a share of width 1, for c as in `less_public`. ANDs per value: w - 1; depth ceil(log2 w)."""
    result = yield from _all_ones(invert(xor_public(x, _planes_of(x, value))))
    return result


def difference(x: B, y: B) -> Circuit[B, tuple[B, B]]:
    """Return (x - y mod 2^w, the borrow: whether x < y).

    ANDs per value: w and those of `carries_out`; depth 1 + ceil(log2 w).
    """
    _check_pair(x, y)
    (generate,) = yield [(invert(x), y)]
    halves = xor(x, y)
    borrows = yield from carries_out(generate, invert(halves))
    top = x.width - 1
    if top == 0:
        return halves, borrows
    return concat([halves.plane(0), xor(halves[1:], borrows[:top])]), borrows.plane(top)


def flip_sign(x: B) -> B:
    """Return x with its top bit inverted: then unsigned comparisons order two's complement values. No message."""
    planes = public_planes(1 << (x.width - 1), x.width, x.count)
    return xor_public(x, planes)


# ------------------------------------------------------------------------------------------------- arithmetic shares


def component_bits(share: RingVector, width: int) -> tuple[BooleanPlanes, BooleanPlanes, BooleanPlanes]:
    """Return Boolean sharings of the three components' lowest `width` bits. No message.

    Component c is known to its two holders only, and the sharing that has it as component c and 0 elsewhere needs nothing
    from anybody: it cannot be falsified.
    """
    planes = {share.party: to_planes(share.first, width), (share.party + 1) % 3: to_planes(share.second, width)}
    empty = np.zeros_like(planes[share.party])
    out = []
    for component in range(3):
        first = planes[component] if component == share.party else empty
        second = planes[component] if component == (share.party + 1) % 3 else empty
        out.append(boolean_of(share, share.count, first, second))
    return out[0], out[1], out[2]


def _carry_save(share: RingVector, width: int) -> Circuit[BooleanPlanes, tuple[BooleanPlanes, BooleanPlanes]]:
    """Return (sums of `width` bits, carries of `width - 1` bits) of the three components: value = sums + 2 carries."""
    a, b, c = component_bits(share, width)
    sums = xor(xor(a, b), c)
    low = slice(0, width - 1)
    if width == 1:
        return sums, sums[low]
    wanted, c = [(xor(a[low], c[low]), xor(b[low], c[low]))], c[low]
    del share, a, b
    (product,) = yield wanted
    return sums, xor(product, c)


def most_significant_bit(share: RingVector, width: int = 64) -> Circuit[BooleanPlanes, BooleanPlanes]:
    """Return bit `width - 1` of the value mod 2^width, as a share of width 1.

    Args:
        share: arithmetic share.
        width: 1 to 64; with 64 it is the sign.

    ANDs per value: 4 w - 9 - ceil(log2 (w - 2)); depth 2 + ceil(log2 (w - 2)). For w = 2 both are 1, for w = 1 none.
    """
    _check_width(width)
    saving = _carry_save(share, width)
    del share
    sums, carries = yield from saving
    if width == 1:
        return sums
    top = xor(sums.plane(width - 1), carries.plane(width - 2))
    if width == 2:
        return top
    # Bit 0 has no second summand, so carries begin at bit 1; bits 1 .. width - 2 decide the carry into the top bit.
    adding = _sum_carry(sums[1 : width - 1], carries[: width - 2])
    del sums, carries
    carry = yield from adding
    return xor(top, carry)


def _sum_carry(addend: B, other: B) -> Circuit[B, B]:
    """Return the carry out of the sum of two values."""
    wanted, propagate = [(addend, other)], xor(addend, other)
    del addend, other
    (generate,) = yield wanted
    nodes = _nodes(generate, propagate)
    del generate, propagate
    carry = yield from _tree(nodes)
    return carry


def wraps(share: RingVector) -> Circuit[BooleanPlanes, tuple[BooleanPlanes, BooleanPlanes]]:
    """Return two bits whose sum says how often the three components' sum passed 2^64 (0, 1 or 2).

    ANDs per value: 245; depth 8.
    """
    a, b, c = component_bits(share, 64)
    sums, wanted = xor(xor(a, b), c), [(xor(a, c), xor(b, c))]
    del share, a, b
    (product,) = yield wanted
    carries = xor(product, c)
    top, adding = carries.plane(63), _sum_carry(sums[1:], carries[:63])
    del c, product, sums, carries
    carry = yield from adding
    return top, carry


def negative(share: RingVector) -> Circuit[BooleanPlanes, BooleanPlanes]:
    """Return whether the signed value is below 0: the top bit. x < y over bounded values is `negative(x - y)`.

    ANDs per value: 241; depth 8.
    """
    top_bit = most_significant_bit(share, 64)
    del share
    result = yield from top_bit
    return result


def is_zero(share: RingVector, width: int = 64) -> Circuit[BooleanPlanes, BooleanPlanes]:
    """Return whether the value mod 2^width is 0, as a share of width 1; x = y over shares is `is_zero(x - y)`.

    The components are added with carries saved, value = s + t; and s + t = 2 (s | t) - (s ^ t) for any s and t, so the value is 0
    if and only if 2 (s | t) = s ^ t mod 2^w, bit by bit: no carry has to travel.

    ANDs per value: 3 w - 4 for w >= 3 (carry save, OR, equality); depth 2 + ceil(log2 w). For w = 2 both are 2, for w = 1 none.
    """
    _check_width(width)
    saving = _carry_save(share, width)
    del share
    sums, carries = yield from saving
    if width == 1:
        return invert(sums)
    if width == 2:
        result = yield from _all_ones(invert(concat([sums.plane(0), xor(sums.plane(1), carries.plane(0))])))
        return result
    # Bits of s | 2c below the top one: bit 0 of 2c is 0, so there it is bit 0 of s.
    wanted, lowest, halves = [(sums[1 : width - 1], carries[: width - 2])], sums.plane(0), xor(sums[1:], carries)
    del sums, carries
    (both,) = yield wanted
    either = concat([lowest, xor(halves[: width - 2], both)])
    joining = _all_ones(invert(concat([lowest, xor(halves, either)])))
    del both, either, halves
    result = yield from joining
    return result


def arithmetic_bits(share: RingVector, width: int = 64) -> Circuit[BooleanPlanes, BooleanPlanes]:
    """Return the lowest `width` bits of the value (A2B): carry save, then a Sklansky prefix adder.

    ANDs per value: 2 w - 3 + p(w - 2), p as in the module: 426 for 64 bits; depth 2 + ceil(log2 (w - 2)). For w = 2 both are 1, for
    w = 1 none.
    """
    _check_width(width)
    saving = _carry_save(share, width)
    del share
    sums, carries = yield from saving
    if width == 1:
        return sums
    if width == 2:
        return concat([sums.plane(0), xor(sums.plane(1), carries.plane(0))])
    wanted, lowest, halves = [(sums[1 : width - 1], carries[: width - 2])], sums.plane(0), xor(sums[1:], carries)
    del sums, carries
    (generate,) = yield wanted
    running = carries_out(generate, halves[: width - 2])
    del generate
    into = yield from running
    return concat([lowest, halves.plane(0), xor(halves[1:], into)])


def carries_out(generate: B, propagate: B) -> Circuit[B, B]:
    """Return the carry out of planes 0 .. k for every k (Sklansky: one step per doubling).

    ANDs per value: p(w), see the module; depth ceil(log2 w).
    """
    carries = [generate.plane(bit) for bit in range(generate.width)]
    spans = [propagate.plane(bit) for bit in range(generate.width)]
    step = 1
    while step < len(carries):
        high = [bit for bit in range(len(carries)) if bit & step]
        low = {bit: (bit // step) * step - 1 for bit in high}
        # A node whose range reaches down to bit 0 needs no propagate any more.
        wide = [bit for bit in high if bit >= 2 * step]
        wanted = [(spans[bit], carries[low[bit]]) for bit in high]
        wanted += [(spans[bit], spans[low[bit]]) for bit in wide]
        products = yield wanted
        for place, bit in enumerate(high):
            carries[bit] = xor(carries[bit], products[place])
        for place, bit in enumerate(wide):
            spans[bit] = products[len(high) + place]
        step *= 2
    return concat(carries)


def _check_width(width: int) -> None:
    if not 1 <= width <= 64:
        raise LocalProtocolError("PLANES_INVALID", "a width is out of range", expected="1 to 64", got=width)
