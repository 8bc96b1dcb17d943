"""Six real operator processes: real TLS links, real spools, the recipient's API; filings to an exact result."""

from __future__ import annotations

import numpy as np
import pytest

from mpc_ops.evidence.bundle import read_bundle
from mpc_ops.notices.signed import parse_notice, run_id_of
from tests.support.federation import SMALL, make_approval, make_federation, make_plan, make_reference, make_release
from tests.support.operators import PERIOD, Desk, RealOperators, Sealed, operator_endpoints, start_operators, wait_for

pytestmark = pytest.mark.e2e


class Walk:
    """One federation, one report; each step as owners and recipient do it."""

    def __init__(self, running: RealOperators) -> None:
        self.running, self.made = running, running.made
        self.plan = make_plan(self.made.federation, min_owners=2)
        self.reference = make_reference(self.made, PERIOD)
        self.desk = Desk(self.made, self.plan, running.spools, reference=self.reference)

    def open(self) -> None:
        release = make_release(self.made, self.plan)
        self.running.post(release)
        self.running.post(self.reference)
        for owner in self.made.owners:
            wait_for(lambda owner=owner: len(self.desk.keys(owner, PERIOD)) == 3)
            self.desk.put_notice(owner, make_approval(self.made, self.plan, owner))

    def file(self, *, period: str = PERIOD, take: int = 1) -> list[Sealed]:
        random = np.random.default_rng(take)
        filings = [
            self.desk.deliver(
                self.desk.seal(owner, random.integers(-(10**12), 10**12, self.desk.lanes), period=period, take=take)
            )
            for owner in self.made.owners
        ]
        for sealed in filings:
            wait_for(lambda sealed=sealed: len(self.desk.receipts(sealed)) == 3)
        return filings

    def wait_filed(self) -> None:
        """Until every group operator knows that all owners' filings are agreed."""
        for name in self.running.group():
            api = self.running.api(name)

            def agreed(api=api):
                found = api.get(f"/v1/periods/{self.plan.digest}/{PERIOD}").json()
                return all(owner["state"] == "AGREED" for owner in found["owners"].values())

            wait_for(agreed)

    def wait_state(self, run: str, *texts: str) -> None:
        for name in self.running.group():
            api = self.running.api(name)
            wait_for(lambda api=api: api.get(f"/v1/runs/{run}").json().get("state") in texts)

    def result(self, manifest) -> np.ndarray:
        run = run_id_of(manifest)
        parts, commitments = {}, []
        for name in self.running.group():
            api = self.running.api(name)
            answer = wait_for(lambda api=api: (a := api.get(f"/v1/runs/{run}/result")).status_code == 200 and a)
            assert answer.content == api.get(f"/v1/runs/{run}/result").content
            parts[name] = answer.content
        bundle = read_bundle(self.running.api(self.running.group()[0]).get(f"/v1/runs/{run}/evidence").content)
        notices = [parse_notice(text.encode()) for text in bundle.notices]
        commitments = [signed for signed in notices if signed.kind == "result"]
        return self.desk.combine(manifest, parts, commitments)


@pytest.fixture
def walk(tmp_path):
    made = make_federation(tmp_path, SMALL, endpoints=operator_endpoints(SMALL))
    with start_operators(made) as running:
        yield Walk(running)


def test_filings_in_the_spool_become_an_exact_result_at_the_recipient(walk):
    walk.open()
    filings = walk.file()
    walk.wait_filed()
    manifest = walk.desk.manifest(filings)
    assert set(walk.running.post(manifest)) <= {200, 201}
    run = run_id_of(manifest)
    walk.wait_state(run, "COMMITTED")
    assert (walk.result(manifest) == sum(sealed.values for sealed in filings)).all()
    walk.running.post(walk.desk.ack(manifest))
    walk.wait_state(run, "ERASED")
    gone = walk.running.api(walk.running.group()[0]).get(f"/v1/runs/{run}/result")
    assert (gone.status_code, gone.json()["code"]) == (409, "RESULT_ERASED")
    assert not list(walk.running.spools["de-1"].glob("inbox/*/part.*"))
    assert not list((walk.made.homes["de-1"] / "state" / "periods").glob(f"*{PERIOD}*"))
