"""The drop box of a region operator lists exactly the owners that deliver to it, with the keys of the directory."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mpc_ops.cli import run
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import Purpose
from mpc_ops.envelope.schema import encode
from mpc_ops.errors import ConfigError
from mpc_ops.federation.loaded import DIRECTORY_TYPE
from mpc_ops.federation.pki import ssh_fingerprint
from mpc_ops.server.sftp.accounts import accounts_of, write_sftp_config
from mpc_ops.server.sftp.config import load_config
from tests.support.federation import DEMO, MadeFederation, make_federation


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeFederation:
    regions = {code: DEMO[code] for code in ("DE", "CN")}
    endpoints = {"de-1": {"link": "127.0.0.1:2", "sftp": "127.0.0.1:1"}}
    return make_federation(tmp_path_factory.mktemp("federation"), regions, endpoints=endpoints)


def test_the_owners_of_the_region_and_no_others(made: MadeFederation) -> None:
    assert sorted(accounts_of(made.federation, "de-2")) == ["de-nord", "de-sued", "de-west"]
    assert sorted(accounts_of(made.federation, "cn-1")) == ["cn-east", "cn-south"]


@pytest.mark.parametrize("name", ["nl-1", "group-reporting", "stranger"])
def test_who_serves_no_region_has_no_drop_box(made: MadeFederation, name: str) -> None:
    with pytest.raises(ConfigError, match=r"PARTY_FOREIGN.*no owner delivers.*Only operators of a region cluster"):
        accounts_of(made.federation, name)


def test_an_owner_without_key_or_valid_entry_is_named(made: MadeFederation) -> None:
    entry = made.federation.directory["de-nord"]

    def with_entry(**changes: object) -> object:
        changed = msgspec.structs.replace(entry, version=2, **changes)
        key = made.keys["de-nord"]
        return made.federation.with_directory([Envelope.sign(DIRECTORY_TYPE, encode(changed), key, Purpose.DIRECTORY)])

    with pytest.raises(ConfigError, match=r"DIRECTORY_INCOMPLETE.*no SSH key.*owner=de-nord"):
        accounts_of(with_entry(ssh_keys=[]), "de-1")
    with pytest.raises(ConfigError, match=r"DIRECTORY_EXPIRED.*party=de-nord"):
        accounts_of(with_entry(valid_to="2020-01-01T00:00:00Z"), "de-1")


def test_the_written_file_is_what_the_server_reads(made: MadeFederation, tmp_path: Path) -> None:
    config = load_config(write_sftp_config(tmp_path, "de-1", made.federation))
    assert (config.listen_host, config.listen_port) == ("127.0.0.1", 1)
    assert config.host_key == tmp_path / "keys" / "ssh_host_ed25519"
    keys = made.federation.entry("de-sued").ssh_keys
    assert config.accounts["de-sued"] == {ssh_fingerprint(key) for key in keys}
    again = load_config(write_sftp_config(tmp_path, "de-1", made.federation, "127.0.0.1:0"))
    assert again.listen_port == 0


def test_an_operator_without_address_is_told(made: MadeFederation, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"DIRECTORY_INCOMPLETE.*names no SFTP address"):
        write_sftp_config(tmp_path, "de-2", made.federation)
    with pytest.raises(ConfigError, match="CONFIG_INVALID"):
        write_sftp_config(tmp_path, "de-2", made.federation, "here")


def test_the_command_needs_a_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["operator", "drop-box", "--home", str(tmp_path)]) == 3
    assert "FILE_MISSING" in capsys.readouterr().err
