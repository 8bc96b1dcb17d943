"""May this owner file now? Everything that is checked before any data is read.

1. the release is signed by an author of this federation, unaltered, valid now, and has the period in its calendar;
2. the owner's approval holds now: enough approvers, this very plan and planned-transfer statement, not withdrawn;
3. the period is open in its latest edition: opened, not past its time to live, no submission close in force;
4. each of the three region operators has published its key for this edition;
5. the period's reference data is there and has every rate that the plan needs.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from local_stores.config import OwnerHome, Site
from local_stores.delivery.mirror import Mirror, OpenSftp, directory_sftp, sync
from local_stores.errors import ComityError, ConfigError, NotYet, StateError
from local_stores.filing.releases import ReleaseInfo, find_release
from local_stores.snapshot.contribution import owner_rates
from local_stores.snapshot.periods import SliceName, slice_keys
from local_stores.snapshot.record import ContributionId
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.federation.loaded import Federation, read_file
from mpc_ops.federation.model import Owner
from mpc_ops.notices.model import (
    Approval,
    CalendarRow,
    Manifest,
    PeriodKeyNotice,
    Reference,
    Reopen,
    State,
    Withdrawal,
)
from mpc_ops.notices.signed import SignedNotice, parse_notice, run_id_of
from mpc_ops.plan.approvals import Approved, approval_state
from mpc_ops.plan.layout import measures
from mpc_ops.plan.model import DeliverNode

__all__ = [
    "Ready", "Who", "closing_manifest", "mirror_of", "operators_of", "own_approvals", "period_keys", "ready", "recipient_of", "require_approval",
    "require_open", "sftp_of", "utc_now", "who",
]  # fmt: skip

_NEEDED = ("reference", "period_key", "reopen", "manifest", "state")


@dataclass(frozen=True)
class Who:
    """An owner at its site, and one report and period of it.

    Attributes:
        operators: the three operators of the owner's region, in party order.
        edition: the latest edition that was opened.
    """

    site: Site
    federation: Federation
    home: OwnerHome
    member: Owner
    operators: tuple[str, ...]
    mirror: Mirror
    open_sftp: OpenSftp
    info: ReleaseInfo
    row: CalendarRow
    edition: int

    @property
    def of(self) -> ContributionId:
        """The context of the owner's contribution."""
        return ContributionId(self.info.plan_digest, self.row.key, self.home.id, self.edition)

    @property
    def contract(self) -> DatasetContract:
        """Contract of the scanned dataset."""
        return self.federation.terms.datasets[self.info.datasets[0]]

    @property
    def ids(self) -> dict[str, object]:
        """Ids that place an error."""
        return {"owner": self.home.id, "report": self.info.report, "period": self.row.key, "edition": self.edition}


@dataclass(frozen=True)
class Ready:
    """An owner that may file.

    Attributes:
        approval: the approval that holds.
        keys: the operators' period keys.
        reference: the rates' notice, None where the plan does not translate.
        rates: rate by slice.
    """

    who: Who
    approval: Approved
    keys: Mapping[str, PeriodKeyNotice]
    reference: tuple[str, Reference] | None
    rates: Mapping[SliceName, str] = field(default_factory=dict)


def utc_now() -> dt.datetime:
    """Return the present moment (a seam for tests)."""
    return dt.datetime.now(tz=dt.UTC)


def sftp_of(site: Site, owner: str, open_sftp: OpenSftp | None) -> OpenSftp:
    """Return how to open the owner's drop-boxes: the caller's way, or by directory and own key."""
    return open_sftp or directory_sftp(site.federation(), site.owner(owner))


def mirror_of(site: Site, owner: str) -> Mirror:
    """Return the owner's mirror of notices."""
    return Mirror(site.state, site.federation(), site.owner(owner).id)


def operators_of(site: Site, owner: str) -> tuple[str, ...]:
    """Return the owner's three region operators in party order."""
    federation = site.federation()
    return tuple(federation.cluster(federation.region_of(owner)[1].cluster).operators)


