"""Public networks that merge sorted runs of any lengths: Batcher's odd-even merge, padded, with the padding worked out in public.

Runs are padded with "behind everything" to one power of two. Where the padding stands after each layer follows from the lengths
alone, so comparators with padding are public moves and only comparators of two real rows are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["MergeLayer", "merge_layers"]

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MergeLayer:
    """Comparators of one layer: the smaller row of each pair goes to slot `low`, the larger one to slot `high`."""

    low: Index
    high: Index


def merge_layers(lengths: Sequence[int]) -> tuple[list[MergeLayer], Index]:
    """Return layers and the final order of slots for runs that stand one after another.

    Args:
        lengths: of the sorted runs; slot numbers are places in the runs one after another.

    Returns:
        Layers, to be done in order, each of independent comparators; and order: row j of the result is in slot order[j].
        For two runs of m rows each there are 1 + log2 m layers with about m log2 m + 1 comparators, m a power of two.
    """
    ends = np.cumsum(np.array([0, *lengths], dtype=np.int64))
    runs = [np.arange(start, stop, dtype=np.int64) for start, stop in pairwise(ends.tolist())]
    layers: list[MergeLayer] = []
    while len(runs) > 1:
        pairs = [_merge_two(one, other) for one, other in zip(runs[::2], runs[1::2], strict=False)]
        depth = max(len(steps) for steps, _ in pairs)
        for number in range(depth):
            here = [steps[number] for steps, _ in pairs if number < len(steps)]
            low, high = (np.concatenate([step[side] for step in here]) for side in (0, 1))
            if len(low):
                layers.append(MergeLayer(low, high))
        runs = [order for _, order in pairs] + ([runs[-1]] if len(runs) % 2 else [])
    return layers, runs[0] if runs else np.zeros(0, dtype=np.int64)


def _merge_two(one: Index, other: Index) -> tuple[list[tuple[Index, Index]], Index]:
    """Return the comparators of each layer as slots, and the slots in order at the end."""
    if len(one) == 0 or len(other) == 0:
        return [], np.concatenate([one, other])
    half = 1 << max(0, max(len(one), len(other)) - 1).bit_length()
    wires = np.full(2 * half, -1, dtype=np.int64)
    wires[: len(one)], wires[half : half + len(other)] = one, other
    steps, distance = [], half
    while distance:
        low = np.arange(half, dtype=np.int64)
        if distance < half:
            low = np.arange(distance, 2 * half - distance, dtype=np.int64)
            low = low[(low // distance) % 2 == 1]
        high = low + distance
        real_low, real_high = wires[low] >= 0, wires[high] >= 0
        both = real_low & real_high
        steps.append((wires[low][both], wires[high][both]))
        moved = ~real_low & real_high
        wires[low[moved]], wires[high[moved]] = wires[high[moved]], -1
        distance //= 2
    return steps, wires[wires >= 0]
