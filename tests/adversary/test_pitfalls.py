"""Known ways in which such engines broke, one test a line: the mitigation is taken away, and the harness must see it.

Each test plants a bug and shows what it leads to (a wrong result at an honest party, a value opened unverified, a leak), and
that the same attack leads to nothing with the mitigation in place.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as replace_state

from mpc_ops.envelope.keys import IdentityPublicKey
from mpc_ops.envelope.sealing import SealingKey
from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits import boolean
from mpc_ops.protocol.circuits.boolean import and_many
from mpc_ops.protocol.circuits.products import multiply, segment_sums
from mpc_ops.protocol.core import checkpoint, opening, stage
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.opening import open_passive, open_to_all
from mpc_ops.protocol.core.party import Party
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.session import ActiveSession, PassiveSession
from mpc_ops.protocol.core.stage import ActiveStage, BarrierToken, ComputeStage, PassiveStage
from mpc_ops.protocol.core.terms import SessionTerms
from mpc_ops.protocol.order import row_parts, shuffle_tags
from mpc_ops.protocol.order.shuffle import shuffle
from mpc_ops.protocol.proofs import proof_and
from mpc_ops.protocol.proofs.proof_and import AndLog, AndProof, AndProver
from mpc_ops.protocol.proofs.ring_claim import RingParams
from mpc_ops.randomness import expand
from mpc_ops.ring.field61 import FIELD_61, P61
from mpc_ops.session import filing
from tests.support.active import SMALL_LAYOUT, keys_of, share_bits, share_ring, terms_of
from tests.support.adversary import (
    Attack,
    Case,
    Played,
    Program,
    Verdict,
    play_and_judge,
    shameless_party,
    step_kind,
    traitor,
)
from tests.support.attacked import BATCHES, FLOW, LOGIC, PRODUCTS, SHUFFLE
from tests.support.attacked_resumed import CHECKPOINT
from tests.support.products import prove, views
from tests.support.share_shifts import local_truncations, truncations_of
from tests.support.sim import Owner, Simulation
from tests.support.views import chi_square, not_uniform, repeated_bodies, used_twice, view_differences


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(AndLog, "layout", SMALL_LAYOUT)
    with shameless_party():
        yield


def lie(case: Case, corrupt: int, step: str, turn: int = -1, body: bytes | None = None) -> Verdict:
    """Play a consistent lie and judge it: the corrupt party says `body`, or every bit of a message is another one."""
    address = find(case, step, corrupt, turn)
    said = bytes(byte ^ 0xFF for byte in case.bodies[address]) if body is None else body
    played = case.play(corrupt=corrupt, session_type=traitor({case.places[address]: said}))
    return case.judge(played, Attack(corrupt, "flip", "own", address))


def says(verdict: Verdict, *words: str) -> bool:
    """Whether a violation of every kind was seen."""
    return all(any(word in found for found in verdict.violations) for word in words)


def find(case: Case, step: str, sender: int, turn: int = -1):
    """The address of a step's message from a sender to its neighbour (`turn` -1: the party before it)."""
    receiver = (sender + turn) % 3
    return next(a for a in case.addresses if (a.step, a.sender, a.receiver) == (step, sender, receiver))


# ------------------------------------------------------------- opening before verification; selective failure


def test_opening_before_verification(monkeypatch) -> None:
    """A barrier that gives its token without proving anything."""
    assert not lie(Case(LOGIC), 1, "e/0").violations

    def no_barrier(self):
        self._phase, self._token = "accepted", BarrierToken(self, stage._MINT)
        return self._token
        yield

    monkeypatch.setattr(ActiveStage, "barrier", no_barrier)
    assert says(lie(Case(LOGIC), 1, "e/0"), "wrong result")


