"""Who talks to whom and which notices go where. Everything that is not named here goes nowhere.

Links: the lower rank of a cluster dials; a region operator dials every group operator. Nothing else is connected, so the
notices of one region reach another region through the group operators only.
"""

from __future__ import annotations

from mpc_ops.errors import ConfigError
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import (
    Ack,
    Approval,
    Cancel,
    DisputeNotice,
    Erased,
    Filed,
    Manifest,
    Notice,
    Outcome,
    PeriodKeyNotice,
    Receipt,
    Reference,
    Rejected,
    Release,
    Reopen,
    ResultCommitment,
    State,
    Statement,
    Withdrawal,
)
from mpc_ops.server.config import parse_address
from mpc_ops.transport.peers import PeerEndpoint

__all__ = ["class_of", "concerns", "dials", "group_operators", "peer_table", "peers_of", "run_named_by"]

_EVERYBODY = (
    Release, Reference, Approval, Withdrawal, Filed, Manifest, Cancel, Reopen, State, Statement, Ack, Erased, Outcome,
)  # fmt: skip


def group_operators(federation: Federation) -> frozenset[str]:
    """Operators of all group clusters."""
    clusters = federation.terms.clusters.values()
    return frozenset(name for cluster in clusters if cluster.kind == "group" for name in cluster.operators)


def _shared(federation: Federation, one: str, other: str) -> str | None:
    names = sorted(set(federation.clusters_of(one)) & set(federation.clusters_of(other)))
    return names[0] if names else None


def peers_of(federation: Federation, operator: str) -> list[str]:
    """Operators that `operator` has a link with."""
    group = group_operators(federation)
    others = (name for name in federation.terms.operators if name != operator)
    return sorted(
        name for name in others if _shared(federation, operator, name) is not None or operator in group or name in group
    )


def dials(federation: Federation, one: str, other: str) -> bool:
    """Return whether `one` dials `other` (exactly one end of a link does)."""
    shared = _shared(federation, one, other)
    if shared is not None:
        order = federation.cluster(shared).operators
        return order.index(one) < order.index(other)
    return other in group_operators(federation)


def peer_table(federation: Federation, operator: str) -> dict[str, PeerEndpoint]:
    """Return the peers of an operator with addresses and pinned authorities from the directory.

    Raises:
        ConfigError: DIRECTORY_MISSING, DIRECTORY_EXPIRED, DIRECTORY_INCOMPLETE.
    """
    table = {}
    for peer in peers_of(federation, operator):
        entry = federation.entry(peer)
        if entry.link is None or not entry.tls_cas:
            raise ConfigError(
                "DIRECTORY_INCOMPLETE", "a peer's directory entry has no link address or authority", ids={"party": peer}
            )
        host, port = parse_address(entry.link, f"link of {peer}")
        table[peer] = PeerEndpoint(
            host=host, port=port, dial=dials(federation, operator, peer), ca_pins=tuple(entry.tls_cas)
        )
    return table


def run_named_by(notice: Notice) -> str | None:
    """Return the run a notice names, None if it names none."""
    run = getattr(notice, "run", None)
    return None if run is None else str(run)


def class_of(notice: Notice) -> PayloadClass:
    """Return the payload class of a notice in ledgers."""
    if isinstance(notice, Statement):
        return PayloadClass.EVIDENCE
    if isinstance(notice, PeriodKeyNotice):
        return PayloadClass.KEY_MATERIAL
    if isinstance(notice, (ResultCommitment, DisputeNotice)):
        return PayloadClass.MAC_OR_COMMITMENT
    return PayloadClass.CONTROL_METADATA


def concerns(federation: Federation, operator: str, notice: Notice) -> bool:
    """Return whether `operator` holds notices like this one."""
    if isinstance(notice, _EVERYBODY):
        return True
    if isinstance(notice, PeriodKeyNotice):
        return operator == notice.operator or _shared(federation, operator, notice.operator) is not None
    if isinstance(notice, (Receipt, Rejected)):
        near = operator == notice.operator or _shared(federation, operator, notice.operator) is not None
        return near or operator in group_operators(federation)
    if isinstance(notice, DisputeNotice):
        # The cluster's own affair, and the group operators', through whom the recipient and the other regions hear of it.
        within = federation.terms.clusters.get(notice.cluster)
        return within is not None and (operator in within.operators or operator in group_operators(federation))
    # What is left is a result commitment; a new kind of notice does not pass the type check until it is named above.
    cluster = federation.terms.clusters.get(notice.cluster)
    return cluster is not None and operator in cluster.operators
