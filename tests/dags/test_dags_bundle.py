"""ReleaseBundle: the version is the DAG file and the releases, and a run stays on the version it began with."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import BundleDagBag

from local_stores.airflow_provider import bundle as bundle_module
from local_stores.airflow_provider.bundle import ReleaseBundle, bundle_version, installed_dag_file
from mpc_ops.errors import ConfigError, LocalProtocolError
from tests.support import fake_steps


@pytest.fixture
def site(steps, tmp_path, monkeypatch):
    releases = tmp_path / "releases"
    fake_steps.write_release(releases, "monthly", fake_steps.month_rows(["2026-07"]))
    path = fake_steps.write_site(tmp_path / "site.toml", releases=releases)
    monkeypatch.setenv("COMITY_SITE", str(path))
    return path, releases


def make(site, tmp_path, version=None):
    bundle = ReleaseBundle(name=f"b-{tmp_path.name}", site_toml=str(site[0]), version=version)
    bundle.initialize()
    return bundle


def test_version_follows_the_releases(site, tmp_path):
    bundle = make(site, tmp_path)
    before = bundle.get_current_version().version
    assert before == bundle_version(installed_dag_file(), site[1])
    assert len(before) == 64
    bundle.refresh()
    assert bundle.get_current_version().version == before, "nothing changed"
    fake_steps.write_release(site[1], "monthly", fake_steps.month_rows(["2026-07", "2026-08"]), version="2")
    bundle.refresh()
    assert bundle.get_current_version().version != before
    assert sorted(path.name for path in (bundle.path.parent / "releases").iterdir()) == [
        "monthly-1.json",
        "monthly-2.json",
    ]


def test_a_run_stays_on_its_version(site, tmp_path):
    old = make(site, tmp_path).get_current_version().version
    (site[1] / "monthly-1.json").unlink()
    fake_steps.write_release(site[1], "monthly", fake_steps.month_rows(["2026-09"]), version="2")
    new = make(site, tmp_path)
    pinned = make(site, tmp_path, version=old)
    pinned.refresh()
    assert pinned.get_current_version().version == old != new.get_current_version().version
    assert (pinned.path.parent / "releases" / "monthly-1.json").exists()
    assert not (pinned.path.parent / "releases" / "monthly-2.json").exists()
    assert (pinned.path / "comity_dags.py").read_bytes() == installed_dag_file().read_bytes()


def test_a_version_that_is_gone_is_said_so(site, tmp_path):
    with pytest.raises(LocalProtocolError, match="BUNDLE_VERSION_GONE"):
        make(site, tmp_path, version="0" * 64)


def test_a_copy_that_was_deleted_is_made_again(site, tmp_path):
    first = make(site, tmp_path)
    version = first.get_current_version().version
    shutil.rmtree(first.path.parent)
    assert (make(site, tmp_path, version=version).path / "comity_dags.py").is_file()


def test_releases_are_data_and_never_run(site, tmp_path):
    """Headquarters writes releases: Python or a zip among them must not become a DAG file."""
    code = "from airflow.sdk import DAG\nDAG('evil')\n"
    (site[1] / "evil.py").write_text(code)
    with zipfile.ZipFile(site[1] / "evil.zip", "w") as archive:
        archive.writestr("evil.py", code)
    bundle = make(site, tmp_path)
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    assert not bag.import_errors
    assert sorted(bag.dags) == ["file_monthly__DE-1", "outcome_monthly__DE-1", "snapshot_orders__DE-1"]
    assert [path.name for path in bundle.path.iterdir() if path.suffix == ".py"] == ["comity_dags.py"]


def test_links_hidden_and_unfinished_files_are_left_out(site, tmp_path):
    before = bundle_version(installed_dag_file(), site[1])
    (site[1] / "link.json").symlink_to("/etc/hostname")
    (site[1] / ".hidden.json").write_text("x")
    (site[1] / "half.json.tmp").write_text("x")
    assert bundle_version(installed_dag_file(), site[1]) == before


def test_limits(site, monkeypatch):
    monkeypatch.setattr(bundle_module, "_LIMIT_BYTES", 10)
    with pytest.raises(ConfigError, match="a release is too large"):
        bundle_version(installed_dag_file(), site[1])
    monkeypatch.setattr(bundle_module, "_LIMIT_FILES", 0)
    with pytest.raises(ConfigError, match="more than 0 files"):
        bundle_version(installed_dag_file(), site[1])


def test_names_and_contents_cannot_be_traded(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name, text in ((one, "ab", "c"), (two, "a", "bc")):
        folder.mkdir()
        (folder / name).write_text(text)
    assert bundle_version(installed_dag_file(), one) != bundle_version(installed_dag_file(), two)


def test_the_dag_file_is_short_and_one_call():
    lines = [line for line in Path(installed_dag_file()).read_text().splitlines() if line.strip()]
    assert len(lines) <= 120
    assert sum("build_dags(" in line for line in lines) == 1
