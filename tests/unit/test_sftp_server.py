"""The embedded SFTP server as a real process, spoken to by paramiko and by hand."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import paramiko
import pytest
from paramiko.sftp import CMD_EXTENDED

from local_stores.delivery.sftp import SftpEndpoint, connect, put_once
from mpc_ops.errors import ComityError, ConfigError, PeerUnavailable
from mpc_ops.federation import pki
from mpc_ops.server.sftp.config import load_config
from tests.support.sftp import SftpSite


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = SftpSite.make(tmp_path_factory.mktemp("sftp"))
    with site.running(max_file_bytes=300_000, max_account_bytes=2_000_000, min_free_bytes=0, max_account_connections=4):
        (site.outbox("de-a") / "keys").mkdir()
        (site.outbox("de-a") / "keys" / "2026-10").write_bytes(b"key of the period")
        yield site


@pytest.fixture
def sftp(site):
    with site.connect() as session:
        yield session


def denied(action):
    with pytest.raises(OSError) as caught:
        action()
    return str(caught.value)


def test_a_file_is_created_once_and_neither_replaced_nor_read_nor_removed(site, sftp):
    with sftp.open("inbox/once.1.part", "w") as file:
        file.write(b"first")
    sftp.rename("inbox/once.1.part", "inbox/once")
    with sftp.open("inbox/once.2.part", "w") as file:
        file.write(b"second")
    assert "FILE_EXISTS: a file of this name is already there" in denied(
        lambda: sftp.rename("inbox/once.2.part", "inbox/once")
    )
    assert "FILE_EXISTS" in denied(lambda: sftp.posix_rename("inbox/once.2.part", "inbox/once"))
    for mode in ("r", "r+", "w", "a", "w+"):
        assert "SFTP_DENIED" in denied(lambda mode=mode: sftp.open("inbox/once", mode))
    assert "SFTP_DENIED" in denied(lambda: sftp.open("inbox/once.3.part", "w+"))
    for action in (
        lambda: sftp.remove("inbox/once"),
        lambda: sftp.chmod("inbox/once", 0o777),
        lambda: sftp.utime("inbox/once", (0, 0)),
        lambda: sftp.truncate("inbox/once", 0),
        lambda: sftp.mkdir("inbox/folder"),
        lambda: sftp.rmdir("inbox"),
        lambda: sftp.symlink("/etc/passwd", "inbox/link"),
        lambda: sftp.readlink("inbox/once"),
        lambda: sftp.listdir("inbox"),
        lambda: sftp.remove("outbox/keys/2026-10"),
        lambda: sftp.rename("outbox/keys/2026-10", "inbox/x"),
        lambda: sftp.open("outbox/keys/new.part", "w"),
    ):
        assert "SFTP_DENIED" in denied(action)
    assert (site.inbox("de-a") / "once").read_bytes() == b"first"
    assert sftp.stat("inbox/once").st_size == 5


def test_an_open_file_can_be_neither_read_hashed_nor_altered_by_its_handle(sftp):
    with sftp.open("inbox/handle.part", "w") as file:
        file.write(b"secret")
        assert "SFTP_DENIED" in denied(lambda: file.chmod(0o777))
        assert "SFTP_DENIED" in denied(lambda: file.truncate(0))
        with pytest.raises(OSError):
            file.check("sha1")
        assert file.stat().st_size == 6


@pytest.mark.parametrize(
    "path", ["../../ssh_host", "/../ssh_host", "/etc/passwd", "outbox/../../de-b/x", "outbox/\u2025/x"]
)
def test_no_path_leads_out(sftp, path):
    for action in (lambda: sftp.open(path), lambda: sftp.stat(path), lambda: sftp.listdir(path)):
        assert "SFTP_DENIED" in denied(action)


def test_bytes_that_are_no_unicode_are_refused(sftp):
    with pytest.raises(OSError):
        sftp.stat(b"inbox/\xff\xfe")
    assert sftp.normalize(".") == "/"


def test_the_outbox_is_read_and_listed(sftp):
    assert sftp.listdir("/") == ["inbox", "outbox"]
    assert sftp.listdir("outbox/keys") == ["2026-10"]
    with sftp.open("outbox/keys/2026-10") as file:
        assert file.read() == b"key of the period"
    sftp.chdir("outbox/keys")
    assert sftp.stat("2026-10").st_size == 17


def test_accounts_do_not_see_each_other(site, sftp):
    put_once(sftp, "mine", b"x")
    with site.connect("de-b") as other:
        with pytest.raises(FileNotFoundError):
            other.stat("inbox/mine")
        with pytest.raises(FileNotFoundError):
            other.stat("outbox/keys/2026-10")
        put_once(other, "mine", b"another")
    assert (site.inbox("de-a") / "mine").read_bytes() == b"x"
    assert (site.inbox("de-b") / "mine").read_bytes() == b"another"


def test_a_key_of_another_account_no_key_and_a_password_are_refused(site, tmp_path):
    stranger = pki.create_ssh_key()
    stranger.save(tmp_path / "stranger")
    for account, key in (("de-a", tmp_path / "stranger"), ("de-b", site.keys["de-a"]), ("nobody", site.keys["de-a"])):
        with pytest.raises(ConfigError) as caught, site.connect(account, key_file=key):
            pass
        assert caught.value.code == "AUTH_REFUSED"
        assert caught.value.ids == {"party": "de-1"}
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - a test of the login alone
    with pytest.raises(paramiko.BadAuthenticationType) as refused:
        client.connect("127.0.0.1", site.port, "de-a", password="guess", look_for_keys=False, allow_agent=False)
    assert refused.value.allowed_types == ["publickey"]
    client.close()


def test_no_shell_no_command_no_forwarding(sftp):
    transport = sftp.get_channel().get_transport()
    for ask in ("invoke_shell", "get_pty"):
        with pytest.raises(paramiko.SSHException):
            getattr(transport.open_session(), ask)()
    with pytest.raises(paramiko.SSHException):
        transport.open_session().exec_command("id")
    with pytest.raises(paramiko.SSHException):
        transport.open_session().invoke_subsystem("other")
    with pytest.raises(paramiko.ChannelException):
        transport.open_channel("direct-tcpip", ("127.0.0.1", 22), ("127.0.0.1", 1))
    with pytest.raises(paramiko.SSHException):
        transport.request_port_forward("127.0.0.1", 0)
    assert sftp.listdir("outbox/keys") == ["2026-10"]


def test_too_large_a_file_is_refused_with_its_limit(site, sftp):
    with pytest.raises(ComityError) as caught:
        put_once(sftp, "big", bytes(300_001))
    assert caught.value.code == "FILE_TOO_LARGE"
    assert "at most 300000 bytes" in str(caught.value)
    assert not (site.inbox("de-a") / "big").exists()


def test_a_stalled_client_holds_up_nobody(site):
    with site.connect() as stalled, site.connect() as other:
        stalled.get_channel().send(b"\x00\x00\xff\xff\x06half a request")
        assert put_once(other, "beside-a-stalled-one", bytes(200_000)).size_bytes == 200_000


def test_garbage_and_half_open_connections_hold_up_nobody(site):
    idle = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(10)]
    for n, connection in enumerate(idle):
        connection.sendall(b"\x00\xff" * 1000 if n % 2 else b"SSH-2.0-x\r\n" + b"\xff" * 1000)
    with site.connect() as sftp:
        put_once(sftp, "beside-garbage", b"x")
    for connection in idle:
        connection.close()


@pytest.mark.parametrize("packet", [b"\x00\x0f\xff\xff\x06", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff\x00"])
def test_a_packet_beyond_the_limit_ends_the_session(site, packet):
    with site.connect() as sftp:
        sftp.get_channel().send(packet)
        sftp.get_channel().settimeout(5)
        assert sftp.get_channel().recv(1) == b""


def test_unknown_requests_and_extensions_are_unsupported(sftp):
    with pytest.raises(OSError):
        sftp._request(CMD_EXTENDED, "hardlink@openssh.com", "inbox/a", "inbox/b")
    with pytest.raises(OSError):
        sftp._request(CMD_EXTENDED, "statvfs@openssh.com", "/")
    with pytest.raises(OSError):
        sftp._request(99)
    assert sftp.listdir("outbox/keys") == ["2026-10"]


def test_open_files_and_connections_per_account_are_bounded(site):
    with site.connect("de-b") as sftp:
        opened = [sftp.open(f"inbox/many-{n}.part", "w") for n in range(64)]
        assert "HANDLES_FULL" in denied(lambda: sftp.open("inbox/many-64.part", "w"))
        [file.close() for file in opened]
        others = [site.connect("de-b") for _ in range(3)]
        [other.__enter__() for other in others]
        with pytest.raises(PeerUnavailable), site.connect("de-b"):
            pass
        [other.__exit__(None, None, None) for other in others]
    deadline = time.monotonic() + 10
    while list(site.inbox("de-b").glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(site.inbox("de-b").glob("*.part")) == []


def test_a_connection_that_does_not_log_in_is_ended(tmp_path):
    site = SftpSite.make(tmp_path)
    with site.running(auth_s=0.5, idle_s=0.5, max_connections=2):
        silent = [socket.create_connection(("127.0.0.1", site.port), timeout=10) for _ in range(3)]
        received = [b"".join(iter(lambda c=c: c.recv(4096), b"")) for c in silent]
        assert received[2] == b""  # beyond max_connections
        assert all(data.startswith(b"SSH-2.0-") for data in received[:2])
        [connection.close() for connection in silent]
        with site.connect() as sftp:  # there is room again; then idle until the server ends it
            channel = sftp.get_channel()
            channel.settimeout(10)
            assert channel.recv(1) == b""


def test_disk_full_reaches_the_client_by_name_and_a_retry_may_help(tmp_path):
    site = SftpSite.make(tmp_path)
    with site.running(min_free_bytes=1 << 48), site.connect() as sftp:
        with pytest.raises(PeerUnavailable) as caught:
            put_once(sftp, "part", b"x", party="de-1")
        assert str(caught.value).startswith("DISK_FULL: the operator's disk is full [party=de-1]")


def test_sigterm_ends_the_process_and_leaves_no_part(tmp_path):
    site = SftpSite.make(tmp_path)
    with site.running() as process, site.connect() as sftp:
        sftp.open("inbox/half.part", "w").write(b"x")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert list(site.inbox("de-a").iterdir()) == []
    with pytest.raises(PeerUnavailable), site.connect():
        pass


def test_a_killed_server_starts_again_with_what_was_delivered(tmp_path):
    site = SftpSite.make(tmp_path)
    with site.running() as process, site.connect() as sftp:
        put_once(sftp, "whole", b"x")
        sftp.open("inbox/half.part", "w").write(b"x")
        process.kill()
        process.wait()
        with pytest.raises(PeerUnavailable):
            put_once(sftp, "next", b"y")
    with site.running(), site.connect() as sftp:
        assert put_once(sftp, "whole", b"x").was_there
        assert not put_once(sftp, "next", b"y").was_there
    assert sorted(file.name for file in site.inbox("de-a").iterdir()) == ["next", "whole"]


def test_several_owners_deliver_at_once(site):
    sizes = {}

    def deliver(account, n):
        with site.connect(account) as sftp:
            sizes[account, n] = put_once(sftp, f"parallel-{n}", bytes(250_000)).size_bytes

    threads = [threading.Thread(target=deliver, args=(account, n)) for account in ("de-a", "de-b") for n in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert list(sizes.values()) == [250_000] * 6


def test_nothing_of_the_owners_bytes_or_keys_is_logged(tmp_path):
    site = SftpSite.make(tmp_path)
    with site.running(max_file_bytes=10):
        for account, key in (("de-b", "de-a"), ("nobody", "de-a")):
            with pytest.raises(ConfigError), site.connect(account, key_file=site.keys[key]):
                pass
        with socket.create_connection(("127.0.0.1", site.port)) as garbage:
            garbage.sendall(b"SSH-2.0-canary\r\n" + b"canary" * 1000)
        with site.connect() as sftp:
            put_once(sftp, "small", b"canary")
            with pytest.raises(ComityError):
                put_once(sftp, "large", b"canary" * 10)
    for line in (
        "login refused: de-b",
        "login refused: unknown account",
        "de-a delivered small, 6 bytes",
        "FILE_TOO_LARGE",
    ):
        assert line in site.log
    for word in ("Traceback", "nobody", "PRIVATE", "canary", "ssh-ed25519"):
        assert word not in site.log


# --- starting ---------------------------------------------------------------------------------------------------------


def start(config):
    return subprocess.run(
        [sys.executable, "-m", "mpc_ops.server.sftp", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize(
    ("alter", "code"),
    [
        (lambda text: "surprise = 1\n" + text, "SCHEMA_INVALID"),
        (lambda text: text.replace("spool =", "[["), "CONFIG_INVALID"),
        (lambda text: text.replace('"de-a"', '"../a"'), "NAME_INVALID"),
        (lambda text: text.replace('"de-a"', '"de-b"'), "ACCOUNT_TWICE"),
        (lambda text: text.replace("ssh-ed25519", "ssh-rsa"), "KEY_INVALID"),
        (lambda text: text.replace('"ssh_host"', '"none"'), "SECRET_MISSING"),
        (lambda text: text.replace('"ssh_host"', '"sftp.toml"'), "SECRET_PERMISSIONS"),
        (lambda text: text.replace("listen_port = 0", "listen_port = 70000"), "SCHEMA_INVALID"),
        (lambda text: text + "[limits]\nmax_file_bytes = -1\n", "SCHEMA_INVALID"),
    ],
)
def test_a_wrong_configuration_is_a_sentence_and_an_exit_code(tmp_path, alter, code):
    site = SftpSite.make(tmp_path)
    config = site.config()
    config.chmod(0o644)
    config.write_text(alter(config.read_text()))
    done = start(config)
    assert done.returncode == ConfigError.exit_code
    assert done.stderr.startswith(code + ": ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_host_key_that_others_may_read_is_refused(tmp_path):
    site = SftpSite.make(tmp_path)
    (tmp_path / "ssh_host").chmod(0o640)
    assert start(site.config()).stderr.startswith("SECRET_PERMISSIONS: ")


def test_a_missing_configuration_and_a_port_in_use_are_named(tmp_path):
    assert start(tmp_path / "none.toml").stderr.startswith("FILE_MISSING: ")
    site = SftpSite.make(tmp_path)
    config = site.config()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config.write_text(config.read_text().replace("listen_port = 0", f"listen_port = {taken.getsockname()[1]}"))
        assert start(config).stderr.startswith("PORT_UNAVAILABLE: ")


def test_limits_have_defaults(tmp_path):
    config = load_config(SftpSite.make(tmp_path).config())
    assert config.limits.max_file_bytes == 1 << 30
    assert sorted(config.accounts) == ["de-a", "de-b"]


def test_the_server_imports_nothing_heavy():
    code = "import sys, mpc_ops.server.sftp.__main__; print([m for m in ('numpy','pyarrow','airflow','pandas','fastapi') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_nobody_listens_is_transient(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key = pki.create_ssh_key()
    with (
        pytest.raises(ConfigError, match="SECRET_MISSING"),
        connect(
            SftpEndpoint("de-1", "127.0.0.1", port), "de-a", __import__("pathlib").Path("/nonexistent"), key.public
        ),
    ):
        pass
