"""The first report in one process, exact; and a kill of every operator at every transaction: the right result or none."""

from __future__ import annotations

import numpy as np
import pytest

from mpc_ops.session import Expire
from tests.support.active import small_proofs
from tests.support.rounds import rounds_program
from tests.support.sim import FRAME, POINTS, Kill, Owner, Simulation, plain_sum, small_federation


def test_first_report_four_regions_eight_owners_exact():
    owners = small_federation(regions=4, owners=8, lanes=50)
    sim = Simulation(owners)
    sim.run()
    assert set(sim.phases().values()) == {"COMMITTED"}
    assert np.array_equal(sim.result, plain_sum(owners, 50))
    assert len(sim.results) == 1
    # 12 region operators send 3 frames each: 368 + 16 n bytes of bodies, plus sealing, signature and MessagePack.
    bodies = 12 * (368 + 16 * 50)
    overhead = 36 * (1136 + 3309 + 8)
    assert sim.bytes["cross"] == pytest.approx(bodies + overhead, rel=0.001)


def test_values_at_the_edges_negative_sums_and_a_nil_filing():
    edge = 2**62
    owners = [
        Owner("de-a", "de", [edge, -edge, 0, edge]),
        Owner("de-b", "de", [-edge, -edge + 1, -1, edge - 1]),
        Owner("de-c", "de", None),
        Owner("cn-a", "cn", [0, 0, -5, -edge]),
    ]
    sim = Simulation(owners)
    sim.run()
    assert sim.result.tolist() == plain_sum(owners, 4).tolist() == [0, 1 - 2 * edge, -6, edge - 1]


def test_a_region_of_nil_filings_only_counts_as_zero():
    owners = [Owner("de-a", "de", [7, -7]), Owner("cn-a", "cn", None)]
    sim = Simulation(owners)
    sim.run()
    assert sim.result.tolist() == [7, -7]


@pytest.mark.parametrize("seed", range(12))
def test_loss_duplication_and_reordering_change_nothing(seed):
    owners = small_federation(regions=2, owners=2, seed=seed)
    sim = Simulation(owners, seed=seed, loss=0.15, duplicate=0.2)
    sim.run(rounds=200)
    assert set(sim.phases().values()) == {"COMMITTED"}
    assert np.array_equal(sim.result, plain_sum(owners, 3))
    assert len(sim.results) == 1


@pytest.mark.parametrize("node", ["de-1", "de-2", "de-3", "nl-1", "ch-1", "sg-1"])
def test_kill_at_every_transaction(node):
    owners = [Owner("de-a", "de", [5, -6])]
    number, fired = 1, True
    while fired:
        fired = False
        for point in POINTS:
            sim = Simulation(owners, seed=number, kills=[Kill(node, number, point)])
            sim.run()
            fired |= not sim.kills
            assert set(sim.phases().values()) == {"COMMITTED"}, (number, point, sim.phases(), sim.notes)
            assert sim.result.tolist() == [5, -6], (number, point)
            assert len(sim.results) == 1
        number += 1
    assert number > 8, "the matrix must cover the steps from filing to release"


@pytest.mark.parametrize("seed", range(15))
def test_several_kills_in_one_run_with_loss(seed):
    owners = small_federation(regions=1, owners=1, seed=seed)
    sim = Simulation(owners, seed=seed, loss=0.1, duplicate=0.1)
    names = sorted(sim.nodes)
    for _ in range(6):
        sim.kills.append(Kill(sim.rng.choice(names), sim.rng.randrange(1, 14), sim.rng.choice(POINTS)))
    sim.run(rounds=200)
    assert set(sim.phases().values()) == {"COMMITTED"}
    assert np.array_equal(sim.result, plain_sum(owners, 3))
    assert len(sim.results) == 1


@pytest.fixture
def small(monkeypatch):
    small_proofs(monkeypatch)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(4))
def test_a_stage_with_rounds_bears_loss_duplication_and_reordering(seed):
    owners = small_federation(regions=1, owners=2, seed=seed)
    sim = Simulation(owners, seed=seed, loss=0.05, duplicate=0.1, region_program=rounds_program, patience=9)
    sim.run(rounds=300)
    assert set(sim.phases().values()) == {"COMMITTED"}, sim.notes
    assert np.array_equal(sim.result, plain_sum(owners, 3))
    assert len(sim.results) == 1


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("node", ["de-1", "de-2", "de-3"])
def test_kill_at_every_transaction_and_in_the_middle_of_the_rounds(node):
    owners = [Owner("de-a", "de", [5, -6])]
    kills = [(number, point) for number in range(1, 12) for point in POINTS]
    kills += [(number, FRAME) for number in range(1, 48, 6)]
    fired = 0
    for number, point in kills:
        sim = Simulation(owners, seed=number, kills=[Kill(node, number, point)], region_program=rounds_program)
        sim.run(rounds=60)
        fired += not sim.kills
        assert set(sim.phases().values()) == {"COMMITTED"}, (number, point, sim.phases(), sim.notes)
        assert sim.result.tolist() == [5, -6], (number, point)
        assert len(sim.results) == 1
    assert fired >= 8 + 20, "the matrix must cover the rounds and the steps around them"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(6))
def test_several_kills_among_rounds_with_loss(seed):
    owners = small_federation(regions=1, owners=1, seed=seed)
    sim = Simulation(owners, seed=seed, loss=0.03, duplicate=0.1, region_program=rounds_program, patience=9)
    for _ in range(4):
        sim.kills.append(Kill(sim.rng.choice(sim.clusters["de"]), sim.rng.randrange(1, 60), FRAME))
    sim.run(rounds=300)
    assert set(sim.phases().values()) == {"COMMITTED"}, sim.notes
    assert np.array_equal(sim.result, plain_sum(owners, 3))
    assert len(sim.results) == 1


@pytest.mark.parametrize("code", ["WITHDRAWN", "CANCELLED", "GIVEN_UP"])
def test_a_stop_at_any_moment_ends_in_the_right_result_or_cleanly_without_one(code):
    owners = [Owner("de-a", "de", [5, -6])]
    outcomes = set()
    for moment in range(0, 30, 3):
        sim = Simulation(owners, seed=moment)
        sim.nodes["de-2"].on_session = _stopping(sim, moment, code)
        sim.run()
        region = {sim.phases()[name] for name in sim.clusters["de"]}
        outcomes.add(frozenset(region))
        assert region in ({"COMMITTED"}, {"FAILED"})
        assert (sim.result is None) == (region == {"FAILED"})
        if region == {"FAILED"}:
            assert sim.states["de-1"][:2] == ("FAILED", code)
            assert "cross" not in sim.bytes
    assert len(outcomes) == 2, "the moments cover both sides of the commit"


def _stopping(sim, moment, code):
    """Let de-2 learn of the stop at its n-th message."""
    node, seen = sim.nodes["de-2"], [0]
    original = type(node).on_session

    def on_session(sender, body):
        original(node, sender, body)
        seen[0] += 1
        if seen[0] == moment + 1:
            node.on_stop("anybody", code)

    return on_session


def test_shares_keys_and_frames_are_gone_after_erasure():
    sim = Simulation([Owner("de-a", "de", [5, -6])])
    sim.run()
    for node in sim.nodes.values():
        node.step_session(Expire())
        assert not [key for key in node.disk if key.split("/")[0] in ("out", "cross", "part")]
        assert node.attempt is None
