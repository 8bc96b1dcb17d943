"""Party links over real sockets: who is refused and why, what survives a lost connection, what is counted."""

import asyncio
import datetime as dt
import socket
import ssl
from dataclasses import replace

import pytest

from mpc_ops.errors import ConfigError, LocalProtocolError, PeerProtocolError, PeerUnavailable
from mpc_ops.federation import pki
from mpc_ops.transport.peers import LinkStatus, PeerEndpoint
from mpc_ops.transport.wire import HEADER_BYTES, Kind
from tests.support.transport import (
    FAST,
    Party,
    Recorder,
    message,
    raw_handshake,
    read_message,
    read_to_end,
    until,
    until_up,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def a(tmp_path):
    return Party.make(tmp_path, "de-1")


@pytest.fixture
def b(tmp_path):
    return Party.make(tmp_path, "de-2")


class Pair:
    """Two managers; the first listens, the second dials."""

    def __init__(self, a: Party, b: Party, **options) -> None:
        self.a, self.b, self.options = a, b, options
        self.heard_a, self.heard_b = Recorder(), Recorder()
        self.left = self.right = None

    async def __aenter__(self):
        self.left = self.a.manager({self.b.name: self.b.endpoint()}, self.heard_a)
        await self.left.start()
        self.right = self.b.manager(
            {self.a.name: self.a.endpoint(port=self.left.port, dial=True)}, self.heard_b, **self.options
        )
        await self.right.start()
        return self

    async def __aexit__(self, *_):
        await self.right.close()
        await self.left.close()


def refused_state(manager, peer):
    async def wait():
        await until(lambda: manager.state(peer).status is LinkStatus.REFUSED)
        return manager.state(peer)

    return wait()


async def what_a_refused_client_reads(connecting):
    # With TLS 1.3 the client's handshake is complete before the server has looked at its certificate.
    try:
        reader, _ = await connecting
        return await reader.read(1)
    except OSError:
        return b""


# --- who is refused ---------------------------------------------------------------------------------------------------


async def test_a_certificate_of_an_unpinned_authority_is_refused_by_the_dialler(a, b, tmp_path):
    stranger = Party.make(tmp_path, "de-1")  # same name, another authority
    server = stranger.manager({"de-2": b.endpoint()}, Recorder())
    await server.start()
    dialler = b.manager({"de-1": replace(a.endpoint(port=server.port, dial=True))}, Recorder())
    await dialler.start()
    state = await refused_state(dialler, "de-1")
    assert state.code == "CERTIFICATE_UNKNOWN"
    with pytest.raises(PeerUnavailable) as caught:
        await dialler.send("de-1", Kind.SESSION, b"x")
    assert "got CERTIFICATE_UNKNOWN [party=de-1]" in str(caught.value)
    await dialler.close()
    await server.close()


async def test_a_certificate_of_an_unpinned_authority_is_refused_by_the_listener(a, b, tmp_path):
    server = a.manager({"de-2": b.endpoint()}, Recorder())
    await server.start()
    stranger = Party.make(tmp_path, "de-2")
    assert await what_a_refused_client_reads(stranger.raw(server.port, a)) == b""
    await until(lambda: server.refusals)
    assert server.refusals[-1][1] == "CERTIFICATE_UNKNOWN"
    assert server.state("de-2").code is None  # nothing is blamed on the party it claims to be
    await server.close()


async def test_an_admitted_party_cannot_name_another_one(a, b, tmp_path):
    c = Party.make(tmp_path, "de-3")
    server = a.manager({"de-2": b.endpoint(), "de-3": c.endpoint()}, Recorder())
    await server.start()
    forged = Party.with_ca(tmp_path, "de-2", replace(c.ca, party="de-2"))
    reader, writer = await forged.raw(server.port, a)
    kind, payload = await read_message(reader)
    assert kind == Kind.REFUSE
    assert b"CERTIFICATE_UNKNOWN" in payload
    assert b"not issued by that party's own authority" in payload
    writer.close()
    await until(lambda: server.refusals)
    assert server.refusals[-1][1] == "CERTIFICATE_UNKNOWN"
    assert server.state("de-2").status is LinkStatus.DOWN
    await server.close()


async def test_a_server_that_shows_another_partys_valid_certificate_is_refused(a, b, tmp_path):
    other = Party.with_ca(tmp_path, "de-9", replace(a.ca, party="de-9"))  # a's authority, another name
    server = other.manager({"de-2": b.endpoint()}, Recorder())
    await server.start()
    dialler = b.manager({"de-1": a.endpoint(port=server.port, dial=True)}, Recorder())
    await dialler.start()
    assert (await refused_state(dialler, "de-1")).code == "CERTIFICATE_UNKNOWN"
    await dialler.close()
    await server.close()


@pytest.mark.parametrize(("start_days", "code"), [(-100, "CERTIFICATE_EXPIRED"), (10, "CERTIFICATE_NOT_YET_VALID")])
async def test_a_certificate_outside_its_dates_is_refused_by_name(a, b, tmp_path, start_days, code):
    start = dt.datetime.now(dt.UTC) + dt.timedelta(days=start_days)
    old = Party.with_ca(tmp_path, "de-1", a.ca, now=start)
    server = old.manager({"de-2": b.endpoint()}, Recorder())
    await server.start()
    dialler = b.manager({"de-1": a.endpoint(port=server.port, dial=True)}, Recorder())
    await dialler.start()
    assert (await refused_state(dialler, "de-1")).code == code
    await dialler.close()
    await server.close()


async def test_both_authorities_of_a_change_are_accepted_at_once(a, b, tmp_path):
    new = pki.create_ca("de-2")
    for ca in (b.ca, new):
        leaf = Party.with_ca(tmp_path, "de-2", ca)
        server = a.manager({"de-2": PeerEndpoint("", 0, False, (b.ca.certificate, new.certificate))}, Recorder())
        await server.start()
        dialler = leaf.manager({"de-1": a.endpoint(port=server.port, dial=True)}, Recorder())
        await dialler.start()
        await until_up(dialler, "de-1")
        await dialler.close()
        await server.close()


async def test_tls_1_2_and_plain_text_are_refused(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder())
    await server.start()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, OSError)):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=old)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
    assert await reader.read(1 << 16) is not None
    writer.close()
    await until(lambda: len(server.refusals) == 2)
    assert [code for _, code in server.refusals] == ["TLS_REQUIRED", "TLS_REQUIRED"]
    await server.close()


