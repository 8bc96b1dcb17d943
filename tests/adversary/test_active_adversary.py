"""A corrupt party at every message address of a proven stage: an abort or silence, never a wrong value, nothing opened early."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from mpc_ops.protocol.circuits import compare as cmp
from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.core.opening import open_to_all
from mpc_ops.protocol.core.party import Address, Message
from mpc_ops.protocol.core.stage import ActiveStage
from mpc_ops.protocol.proofs.and_kernels import PUBLIC_LAYOUT
from mpc_ops.protocol.proofs.proof_and import AndLog, AndProver, proof_bytes, proof_rounds
from mpc_ops.ring.field61 import FIELD_61
from tests.support.active import (
    MEMBERS,
    SMALL_LAYOUT,
    Gates,
    Outcome,
    TinyField,
    Trial,
    corrupt_session,
    flip,
    run_active,
    share_bits,
    small_proofs,
)

X, Y = [0, 1, 5, 7, 3], [1, 1, 2, 7, 4]
EXPECTED = [int(a < b) for a, b in zip(X, Y, strict=True)]
WIDTH = 3


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_proofs(monkeypatch)


def comparison(seed="s", x=X, y=Y):
    """Compare, prove in two batches, open."""
    a, b = share_bits(x, WIDTH, seed, random.Random(1)), share_bits(y, WIDTH, seed, random.Random(2))

    def program(session):
        stage = session.stage("one")
        results = yield from evaluate(stage, "c", [cmp.less(a[stage.party], b[stage.party])])
        token = yield from stage.barrier()
        return [int(v) for v in (yield from open_to_all(stage, token, results))[0]]

    return program


def run(seed="s", **options) -> Outcome:
    return run_active(comparison(seed), seed=seed, limit_bytes=options.pop("limit_bytes", 4 * 64), **options)


@pytest.fixture(scope="module")
def honest() -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        small_proofs(patch)
        return run()


def violations(out: Outcome, corrupt: int, step: str) -> list[str]:
    """What must never happen when party `corrupt` deviates at `step`."""
    wrong = [party for party, result in out.results.items() if party != corrupt and result != EXPECTED]
    found = [f"party {party} has a wrong value" for party in wrong]
    if step not in {"accept", "open"}:
        early = {address.sender for address in out.log if address.step == "open" and address.sender != corrupt}
        found += [f"party {party} opened an unverified value" for party in early]
    return found


def at(address: Address, change):
    """Let `change(message)` decide what travels instead of the message at one address."""
    return lambda message: change(message) if message.address == address else [message]


def detected(out: Outcome) -> bool:
    """An honest party noticed, or nobody got further."""
    return bool(out.errors) or not out.done


def test_the_honest_run_is_right_and_uses_two_batches(honest: Outcome) -> None:
    assert not honest.errors
    assert all(honest.results[party] == EXPECTED for party in range(3))
    steps = {address.step for address in honest.log}
    assert {"flush0", "flush1", "and0/share0", "and1/exchange", "accept", "open"} <= steps
    assert len(honest.log) > 100


CHANGES = {
    "flip": lambda message, rng, other: [replace(message, body=flip(message.body, rng))],
    "drop": lambda message, rng, other: [],
    "truncate": lambda message, rng, other: [replace(message, body=message.body[:-1])],
    "extend": lambda message, rng, other: [replace(message, body=message.body + b"0")],
    "zero": lambda message, rng, other: [replace(message, body=bytes(len(message.body)))],
    "replay of another session": lambda message, rng, other: [replace(message, body=other[message.address])],
    "foreign session": lambda message, rng, other: [
        Message(replace(message.address, session="00"), message.body),
        message,
    ],
    "changed duplicate": lambda message, rng, other: [message, replace(message, body=flip(message.body, rng))],
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_message_can_be_altered_by_the_link_or_its_sender(name: str, honest: Outcome) -> None:
    rng, change = random.Random(name), CHANGES[name]
    other = _bodies_of_another_session(honest)
    addresses = honest.log if name == "flip" else rng.sample(honest.log, 30)
    for address in addresses:
        out = run(mutate=at(address, lambda message: change(message, rng, other)))
        assert not violations(out, address.sender, address.step), address
        if name != "changed duplicate":
            assert detected(out), address
        for error in out.errors.values():
            assert error.code in {
                "LINK_MISMATCH", "PROOF_REJECTED", "COIN_MISMATCH", "ACCEPT_INVALID", "OPENING_MISMATCH",
                "LENGTH_INVALID", "FIELD_RANGE", "MESSAGE_FOREIGN", "MESSAGE_CHANGED",
            }  # fmt: skip


def _bodies_of_another_session(honest: Outcome) -> dict[Address, bytes]:
    seen: dict[Address, bytes] = {}

    def note(message: Message) -> list[Message]:
        seen[replace(message.address, session=honest.log[0].session)] = message.body
        return [message]

    run("another", mutate=note)
    return seen


def test_a_party_that_lies_consistently_is_found_at_every_step(honest: Outcome) -> None:
    """Its own transcript has the lie too, so FLUSHED agrees: proofs, coin digests, ACCEPT and opening digests must find it."""
    rng = random.Random(5)
    for corrupt in range(3):
        places = sorted({(a.step, (a.receiver - a.sender) % 3) for a in honest.log if a.sender == corrupt})
        for step, turn in places:
            way = "next" if turn == 1 else "prev"

            def bend(name, direction, body, step=step, way=way):
                return flip(body, rng) if (name, direction) == (step, way) else body

            out = run(session_types={corrupt: corrupt_session(bend)})
            assert not violations(out, corrupt, step), (corrupt, step)
            noticed = [party for party in out.errors if party != corrupt]
            assert noticed, (corrupt, step)
            codes = {out.errors[party].code for party in noticed}
            assert codes <= _codes_for(step), (step, codes)
            _check_blame(out, noticed, corrupt)


def _codes_for(step: str) -> set[str]:
    kinds = {
        "c/": {"PROOF_REJECTED"}, "share": {"PROOF_REJECTED", "FIELD_RANGE"}, "coin": {"COIN_MISMATCH"},
        "exchange": {"PROOF_REJECTED", "FIELD_RANGE"}, "flush": {"LINK_MISMATCH"}, "accept": {"ACCEPT_INVALID"},
        "open": {"OPENING_MISMATCH"},
    }  # fmt: skip
    return next(codes for kind, codes in kinds.items() if kind in step)


def _check_blame(out: Outcome, noticed: list[int], corrupt: int) -> None:
    """A named pair or peer contains the corrupt party: an honest pair is never framed."""
    for party in noticed:
        ids = out.errors[party].ids
        for name in ("pair", "peer"):
            if name in ids:
                assert MEMBERS[corrupt] in ids[name].split(","), (ids, corrupt)


def test_a_wrong_mask_is_a_wrong_gate(honest: Outcome) -> None:
    class WrongMask(ActiveStage):
        def streams(self, purpose, lanes):
            first, second = super().streams(purpose, lanes)
            first[0] ^= np.uint64(1)
            return first, second

    session_type = corrupt_session(lambda step, way, body: body)
    session_type.stage_type = WrongMask
    out = run(session_types={1: session_type})
    assert out.errors[0].code == out.errors[2].code == "PROOF_REJECTED"
    assert out.errors[0].ids["prover"] == MEMBERS[1]
    assert not violations(out, 1, "c/0")


def test_the_public_layout_proves_and_rejects_in_a_session(monkeypatch) -> None:
    monkeypatch.setattr(AndLog, "layout", PUBLIC_LAYOUT)
    out = run(limit_bytes=1 << 20)
    assert all(out.results[party] == EXPECTED for party in range(3))
    words = 3 * WIDTH - 2 - 2
    assert out.rounds == [3 + proof_rounds(words) + 1 + 1] * 3
    assert out.sent_bytes == [8 * words + proof_bytes(words) + 64 + 64 + 8 + 32] * 3
    liar = corrupt_session(lambda step, way, body: flip(body, random.Random(1)) if step == "c/1" else body)
    out = run(limit_bytes=1 << 20, session_types={2: liar})
    assert out.errors[0].code == out.errors[1].code == "PROOF_REJECTED"
    assert not violations(out, 2, "c/1")


def test_after_an_abort_logs_and_keys_are_gone() -> None:
    kept = []

    class Watched(corrupt_session(lambda step, way, body: body)):
        def stage(self, name):
            kept.append(super().stage(name))
            return kept[-1]

    liar = corrupt_session(lambda step, way, body: flip(body, random.Random(1)) if step == "c/1" else body)
    out = run(session_types={0: Watched, 1: liar})
    assert out.errors[0].code == "PROOF_REJECTED"
    (stage,) = kept
    assert stage._keys is None
    assert not stage._logs
    assert stage.phase == "closed"


# --------------------------------------------------------------------------------------------- rushing and withholding


@pytest.mark.parametrize("corrupt", range(3))
def test_a_rushing_party_gains_nothing_by_speaking_last(corrupt: int) -> None:
    out = run(rushing=corrupt)
    assert out.done
    assert all(result == EXPECTED for result in out.results.values())


@pytest.mark.parametrize("corrupt", range(3))
@pytest.mark.parametrize(
    ("withheld", "to", "must_not_follow"),
    [
        ("and0/share0", "prev", "and0/coin0"),
        ("flush0", "prev", "and0/coin0"),
        ("flush0", "next", "and0/coin0"),
        ("and0/coin0", "next", "and0/share1"),
        ("and0/coin0", "prev", "and0/share1"),
        ("and1/exchange", "prev", "accept"),
        ("accept", "prev", "open"),
        ("accept", "next", "open"),
    ],
)
def test_what_is_withheld_releases_nothing(corrupt: int, withheld: str, to: str, must_not_follow: str) -> None:
    receiver = (corrupt + (1 if to == "next" else -1)) % 3

    def hold(message: Message) -> list[Message]:
        place = message.address
        return [] if (place.sender, place.receiver, place.step) == (corrupt, receiver, withheld) else [message]

    out = run(mutate=hold, rushing=corrupt)
    assert not out.errors
    assert not [a for a in out.log if a.step == must_not_follow and a.sender == receiver]
    assert not violations(out, corrupt, withheld)
    assert receiver not in out.results


def test_a_prover_says_nothing_more_after_two_different_coins() -> None:
    """A privacy check: going on would tell a lying left verifier a linear function of the right one's secrets."""
    for liar, way in ((0, "next"), (2, "prev")):
        victim = 1
        out = run(session_types={liar: corrupt_session(
            lambda step, to, body, way=way: flip(body, random.Random(1)) if (step, to) == ("and0/coin0", way) else body
        )})  # fmt: skip
        assert out.errors[victim].code == "COIN_MISMATCH"
        assert set(out.errors[victim].ids["pair"].split(",")) == {MEMBERS[0], MEMBERS[2]}
        assert not [a for a in out.log if a.step == "and0/share1" and a.sender == victim]


