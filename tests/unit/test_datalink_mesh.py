"""Three operators over real links: keys are agreed with the right ones only, protocols run, failures are heard of."""

import dataclasses
import hashlib
import socket
import threading

import numpy as np
import pytest

from mpc_ops.engine.runner import address_of, drive, label_of
from mpc_ops.errors import Abort, ComityError, PeerProtocolError, PeerTimeout, PeerUnavailable
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.flow import ActiveFlow, PassiveFlow
from mpc_ops.protocol.core.party import Address, Party
from mpc_ops.protocol.core.session import ActiveSession, PassiveSession
from mpc_ops.protocol.core.shares import ring_of
from mpc_ops.protocol.core.terms import SessionTerms
from mpc_ops.transport.datalink import Arrived, DataTimings, Label, message_bytes
from mpc_ops.transport.tls import client_context
from tests.support.core import identity
from tests.support.datalink import MEMBERS, SID, Trio
from tests.support.transport import Party as TlsParty

COUNT = 30_000


@pytest.fixture
def trio(tmp_path):
    trio = Trio(tmp_path)
    yield trio
    trio.close()


def shares_for(position: int) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    parts = [rng.integers(0, 1 << 64, COUNT, dtype=np.uint64) for _ in range(3)]
    return [parts[position], parts[(position + 1) % 3], parts[0] + parts[1] + parts[2]]


def program(flow):
    first, second, _ = shares_for(flow.stage.party)
    share = ring_of(flow.stage, first, second)
    product = yield from multiply(flow.stage, share, share)
    (values,) = yield from flow.open([product])
    return values


def party_of(position: int, keys, security: str, work=program) -> Party:
    terms = SessionTerms(sid=SID.hex(), cluster="de", attempt=1, party=position, members=MEMBERS)
    if security == "active":
        steps = ActiveSession(terms, keys).run(lambda session: work(ActiveFlow(session, "x")))
    else:
        steps = work(PassiveFlow(PassiveSession(terms, keys), "x"))
    return Party(position, terms.sid, MEMBERS, steps)


@pytest.mark.parametrize("security", ["active", "passive"])
def test_a_protocol_runs_over_the_links(trio, security):
    def work(position, mesh, keys):
        party = party_of(position, keys, security)
        result = drive(party, MEMBERS, mesh, timeout_s=60)
        return result, party.sent_bytes, {peer: (link.sent, link.received) for peer, link in mesh.links.items()}

    out = trio.run(work)
    expected = shares_for(0)[2] ** 2
    for result, sent, counters in out:
        assert np.array_equal(result, expected)
        line = sum(there.bytes for there, _ in counters.values())
        assert line > sent
        if security == "passive":
            assert sent == 2 * 8 * COUNT
            label = [
                Label(SID.hex(), f"x/{stage}", step) for stage, step in ((0, "1/0/ring-products"), (0, "2/0/open"))
            ]
            assert line == sum(message_bytes(place, 8 * COUNT) for place in label)
    for one, name in enumerate(MEMBERS):
        for other, peer in enumerate(MEMBERS):
            if one != other:
                there, back = out[one][2][peer][0], out[other][2][name][1]
                assert (there.bytes, there.messages, there.sha256) == (back.bytes, back.messages, back.sha256)


def test_all_pairs_hold_the_same_keys_and_no_two_pairs_do(trio):
    out = trio.run(lambda position, mesh, keys: keys)
    for position in range(3):
        first, second = out[position].second, out[(position + 1) % 3].first
        assert (first.prg, first.send, first.receive) == (second.prg, second.receive, second.send)
    assert len({keys.second.prg for keys in out}) == 3


