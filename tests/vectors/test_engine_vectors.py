"""Each position, given its keys, its shares and what was sent to it, says exactly what the published vectors say.

A body that the vectors give as a digest comes from an honest run, and is checked against the digest before it is used.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mpc_ops import protocol
from mpc_ops.kernels import using
from mpc_ops.kernels.choice import Backend
from mpc_ops.protocol.core.party import Address, Message, Party
from mpc_ops.protocol.core.session import ActiveSession
from mpc_ops.protocol.core.shares import BooleanShare, RingShare
from mpc_ops.protocol.core.terms import PartyKeys, SessionTerms
from mpc_ops.randomness import PairKeys
from mpc_ops.ring import from_bytes
from tests.support.adversary import Case, plain_of, step_kind, traitor
from tests.support.attacked import ATTACKED
from tests.support.kernels import needs_compiled
from tests.vectors.engine_vectors import FREE, PROGRAMS, SEED, SHUFFLE, operations
from tests.vectors.table_vectors import ELSEWHERE, TABLE_PROGRAMS, slug

HERE = Path(__file__).parent
ALL = {**PROGRAMS, "shuffle": SHUFFLE, **TABLE_PROGRAMS}
PLACE = ("stage", "round", "part", "step", "sender", "receiver")


@cache
def load(name: str):
    loaded = json.loads((HERE / f"{slug(name)}.json").read_text(encoding="utf-8"))
    assert (loaded["schema"], loaded["version"]) == (f"comity/vectors/{slug(name)}", 2)
    return loaded["data"]


@cache
def case_of(name: str) -> Case:
    return Case(TABLE_PROGRAMS[name], seed=SEED) if name in TABLE_PROGRAMS else operations()[name]


def messages(name: str) -> dict[Address, bytes]:
    """Every message of the vectors; long bodies from an honest run, if they have the published length and digest."""
    data, out = load(name), {}
    for line in data["messages"]:
        stage, number, part, step, sender, receiver, said = line.split("|")
        address = Address(data["session"]["sid"], stage, int(number), int(part), step, int(sender), int(receiver))
        if said.startswith("sha256:"):
            body = bytes(case_of(name).bodies[address])
            _, digest, size = said.split(":")
            assert (hashlib.sha256(body).hexdigest(), len(body)) == (digest, int(size)), address
        else:
            body = bytes.fromhex(said)
        out[address] = body
    return out


def keys_of(data, component: int) -> PairKeys:
    key = {name: bytes.fromhex(value) for name, value in data["keys"][component % 3].items()}
    return PairKeys(**key, commit=bytes(32), send=bytes(32), receive=bytes(32))


def shares_of(data, position: int) -> list[BooleanShare | RingShare]:
    out: list[BooleanShare | RingShare] = []
    for column in data["inputs"]:
        kind, bits = column["kind"].split()
        own, following = (
            from_bytes(body, len(body) // 8)
            for body in (bytes.fromhex(column["components"][(position + turn) % 3]) for turn in (0, 1))
        )
        sid = data["session"]["sid"]
        if kind == "ring":
            out.append(RingShare(sid, position, own, following))
        else:
            planes = (own.reshape(int(bits), -1), following.reshape(int(bits), -1))
            out.append(BooleanShare(sid, position, len(column["values"]), *planes))
    return out


def as_numbers(value):
    if isinstance(value, list):
        return [as_numbers(one) for one in value]
    if isinstance(value, dict):
        return {name: as_numbers(one) for name, one in value.items()}
    return int(value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", ALL)
def test_inputs_add_up_to_the_values(name: str) -> None:
    for column in load(name)["inputs"]:
        parts = [np.frombuffer(bytes.fromhex(body), dtype="<u8") for body in column["components"]]
        values = [int(value) for value in column["values"]]
        if column["kind"].startswith("ring"):
            assert (parts[0] + parts[1] + parts[2]).tolist() == values
        else:
            planes = parts[0] ^ parts[1] ^ parts[2]
            assert [
                sum((int(plane) >> row & 1) << bit for bit, plane in enumerate(planes)) for row in range(len(values))
            ] == values


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("compiled", marks=needs_compiled)])
@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("name", ALL)
def test_a_position_alone_says_what_the_vectors_say(name: str, position: int, kernels: Backend) -> None:
    with using(kernels):
        _replay(name, position)


def _replay(name: str, position: int) -> None:
    data = load(name)
    session = data["session"]
    members = tuple(session["members"])
    terms = SessionTerms(
        sid=session["sid"], cluster=session["cluster"], attempt=session["attempt"], party=position, members=members,
        limit_bytes=session["limit_bytes"],
    )  # fmt: skip
    keys = PartyKeys(keys_of(data, position), keys_of(data, position + 1))
    steps = ActiveSession(terms, keys).run(lambda own: ALL[name].steps(own, tuple(shares_of(data, position))))
    party = Party(position, terms.sid, members, steps)
    said = party.start()
    expected = {}
    for address, body in messages(name).items():
        if address.receiver == position:
            said += party.receive(Message(address, body))
        if address.sender == position:
            expected[address] = body
    assert {message.address: bytes(message.body) for message in said} == expected
    assert plain_of(party.result) == as_numbers(data["results"][position])


@pytest.mark.parametrize("name", TABLE_PROGRAMS)
def test_results_are_those_of_the_plaintext(name: str) -> None:
    program, data = TABLE_PROGRAMS[name], load(name)
    for position in range(3):
        assert as_numbers(data["results"][position]) == plain_of(program.plain(program.cases[0], position))


def test_every_program_of_the_adversary_is_published() -> None:
    """And those run every protocol that sends something: tests/adversary/test_registry.py."""
    assert set(ATTACKED) - set(ALL) == set(ELSEWHERE) - {"shuffle"}


def test_every_form_of_message_has_a_bad_one() -> None:
    forms = {step_kind(address.step) for name in ALL for address in messages(name)}
    assert forms - {step_kind(bad["step"]) for name in ALL for bad in load(name)["bad"]} == set(FREE)


SENDING = {"exchange", "exchange_vouched", "evaluate", "and_many", "_and_taken"}
"""Functions that send something under the name of a step, which is one of their first arguments."""


def literal(node: ast.expr) -> str | None:
    """Text that stands in the source, with a sign for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "#" for part in node.values)
    return None


