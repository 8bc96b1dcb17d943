"""The attempt rule, searched exhaustively over the real transition table: no split commit can be reached."""

from __future__ import annotations

import pytest

from mpc_ops.session import SESSION, Retry, Stop
from mpc_ops.session.machine import _fail, _retry
from tests.support.core import Model, Violation, with_rule


@pytest.mark.parametrize(
    ("attempts", "stops", "reduced"),
    [
        pytest.param(2, False, False, id="plain, 2 attempts"),
        pytest.param(1, True, False, id="plain, 1 attempt, stops"),
        pytest.param(2, True, False, id="plain, 2 attempts, stops"),
        pytest.param(3, False, True, id="reduced, 3 attempts"),
        pytest.param(3, True, True, id="reduced, 3 attempts, stops"),
    ],
)
def test_no_interleaving_splits_the_commit(attempts, stops, reduced):
    model = Model(max_attempt=attempts, stops=stops, reduced=reduced)
    assert model.search() > 1000
    ended = {phases for phases in model.ends if not set(phases) & {"IDLE", "PREPARED", "ACCEPTED"}}
    allowed = {("COMMITTED",) * 3, ("FAILED",) * 3} if stops else {("COMMITTED",) * 3}
    assert ended == allowed


def test_each_attempt_can_commit():
    model = Model(max_attempt=3)
    model.search()
    assert {state.attempt for state in model.states if state.phase == "COMMITTED"} == {1, 2, 3}


def test_search_finds_the_bug_when_accepted_times_out_into_a_new_attempt():
    broken = with_rule(SESSION, "ACCEPTED", Retry, _retry, ("PREPARED", "FAILED"))
    with pytest.raises(Violation) as caught:
        Model(machine=broken, max_attempt=2).search()
    assert "split commit" in caught.value.what or "STATE_ROLLED_BACK" in caught.value.what
    assert any("Retry" in step for step in caught.value.trace)


def test_search_finds_the_bug_when_accepted_obeys_a_withdrawal():
    broken = with_rule(SESSION, "ACCEPTED", Stop, lambda state, event: _fail(state, event.code, ()), ("FAILED",))
    with pytest.raises(Violation) as caught:
        Model(machine=broken, max_attempt=1, stops=True).search()
    assert "split commit" in caught.value.what or "SESSION_CONFLICT" in caught.value.what
