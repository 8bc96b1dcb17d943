"""Test vectors of parts with tables of units: an owner's rows and seeds, the three parts byte by byte, what each operator reads.

A writer of any implementation that is given seeds, salts and rows must make components, commitments and parts that read as
these do; its Arrow streams may differ in padding, so what counts is that these bytes are read, and those of `bad` are not.
A bad case is a whole part and what its reader expects instead of the good case's (`expects`), with the code that it must raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from mpc_ops.ring import encode_signed, to_bytes
from mpc_ops.sharing import (
    Component,
    FilingContext,
    PartPayload,
    UnitLimits,
    UnitTables,
    expand_part,
    padded_rows,
    part_limit_bytes,
    parts_of,
    share,
    sharing_commitments,
    unit_planes,
    write_part,
)

VALUES = [0, 1, -1, 2**62, -(2**62), 123456789]
WIDTH = 5
UNITS = (70, 3)
LIMITS = UnitLimits(width=WIDTH, tables=2, max_rows=2048)
CLASSES = (0, 1, 63, 64, 65, 128, 129, 512, 513, 576, 577, 1024, 1025, 1088, 1152, 2047, 2049, 10**6, 10**7)

Case = dict[str, Any]


def _rows(table: int) -> list[str]:
    """Rows of a table as text, bit of cell 0 first; the first unit of each table is in every cell, the second in none."""
    every = [
        format(unit * unit * 7 + unit * 3 + table & (1 << WIDTH) - 1, f"0{WIDTH}b") for unit in range(UNITS[table])
    ]
    return ["1" * WIDTH, "0" * WIDTH, *every[2:]]


def _bits(rows: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.array([[bit == "1" for bit in row] for row in rows], dtype=bool).reshape(len(rows), WIDTH)


def _filing(filing: FilingContext) -> dict[str, Any]:
    return {
        "plan": filing.plan_digest, "period": filing.period, "owner": filing.owner, "edition": filing.edition,
        "take": filing.take,
    }  # fmt: skip


def _limits(limits: UnitLimits) -> dict[str, int]:
    return {"width": limits.width, "tables": limits.tables, "max_rows": limits.max_rows}


def _read(part: PartPayload) -> dict[str, Any]:
    """What the operator at a position has of its part: two components of the values and of every table."""
    full = expand_part(part)
    return {
        "party": part.party,
        "values": [to_bytes(component).hex() for component in full.values],
        "tables": [[to_bytes(np.ascontiguousarray(one).reshape(-1)).hex() for one in table] for table in full.tables],
        "salts": [salt.hex() for salt in part.salts],
    }


# ------------------------------------------------------------------------------------------------------- bad streams


def _opened(data: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(pa.BufferReader(data)) as reader:
        return reader.read_next_batch()


def _stream(schema: pa.Schema, *batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _said(data: bytes, **metadata: str | None) -> bytes:
    """The part with other metadata; None leaves a name out."""
    batch = _opened(data)
    kept = {key.decode(): value.decode() for key, value in batch.schema.metadata.items()} | metadata
    schema = batch.schema.with_metadata({key: value for key, value in kept.items() if value is not None})
    return _stream(schema, batch.replace_schema_metadata(schema.metadata))


def _columns(data: bytes, columns: Mapping[int, pa.Array]) -> bytes:
    """The part with other columns, whatever their types."""
    batch = _opened(data)
    arrays = [columns.get(place, column) for place, column in enumerate(batch.columns)]
    fields = [pa.field(one.name, array.type, nullable=False) for one, array in zip(batch.schema, arrays, strict=True)]
    schema = pa.schema(fields, metadata=batch.schema.metadata)
    return _stream(schema, pa.record_batch(arrays, schema=schema))


def _lanes(words: Sequence[int | None]) -> pa.Array:
    kind = pa.list_(pa.field("lane", pa.uint64(), nullable=False), len(words))
    return pa.FixedSizeListArray.from_arrays(pa.array(words, type=pa.uint64()), type=kind)


def _lengths(parts: Sequence[bytes], words: Sequence[int]) -> Iterator[Case]:
    """Cut, extended and doubled streams, and components of another length."""
    first, second = parts[0], parts[1]
    yield _invalid("nothing at all", 0, b"")
    yield _invalid("cut inside the schema", 1, second[:100])
    yield _invalid("cut inside the explicit component", 1, second[: -len(second) // 4])
    yield _invalid("last byte missing", 0, first[:-1])
    yield _invalid("one byte more", 0, first + b"\0")
    yield _invalid("the stream twice", 0, first + first)
    limit = part_limit_bytes(len(VALUES), LIMITS)
    yield _invalid("end of stream, then longer than a part may be", 2, parts[2].ljust(limit + 1, b"\0"))
    yield _invalid("an explicit component that lacks its last word", 1, _columns(second, {1: _lanes(words[:-1])}))
    yield _invalid("an explicit component with one word more", 1, _columns(second, {1: _lanes([*words, 0])}))
    yield _invalid("a seed of 31 bytes", 0, _columns(first, {0: pa.array([bytes(31)], pa.binary(31))}))
    yield _invalid("a salt of 33 bytes", 0, _columns(first, {2: pa.array([bytes(33)], pa.binary(33))}))
    batch = _opened(first)
    twice = pa.record_batch([pa.concat_arrays([c, c]) for c in batch.columns], schema=batch.schema)
    yield _invalid("two rows", 0, _stream(batch.schema, twice))
    yield _invalid("two batches", 0, _stream(batch.schema, batch, batch))
    yield _invalid("no batch", 0, _stream(batch.schema))
    yield _invalid("a body compressed by LZ4", 1, _compressed(second, "lz4"))
    yield _invalid("a body compressed by Zstandard", 2, _compressed(parts[2], "zstd"))
    yield _invalid(
        "a batch of an older version", 0, _stream(batch.schema, batch, metadata_version=pa.ipc.MetadataVersion.V4)
    )
    yield _invalid("a NULL seed", 0, _stream(batch.schema, _with_null(batch)))
    yield _invalid("a NULL word", 1, _columns(second, {1: _lanes([None, *words[1:]])}))


def _compressed(data: bytes, codec: str) -> bytes:
    batch = _opened(data)
    return _stream(batch.schema, batch, compression=codec)


def _with_null(batch: pa.RecordBatch) -> pa.RecordBatch:
    seed = pa.array([None], type=batch.schema.field(0).type)
    return pa.record_batch([seed, *batch.columns[1:]], schema=batch.schema)


def _foreign(parts: Sequence[bytes], filing: FilingContext) -> Iterator[Case]:
    """Good parts in a wrong place."""
    yield _invalid("the part of position 1", 2, parts[1])
    yield _invalid("the part of position 0", 1, parts[0])
    for other in (
        replace(filing, take=2), replace(filing, edition=2), replace(filing, owner="de2"), replace(filing, period="2026-11"),
        replace(filing, plan_digest="33" * 32),
    ):  # fmt: skip
        (name,) = [key for key, value in _filing(other).items() if _filing(filing)[key] != value]
        yield _invalid(f"the part of another {name}", 0, parts[0], filing=_filing(other))
    yield _invalid("one lane more in the plan", 0, parts[0], lanes=len(VALUES) + 1)


def _shapes(parts: Sequence[PartPayload]) -> Iterator[Case]:
    """Tables that the plan does not allow. Position 0 holds two seeds, which stretch over any shape."""
    data = write_part(parts[0])
    for rows in ("128,63", "130,64", "1088,64", "128,0", "0128,64", "128,064", "+128,64", "128, 64", "128,64,", "128;64",
                 f"{2**70},64", "-128,64", "128", "128,64,64", ""):  # fmt: skip
        yield _invalid(f"rows {rows!r}", 0, _said(data, rows=rows))
    yield _invalid("no rows stated", 0, _said(data, rows=None))
    yield _invalid("another width stated", 0, _said(data, width="4"))
    yield _invalid("no width stated", 0, _said(data, width=None))
    yield _invalid("a member that nobody asked for", 0, _said(data, note="x"))
    yield _invalid("rows of a class above the plan's limit", 0, write_part(_shaped(parts[0], (2304, 64))))
    yield _invalid("a plan of smaller tables", 0, data, limits={**_limits(LIMITS), "max_rows": 64})
    yield _invalid("a plan of wider tables", 0, data, limits={**_limits(LIMITS), "width": WIDTH + 1})
    yield _invalid("a plan with one slice", 0, data, limits={**_limits(LIMITS), "tables": 1})
    yield _invalid("a plan without tables", 0, data, limits=None)


def _shaped(part: PartPayload, rows: tuple[int, ...]) -> PartPayload:
    return replace(part, units=UnitTables(WIDTH, rows))


def _uncommitted(parts: Sequence[PartPayload], filing: FilingContext, others: Sequence[str]) -> Iterator[Case]:
    """Parts that read well and are not what the owner signed; `others`: commitments of another sharing of the same figures."""
    first, second, third = parts
    yield _mismatch("another allowed number of rows", first, 0, _shaped(first, (192, 64)))
    yield _mismatch("numbers of rows swapped", first, 0, _shaped(first, (64, 128)))
    yield _mismatch("seeds swapped", first, 0, replace(first, first=first.second, second=first.first))
    yield _mismatch("salts swapped", first, 0, replace(first, salts=first.salts[::-1]))
    swapped = replace(first, first=first.second, second=first.first, salts=first.salts[::-1])
    yield _mismatch("components swapped with their salts", first, 0, swapped)
    batch = _opened(write_part(third))
    yield _invalid("columns swapped", 2, _columns(write_part(third), {0: batch.column(1), 1: batch.column(0)}))
    body = first.first.body()
    yield _mismatch(
        "a bit of the seed", first, 0, replace(first, first=Component(seed=body[:-1] + bytes([body[-1] ^ 1])))
    )
    salt = bytes([third.salts[1][0] ^ 128]) + third.salts[1][1:]
    yield _mismatch("a bit of the second salt", third, 0, replace(third, salts=(third.salts[0], salt)))
    for what, word in (("a bit of a value", 0), ("a bit of the last table", second.words - 1)):
        yield _mismatch(what, second, 2, replace(second, second=_bent(second.second, second.words, word)))
        yield _mismatch(
            f"{what}, at the other holder", third, 2, replace(third, first=_bent(third.first, third.words, word))
        )
    signed = {"commitments": list(others)}
    yield {**_mismatch("commitments of another take", second, 1, second), "expects": signed}
    yield {**_mismatch("no commitments", first, None, first), "expects": {"commitments": []}}


def _bent(component: Component, words: int, word: int) -> Component:
    vector = component.expand(words).copy()
    vector[word] ^= np.uint64(1)
    return Component(explicit=vector)


def _invalid(what: str, party: int, data: bytes, **expects: Any) -> Case:
    return {"what": what, "party": party, "part": data.hex(), "expects": expects, "code": "PART_INVALID"}


def _mismatch(what: str, good: PartPayload, component: int | None, part: PartPayload) -> Case:
    """A part that is read, and of which the first component that does not fit is named."""
    made = {**_invalid(what, good.party, write_part(part)), "code": "COMMITMENT_MISMATCH"}
    return made if component is None else {**made, "component": str(component)}


def units(filing: FilingContext, random_bytes: Callable[[int], bytes]) -> dict[str, Any]:
    """Return the published form: one filing of two slices, three good parts, and bad ones."""
    rows = [_rows(table) for table in range(len(UNITS))]
    values = encode_signed(VALUES, -(2**62), 2**62)
    planes = [unit_planes(_bits(one)) for one in rows]
    made, other = share(values, random_bytes, planes=planes), share(values, random_bytes, planes=planes)
    parts = parts_of(made, filing)
    written = [write_part(part) for part in parts]
    words = [int(word) for word in made.components[2].expand(parts[0].words)]
    bad = [
        *_lengths(written, words),
        *_foreign(written, filing),
        *_shapes(parts),
        *_uncommitted(parts, filing, sharing_commitments(other, replace(filing, take=2))),
    ]
    return {
        "values": [str(value) for value in VALUES],
        "tables": rows,
        "limits": _limits(LIMITS),
        "rows": list(made.units.rows),
        "filing": _filing(filing),
        "seeds": [part.body().hex() for part in made.components[:2]],
        "salts": [salt.hex() for salt in made.salts],
        "explicit": made.components[2].body().hex(),
        "commitments": list(sharing_commitments(made, filing)),
        "parts": [data.hex() for data in written],
        "read": [_read(part) for part in parts],
        "classes": [{"units": count, "rows": padded_rows(count)} for count in CLASSES],
        "bad": bad,
    }
