"""What people do before and during the demo's months: release, reference data, imports, approvals, sign-offs.

In production these are `comity report release|import|approve`, `comity group release|reference` and `comity sign-off`,
each run by the person concerned; the demo calls the same functions with keys that it made itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from infra.demo import reference
from infra.demo.homes import AUTHOR, GROUP_SITE, TERMS, DemoHomes, approvers_of, signers_of
from local_stores import closing, filing
from local_stores.config import Site, load_site
from local_stores.filing.readiness import mirror_of
from mpc_ops.errors import ComityError, PeerTimeout
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.model import CalendarRow, Rate, Reference
from mpc_ops.notices.signed import SignedNotice, sign_notice, utc_text, verify_notice
from mpc_ops.plan.model import Plan, load_plan
from mpc_ops.plan.releases import approve, open_release
from mpc_ops.planner.release import recompile, release_report

__all__ = ["People", "import_and_approve", "publish_reference", "release"]

REPORT = "group_performance"
_POLL_S = 0.2


def release(
    homes: DemoHomes, periods: tuple[str, ...], now: datetime, *, open_for: timedelta = timedelta(hours=1)
) -> tuple[SignedNotice, Plan]:
    """Compile and sign the report as its author, and hand the release to the group operators; months are due after `open_for`."""
    federation = Federation.load(homes.federation)
    reports = TERMS / "reports"
    signed = release_report(
        (reports / f"{REPORT}.sql").read_text(encoding="utf-8"),
        (reports / f"{REPORT}.toml").read_text(encoding="utf-8"),
        [CalendarRow(**row) for row in reference.calendar(now, periods, open_for=open_for)],
        federation,
        author=AUTHOR,
        key=homes.key(AUTHOR),
        now=now,
    )
    site = load_site(homes.sites[GROUP_SITE] / "site.toml")
    path = site.releases_dir / f"{signed.digest}.dsse"
    path.write_bytes(signed.envelope.to_bytes())
    closing.publish_release(site, path)
    return signed, load_plan(filing.list_releases(site)[0].release.plan.encode("utf-8"))


def publish_reference(homes: DemoHomes, period: str, now: datetime) -> SignedNotice:
    """Sign the rates that a month needs (its own and the prior year's) and hand them to the group operators."""
    federation = Federation.load(homes.federation)
    months = [period, reference.prior_year(period)]
    notice = Reference(
        federation=federation.digest,
        author=AUTHOR,
        created_at=utc_text(now),
        period=period,
        version=1,
        currency=reference.GROUP_CURRENCY,
        rates=[
            Rate(period=month, currency=currency, avg_rate=entry["avg_rate"])
            for month, table in reference.rates(months).items()
            for currency, entry in table.items()
        ],
        source="HM Revenue & Customs monthly rates, EUR by cross rate (stand-in for the group's own average rates)",
    )
    signed = verify_notice(sign_notice(notice, homes.key(AUTHOR)), federation)
    folder = homes.party(AUTHOR) / "reference"
    folder.mkdir(exist_ok=True)
    path = folder / f"{period}.dsse"
    path.write_bytes(signed.envelope.to_bytes())
    closing.publish_reference(load_site(homes.sites[GROUP_SITE] / "site.toml"), path)
    return signed


def _wait(what: str, ready: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > end:
            raise PeerTimeout("DEMO_TIMEOUT", f"{what} did not happen in time", hint="See the logs under var/demo/logs")
        time.sleep(_POLL_S)


def import_and_approve(homes: DemoHomes, site_name: str, now: datetime) -> int:
    """Fetch the release over SFTP as each owner of a site, compile it again, import it, and approve it.

    Returns:
        How many approvals were signed.
    """
    site = load_site(homes.sites[site_name] / "site.toml")
    federation = site.federation()
    approvals = 0
    for owner in homes.site_owners[site_name]:
        _wait(f"arrival of the release at {owner}", lambda owner=owner: _arrived(site, owner))
        for signed in mirror_of(site, owner).notices("release"):
            opened = open_release(signed, federation, now=now)
            if not recompile(opened, federation).same:
                raise RuntimeError("the release does not compile to the same plan here")
            (site.releases_dir / f"{signed.digest}.dsse").write_bytes(signed.envelope.to_bytes())
            keys = [homes.key(person) for person in approvers_of(owner)]
            approval = approve(opened, owner, keys, federation, days=180, now=now)
            filing.keep_notice(site, owner, approval.envelope.to_bytes())
            filing.send_to_operators(site, owner, approval)
            approvals += 1
    return approvals


def _arrived(site: Site, owner: str) -> bool:
    filing.sync_outbox(site, owner)
    return bool(mirror_of(site, owner).notices("release"))


class People(threading.Thread):
    """The two signers of every owner, at their desks: sign each new set of figures once it is there."""

    def __init__(self, homes: DemoHomes, periods: Iterable[str]) -> None:
        super().__init__(name="people", daemon=True)
        self.signed = 0
        self.failures: list[str] = []
        self._homes = homes
        self._open = {
            (site, owner, period)
            for site, owners in homes.site_owners.items()
            for owner in owners
            for period in periods
        }
        self._sites = {site: load_site(homes.sites[site] / "site.toml") for site in homes.site_owners}
        self._over = threading.Event()

    def run(self) -> None:
        """Look at every desk until all figures are signed or `stop` is called."""
        while self._open and not self._over.wait(_POLL_S):
            for work in sorted(self._open, key=lambda item: item[2]):
                if self._pending(*work):
                    self._sign(*work)

    def stop(self) -> None:
        """End, whatever is still unsigned."""
        self._over.set()

    def _pending(self, site: str, owner: str, period: str) -> bool:
        # The page for the signers is written last, so its being there says that the figures are.
        folder = self._sites[site].folder / "state" / "contributions" / owner
        return any(folder.glob(f"*/{period}/*/*.html"))

    def _sign(self, site: str, owner: str, period: str) -> None:
        try:
            for signer in signers_of(owner):
                filing.sign_off(self._sites[site], owner, REPORT, period, signer=signer, key=self._homes.key(signer))
                self.signed += 1
        except ComityError as error:
            if not error.transient:
                self.failures.append(str(error))
        self._open.discard((site, owner, period))


def utc_now() -> datetime:
    """Return the present moment."""
    return datetime.now(tz=UTC)
