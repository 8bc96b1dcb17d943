"""`comity file`, `sign-off` and `owner` as people type them; and no planted value in anything that comes out."""

from __future__ import annotations

import json
import logging

import openpyxl
import pyarrow.parquet as pq
import pytest

from local_stores import filing
from mpc_ops import cli
from tests.support.demo_data import Secrets, _patterns, find_secrets
from tests.support.federation import make_federation, make_plan
from tests.support.sites import make_owner_site

PERIOD = "2026-03"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture(scope="module")
def plan(made):
    return make_plan(made.federation)


@pytest.fixture
def one(tmp_path, made, plan, monkeypatch):
    site = make_owner_site(tmp_path, made, plan)
    monkeypatch.setattr("local_stores.filing.readiness.directory_sftp", lambda *_: site.region.open)
    return site


def run(capsys, *arguments):
    code = cli.run([str(argument) for argument in arguments])
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return code, out.out, out.err


def people(one):
    """The signers' key files."""
    for name, key in one.signers().items():
        path = one.site.folder / "people" / f"{name}.pem"
        key.save(path)
        yield name, path


def test_filing_command_from_start_to_receipts(one, capsys):
    file = ("file", one.plan.report, PERIOD, "--owner-home", one.home, "--no-wait")
    code, out, err = run(capsys, *file)
    assert code == 13
    assert "4/8 own figures: data" in out
    assert err.startswith("SIGN_OFF_OPEN: 5/8 sign-off by 2: no answer yet. comity sign-off group_performance 2026-03")
    code, out, _ = run(capsys, "owner", "show-contribution", one.plan.report, PERIOD, "--owner-home", one.home)
    assert (code, "BUILDING / total" in out, ".html" in out) == (0, True, True)
    for name, key in people(one):
        sign = (
            "sign-off",
            one.plan.report,
            PERIOD,
            "--owner",
            one.owner,
            "--as",
            name,
            "--key",
            key,
            "--owner-home",
            one.home,
        )
        code, out, _ = run(capsys, *sign)
        assert (code, f"{name} signed the figures of de-nord" in out) == (0, True)
    code, out, err = run(capsys, *file)
    assert (code, err.partition(":")[0]) == (13, "RECEIPTS_OPEN")
    assert out.count("7/8 delivered") == 3
    code, out, _ = run(capsys, "owner", "status", "--site", one.site.folder / "site.toml")
    assert "  2026-03: filing " in out
    assert "0 of 3 receipts" in out
    assert "  2026-01: not filed; edition 1" in out
    one.region.receipt(one.region.filed("de-1")[-1].digest)
    code, out, err = run(capsys, *file)
    assert (code, err) == (0, "")
    assert out.count("(lay there already)") == 3
    assert "filed: group_performance 2026-03 of de-nord" in out


def test_filing_command_reports_what_is_wrong_in_a_sentence(one, capsys, tmp_path):
    code, _, err = run(capsys, "file", one.plan.report, "2026-13", "--owner-home", one.home, "--no-wait")
    assert (code, err.partition(":")[0]) == (11, "PERIOD_UNKNOWN")
    code, _, err = run(capsys, "file", one.plan.report, PERIOD, "--owner-home", tmp_path / "nowhere")
    assert (code, err.partition(":")[0]) == (3, "FILE_MISSING")
    code, _, err = run(capsys, "file", one.plan.report, PERIOD)
    assert (code, err.partition(":")[0]) == (2, "USAGE")
    code, _, err = run(capsys, "file", one.plan.report)
    assert (code, err.partition(":")[0]) == (2, "USAGE")
    code, _, err = run(capsys, "owner", "status", "--site", one.site.folder / "site.toml", "--owner", "cn-east")
    assert (code, err.partition(":")[0]) == (3, "OWNER_UNKNOWN")
    (name, key), *_ = people(one)
    wrong = ("sign-off", one.plan.report, PERIOD, "--as", name, "--key", key, "--owner-home", one.home)
    code, _, err = run(capsys, *wrong)
    assert (code, err.partition(":")[0]) == (3, "CONTRIBUTION_MISSING")


def test_filing_command_waits_no_longer_than_asked(one, capsys):
    arguments = ("file", one.plan.report, PERIOD, "--owner-home", one.home, "--wait-minutes", "0.02")
    code, out, err = run(capsys, *arguments)
    assert (code, err.partition(":")[0]) == (13, "SIGN_OFF_OPEN")
    assert "5/8 sign-off by 2: waiting (comity sign-off" in out


