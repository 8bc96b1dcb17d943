"""From a started run to published files: wait, fetch, verify, publish, acknowledge. Each step may be repeated."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from local_stores.closing.basis import basis_of
from local_stores.closing.desk import Desk, open_desk
from local_stores.closing.wrapup import collect, own_evidence, write_evidence
from local_stores.config.site import Site
from local_stores.errors import ComityError, EvidenceError, NotYet, StateError
from local_stores.receive.client import ApiClient, GroupClients, first_transient, raise_terminal
from local_stores.receive.opening import open_result, sealed_part_bytes
from local_stores.receive.periods import run_answers
from mpc_ops.evidence.bundle import MAX_BUNDLE_BYTES, read_bundle
from mpc_ops.evidence.checks import assess
from mpc_ops.evidence.material import RunEvidence
from mpc_ops.evidence.status import RunStatus, first_cause
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import Ack, Manifest, ResultCommitment, State
from mpc_ops.notices.signed import parse_notice, sign_notice, utc_text
from mpc_ops.plan.layout import lane_count
from mpc_ops.plan.model import DeliverNode

__all__ = ["acknowledge", "fetch", "publish", "result_ready", "run_status", "verify"]

_ENDED = frozenset({"FAILED", "REFUSED", "CANCELLED"})
_COMMITTED = frozenset({"COMMITTED", "PUBLISHED", "ERASED", "SEALED"})
_PAUSE_S = 0.5
_PARTS_NEEDED = 2

Run = Mapping[str, Any]


def _words(status: RunStatus) -> dict[str, Any]:
    stall = status.stall
    return {
        "state": status.state,
        "phase": status.phase,
        "code": status.code,
        "blamed": list(status.pair),
        "regions": list(status.regions),
        "done": list(status.done),
        "stalled": None
        if stall is None
        else {"party": stall.party, "code": stall.code, "since": _moment(stall.since_ms)},
        "sessions": {
            cluster: {name: f"{s.state} {s.code or ''}".strip() for name, s in sorted(found.items())}
            for cluster, found in sorted(status.sessions.items())
        },
        "statements": len(status.statements),
    }


def _moment(since_ms: int) -> str:
    return utc_text(datetime.fromtimestamp(since_ms / 1000, tz=UTC))


def run_status(site: Site, run_id: str) -> dict[str, Any]:
    """Return what each group operator says about a run: JSON for people and the command line."""
    desk = open_desk(site)
    with desk.clients(desk.report_of(desk.run(run_id).manifest()).group) as clients:
        answers, errors = run_answers(clients, run_id)
    return {
        "run_id": run_id,
        "operators": {
            **{name: _words(answer) for name, answer in sorted(answers.items())},
            **{name: {"error": str(error)} for name, error in sorted(errors.items())},
        },
    }


def result_ready(site: Site, run: Run) -> dict[str, Any] | None:
    """Return where the result can be fetched, None while the run goes on.

    Raises:
        StateError, PolicyViolation and the like: the run ended without a result; names the party and its code, believed
            from signed states only.
        NotYet: STALLED: operators retry without progress; names the party, the code and since when.
    """
    desk = open_desk(site)
    run_id = str(run["run_id"])
    files = desk.run(run_id)
    with desk.clients(desk.report_of(files.manifest()).group) as clients:
        answers, errors = run_answers(clients, run_id)
        if any(answer.phase in _ENDED for answer in answers.values()):
            _gather(desk, clients, run_id)
            _raise_if_ended(desk, run_id)
    raise_terminal(errors)
    if not answers:
        raise first_transient(errors)
    done = [name for name, answer in answers.items() if answer.phase in _COMMITTED]
    if len(done) >= _PARTS_NEEDED or len(files.parts()) >= _PARTS_NEEDED:
        _require_statements(desk, run_id, answers)
        return {**dict(run), "committed_at": sorted(done)}
    for answer in answers.values():
        if answer.stall is not None:
            raise NotYet(
                "STALLED",
                f"the run makes no progress: {answer.stall.party} ({answer.stall.code}) since "
                f"{_moment(answer.stall.since_ms)}",
                ids={"run": run_id[:12], "party": answer.stall.party},
            )
    return None


def _require_statements(desk: Desk, run_id: str, answers: Mapping[str, RunStatus]) -> None:
    """Nothing is published before every operator has attested what it did."""
    stated = {name for answer in answers.values() for name in answer.statements}
    federation = desk.federation
    regions = next(iter(answers.values())).regions
    group = desk.report_of(desk.run(run_id).manifest()).group
    operators = {name for cluster in (*regions, group) for name in federation.cluster(cluster).operators}
    missing = sorted(operators - stated)
    if missing:
        raise NotYet(
            "EVIDENCE_INCOMPLETE",
            f"the run is committed; the statement of {', '.join(missing)} is still to come",
            ids={"run": run_id[:12]},
        )


def _raise_if_ended(desk: Desk, run_id: str) -> None:
    """Raise what signed states say; nothing if no operator signed that the run ended."""
    evidence = own_evidence(desk, run_id)
    first = first_cause(evidence.of(State))
    if first is None:
        return
    desk.log.state(run_id, first.state)
    folder = write_evidence(desk, run_id)
    who = {"run": run_id[:12], "party": first.operator, "cluster": first.cluster}
    if first.pair:
        who["pair"] = ",".join(first.pair)
    raise StateError(
        first.code or f"RUN_{first.state}",
        f"the run was {first.state.lower()} by {first.operator}; nothing was released",
        ids=who,
        hint=f"The evidence of it is in {folder}. After the cause is removed, close the period again",
    )


def _gather(desk: Desk, clients: GroupClients, run_id: str) -> dict[str, ComityError]:
    """Fetch every operator's evidence; return the errors of those that gave none."""
    files = desk.run(run_id)

    def ask(client: ApiClient) -> None:
        data = client.evidence(run_id, limit=MAX_BUNDLE_BYTES)
        if read_bundle(data).run != run_id:
            raise EvidenceError("STATEMENT_FOREIGN", "evidence of another run", ids={"party": client.operator})
        files.save_bundle(client.operator, data)

    return clients.each(ask)[1]


