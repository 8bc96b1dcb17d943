"""Record batches of parts: only a body that lies in the stream as it is gets to Arrow."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from mpc_ops.errors import PeerProtocolError
from mpc_ops.sharing import parts_of, read_part, share, write_part
from mpc_ops.sharing.ipc_body import is_plain_batch
from tests.support.core import filing

LANES = 4096
PART = parts_of(share(np.zeros(LANES, np.uint64)), filing())[1]


def stream(lanes=LANES, **options):
    """A part of position 1 with so many lanes of zeros, written with other options."""
    with pa.ipc.open_stream(pa.BufferReader(write_part(PART))) as reader:
        batch = reader.read_next_batch()
    kind = pa.list_(pa.field("lane", pa.uint64(), nullable=False), lanes)
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(lanes, np.uint64)), type=kind)
    schema = batch.schema.set(1, pa.field("second", kind, nullable=False))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(pa.record_batch([batch.column(0), zeros, *batch.columns[2:]], schema=schema))
    return sink.getvalue().to_pybytes()


def messages(data):
    return list(pa.ipc.MessageReader.open_stream(pa.BufferReader(data)))


def refused(data):
    with pytest.raises(PeerProtocolError) as caught:
        read_part(data, filing(), 1, LANES)
    assert caught.value.code == "PART_INVALID"
    return caught.value.what


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("version", [pa.ipc.MetadataVersion.V5, pa.ipc.MetadataVersion.V4])
def test_what_a_message_says_of_its_body(codec, version):
    if codec and version == pa.ipc.MetadataVersion.V4:
        return  # no writer of today makes one
    schema, batch = messages(stream(compression=codec, metadata_version=version))
    plain = codec is None and version == pa.ipc.MetadataVersion.V5
    assert is_plain_batch(batch.metadata.to_pybytes()) is plain
    assert not is_plain_batch(schema.metadata.to_pybytes())
    if plain:
        read_part(stream(), filing(), 1, LANES)
    else:
        assert "compressed or of another version" in refused(stream(compression=codec, metadata_version=version))


def test_a_small_part_cannot_become_large_in_memory():
    """The schema is that of the good part; the batch behind it, compressed, states 1,000 times as many words."""
    large = stream(1000 * LANES, compression="zstd")

    def cut(data):
        return 8 + int.from_bytes(data[4:8], "little")

    good = stream(compression="zstd")
    bomb = good[: cut(good)] + large[cut(large) :]
    assert len(bomb) < 20_000
    before = pa.total_allocated_bytes(), pa.default_memory_pool().max_memory()
    assert "compressed" in refused(bomb)
    assert pa.total_allocated_bytes() == before[0]
    assert (pa.default_memory_pool().max_memory() or 0) - (before[1] or 0) < 1 << 20


def test_more_words_than_the_list_holds_are_refused():
    large = stream(2 * LANES)
    good = stream()
    # The batch of the larger part behind the schema of the smaller one.
    at = [8 + int.from_bytes(data[4:8], "little") for data in (good, large)]
    refused(good[: at[0]] + large[at[1] :])


def verdict(data):
    try:
        return is_plain_batch(data)
    except ValueError as error:
        return str(error)


def test_bytes_that_are_no_message_are_refused_and_nothing_else_comes_out():
    rng = random.Random(1)
    good = messages(stream())[1].metadata.to_pybytes()
    strange = [b"", b"\0" * 4, good[:7], b"\xff" * 64, *(rng.randbytes(rng.randrange(200)) for _ in range(500))]
    assert {verdict(data) for data in strange} <= {False, "an offset leaves the message"}
    bent = [good[:at] + bytes([value]) + good[at + 1 :] for at in range(len(good)) for value in (0, 1, 0x7F, 0xFF)]
    assert {verdict(data) for data in bent} == {True, False, "an offset leaves the message"}
