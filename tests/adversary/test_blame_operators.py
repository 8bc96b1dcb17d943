"""A failed proof among running operators: signed statements, and one verdict at everybody. No honest operator is named alone."""

from __future__ import annotations

import random

import msgspec
import pytest

from mpc_ops.engine import attempt as engine_attempt
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.errors import ComityError, ConfigError, EvidenceError, PeerProtocolError, StateError
from mpc_ops.evidence.bundle import read_bundle
from mpc_ops.evidence.checks import assess
from mpc_ops.evidence.disputes import proof_of, settle
from mpc_ops.evidence.material import gather
from mpc_ops.notices.model import DisputeNotice
from mpc_ops.notices.signed import parse_notice, run_id_of, sign_notice, verify_notice
from mpc_ops.protocol.core.session import ActiveSession
from mpc_ops.server import disputes as server_disputes
from mpc_ops.server import stage_region
from mpc_ops.server.notices import Source
from mpc_ops.server.stage_region import RegionStages
from tests.support.active import corrupt_session, flip, small_proofs
from tests.support.blame import LyingSession
from tests.support.federation import DEMO, make_federation, make_plan
from tests.support.operators import make_world
from tests.support.rounds import rounds_program

REGION = ("de-1", "de-2", "de-3")
GROUP = ("ch-1", "nl-1", "sg-1")
CANARY = 0x5EC2E7
replace = msgspec.structs.replace


@pytest.fixture(autouse=True)
def _rounds(monkeypatch):
    small_proofs(monkeypatch)
    monkeypatch.setattr(
        stage_region,
        "region_stage_of",
        lambda plan, inputs, attempt: lambda flow, keys: rounds_program(inputs, flow, keys, attempt),
    )
    monkeypatch.setattr(RegionStages, "frame_class", lambda self, found: found.report.plan.gate.shared_class)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("blame"), {"DE": DEMO["DE"][:2]})


@pytest.fixture
def world(tmp_path):
    made = make_federation(tmp_path, {"DE": DEMO["DE"][:2]})
    found = make_world(tmp_path, made, make_plan(made.federation, min_owners=2))
    yield found
    found.net.close()


def plant(monkeypatch, liar, kind):
    """Let one operator of the region run another kind of session."""

    def made_by(terms, keys):
        return (kind if (terms.cluster, terms.party) == ("de", liar) else ActiveSession)(terms, keys)

    monkeypatch.setattr(engine_attempt, "ActiveSession", made_by)


def verifier_lies(step="and0/exchange", direction="prev"):
    rng = random.Random(4)
    return corrupt_session(lambda at, to, body: flip(bytes(body), rng) if (at, to) == (step, direction) else body)


def fail(world):
    """Run until the session has failed and everything is said; return the run."""
    filings = [world.desk.deliver(world.desk.seal(owner, [CANARY] * world.desk.lanes)) for owner in world.desk.owners()]
    world.net.settle()
    manifest = world.desk.manifest(filings)
    world.post(manifest)
    world.net.run(4)
    run = run_id_of(manifest)
    states = world.states(run)
    assert {states[f"{name}@de"] for name in REGION if f"{name}@de" in states} == {"FAILED(PROOF_REJECTED)"}
    return run


def verdicts(world, name):
    return [(one["named"], one["why"]) for one in world.net.events(name, "verdict")]


def statements(world, name, run):
    return world.net.operators[name].book.find("dispute", run=run)


def by_proof(world, name, run):
    out = {}
    for signed in statements(world, name, run):
        out.setdefault(proof_of(signed.expect(DisputeNotice)), []).append(signed)
    return out


@pytest.mark.parametrize("liar", range(3))
def test_who_cheated_is_named_at_every_operator_and_by_anybody_offline(world, monkeypatch, liar):
    plant(monkeypatch, liar, LyingSession)
    run = fail(world)
    for name in (*REGION, *GROUP):
        found = verdicts(world, name)
        assert found
        assert {named for named, _ in found} == {REGION[liar]}
        lines = [e for e in world.net.operators[name].books.entries(run) if e.ref == "PROOF_VERDICT"]
        assert len(lines) == len(found)
        assert all(line.decision.startswith(f"{REGION[liar]}: ") for line in lines)
    # Anybody with the federation's keys repeats it from the run's evidence alone, as the recipient gets it.
    bundle = read_bundle(world.net.operators["ch-1"].accounts.bundle(run))
    evidence = [parse_notice(text.encode()) for text in bundle.notices]
    (manifest,) = [one for one in evidence if one.kind == "manifest"]
    gathered = gather(
        world.net.made.federation, manifest, evidence,
        attestations=[Envelope.parse(text.encode()) for text in bundle.attestations],
        ledgers=[Envelope.parse(text.encode(), limit_bytes=1 << 26) for text in bundle.ledgers],
    )  # fmt: skip
    assert len(gathered.notices["dispute"]) == sum(one.kind == "dispute" for one in evidence)
    assert not assess(gathered).reconciliation.failures
    proofs = by_proof(world, "ch-1", run)
    assert proofs
    for proof in proofs:
        copies = [one for one in evidence if one.kind == "dispute" and proof_of(one.notice) == proof]
        assert len(copies) == 3
        settled = settle(copies, world.net.made.federation)
        assert (settled.proof, settled.parties) == (proof, (REGION[liar],))


