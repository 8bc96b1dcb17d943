"""Contexts, streams, key agreement and frames; unhappy paths first."""

from __future__ import annotations

import hashlib
import itertools

import msgspec
import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.randomness import (
    FrameAddress,
    FrameOpener,
    FrameSealer,
    Initiator,
    Responder,
    SessionContext,
    derive,
    encode_context,
    expand,
    frame_digest,
    session_digest,
)
from mpc_ops.randomness import frame_cipher as frames
from mpc_ops.randomness.agreement import End
from tests.support.core import hex32, identity

SEED = bytes(range(32))


def test_contexts_are_injective_where_joining_would_not_be():
    tuples = [
        (),
        ("",),
        ("a", "b"),
        ("ab",),
        ("a/b",),
        ("a", "", "b"),
        (b"a", "b"),
        ("1",),
        (1,),
        (-1,),
        (b"1",),
        (0, 1),
        (1, 0),
    ]
    encoded = [encode_context(*items) for items in tuples]
    assert len(set(encoded)) == len(tuples)
    for one, other in itertools.permutations(encoded, 2):
        assert not other.startswith(one), "no context is the beginning of another"


@pytest.mark.parametrize("bad", [None, 1.5, True, ["a"]])
def test_context_items_of_other_types_are_refused(bad):
    with pytest.raises(TypeError):
        encode_context("a", bad)


def test_context_items_are_bounded():
    with pytest.raises(ValueError, match="too long"):
        encode_context(bytes((1 << 20) + 1))


@pytest.mark.parametrize("key", [b"", bytes(31)])
def test_short_keys_are_refused(key):
    for call in (lambda: derive(key, "x"), lambda: expand(key, 1, "x"), lambda: FrameSealer(key)):
        with pytest.raises(LocalProtocolError) as caught:
            call()
        assert caught.value.code == "KEY_LENGTH"


def test_streams_are_bounded():
    with pytest.raises(LocalProtocolError) as caught:
        expand(SEED, (1 << 33) + 1)
    assert caught.value.code == "STREAM_TOO_LONG"


def test_derive_and_expand_depend_on_every_item():
    contexts = [(), ("a",), ("b",), ("a", 1), ("a", 2), (b"a",)]
    assert len({derive(SEED, *context) for context in contexts}) == len(contexts)
    assert len({expand(SEED, 4, *context).tobytes() for context in contexts}) == len(contexts)


@pytest.mark.parametrize("lanes", [0, 1, 2, 3, 131_071, 131_072, 131_073])
def test_a_longer_stream_begins_with_the_shorter_and_is_writable(lanes):
    whole = expand(SEED, 131_100, "x")
    stream = expand(SEED, lanes, "x")
    assert stream.dtype == np.uint64
    assert np.array_equal(stream, whole[:lanes])
    stream[:] = 0


# ------------------------------------------------------------------------------------------------------ key agreement

SID = hashlib.sha256(b"session").digest()


def ends():
    return End("de-1", identity("de-1").public), End("de-2", identity("de-2").public)


def exchange(sid=SID, other_sid=SID):
    low, high = ends()
    initiator = Initiator(sid, identity("de-1"), low, high)
    responder = Responder(other_sid, identity("de-2"), high, low, initiator.offer)
    return initiator, responder


def changed(message, name):
    value = getattr(message, name)
    return msgspec.structs.replace(message, **{name: value[:-1] + bytes([value[-1] ^ 1])})


def test_both_ends_get_the_same_fresh_keys():
    initiator, responder = exchange()
    keys, confirmation = initiator.finish(responder.reply)
    other = responder.finish(confirmation)
    assert (keys.prg, keys.coin, keys.commit, keys.mac) == (other.prg, other.coin, other.commit, other.mac)
    assert (keys.send, keys.receive) == (other.receive, other.send)
    assert len({keys.prg, keys.coin, keys.commit, keys.mac, keys.send, keys.receive}) == 6
    again, _ = exchange()[0], None
    assert again.offer.mlkem_public != initiator.offer.mlkem_public
    assert repr(keys) == "PairKeys(<redacted>)"


def test_message_sizes():
    initiator, responder = exchange()
    _, confirmation = initiator.finish(responder.reply)
    sizes = [sum(map(len, msgspec.structs.astuple(item))) for item in (initiator.offer, responder.reply, confirmation)]
    assert sizes == [4525, 4461, 3341]


@pytest.mark.parametrize("name", ["mlkem_public", "x25519_public", "signature"])
def test_altered_offer(name):
    low, high = ends()
    initiator = Initiator(SID, identity("de-1"), low, high)
    with pytest.raises(PeerProtocolError) as caught:
        Responder(SID, identity("de-2"), high, low, changed(initiator.offer, name))
    assert (caught.value.code, caught.value.ids) == ("KEX_INVALID", {"peer": "de-1"})


@pytest.mark.parametrize("name", ["mlkem_ciphertext", "x25519_public", "signature", "confirm"])
def test_altered_reply(name):
    initiator, responder = exchange()
    with pytest.raises(PeerProtocolError) as caught:
        initiator.finish(changed(responder.reply, name))
    assert (caught.value.code, caught.value.ids) == ("KEX_INVALID", {"peer": "de-2"})


@pytest.mark.parametrize("name", ["signature", "confirm"])
def test_altered_confirmation(name):
    initiator, responder = exchange()
    _, confirmation = initiator.finish(responder.reply)
    with pytest.raises(PeerProtocolError, match="KEX_INVALID"):
        responder.finish(changed(confirmation, name))


