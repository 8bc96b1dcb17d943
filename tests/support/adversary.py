"""A corrupt party in any position against any protocol: programs, lies at any message's address, and a judge of the outcome.

A `Program` is a small plan on shares whose result is known. `Case` runs it once honestly and remembers every message. An
`Attack` then changes one message of one party, or what that party computes with; `Case.run` plays the same session again with
it, and `Case.judge` says what became of it and what should never have happened.

Kinds of lie: on the wire (`wire`: the party's own transcript has the honest message, so the two ends of the link differ),
consistent (`own`: its transcript follows the lie, so FLUSHED agrees), and deep (`stream`, `input`: it computes everything
from another mask or another share). The corrupt party ignores every check that fails at its own place and goes on.

Everything is deterministic: keys, shares and changes come from seeds, so a message's honest body is that of the honest run.
"""

from __future__ import annotations

import contextlib
import hmac
import random
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any
from unittest import mock

import numpy as np

from mpc_ops.errors import ComityError
from mpc_ops.protocol.core.party import Address, Message, Party
from mpc_ops.protocol.core.session import ActiveSession
from mpc_ops.protocol.core.stage import ActiveStage
from mpc_ops.protocol.proofs import proof_and, proof_ring
from tests.support.active import MEMBERS, Network, Outcome, flip, keys_of, terms_of
from tests.support.attacks import CONTENT, DELIVERY, EXTRA, HARMLESS, KINDS, SAME_LENGTH, Attack, partner

# ------------------------------------------------------------------------------------------------------------ programs


@dataclass(frozen=True)
class Program:
    """A plan on shares with a known result.

    Attributes:
        name: unique.
        cases: at least two inputs of one shape that have the same outputs (so that views of them can be compared).
        share: (inputs, session seed) -> for every input its shares by position.
        steps: (session, own shares) -> protocol steps that end with plain numbers, arrays or None.
        plain: (inputs, position) -> the result that an honest position must get.
        limit_bytes: logged bytes at which a batch is proven.
        opening: whether a step's messages are openings of values that must have been verified.
        public: of the values that one opening tells, what must be the same for all cases.
        ragged: beginnings of steps whose messages end in zero bits, since there are fewer rows than a word has, or say what is public.
        names: of the inputs, for published vectors.
    """

    name: str
    cases: tuple[Any, ...]
    share: Callable[[Any, object], Sequence[Sequence[Any]]]
    steps: Callable[[ActiveSession, tuple[Any, ...]], Any]
    plain: Callable[[Any, int], Any]
    limit_bytes: int = 1 << 25
    opening: Callable[[str], bool] = lambda step: step == "open"
    public: Callable[[Any], Any] = lambda values: values
    ragged: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def plain_of(value: Any) -> Any:
    """Return arrays and numpy numbers as Python lists and numbers, tuples as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [plain_of(one) for one in value]
    return value


# --------------------------------------------------------------------------------------------------------- the parties


class Acting:
    """Whose code runs, and who ignores what its checks say."""

    party: int | None = None
    corrupt: int | None = None

    @classmethod
    def shameless(cls) -> bool:
        return cls.party is not None and cls.party == cls.corrupt


@contextlib.contextmanager
def shameless_party() -> Iterator[None]:
    """Let the corrupt party of every run go on whatever its own checks say. Around all runs of a test."""
    compare, fits, passes = hmac.compare_digest, proof_and.values_fit, proof_ring.passes
    with (
        mock.patch.object(hmac, "compare_digest", lambda a, b: Acting.shameless() or compare(a, b)),
        mock.patch.object(proof_and, "values_fit", lambda *args: Acting.shameless() or fits(*args)),
        mock.patch.object(proof_ring, "passes", lambda *args: Acting.shameless() or passes(*args)),
    ):
        yield


class Arena(Network):
    """A network that knows whose turn it is, can hold messages back until all else is delivered, and keeps the bodies."""

    def __init__(self, *args: Any, corrupt: int | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.corrupt = corrupt
        self.held: list[Message] = []
        self.sent: list[Message] = []

    def _send(self, messages: Sequence[Message]) -> None:
        self.sent += messages
        super()._send(messages)

    def _call(self, party: int, action: Callable[[], list[Message]]) -> None:
        Acting.party, Acting.corrupt = party, self.corrupt
        try:
            super()._call(party, action)
        finally:
            Acting.party = Acting.corrupt = None

    def run(self) -> Outcome:
        out = super().run()
        while self.held:
            self.queue = self.held[:]
            self.held.clear()
            while self.queue:
                message = self._pick()
                receiver = self.parties[message.address.receiver]
                self._call(receiver.party, lambda to=receiver, what=message: to.receive(what))
        out.results = {party.party: party.result for party in self.parties if party.done}
        return out


class WatchedStage(ActiveStage):
    """Keeps its gate logs in sight, so that a test can see whether they were wiped."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen_logs: list[Any] = []

    def log(self, kind: Any) -> Any:
        found = super().log(kind)
        if found not in self.seen_logs:
            self.seen_logs.append(found)
        return found


