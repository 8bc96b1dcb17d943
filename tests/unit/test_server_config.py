"""operator.toml, the journal's units, and the commands of an operator's administrator."""

from __future__ import annotations

import stat

import pytest

from mpc_ops.cli import run
from mpc_ops.errors import ComityError, ConfigError
from mpc_ops.server.config import Limits, create_operator_home, load_config, parse_address
from mpc_ops.server.durable import publish_file, remove_file
from mpc_ops.server.store import Store, VolumeLock
from tests.support.federation import SMALL, make_federation


def write(home, text: str):
    home.mkdir(exist_ok=True)
    (home / "operator.toml").write_text(text)
    return home


def test_a_configuration_has_defaults_and_absolute_paths(tmp_path):
    config = load_config(write(tmp_path, 'id = "de-1"\nfederation = "../federation"\n'))
    assert config.link == ("127.0.0.1", 0)
    assert config.spool == tmp_path / "spool"
    assert config.federation == tmp_path.parent / "federation"
    assert config.limits == Limits()


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ('id = "de-1"\nfederation = "f"\nfoo = 1\n', "SCHEMA_INVALID", "foo"),
        ('id = "de-1"\nfederation = "f"\n[limits]\nscan = 1\n', "SCHEMA_INVALID", "scan"),
        ('id = "de-1"\nfederation = "f"\n[limits]\nscan_s = "1"\n', "SCHEMA_INVALID", "scan_s"),
        ('id = "de-1"\nfederation = "f"\n[limits]\nscan_s = 0\n', "CONFIG_INVALID", "scan_s"),
        ('id = "de-1"\n', "SCHEMA_INVALID", "federation"),
        ('id = "DE 1"\nfederation = "f"\n', "NAME_INVALID", "operator id"),
        ('id = "de-1"\nfederation = "f"\nlink = "nowhere"\n', "CONFIG_INVALID", "link"),
        ('id = "de-1"\nfederation = "f"\napi = "host:99999"\n', "CONFIG_INVALID", "api"),
        ("id = de-1\n", "CONFIG_INVALID", "TOML"),
    ],
)
def test_wrong_configurations_are_refused_and_the_place_is_named(tmp_path, text, code, word):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    assert caught.value.code == code
    assert word in str(caught.value)


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(ConfigError, match="FILE_MISSING"):
        load_config(tmp_path)


def test_addresses_may_be_ipv6():
    assert parse_address("[::1]:80", "link") == ("::1", 80)


def test_a_home_is_written_once_and_only_for_operators_of_the_federation(tmp_path):
    made = make_federation(tmp_path, SMALL)
    config = create_operator_home(made.homes["de-1"], "de-1", made.folder, limits={"scan_s": 0.5})
    assert config.limits.scan_s == 0.5
    assert stat.S_IMODE(config.state.stat().st_mode) == 0o700
    with pytest.raises(ConfigError, match="CONFIG_EXISTS"):
        create_operator_home(made.homes["de-1"], "de-1", made.folder)
    with pytest.raises(ConfigError, match="PARTY_UNKNOWN"):
        create_operator_home(tmp_path / "x", "de-9", made.folder)


def test_a_unit_is_durable_as_a_whole_or_not_at_all(tmp_path):
    store = Store(tmp_path / "journal.sqlite")

    def fail(scope, value: str) -> None:
        with scope():
            store.set_meta("a", value)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(store.unit, "1")
    assert store.meta("a") is None
    with store.unit():
        store.set_meta("a", "2")
        with pytest.raises(ZeroDivisionError):
            fail(store.part, "3")
    assert store.meta("a") == "2"
    with pytest.raises(ComityError, match="WRITE_OUTSIDE_UNIT"):
        store.set_meta("a", "4")
    store.close()
    again = Store(tmp_path / "journal.sqlite")
    assert (again.meta("a"), again.next_boot(), again.next_boot()) == ("2", 1, 2)
    assert stat.S_IMODE((tmp_path / "journal.sqlite").stat().st_mode) == 0o600
    again.close()


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(ConfigError, match="STATE_UNREADABLE"):
        Store(tmp_path / "journal.sqlite")


def test_the_volume_is_locked_until_it_is_released(tmp_path):
    lock = VolumeLock(tmp_path)
    with pytest.raises(ConfigError, match="VOLUME_LOCKED"):
        VolumeLock(tmp_path)
    lock.release()
    VolumeLock(tmp_path).release()


def test_published_files_are_complete_and_never_changed(tmp_path):
    path = tmp_path / "outbox" / "x.dsse"
    publish_file(path, b"one")
    publish_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert [item.name for item in path.parent.iterdir()] == ["x.dsse"]
    assert remove_file(path)
    assert not remove_file(path)


def test_commands_set_up_and_show_an_operator(tmp_path, capsys):
    made = make_federation(tmp_path, SMALL)
    home, federation = str(made.homes["nl-1"]), str(made.folder)
    assert run(["operator", "init", "nl-1", "--home", str(tmp_path / "empty"), "--federation", federation]) == 3
    assert "SECRET_MISSING" in capsys.readouterr().err
    assert run(["operator", "status", "--home", home]) == 3
    assert run(["operator", "init", "nl-1", "--home", home, "--federation", federation]) == 0
    assert "comity operator run" in capsys.readouterr().out
    assert run(["operator", "status", "--home", home]) == 3
    assert "STATE_MISSING" in capsys.readouterr().err
    assert run(["operator", "run"]) == 2
