"""Verification of a pack, offline, with public keys only: a numbered checklist that ends in a verdict.

Every byte of every file is covered: a change of one is refused with the file's name. Where the reviewer brings the
federation's terms (`--federation`), trust starts there: the terms name the authority, whose signature covers the owners,
and every party's key signs its own directory entry; rule packs are pinned by digest. Without them trust starts with the
keys in the pack itself, and the verdict says so with their fingerprint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.dsse import MAX_ENVELOPE_BYTES, Envelope
from mpc_ops.envelope.keys import Purpose
from mpc_ops.envelope.schema import decode
from mpc_ops.errors import ComityError, EvidenceError
from mpc_ops.evidence.checks import Check, assess
from mpc_ops.evidence.derive import derive_facts
from mpc_ops.evidence.facts import SOFTWARE, Facts
from mpc_ops.evidence.ledger import MAX_EXTRACT_BYTES
from mpc_ops.evidence.material import RunEvidence, gather
from mpc_ops.evidence.pack import (
    INDEX,
    INDEX_TYPE,
    MAX_FILE_BYTES,
    MAX_INDEX_BYTES,
    README,
    SIGNED_INDEX,
    PackIndex,
)  # fmt: skip
from mpc_ops.evidence.page import render_page
from mpc_ops.federation.loaded import Federation, read_file
from mpc_ops.notices.signed import SignedNotice, parse_notice, verify_notice

__all__ = ["Verdict", "verify_pack"]


@dataclass(frozen=True)
class Verdict:
    """Result of a verification.

    Attributes:
        checks: the checklist in order.
        run, report, period, outcome: what the pack is about; empty where the index is unreadable.
        trust: where the keys came from, in one sentence.
        facts: the facts as derived again, None if the material could not be read.
    """

    checks: tuple[Check, ...]
    trust: str
    run: str = ""
    report: str = ""
    period: str = ""
    outcome: str = ""
    facts: Facts | None = None

    @property
    def refused(self) -> list[Check]:
        """Checks that failed."""
        return [check for check in self.checks if check.status == "failed"]

    @property
    def ok(self) -> bool:
        """Whether no check failed (items may be open)."""
        return not self.refused

    @property
    def words(self) -> str:
        """`CHECKS PASSED`, `CHECKS PASSED, n open` or `REFUSED`."""
        still = sum(check.status == "open" for check in self.checks)
        if self.refused:
            return f"REFUSED: {len(self.refused)} of {len(self.checks)} checks failed"
        return "CHECKS PASSED" + (f", {still} with open items" if still else "")

    def require(self) -> None:
        """Raise EvidenceError EVIDENCE_REFUSED naming the first failed check and, where there is one, its file."""
        if self.refused:
            first = self.refused[0]
            ids = {"file": first.file} if first.file else {}
            raise EvidenceError("EVIDENCE_REFUSED", f"{first.title}: {first.problems[0]}", ids=ids)


class _RefusedError(Exception):
    def __init__(self, name: str, title: str, problem: str, file: str | None) -> None:
        super().__init__(problem)
        self.check = Check(name, title, "failed", "", (problem,), file)


def verify_pack(folder: Path, federation: Path | None = None) -> Verdict:
    """Check a pack; never raises for what is wrong with the pack itself.

    Args:
        folder: the pack.
        federation: the reviewer's own federation folder or `federation.json`; None takes the keys from the pack.

    Raises:
        ConfigError: FILE_MISSING or SCHEMA_INVALID for the reviewer's own federation file.
    """
    own = (
        None if federation is None else read_file(federation / "federation.json" if federation.is_dir() else federation)
    )
    trust = "keys: from the reviewer's own federation terms" if own else "keys: from the pack itself"
    checks: list[Check] = []
    try:
        return _verify(folder, own, trust, checks)
    except _RefusedError as refused:
        return Verdict((*checks, refused.check), trust)


def _verify(folder: Path, own: bytes | None, trust: str, checks: list[Check]) -> Verdict:
    index = _index(folder, checks)
    data = _files(folder, index, checks)
    federation = _federation(folder, data, index, own, checks)
    where = "the reviewer's own terms" if own else "the pack itself; compare it with the one you keep"
    trust = f"keys: from {where}; fingerprint of the federation terms {federation.digest}"
    _signed_index(data, index, federation, checks)
    evidence = _material(data, index, federation, checks)
    found = assess(evidence)
    checks += found.checks
    facts = _derived(data, evidence, checks)
    return Verdict(tuple(checks), trust, index.run, index.report, index.period, evidence.outcome, facts)


@contextmanager
def _reading(name: str, title: str, file: str) -> Iterator[None]:
    """Turn any deliberate error while reading `file` into a refusal that names it."""
    try:
        yield
    except ComityError as error:
        raise _RefusedError(name, title, f"{error.what} ({error.code})", file) from None


def _bytes(folder: Path, name: str, limit: int) -> bytes:
    return read_file(folder / name, limit_bytes=limit)


def _index(folder: Path, checks: list[Check]) -> PackIndex:
    title = "index of the pack"
    with _reading("index", title, INDEX):
        data = _bytes(folder, INDEX, MAX_INDEX_BYTES)
    with _reading("index", title, SIGNED_INDEX):
        envelope = Envelope.parse(_bytes(folder, SIGNED_INDEX, 2 * MAX_INDEX_BYTES), limit_bytes=2 * MAX_INDEX_BYTES)
    if envelope.payload != data:
        _blame(folder, envelope, title)
    with _reading("index", title, INDEX):
        index = decode(data, PackIndex, what=INDEX, limit_bytes=MAX_INDEX_BYTES)
    checks.append(Check("index", title, "passed", f"names {len(index.files)} files of run {index.run[:12]}"))
    return index


def _blame(folder: Path, envelope: Envelope, title: str) -> None:
    """Index and signed copy differ: the one that carries a valid signature is the one that was not changed."""
    signed_holds = False
    try:
        index = decode(envelope.payload, PackIndex, what=INDEX, limit_bytes=MAX_INDEX_BYTES)
        federation = Federation.load(folder / "federation")
        envelope.require({index.recipient: federation.identity(index.recipient)}, Purpose.EVIDENCE)
        signed_holds = True
    except ComityError:
        signed_holds = False
    raise _RefusedError(
        "index", title, "index.json and its signed copy differ", INDEX if signed_holds else SIGNED_INDEX
    )


def _files(folder: Path, index: PackIndex, checks: list[Check]) -> dict[str, bytes]:
    title = "files: none altered, missing or added"
    present = set()
    for root, folders, names in os.walk(folder, followlinks=False):
        for name in (*folders, *names):
            path = Path(root) / name
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise _RefusedError("files", title, "the pack holds a symbolic link", relative)
        present |= {(Path(root) / name).relative_to(folder).as_posix() for name in names}
    for name in sorted(set(index.files) - present):
        raise _RefusedError("files", title, "a file that the index names is missing", name)
    for name in sorted(present - set(index.files) - {INDEX, SIGNED_INDEX}):
        raise _RefusedError("files", title, "a file is not in the index", name)
    data = {}
    for name, known in sorted(index.files.items()):
        with _reading("files", title, name):
            data[name] = _bytes(folder, name, MAX_FILE_BYTES)
        if len(data[name]) != known.size or sha256_hex(data[name]) != known.sha256:
            raise _RefusedError("files", title, "a file was altered: its digest is not the one in the index", name)
    data[SIGNED_INDEX] = _bytes(folder, SIGNED_INDEX, 2 * MAX_INDEX_BYTES)
    checks.append(Check("files", title, "passed", f"{len(index.files)} digests agree"))
    return data


def _federation(
    folder: Path, data: dict[str, bytes], index: PackIndex, own: bytes | None, checks: list[Check]
) -> Federation:
    title = "federation: terms, rule packs, membership, directory"
    place = "federation/federation.json"
    if own is not None and data.get(place) != own:
        raise _RefusedError(
            "federation", title, "the pack belongs to other federation terms than the reviewer's", place
        )
    with _reading("federation", title, place):
        federation = Federation.load(folder / "federation")
    if federation.digest != index.federation or federation.membership is None:
        raise _RefusedError(
            "federation", title, "the index names other federation terms, or no member is listed", place
        )
    checks.append(
        Check(
            "federation",
            title,
            "passed",
            f"{federation.terms.name} version {federation.terms.version}, {len(federation.owners)} data owners, "
            f"{len(federation.terms.operators)} computing operators",
        )
    )
    return federation


def _signed_index(data: dict[str, bytes], index: PackIndex, federation: Federation, checks: list[Check]) -> None:
    title = "signature of the result recipient over the index"
    with _reading("signature", title, SIGNED_INDEX):
        envelope = Envelope.parse(data[SIGNED_INDEX], limit_bytes=2 * MAX_INDEX_BYTES)
        key = federation.identity(index.recipient)
        envelope.require({index.recipient: key}, Purpose.EVIDENCE)
    # A key hint is not signed, and a second signature would be, but by nobody the index names.
    hints = [hint for hint, _ in envelope.signatures]
    if envelope.payload_type != INDEX_TYPE or hints != [key.fingerprint]:
        raise _RefusedError("signature", title, "another type, key hint or number of signatures", SIGNED_INDEX)
    if index.recipient not in federation.terms.recipients:
        raise _RefusedError("signature", title, "signed by a party that is no result recipient", SIGNED_INDEX)
    checks.append(Check("signature", title, "passed", f"signed by {index.recipient}"))


def _material(data: dict[str, bytes], index: PackIndex, federation: Federation, checks: list[Check]) -> RunEvidence:
    title = "signatures of every notice, attestation and transfer log"
    notices = [_notice(name, raw, federation, title) for name, raw in _below(data, "notices/")]
    manifests = [signed for signed in notices if signed.kind == "manifest"]
    if len(manifests) != 1:
        raise _RefusedError("signatures", title, "the pack does not hold exactly one submission close", INDEX)
    attestations = {name: _envelope(name, raw, title) for name, raw in _below(data, "attestations/")}
    closing = attestations.pop("attestations/closing.dsse", None)
    ledgers = {name: _envelope(name, raw, title) for name, raw in _below(data, "ledgers/")}
    with _reading("signatures", title, INDEX):
        evidence = gather(
            federation, manifests[0], notices,
            attestations=attestations.values(), ledgers=ledgers.values(), closing=closing,
        )  # fmt: skip
    if (evidence.run, evidence.plan.report, evidence.close.period) != (index.run, index.report, index.period):
        raise _RefusedError("signatures", title, "the index is about another run than the submission close", INDEX)
    _names(data, evidence, title)
    count = len(notices) + len(attestations) + len(ledgers) + (closing is not None)
    checks.append(Check("signatures", title, "passed", f"{count} signed envelopes"))
    return evidence


def _below(data: dict[str, bytes], folder: str) -> list[tuple[str, bytes]]:
    return [(name, raw) for name, raw in data.items() if name.startswith(folder)]


def _notice(name: str, raw: bytes, federation: Federation, title: str) -> SignedNotice:
    with _reading("signatures", title, name):
        signed = verify_notice(parse_notice(raw), federation)
    if name != f"notices/{signed.kind}/{signed.digest}.dsse":
        raise _RefusedError("signatures", title, "a notice lies under another name than its own", name)
    return signed


def _envelope(name: str, raw: bytes, title: str) -> Envelope:
    with _reading("signatures", title, name):
        return Envelope.parse(raw, limit_bytes=max(MAX_ENVELOPE_BYTES, 2 * MAX_EXTRACT_BYTES))


def _names(data: dict[str, bytes], evidence: RunEvidence, title: str) -> None:
    """Every file of the pack was used, and under its own name: nothing lies beside what was checked."""
    used = {f"notices/{kind}/{s.digest}.dsse" for kind, found in evidence.notices.items() for s in found}
    used |= {f"attestations/{party}.dsse" for party in evidence.attestations}
    used |= {f"ledgers/{party}.dsse" for party in evidence.ledgers}
    used |= {"facts.json", "page.html", "README.txt", "previous.json", "attestations/closing.dsse", SIGNED_INDEX}
    for name in data:
        if name not in used and not name.startswith("federation/"):
            raise _RefusedError("signatures", title, "a file has nothing to do with the run", name)


def _derived(data: dict[str, bytes], evidence: RunEvidence, checks: list[Check]) -> Facts:
    title = "facts and page: derived again from the signed material"
    with _reading("derived", title, "facts.json"):
        stated = decode(data.get("facts.json", b""), Facts, what="facts.json", limit_bytes=MAX_FILE_BYTES)
    previous = None
    if "previous.json" in data:
        with _reading("derived", title, "previous.json"):
            previous = decode(data["previous.json"], Facts, what="previous.json", limit_bytes=MAX_FILE_BYTES)
    facts = derive_facts(assess(evidence), previous)
    if stated.software != SOFTWARE:
        done = f"written by {stated.software}, read by {SOFTWARE}: covered by digest and signature, not derived again"
        checks.append(Check("derived", title, "open", done, (done,)))
        return facts
    comparisons: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("facts.json", lambda: facts == stated),
        ("page.html", lambda: render_page(facts) == data.get("page.html")),
        ("README.txt", lambda: data.get("README.txt") == README.encode("utf-8")),
    )
    for name, same in comparisons:
        if not same():
            raise _RefusedError("derived", title, "the file does not follow from the signed material", name)
    checks.append(Check("derived", title, "passed", f"{len(facts.facts)} facts and the page agree byte for byte"))
    return facts