def test_sessions_do_not_mix_and_a_stranger_cannot_answer():
    with pytest.raises(PeerProtocolError, match="another session"):
        exchange(SID, hashlib.sha256(b"another manifest").digest())
    low, high = ends()
    initiator = Initiator(SID, identity("de-1"), low, high)
    stranger = Responder(SID, identity("de-3"), high, low, initiator.offer)
    with pytest.raises(PeerProtocolError, match="not the peer's"):
        initiator.finish(stranger.reply)


def test_an_offer_with_a_null_point_is_refused():
    low, high = ends()
    initiator = Initiator(SID, identity("de-1"), low, high)
    offer = msgspec.structs.replace(initiator.offer, x25519_public=bytes(32))
    with pytest.raises(PeerProtocolError, match="KEX_INVALID"):
        Responder(SID, identity("de-2"), high, low, offer)


def test_the_sid_binds_each_of_its_fields():
    base = {
        "federation_digest": hex32("f"), "cluster": "de", "plan_digest": hex32("p"), "period": "2026-10",
        "manifest_digest": hex32("m"), "attempt": 1, "operator_keys": (b"a", b"b", b"c"),
        "protocol": "v1", "security": "active", "limit_bytes": 1 << 24, "nonces": (bytes(32), b"\1" * 32, b"\2" * 32),
    }  # fmt: skip
    other = {
        "federation_digest": hex32("g"), "cluster": "cn", "plan_digest": hex32("q"), "period": "2026-11",
        "manifest_digest": hex32("n"), "attempt": 2, "operator_keys": (b"b", b"a", b"c"),
        "protocol": "v2", "security": "passive", "limit_bytes": 1 << 25, "nonces": (b"\3" * 32, b"\1" * 32, b"\2" * 32),
    }  # fmt: skip
    digests = {session_digest(SessionContext(**{**base, name: other[name]})) for name in base}
    digests.add(session_digest(SessionContext(**base)))
    assert len(digests) == len(base) + 1
    with pytest.raises(LocalProtocolError, match="NONCE_LENGTH"):
        session_digest(SessionContext(**{**base, "nonces": (b"", bytes(32), bytes(32))}))


# -------------------------------------------------------------------------------------------------------------- frames

ADDRESS = {
    "run_id": hex32("run"), "cluster": "de", "attempt": 1, "stage": "region", "step": "flush",
    "sender": "de-1", "receiver": "de-2", "round": 3, "place": 1, "lane": 0, "part": 0, "total_bytes": 5,
}  # fmt: skip


def test_frames_open_in_order_and_once():
    sealer, opener = FrameSealer(SEED), FrameOpener(SEED)
    address = FrameAddress(**ADDRESS)
    sealed = [sealer.seal(address, b"first"), sealer.seal(address, b"other")]
    assert [counter for counter, _ in sealed] == [0, 1]
    assert sealed[0][1] != sealed[1][1]
    with pytest.raises(PeerProtocolError) as caught:
        opener.open(address, *sealed[1])
    assert caught.value.code == "FRAME_OUT_OF_ORDER"
    assert opener.open(address, *sealed[0]) == b"first"
    with pytest.raises(PeerProtocolError, match="FRAME_OUT_OF_ORDER"):
        opener.open(address, *sealed[0])
    assert opener.open(address, *sealed[1]) == b"other"


@pytest.mark.parametrize("name", sorted(set(ADDRESS) - {"lane"}))
def test_a_frame_opens_only_at_its_own_address(name):
    value = ADDRESS[name]
    other = FrameAddress(**{**ADDRESS, name: value + 1 if isinstance(value, int) else value + "x"})
    sealer, opener = FrameSealer(SEED), FrameOpener(SEED)
    counter, ciphertext = sealer.seal(FrameAddress(**ADDRESS), b"first")
    with pytest.raises(PeerProtocolError) as caught:
        opener.open(other, counter, ciphertext)
    assert caught.value.code == "FRAME_INVALID"
    assert opener.open(FrameAddress(**ADDRESS), counter, ciphertext) == b"first"


@pytest.mark.parametrize("cut", [0, 5, 16, -1])
def test_altered_and_cut_frames(cut):
    counter, ciphertext = FrameSealer(SEED).seal(FrameAddress(**ADDRESS), b"first")
    bad = ciphertext[:cut] if cut else bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    with pytest.raises(PeerProtocolError, match="FRAME_INVALID"):
        FrameOpener(SEED).open(FrameAddress(**ADDRESS), counter, bad)


def test_lanes_have_their_own_counters_and_never_share_a_nonce():
    sealer = FrameSealer(SEED)
    sealed = [sealer.seal(FrameAddress(**{**ADDRESS, "lane": lane}), b"first") for lane in (0, 1, 0)]
    assert [counter for counter, _ in sealed] == [0, 0, 1]
    assert len({frame_digest(ciphertext) for _, ciphertext in sealed}) == 3


def test_a_frame_key_ends_before_its_limit(monkeypatch):
    monkeypatch.setattr(frames, "MAX_BLOCKS", 8)
    sealer = FrameSealer(SEED)
    sealer.seal(FrameAddress(**ADDRESS), bytes(64))
    with pytest.raises(LocalProtocolError) as caught:
        sealer.seal(FrameAddress(**ADDRESS), bytes(64))
    assert caught.value.code == "FRAME_KEY_EXHAUSTED"
