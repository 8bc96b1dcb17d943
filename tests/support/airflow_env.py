"""An Airflow home for tests, made before Airflow is imported.

Airflow reads its configuration once, when it is imported: call `activate` first, from a conftest or a module that
imports nothing of Airflow above it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def site_env():
    """Return the module infra/airflow/site_env.py, which is a script and not part of a package."""
    name = "comity_site_env"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "infra" / "airflow" / "site_env.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def activate(home: Path, site_toml: Path, **settings: float) -> None:
    """Make `home` this process's Airflow, with quick retries and polls."""
    if "airflow" in sys.modules:
        raise RuntimeError("Airflow was imported before its home was set")
    env = site_env().prepare_home(home, site_toml, comity={"retry_delay_s": 0.2, "poll_first_s": 0.1, **settings})
    os.environ.update(env)
