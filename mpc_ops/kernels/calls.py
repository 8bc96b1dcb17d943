"""Calls into the compiled kernels. Everything that the C code takes for granted about its arguments is checked here.

Every vector is one-dimensional (or one block of rows), contiguous and uint64; lengths fit each other; no output overlaps an
input. The calls release the interpreter's lock. Only where `compiled()` is true there is something to call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpc_ops.errors import LocalProtocolError
from mpc_ops.kernels import pool

ffi: Any
lib: Any
try:
    from mpc_ops.kernels import _compiled  # type: ignore[attr-defined]

    ffi, lib = _compiled.ffi, _compiled.lib
except ImportError:  # not built, built for another machine, or without cffi's run-time module
    ffi = lib = None
_VERSION = 6
if lib is not None and (not hasattr(lib, "cm_version") or lib.cm_version() != _VERSION):  # built from other sources
    ffi = lib = None

__all__ = [
    "LANES",
    "PRESENT",
    "SLOTS",
    "and_cross",
    "and_fold",
    "and_words",
    "field_convolve",
    "field_cross",
    "field_dot",
    "field_evaluate",
    "field_fold",
    "field_powers",
    "field_uniform",
    "from_planes",
    "level",
    "limit_level",
    "ring_bilinear",
    "ring_carries",
    "ring_fold",
    "ring_fold_first",
    "ring_lefts",
    "ring_matrix",
    "ring_matrix_first",
    "ring_products",
    "ring_weighted",
    "row_tags",
    "to_planes",
]

PRESENT = lib is not None
"""Whether the extension could be loaded."""

Words: TypeAlias = NDArray[np.uint64]
Pair: TypeAlias = tuple[Words, Words]

LANES = 64
"""Lanes of a block of gates."""
SLOTS = 8
"""Words or elements per lane and block."""
_BLOCK = LANES * SLOTS
_WORD = "uint64_t[]"
_MODULUS = (1 << 61) - 1
_LEVELS = 3
_LEAST = 1 << 14
"""Words of a vector that are worth a thread's wake-up."""


def _refuse(what: str) -> LocalProtocolError:
    return LocalProtocolError("KERNEL_ARGUMENT", what, hint="A bug: report it")


def _check(array: object, size: int | None, dtype: type = np.uint64) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or not array.flags.c_contiguous:
        raise _refuse("a kernel takes contiguous vectors of its own type")
    if size is not None and array.size != size:
        raise _refuse("a kernel was given vectors of different lengths")


def _inputs(size: int | None, *arrays: Words) -> list[Any]:
    """Return pointers to vectors of that length (or of any)."""
    for array in arrays:
        _check(array, size)
    return [ffi.from_buffer(_WORD, array) for array in arrays]


def _output(size: int, array: Words | NDArray[np.int64], *inputs: Words, kind: str = _WORD) -> Any:
    """Return a pointer to a writable vector of that length that shares no memory with the inputs."""
    _check(array, size, np.uint64 if kind == _WORD else np.int64)
    if any(np.may_share_memory(array, other) for other in inputs):
        raise _refuse("a kernel's output overlaps its input")
    return ffi.from_buffer(kind, array, require_writable=True)


def _lanes(lanes: int) -> int:
    if not 1 <= lanes <= LANES:
        raise _refuse("a number of lanes is out of range")
    return lanes


def _element(value: int) -> int:
    if not 0 <= value < _MODULUS:
        raise _refuse("a number is not in the field")
    return value


def level() -> int:
    """Return the instruction set in use: 0 the compiler's own, 1 AVX2, 2 AVX-512 with population counts."""
    return int(lib.cm_level())


def limit_level(most: int) -> None:
    """Use at most this instruction set from now on: for tests."""
    if not 0 <= most < _LEVELS:
        raise _refuse("no such instruction set")
    lib.cm_limit(most)


def _each(size: int, block: int, work: Callable[[int, int, int], None]) -> int:
    """Call work(number, start, stop) for pieces of whole blocks, in threads if there are several; return how many."""
    parts = pool.pieces(size, block, _LEAST)
    pool.run([partial(work, number, start, stop) for number, (start, stop) in enumerate(parts)])
    return len(parts)


def _count(size: int, block: int) -> int:
    return len(pool.pieces(size, block, _LEAST))


def _wide_sum(parts: Words) -> Pair:
    """Return the sum mod 2^128 of shape (parts, 2, ...): low words, high words."""
    low, high = parts[0]
    for more_low, more_high in parts[1:]:
        low = low + more_low
        high = high + more_high + (low < more_low)
    return low, high


