"""The demo as a whole: what a newcomer, a controller, a data-protection officer and an auditor get from `make demo`.

One run with canaries in every owner's books serves all tests here; nothing in it is mocked.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from openpyxl import load_workbook

from infra.demo.data import ENTITIES, PRODUCT_LINES, SEGMENTS, canaries_of
from infra.demo.reference import PERIODS, rate_periods
from local_stores.snapshot.unit_rows import unpack_rows
from mpc_ops.envelope.canonical import canonical_bytes
from mpc_ops.envelope.sealing import OVERHEAD_BYTES
from mpc_ops.evidence.verify import verify_pack
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import Filed
from mpc_ops.notices.signed import parse_notice
from mpc_ops.plan.layout import cells, lane_count
from mpc_ops.plan.model import load_plan
from mpc_ops.server.sync import CrossFrame, encode_sync
from mpc_ops.sharing import commitment, unit_planes
from tests.support.demo_run import (
    REPORT,
    ROOT,
    Pieces,
    canary_secrets,
    digest_secrets,
    run_demo_once,
    subtotal_secrets,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1000)]

NEWEST = PERIODS[-1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AMOUNTS = ("revenue", "margin", "revenue_py", "margin_py", "revenue_py_cc", "margin_py_cc")
FOOTING = (*AMOUNTS, "lines", "lines_py")
MEASURES = (*FOOTING, "customers", "customers_py")
TO_DATE = ("revenue", "margin", "lines", "revenue_py", "margin_py", "lines_py")
SIGNED = ("lanes", "kind", "tie_out", "tables")
"""What an owner's sign-off covers: figures, and the customers' rows of bits."""
RECORD_CLASSES = {str(kind) for kind in PayloadClass if kind.value.startswith("record_")}


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    # pytest-xdist 3.8 groups nothing under pytest 9.2: whichever worker comes first runs the demo, the others wait.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "acceptance"
    run = run_demo_once(folder)
    assert run.code == 0, run.output[-4000:]
    return run


@pytest.fixture(scope="session")
def plan(demo):
    (release,) = (demo.evidence(NEWEST) / "notices" / "release").glob("*.dsse")
    return load_plan(json.loads(parse_notice(release.read_bytes()).envelope.payload)["plan"].encode())


def rows_of(demo, period):
    """Rows of result.parquet by (level, segment, product line)."""
    table = pq.read_table(demo.published(period) / "result.parquet").to_pylist()
    return {(row["level"], row["segment"] or "", row["product_line"] or ""): row for row in table}


def words(text):
    """Text of a page as read: without tags, on one line."""
    body = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).replace("\u00a0", " ")
    for name, sign in (("&amp;", "&"), ("&gt;", ">"), ("&lt;", "<"), ("&#39;", "'"), ("&#34;", '"'), ("&quot;", '"')):
        plain = plain.replace(name, sign)
    return plain


# --- what is printed and left behind -----------------------------------------------------------------------------------


def test_the_make_target_runs_the_script_that_is_tested_here():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    target = text[text.index("\ndemo:") :].split("\n\n")[0]
    assert "infra/demo/run.py" in target
    assert target.startswith("\ndemo: $(READY)")
    assert "make demo" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_console_tells_steps_report_borders_learning_verdict_and_files(demo):
    text = demo.output
    at = 0
    for expected in (
            "Setting up", "books of 8 entities", "release of group_performance", "approves", "monthly rates signed",
            "The months: every site's DAGs", "2026-01  8 of 8 entities    release, approval, keys and rates checked",
            "2026-01  8 of 8 entities    figures signed by two people",
            "2026-01  group reporting    submissions closed", "2026-01  group reporting    Parquet, CSV, XLSX",
            f"{REPORT} 2026-01", f"{REPORT} 2026-02", f"{REPORT} 2026-03", "What crossed each border in 2026-03",
            "record-level classes among them: none recorded", "Who could learn what", "Result recipient",
            "Country cluster sa", "evidence: checks passed", "Files", "summary.json", "comity evidence verify", "s in all",
    ):  # fmt: skip
        assert expected in text[at:], f"{expected} does not come where it should"
        at = text.index(expected, at)
    total = rows_of(demo, NEWEST)["total", "", ""]
    printed = next(line for line in text.splitlines() if line.startswith("Total  ") and f"{total['lines']:,}" in line)
    assert f"{round(total['revenue'] / 1000):,}" in printed
    assert f"{round(total['revenue_ytd'] / 1000):,}" in printed
    assert text.count("equals one query over everybody's plaintext, 37 rows, to the cent") == len(PERIODS)
    assert text.count("Totals foot: 48 of 48 sums.") == len(PERIODS)
    assert "Traceback" not in text
    assert "\x1b" not in text
    assert "\u2026" not in text, "nothing is cut off"


def test_the_console_fits_a_terminal(demo):
    root = str(demo.root)
    assert [line for line in demo.output.splitlines() if len(line) > 118 and root not in line] == []


def test_the_border_table_has_data_by_pair_and_the_rest_in_total(demo):
    text = demo.output[demo.output.index("What crossed each border") : demo.output.index("Who could learn what")]
    lines = [line.split() for line in text.splitlines()]
    for flow in demo.summary["flows"]:
        if flow["from"] != flow["to"] and flow["payload_class"] in {"aggregate_share", "released_aggregate"}:
            line = next(one for one in lines if one[:3] == [flow["from"], flow["to"], flow["payload_class"]])
            assert line[-2:] == [f"{flow['messages']:,}", f"{flow['bytes']:,}"]
    for kind in ("control_metadata", "key_material", "mac_or_commitment", "evidence"):
        (line,) = [one for one in lines if one[:3] == ["all", "all", kind]]
        crossing = [f for f in demo.summary["flows"] if f["payload_class"] == kind and f["from"] != f["to"]]
        assert line[-1] == f"{sum(flow['bytes'] for flow in crossing):,}"
    assert len(lines) < 35


def test_summary_has_the_documented_keys(demo):
    summary = demo.summary
    assert set(summary) == {
        "report", "period", "run", "rows", "exact_match", "seconds_by_step", "cpu_seconds", "flows",
        "evidence_verified", "mode", "months",
    }  # fmt: skip
    assert (summary["report"], summary["period"], summary["rows"], summary["mode"]) == (REPORT, NEWEST, 37, "dag.test")
    assert summary["exact_match"] is True
    assert summary["evidence_verified"] is True
    assert [month["period"] for month in summary["months"]] == list(PERIODS)
    for month in summary["months"]:
        assert set(month) == {"report", "period", "run", "rows", "exact_match", "flows", "evidence_verified"}
        assert (month["exact_match"], month["evidence_verified"], month["rows"]) == (True, True, 37)
        for flow in month["flows"]:
            assert set(flow) == {"from", "to", "payload_class", "bytes", "messages"}
            assert flow["bytes"] > 0
            assert flow["messages"] > 0
    assert summary["flows"] == summary["months"][-1]["flows"]
    assert len({month["run"] for month in summary["months"]}) == len(PERIODS)
    assert summary["cpu_seconds"] > 0
    assert {f"{NEWEST} {step}" for step in ("snapshot", "share_and_seal", "await_result", "publish")} <= set(
        summary["seconds_by_step"]
    )


def test_files_are_where_the_documentation_says(demo):
    for period in PERIODS:
        assert {path.name for path in demo.published(period).iterdir()} >= {
            "result.parquet", "result.csv", "result.xlsx", "report.html",
        }  # fmt: skip
        assert {"index.json", "page.html", "facts.json", "README.txt", "notices", "ledgers", "attestations"} <= {
            path.name for path in demo.evidence(period).iterdir()
        }


def test_no_process_is_left(demo):
    root = str(demo.root).encode()
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if root in command:
            left.append(command)
    assert left == []


# --- the figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", PERIODS)
def test_the_four_files_agree_number_by_number(demo, period):
    rows = list(rows_of(demo, period).values())
    columns = [*MEASURES, *(f"{name}_ytd" for name in TO_DATE)]
    with (demo.published(period) / "result.csv").open(encoding="utf-8", newline="") as file:
        flat = list(csv.DictReader(file))
    assert len(flat) == len(rows) == 37
    for row, line in zip(rows, flat, strict=True):
        assert (line["level"], line["segment"], line["product_line"]) == (
            row["level"], row["segment"] or "", row["product_line"] or "",
        )  # fmt: skip
        assert [Decimal(line[name]) for name in columns] == [Decimal(row[name]) for name in columns]
    book = load_workbook(demo.published(period) / "result.xlsx")
    for name in columns:
        ((sheet, area),) = book.defined_names[f"col_{name}"].destinations
        found = [cell for (cell,) in book[sheet][area.replace("$", "")]]
        assert {cell.data_type for cell in found} == {"n"}, "numbers are numbers, not text"
        exact = [Decimal(repr(cell.value)).quantize(Decimal("0.01")) for cell in found]
        assert exact == [Decimal(row[name]) for row in rows]
    page = (demo.published(period) / "report.html").read_text(encoding="utf-8")
    table = page[page.index('id="exact"') : page.index('id="basis"')]
    printed = [re.findall(r"<td>([^<]*)</td>", line) for line in re.findall(r"<tr class=.*?</tr>", table, re.DOTALL)]
    opened = [name for name in pq.read_schema(demo.published(period) / "result.parquet").names if name in MEASURES]
    assert [[Decimal(text.replace(",", "").replace("\u2212", "-")) for text in line] for line in printed] == [
        [Decimal(row[name]) for name in opened] for row in rows
    ]
    for name in TO_DATE:
        if name in {"revenue", "margin"}:
            assert f'<data value="{rows[-1][f"{name}_ytd"]}"' in page


@pytest.mark.parametrize("period", PERIODS)
def test_totals_foot_and_customers_say_that_they_do_not(demo, period):
    rows = rows_of(demo, period)
    parts = [row for (level, _, _), row in rows.items() if level in {"leaf", "not_allocated"}]
    assert len(parts) == 31
    for (level, segment, _), total in rows.items():
        if level in {"subtotal", "total"}:
            own = [row for row in parts if level == "total" or row["segment"] == segment]
            for name in FOOTING:
                assert sum(row[name] for row in own) == total[name], (segment, name)
            assert sum(row["customers"] for row in own) > total["customers"]
    page = words((demo.published(period) / "report.html").read_text(encoding="utf-8"))
    assert "Totals foot: check passed , 48 of 48 sums" in page
    assert "Lines therefore do not add up to totals" in page
    book = load_workbook(demo.published(period) / "result.xlsx")
    notes = " ".join(str(cell.value) for row in book["Summary"].iter_rows() for cell in row if cell.value)
    assert "Lines therefore do not add up to totals" in notes


def test_the_year_to_date_is_the_sum_of_the_published_months(demo):
    months = [rows_of(demo, period) for period in PERIODS]
    for count in range(1, len(PERIODS) + 1):
        for key, row in months[count - 1].items():
            for name in TO_DATE:
                assert row[f"{name}_ytd"] == sum(month[key][name] for month in months[:count]), (key, name)


def test_the_small_cell_rule_was_seen_at_work_and_no_cell_is_below_it(demo):
    for period in PERIODS:
        rows = rows_of(demo, period)
        moved = [row["customers"] for (level, _, _), row in rows.items() if level == "not_allocated"]
        assert sum(moved) >= 10
        assert all(row[name] == 0 or row[name] >= 10 for row in rows.values() for name in ("customers", "customers_py"))


# --- what crossed a border ---------------------------------------------------------------------------------------------


def test_no_record_level_class_crossed_and_results_went_to_the_recipient_alone(demo):
    for month in demo.summary["months"]:
        crossing = [flow for flow in month["flows"] if flow["from"] != flow["to"]]
        assert {flow["payload_class"] for flow in crossing} == {
            "aggregate_share", "released_aggregate", "control_metadata", "key_material", "mac_or_commitment", "evidence",
        }  # fmt: skip
        records = [flow for flow in month["flows"] if flow["payload_class"] in RECORD_CLASSES]
        assert {flow["payload_class"] for flow in records} == {"record_share"}
        assert {(flow["from"], flow["to"]) for flow in records} == {(code, code) for code in ("CN", "DE", "IN", "SA")}
        released = [flow for flow in month["flows"] if flow["payload_class"] == "released_aggregate"]
        assert sorted((flow["from"], flow["to"]) for flow in released) == [("CH", "NL"), ("NL", "NL"), ("SG", "NL")]


def test_crossings_have_exactly_the_bytes_that_the_plan_implies(demo, plan):
    lanes = lane_count(plan)
    assert (lanes, len(cells(plan))) == (322, 31)

    def frame(cluster, body):
        sealed = bytes(body + OVERHEAD_BYTES)
        return len(encode_sync(CrossFrame(
            run_id="0" * 64, cluster=cluster, attempt=1, payload_class="aggregate_share", sealed=sealed,
            signature=bytes(3309),
        )))  # fmt: skip

    for month in demo.summary["months"]:
        flows = {(f["from"], f["to"]): (f["messages"], f["bytes"]) for f in month["flows"]
                 if f["payload_class"] == "aggregate_share" and f["from"] != f["to"]}  # fmt: skip
        expected = {}
        for place in ("CN", "DE", "IN", "SA"):
            # The first operator of the group holds two seeds, the others a seed and an explicit component.
            for target, body in (("NL", 144), ("CH", 112 + 8 * lanes), ("SG", 112 + 8 * lanes)):
                expected[place, target] = (3, 3 * frame(place.lower(), body))
        assert flows == expected
        part = 108 + 16 * lanes + OVERHEAD_BYTES
        released = {f["from"]: (f["messages"], f["bytes"]) for f in month["flows"]
                    if f["payload_class"] == "released_aggregate"}  # fmt: skip
        assert released == dict.fromkeys(("CH", "NL", "SG"), (1, part))


def test_shares_that_stayed_at_home_are_the_parts_that_the_owners_filed_and_the_frames_of_the_gate(demo):
    for month in demo.summary["months"]:
        parts = {}
        for path in (demo.evidence(month["period"]) / "notices" / "filed").glob("*.dsse"):
            filed = parse_notice(path.read_bytes()).expect(Filed)
            place = next(e.jurisdiction for e in ENTITIES if e.name == filed.owner)
            messages, size = parts.get(place, (0, 0))
            parts[place] = (messages + len(filed.parts), size + sum(part.size for part in filed.parts))
        frames = dict.fromkeys(parts, (0, 0))
        for path in (demo.evidence(month["period"]) / "ledgers").glob("*.dsse"):
            for item in json.loads(parse_envelope(path))["items"]:
                if isinstance(item, dict) and (item.get("event"), item.get("payload_class")) == (
                    "frames_sent",
                    "record_share",
                ):
                    place = path.stem.partition("-")[0].upper()
                    assert item["receiver"].partition("-")[0].upper() == place
                    frames[place] = (frames[place][0] + item["frames"], frames[place][1] + item["bytes"])
        home = {f["from"]: (f["messages"], f["bytes"]) for f in month["flows"] if f["payload_class"] == "record_share"}
        assert home == {place: tuple(map(sum, zip(parts[place], frames[place], strict=True))) for place in parts}
        assert all(messages > 100 for messages, _ in frames.values()), "the Gate is computed together"
        assert not [f for f in month["flows"] if f["payload_class"] == "aggregate_share" and f["from"] == f["to"]]


def parse_envelope(path):
    return base64.b64decode(json.loads(path.read_bytes())["payload"])


# --- evidence ----------------------------------------------------------------------------------------------------------


def comity(*arguments):
    command = [str(Path(sys.executable).with_name("comity")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("period", PERIODS)
def test_the_command_accepts_every_pack(demo, period):
    found = comity("evidence", "verify", demo.evidence(period))
    assert found.returncode == 0, found.stdout + found.stderr
    assert "CHECKS PASSED" in found.stdout
    assert "the pack itself; compare it with the one you keep" in found.stdout
    assert re.search(r"fingerprint of the federation terms [0-9a-f]{64}", found.stdout)
    found = comity("evidence", "verify", demo.evidence(period), "--federation", demo.root / "federation")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "the reviewer's own terms" in found.stdout


@pytest.fixture(scope="session")
def pack(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack") / "copy"
    shutil.copytree(demo.evidence(NEWEST), folder)
    return folder


def test_one_changed_byte_in_any_file_is_refused_and_the_file_named(pack):
    files = sorted(path for path in pack.rglob("*") if path.is_file())
    assert len(files) > 150
    wrong = []
    for number, path in enumerate(files):
        good = path.read_bytes()
        at = (0, len(good) // 2, len(good) - 1)[number % 3]
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        found = verify_pack(pack)
        name = path.relative_to(pack).as_posix()
        if found.ok or [check.file for check in found.refused] != [name]:
            wrong.append((name, found.words, [check.file for check in found.refused]))
        path.write_bytes(good)
    assert wrong == []
    assert verify_pack(pack).ok, "the pack is whole again"


@pytest.mark.parametrize("name", ["index.json", "page.html", "ledgers/cn-1.dsse", "federation/membership.dsse"])
def test_the_command_names_the_changed_file_and_shows_no_traceback(demo, pack, name):
    good = (pack / name).read_bytes()
    (pack / name).write_bytes(good[:200] + bytes([good[200] ^ 4]) + good[201:])
    try:
        for more in ((), ("--federation", demo.root / "federation")):
            found = comity("evidence", "verify", pack, *more)
            assert found.returncode == 12
            assert name in found.stdout + found.stderr
            assert "EVIDENCE_REFUSED" in found.stdout + found.stderr
            assert "Traceback" not in found.stdout + found.stderr
    finally:
        (pack / name).write_bytes(good)


@pytest.mark.parametrize("name", ["facts.json", "ledgers/nl-1.dsse", "attestations/sa-2.dsse", "index.json.dsse"])
def test_a_missing_file_is_refused_and_named(pack, name):
    good = (pack / name).read_bytes()
    (pack / name).unlink()
    try:
        assert [check.file for check in verify_pack(pack).refused] == [name]
    finally:
        (pack / name).write_bytes(good)


@pytest.mark.parametrize("name", ["more.txt", "notices/state/" + "0" * 64 + ".dsse", "ledgers/.hidden"])
def test_an_added_file_is_refused_and_named(pack, name):
    (pack / name).write_bytes(b"x")
    try:
        assert [check.file for check in verify_pack(pack).refused] == [name]
    finally:
        (pack / name).unlink()


def test_packs_from_the_second_month_on_say_what_changed(demo):
    for period, previous in zip(PERIODS, (None, *PERIODS), strict=False):
        facts = json.loads((demo.evidence(period) / "facts.json").read_text(encoding="utf-8"))
        page = words((demo.evidence(period) / "page.html").read_text(encoding="utf-8"))
        assert facts["previous"] == previous
        shown = page[page.index("CHANGE SINCE LAST MONTH") : page.index("REGISTER OF FACTS")]
        if previous is None:
            assert "No earlier evidence of this report was there to compare with." in shown
        else:
            assert f"Compared with {previous}: nothing changed" in shown
            for change in facts["changes"]:
                assert change["what"] in shown
                assert " ".join((change["now"] or change["before"]).split()) in shown
            substance = [change for change in facts["changes"] if "given up" not in change["before"] + change["now"]]
            assert substance == [], "the months differ in figures only"


# --- secrets -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def exposed(demo):
    """Everything outside the owners' own folders, by area, opened."""
    own = [folder for entity in ENTITIES for folder in demo.owner_folders(entity.name)]
    areas = {
        "operators at the end": Pieces(demo.root / "operators"),
        "logs of all processes": Pieces(demo.root / "logs"),
        "Airflow homes": Pieces(demo.root / "airflow"),
        "group site": Pieces(demo.root / "sites" / "group"),
        "owners' sites": Pieces(demo.root / "sites", but=[*own, demo.root / "sites" / "group"]),
        "evidence": Pieces(demo.root / "evidence"),
        "published": Pieces(demo.root / "published"),
        "federation and people": Pieces(demo.root / "federation", demo.root / "parties"),
        "temporary files": Pieces(demo.temporary),
        "summary": Pieces(demo.root / "summary.json"),
        **{f"operators, {held.name}": Pieces(held) for held in demo.held},
    }
    searched = {demo.root / name for name in ("operators", "logs", "airflow", "sites", "evidence", "published", "federation",
                                              "parties", "summary.json", "books")}  # fmt: skip
    assert set(demo.root.iterdir()) == searched, "something new lies in the demo's folder: search it too"
    return areas


