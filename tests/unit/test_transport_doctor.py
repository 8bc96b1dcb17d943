"""Every check says what is wrong in one line, with a code and what to do."""

import asyncio
import datetime as dt
import os
import socket

import pytest

from mpc_ops.server.doctor import (
    Level,
    check_certificate,
    check_clocks,
    check_disk,
    check_link,
    check_port,
    check_secret,
)
from tests.support.transport import Party, Recorder, until_up

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def party(tmp_path):
    return Party.make(tmp_path, "de-1")


def test_a_port_where_nobody_listens_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert check_port("de-2", "127.0.0.1", port).level is Level.OK
    found = check_port("de-2", "127.0.0.1", port)
    assert (found.level, found.code) == (Level.FAIL, "PORT_UNREACHABLE")
    assert str(found).startswith(f"fail port de-2: 127.0.0.1:{port} cannot be reached (errno 111). ")


async def test_a_link_is_proven_without_disturbing_the_one_that_is_up(party, tmp_path):
    peer, proxy = Party.make(tmp_path, "de-2"), Party.make(tmp_path, "de-2")
    heard = Recorder()
    server = peer.manager({"de-1": party.endpoint()}, heard)
    await server.start()
    dialler = party.manager({"de-2": peer.endpoint(port=server.port, dial=True)}, Recorder())
    await dialler.start()
    await until_up(server, "de-1")

    def look(pins):
        return check_link(
            "de-2", "127.0.0.1", server.port, certificate=party.certificate, key=party.key, ca_pins=pins, timeout_s=5
        )

    good = await asyncio.to_thread(look, [peer.ca.certificate])
    bad = await asyncio.to_thread(look, [proxy.ca.certificate])
    assert good.level is Level.OK
    assert (bad.level, bad.code) == (Level.FAIL, "CERTIFICATE_UNKNOWN")
    assert "proxy that inspects TLS must be bypassed" in str(bad)
    assert [state.code for _, state in heard.states] == [None]  # one UP and nothing since
    await dialler.close()
    await server.close()
    assert (await asyncio.to_thread(look, [peer.ca.certificate])).code == "LINK_FAILED"


def test_certificates_foreign_unpinned_expired_and_ending_are_told_apart(party, tmp_path):
    pins = [party.ca.certificate]
    now = dt.datetime.now(dt.UTC)

    def look(**changes):
        return check_certificate(party.certificate, "de-1", pins, **changes)

    assert (look().level, look().what) == (Level.OK, "is valid for 89 more days")
    ending = look(now=now + dt.timedelta(days=80))
    assert (ending.level, ending.hint) == (Level.WARN, "Run `comity federation renew-tls`")
    assert look(now=now + dt.timedelta(days=91)).code == "CERTIFICATE_EXPIRED"
    assert look(now=now - dt.timedelta(days=1)).code == "CERTIFICATE_NOT_YET_VALID"
    assert check_certificate(party.certificate, "de-2", pins).code == "CERTIFICATE_FOREIGN"
    assert check_certificate(party.certificate, "de-1", []).code == "CERTIFICATE_UNKNOWN"
    assert check_certificate(tmp_path / "none.pem", "de-1", pins).code == "CERTIFICATE_INVALID"


def test_clocks_beyond_sixty_seconds_fail_and_beyond_five_warn():
    findings = check_clocks(1000.0, {"a": 1060.5, "b": 994.0, "c": 1001.0})
    assert [(found.subject, found.level, found.code) for found in findings] == [
        ("a", Level.FAIL, "CLOCK_SKEW"),
        ("b", Level.WARN, "CLOCK_SKEW"),
        ("c", Level.OK, None),
    ]
    assert findings[0].what == "60.5 s ahead of ours"
    assert findings[1].what == "6.0 s behind ours"


def test_key_files_that_others_may_read_or_replace_are_found(party):
    assert check_secret(party.key).level is Level.OK
    party.key.chmod(0o640)
    assert check_secret(party.key).code == "SECRET_PERMISSIONS"
    party.key.chmod(0o600)
    party.key.parent.chmod(0o777)
    assert check_secret(party.key).level is Level.WARN
    assert check_secret(party.key.with_name("none")).code == "SECRET_MISSING"


def test_room_on_the_disk(tmp_path):
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    assert check_disk(tmp_path, 1).level is Level.OK
    assert check_disk(tmp_path, int(free * 0.7)).level is Level.WARN
    assert check_disk(tmp_path, free * 2).code == "DISK_FULL"
    assert check_disk(tmp_path / "none", 1).code == "FILE_MISSING"
