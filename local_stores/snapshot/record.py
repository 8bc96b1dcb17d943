"""The owner's own record of a contribution, its salted commitment, and the signatures of two people over it.

```
contributions/<owner>/<plan>/<period>/<edition>/salt                32 secret bytes, never leave the owner
                                               /<commitment>.json   the figures
                                               /<commitment>.html   the page that the signers read
                                               /latest              the commitment that was computed last
signatures/<owner>/<commitment>/<signer>.json
```
The salt of a commitment is HMAC-SHA-256 of the figures under the stored secret: a new snapshot with equal figures has
the same commitment and keeps its signatures, other figures ask again, and nobody else can test guesses.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from local_stores.config import State
from local_stores.errors import ConfigError, PolicyViolation
from local_stores.snapshot.contribution import Figures
from local_stores.snapshot.unit_rows import Bools, pack_rows, unpack_rows
from mpc_ops.envelope.canonical import canonical_bytes
from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey, Purpose
from mpc_ops.envelope.schema import built
from mpc_ops.federation.model import Owner
from mpc_ops.ids import check_digest, check_name
from mpc_ops.notices.model import SignOff
from mpc_ops.sharing import commitment

__all__ = ["Contribution", "ContributionId", "keep_contribution", "read_contribution", "sign", "signatures"]

Int64 = npt.NDArray[np.int64]
_SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class ContributionId:
    """Whose figures for what: the context of the commitment, and what a signature covers besides it."""

    plan: str
    period: str
    owner: str
    edition: int

    @property
    def folder(self) -> str:
        """Where its records lie in state."""
        return f"contributions/{self.owner}/{self.plan[:16]}/{self.period}/{self.edition}"

    def signed_bytes(self, committed: str) -> bytes:
        """Return what the signers sign."""
        return canonical_bytes(
            {
                "plan": self.plan,
                "period": self.period,
                "owner": self.owner,
                "edition": self.edition,
                "contribution": committed,
            }
        )


class Contribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kept record.

    Attributes:
        lanes: values in the order of `plan.layout.shared_lanes`, as decimal text.
        kind: `nil` if the owner had no row at all.
        tie_out: control totals passed, or there are none.
        reference: digest of the rates' notice, None without translation.
        rates: rate by slice; local: untranslated amounts by measure; moved, below: what the Gate did, by slice.
        tables: before a region's Gate: the units' sorted rows of bits of each slice, packed; else none.
    """

    commitment: str
    lanes: list[str]
    kind: Literal["data", "nil"]
    tie_out: Literal["passed", "none"]
    reference: str | None
    rates: dict[str, str]
    local: dict[str, list[str]]
    moved: list[str]
    below: list[str]
    tables: list[str] = []

    def rows(self, leaves: int) -> list[Bools]:
        """Return the units' rows of each slice, shape (units, leaves)."""
        return [unpack_rows(text, leaves) for text in self.tables]

    def values(self) -> Int64:
        """Return the lanes as int64."""
        return np.array([int(text) for text in self.lanes], np.int64)

    def __repr__(self) -> str:
        return f"Contribution({self.commitment[:12]}, {self.kind}, <redacted>)"


