"""Sending: parts first, then notices, each under a name that holds its digest, so that a repetition is a no-op."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from local_stores.config import State
from local_stores.delivery.sealing import Take, read_part_box
from mpc_ops.notices.signed import SignedNotice

if TYPE_CHECKING:
    import paramiko

__all__ = ["send_notice", "send_take"]


def send_take(
    state: State, take: Take, operator: str, session: paramiko.SFTPClient, *, before: Iterable[SignedNotice] = ()
) -> bool:
    """Deliver one operator's part and then the `filed` notice.

    Args:
        state: where the take lies.
        take: the filing.
        operator: whose drop-box `session` is.
        session: an open SFTP session of the owner's account.
        before: notices that the operator should have first (the owner's approvals).

    Returns:
        True if everything lay there already.

    Raises:
        DeliveryError, PeerUnavailable, PeerTimeout: as `put_once`. ConfigError: STATE_MISSING, FILING_DAMAGED.
    """
    from local_stores.delivery.sftp import put_once  # noqa: PLC0415 - paramiko, only where used

    box = read_part_box(state, take, operator)
    there = [send_notice(notice, operator, session) for notice in before]
    if box is not None:
        there.append(put_once(session, f"part.{box[0]}", box[1], party=operator).was_there)
    return all([*there, send_notice(take.notice, operator, session)])


def send_notice(notice: SignedNotice, operator: str, session: paramiko.SFTPClient) -> bool:
    """Deliver a notice; return True if one with its digest lay there already.

    A notice is named by its payload, and signatures are randomised: an earlier copy may have another length. It says
    the same, so it counts as delivered.
    """
    from local_stores.delivery.sftp import put_once  # noqa: PLC0415 - paramiko, only where used
    from local_stores.errors import DeliveryError  # noqa: PLC0415

    try:
        return put_once(session, f"notice.{notice.digest}", notice.envelope.to_bytes(), party=operator).was_there
    except DeliveryError as error:
        if error.code == "NAME_TAKEN":
            return True
        raise
