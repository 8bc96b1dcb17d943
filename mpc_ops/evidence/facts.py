"""Facts: every line that a reviewer reads has an id, a state, a source and somebody who attests it.

States are `measured` (a log, a signature or a computation says so), `declared` (a named party says so) and `open` (still
to come, or for people to judge). Facts follow from the signed material alone, without a clock, so that whoever verifies
a pack derives the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mpc_ops import __version__
from mpc_ops.envelope.schema import Model
from mpc_ops.federation.model import DigestText, Name, UtcText
from mpc_ops.notices.model import PeriodText

__all__ = ["SECTIONS", "SOFTWARE", "Change", "Fact", "FactBook", "Facts", "Outcome", "Section", "State", "compare"]

SOFTWARE = f"comity-mpc {__version__}"

State = Literal["measured", "declared", "open"]
Outcome = Literal["passed", "failed"]
Section = Literal[
    "head", "crossed", "learn", "result", "protection", "until", "not_claimed", "signatures", "people", "flows", "metadata", "reach", "checks",
]  # fmt: skip
SECTIONS: tuple[str, ...] = (
    "head", "people", "crossed", "learn", "result", "protection", "until", "not_claimed", "signatures", "flows", "metadata", "reach", "checks",
)  # fmt: skip

_COUNTED = frozenset({"people", "reach", "checks"})

Text = Annotated[str, Meta(max_length=8000)]


class Fact(Model, frozen=True, kw_only=True):
    """One fact.

    Attributes:
        id: `F01`, `F02`, ... in the order of the page.
        key: what the fact is about, the same every month, so that months can be compared.
        outcome: `passed` or `failed` where the fact is a check, else None.
        text: the sentence that is printed; `cells` are the columns where it is printed as a table row.
        source: where it comes from; `attested_by`: which system or named party says so.
        date: when it was established; `expires`: until when it holds, if it ends.
        stable: what is compared with last month; empty where change is the rule (bytes, run ids).
    """

    id: Annotated[str, Meta(pattern=r"^F[0-9]{2,4}\Z")]
    key: Text
    section: Section
    state: State
    outcome: Outcome | None = None
    text: Text
    cells: dict[str, Text] = msgspec.field(default_factory=dict)
    source: Text
    attested_by: Text
    date: UtcText
    expires: UtcText | None = None
    stable: Text = ""


class Change(Model, frozen=True, kw_only=True):
    """What differs from the last pack of the report: `fact` is its id here, empty if it is gone."""

    fact: Text
    what: Literal["changed", "new", "gone"]
    before: Text
    now: Text


class Facts(Model, frozen=True, kw_only=True):
    """`facts.json` of a pack: everything that its page prints.

    Attributes:
        software: what derived the facts.
        outcome: COMMITTED, REFUSED, FAILED, CANCELLED or OPEN.
        started_at, ended_at: submission close and last signed state.
        previous: period of the pack that `changes` compare with, None if there is none.
    """

    format: Literal["comity/facts/v1"] = "comity/facts/v1"
    software: Text
    report: Name
    title: Text
    purpose: Text
    period: PeriodText
    edition: Annotated[int, Meta(ge=1)]
    run: DigestText
    outcome: Literal["COMMITTED", "REFUSED", "FAILED", "CANCELLED", "OPEN"]
    started_at: UtcText
    ended_at: UtcText
    facts: Annotated[list[Fact], Meta(max_length=20_000)]
    previous: PeriodText | None = None
    changes: Annotated[list[Change], Meta(max_length=20_000)] = msgspec.field(default_factory=list)

    @property
    def failed(self) -> list[Fact]:
        """Facts of checks that failed, each once: rows of other sections repeat what a check found."""
        return [
            fact for fact in self.facts if fact.outcome == "failed" and (fact.section in _COUNTED or fact.key == "gate")
        ]

    @property
    def open(self) -> list[Fact]:
        """Facts that are still open, each once."""
        return [fact for fact in self.facts if fact.state == "open" and fact.section in _COUNTED]

    def section(self, name: Section) -> list[Fact]:
        """Return the facts of one section in order."""
        return [fact for fact in self.facts if fact.section == name]

    @property
    def verdict(self) -> str:
        """The one-line status, made from failed and open facts only."""
        ended = {
            "COMMITTED": "RUN COMPLETED",
            "OPEN": "RUN NOT ENDED",
            "REFUSED": "RUN REFUSED, NOTHING WAS COMPUTED OR RELEASED",
            "FAILED": "RUN FAILED, NOTHING WAS RELEASED",
            "CANCELLED": "RUN CANCELLED, NOTHING WAS RELEASED",
        }[self.outcome]
        failed, still = len(self.failed), len(self.open)
        return " · ".join(
            (
                ended,
                f"{failed} CHECK{'' if failed == 1 else 'S'} FAILED" if failed else "no check failed",
                f"{still} ITEM{'' if still == 1 else 'S'} OPEN FOR PEOPLE" if still else "no item open",
            )
        )


@dataclass
class FactBook:
    """Collects facts in page order and numbers them at the end.

    Attributes:
        date: default date of a measured fact.
        system: default attestation of a measured fact.
    """

    date: str
    system: str
    entries: list[Fact] = field(default_factory=list)

    def add(
        self,
        section: Section,
        key: str,
        text: str,
        *,
        state: State = "measured",
        outcome: Outcome | None = None,
        cells: Mapping[str, str] | None = None,
        source: str,
        by: str | None = None,
        date: str | None = None,
        expires: str | None = None,
        stable: str = "",
    ) -> None:
        """Add one fact; see `Fact` for the members."""
        self.entries.append(
            Fact(
                id="F00",
                key=key,
                section=section,
                state=state,
                outcome=outcome,
                text=text,
                cells=dict(cells or {}),
                source=source,
                attested_by=by or self.system,
                date=date or self.date,
                expires=expires,
                stable=stable,
            )
        )

    def numbered(self) -> list[Fact]:
        """Return the facts by section, with their ids."""
        ordered = sorted(self.entries, key=lambda fact: SECTIONS.index(fact.section))
        return [msgspec.structs.replace(fact, id=f"F{number:02d}") for number, fact in enumerate(ordered, start=1)]


def compare(facts: list[Fact], previous: list[Fact]) -> list[Change]:
    """Return what differs between two packs of one report, by key, in the order of the page."""
    before = {fact.key: fact for fact in previous if fact.stable or fact.outcome}
    changes = []
    for fact in facts:
        if not (fact.stable or fact.outcome):
            continue
        old = before.pop(fact.key, None)
        if old is None:
            changes.append(Change(fact=fact.id, what="new", before="", now=_short(fact)))
        elif (old.stable, old.outcome, old.state) != (fact.stable, fact.outcome, fact.state):
            changes.append(Change(fact=fact.id, what="changed", before=_short(old), now=_short(fact)))
    return [*changes, *(Change(fact="", what="gone", before=_short(old), now="") for old in before.values())]


def _short(fact: Fact) -> str:
    words = fact.stable or fact.text
    return f"{words} ({fact.outcome})" if fact.outcome else words
