"""Operators' own values as shares, and the test for zero: values, bytes, rounds, both kinds of session."""

import random

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.compare import is_zero
from mpc_ops.protocol.core.own_input import input_of_all
from tests.support.active import as_passive, run_flow, share_ring, small_proofs


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_proofs(monkeypatch)


@pytest.mark.parametrize("security", ["active", "passive"])
@pytest.mark.parametrize("counts", [(3, 0, 70), (1, 1, 1), (0, 0, 5)])
def test_every_operators_values_become_shares(security, counts):
    rng = np.random.default_rng(1)
    values = [rng.integers(0, 1 << 64, count, dtype=np.uint64) for count in counts]

    def program(flow):
        shares = yield from input_of_all(flow.stage, values[flow.stage.party], counts)
        return (yield from flow.open(shares))

    out = run_flow(program, security=security)
    assert not out.errors, out.errors
    for opened in out.results.values():
        assert all(np.array_equal(one, other) for one, other in zip(opened, values, strict=True))
    opening = 8 * sum(counts) + (32 if security == "active" else 0)
    barrier = 2 * 64 if security == "active" else 0
    assert out.sent_bytes == [8 * count + opening + barrier for count in counts]
    assert set(out.rounds) == {2 if security == "passive" else 4}


def test_what_is_sent_is_masked_for_its_receiver():
    zeros = [np.zeros(50, dtype=np.uint64)] * 3
    seen = []

    def program(flow):
        shares = yield from input_of_all(flow.stage, zeros[flow.stage.party], (50, 50, 50))
        seen.append(shares[(flow.stage.party + 1) % 3].second)
        return (yield from flow.open(shares))

    assert run_flow(program).done
    assert all(len(set(vector.tolist())) == 50 for vector in seen)


@pytest.mark.parametrize("counts", [(1, 1), (1, 1, -1), (2, 1, 1)])
def test_other_numbers_are_refused(counts):
    def program(flow):
        yield from input_of_all(flow.stage, np.zeros(1, dtype=np.uint64), counts)

    out = run_flow(program)
    assert {error.code for error in out.errors.values()} == {"RING_LENGTH"}
    assert all(isinstance(error, LocalProtocolError) for error in out.errors.values())


def edge_values(width: int, rng: random.Random) -> list[int]:
    edges = [0, 1, (1 << width) - 1, 1 << (width - 1), 1 << width, (1 << width) + 1, -1, (1 << 64) - (1 << width)]
    near = [1 << bit for bit in range(64)]
    return [value % (1 << 64) for value in (*edges, *near, *(rng.getrandbits(64) for _ in range(20)), 0, 0)]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 31, 33, 63, 64])
@pytest.mark.parametrize("security", ["active", "passive"])
def test_zero_is_told_from_everything_else(width, security):
    rng = random.Random(width)
    values = edge_values(width, rng)
    shares = share_ring(values, rng=rng)
    if security == "passive":
        shares = [as_passive(share) for share in shares]

    def program(flow):
        bits = yield from evaluate(flow.stage, "zero", [is_zero(shares[flow.stage.party], width)])
        return (yield from flow.open(bits))

    out = run_flow(program, security=security)
    assert not out.errors, out.errors
    assert out.results[0][0].tolist() == [int(value % (1 << width) == 0) for value in values]
    if security == "passive" and width >= 3:
        words = -(-len(values) // 64)
        assert set(out.sent_bytes) == {8 * words * (3 * width - 4 + 1)}
        assert set(out.rounds) == {2 + (width - 1).bit_length() + 1}


def test_a_width_out_of_range_is_refused():
    for width in (0, 65):
        with pytest.raises(LocalProtocolError):
            next(is_zero(share_ring([1])[0], width))
