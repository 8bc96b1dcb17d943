"""Opening the result: sealed parts, commitments, both copies of every component. Only the recipient runs this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from local_stores.errors import ComityError, NotYet, PeerProtocolError
from mpc_ops.envelope.canonical import canonical_bytes
from mpc_ops.envelope.sealing import OVERHEAD_BYTES, SealingKey
from mpc_ops.evidence.material import RunEvidence
from mpc_ops.notices.model import ResultCommitment
from mpc_ops.plan.layout import lane_count
from mpc_ops.plan.model import CrossNode
from mpc_ops.protocol.sums.result import ResultContext, combine_parts, result_part_bytes

__all__ = ["open_result", "sealed_part_bytes"]


def sealed_part_bytes(lanes: int) -> int:
    """Return the exact length of a sealed result part."""
    return result_part_bytes(lanes) + OVERHEAD_BYTES


def open_result(evidence: RunEvidence, sealed: Mapping[str, bytes], key: SealingKey) -> list[int]:
    """Return the result as signed integers, one per lane of the plan.

    Args:
        evidence: the run's verified material: plan, manifest and the three signed result commitments.
        sealed: sealed parts by operator; at least two.
        key: the recipient's sealing key.

    Raises:
        NotYet: RESULT_INCOMPLETE while fewer than two parts or three commitments are here.
        PeerProtocolError: SEAL_BROKEN, RESULT_INVALID naming the operator.
        Abort: RESULT_MISMATCH naming the pair. Nothing was combined.

    After this call: treat the result as known to this host even if the call raised.
    """
    cluster = evidence.plan.node(CrossNode).cluster  # type: ignore[attr-defined]
    members = evidence.clusters[cluster]
    commitments = {item.operator: item for item in evidence.of(ResultCommitment) if item.cluster == cluster}
    if len(commitments) < len(members):
        raise NotYet(
            "RESULT_INCOMPLETE",
            "result commitments are still to come",
            got=f"{len(commitments)} of {len(members)}",
            ids={"run": evidence.run[:12]},
        )
    context = ResultContext(
        run_id=evidence.run,
        cluster=cluster,
        recipient=evidence.close.recipient,
        attempt=min(item.attempt for item in commitments.values()),
        lanes=lane_count(evidence.plan),
        members=(members[0], members[1], members[2]),
    )
    said: dict[int, Sequence[str | None]] = {place: commitments[name].commitments for place, name in enumerate(members)}
    parts = {place: _opened(evidence, name, sealed[name], key) for place, name in enumerate(members) if name in sealed}
    return [int(value) for value in combine_parts(context, parts, said).view(np.int64)]


def _opened(evidence: RunEvidence, operator: str, sealed: bytes, key: SealingKey) -> bytes:
    info = canonical_bytes(
        {"box": "comity/result/v1", "run": evidence.run, "operator": operator, "recipient": evidence.close.recipient}
    )
    try:
        return key.open(sealed, info)
    except ComityError as error:
        raise PeerProtocolError(error.code, error.what, ids={"run": evidence.run[:12], "party": operator}) from None
