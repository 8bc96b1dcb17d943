"""A filing step by step: what it refuses before data is read, what it repeats, and what operators receive."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from local_stores import filing
from local_stores.filing import readiness
from local_stores.snapshot.record import ContributionId
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.errors import (
    Abort,
    ComityError,
    ConfigError,
    DeliveryError,
    EvidenceError,
    LocalDataError,
    NotYet,
    PolicyViolation,
    StateError,
    TransportError,
)
from mpc_ops.notices.model import Approval, Reopen, Withdrawal
from mpc_ops.notices.signed import parse_notice, sign_notice
from mpc_ops.plan.layout import lanes
from tests.support import gate_reference
from tests.support.federation import (
    RECIPIENT,
    make_approval,
    make_calendar,
    make_federation,
    make_plan,
    make_reference,
    make_release,
)
from tests.support.sites import make_owner_site, now

PERIOD = "2026-03"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture(scope="module")
def plan(made):
    return make_plan(made.federation)


@pytest.fixture
def one(tmp_path, made, plan):
    return make_owner_site(tmp_path, made, plan)


def check(one, period=PERIOD):
    return filing.check_release(*one.call, period, open_sftp=one.region.open)


def figures(one, period=PERIOD):
    check(one, period)
    snapshots = {"sales_line": filing.take_snapshot(one.site, one.owner, "sales_line", period)}
    return filing.local_plan(*one.call, period, snapshots)


def sign_all(one, period=PERIOD, people=2):
    for name, key in list(one.signers().items())[:people]:
        filing.sign_off(*one.call, period, signer=name, key=key)


def sealed(one, period=PERIOD):
    contribution = figures(one, period)
    sign_all(one, period)
    signed = filing.sign_off_ready(*one.call, period, contribution)
    return filing.share_and_seal(*one.call, period, contribution, signed, open_sftp=one.region.open)


def deliver_all(one, parcel):
    return [
        filing.deliver(one.site, one.owner, parcel, operator, open_sftp=one.region.open)
        for operator in parcel["operators"]
    ]


def test_filing_from_release_to_receipts(one, plan):
    release = check(one)
    assert (release["edition"], release["datasets"], release["plan_digest"]) == (1, ["sales_line"], plan.digest)
    parcel = sealed(one)
    json.dumps(parcel)
    assert parcel["operators"] == ["de-1", "de-2", "de-3"]
    assert [done["already"] for done in deliver_all(one, parcel)] == [False] * 3
    assert filing.receipts_ready(one.site, one.owner, parcel, open_sftp=one.region.open) is None
    one.region.receipt(parcel["filing"], "de-1", "de-2")
    assert filing.receipts_ready(one.site, one.owner, parcel, open_sftp=one.region.open) is None
    one.region.receipt(parcel["filing"], "de-3")
    receipts = filing.receipts_ready(one.site, one.owner, parcel, open_sftp=one.region.open)
    assert sorted(receipts["receipts"]) == ["de-1", "de-2", "de-3"]
    assert one.region.receive(plan).tolist() == expected_lanes(one, plan)
    filed = one.region.filed("de-1")[-1].notice
    assert (filed.gate_k, filed.tie_out, filed.kind_of, len(filed.sign_offs)) == (10, "none", "data", 2)
    assert {path.name.partition(".")[0] for path in (one.region.root / "de-2/inbox").iterdir()} == {"part", "notice"}
    assert len(list((one.region.root / "de-2/inbox").iterdir())) == 3  # part, filed, approval


def expected_lanes(one, plan):
    """The figures by brute force: rate 1, as the owner books in the group's currency."""
    table = pq.read_table(one.books).to_pylist()
    out = []
    slices = {
        name: [row for row in table if str(row["booked_on"]).startswith(month)]
        for name, month in (("period", "2026-03"), ("prior_year", "2025-03"))
    }
    for lane in lanes(plan):
        rows = slices[lane.measure.slice]
        lines = [(row["segment"], row["product_line"], row["customer_uid"]) for row in rows]
        to = gate_reference.gate(lines, 10)
        if lane.measure.source == "customers":
            mark = None if lane.cell.kind == "total" else ""
            place = (*lane.cell.labels, *[mark] * (2 - len(lane.cell.labels)))
            out.append(gate_reference.level_counts(lines, 10).get(place, 0))
            continue
        place = (*lane.cell.labels, *[""] * (2 - len(lane.cell.labels)))
        inside = [row for row in rows if to and to[row["segment"], row["product_line"]] == place]
        value = {
            "revenue": lambda row: row["revenue_lc"], "lines": lambda row: 1,
            "margin": lambda row: row["revenue_lc"] - row["cost_lc"],
        }[lane.measure.source]  # fmt: skip
        total = sum(value(row) for row in inside)
        out.append(int(total * 100) if lane.measure.kind == "amount" else int(total))
    return out