def test_a_second_share_of_r_after_the_coin_changes_nothing() -> None:
    """The first message at an address is final; another one, also if it comes late, is refused."""
    for delay in (0, 1):
        state = {"held": None}

        def resend(message: Message, delay=delay, state=state) -> list[Message]:
            place = message.address
            if place.step == "and0/share0" and place.sender == 1:
                other = replace(message, body=flip(message.body, random.Random(3)))
                if delay == 0:
                    return [message, other]
                state["held"] = other
            if place.step == "and0/coin0" and state["held"] is not None:
                other, state["held"] = state["held"], None
                return [other, message]
            return [message]

        out = run(mutate=resend)
        assert out.errors[0].code == "MESSAGE_CHANGED"
        assert not violations(out, 1, "and0/share0")


# ------------------------------------------------------------------------------------------------------- planted bugs


def no_accept(self):
    return
    yield


def test_without_accept_the_matrix_finds_a_value_opened_early(monkeypatch, honest: Outcome) -> None:
    monkeypatch.setattr(ActiveStage, "_accept", no_accept)
    target = next(a for a in honest.log if a.step == "and1/exchange" and (a.sender, a.receiver) == (0, 2))
    out = run(mutate=at(target, lambda message: [replace(message, body=flip(message.body, random.Random(1)))]))
    assert violations(out, 0, target.step)


