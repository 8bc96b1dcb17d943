"""What goes wrong with an operator's machine: a foreign certificate, a wrong clock, a full disk, an old backup.

Each is told with code and party by those who see it; whatever can heal heals by itself.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil

import pytest

from local_stores import closing
from mpc_ops.federation.cards import create_party
from tests.support.whole import until, values_of, whole_federation

pytestmark = pytest.mark.e2e
NAME, PEERS = "de-2", ("de-1", "de-3", "nl-1", "ch-1", "sg-1")
FSIZE = resource.RLIMIT_FSIZE


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with whole_federation(tmp_path_factory.mktemp("whole")) as running:
        yield running


@pytest.fixture(scope="module")
def report(whole):
    return whole.release("machines", *(f"2025-{month:02d}" for month in range(1, 7)))


def agreed(whole, report, period):
    """File for every owner and wait until all group operators know it."""
    filings = whole.file_all(report, period)
    until(closing.filings_ready, whole.group, report.name, period)
    return filings


def links(whole, name, peer, *, faulty=False):
    return [one for one in whole.events(name, "link", faulty=faulty) if one["peer"] == peer]


def refusals_of(whole, peer, code):
    """Wait until some peer has logged that it refuses, or is refused by, a party, and return all such lines."""
    return until(lambda: [one for name in PEERS for one in links(whole, name, peer) if one.get("code") == code] or None)


def test_an_operator_with_a_certificate_of_a_strange_authority_gets_no_link_and_is_named(whole, report, tmp_path):
    stranger = tmp_path / "stranger"
    create_party("operator", NAME, stranger, organisation="Somebody", jurisdiction="DE")
    home = tmp_path / "home"
    shutil.copytree(whole.made.homes[NAME] / "keys", home / "keys")
    shutil.rmtree(home / "keys" / "tls")
    shutil.copytree(stranger / "keys" / "tls", home / "keys" / "tls")
    config = (whole.made.homes[NAME] / "operator.toml").read_text()
    head, mark, limits = config.partition("[limits]")
    own = whole.made.homes[NAME]
    spots = f"spool = {json.dumps(str(own / 'spool'))}\nstate = {json.dumps(str(own / 'state'))}\n"
    (home / "operator.toml").write_text(head + spots + mark + limits)

    filings = agreed(whole, report, "2025-01")
    with whole.faulty(NAME, home=home):
        run = whole.close(report, "2025-01")
        lines = refusals_of(whole, NAME, "CERTIFICATE_UNKNOWN")
        assert {"de-1"} <= {one["operator"] for one in lines}  # de-1 dials de-2, so it knows whom it refuses
        assert all(one["status"] != "up" for one in lines)
        assert not [one for one in whole.events(NAME, "link", faulty=True) if one["status"] == "up"]
        assert "COMMITTED" not in whole.api("nl-1", f"/v1/runs/{run['run_id']}")["state"]
    assert (whole.result(run) == values_of(filings)).all()


def test_an_operator_whose_clock_is_wrong_is_refused_with_both_times(whole, report):
    filings = agreed(whole, report, "2025-02")
    with whole.faulty(NAME, "clock=300"):
        run = whole.close(report, "2025-02")
        lines = refusals_of(whole, NAME, "CLOCK_SKEW")
        times = re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", lines[0]["why"])
        assert len(set(times)) == 2, lines[0]
        assert lines[0]["status"] == "refused"
    assert (whole.result(run) == values_of(filings)).all()


def set_limit(whole, name, size):
    """Let an operator's process write no file beyond `size` bytes, as a full disk does; None lifts it."""
    _, hard = resource.prlimit(whole.process(name).pid, FSIZE)
    resource.prlimit(whole.process(name).pid, FSIZE, (resource.RLIM_INFINITY if size is None else size, hard))


@pytest.mark.parametrize(("period", "name"), [("2025-03", "de-2"), ("2025-04", "sg-1")])
def test_a_full_disk_is_said_delays_the_run_and_loses_nothing(whole, report, period, name):
    filings = agreed(whole, report, period)
    os.truncate(whole.process(name).log, 0)  # it is opened for appending; what is said now has room in it
    set_limit(whole, name, 4096)
    try:
        run = whole.close(report, period)
        others = [one for one in (*PEERS, NAME) if one != name and one[:2] == name[:2]] or ["nl-1", "ch-1"]
        for other in others:
            until(lambda other=other: whole.query(other, "SELECT 1 FROM sessions WHERE run = ?", run["run_id"]))
        assert closing.period_status(whole.group, report.name, period)["state"] != "COMMITTED"
        assert not whole.query(name, "SELECT 1 FROM sessions WHERE run = ?", run["run_id"])
    finally:
        set_limit(whole, name, None)
    assert (whole.result(run) == values_of(filings)).all()
    said = whole.events(name, "disk_full")
    assert {one["code"] for one in said} == {"DISK_FULL"}
    assert whole.process(name).running


def test_an_old_disk_that_was_restored_is_refused_at_the_handshake_by_both_ends(whole, report, tmp_path):
    state = whole.made.homes[NAME] / "state"
    with whole.without(NAME):
        shutil.copytree(state, tmp_path / "backup")
    filings = whole.file_all(report, "2025-05")
    assert (whole.run(report, "2025-05") == values_of(filings)).all()
    process = whole.process(NAME)
    process.kill()
    state.rename(tmp_path / "present")
    shutil.copytree(tmp_path / "backup", state)
    process.start()
    process.wait_ready()
    lines = refusals_of(whole, NAME, "STATE_ROLLED_BACK")
    assert {one["status"] for one in lines} == {"refused"}
    assert until(lambda: whole.events(NAME, "hello_refused"))[0]["code"] == "STATE_ROLLED_BACK"
    # The cluster's other two hold its ledger head; those beyond the border never compute with it.
    for name in ("de-1", "de-3"):
        until(lambda name=name: links(whole, name, NAME)[-1].get("code") == "STATE_ROLLED_BACK")
    process.kill()
    shutil.rmtree(state)
    (tmp_path / "present").rename(state)
    process.start()
    process.wait_ready()
    filings = whole.file_all(report, "2025-06")
    assert (whole.run(report, "2025-06") == values_of(filings)).all()
