"""A small region stage with rounds, for tests of whatever drives a stage: it multiplies, compares, and opens behind a barrier.

Its output is the plain sum, so that a run's result is the one of the linear stage. `Trio` is three attempts in one process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mpc_ops.engine import (
    Attempt,
    AttemptContext,
    RegionInputs,
    RegionOutput,
    StageShape,
    finish_region,
    input_shares,
)
from mpc_ops.errors import ComityError
from mpc_ops.protocol.circuits.boolean import evaluate
from mpc_ops.protocol.circuits.compare import negative
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.shares import ring_zero
from mpc_ops.protocol.core.terms import PartyKeys
from mpc_ops.protocol.sums import CrossRoute
from mpc_ops.ring import encode_signed
from mpc_ops.session.messages import Frame, Message
from mpc_ops.sharing import parts_of, share
from tests.support.core import MEMBERS, PLAN, RUN, filing, hex32, identity

Opened = Callable[[list[int]], None]
Packet = tuple[int, int, Message]
NONCES = (hex32("n0"), hex32("n1"), hex32("n2"))


def rounds_program(
    inputs: RegionInputs, flow: Flow, keys: PartyKeys, attempt: int, opened: Opened | None = None
) -> Steps[RegionOutput]:
    """Multiply the sum by 1, open which lanes are negative (`opened` hears them), re-randomise, accept, cross."""
    shares = input_shares(inputs, flow)
    total = ring_zero(flow.stage, inputs.shape.lanes)
    for owner in shares:
        total = total.plus(owner)
    one = ring_zero(flow.stage, total.count).plus_public(np.ones(total.count, dtype=np.uint64))
    product = yield from multiply(flow.stage, total, one)
    (below,) = yield from evaluate(flow.stage, "below", [negative(product)])
    (signs,) = yield from flow.open([below])
    if opened is not None:
        opened(signs.tolist())
    return (yield from finish_region(inputs, flow, keys, attempt, product))


def paced(steps: Steps[Any], pause_s: float, begun: Callable[[int], None]) -> Steps[Any]:
    """Run a program with a pause before each round; `begun` hears the number of each."""
    number, inbound = 0, None
    while True:
        try:
            wanted = next(steps) if inbound is None else steps.send(inbound)
        except StopIteration as stop:
            return stop.value
        number += 1
        begun(number)
        time.sleep(pause_s)
        inbound = yield wanted


def attempt_context(party: int, **changes: Any) -> AttemptContext:
    fields = {
        "run_id": RUN, "cluster": "de", "attempt": 1, "kind": "region", "party": party, "members": MEMBERS,
        "keys": tuple(identity(name).public for name in MEMBERS), "federation_digest": hex32("f"), "plan_digest": PLAN,
        "period": "2026-10", "manifest_digest": hex32("m"),
    }  # fmt: skip
    return AttemptContext(**{**fields, **changes})


class Trio:
    """Three attempts of the program and the messages between them; `changes` by member alter its context.

    Attributes:
        log: every message that was sent, as (sender, receiver, message).
        errors: what ended an attempt, by position.
        opened: which lanes are negative, by position.
    """

    def __init__(
        self,
        values: list[list[int]] | None = None,
        *,
        program: Callable[..., Steps[RegionOutput]] = rounds_program,
        types: dict[int, type[Attempt]] | None = None,
        changes: dict[str, dict[str, Any]] | None = None,
        **everywhere: Any,
    ) -> None:
        self.values = values or [[5, -7, 0], [-6, 1, 0]]
        lanes = len(self.values[0])
        self.route = CrossRoute(
            run_id=RUN, source="de", target="group", crossing="cross", lanes=lanes, senders=MEMBERS,
            receivers=("nl-1", "ch-1", "sg-1"),
        )  # fmt: skip
        parts = [
            parts_of(share(encode_signed(row, -(2**40), 2**40)), filing(f"de{number}"))
            for number, row in enumerate(self.values)
        ]
        shape = StageShape(kind="region", lanes=lanes, ops=("region_sum", "cross"))
        self.log: list[Packet] = []
        self.errors: dict[int, ComityError] = {}
        self.opened: dict[int, list[int]] = {}
        self.attempts, self.stages = [], []
        for party, name in enumerate(MEMBERS):
            context = attempt_context(party, **everywhere, **(changes or {}).get(name, {}))
            self.attempts.append((types or {}).get(party, Attempt)(context, identity(name)))
            inputs = RegionInputs(
                shape=shape, party=party, parts=[owner[party] for owner in parts], route=self.route
            )  # fmt: skip

            def hear(signs: list[int], party: int = party) -> None:
                self.opened[party] = signs

            self.stages.append(lambda flow, keys, inputs=inputs, hear=hear: program(inputs, flow, keys, 1, opened=hear))

    def call(self, party: int, work: Callable[[], list[tuple[int, Message]]]) -> list[Packet]:
        """Let an attempt work unless it is over; return and log what it sends."""
        if party in self.errors:
            return []
        try:
            out = [(party, to, message) for to, message in work()]
        except ComityError as error:
            self.errors[party] = error
            return []
        self.log += out
        return out

    def start(self, party: int) -> list[Packet]:
        return self.call(party, lambda: self.attempts[party].start(NONCES, self.stages[party]))

    def play(
        self,
        queue: list[Packet],
        *,
        rng: random.Random | None = None,
        travel: Callable[[Packet], list[Packet]] = lambda packet: [packet],
    ) -> None:
        """Deliver until nothing is under way; `travel` says what becomes of a packet, `rng` shuffles the order."""
        while queue:
            packet = queue.pop(rng.randrange(len(queue)) if rng else 0)
            for sender, to, message in travel(packet):
                queue += self.call(
                    to, lambda to=to, sender=sender, message=message: self.attempts[to].receive(sender, message)
                )

    def run(self, **options: Any) -> Trio:
        self.play([packet for party in range(3) for packet in self.start(party)], **options)
        return self

    @property
    def done(self) -> list[int]:
        return [party for party, attempt in enumerate(self.attempts) if attempt.done is not None]

    def frames(self) -> list[tuple[int, int, Frame]]:
        return [(sender, to, message) for sender, to, message in self.log if isinstance(message, Frame)]

    def result(self) -> list[int]:
        """What the outputs of all who are done open to; asserts that the holders of each component agree."""
        shares = {party: self.attempts[party].done.output.share for party in self.done}
        assert len(shares) == 3
        for party in range(3):
            assert np.array_equal(shares[party].second, shares[(party + 1) % 3].first)
        total = shares[0].first + shares[1].first + shares[2].first
        return total.astype(np.int64).tolist()

    def combined(self, pair: list[int]) -> list[int] | None:
        """What the outputs of two positions open to, None unless both are done and agree on what both hold."""
        if not set(pair) <= set(self.done):
            return None
        one, other = sorted(pair) if sorted(pair) != [0, 2] else (2, 0)
        first, second = (self.attempts[party].done.output.share for party in (one, other))
        if not np.array_equal(first.second, second.first):
            return None
        return (first.first + first.second + second.second).astype(np.int64).tolist()

    def plain(self) -> list[int]:
        return [sum(column) for column in zip(*self.values, strict=True)]