def fetch(site: Site, run: Run) -> dict[str, Any]:
    """Fetch the sealed parts and the evidence, and keep both.

    Waits `third_part_wait_s` for the third part and for missing evidence; two parts and three commitments suffice.

    Raises:
        NotYet: RESULT_INCOMPLETE or EVIDENCE_INCOMPLETE naming who is missing.
        StateError: a run that ended. PeerProtocolError: API_INVALID naming the operator.
    """
    desk = open_desk(site)
    run_id = str(run["run_id"])
    deadline = time.monotonic() + desk.home.third_part_wait_s
    with desk.clients(desk.report_of(desk.run(run_id).manifest()).group) as clients:
        while True:
            lacking = _fetch_once(desk, clients, run_id)
            if lacking is None or time.monotonic() >= deadline:
                break
            time.sleep(_PAUSE_S)
        total = len(clients.names)
    parts = desk.run(run_id).parts()
    if len(parts) < _PARTS_NEEDED or (lacking is not None and lacking.code != "RESULT_INCOMPLETE"):
        _raise_if_ended(desk, run_id)
        raise lacking or NotYet("RESULT_INCOMPLETE", "result parts are still to come", ids={"run": run_id[:12]})
    return {
        "run_id": run_id,
        "parts": sorted(parts),
        "bytes": sum(len(data) for data in parts.values()),
        "complete": len(parts) == total,
    }


def _fetch_once(desk: Desk, clients: GroupClients, run_id: str) -> NotYet | None:
    files = desk.run(run_id)
    plan = desk.report_of(files.manifest()).plan
    have = files.parts()
    size = sealed_part_bytes(lane_count(plan))

    def ask(client: ApiClient) -> None:
        if client.operator not in have:
            files.save_part(client.operator, client.result(run_id, limit=size))

    _, errors = clients.each(ask)
    raise_terminal(errors)
    _gather(desk, clients, run_id)
    evidence = own_evidence(desk, run_id)
    _log_parts(desk, evidence, files.parts(), plan.node(DeliverNode))
    commitments = {item.operator for item in evidence.of(ResultCommitment)}
    absent = [n for n in evidence.operators if n not in evidence.ledgers or n not in evidence.statements]
    absent += [name for name in clients.names if name not in commitments]
    # A signed state of an operator that was just restarted may be behind its statement; the check would call that a contradiction.
    states = {(state.operator, state.cluster) for state in evidence.of(State)}
    absent += [name for at, names in evidence.clusters.items() for name in names if (name, at) not in states]
    if absent:
        return NotYet(
            "EVIDENCE_INCOMPLETE",
            f"attestation, transfer log, commitment or signed state of {', '.join(dict.fromkeys(absent))} is still to come",
            ids={"run": run_id[:12]},
        )
    missing = [name for name in clients.names if name not in files.parts()]
    if missing:
        return NotYet("RESULT_INCOMPLETE", f"result part of {', '.join(missing)} is to come", ids={"run": run_id[:12]})
    return None


