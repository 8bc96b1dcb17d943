"""Every error that Comity raises on purpose.

```
ComityError                     code, what happened, expected/got, ids, what to do next
├─ ConfigError                  terminal   a file that an administrator or author fixes
├─ UsageError                   terminal   wrong use of the command line
├─ LocalDataError               terminal   an owner's data does not meet its contract
│  └─ StoreUnavailable          transient  the owner's store does not answer
├─ PlanError                    terminal   SQL outside the subset, plan that cannot be proven
│  └─ PolicyViolation           terminal   a rule, a term or a missing approval forbids it
├─ ProtocolError                terminal
│  ├─ LocalProtocolError        terminal   our own bug or a restored disk
│  └─ PeerProtocolError         terminal   a party sent what the protocol does not allow (named)
├─ Abort                        terminal   a check failed: nothing is opened, the pair is named
├─ TransportError               transient
│  ├─ PeerUnavailable           transient
│  └─ PeerTimeout               transient
├─ DeliveryError                terminal   rejected, disputed or invalid receipt
├─ StateError                   terminal   not allowed in this state (period closed, run exists)
├─ EvidenceError                terminal   nothing is published without verifiable evidence
└─ NotYet                       transient  waiting for somebody else; polls and deferrals use it
```

Whether a retry can help is an attribute of the class (`transient`), never of the call. Codes are upper-case words,
stable across releases, and each is documented in `docs/errors.md`; a test compares the two. No message ever contains a
value, a row, a key or a share: ids, names, counts of bytes and positions only.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "EXIT_CODES",
    "Abort",
    "ComityError",
    "ConfigError",
    "DeliveryError",
    "EvidenceError",
    "LocalDataError",
    "LocalProtocolError",
    "NotYet",
    "PeerProtocolError",
    "PeerTimeout",
    "PeerUnavailable",
    "PlanError",
    "PolicyViolation",
    "ProofRejected",
    "ProtocolError",
    "StateError",
    "StoreUnavailable",
    "TransportError",
    "UsageError",
]


class ComityError(Exception):
    """Base of all deliberate errors.

    Args:
        code: stable upper-case word, documented in docs/errors.md.
        what: one sentence: what happened, without values, rows, keys or shares.
        expected: what would have been accepted, if that helps.
        got: what was there instead, if it can be said without disclosing data.
        ids: run, session, party, filing, column ... whatever places the error.
        hint: what the reader can do next.
    """

    transient: bool = False
    exit_code: int = 1

    def __init__(
        self,
        code: str,
        what: str,
        *,
        expected: object | None = None,
        got: object | None = None,
        ids: Mapping[str, object] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(code, what)
        self.code = code
        self.what = what
        self.expected = None if expected is None else str(expected)
        self.got = None if got is None else str(got)
        self.ids: dict[str, str] = {name: str(value) for name, value in (ids or {}).items()}
        self.hint = hint

    def __str__(self) -> str:
        """Return the one-line form used in logs and by the command line."""
        parts = [f"{self.code}: {self.what}"]
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.got is not None:
            parts.append(f"got {self.got}")
        text = "; ".join(parts)
        if self.ids:
            text += " [" + ", ".join(f"{name}={value}" for name, value in self.ids.items()) + "]"
        if self.hint:
            text += f". {self.hint}"
        return text

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form (API bodies, signed refusals)."""
        out: dict[str, object] = {"code": self.code, "what": self.what, "ids": self.ids}
        for name in ("expected", "got", "hint"):
            value = getattr(self, name)
            if value is not None:
                out[name] = value
        return out


class ConfigError(ComityError):
    """A configuration, federation or key file must be fixed by a person."""

    exit_code = 3


class UsageError(ComityError):
    """The command line was used in a way it does not offer."""

    exit_code = 2


class LocalDataError(ComityError):
    """The owner's data does not meet its contract; the filing stops with a readable report."""

    exit_code = 4


class StoreUnavailable(LocalDataError):
    """The owner's store does not answer now."""

    transient = True


class PlanError(ComityError):
    """The report cannot be compiled or its plan cannot be proven safe."""

    exit_code = 5


class PolicyViolation(PlanError):
    """A localisation rule, a report term or an approval forbids it."""

    exit_code = 6


class ProtocolError(ComityError):
    """Base of protocol errors."""

    exit_code = 7


class LocalProtocolError(ProtocolError):
    """This party's own state or code is wrong (for example a restored disk)."""


class PeerProtocolError(ProtocolError):
    """A named party sent what the protocol does not allow."""


class Abort(ComityError):
    """A verification failed: the run stops without output and the pair is named in `ids`."""

    exit_code = 8


class ProofRejected(Abort):
    """A proof of multiplications does not hold; which one stands in `address`, so that the three parties can say what they saw."""

    address: object = None


class TransportError(ComityError):
    """A connection problem; trying again can help."""

    transient = True
    exit_code = 9


class PeerUnavailable(TransportError):
    """A party cannot be reached now."""


class PeerTimeout(TransportError):
    """A party did not answer in time."""


class DeliveryError(ComityError):
    """A filing was rejected or disputed, or a receipt is not valid."""

    exit_code = 10


class StateError(ComityError):
    """The request is well formed but not allowed in the present state."""

    exit_code = 11


class EvidenceError(ComityError):
    """Evidence is missing, altered or contradictory; publication stops."""

    exit_code = 12


class NotYet(ComityError):
    """Somebody else has to act first."""

    transient = True
    exit_code = 13


EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "unexpected error (a traceback follows; please report it)",
    **{
        cls.exit_code: (cls.__doc__ or "").split("\n", maxsplit=1)[0]
        for cls in (
            UsageError,
            ConfigError,
            LocalDataError,
            PlanError,
            PolicyViolation,
            ProtocolError,
            Abort,
            TransportError,
            DeliveryError,
            StateError,
            EvidenceError,
            NotYet,
        )
    },
}