def test_the_search_opens_what_could_hide_a_value(tmp_path):
    canary = canaries_of("sa-gulf", rate_periods())[0]
    secrets = canary_secrets([canary])
    name, cents = canary.customer.encode(), int(canary.revenue * 100)
    hidden = base64.b64encode(b'{"payload": "' + base64.urlsafe_b64encode(b"of " + name + b" and others") + b'"}')
    (tmp_path / "notice.dsse").write_bytes(b'{"payload":"' + hidden + b'"}')
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sheet.xml", b"<v>" + str(canary.cost).encode() + b"</v>")
    pq.write_table(pa.table({"a": [canary.revenue]}), tmp_path / "rows.parquet", compression="zstd")
    (tmp_path / "old.log.gz").write_bytes(gzip.compress(b"x" * 50 + name))
    (tmp_path / "frame").write_bytes(b"\xff" * 3 + cents.to_bytes(8, "little") + b"\xff")
    db = sqlite3.connect(tmp_path / "state.sqlite")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t (a, b BLOB)")
    db.execute("INSERT INTO t VALUES (?, ?)", (cents, b"\0" * 5000 + name))
    db.commit()
    for path in sorted(tmp_path.iterdir()):
        if not path.name.endswith("-shm"):
            assert Pieces(path).find(secrets), path.name
    db.close()
    (tmp_path / "nothing").write_bytes(name[:-1] + str(cents)[:-1].encode())
    assert Pieces(tmp_path / "nothing").find(secrets) == []


