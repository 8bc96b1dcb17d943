"""A spool without room: what could not be written is written later, in order, and nobody is stopped by it."""

from __future__ import annotations

import errno
import io

import pytest

from mpc_ops.server import outbox
from mpc_ops.server.context import EventLog
from tests.support.federation import SMALL, make_federation, make_plan
from tests.support.operators import make_world


class _Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def world(tmp_path):
    made = make_federation(tmp_path, SMALL)
    found = make_world(tmp_path, made, make_plan(made.federation, min_owners=2))
    yield found
    found.net.close()


def test_a_log_that_can_not_be_written_stops_nobody():
    EventLog("de-1", _Full())("started", boot=1)


def test_files_for_owners_wait_for_room_and_then_all_come(world, monkeypatch):
    true = outbox.publish_file

    def full(path, data, **more):
        if "/de-2/" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        true(path, data, **more)

    monkeypatch.setattr(outbox, "publish_file", full)
    filings = world.file_all()
    world.net.run(3)
    for sealed in filings:
        owner = sealed.filed.notice.owner
        assert not world.desk.outbox("de-2", owner, "receipt")
        assert world.desk.receipts(sealed) == {"de-1", "de-2", "de-3"}  # the other relays hand out its receipt
    said = world.net.events("de-2", "disk_full")
    assert {(one["code"], one["why"]) for one in said} == {("DISK_FULL", "No space left on device")}
    monkeypatch.undo()
    world.net.run(1)
    for sealed in filings:
        receipts = world.desk.outbox("de-2", sealed.filed.notice.owner, "receipt")
        assert {signed.notice.operator for signed in receipts} == {"de-1", "de-2", "de-3"}


def test_files_that_were_never_written_come_after_a_restart(world, monkeypatch):
    def full(_path, _data, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outbox, "publish_file", full)
    filings = world.file_all()
    world.net.kill("de-2")
    world.net.start("de-2")  # with the disk still full
    world.net.run(1)
    monkeypatch.undo()
    world.net.run(1)
    for sealed in filings:
        assert len(world.desk.outbox("de-2", sealed.filed.notice.owner, "receipt")) == 3
