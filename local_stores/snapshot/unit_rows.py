"""One row of bits per protected unit: in which leaf cells it has rows. What a Gate in the region counts.

Rows are kept sorted by their bits: equal figures give equal rows whatever the units are called and in whatever order a
store returns them, so a sign-off holds for them. Before they are shared they are padded and put into random order.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mpc_ops.randomness import SEED_BYTES, expand
from mpc_ops.ring.planes import PlaneArray
from mpc_ops.sharing import padded_rows, unit_planes

__all__ = ["Bools", "level_counts", "pack_rows", "shuffled_planes", "unit_rows", "unpack_rows"]

Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


def unit_rows(units: Int64, leaf: Int64, leaves: int) -> Bools:
    """Return the sorted rows of bits of a slice.

    Args:
        units: number of the protected unit of each row of the unit table, shape (n,).
        leaf: number of its leaf cell, shape (n,).
        leaves: number of leaf cells.

    Returns:
        Shape (distinct units, leaves).
    """
    names, row = np.unique(units, return_inverse=True)
    bits = np.zeros((len(names), leaves), np.bool_)
    bits[row.reshape(-1), leaf] = True
    packed = np.packbits(bits, axis=1)
    return bits[np.lexsort(packed.T[::-1])] if len(bits) else bits


def pack_rows(bits: Bools) -> str:
    """Return rows as base64 text, each padded to whole bytes."""
    return base64.b64encode(np.packbits(bits, axis=1).tobytes()).decode("ascii")


def unpack_rows(text: str, leaves: int) -> Bools:
    """Return the rows that `pack_rows` made; raise ValueError for anything else."""
    packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8).reshape(-1, -(-leaves // 8))
    return np.unpackbits(packed, axis=1, count=leaves).astype(np.bool_)


def shuffled_planes(bits: Bools, seed: bytes) -> PlaneArray:
    """Return the planes of a table with its padding rows among the others, in an order that only the seed tells.

    Args:
        bits: rows of a slice.
        seed: 32 fresh secret bytes, for one table.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError("a seed has 32 bytes")
    padded = np.zeros((padded_rows(len(bits)), bits.shape[1]), np.bool_)
    padded[: len(bits)] = bits
    return unit_planes(padded[np.argsort(expand(seed, len(padded), "row order"), kind="stable")])


def level_counts(bits: Bools, sizes: Sequence[int]) -> list[Int64]:
    """Return distinct units of every cell, then of every shorter prefix, deepest first.

    Args:
        bits: rows of a slice, one bit per leaf cell in row-major order.
        sizes: sizes of the dimensions, outermost first.

    Returns:
        Arrays of as many numbers as there are leaves, prefixes of d-1 values, ..., prefixes of none.
    """
    level = bits
    out = [level.sum(axis=0, dtype=np.int64)]
    for size in reversed(sizes):
        level = np.logical_or.reduce(level.reshape(len(bits), level.shape[1] // size, size), axis=2)
        out.append(level.sum(axis=0, dtype=np.int64))
    return out
