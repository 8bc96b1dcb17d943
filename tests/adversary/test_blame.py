"""After a failed proof: who is named by the three statements. A verifier that lies never frames an honest party alone."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from mpc_ops.errors import LocalProtocolError, ProofRejected
from mpc_ops.evidence.disputes import Proof, _check, claim_of, statement_of
from mpc_ops.protocol.circuits.boolean import and_many
from mpc_ops.protocol.circuits.counters import multiply_counters
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.blame import Account, DisputeBook, ProofAddress, Verdict, verdict
from mpc_ops.protocol.core.party import Party
from mpc_ops.protocol.core.session import ActiveSession
from mpc_ops.protocol.core.shares import CounterShare
from mpc_ops.protocol.core.stage import PROVEN_TOGETHER
from mpc_ops.protocol.proofs.proof_ring import public_check
from tests.support.active import (
    MEMBERS,
    Network,
    corrupt_session,
    flip,
    keys_of,
    share_bits,
    share_ring,
    small_proofs,
    terms_of,
)
from tests.support.blame import LyingSession


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def run(corrupt, wanted=("", ""), seed=1, *, liar=None, limit_bytes=1 << 25):
    """Run one batch of both kinds of gates; the corrupt party bends its messages of a step, or lies consistently."""
    rng = random.Random(seed)
    bits, ring = share_bits(range(64), 6), share_ring(range(8))

    def bend(step, direction, body):
        return flip(bytes(body), rng) if (step, direction) == wanted else body

    def program(session):
        stage = session.stage("one")
        yield from and_many(stage, "gates", [(bits[stage.party], bits[stage.party])])
        yield from multiply(stage, ring[stage.party], ring[stage.party])
        yield from stage.barrier()
        stage.close()

    sessions, parties = [], []
    for party in range(3):
        terms = terms_of(party, limit_bytes=limit_bytes)
        kind = (liar or corrupt_session(bend)) if party == corrupt else ActiveSession
        session = kind(terms, keys_of(party))
        sessions.append(session)
        parties.append(Party(party, terms.sid, MEMBERS, session.run(program)))
    out = Network(parties).run()
    return sessions, out.errors


def dispute(sessions, error) -> Verdict:
    """Let the three parties state what they saw, honestly, and judge."""
    address = error.address
    for session in sessions:
        session.disputes.settle()
        for answer, _ in session.disputes._answers.values():
            prover = answer.args[0] if isinstance(answer, partial) else answer.__self__
            assert prover._keys == (b"", b"")
            assert not {"_own", "_following", "_l_part", "_r_next"} & set(vars(prover))
    verifiers = [(address.prover + step) % 3 for step in (-1, 1)]
    claims = {party: sessions[party].disputes.claim(address) for party in verifiers}
    account = sessions[address.prover].disputes.account(address, claims)
    verdicts = {sessions[party].disputes.judge(address, claims, account) for party in verifiers}
    assert len(verdicts) == 1
    return verdicts.pop()


@pytest.mark.parametrize("corrupt", range(3))
def test_who_made_a_wrong_product_is_proven_to_have_cheated(corrupt):
    sessions, errors = run(corrupt, liar=LyingSession)
    found = [error for error in errors.values() if isinstance(error, ProofRejected)]
    assert found
    for error in found:
        assert error.address.prover == corrupt
        assert dispute(sessions, error).parties == (corrupt,)


@pytest.mark.parametrize("corrupt", range(3))
def test_a_wrong_product_in_any_of_several_batches_that_are_proven_together_is_named(corrupt):
    # One word of gates a batch: the lie is in the first of four that share their rounds.
    sessions, errors = run(corrupt, liar=LyingSession, limit_bytes=64)
    found = [error for error in errors.values() if isinstance(error, ProofRejected)]
    assert {error.address.batch for error in found} == {0}
    book = sessions[corrupt].disputes
    assert len({address.batch for address in book._answers}) >= PROVEN_TOGETHER
    for error in found:
        assert dispute(sessions, error).parties == (corrupt,)


def test_a_false_accusation_about_counters_falls_back_on_its_author_for_whoever_repeats_the_check():
    zeros = np.zeros(4, dtype=np.uint64)

    def honest(session):
        stage = session.stage("one")
        x = CounterShare(session.terms.sid, stage.party, zeros, zeros)
        yield from multiply_counters(stage, x, x)
        yield from stage.barrier()

    sessions = [ActiveSession(terms_of(party), keys_of(party)) for party in range(3)]
    parties = [Party(p, terms_of(p).sid, MEMBERS, _kept(sessions[p], honest)) for p in range(3)]
    assert not Network(parties).run().errors
    address = next(iter(sessions[1].disputes._seen))
    assert address.kind == "ring32"
    left, right = ((address.prover + step) % 3 for step in (-1, 1))
    claims = {party: sessions[party].disputes.claim(address) for party in (left, right)}
    claims[left] = replace(claims[left], rejects=True)
    account = sessions[address.prover].disputes.account(address, claims)
    assert verdict(address, claims, account, public_check("ring32", claims[right].shape)).parties == (left,)
    place = Proof("a" * 64, "de", 1, address)
    notice = statement_of(claims[right], place, "de-1", "2026-01-01T00:00:00Z")
    assert claim_of(notice, right) == claims[right]
    assert _check(address.kind, claims[right].shape)(claims[left].said, claims[left].heard)


def test_answers_of_old_batches_are_settled_and_then_forgotten():
    book, settled = DisputeBook(0, 2), []
    for batch in range(6):
        address = ProofAddress("one", batch, "and", 0, 0)
        book.prove(address, lambda coin: (coin, coin), lambda batch=batch: settled.append(batch))
    assert [address.batch for address in book._answers] == [2, 3, 4, 5]
    assert set(settled) == {0, 1, 2, 3}


@pytest.mark.parametrize("corrupt", range(3))
@pytest.mark.parametrize("step", ["gates", "ring-products"])
def test_who_sends_another_product_than_it_proves_is_named_with_the_receiver(corrupt, step):
    sessions, errors = run(corrupt, (step, "prev"))
    found = [error for error in errors.values() if isinstance(error, ProofRejected)]
    assert found
    assert sorted(dispute(sessions, found[0]).parties) == sorted((corrupt, (corrupt - 1) % 3))


@pytest.mark.parametrize("corrupt", range(3))
@pytest.mark.parametrize("step", ["and0/exchange", "ring-0-opening"])
@pytest.mark.parametrize("direction", ["prev", "next"])
def test_a_verifier_that_lies_about_a_proof_is_in_the_pair_that_is_named(corrupt, step, direction):
    sessions, errors = run(corrupt, (step, direction))
    found = [error for error in errors.values() if isinstance(error, ProofRejected)]
    assert found
    for error in found:
        # It bent the message and states the truth; the other verifier heard something else.
        parties = dispute(sessions, error).parties
        assert corrupt in parties
        assert len(parties) == 2


@pytest.mark.parametrize("corrupt", range(3))
@pytest.mark.parametrize("step", ["and0/share0", "and0/share1", "ring-0-carries", "ring-0-matrix0"])
def test_a_wrong_message_of_the_prover_names_it(corrupt, step):
    sessions, errors = run(corrupt, (step, "prev"))
    found = [error for error in errors.values() if isinstance(error, ProofRejected)]
    assert found
    parties = dispute(sessions, found[0]).parties
    assert corrupt in parties


def cheated():
    sessions, errors = run(0, liar=LyingSession)
    error = next(error for error in errors.values() if isinstance(error, ProofRejected))
    address = error.address
    claims = {party: sessions[party].disputes.claim(address) for party in (1, 2)}
    account = sessions[0].disputes.account(address, claims)
    return sessions, address, claims, account


def test_lies_in_the_statements_end_in_a_pair_with_the_liar_or_in_nobody():
    sessions, address, claims, account = cheated()
    judge = sessions[1].disputes.judge
    assert judge(address, claims, account).parties == (0,)
    rng = random.Random(2)
    for liar, other in ((1, 2), (2, 1)):
        for field in ("said", "heard", "coin"):
            lie = replace(claims[liar], **{field: flip(getattr(claims[liar], field), rng)})
            assert sorted(judge(address, {**claims, liar: lie}, account).parties) == sorted((liar, other))
    for field, verifier in (("left", 2), ("right", 1)):
        lie = replace(account, **{field: flip(getattr(account, field), rng)})
        assert judge(address, claims, lie).parties == (0, verifier)
    assert judge(address, claims, None).parties == ()
    assert judge(address, {1: claims[1]}, account).parties == ()
    assert judge(address, {**claims, 2: claims[1]}, account).parties == ()
    foreign = Account(replace(address, batch=9), account.left, account.right)
    assert judge(address, claims, foreign).parties == ()


def test_a_false_accusation_falls_back_on_its_author():
    def honest(session):
        stage = session.stage("one")
        bits = share_bits(range(64), 6, rng=random.Random(3))[stage.party]
        yield from and_many(stage, "gates", [(bits, bits)])
        yield from stage.barrier()

    sessions = [ActiveSession(terms_of(party), keys_of(party)) for party in range(3)]
    parties = [Party(p, terms_of(p).sid, MEMBERS, _kept(sessions[p], honest)) for p in range(3)]
    assert not Network(parties).run().errors
    book = sessions[1].disputes
    address = next(iter(book._seen))
    verifiers = [(address.prover + step) % 3 for step in (-1, 1)]
    claims = {party: sessions[party].disputes.claim(address) for party in verifiers}
    with pytest.raises(LocalProtocolError, match="has not seen"):
        sessions[address.prover].disputes.account(address, claims)  # nobody rejects: nothing to state
    liar = verifiers[0]
    claims[liar] = replace(claims[liar], rejects=True)
    account = sessions[address.prover].disputes.account(address, claims)
    assert book.judge(address, claims, account).parties == (liar,)


def _kept(session, program):
    yield from program(session)


def test_a_prover_states_nothing_for_two_coins_or_a_single_claim():
    sessions, address, claims, _ = cheated()
    book = sessions[0].disputes
    other = replace(claims[1], coin=bytes(32))
    for stated in ({**claims, 1: other}, {1: claims[1]}, {}):
        with pytest.raises(LocalProtocolError, match="has not seen"):
            book.account(address, stated)
    with pytest.raises(LocalProtocolError, match="has not seen"):
        book.claim(address)
    book.wipe()
    with pytest.raises(LocalProtocolError, match="has not seen"):
        book.account(address, claims)


def test_statements_show_nothing_in_print():
    _, _, claims, account = cheated()
    assert "redacted" in repr(claims[1])
    assert "redacted" in repr(account)
