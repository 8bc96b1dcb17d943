"""Finds where the packages turn bytes or text of somebody else into values: each such place is fuzzed, or has a reason not to be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FUZZED", "NOT_FUZZED", "decoders", "decoders_of"]

_CIRCUITS, _CORE, _ORDER, _PROOFS = (f"mpc_ops/protocol/{folder}" for folder in ("circuits", "core", "order", "proofs"))
FUZZED: dict[str, tuple[str, ...]] = {
    # tests/adversary/test_fuzz_engine.py
    "data link": ("mpc_ops/transport/datalink.py:DataLink._judge", "mpc_ops/transport/datalink.py:DataLink._label"),
    "place of a message": ("mpc_ops/engine/runner.py:address_of",),
    "AND proof, a level": (
        f"{_PROOFS}/proof_and.py:LeftVerifier.take", f"{_PROOFS}/proof_and.py:_decode", "mpc_ops/ring/coding.py:from_bytes",
    ),
    "AND proof, the end": (f"{_PROOFS}/proof_and.py:_read_final",),
    "ring proof, elements": (f"{_PROOFS}/ring_roles.py:read_elements", "mpc_ops/ring/wide.py:from_bytes"),
    "ring proof, carries": (f"{_PROOFS}/ring_roles.py:_read_carries",),
    "rows of a shuffle": (f"{_ORDER}/row_parts.py:RowShape.read",),
    "elements of Z_2^32": (f"{_CIRCUITS}/counters.py:_read",),
    "checkpoint": (f"{_CORE}/checkpoint.py:decode_checkpoint", f"{_CORE}/checkpoint.py:_words"),
    "logic": (f"{_CIRCUITS}/boolean.py:_and_taken", "mpc_ops/ring/coding.py:from_body"),
    "products": (f"{_CIRCUITS}/products.py:_dots", f"{_CORE}/opening.py:_values"),
    "daBits": (f"{_CIRCUITS}/dabits.py:_open_masked",),
    "checkpoints": (f"{_CORE}/checkpoint.py:_common",),
    "own inputs": (f"{_CORE}/own_input.py:input_of_all",),
    "shuffle": (f"{_ORDER}/shuffle_tags.py:add_tags", f"{_ORDER}/shuffle_tags.py:open_tag_keys"),
    "sort by comparison": (f"{_ORDER}/sort_quick.py:opened_bits",),
    "tiny domain": ("mpc_ops/protocol/relational/dot_table.py:dot_table",),
}  # fmt: skip
"""Target of a fuzz test: the places that its good samples run through, which the test insists on."""
NOT_FUZZED: dict[str, str] = {}

CALLS = {
    "convert", "Decoder", "from_bytes", "from_body", "frombuffer", "unpack", "unpack_from", "iter_unpack", "loads", "load", "b64decode",
    "fromhex", "unhexlify", "from_public_bytes", "from_private_key", "load_pem_private_key", "load_pem_public_key",
    "load_pem_x509_certificate", "load_der_x509_certificate", "open_stream", "open_file", "read_table", "ParquetFile", "load_workbook",
    "read_csv", "read_excel", "fromisoformat", "strptime", "unpackbits", "parse_canonical", "literal_eval", "fromstring",
}  # fmt: skip
"""Names of functions and methods that read a form."""
MODULES = {"msgspec", "json", "tomllib", "yaml", "np", "numpy", "struct", "base64", "binascii"}
OWN_TEXT = {"b64encode", "encode", "to_bytes", "public_bytes", "hexdigest", "dumps"}
"""What is decoded right after one of these was made here."""


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _reads(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = _name(node.func)
    if name == "load":  # many classes have such a method; what it calls counts
        return isinstance(node.func, ast.Attribute) and _name(node.func.value) in MODULES
    if name == "decode" or name.endswith("_decode"):
        inner = node.func.value if isinstance(node.func, ast.Attribute) else None
        return not (isinstance(inner, ast.Call) and _name(inner.func) in OWN_TEXT)
    return name in CALLS or (name in {"str", "bytes"} and len(node.args) == 2)


def _inside(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        own = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        name = f"{prefix}.{node.name}".lstrip(".") if own else prefix
        yield name, node
        yield from _inside(node, name)


def decoders_of(source: str) -> set[str]:
    """Return the functions of a module that read a form; `<module>` for what is made once."""
    return {name or "<module>" for name, node in _inside(ast.parse(source)) if _reads(node)}


def decoders(*packages: Path) -> set[str]:
    """Return them for packages, as `package/folder/module.py:Class.function`."""
    found = set()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            where = path.relative_to(package.parent).as_posix()
            found |= {f"{where}:{name}" for name in decoders_of(path.read_text(encoding="utf-8"))}
    return found