def test_filing_command_for_a_small_contributor_with_a_workbook(tmp_path, made, plan, capsys, monkeypatch):
    one = make_owner_site(tmp_path / "site", made, plan)
    monkeypatch.setattr("local_stores.filing.readiness.directory_sftp", lambda *_: one.region.open)
    table = pq.read_table(one.books)
    book = openpyxl.Workbook()
    book.active.append(["Invoice", *table.column_names[1:]])
    for row in table.to_pylist():
        book.active.append(list(row.values()))
    path = tmp_path / "books.xlsx"
    book.save(path)
    home = tmp_path / "home"
    code, out, _ = run(
        capsys, "owner", "init", home, "--id", "de-nord", "--federation", made.folder, "--dataset", "sales_line",
        "--kind", "excel", "--location", path, "--table", "Sheet", "--column", "invoice_no=Invoice",
    )  # fmt: skip
    assert (code, "next: comity federation keys owner de-nord" in out) == (0, True)
    (home / "keys").symlink_to(made.homes["de-nord"] / "keys")
    for source in one.site.releases_dir.iterdir():
        (home / "releases" / source.name).write_bytes(source.read_bytes())
    approval = next((one.home / "approvals").iterdir())
    code, out, _ = run(capsys, "owner", "post", approval, "--owner-home", home)
    assert (code, out.count("delivered")) == (0, 3)
    code, out, err = run(capsys, "file", plan.report, PERIOD, "--owner-home", home, "--no-wait")
    assert (code, err.partition(":")[0]) == (13, "SIGN_OFF_OPEN")
    # The workbook gives the very figures that the Parquet books give.
    snapshots = {"sales_line": filing.take_snapshot(one.site, one.owner, "sales_line", PERIOD)}
    filing.check_release(*one.call, PERIOD, open_sftp=one.region.open)
    commitment = filing.local_plan(*one.call, PERIOD, snapshots)["commitment"]
    here = json.loads(next((home / "state/contributions").rglob("????*.json")).read_text())
    there = json.loads(next((one.site.folder / "state/contributions").rglob(f"{commitment}.json")).read_text())
    assert here["lanes"] == there["lanes"]


def secrets_of_owner(one):
    """Customers, line amounts and the owner's subtotals, as anybody might write them."""
    record = json.loads(next((one.site.folder / "state/contributions").rglob("????*.json")).read_text())
    texts, integers = set(), {int(text) for text in record["lanes"]}
    for row in pq.read_table(one.books).to_pylist():
        texts.add(row["customer_uid"])
        integers |= {int(row["revenue_lc"] * 100), int(row["cost_lc"] * 100)}
    large = frozenset(number for number in integers if abs(number) >= 10_000_000)
    return Secrets(frozenset(texts), large, frozenset(_patterns(texts, large)))


def test_filing_canaries_are_found_in_nothing_that_comes_out(one, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    site, region = one.site, one.region
    results = [filing.check_release(*one.call, PERIOD, open_sftp=region.open)]
    snapshots = {"sales_line": filing.take_snapshot(site, one.owner, "sales_line", PERIOD)}
    results += [snapshots, filing.validate(*one.call, PERIOD, snapshots)]
    contribution = filing.local_plan(*one.call, PERIOD, snapshots)
    for name, key in one.signers().items():
        results.append(filing.sign_off(*one.call, PERIOD, signer=name, key=key))
    parcel = filing.share_and_seal(*one.call, PERIOD, contribution)
    results += [contribution, parcel]
    results += [filing.deliver(site, one.owner, parcel, to, open_sftp=region.open) for to in region.operators]
    run(capsys, "owner", "status", "--owner-home", one.home)
    code, out, err = run(capsys, "file", one.plan.report, PERIOD, "--owner-home", one.home, "--no-wait")
    secrets = secrets_of_owner(one)
    assert any("Canary#" in text for text in secrets.texts)
    assert len(secrets.integers) > 50
    come_out = json.dumps(results) + out + err + caplog.text + repr(one.site) + repr(contribution)
    assert find_secrets(come_out.encode(), secrets) == []
    assert find_secrets([region.root], secrets) == []  # inboxes of all operators, and everything else they have
    assert (
        find_secrets(
            [site.folder / "state/out", site.folder / "state/takes", site.folder / "state/validation"], secrets
        )
        == []
    )
    # The search finds what is there: the record that stays at the owner holds the figures.
    assert find_secrets([site.folder / "state/contributions"], secrets)
    assert code == 13
