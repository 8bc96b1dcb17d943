"""Receiving against HTTPS servers with real certificates: what each fault looks like, and that nothing is published then."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from local_stores import closing
from local_stores.closing.desk import open_desk
from local_stores.config import Site
from local_stores.receive.runs import save_manifest
from mpc_ops.errors import (
    Abort,
    ConfigError,
    EvidenceError,
    NotYet,
    PeerProtocolError,
    PeerUnavailable,
    StateError,
)  # fmt: skip
from mpc_ops.evidence.verify import verify_pack
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import Erased, Manifest, State
from mpc_ops.notices.signed import run_id_of, sign_notice, utc_text
from tests.support.closing import make_recipient_site
from tests.support.evidence import NOW, MadeRun, make_run
from tests.support.federation import RECIPIENT, SMALL, make_federation
from tests.support.group_api import (
    HANG,
    GroupApi,
    Result,
    bundle_of,
    group_api,
    result_of,
    run_answer,
    use_result,
)  # fmt: skip


class World:
    """A made run with a real result, served by three group operators, and the recipient's site."""

    def __init__(self, root: Path, api: GroupApi, made, run: MadeRun, result: Result) -> None:
        self.root, self.api, self.made, self.made_run, self.result = root, api, made, run, result
        release = next(notice for notice in run.notices if notice.kind == "release")
        self.site: Site = make_recipient_site(made, root / "site", release, wait_s=0)
        save_manifest(self.site.state, run.manifest, made.folder)
        self.run = {"run_id": run.run}
        open_desk(self.site).log.state(run.run, "CLOSED")
        self.serve()

    def serve(self, *, without: str | None = None) -> None:
        path = f"/v1/runs/{self.made_run.run}"
        self.api.all(path, (200, run_answer(self.made_run)))
        self.api.all(f"{path}/evidence", (200, bundle_of(self.made_run, without=without)))
        self.api.all("/v1/notices/*", (201, {"new": True}))
        for name, part in self.result.sealed.items():
            self.api.answers[name][f"{path}/result"] = (200, part)

    def result_path(self) -> str:
        return f"/v1/runs/{self.made_run.run}/result"

    def upto_verify(self) -> dict:
        return closing.verify(self.site, self.run, closing.fetch(self.site, self.run))

    def published(self) -> bool:
        return (self.root / "site" / "published").exists()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with group_api(make_federation(tmp_path_factory.mktemp("federation"), SMALL)) as found:
        yield found


def make_world(served, root: Path, *, alter=None) -> World:
    api, made = served
    api.clear()
    run = make_run(root, made=made)
    result = result_of(run, alter=alter)
    use_result(run, result)
    return World(root, api, made, run, result)


@pytest.fixture
def world(served, tmp_path) -> World:
    return make_world(served, tmp_path)


def test_three_parts_become_the_exact_values_and_a_pack_that_verifies(world):
    verified = world.upto_verify()
    assert (verified["parts"], verified["lanes"]) == (3, len(world.result.values))
    assert open_desk(world.site).run(world.made_run.run).lanes() == world.result.values
    published = closing.publish(world.site, world.run, verified)
    done = closing.acknowledge(world.site, world.run, published)
    assert done["verified"]
    assert "share deletion not yet attested by 6 of 6 operators" in done["open"]
    assert verify_pack(Path(done["evidence"]), world.made.folder).ok
    assert all(len(world.api.posted(name)) == 1 for name in world.api.answers)
    world.made_run.notices += [
        sign_notice(
            Erased(run=world.made_run.run, operator=name, what=["shares"], created_at=utc_text(NOW)),
            world.made.keys[name],
        )
        for name in world.made.federation.terms.operators
    ]
    world.serve()
    done = closing.collect_closing(world.site, world.run)
    assert (len(done["erased"]), done["countersigned"]) == (6, [RECIPIENT])
    again = closing.collect_closing(world.site, world.run)
    assert again == done


def test_two_parts_and_three_commitments_suffice(world):
    world.api.answers["sg-1"][world.result_path()] = (503, {"code": "PEER_UNAVAILABLE", "what": "restarting"})
    fetched = closing.fetch(world.site, world.run)
    assert (fetched["parts"], fetched["complete"]) == (["ch-1", "nl-1"], False)
    verified = closing.verify(world.site, world.run, fetched)
    assert verified["parts"] == 2
    assert verified["checks_open"] >= 1
    closing.publish(world.site, world.run, verified)
    assert open_desk(world.site).run(world.made_run.run).lanes() == world.result.values


def test_one_part_alone_waits(world):
    for name in ("sg-1", "ch-1"):
        world.api.answers[name][world.result_path()] = (425, {"code": "RESULT_NOT_READY", "what": "not yet"})
    with pytest.raises(NotYet, match="RESULT_INCOMPLETE: result part of ch-1, sg-1 is to come"):
        closing.fetch(world.site, world.run)
    assert not world.published()


