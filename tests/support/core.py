"""Helpers for tests of the computational core: sharings, keys and a search over session machines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from msgspec.structs import replace as replace_struct

from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.errors import ComityError
from mpc_ops.protocol.sums import Share
from mpc_ops.randomness import PairKeys, derive
from mpc_ops.ring import RingArray
from mpc_ops.session import (
    SESSION,
    LinkDigests,
    Machine,
    Proven,
    Ready,
    Retry,
    Send,
    SessionState,
    StartWork,
    Stop,
    event_of,
    new_session,
)
from mpc_ops.session.messages import Accept, Committed, Failed, Message, Prepare
from mpc_ops.sharing import FilingContext, held_by, share

RUN = hashlib.sha256(b"a run").hexdigest()
PLAN = hashlib.sha256(b"a plan").hexdigest()
MEMBERS = ("de-1", "de-2", "de-3")


def hex32(*items: object) -> str:
    return hashlib.sha256(repr(items).encode()).hexdigest()


@cache
def identity(name: str) -> IdentityKey:
    """One key per name and test process: generating ML-DSA keys is what takes time."""
    return IdentityKey.generate()


def filing(owner: str = "de1", take: int = 1, *, edition: int = 1, period: str = "2026-10") -> FilingContext:
    return FilingContext(plan_digest=PLAN, period=period, owner=owner, edition=edition, take=take)


def shares_of(values: RingArray) -> tuple[Share, Share, Share]:
    """A fresh sharing, expanded, by position."""
    sharing = share(values)
    vectors = [component.expand(len(values)) for component in sharing.components]
    out = [Share(party, vectors[held_by(party)[0]].copy(), vectors[held_by(party)[1]].copy()) for party in range(3)]
    return out[0], out[1], out[2]


def open_shares(shares: tuple[Share, ...] | list[Share]) -> RingArray:
    """Add the three components and insist that both holders of each have the same one."""
    by_party = {item.party: item for item in shares}
    total = np.zeros(shares[0].lanes, dtype=np.uint64)
    for index in range(3):
        assert np.array_equal(by_party[index].first, by_party[(index - 1) % 3].second)
        total += by_party[index].first
    return total


def pair_keys(seed: object, component: int) -> PairKeys:
    """Test keys of the two holders of a component; both directions of frames are alike."""
    root = hashlib.sha256(repr((seed, component)).encode()).digest()
    return PairKeys(*(derive(root, name) for name in ("prg", "coin", "commit", "mac", "frame", "frame")))


# ------------------------------------------------------------------------------------------- search over the machines


@dataclass
class Violation(Exception):
    what: str
    trace: tuple[str, ...]


@dataclass
class Model:
    """Exhaustive search over three session machines.

    The network is a set of messages, each deliverable any number of times, in any order, or never: loss, duplication and
    reordering. A crash before a transition was stored is the event that never came; a crash after it and before sending
    is a message that is never delivered; a crash while PREPARED is Retry. `stops` adds withdrawals, cancels and failed
    checks at any party, at any time.

    Two reductions keep it small; the plain search (`reduced=False`) checks them on small bounds. An operator is assumed to
    say where it stands as soon as it stands there (what it would answer if asked). A message that can never again change
    its receiver is forgotten.
    """

    machine: Machine[SessionState] = SESSION
    max_attempt: int = 3
    stops: bool = False
    reduced: bool = True
    states: list[SessionState] = field(default_factory=list)
    ends: set[tuple[str, ...]] = field(default_factory=set)
    _ids: dict[SessionState, int] = field(default_factory=dict)
    _bits: dict[tuple[int, int, Message], int] = field(default_factory=dict)
    _moves: list[tuple[int, list[tuple[int, int, int, str]]]] = field(default_factory=list)
    _alive: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for sender in range(3):
            for receiver in (other for other in range(3) if other != sender):
                for attempt in range(1, self.max_attempt + 1):
                    where = {"run_id": RUN, "cluster": "de", "attempt": attempt}
                    for message in (
                        Prepare(**where, nonce=hex32("nonce", sender, attempt)),
                        Accept(**where, link_digest=hex32("frame", receiver, sender, attempt)),
                        Failed(**where, code="STOPPED"),
                        Committed(**where),
                    ):
                        self._bits[sender, receiver, message] = len(self._bits)
        # FLUSHED(attempt) of a party: what the others need to prove the attempt. One bit, readable by both.
        self._flush_base = len(self._bits)

    def _flush(self, party: int, attempt: int) -> int:
        return 1 << (self._flush_base + 3 * attempt + party)

    def _intern(self, state: SessionState) -> int:
        if state not in self._ids:
            self._ids[state] = len(self.states)
            self.states.append(state)
            self._moves.append((0, []))
            self._alive.append(self._still_useful(state))
        return self._ids[state]

    def _bit(self, sender: int, receiver: int, message: Message) -> int:
        # `ask` only makes the receiver repeat what it has said before, and that is in the set already.
        if isinstance(message, Prepare | Accept):
            message = replace_struct(message, ask=False)
        if isinstance(message, Failed):
            message = replace_struct(message, code="STOPPED", pair=())
        return 1 << self._bits[sender, receiver, message]

    def _stand(self, state: SessionState) -> int:
        """What the party would say if asked by a peer in any attempt."""
        where = {"run_id": RUN, "cluster": "de"}
        out = 0
        for peer in state.peers:
            if state.phase == "COMMITTED":
                out |= self._bit(state.party, peer, Committed(**where, attempt=state.attempt))
            if state.phase in ("FAILED", "REFUSED"):
                for attempt in range(max(1, state.attempt), self.max_attempt + 1):
                    out |= self._bit(state.party, peer, Failed(**where, attempt=attempt, code="STOPPED"))
        return out

    def _still_useful(self, state: SessionState) -> int:
        """Messages that can still change this party, now or later."""
        if not self.reduced:
            return (1 << (self._flush_base + 3 * self.max_attempt + 3)) - 1
        if state.phase not in ("IDLE", "PREPARED", "ACCEPTED"):
            return 0
        known = {(peer.party, peer.attempt) for peer in state.prepares}
        accepted = {peer.party for peer in state.accepts}
        out = 0
        for (sender, receiver, message), bit in self._bits.items():
            if receiver != state.party or message.attempt < state.attempt:
                continue
            same = message.attempt == state.attempt
            if (
                isinstance(message, Prepare)
                and same
                and ((sender, message.attempt) in known or state.phase == "ACCEPTED")
            ):
                continue
            if isinstance(message, Accept) and same and sender in accepted:
                continue
            out |= 1 << bit
        first = state.attempt + (state.phase == "ACCEPTED")
        for attempt in range(max(1, first), self.max_attempt + 1):
            for party in range(3):
                out |= self._flush(party, attempt)
        return out

    def _events(self, state: SessionState) -> list[tuple[int, object]]:
        """Return (messages that must be there, event) of everything that can happen to a party."""
        party = state.party
        out: list[tuple[int, object]] = []
        if state.phase == "IDLE":
            first = max([1, *(peer.attempt for peer in state.prepares)])
            out.append((0, Ready(hex32("nonce", party, first))))
        if state.phase in ("PREPARED", "ACCEPTED") and state.attempt < self.max_attempt:
            out.append((0, Retry(hex32("nonce", party, state.attempt + 1))))
        if state.phase == "PREPARED":
            links = tuple(
                LinkDigests(
                    peer, hex32("frame", party, peer, state.attempt), hex32("frame", peer, party, state.attempt)
                )
                for peer in state.peers
            )
            needs = sum(self._flush(other, state.attempt) for other in range(3))
            out.append((needs, Proven(state.attempt, links)))
        if self.stops and state.phase in ("IDLE", "PREPARED", "ACCEPTED"):
            out.append((0, Stop("STOPPED")))
        for (sender, receiver, message), bit in self._bits.items():
            if receiver == party and (self._still_useful(state) >> bit & 1):
                out.append((1 << bit, event_of(message, sender, hex32("nonce", party, message.attempt))))
        return out

    def _possible(self, number: int) -> list[tuple[int, int, int, str]]:
        """Return [(messages needed, next state id, messages added, event)] of a party's state; computed once."""
        done, moves = self._moves[number]
        if done:
            return moves
        state = self.states[number]
        for needs, event in self._events(state):
            try:
                after, actions = self.machine.step(state, event)
            except ComityError as error:
                # Remembered as a move to -1: it is a violation only if the search can get there.
                moves.append((needs, -1, 0, f"{type(error).__name__}: {error}"))
                continue
            added = self._stand(after) if self.reduced else 0
            for action in actions:
                if isinstance(action, Send):
                    added |= self._bit(state.party, action.to, action.message)
                if isinstance(action, StartWork):
                    added |= self._flush(state.party, action.attempt)
            following = self._intern(after)
            moves.append((needs, following, added, f"P{state.party} {event}"))
        self._moves[number] = (1, moves)
        return moves

    def search(self, limit: int = 2_000_000) -> int:
        """Visit every reachable global state; return their number or raise Violation."""
        start = tuple(self._intern(new_session(RUN, "de", "region", MEMBERS, party)) for party in range(3))
        root = (*start, 0)
        seen = {root}
        parent: dict[tuple[int, ...], tuple[tuple[int, ...], str]] = {}
        stack: list[tuple[int, ...]] = [root]
        alive = self._alive
        while stack:
            node = stack.pop()
            one, two, three, net = node
            for party in range(3):
                for needs, after, added, event in self._possible(node[party]):
                    if net & needs != needs:
                        continue
                    if after < 0:
                        raise Violation(event, self._trace(parent, node))
                    if party == 0:
                        ids = (after, two, three)
                    elif party == 1:
                        ids = (one, after, three)
                    else:
                        ids = (one, two, after)
                    left = (net | added) & (alive[ids[0]] | alive[ids[1]] | alive[ids[2]])
                    following = (*ids, left)
                    if following not in seen:
                        seen.add(following)
                        parent[following] = (node, event)
                        if after != node[party]:
                            self._check(following, parent)
                        stack.append(following)
            if len(seen) > limit:
                raise AssertionError(f"more than {limit} states")
        return len(seen)

    def _check(self, node: tuple[int, ...], parent: dict[tuple[int, ...], tuple[tuple[int, ...], str]]) -> None:
        states = [self.states[number] for number in node[:3]]
        phases = tuple(state.phase for state in states)
        self.ends.add(phases)
        if "COMMITTED" not in phases:
            return
        attempts = {state.attempt for state in states}
        if len(attempts) > 1 or "FAILED" in phases or "REFUSED" in phases:
            where = ", ".join(f"{state.phase}({state.attempt})" for state in states)
            raise Violation(f"split commit: {where}", self._trace(parent, node))

    def _trace(
        self, parent: dict[tuple[int, ...], tuple[tuple[int, ...], str]], node: tuple[int, ...]
    ) -> tuple[str, ...]:
        out = []
        while node in parent:
            node, event = parent[node]
            out.append(event)
        return tuple(reversed(out))


def with_rule(
    machine: Machine[SessionState], phase: str, event: type, apply: Callable[..., object], to: tuple[str, ...]
):
    """Return the machine with the unguarded rule of (phase, event) replaced: a planted bug for the search to find."""
    rules, found = [], 0
    for rule in machine.rules:
        if rule.states == (phase,) and rule.event is event:
            rule, found = replace(rule, apply=apply, to=to), found + 1  # noqa: PLW2901
        rules.append(rule)
    assert found == 1
    return replace(machine, rules=tuple(rules))


__all__ = [
    "MEMBERS",
    "PLAN",
    "RUN",
    "Committed",
    "Model",
    "Violation",
    "filing",
    "hex32",
    "identity",
    "open_shares",
    "pair_keys",
    "shares_of",
    "with_rule",
]