async def test_a_client_without_certificate_is_refused(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder())
    await server.start()
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    connecting = asyncio.open_connection("127.0.0.1", server.port, ssl=bare)
    assert await what_a_refused_client_reads(connecting) == b""
    await until(lambda: server.refusals)
    await server.close()


async def test_a_key_that_others_may_read_is_not_used(a, b):
    a.key.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        a.manager({"de-2": b.endpoint()}, Recorder())
    assert caught.value.code == "SECRET_PERMISSIONS"


async def test_clock_skew_is_refused_with_both_times(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder(), clock=lambda: 1_793_000_000.0)
    await server.start()
    dialler = b.manager({"de-1": a.endpoint(port=server.port, dial=True)}, Recorder(), clock=lambda: 1_793_000_061.0)
    await dialler.start()
    for manager, peer in ((dialler, "de-1"), (server, "de-2")):
        state = await refused_state(manager, peer)
        assert state.code == "CLOCK_SKEW"
        assert "differ by more than 60 s" in state.what
        assert "2026-10-26T07:33:20.000Z (de-1)" in state.what
        assert "2026-10-26T07:34:21.000Z (de-2)" in state.what
    await dialler.close()
    await server.close()


async def test_sixty_seconds_of_skew_pass(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder(), clock=lambda: 1_793_000_000.0)
    await server.start()
    dialler = b.manager({"de-1": a.endpoint(port=server.port, dial=True)}, Recorder(), clock=lambda: 1_793_000_060.0)
    await dialler.start()
    await until_up(dialler, "de-1")
    await dialler.close()
    await server.close()


async def test_no_common_version_is_refused_with_both_lists(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder())
    await server.start()
    reader, writer = await b.raw(server.port, a)
    writer.write(message(Kind.HELLO, b.hello(wire=[3, 2])))
    assert (await read_message(reader))[0] == Kind.HELLO
    kind, payload = await read_message(reader)
    assert kind == Kind.REFUSE
    assert b"WIRE_VERSION" in payload
    assert b"expected 1; got 3, 2" in payload
    writer.close()
    assert (await refused_state(server, "de-2")).code == "WIRE_VERSION"
    await server.close()


async def test_a_hello_in_another_name_is_refused(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder())
    await server.start()
    _, writer = await b.raw(server.port, a)
    writer.write(message(Kind.HELLO, b.hello(party="de-3")))
    assert (await refused_state(server, "de-2")).code == "CERTIFICATE_UNKNOWN"
    writer.close()
    await server.close()