def test_without_the_proof_the_matrix_finds_a_wrong_value(monkeypatch) -> None:
    monkeypatch.setattr("mpc_ops.protocol.proofs.proof_and._pass", lambda *_: True)

    def bend(step, way, body):
        return bytes([body[0] ^ 31, *body[1:]]) if step == "c/2" else body

    out = run(session_types={1: corrupt_session(bend)})
    assert violations(out, 1, "c/2")


def test_without_the_opening_digest_a_wrong_value_is_taken(monkeypatch) -> None:
    monkeypatch.setattr("mpc_ops.protocol.core.opening.hmac.compare_digest", lambda *_: True)
    out = run(session_types={1: corrupt_session(
        lambda step, way, body: bytes([body[0] ^ 31, *body[1:]]) if (step, way) == ("open", "next") else body
    )})  # fmt: skip
    assert violations(out, 1, "open")


class KnowsTheCoin(AndProver):
    """Guesses that the next coin is the one it saw before, and lies with a root there."""

    last_rho = 0

    def fold(self, seed: bytes) -> None:
        self.last_rho = self.proof.challenge(seed)
        super().fold(seed)

    def coefficients(self) -> list[int]:
        whole, p = super().coefficients(), self.proof.field.p
        lowest, _ = self.proof.degrees(self.level)
        wrong = (self._claims[0].value + self._claims[1].value - whole[-lowest]) % p
        if self.last_rho and wrong:
            whole[-lowest] = (whole[-lowest] + wrong) % p
            whole[-lowest + 1] = (whole[-lowest + 1] - wrong * pow(self.last_rho, p - 2, p)) % p
        elif wrong:
            whole[-lowest] = (whole[-lowest] + wrong) % p
        return whole


