"""A DAG bundle made of the installed DAG file and the site's imported releases.

Its version is a digest of both. Airflow stores the version with every DAG run and starts the run's tasks, retries and
clears from the copy of that version, so a run stays on the release it began with, whatever is imported meanwhile.
Copies lie under `[dag_processor] dag_bundle_storage_path` and are a few kilobytes each; switch Airflow's removal of
old ones off (`stale_bundle_cleanup_interval = 0`), since a filing may wait for signatures longer than it remembers.

```
<storage>/<bundle name>/versions/<version>/dags/comity_dags.py   what Airflow is shown
                                           releases/...          a copy of the site's releases folder
```
Releases come from others, so they lie beside the folder that Airflow searches for Python and zip files, never in it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion

import local_stores
from local_stores.config import load_site
from mpc_ops.errors import ConfigError, LocalProtocolError

__all__ = ["DAGS_FOLDER", "DAG_FILE_NAME", "RELEASES_FOLDER", "ReleaseBundle", "bundle_version", "installed_dag_file"]

DAG_FILE_NAME = "comity_dags.py"
DAGS_FOLDER = "dags"
RELEASES_FOLDER = "releases"

_LIMIT_FILES = 10_000
_LIMIT_BYTES = 64 * 1024 * 1024  # of one release file; a release is signed text


def installed_dag_file() -> Path:
    """Return the DAG file of the installed distribution, or of the source tree where it runs from one.

    Raises:
        ConfigError: DAG_FILE_MISSING, with the places that were tried.
    """
    # The source tree first: an editable install may stand beside the data files of an older wheel.
    tried = (
        Path(local_stores.__file__).parents[1] / "dags" / DAG_FILE_NAME,
        Path(sysconfig.get_path("data"), "share", "comity", "dags", DAG_FILE_NAME),
    )
    for path in tried:
        if path.is_file():
            return path
    raise ConfigError("DAG_FILE_MISSING", "the DAG file is not installed", expected=" or ".join(map(str, tried)))


def _release_files(folder: Path) -> Iterator[Path]:
    # Symbolic links are left out: a version must be the bytes that were digested.
    paths = sorted(path for path in folder.rglob("*") if stat.S_ISREG(path.lstat().st_mode))
    if len(paths) > _LIMIT_FILES:
        raise ConfigError("RELEASES_FOLDER", f"the releases folder holds more than {_LIMIT_FILES} files")
    for path in paths:
        if path.name.startswith(".") or path.suffix == ".tmp":
            continue  # an import in progress
        if path.stat().st_size > _LIMIT_BYTES:
            raise ConfigError("RELEASES_FOLDER", "a release is too large", ids={"file": path.name})
        yield path


def _contents(dag_file: Path, releases: Path) -> dict[str, bytes]:
    contents = {f"{DAGS_FOLDER}/{DAG_FILE_NAME}": dag_file.read_bytes()}
    if releases.is_dir():
        for path in _release_files(releases):
            contents[f"{RELEASES_FOLDER}/{path.relative_to(releases).as_posix()}"] = path.read_bytes()
    return contents


def _digest(contents: dict[str, bytes]) -> str:
    total = hashlib.sha256(b"comity/bundle/v1")
    for name in sorted(contents):
        for part in (name.encode(), contents[name]):
            total.update(len(part).to_bytes(8, "big"))
            total.update(part)
    return total.hexdigest()


def bundle_version(dag_file: Path, releases: Path) -> str:
    """Return the version: SHA-256 over names and bytes of the DAG file and of every release file."""
    return _digest(_contents(dag_file, releases))


class ReleaseBundle(BaseDagBundle):
    """One site's DAGs: the installed DAG file beside a copy of the site's releases.

    Args:
        site_toml: the site's configuration file; by default the one that COMITY_SITE names.
        dag_file: by default the installed one.
        kwargs: Airflow's own (`name`, `version`, `refresh_interval`, `view_url_template`).
    """

    supports_versioning = True

    def __init__(self, *, site_toml: str | None = None, dag_file: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._site_toml = site_toml or os.environ.get("COMITY_SITE", "")
        self._dag_file = dag_file
        self._folder: Path | None = self.versions_dir / self.version if self.version else None

    def initialize(self) -> None:
        """Make sure that the wanted version lies on this disk.

        Raises:
            LocalProtocolError: BUNDLE_VERSION_GONE where a run's version is neither stored nor the present one.
        """
        if self._folder is None or not self._folder.is_dir():
            version = self._store()
            if self.version not in (None, version):
                raise LocalProtocolError(
                    "BUNDLE_VERSION_GONE",
                    "the releases that this run began with are not stored here any more",
                    ids={"bundle": self.name, "version": self.version},
                    hint="Start a new DAG run for the period; ids don't depend on the run",
                )
        super().initialize()

    @property
    def path(self) -> Path:
        """The folder with the DAG file of this bundle's version."""
        return self._stored() / DAGS_FOLDER

    def get_current_version(self) -> BundleVersion:
        """Return the version that `path` holds."""
        return BundleVersion(version=self._stored().name)

    def _stored(self) -> Path:
        if self._folder is None:
            self._folder = self.versions_dir / self._store()
        return self._folder

    def refresh(self) -> None:
        """Look at the site's releases again; a bundle that was asked for one version never moves."""
        if self.version is None:
            self._store()

    def _store(self) -> str:
        site = load_site(Path(self._site_toml))
        dag_file = Path(self._dag_file) if self._dag_file else installed_dag_file()
        contents = _contents(dag_file, Path(site.releases_dir))
        version = _digest(contents)
        target = self.versions_dir / version
        if not target.is_dir():
            with self.lock():
                self._write(target, contents)
        if self.version in (None, version):
            self._folder = target
        return version

    def _write(self, target: Path, contents: dict[str, bytes]) -> None:
        if target.is_dir():  # another process was faster
            return
        self.versions_dir.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".new-", dir=self.versions_dir))
        try:
            for name, content in contents.items():
                path = building / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            (building / RELEASES_FOLDER).mkdir(exist_ok=True)
            building.chmod(0o755)
            building.rename(target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
