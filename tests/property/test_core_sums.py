"""Random owners, regions and values: the secure result is the plain sum."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ops.engine import GroupInputs, RegionInputs, StageShape, group_stage, region_stage
from mpc_ops.protocol.core.terms import PartyKeys
from mpc_ops.protocol.sums import CrossRoute, ResultContext, combine_parts
from mpc_ops.randomness import encode_context
from mpc_ops.ring import decode_signed, encode_signed, from_bytes, to_bytes
from mpc_ops.sharing import parts_of, read_part, reconstruct, share, write_part
from tests.support.core import RUN, filing, pair_keys

LIMIT = 2**62
VALUE = st.one_of(st.sampled_from([-LIMIT, -LIMIT + 1, -1, 0, 1, LIMIT - 1, LIMIT]), st.integers(-LIMIT, LIMIT))
GROUP = ("nl-1", "ch-1", "sg-1")


def keys_of(seed, party):
    return PartyKeys(pair_keys(seed, party), pair_keys(seed, (party + 1) % 3))


def secure_sum(regions, lanes):
    """Run owners -> regions -> group -> recipient without a network; None is a nil filing."""
    crossings = [{} for _ in range(3)]
    for number, owners in enumerate(regions):
        name = f"region{number}"
        route = CrossRoute(
            run_id=RUN, source=name, target="group", crossing="cross", lanes=lanes,
            senders=(f"{name}-1", f"{name}-2", f"{name}-3"), receivers=GROUP,
        )  # fmt: skip
        frames = []
        sharings = [
            None
            if values is None
            else parts_of(share(encode_signed(values, -LIMIT, LIMIT)), filing(f"o{number}-{index}"))
            for index, values in enumerate(owners)
        ]
        for party in range(3):
            parts = [
                parts and read_part(write_part(parts[party]), parts[party].filing, party, lanes) for parts in sharings
            ]
            shape = StageShape(kind="region", lanes=lanes, ops=("region_sum", "cross"))
            inputs = RegionInputs(shape=shape, party=party, parts=parts, route=route)
            frames.append(region_stage(inputs, keys_of(name, party), 1).crossings)
        for receiver in range(3):
            crossings[receiver][name] = (route, {sender: frames[sender][receiver] for sender in range(3)})
    result = ResultContext(run_id=RUN, cluster="group", recipient="r", attempt=1, lanes=lanes, members=GROUP)
    shape = StageShape(kind="group", lanes=lanes, ops=("group_sum", "deliver"))
    outputs = [
        group_stage(
            GroupInputs(shape=shape, party=party, crossings=crossings[party], result=result), keys_of("g", party), 1
        )
        for party in range(3)
    ]
    return combine_parts(
        result, {p: out.part for p, out in enumerate(outputs)}, {p: out.commitments for p, out in enumerate(outputs)}
    )


@st.composite
def federations(draw):
    lanes = draw(st.integers(1, 6))
    owner = st.one_of(st.none(), st.lists(VALUE, min_size=lanes, max_size=lanes))
    return lanes, draw(st.lists(st.lists(owner, min_size=1, max_size=4), min_size=1, max_size=4))


@settings(max_examples=60, deadline=None)
@given(federations())
def test_secure_sum_is_the_plain_sum_mod_2_64(federation):
    lanes, regions = federation
    plain = [0] * lanes
    for owners in regions:
        for values in owners:
            plain = [total + value for total, value in zip(plain, values or [0] * lanes, strict=True)]
    assert secure_sum(regions, lanes).tolist() == [value % 2**64 for value in plain]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(-(2**59), 2**59), min_size=2, max_size=2), min_size=1, max_size=8))
def test_sums_within_bounds_decode_to_the_same_integers(owners):
    vector = secure_sum([owners], 2)
    assert decode_signed(vector, -(2**62), 2**62).tolist() == [sum(column) for column in zip(*owners, strict=True)]


@given(st.lists(VALUE, min_size=1, max_size=50))
def test_encode_share_reconstruct_decode_is_the_identity(values):
    encoded = encode_signed(values, -LIMIT, LIMIT)
    assert decode_signed(reconstruct(share(encoded).components, len(values)), -LIMIT, LIMIT).tolist() == values
    assert np.array_equal(from_bytes(to_bytes(encoded), len(values)), encoded)


ITEM = st.one_of(st.text(max_size=8), st.binary(max_size=8), st.integers())


@given(st.lists(ITEM, max_size=5), st.lists(ITEM, max_size=5))
def test_contexts_are_equal_only_if_the_tuples_are(one, other):
    same = [(type(item), item) for item in one] == [(type(item), item) for item in other]
    assert (encode_context(*one) == encode_context(*other)) == same