# --------------------------------------------------------------------------------------- refused before data is read


@pytest.fixture
def unread(one, monkeypatch):
    """The store raises when it is opened: nothing here may read data."""

    def opened(_config):
        raise AssertionError("data was read")

    monkeypatch.setattr("local_stores.snapshot.taking.open_store", opened)
    return one


def test_filing_approval_missing(unread):
    for path in (unread.home / "approvals").iterdir():
        path.unlink()
    with pytest.raises(PolicyViolation, match="APPROVAL_MISSING: the data owner has not approved this calculation"):
        check(unread)
    with pytest.raises(PolicyViolation, match="APPROVAL_MISSING"):
        filing.take_snapshot(unread.site, unread.owner, "sales_line", PERIOD)


def test_filing_approval_file_that_is_none(unread):
    (unread.home / "approvals" / "note.dsse").write_text("hello")
    with pytest.raises(
        ConfigError, match=r"ENVELOPE_INVALID: a file among the owner's approvals is no notice.*file=note.dsse"
    ):
        check(unread)


def only_approval(one, signed):
    for path in (one.home / "approvals").iterdir():
        path.unlink()
    one.keep(signed)


def test_filing_approval_expired(unread, made, plan):
    only_approval(unread, make_approval(made, plan, unread.owner, now=datetime.now(UTC) - timedelta(days=9), days=3))
    with pytest.raises(PolicyViolation, match="APPROVAL_EXPIRED"):
        check(unread)


def test_filing_approval_withdrawn(unread, made, plan):
    notice = Withdrawal(plan=plan.digest, owner=unread.owner, created_at=now(), reason="no longer needed")
    unread.keep(sign_notice(notice, made.approver(unread.owner)))
    with pytest.raises(PolicyViolation, match="APPROVAL_WITHDRAWN"):
        check(unread)
    with pytest.raises(PolicyViolation, match="APPROVAL_WITHDRAWN"):
        filing.take_snapshot(unread.site, unread.owner, "sales_line", PERIOD)


def test_filing_approval_foreign(unread, made, plan):
    right = make_approval(made, plan, unread.owner).expect(Approval)
    only_approval(unread, sign_notice(right, IdentityKey.generate()))
    with pytest.raises(PolicyViolation, match="APPROVAL_FOREIGN"):
        check(unread)
    only_approval(unread, make_approval(made, plan, "de-sued"))
    with pytest.raises(PolicyViolation, match="APPROVAL_MISSING"):
        check(unread)
    only_approval(unread, make_approval(made, plan, unread.owner, statement="0" * 64))
    with pytest.raises(PolicyViolation, match="APPROVAL_FOREIGN: the approval was given for another planned-transfer"):
        check(unread)


