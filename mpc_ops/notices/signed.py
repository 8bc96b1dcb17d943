"""Making and verifying signed notices against a federation."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TypeVar

from mpc_ops.envelope.dsse import MAX_ENVELOPE_BYTES, Envelope
from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey, Purpose
from mpc_ops.envelope.schema import decode, encode, to_plain
from mpc_ops.errors import ConfigError, EvidenceError
from mpc_ops.federation.loaded import Federation
from mpc_ops.ids import NoticeDigest, RunId
from mpc_ops.notices.model import (
    NOTICE_KINDS,
    Ack,
    Approval,
    Cancel,
    DisputeNotice,
    Filed,
    Manifest,
    Notice,
    Outcome,
    Reference,
    Release,
    Reopen,
    Withdrawal,
)  # fmt: skip

__all__ = ["SignedNotice", "parse_notice", "run_id_of", "sign_notice", "utc_text", "verify_notice"]

T = TypeVar("T")
_TYPE = "application/vnd.comity.{}+json"
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z)?")
_YEARS = range(1970, 3000)


@dataclass(frozen=True)
class SignedNotice:
    """A notice with its envelope. `digest` names it; `signers` are those that `verify_notice` found."""

    notice: Notice
    envelope: Envelope
    signers: frozenset[str] = frozenset()

    @property
    def digest(self) -> NoticeDigest:
        """SHA-256 of the payload."""
        return NoticeDigest(self.envelope.digest)

    @property
    def kind(self) -> str:
        """Kind of the notice, e.g. `filed`."""
        return kind_of(self.notice)

    def expect(self, kind: type[T]) -> T:
        """Return the notice as `kind`; raise ConfigError NOTICE_KIND if it is another."""
        if not isinstance(self.notice, kind):
            raise ConfigError(
                "NOTICE_KIND", "another kind of notice was expected", expected=kind.__name__, got=self.kind
            )
        return self.notice


def utc_text(moment: datetime) -> str:
    """Return `YYYY-MM-DDTHH:MM:SSZ` of an aware moment."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def kind_of(notice: Notice) -> str:
    """Return the kind word of a notice."""
    return str(type(notice).__struct_config__.tag)


def sign_notice(notice: Notice, key: IdentityKey, *more: IdentityKey) -> SignedNotice:
    """Sign a notice with one or more keys."""
    payload_type = _TYPE.format(kind_of(notice))
    payload = encode(notice)
    envelope = Envelope.sign(payload_type, payload, key, Purpose.NOTICE)
    for other in more:
        envelope = envelope.add_signature(other, Purpose.NOTICE)
    if len(envelope.to_bytes()) > MAX_ENVELOPE_BYTES:
        raise ConfigError("NOTICE_TOO_LONG", "a notice may not be longer than 1 MiB", ids={"kind": kind_of(notice)})
    return SignedNotice(notice, envelope)


def parse_notice(data: bytes) -> SignedNotice:
    """Decode bytes of another party into a notice, without trusting it yet.

    Raises:
        ConfigError: ENVELOPE_INVALID, JSON_INVALID, SCHEMA_INVALID, NOTICE_KIND.
    """
    envelope = Envelope.parse(data)
    for kind, model in NOTICE_KINDS.items():
        if envelope.payload_type == _TYPE.format(kind):
            notice: Notice = decode(envelope.payload, model, what=f"{kind} notice")  # type: ignore[assignment]
            _check_dates(to_plain(notice), kind)
            return SignedNotice(notice, envelope)
    raise ConfigError("NOTICE_KIND", "not a kind of notice that this version knows", got=envelope.payload_type[:80])


def _check_dates(value: object, kind: str) -> None:
    """Refuse moments and dates that no calendar has, or that nobody means: whoever reads the notice computes with them."""
    if isinstance(value, dict):
        for item in value.values():
            _check_dates(item, kind)
    elif isinstance(value, list):
        for item in value:
            _check_dates(item, kind)
    elif isinstance(value, str) and _DATED.fullmatch(value):
        try:
            meant = date.fromisoformat(value[:10]).year in _YEARS
            if len(value) > len("YYYY-MM-DD"):
                time.fromisoformat(value[11:19])
        except ValueError:
            meant = False
        if not meant:
            raise ConfigError("SCHEMA_INVALID", f"{kind} notice names a date that there is not", ids={"kind": kind})


