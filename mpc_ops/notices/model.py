"""Every notice and its members. A notice is a DSSE envelope named by the SHA-256 of its payload, at most 1 MiB.

| kind | signed by | says |
|---|---|---|
| release | author | plan, SQL, calendar, reading text |
| reference | author | entity tree and rates of a period |
| approval, withdrawal | an owner's approvers | the owner's data may (no longer) be used by a plan |
| period_key | region operator | HPKE key for parts of one (plan, period, edition) |
| filed | owner | a filing: parts' ciphertext digests, commitments, sign-off, Gate passed |
| receipt, rejected | region operator | answer to a filing |
| manifest | recipient | the submission close: which filings make up a run; it *is* the start |
| cancel, reopen | recipient | stops a run before COMMITTED; opens the next edition |
| state | operator | a session's state, signed when terminal |
| dispute | operator | what a verifier said and heard in a proof that failed, or what its prover answers |
| result | group operator | salted commitment to the result's components |
| statement | every operator of the run | run statement (in-toto) for evidence |
| ack | recipient | published; operators erase |
| erased | operator | period key destroyed, shares deleted |
| outcome | recipient or owner | countersignature under the closing statement |

No digest of a component, message, figure or result stands in any of them: only digests of ciphertexts and salted
commitments whose salts stay with the holders.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import Meta

from mpc_ops.envelope.schema import Model
from mpc_ops.federation.model import DigestText, KeyText, Name, UtcText

__all__ = [
    "NOTICE_KINDS", "Ack", "Approval", "CalendarRow", "Cancel", "DisputeNotice", "Erased", "Filed", "Flow", "Manifest", "Notice", "Outcome", "Part",
    "PeriodKeyNotice", "Rate", "Receipt", "Reference", "Rejected", "Release", "Reopen", "ResultCommitment", "SignOff", "State",
    "Statement", "Withdrawal",
]  # fmt: skip

Text = Annotated[str, Meta(max_length=20000)]
Short = Annotated[str, Meta(max_length=300)]
Code = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]{2,60}\Z")]
PeriodText = Annotated[str, Meta(pattern=r"^[A-Z0-9][A-Z0-9-]{2,15}\Z")]
DateText = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}\Z")]
ProofValues = Annotated[str, Meta(pattern=r"^([0-9a-f]{16}){1,128}\Z")]
"""Values of a proof as they travelled, in hex: whole 8-byte words, at most 1 KiB."""
Edition = Annotated[int, Meta(ge=1, le=1000)]


class CalendarRow(Model, frozen=True, kw_only=True):
    """One period: local dates [start_date, end_date), and the moments of the submission.

    Attributes:
        opens_at: the edition opens, operators publish period keys.
        cut_at: snapshots hold what was booked up to here.
        due_at: filings are due; later ones are late.
    """

    key: PeriodText
    start_date: DateText
    end_date: DateText
    opens_at: UtcText
    cut_at: UtcText
    due_at: UtcText
    zone: Short = "UTC"


class Release(Model, frozen=True, kw_only=True, tag="release", tag_field="kind"):
    """A compiled report as its author releases it. `plan` is the text of plan.json; its SHA-256 is the plan digest."""

    federation: DigestText
    author: Name
    created_at: UtcText
    valid_from: UtcText
    valid_to: UtcText
    plan: Annotated[str, Meta(max_length=700_000)]
    sql: Annotated[str, Meta(max_length=100_000)]
    report_terms: Annotated[str, Meta(max_length=100_000)]
    calendar: Annotated[list[CalendarRow], Meta(min_length=1, max_length=400)]
    reading_text: Text
    statement: DigestText


class Rate(Model, frozen=True, kw_only=True):
    """Units of group currency per unit of `currency` in a period, as exact decimal text."""

    period: PeriodText
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
    avg_rate: Annotated[str, Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?\Z")]


class Reference(Model, frozen=True, kw_only=True, tag="reference", tag_field="kind"):
    """Reference data of a period: public to the group, versioned; the highest version published before the close counts."""

    federation: DigestText
    author: Name
    created_at: UtcText
    period: PeriodText
    version: Annotated[int, Meta(ge=1, le=10000)]
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
    rates: Annotated[list[Rate], Meta(max_length=2000)]
    source: Short


class Approval(Model, frozen=True, kw_only=True, tag="approval", tag_field="kind"):
    """An owner's approval of one plan. Signed by as many of the owner's approvers as its membership entry requires."""

    plan: DigestText
    statement: DigestText
    owner: Name
    recipients: Annotated[list[Name], Meta(min_length=1, max_length=20)]
    min_owners: Annotated[int, Meta(ge=1, le=20000)]
    valid_from: UtcText
    valid_to: UtcText
    created_at: UtcText


class Withdrawal(Model, frozen=True, kw_only=True, tag="withdrawal", tag_field="kind"):
    """An owner no longer allows a plan: stops the next run, and the present one before COMMITTED."""

    plan: DigestText
    owner: Name
    created_at: UtcText
    reason: Short


class PeriodKeyNotice(Model, frozen=True, kw_only=True, tag="period_key", tag_field="kind"):
    """A region operator's HPKE key for parts of one (plan, period, edition), destroyed at erasure."""

    plan: DigestText
    period: PeriodText
    edition: Edition
    operator: Name
    key: KeyText
    created_at: UtcText