def test_two_parts_with_two_commitments_wait(world):
    run = world.made_run
    run.notices = [n for n in run.notices if not (n.kind == "result" and n.notice.operator == "sg-1")]
    world.serve()
    with pytest.raises(NotYet, match=r"EVIDENCE_INCOMPLETE: .*commitment or signed state of sg-1"):
        closing.fetch(world.site, world.run)


@pytest.mark.parametrize("two", [False, True])
def test_an_altered_component_is_caught_and_the_pair_named(served, tmp_path, two):
    def alter(name, part):
        return part[:-1] + bytes([part[-1] ^ 1]) if name == "ch-1" else part

    world = make_world(served, tmp_path, alter=alter)
    if two:
        world.api.answers["sg-1"][world.result_path()] = (503, {})
    fetched = closing.fetch(world.site, world.run)
    with pytest.raises(Abort, match="RESULT_MISMATCH") as error:
        closing.verify(world.site, world.run, fetched)
    assert "ch-1" in error.value.ids["pair"]
    with pytest.raises(ConfigError, match="STATE_MISSING"):
        closing.publish(world.site, world.run, {})
    assert not world.published()


def test_a_flipped_bit_in_a_sealed_part_names_the_operator(world):
    part = world.result.sealed["nl-1"]
    world.api.answers["nl-1"][world.result_path()] = (200, part[:50] + bytes([part[50] ^ 1]) + part[51:])
    fetched = closing.fetch(world.site, world.run)
    with pytest.raises(PeerProtocolError, match="SEAL_BROKEN") as error:
        closing.verify(world.site, world.run, fetched)
    assert error.value.ids["party"] == "nl-1"


def test_an_answer_that_is_too_long_is_cut_off(world):
    world.api.answers["nl-1"][world.result_path()] = (200, b"x" * 1_000_000)
    with pytest.raises(PeerProtocolError, match=r"API_INVALID: .*too long") as error:
        closing.fetch(world.site, world.run)
    assert error.value.ids["party"] == "nl-1"


def test_commitments_that_differ_stop_everything(world):
    run = world.made_run
    for place, signed in enumerate(run.notices):
        if signed.kind == "result" and signed.notice.operator == "sg-1":
            said = [None if c is None else "9" * 64 for c in signed.notice.commitments]
            run.notices[place] = sign_notice(
                msgspec.structs.replace(signed.notice, commitments=said), run.made.keys["sg-1"]
            )
    world.serve()
    with pytest.raises(Abort, match="RESULT_MISMATCH") as error:
        world.upto_verify()
    assert "sg-1" in error.value.ids["pair"]


def test_a_missing_attestation_or_log_is_waited_for_by_name(world):
    world.serve(without="de-2")
    with pytest.raises(NotYet, match=r"EVIDENCE_INCOMPLETE: .*de-2"):
        closing.fetch(world.site, world.run)


@pytest.mark.parametrize("name", ["de-3", "nl-1"])
def test_a_signed_state_that_is_behind_its_statement_is_waited_for_by_name(world, name):
    run = world.made_run
    run.notices = [n for n in run.notices if not (n.kind == "state" and n.notice.operator == name)]
    world.serve()
    with pytest.raises(NotYet, match=rf"EVIDENCE_INCOMPLETE: .*signed state of {name}"):
        closing.fetch(world.site, world.run)


def test_logs_that_contradict_each_other_stop_the_publication(world):
    def wanted(entry):
        return entry.payload_class == PayloadClass.AGGREGATE_SHARE and entry.sender == "de-1"

    world.made_run.books.drop("ch-1", wanted)
    world.made_run.sign_books()
    world.serve()
    fetched = closing.fetch(world.site, world.run)
    with pytest.raises(EvidenceError, match=r"EVIDENCE_CONTRADICTS: .*de-1 to ch-1"):
        closing.verify(world.site, world.run, fetched)
    with pytest.raises(ConfigError, match="STATE_MISSING"):
        closing.publish(world.site, world.run, {})


def test_a_result_part_that_the_sender_never_logged_stops_the_publication(world):
    world.made_run.books.drop("nl-1", lambda entry: entry.payload_class == PayloadClass.RELEASED_AGGREGATE)
    world.made_run.sign_books()
    world.serve()
    with pytest.raises(EvidenceError, match="received, not logged as sent"):
        world.upto_verify()


@pytest.mark.parametrize("state", ["FAILED", "REFUSED"])
def test_a_run_that_ended_names_party_and_code_and_leaves_evidence(world, state):
    run = world.made_run
    run.notices = [n for n in run.notices if n.kind not in {"result", "statement", "state"}]
    run.attestations = {}
    ended = State(
        run=run.run, cluster="de", operator="de-2", attempt=1, state=state, code="CROSS_MISMATCH",
        pair=["de-2", "de-3"], created_at=utc_text(NOW),
    )  # fmt: skip
    run.notices.append(sign_notice(ended, run.made.keys["de-2"]))
    world.serve()
    path = f"/v1/runs/{run.run}"
    world.api.all(path, (200, run_answer(run, phase="FAILED", state="FAILED(CROSS_MISMATCH)", code="CROSS_MISMATCH")))
    with pytest.raises(StateError, match=r"CROSS_MISMATCH: .*de-2") as error:
        closing.result_ready(world.site, world.run)
    assert error.value.ids["pair"] == "de-2,de-3"
    (pack,) = (world.root / "site" / "evidence" / "group_performance" / "ended").iterdir()
    assert verify_pack(pack).outcome == state