def _keys_for(notice: Notice, federation: Federation) -> tuple[dict[str, IdentityPublicKey], int]:
    if isinstance(notice, (Approval, Withdrawal)):
        owner = federation.owner(notice.owner)
        keys = {name: IdentityPublicKey.from_text(text) for name, text in owner.approvers.items()}
        return keys, owner.approvals_required if isinstance(notice, Approval) else 1
    if isinstance(notice, (Release, Reference)):
        if notice.federation != federation.digest:
            raise ConfigError(
                "FEDERATION_FOREIGN", "notice belongs to other federation terms", expected=federation.digest[:16]
            )
        if notice.author not in federation.terms.authors:
            raise ConfigError("PARTY_UNKNOWN", "no such author in this federation", ids={"author": notice.author})
        party = notice.author
    elif isinstance(notice, Filed):
        federation.owner(notice.owner)
        party = notice.owner
    elif isinstance(notice, (Manifest, Cancel, Reopen, Ack)):
        if notice.recipient not in federation.terms.recipients:
            raise ConfigError(
                "PARTY_UNKNOWN", "no such recipient in this federation", ids={"recipient": notice.recipient}
            )
        party = notice.recipient
    elif isinstance(notice, Outcome):
        party = notice.party
    else:
        if notice.operator not in federation.terms.operators:
            raise ConfigError("PARTY_UNKNOWN", "no such operator in this federation", ids={"operator": notice.operator})
        party = notice.operator
        if isinstance(notice, DisputeNotice):
            _check_dispute(notice, federation)
    return {party: federation.identity(party)}, 1


def _check_dispute(notice: DisputeNotice, federation: Federation) -> None:
    """Refuse a statement by who has no such part in the proof, or one with members of another part."""
    cluster = federation.terms.clusters.get(notice.cluster)
    at = notice.prover
    members = () if cluster is None else (cluster.operators[at], cluster.operators[at - 1], cluster.operators[at - 2])
    stated = (notice.said, notice.heard, notice.coin, notice.rejects)
    shape = ((notice.words,), (notice.outputs, notice.terms))
    claim = [member is not None for member in (*stated, *shape[notice.gates != "and"])]
    account = [member is not None for member in (notice.left, notice.right)]
    none = [member is not None for member in shape[notice.gates == "and"]]
    if notice.role == "prover":
        good = notice.operator in members[:1] and all(account) and not any(claim + none)
    else:
        good = notice.operator in members[1:] and all(claim) and not any(account + none)
    if not good:
        raise ConfigError(
            "SCHEMA_INVALID", "dispute notice does not have the form of its author's part in the proof",
            ids={"kind": "dispute", "operator": notice.operator},
        )  # fmt: skip


def verify_notice(signed: SignedNotice, federation: Federation) -> SignedNotice:
    """Check that the party named inside the notice signed it (for approvals: enough of the owner's approvers).

    Returns:
        The same notice with `signers` filled.

    Raises:
        ConfigError: PARTY_UNKNOWN, FEDERATION_FOREIGN. EvidenceError: SIGNATURE_INVALID.
    """
    keys, needed = _keys_for(signed.notice, federation)
    try:
        found = signed.envelope.require(keys, Purpose.NOTICE, at_least=needed)
    except EvidenceError as error:
        raise EvidenceError(
            error.code, f"{signed.kind} notice: {error.what}", ids={**error.ids, "notice": signed.digest[:16]}
        ) from None
    return SignedNotice(signed.notice, signed.envelope, found)


def run_id_of(manifest: SignedNotice) -> RunId:
    """Return SHA-256("comity/run/v1" || manifest payload), the run id."""
    manifest.expect(Manifest)
    return RunId(hashlib.sha256(b"comity/run/v1" + manifest.envelope.payload).hexdigest())
