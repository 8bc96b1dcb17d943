"""Make one site's AIRFLOW_HOME: configuration, keys and a migrated metadata database.

One home serves one legal entity's site and is readable by its user alone. Nothing here imports Airflow, so that a demo
can make five homes in a moment; the database is a copy of one that was migrated once (3 s saved for each site).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

__all__ = [
    "BUNDLE",
    "DEMO_WAITING",
    "LOOPBACK",
    "ROOT",
    "USER",
    "SiteError",
    "clean_environment",
    "migrated_database",
    "prepare_home",
    "site_environment",
]

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = "comity"
USER = "comity"
LOOPBACK = "127.0.0.1"
# SQLite's own patience is 5 s. On a busy machine a component that waits longer for another one's transaction would end.
_LOCK_WAIT_S = 120

DEMO_WAITING: Mapping[str, float] = {
    "retries": 20,
    "retry_delay_s": 1.0,
    "max_retry_delay_s": 5.0,
    "poll_first_s": 0.3,
    "poll_max_s": 1.0,
    "wait_days": 0.05,
}
"""`[comity]` settings where all parties sit on one machine and nobody waits for people."""


class SiteError(RuntimeError):
    """A component did not start or did not stop; the message says which and where its log is."""


def prepare_home(
    home: Path,
    site_toml: Path,
    *,
    comity: Mapping[str, float] = DEMO_WAITING,
    airflow: Mapping[str, Mapping[str, object]] | None = None,
    cache: Path | None = None,
) -> dict[str, str]:
    """Make, or keep, an AIRFLOW_HOME for one site, and return the environment that its processes need.

    Args:
        home: folder of this site's Airflow; made with mode 0700.
        site_toml: the site's configuration file.
        comity: `[comity]` settings, see `get_provider_info`.
        airflow: more of airflow.cfg, section by section; wins over what is written here.
        cache: where the migrated database is kept for copying; by default `var/airflow` of the source tree.

    Keys (Fernet, tokens, the web password) are made once and stay; airflow.cfg is written anew each time.
    """
    home = home.resolve()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = home / "airflow.db"
    if not database.exists():
        _copy_database(cache or ROOT / "var" / "airflow", database)
    password_file = home / "passwords.json"
    _keep_secret(password_file, lambda: json.dumps({USER: secrets.token_urlsafe(18)}))
    config = _configuration(home, site_toml.resolve(), comity)
    for section, options in (airflow or {}).items():
        config.setdefault(section, {}).update(options)
    _write_secret(home / "airflow.cfg", _render(config))
    return site_environment(home, site_toml)


def site_environment(home: Path, site_toml: Path) -> dict[str, str]:
    """Return the variables that make a process part of this site's Airflow."""
    return {
        "AIRFLOW_HOME": str(home.resolve()),
        "AIRFLOW_CONFIG": str(home.resolve() / "airflow.cfg"),
        "COMITY_SITE": str(site_toml.resolve()),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
    }


def _configuration(home: Path, site_toml: Path, comity: Mapping[str, float]) -> dict[str, dict[str, object]]:
    bundle = {
        "name": BUNDLE,
        "classpath": "local_stores.airflow_provider.bundle.ReleaseBundle",
        "kwargs": {"site_toml": str(site_toml)},
    }
    fernet = _keep_secret(home / "fernet.key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    return {
        "core": {
            "executor": "LocalExecutor",
            "parallelism": 4,
            "load_examples": False,
            "dags_folder": home / "dags",
            "fernet_key": fernet,
            "dags_are_paused_at_creation": False,
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": home / "passwords.json",
        },
        "database": {
            "sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}?timeout={_LOCK_WAIT_S}",
            "load_default_connections": False,
        },
        "dag_processor": {
            "dag_bundle_config_list": json.dumps([bundle]),
            "dag_bundle_storage_path": home / "bundles",
            "stale_bundle_cleanup_interval": 0,
        },
        "logging": {"base_log_folder": home / "logs"},
        "api": {"host": LOOPBACK, "secret_key": _keep_secret(home / "api.key", secrets.token_hex), "workers": 1},
        "api_auth": {"jwt_secret": _keep_secret(home / "jwt.key", lambda: secrets.token_urlsafe(48))},
        "usage_data_collection": {"enabled": False},
        "comity": dict(comity),
    }


def _render(config: Mapping[str, Mapping[str, object]]) -> str:
    lines: list[str] = []
    for section, options in config.items():
        lines.append(f"[{section}]")
        # Airflow interpolates, so a percent sign of a value is doubled.
        lines += [f"{name} = {str(value).replace('%', '%%')}" for name, value in options.items()]
        lines.append("")
    return "\n".join(lines)


def _write_secret(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    temporary.replace(path)


def _keep_secret(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        _write_secret(path, make())
    return path.read_text()


def _copy_database(cache: Path, database: Path) -> None:
    template = migrated_database(cache)
    temporary = database.with_name(f".{database.name}.tmp")
    shutil.copyfile(template, temporary)
    temporary.chmod(0o600)
    temporary.replace(database)


def migrated_database(cache: Path) -> Path:
    """Return an empty, migrated SQLite metadata database for the installed Airflow; made once per version."""
    cache.mkdir(parents=True, exist_ok=True)
    template = cache / f"migrated-{metadata.version('apache-airflow-core')}.db"
    with (cache / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if template.exists():
            return template
        home = cache / "migrating"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(mode=0o700)
        env = clean_environment()
        env.update(
            AIRFLOW_HOME=str(home),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home / 'airflow.db'}",
            AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS="False",
        )
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SiteError(f"airflow db migrate failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        (home / "airflow.db").replace(template)
        shutil.rmtree(home)
    return template


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings of another Airflow, and with bytecode written."""
    dropped = ("AIRFLOW", "COMITY_SITE", "PYTHONDONTWRITEBYTECODE", "_AIRFLOW")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
