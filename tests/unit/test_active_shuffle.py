"""Shuffle, its tags, partition and compact: rows stay together, exact cost, and what may not be done with a tag key."""

import random
from collections import Counter

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.protocol.circuits.products import times_public
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.opening import TopBytes
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.shares import concat, ring_of
from mpc_ops.protocol.order import row_parts
from mpc_ops.protocol.order.row_parts import RowShape, random_order
from mpc_ops.protocol.order.shuffle import compact, move_numbered, move_to, partition, shuffle, shuffle_in_stage
from mpc_ops.protocol.order.shuffle_tags import TagKey, TagLog, matrix_tags, open_tag_keys
from mpc_ops.protocol.proofs.proof_and import AndLog
from mpc_ops.randomness import expand
from mpc_ops.ring.planes import to_planes
from tests.support.active import SMALL_LAYOUT, as_passive, run_active, run_flow, share_bits, share_ring
from tests.support.relational import SECURITIES, refusal, run_table, sent_by, tables

COUNTS = (1, 2, 63, 64, 65, 200)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(AndLog, "layout", SMALL_LAYOUT)


def spec(count: int, seed: int = 0):
    rng = random.Random(seed)
    return {
        "flag": ([rng.getrandbits(1) for _ in range(count)], 1),
        "amount": ([rng.getrandbits(64) for _ in range(count)], None),
        "key": ([rng.getrandbits(50) for _ in range(count)], 50),
        "more": ([rng.getrandbits(64) for _ in range(count)], None),
        "code": ([rng.getrandbits(30) for _ in range(count)], 30),
    }


def rows_of(values) -> list[tuple[int, ...]]:
    return list(zip(*values, strict=True))


def columns(rows: Rows):
    return [rows.columns[name] for name in rows.names]


def shuffled(flow, rows):
    return columns((yield from shuffle(flow, rows)))


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("count", COUNTS)
def test_rows_stay_together_and_none_is_lost(security, count):
    given = spec(count)
    values, _ = run_table(shuffled, given, security=security)
    before = rows_of(values for values, _ in given.values())
    assert sorted(rows_of(values)) == sorted(before)
    if count > 60:
        assert rows_of(values) != before


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("name", ["flag", "amount"])
def test_a_single_column_of_either_kind_is_shuffled(security, name):
    given = {name: spec(70)[name]}
    values, _ = run_table(shuffled, given, security=security)
    assert Counter(values[0]) == Counter(given[name][0])


@pytest.mark.parametrize("security", SECURITIES)
def test_columns_of_more_than_64_bits(security):
    given = {name: spec(90)[name] for name in ("key", "code")}

    def program(flow, rows):
        wide = concat([rows.bits("key"), rows.bits("code"), rows.bits("key")])
        out = yield from shuffle(flow, Rows({"wide": wide}))
        return [out.bits("wide")[:50], out.bits("wide")[50:80], out.bits("wide")[80:]]

    values, _ = run_table(program, given, security=security)
    assert values[0] == values[2]
    assert sorted(rows_of(values[:2])) == sorted(rows_of(values for values, _ in given.values()))


@pytest.mark.parametrize("security", SECURITIES)
def test_no_rows_cost_nothing(security):
    def program(flow, rows):
        out = yield from shuffle(flow, rows)
        out = yield from partition(flow, out, "flag")
        out = yield from compact(flow, out, "flag", size=0)
        assert flow.openings == 0
        return [out.bits("key"), out.ring("amount")]

    values, out = run_table(program, spec(0), security=security)
    assert values == [[], []]
    assert sent_by(out, "shuffle", "ring") == 0


def test_two_sessions_have_different_orders_and_fresh_shares():
    given = {"key": (list(range(200)), 8)}
    orders, firsts = [], []
    for seed in ("a", "b"):
        parts = share_bits(given["key"][0], 8, seed, random.Random(1))

        def program(flow, parts=parts):
            out = yield from shuffle(flow, Rows({"key": parts[flow.stage.party]}))
            (values,) = yield from flow.open([out.bits("key")])
            return values.tolist(), out.bits("key").first

        result = run_flow(program, seed=seed).results[0]
        orders.append(result[0])
        firsts.append(result[1])
    assert orders[0] != orders[1]
    assert not np.array_equal(firsts[0], firsts[1])


# ------------------------------------------------------------------------------------------------------------------- cost


