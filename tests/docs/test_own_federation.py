"""docs/own-federation.md, run as a stranger would: every block, in order, to a published result and verified evidence."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import socket
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.docs import ROOT, fenced

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PAGE = ROOT / "docs" / "own-federation.md"


def free_range(count: int) -> int:
    """Return the first of `count` consecutive ports that are free now, below those that the system gives to clients."""
    for base in range(20000 + os.getpid() % 500 * 20, 32000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    listener = stack.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise AssertionError("no free ports")


def stop_all(folder: Path) -> None:
    """Stop what the page started, if it did not get to its last block."""
    for file in folder.glob("logs/*.pid"):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int(file.read_text()), signal.SIGTERM)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own") / "my-federation"


@pytest.fixture(scope="module")
def output(work: Path) -> str:
    blocks = fenced(PAGE.read_text(), "sh")
    script = work.parent / "page.sh"
    script.write_text("set -eu\n" + "\n".join(blocks))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COMITY", "AIRFLOW"))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WORK": str(work),
        "PORTS": str(free_range(12)),
        "OPENBLAS_NUM_THREADS": "1",
    }
    try:
        with (work.parent / "page.log").open("w") as log:
            code = subprocess.run(
                ["sh", str(script)], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=1200
            ).returncode
    finally:
        stop_all(work)
    text = (work.parent / "page.log").read_text()
    assert code == 0, text[-6000:]
    return text


def rows(work: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    with (work / "head-office" / "published" / "sales_by_channel" / "2025-01" / "result.csv").open(newline="") as file:
        return {(row["level"], row["channel"], row["product"]): row for row in csv.DictReader(file)}


@pytest.mark.timeout(1300)
def test_the_page_ends_with_evidence_that_verifies(output: str) -> None:
    assert output.count("CHECKS PASSED") >= 2
    assert output.rstrip().splitlines()[-2] == "CHECKS PASSED"
    assert "countersigned by head-office, north, south" in output
    assert "shares deleted at 6 of 6 operators" in output


def test_the_published_result_is_the_sum_of_both_files(output: str, work: Path) -> None:
    expected, sales, cells = Decimal(0), 0, {}
    for owner in ("north", "south"):
        with (work / owner / "sales.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                expected, sales = expected + Decimal(row["amount"]), sales + 1
                cell = ("leaf", row["channel"], row["product"])
                cells[cell] = cells.get(cell, Decimal(0)) + Decimal(row["amount"])
    found = rows(work)
    total = found["total", "", ""]
    assert (Decimal(total["turnover"]), int(total["sales"])) == (expected, sales)
    for cell in (("leaf", "shop", "tea"), ("leaf", "web", "coffee")):
        assert Decimal(found[cell]["turnover"]) == cells[cell]


def test_the_small_cell_of_one_owner_is_not_allocated(output: str, work: Path) -> None:
    found = rows(work)
    moved = found["not_allocated", "", ""]
    assert int(moved["sales"]) == 200
    assert int(moved["customers"]) >= 10
    with (work / "south" / "sales.csv").open(newline="") as file:
        south = [row for row in csv.DictReader(file) if row["product"] == "cocoa"]
    assert len({row["customer"] for row in south if row["channel"] == "web"}) == 5
    assert Decimal(moved["turnover"]) == sum(Decimal(row["amount"]) for row in south)
    # What is left in the cell is the other owner's.
    with (work / "north" / "sales.csv").open(newline="") as file:
        north = [r for r in csv.DictReader(file) if (r["product"], r["channel"]) == ("cocoa", "web")]
    assert Decimal(found["leaf", "web", "cocoa"]["turnover"]) == sum(Decimal(row["amount"]) for row in north)


def test_the_people_are_told_what_happens(output: str) -> None:
    sentences = (
        "never give them away",
        "all files valid",
        "Planned-transfer statement: Sales by channel and product",
        "DE -> SG: aggregate_share to compute_node",
        "SIGN_OFF_OPEN: 5/8 sign-off by 1",
        "8/8 receipts: de-1, de-2, de-3",
        "closed sales_by_channel 2025-01 with 2 submissions",
        "published 12 rows in ",
    )
    missing = [sentence for sentence in sentences if sentence not in output]
    assert not missing, f"{missing} not in\n{output}"
    assert "Traceback" not in output
    assert "record_share" not in output


def test_published_files_and_pages_are_there(output: str, work: Path) -> None:
    published = work / "head-office" / "published" / "sales_by_channel" / "2025-01"
    assert {"result.csv", "result.parquet", "result.xlsx", "report.html"} <= {path.name for path in published.iterdir()}
    assert (work / "head-office" / "evidence" / "sales_by_channel" / "2025-01" / "page.html").is_file()


def test_nothing_is_left_running_and_private_keys_stay_private(output: str, work: Path) -> None:
    for file in work.glob("logs/*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
    for key in work.rglob("keys/**/*"):
        if key.suffix != ".pub" and key.name not in {"ca.pem", "leaf.pem"} and key.is_file():
            assert key.stat().st_mode & 0o077 == 0, key
    for log in work.glob("logs/*"):
        assert "-1.00" not in log.read_text()
        assert "north-1" not in log.read_text()  # a customer's id
