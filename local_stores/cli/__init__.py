"""Commands of an owner's and a recipient's site, added to `comity` by the entry point `comity.commands`."""

from __future__ import annotations

import importlib
import pkgutil

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add every command group of this package; each module `<group>_commands` offers `register(app)`."""
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name.endswith("_commands")):
        importlib.import_module(f"{__name__}.{module}").register(app)
