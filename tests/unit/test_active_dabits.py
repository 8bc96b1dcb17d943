"""daBits: conversions in one round, spent once, never before they are proven; an altered opening names its pair."""

import random

import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.dabits import bits_to_ring_with, make_dabits
from tests.support.active import as_passive, corrupt_session, flip, run_active, run_flow, share_bits, small_proofs

BITS = [1, 0, 1, 1, 0] * 20


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


@pytest.mark.parametrize("security", ["active", "passive"])
def test_bits_are_converted_in_one_round_with_bits_made_before(security):
    shares = share_bits(BITS, 1)

    def program(flow):
        share = shares[flow.stage.party] if security == "active" else as_passive(shares[flow.stage.party])
        supply = yield from make_dabits(flow.stage, len(BITS) + 3)
        yield from flow.finish()
        ring = yield from bits_to_ring_with(flow.stage, supply, share)
        assert supply.left == 3
        with pytest.raises(LocalProtocolError, match="too few"):
            yield from bits_to_ring_with(flow.stage, supply, share)
        return (yield from flow.open([ring]))

    out = run_flow(program, security=security)
    assert not out.errors
    assert out.results[1][0].tolist() == BITS
    sent = sum(size for address, size in out.sizes.items() if address.step == "dabits" and address.sender == 0)
    assert sent == 16 + (32 if security == "active" else 0)
    assert len({address.round for address in out.log if address.step == "dabits"}) == 1


@pytest.mark.parametrize("security", ["active", "passive"])
def test_bits_that_are_not_proven_hide_nothing(security):
    shares = share_bits([1, 0], 1)

    def program(flow):
        share = shares[flow.stage.party] if security == "active" else as_passive(shares[flow.stage.party])
        supply = yield from make_dabits(flow.stage, 2)
        with pytest.raises(LocalProtocolError, match="proven before"):
            yield from bits_to_ring_with(flow.stage, supply, share)
        yield from flow.finish()
        wide = share_bits([1, 2], 2)[flow.stage.party]
        with pytest.raises(LocalProtocolError, match="one bit"):
            yield from bits_to_ring_with(flow.stage, supply, wide if security == "active" else as_passive(wide))

    assert not run_flow(program, security=security).errors


@pytest.mark.parametrize("corrupt", range(3))
def test_an_altered_opening_is_caught_in_its_round_and_names_the_pair(corrupt):
    rng = random.Random(7)
    shares = share_bits(BITS, 1)

    def bend(step, direction, body):
        return flip(body, rng) if step == "dabits" and direction == "next" else body

    def program(session):
        stage = session.stage("make")
        supply = yield from make_dabits(stage, len(BITS))
        yield from stage.barrier()
        stage.close()
        stage = session.stage("spend")
        yield from bits_to_ring_with(stage, supply, shares[stage.party])
        yield from stage.barrier()
        stage.close()

    out = run_active(program, session_types={corrupt: corrupt_session(bend)})
    receiver = (corrupt + 1) % 3
    assert out.errors[receiver].code == "OPENING_MISMATCH"
    assert f"de-{corrupt + 1}" in out.errors[receiver].ids["pair"]
    assert not out.results
