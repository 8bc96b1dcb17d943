"""A restored old disk is refused at the handshake: a peer has seen more of us than we know."""

from __future__ import annotations

import msgspec
import pytest

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.session import OwnPast, SeenOfPeer, SessionMark, check_not_rolled_back, decode_seen, encode_seen
from tests.support.core import RUN, hex32

HEADS = [hex32("head", line) for line in range(5)]
MARK = SessionMark(run_id=RUN, cluster="de", prepared=3, accepted=2)


def own(boot=4, lines=5, mark=MARK):
    return OwnPast(
        boot=boot,
        ledger_head_at=lambda line: HEADS[line - 1] if line <= lines else None,
        session=lambda run_id, cluster: mark if (run_id, cluster) == (RUN, "de") else None,
    )


GOOD = SeenOfPeer(boot=4, ledger_length=5, ledger_head=HEADS[4], sessions=(MARK,))


def test_what_the_peer_has_seen_is_known_here():
    check_not_rolled_back(own(), GOOD, "de-2")
    check_not_rolled_back(own(), SeenOfPeer(), "de-2")
    check_not_rolled_back(own(boot=9), SeenOfPeer(boot=4, ledger_length=2, ledger_head=HEADS[1]), "de-2")
    earlier = SessionMark(run_id=RUN, cluster="de", prepared=1)
    check_not_rolled_back(own(), SeenOfPeer(sessions=(earlier,)), "de-2")


@pytest.mark.parametrize(
    ("past", "seen", "what"),
    [
        (own(boot=3), GOOD, "boot counter"),
        (own(lines=4), GOOD, "ledger head"),
        (own(), SeenOfPeer(ledger_length=5, ledger_head=hex32("forked")), "ledger head"),
        (own(mark=SessionMark(run_id=RUN, cluster="de", prepared=2, accepted=2)), GOOD, "session"),
        (own(mark=SessionMark(run_id=RUN, cluster="de", prepared=3, accepted=1)), GOOD, "session"),
        (own(mark=None), GOOD, "session"),
        (own(), SeenOfPeer(sessions=(SessionMark(run_id=hex32("other"), cluster="de", prepared=1),)), "session"),
        (
            own(),
            SeenOfPeer(sessions=(SessionMark(run_id=RUN, cluster="de", prepared=3, accepted=2, committed=True),)),
            "session",
        ),
    ],
    ids=[
        "boot",
        "shorter ledger",
        "forked ledger",
        "prepared",
        "accepted",
        "session lost",
        "unknown session",
        "committed",
    ],
)
def test_a_restored_disk_is_refused_and_says_what_is_missing(past, seen, what):
    with pytest.raises(LocalProtocolError) as caught:
        check_not_rolled_back(past, seen, "de-2")
    assert caught.value.code == "STATE_ROLLED_BACK"
    assert what in caught.value.what
    assert caught.value.ids == {"peer": "de-2"}
    assert not caught.value.transient


def test_the_record_is_strict_and_bounded():
    assert decode_seen(encode_seen(GOOD)) == GOOD
    many = SeenOfPeer(sessions=tuple(SessionMark(run_id=RUN, cluster="de") for _ in range(1001)))
    for bad in (
        b"",
        encode_seen(GOOD)[:-1],
        encode_seen(many),
        bytes((128 << 10) + 1),
        msgspec.msgpack.encode({"boot": -1}),
        msgspec.msgpack.encode({"boot": 1, "more": 2}),
        msgspec.msgpack.encode({"ledger_head": "x"}),
    ):
        with pytest.raises(PeerProtocolError) as caught:
            decode_seen(bad)
        assert caught.value.code == "MESSAGE_INVALID"


def test_a_full_record_fits_the_link_hello():
    full = SeenOfPeer(
        boot=2**52, ledger_length=2**52, ledger_head=HEADS[0],
        sessions=tuple(SessionMark(run_id=RUN, cluster="x" * 20, prepared=10_000, accepted=10_000) for _ in range(700)),
    )  # fmt: skip
    # The hello's state field holds 176 KiB of base64.
    assert len(encode_seen(full)) * 4 / 3 < 176 << 10
    assert decode_seen(encode_seen(full)) == full
