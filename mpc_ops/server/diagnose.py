"""All checks of `doctor` over one operator's home: keys, certificate, disk, directory, and every peer that it dials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mpc_ops.errors import ComityError
from mpc_ops.federation.loaded import Federation
from mpc_ops.server.config import OperatorConfig, load_config, parse_address
from mpc_ops.server.doctor import (
    Finding,
    Level,
    check_certificate,
    check_disk,
    check_link,
    check_port,
    check_secret,
)
from mpc_ops.server.routing import peer_table

__all__ = ["diagnose"]

_NEED_BYTES = 512 << 20
_SECRETS = ("identity.pem", "sealing.key", "tls/ca.key", "tls/leaf.key", "ssh_host_ed25519")


def diagnose(home: Path) -> Iterator[Finding]:
    """Yield the findings for an operator's home, one by one as they are made; nothing is changed.

    Raises:
        ConfigError: if `operator.toml` cannot be read.
    """
    config = load_config(home)
    for name in _SECRETS:
        yield check_secret(config.keys / name)
    yield check_disk(config.spool, _NEED_BYTES)
    try:
        federation = Federation.load(config.federation)
        entry = federation.entry(config.id)
    except ComityError as error:
        yield Finding("federation", config.federation.name, Level.FAIL, error.what, error.code, error.hint)
        return
    yield Finding("federation", config.federation.name, Level.OK, f"is valid, own entry until {entry.valid_to}")
    yield check_certificate(config.keys / "tls" / "leaf.pem", config.id, entry.tls_cas)
    if entry.sftp is not None:
        yield check_port(f"{config.id} (drop box)", *parse_address(entry.sftp, "sftp"))
    yield from _peers(config, federation)


def _peers(config: OperatorConfig, federation: Federation) -> Iterator[Finding]:
    try:
        table = peer_table(federation, config.id)
    except ComityError as error:
        yield Finding("directory", error.ids.get("party", "peers"), Level.FAIL, error.what, error.code, error.hint)
        return
    tls = config.keys / "tls"
    for peer, endpoint in sorted(table.items()):
        if not endpoint.dial:
            continue  # the other side dials; its administrator looks
        port = check_port(peer, endpoint.host, endpoint.port)
        if port.level is not Level.OK:
            yield port
            continue
        yield check_link(
            peer,
            endpoint.host,
            endpoint.port,
            certificate=tls / "leaf.pem",
            key=tls / "leaf.key",
            ca_pins=endpoint.ca_pins,
        )
