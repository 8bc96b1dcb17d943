"""The run as users see it."""

from __future__ import annotations

import pytest

from mpc_ops.errors import StateError
from mpc_ops.session import (
    RUN,
    RUN_PHASES,
    EverythingErased,
    GroupCommitted,
    ManifestClosed,
    RegionCommitted,
    ResultPublished,
    RunCancelled,
    RunFailed,
    RunView,
    Stall,
    Stalled,
    StatementSealed,
    from_json,
    to_json,
)
from tests.support.core import hex32

RUN_ID = hex32("run")
CLOSED = ManifestClosed(RUN_ID, ("de", "cn"))
PATH = [
    (CLOSED, "CLOSED"), (RegionCommitted("cn"), "REGION 1/2"), (RegionCommitted("cn"), "REGION 1/2"),
    (RegionCommitted("de"), "GROUP"), (GroupCommitted(), "COMMITTED"), (ResultPublished(), "PUBLISHED"),
    (EverythingErased(), "ERASED"), (StatementSealed(), "SEALED"),
]  # fmt: skip


def view(*events):
    state = RunView()
    for event in events:
        state, actions = RUN.step(state, event)
        assert actions == ()
    return state


def test_the_way_of_a_run():
    state = RunView()
    assert state.text == "OPEN"
    for event, text in PATH:
        state, _ = RUN.step(state, event)
        assert state.text == text
        assert from_json(RunView, to_json(state)) == state
    assert state.done == ("cn", "de")
    assert RUN.step(state, CLOSED)[0] == state


def test_a_group_commit_implies_the_regions():
    assert view(CLOSED, GroupCommitted()).done == ("cn", "de")


def test_a_stall_is_shown_until_the_next_progress():
    stalled = view(CLOSED, Stalled(Stall("de-2", "PEER_TIMEOUT", 5)))
    assert stalled.text == "STALLED(de-2, PEER_TIMEOUT)"
    assert stalled.phase == "CLOSED"
    assert RUN.step(stalled, RegionCommitted("de"))[0].text == "REGION 1/2"


def test_failure_and_cancel_exist_before_the_commit_only():
    assert view(CLOSED, RunFailed("CROSS_MISMATCH", ("de-1", "de-3"))).text == "FAILED(CROSS_MISMATCH)"
    assert view(CLOSED, RunFailed("ONE"), RunFailed("TWO")).code == "ONE"
    assert view(CLOSED, RunCancelled()).phase == "CANCELLED"
    committed = view(CLOSED, GroupCommitted())
    for event in (RunFailed("X"), RunCancelled()):
        with pytest.raises(StateError, match="ILLEGAL_TRANSITION"):
            RUN.step(committed, event)


def test_what_is_not_of_this_run_is_illegal():
    closed = view(CLOSED)
    for event in (RegionCommitted("in"), ManifestClosed(hex32("other"), ("de",)), ResultPublished(), StatementSealed()):
        with pytest.raises(StateError, match="ILLEGAL_TRANSITION"):
            RUN.step(closed, event)


def test_table_names_every_phase():
    assert all(phase in RUN.as_markdown() for phase in RUN_PHASES)
    assert RUN.as_diagram().startswith("stateDiagram-v2")