def test_the_search_finds_what_is_there(demo, exposed):
    """Otherwise an empty result would say nothing."""
    for entity in ENTITIES:
        mine = canary_secrets(canaries_of(entity.name, rate_periods()))
        books, snapshots, own, ledger = (Pieces(folder) for folder in demo.owner_folders(entity.name))
        assert len(books.find(mine)) > 12, entity
        assert len(snapshots.find(mine)) > 12, entity
        others = canary_secrets([c for e in ENTITIES if e != entity for c in canaries_of(e.name, rate_periods())])
        assert [*books.find(others), *snapshots.find(others), *own.find(others)] == []
        assert subtotal_found(own, demo, entity)
        assert subtotal_found(ledger, demo, entity)
    # In each area, something that must be there is found after unpacking.
    for area, text in (
        ("operators at the end", b'"comity/'),
        ("Airflow homes", b"share_and_seal"),
        ("published", b"AUTOMOBILE"),
        ("evidence", b"aggregate_share"),
        ("owners' sites", b"group-controlling"),
        ("group site", b"group-controlling"),
        ("logs of all processes", b"de-nord"),
    ):
        assert exposed[area].holds(text), area
        assert exposed[area].files > 4
    assert len(demo.held) == 2
    assert exposed["operators at the end"].holds(demo.summary["run"].encode())


