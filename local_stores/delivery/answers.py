"""What the operators answer to a filing: three receipts, or a rejection or dispute that names who and why."""

from __future__ import annotations

from collections.abc import Sequence

from local_stores.delivery.mirror import Mirror
from local_stores.delivery.sealing import Take
from local_stores.errors import DeliveryError
from mpc_ops.notices.model import Receipt, Rejected

__all__ = ["check_refusals", "receipts_of", "was_refused"]


def check_refusals(mirror: Mirror, take: Take) -> None:
    """Raise what an operator refused the filing for.

    Raises:
        DeliveryError: FILING_REJECTED naming operator and code; FILING_DISPUTED naming the pair.
    """
    for _, refused in mirror.of(Rejected):
        if refused.filing != take.filing:
            continue
        ids: dict[str, object] = {
            "owner": take.filed.owner, "filing": take.filing[:16], "operator": refused.operator, "code": refused.code,
        }  # fmt: skip
        if refused.pair:
            raise DeliveryError(
                "FILING_DISPUTED",
                f"the holders of a component disagree: {' and '.join(refused.pair)} ({refused.code})",
                ids=ids,
                hint="Share again to make a new take; if it is disputed again, one of the two is at fault",
            )
        raise DeliveryError(
            "FILING_REJECTED", f"{refused.operator} refuses the filing ({refused.code}): {refused.reason}", ids=ids
        )


def was_refused(mirror: Mirror, take: Take) -> bool:
    """Return whether an operator refused or disputed the filing."""
    return any(refused.filing == take.filing for _, refused in mirror.of(Rejected))


def receipts_of(mirror: Mirror, take: Take, operators: Sequence[str]) -> dict[str, str]:
    """Return the digest of each operator's receipt for the filing, as far as they are there."""
    found = {receipt.operator: digest for digest, receipt in mirror.of(Receipt) if receipt.filing == take.filing}
    return {operator: found[operator] for operator in operators if operator in found}
