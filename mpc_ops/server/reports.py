"""Releases as the operator uses them: the plan, its calendar row of a period, its clusters, its runs' manifests."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

from mpc_ops.errors import ConfigError
from mpc_ops.notices.model import CalendarRow, Filed, Manifest, Reference, Release
from mpc_ops.notices.signed import SignedNotice
from mpc_ops.plan.model import CrossNode, DeliverNode, GateNode, Plan, RegionSumNode, load_plan
from mpc_ops.server.context import Context
from mpc_ops.server.notices import NoticeBook

__all__ = ["Report", "Reports"]


@dataclass(frozen=True)
class Report:
    """A released plan.

    Attributes:
        digest: plan digest.
        release: the newest release of this plan that is here.
        release_digest: its notice digest.
    """

    digest: str
    plan: Plan
    release: Release
    release_digest: str

    @property
    def regions(self) -> list[str]:
        """Regions whose owners file."""
        return list(cast("RegionSumNode", self.plan.node(RegionSumNode)).regions)

    @property
    def cross(self) -> CrossNode:
        """The border node."""
        return cast("CrossNode", self.plan.node(CrossNode))

    @property
    def group(self) -> str:
        """The group cluster."""
        return str(self.cross.cluster)

    @property
    def recipient(self) -> str:
        """Who reconstructs the result."""
        return str(self.deliver.recipient)

    @property
    def deliver(self) -> DeliverNode:
        """The delivery node."""
        return cast("DeliverNode", self.plan.node(DeliverNode))

    @property
    def gate(self) -> GateNode:
        """The Gate's terms."""
        return cast("GateNode", self.plan.node(GateNode))

    def row(self, period: str) -> CalendarRow:
        """Return the calendar row of a period; raise ConfigError PERIOD_UNKNOWN."""
        for row in self.release.calendar:
            if row.key == period:
                return row
        raise ConfigError("PERIOD_UNKNOWN", "the report's calendar has no such period", ids={"period": period})


class Reports:
    """Looks up reports and what belongs to a run."""

    def __init__(self, context: Context, book: NoticeBook) -> None:
        self._context = context
        self._book = book
        self._plans: OrderedDict[str, Plan] = OrderedDict()

    def all(self) -> list[Report]:
        """Return every report with its newest release."""
        rows = self._context.store.rows("SELECT DISTINCT plan FROM notices WHERE kind = 'release'")
        return [self.report(str(plan)) for (plan,) in rows]

    def report(self, plan: str) -> Report:
        """Return a report by plan digest; raise ConfigError PLAN_UNKNOWN."""
        releases = self._book.find("release", plan=plan)
        if not releases:
            raise ConfigError("PLAN_UNKNOWN", "no release of this plan has arrived here", ids={"plan": plan[:16]})
        newest = max(releases, key=lambda signed: signed.expect(Release).created_at)
        release = newest.expect(Release)
        return Report(plan, self._plan(plan, release), release, newest.digest)

    def known(self, plan: str) -> bool:
        """Return whether a release of the plan is here."""
        return self._context.store.row("SELECT 1 FROM notices WHERE kind = 'release' AND plan = ?", plan) is not None

    def _plan(self, digest: str, release: Release) -> Plan:
        if digest not in self._plans:
            self._plans[digest] = load_plan(release.plan.encode("utf-8"))
            while len(self._plans) > 100:
                self._plans.popitem(last=False)
        return self._plans[digest]

    def clusters(self, report: Report) -> dict[str, str]:
        """Return {region: cluster} of a report."""
        return {name: self._context.federation.terms.regions[name].cluster for name in report.regions}

    def own_region_clusters(self, report: Report) -> list[str]:
        """Region clusters of the report that this operator sits in."""
        return sorted(set(self.clusters(report).values()) & set(self._context.region_clusters()))

    def own_owners(self, report: Report) -> list[str]:
        """Owners of the report's regions that file with this operator."""
        own = {name for name, cluster in self.clusters(report).items() if cluster in self._context.clusters}
        return sorted(name for name, owner in self._context.federation.owners.items() if owner.region in own)

    def owners(self, report: Report) -> list[str]:
        """All owners of the report's regions."""
        regions = set(report.regions)
        return sorted(name for name, owner in self._context.federation.owners.items() if owner.region in regions)

    def manifest_of(self, run: str) -> tuple[SignedNotice, Manifest]:
        """Return the manifest of a run; raise ConfigError RUN_UNKNOWN."""
        found = self._book.find("manifest", run=run)
        if not found:
            raise ConfigError("RUN_UNKNOWN", "no manifest of this run has arrived here", ids={"run": run[:16]})
        return found[0], found[0].expect(Manifest)

    def filings(self, manifest: Manifest) -> dict[str, SignedNotice]:
        """Return the `filed` notices of a manifest that are here, by owner."""
        out = {}
        for digest in manifest.filings:
            signed = self._book.get(digest)
            if signed is not None and isinstance(signed.notice, Filed):
                out[signed.notice.owner] = signed
        return out

    def reference(self, period: str) -> SignedNotice | None:
        """Return the newest reference data of a period, None if there is none."""
        found = self._book.find("reference", period=period)
        return max(found, key=lambda signed: signed.expect(Reference).version) if found else None
