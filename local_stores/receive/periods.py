"""Asking the three group operators about a period or a run, and what their three answers say together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from local_stores.errors import ComityError, ConfigError, PeerProtocolError
from local_stores.receive.client import ApiClient, GroupClients, first_transient, raise_terminal
from mpc_ops.envelope.schema import Model, from_plain
from mpc_ops.evidence.status import OwnerStatus, PeriodStatus, RunStatus

__all__ = ["merged_period", "run_answers"]

M = TypeVar("M", bound=Model)
_ORDER = ("EXPECTED", "RECEIVED", "REJECTED", "AGREED", "DISPUTED", "WITHDRAWN")


def _strict(value: object, kind: type[M], client: ApiClient, what: str) -> M:
    try:
        return from_plain(value, kind, what=what)
    except ConfigError as error:
        raise PeerProtocolError("API_INVALID", error.what, got=error.got, ids={"party": client.operator}) from None


def merged_period(clients: GroupClients, plan: str, period: str) -> PeriodStatus:
    """Return a period's state as the operators together know it.

    Notices reach the three at different moments, so the newest edition counts, and for an owner the highest take and
    the most advanced state of it. None of it is believed for good: region operators check every submission that the
    manifest names, and signatures come with the evidence.

    Raises:
        TransportError: no operator answered. PeerProtocolError: API_INVALID naming the operator.
        ComityError: what an operator refuses.
    """

    def ask(client: ApiClient) -> PeriodStatus:
        status = _strict(client.period(plan, period), PeriodStatus, client, "period status")
        if (status.plan, status.period) != (plan, period):
            raise PeerProtocolError(
                "API_INVALID", "an operator answers for another period", ids={"party": client.operator}
            )
        return status

    answers, errors = clients.each(ask)
    raise_terminal(errors)
    if not answers:
        raise first_transient(errors)
    edition = max(status.edition for status in answers.values())
    newest = [status for status in answers.values() if status.edition == edition]
    closed = [status for status in newest if status.run is not None]
    furthest = closed[0] if closed else newest[0]
    owners: dict[str, OwnerStatus] = {}
    for status in newest:
        for name, owner in status.owners.items():
            owners[name] = owner if name not in owners else _further(owners[name], owner)
    return PeriodStatus(
        plan=plan,
        period=period,
        edition=edition,
        state=furthest.state,
        opens_at=furthest.opens_at,
        due_at=max(status.due_at for status in newest),
        overdue=all(status.overdue for status in newest),
        owners={name: owners[name] for name in sorted(owners)},
        reference=next((status.reference for status in newest if status.reference), None),
        run=furthest.run,
    )


def _further(one: OwnerStatus, other: OwnerStatus) -> OwnerStatus:
    return max(one, other, key=lambda owner: (owner.take, _ORDER.index(owner.state)))


def run_answers(clients: GroupClients, run: str) -> tuple[Mapping[str, RunStatus], Mapping[str, ComityError]]:
    """Return every operator's word on a run, and the errors of those that gave none."""

    def ask(client: ApiClient) -> RunStatus:
        status = _strict(client.run(run), RunStatus, client, "run status")
        if status.run != run:
            raise PeerProtocolError(
                "API_INVALID", "an operator answers for another run", ids={"party": client.operator}
            )
        return status

    return clients.each(ask)