def keep_contribution(
    state: State,
    of: ContributionId,
    figures: Figures,
    *,
    tie_out: Literal["passed", "none"],
    reference: str | None,
    rates: Mapping[str, str],
) -> Contribution:
    """Keep an owner's figures and return the record with their commitment.

    Raises:
        LocalDataError: DISK_FULL. StoreUnavailable: STATE_UNAVAILABLE.
    """
    lanes = [str(value) for value in figures.lanes.tolist()]
    kind: Literal["data", "nil"] = "nil" if figures.empty else "data"
    tables = [pack_rows(bits) for bits in figures.tables]
    covered = {"lanes": lanes, "kind": kind, "tie_out": tie_out} | ({"tables": tables} if tables else {})
    body = canonical_bytes(covered)
    secret = state.write_once(f"{of.folder}/salt", secrets.token_bytes(_SALT_BYTES))
    salt = hmac.digest(secret, body, "sha256")
    committed = commitment(salt, ("contribution", of.plan, of.period, of.owner, of.edition), body)
    record = Contribution(
        commitment=committed,
        lanes=lanes,
        kind=kind,
        tie_out=tie_out,
        reference=reference,
        rates=dict(rates),
        local={name: [str(value) for value in values] for name, values in figures.local.items()},
        moved=list(figures.moved),
        below=list(figures.below),
        tables=tables,
    )
    state.write(f"{of.folder}/{committed}.json", msgspec.json.encode(record))
    state.write(f"{of.folder}/latest", committed.encode("ascii"))
    return record


def read_contribution(state: State, of: ContributionId, committed: str) -> Contribution:
    """Return a kept record; raise ConfigError STATE_MISSING, CONTRIBUTION_INVALID."""
    data = state.require(f"{of.folder}/{check_digest(committed, 'commitment')}.json", limit_bytes=1 << 30)
    try:
        record = msgspec.json.decode(data, type=built(Contribution), strict=True)
    except msgspec.MsgspecError:
        record = None
    if record is None or record.commitment != committed:
        raise ConfigError("CONTRIBUTION_INVALID", "a kept contribution is damaged", ids={"owner": of.owner})
    return record


def sign(state: State, of: ContributionId, committed: str, owner: Owner, *, signer: str, key: IdentityKey) -> None:
    """Add one person's signature over the commitment to the owner's figures.

    Raises:
        PolicyViolation: SIGN_OFF_FOREIGN if the person is no signer of this owner or the key is not theirs.
        ConfigError: STATE_MISSING if there are no such figures.
    """
    read_contribution(state, of, committed)
    known = owner.signers.get(check_name(signer, "signer"))
    if known is None:
        raise _foreign(of, signer, "the membership list does not name this person as a signer of the owner's figures")
    if IdentityPublicKey.from_text(known) != key.public:
        raise _foreign(of, signer, "the key is not the one that the membership list names for this person")
    signature = base64.b64encode(key.sign(of.signed_bytes(committed), Purpose.SIGN_OFF)).decode("ascii")
    body = json.dumps({"signer": signer, "signature": signature}).encode()
    state.write(f"signatures/{of.owner}/{committed}/{signer}.json", body)


def signatures(state: State, of: ContributionId, committed: str, owner: Owner) -> list[SignOff]:
    """Return the signatures that lie for a commitment, each verified, sorted by signer.

    Raises:
        PolicyViolation: SIGN_OFF_FOREIGN if one is by somebody else or over other figures.
    """
    folder = f"signatures/{of.owner}/{check_digest(committed, 'commitment')}"
    found = []
    for name in state.names(folder):
        signer = name.removesuffix(".json")
        try:
            plain: Any = json.loads(state.require(f"{folder}/{name}", limit_bytes=1 << 16))
        except (ValueError, RecursionError):
            plain = None
        text = plain.get("signature") if isinstance(plain, dict) else None
        known = owner.signers.get(signer)
        if known is None or not isinstance(text, str):
            raise _foreign(of, signer, "a signature is by somebody who is no signer of the owner's figures")
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if not IdentityPublicKey.from_text(known).verify(raw, of.signed_bytes(committed), Purpose.SIGN_OFF):
            raise _foreign(of, signer, "a signature is over other figures, or by another key")
        found.append(SignOff(signer=signer, signature=text))
    return found


def _foreign(of: ContributionId, signer: str, why: str) -> PolicyViolation:
    return PolicyViolation(
        "SIGN_OFF_FOREIGN", why, ids={"owner": of.owner, "period": of.period, "signer": signer[:63]},
        hint="Sign again with `comity sign-off`",
    )  # fmt: skip