def who(
    site: Site, owner: str, report: str, period: str, *, open_sftp: OpenSftp | None = None, valid_now: bool = True
) -> Who:
    """Look up site, owner, release and edition from what is here; nothing is fetched.

    Args:
        site: the owner's site.
        owner: owner id.
        report: the report's name.
        period: period key.
        open_sftp: opens the owner's drop-boxes; by directory and own key if not given.
        valid_now: insist that the release is valid now (what follows a run may come later).

    Raises:
        ConfigError: OWNER_UNKNOWN, PARTY_UNKNOWN, RELEASE_UNKNOWN. StateError: PERIOD_UNKNOWN.
        PolicyViolation: RELEASE_INVALID, RELEASE_EXPIRED.
    """
    federation, home = site.federation(), site.owner(owner)
    member = federation.owner(owner)
    info, row = find_release(site, report, period, now=utc_now() if valid_now else None)
    mirror = mirror_of(site, owner)
    return Who(
        site=site,
        federation=federation,
        home=home,
        member=member,
        operators=operators_of(site, owner),
        mirror=mirror,
        open_sftp=sftp_of(site, owner, open_sftp),
        info=info,
        row=row,
        edition=_edition(mirror, info, period),
    )


def ready(one: Who, *, fetch: bool = True) -> Ready:
    """Check everything that must hold before data is read.

    Args:
        one: from `who`.
        fetch: ask the operators' outboxes where something is missing here.

    Raises:
        PolicyViolation: APPROVAL_MISSING, APPROVAL_EXPIRED, APPROVAL_WITHDRAWN, APPROVAL_FOREIGN.
        StateError: PERIOD_CLOSED. NotYet: PERIOD_NOT_OPEN, KEYS_MISSING, REFERENCE_MISSING.
        ConfigError: RATE_MISSING and so on. TransportError: no operator answers.
    """
    approval = require_approval(one)
    require_opened(one)
    if fetch:
        sync(one.mirror, one.operators, one.open_sftp, kinds=_NEEDED, enough=_has_all(one))
        one = who(one.site, one.home.id, one.info.report, one.row.key, open_sftp=one.open_sftp)
    require_open(one)
    keys = period_keys(one)
    missing = [name for name in one.operators if name not in keys]
    if missing:
        raise NotYet(
            "KEYS_MISSING", f"no period key yet of {', '.join(missing)}", ids=one.ids,
            hint="Operators publish it when the edition opens",
        )  # fmt: skip
    found = _reference(one)
    translates = any(measure.translate is not None for measure in measures(one.info.plan))
    if translates and found is None:
        raise NotYet(
            "REFERENCE_MISSING", "the period's reference data (rates) is not published yet", ids=one.ids,
            hint="The report's author publishes it",
        )  # fmt: skip
    rates = owner_rates(one.info.plan, found[1] if found else None, one.member.currency, slice_keys(one.row))
    return Ready(one, approval, keys, found if translates else None, rates)


def require_approval(one: Who) -> Approved:
    """Return the owner's approval that holds now; raises PolicyViolation APPROVAL_*."""
    return approval_state(
        one.federation,
        one.info.plan,
        own_approvals(one.site, one.home.id, Approval),
        own_approvals(one.site, one.home.id, Withdrawal),
        one.home.id,
        now=utc_now(),
        statement=one.info.release.statement,
    )


def own_approvals(site: Site, owner: str, kind: type[Approval | Withdrawal]) -> list[SignedNotice]:
    """Return the owner's approvals or withdrawals: from the mirror and from `<owner home>/approvals/*.dsse`.

    They are not verified here: `approval_state` does it and says what is wrong with them.
    """
    found = mirror_of(site, owner).notices("approval" if kind is Approval else "withdrawal")
    for path in sorted((site.owner(owner).folder / "approvals").glob("*.dsse")):
        try:
            found.append(parse_notice(read_file(path, limit_bytes=1 << 20)))
        except ComityError as error:
            raise ConfigError(
                error.code, f"a file among the owner's approvals is no notice ({error.what})", ids={"file": path.name}
            ) from None
    return [signed for signed in found if isinstance(signed.notice, kind)]


def require_opened(one: Who) -> None:
    """Raise NotYet PERIOD_NOT_OPEN before the calendar's opening."""
    opens = _moment(one.row.opens_at)
    if utc_now() < opens:
        raise NotYet("PERIOD_NOT_OPEN", f"the period opens at {one.row.opens_at}", ids=one.ids)


