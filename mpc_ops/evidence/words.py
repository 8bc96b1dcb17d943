"""Words of the page and of the checklist: chosen so that reviewers do not misread them (no "compliant", no "proof")."""

from __future__ import annotations

from mpc_ops.federation.model import PayloadClass

__all__ = ["CLASS_WORDS", "EFFECT_WORDS", "NOT_CLAIMED", "count", "number"]

CLASS_WORDS: dict[str, str] = {
    PayloadClass.RECORD_PLAIN: "RECORD LEVEL, readable",
    PayloadClass.RECORD_PSEUDONYMISED: "RECORD LEVEL, pseudonymised",
    PayloadClass.RECORD_CIPHERTEXT: "RECORD LEVEL, encrypted",
    PayloadClass.RECORD_SHARE: "RECORD LEVEL, secret shares",
    PayloadClass.RECORD_DERIVED_OPENING: "RECORD LEVEL, masked values",
    PayloadClass.PARTIAL_AGGREGATE_PLAIN: "subtotals, readable",
    PayloadClass.AGGREGATE_SHARE: "secret shares of subtotals",
    PayloadClass.AGGREGATE_OPENING: "opened subtotals",
    PayloadClass.PREPROCESSING: "random numbers",
    PayloadClass.MAC_OR_COMMITMENT: "commitments and check sums",
    PayloadClass.CONTROL_METADATA: "control data: names, sizes, times",
    PayloadClass.KEY_MATERIAL: "public keys and nonces",
    PayloadClass.RELEASED_AGGREGATE: "secret shares of the result",
    PayloadClass.EVIDENCE: "evidence",
}

EFFECT_WORDS = {
    "allow": "allowed",
    "allow_with_obligations": "allowed, with obligations",
    "hold_for_approval": "held for approval",
    "deny": "DENIED",
}

NOT_CLAIMED = (
    "that secret shares or ciphertexts are anonymous, not personal data, or no transfer",
    "that computing operators are independent or do not collude, or that authorities do not co-operate: people declare that",
    "that the published table is anonymous: the rules applied are stated, the judgement is yours",
    "that the inputs are true: they are the data owners' own statement",
    "that nothing crossed on channels which no transfer log observes",
    "that deleted shares are gone: each operator attests the deletion",
    "adequacy, or agreement with any law; this page is not legal advice",
)


def number(value: int) -> str:
    """Return an integer with thousands separators."""
    return f"{value:,}"


def count(value: int, one: str, many: str | None = None) -> str:
    """Return `1 frame` or `2 frames`."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"
