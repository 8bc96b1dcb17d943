"""The evidence pack: a folder that holds everything needed to check a run offline.

```
index.json                  canonical; names every other file with its length and SHA-256
index.json.dsse             the same bytes, signed by the result recipient (purpose EVIDENCE)
federation/                 terms, rule packs, membership, directory: public keys only
notices/<kind>/<digest>.dsse
attestations/<operator>.dsse, attestations/closing.dsse
ledgers/<party>.dsse        signed extracts of the transfer logs
previous.json               facts of the report's last pack, if there is one (for page 4)
facts.json, page.html       derived from the above; whoever verifies derives them again
README.txt
```
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey, Purpose
from mpc_ops.envelope.schema import Model, encode
from mpc_ops.errors import ConfigError, EvidenceError
from mpc_ops.evidence.checks import assess
from mpc_ops.evidence.derive import derive_facts
from mpc_ops.evidence.facts import SOFTWARE, Facts
from mpc_ops.evidence.material import RunEvidence
from mpc_ops.evidence.page import render_page
from mpc_ops.federation.loaded import Federation, read_file
from mpc_ops.federation.model import DigestText, Name
from mpc_ops.notices.model import PeriodText

__all__ = [
    "INDEX", "INDEX_TYPE", "MAX_FILE_BYTES", "IndexedFile", "PackIndex", "build_pack", "federation_files", "pack_files", "write_pack",
]  # fmt: skip

INDEX, SIGNED_INDEX = "index.json", "index.json.dsse"
INDEX_TYPE = "application/vnd.comity.evidence-index+json"
MAX_FILE_BYTES = 64 << 20
MAX_INDEX_BYTES = 64 << 20
_FEDERATION = ("federation.json", "membership.dsse")

README = """EVIDENCE OF ONE RUN

Open page.html in any browser: it needs no network and runs no script.

Check everything yourself, offline, with public keys only:

    comity evidence verify .
    comity evidence verify . --federation FOLDER

The first line takes the public keys from this folder and tells you their fingerprint; compare it with the one that your
own organisation keeps. The second line takes the federation's terms from a folder of your own.

What is what
    facts.json      every line of the page, with source, who attests it, and dates
    notices/        signed notices: release, approvals, submissions, receipts, submission close, states, result
                    commitments, statements, deletions, countersignatures
    attestations/   in-toto Statements in DSSE envelopes, one by each computing operator, and the closing attestation
    ledgers/        each party's transfer log: a signed, hash-chained extract of this run
    federation/     public keys, rule packs, membership
    index.json      SHA-256 of every file; index.json.dsse is the result recipient's signature over it

No file holds a value, a share, or a digest from which one could be guessed. "aggregate" here means a subtotal over at
least k units. Nothing here says that anything complies with a law.
"""


class IndexedFile(Model, frozen=True, kw_only=True):
    """Length and digest of one file."""

    size: Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)]
    sha256: DigestText


class PackIndex(Model, frozen=True, kw_only=True):
    """`index.json`: what the pack is about and every file in it, itself and its signature excepted."""

    format: Literal["comity/evidence-pack/v1"] = "comity/evidence-pack/v1"
    software: Annotated[str, Meta(max_length=200)]
    report: Name
    period: PeriodText
    edition: Annotated[int, Meta(ge=1)]
    run: DigestText
    federation: DigestText
    recipient: Name
    files: Annotated[dict[str, IndexedFile], Meta(max_length=400_000)]


def federation_files(folder: Path) -> dict[str, bytes]:
    """Return the public files of a federation folder by their name in a pack.

    Raises:
        ConfigError: what `Federation.load` raises; FILE_MISSING.
    """
    Federation.load(folder)
    paths = [folder / name for name in _FEDERATION]
    paths += [*sorted((folder / "rules").glob("*.json")), *sorted((folder / "directory").glob("*.dsse"))]
    return {f"federation/{path.relative_to(folder).as_posix()}": read_file(path) for path in paths}


def pack_files(evidence: RunEvidence, federation: Mapping[str, bytes], previous: Facts | None) -> dict[str, bytes]:
    """Return every file of a pack but the index: a pure function of its arguments."""
    files = dict(federation)
    for kind, notices in evidence.notices.items():
        for signed in notices:
            files[f"notices/{kind}/{signed.digest}.dsse"] = signed.envelope.to_bytes()
    for party, envelope in evidence.attestations.items():
        files[f"attestations/{party}.dsse"] = envelope.to_bytes()
    if evidence.closing is not None:
        files["attestations/closing.dsse"] = evidence.closing.to_bytes()
    for party, envelope in evidence.ledger_envelopes.items():
        files[f"ledgers/{party}.dsse"] = envelope.to_bytes()
    if previous is not None:
        files["previous.json"] = encode(previous)
    facts = derive_facts(assess(evidence), previous)
    files["facts.json"] = encode(facts)
    files["page.html"] = render_page(facts)
    files["README.txt"] = README.encode("utf-8")
    return files


def build_pack(
    evidence: RunEvidence, federation: Mapping[str, bytes], key: IdentityKey, *, previous: Facts | None = None
) -> dict[str, bytes]:
    """Return all files of a signed pack.

    Args:
        evidence: verified material of the run.
        federation: `federation_files` of the folder as it was at the close.
        key: the result recipient's identity key.
        previous: facts of the report's last pack.
    """
    files = pack_files(evidence, federation, previous)
    index = PackIndex(
        software=SOFTWARE,
        report=evidence.plan.report,
        period=evidence.close.period,
        edition=evidence.close.edition,
        run=evidence.run,
        federation=evidence.federation.digest,
        recipient=evidence.close.recipient,
        files={name: IndexedFile(size=len(data), sha256=sha256_hex(data)) for name, data in files.items()},
    )
    data = encode(index)
    files[INDEX] = data
    files[SIGNED_INDEX] = Envelope.sign(INDEX_TYPE, data, key, Purpose.EVIDENCE).to_bytes()
    return files


def write_pack(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a pack, replacing an earlier one as a whole: readers see the old folder or the new one.

    Raises:
        EvidenceError: PACK_UNWRITABLE.
        ConfigError: FOLDER_NOT_EMPTY if the folder holds something else than a pack.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / INDEX).exists():
        raise ConfigError(
            "FOLDER_NOT_EMPTY", "the folder holds something else than evidence", ids={"folder": str(folder)}
        )
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        for stale in (fresh, old):
            if stale.exists():
                shutil.rmtree(stale)
        for name in sorted(files):
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        if old.exists():
            shutil.rmtree(old)
        descriptor = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise EvidenceError(
            "PACK_UNWRITABLE",
            f"the evidence pack cannot be written ({type(error).__name__})",
            ids={"folder": str(folder)},
        ) from None
