"""Build the two wheels and make virtual environments that hold one of them and exactly what it declares, without network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
_PARTS = ("mpc_ops", "local_stores", "dags", "pyproject.toml", "README.md", "LICENSE")
_IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


def run(command: list[str], *, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command without this checkout on its path; show its output if it fails."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "COMITY"))}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=240)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)[:400]}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done


def build_wheels(folder: Path) -> dict[str, Path]:
    """Build from a copy, so that the checkout stays as it is; return {distribution: wheel}."""
    source, out = folder / "source", folder / "wheels"
    source.mkdir(parents=True)
    for name in _PARTS:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=_IGNORED)
        else:
            shutil.copy(path, source / name)
    build = [sys.executable, "-m", "uv", "build", "--wheel", "--offline", "--no-build-isolation", "-q"]
    for package in (source / "mpc_ops", source):
        run([*build, "--python", sys.executable, "-o", str(out), str(package)], cwd=folder)
    wheels = {path.name.split("-")[0].replace("_", "-"): path for path in out.glob("*.whl")}
    assert sorted(wheels) == ["comity", "comity-mpc"]
    return wheels


def declared(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """Return the distributions that `name[extras]` needs, itself left out, as installed here."""
    found: set[str] = set()
    todo = [(name, extras)]
    while todo:
        one, wanted = todo.pop()
        for text in distribution(one).requires or []:
            need = Requirement(text)
            if need.marker is not None and not any(need.marker.evaluate({"extra": x}) for x in ("", *wanted)):
                continue
            if canonicalize_name(need.name) not in found:
                found.add(canonicalize_name(need.name))
                todo.append((need.name, tuple(need.extras)))
    return found


def make_environment(folder: Path, wheel: Path, needs: set[str]) -> Path:
    """Return the `python` of a new environment with the wheel installed and links to what `needs` names."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run(
        [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "install",
            "-q",
            "--offline",
            "--no-deps",
            "--python",
            str(python),
            str(wheel),
        ],
        cwd=folder,
    )
    (site,) = (folder / "lib").glob("python3*/site-packages")
    for name in sorted(needs):
        for top in {file.parts[0] for file in distribution(name).files or [] if file.parts[0] not in {"..", "/"}}:
            source = Path(str(distribution(name).locate_file(top)))
            if source.suffix != ".pth" and top != "__pycache__" and not (site / top).exists():
                (site / top).symlink_to(source)
    return python
