"""Write the transition tables of the three state machines into docs/tour.md, from the code that runs them.

```
python infra/docs/state_tables.py
```
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mpc_ops.session import FILING, RUN, SESSION  # noqa: E402

__all__ = ["PAGE", "written"]

PAGE = ROOT / "docs" / "tour.md"
_TABLES = {"filing": FILING.as_markdown(), "session": SESSION.as_markdown(), "run": RUN.as_markdown()}
_PLACE = re.compile(r"(<!-- machine: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(text: str) -> str:
    """Return the page with present tables."""
    return _PLACE.sub(lambda match: match[1] + _TABLES[match[2]] + match[3], text)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
