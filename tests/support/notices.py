"""One sample of every kind of notice, with who must sign it."""

from __future__ import annotations

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.notices.model import (
    Ack,
    Approval,
    Cancel,
    DisputeNotice,
    Erased,
    Filed,
    Flow,
    Manifest,
    Notice,
    Outcome,
    Part,
    PeriodKeyNotice,
    Receipt,
    Reference,
    Rejected,
    Release,
    Reopen,
    ResultCommitment,
    SignOff,
    State,
    Statement,
    Withdrawal,
)  # fmt: skip
from tests.support.federation import RECIPIENT, MadeFederation, make_plan, make_reference, make_release

AT = "2026-02-01T00:00:00Z"
LATER = "2027-02-01T00:00:00Z"
PERIOD = "2026-01"


def sample_notices(made: MadeFederation) -> dict[str, tuple[Notice, IdentityKey]]:
    """Return {kind: (notice, key of the party that must sign it)} for all kinds."""
    plan = make_plan(made.federation)
    some, other = sha256_hex(b"some"), sha256_hex(b"other")
    of_run = {"run": some, "created_at": AT}
    of_period = {"plan": plan.digest, "period": PERIOD, "edition": 1}
    owner, operator, recipient = made.keys["de-nord"], made.keys["de-1"], made.keys[RECIPIENT]
    approver = made.approver("de-nord")
    parts = [Part(operator=name, sha256=some, size=100) for name in ("de-1", "de-2", "de-3")]
    result_flow = Flow(sender="de-1", receiver="nl-1", payload_class="aggregate_share", messages=1, bytes=100)
    found: list[tuple[Notice, IdentityKey]] = [
        (make_release(made, plan).expect(Release), made.keys["group-controlling"]),
        (make_reference(made).expect(Reference), made.keys["group-controlling"]),
        (
            Approval(
                plan=plan.digest, statement=some, owner="de-nord", recipients=[RECIPIENT], min_owners=1, valid_from=AT,
                valid_to=LATER, created_at=AT,
            ),
            approver,
        ),
        (Withdrawal(plan=plan.digest, owner="de-nord", created_at=AT, reason="review"), approver),
        (
            PeriodKeyNotice(**of_period, operator="de-1", key=made.sealing["de-1"].public.text, created_at=AT),
            operator,
        ),
        (
            Filed(
                **of_period, owner="de-nord", take=1, kind_of="data", created_at=AT, reference=some, parts=parts,
                commitments=[some, other, some], contribution=other,
                sign_offs=[SignOff(signer="de-nord-signer-1", signature="A" * 4412)], gate_k=10, tie_out="none",
            ),
            owner,
        ),
        (Receipt(filing=some, operator="de-1", received_at=AT), operator),
        (
            Rejected(filing=some, operator="de-1", code="PERIOD_CLOSED", reason="too late", created_at=AT),
            operator,
        ),
        (
            Manifest(
                **of_period, recipient=RECIPIENT, membership=some, directory=other, reference=some,
                filings=[some, other], created_at=AT, give_up_at=LATER,
            ),
            recipient,
        ),
        (Cancel(**of_run, recipient=RECIPIENT, reason="wrong rates"), recipient),
        (
            Reopen(
                plan=plan.digest, period=PERIOD, edition=2, recipient=RECIPIENT, due_at=LATER, created_at=AT,
                reason="late owner",
            ),
            recipient,
        ),
        (State(**of_run, cluster="de", operator="de-1", attempt=1, state="COMMITTED"), operator),
        (
            DisputeNotice(
                **of_run, cluster="de", operator="de-1", attempt=1, stage="s0", batch=0, gates="and", group=0, prover=1,
                role="verifier", said="0" * 16, heard="1" * 16, coin=some, rejects=True, words=64, outputs=None,
                terms=None, left=None, right=None,
            ),
            operator,
        ),
        (
            ResultCommitment(
                **of_run, cluster="group", operator="nl-1", attempt=1, recipient=RECIPIENT, lanes=3,
                commitments=[some, other, None],
            ),
            made.keys["nl-1"],
        ),
        (
            Statement(
                **of_run, cluster="de", operator="de-1", attempt=1, software="0.1.0", ledger_head=some,
                ledger_entries=3, flows=[result_flow], approvals=[other], rules=[{"rule": "DE-1"}], denials=0,
            ),
            operator,
        ),
        (Ack(**of_run, recipient=RECIPIENT), recipient),
        (Erased(**of_run, operator="de-1", what=["period key"]), operator),
        (Outcome(**of_run, party="de-nord", closing=other), owner),
    ]  # fmt: skip
    return {str(type(notice).__struct_config__.tag): (notice, key) for notice, key in found}