def steps_of_protocols() -> set[str]:
    """Names of steps that stand in the protocols' source."""
    found = set()
    for path in Path(protocol.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
            if name in SENDING:
                texts = [text for one in node.args[:2] if (text := literal(one)) is not None]
                found |= {step_kind(text) for text in texts[:1]}
    return found


def test_every_step_that_a_protocol_names_is_in_the_vectors() -> None:
    published = {step_kind(address.step) for name in ALL for address in messages(name)}
    steps = steps_of_protocols()
    assert {"shuffle-#", "ring-products", "checkpoints", "suppress"} <= steps
    # What is filled in is anything; circuits append the number of their step.
    forms = {step: re.compile(re.escape(step).replace(r"\#", ".+") + "(/#)?") for step in steps}
    assert not {step for step, form in forms.items() if not any(map(form.fullmatch, published))}


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("compiled", marks=needs_compiled)])
@pytest.mark.parametrize("name", ALL)
def test_bad_messages_are_noticed_by_the_parties_and_with_the_codes_of_the_vectors(name: str, kernels: Backend) -> None:
    case, bads = case_of(name), load(name)["bad"]
    assert len(bads) >= 2
    for bad in bads:
        address = Address(case.addresses[0].session, **{key: bad[key] for key in PLACE})
        body = bytearray(case.bodies[address])
        body[bad["byte"]] ^= 1
        with using(kernels):
            played = case.play(corrupt=address.sender, session_type=traitor({case.places[address]: bytes(body)}))
        found = {str(p): error.code for p, error in played.outcome.errors.items() if p != address.sender}
        assert found == bad["codes"], bad
