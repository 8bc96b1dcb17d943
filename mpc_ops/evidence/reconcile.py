"""Double entry: what one party logged as sent, the other must have logged as received, and the other way round.

Frames are matched by (sender, receiver, digest of the ciphertext); class, bytes and attempt must agree. An owner keeps no
log of its own: its signed filing names every part's digest and length, and stands for its end. Differences are

* `failed`: a frame of a class that carries data which only one end logged in the attempt that was committed, a frame
  received that nobody sent, a frame logged twice, or two ends that say different things;
* `open`: a data frame of an earlier attempt that was sent and never received (the attempt was given up);
* `in_flight`: control, key, commitment and evidence frames that only one end had logged when it signed.

The frames of an attempt's stage are one line per link, direction and attempt. In the committed attempt both ends must agree
in number, bytes, digest and class, whatever the class; in an attempt that was given up (a restarted operator, a broken
link) one end may have logged fewer or, if its process died, none: `open` if the class carries data, else `in_flight`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mpc_ops.evidence.ledger import LedgerEntry, LedgerExtract
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import Filed
from mpc_ops.plan.rules import RECORD_LEVEL

__all__ = [
    "CONTROL_CLASSES",
    "NOT_INSTRUMENTED",
    "RECORD_CLASSES",
    "Denial",
    "Difference",
    "FlowTotal",
    "Reconciliation",
    "reconcile",
]

RECORD_CLASSES = RECORD_LEVEL
"""Classes of values about one record, as the rules take them."""

CONTROL_CLASSES = frozenset(
    {
        PayloadClass.CONTROL_METADATA,
        PayloadClass.KEY_MATERIAL,
        PayloadClass.MAC_OR_COMMITMENT,
        PayloadClass.EVIDENCE,
    }
)

NOT_INSTRUMENTED = (
    "backups and storage snapshots of any host",
    "administrators' consoles and remote support",
    "e-mail, download and print of the published file",
    "telemetry, logs and security agents of the hosts",
    "what was sent after the logs were signed: this evidence, deletion notices, countersignatures",
    "anything two parties agree to leave out of both their logs",
)
"""Channels that no transfer log observes; every page lists them."""

Severity = Literal["failed", "open", "in_flight"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry on which the two ends do not agree: who says what."""

    severity: Severity
    what: str
    sender: str
    receiver: str
    payload_class: str
    attempt: int
    bytes: int
    said_by: str


@dataclass(frozen=True, slots=True)
class FlowTotal:
    """What went from one jurisdiction to another, by class; domestic where both are the same."""

    origin: str
    target: str
    payload_class: str
    bytes: int
    messages: int
    same_area: bool

    def as_dict(self) -> dict[str, str | int]:
        """Return the form of `summary.json`: from, to, payload_class, bytes, messages."""
        return {
            "from": self.origin,
            "to": self.target,
            "payload_class": self.payload_class,
            "bytes": self.bytes,
            "messages": self.messages,
        }


@dataclass(frozen=True, slots=True)
class Denial:
    """An attempt that a party's rules or checks refused."""

    party: str
    code: str
    at: str
    payload_class: str
    sender: str
    receiver: str


@dataclass(frozen=True)
class Reconciliation:
    """Result of comparing all transfer logs of a run.

    Attributes:
        frames: frames logged by at least one end; `agreed` of them by both ends alike.
        crossings: flows between different jurisdictions; `domestic` within one; `by_party` with party names.
        record_messages, record_bytes: totals of record-level classes across borders.
    """

    frames: int
    agreed: int
    differences: tuple[Difference, ...]
    crossings: tuple[FlowTotal, ...]
    domestic: tuple[FlowTotal, ...]
    by_party: Mapping[tuple[str, str, str], tuple[int, int]]
    record_messages: int
    record_bytes: int
    denials: tuple[Denial, ...]

    @property
    def failures(self) -> tuple[Difference, ...]:
        """Differences that make the evidence contradictory."""
        return tuple(item for item in self.differences if item.severity == "failed")


@dataclass
class _Ends:
    """What was said about one frame."""

    sent: list[LedgerEntry] = field(default_factory=list)
    received: list[LedgerEntry] = field(default_factory=list)
    filed: bool = False

    @property
    def any(self) -> LedgerEntry:
        return max((*self.sent, *self.received), key=lambda entry: entry.bytes)


Key = tuple[str, str, str]


