"""The SQL shown in docs/sql.md compiles."""

from pathlib import Path

import pytest

from mpc_ops.planner import compile_report, read_terms
from tests.support.federation import DEMO, DEMO_FOLDER, make_federation

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
EXAMPLES = [block.partition("```")[0] for block in PAGE.split("```sql\n")[1:]]


@pytest.mark.parametrize("sql", EXAMPLES, ids=["simple", "group"])
def test_examples_compile(tmp_path, sql):
    terms = read_terms((DEMO_FOLDER / "reports" / "group_performance.toml").read_text().partition("[labels]")[0])
    assert compile_report(sql, terms, make_federation(tmp_path, DEMO).federation).nodes