def _log_parts(desk: Desk, evidence: RunEvidence, parts: Mapping[str, bytes], deliver: object) -> None:
    kind = deliver.payload_class if isinstance(deliver, DeliverNode) else PayloadClass.RELEASED_AGGREGATE
    for item in evidence.of(ResultCommitment):
        if item.operator in parts:
            desk.log.frame_received(
                parts[item.operator], item.operator, kind, run=evidence.run, cluster=item.cluster, attempt=item.attempt
            )


def verify(site: Site, run: Run, fetched: Run) -> dict[str, Any]:  # noqa: ARG001 - says that `fetch` came first
    """Open the parts, compare every component and commitment, and check the run's evidence before anything is published.

    Raises:
        Abort: RESULT_MISMATCH naming the pair. PeerProtocolError: SEAL_BROKEN, RESULT_INVALID naming the operator.
        EvidenceError: EVIDENCE_CONTRADICTS with what failed.
    """
    desk = open_desk(site)
    run_id = str(run["run_id"])
    files = desk.run(run_id)
    evidence = own_evidence(desk, run_id)
    values = open_result(evidence, files.parts(), desk.home.sealing())
    desk.log.state(run_id, "VERIFIED")
    found = assess(own_evidence(desk, run_id))
    found.require()
    files.save_lanes(values)
    return {
        "run_id": run_id,
        "lanes": len(values),
        "parts": len(files.parts()),
        "checks_passed": sum(check.status == "passed" for check in found.checks),
        "checks_open": sum(check.status == "open" for check in found.checks),
        "frames_agreed": found.reconciliation.agreed,
        "flows": len(found.reconciliation.crossings),
    }


def publish(site: Site, run: Run, verified: Run) -> dict[str, Any]:  # noqa: ARG001 - says that `verify` came first
    """Publish Parquet, CSV, XLSX and page, once per edition.

    Raises:
        StateError: PUBLISHED_DIFFERS. EvidenceError: TOTALS_DIFFER, PUBLISHED_ALTERED.
        ConfigError: STATE_MISSING before `verify`.
    """
    from local_stores.publish.build import table_from_lanes  # noqa: PLC0415 - openpyxl and pandas, only where used
    from local_stores.publish.editions import publish as publish_edition  # noqa: PLC0415

    desk = open_desk(site)
    run_id = str(run["run_id"])
    evidence = own_evidence(desk, run_id)
    close, plan = evidence.close, evidence.plan
    contract, basis = basis_of(evidence)
    labels = {column.name: column.label for column in contract.columns if column.label}
    table = table_from_lanes(
        plan, desk.run(run_id).lanes(), period=close.period, edition=close.edition, dimension_labels=labels
    )
    done = publish_edition(table, basis, desk.home.published)
    desk.log.state(run_id, "PUBLISHED")
    return {
        "run_id": run_id,
        "folder": str(done.folder),
        "edition": close.edition,
        "rows": len(table.rows),
        "new": done.new,
    }


def acknowledge(site: Site, run: Run, published: Run) -> dict[str, Any]:  # noqa: ARG001 - says that `publish` came first
    """Tell the operators that the result is published: they delete shares and keys. Then write the evidence pack.

    The pack is complete when deletions and countersignatures have come: `collect_closing` adds them.
    """
    desk = open_desk(site)
    run_id = str(run["run_id"])
    files = desk.run(run_id)
    manifest = files.manifest()
    notice = Ack(run=run_id, recipient=manifest.expect(Manifest).recipient, created_at=utc_text(desk.now))
    own = files.own("ack")
    envelope = own or files.save_own("ack", sign_notice(notice, desk.home.identity()).envelope)
    desk.hand_over(parse_notice(envelope.to_bytes()), desk.report_of(manifest).group, run=run_id)
    return collect(desk, run_id)
