"""Delivering once and fetching what is new, against the embedded server and against servers that misbehave."""

import io
import socket
import threading
from contextlib import contextmanager

import paramiko
import pytest

from local_stores.delivery.sftp import SftpEndpoint, connect, fetch_new, list_outbox, put_once
from mpc_ops.errors import ConfigError, DeliveryError, PeerProtocolError, PeerTimeout, PeerUnavailable
from mpc_ops.federation import pki
from mpc_ops.server.sftp import dropbox
from tests.support.sftp import SftpSite


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = SftpSite.make(tmp_path_factory.mktemp("sftp"))
    with site.running():
        yield site


@pytest.fixture
def sftp(site):
    with site.connect() as session:
        yield session


# --- who is at the other end ------------------------------------------------------------------------------------------


def test_another_host_key_is_refused_before_anything_is_sent(site):
    other = pki.create_ssh_key()
    with pytest.raises(ConfigError) as caught, site.connect(host_key=other.public):
        pass
    text = str(caught.value)
    assert text.startswith("HOST_KEY_MISMATCH: ")
    assert pki.ssh_fingerprint(other.public) in text
    assert pki.ssh_fingerprint(site.host_key.public) in text
    assert not caught.value.transient


def test_two_host_keys_may_be_pinned_while_one_replaces_the_other(site):
    with site.connect(host_key=[pki.create_ssh_key().public, site.host_key.public]) as sftp:
        assert sftp.listdir("/") == ["inbox", "outbox"]


def test_a_private_key_that_others_may_read_is_not_used(site, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(site.keys["de-a"].read_bytes())
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="SECRET_PERMISSIONS"), site.connect(key_file=key):
        pass
    key.chmod(0o600)
    key.write_text("no key")
    with pytest.raises(ConfigError, match="KEY_INVALID"), site.connect(key_file=key):
        pass


def test_a_server_that_never_answers_is_a_transient_timeout(site):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = SftpEndpoint("de-1", "127.0.0.1", silent.getsockname()[1])
        with (
            pytest.raises((PeerTimeout, PeerUnavailable)) as caught,
            connect(endpoint, "de-a", site.keys["de-a"], site.host_key.public, timeout_s=0.5),
        ):
            pass
    assert caught.value.transient
    assert caught.value.ids == {"party": "de-1"}


# --- deliver once -----------------------------------------------------------------------------------------------------


def test_a_delivery_is_whole_and_a_second_one_is_a_no_op(site, sftp, tmp_path):
    data = bytes(range(256)) * 2000
    file = tmp_path / "part"
    file.write_bytes(data)
    first = put_once(sftp, "part.de-1", file, party="de-1")
    again = put_once(sftp, "part.de-1", data, party="de-1")
    assert (first.size_bytes, first.was_there, again.was_there) == (len(data), False, True)
    assert (site.inbox("de-a") / "part.de-1").read_bytes() == data
    assert put_once(sftp, "empty", b"").size_bytes == 0


def test_a_name_with_another_size_is_refused_and_named(sftp):
    put_once(sftp, "taken", b"12345")
    with pytest.raises(DeliveryError) as caught:
        put_once(sftp, "taken", b"1234", party="de-1")
    assert str(caught.value) == (
        "NAME_TAKEN: another file has this name in the inbox; expected 4 bytes; got 5 bytes [party=de-1, file=taken]"
    )


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "../a", "a b", "ä", "x" * 201, "x.part", "a\n"])
def test_a_name_that_is_none_never_leaves(sftp, name):
    with pytest.raises(ConfigError, match="NAME_INVALID"):
        put_once(sftp, name, b"x")


class Faulty:
    """A session whose calls can be replaced."""

    def __init__(self, sftp, **replaced):
        self._sftp = sftp
        self.__dict__.update(replaced)

    def __getattr__(self, name):
        return getattr(self._sftp, name)


def test_a_lost_answer_to_the_rename_is_found_delivered(site, sftp):
    def rename(old, new):
        sftp.rename(old, new)
        raise OSError("Failure")

    assert put_once(Faulty(sftp, rename=rename), "lost-answer", b"x").was_there
    assert (site.inbox("de-a") / "lost-answer").read_bytes() == b"x"


def test_a_faster_delivery_of_the_same_file_wins_quietly(site, sftp):
    def rename(old, new):
        with site.connect() as other:
            put_once(other, "race", b"same")
        sftp.rename(old, new)

    assert put_once(Faulty(sftp, rename=rename), "race", b"same").was_there


