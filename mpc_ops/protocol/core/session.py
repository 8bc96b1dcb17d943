"""Sessions: one attempt of three parties, active or passive, whose stages follow one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.core.blame import DisputeBook
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.stage import ActiveStage, PassiveStage
from mpc_ops.protocol.core.terms import PartyKeys, SessionTerms
from mpc_ops.sharing import held_by

__all__ = ["ActiveSession", "PassiveSession"]

T = TypeVar("T")


class ActiveSession:
    """One attempt with active security. Stages follow one another; each has its own name, and none is left unproven.

    Attributes:
        terms: what it is bound to.
    """

    stage_type: ClassVar[type[ActiveStage]] = ActiveStage

    def __init__(self, terms: SessionTerms, keys: PartyKeys) -> None:
        held_by(terms.party)
        self.terms = terms
        self._keys: PartyKeys | None = keys
        self._stage: ActiveStage | None = None
        self._names: set[str] = set()

    def stage(self, name: str) -> ActiveStage:
        """Begin a stage.

        Raises:
            LocalProtocolError: STAGE_ORDER if the session is over, the name was used, or the stage before is not closed:
                its shares would be opened behind a barrier that never saw their gates.
        """
        ids = {"session": self.terms.sid[:12], "stage": name}
        if self._keys is None:
            raise LocalProtocolError("STAGE_ORDER", "the session is over and its keys are gone", ids=ids)
        if name in self._names or (self._stage is not None and self._stage.phase != "closed"):
            raise LocalProtocolError("STAGE_ORDER", "stages have their own names and follow one another", ids=ids)
        self._names.add(name)
        self._stage = self.stage_type(self.terms, self._keys, name)
        return self._stage

    def run(self, program: Callable[[ActiveSession], Steps[T]]) -> Steps[T]:
        """Run a program on this session; after any error, and at the end, keys and logs are forgotten.

        A failed check is terminal: there is no second try in the same session. Rounds, sent: those of the program.
        """
        try:
            result = yield from program(self)
            if self._stage is not None and self._stage.phase != "closed":
                raise LocalProtocolError("STAGE_ORDER", "a program ended before its last stage's barrier")
            return result
        finally:
            self.wipe()

    @property
    def disputes(self) -> DisputeBook | None:
        """What can be stated about the present stage's proofs, also after a failed check; None before the first stage."""
        return None if self._stage is None else self._stage.disputes

    def wipe(self) -> None:
        """Forget keys and logs; the session cannot be used again. What a dispute needs stays until the session is dropped."""
        self._keys = None
        if self._stage is not None:
            self._stage.wipe()

    def __repr__(self) -> str:
        return f"ActiveSession({self.terms.sid[:12]}@{self.terms.cluster}#{self.terms.attempt})"


class PassiveSession:
    """One attempt without proofs, only where a report's terms say so. No relation to `ActiveSession` on purpose."""

    def __init__(self, terms: SessionTerms, keys: PartyKeys) -> None:
        held_by(terms.party)
        self.terms, self._keys = terms, keys
        self._names: set[str] = set()

    def stage(self, name: str) -> PassiveStage:
        """Begin a stage; raises LocalProtocolError STAGE_ORDER for a name that was used."""
        if name in self._names:
            raise LocalProtocolError("STAGE_ORDER", "stages have their own names", ids={"stage": name})
        self._names.add(name)
        return PassiveStage(self.terms, self._keys, name)

    def __repr__(self) -> str:
        return f"PassiveSession({self.terms.sid[:12]}@{self.terms.cluster}#{self.terms.attempt})"
