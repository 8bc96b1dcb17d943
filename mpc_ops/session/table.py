"""Transition tables: a machine is a list of rules, and the rules are also its documentation.

A rule names the phases and the event type it is for, an optional guard, the phases it may lead to and what it does.
`Machine.step` is a pure function: it returns the next state and the actions to carry out, or raises and thereby leaves
everything as it was. Tests walk every (phase, event) pair, and `as_markdown` prints the table that docs show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from mpc_ops.envelope.canonical import canonical_bytes, parse_canonical
from mpc_ops.envelope.schema import built
from mpc_ops.errors import ConfigError, LocalProtocolError, StateError

__all__ = ["Machine", "Rule", "StateLike", "from_json", "to_json"]

_MAX_STATE_BYTES = 1 << 20


class StateLike(Protocol):
    """What a machine needs to know about a state: its phase and ids for error messages."""

    @property
    def phase(self) -> str:
        """The row of the table that the state is in."""

    def ids(self) -> dict[str, str]:
        """Ids that place an error."""


S = TypeVar("S", bound=StateLike)
StructT = TypeVar("StructT", bound=msgspec.Struct)


@dataclass(frozen=True)
class Rule(Generic[S]):
    """One line of a table.

    Attributes:
        states: phases in which it applies.
        event: event class.
        when: guard in words; empty if it always applies.
        to: phases it may lead to; empty if the phase stays.
        does: actions in words.
        apply: (state, event) -> (next state, actions); may raise to refuse.
        guard: (state, event) -> bool; the first rule whose guard holds is taken.
    """

    states: tuple[str, ...]
    event: type[Any]
    when: str
    to: tuple[str, ...]
    does: str
    apply: Callable[[S, Any], tuple[S, tuple[Any, ...]]]
    guard: Callable[[S, Any], bool] = lambda _state, _event: True


@dataclass(frozen=True)
class Machine(Generic[S]):
    """A named transition table."""

    name: str
    phases: tuple[str, ...]
    rules: Sequence[Rule[S]]

    def step(self, state: S, event: object) -> tuple[S, tuple[Any, ...]]:
        """Return (next state, actions).

        Raises:
            StateError: ILLEGAL_TRANSITION if no rule covers the event in this phase, or the code of the rule that
                refuses it. The caller keeps the old state.
        """
        for rule in self.rules:
            if state.phase in rule.states and type(event) is rule.event and rule.guard(state, event):
                after, actions = rule.apply(state, event)
                if after.phase not in (rule.to or (state.phase,)):
                    raise LocalProtocolError(
                        "TABLE_BROKEN",
                        f"{self.name}: rule leads where its table does not say",
                        got=after.phase,
                        ids=state.ids(),
                    )
                return after, actions
        raise StateError(
            "ILLEGAL_TRANSITION",
            f"{self.name}: {type(event).__name__} is not possible in state {state.phase}",
            ids=state.ids(),
        )

    def as_markdown(self) -> str:
        """Return the table as Markdown, in rule order."""
        lines = ["| state | event | when | next | does |", "|---|---|---|---|---|"]
        lines.extend(
            f"| {', '.join(rule.states)} | {rule.event.__name__} | {rule.when or '—'} "
            f"| {', '.join(rule.to) or 'stays'} | {rule.does or '—'} |"
            for rule in self.rules
        )
        return "\n".join(lines) + "\n"

    def as_diagram(self) -> str:
        """Return the phase changes as a Mermaid state diagram."""
        edges = {
            f"    {source} --> {target}: {rule.event.__name__}"
            for rule in self.rules
            for source in rule.states
            for target in rule.to
            if source != target
        }
        return "\n".join(["stateDiagram-v2", *sorted(edges)]) + "\n"


def to_json(state: msgspec.Struct) -> bytes:
    """Return the canonical JSON of a state; this is what gets stored before any action is carried out."""
    return canonical_bytes(msgspec.to_builtins(state))


def from_json(cls: type[StructT], data: bytes) -> StructT:
    """Read a stored state back.

    Raises:
        LocalProtocolError: STATE_INVALID if the bytes are not the canonical form of such a state.
    """
    try:
        return msgspec.convert(parse_canonical(data, limit_bytes=_MAX_STATE_BYTES), type=built(cls), strict=True)
    except (msgspec.ValidationError, ConfigError):
        raise LocalProtocolError("STATE_INVALID", f"stored bytes are not a {cls.__name__}") from None
