"""A session that goes on from a checkpoint, for the adversary. Part of the registry `attacked`."""

from __future__ import annotations

from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.checkpoint import encode_checkpoint, run_steps
from mpc_ops.protocol.core.flow import ActiveFlow
from mpc_ops.protocol.core.rows import Rows
from tests.support.adversary import Program
from tests.support.attacked_tables import M, tables

__all__ = ["CHECKPOINT"]

PLAN = "vectors"


class Memory:
    """A keeper whose checkpoints are the program's inputs."""

    def __init__(self, kept: dict[int, bytes]) -> None:
        self.kept = kept

    def numbers(self) -> list[int]:
        return sorted(self.kept)

    def save(self, number: int, data: bytes) -> None:
        self.kept[number] = bytes(data)

    def read(self, number: int) -> bytes:
        return self.kept[number]

    def drop(self, number: int) -> None:
        del self.kept[number]


def _squares(flow, rows):
    amount = yield from multiply(flow.stage, rows.ring("amount"), rows.ring("amount"))
    return rows.plus({"amount": amount})


def _resumed(session, shares):
    """Steps 1 and 2 of three, from checkpoint 1, which all three have; position 0 has a later one as well, which nobody uses."""
    bits, ring = shares
    rows, party = Rows({"key": bits, "amount": ring}), session.terms.party

    def saved(number: int) -> bytes:
        return encode_checkpoint(rows, plan=PLAN, number=number, party=party, security="active")

    keeper = Memory({number: saved(number) for number in ((1, 2) if party == 0 else (1,))})
    flow = ActiveFlow(session, "resumed")
    found = yield from run_steps(flow, keeper, PLAN, rows, [_squares] * 3)
    opened = yield from flow.open([found.bits("key"), found.ring("amount")])
    return [*opened, keeper.numbers()]


CHECKPOINT = Program(
    "checkpoint", (([3, 5, 9], [2, 3, 4]), ([3, 5, 9], [M - 2, 3, M - 4])), tables({"key": 4, "amount": 0}), _resumed,
    lambda inputs, _: [list(inputs[0]), [amount**4 % M for amount in inputs[1]], [1, 2]], names=("key", "amount"),
    ragged=("checkpoint",),  # which checkpoints there are is no secret
)  # fmt: skip