def require_open(one: Who) -> None:
    """Check that the edition takes filings.

    Raises:
        StateError: PERIOD_CLOSED after the submission close or the time to live.
        NotYet: PERIOD_NOT_OPEN.
    """
    require_opened(one)
    manifest = closing_manifest(one)
    if manifest is not None:
        raise StateError(
            "PERIOD_CLOSED",
            f"edition {one.edition} of {one.row.key} was closed at {manifest.expect(Manifest).created_at}",
            ids={**one.ids, "run": run_id_of(manifest)[:12]},
            hint="Group reporting can open the next edition with `comity run reopen`",
        )
    # Where keys were published late (a backfill), due time and time to live move by that delay.
    opens = _moment(one.row.opens_at)
    published = [_moment(key.created_at) for key in period_keys(one).values()]
    delay = max(min(published) - opens, dt.timedelta()) if published and one.edition == 1 else dt.timedelta()
    last = _due(one) + delay + dt.timedelta(days=one.info.plan.terms.ttl_days)
    if utc_now() >= last:
        raise StateError(
            "PERIOD_CLOSED", f"the period was due at {one.row.due_at} and its time to live is over", ids=one.ids,
            hint="Group reporting can open the next edition with `comity run reopen`",
        )  # fmt: skip


def closing_manifest(one: Who) -> SignedNotice | None:
    """Return the submission close of the edition that is in force, if there is one; a run that ended has none."""
    words = [state for _, state in one.mirror.of(State) if _speaks(one.federation, state)]
    ended = {state.run for state in words if state.state != "COMMITTED"}
    committed = {state.run for state in words if state.state == "COMMITTED"}
    for signed in one.mirror.notices("manifest"):
        notice = signed.expect(Manifest)
        wanted = (one.info.plan_digest, one.row.key, one.edition, recipient_of(one.info))
        if (notice.plan, notice.period, notice.edition, notice.recipient) == wanted:
            run = run_id_of(signed)
            if run not in ended or run in committed:
                return signed
    return None


def recipient_of(info: ReleaseInfo) -> str:
    """Return who closes and reopens the report's periods."""
    return cast("DeliverNode", info.plan.node(DeliverNode)).recipient


def _speaks(federation: Federation, state: State) -> bool:
    cluster = federation.terms.clusters.get(state.cluster)
    return cluster is not None and state.operator in cluster.operators


def _reopened(mirror: Mirror, info: ReleaseInfo, period: str) -> list[Reopen]:
    wanted = (info.plan_digest, period, recipient_of(info))
    return [n for _, n in mirror.of(Reopen) if (n.plan, n.period, n.recipient) == wanted]


def _edition(mirror: Mirror, info: ReleaseInfo, period: str) -> int:
    return max([1, *(notice.edition for notice in _reopened(mirror, info, period))])


def _due(one: Who) -> dt.datetime:
    reopened = [n.due_at for n in _reopened(one.mirror, one.info, one.row.key) if n.edition == one.edition]
    return _moment(max(reopened, default=one.row.due_at))


def period_keys(one: Who) -> dict[str, PeriodKeyNotice]:
    """Return each region operator's newest key of the edition, as far as they are here."""
    wanted = (one.info.plan_digest, one.row.key, one.edition)
    found: dict[str, PeriodKeyNotice] = {}
    for _, key in sorted(one.mirror.of(PeriodKeyNotice), key=lambda item: item[1].created_at):
        if (key.plan, key.period, key.edition) == wanted and key.operator in one.operators:
            found[key.operator] = key
    return found


def _reference(one: Who) -> tuple[str, Reference] | None:
    found = [
        (notice.version, digest, notice) for digest, notice in one.mirror.of(Reference) if notice.period == one.row.key
    ]
    if not found:
        return None
    _, digest, notice = max(found, key=lambda item: item[:2])
    return digest, notice


def _has_all(one: Who) -> Callable[[], bool]:
    # A second relay is asked only where the first lacks something; a close that one of them withholds is caught by the
    # operators themselves, who refuse a filing after it.
    return lambda: len(period_keys(one)) == len(one.operators) and _reference(one) is not None


def _moment(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