def subtotal_found(own, demo, entity):
    secrets = subtotal_secrets([store for store in demo.stores if store.entity == entity.name], lowest=10_000_000)
    return [found for found in own.find(secrets) if "ustomer" not in found]


def test_operators_held_shares_when_they_were_searched(demo):
    closed, committed = demo.held
    assert list(closed.rglob("part.*")), "sealed parts lay in the inboxes"
    assert Pieces(committed).files >= 15


def test_canaries_are_nowhere_outside_their_owner(exposed, demo):
    secrets = canary_secrets()
    assert len(secrets.texts) == len(ENTITIES)
    assert {area: pieces.find(secrets) for area, pieces in exposed.items() if pieces.find(secrets)} == {}
    for canary in secrets.texts:
        assert canary not in demo.output


def test_no_customer_and_no_entity_subtotal_is_outside_its_owner(exposed, demo):
    secrets = subtotal_secrets(demo.stores)
    assert len(secrets.texts) > 10_000
    found = {area: pieces.find(secrets) for area, pieces in exposed.items()}
    assert {area: patterns for area, patterns in found.items() if patterns} == {}


def presence_of(record):
    """Yield the forms in which an owner's rows of bits could lie somewhere: which customer is in which cells."""
    for text in record["tables"]:
        yield text.encode()
        yield base64.b64decode(text)
        rows = unpack_rows(text, len(SEGMENTS) * len(PRODUCT_LINES))
        planes = unit_planes(rows)
        yield planes.tobytes()
        yield rows.tobytes()
        yield from (plane.tobytes() for plane in planes if plane.nbytes >= 24)


