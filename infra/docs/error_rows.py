"""Keep docs/errors.md true: print rows for codes it lacks, fill the column of classes, and write the table of exit codes.

```
python infra/docs/error_rows.py           what is missing and what is left over; skeleton rows to copy
python infra/docs/error_rows.py --write   also fill the generated columns in docs/errors.md
```
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from codes import Found, collect, error_classes  # noqa: E402

from mpc_ops.errors import EXIT_CODES  # noqa: E402

__all__ = ["PAGE", "carried", "exit_rows", "missing_rows", "read_rows", "written"]

PAGE = ROOT / "docs" / "errors.md"
_ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]{2,60})` \| ([^|]*) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_EXIT = re.compile(r"(<!-- exit codes -->\n).*?(<!-- end -->)", re.DOTALL)


def read_rows(text: str) -> list[tuple[str, str, str, str]]:
    """Return (code, classes, meaning, what to do) of every row of the page."""
    return [(code, *(cell.strip() for cell in cells)) for code, *cells in _ROW.findall(text)]  # type: ignore[misc]


def carried(found: Found) -> str:
    """Return the text of the classes column: class names with exit code, `↻` where trying again can help."""
    classes = error_classes()
    said = [
        f"{name} {classes[name].exit_code}{' ↻' if classes[name].transient else ''}" for name in sorted(found.classes)
    ]
    return ", ".join(said) or "in signed states and reports"


def missing_rows(text: str) -> tuple[list[str], list[str]]:
    """Return (rows for codes that the page lacks, codes of the page that nothing raises)."""
    codes, there = collect(), {row[0] for row in read_rows(text)}
    rows = [
        f"| `{code}` | {carried(found)} | ? | ? |  <!-- {', '.join(sorted(found.places))} -->"
        for code, found in codes.items()
        if code not in there
    ]
    return rows, sorted(there - set(codes))


def exit_rows() -> str:
    """Return the table of exit codes."""
    lines = ["| exit code | meaning |", "|---|---|", *(f"| {code} | {text} |" for code, text in EXIT_CODES.items())]
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """Return the page with its generated parts filled in."""
    codes = collect()

    def fill(match: re.Match[str]) -> str:
        code, classes, meaning, action = match.groups()
        return f"| `{code}` | {carried(codes[code]) if code in codes else classes} | {meaning} | {action} |"

    text = _EXIT.sub(lambda match: match[1] + exit_rows() + match[2], text)
    return _ROW.sub(fill, text)


def main(arguments: list[str]) -> int:
    """Print what is missing; with --write fill the page. Returns 1 while something is missing or left over."""
    text = PAGE.read_text()
    if "--write" in arguments:
        text = written(text)
        PAGE.write_text(text)
    rows, gone = missing_rows(text)
    if rows:
        print("Add to docs/errors.md, each where it belongs, and fill the question marks:", *rows, sep="\n")
    if gone:
        print("Nothing raises these any more; remove them:", *gone, sep="\n")
    return 1 if rows or gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
