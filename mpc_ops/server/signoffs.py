"""The owner's people sign a salted commitment to their own figures; how many must is a term of the report."""

from __future__ import annotations

import base64
import binascii

from mpc_ops.envelope.canonical import canonical_bytes
from mpc_ops.envelope.keys import IdentityPublicKey, Purpose
from mpc_ops.errors import DeliveryError
from mpc_ops.federation.model import Owner
from mpc_ops.notices.model import Filed
from mpc_ops.server.reports import Report

__all__ = ["check_sign_offs", "sign_off_message"]


def sign_off_message(filed: Filed) -> bytes:
    """Return the bytes that a signer signs (purpose SIGN_OFF)."""
    return canonical_bytes(
        {
            "plan": filed.plan,
            "period": filed.period,
            "owner": filed.owner,
            "edition": filed.edition,
            "contribution": filed.contribution,
        }
    )


def check_sign_offs(filed: Filed, report: Report, owner: Owner) -> None:
    """Insist on as many different signers as the terms demand, over exactly this contribution.

    Raises:
        DeliveryError: SIGN_OFF_MISSING; SIGN_OFF_FOREIGN for a stranger's signature or one over other figures.
    """
    ids = {"owner": filed.owner, "period": filed.period, "take": filed.take}
    message = sign_off_message(filed)
    signers = set()
    for item in filed.sign_offs:
        text = owner.signers.get(item.signer)
        if text is None or not _verifies(text, item.signature, message):
            raise DeliveryError(
                "SIGN_OFF_FOREIGN", "a sign-off is not by a signer of this owner, or is over other figures", ids=ids
            )
        signers.add(item.signer)
    if len(signers) < report.plan.terms.sign_off:
        raise DeliveryError(
            "SIGN_OFF_MISSING",
            "too few people signed the owner's figures",
            expected=report.plan.terms.sign_off,
            got=len(signers),
            ids=ids,
        )


def _verifies(key: str, signature: str, message: bytes) -> bool:
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return IdentityPublicKey.from_text(key).verify(raw, message, Purpose.SIGN_OFF)
