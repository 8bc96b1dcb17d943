"""The owner follows its run: evidence from any relay, verified here, and a countersignature over the derived closing."""

from __future__ import annotations

import pytest

from local_stores import filing
from mpc_ops.errors import ComityError, NotYet
from mpc_ops.evidence.bundle import make_bundle
from mpc_ops.evidence.statement import closing_digest
from mpc_ops.notices.model import Filed, Outcome
from mpc_ops.notices.signed import parse_notice, verify_notice
from tests.support.evidence import PERIOD, make_run
from tests.support.sites import make_owner_site

OWNER = "de-nord"
OUTBOX = ("manifest", "state", "statement", "ack", "erased")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def one(tmp_path, run):
    """A site whose filing is in the run, with nothing in the outboxes yet."""
    site = make_owner_site(tmp_path, run.made, run.plan, open_period=False)
    own = next(n for n in run.notices if n.kind == "filed" and n.expect(Filed).owner == OWNER)
    state = site.site.state
    state.write(f"out/{own.digest}/filed.dsse", own.envelope.to_bytes())
    state.write(f"takes/{OWNER}/{run.plan.digest[:16]}/{PERIOD}/1/1", own.digest.encode())
    return site


def bundle(run, *, without=()):
    notices = [n.envelope for n in run.notices if n.kind not in {"ack", "erased", "outcome", *without}]
    return make_bundle(run.run, notices, run.attestations.values(), run.ledgers.values())


def publish(one, run, kinds=OUTBOX, *operators):
    for notice in run.notices:
        if notice.kind in kinds:
            one.region.publish(notice, *operators)


def put_bundle(one, run, data, *operators):
    for operator in operators or one.region.operators:
        path = one.region.outbox(operator) / "evidence" / run.run / "bundle.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def ready(one):
    return filing.outcome_ready(*one.call, PERIOD, open_sftp=one.region.open)


def test_filing_outcome_waits_for_the_whole(one, run):
    assert ready(one) is None
    publish(one, run, ("manifest", "state", "statement"))
    assert ready(one) is None
    put_bundle(one, run, bundle(run))
    assert ready(one) is None
    publish(one, run, ("ack",))
    assert ready(one) is None
    with pytest.raises(NotYet, match="OUTCOME_OPEN"):
        filing.fetch_outcome(*one.call, PERIOD, open_sftp=one.region.open)
    publish(one, run, ("erased",))
    assert ready(one) == {"state": "COMMITTED", "run": run.run, "closing": closing_digest(run.closing.payload)}


def test_filing_outcome_is_countersigned_once(one, run):
    publish(one, run)
    put_bundle(one, run, bundle(run))
    fetched = filing.fetch_outcome(*one.call, PERIOD, open_sftp=one.region.open)
    again = filing.fetch_outcome(*one.call, PERIOD, open_sftp=one.region.open)
    assert again == fetched
    assert fetched["delivered"] == dict.fromkeys(one.region.operators, "delivered")
    for operator in one.region.operators:
        (path,) = one.region.inbox(operator).glob("notice.*")
        signed = verify_notice(parse_notice(path.read_bytes()), run.made.federation)
        assert signed.signers == {OWNER}
        assert signed.expect(Outcome).closing == closing_digest(run.closing.payload)
    assert open(fetched["evidence"], "rb").read() == bundle(run)  # noqa: SIM115, PTH123


def test_filing_outcome_from_the_relay_that_is_honest(one, run):
    publish(one, run)
    put_bundle(one, run, bundle(run, without=("filed",)), "de-1")  # withholds the other entities' filings
    put_bundle(one, run, b"{}", "de-2")
    put_bundle(one, run, bundle(run), "de-3")
    assert ready(one)["state"] == "COMMITTED"


def test_filing_outcome_with_evidence_that_does_not_hold(one, run):
    publish(one, run)
    put_bundle(one, run, bundle(run, without=("filed",)))
    with pytest.raises(ComityError, match="FILING_MISSING"):
        ready(one)
