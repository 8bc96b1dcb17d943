"""Filings at the region operators: every row of the filing table and every refusal, with its code at the owner's outbox."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import numpy as np
import pytest

from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.notices.model import Filed, Outcome, PeriodKeyNotice, Rejected, Withdrawal
from mpc_ops.notices.signed import sign_notice, utc_text
from mpc_ops.session import FilingState
from mpc_ops.sharing import Component
from tests.support.federation import (
    SMALL,
    make_approval,
    make_calendar,
    make_federation,
    make_plan,
    make_reference,
    make_release,
)
from tests.support.operators import PERIOD, Desk, Net, World, _replace, make_world

OWNER = "de-nord"
REGION = ("de-1", "de-2", "de-3")


@pytest.fixture
def world(tmp_path):
    made = make_federation(tmp_path, SMALL)
    found = make_world(tmp_path, made, make_plan(made.federation, min_owners=2))
    yield found
    found.net.close()


def values(world: World, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(10**6), 10**6, world.desk.lanes)


def state(world: World, operator: str = "de-1", owner: str = OWNER, *, edition: int = 1) -> FilingState:
    return world.net.operators[operator].filings.state(world.desk.plan.digest, PERIOD, owner, edition)


def phases(world: World, owner: str = OWNER) -> list[str]:
    return [state(world, name, owner).phase for name in REGION]


def file(world: World, owner: str = OWNER, **more):
    sealed = world.desk.seal(owner, values(world), **more)
    world.desk.deliver(sealed)
    world.net.settle()
    return sealed


def codes(world: World, sealed, owner: str = OWNER) -> set[str]:
    return set(world.desk.rejections(sealed.filed.digest, owner).values())


def test_period_keys_lie_in_the_outbox_when_the_edition_opens(world):
    keys = world.desk.keys(OWNER, PERIOD)
    assert set(keys) == set(REGION)
    assert len(set(keys.values())) == 3
    files = list((world.net.configs["de-1"].state / "periods").iterdir())
    assert len(files) == 3  # one per calendar row
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


def test_a_filing_is_agreed_by_the_three_holders_and_receipted(world):
    sealed = file(world)
    assert phases(world) == ["AGREED"] * 3
    assert world.desk.receipts(sealed) == set(REGION)
    assert not codes(world, sealed)


def test_a_nil_filing_is_agreed_without_parts(world):
    sealed = world.desk.deliver(world.desk.nil(OWNER))
    world.net.settle()
    assert phases(world) == ["AGREED"] * 3
    assert state(world).nil
    assert world.desk.receipts(sealed) == set(REGION)


def test_the_same_filing_again_changes_nothing(world):
    sealed = file(world)
    heads = [world.net.operators[name].books.head() for name in REGION]
    world.desk.deliver(sealed)
    for name in REGION:
        world.net.operators[name].intake._seen.clear()
    world.net.settle()
    assert phases(world) == ["AGREED"] * 3
    assert [world.net.operators[name].books.head() for name in REGION] == heads


def test_a_filing_that_only_two_operators_received_waits_for_the_third(world):
    sealed = world.desk.seal(OWNER, values(world))
    world.desk.deliver(sealed, operators=REGION[:2])
    world.net.settle()
    assert phases(world) == ["RECEIVED", "RECEIVED", "EXPECTED"]
    world.desk.deliver(sealed, operators=REGION[2:])
    world.net.run(3)
    assert phases(world) == ["AGREED"] * 3


def test_a_part_that_comes_before_its_notice_waits_for_it(world):
    sealed = world.desk.seal(OWNER, values(world))
    for name in REGION:
        (part,) = (p for p in sealed.filed.expect(Filed).parts if p.operator == name)
        world.desk.put(name, OWNER, f"part.{part.sha256}", sealed.parts[name])
    world.net.settle()
    assert phases(world) == ["EXPECTED"] * 3
    world.desk.put_notice(OWNER, sealed.filed)
    world.net.settle()
    assert phases(world) == ["AGREED"] * 3


def test_files_that_are_still_being_written_are_not_looked_at(world):
    sealed = world.desk.seal(OWNER, values(world))
    for name in REGION:
        (world.desk.inbox(name, OWNER) / f"notice.{sealed.filed.digest}.k3.part").write_bytes(b"half")
    world.net.settle()
    assert phases(world) == ["EXPECTED"] * 3


def test_a_notice_with_a_strangers_signature_is_rejected(world):
    sealed = world.desk.seal(OWNER, values(world))
    foreign = sign_notice(sealed.filed.notice, IdentityKey.generate())
    world.desk.deliver(dataclasses.replace(sealed, filed=foreign))
    world.net.settle()
    assert codes(world, sealed) == {"SIGNATURE_INVALID"}
    assert phases(world) == ["EXPECTED"] * 3


def test_a_notice_of_another_owner_is_rejected(world):
    other = world.desk.seal("de-sued", values(world))
    world.desk.put_notice(OWNER, other.filed)
    world.net.settle()
    found = {s.notice.code for s in world.desk.outbox("de-1", OWNER, "rejected")}
    assert found == {"NOTICE_FOREIGN"}


@pytest.mark.parametrize("kind", ["outcome", "rejected"])
def test_kinds_of_notices_that_owners_do_not_send_are_refused(world, kind):
    if kind == "outcome":
        notice = Outcome(run="0" * 64, party="de-sued", closing="1" * 64, created_at=utc_text(world.net.now))
        signed = sign_notice(notice, world.net.made.keys["de-sued"])
    else:
        notice = Rejected(
            filing="0" * 64, operator="de-2", code="FORGED", reason="x", created_at=utc_text(world.net.now)
        )
        signed = sign_notice(notice, world.net.made.keys["de-2"])
    world.desk.put_notice(OWNER, signed)
    world.net.settle()
    found = world.desk.rejections(signed.digest, OWNER)
    assert set(found.values()) == {"NOTICE_FOREIGN" if kind == "outcome" else "NOTICE_UNWANTED"}
    assert not list(world.desk.inbox("de-1", OWNER).glob("notice.*" + signed.digest))


def test_bytes_that_are_no_notice_are_rejected_and_removed(world):
    world.desk.put("de-1", OWNER, "notice." + "a" * 64, b"{}")
    world.net.settle()
    assert world.desk.rejections("a" * 64, OWNER) == {"de-1": "ENVELOPE_INVALID"}
    assert not list(world.desk.inbox("de-1", OWNER).glob("notice." + "a" * 64))


def test_an_unknown_plan_is_waited_for_and_then_rejected(world):
    other = make_plan(world.net.made.federation, min_owners=2, report="another_report")
    sealed = world.desk.seal(OWNER, values(world))
    foreign = world.desk.sign(_replace(sealed.filed.notice, plan=other.digest))
    world.desk.deliver(dataclasses.replace(sealed, filed=foreign))
    world.net.settle()
    assert not world.desk.rejections(foreign.digest, OWNER)
    world.net.run(8)
    assert set(world.desk.rejections(foreign.digest, OWNER).values()) == {"PLAN_UNKNOWN"}


def test_a_period_that_the_calendar_does_not_have_is_rejected(world):
    sealed = world.desk.seal(OWNER, values(world))
    foreign = world.desk.sign(_replace(sealed.filed.notice, period="2031-01"))
    world.desk.deliver(dataclasses.replace(sealed, filed=foreign))
    world.net.settle()
    assert set(world.desk.rejections(foreign.digest, OWNER).values()) == {"PERIOD_UNKNOWN"}


def test_an_edition_that_is_not_open_is_rejected(world):
    sealed = world.desk.seal(OWNER, values(world))
    foreign = world.desk.sign(_replace(sealed.filed.notice, edition=2))
    world.desk.deliver(dataclasses.replace(sealed, filed=foreign))
    world.net.settle()
    assert set(world.desk.rejections(foreign.digest, OWNER).values()) == {"PERIOD_NOT_OPEN"}


def test_a_gate_below_the_terms_is_rejected(world):
    assert codes(world, file(world, gate_k=9)) == {"GATE_TOO_LOW"}
    assert phases(world) == ["REJECTED"] * 3


def test_rates_that_nobody_published_are_waited_for_and_then_rejected(world):
    sealed = file(world, reference="5" * 64)
    assert not codes(world, sealed)
    world.net.run(8)
    assert codes(world, sealed) == {"REFERENCE_UNKNOWN"}


def test_translated_amounts_without_rates_are_rejected(world):
    world.desk.reference = None
    assert codes(world, file(world)) == {"REFERENCE_MISSING"}


def test_rates_of_another_month_are_rejected(world):
    other = make_reference(world.net.made, "2026-02")
    world.post(other)
    assert codes(world, file(world, reference=other.digest)) == {"REFERENCE_FOREIGN"}


def test_a_missing_sign_off_is_rejected(world):
    first = next(iter(world.net.made.signers(OWNER)))
    assert codes(world, file(world, signers=[first])) == {"SIGN_OFF_MISSING"}
    assert codes(world, file(world, signers=[first, first], take=2)) == {"SIGN_OFF_MISSING"}


def test_a_sign_off_over_other_figures_or_by_a_stranger_is_rejected(world):
    sealed = world.desk.seal(OWNER, values(world))
    other = sign_notice(_replace(sealed.filed.notice, contribution="7" * 64), world.net.made.keys[OWNER])
    world.desk.deliver(dataclasses.replace(sealed, filed=other))
    world.net.settle()
    assert set(world.desk.rejections(other.digest, OWNER).values()) == {"SIGN_OFF_FOREIGN"}
    offs = [_replace(item, signer="de-sued-signer-1") for item in sealed.filed.notice.sign_offs]
    stranger = sign_notice(_replace(sealed.filed.notice, sign_offs=offs, take=2), world.net.made.keys[OWNER])
    world.desk.put_notice(OWNER, stranger)
    world.net.settle()
    assert set(world.desk.rejections(stranger.digest, OWNER).values()) == {"SIGN_OFF_FOREIGN"}


def test_a_part_longer_than_the_plan_allows_is_rejected_unread(world):
    sealed = world.desk.seal(OWNER, values(world))
    parts = [_replace(part, size=part.size + (1 << 20)) for part in sealed.filed.notice.parts]
    file(world, parts=parts)
    assert {s.notice.code for s in world.desk.outbox("de-1", OWNER, "rejected")} == {"PART_OVER_BOUND"}


def test_parts_for_other_operators_than_the_regions_are_rejected(world):
    sealed = world.desk.seal(OWNER, values(world))
    parts = list(reversed(sealed.filed.notice.parts))
    other = world.desk.sign(_replace(sealed.filed.notice, parts=parts))
    world.desk.put_notice(OWNER, other)
    world.net.settle()
    assert set(world.desk.rejections(other.digest, OWNER).values()) == {"FILING_INVALID"}


@pytest.mark.parametrize(("cut", "code"), [(-5, "PART_TRUNCATED"), (None, "PART_ALTERED")])
def test_a_truncated_or_altered_part_is_rejected_where_it_lies_and_can_be_delivered_again(world, cut, code):
    sealed = world.desk.seal(OWNER, values(world))
    good = sealed.parts["de-2"]
    sealed.parts["de-2"] = good[:cut] if cut else good[:-1] + bytes([good[-1] ^ 1])
    world.desk.deliver(sealed)
    world.net.settle()
    assert world.desk.rejections(sealed.filed.digest, OWNER)["de-2"] == code
    assert phases(world) == ["DISPUTED", "REJECTED", "DISPUTED"]
    assert not list(world.desk.inbox("de-2", OWNER).glob("part.*"))
    again = file(world, take=2)
    assert phases(world) == ["AGREED"] * 3
    assert world.desk.receipts(again) == set(REGION)


def test_a_part_sealed_to_another_key_is_rejected(world):
    sealed = world.desk.seal(OWNER, values(world), take=3)
    other = world.desk.sign(_replace(sealed.filed.notice, take=4))  # the box is bound to take 3
    world.desk.deliver(dataclasses.replace(sealed, filed=other))
    world.net.settle()
    assert set(world.desk.rejections(other.digest, OWNER).values()) == {"SEAL_BROKEN"}


def test_a_replayed_part_is_rejected(world):
    sealed = file(world)
    again = world.desk.sign(_replace(sealed.filed.notice, take=2))
    world.desk.put_notice(OWNER, again)
    world.net.settle()
    assert set(world.desk.rejections(again.digest, OWNER).values()) == {"PART_REPLAYED"}


def test_another_owners_part_is_rejected(world):
    other = file(world, "de-sued")
    parts = other.filed.notice.parts
    copied = world.desk.seal(OWNER, values(world))
    stolen = world.desk.sign(_replace(copied.filed.notice, parts=parts))
    for name in REGION:
        world.desk.put(name, OWNER, f"part.{parts[REGION.index(name)].sha256}", other.parts[name])
    world.desk.put_notice(OWNER, stolen)
    world.net.settle()
    assert set(world.desk.rejections(stolen.digest, OWNER).values()) == {"PART_FOREIGN"}


def test_an_owner_that_sends_inconsistent_components_is_caught_and_named(world):
    def alter(operator, part):
        if operator != "de-2":
            return part
        changed = part.second.expand(part.lanes).copy()
        changed[0] += 1
        return dataclasses.replace(part, second=Component(explicit=changed))

    sealed = file(world, alter=alter)
    notice = next(s.notice for s in world.desk.outbox("de-1", OWNER, "rejected") if s.notice.operator == "de-2")
    assert (notice.code, notice.pair) == ("COMMITMENT_MISMATCH", ["de-2", OWNER])
    assert phases(world) == ["DISPUTED", "REJECTED", "DISPUTED"]
    assert state(world, "de-1").blamed == ("de-2", OWNER)
    assert not world.desk.receipts(sealed)


def test_an_owner_that_signs_two_notices_for_one_take_is_disputed(world):
    one, two = (world.desk.seal(OWNER, values(world, seed)) for seed in (1, 2))
    world.net.cut |= {frozenset(pair) for pair in (("de-1", "de-2"), ("de-1", "de-3"), ("de-2", "de-3"))}
    world.net.cut |= {frozenset((name, group)) for name in REGION for group in ("nl-1", "ch-1", "sg-1")}
    world.desk.deliver(one, operators=["de-1"])
    world.desk.deliver(two, operators=["de-2", "de-3"])
    world.net.settle()
    assert phases(world) == ["RECEIVED"] * 3
    world.net.cut.clear()
    for pair in (("de-1", "de-2"), ("de-1", "de-3"), ("de-2", "de-3")):
        world.net.connect(*pair)
    world.net.run(3)
    assert phases(world)[0] == "DISPUTED"
    assert state(world, "de-1").blamed == (OWNER,)
    assert "AGREED" not in phases(world)


def test_the_same_take_with_other_content_is_a_duplicate(world):
    file(world)
    other = file(world)
    assert codes(world, other) == {"FILING_DUPLICATE"}
    assert phases(world) == ["AGREED"] * 3


def test_a_newer_take_replaces_the_older_one_and_its_parts_are_erased(world):
    file(world)
    old = {path.name for path in world.desk.inbox("de-1", OWNER).glob("part.*")}
    newer = file(world, take=2)
    assert state(world).take == 2
    assert world.desk.receipts(newer) == set(REGION)
    assert not old & {path.name for path in world.desk.inbox("de-1", OWNER).glob("part.*")}


def test_an_older_take_after_a_newer_one_is_refused(world):
    file(world, take=2)
    assert codes(world, file(world, take=1)) == {"FILING_SUPERSEDED"}
    assert state(world).take == 2


def test_a_withdrawal_erases_what_was_filed(world):
    file(world)
    notice = Withdrawal(
        plan=world.desk.plan.digest, owner=OWNER, created_at=utc_text(world.net.now), reason="not any more"
    )
    world.desk.put_notice(OWNER, sign_notice(notice, world.net.made.approver(OWNER)))
    world.net.settle()
    assert phases(world) == ["WITHDRAWN"] * 3
    assert not list(world.desk.inbox("de-1", OWNER).glob("part.*"))


def test_a_withdrawal_by_nobody_who_may_is_refused(world):
    file(world)
    notice = Withdrawal(plan=world.desk.plan.digest, owner=OWNER, created_at=utc_text(world.net.now), reason="x")
    signed = sign_notice(notice, world.net.made.keys[OWNER])
    world.desk.put_notice(OWNER, signed)
    world.net.settle()
    assert set(world.desk.rejections(signed.digest, OWNER).values()) == {"SIGNATURE_INVALID"}
    assert phases(world) == ["AGREED"] * 3


def test_what_nobody_closes_expires_and_its_key_is_destroyed(world):
    file(world)
    world.net.now += timedelta(days=8)
    world.net.run(1)
    assert phases(world) == ["EXPIRED"] * 3
    assert not list(world.desk.inbox("de-1", OWNER).glob("part.*"))
    assert not list((world.net.configs["de-1"].state / "periods").iterdir())
    assert codes(world, file(world, take=2)) == {"PERIOD_CLOSED"}


def test_a_calendar_row_opens_when_its_moment_comes_and_not_before(tmp_path):
    made = make_federation(tmp_path, SMALL)
    plan = make_plan(made.federation, min_owners=2)
    net = Net(tmp_path, made)
    rows = [_replace(row, opens_at=utc_text(net.now + timedelta(seconds=30))) for row in make_calendar(now=net.now)]
    desk = Desk(made, plan, {name: config.spool for name, config in net.configs.items()}, lambda: net.now)
    world = World(net, desk, make_release(made, plan, calendar=rows, now=net.now))
    world.post(world.release)
    net.run(2)
    assert not desk.keys(OWNER, PERIOD)
    net.now += timedelta(seconds=30)
    net.run(1)
    assert set(desk.keys(OWNER, PERIOD)) == set(REGION)
    net.close()


def test_a_release_that_comes_late_shifts_what_is_due(tmp_path):
    made = make_federation(tmp_path, SMALL)
    plan = make_plan(made.federation, min_owners=2)
    net = Net(tmp_path, made)
    opened = net.now - timedelta(days=30)
    desk = Desk(made, plan, {name: config.spool for name, config in net.configs.items()}, lambda: net.now)
    world = World(net, desk, make_release(made, plan, calendar=make_calendar(now=opened), now=net.now))
    world.post(world.release)
    net.run(1)
    row = net.operators["de-1"].periods.find(plan.digest, PERIOD, 1)
    assert utc_text(net.now + timedelta(minutes=50)) < row.due_at < utc_text(net.now + timedelta(minutes=70))
    net.close()


def test_a_restarted_operator_keeps_its_filings_and_answers_again(world):
    sealed = world.desk.seal(OWNER, values(world))
    world.desk.deliver(sealed, operators=REGION[:2])
    world.net.settle()
    world.net.kill("de-1")
    world.net.start("de-1")
    world.desk.deliver(sealed, operators=REGION[2:])
    world.net.run(5)
    assert phases(world) == ["AGREED"] * 3
    assert world.desk.receipts(sealed) == set(REGION)


def test_a_lost_outbox_is_written_again_at_the_start(world):
    sealed = file(world)
    for path in (world.net.configs["de-1"].spool / "outbox").rglob("*.dsse"):
        path.unlink()
    world.net.kill("de-1")
    world.net.start("de-1")
    assert {s.expect(PeriodKeyNotice).operator for s in world.desk.outbox("de-1", OWNER, "period_key")} == set(REGION)
    assert "de-1" in {s.notice.operator for s in world.desk.outbox("de-1", OWNER, "receipt")}
    assert world.desk.receipts(sealed) == set(REGION)


def test_nothing_of_the_figures_lies_in_state_outbox_or_log(world):
    canary = 0x5EC2E7C0FFEE42
    sealed = world.desk.seal(OWNER, np.full(world.desk.lanes, canary))
    world.desk.deliver(sealed)
    world.net.settle()
    needle = canary.to_bytes(8, "little")
    for name in REGION:
        for folder in (world.net.configs[name].state, world.net.configs[name].spool / "outbox"):
            for path in folder.rglob("*"):
                assert not path.is_file() or needle not in path.read_bytes()
        assert str(canary) not in str(world.net.logs[name].lines)


def test_an_approval_that_its_approvers_did_not_sign_is_refused(world):
    notice = make_approval(world.net.made, world.desk.plan, OWNER, days=30).notice
    signed = sign_notice(notice, world.net.made.keys[OWNER])
    world.desk.put_notice(OWNER, signed)
    world.net.settle()
    assert set(world.desk.rejections(signed.digest, OWNER).values()) == {"SIGNATURE_INVALID"}