def test_a_token_that_serves_any_stage(monkeypatch) -> None:
    """An old token opens a later stage whose gates nobody proved."""

    def steps(session, shares):
        (x,) = shares
        first = session.stage("first")
        token = yield from first.barrier()
        first.close()
        second = session.stage("second")
        (bit,) = yield from and_many(second, "c", [(x, x)])
        return (yield from open_to_all(second, token, [bit]))

    program = Program(
        "old token", (([1, 0, 1],), ([1, 0, 1],)), lambda v, seed: [share_bits(v[0], 1, seed, random.Random(1))],
        steps, lambda values, _: [list(values[0])],
    )  # fmt: skip
    with pytest.raises(AssertionError, match=r"BARRIER_MISSING|STAGE_ORDER"):
        Case(program)
    monkeypatch.setattr(ActiveStage, "spend", lambda self, token: setattr(self, "_phase", "closed"))
    assert says(lie(Case(program), 1, "c"), "wrong result")


# ------------------------------------------------------------------------------- delayed consistency checks


def test_an_opening_whose_digest_is_checked_later(monkeypatch) -> None:
    """The value is used first; a check that comes afterwards comes too late."""
    assert lie(Case(LOGIC), 1, "open", 1).codes == {"OPENING_MISMATCH"}
    monkeypatch.setattr(opening.hmac, "compare_digest", lambda *_: True)
    assert says(lie(Case(LOGIC), 1, "open", 1), "wrong result")


def test_one_holder_alone_opens_a_component(monkeypatch) -> None:
    """The digest must come from the other holder: one that says nothing about the content checks nothing."""
    assert lie(Case(LOGIC), 2, "open", 1).codes == {"OPENING_MISMATCH"}
    monkeypatch.setattr(opening, "_digest", lambda stage, label, body: bytes(range(32)))
    assert says(lie(Case(LOGIC), 2, "open", 1), "wrong result")


def test_postponed_proofs_need_masked_messages(monkeypatch) -> None:
    """Without the streams a product's message depends on what its receiver must not know."""
    seeds = range(12)
    assert not not_uniform(LOGIC, 0, seeds)

    def no_masks(self, purpose, lanes):
        self.computing()
        return np.zeros(lanes, dtype=np.uint64), np.zeros(lanes, dtype=np.uint64)

    monkeypatch.setattr(ComputeStage, "streams", no_masks)
    assert any(kind.startswith(("c/", "e/")) for kind in not_uniform(LOGIC, 0, seeds))


# ------------------------------------------------------------------ rushing: withholding until others reveal


def nothing(self, *_):
    return
    yield


def test_without_accept_one_lied_to_party_cannot_stop_the_other(monkeypatch) -> None:
    case = Case(LOGIC)
    last = max(a.step for a in case.addresses if a.step.endswith("/exchange"))
    attack = Attack(0, "flip", "wire", find(case, last, 0))
    assert not case.judge(case.run(attack), attack).violations
    monkeypatch.setattr(ActiveStage, "_accept", nothing)
    case = Case(LOGIC)
    assert says(case.judge(case.run(attack), attack), "without the other's ACCEPT", "behind a barrier")


def test_no_coin_is_released_before_flushed(monkeypatch) -> None:
    """FLUSHED of both others is there before a party draws its first coin of a batch; a withheld one keeps it silent."""

    def coins_without_flushed(case: Case) -> list[int]:
        found = []
        for sender in range(3):
            corrupt = (sender + 1) % 3
            address = find(case, "flush0", corrupt)
            attack = Attack(corrupt, "drop", "wire", address)
            sent = {m.address.step for m in case.run(attack).sent if m.address.sender == sender}
            found += [sender] if "and0/coin0" in sent else []
        return found

    case = Case(LOGIC)
    assert not coins_without_flushed(case)
    real = ActiveStage._plain_exchange

    def impatient(self, item):
        """Send FLUSH and do not wait for the others'."""
        if not item.step.startswith("flush"):
            return (yield from real(self, item))
        (inbound,) = yield (replace(item, expect_prev=0, expect_next=0),)
        return replace(inbound, from_prev=bytes(32), from_next=bytes(32))

    monkeypatch.setattr(ActiveStage, "_plain_exchange", impatient)
    monkeypatch.setattr(Party, "_advance", _lenient_advance(Party._advance))
    monkeypatch.setattr(stage.hmac, "compare_digest", lambda *_: True)
    assert coins_without_flushed(case)