class WatchedSession(ActiveSession):
    """Keeps its stages in sight."""

    stage_type = WatchedStage

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: list[WatchedStage] = []

    def stage(self, name: str) -> Any:
        made = super().stage(name)
        self.seen.append(made)
        return made

    def left_over(self) -> list[str]:
        """Say what an ended session still holds."""
        found = ["session keys"] if self._keys is not None else []
        for stage in self.seen:
            found += [f"keys of stage {stage.name}"] if stage._keys is not None else []
            found += [f"token of stage {stage.name}"] if stage._token is not None else []
            found += [f"{log.kind} gates of stage {stage.name}" for log in stage.seen_logs if log.pending_bytes]
        return found


Place = tuple[str, str, str, int]
"""Stage, step, way (`prev`, `next`) and how many messages of that step this stage sent that way before."""


def traitor(
    own: dict[Place, bytes], streams: tuple[int, int] | None = None, applied: list[object] | None = None
) -> type[ActiveSession]:
    """Return the session of a party that says other things than it computed, or computes with another mask.

    Args:
        own: bodies that replace messages before the party's own transcript sees them.
        streams: (number of the call over all stages, side): that stream's first word, or that seed, is another one.
        applied: gets an item for every lie that was told.
    """
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    calls = [0]
    done = applied if applied is not None else []

    class TraitorStage(WatchedStage):
        def _bend(self, step: str, way: str, body: bytes) -> bytes:
            place = (self.name, step, way, counts[self.name, step, way])
            counts[self.name, step, way] += 1
            if place in own:
                done.append(place)
                return own[place]
            return body

        def exchange(self, step, *, to_prev=b"", to_next=b"", expect_prev=0, expect_next=0):
            to_prev = self._bend(step, "prev", to_prev) if to_prev else to_prev
            to_next = self._bend(step, "next", to_next) if to_next else to_next
            return super().exchange(
                step, to_prev=to_prev, to_next=to_next, expect_prev=expect_prev, expect_next=expect_next
            )

        within = False  # whether seeds are drawn for a stream, which is bent as a whole

        def streams(self, purpose, lanes):
            self.within = True
            both = super().streams(purpose, lanes)
            self.within = False
            if streams is not None and calls[0] - 1 == streams[0] and lanes:
                done.append(streams)
                both = tuple(part.copy() for part in both)
                both[streams[1]][0] ^= np.uint64(1)
            return both

        def seeds(self, purpose):
            both = super().seeds(purpose)
            number, calls[0] = calls[0], calls[0] + 1
            if streams is not None and number == streams[0] and not self.within:
                done.append(streams)
                both = tuple(bytes(32) if side == streams[1] else seed for side, seed in enumerate(both))
            return both

    class TraitorSession(WatchedSession):
        stage_type = TraitorStage

    return TraitorSession


# ------------------------------------------------------------------------------------------------------------ the case


@dataclass
class Played:
    """One run: how it ended, what was sent, the sessions, and whether the lie was told."""

    outcome: Outcome
    sent: list[Message]
    sessions: list[WatchedSession]
    told: bool = True


@dataclass
class Verdict:
    """What became of an attack: `detected` (an honest party raised), `waiting` or `harmless`, and what must never be."""

    outcome: str
    codes: frozenset[str]
    violations: list[str] = field(default_factory=list)


