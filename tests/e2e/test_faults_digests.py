"""A finished run, seen by somebody who knows every true value: no digest confirms a guess, and no figure lies anywhere.

Looked at are everything that operators store, receive, send and log, before and after the acknowledgement, and the
evidence pack. The values are those of the owners' books: subtotals, sums and the result.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from local_stores import closing, filing
from local_stores.closing.desk import open_desk
from mpc_ops.evidence.verify import verify_pack
from mpc_ops.randomness import encode_context
from mpc_ops.sharing import FilingContext
from tests.support.demo_data import find_secrets, secrets_of
from tests.support.federation import RATES
from tests.support.guesses import digests_in, encodings, guesses, readable
from tests.support.whole import Report, Whole, until, whole_federation

pytestmark = pytest.mark.e2e
PERIOD = "2026-03"


@dataclass
class Finished:
    """A run from books to evidence.

    Attributes:
        figures: each owner's true lanes; result: their sum.
        seen: everything that operators hold, as copied before the acknowledgement, and as it is at the end.
        run: its id and so on; pack: the evidence.
    """

    whole: Whole
    report: Report
    figures: dict[str, np.ndarray]
    result: np.ndarray
    run: dict[str, object]
    seen: list[Path]
    pack: Path
    published: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    with whole_federation(root) as whole:
        report = whole.release("performance", PERIOD, dimensions=("segment", "product_line"))
        figures = {owner: whole.file_by_site(report, PERIOD, owner) for owner in whole.made.owners}
        run = whole.close(report, PERIOD)
        result = whole.result(run)
        before = root / "before"
        for name in whole.members:
            for folder in ("state", "spool"):
                shutil.copytree(whole.made.homes[name] / folder, before / name / folder)
        published = closing.publish(whole.group, run, {})
        until(closing.acknowledge, whole.group, run, published)
        for owner in whole.made.owners:
            box = whole.opener(owner)
            until(filing.outcome_ready, whole.owners, owner, report.name, PERIOD, open_sftp=box)
            filing.fetch_outcome(whole.owners, owner, report.name, PERIOD, open_sftp=box)
        done = until(closing.collect_closing, whole.group, run, wait_s=30)
        seen = [before, *(whole.made.homes[name] / part for name in whole.members for part in ("state", "spool"))]
        logs = root / "logs"
        boxes = root / "boxes"
        yield Finished(
            whole, report, figures, result, run, [*seen, logs, boxes], Path(done["evidence"]), Path(published["folder"])
        )


def everything(finished):
    """Yield (where, bytes) of all files, and of what lies in the operators' journals and in envelopes."""
    for root in (*finished.seen, finished.pack):
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.is_file():
                yield str(path), path.read_bytes()
    run = str(finished.run["run_id"])
    for name in finished.whole.members:
        for table, columns in (
            ("notices", "data"), ("ledger", "entry"), ("extracts", "ledger"), ("bundles", "data"), ("crossings_in", "frame"),
            ("sessions", "state"), ("filings", "state"), ("results", "commitment"),
        ):  # fmt: skip
            for (data,) in finished.whole.query(name, f"SELECT {columns} FROM {table}"):
                yield f"{name}: {table}", data if isinstance(data, bytes) else str(data).encode()
    for name in finished.whole.running.group():
        yield f"{name}: evidence", finished.whole.running.api(name).get(f"/v1/runs/{run}/evidence").content


def true_vectors(finished):
    yield from finished.figures.values()
    yield finished.result
    owners = list(finished.figures.values())
    yield from (finished.result - one for one in owners)  # sums of the other owners


def public_prefixes(finished):
    """What everybody knows: ids of the run, and the commitments' own form with a salt of zeros."""
    report, run = finished.report, str(finished.run["run_id"])
    filings = finished.whole.notices("de-1", "filed")
    for text in (report.plan.digest, run, report.release.digest, *(s.digest for s in filings)):
        yield text.encode()
        yield bytes.fromhex(text)
    yield b"comity/commit/v1"
    for signed in filings:
        filed = signed.notice
        where = FilingContext(
            plan_digest=filed.plan, period=filed.period, owner=filed.owner, edition=filed.edition, take=filed.take
        )
        contexts = [where.items(), ("contribution", filed.plan, filed.period, filed.owner, filed.edition)]
        contexts += [(*where.items(), "component", index, kind) for index in range(3) for kind in ("seed", "explicit")]
        for context in contexts:
            encoded = encode_context(*context)
            tail = len(encoded).to_bytes(8, "big") + encoded
            yield from (b"comity/commit/v1" + salt + tail for salt in (b"", bytes(32)))


