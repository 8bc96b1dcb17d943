"""Joins on shares against a plaintext engine: repeated foreign keys, NULLs, rows that are not live, empty tables, two keys."""

import random

import duckdb
import pyarrow as pa
import pytest

from mpc_ops.protocol.relational import ordered
from mpc_ops.protocol.relational.groups import VALID
from mpc_ops.protocol.relational.joins import HAS_FOREIGN, HAS_PRIMARY, join, require_unique
from mpc_ops.protocol.relational.ordered import Key
from tests.support.active import run_flow, small_proofs
from tests.support.relational import SECURITIES, refusal, run_table, tables

KEYS = ((Key("ka", "ka_ok"), Key("fa", "fa_ok")), (Key("kb"), Key("fb")))
PAYLOAD = ("rate", "rate_ok", "amount")
SIZES = ((0, 0), (0, 3), (3, 0), (1, 1), (5, 63), (40, 25), (64, 64))


def sources(p, f, rng):
    """A primary table whose usable keys differ, and a foreign one."""
    possible = [(a, b) for a in range(8) for b in (0, 9, 15)]
    chosen = [possible[at] for at in rng.sample(range(24), min(p, 24))]
    ok = [int(rng.random() < 0.8) for _ in range(p)]
    live = [int(rng.random() < 0.8) for _ in range(p)]
    while len(chosen) < p:  # what cannot match may repeat
        ok[len(chosen)] = 0
        chosen.append(rng.choice(possible))
    primary = {
        "ka": ([a for a, _ in chosen], 3),
        "ka_ok": (ok, 1),
        "kb": ([b for _, b in chosen], 4),
        "rate": ([rng.randrange(1, 64) for _ in range(p)], 6),
        "rate_ok": ([rng.getrandbits(1) for _ in range(p)], 1),
        "amount": ([rng.randrange(1, 1000) for _ in range(p)], None),
        "live": (live, 1),
    }
    foreign = {
        "fa": ([rng.randrange(8) for _ in range(f)], 3),
        "fa_ok": ([int(rng.random() < 0.9) for _ in range(f)], 1),
        "fb": ([rng.choice([0, 9, 14]) for _ in range(f)], 4),
        "item": (list(range(f)), 7),
        "live": ([int(rng.random() < 0.9) for _ in range(f)], 1),
    }
    return primary, foreign


def plaintext(primary, foreign, sql):
    def table(spec, names):
        def column(name):
            marks = spec.get(f"{name}_ok", ([1] * len(spec[name][0]), 1))[0]
            return pa.array([v if m else None for v, m in zip(spec[name][0], marks, strict=True)], pa.int64())

        return pa.table({name: column(name) for name in names})

    with duckdb.connect() as connection:
        p = dict(primary, place=(list(range(len(primary["ka"][0]))), 7))
        connection.register("p", table(p, ["ka", "kb", "live", "place"]))
        connection.register("f", table(foreign, ["fa", "fb", "item", "live"]))
        return connection.execute(sql).fetchall()


ON = "p.live = 1 AND f.live = 1 AND p.ka = f.fa AND p.kb = f.fb"
PARTNERS = f"SELECT f.item, p.place FROM f JOIN p ON {ON}"


