"""Streams and keys of the protocol watched or remembered: every module has its own name for the functions that make them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from unittest import mock

import numpy as np

from mpc_ops.randomness import streams


@contextmanager
def replaced(derive: Callable[..., bytes], expand: Callable[..., np.ndarray]) -> Iterator[None]:
    """Let stages, proofs and shuffles call these instead of `streams.derive` and `streams.expand`."""
    with ExitStack() as patches:
        for name, module in list(sys.modules.items()):
            if name.startswith("mpc_ops.protocol."):
                for real, other in ((streams.derive, derive), (streams.expand, expand)):
                    for local in [local for local, value in vars(module).items() if value is real]:
                        patches.enter_context(mock.patch.object(module, local, other))
        yield


@contextmanager
def remembered() -> Iterator[None]:
    """Make every key and stream once: a session that is played again with one lie in it draws the same ones."""
    derive, stream = lru_cache(1 << 16)(streams.derive), lru_cache(1 << 14)(streams.expand)

    def expand(seed: bytes, lanes: int, *context: object) -> np.ndarray:
        return stream(seed, lanes, *context).copy()

    with replaced(derive, expand):
        yield