class Part(Model, frozen=True, kw_only=True):
    """One sealed part: SHA-256 of the ciphertext and its length."""

    operator: Name
    sha256: DigestText
    size: Annotated[int, Meta(ge=1, le=1 << 33)]


class SignOff(Model, frozen=True, kw_only=True):
    """One person's signature (purpose SIGN_OFF, base64) over the owner's salted commitment to its figures."""

    signer: Name
    signature: Annotated[str, Meta(min_length=100, max_length=6000)]


class Filed(Model, frozen=True, kw_only=True, tag="filed", tag_field="kind"):
    """An owner's filing; its digest is the filing id. `kind_of` is `data` or `nil` (nothing to report, no parts).

    Attributes:
        commitments: three commitments to the components (salts lie in the holders' sealed parts); empty for nil.
        contribution: salted commitment to the figures that the signers signed; the salt stays with the owner.
        gate_k: the k that the owner's Gate used, 1 where the Gate stands in the region.
        tie_out: control totals `passed`, `none` or `failed`.
        accepts_difference: the owner accepts that this edition may differ from the last by fewer than min_owners.
    """

    plan: DigestText
    period: PeriodText
    owner: Name
    edition: Edition
    take: Annotated[int, Meta(ge=1, le=10000)]
    kind_of: Literal["data", "nil"]
    created_at: UtcText
    reference: DigestText | None
    parts: Annotated[list[Part], Meta(max_length=3)]
    commitments: Annotated[list[DigestText], Meta(max_length=3)]
    contribution: DigestText
    sign_offs: Annotated[list[SignOff], Meta(max_length=4)]
    gate_k: Annotated[int, Meta(ge=1, le=10**6)]
    tie_out: Literal["passed", "none"]
    accepts_difference: bool = False


class Receipt(Model, frozen=True, kw_only=True, tag="receipt", tag_field="kind"):
    """A region operator's signed acknowledgement, given only when the holders agree."""

    filing: DigestText
    operator: Name
    received_at: UtcText


class Rejected(Model, frozen=True, kw_only=True, tag="rejected", tag_field="kind"):
    """A region operator's refusal of a filing, or a dispute between the holders of a component (`pair`)."""

    filing: DigestText
    operator: Name
    code: Code
    reason: Short
    pair: Annotated[list[Name], Meta(max_length=3)] = msgspec.field(default_factory=list)
    created_at: UtcText


class Manifest(Model, frozen=True, kw_only=True, tag="manifest", tag_field="kind"):
    """The submission close. run_id = SHA-256("comity/run/v1" || payload).

    Attributes:
        filings: digests of the filings that make up the run, sorted.
        late: owners that are left out (on_late = release_without), listed for the page.
        excluded: owners whose disputed filing this manifest leaves out on purpose.
    """

    plan: DigestText
    period: PeriodText
    edition: Edition
    recipient: Name
    membership: DigestText
    directory: DigestText
    reference: DigestText | None
    filings: Annotated[list[DigestText], Meta(min_length=1, max_length=20000)]
    late: list[Name] = msgspec.field(default_factory=list)
    excluded: list[Name] = msgspec.field(default_factory=list)
    created_at: UtcText
    give_up_at: UtcText


class Cancel(Model, frozen=True, kw_only=True, tag="cancel", tag_field="kind"):
    """The recipient stops a run; has effect before COMMITTED only."""

    run: DigestText
    recipient: Name
    created_at: UtcText
    reason: Short


class Reopen(Model, frozen=True, kw_only=True, tag="reopen", tag_field="kind"):
    """The recipient opens edition `edition` of a period, with a reason; operators publish new period keys."""

    plan: DigestText
    period: PeriodText
    edition: Annotated[int, Meta(ge=2, le=1000)]
    recipient: Name
    due_at: UtcText
    created_at: UtcText
    reason: Short


class State(Model, frozen=True, kw_only=True, tag="state", tag_field="kind"):
    """An operator's signed word on a session: COMMITTED, FAILED(code, pair) or REFUSED(code)."""

    run: DigestText
    cluster: Name
    operator: Name
    attempt: Annotated[int, Meta(ge=0, le=10000)]
    state: Literal["COMMITTED", "FAILED", "REFUSED", "CANCELLED"]
    code: Code | None = None
    pair: Annotated[list[Name], Meta(max_length=3)] = msgspec.field(default_factory=list)
    created_at: UtcText


