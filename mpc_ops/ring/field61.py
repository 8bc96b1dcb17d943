"""Arithmetic in the prime field of p = 2^61 - 1, vectorised and exact.

Elements are uint64 in [0, p). Products are taken through 32-bit halves (2^64 = 8 mod p), matrix products through 16-bit limbs
in float64, which is exact as long as fewer than 2^20 products of limbs are added. `PrimeField` is the interface that the
proof of AND gates needs; tests use it with tiny primes, where the probability of a false accept can be seen. The field of
2^61 - 1 hands its work to the compiled kernels where there are any; the results are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpc_ops.kernels import calls, compiled

__all__ = ["FIELD_61", "P61", "Field61", "FieldArray", "PrimeField"]

FieldArray: TypeAlias = NDArray[np.uint64]
"""Field elements in [0, p); any shape, dtype uint64."""

P61 = (1 << 61) - 1
_P = np.uint64(P61)
_61 = np.uint64(61)
_32 = np.uint64(32)
_29 = np.uint64(29)
_LOW32 = np.uint64(0xFFFFFFFF)
_LOW29 = np.uint64((1 << 29) - 1)
_LIMBS = 4
_SHIFTS = 2 * _LIMBS - 1
_CHUNK_COLUMNS = 4096
_EXACT_COLUMNS = 1 << 20
_SINGLE_THREAD_WORK = 1 << 18
_SMALL = 64
"""So few elements are faster as Python integers."""


class PrimeField(ABC):
    """A prime field below 2^61 with the operations of the proofs. Integers passed in are in [0, p)."""

    p: int

    @abstractmethod
    def reduce(self, words: NDArray[np.uint64]) -> FieldArray:
        """Return any uint64 words mod p."""

    @abstractmethod
    def mul(self, left: FieldArray, right: FieldArray) -> FieldArray:
        """Return products, element by element."""

    @abstractmethod
    def combine(self, rows: FieldArray, coefficients: Sequence[int]) -> FieldArray:
        """Return sum_a coefficients[a] * rows[a]; rows of shape (lanes, columns), result (columns,)."""

    @abstractmethod
    def cross(self, left: FieldArray, right: FieldArray) -> list[int]:
        """Return R with R[d + lanes - 1] = sum over a - b = d of <left[a], right[b]>; both of shape (lanes, columns)."""

    def array(self, values: Sequence[int]) -> FieldArray:
        """Return integers as field elements."""
        return np.array([value % self.p for value in values], dtype=np.uint64)

    def uniform(self, words: NDArray[np.uint64]) -> FieldArray:
        """Return len(words) / 2 elements from 128 random bits each: the bias is below 2^-67."""
        pairs = words.reshape(-1, 2).tolist()
        return self.array([low + (high << 64) for low, high in pairs])

    def inverse(self, value: int) -> int:
        """Return 1 / value; value is not 0."""
        return pow(value, -1, self.p)

    def powers(self, base: int, count: int) -> FieldArray:
        """Return base^0 .. base^(count - 1): the first ones as integers, then by doubling."""
        out = np.empty(count, dtype=np.uint64)
        first, power = [], 1
        for _ in range(min(count, _SMALL)):
            first.append(power)
            power = power * base % self.p
        done = len(first)
        out[:done] = first
        while done < count:
            size = min(done, count - done)
            factor = np.array([pow(base, done, self.p)], dtype=np.uint64)
            out[done : done + size] = self.mul(out[:size], factor)
            done += size
        return out

    def sub(self, left: FieldArray, right: FieldArray) -> FieldArray:
        """Return differences, element by element."""
        return self.reduce(left + (np.uint64(self.p) - right))

    def dot(self, left: FieldArray, right: FieldArray) -> int:
        """Return the inner product of two vectors."""
        products = self.mul(left, right)
        low, high = (products & _LOW32).sum(dtype=np.uint64), (products >> _32).sum(dtype=np.uint64)
        return (int(low) + (int(high) << 32)) % self.p

    def evaluate(self, coefficients: FieldArray, lowest: int, point: int) -> int:
        """Return sum_k coefficients[k] * point^(lowest + k); point is not 0."""
        total = self._horner(coefficients, point)
        base, exponent = (point, lowest) if lowest >= 0 else (self.inverse(point), -lowest)
        return total * pow(base, exponent, self.p) % self.p

    def _horner(self, coefficients: FieldArray, point: int) -> int:
        if len(coefficients) <= _SMALL:
            total = 0
            for coefficient in reversed(coefficients.tolist()):
                total = (total * point + coefficient) % self.p
            return total
        return self.dot(coefficients, self.powers(point, len(coefficients)))

    def convolve(self, left: FieldArray, right: FieldArray) -> FieldArray:
        """Return the coefficients of the product of two polynomials, through one product of long integers."""
        slot = (2 * 61 + max(len(left), len(right)).bit_length() + 7) // 8 + 1
        packed = [
            int.from_bytes(b"".join(v.to_bytes(slot, "little") for v in side.tolist()), "little")
            for side in (left, right)
        ]
        size = len(left) + len(right) - 1
        body = (packed[0] * packed[1]).to_bytes(slot * (size + 1), "little")
        return self.array([int.from_bytes(body[slot * k : slot * (k + 1)], "little") for k in range(size)])

    def cross_blocks(self, left: FieldArray, right: FieldArray, lanes: int, slots: int) -> list[int]:
        """Return `cross` of two vectors in blocks of `lanes` lanes of `slots` elements; a last block is filled with zeros."""
        return self.cross(_rows(left, lanes, slots), _rows(right, lanes, slots))

    def combine_blocks(self, vector: FieldArray, coefficients: FieldArray, slots: int) -> FieldArray:
        """Return `combine` of a vector in blocks of len(coefficients) lanes of `slots` elements: `slots` elements a block."""
        return self.combine(_rows(vector, len(coefficients), slots), coefficients.tolist())


def _rows(vector: FieldArray, lanes: int, slots: int) -> FieldArray:
    """Return a vector in blocks as (lanes, columns), column = block * slots + place in the block."""
    blocks = -(-len(vector) // (lanes * slots))
    padded = np.zeros(blocks * lanes * slots, dtype=np.uint64)
    padded[: len(vector)] = vector
    cut = padded.reshape(blocks, lanes, slots).transpose(1, 0, 2)
    return np.ascontiguousarray(cut).reshape(lanes, -1)


class Field61(PrimeField):
    """The field of p = 2^61 - 1."""

    p = P61

    def reduce(self, words: NDArray[np.uint64]) -> FieldArray:
        """Return any uint64 words mod p."""
        out = words & _P
        out += words >> _61
        np.subtract(out, _P, out=out, where=out >= _P)
        return out

    def mul(self, left: FieldArray, right: FieldArray) -> FieldArray:
        """Return products, element by element, through the 128-bit product in four 32-bit parts."""
        left_high, left_low = left >> _32, left & _LOW32
        right_high, right_low = right >> _32, right & _LOW32
        middle = left_high * right_low + left_low * right_high
        low = left_low * right_low
        total = (left_high * right_high) << np.uint64(3)
        total += (middle >> _29) + ((middle & _LOW29) << _32)
        total += (low & _P) + (low >> _61)
        return self.reduce(total)

    def combine(self, rows: FieldArray, coefficients: Sequence[int]) -> FieldArray:
        """Return sum_a coefficients[a] * rows[a] by products of 16-bit limbs, in chunks of columns."""
        lanes, columns = rows.shape
        weights = np.zeros((_SHIFTS, lanes, _LIMBS))
        for lane, value in enumerate(coefficients):
            for place in range(_LIMBS):
                limb = (value >> (16 * place)) & 0xFFFF
                for other in range(_LIMBS):
                    weights[place + other, lane, other] = limb
        flat = weights.reshape(_SHIFTS, lanes * _LIMBS)
        tile = _tile(_SHIFTS * lanes * _LIMBS)
        out = np.empty(columns, dtype=np.uint64)
        for start in range(0, columns, _CHUNK_COLUMNS):
            part = rows[:, start : start + _CHUNK_COLUMNS]
            sums = np.matmul(flat, _limb_tiles(part, tile)).astype(np.uint64).transpose(1, 0, 2)
            out[start : start + _CHUNK_COLUMNS] = self._recombine(sums).reshape(-1)[: part.shape[1]]
        return out

    def cross(self, left: FieldArray, right: FieldArray) -> list[int]:
        """Return the diagonal sums of left @ right^T by products of 16-bit limbs."""
        lanes, columns = left.shape
        tile = _tile((lanes * _LIMBS) ** 2)
        total = np.zeros((lanes, lanes), dtype=np.uint64)
        for begin in range(0, columns, _EXACT_COLUMNS):
            sums = np.zeros((lanes * _LIMBS, lanes * _LIMBS))
            for start in range(begin, min(begin + _EXACT_COLUMNS, columns), _CHUNK_COLUMNS):
                block = slice(start, min(start + _CHUNK_COLUMNS, begin + _EXACT_COLUMNS))
                first, second = _limb_tiles(left[:, block], tile), _limb_tiles(right[:, block], tile)
                sums += np.matmul(first, second.transpose(0, 2, 1)).sum(axis=0)
            parts = sums.astype(np.uint64).reshape(lanes, _LIMBS, lanes, _LIMBS)
            by_shift = np.zeros((_SHIFTS, lanes, lanes), dtype=np.uint64)
            for place in range(_LIMBS):
                for other in range(_LIMBS):
                    by_shift[place + other] += parts[:, place, :, other]
            total = self.reduce(total + self._recombine(by_shift))
        return [sum(int(value) for value in total.diagonal(-degree)) % self.p for degree in range(-(lanes - 1), lanes)]

    def uniform(self, words: NDArray[np.uint64]) -> FieldArray:
        """Return len(words) / 2 elements from 128 random bits each; 2^64 = 8 mod p."""
        if compiled():
            return calls.field_uniform(words)
        pairs = words.reshape(-1, 2)
        high = self.reduce(pairs[:, 1])
        return self.reduce(self.reduce(pairs[:, 0]) + ((high << np.uint64(3)) & _P) + (high >> np.uint64(58)))

    def powers(self, base: int, count: int) -> FieldArray:
        """Return base^0 .. base^(count - 1)."""
        return calls.field_powers(base, count) if compiled() else super().powers(base, count)

    def dot(self, left: FieldArray, right: FieldArray) -> int:
        """Return the inner product of two vectors."""
        return calls.field_dot(left, right) if compiled() else super().dot(left, right)

    def _horner(self, coefficients: FieldArray, point: int) -> int:
        return calls.field_evaluate(coefficients, point) if compiled() else super()._horner(coefficients, point)

    def convolve(self, left: FieldArray, right: FieldArray) -> FieldArray:
        """Return the coefficients of the product of two polynomials."""
        return calls.field_convolve(left, right) if compiled() else super().convolve(left, right)

    def cross_blocks(self, left: FieldArray, right: FieldArray, lanes: int, slots: int) -> list[int]:
        """Return `cross` of two vectors in blocks."""
        if slots == calls.SLOTS and compiled():
            return calls.field_cross(left, right, lanes)
        return super().cross_blocks(left, right, lanes, slots)

    def combine_blocks(self, vector: FieldArray, coefficients: FieldArray, slots: int) -> FieldArray:
        """Return `combine` of a vector in blocks."""
        if slots == calls.SLOTS and compiled():
            return calls.field_fold(vector, coefficients)
        return super().combine_blocks(vector, coefficients, slots)

    def _recombine(self, by_shift: NDArray[np.uint64]) -> FieldArray:
        """Return sum_s by_shift[s] * 2^(16 s) mod p: a multiplication by a power of two rotates 61 bits."""
        total = np.zeros(by_shift.shape[1:], dtype=np.uint64)
        for place in range(_SHIFTS):
            turn = (16 * place) % 61
            part = by_shift[place]
            total += ((part << np.uint64(turn)) & _P) + (part >> np.uint64(61 - turn))
        return self.reduce(total)


def _tile(work_per_column: int) -> int:
    """Return how many columns a matrix product may have so that the BLAS does it in one thread.

    Larger products of these thin shapes are split over threads, which costs more than the product and a thousand times as
    much on a busy host.
    """
    return max(1, _SINGLE_THREAD_WORK // work_per_column)


def _limb_tiles(rows: FieldArray, tile: int) -> NDArray[np.float64]:
    """Return 16-bit limbs as floats: (lanes, columns) to (tiles, lanes * 4, tile), zero behind the last column."""
    lanes, columns = rows.shape
    tiles = -(-columns // tile)
    if tiles * tile != columns:
        padded = np.zeros((lanes, tiles * tile), dtype=np.uint64)
        padded[:, :columns] = rows
        rows = padded
    source = rows.reshape(lanes, tiles, tile).transpose(1, 0, 2)
    out = np.empty((tiles, lanes, _LIMBS, tile))
    for place in range(_LIMBS):
        out[:, :, place] = (source >> np.uint64(16 * place)) & np.uint64(0xFFFF)
    return out.reshape(tiles, lanes * _LIMBS, tile)


FIELD_61 = Field61()