def partners(primary, foreign):
    return dict(plaintext(primary, foreign, PARTNERS))


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("kind", ["inner", "left"])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_foreign_row_gets_what_its_partner_holds(sizes, kind, security, monkeypatch):
    small_proofs(monkeypatch)
    primary, foreign = sources(*sizes, random.Random(sum(sizes)))
    names = []

    def program(flow, p, f):
        joined = yield from join(flow, p, f, KEYS, PAYLOAD, kind=kind, primary_live="live", foreign_live="live")
        names[:] = joined.rows.names
        return [*joined.rows.columns.values(), joined.duplicates]

    got, _ = run_table(program, primary, foreign, security=security)
    assert got.pop() == [0]
    columns = dict(zip(names, got, strict=True))
    found = partners(primary, foreign)
    rows = range(sizes[1])
    assert columns[HAS_PRIMARY] == [int(row in found) for row in rows]
    assert columns[VALID] == ([int(row in found) for row in rows] if kind == "inner" else foreign["live"][0])
    for name in PAYLOAD:
        assert columns[name] == [primary[name][0][found[row]] if row in found else 0 for row in rows]
    assert {name: columns[name] for name in foreign} == {name: values for name, (values, _) in foreign.items()}


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("sizes", SIZES)
def test_a_full_join_keeps_what_has_no_partner_on_either_side(sizes, security, monkeypatch):
    small_proofs(monkeypatch)
    primary, foreign = sources(*sizes, random.Random(7 + sum(sizes)))
    names = []

    def program(flow, p, f):
        joined = yield from join(flow, p, f, KEYS, PAYLOAD, kind="full", primary_live="live", foreign_live="live")
        names[:] = joined.rows.names
        return list(joined.rows.columns.values())

    got, _ = run_table(program, primary, foreign, security=security)
    columns = dict(zip(names, got, strict=True))
    found = partners(primary, foreign)
    rows = [{name: values[at] for name, values in columns.items()} for at, valid in enumerate(columns[VALID]) if valid]
    lonely = [at for at in range(sizes[0]) if primary["live"][0][at] and at not in found.values()]
    above, below = rows[: len(lonely)], rows[len(lonely) :]
    assert [[row[name] for name in ("fa", "fa_ok", "fb", *PAYLOAD)] for row in above] == [
        [primary[name][0][at] for name in ("ka", "ka_ok", "kb", *PAYLOAD)] for at in lonely
    ]
    assert all((row[HAS_PRIMARY], row[HAS_FOREIGN], row["item"]) == (1, 0, 0) for row in above)
    kept = [row for row in range(sizes[1]) if foreign["live"][0][row]]
    assert [(row["item"], row[HAS_PRIMARY], row[HAS_FOREIGN], row["amount"]) for row in below] == [
        (row, int(row in found), 1, primary["amount"][0][found[row]] if row in found else 0) for row in kept
    ]


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("kind", ["semi", "anti"])
def test_semi_and_anti_joins_allow_repeated_keys_on_both_sides(kind, security, monkeypatch):
    small_proofs(monkeypatch)
    rng = random.Random(3)
    primary = {"k": ([rng.randrange(8) for _ in range(30)], 4), "live": ([rng.getrandbits(1) for _ in range(30)], 1)}
    foreign = {"k": ([rng.randrange(12) for _ in range(50)], 4), "k_ok": ([rng.getrandbits(1) for _ in range(50)], 1)}

    def program(flow, p, f):
        joined = yield from join(flow, p, f, [(Key("k"), Key("k", "k_ok"))], kind=kind, primary_live="live")
        assert joined.duplicates is None
        return [joined.rows.bits(VALID)]

    (got,), _ = run_table(program, primary, foreign, security=security)
    there = {key for key, live in zip(primary["k"][0], primary["live"][0], strict=True) if live}
    found = [int(bool(ok) and key in there) for key, ok in zip(foreign["k"][0], foreign["k_ok"][0], strict=True)]
    assert got == (found if kind == "semi" else [1 - bit for bit in found])


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize("width", [1, 2, 33, 64])
def test_keys_of_every_width_by_copying_and_by_shuffle(width, limit, security, monkeypatch):
    small_proofs(monkeypatch)
    monkeypatch.setattr(ordered, "COPY_LIMIT", limit)
    rng = random.Random(width)
    keys = sorted({0, (1 << width) - 1, rng.getrandbits(width)})
    asked = [rng.choice([*keys, rng.getrandbits(width)]) for _ in range(40)]

    def program(flow, p, f):
        joined = yield from join(flow, p, f, [(Key("k"), Key("k"))], ["v"], kind="left")
        return [joined.rows.bits("v")]

    values = {key: 3 + at for at, key in enumerate(keys)}
    specs = {"k": (keys, width), "v": (list(values.values()), 3)}, {"k": (asked, width)}
    (got,), _ = run_table(program, *specs, security=security)
    assert got == [values.get(key, 0) for key in asked]


def repeated(unique):
    def program(flow, p, f):
        joined = yield from join(flow, p, f, [(Key("k"), Key("k"))], ["v"], unique=unique)
        if unique == "secret":
            yield from require_unique(flow, joined)

    return program


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("unique", ["open", "secret"])
def test_repeated_primary_keys_end_the_run(unique, security, monkeypatch):
    small_proofs(monkeypatch)
    specs = {"k": ([4, 1, 4], 3), "v": ([1, 2, 3], 2)}, {"k": ([7], 3)}
    assert refusal(repeated(unique), *specs, security=security) == "JOIN_NOT_UNIQUE"


@pytest.mark.parametrize("unique", ["open", "secret"])
def test_different_primary_keys_do_not(unique, monkeypatch):
    small_proofs(monkeypatch)
    specs = [tables({"k": ([4, 1, 5], 3), "v": ([1, 2, 3], 2)}), tables({"k": ([5, 5, 5], 3)})]
    out = run_flow(lambda flow: repeated(unique)(flow, *(parts[flow.stage.party] for parts in specs)))
    assert out.done


@pytest.mark.parametrize(
    ("keys", "payload", "options"),
    [
        ([], [], {}),
        ([(Key("k"), Key("k"))], [], {"kind": "cross"}),
        ([(Key("k"), Key("wide"))], [], {}),
        ([(Key("k"), Key("none"))], [], {}),
        ([(Key("k", "wide"), Key("k"))], [], {}),
        ([(Key("k"), Key("k"))], ["none"], {}),
        ([(Key("k"), Key("k"))], ["k"], {}),
        ([(Key("k"), Key("k"))], ["v", "v"], {}),
        ([(Key("k"), Key("k"))], ["v"], {"kind": "semi"}),
        ([(Key("k"), Key("k"))], ["v"], {"primary_live": "v"}),
        ([(Key("k", "ok"), Key("k"))], ["v"], {"kind": "full"}),
        ([(Key("k"), Key("k"))], ["has_primary"], {}),
        ([(Key("k"), Key("k"))], ["(row)"], {}),
    ],
)
def test_what_does_not_fit_is_refused(keys, payload, options):
    primary = {
        "k": ([1], 2),
        "v": ([1], 3),
        "wide": ([1], 3),
        "ok": ([1], 1),
        "has_primary": ([1], 1),
        "(row)": ([1], 1),
    }
    foreign = {"k": ([1], 2), "wide": ([1], 3)}
    assert refusal(lambda flow, p, f: join(flow, p, f, keys, payload, **options), primary, foreign) == "ROWS_INVALID"
