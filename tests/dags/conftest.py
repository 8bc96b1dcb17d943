"""Airflow's home for this folder's tests, set before any of them imports Airflow."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support import airflow_env, fake_steps

MONTHS = ["2026-07", "2026-08", "2026-09"]
HOME = Path(tempfile.mkdtemp(prefix="comity-airflow-"))
SITE = HOME / "site.toml"
RELEASES = HOME / "releases"

atexit.register(shutil.rmtree, HOME, ignore_errors=True)
fake_steps.write_release(RELEASES, "group_performance", fake_steps.month_rows(MONTHS), datasets=("orders", "rates"))
fake_steps.write_site(SITE, owners=("de-nord", "de-sued"), releases=RELEASES, is_recipient=True)
airflow_env.activate(HOME / "airflow", SITE)


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Stand-ins for the functions that do the work; returns the folder that steers and records them."""
    monkeypatch.setenv("COMITY_SITE", str(SITE))
    monkeypatch.setenv(fake_steps.FOLDER_ENV, str(tmp_path))
    fake_steps.patch(monkeypatch)
    return tmp_path


@pytest.fixture
def airflow_home():
    return HOME / "airflow"


@pytest.fixture
def site_toml():
    return SITE


@pytest.fixture
def releases_dir():
    return RELEASES