def reconcile(
    extracts: Mapping[str, LedgerExtract],
    filings: Iterable[Filed],
    committed: Mapping[str, int],
    federation: Federation,
) -> Reconciliation:
    """Compare both ends of every frame and add up what crossed.

    Args:
        extracts: verified log extracts of one run by party.
        filings: the run's filings, which stand for the owners' end.
        committed: committed attempt by cluster, as the operators state it.
        federation: for the parties' seats.
    """
    frames = _collect(extracts)
    parts = {(filing.owner, part.operator, part.sha256): part.size for filing in filings for part in filing.parts}
    differences: list[Difference] = []
    agreed = 0
    for key, ends in frames.items():
        found = _compare(key, ends, parts, extracts, committed, owners=federation.owners)
        differences += found
        agreed += 0 if found else ends.any.messages
    sums: dict[Key, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (sender, receiver, _), ends in frames.items():
        _add(sums, (sender, receiver, str(ends.any.payload_class)), ends.any.messages, ends.any.bytes)
    for key, (messages, size) in _single_notices(extracts).items():
        _add(sums, key, messages, size)
    crossings, domestic = _by_border(sums, federation)
    record = [flow for flow in crossings if flow.payload_class in RECORD_CLASSES]
    return Reconciliation(
        frames=sum(ends.any.messages for ends in frames.values()),
        agreed=agreed,
        differences=tuple(sorted(differences, key=lambda item: (item.severity, item.sender, item.receiver, item.what))),
        crossings=crossings,
        domestic=domestic,
        by_party=dict(sorted(sums.items())),
        record_messages=sum(flow.messages for flow in record),
        record_bytes=sum(flow.bytes for flow in record),
        denials=_denials(extracts),
    )


def _add(sums: dict[Key, tuple[int, int]], key: Key, messages: int, size: int) -> None:
    before = sums.get(key, (0, 0))
    sums[key] = (before[0] + messages, before[1] + size)


def _collect(extracts: Mapping[str, LedgerExtract]) -> dict[Key, _Ends]:
    frames: dict[Key, _Ends] = defaultdict(_Ends)
    for party in sorted(extracts):
        for entry in extracts[party].entries:
            if entry.event == "frame_sent" and entry.sender == party:
                frames[(party, str(entry.receiver), str(entry.digest))].sent.append(entry)
            elif entry.event == "frame_received" and entry.receiver == party:
                frames[(str(entry.sender), party, str(entry.digest))].received.append(entry)
            elif entry.event == "frames_sent" and entry.sender == party:
                frames[(party, str(entry.receiver), _stage(entry))].sent.append(entry)
            elif entry.event == "frames_received" and entry.receiver == party:
                frames[(str(entry.sender), party, _stage(entry))].received.append(entry)
    return dict(frames)


def _stage(entry: LedgerEntry) -> str:
    """Name the frames of one attempt's stage; no digest looks like it."""
    return f"stage {entry.cluster} {entry.attempt}"


def _compare(
    key: Key,
    ends: _Ends,
    parts: Mapping[Key, int],
    extracts: Mapping[str, LedgerExtract],
    committed: Mapping[str, int],
    *,
    owners: Container[str],
) -> list[Difference]:
    sender, receiver, _ = key
    if len(ends.sent) > 1 or len(ends.received) > 1:
        who = sender if len(ends.sent) > 1 else receiver
        return [_difference("failed", "one frame is logged twice", ends.any, who)]
    if sender not in extracts and not ends.sent:
        if key in parts:
            if parts[key] == ends.any.bytes:
                return []
            return [_difference("failed", "part has another length than its filing says", ends.any, receiver)]
        # A missing log is judged once, by the check of the logs: it fails a committed run and is open for an ended one.
        severity: Severity = "failed" if sender in owners else "open"
        return [_difference(severity, "received, and the sender signed no log or filing of it", ends.any, receiver)]
    if ends.any.frames:
        return _compare_stage(ends, committed, f"{sender} and {receiver}")
    if ends.sent and ends.received:
        one, other = ends.sent[0], ends.received[0]
        for name in ("payload_class", "bytes", "attempt", "run"):
            if getattr(one, name) != getattr(other, name):
                what = f"the two ends name another {name.replace('payload_', '')}"
                return [_difference("failed", what, ends.any, f"{sender} and {receiver}")]
        return []
    return [_one_ended(ends, sender, receiver, committed)]


def _compare_stage(ends: _Ends, committed: Mapping[str, int], who: str) -> list[Difference]:
    """Compare the lines of one attempt's stage on one link."""
    entry = ends.any
    given_up = entry.attempt != committed.get(str(entry.cluster))
    if ends.sent and ends.received:
        one, other = ends.sent[0], ends.received[0]
        names = ("payload_class", "run", "frames", "bytes", "digest")
        wrong = [name for name in names if getattr(one, name) != getattr(other, name)]
        if not wrong:
            return []
        more = other.frames > one.frames or other.bytes > one.bytes
        given_up = given_up and not more and not {"payload_class", "run"} & set(wrong)
        what = f"the two ends name another {wrong[0].replace('payload_', '')}"
        what = f"frames of a stage: {'received more than was sent' if more else what}"
    else:
        who = str(entry.sender if ends.sent else entry.receiver)
        what = "frames of a stage: logged by one end only"
    severity: Severity = "failed"
    if given_up:
        severity = "in_flight" if entry.payload_class in CONTROL_CLASSES else "open"
        what += ", in an attempt that was given up"
    return [_difference(severity, what, entry, who)]


def _one_ended(ends: _Ends, sender: str, receiver: str, committed: Mapping[str, int]) -> Difference:
    entry = ends.any
    who = sender if ends.sent else receiver
    what = "sent, not logged as received" if ends.sent else "received, not logged as sent"
    severity: Severity = "failed"
    if entry.payload_class in CONTROL_CLASSES:
        severity = "in_flight"
    elif ends.sent and entry.payload_class == PayloadClass.RELEASED_AGGREGATE:
        # An operator logs its sealed part when it is there to be fetched; the recipient logs what it fetched.
        severity, what = "open", "result part not fetched: two parts and three commitments suffice"
    elif ends.sent and entry.cluster is not None and entry.attempt < committed.get(entry.cluster, 1 << 30):
        severity = "open"
    return _difference(severity, what, entry, who)


def _difference(severity: Severity, what: str, entry: LedgerEntry, who: str) -> Difference:
    return Difference(
        severity=severity,
        what=what,
        sender=str(entry.sender),
        receiver=str(entry.receiver),
        payload_class=str(entry.payload_class),
        attempt=entry.attempt,
        bytes=entry.bytes,
        said_by=who,
    )


def _single_notices(extracts: Mapping[str, LedgerExtract]) -> dict[Key, tuple[int, int]]:
    """Notices that travelled by themselves: each counted as often as the end that logged it more often says."""
    seen: dict[str, Counter[tuple[Key, str, int]]] = {"notice_sent": Counter(), "notice_received": Counter()}
    for party, extract in extracts.items():
        for entry in extract.entries:
            mine = entry.sender if entry.event == "notice_sent" else entry.receiver
            if entry.event in seen and entry.bytes and mine == party and entry.sender and entry.receiver:
                kind = str(entry.payload_class or PayloadClass.CONTROL_METADATA)
                seen[entry.event][(entry.sender, entry.receiver, kind), str(entry.ref), entry.bytes] += 1
    sums: dict[Key, tuple[int, int]] = {}
    for (key, _, size), times in (seen["notice_sent"] | seen["notice_received"]).items():
        _add(sums, key, times, size * times)
    return sums


def _by_border(
    sums: Mapping[Key, tuple[int, int]], federation: Federation
) -> tuple[tuple[FlowTotal, ...], tuple[FlowTotal, ...]]:
    totals: dict[Key, tuple[int, int]] = {}
    for (sender, receiver, kind), (messages, size) in sums.items():
        key = (federation.jurisdiction_of(sender), federation.jurisdiction_of(receiver), kind)
        _add(totals, key, messages, size)
    flows = [
        FlowTotal(origin, target, kind, size, messages, federation.same_area(origin, target))
        for (origin, target, kind), (messages, size) in sorted(totals.items())
    ]
    return (
        tuple(flow for flow in flows if flow.origin != flow.target),
        tuple(flow for flow in flows if flow.origin == flow.target),
    )


def _denials(extracts: Mapping[str, LedgerExtract]) -> tuple[Denial, ...]:
    return tuple(
        Denial(
            party=party,
            code=entry.ref or "DENIED",
            at=entry.at,
            payload_class=str(entry.payload_class or ""),
            sender=entry.sender or "",
            receiver=entry.receiver or "",
        )
        for party in sorted(extracts)
        for entry in extracts[party].entries
        if entry.event == "denied"
    )
