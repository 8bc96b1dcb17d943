"""Validation: what fails is named, no value is; control totals tie to the ledger or stop the filing."""

from __future__ import annotations

import datetime as dt
import json
import logging
from decimal import Decimal

import pyarrow as pa
import pytest
from msgspec.structs import replace

from local_stores.stores import DateRange
from local_stores.stores.casting import contract_schema
from local_stores.validation.control_totals import check_control_totals
from local_stores.validation.running import require_passed, run_expectations, validation_page
from local_stores.validation.suite import ALLOWED, Expectation, contract_expectations, own_expectations
from mpc_ops.errors import ConfigError, LocalDataError
from mpc_ops.federation.assemble import read_toml
from mpc_ops.federation.contract import ControlTotal, DatasetContract
from tests.support.federation import DEMO_FOLDER

CONTRACT = read_toml(DEMO_FOLDER / "datasets" / "sales_line.toml", DatasetContract)
MARCH = DateRange(dt.date(2026, 3, 1), dt.date(2026, 4, 1))
CANARY = "CANARY-4711"


def table(*changes, count=20):
    rows = [
        {
            "invoice_no": n + 1, "line_no": 1, "booked_on": dt.date(2026 if n % 4 else 2025, 3, 1 + n),
            "customer_uid": f"c{n}", "segment": "BUILDING", "product_line": "TIN", "quantity": 3,
            "revenue_lc": Decimal("10.25"), "cost_lc": Decimal("5.00"),
        }
        for n in range(count)
    ]  # fmt: skip
    for place, change in enumerate(changes):
        rows[place] |= change
    return pa.Table.from_pylist(rows, contract_schema(CONTRACT))


def failed(outcomes):
    return [outcome.expectation.title for outcome in outcomes if not outcome.passed]


def test_validation_passes_what_the_contract_allows():
    outcomes = run_expectations(table(), contract_expectations(CONTRACT), [])
    assert failed(outcomes) == []
    require_passed(outcomes, owner="de-nord", dataset="sales_line", page="page.html")
    assert failed(run_expectations(table(count=0), contract_expectations(CONTRACT), [])) == []


def test_validation_names_expectations_and_no_value(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    bad = table({"segment": CANARY}, {"product_line": None}, {"quantity": 4711}, {"invoice_no": 3, "line_no": 1})
    own = [
        Expectation(type="expect_column_values_to_match_regex", kwargs={"column": "customer_uid", "regex": "^c1"}),
        Expectation(
            type="expect_column_max_to_be_between", kwargs={"column": "revenue_lc", "max_value": 1}, note="small"
        ),
    ]
    outcomes = run_expectations(bad, contract_expectations(CONTRACT), own)
    assert failed(outcomes) == [
        "column values to be in set (segment)", "column values to not be null (product_line)",
        "column values to be between (quantity)", "compound columns to be unique (invoice_no, line_no)",
        "column values to match regex (customer_uid)", "column max to be between (revenue_lc)",
    ]  # fmt: skip
    with pytest.raises(LocalDataError) as caught:
        require_passed(outcomes, owner="de-nord", dataset="sales_line", page="page.html")
    text = str(caught.value)
    assert text.startswith(
        "VALIDATION_FAILED: 6 of 21 expectations do not hold: column values to be in set (segment); "
    )
    assert "and 1 more" in text
    facts = {"owner": "de-nord", "dataset": "sales_line", "period": "2026-03", "snapshot": "ab", "tie_out": "none"}
    page = validation_page(outcomes, **facts).decode()
    assert page.count("FAILED") == 6
    assert "6 of 21 expectations do not hold" in page
    assert "this entity" in page
    assert "small" in page
    for secret in (CANARY, "4711", "10.25"):
        assert secret not in text + page + caplog.text + "".join(capfd.readouterr())


def test_validation_an_expectation_that_cannot_be_evaluated_has_not_passed():
    own = [Expectation(type="expect_column_mean_to_be_between", kwargs={"column": "customer_uid", "max_value": 1})]
    assert failed(run_expectations(table(), [], own)) == ["column mean to be between (customer_uid)"]


def test_validation_every_allowed_type_exists():
    import great_expectations as gx  # noqa: PLC0415 - importing costs seconds

    names = {"".join(word.capitalize() for word in name.split("_")) for name in ALLOWED}
    assert {name for name in names if not hasattr(gx.expectations, name)} == set()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "EXPECTATIONS_INVALID: the file is not a list of expectations"),
        ('{"type": 1}', "EXPECTATIONS_INVALID: the file is not a list of expectations"),
        ([{"type": "unexpected_rows_expectation", "kwargs": {}}], "expectation 1 has a type that is not in the closed list"),
        ([{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "segment", "row_condition": "1"}}], "expectation 1 has arguments that its type has not; got row_condition"),
        ([{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "salary"}}], "expectation 1 names a column that the contract has not; got salary"),
    ],
)  # fmt: skip
def test_validation_own_expectations_are_checked(tmp_path, content, message):
    file = tmp_path / "expectations.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        own_expectations(file, CONTRACT)
    assert message in str(caught.value)


