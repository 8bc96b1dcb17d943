"""Reading the documentation: pages, fenced blocks, words in backticks."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```([a-z]*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pages() -> dict[str, str]:
    """Return {path: text} of README and all pages of docs/."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def fenced(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return [body for kind, body in _FENCE.findall(text) if kind == language]


def without_fences(text: str) -> str:
    """Return the prose of a page."""
    return _FENCE.sub("", text)


def in_backticks(text: str) -> list[str]:
    """Return what stands between single backticks in the prose of a page."""
    return re.findall(r"`([^`\n]+)`", without_fences(text))


def docs_script(name: str) -> ModuleType:
    """Return a module of infra/docs, which is no package."""
    path = ROOT / "infra" / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"infra_docs_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
