"""The page: what a reader needs is on it, in the right words, without script or anything loaded from elsewhere."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from local_stores.publish.derive import PublishedMonth
from local_stores.publish.editions import publish, render
from tests.support.publish_sample import basis, sample_table, submissions

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TABLE = sample_table()


def month(period):
    table = sample_table(period)
    return PublishedMonth(
        period, 1, {row.key: {m.name: table.value(row, m.name) for m in table.measures} for row in table.rows}
    )


def page(table=TABLE, earlier=("2026-01", "2026-02"), **facts):
    return render(table, basis(**facts), [month(period) for period in earlier])["report.html"].decode()


def words(text):
    """Text of the page as read, without tags."""
    body = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).replace("\u00a0", " ")


class Outline(HTMLParser):
    """Collects tags, and complains about tables without captions or headers without scope."""

    VOID = frozenset({"meta", "col", "link", "br", "img"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.problems, self.ids, self.references = [], [], [], [], []
        self.feed(text)
        self.close()
        self.problems += [f"unclosed {tag}" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "th" and "scope" not in attributes:
            self.problems.append("th without scope")
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if "aria-labelledby" in attributes:
            self.references.append(attributes["aria-labelledby"])
        if (
            any(name in attributes for name in ("src", "onclick", "onload"))
            or attributes.get("href", "#").startswith("#") is False
        ):
            self.problems.append(f"{tag} refers elsewhere")

    def handle_endtag(self, tag):
        if self.open[-1:] != [tag]:
            self.problems.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()


@pytest.mark.parametrize("dimensions", [0, 1, 2])
def test_the_page_is_well_formed_accessible_and_self_contained(dimensions):
    table = TABLE
    if dimensions == 1:
        rows = [replace(row, level="leaf") for row in TABLE.rows if row.level == "subtotal"] + list(TABLE.rows[-2:])
        table = replace(TABLE, dimensions=("segment",), dimension_labels=("Segment",), rows=tuple(rows))
    if dimensions == 0:
        table = replace(TABLE, dimensions=(), dimension_labels=(), rows=(replace(TABLE.rows[-1], level="leaf"),))
    text = page(table, earlier=(), year_periods=("2026-03",))
    outline = Outline(text)
    assert outline.problems == []
    assert outline.tags.count("table") == outline.tags.count("caption") >= 4
    assert set(outline.references) <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))
    assert "script" not in outline.tags
    assert not re.search(r"https?:|url\(|@import", text)
    assert "default-src 'none'" in text
    assert text.startswith('<!doctype html>\n<html lang="en">')


def test_figures_stand_in_thousands_with_the_exact_number_behind_them():
    text, total = page(), TABLE.rows[-1]
    exact = f"{total.values[0] // 100}.{total.values[0] % 100:02d}"
    thousands = f"{round(total.values[0] / 100_000):,}"
    assert f'<data value="{exact}" title="{exact}">{thousands}</data>' in text
    assert f"{total.values[0] / 100:,.2f}" in words(text)


def test_small_reports_are_printed_to_the_cent():
    rows = tuple(replace(row, values=tuple(value // 10_000 for value in row.values)) for row in TABLE.rows)
    text = page(replace(TABLE, rows=rows), earlier=(), year_periods=())
    assert "EUR thousand" not in text
    assert "Thousands" not in words(text)
    assert f"{rows[-1].values[0] / 100:,.2f}" in words(text)


@pytest.mark.parametrize(
    "sentence",
    [
        "Entities in the figures: 8 of 8",
        "Totals foot: check passed , 48 of 48 sums",
        "Small-cell rule: at least 10 customers in every subtotal that leaves an entity, else not allocated",
        "Year to date: 3 of 3 months",
        "Not allocated A subtotal of fewer than 10 customers within one entity is not shown in its own line.",
        "Nothing is lost: totals hold every amount.",
        "Customers Counted anew at every level within each entity, then added over the entities.",
        "The result recipient adds it up; nobody sends it.",
        "“At March 2026 rates” translates the prior year's subtotals at this month's rates instead.".replace(
            "'", "&#39;"
        ),
        "the exact figures below add up to the cent",
        "That the figures submitted are true is each entity's own statement.",
        "Submission close 2026-04-06 16:00:00 UTC",
        "local dates from 2026-03-01 up to, not including, 2026-04-01 (Europe/Amsterdam)",
        "March 2025 at March 2026 rates",
        "Exchange-rate effect",
        "Gross margin in % of net revenue",
    ],
)
def test_what_a_reader_needs_is_said(sentence):
    assert sentence in words(page())


def test_words_that_reviewers_misread_are_avoided():
    text = words(page()).lower()
    for word in (
        "ledger entries",
        "restatement",
        "filing",
        "nil return",
        "proven",
        "verified",
        "compliant",
        "anonymous",
        "erase",
        "close of books",
        " plan ",
    ):
        assert word not in text.replace("calculation plan", ""), word
    assert "calculation plan" in text
    assert "result recipient" in text


def test_late_and_left_out_entities_are_named_and_do_not_count():
    entries = submissions()
    entries = (
        *entries[:6],
        replace(entries[6], state="late"),
        replace(entries[7], state="empty", sign_offs=1, tie_out="none"),
    )
    text = words(page(submissions=entries))
    assert "Entities in the figures: 7 of 8" in text
    assert "in-south IN late, not in the figures" in text
    assert "sa-gulf SA empty submission 2026-04-03 08:07:10 UTC 1 person none in the data contract" in text


def test_totals_that_do_not_foot_are_shouted():
    rows = list(TABLE.rows)
    rows[0] = replace(rows[0], values=(rows[0].values[0] + 1, *rows[0].values[1:]))
    assert "NO, 2 of 48 sums differ" in words(page(replace(TABLE, rows=tuple(rows))))


def test_a_revised_release_says_so():
    text = words(page(replace(TABLE, edition=2), edition_reason="late invoices of cn-east"))
    assert "revised release 2: late invoices of cn-east" in text


def test_every_row_and_measure_is_on_the_page_exactly():
    text = page()
    exact = text[text.index('id="exact"') :]
    for row in TABLE.rows:
        for measure, value in zip(TABLE.measures, row.values, strict=True):
            printed = f"{value / 100:,.2f}" if measure.scale else f"{value:,}"
            assert f"<td>{printed}</td>" in exact


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_the_numbers_and_the_notes(tmp_path):
    published = publish(TABLE, basis(), tmp_path / "published")
    found = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (published.folder / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    text = words(found.stdout)
    total = TABLE.rows[-1].values
    for expected in (
        f"{total[0] / 100:,.2f}",
        f"{total[3]:,}",
        "check passed",
        "8 of 8",
        "Not allocated",
        "Lines therefore do not add up to totals",
        "Total BUILDING",
    ):
        assert expected in text


def test_the_small_cell_rule_of_countries_is_told_with_its_entities():
    text = words(page(gate_at="region"))
    assert (
        "at least 10 customers in every subtotal that leaves a country, over all its entities, else not allocated"
        in text
    )
    assert "A subtotal of fewer than 10 customers within one country, over all its entities together" in text
    assert "takes the smallest other line with it until it holds 10. " in text
    text = words(page(gate_at="region", gate_owners=2))
    assert "at least 10 customers of 2 entities in every subtotal that leaves a country" in text
    assert "A subtotal of fewer than 10 customers, or customers of fewer than 2 entities within one country" in text
    assert "still below 10 customers of 2 entities, to the one at the foot" in text
    assert "A country with fewer than 10 customers, or customers of fewer than 2 entities in all adds nothing" in text
    assert "No country has at least 10 customers of 2 entities there" in text
    assert "of 2 entities" in words(page(gate_at="region", gate_owners=2, gate_k=1))
