"""An operator's host has no code that reads stores: its wheel alone, with what it declares, runs a session."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.support.wheels import ROOT, build_wheels, declared, make_environment, run

pytestmark = pytest.mark.e2e

OWNERS_SIDE = ("local_stores", "duckdb", "pandas", "great_expectations", "airflow", "psycopg", "openpyxl", "fsspec")

SESSION = """
import numpy as np
from tests.support.sim import Simulation, plain_sum, small_federation

owners = small_federation(regions=2, owners=3, lanes=40)
sim = Simulation(owners)
sim.run()
assert set(sim.phases().values()) == {"COMMITTED"}, sim.phases()
assert np.array_equal(sim.result, plain_sum(owners, 40))
print("result of", len(sim.result), "lanes is exact")
"""

IMPORTS = """
import importlib, json, pkgutil, sys
import mpc_ops

failed = {}
for info in pkgutil.walk_packages(mpc_ops.__path__, "mpc_ops."):
    if info.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(info.name)
    except ImportError as error:
        failed[info.name] = error.name
print(json.dumps({"failed": failed, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def operator(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs = declared("comity-mpc", ("server", "sftp"))
    return make_environment(tmp_path_factory.mktemp("operator"), wheels["comity-mpc"], needs)


@pytest.fixture(scope="module")
def reviewer(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("reviewer"), wheels["comity-mpc"], declared("comity-mpc"))


def test_the_operators_wheel_declares_nothing_of_the_owners_side() -> None:
    needs = declared("comity-mpc", ("server", "sftp", "planner"))
    assert not needs & {"duckdb", "pandas", "great-expectations", "apache-airflow", "psycopg", "openpyxl", "fsspec"}
    assert declared("comity-mpc") >= {"numpy", "pyarrow", "cryptography", "msgspec", "typer", "jinja2"}


@pytest.mark.parametrize("name", OWNERS_SIDE)
def test_code_that_reads_stores_is_not_there(operator: Path, tmp_path: Path, name: str) -> None:
    done = run([str(operator), "-c", f"import {name}"], cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert f"No module named '{name}'" in done.stderr


def test_every_module_of_an_operator_loads_with_what_the_wheel_declares(operator: Path, tmp_path: Path) -> None:
    report = json.loads(run([str(operator), "-c", IMPORTS], cwd=tmp_path).stdout)
    # Operators never parse SQL: the planner is an extra that they do not have.
    assert {name.split(".")[1] for name in report["failed"]} <= {"planner", "cli"}
    assert set(report["failed"].values()) <= {"sqlglot"}
    assert not set(report["loaded"]) & {*OWNERS_SIDE, "sqlglot"}


def test_a_reviewer_needs_no_server(reviewer: Path, tmp_path: Path) -> None:
    report = json.loads(run([str(reviewer), "-c", IMPORTS], cwd=tmp_path).stdout)
    assert {name.split(".")[1] for name in report["failed"]} <= {"planner", "server", "cli"}
    assert set(report["failed"].values()) <= {"sqlglot", "fastapi", "uvicorn", "starlette", "paramiko"}
    comity = str(reviewer.parent / "comity")
    assert "--federation" in run([comity, "evidence", "verify", "--help"], cwd=tmp_path).stdout


def test_the_command_says_which_version_it_is(operator: Path, tmp_path: Path) -> None:
    done = run([str(operator.parent / "comity"), "--version"], cwd=tmp_path)
    assert done.stdout == "comity-mpc 0.1.0\n"


def test_a_session_runs_from_the_wheel_alone(operator: Path, tmp_path: Path) -> None:
    support = tmp_path / "tests" / "support"
    support.mkdir(parents=True)
    for name in ("sim.py", "core.py"):
        shutil.copy(ROOT / "tests" / "support" / name, support / name)
    (tmp_path / "session.py").write_text(SESSION)
    assert run([str(operator), "session.py"], cwd=tmp_path).stdout == "result of 40 lanes is exact\n"
    where = run([str(operator), "-c", "import mpc_ops; print(mpc_ops.__file__)"], cwd=tmp_path).stdout
    assert where.startswith(str(operator.parents[1]))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def entry_points(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        return archive.read(name).decode()


def test_what_the_wheels_hold(wheels: dict[str, Path]) -> None:
    mpc, owner = names(wheels["comity-mpc"]), names(wheels["comity"])
    assert {name.partition("/")[0] for name in mpc} == {"mpc_ops", "comity_mpc-0.1.0.dist-info"}
    assert {name.partition("/")[0] for name in owner} == {
        "local_stores", "comity-0.1.0.dist-info", "comity-0.1.0.data",
    }  # fmt: skip
    assert "mpc_ops/py.typed" in mpc
    assert "local_stores/py.typed" in owner
    assert "comity-0.1.0.data/data/share/comity/dags/comity_dags.py" in owner
    for found in (mpc, owner):
        assert any(name.endswith("licenses/LICENSE") for name in found)


@pytest.mark.parametrize("package", ["mpc_ops", "local_stores"])
def test_every_source_and_template_is_in_its_wheel(wheels: dict[str, Path], package: str) -> None:
    found = names(wheels["comity-mpc" if package == "mpc_ops" else "comity"])
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".j2", ".html", ".css"}
    }
    build_step = {"mpc_ops/setup.py"}  # it lies beside the modules and is none of them
    assert wanted - build_step <= found
    assert not build_step & found
    assert not any("test" in name.split("/")[-1].split("_") for name in found)


def test_entry_points(wheels: dict[str, Path]) -> None:
    assert "comity = mpc_ops.cli:main" in entry_points(wheels["comity-mpc"])
    text = entry_points(wheels["comity"])
    for line in (
        "[comity.commands]",
        "local_stores = local_stores.cli:register",
        "[apache_airflow_provider]",
        "provider_info = local_stores.airflow_provider.get_provider_info:get_provider_info",
        "[airflow.plugins]",
        "comity = local_stores.airflow_provider.plugin:ComityPlugin",
    ):
        assert line in text.splitlines()
    assert "console_scripts" not in text