def test_filing_release_changed_after_approval(unread, made):
    other = make_plan(made.federation, k=11)
    release = make_release(made, other, now=datetime.now(UTC) + timedelta(seconds=5))
    (unread.site.releases_dir / f"{release.digest}.dsse").write_bytes(release.envelope.to_bytes())
    with pytest.raises(
        PolicyViolation, match="APPROVAL_MISSING: the data owner has not approved this calculation, only another"
    ):
        check(unread)


def test_filing_release_altered_on_disk(unread):
    path = next(unread.site.releases_dir.glob("*.dsse"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"payload":"ey', b'"payload":"eyA'))
    with pytest.raises(PolicyViolation, match=r"RELEASE_INVALID: an imported release is not valid .*file="):
        check(unread)
    path.write_bytes(data)
    path.rename(path.with_name(f"{'0' * 64}.dsse"))
    with pytest.raises(PolicyViolation, match=r"RELEASE_INVALID.*the file's name is not the digest of its content"):
        check(unread)


def test_filing_release_of_a_stranger(unread, made, plan):
    genuine = make_release(made, plan)
    signed = sign_notice(genuine.notice, IdentityKey.generate())
    (unread.site.releases_dir / f"{signed.digest}.dsse").write_bytes(signed.envelope.to_bytes())
    with pytest.raises(PolicyViolation, match=r"RELEASE_INVALID.*SIGNATURE_INVALID"):
        check(unread)


def test_filing_release_expired_or_unknown(unread, made, plan):
    for path in unread.site.releases_dir.iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="RELEASE_UNKNOWN: no release of group_performance is imported here"):
        check(unread)
    old = make_release(made, plan, now=datetime.now(UTC) - timedelta(days=400), calendar=make_calendar((PERIOD,)))
    (unread.site.releases_dir / f"{old.digest}.dsse").write_bytes(old.envelope.to_bytes())
    with pytest.raises(PolicyViolation, match="RELEASE_EXPIRED"):
        check(unread)


def test_filing_wrong_period(unread):
    with pytest.raises(StateError, match="PERIOD_UNKNOWN: no release of group_performance has the period 2026-09"):
        check(unread, "2026-09")
    with pytest.raises(ConfigError, match="PERIOD_INVALID"):
        check(unread, "../../etc")
    with pytest.raises(ConfigError, match="NO_PURPOSE: no imported release uses dataset sales_line in 2026-09"):
        filing.take_snapshot(unread.site, unread.owner, "sales_line", "2026-09")


def test_filing_period_not_open_yet(tmp_path, made, plan):
    later = make_calendar((PERIOD,), now=datetime.now(UTC) + timedelta(hours=3))
    one = make_owner_site(tmp_path, made, plan, calendar=later)
    with pytest.raises(NotYet, match="PERIOD_NOT_OPEN: the period opens at"):
        check(one)
    assert one.region.opened == 0


def test_filing_period_past_its_time_to_live(tmp_path, made, plan, monkeypatch):
    one = make_owner_site(tmp_path, made, plan)
    later = datetime.now(UTC) + timedelta(days=plan.terms.ttl_days, hours=2)
    monkeypatch.setattr(readiness, "utc_now", lambda: later)
    with pytest.raises(StateError, match=r"PERIOD_CLOSED: the period was due at .* and its time to live is over"):
        check(one)


def test_filing_backfill_time_to_live_starts_with_late_keys(tmp_path, made, plan):
    old = make_calendar((PERIOD,), now=datetime.now(UTC) - timedelta(days=30))
    one = make_owner_site(tmp_path, made, plan, calendar=old)
    assert check(one)["edition"] == 1  # keys were published today, so due time and time to live moved


def test_filing_period_keys_missing_then_there(tmp_path, made, plan):
    one = make_owner_site(tmp_path, made, plan, open_period=False)
    with pytest.raises(NotYet, match="KEYS_MISSING: no period key yet of de-1, de-2, de-3"):
        check(one)
    one.region.open_period(plan, PERIOD, operators=["de-1", "de-3"])
    with pytest.raises(NotYet, match="KEYS_MISSING: no period key yet of de-2"):
        check(one)
    one.region.open_period(plan, PERIOD, operators=["de-2"])
    assert check(one)["plan_digest"] == plan.digest


def test_filing_one_relay_suffices_and_none_is_transient(one):
    one.region.down = {"de-1", "de-3"}
    check(one)
    one.region.down = {"de-1", "de-2", "de-3"}
    with pytest.raises(TransportError, match="SFTP_UNAVAILABLE") as caught:
        filing.sync_outbox(one.site, one.owner, open_sftp=one.region.open)
    assert caught.value.transient
    with pytest.raises(TransportError):
        check(one)


def test_filing_junk_from_one_relay_stops_nobody(one, made):
    stranger = sign_notice(make_reference(made, PERIOD, rates={"EUR": "1.5"}).notice, IdentityKey.generate())
    one.region.publish(stranger, "de-1")
    one.region.publish(make_reference(made, PERIOD), "de-1", data=b"{}")
    folder = one.region.root / "de-1/outbox/period_key"
    (folder / "not-a-digest.dsse").write_bytes(b"x" * 100)
    check(one)
    assert not [path for path in (one.site.folder / "state/notices").rglob("*") if stranger.digest in path.name]


def test_filing_rate_missing_for_a_currency(tmp_path, made):
    made_cn = make_federation(tmp_path / "cn", {"CN": ["cn-east"]})
    plan = make_plan(made_cn.federation)
    one = make_owner_site(tmp_path / "site", made_cn, plan, owner="cn-east", open_period=False)
    one.region.open_period(plan, PERIOD)
    for path in one.region.root.rglob("outbox/reference/*"):
        path.unlink()
    with pytest.raises(NotYet, match="REFERENCE_MISSING"):
        check(one)
    one.region.publish(make_reference(made_cn, PERIOD, rates={"EUR": "1"}))
    with pytest.raises(ConfigError, match="RATE_MISSING: no rate for CNY in 2026-03") as caught:
        check(one)
    assert not caught.value.transient


def test_filing_unknown_owner(one):
    with pytest.raises(ConfigError, match="OWNER_UNKNOWN"):
        filing.check_release(one.site, "de-sued", one.plan.report, PERIOD)


# ----------------------------------------------------------------------------------------------- figures and sign-off


def test_filing_sign_off_is_asked_for_and_kept_for_equal_figures(one):
    contribution = figures(one)
    assert filing.sign_off_ready(*one.call, PERIOD, contribution) is None
    with pytest.raises(
        PolicyViolation, match=r"SIGN_OFF_MISSING: the figures are not signed by enough.*expected 2; got 0"
    ):
        filing.share_and_seal(*one.call, PERIOD, contribution, None)
    sign_all(one, people=1)
    assert filing.sign_off_ready(*one.call, PERIOD, contribution) is None
    sign_all(one)
    ready = filing.sign_off_ready(*one.call, PERIOD, contribution)
    assert ready == {"commitment": contribution["commitment"], "signers": ["de-nord-signer-1", "de-nord-signer-2"]}
    # Rows outside the report change nothing: equal figures keep their signatures.
    table = pq.read_table(one.books)
    pq.write_table(table.slice(0, 0), one.books / "0001.parquet")
    again = figures(one)
    assert again["commitment"] == contribution["commitment"]
    assert filing.sign_off_ready(*one.call, PERIOD, again) == ready


def change_books(one):
    """Correct one amount of the month in the source."""
    path = one.books / "2026.parquet"
    table = pq.read_table(path)
    amounts = table["revenue_lc"].to_pylist()
    place = [str(day) for day in table["booked_on"].to_pylist()].index("2026-03-05")
    amounts[place] = amounts[place] / 2
    column = pa.array([a.quantize(a.__class__("0.01")) for a in amounts], table.schema.field("revenue_lc").type)
    pq.write_table(table.set_column(table.schema.get_field_index("revenue_lc"), "revenue_lc", column), path)


def test_filing_other_figures_ask_again(one):
    first = figures(one)
    sign_all(one)
    signed = filing.sign_off_ready(*one.call, PERIOD, first)
    change_books(one)
    second = figures(one)
    assert second["commitment"] != first["commitment"]
    assert filing.sign_off_ready(*one.call, PERIOD, second) is None
    with pytest.raises(PolicyViolation, match="SIGN_OFF_FOREIGN: the signatures are over other figures"):
        filing.share_and_seal(*one.call, PERIOD, second, signed)
    # A signature over the first figures, put where one over the second should lie.
    folder = one.site.folder / "state/signatures/de-nord"
    (folder / second["commitment"]).mkdir()
    name = "de-nord-signer-1.json"
    (folder / second["commitment"] / name).write_bytes((folder / first["commitment"] / name).read_bytes())
    with pytest.raises(PolicyViolation, match="SIGN_OFF_FOREIGN: a signature is over other figures, or by another key"):
        filing.sign_off_ready(*one.call, PERIOD, second)


def test_filing_sign_off_by_a_stranger_or_with_a_foreign_key(one):
    figures(one)
    key = IdentityKey.generate()
    with pytest.raises(PolicyViolation, match="SIGN_OFF_FOREIGN: the membership list does not name this person"):
        filing.sign_off(*one.call, PERIOD, signer="mallory", key=key)
    with pytest.raises(PolicyViolation, match="SIGN_OFF_FOREIGN: the key is not the one"):
        filing.sign_off(*one.call, PERIOD, signer="de-nord-signer-1", key=key)
    with pytest.raises(ConfigError, match="CONTRIBUTION_MISSING"):
        filing.sign_off(*one.call, "2026-01", signer="de-nord-signer-1", key=key)


def test_filing_one_person_cannot_sign_twice(one):
    contribution = figures(one)
    sign_all(one, people=1)
    sign_all(one, people=1)
    assert filing.sign_off_ready(*one.call, PERIOD, contribution) is None


def test_filing_commitment_is_salted(one, made, plan, tmp_path):
    first = figures(one)["commitment"]
    other = make_owner_site(tmp_path / "again", made, plan)
    assert figures(other)["commitment"] != first  # the same figures under another owner's secret
    salt = ContributionId(plan.digest, PERIOD, "de-nord", 1).folder
    assert len((one.site.folder / "state" / salt / "salt").read_bytes()) == 32


def test_filing_page_shows_own_figures_with_the_prior_year(one):
    contribution = figures(one)
    page = (one.site.folder / "state").rglob(f"{contribution['commitment']}.html")
    text = next(page).read_text()
    assert "Entity de-nord" in text
    assert "BUILDING / BRASS" in text
    assert "BUILDING / not allocated" in text
    assert 'class="prior"' in text
    assert contribution["commitment"] in text
    assert "<script" not in text
    assert "http" not in text


def test_filing_contract_breach_stops_it(one):
    path = one.books / "2026.parquet"
    table = pq.read_table(path)
    segments = table["segment"].to_pylist()
    place = [str(day)[:7] for day in table["booked_on"].to_pylist()].index("2026-03")
    segments[place] = "CANARY-SEGMENT"
    pq.write_table(table.set_column(table.schema.get_field_index("segment"), "segment", pa.array(segments)), path)
    with pytest.raises(
        LocalDataError, match=r"DOMAIN_UNKNOWN: values that are not in the column's closed list: segment \(1\)"
    ) as caught:
        figures(one)
    assert "CANARY" not in str(caught.value)


def test_filing_empty_month_is_a_nil_filing(one, plan):
    for path in one.books.glob("*.parquet"):
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    contribution = figures(one)
    assert contribution["kind"] == "nil"
    parcel = sealed(one)
    deliver_all(one, parcel)
    filed = one.region.filed("de-1")[-1].notice
    assert (filed.kind_of, filed.parts, filed.commitments) == ("nil", [], [])
    assert not list((one.region.root / "de-1/inbox").glob("part.*"))


# ------------------------------------------------------------------------------------------ share, deliver, receipts


def test_filing_repeated_steps_change_nothing(one):
    parcel = sealed(one)
    deliver_all(one, parcel)
    inbox = {path: path.read_bytes() for path in one.region.root.rglob("inbox/*")}
    assert sealed(one) == parcel
    assert [done["already"] for done in deliver_all(one, parcel)] == [True] * 3
    assert {path: path.read_bytes() for path in one.region.root.rglob("inbox/*")} == inbox


def test_filing_delivery_is_byte_identical_after_a_lost_inbox(one):
    parcel = sealed(one)
    deliver_all(one, parcel)
    before = {path.name: path.read_bytes() for path in (one.region.root / "de-1/inbox").iterdir()}
    for path in (one.region.root / "de-1/inbox").iterdir():
        path.unlink()
    deliver_all(one, parcel)
    assert {path.name: path.read_bytes() for path in (one.region.root / "de-1/inbox").iterdir()} == before


def test_filing_parts_come_before_the_notice(one):
    parcel = sealed(one)
    deliver_all(one, parcel)
    sent = [name.partition(".")[0] for name in one.region.sessions["de-1"].sent]
    assert sent == ["notice", "part", "notice"]  # approval, part, filed
    assert one.region.sessions["de-1"].sent[-1] == f"notice.{parcel['filing']}"


def test_filing_other_figures_make_the_next_take(one, plan):
    first = sealed(one)
    change_books(one)
    second = sealed(one)
    assert (first["take"], second["take"]) == (1, 2)
    assert second["filing"] != first["filing"]
    deliver_all(one, second)
    assert one.region.receive(plan).tolist() == expected_lanes(one, plan)


def test_filing_unsealed_shares_are_never_written(one):
    parcel = sealed(one)
    record = json.loads(next((one.site.folder / "state/contributions").rglob(f"{_commitment(one)}.json")).read_text())
    lanes_bytes = np.array([int(text) for text in record["lanes"]], "<i8").tobytes()
    out = one.site.folder / "state/out" / parcel["filing"]
    assert sorted(path.name for path in out.iterdir()) == ["filed.dsse", "part.de-1", "part.de-2", "part.de-3"]
    for path in (one.site.folder / "state").rglob("*"):
        if path.is_file():
            assert lanes_bytes[:64] not in path.read_bytes()
            assert b"ARROW" not in path.read_bytes()[:64] or path.suffix == ".parquet"


def _commitment(one):
    return next((one.site.folder / "state/contributions").rglob("latest")).read_text()


def test_filing_a_damaged_part_is_not_delivered(one):
    parcel = sealed(one)
    path = one.site.folder / "state/out" / parcel["filing"] / "part.de-2"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ConfigError, match="FILING_DAMAGED: a sealed part is damaged"):
        filing.deliver(one.site, one.owner, parcel, "de-2", open_sftp=one.region.open)
    assert not list((one.region.root / "de-2/inbox").glob("part.*"))
    with pytest.raises(ConfigError, match="OPERATOR_UNKNOWN"):
        filing.deliver(one.site, one.owner, parcel, "cn-1", open_sftp=one.region.open)


