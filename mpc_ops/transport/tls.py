"""TLS 1.3 between parties: both ends show a certificate, and each party is believed only through its own authority.

OpenSSL checks chain, dates and possession of the key against the pinned authorities of all admitted peers;
`proven_party` then insists that the party named in the certificate is the one whose own authority signed it. Without the
second check any admitted peer could name another. Host names prove nothing here and are not compared, so a move behind
another address or a proxy needs no new certificate.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mpc_ops.envelope.secrets import read_secret
from mpc_ops.errors import ComityError, ConfigError, PeerProtocolError, PeerUnavailable
from mpc_ops.federation.pki import PartyId, issued_by, party_of, read_certificate

__all__ = ["client_context", "explain", "proven_party", "server_context"]

_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID


def server_context(certificate: Path, key: Path, ca_pins: Iterable[str]) -> ssl.SSLContext:
    """Return a context that accepts TLS 1.3 clients with a certificate of one of the pinned authorities.

    Args:
        certificate: own leaf, PEM file.
        key: its private key, PEM file with mode 0600.
        ca_pins: PEM certificates of the authorities of all parties that may connect.

    Raises:
        ConfigError: SECRET_MISSING, SECRET_PERMISSIONS, CERTIFICATE_INVALID.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, ca_pins)
    context.num_tickets = 0  # a resumed session would skip the check of a certificate that has expired since
    return context


def client_context(certificate: Path, key: Path, ca_pins: Iterable[str]) -> ssl.SSLContext:
    """Return a context that connects with TLS 1.3 to one party, known by its own pinned authorities alone.

    Args and errors as in `server_context`; `ca_pins` are those of the party that is dialled.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, ca_pins)


def proven_party(tls: ssl.SSLObject | ssl.SSLSocket, pins: Mapping[PartyId, Sequence[str]]) -> PartyId:
    """Return the party at the other end after the handshake.

    Args:
        tls: the connection's SSL object.
        pins: pinned authorities (PEM) by party, of every party that may be at the other end.

    Raises:
        PeerProtocolError: CERTIFICATE_UNKNOWN if the certificate names no admitted party, or was issued by any
            authority but that party's own.
    """
    der = tls.getpeercert(binary_form=True)
    if not der:
        raise PeerProtocolError("CERTIFICATE_UNKNOWN", "the other end showed no certificate")
    try:
        party = party_of(certificate := read_certificate(der))
    except ConfigError as error:
        raise PeerProtocolError("CERTIFICATE_UNKNOWN", error.what) from None
    if party not in pins:
        raise PeerProtocolError(
            "CERTIFICATE_UNKNOWN", "a certificate names a party without a link here", ids={"named": party}
        )
    if not issued_by(certificate, pins[party]):
        raise PeerProtocolError(
            "CERTIFICATE_UNKNOWN",
            "a certificate names a party but was not issued by that party's own authority",
            ids={"named": party},
            hint="Compare the authority pinned in the directory with the one in use",
        )
    return party


def explain(error: Exception, peer: str) -> ComityError:
    """Turn what TLS or a socket raised while connecting to `peer` into the error users see."""
    ids = {"party": peer}
    if isinstance(error, ComityError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        code = {_EXPIRED: "CERTIFICATE_EXPIRED", _NOT_YET_VALID: "CERTIFICATE_NOT_YET_VALID"}.get(
            error.verify_code, "CERTIFICATE_UNKNOWN"
        )
        return PeerProtocolError(code, "the other end's certificate is not accepted", got=error.verify_message, ids=ids)
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return ConfigError(
            "CERTIFICATE_REFUSED",
            "the other end refuses the connection",
            got=error.reason,
            ids=ids,
            hint="Check own certificate, its dates, and the authority that the peer's directory pins",
        )
    if isinstance(error, ssl.SSLError):
        return PeerProtocolError(
            "TLS_REQUIRED", "the other end does not speak TLS 1.3 as agreed", got=error.reason, ids=ids
        )
    if isinstance(error, TimeoutError):
        return PeerUnavailable("LINK_TIMEOUT", "the other end does not answer", ids=ids)
    if isinstance(error, EOFError):
        return PeerUnavailable(
            "LINK_CLOSED",
            "the other end closed the connection",
            ids=ids,
            hint="If this repeats while connecting, the peer may not admit this party's certificate",
        )
    return PeerUnavailable("LINK_FAILED", "no connection", got=_errno_text(error), ids=ids)


def _context(protocol: int, certificate: Path, key: Path, ca_pins: Iterable[str]) -> ssl.SSLContext:
    read_secret(key)  # refuses a key that others may read
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError):
        raise ConfigError(
            "CERTIFICATE_INVALID",
            "own certificate and key cannot be used",
            ids={"file": str(certificate)},
            hint="The key must belong to the certificate",
        ) from None
    for pin in ca_pins:
        try:
            context.load_verify_locations(cadata=pin)
        except (ValueError, ssl.SSLError):
            raise ConfigError("CERTIFICATE_INVALID", "a pinned authority is not a PEM certificate") from None
    return context


def _errno_text(error: Exception) -> str:
    # The text of an OSError may hold addresses only; its class and number say enough and nothing more.
    number = getattr(error, "errno", None)
    return type(error).__name__ if number is None else f"{type(error).__name__} {number}"
