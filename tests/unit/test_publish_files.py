"""Parquet, CSV and XLSX: typed numbers, real cells, nothing that a spreadsheet could run."""

import csv
import io
import json
import zipfile
from dataclasses import replace
from decimal import Decimal

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from local_stores.publish.derive import PublishedMonth, year_to_date
from local_stores.publish.editions import render
from local_stores.publish.text import (
    count_text,
    exact_text,
    percent_text,
    period_label,
    plain_text,
    safe_text,
    scaled_text,
)
from local_stores.publish.write_xlsx import xlsx_bytes
from tests.support.publish_sample import basis, sample_table, submissions

TABLE = sample_table()


def month(period):
    table = sample_table(period)
    return PublishedMonth(
        period, 1, {row.key: {m.name: table.value(row, m.name) for m in table.measures} for row in table.rows}
    )


@pytest.fixture(scope="module")
def files():
    return render(TABLE, basis(), [month("2026-01"), month("2026-02")])


@pytest.fixture(scope="module")
def book(files):
    return openpyxl.load_workbook(io.BytesIO(files["result.xlsx"]))


def test_parquet_holds_exact_decimals_and_says_where_it_comes_from(files):
    stored = pq.read_table(io.BytesIO(files["result.parquet"]))
    assert stored.schema.field("revenue").type == pa.decimal128(38, 2)
    assert stored.schema.field("customers").type == pa.int64()
    assert stored["revenue"].to_pylist() == [Decimal(row.values[0]).scaleb(-2) for row in TABLE.rows]
    assert stored.slice(6, 1).select(["level", "segment", "product_line"]).to_pylist() == [
        {"level": "subtotal", "segment": "AUTOMOBILE", "product_line": None}
    ]
    facts = json.loads(stored.schema.metadata[b"comity.table"])
    assert (facts["run_id"], facts["plan_digest"], facts["edition"]) == (basis().run_id, basis().plan_digest, 1)
    assert facts["year_to_date"]["included"] == [["2026-01", 1], ["2026-02", 1], ["2026-03", 1]]


def test_csv_has_one_header_and_dots(files):
    text = files["result.csv"].decode()
    assert text.count("\r\n") == len(TABLE.rows) + 1
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["revenue"] == plain_text(TABLE.rows[0].values[0], 2)
    assert (rows[-1]["level"], rows[-1]["segment"], rows[-1]["product_line"], rows[-1]["period"]) == (
        "total",
        "",
        "",
        "2026-03",
    )
    assert "," not in "".join(rows[0].values())
    assert (
        Decimal(rows[-1]["revenue_ytd"])
        == sum(Decimal(sample_table(p).rows[-1].values[0]) for p in ("2026-01", "2026-02", "2026-03")) / 100
    )


def test_workbook_has_the_sheets_and_real_numbers(book):
    assert book.sheetnames == ["Summary", "Segment x product line", "Completeness", "Basis", "Rates"]
    sheet = book["Segment x product line"]
    header = [cell.value for cell in sheet[1]]
    column = header.index("Net revenue, March 2026") + 1
    assert [sheet.cell(row, column).value for row in range(2, len(TABLE.rows) + 2)] == [
        row.values[0] / 100 for row in TABLE.rows
    ]
    assert {sheet.cell(row, column).data_type for row in range(2, 39)} == {"n"}
    assert sheet.cell(2, column).number_format == "#,##0.00"
    assert sheet.freeze_panes == "D2"
    assert header[:3] == ["Segment", "Product line", "Level"]
    assert [cell.value for cell in sheet[38]][:3] == ["total", "total", "total"]


def test_workbook_names_its_ranges(book):
    names = book.defined_names
    assert names["col_revenue"].attr_text == "'Segment x product line'!$D$2:$D$38"
    sheet, cell = next(names["total_revenue"].destinations)
    assert book[sheet][cell.replace("$", "")].value == TABLE.rows[-1].values[0] / 100
    assert "col_revenue_py_cc" in names
    assert "col_margin_ytd" in names


def test_workbook_summary_says_completeness_footing_and_the_rule(book):
    texts = [cell.value for row in book["Summary"].iter_rows() for cell in row if isinstance(cell.value, str)]
    assert "Entities in the figures: 8 of 8" in texts
    assert "Totals foot: check passed, 48 of 48 sums" in texts
    assert any("at least 10 customers" in text for text in texts)
    assert any("Lines therefore do not add up to totals" in text for text in texts)
    assert "Gross margin in % of net revenue" in texts
    assert "Year to date, prior year" in texts


def test_workbook_comments_explain_not_allocated_and_zero(book):
    zero = xlsx_bytes(replace(TABLE, rows=(replace(TABLE.rows[0], values=(0,) * 10),)), basis(year_periods=()), None)
    sheet = openpyxl.load_workbook(io.BytesIO(zero))["Segment x product line"]
    assert "nothing was booked, or it stands in a not-allocated line" in sheet["D2"].comment.text
    comments = [cell.comment.text for row in book["Segment x product line"].iter_rows() for cell in row if cell.comment]
    assert len(comments) == 6
    assert all("fewer than 10 customers within one entity" in text for text in comments)


