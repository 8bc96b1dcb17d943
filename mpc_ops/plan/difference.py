"""The difference rule: two released editions of a period must not isolate a few owners.

The difference of two released totals is the total of the owners in which they differ. Where that is fewer than `min_owners`,
each of them must have accepted it in its own signed filing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mpc_ops.errors import PolicyViolation

__all__ = ["EditionOwners", "check_difference"]


@dataclass(frozen=True, slots=True)
class EditionOwners:
    """Who is in one edition of a period.

    Attributes:
        edition: number of the edition (of this or another report on the same dataset and period).
        owners: owners whose filings carry data in it.
        accepts: those of them whose filing says `accepts_difference`.
        report: name of the report, for the message.
    """

    edition: int
    owners: frozenset[str]
    accepts: frozenset[str] = frozenset()
    report: str = ""


def check_difference(new: EditionOwners, released: Iterable[EditionOwners], *, min_owners: int) -> None:
    """Check a new edition against every edition that is already released.

    Args:
        new: the edition that is about to be closed.
        released: earlier editions of the same dataset and period whose result is out.
        min_owners: the least number of owners in which two editions may differ, unless they are equal.

    Raises:
        PolicyViolation: MANIFEST_DIFFERENCE naming the owners that have not accepted it.
    """
    for other in released:
        difference = new.owners ^ other.owners
        if not 0 < len(difference) < min_owners:
            continue
        # An owner that left is not in the new edition, so its acceptance may stand in the earlier filing.
        missing = sorted(difference - new.accepts - other.accepts)
        if missing:
            raise PolicyViolation(
                "MANIFEST_DIFFERENCE",
                f"edition {new.edition} and released edition {other.edition} differ in fewer than {min_owners} data owners, "
                "so their difference would disclose those owners' figures",
                expected="a filing with accepts_difference from each",
                got="none from " + ", ".join(missing),
                ids={"report": other.report or new.report or "this report"},
                hint="Close with the same data owners, or let the named ones file again and accept it",
            )
