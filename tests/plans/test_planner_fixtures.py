"""SQL in, plan text out. `COMITY_WRITE_PLANS=1` writes the expected texts anew; review them before committing."""

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from mpc_ops.envelope.schema import encode
from mpc_ops.errors import PlanError
from mpc_ops.plan.checks import read_plan
from mpc_ops.plan.crossings import check_crossings
from mpc_ops.plan.text import plan_text
from mpc_ops.planner import compile_report, read_terms
from tests.support.federation import DEMO, DEMO_FOLDER, make_federation

HERE = Path(__file__).parent
TERMS = (DEMO_FOLDER / "reports" / "group_performance.toml").read_text()


def terms_without_labels():
    """The demo's terms for other reports, with the Gate at the owner; the demo's own report has it in the region."""
    return msgspec.structs.replace(read_terms(TERMS.partition("[labels]")[0]), gate_at="owner", max_units=None)


def refused():
    for block in (HERE / "refused.sql").read_text().split("--! ")[1:]:
        header, _, sql = block.partition("\n")
        yield pytest.param(*header.split(" ", 1), sql.strip("\n"), id=header[:60])


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("demo"), DEMO).federation


@pytest.mark.parametrize("path", sorted(p for p in HERE.glob("*.sql") if p.name != "refused.sql"), ids=lambda p: p.stem)
def test_accepted_reports(federation, path):
    terms = read_terms(TERMS) if path.stem == "group_performance" else terms_without_labels()
    if path.stem.startswith("region_"):
        terms = msgspec.structs.replace(terms, gate_at="region")
    plan = compile_report(path.read_text(), terms, federation)
    assert read_plan(encode(plan), federation) == plan
    text = plan_text(plan).replace(plan.node(type(plan.nodes[0])).contract[:12], "<contract>")
    if os.environ.get("COMITY_WRITE_PLANS"):
        path.with_suffix(".plan").write_text(text)
    assert text == path.with_suffix(".plan").read_text()


@pytest.mark.parametrize(("code", "message", "sql"), list(refused()))
def test_refused_reports(federation, code, message, sql):
    with pytest.raises(PlanError) as info:
        compile_report(sql, terms_without_labels(), federation)
    assert (info.value.code, info.value.what[: len(message)]) == (code, message)


def test_the_demo_report_is_the_fixture_and_passes_the_rules(federation):
    sql = (DEMO_FOLDER / "reports" / "group_performance.sql").read_text()
    assert sql == (HERE / "group_performance.sql").read_text()
    plan = compile_report(sql, read_terms(TERMS), federation)
    assert compile_report(sql, read_terms(TERMS), federation).digest == plan.digest
    assert check_crossings(plan, federation, now=datetime(2026, 6, 1, tzinfo=UTC))
