"""What every step of closing works with: the recipient's site, its federation, and the report's newest valid release."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from local_stores.config.site import Site
from local_stores.errors import ConfigError
from local_stores.receive.client import GroupClients
from local_stores.receive.home import RecipientHome, load_recipient
from local_stores.receive.log import RecipientLog
from local_stores.receive.runs import RunFiles
from mpc_ops.federation.loaded import Federation, read_file
from mpc_ops.notices.model import CalendarRow, Manifest, Release
from mpc_ops.notices.signed import SignedNotice, parse_notice, utc_text, verify_notice
from mpc_ops.plan.model import CrossNode, DeliverNode, Plan, RegionSumNode, load_plan

__all__ = ["Desk", "Report", "open_desk"]


@dataclass(frozen=True)
class Report:
    """A verified release with its plan."""

    signed: SignedNotice
    release: Release
    plan: Plan

    @property
    def group(self) -> str:
        """The group cluster."""
        node = self.plan.node(CrossNode)
        return node.cluster if isinstance(node, CrossNode) else ""

    @property
    def recipient(self) -> str:
        """Who receives the result."""
        node = self.plan.node(DeliverNode)
        return node.recipient if isinstance(node, DeliverNode) else ""

    @property
    def regions(self) -> list[str]:
        """Regions whose owners submit."""
        node = self.plan.node(RegionSumNode)
        return list(node.regions) if isinstance(node, RegionSumNode) else []

    def row(self, period: str) -> CalendarRow:
        """Return the calendar's row of a period; raise ConfigError PERIOD_UNKNOWN."""
        for row in self.release.calendar:
            if row.key == period:
                return row
        keys = ", ".join(row.key for row in self.release.calendar[-6:])
        raise ConfigError(
            "PERIOD_UNKNOWN",
            "the report's calendar has no such period",
            expected=f"one of its {len(self.release.calendar)} periods, such as {keys}",
            got=period[:20],
            ids={"report": self.plan.report},
        )


@dataclass(frozen=True)
class Desk:
    """The recipient's desk."""

    site: Site
    home: RecipientHome
    federation: Federation

    @property
    def log(self) -> RecipientLog:
        """The recipient's transfer log."""
        return RecipientLog(self.home.folder / "state" / "log.sqlite", self.home.id)

    @property
    def now(self) -> datetime:
        """The present moment."""
        return datetime.now(tz=UTC)

    def run(self, run: str) -> RunFiles:
        """Return the files of a run."""
        return RunFiles(self.site.state, run)

    def report(self, name: str, period: str | None = None) -> Report:
        """Return the newest release of a report that is valid now and, if given, knows the period.

        Raises:
            ConfigError: RELEASE_MISSING, PERIOD_UNKNOWN, what verification raises.
        """
        found = [report for report in self._releases() if report.plan.report == name]
        now = utc_text(self.now)
        valid = [item for item in found if item.release.valid_from <= now < item.release.valid_to]
        if not valid:
            raise ConfigError(
                "RELEASE_MISSING",
                f"no valid release of report {name[:80]} is imported",
                expected=f"a release file in {self.site.releases_dir}",
                got=f"{len(found)} releases, none valid now" if found else "none",
                ids={"site": self.site.id},
                hint="Run `comity report import`",
            )
        newest = max(valid, key=lambda item: (item.release.created_at, item.signed.digest))
        if period is not None:
            newest.row(period)
        return newest

    def report_of(self, manifest: SignedNotice) -> Report:
        """Return the release that a manifest was signed for; raise ConfigError RELEASE_MISSING."""
        close = manifest.expect(Manifest)
        found = [report for report in self._releases() if report.plan.digest == close.plan]
        if not found:
            raise ConfigError(
                "RELEASE_MISSING", "the release of a run is not imported here", ids={"plan": close.plan[:16]}
            )
        return max(found, key=lambda item: (item.release.created_at, item.signed.digest))

    def _releases(self) -> list[Report]:
        folder = self.site.releases_dir
        reports = []
        for path in sorted(folder.glob("*.dsse")) if folder.is_dir() else []:
            signed = parse_notice(read_file(path, limit_bytes=1 << 20))
            if isinstance(signed.notice, Release):
                signed = verify_notice(signed, self.federation)
                release = signed.expect(Release)
                reports.append(Report(signed, release, load_plan(release.plan.encode("utf-8"))))
        return reports

    def owners(self, report: Report) -> list[str]:
        """Return the owners of the report's regions, sorted."""
        return sorted(name for name, owner in self.federation.owners.items() if owner.region in report.regions)

    def clients(self, cluster: str) -> GroupClients:
        """Connect to the three operators of a group cluster."""
        return GroupClients(self.federation.cluster(cluster).operators, self.federation, self.home)

    def hand_over(self, signed: SignedNotice, cluster: str, *, run: str | None = None) -> dict[str, bool]:
        """Post a notice to a group cluster's operators and log it; one that took it is enough, they swap notices."""
        with self.clients(cluster) as clients:
            answers = clients.post(signed, at_least=1)
        size = len(signed.envelope.to_bytes())
        for operator in answers:
            self.log.notice_sent(signed.digest, size, operator, run)
        return answers


def open_desk(site: Site) -> Desk:
    """Load the recipient's home and federation of a site.

    Raises:
        ConfigError: NOT_RECIPIENT, PARTY_UNKNOWN if the federation has no such recipient, and what loading raises.
    """
    home = load_recipient(site)
    federation = site.federation()
    if home.id not in federation.terms.recipients:
        raise ConfigError("PARTY_UNKNOWN", "no such recipient in this federation", ids={"recipient": home.id})
    return Desk(site, home, federation)