class DisputeNotice(Model, frozen=True, kw_only=True, tag="dispute", tag_field="kind"):
    """One party's statement about a proof that was rejected (mpc_ops.protocol.core.blame); all values are masked.

    A verifier states `said`, `heard`, `coin`, `rejects` and the shape: `words` for AND gates, `outputs` and `terms` for ring
    products. The prover states `left` and `right`, what its verifiers should have said. Members of the other role are None.

    Attributes:
        stage, batch, gates, group, prover: which proof; `prover` is a position in the cluster.
    """

    run: DigestText
    cluster: Name
    operator: Name
    attempt: Annotated[int, Meta(ge=1, le=10000)]
    stage: Annotated[str, Meta(min_length=1, max_length=100)]
    batch: Annotated[int, Meta(ge=0, le=1 << 32)]
    gates: Literal["and", "ring", "ring32"]
    group: Annotated[int, Meta(ge=0, le=1 << 32)]
    prover: Annotated[int, Meta(ge=0, le=2)]
    role: Literal["verifier", "prover"]
    said: ProofValues | None
    heard: ProofValues | None
    coin: DigestText | None
    rejects: bool | None
    words: Annotated[int, Meta(ge=1, le=1 << 24)] | None
    outputs: Annotated[int, Meta(ge=1, le=1 << 40)] | None
    terms: Annotated[int, Meta(ge=1, le=1 << 40)] | None
    left: ProofValues | None
    right: ProofValues | None
    created_at: UtcText


class ResultCommitment(Model, frozen=True, kw_only=True, tag="result", tag_field="kind"):
    """A group operator's salted commitments to the three result components (all three operators must say the same).

    `commitments[j]` is None for the component that this operator does not hold.
    """

    run: DigestText
    cluster: Name
    operator: Name
    attempt: Annotated[int, Meta(ge=1, le=10000)]
    recipient: Name
    lanes: Annotated[int, Meta(ge=1)]
    commitments: Annotated[list[DigestText | None], Meta(min_length=3, max_length=3)]
    created_at: UtcText


class Flow(Model, frozen=True, kw_only=True):
    """Bytes of one payload class between two parties in one direction, summed over a run."""

    sender: Name
    receiver: Name
    payload_class: Short
    messages: Annotated[int, Meta(ge=0)]
    bytes: Annotated[int, Meta(ge=0)]


class Statement(Model, frozen=True, kw_only=True, tag="statement", tag_field="kind"):
    """One operator's part of the run statement: what it checked, sent, received, refused; before publication.

    Attributes:
        ledger_head: hash of the last ledger entry this statement covers; ledger_entries: how many entries the run has.
        flows: sent and received frames by peer and class as this operator's ledger says.
        approvals: digests of approvals and withdrawals it evaluated; rules: decisions as `rule id: decision`.
    """

    run: DigestText
    cluster: Name
    operator: Name
    attempt: Annotated[int, Meta(ge=1, le=10000)]
    software: Short
    ledger_head: DigestText
    ledger_entries: Annotated[int, Meta(ge=1)]
    flows: list[Flow]
    approvals: list[DigestText]
    rules: list[dict[str, Any]]
    denials: Annotated[int, Meta(ge=0)]
    created_at: UtcText


class Ack(Model, frozen=True, kw_only=True, tag="ack", tag_field="kind"):
    """The recipient has published; operators erase."""

    run: DigestText
    recipient: Name
    created_at: UtcText


class Erased(Model, frozen=True, kw_only=True, tag="erased", tag_field="kind"):
    """An operator has destroyed the period key and deleted the shares of a run (attested, not proven)."""

    run: DigestText
    operator: Name
    what: Annotated[list[Short], Meta(min_length=1, max_length=20)]
    created_at: UtcText


class Outcome(Model, frozen=True, kw_only=True, tag="outcome", tag_field="kind"):
    """An owner's or the recipient's countersignature under the closing statement of a run."""

    run: DigestText
    party: Name
    closing: DigestText
    created_at: UtcText


Notice = Union[  # noqa: UP007 - read by msgspec as a tagged union
    Release, Reference, Approval, Withdrawal, PeriodKeyNotice, Filed, Receipt, Rejected, Manifest, Cancel, Reopen, State,
    DisputeNotice, ResultCommitment, Statement, Ack, Erased, Outcome,
]  # fmt: skip

NOTICE_KINDS: dict[str, type[msgspec.Struct]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        Release, Reference, Approval, Withdrawal, PeriodKeyNotice, Filed, Receipt, Rejected, Manifest, Cancel, Reopen,
        State, DisputeNotice, ResultCommitment, Statement, Ack, Erased, Outcome,
    )
}  # fmt: skip