def row_secrets(records):
    """Every form up to its last place with a varied end, so that chance and padding find nothing."""
    found = set()
    for form in (form for record in records for form in presence_of(record)):
        end = next((end for end in range(len(form), 39, -1) if len(set(form[end - 8 : end])) > 3), None)
        if end is not None:
            found.add(form[:end])
    return digest_secrets(found)


def test_no_row_of_a_customer_is_outside_its_owner(demo, exposed):
    paths = [path for entity in ENTITIES for path in demo.owner_folders(entity.name)[2].glob("*/*/*/*.json")]
    assert len(paths) == len(ENTITIES) * len(PERIODS)
    secrets = row_secrets(json.loads(path.read_bytes()) for path in paths)
    assert len(secrets.texts) > 200
    assert {area: pieces.find(secrets) for area, pieces in exposed.items() if pieces.find(secrets)} == {}
    # The search does find them where they are.
    for path in paths:
        assert len(Pieces(path.parent).find(row_secrets([json.loads(path.read_bytes())]))) >= 2, path


def guesses(demo):
    """Digests that somebody could compute who knows an owner's true figures, the books, or the result."""
    salts = [bytes(32), b"comity/commit/v1".ljust(32, b"\0")]
    for month in demo.summary["months"]:
        run = bytes.fromhex(month["run"])
        for entity in ENTITIES:
            for path in demo.owner_folders(entity.name)[2].glob(f"*/{month['period']}/*/*.json"):
                record = json.loads(path.read_bytes())
                body = canonical_bytes({name: record[name] for name in SIGNED})
                yield from presence_of(record)
                numbers = [int(text) for text in record["lanes"]]
                yield from (path.read_bytes(), body, canonical_bytes(record["lanes"]))
                for order in ("little", "big"):
                    packed = b"".join(number.to_bytes(8, order, signed=True) for number in numbers)
                    yield packed
                    yield from (packed[at : at + 8] for at in range(0, len(packed), 8))
                yield from (text.encode() for text in record["lanes"])
                yield from (b"comity/commit/v1" + salt + body for salt in (*salts, run, hashlib.sha256(run).digest()))
            for folder in demo.owner_folders(entity.name)[:2]:
                yield from (path.read_bytes() for path in folder.rglob("*") if path.is_file())
        yield from (path.read_bytes() for path in demo.published(month["period"]).rglob("*") if path.is_file())
        for row in rows_of(demo, month["period"]).values():
            yield from (str(row[name]).encode() for name in MEASURES)
            yield from (int(row[name] * (100 if name in AMOUNTS else 1)).to_bytes(8, "little") for name in MEASURES)


