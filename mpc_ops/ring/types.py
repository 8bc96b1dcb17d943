"""Array types of the ring."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["LANE_BYTES", "RingArray", "SignedArray"]

RingArray: TypeAlias = NDArray[np.uint64]
"""Vector over Z_2^64: shape (n,), dtype uint64, contiguous."""

SignedArray: TypeAlias = NDArray[np.int64]
"""Plain values before encoding and after decoding: shape (n,), dtype int64."""

LANE_BYTES = 8
