"""Link profiles: the round-trip time and bandwidth of another network, simulated in the sender, the same on every machine.

A message is handed over at some moment; the profile says when each piece of it would have arrived on that network, and the
sender writes it then. That moment is a sum, not a measurement: the line is free again when the last bit of the piece before
has left (a token bucket without burst), and what has left arrives half a round trip later (a delay line). So a WAN can be
measured between processes of one machine, as long as the machine itself is faster than the profile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpc_ops.errors import UsageError

__all__ = ["LinkProfile", "Pacer", "parse_profile"]

_FORM = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(us|ms|s):(\d{1,6}(?:\.\d{1,3})?)(kbit|mbit|gbit)", re.ASCII)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_BITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_MAX_RTT_S = 10.0
_MIN_BITS, _MAX_BITS = 8e3, 1e12


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """What a link is like, each way.

    Attributes:
        rtt_s: round-trip time in seconds.
        bytes_per_s: bandwidth of each direction of each link.
    """

    rtt_s: float
    bytes_per_s: float


def parse_profile(text: str) -> LinkProfile:
    """Return the profile written as `<time>(us|ms|s):<number>(kbit|mbit|gbit)`, for example `80ms:300mbit`.

    Raises:
        UsageError: LINK_PROFILE_INVALID for any other form, a round trip above 10 s, or a rate outside 8 kbit to 1000 gbit.
    """
    found = _FORM.fullmatch(text)
    if found:
        rtt_s = float(found[1]) * _SECONDS[found[2]]
        bits = float(found[3]) * _BITS[found[4]]
        if rtt_s <= _MAX_RTT_S and _MIN_BITS <= bits <= _MAX_BITS:
            return LinkProfile(rtt_s, bits / 8)
    raise UsageError(
        "LINK_PROFILE_INVALID",
        "a link profile cannot be read",
        expected="<time>(us|ms|s):<number>(kbit|mbit|gbit), at most 10 s, 8 kbit to 1000 gbit",
        hint="For example 80ms:300mbit",
    )


class Pacer:
    """The schedule of one direction of a link. Used by one thread."""

    def __init__(self, profile: LinkProfile) -> None:
        self._profile = profile
        self._free = 0.0

    def due(self, handed_over: float, size: int) -> float:
        """Return when `size` bytes that were handed over at that moment have arrived; call in the order of sending.

        Args:
            handed_over: seconds of a monotonic clock.
            size: bytes on the line.
        """
        self._free = max(self._free, handed_over) + size / self._profile.bytes_per_s
        return self._free + self._profile.rtt_s / 2
