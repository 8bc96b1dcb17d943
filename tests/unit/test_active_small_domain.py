"""Sums per value of a tiny public domain: results, rounds and bytes in both kinds of session."""

import math
import random

import pytest

from mpc_ops.protocol.circuits import convert
from mpc_ops.protocol.circuits.convert import values_to_ring
from mpc_ops.protocol.relational import dot_table as dot_table_module
from mpc_ops.protocol.relational import row_planes, small_domain
from mpc_ops.protocol.relational.dot_table import blocks_of, dot_table
from mpc_ops.protocol.relational.small_domain import _split, domain_bytes, domain_sums
from tests.support.active import small_proofs
from tests.support.relational import SECURITIES, refusal, rounds_of, run_table, sent_by

MOD = 1 << 64
PRODUCTS = ("ring-products", "dot-table")


def expected(keys, values, marks, width):
    out = [0] * (1 << width)
    for key, value, mark in zip(keys, values, marks, strict=True):
        out[key] = (out[key] + mark * value) % MOD
    return out


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("width", range(1, 9))
def test_sums_and_counts_per_key_value(width, security, monkeypatch):
    small_proofs(monkeypatch)
    rng = random.Random(width)
    count = rng.choice([1, 63, 64, 65])
    keys = [rng.getrandbits(width) for _ in range(count)]
    one, two = ([rng.getrandbits(64) for _ in range(count)] for _ in range(2))
    marks = [rng.getrandbits(1) for _ in range(count)]
    counted, marked = rng.choice([True, False]), rng.choice([True, False])

    def program(flow, table):
        sums = yield from domain_sums(
            flow.stage,
            table.bits("key"),
            [table.ring("one"), table.ring("two")],
            count=counted,
            marks=table.bits("mark") if marked else None,
        )
        return [*sums.sums, *([sums.count] if counted else [])]

    spec = {"key": (keys, width), "one": (one, None), "two": (two, None), "mark": (marks, 1)}
    got, out = run_table(program, spec, security=security)
    seen = marks if marked else [1] * count
    wanted = [expected(keys, values, seen, width) for values in (one, two, [1] * count)]
    assert got == wanted[: 2 + counted]
    assert sent_by(out, *PRODUCTS) == domain_bytes(count, width, 2, count=counted, marked=marked)


@pytest.mark.parametrize("security", SECURITIES)
def test_seven_bits_and_one_column_take_256_bytes_a_row_and_6_rounds(security, monkeypatch):
    small_proofs(monkeypatch)
    keys = [row % 128 for row in range(40)]
    spec = {"key": (keys, 7), "value": (keys, None)}

    def program(flow, table):
        return list((yield from domain_sums(flow.stage, table.bits("key"), [table.ring("value")])).sums)

    (got,), out = run_table(program, spec, security=security)
    assert got == [key if key < 40 else 0 for key in range(128)]
    assert sent_by(out, *PRODUCTS) == 40 * 256 + 8 * 8 * 15 == domain_bytes(40, 7, 1)
    assert rounds_of(out, *PRODUCTS) == 2 + _split(7, 1, count=False) + 1 == 6


@pytest.mark.parametrize("security", SECURITIES)
def test_an_empty_table_has_128_empty_groups(security):
    def program(flow, table):
        sums = yield from domain_sums(flow.stage, table.bits("key"), [table.ring("value")], count=True)
        return [*sums.sums, sums.count]

    got, out = run_table(program, {"key": ([], 7), "value": ([], None)}, security=security)
    assert got == [[0] * 128, [0] * 128]
    assert sent_by(out, *PRODUCTS) == 0


@pytest.mark.parametrize("security", SECURITIES)
def test_a_table_of_dot_products_is_cut_into_blocks_of_rows(security, monkeypatch):
    small_proofs(monkeypatch)
    monkeypatch.setattr(dot_table_module, "BLOCK_ELEMENTS", 50)
    rng = random.Random(5)
    columns = {name: [rng.getrandbits(64) for _ in range(25)] for name in "abcde"}

    def program(flow, table):
        left, right = ([table.ring(name) for name in names] for names in ("ab", "cde"))
        return [(yield from dot_table(flow.stage, left, right))]

    (got,), out = run_table(program, {name: (values, None) for name, values in columns.items()}, security=security)
    pairs = [(columns[x], columns[y]) for x in "ab" for y in "cde"]
    assert got == [sum(u * v for u, v in zip(x, y, strict=True)) % MOD for x, y in pairs]
    assert blocks_of(25, 5) == math.ceil(25 / 10) == 3
    assert sent_by(out, "dot-table") == 8 * 6 * 3


def test_a_wide_key_other_lengths_and_too_many_outputs_are_refused():
    def wide(flow, table):
        yield from domain_sums(flow.stage, table.bits("key"), [table.ring("value")])

    def uneven(flow, table):
        yield from domain_sums(flow.stage, table.bits("key")[:3], [table.ring("value")[:1]])

    def outputs(flow, table):
        yield from dot_table(flow.stage, [table.ring("value")] * 1025, [table.ring("value")] * 1024)

    spec = {"key": ([1, 2], 9), "value": ([1, 2], None)}
    for program, code in ((wide, "PLANES_INVALID"), (uneven, "PLANES_INVALID"), (outputs, "BATCH_TOO_LARGE")):
        assert refusal(program, spec) == code


@pytest.mark.parametrize("security", SECURITIES)
def test_long_tables_are_treated_block_after_block(security, monkeypatch):
    small_proofs(monkeypatch)
    monkeypatch.setattr(small_domain, "BLOCK_ROWS", 64)
    monkeypatch.setattr(row_planes, "_PORTION", 100)
    rng = random.Random(8)
    keys, marks = [rng.getrandbits(3) for _ in range(150)], [rng.getrandbits(1) for _ in range(150)]
    values = [rng.getrandbits(64) for _ in range(150)]

    def program(flow, table):
        sums = yield from domain_sums(
            flow.stage, table.bits("key"), [table.ring("value")], count=True, marks=table.bits("mark")
        )
        return [*sums.sums, sums.count]

    got, out = run_table(program, {"key": (keys, 3), "value": (values, None), "mark": (marks, 1)}, security=security)
    assert got == [expected(keys, numbers, marks, 3) for numbers in (values, [1] * 150)]
    assert sent_by(out, *PRODUCTS) == domain_bytes(150, 3, 1, count=True, marked=True)


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("signed", [False, True])
def test_long_columns_become_numbers_block_after_block(signed, security, monkeypatch):
    small_proofs(monkeypatch)
    monkeypatch.setattr(convert, "_BLOCK_BITS", 5 * 64)
    values = [number % 32 for number in range(130)]

    def program(flow, table):
        return [(yield from values_to_ring(flow.stage, table.bits("value"), signed=signed))]

    (got,), out = run_table(program, {"value": (values, 5)}, security=security)
    assert got == [(value - 32 * (signed and value > 15)) % MOD for value in values]
    assert sent_by(out, "ring-products") == 16 * 5 * 130
    assert rounds_of(out, "ring-products") == 2 * 3