@pytest.mark.parametrize("liar", range(3))
@pytest.mark.parametrize("step", ["and0/exchange", "ring-0-opening"])
def test_a_lying_verifier_is_in_the_pair_that_is_named(world, monkeypatch, liar, step):
    plant(monkeypatch, liar, verifier_lies(step))
    fail(world)
    for name in REGION:
        found = verdicts(world, name)
        assert found
        for named, _ in found:
            assert REGION[liar] in named.split(", ")
            assert len(named.split(", ")) == 2


def test_a_missing_statement_names_nobody(world, monkeypatch):
    plant(monkeypatch, 0, LyingSession)
    true = server_disputes.Disputes._issue
    monkeypatch.setattr(
        server_disputes.Disputes,
        "_issue",
        lambda self, dispute, stated: None if self._context.id == "de-1" else true(self, dispute, stated),
    )
    run = fail(world)
    for name in (*REGION, *GROUP):
        assert not verdicts(world, name)
        for signed in by_proof(world, name, run).values():
            assert settle(signed, world.net.made.federation).parties == ()
    assert {one.notice.operator for one in statements(world, "de-2", run)} == {"de-2", "de-3"}


def test_nothing_but_masked_values_is_stated(world, monkeypatch):
    plant(monkeypatch, 1, LyingSession)
    run = fail(world)
    found = [signed.expect(DisputeNotice) for signed in statements(world, "nl-1", run)]
    assert {one.role for one in found} == {"verifier", "prover"}
    owners = len(world.desk.owners())
    words = {(factor * CANARY).to_bytes(8, "little").hex() for factor in range(1, owners + 1)}
    words |= {(2**64 - int.from_bytes(bytes.fromhex(word), "little")).to_bytes(8, "little").hex() for word in words}
    for one in found:
        for text in (one.said, one.heard, one.left, one.right):
            values = {text[at : at + 16] for at in range(0, len(text or ""), 16)}
            assert not values & words
            # What the verifiers swap is masked: nothing small stands in the claim or in the side's value.
            assert all(
                int.from_bytes(bytes.fromhex(value), "little") > 2**32
                for value in list(values)[:2]
                if text and one.gates == "and"
            )
    for name in REGION:
        text = repr(world.net.logs[name].lines).lower()
        assert not [one for one in found if (one.coin or one.left) in text]


def test_a_restart_loses_the_dispute_cleanly(world, monkeypatch):
    plant(monkeypatch, 0, LyingSession)
    true = server_disputes.Disputes.hold
    held = []
    monkeypatch.setattr(
        server_disputes.Disputes, "hold", lambda self, state, dispute: held.append((self, state, dispute))
    )
    run = fail(world)
    monkeypatch.setattr(server_disputes.Disputes, "hold", true)
    world.net.kill("de-3")
    for book, state, dispute in held:
        if book._context.id != "de-3":
            with book._context.unit():
                book.hold(state, dispute)
    world.net.start("de-3")
    world.net.run(20)
    assert {one.notice.operator for one in statements(world, "de-3", run)} >= {"de-2"}
    assert "de-3" not in {one.notice.operator for one in statements(world, "de-3", run)}
    assert not any(verdicts(world, name) for name in REGION)
    assert not world.net.events("de-3", "handler_failed")


def test_a_dispute_is_kept_for_minutes_and_for_few_attempts(world, monkeypatch):
    plant(monkeypatch, 0, LyingSession)
    run = fail(world)
    kept = world.net.operators["de-2"].sessions.disputes
    ((_, dispute),) = kept._held.values()
    assert "rejected" in repr(dispute)
    (state,) = world.net.operators["de-2"].sessions.of_run(run)
    with world.net.operators["de-2"].context.unit():
        kept.hold(state, dispute)  # a second one of the same session is not taken
    world.net.run(1000, step=250)
    assert not kept._held
    assert dispute.rejected == ()
    assert dispute.claim(proof_of(statements(world, "de-2", run)[0].notice).address) is None


# --------------------------------------------------------------------------------------------------------- notices


def sample(**changes):
    return DisputeNotice(
        **{
            "run": "a" * 64, "cluster": "de", "operator": "de-1", "attempt": 1, "stage": "s", "batch": 0, "gates": "and",
            "group": 0, "prover": 1, "role": "verifier", "said": "0" * 16, "heard": "1" * 16, "coin": "b" * 64,
            "rejects": True, "words": 64, "outputs": None, "terms": None, "left": None, "right": None,
            "created_at": "2026-02-01T00:00:00Z", **changes,
        }
    )  # fmt: skip


