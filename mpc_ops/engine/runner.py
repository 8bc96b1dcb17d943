"""Run one party's protocol over its two data links: messages of `Party` out, messages of the peers in.

```
mesh, keys = open_mesh(identity, signer, terms, listener, peers)
party = Party(position, sid, members, session.run(program))
result = drive(party, mesh, timeout_s=600)
```
The protocol computes in the calling thread; sealing, sending and receiving happen in the links' threads meanwhile.
"""

from __future__ import annotations

import time
from typing import TypeVar

from mpc_ops.errors import PeerProtocolError, PeerTimeout
from mpc_ops.federation.pki import PartyId
from mpc_ops.protocol.core.party import Address, Message, Party
from mpc_ops.transport.datalink import Arrived, Label
from mpc_ops.transport.datamesh import DataMesh

__all__ = ["address_of", "drive", "label_of"]

T = TypeVar("T")


def label_of(address: Address) -> Label:
    """Return where a link puts a message: the step's text holds round and part as well."""
    return Label(address.session, address.stage, f"{address.round}/{address.part}/{address.step}")


def address_of(arrived: Arrived, members: tuple[PartyId, PartyId, PartyId], receiver: int) -> Address:
    """Return the address of a message from a link; its sender is the one whose keys opened it.

    Raises:
        PeerProtocolError: MESSAGE_FOREIGN if the label has another form.
    """
    label = arrived.label
    numbers = label.step.split("/", 2)
    if len(numbers) == 3 and all(text.isascii() and text.isdecimal() and len(text) < 10 for text in numbers[:2]):
        address = Address(
            label.session, label.stage, int(numbers[0]), int(numbers[1]), numbers[2],
            members.index(arrived.peer), receiver,
        )  # fmt: skip
        if label_of(address) == label:
            return address
    raise PeerProtocolError("MESSAGE_FOREIGN", "a message's place has no valid form", ids={"party": arrived.peer})


def drive(
    party: Party[T],
    members: tuple[PartyId, PartyId, PartyId],
    mesh: DataMesh,
    *,
    timeout_s: float,
    silent_s: float = 60.0,
) -> T:
    """Run a protocol to its end and return its result.

    Args:
        party: the protocol, not started.
        members: operator ids by position.
        mesh: links to the two others; stays open. After an error it must be closed: the peers learn of it by that.
        timeout_s: most seconds for the whole run.
        silent_s: most seconds without any message while one is awaited.

    Raises:
        PeerTimeout: LINK_TIMEOUT.
        PeerUnavailable: a link ended (PEER_CLOSED, LINK_CLOSED, LINK_FAILED, LINK_TIMEOUT).
        PeerProtocolError: what a link or `Party.receive` refuses.
        ComityError: what the protocol raises.
    """
    deadline = time.monotonic() + timeout_s
    _send(mesh, members, party.start())
    while not party.done:
        left = deadline - time.monotonic()
        if left <= 0:
            raise PeerTimeout("LINK_TIMEOUT", "the run takes longer than it may", ids={"round": party.rounds})
        arrived = mesh.receive(min(left, silent_s), {members[position] for position in party.awaited})
        message = Message(address_of(arrived, members, party.party), arrived.body)
        _send(mesh, members, party.receive(message))
    return party.result


def _send(mesh: DataMesh, members: tuple[PartyId, PartyId, PartyId], messages: list[Message]) -> None:
    for message in messages:
        mesh.send(members[message.address.receiver], label_of(message.address), message.body)
