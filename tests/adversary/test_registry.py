"""The adversary's registry is complete: its programs run every protocol there is, and every message sees every kind of attack."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, ModuleType

import pytest

import mpc_ops.protocol
from tests.adversary.run_matrix import DEEP, Report, Work, attacks_of, play, sizes, small_layout
from tests.support.adversary import Case
from tests.support.attacked import ATTACKED, CORE
from tests.support.attacks import CONTENT, DELIVERY, KIND_OF, KINDS, SAME_LENGTH

PACKAGE = "mpc_ops.protocol."

NOT_PLAYED = {
    "core.flow.PassiveFlow.finish": "passive",
    "core.flow.PassiveFlow.open": "passive",
    "core.flow.PassiveFlow.open_to": "passive",
    "core.opening.open_passive": "passive",
    "core.stage.PassiveStage.exchange": "passive",
    "order.shuffle._components": "passive: hands on the components that an active shuffle tags first",
    "order.select._Segment._parts": "sends nothing: cuts more than 48 rows by bits that were opened",
}
"""Generators that no program enters, and why. A passive session claims nothing against a party that deviates."""


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(mpc_ops.protocol.__path__, PACKAGE):
        yield importlib.import_module(found.name)


def functions(module: ModuleType) -> Iterator[tuple[str, Callable]]:
    """Every function and method that a module defines, private ones too, with its name."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, inspect.unwrap(value)
        elif inspect.isclass(value):
            for inner, member in vars(value).items():
                plain = member.__func__ if isinstance(member, staticmethod | classmethod) else member
                if inspect.isfunction(plain):
                    yield f"{name}.{inner}", inspect.unwrap(plain)


def protocols() -> dict[CodeType, str]:
    """Every generator of the package: whatever sends a message is one, or is called by one."""
    return {
        function.__code__: f"{module.__name__.removeprefix(PACKAGE)}.{name}"
        for module in modules()
        for name, function in functions(module)
        if inspect.isgeneratorfunction(function)
    }


@contextmanager
def entered(watched: dict[CodeType, str]) -> Iterator[set[str]]:
    """Note which of the watched functions run."""
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in watched:
            seen.add(watched[frame.f_code])

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def test_every_protocol_is_run_by_some_program() -> None:
    watched = protocols()
    assert len(watched) > 150
    public = {
        watched[function.__code__]
        for module in modules()
        for name in getattr(module, "__all__", ())
        if inspect.isgeneratorfunction(function := getattr(module, name)) and function.__code__ in watched
    }
    assert {"order.sort.sort", "core.own_input.input_of_all", "core.checkpoint.run_steps"} <= public
    with small_layout(), entered(watched) as seen:
        for program in ATTACKED.values():
            Case(program)
    missing = set(watched.values()) - seen
    assert missing == set(NOT_PLAYED), "a program for the adversary is missing, or an exception is none any more"
    assert {NOT_PLAYED[name] for name in missing & public} == {"passive"}


def test_every_change_belongs_to_one_kind() -> None:
    variants = [variant for kind in KINDS.values() for variant in kind]
    assert len(set(variants)) == len(variants)
    assert set(variants) == {(change, "wire") for change in (*CONTENT, *DELIVERY)} | {(c, "own") for c in SAME_LENGTH}


@pytest.mark.parametrize("name", ATTACKED)
def test_every_message_sees_every_kind_of_attack(name: str) -> None:
    with small_layout():
        case = Case(ATTACKED[name])
        attacks = list(case.one_of_each_kind())
    seen = {(attack.address, KIND_OF[attack.change, attack.lie]) for attack in attacks if attack.address}
    assert seen == {(address, kind) for address in case.addresses for kind in KINDS}
    deep = Counter(attack.change for attack in attacks if not attack.address)
    assert deep["stream"] == 2 * 3 * case.stream_calls
    if len(case.addresses) > 70:
        assert {(attack.change, attack.lie) for attack in attacks if attack.address} == set(KIND_OF), (
            "variants take turns"
        )


def test_the_report_says_what_was_played() -> None:
    messages, attacks = sizes(Work("partition", everything=False))
    with small_layout():
        case = Case(ATTACKED["partition"])
        assert len(attacks_of(case, everything=False)) == attacks
        assert len(attacks_of(case, everything=True)) > 3 * attacks
        core = Case(ATTACKED["shuffle"])
        assert attacks_of(core, everything=False) == list(core.attacks())
        assert "shuffle" in CORE
    report = Report("partition")
    for start in (0, 40):
        report.add(play(Work("partition", everything=False, start=start, stop=start + 40, every=5)))
    assert report.played == 16
    assert not report.violations
    assert sum(report.kinds().values()) == 16
    assert report.kinds()[DEEP] == 0
    assert len({number for number, _ in report.covered}) <= messages