class Case:
    """One program with one input and one session, and its honest run."""

    def __init__(self, program: Program, *, seed: object = "case", number: int = 0, attempt: int = 1) -> None:
        """Play honestly; another attempt has another session id and the same pair keys and shares."""
        self.program, self.seed, self.number, self.attempt = program, seed, number, attempt
        self.honest = self.play()
        assert not self.honest.outcome.errors, (program.name, self.honest.outcome.errors)
        for position in range(3):
            self._check_result(position)

    def _check_result(self, position: int) -> None:
        got = plain_of(self.honest.outcome.results[position])
        assert got == self.expected[position], (self.program.name, position, got, self.expected[position])

    @cached_property
    def expected(self) -> list[Any]:
        """Right results by position."""
        inputs = self.program.cases[self.number]
        return [plain_of(self.program.plain(inputs, position)) for position in range(3)]

    @cached_property
    def bodies(self) -> dict[Address, bytes]:
        """Every message of the honest run, in order of sending."""
        return {message.address: message.body for message in self.honest.sent}

    @cached_property
    def addresses(self) -> list[Address]:
        return list(self.bodies)

    @cached_property
    def elsewhere(self) -> dict[Address, bytes]:
        """The bodies of another session of the same program, under this session's addresses."""
        session = self.addresses[0].session
        other = Case(self.program, seed=(self.seed, "another"), number=self.number)
        return {replace(address, session=session): body for address, body in other.bodies.items()}

    @cached_property
    def stages(self) -> dict[str, int]:
        """Stages in order."""
        first: dict[str, int] = {}
        for address in self.addresses:
            first[address.stage] = min(first.get(address.stage, address.round), address.round)
        return {name: number for number, name in enumerate(sorted(first, key=lambda name: first[name]))}

    @cached_property
    def places(self) -> dict[Address, Place]:
        """Every address as its sender counts it."""
        counts: dict[tuple[int, str, str, str], int] = defaultdict(int)
        out: dict[Address, Place] = {}
        for address in sorted(self.addresses, key=lambda place: (place.round, place.part)):
            way = "next" if (address.receiver - address.sender) % 3 == 1 else "prev"
            key = (address.sender, address.stage, address.step, way)
            out[address] = (address.stage, address.step, way, counts[key])
            counts[key] += 1
        return out

    @cached_property
    def stream_calls(self) -> int:
        """How often a party draws streams."""
        return sum(stage._streams for stage in self.honest.sessions[0].seen)

    # ------------------------------------------------------------------------------------------------------- running

    def play(
        self,
        *,
        corrupt: int | None = None,
        session_type: type[WatchedSession] = WatchedSession,
        tampered: tuple[int, int] | None = None,
        mutate: Callable[[Message], list[Message]] | None = None,
        arena: Callable[..., Arena] = Arena,
        **network: Any,
    ) -> Played:
        """Run the session; `corrupt` has another session type, tampered input shares, or messages that `mutate` changes."""
        inputs = self.program.share(self.program.cases[self.number], self.seed)
        parties, sessions = [], []
        for position in range(3):
            terms = terms_of(position, self.seed, self.program.limit_bytes, self.attempt)
            shares = [replace(by_position[position], session=terms.sid) for by_position in inputs]
            if tampered is not None and position == corrupt:
                shares[tampered[0]] = _tampered(shares[tampered[0]], tampered[1])
            kind = session_type if position == corrupt else WatchedSession
            sessions.append(kind(terms, keys_of(position, self.seed)))
            steps = sessions[-1].run(lambda session, mine=tuple(shares): self.program.steps(session, mine))
            parties.append(Party(position, terms.sid, MEMBERS, steps))
        net = arena(parties, corrupt=corrupt, mutate=mutate, **network)
        outcome = net.run()
        for party in parties:
            if not party.done and party.party not in outcome.errors:
                party._program.close()  # what a time limit does to a party that waits
        return Played(outcome, net.sent, sessions)

    def run(self, attack: Attack, **network: Any) -> Played | None:
        """Play an attack; None if there is nothing to do it with (no other message of that length)."""
        applied: list[object] = []
        if attack.lie == "deep":
            session = traitor({}, attack.deep if attack.change == "stream" else None, applied)
            tampered = attack.deep if attack.change == "input" else None
            played = self.play(corrupt=attack.corrupt, session_type=session, tampered=tampered, **network)
            # A stream without a word cannot be another one.
            return played if applied or tampered is not None else None
        changed = self._changed(attack)
        if changed is None:
            return None
        if attack.lie == "own":
            own = {self.places[address]: body for address, body in changed.items()}
            played = self.play(corrupt=attack.corrupt, session_type=traitor(own, None, applied), **network)
            played.told = bool(applied)
            return played
        return self._wire(attack, changed, applied, **network)

    def _changed(self, attack: Attack) -> dict[Address, bytes] | None:
        """The bodies that the attack changes; for changes of delivery the altered second copy."""
        address = attack.address
        assert address is not None
        rng = random.Random(f"{attack}")
        if attack.change == "swap":
            other = partner(self, address, rng)
            return other and {address: self.bodies[other], other: self.bodies[address]}
        if attack.change in CONTENT:
            body = CONTENT[attack.change](self, address, rng)
            return None if body is None or body == self.bodies[address] else {address: body}
        return {address: flip(self.bodies[address], rng)}

    def _wire(self, attack: Attack, changed: dict[Address, bytes], applied: list[object], **network: Any) -> Played:
        held: list[Message] = []

        def mutate(message: Message) -> list[Message]:
            if applied and attack.change in ("silence", "slow") and message.address.sender == attack.corrupt:
                held.extend([message] if attack.change == "slow" else [])
                return []
            if message.address not in changed:
                return [message]
            applied.append(message.address)
            other = replace(message, body=changed[message.address])
            if attack.change in CONTENT or attack.change == "swap":
                return [other] if other.body else []
            place = message.address
            third = 3 - place.sender - place.receiver
            now, later = {
                "drop": ([], []),
                "silence": ([], []),
                "late": ([], [message]),
                "slow": ([], [message]),
                "twice": ([message, message], [message]),
                "changed again": ([message, other], []),
                "changed again late": ([message], [other]),
                "foreign session": ([replace(other, address=replace(place, session="00")), message], []),
                "foreign receiver": ([replace(message, address=replace(place, receiver=third)), message], []),
            }[attack.change]
            held.extend(later)
            return now

        def arena(*args: Any, **options: Any) -> Arena:
            made = Arena(*args, **options)
            made.held = held
            return made

        played = self.play(corrupt=attack.corrupt, mutate=mutate, arena=arena, **network)
        played.told = bool(applied)
        return played

    # -------------------------------------------------------------------------------------------------------- judging

    def judge(self, played: Played, attack: Attack) -> Verdict:
        """Say what became of an attack and list everything that must never happen."""
        out, corrupt = played.outcome, attack.corrupt
        honest = [position for position in range(3) if position != corrupt]
        right = [
            place for place in honest if place in out.results and plain_of(out.results[place]) == self.expected[place]
        ]
        errors = {place: out.errors[place] for place in honest if place in out.errors}
        outcome = "detected" if errors else "harmless" if len(right) == 2 else "waiting"
        found = [
            f"position {place} has a wrong result" for place in honest if place in out.results and place not in right
        ]
        found += self._openings(played, attack, honest, stopped=outcome != "harmless")
        found += [f"position {p} keeps {what}" for p in honest for what in played.sessions[p].left_over()]
        found += [
            f"position {place} frames {names}" for place, error in errors.items() if (names := _framed(error, corrupt))
        ]
        if not played.told:
            found.append("the lie was never told")
        if attack.change in HARMLESS and outcome != "harmless":
            found.append(f"a delivery that honest parties must live with ended the run: {outcome}")
        if attack.change in ("drop", "silence") and outcome != "waiting":
            found.append("a message was not missed")
        if attack.lie != "deep" and attack.change in CONTENT and outcome == "waiting" and self._needs_detection(attack):
            found.append("a changed message was not noticed")
        return Verdict(outcome, frozenset(error.code for error in errors.values()), found)

    @staticmethod
    def _needs_detection(attack: Attack) -> bool:
        return attack.change in SAME_LENGTH

    def _openings(self, played: Played, attack: Attack, honest: list[int], *, stopped: bool) -> list[str]:
        """Check that honest parties opened only what the honest run opens, and nothing behind a barrier that must hold."""
        found = []
        accepted = {(m.address.stage, m.address.sender) for m in played.sent if m.address.step == "accept"}
        begun, late = self._reach(attack)
        stopped = stopped and attack.change not in EXTRA
        for message in played.sent:
            place = message.address
            if place.sender not in honest or not self.program.opening(place.step):
                continue
            if self.bodies.get(place) != message.body:
                found.append(f"position {place.sender} opened another value in {place.stage}")
            if any((place.stage, other) not in accepted for other in honest):
                found.append(f"position {place.sender} opened {place.stage} without the other's ACCEPT")
            if stopped and (self.stages[place.stage] > begun or (self.stages[place.stage] == begun and not late)):
                found.append(f"position {place.sender} opened {place.stage}, behind a barrier that had to hold")
        return found

    def _reach(self, attack: Attack) -> tuple[int, bool]:
        """Number of the stage in which the attack begins, and whether that is as late as its ACCEPT or opening."""
        if attack.address is None:
            # Another input may be used in any stage, so only what is opened can be judged.
            return (len(self.stages) if attack.change == "input" else self._stage_of_stream(attack.deep[0])), False
        changed = [attack.address]
        if attack.change == "swap":
            changed = list(self._changed(attack) or changed)
        first = min(changed, key=lambda place: place.round)
        return self.stages[first.stage], first.step == "accept" or self.program.opening(first.step)

    def _stage_of_stream(self, number: int) -> int:
        for stage in self.honest.sessions[0].seen:
            if number < stage._streams:
                return self.stages.get(stage.name, 0)
            number -= stage._streams
        raise AssertionError("no such stream")

    # ------------------------------------------------------------------------------------------------------ all attacks

    def attacks(self) -> Iterator[Attack]:
        """Every attack on every message, mask and input of the program."""
        for address in self.addresses:
            yield from self.attacks_at(address)
        yield from self.deep_attacks()

    def deep_attacks(self) -> Iterator[Attack]:
        """Every mask and every input share of every party, which computes with another one."""
        inputs = self.program.share(self.program.cases[self.number], self.seed)
        for corrupt in range(3):
            for side in range(2):
                for number in range(self.stream_calls):
                    yield Attack(corrupt, "stream", "deep", deep=(number, side))
                for number, shares in enumerate(inputs):
                    # What an operator puts in itself is no share: it may choose it.
                    if hasattr(shares[corrupt], "second"):
                        yield Attack(corrupt, "input", "deep", deep=(number, side))

    def attacks_at(self, address: Address) -> Iterator[Attack]:
        """Every attack on one message."""
        for change in (*CONTENT, *DELIVERY):
            yield Attack(address.sender, change, "wire", address)
        for change in SAME_LENGTH:
            yield Attack(address.sender, change, "own", address)

    def one_of_each_kind(self) -> Iterator[Attack]:
        """One attack of every kind on every message, and every mask and input.

        The variants of a kind take turns over messages of one form, and another turn comes first for each sender, direction, form
        and program. A variant with nothing to do at a message (it has no other content to take) gives its turn to the next one.
        """
        met: Counter[tuple[str, int, int]] = Counter()
        for address in self.addresses:
            form = step_kind(address.step)
            turn = (
                met[form, address.sender, address.receiver] + address.sender + (address.receiver - address.sender) % 3
            )
            turn += zlib.crc32(f"{self.program.name}/{form}".encode())
            met[form, address.sender, address.receiver] += 1
            for variants in KINDS.values():
                turned = (variants[(turn + step) % len(variants)] for step in range(len(variants)))
                attacks = (Attack(address.sender, change, lie, address) for change, lie in turned)
                yield from islice((attack for attack in attacks if self.can_be(attack)), 1)
        yield from self.deep_attacks()

    def can_be(self, attack: Attack) -> bool:
        """Whether there is another content for an attack on one message to take."""
        return self._changed(attack) is not None


def _tampered(share: Any, side: int) -> Any:
    """Return a share with another first word of one component."""
    name = ("first", "second")[side]
    words = getattr(share, name).copy()
    words.reshape(-1)[:1] ^= np.uint64(1)
    return replace(share, **{name: words})


def _framed(error: ComityError, corrupt: int) -> str:
    """Return what an error names if the corrupt party is not in it."""
    # The names under which the engine reads blame off an error: what `compared` or `prover` says blames nobody.
    named = [str(error.ids[name]) for name in ("pair", "party", "peer", "sender") if name in error.ids]
    return "; ".join(names for names in named if MEMBERS[corrupt] not in names.split(","))


def step_kind(step: str) -> str:
    """Return a step's name without its numbers: one name for all messages of one form."""
    return re.sub(r"\d+", "#", step)


def play_and_judge(case: Case, attack: Attack, **network: Any) -> Verdict | None:
    """Run one attack; whatever an honest party raises that is not an error of the product is a violation."""
    try:
        played = case.run(attack, **network)
    except Exception as error:  # noqa: BLE001 - an uncaught error of any kind is what is looked for
        return Verdict("crashed", frozenset(), [f"{type(error).__name__}: {error}"])
    return None if played is None else case.judge(played, attack)
