"""An Airflow home for tests, made before Airflow is imported.

Airflow reads its configuration once, when it is imported: call `activate` first, from a conftest or a module that
imports nothing of Airflow above it.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from infra.airflow.home import prepare_home
from tests.support.fake_steps import FOLDER_ENV

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"retries": 3, "retry_delay_s": 0.2, "max_retry_delay_s": 1, "poll_first_s": 0.1, "poll_max_s": 0.5}


SITECUSTOMIZE = ROOT / "tests" / "support" / "fake_site"


def fake_environment(folder: Path) -> dict[str, str]:
    """Return what makes every Python process of a stack use the stand-ins of `fake_steps`."""
    return {FOLDER_ENV: str(folder), "PYTHONPATH": f"{SITECUSTOMIZE}{os.pathsep}{ROOT}"}


def activate(home: Path, site_toml: Path, **settings: float) -> None:
    """Make `home` this process's Airflow, with quick retries and polls, and leave no variable behind."""
    if "airflow" in sys.modules:
        raise RuntimeError("Airflow was imported before its home was set")
    env = prepare_home(home, site_toml, comity={**QUICK, **settings})
    before = dict(os.environ)
    os.environ.update(env)
    try:
        for module in ("airflow.settings", "airflow.models", "airflow.sdk.configuration"):
            importlib.import_module(module)
    finally:
        os.environ.clear()
        os.environ.update(before)
