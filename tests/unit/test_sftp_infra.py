"""The units in infra/systemd parse, name programs that exist, and take away what is not needed."""

import configparser
import importlib.util
from pathlib import Path

import pytest

INFRA = Path(__file__).parents[2] / "infra"
SERVICES = sorted((INFRA / "systemd").glob("*.service"))
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "RestrictNamespaces": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
}


def parse(path: Path) -> dict[str, dict[str, list[str]]]:
    sections: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in path.read_text().splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("["):
            section = text.strip("[]")
            assert section not in sections, f"{path.name}: [{section}] stands twice"
            sections[section] = {}
            continue
        name, equals, value = text.partition("=")
        assert equals, f"{path.name}: no assignment: {text}"
        assert name.isalnum(), f"{path.name}: {name}"
        sections[section].setdefault(name, []).append(value)
    return sections


def test_there_are_units_for_every_process():
    assert [path.name for path in SERVICES] == [
        "comity-operator@.service",
        "comity-sftp-tidy.service",
        "comity-sftp@.service",
        "comity-sshd.service",
    ]


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_a_service_is_complete_and_hardened(path):
    unit = parse(path)
    assert unit["Unit"]["Description"]
    (command,) = unit["Service"]["ExecStart"]
    assert command.startswith("/")
    for name, value in HARDENED.items():
        assert unit["Service"].get(name) == [value], name
    assert "CapabilityBoundingSet" in unit["Service"]
    if "Install" in unit:
        assert unit["Install"]["WantedBy"] == ["multi-user.target"]


@pytest.mark.parametrize("name", ["comity-operator@.service", "comity-sftp@.service"])
def test_our_own_processes_run_without_root_and_their_module_exists(name):
    service = parse(INFRA / "systemd" / name)["Service"]
    assert service["User"][0].startswith("comity")
    assert service["CapabilityBoundingSet"] == [""]
    assert service["LimitCORE"] == ["0"]
    words = service["ExecStart"][0].split()
    assert importlib.util.find_spec(words[words.index("-m") + 1]) is not None


def test_the_two_processes_that_meet_in_the_spool_are_different_users():
    users = {
        parse(INFRA / "systemd" / f"comity-{name}@.service")["Service"]["User"][0] for name in ("operator", "sftp")
    }
    assert len(users) == 2


def test_the_timer_parses_and_its_service_exists():
    timer = configparser.ConfigParser(interpolation=None)
    timer.optionxform = str
    timer.read(INFRA / "systemd" / "comity-sftp-tidy.timer")
    assert timer["Timer"]["OnCalendar"] == "daily"
    assert (INFRA / "systemd" / "comity-sftp-tidy.service").exists()


def test_sshd_offers_no_request_that_changes_what_was_delivered():
    text = (INFRA / "sshd" / "sshd_config").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("ForceCommand ")]
    requests = set(line.split(" -p ")[1].split(","))
    assert {"open", "write", "close", "stat", "rename", "read", "opendir", "readdir"} <= requests
    assert not requests & {
        "remove",
        "rmdir",
        "mkdir",
        "setstat",
        "fsetstat",
        "lsetstat",
        "symlink",
        "hardlink",
        "posix-rename",
    }
    assert "-u 0737" in line