def test_no_digest_is_an_oracle(demo, exposed):
    """A third party that knows the true values can reproduce no digest in any log, receipt, manifest or evidence."""
    secrets = digest_secrets({hashlib.sha256(guess).digest() for guess in guesses(demo)})
    assert len(secrets.texts) > 5000
    # An owner has its own figures anyway, and so has the recipient its result: digests may lie beside them there.
    outside = {area: pieces for area, pieces in exposed.items() if area not in {"owners' sites", "published"}}
    found = {area: pieces.find(secrets) for area, pieces in outside.items()}
    assert {area: patterns for area, patterns in found.items() if patterns} == {}
    # The same search does find digests of sealed parts, which are ciphertexts.
    parts = [path.read_bytes() for path in (demo.root / "sites").rglob("part.*")]
    sealed = digest_secrets({hashlib.sha256(part).digest() for part in parts})
    assert len(exposed["evidence"].find(sealed)) == len(parts) == len(ENTITIES) * 3 * len(PERIODS)


def test_a_commitment_hides_behind_its_secret_salt(demo):
    """The owner alone, who has the salt, can reproduce the commitment that its people signed."""
    import hmac  # noqa: PLC0415

    folder = next(iter(demo.owner_folders("sa-gulf")[2].glob(f"*/{NEWEST}/*")))
    (path,) = folder.glob("*.json")
    record = json.loads(path.read_bytes())
    (filed,) = [
        found
        for name in (demo.evidence(NEWEST) / "notices" / "filed").glob("*.dsse")
        if (found := parse_notice(name.read_bytes()).expect(Filed)).owner == "sa-gulf"
    ]
    assert filed.contribution == record["commitment"] == path.stem
    body = canonical_bytes({name: record[name] for name in SIGNED})
    salt = hmac.digest((folder / "salt").read_bytes(), body, "sha256")
    context = ("contribution", filed.plan, filed.period, filed.owner, filed.edition)
    assert commitment(salt, context, body) == record["commitment"]
    assert commitment(bytes(32), context, body) != record["commitment"]


