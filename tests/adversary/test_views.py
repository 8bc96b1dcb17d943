"""What a position sees tells nothing: equal shapes for all inputs, uniform messages, aborts that depend on no secret."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.compare import greater_public
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.order.row_parts import RowShape
from mpc_ops.protocol.proofs import proof_and
from mpc_ops.protocol.proofs.and_kernels import BlockLayout
from mpc_ops.protocol.proofs.proof_and import AndLog, AndProof
from mpc_ops.protocol.proofs.ring_claim import RingParams
from mpc_ops.protocol.proofs.ring_roles import Place
from tests.support.active import SMALL_LAYOUT, Gates, TinyField, Trial
from tests.support.adversary import Case
from tests.support.attacked import ATTACKED, CORE, LARGE
from tests.support.attacked_tables import tables
from tests.support.products import Cheater, prove, views
from tests.support.views import not_uniform, openings, tell_apart, used_twice, view_differences
from tests.unit.test_active_proof_and import BestCheater


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(AndLog, "layout", SMALL_LAYOUT)


THOROUGH = "ADVERSARY_RUNS" in os.environ
QUICK = [name for name in ATTACKED if THOROUGH or name not in LARGE]


@pytest.mark.parametrize("name", QUICK)
def test_views_of_inputs_of_one_shape_are_alike(name: str) -> None:
    """Lengths, addresses, rounds and opened values of every position; no context of a key, mask or coin is used twice on the way."""
    assert not view_differences(ATTACKED[name])
    assert not used_twice(ATTACKED[name], ["one"])


def _leaky(session, shares):
    """Keep what is above 1, and open how many rows that is."""
    flow = ActiveFlow(session, "leaky")
    (above,) = yield from evaluate(flow.stage, "c", [greater_public(shares[0], 1)])
    (kept,) = yield from flow.open([above])
    yield from flow.open([shares[0].plane(0)])
    return int(kept.sum())


def test_views_differ_if_what_is_opened_in_between_does() -> None:
    """Lengths, rounds and the result are the same."""
    leaky = replace(
        ATTACKED["public comparisons"], name="leaky", cases=(([2, 0, 1],), ([0, 3, 0],)), steps=_leaky,
        share=tables({"x": 2}), plain=lambda *_: 1,
    )  # fmt: skip
    assert set(view_differences(leaky)) == {f"position {position}, inputs 1: opened" for position in range(3)}


@pytest.mark.parametrize("number", range(2))
def test_opened_places_are_in_a_uniformly_random_order_whatever_the_bits_are(number: int) -> None:
    """With the same pair keys other bits give other places; what they say is which of all orders was drawn."""
    runs = 120
    orders: Counter[tuple[int, ...]] = Counter()
    for seed in range(runs):
        with openings() as opened:
            Case(ATTACKED["partition"], seed=("places", seed), number=number)
        places, _amounts = opened[0]
        orders[tuple(places[0])] += 1
    assert len(orders) == 6
    assert sum((count - runs / 6) ** 2 / (runs / 6) for count in orders.values()) < CHI_SQUARE_5


def _stream_of_all_levels(self, key, purpose, level, count):
    return self.field.uniform(proof_and.expand(key, 2 * count, *self.context, "proof", self.prover, purpose))


def _purpose_of_all_streams(self, name, level=0):
    return ("ring-proof/v1", self.prover, level, *self.context)


def _one_mask(self, seed, purpose, real=RowShape.mask):
    return real(self, seed, "z")


@pytest.mark.parametrize(
    ("name", "owner", "method", "planted"),
    [
        ("logic", AndProof, "stream", _stream_of_all_levels),
        ("products", Place, "purpose", _purpose_of_all_streams),
        ("shuffle", RowShape, "mask", _one_mask),
    ],
)
def test_a_stream_that_a_proof_or_a_shuffle_uses_twice_is_noticed(name, owner, method, planted, monkeypatch) -> None:
    assert not used_twice(ATTACKED[name], ["one"])
    monkeypatch.setattr(owner, method, planted)
    assert used_twice(ATTACKED[name], ["one"])


@pytest.mark.parametrize("name", QUICK if THOROUGH else CORE)
def test_every_form_of_message_is_uniform_and_tells_no_inputs_apart(name: str) -> None:
    seeds = range(4)
    for number in range(2):
        assert not not_uniform(ATTACKED[name], number, [(number, seed) for seed in seeds])
    assert not tell_apart(ATTACKED[name], seeds)


# ------------------------------------------------------------------------------------ aborts are independent of secrets

TINY = BlockLayout(lanes=2, slots=1, inner=(2, 2), inner_slots=1, last=2)
RUNS = int(os.environ.get("ADVERSARY_RUNS", "600"))
"""Runs for each secret; `make adversary` takes 10 000."""
CHI_SQUARE_1, CHI_SQUARE_5 = 19.5, 30.9
"""One and five degrees of freedom: exceeded with probability 10^-5."""


def with_values(x: int, y: int, generator: np.random.Generator) -> Gates:
    """Fresh sharings of given words, with right products."""
    gates = Gates.random(1, generator)
    for column, value in ((gates.x, x), (gates.y, y)):
        column[2] ^= column[0] ^ column[1] ^ column[2] ^ np.uint64(value)
    for i in range(3):
        j = (i + 1) % 3
        gates.z[i] = (gates.x[i] & (gates.y[i] ^ gates.y[j])) ^ (gates.x[j] & gates.y[i]) ^ gates.r[i] ^ gates.r[j]
    return gates


def compare_rates(passed: list[tuple[int, int]]) -> float:
    """Chi-square of a table of (accepted, runs) for two secrets."""
    total = sum(count for count, _ in passed) / sum(runs for _, runs in passed)
    if total in (0, 1):
        return 0.0
    return sum((count - runs * total) ** 2 / (runs * total * (1 - total)) for count, runs in passed)


def and_runs(x: int, y: int, runs: int) -> tuple[int, int]:
    """Proofs over a field of 67 elements with one wrong gate; a liar's rate of success shows there."""
    generator, rng = np.random.default_rng(x % 1000 + 1), random.Random(y)
    field, accepted = TinyField(67), 0
    for _ in range(runs):
        gates = with_values(x, y, generator)
        gates.z[0][0] ^= np.uint64(1)
        accepted += Trial(gates, TINY, field, rng, BestCheater).run()
    return accepted, runs


def test_whether_a_wrong_gate_is_found_depends_on_no_secret() -> None:
    every = (1 << 64) - 1
    rates = [and_runs(x, y, RUNS) for x, y in ((0, 0), (every, every))]
    assert 0 < rates[0][0] < rates[0][1]
    assert compare_rates(rates) < CHI_SQUARE_1, rates


def test_whether_a_wrong_product_is_found_depends_on_no_secret() -> None:
    params, rates = RingParams(8, 16, 8, 1), []
    for edge in (0, 255):
        generator, runs = np.random.default_rng(edge), RUNS // 2
        accepted = sum(
            prove(
                views(generator, [1], params, bad=0, error=128, edge=edge), params, prover_type=Cheater,
                number=("independent", edge, number),
            ).passed
            for number in range(runs)
        )  # fmt: skip
        rates.append((accepted, runs))
    assert rates[0][0] > 0
    assert compare_rates(rates) < CHI_SQUARE_1, rates