def test_an_error_at_one_party_ends_the_others(trio):
    def fails(flow):
        first, second, _ = shares_for(flow.stage.party)
        share = ring_of(flow.stage, first, second)
        product = yield from multiply(flow.stage, share, share)
        if flow.stage.party == 1:
            raise Abort("PROOF_REJECTED", "as if")
        (values,) = yield from flow.open([product])
        return values

    out = trio.run(
        lambda position, mesh, keys: drive(party_of(position, keys, "active", fails), MEMBERS, mesh, timeout_s=60)
    )
    assert [type(error) for error in out] == [PeerUnavailable, Abort, PeerUnavailable]
    assert {error.code for error in (out[0], out[2])} == {"PEER_CLOSED"}


def test_silence_ends_a_run(trio):
    release = threading.Event()

    def work(position, mesh, keys):
        if position == 2:
            release.wait(20)
            return None
        try:
            return drive(party_of(position, keys, "passive"), MEMBERS, mesh, timeout_s=0.5)
        finally:
            release.set()

    out = trio.run(work)
    # The first to give up closes its links, so the other may hear of that before its own time is over.
    assert {error.code for error in out[:2]} <= {"LINK_TIMEOUT", "PEER_CLOSED"}
    assert any(isinstance(error, PeerTimeout) for error in out[:2])


def test_a_peer_that_never_comes_is_a_timeout(trio):
    for position in (0, 2):
        with pytest.raises((PeerTimeout, PeerUnavailable)) as caught:
            trio.open(position, timings=DataTimings(connect_s=0.5))
        assert caught.value.code == "LINK_TIMEOUT"


def test_another_session_is_refused(trio):
    out = []

    def one(position, sid):
        try:
            trio.open(position, sid, timings=DataTimings(connect_s=2))
        except ComityError as error:
            out.append(error)

    other = hashlib.sha256(b"another").digest()
    threads = [threading.Thread(target=one, args=pair) for pair in ((0, SID), (1, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(out) == 2
    assert {error.code for error in out} <= {"LINK_TIMEOUT", "LINK_CLOSED", "LINK_FAILED", "TLS_REQUIRED"}


def test_another_identity_key_agrees_on_nothing(trio):
    real = trio.terms

    def forged(position, sid=SID):
        keys = (identity("x").public, *real(position).identity_keys[1:])
        return dataclasses.replace(real(position, sid), identity_keys=keys) if position == 1 else real(position, sid)

    trio.terms = forged
    out = trio.run(lambda position, mesh, keys: None, timings=DataTimings(connect_s=15))
    assert (type(out[1]), out[1].code, out[1].ids["peer"]) == (PeerProtocolError, "KEX_INVALID", "de-1")


def test_strangers_do_not_keep_the_peers_out(trio, tmp_path):
    stranger = TlsParty.make(tmp_path, "fr-1")
    insider = trio.parties[0]
    address = ("127.0.0.1", trio.listeners[2].port)
    calls = [
        lambda: socket.create_connection(address).close(),
        lambda: socket.create_connection(address).sendall(b"GET / HTTP/1.1\r\n\r\n" * 10),
        lambda: client_context(stranger.certificate, stranger.key, [trio.parties[2].ca.certificate]).wrap_socket(
            socket.create_connection(address)
        ),
        lambda: (
            client_context(insider.certificate, insider.key, [trio.parties[2].ca.certificate])
            .wrap_socket(socket.create_connection(address))
            .sendall(b"\xff\xff\xff\xff" + bytes(100))
        ),
    ]
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    assert trio.run(lambda position, mesh, keys: position) == [0, 1, 2]


@pytest.mark.parametrize(
    "step", ["", "and", "1/and", "/0/and", "1//and", "-1/0/and", "01/0/and", "1/0x/and", "１/0/and", "1" * 10 + "/0/x"]
)
def test_places_have_one_form(step):
    with pytest.raises(PeerProtocolError) as caught:
        address_of(Arrived("de-1", Label("s", "stage", step), b"x"), MEMBERS, 1)
    assert caught.value.code == "MESSAGE_FOREIGN"


def test_an_address_survives_the_way():
    address = Address("s" * 64, "sort/3", 17, 2, "and/0/open", 0, 1)
    assert address_of(Arrived("de-1", label_of(address), b"x"), MEMBERS, 1) == address
