"""AND, circuits and shares: what is refused, what travels, and that passive sessions run the same circuits unproven."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits import compare as cmp
from mpc_ops.protocol.circuits.boolean import and_many, evaluate, mux, random_boolean
from mpc_ops.protocol.core.opening import open_passive, open_to_all
from mpc_ops.protocol.core.party import Party
from mpc_ops.protocol.core.session import ActiveSession, PassiveSession
from mpc_ops.protocol.core.shares import (
    BooleanShare,
    PassiveBooleanShare,
    concat,
    invert,
    public_like,
    repeat_plane,
    ring_zero,
    xor,
    xor_public,
)
from mpc_ops.protocol.proofs.proof_and import AndLog
from mpc_ops.ring.planes import public_planes
from tests.support.active import MEMBERS, Network, keys_of, run_active, share_bits, share_ring, small_proofs, terms_of


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_proofs(monkeypatch)


def stage_of(party: int = 0):
    return ActiveSession(terms_of(party), keys_of(party)).stage("one")


def refused(action) -> str:
    with pytest.raises(LocalProtocolError) as caught:
        action()
    return caught.value.code


def passive_copy(share: BooleanShare) -> PassiveBooleanShare:
    return PassiveBooleanShare(share.session, share.party, share.count, share.first, share.second)


def test_shares_of_other_kinds_sessions_and_positions_are_refused() -> None:
    mine, theirs = share_bits([1], 4)[:2]
    foreign = share_bits([1], 4, "another")[0]
    ring = share_ring([1])[0]
    for other in (theirs, foreign, passive_copy(mine), ring, None):
        assert refused(lambda other=other: next(and_many(stage_of(), "x", [(mine, other)]))) == "SHARE_FOREIGN"
    assert refused(lambda: next(and_many(stage_of(), "x", [(ring, ring)]))) == "SHARE_FOREIGN"
    for other in (theirs, foreign, passive_copy(mine)):
        assert refused(lambda other=other: xor(mine, other)) == "SHARE_FOREIGN"
        assert refused(lambda other=other: concat([mine, other])) == "SHARE_FOREIGN"
    assert refused(lambda: ring.plus(replace(ring, party=1))) == "SHARE_FOREIGN"
    passive = PassiveSession(terms_of(0), keys_of(0)).stage("one")
    assert refused(lambda: next(and_many(passive, "x", [(mine, mine)]))) == "SHARE_FOREIGN"


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, narrow, longer = share_bits([1], 4)[0], share_bits([1], 3)[0], share_bits([1] * 65, 4)[0]
    planes = public_planes(3, 4, 1)
    for action in (
        lambda: next(and_many(stage_of(), "x", [(x, narrow)])),
        lambda: next(and_many(stage_of(), "x", [(x, longer)])),
        lambda: xor(x, narrow),
        lambda: xor(x, longer),
        lambda: concat([]),
        lambda: concat([x, longer]),
        lambda: xor_public(narrow, planes),
        lambda: x.plane(4),
        lambda: repeat_plane(x, 2),
        lambda: next(mux(x, x, x)),
        lambda: next(cmp.less(x, narrow)),
        lambda: next(cmp.less(x[:0], x[:0])),
        lambda: next(cmp.less_public(x, 16)),
        lambda: next(cmp.less_public(x, -1)),
        lambda: next(cmp.equal_public(x[:0], 0)),
        lambda: next(cmp.equal_public(x, public_planes(1, 3, 1))),
        lambda: next(cmp.most_significant_bit(share_ring([1])[0], 65)),
        lambda: next(cmp.arithmetic_bits(share_ring([1])[0], 0)),
        lambda: BooleanShare("s", 0, 70, planes, planes),
        lambda: BooleanShare("s", 0, 1, planes.astype(np.int64), planes),
    ):
        assert refused(action) == "PLANES_INVALID"
    assert refused(lambda: BooleanShare("s", 3, 1, planes, planes)) == "PARTY_INVALID"


def test_gates_behind_the_barrier_are_refused() -> None:
    x = share_bits([1], 1)

    def program(session):
        stage = session.stage("one")
        yield from stage.barrier()
        yield from and_many(stage, "late", [(x[stage.party], x[stage.party])])

    assert run_active(program).codes() == {"STAGE_ORDER"}
    log = stage_of().log(AndLog)
    log.stage._phase = "accepted"
    words = (np.zeros(1, dtype=np.uint64),) * 2
    assert refused(lambda: log.add(words, words, words, words)) == "STAGE_ORDER"


def test_all_circuits_of_a_step_share_one_message() -> None:
    x, y = share_bits([1, 2, 3], 8), share_bits([3, 2, 1], 8)

    def program(session):
        stage = session.stage("one")
        a, b = x[stage.party], y[stage.party]
        yield from evaluate(stage, "c", [cmp.less(a, b), cmp.equal(a, b), mux(a.plane(0), a, b)])
        yield from stage.barrier()
        stage.close()

    out = run_active(program)
    sizes = {a.step: size for a, size in out.sizes.items() if a.step.startswith("c/") and a.sender == 0}
    # less: 8, then 4 + 3, 2 + 1, 1; equal: 4, 2, 1; mux: 8 gate words.
    assert sizes == {"c/0": 8 * (8 + 4 + 8), "c/1": 8 * (7 + 2), "c/2": 8 * (3 + 1), "c/3": 8}


def test_nothing_to_compute_takes_no_round() -> None:
    empty = share_bits([], 8)

    def program(session):
        stage = session.stage("one")
        results = yield from evaluate(stage, "c", [cmp.less(empty[stage.party], empty[stage.party])])
        nothing = yield from evaluate(stage, "d", [])
        yield from stage.barrier()
        stage.close()
        return len(results), results[0].count, nothing

    out = run_active(program)
    assert out.results[0] == (1, 0, [])
    assert out.rounds == [2, 2, 2]


def test_ring_shares_add_locally() -> None:
    def program(session):
        stage = session.stage("one")
        mine = share[stage.party]
        total = mine.plus(mine).minus(mine.negated()).plus_public(np.array([1, 2], dtype=np.uint64))
        total = total.plus(ring_zero(stage, 2))
        token = yield from stage.barrier()
        return (yield from open_to_all(stage, token, [total]))

    share = share_ring([5, -1])
    assert list(run_active(program).results[1][0]) == [16, 2**64 - 1]


def test_a_passive_session_runs_the_same_circuits_without_proofs() -> None:
    x, y = share_bits([1, 2, 3], 8), share_bits([3, 2, 1], 8)

    def program(session):
        stage = session.stage("one")
        a, b = passive_copy(x[stage.party]), passive_copy(y[stage.party])
        results = yield from evaluate(
            stage, "c", [cmp.less(a, b), mux(a.plane(0), invert(a), public_like(a, a.first * 0))]
        )
        noise = random_boolean(stage, 3, 64)
        return (yield from open_passive(stage, [*results, noise]))

    parties = []
    for party in range(3):
        terms = terms_of(party)
        parties.append(Party(party, terms.sid, MEMBERS, program(PassiveSession(terms, keys_of(party)))))
    out = Network(parties).run()
    assert list(out.results[0][0]) == [1, 0, 0]
    assert list(out.results[0][1]) == [254, 0, 252]
    assert np.array_equal(out.results[0][2], out.results[2][2])
    assert out.rounds == [5, 5, 5]
    assert out.sent_bytes == [8 * (19 + 8) + 8 * (1 + 8 + 64)] * 3


def test_a_passive_stage_has_its_own_name() -> None:
    session = PassiveSession(terms_of(0), keys_of(0))
    session.stage("a")
    assert refused(lambda: session.stage("a")) == "STAGE_ORDER"