async def test_the_layer_above_refuses_a_rolled_back_state_and_both_ends_know_why(a, b):
    async with Pair(a, b) as pair:
        await until_up(pair.right, "de-1")
        await pair.right.close()
        pair.heard_a.refuse = lambda hello: LocalProtocolError(
            "STATE_ROLLED_BACK", "a peer holds an older ledger than this side countersigned", ids={"party": hello.party}
        )
        pair.right = b.manager({"de-1": a.endpoint(port=pair.left.port, dial=True)}, pair.heard_b)
        await pair.right.start()
        here, there = await refused_state(pair.left, "de-2"), await refused_state(pair.right, "de-1")
        assert (here.code, here.by_peer) == ("STATE_ROLLED_BACK", False)
        assert (there.code, there.by_peer) == ("STATE_ROLLED_BACK", True)
        assert "older ledger" in there.what


async def test_the_state_of_hello_reaches_the_layer_above(a, b):
    pair = Pair(a, b)
    pair.heard_a.state, pair.heard_b.state = b"head of a", b"\x00\xff" * 1000
    async with pair:
        await until_up(pair.left, "de-2")
        assert pair.heard_a.hellos[0].state == b"\x00\xff" * 1000
        assert pair.heard_b.hellos[0].state == b"head of a"
        assert (pair.heard_a.hellos[0].boot, pair.heard_a.hellos[0].version) == (1, 1)


async def test_an_older_process_of_a_peer_is_fenced(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder())
    await server.start()
    peers = {"de-1": a.endpoint(port=server.port, dial=True)}
    standby = b.manager(peers, Recorder(), boot=8)
    await standby.start()
    await until_up(standby, "de-1")
    old = b.manager(peers, Recorder(), boot=7)
    await old.start()
    state = await refused_state(old, "de-1")
    assert (state.code, state.by_peer) == ("BOOT_STALE", True)
    assert "expected boot 8 or later; got boot 7" in state.what
    assert server.state("de-2").status is LinkStatus.UP
    for manager in (old, standby, server):
        await manager.close()


async def test_a_peer_that_this_side_dials_may_not_dial_in(a, b):
    target = socket.create_server(("127.0.0.1", 0))
    server = a.manager({"de-2": b.endpoint(port=target.getsockname()[1], dial=True)}, Recorder())
    await server.start()
    reader, writer = await b.raw(server.port, a)
    kind, payload = await read_message(reader)
    assert (kind, b"LINK_DIRECTION" in payload) == (Kind.REFUSE, True)
    writer.close()
    await server.close()
    target.close()


# --- what a hostile or broken peer can send ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (message(Kind.FRAME, b"", length=(64 << 20) + 1), "MESSAGE_TOO_LARGE"),
        (message(Kind.PING, b"", length=9), "MESSAGE_TOO_LARGE"),
        (message(99, b""), "MESSAGE_KIND_UNKNOWN"),
        (b"\xff" * 4096, "MESSAGE_KIND_UNKNOWN"),
        (message(Kind.READY, b""), "MESSAGE_UNEXPECTED"),
        (message(Kind.REFUSE, b"garbage"), "MESSAGE_INVALID"),
    ],
)
async def test_what_breaks_the_protocol_ends_the_link_and_names_the_peer(a, b, sent, code):
    heard = Recorder()
    server = a.manager({"de-2": b.endpoint()}, heard)
    await server.start()
    _, writer = await raw_handshake(b, a, server.port)
    writer.write(message(Kind.SESSION, b"before") + sent)
    state = await refused_state(server, "de-2")
    assert state.code == code
    assert heard.messages == [("de-2", Kind.SESSION, b"before")]
    writer.close()
    await server.close()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x00" * 64, "MESSAGE_KIND_UNKNOWN"),
        (message(Kind.HELLO, b"{}"), "MESSAGE_INVALID"),
        (message(Kind.HELLO, b"", length=1 << 24), "MESSAGE_TOO_LARGE"),
        (message(Kind.SESSION, b"too early"), "MESSAGE_UNEXPECTED"),
    ],
)
async def test_garbage_in_place_of_hello_is_refused(a, b, sent, code):
    heard = Recorder()
    server = a.manager({"de-2": b.endpoint()}, heard)
    await server.start()
    _, writer = await b.raw(server.port, a)
    writer.write(sent)
    assert (await refused_state(server, "de-2")).code == code
    assert heard.messages == []
    writer.close()
    await server.close()


async def test_a_peer_that_says_nothing_after_tls_is_dropped(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder(), timings=replace(FAST, handshake_s=0.2))
    await server.start()
    reader, writer = await b.raw(server.port, a)
    await until(lambda: server.state("de-2").code == "LINK_TIMEOUT")
    writer.close()
    assert reader is not None
    await server.close()


