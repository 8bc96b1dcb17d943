"""`comity doctor` over a home: one line per question, exit code 3 if something would stop the operator."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mpc_ops.cli import run
from mpc_ops.server.config import create_operator_home
from mpc_ops.server.diagnose import diagnose
from mpc_ops.server.doctor import Level
from tests.support.federation import MadeFederation, make_federation

PORTS = {"de-1": 1, "de-2": 2, "de-3": 3, "nl-1": 4, "ch-1": 5, "sg-1": 6}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeFederation:
    endpoints = {name: {"link": f"127.0.0.1:{port}"} for name, port in PORTS.items()}
    endpoints["de-1"]["sftp"] = "127.0.0.1:7"
    return make_federation(tmp_path_factory.mktemp("federation"), endpoints=endpoints)


@pytest.fixture
def home(made: MadeFederation, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(made.homes["de-1"], tmp_path / "de-1"))
    shutil.copytree(made.folder, tmp_path / "federation")
    create_operator_home(folder, "de-1", tmp_path / "federation")
    return folder


def test_a_home_whose_peers_are_down(home: Path) -> None:
    found = {(item.check, item.subject): item for item in diagnose(home)}
    for name in ("identity.pem", "sealing.key", "leaf.key", "ssh_host_ed25519"):
        assert found["key", name].level is Level.OK
    assert found["certificate", "leaf.pem"].level is Level.OK
    assert found["federation", "federation"].level is Level.OK
    # It dials the higher ranks of its cluster and every group operator, nobody else.
    down = {subject for (check, subject), item in found.items() if check == "port" and item.code == "PORT_UNREACHABLE"}
    assert down == {"de-1 (drop box)", "de-2", "de-3", "nl-1", "ch-1", "sg-1"}


def test_the_command_prints_every_finding_and_fails(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "keys" / "identity.pem").chmod(0o644)
    assert run(["doctor", "--home", str(home)]) == 3
    out = capsys.readouterr().out
    assert "fail key identity.pem: a key file is readable by others. Run chmod 600 on it" in out
    assert "fail port nl-1: 127.0.0.1:4 cannot be reached" in out


def test_a_broken_federation_folder_is_one_finding(home: Path) -> None:
    rules = home.parent / "federation" / "rules" / "de-demo.json"
    rules.write_text(json.dumps({}))
    last = list(diagnose(home))[-1]
    assert (last.check, last.level, last.code) == ("federation", Level.FAIL, "RULE_PACK_DIGEST")


def test_a_missing_entry_names_the_party(home: Path) -> None:
    (home.parent / "federation" / "directory" / "ch-1.dsse").unlink()
    last = list(diagnose(home))[-1]
    assert (last.check, last.subject, last.code) == ("directory", "ch-1", "DIRECTORY_MISSING")


def test_no_home_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--home", str(tmp_path / "nowhere")]) == 3
    assert capsys.readouterr().err.startswith("FILE_MISSING: a file cannot be read")
