"""Exact division on shares: by a public divisor, by a power of two (truncation), and by a shared divisor.

Nothing here is probabilistic: truncation that fails or errs with a chance that depends on the value is not offered
(Dalskov et al. 2020/1330 and the changelogs that mend it; protocols.md 1.2 of the design).

*Public divisor m.* The three components are divided in the clear by their holders, y_i = m q_i + r_i. With y the value plus
a multiple of m that makes it positive, and c in {0, 1, 2} how often the components wrap, y = sum y_i - 2^64 c; writing
2^64 = m Q + R,

    floor(y / m) = sum q_i - Q c + floor((sum r_i - R c) / m)

and the last term lies in -2 .. 2: four comparisons on narrow numbers find it. c costs one carry tree.

*Shared divisor.* Restoring division on bit-planes: one subtraction and one mux per bit of the quotient.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import Circuit, evaluate, mux
from mpc_ops.protocol.circuits.compare import (
    arithmetic_bits,
    difference,
    equal_public,
    less,
    most_significant_bit,
    negative,
    wraps,
)
from mpc_ops.protocol.circuits.convert import bits_to_ring, planes_to_ring, values_to_ring
from mpc_ops.protocol.circuits.counts import side_by_side
from mpc_ops.protocol.circuits.products import multiply, times_public
from mpc_ops.protocol.core.party import Steps, together
from mpc_ops.protocol.core.shares import (
    BooleanPlanes,
    RingVector,
    check_ring_share,
    concat,
    invert,
    public_like,
    repeat_plane,
    ring_of,
)
from mpc_ops.protocol.core.stage import ComputeStage

__all__ = ["MAX_DIVISOR", "Rounding", "divide_bits", "divide_public", "divide_shared", "quotient", "truncate"]

Rounding: TypeAlias = Literal["floor", "half_even"]
MAX_DIVISOR = 1 << 58
"""Five times the divisor is compared in 62 bits."""
_OFFSET = 1 << 63


def _full(x: RingVector, value: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.full(x.count, value % (1 << 64), dtype=np.uint64)


def _narrow(divisor: int) -> int:
    """Return a width whose signed range holds every number in -5 m .. 5 m."""
    return min(64, (5 * divisor).bit_length() + 1)


def divide_public(
    stage: ComputeStage, x: RingVector, divisor: int, *, rounding: Rounding = "floor"
) -> Steps[RingVector]:
    """Divide signed values by a public positive number, exactly.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage.
        x: shape (n,), signed values with |x| < 2^62 (a contract's range; another value gives a wrong quotient, as an
            overflow would).
        divisor: m, 1 <= m <= MAX_DIVISOR.
        rounding: `floor` towards minus infinity, or to the nearest with ties to even.

    Returns:
        Share of the quotients mod 2^64, shape (n,).

    Rounds: floor 12 + d, with w = bits of 5 m plus a sign and d = 2 + ceil(log2(w - 2)) the depth of a comparison; half-even
        d + 3 more. None for m = 1 or no value.
    Sent: bytes per party for n values and k = ceil(n/64): floor 8 k (245 + 4 s) + 96 n, where s = 4 w - 9 - ceil(log2(w - 2))
        are the ANDs of `most_significant_bit` at width w; half-even 8 k (2 s + 1) + 16 n more.
    Security: as `multiply` and AND: gates are logged and proven in an active stage.  Leaks: n and m.

    Raises:
        LocalProtocolError: DIVISOR_INVALID, SHARE_FOREIGN, STAGE_ORDER.
    """
    check_ring_share(stage, x)
    if not 1 <= divisor <= MAX_DIVISOR:
        raise LocalProtocolError("DIVISOR_INVALID", "a public divisor is out of range", expected=f"1 to {MAX_DIVISOR}")
    if divisor == 1 or x.count == 0:
        return x
    floor = yield from _floor(stage, x, divisor)
    if rounding == "floor":
        return floor
    up = yield from _round_up(stage, x, floor, divisor)
    return floor.plus(up)


def _floor(stage: ComputeStage, x: RingVector, divisor: int) -> Steps[RingVector]:
    shift = _OFFSET // divisor
    y = x.plus_public(_full(x, shift * divisor))
    (pair,) = yield from evaluate(stage, "wraps", [wraps(y)])
    flags = yield from planes_to_ring(stage, concat(pair))
    wrapped = flags[: x.count].plus(flags[x.count :])
    whole, rest = divmod(1 << 64, divisor)
    m = np.uint64(divisor)
    parts = ring_of(stage, y.first // m, y.second // m)
    remainders = ring_of(stage, y.first % m, y.second % m).minus(times_public(wrapped, _full(x, rest)))
    # remainders + 2 m lies in 2 .. 5 m - 3: count which of 1 m .. 4 m it reaches.
    steps = [remainders.plus_public(_full(x, (2 - step) * divisor)) for step in range(1, 5)]
    below = yield from evaluate(stage, "reach", [most_significant_bit(step, _narrow(divisor)) for step in steps])
    counted = yield from planes_to_ring(stage, invert(concat(below)))
    correction = counted[: x.count]
    for step in range(1, 4):
        correction = correction.plus(counted[step * x.count : (step + 1) * x.count])
    quotients = parts.minus(times_public(wrapped, _full(x, whole))).plus(correction)
    return quotients.plus_public(_full(x, -2 - shift))


def _round_up(stage: ComputeStage, x: RingVector, floor: RingVector, divisor: int) -> Steps[RingVector]:
    """Return 1 where half-even rounding goes up from the floor."""
    remainder = x.minus(times_public(floor, _full(x, divisor)))
    twice = remainder.plus(remainder)
    width = _narrow(divisor)
    above = most_significant_bit(twice.negated().plus_public(_full(x, divisor)), width)
    below = most_significant_bit(twice.plus_public(_full(x, -divisor)), width)
    odd = arithmetic_bits(floor, 1)
    (up,) = yield from evaluate(stage, "round", [_nearest(above, below, odd)])
    result = yield from bits_to_ring(stage, up)
    return result


def _nearest(
    above: Circuit[BooleanPlanes, BooleanPlanes],
    below: Circuit[BooleanPlanes, BooleanPlanes],
    odd: Circuit[BooleanPlanes, BooleanPlanes],
) -> Circuit[BooleanPlanes, BooleanPlanes]:
    """Return whether to round up: an even floor if the rest is above the half, an odd one if it is not below."""
    found: list[BooleanPlanes] = yield from side_by_side([above, below, odd])
    more, less_, one = found
    result = yield from mux(one, invert(less_), more)
    return result


def truncate(stage: ComputeStage, x: RingVector, bits: int) -> Steps[RingVector]:
    """Return floor(x / 2^bits) of signed values, |x| < 2^62: exact truncation of fixed-point products.

    Rounds, bytes, security, errors: as `divide_public` with m = 2^bits, 0 <= bits <= 58, rounding `floor`.
    """
    if not 0 <= bits < MAX_DIVISOR.bit_length():
        raise LocalProtocolError("DIVISOR_INVALID", "a number of bits is out of range", got=bits)
    result = yield from divide_public(stage, x, 1 << bits)
    return result


def quotient(
    numerator: BooleanPlanes, denominator: BooleanPlanes
) -> Circuit[BooleanPlanes, tuple[BooleanPlanes, BooleanPlanes]]:
    """Return (floor(a / b), a mod b) of unsigned values; where b is 0 the quotient is all ones and the rest is a's low bits.

    ANDs per value: v times (those of `compare.difference` at u + 1 bits, and u) for v bits of a and u bits of b. Depth: v times
    (2 + ceil(log2(u + 1))).
    """
    divisor = concat([denominator, _zero_plane(denominator)])
    rest = denominator[:0]
    bits: list[BooleanPlanes] = []
    for place in reversed(range(numerator.width)):
        # The rest is below b, so it never has more planes than were shifted in.
        rest = concat([numerator.plane(place), rest])
        while rest.width <= denominator.width:
            rest = concat([rest, _zero_plane(denominator)])
        left, borrow = yield from difference(rest, divisor)
        kept = yield from mux(borrow, rest[: denominator.width], left[: denominator.width])
        rest = kept
        bits.insert(0, invert(borrow))
    return concat(bits), rest


def _zero_plane(share: BooleanPlanes) -> BooleanPlanes:
    return public_like(share, np.zeros((1, share.first.shape[1]), dtype=np.uint64))


def divide_bits(
    stage: ComputeStage, numerator: BooleanPlanes, denominator: BooleanPlanes
) -> Steps[tuple[BooleanPlanes, BooleanPlanes]]:
    """Return (floor(a / b), a mod b) of unsigned bit-plane shares; see `quotient` for depth, ANDs and b = 0.

    Rounds: the depth, none for no value.  Sent: 8 ceil(n/64) bytes per AND.  Security: as AND.  Leaks: n and both widths.

    Raises:
        LocalProtocolError: PLANES_INVALID for other lengths or no bits; SHARE_FOREIGN, STAGE_ORDER.
    """
    if numerator.count != denominator.count or not numerator.width or not denominator.width:
        raise LocalProtocolError("PLANES_INVALID", "only shares of one length can be divided", ids=stage.ids())
    (result,) = yield from evaluate(stage, "divide", [quotient(numerator, denominator)])
    return result


def divide_shared(
    stage: ComputeStage, numerator: RingVector, denominator: RingVector, *, widths: tuple[int, int], rounding: Rounding
) -> Steps[tuple[RingVector, BooleanPlanes]]:
    """Divide signed values by shared non-negative divisors, exactly: averages and ratios that may not be opened in parts.

    Run by: all three parties, in lock-step.

    Args:
        stage: a computing stage.
        numerator: shape (n,), |a| < 2^v.
        denominator: shape (n,), 0 <= b < 2^u.
        widths: (v, u), each 1 to 62.
        rounding: `floor` rounds the magnitude down, so towards zero; `half_even` to the nearest, ties to even.

    Returns:
        (share of the quotients mod 2^64, 0 where b is 0; bit that is 1 where b is not 0).

    Rounds: floor 15 + a(v) + v (2 + ceil(log2(u + 1))), with a(v) the depth of `compare.arithmetic_bits`; half-even
        1 + ceil(log2(u + 1)) more.
    Sent: bytes per party for n values and k = ceil(n/64): floor 8 k (241 + A(u) + A(v) + q + u - 1 + v) + (32 + 16 v) n, with A the
        ANDs of `compare.arithmetic_bits` and q those of `quotient`; half-even 8 k (3 u + 2 - ceil(log2(u + 1))) + 16 n more.
    Security: as `multiply` and AND.  Leaks: n and the widths.
    """
    check_ring_share(stage, numerator)
    check_ring_share(stage, denominator)
    v, u = widths
    if not (1 <= v <= 62 and 1 <= u <= 62) or numerator.count != denominator.count:
        raise LocalProtocolError(
            "DIVISOR_INVALID", "widths are 1 to 62, and there is a divisor per value", ids=stage.ids()
        )
    # The divisor's bits are there before they are wanted: they share the rounds of the sign.
    sign, bottom = yield from evaluate(stage, "sign", [negative(numerator), arithmetic_bits(denominator, u)])
    flag = yield from bits_to_ring(stage, sign)
    factor = flag.plus(flag).negated().plus_public(_full(flag, 1))
    magnitude = yield from multiply(stage, numerator, factor)
    (top,) = yield from evaluate(stage, "bits", [arithmetic_bits(magnitude, v)])
    ((whole, known),) = yield from evaluate(stage, "divide", [_rounded(top, bottom, rounding)])
    magnitude, *more = yield from together(
        values_to_ring(stage, whole[:v]), *([bits_to_ring(stage, whole[v:])] if whole.width > v else [])
    )
    for up in more:
        magnitude = magnitude.plus(up)
    result = yield from multiply(stage, magnitude, factor)
    return result, known


def _rounded(
    top: BooleanPlanes, bottom: BooleanPlanes, rounding: Rounding
) -> Circuit[BooleanPlanes, tuple[BooleanPlanes, BooleanPlanes]]:
    """Return (floor quotient, above it whether to round up if that is asked for; whether the divisor is not 0: else all is 0)."""
    (whole, rest), none = yield from side_by_side([quotient(top, bottom), equal_public(bottom, 0)])
    known = invert(none)
    if rounding == "half_even":
        # To the nearest, ties to even: twice the rest, plus 1 if the quotient is odd, is above the divisor.
        up = yield from less(concat([bottom, _zero_plane(bottom)]), concat([whole.plane(0), rest]))
        whole = concat([whole, up])
    (kept,) = yield [(repeat_plane(known, whole.width), whole)]
    return kept, known
