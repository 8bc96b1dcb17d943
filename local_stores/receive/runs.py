"""What the recipient keeps of a run under the site's state, and the run's evidence as put together from all operators.

```
group/periods/<plan>/<period>/<edition>/<n>.dsse   manifests in order; the last one is the live one,
                                        <n>.refused  unless every operator refused it
group/reference/<period>/<version>.dsse            reference data that was handed over
group/runs/<run>/manifest.dsse                      with federation/..., as at the close
group/runs/<run>/parts/<operator>                   sealed result parts
group/runs/<run>/bundles/<operator>                 evidence as the operator handed it over
group/runs/<run>/own/<name>.dsse                    acknowledgement, closing attestation, countersignature
group/runs/<run>/lanes.json                         the verified result; stays here
```
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from local_stores.config.state import State
from local_stores.errors import ComityError, ConfigError
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.evidence.bundle import MAX_BUNDLE_BYTES, EvidenceBundle, read_bundle
from mpc_ops.evidence.ledger import MAX_EXTRACT_BYTES, verify_extract
from mpc_ops.evidence.material import RunEvidence, belongs, gather
from mpc_ops.evidence.pack import federation_files
from mpc_ops.evidence.statement import verify_attestation
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.model import Manifest
from mpc_ops.notices.signed import SignedNotice, parse_notice, run_id_of, verify_notice

__all__ = ["RunFiles", "live_manifest", "refuse_manifest", "save_manifest"]

_ROOT = "group"


def _editions(plan: str, period: str, edition: int) -> str:
    return f"{_ROOT}/periods/{plan[:32]}/{period}/{edition}"


def live_manifest(state: State, plan: str, period: str, edition: int) -> SignedNotice | None:
    """Return the last manifest that was signed for an edition, None if there is none or every operator refused it."""
    folder = _editions(plan, period, edition)
    names = state.names(folder)
    number = max((_number(name) for name in names), default=0)
    if number < 1 or f"{number}.refused" in names:
        return None
    return parse_notice(state.require(f"{folder}/{number}.dsse"))


def refuse_manifest(state: State, signed: SignedNotice, code: str) -> None:
    """Remember that no operator took the live manifest: the next close signs a new one over what is there then."""
    close = signed.expect(Manifest)
    folder = _editions(close.plan, close.period, close.edition)
    number = max(_number(name) for name in state.names(folder))
    if parse_notice(state.require(f"{folder}/{number}.dsse")).digest == signed.digest:
        state.write(f"{folder}/{number}.refused", code.encode("ascii"))


def _number(name: str) -> int:
    head = name.partition(".")[0]
    return int(head) if head.isdecimal() else -1


def save_manifest(state: State, signed: SignedNotice, federation_folder: Path) -> SignedNotice:
    """Write a new manifest, with the federation as it is now, and return the one that counts.

    Two closes at once: the first one's manifest counts for both.
    """
    close = signed.expect(Manifest)
    folder = _editions(close.plan, close.period, close.edition)
    taken = [_number(name) for name in state.names(folder)]
    data = state.write_once(f"{folder}/{max(taken, default=0) + 1}.dsse", signed.envelope.to_bytes())
    kept = parse_notice(data)
    run = RunFiles(state, run_id_of(kept))
    for name, content in federation_files(federation_folder).items():
        state.write_once(f"{run.folder}/{name}", content)
    state.write_once(f"{run.folder}/manifest.dsse", data)
    return kept


@dataclass(frozen=True)
class RunFiles:
    """Files of one run."""

    state: State
    run: str

    @property
    def folder(self) -> str:
        """Folder under the state."""
        return f"{_ROOT}/runs/{self.run}"

    def manifest(self) -> SignedNotice:
        """Return the run's manifest; raise ConfigError RUN_UNKNOWN."""
        data = self.state.read(f"{self.folder}/manifest.dsse")
        if data is None:
            raise ConfigError("RUN_UNKNOWN", "this site closed no run with this id", ids={"run": self.run[:12]})
        return parse_notice(data)

    def federation_files(self) -> dict[str, bytes]:
        """Return the federation's files as they were at the close, by their name in a pack."""
        return dict(self._below("federation"))

    def _below(self, folder: str) -> Iterable[tuple[str, bytes]]:
        for name in self.state.names(f"{self.folder}/{folder}"):
            path = f"{folder}/{name}"
            if name.endswith((".json", ".dsse")):
                yield path, self.state.require(f"{self.folder}/{path}")
            else:
                yield from self._below(path)

    def federation(self) -> Federation:
        """Return the federation as it was at the close, verified."""
        with tempfile.TemporaryDirectory(prefix="comity-") as scratch:
            for name, data in self.federation_files().items():
                path = Path(scratch) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            return Federation.load(Path(scratch) / "federation")

    def parts(self) -> dict[str, bytes]:
        """Return the sealed result parts by operator."""
        folder = f"{self.folder}/parts"
        return {name: self.state.require(f"{folder}/{name}") for name in self.state.names(folder)}

    def save_part(self, operator: str, data: bytes) -> bytes:
        """Keep a sealed part; the first one counts."""
        return self.state.write_once(f"{self.folder}/parts/{operator}", data)

    def save_bundle(self, operator: str, data: bytes) -> None:
        """Keep an operator's evidence; a later answer replaces an earlier one."""
        self.state.write(f"{self.folder}/bundles/{operator}", data)

    def own(self, name: str) -> Envelope | None:
        """Return an own signed file (`ack`, `outcome`, `closing`), None if there is none."""
        data = self.state.read(f"{self.folder}/own/{name}.dsse")
        return None if data is None else Envelope.parse(data)

    def save_own(self, name: str, envelope: Envelope) -> Envelope:
        """Keep an own signed file; the first one counts, so that a repeated call signs nothing new."""
        return Envelope.parse(self.state.write_once(f"{self.folder}/own/{name}.dsse", envelope.to_bytes()))

    def lanes(self) -> list[int]:
        """Return the verified result; raise ConfigError STATE_MISSING before `verify`."""
        return [int(text) for text in json.loads(self.state.require(f"{self.folder}/lanes.json"))]

    def save_lanes(self, values: list[int]) -> None:
        """Keep the verified result, readable by this user only."""
        self.state.write(f"{self.folder}/lanes.json", json.dumps([str(value) for value in values]).encode())

    def evidence(self, federation: Federation, own_log: Envelope | None) -> RunEvidence:
        """Put together what all operators handed over; what is not validly signed is left out, not believed.

        Args:
            federation: as at the close.
            own_log: the recipient's own signed extract.

        Raises:
            EvidenceError: RELEASE_MISSING, FILING_MISSING, EVIDENCE_TWICE and so on, as `gather`.
        """
        manifest = self.manifest()
        bundles = [read_bundle(data) for data in self._bundles()]
        notices = {s.digest: s for text in _texts(bundles, "notices") if (s := _notice(text, manifest, federation))}
        for name in ("ack", "outcome"):
            own = self.own(name)
            if own is not None:
                signed = parse_notice(own.to_bytes())
                notices[signed.digest] = signed
        attestations = {e.digest: e for text in _texts(bundles, "attestations")
                        if (e := _attestation(text, manifest, federation))}  # fmt: skip
        ledgers = {e.digest: e for text in _texts(bundles, "ledgers") if (e := _ledger(text, federation, self.run))}
        if own_log is not None:
            ledgers[own_log.digest] = own_log
        return gather(
            federation,
            manifest,
            notices.values(),
            attestations=attestations.values(),
            ledgers=ledgers.values(),
            closing=self.own("closing"),
        )

    def _bundles(self) -> Iterable[bytes]:
        folder = f"{self.folder}/bundles"
        for name in self.state.names(folder):
            yield self.state.require(f"{folder}/{name}", limit_bytes=MAX_BUNDLE_BYTES)


def _texts(bundles: Iterable[EvidenceBundle], member: str) -> list[str]:
    return sorted({text for bundle in bundles for text in getattr(bundle, member)})


def _notice(text: str, manifest: SignedNotice, federation: Federation) -> SignedNotice | None:
    try:
        signed = parse_notice(text.encode("utf-8"))
        return verify_notice(signed, federation) if belongs(signed, manifest) else None
    except ComityError:
        return None


def _attestation(text: str, manifest: SignedNotice, federation: Federation) -> Envelope | None:
    try:
        envelope = Envelope.parse(text.encode("utf-8"))
        verify_attestation(envelope, manifest, federation)
    except ComityError:
        return None
    return envelope


def _ledger(text: str, federation: Federation, run: str) -> Envelope | None:
    try:
        envelope = Envelope.parse(text.encode("utf-8"), limit_bytes=2 * MAX_EXTRACT_BYTES)
        return envelope if verify_extract(envelope, federation).run == run else None
    except ComityError:
        return None
