"""The transfer log ("ledger") of a party: a hash chain of what it sent, received, checked and refused.

```
genesis(party) = H("comity/ledger-genesis/v1", party)
entry_digest   = H("comity/ledger-entry/v1", canonical bytes of the entry, its salt among them)
chain(head, e) = H("comity/ledger-chain/v1", head, entry_digest(e))          H: SHA-256 over length-prefixed parts
```

What a writer must know:

* An entry names no digest of a share, message, figure or result: `digest` is the SHA-256 of a ciphertext frame or
  sealed part (`frame_*` only); `ref` names a notice by its digest, a rule by its id, or a code.
* Every frame is logged once at each end, however often the link repeats it: `frame_sent` when it is first handed to the
  link, `frame_received` when it is first accepted. Digest, class, bytes, run and attempt are the same at both ends.
* The frames of an attempt's stage, of which there may be thousands, are one line per link and direction: `frames_sent` and
  `frames_received`, written together with the end of the attempt. `frames` is their number, `bytes` the length of all
  ciphertexts (the bodies and 16 bytes a frame), `digest` the SHA-256 over their SHA-256 digests in the order of sending. In
  the attempt that was committed both ends say the same; of one that was given up, a part may have been under way. What the
  link itself says (confirmations of frames, keep-alives) is not logged: it holds counters only.
* A part that comes before its run exists has `run` None and `ref` = digest of the filing. A notice that travels inside a
  frame has `bytes` 0 in its `notice_*` entry (the frame's entry counts); one that travels by itself (HTTPS, SFTP) has
  its own length.
* `state`: `ref` is the state or code reached (`COMMITTED`). `checkpoint`: `sender` is the peer, `ref` its chain head that
  we countersign. `rule_decision`: `ref` is the rule id, `decision` what it decided, `sender`/`receiver`/`payload_class`
  the flow. `denied`: `ref` is the code. `erased`: `ref` names what was deleted.

The random salt makes an entry's digest useless as a test for guesses, so an extract of one run shows the entries of
other runs between its own as digests only: their number is seen, nothing else.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey, IdentityPublicKey, Purpose
from mpc_ops.envelope.schema import Model, decode, encode
from mpc_ops.errors import EvidenceError
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import DigestText, Name, PayloadClass, UtcText
from mpc_ops.ids import Digest
from mpc_ops.notices.model import Flow

__all__ = [
    "EVENTS", "LEDGER_TYPE", "MAX_EXTRACT_BYTES", "LedgerEntry", "LedgerExtract", "build_extract", "chain", "check_entry",
    "entry_digest", "flows_of", "genesis", "heads", "new_entry", "sign_extract", "verify_extract",
]  # fmt: skip

LEDGER_TYPE = "application/vnd.comity.ledger+json"
MAX_EXTRACT_BYTES = 32 << 20

Event = Literal[
    "frame_sent", "frame_received", "frames_sent", "frames_received", "notice_sent", "notice_received",
    "approval_checked", "rule_decision", "denied", "state", "erased", "boot", "checkpoint",
]  # fmt: skip
EVENTS: tuple[str, ...] = get_args(Event)
_STAGE_FRAMES = ("frames_sent", "frames_received")
_FRAMES = ("frame_sent", "frame_received", *_STAGE_FRAMES)
_NOTICES = ("notice_sent", "notice_received")

Short = Annotated[str, Meta(max_length=300)]


class LedgerEntry(Model, frozen=True, kw_only=True):
    """One line of a transfer log.

    Attributes:
        seq: position in the party's log, from 0 without gaps.
        run: run id, None where the event belongs to none (boot) or comes before the run (a filing's part).
        cluster: cluster of the session at the writing party, None outside a session.
        attempt: attempt of the session, 0 outside one.
        bytes: length of the ciphertext frame, sealed part or notice; 0 where nothing travelled by itself.
        frames: number of frames that the line stands for; `frames_*` only.
        digest: SHA-256 of the ciphertext, or over those of several; `frame_*` and `frames_*` only.
        salt: 16 random bytes in hex.
    """

    seq: Annotated[int, Meta(ge=0)]
    at: UtcText
    event: Event
    run: DigestText | None = None
    cluster: Name | None = None
    attempt: Annotated[int, Meta(ge=0, le=10000)] = 0
    sender: Name | None = None
    receiver: Name | None = None
    payload_class: PayloadClass | None = None
    bytes: Annotated[int, Meta(ge=0)] = 0
    frames: Annotated[int, Meta(ge=0)] = 0
    digest: DigestText | None = None
    ref: Short | None = None
    decision: Short | None = None
    salt: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]

    @property
    def messages(self) -> int:
        """How many messages the line stands for."""
        return self.frames or 1


class LedgerExtract(Model, frozen=True, kw_only=True):
    """The entries of one run, and the proof that they stand in a chain with a signed head.

    Attributes:
        start_seq, start_head: place in the chain before the first item.
        items: consecutive entries; those of other runs as their digest only.
        head: chain head after the last item.
    """

    format: Literal["comity/ledger-extract/v1"] = "comity/ledger-extract/v1"
    party: Name
    run: DigestText
    start_seq: Annotated[int, Meta(ge=0)]
    start_head: DigestText
    items: Annotated[list[LedgerEntry | DigestText], Meta(min_length=1, max_length=200_000)]
    head: DigestText
    created_at: UtcText

    @property
    def entries(self) -> list[LedgerEntry]:
        """The run's own entries in order."""
        return [item for item in self.items if isinstance(item, LedgerEntry)]


def _hash(*parts: bytes) -> Digest:
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big") + part)
    return Digest(state.hexdigest())


def genesis(party: str) -> Digest:
    """Return the chain head of an empty log of `party`."""
    return _hash(b"comity/ledger-genesis/v1", party.encode())


def new_entry(**fields: Any) -> LedgerEntry:
    """Return a checked entry with a fresh salt; `fields` are those of LedgerEntry without `salt`."""
    return check_entry(LedgerEntry(**fields, salt=secrets.token_hex(16)))


def check_entry(entry: LedgerEntry) -> LedgerEntry:
    """Return the entry if its members fit its event; raise EvidenceError LEDGER_INVALID otherwise."""
    ids = {"seq": entry.seq, "event": entry.event}
    if (entry.event in _FRAMES) != (entry.digest is not None):
        raise EvidenceError("LEDGER_INVALID", "frames have a digest of their ciphertext and nothing else has", ids=ids)
    if entry.event in _FRAMES and None in {entry.sender, entry.receiver, entry.payload_class}:
        raise EvidenceError("LEDGER_INVALID", "a frame has a sender, a receiver and a class", ids=ids)
    if (entry.event in _STAGE_FRAMES) != (entry.frames > 0) or (entry.frames and entry.cluster is None):
        raise EvidenceError("LEDGER_INVALID", "frames of a stage are counted, and belong to a session", ids=ids)
    if entry.event in _NOTICES and entry.ref is None:
        raise EvidenceError("LEDGER_INVALID", "a notice is named by its digest", ids=ids)
    return entry


def entry_digest(entry: LedgerEntry) -> Digest:
    """Return the salted digest under which an entry stands in the chain."""
    return _hash(b"comity/ledger-entry/v1", encode(entry))


def _link(head: str, digest: str) -> Digest:
    return _hash(b"comity/ledger-chain/v1", bytes.fromhex(head), bytes.fromhex(digest))


def chain(head: str, entry: LedgerEntry) -> Digest:
    """Return the head after `entry`."""
    return _link(head, entry_digest(entry))


def build_extract(
    party: str,
    run: str,
    entries: Iterable[LedgerEntry],
    start_head: str,
    *,
    refs: Collection[str] = (),
    created_at: str,
) -> LedgerExtract:
    """Return the extract of one run.

    Args:
        party: whose log it is.
        run: the run.
        entries: consecutive entries of the log, none left out, from the run's first (or earlier) to the last.
        start_head: chain head before the first of `entries`.
        refs: digests of notices that belong to the run (its filings at least); entries without a run that refer to
            one of them are shown too.
        created_at: moment of signing.

    Raises:
        EvidenceError: LEDGER_INVALID if the entries are not consecutive or hold nothing of the run.
    """
    items: list[LedgerEntry | str] = []
    head, start = start_head, None
    for entry in entries:
        if start is None:
            start = entry.seq
        if entry.seq != start + len(items):
            raise EvidenceError("LEDGER_INVALID", "log entries are not consecutive", ids={"seq": entry.seq})
        shown = entry.run == run or (entry.run is None and entry.ref is not None and entry.ref in refs)
        items.append(entry if shown else entry_digest(entry))
        head = chain(head, entry)
    if start is None or not any(isinstance(item, LedgerEntry) for item in items):
        raise EvidenceError(
            "LEDGER_INVALID", "the log holds no entry of the run", ids={"party": party, "run": run[:12]}
        )
    return LedgerExtract(
        party=party, run=run, start_seq=start, start_head=start_head, items=items, head=head, created_at=created_at
    )


def heads(extract: LedgerExtract) -> list[Digest]:
    """Return the chain heads before the first item and after each one.

    Raises:
        EvidenceError: LEDGER_INVALID if an entry has another position or form than it must have.
    """
    ids = {"party": extract.party, "run": extract.run[:12]}
    out = [Digest(extract.start_head)]
    for offset, item in enumerate(extract.items):
        if isinstance(item, LedgerEntry):
            check_entry(item)
            if item.seq != extract.start_seq + offset:
                raise EvidenceError("LEDGER_INVALID", "a log entry stands at another position", ids=ids)
            if item.run not in {extract.run, None}:
                raise EvidenceError("LEDGER_INVALID", "an extract shows an entry of another run", ids=ids)
        out.append(_link(out[-1], entry_digest(item) if isinstance(item, LedgerEntry) else item))
    return out


def sign_extract(extract: LedgerExtract, key: IdentityKey) -> Envelope:
    """Sign an extract (purpose LEDGER)."""
    return Envelope.sign(LEDGER_TYPE, encode(extract), key, Purpose.LEDGER)


def verify_extract(envelope: Envelope, federation: Federation) -> LedgerExtract:
    """Check type, form, signature of the named party, positions and the chain up to the head.

    Raises:
        ConfigError: JSON_INVALID, SCHEMA_INVALID, PARTY_UNKNOWN.
        EvidenceError: LEDGER_INVALID, LEDGER_CHAIN, SIGNATURE_INVALID.
    """
    if envelope.payload_type != LEDGER_TYPE:
        raise EvidenceError("LEDGER_INVALID", "not a transfer log extract", got=envelope.payload_type[:80])
    extract = decode(envelope.payload, LedgerExtract, what="transfer log extract", limit_bytes=MAX_EXTRACT_BYTES)
    key: IdentityPublicKey = federation.identity(extract.party)
    envelope.require({extract.party: key}, Purpose.LEDGER)
    ids = {"party": extract.party, "run": extract.run[:12]}
    if extract.start_seq == 0 and extract.start_head != genesis(extract.party):
        raise EvidenceError("LEDGER_CHAIN", "a transfer log does not begin at its party's genesis", ids=ids)
    if heads(extract)[-1] != extract.head:
        raise EvidenceError("LEDGER_CHAIN", "a transfer log does not lead to its signed head", ids=ids)
    return extract


def flows_of(entries: Sequence[LedgerEntry]) -> list[Flow]:
    """Return messages and bytes by (sender, receiver, class) of everything that travelled, sorted."""
    sums: dict[tuple[str, str, str], tuple[int, int]] = {}
    for entry in entries:
        if entry.event not in (*_FRAMES, *_NOTICES) or not entry.bytes:
            continue
        if entry.sender is None or entry.receiver is None or entry.payload_class is None:
            continue
        key = (entry.sender, entry.receiver, str(entry.payload_class))
        messages, size = sums.get(key, (0, 0))
        sums[key] = (messages + entry.messages, size + entry.bytes)
    return [
        Flow(sender=sender, receiver=receiver, payload_class=kind, messages=messages, bytes=size)
        for (sender, receiver, kind), (messages, size) in sorted(sums.items())
    ]