def is_secret(path):
    return (
        path.suffix == ".key"
        or path.name in {"salt", "identity.pem", "passwords.json"}
        or re.fullmatch(r"ssh_\w+_ed25519", path.name) is not None
        or b"PRIVATE KEY" in path.read_bytes()
    )


def key_files(demo):
    return [path for path in demo.root.rglob("*") if path.is_file() and "books" not in path.parts and is_secret(path)]


def private_parts(path):
    """The bytes of a key file that are secret, without what is public or the same in all files of a kind."""
    data = path.read_bytes()
    if not data.startswith(b"-----"):
        text = data.strip()
        return [text[at : at + 32] for at in range(0, len(text) - 31, 32)]
    if b"OPENSSH" in data:
        return [load_ssh_private_key(data, None).private_bytes_raw()]
    key = load_pem_private_key(data, None)
    if isinstance(key, EllipticCurvePrivateKey):
        return [key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")]
    return [key.private_bytes_raw()]


def test_private_keys_are_readable_by_their_owner_alone_and_in_no_log(demo, exposed):
    files = key_files(demo)
    people = 8 * 3 + 2
    assert len([path for path in files if path.name == "identity.pem"]) == 15 + 8 + 1 + people
    assert [path for path in files if path.stat().st_mode & 0o077] == []
    assert [
        path for path in demo.root.rglob("*.sqlite") if path.stat().st_mode & 0o077 and "books" not in path.parts
    ] == []
    secrets = digest_secrets(secret for path in files for secret in private_parts(path))
    assert len(secrets.texts) > len(files)
    for area in ("logs of all processes", "evidence", "published", "summary", "temporary files"):
        assert exposed[area].find(secrets) == [], area
    assert Pieces(demo.root / "parties").find(secrets), "the search finds keys where they are"
    assert not [pattern for pattern in secrets.patterns if pattern in demo.output.encode()]


def test_period_keys_are_destroyed_and_shares_deleted(demo):
    for state in (demo.root / "operators").glob("*/state/periods"):
        assert list(state.iterdir()) == [], state
    assert list((demo.root / "operators").glob("*/spool/inbox/*/part.*")) == []


# --- the pages, in a browser -------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.text = []
        self.feed(re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL))

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).replace("\u00a0", " ").split())


