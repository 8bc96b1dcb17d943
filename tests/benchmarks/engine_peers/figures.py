"""MP-SPDZ's figures and the targets against them.

MP-SPDZ was built from source and measured by this project on a 2-core server (AES-NI, AVX-512), three processes on loopback,
encrypted links, tuned batch sizes, 64-bit values unless the key says otherwise. It is not run here, so ratios to these seconds
are indicative: identical programs moved by up to 2.5 times on that machine. Bytes are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MP_SPDZ", "SPU", "Figure", "Target"]


@dataclass(frozen=True)
class Figure:
    """What a peer took: median seconds, megabytes (10^6) sent per party, and how it was run."""

    seconds: float
    megabytes: float
    mode: str


@dataclass(frozen=True)
class Target:
    """Largest ratios wanted: passive time and bytes, active time and bytes; None where the peer has no figure."""

    passive: tuple[float, float]
    active: tuple[float, float]


_PASSIVE = "replicated-ring"

MP_SPDZ: dict[str, tuple[int, Figure, Figure | None, Target]] = {
    "W1": (1_000_000, Figure(0.073, 8.0, _PASSIVE), Figure(0.51, 26.0, "sy-rep-ring"), Target((0.7, 1.0), (0.5, 0.65))),
    "W2": (
        1_000_000,
        Figure(0.49, 38.4, _PASSIVE),
        Figure(15.0, 414.0, "sy (time), ps (bytes)"),
        Target((0.5, 0.8), (0.1, 0.1)),
    ),
    "W3": (1_000_000, Figure(0.50, 47.2, _PASSIVE), Figure(25.0, 531.0, "sy-rep-ring"), Target((0.5, 0.8), (0.1, 0.1))),
    "W4/32": (
        100_000,
        Figure(4.59, 335.0, _PASSIVE),
        Figure(25.0, 1105.0, "sy-rep-ring"),
        Target((0.2, 0.25), (0.1, 0.1)),
    ),
    "W4/64": (100_000, Figure(9.53, 670.0, _PASSIVE), None, Target((0.2, 0.25), (0.1, 0.1))),
    "W4b": (100_000, Figure(9.53, 670.0, _PASSIVE + ", by sorting"), None, Target((0.2, 0.25), (0.1, 0.1))),
    "W5/32": (10_000, Figure(1.04, 67.5, _PASSIVE), Figure(3.85, 228.0, "sy-rep-ring"), Target((0.3, 0.3), (0.2, 0.2))),
    "W5/64": (50_000, Figure(8.53, 674.0, _PASSIVE), None, Target((0.3, 0.3), (0.2, 0.2))),
    "W6/7": (100_000, Figure(1.03, 87.0, _PASSIVE), Figure(5.9, 289.0, "sy-rep-ring"), Target((0.4, 0.4), (0.3, 0.25))),
    "W6/32": (100_000, Figure(4.12, 350.0, _PASSIVE), None, Target((0.4, 0.4), (0.3, 0.25))),
    "W7": (10_000_000, Figure(0.32, 26.7, _PASSIVE), Figure(0.72, 26.7, "ps-rep-ring"), Target((0.7, 1.0), (0.8, 1.0))),
}
"""By workload: rows, passive figure, best active 3-party figure (None: not measured), targets."""

SPU: dict[str, float] = {"W4/64": 0.4, "W4b": 0.4}
"""Largest ratios of passive time to SPU's in the same run, where there is such a target."""
