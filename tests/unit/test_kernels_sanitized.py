"""The kernels built with the address and the undefined-behaviour sanitizer, under their own differential tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -g"


def _gcc() -> str:
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("no gcc on this machine, so no build with sanitizers")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        pytest.skip("no headers of Python on this machine, so no build with sanitizers")
    return found


def _runtime(gcc: str) -> str:
    asked = subprocess.run([gcc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    path = Path(asked.stdout.strip())
    if not path.is_absolute():
        pytest.skip("this gcc has no address sanitizer")
    return str(path.resolve())


@pytest.mark.slow
def test_no_address_and_no_operation_is_undefined(tmp_path: Path) -> None:
    gcc = _gcc()
    runtime = _runtime(gcc)
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.so", "*.egg-info")
    shutil.copytree(ROOT / "mpc_ops", tmp_path / "mpc_ops", ignore=ignored)
    for part in (
        "support",
        "property/test_kernels_differential.py",
        "property/test_kernels_ring.py",
        "unit/test_kernels_backend.py",
        "unit/test_kernels_threads.py",
    ):
        source, target = ROOT / "tests" / part, tmp_path / "tests" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("COMITY", "PYTEST", "LD_"))}
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    made = subprocess.run(
        build, cwd=tmp_path / "mpc_ops", env={**clean, "CC": gcc, "CFLAGS": _FLAGS, "LDFLAGS": _FLAGS},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert list((tmp_path / "mpc_ops" / "kernels").glob("_compiled*.so")), made.stderr[-3000:]
    check = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    run = {
        **clean,
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(tmp_path),
        "PYTHONMALLOC": "malloc",
        "COMITY_KERNELS": "compiled",
    }
    done = subprocess.run([*check, "tests"], cwd=tmp_path, env=run, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
