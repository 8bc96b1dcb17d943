"""False accepts of recipe B in rings small enough to see them, against the bound that the code computes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mpc_ops.protocol.proofs.ring_claim import RingParams, log2_bound
from mpc_ops.protocol.proofs.ring_roles import Place
from mpc_ops.ring import wide
from tests.support.products import Cheater, prove, views


def within(measured: int, trials: int, rate: float, sigmas: float = 4.5) -> bool:
    return abs(measured - trials * rate) <= sigmas * math.sqrt(trials * rate * (1 - rate)) + 1


@pytest.mark.parametrize(
    ("gate", "claim", "folds", "repetitions"),
    [(8, 16, 2, 1), (8, 16, 3, 2), (8, 24, 2, 1), (8, 24, 3, 2), (8, 16, 5, 2), (16, 24, 4, 1), (16, 32, 5, 1)],
)
def test_the_bound_is_the_rate_of_the_best_error_under_random_weights_and_folds(
    gate: int, claim: int, folds: int, repetitions: int
) -> None:
    """The error c * 2^(g-1) is multiplied by a and b in each fold; accepted if it is 0 mod 2^k in every repetition."""
    trials = 200_000
    generator = np.random.default_rng(claim + folds)
    weights = generator.integers(0, 1 << (claim - gate), trials, dtype=np.uint64)
    accepted = np.ones(trials, dtype=bool)
    for _ in range(repetitions):
        error = weights << np.uint64(gate - 1)
        for _ in range(2 * folds):
            error *= generator.integers(0, 1 << claim, trials, dtype=np.uint64)
        accepted &= (error & np.uint64((1 << claim) - 1)) == 0
    rate = 2 ** log2_bound(RingParams(gate, claim, claim - gate, repetitions), folds)
    assert within(int(accepted.sum()), trials, rate)


@pytest.mark.parametrize("repetitions", [1, 2])
def test_the_best_cheater_passes_the_real_proof_as_often_as_the_bound_says(repetitions: int) -> None:
    params, trials = RingParams(8, 16, 8, repetitions), 300
    generator = np.random.default_rng(7)
    accepted = sum(
        prove(views(generator, [1, 1], params, bad=0, error=128), params, prover_type=Cheater, number=number).passed
        for number in range(trials)
    )
    # Rates 0.134 and 0.041.
    assert within(accepted, trials, 2 ** log2_bound(params, 2))


def test_every_coefficient_and_weight_is_drawn_for_itself() -> None:
    place = Place(("test",), 0, 100, 100)
    seed = bytes(range(32))
    drawn = [value for pair in place.coefficients(seed, 0) for side in pair for value in wide.to_ints(side)]
    assert len(drawn) == len(set(drawn)) == 2 * 2 * 8
    assert all(value >> 64 and value % (1 << 64) for value in drawn)
    assert len(set(place.weights(seed).tolist())) == 100
    masks = [wide.to_ints(mask)[0] for name in ("mask-u", "mask-v") for mask in place.masks(seed, name)]
    other = [wide.to_ints(mask)[0] for mask in replace(place, prover=1).masks(seed, "mask-u")]
    assert len({*masks, *other}) == 6
    assert place.coin_digest(seed, 0) != place.coin_digest(seed, 1)
    last = place.coefficients(seed, place.folds - 1)
    assert all(wide.to_ints(side)[-1] == 1 for pair in last for side in pair)


def test_an_error_of_lower_valuation_or_a_larger_ring_passes_hardly_ever() -> None:
    generator = np.random.default_rng(8)
    for params, error in ((RingParams(8, 16, 8, 2), 1), (RingParams(16, 32, 16, 2), 1 << 15)):
        accepted = sum(
            prove(views(generator, [1, 1], params, bad=1, error=error), params, prover_type=Cheater, number=n).passed
            for n in range(40)
        )
        assert accepted <= 2


def test_the_best_cheater_never_passes_at_full_size() -> None:
    generator = np.random.default_rng(9)
    for number, error in enumerate((1, 1 << 63, (1 << 64) - 1, 1 << 31)):
        wrong = views(generator, [1, 40, 1], bad=number % 3, error=error)
        assert not prove(wrong, prover_type=Cheater, number=number).passed
