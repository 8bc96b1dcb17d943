"""A run as users see it: `OPEN → CLOSED → REGION k/n → GROUP → COMMITTED → PUBLISHED → ERASED → SEALED`.

The view is derived from signed notices, so every party computes the same one from the same notices. A stall is shown
beside the phase and goes away with the next progress; FAILED and CANCELLED exist only before COMMITTED.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from mpc_ops.session.table import Machine, Rule

__all__ = [
    "RUN",
    "RUN_PHASES",
    "EverythingErased",
    "GroupCommitted",
    "ManifestClosed",
    "RegionCommitted",
    "ResultPublished",
    "RunCancelled",
    "RunEvent",
    "RunFailed",
    "RunView",
    "Stall",
    "Stalled",
    "StatementSealed",
]

RunPhase: TypeAlias = Literal[
    "OPEN", "CLOSED", "REGION", "GROUP", "COMMITTED", "PUBLISHED", "ERASED", "SEALED", "FAILED", "CANCELLED"
]
RUN_PHASES: tuple[RunPhase, ...] = (
    "OPEN", "CLOSED", "REGION", "GROUP", "COMMITTED", "PUBLISHED", "ERASED", "SEALED", "FAILED", "CANCELLED",
)  # fmt: skip
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Stall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who keeps the run waiting, why, and since when (milliseconds since 1970, UTC)."""

    party: str
    code: str
    since_ms: _Count


class RunView(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """State of one run.

    Attributes:
        phase: row of the table.
        run_id: empty while OPEN.
        regions: region clusters of the manifest.
        done: region clusters that have committed.
        stall: shown beside the phase, or None.
        code, pair: why it FAILED, and the operators that a failed check names.
    """

    phase: RunPhase = "OPEN"
    run_id: str = ""
    regions: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    stall: Stall | None = None
    code: str = ""
    pair: tuple[str, ...] = ()

    def ids(self) -> dict[str, str]:
        """Ids that place an error."""
        return {"run": self.run_id[:12], "state": self.phase}

    @property
    def text(self) -> str:
        """The form shown to people, for example `REGION 2/4` or `STALLED(nl-1, PEER_TIMEOUT)`."""
        if self.stall is not None:
            return f"STALLED({self.stall.party}, {self.stall.code})"
        if self.phase == "REGION":
            return f"REGION {len(self.done)}/{len(self.regions)}"
        if self.phase == "FAILED":
            return f"FAILED({self.code})"
        return self.phase


@dataclass(frozen=True, slots=True)
class ManifestClosed:
    """The manifest was signed."""

    run_id: str
    regions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RegionCommitted:
    """All that is needed to know that a region cluster committed."""

    cluster: str


@dataclass(frozen=True, slots=True)
class GroupCommitted:
    """The group cluster committed."""


@dataclass(frozen=True, slots=True)
class ResultPublished:
    """The recipient acknowledged the result."""


@dataclass(frozen=True, slots=True)
class EverythingErased:
    """Every operator of the run attested erasure."""


@dataclass(frozen=True, slots=True)
class StatementSealed:
    """The closing statement is there."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """A party keeps the run waiting."""

    stall: Stall


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A session of the run FAILED or was REFUSED."""

    code: str
    pair: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunCancelled:
    """Group reporting cancelled the run."""


RunEvent: TypeAlias = (
    ManifestClosed
    | RegionCommitted
    | GroupCommitted
    | ResultPublished
    | EverythingErased
    | StatementSealed
    | Stalled
    | RunFailed
    | RunCancelled
)
_Result: TypeAlias = tuple[RunView, tuple[object, ...]]


def _close(view: RunView, event: ManifestClosed) -> _Result:
    return replace(view, phase="CLOSED", run_id=event.run_id, regions=tuple(sorted(event.regions)), stall=None), ()


def _region(view: RunView, event: RegionCommitted) -> _Result:
    done = tuple(sorted({*view.done, event.cluster}))
    phase: RunPhase = "GROUP" if len(done) == len(view.regions) else "REGION"
    return replace(view, phase=phase, done=done, stall=None), ()


def _stall(view: RunView, event: Stalled) -> _Result:
    return replace(view, stall=event.stall), ()


def _fail(view: RunView, event: RunFailed) -> _Result:
    return replace(view, phase="FAILED", code=event.code, pair=event.pair, stall=None), ()


def _cancel(view: RunView, _event: object) -> _Result:
    return replace(view, phase="CANCELLED", stall=None), ()


def _committed(view: RunView, _event: object) -> _Result:
    # A group commit implies every region's commit, whose notice may still be on its way.
    return replace(view, phase="COMMITTED", done=view.regions, stall=None), ()


def _published(view: RunView, _event: object) -> _Result:
    return replace(view, phase="PUBLISHED", stall=None), ()


def _erased(view: RunView, _event: object) -> _Result:
    return replace(view, phase="ERASED", stall=None), ()


def _sealed(view: RunView, _event: object) -> _Result:
    return replace(view, phase="SEALED", stall=None), ()


def _nothing(view: RunView, _event: object) -> _Result:
    return view, ()


_RUNNING = ("CLOSED", "REGION", "GROUP")
_AFTER = ("COMMITTED", "PUBLISHED", "ERASED", "SEALED")

RUN: Machine[RunView] = Machine(
    "run",
    RUN_PHASES,
    (
        Rule(("OPEN",), ManifestClosed, "", ("CLOSED",), "", _close),
        Rule(RUN_PHASES, ManifestClosed, "same run", (), "", _nothing, lambda v, e: v.run_id == e.run_id),
        Rule(("CLOSED", "REGION"), RegionCommitted, "cluster of the manifest", ("REGION", "GROUP"), "k of n; GROUP when all have", _region, lambda v, e: e.cluster in v.regions),
        Rule(("GROUP", *_AFTER), RegionCommitted, "", (), "", _nothing),
        Rule(_RUNNING, GroupCommitted, "", ("COMMITTED",), "", _committed),
        Rule(_AFTER, GroupCommitted, "", (), "", _nothing),
        Rule(("COMMITTED",), ResultPublished, "", ("PUBLISHED",), "", _published),
        Rule(("PUBLISHED", "ERASED", "SEALED"), ResultPublished, "", (), "", _nothing),
        Rule(("COMMITTED", "PUBLISHED"), EverythingErased, "", ("ERASED",), "", _erased),
        Rule(("ERASED", "SEALED"), EverythingErased, "", (), "", _nothing),
        Rule(("ERASED",), StatementSealed, "", ("SEALED",), "", _sealed),
        Rule(("SEALED",), StatementSealed, "", (), "", _nothing),
        Rule(("OPEN", *_RUNNING, "COMMITTED", "PUBLISHED", "ERASED"), Stalled, "", (), "shown until the next progress", _stall),
        Rule(_RUNNING, RunFailed, "", ("FAILED",), "", _fail),
        Rule(("FAILED", "CANCELLED"), RunFailed, "", (), "the first reason stays", _nothing),
        Rule(("OPEN", *_RUNNING), RunCancelled, "", ("CANCELLED",), "", _cancel),
        Rule(("FAILED", "CANCELLED"), RunCancelled, "", (), "", _nothing),
    ),
)  # fmt: skip
