"""What an operator sends of its own values is always a sharing of some values: another message is another input, or an abort."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.own_input import input_of_all
from tests.support.active import MEMBERS, small_proofs
from tests.support.adversary import Case, shameless_party
from tests.support.attacked_primitives import OWN
from tests.support.attacks import Attack

COUNTS = (1, 2, 1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    small_proofs(monkeypatch)
    with shameless_party():
        yield


def _opened(session, shares):
    """Open the values as they are: no gate stands between the message and the opening."""
    (mine,) = shares
    flow = ActiveFlow(session, "own")
    return (yield from flow.open((yield from input_of_all(flow.stage, np.array(mine.values, dtype=np.uint64), COUNTS))))


OPENED = replace(
    OWN, name="own inputs opened", steps=_opened, plain=lambda inputs, _: [list(values) for values in inputs]
)


@pytest.mark.parametrize("lie", ["wire", "own"])
@pytest.mark.parametrize("liar", range(3))
def test_another_message_is_another_input_of_its_sender_and_of_nobody_else(liar: int, lie: str) -> None:
    case = Case(OPENED)
    (address,) = [place for place in case.addresses if (place.step, place.sender) == ("own-input", liar)]
    played = case.run(Attack(liar, "plus 1", lie, address))
    assert played is not None
    assert played.told
    honest = {party for party in range(3) if party != liar}
    ended = honest & set(played.outcome.results)
    assert ended == {(liar - 1) % 3}, "the receiver opens the input that it was sent"
    given = played.outcome.results[(liar - 1) % 3]
    moved = [
        [(int(a) - b) % (1 << 64) for a, b in zip(*pair, strict=True)]
        for pair in zip(given, case.expected[0], strict=True)
    ]
    assert [sorted(one) for one in moved] == [
        [0] * (count - 1) + [1] if place == liar else [0] * count for place, count in enumerate(COUNTS)
    ]
    # The liar opened the values that it did not send, so the other one stops, and names it.
    (stopped,) = honest - ended
    error = played.outcome.errors[stopped]
    assert error.code == "OPENING_MISMATCH"
    assert MEMBERS[liar] in error.ids["pair"].split(",")
