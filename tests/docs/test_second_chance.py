"""What the whole check runs again when it failed, and what it never does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci" / "run"


def second_chance(folder: Path, failed: list[str]) -> subprocess.CompletedProcess[str]:
    """Run that part of the check with a `make` that says what it was asked for."""
    text = CI.read_text(encoding="utf-8")
    begin = text.index("second_chance() {")
    function = text[begin : text.index("\n}\n", begin) + 3]
    cache = folder / ".pytest_cache" / "v" / "cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text(json.dumps(dict.fromkeys(failed, True), indent=2), encoding="utf-8")
    script = f'set -euo pipefail\nmake() {{ echo "make $*"; }}\n{function}\nfalse || second_chance\necho passed\n'
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False, timeout=30)


def test_a_test_over_real_processes_is_run_again_alone(tmp_path: Path) -> None:
    said = second_chance(tmp_path, ["tests/e2e/test_x.py::test_y", "tests/unit/test_x.py::test_adversary/"])
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == ["make test PYTEST_ARGS=--last-failed --last-failed-no-failures none", "passed"]


@pytest.mark.parametrize("kind", ["adversary", "property"])
def test_an_attack_that_succeeded_once_has_succeeded(tmp_path: Path, kind: str) -> None:
    name = f"tests/{kind}/test_x.py::test_y[z]"
    said = second_chance(tmp_path, ["tests/e2e/test_x.py::test_y", name])
    assert (said.returncode, said.stdout) == (1, "")
    assert name in said.stderr


def test_the_check_has_no_other_way_to_run_a_test_again() -> None:
    text = CI.read_text(encoding="utf-8")
    assert text.count("--last-failed ") == 1
    assert text.count("|| second_chance\n") == 1
