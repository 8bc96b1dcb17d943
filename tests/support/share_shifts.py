"""Finds where protocol code shifts or divides words locally: on components of a share that is a truncation, which is wrong.

Right shifts are few, so every one counts, whatever it shifts. Divisions by `//` are mostly of sizes, so they count where an
operand comes from a share's component (`.first`, `.second`), directly, through names of the function or through arguments
of functions of the same module, or where one is a numpy word (`np.uint64`).
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

__all__ = ["local_truncations", "truncations_of"]

SHIFTS = {"right_shift", "bitwise_right_shift", "shift_right", "__rshift__", "__rrshift__", "__irshift__"}
DIVISIONS = {"floor_divide", "divide", "true_divide", "divmod", "fmod", "__floordiv__", "__truediv__"}
COMPONENTS = {"first", "second"}
SIZES = {"shape", "size", "nbytes", "ndim", "count", "width", "dtype", "itemsize"}
Function = ast.FunctionDef | ast.Lambda


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


class _Words:
    """Names of one function that may hold words of a component."""

    def __init__(self, names: set[str]) -> None:
        self.names = set(names)

    def holds(self, node: ast.AST) -> bool:
        """Whether an expression may be words of a component, rather than how many there are."""
        if isinstance(node, ast.Attribute) and (node.attr in SIZES or node.attr in COMPONENTS):
            return node.attr in COMPONENTS
        if _called(node) == "len":
            return False
        if _called(node) == "uint64":
            return True
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, ast.Subscript):
            return self.holds(node.value)  # what stands in the brackets is a place
        return any(self.holds(child) for child in ast.iter_child_nodes(node))

    def learn(self, body: ast.AST) -> None:
        """Follow assignments and loops until nothing is new."""
        before = -1
        while before != len(self.names):
            before = len(self.names)
            for target, value in _bindings(body):
                if self.holds(value):
                    self.names |= set(_bound(target))


def _bound(target: ast.AST) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Tuple | ast.List):
        for item in target.elts:
            yield from _bound(item)
    elif isinstance(target, ast.Subscript | ast.Starred):
        yield from _bound(target.value)  # what stands in the brackets stays a place


def _bindings(body: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    for node in ast.walk(body):
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
            yield node.target, node.value
        elif isinstance(node, ast.For | ast.comprehension):
            yield node.target, node.iter


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        name = f"{prefix}{node.name}" if isinstance(node, ast.FunctionDef | ast.ClassDef) else prefix
        if isinstance(node, ast.FunctionDef):
            yield name, node
        yield from _functions(node, f"{name}." if name != prefix else prefix)


def _parameters(function: ast.FunctionDef) -> list[str]:
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def _words_by_function(functions: dict[str, ast.FunctionDef]) -> dict[str, _Words]:
    """Learn every function's names, and hand them on through calls within the module."""
    words = {name: _Words(COMPONENTS) for name in functions}
    by_call: dict[str, list[str]] = {}
    for name in functions:
        by_call.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    before = -1
    while before != (before := sum(len(one.names) for one in words.values())):
        for name, function in functions.items():
            words[name].learn(function)
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                for target in by_call.get(_called(call), ()):
                    given = list(zip(_parameters(functions[target]), call.args, strict=False))
                    given += [(one.arg, one.value) for one in call.keywords if one.arg]
                    words[target].names |= {to for to, value in given if words[name].holds(value)}
    return words


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a function without those of functions inside it, which have entries of their own."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef):
            yield node
            yield from _own(node)


def _truncates(node: ast.AST, words: _Words) -> bool:
    if isinstance(node, ast.BinOp | ast.AugAssign):
        operands = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
        divides = isinstance(node.op, ast.FloorDiv | ast.Div) and any(words.holds(one) for one in operands)
        return isinstance(node.op, ast.RShift) or divides
    if isinstance(node, ast.Attribute | ast.Name) and (getattr(node, "attr", "") or getattr(node, "id", "")) in SHIFTS:
        return True  # called, or handed on to be called
    return _called(node) in DIVISIONS and isinstance(node, ast.Call) and any(words.holds(one) for one in node.args)


def truncations_of(source: str) -> Counter[str]:
    """Return how often each function of a module shifts words to the right or divides words of a component."""
    tree = ast.parse(source)
    functions = dict(_functions(tree))
    words = _words_by_function(functions)
    found = Counter({name: sum(_truncates(node, words[name]) for node in _own(one)) for name, one in functions.items()})
    found["<module>"] = sum(_truncates(node, _Words(COMPONENTS)) for node in _own(tree))
    return +found


def local_truncations(package: Path) -> Counter[str]:
    """Return that of a package, by `folder/module.py:function`."""
    found: Counter[str] = Counter()
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package).as_posix()
        for name, count in truncations_of(path.read_text(encoding="utf-8")).items():
            found[f"{where}:{name}"] = count
    return found
