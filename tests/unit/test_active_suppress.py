"""Suppression on shares: which rows are published, what the recipient sees of the others, rounds and bytes."""

from __future__ import annotations

import itertools
import random

import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.disclosure.suppress import SuppressTerms, suppress, suppress_cost
from tests.support.active import as_passive, run_flow, share_bits, share_ring

MOD = 1 << 64


def run(units, owners, values, terms, *, security="passive", widths=(9, 4), **options):
    """Suppress fresh shares and open everything; return (publish bits, values, outcome)."""
    rng = random.Random(1)
    kind = as_passive if security == "passive" else (lambda share: share)
    u = share_bits(units, widths[0], rng=rng)
    o = share_bits(owners, widths[1], rng=rng) if owners is not None else None
    v = share_ring(values, rng=rng)

    def program(flow):
        party = flow.stage.party
        counts = kind(o[party]) if o is not None else None
        out = yield from suppress(flow.stage, kind(u[party]), counts, kind(v[party]), terms)
        publish, masked = yield from flow.open([out.publish, out.values])
        return [int(x) for x in publish], [int(x) for x in masked]

    outcome = run_flow(program, security=security, **options)
    if not outcome.done:
        return None, None, outcome
    assert outcome.results[0] == outcome.results[1] == outcome.results[2]
    return *outcome.results[0], outcome


def expected(units, owners, terms) -> list[int]:
    cells = [
        int((n >= terms.min_units and (owners is None or o >= terms.min_owners)) or (terms.publish_empty and n == 0))
        for n, o in zip(units, owners or units, strict=True)
    ]
    return cells + [int(all(cells[cell] for cell in cover)) for cover in terms.covers]


@pytest.mark.parametrize("security", ["passive", "active"])
@pytest.mark.parametrize(("min_owners", "publish_empty"), list(itertools.product([1, 3], [False, True])))
@pytest.mark.parametrize("covers", [(), ((0, 1, 2), (3, 4), tuple(range(5)), (4,))])
def test_rows_bytes_and_rounds(security: str, min_owners: int, publish_empty: bool, covers) -> None:
    units, owners = [10, 9, 0, 500, 11], [3, 7, 0, 2, 9] if min_owners > 1 else None
    terms = SuppressTerms(min_units=10, min_owners=min_owners, covers=covers, publish_empty=publish_empty)
    rows = 5 + len(covers)
    values = [random.Random(n).randrange(-(1 << 50), 1 << 50) for n in range(2 * rows)]
    publish, masked, outcome = run(units, owners, values, terms, security=security)
    assert publish == expected(units, owners, terms)
    assert masked == [v % MOD if publish[n % rows] else 0 for n, v in enumerate(values)]
    rounds, sent = suppress_cost(5, 9, 4, 2, terms)
    mine = [place for place in outcome.log if place.step.startswith(("suppress/", "ring-products"))]
    assert len({place.round for place in mine}) == rounds
    for party in range(3):
        assert sum(outcome.sizes[place] for place in mine if place.sender == party) == sent


def test_bounds_beyond_every_count_suppress_everything() -> None:
    publish, masked, _ = run([511, 5], None, [1, 2], SuppressTerms(min_units=10**6))
    assert (publish, masked) == ([0, 0], [0, 0])


def test_a_table_with_more_cells_than_a_word_under_one_total() -> None:
    units = [20] * 130
    terms = SuppressTerms(min_units=20, covers=(tuple(range(130)), tuple(range(129))))
    assert run(units, None, list(range(132)), terms)[0] == [1] * 132
    units[129] = 19
    assert run(units, None, list(range(132)), terms)[0] == [1] * 129 + [0, 0, 1]


def test_what_does_not_fit_is_refused() -> None:
    for wrong in ({"min_units": 0}, {"min_units": 1, "min_owners": 0}, {"min_units": 1, "covers": ((),)}):
        with pytest.raises(LocalProtocolError, match="GATE_INVALID"):
            SuppressTerms(**wrong)
    for units, owners, values, terms in (
        ([1, 2], None, [1, 2, 3], SuppressTerms(min_units=1)),
        ([1, 2], [1], [1, 2], SuppressTerms(min_units=1, min_owners=2)),
        ([1, 2], [1, 1], [1, 2], SuppressTerms(min_units=1)),
        ([1, 2], None, [1, 2], SuppressTerms(min_units=1, min_owners=2)),
        ([1, 2], None, [1, 2, 3], SuppressTerms(min_units=1, covers=((2,),))),
        ([], None, [], SuppressTerms(min_units=1)),
    ):
        assert run(units, owners, values, terms)[2].codes() == {"GATE_INVALID"}
