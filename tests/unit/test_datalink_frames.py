"""One data link over real TLS sockets: what is altered, cut, moved or repeated does not arrive; bytes are exact."""

import hashlib
import socket
import struct
import threading
import time

import numpy as np
import pytest

from mpc_ops.errors import ComityError, LocalProtocolError, PeerProtocolError, PeerUnavailable
from mpc_ops.randomness.frame_cipher import FrameAddress, FrameSealer
from mpc_ops.transport.datalink import (
    FRAME_BYTES,
    MAX_BODY_BYTES,
    DataTimings,
    Label,
    message_bytes,
)
from mpc_ops.transport.profile import LinkProfile
from tests.support.datalink import OneLink, both_keys

PLACE = Label("s" * 64, "stage/0", "3/0/and")
HEAD = struct.Struct(">2sBBBBQ")


def head(label: Label, total: int, *, magic=b"CD", kind=1) -> bytes:
    texts = label.encoded()
    return HEAD.pack(magic, kind, *map(len, texts), total) + b"".join(texts)


def sealed(body: bytes, label: Label = PLACE, *, sealer=None, **changes) -> list[bytes]:
    """What the peer `b` would send to `a`; `changes` bend the address."""
    sealer = sealer or FrameSealer(both_keys()[1].send)
    fields = {
        "run_id": label.session, "cluster": "de", "attempt": 1, "stage": label.stage, "step": label.step,
        "sender": "b", "receiver": "a", "total_bytes": len(body), **changes,
    }  # fmt: skip
    out = []
    for part, start in enumerate(range(0, len(body), FRAME_BYTES)):
        address = FrameAddress(**{**fields, "part": changes.get("part", part)})
        out.append(sealer.seal(address, body[start : start + FRAME_BYTES])[1])
    return out


def refused(link: OneLink, *data: bytes) -> ComityError:
    """Send bytes as the peer and return what `a` makes of them."""
    for piece in data:
        link.raw_out.sendall(piece)
    peer, error = link.inbox.get(timeout=10)
    assert peer == "b"
    assert link.a.error is error
    return error


@pytest.mark.parametrize(
    "data",
    [
        head(PLACE, 5, magic=b"CX"),
        head(PLACE, 5, kind=3),
        head(PLACE, 0),
        head(PLACE, MAX_BODY_BYTES + 1),
        HEAD.pack(b"CD", 1, 64, 0, 3, 5) + b"x" * 67,
        HEAD.pack(b"CD", 2, 1, 0, 0, 0) + b"x",
        HEAD.pack(b"CD", 1, 2, 1, 1, 5) + b"\xff\xfexx",
    ],
)
def test_heads_are_checked_before_anything_is_held(tmp_path, data):
    with OneLink(tmp_path, raw=True) as link:
        error = refused(link, data)
        assert (type(error), error.code, error.ids["party"]) == (PeerProtocolError, "MESSAGE_INVALID", "b")


@pytest.mark.parametrize(
    "change",
    [{"run_id": "t" * 64}, {"cluster": "fr"}, {"attempt": 2}, {"stage": "stage/1"}, {"step": "3/0/xor"},
     {"sender": "a"}, {"receiver": "b"}, {"part": 1}, {"total_bytes": 6}, {"lane": 1}],
)  # fmt: skip
def test_a_frame_opens_at_its_own_address_only(tmp_path, change):
    with OneLink(tmp_path, raw=True) as link:
        error = refused(link, head(PLACE, 5), *sealed(b"hello", **change))
        assert (type(error), error.code) == (PeerProtocolError, "FRAME_INVALID")


def test_frames_do_not_open_twice_or_in_another_order(tmp_path):
    sealer = FrameSealer(both_keys()[1].send)
    first, second = sealed(bytes(FRAME_BYTES + 1), sealer=sealer)
    with OneLink(tmp_path, raw=True) as link:
        assert refused(link, head(PLACE, FRAME_BYTES + 1), second, first).code == "FRAME_INVALID"
    (once,) = sealed(b"hello")
    with OneLink(tmp_path, raw=True) as link:
        link.raw_out.sendall(head(PLACE, 5) + once)
        assert link.inbox.get(timeout=10).body == b"hello"
        assert refused(link, head(PLACE, 5), once).code == "FRAME_INVALID"


def test_an_altered_frame_does_not_open(tmp_path):
    (frame,) = sealed(b"hello")
    with OneLink(tmp_path, raw=True) as link:
        assert refused(link, head(PLACE, 5), frame[:-1] + bytes([frame[-1] ^ 1])).code == "FRAME_INVALID"


def test_a_connection_that_ends_within_a_message_is_said_so(tmp_path):
    (frame,) = sealed(b"hello")
    with OneLink(tmp_path, raw=True) as link:
        link.raw_out.sendall(head(PLACE, 5) + frame[:7])
        socket.socket.shutdown(link.raw_out, socket.SHUT_RDWR)
        error = link.inbox.get(timeout=10)[1]
        assert (type(error), error.code) == (PeerUnavailable, "LINK_CLOSED")
        with pytest.raises(PeerUnavailable) as caught:
            link.a.send(PLACE, b"more")
        assert caught.value is error


