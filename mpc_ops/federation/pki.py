"""Each party is its own certificate authority for TLS, and makes its own SSH keys.

Nobody vouches for anybody else: the directory pins the certificate of every party's authority by that party's identity
signature, two valid at once while it changes. A leaf names its party in the URI `comity:party:<id>` and lives 90 days. TLS
and SSH are classical (ECDSA P-256, Ed25519); what they carry is sealed again inside with post-quantum keys.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpc_ops.envelope.secrets import read_secret, write_secret
from mpc_ops.errors import ConfigError
from mpc_ops.ids import check_name

__all__ = [
    "CertificateAuthority",
    "Leaf",
    "PartyId",
    "SshKey",
    "check_pin",
    "create_ca",
    "create_ssh_key",
    "issue_leaf",
    "issued_by",
    "load_certificate",
    "party_of",
    "read_certificate",
    "ssh_fingerprint",
    "write_public",
]

PartyId = str
"""Id of any party: an owner, an operator or a recipient."""

_URI_PREFIX = "comity:party:"
_BACKDATED = dt.timedelta(minutes=5)  # so that a peer whose clock is a little behind accepts a fresh certificate
_CERTIFICATE_LIMIT = 16 << 10
_UNREADABLE = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType
)  # fmt: skip
"""What the library raises for certificates that it does not understand, whoever issued them."""


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A party's own authority.

    Attributes:
        party: whose it is.
        certificate: PEM text, public; this is what the directory pins.
        key: private key, never printed.
    """

    party: PartyId
    certificate: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def save(self, folder: Path) -> None:
        """Write `ca.key` (new, 0600) and `ca.pem` into `folder`."""
        write_secret(folder / "ca.key", _key_pem(self.key))
        write_public(folder / "ca.pem", self.certificate.encode("ascii"))

    @classmethod
    def load(cls, folder: Path) -> CertificateAuthority:
        """Read what `save` wrote.

        Raises:
            ConfigError: SECRET_MISSING, SECRET_PERMISSIONS, KEY_INVALID or CERTIFICATE_INVALID.
        """
        certificate = load_certificate(folder / "ca.pem")
        try:
            key = serialization.load_pem_private_key(read_secret(folder / "ca.key"), password=None)
        except (ValueError, TypeError):
            raise ConfigError("KEY_INVALID", "file is not a PEM private key", ids={"file": "ca.key"}) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigError("KEY_INVALID", "the key does not belong to the certificate", ids={"file": "ca.key"})
        return cls(party_of(certificate), _certificate_pem(certificate), key)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate for links and HTTPS, with its private key (PEM)."""

    party: PartyId
    certificate: str
    key: bytes = field(repr=False)

    def save(self, folder: Path, name: str = "tls") -> tuple[Path, Path]:
        """Write `<name>.key` (new, 0600) and `<name>.pem`; return (certificate path, key path)."""
        write_secret(folder / f"{name}.key", self.key)
        write_public(folder / f"{name}.pem", self.certificate.encode("ascii"))
        return folder / f"{name}.pem", folder / f"{name}.key"


@dataclass(frozen=True, slots=True)
class SshKey:
    """An Ed25519 key in OpenSSH's formats, for a host or an account.

    Attributes:
        private: text of the private key file.
        public: one line `ssh-ed25519 AAAA...`, without comment.
    """

    private: bytes = field(repr=False)
    public: str

    def save(self, path: Path) -> None:
        """Write the private key (new, 0600) to `path` and the public line to `<path>.pub`."""
        write_secret(path, self.private)
        write_public(path.with_name(path.name + ".pub"), f"{self.public}\n".encode("ascii"))


def create_ca(party: PartyId, valid_days: int = 3650, *, now: dt.datetime | None = None) -> CertificateAuthority:
    """Make a party's authority: self-signed, ECDSA P-256, may issue leaves only.

    Raises:
        ConfigError: NAME_INVALID.
    """
    check_name(party, "party")
    key = ec.generate_private_key(ec.SECP256R1())
    # The key's digest in the name keeps two authorities of one party apart while one replaces the other.
    name = _name(f"Comity CA {_key_id(key.public_key())[:8]} {party}")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key.public_key(), _validity(now, valid_days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectAlternativeName([_party_uri(party)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(party, _certificate_pem(certificate), key)


def issue_leaf(
    ca: CertificateAuthority,
    party: PartyId,
    hosts: Sequence[str],
    valid_days: int = 90,
    *,
    now: dt.datetime | None = None,
) -> Leaf:
    """Issue a leaf for `party` with a fresh key, for both ends of TLS.

    Args:
        ca: the party's own authority.
        party: must be the authority's party.
        hosts: DNS names and IP addresses under which the party listens; may be empty for one that only dials.
        valid_days: life time; shortened to the authority's own.
        now: start of validity, for tests; the present by default.

    Raises:
        ConfigError: CERTIFICATE_FOREIGN if the authority is another party's; HOST_INVALID.
    """
    if ca.party != party:
        raise ConfigError(
            "CERTIFICATE_FOREIGN", "an authority issues for its own party only", expected=ca.party, got=party
        )
    issuer = x509.load_pem_x509_certificate(ca.certificate.encode("ascii"))
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    start, end = _validity(now, valid_days)
    both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        _builder(
            _name(f"Comity {party}"), issuer.subject, key.public_key(), (start, min(end, issuer.not_valid_after_utc))
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(both_ends, critical=False)
        .add_extension(x509.SubjectAlternativeName([_party_uri(party), *map(_host, hosts)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    return Leaf(party, _certificate_pem(certificate), _key_pem(key))


def party_of(certificate: x509.Certificate) -> PartyId:
    """Return the party a certificate names; raise ConfigError CERTIFICATE_INVALID unless it names exactly one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        uris = []
    parties = [uri.removeprefix(_URI_PREFIX) for uri in uris if uri.startswith(_URI_PREFIX)]
    if len(parties) != 1 or len(uris) != 1:
        raise ConfigError(
            "CERTIFICATE_INVALID", "a certificate does not name one party", expected=f"one URI {_URI_PREFIX}<id>"
        )
    return check_name(parties[0], "party in a certificate")


