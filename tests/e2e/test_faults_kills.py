"""Twenty random SIGKILLs over real operator and SFTP processes, and drop-boxes that are down or full.

Whatever is killed whenever: every run ends in the right result, or in a clean end with nothing released, and never in two
results. The seed is printed; `COMITY_KILL_SEED` sets it.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from local_stores import closing, filing
from mpc_ops.errors import ComityError, PeerUnavailable
from mpc_ops.evidence.verify import verify_pack
from mpc_ops.notices.model import ResultCommitment
from tests.support.faults import refused
from tests.support.region_stage import clear_region
from tests.support.whole import until, whole_federation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
PERIODS = tuple(f"2026-{month:02d}" for month in range(1, 9))
REGIONS = {"DE": ["de-nord", "de-sued"], "SA": ["sa-gulf"]}
KILLS = 20
MOST_S = 60.0  # a step that does not get on within this time after the last kill would be a fault


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with whole_federation(tmp_path_factory.mktemp("whole"), REGIONS, sftp=True, books=PERIODS) as running:
        yield running


@pytest.fixture(scope="module")
def report(whole):
    # The Gate in the region: a stage of many rounds, which kills hit in the middle.
    return whole.release("kills", *PERIODS, min_owners=2, gate_at="region")


# ---------------------------------------------------------------------------------------------------------- drop-boxes


def test_a_drop_box_that_is_down_is_transient_and_named_and_the_delivery_goes_on(whole, report):
    contribution = whole.contribute(report, PERIODS[0], "de-nord")
    whole.sign(report, PERIODS[0], "de-nord")
    parcel = whole.seal(report, PERIODS[0], "de-nord", contribution)
    with whole.without("de-2-sftp"):
        filing.deliver(whole.owners, "de-nord", parcel, "de-1")
        with refused(PeerUnavailable, "SFTP_UNAVAILABLE", "de-2", transient=True):
            filing.deliver(whole.owners, "de-nord", parcel, "de-2")
    whole.deliver("de-nord", parcel)
    until(filing.receipts_ready, whole.owners, "de-nord", parcel)


def test_a_full_disk_at_a_drop_box_is_transient_and_named_and_the_delivery_goes_on(whole, report):
    contribution = whole.contribute(report, PERIODS[0], "de-sued")
    whole.sign(report, PERIODS[0], "de-sued")
    parcel = whole.seal(report, PERIODS[0], "de-sued", contribution)
    config = whole.made.homes["de-3"] / "sftp.toml"
    text = config.read_text()
    config.write_text(f"{text}\n[limits]\nmin_free_bytes = {1 << 47}\n")
    whole.restart("de-3-sftp")
    with refused(PeerUnavailable, "DISK_FULL", "de-3", transient=True):
        filing.deliver(whole.owners, "de-sued", parcel, "de-3")
    config.write_text(text)
    whole.restart("de-3-sftp")
    whole.deliver("de-sued", parcel)
    until(filing.receipts_ready, whole.owners, "de-sued", parcel)


# --------------------------------------------------------------------------------------------------------------- kills


class Killer(threading.Thread):
    """Kills and starts again, at random moments, until its number is reached."""

    def __init__(self, whole, seed):
        super().__init__(name="killer", daemon=True)
        self.whole, self.random, self.victims = whole, random.Random(seed), []

    def run(self):
        names = sorted(self.whole.running.supervisor.processes)
        # Operators hold the state, so they are hit twice as often as the drop-boxes.
        weights = [1 if name.endswith("-sftp") else 2 for name in names]
        for _ in range(KILLS):
            time.sleep(self.random.uniform(0.05, 1.5))
            (victim,) = self.random.choices(names, weights)
            self.whole.process(victim).kill()
            self.whole.process(victim).start()
            self.victims.append(victim)


def file_period(whole, report, period):
    """File for every owner over SFTP, with Airflow's patience, and return the true result."""
    filed = {}
    for owner in whole.made.owners:
        contribution = until(whole.contribute, report, period, owner, timeout_s=MOST_S)
        whole.sign(report, period, owner)
        parcel = until(whole.seal, report, period, owner, contribution, timeout_s=MOST_S)
        for operator in parcel["operators"]:
            until(filing.deliver, whole.owners, owner, parcel, operator, timeout_s=MOST_S)
        until(filing.receipts_ready, whole.owners, owner, parcel, timeout_s=MOST_S)
        region = whole.federation.owner(owner).region
        filed.setdefault(region, []).append(whole.contributed(report, period, contribution))
    return sum(np.array(clear_region(report.plan, owners)) for owners in filed.values())


def end_period(whole, report, period):
    """Close and return (run, values), or (run, error) of a clean end."""
    run = until(closing.close, whole.group, report.name, period, timeout_s=MOST_S)
    try:
        return run, whole.result(run, timeout_s=MOST_S)
    except ComityError as error:  # `until` lets terminal errors out only
        return run, error


def one_result(whole, run):
    """All group operators that committed did so in one attempt, with one set of commitments."""
    found = {
        signed.notice.operator: signed.expect(ResultCommitment)
        for name in whole.running.group()
        for signed in whole.notices(name, "result", run=str(run["run_id"]))
    }
    assert len({one.attempt for one in found.values()}) <= 1
    for position in range(3):
        assert len({one.commitments[position] for one in found.values()} - {None}) <= 1
    states = {s.operator: s.state for s in whole.states("nl-1", run).values() if s.cluster == "group"}
    assert len(set(states.values())) <= 1, states
    return found


def evidence_holds(whole, run):
    """Ledgers that were cut off anywhere agree frame by frame in the end, and everything is erased."""
    until(closing.acknowledge, whole.group, run, closing.publish(whole.group, run, {}))
    done = until(closing.collect_closing, whole.group, run, wait_s=20, for_owners=False)
    assert len(done["erased"]) == done["operators"] == 9
    verdict = verify_pack(Path(done["evidence"]), whole.made.folder)
    assert verdict.ok, [check.problems for check in verdict.refused]


def test_twenty_kills_over_real_processes_never_give_two_results(whole, report):
    seed = int(os.environ.get("COMITY_KILL_SEED", "") or random.SystemRandom().randrange(10**6))
    print(f"COMITY_KILL_SEED={seed}")
    killer = Killer(whole, seed)
    killer.start()
    committed, ended = [], []
    for period in PERIODS[1:]:
        expected = file_period(whole, report, period)
        run, outcome = end_period(whole, report, period)
        found = one_result(whole, run)
        if isinstance(outcome, ComityError):
            ended.append(f"{period}: {outcome}")
            assert not found
            assert not (Path(whole.group.folder) / "published" / report.name / period).exists()
        else:
            committed.append(period)
            assert (outcome == expected).all(), period
        if not killer.is_alive() and len(committed) > 1:
            break
    killer.join(60)
    print(f"killed {', '.join(killer.victims)}; committed {committed}; ended {ended}")
    evidence_holds(whole, run)
    assert len(killer.victims) == KILLS
    assert len(committed) > len(ended)
    for process in whole.running.supervisor.processes.values():
        assert process.running, process.last_line()
