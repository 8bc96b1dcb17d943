"""Delivery through an Airflow connection to a real drop-box server: the pinned host key decides."""

from __future__ import annotations

import pytest

from infra.airflow.runs import run_dag_tests
from local_stores.delivery.sftp import put_once
from mpc_ops.errors import ComityError
from mpc_ops.federation import pki
from tests.support import fake_steps
from tests.support.sftp import SftpSite

FILE = "file_group_performance__de-nord"
OTHER = pki.create_ssh_key().public


@pytest.fixture
def server(steps, tmp_path, monkeypatch):
    """One embedded server that stands for all three operators, and a delivery that uses it."""
    site = SftpSite.make(tmp_path / "operator", accounts=("de-nord",))
    site.refused = []

    def deliver(_site, owner, filing, operator, open_sftp=None):
        fake_steps.deliver(_site, owner, filing, operator, open_sftp)
        try:
            with open_sftp(operator) as sftp:
                put = put_once(sftp, f"part.{operator}.{'a' * 64}", b"sealed", party=operator)
        except ComityError as error:
            site.refused.append(error.code)
            raise
        return {"name": put.name, "was_there": put.was_there}

    monkeypatch.setattr("local_stores.filing.deliver", deliver)
    monkeypatch.setattr(fake_steps.FakeHome, "ssh_key_path", site.keys["de-nord"])
    with site.running():
        yield site


def listed(monkeypatch, server, *host_keys):
    entry = fake_steps.FakeEntry(f"127.0.0.1:{server.port}", host_keys)
    monkeypatch.setattr(fake_steps.FakeFederation, "entry", lambda self, operator: entry)


def filed(airflow_home, site_toml):
    (result,) = run_dag_tests(airflow_home, site_toml, [(FILE, "2026-07")])
    return result


def test_parts_arrive_once_each(server, monkeypatch, airflow_home, site_toml):
    listed(monkeypatch, server, server.host_key.public)
    assert filed(airflow_home, site_toml).state == "success"
    names = sorted(path.name for path in server.inbox("de-nord").rglob("part.*"))
    assert names == [f"part.{operator}.{'a' * 64}" for operator in ("de-1", "de-2", "de-3")]
    assert filed(airflow_home, site_toml).state == "success", "the same again is no news"


def test_either_key_of_a_rotation_is_accepted(server, monkeypatch, airflow_home, site_toml):
    listed(monkeypatch, server, OTHER, server.host_key.public)
    assert filed(airflow_home, site_toml).state == "success"


def test_another_host_key_fails_at_once_and_nothing_is_sent(server, monkeypatch, airflow_home, site_toml):
    listed(monkeypatch, server, OTHER)
    result = filed(airflow_home, site_toml)
    assert result.tasks["deliver[0]"] == "failed"
    assert list(server.inbox("de-nord").rglob("part.*")) == []
    assert server.refused == ["HOST_KEY_MISMATCH"] * 3, "one try for each operator"


def test_a_known_hosts_entry_does_not_stand_in_for_the_pinned_key(
    server, monkeypatch, airflow_home, site_toml, tmp_path
):
    """Airflow's SFTPHook prefers `~/.ssh/known_hosts` to the pinned key; the drop-box hook must not."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {server.host_key.public}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    listed(monkeypatch, server, OTHER)
    assert filed(airflow_home, site_toml).tasks["deliver[0]"] == "failed"
    assert server.refused == ["HOST_KEY_MISMATCH"] * 3
