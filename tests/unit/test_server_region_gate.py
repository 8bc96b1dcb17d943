"""Runs over in-memory operators with the Gate in the region: exact, small owners pass together, bad parts and plans refused."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from local_stores.snapshot.contribution import Figures
from mpc_ops.federation.assemble import read_toml
from mpc_ops.federation.model import PayloadClass
from mpc_ops.federation.rulepack import RulePack
from mpc_ops.notices.signed import run_id_of
from mpc_ops.sharing import Component, UnitTables
from tests.support.federation import DEMO_FOLDER, make_federation, make_plan
from tests.support.operators import World, make_world
from tests.support.region_stage import clear_region

THREE = {"DE": ["de-nord", "de-sued", "de-west"]}
CELLS = 25


@pytest.fixture
def made(tmp_path):
    return make_federation(tmp_path, THREE)


def world_of(root, made, **terms) -> World:
    return make_world(root, made, make_plan(made.federation, min_owners=2, gate_at="region", **terms))


@pytest.fixture
def world(tmp_path, made):
    found = world_of(tmp_path, made)
    yield found
    found.net.close()


def figures(seed: int, units: tuple[int, int], density: float = 0.04) -> Figures:
    """An owner's contribution: figures in cells with units only, as a store would give them."""
    rng = np.random.default_rng(seed)
    tables = tuple(rng.random((count, CELLS)) < density for count in units)
    lanes = []
    for names, rows in (
        (3, tables[0]),
        (3, tables[1]),
        (2, tables[1]),
    ):  # measures of period, prior year, constant rates
        lanes += [rng.integers(-(10**9), 10**9, CELLS) * rows.any(axis=0) for _ in range(names)]
    return Figures(np.concatenate(lanes), {}, (), (), empty=False, tables=tables)


def file(world: World, owner: str, one: Figures, **more):
    return world.desk.deliver(world.desk.seal(owner, one.lanes, tables=one.tables, gate_k=1, **more))


def close(world: World, filings):
    world.net.settle()
    manifest = world.desk.manifest(filings)
    world.post(manifest)
    world.net.run(4)
    return manifest


def phases(world: World, manifest) -> set[str]:
    return set(world.states(run_id_of(manifest)).values())


@pytest.mark.parametrize("units", [(30, 40), (200, 7)])
def test_the_result_is_that_of_the_gate_in_the_clear_over_all_owners_together(world, units):
    owners = ("de-nord", "de-sued", "de-west")
    filed = [figures(seed, units) for seed in range(3)]
    expected = clear_region(world.desk.plan, filed)
    assert any(expected)
    manifest = close(world, [file(world, owner, one) for owner, one in zip(owners, filed, strict=True)])
    assert phases(world, manifest) == {"COMMITTED"}
    assert world.result(manifest).tolist() == expected


def test_owners_too_small_alone_pass_together_and_one_alone_does_not(world):
    rows = np.zeros((4, CELLS), bool)
    rows[:, 0] = True
    lanes = np.zeros(8 * CELLS, np.int64)
    lanes[0] = 100
    one = Figures(lanes, {}, (), (), empty=False, tables=(rows, rows[:0]))
    manifest = close(world, [file(world, owner, one) for owner in ("de-nord", "de-sued", "de-west")])
    assert world.result(manifest)[0] == 300
    assert clear_region(world.desk.plan, [one]) == [0] * world.desk.lanes


def test_an_owner_without_rows_changes_nothing(world):
    filed = [figures(seed, (60, 60), 0.3) for seed in range(2)]
    sealed = [file(world, owner, one) for owner, one in zip(("de-nord", "de-sued"), filed, strict=True)]
    nil = world.desk.deliver(world.desk.nil("de-west"))
    manifest = close(world, [*sealed, nil])
    assert world.result(manifest).tolist() == clear_region(world.desk.plan, filed)


def test_frames_of_the_region_are_record_shares_and_stay_in_the_country(world):
    filed = [figures(seed, (30, 30)) for seed in range(3)]
    owners = ("de-nord", "de-sued", "de-west")
    manifest = close(world, [file(world, owner, one) for owner, one in zip(owners, filed, strict=True)])
    assert phases(world, manifest) == {"COMMITTED"}
    record = str(PayloadClass.RECORD_SHARE)
    for name, operator in world.net.operators.items():
        entries = [entry for (entry,) in operator.store.rows("SELECT entry FROM ledger") if record in str(entry)]
        assert bool(entries) == name.startswith("de-")
        assert not any(other in str(entry) for entry in entries for other in ("nl-1", "ch-1", "sg-1"))


