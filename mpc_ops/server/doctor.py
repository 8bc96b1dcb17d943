"""Checks that tell an administrator what is wrong before a run does: one function per question, one finding each.

None of them changes anything, and none needs the operator process to run. `check_link` opens a connection and leaves
before HELLO, so a link that is up stays up.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mpc_ops.envelope.secrets import read_secret
from mpc_ops.errors import ComityError, PeerUnavailable
from mpc_ops.federation.pki import PartyId, issued_by, load_certificate, party_of
from mpc_ops.transport.tls import client_context, explain, proven_party

__all__ = [
    "Finding",
    "Level",
    "check_certificate",
    "check_clocks",
    "check_disk",
    "check_link",
    "check_port",
    "check_secret",
]

_SKEW_LIMIT_S = 60.0
_SKEW_WARN_S = 5.0


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question.

    Attributes:
        check: what was looked at, for example `certificate`.
        subject: which one: a file name, a party.
        level: OK, WARN (works now, will not for long) or FAIL.
        what: one sentence.
        code: stable code where an error class has one.
        hint: what to do.
    """

    check: str
    subject: str
    level: Level
    what: str
    code: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        """One line for the terminal."""
        text = f"{self.level.value:4} {self.check} {self.subject}: {self.what}"
        return f"{text}. {self.hint}" if self.hint else text


def check_port(party: PartyId, host: str, port: int, *, timeout_s: float = 5.0) -> Finding:
    """Is anybody listening there, and does the firewall let us through?"""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except TimeoutError:
        return Finding(
            "port", party, Level.FAIL, f"{host}:{port} does not answer", "PORT_UNREACHABLE", "A firewall may drop it"
        )
    except OSError as error:
        return Finding(
            "port",
            party,
            Level.FAIL,
            f"{host}:{port} cannot be reached (errno {error.errno})",
            "PORT_UNREACHABLE",
            "Look at the address in the directory, and whether the other side is running",
        )
    return Finding("port", party, Level.OK, f"{host}:{port} answers")


def check_link(
    party: PartyId,
    host: str,
    port: int,
    *,
    certificate: Path,
    key: Path,
    ca_pins: Sequence[str],
    timeout_s: float = 5.0,
) -> Finding:
    """Is it really that party at the other end of TLS 1.3? A proxy that inspects TLS shows here."""
    try:
        context = client_context(certificate, key, ca_pins)
        with (
            socket.create_connection((host, port), timeout=timeout_s) as connection,
            context.wrap_socket(connection) as tls,
        ):
            proven_party(tls, {party: ca_pins})
    except (ComityError, OSError) as error:
        cause = explain(error, party)
        unknown = cause.code in {"CERTIFICATE_UNKNOWN", "TLS_REQUIRED"}
        hint = "A proxy that inspects TLS must be bypassed for this address" if unknown else cause.hint
        what = "cannot be reached" if isinstance(cause, PeerUnavailable) else cause.what
        return Finding("link", party, Level.FAIL, what, cause.code, hint)
    return Finding("link", party, Level.OK, "TLS 1.3 with the pinned authority")


def check_certificate(
    path: Path, party: PartyId, ca_pins: Sequence[str], *, now: dt.datetime | None = None, warn_days: int = 14
) -> Finding:
    """Does the own leaf name the party, come from a pinned authority, and live long enough?"""
    moment = now or dt.datetime.now(dt.UTC)
    try:
        certificate = load_certificate(path)
        named = party_of(certificate)
    except ComityError as error:
        return Finding("certificate", path.name, Level.FAIL, error.what, error.code)
    if named != party:
        return Finding("certificate", path.name, Level.FAIL, f"names {named}, not {party}", "CERTIFICATE_FOREIGN")
    if not issued_by(certificate, ca_pins):
        return Finding(
            "certificate",
            path.name,
            Level.FAIL,
            "was not issued by an authority that the directory pins",
            "CERTIFICATE_UNKNOWN",
            "Publish a directory entry with the authority, or issue the leaf anew",
        )
    if moment < certificate.not_valid_before_utc:
        return Finding(
            "certificate", path.name, Level.FAIL, "is not valid yet", "CERTIFICATE_NOT_YET_VALID", "Look at the clock"
        )
    left = certificate.not_valid_after_utc - moment
    if left <= dt.timedelta():
        return Finding(
            "certificate",
            path.name,
            Level.FAIL,
            "has expired",
            "CERTIFICATE_EXPIRED",
            "Run `comity federation renew-tls`",
        )
    level = Level.WARN if left < dt.timedelta(days=warn_days) else Level.OK
    hint = "Run `comity federation renew-tls`" if level is Level.WARN else None
    return Finding("certificate", path.name, level, f"is valid for {left.days} more days", None, hint)


def check_clocks(own_utc_s: float, theirs_utc_s: Mapping[PartyId, float]) -> list[Finding]:
    """Do the clocks of the peers agree with ours, within the 60 s that links allow?"""
    findings = []
    for party, theirs_s in sorted(theirs_utc_s.items()):
        skew_s = theirs_s - own_utc_s
        ahead = "ahead of" if skew_s > 0 else "behind"
        if abs(skew_s) > _SKEW_LIMIT_S:
            level, code, hint = Level.FAIL, "CLOCK_SKEW", "Synchronise both clocks (NTP); links are refused until then"
        elif abs(skew_s) > _SKEW_WARN_S:
            level, code, hint = Level.WARN, "CLOCK_SKEW", "Synchronise both clocks (NTP)"
        else:
            level, code, hint = Level.OK, None, None
        findings.append(Finding("clock", party, level, f"{abs(skew_s):.1f} s {ahead} ours", code, hint))
    return findings


def check_secret(path: Path) -> Finding:
    """Is a key file there, and readable by its owner alone?"""
    try:
        read_secret(path)
    except ComityError as error:
        return Finding("key", path.name, Level.FAIL, error.what, error.code, error.hint)
    if path.parent.stat().st_mode & 0o022:
        return Finding(
            "key",
            path.name,
            Level.WARN,
            "others may replace the file, since they may write to its folder",
            "SECRET_PERMISSIONS",
            "Run chmod go-w on the folder",
        )
    return Finding("key", path.name, Level.OK, "is readable by its owner alone")


def check_disk(folder: Path, need_bytes: int, *, warn_factor: float = 2.0) -> Finding:
    """Is there room for what a run needs?"""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return Finding("disk", str(folder), Level.FAIL, "the folder is not there", "FILE_MISSING")
    free = disk.f_bavail * disk.f_frsize
    text = f"{free >> 20} MiB free, {need_bytes >> 20} MiB needed"
    if free < need_bytes:
        return Finding("disk", str(folder), Level.FAIL, text, "DISK_FULL", "Free space before the next period opens")
    if free < need_bytes * warn_factor:
        return Finding("disk", str(folder), Level.WARN, text, None, "Little room is left")
    return Finding("disk", str(folder), Level.OK, text)