def _lenient_advance(real):
    """Drop what the present round does not expect, as an engine that does not wait would."""

    def advance(self):
        for address in [a for a in self._waiting if a.step.startswith("flush")]:
            del self._waiting[address]
        return real(self)

    return advance


# ------------------------------------------------------------- a passive reveal left in the active path


def _opens_passively(session, shares):
    (x,) = shares
    one = session.stage("one")
    (bit,) = yield from and_many(one, "c", [(x, x)])
    opened = yield from open_passive(one, [bit])
    yield from one.barrier()
    one.close()
    return opened


def test_a_passive_opening_in_the_active_path(monkeypatch) -> None:
    program = Program(
        "passive opening", (([1, 0, 1],), ([1, 0, 1],)),
        lambda values, seed: [share_bits(values[0], 1, seed, random.Random(1))],
        _opens_passively, lambda values, _: [list(values[0])],
    )  # fmt: skip
    with pytest.raises(LocalProtocolError, match="another kind"):
        next(open_passive(PassiveStage(terms_of(0), keys_of(0), "one"), share_bits([1], 1)[:1]))
    monkeypatch.setattr(opening, "check_owner", lambda stage, share: None)
    monkeypatch.setattr(opening, "PassiveStage", ActiveStage)
    seen = lie(Case(program), 1, "c")
    assert says(seen, "without the other's ACCEPT", "behind a barrier")


# --------------------------------------------------------------------------- grinding, missing context, wrong challenges


class KnowsCoins(AndProver):
    """A prover of a wrong gate that lies with a root at the challenge that it expects."""

    def expects(self) -> bytes | None:
        """The seed that it expects at this level, or None."""
        raise NotImplementedError

    def coefficients(self) -> list[int]:
        whole, p = [int(value) for value in super().coefficients()], self.proof.field.p
        lowest, _ = self.proof.degrees(self.level)
        wrong = (sum(int(claim.value) for claim in self._claims) - whole[-lowest]) % p
        whole[-lowest] = (whole[-lowest] + wrong) % p
        expected = self.expects()
        if wrong and expected is not None:
            rho = self.proof.challenge(expected)
            whole[-lowest + 1] = (whole[-lowest + 1] - wrong * pow(rho, p - 2, p)) % p
        return whole


def cheat(case: Case, corrupt: int, prover: type[KnowsCoins], number: int = 4) -> Verdict:
    """The corrupt party draws another mask for its product message `number` (a wrong gate), and proves with that prover."""
    attack = Attack(corrupt, "stream", "deep", deep=(number, 0))
    base = traitor({}, attack.deep)

    class CheatingLog(AndLog):
        added = 0

        def add(self, x, y, z, r):
            if self.added == number:
                r = (r[0].copy(), r[1])
                r[0][0] ^= np.uint64(1)  # what the verifiers take for the mask
            self.added += 1
            super().add(x, y, z, r)

        def make_prover(self, proof, left, right):
            keys = self.stage.keys
            return prover(proof, left, right, (keys.first.prg, keys.second.prg))

    class CheatingStage(base.stage_type):
        def log(self, kind):
            return super().log(CheatingLog if kind is AndLog else kind)

    class CheatingSession(base):
        stage_type = CheatingStage

    return case.judge(case.play(corrupt=corrupt, session_type=CheatingSession), attack)


def public_coin(prover: int, level: int) -> bytes:
    """A challenge that everybody can compute: a digest of what is public, as in a proof without interaction."""
    return hashlib.sha256(repr(("public", prover, level)).encode()).digest()


class Computes(KnowsCoins):
    def expects(self):
        return public_coin(self.proof.prover, self.level)


def test_a_challenge_that_the_prover_can_compute_itself(monkeypatch) -> None:
    """Coins are drawn from the key that the prover lacks, so it can neither compute nor try them before it speaks."""
    seen = cheat(Case(LOGIC), 2, Computes)
    assert seen.codes == {"PROOF_REJECTED"}
    assert not seen.violations
    monkeypatch.setattr(ActiveStage, "coin", lambda self, batch, kind, prover, level: public_coin(prover, int(level)))
    assert says(cheat(Case(LOGIC), 2, Computes), "wrong result")