def browse(page, folder):
    """Return the page's text as Chromium has it, and a screenshot."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
             "--window-size=1300,5000"]  # fmt: skip
    picture = folder / "page.png"
    shown = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    subprocess.run(
        [CHROMIUM, *flags, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=120, check=True
    )
    return Reader(shown.stdout).words, picture


def test_a_controller_finds_what_is_needed_on_the_report(demo, tmp_path):
    text, picture = browse(demo.published(NEWEST) / "report.html", tmp_path)
    rows = rows_of(demo, NEWEST)
    total = rows["total", "", ""]
    for expected in (
        "Group performance by market segment and product line", "March 2026", "EUR thousand", "first release",
        "Entities in the figures: 8 of 8", "Year to date: 3 of 3 months", "Not allocated, top",
        f"{total['revenue']:,}", f"{total['margin']:,}", f"{total['customers']:,}",
        f"{round(total['revenue_ytd'] / 1000):,}",
        "is not shown in its own line", "Nothing is lost: totals hold every amount.",
        "Counted anew at every level within each entity", "Lines therefore do not add up to totals",
        "The sum of 3 published months: January 2026, February 2026, March 2026.",
        "8 of 8 entities are part of the figures", "Gulf LLC (sa-gulf)", "2 people",
        "at least 10 customers in every subtotal that leaves a country, over all its entities",
        "HM Revenue & Customs monthly rates", "Reference data (SHA-256)", "Calculation plan (SHA-256)",
        "March 2025 at March 2026 rates", "Exchange-rate effect", "Gross margin in % of net revenue",
        "0.12229947", demo.summary["run"],
    ):  # fmt: skip
        assert expected in text, expected
    for segment in ("AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY"):
        assert f"Total {segment}" in text
        assert f"{rows['subtotal', segment, '']['revenue']:,}" in text
    assert_a_picture(picture)


def test_a_reviewer_finds_what_is_needed_on_the_evidence_page(demo, tmp_path):
    text, picture = browse(demo.evidence(NEWEST) / "page.html", tmp_path)
    titles = ["TRANSFER EVIDENCE", "RUN COMPLETED \u00b7 no check failed \u00b7 5 ITEMS OPEN FOR PEOPLE", "A. For your decision",
              "B. What crossed a border", "C. Who could learn what", "D. Result checks", "E. Protection",
              "F. Holds until", "G. Not claimed", "Signed:", "FLOWS IN FULL", "METADATA AND REACH",
              "CHANGE SINCE LAST MONTH", "REGISTER OF FACTS"]  # fmt: skip
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    for expected in (
        "approved by 8 of 8 data owners", "CN > CH, NL, SG secret shares of subtotals 322 9 57,987",
        "DE > NL (same area)", "not a third-country transfer", "CH > NL secret shares of the result 322 1 6,396",
        "no record-level class recorded across a border on instrumented channels: 0 messages, 0 bytes",
        "denied attempts: 0", "CH Switzerland, CN China",
        "25 cells, 6 not-allocated lines and totals, 10 figures each; no entity's figures",
        "Country cluster sa one data owner: its stage adds no separation between owners",
        "7 of 8 together with the result recipient: the remaining one's totals",
        "cells of fewer than 10 customers over all data owners of a country together were moved to a not-allocated line",
        "decided on secret shares with active security",
        "holds secret shares of records: for each of the customers one row of 25 bits",
        "8 of 8 submitted; each signed by 2 people; 8 of 8 tied to the general ledger",
        "3 of 3 computing operators committed to the same result",
        "as attested by 15 of 15 operators",
        "that secret shares or ciphertexts are anonymous", "this page is not legal advice",
        "computing operators 15/15 \u00b7 data owners 8/8 \u00b7 result recipient 1/1", "comity evidence verify",
        "cn-demo v1 rule CN-5-abroad: allowed, with obligations.",
        "limit 1: passed", "Compared with 2026-02: nothing changed",
    ):  # fmt: skip
        assert expected in text, expected
    assert_a_picture(picture)


def assert_a_picture(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert (width, height) == (1300, 5000)
    assert len(data) > 100_000, "an empty page would be a small picture"
