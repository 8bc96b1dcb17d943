"""A corrupt party against every program of the registry: a sample for every test run; `make adversary` plays all of it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from functools import cache

import pytest

from mpc_ops.protocol.proofs.proof_and import AndLog
from tests.adversary.run_matrix import small_layout
from tests.support.active import SMALL_LAYOUT
from tests.support.adversary import HARMLESS, Attack, Case, play_and_judge, shameless_party, step_kind
from tests.support.attacked import ATTACKED, CORE, LARGE


def may_pass(case: Case, attack: Attack) -> bool:
    """Whether a change may do nothing at all, because nothing depends on what is changed.

    A wrong witness of a right product may vanish in the weights or folds; position 2 reads no tags in a shuffle's first pass;
    a message of one byte says only that it is there.
    """
    address = attack.address
    if address is None:
        return False
    witness = any(kind in address.step for kind in ("carries", "matrix"))
    return witness or (address.step, address.receiver) == ("shuffle-tags", 2) or len(case.bodies[address]) == 1


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(AndLog, "layout", SMALL_LAYOUT)
    with shameless_party():
        yield


QUICK = [name for name in ATTACKED if name not in LARGE]


@cache
def case_of(name: str) -> Case:
    with small_layout():
        return Case(ATTACKED[name])


def check(case: Case, attack: Attack, **network) -> str | None:
    verdict = play_and_judge(case, attack, **network)
    if verdict is None:
        return None
    assert not verdict.violations, f"{case.program.name}: {attack}: {verdict}"
    if attack.change in ("flip", "plus 1", "zeros", "stream", "truncate", "extend", "drop"):
        assert verdict.outcome != "harmless" or may_pass(case, attack), attack
    return verdict.outcome


@pytest.mark.parametrize("name", CORE)
def test_honest_runs_are_right_for_all_inputs_and_any_order_of_delivery(name: str) -> None:
    program = ATTACKED[name]
    for number in range(len(program.cases)):
        case = Case(program, number=number)
        assert case.expected == case_of(name).expected, "the cases of a program have the same outputs"
    case = case_of(name)
    for options in (*({"rushing": party} for party in range(3)), {"rng": random.Random(1)}):
        played = case.play(**options)
        assert sorted(played.outcome.sizes.items()) == sorted(case.honest.outcome.sizes.items())
        assert all(session.left_over() == [] for session in played.sessions)


def by_form(names: Iterable[str]) -> dict[tuple[object, ...], list[tuple[str, Attack]]]:
    """Attacks by form of message, change and kind of lie, each from the smallest program that has it."""
    found: dict[tuple[object, ...], list[tuple[str, Attack]]] = defaultdict(list)
    for name in sorted(names, key=lambda name: len(case_of(name).addresses)):
        for attack in case_of(name).attacks():
            kind = step_kind(attack.address.step) if attack.address else name
            known = found[kind, attack.change, attack.lie]
            if not known or known[0][0] == name:
                known.append((name, attack))
    return found


def test_one_attack_of_every_kind_on_every_form_of_message() -> None:
    outcomes: dict[str, int] = defaultdict(int)
    rng = random.Random(3)
    for _, attacks in sorted(by_form(CORE).items(), key=lambda item: str(item[0])):
        name, attack = rng.choice(attacks)
        outcomes[check(case_of(name), attack) or "nothing to do"] += 1
    assert outcomes["detected"] > 5 * outcomes["harmless"] / 2
    assert outcomes["waiting"] > 0


def test_some_attack_on_every_form_of_message_of_the_operators_on_tables() -> None:
    """`make adversary` plays them all."""
    known = {kind for kind, _, _ in by_form(CORE)}
    forms: dict[object, list[tuple[str, Attack]]] = defaultdict(list)
    for (kind, _, _), attacks in by_form(QUICK).items():
        if kind not in known:
            forms[kind] += attacks
    rng = random.Random(4)
    for kind in sorted(forms, key=str):
        name, attack = rng.choice(forms[kind])
        check(case_of(name), attack)


@pytest.mark.parametrize("name", CORE)
def test_a_sample_of_attacks_in_every_position_with_a_rushing_liar(name: str) -> None:
    case, rng = case_of(name), random.Random(f"rushing {name}")
    attacks = list(case.attacks())
    for corrupt in range(3):
        mine = [attack for attack in attacks if attack.corrupt == corrupt and attack.change not in HARMLESS]
        for attack in rng.sample(mine, 6):
            check(case, attack, rushing=corrupt)


@pytest.mark.parametrize("name", CORE)
def test_every_mask_and_every_input_of_a_party_that_computes_with_something_else(name: str) -> None:
    """It draws another mask, or holds another share than its neighbour: nothing in its messages contradicts itself."""
    case, rng = case_of(name), random.Random(f"deep {name}")
    deep = [attack for attack in case.attacks() if attack.lie == "deep"]
    outcomes = {check(case, attack) for attack in rng.sample(deep, 8)}
    assert outcomes - {None} == {"detected"}
