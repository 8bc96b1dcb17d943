"""Which notices an operator holds, swaps, writes for owners and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.errors import ComityError
from mpc_ops.notices.model import Receipt, State
from mpc_ops.notices.signed import sign_notice, utc_text
from mpc_ops.server.notices import Source
from mpc_ops.server.routing import concerns, dials, peer_table, peers_of
from mpc_ops.server.sync import FilingClaim, Have, Want, decode_sync, encode_sync
from mpc_ops.transport.wire import Kind
from tests.support.federation import DEMO, RECIPIENT, make_federation, make_plan, make_release
from tests.support.operators import PERIOD, make_world

TWO = {"DE": ["de-nord", "de-sued"], "CN": ["cn-east"]}


@pytest.fixture
def world(tmp_path):
    made = make_federation(tmp_path, TWO)
    found = make_world(tmp_path, made, make_plan(made.federation, min_owners=2))
    yield found
    found.net.close()


def test_links_are_those_of_the_channel_table_and_exactly_one_end_dials(tmp_path):
    made = make_federation(tmp_path, DEMO, endpoints={n: {"link": "127.0.0.1:9"} for n in _operators()})
    federation = made.federation
    assert peers_of(federation, "de-1") == ["ch-1", "de-2", "de-3", "nl-1", "sg-1"]
    assert len(peers_of(federation, "nl-1")) == 14
    for one in federation.terms.operators:
        for other in peers_of(federation, one):
            assert one in peers_of(federation, other)
            assert dials(federation, one, other) != dials(federation, other, one)
    assert dials(federation, "cn-3", "nl-1")
    assert {name for name, peer in peer_table(federation, "de-2").items() if peer.dial} == {
        "de-3",
        "nl-1",
        "ch-1",
        "sg-1",
    }


def _operators():
    return [f"{code.lower()}-{n}" for code in DEMO for n in (1, 2, 3)] + ["nl-1", "ch-1", "sg-1"]


def test_a_peer_without_an_address_is_named(tmp_path):
    made = make_federation(tmp_path, TWO)
    with pytest.raises(ComityError, match="DIRECTORY_INCOMPLETE"):
        peer_table(made.federation, "de-1")


def test_notices_reach_who_needs_them_and_nobody_else(world):
    filed = world.desk.deliver(world.desk.seal("cn-east", list(range(world.desk.lanes))))
    world.net.run(1)
    net = world.net.operators
    assert all(operator.book.get(filed.filed.digest) for operator in net.values())
    held = {kind: {n for n, o in net.items() if o.book.find(kind, author="cn-1")} for kind in ("period_key", "receipt")}
    assert held["period_key"] == {"cn-1", "cn-2", "cn-3"}
    assert held["receipt"] == {"cn-1", "cn-2", "cn-3", "nl-1", "ch-1", "sg-1"}
    assert all(o.book.find("release") and o.book.find("approval") for o in net.values())


def test_owners_find_in_the_outbox_what_concerns_them_and_only_that(world):
    world.desk.deliver(world.desk.seal("de-nord", list(range(world.desk.lanes))))
    world.net.run(1)
    root: Path = world.net.configs["de-1"].spool / "outbox"
    kinds = {owner: {path.name for path in (root / owner).iterdir()} for owner in ("de-nord", "de-sued")}
    assert kinds["de-nord"] == {"release", "reference", "period_key", "filed", "receipt"}
    assert kinds["de-sued"] == {"release", "reference", "period_key"}
    assert not (root / "cn-east").exists()
    assert all(not name.startswith(".") for path in root.rglob("*") for name in [path.name])


def test_a_notice_travels_once_to_each_operator(world):
    count = 0

    def tamper(_sender, _receiver, kind, data):
        nonlocal count
        count += kind == Kind.NOTICE
        return data

    world.net.tamper = tamper
    other = make_plan(world.net.made.federation, min_owners=2, report="second_report")
    world.post(make_release(world.net.made, other, now=world.net.now))
    world.net.settle()
    # nine operators, three of which got it from the recipient; each of six region operators opens three months
    releases, keys = 6, 6 * 3 * 2
    assert count <= releases + keys + 36
    assert all(len(o.book.find("release")) == 2 for o in world.net.operators.values())


def test_a_peer_that_does_not_send_what_it_announced_is_replaced_by_another(world):
    other = make_release(
        world.net.made, make_plan(world.net.made.federation, min_owners=2, report="late_report"), now=world.net.now
    )
    world.net.tamper = lambda sender, receiver, kind, data: (
        None if (sender, receiver, kind) == ("nl-1", "de-1", Kind.NOTICE) else data
    )
    world.post(other)
    world.net.run(8)
    assert world.net.operators["de-1"].book.get(other.digest)


def test_what_was_missed_while_a_link_was_down_is_swapped_when_it_comes_up(world):
    for peer in ("cn-2", "cn-3", "nl-1", "ch-1", "sg-1"):
        world.net.cut.add(frozenset(("cn-1", peer)))
    other = make_release(
        world.net.made, make_plan(world.net.made.federation, min_owners=2, report="missed_report"), now=world.net.now
    )
    world.post(other)
    assert not world.net.operators["cn-1"].book.get(other.digest)
    world.net.cut.clear()
    world.net.connect("cn-1", "nl-1")
    world.net.settle()
    assert world.net.operators["cn-1"].book.get(other.digest)


def test_holdings_that_differ_on_an_open_link_are_found_and_mended(world):
    world.net.tamper = lambda _s, receiver, kind, data: None if receiver == "cn-1" and kind == Kind.SYNC else data
    other = make_release(
        world.net.made, make_plan(world.net.made.federation, min_owners=2, report="lost_report"), now=world.net.now
    )
    world.post(other)
    assert not world.net.operators["cn-1"].book.get(other.digest)
    world.net.tamper = None
    world.net.run(20, step=4)
    assert world.net.operators["cn-1"].book.get(other.digest)


def test_a_forged_notice_from_a_peer_is_refused_and_logged_and_the_true_one_still_comes(world):
    true = State(
        run="1" * 64,
        cluster="de",
        operator="de-2",
        attempt=1,
        state="FAILED",
        code="TEST",
        created_at=utc_text(world.net.now),
    )
    forged = sign_notice(true, IdentityKey.generate())
    target = world.net.operators["nl-1"]
    target.on_message("de-1", Kind.NOTICE, forged.envelope.to_bytes())
    assert target.book.get(forged.digest) is None
    assert world.net.events("nl-1", "notice_refused")[0]["code"] == "SIGNATURE_INVALID"
    signed = sign_notice(true, world.net.made.keys["de-2"])
    target.on_message("de-3", Kind.NOTICE, signed.envelope.to_bytes())
    assert target.book.get(signed.digest) is not None


def test_a_notice_that_is_not_for_this_operator_is_refused(world):
    receipt = Receipt(filing="2" * 64, operator="cn-1", received_at=utc_text(world.net.now))
    signed = sign_notice(receipt, world.net.made.keys["cn-1"])
    target = world.net.operators["de-1"]
    assert not concerns(world.net.made.federation, "de-1", receipt)
    target.on_message("nl-1", Kind.NOTICE, signed.envelope.to_bytes())
    assert target.book.get(signed.digest) is None
    assert world.net.events("de-1", "notice_refused")[0]["code"] == "NOTICE_UNWANTED"


def test_an_operator_does_not_send_what_a_peer_may_not_hold(world):
    key = world.net.operators["cn-1"].book.find("period_key", author="cn-1")[0]
    sent = []
    world.net.tamper = lambda s, r, kind, data: sent.append((s, r, kind)) or data
    want = encode_sync(Want(digests=(bytes.fromhex(key.digest),)))
    world.net.operators["cn-1"].on_message("nl-1", Kind.SYNC, want)
    world.net.settle()
    assert ("cn-1", "nl-1", Kind.NOTICE) not in sent


def test_more_notices_than_an_author_may_send_are_refused(tmp_path):
    made = make_federation(tmp_path, TWO)
    world = make_world(tmp_path, made, make_plan(made.federation, min_owners=2), max_notices_per_author=3)
    target = world.net.operators["nl-1"]
    for number in range(4):
        receipt = Receipt(filing=f"{number}" * 64, operator="cn-2", received_at=utc_text(world.net.now))
        signed = sign_notice(receipt, made.keys["cn-2"])
        target.on_message("cn-2", Kind.NOTICE, signed.envelope.to_bytes())
    assert {e["code"] for e in world.net.events("nl-1", "notice_refused")} == {"NOTICE_LIMIT"}
    world.net.close()


def test_a_release_whose_plan_does_not_hold_is_refused(world):
    plan = make_plan(world.net.made.federation, min_owners=2, max_owners=20_000)
    release = make_release(world.net.made, plan, now=world.net.now)
    operator = world.net.operators["nl-1"]
    with pytest.raises(ComityError) as caught, operator.context.unit():
        operator.book.accept(release.envelope.to_bytes(), Source("api", RECIPIENT))
    assert caught.value.code == "OVERFLOW_POSSIBLE"


def test_the_recipients_channel_takes_only_its_own_kinds(world):
    key = world.net.operators["cn-1"].book.find("period_key", author="cn-1")[0]
    operator = world.net.operators["nl-1"]
    with pytest.raises(ComityError, match="NOTICE_UNWANTED"), operator.context.unit():
        operator.book.accept(key.envelope.to_bytes(), Source("api", RECIPIENT))


@pytest.mark.parametrize("data", [b"", b"\x80", encode_sync(Have(digests=(bytes(32),)))[:-1], b"\x00" * 100])
def test_messages_that_are_none_are_refused(data):
    with pytest.raises(ComityError, match="MESSAGE_INVALID"):
        decode_sync(data, "de-1")


def test_messages_survive_their_own_form():
    claim = FilingClaim(plan="0" * 64, period=PERIOD, owner="de-nord", edition=1, take=2, notice="1" * 64)
    assert decode_sync(encode_sync(claim), "de-1") == claim
