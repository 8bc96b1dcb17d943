"""Checkpoints: a session that fails goes on where all three had accepted; altered, foreign and missing ones are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.boolean import and_many
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.checkpoint import decode_checkpoint, encode_checkpoint, run_steps
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.protocol.core.session import ActiveSession
from tests.support.active import as_passive, keys_of, run_flow, share_bits, share_ring, small_proofs, terms_of

KEYS = [3, 5, 9, 14, 1]
AMOUNTS = [10, 20, 30, 40, 50]
PLAN = "p" * 64


class Disk:
    """A keeper in memory."""

    def __init__(self):
        self.kept = {}

    def numbers(self):
        return sorted(self.kept)

    def save(self, number, data):
        self.kept[number] = bytes(data)

    def read(self, number):
        return self.kept[number]

    def drop(self, number):
        del self.kept[number]


@pytest.fixture(autouse=True)
def small_layout(monkeypatch):
    small_proofs(monkeypatch)


def inputs(security, seed):
    bits, ring = share_bits(KEYS, 4, seed), share_ring(AMOUNTS, seed)
    if security == "passive":
        bits, ring = [as_passive(one) for one in bits], [as_passive(one) for one in ring]
    return [Rows({"key": bits[party], "amount": ring[party]}) for party in range(3)]


def squares(flow, rows):
    amount = yield from multiply(flow.stage, rows.ring("amount"), rows.ring("amount"))
    return rows.plus({"amount": amount})


def halves(flow, rows):
    (key,) = yield from and_many(flow.stage, "halves", [(rows.bits("key"), rows.bits("key"))])
    (opened,) = yield from flow.open([key[:1]])  # a declared opening in the middle of a step
    assert opened.tolist() == [key & 1 for key in KEYS]
    return rows.plus({"key": key})


STEPS = [squares, halves, squares]
RESULT = [KEYS, [amount**4 for amount in AMOUNTS]]


def run(disks, seed, security="active", *, steps=STEPS, fail_at=None, plan=PLAN, **options):
    """Run the program; `fail_at` = (party, step) whose step raises."""
    rows = inputs(security, seed)

    def program(flow):
        party = flow.stage.party

        def maybe(number, step):
            def work(flow, rows):
                if fail_at == (party, number):
                    raise LocalProtocolError("STAGE_ORDER", "the disk is gone")
                ran.append((party, number))
                return (yield from step(flow, rows))

            return work

        counted = [maybe(number, step) for number, step in enumerate(steps)]
        found = yield from run_steps(flow, disks[party], plan, rows[party], counted)
        return (yield from flow.open([found.bits("key"), found.ring("amount")]))

    ran = []
    out = run_flow(program, security=security, seed=seed, **options)
    return out, ran


@pytest.mark.parametrize("security", ["active", "passive"])
@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("party", range(3))
def test_a_session_that_fails_goes_on_from_the_last_common_checkpoint(party, step, security):
    disks = [Disk() for _ in range(3)]
    out, _ = run(disks, "first", security, fail_at=(party, step))
    assert out.errors
    assert disks[party].numbers() == list(range(1, step + 1))
    out, ran = run(disks, "second", security)
    assert not out.errors
    assert {number for _, number in ran} == set(range(step, 3))
    assert [part.tolist() for part in out.results[0]] == RESULT


def test_a_lost_checkpoint_sends_all_three_back_to_an_earlier_one():
    disks = [Disk() for _ in range(3)]
    assert not run(disks, "first")[0].errors
    del disks[1].kept[2]
    out, ran = run(disks, "second")
    assert {number for _, number in ran} == {1, 2}
    assert [part.tolist() for part in out.results[0]] == RESULT
    disks[2].kept.clear()
    out, ran = run(disks, "third")
    assert {number for _, number in ran} == {0, 1, 2}
    assert [part.tolist() for part in out.results[0]] == RESULT


@pytest.mark.parametrize("party", range(3))
def test_a_crash_while_steps_run_again_leaves_no_old_checkpoint_beside_new_ones(party):
    disks = [Disk() for _ in range(3)]
    assert not run(disks, "first")[0].errors
    disks[(party + 1) % 3].kept.clear()  # all start again; one dies before it saves the first step anew

    class Full(Disk):
        def save(self, number, data):
            raise LocalProtocolError("STAGE_ORDER", "the disk is gone")

    full = Full()
    full.kept = disks[party].kept
    assert run([full if place == party else disk for place, disk in enumerate(disks)], "second")[0].errors
    out, _ = run(disks, "third")
    assert not out.errors, out.errors
    assert [part.tolist() for part in out.results[0]] == RESULT


@pytest.mark.parametrize("party", range(3))
@pytest.mark.parametrize("side", ["first", "second"])
def test_a_share_that_was_altered_on_a_disk_is_found_before_it_is_used(party, side):
    disks = [Disk() for _ in range(3)]
    run(disks, "first", fail_at=(0, 2))
    data = bytearray(disks[party].kept[2])
    data[-1 if side == "second" else -1 - 8 * len(AMOUNTS)] ^= 1  # the last column is a ring column: first, then second
    disks[party].kept[2] = bytes(data)
    out, _ = run(disks, "second")
    assert not out.results
    codes = {error.code for error in out.errors.values()}
    assert codes == {"CHECKPOINT_MISMATCH"}
    assert all(f"de-{party + 1}" in error.ids["pair"] for error in out.errors.values())


def altered(step, sender, receiver, change):
    """A network that changes one message."""

    def mutate(message):
        place = message.address
        if place.step != step or (place.sender, place.receiver) != (sender, receiver):
            return [message]
        return [replace(message, body=change(bytes(message.body)))]

    return mutate


def first_byte(value):
    return lambda body: bytes([value]) + body[1:]


@pytest.mark.parametrize("claimed", [0, 1 << 1, 1 << 1 | 1 << 2 | 1 << 5])
@pytest.mark.parametrize(("liar", "told"), [(0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1)])
def test_a_party_that_says_another_set_to_each_is_stopped_and_nobody_else_is_suspected(liar, told, claimed):
    disks = [Disk() for _ in range(3)]
    run(disks, "first")
    out, ran = run(disks, "second", mutate=altered("checkpoints", liar, told, first_byte(claimed)))
    assert not out.results
    assert {position for position, _ in ran} <= {liar}
    assert {0, 1, 2} - {liar} <= set(out.errors)
    for position, error in out.errors.items():
        if position != liar:
            assert error.code == "CHECKPOINT_MISMATCH"
            assert f"de-{liar + 1}" in error.ids["pair"].split(",")


@pytest.mark.parametrize("liar", range(3))
def test_a_party_that_misquotes_another_is_one_of_the_named_pair(liar):
    disks = [Disk() for _ in range(3)]
    run(disks, "first")
    told = (liar + 1) % 3
    out, _ = run(disks, "second", mutate=altered("checkpoint-held", liar, told, first_byte(1)))
    assert out.errors[told].code == "CHECKPOINT_MISMATCH"
    assert f"de-{liar + 1}" in out.errors[told].ids["pair"].split(",")
    assert not out.results


def test_checkpoints_of_another_plan_step_position_or_kind_are_refused():
    disks = [Disk() for _ in range(3)]
    run(disks, "first")
    out, _ = run(disks, "second", plan="q" * 64)
    assert {error.code for error in out.errors.values()} == {"CHECKPOINT_INVALID"}
    data = disks[0].kept[1]
    stage = ActiveFlow(ActiveSession(terms_of(0, "x"), keys_of(0, "x")), "f").stage
    rows = decode_checkpoint(data, stage, plan=PLAN, number=1)
    assert rows.shape() == (("key", 4), ("amount", None))
    other = ActiveFlow(ActiveSession(terms_of(1, "x"), keys_of(1, "x")), "f").stage
    for bad, at, number in (
        (data, stage, 2),
        (data, other, 1),
        (data[:-1], stage, 1),
        (data + b"x", stage, 1),
        (b"", stage, 1),
        (data[:3], stage, 1),
        (b"\x05\x00\x00\x00hello" + data, stage, 1),
        ((1 << 31).to_bytes(4, "little") + data[4:], stage, 1),
    ):
        with pytest.raises(LocalProtocolError) as caught:
            decode_checkpoint(bad, at, plan=PLAN, number=number)
        assert caught.value.code == "CHECKPOINT_INVALID"


def test_a_checkpoint_says_its_shape_and_costs_what_its_docstring_says():
    rows = inputs("active", "s")[0]
    data = encode_checkpoint(rows, plan=PLAN, number=1, party=0, security="active")
    assert len(data) < 600
    disks = [Disk() for _ in range(3)]
    out, _ = run(disks, "first", steps=[squares])
    sent = [out.sizes[address] for address in out.log if address.step.startswith("checkpoint") and address.sender == 0]
    assert sent == [8, 8, 40, 40]
    run(disks, "second", fail_at=(1, 1))
    out, _ = run(disks, "third")
    sent = [out.sizes[address] for address in out.log if address.step.startswith("checkpoint") and address.sender == 0]
    assert sent == [8, 8, 40, 40]
    passive, _ = run([Disk() for _ in range(3)], "fourth", "passive", steps=[squares])
    sent = [size for address, size in passive.sizes.items() if address.step.startswith("checkpoint")]
    assert sent == [8] * 6


def test_a_program_has_one_to_64_steps():
    disks = [Disk() for _ in range(3)]
    for steps in ([], [squares] * 65):
        out, _ = run(disks, "s", steps=steps)
        assert {error.code for error in out.errors.values()} == {"STEPS_INVALID"}
