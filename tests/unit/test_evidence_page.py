"""The reviewers' page: self-contained, in the layout of the design, words that are not misread, every line with an id."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import typer
from typer.testing import CliRunner

from mpc_ops.cli.evidence_commands import register
from mpc_ops.errors import EvidenceError
from mpc_ops.evidence.checks import assess
from mpc_ops.evidence.derive import derive_facts
from mpc_ops.evidence.facts import compare
from mpc_ops.evidence.page import render_page
from tests.support.evidence import make_pack, make_run
from tests.support.federation import DEMO

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), DEMO)


@pytest.fixture(scope="module")
def facts(run):
    return derive_facts(assess(run.evidence()))


@pytest.fixture(scope="module")
def page(facts) -> str:
    return render_page(facts).decode()


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in {"src", "href", "action", "background"}]

    def handle_data(self, data):
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_the_page_is_self_contained(page):
    reader = read(page)
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "form"}
    assert reader.links == []
    assert "url(" not in page
    assert "@import" not in page
    assert "http" not in re.sub(r"http-equiv", "", page)


def test_sections_stand_in_the_order_of_the_design(page):
    titles = ["A. For your decision", "B. What crossed a border", "C. Who could learn what", "D. Result checks",
              "E. Protection", "F. Holds until", "G. Not claimed", "Signed:", "FLOWS IN FULL", "METADATA AND REACH",
              "CHANGE SINCE LAST MONTH", "REGISTER OF FACTS"]  # fmt: skip
    places = [page.index(title) for title in titles]
    assert places == sorted(places)


def test_words_that_reviewers_misread_are_not_used(page):
    words = " ".join(read(re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)).text).lower()
    for word in ("compliant", "proven", "legally", "gdpr-proof", "zero-record", "general ledger entry"):
        assert word not in words
    assert "secret share" in words
    assert "not legal advice" in words
    assert "border" in words


def test_every_fact_has_an_id_that_stands_on_the_page(facts, page):
    assert [fact.id for fact in facts.facts] == [f"F{number:02d}" for number in range(1, len(facts.facts) + 1)]
    for fact in facts.facts:
        assert page.count(f">{fact.id}<") >= 2, fact  # on its page and in the register
        assert fact.source
        assert fact.attested_by


def test_every_printed_line_of_page_one_ends_in_an_id(page):
    first = page[page.index("<main") : page.index("</main>")]
    for row in re.findall(r'<div class="row.*?</div>', first, flags=re.DOTALL):
        assert re.search(r'<span class="id">F\d+</span></div>$', row), row
    for row in re.findall(r"<tr class=.*?</tr>", first, flags=re.DOTALL):
        assert re.search(r'<td class="id">F\d+</td></tr>$', row), row


def test_numbers_of_the_sample_are_the_reconciled_ones(run, page):
    both = assess(run.evidence()).reconciliation
    cn = [flow for flow in both.crossings if (flow.origin, flow.payload_class) == ("CN", "aggregate_share")]
    assert f"{sum(flow.bytes for flow in cn):,}" in page
    assert f"both ends agree on {both.agreed} of {both.frames} frames" in page
    assert "DE &gt; NL (same area)" in page
    assert "one data owner: its stage adds no separation" in page
    assert "7 of 8 together with the result recipient" in page
    assert "computing operators 15/15 · data owners 8/8 · result recipient 1/1" in page


def test_texts_of_others_are_escaped(facts):
    import msgspec  # noqa: PLC0415

    evil = '<script>alert("x")</script>'
    page = render_page(msgspec.structs.replace(facts, title=evil, purpose=evil)).decode()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_verdict_is_made_from_failed_and_open_facts_only(facts):
    assert facts.verdict == f"RUN COMPLETED · no check failed · {len(facts.open)} ITEMS OPEN FOR PEOPLE"
    assert {fact.state for fact in facts.facts} == {"measured", "declared", "open"}


def test_page_four_names_what_changed_and_nothing_else(facts):
    import msgspec  # noqa: PLC0415

    assert compare(facts.facts, facts.facts) == []
    before = [
        msgspec.structs.replace(fact, stable="approved by nobody") if fact.key == "approvals" else fact
        for fact in facts.facts
        if fact.key != "denied"
    ]
    before.append(msgspec.structs.replace(facts.facts[0], key="old", stable="an old thing"))
    assert [(change.what, change.before) for change in compare(facts.facts, before)] == [
        ("changed", "approved by nobody"), ("new", ""), ("gone", "an old thing"),
    ]  # fmt: skip


def test_the_command_prints_the_checklist_and_refuses_with_the_file(run, tmp_path):
    app = typer.Typer()
    register(app)
    pack = make_pack(run, tmp_path / "pack")
    result = CliRunner().invoke(app, ["evidence", "verify", str(pack)])
    assert result.exit_code == 0, result.output
    assert "passed  facts and page: derived again" in result.output
    assert "CHECKS PASSED" in result.output
    assert run.made.federation.digest in result.output
    shown = CliRunner().invoke(app, ["evidence", "show", str(pack), "--federation", str(run.made.folder)])
    assert shown.exit_code == 0
    assert "B. What crossed a border" in shown.output
    (pack / "README.txt").write_text("hello")
    result = CliRunner().invoke(app, ["evidence", "verify", str(pack)])
    assert isinstance(result.exception, EvidenceError)
    assert result.exception.exit_code == 12
    assert result.exception.code == "EVIDENCE_REFUSED"
    assert result.exception.ids == {"file": "README.txt"}
    assert "FAILED  files: none altered" in result.output


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_decision_crossings_and_checks(page, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    found = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    text = " ".join(" ".join(read(found.stdout).text).split())
    for expected in (
        "RUN COMPLETED · no check failed",
        "CN > CH, NL, SG",
        "no record-level class recorded across a border",
        "Reviewer",
        "both ends agree on",
        "is the published table anonymous?",
    ):
        assert expected in text
