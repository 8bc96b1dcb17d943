"""A program's stages one after another, with openings in between; the same protocol code serves both kinds of session.

Protocols that open something while they run (a sort opens comparison results, a filter opens its size) take a `Flow`. In an
active session every opening ends a stage behind its barrier and the next stage begins; in a passive one it is a message.
A protocol reads `flow.stage` again after each opening and never keeps a stage across one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.core.opening import Openable, open_passive, open_to, open_to_all
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.session import ActiveSession, PassiveSession
from mpc_ops.protocol.core.stage import ActiveStage, ComputeStage, PassiveStage
from mpc_ops.ring import RingArray

__all__ = ["ActiveFlow", "Flow", "PassiveFlow"]


class Flow(ABC):
    """Stages `name/0`, `name/1`, ... of one session.

    Attributes:
        openings: number of openings so far.
    """

    security: ClassVar[Literal["active", "passive"]]

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self.openings = 0

    @property
    @abstractmethod
    def stage(self) -> ComputeStage:
        """The present stage; begun when it is first asked for."""

    @abstractmethod
    def open(self, shares: Sequence[Openable]) -> Steps[list[RingArray]]:
        """Open shares to all three parties.

        Boolean values come back as values of `width` bits, shape (n,), ring values as they are.

        Rounds and bytes: in an active session those of `ActiveStage.barrier` and `open_to_all`, in a passive one those of
        `open_passive`. Errors: theirs. Leakage: the opened values.
        """

    @abstractmethod
    def open_to(self, party: int, shares: Sequence[Openable]) -> Steps[list[RingArray] | None]:
        """Open shares to one position; the others get None. Otherwise as `open`."""

    @abstractmethod
    def finish(self) -> Steps[None]:
        """End the present stage without opening anything: prove what it logged and exchange ACCEPT.

        Rounds and bytes: in an active session those of `ActiveStage.barrier` if a stage was begun, in a passive one none.
        """

    def _next_name(self) -> str:
        name = f"{self._name}/{self._number}"
        self._number += 1
        return name


class ActiveFlow(Flow):
    """Stages of an active session; every opening stands behind a barrier."""

    security = "active"

    def __init__(self, session: ActiveSession, name: str) -> None:
        super().__init__(name)
        self._session = session
        self._stage: ActiveStage | None = None

    @property
    def stage(self) -> ActiveStage:
        """The present stage; begun when it is first asked for."""
        if self._stage is None:
            self._stage = self._session.stage(self._next_name())
        return self._stage

    def open(self, shares: Sequence[Openable]) -> Steps[list[RingArray]]:
        """See `Flow.open`."""
        token = yield from self.stage.barrier()
        values = yield from open_to_all(self.stage, token, shares)
        self._opened()
        return values

    def open_to(self, party: int, shares: Sequence[Openable]) -> Steps[list[RingArray] | None]:
        """See `Flow.open_to`."""
        token = yield from self.stage.barrier()
        values = yield from open_to(self.stage, token, party, shares)
        self._opened()
        return values

    def finish(self) -> Steps[None]:
        """See `Flow.finish`; a stage that nothing began is not proven."""
        if self._stage is not None:
            yield from self._stage.barrier()
            self._stage.close()
            self._stage = None

    def _opened(self) -> None:
        self._stage = None
        self.openings += 1


class PassiveFlow(Flow):
    """Stages of a passive session; an opening is one message and nothing is proven."""

    security = "passive"

    def __init__(self, session: PassiveSession, name: str) -> None:
        super().__init__(name)
        self._session = session
        self._stage: PassiveStage | None = None

    @property
    def stage(self) -> PassiveStage:
        """The present stage; begun when it is first asked for."""
        if self._stage is None:
            self._stage = self._session.stage(self._next_name())
        return self._stage

    def open(self, shares: Sequence[Openable]) -> Steps[list[RingArray]]:
        """See `Flow.open`."""
        values = yield from open_passive(self.stage, shares)
        self._opened()
        if values is None:  # pragma: no cover - every position is a receiver
            raise LocalProtocolError("PARTY_INVALID", "nothing was opened")
        return values

    def open_to(self, party: int, shares: Sequence[Openable]) -> Steps[list[RingArray] | None]:
        """See `Flow.open_to`."""
        values = yield from open_passive(self.stage, shares, (party,))
        self._opened()
        return values

    def finish(self) -> Steps[None]:
        """See `Flow.finish`; nothing is sent."""
        self._stage = None
        yield from ()

    def _opened(self) -> None:
        self._stage = None
        self.openings += 1
