"""Each position, given its keys, its shares and what was sent to it, says exactly what the published vectors say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mpc_ops.kernels import using
from mpc_ops.kernels.choice import Backend
from mpc_ops.protocol.core.party import Address, Message, Party
from mpc_ops.protocol.core.session import ActiveSession
from mpc_ops.protocol.core.shares import BooleanShare, RingShare
from mpc_ops.protocol.core.terms import PartyKeys, SessionTerms
from mpc_ops.randomness import PairKeys
from mpc_ops.ring import from_bytes
from tests.support.adversary import plain_of, traitor
from tests.support.kernels import needs_compiled
from tests.vectors.engine_vectors import PROGRAMS, SHUFFLE, cases

HERE = Path(__file__).parent
NAMES = [*PROGRAMS, "shuffle"]


def load(name: str):
    file = f"engine_{name.replace('-', '_')}"
    loaded = json.loads((HERE / f"{file}.json").read_text(encoding="utf-8"))
    assert (loaded["schema"], loaded["version"]) == (f"comity/vectors/{file}", 1)
    return loaded["data"]


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
    return [as_numbers(one) for one in value] if isinstance(value, list) else None if value is None else int(value)


@pytest.mark.parametrize("name", NAMES)
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
@pytest.mark.parametrize("name", NAMES)
def test_a_position_alone_says_what_the_vectors_say(name: str, position: int, kernels: Backend) -> None:
    with using(kernels):
        _replay(name, position)


def _replay(name: str, position: int) -> None:
    data = load(name)
    session = data["session"]
    program = SHUFFLE if name == "shuffle" else PROGRAMS[name]
    members = tuple(session["members"])
    terms = SessionTerms(
        sid=session["sid"], cluster=session["cluster"], attempt=session["attempt"], party=position, members=members,
        limit_bytes=session["limit_bytes"],
    )  # fmt: skip
    keys = PartyKeys(keys_of(data, position), keys_of(data, position + 1))
    steps = ActiveSession(terms, keys).run(lambda own: program.steps(own, tuple(shares_of(data, position))))
    party = Party(position, terms.sid, members, steps)
    said = party.start()
    expected = {}
    for message in data["messages"]:
        place = {name: message[name] for name in ("stage", "round", "part", "step", "sender", "receiver")}
        address, body = Address(terms.sid, **place), bytes.fromhex(message["body"])
        if message["receiver"] == position:
            said += party.receive(Message(address, body))
        if message["sender"] == position:
            expected[address] = body
    assert {message.address: bytes(message.body) for message in said} == expected
    assert plain_of(party.result) == as_numbers(data["results"][position])


def test_bad_messages_are_noticed_by_the_parties_and_with_the_codes_of_the_vectors() -> None:
    for name, case in cases().items():
        for bad in load(name)["bad"]:
            place = {key: bad[key] for key in ("stage", "round", "part", "step", "sender", "receiver")}
            address = Address(case.addresses[0].session, **place)
            body = bytearray(case.bodies[address])
            body[bad["byte"]] ^= 1
            played = case.play(corrupt=address.sender, session_type=traitor({case.places[address]: bytes(body)}))
            found = {str(p): error.code for p, error in played.outcome.errors.items() if p != address.sender}
            assert found == bad["codes"], (name, bad)