def test_filing_disk_full_while_sealing_leaves_nothing_half(one, monkeypatch):
    contribution = figures(one)
    sign_all(one)
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:  # two parts are whole, the third is not
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalDataError, match="DISK_FULL: no space is left for state"):
        filing.share_and_seal(*one.call, PERIOD, contribution)
    monkeypatch.undo()
    assert not list((one.site.folder / "state").rglob("filed.dsse"))
    assert filing.share_and_seal(*one.call, PERIOD, contribution)["take"] == 1


def test_filing_operator_down_at_delivery_is_transient(one):
    parcel = sealed(one)
    one.region.down = {"de-2"}
    with pytest.raises(TransportError) as caught:
        deliver_all(one, parcel)
    assert caught.value.transient
    one.region.down = set()
    assert [done["already"] for done in deliver_all(one, parcel)] == [True, False, False]


def test_filing_rejected_names_operator_and_code(one):
    parcel = sealed(one)
    deliver_all(one, parcel)
    one.region.reject(parcel["filing"], "de-2", "SEAL_BROKEN", reason="a sealed part does not open")
    with pytest.raises(DeliveryError, match=r"FILING_REJECTED: de-2 refuses the filing \(SEAL_BROKEN\)") as caught:
        filing.receipts_ready(one.site, one.owner, parcel, open_sftp=one.region.open)
    assert not caught.value.transient
    again = sealed(one)  # a refused take is not found again
    assert again["take"] == 2


