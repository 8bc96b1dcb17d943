"""The encoder: every breach of the contract by code, with columns and counts and no value."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from local_stores.snapshot.encoder import enforce_contract
from local_stores.stores.casting import contract_schema
from mpc_ops.envelope.schema import from_plain, to_plain
from mpc_ops.errors import LocalDataError
from mpc_ops.federation.assemble import read_toml
from mpc_ops.federation.contract import DatasetContract
from tests.support.federation import DEMO_FOLDER

CONTRACT = read_toml(DEMO_FOLDER / "datasets" / "sales_line.toml", DatasetContract)
GOOD = {
    "invoice_no": 1, "line_no": 1, "booked_on": dt.date(2026, 1, 2), "customer_uid": "c1", "segment": "BUILDING",
    "product_line": "TIN", "quantity": 3, "revenue_lc": Decimal("10.00"), "cost_lc": Decimal("5.00"),
}  # fmt: skip


def table(*rows, contract=CONTRACT):
    full = [{**GOOD, "line_no": n + 1, **row} for n, row in enumerate(rows)]
    return pa.Table.from_pylist(full, contract_schema(contract))


def refused(contents, contract=CONTRACT):
    with pytest.raises(LocalDataError) as caught:
        enforce_contract(contents, contract, owner="de-nord")
    assert "[dataset=sales_line, owner=de-nord]" in str(caught.value)
    return f"{caught.value.code}: {caught.value.what}"


def test_encoder_accepts_what_the_contract_allows():
    enforce_contract(table({}, {"revenue_lc": Decimal("10000000.00")}, {"revenue_lc": Decimal(0)}), CONTRACT, owner="o")
    enforce_contract(table(), CONTRACT, owner="o")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"segment": None}, {"revenue_lc": None}, {"revenue_lc": None}], "NULL_NOT_ALLOWED: NULL where the contract allows none: segment (1), revenue_lc (2)"),
        ([{"customer_uid": None}], "NULL_NOT_ALLOWED: NULL where the contract allows none: customer_uid (1)"),
        ([{"booked_on": None}], "NULL_NOT_ALLOWED: NULL where the contract allows none: booked_on (1)"),
        ([{"segment": "CANARY"}, {"segment": "building"}], "DOMAIN_UNKNOWN: values that are not in the column's closed list: segment (2)"),
        ([{"revenue_lc": Decimal("10000000.01")}, {"cost_lc": Decimal("-0.01")}, {"quantity": 51}], "VALUE_OUTSIDE_CONTRACT: values outside the contract's bounds: quantity (1), revenue_lc (1), cost_lc (1)"),
        ([{"line_no": 7}, {"line_no": 7}, {"line_no": 7}], "DUPLICATE_KEY: 2 rows repeat the primary key (invoice_no, line_no)"),
    ],
)  # fmt: skip
def test_encoder_names_column_and_count(rows, message):
    assert refused(table(*rows)) == message


def test_encoder_row_bound():
    small = from_plain({**to_plain(CONTRACT), "max_rows": 2}, DatasetContract, what="contract")
    assert refused(table({}, {}, {}), small).startswith("TOO_MANY_ROWS")


def test_encoder_types_and_scales():
    wrong = table({}).set_column(7, "revenue_lc", pa.array([Decimal("10.000")], pa.decimal128(38, 3)))
    assert refused(wrong).startswith("TYPE_MISMATCH")
    assert refused(table({}).drop_columns(["cost_lc"])).startswith("TYPE_MISMATCH")
    assert refused(table({}).set_column(6, "quantity", pa.array([3.0]))).startswith("TYPE_MISMATCH")


def test_encoder_unit_may_never_be_null_even_if_the_contract_says_so():
    plain = to_plain(CONTRACT)
    for column in plain["columns"]:
        column["nullable"] = column["name"] == "customer_uid"
    nullable = from_plain(plain, DatasetContract, what="contract")
    assert "customer_uid (1)" in refused(table({"customer_uid": None}), nullable)
