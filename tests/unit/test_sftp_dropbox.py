"""The drop box without SSH: nothing leads out of the spool, nothing is replaced, nothing is unbounded."""

import os
import threading

import pytest

from mpc_ops.errors import ComityError, ConfigError, DeliveryError, TransportError
from mpc_ops.server.sftp.config import SftpLimits
from mpc_ops.server.sftp.dropbox import AccountSpool, DropBox

SMALL = SftpLimits(max_file_bytes=100, max_account_bytes=250, max_account_files=4, min_free_bytes=0)


@pytest.fixture
def spool(tmp_path):
    return AccountSpool(tmp_path / "spool", "de-a", SMALL)


@pytest.fixture
def box(spool):
    box = DropBox(spool)
    yield box
    box.close()


def put(box, name, data=b"data"):
    file = box.create(f"inbox/{name}.part")
    file.write(0, data)
    file.close()
    return box.rename(f"inbox/{name}.part", f"inbox/{name}")


def refused(action, code):
    with pytest.raises(ComityError) as caught:
        action()
    assert caught.value.code == code
    return str(caught.value)


ESCAPES = [
    "../x.part",
    "inbox/../../x.part",
    "inbox/..",
    "inbox/a/b.part",
    "/etc/passwd",
    "/etc/x.part",
    "//inbox/..//x.part",
    "inbox/.hidden.part",
    "inbox/.part",
    "inbox/ü.part",
    "inbox/a\u202eb.part",
    "inbox/a\x00.part",
    "inbox/a b.part",
    "inbox/a\n.part",
    "inbox/a\\b.part",
    "inbox/" + "a" * 230 + ".part",
    "inbox" + "/x" * 600,
    "x.part",
    "other/x.part",
    "outbox/x.part",
    "inbox/final-name",
    "",
    "inbox",
]


@pytest.mark.parametrize("path", ESCAPES)
def test_no_path_creates_a_file_outside_the_own_inbox(box, tmp_path, path):
    refused(lambda: box.create(path), "SFTP_DENIED")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize(
    "path", [path for path in ESCAPES if path not in {"", "inbox", "inbox/final-name", "outbox/x.part"}]
)
def test_no_path_reads_or_shows_anything_outside(box, path):
    refused(lambda: box.open_outbox(path), "SFTP_DENIED")
    with pytest.raises(ComityError):
        box.stat(path)
    with pytest.raises(ComityError):
        box.entries(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("inbox/a.part", "inbox/b"),
        ("inbox/a.part", "outbox/a"),
        ("inbox/a.part", "inbox/a.part"),
        ("inbox/a.part", "../a"),
        ("inbox/a.part", "inbox/sub/a"),
        ("outbox/a.part", "inbox/a"),
        ("inbox/other.part", "inbox/other"),
        ("inbox/a.part", "inbox/" + "a" * 201),
    ],
)
def test_only_a_file_of_this_connection_gets_its_own_name(box, old, new):
    box.create("inbox/a.part").close()
    refused(lambda: box.rename(old, new), "SFTP_DENIED")


def test_a_name_is_given_once_and_its_bytes_never_change(box, spool):
    put(box, "a", b"first")
    file = box.create("inbox/a.0123.part")
    file.write(0, b"second")
    file.close()
    assert "FILE_EXISTS" in refused(lambda: box.rename("inbox/a.0123.part", "inbox/a"), "FILE_EXISTS")
    assert (spool.inbox / "a").read_bytes() == b"first"
    refused(lambda: box.create("inbox/a.0123.part"), "FILE_EXISTS")


def test_two_connections_race_for_one_name_and_one_wins(spool):
    boxes = [DropBox(spool) for _ in range(4)]
    for n, box in enumerate(boxes):
        file = box.create(f"inbox/a.{n}.part")
        file.write(0, bytes([n]))
        file.close()
    outcomes = []

    def rename(n):
        try:
            outcomes.append(boxes[n].rename(f"inbox/a.{n}.part", "inbox/a"))
        except ComityError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=rename, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(map(str, outcomes)) == ["1", "FILE_EXISTS", "FILE_EXISTS", "FILE_EXISTS"]
    [box.close() for box in boxes]
    assert [file.name for file in spool.inbox.iterdir()] == ["a"]


def test_an_open_or_failed_file_gets_no_name(box):
    file = box.create("inbox/a.part")
    file.write(0, b"x")
    refused(lambda: box.rename("inbox/a.part", "inbox/a"), "FILE_UNFINISHED")
    refused(lambda: file.write(5, b"hole"), "WRITE_ORDER")
    refused(lambda: file.write(0, b"again"), "WRITE_ORDER")
    file.close()
    refused(lambda: box.rename("inbox/a.part", "inbox/a"), "FILE_UNFINISHED")


def test_limits_per_file_and_per_account_hold(box):
    file = box.create("inbox/a.part")
    file.write(0, bytes(100))
    with pytest.raises(DeliveryError) as caught:
        file.write(100, b"x")
    assert "FILE_TOO_LARGE: the file is too large; expected at most 100 bytes" in str(caught.value)
    file.close()
    put(box, "b", bytes(100))
    third = box.create("inbox/c.part")
    refused(lambda: third.write(0, bytes(51)), "INBOX_FULL")
    third.close()
    put(box, "d", b"")
    assert "too many files" in refused(lambda: box.create("inbox/e.part"), "INBOX_FULL")


