"""What is looked at after a month of the demo: exactness against the oracle, flows, evidence, `summary.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.demo import oracle, reference
from infra.demo.agreement import REPORT
from infra.demo.homes import GROUP_SITE, DemoHomes
from local_stores.closing.desk import open_desk
from local_stores.closing.wrapup import collect_closing, own_evidence
from local_stores.config import load_site
from local_stores.receive.runs import live_manifest
from mpc_ops.errors import EvidenceError
from mpc_ops.evidence.checks import assess
from mpc_ops.evidence.facts import Facts
from mpc_ops.evidence.verify import Verdict, verify_pack
from mpc_ops.notices.signed import run_id_of
from mpc_ops.plan.model import Plan, RegionGateNode

__all__ = ["Month", "look_at_month", "write_summary"]

_CLOSING_WAIT_S = 30.0


@dataclass(frozen=True)
class Month:
    """One finished month.

    Attributes:
        flows: what went between jurisdictions, by class (domestic flows included, from = to).
        verdict: of the offline check with the author's own federation folder.
        facts: what the evidence page says.
        differences: where the published table differs from the oracle; empty if exact.
        open: what the closing attestation still lacks.
    """

    period: str
    run: str
    rows: int
    differences: list[str]
    flows: list[dict[str, str | int]]
    verdict: Verdict
    facts: Facts
    open: list[str]

    @property
    def exact(self) -> bool:
        """Whether the published table equals the oracle to the cent."""
        return not self.differences


def look_at_month(homes: DemoHomes, plan: Plan, period: str) -> Month:
    """Complete a month's evidence, check it offline, and compare the published file with the oracle."""
    site = load_site(homes.sites[GROUP_SITE] / "site.toml")
    desk = open_desk(site)
    manifest = live_manifest(site.state, plan.digest, period, 1)
    if manifest is None:
        raise EvidenceError("RUN_UNKNOWN", "the month was not closed", ids={"period": period})
    run = run_id_of(manifest)
    collected = collect_closing(site, {"run_id": run}, wait_s=_CLOSING_WAIT_S)
    flows = assess(own_evidence(desk, run)).reconciliation
    verdict = verify_pack(homes.root / "evidence" / REPORT / period, homes.federation)
    if verdict.facts is None:
        verdict.require()
        raise EvidenceError("EVIDENCE_REFUSED", "the pack holds no facts", ids={"period": period})
    published = homes.root / "published" / REPORT / period / "result.parquet"
    rates = reference.rates([period, reference.prior_year(period)])
    gate = plan.gate
    owners = gate.min_owners if isinstance(gate, RegionGateNode) else 1
    expected = oracle.report(oracle.lines_of(homes.stores, period), period, rates, k=gate.k, min_owners=owners)
    return Month(
        period=period,
        run=run,
        rows=len(expected),
        differences=oracle.differences(expected, oracle.published_rows(published)),
        flows=[total.as_dict() for total in (*flows.crossings, *flows.domestic)],
        verdict=verdict,
        facts=verdict.facts,
        open=list(collected["open"]),
    )


def write_summary(
    path: Path, months: Sequence[Month], seconds: Mapping[str, float], cpu_seconds: float, mode: str
) -> dict[str, Any]:
    """Write `summary.json`: the newest month at the top level, every month under `months`."""

    def month(one: Month) -> dict[str, Any]:
        return {
            "report": REPORT,
            "period": one.period,
            "run": one.run,
            "rows": one.rows,
            "exact_match": one.exact,
            "flows": one.flows,
            "evidence_verified": one.verdict.ok,
        }

    summary = {
        **month(months[-1]),
        "exact_match": all(one.exact for one in months),
        "evidence_verified": all(one.verdict.ok for one in months),
        "mode": mode,
        "seconds_by_step": dict(seconds),
        "cpu_seconds": round(cpu_seconds, 1),
        "months": [month(one) for one in months],
    }
    path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return summary
