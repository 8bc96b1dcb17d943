"""What a sort opens says nothing about the data: equal transcripts for equal rankings, uniform rankings for all data."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from mpc_ops.protocol.core.flow import ActiveFlow, PassiveFlow
from mpc_ops.protocol.core.opening import BitWords
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.order import sort as sort_module
from mpc_ops.protocol.order import sort_quick
from mpc_ops.protocol.order.sort import SortKey, sort
from mpc_ops.protocol.proofs.proof_and import AndLog
from tests.support.active import SMALL_LAYOUT, as_passive, run_flow, share_bits

LEAST = 24
CHI_23_999999 = 73.0
"""23 degrees of freedom: exceeded with probability about 4 * 10^-7."""


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(AndLog, "layout", SMALL_LAYOUT)


@pytest.fixture
def opened(monkeypatch):
    """Everything that position 0 opens, in order."""
    values: list[tuple[int, ...]] = []
    for kind in (ActiveFlow, PassiveFlow):

        def noting(self, shares, whole=kind.open):
            found = yield from whole(self, shares)
            if shares[0].party == 0:
                values.extend(_opened(*one) for one in zip(shares, found, strict=True))
            return found

        monkeypatch.setattr(kind, "open", noting)
    return values


def _opened(share, found):
    if isinstance(share, BitWords):
        found = np.unpackbits(found.view(np.uint8), count=share.share.count, bitorder="little")
    return tuple(found.tolist())


def run(keys, width, security, seed, *, shares_seed=1, **options):
    parts = share_bits(keys, width, seed, random.Random(shares_seed))

    def program(flow):
        own = parts[flow.stage.party]
        rows = Rows({"key": own if security == "active" else as_passive(own)})
        out = yield from sort(flow, rows, [SortKey("key")], **options)
        return out.count

    out = run_flow(program, security=security, seed=seed)
    assert not out.errors
    return out


@pytest.mark.parametrize("security", ["active", "passive"])
@pytest.mark.parametrize("limit", [0, 64])
@pytest.mark.parametrize("pivots", [1, 3])
def test_inputs_of_one_ranking_have_one_transcript(security, limit, pivots, opened, monkeypatch):
    """All keys equal, all different, some equal: row numbers give them the same ranking, and the shuffle does the rest."""
    monkeypatch.setattr(sort_module, "RADIX_BITS", {security: limit})
    count = 12 if security == "active" else 90
    inputs = [[7] * count, [place // 8 for place in range(count)], [0] * (count // 2) + [15] * (count - count // 2)]
    seen = []
    for number, keys in enumerate(inputs):
        opened.clear()
        out = run(keys, 4, security, "views", shares_seed=number, pivots=pivots)
        # A radix sort opens other permutations for other digits: uniform ones, so only their number is compared.
        seen.append((out.sizes, out.rounds, out.sent_bytes, len(opened) if limit else list(opened)))
    assert seen[0] == seen[1] == seen[2]
    assert opened


def test_radix_transcripts_have_one_shape_for_all_data(opened, monkeypatch):
    """Passes are fixed by widths: even other rankings give the same lengths and numbers of messages."""
    monkeypatch.setattr(sort_module, "RADIX_BITS", {"passive": 64})
    rng, shapes = random.Random(1), []
    for number in range(4):
        out = run([rng.getrandbits(5) for _ in range(50)], 5, "passive", "views", shares_seed=number)
        shapes.append((out.sizes, out.rounds))
    assert all(shape == shapes[0] for shape in shapes)
    assert all(sorted(places) == sorted(opened[0]) for places in opened)


@pytest.mark.parametrize("limit", [0, 64])
def test_opened_values_are_distributed_alike_for_all_data(limit, opened, monkeypatch):
    """Four rows: every ranking is opened equally often for equal keys, and for keys in any order."""
    monkeypatch.setattr(sort_module, "RADIX_BITS", {"passive": limit})
    for keys in ([2, 2, 2, 2], [3, 2, 1, 0]):
        opened.clear()
        for seed in range(14 * LEAST):
            run(keys, 2, "passive", seed)
        counts = Counter(opened)
        assert len(counts) == 24
        mean = len(opened) / 24
        assert sum((seen - mean) ** 2 / mean for seen in counts.values()) < CHI_23_999999


def test_levels_are_distributed_alike_for_all_data(opened, monkeypatch):
    """Twenty rows, several levels: lengths of openings and the share of ones do not tell inputs apart."""
    monkeypatch.setattr(sort_module, "RADIX_BITS", {"passive": 0})
    lengths, ones = [], []
    for keys in ([5] * 20, list(range(19, -1, -1))):
        opened.clear()
        for seed in range(60):
            run(keys, 5, "passive", (str(keys), seed))
        lengths.append([len(bits) for bits in opened])
        ones.append(np.mean([bit for bits in opened for bit in bits]))
    # About 60 runs of more than 60 comparisons each.
    assert abs(np.mean(lengths[0]) - np.mean(lengths[1])) < 6
    assert all(abs(share - 0.5) < 0.05 for share in ones)


def test_numbers_that_were_appended_after_the_shuffle_would_tell_equal_keys(monkeypatch, opened):
    """The planted bug: then equal keys always keep the order that they stand in, and that is opened."""
    monkeypatch.setattr(sort_module, "RADIX_BITS", {"passive": 0})
    whole = sort_quick.KeyWords

    def late(parts):
        numbers, key = parts
        return whole([sort_quick.public_like(key, sort_quick.numbered(Rows({"key": numbers}))), key])

    monkeypatch.setattr(sort_quick, "KeyWords", late)
    for seed in range(20):
        run([2, 2, 2, 2], 2, "passive", seed)
    assert len(set(opened)) == 1