def test_a_reused_coin_would_let_a_cheater_through_and_a_fresh_one_does_not() -> None:
    gates = Gates.random(4, np.random.default_rng(1))
    gates.z[0][0] ^= np.uint64(1)
    rng = random.Random(1)
    assert Trial(gates, SMALL_LAYOUT, FIELD_61, rng, KnowsTheCoin, seed_of=lambda level: bytes(32)).run()
    assert not Trial(gates, SMALL_LAYOUT, FIELD_61, rng, KnowsTheCoin).run()


def test_challenges_are_never_zero_and_cover_the_whole_set() -> None:
    trial = Trial(Gates.random(1, np.random.default_rng(1)), SMALL_LAYOUT, TinyField(31), random.Random(1))
    trial.run()
    seen = {trial.prover.proof.challenge(random.Random(k).randbytes(32)) for k in range(400)}
    assert seen == set(range(1, 31))


# ------------------------------------------------------------------------------------------------------------ privacy


def test_transcripts_have_the_same_shape_for_different_values() -> None:
    runs = [
        run_active(comparison(x=x, y=y), limit_bytes=256) for x, y in (([0] * 5, [7] * 5), ([7] * 5, [0] * 5), (X, Y))
    ]
    shapes = [(sorted(out.sizes.items()), out.rounds, out.sent_bytes) for out in runs]
    assert shapes[0] == shapes[1] == shapes[2]


def test_messages_are_uniform_whatever_the_values() -> None:
    """Byte histograms of all AND messages for two very different inputs."""
    for values in ([0] * 5000, [7] * 5000):
        counts = np.zeros(256)

        def note(message: Message, counts=counts) -> list[Message]:
            if message.address.step.startswith("c/"):
                np.add.at(counts, np.frombuffer(message.body, dtype=np.uint8), 1)
            return [message]

        run_active(comparison(x=values, y=values), mutate=note)
        expected = counts.sum() / 256
        assert expected > 30
        assert float(((counts - expected) ** 2 / expected).sum()) < 400  # 255 degrees of freedom: 1 - 10^-7 is at 389


def test_the_last_exchange_is_masked() -> None:
    """P(rho), Q(1/rho) and R_L(rho) of two runs with the same gates and coins differ by fresh masks alone."""
    gates = Gates.random(4, np.random.default_rng(1))
    seen = []
    for seed in (1, 2):
        trial = Trial(gates, SMALL_LAYOUT, FIELD_61, random.Random(seed), seed_of=lambda level: bytes([level] * 32))
        assert trial.run()
        seen.append(set(trial.left.elements()[:2] + trial.right.elements()[:2]))
    assert not seen[0] & seen[1]


def test_whether_a_cheater_is_found_does_not_depend_on_the_values() -> None:
    rates = []
    for fill in (0, 2**64 - 1):
        rng = random.Random(7)
        gates = Gates.random(4, np.random.default_rng(2))
        for column in (gates.x, gates.y):
            column[2] ^= column[0] ^ column[1] ^ column[2] ^ np.uint64(fill)
        for i in range(3):
            j = (i + 1) % 3
            x, y, r = gates.x, gates.y, gates.r
            gates.z[i] = (x[i] & (y[i] ^ y[j])) ^ (x[j] & y[i]) ^ r[i] ^ r[j]
        gates.z[0][1] ^= np.uint64(4)
        rates.append(sum(Trial(gates, SMALL_LAYOUT, TinyField(61), rng, KnowsTheCoin).run() for _ in range(300)))
    spread = (2 * 300 * 0.25) ** 0.5
    assert abs(rates[0] - rates[1]) < 5 * spread