async def test_half_open_connections_before_tls_do_not_block_others(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder(), timings=replace(FAST, handshake_s=0.3))
    await server.start()
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(80)]
    await until(lambda: len(server.refusals) >= 64)
    _, writer = await raw_handshake(b, a, server.port)
    await until_up(server, "de-2")
    writer.close()
    for connection in idle:
        connection.close()
    await server.close()


async def test_a_half_open_link_is_found_silent(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder(), timings=replace(FAST, silent_s=0.3))
    await server.start()
    connection = await raw_handshake(b, a, server.port)  # never answers a ping
    await until_up(server, "de-2")
    await until(lambda: server.state("de-2").code == "LINK_SILENT")
    with pytest.raises(PeerUnavailable):
        await server.send("de-2", Kind.SESSION, b"x")
    connection[1].close()
    await server.close()


async def test_pings_keep_an_idle_link(a, b):
    async with Pair(a, b, timings=replace(FAST, silent_s=0.5, ping_s=0.05)) as pair:
        await until_up(pair.right, "de-1")
        before = pair.right.counters("de-1").received_messages
        await until(lambda: pair.right.counters("de-1").received_messages > before + 20)
        assert [state.status for _, state in pair.heard_b.states] == [LinkStatus.UP]


# --- ordinary life ----------------------------------------------------------------------------------------------------


async def test_messages_arrive_whole_and_in_order_and_are_counted(a, b):
    async with Pair(a, b, timings=replace(FAST, ping_s=60)) as pair:
        await until_up(pair.right, "de-1")
        await until_up(pair.left, "de-2")
        first = pair.right.counters("de-1")
        payloads = [b"", b"x", bytes(300_000), bytes(range(256)) * 20_000]
        for payload in payloads:
            await pair.right.send("de-1", Kind.FRAME, payload)
        await pair.left.send("de-2", Kind.NOTICE, b"notice")
        await until(lambda: len(pair.heard_a.messages) == 4 and pair.heard_b.messages)
        assert pair.heard_a.messages == [("de-2", Kind.FRAME, payload) for payload in payloads]
        assert pair.heard_b.messages == [("de-1", Kind.NOTICE, b"notice")]
        last = pair.right.counters("de-1")
        others = last.sent_messages - first.sent_messages - 4  # keep-alives of 8 bytes, on a slow machine
        expected = sum(map(len, payloads)) + 4 * HEADER_BYTES + others * (8 + HEADER_BYTES)
        assert last.sent_bytes - first.sent_bytes == expected
        assert others <= 2


async def test_many_senders_never_mix_their_messages(a, b):
    async with Pair(a, b) as pair:
        await until_up(pair.right, "de-1")
        payloads = [bytes([n]) * (700_000 + n) for n in range(12)]
        await asyncio.gather(*(pair.right.send("de-1", Kind.FRAME, payload) for payload in payloads))
        await until(lambda: len(pair.heard_a.messages) == 12)
        assert sorted(payload for _, _, payload in pair.heard_a.messages) == payloads


async def test_a_layer_that_does_not_take_messages_slows_the_sender(a, b):
    pair = Pair(a, b)
    pair.heard_a.gate = asyncio.Event()
    async with pair:
        await until_up(pair.right, "de-1")
        senders = [asyncio.create_task(pair.right.send("de-1", Kind.FRAME, bytes(20 << 20))) for _ in range(2)]
        done, waiting = await asyncio.wait(senders, timeout=1)
        assert len(waiting) >= 1  # the second is not swallowed while the first is not taken
        assert pair.heard_a.messages == []
        pair.heard_a.gate.set()
        await asyncio.gather(*done, *waiting)
        await until(lambda: len(pair.heard_a.messages) == 2)


async def test_a_sender_whose_peer_never_reads_gets_an_error(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder(), timings=replace(FAST, send_s=0.3))
    await server.start()
    connection = await raw_handshake(b, a, server.port)
    await until_up(server, "de-2")
    with pytest.raises(PeerUnavailable) as caught:
        await server.send("de-2", Kind.FRAME, bytes(60 << 20))
    assert "got LINK_TIMEOUT [party=de-2]" in str(caught.value)
    connection[1].close()
    await server.close()


async def test_a_killed_peer_is_dialled_again_until_it_is_back(a, b):
    async with Pair(a, b) as pair:
        await until_up(pair.right, "de-1")
        port = pair.left.port
        for link in pair.left._links.values():
            link.abort()  # as a kill does: no BYE
        await pair.left.close()
        await until(lambda: pair.right.state("de-1").status is LinkStatus.DOWN)
        with pytest.raises(PeerUnavailable) as caught:
            await pair.right.send("de-1", Kind.SESSION, b"lost")
        assert caught.value.code == "PEER_UNAVAILABLE"
        assert caught.value.transient
        pair.left = a.manager({"de-2": b.endpoint()}, pair.heard_a, boot=2, port=port)
        await pair.left.start()
        await until_up(pair.right, "de-1")
        await pair.right.send("de-1", Kind.SESSION, b"again")
        await until(lambda: pair.heard_a.messages == [("de-2", Kind.SESSION, b"again")])
        assert [hello.boot for hello in pair.heard_b.hellos] == [1, 2]