def row_bytes(count: int, bits: int, ring: int, security: str) -> int:
    """Bytes of all rows in one message, by the formula of the docstring."""
    words = -(-count // 64)
    if security == "passive":
        return 8 * bits * words + 8 * ring * count
    return 8 * bits * words + (8 * (bits > 0) + 16 * ring + 16 * (ring > 0)) * count


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("names", [("flag",), ("amount",), ("flag", "amount", "key", "more", "code")])
@pytest.mark.parametrize("count", [1, 64, 65])
def test_rounds_and_bytes_are_those_of_the_docstring(security, names, count):
    given = {name: spec(count)[name] for name in names}
    bits = sum(width or 0 for _, width in given.values())
    ring = sum(width is None for _, width in given.values())

    def program(flow, rows):
        yield from shuffle(flow, rows)
        return []

    _, out = run_table(program, given, security=security)
    size = row_bytes(count, bits, ring, security)
    tags = (8 * (bits > 0) + 16 * (ring > 0)) * count
    active = security == "active"
    for party in range(3):
        passes = sent_by(out, "shuffle-1", "shuffle-2", party=party)
        assert passes == (2 * size + 1 if party == 1 else size)
        assert sent_by(out, "shuffle-tags", party=party) == (tags if active else 0)
        # The key, its digest; one HMAC for each peer.
        assert sent_by(out, "tag-key", party=party) == (8 * (bits + ring) + 32 if active else 0)
        assert sent_by(out, "tag-sums", party=party) == (64 if active else 0)
    # Passive: two passes, then an opening of nothing. Active: tags, passes, FLUSH, key, sums, ACCEPT, opening.
    assert out.rounds == ([8] * 3 if active else [3] * 3)


@pytest.mark.parametrize(("security", "limit"), [("passive", 2.0), ("active", 2.0)])
def test_traffic_stays_within_twice_the_rows_and_their_tags(security, limit):
    given = {"key": spec(640)["key"]}
    _, out = run_table(shuffled, given, security=security)
    most = max(sent_by(out, "shuffle", party=party) for party in range(3))
    assert most <= limit * 50 * 640 / 8 + (24 * 640 if security == "active" else 0) + 1


def test_shuffles_of_one_stage_share_rounds_keys_and_sums_are_their_own():
    def program(flow, rows):
        one = yield from shuffle(flow, rows.select(["flag", "amount"]))
        two = yield from shuffle(flow, one)
        return columns(two)

    values, out = run_table(program, spec(70))
    assert sorted(rows_of(values)) == sorted(zip(spec(70)["flag"][0], spec(70)["amount"][0], strict=True))
    assert sent_by(out, "tag-key") == 2 * 8 * 2 + 32
    assert sent_by(out, "tag-sums") == 64


def test_a_batch_that_reaches_the_limit_is_compared_early():
    def program(flow, rows):
        out = yield from shuffle(flow, rows)
        assert flow.stage.batches == 1
        return columns(out)

    values, _ = run_table(program, spec(70), limit_bytes=1 << 10)
    assert sorted(rows_of(values)) == sorted(rows_of(values for values, _ in spec(70).values()))


# ------------------------------------------------------------------------------------------------------------ permutations


def test_permutations_are_unbiased():
    counts = Counter(tuple(random_order(bytes([n % 256, n // 256]) * 16, 4).tolist()) for n in range(2400))
    assert len(counts) == 24
    # Chi-square with 23 degrees of freedom: 49.7 is passed once in a thousand.
    assert sum((seen - 100) ** 2 / 100 for seen in counts.values()) < 49.7


def test_equal_keys_are_drawn_again(monkeypatch):
    def ties(seed, lanes, *context):
        keys = expand(seed, lanes, *context)
        if context == ("permutation", 0):
            keys[-1] = keys[0]
        return keys

    seed = bytes(32)
    honest = random_order(seed, 50)
    monkeypatch.setattr(row_parts, "expand", ties)
    again = random_order(seed, 50)
    assert sorted(again.tolist()) == list(range(50))
    assert not np.array_equal(honest, again)
    assert np.array_equal(again, np.argsort(expand(seed, 50, "permutation", 1)))


# ------------------------------------------------------------------------------------------------------------------- tags


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64, 65, 130])
def test_matrix_tags_are_the_sum_of_the_columns_of_the_set_bits(width):
    rng = random.Random(width)
    rows = [rng.getrandbits(width) for _ in range(70)]
    key = [rng.getrandbits(64) for _ in range(width)]
    parts = [
        to_planes(np.array([row >> low & (1 << 64) - 1 for row in rows], dtype=np.uint64), min(64, width - low))
        for low in range(0, width, 64)
    ]
    found = matrix_tags(np.concatenate(parts), len(rows), np.array(key, dtype=np.uint64))
    for row, tag in zip(rows, found.tolist(), strict=True):
        expected = 0
        for bit in range(width):
            expected ^= key[bit] if row >> bit & 1 else 0
        assert tag == expected


def test_messages_hold_what_was_put_in_and_low_bytes_that_are_zero_do_not_travel():
    for shape in (
        RowShape(65, 3, 1, (0, 5), wide=False),
        RowShape(65, 3, 1, (0, 5), wide=True),
        RowShape(1, 0, 0, (7,), wide=False),
    ):
        parts = shape.mask(bytes(32), "z")
        assert len(parts.body()) == shape.size
        again = shape.read(parts.body())
        for name in ("planes", "tags", "low", "high"):
            assert np.array_equal(getattr(parts, name), getattr(again, name)), name
        assert all(
            int(value) % (1 << 8 * skip) == 0 for skip, row in zip(shape.skips, parts.low, strict=True) for value in row
        )
        for back in (parts.plus(parts).minus(parts), parts.plus(parts).subtract(parts), parts.minus(parts).add(parts)):
            for name in ("planes", "tags", "low", "high"):
                assert np.array_equal(getattr(back, name), getattr(parts, name)), name
        with pytest.raises(PeerProtocolError, match="wrong number of bytes"):
            shape.read(parts.body()[:-1])
        assert "redacted" in repr(parts)


def test_a_tag_key_is_opened_behind_flush_once_and_in_its_own_stage():
    def program(session):
        stage = session.stage("one")
        key = TagKey(stage, 4, 1)
        for batch in (0, -1):
            with pytest.raises(LocalProtocolError, match="before FLUSHED") as found:
                next(open_tag_keys(stage, batch, [key]))
            assert found.value.code == "TAG_KEY_ORDER"
        assert "redacted" in repr(key)
        yield from stage._flush(range(1))
        for other in (object(), share_bits([1], 1)[stage.party]):
            with pytest.raises(LocalProtocolError, match="serves one shuffle"):
                next(open_tag_keys(stage, 0, [other]))
        (opened,) = yield from open_tag_keys(stage, 0, [key])
        with pytest.raises(LocalProtocolError, match="serves one shuffle"):
            next(open_tag_keys(stage, 0, [key]))
        yield from stage.barrier()
        stage.close()
        later = session.stage("two")
        yield from later._flush(range(1))
        with pytest.raises(LocalProtocolError, match="serves one shuffle"):
            next(open_tag_keys(later, 0, [key]))
        yield from later.barrier()
        later.close()
        return opened.matrix.tolist(), opened.numbers.low.tolist(), opened.numbers.high.tolist(), key.first.tolist()

    out = run_active(program)
    assert not out.errors, out.errors
    matrix, low, high, _ = out.results[0]
    assert all(result[:3] == (matrix, low, high) for result in out.results.values())
    parts = [out.results[party][3] for party in range(3)]
    assert matrix == [a ^ b ^ c for a, b, c in zip(*(part[:4] for part in parts), strict=True)]
    assert low[0] + (high[0] << 64) == sum(part[4] for part in parts)


def test_a_log_that_is_wiped_has_nothing_pending():
    def program(session):
        flow = ActiveFlow(session, "f")
        yield from shuffle(flow, tables(spec(5))[flow.stage.party])
        log = flow.stage.log(TagLog)
        assert log.pending_bytes > 0
        log.wipe()
        assert log.pending_bytes == 0
        yield from flow.finish()

    assert not run_active(program).errors


@pytest.mark.parametrize("skip", range(8))
def test_an_opening_of_upper_bytes_gives_back_the_values(skip):
    values = [value << 8 * skip for value in (0, 1, 200, 255, 3)]
    parts = [TopBytes(times_public(part, np.full(5, 1 << 8 * skip, dtype=np.uint64)), skip)
             for part in share_ring([value >> 8 * skip for value in values])]  # fmt: skip
    sent = [part.words()[1] for part in parts]
    assert {len(words) for words in sent} == {-(-5 * (8 - skip) // 8)}
    for party, part in enumerate(parts):
        assert part.combine(sent[(party + 1) % 3]).tolist() == values
    assert "redacted" in repr(parts[0])


# ------------------------------------------------------------------------------------------------- partition and compact


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("count", COUNTS)
def test_partition_and_compact_are_stable(security, count):
    given = {"flag": spec(count)["flag"], "row": (list(range(count)), 8), "amount": spec(count)["amount"]}

    def program(flow, rows):
        parted = yield from partition(flow, rows, "flag")
        kept = yield from compact(flow, rows, "flag", size=count // 2)
        assert kept.count == count // 2
        return [*columns(parted), *columns(kept)]

    values, _ = run_table(program, given, security=security)
    before = rows_of(values for values, _ in given.values())
    assert rows_of(values[:3]) == sorted(before, key=lambda row: row[0])
    assert rows_of(values[3:]) == sorted(before, key=lambda row: -row[0])[: count // 2]


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize(("count", "octets"), [(1, 1), (65, 1), (257, 2)])
def test_partition_costs_what_its_docstring_says(security, count, octets):
    given = {"flag": spec(count)["flag"], "row": ([0] * count, 9)}

    def program(flow, rows):
        yield from partition(flow, rows, "flag")
        return []

    _, out = run_table(program, given, security=security)
    active = security == "active"
    planes = 10 * 8 * -(-count // 64)
    size = planes + (8 + octets + 8 + 16 if active else octets) * count
    for party in range(3):
        assert sent_by(out, "ring-products", party=party) == 24 * count
        assert sent_by(out, "shuffle-1", "shuffle-2", party=party) == (2 * size + 1 if party == 1 else size)
        assert sent_by(out, "open", party=party) == 8 * -(-octets * count // 8) + (32 if active else 0)
    if not active:
        # Three rounds of places, two passes, one opening; then the test's own opening of nothing.
        assert out.rounds == [7] * 3


@pytest.mark.parametrize("security", SECURITIES)
def test_rows_move_to_secret_places_by_number(security):
    count = 70
    numbers, places = random.Random(1).sample(range(count), count), random.Random(2).sample(range(count), count)

    def program(flow, rows, order):
        out = yield from move_numbered(flow, rows, order.bits("number"), order.ring("place"))
        return columns(out)

    values, _ = run_table(
        program, {"row": (list(range(count)), 7)}, {"number": (numbers, 7), "place": (places, None)}, security=security
    )
    expected = [0] * count
    for number, place in zip(numbers, places, strict=True):
        expected[place] = number
    assert values[0] == expected


# -------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("places", [[0, 0], [0, 2], [255, 1]])
def test_places_that_are_no_permutation_end_the_run(places):
    def program(flow, rows):
        return columns((yield from move_to(flow, rows.select(["key"]), rows.ring("place"))))

    given = {"key": ([1, 2], 2), "place": (places, None)}
    for security in SECURITIES:
        assert refusal(program, given, security=security) == "PLACES_INVALID"


def test_what_does_not_fit_is_refused():
    def sized(flow, rows):
        yield from compact(flow, rows, "flag", size=6)

    def reserved(flow, rows):
        named = rows.plus({"(place)": rows.ring("amount")})
        yield from partition(flow, named, "flag")

    def short(flow, rows):
        yield from move_to(flow, rows, rows.ring("amount")[:2])

    def uneven(flow, rows):
        yield from move_numbered(flow, rows, rows.bits("key"), rows.ring("amount")[:2])

    def not_a_bit(flow, rows):
        yield from partition(flow, rows, "key")

    def no_bit_to_keep(flow, rows):
        yield from compact(flow, rows, "key")

    for program, code in (
        (sized, "ROWS_INVALID"),
        (reserved, "ROWS_INVALID"),
        (short, "ROWS_INVALID"),
        (uneven, "ROWS_INVALID"),
        (not_a_bit, "ROWS_INVALID"),
        (no_bit_to_keep, "ROWS_INVALID"),
    ):
        assert refusal(program, spec(5)) == code, program


def test_rows_of_the_other_kind_of_session_are_refused():
    bits = share_bits([1, 2, 3], 2)

    def active(flow):
        with pytest.raises(LocalProtocolError, match="another kind"):
            next(shuffle(flow, Rows({"key": as_passive(bits[flow.stage.party])})))
        yield from flow.finish()

    def passive(flow):
        with pytest.raises(LocalProtocolError, match="another kind"):
            next(shuffle(flow, Rows({"key": bits[flow.stage.party]})))
        yield from flow.finish()

    assert not run_flow(active).errors
    assert not run_flow(passive, security="passive").errors


def test_no_shuffle_behind_the_barrier():
    amounts = share_ring([1, 2, 3])

    def program(session):
        stage = session.stage("one")
        yield from stage.barrier()
        rows = Rows({"amount": ring_of(stage, amounts[stage.party].first, amounts[stage.party].second)})
        with pytest.raises(LocalProtocolError, match="unproven"):
            next(shuffle_in_stage(stage, rows))
        stage.close()

    assert not run_active(program).errors