def test_filing_disputed_names_the_pair(one):
    parcel = sealed(one)
    deliver_all(one, parcel)
    one.region.receipt(parcel["filing"], "de-1")
    one.region.reject(parcel["filing"], "de-3", "COMMITMENT_MISMATCH", pair=["de-2", "de-3"])
    with pytest.raises(
        DeliveryError, match=r"FILING_DISPUTED: the holders of a component disagree: de-2 and de-3"
    ) as caught:
        filing.receipts_ready(one.site, one.owner, parcel, open_sftp=one.region.open)
    assert caught.value.ids["operator"] == "de-3"


def test_filing_receipts_of_others_do_not_count(one):
    parcel = sealed(one)
    one.region.receipt("0" * 64)
    forged = one.region.operators[0]
    one.region.receipt(parcel["filing"], "de-1")
    path = next((one.region.root / "de-2/outbox/receipt").glob("*.dsse"))
    assert parse_notice(path.read_bytes()).notice.operator in one.region.operators
    assert forged == "de-1"
    assert filing.receipts_ready(one.site, one.owner, parcel, open_sftp=one.region.open) is None


# ------------------------------------------------------------------------------------- close, reopen, failure, outcome


def test_filing_after_the_close(one, plan):
    parcel = sealed(one)
    deliver_all(one, parcel)
    one.region.close(plan, PERIOD, [parcel["filing"]])
    with pytest.raises(StateError, match="PERIOD_CLOSED: edition 1 of 2026-03 was closed at") as caught:
        check(one)
    assert not caught.value.transient
    assert "comity run reopen" in str(caught.value)
    assert [done["already"] for done in deliver_all(one, parcel)] == [True] * 3  # clearing `deliver` stays a no-op


