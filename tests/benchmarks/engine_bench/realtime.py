"""Let the benchmark's processes go before all others, so that a busy machine can be measured."""

from __future__ import annotations

import os

__all__ = ["first_in_line"]


def first_in_line(pid: int) -> None:
    """Give a process (and threads that it begins later) real-time scheduling, round robin.

    Raises:
        SystemExit: if this user or system does not allow it.
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
    except (AttributeError, OSError) as error:
        raise SystemExit(
            f"--realtime is not possible here ({type(error).__name__}): it needs Linux and CAP_SYS_NICE"
        ) from None