class Remembers(KnowsCoins):
    seed: bytes | None = None

    def fold(self, seed):
        self.seed = seed
        super().fold(seed)

    def expects(self):
        return self.seed


def test_one_coin_for_all_levels(monkeypatch) -> None:
    """Tossed once and used again: the prover learns it at the first level and cheats at the second."""
    seen = cheat(Case(LOGIC), 0, Remembers)
    assert seen.codes == {"PROOF_REJECTED"}
    real = ActiveStage.coin

    def reused(self, batch, kind, prover, level):
        self._coins.clear()
        return real(self, batch, kind, prover, "0")

    monkeypatch.setattr(ActiveStage, "coin", reused)
    assert says(cheat(Case(LOGIC), 0, Remembers), "wrong result")


class Guesses(KnowsCoins):
    def expects(self):
        return bytes(32)


def test_a_challenge_from_a_small_set(monkeypatch) -> None:
    """Two values instead of p - 1: a guess is right every second time."""

    def hits() -> int:
        cases = [Case(LOGIC, seed=("guess", number)) for number in range(4)]
        return sum(says(cheat(case, 1, Guesses), "wrong result") for case in cases)

    assert hits() == 0
    monkeypatch.setattr(AndProof, "challenge", lambda self, seed: 1 + seed[0] % 2)
    assert hits() > 0


# -------------------------------------------------------------- streams reused after a restart; replay across sessions


def test_contexts_without_session_and_attempt(monkeypatch) -> None:
    """A second attempt with the same pair keys and shares has no mask, coin or MAC of the first."""

    def repeated() -> set[str]:
        first, second = (Case(BATCHES, attempt=number) for number in (1, 2))
        return {step_kind(step) for step in repeated_bodies(first, second)}

    assert not repeated()
    monkeypatch.setattr(SessionTerms, "context", lambda self, name: ("v1", self.cluster, name))
    assert repeated() >= {"c/#", "ring-products", "accept", "and#/coin#"}


def test_a_stream_counter_that_does_not_move(monkeypatch) -> None:
    assert not used_twice(BATCHES, ["one", "two"])
    real = ComputeStage.streams

    def same(self, purpose, lanes):
        self._streams = 0
        return real(self, purpose, lanes)

    monkeypatch.setattr(ComputeStage, "streams", same)
    assert used_twice(BATCHES, ["one"])


class Forgets(set):
    """Names of stages, none of which was ever used."""

    def __contains__(self, name: object) -> bool:
        return False


@pytest.mark.parametrize("kind", [ActiveSession, PassiveSession])
def test_two_stages_of_one_name(kind) -> None:
    """The name is in every context, and the numbers of streams begin anew: a second stage of a name has the first one's masks."""

    def begin(session):
        made = session.stage("one")
        words = np.concatenate(made.streams("and", 4)).tolist()
        made._phase = "closed"  # as behind its barrier
        return words

    session = kind(terms_of(0), keys_of(0))
    first = begin(session)
    with pytest.raises(LocalProtocolError, match="their own names") as caught:
        session.stage("one")
    assert caught.value.code == "STAGE_ORDER"
    session._names = Forgets()
    assert begin(session) == first, "what the name protects from"


def test_messages_without_a_session_in_their_address(monkeypatch) -> None:
    """What was said in another session would be taken for this one's."""
    case = Case(LOGIC)
    attack = Attack(1, "foreign session", "wire", find(case, "c/1", 1))
    assert case.judge(case.run(attack), attack).codes == {"MESSAGE_FOREIGN"}
    real = Party._take

    def careless(self, message):
        return real(self, replace(message, address=replace(message.address, session=self._session)))

    monkeypatch.setattr(Party, "_take", careless)
    assert "MESSAGE_FOREIGN" not in case.judge(case.run(attack), attack).codes


# ------------------------------------------------------------------------------------------- truncation, tags mod 2^64


