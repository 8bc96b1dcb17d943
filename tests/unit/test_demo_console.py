"""What `make demo` prints: every figure's place, steps with their time, no markup from data, no control codes in a pipe."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from infra.demo.console import DemoConsole
from local_stores.publish.derive import year_to_date
from tests.support.publish_sample import sample_table

FLOWS = [
    {"from": "CN", "to": "CH", "payload_class": "aggregate_share", "bytes": 13344, "messages": 1},
    {"from": "CN", "to": "CN", "payload_class": "record_share", "bytes": 900, "messages": 3},
]


@pytest.fixture
def printed():
    return io.StringIO()


@pytest.fixture
def demo(printed):
    return DemoConsole(Console(file=printed, width=118, highlight=False))


def test_the_report_names_every_line_and_keeps_its_width(demo, printed):
    table = sample_table()
    demo.report(table, year_to_date(table, [], ("2026-03",)))
    text = printed.getvalue()
    assert "Group performance, March 2026, EUR thousand" in text
    assert text.count("Not allocated") == 6
    assert f"{round(table.rows[-1].values[0] / 100_000):,}" in text
    assert f"{table.rows[-1].values[3]:,}" in text, "the last column is whole"
    assert "\u2026" not in text
    assert "Totals foot: 48 of 48 sums. Customers: counted anew at every level, do not add up." in text
    assert max(len(line) for line in text.splitlines()) <= 118
    assert "\x1b" not in text


def test_the_short_report_has_totals_only(demo, printed):
    demo.report(sample_table(), None, leaves=False)
    text = printed.getvalue()
    assert "BRASS" not in text
    assert text.count("Total ") == 6
    assert "Not allocated, top" in text


def test_steps_are_timed_and_a_failing_one_says_so(demo, printed):
    with demo.step("snapshot", "Snapshots [8 entities]"):
        pass
    with pytest.raises(ValueError, match="broken"), demo.step("close", "Submission close"):
        raise ValueError("broken")
    text = printed.getvalue()
    assert "✓ Snapshots [8 entities]" in text
    assert "✗ Submission close" in text
    assert list(demo.seconds) == ["snapshot", "close"]


def test_flows_show_data_pair_by_pair_and_everything_else_in_total(demo, printed):
    demo.flows([
        *FLOWS,
        {"from": "CN", "to": "SG", "payload_class": "control_metadata", "bytes": 1000, "messages": 2},
        {"from": "SG", "to": "CN", "payload_class": "control_metadata", "bytes": 500, "messages": 1},
        {"from": "IN", "to": "IN", "payload_class": "aggregate_share", "bytes": 77, "messages": 3},
        {"from": "DE", "to": "DE", "payload_class": "aggregate_share", "bytes": 23, "messages": 3},
    ])  # fmt: skip
    lines = [line.split() for line in printed.getvalue().splitlines()]
    assert ["CN", "CH", "aggregate_share", "secret", "shares", "of", "subtotals", "1", "13,344"] in lines
    assert ["all", "all", "control_metadata", "control", "data:", "names,", "sizes,", "times", "3", "1,500"] in lines
    assert [
        "at",
        "home",
        "2",
        "countries",
        "aggregate_share",
        "secret",
        "shares",
        "of",
        "subtotals",
        "6",
        "100",
    ] in lines
    assert sum("SG" in line for line in lines) == 0
    assert max(map(len, printed.getvalue().splitlines())) <= 118


def test_flows_count_what_crossed_a_border_and_name_record_classes(demo, printed):
    demo.flows(FLOWS)
    assert "13,344 bytes crossed a border, 13,344 of them secret shares" in printed.getvalue()
    assert "record-level classes among them: none recorded." in " ".join(printed.getvalue().split())
    demo.flows([*FLOWS, {"from": "IN", "to": "SG", "payload_class": "record_share", "bytes": 1, "messages": 1}])
    assert "13,345 bytes crossed a border, 13,344 of them secret shares; record-level classes among them: 1." in (
        printed.getvalue()
    )
    assert "RECORD LEVEL, secret shares" in printed.getvalue()


def test_a_step_is_printed_once_when_all_parties_have_finished_it(demo, printed):
    for who in ("a", "a", "b"):
        demo.progress("2026-03", "snapshot", "snapshot taken", who, ["a", "b", "c"])
    assert printed.getvalue() == ""
    demo.progress("2026-03", "snapshot", "snapshot taken", "c", ["a", "b", "c"])
    demo.progress("2026-03", "snapshot", "snapshot taken", "c", ["a", "b", "c"])
    demo.progress("2026-03", "close", "closed", "group", ["group"])
    assert printed.getvalue().splitlines() == [
        "  \u2713 2026-03  3 of 3 entities    snapshot taken", "  \u2713 2026-03  group              closed",
    ]  # fmt: skip


def test_text_is_printed_as_it_stands(demo, printed):
    demo.pairs([("Owner [bold]x[/bold]", "learns [nothing]")])
    demo.say("[red]plain[/red]")
    demo.files([Path("/a/var/demo/x"), Path("/elsewhere")], Path("/a"))
    demo.verdict(True, "evidence: [ok]")
    demo.heading("3 Borders")
    for expected in (
        "Owner [bold]x[/bold]",
        "learns [nothing]",
        "[red]plain[/red]",
        "  var/demo/x",
        "  /elsewhere",
        "✓ evidence: [ok]",
        "3 Borders ─",
    ):
        assert expected in printed.getvalue()
