"""The command `comity`. One module per command group; other distributions add theirs by entry point `comity.commands`.

A module `<group>_commands.py` here, and every entry point, offers `register(app)`. What cannot be loaded (an extra that is
not installed) takes no other command with it. A deliberate error is one sentence and an exit code, never a traceback.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Annotated, Any

import typer

from mpc_ops.errors import ComityError, ConfigError, UsageError

__all__ = ["build_app", "main", "run"]

# The base class of typer's own usage errors; typer does not export it.
_TyperUsageError: Any = typer.BadParameter.__mro__[1]
_GROUP = "comity.commands"


def _versions(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if not wanted:
        return
    for name in ("comity-mpc", "comity"):
        try:
            typer.echo(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    raise typer.Exit


def _root(
    *,
    _: Annotated[bool, typer.Option("--version", callback=_versions, is_eager=True, help="Print versions.")] = False,
) -> None:
    """Group reports across borders while records stay in the country they were collected in."""


def build_app(first: str | None = None) -> tuple[typer.Typer, list[str]]:
    """Return the command line, and one sentence for everything that could not be loaded.

    Args:
        first: first word of the command line, if known: a group of this package needs none of the others, which would
            only cost an operator's process time and memory.
    """
    app = typer.Typer(
        name="comity", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    app.callback()(_root)
    missing = []
    modules = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name.endswith("_commands"))
    alone = [module for module in modules if module == f"{first}_commands"]
    for module in alone or modules:
        try:
            importlib.import_module(f"{__name__}.{module}").register(app)
        except ImportError as error:
            group = module.removesuffix("_commands")
            missing.append(f"`comity {group}` needs a package that is not installed ({error.name or error})")
    for point in sorted(() if alone else entry_points(group=_GROUP), key=lambda point: point.name):
        try:
            point.load()(app)
        except Exception as error:  # noqa: BLE001 - another distribution's failure must not take these commands away
            missing.append(f"commands of {point.value} are not available ({type(error).__name__}: {error})"[:300])
    return app, missing


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code (`mpc_ops.errors.EXIT_CODES`)."""
    app, missing = build_app(arguments[0] if arguments else None)
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(arguments), prog_name="comity", standalone_mode=False)
    except ComityError as error:
        return _fail(error)
    except _TyperUsageError as error:
        return _usage(error, missing)
    except typer.Abort:
        return _fail(UsageError("USAGE", "stopped by the user"))
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(
            ConfigError(
                "FILE_UNUSABLE", f"a file cannot be used: {error.strerror}", ids={"file": error.filename or "unknown"}
            )
        )
    return code if isinstance(code, int) else 0


def _usage(error: Any, missing: list[str]) -> int:
    sentence = str(error.format_message()).strip().rstrip(".?")
    if type(error).__name__ == "NoArgsIsHelpError":  # the message is the help text
        typer.echo(sentence)
        return UsageError.exit_code
    if "No such command" in sentence and missing:
        sentence += "; " + "; ".join(missing)
    context = getattr(error, "ctx", None)
    hint = None if context is None else f"See `{context.command_path} --help`"
    return _fail(UsageError("USAGE", sentence, hint=hint))


def _fail(error: ComityError) -> int:
    typer.echo(str(error), err=True)
    return error.exit_code


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))
