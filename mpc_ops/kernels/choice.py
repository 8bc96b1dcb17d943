"""Which kernels do the work: `compiled` or `numpy`."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from mpc_ops.errors import ConfigError
from mpc_ops.kernels import calls

__all__ = ["KERNELS_VARIABLE", "Backend", "available", "backend", "compiled", "using"]

Backend: TypeAlias = Literal["compiled", "numpy"]

KERNELS_VARIABLE = "COMITY_KERNELS"
_log = logging.getLogger(__name__)
_lock = threading.Lock()
_chosen: Backend | None = None


def available() -> bool:
    """Say whether the compiled extension could be loaded here."""
    return calls.PRESENT


def backend() -> Backend:
    """Return the kernels in use; decided at the first call and then the same for the life of the process.

    Raises:
        ConfigError: KERNELS_UNKNOWN, KERNELS_MISSING.
    """
    global _chosen  # noqa: PLW0603 - decided once in a process
    if _chosen is None:
        with _lock:
            if _chosen is None:
                _chosen = _choose()
    return _chosen


def compiled() -> bool:
    """Say whether the compiled kernels do the work."""
    return backend() == "compiled"


def _choose() -> Backend:
    wanted = os.environ.get(KERNELS_VARIABLE, "")
    if wanted not in {"", "numpy", "compiled"}:
        raise ConfigError("KERNELS_UNKNOWN", f"{KERNELS_VARIABLE} names no kernels", expected="numpy or compiled")
    if wanted == "numpy":
        return "numpy"
    if available():
        return "compiled"
    if wanted == "compiled":
        raise ConfigError(
            "KERNELS_MISSING",
            f"{KERNELS_VARIABLE} asks for the compiled kernels and this installation has none",
            hint="Install a C compiler and Python's headers, then install comity-mpc again",
        )
    _log.warning(
        "No compiled kernels here: numpy does their work. Results are the same; proofs take several times longer."
    )
    return "numpy"


@contextmanager
def using(name: Backend) -> Iterator[None]:
    """Use other kernels for a while, in the whole process: for tests and benchmarks."""
    global _chosen  # noqa: PLW0603 - see backend
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before