async def test_the_newest_of_two_connections_wins(a, b):
    heard = Recorder()
    server = a.manager({"de-2": b.endpoint()}, heard)
    await server.start()
    first, first_writer = await raw_handshake(b, a, server.port)
    await until_up(server, "de-2")
    second, writer = await raw_handshake(b, a, server.port)
    assert {kind for kind, _ in await read_to_end(first)} <= {Kind.PING}
    await until(lambda: heard.states[-1][1].status is LinkStatus.UP and len(heard.states) == 3)
    await server.send("de-2", Kind.SESSION, b"to the newest")
    kind = Kind.PING
    while kind == Kind.PING:
        kind, payload = await read_message(second)
    assert (kind, payload) == (Kind.SESSION, b"to the newest")
    first_writer.close()
    writer.close()
    await server.close()


async def test_a_failed_second_connection_leaves_the_first_one_up(a, b):
    server = a.manager({"de-2": b.endpoint()}, Recorder())
    await server.start()
    reader, writer = await raw_handshake(b, a, server.port)
    await until_up(server, "de-2")
    _, bad = await b.raw(server.port, a)
    bad.write(message(Kind.HELLO, b"{}"))
    bad.close()
    await server.send("de-2", Kind.SESSION, b"still here")
    kind = Kind.PING
    while kind == Kind.PING:
        kind, payload = await read_message(reader)
    assert payload == b"still here"
    writer.close()
    assert server.state("de-2").status is LinkStatus.UP
    await server.close()


async def test_a_graceful_close_is_told_and_flushes_what_was_sent(a, b):
    async with Pair(a, b) as pair:
        await until_up(pair.right, "de-1")
        await until_up(pair.left, "de-2")
        await pair.right.send("de-1", Kind.FRAME, bytes(3 << 20))
        await pair.right.close()
        await until(lambda: pair.left.state("de-2").code == "PEER_CLOSED")
        assert len(pair.heard_a.messages) == 1
        await pair.right.wait_closed()


async def test_a_refusal_by_the_layer_above_in_mid_link_is_told_to_the_peer(a, b):
    async with Pair(a, b) as pair:
        await until_up(pair.right, "de-1")
        pair.heard_a.fail = PeerProtocolError("SESSION_MESSAGE_INVALID", "a message of a session is not valid")
        await pair.right.send("de-1", Kind.SESSION, b"?")
        await until(lambda: any(state.code == "SESSION_MESSAGE_INVALID" for _, state in pair.heard_b.states))


async def test_a_bug_above_closes_the_manager_and_comes_out(a, b):
    async with Pair(a, b) as pair:
        await until_up(pair.right, "de-1")
        pair.heard_a.fail = KeyError("bug")
        await pair.right.send("de-1", Kind.SESSION, b"?")
        with pytest.raises(KeyError):
            await pair.left.wait_closed()


async def test_wrong_use_is_an_error_of_the_caller(a, b):
    async with Pair(a, b) as pair:
        await until_up(pair.right, "de-1")
        with pytest.raises(ValueError, match="belongs to the link itself"):
            await pair.right.send("de-1", Kind.PING, b"")
        with pytest.raises(ValueError, match="at most"):
            await pair.right.send("de-1", Kind.SESSION, bytes((4 << 20) + 1))
        with pytest.raises(ConfigError) as caught:
            await pair.right.send("xx-1", Kind.SESSION, b"")
        assert caught.value.code == "PEER_UNKNOWN"
        await pair.right.send("de-1", Kind.SESSION, b"the link survives it")


async def test_a_port_in_use_is_said_plainly(a, b):
    taken = socket.create_server(("127.0.0.1", 0))
    manager = a.manager({}, Recorder(), port=taken.getsockname()[1])
    with pytest.raises(ConfigError) as caught:
        await manager.start()
    assert caught.value.code == "PORT_UNAVAILABLE"
    await manager.close()
    taken.close()


async def test_nothing_is_left_behind(a, b):
    before = asyncio.all_tasks()
    async with Pair(a, b) as pair:
        await until_up(pair.right, "de-1")
    await until(lambda: asyncio.all_tasks() == before)