def test_filing_other_figures_after_the_close_are_refused(one, plan):
    parcel = sealed(one)
    deliver_all(one, parcel)
    change_books(one)
    second = figures(one)
    sign_all(one)
    one.region.close(plan, PERIOD, [parcel["filing"]])
    with pytest.raises(StateError, match="PERIOD_CLOSED"):
        filing.share_and_seal(*one.call, PERIOD, second, open_sftp=one.region.open)


def test_filing_is_open_again_when_the_run_failed(one, plan):
    parcel = sealed(one)
    run = one.region.close(plan, PERIOD, [parcel["filing"]])
    one.region.fail(run, "de-2", "SHARE_MISMATCH", pair=["de-1", "de-2"])
    assert check(one)["edition"] == 1
    answer = filing.outcome_ready(*one.call, PERIOD, open_sftp=one.region.open)
    assert (answer["state"], answer["code"], answer["pair"]) == ("FAILED", "SHARE_MISMATCH", ["de-1", "de-2"])
    with pytest.raises(Abort, match="RUN_FAILED: the run ended as FAILED with SHARE_MISMATCH, between de-1 and de-2"):
        filing.fetch_outcome(*one.call, PERIOD, open_sftp=one.region.open)


def test_filing_left_out_by_the_close(one, plan):
    sealed(one)
    assert filing.outcome_ready(*one.call, PERIOD, open_sftp=one.region.open) is None
    with pytest.raises(NotYet, match="OUTCOME_OPEN"):
        filing.fetch_outcome(*one.call, PERIOD, open_sftp=one.region.open)
    one.region.close(plan, PERIOD, ["0" * 64])
    with pytest.raises(StateError, match="FILING_LATE: the submission close left this filing out"):
        filing.fetch_outcome(*one.call, PERIOD, open_sftp=one.region.open)


