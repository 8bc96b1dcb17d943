"""Keys and streams: length-prefixed contexts, HKDF derivation, AES-CTR expansion, pairwise key agreement, frame cipher."""

from mpc_ops.randomness.agreement import (
    Confirmation,
    Initiator,
    Offer,
    PairKeys,
    Reply,
    Responder,
    SessionContext,
    session_digest,
)
from mpc_ops.randomness.context import ContextItem, encode_context
from mpc_ops.randomness.frame_cipher import FRAME_OVERHEAD_BYTES, FrameAddress, FrameOpener, FrameSealer, frame_digest
from mpc_ops.randomness.streams import MAX_LANES, SEED_BYTES, derive, expand

__all__ = [
    "FRAME_OVERHEAD_BYTES",
    "MAX_LANES",
    "SEED_BYTES",
    "Confirmation",
    "ContextItem",
    "FrameAddress",
    "FrameOpener",
    "FrameSealer",
    "Initiator",
    "Offer",
    "PairKeys",
    "Reply",
    "Responder",
    "SessionContext",
    "derive",
    "encode_context",
    "expand",
    "frame_digest",
    "session_digest",
]
