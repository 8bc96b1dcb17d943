"""The production configuration, in a real sshd: drop box for the inbox, read only for the outbox."""

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import paramiko
import pytest

from local_stores.delivery.sftp import SftpEndpoint, connect, fetch_new, put_once
from mpc_ops.errors import ConfigError, DeliveryError, PeerUnavailable
from mpc_ops.federation import pki

CONFIG = Path(__file__).parents[2] / "infra" / "sshd" / "sshd_config"
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
ROOT = os.geteuid() == 0
pytestmark = pytest.mark.skipif(SSHD is None, reason="no sshd program is installed")


class Sshd:
    """A real sshd on a free port with infra/sshd/sshd_config, its paths replaced.

    As root it logs in as `nobody`, in a chroot, exactly as in production. Without root sshd can only log in as the
    present user and cannot change the root folder; everything else is the same.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.account = "nobody" if ROOT else pwd.getpwuid(os.getuid()).pw_name
        self.folder = home / "sftp" / self.account
        self.host_key, self.key = pki.create_ssh_key(), pki.create_ssh_key()
        self.host_key.save(home / "host_key")
        self.key.save(home / "owner_key")
        (home / "keys").mkdir()
        (home / "keys" / self.account).write_text(self.key.public + "\n")
        (home / "keys" / self.account).chmod(0o644)
        self._make_folders()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        config = home / "sshd_config"
        config.write_text(self._configuration())
        self.log = home / "sshd.log"
        if ROOT:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        subprocess.run([SSHD, "-t", "-f", str(config)], check=True)
        self.process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(config)], stderr=self.log.open("wb"), stdin=subprocess.DEVNULL
        )
        self._wait()

    def _make_folders(self) -> None:
        for folder in (self.folder, self.folder / "inbox", self.folder / "outbox", self.folder / "outbox" / "keys"):
            folder.mkdir(parents=True)
        (self.folder / "outbox" / "keys" / "2026-10").write_bytes(b"key of the period")
        if ROOT:
            owner = pwd.getpwnam(self.account)
            os.chown(self.folder / "inbox", owner.pw_uid, 1)  # any group that the owner is not in
            for path in [self.folder / "outbox", *(self.folder / "outbox").rglob("*")]:
                os.chown(path, 0, owner.pw_gid)
                path.chmod(0o2750 if path.is_dir() else 0o640)
        else:
            for path in [*(self.folder / "outbox").rglob("*"), self.folder / "outbox"]:
                path.chmod(0o550 if path.is_dir() else 0o440)
        (self.folder / "inbox").chmod(0o2370)

    def _configuration(self) -> str:
        text = CONFIG.read_text()
        user = pwd.getpwnam(self.account)
        replaced = {
            "Port 2222": f"Port {self.port}",
            "ListenAddress 0.0.0.0": "ListenAddress 127.0.0.1",
            "HostKey /etc/comity/sshd/ssh_host_ed25519_key": f"HostKey {self.home / 'host_key'}",
            "PidFile /run/comity-sshd.pid": "PidFile none",
            "AllowGroups comity-owners": f"AllowGroups {grp.getgrgid(user.pw_gid).gr_name}",
            "AuthorizedKeysFile /etc/comity/sshd/keys/%u": f"AuthorizedKeysFile {self.home / 'keys'}/%u",
            "ChrootDirectory /srv/comity/sftp/%u": f"ChrootDirectory {self.home / 'sftp'}/%u",
        }
        if not ROOT:
            replaced["ChrootDirectory /srv/comity/sftp/%u"] = ""
            replaced["ForceCommand internal-sftp"] = f"ForceCommand internal-sftp -d {self.folder}"
            replaced["StrictModes yes"] = "StrictModes no"
        for old, new in replaced.items():
            assert text.count(f"\n{old}") == 1, old
            text = text.replace(f"\n{old}", f"\n{new}")
        return text

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        pytest.fail(f"sshd did not start: {self.log.read_text()}")

    def connect(self, **changes):
        arguments = {"key_file": self.home / "owner_key", "host_key": self.host_key.public} | changes
        return connect(SftpEndpoint("de-1", "127.0.0.1", self.port), self.account, **arguments)

    def inbox(self, name: str) -> Path:
        return self.folder / "inbox" / name

    def stop(self) -> None:
        # The master collects its sessions' processes; without it nobody may.
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + 5
        while children.exists() and children.read_text().strip() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    # sshd insists that every folder above a chroot and above keys belongs to root and is writable by nobody else
    home = Path(tempfile.mkdtemp(prefix="comity-sshd-", dir="/var/lib")) if ROOT else tmp_path_factory.mktemp("sshd")
    home.chmod(0o755)
    server = None
    try:
        server = Sshd(home)
        yield server
    finally:
        if server is not None:
            server.stop()
        for path in home.rglob("*"):
            path.chmod(0o700)
        shutil.rmtree(home)


@pytest.fixture
def sftp(sshd):
    with sshd.connect() as session:
        yield session


def denied(action):
    with pytest.raises(OSError):
        action()


def test_a_delivery_is_whole_readable_by_the_intake_group_alone_and_repeated_as_a_no_op(sshd, sftp):
    data = bytes(range(256)) * 1000
    assert not put_once(sftp, "part.de-1", data).was_there
    assert put_once(sftp, "part.de-1", data).was_there
    found = sshd.inbox("part.de-1").stat()
    assert (found.st_size, found.st_mode & 0o777) == (len(data), 0o040)
    if ROOT:
        assert found.st_gid == 1
        assert sshd.inbox("part.de-1").read_bytes() == data


def test_a_delivered_file_is_neither_overwritten_nor_read_back_nor_removed_nor_altered(sshd, sftp):
    put_once(sftp, "kept", b"first")
    for action in (
        lambda: sftp.open("inbox/kept", "r"),
        lambda: sftp.open("inbox/kept", "w"),
        lambda: sftp.open("inbox/kept", "r+"),
        lambda: sftp.open("inbox/kept", "a"),
        lambda: sftp.remove("inbox/kept"),
        lambda: sftp.chmod("inbox/kept", 0o777),
        lambda: sftp.chmod("inbox", 0o777),
        lambda: sftp.truncate("inbox/kept", 0),
        lambda: sftp.utime("inbox/kept", (0, 0)),
        lambda: sftp.symlink("/etc/passwd", "inbox/link"),
        lambda: sftp.mkdir("inbox/folder"),
        lambda: sftp.rmdir("inbox"),
        lambda: sftp.listdir("inbox"),
    ):
        denied(action)
    with sftp.open("inbox/kept.9.part", "wx") as file:
        file.write(b"second")
    denied(lambda: sftp.rename("inbox/kept.9.part", "inbox/kept"))
    denied(lambda: sftp.posix_rename("inbox/kept.9.part", "inbox/kept"))
    assert sshd.inbox("kept").stat().st_size == 5
    with pytest.raises(DeliveryError, match="NAME_TAKEN"):
        put_once(sftp, "kept", b"longer than first")


def test_the_outbox_is_read_only(sftp):
    assert fetch_new(sftp, "keys", set(), 1 << 20) == [("2026-10", b"key of the period")]
    assert fetch_new(sftp, "notices", set(), 1 << 20) == []
    for action in (
        lambda: sftp.open("outbox/keys/2026-10", "w"),
        lambda: sftp.open("outbox/keys/new", "w"),
        lambda: sftp.open("outbox/new", "w"),
        lambda: sftp.remove("outbox/keys/2026-10"),
        lambda: sftp.rename("outbox/keys/2026-10", "inbox/2026-10"),
        lambda: sftp.rename("outbox/keys/2026-10", "outbox/other"),
    ):
        denied(action)
    assert sftp.stat("outbox/keys/2026-10").st_size == 17


@pytest.mark.skipif(not ROOT, reason="a chroot needs root")
def test_the_owner_sees_its_two_folders_and_nothing_above(sftp):
    assert sorted(sftp.listdir("/")) == ["inbox", "outbox"]
    assert sorted(sftp.listdir("../../..")) == ["inbox", "outbox"]
    for path in ("/etc/passwd", "../../../etc/passwd"):
        denied(lambda path=path: sftp.stat(path))


def test_nothing_but_sftp_with_a_pinned_key(sshd, sftp, tmp_path):
    transport = sftp.get_channel().get_transport()
    channel = transport.open_session()
    try:
        channel.exec_command("echo shell")
        assert b"shell" not in channel.recv(100)  # the forced command answers, in SFTP
    except paramiko.SSHException:
        pass
    with pytest.raises(paramiko.ChannelException):
        transport.open_channel("direct-tcpip", ("127.0.0.1", sshd.port), ("127.0.0.1", 1))
    with pytest.raises(paramiko.SSHException):
        transport.request_port_forward("127.0.0.1", 0)
    pki.create_ssh_key().save(tmp_path / "stranger")
    with pytest.raises(ConfigError, match="AUTH_REFUSED"), sshd.connect(key_file=tmp_path / "stranger"):
        pass
    with pytest.raises(ConfigError, match="HOST_KEY_MISMATCH"), sshd.connect(host_key=pki.create_ssh_key().public):
        pass


def test_a_broken_connection_leaves_a_part_and_the_retry_is_whole(sshd):
    data = bytes(2_000_000)
    with sshd.connect() as sftp:
        file = sftp.open("inbox/broken.1.part", "wx")
        file.write(data[:100_000])
        sftp.get_channel().get_transport().sock.close()
        with pytest.raises(PeerUnavailable):
            put_once(sftp, "broken", data)
    with sshd.connect() as sftp:
        assert not put_once(sftp, "broken", data).was_there
    assert sshd.inbox("broken").stat().st_size == len(data)