# ------------------------------------------------------------------------------------------------------------ recipe A


def and_cross(left: tuple[Words, Words, Words], right: tuple[Words, Words, Words]) -> NDArray[np.int64]:
    """Return R, shape (127,), of the sides (x, y, e), all of one length; a ragged last block counts as filled with zeros."""
    words, size = len(left[0]), 2 * LANES - 1
    inputs = _inputs(words, *left, *right)
    totals = np.zeros((_count(words, _BLOCK), size), dtype=np.int64)
    out = _output(totals.size, totals, kind="int64_t[]")

    def work(number: int, start: int, stop: int) -> None:
        lib.cm_and_cross(*(vector + start for vector in inputs), stop - start, out + number * size)

    _each(words, _BLOCK, work)
    total: NDArray[np.int64] = totals.sum(axis=0)
    return total


def and_fold(side: tuple[Words, Words, Words], coefficients: Words, out: Words, *, right: bool) -> None:
    """Write the folded vector of a side: `out` has shape (4, words of whole blocks)."""
    words = len(side[0])
    size = -(-words // _BLOCK) * _BLOCK
    if out.shape != (4, size):
        raise _refuse("a fold gives four components of one element per column")
    inputs, (weights,) = _inputs(words, *side), _inputs(LANES, coefficients)
    place = _output(4 * size, out, *side, coefficients)

    def work(_: int, start: int, stop: int) -> None:
        lib.cm_and_fold(*(vector + start for vector in inputs), stop - start, weights, int(right), size, place + start)

    _each(words, _BLOCK, work)


def and_words(x: Pair, y: Pair, masks: Pair, out: Words) -> None:
    """Write x0 & (y0 ^ y1) ^ x1 & y0 ^ r0 ^ r1."""
    words = len(out)
    inputs = _inputs(words, *x, *y, *masks)
    place = _output(words, out, *x, *y, *masks)

    def work(_: int, start: int, stop: int) -> None:
        lib.cm_and_words(*(vector + start for vector in inputs), stop - start, place + start)

    _each(words, 1, work)


# ----------------------------------------------------------------------------------------------------------- the field


def field_cross(u: Words, v: Words, lanes: int) -> list[int]:
    """Return R, 2 lanes - 1 elements, of two vectors in blocks of lanes x 8 elements below 2^61 - 1."""
    size = 2 * _lanes(lanes) - 1
    first, second = _inputs(len(u), u, v)
    sums = np.zeros((_count(len(u), lanes * SLOTS), size), dtype=np.uint64)
    out = _output(sums.size, sums)

    def work(number: int, start: int, stop: int) -> None:
        lib.cm_field_cross(first + start, second + start, stop - start, lanes, out + number * size)

    _each(len(u), lanes * SLOTS, work)
    return [sum(column) % _MODULUS for column in zip(*sums.tolist(), strict=True)]


def field_fold(u: Words, coefficients: Words) -> Words:
    """Return the sum over lanes a of coefficients[a] u_a: 8 elements per block of len(coefficients) x 8."""
    lanes = _lanes(len(coefficients))
    out = np.empty(-(-len(u) // (lanes * SLOTS)) * SLOTS, dtype=np.uint64)
    (vector,), (weights,), place = _inputs(None, u), _inputs(lanes, coefficients), _output(len(out), out)

    def work(_: int, start: int, stop: int) -> None:
        lib.cm_field_fold(vector + start, stop - start, lanes, weights, place + start // lanes)

    _each(len(u), lanes * SLOTS, work)
    return out


def field_convolve(left: Words, right: Words) -> Words:
    """Return the coefficients of the product of two polynomials; neither is empty."""
    if len(left) == 0 or len(right) == 0:
        raise _refuse("an empty polynomial has no product")
    out = np.empty(len(left) + len(right) - 1, dtype=np.uint64)
    (one,), (two,) = _inputs(None, left), _inputs(None, right)
    lib.cm_field_convolve(one, len(left), two, len(right), _output(len(out), out))
    return out


def field_dot(left: Words, right: Words) -> int:
    """Return the inner product."""
    one, two = _inputs(len(left), left, right)
    return int(lib.cm_field_dot(one, two, len(left)))


def field_evaluate(coefficients: Words, point: int) -> int:
    """Return sum_k coefficients[k] point^k."""
    (vector,) = _inputs(None, coefficients)
    return int(lib.cm_field_evaluate(vector, len(coefficients), _element(point)))


def field_powers(base: int, count: int) -> Words:
    """Return base^0 .. base^(count - 1)."""
    if count < 0:
        raise _refuse("a number of powers is negative")
    out = np.empty(count, dtype=np.uint64)
    lib.cm_field_powers(_element(base), count, _output(count, out))
    return out


def field_uniform(words: Words) -> Words:
    """Return one element per two words: (low + 2^64 high) mod p."""
    if len(words) % 2:
        raise _refuse("an element takes two words")
    out = np.empty(len(words) // 2, dtype=np.uint64)
    (vector,) = _inputs(None, words)
    lib.cm_field_uniform(vector, len(out), _output(len(out), out))
    return out


# ------------------------------------------------------------------------------------------------------------ recipe B
# Elements mod 2^128 are pairs (low words, high words), as the fields of mpc_ops.ring.wide.Wide.

FIRST_LANES = 8
"""Lanes of level 1 of products."""
_FIRST_BLOCK = FIRST_LANES * SLOTS


def ring_carries(own: Pair, following: Pair, ends: NDArray[np.int64], left: Words, right: Words) -> Words:
    """Return the high words of w_j = sum over terms [ends[j-1], ends[j]) of x y' + y x', plus left_j - right_j, mod 2^128."""
    outputs, terms = len(left), len(own[0])
    _check(ends, outputs, np.int64)
    if outputs and (int(ends[-1]) > terms or int(ends[0]) < 0 or bool(np.any(ends[1:] < ends[:-1]))):
        raise _refuse("segments reach beyond their terms")
    out = np.empty(outputs, dtype=np.uint64)
    factors, (one, other) = _inputs(terms, *own, *following), _inputs(outputs, left, right)
    stops, place = ffi.from_buffer("int64_t[]", ends), _output(outputs, out)

    def work(_: int, start: int, stop: int) -> None:
        begin = int(ends[start - 1]) if start else 0
        lib.cm_ring_carries(*factors, stops + start, one + start, other + start, begin, stop - start, place + start)

    _each(outputs, 1, work)
    return out


def ring_weighted(c: Words, q: Words, part: Words, *, minus: bool) -> Pair:
    """Return the sum of c (2^64 q + part), or of c (2^64 q - part), one element."""
    out = np.empty(2, dtype=np.uint64)
    lib.cm_ring_weighted(*_inputs(len(c), c, q, part), len(c), int(minus), _output(2, out))
    return out[:1], out[1:]


def ring_matrix_first(u: Pair, weights: Words, v: Pair) -> Pair:
    """Return U V^T of (c x | c y) and (y' | x'), shape (8, 8), from words."""
    terms, size = len(weights), 2 * FIRST_LANES**2
    inputs = _inputs(terms, *u, weights, *v)
    sums = np.zeros((_count(terms, _FIRST_BLOCK), 2, FIRST_LANES, FIRST_LANES), dtype=np.uint64)
    out = _output(sums.size, sums)

    def work(number: int, start: int, stop: int) -> None:
        lib.cm_ring_matrix_first(*(vector + start for vector in inputs), stop - start, out + number * size)

    _each(terms, _FIRST_BLOCK, work)
    return _wide_sum(sums)


def ring_fold_first(side: Pair, weights: Words | None, coefficients: Pair) -> Pair:
    """Return the folded vector of (c x | c y), or of (x | y): per block 8 elements of x, then 8 of y; one block at least."""
    terms = len(side[0])
    make = np.empty if terms else np.zeros
    out = make((2, max(1, -(-terms // _FIRST_BLOCK)) * 2 * SLOTS), dtype=np.uint64)
    x, y = _inputs(terms, *side)
    weight = None if weights is None else _inputs(terms, weights)[0]
    (folds,) = _inputs(2 * FIRST_LANES, np.concatenate(coefficients))
    low, high = _output(out.shape[1], out[0]), _output(out.shape[1], out[1])

    def work(_: int, start: int, stop: int) -> None:
        c, at = ffi.NULL if weight is None else weight + start, start // FIRST_LANES * 2
        lib.cm_ring_fold_first(x + start, y + start, c, stop - start, folds, low + at, high + at)

    _each(terms, _FIRST_BLOCK, work)
    return out[0], out[1]


def ring_matrix(u: Pair, v: Pair, lanes: int) -> Pair:
    """Return U V^T, shape (lanes, lanes), of vectors in blocks of lanes x 8."""
    size, cells = len(u[0]), 2 * _lanes(lanes) ** 2
    inputs = _inputs(size, *u, *v)
    sums = np.zeros((_count(size, lanes * SLOTS), 2, lanes, lanes), dtype=np.uint64)
    out = _output(sums.size, sums)

    def work(number: int, start: int, stop: int) -> None:
        lib.cm_ring_matrix(*(vector + start for vector in inputs), stop - start, lanes, out + number * cells)

    _each(size, lanes * SLOTS, work)
    return _wide_sum(sums)


def ring_fold(u: Pair, coefficients: Pair) -> Pair:
    """Return the sum over lanes a of coefficients[a] u_a: 8 elements per block of len(coefficients) x 8."""
    size, lanes = len(u[0]), _lanes(len(coefficients[0]))
    out = np.empty((2, -(-size // (lanes * SLOTS)) * SLOTS), dtype=np.uint64)
    (one, two), (folds,) = _inputs(size, *u), _inputs(2 * lanes, np.concatenate(coefficients))
    low, high = _output(out.shape[1], out[0]), _output(out.shape[1], out[1])

    def work(_: int, start: int, stop: int) -> None:
        at = start // lanes
        lib.cm_ring_fold(one + start, two + start, stop - start, lanes, folds, low + at, high + at)

    _each(size, lanes * SLOTS, work)
    return out[0], out[1]


def ring_bilinear(a: Pair, matrix: Pair, b: Pair) -> Pair:
    """Return a^T M b, one element."""
    rows, columns = matrix[0].shape
    (one,), (two,) = _inputs(2 * rows, np.concatenate(a)), _inputs(2 * columns, np.concatenate(b))
    (square,) = _inputs(2 * rows * columns, np.concatenate(matrix))
    out = np.empty(2, dtype=np.uint64)
    lib.cm_ring_bilinear(one, square, two, rows, columns, _output(2, out))
    return out[:1], out[1:]


def ring_products(x: Pair, y: Pair, masks: Pair) -> Pair:
    """Return z = x0 (y0 + y1) + x1 y0 + r0 - r1 and l = x0 y0 + r0 - z mod 2^64."""
    size = len(x[0])
    left, z = np.empty(size, dtype=np.uint64), np.empty(size, dtype=np.uint64)
    inputs, to_left, to_z = _inputs(size, *x, *y, *masks), _output(size, left), _output(size, z)

    def work(_: int, start: int, stop: int) -> None:
        lib.cm_ring_products(*(vector + start for vector in inputs), stop - start, to_left + start, to_z + start)

    _each(size, 1, work)
    return z, left


def ring_lefts(x: Words, y: Words, r: Words, z: Words) -> Words:
    """Return l = x y + r - z mod 2^64."""
    out = np.empty(len(x), dtype=np.uint64)
    inputs, place = _inputs(len(x), x, y, r, z), _output(len(x), out)

    def work(_: int, start: int, stop: int) -> None:
        lib.cm_ring_lefts(*(vector + start for vector in inputs), stop - start, place + start)

    _each(len(x), 1, work)
    return out


# ---------------------------------------------------------------------------------------------------------- bit-planes


def to_planes(values: Words, planes: Words) -> None:
    """Write the lowest bits of the values: `planes` has shape (width up to 64, ceil(count / 64)) and starts as zeros."""
    width, words = _planes(len(values), planes)
    (vector,), place = _inputs(None, values), _output(width * words, planes, values)

    def work(_: int, start: int, stop: int) -> None:
        lib.cm_to_planes(vector + start, stop - start, width, words, place + start // LANES)

    _each(len(values), _BLOCK, work)


def from_planes(planes: Words, values: Words) -> None:
    """Write the values of planes of shape (width up to 64, ceil(count / 64))."""
    width, words = _planes(len(values), planes)
    (source,), place = _inputs(width * words, planes), _output(len(values), values, planes)

    def work(_: int, start: int, stop: int) -> None:
        lib.cm_from_planes(source + start // LANES, stop - start, width, words, place + start)

    _each(len(values), _BLOCK, work)


def row_tags(planes: Words, key: Words, tags: Words) -> None:
    """Add to each tag the XOR of key[b] over the planes b, up to 64, that have the row's bit set."""
    width, words = _planes(len(tags), planes)
    (source,), (columns,) = _inputs(width * words, planes), _inputs(width, key)
    place = _output(len(tags), tags, planes, key)

    def work(_: int, start: int, stop: int) -> None:
        lib.cm_row_tags(source + start // LANES, stop - start, width, words, columns, place + start)

    _each(len(tags), _BLOCK, work)


def _planes(count: int, planes: Words) -> tuple[int, int]:
    width, words = planes.shape
    if width > LANES or words != -(-count // LANES):
        raise _refuse("planes of another shape")
    return width, words
