"""The recipient's whole month against six real operator processes: close, fetch, verify, publish, evidence, all repeatable."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from local_stores import closing
from local_stores.closing.desk import open_desk
from local_stores.errors import NotYet
from local_stores.publish.build import table_from_lanes
from local_stores.publish.history import load_published
from mpc_ops.errors import StateError
from mpc_ops.evidence.statement import closing_digest
from mpc_ops.evidence.verify import verify_pack
from mpc_ops.notices.model import Outcome
from mpc_ops.notices.signed import sign_notice, utc_text
from tests.support.closing import make_recipient_site, save_notice
from tests.support.federation import SMALL, make_approval, make_federation, make_plan, make_reference, make_release
from tests.support.operators import PERIOD, Desk, Sealed, operator_endpoints, start_operators, wait_for

pytestmark = pytest.mark.e2e
REPORT = "group_performance"


class Month:
    """One federation, one report, the recipient's site, and the owners' side on folders."""

    def __init__(self, running, root: Path) -> None:
        self.running, self.made = running, running.made
        self.plan = make_plan(self.made.federation, min_owners=2)
        self.reference = make_reference(self.made, PERIOD)
        self.release = make_release(self.made, self.plan)
        self.desk = Desk(self.made, self.plan, running.spools, reference=self.reference)
        self.site = make_recipient_site(self.made, root / "site", self.release)
        self.reference_file = save_notice(root / "files", self.reference)

    def open(self) -> None:
        release = self.site.releases_dir / f"{self.release.digest}.dsse"
        wait_for(lambda: self._quiet(closing.publish_release, release))
        wait_for(lambda: self._quiet(closing.publish_reference, self.reference_file))
        for owner in self.made.owners:
            wait_for(lambda owner=owner: len(self.desk.keys(owner, PERIOD)) == 3)
            self.desk.put_notice(owner, make_approval(self.made, self.plan, owner))

    def _quiet(self, step, *arguments):
        try:
            return step(self.site, *arguments)
        except Exception as error:
            if not getattr(error, "transient", False):
                raise
            return None

    def file(self, owner: str, seed: int = 1) -> Sealed:
        values = np.random.default_rng(seed).integers(-(10**12), 10**12, self.desk.lanes)
        sealed = self.desk.deliver(self.desk.seal(owner, values, tie_out="passed"))
        wait_for(lambda: len(self.desk.receipts(sealed)) == 3)
        return sealed

    def poll(self, step, *arguments):
        # On a busy machine an attempt may time out and start anew.
        return wait_for(lambda: self._quiet(step, *arguments), timeout_s=200)

    def countersign(self, run: str) -> None:
        """What every owner's outcome DAG does once it has derived the closing attestation."""
        envelope = open_desk(self.site).run(run).own("closing")
        for owner in self.made.owners:
            outcome = Outcome(
                run=run, party=owner, closing=closing_digest(envelope.payload), created_at=utc_text(self.desk.clock())
            )
            self.desk.put_notice(owner, sign_notice(outcome, self.made.keys[owner]))


@pytest.fixture
def month(tmp_path):
    made = make_federation(tmp_path, SMALL, endpoints=operator_endpoints(SMALL))
    with start_operators(made, limits={"tick_s": 0.1, "ask_s": 0.3}) as running:
        yield Month(running, tmp_path)


