"""The numbered checks over a run's evidence, the same before publication, in the pack, and at a reviewer's desk.

A check has one of three outcomes: `passed`, `failed`, `open` (something is still to come, or a person has to judge). None
of them says that anything complies with a law.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from mpc_ops.envelope.canonical import canonical_bytes
from mpc_ops.envelope.keys import IdentityPublicKey, Purpose
from mpc_ops.envelope.schema import to_plain
from mpc_ops.errors import ComityError, EvidenceError, PolicyViolation
from mpc_ops.evidence.ledger import LedgerEntry, LedgerExtract, flows_of, heads
from mpc_ops.evidence.material import RunEvidence
from mpc_ops.evidence.reconcile import CONTROL_CLASSES, RECORD_CLASSES, FlowTotal, Reconciliation, reconcile
from mpc_ops.evidence.rules import RuleLine, decide_flows
from mpc_ops.evidence.statement import closing_digest, closing_payload, verify_closing
from mpc_ops.notices.model import Erased, Filed, Outcome, Receipt, ResultCommitment, State, Withdrawal
from mpc_ops.plan.approvals import Approved, approval_state
from mpc_ops.plan.checks import check_plan
from mpc_ops.plan.layout import lane_count
from mpc_ops.plan.model import RegionSumNode
from mpc_ops.plan.statement import planned_statement

__all__ = ["Assessment", "Check", "Status", "assess", "countersigned", "record_crossings", "valid_approvals"]

Status = Literal["passed", "failed", "open"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the checklist; `problems` says what failed or is open, `file` where, if one file is the place."""

    name: str
    title: str
    status: Status
    done: str
    problems: tuple[str, ...] = ()
    file: str | None = None


@dataclass(frozen=True)
class Assessment:
    """A run's evidence, compared and checked."""

    evidence: RunEvidence
    reconciliation: Reconciliation
    rules: tuple[RuleLine, ...]
    checks: tuple[Check, ...]

    def problems(self, status: Status) -> list[str]:
        """Return what failed, or what is open, each with the title of its check."""
        return [f"{check.title}: {text}" for check in self.checks for text in check.problems if check.status == status]

    def require(self) -> None:
        """Raise EvidenceError EVIDENCE_CONTRADICTS if a check failed: nothing is published then."""
        failed = self.problems("failed")
        if failed:
            raise EvidenceError(
                "EVIDENCE_CONTRADICTS",
                f"{len(failed)} checks of the run's evidence failed: {'; '.join(failed[:3])}",
                ids={"run": self.evidence.run[:12]},
                hint="Nothing was published. Show this to the operators that are named",
            )


@dataclass
class _Findings:
    """What a check finds while it runs."""

    failed: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    done: str = ""

    def expect(self, held: object, problem: str) -> None:
        if not held:
            self.failed.append(problem)

    def result(self, name: str, title: str) -> Check:
        status: Status = "failed" if self.failed else "open" if self.open else "passed"
        return Check(name, title, status, self.done, tuple(self.failed or self.open))


def assess(evidence: RunEvidence) -> Assessment:
    """Reconcile the logs, decide the rules again and run every check."""
    committed = {state.cluster: state.attempt for state in evidence.of(State) if state.state == "COMMITTED"}
    reconciliation = reconcile(evidence.ledgers, evidence.filings.values(), committed, evidence.federation)
    rules = tuple(decide_flows(evidence, reconciliation))
    checks = []
    for name, title, check in _CHECKS:
        findings = _Findings()
        check(Assessment(evidence, reconciliation, rules, ()), findings)
        checks.append(findings.result(name, title))
    return Assessment(evidence, reconciliation, rules, tuple(checks))


