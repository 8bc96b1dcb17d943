"""Every error code in the sources, found by reading them: the table in docs/errors.md is compared with it.

A code is an upper-case literal that is
* the first argument of an error class of `mpc_ops.errors`,
* given to a parameter or a field called `code` of any function or class of the packages,
* assigned to a variable called `code`, or taken from a literal table by a loop over it.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mpc_ops import errors

__all__ = ["Found", "collect", "error_classes"]

ROOT = Path(__file__).parents[2]
PACKAGES = ("mpc_ops", "local_stores")
# Codes that are put together: where, and by which text.
BUILT = {
    "PEER_TIMEOUT": ("mpc_ops/server/submissions.py", 'else "PEER_TIMEOUT"'),
    **dict.fromkeys(("REGION_FAILED", "GROUP_FAILED"), ("mpc_ops/server/runs.py", 'f"{kind.upper()}_FAILED"')),
    **dict.fromkeys(("RUN_REFUSED", "RUN_CANCELLED"), ("local_stores/closing/result.py", 'f"RUN_{first.state}"')),
}
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,59}[A-Z0-9]")


@dataclass
class Found:
    """Where a code stands and which error classes carry it."""

    places: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)


def error_classes() -> dict[str, type[errors.ComityError]]:
    """Return the error classes by name."""
    return {name: getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)}


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


@dataclass(frozen=True)
class _Taker:
    """A function or class that takes a code: where, and which error classes it makes of it."""

    position: int
    classes: frozenset[str]


def _taker(node: ast.AST, classes: set[str]) -> tuple[str, _Taker] | None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        names = [argument.arg for argument in node.args.args if argument.arg not in {"self", "cls"}]
        if "code" in names or any(argument.arg == "code" for argument in node.args.kwonlyargs):
            position = names.index("code") if "code" in names else -1
            return node.name, _Taker(position, frozenset(_made_of_variable(node, classes)))
    if isinstance(node, ast.ClassDef):
        fields = [s.target.id for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
        if "code" in fields:
            return node.name, _Taker(fields.index("code"), frozenset())
    return None


def _made_of_variable(node: ast.AST, classes: set[str]) -> set[str]:
    """Return the error classes that are made with the variable `code` inside a function."""
    return {
        _name(call)
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and _name(call) in classes and call.args and _targets(call.args[0])
    }


def _name(call: ast.Call) -> str:
    function = call.func
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _literals(node: ast.AST | None) -> Iterator[str]:
    """Return code literals in an expression that yields a code: alone, in a choice, in a tuple or table."""
    for one in ast.walk(node) if node is not None else ():
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and _CODE.fullmatch(one.value):
            yield one.value


def _targets(node: ast.AST) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "code" for one in ast.walk(node))


def _value(node: ast.AST) -> ast.AST | None:
    if isinstance(node, ast.Assign) and any(_targets(target) for target in node.targets):
        return node.value
    if isinstance(node, ast.AnnAssign | ast.NamedExpr) and _targets(node.target):
        return node.value
    if isinstance(node, ast.For | ast.comprehension) and _targets(node.target):
        return node.iter
    return None


@cache
def collect() -> dict[str, Found]:
    """Return {code: where it stands and which classes carry it}."""
    modules = list(_modules())
    classes = set(error_classes())
    takers = {name: _Taker(0, frozenset({name})) for name in classes}
    for _, tree in modules:
        for node in ast.walk(tree):
            taker = _taker(node, classes)
            if taker is not None:
                takers.setdefault(*taker)
    found: dict[str, Found] = defaultdict(Found)
    for path, tree in modules:
        tables = _tables(tree)
        for node, function in _with_function(tree):
            for code, carried in _codes_of(node, function, takers, classes, tables):
                found[code].places.add(path)
                found[code].classes |= carried
    for code, (path, text) in BUILT.items():
        if text in (ROOT / path).read_text():
            found[code].places.add(path)
    return dict(sorted(found.items()))


def _tables(tree: ast.AST) -> dict[str, list[str]]:
    """Return the codes in literal tuples and dictionaries by the name that a module gives them."""
    return {
        target.id: list(_literals(node.value))
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _with_function(tree: ast.AST, function: ast.AST | None = None) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    for child in ast.iter_child_nodes(tree):
        yield child, function
        inside = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from _with_function(child, inside)


def _codes_of(
    node: ast.AST,
    function: ast.AST | None,
    takers: dict[str, _Taker],
    classes: set[str],
    tables: dict[str, list[str]],
) -> Iterator[tuple[str, frozenset[str]]]:
    if isinstance(node, ast.Call):
        taker = takers.get(_name(node))
        given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        if taker is not None and taker.position >= 0:
            given += node.args[taker.position : taker.position + 1]
        for code in (code for one in given for code in _literals(one)):
            yield code, taker.classes if taker is not None else frozenset()
    else:
        value = _value(node)
        read = [one.id for one in ast.walk(value) if isinstance(one, ast.Name)] if value is not None else []
        codes = [*_literals(value), *(code for name in read for code in tables.get(name, ()))]
        carried = frozenset(_made_of_variable(function, classes)) if codes and function is not None else frozenset()
        yield from ((code, carried) for code in codes)


def _tables(tree: ast.AST) -> dict[str, list[str]]:
    """Return the codes in literal tuples and dictionaries by the name that a module gives them."""
    return {
        target.id: list(_literals(node.value))
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _with_function(tree: ast.AST, function: ast.AST | None = None) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    for child in ast.iter_child_nodes(tree):
        yield child, function
        inside = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from _with_function(child, inside)


def _codes_of(
    node: ast.AST,
    function: ast.AST | None,
    takers: dict[str, _Taker],
    classes: set[str],
    tables: dict[str, list[str]],
) -> Iterator[tuple[str, frozenset[str]]]:
    if isinstance(node, ast.Call):
        taker = takers.get(_name(node))
        given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        if taker is not None and taker.position >= 0:
            given += node.args[taker.position : taker.position + 1]
        for code in (code for one in given for code in _literals(one)):
            yield code, taker.classes if taker is not None else frozenset()
    else:
        value = _value(node)
        read = [one.id for one in ast.walk(value) if isinstance(one, ast.Name)] if value is not None else []
        codes = [*_literals(value), *(code for name in read for code in tables.get(name, ()))]
        carried = frozenset(_made_of_variable(function, classes)) if codes and function is not None else frozenset()
        yield from ((code, carried) for code in codes)