ACCOUNT = {
    "role": "prover", "prover": 0, "said": None, "heard": None, "coin": None, "rejects": None, "words": None,
    "left": "0" * 16, "right": "1" * 16,
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"said": "0" * 16 * 129}, {"said": "0" * 15}, {"heard": ""}, {"said": "G" * 16}, {"coin": "b" * 62},
        {"stage": "s" * 101}, {"stage": ""}, {"prover": 3}, {"batch": -1}, {"gates": "xor"}, {"role": "judge"},
        {"words": 0}, {"words": 1 << 30}, {"attempt": 0}, {"said": 7}, {"rejects": 1},
    ],
)  # fmt: skip
def test_a_malformed_or_oversized_statement_is_refused(made, changes):
    signed = sign_notice(sample(**changes), made.keys["de-1"])
    with pytest.raises(ConfigError, match="SCHEMA_INVALID"):
        parse_notice(signed.envelope.to_bytes())


@pytest.mark.parametrize(
    "changes",
    [
        {"prover": 0}, {"operator": "nl-1"}, {"cluster": "nowhere"}, {"said": None}, {"coin": None}, {"rejects": None},
        {"words": None}, {"left": "0" * 16}, {"terms": 3}, {"gates": "ring"}, {"gates": "ring", "outputs": 1, "terms": 1},
        {**ACCOUNT, "prover": 1}, {**ACCOUNT, "left": None}, {**ACCOUNT, "words": 64}, {**ACCOUNT, "coin": "b" * 64},
        {**ACCOUNT, "outputs": 1},
    ],
)  # fmt: skip
def test_a_statement_of_another_part_in_the_proof_is_refused(made, changes):
    notice = sample(**changes)
    signed = parse_notice(sign_notice(notice, made.keys[notice.operator]).envelope.to_bytes())
    with pytest.raises(ConfigError, match="author's part"):
        verify_notice(signed, made.federation)


def test_both_parts_verify_and_nobody_signs_for_another(made):
    for notice in (sample(), sample(gates="ring", words=None, outputs=1, terms=2), sample(**ACCOUNT)):
        assert verify_notice(sign_notice(notice, made.keys["de-1"]), made.federation)
        with pytest.raises(EvidenceError, match="SIGNATURE_INVALID"):
            verify_notice(sign_notice(notice, made.keys["de-2"]), made.federation)


def test_a_verdict_is_about_one_proof_and_names_who_states_twice(made):
    keys, federation = made.keys, made.federation
    one = sign_notice(sample(), keys["de-1"])
    with pytest.raises(EvidenceError, match="PROOF_FOREIGN"):
        settle([one, sign_notice(sample(batch=1), keys["de-1"])], federation)
    with pytest.raises(EvidenceError, match="PROOF_FOREIGN"):
        settle([], federation)
    assert settle([one], federation).parties == ()
    later = sign_notice(sample(created_at="2026-02-01T00:00:01Z"), keys["de-1"])
    assert settle([one, later], federation).parties == ()
    other = sign_notice(sample(coin="c" * 64), keys["de-1"])
    assert settle([one, other], federation).parties == ("de-1",)


def test_nonsense_that_all_three_state_passes_no_check(made):
    keys, federation = made.keys, made.federation
    said, heard = "f" * 16, "f" * 32
    for shape in ({"words": 7}, {"words": None, "gates": "ring", "outputs": 1, "terms": 1 << 40}):
        left = sign_notice(sample(operator="de-1", said=said, heard=heard, **shape), keys["de-1"])
        right = sign_notice(sample(operator="de-3", said=heard, heard=said, **shape), keys["de-3"])
        account = sample(**{
            **ACCOUNT, "operator": "de-2", "prover": 1, "left": said, "right": heard, "gates": shape.get("gates", "and")
        })  # fmt: skip
        found = settle([left, right, sign_notice(account, keys["de-2"])], federation)
        assert found.parties == ("de-2",)
        smaller = sign_notice(
            sample(operator="de-1", said=said, heard=heard, **{**shape, **_another(shape)}), keys["de-1"]
        )
        found = settle([smaller, right, sign_notice(account, keys["de-2"])], federation)
        assert sorted(found.parties) == ["de-1", "de-3"]


def _another(shape):
    return {"words": 8} if shape["words"] else {"terms": 5}


def test_a_flood_of_statements_is_not_stored(world):
    operator, keys = world.net.operators["de-1"], world.net.made.keys
    codes = []
    for batch in range(40):
        signed = sign_notice(sample(operator="de-3", batch=batch), keys["de-3"])
        try:
            with operator.context.unit():
                operator.book.accept(signed.envelope.to_bytes(), Source("link", "de-3"))
        except ComityError as error:
            codes.append((type(error), error.code))
    assert codes == [(StateError, "NOTICE_LIMIT")] * 8
    for source in (Source("api", "group-reporting"), Source("spool", "de-nord")):
        signed = sign_notice(sample(operator="de-3", batch=99), keys["de-3"])
        with pytest.raises(PeerProtocolError, match="NOTICE_UNWANTED"), operator.context.unit():
            operator.book.accept(signed.envelope.to_bytes(), source)
    assert not operator.sessions.disputes._held