def test_filing_second_edition_after_reopen(one, made, plan):
    parcel = sealed(one)
    deliver_all(one, parcel)
    one.region.close(plan, PERIOD, [parcel["filing"]])
    reopen = Reopen(
        plan=plan.digest, period=PERIOD, edition=2, recipient=RECIPIENT, due_at="2099-01-01T00:00:00Z", created_at=now(),
        reason="late entity",
    )  # fmt: skip
    one.region.publish(sign_notice(reopen, made.keys[RECIPIENT]))
    with pytest.raises(NotYet, match="KEYS_MISSING"):
        check(one)
    one.region.open_period(plan, PERIOD, edition=2)
    assert check(one)["edition"] == 2
    second = sealed(one)
    assert (second["edition"], second["take"]) == (2, 1)
    deliver_all(one, second)
    assert one.region.receive(plan).tolist() == expected_lanes(one, plan)


def test_filing_reopen_by_a_stranger_has_no_effect(one, plan):
    reopen = Reopen(
        plan=plan.digest, period=PERIOD, edition=2, recipient=RECIPIENT, due_at="2099-01-01T00:00:00Z", created_at=now(),
        reason="x",
    )  # fmt: skip
    one.region.publish(sign_notice(reopen, IdentityKey.generate()))
    assert check(one)["edition"] == 1