def test_a_connection_broken_in_mid_file_is_transient_and_the_retry_is_whole(site):
    data = bytes(3_000_000)

    def break_off(session):
        def opened(path, mode):
            file = session.open(path, mode)
            write, count = file.write, [0]

            def failing(chunk):
                count[0] += 1
                if count[0] == 40:
                    session.get_channel().get_transport().sock.close()
                write(chunk)

            file.write = failing
            return file

        return Faulty(session, open=opened)

    with site.connect() as session, pytest.raises((PeerUnavailable, PeerTimeout)) as caught:
        put_once(break_off(session), "broken", data, party="de-1")
    assert caught.value.transient
    assert not (site.inbox("de-a") / "broken").exists()
    with site.connect() as session:
        assert not put_once(session, "broken", data).was_there
    assert (site.inbox("de-a") / "broken").stat().st_size == len(data)


def test_a_file_that_arrives_in_part_gets_no_name(site, sftp):
    def stat(path):
        found = sftp.stat(path)
        found.st_size -= 1
        return found

    with pytest.raises(PeerUnavailable, match="arrived in part"):
        put_once(Faulty(sftp, stat=stat), "short", b"12345")
    assert not (site.inbox("de-a") / "short").exists()


def test_an_error_on_an_early_write_is_reported_by_its_code(tmp_path):
    site = SftpSite.make(tmp_path)
    with site.running(max_account_bytes=100_000), site.connect() as sftp:
        with pytest.raises(DeliveryError) as caught:
            put_once(sftp, "big", bytes(1_000_000), party="de-1")
        assert caught.value.code == "INBOX_FULL"
        assert caught.value.ids == {"party": "de-1"}


# --- fetch what is new ------------------------------------------------------------------------------------------------


def test_only_unknown_files_come_in_order_and_within_bounds(site, sftp):
    folder = site.outbox("de-a") / "notices"
    folder.mkdir()
    for n in range(5):
        (folder / f"n{n}").write_bytes(bytes([n]) * 100_000)
    assert [file.size_bytes for file in list_outbox(sftp, "notices")] == [100_000] * 5
    fetched = fetch_new(sftp, "notices", {"n0", "n3"}, 1 << 20)
    assert fetched == [(f"n{n}", bytes([n]) * 100_000) for n in (1, 2, 4)]
    assert [name for name, _ in fetch_new(sftp, "notices", set(), 250_000)] == ["n0", "n1"]
    assert [name for name, _ in fetch_new(sftp, "notices", set(), 1 << 20, limit_files=3)] == ["n0", "n1", "n2"]
    with pytest.raises(PeerProtocolError, match="FILE_TOO_LARGE"):
        fetch_new(sftp, "notices", set(), 99_999, party="de-1")
    with pytest.raises(PeerProtocolError, match="OUTBOX_INVALID"):
        list_outbox(sftp, "notices", limit_files=4)


def test_a_folder_that_is_not_there_is_empty(sftp):
    assert list_outbox(sftp, "evidence") == []
    assert fetch_new(sftp, "evidence", set(), 1 << 20) == []


@contextmanager
def hostile_server(names):
    """An SFTP server that shows whatever names it likes."""

    class Interface(paramiko.SFTPServerInterface):
        def list_folder(self, path):
            entries = []
            for name in names:
                entry = paramiko.SFTPAttributes()
                entry.filename, entry.st_size, entry.st_mode = name, 1, 0o100440
                entries.append(entry)
            return entries

    class Server(paramiko.ServerInterface):
        def check_auth_publickey(self, username, key):
            return paramiko.AUTH_SUCCESSFUL

        def check_channel_request(self, kind, chanid):
            return paramiko.OPEN_SUCCEEDED

    host_key = pki.create_ssh_key()
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(host_key.private.decode()))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Interface)
            transport.start_server(server=Server())

        thread = threading.Thread(target=serve)
        thread.start()
        yield SftpEndpoint("de-1", "127.0.0.1", listener.getsockname()[1]), host_key
        thread.join()


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "/etc/passwd", ".hidden", "a\nb", "\u202etxt"])
def test_a_hostile_operator_cannot_choose_where_names_lead(site, name):
    with (
        hostile_server(["good", name]) as (endpoint, host_key),
        connect(endpoint, "de-a", site.keys["de-a"], host_key.public) as sftp,
        pytest.raises(PeerProtocolError) as caught,
    ):
        fetch_new(sftp, "notices", set(), 1 << 20, party="de-1")
    assert caught.value.code == "OUTBOX_INVALID"
    assert name not in str(caught.value)


def test_client_and_server_agree_on_names():
    for name in ("a", "part.de-1.0123456789abcdef", "a_b-c.d", "x" * 200):
        assert dropbox.split(f"inbox/{name}") == ("inbox", [name])