def test_rows_beyond_the_plans_limit_and_parts_that_disagree_are_rejected(tmp_path, made):
    world = world_of(tmp_path, made, max_units=64)
    try:
        big = figures(1, (65, 3))
        sealed = file(world, "de-nord", big)
        world.net.settle()
        assert set(world.desk.rejections(sealed.filed.digest, "de-nord").values()) & {"PART_OVER_BOUND", "PART_INVALID"}

        def longer(operator, part):
            if operator != "de-1":
                return part
            return dataclasses.replace(part, units=UnitTables(CELLS, (128, 64)))

        sealed = file(world, "de-sued", figures(2, (3, 3)), alter=longer)
        world.net.settle()
        assert world.desk.rejections(sealed.filed.digest, "de-sued")["de-1"] == "PART_INVALID"
    finally:
        world.net.close()


def test_an_operator_that_is_told_another_number_of_rows_sees_it(world):
    def longer(operator, part):
        return dataclasses.replace(part, units=UnitTables(CELLS, (128, 64))) if operator == "de-1" else part

    sealed = file(world, "de-nord", figures(2, (3, 3)), alter=longer)
    world.net.settle()
    assert world.desk.rejections(sealed.filed.digest, "de-nord")["de-1"] == "COMMITMENT_MISMATCH"


def test_an_altered_bit_of_a_row_is_no_longer_what_the_owner_signed(world):
    def flip(operator, part):
        if operator != "de-2":
            return part
        vector = part.second.expand(part.words).copy()
        vector[-1] ^= np.uint64(1)
        return dataclasses.replace(part, second=Component(explicit=vector))

    sealed = file(world, "de-nord", figures(2, (3, 3)), alter=flip)
    world.net.settle()
    assert world.desk.rejections(sealed.filed.digest, "de-nord")["de-2"] == "COMMITMENT_MISMATCH"


def test_without_a_threshold_every_operator_refuses_before_it_computes(tmp_path, made):
    world = world_of(tmp_path, made, k=1)
    try:
        filed = [file(world, owner, figures(1, (30, 30))) for owner in ("de-nord", "de-sued", "de-west")]
        manifest = close(world, filed)
        assert phases(world, manifest) == {"REFUSED(CROSSING_DENIED)"}
        denied = world.net.events("de-1", "run_refused")
        assert "record_share may not go from de-1" in str(denied)
    finally:
        world.net.close()


def test_where_rules_ask_for_active_every_operator_refuses_a_passive_plan(tmp_path, made):
    world = world_of(tmp_path, made, security="passive")
    try:
        filed = [file(world, owner, figures(1, (30, 30))) for owner in ("de-nord", "de-sued", "de-west")]
        manifest = close(world, filed)
        assert phases(world, manifest) == {"REFUSED(CROSSING_DENIED)"}
        for name in world.net.operators:
            assert "asks for security against a dishonest operator" in str(world.net.events(name, "run_refused"))
            assert not world.net.events(name, "security_passive")
    finally:
        world.net.close()


def test_passive_security_is_a_term_that_rules_must_allow(tmp_path):
    packs = [read_toml(path, RulePack) for path in sorted((DEMO_FOLDER / "rules").glob("*.toml"))]

    def any_adversary(pack):
        rules = [msgspec.structs.replace(rule, adversary="any") for rule in pack.rules]
        return msgspec.structs.replace(pack, rules=rules)

    lenient = make_federation(tmp_path, THREE, packs=[any_adversary(pack) for pack in packs])
    world = world_of(tmp_path, lenient, security="passive")
    try:
        filed = [figures(seed, (30, 40)) for seed in range(3)]
        owners = ("de-nord", "de-sued", "de-west")
        manifest = close(world, [file(world, owner, one) for owner, one in zip(owners, filed, strict=True)])
        assert world.result(manifest).tolist() == clear_region(world.desk.plan, filed)
    finally:
        world.net.close()


def test_seeds_of_two_takes_have_nothing_in_common(world):
    one = figures(1, (5, 5))
    takes = [world.desk.seal("de-nord", one.lanes, tables=one.tables, gate_k=1, take=take) for take in (1, 2)]
    boxes = [set(sealed.parts.values()) for sealed in takes]
    assert all(not left & right for left, right in pairwise(boxes))
