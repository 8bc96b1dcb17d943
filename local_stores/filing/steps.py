"""The steps of a filing, as Airflow's tasks and `comity file` call them.

Every step may be repeated at any time: ids come from plan, period, owner and edition, results are plain JSON that holds
references and commitments only, and what was written once is read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from local_stores.config import Site
from local_stores.delivery.answers import check_refusals, receipts_of, was_refused
from local_stores.delivery.mirror import MIRRORED, OpenSftp, sync
from local_stores.delivery.sealing import Take, latest_take, load_take, seal_take
from local_stores.delivery.sending import send_notice, send_take
from local_stores.errors import ComityError, ConfigError, PolicyViolation
from local_stores.filing.readiness import (
    Who,
    mirror_of,
    operators_of,
    own_approvals,
    period_keys,
    ready,
    sftp_of,
    utc_now,
    who,
)
from local_stores.filing.releases import find_row
from local_stores.snapshot import taking
from local_stores.snapshot.contribution import compute_figures
from local_stores.snapshot.local_plan import run_local_plan
from local_stores.snapshot.page import contribution_page
from local_stores.snapshot.periods import slice_ranges
from local_stores.snapshot.record import (
    Contribution,
    keep_contribution,
    read_contribution,
    sign,
    signatures,
)
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.notices.model import Approval, SignOff, Withdrawal
from mpc_ops.notices.signed import SignedNotice
from mpc_ops.plan.approvals import approval_state
from mpc_ops.plan.layout import unit_limits

__all__ = [
    "check_release",
    "deliver",
    "keep_notice",
    "local_plan",
    "receipts_ready",
    "send_to_operators",
    "share_and_seal",
    "sign_off",
    "sign_off_ready",
    "sync_outbox",
    "take_snapshot",
    "validate",
]

Json = dict[str, Any]


def check_release(site: Site, owner: str, report: str, period: str, open_sftp: OpenSftp | None = None) -> Json:
    """Check that the owner may file: release, approval, open edition, period keys, rates. Reads no data.

    Raises:
        PolicyViolation: RELEASE_INVALID, RELEASE_EXPIRED, APPROVAL_MISSING, APPROVAL_EXPIRED, APPROVAL_WITHDRAWN,
            APPROVAL_FOREIGN. StateError: PERIOD_UNKNOWN, PERIOD_CLOSED.
        ConfigError: OWNER_UNKNOWN, PARTY_UNKNOWN, RELEASE_UNKNOWN, RATE_MISSING, RATE_OUTSIDE_TERMS.
        NotYet: PERIOD_NOT_OPEN, KEYS_MISSING, REFERENCE_MISSING. TransportError: no operator answers.
    """
    found = ready(who(site, owner, report, period, open_sftp=open_sftp))
    one = found.who
    return {
        "owner": owner,
        "report": report,
        "period": period,
        "edition": one.edition,
        "release": one.info.digest,
        "plan_digest": one.info.plan_digest,
        "datasets": list(one.info.datasets),
        "approval": found.approval.approval,
        "cut_at": one.row.cut_at,
        "due_at": one.row.due_at,
        "sign_off": one.info.plan.terms.sign_off,
    }


def take_snapshot(site: Site, owner: str, dataset: str, period: str) -> Json:
    """Take, or find again, the snapshot of a dataset for a period, after checking that an approved report uses it.

    Raises:
        ConfigError: NO_PURPOSE, STORE_UNKNOWN. PolicyViolation: APPROVAL_* of the newest release that uses the dataset.
        StoreUnavailable: STORE_UNAVAILABLE, SOURCE_CHANGED. LocalDataError: STORE_SCHEMA, VALUE_OUTSIDE_CONTRACT,
            TOO_MANY_ROWS, DISK_FULL.
    """
    home = site.owner(owner)
    contract, row, releases = find_row(site, dataset, period)
    refused: ComityError | None = None
    for info in releases:
        try:
            approval_state(
                site.federation(),
                info.plan,
                own_approvals(site, owner, Approval),
                own_approvals(site, owner, Withdrawal),
                owner,
                now=utc_now(),
                statement=info.release.statement,
            )
        except PolicyViolation as error:
            refused = refused or error
        else:
            return dict(taking.take_snapshot(site.state, home, contract, row))
    raise refused or ConfigError("NO_PURPOSE", f"no release uses dataset {dataset[:63]}", ids={"owner": owner})


def validate(site: Site, owner: str, report: str, period: str, snapshots: Mapping[str, Mapping[str, str]]) -> Json:
    """Run the contract's and the owner's expectations and the control totals on the snapshots, and write the page.

    Raises:
        LocalDataError: VALIDATION_FAILED, TIE_OUT_FAILED. ConfigError: EXPECTATIONS_INVALID, CONTROL_TOTAL_MISSING.
    """
    from local_stores.validation import running, suite  # noqa: PLC0415 - only this step needs it

    one = who(site, owner, report, period)
    reference = _snapshot(one, snapshots)
    table = taking.load_snapshot(site.state, one.contract, reference)
    expected = suite.contract_expectations(one.contract)
    own = suite.own_expectations(one.home.expectations, one.contract)
    outcomes = running.run_expectations(table, expected, own)
    failure: ComityError | None = None
    tie_out = "failed"
    try:
        tie_out = _tie_out(one, table)
    except ComityError as error:
        failure = error
    name = f"validation/{owner}/{report}/{period}/{reference['snapshot']}.html"
    page = running.validation_page(
        outcomes, owner=owner, dataset=one.contract.name, period=period, snapshot=reference["snapshot"], tie_out=tie_out
    )
    site.state.write(name, page)
    running.require_passed(outcomes, owner=owner, dataset=one.contract.name, page=site.state.path_text(name))
    if failure is not None:
        raise failure
    return {"page": site.state.path_text(name), "expectations": len(outcomes), "tie_out": tie_out}


def local_plan(site: Site, owner: str, report: str, period: str, snapshots: Mapping[str, Mapping[str, str]]) -> Json:
    """Enforce the contract, run the local plan and the owner's Gate, keep the figures, write the page for the signers.

    Returns:
        A reference: the salted commitment to the figures, kind (`data` or `nil`), page, edition, how many must sign.

    Raises:
        LocalDataError: NULL_NOT_ALLOWED, DOMAIN_UNKNOWN, VALUE_OUTSIDE_CONTRACT, DUPLICATE_KEY, TOO_MANY_ROWS,
            LOCAL_PLAN_*, TIE_OUT_FAILED, UNITS_TOO_MANY. And what `check_release` raises.
    """
    found = ready(who(site, owner, report, period), fetch=False)
    one = found.who
    table = taking.load_snapshot(site.state, one.contract, _snapshot(one, snapshots))
    units = run_local_plan(one.home, one.info.plan, one.contract, table, slice_ranges(one.row))
    figures = compute_figures(one.info.plan, units, found.rates, owner=owner)
    record = keep_contribution(
        site.state,
        one.of,
        figures,
        tie_out=_tie_out(one, table),
        reference=found.reference[0] if found.reference else None,
        rates={str(name): rate for name, rate in found.rates.items()},
    )
    name = f"{one.of.folder}/{record.commitment}.html"
    site.state.write(name, contribution_page(one.info.plan, one.member, one.of, record))
    return {
        "owner": owner,
        "report": report,
        "period": period,
        "edition": one.edition,
        "plan_digest": one.info.plan_digest,
        "commitment": record.commitment,
        "kind": record.kind,
        "page": site.state.path_text(name),
        "sign_off": one.info.plan.terms.sign_off,
    }


def sign_off(site: Site, owner: str, report: str, period: str, *, signer: str, key: IdentityKey) -> Json:
    """Sign the owner's latest figures as one of its signers.

    Raises:
        ConfigError: CONTRIBUTION_MISSING. PolicyViolation: SIGN_OFF_FOREIGN.
    """
    one = who(site, owner, report, period)
    record = latest_contribution(one)
    sign(site.state, one.of, record.commitment, one.member, signer=signer, key=key)
    return _signed(one, record.commitment)


def sign_off_ready(site: Site, owner: str, report: str, period: str, contribution: Mapping[str, Any]) -> Json | None:
    """Return who signed the figures once enough have, None before.

    Raises:
        PolicyViolation: SIGN_OFF_FOREIGN for a signature by somebody else or over other figures.
    """
    one = who(site, owner, report, period)
    found = _signed(one, _commitment(contribution))
    return found if len(found["signers"]) >= one.info.plan.terms.sign_off else None


def share_and_seal(  # noqa: PLR0917 - all steps are called alike
    site: Site,
    owner: str,
    report: str,
    period: str,
    contribution: Mapping[str, Any],
    sign_off: Mapping[str, Any] | None = None,
    open_sftp: OpenSftp | None = None,
) -> Json:
    """Share the signed figures, seal one part for each operator and write the filing once.

    A filing of the same figures that no operator refused, for the same keys, edition and rates, is found again; other
    figures make take r+1, which replaces r until the period is closed.

    Args:
        site: the owner's site.
        owner: owner id.
        report: the report's name.
        period: period key.
        contribution: from `local_plan`.
        sign_off: from `sign_off_ready`; the signatures themselves are read from state and verified again.
        open_sftp: opens the owner's drop-boxes; used only to ask for a submission close before a later take.

    Returns:
        A reference: filing (id), owner, operators, take, kind.

    Raises:
        PolicyViolation: SIGN_OFF_MISSING, SIGN_OFF_FOREIGN. StateError: PERIOD_CLOSED. ConfigError: STATE_MISSING.
    """
    one = who(site, owner, report, period, open_sftp=open_sftp)
    record = read_contribution(site.state, one.of, _commitment(contribution))
    if sign_off is not None and sign_off.get("commitment", record.commitment) != record.commitment:
        raise PolicyViolation(
            "SIGN_OFF_FOREIGN",
            "the signatures are over other figures",
            ids=one.ids,
            hint="Sign again with `comity sign-off`",
        )
    signed = _require_signatures(one, record)
    last = latest_take(site.state, one.of)
    if last is not None and _still_good(one, last, record):
        return _filing(one, last)
    # A first take comes right after `check_release`; before a later one, ask whether the period was closed meanwhile.
    found = ready(one, fetch=last is not None)
    limits = unit_limits(one.info.plan)
    take = seal_take(
        site.state,
        one.of,
        record,
        operators=one.operators,
        keys=found.keys,
        sign_offs=signed,
        gate_k=one.info.plan.gate.k if limits is None else 1,
        row_bits=0 if limits is None else limits.width,
        accepts_difference=one.home.accepts_difference,
        identity=one.home.identity(),
    )
    return _filing(one, take)


def deliver(
    site: Site, owner: str, filing: Mapping[str, Any] | str, operator: str, open_sftp: OpenSftp | None = None
) -> Json:
    """Deliver the owner's approvals, one operator's part and the `filed` notice; a no-op where they lie already.

    Raises:
        DeliveryError: NAME_TAKEN, FILE_TOO_LARGE, INBOX_FULL, SFTP_DENIED. TransportError: transient.
        ConfigError: STATE_MISSING, FILING_DAMAGED, OPERATOR_UNKNOWN, HOST_KEY_MISMATCH, AUTH_REFUSED.
    """
    take = _take(site, owner, filing)
    if operator not in operators_of(site, owner):
        raise ConfigError(
            "OPERATOR_UNKNOWN",
            f"{operator[:63]} is no operator of the owner's region",
            expected=", ".join(operators_of(site, owner)),
            ids={"owner": owner},
        )
    with sftp_of(site, owner, open_sftp)(operator) as session:
        already = send_take(site.state, take, operator, session, before=_approvals_of(site, owner, take))
    return {"filing": take.filing, "operator": operator, "already": already}


def receipts_ready(
    site: Site, owner: str, filing: Mapping[str, Any] | str, open_sftp: OpenSftp | None = None
) -> Json | None:
    """Return the three receipts once they are there, None before.

    Raises:
        DeliveryError: FILING_REJECTED, FILING_DISPUTED. TransportError: no operator answers.
    """
    take, mirror, operators = _take(site, owner, filing), mirror_of(site, owner), operators_of(site, owner)

    def found() -> dict[str, str]:
        check_refusals(mirror, take)
        return receipts_of(mirror, take, operators)

    if len(found()) < len(operators):
        opener = sftp_of(site, owner, open_sftp)
        sync(mirror, operators, opener, kinds=("receipt", "rejected"), enough=lambda: len(found()) == len(operators))
    receipts = found()
    if len(receipts) < len(operators):
        return None
    return {"filing": take.filing, "receipts": receipts}


def sync_outbox(site: Site, owner: str, open_sftp: OpenSftp | None = None) -> list[str]:
    """Fetch every new notice from every operator of the owner that answers; return those operators.

    Raises:
        TransportError: no operator answers.
    """
    return sync(mirror_of(site, owner), operators_of(site, owner), sftp_of(site, owner, open_sftp), kinds=MIRRORED)


def keep_notice(site: Site, owner: str, data: bytes) -> SignedNotice:
    """Verify a notice (an approval, a withdrawal) and keep it in the owner's mirror.

    Raises:
        ConfigError, EvidenceError: what parsing and verifying raises.
    """
    return mirror_of(site, owner).add(data)


def send_to_operators(
    site: Site, owner: str, notice: SignedNotice, open_sftp: OpenSftp | None = None
) -> dict[str, str]:
    """Put a notice into the owner's inbox at each of its operators; return `delivered` or an error code by operator.

    Raises:
        TransportError: no operator answers.
    """
    opener, out, failure = sftp_of(site, owner, open_sftp), {}, None
    for operator in operators_of(site, owner):
        try:
            with opener(operator) as session:
                send_notice(notice, operator, session)
            out[operator] = "delivered"
        except ComityError as error:
            failure = error
            out[operator] = error.code
    if failure is not None and "delivered" not in out.values():
        raise failure
    return out


def latest_contribution(one: Who) -> Contribution:
    """Return the figures that were computed last; raise ConfigError CONTRIBUTION_MISSING."""
    data = one.site.state.read(f"{one.of.folder}/latest", limit_bytes=64)
    if data is None:
        raise ConfigError(
            "CONTRIBUTION_MISSING", "there are no figures to sign yet", ids=one.ids, hint="Run `comity file` first"
        )
    return read_contribution(one.site.state, one.of, data.decode("ascii"))


def _commitment(contribution: Mapping[str, Any]) -> str:
    return str(contribution.get("commitment", ""))


def _snapshot(one: Who, snapshots: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    reference = snapshots.get(one.contract.name)
    if reference is None:
        raise ConfigError("SNAPSHOT_MISSING", f"no snapshot of {one.contract.name} was taken", ids=one.ids)
    if (reference.get("owner"), reference.get("period")) != (one.home.id, one.row.key):
        raise ConfigError("SNAPSHOT_FOREIGN", "the snapshot is of another owner or period", ids=one.ids)
    return reference


def _tie_out(one: Who, table: Any) -> Literal["passed", "none"]:
    from local_stores.validation.control_totals import check_control_totals  # noqa: PLC0415

    return check_control_totals(
        one.contract,
        table,
        file=one.home.control_totals,
        period=one.row.key,
        dates=slice_ranges(one.row)["period"],
    )


def _signed(one: Who, committed: str) -> Json:
    found = signatures(one.site.state, one.of, committed, one.member)
    return {"commitment": committed, "signers": [item.signer for item in found]}


def _require_signatures(one: Who, record: Contribution) -> list[SignOff]:
    needed = one.info.plan.terms.sign_off
    found = signatures(one.site.state, one.of, record.commitment, one.member)
    if len({one.member.signers[item.signer] for item in found}) < needed:
        raise PolicyViolation(
            "SIGN_OFF_MISSING",
            "the figures are not signed by enough of the owner's signers",
            expected=needed,
            got=len(found),
            ids=one.ids,
            hint="They read the page and run `comity sign-off`",
        )
    return found


def _still_good(one: Who, take: Take, record: Contribution) -> bool:
    """Return whether a written take says what a new one would say."""
    filed = take.filed
    newer = [key for key in period_keys(one).values() if key.created_at > filed.created_at]
    withdrawn = [
        signed.expect(Withdrawal).created_at
        for signed in own_approvals(one.site, one.home.id, Withdrawal)
        if signed.expect(Withdrawal).plan == filed.plan
    ]
    return (
        (filed.contribution, filed.reference) == (record.commitment, record.reference)
        and filed.accepts_difference == one.home.accepts_difference
        and not newer
        and not any(moment >= filed.created_at for moment in withdrawn)
        and not was_refused(one.mirror, take)
    )


def _filing(one: Who, take: Take) -> Json:
    return {
        "filing": take.filing,
        "owner": one.home.id,
        "report": one.info.report,
        "period": one.row.key,
        "edition": one.edition,
        "take": take.filed.take,
        "kind": take.filed.kind_of,
        "operators": list(one.operators),
    }


def _take(site: Site, owner: str, filing: Mapping[str, Any] | str) -> Take:
    name = filing if isinstance(filing, str) else str(filing.get("filing", ""))
    take = load_take(site.state, name)
    if take.filed.owner != site.owner(owner).id:
        raise ConfigError("FILING_FOREIGN", "the filing is of another owner", ids={"owner": owner})
    return take


def _approvals_of(site: Site, owner: str, take: Take) -> list[SignedNotice]:
    # Approvals only: an old withdrawal sent again would withdraw this filing.
    found = [s for s in own_approvals(site, owner, Approval) if s.expect(Approval).plan == take.filed.plan]
    return list({signed.digest: signed for signed in found}.values())