def test_filing_says_so_if_it_accepts_a_difference(one):
    home = one.site.owner(one.owner)
    one.site = replace(one.site, owners={one.owner: replace(home, accepts_difference=True)})
    parcel = sealed(one)
    deliver_all(one, parcel)
    assert one.region.filed("de-1")[-1].notice.accepts_difference


def test_filing_approval_reaches_the_operators_with_the_filing(one):
    parcel = sealed(one)
    deliver_all(one, parcel)
    found = [parse_notice(path.read_bytes()).kind for path in (one.region.root / "de-3/inbox").glob("notice.*")]
    assert sorted(found) == ["approval", "filed"]


def test_filing_notices_are_verified_before_they_are_kept(one, made, plan):
    genuine = make_approval(made, plan, one.owner)
    assert filing.keep_notice(one.site, one.owner, genuine.envelope.to_bytes()).digest == genuine.digest
    forged = sign_notice(genuine.notice, IdentityKey.generate())
    with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
        filing.keep_notice(one.site, one.owner, forged.envelope.to_bytes())
    sent = filing.send_to_operators(one.site, one.owner, genuine, open_sftp=one.region.open)
    assert sent == dict.fromkeys(one.region.operators, "delivered")


def test_filing_without_two_signers_needs_none(tmp_path, made):
    plan = make_plan(made.federation, sign_off=0)
    one = make_owner_site(tmp_path, made, plan)
    contribution = figures(one)
    assert filing.sign_off_ready(*one.call, PERIOD, contribution)["signers"] == []
    assert filing.share_and_seal(*one.call, PERIOD, contribution)["take"] == 1


def test_filing_errors_name_owner_and_plan(one, plan):
    for path in (one.home / "approvals").iterdir():
        path.unlink()
    with pytest.raises(ComityError) as caught:
        check(one)
    assert caught.value.ids == {"owner": "de-nord", "plan": plan.digest[:16]}
