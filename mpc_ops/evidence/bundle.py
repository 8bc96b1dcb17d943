"""The evidence of one run as it travels: body of `GET /v1/runs/{run}/evidence` and file in an owner's outbox.

Canonical JSON of envelopes in full. Whoever reads it verifies every envelope by himself; a relay can only leave out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta

from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.schema import Model, decode, encode
from mpc_ops.evidence.ledger import MAX_EXTRACT_BYTES
from mpc_ops.federation.model import DigestText

__all__ = ["MAX_BUNDLE_BYTES", "EvidenceBundle", "make_bundle", "read_bundle"]

MAX_BUNDLE_BYTES = 256 << 20

EnvelopeText = Annotated[str, Meta(max_length=MAX_EXTRACT_BYTES)]


class EvidenceBundle(Model, frozen=True, kw_only=True):
    """Envelopes as text: notices of the run, run attestations (in-toto) and signed log extracts, one per operator."""

    format: Literal["comity/evidence-bundle/v1"] = "comity/evidence-bundle/v1"
    run: DigestText
    notices: Annotated[list[EnvelopeText], Meta(max_length=200_000)]
    attestations: Annotated[list[EnvelopeText], Meta(max_length=1000)]
    ledgers: Annotated[list[EnvelopeText], Meta(max_length=1000)]


def make_bundle(
    run: str, notices: Iterable[Envelope], attestations: Iterable[Envelope], ledgers: Iterable[Envelope]
) -> bytes:
    """Return the canonical bytes of a bundle; envelopes are ordered by the digest of their payload."""

    def texts(envelopes: Iterable[Envelope]) -> list[str]:
        return [item.to_bytes().decode("utf-8") for item in sorted(envelopes, key=lambda item: item.digest)]

    return encode(
        EvidenceBundle(run=run, notices=texts(notices), attestations=texts(attestations), ledgers=texts(ledgers))
    )


def read_bundle(data: bytes) -> EvidenceBundle:
    """Decode a bundle from another party; raises ConfigError JSON_INVALID, SCHEMA_INVALID."""
    return decode(data, EvidenceBundle, what="evidence bundle", limit_bytes=MAX_BUNDLE_BYTES)