def test_validation_own_expectations_are_read(tmp_path):
    file = tmp_path / "expectations.json"
    file.write_text('[{"type": "expect_column_values_to_be_unique", "kwargs": {"column": "invoice_no"}, "note": "n"}]')
    assert [one.title for one in own_expectations(file, CONTRACT)] == ["column values to be unique (invoice_no)"]
    assert own_expectations(None, CONTRACT) == []


TOTALS = replace(
    CONTRACT,
    control_totals=[
        ControlTotal(column="revenue_lc", source="4000-4999"), ControlTotal(column="quantity", source="units", tolerance="1"),
    ],
)  # fmt: skip


def tie(file, contract=TOTALS, period="2026-03"):
    return check_control_totals(contract, table(), file=file, period=period, dates=MARCH)


def ledger(tmp_path, *lines):
    file = tmp_path / "ledger.csv"
    file.write_text("\n".join(["period,source,amount", *lines]) + "\n")
    return file


def test_validation_control_totals_tie(tmp_path):
    # 15 of 20 rows are in March 2026: 15 x 10.25 and 15 x 3, the latter within a tolerance of 1.
    file = ledger(tmp_path, "2026-03,4000-4999,153.75", "2026-02,4000-4999,1", "2026-03,units,44")
    assert tie(file) == "passed"
    assert tie(None, replace(CONTRACT, control_totals=[])) == "none"


def test_validation_control_totals_that_do_not_tie(tmp_path):
    file = ledger(tmp_path, "2026-03,4000-4999,153.74", "2026-03,units,45")
    with pytest.raises(LocalDataError) as caught:
        tie(file)
    assert "TIE_OUT_FAILED: 1 of 2 control totals do not tie to the ledger: revenue_lc = 4000-4999" in str(caught.value)
    assert "153.7" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["2026-03,units,45"], "CONTROL_TOTAL_MISSING: the ledger file has no line for 2026-03, 4000-4999"),
        (["2026-03,4000-4999,1e3"], "CONTROL_TOTALS_INVALID: line 2 of the ledger file is not readable"),
        (["2026-03,4000-4999"], "CONTROL_TOTALS_INVALID: line 2 of the ledger file is not readable"),
        (["2026-03,units,1", "2026-03,units,1"], "CONTROL_TOTALS_INVALID: line 3 repeats a control total"),
    ],
)
def test_validation_control_totals_file_is_strict(tmp_path, lines, message):
    with pytest.raises(ConfigError) as caught:
        tie(ledger(tmp_path, *lines))
    assert message in str(caught.value)


def test_validation_control_totals_file_missing(tmp_path):
    with pytest.raises(ConfigError, match="CONTROL_TOTAL_MISSING: the data contract asks for control totals"):
        tie(None)
    with pytest.raises(ConfigError, match="CONTROL_TOTALS_INVALID: the ledger file cannot be read"):
        tie(tmp_path / "nothing.csv")
    (tmp_path / "head.csv").write_text("a,b,c\n")
    with pytest.raises(ConfigError, match="CONTROL_TOTALS_INVALID: the ledger file has another header"):
        tie(tmp_path / "head.csv")
