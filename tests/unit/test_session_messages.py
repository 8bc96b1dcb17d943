"""Session messages from peers: exact lengths, no unknown fields, bounded, never quoted in errors."""

from __future__ import annotations

import msgspec
import pytest

from mpc_ops.errors import PeerProtocolError
from mpc_ops.session import (
    MAX_MESSAGE_BYTES,
    Accept,
    Committed,
    Failed,
    Flushed,
    Frame,
    KexConfirm,
    KexOffer,
    KexReply,
    Prepare,
    Seen,
    decode_message,
    encode_message,
)
from mpc_ops.session.messages import FRAME_HEADER_BYTES, MAX_BODY_BYTES, MAX_FRAME_BYTES, decode_flushed
from tests.support.core import RUN, hex32

WHERE = {"run_id": RUN, "cluster": "de", "attempt": 1}
SIGNATURE = bytes(3309)
PLACE = {"lane": 0, "counter": 0, "stage": "region/0", "step": "and", "round": 1, "part": 0, "piece": 0, "total": 84}
FRAME = {**WHERE, "type": "frame", **PLACE, "ciphertext": bytes(100)}
GOOD = [
    Prepare(**WHERE, nonce=hex32("n"), ask=True),
    Accept(**WHERE, link_digest=hex32("d")),
    Failed(**WHERE, code="STAGE_MISMATCH", pair=("de-1", "de-2")),
    Committed(**WHERE),
    KexOffer(**WHERE, mlkem_public=bytes(1184), x25519_public=bytes(32), signature=SIGNATURE),
    KexReply(**WHERE, mlkem_ciphertext=bytes(1088), x25519_public=bytes(32), signature=SIGNATURE, confirm=bytes(32)),
    KexConfirm(**WHERE, signature=SIGNATURE, confirm=bytes(32)),
    Frame(**WHERE, **PLACE, ciphertext=bytes(100)),
    Seen(**WHERE, frames=7, lost=True),
]
BAD = {
    "attempt 0": {**WHERE, "type": "committed", "attempt": 0},
    "attempt too high": {**WHERE, "type": "committed", "attempt": 10_001},
    "attempt as text": {**WHERE, "type": "committed", "attempt": "1"},
    "attempt as true": {**WHERE, "type": "committed", "attempt": True},
    "run id too short": {**WHERE, "type": "committed", "run_id": RUN[:-1]},
    "run id in capitals": {**WHERE, "type": "committed", "run_id": RUN.upper()},
    "cluster with a slash": {**WHERE, "type": "committed", "cluster": "../de"},
    "unknown field": {**WHERE, "type": "committed", "more": 1},
    "unknown type": {**WHERE, "type": "commited"},
    "no type": WHERE,
    "flushed outside a frame": {
        **WHERE,
        "type": "flushed",
        "stage": "region",
        "link_mac": bytes(32),
        "held_mac": bytes(32),
    },
    "nonce too short": {**WHERE, "type": "prepare", "nonce": "ab"},
    "nonce missing": {**WHERE, "type": "prepare"},
    "run id and a newline": {**WHERE, "type": "committed", "run_id": RUN + "\n"},
    "cluster and a newline": {**WHERE, "type": "committed", "cluster": "de\n"},
    "code and a newline": {**WHERE, "type": "failed", "code": "X\n"},
    "digest with a newline": {**WHERE, "type": "accept", "link_digest": hex32("d")[:-1] + "\n"},
    "code in lower case": {**WHERE, "type": "failed", "code": "secret"},
    "three blamed": {**WHERE, "type": "failed", "code": "X", "pair": ["a", "b", "c"]},
    "short signature": {**WHERE, "type": "kex_confirm", "signature": SIGNATURE[1:], "confirm": bytes(32)},
    "long key": {
        **WHERE,
        "type": "kex_offer",
        "mlkem_public": bytes(1185),
        "x25519_public": bytes(32),
        "signature": SIGNATURE,
    },
    "empty frame": {**FRAME, "ciphertext": bytes(16)},
    "long frame": {**FRAME, "ciphertext": bytes(MAX_FRAME_BYTES + 1)},
    "negative lane": {**FRAME, "lane": -1},
    "lane too high": {**FRAME, "lane": 1 << 32},
    "counter too high": {**FRAME, "counter": 1 << 62},
    "no step": {name: value for name, value in FRAME.items() if name != "step"},
    "empty step": {**FRAME, "step": ""},
    "long step": {**FRAME, "step": "x" * 161},
    "negative round": {**FRAME, "round": -1},
    "piece too high": {**FRAME, "piece": 1 << 32},
    "empty body": {**FRAME, "total": 0},
    "long body": {**FRAME, "total": MAX_BODY_BYTES + 1},
    "frames seen below 0": {**WHERE, "type": "seen", "frames": -1},
    "a list": [1, 2],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_messages_are_refused_without_quoting_them(bad):
    with pytest.raises(PeerProtocolError) as caught:
        decode_message(msgspec.msgpack.encode(bad))
    assert caught.value.code == "MESSAGE_INVALID"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("message", GOOD, ids=lambda message: type(message).__name__)
def test_good_messages_come_back_and_no_prefix_of_them_does(message):
    data = encode_message(message)
    assert decode_message(data) == message
    for bad in (data[:-1], data[: len(data) // 2], data + b"\0", b""):
        with pytest.raises(PeerProtocolError, match="MESSAGE_INVALID"):
            decode_message(bad)


def test_length_is_checked_before_anything_is_parsed():
    with pytest.raises(PeerProtocolError) as caught:
        decode_message(bytes(MAX_MESSAGE_BYTES + 1))
    assert caught.value.got == f"{MAX_MESSAGE_BYTES + 1} bytes"
    with pytest.raises(PeerProtocolError, match="too long"):
        decode_flushed(bytes((1 << 10) + 1))


def test_the_longest_frame_fits_in_a_message():
    longest = Frame(
        run_id="f" * 64, cluster="c" * 63, attempt=10_000, lane=(1 << 32) - 1, counter=(1 << 62) - 1, stage="\u00e9" * 160,
        step="\u00e9" * 160, round=(1 << 32) - 1, part=(1 << 32) - 1, piece=(1 << 32) - 1, total=MAX_BODY_BYTES,
        ciphertext=bytes(MAX_FRAME_BYTES),
    )  # fmt: skip
    data = encode_message(longest)
    assert len(data) <= MAX_MESSAGE_BYTES
    assert len(data) - MAX_FRAME_BYTES <= FRAME_HEADER_BYTES
    assert decode_message(data) == longest


def test_deep_nesting_is_refused():
    with pytest.raises(PeerProtocolError, match="MESSAGE_INVALID"):
        decode_message(b"\x91" * 5000 + b"\x00")


def test_a_frame_body_is_flushed_and_nothing_else():
    flushed = Flushed(**WHERE, stage="group", link_mac=bytes(32), held_mac=b"\1" * 32)
    assert decode_flushed(encode_message(flushed)) == flushed
    with pytest.raises(PeerProtocolError, match="MESSAGE_INVALID"):
        decode_flushed(encode_message(GOOD[0]))
