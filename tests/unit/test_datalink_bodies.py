"""Bodies without copies, tags of what arrived, and the allocator's setting."""

import subprocess
import sys

import numpy as np
import pytest

from mpc_ops.errors import PeerProtocolError
from mpc_ops.protocol.core.party import Address, Message, Party, Round
from mpc_ops.randomness.frame_cipher import FrameAddress, FrameOpener, FrameSealer
from mpc_ops.randomness.local_tag import LocalTags
from mpc_ops.ring import as_body, from_body, to_bytes
from tests.support.active import MEMBERS

LONG = 10_000
"""Words: beyond the 64 KiB up to which bodies are bytes."""


def vector(words: int) -> np.ndarray:
    return np.random.default_rng(words).integers(0, 1 << 64, words, dtype=np.uint64)


@pytest.mark.parametrize("words", [0, 1, 8192, 8193, LONG])
def test_a_body_has_the_bytes_of_its_vector(words):
    values = vector(words)
    body = as_body(values)
    assert bytes(body) == to_bytes(values)
    assert isinstance(body, bytes) == (words <= 8192)
    for data in (body, bytes(body), bytearray(body), memoryview(bytes(body))):
        assert np.array_equal(from_body(data, words), values)


def test_long_bodies_share_memory_and_cannot_be_written():
    values = vector(LONG)
    body = as_body(values)
    with pytest.raises(TypeError):
        body[0] = 1
    received = np.frombuffer(bytearray(body), dtype=np.uint8).copy().data
    read = from_body(received, LONG)
    assert np.shares_memory(read, np.asarray(received))
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 1


def test_a_view_at_an_odd_address_is_copied():
    raw = np.zeros(8 * LONG + 1, dtype=np.uint8)
    raw[1:] = np.frombuffer(to_bytes(vector(LONG)), dtype=np.uint8)
    read = from_body(raw[1:].data, LONG)
    assert np.array_equal(read, vector(LONG))
    assert read.flags.aligned


@pytest.mark.parametrize("length", [0, 8 * LONG - 1, 8 * LONG + 8])
def test_other_lengths_are_refused(length):
    for data in (bytes(length), memoryview(bytes(length))):
        with pytest.raises(PeerProtocolError) as caught:
            from_body(data, LONG)
        assert caught.value.code == "LENGTH_INVALID"


def test_tags_tell_bodies_apart_and_are_of_one_object():
    tags, others = LocalTags(), LocalTags()
    body = bytes(vector(LONG))
    bent = bytearray(body)
    bent[-1] ^= 1
    assert tags.tag(body) == tags.tag(memoryview(body))
    assert len({tags.tag(body), tags.tag(bytes(bent)), tags.tag(body[:-1]), tags.tag(body + b"\0"), tags.tag(b"")}) == 5
    assert tags.tag(body) != others.tag(body)
    assert repr(tags) == "LocalTags(<redacted>)"


def test_a_party_takes_a_repeated_view_once_and_refuses_another():
    body = vector(LONG)

    def program():
        (inbound,) = yield (Round("s", "one", expect_next=8 * LONG),)
        yield (Round("s", "two", expect_next=1),)
        return inbound

    party = Party(0, "sid", MEMBERS, program())
    party.start()
    address = Address("sid", "s", 1, 0, "one", 1, 0)
    party.receive(Message(address, as_body(body)))
    assert party.rounds == 2
    assert party.receive(Message(address, to_bytes(body))) == []
    with pytest.raises(PeerProtocolError) as caught:
        party.receive(Message(address, as_body(body + np.uint64(1))))
    assert caught.value.code == "MESSAGE_CHANGED"


def test_frames_sealed_into_a_buffer_are_those_of_seal():
    key = bytes(range(32))
    address = FrameAddress(
        run_id="r", cluster="de", attempt=1, stage="s", step="t", sender="a", receiver="b", total_bytes=5
    )
    one, other, opener = FrameSealer(key), FrameSealer(key), FrameOpener(key)
    for counter in range(3):
        out, back = memoryview(bytearray(21)), memoryview(bytearray(5))
        assert one.seal_into(address, b"hello", out) == counter
        assert other.seal(address, b"hello") == (counter, bytes(out))
        opener.open_into(address, out, back)
        assert bytes(back) == b"hello"
    with pytest.raises(PeerProtocolError) as caught:
        opener.open_into(address, out, back)  # the last one again
    assert caught.value.code == "FRAME_INVALID"


def test_the_allocator_keeps_what_a_process_frees():
    # A process of its own: the setting stays until it ends.
    code = (
        "import ctypes, resource, numpy as np\n"
        "from mpc_ops.engine.memory import keep_memory\n"
        "kept = keep_memory()\n"
        "assert kept == hasattr(ctypes.CDLL(None), 'gnu_get_libc_version')\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def once():\n"
        "    before = faults(); np.ones(2_000_000).sum(); return faults() - before\n"
        "first = once(); again = once()\n"
        "assert not kept or again < first / 10, (first, again)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
