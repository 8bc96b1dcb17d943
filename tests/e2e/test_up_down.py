"""`make up` and `make down`: real operators in the background, real Airflows of two sites, and nothing left afterwards."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from infra.airflow.rest import Rest
from infra.airflow.stack import Stack, processes_of
from infra.demo.background import Background

pytestmark = [
    pytest.mark.scheduler,
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

ROOT = Path(__file__).resolve().parents[2]
OWNERS = ("de-nord", "de-sued", "de-west")
REPORT = "group_performance"


def up_py(root, *arguments):
    command = [sys.executable, str(ROOT / "infra" / "demo" / "up.py"), *arguments, "--root", str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("up")
    yield folder
    up_py(folder, "down")


@pytest.fixture(scope="module")
def told(root):
    return up_py(root, "up", "--months", "1", "--without-others")


@pytest.fixture(scope="module")
def stacks(root, told):
    homes = {site: root / "airflow" / site for site in ("de", "group")}
    return {site: Stack(**json.loads((home / "stack.json").read_text())) for site, home in homes.items()}


def test_it_tells_where_the_pages_are_and_how_to_sign(root, told, stacks):
    for site, stack in stacks.items():
        assert f"{stack.url}" in told
        assert f"user comity, password in {root / 'airflow' / site / 'passwords.json'}" in told
        assert (root / "airflow" / site / "passwords.json").stat().st_mode & 0o777 == 0o600
        assert stack.password() not in told
    assert f"sign-off {REPORT} 2026-01 --site {root}/sites/de/site.toml --owner de-nord --as de-nord-controller" in told
    assert "make down" in told


def test_the_commands_it_prints_are_understood(told):
    """Before the figures are there, the printed commands end with a sentence that says so, not with a usage error."""
    shown = re.search(r"^ +(\S*comity owner show-contribution .*)$", told, re.MULTILINE)
    assert shown
    done = subprocess.run(shown[1].split(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 0 or "CONTRIBUTION" in done.stdout + done.stderr


@pytest.mark.parametrize("site", ["de", "group"])
def test_the_web_page_answers(stacks, site):
    with httpx.Client(base_url=stacks[site].url, trust_env=False, timeout=30, follow_redirects=True) as client:
        page = client.get("/")
        assert page.status_code == 200
        assert "<title>Airflow" in page.text
        health = client.get("/api/v2/monitor/health").json()
        assert {health[name]["status"] for name in ("metadatabase", "scheduler", "triggerer", "dag_processor")} == {
            "healthy"
        }
        assert client.get("/api/v2/dags").status_code == 401


@pytest.mark.parametrize("site", ["de", "group"])
def test_the_dags_of_the_site_are_there(stacks, site):
    wanted = {f"{kind}__{owner}" for kind in (f"file_{REPORT}", f"outcome_{REPORT}") for owner in OWNERS}
    wanted |= {f"snapshot_sales_line__{owner}" for owner in OWNERS}
    rest = Rest(stacks[site])
    try:
        assert rest.dag_ids() == (wanted if site == "de" else {f"group_{REPORT}"})
        assert rest.import_errors() == []
    finally:
        rest.close()


def test_a_second_up_changes_nothing(root, told, stacks):
    before = Background(root).alive()
    assert len(before) == 27
    again = up_py(root, "up")
    assert again.startswith("It is up already.")
    assert stacks["de"].url in again
    assert Background(root).alive() == before


def test_down_leaves_no_process(root, stacks):
    background = Background(root)
    assert background.marked()
    assert re.fullmatch(r"\d+ processes stopped, none is left\n", up_py(root, "down"))
    assert background.marked() == []
    assert background.alive() == {}
    assert list((root / "run").iterdir()) == []
    assert [processes_of(Path(stack.home)) for stack in stacks.values()] == [[], []]
    assert up_py(root, "down") == "nothing was running\n"