ROUNDED = {
    "circuits/counts.py:popcount_cost": (1, "a number of words, for a cost"),
    "circuits/divide.py:_floor": (
        2,
        "quotients of components by an odd or even m; the wraps of the components are counted and corrected",
    ),
    "order/row_parts.py:_sorted_order": (1, "sort keys of a permutation that its holder draws alone"),
    "order/shuffle.py:_move_scaled": (1, "places after their opening; the shares are exact multiples of that power"),
    "order/shuffle_tags.py:matrix_tags": (1, "bits of a tag key over GF(2), where a shift drops no carry"),
    "proofs/and_kernels.py:_look_up": (1, "bits of gate words, as places in a table"),
    "proofs/and_kernels.py:fold_gates": (1, "the length of a piece"),
    "proofs/ring_claim.py:carries": (
        1,
        "how often the sums wrap of what the prover alone holds: what it then proves",
    ),
    "proofs/ring_tables.py:TableView.carries": (1, "the same for tables"),
    "relational/row_planes.py:_shift": (2, "rows move along a plane of bits: XOR shares, one bit a row"),
    "relational/row_planes.py:_parity": (1, "the last bit of a plane's word: XOR shares"),
    "relational/small_domain.py:_totals": (1, "a public number of a value"),
}
"""Every right shift in the protocols, and every division of a component: how many, and of what."""


def test_probabilistic_truncation_is_wrong_and_nothing_does_it() -> None:
    """Shifting components locally is off by one, or by 2^(64 - d); no line of the protocols does it to additive shares."""
    shares = share_ring([5 << 16, -(5 << 16), 1], rng=random.Random(1))
    parts = [shares[0].first, shares[1].first, shares[2].first]
    total = sum(part >> np.uint64(16) for part in parts)
    assert total.tolist() != [5, 2**64 - 5, 0]
    package = Path(stage.__file__).parents[1]
    assert package.name == "protocol"
    assert local_truncations(package) == {place: count for place, (count, _) in ROUNDED.items()}


@pytest.mark.parametrize(
    "line",
    [
        "return ring_of(stage, x.first >> np.uint64(16), x.second >> np.uint64(16))",
        "return replace(x, first=x.first // 2, second=x.second // 2)",
        "first = x.first.copy()\n    first //= 65536",
        "first = x.first.copy()\n    first >>= np.uint64(1)",
        "return [np.right_shift(part, 16) for part in (x.first, x.second)]",
        "return [part // 65536 for part in (x.first, x.second)]",
        "both = [x.first, x.second]\n    return [np.floor_divide(part, 4) for part in both]",
        "return [_half(part) for part in (x.first, x.second)]",
        "return [divmod(part, 4)[0] for part in x.words()[:1] + (x.second,)]",
        "shift = np.right_shift\n    return shift(x.first, 1)",
        "return wide.shift_right(x, 16)",
        "return values // np.uint64(16)",
    ],
)
def test_a_truncation_that_somebody_adds_is_seen(line: str) -> None:
    helper = "def _half(values):\n    return values // 2\n\n\n"
    assert truncations_of(f"{helper}def truncated(stage, x, values):\n    {line}\n").total() >= 1
    assert not truncations_of(f"{helper}def sized(x):\n    return len(x.first) // 2 + x.second.shape[0] // 64\n")


def test_tags_modulo_the_ring_itself() -> None:
    """An error of 2^(k-1) survives a random weight mod 2^k every second time; 64 more bits of claim ring end that."""

    def accepted(params: RingParams, error: int, runs: int) -> int:
        wrong = views(np.random.default_rng(1), [1, 1], params, bad=0, error=error)
        return sum(prove(wrong, params, number=number).passed for number in range(runs))

    assert accepted(RingParams(8, 9, 1, 1), 1 << 7, 60) > 15
    assert accepted(RingParams(64, 128, 64, 2), 1 << 63, 10) == 0


# ------------------------------------------------------------------------------- biased shuffle; missing shuffle check