def test_a_month_from_close_to_countersigned_evidence(month, tmp_path):
    site = month.site
    month.open()
    first = month.file("de-nord", 1)
    assert closing.filings_ready(site, REPORT, PERIOD) is None
    with pytest.raises(NotYet, match=r"CLOSE_HELD: .*de-sued \(EXPECTED\)"):
        closing.close(site, REPORT, PERIOD)
    second = month.file("de-sued", 2)
    ready = month.poll(closing.filings_ready, REPORT, PERIOD)
    assert (ready["submitted"], ready["late"], ready["closed"]) == (2, [], False)

    run = month.poll(closing.close, REPORT, PERIOD)
    assert closing.close(site, REPORT, PERIOD) == run  # posts the same manifest again
    assert closing.filings_ready(site, REPORT, PERIOD)["closed"]
    month.poll(closing.result_ready, run)
    fetched = closing.fetch(site, run)
    assert fetched == closing.fetch(site, run)
    assert (len(fetched["parts"]), fetched["complete"]) == (3, True)
    verified = closing.verify(site, run, fetched)
    assert verified["lanes"] == month.desk.lanes
    published = closing.publish(site, run, verified)
    assert published["new"]
    assert not closing.publish(site, run, verified)["new"]
    table, _ = load_published(Path(published["folder"]) / "result.parquet")
    expected = table_from_lanes(month.plan, [int(v) for v in first.values + second.values], period=PERIOD, edition=1)
    assert [row.values for row in table.rows] == [row.values for row in expected.rows]

    done = closing.acknowledge(site, run, published)
    assert done["verified"]
    done = closing.collect_closing(site, run, wait_s=20, for_owners=False)
    assert len(done["erased"]) == done["operators"] == 6
    assert done["countersigned"] == ["group-reporting"]
    assert done["open"] == ["closing attestation not countersigned by de-nord, de-sued"]
    month.countersign(run["run_id"])
    done = closing.collect_closing(site, run, wait_s=20)
    assert (done["open"], done["countersigned"]) == ([], ["de-nord", "de-sued", "group-reporting"])

    pack = Path(done["evidence"])
    assert pack == tmp_path / "site" / "evidence" / REPORT / PERIOD
    verdict = verify_pack(pack, month.made.folder)
    assert verdict.ok, [check.problems for check in verdict.refused]
    assert verdict.outcome == "COMMITTED"
    flows = {(fact.cells["ends"], fact.cells["code"]) for fact in verdict.facts.section("flows")}
    assert {("DE > CH", "aggregate_share"), ("CH > NL", "released_aggregate")} <= flows
    assert not [flow for flow in flows if flow[1].startswith("record")]
    with pytest.raises(StateError, match="RUN_COMMITTED"):
        closing.cancel(site, run["run_id"], reason="too late")
    assert_no_figure_left_in(pack, first, second, site)


def assert_no_figure_left_in(pack: Path, first: Sealed, second: Sealed, site) -> None:
    """Neither a figure nor a digest that somebody who knows the figures could recompute stands in the evidence."""
    import hashlib  # noqa: PLC0415

    total = first.values + second.values
    text = "\n".join(path.read_text() for path in pack.rglob("*") if path.is_file())
    for value in (*first.values[:40], *total[:40]):
        assert str(int(value)) not in text
    for vector in (first.values, second.values, total):
        for data in (vector.tobytes(), vector.astype(">i8").tobytes(), str(vector.tolist()).encode()):
            assert hashlib.sha256(data).hexdigest() not in text
    for path in Path(site.state_url).rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_cancelled_run_ends_with_its_party_and_code_and_leaves_evidence(month):
    month.open()
    for seed, owner in enumerate(month.made.owners):
        month.file(owner, seed)
    month.poll(closing.filings_ready, REPORT, PERIOD)
    month.running.supervisor["ch-1"].kill()  # the group stage cannot end
    run = month.poll(closing.close, REPORT, PERIOD)
    closing.cancel(month.site, run["run_id"], reason="wrong rates")

    def ended():
        try:
            return closing.result_ready(month.site, run)
        except StateError as error:
            return error
        except NotYet:
            return None

    error = wait_for(ended)
    assert isinstance(error, StateError)
    assert "nothing was released" in error.what
    assert error.ids["party"] in month.made.federation.terms.operators
    (pack,) = (Path(month.site.folder) / "evidence" / REPORT / "ended").iterdir()
    verdict = verify_pack(pack)
    assert verdict.ok, [check.problems for check in verdict.refused]
    assert verdict.outcome in {"CANCELLED", "FAILED"}
    assert "NOTHING WAS RELEASED" in (pack / "page.html").read_text()
    shutil.rmtree(pack)
