"""Errors of an owner's or a recipient's site: the classes of `mpc_ops.errors` that this side raises, in one place."""

from __future__ import annotations

from mpc_ops.errors import (
    Abort,
    ComityError,
    ConfigError,
    DeliveryError,
    EvidenceError,
    LocalDataError,
    LocalProtocolError,
    NotYet,
    PeerProtocolError,
    PeerUnavailable,
    PolicyViolation,
    StateError,
    StoreUnavailable,
    TransportError,
    UsageError,
)

__all__ = [
    "Abort",
    "ComityError",
    "ConfigError",
    "DeliveryError",
    "EvidenceError",
    "LocalDataError",
    "LocalProtocolError",
    "NotYet",
    "PeerProtocolError",
    "PeerUnavailable",
    "PolicyViolation",
    "StateError",
    "StoreUnavailable",
    "TransportError",
    "UsageError",
]