def issued_by(certificate: x509.Certificate, ca_pins: Sequence[str]) -> bool:
    """Return whether one of the pinned authorities (PEM) signed `certificate` directly."""
    for pin in ca_pins:
        try:
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(pin.encode("ascii")))
        except (InvalidSignature, *_UNREADABLE):
            continue
        return True
    return False


def read_certificate(der: bytes) -> x509.Certificate:
    """Read a certificate as it comes over a connection; raise ConfigError CERTIFICATE_INVALID if it is not one."""
    try:
        return x509.load_der_x509_certificate(der)
    except _UNREADABLE:  # the TLS library lets more through
        raise ConfigError("CERTIFICATE_INVALID", "a certificate cannot be read") from None


def check_pin(pem: str, party: str) -> None:
    """Insist that an entry's pinned authority is one PEM certificate; raise ConfigError CERTIFICATE_INVALID naming the party."""
    try:
        found = len(x509.load_pem_x509_certificates(pem.encode("utf-8")))
    except _UNREADABLE:
        found = 0
    if found != 1:
        raise ConfigError(
            "CERTIFICATE_INVALID",
            "a party's own authority is not one PEM certificate",
            expected="one",
            got=found,
            ids={"party": party},
            hint="The party signs its directory entry again, from its own CA's file",
        )


def load_certificate(path: Path) -> x509.Certificate:
    """Read a PEM certificate file; raise ConfigError CERTIFICATE_INVALID if it is not one."""
    try:
        with path.open("rb") as file:
            return x509.load_pem_x509_certificate(file.read(_CERTIFICATE_LIMIT))
    except (OSError, *_UNREADABLE):
        raise ConfigError("CERTIFICATE_INVALID", "a certificate file cannot be read", ids={"file": str(path)}) from None


def create_ssh_key() -> SshKey:
    """Make an Ed25519 key for an SFTP host or account."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return SshKey(private, public.decode("ascii"))


def ssh_fingerprint(public: str) -> str:
    """Return OpenSSH's `SHA256:...` fingerprint of a public key line; raise ConfigError KEY_INVALID."""
    try:
        kind, blob = public.split()[:2]
        raw = base64.b64decode(blob, validate=True)
    except ValueError:
        raise ConfigError("KEY_INVALID", "not an SSH public key line", expected="ssh-ed25519 AAAA...") from None
    if kind != "ssh-ed25519" or not raw.startswith(b"\x00\x00\x00\x0bssh-ed25519"):
        raise ConfigError("KEY_INVALID", "not an Ed25519 SSH key", expected="ssh-ed25519", got=kind[:40])
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode("ascii").rstrip("=")


def write_public(path: Path, data: bytes) -> None:
    """Write a public file (0644) durably: complete under its name, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    validity: tuple[dt.datetime, dt.datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
    )


def _validity(now: dt.datetime | None, valid_days: int) -> tuple[dt.datetime, dt.datetime]:
    start = now or dt.datetime.now(dt.UTC)
    return start - _BACKDATED, start + dt.timedelta(days=valid_days)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _party_uri(party: PartyId) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(_URI_PREFIX + party)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not host or len(host) > 253 or not host.isascii() or any(sign in host for sign in " /:@*"):
        raise ConfigError("HOST_INVALID", "not a host name or IP address", got=repr(host[:80]))
    return x509.DNSName(host)


def _key_id(key: ec.EllipticCurvePublicKey) -> str:
    return x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