def valid_approvals(evidence: RunEvidence) -> dict[str, Approved]:
    """Return the approval of each owner that was valid at the submission close and not withdrawn before it.

    Moments have whole seconds. A withdrawal in the second of the close leaves open which came first: the operators, who
    refuse a run whose withdrawal they hold, have decided that.
    """
    close = evidence.close
    now = datetime.strptime(close.created_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    approvals = evidence.notices.get("approval", ())
    before = [
        signed
        for signed in evidence.notices.get("withdrawal", ())
        if signed.expect(Withdrawal).created_at < close.created_at
    ]
    found = {}
    for owner in evidence.filings:
        try:
            found[owner] = approval_state(
                evidence.federation,
                evidence.plan,
                approvals,
                before,
                owner,
                now=now,
                statement=evidence.reading.statement,
            )
        except PolicyViolation:
            continue
    return found


def countersigned(evidence: RunEvidence) -> list[str]:
    """Return the parties whose `outcome` notice countersigns the closing attestation, sorted."""
    if evidence.closing is None:
        return []
    digest = closing_digest(evidence.closing.payload)
    return sorted({item.party for item in evidence.of(Outcome) if item.closing == digest})


def _contract(found: Assessment, out: _Findings) -> None:
    evidence, close = found.evidence, found.evidence.close
    federation, plan, reading = evidence.federation, evidence.plan, evidence.reading
    out.expect(plan.federation == federation.digest == reading.federation, "plan belongs to other federation terms")
    out.expect(plan.digest == close.plan, "release carries another calculation plan than the manifest names")
    out.expect(plan.rule_packs == federation.terms.rule_packs, "plan was made under other rule packs")
    out.expect(federation.membership_digest == close.membership, "manifest names another membership list")
    out.expect(federation.directory_digest == close.directory, "manifest names another directory")
    out.expect(any(row.key == close.period for row in reading.calendar), "period is not in the signed calendar")
    out.expect(
        reading.valid_from <= close.created_at < reading.valid_to, "release was not valid at the submission close"
    )
    try:
        check_plan(plan, federation)
    except ComityError as error:
        out.failed.append(f"plan does not pass its own checks: {error.what} ({error.code})")
    created = datetime.strptime(reading.created_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    if not out.failed and planned_statement(plan, federation, now=created).digest != reading.statement:
        out.open.append("the planned-transfer statement that was approved is not the one that this version derives")
    if close.reference is not None:
        out.expect(evidence.notices.get("reference"), "reference data that the manifest names is not there")
    out.done = f"calculation {plan.report} version {plan.version}, period {close.period}, release {close.edition}"


def _filings(found: Assessment, out: _Findings) -> None:
    evidence, close = found.evidence, found.evidence.close
    receipts = {(receipt.filing, receipt.operator) for receipt in evidence.of(Receipt)}
    signed = 0
    for notice in evidence.notices.get("filed", ()):
        filed = notice.expect(Filed)
        out.expect(
            (filed.plan, filed.period, filed.edition) == (close.plan, close.period, close.edition),
            f"submission of {filed.owner} is for another plan, period or release",
        )
        if filed.kind_of == "nil":
            continue
        out.expect(filed.reference == close.reference, f"submission of {filed.owner} used other reference data")
        operators = evidence.federation.operators_of(filed.owner)
        missing = [name for name in operators if (notice.digest, name) not in receipts]
        out.expect(not missing, f"no receipt for the submission of {filed.owner} by {', '.join(missing)}")
        people = _sign_offs(evidence, filed)
        needed = evidence.plan.terms.sign_off
        out.expect(people >= needed, f"submission of {filed.owner} is signed by {people} of {needed} people")
        signed += people >= needed
    out.done = f"{len(evidence.filings)} submissions, {signed} with figures and signed off"


def _sign_offs(evidence: RunEvidence, filed: Filed) -> int:
    owner = evidence.federation.owner(filed.owner)
    context = {"plan": filed.plan, "period": filed.period, "owner": filed.owner, "edition": filed.edition}
    message = canonical_bytes({**context, "contribution": filed.contribution})
    people = set()
    for sign_off in filed.sign_offs:
        try:
            signature = base64.b64decode(sign_off.signature, validate=True)
        except (binascii.Error, ValueError):
            continue
        key = owner.signers.get(sign_off.signer)
        if key and IdentityPublicKey.from_text(key).verify(signature, message, Purpose.SIGN_OFF):
            people.add(key)
    return len(people)


def _approvals(found: Assessment, out: _Findings) -> None:
    evidence = found.evidence
    valid = valid_approvals(evidence)
    problems = [f"no valid approval by {owner}" for owner in evidence.filings if owner not in valid]
    owners, terms = len(evidence.filings), evidence.plan.terms
    if owners < terms.min_owners:
        problems.append(f"{owners} data owners, the report's terms ask for {terms.min_owners}")
    _policy(found, out, problems)
    out.done = f"{len(set(evidence.filings) & set(valid))} of {owners} data owners' approvals valid at the close"


def _policy(found: Assessment, out: _Findings, problems: Iterable[str]) -> None:
    # Where operators refused the run because of it, the finding explains the refusal and does not spoil the evidence.
    ended = found.evidence.outcome in {"REFUSED", "FAILED", "CANCELLED"}
    (out.open if ended else out.failed).extend(problems)


def _rules(found: Assessment, out: _Findings) -> None:
    denied = [line for line in found.rules if not line.allowed]
    _policy(
        found,
        out,
        [f"{line.payload_class} {line.origin} to {line.target}: rule {line.rule}: {line.reason}" for line in denied],
    )
    out.done = f"{len(found.rules)} decisions made again, {len(found.rules) - len(denied)} allow"


def _ledgers(found: Assessment, out: _Findings) -> None:
    evidence = found.evidence
    missing = [party for party in (*evidence.operators, evidence.close.recipient) if party not in evidence.ledgers]
    if missing:
        _party_missing(found, out, f"no transfer log of {', '.join(missing)}")
    unknown = sorted(set(evidence.ledgers) - {*evidence.operators, evidence.close.recipient})
    out.expect(not unknown, f"transfer log of a party outside the run: {', '.join(unknown)}")
    known = {party: set(heads(extract)) for party, extract in evidence.ledgers.items()}
    seen = sum(
        entry.event == "checkpoint" and entry.ref in known.get(entry.sender or "", ())
        for extract in evidence.ledgers.values()
        for entry in extract.entries
    )
    out.done = f"{len(evidence.ledgers)} chained logs lead to their signed heads"
    if seen:
        out.done += f"; {seen} heads countersigned by peers"


def _party_missing(found: Assessment, out: _Findings, problem: str) -> None:
    (out.failed if found.evidence.outcome == "COMMITTED" else out.open).append(problem)


def _reconciled(found: Assessment, out: _Findings) -> None:
    both = found.reconciliation
    for item in both.differences:
        text = f"{item.sender} to {item.receiver}, {item.payload_class}, attempt {item.attempt}: {item.what} ({item.said_by})"
        if item.severity == "failed":
            out.failed.append(text)
        elif item.severity == "open":
            out.open.append(text)
    flight = sum(item.severity == "in_flight" for item in both.differences)
    out.done = f"both ends agree on {both.agreed} of {both.frames} frames" + (
        f"; {flight} control frames were under way when a log was signed" if flight else ""
    )


def record_crossings(found: Assessment) -> tuple[list[FlowTotal], list[FlowTotal]]:
    """Return flows of record-level classes that crossed a border: those inside one region of the plan, and all others.

    A region is a set of jurisdictions among which the rules may allow record-level shares; whether they do is a check of its
    own. Beyond a region nothing of the kind may go.
    """
    federation, plan = found.evidence.federation, found.evidence.plan
    node = plan.node(RegionSumNode)
    names = node.regions if isinstance(node, RegionSumNode) else []
    regions = [set(federation.terms.regions[name].jurisdictions) for name in names]
    records = [flow for flow in found.reconciliation.crossings if flow.payload_class in RECORD_CLASSES]
    inside = [flow for flow in records if any({flow.origin, flow.target} <= region for region in regions)]
    return inside, [flow for flow in records if flow not in inside]


def _records(found: Assessment, out: _Findings) -> None:
    inside, beyond = record_crossings(found)
    out.expect(
        not beyond,
        f"{sum(flow.messages for flow in beyond)} messages of record-level classes crossed a border "
        f"({sum(flow.bytes for flow in beyond)} bytes)",
    )
    out.done = "no record-level class recorded across a border on instrumented channels"
    if inside:
        out.done = (
            f"{sum(flow.messages for flow in inside)} messages of record-level classes crossed borders inside a region, none "
            "beyond it, on instrumented channels"
        )


def _result(found: Assessment, out: _Findings) -> None:
    evidence = found.evidence
    if evidence.outcome != "COMMITTED":
        out.done = f"the run ended {evidence.outcome}: there is no result"
        return
    (group,) = [name for name in evidence.clusters if evidence.federation.cluster(name).kind == "group"]
    operators = evidence.clusters[group]
    by_operator = {item.operator: item for item in evidence.of(ResultCommitment) if item.cluster == group}
    for name in operators:
        out.expect(name in by_operator, f"no result commitment of {name}")
    said = [by_operator[name] for name in operators if name in by_operator]
    if len(said) < 3:
        return
    out.expect(len({(item.attempt, item.recipient, item.lanes) for item in said}) == 1, "result commitments differ")
    out.expect(said[0].recipient == evidence.close.recipient, "result is committed to another recipient")
    out.expect(said[0].lanes == lane_count(evidence.plan), "result has another number of values than the plan")
    for component in range(3):
        one, other = said[component].commitments[component], said[(component - 1) % 3].commitments[component]
        pair = f"{operators[component]} and {operators[(component - 1) % 3]}"
        out.expect(one is not None and one == other, f"{pair} committed to different components of the result")
    out.done = "3 of 3 computing operators committed to the same result before handing it out"


def _attested(found: Assessment, out: _Findings) -> None:
    evidence = found.evidence
    notices = {(n.operator, n.cluster): n for n in evidence.of(State)}
    for cluster, operators in evidence.clusters.items():
        attempts = {notices[name, cluster].attempt for name in operators if (name, cluster) in notices}
        silent = [name for name in operators if (name, cluster) not in notices]
        if silent:
            _party_missing(found, out, f"no signed state of {', '.join(silent)} in {cluster}")
        out.expect(
            len(attempts) <= 1 or evidence.outcome != "COMMITTED", f"{cluster}: operators committed different attempts"
        )
    missing = [name for name in evidence.operators if name not in evidence.statements]
    if missing:
        _party_missing(found, out, f"no run attestation by {', '.join(missing)}")
    for name, extract in evidence.ledgers.items():
        if name in evidence.statements:
            _compare_statement(found, name, extract, out)
    stated = {item.digest for item in evidence.notices.get("statement", ())}
    out.done = (
        f"{len(evidence.statements)} of {len(evidence.operators)} operators attest the run; {len(stated)} statements"
    )


def _compare_statement(found: Assessment, name: str, extract: LedgerExtract, out: _Findings) -> None:
    evidence = found.evidence
    statement = evidence.statements[name]
    for signed in evidence.notices.get("statement", ()):
        if getattr(signed.notice, "operator", "") == name:
            out.expect(to_plain(signed.notice) == to_plain(statement), f"{name} attests other facts than it stated")
    out.expect(
        name in evidence.clusters.get(statement.cluster, ()), f"{name} attests for a cluster that is not its own"
    )
    chain = heads(extract)
    if statement.ledger_head not in chain:
        out.failed.append(f"{name} attests a log head that is not in its log")
        return
    covered = extract.items[: chain.index(statement.ledger_head)]  # type: ignore[arg-type]
    entries = [item for item in covered if isinstance(item, LedgerEntry)]
    out.expect(
        _data_flows(flows_of(entries)) == _data_flows(statement.flows), f"{name} attests other flows than it logged"
    )
    out.expect(
        sum(entry.event == "denied" for entry in entries) == statement.denials,
        f"{name} attests another number of denials than it logged",
    )


def _data_flows(flows: Iterable[object]) -> set[object]:
    # Control notices may become part of a run after the statement was made (a late countersignature names the run).
    return {flow for flow in flows if getattr(flow, "payload_class", "") not in CONTROL_CLASSES}


def _closing(found: Assessment, out: _Findings) -> None:
    evidence = found.evidence
    erased = {item.operator for item in evidence.of(Erased)}
    missing = [name for name in evidence.operators if name not in erased]
    if missing:
        out.open.append(f"share deletion not yet attested by {len(missing)} of {len(evidence.operators)} operators")
    if evidence.outcome != "COMMITTED":
        out.done = f"{len(erased)} of {len(evidence.operators)} operators attest the deletion of shares"
        return
    acks = evidence.notices.get("ack", ())
    if not acks:
        out.open.append("the result recipient has not acknowledged the publication")
    expected = closing_payload(
        evidence.manifest,
        evidence.notices.get("statement", ()),
        acks[0] if acks else None,
        evidence.notices.get("erased", ()),
        evidence.operators,
    )
    signed = countersigned(evidence)
    if evidence.closing is not None:
        try:
            verify_closing(evidence.closing, expected, evidence.manifest, evidence.federation)
        except EvidenceError as error:
            out.failed.append(error.what)
    else:
        out.open.append("no closing attestation yet")
    lacking = [party for party in (evidence.close.recipient, *evidence.filings) if party not in signed]
    if lacking:
        out.open.append(f"closing attestation not countersigned by {', '.join(lacking)}")
    out.done = (
        f"{len(erased)} of {len(evidence.operators)} operators attest the deletion of shares; "
        f"{len(signed)} countersignatures"
    )


_CHECKS: tuple[tuple[str, str, Callable[[Assessment, _Findings], None]], ...] = (
    ("contract", "calculation plan, release, membership", _contract),
    ("submissions", "submissions, receipts, sign-off", _filings),
    ("approvals", "data owners' approvals", _approvals),
    ("rules", "localisation rules, decided again for each flow", _rules),
    ("logs", "transfer logs: chains and signatures", _ledgers),
    ("reconciliation", "both ends of every frame", _reconciled),
    ("records", "record-level classes across borders", _records),
    ("result", "result commitments", _result),
    ("attestations", "run attestations of all operators", _attested),
    ("closing", "share deletion and countersignatures", _closing),
)
"""Every check in order. The pack's verifier puts its own (files, index, federation, page) around them."""