@pytest.mark.parametrize("size", [1, 16 << 10, (16 << 10) + 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES + 5])
def test_bodies_arrive_whole_and_counters_agree(tmp_path, size):
    body = np.random.default_rng(size).bytes(size)
    with OneLink(tmp_path) as link:
        for data in (body, memoryview(body)):
            link.a.send(PLACE, data)
            arrived = link.other_inbox.get(timeout=10)
            assert (arrived.peer, arrived.label, bytes(arrived.body)) == ("a", PLACE, body)
            assert isinstance(arrived.body, bytes) == (size <= 64 << 10)
            assert str(body) not in repr(arrived)
            link.b.taken(size)
        sent, received = link.a.sent, link.b.received
        assert sent.bytes == received.bytes == 2 * message_bytes(PLACE, size)
        assert message_bytes(PLACE, size) == 14 + 64 + 7 + 7 + size + 16 * -(-size // FRAME_BYTES)
        assert (sent.messages, sent.frames) == (received.messages, received.frames) == (2, 2 * -(-size // FRAME_BYTES))
        assert sent.sha256 == received.sha256
        assert link.b.sent.bytes == link.a.received.bytes == 0


def test_the_digest_is_that_of_heads_and_ciphertexts(tmp_path):
    with OneLink(tmp_path, raw=True) as link:
        data = head(PLACE, 5) + sealed(b"hello")[0]
        link.raw_out.sendall(data)
        link.inbox.get(timeout=10)
        assert link.a.received.sha256 == hashlib.sha256(data).hexdigest()


def test_order_is_kept_between_small_and_large_messages(tmp_path):
    with OneLink(tmp_path) as link:
        sizes = [5, 3 * FRAME_BYTES, 7, 100, FRAME_BYTES, 1, 1]
        for size in sizes:
            link.a.send(PLACE, bytes(size))
        assert [len(link.other_inbox.get(timeout=10).body) for _ in sizes] == sizes


def test_messages_that_cannot_be_sent_are_refused_here(tmp_path):
    with OneLink(tmp_path) as link:
        for body in (b"", memoryview(b"")):
            with pytest.raises(LocalProtocolError) as caught:
                link.a.send(PLACE, body)
            assert caught.value.code == "BODY_INVALID"
        for label in (Label("", "x", "y"), Label("s", "x" * 256, "y"), Label("s", "x", "")):
            with pytest.raises(LocalProtocolError) as caught:
                link.a.send(label, b"x")
            assert caught.value.code == "LABEL_INVALID"


def test_a_receiver_holds_no_more_than_its_limit(tmp_path):
    size = 1 << 20
    with OneLink(tmp_path, limit_bytes=4 * size) as link:
        done = threading.Event()

        def send():
            for _ in range(20):
                link.a.send(PLACE, bytes(size))
            done.set()

        threading.Thread(target=send, daemon=True).start()
        # What is on its way: four messages held at b, four queued at a, and one head with what the sockets take.
        for _ in range(200):
            if link.other_inbox.qsize() == 4:
                break
            time.sleep(0.05)
        assert not done.wait(0.3)
        assert link.other_inbox.qsize() == 4
        for _ in range(20):
            link.b.taken(len(link.other_inbox.get(timeout=10).body))
        assert done.wait(10)


def test_a_message_beyond_the_limit_passes_alone(tmp_path):
    with OneLink(tmp_path, limit_bytes=1000) as link:
        for _ in range(2):
            link.a.send(PLACE, bytes(5000))
            link.b.taken(len(link.other_inbox.get(timeout=10).body))


def test_a_peer_that_takes_nothing_breaks_the_link(tmp_path):
    with OneLink(tmp_path, raw=True, timings=DataTimings(send_s=0.3, close_s=0.3)) as link:

        def send_on():
            for _ in range(50):
                link.a.send(PLACE, bytes(1 << 23))

        with pytest.raises(PeerUnavailable) as caught:
            send_on()
        assert caught.value.code == "LINK_TIMEOUT"


def test_close_sends_what_is_queued_then_says_bye(tmp_path):
    with OneLink(tmp_path) as link:
        link.a.send(PLACE, bytes(3 << 20))
        link.a.close()
        assert len(link.other_inbox.get(timeout=10).body) == 3 << 20
        peer, error = link.other_inbox.get(timeout=10)
        assert (peer, type(error), error.code) == ("a", PeerUnavailable, "PEER_CLOSED")
        with pytest.raises(PeerUnavailable):
            link.a.send(PLACE, b"x")
        link.a.close()


def test_a_profile_delays_each_message_by_its_own_time(tmp_path):
    clock = [0.0]
    with OneLink(tmp_path, profile=LinkProfile(0.2, 1e6), clock=time.monotonic) as link:
        began = time.monotonic()
        link.a.send(PLACE, bytes(100_000))
        link.a.send(PLACE, bytes(50_000))
        for _ in range(2):
            link.other_inbox.get(timeout=10)
            clock.append(time.monotonic() - began)
        # 0.1 s on the way, 0.1 s and 0.15 s on the line: never earlier (how much later is the machine's business).
        assert clock[1] >= 0.2
        assert clock[2] >= 0.25