def orders(draw, count: int = 3, runs: int = 600) -> float:
    """Chi-square of the orders of a few rows against the uniform distribution; 5 degrees of freedom for three rows."""
    places = {order: place for place, order in enumerate(itertools.permutations(range(count)))}
    counts = np.zeros(len(places))
    for number in range(runs):
        counts[places[tuple(draw(hashlib.sha256(bytes([number % 256, number // 256])).digest(), count).tolist())]] += 1
    return chi_square(counts)


def test_a_permutation_from_short_keys_is_biased() -> None:
    """Sorting by keys of 64 bits, drawn again where two are equal, leaves no bias; by keys of one bit much."""
    assert orders(row_parts.random_order) < 35
    assert orders(lambda seed, count: np.argsort(expand(seed, count) & np.uint64(1), kind="stable")) > 35


def test_a_shuffle_whose_tags_nobody_compares(monkeypatch) -> None:
    seen = lie(Case(SHUFFLE), 0, "shuffle-1", 1)
    assert seen.codes == {"TAG_MISMATCH"}
    assert not seen.violations
    monkeypatch.setattr(shuffle_tags.TagLog, "_sums", lambda self, peer, pieces, keys: b"equal")
    assert says(lie(Case(SHUFFLE), 0, "shuffle-1", 1), "wrong result")


def _shuffled_bits(session, shares):
    flow = ActiveFlow(session, "bits")
    rows = yield from shuffle(flow, Rows({"key": shares[0]}))
    (opened,) = yield from flow.open([rows.bits("key")])
    return sorted(opened.tolist())


SHUFFLED_BITS = Program(
    "shuffled bits", (([1, 0, 0, 0],), ([0, 1, 0, 0],)), lambda v, seed: [share_bits(v[0], 1, seed, random.Random(1))],
    _shuffled_bits, lambda values, _: sorted(values[0]),
)  # fmt: skip


def test_a_tag_key_that_is_known_before_all_messages_are_there(monkeypatch) -> None:
    """Whoever knows the key bends a row and its tag together, and no comparison sees it. It is opened behind FLUSHED only."""
    keys: list[tuple[int, np.ndarray, np.ndarray]] = []
    real = shuffle_tags.TagKey.__init__

    def note(self, stage, width, ring):
        real(self, stage, width, ring)
        keys.append((stage.party, self.first.copy(), self.second.copy()))

    monkeypatch.setattr(shuffle_tags.TagKey, "__init__", note)
    case = Case(SHUFFLED_BITS)
    (column,) = keys[0][1] ^ keys[1][1] ^ keys[2][1]
    body = np.frombuffer(bytes(case.bodies[find(case, "shuffle-1", 0, 1)]), dtype="<u8").copy()
    assert len(body) == 5, "one word of 64 bits, and a tag for each of 4 rows"
    body[0] ^= np.uint64(1)
    assert lie(case, 0, "shuffle-1", 1, body.tobytes()).codes == {"TAG_MISMATCH"}
    body[1] ^= column
    assert says(lie(case, 0, "shuffle-1", 1, body.tobytes()), "wrong result"), "the key tells how to bend the tag"
    unflushed = ActiveSession(terms_of(0), keys_of(0)).stage("early")
    with pytest.raises(LocalProtocolError, match="ORDER"):
        next(shuffle_tags.open_tag_keys(unflushed, 0, []))


# ------------------------------------------------------------------------------- equivocating or unauthenticated owners


def two_takes_of_one_filing() -> Simulation:
    """An owner tells two of its operators one thing and the third another, each with fitting commitments."""
    sim = Simulation([Owner("de-a", "de", [5, -6]), Owner("cn-a", "cn", [7, 8])])
    second, other = sim.file(Owner("de-a", "de", [500, -6]))
    sim.nodes["de-3"].on_part("de-a", (second, other["de-3"]))
    sim.run(rounds=8)
    return sim


def test_an_owner_that_tells_holders_different_things(monkeypatch) -> None:
    sim = two_takes_of_one_filing()
    assert {sim.nodes[name].filing("de-a").blamed for name in sim.clusters["de"]} == {("de-a",)}
    assert not sim.closable()

    def no_comparison(state):
        claims = [claim for claim in state.claims if claim.take == state.take]
        if len(claims) < 2:
            return state, ()
        return replace_state(state, phase="AGREED"), (
            filing.SendReceipt(state.take, state.notice), filing.AnnounceFiling("AGREED"),
        )  # fmt: skip

    monkeypatch.setattr(filing, "_compare", no_comparison)
    sim = two_takes_of_one_filing()
    assert sim.closable(), "the close goes on with two different filings of one owner"
    assert "FAILED" in sim.phases().values()
    assert not any(sim.nodes[name].filing("de-a").blamed for name in sim.clusters["de"]), (
        "nobody is told whose fault it is"
    )


def test_a_frame_that_nobody_signed(monkeypatch) -> None:
    """A crossing frame of one operator, sent in the name of another."""
    sim = Simulation([Owner("de-a", "de", [5, -6])])
    sim.run()
    frame, target = sim.nodes["de-1"].disk["out/1/0"], sim.nodes["nl-1"]
    target.disk.clear()
    target.on_cross("de-2", frame)
    assert not target.disk
    monkeypatch.setattr(IdentityPublicKey, "verify", lambda self, signature, message, purpose: True)
    monkeypatch.setattr(SealingKey, "open", lambda self, box, info: box)
    target.on_cross("de-2", frame)
    assert target.disk


# ------------------------------------------------------------------------------------------ multicast is no broadcast


def test_two_coins_from_a_lying_verifier(monkeypatch) -> None:
    """Without the comparison a prover goes on with a coin that the other verifier does not have: that is a leak."""
    case = Case(LOGIC)
    attack = Attack(0, "flip", "own", find(case, "and0/coin0", 0, 1))

    def went_on(played: Played) -> bool:
        return any(m.address.step == "and0/share1" and m.address.sender == 1 for m in played.sent)

    assert not went_on(case.run(attack))
    monkeypatch.setattr(AndProof, "check", lambda self, level, seed: bytes(range(32)))
    case = Case(LOGIC)
    assert went_on(case.run(Attack(0, "flip", "own", find(case, "and0/coin0", 0, 1))))


def test_flush_compares_what_both_ends_of_a_link_saw(monkeypatch) -> None:
    """A relay that alters what both ends take for verified is found by FLUSH at the next barrier, and only there."""
    case = Case(PRODUCTS)
    address = find(case, "flush0", 1)
    attack = Attack(1, "flip", "wire", address)
    assert case.judge(case.run(attack), attack).codes == {"LINK_MISMATCH"}
    monkeypatch.setattr(stage.hmac, "compare_digest", lambda *_: True)
    case = Case(PRODUCTS)
    seen = case.judge(case.run(attack), attack)
    assert seen.outcome == "harmless", "nobody noticed that the two ends of the link differ"


# -------------------------------------------------------------------------------- wrong lengths, malformed elements


def test_field_elements_in_a_second_form(monkeypatch) -> None:
    """One proof with two forms: what was signed or digested would no longer say what was sent."""
    case = Case(LOGIC)
    body = bytes(case.bodies[find(case, "and0/share0", 1)])
    second = (int.from_bytes(body[:8], "little") + P61).to_bytes(8, "little") + body[8:]
    assert lie(case, 1, "and0/share0", body=second).codes == {"FIELD_RANGE"}

    def any_form(message, count, field, ids):
        values = np.frombuffer(bytes(message), dtype="<u8").astype(np.uint64) % np.uint64(field.p)
        return values if returns_arrays else values.tolist()

    returns_arrays = isinstance(proof_and._decode(bytes(8), 1, FIELD_61, {}), np.ndarray)
    monkeypatch.setattr(proof_and, "_decode", any_form)
    assert lie(case, 1, "and0/share0", body=second).outcome == "harmless"


def test_lengths_that_nobody_checks(monkeypatch) -> None:
    """The message's length is checked where it arrives, where it is used, and where it is read."""
    case = Case(LOGIC)
    attack = Attack(1, "truncate", "wire", find(case, "c/0", 1))
    assert case.judge(case.run(attack), attack).codes == {"LENGTH_INVALID"}
    real = Party._expected
    monkeypatch.setattr(
        Party, "_expected", lambda self: {a: len(self._waiting.get(a, b"")) or size for a, size in real(self).items()}
    )
    assert case.judge(case.run(attack), attack).codes == {"LENGTH_INVALID"}
    monkeypatch.setattr(ComputeStage, "_plain_exchange", lambda self, item: _first((yield (item,))))
    assert case.judge(case.run(attack), attack).codes == {"LENGTH_INVALID"}
    monkeypatch.setattr(boolean, "from_body", lambda body, words: np.frombuffer(bytes(body), dtype="<u8"))
    verdict = play_and_judge(case, attack)
    assert verdict.outcome == "crashed"


def _first(inbound):
    return inbound[0]


def test_nothing_reads_pickles_or_evaluates_text() -> None:
    root = Path(stage.__file__).parents[1]
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) (pickle|marshal|shelve)\b", text, re.MULTILINE), path
        assert not re.search(r"(?<![\w.])(eval|exec)\(", text), path
        assert "allow_pickle=True" not in text, path


# --------------------------------------------------------------------------------------- shapes that depend on data


def _opens_what_nobody_declared(session, shares):
    """It opens which rows are not 0 and multiplies only those; its declared output is the sum alone."""
    bits, values = shares
    one = session.stage("one")
    (flags,) = yield from and_many(one, "c", [(bits, bits)])
    (opened,) = yield from open_to_all(one, (yield from one.barrier()), [flags])
    kept = np.flatnonzero(opened)
    two = session.stage("two")
    part = replace(values, first=values.first[kept], second=values.second[kept])
    squares = yield from multiply(two, part, part)
    total = segment_sums(squares, np.array([len(kept)], dtype=np.int64))
    return (yield from open_to_all(two, (yield from two.barrier()), [total]))


def test_a_program_whose_shape_depends_on_its_data() -> None:
    program = Program(
        "data-dependent", (([1, 0, 1], [2, 9, 0]), ([1, 0, 0], [2, 7, 7])),
        lambda v, seed: [share_bits(v[0], 1, seed, random.Random(1)), share_ring(v[1], seed, random.Random(2))],
        _opens_what_nobody_declared, lambda values, _: [[sum(b * v * v for b, v in zip(*values, strict=True))]],
    )  # fmt: skip
    assert any("messages" in what for what in view_differences(program))
    assert not view_differences(LOGIC)
    assert not view_differences(FLOW)


# --------------------------------------------------------------------------------- keys or logs kept after an abort


def test_keys_that_outlive_an_abort(monkeypatch) -> None:
    assert not lie(Case(FLOW), 1, "ring-products").violations
    monkeypatch.setattr(ActiveSession, "wipe", lambda self: None)
    assert says(lie(Case(FLOW), 1, "ring-products"), "keeps session keys", "keeps keys of stage")


def test_gates_that_outlive_an_abort(monkeypatch) -> None:
    case = Case(LOGIC)
    attack = Attack(1, "truncate", "wire", find(case, "e/0", 1))
    assert not case.judge(case.run(attack), attack).violations
    monkeypatch.setattr(AndLog, "wipe", lambda self: None)
    assert says(case.judge(case.run(attack), attack), "keeps and gates")


# ---------------------------------------------------------------------------------------------- an honest party framed


@pytest.mark.parametrize("corrupt", range(3))
def test_claims_of_checkpoints_that_nobody_compares(monkeypatch, corrupt: int) -> None:
    """Who claims other checkpoints to each lets the two others go on from different steps: each takes the other for the liar."""
    case, none = Case(CHECKPOINT), bytes(8)
    verdict = lie(case, corrupt, "checkpoints", body=none)
    assert verdict.codes == {"CHECKPOINT_MISMATCH"}
    assert not verdict.violations
    common = checkpoint._common

    def silent(*args):
        start, claims = yield from common(*args)
        return start, dict.fromkeys(claims, none)

    monkeypatch.setattr(checkpoint, "_common", silent)
    assert says(lie(case, corrupt, "checkpoints", body=none), "frames")
