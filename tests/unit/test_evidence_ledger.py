"""Transfer logs: the chain, extracts that show one run only, and what a forger would have to do."""

from __future__ import annotations

import msgspec
import pytest

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey, Purpose
from mpc_ops.envelope.schema import encode
from mpc_ops.errors import EvidenceError
from mpc_ops.evidence.ledger import (
    LEDGER_TYPE,
    build_extract,
    chain,
    entry_digest,
    flows_of,
    genesis,
    heads,
    new_entry,
    sign_extract,
    verify_extract,
)
from mpc_ops.federation.model import PayloadClass
from tests.support.federation import SMALL, MadeFederation, make_federation

AT = "2026-04-07T02:14:00Z"
RUN, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> MadeFederation:
    return make_federation(tmp_path_factory.mktemp("federation"), SMALL)


def entries(runs, **more):
    return [new_entry(seq=seq, at=AT, event="state", ref="COMMITTED", run=run, **more) for seq, run in enumerate(runs)]


def extract_of(log, *, start=0, run=RUN, refs=()):
    head = genesis("de-1")
    for entry in log[:start]:
        head = chain(head, entry)
    return build_extract("de-1", run, log[start:], head, refs=refs, created_at=AT)


def test_an_extract_shows_its_run_and_hides_the_others(made):
    log = entries([OTHER, RUN, OTHER, None, RUN, OTHER])
    extract = extract_of(log, start=1)
    assert [entry.seq for entry in extract.entries] == [1, 4]
    assert OTHER.encode() not in encode(extract)
    assert verify_extract(sign_extract(extract, made.keys["de-1"]), made.federation) == extract
    assert heads(extract)[-1] == extract.head == chain(chain_of(log[:5]), log[5])


def chain_of(log):
    head = genesis("de-1")
    for entry in log:
        head = chain(head, entry)
    return head


def test_a_part_that_came_before_its_run_is_shown_by_its_filing():
    filing = "c" * 64
    part = new_entry(
        seq=0, at=AT, event="frame_received", sender="de-nord", receiver="de-1", digest="d" * 64, bytes=9,
        payload_class=PayloadClass.AGGREGATE_SHARE, ref=filing,
    )  # fmt: skip
    log = [part, new_entry(seq=1, at=AT, event="state", run=RUN, ref="COMMITTED")]
    assert extract_of(log, refs=[filing]).entries == log
    assert extract_of(log).entries == log[1:]


def test_hidden_digests_are_no_test_for_guesses():
    one, two = entries([OTHER]), entries([OTHER])
    assert one[0] != two[0]
    assert entry_digest(one[0]) != entry_digest(two[0])
    assert len({entry.salt for entry in entries([OTHER] * 50)}) == 50


@pytest.mark.parametrize("what", ["drop", "change", "swap", "hidden", "head"])
def test_a_changed_log_does_not_lead_to_its_head(made, what):
    extract = extract_of(entries([RUN, OTHER, RUN, RUN]))
    items = list(extract.items)
    if what == "drop":
        del items[2]
    elif what == "change":
        items[2] = msgspec.structs.replace(items[2], ref="FAILED")
    elif what == "swap":
        items[2], items[3] = items[3], items[2]
    elif what == "hidden":
        items[1] = "0" * 64
    head = "1" * 64 if what == "head" else extract.head
    forged = msgspec.structs.replace(extract, items=items, head=head)
    with pytest.raises(EvidenceError) as error:
        verify_extract(sign_extract(forged, made.keys["de-1"]), made.federation)
    assert error.value.code in {"LEDGER_CHAIN", "LEDGER_INVALID"}


def test_a_log_that_begins_elsewhere_than_at_its_genesis(made):
    extract = msgspec.structs.replace(extract_of(entries([RUN])), start_head="1" * 64)
    extract = msgspec.structs.replace(extract, head=heads(extract)[-1])
    with pytest.raises(EvidenceError, match=r"LEDGER_CHAIN.*genesis"):
        verify_extract(sign_extract(extract, made.keys["de-1"]), made.federation)


def test_only_the_party_itself_signs_its_log(made):
    extract = extract_of(entries([RUN]))
    for key in (made.keys["de-2"], IdentityKey.generate()):
        with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
            verify_extract(sign_extract(extract, key), made.federation)
    for_another_purpose = Envelope.sign(LEDGER_TYPE, encode(extract), made.keys["de-1"], Purpose.NOTICE)
    with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
        verify_extract(for_another_purpose, made.federation)


def test_an_entry_of_another_run_is_not_shown_as_own(made):
    extract = extract_of(entries([RUN, OTHER]))
    shown = msgspec.structs.replace(extract, items=[extract.items[0], entries([RUN, OTHER])[1]])
    shown = msgspec.structs.replace(shown, head="1" * 64)
    with pytest.raises(EvidenceError, match="another run"):
        heads(shown)
    assert made


STAGE = {
    "digest": "d" * 64, "sender": "de-1", "receiver": "de-2", "payload_class": PayloadClass.RECORD_SHARE, "frames": 3,
    "bytes": 9, "cluster": "de", "run": RUN,
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"event": "state", "digest": "d" * 64}, "frames have a digest"),
        ({"event": "frame_sent"}, "frames have a digest"),
        ({"event": "frame_sent", "digest": "d" * 64}, "a sender, a receiver and a class"),
        ({"event": "frames_sent"}, "frames have a digest"),
        ({"event": "frames_sent", **STAGE, "frames": 0}, "are counted"),
        ({"event": "frames_received", **STAGE, "cluster": None}, "belong to a session"),
        ({"event": "frame_sent", **STAGE}, "are counted"),
        ({"event": "notice_sent"}, "named by its digest"),
    ],
)
def test_members_must_fit_the_event(fields, words):
    with pytest.raises(EvidenceError, match=words):
        new_entry(seq=0, at=AT, **fields)


def test_gaps_and_empty_extracts_are_refused():
    log = entries([RUN, RUN, RUN])
    with pytest.raises(EvidenceError, match="not consecutive"):
        build_extract("de-1", RUN, [log[0], log[2]], genesis("de-1"), created_at=AT)
    with pytest.raises(EvidenceError, match="no entry of the run"):
        build_extract("de-1", OTHER, log, genesis("de-1"), created_at=AT)
    with pytest.raises(EvidenceError, match="no entry of the run"):
        build_extract("de-1", RUN, [], genesis("de-1"), created_at=AT)


def test_frames_of_a_stage_are_one_line_and_many_messages():
    line = new_entry(seq=0, at=AT, event="frames_sent", **STAGE)
    assert line.messages == 3
    (flow,) = flows_of([line])
    assert (flow.messages, flow.bytes) == (3, 9)


def test_flows_count_what_travelled_by_itself():
    def frame(seq, size):
        return new_entry(
            seq=seq, at=AT, event="frame_sent", sender="de-1", receiver="nl-1", digest=sha256_hex(bytes([seq])),
            payload_class=PayloadClass.AGGREGATE_SHARE, bytes=size, run=RUN,
        )  # fmt: skip

    inside = new_entry(seq=2, at=AT, event="notice_sent", sender="de-1", receiver="nl-1", ref="e" * 64)
    (flow,) = flows_of([frame(0, 100), frame(1, 40), inside])
    assert (flow.sender, flow.receiver, flow.payload_class) == ("de-1", "nl-1", "aggregate_share")
    assert (flow.messages, flow.bytes) == (2, 140)
