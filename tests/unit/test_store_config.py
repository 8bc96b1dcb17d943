"""Site and owner files: strict reading, secrets, state that is written whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from local_stores.config import State, create_owner_home, create_site, load_site, site_for_owner
from mpc_ops.errors import ComityError, ConfigError, LocalDataError, StoreUnavailable

STORE = {"dataset": "sales_line", "kind": "csv", "location": "books.csv", "columns": {"revenue_lc": "Net revenue"}}


def make(folder: Path, **more: str) -> Path:
    home = folder / "acme"
    create_owner_home(home, "acme", stores=[{**STORE, **more}], federation="../federation")
    return home


def test_store_config_round_trip(tmp_path):
    home = make(tmp_path)
    site = site_for_owner(home)
    owner = site.owner("acme")
    assert list(site.owners) == ["acme"]
    assert not site.is_recipient
    assert site.federation_dir == (tmp_path / "federation").resolve()
    assert owner.store("sales_line").location == str(home.resolve() / "books.csv")
    assert owner.store("sales_line").source_name("revenue_lc") == "Net revenue"
    assert repr(owner.store("sales_line")) == "StoreConfig(sales_line, csv)"


def test_store_config_site_of_several_owners(tmp_path):
    for name in ("de-nord", "de-sued"):
        create_owner_home(tmp_path / name, name, stores=[STORE], site="../site.toml")
    (tmp_path / "group").mkdir()
    site = create_site(tmp_path, "de", owners=["de-nord", "de-sued"], group="group")
    assert list(site.owners) == ["de-nord", "de-sued"]
    assert site.is_recipient
    assert site_for_owner(tmp_path / "de-sued").owner("de-sued").id == "de-sued"
    with pytest.raises(ConfigError, match=r"OWNER_UNKNOWN: site.toml names no owner cn; expected de-nord, de-sued"):
        site.owner("cn")
    with pytest.raises(ConfigError, match="STORE_UNKNOWN"):
        site.owner("de-nord").store("payroll")


def test_store_config_never_overwrites(tmp_path):
    home = make(tmp_path)
    with pytest.raises(ConfigError, match="FILE_EXISTS"):
        create_owner_home(home, "acme")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[owner\n", "TOML_INVALID"),
        ('[owner]\nid = "acme"\ncolour = "red"\n', "SCHEMA_INVALID"),
        ("[owner]\nid = 3\n", "SCHEMA_INVALID"),
        ('[owner]\nid = "Acme"\n', "NAME_INVALID"),
        ('[owner]\nid = "acme"\n[[stores]]\ndataset = "x"\nkind = "oracle"\nlocation = "."\n', "SCHEMA_INVALID"),
        (
            '[owner]\nid = "acme"\n[[stores]]\ndataset = "x"\nkind = "csv"\nlocation = "."\nquery = "SELECT 1"\n',
            "SITE_INVALID",
        ),
        (
            '[owner]\nid = "acme"\n[[stores]]\ndataset = "x"\nkind = "postgres"\nlocation = "host=a password=hunter2"\n',
            "SECRET_IN_CONFIG",
        ),
        (
            '[owner]\nid = "acme"\n[[stores]]\ndataset = "x"\nkind = "postgres"\nlocation = "postgresql://u:hunter2@a/b"\n',
            "SECRET_IN_CONFIG",
        ),
    ],
)
def test_store_config_bad_files(tmp_path, text, code):
    home = make(tmp_path)
    (home / "owner.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_site(home / "site.toml")
    assert caught.value.code == code
    assert "hunter2" not in str(caught.value)
    assert code == "NAME_INVALID" or "owner.toml" in str(caught.value)


def test_store_config_toml_error_shows_place_not_text(tmp_path):
    home = make(tmp_path)
    (home / "owner.toml").write_text('[owner]\nid = "acme"\nsecret = hunter2\n')
    with pytest.raises(ConfigError, match=r"TOML_INVALID: not TOML \(at line 3") as caught:
        load_site(home / "site.toml")
    assert "hunter2" not in str(caught.value)


def test_store_config_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="FILE_MISSING"):
        load_site(tmp_path / "site.toml")


def test_store_config_password_from_file_or_environment(tmp_path, monkeypatch):
    home = make(tmp_path, kind="postgres", location="host=localhost dbname=books", password_env="BOOKS_PW")
    store = site_for_owner(home).owner("acme").store("sales_line")
    with pytest.raises(ConfigError, match="SECRET_MISSING"):
        store.password()
    monkeypatch.setenv("BOOKS_PW", "hunter2")
    assert store.password() == "hunter2"
    assert "hunter2" not in repr(store)
    other = tmp_path / "other"
    create_owner_home(
        other,
        "beta",
        stores=[{"dataset": "x", "kind": "postgres", "location": "host=localhost", "password_file": "pw"}],
        federation="..",
    )
    (other / "pw").write_text("hunter3\n")
    (other / "pw").chmod(0o644)
    store = site_for_owner(other).owner("beta").store("x")
    with pytest.raises(ConfigError, match="SECRET_PERMISSIONS"):
        store.password()
    (other / "pw").chmod(0o600)
    assert store.password() == "hunter3"


def test_store_state_is_written_whole(tmp_path):
    state = State(str(tmp_path / "state"))
    assert state.read("a/b.json") is None
    assert state.names("a") == []
    state.write("a/b.json", b"1")
    state.write("a/b.json", b"22")
    assert state.read("a/b.json") == b"22"
    assert state.write_once("a/c.json", b"first") == b"first"
    assert state.write_once("a/c.json", b"second") == b"first"
    assert state.names("a") == ["b.json", "c.json"]
    assert (tmp_path / "state/a/b.json").stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="STATE_MISSING"):
        state.require("a/d.json")
    for name in ("../a", "/etc/passwd", "a//b", ".hidden", "a/../b", ""):
        with pytest.raises(ConfigError, match="NAME_INVALID"):
            state.write(name, b"")


def test_store_state_through_fsspec():
    state = State("memory://comity-test")
    assert state.folder is None
    assert state.read("a/b") is None
    state.write("a/b", b"x")
    assert state.read("a/b") == b"x"
    assert state.write_once("a/b", b"y") == b"x"
    assert state.names("a") == ["b"]
    state.remove("a/b")
    assert state.names("a") == []


@pytest.mark.parametrize(
    ("number", "code", "kind"),
    [(errno.ENOSPC, "DISK_FULL", LocalDataError), (errno.EIO, "STATE_UNAVAILABLE", StoreUnavailable)],
)
def test_store_state_disk_full(tmp_path, monkeypatch, number, code, kind):
    state = State(str(tmp_path / "state"))
    state.write("a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ComityError) as caught:
        state.write("a", b"new")
    assert (caught.value.code, type(caught.value)) == (code, kind)
    monkeypatch.undo()
    assert state.read("a") == b"old"
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["a"]