def test_the_run_is_exact_and_its_evidence_verifies(finished):
    assert (finished.result == sum(finished.figures.values())).all()
    assert finished.result.any()
    verdict = verify_pack(finished.pack, finished.whole.made.folder)
    assert verdict.ok, [check.problems for check in verdict.refused]
    assert verdict.outcome == "COMMITTED"


def test_no_digest_anywhere_can_be_reproduced_by_who_knows_every_true_value(finished):
    found: dict[str, str] = {}
    for where, data in everything(finished):
        found |= dict.fromkeys(digests_in(data), where)
    known = {str(finished.run["run_id"]), finished.report.plan.digest, finished.report.release.digest}
    assert known <= set(found)
    filed = [signed.notice for signed in finished.whole.notices("de-1", "filed")]
    assert {digest for one in filed for digest in (*one.commitments, one.contribution)} <= set(found)
    assert len(found) > 300

    vectors = list(true_vectors(finished))
    bodies = {body for vector in vectors for body in encodings(vector)}
    bodies |= {path.read_bytes() for path in finished.published.rglob("*") if path.is_file()}
    bodies |= {
        path.read_bytes() for store in finished.whole.books.stores for path in store.path.rglob("*") if path.is_file()
    }
    tried = guesses(bodies, public_prefixes(finished))
    assert len(tried) > 100_000
    assert {found[digest]: digest for digest in tried & set(found)} == {}


def test_a_digest_of_a_figure_would_have_been_found(finished):
    """The two sides of the test above meet: a plain digest of one count, in an envelope in a bundle, is caught."""
    count = next(int(value) for value in finished.figures["de-sued"] if value)
    leak = hashlib.sha256(count.to_bytes(8, "little", signed=True)).hexdigest()
    bundle = json.dumps({"notices": [_envelope({"ledger": {"sha256": leak}})]})
    assert digests_in(_envelope(bundle).encode()) & guesses(encodings([count]), []) == {leak}


def _envelope(payload: object) -> str:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return json.dumps({"payload": base64.b64encode(text.encode()).decode()})


def test_no_canary_customer_or_subtotal_lies_in_what_operators_hold_log_and_hand_over(finished):
    rates = {month: {currency: {"avg_rate": rate} for currency, rate in RATES.items()} for month in (PERIOD, "2025-03")}
    secrets = secrets_of(finished.whole.books.stores, PERIOD, rates)
    assert {canary.customer for canary in finished.whole.books.canaries} <= secrets.texts
    heaps = {True: [], False: []}
    for where, data in everything(finished):
        heaps["operator.sqlite" in where] += readable(data)
    assert find_secrets(b"\n".join(heaps[False]), secrets) == []
    # The journal's raw pages are full of small binary numbers: there the texts are looked for, and numbers in its rows.
    texts = replace(secrets, patterns=frozenset(one for one in secrets.patterns if one.isascii() and len(one) > 8))
    assert find_secrets(b"\n".join(heaps[True]), texts) == []
    kept = Path(finished.whole.owners.folder) / "state" / "contributions"
    assert find_secrets(kept, secrets)  # the search finds them where they may be


def test_after_the_acknowledgement_no_share_is_left(finished):
    for name in finished.whole.members:
        for table in ("crossings_in", "crossings_out"):
            assert not finished.whole.query(name, f"SELECT 1 FROM {table}")
        assert not list((finished.whole.made.homes[name] / "spool").rglob("part.*"))
        assert not list((finished.whole.made.homes[name] / "state" / "periods").glob("*.key"))
    for name in finished.whole.running.group():
        assert not finished.whole.query(name, "SELECT 1 FROM results WHERE part IS NOT NULL")
    desk = open_desk(finished.whole.group)
    assert desk.run(str(finished.run["run_id"])).parts()
