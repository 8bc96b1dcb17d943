"""Background processes are stopped by pid files that cannot name a stranger."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from infra.demo.background import MARK, Background

pytestmark = pytest.mark.e2e

SLEEP = "import time; time.sleep(120)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(120)"


@pytest.fixture
def background(tmp_path):
    return Background(tmp_path)


@pytest.fixture
def start(background):
    started = []

    def run(code=SLEEP, *, mark=True):
        env = {**os.environ, MARK: str(background.root)} if mark else {**os.environ}
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(command, env=env, start_new_session=True, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_nothing_there_is_fine(background):
    assert background.alive() == {}
    assert background.stop() == 0


def test_stops_what_was_recorded(background, start):
    processes = {name: start() for name in ("de-1", "people")}
    for name, process in processes.items():
        background.record(name, process.pid)
    assert background.alive() == {name: process.pid for name, process in processes.items()}
    assert background.stop() == 2
    assert [process.wait(5) for process in processes.values()] == [-15, -15]
    assert list(background.folder.iterdir()) == []


def test_another_process_with_the_same_pid_is_left_alone(background, start):
    """The pid file is of an earlier process: its start time differs."""
    stranger = start(mark=False)
    background.record("de-1", stranger.pid)
    path = background.folder / "de-1.pid"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "started": record["started"] - 1}))
    assert background.alive() == {}
    assert background.stop() == 0
    assert stranger.poll() is None


def test_a_pid_file_from_before_a_restart_of_the_machine_is_ignored(background, start):
    stranger = start(mark=False)
    background.record("de-1", stranger.pid)
    path = background.folder / "de-1.pid"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
    assert background.stop() == 0
    assert stranger.poll() is None


def test_children_that_outlived_their_parent_are_found_by_the_mark(background, start):
    child = start()
    assert background.alive() == {}
    assert background.marked() == [child.pid]
    assert background.stop() == 1
    assert child.wait(5) == -15


def test_one_that_ignores_the_request_is_killed(background, start, monkeypatch):
    monkeypatch.setattr("infra.demo.background._STOP_S", 0.5)
    stubborn = start(STUBBORN)
    stubborn.stdout.readline()
    background.record("de-1", stubborn.pid)
    assert background.stop() == 1
    assert stubborn.wait(5) == -9


def test_a_pid_that_has_ended_is_not_alive(background, start):
    process = start("pass")
    process.wait(10)
    background.record("de-1", process.pid)
    assert background.alive() == {}