def test_what_the_operator_removes_makes_room_again(box, spool):
    for name in "ab":
        put(box, name, bytes(100))
    refused(lambda: put(box, "c", bytes(60)), "INBOX_FULL")
    (spool.inbox / "a").unlink()
    box.create("inbox/d.part").close()


def test_a_full_disk_is_said_so(tmp_path):
    box = DropBox(AccountSpool(tmp_path, "de-a", SftpLimits(min_free_bytes=1 << 48)))
    with pytest.raises(TransportError) as caught:
        box.create("inbox/a.part")
    assert str(caught.value) == "DISK_FULL: the operator's disk is full"
    box.close()


def test_a_disk_that_fills_while_writing_is_said_so_and_the_file_gets_no_name(box, monkeypatch):
    file = box.create("inbox/a.part")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    refused(lambda: file.write(0, b"x"), "DISK_FULL")
    file.close()
    refused(lambda: box.rename("inbox/a.part", "inbox/a"), "FILE_UNFINISHED")


def test_the_inbox_is_not_listed_and_shows_sizes_of_delivered_files_only(box, spool):
    put(box, "a", b"12345")
    other = DropBox(spool)
    other.create("inbox/b.part").close()
    refused(lambda: box.entries("inbox"), "SFTP_DENIED")
    assert box.stat("/inbox/a").size == 5
    refused(lambda: box.stat("inbox/b.part"), "NO_SUCH_FILE")
    refused(lambda: box.stat("inbox/c"), "NO_SUCH_FILE")
    refused(lambda: box.open_outbox("inbox/a"), "SFTP_DENIED")
    other.close()


def test_what_a_connection_leaves_unfinished_is_removed_with_it_and_at_the_start(spool, tmp_path):
    box = DropBox(spool)
    put(box, "a")
    box.create("inbox/b.part")
    box.create("inbox/c.part").close()
    box.close()
    assert [file.name for file in spool.inbox.iterdir()] == ["a"]
    (spool.inbox / "stale.part").write_bytes(b"x")
    AccountSpool(tmp_path / "spool", "de-a", SMALL)
    assert [file.name for file in spool.inbox.iterdir()] == ["a"]


def test_symbolic_links_and_pipes_planted_in_the_spool_lead_nowhere(box, spool, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"secret")
    (spool.outbox / "keys").mkdir()
    (spool.outbox / "link").symlink_to(secret / "key")
    (spool.outbox / "folder").symlink_to(secret)
    os.mkfifo(spool.outbox / "keys" / "pipe")
    (spool.inbox / "in").symlink_to(secret / "key")
    (spool.inbox / "w.part").symlink_to(secret / "new")
    for path in ("outbox/link", "outbox/folder/key", "outbox/keys/pipe"):
        refused(lambda path=path: box.open_outbox(path), "NO_SUCH_FILE")
        refused(lambda path=path: box.stat(path), "NO_SUCH_FILE")
    refused(lambda: box.entries("outbox/folder"), "NO_SUCH_FILE")
    refused(lambda: box.stat("inbox/in"), "NO_SUCH_FILE")
    assert [entry.name for entry in box.entries("outbox")] == ["keys"]
    assert box.entries("outbox/keys") == []
    refused(lambda: box.create("inbox/w.part"), "FILE_EXISTS")
    assert not (secret / "new").exists()
    file = box.create("inbox/in.0.part")
    file.close()
    refused(lambda: box.rename("inbox/in.0.part", "inbox/in"), "FILE_EXISTS")
    assert (secret / "key").read_bytes() == b"secret"


def test_an_account_folder_that_is_a_link_is_refused_at_the_start(tmp_path):
    (tmp_path / "spool/inbox").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "spool/inbox/de-a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError) as caught:
        AccountSpool(tmp_path / "spool", "de-a", SMALL)
    assert caught.value.code == "SPOOL_INVALID"


def test_the_outbox_is_listed_with_sizes_and_without_drafts(box, spool):
    (spool.outbox / "notices").mkdir()
    (spool.outbox / "notices" / "b.json").write_bytes(b"22")
    (spool.outbox / "notices" / "a.json").write_bytes(b"1")
    (spool.outbox / "notices" / ".draft").write_bytes(b"half")
    assert [(entry.name, entry.size) for entry in box.entries("/outbox/notices/")] == [("a.json", 1), ("b.json", 2)]
    assert [(entry.name, entry.is_folder) for entry in box.entries("/")] == [("inbox", True), ("outbox", True)]
    descriptor = box.open_outbox("outbox/notices/b.json")
    assert os.read(descriptor, 10) == b"22"
    os.close(descriptor)
    refused(lambda: box.open_outbox("outbox/notices/.draft"), "SFTP_DENIED")
    refused(lambda: box.open_outbox("outbox/notices"), "NO_SUCH_FILE")
    refused(lambda: box.entries("outbox/none"), "NO_SUCH_FILE")


def test_a_delivered_file_is_for_the_operators_group(box, spool):
    put(box, "a")
    assert (spool.inbox / "a").stat().st_mode & 0o777 == 0o640
    assert (spool.inbox).stat().st_mode & 0o7777 == 0o2770
