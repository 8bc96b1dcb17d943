"""Keep freed memory in the process: fresh pages cost the kernel more time than the arithmetic that fills them.

A stage makes and drops vectors of megabytes again and again. The C library gives each of them back to the system and asks for
it anew, and the system clears every page: about 1 GB/s, a tenth of what the processor adds. `keep_memory` raises the two limits
of glibc's allocator; other C libraries are left as they are. The process then holds what it needed at most until it ends: with one
arena for all threads, or what a link's thread received could not be used again by the one that computes.
"""

from __future__ import annotations

import contextlib
import ctypes

__all__ = ["keep_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT = (1 << 31) - 1
_LARGEST = 1 << 30


def keep_memory() -> bool:
    """Let freed vectors of up to 1 GiB be used again by this process; return whether the C library took it.

    Call it once, early, in a process that computes. It changes the whole process.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        limits = ((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, _KEPT), (_M_ARENA_MAX, 1))
        return all(bool(mallopt(*limit)) for limit in limits)
    return False
