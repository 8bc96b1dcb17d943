"""Publishing: whole or not at all, once, the same bytes; earlier months added up as they were published."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from local_stores.publish import editions
from local_stores.publish.derive import figures
from local_stores.publish.editions import FILES, publish, render
from local_stores.publish.history import load_published
from mpc_ops.errors import ConfigError, EvidenceError, StateError
from tests.support.publish_sample import basis, sample_table, with_value


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_total_that_is_not_the_sum_of_its_cells_is_refused_before_anything_is_written(tmp_path):
    broken = with_value(sample_table(), 0, 0, 1)
    with pytest.raises(EvidenceError, match="TOTALS_DIFFER"):
        publish(broken, basis(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("position", "name"), [(0, "revenue"), (3, "customers")])
def test_other_figures_under_the_same_edition_are_refused_and_nothing_changes(tmp_path, position, name):
    table = sample_table()
    publish(table, basis(), tmp_path)
    before = snapshot(tmp_path)
    changed = with_value(table, 0, position, table.rows[0].values[position] + 1)
    if name == "revenue":  # let it foot again, so that only the edition stands in the way
        for place in (6, len(table.rows) - 1):
            changed = with_value(changed, place, 0, changed.rows[place].values[0] + 1)
    with pytest.raises(StateError) as caught:
        publish(changed, basis(), tmp_path)
    assert caught.value.code == "PUBLISHED_DIFFERS"
    assert caught.value.ids == {"report": "group_performance", "period": "2026-03", "edition": "1"}
    assert "reopen" in str(caught.value)
    assert snapshot(tmp_path) == before


def test_another_run_under_the_same_edition_is_refused(tmp_path):
    publish(sample_table(), basis(), tmp_path)
    with pytest.raises(StateError, match="PUBLISHED_DIFFERS"):
        publish(sample_table(), basis(run_id="00" * 32), tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_an_altered_or_removed_file_of_an_edition_is_named(tmp_path, name):
    published = publish(sample_table(), basis(), tmp_path)
    path = published.edition_folder / name
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StateError, match=f"altered or removed.*file={name}"):
        publish(sample_table(), basis(), tmp_path)
    path.unlink()
    with pytest.raises(StateError, match=f"file={name}"):
        publish(sample_table(), basis(), tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"files": 3, "content": "x"}', b"\xff"])
def test_a_broken_record_is_refused_in_words(tmp_path, content):
    published = publish(sample_table(), basis(), tmp_path)
    record = published.edition_folder / "edition.json"
    record.chmod(0o644)
    record.write_bytes(content)
    with pytest.raises(StateError, match="PUBLISHED_DIFFERS"):
        publish(sample_table(), basis(), tmp_path)


@pytest.mark.parametrize(
    ("report", "period"), [("../evil", "2026-03"), ("a/b", "2026-03"), ("ok", "../../x"), ("ok", "2026/03")]
)
def test_names_that_would_leave_the_folder_are_refused(tmp_path, report, period):
    with pytest.raises(ConfigError):
        publish(replace(sample_table(), report=report, period=period), basis(), tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_the_same_content_again_is_a_no_op(tmp_path):
    first = publish(sample_table(), basis(), tmp_path)
    before, times = snapshot(tmp_path), {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    again = publish(sample_table(), basis(), tmp_path)
    assert (first.new, again.new) == (True, False)
    assert snapshot(tmp_path) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_files_stand_where_the_reader_looks(tmp_path):
    published = publish(sample_table(), basis(), tmp_path)
    folder = tmp_path / "group_performance" / "2026-03"
    assert published.folder == folder
    assert sorted(p.name for p in folder.iterdir()) == ["editions", *sorted(FILES)]
    assert sorted(p.name for p in published.edition_folder.iterdir()) == sorted([*FILES, "edition.json"])


def test_bytes_depend_on_the_content_alone(monkeypatch):
    first = render(sample_table(), basis(), [])
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    monkeypatch.setattr("time.time", lambda: 4_000_000_000.0)
    second = render(sample_table(), basis(), [])
    assert {name: first[name] == second[name] for name in FILES} == dict.fromkeys(FILES, True)


def test_a_crash_before_the_rename_leaves_nothing_and_the_next_call_finishes(tmp_path, monkeypatch):
    def fail(_folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(editions, "_sync_folder", fail)
        with pytest.raises(OSError, match="No space"):
            publish(sample_table(), basis(), tmp_path)
    folder = tmp_path / "group_performance" / "2026-03"
    assert sorted(p.name for p in folder.iterdir()) == ["editions"]
    assert [p.name for p in (folder / "editions").iterdir()] == ["1.tmp"]
    assert publish(sample_table(), basis(), tmp_path).new
    assert [p.name for p in (folder / "editions").iterdir()] == ["1"]


def test_a_crash_while_the_files_are_shown_is_completed_by_the_next_call(tmp_path):
    published = publish(sample_table(), basis(), tmp_path)
    (published.folder / "result.xlsx").unlink()
    (published.folder / "result.csv").chmod(0o644)
    (published.folder / "result.csv").write_text("edited by somebody")
    publish(sample_table(), basis(), tmp_path)
    for name in FILES:
        assert (published.folder / name).read_bytes() == (published.edition_folder / name).read_bytes()


def test_a_later_edition_is_shown_and_the_earlier_one_kept(tmp_path):
    first = publish(sample_table(), basis(), tmp_path)
    old = snapshot(first.edition_folder)
    second = publish(sample_table(edition=2, seed=4), basis(edition_reason="cn-east corrected its books"), tmp_path)
    assert snapshot(first.edition_folder) == old
    assert (second.folder / "report.html").read_bytes() == (second.edition_folder / "report.html").read_bytes()
    assert "revised release 2: cn-east corrected its books" in (second.folder / "report.html").read_text()
    publish(sample_table(), basis(), tmp_path)  # clearing the first edition's task does not bring it back
    assert (second.folder / "result.csv").read_bytes() == (second.edition_folder / "result.csv").read_bytes()


def months(root: Path, *periods: str, **changes) -> None:
    for period in periods:
        publish(sample_table(period), basis(period, **changes), root)


def year_of(root: Path, period: str, name: str = "revenue") -> int:
    stored = pq.read_table(root / "group_performance" / period / "result.parquet").to_pylist()[-1]
    return (
        int(stored[f"{name}_ytd"].scaleb(2))
        if name in {"revenue", "margin", "revenue_py", "margin_py"}
        else stored[f"{name}_ytd"]
    )


def test_the_year_to_date_is_the_sum_of_published_months(tmp_path):
    months(tmp_path, "2026-01", "2026-02", "2026-03")
    for name, position in {"revenue": 0, "margin": 1, "lines": 2, "revenue_py": 4}.items():
        expected = sum(sample_table(p).rows[-1].values[position] for p in ("2026-01", "2026-02", "2026-03"))
        assert year_of(tmp_path, "2026-03", name) == expected
    columns = pq.read_schema(tmp_path / "group_performance" / "2026-03" / "result.parquet").names
    assert "customers_ytd" not in columns
    assert "revenue_py_cc_ytd" not in columns
    page = (tmp_path / "group_performance" / "2026-03" / "report.html").read_text()
    assert "The sum of 3 published months: January 2026, February 2026, March 2026." in page


def test_missing_months_are_said_everywhere(tmp_path):
    months(tmp_path, "2026-01", "2026-03")
    assert year_of(tmp_path, "2026-03") == sum(sample_table(p).rows[-1].values[0] for p in ("2026-01", "2026-03"))
    folder = tmp_path / "group_performance" / "2026-03"
    page = (folder / "report.html").read_text()
    assert "Not included, because not published here: February 2026." in page
    assert "2 of 3 months" in page
    facts = json.loads(pq.read_schema(folder / "result.parquet").metadata[b"comity.table"])
    assert facts["year_to_date"] == {"included": [["2026-01", 1], ["2026-03", 1]], "missing": ["2026-02"]}


def test_the_first_month_of_a_year_holds_itself_only(tmp_path):
    months(tmp_path, "2026-01")
    assert year_of(tmp_path, "2026-01") == sample_table("2026-01").rows[-1].values[0]


def test_without_a_calendar_year_there_is_no_year_to_date(tmp_path):
    months(tmp_path, "2026-01", year_periods=())
    folder = tmp_path / "group_performance" / "2026-01"
    assert not any(name.endswith("_ytd") for name in pq.read_schema(folder / "result.parquet").names)
    assert "Year to date" not in (folder / "report.html").read_text()


def test_a_revised_earlier_month_counts_from_the_next_publication_on(tmp_path):
    months(tmp_path, "2026-01", "2026-02")
    before = year_of(tmp_path, "2026-02")
    publish(sample_table("2026-01", edition=2, seed=9), basis("2026-01", edition_reason="corrected"), tmp_path)
    assert not publish(sample_table("2026-02"), basis("2026-02"), tmp_path).new
    assert year_of(tmp_path, "2026-02") == before
    months(tmp_path, "2026-03")
    revised = sample_table("2026-01", edition=2, seed=9).rows[-1].values[0]
    assert year_of(tmp_path, "2026-03") == revised + sum(
        sample_table(p).rows[-1].values[0] for p in ("2026-02", "2026-03")
    )
    page = (tmp_path / "group_performance" / "2026-03" / "report.html").read_text()
    assert "January 2026 (release 2), February 2026, March 2026" in page


def test_an_altered_earlier_month_stops_the_publication(tmp_path):
    months(tmp_path, "2026-01")
    path = tmp_path / "group_performance" / "2026-01" / "editions" / "1" / "result.parquet"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(EvidenceError, match=r"PUBLISHED_ALTERED.*period=2026-01"):
        months(tmp_path, "2026-02")
    assert not (tmp_path / "group_performance" / "2026-02" / "editions" / "1").exists()


def test_a_month_of_another_report_version_is_missing_not_added(tmp_path):
    other = sample_table("2026-01")
    measures = tuple(replace(m, scale=3) if m.kind == "amount" else m for m in other.measures)
    publish(replace(other, measures=measures), basis("2026-01"), tmp_path)
    months(tmp_path, "2026-02")
    assert year_of(tmp_path, "2026-02") == sample_table("2026-02").rows[-1].values[0]
    assert (
        "not published here: January 2026" in (tmp_path / "group_performance" / "2026-02" / "report.html").read_text()
    )


def test_two_processes_publish_the_same_edition_once(tmp_path):
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            try:
                publish(sample_table(), basis(), tmp_path)
                os._exit(0)
            except BaseException:  # noqa: BLE001 - a forked child must not return into pytest
                os._exit(1)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
    assert not publish(sample_table(), basis(), tmp_path).new
    shutil.rmtree(tmp_path / "group_performance")


def test_a_published_file_can_be_read_back(tmp_path):
    months(tmp_path, "2026-01", "2026-02")
    table, year = load_published(tmp_path / "group_performance" / "2026-02" / "result.parquet")
    assert table == sample_table("2026-02")
    assert year.included == (("2026-01", 1), ("2026-02", 1))
    expected = sum(sample_table(p).rows[-1].values[0] for p in ("2026-01", "2026-02"))
    assert figures(table, table.total, table.measures[0], year).ytd == expected
    months(tmp_path, "2026-03", year_periods=())
    assert load_published(tmp_path / "group_performance" / "2026-03" / "result.parquet")[1] is None


def test_a_file_that_is_no_published_result_is_refused_in_words(tmp_path):
    path = tmp_path / "result.parquet"
    for content in (None, b"", b"PAR1 not really PAR1"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EvidenceError, match=r"PUBLISHED_ALTERED.*not a published result"):
            load_published(path)
    pq.write_table(
        pq.read_table(publish(sample_table(), basis(), tmp_path).folder / "result.parquet").replace_schema_metadata({}),
        path,
    )
    with pytest.raises(EvidenceError, match="PUBLISHED_ALTERED"):
        load_published(path)
