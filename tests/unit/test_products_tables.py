"""Proofs of tables of dot products: the same carries and claims as the products one by one, and no wrong output passes."""

import numpy as np
import pytest

from mpc_ops.kernels import calls
from mpc_ops.protocol.proofs import ring_claim as claims
from mpc_ops.protocol.proofs import ring_tables
from mpc_ops.protocol.proofs.ring_claim import RING_64, GateView
from mpc_ops.protocol.proofs.ring_roles import RingBatch
from mpc_ops.protocol.proofs.ring_tables import TableView, terms_of
from mpc_ops.protocol.relational.dot_table import dot_table
from mpc_ops.ring import wide
from tests.support.active import corrupt_session, run_flow, share_ring, small_proofs
from tests.support.products import prove

SHAPES = ((1, 1, 1), (2, 3, 7), (8, 15, 40), (3, 1, 129), (65, 2, 9))
BACKENDS = (True, False) if calls.PRESENT else (False,)


def spelled_out(view: TableView) -> GateView:
    """The same products, term by term."""
    x, y, rows = view.x, view.y, view.x.shape[1]
    ends = np.arange(1, view.outputs + 1, dtype=np.int64) * rows
    return GateView(np.repeat(x, len(y), axis=0).reshape(-1), np.tile(y, (len(x), 1)).reshape(-1), ends)


def batches(shape, generator, *, error=0):
    """Views of the three parties; prover 0 may have sent a wrong last output."""
    left, right, rows = shape
    x = [generator.integers(0, 1 << 64, (left, rows), dtype=np.uint64) for _ in range(3)]
    y = [generator.integers(0, 1 << 64, (right, rows), dtype=np.uint64) for _ in range(3)]
    r = [generator.integers(0, 1 << 64, left * right, dtype=np.uint64) for _ in range(3)]
    z = []
    for i in range(3):
        j = (i + 1) % 3
        z.append((x[i] @ (y[i] + y[j]).T + x[j] @ y[i].T).reshape(-1) + r[i] - r[j])
    z[0][-1:] += np.uint64(error)
    sides = [TableView(x[i], y[i]) for i in range(3)]
    lefts = [(x[i] @ y[i].T).reshape(-1) + r[i] - z[i] for i in range(3)]
    return [
        RingBatch(sides[i], sides[(i + 1) % 3], lefts[i], lefts[(i + 1) % 3], r[i], r[(i + 1) % 3]) for i in range(3)
    ]


@pytest.mark.parametrize("kernels", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_carries_and_claims_are_those_of_the_products_one_by_one(shape, kernels, monkeypatch):
    for module in (claims, ring_tables):
        monkeypatch.setattr(module, "compiled", lambda: kernels)
    generator = np.random.default_rng(sum(shape))
    view = batches(shape, generator)[0]
    own, following = spelled_out(view.own), spelled_out(view.following)
    q = view.own.carries(view.following, view.l_own, view.r_next, RING_64)
    assert np.array_equal(q, claims.carries(own, following, view.l_own, view.r_next, RING_64))
    c = generator.integers(0, 1 << 64, view.own.outputs, dtype=np.uint64)
    u, v = view.own.first_left(c), view.following.first_right()
    expected = claims.matrix(claims.first_level(own.x, own.y, c, own.ends), following.first_right())
    assert wide.equal(claims.trace(claims.matrix(u, v), 8), claims.trace(expected, 8))
    assert len(u.values) == len(v.values) == 2 * view.own.terms
    assert view.own.terms == terms_of(shape[2], shape[0] + shape[1])
    assert view.own.held_bytes == 8 * shape[2] * (shape[0] + shape[1])
    assert "redacted" in repr(view.own)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("error", [0, 1, 1 << 63])
def test_a_wrong_output_does_not_pass(shape, error):
    assert prove(batches(shape, np.random.default_rng(3), error=error)).passed == (error == 0)


@pytest.mark.parametrize("corrupt", range(3))
def test_a_party_that_lies_about_a_table_is_found_before_anything_is_opened(corrupt, monkeypatch):
    small_proofs(monkeypatch)
    columns = [share_ring([5, 7, 9]) for _ in range(3)]

    def bend(step, side, body):
        return bytes([bytes(body)[0] ^ 1]) + bytes(body)[1:] if step == "dot-table" else body

    def program(flow):
        one, two, three = (parts[flow.stage.party] for parts in columns)
        table = yield from dot_table(flow.stage, [one, two], [three])
        return (yield from flow.open([table]))

    out = run_flow(program, session_types={corrupt: corrupt_session(bend)})
    assert not out.results
    honest = [error for party, error in out.errors.items() if party != corrupt]
    assert [error.code for error in honest] == ["PROOF_REJECTED"] * 2
    assert {error.ids["prover"] for error in honest} == {("de-1", "de-2", "de-3")[corrupt]}