def test_a_failure_that_nobody_signed_is_not_believed(world):
    path = f"/v1/runs/{world.made_run.run}"
    world.api.answers["nl-1"][path] = (200, run_answer(world.made_run, phase="FAILED", state="FAILED(X)", code="XXX"))
    assert closing.result_ready(world.site, world.run)["committed_at"] == ["ch-1", "sg-1"]


def test_a_stalled_run_says_for_whom_it_waits(world):
    stall = {"party": "cn-1", "code": "PEER_TIMEOUT", "since_ms": 1_775_527_200_000}
    path = f"/v1/runs/{world.made_run.run}"
    world.api.all(path, (200, run_answer(world.made_run, phase="REGION", state="REGION 0/1", stall=stall)))
    with pytest.raises(NotYet, match=r"STALLED: .*cn-1 \(PEER_TIMEOUT\) since 2026-04-07T02:00:00Z"):
        closing.result_ready(world.site, world.run)
    world.api.all(path, (200, run_answer(world.made_run, phase="REGION", state="REGION 0/1")))
    assert closing.result_ready(world.site, world.run) is None


def test_a_committed_run_waits_for_every_operators_statement(world):
    path = f"/v1/runs/{world.made_run.run}"
    world.api.all(path, (200, run_answer(world.made_run, statements=["de-1", "de-2", "ch-1", "nl-1", "sg-1"])))
    with pytest.raises(NotYet, match=r"EVIDENCE_INCOMPLETE: .*statement of de-3"):
        closing.result_ready(world.site, world.run)


def test_nobody_answers(world):
    world.api.all(f"/v1/runs/{world.made_run.run}", (503, {"code": "PEER_TIMEOUT", "what": "busy"}))
    with pytest.raises((NotYet, PeerUnavailable), match="PEER_TIMEOUT"):
        closing.result_ready(world.site, world.run)


@pytest.mark.parametrize("body", [b"[]", b"nonsense", b'{"run": 3}'])
def test_an_answer_of_another_form_names_the_operator(world, body):
    world.api.answers["sg-1"][f"/v1/runs/{world.made_run.run}"] = (200, body)
    with pytest.raises(PeerProtocolError, match="API_INVALID") as error:
        closing.result_ready(world.site, world.run)
    assert error.value.ids["party"] == "sg-1"


def test_an_error_text_is_cleaned_and_kept_short(world):
    evil = {"code": "x y", "what": "\x1b[31m" + "a" * 5000, "ids": {"run": "z" * 500}}
    world.api.all(f"/v1/runs/{world.made_run.run}", (422, evil))
    with pytest.raises(Exception, match="INVALID") as error:
        closing.result_ready(world.site, world.run)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 800


def test_a_server_with_another_partys_certificate_is_refused(tmp_path):
    with group_api(make_federation(tmp_path, SMALL), leaf_of={"nl-1": "de-1"}) as served:
        world = make_world(served, tmp_path)
        with pytest.raises(PeerProtocolError, match="CERTIFICATE_UNKNOWN") as error:
            closing.result_ready(world.site, world.run)
        assert error.value.ids["party"] == "nl-1"
        assert not [one for one in world.api.asked if one[0] == "nl-1"]


def test_a_server_that_hangs_is_transient(world):
    home = world.root / "site" / "recipient" / "recipient.toml"
    home.write_text(home.read_text() + "timeout_s = 1\n")
    world.api.all(f"/v1/runs/{world.made_run.run}", HANG)
    with pytest.raises(PeerUnavailable):
        closing.result_ready(world.site, world.run)


def test_a_site_without_recipient_and_an_unknown_run(world):
    with pytest.raises(ConfigError, match="RUN_UNKNOWN"):
        closing.fetch(world.site, {"run_id": "f" * 64})
    with pytest.raises(ConfigError, match="NOT_RECIPIENT"):
        closing.fetch(dataclasses.replace(world.site, group_home=None), world.run)


def test_evidence_of_another_run_is_not_taken(world):
    other = msgspec.structs.replace(world.made_run.manifest.expect(Manifest), give_up_at="2026-05-05T00:00:00Z")
    signed = sign_notice(other, world.made.keys[RECIPIENT])
    assert run_id_of(signed) != world.made_run.run
    data = bundle_of(world.made_run).replace(world.made_run.run.encode(), run_id_of(signed).encode())
    world.api.all(f"/v1/runs/{world.made_run.run}/evidence", (200, data))
    with pytest.raises((NotYet, EvidenceError)):
        closing.fetch(world.site, world.run)
    assert not world.published()