def test_workbook_completeness_lists_entities_late_ones_last():
    late = (replace(submissions()[2], state="late", sign_offs=None, tie_out=None), *submissions()[3:5])
    sheet = openpyxl.load_workbook(io.BytesIO(xlsx_bytes(TABLE, basis(submissions=late, year_periods=()), None)))[
        "Completeness"
    ]
    rows = [[cell.value for cell in row] for row in sheet.iter_rows(min_row=2)]
    assert [row[0] for row in rows] == ["cn-east", "cn-south", "de-west"]
    assert rows[0][2:6] == ["submitted", "2026-04-03 08:03:10 UTC", "2 people", "check passed"]
    assert rows[2][2] == "late, not in the figures"


def test_workbook_bytes_carry_no_moment_and_no_user(files):
    with zipfile.ZipFile(io.BytesIO(files["result.xlsx"])) as container:
        assert {entry.date_time for entry in container.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        core = container.read("docProps/core.xml").decode()
        assert not [
            name for name in container.namelist() if "external" in name.lower() or name.endswith((".bin", ".vbs"))
        ]
    assert core.count("1980-01-01T00:00:00Z") == 2
    assert "lastModifiedBy" not in core


HOSTILE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1+1",
    '=HYPERLINK("http://x")',
    "a\x00b",
    "<script>alert(1)</script>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_a_formula_or_markup(text):
    rows = tuple(
        replace(row, labels=(text, *row.labels[1:])) if row.labels[:1] == ("BUILDING",) else row for row in TABLE.rows
    )
    hostile = replace(TABLE, title=text, rows=rows)
    facts = basis(
        submissions=(replace(submissions()[0], owner=text),),
        edition_reason=text,
        extra=((text, text),),
        year_periods=(),
    )
    made = render(replace(hostile, edition=2), facts, [])
    for sheet in openpyxl.load_workbook(io.BytesIO(made["result.xlsx"])):
        for cells in sheet.iter_rows():
            for cell in cells:
                assert cell.data_type != "f", cell.coordinate
                assert cell.hyperlink is None
                assert not str(cell.value or "").startswith(("=", "+", "@", "\t", "\r"))
    for record in csv.reader(io.StringIO(made["result.csv"].decode(), newline="")):
        assert not any(
            field.startswith(("=", "+", "@", "\t", "\r")) or (field.startswith("-") and not field[1:2].isdigit())
            for field in record
        )
    assert "<script>" not in made["report.html"].decode()


def test_negative_numbers_stay_numbers_in_csv():
    rows = (replace(TABLE.rows[0], values=(-12345, *TABLE.rows[0].values[1:])),)
    record = next(
        iter(
            csv.DictReader(
                io.StringIO(render(replace(TABLE, rows=rows), basis(year_periods=()), [])["result.csv"].decode())
            )
        )
    )
    assert record["revenue"] == "-123.45"


def test_texts_of_numbers():
    assert exact_text(-123456789, 2) == "\u22121,234,567.89"
    assert (scaled_text(150_000, 2, 1000), scaled_text(250_000, 2, 1000), scaled_text(-150_000, 2, 1000)) == (
        "2",
        "2",
        "\u22122",
    )
    assert scaled_text(150_005, 2, 0) == "1,500.05"
    assert (plain_text(5, 2), plain_text(-5, 2), plain_text(7, 0)) == ("0.05", "-0.05", "7")
    assert count_text(-1234) == "\u22121,234"
    assert (percent_text(None), percent_text(Decimal("0.0"), sign=True), percent_text(Decimal("-1.5"), sign=True)) == (
        "n/a",
        "0.0\u00a0%",
        "\u22121.5\u00a0%",
    )
    assert percent_text(Decimal("1.5"), sign=True) == "+1.5\u00a0%"
    assert period_label("2026-10") == "October 2026"
    assert period_label("FY26-P07") == "FY26-P07"
    assert period_label("2026-13", "2026-09-28", "2026-10-26") == "2026-13 (2026-09-28 to 2026-10-25)"
    assert (safe_text("=x"), safe_text("plain - text"), safe_text("a\x07")) == ("'=x", "plain - text", "a\ufffd")


def test_numbers_near_the_limit_of_64_bits_stay_exact():
    largest = 2**63 - 1
    rows = (replace(TABLE.rows[0], values=(largest, -largest, *TABLE.rows[0].values[2:])),)
    made = render(replace(TABLE, rows=rows), basis(year_periods=()), [])
    stored = pq.read_table(io.BytesIO(made["result.parquet"])).to_pylist()[0]
    assert (stored["revenue"], stored["margin"]) == (Decimal("92233720368547758.07"), Decimal("-92233720368547758.07"))
    assert "92233720368547758.07" in made["result.csv"].decode()
    assert year_to_date(TABLE, [], ()) is None
