"""Framing refuses before it reads."""

import struct

import pytest

from mpc_ops.errors import PeerProtocolError
from mpc_ops.transport import wire


@pytest.mark.parametrize("kind", sorted(wire.LIMITS))
def test_a_message_beyond_its_limit_is_refused_from_its_header(kind):
    limit = wire.LIMITS[kind]
    assert wire.check_header(struct.pack(">IB", limit, kind), "cn-1") == (kind, limit)
    with pytest.raises(PeerProtocolError) as caught:
        wire.check_header(struct.pack(">IB", limit + 1, kind), "cn-1")
    assert caught.value.code == "MESSAGE_TOO_LARGE"
    assert f"expected at most {limit} bytes; got {limit + 1} bytes [party=cn-1]" in str(caught.value)
    with pytest.raises(ValueError, match="bytes, at most"):
        wire.header(kind, limit + 1)


@pytest.mark.parametrize("kind", [0, 7, 15, 20, 255])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(PeerProtocolError) as caught:
        wire.check_header(struct.pack(">IB", 0, kind), "cn-1")
    assert caught.value.code == "MESSAGE_KIND_UNKNOWN"
    with pytest.raises(ValueError, match="unknown message kind"):
        wire.header(kind, 0)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"boot":1,"clock_ms":1,"party":"a","state":"","wire":[]}',
        b'{"boot":1,"clock_ms":1,"party":"a","state":"","wire":[1,2,3]}',
        b'{"boot":-1,"clock_ms":1,"party":"a","state":"","wire":[1]}',
        b'{"boot":1,"clock_ms":1.5,"party":"a","state":"","wire":[1]}',
        b'{"boot":1,"clock_ms":1,"extra":0,"party":"a","state":"","wire":[1]}',
        b'{"boot":1, "clock_ms":1,"party":"a","state":"","wire":[1]}',
        b'{"boot":1,"clock_ms":1,"party":"","state":"","wire":[1]}',
    ],
)
def test_a_hello_of_another_form_is_refused(payload):
    with pytest.raises(PeerProtocolError) as caught:
        wire.decode_control(payload, wire.Hello, "cn-1")
    assert caught.value.code == "MESSAGE_INVALID"
    assert caught.value.ids == {"party": "cn-1"}


def test_a_refusal_carries_a_code_and_nothing_else_passes_for_one():
    good = wire.Refusal(code="CLOCK_SKEW", what="clocks differ")
    assert wire.decode_control(wire.encode_control(good), wire.Refusal, "x") == good
    for bad in (b'{"code":"lower","what":""}', b'{"code":"A\\nB","what":""}', b'{"code":"OK_CODE"}'):
        with pytest.raises(PeerProtocolError):
            wire.decode_control(bad, wire.Refusal, "x")


def test_versions_the_newest_common_one_wins(monkeypatch):
    assert wire.choose_version([2, 1], "cn-1") == 1
    monkeypatch.setattr(wire, "WIRE_VERSIONS", (4, 3))
    assert wire.choose_version([5, 4], "cn-1") == 4
    assert wire.choose_version([3, 2], "cn-1") == 3
    with pytest.raises(PeerProtocolError) as caught:
        wire.choose_version([6, 5], "cn-1")
    assert caught.value.code == "WIRE_VERSION"
    assert "expected 4, 3; got 6, 5 [party=cn-1]" in str(caught.value)


def test_no_kind_may_hold_more_than_64_mib():
    assert max(wire.LIMITS.values()) == 64 << 20
    assert set(wire.LIMITS) == set(wire.Kind)
