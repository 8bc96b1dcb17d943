"""The peers' own environment under var/bench: made once, from the package index, never mixed with the project's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["MPYC", "SPU", "PeersMissing", "prepare"]

SPU, MPYC = "spu==0.9.5", "mpyc==0.11"
_UNREACHABLE = ("NewConnectionError", "ConnectionError", "Temporary failure in name resolution", "Network is unreachable",
                "Max retries exceeded", "timed out")  # fmt: skip


class PeersMissing(Exception):
    """No peer can be installed; the text says why."""


def prepare(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return (Python of the peers' environment, why a peer is missing, by requirement).

    Raises:
        PeersMissing: if neither peer can be installed.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    missing = {}
    for requirement in (SPU, MPYC):
        why = _install(python, requirement)
        if why:
            missing[requirement] = why
            print(f"{requirement}: {why}", file=sys.stderr)
    if len(missing) == 2:
        raise PeersMissing("; ".join(f"{requirement}: {why}" for requirement, why in missing.items()))
    return python, missing


def _install(python: Path, requirement: str) -> str | None:
    """Install one peer unless it is there; return why it cannot be, in one sentence."""
    name, _, version = requirement.partition("==")
    found = subprocess.run(
        [python, "-c", f"import importlib.metadata as m; print(m.version({name!r}))"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode == 0 and found.stdout.strip() == version:
        return None
    extra = ["numpy"] if name == "mpyc" else []
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", requirement, *extra],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return None
    said = done.stderr.strip()
    if any(text in said for text in _UNREACHABLE):
        return "the package index cannot be reached"
    if "No matching distribution" in said or "Could not find a version" in said:
        return "the package index has no build of it for this platform and version of Python"
    return f"it cannot be installed: {said.splitlines()[-1] if said else 'pip said nothing'}"
